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

"""What project usage costs a control node: an update, a scrape, memory, and the ledger's file."""

from collections.abc import Iterator
import contextlib
import http.server
import json
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

from oie import model
from oie.ledger import project_spans
from oie.ledger import project_store
from tests import nova_cloud
from tests.bench import table
from tests.functional import processes

BIN = pathlib.Path(sys.executable).parent
PROJECTS, INSTANCES, PAGE = 10_000, 100_000, 1000
DELAY = 0.005
SCRAPES = 15
HOUR_US = project_spans.HOUR_US
DAY_US = 24 * HOUR_US
CONFIG = """\
[collector]
enabled = project_usage,exporter
interval = 10s
[conntrack]
enabled = false
[exporter]
listen_address = 127.0.0.1:{port}
socket_path =
[usage]
enabled = true
start_date = 2026-01-01
interval = 20s
path = {directory}/projects.sqlite
"""


def tables() -> Iterator[tuple[str, list[table.Line]]]:
    """Give the tables with their titles."""
    yield f'{PROJECTS:,} projects, {INSTANCES:,} instances, answers after 5 ms', list(lines())
    yield f'the ledger of {INSTANCES:,} instances that lived', list(ledger_lines())


# --- a cloud ----------------------------------------------------------------


class _Cloud(nova_cloud.Cloud):
    """A cloud whose pages are written down before anybody asks."""

    def __init__(self, now: float) -> None:
        super().__init__(now)
        self.delay = DELAY
        self.projects = {f'{n:032x}': (f'project-{n}', 'default') for n in range(PROJECTS)}
        ids = list(self.projects)
        self.started = now - 3600
        found = [
            nova_cloud.Server(
                f'{n:08x}-0000-4000-8000-000000000000', ids[n % PROJECTS], self.started
            )
            for n in range(INSTANCES)
        ]
        self.pages = {
            found[start - 1].uuid if start else '': found[start : start + PAGE]
            for start in range(0, INSTANCES, PAGE)
        }
        self.written: dict[str | None, bytes] = {}
        for marker, page in self.pages.items():
            self.written[marker] = self._written(page)

    def _written(self, page: list[nova_cloud.Server]) -> bytes:
        start, end = self.now - 7200, self.now
        usages = [
            self._summary(key, [each for each in page if each.project == key], start, end)
            for key in dict.fromkeys(each.project for each in page)
        ]
        query = urllib.parse.urlencode({'marker': page[-1].uuid})
        links = [{'rel': 'next', 'href': f'{self.url}/?{query}'}]
        return json.dumps({'tenant_usages': usages, 'tenant_usages_links': links}).encode()


class _Handler(nova_cloud._Handler):
    cloud: _Cloud

    def do_GET(self) -> None:
        parts = urllib.parse.urlsplit(self.path)
        if 'tenant-usage' not in parts.path:
            super().do_GET()
            return
        time.sleep(DELAY)
        query = dict(urllib.parse.parse_qsl(parts.query))
        # The past before the instances is asked for in windows of its own.
        is_past = nova_cloud.moment(query['end']) <= self.cloud.started
        marker = None if is_past else query.get('marker', '')
        body = self.cloud.written.get(marker, b'{"tenant_usages": []}')
        self.send_response_only(200)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(body)))
        self.send_header('OpenStack-API-Version', 'compute 2.40')
        self.end_headers()
        self.wfile.write(body)


def _serve(pipe: multiprocessing.connection.Connection) -> None:
    cloud = _Cloud(time.time())
    handler = type('Handler', (_Handler,), {'cloud': cloud})
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    cloud.url = f'http://127.0.0.1:{server.server_address[1]}'
    pipe.send(cloud.settings)
    server.serve_forever()


