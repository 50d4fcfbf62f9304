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

"""Counters that begin anew with every QEMU → totals of one instance that never fall.

A total may miss what nobody saw; it never holds what was not used. So a counter
that is not read changes nothing, one that falls begins anew, and a value grows
over time only between two readings that are close to each other.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
import math
import operator
from typing import Any

from oie import model

DISK = ('read_bytes', 'read_requests', 'write_bytes', 'write_requests')
NETWORK = ('rx_bytes', 'rx_packets', 'tx_bytes', 'tx_packets')
NANOSECONDS = 10**9
# A guest may get and lose ports for ever, each with a name of its own.
MOST_DEVICES = 64
_SIZE = len(DISK)
_GONE = [None] * _SIZE
_ENCODE = json.JSONEncoder(separators=(',', ':'), allow_nan=False).encode
_of_disk = operator.attrgetter(*DISK)
_of_network = operator.attrgetter(*NETWORK)

Value = int | None
Devices = dict[str, 'Counters']


class Counters:
    """Raw counters of one device, read together, and their totals over all of its lives.

    ``last`` is None before the first reading of a life. The counters of a new
    life begin at zero, unless somebody else may have used them before.
    """

    __slots__ = ('last', 'totals')

    def __init__(self, totals: Sequence[Value], last: Sequence[Value]) -> None:
        self.totals = list(totals)
        self.last = list(last)

    def end(self) -> None:
        """Let the next reading be the first one of a new life."""
        self.last = [None] * len(self.last)

    def count(self, raw: Sequence[Value], *, is_shared: bool = False) -> None:
        """Add what was used since the last reading; None was not read and adds nothing.

        :param is_shared: what a new life counts at first is not known to be its own
        """
        for now, before in zip(raw, self.last, strict=True):
            if now is not None and before is not None and now < before:
                # A device that was plugged anew begins with all of its counters.
                self.end()
                break
        totals, last = self.totals, self.last
        for index, now in enumerate(raw):
            before = last[index]
            if now is None or now == before:
                continue
            if before is None:
                before = now if is_shared else 0
            totals[index] = (totals[index] or 0) + now - before
            last[index] = now


@dataclasses.dataclass(slots=True)
class Integral:
    """A rate summed up over time; the rate of a span is the lower one of its two ends."""

    total: float | int | None = None
    rate: float | int | None = None

    def count(self, rate: float | int | None, span_ns: int) -> None:
        """Add a span, 0 for none; a rate of None is not known and adds nothing."""
        if rate is not None:
            added = span_ns * min(rate, self.rate) if self.rate is not None else 0
            self.total = (self.total or 0) + added
        self.rate = rate

    def seconds(self) -> float | None:
        """Return the total in units of the rate times seconds."""
        return None if self.total is None else self.total / NANOSECONDS


class Account:
    """What one instance has used here; one thread at a time may touch it.

    :param since: Unix time of the first reading
    :param is_late: the first life began before anybody remembered; of its
        counters only what is used from now on counts
    """

    def __init__(self, since: float, *, is_late: bool = False) -> None:
        self.since = since
        self.updated_at = since
        self._life = ''
        self._is_late = is_late
        self._cpu = Counters((None,), (None,))
        self._disks: Devices = {}
        self._interfaces: Devices = {}
        self._functions: Devices = {}
        self._vcpus = Integral()
        self._memory = Integral()
        self._licences = Integral()
        self._clock_ns: int | None = None
        self._monitor_read_at: float | None = None

    # --- counting -----------------------------------------------------------

    def count(
        self,
        instance: model.Instance,
        life: str,
        max_gap: float,
        units: float | None = None,
    ) -> None:
        """Add what was used since the last reading; an instance that is not fresh adds nothing.

        :param life: name of the run of QEMU, the same for as long as that runs
        :param max_gap: seconds after which the time between two readings counts nothing
        :param units: licence units that the instance needs at this moment
        """
        if not instance.is_fresh:
            return
        if life != self._life:
            # Only the life that was under way when we came is not known from its beginning.
            self._is_late = self._is_late and not self._life
            self._begin(life)
        self._count_cpu(instance.cpu_time_ns)
        for nic in instance.interfaces:
            self._count_device(self._interfaces, nic.device.name, _of_network(nic))
        for function in instance.virtual_functions:
            # The physical function counts on, whoever has the virtual one.
            self._count_device(
                self._functions, function.device.name, _of_network(function), is_shared=True
            )
        self._count_disks(instance.monitor)
        self._fold(instance.definition)
        self._count_time(instance, max_gap, units)
        self.updated_at = instance.read_at

    def _begin(self, life: str) -> None:
        self._life = life
        for counters in (self._cpu, *self._devices()):
            counters.end()

    def _count_cpu(self, cpu_time_ns: int | None) -> None:
        before = self._cpu.last[0]
        if cpu_time_ns is not None and before is not None and cpu_time_ns < before:
            if cpu_time_ns >= before // 2:
                # No QEMU gives CPU time back: it was summed up in another way.
                return
            # libvirtd counts domain ids anew when it starts: this is another QEMU.
            self._is_late = False
            self._begin(self._life)
        self._cpu.count((cpu_time_ns,), is_shared=self._is_late)

    def _count_disks(self, monitor: model.MonitorStatistics | None) -> None:
        # What a monitor said last is shown on while it does not answer.
        if monitor is None or monitor.read_at == self._monitor_read_at:
            return
        self._monitor_read_at = monitor.read_at
        for disk in monitor.disks:
            self._count_device(self._disks, disk.device.target, _of_disk(disk))

    def _count_device(
        self, devices: Devices, name: str, raw: Sequence[Value], *, is_shared: bool = False
    ) -> None:
        if not name or raw == (None,) * _SIZE:
            return
        if (counters := devices.get(name)) is None:
            counters = devices[name] = Counters(_GONE, _GONE)
        counters.count(raw, is_shared=is_shared or self._is_late)

    def _count_time(self, instance: model.Instance, max_gap: float, units: float | None) -> None:
        now_ns, before_ns = instance.read_clock_ns, self._clock_ns
        span_ns = 0 if before_ns is None else now_ns - before_ns
        if not 0 < span_ns <= max_gap * NANOSECONDS:
            span_ns = 0
        self._clock_ns = now_ns
        self._vcpus.count(_vcpus(instance), span_ns)
        self._memory.count(memory_mib(instance), span_ns)
        self._licences.count(units, span_ns)

    def _fold(self, definition: model.Definition) -> None:
        """Sum up the oldest devices that are gone, where there are very many."""
        for devices in (self._disks, self._interfaces, self._functions):
            if len(devices) <= MOST_DEVICES:
                continue
            present = {disk.target for disk in definition.disks}
            present |= {interface.name for interface in definition.interfaces}
            gone = [name for name in devices if name and name not in present]
            sums = devices.setdefault('', Counters(_GONE, _GONE))
            for name in gone[: len(devices) - MOST_DEVICES]:
                more = devices.pop(name).totals
                sums.totals = [_sum(pair) for pair in zip(sums.totals, more, strict=True)]

    def _devices(self) -> Iterable[Counters]:
        for devices in (self._disks, self._interfaces, self._functions):
            yield from devices.values()

    # --- telling ------------------------------------------------------------

    @property
    def vcpu_ns(self) -> int:
        """vCPUs times nanoseconds, 0 for never read."""
        return int(self._vcpus.total or 0)

    @property
    def memory_mib_ns(self) -> int:
        """MiB times nanoseconds, 0 for never read."""
        return int(self._memory.total or 0)

    def usage(self, definition: model.Definition) -> model.Usage:
        """Return the totals."""
        disk = _sums(self._disks.values())
        network = _sums((*self._interfaces.values(), *self._functions.values()))
        return model.Usage(
            definition=definition,
            since=self.since,
            updated_at=self.updated_at,
            cpu_time_ns=self._cpu.totals[0],
            vcpu_seconds=self._vcpus.seconds(),
            memory_mb_seconds=self._memory.seconds(),
            license_unit_seconds=self._licences.seconds(),
            disk_read_bytes=disk[0],
            disk_read_requests=disk[1],
            disk_write_bytes=disk[2],
            disk_write_requests=disk[3],
            network_rx_bytes=network[0],
            network_rx_packets=network[1],
            network_tx_bytes=network[2],
            network_tx_packets=network[3],
        )

    def text(self) -> str:
        """Return what parse() reads."""
        return _ENCODE(
            {
                'since': self.since,
                'updated_at': self.updated_at,
                'life': self._life,
                'late': self._is_late,
                'cpu': self._cpu.totals + self._cpu.last,
                'disks': {name: c.totals + c.last for name, c in self._disks.items()},
                'interfaces': {name: c.totals + c.last for name, c in self._interfaces.items()},
                'functions': {name: c.totals + c.last for name, c in self._functions.items()},
                'vcpu_ns': self._vcpus.total,
                'memory_mib_ns': self._memory.total,
                'license_unit_ns': self._licences.total,
            }
        )

    @classmethod
    def parse(cls, text: str) -> 'Account':
        """Return the account that text() wrote.

        :raises ValueError: nobody here wrote this
        """
        try:
            found = json.loads(text)
            account = cls(_number(found['since']), is_late=found['late'] is True)
            account.updated_at = _number(found['updated_at'])
            account._life = str(found['life'])
            account._cpu = _counters(found['cpu'], 1)
            account._disks = _parse_devices(found['disks'])
            account._interfaces = _parse_devices(found['interfaces'])
            account._functions = _parse_devices(found['functions'])
            account._vcpus.total = _count(found['vcpu_ns'])
            account._memory.total = _count(found['memory_mib_ns'])
            units = found['license_unit_ns']
            account._licences.total = None if units is None else _number(units)
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            OverflowError,
            RecursionError,
        ) as exc:
            raise ValueError(f'not an account: {type(exc).__name__}: {exc}') from exc
        return account


def times(text: str) -> tuple[int, int]:
    """Return vCPU and MiB nanoseconds of what text() wrote.

    :raises ValueError: nobody here wrote this
    """
    account = Account.parse(text)
    return account.vcpu_ns, account.memory_mib_ns


def memory_mib(instance: model.Instance) -> int | None:
    """Return the memory that is paid for: the flavor's, else the most the guest may have."""
    known = instance.definition.flavor.memory_mib
    if known is not None or instance.memory_maximum_bytes is None:
        return known
    return instance.memory_maximum_bytes // 2**20


def _vcpus(instance: model.Instance) -> int | None:
    live = instance.monitor.vcpus_current if instance.monitor is not None else None
    return instance.vcpus if live is None else live


def _sum(values: Iterable[Value]) -> Value:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _sums(devices: Iterable[Counters]) -> list[Value]:
    rows = [counters.totals for counters in devices]
    if not rows:
        return list(_GONE)
    try:
        return [sum(column) for column in zip(*rows, strict=True)]
    except TypeError:
        # One of them was never read.
        return [_sum(column) for column in zip(*rows, strict=True)]


def _parse_devices(found: Mapping[str, Any]) -> Devices:
    return {name: _counters(numbers, _SIZE) for name, numbers in found.items()}


def _counters(numbers: Sequence[Any], size: int) -> Counters:
    if not isinstance(numbers, list) or len(numbers) != 2 * size:
        raise ValueError(f'{2 * size} numbers expected')
    values = [_count(number) for number in numbers]
    return Counters(values[:size], values[size:])


def _count(value: Any) -> int | None:
    if value is not None and (type(value) is not int or value < 0):
        raise ValueError('no count')
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
        raise ValueError('no positive number')
    return float(value)
