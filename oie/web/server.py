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

"""Serves listeners in a thread of its own, from start() to stop()."""

import asyncio
from collections.abc import Sequence
import concurrent.futures
import functools
import ipaddress
import logging
import socket
import threading

from oie import exceptions
from oie.web import connection
from oie.web import limits as web_limits
from oie.web import listeners as web_listeners
from oie.web import register

LOG = logging.getLogger(__name__)

SLOW_WORKERS = 2


class Server:
    """One thread with one asyncio loop, in which no peer can hold up another.

    A connection is always in one phase, and every phase ends at a deadline that no byte
    prolongs. Those that are answered or idle are fewer than all that are let in, so that a
    newcomer always finds a place: that of the peer which has been sending a request for longest.
    """

    def __init__(
        self,
        listeners: Sequence[web_listeners.Listener],
        limits: web_limits.Limits | None = None,
    ) -> None:
        self._listeners = listeners
        self._register = register.Register(limits or web_limits.Limits())
        self._bound: list[web_listeners.Bound] = []
        self._is_public = False
        self._thread: threading.Thread | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the server listens, with the ports that the kernel chose."""
        return tuple(bound.address for bound in self._bound)

    @property
    def is_running(self) -> bool:
        """Whether its thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def is_public(self) -> bool:
        """Return whether one of the addresses can be reached from other hosts."""
        return self._is_public

    def statistics(self) -> register.Statistics:
        """Return a copy of the counters; any thread may ask."""
        return self._register.statistics()

    def start(self) -> None:
        """Bind in this thread, serve in another.

        :raises WebError: one of the addresses cannot be had; then none is kept
        """
        self._bound = []
        try:
            for listener in self._listeners:
                self._bound.append(_bind(listener))
        except exceptions.WebError:
            for bound in self._bound:
                bound.release()
                bound.socket.close()
            raise
        self._is_public = any(_is_public(bound.socket) for bound in self._bound)
        self._loop = asyncio.new_event_loop()
        self._stopping: asyncio.Future[float] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name='oie-web', daemon=True)
        self._thread.start()
        LOG.info('listening on %s', ', '.join(self.addresses))

    def stop(self, timeout: float = 5.0) -> None:
        """Stop listening, finish the answers under way, end within the seconds given."""
        if self._thread is None:
            return
        self._loop.call_soon_threadsafe(self._stopping.set_result, timeout * 0.8)
        self._thread.join(timeout)
        if self._thread.is_alive():
            LOG.error('a handler holds the web server: gave up on it after %s s', timeout)
        self._thread = None

    def _run(self) -> None:
        workers = concurrent.futures.ThreadPoolExecutor(SLOW_WORKERS, 'oie-web-slow')
        try:
            self._loop.run_until_complete(self._serve(workers))
        finally:
            workers.shutdown(wait=False, cancel_futures=True)
            for listener in self._listeners:
                if listener.guard is not None:
                    listener.guard.close()
            self._loop.close()

    async def _serve(self, workers: concurrent.futures.Executor) -> None:
        servers = []
        for listener, bound in zip(self._listeners, self._bound, strict=True):
            factory = functools.partial(connection.Connection, listener, self._register, workers)
            servers.append(
                await self._loop.create_server(
                    factory, sock=bound.socket, backlog=web_listeners.BACKLOG
                )
            )
        grace = await self._stopping
        deadline = self._loop.time() + grace
        for bound in self._bound:
            bound.release()
            self._loop.remove_reader(bound.socket)
        # Python 3.11 leaks a socket whose transport is made after the close of its server.
        while accepting := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(accepting)
        for server in servers:
            server.close()
        await self._drain(deadline)

    async def _drain(self, deadline: float) -> None:
        answered = self._register.phases[register.Phase.WRITE]
        for member in self._register.members():
            if member not in answered:
                member.close()
        while answered and self._loop.time() < deadline:
            await asyncio.sleep(0.01)
        for member in self._register.members():
            member.close()
        await asyncio.sleep(0)  # the round of the loop in which the transports close


def _is_public(listening: socket.socket) -> bool:
    if listening.family == socket.AF_UNIX:
        return False
    return not ipaddress.ip_address(listening.getsockname()[0].partition('%')[0]).is_loopback


def _bind(listener: web_listeners.Listener) -> web_listeners.Bound:
    try:
        return listener.bind()
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise exceptions.WebError(f'cannot listen on {listener.address}: {reason}') from exc
