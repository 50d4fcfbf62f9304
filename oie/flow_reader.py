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

"""Flows from the kernel's table to the snapshot, from one interval to the next."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Set
import dataclasses
import time
from typing import Any
from typing import Protocol

from oie import model
from oie.analysis import attribution
from oie.analysis import behaviour
from oie.analysis import flows


class Source(Protocol):
    """What reads the table into an attribution."""

    odd: int

    def read(
        self, make: Callable[[Mapping[int, str] | None], attribution.Attribution]
    ) -> model.Reading[attribution.Attribution | None]:
        """Return an attribution that took a complete dump, or None with the error."""

    def health(self) -> model.FlowHealth:
        """Return how full the table is and how well it could be read."""

    def close(self) -> None:
        """Let go of everything, at once."""


class Watch(Protocol):
    """What wants to see whom the instances talk to."""

    def see(
        self,
        found: attribution.Attribution,
        talks: behaviour.Talks,
        table: model.FlowTable,
    ) -> None:
        """Take the flows of one complete interval."""


class FlowReader:
    """Keeps the last summaries, and what is needed to tell what is new.

    A failed interval changes neither. After an outage, when the summaries are
    too old to be shown, both are forgotten: the next complete interval is a
    silent baseline again.

    :param watch: is shown every complete interval
    """

    def __init__(
        self,
        source: Source,
        limits: flows.Limits,
        *,
        watch: Watch | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._limits = limits
        self._watch = watch
        self._clock = clock
        self._memory: flows.Memory | None = None
        self._table: model.FlowTable | None = None
        self._read_at = 0.0
        self._owners: attribution.Owners | None = None
        self._owned_by: tuple[model.Definition, ...] = ()
        self._zones: Mapping[int, str] | None = None

    def read(
        self, instances: tuple[model.Instance, ...], max_age: float, known: Set[str]
    ) -> dict[str, Any]:
        """Return the fields ``flows`` and ``flow_health`` of the snapshot.

        :param max_age: seconds after which the last flows are not shown any more
        """
        flows = self._read(instances, max_age)
        return {'flows': flows, 'flow_health': self._source.health()}

    def _read(
        self, instances: tuple[model.Instance, ...], max_age: float
    ) -> model.Reading[model.FlowTable | None]:
        """Return the flows of the instances, or the last ones with the error."""
        # Counted from here: a dump that takes long makes nothing older.
        if self._clock() - self._read_at > max_age:
            self._memory = self._table = None
        reading = self._source.read(
            lambda zones: attribution.Attribution(self._owners_of(instances, zones))
        )
        if reading.value is None or reading.read_at is None:
            return model.Reading(
                value=self._table and _only(self._table, instances),
                read_at=reading.read_at,
                seconds=reading.seconds,
                error=reading.error,
            )
        talks = behaviour.Talks.of(reading.value)
        self._table, self._memory = flows.summarise(
            reading.value, talks, self._memory, self._limits, odd=self._source.odd
        )
        self._read_at = reading.read_at
        if self._watch is not None:
            self._watch.see(reading.value, talks, self._table)
        return model.Reading(value=self._table, read_at=reading.read_at, seconds=reading.seconds)

    def _owners_of(
        self, instances: tuple[model.Instance, ...], zones: Mapping[int, str] | None
    ) -> attribution.Owners:
        """Return who has which address, made anew only when somebody changed."""
        definitions = tuple(instance.definition for instance in instances)
        # Definitions are compared by identity, so this costs next to nothing.
        if self._owners is None or definitions != self._owned_by or zones != self._zones:
            self._owners = attribution.Owners(instances, zones)
            self._owned_by, self._zones = definitions, zones
        return self._owners

    def close(self) -> None:
        """Let go of everything, at once."""
        self._source.close()


def _only(table: model.FlowTable, instances: tuple[model.Instance, ...]) -> model.FlowTable:
    """Return the table without the addresses of instances that left meanwhile."""
    here = {instance.definition.uuid for instance in instances}
    kept = tuple(a for a in table.addresses if a.definition.uuid in here)
    return dataclasses.replace(table, addresses=kept)
