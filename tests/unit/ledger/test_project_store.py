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

"""The totals of projects: equal to hours counted by hand, and never lower than they were."""

import os
import pathlib
import sqlite3

import hypothesis
from hypothesis import strategies
import pytest

from oie import exceptions
from oie import model
from oie.ledger import project_spans
from oie.ledger import project_store
from oie.ledger import project_tables

HOUR = 3600 * 10**6
DAY = 24 * HOUR
T0 = 1_795_000_000 * 10**6
ONE = project_spans.ONE
WEB = model.Project(id='p-web', name='web', domain_id='default', domain_name='Default')
LAB = model.Project(id='p-lab', name='lab', domain_id='d-lab', domain_name='Lab')


def plain(vcpus, memory_mb, started_us):
    return ONE, ONE


def server(uuid='a', **more):
    values = {'project_id': WEB.id, 'vcpus': 2, 'memory_mb': 1536, 'started_us': T0}
    return model.ServerUsage(uuid, **{**values, **more})


class Ledger:
    """A file, and what is asked of it in a line."""

    def __init__(self, path='', keep_us=400 * DAY):
        self.path, self.keep_us = path, keep_us
        self.store = None
        self.open()

    def open(self, now=T0):
        self.store = project_store.ProjectStore(str(self.path), keep_us=self.keep_us)
        self.booked = self.store.open(now)

    def reopen(self, now=T0):
        self.store.close()
        self.open(now)

    def see(self, now, *servers, since=T0, weigh=plain, projects=(WEB, LAB), **more):
        answer = model.CloudUsage(taken_us=now, projects=projects, servers=servers, **more)
        self.booked = self.store.book(answer, since_us=since, weigh=weigh)
        return self

    def hours(self, project=WEB, tag=''):
        """Return vCPU-hours and MiB-hours."""
        sums = self.booked.totals[project.id, tag].sums
        return sums.vcpus / HOUR, sums.memory / HOUR

    def spans(self):
        """Return all spans there are, closed and open ones, by instance."""
        connection = self.store._connection
        found = connection.execute(
            'SELECT uuid, start_us, stop_us, span.vcpus, span.memory_mb '
            'FROM span JOIN instance ON id = instance UNION ALL '
            'SELECT uuid, since_us, counted_us, vcpus, memory_mb FROM instance '
            'WHERE since_us < counted_us ORDER BY 1, 2'
        )
        spans = {}
        for uuid, *span in found:
            spans.setdefault(uuid, []).append(tuple(span))
        return spans

    def close(self):
        self.store.close()


@pytest.fixture
def ledger(tmp_path):
    made = Ledger(tmp_path / 'projects.sqlite')
    yield made
    made.close()


# --- hours by hand ----------------------------------------------------------


def test_an_instance_counts_from_its_start_to_the_answer(ledger):
    ledger.see(T0 + 90 * 60 * 10**6, server())
    # 1.5 h x 2 vCPUs; 1.5 h x 1536 MiB
    assert ledger.hours() == (3.0, 2304.0)


def test_the_start_date_cuts_off_what_was_before(ledger):
    ledger.see(T0 + 10 * HOUR, server(), since=T0 + 7 * HOUR)
    assert ledger.hours() == (6.0, 4608.0)


def test_the_end_of_an_instance_is_the_end_of_its_usage(ledger):
    ledger.see(T0 + HOUR, server())
    ledger.see(T0 + 10 * HOUR, server(ended_us=T0 + 2 * HOUR))
    ledger.see(T0 + 20 * HOUR, server(ended_us=T0 + 2 * HOUR))
    assert ledger.hours() == (4.0, 3072.0)


def test_many_answers_give_what_one_would(ledger):
    for minutes in range(5, 125, 5):
        ledger.see(T0 + minutes * 60 * 10**6, server())
    assert ledger.hours() == (4.0, 3072.0)
    assert ledger.spans() == {'a': [(T0, T0 + 2 * HOUR, 2, 1536)]}


def test_a_time_in_which_nobody_asked_counts_because_the_instance_existed(ledger):
    ledger.see(T0 + HOUR, server())
    ledger.reopen()
    ledger.see(T0 + 49 * HOUR, server())
    assert ledger.hours() == (98.0, 49 * 1536.0)


def test_an_instance_that_nova_has_purged_keeps_what_it_had_used(ledger):
    ledger.see(T0 + HOUR, server())
    ledger.see(T0 + 2 * HOUR)
    assert ledger.hours() == (2.0, 1536.0)


