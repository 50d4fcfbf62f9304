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


"""The addresses of network devices, as rtnetlink dumps them.

Source: linux/rtnetlink.h, linux/if_addr.h. Numbers are in the byte order of the host.
"""

import socket
import struct
from typing import NamedTuple

from oie.sources import netlink_attributes
from oie.sources import netlink_client

RTM_NEWADDR = 20
RTM_GETADDR = 22
IFA_ADDRESS = 1
IFA_LOCAL = 2

# struct ifaddrmsg.
FIXED = struct.Struct('=BBBBI')


class Address(NamedTuple):
    """One message. Of a point-to-point link ``far`` is the peer's, else both are the same.

    ``prefix_length`` is that of ``far``; ``device`` is its index.
    """

    family: int
    prefix_length: int
    device: int
    own: bytes
    far: bytes


def parse(body: memoryview) -> Address:
    """Return what a message without its header says.

    :raises SourceError: it contradicts itself
    """
    family, length, _, _, device = FIXED.unpack_from(body)
    found = {
        kind: bytes(value)
        for kind, value in netlink_attributes.walk(body[FIXED.size :])
        if kind in (IFA_ADDRESS, IFA_LOCAL)
    }
    far, own = found.get(IFA_ADDRESS, b''), found.get(IFA_LOCAL, b'')
    return Address(family, length, device, own or far, far or own)


def request(more: bytes = b'') -> bytes:
    """Return the message that asks for all addresses of a namespace.

    :param more: attributes
    """
    return netlink_client.dump_request(RTM_GETADDR, bytes(FIXED.size) + more)


def text(address: Address) -> str:
    """Return the device's own address with the length of the prefix, ``10.0.0.1/24``.

    Empty if it is none of the Internet.
    """
    try:
        return f'{socket.inet_ntop(address.family, address.own)}/{address.prefix_length}'
    except (OSError, ValueError):
        return ''
