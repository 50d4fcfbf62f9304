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

"""What comes is from the kernel and whole, or it is an error.

A pair of local sockets stands for the kernel: one without a name is taken for it.
"""

from collections.abc import Iterator
import errno
import gc
import socket
import time

import pytest

from oie import exceptions
from oie.sources import netlink_socket

Pair = tuple[netlink_socket.NetlinkSocket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with theirs, netlink_socket.NetlinkSocket(ours) as connection:
        yield connection, theirs


@pytest.fixture
def batch() -> netlink_socket.Batch:
    return netlink_socket.Batch()


def test_parts_come_with_one_call(pair: Pair, batch: netlink_socket.Batch) -> None:
    connection, kernel = pair
    for part in (b'abcd', b'', bytes(20000), b'efgh'):
        kernel.send(part)

    count = connection.receive(batch)

    assert count == 4
    assert [len(batch.part(place)) for place in range(count)] == [4, 0, 20000, 4]
    assert batch.joined(count).tobytes() == b'abcd' + bytes(20000) + b'efgh'


def test_what_was_joined_outlives_the_batch(pair: Pair, batch: netlink_socket.Batch) -> None:
    connection, kernel = pair
    kernel.send(b'abcd')
    joined = batch.joined(connection.receive(batch))

    kernel.send(b'efgh')
    connection.receive(batch)

    assert joined.tobytes() == b'abcd'


def test_a_batch_serves_many_times(pair: Pair, batch: netlink_socket.Batch) -> None:
    connection, kernel = pair
    for number in range(200):
        kernel.send(bytes([number]) * number)

        assert batch.joined(connection.receive(batch)).tobytes() == bytes([number]) * number


def test_silence_is_no_error(
    pair: Pair, batch: netlink_socket.Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.monotonic()

    assert pair[0].receive(batch) == 0
    assert netlink_socket.PATIENCE * 0.9 < time.monotonic() - began < 10


def test_part_that_does_not_fit(pair: Pair, batch: netlink_socket.Batch) -> None:
    connection, kernel = pair
    kernel.send(bytes(netlink_socket.PART_BYTES + 1))

    with pytest.raises(exceptions.InconsistentTable, match='too long'):
        connection.receive(batch)


def test_part_that_just_fits(pair: Pair, batch: netlink_socket.Batch) -> None:
    connection, kernel = pair
    kernel.send(bytes(netlink_socket.PART_BYTES))

    assert len(batch.joined(connection.receive(batch))) == netlink_socket.PART_BYTES


@pytest.mark.parametrize('place', [0, 1])
def test_foreign_sender(place: int, pair: Pair, batch: netlink_socket.Batch) -> None:
    connection, kernel = pair
    for _ in range(place):
        kernel.send(b'abcd')
    # Behind the family its name is where the port would be.
    kernel.bind('\0oiet-stranger')
    kernel.send(b'efgh')

    with pytest.raises(exceptions.SourceError, match='pretends to be the kernel'):
        connection.receive(batch)


def test_request_that_cannot_be_sent(pair: Pair) -> None:
    pair[1].close()

    with pytest.raises(exceptions.SourceError, match='a netlink request: .*refused'):
        pair[0].send(b'request')


def test_socket_that_is_closed(pair: Pair, batch: netlink_socket.Batch) -> None:
    with pair[0]:
        pass

    with pytest.raises(exceptions.SourceError, match='EBADF'):
        pair[0].receive(batch)


@pytest.mark.parametrize(
    ('number', 'kind', 'words'),
    [
        (errno.ENOBUFS, exceptions.InconsistentTable, 'lost .ENOBUFS'),
        (errno.ENOMEM, exceptions.SourceError, 'ENOMEM'),
        (4321, exceptions.SourceError, '4321'),
    ],
)
def test_failures_by_their_number(number: int, kind: type[Exception], words: str) -> None:
    with pytest.raises(exceptions.SourceError, match=words) as caught:
        raise netlink_socket.failure(number)

    assert caught.type is kind


def test_kernel_without_this_protocol() -> None:
    with pytest.raises(exceptions.SourceError, match='no netlink socket 31'):
        netlink_socket.connect(31)


def test_socket_of_ours_has_a_port() -> None:
    # NETLINK_ROUTE is where there is a network at all.
    with netlink_socket.connect(0) as connection:
        assert connection.port_id > 0


def test_closed_socket_leaves_nothing_to_the_garbage_collector(pair: Pair) -> None:
    """One is opened in every cycle, and the collector seldom comes."""
    gc.collect()
    gc.disable()
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with theirs, netlink_socket.NetlinkSocket(ours):
            pass
        del ours, theirs
        assert gc.collect() == 0
    finally:
        gc.enable()
