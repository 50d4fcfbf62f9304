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

"""A real Gnocchi: PostgreSQL as its index, files as its storage, users without passwords."""

import base64
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import json
import pathlib
import shutil
import tempfile
from typing import Any
import urllib.error
import urllib.parse
import urllib.request

from tests.billing import environments
from tests.billing import postgres
from tests.functional import processes

USER = 'admin'

_CONFIG = """\
[DEFAULT]
coordination_url = file://{directory}/coordination

[api]
auth_mode = basic

[indexer]
url = {url}

[storage]
driver = file
file_basepath = {directory}/data

[incoming]
driver = file
file_basepath = {directory}/data

[metricd]
workers = 1
metric_processing_delay = 1
"""


class Gnocchi:
    """API and metricd over a running PostgreSQL."""

    def __init__(self, environment: environments.Environment, index: postgres.Postgres) -> None:
        self.port = processes.free_port()
        self.url = f'http://127.0.0.1:{self.port}'
        self._environment = environment
        self._index = index
        self._directory: pathlib.Path | None = None
        self._programs: list[processes.Program] = []

    def __enter__(self) -> 'Gnocchi':
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Make the tables, start both services and wait until the API answers."""
        directory = self._directory = pathlib.Path(tempfile.mkdtemp(prefix='oiet-gn'))
        processes.end_later(self, self.stop)
        config = directory / 'gnocchi.conf'
        text = _CONFIG.format(directory=directory, url=self._index.url)
        config.write_text(text, encoding='ascii')
        named = ('--config-file', str(config))
        upgrade = self._environment.program('gnocchi-upgrade')
        self._environment.run(upgrade, *named, '--sacks-number', '4')
        self._start('api', *self._environment.module('gnocchi_api'), str(config), str(self.port))
        self._start('metricd', self._environment.program('gnocchi-metricd'), *named)
        processes.wait_for(self._is_ready, 60, f'Gnocchi at {self.url}')

    def stop(self) -> None:
        for program in self._programs:
            program.stop()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        processes.ended(self)

    def get(self, path: str, **query: str) -> Any:
        """Return a document of the API below /v1/.

        :raises LabError: it refuses
        """
        text = urllib.parse.urlencode(query)
        return self._request('GET', f'{path}?{text}')

    def resource(self, type_: str, name: str) -> Mapping[str, Any]:
        """Return the resource that Ceilometer calls so."""
        found = self.get(f'resource/{type_}/{urllib.parse.quote(name, safe="")}')
        assert isinstance(found, dict)
        return found

    def measures(
        self, type_: str, name: str, metric: str, aggregation: str, granularity: int
    ) -> list[tuple[str, float]]:
        """Return times and values of one aggregate."""
        path = f'resource/{type_}/{urllib.parse.quote(name, safe="")}/metric/{metric}/measures'
        found = self.get(path, aggregation=aggregation, granularity=str(granularity))
        return [(time, value) for time, _, value in found]

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Have all that is sent meanwhile aggregated at once.

        Of measures that it gets in parts Gnocchi 4.7 loses the rate of a point with which a part
        begins, if the one before it lies more than one interval back: see billing.rst.
        """
        metricd = self._programs[1]
        metricd.stop()
        try:
            yield
        finally:
            metricd.start()

    def wait_until_processed(self) -> None:
        """Wait until metricd has made aggregates of everything that was sent."""
        processes.wait_for(self._is_idle, 60, 'metricd')

    def backdate(self, seconds: float) -> None:
        """Let all resources have been there for so many seconds longer.

        Gnocchi dates a resource by its own clock. CloudKitty does not see what was measured
        before a resource was there, so a test that sends an earlier time moves the begin too.
        """
        for table, columns in (
            ('resource', ('started_at', 'revision_start')),
            ('resource_history', ('started_at', 'revision_start', 'revision_end')),
        ):
            moved = ', '.join(f"{c} = {c} - interval '{seconds} seconds'" for c in columns)
            self._index.execute(f'UPDATE {table} SET {moved}')  # noqa: S608

    def _start(self, name: str, *argv: str) -> None:
        assert self._directory is not None
        environment = {**processes.environment(), 'PYTHONPATH': str(environments.ROOT)}
        program = processes.Program(argv, self._directory / f'{name}.log', environment)
        program.start()
        self._programs.append(program)

    def _is_ready(self) -> bool:
        for program in self._programs:
            if not program.is_running:
                raise processes.LabError(f'{program.argv} ended: {program.last_words()}')
        try:
            self.get('status')
        except processes.LabError:
            return False
        return True

    def _is_idle(self) -> bool:
        return bool(self.get('status')['storage']['summary']['measures'] == 0)

    def _request(self, method: str, path: str) -> Any:
        token = base64.b64encode(f'{USER}:'.encode()).decode()
        request = urllib.request.Request(  # noqa: S310
            f'{self.url}/v1/{path}', method=method, headers={'Authorization': f'Basic {token}'}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                return json.load(answer)
        except urllib.error.HTTPError as exc:
            raise processes.LabError(f'{path}: {exc} {exc.read().decode()[:500]}') from exc
        except OSError as exc:
            raise processes.LabError(f'{path}: {exc}') from exc
