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


"""Network devices and what they have counted, as rtnetlink dumps them.

Source: linux/rtnetlink.h, linux/if_link.h (struct rtnl_link_stats64), rtnl_fill_ifinfo() of
net/core/rtnetlink.c; the words are those of net/core/net-sysfs.c. Numbers are in the byte order
of the host.
"""

import struct
import sys
from typing import NamedTuple

from oie import exceptions
from oie import model
from oie.sources import netlink_attributes
from oie.sources import netlink_client

RTM_NEWLINK = 16
RTM_GETLINK = 18
IFLA_ADDRESS = 1
IFLA_IFNAME = 3
IFLA_MTU = 4
IFLA_OPERSTATE = 16
IFLA_STATS64 = 23
IFLA_EXT_MASK = 29
# Leaves out the statistics of each protocol, which nobody asks for.
RTEXT_FILTER_SKIP_STATS = 8
IFF_UP = 0x1
IFF_LOOPBACK = 0x8

# struct ifinfomsg.
FIXED = struct.Struct('=BxHiII')
OPERSTATES = ('unknown', 'notpresent', 'down', 'lowerlayerdown', 'testing', 'dormant', 'up')

_FLAGS = struct.Struct('=8xI')
_TOLD = frozenset({IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_OPERSTATE})
_NUMBER = struct.Struct('=I')
_OPERSTATES = {bytes([number]): word for number, word in enumerate(OPERSTATES)}
_KNOWN = len(model.LinkStatistics._fields)
_STATISTICS = struct.Struct(f'={_KNOWN}Q')


class Link(NamedTuple):
    """A network device, and where in its message the counters begin and end.

    What the kernel does not tell is None, or empty. Messages of which so many bytes as ``steady``
    are equal say the same, but for the counters, which both have in the same place.
    """

    device: int
    name: str
    is_up: bool
    operstate: str
    mtu: int | None
    mac: str
    begin: int
    end: int
    steady: int


def parse(body: memoryview) -> Link:
    """Return what a message without its header says.

    :raises SourceError: it contradicts itself
    """
    _, _, device, flags, _ = FIXED.unpack_from(body)
    found: dict[int, memoryview] = {}
    place, begin, end, steady = FIXED.size, 0, 0, len(body)
    for kind, value in netlink_attributes.walk(body[place:]):
        place += netlink_attributes.HEADER.size
        found[kind] = value
        if kind == IFLA_STATS64:
            begin = steady = place
            end = place + len(value)
        elif kind in _TOLD and begin:
            # It comes after the counters: nothing less than the whole message is the same.
            steady = len(body)
        place += len(value) + 3 & ~3
    return Link(
        device=device,
        name=bytes(found.get(IFLA_IFNAME, b'')).rstrip(b'\0').decode('utf-8', 'replace'),
        is_up=bool(flags & IFF_UP),
        operstate=_OPERSTATES.get(bytes(found.get(IFLA_OPERSTATE, b'')), OPERSTATES[0]),
        mtu=int.from_bytes(found[IFLA_MTU], sys.byteorder) if IFLA_MTU in found else None,
        mac=found[IFLA_ADDRESS].hex(':') if IFLA_ADDRESS in found else '',
        begin=begin,
        end=end,
        steady=steady,
    )


def is_loopback(body: memoryview) -> bool:
    """Return whether a message without its header is about a loopback device."""
    return bool(_FLAGS.unpack_from(body)[0] & IFF_LOOPBACK)


def request(more: bytes = b'') -> bytes:
    """Return the message that asks for all devices of a namespace.

    :param more: attributes
    """
    mask = netlink_attributes.HEADER.pack(8, IFLA_EXT_MASK) + _NUMBER.pack(RTEXT_FILTER_SKIP_STATS)
    return netlink_client.dump_request(RTM_GETLINK, bytes(FIXED.size) + mask + more)


def statistics(counters: bytes | memoryview) -> model.LinkStatistics:
    """Return what a struct rtnl_link_stats64 says.

    It has grown with the kernels, at its end; what an old one does not tell is None.

    :raises SourceError: it holds no whole numbers
    """
    if len(counters) >= _STATISTICS.size:
        return model.LinkStatistics._make(_STATISTICS.unpack_from(counters))
    if len(counters) % 8:
        raise exceptions.SourceError(f'statistics of a device with {len(counters)} bytes')
    return model.LinkStatistics(*struct.unpack(f'={len(counters) // 8}Q', counters))
