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

"""What watching costs: a table of ratios measured in one run, against real guests and flows.

``tox -e bench`` (root, Debian's packages). Each line compares two things that
were measured in turn, because times of a shared machine mean little alone. The
guests are QEMU under TCG without an operating system, the flows are made in a private
network namespace.
"""

import argparse
from collections.abc import Iterator
import contextlib
import importlib.metadata
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any
import urllib.request

from oie import service
from oie.cmd import wiring
from oie.outputs import prometheus
from tests.bench import capacity
from tests.bench import conntrack
from tests.bench import endpoint
from tests.bench import feeds
from tests.bench import gate
from tests.bench import inspection
from tests.bench import ledger
from tests.bench import netns
from tests.bench import table
from tests.bench import usage
from tests.functional import lab
from tests.functional import processes
from tests.functional import servers

BIN = pathlib.Path(sys.executable).parent
REPEATS = 15

CONFIG = """\
[exporter]
listen_address = 127.0.0.1:{port}
socket_path = {directory}/oie.sock
[collector]
interval = {interval}
[conntrack]
enabled = {conntrack}
[ledger]
enabled = {conntrack}
path = {directory}/ledger.sqlite
[guest_os]
enabled = {conntrack}
[libvirt]
uri = {uri}
suspects_path = {directory}/suspects.json
"""


class Running:
    """An oie-exporter of our own, in its own process."""

    def __init__(
        self, uri: str, directory: pathlib.Path, interval: str, *, conntrack: bool = False
    ) -> None:
        self.port = processes.free_port()
        self.config = directory / 'oie.conf'
        self.config.write_text(
            CONFIG.format(
                port=self.port,
                directory=directory,
                interval=interval,
                uri=uri,
                conntrack=str(conntrack).lower(),
            )
        )
        self._command = [BIN / 'oie-exporter', '--config-file', self.config]

    @contextlib.contextmanager
    def run(self) -> Iterator[int]:
        """Give the pid of the exporter, ready to be scraped."""
        with subprocess.Popen(self._command) as process:
            try:
                processes.wait_for(lambda: is_ready(self.port), 30, 'the exporter to be ready')
                yield process.pid
            finally:
                process.terminate()


def is_ready(port: int) -> bool:
    """Whether an exporter has completed a cycle."""
    try:
        with urllib.request.urlopen(f'http://127.0.0.1:{port}/readyz', timeout=2):
            return True
    except OSError:
        return False


def main() -> int:
    """Measure and print; the exit status only says whether it could be measured."""
    parser = argparse.ArgumentParser(prog='python -m tests.bench', description=__doc__)
    parser.add_argument('--guests', type=int, nargs='+', default=[30, 100])
    parser.add_argument('--seconds', type=int, default=60, help='how long to watch CPU and RSS')
    parser.add_argument(
        '--cycles', type=int, default=1000, help='for how many cycles of 1 s to watch memory'
    )
    parser.add_argument(
        '--only',
        choices=(
            'libvirt',
            'endpoint',
            'memory',
            'conntrack',
            'feeds',
            'gate',
            'ledger',
            'inspection',
            'netns',
            'capacity',
            'usage',
        ),
        help='a part of it',
    )
    arguments = parser.parse_args()
    print(machine())
    if arguments.only in (None, 'libvirt'):
        of_libvirt(arguments.guests, arguments.seconds)
    parts = (
        ('endpoint', lambda: endpoint.tables(arguments.seconds)),
        ('memory', lambda: endpoint.memory(arguments.cycles)),
        ('conntrack', conntrack.tables),
        ('feeds', feeds.tables),
        ('gate', gate.tables),
        ('ledger', ledger.tables),
        ('inspection', inspection.tables),
        ('netns', netns.tables),
        ('capacity', capacity.tables),
        ('usage', usage.tables),
    )
    for name, tables in parts:
        if arguments.only in (None, name):
            for title, lines in tables():
                table.show(title, lines)
    return 0


