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

"""The thread behind project usage: what fails is counted and tried again, and nothing falls."""

import dataclasses
import decimal

import hypothesis
from hypothesis import strategies
import pytest

from oie import exceptions
from oie import model
from oie.collectors import base
from oie.ledger import project_store
from oie.project_usage import reader as readers
from oie.project_usage import shown
from oie.sources.project_usage import weights
from tests import builders
from tests.unit import measuring

T0 = 1_795_000_000.0
US = 10**6
HOUR = 3600
DAY = 24 * HOUR
WEB = model.Project(id='p-web', name='web', domain_id='default', domain_name='Default')
LAB = model.Project(id='p-lab', name='lab', domain_id='d-lab', domain_name='Lab')
KEYS = ('project_id', 'project_name', 'domain_name', 'domain_id')


class World:
    """A cloud, weights, a start date and a clock, each of which may fail."""

    def __init__(self):
        self.now = T0
        self.projects = (WEB,)
        self.servers = (model.ServerUsage('a', WEB.id, 2, 1536, int(T0 * US)),)
        self.rejected = 0
        self.error = None
        self.weights_error = None
        self.start = None
        self.asked = []
        self.windows = []
        self.most_us = None
        self.strangers = ()
        self.read_at = None

    def time(self):
        return self.now

    def read(self, since_us, cursor_us, is_wanted, *, window_us=None):
        self.asked.append((since_us, cursor_us))
        begin = since_us if cursor_us is None else cursor_us
        now = int(self.now * US)
        until = now if window_us is None else min(now, begin + window_us)
        self.windows.append((begin, until))
        if self.most_us is not None and until - begin > self.most_us:
            raise failed('timeout')
        if self.error is not None:
            raise self.error
        return model.CloudUsage(
            taken_us=until,
            projects=self.projects,
            servers=self.servers,
            strangers=self.strangers,
            rejected=self.rejected,
            clock_skew_seconds=0.5,
            is_last=until == now,
            asked_us=now,
        )

    def refresh(self):
        if self.weights_error is not None:
            raise self.weights_error
        self.read_at = self.now

    def weigher(self):
        return lambda *_: (2 * 10**12, 3 * 10**12)

    def moment(self):
        if isinstance(self.start, Exception):
            raise self.start
        return self.start

    def close(self):
        pass


class Reading:
    """A reader whose steps the test takes."""

    def __init__(self, path='', **more):
        self.world = World()
        self.waited = []
        self.path = path
        self.settings = readers.Settings(interval=300.0, deadline=5.0)
        self.shown_settings = shown.Settings(**{'keep': 30.0 * DAY, **more})
        self.begin()

    def begin(self):
        world = self.world
        self.ledger = project_store.ProjectStore(str(self.path), keep_us=400 * DAY * US)
        self.reader = readers.ProjectUsageReader(
            world,
            self.ledger,
            world,
            world,
            self.settings,
            shown.Shown(self.shown_settings),
            clock=world.time,
            monotonic=world.time,
            random=lambda: 0.5,
            wait=self.waited.append,
        )
        # The test takes the steps, no thread does.
        self.reader._thread = _NoThread()

    def step(self, seconds=0.0):
        self.world.now += seconds
        return self.reader.step()

    @property
    def reading(self):
        return self.reader.read((), 10.0, frozenset())['project_usage']

    @property
    def health(self):
        return self.reader.read((), 10.0, frozenset())['project_usage_health']

    def shown(self):
        return {tuple(v for _, v in each.labels.pairs): each for each in self.reading.value or ()}

    def web(self):
        return self.shown()['p-web', 'web', 'Default', 'default']


class _NoThread:
    def join(self, timeout):
        pass


@pytest.fixture
def reading(tmp_path):
    made = Reading(tmp_path / 'projects.sqlite')
    yield made
    made.reader.close()
    made.ledger.close()


def failed(reason):
    return exceptions.UsageError(reason, f'because of {reason}')


# --- what is shown ----------------------------------------------------------


def test_nothing_is_shown_before_the_first_answer(reading):
    assert reading.reading.value is None
    assert reading.reading.error


def test_hours_are_shown_plain_weighted_and_in_the_unit_of_old(reading):
    reading.step()
    reading.step(2 * HOUR)
    web = reading.web()
    # 2 h x 2 vCPUs, x 2; 2 h x 1536 MiB, x 3; 2 h x 1 whole GiB x 3
    assert (web.vcpu_hours, web.weighted_vcpu_hours) == (4.0, 8.0)
    assert (web.memory_mb_hours, web.weighted_memory_mb_hours) == (3072.0, 9216.0)
    assert web.memory_usage == 6.0
    assert reading.reading.error == ''


