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

"""The threat log: what is written when, what is left out, and that it holds nobody up."""

import collections
import dataclasses
import json
import logging
import os
import re
import signal
import threading

import hypothesis
from hypothesis import strategies
from oslo_config import cfg
import pytest

from oie import model
from oie.outputs import log_file
from oie.outputs import threat_lines
from oie.outputs import threat_log
from oie.outputs import throttling

UUID = '00000000-0000-4000-8000-000000000001'
FIRST_NS = 1767323045 * 10**9
NOTHING = {'rate': 0, 'queue': 0, 'error': 0}


class Clock:
    """Both clocks of the log."""

    def __init__(self):
        self.seconds = 0.0

    def wall(self):
        return FIRST_NS + round(self.seconds * 10**9)

    def monotonic(self):
        return 5000.0 + self.seconds

    def advance(self, seconds):
        self.seconds += seconds


class Disk:
    """A file whose writes fail, or wait, as told."""

    def __init__(self):
        self.failure = None
        self.gate = threading.Event()
        self.gate.set()
        self.is_reached = threading.Event()
        self._write = log_file.LogFile.write

    def write(self, file, line):
        self.is_reached.set()
        self.gate.wait(60)
        if self.failure is not None:
            raise self.failure
        self._write(file, line)


@pytest.fixture
def disk(monkeypatch):
    made = Disk()
    monkeypatch.setattr(log_file.LogFile, 'write', lambda file, line: made.write(file, line))
    yield made
    made.gate.set()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'oie' / 'threat.log'


@pytest.fixture
def start(path, clock):
    """Start a log with these options; it is closed after the test."""
    started = []

    def make(**overrides):
        settings = options(**{'path': str(path), **overrides})
        log = threat_log.ThreatLog(settings, clock=clock.wall, monotonic=clock.monotonic)
        started.append(log)
        return log

    yield make
    for log in started:
        log.close(10)


def options(**overrides):
    """Return the group with its defaults, but for these."""
    conf = cfg.ConfigOpts()
    # By name: a group object would carry overrides from one test to the next.
    conf.register_opts(threat_log.OPTS, threat_log.GROUP.name)
    conf([], default_config_files=[], default_config_dirs=[])
    for name, value in overrides.items():
        conf.set_override(name, value, threat_log.GROUP.name)
    return conf.threat_log


def contact(number=0, tag='SPAMHAUS'):
    return threat_log.Contact(
        tag, 'instance-1', UUID, 'p', 'u', '10.0.0.5', f'5.6.7.{number}', 'out'
    )


def outbound(flows, ip='10.0.0.5'):
    return threat_log.Outbound('instance-1', UUID, 'p', 'u', ip, 'ipv4', 1, 1, flows, 1, 1, 1, 1)


def lines(path):
    return path.read_text().splitlines()


def fields(line):
    return dict(field.split('=') for field in line.split(' ')[1:])


def test_it_is_off_unless_asked_for():
    assert dict(options()) == {
        'enabled': False,
        'path': '/var/log/oie/threat.log',
        'format': 'reference',
        'window': 300.0,
        'max_lines_per_second': 100,
        'journal': False,
    }


def test_the_first_contact_is_written_at_once(start, path):
    log = start()
    log.write([contact()])
    log.close(10)
    [line] = lines(path)
    assert re.match(r'2026-01-0\dT\d\d:\d\d:05(Z|[+-]\d\d:\d\d) tag=SPAMHAUS domain=', line)
    assert 'count' not in line
    assert path.stat().st_mode & 0o777 == 0o640


def test_the_file_is_there_before_the_first_line(start, path):
    start().close(10)
    assert path.read_text() == ''


def test_repeats_of_a_window_become_one_line_with_their_number(start, path, clock):
    log = start()
    for _ in range(31):  # at 0, 10, ... 300 s: the last one begins what the next line counts
        log.write([contact()])
        clock.advance(10)
    log.close(10)
    counts = [fields(line).get('count') for line in lines(path)]
    # 1 + 29 + 1 = 31 sightings
    assert counts == [None, '29', '1']


def test_a_lasting_contact_gets_a_line_a_window(start, path, clock):
    log = start(window=60)
    for _ in range(24):  # 0 to 230 s
        log.write([contact()])
        clock.advance(10)
    log.close(10)
    # 1 + 5 (10 to 50 s) + 6 (60 to 110 s) + 6 (120 to 170 s) + 6 (180 to 230 s) = 24
    assert [fields(line).get('count') for line in lines(path)] == [None, '5', '6', '6', '6']


