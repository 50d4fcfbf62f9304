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

"""Blocking calls that may never return, bounded in number and in waiting time.

A call into libvirt cannot be interrupted: when QEMU does not answer, neither
does the call, and it holds one of libvirtd's workers even after our death
(libvirt 9.0.0, QEMU stopped by signal). So few threads make all calls, waiting
for them ends at a deadline, and a late call keeps its place until it returns.
"""

import collections
from collections.abc import Callable
from collections.abc import Mapping
import queue
import threading
import time
from typing import Any
from typing import Generic
from typing import TypeVar
import weakref

from oie import exceptions
from oie import model

T = TypeVar('T')

# A thread that waits on a connection also sends what others ask there. It loses a request that
# comes within microseconds of an answer, until the next keepalive message wakes it: 10 of 39
# beside a stuck call, none of 1500 after 0.2 ms (libvirt 9.0.0, two CPUs, November 2026).
PAUSE = 0.001

# All that are in use, for the report of what the process is doing.
_POOLS: 'weakref.WeakSet[Calls]' = weakref.WeakSet()


class Call(Generic[T]):
    """One call under way; the caller may stop waiting, the call goes on."""

    def __init__(self, name: str, function: Callable[['Call[T]'], T]) -> None:
        self.name = name
        self.started = time.monotonic()
        self.is_abandoned = False
        self._function: Callable[[Call[T]], T] | None = function
        self._returned = threading.Event()
        self._on_return: Callable[[Call[T]], None] | None = None
        self._result: T
        self._error: BaseException | None = None

    @property
    def has_returned(self) -> bool:
        """Whether the call is over, well or not."""
        return self._returned.is_set()

    def wait(self, timeout: float) -> T:
        """Return the result; past the timeout leave the call behind.

        :raises SourceTimeout: the call has not returned in time
        """
        if not self._returned.wait(timeout):
            self.is_abandoned = True
            raise exceptions.SourceTimeout(f'{self.name} has not returned after {timeout:g} s')
        return self.result()

    def result(self) -> T:
        """Return what a call that is over gave, or raise what it raised."""
        if self._error is not None:
            raise self._error
        return self._result

    def _run(self) -> None:
        # Whoever keeps the call does not keep alive what the function worked on.
        function, self._function = self._function, None
        assert function is not None  # noqa: S101, it runs once
        try:
            self._result = function(self)
        except BaseException as exc:
            self._error = exc


class Calls:
    """At most ``limit`` calls in flight, made by as many threads.

    The threads are daemons: a call that never returns does not hold up the end
    of the program.

    :param name: how the names of the threads begin
    """

    def __init__(self, limit: int, name: str = 'oie-call') -> None:
        self.limit = limit
        self._name = name
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[Call[Any] | None] = queue.SimpleQueue()
        self._in_flight: set[Call[Any]] = set()
        self._threads = 0
        self._is_closed = False
        self._statistics: dict[str, model.CallStatistics] = {}
        self._timeouts: collections.Counter[str] = collections.Counter()
        _POOLS.add(self)

    @property
    def free(self) -> int:
        """How many more calls may be started now."""
        with self._lock:
            return self.limit - len(self._in_flight)

    @property
    def stuck(self) -> int:
        """How many calls nobody waits for any more are still under way."""
        with self._lock:
            return sum(call.is_abandoned for call in self._in_flight)

    def under_way(self) -> list[tuple[str, Call[Any]]]:
        """Return the calls that have not returned, the oldest first, with the name of the pool."""
        with self._lock:
            found = [(self._name, call) for call in self._in_flight]
        return sorted(found, key=lambda pair: pair[1].started)

    def start(
        self,
        name: str,
        function: Callable[[Call[T]], T],
        on_return: Callable[[Call[T]], None] | None = None,
    ) -> Call[T]:
        """Start a call in a thread of its own.

        :param function: gets the call, so that a long one can see that it was
            abandoned and stop
        :param on_return: called in that thread when the call is over; it must
            not raise
        :raises SourceError: ``limit`` calls are in flight already, or closed
        """
        call = Call(name, function)
        call._on_return = on_return
        with self._lock:
            if self._is_closed:
                raise exceptions.SourceError(f'{name} not started: no more calls')
            if len(self._in_flight) >= self.limit:
                raise exceptions.SourceError(
                    f'{name} not started: {self.limit} calls have not returned yet'
                )
            if self._threads == len(self._in_flight):
                self._add_thread()
            self._in_flight.add(call)
        self._queue.put(call)
        return call

    def close(self) -> None:
        """Start no more calls; the threads end with those that are under way."""
        with self._lock:
            self._is_closed = True
            for _ in range(self._threads):
                self._queue.put(None)

    def pace(self) -> None:
        """Wait a moment before a request to libvirt, while other calls are under way.

        To be called by calls, before each request of a series.
        """
        with self._lock:
            is_alone = len(self._in_flight) < 2
        if not is_alone:
            time.sleep(PAUSE)

    def run(self, name: str, function: Callable[[Call[T]], T], timeout: float) -> T:
        """Start a call and wait for it.

        :raises SourceTimeout: it has not returned in time
        :raises SourceError: too many calls are in flight
        """
        call = self.start(name, function)
        try:
            return call.wait(timeout)
        except exceptions.SourceTimeout:
            self.count_timeout(name)
            raise

    def count_timeout(self, name: str) -> None:
        """Note that somebody stopped waiting for a call of this name."""
        with self._lock:
            self._timeouts[name] += 1

    def statistics(self) -> Mapping[str, model.CallStatistics]:
        """Return count, seconds and timeouts by name since the start."""
        with self._lock:
            known = dict(self._statistics)
            late = dict(self._timeouts)
        for name, timeouts in late.items():
            done = known.get(name, model.CallStatistics())
            known[name] = model.CallStatistics(
                count=done.count, seconds=done.seconds, timeouts=timeouts
            )
        return known

    def _add_thread(self) -> None:
        name = f'{self._name}-{self._threads + 1}'
        try:
            threading.Thread(target=self._work, name=name, daemon=True).start()
        except RuntimeError as exc:
            raise exceptions.SourceError(f'no thread {name} for a call: {exc}') from exc
        self._threads += 1

    def _work(self) -> None:
        while True:
            call = self._queue.get()
            if call is None:
                return
            call._run()
            self._finish(call)
            del call  # else its result lives until the next one comes

    def _finish(self, call: Call[Any]) -> None:
        seconds = time.monotonic() - call.started
        with self._lock:
            self._in_flight.discard(call)
            done = self._statistics.get(call.name, model.CallStatistics())
            self._statistics[call.name] = model.CallStatistics(
                count=done.count + 1, seconds=done.seconds + seconds
            )
        call._returned.set()
        if call._on_return is not None:
            call._on_return(call)


def under_way() -> list[tuple[str, Call[Any]]]:
    """Return the calls of all pools that have not returned, with the names of their pools."""
    return [found for pool in list(_POOLS) for found in pool.under_way()]
