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

"""The endpoint keeps its promises to good clients, whatever the others send."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import email.utils
import errno
import grp
import logging
import os
import pathlib
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from typing import NoReturn

import h11
import hypothesis
from hypothesis import strategies as st
import pytest

from oie import exceptions
from oie import web
from oie.web import wire

BIG = b'0123456789abcdef' * 1024 * 1024  # more than the kernel takes for a peer that does not read
GET = b'GET /hello HTTP/1.1\r\nHost: x\r\n\r\n'
GET_BIG = b'GET /big HTTP/1.1\r\nHost: x\r\n\r\n'
PATIENCE = 5.0


def text(body: str, **more: str) -> web.Response:
    return web.Response(body=body.encode(), headers=tuple(more.items()))


def echo(request: web.Request) -> web.Response:
    return text(f'{request.method} {request.path} {request.query} {request.body.decode()}')


HELLO = web.Route(lambda request: text('hello\n'))
ROUTES: web.Routes = {
    '/hello': {'GET': HELLO},
    '/echo': {'GET': web.Route(echo), 'PUT': web.Route(echo)},
    '/big': {'GET': web.Route(lambda request: web.Response(body=BIG))},
}


class Client:
    """A peer that says exactly what it is told to."""

    def __init__(self, address: str) -> None:
        if address.startswith('unix:'):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(PATIENCE)
            self.socket.connect(address.removeprefix('unix:'))
        else:
            self.socket = socket.create_connection(web.parse_address(address), PATIENCE)
        self.pending = b''

    def send(self, data: bytes) -> 'Client':
        self.socket.sendall(data)
        return self

    def send_for_ever(self, data: bytes) -> NoReturn:
        while True:
            self.socket.sendall(data)

    def response(self, method: str = 'GET') -> tuple[int, dict[str, str], bytes]:
        """Return the next answer: status, headers, body."""
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method=method, target='/', headers=[('Host', 'x')]))
        parser.send(h11.EndOfMessage())
        if self.pending:
            parser.receive_data(self.pending)
        head, body = None, []
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                parser.receive_data(self.socket.recv(1 << 20))
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                break
            elif isinstance(event, h11.ConnectionClosed):
                raise ConnectionError('no answer')
        assert head is not None
        self.pending = parser.trailing_data[0]
        headers = {name.decode(): value.decode() for name, value in head.headers}
        return head.status_code, headers, b''.join(body)

    def is_closed(self) -> bool:
        """Return whether the server ends the connection and has nothing more to say."""
        if self.pending:
            return False
        try:
            return self.socket.recv(1) == b''
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def __enter__(self) -> 'Client':
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()


def until(condition: Callable[[], bool]) -> None:
    """Return as soon as the condition holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, 'waited in vain'
        time.sleep(0.002)


@contextlib.contextmanager
def serving(
    limits: web.Limits | None = None,
    routes: web.Routes = ROUTES,
    *listeners: web.Listener,
) -> Iterator[web.Server]:
    server = web.Server(listeners or [web.TcpListener('127.0.0.1', 0, routes)], limits)
    server.start()
    try:
        yield server
    finally:
        server.stop(PATIENCE)


def ask(server: web.Server, request: bytes = GET, method: str = 'GET') -> tuple[int, bytes]:
    """Return what a new client is answered."""
    with Client(server.addresses[0]) as client:
        status, _, body = client.send(request).response(method)
        return status, body


def is_phase(server: web.Server, **phases: int) -> bool:
    connections = server.statistics().connections
    return all(connections[phase] == number for phase, number in phases.items())


@pytest.fixture(scope='module')
def server() -> Iterator[web.Server]:
    with serving() as server:
        yield server


@pytest.fixture
def client(server: web.Server) -> Iterator[Client]:
    with Client(server.addresses[0]) as client:
        yield client


class Gate:
    """A slow handler that answers when it is opened."""

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self.calls = 0
        self.routes = {**ROUTES, '/gate': {'GET': web.Route(self.handle, is_slow=True)}}

    def handle(self, request: web.Request) -> web.Response:
        self.calls += 1
        self.is_open.wait(PATIENCE)
        return text('through\n')

    def __enter__(self) -> 'Gate':
        return self

    def __exit__(self, *exc: object) -> None:
        self.is_open.set()


GET_GATE = b'GET /gate HTTP/1.1\r\nHost: x\r\n\r\n'


# --- plain service ----------------------------------------------------------------


def test_answer_has_date_and_length_and_no_version(client):
    status, headers, body = client.send(GET).response()
    assert (status, body) == (200, b'hello\n')
    date = email.utils.parsedate_to_datetime(headers.pop('date'))
    assert abs(date.timestamp() - time.time()) < 5
    assert headers == {
        'server': 'oie',
        'content-type': 'text/plain; charset=utf-8',
        'content-length': '6',
    }


def test_connection_is_kept_for_more_requests(client):
    for _ in range(3):
        assert client.send(GET).response()[0] == 200


def test_handler_sees_the_whole_request():
    seen = []

    def handler(request: web.Request) -> web.Response:
        seen.append(request)
        return web.Response(status=204)

    with serving(None, {'/x': {'PUT': web.Route(handler)}}) as server:
        head = b'PUT /x?a=1&b HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nx-a: \xe9 \r\n'
        assert ask(server, head + b'Content-Length: 3\r\n\r\nabc') == (204, b'')
    assert seen == [
        web.Request(
            method='PUT',
            path='/x',
            query='a=1&b',
            headers={'host': 'x', 'x-a': '1, \xe9', 'content-length': '3'},
            body=b'abc',
            peer=web.Peer('127.0.0.1'),
        )
    ]


