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

"""Tier two: what only the QEMU monitors know, read in bulk without trust.

Domains are asked in chunks, NOWAIT, by few calls at a time. NOWAIT does not
save the first caller into a wedged QEMU, so a chunk that is late is left
behind: the domain that occupies its monitor is the suspect and goes to the
breaker, the rest of the chunk is asked again over the rescue connection in the
same cycle.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import logging
import queue
import time
from typing import Any

from oie import exceptions
from oie import failures
from oie import model
from oie.sources import breaker as breakers
from oie.sources import calls
from oie.sources import domain_stats
from oie.sources import libvirt_connection
from oie.sources import libvirt_held

LOG = logging.getLogger(__name__)

# One call always stays free for tier one and for the rescue.
RESERVED = 1

Record = Mapping[str, Any]
Handles = Mapping[str, Any]
Control = tuple[str, Any, Sequence[int]]
Controls = Mapping[str, tuple[Any, Sequence[int]]]


@dataclasses.dataclass(slots=True)
class _Chunk:
    handles: Handles
    connection: libvirt_connection.Connection
    deadline: float = 0.0
    is_extended: bool = False
    opened: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.opened = self.connection.opened

    @property
    def is_usable(self) -> bool:
        """Whether the connection is still the one that the handles came from."""
        return self.connection.is_open and self.connection.opened == self.opened


class MonitorReader:
    """Asks many domains for one set of statistics groups.

    :param read_records: the bulk call: handles → records by uuid
    :param read_controls: rescue connection and handles by uuid → uuid, handle
        there and virDomainGetControlInfo of each of these domains
    :param held: makes that call, which may hang at one of them
    :param lasting: says once what cannot be read of a domain
    :param timeout: seconds a chunk may take
    """

    def __init__(
        self,
        bounded: calls.Calls,
        breaker: breakers.Breaker,
        *,
        read_records: Callable[[Any, Iterable[Any]], dict[str, Record]],
        read_controls: Callable[[libvirt_held.Progress, Any, Handles], Iterable[Control]],
        held: libvirt_held.HeldDomains,
        lasting: failures.LastingFailures,
        timeout: float,
        chunk_size: int,
        width: int,
    ) -> None:
        self.errors: collections.Counter[str] = collections.Counter()
        self._calls = bounded
        self._breaker = breaker
        self._read_records = read_records
        self._read_controls = read_controls
        self._held = held
        self._failures = lasting
        self._timeout = timeout
        self._chunk_size = chunk_size
        self._width = width

    def read(
        self,
        together: Handles,
        alone: Handles,
        connection: libvirt_connection.Connection,
        rescue: libvirt_connection.Connection,
    ) -> dict[str, Record]:
        """Return the records that came in time, by uuid.

        :param together: the healthy domains, asked in chunks
        :param alone: the domains on probation, each asked by a call of its own
        :param connection: the one the handles belong to
        """
        waiting = collections.deque(self._chunks(together, alone, connection))
        running: dict[calls.Call[dict[str, Record]], _Chunk] = {}
        returned: queue.SimpleQueue[calls.Call[dict[str, Record]]] = queue.SimpleQueue()
        records: dict[str, Record] = {}
        while waiting or running:
            self._start(waiting, running, returned)
            if not running:
                self._give_up(waiting)
                break
            call = _next(returned, min(chunk.deadline for chunk in running.values()))
            if call is None:
                waiting.extend(self._leave_overdue(running, rescue))
            elif (chunk := running.pop(call, None)) is not None:
                waiting.extend(self._take(call, chunk, records))
        return records

    def _chunks(
        self, together: Handles, alone: Handles, connection: libvirt_connection.Connection
    ) -> Iterator[_Chunk]:
        uuids = list(together)
        for start in range(0, len(uuids), self._chunk_size):
            some = uuids[start : start + self._chunk_size]
            yield _Chunk({uuid: together[uuid] for uuid in some}, connection)
        for uuid, handle in alone.items():
            yield _Chunk({uuid: handle}, connection)

    def _start(
        self,
        waiting: collections.deque[_Chunk],
        running: dict[calls.Call[dict[str, Record]], _Chunk],
        returned: queue.SimpleQueue[calls.Call[dict[str, Record]]],
    ) -> None:
        while waiting and len(running) < self._width and self._calls.free > RESERVED:
            chunk = waiting.popleft()
            chunk.deadline = time.monotonic() + self._timeout
            try:
                running[self._call(chunk, returned)] = chunk
            except exceptions.SourceError as exc:
                self.errors['unreachable'] += len(chunk.handles)
                LOG.debug('statistics: %s', exc)

    def _call(
        self, chunk: _Chunk, returned: queue.SimpleQueue[calls.Call[dict[str, Record]]]
    ) -> calls.Call[dict[str, Record]]:
        if not chunk.is_usable:
            raise exceptions.SourceError('the connection to libvirt was lost meanwhile')
        handle = chunk.connection.get(self._timeout)
        handles = list(chunk.handles.values())
        call = self._calls.start(
            'statistics', lambda _call: self._read_records(handle, handles), returned.put
        )
        chunk.connection.pending.append(call)
        return call

    def _take(
        self,
        call: calls.Call[dict[str, Record]],
        chunk: _Chunk,
        records: dict[str, Record],
    ) -> list[_Chunk]:
        """Keep what a call gave; halve a chunk that failed, to find the culprit."""
        try:
            found = call.result()
        except Exception as exc:
            return self._halve(chunk, exc)
        records.update(found)
        for uuid, record in found.items():
            self._failures.settle(uuid, 'statistics not read')
            # A partial record did not come from the monitor.
            if domain_stats.is_complete(record):
                self._breaker.succeed(uuid)
        return []

    def _halve(self, chunk: _Chunk, exc: Exception) -> list[_Chunk]:
        uuids = list(chunk.handles)
        if not chunk.is_usable:
            self.errors['unreachable'] += len(uuids)
            return []
        if len(uuids) == 1:
            self.errors['error'] += 1
            self._failures.report(uuids[0], 'statistics not read', exc)
            return []
        half = len(uuids) // 2
        return [
            _Chunk({uuid: chunk.handles[uuid] for uuid in some}, chunk.connection)
            for some in (uuids[:half], uuids[half:])
        ]

    def _leave_overdue(
        self,
        running: dict[calls.Call[dict[str, Record]], _Chunk],
        rescue: libvirt_connection.Connection,
    ) -> list[_Chunk]:
        """Leave the late calls behind; return what is to be asked again."""
        now = time.monotonic()
        overdue = [call for call, chunk in running.items() if chunk.deadline <= now]
        known = self._controls([running[call] for call in overdue], rescue) if overdue else {}
        rest: list[_Chunk] = []
        for call in overdue:
            if call.has_returned:
                continue  # at the last moment; it waits to be taken
            chunk = running[call]
            suspects = self._suspects(chunk, known) | (chunk.handles.keys() & self._held.uuids)
            if not suspects and not chunk.is_extended:
                # Slow but moving: an overloaded host is no wedged guest.
                chunk.is_extended = True
                chunk.deadline += self._timeout
                continue
            del running[call]
            others = self._leave(call, chunk, suspects)
            handles = {uuid: known[uuid][0] for uuid in others if uuid in known}
            if handles:
                rest.append(_Chunk(handles, rescue))
        return rest

    def _controls(
        self, overdue: Sequence[_Chunk], rescue: libvirt_connection.Connection
    ) -> Controls:
        """Return what holds each domain of these chunks; those are left out that do not tell."""
        handles = {uuid: handle for chunk in overdue for uuid, handle in chunk.handles.items()}
        known: dict[str, tuple[Any, Sequence[int]]] = {}
        reason: Exception
        try:
            if not self._held.is_answering(rescue):
                raise exceptions.SourceTimeout('libvirt does not answer')
            while rest := handles.keys() - known.keys() - self._held.uuids:
                some = {uuid: handles[uuid] for uuid in rest}
                if self._ask_controls(overdue[0].connection, rescue, some, known):
                    break
        except exceptions.SourceError as exc:
            reason = exc
        except Exception as exc:
            rescue.lose(exc)
            reason = exc
        else:
            self._failures.settle('libvirt', 'cannot tell which domain does not answer')
            return known
        self._failures.report('libvirt', 'cannot tell which domain does not answer', reason)
        return {}

    def _ask_controls(
        self,
        connection: libvirt_connection.Connection,
        rescue: libvirt_connection.Connection,
        handles: Handles,
        known: dict[str, tuple[Any, Sequence[int]]],
    ) -> bool:
        """Add what is known of these domains; return whether that went on to the last one."""
        opened = rescue.get(self._timeout)
        told: list[Control] = []

        def ask(progress: libvirt_held.Progress) -> bool:
            told.extend(self._read_controls(progress, opened, handles))
            return True

        # It may hang where the handles come from.
        is_whole = self._held.run('rescue', connection, ask, beside=rescue)
        # A call that was left behind may still add to it.
        known.update({uuid: (handle, control) for uuid, handle, control in tuple(told)})
        return bool(is_whole)

    def _suspects(self, chunk: _Chunk, known: Controls) -> set[str]:
        """Return whose monitor is occupied for as long as we have been waiting.

        A domain with a long job (a migration) never shows as occupied: what its
        monitor is asked meanwhile counts as part of the job, long or not. So it
        is suspected when nobody else is, and after more time.
        """
        long = self._timeout * 1000 / 2
        found: dict[int, set[str]] = {}
        for uuid in chunk.handles.keys() & known.keys():
            state, _details, since_ms = known[uuid][1]
            if since_ms >= long:
                found.setdefault(state, set()).add(uuid)
        occupied, job = model.ControlState.OCCUPIED, model.ControlState.JOB
        return found.get(occupied) or (chunk.is_extended and found.get(job)) or set()

    def _leave(
        self, call: calls.Call[dict[str, Record]], chunk: _Chunk, suspects: set[str]
    ) -> list[str]:
        """Leave a call behind; return the domains of it that are above suspicion."""
        call.is_abandoned = True
        self._calls.count_timeout(call.name)
        # Where nobody can be named, all of them may be the one.
        blamed = suspects or set(chunk.handles)
        for uuid in blamed:
            self.errors['timeout'] += 1
            if uuid not in self._held.uuids:
                self._breaker.trip(uuid, call, is_certain=bool(suspects))
        LOG.warning(
            'no answer within %g s from the QEMU monitor of %s; %s',
            self._timeout,
            _names(blamed),
            'it is left alone until it answers' if suspects else 'any of them may be the one',
        )
        return [uuid for uuid in chunk.handles if uuid not in blamed]

    def _give_up(self, waiting: Iterable[_Chunk]) -> None:
        """Nothing may be started: as many calls are stuck as we allow ourselves."""
        for chunk in waiting:
            self.errors['suspended'] += len(chunk.handles)


def _next(
    returned: queue.SimpleQueue[calls.Call[dict[str, Record]]], deadline: float
) -> calls.Call[dict[str, Record]] | None:
    try:
        return returned.get(timeout=max(0.0, deadline - time.monotonic()))
    except queue.Empty:
        return None


def _names(uuids: Iterable[str]) -> str:
    first, *others = sorted(uuids)
    return f'{first} and {len(others)} more' if others else first