def test_of_two_sizes_the_smaller_counts_for_the_time_between_two_answers(ledger):
    ledger.see(T0 + HOUR, server())
    ledger.see(T0 + 2 * HOUR, server(vcpus=8, memory_mb=1024))
    ledger.see(T0 + 3 * HOUR, server(vcpus=8, memory_mb=1024))
    # 1 h x 2, 1 h x min(2, 8), 1 h x 8; 1536 + min(1536, 1024) + 1024
    assert ledger.hours() == (12.0, 3584.0)
    assert ledger.spans() == {
        'a': [
            (T0, T0 + HOUR, 2, 1536),
            (T0 + HOUR, T0 + 2 * HOUR, 2, 1024),
            (T0 + 2 * HOUR, T0 + 3 * HOUR, 8, 1024),
        ]
    }


def test_a_resize_does_not_change_what_was_counted(ledger):
    ledger.see(T0 + 10 * HOUR, server())
    # Nova tells the whole life as if it had had the new size all along.
    ledger.see(T0 + 10 * HOUR, server(vcpus=1, memory_mb=512))
    assert ledger.hours() == (20.0, 15360.0)


def test_a_start_that_moves_leaves_a_gap_and_takes_nothing_back(ledger):
    ledger.see(T0 + HOUR, server())
    # Unshelved: Nova forgets when it was launched at first.
    ledger.see(T0 + 4 * HOUR, server(started_us=T0 + 3 * HOUR))
    assert ledger.hours() == (4.0, 3072.0)
    assert len(ledger.spans()['a']) == 2


def test_an_instance_named_twice_in_an_answer_counts_once(ledger):
    ledger.see(T0 + HOUR, server(), server())
    assert ledger.hours() == (2.0, 1536.0)


def test_an_answer_from_the_past_changes_nothing(ledger):
    ledger.see(T0 + 5 * HOUR, server())
    ledger.see(T0 + 2 * HOUR, server())
    assert ledger.hours() == (10.0, 7680.0)
    assert ledger.booked.cursor_us == T0 + 5 * HOUR


def test_an_instance_that_starts_tomorrow_does_not_count_yet(ledger):
    ledger.see(T0 + HOUR, server(started_us=T0 + DAY))
    assert ledger.hours() == (0.0, 0.0)


def test_a_project_without_instances_has_used_nothing(ledger):
    ledger.see(T0 + HOUR)
    assert ledger.hours(LAB) == (0.0, 0.0)


# --- projects that Keystone names no more -----------------------------------


def test_an_instance_of_a_deleted_project_counts_on_under_its_last_name(ledger):
    ledger.see(T0 + HOUR, server())
    ledger.reopen()
    ledger.see(T0 + 3 * HOUR, projects=(LAB,), strangers=(server(),))
    assert ledger.hours() == (6.0, 4608.0)
    total = ledger.booked.totals[WEB.id, '']
    # Its series stay for as long as there is such an instance.
    assert (total.project, total.seen_us) == (WEB, T0 + 3 * HOUR)
    assert ledger.booked.left_out == {}
    ledger.reopen()
    assert ledger.booked.totals[WEB.id, ''] == total


def test_an_instance_of_a_project_that_nobody_knows_is_told_and_not_counted(ledger):
    unknown = (server('x', project_id='p-x'), server('y', project_id='p-x'))
    ledger.see(T0 + HOUR, server(), strangers=unknown)
    assert ledger.booked.left_out == {'p-x': 2}
    assert set(ledger.booked.totals) == {(WEB.id, ''), (LAB.id, '')}
    ledger.see(T0 + 2 * HOUR, server())
    assert ledger.booked.left_out == {}


def test_where_domains_were_chosen_only_their_deleted_projects_count_on(ledger):
    ledger.see(T0 + HOUR, server(), server('b', project_id=LAB.id))
    ledger.see(
        T0 + 2 * HOUR,
        projects=(),
        domain_ids=frozenset({LAB.domain_id}),
        strangers=(server(), server('b', project_id=LAB.id), server('x', project_id='p-x')),
    )
    assert ledger.hours() == (2.0, 1536.0)
    assert ledger.hours(LAB) == (4.0, 3072.0)
    # In a domain that nobody asked for, as far as anybody knows.
    assert ledger.booked.left_out == {}


# --- windows of the past ----------------------------------------------------


