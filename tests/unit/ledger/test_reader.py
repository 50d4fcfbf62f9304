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

"""The reader of the ledger: what is shown survives a crash, and no disk holds up a cycle."""

import dataclasses
import logging
import threading
import time

import hypothesis
from hypothesis import strategies as st
import pytest

from oie import exceptions
from oie import model
from oie.ledger import reader
from oie.ledger import store
from oie.ledger import writer
from tests import builders

GAP = 30.0
DAY = 86400.0
BUSY = builders.instance()
UUID = BUSY.definition.uuid


class Clock:
    """Two clocks that go on together, by hand."""

    def __init__(self):
        self.now = 0.0

    def time(self):
        return builders.NOW + self.now

    def monotonic(self):
        return 5000 + self.now


class Disk:
    """A store in memory that can fail and hang; what is in it survives a crash."""

    def __init__(self):
        self.rows = {}
        self.error = None
        self.opening_error = None
        self.failures = 0
        self.is_closed = False
        self.runs = threading.Event()
        self.runs.set()

    def open(self):
        self.runs.wait(10)
        if self.opening_error is not None:
            raise self.opening_error
        return store.Found({u: (row.seen_at, row.account) for u, row in self.rows.items()})

    def write(self, rows, forgotten):
        self.runs.wait(10)
        if self.error is not None:
            self.failures += 1
            raise self.error
        self.rows.update((row.uuid, row) for row in rows)
        for uuid in forgotten:
            del self.rows[uuid]

    def close(self):
        self.is_closed = True


class Bench:
    """A ledger with its disk and clock, whose cycles a test runs one by one."""

    def __init__(self):
        self.clock, self.disk = Clock(), Disk()
        self.made = []
        self.start()

    def start(self, boot_id='boot-1', keep=400 * DAY, units=None, disk=None):
        self.disk = disk or self.disk
        rows = writer.Writer(self.disk, retry=0.01, clock=self.clock.time)
        self.ledger = reader.LedgerReader(
            rows, keep=keep, boot_id=boot_id, units=units, clock=self.clock
        )
        self.made.append(self.ledger)
        return self

    def cycle(self, *instances, seconds=10.0, known=None):
        self.clock.now += seconds
        uuids = {i.definition.uuid for i in instances} if known is None else known
        return self.ledger.read(instances, GAP, uuids)

    def settle(self):
        """Wait for the writer to be done with everything."""
        deadline = time.monotonic() + 5
        rows = self.ledger._writer
        while rows._tried < rows._number or not self._is_told(rows.status()):
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def _is_told(self, status):
        rows = self.ledger._writer
        return status.number == rows._number or (
            status.errors == self.disk.failures and bool(status.error)
        )


@pytest.fixture
def bench():
    made = Bench()
    yield made
    made.disk.runs.set()
    for each in made.made:
        each.close()


def at(seconds, cpu_seconds, **more):
    return builders.later(BUSY, seconds, cpu_seconds, **more)


def only(fields):
    [usage] = fields['usage'].value
    return usage


# --- what is shown ----------------------------------------------------------


def test_the_totals_of_this_cycle_are_shown_once_they_are_written(bench):
    fields = bench.cycle(BUSY)
    assert only(fields).cpu_time_ns == BUSY.cpu_time_ns
    assert fields['usage'].error == ''
    assert fields['usage'].read_at == bench.clock.time()
    assert fields['ledger'] == model.LedgerHealth(
        is_durable=True, written_at=bench.clock.time(), write_errors=0, instances=1
    )
    assert bench.disk.rows[UUID].account
    assert only(bench.cycle(at(10, 5))).vcpu_seconds == 20


def test_the_row_says_whose_it_is(bench):
    bench.cycle(BUSY)
    row = bench.disk.rows[UUID]
    assert (row.project_uuid, row.user_uuid) == (builders.PROJECT, builders.USER)
    assert (row.name, row.flavor_name, row.vcpus, row.memory_mib) == (
        'web-1',
        'm1.medium',
        2,
        4096,
    )


