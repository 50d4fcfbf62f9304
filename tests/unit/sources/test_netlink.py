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

"""Messages are found where they are, whatever their values look like."""

import errno
import struct

import hypothesis
from hypothesis import strategies
import numpy as np
import pytest

from oie import exceptions
from oie.sources import netlink
from tests import ctnetlink

KIND, SEQUENCE, PORT_ID = 0x100, 0xC0FFEE01, 0xF0000002
INTERRUPTED = ctnetlink.NLM_F_MULTI | 0x10


def message(payload: bytes = bytes(4), **header: int) -> bytes:
    values = {'kind': KIND, 'flags': 2, 'sequence': SEQUENCE, 'port_id': PORT_ID, **header}
    return ctnetlink.raw_message(**values, payload=payload)  # type: ignore[arg-type]


def done(error: int = 0, flags: int = 2) -> bytes:
    return ctnetlink.done(SEQUENCE, PORT_ID, error, flags)


def find(data: bytes) -> netlink.Messages:
    finder = netlink.Finder(KIND, 20, SEQUENCE, PORT_ID)
    return finder.find(np.frombuffer(data, np.uint8))


def places(found: netlink.Messages) -> list[tuple[int, int]]:
    return list(zip(found.positions.tolist(), found.lengths.tolist(), strict=True))


def test_messages_follow_one_another() -> None:
    found = find(message(bytes(4)) + message(bytes(100)) + message(bytes(5)) + message(bytes(4)))

    assert places(found) == [(0, 20), (20, 116), (136, 21), (160, 20)]
    assert (found.is_done, found.is_interrupted, found.error) == (False, False, 0)


def test_nothing_holds_no_messages() -> None:
    assert places(find(b'')) == []


@pytest.mark.parametrize('before', [0, 1, 3])
def test_end_of_the_dump_comes_last(before: int) -> None:
    found = find(message() * before + done())

    assert len(found.positions) == before
    assert (found.is_done, found.error) == (True, 0)


@pytest.mark.parametrize('before', [b'', message()])
def test_end_with_an_error_says_which(before: bytes) -> None:
    found = find(before + done(errno.EINTR))

    assert (found.is_done, found.error) == (True, errno.EINTR)


def test_refusal_says_why() -> None:
    found = find(ctnetlink.refusal(SEQUENCE, PORT_ID, errno.EPERM))

    assert (found.is_done, found.error, places(found)) == (True, errno.EPERM, [])


@pytest.mark.parametrize(
    'data',
    [
        message(flags=INTERRUPTED) + message(),
        message() + message(flags=INTERRUPTED),
        message() + done(flags=INTERRUPTED),
        message(flags=INTERRUPTED | 0x20) + message(),
    ],
)
def test_interruption_is_seen_in_any_message(data: bytes) -> None:
    assert find(data).is_interrupted


def test_flags_of_a_later_kernel_do_not_matter() -> None:
    data = message() + message(flags=0x8002) + message()

    assert places(find(data)) == [(0, 20), (20, 20), (40, 20)]


@pytest.mark.parametrize(
    ('data', 'reason'),
    [
        (message()[:-2], 'inside a word'),
        (message() + bytes(4), 'more than its messages'),
        (message() + bytes(16), 'claims 0 bytes'),
        (message()[:-4], 'a length it cannot have'),
        (done()[:-4] + bytes(4) + message(), 'more than its messages'),
        (done() + done(), 'more than its messages'),
        (message(b''), 'a length it cannot have'),
        (done(flags=2)[:-4], 'claims 20 bytes'),
        (message(sequence=1), 'another request'),
        (message() + message(port_id=1), 'another request'),
        (message() + done().replace(struct.pack('=I', SEQUENCE), bytes(4)), 'another request'),
        (message() + message(kind=0x102), 'type 258'),
        (message(kind=1), 'type 1 '),
        (ctnetlink.refusal(SEQUENCE, PORT_ID, 0), 'acknowledged'),
        (message()[:-4] + message(), 'claims 131328 bytes'),
        (struct.pack('=I', 2**32 - 1) + message()[4:], 'cannot have'),
        (struct.pack('=I', 2**32 - 1) + done()[4:], 'claims 4294967295 bytes'),
    ],
)
def test_what_is_no_answer_is_an_error(data: bytes, reason: str) -> None:
    with pytest.raises(exceptions.SourceError, match=reason):
        find(data)


@hypothesis.settings(deadline=None)
@hypothesis.given(
    strategies.lists(
        strategies.binary(min_size=4, max_size=40)
        | strategies.sampled_from((message()[4:], bytes(4) + message() * 2, done() * 3))
    ),
    strategies.booleans(),
)
def test_payloads_do_not_matter(payloads: list[bytes], is_last: bool) -> None:
    messages = [message(payload) for payload in payloads]

    found = find(b''.join(messages) + (done() if is_last else b''))

    starts = [sum(map(len, messages[:number])) for number in range(len(messages))]
    lengths = [16 + len(payload) for payload in payloads]
    assert places(found) == list(zip(starts, lengths, strict=True))
    assert found.is_done == is_last


@hypothesis.settings(deadline=None)
@hypothesis.given(strategies.binary(max_size=100))
def test_any_bytes_give_our_own_error_or_messages(data: bytes) -> None:
    try:
        found = find(data)
    except exceptions.SourceError:
        return
    assert not len(found.positions) or int((found.positions + found.lengths).max()) <= len(data)


REQUEST = struct.pack('=IHHII', 20, 0x101, 0x301, SEQUENCE, PORT_ID) + bytes(4)


@pytest.mark.parametrize(
    ('received', 'is_last'),
    [
        (message(), False),
        (message() * 3 + done(), True),
        (done(errno.EINTR, INTERRUPTED), True),
        (ctnetlink.refusal(SEQUENCE, PORT_ID, errno.EPERM), True),
        (b'', True),
        (message(ctnetlink.done(1, PORT_ID)), False),
        (message(ctnetlink.done(SEQUENCE, 1)), False),
        (message(message()), False),
    ],
)
def test_last_part_is_known_at_a_glance(received: bytes, is_last: bool) -> None:
    assert netlink.is_end(memoryview(received), REQUEST) == is_last
