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


"""The recorded exposition of a node that shows everything, served as if that node lived on.

Its counters grow with the time, each in proportion to what it has, and its moments stay as
long ago as they were. So rates, quotients and ages come out as on a real host, also of what
needs hardware that no test has.

    with lively.Node() as node:
        with servers.Prometheus(node.address) as prometheus: ...
"""

import http.server
import re
import threading
import time

from tests import builders
from tests.functional import processes
from tests.unit import golden

RECORDED = golden.DIRECTORY / 'metrics_everything.txt'
# Counters double in this time, seconds.
DOUBLING = 60.0
_SAMPLE = re.compile(r'(?P<name>[a-zA-Z_:][\w:]*)(?P<labels>\{.*\})? (?P<value>\S+)')
_GROWING = ('counter', 'summary', 'histogram')
_PARTS = re.compile('_(sum|count|bucket)$')


def exposition(recorded: str, now: float, age: float) -> str:
    """Return what the recorded node would show at a moment.

    :param now: Unix time
    :param age: seconds for which it has been served
    """
    kinds: dict[str, str] = {}
    lines = []
    for line in recorded.splitlines():
        if line.startswith('# TYPE '):
            _, _, name, kind = line.split()
            kinds[name] = kind
        sample = None if line.startswith('#') else _SAMPLE.fullmatch(line)
        lines.append(_moved(sample, kinds, now, age) if sample else line)
    return '\n'.join([*lines, ''])


def _moved(sample: re.Match[str], kinds: dict[str, str], now: float, age: float) -> str:
    name, value = sample['name'], float(sample['value'])
    kind = kinds.get(name) or kinds[_PARTS.sub('', name)]
    if name.endswith('_timestamp_seconds'):
        value += now - builders.NOW
    elif kind in _GROWING:
        value *= 1 + age / DOUBLING
    return f'{name}{sample["labels"] or ""} {value!r}'


class Node:
    """The endpoint of such a node on a port of 127.0.0.1."""

    def __init__(self) -> None:
        recorded, began = RECORDED.read_text(encoding='utf-8'), time.time()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                now = time.time()
                body = exposition(recorded, now, now - began).encode()
                self.send_response(200)
                self.send_header('Content-Type', 'text/plain; version=0.0.4; charset=utf-8')
                self.send_header('Content-Length', str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.port = processes.free_port()
        self._server = http.server.ThreadingHTTPServer(('127.0.0.1', self.port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def address(self) -> str:
        return f'127.0.0.1:{self.port}'

    def __enter__(self) -> 'Node':
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
