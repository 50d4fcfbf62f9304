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

"""What many hosts cost a Prometheus: a real scrape, replayed as that of 10, 100, 1,000 hosts.

An exporter over real guests is scraped in many cycles. One process then answers for every
simulated host with these recordings, in which the host's own number stands in place of a part of
each UUID, so that every series is another one and values change as they really do. A real
Prometheus finds the hosts by a file and runs the shipped rules.
"""

import asyncio
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import gzip
import json
import multiprocessing
import pathlib
import re
import shutil
import time

import requests

from oie.config import core_options
from tests.bench import table
from tests.functional import exporter as exporters
from tests.functional import lab
from tests.functional import processes
from tests.functional import servers

SHIPPED = pathlib.Path(__file__).parents[2] / 'etc/prometheus'
#: Instances of the host that is recorded, and how many of them use their disk.
GUESTS, BUSY = 30, 10
CYCLES = 120
#: Simulated hosts, and instances on each. 1,000 hosts with all guests are too many for a machine
#: that does other things as well.
FLEETS = ((10, 30), (100, 30), (1000, 10))
INTERVAL = 15
#: Scrapes of every host that are waited for before anything is measured, and watched then.
SETTLING, WATCHED = 3, 10
#: In place of the first digits of each UUID: eight characters, as the number of a host has.
_TOKEN = b'~~HOST~~'
_UUID = re.compile(rb'instance_uuid="([0-9a-f]{8})-')
_HEAD = (
    b'HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n'
    b'Content-Length: %d\r\n\r\n'
)


@dataclasses.dataclass(frozen=True)
class Size:
    """Series and bytes of one scrape."""

    host_series: int
    instance_series: float
    host_bytes: int
    instance_bytes: float
    packed_bytes: int

    def __str__(self) -> str:
        return (
            f'{self.host_series} + {self.instance_series:.0f} an instance, '
            f'{self.host_bytes / 1000:.0f} kB + {self.instance_bytes / 1000:.1f} kB, '
            f'{self.packed_bytes / 1000:.0f} kB with gzip'
        )


class Fleet(servers.Prometheus):
    """A Prometheus with the shipped configuration and rules that scrapes simulated hosts.

    :param port: of 127.0.0.1, where they all answer
    :param hosts: how many there are
    """

    def __init__(self, port: int, hosts: int, interval: int = INTERVAL) -> None:
        super().__init__(f'127.0.0.1:{port}', interval=f'{interval}s')
        self._hosts = hosts
        self.data = pathlib.Path()

    def value(self, query: str) -> float:
        """Return the only value of an instant query.

        :raises LabError: there is none
        """
        rows = self.query(query)
        if len(rows) != 1:
            raise processes.LabError(f'{len(rows)} values of {query}')
        return float(rows[0]['value'][1])

    def own(self, name: str) -> float:
        """Return the sum of what Prometheus tells of itself under a name."""
        lines = self.get('/metrics').splitlines()
        pattern = re.compile(rf'{name}(?:{{.*}})? (\S+)$')
        return sum(float(found[1]) for line in lines if (found := pattern.match(line)))

    def _arguments(self, directory: pathlib.Path) -> tuple[str, ...]:
        shipped = directory / 'shipped'
        shutil.copytree(SHIPPED, shipped)
        config = shipped / 'prometheus.yml'
        text = config.read_text(encoding='utf-8')
        text = text.replace('scrape_interval: 15s', f'scrape_interval: {self._interval}')
        if int(self._interval[:-1]) < 5:
            text = text.replace('scrape_timeout: 5s', f'scrape_timeout: {self._interval}')
        # Every target has the name of its own already.
        config.write_text(text.partition('    relabel_configs:')[0], encoding='utf-8')
        found = [
            {
                'targets': [self._target],
                'labels': {'__metrics_path__': f'/{n}', 'instance': f'host-{n}', 'zone': 'az-1'},
            }
            for n in range(self._hosts)
        ]
        (shipped / 'targets/compute.yml').write_text(json.dumps(found), encoding='utf-8')
        self.data = directory / 'data'
        old = super()._arguments(directory)
        own = tuple(f'--config.file={config}' if '--config.file' in a else a for a in old)
        return (*own, '--web.enable-admin-api')


