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

"""What the keeper promises: each feed lives by itself, few workers at a time, an end at once."""

import dataclasses
import logging
import os
import queue
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from oie import address_sets
from oie import exceptions
from oie.feeds import children
from oie.feeds import keeper
from oie.feeds import wire
from tests.unit.feeds import feed_server
from tests.unit.feeds import working

PATIENCE = 20.0
ADDRESSES = address_sets.AddressSet(np.array([1, 9], np.uint32), address_sets.wide(()))
URL = ('https://feeds.example/list',)
ABSENT = wire.Answer(status=wire.Status.ABSENT, sources=URL)
ACCEPTED = wire.Answer(
    status=wire.Status.ACCEPTED,
    sources=URL,
    is_answered=True,
    addresses=ADDRESSES,
    entries=8,
    documents='d1',
    validators=(('', ''),),
)


def spec(name='sample', **fields):
    known = {
        'driver': 'plain_list',
        'tag': name.upper(),
        'direction': 'out',
        'refresh': 3600.0,
        'min_interval': 0.0,
        'timeout': 15.0,
        'settings': working.all_settings(),
    }
    return keeper.FeedSpec(name=name, **(known | fields))


def wait_until(condition, seconds=PATIENCE):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Workers:
    """Workers under way: each waits to be told its answer, or for the end."""

    def __init__(self):
        self.started = queue.Queue()
        self.lock = threading.Lock()
        self.running = 0
        self.most = 0

    def run(self, job, stop):
        answer = queue.Queue()
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.started.put((job, answer))
        try:
            while not stop.is_set():
                try:
                    found = answer.get(timeout=0.01)
                except queue.Empty:
                    continue
                if isinstance(found, Exception):
                    raise found
                return found
            raise children.Stopped
        finally:
            with self.lock:
                self.running -= 1

    def next(self):
        return self.started.get(timeout=PATIENCE)

    def answer(self, *answers):
        """Give these answers to the next jobs; return the jobs."""
        jobs = []
        for found in answers:
            job, answer = self.next()
            answer.put(found)
            jobs.append(job)
        return jobs


@pytest.fixture
def workers():
    return Workers()


@pytest.fixture
def keep(tmp_path, workers):
    """Start a keeper; it ends with the test."""
    started = []

    def keep(*feeds, on_list=lambda name, addresses: None, run=workers.run, **more):
        known = {'cache_dir': str(tmp_path / 'cache'), 'random': lambda: 0.0}
        one = keeper.Keeper(feeds, on_list=on_list, run=run, **(known | more))
        started.append(one)
        one.start()
        return one

    yield keep
    for one in started:
        one.close()


def threads():
    return sorted(t.name for t in threading.enumerate() if t.name.startswith('oie-feed-'))


def test_a_feed_loads_then_refreshes_and_is_shown_meanwhile(keep, workers):
    taken = []
    one = keep(spec(), on_list=lambda *found: taken.append(found))
    [shown] = one.lists()
    assert (shown.name, shown.tag, shown.is_loaded, shown.is_fresh) == (
        'sample',
        'SAMPLE',
        False,
        False,
    )
    modes = [job.mode for job in workers.answer(ABSENT, ACCEPTED)]
    assert modes == [wire.Mode.LOAD, wire.Mode.REFRESH]
    wait_until(lambda: one.lists()[0].is_fresh)
    assert taken == [('sample', ADDRESSES)]
    assert one.lists()[0].entries == 8


def test_feeds_keep_their_order_and_have_a_thread_each(keep, workers):
    one = keep(spec('b'), spec('a'), spec('c'))
    assert [each.name for each in one.lists()] == ['b', 'a', 'c']
    assert threads() == ['oie-feed-a', 'oie-feed-b', 'oie-feed-c']
    assert all(t.daemon for t in threading.enumerate() if t.name.startswith('oie-feed-'))


def test_at_most_two_workers_run_at_a_time(keep, workers):
    keep(*(spec(f'f{n}') for n in range(6)))
    workers.answer(*[ABSENT] * 6, *[ACCEPTED] * 6)
    assert workers.most == keeper.MOST_WORKERS == 2


def test_all_caches_come_before_any_publisher(keep, workers):
    keep(*(spec(f'f{n}') for n in range(6)))
    modes = [job.mode for job in workers.answer(*[ABSENT] * 6, *[ACCEPTED] * 6)]
    assert modes == [wire.Mode.LOAD] * 6 + [wire.Mode.REFRESH] * 6


def test_a_feed_that_hangs_does_not_hold_up_the_others(keep, workers):
    one = keep(spec('stuck'), spec('fine'), spec('good'))
    workers.answer(*[ABSENT] * 3)
    for _ in range(3):
        job, answer = workers.next()
        if job.feed != 'stuck':
            answer.put(ACCEPTED)
    wait_until(lambda: [each.is_loaded for each in one.lists()] == [False, True, True])


def test_a_feed_whose_load_fails_holds_up_nobody(keep, workers):
    keep(spec('a'), spec('b'))
    workers.answer(exceptions.FeedError('killed'), RuntimeError('a mistake'))
    jobs = [workers.next()[0]]
    assert jobs[0].mode is wire.Mode.REFRESH


