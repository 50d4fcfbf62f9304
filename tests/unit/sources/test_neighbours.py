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

"""Dumps of addresses and neighbours: whole and understood, or refused."""

import errno
import ipaddress
import os
import socket
import struct

import hypothesis
from hypothesis import strategies
import pytest

from oie import exceptions
from oie.sources import device_addresses
from oie.sources import neighbours
from oie.sources import netlink_client

MAC = 'fa:16:3e:00:00:05'
REACHABLE, INCOMPLETE, STALE, FAILED, NOARP = 0x02, 0x01, 0x04, 0x20, 0x40


def attribute(kind, value):
    return struct.pack('=HH', 4 + len(value), kind) + value + bytes(-len(value) % 4)


def address_body(prefix, far, own=None):
    ip = ipaddress.ip_address(far)
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    body = struct.pack('=BBBBI', family, prefix, 0x80, 0, 2)
    body += attribute(device_addresses.IFA_ADDRESS, ip.packed)
    if own is not None:
        body += attribute(device_addresses.IFA_LOCAL, ipaddress.ip_address(own).packed)
    return body


def neighbour_body(ip, mac=MAC, state=REACHABLE, family=None):
    packed = ipaddress.ip_address(ip).packed
    family = family or (socket.AF_INET if len(packed) == 4 else socket.AF_INET6)
    body = struct.pack('=BxxxiHBB', family, 2, state, 0, 1)
    body += attribute(neighbours.NDA_DST, packed)
    return body + (attribute(neighbours.NDA_LLADDR, bytes.fromhex(mac.replace(':', ''))))


def message(kind, body, flags=2, sequence=1):
    return struct.pack('=IHHII', 16 + len(body), kind, flags, sequence, 9) + body


def done(code=0):
    return message(netlink_client.NLMSG_DONE, struct.pack('=i', code))


def local(ip, prefix):
    return neighbours.LocalAddress(ipaddress.ip_address(ip), ipaddress.ip_network(prefix))


# --- what they say ------------------------------------------------------------


def test_address_tells_itself_and_its_prefix():
    found = neighbours.addresses(
        [address_body(24, '10.0.0.2', '10.0.0.2'), address_body(64, '2001:db8::2')]
    )
    assert found == (local('10.0.0.2', '10.0.0.0/24'), local('2001:db8::2', '2001:db8::/64'))


def test_prefix_of_a_point_to_point_link_is_the_peers():
    found = neighbours.addresses([address_body(30, '10.9.0.6', '10.0.0.2')])
    assert found == (local('10.0.0.2', '10.9.0.4/30'),)


def test_addresses_of_other_families_are_left_out():
    odd = struct.pack('=BBBBI', 12, 0, 0, 0, 2) + attribute(1, bytes(2))
    assert neighbours.addresses([odd, struct.pack('=BBBBI', 2, 0, 0, 0, 2)]) == ()


def test_impossible_prefix_is_refused():
    with pytest.raises(exceptions.SourceError, match='33'):
        neighbours.addresses([address_body(33, '10.0.0.2')])


def test_neighbour_is_known_by_its_mac_address():
    found = neighbours.neighbours(
        [neighbour_body('10.0.0.5'), neighbour_body('2001:db8::5', state=STALE)]
    )
    assert found == {
        ipaddress.ip_address('10.0.0.5'): {MAC},
        ipaddress.ip_address('2001:db8::5'): {MAC},
    }


def test_two_interfaces_may_know_an_address_as_two():
    other = 'fa:16:3e:00:00:99'
    found = neighbours.neighbours([neighbour_body('10.0.0.5'), neighbour_body('10.0.0.5', other)])
    assert found == {ipaddress.ip_address('10.0.0.5'): {MAC, other}}


@pytest.mark.parametrize('state', [INCOMPLETE, FAILED, NOARP])
def test_neighbour_that_did_not_answer_is_unknown(state):
    assert neighbours.neighbours([neighbour_body('10.0.0.5', state=state)]) == {}


def test_neighbour_without_an_ethernet_address_is_unknown():
    assert neighbours.neighbours([neighbour_body('10.0.0.5', mac='00:00:00:00')]) == {}
    assert neighbours.neighbours([neighbour_body('10.0.0.5', family=7)]) == {}


# --- messages -----------------------------------------------------------------


def test_buffer_is_split_into_its_messages():
    part = netlink_client.split(
        message(20, b'12345') + bytes(3) + message(20, b'1234') + done(), 20, 4
    )
    assert part == netlink_client.Part([b'12345', b'1234'], is_last=True)


def test_interrupted_dump_is_known_as_such():
    part = netlink_client.split(message(20, b'1234', flags=0x12), 20, 4)
    assert part == netlink_client.Part([b'1234'], is_interrupted=True)


