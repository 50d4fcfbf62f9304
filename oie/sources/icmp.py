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

"""ICMP echo requests into bytes, and received bytes into the echo that they answer.

Source: RFC 792 and RFC 4443 section 4; for the filters linux/icmp.h, linux/icmpv6.h and
raw(7): in both a bit that is set keeps messages of that type away.
"""

from collections.abc import Mapping
import dataclasses
import socket
import struct

TOKEN_BYTES = 16

_REQUEST: Mapping[int, int] = {socket.AF_INET: 8, socket.AF_INET6: 128}
_REPLY: Mapping[int, int] = {socket.AF_INET: 0, socket.AF_INET6: 129}

# Type, code, checksum, identifier, sequence.
_HEADER = struct.Struct('!BBHHH')
_LEAST_IP_BYTES = 20
_SOL_RAW = 255
_ICMP_FILTER = 1
_ICMP6_FILTER = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Echo:
    """What tells one echo from all others; a guest cannot guess the token of its neighbour."""

    identifier: int
    sequence: int
    token: bytes


def request(family: int, echo: Echo) -> bytes:
    """Return the message that asks for an echo, as a raw socket wants it.

    :param family: AF_INET, or AF_INET6, where the kernel makes the checksum
    """
    if family == socket.AF_INET6:
        return _message(family, 0, echo)
    return _message(family, checksum(_message(family, 0, echo)), echo)


def reply(family: int, packet: bytes) -> Echo | None:
    """Return the echo that a received packet answers, None if it is anything else.

    :param packet: what a raw socket gave: with the IP header of IPv4, without that of IPv6
    """
    message = packet if family == socket.AF_INET6 else _inside_ipv4(packet)
    if len(message) != _HEADER.size + TOKEN_BYTES:
        return None
    kind, code, _, identifier, sequence = _HEADER.unpack_from(message)
    if (kind, code) != (_REPLY[family], 0):
        return None
    # Of IPv6 the kernel has looked at the checksum; of IPv4 a raw socket gets wrong ones too.
    if family == socket.AF_INET and checksum(message):
        return None
    return Echo(identifier, sequence, message[_HEADER.size :])


def checksum(message: bytes) -> int:
    """Return the Internet checksum (RFC 1071); 0 for a message that holds its own."""
    padded = message + bytes(len(message) % 2)
    total: int = sum(struct.unpack(f'!{len(padded) // 2}H', padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def replies_only(family: int) -> tuple[int, int, bytes]:
    """Return level, name and value of the socket option that keeps all but replies away."""
    if family == socket.AF_INET:
        return _SOL_RAW, _ICMP_FILTER, struct.pack('=I', 0xFFFFFFFF & ~(1 << _REPLY[family]))
    words = [0xFFFFFFFF] * 8
    words[_REPLY[family] >> 5] &= ~(1 << (_REPLY[family] & 31))
    return socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack('=8I', *words)


def _message(family: int, checked: int, echo: Echo) -> bytes:
    head = _HEADER.pack(_REQUEST[family], 0, checked, echo.identifier, echo.sequence)
    return head + echo.token


def _inside_ipv4(packet: bytes) -> bytes:
    """Return what an IPv4 packet carries if that is ICMP, else nothing."""
    if len(packet) < _LEAST_IP_BYTES or packet[0] >> 4 != 4 or packet[9] != socket.IPPROTO_ICMP:
        return b''
    header = (packet[0] & 0xF) * 4
    return packet[header:] if header >= _LEAST_IP_BYTES else b''
