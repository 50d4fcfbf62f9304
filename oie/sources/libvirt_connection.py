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

"""A read-only libvirt connection that is opened, watched and opened again.

Facts behind this file (libvirt 9.0.0): ``open`` hangs for ever on a stopped
daemon; keepalive needs a running event loop; ``isAlive`` only says that the
socket is believed open; after a restart of the daemon every domain object of
the old connection is dead.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import logging
import random
import threading
import time
from typing import Any
from typing import NamedTuple

from oie import exceptions
from oie import failures
from oie.sources import calls

LOG = logging.getLogger(__name__)

FIRST_DELAY = 1.0
LONGEST_DELAY = 60.0
# Makes the event loop return now and then, else it may sleep for ever.
_TICK_MS = 5000
# Seconds for which the event loop may rest: far less than any keepalive interval.
_LONGEST_REST = 0.25
# Calls that must stay possible when a broken connection is let go.
_RESERVED = 2

Opener = Callable[[Callable[[], None]], tuple[Any, Callable[[], None]]]

_loop_lock = threading.Lock()
_loop_started = False
# Cleared while somebody makes many short requests in a row.
_quiet = threading.Event()
_quiet.set()


def import_libvirt() -> Any:
    """Return libvirt's Python module, silenced: it prints every error to stderr.

    :raises SourceError: the module is not installed
    """
    try:
        import libvirt
    except ImportError as exc:
        raise exceptions.SourceError(
            f'the Python module libvirt is missing: {exc}; install libvirt-python'
        ) from exc
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    return libvirt


def start_event_loop(libvirt: Any) -> None:
    """Run libvirt's event loop in a daemon thread, once in a process.

    It must be registered before the first connection is opened.
    """
    global _loop_started
    with _loop_lock:
        if _loop_started:
            return
        libvirt.virEventRegisterDefaultImpl()
        libvirt.virEventAddTimeout(_TICK_MS, lambda _timer, _opaque: None, None)
        threading.Thread(
            target=_run_event_loop, args=(libvirt,), name='oie-libvirt-events', daemon=True
        ).start()
        _loop_started = True


@contextlib.contextmanager
def many_requests() -> Iterator[None]:
    """Let the event loop rest while the caller makes many short requests in a row.

    libvirt wakes it about four times for each of them, and it finds nothing to do: that and the
    switches between the threads were a quarter of what a cycle cost (libvirt 9.0.0, 100 domains).
    A request that hangs does not keep it from its work.
    """
    _quiet.clear()
    try:
        yield
    finally:
        _quiet.set()


def _run_event_loop(libvirt: Any) -> None:
    lasting = failures.LastingFailures(LOG)
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
            if not _quiet.wait(_LONGEST_REST):
                _quiet.set()
            lasting.settle('event loop of libvirt', 'failed')
        except Exception as exc:
            # Without this thread no keepalive runs and every call may hang for ever.
            lasting.report('event loop of libvirt', 'failed', exc)
            time.sleep(1)


class Connection:
    """One connection to the daemon, replaced when it broke.

    :param opener: opens a connection, given what libvirt is to call when it
        closes, and returns it with a function that undoes its callbacks; hangs
        and libvirtErrors are expected of both
    :param bounded: makes the blocking calls
    """

    def __init__(
        self,
        name: str,
        opener: Opener,
        bounded: calls.Calls,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.opened = 0
        self._opener = opener
        self._calls = bounded
        self._clock = clock
        self._handle: Any = None
        self._is_lost = threading.Event()
        self._opening: calls.Call[_Opened] | None = None
        self._release: Callable[[], None] = _nothing
        self._lost: list[Callable[[], None]] = []
        self._failures = 0
        self._next_attempt = 0.0
        self._error = ''
        self.pending: list[calls.Call[Any]] = []

    @property
    def is_open(self) -> bool:
        """Whether the connection is believed to work."""
        return self._handle is not None and not self._is_lost.is_set()

    @property
    def stuck(self) -> int:
        """How many calls on this connection were left behind and are not back."""
        self.pending = [call for call in self.pending if not call.has_returned]
        return sum(call.is_abandoned for call in self.pending)

    def awaits(self, call: calls.Call[Any] | None) -> bool:
        """Whether this call, made on this connection, may still return.

        When keepalive ends a connection with two calls on it, libvirt forgets the second one
        for ever (9.0.0).
        """
        return call is not None and not call.has_returned and call in self.pending

    def get(self, timeout: float) -> Any:
        """Return the open connection, opening it when it is due.

        :raises SourceError: it is not open; the text says why
        """
        if not self.is_open:
            self.lose('libvirt has closed it')
        self._let_go()
        if self._handle is not None:
            return self._handle
        if self._opening is None:
            if self._clock() < self._next_attempt:
                raise exceptions.SourceError(self._error)
            self._opening = self._calls.start('open', self._open)
        return self._await(self._opening, timeout)

    def lose(self, reason: object) -> None:
        """Note that the connection is broken; the next ``get`` opens another."""
        if self._handle is None:
            return
        LOG.warning('connection %s to libvirt is lost: %s', self.name, repr(str(reason))[1:-1])
        self._error = f'connection to libvirt is lost: {reason}'
        self._forget()

    def close(self) -> None:
        """Let go of the connection, without waiting for it."""
        if self._handle is not None:
            self._forget()
        self._let_go(reserved=0)

    def _forget(self) -> None:
        self._handle = None
        self.pending = []
        self._lost.append(self._release)
        self._release = _nothing

    def _let_go(self, reserved: int = _RESERVED) -> None:
        """Undo the callbacks of lost connections, each in a call of its own.

        libvirt-python keeps a connection alive for ever, its descriptor too, as
        long as callbacks are registered; undoing them may block like any call.
        """
        while self._lost and self._calls.free > reserved:
            self._undo(self._lost.pop())

    def _undo(self, release: Callable[[], None]) -> None:
        # Nobody waits for it: if it does not return it counts as stuck.
        self._calls.start('close', lambda _call: release()).is_abandoned = True

    def _await(self, opening: 'calls.Call[_Opened]', timeout: float) -> Any:
        try:
            opened = opening.wait(timeout)
        except exceptions.SourceTimeout as exc:
            self._calls.count_timeout('open')
            raise exceptions.SourceTimeout(
                f'libvirt does not let us in: {exc}; is the daemon stopped or overloaded?'
            ) from exc
        except Exception as exc:
            self._fail(exc)
            raise exceptions.SourceError(self._error) from exc
        return self._succeed(opened)

    def _open(self, _call: 'calls.Call[_Opened]') -> '_Opened':
        # One for each attempt: an old connection may close after a new one is open.
        is_lost = threading.Event()
        return _Opened(*self._opener(is_lost.set), is_lost)

    def _succeed(self, opened: '_Opened') -> Any:
        if self._failures or self.opened:
            LOG.warning('connection %s to libvirt is open again', self.name)
        self.opened += 1
        self._opening = None
        self._failures = 0
        self._error = ''
        self._handle, self._release, self._is_lost = opened
        return self._handle

    def _fail(self, exc: Exception) -> None:
        self._opening = None
        self._failures += 1
        self._error = f'cannot open a connection to libvirt: {exc}'
        # The exponent is bounded: after weeks without a daemon 2.0 ** n overflows.
        delay = min(FIRST_DELAY * 2.0 ** min(self._failures - 1, 16), LONGEST_DELAY)
        # Jitter, so that a fleet does not knock at the same instant; it is no secret.
        self._next_attempt = self._clock() + delay * random.uniform(0.5, 1.0)  # noqa: S311
        if self._failures == 1:
            LOG.error('%s; trying again with growing pauses', self._error)


class _Opened(NamedTuple):
    """A connection, what undoes its callbacks, and whether libvirt has closed it."""

    handle: Any
    release: Callable[[], None]
    is_lost: threading.Event


def _nothing() -> None:
    """Stand for the callbacks of a connection that is not open."""
