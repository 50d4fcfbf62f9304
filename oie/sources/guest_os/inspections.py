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


"""What slow drivers have said of which life of an instance, and whom to ask next."""

from collections.abc import Iterable
from collections.abc import Set
import dataclasses
import logging
import re
import threading
from typing import NamedTuple

from oie import exceptions
from oie import failures
from oie import model
from oie.sources import probes
from oie.sources.guest_os import base

LOG = logging.getLogger(__name__)

FIRST_RETRY = 60.0
LONGEST_RETRY = 3600.0
_REASON = re.compile('[a-z][a-z_]{0,39}')
_MOST_REASONS = 32
_MOST_DOUBLINGS = 16


class Job(NamedTuple):
    """A driver that is to be asked for an instance."""

    instance: model.Instance
    driver: str

    @property
    def key(self) -> tuple[str, str]:
        """Whose state it changes."""
        return self.instance.definition.uuid, self.driver


@dataclasses.dataclass(slots=True)
class _State:
    """What one slow driver has said of one instance.

    ``life`` is that of the latest attempt; the answer of an earlier life stays
    until this one has given one. Times are of the monotonic clock.
    """

    life: int
    answer: model.GuestOs | None = None
    failed: int = 0
    due: float = 0.0


class Inspections:
    """The states of all instances; a cycle asks and a thread works, both at once.

    A life of an instance is one QEMU process, told by libvirt's domain id.

    :param refresh: seconds after which an answer is asked for again
    :param lasting: who is told of failures
    """

    def __init__(
        self, refresh: float, lasting: failures.LastingFailures, clock: probes.Clock
    ) -> None:
        self._refresh = refresh
        self._failures = lasting
        self._clock = clock
        self._lock = threading.Lock()
        self._states: dict[tuple[str, str], _State] = {}
        self._current: tuple[str, str] | None = None
        self._done = 0
        self._seconds = 0.0
        self._reasons: dict[str, int] = {}

    # --- for the cycle --------------------------------------------------------

    def answer(self, instance: model.Instance, driver: str) -> model.GuestOs | None:
        """Return the latest answer of this driver, of an earlier life if need be."""
        state = self._states.get((instance.definition.uuid, driver))
        return None if state is None else state.answer

    def is_due(self, instance: model.Instance, driver: str) -> bool:
        """Tell whether this driver should be asked now."""
        state = self._states.get((instance.definition.uuid, driver))
        return (
            state is None
            or state.life != instance.domain_id
            or self._clock.monotonic() >= state.due
        )

    def has_been_tried(self, instance: model.Instance, driver: str) -> bool:
        """Tell whether this driver was asked in this life of the instance."""
        state = self._states.get((instance.definition.uuid, driver))
        return state is not None and state.life == instance.domain_id

    def keep_only(self, uuids: Set[str]) -> None:
        """Forget all other instances."""
        with self._lock:
            for key in [key for key in self._states if key[0] not in uuids]:
                del self._states[key]

    def health(self, wanted: Iterable[Job]) -> model.GuestOsHealth:
        """Return how it goes; the one under way is not in the queue any more."""
        with self._lock:
            current = self._current
            return model.GuestOsHealth(
                queued=sum(job.key != current for job in wanted),
                is_inspecting=current is not None,
                inspections=self._done,
                seconds=self._seconds,
                failures=dict(self._reasons),
            )

    # --- for the thread -------------------------------------------------------

    def choose(self, wanted: Iterable[Job]) -> Job | None:
        """Return whom to ask: those never asked first, then who has waited longest."""
        due = [job for job in wanted if self.is_due(job.instance, job.driver)]
        return min(due, key=self._priority, default=None)

    def _priority(self, job: Job) -> tuple[bool, bool, float]:
        state = self._states.get(job.key)
        if state is None:
            return False, False, 0.0
        return True, state.life == job.instance.domain_id, state.due

    def run(self, job: Job, driver: base.GuestOsDriver) -> None:
        """Ask a driver and keep what it says; no failure leaves this function."""
        began = self._clock.monotonic()
        with self._lock:
            self._current = job.key
        try:
            found = driver.read(job.instance)
            answer = found and base.cleaned(found, job.driver, self._clock.time())
        # The thread must outlive whatever a driver, or a guest, comes up with.
        except Exception as exc:
            LOG.debug('%s: inspection failed', job.driver, exc_info=True)
            if not driver.stopping.is_set():
                self._fail(job, exc)
        else:
            self._succeed(job, answer)
        finally:
            with self._lock:
                self._current = None
                self._done += 1
                self._seconds += self._clock.monotonic() - began

    def _succeed(self, job: Job, answer: model.GuestOs | None) -> None:
        self._failures.settle(job.instance.definition.domain, job.driver)
        due = self._clock.monotonic() + self._refresh
        with self._lock:
            self._states[job.key] = _State(job.instance.domain_id, answer, due=due)

    def _fail(self, job: Job, exc: Exception) -> None:
        reason, retry = _reason(exc)
        text = str(exc) if isinstance(exc, exceptions.OieError) else repr(exc)
        self._failures.report(job.instance.definition.domain, job.driver, f'{reason}: {text}')
        with self._lock:
            if reason not in self._reasons and len(self._reasons) >= _MOST_REASONS:
                reason = 'other'
            self._reasons[reason] = self._reasons.get(reason, 0) + 1
            self._put_off(job, retry)

    def _put_off(self, job: Job, retry: float | None) -> None:
        """Ask again after a pause that grows with the failures of one life."""
        life = job.instance.domain_id
        state = self._states.setdefault(job.key, _State(life))
        if state.life != life:
            state.life, state.failed = life, 0
        pause = min(
            FIRST_RETRY * 2.0 ** min(state.failed, _MOST_DOUBLINGS), LONGEST_RETRY, self._refresh
        )
        state.failed += 1
        state.due = self._clock.monotonic() + (pause if retry is None else retry)


def _reason(exc: Exception) -> tuple[str, float | None]:
    """Return the label of a failure and when to ask again, if it says so."""
    if isinstance(exc, base.InspectionFailed):
        return exc.reason if _REASON.fullmatch(exc.reason) else 'failed', exc.retry
    if isinstance(exc, exceptions.SourceTimeout):
        return 'timeout', None
    return 'failed' if isinstance(exc, exceptions.OieError) else 'broken', None