def test_only_instances_of_this_cycle_are_shown(bench):
    other = builders.idle()
    bench.cycle(BUSY, other)
    fields = bench.cycle(other)
    assert [usage.definition for usage in fields['usage'].value] == [other.definition]
    assert fields['ledger'].instances == 2


def test_an_instance_that_is_not_fresh_keeps_its_totals(bench):
    before = only(bench.cycle(BUSY))
    stale = dataclasses.replace(at(10, 5), is_fresh=False)
    assert only(bench.cycle(stale)) == before


def test_an_instance_that_was_never_fresh_is_not_shown(bench):
    stale = dataclasses.replace(BUSY, is_fresh=False)
    assert bench.cycle(stale)['usage'].value == ()


def test_a_domain_id_is_a_life_of_its_own_and_so_is_a_start_of_the_host(bench):
    bench.cycle(BUSY)
    assert only(bench.cycle(at(10, 1, domain_id=8))).cpu_time_ns == (25 + 26) * 10**9
    bench.ledger.close()
    bench.start(boot_id='boot-2')
    assert only(bench.cycle(at(20, 2, domain_id=8))).cpu_time_ns == (25 + 26 + 27) * 10**9


def test_without_a_boot_id_less_is_counted_never_more(tmp_path, caplog):
    assert reader.read_boot_id(str(tmp_path / 'none')) == ''
    assert 'restarts of this host are seen late' in caplog.text
    assert len(reader.read_boot_id()) == 36


def test_totals_go_on_after_a_restart(bench):
    before = only(bench.cycle(BUSY))
    bench.ledger.close()
    bench.start()
    after = only(bench.cycle(at(10, 5)))
    assert after.since == before.since
    assert after.cpu_time_ns == 30 * 10**9
    # Nobody looked between the two readings.
    assert after.vcpu_seconds == before.vcpu_seconds == 0


def test_an_instance_that_comes_back_goes_on(bench):
    bench.cycle(BUSY)
    bench.cycle()
    assert only(bench.cycle(at(20, 0, domain_id=9))).cpu_time_ns == 2 * 25 * 10**9
    # The time in which it was away is not paid for.
    assert only(bench.cycle(at(30, 0, domain_id=9))).vcpu_seconds == 2 * 10


def test_licence_units_come_from_who_knows_them(bench):
    units = {UUID: 2.0}
    bench.start(units=units.get, disk=Disk())
    bench.cycle(BUSY)
    assert only(bench.cycle(at(10, 0))).license_unit_seconds == 20
    units[UUID] = None
    assert only(bench.cycle(at(20, 0))).license_unit_seconds == 20
    for nonsense in (float('nan'), float('inf'), -1.0):
        units[UUID] = nonsense
        assert only(bench.cycle(at(30, 0))).license_unit_seconds == 20


def test_a_row_that_cannot_be_read_is_told_and_counts_from_now_on(bench, caplog):
    bench.cycle(BUSY)
    bench.ledger.close()
    bench.disk.rows[UUID] = dataclasses.replace(bench.disk.rows[UUID], account='{"life": 1}')
    bench.start()
    with caplog.at_level(logging.ERROR):
        assert only(bench.cycle(at(10, 5))).cpu_time_ns == 0
    assert f'the totals of instance {UUID} cannot be read' in caplog.text
    assert only(bench.cycle(at(20, 8))).cpu_time_ns == 3 * 10**9


# --- when it is forgotten ---------------------------------------------------


def test_an_instance_that_left_is_forgotten_after_its_time(bench):
    bench.start(keep=10 * DAY, disk=Disk())
    bench.cycle(BUSY, builders.idle())
    bench.cycle(builders.idle(), seconds=10 * DAY - 10)
    bench.settle()
    assert set(bench.disk.rows) == {UUID, builders.idle().definition.uuid}
    fields = bench.cycle(builders.idle(), seconds=3600)
    bench.settle()
    assert set(bench.disk.rows) == {builders.idle().definition.uuid}
    assert fields['ledger'].instances == 1


