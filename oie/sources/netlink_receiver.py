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

"""The answers to a netlink dump, received by a thread while others are decoded.

The kernel does the work of a dump while one receives, and there it needs no lock
of Python's. So a dump that is decoded takes hardly longer than one that is not.
"""

from collections.abc import Iterator
import contextlib
import errno
import queue
import socket
import struct
import threading
import time

import numpy as np
import numpy.typing as npt

from oie import exceptions
from oie.sources import netlink

Octets = npt.NDArray[np.uint8]

# Enough for neither thread to wait for the other while both keep pace.
BUFFERS = 4
BUFFER_BYTES = 2**21
# The kernel gives no more at once, however large the buffer (netlink_recvmsg()).
LARGEST_RECEIVE = 2**15
# A dump never makes us wait. If one does, the thread looks so often whether it is
# still wanted.
PATIENCE = 0.5


@contextlib.contextmanager
def answers(
    connection: socket.socket, request: bytes, deadline: float
) -> Iterator[Iterator[Octets]]:
    """Send a request; give what answers it, up to the end of the dump.

    It comes as buffers of whole messages, each of them good until the next one is
    asked for. After the block the thread has ended, whatever happened in it.

    :param connection: a netlink socket that nobody else uses
    :param deadline: when all must be there, by time.monotonic()
    :raises InconsistentTable: a part was lost
    :raises SourceError: it cannot be received, or comes from somebody else
    :raises SourceTimeout: not everything came in time
    """
    receiver = _Receiver(connection, request, deadline)
    try:
        # A timeout of Python's would cost a poll() for each receive.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(PATIENCE))
        connection.send(request)
        receiver.start()
    except (OSError, RuntimeError) as exc:
        raise exceptions.SourceError(f'the request for the dump: {exc}') from exc
    try:
        yield receiver.buffers()
    finally:
        receiver.stop()


def _timeval(seconds: float) -> bytes:
    return struct.pack('@ll', int(seconds), int(seconds % 1 * 1e6))


class _Receiver:
    """The thread, and the buffers that go to and fro."""

    def __init__(self, connection: socket.socket, request: bytes, deadline: float) -> None:
        self._connection = connection
        self._request = request
        self._deadline = deadline
        self._is_wanted = True
        self._free: queue.SimpleQueue[Octets] = queue.SimpleQueue()
        self._filled: queue.SimpleQueue[tuple[Octets, int] | BaseException | None]
        self._filled = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name='oie-netlink', daemon=True)

    def start(self) -> None:
        for _ in range(BUFFERS):
            self._free.put(np.empty(BUFFER_BYTES, np.uint8))
        self._thread.start()

    def stop(self) -> None:
        """Return when the thread has ended."""
        self._is_wanted = False
        self._free.put(np.empty(0, np.uint8))
        self._thread.join()

    def buffers(self) -> Iterator[Octets]:
        """Give the buffers in the order in which they were filled."""
        while (filled := self._filled.get()) is not None:
            if isinstance(filled, BaseException):
                raise filled
            buffer, size = filled
            yield buffer[:size]
            self._free.put(buffer)

    def _run(self) -> None:
        try:
            is_last = False
            while not is_last:
                buffer = self._free.get()
                if not self._is_wanted:
                    return
                size, is_last = self._fill(buffer.data)
                self._filled.put((buffer, size))
            self._filled.put(None)
        except BaseException as exc:
            self._filled.put(exc)

    def _fill(self, view: memoryview) -> tuple[int, bool]:
        """Receive until a buffer is nearly full or the dump is over."""
        size = 0
        while len(view) - size >= LARGEST_RECEIVE:
            received = self._receive(view[size:])
            if netlink.is_end(view[size : size + received], self._request):
                return size + received, True
            size += received
        return size, False

    def _receive(self, view: memoryview) -> int:
        while self._is_wanted and time.monotonic() < self._deadline:
            try:
                received, _, flags, sender = self._connection.recvmsg_into([view])
            except BlockingIOError:
                continue
            except OSError as exc:
                raise _failure(exc) from exc
            if sender[0] != 0:
                raise exceptions.SourceError(f'port {sender[0]} pretends to be the kernel')
            if flags & socket.MSG_TRUNC:
                raise exceptions.InconsistentTable('a part of the dump did not fit')
            return received
        raise exceptions.SourceTimeout('the dump was not complete in time')


def _failure(exc: OSError) -> exceptions.SourceError:
    if exc.errno == errno.ENOBUFS:
        return exceptions.InconsistentTable('a part of the dump was lost (ENOBUFS)')
    return exceptions.SourceError(f'receiving the dump: {exc}')
