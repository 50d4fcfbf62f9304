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

"""Flows → whose they are: every instance at once, a batch of columns at a time.

The instance's side follows from the tuples that NAT leaves alone: it initiated
the flow when its fixed IP is the original source, it responds when its fixed IP
is the source of the replies. The peer is the remote end as the instance sees
it: whom it addressed (original destination), or to whom it answers (destination
of the replies).

The zone decides first. A zone that belongs to a port belongs to one instance,
so equal addresses of two tenants stay apart. Without a zone only an address
that one instance alone has is believed; others are counted, never guessed.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import ipaddress
import secrets
from typing import Any
from typing import Protocol

import numpy as np
import numpy.typing as npt

from oie import model

U64 = npt.NDArray[np.uint64]
I32 = npt.NDArray[np.int32]

AF_INET6 = 10
SEEN_REPLY = np.uint32(1 << 1)
ZONES = 2**16

NOBODY = -1
AMBIGUOUS = -2

_SEEDS = tuple(np.uint64(secrets.randbits(64) | 1) for _ in range(4))
_SEED_OWNER = np.uint64(secrets.randbits(64) | 1)
_HALF = np.uint64(32)
_LOW_WORD = np.uint64(2**32 - 1)


class Flows(Protocol):
    """Columns of entries of one shape, as the decoder gives them."""

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""

    def __len__(self) -> int: ...

    def column(self, name: str) -> npt.NDArray[np.unsignedinteger] | None:
        """Return a number of each entry, None when the kernel did not give it."""

    def address(self, name: str) -> tuple[U64, U64] | None:
        """Return an address of each entry as high and low 64 bits."""


def keys(family: int, high: U64, low: U64) -> U64:
    """Return a 64-bit key for each address; families never share one but by chance.

    The multipliers are random for each process: nobody can choose two addresses
    with one key. Words of 32 bits are mixed in, because a difference in the top
    bit of 64 would outlive any multiplication and could be undone by the next word.
    """
    found = np.full(len(low), family, np.uint64)
    words = (high >> _HALF, high & _LOW_WORD, low >> _HALF, low & _LOW_WORD)
    for word, seed in zip(words, _SEEDS, strict=True):
        _mix(found, word, seed)
    return found


def _mix(found: U64, word: U64, seed: np.uint64) -> None:
    """Fold 32 bits into 64, in place; the array operations wrap around silently."""
    found ^= word
    found *= seed
    found ^= found >> _HALF


def key_of(ip: str) -> np.uint64:
    """Return the key of one address in canonical text."""
    address = ipaddress.ip_address(ip)
    number = int(address)
    high = np.array([number >> 64], np.uint64)
    low = np.array([number & (2**64 - 1)], np.uint64)
    return np.uint64(keys(2 if address.version == 4 else AF_INET6, high, low)[0])


def _owned(found: U64, instance: npt.NDArray[np.integer]) -> U64:
    made = found.copy()
    _mix(made, instance.astype(np.uint64), _SEED_OWNER)
    return made


class Table:
    """Keys → numbers, a million look-ups at a time (linear probing)."""

    def __init__(self, entries: Mapping[int, int]) -> None:
        size = 16
        while size < 4 * len(entries):
            size *= 2
        self._mask = np.uint64(size - 1)
        self._keys = np.zeros(size, np.uint64)
        self._values = np.full(size, NOBODY, np.int32)
        for key, value in entries.items():
            place = key & (size - 1)
            while self._values[place] != NOBODY:
                place = place + 1 & (size - 1)
            self._keys[place], self._values[place] = key, value

    def find(self, wanted: U64) -> I32:
        """Return the number of each key, NOBODY for the unknown ones."""
        places = (wanted & self._mask).astype(np.int64)
        found: I32 = self._values[places]
        wrong = np.flatnonzero((found != NOBODY) & (self._keys[places] != wanted))
        places = places[wrong]
        while len(wrong):
            places = places + 1 & int(self._mask)
            found[wrong] = values = self._values[places]
            still = (values != NOBODY) & (self._keys[places] != wanted[wrong])
            wrong, places = wrong[still], places[still]
        return found


@dataclasses.dataclass(frozen=True, slots=True)
class Slot:
    """One fixed IP of one instance: what flows are attributed to."""

    definition: model.Definition
    address: model.Address


class Owners:
    """Who has which fixed IP, ready for look-ups of whole columns.

    :param zones: conntrack zone → Neutron port uuid; None when nobody knows
    """

    def __init__(
        self, instances: Iterable[model.Instance], zones: Mapping[int, str] | None = None
    ) -> None:
        self.slots: list[Slot] = []
        self.instance_of: list[int] = []
        numbers: dict[str, int] = {}
        by_port: dict[str, int] = {}
        plain: dict[int, int] = {}
        owned: dict[int, int] = {}
        for instance in instances:
            definition = instance.definition
            number = numbers.setdefault(definition.uuid, len(numbers))
            for address in definition.addresses:
                self._add(number, definition, address, plain, owned)
                by_port[address.port_uuid] = number
            for nic in definition.interfaces:
                by_port.setdefault(nic.port_uuid, number)
        by_port.pop('', None)
        self.ambiguous = sum(value == AMBIGUOUS for value in plain.values())
        self._plain, self._owned_table = Table(plain), Table(owned)
        self._instances = np.array([*self.instance_of, NOBODY], np.int32)
        self.zone_owner = _zone_owner(zones, by_port)

    def _add(
        self,
        number: int,
        definition: model.Definition,
        address: model.Address,
        plain: dict[int, int],
        owned: dict[int, int],
    ) -> None:
        key = key_of(address.ip)
        mine = int(_owned(np.array([key], np.uint64), np.array([number], np.int32))[0])
        if mine in owned:
            # Two ports of one instance with one address are one fixed IP.
            return
        slot = len(self.slots)
        self.slots.append(Slot(definition, address))
        self.instance_of.append(number)
        plain[int(key)] = AMBIGUOUS if int(key) in plain else slot
        owned[mine] = slot

    def find(self, found: U64, zone_owners: I32 | None) -> I32:
        """Return the slot of each address key, NOBODY or AMBIGUOUS.

        :param zone_owners: the instance that owns the zone of each flow, if any
        """
        slots = self._plain.find(found)
        if zone_owners is None:
            return slots
        mapped = np.flatnonzero(zone_owners >= 0)
        if len(mapped):
            slots[mapped] = self._owned_table.find(_owned(found[mapped], zone_owners[mapped]))
        return slots

    def is_own(self, peers: U64, slots: I32) -> npt.NDArray[np.bool_]:
        """Tell which peers are fixed IPs of the instance that has the slot."""
        own = np.zeros(len(peers), np.bool_)
        maybe = np.flatnonzero(self._plain.find(peers) != NOBODY)
        if len(maybe):
            instances = self._instances[slots[maybe]]
            own[maybe] = self._owned_table.find(_owned(peers[maybe], instances)) != NOBODY
        return own


def _zone_owner(zones: Mapping[int, str] | None, by_port: Mapping[str, int]) -> I32 | None:
    if zones is None:
        return None
    owner = np.full(ZONES, NOBODY, np.int32)
    for zone, port in zones.items():
        if 0 <= zone < ZONES:
            owner[zone] = by_port.get(port, NOBODY)
    return owner


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Flows of one direction that have an owner, as columns of equal length.

    ``peer`` is the key of the peer's address, ``peer_high`` and ``peer_low``
    the address itself; ``service_port`` is the port that the initiator
    addressed, ``client_port`` its own. ``is_own`` marks a peer that is another
    fixed IP of the same instance.
    """

    slot: I32
    family: npt.NDArray[np.uint8]
    peer: U64
    peer_high: U64
    peer_low: U64
    service_port: npt.NDArray[np.uint16]
    client_port: npt.NDArray[np.uint16]
    protocol: npt.NDArray[np.uint8]
    is_replied: npt.NDArray[np.bool_]
    is_own: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.slot)

    def where(self, chosen: npt.NDArray[Any]) -> 'Ends':
        """Return the chosen flows, by index or by mask."""
        return Ends(**{name: getattr(self, name)[chosen] for name in _DTYPES})

    @classmethod
    def joined(cls, parts: Sequence['Ends']) -> 'Ends':
        """Return the flows of all parts."""
        return cls(
            **{
                name: np.concatenate([np.zeros(0, kind), *(getattr(p, name) for p in parts)])
                for name, kind in _DTYPES.items()
            }
        )


