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


"""A web server on loopback that answers as scripts tell it, well or badly.

    with FeedServer(tls=True) as server:
        server.play('/list.txt', answer(b'5.6.7.0/24\\n'))
        fetch(server.url('/list.txt'), ca_file=server.ca_file)
        assert server.requests[0].headers['user-agent'].startswith('oie/')

A script is a function of an Exchange; those that feeds need stand below the
server. What is played may change at any time. All servers of a test run share
one authority, so that the ``ca_file`` of any fits all.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import datetime
import functools
import gzip
import http
import itertools
import os
import select
import socket
import socketserver
import ssl
import struct
import tempfile
import threading

import trustme

_PATIENCE = 10.0
_LARGEST_HEAD = 2**16


class Ended(Exception):
    """The server stops, or the peer left: a script need not go on."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request: ``target`` is what stands behind the method, header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]


class Exchange:
    """A connection with one request on it, as a script sees it."""

    def __init__(self, connection: socket.socket, asked: Asked, stopping: threading.Event) -> None:
        self.connection = connection
        self.asked = asked
        self._stopping = stopping

    def send(self, data: bytes) -> None:
        """Send bytes as they are.

        :raises Ended: the server stops, or the peer is gone
        """
        if self._stopping.is_set():
            raise Ended
        try:
            self.connection.sendall(data)
        except OSError as exc:
            raise Ended from exc

    def pause(self, seconds: float) -> None:
        """Wait.

        :raises Ended: the server stops
        """
        if self._stopping.wait(seconds):
            raise Ended

    def reset(self) -> None:
        """End the connection as a crash does: with RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        self.connection.close()


Script = Callable[[Exchange], None]


class FeedServer:
    """The server; it runs as long as the ``with`` block.

    :param tls: whether it speaks TLS
    :param names: whom its certificate is for
    :param is_expired: whether the certificate ran out yesterday
    :param is_foreign: whether nobody knows who signed the certificate
    :param greeting: played to each connection in place of TLS and HTTP
    :ivar requests: all that was asked, in order
    :ivar unasked: how many connections ended without a byte from the peer
    :ivar ca_file: the authority's certificate (PEM)
    """

    def __init__(
        self,
        *,
        tls: bool = False,
        names: tuple[str, ...] = ('localhost', '127.0.0.1'),
        is_expired: bool = False,
        is_foreign: bool = False,
        greeting: Script | None = None,
    ) -> None:
        self.requests: list[Asked] = []
        self.unasked = 0
        self.ca_file = ''
        self._scripts: dict[str, Script] = {}
        self._greeting = greeting
        self._tls = _tls_context(names, is_expired, is_foreign) if tls else None
        self._scheme = 'https' if tls else 'http'
        self._stopping = threading.Event()
        self._ending = contextlib.ExitStack()

    def __enter__(self) -> 'FeedServer':
        self.ca_file = self._ending.enter_context(_authority_file())
        self._server = _Server(('127.0.0.1', 0), self._serve)
        self._ending.callback(self._server.server_close)
        serve = functools.partial(self._server.serve_forever, poll_interval=0.01)
        thread = threading.Thread(target=serve, name='feed-server', daemon=True)
        thread.start()
        self._ending.callback(thread.join, _PATIENCE)
        self._ending.callback(self._server.shutdown)
        self._ending.callback(self._stopping.set)
        return self

    def __exit__(self, *exc: object) -> None:
        self._ending.close()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def url(self, path: str = '', *, host: str = '127.0.0.1') -> str:
        """Return the URL of a path; ``host`` may be another name of this machine."""
        return f'{self._scheme}://{host}:{self.port}{path}'

    def play(self, target: str, script: Script) -> None:
        """Answer so from now on.

        :param target: path and query, or what a proxy is asked for; ``*`` stands for all others
        """
        self._scripts[target] = script

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(_PATIENCE)
        with contextlib.suppress(Ended, OSError):
            if self._greeting is not None:
                self._greeting(Exchange(connection, Asked('', '', {}), self._stopping))
                return
            if not connection.recv(1, socket.MSG_PEEK):
                self.unasked += 1
                return
            if self._tls is None:
                self._answer(connection)
                return
            with self._tls.wrap_socket(connection, server_side=True) as wrapped:
                self._answer(wrapped)

    def _answer(self, connection: socket.socket) -> None:
        asked = _read_request(connection)
        self.requests.append(asked)
        script = self._scripts.get(asked.target) or self._scripts.get('*') or answer(status=404)
        script(Exchange(connection, asked, self._stopping))


class _Server(socketserver.ThreadingTCPServer):
    # server_close() waits for the connections.
    daemon_threads = False
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], serve: Callable[[socket.socket], None]) -> None:
        super().__init__(address, socketserver.BaseRequestHandler)
        self._serve = serve

    def finish_request(self, request: socket.socket, client_address: object) -> None:
        self._serve(request)


def _read_request(connection: socket.socket) -> Asked:
    head = b''
    while b'\r\n\r\n' not in head:
        data = connection.recv(4096)
        if not data or len(head) > _LARGEST_HEAD:
            raise Ended
        head += data
    first, *lines = head.partition(b'\r\n\r\n')[0].decode('latin-1').split('\r\n')
    method, target, _ = first.split(' ')
    pairs = (line.partition(':') for line in lines)
    return Asked(method, target, {name.lower(): value.strip() for name, _, value in pairs})


# --- certificates -----------------------------------------------------------------


@functools.cache
def _authority() -> trustme.CA:
    return trustme.CA()


@contextlib.contextmanager
def _authority_file() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix='oie-feeds-') as directory:
        path = os.path.join(directory, 'ca.pem')
        _authority().cert_pem.write_to_path(path)
        yield path


def _tls_context(names: tuple[str, ...], is_expired: bool, is_foreign: bool) -> ssl.SSLContext:
    authority = trustme.CA() if is_foreign else _authority()
    now = datetime.datetime.now(datetime.timezone.utc)
    days = datetime.timedelta(days=-1 if is_expired else 30)
    certificate = authority.issue_cert(*names, not_after=now + days)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


# --- good scripts -----------------------------------------------------------------


def head(status: int = 200, headers: Mapping[str, object] | None = None) -> bytes:
    """Return a status line and headers, with the empty line behind them."""
    lines = [f'HTTP/1.1 {status} {http.HTTPStatus(status).phrase}']
    lines += [f'{name}: {value}' for name, value in (headers or {}).items()]
    return ('\r\n'.join(lines) + '\r\n\r\n').encode('latin-1')


def answer(
    body: bytes = b'', *, status: int = 200, headers: Mapping[str, object] | None = None
) -> Script:
    """Answer with a body, whose length is right unless ``headers`` say otherwise."""
    default = {'Content-Type': 'text/plain', 'Content-Length': len(body), 'Connection': 'close'}
    return raw(head(status, {**default, **(headers or {})}) + body)


def packed(body: bytes) -> Script:
    """Answer with a body in gzip."""
    return answer(gzip.compress(body), headers={'Content-Encoding': 'gzip'})


def chunked(*pieces: bytes) -> Script:
    """Answer with a body in chunks."""
    chunks = b''.join(b'%x\r\n%s\r\n' % (len(piece), piece) for piece in (*pieces, b''))
    return raw(head(headers={'Transfer-Encoding': 'chunked'}) + chunks)


def kept(body: bytes, *, etag: str = '', last_modified: str = '') -> Script:
    """Answer with 304 whoever has this body already."""
    validators = {'ETag': etag, 'Last-Modified': last_modified}
    headers = {name: value for name, value in validators.items() if value}

    def play(exchange: Exchange) -> None:
        asked = exchange.asked.headers
        is_known = etag and asked.get('if-none-match') == etag
        is_old = last_modified and asked.get('if-modified-since') == last_modified
        if is_known or is_old:
            exchange.send(head(304, headers))
        else:
            answer(body, headers=headers)(exchange)

    return play


def redirect(to: str, status: int = 302) -> Script:
    """Answer that the list is elsewhere."""
    return answer(b'elsewhere', status=status, headers={'Location': to})


def in_turn(*scripts: Script) -> Script:
    """Play one script after the other, the last one for ever."""
    left = itertools.chain(scripts, itertools.repeat(scripts[-1]))
    return lambda exchange: next(left)(exchange)


# --- bad scripts ------------------------------------------------------------------


def page() -> Script:
    """Answer with a web page, and status 200."""
    return answer(b'<html>Welcome</html>', headers={'Content-Type': 'text/html; charset=utf-8'})


def raw(data: bytes) -> Script:
    """Send bytes, and close."""
    return lambda exchange: exchange.send(data)


def silence(exchange: Exchange) -> None:
    """Send nothing, and keep the connection."""
    exchange.pause(3600)


def drip(start: bytes, piece: bytes, seconds: float = 0.02) -> Script:
    """Send the start, then a piece again and again."""

    def play(exchange: Exchange) -> None:
        exchange.send(start)
        while True:
            exchange.pause(seconds)
            exchange.send(piece)

    return play


def flood(start: bytes, piece: bytes) -> Script:
    """Send the start, then a piece again and again, as fast as they are taken."""

    def play(exchange: Exchange) -> None:
        exchange.send(start)
        while True:
            exchange.send(piece)

    return play


def endless() -> Script:
    """Answer with a list that has no end."""
    chunk = b'5.6.7.8\n' * 8192
    return flood(
        head(headers={'Transfer-Encoding': 'chunked'}), b'%x\r\n%s\r\n' % (len(chunk), chunk)
    )


def reset(start: bytes) -> Script:
    """Send the start, then end the connection as a crash does."""

    def play(exchange: Exchange) -> None:
        exchange.send(start)
        exchange.pause(0.05)  # what was sent must not go with the connection
        exchange.reset()

    return play


def bomb() -> Script:
    """Answer with 1 MiB that unpacks to 1 GiB of zeros."""
    return answer(gzip.compress(bytes(2**20)) * 1024, headers={'Content-Encoding': 'gzip'})


def tunnel(to_port: int) -> Script:
    """Be a proxy: answer CONNECT, then pass everything on to a port of this machine."""

    def play(exchange: Exchange) -> None:
        with socket.create_connection(('127.0.0.1', to_port), _PATIENCE) as beyond:
            exchange.send(b'HTTP/1.1 200 OK\r\n\r\n')
            peers = {exchange.connection: beyond, beyond: exchange.connection}
            while True:
                exchange.pause(0)
                for ready in select.select(tuple(peers), (), (), 0.05)[0]:
                    data = ready.recv(2**16)
                    if not data:
                        return
                    peers[ready].sendall(data)

    return play
