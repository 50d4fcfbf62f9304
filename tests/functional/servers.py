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

"""The programs around the exporter: Prometheus that scrapes it, the exporter it competes with."""

import http.client
import json
import pathlib
import shutil
import tempfile
from typing import Any
from typing import TypeVar
import urllib.parse

from tests.functional import processes
from tests.functional import web_site

_S = TypeVar('_S', bound='_Server')


class _Server:
    """A program with a directory of its own and a port of 127.0.0.1."""

    _program_name: str
    _ready_path: str

    def __init__(self, site: web_site.Site | None = None) -> None:
        self.port = processes.free_port()
        self.site = site
        self._directory: pathlib.Path | None = None
        self._program: processes.Program | None = None

    def __enter__(self: _S) -> _S:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f'{"https" if self.site else "http"}://127.0.0.1:{self.port}'

    @property
    def pid(self) -> int:
        if self._program is None:
            raise processes.LabError(f'{self._program_name} was not started')
        return self._program.pid

    def start(self, timeout: float = 20.0) -> None:
        """Start it and wait until it answers."""
        self._directory = pathlib.Path(tempfile.mkdtemp(prefix='oiet-'))
        processes.end_later(self, self.stop)
        argv = self._arguments(self._directory)
        self._program = processes.Program(argv, self._directory / 'log')
        self._program.start()
        processes.wait_for(self._is_ready, timeout, f'{self._program_name} at {self.url}')

    def stop(self) -> None:
        if self._program is not None:
            self._program.stop()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        processes.ended(self)

    def get(self, path: str, timeout: float = 10.0) -> str:
        """Return the body of an answer.

        :raises LabError: no answer, or one with an error status
        """
        if self.site is None:
            connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=timeout)
        else:
            connection = self.site.connection(self.port, timeout)
        try:
            connection.request('GET', path, headers=self.site.headers if self.site else {})
            answer = connection.getresponse()
            body = answer.read().decode()
        except (OSError, http.client.HTTPException) as exc:
            raise processes.LabError(f'{self.url}{path}: {exc}') from exc
        finally:
            connection.close()
        if answer.status >= 400:
            raise processes.LabError(f'{self.url}{path}: {answer.status} {body}')
        return body

    def _arguments(self, directory: pathlib.Path) -> tuple[str, ...]:
        raise NotImplementedError

    def _is_ready(self) -> bool:
        if self._program is None or not self._program.is_running:
            words = self._program.last_words() if self._program else ''
            raise processes.LabError(f'{self._program_name} ended: {words}')
        try:
            self.get(self._ready_path)
        except processes.LabError:
            return False
        return True


class Prometheus(_Server):
    """A real Prometheus that scrapes one target.

    :param target: host:port
    :param interval: of scrapes, as Prometheus writes durations
    :param site: TLS and passwords of the target, and of this server too
    """

    _program_name = 'prometheus'
    _ready_path = '/-/ready'

    def __init__(
        self,
        target: str,
        *,
        metrics_path: str = '/metrics',
        interval: str = '1s',
        site: web_site.Site | None = None,
    ) -> None:
        super().__init__(site)
        self._target = target
        self._metrics_path = metrics_path
        self._interval = interval

    def query(self, promql: str) -> list[dict[str, Any]]:
        """Return the series of an instant query: ``metric`` is labels, ``value`` time and text."""
        data = self._api('query', query=promql)
        return list(data['result'])

    def targets(self) -> list[dict[str, Any]]:
        """Return the active targets: ``health`` (up, down, unknown), ``lastError`` and more."""
        return list(self._api('targets', state='active')['activeTargets'])

    def wait_until_up(self, timeout: float = 20.0) -> dict[str, Any]:
        """Return the target once a scrape of it succeeded."""
        return processes.wait_for(
            lambda: next((t for t in self.targets() if t['health'] == 'up'), {}),
            timeout,
            f'a good scrape of {self._target}',
        )

    def _arguments(self, directory: pathlib.Path) -> tuple[str, ...]:
        job = {
            'job_name': 'oie',
            'metrics_path': self._metrics_path,
            'static_configs': [{'targets': [self._target]}],
            **(self.site.scraping() if self.site else {}),
        }
        every = {'scrape_interval': self._interval, 'scrape_timeout': self._interval}
        # JSON is YAML too.
        config = json.dumps({'global': every, 'scrape_configs': [job]})
        (directory / 'prometheus.yml').write_text(config, encoding='utf-8')
        return (
            'prometheus',
            f'--config.file={directory / "prometheus.yml"}',
            f'--storage.tsdb.path={directory / "data"}',
            f'--web.listen-address=127.0.0.1:{self.port}',
            '--log.level=warn',
            *([f'--web.config.file={self.site.config}'] if self.site else []),
        )

    def _api(self, name: str, **parameters: str) -> dict[str, Any]:
        query = urllib.parse.urlencode(parameters)
        answer = json.loads(self.get(f'/api/v1/{name}?{query}'))
        return dict(answer['data'])


class DebianExporter(_Server):
    """Debian's prometheus-libvirt-exporter, for comparison.

    :param uri: of the private libvirtd
    """

    _program_name = 'prometheus-libvirt-exporter'
    _ready_path = '/'

    def __init__(self, uri: str, *, has_nova_metadata: bool = True) -> None:
        super().__init__()
        self._uri = uri
        self._has_nova_metadata = has_nova_metadata

    def scrape(self) -> str:
        return self.get('/metrics', timeout=60.0)

    def _arguments(self, directory: pathlib.Path) -> tuple[str, ...]:
        return (
            'prometheus-libvirt-exporter',
            f'--web.listen-address=127.0.0.1:{self.port}',
            f'--libvirt.uri={self._uri}',
            *(['--libvirt.export-nova-metadata'] if self._has_nova_metadata else []),
        )
