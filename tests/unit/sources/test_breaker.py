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

"""What Breaker promises: who got us stuck is left alone, tried again, believed again."""

import json
import logging

import pytest

from oie.sources import breaker as breakers
from oie.sources import calls

ASK, PROBE, SKIP = breakers.Verdict.ASK, breakers.Verdict.PROBE, breakers.Verdict.SKIP


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def stuck_call():
    return calls.Call('statistics', lambda call: None)


def come_back(call):
    call._returned.set()


def test_who_is_not_suspected_is_asked():
    assert breakers.Breaker().verdict('a', is_busy=False) is ASK


def test_who_is_busy_is_skipped_without_being_suspected():
    breaker = breakers.Breaker()
    assert breaker.verdict('a', is_busy=True) is SKIP
    assert breaker.open == frozenset()
    assert breaker.verdict('a', is_busy=False) is ASK


def test_one_stuck_call_opens_for_this_domain_only():
    breaker = breakers.Breaker()
    breaker.trip('a', stuck_call())
    assert breaker.verdict('a', is_busy=False) is SKIP
    assert breaker.verdict('b', is_busy=False) is ASK
    assert breaker.open == {'a'}


def test_the_return_of_the_stuck_call_allows_a_probe(clock):
    breaker, call = breakers.Breaker(clock=clock), stuck_call()
    breaker.trip('a', call)
    assert breaker.verdict('a', is_busy=False) is SKIP
    come_back(call)
    assert breaker.verdict('a', is_busy=False) is PROBE


def test_no_probe_while_the_monitor_is_occupied(clock):
    breaker, call = breakers.Breaker(clock=clock), stuck_call()
    breaker.trip('a', call)
    clock.now += breakers.LONGEST_BACKOFF
    assert breaker.verdict('a', is_busy=True) is SKIP
    come_back(call)
    assert breaker.verdict('a', is_busy=True) is SKIP
    assert breaker.verdict('a', is_busy=False) is PROBE


def test_without_a_return_the_back_off_allows_a_probe(clock):
    breaker = breakers.Breaker(clock=clock)
    breaker.trip('a', stuck_call())
    clock.now += breakers.FIRST_BACKOFF - 1
    assert breaker.verdict('a', is_busy=False) is SKIP
    clock.now += 1
    assert breaker.verdict('a', is_busy=False) is PROBE


def test_each_trip_doubles_the_back_off_up_to_a_limit(clock):
    breaker = breakers.Breaker(clock=clock)
    backoffs = []
    for _ in range(7):
        breaker.trip('a', stuck_call())
        begun = clock.now
        while breaker.verdict('a', is_busy=False) is SKIP:
            clock.now += 1
        backoffs.append(clock.now - begun)
    assert backoffs == [60, 120, 240, 480, 900, 900, 900]


def test_a_domain_that_trips_for_years_does_not_break_the_arithmetic(clock):
    breaker = breakers.Breaker(clock=clock)
    for _ in range(2000):
        breaker.trip('a', stuck_call())
    assert breaker.verdict('a', is_busy=False) is SKIP
    clock.now += breakers.LONGEST_BACKOFF
    assert breaker.verdict('a', is_busy=False) is PROBE


def test_the_second_stuck_call_earns_no_probe_by_its_return(clock):
    """Else a guest that answers every few seconds holds a worker most of the time."""
    breaker, second = breakers.Breaker(clock=clock), stuck_call()
    breaker.trip('a', stuck_call())
    breaker.trip('a', second)
    come_back(second)
    assert breaker.verdict('a', is_busy=False) is SKIP


def test_who_is_only_among_the_suspects_does_not_wait_longer_each_time(clock):
    breaker = breakers.Breaker(clock=clock)
    for _ in range(5):
        call = stuck_call()
        breaker.trip('a', call, is_certain=False)
        come_back(call)
        assert breaker.verdict('a', is_busy=False) is PROBE


def test_an_answer_closes(clock):
    breaker = breakers.Breaker(clock=clock)
    breaker.trip('a', stuck_call())
    breaker.succeed('a')
    assert breaker.verdict('a', is_busy=False) is ASK
    assert breaker.open == frozenset()