def tables() -> Iterator[tuple[str, list[table.Line]]]:
    """Measure one host, then each fleet."""
    with lab.Libvirtd() as libvirtd:
        libvirtd.start_guests(GUESTS - BUSY, metadata='2025.2')
        libvirtd.start_guests(BUSY, program='disk', metadata='2025.2')
        yield f'One host, {GUESTS} instances, series and bytes', list(sizes(libvirtd.uri))
        recordings = record(libvirtd.uri, CYCLES)
    for hosts, instances in FLEETS:
        with simulated([only(text, instances) for text in recordings]) as port:
            yield (
                f'{hosts} hosts, {instances} instances each, scraped each {INTERVAL} s',
                list(measure(port, hosts)),
            )
    with simulated([only(text, 10) for text in recordings]) as port:
        yield 'On disk', [on_disk(port)]


def sizes(uri: str) -> Iterator[table.Line]:
    """Tell how large the scrapes of three configurations are."""
    ways: tuple[tuple[str, exporters.Settings], ...] = (
        ('default options', {}),
        (
            '[conntrack] min = 0, [outbound] enabled; guests that initiate nothing',
            {'conntrack': {'min': 0}, 'outbound': {'enabled': True}},
        ),
        (
            'all of [collector] optional',
            {'collector': {'optional': ','.join(core_options.OPTIONAL)}},
        ),
    )
    for name, settings in ways:
        with _running(uri, settings) as exporter:
            text = exporter.scrape().text.encode()
        yield table.Line(name, str(size(text)), '', True)


def size(text: bytes) -> Size:
    """Return how much of a scrape belongs to the host, and how much to an instance on average."""
    lines = text.splitlines(keepends=True)
    series = [line for line in lines if not line.startswith(b'#')]
    of_instances = [line for line in series if b'instance_uuid="' in line]
    count = len({found[1] for line in of_instances if (found := _UUID.search(line))})
    length = sum(map(len, of_instances))
    return Size(
        host_series=len(series) - len(of_instances),
        instance_series=len(of_instances) / count,
        host_bytes=len(text) - length,
        instance_bytes=length / count,
        packed_bytes=len(gzip.compress(text, 1)),
    )


def record(uri: str, cycles: int) -> list[bytes]:
    """Return the scrapes of so many cycles, without the UUIDs' first digits."""
    found: list[bytes] = []
    with _running(uri, {'collector': {'interval': '1s'}}) as exporter:
        while len(found) < cycles:
            found.append(anonymous(exporter.next_scrape(1, timeout=60).text.encode()))
    return found


@contextlib.contextmanager
def _running(uri: str, settings: exporters.Settings) -> Iterator[exporters.Exporter]:
    """Give an exporter that shows all it will: totals and rates come with the second cycle."""
    with contextlib.closing(exporters.Exporter(uri, settings, usual={})) as exporter:
        # So many guests at once keep the machine busy until they have started.
        exporter.start(is_ready=False)
        exporter.next_scrape(3, timeout=180)
        yield exporter


def anonymous(text: bytes) -> bytes:
    """Return a scrape with a token in each UUID of an instance, and different ones still."""
    for number, digits in enumerate(sorted(set(_UUID.findall(text)))):
        text = text.replace(
            b'instance_uuid="%s-' % digits, b'instance_uuid="%s%04x-' % (_TOKEN, number)
        )
    return text


def only(text: bytes, instances: int) -> bytes:
    """Return a scrape without the instances beyond so many."""
    kept = tuple(b'"%s%04x-' % (_TOKEN, number) for number in range(instances))
    lines = text.splitlines(keepends=True)
    return b''.join(
        line for line in lines if _TOKEN not in line or any(mark in line for mark in kept)
    )


@contextlib.contextmanager
def simulated(recordings: Sequence[bytes]) -> Iterator[int]:
    """Give the port where a process answers for every host there may be."""
    port = processes.free_port()
    process = multiprocessing.Process(target=_serve, args=(recordings, port), daemon=True)
    process.start()
    try:
        yield port
    finally:
        process.terminate()
        process.join()


def _serve(recordings: Sequence[bytes], port: int) -> None:
    asyncio.run(_listen(_answers(recordings), port))


def _answers(recordings: Sequence[bytes]) -> Callable[[int], bytes]:
    """Return what answers for a host: its next scrape, the last one again at the end."""
    asked: dict[int, int] = {}

    def answer(host: int) -> bytes:
        number = asked[host] = asked.get(host, -1) + 1
        body = recordings[min(number, len(recordings) - 1)]
        return body.replace(_TOKEN, b'%08x' % host)

    return answer


