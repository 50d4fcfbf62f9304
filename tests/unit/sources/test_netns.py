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


"""A cycle's view of network namespaces: it never waits long, and never shows what is too old."""

import dataclasses
import logging
import threading
import types

import pytest

from oie import exceptions
from oie import model
from oie.config import netns_settings
from oie.sources import netns
from oie.sources import netns_readers

MAX_AGE = 30.0
EVERY = netns_settings.Filter()
SETTINGS = netns_settings.Settings(
    namespaces=EVERY, devices=EVERY, interface_metrics=(), proc_metrics={}
)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def time(self):
        return self.now

    monotonic = time


class Passes:
    """Give the next of some results, when they may."""

    def __init__(self, clock):
        self.results = []
        self.count = 0
        self.may_end = threading.Event()
        self.may_end.set()
        self.threads = []
        self.is_stopping = None
        self._clock = clock

    def run(self, is_stopping):
        self.count += 1
        self.is_stopping = is_stopping
        self.threads.append(threading.current_thread())
        self.may_end.wait(20)
        result = self.results.pop(0) if self.results else found()
        if isinstance(result, Exception):
            raise result
        return types.SimpleNamespace(**{**result, 'read_at': self._clock.now})


def found(number=1, problems=None, skipped=None):
    table = model.NamespaceTable(found=number, skipped=skipped or {})
    return {'table': table, 'problems': problems or {}, 'seconds': 0.1}


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def passes(clock):
    return Passes(clock)


@pytest.fixture
def make(passes, clock):
    def make(settings=SETTINGS, **more):
        values = {'interval': 0.0, 'timeout': 10.0, 'directory': '/run/netns', **more}
        options = types.SimpleNamespace(**values)
        return netns.NamespacesSource(options, settings, passes=passes, clock=clock)

    yield make
    passes.may_end.set()
    for thread in passes.threads:
        thread.join(5)


def reading(source):
    return source.read((), MAX_AGE)['namespaces']


def errors(source):
    return source.read((), MAX_AGE)['namespaces_health'].errors


# --- one pass a cycle -----------------------------------------------------------


def test_each_cycle_shows_the_pass_that_it_began(make, passes):
    passes.results = [found(1), found(2)]
    source = make()
    assert reading(source) == model.Reading(
        value=model.NamespaceTable(found=1), read_at=1000.0, seconds=0.1
    )
    assert reading(source).value.found == 2


def test_each_pass_has_a_thread_of_its_own_that_ends(make, passes):
    source = make()
    reading(source)
    reading(source)
    first, second = passes.threads
    assert first is not second
    for thread in passes.threads:
        thread.join(5)
        assert not thread.is_alive()


def test_interval_spares_passes_and_is_no_failure(make, passes, clock):
    source = make(interval=60.0)
    reading(source)
    clock.now += 59
    again = reading(source)
    assert (passes.count, again.value.found, again.error, again.read_at) == (1, 1, '', 1000.0)
    clock.now += 1
    assert reading(source).read_at == 1060.0
    assert passes.count == 2


# --- late and failed ones -------------------------------------------------------


def test_late_pass_makes_no_cycle_wait_and_is_shown_by_a_later_one(make, passes, clock):
    passes.results = [found(1), found(2), found(3)]
    source = make()
    reading(source)
    source._options.timeout = 0.01
    passes.may_end.clear()

    clock.now += 10
    for reason in ('has not returned after 0.01 s', 'has not ended for 10 s'):
        late = reading(source)
        assert (late.value.found, late.read_at) == (1, 1000.0)
        assert reason in late.error
        clock.now += 10
    # No second one is begun beside it.
    assert passes.count == 2

    passes.may_end.set()
    passes.threads[1].join(5)
    after = reading(source)
    assert (after.error, after.read_at) == ('', 1030.0)
    assert after.value.found in (2, 3)


