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

"""What stands for Open vSwitch and for the options of a zone map."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import json
import pathlib
import socketserver
import threading
from typing import Any

from oslo_config import cfg

from oie import exceptions
from oie.sources.zone_maps import base

RECORDED = pathlib.Path(__file__).parents[3] / 'data' / 'ovsdb' / 'chassis.json'
ANSWERS: Mapping[str, Any] = json.loads(RECORDED.read_text(encoding='utf-8'))

# What a server sends back for a question; None for nothing.
Respond = Callable[[Mapping[str, Any]], bytes | None]


def options(plugin: type[base.ZoneMap], **overrides: Any) -> Any:
    """Return the plugin's options, defaults but for those given; None if it has none."""
    if not plugin.OPTS:
        return None
    conf = cfg.ConfigOpts()
    conf.register_opts(plugin.OPTS, 'map')
    conf(args=[], default_config_files=[])
    for name, value in overrides.items():
        conf.set_override(name, value, 'map')
    return conf.map


class FakeMap(base.ZoneMap):
    """A zone map that gives what it is told to, an exception by raising it."""

    def __init__(self, *results: Any, is_here: Any = True) -> None:
        super().__init__()
        self.results = list(results)
        self.is_here = is_here
        self.reads = 0

    def is_kept_here(self) -> bool:
        return bool(_given(self.is_here))

    def read(self) -> Mapping[int, str] | None:
        self.reads += 1
        result = self.results.pop(0) if len(self.results) > 1 else self.results[0]
        given: Mapping[int, str] | None = _given(result)
        return given


def _given(result: Any) -> Any:
    if isinstance(result, Exception):
        raise result
    return result


def unreadable(text: str = 'broken') -> exceptions.SourceError:
    return exceptions.SourceError(text)


def recorded(question: Mapping[str, Any]) -> bytes:
    """Answer as the recorded ovsdb-server did."""
    return answered(question, ANSWERS[question['method']])


def answered(question: Mapping[str, Any], result: Any, error: Any = None) -> bytes:
    return json.dumps({'id': question['id'], 'result': result, 'error': error}).encode()


@contextlib.contextmanager
def serving(path: pathlib.Path, respond: Respond) -> Iterator[None]:
    """Answer JSON-RPC questions at a unix socket."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            for question in _questions(self.request):
                answer = respond(question)
                if answer is not None:
                    # The client may have heard enough.
                    with contextlib.suppress(OSError):
                        self.request.sendall(answer)

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True
        block_on_close = False

    with Server(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield
        server.shutdown()
        thread.join()


def _questions(connection: Any) -> Iterator[Mapping[str, Any]]:
    decoder = json.JSONDecoder()
    text = ''
    while piece := connection.recv(65536):
        text += piece.decode()
        with contextlib.suppress(ValueError):
            while text:
                question, end = decoder.raw_decode(text)
                text = text[end:]
                yield question
