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

The kernel does the work of a dump while one receives, and there it needs no lock of
Python's. So a dump that is decoded takes hardly longer than one that is not.
"""

from collections.abc import Iterator
import contextlib
import queue
import threading
import time

from oie import exceptions
from oie.sources import netlink
from oie.sources import netlink_socket

# Enough for neither thread to wait for the other while both keep pace.
BATCHES = 3


@contextlib.contextmanager
def answers(
    connection: netlink_socket.NetlinkSocket, request: bytes, deadline: float
) -> Iterator[Iterator[netlink.Octets]]:
    """Send a request; give what answers it, up to the end of the dump.

    It comes in buffers of whole messages. After the block the thread has ended,
    whatever happened in it.

    :param connection: a socket that nobody else uses meanwhile
    :param deadline: when all must be there, by time.monotonic()
    :raises InconsistentTable: a part was lost
    :raises SourceError: it cannot be received, or comes from somebody else
    :raises SourceTimeout: not everything came in time
    """
    connection.send(request)
    receiver = _Receiver(connection, request, deadline)
    receiver.start()
    try:
        yield receiver.buffers()
    finally:
        receiver.stop()


class _Receiver:
    """The thread, and the batches that pass between it and the caller."""

    def __init__(
        self, connection: netlink_socket.NetlinkSocket, request: bytes, deadline: float
    ) -> None:
        self._connection = connection
        self._request = request
        self._deadline = deadline
        self._is_wanted = True
        self._free: queue.SimpleQueue[netlink_socket.Batch | None] = queue.SimpleQueue()
        self._filled: queue.SimpleQueue[
            tuple[netlink_socket.Batch, int] | BaseException | None
        ] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name='oie-netlink', daemon=True)

    def start(self) -> None:
        for _ in range(BATCHES):
            self._free.put(netlink_socket.Batch())
        try:
            self._thread.start()
        except RuntimeError as exc:
            raise exceptions.SourceError(f'no thread to receive a dump: {exc}') from exc

    def stop(self) -> None:
        """Return when the thread has ended."""
        self._is_wanted = False
        self._free.put(None)
        self._thread.join()

    def buffers(self) -> Iterator[netlink.Octets]:
        """Give what came, in the order in which it came."""
        while (filled := self._filled.get()) is not None:
            if isinstance(filled, BaseException):
                raise filled
            batch, count = filled
            buffer = batch.joined(count)
            self._free.put(batch)
            yield buffer

    def _run(self) -> None:
        """Fill batches until the dump ends or nobody wants it any more."""
        try:
            is_last = False
            while not is_last and (batch := self._free.get()) is not None:
                count = self._receive(batch)
                is_last = netlink.is_end(batch.part(count - 1).data, self._request)
                self._filled.put((batch, count))
            self._filled.put(None)
        except BaseException as exc:
            self._filled.put(exc)

    def _receive(self, batch: netlink_socket.Batch) -> int:
        while self._is_wanted and time.monotonic() < self._deadline:
            if count := self._connection.receive(batch):
                return count
        raise exceptions.SourceTimeout('the dump was not complete in time')
