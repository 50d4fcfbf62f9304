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

"""What is seen again and again → a line now and then; a burst → its beginning and a number."""

import collections
from collections.abc import Callable
from collections.abc import Mapping
import threading
from typing import TypeAlias

from oie.outputs import threat_lines

# (what was seen, how often it was seen again) → whether that was written
Emit: TypeAlias = Callable[[threat_lines.Record, int], bool]

RATE, QUEUE, ERROR = 'rate', 'queue', 'error'
REASONS = (RATE, QUEUE, ERROR)

# 19 MB (Python 3.11): a record with its texts takes 370 bytes. At 100 lines a second more
# than 30,000 would not get a line each in five minutes anyway.
MOST_REMEMBERED = 50000
BURST_SECONDS = 10
# A burst is over when nothing was lost for so long; one without an end is told in between.
QUIET_SECONDS = 1.0
LONGEST_SILENCE = 60.0


class Repeats:
    """Remembers what was written, to sum up what comes again within a window.

    The first sighting is written at once. If there were more when the window
    ends, one line counts them and the next window begins; what was not seen for
    a whole window is forgotten. What could not be written is not remembered, and
    a sum that could not be written goes on growing.

    :param window: in seconds; 0 writes every sighting
    :param most: how many are remembered at most; the oldest goes, with its sum
    """

    def __init__(self, window: float, emit: Emit, most: int = MOST_REMEMBERED) -> None:
        self._window = window
        self._emit = emit
        self._most = most
        # In the order in which the windows end.
        self._seen: collections.OrderedDict[object, _Seen] = collections.OrderedDict()

    @property
    def next_end(self) -> float | None:
        """When the next window ends, None without any."""
        for seen in self._seen.values():
            return seen.since + self._window
        return None

    def take(self, record: threat_lines.Record, now: float) -> None:
        """Take a sighting."""
        identity = record.identity
        seen = self._seen.get(identity)
        if seen is not None:
            seen.count += 1
            if identity is not record:  # it has numbers; else one copy is enough
                seen.record = record
        elif self._emit(record, 0) and self._window:
            self._seen[identity] = _Seen(record, now)
            if len(self._seen) > self._most:
                self._forget_oldest()

    def end_windows(self, now: float) -> None:
        """Write the sums of the windows that are over."""
        while self._seen:
            identity, seen = next(iter(self._seen.items()))
            if seen.since + self._window > now:
                return
            if not seen.count:
                del self._seen[identity]
                continue
            if self._emit(seen.record, seen.count):
                seen.count = 0
            seen.since = now
            self._seen.move_to_end(identity)

    def end_all(self) -> None:
        """Write all sums and forget everything."""
        while self._seen:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        _, seen = self._seen.popitem(last=False)
        if seen.count:
            self._emit(seen.record, seen.count)


class _Seen:
    """What was written: its latest sighting, when its window began, sightings since."""

    __slots__ = ('count', 'record', 'since')

    def __init__(self, record: threat_lines.Record, since: float) -> None:
        self.record = record
        self.since = since
        self.count = 0


class Rate:
    """A token bucket: so many lines a second, and ten seconds' worth of them at once."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._most = float(per_second * BURST_SECONDS)
        self._tokens = self._most
        self._filled_at: float | None = None

    def allows(self, now: float) -> bool:
        """Return whether one more line may be written, and count it."""
        if self._filled_at is None:
            self._filled_at = now
        earned = max(0.0, now - self._filled_at) * self._per_second
        self._tokens = min(self._most, self._tokens + earned)
        self._filled_at = max(now, self._filled_at)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Losses:
    """Counts what was left out, by reason, and knows what of it the log does not tell yet.

    Every method may be called by any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals = dict.fromkeys(REASONS, 0)
        self._untold = dict.fromkeys(REASONS, 0)
        self._began_at = self._last_at = 0.0

    @property
    def are_told(self) -> bool:
        """Whether the log tells of all of them."""
        return not any(self._untold.values())

    def totals(self) -> Mapping[str, int]:
        """Return how many there were since the start, of every reason."""
        with self._lock:
            return dict(self._totals)

    def add(self, reason: str, now: float, number: int = 1) -> None:
        """Count lines that are left out."""
        with self._lock:
            if not any(self._untold.values()):
                self._began_at = now
            self._last_at = now
            self._totals[reason] += number
            self._untold[reason] += number

    def due(self, now: float) -> Mapping[str, int]:
        """Return what to tell: nothing while a burst goes on, unless it does so for long."""
        with self._lock:
            is_quiet = now - self._last_at >= QUIET_SECONDS
            if not is_quiet and now - self._began_at < LONGEST_SILENCE:
                return {}
            return {reason: number for reason, number in self._untold.items() if number}

    def tell(self, reason: str, number: int) -> None:
        """Note that the log tells of so many."""
        with self._lock:
            self._untold[reason] -= number
            self._began_at = self._last_at