async def _listen(answer: Callable[[int], bytes], port: int) -> None:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                request = await reader.readuntil(b'\r\n\r\n')
                body = answer(int(request.split(b' ', 2)[1].strip(b'/')))
                writer.write(_HEAD % len(body) + body)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(converse, '127.0.0.1', port, backlog=1024)
    await server.serve_forever()


def measure(port: int, hosts: int) -> Iterator[table.Line]:
    """Give the lines of one fleet."""
    with Fleet(port, hosts) as prometheus:
        processes.wait_for(
            lambda: prometheus.query(f'sum(up) >= {hosts}'), 20 * INTERVAL, 'all hosts to be up'
        )
        time.sleep(SETTLING * INTERVAL)
        before, began = _costs(prometheus), time.monotonic()
        time.sleep(WATCHED * INTERVAL)
        after, seconds = _costs(prometheus), time.monotonic() - began
        samples, wal, cpu = (b - a for a, b in zip(before, after, strict=True))
        rss = processes.rss_bytes(prometheus.pid)
        series = prometheus.own('prometheus_tsdb_head_series')
        window = f'[{WATCHED * INTERVAL}s]'
        took = prometheus.value(f'avg(avg_over_time(scrape_duration_seconds{window}))')
        longest = prometheus.value(f'max(max_over_time(scrape_duration_seconds{window}))')
        scraped = prometheus.value('sum(scrape_samples_scraped)')
        failed = prometheus.value(f'sum(count_over_time(up{window}) - sum_over_time(up{window}))')
        rules = prometheus.own('prometheus_rule_group_last_duration_seconds')
        peak = processes.peak_rss_bytes(prometheus.pid)
    lines = (
        ('samples of one scrape of all', f'{scraped:,.0f}'),
        ('series in the head, those of rules included', f'{series:,.0f}'),
        ('samples a second', f'{samples / seconds:,.0f}'),
        ('RSS of Prometheus', f'{rss / 2**20:,.0f} MiB ({rss / series:,.0f} B a series)'),
        ('peak of it', f'{peak / 2**20:,.0f} MiB'),
        ('write-ahead log', f'{wal / samples:.1f} B a sample, {wal / seconds / 1e6:.2f} MB/s'),
        ('CPU', f'{cpu / seconds * 100:.0f} % of a core'),
        ('a scrape, mean and longest', f'{took * 1000:.0f} ms, {longest * 1000:.0f} ms'),
        ('scrapes that failed', f'{failed:.0f}'),
        ('all rules once', f'{rules:.2f} s'),
    )
    yield from (table.Line(what, measured, '', True) for what, measured in lines)


def _costs(prometheus: Fleet) -> tuple[float, float, float]:
    """Return samples appended, bytes of the write-ahead log and CPU seconds until now."""
    return (
        prometheus.own('prometheus_tsdb_head_samples_appended_total'),
        sum(path.stat().st_size for path in (prometheus.data / 'wal').iterdir() if path.is_file()),
        processes.cpu_seconds(prometheus.pid),
    )


def on_disk(port: int) -> table.Line:
    """Scrape ten hosts each second, then have the head written as a block."""
    with Fleet(port, 10, interval=1) as prometheus:
        processes.wait_for(lambda: prometheus.query('sum(up) >= 10'), 60, 'all hosts to be up')
        time.sleep(CYCLES)
        # A snapshot is a block with the index and the chunks of everything there is.
        url = f'{prometheus.url}/api/v1/admin/tsdb/snapshot'
        requests.post(url, timeout=120).raise_for_status()
        found = list((prometheus.data / 'snapshots').glob('*/*/meta.json'))
        sums = [json.loads(path.read_text(encoding='utf-8'))['stats'] for path in found]
        samples = sum(each['numSamples'] for each in sums)
        chunks = sum(
            path.stat().st_size for meta in found for path in (meta.parent / 'chunks').iterdir()
        )
        index = sum((meta.parent / 'index').stat().st_size for meta in found)
        series = sum(each['numSeries'] for each in sums)
    return table.Line(
        f'{samples / series:.0f} samples of each series in a block',
        f'{chunks / samples:.2f} B a sample, index {index / series:.0f} B a series',
        '',
        True,
    )
