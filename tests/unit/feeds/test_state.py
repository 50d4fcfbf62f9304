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

"""What the state promises: it outlives the process, and damage costs no more than the state."""

import json
import math

import hypothesis
from hypothesis import strategies
import pytest

from oie import exceptions
from oie.feeds import state

FULL = state.State(
    sources='aa',
    documents='bb',
    last_attempt_at=1000.5,
    is_answered=True,
    last_success_at=900.0,
    failures=3,
    not_before=2000.0,
    held=state.Held(entries=7, since=800.0, times=2),
)


@pytest.fixture
def place(tmp_path):
    return str(tmp_path)


@pytest.mark.parametrize('known', [FULL, state.State()])
def test_what_was_kept_comes_back(place, known):
    state.write(place, 'sample', known)
    assert state.read(place, 'sample') == known


def test_nothing_kept_is_an_empty_state(place):
    assert state.read(place, 'sample') == state.State()


@pytest.mark.parametrize(
    'change',
    [
        {'format': 2},
        {'failures': -1},
        {'failures': True},
        {'failures': 1.5},
        {'last_attempt_at': 'yesterday'},
        {'last_attempt_at': math.nan},
        {'last_success_at': math.inf},
        {'not_before': False},
        {'sources': None},
        {'held': 7},
        {'held': {}},
        {'held': {'entries': 1, 'since': None, 'times': 1}},
    ],
)
def test_a_wrong_value_is_told(place, change):
    state.write(place, 'sample', FULL)
    path = f'{place}/sample.state'
    with open(path, encoding='utf-8') as file:
        fields = json.load(file)
    with open(path, 'w', encoding='utf-8') as file:
        json.dump(fields | change, file)
    with pytest.raises(exceptions.FeedError, match='sample.state is damaged'):
        state.read(place, 'sample')


@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(strategies.binary(max_size=200))
@hypothesis.example(b'[' * 60000)
@hypothesis.example(b'null')
def test_garbage_is_told(place, content):
    with open(f'{place}/sample.state', 'wb') as file:
        file.write(content)
    with pytest.raises(exceptions.FeedError):
        state.read(place, 'sample')


@pytest.mark.parametrize(
    ('then', 'seconds'), [(None, math.inf), (990.0, 10.0), (1000.0, 0.0), (5000.0, 0.0)]
)
def test_a_time_in_the_future_is_now(then, seconds):
    assert state.since(then, 1000.0) == seconds