def test_totals_are_behind_until_all_of_the_past_was_booked_once(ledger):
    ledger.see(T0 + HOUR, server(), is_last=False)
    assert ledger.booked.is_behind
    ledger.reopen()
    assert ledger.booked.is_behind
    ledger.see(T0 + 2 * HOUR, server(), is_last=False)
    assert ledger.booked.is_behind
    ledger.see(T0 + 3 * HOUR, server())
    assert not ledger.booked.is_behind
    # A time in which nobody asked: what was shown before it stays.
    ledger.see(T0 + 99 * HOUR, server(), is_last=False)
    assert not ledger.booked.is_behind
    ledger.reopen()
    assert not ledger.booked.is_behind


# --- tags and weights -------------------------------------------------------


def test_usage_counts_to_the_tag_and_stays_there_when_the_tag_is_told_no_more(ledger):
    ledger.see(T0 + HOUR, server(tag='alpha'), server('b'))
    ledger.reopen()
    ledger.see(T0 + 3 * HOUR, server(ended_us=T0 + 2 * HOUR), server('b'))
    assert ledger.hours(tag='alpha') == (4.0, 3072.0)
    assert ledger.hours() == (6.0, 4608.0)
    assert ledger.booked.totals[WEB.id, 'alpha'].name == 'alpha'


def test_a_tag_was_seen_when_an_instance_had_it_last(ledger):
    ledger.see(T0 + HOUR, server(tag='alpha'), server('b', tag='beta'))
    ledger.see(T0 + 2 * HOUR, server(tag='alpha'))
    # Nobody tells the tag any more, but the instance is there.
    ledger.see(T0 + 3 * HOUR, server())
    seen = {tag: total.seen_us for (_, tag), total in ledger.booked.totals.items()}
    assert seen == {'': T0 + 3 * HOUR, 'alpha': T0 + 3 * HOUR, 'beta': T0 + HOUR}


def test_what_is_in_an_answer_about_the_past_was_seen_when_that_came(ledger):
    ledger.see(T0 + HOUR, server(tag='alpha'), is_last=False, asked_us=T0 + 9 * HOUR)
    assert ledger.booked.totals[WEB.id, 'alpha'].seen_us == T0 + 9 * HOUR


