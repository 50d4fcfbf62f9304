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


"""A request to the kernel by netlink, and what answers it, message by message.

For small answers: addresses, neighbours, network devices. A socket belongs to the network
namespace in which it is opened. The table of connections, which may be large, has sockets and
buffers of its own (netlink_socket). Source: netlink(7), linux/netlink.h. Numbers are in the byte
order of the host.
"""

from collections.abc import Callable
import dataclasses
import errno
import socket
import struct
from typing import TypeVar

from oie import exceptions

T = TypeVar('T')

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x1
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300
SOL_NETLINK = 270
NETLINK_GET_STRICT_CHK = 12

# struct nlmsghdr.
HEADER = struct.Struct('=IHHII')
SEQUENCE = 1
# The kernel gives no more of a dump at once (netlink_recvmsg()).
ROOM = 2**15
_ATTEMPTS = 3
# Numbers: the names of the module socket take longer, and thousands of namespaces are read.
_MSG_TRUNC = int(socket.MSG_TRUNC)
# The answer is there when send() returns: if not, it does not come. With MSG_TRUNC the kernel
# tells how long the message is, however much room there is.
_FLAGS = int(socket.MSG_DONTWAIT | socket.MSG_TRUNC)


class Refusal(exceptions.SourceError):
    """The kernel says no; ``number`` is its errno."""

    def __init__(self, number: int) -> None:
        name = errno.errorcode.get(number, str(number))
        needs = '; it needs CAP_NET_ADMIN' if number in (errno.EPERM, errno.EACCES) else ''
        super().__init__(f'refused: {name}{needs}')
        self.number = number


class NetlinkClient:
    """Asks the kernel about the network namespace in which this is made.

    :param protocol: which part of the kernel, such as ``socket.NETLINK_ROUTE``
    :param buffer: room for answers, if somebody has some to lend; nobody else uses it meanwhile
    :raises SourceError: there is no such socket
    """

    def __init__(self, protocol: int, *, buffer: memoryview | None = None) -> None:
        self._buffer = memoryview(bytearray(ROOM)) if buffer is None else buffer
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        except OSError as exc:
            raise exceptions.SourceError(f'no netlink socket {protocol}: {exc}') from exc
        try:
            # This binds it too. Whoever else sends us anything gets an error now.
            self._socket.connect((0, 0))
        except OSError as exc:
            self._socket.close()
            raise exceptions.SourceError(f'netlink socket {protocol}: {exc}') from exc

    def __enter__(self) -> 'NetlinkClient':
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def be_strict(self) -> None:
        """Have the kernel refuse what it does not understand in a request.

        Without it some of its parts pass over that, and answer another question.

        :raises SourceError: the kernel is older than Linux 4.20
        """
        try:
            self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        except OSError as exc:
            raise exceptions.SourceError(f'NETLINK_GET_STRICT_CHK: {exc}') from exc

    def ask(self, request: bytes) -> memoryview:
        """Return the one message that answers a request; it is good until the next request.

        :raises SourceError: there is no answer, or a part of it only
        """
        try:
            self._socket.send(request)
            return self._receive()
        except OSError as exc:
            raise exceptions.SourceError(f'netlink: {_reason(exc)}') from exc

    def dump(
        self, request: bytes, kind: int, least: int, take: Callable[[memoryview], T]
    ) -> list[T]:
        """Return what ``take`` makes of each message of a whole dump.

        :param kind: nlmsg_type of the answers
        :param least: bytes that each of them has at least, without its header
        :param take: gets a message without its header, which is good until it returns
        :raises InconsistentTable: what is dumped changes all the time
        :raises SourceError: it could not be read, or not all of it
        """
        for _ in range(_ATTEMPTS):
            try:
                found, is_interrupted = self._dump(request, kind, least, take)
            except OSError as exc:
                raise exceptions.SourceError(f'netlink: {_reason(exc)}') from exc
            if not is_interrupted:
                return found
        raise exceptions.InconsistentTable('netlink: what is dumped changes all the time')

    def _dump(
        self, request: bytes, kind: int, least: int, take: Callable[[memoryview], T]
    ) -> tuple[list[T], bool]:
        self._socket.send(request)
        found: list[T] = []
        is_interrupted = False
        while True:
            part = split(self._receive(), kind, least)
            found += map(take, part.bodies)
            is_interrupted |= part.is_interrupted
            if part.is_last:
                return found, is_interrupted

    def _receive(self) -> memoryview:
        size = self._socket.recv_into(self._buffer, 0, _FLAGS)
        if size > len(self._buffer):
            room = len(self._buffer)
            raise exceptions.SourceError(f'netlink: a message of more than {room} bytes')
        return self._buffer[:size]


