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

"""The life of one feed: its cached list first, then one refresh after the other."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import hashlib
import json
import logging
import os
import random
import time
from typing import Any

from oie import address_sets
from oie import exceptions
from oie import failures
from oie import model
from oie.feeds import children
from oie.feeds import schedule
from oie.feeds import state
from oie.feeds import wire

LOG = logging.getLogger(__name__)

# For starting a worker, parsing and writing, beside the time for the network.
_WORK_SECONDS = 30.0

_FAILED, _HELD = 'not refreshed', 'list on hold'
_CACHE, _STATE = 'cache', 'state'


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FeedSpec:
    """A feed as configured; times in seconds.

    :ivar driver: entry point of ``oie.threat_feeds``
    :ivar settings: all options of ``[feed_NAME]`` as plain values
    """

    name: str
    driver: str
    tag: str
    direction: str
    refresh: float
    min_interval: float
    timeout: float
    settings: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all feeds share.

    :ivar cache_dir: where lists and states are kept
    :ivar on_list: gets the name of a feed and its new addresses
    :ivar run: does a job in a worker
    :ivar clock: seconds since 1970, for people and for restarts
    :ivar monotonic: seconds that nobody sets, for everything else
    :ivar random: gives a number from 0 to 1
    """

    cache_dir: str
    on_list: Callable[[str, address_sets.AddressSet], None]
    run: Callable[[wire.Job], wire.Answer]
    own_networks: Sequence[str] = ()
    flags: wire.Flags = dataclasses.field(default_factory=wire.Flags)
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    random: Callable[[], float] = random.random


@dataclasses.dataclass(frozen=True, slots=True)
class _Shown:
    """What can be told of the feed; replaced as a whole, so that a reader needs no lock."""

    facts: model.ThreatList
    stale_at: float


