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

"""A CloudKitty that rates by the metrics files and the example prices that we ship."""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import datetime
import json
import pathlib
import shutil
import sqlite3
import tempfile
import urllib.error
import urllib.request

from tests.billing import environments
from tests.billing import gnocchi
from tests.functional import processes

_ETC = environments.ROOT / 'etc/cloudkitty'
#: Of the metrics files that we ship.
PERIOD = 3600

_CONFIG = """\
[DEFAULT]
transport_url = fake://
auth_strategy = noauth

[database]
connection = sqlite:///{directory}/{collector}.sqlite

[storage]
version = 1
backend = sqlalchemy

[collect]
collector = {collector}
period = {period}
wait_periods = 0
metrics_conf = {metrics}
scope_key = project_id

[collector_gnocchi]
gnocchi_auth_type = basic
gnocchi_user = {user}
gnocchi_endpoint = {gnocchi}

[collector_prometheus]
prometheus_url = {prometheus}/api/v1

[orchestrator]
coordination_url = file://{directory}/coordination
"""


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a bill.

    :ivar begin: Unix time of the period
    :ivar labels: what it was grouped by, and metadata
    """

    scope: str
    begin: float
    service: str
    quantity: float
    unit: str
    price: float
    labels: Mapping[str, str]


class Bill:
    """All lines of some periods."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self.lines = tuple(lines)

    def of(self, **fields: object) -> list[Line]:
        """Return the lines with these fields."""
        return [
            line
            for line in self.lines
            if all(getattr(line, name) == value for name, value in fields.items())
        ]

    def quantity(self, **fields: object) -> float:
        return sum(line.quantity for line in self.of(**fields))

    def price(self, **fields: object) -> float:
        return sum(line.price for line in self.of(**fields))


class CloudKitty:
    """Tables with the example rules, and what rates with the one or the other collector."""

    def __init__(self, environment: environments.Environment) -> None:
        self._environment = environment
        self._directory: pathlib.Path | None = None

    def __enter__(self) -> 'CloudKitty':
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Make the tables; run our script against the real API, which is ended again."""
        directory = self._directory = pathlib.Path(tempfile.mkdtemp(prefix='oiet-ck'))
        processes.end_later(self, self.stop)
        config = self._write('gnocchi')
        # Each collector has tables of its own: what one has rated must not show with the other.
        tables = directory / 'gnocchi.sqlite'
        self._run(config, 'tables', str(tables))
        port = processes.free_port()
        argv = (*self._environment.module('rating'), str(config), 'api', str(port))
        environment = {**processes.environment(), 'PYTHONPATH': str(environments.ROOT)}
        api = processes.Program(argv, directory / 'api.log', environment)
        api.start()
        url = f'http://127.0.0.1:{port}'
        try:
            processes.wait_for(lambda: _answers(api, url), 60, f'CloudKitty at {url}')
            client = self._environment.program('cloudkitty')
            # The storage for one process alone, without a server, has this version of the API.
            command = (
                f'{client} --os-auth-type cloudkitty-noauth --os-endpoint {url} '
                '--os-rating-api-version 1'
            )
            script = str(_ETC / 'hashmap.sh')
            self._environment.run('sh', script, RATING=command)
        finally:
            api.stop()
        self._backdate_rules(tables)
        shutil.copyfile(tables, directory / 'prometheus.sqlite')

    def stop(self) -> None:
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        processes.ended(self)

    def rate_gnocchi(
        self,
        server: gnocchi.Gnocchi,
        scopes: Sequence[str],
        begins: Sequence[float],
        period: int = PERIOD,
    ) -> Bill:
        """Return the bill by the Gnocchi collector.

        :param begins: Unix times of the periods
        :param period: seconds; our metrics file is changed to another period than the shipped
        """
        return self._rate(self._write('gnocchi', period, server.url), scopes, begins)

    def rate_prometheus(
        self, url: str, scopes: Sequence[str], begins: Sequence[float], period: int = PERIOD
    ) -> Bill:
        """Return the bill by the Prometheus collector."""
        return self._rate(self._write('prometheus', period, url), scopes, begins)

    def _backdate_rules(self, path: pathlib.Path) -> None:
        """Let the prices hold for ever; the API refuses a begin in the past."""
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE hashmap_mappings SET start = '2020-01-01 00:00:00.000000'")

    def _rate(self, config: pathlib.Path, scopes: Sequence[str], begins: Sequence[float]) -> Bill:
        zone = datetime.timezone.utc
        periods = [datetime.datetime.fromtimestamp(begin, zone).isoformat() for begin in begins]
        asked = json.dumps({'scopes': list(scopes), 'periods': periods})
        lines = json.loads(self._run(config, 'rate', stdin=asked))
        return Bill(
            Line(
                scope=line['scope'],
                begin=datetime.datetime.fromisoformat(line['period']).timestamp(),
                service=line['service'],
                quantity=line['quantity'],
                unit=line['unit'],
                price=line['price'],
                labels=line['labels'],
            )
            for line in lines
        )

    def _run(self, config: pathlib.Path, *words: str, stdin: str = '') -> str:
        argv = (*self._environment.module('rating'), str(config), *words)
        return self._environment.run(*argv, stdin=stdin)

    def _write(self, collector: str, period: int = PERIOD, url: str = '') -> pathlib.Path:
        """Write a configuration for one collector with the metrics file that we ship."""
        assert self._directory is not None
        text = (_ETC / f'metrics-{collector}.yml').read_text(encoding='ascii')
        metrics = self._directory / f'metrics-{collector}.yml'
        metrics.write_text(_for_period(text, period), encoding='ascii')
        path = self._directory / f'{collector}.conf'
        config = _CONFIG.format(
            directory=self._directory,
            collector=collector,
            period=period,
            metrics=metrics,
            user=gnocchi.USER,
            gnocchi=url,
            prometheus=url,
        )
        path.write_text(config, encoding='ascii')
        return path


def _for_period(text: str, period: int) -> str:
    """Return the metrics file for another period than an hour."""
    changed = text.replace(f'factor: {PERIOD}/', f'factor: {period}/')
    changed = changed.replace(f'[{PERIOD}s]', f'[{period}s]')
    return changed.replace(f'force_granularity: {PERIOD}', f'force_granularity: {period}')


def _answers(program: processes.Program, url: str) -> bool:
    if not program.is_running:
        raise processes.LabError(f'the API of CloudKitty ended: {program.last_words()}')
    try:
        with urllib.request.urlopen(f'{url}/', timeout=5):  # noqa: S310
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
