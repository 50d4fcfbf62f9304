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

"""Addresses that a network namespace has, and the MAC addresses it knows of its neighbours.

Two small dumps of rtnetlink, which need no right. The socket belongs to the namespace in which
it is opened. Source: linux/rtnetlink.h, linux/if_addr.h, linux/neighbour.h. Numbers are in the
byte order of the host.
"""

import collections
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import errno
import ipaddress
import socket
import struct
import types

from oie import exceptions
from oie.sources import netlink_attributes

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Neighbours = Mapping[Ip, frozenset[str]]

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x1
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300
RTM_NEWADDR = 20
RTM_GETADDR = 22
RTM_NEWNEIGH = 28
RTM_GETNEIGH = 30

IFA_ADDRESS = 1
IFA_LOCAL = 2
NDA_DST = 1
NDA_LLADDR = 2
# Of NUD_*: what is being looked for, was not found, or needs no looking (multicast, loopback).
_UNRESOLVED = 0x01 | 0x20 | 0x40

# struct nlmsghdr, ifaddrmsg and ndmsg.
_HEADER = struct.Struct('=IHHII')
_ADDRESS = struct.Struct('=BBBBI')
_NEIGHBOUR = struct.Struct('=BxxxiHBB')

_IP_BYTES: Mapping[int, int] = {socket.AF_INET: 4, socket.AF_INET6: 16}
_MAC_BYTES = 6
_SEQUENCE = 1
# The kernel gives no more at once (netlink_recvmsg()).
_ROOM = 2**15
_PATIENCE = 1.0
_ATTEMPTS = 3


@dataclasses.dataclass(frozen=True, slots=True)
class LocalAddress:
    """An address that a namespace has, and the prefix that it reaches on link by it.

    ``interface`` is the index of the interface that has it.
    """

    ip: Ip
    prefix: Network
    interface: int = dataclasses.field(default=0, compare=False)


class NeighbourSocket:
    """Asks the kernel about the network namespace in which this is made.

    :raises SourceError: there is no such socket
    """

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        except OSError as exc:
            raise exceptions.SourceError(f'no rtnetlink socket: {exc}') from exc
        try:
            self._socket.settimeout(_PATIENCE)
            self._socket.bind((0, 0))
            # Whoever else sends us anything gets an error now.
            self._socket.connect((0, 0))
        except OSError as exc:
            self._socket.close()
            raise exceptions.SourceError(f'rtnetlink socket: {exc}') from exc

    def __enter__(self) -> 'NeighbourSocket':
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        self._socket.close()

    def addresses(self) -> tuple[LocalAddress, ...]:
        """Return all addresses of the namespace.

        :raises SourceError: they could not be read, or not all of them
        """
        return addresses(self._dump(RTM_GETADDR, RTM_NEWADDR, _ADDRESS.size))

    def neighbours(self) -> Neighbours:
        """Return the MAC addresses of each neighbour that has been resolved.

        Several for an address that several interfaces resolve.

        :raises SourceError: they could not be read, or not all of them
        """
        return neighbours(self._dump(RTM_GETNEIGH, RTM_NEWNEIGH, _NEIGHBOUR.size))

    def _dump(self, asking: int, kind: int, least: int) -> list[bytes]:
        """Return the whole dump, message by message, of both families."""
        for _ in range(_ATTEMPTS):
            try:
                bodies, is_interrupted = self._ask(asking, kind, least)
            except OSError as exc:
                raise exceptions.SourceError(f'rtnetlink: {exc}') from exc
            if not is_interrupted:
                return bodies
        raise exceptions.InconsistentTable('rtnetlink: what is dumped changes all the time')

    def _ask(self, asking: int, kind: int, least: int) -> tuple[list[bytes], bool]:
        size, flags = _HEADER.size + least, NLM_F_REQUEST | NLM_F_DUMP
        self._socket.send(_HEADER.pack(size, asking, flags, _SEQUENCE, 0) + bytes(least))
        bodies: list[bytes] = []
        is_interrupted = False
        while True:
            data, _, received, _ = self._socket.recvmsg(_ROOM)
            if received & socket.MSG_TRUNC:
                raise exceptions.SourceError(f'rtnetlink: a message of more than {_ROOM} bytes')
            part = split(data, kind, least)
            bodies += part.bodies
            is_interrupted |= part.is_interrupted
            if part.is_last:
                return bodies, is_interrupted