def test_absolute_target_is_understood(server):
    request = b'GET http://x:9120/echo?q HTTP/1.1\r\nHost: x\r\n\r\n'
    assert ask(server, request) == (200, b'GET /echo q ')


def test_head_has_the_head_of_get_and_no_body(client):
    head = client.send(GET.replace(b'GET', b'HEAD')).response('HEAD')
    assert (head[0], head[1]['content-length'], head[2]) == (200, '6', b'')
    assert client.send(GET).response()[2] == b'hello\n'


def test_unknown_path_is_404(client):
    status, _, body = client.send(GET.replace(b'hello', b'metrics')).response()
    assert (status, body) == (404, b'Not Found\n')


def test_path_must_match_exactly(server):
    for path in (b'/hello/', b'//hello', b'/%68ello', b'/hello;x', b'/hello#x', b'*', b'hello'):
        assert ask(server, GET.replace(b'/hello', path))[0] == 404, path


@pytest.mark.parametrize(
    ('path', 'allowed'), [(b'/hello', 'GET, HEAD'), (b'/echo', 'GET, HEAD, PUT')]
)
def test_other_method_is_405_with_those_allowed(client, path, allowed):
    request = b'DELETE %s HTTP/1.1\r\nHost: x\r\n\r\n' % path
    status, headers, _ = client.send(request).response()
    assert (status, headers['allow']) == (405, allowed)


@pytest.mark.parametrize('method', [b'CONNECT', b'OPTIONS', b'TRACE', b'get'])
def test_odd_methods_are_405_and_the_connection_goes_on(client, method):
    assert client.send(GET.replace(b'GET', method)).response(method.decode())[0] == 405
    assert client.send(GET).response()[0] == 200


def test_offered_upgrade_is_ignored(client):
    upgrade = GET.replace(b'Host', b'Connection: upgrade\r\nUpgrade: h2c\r\nHost')
    assert client.send(upgrade).response()[0] == 200
    assert client.send(GET).response()[0] == 200


def test_http_1_0_is_answered_and_closed(client):
    status, headers, body = client.send(b'GET /hello HTTP/1.0\r\n\r\n').response()
    assert (status, headers['connection'], body) == (200, 'close', b'hello\n')
    assert client.is_closed()


def test_connection_close_is_obeyed(client):
    request = GET.replace(b'Host', b'Connection: close\r\nHost')
    assert client.send(request).response()[0] == 200
    assert client.is_closed()


def test_big_body_is_served_whole(client):
    assert client.send(GET_BIG).response()[2] == BIG
    assert client.send(GET).response()[2] == b'hello\n'


def test_big_body_for_a_slow_reader_ends_without_an_error(client, server, caplog):
    client.send(GET_BIG.replace(b'Host', b'Connection: close\r\nHost'))
    until(lambda: is_phase(server, write=1))
    assert client.response()[2] == BIG
    assert client.is_closed()
    until(lambda: is_phase(server, write=0))
    # The loop runs on: what was left in it has been done when another is answered.
    assert ask(server)[0] == 200
    assert not caplog.records


def test_pipelined_requests_are_answered_in_order(client):
    client.send(b''.join(GET_ECHO % number for number in range(400)))
    for number in range(400):
        assert client.response()[2] == b'GET /echo %d ' % number


GET_ECHO = b'GET /echo?%d HTTP/1.1\r\nHost: x\r\n\r\n'


def test_pipeline_behind_a_slow_answer_waits_for_it():
    with Gate() as gate, serving(None, gate.routes) as server:
        with Client(server.addresses[0]) as client:
            client.send(GET_GATE + GET)
            until(lambda: is_phase(server, write=1))
            client.send(GET_ECHO % 3)
            gate.is_open.set()
            bodies = [client.response()[2] for _ in range(3)]
            assert bodies == [b'through\n', b'hello\n', b'GET /echo 3 ']
            assert client.send(GET).response()[0] == 200


def test_peer_cannot_send_on_and_on_while_it_is_answered(tmp_path):
    with Gate() as gate:
        listener = web.UnixListener(str(tmp_path / 'oie.sock'), gate.routes)
        with serving(None, {}, listener) as server, Client(server.addresses[0]) as client:
            client.send(GET_GATE)
            client.socket.settimeout(0.2)
            with pytest.raises(TimeoutError):
                client.send_for_ever(b'a' * 65536)
            gate.is_open.set()


def test_client_that_only_closed_its_side_gets_all_answers(client):
    client.send(GET + GET_BIG + GET)
    client.socket.shutdown(socket.SHUT_WR)
    assert [len(client.response()[2]) for _ in range(3)] == [6, len(BIG), 6]
    assert client.is_closed()


@pytest.mark.parametrize('sent', [b'', b'GET', GET[:-2], b'PUT /echo HTTP/1.1\r\nHost: x\r\n'])
def test_client_that_leaves_early_is_no_trouble(client, server, sent):
    client.send(sent)
    client.socket.shutdown(socket.SHUT_WR)
    assert client.is_closed()
    assert ask(server)[0] == 200