@pytest.mark.parametrize(('unit', 'value'), [('gib_floor', 6.0), ('gib', 9.0), ('mb', 9216.0)])
def test_the_unit_of_memory(unit, value):
    made = Reading(memory_unit=unit)
    made.step()
    made.step(2 * HOUR)
    assert made.web().memory_usage == value


def test_labels_are_those_of_the_older_exporter_and_stay_the_same_objects(reading):
    reading.step()
    before = reading.web().labels
    assert tuple(name for name, _ in before.pairs) == KEYS
    reading.step(300)
    assert reading.web().labels is before


def test_a_project_that_was_renamed_is_shown_once_under_its_new_name(reading):
    reading.step()
    reading.world.projects = (dataclasses.replace(WEB, name='www'),)
    reading.step(HOUR)
    assert [key[1] for key in reading.shown()] == ['www']


def test_a_project_that_keystone_names_no_more_stays_for_a_while(reading):
    reading.step()
    reading.step(HOUR)
    reading.world.projects, reading.world.servers = (LAB,), ()
    reading.step(29 * DAY)
    assert reading.web().vcpu_hours == 2.0
    reading.step(2 * DAY)
    assert [key[1] for key in reading.shown()] == ['lab']


def test_a_deleted_project_stays_while_it_has_an_instance(reading):
    reading.step()
    reading.world.projects = (LAB,)
    reading.world.servers, reading.world.strangers = (), reading.world.servers
    for _ in range(40):
        reading.step(DAY)
    assert reading.web().vcpu_hours == 2.0 * 24 * 40


def test_a_tag_ends_a_while_after_its_last_instance_and_comes_back_with_all_it_had(reading):
    tagged = model.ServerUsage('b', WEB.id, 3, 512, int(T0 * US), None, 'alpha')
    reading.world.servers += (tagged,)
    reading.step()
    reading.step(HOUR)
    reading.world.servers = reading.world.servers[:1]
    reading.step(29 * DAY)
    assert {key[1]: each.vcpu_hours for key, each in reading.shown().items()}['alpha'] == 3.0
    reading.step(2 * DAY)
    assert [key[1] for key in reading.shown()] == ['web']
    later = model.ServerUsage('c', WEB.id, 1, 512, int(reading.world.now * US), None, 'alpha')
    reading.world.servers += (later,)
    reading.step(HOUR)
    # 1 h x 3 vCPUs of old, x 1 now
    assert {key[1]: each.vcpu_hours for key, each in reading.shown().items()}['alpha'] == 4.0


def test_a_tag_that_is_the_name_of_its_project_takes_nothing_away_when_it_ends(reading):
    reading.world.servers += (
        model.ServerUsage('b', WEB.id, 3, 512, int(T0 * US), None, WEB.name),
    )
    reading.step()
    reading.step(HOUR)
    before = reading.web().vcpu_hours
    reading.world.servers = ()
    reading.step(40 * DAY)
    assert reading.web().vcpu_hours == before == 5.0


def test_a_tag_that_is_the_name_of_its_project_is_one_series_with_it(reading):
    reading.world.servers += (
        model.ServerUsage('b', WEB.id, 3, 512, int(T0 * US), None, WEB.name),
    )
    reading.step()
    reading.step(HOUR)
    # 1 h x 2 vCPUs of the project itself, x 3 of the tag
    assert len(reading.reading.value) == 1
    assert reading.web().vcpu_hours == 5.0


def test_a_longer_tag_of_an_earlier_version_is_shown_cut_with_all_it_had(reading):
    start = int(T0 * US)
    reading.world.servers = (
        model.ServerUsage('a', WEB.id, 2, 512, start, None, 'ü' * 255),
        model.ServerUsage('b', WEB.id, 3, 512, start, None, 'ü' * 100),
    )
    reading.step()
    reading.step(HOUR)
    found = {key[1]: each.vcpu_hours for key, each in reading.shown().items()}
    assert found == {'web': 0.0, 'ü' * 100: 5.0}


def test_only_wanted_domains_are_shown(tmp_path):
    path = tmp_path / 'projects.sqlite'
    made = Reading(path)
    made.world.projects = (WEB, LAB)
    made.step()
    made.ledger.close()
    for wanted in ({'domains': ('Lab',)}, {'domain_id': 'd-lab'}):
        other = Reading(path, **wanted)
        other.world.error = failed('connect')
        other.step()
        assert [key[1] for key in other.shown()] == ['lab']
        other.ledger.close()


