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

"""What Connection promises: opened in bounded time, watched, opened again, never given up."""

import gc
import logging
import queue
import sys
import threading
import types
import weakref

import pytest

from oie import exceptions
from oie.sources import calls
from oie.sources import libvirt_connection
from tests import fakes

SOON = 0.05
LONG = 5.0


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Handle:
    """An open connection."""


class Opener:
    """Opens handles; ``script`` may hang or raise."""

    def __init__(self):
        self.script = lambda: None
        self.handles = []
        self.closers = []
        self.released = []

    def __call__(self, on_close):
        if isinstance(self.script, Exception):
            raise self.script
        self.script()
        handle = Handle()
        self.handles.append(handle)
        self.closers.append(on_close)
        return handle, lambda: self.released.append(handle)


@pytest.fixture
def gate():
    gate = fakes.Gate()
    yield gate
    gate.release()


@pytest.fixture
def opener():
    return Opener()


@pytest.fixture
def bounded():
    return calls.Calls(4)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def connection(opener, bounded, clock):
    return libvirt_connection.Connection('main', opener, bounded, clock=clock)


def wait_until(condition):
    for _ in range(500):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError('it did not happen')


def test_it_opens_when_it_is_needed_and_stays_open(connection, opener):
    assert not connection.is_open
    handle = connection.get(LONG)
    assert connection.is_open
    assert connection.get(LONG) is handle
    assert (connection.opened, len(opener.handles)) == (1, 1)


def test_a_hanging_open_is_bounded_and_not_made_twice(connection, opener, bounded, gate):
    opener.script = gate
    for _ in range(3):
        with pytest.raises(exceptions.SourceTimeout, match='libvirt does not let us in'):
            connection.get(SOON)
    assert bounded.limit - bounded.free == 1
    assert bounded.stuck == 1
    assert bounded.statistics()['open'].timeouts == 3


def test_a_late_open_is_used_once_it_is_there(connection, opener, gate):
    opener.script = gate
    with pytest.raises(exceptions.SourceTimeout):
        connection.get(SOON)
    gate.release()
    assert connection.get(LONG) is opener.handles[0]
    assert len(opener.handles) == 1


def test_a_failing_open_says_why(connection, opener):
    opener.script = fakes.Error(fakes.SYSTEM_ERROR, 'Failed to connect socket')
    with pytest.raises(exceptions.SourceError, match='cannot open .* Failed to connect socket'):
        connection.get(LONG)


def test_failing_opens_are_tried_after_growing_pauses(connection, opener, bounded, clock):
    """Jitter takes up to half of a pause; none is longer than a minute."""
    opener.script = fakes.Error(fakes.SYSTEM_ERROR, 'no')
    pauses = []
    for _ in range(9):
        attempts = bounded.statistics().get('open', None)
        made = 0 if attempts is None else attempts.count
        begun = clock.now
        while True:
            with pytest.raises(exceptions.SourceError):
                connection.get(LONG)
            wait_until(lambda: bounded.free == bounded.limit)
            if bounded.statistics()['open'].count > made:
                break
            clock.now += 0.25
        pauses.append(clock.now - begun)
    for pause, full in zip(pauses, (0, 1, 2, 4, 8, 16, 32, 60, 60), strict=True):
        assert full / 2 <= pause <= full + 0.25, pauses


def test_the_pauses_of_many_hosts_are_not_the_same(opener, bounded, clock):
    opener.script = fakes.Error(fakes.SYSTEM_ERROR, 'no')
    pauses = set()
    for _ in range(10):
        connection = libvirt_connection.Connection('main', opener, bounded, clock=clock)
        with pytest.raises(exceptions.SourceError):
            connection.get(LONG)
        pauses.add(connection._next_attempt)
    assert len(pauses) > 1


def test_it_never_gives_up(connection, opener, clock):
    """2000 failures are more than a float has powers of two."""
    opener.script = fakes.Error(fakes.SYSTEM_ERROR, 'no')
    for _ in range(2000):
        clock.now += libvirt_connection.LONGEST_DELAY
        with pytest.raises(exceptions.SourceError):
            connection.get(LONG)
    opener.script = lambda: None
    clock.now += libvirt_connection.LONGEST_DELAY
    assert connection.get(LONG) is opener.handles[0]