_DTYPES: Mapping[str, type[Any]] = {
    'slot': np.int32,
    'family': np.uint8,
    'peer': np.uint64,
    'peer_high': np.uint64,
    'peer_low': np.uint64,
    'service_port': np.uint16,
    'client_port': np.uint16,
    'protocol': np.uint8,
    'is_replied': np.bool_,
    'is_own': np.bool_,
}


class Attribution:
    """Takes the batches of one dump; afterwards knows who talks to whom."""

    def __init__(self, owners: Owners) -> None:
        self.owners = owners
        self.entries = 0
        self.unattributed = 0
        self.ambiguous = 0
        self._entries_of = np.zeros(len(owners.slots) + 1, np.int64)
        self._outbound: list[Ends] = []
        self._inbound: list[Ends] = []

    def take(self, flows: Flows, *, has_zones: bool = True) -> None:
        """Attribute one batch; its columns are not needed afterwards.

        :param has_zones: whether the zones are those of this host's table
        """
        self.entries += len(flows)
        original, reply = _keys_of(flows, 'orig_src'), _keys_of(flows, 'reply_src')
        if original is None or reply is None:
            self.unattributed += len(flows)
            return
        zones = self._zone_owners(flows) if has_zones else None
        initiator = self.owners.find(original, zones)
        responder = self.owners.find(reply, zones)
        self._count(initiator, responder)
        outbound = self._ends(flows, initiator, 'orig_dst', 'orig_dst_port', 'orig_src_port')
        inbound = self._ends(flows, responder, 'reply_dst', 'reply_src_port', 'reply_dst_port')
        self._outbound += outbound
        self._inbound += inbound

    def part(self) -> 'Attribution':
        """Return an empty one for a part that may turn out incomplete."""
        return Attribution(self.owners)

    def add(self, part: 'Attribution') -> None:
        """Take over a part that turned out complete."""
        self.entries += part.entries
        self.unattributed += part.unattributed
        self.ambiguous += part.ambiguous
        self._entries_of += part._entries_of
        self._outbound += part._outbound
        self._inbound += part._inbound

    def entries_of(self) -> npt.NDArray[np.int64]:
        """Return the number of entries of each slot; one with itself counts once."""
        return self._entries_of[:-1]

    def outbound(self) -> Ends:
        """Return all flows that instances initiated."""
        return Ends.joined(self._outbound)

    def inbound(self) -> Ends:
        """Return all flows that instances respond to."""
        return Ends.joined(self._inbound)

    def _zone_owners(self, flows: Flows) -> I32 | None:
        owner = self.owners.zone_owner
        if owner is None:
            return None
        for name in ('zone', 'orig_zone', 'reply_zone'):
            zones = flows.column(name)
            if zones is not None:
                found: I32 = owner[zones]
                return found
        # The kernel leaves the attribute out for zone 0.
        return np.full(len(flows), owner[0], np.int32)

    def _count(self, initiator: I32, responder: I32) -> None:
        width = len(self._entries_of)
        both = np.where(initiator == responder, NOBODY, responder)
        for slots in (initiator, both):
            self._entries_of += np.bincount(slots[slots >= 0], minlength=width)
        nobody = (initiator < 0) & (responder < 0)
        unsure = nobody & ((initiator == AMBIGUOUS) | (responder == AMBIGUOUS))
        self.ambiguous += int(np.count_nonzero(unsure))
        self.unattributed += int(np.count_nonzero(nobody))

    def _ends(
        self, flows: Flows, slots: I32, peer: str, service_port: str, client_port: str
    ) -> list[Ends]:
        """Return the flows that have an owner on this side, at most one batch of them."""
        chosen = np.flatnonzero(slots >= 0)
        address = flows.address(peer)
        if not len(chosen) or address is None:
            return []
        high, low = address[0][chosen], address[1][chosen]
        peers = keys(flows.family, high, low)
        slot = slots[chosen]
        status = _column(flows, 'status', chosen, np.uint32)
        return [
            Ends(
                slot=slot,
                family=np.full(len(chosen), flows.family, np.uint8),
                peer=peers,
                peer_high=high,
                peer_low=low,
                service_port=_column(flows, service_port, chosen, np.uint16),
                client_port=_column(flows, client_port, chosen, np.uint16),
                protocol=_column(flows, 'orig_protocol', chosen, np.uint8),
                is_replied=status & SEEN_REPLY != 0,
                is_own=self.owners.is_own(peers, slot),
            )
        ]


def _keys_of(flows: Flows, name: str) -> U64 | None:
    address = flows.address(name)
    return None if address is None else keys(flows.family, *address)


def _column(
    flows: Flows, name: str, chosen: npt.NDArray[np.intp], kind: type[Any]
) -> npt.NDArray[Any]:
    column = flows.column(name)
    return np.zeros(len(chosen), kind) if column is None else column[chosen].astype(kind)
