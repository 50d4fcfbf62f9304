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


"""Requests by netlink: this kernel's answers, and what is no answer."""

import errno
import socket
import struct

import hypothesis
from hypothesis import strategies
import pytest

from oie import exceptions
from oie.sources import links
from oie.sources import netlink_client
from tests import held


def message(kind, body=b'', sequence=1, flags=2):
    return struct.pack('=IHHII', 16 + len(body), kind, flags, sequence, 9) + body


def only(answer, least=4):
    return bytes(netlink_client.only(memoryview(answer), 20, least))


# --- this kernel --------------------------------------------------------------


def test_request_for_what_is_not_there_is_refused_with_its_number():
    unknown = netlink_client.request(18, struct.pack('=BxHiII', 0, 0, 2**31 - 1, 0, 0))
    with netlink_client.NetlinkClient(socket.NETLINK_ROUTE) as client:
        answer = client.ask(unknown)
        with pytest.raises(netlink_client.Refusal, match='refused: ENODEV') as caught:
            netlink_client.only(answer, 16, 0)
    assert caught.value.number == errno.ENODEV


def test_strict_kernel_refuses_what_it_would_pass_over():
    """A request for devices with a type of hardware, by which the kernel never chooses."""
    odd = netlink_client.dump_request(18, struct.pack('=BxHiII', 0, 772, 0, 0, 0))
    dump = (odd, links.RTM_NEWLINK, links.FIXED.size, len)
    with netlink_client.NetlinkClient(socket.NETLINK_ROUTE) as client:
        assert client.dump(*dump)
        client.be_strict()
        with pytest.raises(netlink_client.Refusal, match='refused: EINVAL'):
            client.dump(*dump)


def test_answer_that_does_not_fit_is_an_error():
    small = memoryview(bytearray(64))
    with (
        netlink_client.NetlinkClient(socket.NETLINK_ROUTE, buffer=small) as client,
        pytest.raises(exceptions.SourceError, match='more than 64 bytes'),
    ):
        client.dump(links.request(), links.RTM_NEWLINK, links.FIXED.size, len)


def test_request_that_nobody_answers_makes_nobody_wait():
    with (
        netlink_client.NetlinkClient(socket.NETLINK_ROUTE) as client,
        pytest.raises(exceptions.SourceError, match='netlink: no answer'),
    ):
        # NLMSG_NOOP.
        client.ask(netlink_client.request(1, b''))


def test_socket_is_closed_after_the_block():
    with held.nothing_more(), netlink_client.NetlinkClient(socket.NETLINK_ROUTE):
        pass


def test_kernel_without_this_part_is_an_error():
    with pytest.raises(exceptions.SourceError, match='no netlink socket 31: .*not supported'):
        netlink_client.NetlinkClient(31)


# --- bytes --------------------------------------------------------------------


def test_one_message_is_given_without_its_header():
    assert only(message(20, b'12345')) == b'12345'
    assert only(message(20, b'12345') + b'behind') == b'12345'


@pytest.mark.parametrize(
    ('answer', 'reason'),
    [
        (b'', 'of 0 bytes'),
        (message(20, b'1234')[:-1], 'answer to 1 of 20 bytes'),
        (message(20, b'1234', sequence=2), 'answer to 2'),
        (message(21, b'1234'), 'of type 21'),
        (message(20, b'123'), 'of type 20 with 19 bytes'),
        (message(2, struct.pack('=i', 0)), 'of type 2'),
        (message(2, struct.pack('=i', -errno.EPERM)), 'EPERM; it needs CAP_NET_ADMIN'),
    ],
)
def test_what_is_no_answer_is_told(answer, reason):
    with pytest.raises(exceptions.SourceError, match=reason):
        only(answer)


def test_error_at_the_end_of_a_dump_is_not_passed_over():
    """Of a namespace whose id is wrong the kernel tells there, after no message at all."""
    end = message(netlink_client.NLMSG_DONE, struct.pack('=i', -errno.EINVAL))
    with pytest.raises(netlink_client.Refusal, match='refused: EINVAL'):
        netlink_client.split(memoryview(end), 20, 4)


@hypothesis.given(strategies.binary(max_size=120), strategies.sampled_from([b'', message(20)]))
def test_any_bytes_are_messages_or_our_error(data, begin):
    for parse in (only, lambda data: netlink_client.split(memoryview(data), 20, 4)):
        try:
            parse(begin + data)
        except exceptions.SourceError:
            continue
