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


"""The cycle: on time, never mixed, and whatever breaks costs only itself."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import logging
import threading

import pytest

from oie import model
from oie import service
from oie.collectors import base
from tests import builders
from tests.unit import measuring

METER = model.Meter(
    prometheus='oie_x', unit='1', kind=model.Kind.GAUGE, help='X.', source='nothing'
)
A = builders.definition(uuid='aaaaaaaa-0000-4000-8000-000000000001', domain='a')
B = builders.definition(uuid='bbbbbbbb-0000-4000-8000-000000000002', domain='b')


class Clock:
    """A clock that stands still until somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waited: list[float] = []
        # By how much somebody set the time of day.
        self.offset = 0.0

    def time(self) -> float:
        return builders.NOW + self.offset + self.now

    def monotonic(self) -> float:
        return 5000.0 + self.now

    def wait(self, seconds: float) -> None:
        self.waited.append(seconds)
        self.now += max(0.0, seconds)


class Source:
    """Gives what it is told to, or raises it; reading takes ``seconds``."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.seconds = 0.5
        self.instances: tuple[model.Instance, ...] = (builders.instance(A), builders.instance(B))
        self.error: str | Exception = ''
        self.read_at: float | None = None
        self.started_at: list[float] = []
        self.is_closed = False

    def read(self) -> model.Reading[tuple[model.Instance, ...]]:
        self.started_at.append(self.clock.now)
        self.clock.now += self.seconds
        if isinstance(self.error, Exception):
            raise self.error
        if self.error:
            self.instances = tuple(
                dataclasses.replace(each, is_fresh=False) for each in self.instances
            )
        else:
            self.read_at = self.clock.time()
            self.instances = tuple(self.fresh(each) for each in self.instances)
        return model.Reading(
            value=self.instances, read_at=self.read_at, seconds=self.seconds, error=self.error
        )

    def fresh(self, instance: model.Instance) -> model.Instance:
        """Return an instance read just now, if it could be."""
        if not instance.is_fresh:
            return instance
        return dataclasses.replace(
            instance, read_at=self.clock.time(), read_clock_ns=round(self.clock.now * 1e9)
        )

    def hypervisor(self) -> model.Hypervisor:
        return model.Hypervisor(is_connected=not self.error)

    def close(self) -> None:
        self.is_closed = True


class Flows:
    """Gives a table of the fixed IPs it is asked for, or the error it is told."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.error: str | Exception = ''
        self.asked: list[tuple[tuple[str, ...], float]] = []
        self.is_closed = False

    def read(self, instances, max_age, known) -> dict[str, object]:
        self.asked.append((tuple(i.definition.domain for i in instances), max_age))
        self.known = known
        self.clock.now += 0.25
        if isinstance(self.error, Exception):
            raise self.error
        flows = dataclasses.replace(builders.flows_of(*instances), seconds=0.25, error=self.error)
        return {'flows': flows, 'flow_health': builders.flow_health()}

    def close(self) -> None:
        self.is_closed = True


class Slow:
    """Reads nothing for some seconds, then calls a function."""

    clock: Clock

    def __init__(self, seconds: float, then: Callable[[], None] = lambda: None) -> None:
        self.seconds, self.then = seconds, then

    def read(self, instances, max_age, known) -> dict[str, object]:
        self.clock.now += self.seconds
        self.then()
        return {}

    def close(self) -> None:
        pass


class Renderer:
    """Keeps the families as they are."""

    error: Exception | None = None

    def render(self, families: Iterator[model.Family]) -> list[model.Family]:
        if self.error is not None:
            raise self.error
        return list(families)


class Counting(base.Collector):
    """Shows how many instances there are and notes each."""

    def collect(self, previous, current, notes):
        for instance in current.instances.value:
            notes[instance.definition.uuid] = True
        yield model.Family.of(METER, [(model.NO_LABELS, len(current.instances.value))])


class Broken(base.Collector):
    """Fails in the middle of its work."""

    def collect(self, previous, current, notes):
        yield model.Family.of(METER, [(model.Labels.of(of='broken'), 1)])
        raise ValueError('half')


