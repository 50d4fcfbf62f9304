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

"""Times of vCPUs that go on, whatever is plugged and unplugged.

libvirt reads them from the threads of QEMU. Unplugging a vCPU ends its thread
and takes its time out of every sum; plugged again it begins at zero. Here what
was used stays used, for as long as the same QEMU runs. VcpuLedgers keeps it over
a restart of ours.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
from typing import Any

from oie import model

# virVcpuState.
_OFFLINE = 0
_TIMES = ('time_ns', 'wait_ns', 'delay_ns')

State = Mapping[str, Mapping[str, tuple[int, int]]]


class VcpuLedger:
    """What the vCPUs of one QEMU have used since we know it."""

    def __init__(self) -> None:
        self._counters: dict[int, dict[str, _Counter]] = {}

    @classmethod
    def of(cls, state: State) -> 'VcpuLedger':
        """Return the ledger that state() was taken from.

        :raises ValueError: or AttributeError, TypeError: it is no such state
        """
        ledger = cls()
        for number, counters in state.items():
            ledger._counters[whole(int(number))] = {
                name: _Counter(*map(whole, counters[name])) for name in _TIMES if name in counters
            }
        return ledger

    def state(self) -> State:
        """Return the counters by number and name, for JSON: what ended, and what runs."""
        return {
            str(number): {name: (one.before, one.last) for name, one in counters.items()}
            for number, counters in self._counters.items()
        }

    @property
    def carried_ns(self) -> int:
        """What threads used that have ended, all times in one sum: it grows when one ends."""
        return sum(one.before for each in self._counters.values() for one in each.values())

    @property
    def used_ns(self) -> int:
        """CPU time of all vCPUs when they were last seen."""
        seen = (each['time_ns'] for each in self._counters.values() if 'time_ns' in each)
        return sum(one.before + one.last for one in seen)

    def settle(
        self, vcpus: tuple[model.VcpuStatistics, ...], current: int | None
    ) -> tuple[model.VcpuStatistics, ...]:
        """Return the vCPUs with times that never fall, unplugged ones as offline.

        Nothing is returned where fewer are listed than there are: libvirt could
        not read them, and a sum without them would fall.

        :param current: how many are plugged
        """
        if current is None or len(vcpus) < current:
            return ()
        settled = [self._go_on(vcpu) for vcpu in vcpus]
        unplugged = self._counters.keys() - {vcpu.number for vcpu in vcpus}
        if not unplugged:
            return tuple(settled)
        return tuple(sorted((*settled, *self._end(unplugged)), key=lambda vcpu: vcpu.number))

    def _go_on(self, vcpu: model.VcpuStatistics) -> model.VcpuStatistics:
        counters = self._counters.setdefault(vcpu.number, {})
        more: dict[str, Any] = {}
        for name in _TIMES:
            value = getattr(vcpu, name)
            if value is None:
                continue
            if (counter := counters.get(name)) is None:
                counter = counters[name] = _Counter()
            if (total := counter.go_on(value)) != value:
                more[name] = total
        return dataclasses.replace(vcpu, **more) if more else vcpu

    def _end(self, numbers: Iterable[int]) -> Iterator[model.VcpuStatistics]:
        for number in numbers:
            totals: dict[str, Any] = {name: c.end() for name, c in self._counters[number].items()}
            yield model.VcpuStatistics(number=number, state=_OFFLINE, **totals)


@dataclasses.dataclass(slots=True)
class _Counter:
    """A counter that begins at zero again and again, made one that does not."""

    before: int = 0
    last: int = 0

    def go_on(self, value: int) -> int:
        """Return the total at the present value."""
        if value < self.last // 2:
            self.before += self.last
        elif value < self.last:
            # A thread that began anew is far behind; this is another rounding.
            value = self.last
        self.last = value
        return self.before + value

    def end(self) -> int:
        """Return the total; the next value counts from zero."""
        self.before += self.last
        self.last = 0
        return self.before


def whole(value: Any) -> int:
    """Return a number as libvirt has them: whole, not negative, of 63 bits.

    :raises ValueError: it is another one, or no number
    """
    if isinstance(value, bool) or not isinstance(value, int) or value >> 63:
        raise ValueError(f'{value!r:.60} is no whole number from 0 to 2**63')
    return value
