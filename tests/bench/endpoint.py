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

"""What the endpoint costs and bears: scrapes over TLS, scrapes on one core, the start, its memory.

The exporter has its default options, flows, ledger and guest OS included. Its client is another
process, pinned to the last core; the exporter is pinned to the first one only where a line says
so.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from tests.bench import table
from tests.functional import exporter as exporters
from tests.functional import lab
from tests.functional import processes
from tests.functional import servers
from tests.functional import web_site

ROOT = pathlib.Path(__file__).parents[2]
START_GUESTS, SCRAPE_GUESTS, MEMORY_GUESTS = 30, 100, 10
STARTS = 7
RATE = 10
# Seconds of each measurement of how many scrapes there are in one.
THROUGHPUT_SECONDS = 5
ROUNDS, CLIENTS = 5, 3
WARM_UP_CYCLES = 60
# Readings of RSS of which the median counts, at the begin and at the end.
READINGS = 30


@dataclasses.dataclass(frozen=True)
class Scrapes:
    """What a client saw of so many scrapes."""

    seconds: Sequence[float]
    failed: Sequence[str]
    bytes: int

    @property
    def p99(self) -> float:
        """The time that one in a hundred exceeds."""
        return statistics.quantiles(self.seconds, n=100, method='inclusive')[98]

    def __str__(self) -> str:
        return (
            f'p99 {self.p99 * 1000:.0f} ms, median '
            f'{statistics.median(self.seconds) * 1000:.1f} ms, {self.bytes // 1000} kB'
        )


def tables(seconds: int) -> Iterator[tuple[str, list[table.Line]]]:
    """Measure start and scrapes.

    :param seconds: how long to scrape at a fixed rate
    """
    with lab.Libvirtd() as libvirtd:
        libvirtd.start_guests(START_GUESTS)
        yield f'Endpoint, {START_GUESTS} guests', [start(libvirtd.uri)]
        libvirtd.start_guests(SCRAPE_GUESTS - START_GUESTS)
        yield f'Endpoint over TLS, {SCRAPE_GUESTS} guests', [*over_tls(libvirtd.uri, seconds)]
        yield f'Endpoint on one core, {SCRAPE_GUESTS} guests', [*on_one_core(libvirtd.uri)]


def start(uri: str) -> table.Line:
    """Time the whole way from the command to the first complete cycle."""
    found = []
    for _ in range(STARTS):
        with contextlib.closing(_exporter(uri)) as exporter:
            exporter.write_config()
            began = time.perf_counter()
            exporter.start()
            found.append(time.perf_counter() - began)
    median = statistics.median(found)
    return table.Line(
        f'start to the first complete cycle, median of {STARTS}',
        f'{median:.2f} s (slowest {max(found):.2f} s)',
        'at most 3 s',
        median <= 3,
    )


def over_tls(uri: str, seconds: int) -> Iterator[table.Line]:
    """Scrape over TLS with a password at a fixed rate, and Prometheus itself at the same time.

    Prometheus serves its own figures by the same web configuration file. On a shared machine its
    times tell how much of ours is the machine's.
    """
    ways = (
        ('a new connection each', ('--anew',)),
        ('one kept connection', ()),
        ('new connections, no gzip', ('--anew', '--plain-text')),
    )
    with (
        _secured(uri) as (exporter, site),
        servers.Prometheus(exporter.address, site=site, interval='1m') as prometheus,
    ):
        for name, options in ways:
            paced = ('--rate', str(RATE), *options)
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                ours, theirs = pool.map(
                    lambda port: scrape(port, seconds, *paced, site=site),  # noqa: B023 - at once
                    (exporter.port, prometheus.port),
                )
            failed = len(ours.failed)
            yield table.Line(
                f'{RATE} scrapes a second over TLS, {seconds} s, {name}',
                f'{ours}, {failed} failed (Prometheus meanwhile: {theirs})',
                'p99 at most 100 ms, none failed',
                ours.p99 <= 0.1 and not failed,
            )


def on_one_core(uri: str) -> Iterator[table.Line]:
    """Scrape as fast as the exporter answers on one core, plain and over TLS in turn."""
    rates: dict[str, list[float]] = {'gzip': [], 'no gzip': [], 'TLS': []}
    sizes: dict[str, int] = {}
    with (
        contextlib.closing(_exporter(uri, launcher=_pinned(0))) as plain,
        _secured(uri, launcher=_pinned(0)) as (secured, site),
    ):
        plain.start()
        for _ in range(ROUNDS):
            for name, found in (
                ('gzip', throughput(plain)),
                ('no gzip', throughput(plain, '--plain-text')),
                ('TLS', throughput(secured, site=site)),
            ):
                rates[name].append(len(found.seconds) / THROUGHPUT_SECONDS)
                sizes[name] = found.bytes
    for name in ('gzip', 'no gzip'):
        rate = statistics.median(rates[name])
        yield table.Line(
            f'scrapes a second on one core, {name}, {sizes[name] // 1000} kB, median of {ROUNDS}',
            f'{rate:.0f} ({min(rates[name]):.0f} to {max(rates[name]):.0f})',
            'at least 500',
            rate >= 500,
        )
    ratio = statistics.median(
        tls / plain for tls, plain in zip(rates['TLS'], rates['gzip'], strict=True)
    )
    yield table.Line(
        'the same with gzip over TLS / plain',
        f'{ratio:.2f} x ({statistics.median(rates["TLS"]):.0f} a second)',
        '',
        True,
    )


def throughput(
    exporter: exporters.Exporter, *options: str, site: web_site.Site | None = None
) -> Scrapes:
    """Return what so many clients saw that scrape one time after the other.

    :raises LabError: one of them failed
    """
    found = scrape(
        exporter.port, THROUGHPUT_SECONDS, '--clients', str(CLIENTS), *options, site=site
    )
    if found.failed:
        raise processes.LabError(f'{len(found.failed)} scrapes failed: {found.failed[0]}')
    return found


def memory(cycles: int) -> Iterator[tuple[str, list[table.Line]]]:
    """Watch RSS over so many cycles of 1 s, each scraped over TLS by a connection of its own."""
    settings = {'collector': {'interval': '1s'}}
    with lab.Libvirtd() as libvirtd:
        libvirtd.start_guests(MEMORY_GUESTS)
        with _secured(libvirtd.uri, settings) as (exporter, _):
            _rss_over(exporter, WARM_UP_CYCLES - READINGS)
            before = _rss_over(exporter, READINGS)
            between = _rss_over(exporter, cycles - 2 * READINGS)
            after = _rss_over(exporter, READINGS)
            threads, descriptors = exporter.threads(), exporter.descriptors()
    growth = statistics.median(after) - statistics.median(before)
    peak = max((*before, *between, *after))
    yield (
        f'Memory over {cycles} cycles of 1 s, {MEMORY_GUESTS} guests',
        [
            table.Line(
                f'RSS at the end, after {WARM_UP_CYCLES} cycles of warm-up',
                f'{growth / 1e6:+.2f} MB ({statistics.median(after) / 2**20:.1f} MiB, '
                f'peak {peak / 2**20:.1f} MiB, {threads} threads, {descriptors} descriptors)',
                'at most +2 MB',
                growth <= 2e6,
            )
        ],
    )


def _rss_over(exporter: exporters.Exporter, cycles: int) -> list[int]:
    """Return RSS after each of so many cycles, in bytes."""
    found: list[int] = []
    seen = exporter.scrape().taken
    while len(found) < cycles:
        time.sleep(0.25)
        taken = exporter.scrape().taken
        if taken != seen:
            seen = taken
            found.append(processes.rss_bytes(exporter.pid))
    return found


def scrape(port: int, seconds: float, *options: str, site: web_site.Site | None) -> Scrapes:
    """Return what a client in a process of its own saw, on the last core."""
    scheme = 'https' if site else 'http'
    command = [*_pinned(-1), sys.executable, '-m', 'tests.bench.scraper']
    command += [f'{scheme}://127.0.0.1:{port}/metrics', str(seconds), *options]
    if site is not None:
        command += ['--ca', str(site.directory / 'ca.pem')]
        command += ['--authorization', site.headers['Authorization']]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return Scrapes(found['seconds'], found['failed'], found['bytes'])


@contextlib.contextmanager
def _secured(
    uri: str, settings: exporters.Settings | None = None, *, launcher: Sequence[str] = ()
) -> Iterator[tuple[exporters.Exporter, web_site.Site]]:
    """Give a running exporter with TLS and a password, and what its client needs."""
    with tempfile.TemporaryDirectory(prefix='oieb-') as directory:
        site = web_site.Site(pathlib.Path(directory), is_mutual=False)
        with contextlib.closing(_exporter(uri, settings, site, launcher=launcher)) as exporter:
            exporter.start()
            yield exporter, site


def _exporter(
    uri: str,
    settings: exporters.Settings | None = None,
    site: web_site.Site | None = None,
    *,
    launcher: Sequence[str] = (),
) -> exporters.Exporter:
    return exporters.Exporter(uri, settings, launcher=launcher, site=site, usual={})


def _pinned(place: int) -> tuple[str, ...]:
    """Return the words that keep a command on the first core, or on the last one."""
    cores = sorted(os.sched_getaffinity(0))
    return ('taskset', '--cpu-list', str(cores[place]))
