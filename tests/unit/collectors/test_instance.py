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


"""Identity of an instance as the contract has it, and how well it is read."""

import dataclasses

import pytest

from oie import model
from tests import builders
from tests.unit import measuring


def shown(instance, notes=None, **options):
    collector = measuring.collector('instance', **options)
    return measuring.shown(collector, builders.snapshot(instance), notes=notes)


def told(values):
    """Return the labels of a name that has one sample."""
    [labels] = values
    return dict(labels)


def test_info_tells_owner_flavor_and_origin():
    assert told(shown(builders.instance())['oie_instance_info']) == {
        'domain': 'instance-0000002a',
        'instance_uuid': builders.UUID,
        'project_uuid': builders.PROJECT,
        'project_name': 'shop',
        'user_uuid': builders.USER,
        'user_name': 'alice',
        'flavor': 'm1.medium',
        'vcpus': '2',
        'mem_mb': '4096',
        'root_type': 'image',
        'created_at': '2026-01-02 03:04:05',
        'metadata_version': '29.0.1',
    }


def test_what_nova_does_not_say_is_unknown_or_zero_and_ids_are_empty():
    of = model.Definition(uuid=builders.UUID, domain='guest')
    assert told(shown(builders.instance(of))['oie_instance_info']) == {
        'domain': 'guest',
        'instance_uuid': builders.UUID,
        'project_uuid': '',
        'user_uuid': '',
        **dict.fromkeys(('project_name', 'user_name', 'flavor', 'root_type'), 'unknown'),
        **dict.fromkeys(('created_at', 'metadata_version'), 'unknown'),
        **dict.fromkeys(('vcpus', 'mem_mb'), '0'),
    }


def test_info_is_one_even_for_an_instance_of_which_nothing_can_be_read():
    assert measuring.only(shown(builders.silent())['oie_instance_info']) == 1


def test_openstack_info_tells_what_nova_knows_beyond():
    labels = told(shown(builders.instance())['oie_instance_openstack_info'])
    assert (labels['name'], labels['flavor_id'], labels['metadata_ns']) == ('web-1', '42', '1.1')


def test_a_changed_definition_changes_the_info_at_once():
    notes: dict[str, object] = {}
    shown(builders.instance(), notes)
    renamed = builders.instance(builders.definition(project_name='other'))
    assert told(shown(renamed, notes)['oie_instance_info'])['project_name'] == 'other'


@pytest.mark.parametrize(
    ('field', 'name'),
    [
        ('is_fresh', 'oie_instance_data_fresh'),
        ('is_complete', 'oie_instance_data_complete'),
    ],
)
def test_whether_it_could_be_read_is_0_or_1(field, name):
    for value in (False, True):
        instance = dataclasses.replace(builders.instance(), **{field: value})
        assert measuring.only(shown(instance)[name]) == int(value)


def test_state_and_reason_are_libvirts_numbers():
    found = shown(builders.instance(state=3, state_reason=5))
    assert measuring.only(found['oie_instance_state_code']) == 3
    assert measuring.only(found['oie_instance_state_reason_code']) == 5


def test_a_busy_monitor_tells_since_when_in_seconds():
    found = shown(builders.instance(control=model.Control(state=2, busy_ms=61_500)))
    assert measuring.only(found['oie_instance_libvirt_control_state_code']) == 2
    assert measuring.only(found['oie_instance_libvirt_control_busy_seconds']) == 61.5


def test_a_free_monitor_is_zero_not_absent():
    found = shown(builders.instance(control=model.Control(state=0, busy_ms=0)))
    assert measuring.only(found['oie_instance_libvirt_control_state_code']) == 0
    assert measuring.only(found['oie_instance_libvirt_control_busy_seconds']) == 0


def test_an_instance_that_was_never_complete_has_no_time_of_success():
    found = shown(builders.silent())
    assert 'oie_instance_last_success_timestamp_seconds' not in found


def test_each_address_is_told_with_its_port():
    addresses = (builders.address(), builders.address(ip='2001:db8::5', family='ipv6'))
    of = builders.definition(addresses=addresses)
    found = shown(builders.instance(of), collector__optional='address_info')
    assert {dict(labels)['ip'] for labels in found['oie_instance_address_info']} == {
        '10.0.0.5',
        '2001:db8::5',
    }


def test_extra_specs_are_those_on_the_list_each_once():
    specs = {'hw:cpu_policy': 'dedicated', 'secret': 'x'}
    of = builders.definition(flavor=builders.flavor(extra_specs=specs))
    found = shown(
        builders.instance(of),
        collector__optional='extra_specs',
        collector_instance__extra_specs=['hw:cpu_policy', 'absent', 'hw:cpu_policy'],
    )
    labels = told(found['oie_instance_flavor_extra_spec_info'])
    assert (labels['key'], labels['value']) == ('hw:cpu_policy', 'dedicated')


def test_life_cycle_events_are_counted_by_event_and_detail():
    instance = builders.instance(lifecycle_events={('stopped', '2'): 3})
    found = shown(instance, collector__optional='lifecycle_events')
    [(labels, count)] = found['oie_instance_lifecycle_events_total'].items()
    assert (dict(labels)['event'], dict(labels)['detail'], count) == ('stopped', '2', 3)
