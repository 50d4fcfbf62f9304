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

"""oie-exporter under test: the real program with a configuration of its own, and what it says."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import functools
import http.client
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

from prometheus_client import parser

from tests.functional import processes
from tests.functional import web_site

BIN = pathlib.Path(sys.executable).parent
HOST = 'cmp1'
POLLSTERS = ('instances', 'disks', 'vnics')

TAKEN = 'oie_host_collection_timestamp_seconds'
FRESH = 'oie_instance_data_fresh'
COMPLETE = 'oie_instance_data_complete'

Settings = Mapping[str, Mapping[str, object]]

#: Short times, so that a test sees several cycles and the end of a cache within seconds.
_USUAL: Settings = {
    'DEFAULT': {'host': HOST, 'oie_log_level': 'info'},
    'exporter': {'metric_sets': 'oie,libvirt_nova'},
    'collector': {'interval': '1s', 'dynamic_cache_expiration': '2s', 'cpu_min': 0},
    'libvirt': {
        'timeout': '2s',
        'monitor_timeout': '1s',
        'keepalive_interval': 1,
        'keepalive_count': 2,
    },
}


@dataclasses.dataclass(frozen=True)
class Series:
    name: str
    labels: Mapping[str, str]
    value: float

    def has(self, labels: Mapping[str, str]) -> bool:
        return labels.items() <= self.labels.items()


@dataclasses.dataclass(frozen=True)
class Scrape:
    """One exposition, parsed by the library of Prometheus.

    :ivar seconds: how long the answer took
    """

    text: str
    seconds: float

    @functools.cached_property
    def types(self) -> Mapping[str, str]:
        """The type of every name, literally as it was written."""
        rows = (line.split() for line in self.text.splitlines() if line.startswith('# TYPE '))
        return {row[2]: row[3] for row in rows}

    @functools.cached_property
    def series(self) -> Mapping[str, Sequence[Series]]:
        """All series by name.

        :raises AssertionError: two of them have one identity
        """
        found: dict[str, list[Series]] = {}
        seen = set()
        for family in parser.text_string_to_metric_families(self.text):
            for sample in family.samples:
                name = self._literal(sample.name)
                identity = (name, frozenset(sample.labels.items()))
                assert identity not in seen, f'twice in one scrape: {identity}'
                seen.add(identity)
                found.setdefault(name, []).append(Series(name, sample.labels, sample.value))
        return found

    @property
    def taken(self) -> float:
        """The time of the cycle, 0 before the first one."""
        # Asked many times a second, so without the parser.
        _, _, rest = self.text.partition(f'\n{TAKEN} ')
        return float(rest.partition('\n')[0] or 0)

    def of(self, name: str, **labels: str) -> list[Series]:
        """Return the series of a name that have these labels among theirs."""
        return [one for one in self.series.get(name, ()) if one.has(labels)]

    def value(self, name: str, **labels: str) -> float | None:
        """Return the value of the only series with these labels, None for no such series."""
        found = self.of(name, **labels)
        assert len(found) < 2, f'not the only one: {found}'
        return found[0].value if found else None

    def names(self, **labels: str) -> set[str]:
        """Return the names that have a series with these labels."""
        return {name for name, found in self.series.items() if any(s.has(labels) for s in found)}

    def instances(self) -> set[str]:
        """Return the UUIDs of all instances that are shown."""
        return {one.labels['instance_uuid'] for one in self.series.get('oie_instance_info', ())}

    def is_good(self, uuid: str) -> bool:
        """Whether this cycle read the instance, and all of it."""
        flags = (self.value(name, instance_uuid=uuid) for name in (FRESH, COMPLETE))
        return all(flag == 1 for flag in flags)

    def _literal(self, name: str) -> str:
        # The parser gives every counter the suffix that OpenMetrics wants.
        return name if name in self.types else name.removesuffix('_total')


@dataclasses.dataclass(frozen=True)
class Answer:
    """What oie-pollster printed, as a shell would get it."""

    status: int
    text: str
    errors: str
    seconds: float

    @property
    def entries(self) -> list[dict[str, Any]]:
        """The JSON list of a poll that went well."""
        assert (self.status, self.errors) == (0, ''), self
        assert self.text.isascii(), self.text
        entries = json.loads(self.text)
        assert isinstance(entries, list), self.text
        return entries

    @property
    def sentence(self) -> str:
        """The one line of a poll that failed: no JSON, nothing on stderr."""
        assert self.status != 0, self
        assert self.errors == '', self
        assert self.text.endswith('\n'), self
        assert self.text.count('\n') == 1, self
        assert not _is_json(self.text), self
        return self.text.strip()


Predicate = Callable[[Scrape], Any]


class Exporter:
    """The daemon with a directory, a port and a socket of its own.

    :param uri: of the hypervisor
    :param settings: options by group that shall differ from the usual ones of the tests; a
        tuple is an option that stands there once for each
    :param launcher: words before the command, which must end as the exporter itself (setpriv)
    :param site: TLS and passwords of the endpoint
    :param usual: options that the tests have otherwise than they are by default
    """

    def __init__(
        self,
        uri: str,
        settings: Settings | None = None,
        *,
        launcher: Sequence[str] = (),
        site: web_site.Site | None = None,
        usual: Settings = _USUAL,
    ) -> None:
        self.uri = uri
        self.port = processes.free_port()
        self._usual = usual
        self._settings = settings or {}
        self._launcher = launcher
        self._site = site
        self._directory: pathlib.Path | None = None
        self._program: processes.Program | None = None

    def __enter__(self) -> 'Exporter':
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def address(self) -> str:
        return f'127.0.0.1:{self.port}'

    @property
    def directory(self) -> pathlib.Path:
        """Where configuration, socket, suspects and log are; it outlives stop()."""
        if self._directory is None:
            self._directory = pathlib.Path(tempfile.mkdtemp(prefix='oiet-'))
            # Others may reach the socket, as they may reach /run/oie.
            self._directory.chmod(0o755)
            processes.end_later(self, self.close)
        return self._directory

    @property
    def config(self) -> pathlib.Path:
        return self.directory / 'oie.conf'

    @property
    def socket(self) -> pathlib.Path:
        return self.directory / 'run/oie.sock'

    @property
    def suspects(self) -> pathlib.Path:
        return self.directory / 'run/suspects.json'

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def is_running(self) -> bool:
        return self._program is not None and self._program.is_running

    @property
    def log(self) -> str:
        path = self.directory / 'log'
        return path.read_text(encoding='utf-8') if path.exists() else ''

    def start(self, *, is_ready: bool = True) -> None:
        """Start it, again after stop().

        :param is_ready: wait for the first complete cycle, else only until it answers
        """
        self.write_config()
        argv = (*self._launcher, str(BIN / 'oie-exporter'), '--config-file', str(self.config))
        self._program = processes.Program(argv, self.directory / 'log')
        self._program.start()
        path = '/readyz' if is_ready else '/healthz'
        try:
            processes.wait_for(lambda: self._says_ok(path), 20, f'{path} of oie-exporter')
        except processes.LabError as exc:
            raise processes.LabError(f'{exc}; its log: {self._program.last_words()}') from exc

    def stop(self) -> float:
        """End it by SIGTERM; return how many seconds that took."""
        started = time.monotonic()
        self._running().stop()
        return time.monotonic() - started

    def kill(self) -> None:
        self._running().kill()

    def close(self) -> None:
        """End it and delete its directory."""
        if self._program is not None:
            self._program.stop()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        processes.ended(self)

    def write_config(self) -> pathlib.Path:
        """Write the configuration; enough for a pollster without a daemon."""
        own: dict[str, Mapping[str, object]] = {
            'exporter': {'listen_address': self.address, 'socket_path': self.socket},
            'ledger': {'path': self.directory / 'ledger.sqlite'},
            'libvirt': {'uri': self.uri, 'suspects_path': self.suspects},
        }
        if self._site is not None:
            own['exporter'] = {**own['exporter'], 'web_config_file': self._site.config}
        lines = []
        for group in sorted(self._usual.keys() | own.keys() | self._settings.keys()):
            layers = (layer.get(group, {}) for layer in (self._usual, own, self._settings))
            options = {name: value for layer in layers for name, value in layer.items()}
            lines += [f'[{group}]', *_lines(options)]
        self.socket.parent.mkdir(exist_ok=True)
        self.config.write_text('\n'.join([*lines, '']), encoding='utf-8')
        return self.config

    def get(self, path: str, timeout: float = 5.0) -> tuple[int, str]:
        """Return status and body of an answer.

        :raises LabError: no answer within the time
        """
        answer, body = self.ask('GET', path, timeout=timeout)
        return answer.status, body.decode()

    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        timeout: float = 5.0,
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Return an answer and its body.

        :param headers: instead of those that show who asks, where the endpoint wants to know
        :raises LabError: no answer within the time
        """
        connection = self.connection(timeout)
        usual = self._site.headers if self._site else {}
        try:
            connection.request(method, path, headers=usual if headers is None else dict(headers))
            answer = connection.getresponse()
            return answer, answer.read()
        except (OSError, http.client.HTTPException) as exc:
            raise processes.LabError(f'{self.address}{path}: {exc!r}') from exc
        finally:
            connection.close()

    def connection(self, timeout: float = 5.0) -> http.client.HTTPConnection:
        """Return a connection to the endpoint that is made with its first request."""
        if self._site is not None:
            return self._site.connection(self.port, timeout)
        return http.client.HTTPConnection('127.0.0.1', self.port, timeout=timeout)

    def scrape(self) -> Scrape:
        """Return what Prometheus would get now."""
        started = time.monotonic()
        status, text = self.get('/metrics')
        assert status == 200, text
        return Scrape(text, time.monotonic() - started)

    def next_scrape(self, cycles: int = 2, timeout: float = 15.0) -> Scrape:
        """Return the scrape of a later cycle; of two cycles the second began after this call."""
        scrape = self.scrape()
        for _ in range(cycles):
            scrape = self.wait_for(
                lambda now, before=scrape.taken: now.taken > before,  # type: ignore[misc]
                'the next cycle',
                timeout,
            )
        return scrape

    def wait_for(self, predicate: Predicate, what: str, timeout: float = 15.0) -> Scrape:
        """Return the scrape of the first cycle for which ``predicate`` is true."""
        seen = -1.0

        def matching() -> Scrape | None:
            nonlocal seen
            scrape = self.scrape()
            is_new, seen = scrape.taken != seen, scrape.taken
            return scrape if is_new and predicate(scrape) else None

        return processes.wait_for(matching, timeout, what)  # type: ignore[return-value]

    def pollster(self, *arguments: str, launcher: Sequence[str] = ()) -> Answer:
        """Return what ``oie-pollster ARGUMENTS --config-file OURS`` prints."""
        argv = (*launcher, str(BIN / 'oie-pollster'), *arguments)
        started = time.monotonic()
        done = subprocess.run(
            (*argv, '--config-file', str(self.config)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            env=processes.environment(),
            check=False,
        )
        seconds = time.monotonic() - started
        return Answer(done.returncode, done.stdout, done.stderr, seconds)

    @contextlib.contextmanager
    def watched(self) -> Iterator['Watch']:
        """Scrape all the time the block lasts, and once more in a cycle that begins after it."""
        with Watch(self) as watch:
            yield watch
            watch.wait_for_cycles(2)

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """Stop it by SIGSTOP, for somebody else to ask the same guests.

        Of two that ask one guest in the same moment, one gets a partial answer (NOWAIT).
        """
        self._running().signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._running().signal(signal.SIGCONT)

    def threads(self) -> int:
        return len(os.listdir(f'/proc/{self.pid}/task'))

    def descriptors(self) -> int:
        return len(os.listdir(f'/proc/{self.pid}/fd'))

    def _running(self) -> processes.Program:
        if self._program is None:
            raise processes.LabError('oie-exporter was not started')
        return self._program

    def _says_ok(self, path: str) -> bool:
        if not self.is_running:
            raise processes.LabError('oie-exporter ended')
        try:
            return self.get(path)[0] == 200
        except processes.LabError:
            return False


class Watch:
    """Scrapes ten times a second on a thread; keeps one scrape of every cycle."""

    def __init__(self, exporter: Exporter) -> None:
        self.cycles: list[Scrape] = []
        self.slowest = 0.0
        self.failures: list[str] = []
        self._exporter = exporter
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> 'Watch':
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ending.set()
        self._thread.join()

    def wait_for_cycles(self, count: int, timeout: float = 30.0) -> None:
        """Wait for so many cycles more."""
        wanted = len(self.cycles) + count
        processes.wait_for(
            lambda: len(self.cycles) >= wanted or self.failures, timeout, f'{count} cycles'
        )
        assert not self.failures, self.failures

    def values(self, name: str, **labels: str) -> list[float]:
        """Return the values of a series over the cycles that had it."""
        found = (scrape.value(name, **labels) for scrape in self.cycles)
        return [value for value in found if value is not None]

    def _run(self) -> None:
        while not self._ending.wait(0.1):
            try:
                scrape = self._exporter.scrape()
            except (processes.LabError, AssertionError) as exc:
                self.failures.append(str(exc))
                return
            self.slowest = max(self.slowest, scrape.seconds)
            if not self.cycles or scrape.taken > self.cycles[-1].taken:
                self.cycles.append(scrape)


def _lines(options: Mapping[str, object]) -> Iterator[str]:
    for name, value in options.items():
        for one in value if isinstance(value, tuple) else (value,):
            yield f'{name} = {one}'


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
