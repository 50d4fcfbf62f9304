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


"""How many connections are tracked, by one message of ctnetlink."""

import errno
import struct

import hypothesis
from hypothesis import strategies
import pytest

from oie import exceptions
from oie.sources import conntrack_counts
from oie.sources.netlink_attributes import attribute


def answer(*attributes, kind=conntrack_counts.GET_STATS):
    body = bytes(4) + b''.join(attributes)
    return memoryview(struct.pack('=IHHII', 16 + len(body), kind, 2, 1, 9) + body)


def count(kind, number):
    return attribute(kind, struct.pack('!I', number))


def test_entries_and_their_limit():
    assert conntrack_counts.parse(answer(count(1, 5), count(2, 262144))) == (5, 262144)


def test_limit_that_an_old_kernel_does_not_tell_is_none():
    assert conntrack_counts.parse(answer(count(1, 0))) == (0, None)
    assert conntrack_counts.parse(answer()) == (None, None)


def test_refusal_names_the_right():
    refusal = struct.pack('=IHHIIi', 20, 2, 0, 1, 9, -errno.EPERM)
    with pytest.raises(exceptions.SourceError, match='EPERM; it needs CAP_NET_ADMIN'):
        conntrack_counts.parse(memoryview(refusal))


@pytest.mark.parametrize('odd', [answer(attribute(1, bytes(8))), answer(kind=0x104), answer()[:9]])
def test_what_is_no_such_answer_is_refused(odd):
    with pytest.raises(exceptions.SourceError):
        conntrack_counts.parse(odd)


@hypothesis.given(strategies.binary(max_size=60))
def test_any_bytes_give_our_own_error_or_numbers(data):
    try:
        found = conntrack_counts.parse(answer(data))
    except exceptions.SourceError:
        return
    assert all(number is None or 0 <= number < 2**32 for number in found)
