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

"""Buffers of ctnetlink messages → columns of flows.

The kernel writes the entries of a table in few shapes: messages of one length
nearly always have the same attributes in the same places. The first message of a
shape is walked attribute by attribute, and that walk becomes a template. Of the
others the words where the walk met the headers of attributes are compared with
the template's, all messages as one array; then their fields are lifted out. Equal
headers are walked equally, so a value that looks like a header deceives nobody.
What has no template is walked by itself. Nothing here trusts a length it has not
checked.

Source: linux/netfilter/nfnetlink_conntrack.h. Values are in network byte order,
headers in that of the host.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import struct
import sys

import numpy as np
import numpy.typing as npt

from oie import exceptions
from oie.sources import flow_columns
from oie.sources import netlink

Words = netlink.Words
Path = tuple[int, ...]

NFNL_SUBSYS_CTNETLINK = 1
CT_NEW = NFNL_SUBSYS_CTNETLINK << 8 | 0
CT_GET = NFNL_SUBSYS_CTNETLINK << 8 | 1

# A struct nlmsghdr and the struct nfgenmsg behind it, which begins with the family.
HEADER_BYTES = netlink.HEADER_BYTES + 4

# Far more than a kernel needs. Who sees more of them is being played with.
MAX_TEMPLATES = 256
# For so many dumps a template is kept that fits nothing.
KEPT_DUMPS = 16

# NLA_F_NESTED and NLA_F_NET_BYTEORDER say nothing about which attribute it is.
_TYPE_MASK = 0x3FFF


def _tuple_fields(number: int, prefix: str) -> dict[Path, str]:
    icmp = {4: 'icmp_id', 5: 'icmp_type', 6: 'icmp_code'}
    icmp_v6 = {kind + 3: name for kind, name in icmp.items()}
    numbers = {1: 'protocol', 2: 'src_port', 3: 'dst_port', **icmp, **icmp_v6}
    return {
        **{(number, 1, kind): f'{prefix}_src' for kind in (1, 3)},
        **{(number, 1, kind): f'{prefix}_dst' for kind in (2, 4)},
        **{(number, 2, kind): f'{prefix}_{name}' for kind, name in numbers.items()},
        (number, 3): f'{prefix}_zone',
    }


# Path of attribute types → field.
FIELDS: Mapping[Path, str] = {
    **_tuple_fields(1, 'orig'),
    **_tuple_fields(2, 'reply'),
    (3,): 'status',
    (8,): 'mark',
    (9, 1): 'orig_packets',
    (9, 2): 'orig_bytes',
    (10, 1): 'reply_packets',
    (10, 2): 'reply_bytes',
    (12,): 'id',
    (18,): 'zone',
    (20, 1): 'started_ns',
    (20, 2): 'stopped_ns',
}
_CONTAINERS = frozenset(path[:depth] for path in FIELDS for depth in range(1, len(path)))

# What the kernel never leaves out; of the rest it leaves out zeros.
_ALWAYS = frozenset({*flow_columns.ADDRESSES, 'orig_protocol', 'reply_protocol', 'status', 'id'})


@dataclasses.dataclass(frozen=True)
class Layout:
    """What a walk through one message has met; places are counted in words.

    :param headers: place and content of each header of an attribute, and of the
        family before them
    :param fields: place and number of words of each field
    """

    family: int
    headers: Sequence[tuple[int, int]]
    fields: Mapping[str, tuple[int, int]]


def walk(message: bytes) -> Layout:
    """Read one message attribute by attribute.

    Of an attribute that comes twice the last one stands, as for the kernel itself.

    :raises SourceError: an attribute does not fit, or what must be there is not
    """
    family = message[netlink.HEADER_BYTES]
    if family not in flow_columns.ADDRESS_BYTES:
        raise exceptions.SourceError(f'an entry of address family {family}')
    headers = [_word(message, netlink.HEADER_BYTES)]
    fields = {}
    for path, offset, size in _attributes(message, HEADER_BYTES, len(message), ()):
        headers.append(_word(message, offset))
        if path in FIELDS:
            name = FIELDS[path]
            if size != flow_columns.size_of(name, family):
                raise exceptions.SourceError(f'an entry whose {name} has {size} bytes')
            fields[name] = offset // 4 + 1, size + 3 >> 2
    missing = _ALWAYS.difference(fields)
    if missing:
        raise exceptions.SourceError(f'an entry without {", ".join(sorted(missing))}')
    return Layout(family, headers, fields)


def _attributes(
    message: bytes, start: int, end: int, path: Path
) -> Iterator[tuple[Path, int, int]]:
    """Give path, offset of the header and bytes of the value of each attribute."""
    offset = start
    while end - offset >= 4:
        size, kind = struct.unpack_from('=HH', message, offset)
        if size < 4 or size > end - offset:
            raise exceptions.SourceError(f'an attribute of {size} bytes among {end - offset}')
        here = (*path, kind & _TYPE_MASK)
        yield here, offset, size - 4
        if here in _CONTAINERS:
            yield from _attributes(message, offset + 4, offset + size, here)
        offset += size + 3 & ~3


def _word(message: bytes, offset: int) -> tuple[int, int]:
    return offset // 4, struct.unpack_from('=I', message, offset)[0]


class Template:
    """A layout as arrays: where the headers are and what, where fields come from and go."""

    def __init__(self, layout: Layout) -> None:
        self.schema = flow_columns.schema_of(
            layout.family, frozenset(layout.fields).intersection(flow_columns.REPORTED)
        )
        self.idle_dumps = 0
        self._header_places = np.array([place for place, _ in layout.headers])
        self._headers = np.array([[word] for _, word in layout.headers], np.uint32)
        sources: list[int] = []
        targets: list[int] = []
        for name, (place, words) in layout.fields.items():
            first = self.schema.rows[name].start
            sources.extend(range(place, place + words))
            targets.extend(range(first, first + words))
        self._sources, self._targets = np.array(sources), np.array(targets)

    def matches(self, messages: Words) -> npt.NDArray[np.bool_]:
        """Tell of each message, a row, whether all its headers are the template's."""
        same = messages.T[self._header_places] == self._headers
        found: npt.NDArray[np.bool_] = same.all(axis=0)
        return found

    def lift(self, messages: Words, block: Words) -> None:
        """Copy the fields of the messages into a block, or a part of one."""
        block[self._targets] = messages.T[self._sources]


