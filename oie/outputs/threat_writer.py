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

"""Sightings of threats → lines: thinned out, formatted, into a file and the journal.

One thread owns a Writer. Only ``lines`` and ``is_writable`` may be read by others.
"""

from collections.abc import Callable
from collections.abc import Iterable
import dataclasses
import logging
from typing import Any

from oie import failures
from oie.outputs import log_file
from oie.outputs import threat_lines
from oie.outputs import throttling

LOG = logging.getLogger(__name__)
JOURNAL = logging.getLogger('oie.threats')

_SUBJECT = 'threat log'
_REASON = 'not written'
# Seconds from one look at what waits (a full disk, the end of a burst) to the next.
_IMPATIENCE = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Moment:
    """A moment by two clocks: nanoseconds since the epoch, and seconds that never go back."""

    wall_ns: int
    monotonic: float


class Writer:
    """Writes what is due.

    :param options: our group ``[threat_log]``
    :param losses: where to count what is left out
    :param clock: seconds that never go back
    """

    def __init__(
        self, options: Any, losses: throttling.Losses, clock: Callable[[], float]
    ) -> None:
        self._format = threat_lines.FORMATS[options.format]
        self._file = log_file.LogFile(options.path, clock) if options.path else None
        self._journal: bool = options.journal
        self._path: str = options.path
        self._rate = throttling.Rate(options.max_lines_per_second)
        self._repeats = throttling.Repeats(options.window, self._write_if_allowed)
        self._losses = losses
        self._failures = failures.LastingFailures(LOG, level=logging.ERROR)
        self._now = 0.0
        self._stamp = ''
        self.lines = 0

    @property
    def is_writable(self) -> bool:
        """Whether the last attempt to open or to write the file succeeded."""
        return self._file is None or self._file.is_writable

    def take(self, moment: Moment, records: Iterable[threat_lines.Record]) -> None:
        """Take the sightings of one interval."""
        self.tick(moment)
        for record in records:
            self._repeats.take(record, self._now)

    def tick(self, moment: Moment) -> None:
        """Do what is due at a moment."""
        self._now, self._stamp = moment.monotonic, threat_lines.timestamp(moment.wall_ns)
        if not self.is_writable:
            self._open()
        self._repeats.end_windows(self._now)
        self._tell_losses()

    def patience(self, now: float) -> float | None:
        """Return in how many seconds something is due, None when only new sightings are."""
        if not (self._losses.are_told and self.is_writable):
            return _IMPATIENCE
        end = self._repeats.next_end
        return None if end is None else max(end - now, 0.01)

    def reopen(self) -> None:
        """Open the file that is at the path now."""
        if self._file is not None:
            self._file.close()
            self._open()

    def finish(self, moment: Moment) -> None:
        """Write what is left to say, then close the file."""
        self.tick(moment)
        self._repeats.end_all()
        self._now += throttling.QUIET_SECONDS
        self._tell_losses()
        if self._file is not None:
            self._file.close()

    def _write_if_allowed(self, record: threat_lines.Record, count: int) -> bool:
        if not self._rate.allows(self._now):
            self._losses.add(throttling.RATE, self._now)
            return False
        if not self._write(record, count):
            self._losses.add(throttling.ERROR, self._now)
            return False
        return True

    def _tell_losses(self) -> None:
        for reason, number in self._losses.due(self._now).items():
            if self._write(threat_lines.Dropped(reason), number):
                self._losses.tell(reason, number)

    def _write(self, line: threat_lines.Line, count: int) -> bool:
        if self._file is not None:
            try:
                self._file.write(self._format(self._stamp, line, count))
            except OSError as exc:
                self._complain(exc)
                return False
            self._settle()
        self.lines += 1
        if self._journal:
            JOURNAL.warning('%s', threat_lines.journal(line, count))
        return True

    def _open(self) -> None:
        if self._file is None:
            return
        try:
            self._file.open()
        except OSError as exc:
            self._complain(exc)
        self._settle()

    def _settle(self) -> None:
        if self.is_writable:  # not so on a full disk, whose file is open
            self._failures.settle(_SUBJECT, _REASON)

    def _complain(self, exc: OSError) -> None:
        text = f'{self._path}: {exc.strerror}; lines are lost until it can be written again'
        self._failures.report(_SUBJECT, _REASON, text)
