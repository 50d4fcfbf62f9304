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

"""The zone map of this host, read at its own pace, the last good one kept."""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import logging
import time

from oie import exceptions
from oie import failures
from oie import model
from oie.sources.zone_maps import base
from oie.sources.zone_maps import choice

LOG = logging.getLogger(__name__)

# A host that keeps no map may start to, when its network agent does.
CHOICE_PAUSE = 60.0
LONGEST_PAUSE = 60.0
# A cycle that begins a little early need not wait for the next one.
_EARLY = 0.9
_MOST_DOUBLINGS = 10

Zones = Mapping[int, str]


class KeptZoneMap:
    """Reads a zone map when it is due; between that, and on failure, the last one stays.

    :param drivers: the installed zone maps by name, ``none`` among them
    :param wanted: the name of one of them, or ``auto``
    """

    def __init__(
        self,
        drivers: Mapping[str, base.ZoneMap],
        wanted: str = choice.AUTO,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.name = '' if wanted == choice.AUTO else wanted
        self._drivers = drivers
        self._is_chosen = wanted != choice.AUTO
        self._monotonic = monotonic
        self._wall = wall
        self._failures = failures.LastingFailures(LOG)
        self._reading: model.Reading[Zones | None] = model.Reading(
            value=None, read_at=None, seconds=0.0
        )
        self._succeeded = monotonic()
        self._due = self._succeeded
        self._failed = 0

    @property
    def conflicts(self) -> int:
        """How many zones the last good map leaves out: more than one claims them."""
        return self._drivers[self.name].conflicts if self.name else 0

    @property
    def malformed(self) -> int:
        """How many ports the last good map leaves out: their zone is unusable."""
        return self._drivers[self.name].malformed if self.name else 0

    def read(self) -> model.Reading[Zones | None]:
        """Return the map; None is no map: this host has none, or ``error`` says why.

        It never raises for what the host does.
        """
        if self._monotonic() >= self._due:
            self._attempt()
        reading = self._reading
        if reading.error and self._monotonic() - self._succeeded > self._max_age():
            return dataclasses.replace(reading, value=None)
        return reading

    def _attempt(self) -> None:
        began = self._monotonic()
        try:
            zones = self._read_driver()
        # A driver may be a stranger's: whatever it raises costs the map only.
        except Exception as exc:
            self._fail(exc, began)
        else:
            self._succeed(zones, began)

    def _read_driver(self) -> Zones | None:
        if not self._is_chosen:
            name = choice.choose(self._drivers)
            if name != self.name:
                LOG.info('conntrack zones are told by the zone map %s', name)
            self.name = name
            self._is_chosen = name != choice.NONE
        return self._drivers[self.name].read()

    def _succeed(self, zones: Zones | None, began: float) -> None:
        self._failures.settle('zone map', 'not read')
        self._failed = 0
        self._succeeded = self._monotonic()
        pause = self._drivers[self.name].refresh if self._is_chosen else CHOICE_PAUSE
        self._due = began + _EARLY * pause
        self._reading = model.Reading(
            value=zones, read_at=self._wall(), seconds=self._succeeded - began
        )

    def _fail(self, exc: Exception, began: float) -> None:
        error = str(exc) if isinstance(exc, exceptions.OieError) else repr(exc)
        self._failures.report('zone map', 'not read', error)
        refresh = self._drivers[self.name].refresh if self.name else base.REFRESH
        pause = min(refresh * 2**self._failed, max(refresh, LONGEST_PAUSE))
        self._failed = min(self._failed + 1, _MOST_DOUBLINGS)
        self._due = began + _EARLY * pause
        self._reading = dataclasses.replace(
            self._reading, seconds=self._monotonic() - began, error=error
        )

    def _max_age(self) -> float:
        if not self.name:
            return 0.0
        driver = self._drivers[self.name]
        return max(driver.max_age, 2 * driver.refresh)