def test_nobody_is_forgotten_right_after_a_start_whatever_the_clock_says(bench):
    bench.cycle(BUSY)
    bench.ledger.close()
    bench.clock.now += 9999 * DAY
    bench.start(keep=DAY)
    bench.cycle()
    bench.cycle(seconds=3000)
    assert UUID in bench.disk.rows


# --- when nothing can be written --------------------------------------------


def test_a_disk_that_hangs_holds_up_one_cycle_for_a_moment_and_no_other(bench):
    bench.cycle(BUSY)
    bench.disk.runs.clear()
    seconds = []
    for number in range(1, 4):
        began = time.monotonic()
        fields = bench.cycle(at(10 * number, number))
        seconds.append(time.monotonic() - began)
        # Not written, so not shown: a crash now would take it back.
        assert only(fields).cpu_time_ns == 25 * 10**9
    assert seconds[0] < reader.WRITE_SECONDS + 0.1
    assert max(seconds[1:]) < 0.05
    assert fields['usage'].read_at == bench.clock.time() - 30


def test_a_disk_that_hangs_for_long_is_told_and_totals_are_shown_from_memory(bench):
    bench.cycle(BUSY)
    bench.disk.runs.clear()
    bench.cycle(at(10, 1))
    fields = bench.cycle(at(50, 5), seconds=40)
    assert only(fields).cpu_time_ns == 30 * 10**9
    assert 'could not be written for 30 s' in fields['usage'].error
    assert not fields['ledger'].is_durable
    bench.disk.runs.set()
    bench.settle()
    fields = bench.cycle(at(60, 6))
    assert only(fields).cpu_time_ns == 31 * 10**9
    assert fields['usage'].error == ''
    assert fields['ledger'].is_durable


def test_a_full_disk_is_told_and_totals_are_shown_from_memory(bench, caplog):
    bench.cycle(BUSY)
    bench.disk.error = exceptions.LedgerError('the disk is full')
    for number in (1, 2):
        fields = bench.cycle(at(10 * number, number))
        bench.settle()
    assert only(fields).cpu_time_ns == 27 * 10**9
    assert fields['usage'].error == 'the disk is full'
    assert fields['ledger'].write_errors >= 1
    assert not fields['ledger'].is_durable
    assert caplog.text.count('the disk is full') == 1
    bench.disk.error = None
    bench.cycle(at(30, 3))
    bench.settle()
    assert bench.cycle(at(40, 4))['ledger'].is_durable
    assert 'over' in caplog.text


def test_what_could_not_be_written_is_written_later_also_of_who_left(bench):
    other = builders.idle()
    bench.disk.error = exceptions.LedgerError('the disk is full')
    bench.cycle(BUSY, other)
    bench.settle()
    bench.disk.error = None
    bench.cycle(other)
    bench.settle()
    assert set(bench.disk.rows) == {UUID, other.definition.uuid}


def test_a_disk_that_hangs_at_the_start_is_told_and_nothing_is_shown(bench, monkeypatch):
    monkeypatch.setattr(reader, 'OPEN_SECONDS', 1.0)
    disk = Disk()
    disk.runs.clear()
    bench.start(disk=disk)
    fields = bench.cycle(BUSY)
    assert fields['usage'].value is None
    assert 'not open yet' in fields['usage'].error
    began = time.monotonic()
    bench.cycle(at(10, 1))
    assert time.monotonic() - began < 0.8
    disk.runs.set()
    bench.ledger._writer.status(5.0)
    assert only(bench.cycle(at(20, 2))).cpu_time_ns == 27 * 10**9