def test_failures_in_a_row_are_logged_once_with_their_end(connection, opener, clock, caplog):
    caplog.set_level(logging.INFO)
    opener.script = fakes.Error(fakes.SYSTEM_ERROR, 'no')
    for _ in range(5):
        clock.now += libvirt_connection.LONGEST_DELAY
        with pytest.raises(exceptions.SourceError):
            connection.get(LONG)
    opener.script = lambda: None
    clock.now += libvirt_connection.LONGEST_DELAY
    connection.get(LONG)
    assert [record.levelname for record in caplog.records] == ['ERROR', 'WARNING']


def test_one_closed_by_the_daemon_is_opened_again(connection, opener, caplog):
    first = connection.get(LONG)
    opener.closers[0]()
    assert not connection.is_open
    second = connection.get(LONG)
    assert second is not first
    assert connection.opened == 2
    assert [record.getMessage() for record in caplog.records] == [
        'connection main to libvirt is lost: libvirt has closed it',
        'connection main to libvirt is open again',
    ]


def test_one_that_was_seen_broken_is_opened_again(connection):
    first = connection.get(LONG)
    connection.lose(fakes.disconnected())
    assert not connection.is_open
    assert connection.get(LONG) is not first


def test_losing_what_is_not_open_is_nothing(connection, caplog):
    connection.lose('x')
    assert caplog.records == []


def test_an_old_connection_that_closes_late_does_not_cost_the_new_one(connection, opener):
    connection.get(LONG)
    connection.lose(fakes.disconnected())
    new = connection.get(LONG)
    opener.closers[0]()
    assert connection.is_open
    assert connection.get(LONG) is new


def test_one_that_closes_while_it_is_opened_is_opened_again(connection, opener):
    connection.get(LONG)
    opener.closers[0]()
    opener.closers.clear()
    second = connection.get(LONG)
    opener.closers[0]()
    assert connection.get(LONG) is not second


def test_callbacks_of_a_lost_one_are_undone_in_a_call(connection, opener, bounded):
    """Else libvirt-python keeps the connection and its descriptor for ever."""
    first = connection.get(LONG)
    assert opener.released == []
    opener.closers[0]()
    connection.get(LONG)
    wait_until(lambda: 'close' in bounded.statistics())
    assert opener.released == [first]


def test_a_lost_one_is_not_kept_alive(opener, bounded):
    connection = libvirt_connection.Connection('main', opener, bounded)
    gone = weakref.ref(connection.get(LONG))
    opener.handles.clear()
    connection.lose('x')
    connection.get(LONG)
    wait_until(lambda: opener.released)
    opener.released.clear()
    wait_until(lambda: gc.collect() is not None and gone() is None)


def test_undoing_that_hangs_is_counted_and_holds_up_nothing(connection, opener, bounded, gate):
    handle = connection.get(LONG)
    connection._release = gate
    connection.lose('x')
    assert connection.get(LONG) is not handle
    assert gate.entered.wait(LONG)
    assert bounded.stuck == 1


def test_closed_means_let_go_in_silence(connection, opener, bounded, caplog):
    connection.close()
    assert bounded.statistics() == {}
    handle = connection.get(LONG)
    connection.close()
    wait_until(lambda: opener.released == [handle])
    assert not connection.is_open
    assert caplog.records == []


def test_undoing_waits_for_a_free_call(connection, opener, bounded, gate):
    connection.get(LONG)
    for _ in range(2):
        bounded.start('hangs', lambda call: gate())
    connection.lose('x')
    connection.get(LONG)
    assert opener.released == []
    gate.release()
    wait_until(lambda: bounded.free == bounded.limit)
    connection.get(LONG)
    wait_until(lambda: opener.released == [opener.handles[0]])


def test_no_call_free_is_an_error_not_a_wait(connection, bounded, gate):
    for _ in range(4):
        bounded.start('hangs', lambda call: gate())
    with pytest.raises(exceptions.SourceError, match='open not started'):
        connection.get(LONG)


