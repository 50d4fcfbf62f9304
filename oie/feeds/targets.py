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


"""Which addresses a list may be fetched from: those that everybody on the Internet reaches."""

from collections.abc import Iterator
import ipaddress
import socket

import numpy as np

from oie import address_sets
from oie import exceptions
from oie.feeds import special_use

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# RFC 6052: where such a network has a translator, it connects to the IPv4 address at the end.
_NAT64 = ipaddress.IPv6Network('64:ff9b::/96')


def check(connected: socket.socket) -> None:
    """Check whom a socket is connected to: what a name resolves to may differ at every look-up.

    :raises FeedError: the peer is this host, its network, or has no global address
    """
    text = connected.getpeername()[0].partition('%')[0]
    if is_special(ipaddress.ip_address(text)):
        raise exceptions.FeedError(
            f'its address {text} is not one of the Internet; set allow_private_targets '
            'if the list is on a mirror of your own'
        )


def is_special(address: _Address) -> bool:
    """Return whether an address, or one that it stands for, is no global one."""
    index = address_sets.Index((special_use.addresses(),))
    return any(_is_in(index, each) for each in _meant(address))


def _is_in(index: address_sets.Index, address: _Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return bool(index.find_v4(np.array([int(address)], np.uint32))[0])
    number = address_sets.wide([int(address)])
    # IANA's registry no longer has the private networks of RFC 3513, some sites still do.
    return address.is_site_local or bool(index.find_v6(number.high, number.low)[0])


def _meant(address: _Address) -> Iterator[_Address]:
    """Yield an address and those that gateways make of it."""
    yield address
    if isinstance(address, ipaddress.IPv4Address):
        return
    if address in _NAT64:
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    for embedded in (address.ipv4_mapped, address.sixtofour, *(address.teredo or ())):
        if embedded is not None:
            yield embedded