@contextlib.contextmanager
def cloud() -> Iterator[dict[str, str]]:
    """Give the variables that lead to a cloud in a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context('spawn').Process(target=_serve, args=(theirs,))
    process.start()
    try:
        settings = ours.recv()
        values = {**settings['auth'], 'region_name': settings['region_name']}
        yield {f'OS_{name.upper()}': str(value) for name, value in values.items()}
    finally:
        process.terminate()
        process.join()


# --- the daemon -------------------------------------------------------------


def lines() -> Iterator[table.Line]:
    """Give the lines about a running exporter."""
    with (
        cloud() as variables,
        tempfile.TemporaryDirectory(prefix='oieb-', dir='/var/tmp') as directory,
    ):
        port = processes.free_port()
        config = pathlib.Path(directory) / 'oie.conf'
        config.write_text(CONFIG.format(port=port, directory=directory))
        env = {**os.environ, **variables}
        with subprocess.Popen([BIN / 'oie-exporter', '--config-file', config], env=env) as daemon:
            try:
                yield from _watched(daemon.pid, f'http://127.0.0.1:{port}/metrics', directory)
            finally:
                daemon.terminate()


def _watched(pid: int, url: str, directory: str) -> Iterator[table.Line]:
    seconds = [_updated(url, number) for number in (1, 2)]
    for what, found in zip(('the first update', 'a later update'), seconds, strict=True):
        yield table.Line(f'{what}, all pages', f'{found:.1f} s', 'at most 20 s', found <= 20)
    times = table.in_turn(SCRAPES, lambda: _fetched(url))[0]
    median = statistics.median(times)
    series = _fetched(url).count(b'\noie_project_vcpu_hours_total{')
    yield table.Line(
        f'a scrape at the client, {series:,} projects, median',
        f'{median * 1000:.0f} ms for {len(_fetched(url)) // 1000:,} kB',
        'at most 50 ms',
        median <= 0.05,
    )
    used, began = processes.cpu_seconds(pid), time.monotonic()
    time.sleep(60)
    percent = (processes.cpu_seconds(pid) - used) / (time.monotonic() - began) * 100
    yield table.Line(
        'CPU, an update each 20 s, a cycle each 10 s', f'{percent:.0f} % of a core', '', True
    )
    yield table.Line('RSS', f'{processes.rss_bytes(pid) // 2**20} MiB', '', True)
    size = _size(directory)
    yield table.Line(
        'the ledger and its log', f'{size / 1e6:.0f} MB', 'at most 100 MB', size <= 100e6
    )


def _updated(url: str, number: int) -> float:
    """Return the seconds of the update of this number, once it has ended."""
    while True:
        with contextlib.suppress(OSError):
            text = _fetched(url).decode()
            values = dict(
                line.rsplit(' ', 1)
                for line in text.splitlines()
                if line.startswith('oie_project_usage_up')
            )
            if float(values.get('oie_project_usage_updates_total', 0)) >= number:
                return float(values['oie_project_usage_update_duration_seconds'])
        time.sleep(1)


def _fetched(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310
        return bytes(answer.read())


def _size(directory: str) -> int:
    found = pathlib.Path(directory).glob('projects.sqlite*')
    return sum(each.stat().st_size for each in found)


# --- the ledger -------------------------------------------------------------


def ledger_lines() -> Iterator[table.Line]:
    """Give the lines about a ledger alone: every instance lives a day and is resized once."""
    weights = (project_spans.ONE, project_spans.ONE)
    with tempfile.TemporaryDirectory(prefix='oieb-', dir='/var/tmp') as directory:
        ledger = project_store.ProjectStore(f'{directory}/projects.sqlite', keep_us=400 * DAY_US)
        first = 1_795_000_000 * 10**6
        ledger.open(first)
        projects = tuple(model.Project(id=f'{n:032x}', name=f'p{n}') for n in range(PROJECTS))
        began = time.monotonic()
        for day in range(INSTANCES // PAGE):
            start = first + day * DAY_US
            for hour, vcpus, is_over in ((6, 2, False), (12, 4, False), (24, 4, True)):
                servers = tuple(
                    model.ServerUsage(
                        f'{day:08x}-0000-4000-8000-{number:012x}',
                        projects[number % PROJECTS].id,
                        vcpus,
                        4096,
                        start,
                        start + DAY_US if is_over else None,
                    )
                    for number in range(PAGE)
                )
                answer = model.CloudUsage(
                    taken_us=start + hour * HOUR_US, projects=projects, servers=servers
                )
                booked = ledger.book(answer, since_us=first, weigh=lambda *_: weights)
        seconds = time.monotonic() - began
        size = _size(directory)
        ledger.close()
    yield table.Line(
        f'{booked.remembered:,} instances with three spans each, and the log',
        f'{size / 1e6:.0f} MB',
        'at most 100 MB',
        size <= 100e6,
    )
    answers = 3 * INSTANCES // PAGE
    yield table.Line(
        f'an answer with {PAGE:,} instances, {PROJECTS:,} projects',
        f'{seconds / answers * 1000:.0f} ms',
        '',
        True,
    )