def of_libvirt(counts: list[int], seconds: int) -> None:
    """Measure with so many guests, then with so many more."""
    with lab.Libvirtd() as libvirtd:
        guests: list[Any] = []
        for count in sorted(counts):
            guests += libvirtd.start_guests(count - len(guests))
            table.show(f'{count} guests', list(measure(libvirtd, guests, seconds)))


def machine() -> str:
    """Return on what this was measured."""
    import libvirt

    with open('/proc/cpuinfo', encoding='utf-8') as file:
        cpu = next((line.split(':')[1].strip() for line in file if 'model name' in line), '?')
    version = libvirt.getVersion()
    return (
        f'{cpu}, {os.cpu_count()} CPUs, Linux {platform.release()}, '
        f'Python {platform.python_version()}, libvirt {version // 1000000}.'
        f'{version // 1000 % 1000}.{version % 1000}, oie {importlib.metadata.version("oie")}\n'
    )


def measure(libvirtd: lab.Libvirtd, guests: list[Any], seconds: int) -> Iterator[table.Line]:
    """Give the lines of the table."""
    yield cycle(libvirtd.uri)
    with tempfile.TemporaryDirectory(prefix='oieb-') as directory:
        exporter = Running(libvirtd.uri, pathlib.Path(directory), '10s')
        with exporter.run() as pid:
            yield from scrapes(libvirtd.uri, exporter.port)
            yield pollster(exporter.config)
            yield from resources(pid, exporter.port, seconds)
    with tempfile.TemporaryDirectory(prefix='oieb-') as directory:
        exporter = Running(libvirtd.uri, pathlib.Path(directory), '10s', conntrack=True)
        with exporter.run() as pid:
            yield from with_flows(pid, exporter.port, seconds)
    with tempfile.TemporaryDirectory(prefix='oieb-') as directory:
        yield wedged(Running(libvirtd.uri, pathlib.Path(directory), '3s'), guests[0])


def cycle(uri: str) -> table.Line:
    """Compare a whole cycle with one bulk call for the same groups."""
    import libvirt

    conf = wiring.load(['--config-file', os.devnull], 'bench')
    conf.set_override('uri', uri, 'libvirt')
    conf.set_override('suspects_path', '', 'libvirt')
    runner = service.Service(
        wiring.instances_source(conf),  # type: ignore[arg-type]
        wiring.collectors(conf),
        prometheus.Renderer(),
        hostname='bench',
        interval=10,
        expiration=10,
    )
    connection = libvirt.openReadOnly(uri)
    groups = (
        libvirt.VIR_DOMAIN_STATS_STATE
        | libvirt.VIR_DOMAIN_STATS_INTERFACE
        | libvirt.VIR_DOMAIN_STATS_BALLOON
        | libvirt.VIR_DOMAIN_STATS_VCPU
        | libvirt.VIR_DOMAIN_STATS_BLOCK
        | libvirt.VIR_DOMAIN_STATS_PERF
    )
    flags = (
        libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
        | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
    )
    for _ in range(3):
        runner.cycle()
        connection.getAllDomainStats(groups, flags)
    ours, bulk = table.in_turn(
        REPEATS, runner.cycle, lambda: connection.getAllDomainStats(groups, flags)
    )
    runner.stop()
    connection.close()
    ratio = statistics.median(a / b for a, b in zip(ours, bulk, strict=True))
    return table.Line(
        'one cycle / one bulk call of the same groups',
        f'{ratio:.2f} x ({table.milliseconds(ours)} / {table.milliseconds(bulk)})',
        'at most 1.15 x',
        ratio <= 1.15,
    )


def fetch(url: str) -> bytes:
    """Return the body of a GET, as a new connection of a client gets it."""
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310
        return bytes(answer.read())