@dataclasses.dataclass
class Parts:
    clock: Clock
    source: Source
    renderer: Renderer
    service: service.Service

    def shown(self) -> measuring.Samples:
        """Return what the latest publication shows."""
        assert self.service.published is not None
        return measuring.samples(self.service.published.exposition)

    def uuids(self) -> set[str]:
        """Return the instances of the latest publication."""
        assert self.service.published is not None
        instances = self.service.published.snapshot.instances.value
        return {instance.definition.uuid for instance in instances}

    def cycles(self, number: int, interval: float = 10.0) -> None:
        """Run some cycles at their times."""
        for _ in range(number):
            started = self.clock.now
            self.service.cycle()
            self.clock.now = started + interval


def made(
    slow: Mapping[str, Slow] | None = None,
    *,
    interval: float = 10.0,
    expiration: float = 30.0,
    **collectors: base.Collector,
) -> Parts:
    """Return a service with these collectors, by default one that counts instances."""
    clock = Clock()
    for reader in (slow or {}).values():
        reader.clock = clock
    source, renderer = Source(clock), Renderer()
    return Parts(
        clock,
        source,
        renderer,
        service.Service(
            source,
            collectors or {'counting': Counting(None, None)},
            renderer,
            hostname='cmp1',
            interval=interval,
            expiration=expiration,
            readers=slow,
            clock=clock,
            wait=clock.wait,
        ),
    )


def starts(parts: Parts, number: int, seconds: Callable[[int], float]) -> list[float]:
    """Run so many cycles of this length; return when each began."""
    read = parts.source.read

    def reading():
        count = len(parts.source.started_at)
        parts.source.seconds = seconds(count)
        if count + 1 == number:
            parts.service.stop()
        return read()

    parts.source.read = reading  # type: ignore[method-assign]
    parts.service.run()
    return parts.source.started_at


# --- the schedule -----------------------------------------------------------


def test_cycles_start_at_fixed_times_however_long_they_take():
    assert starts(made(), 5, lambda n: 0.5 + n) == [0, 10, 20, 30, 40]


def test_a_cycle_as_long_as_the_interval_misses_nothing():
    parts = made(exporter=measuring.collector('exporter'))
    assert starts(parts, 3, lambda n: 10.0) == [0, 10, 20]
    assert measuring.only(parts.shown()['oie_host_collection_missed_total']) == 0


def test_a_cycle_that_takes_too_long_skips_the_times_it_missed_and_keeps_the_schedule():
    parts = made(exporter=measuring.collector('exporter'))
    found = starts(parts, 4, lambda n: 25.0 if n == 1 else 1.0)
    # The second runs from 10 to 35: 20 and 30 are missed, 40 is next.
    assert found == [0, 10, 40, 50]
    assert measuring.only(parts.shown()['oie_host_collection_missed_total']) == 2


def test_a_failing_cycle_does_not_disturb_the_schedule():
    parts = made()
    parts.source.error = RuntimeError('bang')
    assert starts(parts, 3, lambda n: 0.5) == [0, 10, 20]


def test_stop_ends_a_running_service_soon_and_lets_go_of_the_source():
    source = Source(Clock())
    running = service.Service(
        source, {}, Renderer(), hostname='cmp1', interval=3600, expiration=10
    )
    running.start()
    [thread] = [each for each in threading.enumerate() if each.name == 'oie-cycle']
    assert running.is_running
    running.stop(timeout=5)
    assert not thread.is_alive()
    assert not running.is_running
    assert source.is_closed


# --- one cycle --------------------------------------------------------------


def test_nothing_is_published_before_the_first_cycle():
    assert made().service.published is None


def test_a_publication_is_one_cycle_and_never_changes():
    parts = made()
    parts.cycles(1)
    first = parts.service.published
    parts.source.instances = parts.source.instances[:1]
    parts.cycles(1)
    assert first is not parts.service.published
    assert first is not None
    assert len(first.snapshot.instances.value) == 2
    assert measuring.only(parts.shown()['oie_x']) == 1


def test_collectors_see_the_snapshot_of_the_cycle_before():
    seen = []

    class Comparing(base.Collector):
        """Notes what it is given."""

        def collect(self, previous, current, notes):
            seen.append((previous, current))
            return iter(())

    parts = made(comparing=Comparing(None, None))
    parts.cycles(3)
    assert seen[0][0] is None
    assert [previous for previous, _ in seen[1:]] == [current for _, current in seen[:-1]]


