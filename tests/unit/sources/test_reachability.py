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

"""The cycle takes what the rounds found, never waits for one, and shows nothing old."""

import threading
import types

import pytest

from oie import exceptions
from oie import model
from oie.sources import probe_rounds
from oie.sources import reachability
from tests import builders

Result = model.ProbeResult
OPTIONS = types.SimpleNamespace(
    interval=60.0, namespaces=['ovnmeta-*'], parallel=32, timeout=1.0, attempts=2
)
ANSWER = probe_rounds.Verdict(Result.REACHABLE, 0.25)
NOBODY = frozenset()


class Clock:
    def __init__(self):
        self.now = 1000.0

    def time(self):
        return builders.NOW + self.now

    def monotonic(self):
        return self.now


class Rounds:
    """Gives a verdict on every target that runs; the round takes a while."""

    def __init__(self, clock):
        self.clock = clock
        self.verdict = ANSWER
        self.seconds = 2.0
        self.error = ''
        self.failure = None
        self.wanted = []

    def run(self, wanted):
        self.wanted.append(dict(wanted))
        self.clock.now += self.seconds
        if self.failure is not None:
            raise self.failure
        verdicts = {target: self.verdict for target, runs in wanted.items() if runs}
        return probe_rounds.Round(verdicts, self.error)

    def check(self):
        return 3


class Source(reachability.ReachabilitySource):
    """Makes a round only when the test wants one."""

    def _run(self):
        self._stopping.wait()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def rounds(clock):
    return Rounds(clock)


@pytest.fixture
def source(clock, rounds):
    made = Source(OPTIONS, rounds=rounds, clock=clock)
    yield made
    made.close()


def read(source, *instances):
    return source.read(instances or (builders.instance(),), 20.0, NOBODY)['reachability']


def after_a_round(source, *instances):
    read(source, *instances)
    source.round()
    return read(source, *instances)


def shown(reading):
    return [(one.address.ip, one.is_reachable, one.seconds) for one in reading.value.addresses]


# --- what is shown ----------------------------------------------------------------


def test_before_the_first_round_nothing_is_known_and_nothing_wrong(source):
    assert read(source) == model.Reading(value=None, read_at=None, seconds=0.0)


def test_answer_is_shown_with_its_time(source, clock):
    of = builders.definition()
    found = after_a_round(source, builders.instance(of))
    assert shown(found) == [('10.0.0.5', True, 0.25)]
    assert found.value.addresses[0].definition is of
    assert found.value.results == {Result.REACHABLE: 1}
    assert (found.read_at, found.seconds, found.error) == (clock.time(), 2.0, '')


def test_silence_is_shown_without_a_time(source, rounds):
    rounds.verdict = probe_rounds.UNREACHABLE
    assert shown(after_a_round(source)) == [('10.0.0.5', False, None)]


@pytest.mark.parametrize(
    'verdict', [probe_rounds.AMBIGUOUS, probe_rounds.NO_NAMESPACE, probe_rounds.FAILED]
)
def test_what_is_not_known_is_counted_and_not_shown(source, rounds, verdict):
    rounds.verdict = verdict
    found = after_a_round(source)
    assert (found.value.addresses, found.value.results) == ((), {verdict.result: 1})


@pytest.mark.parametrize(
    'state', [state for state in model.DomainState if state is not model.DomainState.RUNNING]
)
def test_guest_that_does_not_run_is_neither_asked_nor_shown(source, rounds, state):
    stopped = builders.instance(state=state.value)
    assert shown(after_a_round(source, stopped)) == []
    assert list(rounds.wanted[-1].values()) == [False]
    after_a_round(source)
    assert shown(read(source, stopped)) == []


def test_guest_that_left_is_not_shown(source):
    after_a_round(source)
    assert shown(read(source, builders.instance(builders.definition(uuid='other')))) == []


def test_port_with_another_mac_address_is_not_shown(source):
    after_a_round(source)
    of = builders.definition(interfaces=(builders.interface(mac='fa:16:3e:00:00:99'),))
    assert shown(read(source, builders.instance(of))) == []


def test_new_definition_of_the_same_port_is_shown(source):
    after_a_round(source)
    of = builders.definition(name='renamed')
    found = read(source, builders.instance(of))
    assert found.value.addresses[0].definition is of


# --- age --------------------------------------------------------------------------