class Refresher:
    """Keeps one list up to date; load() comes first, then refresh() at the times it returns.

    Both belong to one thread; ``shown()`` may be called from any.
    """

    def __init__(self, spec: FeedSpec, around: Surroundings) -> None:
        self.spec = spec
        self._around = around
        self._failures = failures.LastingFailures(LOG)
        self._subject = f'feed {spec.name}'
        self._state = state.State()
        self._pace = schedule.Pace(refresh=spec.refresh, min_interval=spec.min_interval)
        self._entries: int | None = None
        self._documents = ''
        self._validators: tuple[tuple[str, str], ...] = ()
        facts = model.ThreatList(name=spec.name, tag=spec.tag, direction=spec.direction)
        self._shown = _Shown(facts, stale_at=0.0)

    def shown(self) -> model.ThreatList:
        """Return how the feed stands now."""
        shown = self._shown
        is_fresh = shown.facts.is_loaded and self._around.monotonic() <= shown.stale_at
        return dataclasses.replace(shown.facts, is_fresh=is_fresh)

    def load(self) -> float:
        """Put the cached list to use; return the seconds until the first refresh."""
        self._state = self._read_state()
        try:
            answer = self._run(wire.Mode.LOAD)
        except exceptions.FeedError as exc:
            answer = wire.Answer(status=wire.Status.FAILED, error=str(exc))
        self._take_sources(answer)
        if answer.status is wire.Status.LOADED:
            succeeded_at = self._age_of(answer)
            self._use(answer, succeeded_at, is_held=self._state.held is not None)
        elif answer.status is not wire.Status.ABSENT:
            self._report(_CACHE, answer.error)
            self._show(error=children.without_queries(answer.error))
        return schedule.at_start(
            self._pace,
            self._state,
            self._around.clock(),
            has_list=self._entries is not None,
            random=self._around.random,
        )

    def refresh(self) -> float:
        """Ask for the list once; return the seconds until the next time."""
        # Before anything happens: who is killed during a fetch may have bothered the publisher.
        self._keep(last_attempt_at=self._around.clock(), is_answered=True, not_before=None)
        try:
            answer = self._run(wire.Mode.REFRESH)
        except exceptions.FeedError as exc:
            is_answered = not isinstance(exc, children.NotStarted)
            return self.fail(str(exc), is_answered=is_answered)
        self._take_sources(answer)
        if answer.status is wire.Status.FAILED:
            return self.fail(
                answer.error, is_answered=answer.is_answered, retry_after=answer.retry_after
            )
        if answer.status is wire.Status.HELD:
            return self._hold(answer)
        return self._succeed(answer)

    def fail(
        self, error: str, *, is_answered: bool = True, retry_after: float | None = None
    ) -> float:
        """Note that a refresh failed; return the seconds until the next attempt."""
        count = self._state.failures + 1
        wait = schedule.after_failure(
            self._pace,
            count,
            self._around.random,
            is_answered=is_answered,
            retry_after=retry_after,
        )
        not_before = None if retry_after is None else self._around.clock() + wait
        self._keep(failures=count, is_answered=is_answered, not_before=not_before)
        self._report(_FAILED, error)
        self._count_error(error)
        return wait

    def _hold(self, answer: wire.Answer) -> float:
        self._failures.settle(self._subject, _FAILED)
        self._keep(failures=0, held=answer.held)
        self._report(_HELD, answer.error)
        self._count_error(answer.error)
        self._show(is_held=True)
        return schedule.after_success(self._pace, self._around.random)

    def _succeed(self, answer: wire.Answer) -> float:
        now = self._around.clock()
        if answer.status is wire.Status.ACCEPTED:
            self._use(answer, now, is_held=False)
            LOG.info('feed %s: %d entries', self.spec.name, answer.entries)
            self._settle(_CACHE, answer.cache_error)
        else:
            self._documents, self._validators = answer.documents, answer.validators
        self._show(succeeded_at=now, seconds=answer.seconds, is_held=False, error='')
        self._keep(last_success_at=now, documents=answer.documents, failures=0, held=None)
        self._failures.settle(self._subject, _FAILED, _HELD)
        return schedule.after_success(self._pace, self._around.random)

    def _use(self, answer: wire.Answer, succeeded_at: float, *, is_held: bool) -> None:
        self._around.on_list(self.spec.name, answer.addresses)
        self._entries, self._documents = answer.entries, answer.documents
        self._validators = answer.validators
        self._show(
            entries=answer.entries,
            rejected=answer.rejected,
            is_loaded=True,
            succeeded_at=succeeded_at,
            is_held=is_held,
        )

    def _run(self, mode: wire.Mode) -> wire.Answer:
        is_load = mode is wire.Mode.LOAD
        return self._around.run(
            wire.Job(
                mode=mode,
                parent=os.getpid(),
                seconds=_WORK_SECONDS + (0.0 if is_load else self.spec.timeout),
                feed=self.spec.name,
                driver=self.spec.driver,
                settings=self.spec.settings,
                own_networks=tuple(self._around.own_networks),
                flags=self._around.flags,
                cache_dir=self._around.cache_dir,
                entries=self._entries,
                documents=self._documents,
                validators=self._validators,
                held=self._state.held,
            )
        )

    def _take_sources(self, answer: wire.Answer) -> None:
        """Learn where the list comes from, which only the driver knows."""
        if not answer.sources:
            return
        is_local = all(source.startswith(('/', 'file:')) for source in answer.sources)
        self._pace = dataclasses.replace(self._pace, is_local=is_local)
        digest = hashlib.sha256(json.dumps(answer.sources).encode()).hexdigest()
        if self._state.sources not in ('', digest):
            # What was asked of one publisher says nothing about another one.
            self._state = state.State()
        self._state = dataclasses.replace(self._state, sources=digest)

    def _age_of(self, answer: wire.Answer) -> float:
        """Return when the cached list was last known to be the published one."""
        times = [answer.fetched_at or 0.0]
        if self._state.documents == answer.documents and self._state.last_success_at is not None:
            times.append(self._state.last_success_at)
        return min(max(times), self._around.clock())

    def _read_state(self) -> state.State:
        try:
            return state.read(self._around.cache_dir, self.spec.name)
        except exceptions.FeedError as exc:
            self._report(_STATE, exc)
            return state.State()

    def _keep(self, **changes: Any) -> None:
        self._state = dataclasses.replace(self._state, **changes)
        try:
            state.write(self._around.cache_dir, self.spec.name, self._state)
        except exceptions.FeedError as exc:
            self._report(_STATE, exc)
        else:
            self._failures.settle(self._subject, _STATE)

    def _count_error(self, error: str) -> None:
        errors = self._shown.facts.errors + 1
        self._show(errors=errors, error=children.without_queries(error))

    def _show(self, **changes: Any) -> None:
        facts = dataclasses.replace(self._shown.facts, **changes)
        stale_at = self._shown.stale_at
        if 'succeeded_at' in changes:
            # On the clock that nobody sets, from here on.
            age = state.since(facts.succeeded_at, self._around.clock())
            stale_at = self._around.monotonic() - age + 2 * self.spec.refresh
        self._shown = _Shown(facts, stale_at)

    def _settle(self, reason: str, error: str) -> None:
        if error:
            self._report(reason, error)
        else:
            self._failures.settle(self._subject, reason)

    def _report(self, reason: str, error: object) -> None:
        self._failures.report(self._subject, reason, children.without_queries(str(error)))