class Templates:
    """The templates so far, by length of message; they serve many dumps."""

    def __init__(self, limit: int = MAX_TEMPLATES) -> None:
        self._limit = limit
        self._by_length: dict[int, list[Template]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_length.values()))

    def known(self, length: int) -> Sequence[Template]:
        """Return those for one length."""
        return tuple(self._by_length.get(length, ()))

    def add(self, length: int, template: Template) -> bool:
        """Remember one more; tell whether there was room."""
        if len(self) >= self._limit:
            return False
        self._by_length.setdefault(length, []).append(template)
        return True

    def grow_older(self) -> None:
        """Note that a new dump begins; drop what has fitted nothing for long."""
        for length, templates in tuple(self._by_length.items()):
            kept = [template for template in templates if template.idle_dumps < KEPT_DUMPS]
            for template in kept:
                template.idle_dumps += 1
            self._by_length[length] = kept
            if not kept:
                del self._by_length[length]


@dataclasses.dataclass(frozen=True, slots=True)
class Decoded:
    """What one buffer held.

    :param entries: how many messages
    :param odd: how many of them found no template and were walked by themselves
    """

    messages: netlink.Messages
    flows: Sequence[flow_columns.Flows]
    entries: int
    odd: int


class Decoder:
    """Decodes the buffers of one dump.

    :param sequence: nlmsg_seq of the request
    :param port_id: nlmsg_pid of the socket that sent it
    """

    def __init__(self, sequence: int, port_id: int, templates: Templates | None = None) -> None:
        self._finder = netlink.Finder(CT_NEW, HEADER_BYTES, sequence, port_id)
        self._templates = Templates() if templates is None else templates

    def decode(self, buffer: netlink.Octets) -> Decoded:
        """Return the flows of a buffer of whole messages, in no particular order.

        :raises SourceError: the bytes are no such messages, or another's
        """
        messages = self._finder.find(buffer)
        blocks = _Blocks()
        odd = 0
        for length in np.unique(messages.lengths).tolist():
            positions = messages.positions[messages.lengths == length]
            odd += self._sort(_rows(buffer, positions, length), length, blocks)
        return Decoded(messages, blocks.flows(), len(messages.positions), odd)

    def _sort(self, rows: Words, length: int, blocks: '_Blocks') -> int:
        """Find a template for each message of one length; return how many have none."""
        for template in self._templates.known(length):
            rows = blocks.take(template, rows)
            if not len(rows):
                return 0
        while len(rows):
            template = Template(walk(rows[0].tobytes()[:length]))
            if not self._templates.add(length, template):
                break
            rows = blocks.take(template, rows)
        for row in rows:
            blocks.put(Template(walk(row.tobytes()[:length])), row[np.newaxis])
        return len(rows)


class _Blocks:
    """Messages beside their templates, until all of a buffer are there."""

    def __init__(self) -> None:
        self._parts: dict[flow_columns.Schema, list[tuple[Template, Words]]] = {}

    def take(self, template: Template, rows: Words) -> Words:
        """Keep the messages that fit a template; return the others."""
        good = template.matches(rows)
        if good.all():
            self.put(template, rows)
            return rows[:0]
        if good.any():
            self.put(template, rows[good])
        return rows[~good]

    def put(self, template: Template, rows: Words) -> None:
        """Keep messages that fit a template."""
        template.idle_dumps = 0
        self._parts.setdefault(template.schema, []).append((template, rows))

    def flows(self) -> list[flow_columns.Flows]:
        """Return all there are, in as few blocks as there are schemas."""
        return [
            flow_columns.Flows(schema, _block(schema, parts))
            for schema, parts in self._parts.items()
        ]


def _rows(buffer: netlink.Octets, positions: netlink.Places, length: int) -> Words:
    """Return messages of one length as rows of words."""
    words = buffer.view(np.uint32)
    width = length + 3 >> 2
    # A message from every word on; those that are meant are copied out of it.
    shape = (len(words) - width + 1, width)
    windows: Words = np.ndarray(shape, np.uint32, words, strides=(4, 4))
    return windows[positions // 4]


def _block(schema: flow_columns.Schema, parts: Sequence[tuple[Template, Words]]) -> Words:
    """Return the fields of messages as rows of numbers."""
    block = np.zeros((schema.height, sum(len(rows) for _, rows in parts)), np.uint32)
    start = 0
    for template, rows in parts:
        template.lift(rows, block[:, start : start + len(rows)])
        start += len(rows)
    if sys.byteorder == 'little':
        block.byteswap(inplace=True)
    # Of a smaller number the value was in the first bytes of its word.
    one = len(flow_columns.OF_ONE_BYTE)
    two = one + len(flow_columns.OF_TWO_BYTES)
    block[:one] >>= np.uint32(24)
    block[one:two] >>= np.uint32(16)
    for name in ('orig_zone', 'reply_zone'):
        block[schema.rows['zone']] |= block[schema.rows[name]]
    return block