def test_after_a_restart_the_last_totals_are_there_before_the_cloud_answers(reading):
    reading.step()
    reading.step(HOUR)
    before = reading.web().vcpu_hours
    reading.ledger.close()
    reading.begin()
    reading.world.error = failed('connect')
    reading.step(HOUR)
    assert reading.web().vcpu_hours == before == 2.0
    assert reading.reading.read_at == T0 + HOUR
    assert 'connect' in reading.reading.error


SETS = [
    {
        'resource_set_timestamp': int(T0) - 20 * HOUR,
        'vcpus': [{'value': 2, 'weight': 1}, {'value': 4, 'weight': 2}],
        'memory_mb': [{'value': 1, 'weight': 1}, {'value': 8, 'weight': 3}],
    },
    {
        'resource_set_timestamp': int(T0) - 10 * HOUR,
        'vcpus': [{'value': 4, 'weight': decimal.Decimal('0.5')}],
        'memory_mb': [],
    },
]


def published_weight(kind, amount, started):
    """Return a weight by the rule of OS_project_usage_exporter, written anew from its text."""
    older = [each for each in SETS if each['resource_set_timestamp'] <= started]
    chosen = max(older, key=lambda each: each['resource_set_timestamp']) if older else SETS[0]
    table = {entry['value']: entry['weight'] for entry in chosen[kind]}
    if not table:
        return 1
    above = [value for value in table if value >= amount]
    return table[min(above) if above else max(table)]


@hypothesis.given(
    strategies.lists(
        strategies.tuples(
            strategies.integers(1, 8),
            strategies.sampled_from([512, 1024, 1536, 2048, 8191, 8192, 65536]),
            strategies.integers(-30 * HOUR, HOUR),
        ),
        max_size=6,
    )
)
def test_old_series_are_what_the_published_formula_gives(found):
    made = Reading()
    made.world.start = int((T0 - 25 * HOUR) * US)
    made.world.weigher = lambda: weights.Weigher(weights.parse(SETS), 'gib_floor')
    made.world.servers = tuple(
        model.ServerUsage(str(number), WEB.id, vcpus, memory, int((T0 + offset) * US))
        for number, (vcpus, memory, offset) in enumerate(found)
    )
    made.step()
    vcpu = mb = decimal.Decimal(0)
    for vcpus, memory, offset in found:
        hours = decimal.Decimal(max(-max(offset, -25 * HOUR), 0)) / HOUR
        started = T0 + offset
        gib = memory // 1024
        vcpu += hours * vcpus * published_weight('vcpus', vcpus, started)
        mb += hours * gib * published_weight('memory_mb', gib, started)
    assert made.web().weighted_vcpu_hours == pytest.approx(float(vcpu), rel=1e-12)
    assert made.web().memory_usage == pytest.approx(float(mb), rel=1e-12)


# --- from when on -----------------------------------------------------------


def test_without_a_start_date_the_first_start_counts_and_is_remembered(reading):
    reading.step()
    reading.ledger.close()
    reading.begin()
    reading.step(DAY)
    assert reading.world.asked == [
        (int(T0 * US), None),
        (int(T0 * US), int(T0 * US)),
    ]


def test_the_start_date_counts(reading):
    reading.world.start = int((T0 - HOUR) * US)
    reading.world.servers = (model.ServerUsage('a', WEB.id, 1, 512, int((T0 - DAY) * US)),)
    reading.step()
    assert reading.web().vcpu_hours == 1.0


# --- failures ---------------------------------------------------------------


# --- years of the past ------------------------------------------------------


def since_days(reading, days):
    start = int((T0 - days * DAY) * US)
    reading.world.start = start
    reading.world.servers = (model.ServerUsage('a', WEB.id, 1, 512, start),)