def test_another_exporter_is_waited_for_and_nothing_is_shown_meanwhile(bench, caplog):
    held = exceptions.LedgerHeld('it is kept by process 7')
    disk = Disk()
    disk.opening_error = held
    bench.start(disk=disk)
    for number in range(3):
        fields = bench.cycle(at(10 * number, number))
        assert fields['usage'].value is None
        assert fields['usage'].error == 'it is kept by process 7'
        assert not fields['ledger'].is_durable
    assert caplog.text.count('kept by process 7') == 1
    disk.opening_error = None
    deadline = time.monotonic() + 5
    while bench.ledger._writer.status().found is None:
        assert time.monotonic() < deadline
    fields = bench.cycle(at(30, 3))
    # It was never lost: all of this life counts.
    assert only(fields).cpu_time_ns == 28 * 10**9
    assert fields['ledger'].is_durable


@pytest.mark.parametrize('has_file', [True, False])
def test_where_nothing_can_be_kept_totals_begin_with_the_start(bench, has_file):
    """Begun with what the guests have used so far, every restart would bill it again."""
    if has_file:
        disk = Disk()
        disk.opening_error = exceptions.LedgerError('/var/lib/oie: Permission denied')
        bench.start(disk=disk)
    else:
        bench.ledger = reader.LedgerReader(None, keep=DAY, boot_id='b', clock=bench.clock)
    fields = bench.cycle(BUSY)
    assert only(fields).cpu_time_ns == 0
    assert fields['usage'].error == ('/var/lib/oie: Permission denied' if has_file else '')
    assert fields['ledger'] == model.LedgerHealth(is_durable=False, instances=1)
    assert only(bench.cycle(at(10, 5))).cpu_time_ns == 5 * 10**9
    assert only(bench.cycle(at(20, -20, domain_id=9))).cpu_time_ns == (5 + 5) * 10**9
    bench.ledger.close()


def test_after_a_loss_only_what_is_new_counts(bench, monkeypatch):
    disk = Disk()
    monkeypatch.setattr(disk, 'open', lambda: store.Found({}, is_lost=True))
    bench.start(disk=disk)
    fields = bench.cycle(BUSY)
    assert only(fields).cpu_time_ns == 0
    assert fields['ledger'].is_durable
    assert only(bench.cycle(at(10, 5))).cpu_time_ns == 5 * 10**9


def test_the_last_cycle_is_written_at_the_end(bench):
    bench.cycle(BUSY)
    bench.disk.runs.clear()
    bench.cycle(at(10, 5))
    threading.Timer(0.1, bench.disk.runs.set).start()
    bench.ledger.close()
    assert bench.disk.is_closed
    bench.start()
    assert only(bench.cycle(dataclasses.replace(at(20, 9), cpu_time_ns=None))).cpu_time_ns == (
        30 * 10**9
    )


def test_an_end_before_the_first_cycle_is_none(bench):
    bench.start(disk=Disk()).ledger.close()


# --- whatever comes ---------------------------------------------------------

steps = st.lists(
    st.tuples(
        st.sampled_from(('cycle', 'cycle', 'cycle', 'reboot', 'crash', 'full', 'room')),
        st.integers(0, 100),
    ),
    max_size=25,
)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(steps)
def test_what_was_shown_as_durable_is_never_taken_back(steps):
    bench = Bench()
    true = raw = shown = 0
    seconds, domain_id = 0, 1
    for step, number in steps:
        if step == 'reboot':
            domain_id, raw = domain_id + 1, 0
        elif step == 'crash':
            # Whatever the old one still writes is lost.
            bench.start(disk=copy_of(bench.disk))
        elif step in ('full', 'room'):
            error = exceptions.LedgerError('the disk is full')
            bench.disk.error = error if step == 'full' else None
        else:
            seconds, raw, true = seconds + 10, raw + number, true + number
            instance = at(seconds, 0, domain_id=domain_id, cpu_time_ns=raw)
            fields = bench.cycle(instance)
            total = only(fields).cpu_time_ns if fields['usage'].value else shown
            assert total <= true
            if fields['ledger'].is_durable:
                assert total >= shown
                shown = total
    bench.disk.error = None
    for each in bench.made:
        each.close()


def copy_of(disk):
    made = Disk()
    made.rows, made.error = dict(disk.rows), disk.error
    return made