def test_what_was_not_seen_for_a_window_is_new_again(start, path, clock):
    log = start(window=60)
    log.write([contact()])
    clock.advance(61)
    log.write([contact()])
    log.close(10)
    assert ['count' in line for line in lines(path)] == [False, False]


def test_without_a_window_every_interval_is_written(start, path):
    log = start(window=0)
    for _ in range(3):
        log.write([contact()])
    log.close(10)
    assert len(lines(path)) == 3
    assert not any('count' in line for line in lines(path))


@pytest.mark.parametrize('field', [field.name for field in dataclasses.fields(contact())])
def test_a_contact_is_another_one_when_anything_of_it_differs(start, path, field):
    log = start()
    log.write([contact(), dataclasses.replace(contact(), **{field: 'other'})])
    log.close(10)
    assert len(lines(path)) == 2


def test_outbound_is_summed_up_by_fixed_ip_with_the_latest_numbers(start, path, clock):
    log = start(window=60)
    for flows in (5, 6, 7):
        log.write([outbound(flows), outbound(1, ip='10.0.0.6')])
        clock.advance(10)
    log.close(10)
    found = [fields(line) for line in lines(path)]
    assert [(each['ip'], each['flows'], each.get('count')) for each in found] == [
        ('10.0.0.5', '5', None),
        ('10.0.0.6', '1', None),
        ('10.0.0.5', '7', '2'),
        ('10.0.0.6', '1', '2'),
    ]


def test_host_threats_are_summed_up_too(start, path):
    log = start()
    for _ in range(3):
        log.write([threat_log.HostThreat('spamhaus', '5.6.7.8', 'ipv4')])
    log.close(10)
    assert [fields(line).get('count') for line in lines(path)] == [None, '2']


def test_json_lines_by_option(start, path):
    log = start(format='json')
    log.write([contact()])
    log.close(10)
    [line] = lines(path)
    assert json.loads(line)['dst'] == '5.6.7.0'


def test_a_burst_is_cut_counted_and_told_when_it_is_over(start, path, clock):
    log = start(max_lines_per_second=2)
    log.write(contact(number) for number in range(50))
    clock.advance(2)
    log.write([contact(0)])
    log.close(10)
    # 2 a second, 10 seconds' worth: 20 written, 30 dropped; then the repeat of number 0.
    assert [fields(line)['tag'] for line in lines(path)] == [
        *['SPAMHAUS'] * 20,
        'DROPPED',
        'SPAMHAUS',
    ]
    told = fields(lines(path)[20])
    assert (told['reason'], told['count']) == ('rate', '30')
    assert log.health().dropped == {**NOTHING, 'rate': 30}


def test_what_the_rate_cut_gets_its_line_when_it_is_seen_again(start, path, clock):
    log = start(max_lines_per_second=1)
    for _ in range(5):
        log.write(contact(number) for number in range(30))
        clock.advance(10)
    log.close(10)
    found = [fields(line) for line in lines(path)]
    first = [each['dst'] for each in found if each['tag'] != 'DROPPED' and 'count' not in each]
    assert sorted(first) == sorted(f'5.6.7.{number}' for number in range(30))


def test_a_burst_without_an_end_is_told_in_between(start, path, clock):
    log = start(max_lines_per_second=1, window=0)
    for _ in range(1300):
        log.write(contact(number) for number in range(3))
        clock.advance(0.1)
    log.close(10)
    told = [int(fields(line)['count']) for line in lines(path) if 'tag=DROPPED' in line]
    assert len(told) == 3  # after one minute, after two, at the end
    assert sum(told) == log.health().dropped['rate']


def test_what_does_not_fit_into_the_queue_is_counted_and_told(
    start, path, clock, disk, monkeypatch
):
    monkeypatch.setattr(threat_log, 'MOST_WAITING', 5)
    disk.gate.clear()
    log = start()
    log.write([contact(0)])
    assert disk.is_reached.wait(10)
    for number in range(1, 11):
        log.write([contact(number)])
    assert log.health().dropped == {**NOTHING, 'queue': 6}  # 5 fit, the one in hand is one of them
    disk.gate.set()
    log.close(10)
    assert sum('tag=SPAMHAUS' in line for line in lines(path)) == 5
    assert fields(lines(path)[-1])['count'] == '6'


