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

"""Sockets for probes: what they are set to, what they give, and that none stays open."""

import errno
import os
import socket
import struct

import pytest

from oie import exceptions
from oie.sources import icmp
from oie.sources import namespaces
from oie.sources import neighbours
from oie.sources import probe_sockets
from oie.sources import probes

ECHO = icmp.Echo(1, 2, bytes(range(16)))
REPLY6 = struct.pack('!BBHHH', 129, 0, 0, 1, 2) + ECHO.token


class Kernel:
    """Stands for a raw socket that has received these packets."""

    def __init__(self, *received, refuses=()):
        self.received = list(received)
        self.refuses = refuses
        self.options = []
        self.sent = []
        self.is_closed = False

    def setsockopt(self, *option):
        if option[1] in self.refuses:
            raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))
        self.options.append(option)

    def sendto(self, packet, address):
        self.sent.append((packet, address))

    def recvmsg(self, _room, _ancillary):
        if not self.received:
            raise BlockingIOError(errno.EAGAIN, 'nothing')
        return self.received.pop(0)

    def fileno(self):
        return 42

    def close(self):
        self.is_closed = True


def packet(sender='2001:db8::5', ancillary=(), data=REPLY6):
    return data, list(ancillary), 0, (sender, 0, 0, 0)


@pytest.fixture
def opened(monkeypatch):
    """Return a function that opens a raw socket for IPv6 of this kernel."""

    def open_one(kernel):
        monkeypatch.setattr(socket, 'socket', lambda *_arguments: kernel)
        return probe_sockets.RawSocket(socket.AF_INET6)

    return open_one


def test_socket_takes_only_replies_and_tells_times_and_losses(opened):
    kernel = Kernel()
    opened(kernel)
    assert kernel.options == [
        icmp.replies_only(socket.AF_INET6),
        (socket.SOL_SOCKET, 35, 1),
        (socket.SOL_SOCKET, 40, 1),
    ]


def test_socket_that_cannot_be_set_up_is_closed(opened):
    kernel = Kernel(refuses=(40,))
    with pytest.raises(OSError, match='not available'):
        opened(kernel)
    assert kernel.is_closed


def test_request_goes_to_the_address(opened):
    kernel = Kernel()
    opened(kernel).send('2001:db8::5', b'packet')
    assert kernel.sent == [(b'packet', ('2001:db8::5', 0))]


def test_replies_come_with_sender_and_time(opened):
    stamp = (socket.SOL_SOCKET, 35, struct.pack('@ll', 1_795_000_000, 250_000_000))
    made = opened(Kernel(packet(ancillary=[stamp]), packet('fe80::5%eth0')))
    source, local = (socket.inet_pton(socket.AF_INET6, ip) for ip in ('2001:db8::5', 'fe80::5'))
    assert made.receive() == [
        probes.Received(source, ECHO, 1_795_000_000.25),
        probes.Received(local, ECHO, None),
    ]
    assert made.receive() == []
    assert not made.is_lossy


def test_what_is_no_reply_is_left_out(opened):
    assert opened(Kernel(packet(data=b'odd'))).receive() == []


def test_losses_are_remembered(opened):
    lost = (socket.SOL_SOCKET, 40, struct.pack('=I', 3))
    made = opened(Kernel(packet(), packet(ancillary=[lost])))
    made.receive()
    assert made.is_lossy


def test_foreign_or_odd_ancillary_data_says_nothing(opened):
    odd = [(41, 35, bytes(16)), (socket.SOL_SOCKET, 35, bytes(3)), (socket.SOL_SOCKET, 40, b'')]
    made = opened(Kernel(packet(ancillary=odd)))
    assert [one.at for one in made.receive()] == [None]
    assert not made.is_lossy


def test_flood_does_not_hold_us(opened):
    made = opened(Kernel(*[packet()] * 5000))
    assert len(made.receive()) == 1024


# --- a line -------------------------------------------------------------------


class Neighbours:
    """Stands for the socket that knows neighbours and addresses."""

    def __init__(self, log):
        self.log = log

    def __enter__(self):
        self.log.append('open')
        return self

    def __exit__(self, *_exc):
        self.log.append('closed')

    def addresses(self):
        return ('addresses',)

    def neighbours(self):
        return {'neighbour': frozenset()}


@pytest.fixture
def log(monkeypatch):
    """Pretend to enter namespaces; give what was opened and closed."""
    found = []
    monkeypatch.setattr(namespaces, 'run_in', lambda path, make: found.append(path) or make())
    monkeypatch.setattr(neighbours, 'NeighbourSocket', lambda: Neighbours(found))
    return found


def test_line_has_a_channel_for_each_family_until_it_is_closed(log, monkeypatch):
    kernels = []
    monkeypatch.setattr(
        socket, 'socket', lambda *_arguments: kernels.append(Kernel()) or kernels[-1]
    )
    with probe_sockets.open_line('/run/netns/n', ['ipv4', 'ipv6']) as line:
        assert {name: one.family for name, one in line.channels.items()} == {
            'ipv4': socket.AF_INET,
            'ipv6': socket.AF_INET6,
        }
        assert line.channels['ipv4'].fileno() == 42
        assert line.neighbours() == {'neighbour': frozenset()}
        assert not any(kernel.is_closed for kernel in kernels)
    assert all(kernel.is_closed for kernel in kernels)
    assert log == ['/run/netns/n', 'open', 'closed']


def test_line_that_fails_half_way_leaves_nothing_open(log, monkeypatch):
    first = Kernel()
    kernels = [first]

    def make(*_arguments):
        if kernels:
            return kernels.pop()
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr(socket, 'socket', make)
    with pytest.raises(exceptions.SourceError, match='not supported'):
        probe_sockets.open_line('/run/netns/n', ['ipv4', 'ipv6'])
    assert first.is_closed
    assert log[-1] == 'closed'


def test_missing_right_is_named(log, monkeypatch):
    def refuse(*_arguments):
        raise PermissionError(errno.EPERM, 'Operation not permitted')

    monkeypatch.setattr(socket, 'socket', refuse)
    with pytest.raises(exceptions.SourceError, match='CAP_NET_RAW'):
        probe_sockets.open_line('/run/netns/n', ['ipv4'])


def test_addresses_are_read_and_nothing_stays_open(log):
    assert probe_sockets.local_addresses('/run/netns/n') == ('addresses',)
    assert log == ['/run/netns/n', 'open', 'closed']