def test_a_mistake_of_ours_is_a_failure_and_the_thread_lives(keep, workers, caplog):
    def on_list(name, addresses):
        raise ValueError('no room')

    one = keep(spec(), on_list=on_list)
    with caplog.at_level(logging.ERROR):
        workers.answer(ABSENT, ACCEPTED)
        wait_until(lambda: one.lists()[0].errors == 1)
    assert one.lists()[0].error == 'ValueError: no room'
    assert threads() == ['oie-feed-sample']


def test_the_next_refresh_comes_when_it_is_due(keep, workers):
    keep(spec(refresh=0.05))
    workers.answer(ABSENT, ACCEPTED, ACCEPTED, ACCEPTED)


class TestClose:
    def test_it_ends_workers_and_those_that_wait_for_one_at_once(self, keep, workers):
        one = keep(*(spec(f'f{n}') for n in range(6)))
        workers.next()
        workers.next()
        started = time.monotonic()
        one.close()
        assert time.monotonic() - started < 4
        assert threads() == []
        assert workers.running == 0

    def test_it_wakes_feeds_that_sleep(self, keep, workers):
        one = keep(spec())
        workers.answer(ABSENT, ACCEPTED)
        wait_until(lambda: one.lists()[0].is_loaded)
        one.close()
        assert threads() == []

    def test_it_is_no_failure(self, keep, workers, caplog):
        one = keep(spec())
        workers.next()
        one.close()
        assert one.lists()[0].errors == 0
        assert caplog.records == []

    def test_a_thread_that_is_held_up_is_left_behind(self, keep):
        gate = threading.Event()

        def run(job, stop):
            gate.wait(PATIENCE)
            raise children.Stopped

        one = keep(spec(), run=run)
        started = time.monotonic()
        one.close()
        assert time.monotonic() - started < 4
        gate.set()
        wait_until(lambda: threads() == [])

    def test_before_the_start_and_twice_it_does_nothing(self, tmp_path):
        one = keeper.Keeper([spec()], cache_dir=str(tmp_path), on_list=print)
        one.close()
        one.close()


class TestReal:
    """With real workers and a real publisher."""

    FLAGS = keeper.Flags(allow_plain_http=True, allow_private_targets=True)

    def start(self, place, server, **more):
        taken = {}
        settings = working.all_settings() | {'url': server.url('/list')}
        one = keeper.Keeper(
            [spec(settings=settings, **more)],
            cache_dir=str(place),
            on_list=taken.__setitem__,
            flags=self.FLAGS,
        )
        one.start()
        return one, taken

    def test_a_list_outlives_the_daemon_and_its_publisher(self, tmp_path):
        with feed_server.FeedServer() as server:
            server.play('/list', feed_server.answer(working.ONE))
            one, taken = self.start(tmp_path, server)
            try:
                wait_until(lambda: one.lists()[0].is_fresh)
            finally:
                one.close()
        assert working.holds(taken['sample'], '5.6.7.8')
        two, taken = self.start(tmp_path, server)
        try:
            wait_until(lambda: two.lists()[0].is_loaded)
            assert working.holds(taken['sample'], '5.6.7.8')
            wait_until(lambda: (tmp_path / 'sample.state').exists())
        finally:
            two.close()

    def test_closing_kills_a_worker_that_waits_for_its_publisher(self, tmp_path):
        with feed_server.FeedServer() as server:
            server.play('/list', feed_server.silence)
            one, _ = self.start(tmp_path, server)
            wait_until(lambda: server.requests)
            started = time.monotonic()
            one.close()
            assert time.monotonic() - started < 4
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)

    def test_a_publisher_is_not_asked_again_by_a_restart(self, tmp_path):
        with feed_server.FeedServer() as server:
            server.play('/list', feed_server.answer(working.ONE))
            for _ in range(2):
                one, _ = self.start(tmp_path, server, min_interval=600.0)
                wait_until(lambda one=one: one.lists()[0].is_loaded)
                one.close()
            assert len(server.requests) == 1


def test_what_is_shown_is_never_a_mixture(keep, workers):
    """Read while lists are swapped: entries and rejected are always of the same list."""
    one = keep(spec(refresh=0.001))
    odd = []
    done = threading.Event()

    def look():
        while not done.is_set():
            [shown] = one.lists()
            if shown.is_loaded and shown.rejected['malformed'] != shown.entries:
                odd.append(shown)

    looker = threading.Thread(target=look)
    looker.start()
    answers = [
        dataclasses.replace(ACCEPTED, entries=n, rejected={'malformed': n}) for n in range(20)
    ]
    workers.answer(ABSENT, *answers)
    done.set()
    looker.join()
    assert odd == []


def test_the_daemon_has_no_code_that_fetches_or_parses():
    code = (
        'import sys; from oie.feeds import keeper; '
        'assert not {"requests", "oie.feeds.fetch", "oie.feeds.lists"} & set(sys.modules)'
    )
    subprocess.run([sys.executable, '-c', code], check=True)