def test_server_waits_for_the_body(client, server):
    client.send(b'PUT /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n')
    until(lambda: is_phase(server, body=1))
    client.send(b'ab')
    assert client.send(b'cd').response()[2] == b'PUT /echo  abcd'


def test_expectation_is_met_with_100_continue(client):
    request = b'PUT /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n'
    assert client.send(request).socket.recv(100) == b'HTTP/1.1 100 Continue\r\n\r\n'
    assert client.send(b'ab').response()[2] == b'PUT /echo  ab'
    assert client.send(GET).response()[0] == 200


def test_expectation_of_a_big_body_is_refused_at_once(client):
    head = b'PUT /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5000\r\n\r\n'
    assert client.send(head).response()[0] == 413
    assert client.is_closed()


def test_small_answers_do_not_wait_for_acknowledgements():
    # asyncio sets TCP_NODELAY only on sockets that name their protocol.
    bound = web.TcpListener('127.0.0.1', 0, ROUTES).bind()
    with bound.socket:
        assert bound.socket.proto == socket.IPPROTO_TCP


@hypothesis.given(cuts=st.lists(st.integers(1, 200), max_size=12))
@hypothesis.settings(max_examples=30, deadline=None)
def test_cuts_between_packets_do_not_matter(server, cuts):
    whole = b'PUT /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabcd' + GET + GET_ECHO % 7
    with Client(server.addresses[0]) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        start = 0
        for end in [*sorted(set(cuts)), len(whole)]:
            client.send(whole[start:end])
            start = max(start, end)
        bodies = [client.response()[2] for _ in range(3)]
    assert bodies == [b'PUT /echo  abcd', b'hello\n', b'GET /echo 7 ']


# --- malformed and too big ----------------------------------------------------------

HOST = b'Host: x\r\n'


@pytest.mark.parametrize(
    'request_bytes',
    [
        pytest.param(b'GET /hello HTTP/1.1\nHost: x\n\n', id='bare LF'),
        pytest.param(b'GET /hello HTTP/1.1\r\nHost: x\n\r\n', id='one bare LF'),
        pytest.param(b'GET /hello HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n', id='bare CR'),
        pytest.param(b'GET /hello HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n', id='folded line'),
        pytest.param(b'GET /hello HTTP/1.1\r\nHost : x\r\n\r\n', id='space before colon'),
        pytest.param(b'GET /hello HTTP/1.1\r\n Host: x\r\n\r\n', id='space before name'),
        pytest.param(b'GET /hello HTTP/1.1\r\nHost: x\r\nA\r\n\r\n', id='no colon'),
        pytest.param(b'GET /hello HTTP/1.1\r\nHost: x\r\nA: \x1b[0m\r\n\r\n', id='ESC in a value'),
        pytest.param(b'GET /hello HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n', id='NUL in a value'),
        pytest.param(b'GET /hello HTTP/1.1\r\n\r\n', id='no Host'),
        pytest.param(b'GET /hello HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n', id='two Hosts'),
        pytest.param(b'GET /hello HTTP/2.0\r\nHost: x\r\n\r\n', id='HTTP/2.0'),
        pytest.param(b'GET /hello HTTP/0.9\r\n\r\n', id='HTTP/0.9'),
        pytest.param(b'GET /hello\r\n\r\n', id='no version'),
        pytest.param(b'GET  /hello HTTP/1.1\r\nHost: x\r\n\r\n', id='two spaces'),
        pytest.param(b'\r\n' + GET, id='empty line first'),
        pytest.param(b'GET /h\x80 HTTP/1.1\r\nHost: x\r\n\r\n', id='byte 0x80 in the target'),
        pytest.param(b'\x16\x03\x01\x02\0\x01\0\r\n\r\n', id='TLS'),
    ],
)
def test_malformed_head_is_400_and_closed(client, request_bytes):
    status, headers, body = client.send(request_bytes).response()
    assert (status, headers['connection'], body) == (400, 'close', b'Bad Request\n')
    assert client.is_closed()


@pytest.mark.parametrize(
    ('headers', 'status'),
    [
        (b'Content-Length: 4\r\nTransfer-Encoding: chunked\r\n', 400),
        (b'Transfer-Encoding: chunked\r\ncontent-length: 4\r\n', 400),
        (b'Content-Length: 4\r\nContent-Length: 4\r\n', 400),
        (b'Content-Length: 4\r\nContent-Length: 5\r\n', 400),
        (b'Content-Length: 4, 4\r\n', 400),
        (b'Content-Length: +4\r\n', 400),
        (b'Content-Length: -1\r\n', 400),
        (b'Content-Length: 0x4\r\n', 400),
        (b'Content-Length: \r\n', 400),
        (b'Transfer-Encoding: chunked\r\n', 411),
        (b'Transfer-Encoding: gzip\r\n', 501),
        (b'Content-Length: 4097\r\n', 413),
        (b'Content-Length: 99999999999999999999\r\n', 413),
    ],
)
def test_body_of_unclear_or_great_length_is_refused(client, headers, status):
    client.send(b'PUT /echo HTTP/1.1\r\nHost: x\r\n' + headers + b'\r\n0\r\n\r\n')
    assert client.response()[0] == status
    assert client.is_closed()


def test_malformed_request_after_good_ones_is_refused_in_its_turn(client):
    client.send(GET.replace(b'GET', b'HEAD') + b'GET / HTTP/1.1\n\n' + GET)
    assert client.response('HEAD')[0] == 200
    assert client.response()[0] == 400
    assert client.is_closed()


