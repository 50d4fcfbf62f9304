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

"""The list of attempts is what it says: each another one, and none that does harm."""

import collections
import re

import pytest

from oie.federation import attempts
from oie.federation import attempts_http1
from oie.federation import attempts_http2
from oie.federation import request_lines

LINE = request_lines.request_line(('{job="a"}',))
FILLING = attempts.Filling('http', 'gate:1', LINE, 'To-ken_of_letters')
ALL = (*attempts_http1.attempts_of(), *attempts_http2.attempts_of())


def sent(attempt):
    """Return what goes out for an attempt, as something that can be compared."""
    fields = FILLING.fill_fields(attempt.fields)
    trailers = FILLING.fill_fields(attempt.trailers)
    data = attempt.data if attempt.data is None else FILLING.fill(attempt.data)
    return FILLING.fill(attempt.raw), fields, data, trailers, attempt.has_end


def test_no_two_attempts_are_the_same():
    assert len({sent(attempt) for attempt in ALL}) == len(ALL) >= 200
    names = collections.Counter((each.protocol, each.name) for each in ALL)
    assert [name for name, count in names.items() if count > 1] == []


def test_no_attempt_is_the_allowed_request():
    allowed = {sent(attempts_http1.control()), sent(attempts_http2.control())}
    assert not allowed & {sent(attempt) for attempt in ALL}


def test_allowed_request_is_the_line_with_one_credential():
    assert FILLING.fill(attempts_http1.control().raw) == (
        f'GET {LINE} HTTP/1.1\r\nHost: gate:1\r\nAuthorization: Bearer To-ken_of_letters\r\n'
        'Connection: close\r\n\r\n'
    )


def test_every_group_is_tried_over_both_protocols():
    groups = {(each.protocol, each.group) for each in ALL}
    wanted = (
        *(attempts.CREDENTIAL, attempts.METHOD, attempts.BODY),
        *(attempts.TARGET, attempts.ELSEWHERE),
    )
    assert groups == {(name, group) for name in ('HTTP/1.1', 'HTTP/2') for group in wanted}


def test_only_a_second_request_has_an_allowed_one_before_it():
    passing = {each.name for each in ALL if each.passes}
    assert passing == {
        *('allowed, then another path', 'allowed, then no credential', 'allowed, then HTTP/0.9'),
        'empty body that nothing announces',
    }


def test_what_changes_something_is_asked_for_by_get_or_of_nothing():
    for attempt in ALL:
        if re.search(r'/-/|/admin/|/write', attempt.raw):
            assert attempt.raw.startswith('GET ') or 'oie_gate_check_nothing' in attempt.raw
        fields = dict(attempt.fields)
        if re.search(r'/-/|/admin/|/write', fields.get(':path', '')):
            assert fields[':method'] == 'GET'


@pytest.mark.parametrize('attempt', ALL, ids=lambda each: f'{each.protocol} {each.name}')
def test_attempt_tells_whether_it_needs_a_token(attempt):
    empty = attempts.Filling('http', 'gate:1', LINE)
    raw, fields, data = FILLING.fill(attempt.raw), FILLING.fill_fields(attempt.fields), ''
    has_token = 'o-ken' in f'{raw}{fields}{data}'.lower() or 'Basic' in raw or 'To-ken' in raw
    assert attempt.needs_token is (has_token or '$half' in attempt.raw)
    # Whoever has none can still make all others.
    assert empty.fill(attempt.raw) is not None
