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
"""The daemon that manages the guests: our two connections to it, and its versions.

Never more than two: one to work on, which also brings the events, and one for
the rescue, opened when a call of the first one got stuck.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import logging
import time
from typing import Any

from oie import exceptions
from oie.sources import calls
from oie.sources import libvirt_connection
from oie.sources import libvirt_events

LOG = logging.getLogger(__name__)


class Daemon:
    """What stands behind a libvirt URI; opened when a connection is first asked for.

    ``libvirt`` is its Python module and ``is_plain`` says that bulk statistics
    hold only the state: both are known once a connection was opened.

    :param timeout: seconds after which a call that nobody waits for is late
    :param keepalive: seconds between two messages, and how many may be lost
    """

    def __init__(
        self, uri: str, bounded: calls.Calls, *, timeout: float, keepalive: tuple[int, int]
    ) -> None:
        self.libvirt: Any = None
        self.is_plain = False
        self.versions: Mapping[str, str] = {}
        self.events = libvirt_events.Events()
        self.main = libvirt_connection.Connection('main', self._open_main, bounded)
        self.rescue = libvirt_connection.Connection('rescue', self._open, bounded)
        self._uri = uri
        self._calls = bounded
        self._timeout = timeout
        self._keepalive = keepalive
        self._reading: calls.Call[None] | None = None

    def pick(self) -> tuple[libvirt_connection.Connection, libvirt_connection.Connection]:
        """Return the connection to work on and the one for the rescue."""
        if self.main.stuck > self.rescue.stuck:
            return self.rescue, self.main
        return self.main, self.rescue

    @property
    def both(self) -> tuple[libvirt_connection.Connection, libvirt_connection.Connection]:
        """Both connections."""
        return self.main, self.rescue

    def leave_late_calls(self) -> None:
        """Count the reading of the versions as stuck when it lasts: nobody waits for it."""
        reading = self._reading
        if reading is not None and time.monotonic() - reading.started > self._timeout:
            reading.is_abandoned = True

    def close(self) -> None:
        """Let go of both connections, without waiting for it."""
        self.main.close()
        self.rescue.close()

    # --- what errors mean ---------------------------------------------------

    def is_disconnect(self, exc: Exception) -> bool:
        """Whether an error is one of the connection, not of what was asked."""
        libvirt = self.libvirt
        if not isinstance(exc, libvirt.libvirtError):
            return False
        domains = (libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE)
        codes = (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_ERR_INTERNAL_ERROR)
        return exc.get_error_domain() in domains and exc.get_error_code() in codes

    def is_end_of_domain(self, exc: Exception) -> bool:
        """Whether an error says that a domain does not run any more."""
        libvirt = self.libvirt
        ended = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID)
        return isinstance(exc, libvirt.libvirtError) and exc.get_error_code() in ended

    def has_lost(self, handle: Any, exc: Exception) -> bool:
        """Whether a connection is gone after this error."""
        try:
            return self.is_disconnect(exc) or not handle.isAlive()
        except self.libvirt.libvirtError:
            return True

    # --- opening and letting go ---------------------------------------------

    def _open(self, on_close: Callable[[], None]) -> tuple[Any, Callable[[], None]]:
        """Open one connection with keepalive; runs in a bounded call."""
        libvirt = self.libvirt = libvirt_connection.import_libvirt()
        libvirt_connection.start_event_loop(libvirt)
        connection = libvirt.openReadOnly(self._uri)
        self._try('keepalive', connection.setKeepAlive, *self._keepalive)
        self.is_plain = connection.getType() != 'QEMU'
        # Last, because from here on libvirt-python keeps the connection for ever.
        watch = connection.registerCloseCallback
        self._try('close callback', watch, lambda *_: on_close(), None)
        return connection, lambda: self._release(connection, ())

    def _open_main(self, on_close: Callable[[], None]) -> tuple[Any, Callable[[], None]]:
        """Open the connection that also brings the events, each of them once."""
        connection, _ = self._open(on_close)
        numbers = self.events.register(self.libvirt, connection)
        try:
            self._reading = self._calls.start('facts', lambda _: self._read_versions(connection))
        except exceptions.SourceError as exc:
            LOG.debug('versions of libvirt are not read: %s', exc)
        return connection, lambda: self._release(connection, numbers)

    def _read_versions(self, connection: Any) -> None:
        """Note the versions; nobody waits, because libvirtd may first probe all of QEMU."""
        versions = {
            'libvirt_version': _version(connection.getLibVersion()),
            'type': connection.getType(),
            'hostname': connection.getHostname(),
        }
        self.versions = versions
        self.versions = {**versions, 'version': _version(connection.getVersion())}

    def _release(self, connection: Any, events: Iterable[int]) -> None:
        """Undo the callbacks of a connection, so that it can go.

        On a dead one libvirt says "client socket is closed", but does it.
        """
        for number in events:
            self._try('end of events', connection.domainEventDeregisterAny, number)
        self._try('end of the close callback', connection.unregisterCloseCallback)

    def _try(self, name: str, function: Callable[..., Any], *arguments: Any) -> None:
        try:
            function(*arguments)
        except self.libvirt.libvirtError as exc:
            LOG.debug('connection without %s: %s', name, exc)


def _version(number: int) -> str:
    """Return libvirt's version number (major * 10^6 + minor * 10^3 + release) as text."""
    return f'{number // 1000000}.{number // 1000 % 1000}.{number % 1000}'