def test_peer_that_closed_its_side_is_refused_and_closed_at_once():
    with Gate() as gate, serving(web.Limits(linger_seconds=60), gate.routes) as server:
        with Client(server.addresses[0]) as client:
            client.send(GET_GATE + b'nonsense\r\n\r\n')
            client.socket.shutdown(socket.SHUT_WR)
            until(lambda: is_phase(server, write=1))
            gate.is_open.set()
            assert [client.response()[0] for _ in range(2)] == [200, 400]
            assert client.is_closed()
        until(lambda: is_phase(server, linger=0))


def test_refused_head_request_has_no_body(client):
    client.send(b'HEAD /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n')
    assert client.response('HEAD')[0] == 413
    assert client.is_closed()


def test_huge_head_is_431_even_while_it_is_still_being_sent(client):
    client.send(b'GET /hello HTTP/1.1\r\nHost: x\r\nA: ' + b'a' * 70_000 + b'\r\n\r\n')
    assert client.response()[0] == 431
    assert client.is_closed()


def test_refused_peer_may_send_on_and_still_reads_why():
    with serving() as server, Client(server.addresses[0]) as client:
        client.send(b'a' * 9000)
        until(lambda: is_phase(server, linger=1))
        for _ in range(3):
            client.send(b'a' * 9000)
        assert client.response()[0] == 414
        assert client.is_closed()


@pytest.mark.parametrize(('size', 'status'), [(16 * 1024, 200), (16 * 1024 + 1, 431)])
def test_head_may_be_16_kib(server, size, status):
    start = b'GET /hello HTTP/1.1\r\nHost: x\r\nA: '
    assert ask(server, start + b'a' * (size - len(start) - 4) + b'\r\n\r\n')[0] == status


@pytest.mark.parametrize(('lines', 'status'), [(64, 200), (65, 431)])
def test_head_may_have_64_lines(server, lines, status):
    assert ask(server, GET[:-2] + b'A: b\r\n' * (lines - 1) + b'\r\n')[0] == status


@pytest.mark.parametrize(('size', 'status'), [(8 * 1024, 404), (8 * 1024 + 1, 414)])
def test_request_line_may_be_8_kib(server, size, status):
    line = b'GET /' + b'a' * (size - len(b'GET / HTTP/1.1')) + b' HTTP/1.1'
    assert ask(server, line + b'\r\nHost: x\r\n\r\n')[0] == status


def test_endless_request_line_is_414(client):
    assert client.send(b'a' * 9000).response()[0] == 414
    assert client.is_closed()


@pytest.mark.parametrize(('size', 'status'), [(4096, 200), (4097, 413)])
def test_body_may_be_4_kib(server, size, status):
    head = b'PUT /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n' % size
    assert ask(server, head + b'a' * size)[0] == status


def test_refusals_are_counted_by_reason_and_logged_on_one_line(caplog):
    caplog.set_level(logging.DEBUG, 'oie.web')
    with serving() as server:
        ask(server, b'GET /\x1b[31m HTTP/1.1\r\nHost: x\nINFO: forged\r\n\r\n')
        ask(server, b'a' * 20_000)
        ask(server, b'PUT /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4097\r\n\r\n')
        dropped = server.statistics().dropped
    counted = {reason: number for reason, number in dropped.items() if number}
    assert counted == {'bad_request': 1, 'head_too_large': 1, 'body_too_large': 1}
    messages = [record.getMessage() for record in caplog.records]
    assert all(message.isprintable() and len(message) < 600 for message in messages)


pieces = st.sampled_from(
    [
        b'GET ',
        b'/hello',
        b' HTTP/1.1\r\n',
        b'Host: x\r\n',
        b'\r\n',
        b'\n',
        b' ',
        b':',
        b'Content-Length: ',
        b'Transfer-Encoding: chunked\r\n',
        b'Connection: close\r\n',
        b'Expect: 100-continue\r\n',
        b'Upgrade: x\r\n',
        b'CONNECT ',
        b'HEAD ',
        b'5',
        b'0\r\n\r\n',
        GET,
    ]
)


@hypothesis.given(parts=st.lists(pieces | st.binary(max_size=40), max_size=30))
@hypothesis.settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],  # we clear the log
)
def test_no_bytes_kill_the_server(server, caplog, parts):
    caplog.clear()
    with Client(server.addresses[0]) as client:
        client.send(b''.join(parts))
        client.socket.shutdown(socket.SHUT_WR)
        answer = b''.join(iter(lambda: client.socket.recv(65536), b''))
    assert answer == b'' or answer.startswith(b'HTTP/1.1 ')
    assert ask(server) == (200, b'hello\n')
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@hypothesis.given(parts=st.lists(pieces | st.binary(max_size=20), max_size=6))
def test_what_the_parser_lets_through_is_plain(parts):
    head = b'GET / HTTP/1.1\r\nHost: x\r\nA: ' + b''.join(parts) + b'\r\n\r\n'
    limits = web.Limits()
    try:
        size = wire.head_size(bytearray(head), limits)
        wire.parse_head(h11.Connection(h11.SERVER), head[:size], limits)
    except web.RequestError:
        return
    lines = head[:size].split(b'\r\n')
    assert lines[-2:] == [b'', b'']
    assert all(line and line[0] > 32 for line in lines[:-2])
    assert not set(head[:size].replace(b'\r\n', b'').replace(b'\t', b'')) & {*range(32), 127}