def test_verdicts_end_after_two_rounds(source, clock):
    after_a_round(source)
    # The round began 2 s ago and lasted as long.
    clock.now += 2 * 60.0
    assert shown(read(source)) == [('10.0.0.5', True, 0.25)]
    clock.now += 1
    found = read(source)
    assert found.value is None
    assert 'no round of probes has ended for 123 s' in found.error


def test_rounds_that_take_longer_than_the_interval_leave_no_gap(source, rounds, clock):
    rounds.seconds = 100.0
    after_a_round(source)
    clock.now += 100.0
    assert read(source).value is not None


def test_first_round_that_never_ends_is_told(source, clock):
    read(source)
    clock.now += 2 * 60.0 + 1
    assert 'no round' in read(source).error


def test_host_without_guests_misses_nothing(source, clock):
    source.read((), 20.0, NOBODY)
    clock.now += 10000
    assert source.read((), 20.0, NOBODY)['reachability'].error == ''


# --- failures ---------------------------------------------------------------------


def test_failed_round_keeps_the_verdicts_until_they_are_too_old(source, rounds, clock, caplog):
    first = after_a_round(source)
    rounds.failure = exceptions.SourceError('/run/netns/ovnmeta-1: EPERM')
    for _ in range(2):
        source.round()
    found = read(source)
    assert shown(found) == shown(first) == [('10.0.0.5', True, 0.25)]
    assert found.error == '/run/netns/ovnmeta-1: EPERM'
    assert found.read_at == first.read_at
    assert len(caplog.records) == 1
    clock.now += 10000
    found = read(source)
    assert (found.value, found.error) == (None, '/run/netns/ovnmeta-1: EPERM')
    rounds.failure = None
    source.round()
    assert read(source).error == ''
    assert 'over' in caplog.records[-1].getMessage()


def test_unexpected_failure_is_one_of_the_round(source, rounds):
    rounds.failure = ZeroDivisionError('odd')
    assert after_a_round(source).error == "ZeroDivisionError('odd')"


def test_round_that_left_something_out_is_no_success(source, rounds):
    rounds.error = 'ovnmeta-1: no raw socket'
    found = after_a_round(source)
    assert shown(found) == [('10.0.0.5', True, 0.25)]
    assert (found.error, found.read_at) == (rounds.error, None)


def test_end_of_the_program_is_no_failure(source, rounds, caplog):
    rounds.failure = exceptions.SourceError('stopped')
    read(source)
    source.close()
    source.round()
    assert not caplog.records


def test_missing_thread_is_told_and_tried_again(source, monkeypatch):
    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, 'start', refuse)
        with pytest.raises(exceptions.SourceError, match='new thread'):
            read(source)
    assert read(source).error == ''


# --- the thread -------------------------------------------------------------------


def probing_threads():
    return [one for one in threading.enumerate() if one.name == 'oie-probes']


def test_one_thread_makes_rounds_from_the_first_guest_to_the_end(rounds):
    made = reachability.ReachabilitySource(OPTIONS, rounds=rounds)
    rounds.clock = Clock()
    done, run = threading.Event(), rounds.run

    def tell(wanted):
        try:
            return run(wanted)
        finally:
            done.set()

    rounds.run = tell
    made.read((), 20.0, NOBODY)
    assert probing_threads() == []
    for _ in range(3):
        read(made)
    assert done.wait(10)
    assert len(probing_threads()) == 1
    made.close()
    assert probing_threads() == []
    assert len(rounds.wanted) == 1


class Stopping:
    """Waits without waiting, a few times; then the program ends."""

    def __init__(self, clock, times):
        self.clock = clock
        self.times = times
        self.waited = []

    def is_set(self):
        return len(self.waited) == self.times

    def wait(self, seconds):
        self.waited.append(seconds)
        self.clock.now += seconds


@pytest.mark.parametrize(
    ('seconds', 'waited'),
    [(2.0, [58.0, 58.0, 58.0]), (70.0, [0.0, 0.0, 0.0])],
    ids=['in time', 'late'],
)
def test_rounds_begin_on_a_fixed_schedule_or_late_but_never_together(
    clock, rounds, seconds, waited
):
    rounds.seconds = seconds
    made = reachability.ReachabilitySource(OPTIONS, rounds=rounds, clock=clock)
    made._stopping = Stopping(clock, 3)
    made._run()
    assert made._stopping.waited == waited


def test_real_rounds_get_the_options():
    made = reachability.ReachabilitySource(OPTIONS)
    assert isinstance(made._rounds, probe_rounds.Rounds)


def test_check_is_that_of_the_rounds(source):
    assert source.check() == 3
