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

"""What one feed promises over its life: the last good list, and the truth about it."""

import dataclasses
import logging
import os

import numpy as np
import pytest

from oie import address_sets
from oie import exceptions
from oie.feeds import children
from oie.feeds import refresher
from oie.feeds import state
from oie.feeds import wire

NOW = 1_000_000.0
HOUR = 3600.0
URL = ('https://feeds.example/list',)
ADDRESSES = address_sets.AddressSet(np.array([1, 9], np.uint32), address_sets.wide(()))
ABSENT = wire.Answer(status=wire.Status.ABSENT, sources=URL)
ACCEPTED = wire.Answer(
    status=wire.Status.ACCEPTED,
    seconds=2.5,
    sources=URL,
    is_answered=True,
    addresses=ADDRESSES,
    entries=8,
    rejected={'malformed': 1},
    documents='d1',
    validators=(('"1"', ''),),
    fetched_at=NOW,
)
LOADED = dataclasses.replace(ACCEPTED, status=wire.Status.LOADED, fetched_at=NOW - HOUR)
UNCHANGED = dataclasses.replace(
    ACCEPTED, status=wire.Status.UNCHANGED, addresses=address_sets.EMPTY, entries=0, rejected={}
)
HELD = wire.Answer(
    status=wire.Status.HELD,
    sources=URL,
    error='3 entries after 8',
    is_answered=True,
    held=state.Held(entries=3, since=NOW, times=1),
)
UNREACHABLE = wire.Answer(status=wire.Status.FAILED, sources=URL, error='no route to host')
NO_LIST = dataclasses.replace(UNREACHABLE, error='a web page', is_answered=True)
SPEC = refresher.FeedSpec(
    name='sample',
    driver='plain_list',
    tag='SAMPLE',
    direction='out',
    refresh=HOUR,
    min_interval=600.0,
    timeout=15.0,
    settings={'max_entries': 1000},
)


class World:
    """A feed, the answers its workers are going to give, and two clocks."""

    def __init__(self, cache_dir: str) -> None:
        self.cache_dir = cache_dir
        self.now = NOW
        self.uptime = 50.0
        self.answers: list[wire.Answer | Exception] = []
        self.jobs: list[wire.Job] = []
        self.lists: list[tuple[str, address_sets.AddressSet]] = []
        self.restart()

    def restart(self, spec: refresher.FeedSpec = SPEC) -> None:
        self.feed = refresher.Refresher(
            spec,
            refresher.Surroundings(
                cache_dir=self.cache_dir,
                on_list=lambda name, addresses: self.lists.append((name, addresses)),
                run=self.run,
                own_networks=['5.6.7.0/24'],
                flags=wire.Flags(allow_plain_http=True),
                clock=lambda: self.now,
                monotonic=lambda: self.uptime,
                random=lambda: 0.5,
            ),
        )

    def run(self, job: wire.Job) -> wire.Answer:
        self.jobs.append(job)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def load(self, answer: wire.Answer | Exception = ABSENT) -> float:
        self.answers.append(answer)
        return self.feed.load()

    def refresh(self, answer: wire.Answer | Exception) -> float:
        self.answers.append(answer)
        return self.feed.refresh()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.uptime += seconds

    @property
    def shown(self):
        return self.feed.shown()

    @property
    def state(self) -> state.State:
        return state.read(self.cache_dir, SPEC.name)


@pytest.fixture
def world(tmp_path):
    return World(str(tmp_path))


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, logger='oie.feeds.refresher')
    return lambda: [record.getMessage() for record in caplog.records]