def test_stuck_counts_the_calls_left_behind_until_they_return(connection, bounded, gate):
    left = bounded.start('list', lambda call: gate())
    waited_for = bounded.start('list', lambda call: gate())
    connection.pending += [left, waited_for]
    with pytest.raises(exceptions.SourceTimeout):
        left.wait(0)
    assert connection.stuck == 1
    gate.release()
    wait_until(lambda: left.has_returned and waited_for.has_returned)
    assert connection.stuck == 0
    assert connection.pending == []


# --- the module and its event loop ------------------------------------------


def test_a_missing_binding_is_said_with_the_next_step(monkeypatch):
    monkeypatch.setitem(sys.modules, 'libvirt', None)
    with pytest.raises(exceptions.SourceError, match='install libvirt-python'):
        libvirt_connection.import_libvirt()


def test_libvirt_is_kept_from_printing_its_errors(monkeypatch):
    """It writes each error to stderr, which would spoil the pollster's JSON."""
    libvirt = fakes.Host().libvirt
    monkeypatch.setitem(sys.modules, 'libvirt', libvirt)
    assert libvirt_connection.import_libvirt() is libvirt
    assert libvirt.error_handler(None, ('error',)) is None


class EventLoop:
    """The event functions of libvirt: raises some errors, then has nothing to do for ever."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.done = threading.Event()
        self.log = []

    def virEventRegisterDefaultImpl(self):
        self.log.append('register')

    def virEventAddTimeout(self, milliseconds, callback, opaque):
        self.log.append('timer')
        return 1

    def virEventRunDefaultImpl(self):
        self.log.append('run')
        if not self.errors:
            self.done.set()
            threading.Event().wait()
        error = self.errors.pop(0)
        if error is not None:
            raise error


@pytest.fixture
def _fresh_process(monkeypatch):
    monkeypatch.setattr(libvirt_connection, '_loop_started', False)
    monkeypatch.setattr(
        libvirt_connection, 'time', types.SimpleNamespace(sleep=lambda seconds: None)
    )


@pytest.mark.usefixtures('_fresh_process')
def test_the_event_loop_is_started_once_in_a_process():
    loop = EventLoop(None)
    for _ in range(3):
        libvirt_connection.start_event_loop(loop)
    assert loop.done.wait(LONG)
    # Registered before anything is opened; the timer keeps it from sleeping for ever.
    assert loop.log == ['register', 'timer', 'run', 'run']


@pytest.mark.usefixtures('_fresh_process')
def test_the_event_loop_survives_its_errors_and_does_not_flood_the_log(caplog):
    error = fakes.Error(fakes.INTERNAL_ERROR, 'poll failed')
    loop = EventLoop(*[error] * 50, ValueError('x'), None)
    libvirt_connection.start_event_loop(loop)
    assert loop.done.wait(LONG)
    assert [record.getMessage() for record in caplog.records] == [
        'event loop of libvirt: failed: poll failed',
        'event loop of libvirt: failed: x',
        'event loop of libvirt: failed: over',
    ]


class CountedLoop(EventLoop):
    """Event functions that have something to do a number of times; ``runs`` tells of each."""

    def __init__(self, number):
        super().__init__(*[None] * number)
        self.runs = queue.SimpleQueue()

    def virEventRunDefaultImpl(self):
        self.runs.put(threading.current_thread())
        super().virEventRunDefaultImpl()


@pytest.mark.usefixtures('_fresh_process')
def test_the_event_loop_rests_while_many_requests_are_made(monkeypatch):
    monkeypatch.setattr(libvirt_connection, '_LONGEST_REST', LONG)
    loop = CountedLoop(5)
    with libvirt_connection.many_requests():
        libvirt_connection.start_event_loop(loop)
        loop.runs.get(timeout=LONG)
        with pytest.raises(queue.Empty):
            loop.runs.get(timeout=SOON)
    assert loop.done.wait(LONG)


@pytest.mark.usefixtures('_fresh_process')
def test_a_request_that_hangs_does_not_stop_the_event_loop(monkeypatch):
    monkeypatch.setattr(libvirt_connection, '_LONGEST_REST', 0.01)
    loop = CountedLoop(20)
    with libvirt_connection.many_requests():
        libvirt_connection.start_event_loop(loop)
        assert loop.done.wait(LONG)
