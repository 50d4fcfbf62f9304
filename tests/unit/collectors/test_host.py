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


"""Sums over the instances while they are known, the health of libvirt always."""

from oie import model
from tests import builders
from tests.unit import measuring

GIB = builders.GIB
COLLECTOR = measuring.collector('host')
SUMS = {'oie_host_active_vms', 'oie_host_active_vcpus', 'oie_host_active_mem_gbytes'}


def instance(number, **more):
    of = builders.definition(uuid=f'00000000-0000-4000-8000-{number:012}', domain=f'i-{number}')
    return builders.instance(of, **more)


def shown(snapshot):
    return measuring.shown(COLLECTOR, snapshot)


def test_sums_are_those_of_the_live_instances():
    found = shown(
        builders.snapshot(
            instance(1, vcpus=2, memory_maximum_bytes=4 * GIB),
            instance(2, vcpus=1, memory_maximum_bytes=5 * GIB // 2),
        )
    )
    assert {name: measuring.only(found[name]) for name in SUMS} == {
        'oie_host_active_vms': 2,
        'oie_host_active_vcpus': 2 + 1,
        'oie_host_active_mem_gbytes': 4 + 2.5,
    }


def test_instances_that_nobody_pays_for_are_counted():
    name = 'oie_host_instances_without_project'
    ours = shown(builders.snapshot(instance(1)))
    assert measuring.only(ours[name]) == 0
    mixed = shown(builders.snapshot(instance(1), builders.stranger()))
    assert measuring.only(mixed[name]) == 1
    unknown = shown(builders.snapshot(read_at=None, error='libvirt is down'))
    assert name not in unknown


def test_an_instance_that_does_not_tell_counts_but_adds_nothing():
    unknown = instance(2, vcpus=None, memory_maximum_bytes=None)
    found = shown(builders.snapshot(instance(1, vcpus=2, memory_maximum_bytes=4 * GIB), unknown))
    assert measuring.only(found['oie_host_active_vms']) == 2
    assert measuring.only(found['oie_host_active_vcpus']) == 2
    assert measuring.only(found['oie_host_active_mem_gbytes']) == 4


def test_sums_of_nothing_known_are_unknown_not_zero():
    found = shown(builders.snapshot(instance(1, vcpus=None, memory_maximum_bytes=None)))
    assert SUMS & set(found) == {'oie_host_active_vms'}


def test_an_empty_host_has_zero_instances():
    found = shown(builders.snapshot())
    assert {measuring.only(found[name]) for name in SUMS} == {0}


def test_before_the_first_listing_the_sums_are_unknown():
    found = shown(builders.snapshot(read_at=None, error='libvirt is down'))
    assert not SUMS & set(found)
    assert measuring.only(found['oie_libvirt_up']) == 0


def test_last_values_are_summed_while_they_are_shown():
    found = shown(builders.snapshot(instance(1), error='libvirt is down'))
    assert measuring.only(found['oie_host_active_vms']) == 1
    assert measuring.only(found['oie_libvirt_up']) == 0


def test_once_the_last_values_have_expired_the_sums_are_unknown_not_zero():
    found = shown(builders.snapshot(error='libvirt is down'))
    assert not SUMS & set(found)


def test_instances_that_cannot_be_read_count_and_add_nothing():
    hypervisor = model.Hypervisor(active_instances=2)
    found = shown(builders.snapshot(instance(1, vcpus=2), hypervisor=hypervisor))
    assert measuring.only(found['oie_host_active_vms']) == 2
    assert measuring.only(found['oie_host_active_vcpus']) == 2


def test_sums_are_unknown_where_no_instance_can_be_read_but_their_number():
    hypervisor = model.Hypervisor(active_instances=2)
    found = shown(builders.snapshot(read_at=None, error='denied', hypervisor=hypervisor))
    assert SUMS & set(found) == {'oie_host_active_vms'}
    assert measuring.only(found['oie_host_active_vms']) == 2
    assert measuring.only(found['oie_libvirt_up']) == 0
    assert 'oie_host_instances_without_project' not in found


def test_time_of_the_last_listing_is_told_once_there_was_one():
    name = 'oie_libvirt_last_listing_timestamp_seconds'
    assert name not in shown(builders.snapshot())
    found = shown(builders.snapshot(hypervisor=model.Hypervisor(listed_at=7.5)))
    assert measuring.only(found[name]) == 7.5


def test_health_is_live_while_libvirt_is_down():
    snapshot = builders.snapshot(
        read_at=None,
        error='libvirt is down',
        hypervisor=model.Hypervisor(reconnects=3, stuck_calls=2, suspects=1),
    )
    found = shown(snapshot)
    assert measuring.only(found['oie_libvirt_reconnects_total']) == 3
    assert measuring.only(found['oie_libvirt_stuck_calls']) == 2
    assert measuring.only(found['oie_libvirt_suspect_domains']) == 1


def test_errors_of_every_reason_are_there_from_the_start():
    found = shown(builders.snapshot(hypervisor=model.Hypervisor(domain_errors={'new': 2})))
    told = {dict(labels)['reason']: n for labels, n in found['oie_domain_errors_total'].items()}
    assert told.pop('new') == 2
    assert told == dict.fromkeys(told, 0)
    assert {'timeout', 'gone', 'partial', 'parse'} <= set(told)


def test_calls_are_a_summary_and_timeouts_stand_beside():
    calls = {'list': model.CallStatistics(count=3, seconds=0.75, timeouts=1)}
    found = shown(builders.snapshot(hypervisor=model.Hypervisor(calls=calls)))
    assert measuring.only(found['oie_libvirt_call_duration_seconds_sum']) == 0.75
    assert measuring.only(found['oie_libvirt_call_duration_seconds_count']) == 3
    assert measuring.only(found['oie_libvirt_call_timeouts_total']) == 1


def test_listing_time_is_rounded_as_the_contract_has_it():
    found = shown(builders.snapshot(hypervisor=builders.hypervisor(list_seconds=0.012345678)))
    assert measuring.only(found['oie_host_libvirt_list_duration_seconds']) == 0.01235


def test_versions_are_told_once_they_are_known():
    assert 'oie_libvirt_info' not in shown(builders.snapshot())
    [labels] = shown(builders.snapshot(hypervisor=builders.hypervisor()))['oie_libvirt_info']
    assert dict(labels) == {
        'libvirt_version': '9.0.0',
        'hypervisor': 'QEMU',
        'hypervisor_version': '7.2.22',
    }
