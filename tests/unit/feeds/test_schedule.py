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

"""When a feed is asked next, in numbers."""

import pytest

from oie.feeds import schedule
from oie.feeds import state

PACE = schedule.Pace(refresh=3600.0, min_interval=600.0)
LOCAL = schedule.Pace(refresh=600.0, min_interval=600.0, is_local=True)
NOW = 100_000.0


def low():
    return 0.0


def high():
    return 1.0


class TestAtStart:
    def test_the_first_start_asks_at_once(self):
        wait = schedule.at_start(PACE, state.State(), NOW, has_list=False, random=high)
        assert wait == 0.0

    def test_with_a_list_it_may_take_up_to_half_a_minute(self):
        waits = [
            schedule.at_start(PACE, state.State(), NOW, has_list=True, random=random)
            for random in (low, high)
        ]
        assert waits == [0.0, 30.0]

    def test_but_not_more_than_a_tenth_of_the_interval(self):
        pace = schedule.Pace(refresh=100.0, min_interval=0.0)
        assert schedule.at_start(pace, state.State(), NOW, has_list=True, random=high) == 10.0

    @pytest.mark.parametrize(('ago', 'wait'), [(0.0, 600.0), (200.0, 400.0), (601.0, 0.0)])
    def test_the_minimum_interval_holds_over_restarts(self, ago, wait):
        known = state.State(last_attempt_at=NOW - ago, is_answered=True)
        assert schedule.at_start(PACE, known, NOW, has_list=False, random=high) == wait

    def test_a_clock_that_was_set_back_waits_no_longer_than_that(self):
        known = state.State(last_attempt_at=NOW + 1e9, is_answered=True)
        assert schedule.at_start(PACE, known, NOW, has_list=False, random=high) == 600.0

    def test_where_nobody_answered_a_restart_may_ask_soon(self):
        known = state.State(last_attempt_at=NOW - 10, is_answered=False, failures=9)
        assert schedule.at_start(PACE, known, NOW, has_list=False, random=high) == 20.0

    @pytest.mark.parametrize(('ahead', 'wait'), [(5000.0, 5000.0), (-1.0, 0.0), (1e9, 86400.0)])
    def test_what_the_publisher_asked_for_holds_over_restarts_for_a_day(self, ahead, wait):
        known = state.State(not_before=NOW + ahead)
        assert schedule.at_start(PACE, known, NOW, has_list=False, random=high) == wait

    def test_a_file_of_this_host_is_read_at_once(self):
        known = state.State(last_attempt_at=NOW, is_answered=True, not_before=NOW + 50)
        assert schedule.at_start(LOCAL, known, NOW, has_list=True, random=high) == 0.0


class TestAfterSuccess:
    def test_the_interval_give_or_take_a_tenth(self):
        assert schedule.after_success(PACE, low) == pytest.approx(3240.0)
        assert schedule.after_success(PACE, high) == pytest.approx(3960.0)

    def test_never_below_the_minimum_interval(self):
        pace = schedule.Pace(refresh=60.0, min_interval=600.0)
        assert schedule.after_success(pace, high) == 600.0

    def test_which_does_not_count_for_files_of_this_host(self):
        pace = schedule.Pace(refresh=60.0, min_interval=600.0, is_local=True)
        assert schedule.after_success(pace, low) == pytest.approx(54.0)


class TestAfterFailure:
    def test_without_an_answer_from_half_a_minute_twice_as_long_each_time(self):
        waits = [
            schedule.after_failure(PACE, count, low, is_answered=False) for count in range(1, 10)
        ]
        assert waits == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]

    def test_a_tenth_more_so_that_hosts_do_not_ask_together(self):
        assert schedule.after_failure(PACE, 1, high, is_answered=False) == pytest.approx(33.0)

    def test_after_a_year_of_failures_too(self):
        assert schedule.after_failure(PACE, 10**6, high, is_answered=False) == 3600.0

    def test_an_answer_that_was_no_list_keeps_the_minimum_interval(self):
        waits = [
            schedule.after_failure(PACE, count, low, is_answered=True) for count in (1, 5, 6, 9)
        ]
        assert waits == [600, 600, 960, 3600]

    def test_a_short_interval_is_never_exceeded(self):
        pace = schedule.Pace(refresh=10.0, min_interval=0.0)
        assert schedule.after_failure(pace, 3, high, is_answered=True) == 10.0

    def test_a_file_of_this_host_is_tried_again_soon(self):
        assert schedule.after_failure(LOCAL, 1, low, is_answered=True) == 30.0

    @pytest.mark.parametrize(
        ('asked', 'wait'), [(None, 600.0), (5.0, 600.0), (7200.0, 7200.0), (1e9, 86400.0)]
    )
    def test_retry_after_wins_when_it_is_longer_up_to_a_day(self, asked, wait):
        found = schedule.after_failure(PACE, 1, low, is_answered=True, retry_after=asked)
        assert found == wait