# --- bytes into what they say -------------------------------------------------


@dataclasses.dataclass(slots=True)
class Part:
    """What one buffer of a dump holds: the messages without their headers."""

    bodies: list[bytes]
    is_last: bool = False
    is_interrupted: bool = False


def split(buffer: bytes, kind: int, least: int) -> Part:
    """Return the messages of a buffer.

    :param kind: nlmsg_type of the answers
    :param least: bytes that each of them has at least
    :raises SourceError: it is no part of such a dump
    """
    part, place = Part([]), 0
    while place < len(buffer):
        if part.is_last or len(buffer) - place < _HEADER.size:
            raise exceptions.SourceError('rtnetlink: more bytes than messages')
        size, found, flags, sequence, _ = _HEADER.unpack_from(buffer, place)
        body = buffer[place + _HEADER.size : place + size]
        if sequence != _SEQUENCE or size != _HEADER.size + len(body):
            raise exceptions.SourceError(f'rtnetlink: a message of {size} bytes to {sequence}')
        part.is_interrupted |= bool(flags & NLM_F_DUMP_INTR)
        if found in (NLMSG_DONE, NLMSG_ERROR):
            part.is_last = _end(body)
        elif found == kind and len(body) >= least:
            part.bodies.append(body)
        else:
            raise exceptions.SourceError(f'rtnetlink: a message of type {found}')
        place += size + 3 & ~3
    return part


def _end(body: bytes) -> bool:
    """Return that a dump ended well.

    :raises SourceError: it did not
    """
    number = -struct.unpack_from('=i', body)[0] if len(body) >= 4 else 0
    if number:
        name = errno.errorcode.get(number, str(number))
        raise exceptions.SourceError(f'rtnetlink: the kernel refuses: {name}')
    return True


def addresses(bodies: Iterable[bytes]) -> tuple[LocalAddress, ...]:
    """Return the addresses of a dump.

    :raises SourceError: a message contradicts itself
    """
    found = []
    for body in bodies:
        family, length, _, _, interface = _ADDRESS.unpack_from(body)
        values = _values(body, _ADDRESS)
        # Of a point-to-point link IFA_ADDRESS, and so the prefix, is the peer's.
        far = _ip(family, values.get(IFA_ADDRESS, b''))
        own = _ip(family, values.get(IFA_LOCAL, b'')) or far
        if own is not None:
            found.append(LocalAddress(own, _network(far or own, length), interface))
    return tuple(found)


def neighbours(bodies: Iterable[bytes]) -> Neighbours:
    """Return the MAC addresses of a dump by the address of the neighbour.

    :raises SourceError: a message contradicts itself
    """
    found: dict[Ip, set[str]] = collections.defaultdict(set)
    for body in bodies:
        family, _, state, *_ = _NEIGHBOUR.unpack_from(body)
        values = _values(body, _NEIGHBOUR)
        ip, mac = _ip(family, values.get(NDA_DST, b'')), values.get(NDA_LLADDR, b'')
        if ip is not None and len(mac) == _MAC_BYTES and not state & _UNRESOLVED:
            found[ip].add(mac.hex(':'))
    return {ip: frozenset(macs) for ip, macs in found.items()}


def _values(body: bytes, fixed: struct.Struct) -> dict[int, bytes]:
    """Return the attributes behind the fixed part of a message, by type."""
    attributes = netlink_attributes.walk(memoryview(body)[fixed.size :])
    return {kind: bytes(value) for kind, value in attributes}


def _ip(family: int, value: bytes) -> Ip | None:
    """Return an address; None if there is none, or not of the Internet."""
    if len(value) != _IP_BYTES.get(family):
        return None
    return ipaddress.ip_address(value)


def _network(ip: Ip, length: int) -> Network:
    try:
        return ipaddress.ip_network((ip.packed, length), strict=False)
    except ValueError as exc:
        raise exceptions.SourceError(f'rtnetlink: {ip} with a prefix of {length}') from exc
