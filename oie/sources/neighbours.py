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
import ipaddress
import socket
import struct

from oie import exceptions
from oie.sources import device_addresses
from oie.sources import netlink_attributes
from oie.sources import netlink_client

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Neighbours = Mapping[Ip, frozenset[str]]

RTM_NEWNEIGH = 28
RTM_GETNEIGH = 30

NDA_DST = 1
NDA_LLADDR = 2
# Of NUD_*: what is being looked for, was not found, or needs no looking (multicast, loopback).
_UNRESOLVED = 0x01 | 0x20 | 0x40

# struct ndmsg.
_NEIGHBOUR = struct.Struct('=BxxxiHBB')

_IP_BYTES: Mapping[int, int] = {socket.AF_INET: 4, socket.AF_INET6: 16}
_MAC_BYTES = 6


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
        self._client = netlink_client.NetlinkClient(socket.NETLINK_ROUTE)

    def __enter__(self) -> 'NeighbourSocket':
        return self

    def __exit__(self, *exc: object) -> None:
        self._client.close()

    def addresses(self) -> tuple[LocalAddress, ...]:
        """Return all addresses of the namespace.

        :raises SourceError: they could not be read, or not all of them
        """
        request, least = device_addresses.request(), device_addresses.FIXED.size
        return addresses(self._client.dump(request, device_addresses.RTM_NEWADDR, least, bytes))

    def neighbours(self) -> Neighbours:
        """Return the MAC addresses of each neighbour that has been resolved.

        Several for an address that several interfaces resolve.

        :raises SourceError: they could not be read, or not all of them
        """
        request = netlink_client.dump_request(RTM_GETNEIGH, bytes(_NEIGHBOUR.size))
        return neighbours(self._client.dump(request, RTM_NEWNEIGH, _NEIGHBOUR.size, bytes))


# --- messages into what they say ----------------------------------------------


def addresses(bodies: Iterable[bytes]) -> tuple[LocalAddress, ...]:
    """Return the addresses of a dump.

    :raises SourceError: a message contradicts itself
    """
    found = []
    for body in bodies:
        address = device_addresses.parse(memoryview(body))
        own, far = (_ip(address.family, each) for each in (address.own, address.far))
        if own is not None:
            prefix = _network(far or own, address.prefix_length)
            found.append(LocalAddress(own, prefix, address.device))
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
