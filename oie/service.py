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

"""The whole river: read, measure, publish, on a fixed schedule.

One thread runs the cycles and swaps one reference to what it published; all
others only read that reference, so a scrape never waits and never mixes two
cycles.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Set
import dataclasses
import logging
import math
import threading
import time
from typing import Any
from typing import Protocol

from oie import allocator
from oie import failures
from oie import model
from oie.collectors import base as collectors_base

LOG = logging.getLogger(__name__)

_NO_HEALTH = model.GroupHealth(is_success=False, seconds=0.0)
# What the making of more leaves behind is too much to be kept for the next cycle.
_MANY_SERIES = 10_000


class InstancesSource(Protocol):
    """What the service needs of the source of instances."""

    def read(self) -> model.Reading[tuple[model.Instance, ...]]:
        """Return the instances, or the last ones with the error."""

    def hypervisor(self) -> model.Hypervisor:
        """Return how well the hypervisor answers."""

    def close(self) -> None:
        """Let go of everything, at once."""


class Reader(Protocol):
    """What the service needs of everything else that is read for the instances."""

    def read(
        self, instances: tuple[model.Instance, ...], max_age: float, known: Set[str]
    ) -> Mapping[str, Any]:
        """Return values of fields of the snapshot; what failed comes as a reading with its error.

        :param instances: those that are shown
        :param max_age: seconds after which values that were not read anew end
        :param known: uuids of all that exist as far as libvirt last told, shown or not
        """

    def close(self) -> None:
        """Let go of everything, at once."""


class Renderer(Protocol):
    """What makes bytes of samples."""

    def render(self, families: Iterator[model.Family]) -> Any:
        """Return the ready bytes of one cycle."""


class Clock(Protocol):
    """What tells the time; the module ``time`` does."""

    def time(self) -> float:
        """Return the Unix time."""

    def monotonic(self) -> float:
        """Return seconds that nobody sets back."""


@dataclasses.dataclass(frozen=True, slots=True)
class Publication:
    """What outputs see of one cycle."""

    snapshot: model.Snapshot
    exposition: Any
    # What each collector gave.
    families: Mapping[str, list[model.Family]] = dataclasses.field(default_factory=dict)


class Service:
    """Runs the cycles and keeps the latest publication.

    :param source: None where no collector needs instances, as on a host without libvirt
    :param collectors: what makes samples, by name
    :param interval: seconds from the start of one cycle to that of the next
    :param expiration: seconds after which values that were not read anew end; max_age()
        says when it is more
    :param readers: what fills further fields of the snapshot, by the name of its group
    :param on_end: called after each cycle, well or not; must return at once
    :param wait: waits so many seconds, or until ``stop``
    """

    def __init__(
        self,
        source: InstancesSource | None,
        collectors: Mapping[str, collectors_base.Collector],
        renderer: Renderer,
        *,
        hostname: str,
        interval: float,
        expiration: float,
        web: Callable[[], model.WebStatistics] = model.WebStatistics,
        reloads: Callable[[], model.Reloads] = model.Reloads,
        on_end: Callable[[], None] = lambda: None,
        readers: Mapping[str, Reader] | None = None,
        clock: Clock = time,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        self.published: Publication | None = None
        # Cycles that are over, well or not.
        self.ended = 0
        self._source = source
        self._collectors = collectors
        self._renderer = renderer
        self._hostname = hostname
        self._interval = interval
        self._expiration = expiration
        self._web = web
        self._reloads = reloads
        self._on_end = on_end
        self._readers = dict(readers or {})
        self._failures = failures.LastingFailures(LOG)
        self._notes: dict[str, collectors_base.Notes] = {name: {} for name in collectors}
        self._previous: model.Snapshot | None = None
        self._cycle = model.CycleStatistics()
        self._families: dict[str, list[model.Family]] = {}
        self._last_good_end: float | None = None
        self._seconds = 0.0
        self._shown: frozenset[str] = frozenset()
        self._clock = clock
        self._stopping = threading.Event()
        self._wait = wait or self._stopping.wait
        self._thread: threading.Thread | None = None

    # --- the schedule -------------------------------------------------------

    def start(self) -> None:
        """Run cycles in a thread of their own until ``stop``."""
        self._thread = threading.Thread(target=self.run, name='oie-cycle', daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether its thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def run(self) -> None:
        """Run cycles at fixed times; one that lasts too long skips the times it missed."""
        due = self._clock.monotonic()
        while not self._stopping.is_set():
            self.cycle()
            due += self._interval
            late = self._clock.monotonic() - due
            if late > 0:
                missed = int(late // self._interval) + 1
                self._cycle = dataclasses.replace(self._cycle, missed=self._cycle.missed + missed)
                due += missed * self._interval
            self._wait(due - self._clock.monotonic())

    def stop(self, timeout: float = 1.0) -> None:
        """Start no more cycles; a libvirt call that hangs is left behind."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout)
        if self._source is not None:
            self._source.close()
        for reader in self._readers.values():
            reader.close()

    # --- one cycle ----------------------------------------------------------

    def cycle(self) -> None:
        """Read, measure and publish once; no failure leaves this function."""
        started = self._clock.monotonic()
        try:
            snapshot = self.collect(started)
            families = list(self.measure(snapshot, started))
            self.publish(snapshot, families)
            self._failures.settle('cycle', 'failed')
        except Exception as exc:
            self._failures.report('cycle', 'failed', repr(exc))
            LOG.debug('cycle failed', exc_info=True)
            self._cycle = dataclasses.replace(self._cycle, errors=self._cycle.errors + 1)
        self._seconds = self._clock.monotonic() - started
        self.ended += 1
        self._on_end()

    def collect(self, started: float) -> model.Snapshot:
        """Read the sources; what has expired is left out."""
        reading = self._read_instances()
        cleaning = self._clock.monotonic()
        served = self._served(reading)
        evicted = self._evict(reading, served)
        ended = self._clock.monotonic()
        lag = 0.0 if self._last_good_end is None else started - self._last_good_end
        self._cycle = dataclasses.replace(
            self._cycle,
            lag_seconds=max(0.0, lag),
            errors=self._cycle.errors + bool(reading.error),
            evictions=self._cycle.evictions + evicted,
            cleanup_seconds=ended - cleaning,
            groups={**self._cycle.groups, **self._libvirt(reading)},
        )
        if not reading.error:
            self._last_good_end = ended
        known = {instance.definition.uuid for instance in reading.value}
        further = self._read_further(served, known)
        return model.Snapshot(
            taken_at=self._clock.time(),
            hostname=self._hostname,
            instances=dataclasses.replace(reading, value=served),
            hypervisor=self._source.hypervisor() if self._source else model.Hypervisor(),
            cycle=self._cycle,
            web=self._web(),
            reloads=self._reloads(),
            **further,
        )

    def measure(self, snapshot: model.Snapshot, started: float) -> Iterator[model.Family]:
        """Give the families of all collectors; a broken one costs only itself.

        The collector named ``exporter`` comes last and tells of the others.
        """
        groups = dict(snapshot.cycle.groups)
        self._families = {}
        for name in sorted(self._collectors, key=lambda name: name == 'exporter'):
            begun = self._clock.monotonic()
            if name == 'exporter':
                snapshot = self._with_cycle(snapshot, groups, begun - started)
            families, is_success = self._collect_from(name, snapshot)
            self._families[name] = families
            yield from families
            last = groups.get(name, _NO_HEALTH)
            groups[name] = model.GroupHealth(
                is_success=is_success,
                seconds=self._clock.monotonic() - begun,
                succeeded_at=snapshot.taken_at if is_success else last.succeeded_at,
                series=sum(len(family.values) for family in families),
            )
        self._cycle = dataclasses.replace(
            self._cycle, groups=groups, duration_seconds=self._clock.monotonic() - started
        )

    def publish(self, snapshot: model.Snapshot, families: list[model.Family]) -> None:
        """Render once and swap the reference that everybody reads."""
        begun = self._clock.monotonic()
        exposition = self._renderer.render(iter(families))
        self._cycle = dataclasses.replace(
            self._cycle, render_seconds=self._clock.monotonic() - begun
        )
        # Who shows the snapshot itself, as the page for people does, wants the whole cycle.
        whole = dataclasses.replace(snapshot, cycle=self._cycle)
        self.published = Publication(whole, exposition, self._families)
        self._previous = snapshot
        if sum(len(family.values) for family in families) > _MANY_SERIES:
            allocator.give_back()

    # --- parts --------------------------------------------------------------

    def _read_instances(self) -> model.Reading[tuple[model.Instance, ...]]:
        if self._source is not None:
            return self._source.read()
        return model.Reading(value=(), read_at=self._clock.time(), seconds=0.0)

    def _libvirt(self, reading: model.Reading[Any]) -> dict[str, model.GroupHealth]:
        """Return how libvirt did, nothing where nobody asked it."""
        return {} if self._source is None else {'libvirt': _health(reading)}

    def _read_further(
        self, instances: tuple[model.Instance, ...], known: Set[str]
    ) -> dict[str, Any]:
        """Return what the readers give; a broken one costs only its own fields."""
        fields: dict[str, Any] = {}
        groups = dict(self._cycle.groups)
        errors = self._cycle.errors
        for name, reader in self._readers.items():
            try:
                given = reader.read(instances, self.max_age(), known)
            except Exception as exc:
                self._failures.report(name, 'failed', repr(exc))
                LOG.debug('reader %s failed', name, exc_info=True)
                last = groups.get(name, _NO_HEALTH)
                groups[name] = dataclasses.replace(_NO_HEALTH, succeeded_at=last.succeeded_at)
                errors += 1
                continue
            self._failures.settle(name, 'failed')
            fields.update(given)
            for reading in given.values():
                if isinstance(reading, model.Reading):
                    groups[name] = _health(reading)
                    errors += bool(reading.error)
        self._cycle = dataclasses.replace(self._cycle, errors=errors, groups=groups)
        return fields

    def _collect_from(
        self, name: str, snapshot: model.Snapshot
    ) -> tuple[list[model.Family], bool]:
        try:
            collect = self._collectors[name].collect
            families = list(collect(self._previous, snapshot, self._notes[name]))
        except Exception as exc:
            self._failures.report(f'collector {name}', 'failed', repr(exc))
            LOG.debug('collector %s failed', name, exc_info=True)
            return [], False
        self._failures.settle(f'collector {name}', 'failed')
        return families, True

    def _with_cycle(
        self, snapshot: model.Snapshot, groups: Mapping[str, model.GroupHealth], seconds: float
    ) -> model.Snapshot:
        cycle = dataclasses.replace(snapshot.cycle, groups=groups, duration_seconds=seconds)
        return dataclasses.replace(snapshot, cycle=cycle)

    def max_age(self) -> float:
        """Return for how many seconds values that were not read anew are shown.

        Two intervals and the last cycle, all of it: libvirt is read first, and what it gave
        is shown when the slowest reader has come back. Cycles longer than the interval
        begin at every second or third time only.
        """
        times = max(1, math.ceil(self._seconds / self._interval))
        return max(self._expiration, 2 * times * self._interval + self._seconds)

    def _served(
        self, reading: model.Reading[tuple[model.Instance, ...]]
    ) -> tuple[model.Instance, ...]:
        """Return the instances whose values are young enough, without older parts."""
        self._seconds = max(self._seconds, reading.seconds)
        now, max_age = self._clock.time(), self.max_age()
        return tuple(
            _without_old_monitor(instance, now, max_age)
            for instance in reading.value
            if instance.is_fresh or not is_old(instance.read_at, now, max_age)
        )

    def _evict(
        self,
        reading: model.Reading[tuple[model.Instance, ...]],
        served: tuple[model.Instance, ...],
    ) -> int:
        """Drop the notes of instances that left; return how many are shown no more."""
        known = {instance.definition.uuid for instance in reading.value}
        shown = frozenset(instance.definition.uuid for instance in served)
        for notes in self._notes.values():
            for uuid in notes.keys() - known:
                del notes[uuid]
        evicted = len(self._shown - shown)
        self._shown = shown
        return evicted


def is_old(moment: float, now: float, max_age: float) -> bool:
    """Return whether what was read at a moment must not be shown any more.

    A moment to come is one from before the clock was set back: nobody knows how old it is.
    """
    return abs(now - moment) > max_age


def _without_old_monitor(instance: model.Instance, now: float, max_age: float) -> model.Instance:
    monitor = instance.monitor
    if monitor is None or not is_old(monitor.read_at, now, max_age):
        return instance
    return dataclasses.replace(instance, monitor=None)


def _health(reading: model.Reading[Any]) -> model.GroupHealth:
    return model.GroupHealth(
        is_success=not reading.error, seconds=reading.seconds, succeeded_at=reading.read_at
    )
