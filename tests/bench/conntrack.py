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

"""What reading the connection tracking table costs, against reading and dropping it.

The tables are those of private network namespaces; nothing of the machine changes but
``nf_conntrack_max``, which no namespace has of its own, for as long as this runs.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import ipaddress
import os
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np

from oie import model
from oie.analysis import attribution
from oie.analysis import behaviour
from oie.analysis import flows as analysis
from oie.sources import conntrack
from oie.sources import ctnetlink as decoder
from tests import builders
from tests import ctnetlink
from tests.bench import table
from tests.functional import flows
from tests.functional import processes

REPEATS = 7
SIZES = (100_000, 300_000, 1_000_000)
LIMIT = pathlib.Path(conntrack.MAXIMUM)

MEMORY = """
import re, sys
from oie.sources import conntrack
def peak():
    return re.search('VmHWM:\\s+([0-9]+)', open('/proc/self/status').read())[1]
before = peak()
conntrack.dump(lambda flows: None, namespace=sys.argv[1])
print(before, peak())
"""


def tables() -> Iterator[tuple[str, list[table.Line]]]:
    """Measure; give the title and the lines of each table."""
    with limit(1_100_000):
        with flows.Namespace() as namespace:
            fill_plain(namespace, 500_000)
            yield '500,000 entries, a tenth of them IPv6, TCP and UDP', list(plain(namespace))
        with flows.Namespace() as namespace:
            namespace.set(acct=1, timestamp=1)
            fill_mixed(namespace, 300_000)
            yield '300,000 entries of 60 shapes, counted and timed', list(mixed(namespace))
        yield '100,000, 300,000 and 1,000,000 entries', list(growth())
        yield 'the whole cycle: read, attribute, sum up, compare', list(cycles())


@contextlib.contextmanager
def limit(entries: int) -> Iterator[None]:
    """Let tables have so many entries, then as many as before."""
    before = LIMIT.read_text(encoding='ascii')

    def restore() -> None:
        LIMIT.write_text(before, encoding='ascii')

    processes.end_later(LIMIT, restore)
    LIMIT.write_text(str(max(entries, int(before))), encoding='ascii')
    try:
        yield
    finally:
        processes.ended(LIMIT)
        restore()


def fill_plain(
    namespace: flows.Namespace, count: int, sources: int = 50000, *, scattered: bool = False
) -> None:
    """Make connections and UDP flows of so many addresses of each family to very many.

    :param scattered: whether the peers of IPv4 lie all over the Internet, not side by side
    """
    for tuple_, share in (
        (ctnetlink.tcp('10.0.0.0', '192.0.2.1'), 0.6),
        (ctnetlink.udp('10.0.0.0', '192.0.2.1'), 0.3),
        (ctnetlink.tcp('2001:db8::', '2001:db8:1::1'), 0.06),
        (ctnetlink.udp('2001:db8::', '2001:db8:1::1'), 0.04),
    ):
        number = np.arange(round(count * share))
        namespace.add_many(
            flows.many(
                ctnetlink.Entry(tuple_),
                len(number),
                src=0x0A000000 + number % sources,
                dst=0x0B000000 + number * 102_943 % 0xB0000000
                if scattered
                else 0xC0000000 + number,
                src_port=1024 + number * 7919 % 60000,
            )
        )


def fill_mixed(namespace: flows.Namespace, count: int) -> None:
    """Make as many entries of every shape."""
    shapes = list(mixed_shapes())
    for shape in shapes:
        namespace.add_many(flows.many(shape, count // len(shapes)))


def mixed_shapes() -> Iterator[ctnetlink.Entry]:
    """Give six protocols of two families, each in five ways."""
    for source, peer, outside in (
        ('10.0.0.0', '192.0.2.1', '203.0.113.9'),
        ('2001:db8::', '2001:db8:1::1', '2001:db8:2::9'),
    ):
        for make in (
            *(ctnetlink.tcp, ctnetlink.udp, ctnetlink.sctp, ctnetlink.gre, ctnetlink.echo),
            ctnetlink.portless,
        ):
            orig = make(source, peer)
            other = make(source, outside)
            yield ctnetlink.Entry(orig)
            yield ctnetlink.Entry(orig, zone=1, status=ctnetlink.CONFIRMED)
            yield ctnetlink.Entry(dataclasses.replace(other, zone=2))
            yield ctnetlink.Entry(orig, zone=3, mark=0x4D, labels=bytes(range(16)))
            yield ctnetlink.Entry(orig, dataclasses.replace(orig.reversed(), src=outside), zone=4)


def plain(namespace: flows.Namespace) -> Iterator[table.Line]:
    """Compare with the raw dump and with conntrack."""
    measured = Measured(namespace)
    yield measured.ratio_line(1.25)
    yield measured.decoding_line(0.4)
    theirs = statistics.median(table.in_turn(3, lambda: list_with_conntrack(namespace))[0])
    ours = statistics.median(measured.ours)
    yield table.Line(
        'the same / conntrack -L > /dev/null',
        f'{ours / theirs:.2f} x ({ours:.2f} s / {theirs:.2f} s)',
        'below 1 x',
        ours < theirs,
    )


def mixed(namespace: flows.Namespace) -> Iterator[table.Line]:
    """Compare with the raw dump; count what was odd."""
    measured = Measured(namespace)
    yield measured.ratio_line(1.6)
    yield measured.decoding_line(0.8)
    yield table.Line(
        'entries that no template fitted',
        f'{measured.report.odd} of {measured.report.entries}',
        'none',
        measured.report.odd == 0,
    )


def growth() -> Iterator[table.Line]:
    """Compare tables of three sizes, and look at the memory of the largest."""
    ours, raw = [], []
    for count in SIZES:
        with flows.Namespace() as namespace:
            fill_plain(namespace, count)
            measured = Measured(namespace)
            ours.append(measured.microseconds(measured.cpu))
            raw.append(measured.microseconds(measured.raw_cpu))
            if count == SIZES[-1]:
                yield measured.ratio_line(1.25)
                yield memory_line(namespace)
    yield table.Line(
        'CPU time of dump + decode (of the raw dump), an entry',
        ', '.join(f'{one:.2f} ({other:.2f})' for one, other in zip(ours, raw, strict=True))
        + ' microseconds',
        'within 20 %',
        max(ours) <= 1.2 * min(ours),
    )


class Measured:
    """Seconds of our dumps and of raw ones, taken in turn; all threads for CPU time."""

    def __init__(self, namespace: flows.Namespace) -> None:
        self._namespace = namespace
        self._templates = decoder.Templates()
        self._dump()
        self.cpu: list[float] = []
        self.raw_cpu: list[float] = []
        self.decoding: list[float] = []
        self.ours, self.raw = table.in_turn(REPEATS, self._measure, self._measure_raw)

    def microseconds(self, seconds: list[float]) -> float:
        """Return the least disturbed of them for one entry."""
        return min(seconds) / self.report.entries * 1e6

    def ratio_line(self, goal: float) -> table.Line:
        """Return how much longer ours takes."""
        ratio = statistics.median(a / b for a, b in zip(self.ours, self.raw, strict=True))
        cpu = statistics.median(a / b for a, b in zip(self.cpu, self.raw_cpu, strict=True))
        times = f'{statistics.median(self.ours):.2f} s / {statistics.median(self.raw):.2f} s'
        return table.Line(
            f'{self.report.entries:,} entries: dump + decode / raw dump',
            f'{ratio:.2f} x ({times}; CPU {cpu:.2f} x)',
            f'at most {goal} x',
            ratio <= goal,
        )

    def decoding_line(self, goal: float) -> table.Line:
        """Return the CPU time of the thread that decodes."""
        cost = self.microseconds(self.decoding)
        return table.Line(
            'CPU time of decoding, an entry',
            f'{cost:.2f} microseconds',
            f'at most {goal}',
            cost <= goal,
        )

    def _dump(self) -> None:
        self.report = conntrack.dump(
            lambda flows: None, namespace=self._namespace.path, templates=self._templates
        )

    def _measure(self) -> None:
        all_threads, this_thread = time.process_time(), time.thread_time()
        self._dump()
        self.cpu.append(time.process_time() - all_threads)
        self.decoding.append(time.thread_time() - this_thread)

    def _measure_raw(self) -> None:
        began = time.process_time()
        for _ in self._namespace.dump():
            pass
        self.raw_cpu.append(time.process_time() - began)


class MeasuredCycle(Measured):
    """The same for everything a cycle does with the table."""

    def __init__(self, namespace: flows.Namespace, instances: int) -> None:
        self._owners = attribution.Owners([owner(number) for number in range(instances)])
        self._memory: analysis.Memory | None = None
        super().__init__(namespace)

    def _dump(self) -> None:
        found = attribution.Attribution(self._owners)
        self.report = conntrack.dump(
            found.take, namespace=self._namespace.path, templates=self._templates
        )
        talks = behaviour.Talks.of(found)
        self._see(found, talks)
        self.summary, self._memory = analysis.summarise(
            found, talks, self._memory, analysis.Limits(), odd=self.report.odd
        )

    def _see(self, found: attribution.Attribution, talks: behaviour.Talks) -> None:
        """Do more with the flows than their sums."""


def owner(number: int) -> model.Instance:
    """Return an instance with an address of each family, of those that are filled in."""
    address = 0x0A000000 + number
    v6 = int(ipaddress.ip_address('2001:db8::')) + address
    return builders.instance(
        definition=builders.definition(
            uuid=f'instance-{number}',
            addresses=(
                model.Address(ip=str(ipaddress.IPv4Address(address)), family='ipv4'),
                model.Address(ip=str(ipaddress.IPv6Address(v6)), family='ipv6'),
            ),
        )
    )


def cycles() -> Iterator[table.Line]:
    """Measure a million entries of a thousand instances, then fewer instances."""
    with flows.Namespace() as namespace:
        fill_plain(namespace, 1_000_000, sources=1000)
        measured = MeasuredCycle(namespace, 1000)
        yield from cycle_lines(measured)
    times = []
    for instances in (10, 100, 1000):
        with flows.Namespace() as namespace:
            fill_plain(namespace, 300_000, sources=instances)
            times.append(statistics.median(MeasuredCycle(namespace, instances).cpu))
    yield table.Line(
        'CPU of a cycle of 300,000 entries, 10, 100, 1,000 instances',
        ', '.join(f'{seconds:.2f} s' for seconds in times),
        'at most 1.3 x',
        max(times) <= 1.3 * times[0],
    )


def cycle_lines(measured: MeasuredCycle) -> Iterator[table.Line]:
    """Give wall time, CPU time and memory of the largest cycle."""
    wall = statistics.median(a / b for a, b in zip(measured.ours, measured.raw, strict=True))
    cpu = statistics.median(a / b for a, b in zip(measured.cpu, measured.raw_cpu, strict=True))
    owned = measured.report.entries - measured.summary.unattributed
    yield table.Line(
        f'{measured.report.entries:,} entries, {owned:,} of them of 1,000 instances / raw dump',
        f'{wall:.2f} x ({statistics.median(measured.ours):.2f} s / '
        f'{statistics.median(measured.raw):.2f} s)',
        'at most 1.6 x',
        wall <= 1.6,
    )
    yield table.Line('CPU of the same / raw dump', f'{cpu:.2f} x', 'at most 2 x', cpu <= 2)
    peak = processes.peak_rss_bytes(os.getpid()) / 2**20
    yield table.Line(
        'peak RSS of this process, all of the bench', f'{peak:.0f} MiB', 'at most 250 MB',
        peak * 2**20 <= 250e6,
    )  # fmt: skip


def list_with_conntrack(namespace: flows.Namespace) -> None:
    """Have conntrack read and print the same table."""
    command = ('ip', 'netns', 'exec', namespace.name, 'conntrack', '-L')
    subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True,
        env=processes.environment(),
    )  # fmt: skip


def memory_line(namespace: flows.Namespace) -> table.Line:
    """Return the peak RSS of a process that does nothing but one dump."""
    before, after = processes.run(sys.executable, '-c', MEMORY, namespace.path).split()
    peak = int(after) / 1024
    return table.Line(
        'peak RSS of a process with one dump',
        f'{peak:.0f} MiB ({int(before) / 1024:.0f} MiB before it)',
        'at most 250 MB',
        peak * 2**20 <= 250e6,
    )
