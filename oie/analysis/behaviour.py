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

"""Attributed flows → what each fixed IP does: remotes, ports, fan-out, what is new.

All addresses are summed up together by sorting, so the cost grows with the
flows, not with flows times instances. One connection that the kernel tracks in
several zones is one connection here.
"""

from collections.abc import Sequence
import dataclasses
import secrets
from typing import Any

import numpy as np
import numpy.typing as npt

from oie.analysis import attribution

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

_SEED_PAIR, _SEED_PORTS, _SEED_SLOT = (np.uint64(secrets.randbits(64) | 1) for _ in range(3))
_SHIFT = np.uint64(31)
_PORT_BITS = np.uint64(16)


@dataclasses.dataclass(frozen=True, slots=True)
class Pairs:
    """Distinct pairs of a slot and what it talks to, in columns.

    :ivar slots: the slot of each pair
    :ivar values: the key of the remote's address, or the port
    :ivar sizes: how many connections have this pair
    :ivar first: one of these connections, as a place in ``Talk.ends``
    """

    slots: npt.NDArray[np.int32]
    values: U64
    sizes: I64
    first: npt.NDArray[np.intp]


@dataclasses.dataclass(frozen=True, slots=True)
class Talk:
    """The distinct connections of one direction to others, and with whom they are.

    What an instance says to itself is left out; another instance is a remote,
    so scans from guest to guest stay visible. Port 0 is no port.
    """

    ends: attribution.Ends
    remotes: Pairs
    ports: Pairs

    @classmethod
    def of(cls, ends: attribution.Ends) -> 'Talk':
        """Return the connections of attributed entries, grouped once for all uses."""
        once = distinct(ends)
        outward = once.where(~once.is_own) if once.is_own.any() else once
        with_port = np.flatnonzero(outward.service_port)
        return cls(
            outward,
            _pairs(outward.slot, outward.peer),
            _pairs(outward.slot[with_port], outward.service_port[with_port]),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Talks:
    """Who talks to whom in both directions, seen from the instances."""

    outbound: Talk
    inbound: Talk

    @classmethod
    def of(cls, found: attribution.Attribution) -> 'Talks':
        """Return the connections of a complete reading."""
        return cls(Talk.of(found.outbound()), Talk.of(found.inbound()))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """What all slots do in one direction; each array has one number a slot.

    ``flows`` are distinct connections, ``unreplied`` those the far end never
    answered. ``new_remotes`` and ``new_ports`` are None without a baseline.
    """

    flows: I64
    unreplied: I64
    remotes: I64
    largest_remote: I64
    ports: I64
    largest_port: I64
    new_remotes: I64 | None = None
    new_ports: I64 | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Contacts:
    """Distinct pairs of a slot and a value, at most so many for each slot.

    ``keys`` are sorted and carry the identity of the slot, which outlives its
    number; ``slots`` are the numbers of this cycle. Of a slot with too many
    values those with the smallest keys are kept: the same ones in each cycle.
    """

    keys: U64
    slots: npt.NDArray[np.int32]
    saturated: frozenset[int] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """Whom every slot talked to in one complete interval."""

    remotes: Contacts
    ports: Contacts


def distinct(ends: attribution.Ends) -> attribution.Ends:
    """Return each connection once, whatever zones it was seen in.

    It counts as replied when any of its entries was.
    """
    connection = _connection_keys(ends)
    order = np.argsort(connection, kind='stable')
    ordered = connection[order]
    is_first = np.ones(len(ordered), np.bool_)
    is_first[1:] = ordered[1:] != ordered[:-1]
    if is_first.all():
        return ends
    starts = np.flatnonzero(is_first)
    replied = np.logical_or.reduceat(ends.is_replied[order], starts)
    return dataclasses.replace(ends.where(order[starts]), is_replied=replied)


def summarise(talk: Talk, slots: int) -> Direction:
    """Return the sums of one direction."""
    ends = talk.ends
    return Direction(
        flows=np.bincount(ends.slot, minlength=slots),
        unreplied=np.bincount(ends.slot[~ends.is_replied], minlength=slots),
        remotes=np.bincount(talk.remotes.slots, minlength=slots),
        largest_remote=_largest(talk.remotes, slots),
        ports=np.bincount(talk.ports.slots, minlength=slots),
        largest_port=_largest(talk.ports, slots),
    )


def seen(talk: Talk, identities: U64, limit: int) -> Seen:
    """Return whom each slot talked to, for the comparison with the next interval.

    :param identities: a number for each slot that stays with it
    :param limit: how many remotes (and ports) of one slot are remembered
    """
    return Seen(
        _contacts(talk.remotes, identities, limit), _contacts(talk.ports, identities, limit)
    )


def compare(
    direction: Direction, now: Seen, before: Seen | None, fresh: npt.NDArray[np.bool_]
) -> Direction:
    """Return the direction with what is new since the preceding interval.

    :param fresh: the slots that were not there then; nothing of them is new
    """
    if before is None:
        return direction
    slots = len(direction.flows)
    return dataclasses.replace(
        direction,
        new_remotes=np.where(fresh, 0, _new(now.remotes, before.remotes, slots)),
        new_ports=np.where(fresh, 0, _new(now.ports, before.ports, slots)),
    )


def identities(slots: Sequence[attribution.Slot]) -> U64:
    """Return 64 bits for each fixed IP of an instance, the same in every cycle."""
    return np.array(
        [hash((slot.definition.uuid, slot.address.ip)) & (2**64 - 1) for slot in slots], np.uint64
    )


def _connection_keys(ends: attribution.Ends) -> U64:
    ports = ends.service_port.astype(np.uint64) << _PORT_BITS | ends.client_port
    with np.errstate(over='ignore'):
        found = (ends.peer + ends.slot.astype(np.uint64)) * _SEED_PAIR
        found ^= found >> _SHIFT
        found += ports << np.uint64(8) | ends.protocol
        found *= _SEED_PORTS
    found ^= found >> _SHIFT
    return found


def _pairs(slots: npt.NDArray[np.int32], values: npt.NDArray[Any]) -> Pairs:
    """Return the distinct pairs of two columns: the one sort that all sums share."""
    wide = values.astype(np.uint64)
    with np.errstate(over='ignore'):
        pair = (wide + slots.astype(np.uint64) * _SEED_SLOT) * _SEED_PAIR
    pair ^= pair >> _SHIFT
    order = np.argsort(pair)
    pair = pair[order]
    is_first = np.ones(len(pair), np.bool_)
    is_first[1:] = pair[1:] != pair[:-1]
    starts = np.flatnonzero(is_first)
    first = order[starts]
    return Pairs(slots[first], wide[first], np.diff(np.append(starts, len(pair))), first)


def _largest(pairs: Pairs, slots: int) -> I64:
    """Return, for each slot, the connections of the pair that has most."""
    largest = np.zeros(slots, np.int64)
    np.maximum.at(largest, pairs.slots, pairs.sizes)
    return largest


def _contacts(pairs: Pairs, identities: U64, limit: int) -> Contacts:
    with np.errstate(over='ignore'):
        keys = (pairs.values + identities[pairs.slots]) * _SEED_SLOT
    keys ^= keys >> _SHIFT
    slots, keys, saturated = _limited(pairs.slots, keys, limit)
    order = np.argsort(keys)
    return Contacts(keys[order], slots[order], saturated)


def _limited(
    slot: npt.NDArray[np.int32], keys: U64, limit: int
) -> tuple[npt.NDArray[np.int32], U64, frozenset[int]]:
    """Keep the smallest keys of each slot that has more than the limit."""
    sizes = np.bincount(slot)
    saturated = np.flatnonzero(sizes > limit)
    if not len(saturated):
        return slot, keys, frozenset()
    order = np.lexsort((keys, slot))
    slot, keys = slot[order], keys[order]
    rank = np.arange(len(slot)) - np.concatenate([[0], np.cumsum(sizes)])[slot]
    kept = rank < limit
    return slot[kept], keys[kept], frozenset(saturated.tolist())


def _new(now: Contacts, before: Contacts, slots: int) -> I64:
    """Return how many contacts of each slot were not there before."""
    if not len(before.keys):
        return np.bincount(now.slots, minlength=slots)
    places = np.searchsorted(before.keys, now.keys)
    places[places == len(before.keys)] = 0
    is_new = before.keys[places] != now.keys
    return np.bincount(now.slots[is_new], minlength=slots)
