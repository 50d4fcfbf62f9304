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


"""A deadline ends what runs, once, and leaves no trace."""

import contextlib
import signal
import time

import pytest

from oie import exceptions
from oie.feeds import deadlines

LONG = 20.0


def wait() -> None:
    time.sleep(LONG)


def wait_twice() -> None:
    with contextlib.suppress(exceptions.FeedError):
        wait()
    wait()


def timer() -> float:
    return signal.getitimer(signal.ITIMER_REAL)[0]


def test_what_waits_is_ended_in_time():
    started = time.monotonic()

    with (
        pytest.raises(exceptions.FeedError, match=r'^not done within 0\.1 s; raise timeout$'),
        deadlines.deadline(0.1),
    ):
        wait()

    assert time.monotonic() - started < LONG / 2


def test_work_in_time_leaves_no_trace():
    handler = signal.getsignal(signal.SIGALRM)
    with deadlines.deadline(LONG):
        assert 0 < timer() <= LONG

    assert signal.getsignal(signal.SIGALRM) is handler


def test_deadline_without_time_left_ends_at_once():
    with pytest.raises(exceptions.FeedError), deadlines.deadline(-1):
        wait()


def test_alarm_that_was_lost_comes_again():
    with pytest.raises(exceptions.FeedError), deadlines.deadline(0.05):
        wait_twice()


def test_outer_deadline_goes_on_behind_the_inner():
    with deadlines.deadline(LONG):
        with pytest.raises(exceptions.FeedError, match=r'0\.1 s'), deadlines.deadline(0.1):
            wait()
        assert LONG - 5 < timer() < LONG - 0.05


def test_first_deadline_counts():
    with pytest.raises(exceptions.FeedError, match=r'0\.1 s'), deadlines.deadline(0.1):
        with deadlines.deadline(LONG):
            wait()


def test_outer_deadline_that_passed_meanwhile_comes_at_once():
    def overstay() -> None:
        with deadlines.deadline(0.1):
            with contextlib.suppress(exceptions.FeedError):
                wait()
            time.sleep(0.15)
        wait()

    with pytest.raises(exceptions.FeedError, match=r'0\.2 s'), deadlines.deadline(0.2):
        overstay()