def test_what_the_caller_skips_is_counted_and_told_without_any_sighting(start, path):
    log = start()
    log.skip(7)
    assert log.health().dropped == {**NOTHING, 'queue': 7}
    log.close(10)
    [line] = lines(path)
    assert line.endswith(' tag=DROPPED domain= uuid= project= user= reason=queue count=7')


def test_nobody_waits_for_a_disk_that_hangs_and_health_says_so(start, clock, disk):
    disk.gate.clear()
    log = start()
    log.write([contact()])
    assert disk.is_reached.wait(10)
    assert log.health().is_writable
    clock.advance(6)
    assert not log.health().is_writable
    log.reopen()
    log.close(0.01)


def test_a_full_disk_costs_lines_that_are_counted_told_and_said_once(
    start, path, clock, disk, caplog
):
    disk.failure = OSError(28, 'No space left on device')
    log = start()
    for _ in range(3):
        log.write([contact(1), contact(2)])
        clock.advance(10)
    log.reopen()
    disk.failure = None
    log.write([contact(1), contact(2)])
    log.close(10)
    health = log.health()
    # Every sighting tried anew; how many tries the failing disk saw depends on the thread.
    lost = health.dropped['error']
    written = [fields(line) for line in lines(path)]
    assert lost <= 6
    assert health.lines == len(written)
    assert sum(int(each['count']) for each in written if each['tag'] == 'DROPPED') == lost
    assert {each['dst'] for each in written if each['tag'] != 'DROPPED'} == {'5.6.7.1', '5.6.7.2'}
    assert len(caplog.messages) <= 2


def test_a_path_that_cannot_be_written_is_told_before_the_first_line(start, path, caplog):
    path.mkdir(parents=True)
    log = start()
    log.write([])
    log.close(10)
    [message] = caplog.messages
    assert 'threat log: not written:' in message
    assert str(path) in message
    assert 'not a regular file' in message or 'Is a directory' in message


def test_health_is_good_again_when_the_path_is_repaired_without_a_new_line(path, tmp_path, caplog):
    # By the real clocks: nobody but the thread itself looks again.
    path.mkdir(parents=True)
    log = threat_log.ThreatLog(options(path=str(path)))
    try:
        wait_until(lambda: not log.health().is_writable)
        path.rmdir()
        wait_until(lambda: log.health().is_writable)
        assert path.is_file()
    finally:
        log.close(10)
    assert caplog.messages[-1] == 'threat log: not written: over'


def wait_until(condition):
    pause = threading.Event()
    for _ in range(1000):
        if condition():
            return
        pause.wait(0.01)
    pytest.fail('waited in vain')


def test_sums_are_written_when_nobody_says_anything_any_more(path):
    log = threat_log.ThreatLog(options(path=str(path), window=0.2))
    try:
        log.write([contact()])
        log.write([contact()])
        wait_until(lambda: log.health().lines == 2)
    finally:
        log.close(10)
    assert fields(lines(path)[1])['count'] == '1'


def test_reopen_takes_the_new_file_without_waiting_for_a_line(start, path):
    log = start()
    log.write([contact()])
    wait_until(lambda: log.health().lines == 1)
    rotated = path.rename(path.with_suffix('.1'))
    log.reopen()
    wait_until(path.exists)
    log.write([contact(1)])
    log.close(10)
    assert len(lines(rotated)) == len(lines(path)) == 1


def test_the_journal_gets_each_line_that_was_written(start, path, caplog):
    log = start(journal=True)
    log.write([contact(tag='TOR'), contact(tag='a\nb')])
    log.write([contact(tag='TOR')])
    log.close(10)
    common = f'domain=instance-1 uuid={UUID} src=10.0.0.5 dst=5.6.7.0 direction=out'
    assert [(each.name, each.levelno, each.getMessage()) for each in caplog.records] == [
        ('oie.threats', logging.WARNING, f'[THREAT] TOREXIT-HIT: {common}'),
        ('oie.threats', logging.WARNING, f'[THREAT] a\\x0ab-HIT: {common}'),
        ('oie.threats', logging.WARNING, f'[THREAT] TOREXIT-HIT: {common} count=1'),
    ]
    assert len(lines(path)) == 3


def test_without_a_path_the_journal_alone_gets_lines(start, tmp_path, caplog):
    log = start(journal=True, path='')
    log.write([contact()])
    log.reopen()
    wait_until(lambda: log.health().lines == 1)
    assert log.health() == model.ThreatLogHealth(lines=1, dropped=NOTHING, is_writable=True)
    log.close(10)
    assert len(caplog.messages) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_journal_is_silent_unless_asked_for(start, caplog):
    log = start()
    log.write([contact()])
    log.close(10)
    assert caplog.messages == []


