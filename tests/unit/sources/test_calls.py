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

"""What Calls promises: few calls, bounded waiting, and no late call forgotten."""

import threading
from unittest import mock

import pytest

from oie import exceptions
from oie import model
from oie.sources import calls
from tests import fakes

SOON = 0.05
LONG = 5.0


@pytest.fixture
def gate():
    gate = fakes.Gate()
    yield gate
    gate.release()


def returned(bounded, name, function=lambda call: None):
    """Make a call that returns, and wait until all is noted of it."""
    is_over = threading.Event()
    call = bounded.start(name, function, lambda _call: is_over.set())
    assert is_over.wait(LONG)
    return call


def test_the_result_comes_back():
    assert calls.Calls(1).run('sum', lambda call: 1 + 1, LONG) == 2


def test_what_the_function_raises_is_raised_to_who_waits():
    with pytest.raises(ValueError, match='from inside'):
        calls.Calls(1).run('fails', lambda call: int('from inside'), LONG)


def test_the_function_gets_its_call():
    assert calls.Calls(1).run('own name', lambda call: call.name, LONG) == 'own name'


def test_calls_run_in_daemon_threads():
    thread = calls.Calls(1).run('thread', lambda call: threading.current_thread(), LONG)
    assert thread.daemon
    assert thread is not threading.current_thread()


def test_threads_are_used_again():
    bounded = calls.Calls(4)
    threads = set()
    for _ in range(20):
        call = returned(bounded, 'thread', lambda call: threading.current_thread())
        threads.add(call.result())
    assert len(threads) == 1


def test_never_more_than_the_limit_in_flight(gate):
    bounded = calls.Calls(3)
    together = threading.Barrier(3)

    def work(_call):
        together.wait(LONG)
        gate()

    started = [bounded.start('work', work) for _ in range(3)]
    assert bounded.free == 0
    with pytest.raises(exceptions.SourceError, match=r'work not started: 3 calls have not'):
        bounded.start('work', work)
    gate.release()
    for call in started:
        call.wait(LONG)


def test_a_refused_call_is_never_made(gate):
    bounded = calls.Calls(1)
    bounded.start('hangs', lambda call: gate())
    made = []
    with pytest.raises(exceptions.SourceError):
        bounded.start('refused', made.append)
    gate.release()
    returned_all(bounded)
    assert made == []


def returned_all(bounded):
    """Wait until nothing is in flight."""
    for _ in range(500):
        if bounded.free == bounded.limit:
            return
        threading.Event().wait(0.01)
    raise AssertionError('calls still in flight')


def test_a_late_call_is_left_behind_but_keeps_its_place(gate):
    bounded = calls.Calls(2)
    with pytest.raises(exceptions.SourceTimeout, match=r'hangs has not returned after 0\.05 s'):
        bounded.run('hangs', lambda call: gate(), SOON)
    assert (bounded.free, bounded.stuck) == (1, 1)
    gate.release()
    returned_all(bounded)
    assert (bounded.free, bounded.stuck) == (2, 0)


def test_a_call_somebody_waits_for_is_not_stuck(gate):
    bounded = calls.Calls(1)
    bounded.start('under way', lambda call: gate())
    assert (bounded.free, bounded.stuck) == (0, 0)


def test_calls_under_way_are_listed_with_their_pool_oldest_first(gate):
    bounded = calls.Calls(2, 'oie-listed')
    started = [bounded.start(name, lambda call: gate()) for name in ('first', 'second')]
    assert bounded.under_way() == [('oie-listed', call) for call in started]
    assert set(bounded.under_way()) <= set(calls.under_way())


def test_a_late_call_can_see_that_nobody_waits(gate):
    seen = []

    def work(call):
        gate()
        seen.append(call.is_abandoned)

    bounded = calls.Calls(1)
    with pytest.raises(exceptions.SourceTimeout):
        bounded.run('hangs', work, SOON)
    gate.release()
    returned_all(bounded)
    assert seen == [True]


def test_who_waits_again_gets_the_result_of_a_late_call(gate):
    bounded = calls.Calls(1)

    def work(_call):
        gate()
        return 'late'

    call = bounded.start('hangs', work)
    with pytest.raises(exceptions.SourceTimeout):
        call.wait(0)
    assert not call.has_returned
    gate.release()
    assert call.wait(LONG) == 'late'
    assert call.has_returned


