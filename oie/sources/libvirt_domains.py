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
"""Tier one: the active domains with what needs no QEMU monitor.

List, state, CPU time, control info and interface counters in every cycle; XML
and metadata when they are new, changed or old. A domain that fails costs only
itself.
"""

import collections
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import logging
import time
from typing import Any

from oie import exceptions
from oie import failures
from oie import model
from oie.sources import calls
from oie.sources import domain_stats
from oie.sources import domain_xml
from oie.sources import libvirt_connection
from oie.sources import libvirt_daemon
from oie.sources import libvirt_held
from oie.sources import libvirt_plain

LOG = logging.getLogger(__name__)

Record = Mapping[str, Any]

_WEDGED_MS = 10000

# virDomainPausedReason: QEMU is being started; also what receives a migration.
_STARTING_UP = 11


@dataclasses.dataclass(slots=True)
class Known:
    """What is kept of a domain for as long as its QEMU runs.

    ``foreign`` are interfaces that libvirt counts and its XML does not name;
    ``has_job`` is a hint that a job may be running. ``is_counted`` is False while
    it is one end of a migration that is no instance of this host.
    """

    domain_id: int
    definition: model.Definition
    parsed_at: float
    last_job: model.Job | None
    has_run: bool = False
    has_job: bool = False
    is_counted: bool = True
    foreign: frozenset[str] = frozenset()


@dataclasses.dataclass(slots=True)
class Observed:
    """One active domain as tier one saw it."""

    handle: Any
    uuid: str
    known: Known
    info: Sequence[int]
    control: model.Control | None
    read_clock_ns: int
    record: Record

    @property
    def state(self) -> tuple[int, int | None]:
        """Its virDomainState and the reason."""
        if 'state.state' in self.record:
            return domain_stats.state(self.record)
        return self.info[0], None

    @property
    def role(self) -> str:
        """What it is instead of an instance that runs here, or nothing."""
        state, reason = self.state
        if state != model.DomainState.PAUSED:
            return ''
        if reason == model.PausedReason.POST_COPY:
            return 'outgoing'
        # The sender of a migration is paused like the receiver, but it ran before.
        if self.known.has_run:
            return ''
        if reason == _STARTING_UP:
            return 'starting'
        return 'incoming' if reason == model.PausedReason.MIGRATION else ''

    @property
    def has_job(self) -> bool:
        """Whether a job may be running: its monitor shows one, or an event told so."""
        return self._shows(model.ControlState.JOB) or self.known.has_job

    @property
    def has_io_error(self) -> bool:
        """Whether it is paused because a disk failed."""
        return self.state == (model.DomainState.PAUSED, model.PausedReason.IO_ERROR)

    @property
    def is_wedged(self) -> bool:
        """Whether its monitor has been occupied for very long, by whomever."""
        return self._shows(model.ControlState.OCCUPIED, since_ms=_WEDGED_MS)

    def is_busy(self, limit_ms: float, *, is_suspect: bool) -> bool:
        """Whether its monitor has been occupied for so long.

        While a job lasts, a monitor that is occupied shows as part of it, which
        is no reason not to ask, but for a domain that did not answer before.
        """
        states = [model.ControlState.OCCUPIED, model.ControlState.ERROR]
        if is_suspect:
            states.append(model.ControlState.JOB)
        return self._shows(*states, since_ms=limit_ms)

    def _shows(self, *states: int, since_ms: float = 0) -> bool:
        control = self.control
        return control is not None and control.state in states and control.busy_ms >= since_ms


@dataclasses.dataclass(slots=True)
class Listing:
    """The active domains: those that could be read, and why the others could not.

    ``problem`` says why there may be more of them.
    """

    observed: dict[str, Observed] = dataclasses.field(default_factory=dict)
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    problem: str = ''


