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


"""Expressions of Go's regexp mean the same here, or are refused with what to write instead."""

import pytest

from oie.config import patterns


@pytest.mark.parametrize(
    ('text', 'found', 'missed'),
    [
        # The shipped white lists of netns-exporter: "qrouter" and any number of "-", anywhere.
        ('qrouter-*', ('qrouter-1', 'x-qrouter', 'qrouter--2'), ('qdhcp-1',)),
        ('qg-*|qr-*', ('qg-1', 'tap-qr'), ('ha-1',)),
        ('^qg-', ('qg-1',), ('tap-qg-1',)),
        (r'^\d+$', ('12',), ('\u0661', '1a')),
        (r'^\w+$', ('ab_1',), ('\u00e9',)),
        ('(?i)^QG', ('qg-1', 'QG-1'), ('xqg',)),
        ('(?P<kind>qr|qg)-(?:a|b)', ('qr-a',), ('qr-c',)),
        (r'a\.b', ('a.b',), ('axb',)),
        ('[^a-c]$', ('d',), ('a',)),
        ('x{2,3}', ('xx',), ('x',)),
        (r'\x41', ('A',), ('a',)),
        (r'\\z', ('\\z',), ('z',)),
        ('', ('', 'all'), ()),
    ],
)
def test_what_both_know_means_the_same(text, found, missed):
    pattern = patterns.compiled(text)
    assert [name for name in (*found, *missed) if pattern.search(name)] == list(found)


@pytest.mark.parametrize(
    ('text', 'instead'),
    [
        (r'^qg\z', 'write \\Z'),
        ('(?U)qg.*', 'the flag U'),
        ('(?iU)qg.*', 'the flag U'),
        ('(?U:qg.*)', 'the flag U'),
        ('[[:alpha:]]+', 'write [A-Za-z]'),
        ('[^[:digit:]]', 'write [A-Za-z]'),
        (r'\pL', 'class of Unicode'),
        (r'\P{Greek}', 'class of Unicode'),
        (r'\Qa.b\E', 'before each sign'),
        (r'\x{10FFFF}', '\\uHHHH'),
        ('(?<name>a)', '(?P<name>...)'),
        ('x{,5}', '{0,n}'),
        (r'\C', 'any sign'),
    ],
)
def test_what_only_go_knows_is_refused_with_what_to_write(text, instead):
    with pytest.raises(ValueError, match='has ') as caught:
        patterns.compiled(text)
    assert instead in str(caught.value)


@pytest.mark.parametrize('text', ['(', 'a**', '[z-a]', 'a(?i)b', '[a&&b]', 'x{99999999999}', '\\'])
def test_what_is_no_expression_is_refused_in_one_line(text):
    with pytest.raises(ValueError, match='is no regular expression') as caught:
        patterns.compiled(text)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('text', ['(?<=a)b', '(?<!a)b'])
def test_looking_behind_is_no_named_group(text):
    assert patterns.compiled(text).search('cb' if '!' in text else 'ab')
