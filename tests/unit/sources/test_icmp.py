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

"""Echo requests are what the RFCs say; only the answer to a request counts as one."""

import socket
import struct

import hypothesis
from hypothesis import strategies
import pytest

from oie.sources import icmp

V4, V6 = socket.AF_INET, socket.AF_INET6
FAMILIES = pytest.mark.parametrize('family', [V4, V6])
ECHO = icmp.Echo(0x1234, 7, bytes(range(16)))
ECHOES = strategies.builds(
    icmp.Echo,
    strategies.integers(0, 0xFFFF),
    strategies.integers(0, 0xFFFF),
    strategies.binary(min_size=16, max_size=16),
)


def answer(family, echo=ECHO, options=b'', **header):
    """Return the packet that a raw socket gets when a host answers."""
    values = {'kind': 0 if family == V4 else 129, 'code': 0, **header}
    parts = ('!BBHHH', values['kind'], values['code'])
    body = struct.pack(*parts, 0, echo.identifier, echo.sequence) + echo.token
    if family == V6:
        return body
    body = struct.pack(*parts, icmp.checksum(body), echo.identifier, echo.sequence) + echo.token
    words = 5 + len(options) // 4
    begin = bytes([0x40 | words]) + bytes(8) + bytes([values.get('protocol', 1)]) + bytes(10)
    return begin + options + body


def test_request_is_an_echo_request_with_its_checksum():
    packet = icmp.request(V4, icmp.Echo(1, 2, bytes(16)))
    # ~(0x0800 + 0x0001 + 0x0002) = 0xf7fc; type 8, code 0.
    assert packet == bytes.fromhex('0800f7fc00010002') + bytes(16)


def test_request_over_ipv6_leaves_the_checksum_to_the_kernel():
    assert icmp.request(V6, icmp.Echo(1, 2, bytes(16))) == bytes.fromhex(
        '8000000000010002'
    ) + bytes(16)


def test_checksum_of_an_odd_number_of_bytes():
    # RFC 1071: ~(0x0001 + 0xf200) = 0x0dfe, the missing byte is zero.
    assert icmp.checksum(bytes.fromhex('0001f2')) == 0x0DFE


@FAMILIES
@hypothesis.given(echo=ECHOES)
def test_answer_gives_the_echo(family, echo):
    assert icmp.reply(family, answer(family, echo)) == echo


def test_options_of_the_ip_header_are_skipped():
    assert icmp.reply(V4, answer(V4, options=bytes(8))) == ECHO


@FAMILIES
@pytest.mark.parametrize('header', [{'kind': 3}, {'kind': 8}, {'kind': 128}, {'code': 1}])
def test_other_messages_are_no_answer(family, header):
    assert icmp.reply(family, answer(family, **header)) is None


@FAMILIES
def test_answer_of_another_length_is_none(family):
    packet = answer(family)
    assert icmp.reply(family, packet[:-1]) is None
    assert icmp.reply(family, packet + bytes(1)) is None


def test_other_protocols_are_no_answer():
    assert icmp.reply(V4, answer(V4, protocol=17)) is None


def test_wrong_checksum_is_no_answer():
    packet = bytearray(answer(V4))
    packet[-1] ^= 1
    assert icmp.reply(V4, bytes(packet)) is None


@FAMILIES
def test_own_request_is_no_answer(family):
    packet = icmp.request(family, ECHO)
    assert icmp.reply(family, answer(family)[: -len(packet)] + packet) is None


@FAMILIES
@hypothesis.given(packet=strategies.binary(max_size=128))
def test_arbitrary_bytes_never_raise(family, packet):
    echo = icmp.reply(family, packet)
    assert echo is None or echo.token in packet


@hypothesis.given(packet=strategies.binary(min_size=44, max_size=64), echo=ECHOES)
def test_arbitrary_bytes_never_match(packet, echo):
    for family, shaped in ((V4, b'\x45' + packet[:8] + b'\x01' + packet[:34]), (V6, packet[:24])):
        assert icmp.reply(family, shaped) != echo


def test_filters_let_nothing_but_replies_through():
    level, name, value = icmp.replies_only(V4)
    assert (level, name) == (255, 1)
    assert struct.unpack('=I', value)[0] == 0xFFFFFFFE
    level, name, value = icmp.replies_only(V6)
    assert (level, name) == (socket.IPPROTO_ICMPV6, 1)
    blocked = [
        kind for kind in range(256) if struct.unpack('=8I', value)[kind >> 5] & (1 << (kind & 31))
    ]
    assert blocked == [kind for kind in range(256) if kind != 129]
