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
"""Who runs here: by a listing, and while libvirtd does not answer that, by what is known.

One domain that libvirtd does not let go of holds up every listing, see ``libvirt_held``. Then the
domains of the last listing, and those that an event told of since, are asked one by one.
"""

import collections
from collections.abc import Callable
from collections.abc import Mapping
import functools
import time
from typing import Any

from oie import exceptions
from oie import failures
from oie.sources import calls
from oie.sources import libvirt_connection
from oie.sources import libvirt_daemon
from oie.sources import libvirt_domains
from oie.sources import libvirt_held

Ask = Callable[[libvirt_held.Progress], libvirt_domains.Listing]

_UNLISTED = (
    'the domains cannot be listed, because libvirt does not answer for one of them; those that '
    'are known are read one by one, others may be missing'
)
_HELD = (
    'libvirt does not answer even what needs no monitor: is a disk being attached whose storage '
    'hangs? It is left alone until that call returns'
)


class ListingReader:
    """Lists the active domains and reads their tier one.

    A listing that never returns is one stuck call: there is no second one until it does.

    :ivar seconds: how long the last complete listing took
    :ivar listed_at: Unix time of it
    :param errors: counts what failed, by reason
    :param lasting: says once what cannot be read of a domain
    :param timeout: seconds a listing may take
    """

    def __init__(
        self,
        daemon: libvirt_daemon.Daemon,
        bounded: calls.Calls,
        domains: libvirt_domains.DomainReader,
        held: libvirt_held.HeldDomains,
        errors: collections.Counter[str],
        lasting: failures.LastingFailures,
        *,
        timeout: float,
    ) -> None:
        self.seconds: float | None = None
        self.listed_at: float | None = None
        self._daemon = daemon
        self._calls = bounded
        self._domains = domains
        self._held = held
        self._errors = errors
        self._failures = lasting
        self._timeout = timeout
        self._present: dict[str, Any] = {}
        self._listing: calls.Call[dict[str, Any]] | None = None

    def expect(self, started: Mapping[str, Any]) -> None:
        """Note that these domains have started.

        :param started: their handles by uuid
        """
        self._present.update(started)

    def read(
        self,
        connection: libvirt_connection.Connection,
        rescue: libvirt_connection.Connection,
    ) -> libvirt_domains.Listing:
        """Return the active domains, those that are known where there is no listing.

        :param rescue: tells, when a call is late, whether it is the daemon that hangs
        :raises SourceError: libvirt does not answer, or nothing is known
        """
        handle = connection.get(self._timeout)
        try:
            return self._read(connection, rescue, handle)
        except self._daemon.libvirt.libvirtError as exc:
            if self._daemon.has_lost(handle, exc):
                connection.lose(exc)
            raise exceptions.SourceError(f'cannot list the domains: {exc}') from exc

    def _read(
        self,
        connection: libvirt_connection.Connection,
        rescue: libvirt_connection.Connection,
        handle: Any,
    ) -> libvirt_domains.Listing:
        found = self._list(connection, handle)
        if found is None and not (self._present and self._held.is_answering(rescue)):
            raise exceptions.SourceTimeout('libvirt has not answered the last listing of domains')
        handles = self._present if found is None else found
        run = functools.partial(self._held.run, 'domains', connection, beside=rescue)
        listing = self._read_domains(run, handle, handles, is_listed=found is not None)
        for uuid in handles.keys() & self._held.uuids:
            self._errors['timeout'] += 1
            listing.failed[uuid] = _HELD
            self._failures.report(uuid, 'not read', _HELD)
        if found is None:
            listing.problem = _UNLISTED
        self._present = {
            uuid: each
            for uuid, each in handles.items()
            if uuid in listing.observed or uuid in listing.failed
        }
        return listing

    def _list(
        self, connection: libvirt_connection.Connection, handle: Any
    ) -> dict[str, Any] | None:
        """Return the handles of all active domains, None where that cannot be had now."""
        # A listing would ask those that are held too, and be held as they are.
        if self._held.uuids or any(each.awaits(self._listing) for each in self._daemon.both):
            return None
        started = time.monotonic()
        self._listing = self._calls.start('list', lambda _: self._domains.list_active(handle))
        connection.pending.append(self._listing)
        try:
            found = self._listing.wait(self._timeout)
        except exceptions.SourceTimeout:
            self._calls.count_timeout('list')
            return None
        self.seconds, self.listed_at = time.monotonic() - started, time.time()
        return found

    def _read_domains(
        self,
        run: Callable[[Ask], libvirt_domains.Listing | None],
        handle: Any,
        handles: Mapping[str, Any],
        *,
        is_listed: bool,
    ) -> libvirt_domains.Listing:
        """Return tier one of these domains, but of those that are held."""
        while True:
            held, one_by_one = self._held.uuids, self._held.is_shared_late
            asked = {uuid: each for uuid, each in handles.items() if uuid not in held}
            ask = functools.partial(
                self._domains.read,
                connection=handle,
                handles=asked,
                knocks=one_by_one or not is_listed,
                one_by_one=one_by_one,
            )
            try:
                listing = run(ask)
            except exceptions.SourceTimeout:
                if one_by_one or not self._held.is_shared_late:
                    raise
            else:
                if listing is not None:
                    return listing
