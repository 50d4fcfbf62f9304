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

"""A thread that asks a cloud, books its answers and waits; what is ready, into the snapshot.

A cycle only picks up what is ready. Whatever fails keeps the last good totals, is counted by
its reason, and is tried again.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Set
import dataclasses
import logging
import random
import threading
import time
from typing import Any

from oie import exceptions
from oie import failures
from oie import model
from oie.config import moments
from oie.feeds import schedule
from oie.ledger import project_tables
from oie.project_usage import left_outs
from oie.project_usage import parts
from oie.project_usage import questions
from oie.project_usage import shown
from oie.sources import calls

LOG = logging.getLogger(__name__)

# Seconds from one look whether another exporter has let go of the ledger to the next.
RETRY_SECONDS = 5.0
_MICROSECOND = 10**6
_SUBJECT = 'project usage'
_CLOSE_SECONDS = 1.0
# An update succeeds without these.
_PARTS = ('project', 'record', 'weights')
# What does not end by itself.
_FOR_OPERATORS = frozenset({'auth', 'setup'})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How often a cloud is asked, and how long that may take, in seconds."""

    interval: float
    deadline: float


class ProjectUsageReader:
    """Keeps the usage of projects up to date; a reader of the service.

    :param wait: waits so many seconds, or until it is closed
    """

    def __init__(
        self,
        source: parts.Source,
        ledger: parts.Ledger,
        weights: parts.Weights,
        start_date: parts.StartDate,
        settings: Settings,
        shown: shown.Shown,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        self._ledger = ledger
        self._weights = weights
        self._settings = settings
        self._shown = shown
        self._clock = clock
        self._monotonic = monotonic
        self._random = random
        self._stopping = threading.Event()
        self._wait = wait or self._stopping.wait
        self._failures = failures.LastingFailures(LOG)
        # One that hangs, and one more: then nothing is asked before one of them returns.
        self._calls = calls.Calls(2, 'oie-usage')
        self._questions = questions.Questions(
            source,
            start_date,
            self._calls,
            deadline=settings.deadline,
            is_stopping=self._stopping.is_set,
            monotonic=monotonic,
        )
        self._booked: project_tables.Booked | None = None
        self._failed = 0
        # Swapped as wholes, so that a cycle needs no lock.
        self._reading: model.Reading[tuple[model.ProjectUsage, ...] | None] = model.Reading(
            value=None, read_at=None, seconds=0.0, error='no update has ended yet'
        )
        self._health = model.ProjectUsageHealth(failures=dict.fromkeys(model.USAGE_FAILURES, 0))
        self._thread: threading.Thread | None = None

    # --- for the thread of the cycles ---------------------------------------

    def read(
        self, instances: tuple[model.Instance, ...], max_age: float, known: Set[str]
    ) -> Mapping[str, Any]:
        """Return the fields ``project_usage`` and ``project_usage_health``, as they are ready."""
        if self._thread is None:
            self._thread = threading.Thread(target=self.run, name='oie-projects', daemon=True)
            self._thread.start()
        return {'project_usage': self._reading, 'project_usage_health': self._health}

    def close(self) -> None:
        """End; a request that hangs is left behind."""
        self._stopping.set()
        self._calls.close()
        if self._thread is not None:
            self._thread.join(_CLOSE_SECONDS)

    # --- the thread ---------------------------------------------------------

    def run(self) -> None:
        """Open the ledger, then update again and again until it is closed."""
        while not self._stopping.is_set():
            self._wait(self.step())
        self._ledger.close()

    def step(self) -> float:
        """Do what is to be done; return the seconds until the next time. Nothing leaves it."""
        begun = self._monotonic()
        try:
            if self._booked is None:
                self._take(self._ledger.open(self._now_us()))
            self._update()
        except exceptions.LedgerHeld as exc:
            self._fail('ledger', exc, begun)
            return RETRY_SECONDS
        except exceptions.LedgerError as exc:
            return self._fail('ledger', exc, begun)
        except exceptions.UsageError as exc:
            return self._fail(exc.reason, exc, begun)
        # Nothing that nobody thought of may end this thread.
        except Exception as exc:
            LOG.debug('project usage', exc_info=True)
            return self._fail('other', repr(exc), begun)
        return self._succeed(begun)

    def _update(self) -> None:
        """Ask, and book the answers, the oldest first.

        :raises OieError: the last one was not booked; those before it were
        """
        self._refresh_weights()
        weigh = self._weights.weigher()
        left_out = left_outs.LeftOut()
        self._questions.begin()
        is_last = False
        while not is_last:
            assert self._booked is not None  # noqa: S101, step() opened it
            since, answer = self._questions.answered(self._booked)
            self._take(self._ledger.book(answer, since_us=since, weigh=weigh))
            left_out.note(answer.rejected, self._booked.left_out)
            is_last = answer.is_last
            if not is_last:
                self._tell_progress(answer.taken_us)
        self._tell(left_out)
        self._health = dataclasses.replace(
            self._health,
            projects=len(answer.projects),
            instances=sum(server.ended_us is None for server in answer.servers),
            clock_skew_seconds=answer.clock_skew_seconds,
        )

    def _tell_progress(self, until_us: int) -> None:
        text = f'the past is booked up to {moments.text_of(until_us)}'
        LOG.info('%s: %s', _SUBJECT, text)
        if self._reading.value is None:
            self._reading = dataclasses.replace(self._reading, error=text)

    def _refresh_weights(self) -> None:
        """Read the weights; where that fails the last ones count on."""
        try:
            self._calls.run(
                'reading of weights',
                lambda _call: self._weights.refresh(),
                self._settings.deadline,
            )
        except exceptions.SourceError as exc:
            self._count('weights')
            self._failures.report(_SUBJECT, 'weights', exc)
        else:
            self._failures.settle(_SUBJECT, 'weights')
        self._health = dataclasses.replace(self._health, weights_read_at=self._weights.read_at)

    def _succeed(self, begun: float) -> float:
        self._failed = 0
        self._questions.note_success()
        self._failures.settle(
            _SUBJECT, *(each for each in model.USAGE_FAILURES if each not in _PARTS)
        )
        seconds = self._monotonic() - begun
        now = self._clock()
        self._reading = dataclasses.replace(self._reading, read_at=now, seconds=seconds, error='')
        self._health = dataclasses.replace(
            self._health, succeeded_at=now, seconds=seconds, updates=self._health.updates + 1
        )
        return schedule.after_success(self._pace(), self._random)

    def _fail(self, reason: str, error: object, begun: float) -> float:
        if self._stopping.is_set():
            # It failed because it ends.
            return 0.0
        self._failed += 1
        self._count(reason)
        self._failures.report(_SUBJECT, reason, error)
        if reason in _FOR_OPERATORS and self._failed == 1:
            LOG.error('%s is not read: %s', _SUBJECT, error)
        self._reading = dataclasses.replace(
            self._reading, seconds=self._monotonic() - begun, error=f'{reason}: {error}'
        )
        return schedule.after_failure(self._pace(), self._failed, self._random, is_answered=False)

    def _pace(self) -> schedule.Pace:
        return schedule.Pace(refresh=self._settings.interval, min_interval=0.0)

    def _count(self, reason: str, number: int = 1) -> None:
        counted = dict(self._health.failures)
        counted[reason] = counted.get(reason, 0) + number
        self._health = dataclasses.replace(self._health, failures=counted)

    def _tell(self, left_out: left_outs.LeftOut) -> None:
        for reason, number in left_out.numbers().items():
            self._count(reason, number)
            if number:
                self._failures.report(_SUBJECT, reason, left_out.text(reason))
            else:
                self._failures.settle(_SUBJECT, reason)
        self._health = dataclasses.replace(self._health, left_out=left_out.numbers())

    def _now_us(self) -> int:
        return int(self._clock() * _MICROSECOND)

    def _take(self, booked: project_tables.Booked) -> None:
        """Show what is booked."""
        self._booked = booked
        read_at = self._reading.read_at
        value = self._shown.of(booked, self._clock())
        if read_at is None and value is not None and booked.cursor_us is not None:
            read_at = booked.cursor_us / _MICROSECOND
        self._reading = dataclasses.replace(self._reading, value=value, read_at=read_at)
        self._health = dataclasses.replace(self._health, remembered=booked.remembered)