def test_a_broken_collector_costs_only_itself(caplog):
    parts = made(
        broken=Broken(None, None),
        counting=Counting(None, None),
        exporter=measuring.collector('exporter'),
    )
    with caplog.at_level(logging.WARNING):
        parts.cycles(3)
    shown = parts.shown()
    assert shown['oie_x'] == {frozenset(): 2}  # nothing of the half it gave
    success = {dict(k)['group']: v for k, v in shown['oie_collector_success'].items()}
    assert success == {'libvirt': 1, 'broken': 0, 'counting': 1, 'exporter': 1}
    assert len(caplog.messages) == 1


def test_the_figures_about_ourselves_tell_of_all_other_groups_of_the_same_cycle():
    parts = made(exporter=measuring.collector('exporter'), counting=Counting(None, None))
    parts.cycles(1)
    shown = parts.shown()
    success = {dict(k)['group'] for k in shown['oie_collector_success']}
    assert success == {'libvirt', 'counting'}
    series = {dict(k)['group']: v for k, v in shown['oie_exporter_series'].items()}
    assert series == {'counting': 1}


def test_last_success_of_a_group_stays_when_it_breaks():
    parts = made(counting=Counting(None, None), exporter=measuring.collector('exporter'))
    parts.cycles(1)
    parts.service._collectors = {**parts.service._collectors, 'counting': Broken(None, None)}
    parts.cycles(1)
    shown = parts.shown()['oie_collector_last_success_timestamp_seconds']
    times = {dict(k)['group']: v for k, v in shown.items()}
    assert times['counting'] == builders.NOW + 0.5
    assert times['libvirt'] == builders.NOW + 10.5


@pytest.mark.parametrize('broken', ['source', 'renderer'])
def test_a_cycle_that_fails_publishes_nothing_new_but_counts(broken, caplog):
    parts = made(exporter=measuring.collector('exporter'))
    parts.cycles(1)
    before = parts.service.published
    getattr(parts, broken).error = RuntimeError('bang')
    with caplog.at_level(logging.WARNING):
        parts.cycles(2)
    assert parts.service.published is before
    assert parts.service.ended == 3
    assert len(caplog.messages) == 1
    getattr(parts, broken).error = '' if broken == 'source' else None
    parts.cycles(1)
    assert parts.service.published is not before
    assert measuring.only(parts.shown()['oie_host_collection_errors_total']) == 2


def test_statistics_of_the_endpoint_and_of_reloads_are_those_of_the_moment():
    clock, requests, reloads = Clock(), iter((1, 2)), iter((11, 12))
    running = service.Service(
        Source(clock),
        {'exporter': measuring.collector('exporter')},
        Renderer(),
        hostname='cmp1',
        interval=10,
        expiration=10,
        web=lambda: model.WebStatistics(requests={'2xx': next(requests)}),
        reloads=lambda: model.Reloads(errors=next(reloads)),
        clock=clock,
    )
    for expected in (1, 2):
        running.cycle()
        assert running.published is not None
        shown = measuring.samples(running.published.exposition)
        assert measuring.only(shown['oie_exporter_http_requests_total']) == expected
        assert measuring.only(shown['oie_exporter_config_reload_errors_total']) == 10 + expected


# --- flows ------------------------------------------------------------------


def with_flows(**collectors: base.Collector) -> tuple[Parts, Flows]:
    """Return a service that reads flows too."""
    parts = made(exporter=measuring.collector('exporter'), **collectors)
    flows = parts.service._readers['conntrack'] = Flows(parts.clock)
    return parts, flows


def test_flows_are_read_for_the_instances_that_are_shown():
    parts, flows = with_flows(flows=measuring.collector('flows'))
    parts.cycles(1)
    assert flows.asked == [(('a', 'b'), parts.service.max_age())]
    shown = parts.shown()
    uuids = {dict(labels)['instance_uuid'] for labels in shown['oie_conntrack_ip_flows_total']}
    assert uuids == {A.uuid, B.uuid}
    success = {dict(k)['group']: v for k, v in shown['oie_collector_success'].items()}
    assert success == {'libvirt': 1, 'conntrack': 1, 'flows': 1}


def test_a_table_that_cannot_be_read_counts_as_an_error_and_costs_only_itself():
    parts, flows = with_flows(counting=Counting(None, None))
    flows.error = 'EPERM'
    parts.cycles(2)
    shown = parts.shown()
    assert measuring.only(shown['oie_host_collection_errors_total']) == 2
    assert measuring.only(shown['oie_x']) == 2
    success = {dict(k)['group']: v for k, v in shown['oie_collector_success'].items()}
    assert success['conntrack'] == 0
    assert success['libvirt'] == 1


