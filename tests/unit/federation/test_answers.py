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

"""Every answer of a connection is found, and whose it is."""

from hypothesis import given
from hypothesis import strategies
import pytest

from oie.federation import answers

REFUSAL = b'HTTP/1.1 403 Forbidden\r\ncontent-length: 3\r\n\r\nno\n'
DATED = (
    b'HTTP/1.1 404 Not Found\r\nDate: Sat, 21 Nov 2026 20:00:00 GMT\r\nContent-Length: 0\r\n\r\n'
)
GOOD = b'HTTP/1.1 200 OK\r\ndate: x\r\ncontent-length: 2\r\n\r\nup'
CHUNKED = (
    b'HTTP/1.1 200 OK\r\nDate: x\r\nTransfer-Encoding: chunked\r\n\r\n'
    b'10;x\r\nHTTP/1.1 200 OK\n\r\n0\r\n\r\n'
)


@pytest.mark.parametrize(
    ('data', 'statuses', 'refusals'),
    [
        (b'', [], 0),
        (REFUSAL, [403], 1),
        (DATED, [404], 0),
        (GOOD + REFUSAL, [200, 403], 1),
        (CHUNKED + GOOD, [200, 200], 0),
        (CHUNKED + REFUSAL + DATED, [200, 403, 404], 1),
        (b'HTTP/1.1 100 Continue\r\n\r\n' + GOOD, [200], 0),
        (b'HTTP/1.1 200 OK\r\n\r\nto the end', [200], 0),
        (b'HTTP/1.0 304 Not Modified\r\n\r\n' + REFUSAL, [304, 403], 1),
        (b'HTTP/1.1 101 Switching\r\n\r\n\0\0\0', [101], 0),
        (b'up 1\n', [0], 0),
        (GOOD + b'up 1\n', [200, 0], 0),
    ],
)
def test_answers_of_a_connection_are_told_apart(data, statuses, refusals):
    found = answers.parse(data)
    assert [answer.status for answer in found] == statuses
    assert sum(answer.is_refusal for answer in found) == refusals


@given(strategies.lists(strategies.sampled_from([REFUSAL, DATED, GOOD, CHUNKED]), max_size=5))
def test_as_many_answers_are_found_as_there_are(parts):
    assert len(answers.parse(b''.join(parts))) == len(parts)


@given(strategies.binary(), strategies.sampled_from([b'', GOOD, CHUNKED[:60], CHUNKED]))
def test_any_bytes_end_in_answers(data, before):
    found = answers.parse(before + data)
    # Nothing that is no refusal of the gate is overlooked.
    assert bool(found) is bool(before + data) or found == []
    assert all(answer.status != 100 for answer in found)
