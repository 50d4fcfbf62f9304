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


"""CPU usage as the reference exporter shows it, and the counters behind it."""

import dataclasses

import pytest

from oie.collectors import cpu
from tests import builders
from tests.unit import measuring

OF = builders.definition()
LABELS = frozenset(OF.labels.pairs)


@pytest.fixture
def schedstats(monkeypatch, tmp_path):
    """Return a function that sets what kernel.sched_schedstats says."""
    path = tmp_path / 'sched_schedstats'
    monkeypatch.setattr(cpu, 'SCHEDSTATS', str(path))
    return lambda text: path.write_text(text)


def usages(collector, cycles):
    """Return what is exported in successive cycles of 10 s, None for nothing.

    :param cycles: usage in percent of two vCPUs, None for a failed reading
    """
    notes, previous, shown = {}, None, []
    instance = builders.instance(OF, vcpus=2)
    for percent in cycles:
        if percent is None:
            read = dataclasses.replace(
                instance, cpu_time_ns=None, read_clock_ns=instance.read_clock_ns + 10**10
            )
        else:
            used = percent / 100 * 2 * 10
            read = instance = builders.later(instance, seconds=10, cpu_seconds=used)
        current = builders.snapshot(read)
        found = measuring.shown(collector, current, previous, notes).get('oie_cpu_percent', {})
        shown.append(found.get(LABELS))
        previous = current
    return shown


def test_percent_follows_the_vector_of_the_contract():
    measured = [0, 0, 50, 5, 3, 0, 0, 12, 0]  # the first has nothing before it
    expected = [None, None, 50, 5, 3, 0, None, 12, 0]
    assert usages(measuring.collector('cpu'), measured) == expected


def test_the_first_cycle_shows_no_percent_even_where_all_is_wanted():
    collector = measuring.collector('cpu', collector__cpu_min=0)
    assert usages(collector, [50, 0, 20]) == [None, 0, 20]


def test_a_failed_reading_shows_no_percent_and_forgets_nothing():
    collector = measuring.collector('cpu')
    # The cycle after the failure has nothing to compare with; the trailing one follows then.
    assert usages(collector, [0, 50, None, 4, 4]) == [None, 50, None, None, 4]


def test_percent_is_shown_with_five_decimals_but_compared_unrounded():
    collector = measuring.collector('cpu', collector__cpu_min=33.3333)
    [_, shown] = usages(collector, [0, 33.333333333])
    assert shown == 33.33333


def test_a_stale_instance_shows_no_percent():
    collector, notes = measuring.collector('cpu', collector__cpu_min=0), {}
    known = builders.instance(OF)
    stale = dataclasses.replace(known, is_fresh=False)
    before, now = builders.snapshot(known), builders.snapshot(stale)
    assert 'oie_cpu_percent' not in measuring.shown(collector, now, before, notes)


def test_seconds_are_the_exact_counter_in_base_units():
    instance = builders.instance(OF, cpu_time_ns=1_234_567_891)
    shown = measuring.shown(measuring.collector('cpu'), builders.snapshot(instance))
    assert shown['oie_instance_cpu_seconds_total'] == {LABELS: 1.234567891}


def test_vcpus_are_summed_by_default():
    shown = measuring.shown(measuring.collector('cpu'), builders.snapshot(builders.instance(OF)))
    assert shown['oie_instance_vcpu_seconds_total'] == {LABELS: 10 + 10}
    assert shown['oie_instance_cpu_steal_seconds_total'] == {LABELS: 1 + 1}


def test_each_vcpu_has_a_series_when_wanted():
    collector = measuring.collector('cpu', collector__optional='vcpus')
    monitor = builders.monitor(
        OF, vcpus=(builders.vcpu(0, state=1), builders.vcpu(3, state=0, is_halted=True))
    )
    shown = measuring.shown(collector, builders.snapshot(builders.instance(OF, monitor=monitor)))
    by_vcpu = {n: LABELS | {('vcpu', n)} for n in '03'}
    assert shown['oie_instance_vcpu_seconds_total'] == {by_vcpu['0']: 10, by_vcpu['3']: 10}
    assert shown['oie_instance_vcpu_state_code'] == {by_vcpu['0']: 1, by_vcpu['3']: 0}
    assert shown['oie_instance_vcpu_halted'] == {by_vcpu['0']: 0, by_vcpu['3']: 1}


@pytest.mark.parametrize('vcpus', [(), (builders.vcpu(0), builders.vcpu(1, delay_ns=None))])
def test_a_sum_with_an_unknown_part_is_unknown(vcpus):
    assert cpu.total(vcpus, 'delay_ns') is None


