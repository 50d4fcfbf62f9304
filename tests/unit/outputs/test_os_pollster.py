# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.


"""``oie-pollster os``: the entries of the reference, and what Gnocchi needs."""

import json

import pytest

from oie import exceptions
from oie import model
from oie.cmd import wiring
from tests import builders
from tests.unit import measuring

# README of ceilometer-instance-poller 1.0.0, the example output; the order is not told.
REFERENCE = {
    'resource_id': str,
    'vcpus': int,
    'os_family': str,
    'os_distro': str,
    'os_info': str,
    'os_version_major': int,
    'os_version_minor': int,
    'os_product_name': str,
    'os_product_variant': str,
}


def entries(found=None, *, as_integers=False, of=None):
    """Return the entries of one instance, ``found`` its system."""
    instance = builders.instance(of)
    known = {} if found is None else {instance.definition.uuid: found}
    snapshot = builders.snapshot(instance, guest_os=known)
    conf = measuring.options(guest_os__numbers_as_integers=as_integers)
    return json.loads(wiring.pollsters(conf=conf)['os'].render(snapshot))


def test_every_key_of_the_reference_is_there():
    [entry] = entries(builders.guest_os())
    assert {key: entry[key] for key in REFERENCE} == {
        'resource_id': builders.UUID,
        'vcpus': 2,
        'os_family': 'windows',
        'os_distro': 'windows',
        'os_info': 'win2k22',
        'os_version_major': '10',
        'os_version_minor': '0',
        'os_product_name': 'Windows Server 2022',
        'os_product_variant': 'Server',
    }


def test_drop_in_has_the_types_of_the_reference():
    [entry] = entries(builders.guest_os(), as_integers=True)
    assert {key: type(entry[key]) for key in REFERENCE} == REFERENCE
    assert (entry['os_version_major'], entry['os_version_minor']) == (10, 0)


def test_our_own_keys_come_beside():
    [entry] = entries(builders.guest_os())
    assert entry['project_id'] == builders.PROJECT
    assert (entry['os_version'], entry['os_source']) == ('10.0', 'nova_image')
    assert entry['license_units'] == 2


def test_what_is_not_known_is_a_text_never_null():
    [entry] = entries(model.GuestOs(source='unknown'))
    texts = {key: value for key, value in entry.items() if key.startswith('os_v')}
    assert texts == dict.fromkeys(
        ('os_version', 'os_version_major', 'os_version_minor'), 'unknown'
    )
    [entry] = entries(model.GuestOs(source='unknown'), as_integers=True)
    assert (entry['os_version_major'], entry['os_version_minor']) == (0, 0)


def test_who_was_not_looked_at_is_pending_and_needs_no_known_licence():
    [entry] = entries()
    assert (entry['os_family'], entry['os_source']) == ('unknown', 'pending')
    assert (entry['vcpus'], entry['license_units']) == (2, None)


def test_hostile_texts_fit():
    [entry] = entries(builders.guest_os(product_name='a\0b\ud800' + 'x' * 999))
    assert len(entry['os_product_name']) == 255
    assert entry['os_product_name'].encode()


def test_switched_off_is_a_sentence_never_an_empty_list():
    snapshot = builders.snapshot(builders.instance(), guest_os=None)
    with pytest.raises(exceptions.PollsterError, match=r'\[guest_os\] enabled'):
        wiring.pollsters()['os'].render(snapshot)


def test_meters_are_the_vcpus_and_the_licences():
    columns = wiring.pollsters()['os'].columns
    names = {meter.ceilometer: (meter.field, meter.kind.value, meter.unit) for meter, _ in columns}
    assert names == {
        'oie.os.vcpus': ('vcpus', 'gauge', 'vcpu'),
        'oie.license.units': ('license_units', 'gauge', 'unit'),
    }