def test_a_reader_that_breaks_costs_only_its_own_fields():
    parts, flows = with_flows(counting=Counting(None, None))
    parts.cycles(1)
    flows.error = ZeroDivisionError('a defect')
    parts.cycles(1)
    shown = parts.shown()
    assert measuring.only(shown['oie_x']) == 2
    assert measuring.only(shown['oie_host_collection_errors_total']) == 1
    success = {dict(k)['group']: v for k, v in shown['oie_collector_success'].items()}
    assert (success['conntrack'], success['libvirt']) == (0, 1)
    last = shown['oie_collector_last_success_timestamp_seconds']
    assert 'conntrack' in {dict(labels)['group'] for labels in last}


def test_where_nobody_wants_flows_nothing_is_known_of_their_table():
    parts = made(exporter=measuring.collector('exporter'), flows=measuring.collector('flows'))
    parts.cycles(1)
    snapshot = parts.service.published.snapshot
    assert (snapshot.flows.value, snapshot.flow_health) == (None, None)
    assert not [name for name in parts.shown() if 'conntrack' in name]
    groups = {dict(labels)['group'] for labels in parts.shown()['oie_collector_success']}
    assert 'conntrack' not in groups


def test_stop_lets_go_of_the_table():
    parts, flows = with_flows()
    parts.service.stop()
    assert flows.is_closed


# --- what the reference tells of its cycle ----------------------------------


def test_lag_is_the_time_since_the_end_of_the_last_good_cycle():
    parts = made(exporter=measuring.collector('exporter'))
    parts.cycles(1)
    assert measuring.only(parts.shown()['oie_host_collection_lag_seconds']) == 0
    parts.cycles(1)
    # The first ended at 0.5, the second began at 10.
    assert measuring.only(parts.shown()['oie_host_collection_lag_seconds']) == 10 - 0.5
    parts.source.error = 'libvirt is down'
    parts.cycles(2)
    # The last good one ended at 10.5, the fourth began at 30.
    assert measuring.only(parts.shown()['oie_host_collection_lag_seconds']) == 30 - 10.5


def test_duration_is_that_of_this_cycle():
    parts = made(exporter=measuring.collector('exporter'))
    parts.source.seconds = 1.25
    parts.cycles(1)
    assert measuring.only(parts.shown()['oie_host_collection_duration_seconds']) == 1.25


def test_a_failed_listing_counts_as_an_error():
    parts = made(exporter=measuring.collector('exporter'))
    parts.source.error = 'libvirt is down'
    parts.cycles(3)
    assert measuring.only(parts.shown()['oie_host_collection_errors_total']) == 3


# --- last values, and their end (S12) ---------------------------------------


def test_a_failing_source_keeps_its_last_values_until_they_expire():
    parts = made(interval=10, expiration=30)
    parts.cycles(1)  # read at 0.5
    parts.source.error = 'libvirt is down'
    parts.cycles(3)  # served at 10.5, 20.5 and 30.5: 30 s old, the limit
    assert parts.uuids() == {A.uuid, B.uuid}
    assert not any(i.is_fresh for i in parts.service.published.snapshot.instances.value)
    parts.cycles(1)  # 40.5
    assert parts.uuids() == set()
    assert parts.service.published.snapshot.instances.read_at == builders.NOW + 0.5


@pytest.mark.parametrize(
    ('interval', 'expiration', 'seconds', 'expected'),
    [
        (10, 60, 0.5, 60),
        (10, 10, 0.5, 2 * 10 + 0.5),
        (1, 10, 0.5, 10),
        (10, 10, 7, 2 * 10 + 7),
        (10, 10, 21, 2 * 30 + 21),
    ],
)
@pytest.mark.parametrize('of_readers', [0.0, 0.5, 1.0])
def test_expiration_is_never_less_than_two_times_and_a_cycle(
    interval, expiration, seconds, expected, of_readers
):
    slow = Slow(seconds * of_readers)
    parts = made({'slow': slow}, interval=interval, expiration=expiration)
    parts.source.seconds = seconds * (1 - of_readers)
    parts.cycles(1)
    assert parts.service.max_age() == pytest.approx(expected)


