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

"""What machines say to each other in real packets, answered or not.

Each talk is a context: when the block begins everything has been said, and the
sockets of both ends are open until the block ends.

    with packets.tcp(guest, '203.0.113.9', other_guest) as (client, server):
        client.sendall(b'question')
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import socket
import struct

from tests import ctnetlink
from tests.functional import flows
from tests.functional import processes

Ends = tuple[socket.socket, socket.socket]
#: From whom, to which address, and who gets it in the end.
Talk = Callable[[flows.Namespace, str, flows.Namespace], contextlib.AbstractContextManager[Ends]]

_PATIENCE = 10.0
_NO_SERVICE = 9
_ECHO_REPLIES = {socket.AF_INET: 0, socket.AF_INET6: 129}

# No flags, version 0, the kind of what is inside (Ethernet), and that: Linux 6.18
# translates nothing that is shorter than eight bytes.
_TUNNELLED = struct.pack('!HH', 0, 0x6558) + bytes(60)

_OUR_TAG, _THEIR_TAG = 0x11111111, 0x22222222
_COOKIE = b'oiet'
# Tag, window, streams out and in, first number; the answer has the cookie besides.
_INIT = struct.pack('!IIHHI', _OUR_TAG, 65536, 1, 1, 1)
_INIT_ACK = struct.pack('!IIHHIHH', _THEIR_TAG, 65536, 1, 1, 1, 7, 8) + _COOKIE


@contextlib.contextmanager
def tcp(
    source: flows.Namespace, target: str, listener: flows.Namespace, port: int = 0
) -> Iterator[Ends]:
    """Open a connection.

    :param port: of the service; some free one if 0
    """
    family = _family(target)
    with (
        listener.run(lambda: socket.create_server(('', port), family=family)) as server,
        _open(source, family, socket.SOCK_STREAM) as client,
    ):
        server.settimeout(_PATIENCE)
        client.connect((target, server.getsockname()[1]))
        accepted, _ = server.accept()
        with accepted:
            accepted.settimeout(_PATIENCE)
            yield client, accepted


@contextlib.contextmanager
def udp(source: flows.Namespace, target: str, listener: flows.Namespace) -> Iterator[Ends]:
    """Send a datagram that is answered."""
    with udp_unanswered(source, target, listener) as (client, server):
        server.send(b'answer')
        client.recv(2048)
        yield client, server


@contextlib.contextmanager
def udp_unanswered(
    source: flows.Namespace, target: str, listener: flows.Namespace
) -> Iterator[Ends]:
    """Send a datagram that arrives and is not answered."""
    with _both_ends(source, target, listener, socket.SOCK_DGRAM) as (client, server):
        server.bind(('', 0))
        client.connect((target, server.getsockname()[1]))
        client.send(b'question')
        _, peer = server.recvfrom(2048)
        server.connect(peer)
        yield client, server


@contextlib.contextmanager
def udp_refused(source: flows.Namespace, target: str, listener: flows.Namespace) -> Iterator[Ends]:
    """Send a datagram that an ICMP error comes back for."""
    with _both_ends(source, target, listener, socket.SOCK_DGRAM) as (client, server):
        client.connect((target, _NO_SERVICE))
        client.send(b'question')
        try:
            client.recv(2048)
        except ConnectionRefusedError:
            yield client, server
        else:
            raise processes.LabError(f'somebody answers at {target}, port {_NO_SERVICE}')


@contextlib.contextmanager
def ping(source: flows.Namespace, target: str, listener: flows.Namespace) -> Iterator[Ends]:
    """Send an echo request, always of the same id, that the listener's kernel answers."""
    is_ipv4 = _family(target) == socket.AF_INET
    protocol = ctnetlink.ICMP if is_ipv4 else ctnetlink.ICMPV6
    # Type, code, checksum (the kernel makes that of ICMPv6), id and number.
    request = bytes.fromhex('0800f7f700070001' if is_ipv4 else '8000000000070001')
    # Of IPv4 a raw socket gets the header too.
    header = 20 if is_ipv4 else 0
    with _both_ends(source, target, listener, socket.SOCK_RAW, protocol) as (client, server):
        client.connect((target, 0))
        client.send(request)
        while client.recv(2048)[header] != _ECHO_REPLIES[client.family]:
            pass
        yield client, server


@contextlib.contextmanager
def gre(source: flows.Namespace, target: str, listener: flows.Namespace) -> Iterator[Ends]:
    """Send a packet through a tunnel, and one back."""
    ends = _both_ends(source, target, listener, socket.SOCK_RAW, ctnetlink.GRE)
    with ends as (client, server):
        client.connect((target, 0))
        _ask(client, server, _TUNNELLED, _TUNNELLED)
        yield client, server


@contextlib.contextmanager
def sctp(source: flows.Namespace, target: str, listener: flows.Namespace) -> Iterator[Ends]:
    """Open an association by its four packets; many kernels have no sockets for it.

    Source: RFC 9260, section 5.1.
    """
    ends = _both_ends(source, target, listener, socket.SOCK_RAW, ctnetlink.SCTP)
    with ends as (client, server):
        client.connect((target, 0))
        _ask(client, server, _to(0, 1, _INIT), _back(2, _INIT_ACK))
        _ask(client, server, _to(_THEIR_TAG, 10, _COOKIE), _back(11, b''))
        yield client, server


def crc32c(data: bytes) -> int:
    """Return the checksum of SCTP. Source: RFC 9260, appendix A."""
    found = 0xFFFFFFFF
    for octet in data:
        found ^= octet
        for _ in range(8):
            found = found >> 1 ^ (0x82F63B78 if found & 1 else 0)
    return found ^ 0xFFFFFFFF


def _to(tag: int, kind: int, content: bytes) -> bytes:
    return _sctp_packet((40000, 2905, tag), kind, content)


def _back(kind: int, content: bytes) -> bytes:
    return _sctp_packet((2905, 40000, _OUR_TAG), kind, content)


def _sctp_packet(header: tuple[int, int, int], kind: int, content: bytes) -> bytes:
    """Return a packet with one chunk. Source: RFC 9260, section 3."""
    begin = struct.pack('!HHI', *header)
    chunk = struct.pack('!BBH', kind, 0, 4 + len(content)) + content
    # Without one that is right, connection tracking takes no packet.
    checksum = crc32c(begin + bytes(4) + chunk)
    return begin + struct.pack('<I', checksum) + chunk


def _ask(client: socket.socket, server: socket.socket, question: bytes, answer: bytes) -> None:
    client.send(question)
    _, peer = server.recvfrom(2048)
    server.sendto(answer, peer)
    client.recv(2048)


@contextlib.contextmanager
def _both_ends(
    source: flows.Namespace,
    target: str,
    listener: flows.Namespace,
    kind: socket.SocketKind,
    protocol: int = 0,
) -> Iterator[Ends]:
    family = _family(target)
    with (
        _open(source, family, kind, protocol) as client,
        _open(listener, family, kind, protocol) as server,
    ):
        yield client, server


def _open(
    namespace: flows.Namespace,
    family: socket.AddressFamily,
    kind: socket.SocketKind,
    protocol: int = 0,
) -> socket.socket:
    opened = namespace.run(lambda: socket.socket(family, kind, protocol))
    opened.settimeout(_PATIENCE)
    return opened


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ':' in address else socket.AF_INET
