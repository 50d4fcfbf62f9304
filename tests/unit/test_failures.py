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

"""What LastingFailures promises: a failure is said when it starts, changes and ends."""

import logging

import pytest

from oie import failures

LOG = logging.getLogger('oie.test')


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.DEBUG, logger='oie.test')
    return lambda: [record.getMessage() for record in caplog.records]


def test_a_lasting_failure_is_said_once(lines):
    lasting = failures.LastingFailures(LOG)
    for _ in range(3):
        lasting.report('a', 'not read', 'no route')
    assert lines() == ['a: not read: no route']


def test_a_change_of_the_reason_text_is_said(lines):
    lasting = failures.LastingFailures(LOG)
    lasting.report('a', 'not read', 'no route')
    lasting.report('a', 'not read', ValueError('refused'))
    assert lines() == ['a: not read: no route', 'a: not read: refused']


def test_a_failure_that_swings_between_two_texts_does_not_flood(lines):
    lasting = failures.LastingFailures(LOG)
    for text in ('refused', 'no route') * 50:
        lasting.report('a', 'not read', text)
    assert len(lines()) == 2


def test_texts_that_are_new_each_time_do_not_flood(lines):
    lasting = failures.LastingFailures(LOG)
    for seconds in range(1000):
        lasting.report('a', 'not read', f'silent for {seconds} s')
    assert len(lines()) < 10


def test_the_end_is_said_once_and_only_after_a_beginning(lines):
    lasting = failures.LastingFailures(LOG)
    lasting.settle('a', 'not read')
    lasting.report('a', 'not read', 'no route')
    lasting.settle('a', 'broken XML', 'not read')
    lasting.settle('a', 'not read')
    assert lines() == ['a: not read: no route', 'a: not read: over']


def test_after_the_end_the_same_failure_is_news(lines):
    lasting = failures.LastingFailures(LOG)
    for _ in range(2):
        lasting.report('a', 'not read', 'no route')
        lasting.settle('a', 'not read')
    assert len(lines()) == 4


def test_subjects_and_reasons_do_not_hide_each_other(lines):
    lasting = failures.LastingFailures(LOG)
    lasting.report('a', 'not read', 'no route')
    lasting.report('b', 'not read', 'no route')
    lasting.report('a', 'broken XML', 'no route')
    assert len(lines()) == 3


def test_who_is_gone_is_forgotten_in_silence(lines):
    lasting = failures.LastingFailures(LOG)
    lasting.report('a', 'not read', 'x')
    lasting.report('b', 'not read', 'x')
    lasting.keep_only({'b'})
    lasting.settle('a', 'not read')
    lasting.settle('b', 'not read')
    assert lines()[2:] == ['b: not read: over']


def test_what_is_remembered_is_bounded_and_still_no_flood(lines):
    lasting = failures.LastingFailures(LOG, limit=3)
    for number in range(10):
        lasting.report(f'subject {number}', 'not read', 'x')
    for _ in range(5):
        lasting.report('subject 9', 'not read', 'x')
    assert len(lines()) == 10


@pytest.mark.parametrize(
    'text', ['two\nlines', 'a\rb', '\x1b[31mred', 'nul \0', '\udcff', '\u202e']
)
def test_a_message_of_a_tenant_stays_one_plain_line(lines, text):
    failures.LastingFailures(LOG).report('a', 'not read', text)
    [line] = lines()
    assert line.isprintable()
    line.encode()


def test_a_long_message_is_cut(lines):
    failures.LastingFailures(LOG).report('a', 'not read', 'x' * 65536)
    [line] = lines()
    assert len(line) < 1100


@pytest.mark.parametrize(
    ('options', 'level'), [({}, logging.WARNING), ({'level': logging.ERROR}, logging.ERROR)]
)
def test_the_beginning_and_the_end_have_the_level_that_was_asked_for(caplog, options, level):
    lasting = failures.LastingFailures(LOG, **options)
    lasting.report('a', 'not read', 'no route')
    lasting.settle('a', 'not read')
    assert [record.levelno for record in caplog.records] == [level, level]