def test_earlier_trips_count_until_they_are_old(clock):
    breaker = breakers.Breaker(clock=clock)
    breaker.trip('a', stuck_call())
    breaker.succeed('a')
    breaker.trip('a', stuck_call())
    clock.now += breakers.FIRST_BACKOFF
    assert breaker.verdict('a', is_busy=False) is SKIP  # the second back-off is longer
    breaker.succeed('a')
    clock.now += breakers.LONGEST_BACKOFF + 1
    breaker.succeed('a')
    breaker.trip('a', stuck_call())
    clock.now += breakers.FIRST_BACKOFF
    assert breaker.verdict('a', is_busy=False) is PROBE


def test_an_answer_of_who_is_not_suspected_changes_nothing(tmp_path):
    breaker = breakers.Breaker(str(tmp_path / 'suspects.json'))
    breaker.succeed('a')
    assert not (tmp_path / 'suspects.json').exists()


def test_a_domain_that_left_is_forgotten(tmp_path):
    path = tmp_path / 'suspects.json'
    breaker = breakers.Breaker(str(path))
    breaker.trip('a', stuck_call())
    breaker.trip('b', stuck_call())
    breaker.keep_only(['b', 'c'])
    assert breaker.open == {'b'}
    assert json.loads(path.read_text()) == ['b']


def test_a_domain_with_a_new_qemu_is_believed_again(clock):
    breaker = breakers.Breaker(clock=clock)
    for _ in range(5):
        breaker.trip('a', stuck_call())
    breaker.forget(['a', 'unknown'])
    assert breaker.verdict('a', is_busy=False) is ASK


def test_suspects_survive_a_restart_and_begin_open(tmp_path, clock):
    path = str(tmp_path / 'suspects.json')
    breakers.Breaker(path).trip('a', stuck_call())
    again = breakers.Breaker(path, clock)
    assert again.open == {'a'}
    assert again.verdict('a', is_busy=False) is SKIP
    clock.now += breakers.FIRST_BACKOFF
    assert again.verdict('a', is_busy=False) is PROBE


def test_who_answered_again_is_no_suspect_after_a_restart(tmp_path):
    path = str(tmp_path / 'suspects.json')
    breaker = breakers.Breaker(path)
    breaker.trip('a', stuck_call())
    breaker.succeed('a')
    assert breakers.Breaker(path).open == frozenset()


@pytest.mark.parametrize(
    ('content', 'expected'),
    [
        (b'', set()),
        (b'{"a": 1}', set()),
        (b'["a", 7, null, ["b"]]', {'a'}),
        (b'["a"', set()),
        (b'\xff\xfe', set()),
        (b'[' * 100_000, set()),
        (b'null', set()),
    ],
)
def test_a_corrupt_file_is_no_reason_not_to_start(tmp_path, content, expected):
    path = tmp_path / 'suspects.json'
    path.write_bytes(content)
    assert breakers.Breaker(str(path)).open == expected


def test_a_directory_that_is_missing_is_no_reason_not_to_start(tmp_path):
    assert breakers.Breaker(str(tmp_path / 'missing' / 'suspects.json')).open == frozenset()


def test_a_file_that_cannot_be_written_costs_one_line_of_log(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    directory = tmp_path / 'later'
    breaker = breakers.Breaker(str(directory / 'suspects.json'))
    for uuid in 'abc':
        breaker.trip(uuid, stuck_call())
    assert breaker.open == {'a', 'b', 'c'}
    assert len(caplog.records) == 1
    directory.mkdir()
    breaker.succeed('a')
    assert json.loads((directory / 'suspects.json').read_text()) == ['b', 'c']


def test_the_file_is_replaced_in_one_step(tmp_path):
    path = tmp_path / 'suspects.json'
    breaker = breakers.Breaker(str(path))
    breaker.trip('a', stuck_call())
    before = path.stat().st_ino
    breaker.trip('b', stuck_call())
    assert path.stat().st_ino != before
    assert [p.name for p in tmp_path.iterdir()] == ['suspects.json']


def test_without_a_path_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    breakers.Breaker('').trip('a', stuck_call())
    assert list(tmp_path.iterdir()) == []
