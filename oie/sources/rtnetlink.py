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

"""The kernel's answer about a network device → what its virtual functions have counted.

Source: linux/rtnetlink.h and linux/if_link.h; rtnl_fill_vfinfo() of net/core/rtnetlink.c.
Numbers are in the byte order of the host.

pyroute2 would decode the same, but it knows no deadline, its buffer has been too small for
many virtual functions twice (svinota/pyroute2, issues 813 and 1044), and 0.9.7 takes an
answer that was cut between two counters for a whole one.
"""

from collections.abc import Mapping
import dataclasses
import os
import socket
import struct

from oie import exceptions
from oie.sources import netlink_attributes
from oie.sources import netlink_client

Counters = Mapping[str, int]

RTM_NEWLINK = 16
RTM_GETLINK = 18

IFLA_IFNAME = 3
IFLA_VFINFO_LIST = 22
IFLA_EXT_MASK = 29
RTEXT_FILTER_VF = 1
IFLA_VF_INFO = 1
IFLA_VF_MAC = 1
IFLA_VF_STATS = 8
# IFLA_VF_STATS_*, which begin with 0. Received and sent are seen from the virtual function:
# mlx5 (en_rep.c) flips them to tell of the port of the switch that it is plugged into, ixgbe
# reads the "good octets received" of the function itself (PVFGORC), i40e and ice of its VSI.
_COUNTERS = {0: 'rx_packets', 1: 'tx_packets', 2: 'rx_bytes', 3: 'tx_bytes'}

# struct ifinfomsg.
_LINK = struct.Struct('=BxHiII')

# 296 bytes for each virtual function, and its list is an attribute of 64 KiB at most.
_ROOM = 2**17


@dataclasses.dataclass(frozen=True, slots=True)
class Link:
    """A network device and the counters of its virtual functions, by their number."""

    name: str
    functions: Mapping[int, Counters]


def ask(index: int) -> bytes:
    """Return what the kernel says of the network device that has this index.

    The device must be in the network namespace of the caller; no right is needed. It takes as
    long as the kernel wants: the answer waits for its lock (RTNL) and for drivers.

    :raises SourceError: there is no answer, or a part of it only
    """
    buffer = memoryview(bytearray(_ROOM))
    try:
        with netlink_client.NetlinkClient(socket.NETLINK_ROUTE, buffer=buffer) as client:
            return bytes(client.ask(request(index)))
    except exceptions.SourceError as exc:
        raise exceptions.SourceError(f'network device {index}: {exc}') from exc


def request(index: int) -> bytes:
    """Return the message that asks for a device with its virtual functions."""
    mask = netlink_attributes.HEADER.pack(8, IFLA_EXT_MASK) + struct.pack('=I', RTEXT_FILTER_VF)
    body = _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0) + mask
    return netlink_client.request(RTM_GETLINK, body)


def parse(answer: bytes) -> Link:
    """Return what an answer says; without virtual functions ``functions`` is empty.

    A counter that is not there is not in the result.

    :raises SourceError: it is no answer about a device, or contradicts itself
    """
    name, functions = '', dict[int, Counters]()
    body = netlink_client.only(memoryview(answer), RTM_NEWLINK, _LINK.size)
    for kind, value in netlink_attributes.walk(body[_LINK.size :]):
        if kind == IFLA_IFNAME:
            name = os.fsdecode(bytes(value).rstrip(b'\0'))
        elif kind == IFLA_VFINFO_LIST:
            functions = _functions(value)
    return Link(name, functions)


def _functions(listed: memoryview) -> dict[int, Counters]:
    # Where the list is longer than its 16 bits can tell, which happens with more than 221
    # functions, an attribute in it seems to reach beyond its end.
    found: dict[int, Counters] = {}
    for kind, value in netlink_attributes.walk(listed):
        if kind == IFLA_VF_INFO:
            number, counters = _function(value)
            # A driver that leaves out the number (ndo_get_vf_config) makes all of them 0.
            if number in found:
                raise exceptions.SourceError(f'two virtual functions have the number {number}')
            found[number] = counters
    return found


def _function(info: memoryview) -> tuple[int, Counters]:
    number, counters = None, {}
    for kind, value in netlink_attributes.walk(info):
        if kind == IFLA_VF_MAC:
            number = _number(value[:4], '=I')
        elif kind == IFLA_VF_STATS:
            counters = {
                _COUNTERS[which]: _number(counter, '=Q')
                for which, counter in netlink_attributes.walk(value)
                if which in _COUNTERS
            }
    if number is None:
        raise exceptions.SourceError('a virtual function without a number')
    return number, counters


def _number(value: memoryview, form: str) -> int:
    if len(value) != struct.calcsize(form):
        raise exceptions.SourceError(f'a number of {len(value)} bytes in a netlink attribute')
    return int(struct.unpack(form, value)[0])