@pytest.mark.filterwarnings('ignore::pytest.PytestUnhandledThreadExceptionWarning')
def test_a_dead_writer_is_not_called_healthy_and_its_lines_are_counted(start, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setitem(threat_lines.FORMATS, 'reference', fail)
    log = start()
    assert log.health().is_writable
    log.write([contact()])
    wait_until(lambda: not log.health().is_writable)
    log.write([contact(), contact(1)])
    assert log.health().dropped == {**NOTHING, 'queue': 2}


def test_closing_twice_and_writing_after_it_do_nothing_bad(start, path):
    log = start()
    log.close(10)
    log.close(10)
    log.write([contact()])
    log.reopen()
    assert lines(path) == []
    assert log.health().dropped == {**NOTHING, 'queue': 1}


def test_closing_waits_no_longer_than_told_and_says_what_it_means(start, disk, caplog):
    disk.gate.clear()
    log = start()
    log.write([contact()])
    assert disk.is_reached.wait(10)
    log.close(0.01)
    assert caplog.messages == ['threat log: the disk is too slow; what waits for it is lost']


def test_many_threads_may_write_at_once(start, path):
    log = start(max_lines_per_second=1000)
    threads = [
        threading.Thread(target=lambda n=n: [log.write([contact(i, f'T{n}')]) for i in range(100)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close(10)
    assert len(set(lines(path))) == 400
    assert log.health().lines == 400


STEPS = strategies.lists(
    strategies.tuples(
        strategies.integers(0, 4),  # which contact
        strategies.integers(0, 25),  # seconds until the next sighting
        strategies.booleans(),  # whether a line could be written now
    ),
    max_size=60,
)


@hypothesis.given(STEPS, strategies.sampled_from([2, 100]))
def test_lines_and_refusals_together_count_every_sighting(steps, most):
    told, refused, seen = (collections.Counter() for _ in range(3))
    is_open = True

    def emit(record, count):
        if is_open:
            told[record] += count or 1
        elif not count:
            refused[record] += 1
        return is_open

    repeats, now = throttling.Repeats(10, emit, most), 0
    for step in steps:
        number, pause, is_open = step
        repeats.end_windows(now)
        repeats.take(contact(number), now)
        seen[contact(number)] += 1
        now += pause
    is_open = True
    repeats.end_all()
    if most == 100 or all(step[2] for step in steps):
        assert told + refused == seen
    else:  # a sum may have been lost when too many had to be remembered
        assert told + refused <= seen


@hypothesis.given(STEPS)
def test_no_contact_gets_two_lines_within_a_window(steps):
    written, now = [], 0
    repeats = throttling.Repeats(10, lambda record, _: not written.append((record, now)))
    for number, pause, _ in steps:
        repeats.end_windows(now)
        repeats.take(contact(number), now)
        now += pause
    times = collections.defaultdict(list)
    for record, at in written:
        times[record].append(at)
    for each in times.values():
        assert all(later - sooner >= 10 for sooner, later in zip(each, each[1:], strict=False))


def test_of_too_many_the_oldest_is_forgotten_with_its_sum_written():
    written = []
    repeats = throttling.Repeats(
        10.0, lambda record, count: not written.append((record.dst, count)), most=2
    )
    for number in (0, 1, 0, 2, 0):
        repeats.take(contact(number), 0.0)
    assert written == [
        ('5.6.7.0', 0),
        ('5.6.7.1', 0),
        ('5.6.7.2', 0),
        ('5.6.7.0', 1),
        ('5.6.7.0', 0),
    ]


def test_the_rate_earns_no_more_than_ten_seconds_and_nothing_by_a_clock_that_goes_back():
    rate = throttling.Rate(1)
    assert [rate.allows(0.0) for _ in range(11)] == [True] * 10 + [False]
    assert not rate.allows(-100.0)
    assert not rate.allows(0.5)
    assert rate.allows(1000.0)
    assert sum(rate.allows(1000.0) for _ in range(20)) == 9


def test_a_signal_handler_may_reopen_while_somebody_writes(start, path):
    log = start(max_lines_per_second=100000)
    before = signal.signal(signal.SIGUSR2, lambda *_: log.reopen())
    try:
        for number in range(200):
            log.write([contact(number)])
            os.kill(os.getpid(), signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)
    log.close(10)
    assert len(lines(path)) == 200