def test_weights_are_those_of_the_time_of_counting(ledger):
    ledger.see(T0 + HOUR, server(), weigh=lambda *_: (2 * ONE, ONE // 2))
    ledger.see(T0 + 2 * HOUR, server(), weigh=lambda *_: (0, ONE))
    sums = ledger.booked.totals[WEB.id, ''].sums
    assert sums.weighted_vcpus == (2 * 2 + 0) * HOUR * ONE
    assert sums.weighted_memory == (768 + 1536) * HOUR * ONE
    # Whole GiB of 1536 MiB: 1.
    assert sums.floor == (ONE // 2 + ONE) * HOUR
    assert (sums.vcpus, sums.memory) == (4 * HOUR, 3072 * HOUR)


def test_who_weighs_is_told_size_and_start(ledger):
    asked = []
    ledger.see(T0 + HOUR, server(), weigh=lambda *more: asked.append(more) or (ONE, ONE))
    assert asked == [(2, 1536, T0)]


# --- the file ---------------------------------------------------------------


def test_totals_survive_a_restart(ledger):
    ledger.see(T0 + HOUR, server(tag='alpha', vcpus=3))
    before = ledger.booked
    ledger.reopen(T0 + DAY)
    assert ledger.booked == before
    assert (before.first_us, before.cursor_us, before.remembered) == (T0, T0 + HOUR, 1)


def test_numbers_beyond_those_of_sqlite_are_kept(ledger):
    ledger.see(T0 + 10 * 365 * DAY, server(vcpus=2**20, memory_mb=2**40))
    before = ledger.booked.totals[WEB.id, ''].sums
    assert before.weighted_memory > 2**63
    ledger.reopen()
    assert ledger.booked.totals[WEB.id, ''].sums == before


def test_an_answer_that_cannot_be_booked_changes_nothing(ledger):
    ledger.see(T0 + HOUR, server())
    before = ledger.booked
    broken = [server(), server('b', vcpus=2**70)]
    with pytest.raises(exceptions.LedgerError):
        ledger.see(T0 + 2 * HOUR, *broken)
    assert ledger.booked.totals[WEB.id, ''].sums == before.totals[WEB.id, ''].sums
    ledger.reopen()
    assert ledger.booked == before


def test_a_full_disk_is_told_and_leaves_the_totals(ledger):
    ledger.see(T0 + HOUR, server())
    connection = ledger.store._connection
    pages = connection.execute('PRAGMA page_count').fetchone()[0]
    connection.execute(f'PRAGMA max_page_count = {pages}')
    many = [server(f'{number:036d}') for number in range(5000)]
    with pytest.raises(exceptions.LedgerError, match='full'):
        ledger.see(T0 + 2 * HOUR, *many)
    connection.execute('PRAGMA max_page_count = 1000000')
    ledger.see(T0 + 3 * HOUR, server())
    assert ledger.hours() == (6.0, 4608.0)


def test_after_damage_nothing_counts_twice(ledger):
    ledger.see(T0 + HOUR, server())
    ledger.close()
    path = pathlib.Path(ledger.path)
    data = bytearray(path.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(data)
    ledger.open(T0 + 2 * HOUR)
    assert ledger.booked == project_tables.Booked({}, None, T0 + 2 * HOUR, 0)
    assert pathlib.Path(f'{path}.bad').exists()
    # From the loss on, although the start date is before it.
    ledger.see(T0 + 5 * HOUR, server())
    assert ledger.hours() == (6.0, 4608.0)


def test_a_second_exporter_is_kept_out_and_may_try_again(ledger):
    other = project_store.ProjectStore(str(ledger.path), keep_us=DAY)
    for _ in range(2):
        with pytest.raises(exceptions.LedgerHeld, match=r'\[usage\] path'):
            other.open(T0)
    ledger.close()
    assert other.open(T0).totals == {}
    other.close()


def test_a_file_of_the_other_ledger_is_left_alone(tmp_path):
    path = tmp_path / 'x.sqlite'
    connection = sqlite3.connect(path)
    connection.execute('CREATE TABLE instance (uuid TEXT)')
    connection.close()
    before = path.read_bytes()
    with pytest.raises(exceptions.LedgerError, match='another program'):
        project_store.ProjectStore(str(path), keep_us=DAY).open(T0)
    assert path.read_bytes() == before


def test_nobody_else_may_read_the_file(ledger):
    assert pathlib.Path(ledger.path).stat().st_mode & 0o777 == 0o600


# --- what is forgotten ------------------------------------------------------


def test_an_instance_that_is_gone_for_long_is_forgotten_and_its_project_keeps_all(tmp_path):
    ledger = Ledger(tmp_path / 'projects.sqlite', keep_us=2 * DAY)
    gone = server(ended_us=T0 + HOUR)
    ledger.see(T0 + HOUR, gone)
    ledger.see(T0 + 4 * DAY)
    assert ledger.booked.remembered == 0
    # A cloud that still tells it, as one whose clock was set back may.
    ledger.see(T0 + 4 * DAY + HOUR, gone)
    assert ledger.hours() == (2.0, 1536.0)
    ledger.close()


def test_a_forgotten_instance_that_comes_back_is_not_counted_twice(tmp_path):
    ledger = Ledger(tmp_path / 'projects.sqlite', keep_us=2 * DAY)
    ledger.see(T0 + DAY, server())
    ledger.see(T0 + 4 * DAY)
    ledger.see(T0 + 5 * DAY, server())
    # The first day, and what was after the moment up to which all is forgotten.
    assert ledger.hours() == (2 * 24 + 2 * 3 * 24, 1536.0 * 24 * 4)
    ledger.close()


def test_who_is_resized_for_ever_fills_no_disk(ledger):
    for number in range(2 * project_tables.MOST_SPANS):
        ledger.see(T0 + (number + 1) * HOUR, server(vcpus=number % 2 + 1))
    assert len(ledger.spans()['a']) <= project_tables.MOST_SPANS + 1
    # The first hour at 1; of every other one the smaller, which is 1.
    assert ledger.hours()[0] == 2.0 * project_tables.MOST_SPANS


# --- whatever a cloud answers -----------------------------------------------

moments = strategies.integers(T0 - 3 * DAY, T0 + 3 * DAY)
answered = strategies.builds(
    model.ServerUsage,
    uuid=strategies.sampled_from('abc'),
    project_id=strategies.sampled_from([WEB.id, LAB.id]),
    vcpus=strategies.integers(0, 64),
    memory_mb=strategies.integers(0, 2**20),
    started_us=moments,
    ended_us=strategies.none() | moments,
    tag=strategies.sampled_from(['', '', 'alpha']),
)
weights = strategies.integers(0, 3 * ONE)
looks = strategies.lists(
    strategies.tuples(moments, strategies.lists(answered, max_size=5), weights, moments),
    max_size=12,
)
NAMES = ('vcpus', 'memory', 'weighted_vcpus', 'weighted_memory', 'floor')


def numbers(ledger):
    return {
        (*key, name): getattr(total.sums, name)
        for key, total in ledger.booked.totals.items()
        for name in NAMES
    }


@hypothesis.given(looks, strategies.sampled_from([DAY, 400 * DAY]))
def test_no_total_ever_falls_whatever_comes(answers, keep_us):
    ledger = Ledger(keep_us=keep_us)
    before = {}
    for now, servers, weight, since in answers:
        ledger.see(now, *servers, since=since, weigh=lambda *_, w=weight: (w, w))
        found = numbers(ledger)
        assert all(found[key] >= value for key, value in before.items())
        before = found
    ledger.close()


@hypothesis.given(looks)
def test_totals_are_the_sums_of_spans_that_do_not_overlap(answers):
    ledger = Ledger()
    for now, servers, _, since in answers:
        ledger.see(now, *servers, since=since)
    spans = ledger.spans()
    for found in spans.values():
        assert all(start < stop for start, stop, _, _ in found)
        assert all(one[1] <= other[0] for one, other in zip(found, found[1:], strict=False))
    every = [span for found in spans.values() for span in found]
    sums = [total.sums for total in ledger.booked.totals.values()]
    assert sum(each.vcpus for each in sums) == sum((b - a) * v for a, b, v, _ in every)
    assert sum(each.memory for each in sums) == sum((b - a) * m for a, b, _, m in every)
    ledger.close()


lives = strategies.lists(
    strategies.tuples(moments, strategies.none() | moments, strategies.integers(1, 64)),
    min_size=1,
    max_size=5,
)


@hypothesis.given(lives, strategies.lists(moments, min_size=1, max_size=10), moments)
def test_hours_are_those_of_existence_in_whatever_order_answers_come(found, times, since):
    """Equal to the sum by hand: from start or start date to end or the latest answer."""
    ledger = Ledger()
    for now in times:
        servers = [
            server(str(number), started_us=start, ended_us=end, vcpus=vcpus)
            for number, (start, end, vcpus) in enumerate(found)
            # A cloud does not know yet what ends later.
            for end in [end if end is not None and end <= now else None]
            if start <= now
        ]
        ledger.see(now, *servers, since=since)
    latest = max(times)
    by_hand = sum(
        vcpus * max(min(latest, latest if end is None else end) - max(start, since), 0)
        for start, end, vcpus in found
        if end is None or end > start
    )
    assert ledger.booked.totals[WEB.id, ''].sums.vcpus == by_hand
    ledger.close()


# Each example opens files on a disk.
@hypothesis.given(lives, strategies.lists(moments, max_size=6), moments)
def test_windows_give_what_one_answer_about_all_of_the_past_would(found, cuts, since):
    """As Nova answers about the past: with ends that are later than the window."""
    now = T0 + 3 * DAY
    servers = [
        server(str(number), started_us=start, ended_us=end, vcpus=vcpus)
        for number, (start, end, vcpus) in enumerate(found)
        if end is None or end > start
    ]
    whole, parts = Ledger(), Ledger()
    whole.see(now, *servers, since=since)
    begin = since
    for until in [*sorted(cut for cut in cuts if cut > since), now]:
        inside = [
            each
            for each in servers
            if each.started_us < until and (each.ended_us is None or each.ended_us > begin - HOUR)
        ]
        parts.see(until, *inside, since=since, is_last=until == now)
        begin = until
    assert numbers(parts) == numbers(whole)
    for ledger in (whole, parts):
        ledger.close()


@hypothesis.settings(max_examples=25)
@hypothesis.given(looks, strategies.integers(0, 12))
def test_a_restart_between_any_two_answers_changes_nothing(tmp_path_factory, answers, after):
    straight = Ledger()
    broken = Ledger(tmp_path_factory.mktemp('ledger') / 'projects.sqlite')
    for number, (now, servers, _, since) in enumerate(answers):
        if number == after:
            broken.reopen()
        straight.see(now, *servers, since=since)
        broken.see(now, *servers, since=since)
    assert numbers(straight) == numbers(broken)
    straight.close()
    broken.close()
