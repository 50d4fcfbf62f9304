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


"""What says nothing is left out, by the rules of the reference exporter."""

import hypothesis
from hypothesis import strategies as st
import pytest

from oie.analysis import suppression

percent = st.floats(min_value=0, max_value=100)


def exported(usages, minimum):
    """Return which of these successive usages are exported, None for the others."""
    last, shown = None, []
    for usage in usages:
        is_shown = usage is not None and suppression.shows_cpu(usage, last, minimum)
        last = usage if is_shown else last
        shown.append(usage if is_shown else None)
    return shown


def test_cpu_follows_the_vector_of_the_contract():
    measured = [None, 0, 50, 5, 3, 0, 0, 12, 0]
    assert exported(measured, 10) == [None, None, 50, 5, 3, 0, None, 12, 0]


def test_cpu_at_the_minimum_is_exported():
    assert exported([9.99, 10.0], 10) == [None, 10.0]


def test_one_trailing_sample_follows_a_busy_one():
    assert exported([50, 0, 0], 10) == [50, 0, None]


def test_a_failed_reading_changes_nothing():
    assert exported([50, None, 5], 10) == [50, None, 5]


def test_a_usage_that_stays_below_the_minimum_is_shown_while_it_changes():
    assert exported([50, 5, 5, 4, 4], 10) == [50, 5, None, 4, None]


def test_a_minimum_of_zero_exports_everything():
    assert exported([0, 0, 1, 1], 0) == [0, 0, 1, 1]


@hypothesis.given(st.lists(percent), percent)
def test_nothing_below_the_minimum_comes_before_the_first_that_reaches_it(usages, minimum):
    shown = exported(usages, minimum)
    first = next((n for n, usage in enumerate(usages) if usage >= minimum), len(usages))
    assert all(usage is None for usage in shown[:first])


@hypothesis.given(st.lists(percent), percent)
def test_every_usage_that_reaches_the_minimum_is_exported(usages, minimum):
    shown = exported(usages, minimum)
    assert all(s == u for s, u in zip(shown, usages, strict=True) if u >= minimum)


@hypothesis.given(st.lists(percent, min_size=1), percent.filter(bool))
def test_idleness_becomes_silent_after_one_zero(usages, minimum):
    shown = exported([*usages, 0, 0, 0], minimum)
    assert shown[-2:] == [None, None]


@pytest.mark.parametrize(
    ('counters', 'is_shown'),
    [
        ((0, 0, 0, 0), False),
        ((0, 0, 0, 1), True),
        ((None, None), False),
        ((None, 0), False),
        ((None, 1), True),
        ((), False),
    ],
)
def test_counters_are_shown_once_any_of_them_has_moved(counters, is_shown):
    assert suppression.shows_counters(counters) is is_shown
