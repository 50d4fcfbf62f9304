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


"""Two readings give what happened in between, or nothing."""

import dataclasses

import hypothesis
from hypothesis import strategies as st
import pytest

from oie.analysis import rates
from tests import builders

BEFORE = builders.instance(vcpus=2)


def test_usage_is_the_part_of_all_vcpus_that_was_busy():
    after = builders.later(BEFORE, seconds=10, cpu_seconds=5)
    assert rates.cpu_percent(BEFORE, after) == 5 / 10 * 100 / 2


def test_no_earlier_reading_gives_no_rate():
    assert rates.cpu_percent(None, BEFORE) is None


def test_a_restarted_qemu_gives_no_rate():
    after = builders.later(BEFORE, seconds=10, cpu_seconds=5, domain_id=BEFORE.domain_id + 1)
    assert rates.cpu_percent(BEFORE, after) is None


def test_a_counter_that_went_back_gives_no_rate():
    after = builders.later(BEFORE, seconds=10, cpu_seconds=-1)
    assert rates.cpu_percent(BEFORE, after) is None


def test_the_same_reading_shown_again_gives_no_rate():
    stale = dataclasses.replace(BEFORE, is_fresh=False)
    assert rates.cpu_percent(BEFORE, stale) is None


def test_a_clock_that_went_back_gives_no_rate():
    after = builders.later(BEFORE, seconds=-1, cpu_seconds=1)
    assert rates.cpu_percent(BEFORE, after) is None


@pytest.mark.parametrize('vcpus', [0, None])
def test_an_unknown_number_of_vcpus_gives_no_rate(vcpus):
    after = builders.later(BEFORE, seconds=10, cpu_seconds=5, vcpus=vcpus)
    assert rates.cpu_percent(BEFORE, after) is None


@pytest.mark.parametrize('unknown', ['before', 'after'])
def test_a_failed_reading_gives_no_rate(unknown):
    after = builders.later(BEFORE, seconds=10, cpu_seconds=5)
    pair = {'before': BEFORE, 'after': after}
    pair[unknown] = dataclasses.replace(pair[unknown], cpu_time_ns=None)
    assert rates.cpu_percent(pair['before'], pair['after']) is None


def test_the_divisor_is_the_live_number_of_vcpus_not_the_flavors():
    after = builders.later(BEFORE, seconds=10, cpu_seconds=10, vcpus=4)
    assert BEFORE.definition.flavor.vcpus == 2
    assert rates.cpu_percent(BEFORE, after) == 10 / 10 * 100 / 4


def test_emulator_threads_do_not_lift_it_above_100():
    after = builders.later(BEFORE, seconds=10, cpu_seconds=21)
    assert rates.cpu_percent(BEFORE, after) == 100.0


@hypothesis.given(
    cpu_time_ns=st.integers(min_value=0, max_value=2**63),
    used_ns=st.integers(min_value=-(2**40), max_value=2**63),
    elapsed_ns=st.integers(min_value=-(2**40), max_value=2**63),
    vcpus=st.integers(min_value=0, max_value=4096),
)
def test_whatever_is_read_the_usage_is_between_0_and_100_or_unknown(
    cpu_time_ns, used_ns, elapsed_ns, vcpus
):
    before = dataclasses.replace(BEFORE, cpu_time_ns=cpu_time_ns, vcpus=vcpus)
    after = dataclasses.replace(
        before,
        cpu_time_ns=cpu_time_ns + used_ns,
        read_clock_ns=before.read_clock_ns + elapsed_ns,
    )
    usage = rates.cpu_percent(before, after)
    if used_ns < 0 or elapsed_ns <= 0 or vcpus == 0:
        assert usage is None
    else:
        assert usage is not None
        assert 0 <= usage <= 100
