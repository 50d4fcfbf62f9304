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

"""One peer: phases with deadlines, requests in, ready bytes out."""

import asyncio
import concurrent.futures
import functools
import logging
import socket
import struct
from typing import cast
from typing import TYPE_CHECKING

import h11

from oie.web import listeners
from oie.web import messages
from oie.web import register as web_register
from oie.web import routes
from oie.web import wire

if TYPE_CHECKING:
    from oie.web import tls

LOG = logging.getLogger(__name__)

# Linux 4.13, asm-generic/socket.h; the module socket does not name it.
_SO_PEERGROUPS = 59
# The most that socket.getsockopt() fetches; a group takes four.
_GROUPS_BYTES = 1024
# What a peer that does not read costs us in memory, besides the buffers of the kernel.
WRITE_BYTES = 256 * 1024
_NOT_TLS = (
    b'HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n'
    b'this port speaks HTTPS, not HTTP\n'
)

Phase = web_register.Phase


class Connection(asyncio.Protocol):
    """A peer's connection; TLS is one more phase, before the first head."""

    def __init__(
        self,
        listener: listeners.Listener,
        register: web_register.Register,
        workers: concurrent.futures.Executor,
    ) -> None:
        self._listener = listener
        self._register = register
        self._limits = register.limits
        self._seconds = {
            Phase.HANDSHAKE: self._limits.handshake_seconds,
            Phase.HEAD: self._limits.head_seconds,
            Phase.BODY: self._limits.body_seconds,
            Phase.WRITE: self._limits.write_seconds,
            Phase.IDLE: self._limits.idle_seconds,
            Phase.LINGER: self._limits.linger_seconds,
        }
        self._workers = workers
        self._loop = asyncio.get_running_loop()
        self._parser = h11.Connection(h11.SERVER)
        self._phase: Phase | None = None
        self._buffer = bytearray()
        self._head: h11.Request | None = None
        self._tls: tls.Channel | None = None
        self._is_half_closed = False
        self._unsent: memoryview | None = None
        self._is_blocked = False
        self._job: asyncio.Future[messages.Response] | None = None

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with a handshake or a head."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=0)  # blocked = the kernel has not got all
        self._peer = _peer(self._transport)
        self._register.admit()
        guard = self._listener.guard
        self._tls = guard.channel() if guard else None
        if self._tls is None:
            self._enter(Phase.HEAD)
        else:
            self._enter(Phase.HANDSHAKE)
            self._register.limit_handshakes()

    def data_received(self, data: bytes) -> None:
        """Take what has come; nobody may send on and on while answered."""
        if self._phase is Phase.LINGER:
            return
        if self._tls is None:
            self._accept(data)
            return
        plain = self._decrypt(self._tls, data)
        ends = self._tls.is_ended and not self._is_half_closed
        self._is_half_closed |= ends
        if plain:
            self._accept(plain)
        elif ends and not self.eof_received():
            self._end()

    def _accept(self, data: bytes) -> None:
        self._buffer += data
        if self._phase is Phase.WRITE:
            self._transport.pause_reading()
        elif self._phase is Phase.IDLE:
            self._enter(Phase.HEAD)
        self._advance()

    def _decrypt(self, channel: 'tls.Channel', data: bytes) -> bytes:
        """Return the plain text; go on with the handshake, or give up."""
        try:
            plain = channel.receive(data)
        except messages.HandshakeError as exc:
            LOG.debug('%s: %s', self._peer.address, exc)
            self._register.dropped['tls_failed'] += 1
            self._transport.write(_NOT_TLS if exc.is_plain else channel.outgoing())
            self._transport.close()
            return b''
        self._transport.write(channel.outgoing())
        if self._phase is Phase.HANDSHAKE and channel.is_open:
            self._enter(Phase.HEAD)
        return plain

    def eof_received(self) -> bool:
        """Close, or go on writing to a peer that only has no more to ask."""
        self._is_half_closed = True
        self._advance()
        return self._phase in (Phase.HEAD, Phase.WRITE)

    def pause_writing(self) -> None:
        """Remember that the peer must read first."""
        self._is_blocked = True

    def resume_writing(self) -> None:
        """Write on."""
        self._is_blocked = False
        # Not at once: asyncio calls this before it looks whether the transport is closing. One
        # that is closed here would be closed a second time there, which is an error in the log.
        self._loop.call_soon(self._pump)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the peer."""
        self._unsent = None
        self._leave()
        if self._job is not None:
            self._job.cancel()

    # Phases.

    def _enter(self, phase: Phase) -> None:
        self._leave()
        self._phase = phase
        self._since = self._loop.time()
        self._register.phases[phase][self] = None
        self._deadline = self._loop.call_later(self._seconds[phase], self._expire, phase)

    def _leave(self) -> None:
        if self._phase is not None:
            del self._register.phases[self._phase][self]
            self._deadline.cancel()
            self._phase = None

    def _expire(self, phase: Phase) -> None:
        reason = f'{phase.value}_timeout'
        if phase is Phase.LINGER:
            self.close()
        elif phase is Phase.BODY or (phase is Phase.HEAD and self._buffer):
            self._refuse(messages.RequestError(408, reason=reason))
        else:
            self.drop(reason)

    def close(self) -> None:
        """Close at once, whatever is under way."""
        self._unsent = None
        self._leave()
        self._transport.abort()

    def drop(self, reason: str) -> None:
        """Close at once and count why."""
        self._register.dropped[reason] += 1
        self.close()

    def is_stalled(self) -> bool:
        """Return whether the peer has not read its answer for a while."""
        age = self._loop.time() - self._since
        return self._is_blocked and age >= self._limits.stalled_seconds

    # Requests.

    def _advance(self) -> None:
        """Answer the next request as soon as all of it has come."""
        if self._phase not in (Phase.HEAD, Phase.BODY):
            return
        try:
            request = self._receive()
            if request is not None:
                self._register.admit_request()
                self._answer(request)
            elif self._is_half_closed:
                self._end()
        except messages.RequestError as exc:
            self._refuse(exc)

    def _receive(self) -> messages.Request | None:
        """Return the request, None while it is incomplete."""
        if self._head is None:
            size = wire.head_size(self._buffer, self._limits)
            if not size:
                return None
            self._head = wire.parse_head(self._parser, self._take(size), self._limits)
        length = wire.body_length(self._head, self._limits)
        if len(self._buffer) < length:
            self._await_body()
            return None
        return wire.parse_request(self._parser, self._head, self._take(length), self._peer)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _await_body(self) -> None:
        if self._phase is Phase.BODY:
            return
        self._enter(Phase.BODY)
        if self._parser.they_are_waiting_for_100_continue and not self._buffer:
            go_on = h11.InformationalResponse(status_code=100, headers=[], reason=b'Continue')
            self._write(self._parser.send(go_on))

    # Answers.

    def _answer(self, request: messages.Request) -> None:
        self._enter(Phase.WRITE)
        guard = self._listener.guard
        verdict = guard.judge(request) if guard else None
        if isinstance(verdict, asyncio.Future):
            verdict.add_done_callback(functools.partial(self._answer_judged, request))
        elif verdict is not None:
            self._send(request.path, verdict)
        else:
            self._dispatch(request)

    def _answer_judged(self, request: messages.Request, verdict: 'asyncio.Future[bool]') -> None:
        guard = self._listener.guard
        if self._phase is not Phase.WRITE or guard is None:
            return
        if verdict.result():
            self._dispatch(request)
        else:
            self._send(request.path, guard.unauthorized())

    def _dispatch(self, request: messages.Request) -> None:
        if self._listener.authorize(request.peer):
            route = routes.find(self._listener.routes, request)
        else:
            route = routes.Route(lambda _: messages.sentence(403))
        if not route.is_slow_for(request):
            self._send(request.path, self._register.run(route, request))
            return
        run = functools.partial(self._register.run, route, request)
        self._job = self._loop.run_in_executor(self._workers, run)
        self._job.add_done_callback(functools.partial(self._send_result, request.path))

    def _send_result(self, path: str, job: 'asyncio.Future[messages.Response]') -> None:
        if self._phase is Phase.WRITE:
            self._send(path, job.result())

    def _send(self, path: str, response: messages.Response) -> None:
        """Write the head and the first part of the body, so that a small answer is one packet."""
        known = path if path in self._listener.routes else ''
        self._register.requests[known, f'{response.status // 100}xx'] += 1
        body = b'' if self._is_bodiless(response) else response.body
        guard = self._listener.guard
        more = guard.headers if guard else ()
        head = self._parser.send(wire.encode_head(response, more))
        self._parser.send_with_data_passthrough(h11.Data(data=body))  # it counts, we write
        self._parser.send(h11.EndOfMessage())
        self._head = None
        self._unsent = memoryview(body)[WRITE_BYTES:]
        self._write(b''.join((head, memoryview(body)[:WRITE_BYTES])))
        self._pump()

    def _is_bodiless(self, response: messages.Response) -> bool:
        is_head = self._head is not None and self._head.method == b'HEAD'
        return is_head or response.status in (204, 304)

    def _pump(self) -> None:
        """Write on while the peer reads; when all has gone, go on with the next request."""
        while self._unsent and not self._is_blocked:
            part, self._unsent = self._unsent[:WRITE_BYTES], self._unsent[WRITE_BYTES:]
            self._write(part)
        if self._unsent is not None and not self._is_blocked:
            self._unsent = None
            if self._phase is Phase.WRITE:
                self._finish()

    def _write(self, data: bytes | memoryview) -> None:
        if self._tls is None:
            self._transport.write(data)
            return
        try:
            self._transport.write(self._tls.encrypt(data))
        except messages.HandshakeError as exc:
            LOG.debug('%s: %s', self._peer.address, exc)
            self.drop('tls_failed')

    def _end(self) -> None:
        """Close as soon as all is written."""
        if self._tls is not None:
            self._transport.write(self._tls.end())
        self._transport.close()

    def _is_outdated(self) -> bool:
        guard = self._listener.guard
        return guard is not None and self._tls is not None and guard.is_outdated(self._tls)

    def _finish(self) -> None:
        if self._parser.our_state is not h11.DONE or self._parser.their_state is not h11.DONE:
            self._end()
            return
        self._parser.start_next_cycle()
        self._transport.resume_reading()
        if self._buffer or self._is_half_closed:
            self._enter(Phase.HEAD)
            self._loop.call_soon(self._advance)  # after the others: a pipeline must not hold us
        elif self._is_outdated():
            self._end()
        else:
            self._enter(Phase.IDLE)
            self._register.limit_idle()

    def _refuse(self, error: messages.RequestError) -> None:
        """Say why and take no more, but read on for a moment.

        Closing while the peer sends makes the kernel reset the connection, and the peer loses
        the answer (RFC 9112 section 9.6).
        """
        LOG.debug('%s: %s %r', self._peer.address, error, bytes(self._buffer[:100]))
        self._register.dropped[error.reason] += 1
        self._enter(Phase.LINGER)
        headers = [('Connection', 'close')]
        if error.status == 503:
            headers.append(('Retry-After', '1'))
        self._send('', messages.sentence(error.status, str(error), *headers))
        self._transport.resume_reading()
        if self._is_half_closed or not self._transport.can_write_eof():
            self._end()
        else:
            if self._tls is not None:
                self._transport.write(self._tls.end())
            self._transport.write_eof()


def _peer(transport: asyncio.Transport) -> messages.Peer:
    connected = transport.get_extra_info('socket')
    if connected.family == socket.AF_UNIX:
        size = struct.calcsize('iII')
        credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        pid, uid, gid = struct.unpack('iII', credentials)
        return messages.Peer('unix', pid, uid, gid, _groups(connected))
    name = transport.get_extra_info('peername')
    return messages.Peer(name[0] if name else 'unknown')


def _groups(connected: socket.socket) -> frozenset[int]:
    """Return the supplementary groups that a peer had when it connected.

    The kernel knows them also of a process in another PID namespace, or one that has ended.
    None is told of a peer with more than 256: its primary group has to do.
    """
    try:
        found = connected.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError as exc:
        LOG.debug('groups of a peer: %s', exc)
        return frozenset()
    return frozenset(number for (number,) in struct.iter_unpack('I', found))
