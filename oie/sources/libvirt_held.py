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
"""Requests to one domain after the other, in bounded calls that tell at whom they hang.

libvirtd locks a domain while it looks into the image of a disk that is being attached (libvirt
9.0.0). While that storage hangs, so does every question to this domain, also what needs no
monitor, and every listing, because it locks the domains one by one. The others answer at once.
"""

from collections.abc import Callable
import queue
import time
from typing import Any
from typing import NamedTuple
from typing import TypeVar

from oie import exceptions
from oie.sources import breaker as breakers
from oie.sources import calls
from oie.sources import libvirt_connection

T = TypeVar('T')


class Progress:
    """Whom a series of requests is at, since when, and whether anybody waits for it."""

    def __init__(self) -> None:
        self.is_abandoned = False
        self.at = '', time.monotonic()

    def ask(self, uuid: str = '') -> None:
        """Note who is asked next: this domain, or nobody in particular."""
        # In one step: the thread that waits reads it meanwhile.
        self.at = uuid, time.monotonic()


class _Stuck(NamedTuple):
    """A call, and the connection that it was made on."""

    call: calls.Call[Any]
    connection: libvirt_connection.Connection

    @property
    def is_awaited(self) -> bool:
        return self.connection.awaits(self.call)


class HeldDomains:
    """Makes series of requests, and remembers the domains that held one up.

    :param breaker: gets them as suspects
    :param timeout: seconds a series may take
    :param patience: seconds it may be at one domain
    """

    def __init__(
        self, bounded: calls.Calls, breaker: breakers.Breaker, *, timeout: float, patience: float
    ) -> None:
        self._calls = bounded
        self._breaker = breaker
        self._timeout = timeout
        self._patience = min(timeout, patience)
        self._stuck: dict[str, _Stuck] = {}
        self._shared: _Stuck | None = None
        self._probe: _Stuck | None = None

    @property
    def uuids(self) -> frozenset[str]:
        """The domains that are not to be asked anything: a call to them has not returned."""
        self._stuck = {uuid: one for uuid, one in self._stuck.items() if one.is_awaited}
        return frozenset(self._stuck)

    @property
    def is_shared_late(self) -> bool:
        """Whether a question to several at once hangs, so that nobody could be named."""
        return self._shared is not None and self._shared.is_awaited

    def run(
        self,
        name: str,
        connection: libvirt_connection.Connection,
        function: Callable[[Progress], T],
        *,
        beside: libvirt_connection.Connection,
    ) -> T | None:
        """Return what a series of requests gave; None if it hangs at a domain, which is now held.

        :param connection: the open one that the requests go through
        :param beside: the one that tells whether it is the daemon that hangs
        :raises SourceTimeout: it is late, and not because of one domain
        :raises SourceError: too many calls are in flight
        """
        progress, returned = Progress(), queue.SimpleQueue[calls.Call[T]]()
        call = self._calls.start(name, lambda _call: function(progress), returned.put)
        connection.pending.append(call)
        hung_at = self._wait(progress, returned)
        if call.has_returned:
            return call.result()
        progress.is_abandoned = call.is_abandoned = True
        self._calls.count_timeout(name)
        is_domain = hung_at is not None and self.is_answering(beside)
        if is_domain and hung_at:
            self._stuck[hung_at] = _Stuck(call, connection)
            self._breaker.trip(hung_at, call)
            return None
        if is_domain:
            self._shared = _Stuck(call, connection)
        raise exceptions.SourceTimeout(f'{name} has not returned after {self._timeout:g} s')

    def is_answering(self, connection: libvirt_connection.Connection) -> bool:
        """Whether the daemon itself answers: a question that is about no domain.

        :param connection: one on which no call hangs, if possible: when keepalive ends one
            with two such calls, libvirt loses the second one or crashes (9.0.0)
        """
        if self._probe is not None and self._probe.is_awaited:
            return False
        handle = connection.get(self._timeout)
        if not self._calls.free:
            return True  # nothing speaks against it
        call = self._calls.start('probe', lambda _call: handle.getLibVersion())
        connection.pending.append(call)
        self._probe = _Stuck(call, connection)
        try:
            call.wait(self._patience)
        except exceptions.SourceTimeout:
            self._calls.count_timeout('probe')
            return False
        return True

    def _wait(
        self, progress: Progress, returned: 'queue.SimpleQueue[calls.Call[T]]'
    ) -> str | None:
        """Wait until the series is back; return at which domain it hangs, None if it does not."""
        deadline = time.monotonic() + self._timeout
        while True:
            uuid, since = at = progress.at
            now = time.monotonic()
            until = since + self._patience if uuid else max(deadline, since + self._patience)
            try:
                returned.get(timeout=max(0.0, min(self._patience, until - now)))
            except queue.Empty:
                if progress.at is at and time.monotonic() >= until:
                    return uuid
                if progress.at is at or now < deadline:
                    continue
            return None
