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

"""What every collector is: one subject, its meters as tables, one generator."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import enum
import math
from typing import Any
from typing import cast
from typing import ClassVar

from oslo_config import cfg

from oie import model

Notes = dict[str, Any]
Column = tuple[model.Meter, model.Getter]
Rows = Sequence[tuple[model.Labels, Any]]


class Resource(enum.Enum):
    """What a column of meters describes."""

    INSTANCE = 'instance'
    MONITOR = 'what the QEMU monitor says of an instance'
    DISK = 'disk'
    INTERFACE = 'interface'
    VIRTUAL_FUNCTION = 'interface that the guest owns, as its physical function counts it'
    ADDRESS = 'flows of a fixed IP'
    CONTACTS = 'contacts of an instance with a list'
    USAGE = 'what an instance has used'
    GUEST = 'operating system of a guest, with its instance'
    ROUTER = 'router that forwards to the outside here'


Columns = Mapping[Resource, tuple[Column, ...]]


class Collector:
    """Turns snapshots into samples of one subject.

    :cvar NEEDS: fields of the snapshot it reads; they decide which sources run
    :cvar COLUMNS: its plain meters, each with the function that gets the value
    :cvar OPTIONAL: the same for names of ``[collector] optional``
    :cvar METERS: all further meters, which ``collect`` makes in its own way
    :cvar METRIC_SET: the value of ``[exporter] metric_sets`` it belongs to
    """

    GROUP: ClassVar[str] = ''
    OPTS: ClassVar[tuple[cfg.Opt, ...]] = ()
    NEEDS: ClassVar[frozenset[str]] = frozenset({'instances'})
    COLUMNS: ClassVar[Columns] = {}
    OPTIONAL: ClassVar[Mapping[str, Columns]] = {}
    METERS: ClassVar[tuple[model.Meter, ...]] = ()
    METRIC_SET: ClassVar[str] = 'oie'

    def __init__(self, options: Any, common: Any) -> None:
        """Keep the options; collectors have no other state.

        :param options: the collector's own group
        :param common: the group ``[collector]``
        """
        self.options = options
        self.common = common

    def collect(
        self, previous: model.Snapshot | None, current: model.Snapshot, notes: Notes
    ) -> Iterator[model.Family]:
        """Give the families of this cycle.

        :param notes: what this collector noted earlier, by instance uuid; the
            caller drops the notes of instances that left
        """
        wanted = (columns for name, columns in self.OPTIONAL.items() if self.wants(name))
        for columns in (self.COLUMNS, *wanted):
            for resource, table in columns.items():
                yield from families(table, rows(current, resource))

    @classmethod
    def meters(cls) -> tuple[model.Meter, ...]:
        """Return every meter this collector may publish."""
        tables = (*cls.COLUMNS.values(), *(t for o in cls.OPTIONAL.values() for t in o.values()))
        return (*(meter for table in tables for meter, _ in table), *cls.METERS)

    def wants(self, optional: str) -> bool:
        """Whether an optional group of series is switched on."""
        return optional in self.common.optional


def rows(snapshot: model.Snapshot, resource: Resource) -> Rows:
    """Return the resources of one kind with their labels."""
    instances = snapshot.instances.value
    if resource is Resource.INSTANCE:
        return [(i.definition.labels, i) for i in instances]
    if resource is Resource.MONITOR:
        return [(i.definition.labels, i.monitor) for i in instances if i.monitor is not None]
    if resource is Resource.DISK:
        monitors = (i.monitor for i in instances if i.monitor is not None)
        return [(disk.device.labels, disk) for m in monitors for disk in m.disks]
    if resource is Resource.VIRTUAL_FUNCTION:
        return [(vf.device.labels, vf) for i in instances for vf in i.virtual_functions]
    if resource is Resource.USAGE:
        return [(usage.definition.labels, usage) for usage in snapshot.usage.value or ()]
    return [(nic.device.labels, nic) for i in instances for nic in i.interfaces]


def families(columns: Iterable[Column], resources: Rows) -> Iterator[model.Family]:
    """Give one family a column, with a sample for each value that is known."""
    labels = [of for of, _ in resources]
    for meter, value_of in columns:
        if not meter.prometheus:
            continue
        values = [value_of(resource) for _, resource in resources]
        if None in values:
            yield from family(meter, zip(labels, values, strict=True))
        elif values:
            yield model.Family(meter, labels, cast(list[float | int], values))


def family(
    meter: model.Meter,
    samples: Iterable[tuple[model.Labels, float | int | None]],
    suffix: str = '',
) -> Iterator[model.Family]:
    """Give one family of the samples that are known, nothing when there are none."""
    known = [(labels, value) for labels, value in samples if value is not None]
    if known:
        yield model.Family.of(meter, known, suffix)


def single(meter: model.Meter, value: float | int | None) -> Iterator[model.Family]:
    """Give a family of one sample without labels."""
    return family(meter, ((model.NO_LABELS, value),))


def noted(
    notes: Notes, definition: model.Definition, make: Callable[[model.Definition], Any]
) -> Any:
    """Return what was made of this definition, making it once."""
    known = notes.get(definition.uuid)
    if known is None or known[0] is not definition:
        known = notes[definition.uuid] = (definition, make(definition))
    return known[1]


def address_labels(
    notes: Notes, definition: model.Definition, address: model.Address
) -> model.Labels:
    """Return the labels of a fixed IP, the same object for as long as it is there."""
    known = noted(notes, definition, _labels_by_address)
    labels: model.Labels = known[address]
    return labels


def _labels_by_address(definition: model.Definition) -> dict[model.Address, model.Labels]:
    return {
        address: definition.labels.extended(ip=address.ip, family=address.family)
        for address in definition.addresses
    }


def seconds(nanoseconds: int | None) -> float | None:
    """Return nanoseconds as seconds."""
    return None if nanoseconds is None else nanoseconds / 1e9


def milliseconds(value: int | None) -> float | None:
    """Return milliseconds as seconds."""
    return None if value is None else value / 1e3


def round5(value: float) -> float:
    """Round to five decimals, half away from zero, as the reference exporter does."""
    return math.floor(value * 1e5 + 0.5) / 1e5


def gbytes(value: int) -> float:
    """Return bytes as the reference's gbytes: GiB of 2^30, five decimals."""
    return round5(value / 2**30)