def test_waiting_is_shown_where_the_kernel_counts_it(schedstats):
    schedstats('1\n')
    collector = measuring.collector('cpu', collector__optional='vcpu_wait')
    shown = measuring.shown(collector, builders.snapshot(builders.instance(OF)))
    assert shown['oie_instance_cpu_wait_seconds_total'] == {LABELS: 2 + 2}


@pytest.mark.parametrize('said', ['0\n', None])
def test_waiting_is_absent_where_the_kernel_does_not_count_it(schedstats, said):
    if said is not None:
        schedstats(said)
    collector = measuring.collector('cpu', collector__optional='vcpu_wait')
    shown = measuring.shown(collector, builders.snapshot(builders.instance(OF)))
    assert 'oie_instance_cpu_wait_seconds_total' not in shown


@pytest.mark.parametrize(
    ('quota', 'period', 'vcpus', 'cores'),
    [(50_000, 100_000, 2, 1.0), (None, 100_000, 2, None), (50_000, 100_000, None, None)],
)
def test_the_limit_is_quota_by_period_and_vcpu(quota, period, vcpus, cores):
    of = builders.definition(cpu_quota_us=quota, cpu_period_us=period)
    collector = measuring.collector('cpu', collector__optional='limits')
    shown = measuring.shown(collector, builders.snapshot(builders.instance(of, vcpus=vcpus)))
    expected = {} if cores is None else {LABELS: cores}
    assert shown.get('oie_instance_cpu_limit_cores', {}) == expected


def test_perf_events_are_shown_where_nova_switched_them_on():
    monitors = [builders.monitor(OF, perf=perf) for perf in ({}, {'cmt': 7, 'unheard_of': 8})]
    found = [
        measuring.shown(
            measuring.collector('cpu'), builders.snapshot(builders.instance(OF, monitor=monitor))
        )
        for monitor in monitors
    ]
    assert {name for name in found[1] if name not in found[0]} == {'oie_instance_perf_llc_bytes'}


def test_every_perf_event_of_libvirt_has_a_meter():
    assert set(cpu.PERF) == set(builders.PERF_EVENTS)


def test_vcpus_are_the_live_ones():
    shown = measuring.shown(
        measuring.collector('cpu'), builders.snapshot(builders.instance(OF, vcpus=3))
    )
    assert OF.flavor.vcpus == 2
    assert shown['oie_instance_vcpus'] == {LABELS: 3}
    assert shown['oie_instance_vcpus_maximum'] == {LABELS: 4}


def test_an_instance_whose_monitor_is_silent_keeps_what_needs_none():
    shown = measuring.shown(
        measuring.collector('cpu'), builders.snapshot(builders.instance(OF, monitor=None))
    )
    assert set(shown) == {'oie_instance_cpu_seconds_total', 'oie_instance_vcpus'}


def test_notes_hold_one_number_an_instance():
    notes: dict[str, object] = {}
    collector = measuring.collector('cpu', collector__cpu_min=0)
    known = builders.instance(OF)
    after = builders.later(known, seconds=10, cpu_seconds=4)
    measuring.shown(collector, builders.snapshot(after), builders.snapshot(known), notes)
    assert notes == {OF.uuid: 20.0}


def test_an_instance_that_just_came_does_not_disturb_the_others():
    other = builders.definition(uuid='7d2a1b4f-0000-4000-8000-000000000002', domain='b')
    known = builders.instance(OF)
    before = builders.snapshot(known)
    now = builders.snapshot(
        builders.later(known, seconds=10, cpu_seconds=20), builders.instance(other)
    )
    shown = measuring.shown(measuring.collector('cpu'), now, before)
    assert shown['oie_cpu_percent'] == {LABELS: 100.0}


def test_memory_bandwidth_and_cache_are_told_by_monitor():
    monitor = builders.monitor(OF, bandwidth=(('0', '1', 'local', 5),), cache_occupancy=())
    snapshot = builders.snapshot(builders.instance(OF, monitor=monitor))
    collector = measuring.collector('cpu', collector__optional='memory_bandwidth,cache_occupancy')
    shown = measuring.shown(collector, snapshot)
    labels = LABELS | {('monitor', '0'), ('node', '1'), ('scope', 'local')}
    assert shown['oie_instance_memory_bandwidth_bytes_total'] == {labels: 5}
    assert 'oie_instance_llc_occupancy_bytes' not in shown


def test_half_a_halt_poll_is_half_a_series():
    monitor = builders.monitor(OF, halt_poll_success_ns=500_000_000)
    snapshot = builders.snapshot(builders.instance(OF, monitor=monitor))
    shown = measuring.shown(measuring.collector('cpu', collector__optional='halt_poll'), snapshot)
    assert shown['oie_instance_halt_poll_seconds_total'] == {LABELS | {('result', 'success')}: 0.5}
