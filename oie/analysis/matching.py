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

"""Who talks to listed addresses: all distinct peers of an interval in all lists at once.

A contact is a pair of a fixed IP and a peer, once per list and interval,
however many connections it has. The peer is the remote end as the instance sees
it; an instance whose own address stands on a list is no contact of itself.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import ipaddress

import numpy as np
import numpy.typing as npt

from oie import address_sets
from oie.analysis import attribution
from oie.analysis import behaviour

U64 = npt.NDArray[np.uint64]

OUT, IN, ANY = 'out', 'in', 'any'

_SEED, _SEED_HIGH = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)


@dataclasses.dataclass(frozen=True, slots=True)
class Matches:
    """Contacts as columns: one row for each list, fixed IP and peer.

    :ivar list: number of the list
    :ivar slot: number of the fixed IP
    :ivar is_out: whether the instance addressed the peer
    :ivar family: AF_INET or AF_INET6 of the peer, whose address is high and low
    """

    list: npt.NDArray[np.int8]
    slot: npt.NDArray[np.int32]
    is_out: npt.NDArray[np.bool_]
    family: npt.NDArray[np.uint8]
    high: U64
    low: U64

    def __len__(self) -> int:
        return len(self.slot)

    def where(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> 'Matches':
        """Return the chosen contacts, by index or by mask."""
        return Matches(
            **{f.name: getattr(self, f.name)[chosen] for f in dataclasses.fields(Matches)}
        )

    def peers(self) -> Iterator[str]:
        """Give the text of each peer's address."""
        for family, high, low in zip(
            self.family.tolist(), self.high.tolist(), self.low.tolist(), strict=True
        ):
            if family == attribution.AF_INET6:
                yield str(ipaddress.IPv6Address(high << 64 | low))
            else:
                yield str(ipaddress.IPv4Address(low))

    def keys(self, identities: U64) -> U64:
        """Return a number for each contact, the same in every interval.

        :param identities: a number for each slot that stays with it
        """
        # The halves differently: 2001:db8::1 and 2001:db8:0:1:: are not the same peer.
        found = identities[self.slot] + (self.high * _SEED_HIGH + self.low) * _SEED
        found ^= found >> np.uint64(29)
        keys: U64 = (found + self.list.astype(np.uint64) * np.uint64(2) + self.is_out) * _SEED
        return keys


def match(talks: behaviour.Talks, index: address_sets.Index, directions: Sequence[str]) -> Matches:
    """Return the contacts of an interval.

    :param index: of the lists; the number of a list is its bit
    :param directions: of each list: ``out``, ``in`` or ``any``
    """
    found = _look_up(talks.outbound, index, _bits(directions, OUT, ANY))
    received = _look_up(talks.inbound, index, _bits(directions, IN, ANY))
    # A pair that talks both ways is one contact; who began it is the instance.
    received = received.without(found, _bits(directions, ANY))
    parts = [*found.rows(len(directions), is_out=True)]
    parts += received.rows(len(directions), is_out=False)
    return _joined(parts)


def count(
    matches: Matches, owners: attribution.Owners, lists: int
) -> Iterator[tuple[str, int, int]]:
    """Give uuid, number of the list and contacts of each instance that has any."""
    instances = np.array(owners.instance_of, np.int64)[matches.slot]
    found, sizes = np.unique(instances * lists + matches.list, return_counts=True)
    uuids = {
        number: slot.definition.uuid
        for number, slot in zip(owners.instance_of, owners.slots, strict=True)
    }
    for pair, size in zip(found.tolist(), sizes.tolist(), strict=True):
        yield uuids[pair // lists], pair % lists, size


def _bits(directions: Sequence[str], *wanted: str) -> np.uint64:
    return np.uint64(sum(1 << n for n, direction in enumerate(directions) if direction in wanted))


@dataclasses.dataclass(frozen=True, slots=True)
class _Hits:
    """Distinct pairs of which the peer is on some list, and on which."""

    ends: attribution.Ends
    masks: U64

    @property
    def pairs(self) -> U64:
        return (self.ends.peer + self.ends.slot.astype(np.uint64) * _SEED) * _SEED

    def without(self, others: '_Hits', bits: np.uint64) -> '_Hits':
        """Return these without the bits that the same pair has there already."""
        if not bits or not len(self.masks) or not len(others.masks):
            return self
        known = others.pairs
        order = np.argsort(known)
        places = np.searchsorted(known, self.pairs, sorter=order)
        places = order[np.minimum(places, len(order) - 1)]
        same = known[places] == self.pairs
        return _Hits(self.ends, self.masks & ~np.where(same, others.masks[places] & bits, 0))

    def rows(self, lists: int, *, is_out: bool) -> Iterator[Matches]:
        """Give the contacts of each list."""
        for number in range(lists):
            chosen = np.flatnonzero(self.masks & np.uint64(1 << number))
            ends = self.ends.where(chosen)
            yield Matches(
                np.full(len(chosen), number, np.int8),
                ends.slot,
                np.full(len(chosen), is_out, np.bool_),
                ends.family,
                ends.peer_high,
                ends.peer_low,
            )


def _look_up(talk: behaviour.Talk, index: address_sets.Index, wanted: np.uint64) -> _Hits:
    first = talk.remotes.first
    if not wanted:
        first = first[:0]
    masks = np.zeros(len(first), np.uint64)
    is_v6 = talk.ends.family[first] == attribution.AF_INET6
    v4, v6 = np.flatnonzero(~is_v6), np.flatnonzero(is_v6)
    masks[v4] = index.find_v4(talk.ends.peer_low[first[v4]].astype(np.uint32))
    masks[v6] = index.find_v6(talk.ends.peer_high[first[v6]], talk.ends.peer_low[first[v6]])
    masks &= wanted
    hits = np.flatnonzero(masks)
    return _Hits(talk.ends.where(first[hits]), masks[hits])


def _joined(parts: Sequence[Matches]) -> Matches:
    kinds = (np.int8, np.int32, np.bool_, np.uint8, np.uint64, np.uint64)
    return Matches(
        *(
            np.concatenate([np.zeros(0, kind), *(getattr(part, field.name) for part in parts)])
            for field, kind in zip(dataclasses.fields(Matches), kinds, strict=True)
        )
    )