# --- deadlines ------------------------------------------------------------------


def test_dripping_peer_is_gone_at_the_deadline_of_the_head():
    with serving(web.Limits(head_seconds=0.2)) as server, Client(server.addresses[0]) as client:
        start = time.monotonic()
        with contextlib.suppress(OSError):
            for byte in GET[:-1] * 100:
                client.send(bytes([byte]))
                time.sleep(0.02)
                if server.statistics().dropped['head_timeout']:
                    break
        assert 0.19 < time.monotonic() - start < 2
        assert client.response()[0] == 408
        assert client.is_closed()


def test_silent_peer_is_closed_without_a_word():
    with serving(web.Limits(head_seconds=0.1)) as server, Client(server.addresses[0]) as client:
        assert client.is_closed()
        assert server.statistics().dropped['head_timeout'] == 1


def test_second_head_has_its_own_deadline():
    with serving(web.Limits(head_seconds=0.2)) as server, Client(server.addresses[0]) as client:
        for _ in range(4):
            time.sleep(0.1)
            assert client.send(GET).response()[0] == 200
        assert client.send(b'GET').response()[0] == 408


def test_body_has_a_deadline():
    with serving(web.Limits(body_seconds=0.1)) as server, Client(server.addresses[0]) as client:
        client.send(b'PUT /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n')
        assert client.response()[0] == 408
        assert client.is_closed()
        assert server.statistics().dropped['body_timeout'] == 1


def test_answer_that_is_not_read_has_a_deadline():
    with serving(web.Limits(write_seconds=0.1)) as server, Client(server.addresses[0]) as client:
        client.send(GET_BIG)
        until(lambda: server.statistics().dropped['write_timeout'] == 1)
        until(lambda: is_phase(server, write=0))
        with pytest.raises((ConnectionError, h11.RemoteProtocolError)):
            client.response()


def test_answer_that_is_never_ready_has_a_deadline():
    with Gate() as gate, serving(web.Limits(write_seconds=0.1), gate.routes) as server:
        with Client(server.addresses[0]) as client:
            assert client.send(GET_GATE).is_closed()
        assert ask(server)[0] == 200


def test_idle_peer_is_closed_in_the_end():
    with serving(web.Limits(idle_seconds=0.1)) as server, Client(server.addresses[0]) as client:
        assert client.send(GET).response()[0] == 200
        assert client.is_closed()
        assert server.statistics().dropped['idle_timeout'] == 1


def test_refused_peer_that_sends_on_is_cut_off():
    with serving(web.Limits(linger_seconds=0.1)) as server, Client(server.addresses[0]) as client:
        with pytest.raises(ConnectionError):
            client.send_for_ever(b'a' * 9000)


# --- caps -------------------------------------------------------------------------


def test_newcomer_takes_the_place_of_who_has_been_asking_for_longest():
    limits = web.Limits(connections=6, idle_connections=3, requests=2)
    with serving(limits) as server, contextlib.ExitStack() as stack:
        idle = stack.enter_context(Client(server.addresses[0]))
        assert idle.send(GET).response()[0] == 200
        asking = []
        for number in range(5):
            asking.append(stack.enter_context(Client(server.addresses[0])).send(b'GET'))
            until(lambda: is_phase(server, head=number + 1))  # noqa: B023 - runs at once
        assert ask(server)[0] == 200
        assert asking[0].is_closed()
        assert server.statistics().dropped['too_many_connections'] == 1
        assert idle.send(GET).response()[0] == 200
        assert asking[1].send(GET[3:]).response()[0] == 200


def test_crowd_of_silent_peers_never_keeps_a_good_client_out():
    limits = web.Limits(connections=20, idle_connections=5, requests=5)
    with serving(limits) as server, contextlib.ExitStack() as stack:
        good = stack.enter_context(Client(server.addresses[0]))
        for _ in range(100):
            stack.enter_context(Client(server.addresses[0]))
        assert ask(server)[0] == 200
        assert good.send(GET).is_closed() or ask(server)[0] == 200
        assert sum(server.statistics().connections.values()) <= 20


def test_only_so_many_may_idle():
    with serving(web.Limits(idle_connections=2)) as server, contextlib.ExitStack() as stack:
        idle = []
        for _ in range(3):
            idle.append(stack.enter_context(Client(server.addresses[0])))
            assert idle[-1].send(GET).response()[0] == 200
        assert idle[0].is_closed()
        assert server.statistics().dropped['too_many_idle'] == 1
        assert idle[1].send(GET).response()[0] == 200


def test_request_too_many_is_503_with_retry_after():
    with Gate() as gate, serving(web.Limits(requests=1, stalled_seconds=0), gate.routes) as server:
        with Client(server.addresses[0]) as first, Client(server.addresses[0]) as second:
            first.send(GET_GATE)
            until(lambda: is_phase(server, write=1))
            status, headers, _ = second.send(GET).response()
            assert (status, headers['retry-after']) == (503, '1')
            assert second.is_closed()
            gate.is_open.set()
            assert first.response()[2] == b'through\n'
        assert ask(server)[0] == 200


def test_answer_that_is_not_read_makes_room_for_another():
    limits = web.Limits(requests=1, stalled_seconds=0.1)
    with serving(limits) as server, Client(server.addresses[0]) as stuck:
        stuck.send(GET_BIG)
        until(lambda: is_phase(server, write=1))
        until(lambda: ask(server)[0] == 200)
        assert server.statistics().dropped['stalled'] == 1


