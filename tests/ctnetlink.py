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

"""Builder of ctnetlink messages, byte by byte and independent of what is tested.

An entry is described by its two tuples and whatever else it shall have; it
becomes attributes in the order in which Linux 6.18 gives them. The same
attributes make a valid request to create the entry.

    flow = ctnetlink.Entry(ctnetlink.tcp('10.0.0.5', '192.0.2.1', 40000, 443))
    message = ctnetlink.message(flow, sequence=7, port_id=42)
"""

from collections.abc import Iterable
import dataclasses
import ipaddress
import socket
import struct
from typing import Any

from oie.sources import flow_columns

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x1
NLM_F_MULTI = 0x2
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400

CT_NEW = 0x100
CT_GET = 0x101
CT_DELETE = 0x102

NESTED = 0x8000

ICMP, TCP, UDP, GRE, ESP, ICMPV6, SCTP = 1, 6, 17, 47, 50, 58, 132

SEEN_REPLY, ASSURED, CONFIRMED = 1 << 1, 1 << 2, 1 << 3
ESTABLISHED = SEEN_REPLY | ASSURED | CONFIRMED

# Of an open connection; the kernel takes no SCTP association without its tags.
_TCP_OPEN = (1, (1, 3, 'B'))
_SCTP_OPEN = (3, (1, 4, 'B'), (2, 0x11111111, 'I'), (3, 0x22222222, 'I'))
_OPEN_STATES = {TCP: _TCP_OPEN, SCTP: _SCTP_OPEN}
_REPLY_TYPES = {8: 0, 13: 14, 128: 129, 139: 140}


# An entry as plain values: addresses are bytes, what was not reported is None.
Record = dict[str, int | bytes | None]


