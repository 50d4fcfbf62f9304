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


"""What all collectors share: values that are known, and the reference's rounding."""

import operator

import hypothesis
from hypothesis import strategies as st
import pytest

from oie import model
from oie.collectors import base
from tests import builders

METER = model.Meter(
    prometheus='oie_x', unit='1', kind=model.Kind.GAUGE, help='X.', source='nothing'
)


@pytest.mark.parametrize(
    ('size', 'expected'),
    [
        (0, 0.0),
        (5368, 0.0),  # 5368 / 2^30 = 0.00000499934 -> 0
        (5369, 0.00001),  # 5369 / 2^30 = 0.00000500027 -> 0.00001
        (10737, 0.00001),
        (2**30, 1.0),
        (3 * 2**30 // 2, 1.5),
    ],
)
def test_gbytes_are_rounded_as_the_contract_has_it(size, expected):
    assert base.gbytes(size) == expected


@pytest.mark.parametrize(
    ('value', 'expected'),
    [
        # Exact in binary: k / 2^6 has the sixth and last decimal 5.
        (1 / 64, 0.01563),  # 0.015625
        (3 / 64, 0.04688),  # 0.046875; half to even would give 0.04688 too
        (5 / 64, 0.07813),  # 0.078125; half to even would give 0.07812
        (99.999999, 100.0),
    ],
)
def test_a_half_is_rounded_away_from_zero(value, expected):
    assert base.round5(value) == expected


@hypothesis.given(st.floats(min_value=0, max_value=1e9))
def test_rounding_moves_by_half_a_step_at_most(value):
    assert abs(base.round5(value) - value) <= 0.5e-5 + value * 1e-15


@hypothesis.given(st.integers(min_value=0, max_value=2**63), st.integers(0, 2**40))
def test_rounded_counters_never_go_back(value, more):
    assert base.gbytes(value) <= base.gbytes(value + more)


def test_a_family_without_known_values_is_not_given():
    assert list(base.family(METER, ((model.NO_LABELS, None),))) == []
    assert list(base.single(METER, None)) == []
    columns = ((METER, operator.attrgetter('cpu_time_ns')),)
    assert list(base.families(columns, [(model.NO_LABELS, builders.silent())])) == []


def test_a_known_zero_is_a_value():
    [family] = base.single(METER, 0)
    assert family.samples == [(model.NO_LABELS, 0)]


def test_a_column_without_a_name_for_prometheus_gives_no_family():
    only_ceilometer = model.Meter(
        ceilometer='oie.x', field='x', unit='1', kind=model.Kind.GAUGE, help='X.', source='x'
    )
    columns = ((only_ceilometer, lambda _: 1),)
    assert list(base.families(columns, [(model.NO_LABELS, None)])) == []


def test_what_is_made_of_a_definition_is_made_once_and_anew_when_it_changes():
    notes: base.Notes = {}
    first, second = builders.definition(), builders.definition()
    made = [base.noted(notes, of, lambda of: object()) for of in (first, first, second, second)]
    assert made[0] is made[1]
    assert made[2] is made[3]
    assert made[0] is not made[2]


def test_a_resource_whose_monitor_said_nothing_yet_has_no_rows():
    snapshot = builders.snapshot(builders.instance(monitor=None))
    assert base.rows(snapshot, base.Resource.MONITOR) == []
    assert base.rows(snapshot, base.Resource.DISK) == []
    assert len(base.rows(snapshot, base.Resource.INSTANCE)) == 1
    assert len(base.rows(snapshot, base.Resource.INTERFACE)) == 1
    assert base.rows(snapshot, base.Resource.VIRTUAL_FUNCTION) == []


@pytest.mark.parametrize('convert', [base.seconds, base.milliseconds])
def test_an_unknown_time_stays_unknown(convert):
    assert convert(None) is None


def test_times_become_seconds():
    assert base.seconds(1_500_000_000) == 1.5
    assert base.milliseconds(1500) == 1.5