def test_limits_leave_room_for_newcomers():
    with pytest.raises(ValueError, match='no room'):
        web.Limits(connections=100)


# --- handlers ---------------------------------------------------------------------


def test_slow_handler_does_not_hold_up_others():
    with Gate() as gate, serving(None, gate.routes) as server:
        with Client(server.addresses[0]) as waiting:
            waiting.send(GET_GATE)
            until(lambda: is_phase(server, write=1))
            assert ask(server)[0] == 200
            gate.is_open.set()
            assert waiting.response()[2] == b'through\n'


def test_client_that_does_not_wait_for_a_slow_answer_is_forgotten(caplog):
    with Gate() as gate, serving(None, gate.routes) as server:
        with Client(server.addresses[0]) as client:
            client.send(GET_GATE)
            until(lambda: is_phase(server, write=1))
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        until(lambda: is_phase(server, write=0))
        gate.is_open.set()
        assert ask(server)[0] == 200
    assert not caplog.records


def test_nothing_is_done_for_who_leaves_before_a_worker_is_free():
    with Gate() as gate, serving(None, gate.routes) as server, contextlib.ExitStack() as stack:
        workers = 2
        for number in range(workers):
            stack.enter_context(Client(server.addresses[0])).send(GET_GATE)
            until(lambda: gate.calls == number + 1)  # noqa: B023 - runs at once
        with Client(server.addresses[0]) as client:
            client.send(GET_GATE)
            until(lambda: is_phase(server, write=workers + 1))
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        until(lambda: is_phase(server, write=workers))
        # The job is taken back one turn of the loop later.
        assert ask(server)[0] == 200
        gate.is_open.set()
        assert ask(server, GET_GATE)[0] == 200
        assert gate.calls == workers + 1


@pytest.mark.parametrize('is_slow', [False, True])
def test_exception_is_a_500_that_tells_nothing_and_is_logged_once_per_change(caplog, is_slow):
    caplog.set_level(logging.INFO, 'oie.web.register')
    error: list[type[Exception]] = [KeyError]

    def fail(request: web.Request) -> web.Response:
        if error:
            raise error[0]('secret')
        return text('fine')

    with serving(None, {'/hello': {'GET': web.Route(fail, is_slow)}}) as server:
        with Client(server.addresses[0]) as client:
            for _ in range(3):
                assert client.send(GET).response()[::2] == (500, b'Internal Server Error\n')
            error[0] = OSError
            assert client.send(GET).response()[0] == 500
            error.clear()
            assert [client.send(GET).response()[0] for _ in range(2)] == [200, 200]
        assert server.statistics().requests == {('/hello', '5xx'): 4, ('/hello', '2xx'): 2}
    assert [(record.levelname, bool(record.exc_info)) for record in caplog.records] == [
        ('ERROR', True),
        ('ERROR', True),
        ('INFO', False),
    ]


def test_handler_may_refuse_with_a_text_of_its_own(caplog):
    def refuse(request: web.Request) -> web.Response:
        raise web.RequestError(400, 'no collector of this name')

    with serving(None, {'/hello': {'GET': web.Route(refuse)}}) as server:
        assert ask(server) == (400, b'no collector of this name\n')
    assert not caplog.records


def test_header_that_would_break_the_head_becomes_a_500():
    def inject(request: web.Request) -> web.Response:
        return text('', Location=f'/{request.query}\r\nSet-Cookie: a')

    with serving(None, {'/hello': {'GET': web.Route(inject)}}) as server:
        assert ask(server)[0] == 500


@pytest.mark.parametrize(
    'arguments',
    [
        {'status': 999},
        {'content_type': 'text/plain\nX: y'},
        {'headers': (('X', 'a\r\nb'),)},
        {'headers': (('X: y', 'a'),)},
        {'headers': (('X', '\u20ac'),)},
    ],
)
def test_response_that_cannot_be_sent_cannot_be_made(arguments):
    with pytest.raises(ValueError, match='.'):
        web.Response(**arguments)


@pytest.mark.parametrize(
    ('accepted', 'answer'),
    [
        ('gzip', True),
        ('deflate, GZIP;q=0.5', True),
        ('gzip; q=1.0, *', True),
        ('gzip;q=0', False),
        ('gzip ; q=0.000, identity', False),
        ('gzipped', False),
        ('*', False),
        ('', False),
    ],
)
def test_gzip_is_for_those_who_ask_for_it(accepted, answer):
    request = web.Request(method='GET', path='/', headers={'accept-encoding': accepted})
    assert request.accepts_gzip() is answer


def test_parameters_are_decoded():
    request = web.Request(method='GET', path='/', query='collect[]=cpu&collect%5B%5D=disk&x=')
    assert request.parameters() == {'collect[]': ['cpu', 'disk'], 'x': ['']}


def test_too_many_parameters_are_400():
    request = web.Request(method='GET', path='/', query='&'.join(['a=1'] * 101))
    with pytest.raises(web.RequestError) as caught:
        request.parameters()
    assert caught.value.status == 400