class TestLoad:
    def test_without_a_cache_the_publisher_is_asked_at_once(self, world):
        assert world.load() == 0.0
        assert world.lists == []
        assert not world.shown.is_loaded
        assert world.shown.error == ''

    def test_a_cached_list_is_used_at_once_with_the_age_it_has(self, world):
        assert world.load(LOADED) == 15.0
        assert world.lists == [('sample', ADDRESSES)]
        shown = world.shown
        assert (shown.name, shown.tag, shown.direction) == ('sample', 'SAMPLE', 'out')
        assert shown.is_loaded
        assert shown.is_fresh
        assert (shown.entries, shown.rejected) == (8, {'malformed': 1})
        assert shown.succeeded_at == NOW - HOUR
        assert shown.seconds is None
        assert shown.errors == 0

    def test_an_old_cached_list_is_used_but_not_fresh(self, world):
        world.load(dataclasses.replace(LOADED, fetched_at=NOW - 2 * HOUR - 1))
        assert world.shown.is_loaded
        assert not world.shown.is_fresh

    def test_a_cache_that_was_confirmed_later_has_that_age(self, world):
        world.load()
        world.refresh(ACCEPTED)
        world.pass_time(HOUR)
        world.refresh(UNCHANGED)
        world.pass_time(60)
        world.restart()
        world.load(dataclasses.replace(LOADED, fetched_at=NOW))
        assert world.shown.succeeded_at == NOW + HOUR

    def test_a_cache_of_another_list_than_was_confirmed_has_its_own_age(self, world):
        # The disk was full when the newer list came.
        world.load()
        world.refresh(dataclasses.replace(ACCEPTED, documents='d2', cache_error='disk full'))
        world.restart()
        world.load(LOADED)
        assert world.shown.succeeded_at == NOW - HOUR

    def test_a_refused_cache_is_told_and_costs_no_refresh(self, world, lines):
        error = 'cached list refused: /x/sample.list: the header is damaged'
        refused = wire.Answer(status=wire.Status.FAILED, sources=URL, error=error)
        assert world.load(refused) == 0.0
        assert lines() == [f'feed sample: cache: {error}']
        assert world.shown.error == error
        assert world.shown.errors == 0
        world.refresh(ACCEPTED)
        assert world.shown.error == ''
        assert lines()[1:] == ['feed sample: 8 entries', 'feed sample: cache: over']

    def test_a_worker_that_fails_costs_no_refresh(self, world):
        assert world.load(exceptions.FeedError('the worker was ended by SIGKILL')) == 0.0
        assert 'SIGKILL' in world.shown.error

    def test_the_job_says_what_to_do(self, world):
        world.load()
        [job] = world.jobs
        assert job == wire.Job(
            mode=wire.Mode.LOAD,
            parent=os.getpid(),
            seconds=30.0,
            feed='sample',
            driver='plain_list',
            settings=SPEC.settings,
            own_networks=('5.6.7.0/24',),
            flags=wire.Flags(allow_plain_http=True),
            cache_dir=world.cache_dir,
        )

    def test_files_of_this_host_are_read_at_once(self, world):
        for sources in (('/etc/oie/list',), ('file:///etc/oie/list',)):
            world.load(dataclasses.replace(ABSENT, sources=sources))
            world.refresh(dataclasses.replace(ACCEPTED, sources=sources))
            world.restart()
            assert world.load(dataclasses.replace(LOADED, sources=sources)) == 0.0


class TestRefresh:
    def test_a_new_list_is_used(self, world, lines):
        world.load()
        assert world.refresh(ACCEPTED) == HOUR
        assert world.lists == [('sample', ADDRESSES)]
        assert world.shown.is_fresh
        assert world.shown.succeeded_at == NOW
        assert world.shown.seconds == 2.5
        assert lines() == ['feed sample: 8 entries']

    def test_the_next_job_knows_the_list_in_use(self, world):
        world.load(LOADED)
        world.refresh(dataclasses.replace(ACCEPTED, documents='d2', validators=(('"2"', ''),)))
        world.refresh(dataclasses.replace(UNCHANGED, documents='d2', validators=(('"3"', ''),)))
        world.refresh(UNREACHABLE)
        known = [(job.documents, job.validators, job.entries) for job in world.jobs]
        assert known == [
            ('', (), None),
            ('d1', (('"1"', ''),), 8),
            ('d2', (('"2"', ''),), 8),
            ('d2', (('"3"', ''),), 8),
        ]
        assert world.jobs[1].seconds == 45.0

    def test_an_unchanged_list_is_young_again_and_stays_in_use(self, world):
        world.load(LOADED)
        world.pass_time(HOUR / 2)
        assert world.refresh(UNCHANGED) == HOUR
        assert len(world.lists) == 1
        assert world.shown.succeeded_at == NOW + HOUR / 2
        assert (world.shown.entries, world.shown.rejected) == (8, {'malformed': 1})

    def test_freshness_is_of_the_moment_of_reading(self, world):
        world.load()
        world.refresh(ACCEPTED)
        world.pass_time(2 * HOUR)
        assert world.shown.is_fresh
        world.pass_time(1)
        assert not world.shown.is_fresh

    @pytest.mark.parametrize('jump', [-1e9, 1e9])
    def test_a_clock_that_is_set_makes_nothing_fresh_or_stale(self, world, jump):
        world.load()
        world.refresh(ACCEPTED)
        world.now += jump
        assert world.shown.is_fresh
        world.uptime += 2 * HOUR + 1
        assert not world.shown.is_fresh

    def test_a_disk_that_cannot_be_written_is_told_once(self, world, lines):
        world.load()
        for _ in range(3):
            world.refresh(dataclasses.replace(ACCEPTED, cache_error='disk full'))
        assert [line for line in lines() if 'cache' in line] == ['feed sample: cache: disk full']
        world.refresh(ACCEPTED)
        assert lines()[-1] == 'feed sample: cache: over'
        assert world.shown.errors == 0

    def test_a_state_that_cannot_be_written_costs_nothing_else(self, world, lines, tmp_path):
        (tmp_path / 'file').write_bytes(b'')
        world.cache_dir = str(tmp_path / 'file')
        world.restart()
        world.load()
        world.refresh(ACCEPTED)
        world.refresh(ACCEPTED)
        assert world.shown.is_fresh
        assert len([line for line in lines() if 'state: ' in line]) <= 2