class DomainReader:
    """Lists the active domains and remembers their definitions.

    :param errors: counts what failed, by reason
    :param lasting: says once what cannot be read of a domain
    :param expiration: seconds a parsed definition is trusted without events
    """

    def __init__(
        self,
        daemon: libvirt_daemon.Daemon,
        bounded: calls.Calls,
        errors: collections.Counter[str],
        lasting: failures.LastingFailures,
        *,
        expiration: float,
    ) -> None:
        self.known: dict[str, Known] = {}
        self._daemon = daemon
        self._calls = bounded
        self._errors = errors
        self._failures = lasting
        self._expiration = expiration

    def list_active(self, connection: Any) -> dict[str, Any]:
        """Return the handles of all active domains by uuid; runs in a bounded call.

        :raises libvirtError: there is no complete listing
        """
        active = self._daemon.libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE
        return {handle.UUIDString(): handle for handle in connection.listAllDomains(active)}

    def read(
        self,
        progress: libvirt_held.Progress,
        connection: Any,
        handles: Mapping[str, Any],
        *,
        knocks: bool,
        one_by_one: bool,
    ) -> Listing:
        """Return these domains; runs in a bounded call.

        :param handles: by uuid, of any connection if ``knocks``
        :param knocks: see first whether a domain answers at all
        :param one_by_one: ask nothing of several domains at once
        :raises libvirtError: the connection is gone
        """
        listing = Listing()
        with libvirt_connection.many_requests():
            for uuid, handle in handles.items():
                if progress.is_abandoned:
                    return listing  # nobody waits for it any more
                progress.ask(uuid)
                self._observe(connection, uuid, handle, listing, knocks=knocks)
        records = self._read_records(progress, connection, listing, one_by_one=one_by_one)
        for uuid, one in list(listing.observed.items()):
            if progress.is_abandoned:
                return listing
            progress.ask(uuid)
            # A persistent domain that ended meanwhile is still known, as shut off.
            if uuid in records and not _is_off(records[uuid]):
                self._accept(one, records[uuid])
            else:
                self._drop(uuid, listing)
        return listing

    def read_controls(
        self, progress: libvirt_held.Progress, connection: Any, handles: Mapping[str, Any]
    ) -> Iterator[tuple[str, Any, Sequence[int]]]:
        """Give uuid, handle and virDomainGetControlInfo of these domains.

        :param handles: by uuid, of any connection
        """
        for uuid, elsewhere in handles.items():
            if progress.is_abandoned:
                return
            progress.ask(uuid)
            try:
                handle = self._look_up(connection, uuid, elsewhere)
                self._calls.pace()
                yield uuid, handle, handle.controlInfo()
            except self._daemon.libvirt.libvirtError as exc:
                LOG.debug('control info: %s', exc)

    def bulk(
        self, connection: Any, handles: Sequence[Any], groups: int, flags: int = 0
    ) -> dict[str, Record]:
        """Return virDomainListGetStats of these groups by uuid, without waiting for jobs."""
        if not handles:
            return {}
        flags |= self._daemon.libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
        self._calls.pace()
        records = connection.domainListGetStats(handles, groups, flags)
        found = {handle.UUIDString(): record for handle, record in records}
        return self._complete(found, handles) if self._daemon.is_plain else found

    def expire(self, uuids: Iterable[str]) -> None:
        """Let definitions be read again in the next cycle."""
        for uuid in uuids:
            if uuid in self.known:
                self.known[uuid].parsed_at = float('-inf')

    # --- one domain ---------------------------------------------------------

    def _look_up(self, connection: Any, uuid: str, elsewhere: Any) -> Any:
        """Return the handle on this connection of a domain that answers.

        Whoever asks a domain that libvirtd does not let go of hangs, and but for bulk
        statistics holds the list of domains too: nobody can define another one until then
        (libvirt 9.0.0). So bulk statistics come first.

        :param elsewhere: a handle of it, on any connection
        """
        home, libvirt = elsewhere.connect(), self._daemon.libvirt
        flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
        self._calls.pace()
        try:
            home.domainListGetStats((elsewhere,), libvirt.VIR_DOMAIN_STATS_STATE, flags)
        except libvirt.libvirtError as exc:
            LOG.debug('%s: %s', uuid, exc)
        if home is connection:
            return elsewhere
        self._calls.pace()
        return connection.lookupByUUIDString(uuid)

    def _observe(
        self, connection: Any, uuid: str, handle: Any, listing: Listing, *, knocks: bool
    ) -> None:
        """Note one domain in the listing; one that fails costs only itself."""
        try:
            if knocks:
                handle = self._look_up(connection, uuid, handle)
            self._calls.pace()
            info, clock = handle.info(), time.monotonic_ns()
            listing.observed[uuid] = Observed(
                handle=handle,
                uuid=uuid,
                known=self._recall(handle, uuid),
                info=info,
                control=self._control(handle),
                read_clock_ns=clock,
                record={},
            )
            self._failures.settle(uuid, 'not read')
        except exceptions.SourceError as exc:
            self._errors['parse'] += 1
            listing.failed[uuid] = str(exc)
            self._failures.report(uuid, 'broken XML', exc)
        except Exception as exc:
            self._fail(uuid, exc, listing)

    def _recall(self, handle: Any, uuid: str) -> Known:
        """Return what is known of a domain, parsing its XML when that is new or old.

        :raises SourceError: the XML is broken and there is no earlier definition
        """
        known, domain_id, now = self.known.get(uuid), handle.ID(), time.monotonic()
        if known is None or known.domain_id != domain_id:
            definition, job = self._definition(handle), self._completed_job(handle)
            known = self.known[uuid] = Known(domain_id, definition, now, job)
            self._failures.settle(uuid, 'broken XML')
        elif now - known.parsed_at >= self._expiration:
            self._refresh(known, handle, uuid)
        return known

    def _refresh(self, known: Known, handle: Any, uuid: str) -> None:
        """Read a definition again; where that fails the last one stays."""
        try:
            known.definition = self._definition(handle)
        except Exception as exc:
            if self._daemon.is_end_of_domain(exc) or self._daemon.is_disconnect(exc):
                raise
            self._errors['parse'] += 1
            self._failures.report(uuid, 'definition not read again', exc)
            return
        self._failures.settle(uuid, 'definition not read again')
        known.parsed_at = time.monotonic()
        known.last_job = self._completed_job(handle) or known.last_job

    def _definition(self, handle: Any) -> model.Definition:
        self._calls.pace()
        try:
            return domain_xml.parse(handle.XMLDesc(0))
        except UnicodeError as exc:
            raise exceptions.SourceError(f'its XML is not UTF-8: {exc}') from exc

    def _completed_job(self, handle: Any) -> model.Job | None:
        libvirt = self._daemon.libvirt
        # Without KEEP_COMPLETED reading would delete it: an observer leaves no trace.
        flags = libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED
        flags |= libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED
        self._calls.pace()
        try:
            return domain_stats.job(handle.jobStats(flags))
        except libvirt.libvirtError as exc:
            LOG.debug('no completed job: %s', exc)
            return None

    def _control(self, handle: Any) -> model.Control | None:
        libvirt = self._daemon.libvirt
        self._calls.pace()
        try:
            state, _details, busy_ms = handle.controlInfo()
        except libvirt.libvirtError as exc:
            if exc.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
                return None
            raise
        return model.Control(state=state, busy_ms=busy_ms)

    def _accept(self, one: Observed, record: Record) -> None:
        """Take the INTERFACE and STATE record; read the XML again if it disagrees."""
        one.record = record
        known = one.known
        foreign = domain_stats.interface_names(record) - _targets(known.definition)
        if foreign and foreign != known.foreign:
            self.expire((one.uuid,))
            try:
                self._recall(one.handle, one.uuid)
            except self._daemon.libvirt.libvirtError as exc:
                LOG.debug('%s: %s', one.uuid, exc)
        # What the XML does not name now it will not name in the next cycle either.
        known.foreign = foreign and foreign - _targets(known.definition)

    # --- all of them --------------------------------------------------------

    def _read_records(
        self,
        progress: libvirt_held.Progress,
        connection: Any,
        listing: Listing,
        *,
        one_by_one: bool,
    ) -> dict[str, Record]:
        """Return STATE and INTERFACE: neither needs a monitor (libvirt 9.0.0)."""
        libvirt = self._daemon.libvirt
        groups = libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_INTERFACE
        try:
            if not one_by_one:
                progress.ask()
                handles = [one.handle for one in listing.observed.values()]
                return self.bulk(connection, handles, groups)
        except Exception as exc:
            if self._daemon.is_disconnect(exc):
                raise
        # One domain can spoil the call for all: ask them one by one.
        records: dict[str, Record] = {}
        for uuid, one in list(listing.observed.items()):
            if progress.is_abandoned:
                return records
            progress.ask(uuid)
            try:
                records.update(self.bulk(connection, [one.handle], groups))
            except Exception as exc:
                if self._daemon.is_disconnect(exc):
                    raise
                del listing.observed[uuid]
                self._keep_back(uuid, exc, listing)
        return records

    def _complete(self, records: dict[str, Record], handles: Sequence[Any]) -> dict[str, Record]:
        by_uuid = {handle.UUIDString(): handle for handle in handles}
        return {
            uuid: libvirt_plain.complete(
                self._daemon.libvirt, dict(record), by_uuid[uuid], self.known[uuid].definition
            )
            for uuid, record in records.items()
        }

    def _fail(self, uuid: str, exc: Exception, listing: Listing) -> None:
        """Note why a domain could not be read; raise what concerns all of them."""
        if self._daemon.is_disconnect(exc):
            raise exc
        if self._daemon.is_end_of_domain(exc):
            self._drop(uuid, listing)
        else:
            self._keep_back(uuid, exc, listing)

    def _drop(self, uuid: str, listing: Listing) -> None:
        """Count a domain that ended while it was read."""
        listing.observed.pop(uuid, None)
        self._errors['gone'] += 1
        LOG.debug('%s left while it was read', uuid)

    def _keep_back(self, uuid: str, exc: Exception, listing: Listing) -> None:
        """Count a domain that could not be read; its last values stay."""
        self._errors['error'] += 1
        listing.failed[uuid] = str(exc) or repr(exc)
        self._failures.report(uuid, 'not read', exc)


def _is_off(record: Record) -> bool:
    return domain_stats.state(record)[0] == model.DomainState.SHUTOFF


def _targets(definition: model.Definition) -> frozenset[str]:
    return frozenset(device.target for device in definition.interfaces if device.target)
