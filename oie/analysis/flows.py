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

"""One attributed dump → the flow table of the snapshot, and what to remember of it.

What was seen in the preceding complete interval is handed in and handed back;
nothing is kept here. Without a memory, after a start or an outage, the interval
is a silent baseline: nothing is new, because nothing is known.
"""

from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses

import numpy as np
import numpy.typing as npt

from oie import model
from oie.analysis import attribution
from oie.analysis import behaviour
from oie.analysis import suppression

I64 = npt.NDArray[np.int64]

HORIZONTAL_SCAN = 'horizontal_scan'
VERTICAL_SCAN = 'vertical_scan'
FAN_OUT = 'fan_out'
PATTERNS = (HORIZONTAL_SCAN, VERTICAL_SCAN, FAN_OUT)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Where the lines are drawn; numbers of one fixed IP in one interval.

    :ivar minimum: entries or remotes from which it is active
    :ivar remembered: remotes, and ports, that are kept for the next interval
    :ivar scan: remotes of a horizontal, ports of a vertical scan
    :ivar unreplied: share of connections without an answer that makes a scan
    :ivar fan_out: remotes that are a fan-out, answered or not
    """

    minimum: int = 20
    remembered: int = 4096
    scan: int = 20
    unreplied: float = 0.6
    fan_out: int = 200


@dataclasses.dataclass(frozen=True, slots=True)
class Memory:
    """What the next interval is compared with."""

    outbound: behaviour.Seen
    inbound: behaviour.Seen
    known: behaviour.U64
    suspected: Mapping[tuple[str, str], frozenset[str]]
    shown: Mapping[tuple[str, str], frozenset[str]]


def summarise(
    found: attribution.Attribution,
    talks: behaviour.Talks,
    memory: Memory | None,
    limits: Limits,
    *,
    odd: int,
) -> tuple[model.FlowTable, Memory]:
    """Return the table of this interval and the memory for the next one.

    :param talks: the connections among what was found
    :param odd: entries that only the careful decoder could read
    """
    slots = found.owners.slots
    identities = behaviour.identities(slots)
    # An address that just came, or came back, has nothing to be compared with.
    fresh = np.ones(len(slots), np.bool_)
    if memory is not None:
        fresh = ~np.isin(identities, memory.known)
    outbound, sent = _direction(
        talks.outbound, identities, fresh, memory.outbound if memory else None, limits
    )
    inbound, received = _direction(
        talks.inbound, identities, fresh, memory.inbound if memory else None, limits
    )
    suspected = {
        (slot.definition.uuid, slot.address.ip): patterns
        for slot, patterns in zip(slots, _patterns(outbound, limits), strict=True)
        if patterns
    }
    shown = _steady(suspected, memory)
    saturated = (
        sent.remotes.saturated
        | sent.ports.saturated
        | received.remotes.saturated
        | received.ports.saturated
    )
    addresses = _addresses(found, outbound, inbound, saturated, shown, limits)
    table = model.FlowTable(
        entries=found.entries,
        odd=odd,
        unattributed=found.unattributed,
        ambiguous=found.ambiguous,
        addresses=tuple(addresses),
    )
    return table, Memory(sent, received, identities, suspected, shown)


def _direction(
    talk: behaviour.Talk,
    identities: behaviour.U64,
    fresh: npt.NDArray[np.bool_],
    before: behaviour.Seen | None,
    limits: Limits,
) -> tuple[behaviour.Direction, behaviour.Seen]:
    direction = behaviour.summarise(talk, len(identities))
    now = behaviour.seen(talk, identities, limits.remembered)
    return behaviour.compare(direction, now, before, fresh), now


def _patterns(outbound: behaviour.Direction, limits: Limits) -> list[frozenset[str]]:
    """Tell what the connections of each slot look like in this interval alone.

    A scan is mostly unanswered: many remotes at one port, or many ports of one
    remote. A fan-out is many remotes, answered or not.
    """
    flows = np.maximum(outbound.flows, 1)
    is_unanswered = outbound.unreplied / flows >= limits.unreplied
    found = {
        HORIZONTAL_SCAN: is_unanswered
        & (outbound.remotes >= limits.scan)
        & (outbound.largest_port >= limits.scan),
        VERTICAL_SCAN: is_unanswered
        & (outbound.ports >= limits.scan)
        & (outbound.largest_remote >= limits.scan),
        FAN_OUT: outbound.remotes >= limits.fan_out,
    }
    return [
        frozenset(name for name in PATTERNS if found[name][slot])
        for slot in range(len(outbound.flows))
    ]


def _steady(
    suspected: Mapping[tuple[str, str], frozenset[str]], memory: Memory | None
) -> dict[tuple[str, str], frozenset[str]]:
    """Return the patterns to show: on after two intervals, off after two."""
    if memory is None:
        return {}
    steady = {}
    for key in suspected.keys() | memory.shown.keys():
        now, before = suspected.get(key, frozenset()), memory.suspected.get(key, frozenset())
        kept = memory.shown.get(key, frozenset()) & (now | before)
        if patterns := (now & before) | kept:
            steady[key] = patterns
    return steady


def _addresses(
    found: attribution.Attribution,
    outbound: behaviour.Direction,
    inbound: behaviour.Direction,
    saturated: frozenset[int],
    shown: Mapping[tuple[str, str], frozenset[str]],
    limits: Limits,
) -> Iterator[model.AddressFlows]:
    entries = found.entries_of().tolist()
    directions = zip(_rows(outbound), _rows(inbound), strict=True)
    for number, (slot, (out, into)) in enumerate(zip(found.owners.slots, directions, strict=True)):
        yield model.AddressFlows(
            definition=slot.definition,
            address=slot.address,
            entries=entries[number],
            outbound=out,
            inbound=into,
            is_active=suppression.shows_flows(
                entries[number], out.remotes + into.remotes, limits.minimum
            ),
            is_saturated=number in saturated,
            patterns=shown.get((slot.definition.uuid, slot.address.ip), frozenset()),
        )


def _rows(direction: behaviour.Direction) -> Iterator[model.FlowDirection]:
    """Give the columns of a direction as one record for each slot."""
    names = [field.name for field in dataclasses.fields(direction)]
    columns = [getattr(direction, name) for name in names]
    nothing = [None] * len(direction.flows)
    lists = [nothing if column is None else column.tolist() for column in columns]
    for values in zip(*lists, strict=True):
        yield model.FlowDirection(**dict(zip(names, values, strict=True)))
