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

"""Which domains may be asked for what needs their QEMU monitor.

A circuit breaker for each domain: a call that got stuck opens it, and it stays
open while the monitor is occupied and until that call has returned or a
back-off is over; then one call for this domain alone probes it. The open ones
survive a restart in a small file, because the wedged guest and libvirtd's held
worker survive it too.
"""

from collections.abc import Callable
from collections.abc import Iterable
import dataclasses
import enum
import logging
import time
from typing import Any

from oie import exceptions
from oie.sources import calls
from oie.sources import remembered

LOG = logging.getLogger(__name__)

FIRST_BACKOFF = 60.0
LONGEST_BACKOFF = 900.0


class Verdict(enum.Enum):
    """What may be asked of a domain in this cycle."""

    ASK = 'together with others'
    PROBE = 'alone'
    SKIP = 'nothing that needs its monitor'


@dataclasses.dataclass(slots=True)
class _Suspect:
    trips: int
    tripped_at: float
    call: calls.Call[Any] | None = None
    is_open: bool = True

    def is_due(self, now: float) -> bool:
        # The answer to a first stuck call is the best proof of recovery.
        if self.call is not None and self.call.has_returned and self.trips == 1:
            return True
        # The exponent is bounded: after days of trips 2.0 ** n overflows.
        backoff = min(FIRST_BACKOFF * 2.0 ** min(self.trips - 1, 16), LONGEST_BACKOFF)
        return now - self.tripped_at >= backoff


class Breaker:
    """The suspects of this host, by instance uuid."""

    def __init__(self, path: str = '', clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._is_saved = True
        self._suspects = {uuid: _Suspect(1, clock()) for uuid in self._load()}

    @property
    def open(self) -> frozenset[str]:
        """The domains that are not asked at present."""
        return frozenset(uuid for uuid, s in self._suspects.items() if s.is_open)

    def verdict(self, uuid: str, *, is_busy: bool) -> Verdict:
        """Return what may be asked of this domain now.

        :param is_busy: its monitor is occupied for longer than we accept, by
            our own stuck call or by somebody else's
        """
        if is_busy:
            return Verdict.SKIP
        suspect = self._suspects.get(uuid)
        if suspect is None or not suspect.is_open:
            return Verdict.ASK
        return Verdict.PROBE if suspect.is_due(self._clock()) else Verdict.SKIP

    def trip(self, uuid: str, call: calls.Call[Any], *, is_certain: bool = True) -> None:
        """Note that this call got stuck in this domain.

        :param is_certain: False if it may be another domain of the same call;
            then the back-off does not grow
        """
        known = self._suspects.get(uuid)
        trips = 0 if known is None else known.trips
        trips = max(1, trips + is_certain)
        self._suspects[uuid] = _Suspect(trips, self._clock(), call)
        self._save()

    def succeed(self, uuid: str) -> None:
        """Note that the domain answered; old trips are forgiven with time."""
        suspect = self._suspects.get(uuid)
        if suspect is None:
            return
        if suspect.is_open:
            suspect.is_open = False
            suspect.call = None  # and what it brought
            self._save()
        elif self._clock() - suspect.tripped_at > LONGEST_BACKOFF:
            del self._suspects[uuid]

    def forget(self, uuids: Iterable[str]) -> None:
        """Believe these domains again: they have a new QEMU."""
        known = [uuid for uuid in uuids if uuid in self._suspects]
        for uuid in known:
            del self._suspects[uuid]
        if known:
            self._save()

    def keep_only(self, uuids: Iterable[str]) -> None:
        """Forget the domains that have left this host."""
        self.forget(self._suspects.keys() - set(uuids))

    def _load(self) -> list[str]:
        if not self._path:
            return []
        try:
            known = remembered.load(self._path)
        except exceptions.SourceError as exc:
            LOG.warning('suspects of the last run are lost: %s', exc)
            return []
        return [uuid for uuid in known if isinstance(uuid, str)] if isinstance(known, list) else []

    def _save(self) -> None:
        if not self._path:
            return
        try:
            remembered.save(self._path, sorted(self.open))
        except exceptions.SourceError as exc:
            if self._is_saved:
                LOG.warning('suspects will not survive a restart: %s', exc)
            self._is_saved = False
        else:
            self._is_saved = True
