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

"""Sets of addresses as sorted edges: a million look-ups at once, whatever the set holds.

A set is a number line, one for each family, on which every edge switches: what
lies between the first and the second edge is in the set, what lies between the
second and the third is not. 500,000 scattered IPv4 addresses take 4 MB.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np
import numpy.typing as npt

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Places = npt.NDArray[np.intp]

MOST_SETS = 64

_ALL_ONES = np.uint64(2**64 - 1)


@dataclasses.dataclass(frozen=True, slots=True)
class Wide:
    """128-bit numbers in two columns."""

    high: U64
    low: U64

    def __len__(self) -> int:
        return len(self.high)

    def where(self, chosen: npt.NDArray[np.bool_] | Places) -> 'Wide':
        """Return the chosen numbers, by index or by mask."""
        return Wide(self.high[chosen], self.low[chosen])


def wide(numbers: Sequence[int]) -> Wide:
    """Return integers as columns."""
    high = np.array([number >> 64 for number in numbers], np.uint64)
    low = np.array([number & 2**64 - 1 for number in numbers], np.uint64)
    return Wide(high, low)


def joined(parts: Sequence[Wide]) -> Wide:
    """Return the numbers of all parts."""
    nothing = np.zeros(0, np.uint64)
    return Wide(
        np.concatenate([nothing, *(part.high for part in parts)]),
        np.concatenate([nothing, *(part.low for part in parts)]),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class AddressSet:
    """Addresses of both families.

    An odd number of edges means that the set goes on to the last address.
    """

    v4: U32
    v6: Wide

    @classmethod
    def of(cls, v4: tuple[U32, U32], v6: tuple[Wide, Wide]) -> 'AddressSet':
        """Return the addresses of intervals, which may overlap.

        :param v4: first and last address of each interval
        :param v6: the same
        """
        return cls(_merged_v4(*v4), _merged_v6(*v6))

    def without(self, other: 'AddressSet') -> 'AddressSet':
        """Return the addresses that are not in the other set."""
        index = Index((self, other))
        return AddressSet(_switches(index.v4, 1), _wide_switches(index.v6, 1))

    @property
    def is_empty(self) -> bool:
        """Whether there is no address in it."""
        return not len(self.v4) and not len(self.v6)

    @property
    def nbytes(self) -> int:
        """How much memory it takes."""
        return self.v4.nbytes + self.v6.high.nbytes + self.v6.low.nbytes


EMPTY = AddressSet(np.zeros(0, np.uint32), wide(()))


@dataclasses.dataclass(frozen=True, slots=True)
class _Line:
    """IPv4: sorted edges, and in which sets the addresses from each edge on are."""

    edges: U32
    masks: U64

    def find(self, wanted: U32) -> U64:
        places = np.searchsorted(self.edges, wanted, 'right')
        return _masks_at(self.masks, places)


@dataclasses.dataclass(frozen=True, slots=True)
class _WideLine:
    """IPv6: the same; ``tops`` are the distinct high halves and where each begins."""

    edges: Wide
    masks: U64
    tops: U64
    begins: Places

    def find(self, wanted: Wide) -> U64:
        if not len(self.edges):
            return np.zeros(len(wanted), np.uint64)
        tops = np.searchsorted(self.tops, wanted.high, 'right')
        places = self.begins[tops]
        top = np.maximum(tops - 1, 0)
        same = np.flatnonzero((tops > 0) & (self.tops[top] == wanted.high))
        first, last = self.begins[top[same]], self.begins[top[same] + 1]
        places[same] = _bisect(self.edges.low, wanted.low[same], first, last)
        return _masks_at(self.masks, places)


class Index:
    """Tells in which of some sets addresses are, all sets and addresses at once.

    The cost grows with the addresses, not with the sets.

    :param sets: at most 64 of them; the number of a set is its bit
    """

    def __init__(self, sets: Sequence[AddressSet]) -> None:
        if len(sets) > MOST_SETS:
            raise ValueError(f'{len(sets)} sets; an index has room for {MOST_SETS}')
        bits = [np.uint64(1 << number) for number in range(len(sets))]
        self.v4 = _line([each.v4 for each in sets], bits)
        self.v6 = _wide_line([each.v6 for each in sets], bits)

    def find_v4(self, addresses: U32) -> U64:
        """Return a bit for each set that each IPv4 address is in."""
        return self.v4.find(addresses)

    def find_v6(self, high: U64, low: U64) -> U64:
        """Return the same for IPv6 addresses in two halves."""
        return self.v6.find(Wide(high, low))


def _masks_at(masks: U64, places: Places) -> U64:
    """Return the masks before these places; before the first edge nothing is."""
    found = np.zeros(len(places), np.uint64)
    within = np.flatnonzero(places)
    found[within] = masks[places[within] - 1]
    return found


def _bisect(edges: U64, wanted: U64, first: Places, last: Places) -> Places:
    """Return where each number belongs between its own two places, to the right of equals."""
    while np.any(first < last):
        middle = (first + last) // 2
        # Where first and last have met already, middle may lie behind the end.
        is_right = (first < last) & (edges[np.minimum(middle, len(edges) - 1)] <= wanted)
        is_left = (first < last) & ~is_right
        first = np.where(is_right, middle + 1, first)
        last = np.where(is_left, middle, last)
    return first


def _line(sets: Sequence[U32], bits: Sequence[np.uint64]) -> _Line:
    edges = np.concatenate([np.zeros(0, np.uint32), *sets])
    order = np.argsort(edges, kind='stable')
    edges = edges[order]
    is_last = np.append(edges[1:] != edges[:-1], True)[: len(edges)]
    return _Line(edges[is_last], _accumulated([len(each) for each in sets], bits, order)[is_last])


def _wide_line(sets: Sequence[Wide], bits: Sequence[np.uint64]) -> _WideLine:
    edges = joined(sets)
    order = np.lexsort((edges.low, edges.high))
    edges = edges.where(order)
    is_last = np.append(_differ(edges), True)[: len(edges)]
    masks = _accumulated([len(each) for each in sets], bits, order)[is_last]
    edges = edges.where(is_last)
    tops, begins = np.unique(edges.high, return_index=True)
    return _WideLine(edges, masks, tops, np.append(begins, len(edges)).astype(np.intp))


def _accumulated(lengths: Sequence[int], bits: Sequence[np.uint64], order: Places) -> U64:
    """Return what holds from each sorted edge on: every edge switches the bit of its set."""
    switched = np.repeat(np.array(bits, np.uint64), lengths)[order]
    found: U64 = np.bitwise_xor.accumulate(switched)
    return found


def _differ(edges: Wide) -> npt.NDArray[np.bool_]:
    """Tell of each number but the last whether the next one differs."""
    found: npt.NDArray[np.bool_] = (edges.high[1:] != edges.high[:-1]) | (
        edges.low[1:] != edges.low[:-1]
    )
    return found


def _switches(line: _Line, mask: int) -> U32:
    """Return the edges at which the sets become, or stop being, just these."""
    return line.edges[_changes(line.masks == np.uint64(mask))]


def _wide_switches(line: _WideLine, mask: int) -> Wide:
    return line.edges.where(_changes(line.masks == np.uint64(mask)))


def _changes(is_in: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    before = np.concatenate([np.zeros(1, np.bool_), is_in[:-1]])[: len(is_in)]
    found: npt.NDArray[np.bool_] = is_in != before
    return found


def _merged_v4(first: U32, last: U32) -> U32:
    ends = last[last != np.uint32(2**32 - 1)] + np.uint32(1)
    edges = np.concatenate([first, ends])
    order = np.argsort(edges, kind='stable')
    edges = edges[order]
    is_last = np.append(edges[1:] != edges[:-1], True)[: len(edges)]
    is_in = _depth(len(first), order)[is_last] > 0
    found: U32 = edges[is_last][_changes(is_in)]
    return found


def _merged_v6(first: Wide, last: Wide) -> Wide:
    ends = _next(last)
    edges = joined((first, ends))
    order = np.lexsort((edges.low, edges.high))
    edges = edges.where(order)
    is_last = np.append(_differ(edges), True)[: len(edges)]
    is_in = _depth(len(first), order)[is_last] > 0
    return edges.where(is_last).where(_changes(is_in))


def _next(numbers: Wide) -> Wide:
    """Return the numbers that follow these; nothing follows the last one there is."""
    kept = numbers.where(~((numbers.high == _ALL_ONES) & (numbers.low == _ALL_ONES)))
    low = kept.low + np.uint64(1)
    return Wide(kept.high + (low == 0).astype(np.uint64), low)


def _depth(begins: int, order: Places) -> I64:
    """Return how many intervals are open from each edge on; the first so many edges open one."""
    found: I64 = np.cumsum(np.where(order < begins, 1, -1))
    return found