def test_table_that_is_too_old_is_not_shown(make, passes, clock):
    passes.results = [found(), exceptions.SourceError('no right'), exceptions.SourceError('none')]
    source = make()
    reading(source)
    clock.now += MAX_AGE
    kept = reading(source)
    assert (kept.value.found, kept.error, kept.read_at) == (1, 'no right', 1000.0)
    clock.now += 1
    assert reading(source) == model.Reading(value=None, read_at=1000.0, seconds=0.1, error='none')


@pytest.mark.parametrize('error', [exceptions.SourceError('no right'), ZeroDivisionError('odd')])
def test_first_pass_that_fails_shows_nothing_and_why(make, passes, error):
    passes.results = [error]
    failed = reading(make())
    assert failed.value is None
    assert failed.read_at is None
    assert str(error) in failed.error


def test_no_thread_to_be_had_is_a_failure_that_can_end(make, monkeypatch):
    source = make()
    with monkeypatch.context() as patched:

        def start(_thread):
            raise RuntimeError("can't start new thread")

        patched.setattr(threading.Thread, 'start', start)
        assert "can't start new thread" in reading(source).error
    assert reading(source).error == ''


def test_end_stops_the_pass_under_way(make, passes):
    source = make(timeout=0.01)
    passes.may_end.clear()
    reading(source)
    while passes.is_stopping is None:
        pass
    assert not passes.is_stopping()
    source.close()
    assert passes.is_stopping()


# --- what is counted and told -----------------------------------------------------


def test_problems_are_counted_since_the_start(make, passes):
    problems = {('a', 'stale'): 'x', ('b', 'stale'): 'x', ('c', 'conntrack'): 'y'}
    passes.results = [found(problems=problems), found(problems={('a', 'stale'): 'x'}), found()]
    source = make()
    reading(source)
    reading(source)
    assert errors(source) == {'stale': 3, 'conntrack': 1}


def test_pass_that_fails_is_counted(make, passes):
    passes.results = [exceptions.SourceError('no right')]
    source = make()
    reading(source)
    assert errors(source) == {'pass': 1}


def test_trouble_of_a_thousand_is_one_line_when_it_begins_and_one_when_it_ends(
    make, passes, caplog
):
    problems = {(f'ns{number:04}', 'conntrack'): 'EPERM' for number in range(1000)}
    passes.results = [found(problems=problems), found(problems=problems), found()]
    source = make()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            reading(source)
    assert [record.getMessage() for record in caplog.records] == [
        'network namespaces: conntrack: ns0999: EPERM',
        'network namespaces: conntrack: over',
    ]


def test_namespaces_that_vanish_are_not_worth_a_line(make, passes, caplog):
    passes.results = [found(problems={('a', 'vanished'): 'x'})]
    reading(make())
    assert not caplog.records


def test_stale_files_ask_for_the_mounts(make, passes, caplog, monkeypatch):
    monkeypatch.setattr(netns.mount_propagation, 'problem', lambda _directory: 'it is private')
    passes.results = [found(problems={('a', 'stale'): 'x'}, skipped={'stale': 1})]
    reading(make())
    assert 'it is private' in caplog.text


@pytest.mark.parametrize('field', ['notes', 'overlooked'])
def test_notes_about_the_settings_are_logged_once(make, caplog, field):
    source = make(dataclasses.replace(SETTINGS, **{field: ('threads is not used',)}))
    reading(source)
    reading(source)
    assert caplog.text.count('threads is not used') == 1


def test_mode_chooses_who_reads():
    options = types.SimpleNamespace(mode='setns', parts=(), assign_nsid=False)
    assert isinstance(netns.reader(options, SETTINGS), netns_readers.InsideReader)
    options.mode = 'nsid'
    assert isinstance(netns.reader(options, SETTINGS), netns_readers.OutsideReader)


def test_real_passes_over_nothing_find_nothing(tmp_path):
    options = types.SimpleNamespace(
        interval=0.0, timeout=10.0, deadline=5.0, directory=str(tmp_path / 'none'),
        mode='setns', parts=(), assign_nsid=False,
    )  # fmt: skip
    reading_ = reading(netns.NamespacesSource(options, SETTINGS))
    assert (reading_.value, reading_.error) == (model.NamespaceTable(found=0), '')
