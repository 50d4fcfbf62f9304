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

"""Flows as columns: what the decoder fills and everybody else reads.

Hundreds of thousands of flows never become objects. A block of them is one array
with a row for each field, or two or four where a field is wider than a word.
"""

from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import functools

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]
Wide = npt.NDArray[np.uint64]

AF_INET = 2
AF_INET6 = 10
ADDRESS_BYTES = {AF_INET: 4, AF_INET6: 16}

# IPS_* of linux/netfilter/nf_conntrack_common.h.
SEEN_REPLY = 1 << 1
ASSURED = 1 << 2
SRC_NAT = 1 << 4
DST_NAT = 1 << 5
OFFLOAD = 1 << 14
HW_OFFLOAD = 1 << 15

OF_ONE_BYTE = (
    *('orig_protocol', 'orig_icmp_type', 'orig_icmp_code'),
    *('reply_protocol', 'reply_icmp_type', 'reply_icmp_code'),
)
OF_TWO_BYTES = (
    *('orig_src_port', 'orig_dst_port', 'orig_icmp_id', 'orig_zone'),
    *('reply_src_port', 'reply_dst_port', 'reply_icmp_id', 'reply_zone'),
    'zone',
)
OF_FOUR_BYTES = ('status', 'mark', 'id')
ADDRESSES = ('orig_src', 'orig_dst', 'reply_src', 'reply_dst')
# Of eight bytes. Given only where the host is set to keep them; elsewhere nobody
# knows them.
REPORTED = (
    *('orig_packets', 'orig_bytes', 'reply_packets', 'reply_bytes'),
    *('started_ns', 'stopped_ns'),
)
_IDENTITY = (
    *('orig_src', 'orig_dst', 'orig_protocol', 'orig_src_port', 'orig_dst_port'),
    *('orig_icmp_id', 'orig_icmp_type', 'orig_icmp_code', 'zone', 'orig_zone', 'id'),
)


def size_of(name: str, family: int) -> int:
    """Return the bytes of a field's value."""
    for size, names in ((1, OF_ONE_BYTE), (2, OF_TWO_BYTES), (4, OF_FOUR_BYTES), (8, REPORTED)):
        if name in names:
            return size
    return ADDRESS_BYTES[family]


@dataclasses.dataclass(frozen=True, eq=False)
class Schema:
    """Which rows of a block hold which field."""

    family: int
    rows: Mapping[str, slice]
    height: int


@functools.cache
def schema_of(family: int, reported: frozenset[str]) -> Schema:
    """Return the one schema of entries of a family that report these of ``REPORTED``."""
    rows: dict[str, slice] = {}
    height = 0
    names = (*OF_ONE_BYTE, *OF_TWO_BYTES, *OF_FOUR_BYTES, *ADDRESSES, *sorted(reported))
    for name in names:
        words = size_of(name, family) + 3 >> 2
        rows[name] = slice(height, height + words)
        height += words
    return Schema(family, rows, height)


class Flows:
    """Entries of one address family as columns of numbers.

    A number that an entry has no use for is 0: the ports of a ping, the mark of a
    flow without one. Ports are those of TCP, UDP, SCTP and the like, and the keys of
    GRE. Every entry is in a ``zone``; in the rare case that this holds for one
    direction only, ``orig_zone`` or ``reply_zone`` is the same number.

    :param block: numbers in the byte order of the host, kept by nobody else
    """

    def __init__(self, schema: Schema, block: Words) -> None:
        self._schema = schema
        self._block = block

    def __len__(self) -> int:
        return int(self._block.shape[1])

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return self._schema.family

    @property
    def names(self) -> frozenset[str]:
        """The fields of these entries, addresses among them."""
        return frozenset(self._schema.rows)

    def column(self, name: str) -> Words | Wide | None:
        """Return a number of each entry; None if it is one that was not reported."""
        if name in REPORTED and name not in self._schema.rows:
            return None
        rows = self._block[self._schema.rows[name]]
        return rows[0] if len(rows) == 1 else _wide(rows)

    def address(self, name: str) -> tuple[Wide, Wide]:
        """Return high and low 64 bits of an address of each entry.

        That of IPv4 is in the low 32. Somebody may well send from the IPv6
        address of the same bits: keep the family in mind.
        """
        rows = self._block[self._schema.rows[name]]
        if len(rows) == 1:
            return np.zeros(len(self), np.uint64), rows[0].astype(np.uint64)
        return _wide(rows[:2]), _wide(rows[2:])

    def identity(self) -> Iterator[Words]:
        """Give columns that together tell each entry from every other.

        The id is among them: of two connections with one tuple the second has
        followed the first.
        """
        for name in _IDENTITY:
            yield from self._block[self._schema.rows[name]]


def _wide(rows: Words) -> Wide:
    found: Wide = rows[0].astype(np.uint64) << np.uint64(32) | rows[1]
    return found
