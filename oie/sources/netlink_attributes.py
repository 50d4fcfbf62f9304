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

"""The attributes of a netlink message, one after the other.

Source: netlink(7), linux/netlink.h (struct nlattr). Numbers are in the byte order
of the host. Connection tracking reads its own in columns (ctnetlink).
"""

from collections.abc import Iterator
import struct

from oie import exceptions

HEADER = struct.Struct('=HH')
# The type without NLA_F_NESTED and its like.
_TYPE = 0x3FFF


def walk(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Give type and value of each attribute.

    :raises SourceError: one is cut off, or claims more than there is
    """
    place = 0
    while place < len(data):
        if len(data) - place < HEADER.size:
            raise exceptions.SourceError('a netlink attribute is cut off')
        size, kind = HEADER.unpack_from(data, place)
        if not HEADER.size <= size <= len(data) - place:
            raise exceptions.SourceError(
                f'a netlink attribute of {size} bytes where {len(data) - place} are left'
            )
        yield kind & _TYPE, data[place + HEADER.size : place + size]
        place += size + 3 & ~3


def attribute(kind: int, value: bytes) -> bytes:
    """Return an attribute, padded to whole words."""
    return HEADER.pack(HEADER.size + len(value), kind) + value + bytes(-len(value) % 4)
