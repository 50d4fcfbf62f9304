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

"""A thread that writes the rows of every cycle, so that no disk ever holds up a cycle."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import logging
import threading
import time
from typing import Any
from typing import Protocol

from oie import exceptions
from oie import failures
from oie.ledger import store

LOG = logging.getLogger(__name__)

# Seconds from one look whether another exporter has ended to the next.
RETRY_SECONDS = 5.0
_SUBJECT = 'ledger'
_OPEN, _WRITE = 'not opened', 'not written'


class Store(Protocol):
    """What keeps the rows."""

    def open(self) -> store.Found:
        """Return what is kept.

        :raises LedgerHeld: another exporter has it
        :raises LedgerError: nothing can be kept
        """

    def write(self, rows: Iterable[store.Row], forgotten: Iterable[str]) -> None:
        """Keep these rows.

        :raises LedgerError: nothing was kept
        """

    def close(self) -> None:
        """Let go of it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Status:
    """How the writing goes.

    :ivar found: what was kept, None before anything is known
    :ivar is_open: whether rows can be kept at all
    :ivar number: the last cycle whose rows are all kept
    :ivar written_at: Unix time of the last write
    :ivar error: why the last attempt failed, empty if it did not
    """

    found: store.Found | None = None
    is_open: bool = False
    number: int = 0
    written_at: float | None = None
    errors: int = 0
    error: str = ''


class Writer:
    """Opens the store and writes what it is handed; the latest row of an instance wins.

    :param retry: seconds to wait for another exporter to let go of the store
    """

    def __init__(
        self,
        rows: Store,
        *,
        retry: float = RETRY_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = rows
        self._retry = retry
        self._clock = clock
        self._failures = failures.LastingFailures(LOG, level=logging.ERROR)
        self._changed = threading.Condition()
        self._status = Status()
        self._number = 0
        self._tried = 0
        self._rows: dict[str, store.Row] = {}
        self._forgotten: set[str] = set()
        self._is_stopping = False
        self._thread: threading.Thread | None = None

    # --- for the thread of the cycles ---------------------------------------

    def status(self, timeout: float = 0.0, number: int = 0) -> Status:
        """Return how it goes, as soon as something is found and this cycle is written.

        :param timeout: seconds to wait at most
        """
        with self._changed:
            if self._thread is None:
                self._start()
            self._changed.wait_for(lambda: self._is_settled(number), timeout)
            return self._status

    def hand_over(
        self, number: int, rows: Mapping[str, store.Row], forgotten: Iterable[str] = ()
    ) -> None:
        """Have the rows of a cycle written.

        :param forgotten: uuids whose rows go
        """
        with self._changed:
            self._number = number
            self._forgotten.update(forgotten)
            self._forgotten -= rows.keys()
            self._rows.update(rows)
            self._changed.notify_all()

    def close(self, timeout: float = 2.0) -> None:
        """Write what is left and let go of the store; a disk that hangs is left behind."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout)

    def _is_settled(self, number: int) -> bool:
        status = self._status
        is_written = status.found is not None and status.number >= number
        return is_written or bool(status.error) or self._is_stopping

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name='oie-ledger', daemon=True)
        self._thread.start()

    # --- the thread ---------------------------------------------------------

    def _run(self) -> None:
        if self._open():
            while self._wait():
                self._write()
        self._store.close()

    def _open(self) -> bool:
        """Open the store; return whether anything can be kept."""
        while not self._is_stopping:
            try:
                found = self._store.open()
            except exceptions.LedgerHeld as exc:
                self._complain(_OPEN, exc)
                with self._changed:
                    self._changed.wait_for(lambda: self._is_stopping, self._retry)
            except exceptions.LedgerError as exc:
                self._complain(_OPEN, exc, found=store.Found({}, is_lost=True))
                return False
            else:
                self._failures.settle(_SUBJECT, _OPEN)
                self._update(found=found, is_open=True, error='')
                return True
        return False

    def _wait(self) -> bool:
        """Wait for rows that nobody tried to write; return False when there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopping or self._number > self._tried)
            return self._number > self._tried

    def _write(self) -> None:
        with self._changed:
            number, rows, forgotten = self._number, self._rows, self._forgotten
            self._rows, self._forgotten, self._tried = {}, set(), number
        try:
            self._store.write(rows.values(), forgotten)
        except exceptions.LedgerError as exc:
            self._take_back(rows, forgotten)
            self._complain(_WRITE, exc, errors=self._status.errors + 1)
            return
        self._failures.settle(_SUBJECT, _WRITE)
        self._update(number=number, written_at=self._clock(), error='')

    def _take_back(self, rows: Mapping[str, store.Row], forgotten: set[str]) -> None:
        with self._changed:
            self._rows = {**rows, **self._rows}
            self._forgotten = (self._forgotten | forgotten) - self._rows.keys()

    def _complain(self, reason: str, exc: Exception, **more: Any) -> None:
        self._failures.report(_SUBJECT, reason, exc)
        self._update(error=str(exc), **more)

    def _update(self, **more: Any) -> None:
        with self._changed:
            self._status = dataclasses.replace(self._status, **more)
            self._changed.notify_all()