@dataclasses.dataclass(frozen=True)
class Tuple:
    """One direction of a flow. GRE's ports are its keys, an ESP flow has neither."""

    src: str
    dst: str
    protocol: int
    src_port: int | None = None
    dst_port: int | None = None
    icmp_id: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    zone: int | None = None

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6, by the source."""
        version = ipaddress.ip_address(self.src).version
        return int(socket.AF_INET if version == 4 else socket.AF_INET6)

    def reversed(self) -> 'Tuple':
        """Return the tuple of the replies when nothing is translated."""
        kind = self.icmp_type
        return dataclasses.replace(
            self,
            src=self.dst,
            dst=self.src,
            src_port=self.dst_port,
            dst_port=self.src_port,
            icmp_type=None if kind is None else _REPLY_TYPES.get(kind, kind),
            zone=None,
        )

    def record(self, prefix: str) -> Record:
        """Return what a decoder should make of it."""
        values = {**dataclasses.asdict(self), 'src': packed(self.src), 'dst': packed(self.dst)}
        return {f'{prefix}_{name}': value or 0 for name, value in values.items()}

    def attributes(self) -> bytes:
        """Return what belongs into CTA_TUPLE_ORIG or CTA_TUPLE_REPLY."""
        first = 1 if self.family == socket.AF_INET else 3
        addresses = attribute(first, packed(self.src)) + attribute(first + 1, packed(self.dst))
        icmp = 4 if self.protocol == ICMP else 7
        numbers = (
            *((1, self.protocol, 'B'), (2, self.src_port, 'H'), (3, self.dst_port, 'H')),
            *((icmp, self.icmp_id, 'H'), (icmp + 1, self.icmp_type, 'B')),
            (icmp + 2, self.icmp_code, 'B'),
        )
        found = nest(1, addresses) + nest(2, _numbers(*numbers))
        return found + _numbers((3, self.zone, 'H'))


@dataclasses.dataclass(frozen=True)
class Entry:
    """A whole entry of the table; what is None is not in its message.

    :param reply: the tuple of the replies; the original reversed if None
    :param counters: packets and bytes of the original direction, then of the reply
    :param timestamps: nanoseconds since 1970 at which it began and ended
    :param nat_src: address that the kernel shall translate the source to
    :param more: further attributes, ready made
    """

    orig: Tuple
    reply: Tuple | None = None
    zone: int | None = None
    status: int | None = ESTABLISHED
    id: int | None = None
    use: int | None = None
    mark: int | None = None
    timeout: int | None = 86400
    counters: tuple[int, int, int, int] | None = None
    timestamps: tuple[int, ...] | None = None
    labels: bytes | None = None
    helper: str | None = None
    master: Tuple | None = None
    nat_src: str | None = None
    nat_dst: str | None = None
    more: bytes = b''

    @property
    def replies(self) -> Tuple:
        """The tuple of the replies."""
        return self.orig.reversed() if self.reply is None else self.reply

    def attributes(self) -> bytes:
        """Return all attributes in the kernel's order."""
        return b''.join(self.parts())

    def parts(self) -> list[bytes]:
        """Return the attributes one by one; empty is what the entry has not."""
        return [
            nest(1, self.orig.attributes()),
            nest(2, self.replies.attributes()),
            _numbers((18, self.zone, 'H'), (3, self.status, 'I'), (8, self.mark, 'I')),
            _numbers((12, self.id, 'I'), (11, self.use, 'I')),
            b'' if self.master is None else nest(14, self.master.attributes()),
            _numbers((7, self.timeout, 'I')),
            self._protocol_state(),
            *self._statistics(),
            b'' if self.helper is None else nest(5, attribute(1, self.helper.encode() + b'\0')),
            b'' if self.labels is None else attribute(22, self.labels),
            _nat(6, self.nat_src),
            _nat(13, self.nat_dst),
            self.more,
        ]

    def record(self) -> Record:
        """Return what a decoder should make of it, in the form of ``records()``."""
        packets = self.counters or (None,) * 4
        times = (*(self.timestamps or ()), None, None)
        zone = self.zone or self.orig.zone or self.replies.zone or 0
        return {
            **self.orig.record('orig'),
            **self.replies.record('reply'),
            'zone': zone,
            'status': self.status or 0,
            'mark': self.mark or 0,
            'id': self.id or 0,
            **dict(zip(flow_columns.REPORTED, (*packets, *times[:2]), strict=True)),
        }

    def _protocol_state(self) -> bytes:
        state = _OPEN_STATES.get(self.orig.protocol)
        return b'' if state is None else nest(4, nest(state[0], _numbers(*state[1:])))

    def _statistics(self) -> list[bytes]:
        found = []
        if self.counters is not None:
            for kind, (packets, octets) in zip(
                (9, 10), (self.counters[:2], self.counters[2:]), strict=True
            ):
                found.append(nest(kind, _numbers((1, packets, 'Q'), (2, octets, 'Q'))))
        if self.timestamps is not None:
            numbers = [(1 + place, time, 'Q') for place, time in enumerate(self.timestamps)]
            found.append(nest(20, _numbers(*numbers)))
        return found


