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

"""The entries of a list: text into intervals, 8 bytes for one of IPv4 and 32 for one of IPv6.

An address of IPv6 that maps one of IPv4 (``::ffff:0:0/96``) is that of IPv4. An
IPv6 address in an array is its 16 bytes: they sort and compare as the number does.
"""

from collections.abc import Iterable
import dataclasses
import ipaddress
import socket
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from oie import address_sets
from oie.config import messages

V4_BYTES = 4
V6_BYTES = 16

_MAPPED = bytes(10) + b'\xff\xff'
_MAPPED_BITS = 8 * len(_MAPPED)
# Strict, and quicker than an expression that does the same.
_PREFIXES = {str(length): length for length in range(8 * V6_BYTES + 1)}
_SPACE = ' \t'

Keys = npt.NDArray[np.bytes_]


class Interval(NamedTuple):
    """First and last address, 4 bytes each for IPv4 and 16 for IPv6."""

    first: bytes
    last: bytes
    has_host_bits: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class V4:
    """Distinct intervals of IPv4: first and last address of each."""

    first: address_sets.U32
    last: address_sets.U32

    def __len__(self) -> int:
        return len(self.first)

    def where(self, chosen: npt.NDArray[np.bool_]) -> 'V4':
        """Return the chosen intervals."""
        return V4(self.first[chosen], self.last[chosen])


@dataclasses.dataclass(frozen=True, slots=True)
class V6:
    """The same of IPv6."""

    first: Keys
    last: Keys

    def __len__(self) -> int:
        return len(self.first)

    def where(self, chosen: npt.NDArray[np.bool_]) -> 'V6':
        """Return the chosen intervals."""
        return V6(self.first[chosen], self.last[chosen])


class Entries:
    """What a list says, as it comes: entries are added, told apart at the end.

    :ivar malformed: how many were no address, network or range
    :ivar host_bits: how many were a network with bits set beyond its prefix; they
        count as the network
    :ivar example: the first malformed one, fit for a message
    """

    def __init__(self) -> None:
        self.malformed = 0
        self.host_bits = 0
        self.example = ''
        self._v4 = bytearray()
        self._v6 = bytearray()

    @property
    def accepted(self) -> int:
        """How many entries are good, those that came before included."""
        return len(self._v4) // (2 * V4_BYTES) + len(self._v6) // (2 * V6_BYTES)

    def extend(self, texts: Iterable[str]) -> None:
        """Add entries: addresses, networks, ``first-last``, or what takes itself for one."""
        # Nine of ten entries are addresses of IPv4: they take the shortest way.
        v4, packed_of, family = self._v4, socket.inet_pton, socket.AF_INET
        for text in texts:
            try:
                packed = packed_of(family, text)
            except (OSError, ValueError):
                self._add(text)
            else:
                v4 += packed + packed

    def update(self, other: 'Entries') -> None:
        """Add the entries and counts of others."""
        self.malformed += other.malformed
        self.host_bits += other.host_bits
        self.example = self.example or other.example
        self._v4 += other._v4
        self._v6 += other._v6

    def distinct(self) -> tuple[V4, V6]:
        """Return each interval once, in order."""
        return _distinct_v4(self._v4), _distinct_v6(self._v6)

    def _add(self, text: str) -> None:
        found = parse(text)
        if found is None:
            self.malformed += 1
            self.example = self.example or messages.quoted(text)
            return
        self.host_bits += found.has_host_bits
        into = self._v4 if len(found.first) == V4_BYTES else self._v6
        into += found.first + found.last


def parse(text: str) -> Interval | None:
    """Return the interval of one entry, None if it is none.

    inet_pton(3) is the judge of addresses: no leading zeros, no short forms, no
    scopes, ASCII only.
    """
    if '/' in text:
        return _network(text)
    if '-' in text:
        return _range(text)
    packed = _address(text)
    return None if packed is None else Interval(packed, packed)


def shown_v4(first: int, last: int) -> str:
    """Return an interval of IPv4 as a list would write it."""
    begin, end = ipaddress.IPv4Address(first), ipaddress.IPv4Address(last)
    networks = list(ipaddress.summarize_address_range(begin, end))
    return str(networks[0]) if len(networks) == 1 else f'{begin}-{end}'


def shown_v6(first: int, last: int) -> str:
    """Return the same of IPv6."""
    begin, end = ipaddress.IPv6Address(first), ipaddress.IPv6Address(last)
    networks = list(ipaddress.summarize_address_range(begin, end))
    return str(networks[0]) if len(networks) == 1 else f'{begin}-{end}'


def address_set(v4: V4, v6: V6) -> address_sets.AddressSet:
    """Return the addresses of intervals as a set."""
    return address_sets.AddressSet.of((v4.first, v4.last), (wide(v6.first), wide(v6.last)))


def wide(keys: Keys) -> address_sets.Wide:
    """Return addresses of 16 bytes as columns of two halves."""
    halves = np.ndarray((len(keys), 2), '>u8', keys.tobytes()).astype(np.uint64)
    return address_sets.Wide(halves[:, 0].copy(), halves[:, 1].copy())


def keys(numbers: address_sets.Wide) -> Keys:
    """Return the reverse of wide()."""
    halves = np.stack([numbers.high, numbers.low], axis=1).astype('>u8')
    return np.ndarray((len(numbers),), f'S{V6_BYTES}', halves.tobytes())


def _network(text: str) -> Interval | None:
    address, _, prefix = text.partition('/')
    packed, length = _packed(address), _PREFIXES.get(prefix)
    if packed is None or length is None:
        return None
    if packed.startswith(_MAPPED) and length >= _MAPPED_BITS:
        packed, length = packed[len(_MAPPED) :], length - _MAPPED_BITS
    size = len(packed)
    spare = 8 * size - length
    if spare < 0:
        return None
    number = int.from_bytes(packed, 'big')
    first = number >> spare << spare
    last = first | (1 << spare) - 1
    return Interval(first.to_bytes(size, 'big'), last.to_bytes(size, 'big'), number != first)


def _range(text: str) -> Interval | None:
    begin, _, end = text.partition('-')
    first, last = _address(begin.strip(_SPACE)), _address(end.strip(_SPACE))
    if first is None or last is None or len(first) != len(last) or first > last:
        return None
    return Interval(first, last)


def _address(text: str) -> bytes | None:
    packed = _packed(text)
    if packed is not None and packed.startswith(_MAPPED):
        return packed[len(_MAPPED) :]
    return packed


def _packed(text: str) -> bytes | None:
    try:
        return socket.inet_pton(socket.AF_INET6 if ':' in text else socket.AF_INET, text)
    # ValueError: a NUL, or a lone surrogate.
    except (OSError, ValueError):
        return None


def _distinct_v4(intervals: bytearray) -> V4:
    # First and last together are one number, which is quicker to sort than a pair.
    count = len(intervals) // (2 * V4_BYTES)
    pairs = np.unique(np.ndarray((count,), '>u8', intervals).astype(np.uint64))
    return V4((pairs >> np.uint64(32)).astype(np.uint32), pairs.astype(np.uint32))


def _distinct_v6(intervals: bytearray) -> V6:
    count = len(intervals) // (2 * V6_BYTES)
    pairs = np.unique(np.ndarray((count,), f'S{2 * V6_BYTES}', intervals))
    halves = np.ndarray((len(pairs), 2), f'S{V6_BYTES}', pairs.tobytes())
    return V6(halves[:, 0].copy(), halves[:, 1].copy())
