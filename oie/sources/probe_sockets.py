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

"""The sockets of one network namespace over which its addresses are probed.

A thread inside the namespace opens them; they are used from outside. Needs CAP_NET_RAW besides
what entering a namespace needs.
"""

from collections.abc import Iterable
from collections.abc import Mapping
import contextlib
import socket
import struct

from oie import exceptions
from oie.sources import icmp
from oie.sources import namespaces
from oie.sources import neighbours
from oie.sources import probes

FAMILIES = {'ipv4': socket.AF_INET, 'ipv6': socket.AF_INET6}

# Of asm-generic/socket.h; Python has no names for them.
_SO_TIMESTAMPNS = 35
_SO_RXQ_OVFL = 40
_TIMESPEC = struct.Struct('@ll')
_DROPS = struct.Struct('=I')
_ANCILLARY_BYTES = socket.CMSG_SPACE(_TIMESPEC.size) + socket.CMSG_SPACE(_DROPS.size)
_ROOM = 2048
# More than a buffer of the usual size holds; who sends us ever more must not keep us here.
_MOST_AT_ONCE = 1024


class RawSocket:
    """A channel of the network namespace in which this is made.

    :ivar is_lossy: whether the kernel threw something away, for lack of room
    :raises OSError: there is no such socket
    """

    def __init__(self, family: int) -> None:
        self.family = family
        self.is_lossy = False
        protocol = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
        self._socket = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
        try:
            self._socket.setsockopt(*icmp.replies_only(family))
            for option in (_SO_TIMESTAMPNS, _SO_RXQ_OVFL):
                self._socket.setsockopt(socket.SOL_SOCKET, option, 1)
        except OSError:
            self._socket.close()
            raise

    def send(self, ip: str, packet: bytes) -> None:
        """Send without waiting."""
        self._socket.sendto(packet, (ip, 0))

    def receive(self) -> list[probes.Received]:
        """Return what has come; answers of other kinds are left out."""
        found = []
        for _ in range(_MOST_AT_ONCE):
            try:
                packet, ancillary, _, sender = self._socket.recvmsg(_ROOM, _ANCILLARY_BYTES)
            except BlockingIOError:
                break
            at, drops = _read_ancillary(ancillary)
            self.is_lossy |= drops > 0
            echo = icmp.reply(self.family, packet)
            if echo is not None:
                source = socket.inet_pton(self.family, sender[0].partition('%')[0])
                found.append(probes.Received(source, echo, at))
        return found

    def fileno(self) -> int:
        """Return what select.poll() wants."""
        return self._socket.fileno()

    def close(self) -> None:
        """Let go of the namespace."""
        self._socket.close()


def _read_ancillary(ancillary: Iterable[tuple[int, int, bytes]]) -> tuple[float | None, int]:
    """Return when the kernel got a packet, and how many it had to throw away before."""
    at, drops = None, 0
    for level, kind, data in ancillary:
        if level != socket.SOL_SOCKET:
            continue
        if kind == _SO_TIMESTAMPNS and len(data) == _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack(data)
            at = seconds + nanoseconds / 1e9
        elif kind == _SO_RXQ_OVFL and len(data) == _DROPS.size:
            (drops,) = _DROPS.unpack(data)
    return at, drops


class Line:
    """Everything that is open in one network namespace, made by a thread inside it.

    :ivar channels: by the name of the family
    :raises SourceError: a socket cannot be had
    """

    def __init__(self, families: Iterable[str]) -> None:
        self.channels: Mapping[str, probes.Channel]
        with contextlib.ExitStack() as opened:
            self._neighbours = opened.enter_context(neighbours.NeighbourSocket())
            channels = {}
            for family in families:
                channels[family] = _raw_socket(FAMILIES[family])
                opened.callback(channels[family].close)
            self.channels = channels
            self._opened = opened.pop_all()

    def __enter__(self) -> 'Line':
        return self

    def __exit__(self, *exc: object) -> None:
        self._opened.close()

    def neighbours(self) -> neighbours.Neighbours:
        """Return who has answered (ARP, neighbour discovery).

        :raises SourceError: it cannot be read
        """
        return self._neighbours.neighbours()


def _raw_socket(family: int) -> RawSocket:
    try:
        return RawSocket(family)
    except PermissionError as exc:
        raise exceptions.SourceError(f'no raw socket: {exc}; it needs CAP_NET_RAW') from exc
    except OSError as exc:
        raise exceptions.SourceError(f'no raw socket: {exc}') from exc


def open_line(path: str, families: Iterable[str]) -> Line:
    """Return what asks inside of a network namespace.

    :raises VanishedNamespace: there is no such namespace any more
    :raises SourceError: it cannot be entered, or a socket cannot be had
    """
    return namespaces.run_in(path, lambda: Line(families))


def local_addresses(path: str) -> tuple[neighbours.LocalAddress, ...]:
    """Return the addresses of a network namespace.

    :raises VanishedNamespace: there is no such namespace any more
    :raises SourceError: it cannot be entered or read
    """
    with namespaces.run_in(path, neighbours.NeighbourSocket) as connection:
        return connection.addresses()