def records(blocks: Iterable[flow_columns.Flows]) -> list[Record]:
    """Return decoded entries as plain values."""
    found: list[Record] = []
    for flows in blocks:
        names = sorted(flows.names.union(flow_columns.REPORTED))
        columns = [_values(flows, name) for name in names]
        found += [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return in_order(found)


def in_order(unordered: Iterable[Record]) -> list[Record]:
    """Return records so that two lists of the same ones are equal."""
    return sorted(unordered, key=lambda record: repr(sorted(record.items())))


def _values(flows: flow_columns.Flows, name: str) -> list[Any]:
    if name in flow_columns.ADDRESSES:
        size = flow_columns.ADDRESS_BYTES[flows.family]
        numbers = zip(*(part.tolist() for part in flows.address(name)), strict=True)
        return [(high << 64 | low).to_bytes(size, 'big') for high, low in numbers]
    column = flows.column(name)
    return [None] * len(flows) if column is None else list(column.tolist())


def tcp(src: str, dst: str, src_port: int = 40000, dst_port: int = 443) -> Tuple:
    """Return the original tuple of a TCP connection."""
    return Tuple(src, dst, TCP, src_port, dst_port)


def udp(src: str, dst: str, src_port: int = 40000, dst_port: int = 53) -> Tuple:
    """Return the original tuple of a UDP flow."""
    return Tuple(src, dst, UDP, src_port, dst_port)


def sctp(src: str, dst: str, src_port: int = 40000, dst_port: int = 2905) -> Tuple:
    """Return the original tuple of an SCTP association."""
    return Tuple(src, dst, SCTP, src_port, dst_port)


def gre(src: str, dst: str, src_key: int = 17, dst_key: int = 34) -> Tuple:
    """Return the original tuple of a GRE flow."""
    return Tuple(src, dst, GRE, src_key, dst_key)


def echo(src: str, dst: str, number: int = 7) -> Tuple:
    """Return the original tuple of a ping, over IPv4 or IPv6."""
    protocol, kind = (ICMPV6, 128) if ':' in src else (ICMP, 8)
    return Tuple(src, dst, protocol, icmp_id=number, icmp_type=kind, icmp_code=0)


def portless(src: str, dst: str, protocol: int = ESP) -> Tuple:
    """Return the original tuple of a protocol that has no ports."""
    return Tuple(src, dst, protocol)


def message(
    entry: Entry,
    *,
    sequence: int,
    port_id: int = 0,
    flags: int = NLM_F_MULTI,
    kind: int = CT_NEW,
) -> bytes:
    """Return one entry as the kernel dumps it or, by other flags, takes it."""
    return raw_message(
        kind, flags, sequence, port_id, generic(entry.orig.family) + entry.attributes()
    )


def done(sequence: int, port_id: int, error: int = 0, flags: int = NLM_F_MULTI) -> bytes:
    """Return the end of a dump, good or not."""
    return raw_message(NLMSG_DONE, flags, sequence, port_id, struct.pack('=i', -error))


def refusal(sequence: int, port_id: int, error: int) -> bytes:
    """Return the kernel's answer to a request that it does not grant."""
    request = struct.pack('=IHHII', 20, CT_GET, 0x301, sequence, port_id)
    payload = struct.pack('=i', -error) + request
    return raw_message(NLMSG_ERROR, 0, sequence, port_id, payload)


def raw_message(kind: int, flags: int, sequence: int, port_id: int, payload: bytes) -> bytes:
    """Return a netlink message, padded to whole words."""
    header = struct.pack('=IHHII', 16 + len(payload), kind, flags, sequence, port_id)
    return _padded(header + payload)


def generic(family: int) -> bytes:
    """Return a struct nfgenmsg."""
    return struct.pack('=BBH', family, 0, 0)


def attribute(kind: int, payload: bytes) -> bytes:
    """Return a struct nlattr with its payload, padded to whole words."""
    return _padded(struct.pack('=HH', 4 + len(payload), kind) + payload)


def nest(kind: int, attributes: bytes) -> bytes:
    """Return attributes inside an attribute."""
    return attribute(kind | NESTED, attributes)


def packed(address: str) -> bytes:
    """Return an address as it goes over the wire."""
    return ipaddress.ip_address(address).packed


def _numbers(*numbers: tuple[int, int | None, str]) -> bytes:
    """Return numbers in network byte order, those that are not None."""
    return b''.join(
        attribute(kind, struct.pack(f'!{code}', number))
        for kind, number, code in numbers
        if number is not None
    )


def _nat(kind: int, address: str | None) -> bytes:
    if address is None:
        return b''
    is_ipv4 = ipaddress.ip_address(address).version == 4
    return nest(kind, attribute(1 if is_ipv4 else 4, packed(address)))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