def scrapes(uri: str, port: int) -> Iterator[table.Line]:
    """Compare a scrape with one of Debian's prometheus-libvirt-exporter."""
    with servers.DebianExporter(uri) as other:
        theirs_url, ours_url = f'{other.url}/metrics', f'http://127.0.0.1:{port}/metrics'
        for url in (ours_url, theirs_url):
            fetch(url)
        ours, theirs = table.in_turn(REPEATS, lambda: fetch(ours_url), lambda: fetch(theirs_url))
        size, other_size = len(fetch(ours_url)), len(fetch(theirs_url))
    ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    yield table.Line(
        'scrape of prometheus-libvirt-exporter / ours',
        f'{ratio:.0f} x ({table.milliseconds(theirs)} for {other_size // 1000} kB / '
        f'{table.milliseconds(ours)} for {size // 1000} kB)',
        'at least 30 x',
        ratio >= 30,
    )
    median = statistics.median(ours)
    yield table.Line(
        'a scrape at the client, median',
        f'{median * 1000:.1f} ms',
        'at most 3 ms',
        median <= 0.003,
    )


def pollster(config: pathlib.Path) -> table.Line:
    """Time oie-pollster as a whole process against the running exporter."""
    command = [BIN / 'oie-pollster', 'instances', '--config-file', config]

    def run() -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    run()
    median = statistics.median(table.in_turn(20, run)[0])
    return table.Line(
        'oie-pollster instances, whole process, median of 20',
        f'{median * 1000:.0f} ms',
        'at most 80 ms',
        median <= 0.08,
    )


def watch(pid: int, port: int, seconds: int) -> tuple[float, float]:
    """Return CPU in percent of a core and RSS in MiB, scraped every 10 s."""
    began, used = time.monotonic(), processes.cpu_seconds(pid)
    while time.monotonic() - began < seconds:
        fetch(f'http://127.0.0.1:{port}/metrics')
        time.sleep(10)
    percent = (processes.cpu_seconds(pid) - used) / (time.monotonic() - began) * 100
    return percent, processes.rss_bytes(pid) / 2**20


def with_flows(pid: int, port: int, seconds: int) -> Iterator[table.Line]:
    """Watch the same with the (nearly empty) connection tracking table read too."""
    percent, rss = watch(pid, port, seconds)
    yield table.Line(
        'CPU and RSS with flows, ledger and guest OS too',
        f'{percent:.2f} % of a core, {rss:.0f} MiB',
        'at most 250 MB',
        rss * 2**20 <= 250e6,
    )


def resources(pid: int, port: int, seconds: int) -> Iterator[table.Line]:
    """Watch CPU time and memory of the main job alone."""
    percent, rss = watch(pid, port, seconds)
    yield table.Line(
        'CPU of the daemon at 10 s, scraped at 10 s',
        f'{percent:.2f} % of a core',
        'at most 0.5 %',
        percent <= 0.5,
    )
    yield table.Line('RSS of the daemon', f'{rss:.0f} MiB', 'at most 70 MB', rss * 2**20 <= 70e6)


def wedged(exporter: Running, guest: Any) -> table.Line:
    """Stop one QEMU by signal; count in how many cycles any other guest was not complete."""
    complete: list[tuple[int, int]] = []
    with exporter.run():
        guest.sigstop()
        try:
            seen: set[str] = set()
            deadline = time.monotonic() + 25
            while time.monotonic() < deadline and len(seen) < 6:
                taken, good, all_of_them = completeness(
                    fetch(f'http://127.0.0.1:{exporter.port}/metrics')
                )
                if taken not in seen:
                    seen.add(taken)
                    complete.append((good, all_of_them))
                time.sleep(0.2)
        finally:
            guest.sigcont()
    worst = min(good - total for good, total in complete)
    return table.Line(
        'one guest stopped by SIGSTOP: others complete',
        f'in {sum(good >= total - 1 for good, total in complete)} of {len(complete)} cycles',
        'in every cycle',
        worst >= -1,
    )


def completeness(text: bytes) -> tuple[str, int, int]:
    """Return the time of the cycle, and how many guests of how many are complete."""
    taken, values = '', []
    for line in text.decode().splitlines():
        if line.startswith('oie_host_collection_timestamp_seconds '):
            taken = line.split()[1]
        if line.startswith('oie_instance_data_complete{'):
            values.append(int(line.rsplit(' ', 1)[1]))
    return taken, sum(values), len(values)


if __name__ == '__main__':
    sys.exit(main())