@pytest.mark.parametrize('seconds', [5, 15, 19, 21, 45])
def test_a_slow_reader_ends_nothing_that_libvirt_gave(seconds):
    ages = []

    def look() -> None:
        # When the reader has come back what is published is at its oldest.
        published = parts.service.published
        if published is not None:
            age = parts.clock.time() - published.snapshot.instances.read_at
            ages.append(age - parts.service.max_age())

    parts = made({'slow': Slow(seconds, look)}, interval=10, expiration=10)
    starts(parts, 6, lambda _count: 0.3)

    assert len(ages) == 5
    assert max(ages) <= 0


def test_what_was_read_before_the_clock_was_set_back_is_not_young():
    parts = made(interval=10, expiration=10)
    parts.cycles(1)
    parts.source.error = 'libvirt is down'
    parts.clock.offset = -3600.0
    parts.cycles(1)
    assert parts.uuids() == set()


def test_one_instance_that_cannot_be_read_expires_alone():
    parts = made(interval=10, expiration=10)
    parts.cycles(1)
    stuck, fine = parts.source.instances
    parts.source.instances = (dataclasses.replace(stuck, is_fresh=False), fine)
    parts.cycles(2)
    assert parts.uuids() == {A.uuid, B.uuid}
    parts.cycles(1)
    assert parts.uuids() == {B.uuid}


def test_what_the_monitor_said_expires_before_its_instance():
    parts = made(interval=10, expiration=10)
    old = builders.monitor(A, read_at=builders.NOW - 30)
    young = builders.monitor(B, read_at=builders.NOW)
    parts.source.instances = (
        builders.instance(A, monitor=old),
        builders.instance(B, monitor=young),
    )
    parts.cycles(1)
    first, second = parts.service.published.snapshot.instances.value
    assert first.monitor is None
    assert first.cpu_time_ns is not None
    assert second.monitor is young


def test_an_instance_that_left_is_gone_at_once():
    parts = made()
    parts.cycles(1)
    parts.source.instances = parts.source.instances[1:]
    parts.cycles(1)
    assert parts.uuids() == {B.uuid}


def test_instances_that_are_shown_no_more_are_counted():
    parts = made(exporter=measuring.collector('exporter'))
    parts.cycles(1)
    parts.source.instances = parts.source.instances[1:]
    parts.cycles(2)
    assert measuring.only(parts.shown()['oie_cache_evictions_total']) == 1


# --- notes ------------------------------------------------------------------


def test_notes_go_with_the_instance():
    parts = made()
    parts.cycles(1)
    assert set(parts.service._notes['counting']) == {A.uuid, B.uuid}
    parts.source.instances = parts.source.instances[1:]
    parts.cycles(1)
    assert set(parts.service._notes['counting']) == {B.uuid}


def test_notes_survive_an_outage_of_libvirt_however_long():
    parts = made(interval=10, expiration=10)
    parts.cycles(1)
    parts.source.error = 'libvirt is down'
    parts.cycles(9)
    assert parts.uuids() == set()
    assert set(parts.service._notes['counting']) == {A.uuid, B.uuid}


def test_traffic_once_shown_is_shown_again_after_an_outage():
    parts = made(interval=10, expiration=10, disk=measuring.collector('disk'))
    parts.cycles(1)
    zeros = dict.fromkeys(('read_bytes', 'read_requests', 'write_bytes', 'write_requests'), 0)
    parts.source.error = 'libvirt is down'
    parts.cycles(5)
    assert 'oie_disk_r_requests' not in parts.shown()
    parts.source.error = ''
    unused = builders.monitor(
        A,
        disks=(builders.disk_statistics(A.disks[0], **zeros),),
        read_at=parts.clock.time(),
    )
    parts.source.instances = (builders.instance(A, monitor=unused),)
    parts.cycles(1)
    assert measuring.only(parts.shown()['oie_disk_r_requests']) == 0


# --- a host without libvirt -------------------------------------------------


def test_without_a_source_cycles_go_on_and_nothing_is_said_of_libvirt():
    parts = made(exporter=measuring.collector('exporter'))
    parts.service._source = None
    parts.cycles(2)
    published = parts.service.published
    assert published is not None
    assert published.snapshot.instances.error == ''
    assert published.snapshot.instances.value == ()
    assert 'libvirt' not in published.snapshot.cycle.groups
    parts.service.stop()