def test_statistics_count_by_path_and_class_and_are_a_copy():
    with serving() as server:
        before = server.statistics()
        ask(server)
        ask(server, GET.replace(b'GET', b'PUT'))
        ask(server, GET.replace(b'hello', b'made-up'))
        ask(server, b'nonsense\r\n\r\n')
        assert server.statistics().requests == {
            ('/hello', '2xx'): 1,
            ('/hello', '4xx'): 1,
            ('', '4xx'): 2,
        }
        assert before.requests == {}
        until(lambda: not any(server.statistics().connections.values()))


# --- listeners ----------------------------------------------------------------------


def test_listeners_have_routes_of_their_own(tmp_path):
    path = str(tmp_path / 'oie.sock')
    other: web.Routes = {'/other': {'GET': HELLO}}
    listeners = web.TcpListener('127.0.0.1', 0, ROUTES), web.UnixListener(path, other)
    with serving(None, {}, *listeners) as server:
        assert ask(server)[0] == 200
        with Client(server.addresses[1]) as client:
            assert client.send(GET).response()[0] == 404
            assert client.send(GET.replace(b'hello', b'other')).response()[0] == 200


def test_ipv6_is_served():
    try:
        with socket.create_server(('::1', 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip('this machine has no IPv6 loopback address')
    with serving(None, {}, web.TcpListener('::1', 0, ROUTES)) as server:
        assert server.addresses[0].startswith('[::1]:')
        assert ask(server)[0] == 200


@pytest.mark.parametrize(
    ('written', 'parsed'),
    [
        ('127.0.0.1:9120', ('127.0.0.1', 9120)),
        ('[::1]:9120', ('::1', 9120)),
        ('compute-1.example:0', ('compute-1.example', 0)),
    ],
)
def test_address_is_parsed(written, parsed):
    assert web.parse_address(written) == parsed


@pytest.mark.parametrize(
    'written', ['', '9120', ':9120', '::1:9120', '[::1]', '[]:1', 'x:65536', 'x:-1', 'x:1\n']
)
def test_what_is_not_an_address_is_refused(written):
    with pytest.raises(exceptions.WebError, match='write HOST:PORT'):
        web.parse_address(written)


def test_taken_address_is_one_clear_error_and_nothing_stays_bound(server, tmp_path):
    path = tmp_path / 'oie.sock'
    host, port = web.parse_address(server.addresses[0])
    listeners = [web.UnixListener(str(path), ROUTES), web.TcpListener(host, port, ROUTES)]
    second = web.Server(listeners)
    with pytest.raises(exceptions.WebError) as caught:
        second.start()
    assert str(caught.value) == f'cannot listen on {host}:{port}: Address already in use'
    assert not path.exists()
    second.stop()


def test_unknown_host_is_one_clear_error():
    with pytest.raises(exceptions.WebError, match=r'cannot listen on 192\.0\.2\.1:0: '):
        web.Server([web.TcpListener('192.0.2.1', 0, ROUTES)]).start()


def unix_server(path: pathlib.Path, **more: object) -> web.Server:
    return web.Server([web.UnixListener(str(path), ROUTES, **more)])  # type: ignore[arg-type]


def test_unix_socket_has_its_mode_and_group_and_directory(tmp_path):
    path = tmp_path / 'run' / 'oie.sock'
    group = grp.getgrgid(os.getgid()).gr_name
    mask = os.umask(0o077)
    try:
        server = unix_server(path, group=group, mode=0o666)
        server.start()
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    assert path.stat().st_gid == os.getgid()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    assert ask(server)[0] == 200
    server.stop()
    assert not path.exists()


def test_unix_peer_is_known_and_may_be_turned_away(tmp_path):
    seen = []

    def authorize(peer: web.Peer) -> bool:
        seen.append(peer)
        return len(seen) > 1

    listener = web.UnixListener(str(tmp_path / 'oie.sock'), ROUTES, authorize)
    with serving(None, {}, listener) as server:
        assert ask(server) == (403, b'Forbidden\n')
        assert ask(server) == (200, b'hello\n')
    ours = web.Peer('unix', os.getpid(), os.getuid(), os.getgid(), frozenset(os.getgroups()))
    assert seen == [ours] * 2


PEER = """
import os, socket, sys
os.setgroups(range(5000, 5000 + int(sys.argv[1])))
os.setgid(4712)
os.setuid(4711)
peer = socket.socket(socket.AF_UNIX)
peer.connect('oie.sock')
peer.sendall(b'GET /hello HTTP/1.0' + 2 * b'\\r\\n')
peer.recv(1)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can join groups')
@pytest.mark.parametrize(
    ('count', 'known'),
    [(0, range(0)), (3, range(5000, 5003)), (256, range(5000, 5256)), (257, ())],
)
def test_the_kernel_tells_the_groups_of_a_unix_peer(tmp_path, count, known):
    """Not /proc, where a peer in another PID namespace is not seen, nor one that has ended."""
    seen = []
    tmp_path.chmod(0o755)
    path = str(tmp_path / 'oie.sock')
    listener = web.UnixListener(path, ROUTES, lambda peer: not seen.append(peer), mode=0o666)
    with serving(None, {}, listener):
        # It need not see the directories above.
        peer = [sys.executable, '-c', PEER, str(count)]
        subprocess.run(peer, cwd=tmp_path, check=True, timeout=20)
    [peer] = seen
    assert (peer.uid, peer.gid, peer.groups) == (4711, 4712, frozenset(known))


def test_second_instance_on_the_same_socket_is_refused(tmp_path):
    path = tmp_path / 'oie.sock'
    with serving(None, {}, web.UnixListener(str(path), ROUTES)) as server:
        with pytest.raises(exceptions.WebError, match=f'{path} is served by a running process'):
            unix_server(path).start()
        assert ask(server)[0] == 200


def test_busy_instance_counts_as_running(tmp_path):
    path = tmp_path / 'oie.sock'
    with socket.socket(socket.AF_UNIX) as busy, contextlib.ExitStack() as stack:
        busy.bind(str(path))
        busy.listen(0)
        for _ in range(2):  # a queue of 0 takes one
            peer = stack.enter_context(socket.socket(socket.AF_UNIX))
            peer.setblocking(False)
            full = peer.connect_ex(str(path))
        assert full == errno.EAGAIN
        with pytest.raises(exceptions.WebError, match='is served'):
            unix_server(path).start()


def test_socket_that_nobody_serves_is_replaced(tmp_path):
    path = tmp_path / 'oie.sock'
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with serving(None, {}, web.UnixListener(str(path), ROUTES)) as server:
        assert ask(server)[0] == 200


def test_file_that_is_not_a_socket_is_left_alone(tmp_path):
    path = tmp_path / 'oie.sock'
    path.write_text('precious')
    with pytest.raises(exceptions.WebError, match='is not a socket'):
        unix_server(path).start()
    assert path.read_text() == 'precious'


def test_socket_of_somebody_else_is_not_removed_at_stop(tmp_path):
    path = tmp_path / 'oie.sock'
    with serving(None, {}, web.UnixListener(str(path), ROUTES)):
        path.unlink()
        path.write_text('of somebody else')
    assert path.read_text() == 'of somebody else'


@pytest.mark.parametrize(
    ('name', 'more', 'message'),
    [
        ('oie.sock', {'group': 'no-such-group'}, "there is no group 'no-such-group'"),
        ('a/b/oie.sock', {}, 'No such file or directory'),
        ('a' * 200, {}, 'AF_UNIX path too long'),
    ],
)
def test_socket_that_cannot_be_made_is_one_clear_error(tmp_path, name, more, message):
    with pytest.raises(exceptions.WebError, match=message):
        unix_server(tmp_path / name, **more).start()
    assert list(tmp_path.iterdir()) == []


# --- stop -------------------------------------------------------------------------


def test_stop_does_not_wait_for_idle_silent_or_half_heads():
    with serving() as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(server.addresses[0])) for _ in range(3)]
        clients[0].send(GET).response()
        clients[1].send(b'GET')
        start = time.monotonic()
        server.stop()
        assert time.monotonic() - start < 3
        assert all(client.is_closed() for client in clients)


def test_stop_ends_in_time_while_a_client_is_stuck():
    threads = threading.active_count()
    with serving() as server, Client(server.addresses[0]) as client:
        client.send(GET_BIG)
        until(lambda: is_phase(server, write=1))
        start = time.monotonic()
        server.stop(0.5)
        assert time.monotonic() - start < 2
        assert threading.active_count() == threads


def test_stop_ends_in_time_while_a_slow_handler_hangs(caplog):
    threads = threading.active_count()
    with Gate() as gate, serving(None, gate.routes) as server:
        with Client(server.addresses[0]) as client:
            client.send(GET_GATE)
            until(lambda: is_phase(server, write=1))
            start = time.monotonic()
            server.stop(0.5)
            assert time.monotonic() - start < 2
            assert client.is_closed()
        gate.is_open.set()
        until(lambda: threading.active_count() == threads)
    assert not caplog.records


def is_refused(address: tuple[str, int]) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(address) != 0


def test_stop_lets_an_answer_finish_and_takes_no_more():
    with (
        Gate() as gate,
        serving(None, gate.routes) as server,
        Client(server.addresses[0]) as client,
    ):
        address = web.parse_address(server.addresses[0])
        client.send(GET_GATE)
        until(lambda: is_phase(server, write=1))
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        until(lambda: is_refused(address))
        gate.is_open.set()
        assert client.response()[2] == b'through\n'
        stopping.join(PATIENCE)
        assert not stopping.is_alive()


def test_stop_gives_up_on_a_handler_that_holds_the_loop(caplog):
    gate = threading.Event()

    def hang(request: web.Request) -> web.Response:
        gate.wait(PATIENCE)
        return text('')

    server = web.Server([web.TcpListener('127.0.0.1', 0, {'/hello': {'GET': web.Route(hang)}})])
    server.start()
    with Client(server.addresses[0]) as client:
        client.send(GET)
        until(lambda: is_phase(server, write=1))
        server.stop(0.1)
        gate.set()
    assert 'gave up' in caplog.text


def test_stop_twice_or_without_start_does_nothing():
    server = web.Server([web.TcpListener('127.0.0.1', 0, ROUTES)])
    server.stop()
    server.start()
    server.stop()
    server.stop()


def test_address_can_be_used_again_at_once():
    with serving() as server:
        host, port = web.parse_address(server.addresses[0])
        ask(server)
    with serving(None, {}, web.TcpListener(host, port, ROUTES)) as server:
        assert ask(server)[0] == 200


def test_group_is_found_by_name_and_by_number():
    group = grp.getgrall()[0]
    assert web.group_id(group.gr_name) == group.gr_gid
    assert web.group_id('4711') == 4711
    with pytest.raises(exceptions.WebError, match=r"there is no group 'oie-nobody'"):
        web.group_id('oie-nobody')
