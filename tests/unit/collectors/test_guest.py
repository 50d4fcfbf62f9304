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


"""Operating systems, licences and inspections as series."""

import dataclasses

from oie import model
from oie.collectors import guest
from tests import builders
from tests.unit import measuring

IDENTITY = {
    'domain': 'instance-0000002a',
    'instance_uuid': builders.UUID,
    'project_uuid': builders.PROJECT,
    'user_uuid': builders.USER,
}
WINDOWS = {
    'os_family': 'windows',
    'os_distro': 'windows',
    'os_info': 'win2k22',
    'os_version': '10.0',
    'os_product_name': 'Windows Server 2022',
    'os_source': 'nova_image',
}


def shown(found, **more):
    instance = builders.instance()
    snapshot = builders.snapshot(
        instance, guest_os={instance.definition.uuid: found} if found else {}, **more
    )
    return measuring.shown(measuring.collector('guest'), snapshot)


def labels(**more):
    return frozenset({**IDENTITY, **more}.items())


def test_a_guest_has_its_system_and_its_licence():
    assert shown(builders.guest_os()) == {
        'oie_instance_os_info': {labels(**WINDOWS): 1},
        'oie_instance_license_units': {labels(): 2},
    }


def test_a_guest_that_needs_no_licence_has_none():
    assert shown(builders.debian())['oie_instance_license_units'] == {labels(): 0}


def test_a_guest_of_which_nothing_is_known_has_unknown_and_no_units():
    unknown = dict.fromkeys(WINDOWS, 'unknown')
    assert shown(model.GuestOs()) == {
        'oie_instance_os_info': {labels(**{**unknown, 'os_source': 'pending'}): 1}
    }


def test_times_are_in_no_label():
    """A label that changes makes a second series, which CloudKitty charges again."""
    first = shown(builders.guest_os())
    assert shown(builders.guest_os(learned_at=builders.NOW)) == first


def test_switched_off_shows_nothing():
    snapshot = builders.snapshot(builders.instance(), guest_os=None)
    assert measuring.shown(measuring.collector('guest'), snapshot) == {}


def test_labels_are_the_same_object_while_nothing_changes():
    instance, found = builders.instance(), builders.guest_os()
    uuid, notes = instance.definition.uuid, {}

    def of(found):
        snapshot = builders.snapshot(instance, guest_os={uuid: found})
        families = measuring.collector('guest').collect(None, snapshot, notes)
        return [f.samples[0][0] for f in families if f.meter is guest.OS_INFO][0]

    first = of(found)
    assert of(found) is first
    assert of(dataclasses.replace(found, info='win2k19')) is not first


def test_the_work_of_slow_drivers_is_shown():
    found = shown(None, guest_os_health=builders.guest_os_health())
    assert found == {
        'oie_guest_os_queue': {frozenset(): 4},
        'oie_guest_os_inspecting': {frozenset(): 1},
        'oie_guest_os_inspections_total': {frozenset(): 31},
        'oie_guest_os_inspection_seconds_total': {frozenset(): 12.5},
        'oie_guest_os_failures_total': {
            frozenset({('reason', 'not_connected')}): 3,
            frozenset({('reason', 'timeout')}): 1,
        },
    }
