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

"""Tokens are strong, only their hashes are kept, and a broken map is no empty one."""

import hashlib

from hypothesis import given
from hypothesis import strategies
import pytest

from oie import exceptions
from oie.federation import tokens

A, B, C = (tokens.Entry(letter * 64, 'one') for letter in 'ABC')
OTHER = tokens.Entry('D' * 64, 'two')


def test_fresh_token_is_new_and_has_256_bits():
    found = {tokens.fresh() for _ in range(100)}
    assert len(found) == 100
    assert {len(token) for token in found} == {43}
    assert {tokens.check_token(token) for token in found} == found


def test_hash_is_that_of_the_whole_header_in_capitals():
    expected = hashlib.sha256(b'Bearer abc').hexdigest().upper()
    assert tokens.hash_of('abc') == expected


@given(
    strategies.lists(
        strategies.builds(
            tokens.Entry,
            strategies.from_regex('[0-9A-F]{64}', fullmatch=True),
            strategies.from_regex('[A-Za-z0-9][A-Za-z0-9_.-]{0,63}', fullmatch=True),
        )
    )
)
def test_map_is_read_as_it_was_written(entries):
    assert tokens.parse(tokens.text_of(entries), 'm') == tuple(entries)


def test_comments_and_blank_lines_are_no_entries():
    assert tokens.parse(f'# who\n\n{A.hash}   one \n', 'm') == (A,)


@pytest.mark.parametrize(
    'line', ['a secret token', f'{A.hash.lower()} one', A.hash, f'{A.hash} -']
)
def test_line_that_is_something_else_is_an_error_that_does_not_show_it(line):
    with pytest.raises(exceptions.GateError, match='^m:2: not a hash') as caught:
        tokens.parse(f'# x\n{line}\n', 'm')
    assert line not in str(caught.value)


@pytest.mark.parametrize('name', ['', '-x', 'a b', 'ä', 'x' * 65, 'a\n'])
def test_name_that_could_not_stand_in_the_map_is_refused(name):
    with pytest.raises(exceptions.ConfigError, match='is no name of a portal'):
        tokens.check_name(name)


@pytest.mark.parametrize('token', ['x' * 31, 'x' * 40 + ' y', 'x' * 40 + '\n', 'ä' * 40, '"' * 40])
def test_weak_or_strange_token_is_refused_and_not_shown(token):
    with pytest.raises(exceptions.ConfigError) as caught:
        tokens.check_token(token)
    assert token not in str(caught.value)


def test_all_tokens_of_a_portal_are_chosen_and_no_others():
    assert tokens.chosen((A, OTHER, B), 'one') == (A, B)


def test_older_ones_are_all_but_the_newest():
    assert tokens.chosen((A, OTHER, B, C), 'one', is_older=True) == (A, B)


def test_one_is_chosen_by_the_beginning_of_its_hash():
    assert tokens.chosen((A, B), 'one', id_='bbb') == (B,)


@pytest.mark.parametrize(
    ('entries', 'more', 'reason'),
    [
        ((), {}, 'no such token'),
        ((OTHER,), {}, 'no such token'),
        ((A,), {'is_older': True}, 'no such token'),
        ((A,), {'id_': 'B'}, 'no such token'),
        ((A, tokens.Entry('A' * 63 + 'B', 'one')), {'id_': 'AA'}, 'begins 2 tokens'),
    ],
)
def test_choice_of_nothing_or_too_much_is_an_error(entries, more, reason):
    with pytest.raises(exceptions.GateError, match=reason):
        tokens.chosen(entries, 'one', **more)
