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

"""``oie-pollster routers``: a router of Neutron is a resource, without a project."""

import json

import pytest

from oie import exceptions
from oie import model
from oie.cmd import wiring
from tests import builders
from tests.unit import measuring

UNKNOWN = model.Reading(value=None, read_at=None, seconds=0.0)


def render(reading, **options):
    conf = measuring.options(**options)
    snapshot = builders.snapshot(builders.stranger(), namespaces=reading)
    return wiring.pollsters(conf=conf)['routers'].render(snapshot)


def entries(*namespaces, **options):
    return json.loads(render(builders.namespaces(*namespaces), **options))


def test_the_resource_is_the_router_and_nobody_pays_for_it():
    [entry] = entries(builders.netns(), builders.dhcp_netns())
    groups = {key: value for key, value in entry.items() if isinstance(value, list)}
    assert {key: value for key, value in entry.items() if key not in groups} == {
        'resource_id': builders.ROUTER,
        # A namespace does not tell: see oie/outputs/ceilometer.py.
        'project_id': None,
        'user_id': None,
        'router_id': builders.ROUTER,
        'host': builders.HOST,
        'netns': f'qrouter-{builders.ROUTER}',
        'devices': 'qg-aabbcc1',
        'incoming_bytes': 1003,
        'outgoing_bytes': 1004,
        'incoming_packets': 1001,
        'outgoing_packets': 1002,
        'conntrack_entries': 81,
    }
    found = [each for key, each in groups.items() for each in each]
    assert {next(iter(each.values())): each['value'] for each in found} == {
        'router.external.incoming.bytes': 1003,
        'router.external.outgoing.bytes': 1004,
        'router.external.incoming.packets': 1001,
        'router.external.outgoing.packets': 1002,
        'router.conntrack.entries': 81,
    }


def test_a_router_on_a_host_is_a_resource_where_that_is_asked_for():
    """Counters of two hosts in one resource would be a jump at each failover."""
    [entry] = entries(builders.netns(), netns__routers_by_host=True)
    assert entry['resource_id'] == f'{builders.ROUTER}-{builders.HOST}'
    assert entry['router_id'] == builders.ROUTER


def test_what_is_external_is_an_option():
    [entry] = entries(builders.netns(), netns__external_devices=['q[gr]-*'])
    assert entry['devices'] == 'qg-aabbcc1,qr-aabbcc2'
    assert entry['incoming_bytes'] == 2 * 1003
    assert entries(builders.netns(), netns__external_devices=['rfp-*']) == []


def test_what_could_not_be_read_is_null_and_all_keys_are_there():
    whole, unread = builders.netns(), builders.netns(devices=None)
    [known], [unknown] = entries(whole), entries(unread)
    assert known.keys() == unknown.keys()
    assert unknown['incoming_bytes'] is None
    assert unknown['conntrack_entries'] is None
    assert unknown['routers_gauge_entry'][0]['value'] is None


def test_nothing_is_asked_for_where_namespaces_are_not_read():
    """They are not by default, and the definitions are shipped for every node."""
    assert render(UNKNOWN) == b'[]\n'


@pytest.mark.parametrize(
    ('known', 'reason'),
    [
        ({'read_at': None, 'error': 'EPERM'}, 'EPERM'),
        ({'read_at': builders.NOW - 900}, 'too long ago'),
    ],
)
def test_a_table_that_could_not_be_had_is_no_empty_list(known, reason):
    failed = model.Reading(value=None, seconds=0.0, **known)
    with pytest.raises(exceptions.PollsterError, match=f'are not known: .*{reason}'):
        render(failed)


def test_the_same_is_printed_every_time_whatever_the_order():
    first, second = builders.netns(), builders.netns('qrouter-ff', uuid='ff')
    assert render(builders.namespaces(first, second)) == render(builders.namespaces(second, first))


def test_names_of_hundreds_of_devices_are_cut_and_not_their_sums():
    name = f'qrouter-{builders.ROUTER}'
    devices = tuple(builders.netns_device(name, f'qg-{n:011}') for n in range(100))
    [entry] = entries(builders.netns(devices=devices))
    assert len(entry['devices']) == 255
    assert entry['incoming_bytes'] == 100 * 1003


def test_it_needs_no_instances_and_so_no_libvirt():
    assert wiring.pollsters()['routers'].needs == {'namespaces'}