class TestFailure:
    def test_the_last_list_stays_and_the_truth_is_told(self, world, lines):
        world.load(LOADED)
        world.refresh(UNREACHABLE)
        shown = world.shown
        assert (shown.errors, shown.error) == (1, 'no route to host')
        assert (shown.is_loaded, shown.entries, shown.succeeded_at) == (True, 8, NOW - HOUR)
        world.refresh(UNREACHABLE)
        assert world.shown.errors == 2
        world.refresh(UNCHANGED)
        assert (world.shown.errors, world.shown.error) == (2, '')
        assert lines() == [
            'feed sample: not refreshed: no route to host',
            'feed sample: not refreshed: over',
        ]

    def test_nobody_answered_so_it_is_tried_again_soon_then_later(self, world):
        world.load()
        waits = [world.refresh(UNREACHABLE) for _ in range(3)]
        assert waits == pytest.approx([31.5, 63.0, 126.0])
        assert world.refresh(ACCEPTED) == HOUR
        assert world.refresh(UNREACHABLE) == pytest.approx(31.5)

    @pytest.mark.parametrize(
        'answer', [NO_LIST, exceptions.FeedError('the worker was ended by SIGXCPU')]
    )
    def test_a_publisher_that_answered_is_left_alone_for_its_interval(self, world, answer):
        world.load()
        assert world.refresh(answer) == 600.0

    def test_a_worker_that_could_not_be_started_bothered_nobody(self, world):
        world.load()
        assert world.refresh(children.NotStarted('no memory')) == pytest.approx(31.5)
        assert not world.state.is_answered

    def test_retry_after_wins_and_outlives_a_restart(self, world):
        world.load()
        busy = dataclasses.replace(NO_LIST, retry_after=7200.0)
        assert world.refresh(busy) == pytest.approx(7560.0)
        world.pass_time(60)
        world.restart()
        assert world.load() == pytest.approx(7500.0)

    def test_queries_are_neither_logged_nor_shown(self, world, lines):
        world.load()
        world.refresh(dataclasses.replace(NO_LIST, error='https://x.example/?key=hush: 404'))
        assert world.shown.error == 'https://x.example/?...: 404'
        assert 'hush' not in str(lines())

    def test_what_takes_the_list_may_fail_and_the_next_one_is_whole(self, world):
        world.load()
        take, world.lists = world.lists, None
        with pytest.raises(AttributeError):
            world.refresh(ACCEPTED)
        assert not world.shown.is_loaded
        world.lists = take
        world.refresh(ACCEPTED)
        assert world.jobs[-1].documents == ''
        assert world.shown.is_loaded


class TestHold:
    def test_a_held_list_is_told_and_the_last_one_stays(self, world, lines):
        world.load(LOADED)
        assert world.refresh(HELD) == HOUR
        shown = world.shown
        assert (shown.is_held, shown.errors, shown.error) == (True, 1, '3 entries after 8')
        assert (shown.entries, shown.succeeded_at) == (8, NOW - HOUR)
        assert lines() == ['feed sample: list on hold: 3 entries after 8']

    def test_the_next_job_knows_since_when_over_a_restart_too(self, world):
        world.load(LOADED)
        world.refresh(HELD)
        world.refresh(UNREACHABLE)
        assert world.jobs[-1].held == HELD.held
        world.restart()
        world.load(LOADED)
        assert world.shown.is_held
        world.refresh(UNREACHABLE)
        assert world.jobs[-1].held == HELD.held

    @pytest.mark.parametrize('answer', [ACCEPTED, UNCHANGED])
    def test_a_confirmed_list_or_the_old_one_ends_it(self, world, lines, answer):
        world.load(LOADED)
        world.refresh(HELD)
        world.refresh(answer)
        assert not world.shown.is_held
        assert world.state.held is None
        assert 'feed sample: list on hold: over' in lines()


class TestRestart:
    def test_the_minimum_interval_is_kept(self, world):
        world.load()
        world.refresh(ACCEPTED)
        world.pass_time(100)
        world.restart()
        assert world.load(LOADED) == pytest.approx(500 + 15)

    def test_so_it_is_when_the_exporter_died_in_the_middle(self, world):
        world.load()
        with pytest.raises(children.Stopped):
            world.refresh(children.Stopped())
        world.restart()
        assert world.load() == 600.0
        assert world.shown.errors == 0

    def test_another_source_is_another_publisher(self, world):
        world.load(LOADED)
        world.refresh(HELD)
        world.restart()
        elsewhere = dataclasses.replace(ABSENT, sources=('https://mirror.example/list',))
        assert world.load(elsewhere) == 0.0
        world.refresh(UNREACHABLE)
        assert world.jobs[-1].held is None

    def test_a_damaged_state_is_an_empty_one_and_told_once(self, world, lines, tmp_path):
        (tmp_path / 'sample.state').write_bytes(b'{')
        assert world.load() == 0.0
        world.refresh(ACCEPTED)
        world.refresh(ACCEPTED)
        assert len([line for line in lines() if 'is damaged' in line]) == 1
        assert world.state.last_attempt_at == NOW

    def test_the_state_is_all_that_is_promised(self, world):
        world.load()
        world.refresh(ACCEPTED)
        world.pass_time(HOUR)
        world.refresh(NO_LIST)
        known = world.state
        assert (known.last_attempt_at, known.last_success_at) == (NOW + HOUR, NOW)
        assert (known.failures, known.is_answered, known.documents) == (1, True, 'd1')