def test_the_past_is_asked_for_in_windows_and_shown_when_all_of_it_is_booked(reading):
    since_days(reading, 300)
    seen = []
    ask = reading.world.read
    reading.world.read = lambda *found, **more: (
        seen.append(reading.reading.value),
        ask(*found, **more),
    )[1]
    reading.step()
    windows = reading.world.windows
    # Answers that come at once: twice as much each time.
    assert [(until - begin) // (DAY * US) for begin, until in windows] == [30, 60, 120, 90]
    assert [begin for begin, _ in windows[1:]] == [until for _, until in windows[:-1]]
    # Whoever rates a counter would take the past for usage of today.
    assert seen == [None] * 4
    assert reading.web().vcpu_hours == 300 * 24
    assert reading.health.updates == 1


def test_what_is_booked_of_the_past_is_not_asked_for_again(reading):
    since_days(reading, 300)
    ask = reading.world.read

    def read(*found, **more):
        reading.world.error = failed('connect') if len(reading.world.windows) == 2 else None
        return ask(*found, **more)

    reading.world.read = read
    reading.step()
    assert reading.reading.value is None
    assert 'connect' in reading.reading.error
    reading.ledger.close()
    reading.begin()
    reading.step()
    begins = [(begin - int(T0 * US)) // (DAY * US) + 300 for begin, _ in reading.world.windows]
    # The third failed; after a restart it is the first.
    assert begins == [0, 30, 90, 90, 120, 180]
    assert reading.web().vcpu_hours == 300 * 24


def test_windows_that_take_too_long_become_shorter_until_one_does_not(reading):
    since_days(reading, 40)
    reading.world.most_us = 8 * DAY * US
    attempts = 0
    while reading.reading.value is None:
        reading.step()
        attempts += 1
        assert attempts < 20
    assert reading.web().vcpu_hours == 40 * 24
    lengths = [(until - begin) / (DAY * US) for begin, until in reading.world.windows]
    # 30 and 15 days are too much, so are the 15 after 7.5, and so on.
    assert lengths[:4] == [30.0, 15.0, 7.5, 15.0]
    assert reading.health.failures['timeout'] == attempts - 1


def test_after_an_outage_the_totals_stay_while_the_time_of_it_is_booked(reading):
    reading.step()
    reading.step(HOUR)
    reading.world.most_us = 30 * DAY * US
    reading.step(100 * DAY)
    # The second window, of 60 days, was too much.
    assert 'timeout' in reading.reading.error
    assert reading.web().vcpu_hours == 2.0 + 2 * 30 * 24


@pytest.mark.parametrize('reason', model.USAGE_FAILURES)
def test_a_failure_keeps_the_last_totals_and_is_counted_by_its_reason(reading, reason):
    reading.step()
    reading.step(HOUR)
    before = reading.reading
    reading.world.error = failed(reason)
    reading.step(HOUR)
    assert reading.reading.value == before.value
    assert reading.reading.read_at == before.read_at
    assert reason in reading.reading.error
    assert {key: n for key, n in reading.health.failures.items() if n} == {reason: 1}
    assert set(reading.health.failures) == set(model.USAGE_FAILURES)


@pytest.mark.parametrize(
    'error', [RuntimeError('x'), KeyError('y'), MemoryError(), RecursionError()]
)
def test_what_nobody_thought_of_ends_nothing(reading, error):
    reading.step()
    reading.world.error = error
    reading.step(HOUR)
    assert reading.health.failures['other'] == 1
    reading.world.error = None
    reading.step(HOUR)
    assert reading.web().vcpu_hours == 4.0
    assert reading.reading.error == ''


@pytest.mark.parametrize(('reason', 'lines'), [('setup', 1), ('auth', 1), ('connect', 0)])
def test_what_an_operator_must_mend_is_an_error_once(reading, caplog, reason, lines):
    reading.world.error = failed(reason)
    for _ in range(3):
        reading.step()
    errors = [each for each in caplog.records if each.levelname == 'ERROR']
    assert len(errors) == lines


def test_attempts_come_sooner_than_the_interval_and_then_seldom(reading):
    reading.world.error = failed('connect')
    waits = [reading.step() for _ in range(6)]
    # 30, 60, 120, 240 s and a twentieth, and the interval at most.
    assert waits == [31.5, 63.0, 126.0, 252.0, 300.0, 300.0]
    reading.world.error = None
    assert reading.step() == 300.0
    reading.world.error = failed('connect')
    assert reading.step() == 31.5


def test_weights_that_cannot_be_read_hold_up_nothing(reading):
    reading.step()
    reading.world.weights_error = failed('weights')
    reading.step(HOUR)
    assert reading.web().vcpu_hours == 2.0
    assert reading.health.failures['weights'] == 1
    assert reading.health.weights_read_at == T0


def test_without_a_start_date_that_is_asked_for_nothing_counts(reading):
    reading.world.start = failed('start_date')
    reading.step()
    assert reading.reading.value is None
    assert reading.world.asked == []
    assert reading.health.failures['start_date'] == 1


def test_an_answer_that_never_comes_is_left_behind(reading):
    reading.settings = dataclasses.replace(reading.settings, deadline=0.01)
    reading.begin()
    released = reading.reader._stopping

    def read(since_us, cursor_us, is_wanted, *, window_us):
        released.wait(30)
        raise failed('other')

    reading.world.read = read
    told = []
    for _ in range(3):
        reading.step()
        told.append(reading.reading.error)
    # Two that hang, and a third one that is not even begun.
    assert reading.health.failures['timeout'] == 3
    assert '[usage] deadline = 0.01 s' in told[0]
    assert '[usage] timeout' in told[2]


def test_records_that_nobody_can_read_are_counted(reading):
    reading.world.rejected = 3
    reading.step()
    reading.step(HOUR)
    assert reading.health.failures['record'] == 6
    assert reading.reading.error == ''
    assert reading.health.left_out == {'project': 0, 'record': 3}
    reading.world.rejected = 0
    reading.step(HOUR)
    assert reading.health.left_out == {'project': 0, 'record': 0}


def test_instances_of_unknown_projects_are_counted_and_named_once(reading, caplog):
    reading.world.strangers = tuple(
        model.ServerUsage(f'x{number}', f'p-{number % 7}', 1, 512, int(T0 * US))
        for number in range(10)
    )
    reading.step()
    reading.step(HOUR)
    assert reading.health.failures['project'] == 20
    assert reading.health.left_out == {'project': 10, 'record': 0}
    assert reading.reading.error == ''
    [line] = [each.getMessage() for each in caplog.records if 'p-0' in each.getMessage()]
    assert '10 instances of 7 projects' in line
    assert 'p-6' not in line


def test_an_instance_that_is_left_out_in_many_windows_is_one(reading):
    since_days(reading, 300)
    reading.world.rejected = 3
    reading.world.strangers = (model.ServerUsage('x', 'p-x', 1, 512, int(T0 * US)),)
    reading.step()
    assert reading.health.left_out == {'project': 1, 'record': 3}


def test_a_ledger_that_another_exporter_keeps_is_waited_for(reading, tmp_path):
    other = project_store.ProjectStore(str(reading.path), keep_us=DAY * US)
    other.open(int(T0 * US))
    assert reading.step() == readers.RETRY_SECONDS
    assert reading.health.failures['ledger'] == 1
    assert reading.world.asked == []
    other.close()
    reading.step()
    assert reading.reading.error == ''


def test_a_ledger_that_cannot_be_made_is_told_and_tried_again(tmp_path):
    (tmp_path / 'file').write_text('')
    made = Reading(tmp_path / 'file' / 'projects.sqlite')
    made.step()
    assert '[usage]' not in made.reading.error
    assert made.health.failures['ledger'] == 1
    made.path = tmp_path / 'projects.sqlite'
    made.ledger.path = made.path
    made.step()
    assert made.reading.error == ''
    made.ledger.close()


def test_health_tells_of_the_last_good_update(reading):
    reading.step()
    ended = model.ServerUsage('b', WEB.id, 2, 1536, int(T0 * US), int((T0 + 60) * US))
    reading.world.servers += (ended,)
    reading.step(HOUR)
    health = reading.health
    assert (health.projects, health.instances, health.remembered) == (1, 1, 2)
    assert (health.updates, health.succeeded_at) == (2, T0 + HOUR)
    assert health.clock_skew_seconds == 0.5


# --- the thread -------------------------------------------------------------


def test_a_cycle_never_waits_and_the_thread_ends(tmp_path):
    made = Reading(tmp_path / 'projects.sqlite')
    made.reader._thread = None
    made.reader._wait = made.reader._stopping.wait
    assert made.reading.value is None or made.reading.value
    made.reader.close()
    assert not made.reader._thread.is_alive()


# --- the collector ----------------------------------------------------------


def test_what_is_off_gives_no_series():
    collector = measuring.collector('project_usage')
    assert measuring.families([collector], builders.snapshot()) == []


def test_a_failure_leaves_the_series_and_its_count():
    collector = measuring.collector('project_usage')
    current = builders.snapshot(
        project_usage=builders.project_usage(error='connect: x'),
        project_usage_health=builders.project_usage_health(),
    )
    found = measuring.samples(measuring.families([collector], current))
    assert len(found['oie_project_vcpu_hours_total']) == 2
    assert found['oie_project_usage_errors_total'][frozenset({('reason', 'connect')})] == 2


def test_a_project_that_used_nothing_has_a_zero():
    used = builders.project_used(vcpu_hours=0.0)
    current = builders.snapshot(project_usage=builders.project_usage(used))
    found = measuring.samples(measuring.families([measuring.collector('project_usage')], current))
    assert list(found['oie_project_vcpu_hours_total'].values()) == [0.0]
    assert isinstance(measuring.collector('project_usage'), base.Collector)
