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

"""Selectors are taken apart and left as they are; what Prometheus would refuse is refused."""

import contextlib

from hypothesis import given
from hypothesis import strategies
import pytest

from oie.config import gate_options
from oie.config import option_types
from oie.config import selectors


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('up', ('up',)),
        (' up  node:load1:avg ', ('up', 'node:load1:avg')),
        ('{job="a"}', ('{job="a"}',)),
        ('up {job="a"} {job="b"}', ('up {job="a"}', '{job="b"}')),
        ('up{ a = "x y" , b!~`}`, }', ('up{ a = "x y" , b!~`}`, }',)),
        (r'{a="\"}{",b=~"c.+"}', (r'{a="\"}{",b=~"c.+"}',)),
        ("{a='b'} up{}", ("{a='b'}", 'up{}')),
        ('{a!=""}', ('{a!=""}',)),
        ('{a!~".*"}', ('{a!~".*"}',)),
        (r'{a=~"\\pL"}', (r'{a=~"\\pL"}',)),
    ],
)
def test_selectors_stay_as_they_were_written(text, expected):
    assert selectors.parse(text) == expected


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('', 'there is no selector'),
        ('  ', 'there is no selector'),
        ('{}', 'every series'),
        ('{a=""}', 'every series'),
        ('{a=~".*"}', 'every series'),
        ('{a!="b"}', 'every series'),
        ('{a!~"b"}', 'every series'),
        ('up,down', 'is no selector'),
        ('up{a="b"}[5m]', 'is no selector'),
        ('sum(up)', 'is no selector'),
        ('{a="b"', 'is no selector'),
        ('{a=b}', 'is no selector'),
        ('{a="b}', 'is no selector'),
        ('{1a="b"}', 'is no selector'),
        ('{a="b"}{c="d"}', 'is no selector'),
        ('up -x', 'is no selector'),
        ('"up"', 'is no selector'),
    ],
)
def test_what_is_no_selector_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        selectors.parse(text)


VALUES = strategies.text('ab"\\{}, \'`=~\n€', max_size=8)
LABELS = strategies.from_regex('[a-z_][a-z0-9_]{0,5}', fullmatch=True)


def quoted(value):
    escaped = value.replace('\\', '\\\\').replace('"', '\\"').replace('\n', '\\n')
    return f'"{escaped}"'


@given(
    strategies.lists(
        strategies.tuples(
            strategies.from_regex('[a-z_:][a-z0-9_:]{0,5}', fullmatch=True),
            strategies.lists(strategies.tuples(LABELS, VALUES), max_size=3),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_whatever_the_values_are_selectors_come_apart_where_they_were_joined(found):
    written = tuple(
        f'{name}{{{",".join(f"{label}={quoted(value)}" for label, value in matchers)}}}'
        for name, matchers in found
    )
    assert selectors.parse(' '.join(written)) == written


@given(strategies.text('up{}="a,~! \\`', max_size=20))
def test_any_text_is_selectors_or_wrong(text):
    found: tuple[str, ...] = ()
    with contextlib.suppress(ValueError):
        found = selectors.parse(text)
    # Nothing is lost but the blanks between them.
    assert not found or ''.join(''.join(found).split()) == ''.join(text.split())


def test_default_of_the_option_is_a_selector():
    assert option_types.Selectors()(gate_options.SELECTORS) == (gate_options.SELECTORS,)