def test_statistics_count_time_and_timeouts_by_name(gate):
    bounded = calls.Calls(4)
    for _ in range(2):
        returned(bounded, 'list')
    with pytest.raises(exceptions.SourceTimeout):
        bounded.run('open', lambda call: gate(), SOON)
    assert bounded.statistics()['list'].count == 2
    assert bounded.statistics()['open'] == model.CallStatistics(count=0, timeouts=1)
    gate.release()
    returned_all(bounded)
    late = bounded.statistics()['open']
    assert (late.count, late.timeouts) == (1, 1)
    # All the time it was under way, not only while somebody waited.
    assert late.seconds >= SOON


def test_a_call_that_failed_is_counted_too():
    bounded = calls.Calls(1)
    returned(bounded, 'fails', lambda call: int('x'))
    assert bounded.statistics()['fails'].count == 1


def test_who_is_told_of_a_return_is_told_once_with_the_call():
    told = []
    bounded = calls.Calls(1)
    call = bounded.start('told', lambda call: 'result', told.append)
    call.wait(LONG)
    returned_all(bounded)
    assert told == [call]
    assert told[0].result() == 'result'


def test_a_call_that_is_over_keeps_nothing_of_what_it_worked_on():
    """Handles of libvirt keep its connection alive, so they must not linger."""

    class Handle:
        gone = threading.Event()

        def __del__(self):
            self.gone.set()

    bounded = calls.Calls(1)
    call = returned(bounded, 'works', lambda call, handle=Handle(): str(handle))  # noqa: B008
    assert 'Handle' in call.result()
    assert Handle.gone.wait(LONG)


def test_closed_means_no_more_calls_and_no_idle_threads(gate):
    bounded = calls.Calls(3)
    threads = {bounded.run('thread', lambda call: threading.current_thread(), LONG)}
    under_way = bounded.start('hangs', lambda call: (gate(), threading.current_thread())[1])
    assert gate.entered.wait(LONG)
    last = bounded.start('last', lambda call: threading.current_thread())
    bounded.close()
    with pytest.raises(exceptions.SourceError, match='late not started: no more calls'):
        bounded.start('late', lambda call: None)
    threads.add(last.wait(LONG))
    gate.release()
    threads.add(under_way.wait(LONG))
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()


def test_a_machine_without_threads_refuses_and_loses_no_place(monkeypatch):
    class NoThread:
        def __init__(self, **_options):
            pass

        def start(self):
            raise RuntimeError("can't start new thread")

    bounded = calls.Calls(2)
    with monkeypatch.context() as patched:
        patched.setattr(threading, 'Thread', NoThread)
        with pytest.raises(exceptions.SourceError, match="can't start new thread"):
            bounded.start('list', lambda call: None)
    assert bounded.free == 2
    assert bounded.run('list', lambda call: 'works', LONG) == 'works'


def test_many_callers_never_exceed_the_limit():
    """The lock holds: 8 threads hammer a limit of 3."""
    bounded = calls.Calls(3)
    lock, running, most, refused = threading.Lock(), [0], [0], [0]

    def work(_call):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        threading.Event().wait(0.0005)
        with lock:
            running[0] -= 1

    def hammer():
        for _ in range(50):
            try:
                bounded.start('work', work)
            except exceptions.SourceError:
                with lock:
                    refused[0] += 1
                threading.Event().wait(0.0005)

    threads = [threading.Thread(target=hammer) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    returned_all(bounded)
    assert most[0] <= 3
    assert bounded.statistics()['work'].count + refused[0] == 8 * 50


def test_requests_of_a_call_pause_only_beside_another_call(gate):
    """libvirt may lose a request that follows an answer at once, while another thread waits."""
    bounded = calls.Calls(2)
    with mock.patch.object(calls.time, 'sleep', autospec=True) as sleep:
        bounded.run('alone', lambda call: bounded.pace(), LONG)
        alone = sleep.call_count
        bounded.start('stuck', lambda call: gate())
        bounded.run('beside', lambda call: bounded.pace(), LONG)

    assert alone == 0
    sleep.assert_called_once_with(calls.PAUSE)