def _reason(exc: OSError) -> str:
    if exc.errno == errno.EAGAIN:
        return 'no answer'
    return str(exc)


# --- bytes into messages, and back --------------------------------------------


@dataclasses.dataclass(slots=True)
class Part:
    """What one buffer of a dump holds: the messages without their headers."""

    bodies: list[memoryview]
    is_last: bool = False
    is_interrupted: bool = False


def request(kind: int, body: bytes, flags: int = NLM_F_REQUEST) -> bytes:
    """Return a message that asks for something.

    :param kind: nlmsg_type
    """
    return HEADER.pack(HEADER.size + len(body), kind, flags, SEQUENCE, 0) + body


def dump_request(kind: int, body: bytes) -> bytes:
    """Return a message that asks for a dump."""
    return request(kind, body, NLM_F_REQUEST | NLM_F_DUMP)


def only(message: memoryview, kind: int, least: int) -> memoryview:
    """Return the one message that an answer is, without its header.

    :param kind: nlmsg_type of the answer
    :param least: bytes that it has at least, without its header
    :raises SourceError: it is another one, cut off, or a refusal
    """
    if len(message) < HEADER.size:
        raise exceptions.SourceError(f'a netlink answer of {len(message)} bytes')
    size, found, _, sequence, _ = HEADER.unpack_from(message)
    if sequence != SEQUENCE or size > len(message):
        raise exceptions.SourceError(f'a netlink answer to {sequence} of {size} bytes')
    if found == NLMSG_ERROR and size >= HEADER.size + 4:
        _refuse(message[HEADER.size : size])
    if found != kind or size < HEADER.size + least:
        raise exceptions.SourceError(f'a netlink answer of type {found} with {size} bytes')
    return message[HEADER.size : size]


def split(buffer: memoryview, kind: int, least: int) -> Part:
    """Return the messages of a buffer of a dump.

    :param kind: nlmsg_type of the answers
    :param least: bytes that each of them has at least, without its header
    :raises SourceError: it is no part of such a dump
    """
    part, place, end = Part([]), 0, len(buffer)
    unpack, add = HEADER.unpack_from, part.bodies.append
    while place < end:
        if part.is_last or end - place < HEADER.size:
            raise exceptions.SourceError('netlink: more bytes than messages')
        size, found, flags, sequence, _ = unpack(buffer, place)
        if sequence != SEQUENCE or not HEADER.size <= size <= end - place:
            raise exceptions.SourceError(f'netlink: a message of {size} bytes to {sequence}')
        body = buffer[place + HEADER.size : place + size]
        if flags & NLM_F_DUMP_INTR:
            part.is_interrupted = True
        if found == kind and len(body) >= least:
            add(body)
        elif found in (NLMSG_DONE, NLMSG_ERROR):
            _refuse(body)
            part.is_last = True
        else:
            raise exceptions.SourceError(f'netlink: a message of type {found}')
        place += size + 3 & ~3
    return part


def _refuse(body: memoryview) -> None:
    """Do nothing if a message says that all went well.

    Of a dump that fails after its beginning the error is in NLMSG_DONE.

    :raises Refusal: it says what did not
    """
    number = -struct.unpack_from('=i', body)[0] if len(body) >= 4 else 0
    if number:
        raise Refusal(number)