@pytest.mark.parametrize(
    'buffer',
    [
        message(20, b'1234')[:-1],
        message(20, b'1234') + b'123',
        message(20, b'1234', sequence=2),
        message(21, b'1234'),
        message(20, b'123'),
        done() + message(20, b'1234'),
        struct.pack('=IHHII', 0, 20, 0, 1, 0),
    ],
    ids=['cut', 'rest', 'sequence', 'type', 'short', 'after the end', 'no length'],
)
def test_what_is_no_such_dump_is_refused(buffer):
    with pytest.raises(exceptions.SourceError):
        netlink_client.split(buffer, 20, 4)


@pytest.mark.parametrize('kind', [netlink_client.NLMSG_DONE, netlink_client.NLMSG_ERROR])
def test_refusal_of_the_kernel_is_named(kind):
    refused = message(kind, struct.pack('=i', -errno.EOPNOTSUPP))
    with pytest.raises(exceptions.SourceError, match='EOPNOTSUPP|ENOTSUP'):
        netlink_client.split(refused, 20, 4)


@hypothesis.given(strategies.binary(max_size=200))
def test_arbitrary_bytes_are_refused_or_understood(data):
    for parse in (
        lambda: netlink_client.split(data, 20, 8),
        lambda: neighbours.addresses([data.ljust(8, b'x')]),
        lambda: neighbours.neighbours([data.ljust(12, b'x')]),
    ):
        try:
            parse()
        except exceptions.SourceError:
            continue


# --- the socket ---------------------------------------------------------------


class Kernel:
    """Stands for a netlink socket; each request takes the next of the answers."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.buffers = []
        self.is_closed = False

    def setsockopt(self, _level, _option, _value):
        pass

    def connect(self, _address):
        pass

    def send(self, request):
        answer = self.answers.pop(0)
        self.buffers = answer if isinstance(answer, list) else [answer]
        self.request = request

    def recv_into(self, room, _size, _flags):
        buffer = self.buffers.pop(0)
        if isinstance(buffer, Exception):
            raise buffer
        room[: len(buffer)] = buffer[: len(room)]
        return len(buffer)

    def close(self):
        self.is_closed = True


@pytest.fixture
def connected(monkeypatch):
    """Return a function that opens a socket to a kernel with these answers."""

    def connect(*answers):
        kernel = Kernel(*answers)
        monkeypatch.setattr(socket, 'socket', lambda *_arguments: kernel)
        return neighbours.NeighbourSocket(), kernel

    return connect


def test_dump_may_come_in_several_buffers(connected):
    first, second = address_body(24, '10.0.0.2'), address_body(24, '10.1.0.2')
    with connected([message(20, first), message(20, second), done()])[0] as opened:
        assert [one.ip for one in opened.addresses()] == [
            ipaddress.ip_address('10.0.0.2'),
            ipaddress.ip_address('10.1.0.2'),
        ]


def test_socket_is_closed_after_the_block(connected):
    opened, kernel = connected(done())
    with opened:
        assert opened.neighbours() == {}
    assert kernel.is_closed


def test_interrupted_dump_is_made_again(connected):
    body = neighbour_body('10.0.0.5')
    interrupted = message(28, body, flags=0x12) + done()
    opened, _ = connected(interrupted, interrupted, message(28, body) + done())
    assert set(opened.neighbours()) == {ipaddress.ip_address('10.0.0.5')}


def test_dump_that_is_always_interrupted_is_a_failure(connected):
    opened, kernel = connected(*[message(28, neighbour_body('10.0.0.5'), flags=0x12) + done()] * 9)
    with pytest.raises(exceptions.InconsistentTable):
        opened.neighbours()
    assert len(kernel.answers) == 6


@pytest.mark.parametrize('answer', [BlockingIOError(errno.EAGAIN, 'odd'), bytes(2**15 + 1)])
def test_dump_that_does_not_come_whole_is_a_failure(connected, answer):
    opened, _ = connected([answer])
    with pytest.raises(exceptions.SourceError):
        opened.addresses()


def test_missing_socket_is_a_failure(monkeypatch):
    def refuse(*_arguments):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(socket, 'socket', refuse)
    with pytest.raises(exceptions.SourceError, match='Too many open files'):
        neighbours.NeighbourSocket()


def test_socket_that_cannot_be_connected_is_closed(monkeypatch):
    def refuse(_address):
        raise OSError(errno.EINVAL, 'odd')

    kernel = Kernel()
    kernel.connect = refuse
    monkeypatch.setattr(socket, 'socket', lambda *_arguments: kernel)
    with pytest.raises(exceptions.SourceError, match='odd'):
        neighbours.NeighbourSocket()
    assert kernel.is_closed


def test_kernel_of_this_machine_tells_its_own_addresses():
    """Needs no right."""
    with neighbours.NeighbourSocket() as opened:
        listed = opened.addresses()
        opened.neighbours()
    assert all(one.prefix.version == one.ip.version for one in listed)
