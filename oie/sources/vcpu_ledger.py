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
was used stays used, for as long as the same QEMU runs.
"""

from collections.abc import Iterable
from collections.abc import Iterator
import dataclasses
from typing import Any

from oie import model

# virVcpuState.
_OFFLINE = 0
_TIMES = ('time_ns', 'wait_ns', 'delay_ns')


class VcpuLedger:
    """What the vCPUs of one QEMU have used since we know it."""

    def __init__(self) -> None:
        self._counters: dict[int, dict[str, _Counter]] = {}

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
