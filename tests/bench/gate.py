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

"""What the gate adds to a federation: the same request to Prometheus, to the gate, over TLS.

10,000 projects with four series each, as a portal asks for them: one kept connection each,
compressed answers, all ways asked in turn. Prometheus takes now longer, now shorter to make its
answer, so the quickest of many counts; and the same is done once more with as many bytes of a
server that has them ready.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import http.client
import pathlib
import ssl
import tempfile

from tests.bench import table
from tests.functional import gates
from tests.functional import processes

ROUNDS = 41
MOST_SECONDS = 0.030
# What Prometheus answers for them, compressed.
ANSWER_BYTES = 344_000


def tables() -> Iterator[tuple[str, list[table.Line]]]:
    """Measure one site."""
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix='oieb-')))
        directory.chmod(0o755)
        exporter = stack.enter_context(gates.Listener(gates.exposition()))
        config = gates.site_config(exporter.address, '60s')
        # The first scrape comes some time within the first interval, so that one is short.
        config['scrape_configs'][0].update(scrape_interval='10s', scrape_timeout='10s')
        site = stack.enter_context(gates.Prometheus(config))
        processes.wait_for(
            lambda: site.values('count(project_mb_usage)') == [float(gates.PROJECTS)],
            60,
            'the projects at the site',
        )
        lines = list(added(directory / 'site', site.address, 'Prometheus'))
        ready = stack.enter_context(gates.Listener('x' * ANSWER_BYTES))
        lines += added(directory / 'ready', ready.address, 'a ready answer')
        yield f'Gate, {gates.PROJECTS:,} projects', lines


def added(directory: pathlib.Path, backend: str, name: str) -> Iterator[table.Line]:
    """Compare the ways to a backend: directly, through the gate, through the gate over TLS."""
    directory.mkdir()
    gate = gates.Gate(directory, backend, shown=gates.certificate(directory))
    with contextlib.ExitStack() as stack:
        stack.enter_context(gate.running())
        token = gate.new_token()
        assert gate.shown is not None
        context = ssl.create_default_context(cafile=gate.shown.ca)
        ways = (
            http.client.HTTPConnection(backend),
            http.client.HTTPConnection('127.0.0.1', gate.plain_port),
            http.client.HTTPSConnection('127.0.0.1', gate.tls_port, context=context),
        )
        fetches = [
            _fetch(stack.enter_context(contextlib.closing(way)), gate, token) for way in ways
        ]
        size = max([fetch() for fetch in fetches])
        direct, plain, tls = table.in_turn(ROUNDS, *fetches)
    for how, through in (('', plain), (', over TLS', tls)):
        difference = min(through) - min(direct)
        yield table.Line(
            f'{name} through the gate{how}, quickest of {ROUNDS}',
            f'{difference * 1000:+.1f} ms ({min(through) * 1000:.1f} ms for {size // 1000} kB; '
            f'medians {table.milliseconds(through)}, directly {table.milliseconds(direct)})',
            'at most +30 ms',
            difference <= MOST_SECONDS,
        )


def _fetch(
    connection: http.client.HTTPConnection, gate: gates.Gate, token: str
) -> Callable[[], int]:
    headers = {'Authorization': f'Bearer {token}', 'Accept-Encoding': 'gzip'}

    def fetch() -> int:
        """Return the bytes of one whole answer."""
        connection.request('GET', gate.line, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise processes.LabError(f'{answer.status} {body[:200]!r}')
        return len(body)

    return fetch
