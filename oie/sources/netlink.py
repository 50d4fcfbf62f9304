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

"""A buffer of netlink messages that answer a dump → where each of them is.

Source: linux/netlink.h. Headers are in the byte order of the host.
"""

import dataclasses
import struct
import sys

import numpy as np
import numpy.typing as npt

from oie import exceptions

Octets = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint32]
Places = npt.NDArray[np.int64]

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x1
NLM_F_MULTI = 0x2
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300

# A struct nlmsghdr; one with the number behind it that ends a dump.
HEADER_BYTES = 16
DONE_BYTES = 20


@dataclasses.dataclass(slots=True)
class Messages:
    """What one buffer holds.

    :param positions: where in the buffer the messages begin
    :param lengths: bytes of each, without what pads it to whole words
    :param is_done: whether the dump ends here
    :param is_interrupted: whether the kernel calls the dump inconsistent
    :param error: errno with which the kernel ended the dump, 0 if all is well
    """

    positions: Places
    lengths: Places
    is_done: bool = False
    is_interrupted: bool = False
    error: int = 0


class Finder:
    """Finds the messages that answer one request.

    :param kind: nlmsg_type of the answers
    :param least: bytes that each of them has at least
    :param sequence: nlmsg_seq of the request
    :param port_id: nlmsg_pid of the socket that sent it
    """

    def __init__(self, kind: int, least: int, sequence: int, port_id: int) -> None:
        self._kind = kind
        self._least = least
        self._sequence = sequence
        self._port_id = port_id

    def find(self, buffer: Octets) -> Messages:
        """Return where the messages of a buffer are.

        What looks like the header of one is one if the message before it ends
        where it begins. From where this chain breaks (at the end of the dump, or
        because of a value that somebody chose well) they are found one by one.

        :raises SourceError: the bytes are no such messages, or another's
        """
        if len(buffer) % 4:
            raise exceptions.SourceError('a netlink message ends inside a word')
        messages, end = self._chain(buffer)
        self._walk(buffer.data, end, messages)
        return messages

    def _chain(self, buffer: Octets) -> tuple[Messages, int]:
        """Return the messages that follow one another, and where the last one ends."""
        words = buffer.view(np.uint32)
        found = self._lookalikes(words)
        lengths = words[found].astype(np.int64)
        ends = found + (lengths + 3 >> 2)
        # Nothing follows the last one, so there is a break at least there.
        breaks = np.flatnonzero(ends != np.append(found[1:], -1))
        proven = int(breaks[0]) + 1 if len(found) and found[0] == 0 else 0
        end = int(ends[proven - 1]) * 4 if proven else 0
        messages = Messages(found[:proven] * 4, lengths[:proven])
        if end > len(buffer) or np.any(messages.lengths < self._least):
            raise exceptions.SourceError('a netlink message claims a length it cannot have')
        flags = words[found[:proven] + 1] & _pair(0, NLM_F_DUMP_INTR)
        messages.is_interrupted = bool(flags.any())
        return messages, end

    def _lookalikes(self, words: Words) -> Places:
        """Return where a whole header of an answer seems to be, as places of words."""
        maybe = np.flatnonzero(words[2:-1] == np.uint32(self._sequence))
        maybe = maybe[words[maybe + 3] == np.uint32(self._port_id)]
        kinds = words[maybe + 1] & ~_pair(0, NLM_F_DUMP_INTR)
        found: Places = maybe[kinds == _pair(self._kind, NLM_F_MULTI)]
        return found

    def _walk(self, data: memoryview, position: int, messages: Messages) -> None:
        """Go from header to header, and note what is there."""
        positions, lengths = [], []
        while position < len(data):
            if len(data) - position < HEADER_BYTES or messages.is_done:
                raise exceptions.SourceError('a netlink buffer holds more than its messages')
            length, kind, flags, *answered = struct.unpack_from('=IHHII', data, position)
            if length < HEADER_BYTES or length > len(data) - position:
                raise exceptions.SourceError(f'a netlink message claims {length} bytes')
            if answered != [self._sequence, self._port_id]:
                raise exceptions.SourceError('a netlink message answers another request')
            if flags & NLM_F_DUMP_INTR:
                messages.is_interrupted = True
            if kind == self._kind and length >= self._least:
                positions.append(position)
                lengths.append(length)
            else:
                _end(data[position : position + length], kind, messages)
            position += length + 3 & ~3
        messages.positions = np.append(messages.positions, np.array(positions, np.int64))
        messages.lengths = np.append(messages.lengths, np.array(lengths, np.int64))


def is_end(received: memoryview, request: bytes) -> bool:
    """Tell whether what came at once is, or ends with, the last answer to a request.

    Only a quick look: what is no end after all is found out by ``Finder``.
    """
    if len(received) < DONE_BYTES:
        return True
    if struct.unpack_from('=H', received, 4)[0] == NLMSG_ERROR:
        return True
    last = received[len(received) - DONE_BYTES :]
    is_done = struct.unpack_from('=IH', last) == (DONE_BYTES, NLMSG_DONE)
    return is_done and last[8:16] == request[8:16]


def _end(message: memoryview, kind: int, messages: Messages) -> None:
    """Note how the dump ended.

    :raises SourceError: it is no end
    """
    if kind not in (NLMSG_DONE, NLMSG_ERROR):
        raise exceptions.SourceError(f'a netlink message of type {kind} in a dump')
    code = struct.unpack_from('=i', message, HEADER_BYTES)[0] if len(message) >= 20 else 0
    if kind == NLMSG_ERROR and not code:
        raise exceptions.SourceError('the kernel acknowledged a dump instead of giving it')
    messages.is_done = True
    messages.error = -code


def _pair(low: int, high: int) -> np.uint32:
    """Return two 16-bit numbers as the word they make in memory."""
    return np.uint32(int.from_bytes(struct.pack('=HH', low, high), sys.byteorder))
