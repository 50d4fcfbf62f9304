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

"""What MonitorReader promises: one wedged guest costs only itself, in the same cycle."""

import logging
import threading
import time

import pytest

from oie import exceptions
from oie import failures
from oie.sources import breaker as breakers
from oie.sources import calls
from oie.sources import libvirt_connection
from oie.sources import libvirt_held
from oie.sources import libvirt_monitor
from tests import fakes

# Busy machines are slow: a healthy guest must answer within this time.
TIMEOUT = 0.2
LONG = 5.0
GROUPS = fakes.BALLOON | fakes.VCPU | fakes.BLOCK


class Bench:
    """A reader before a daemon with some guests."""

    def __init__(self, guests, *, chunk_size=16, width=2, timeout=TIMEOUT):
        self.host = fakes.Host()
        self.guests = [self.host.add(f'guest-{n}') for n in range(guests)]
        self.calls = calls.Calls(4)
        self.breaker = breakers.Breaker()
        self.main = self._connection('main')
        self.rescue = self._connection('rescue')
        self.held = libvirt_held.HeldDomains(
            self.calls, self.breaker, timeout=LONG, patience=timeout
        )
        self.asked = []
        self.reader = libvirt_monitor.MonitorReader(
            self.calls,
            self.breaker,
            read_records=self._read_records,
            read_controls=self.read_controls,
            held=self.held,
            lasting=failures.LastingFailures(logging.getLogger('oie.test')),
            timeout=timeout,
            chunk_size=chunk_size,
            width=width,
        )

    def _connection(self, name):
        def opener(_on_close):
            return self.host.libvirt.openReadOnly(''), lambda: None

        return libvirt_connection.Connection(name, opener, self.calls)

    def _read_records(self, connection, handles):
        name = 'main' if connection is self.main._handle else 'rescue'
        self.asked.append((name, [handle.UUIDString() for handle in handles]))
        records = connection.domainListGetStats(handles, GROUPS, fakes.NOWAIT)
        return {handle.UUIDString(): record for handle, record in records}

    def read_controls(self, progress, connection, handles):
        for uuid in handles:
            progress.ask(uuid)
            handle = connection.lookupByUUIDString(uuid)
            yield uuid, handle, handle.controlInfo()

    def read(self, *, alone=()):
        handles = {h.UUIDString(): h for h in self.main.get(LONG).listAllDomains(1)}
        suspects = {guest.uuid: handles.pop(guest.uuid) for guest in alone}
        return self.reader.read(handles, suspects, self.main, self.rescue)

    def uuids(self, *numbers):
        return {self.guests[n].uuid for n in numbers}

    def fill(self, number):
        """Let calls of somebody else hang."""
        gate = self.host.gate()
        for _ in range(number):
            call = self.calls.start('hangs', lambda call: gate())
            with pytest.raises(exceptions.SourceTimeout):
                call.wait(0)


@pytest.fixture
def bench():
    made = []

    def make(guests=3, **options):
        made.append(Bench(guests, **options))
        return made[-1]

    yield make
    for one in made:
        one.host.release_all()


@pytest.fixture(autouse=True)
def _log(caplog):
    caplog.set_level(logging.WARNING)


def test_all_are_read_when_all_is_well(bench):
    one = bench(3)
    records = one.read()
    assert records.keys() == one.uuids(0, 1, 2)
    assert all(record['balloon.rss'] == 43028 for record in records.values())
    assert not one.reader.errors


def test_no_domains_no_call(bench):
    one = bench(0)
    assert one.read() == {}
    assert one.asked == []


def test_domains_are_asked_in_chunks(bench):
    one = bench(10, chunk_size=4)
    assert len(one.read()) == 10
    assert sorted(len(uuids) for _, uuids in one.asked) == [2, 4, 4]
    assert {name for name, _ in one.asked} == {'main'}


def test_suspects_are_asked_each_alone(bench):
    one = bench(5)
    suspects = one.guests[:2]
    assert len(one.read(alone=suspects)) == 5
    assert sorted(len(uuids) for _, uuids in one.asked) == [1, 1, 3]


@pytest.mark.parametrize('width', [1, 2, 3])
def test_at_most_width_calls_run_at_a_time(bench, width):
    one = bench(12, chunk_size=1, width=width)
    one.host.scripts['statistics'] = lambda: threading.Event().wait(0.005)
    assert len(one.read()) == 12
    assert one.host.most_in_flight == width


def test_a_domain_that_left_is_left_out_without_an_error(bench):
    one = bench(3)
    gone = one.guests[1]
    handles = {h.UUIDString(): h for h in one.main.get(LONG).listAllDomains(1)}
    one.host.remove(gone)
    records = one.reader.read(handles, {}, one.main, one.rescue)
    assert records.keys() == one.uuids(0, 2)
    assert not one.reader.errors


# --- a guest that does not answer -------------------------------------------


@pytest.mark.parametrize('wedged', [0, 1, 4])
def test_a_wedged_guest_costs_only_itself_in_the_same_cycle(bench, wedged):
    one = bench(5)
    one.guests[wedged].wedge()
    records = one.read()
    assert records.keys() == one.uuids(0, 1, 2, 3, 4) - one.uuids(wedged)
    assert one.breaker.open == one.uuids(wedged)
    assert one.reader.errors == {'timeout': 1}
    assert one.calls.stuck == 1
    assert one.calls.statistics()['statistics'].timeouts == 1
    assert [name for name, _ in one.asked] == ['main', 'rescue']
    assert len(one.asked[1][1]) == 4


def test_two_wedged_guests_in_one_chunk_cost_only_themselves(bench):
    one = bench(5)
    for number in (1, 3):
        one.guests[number].wedge()
    assert one.read().keys() == one.uuids(0, 2, 4)
    assert one.breaker.open == one.uuids(1, 3)
    assert one.calls.stuck == 2
    assert one.guests[1].most_waiting == one.guests[3].most_waiting == 1


def test_wedged_guests_in_different_chunks_cost_only_themselves(bench):
    one = bench(8, chunk_size=4)
    for number in (0, 7):
        one.guests[number].wedge()
    assert one.read().keys() == one.uuids(1, 2, 3, 4, 5, 6)
    assert one.breaker.open == one.uuids(0, 7)


def test_a_suspect_that_does_not_answer_its_probe_trips_again(bench):
    one = bench(2)
    one.guests[0].wedge()
    assert one.read(alone=one.guests[:1]).keys() == one.uuids(1)
    assert one.breaker.open == one.uuids(0)


def test_a_suspect_that_answers_is_believed(bench):
    one = bench(2)
    one.breaker.trip(one.guests[0].uuid, calls.Call('statistics', lambda call: None))
    one.read(alone=one.guests[:1])
    assert one.breaker.open == frozenset()


def test_a_partial_record_is_no_answer_of_the_monitor(bench):
    one = bench(2)
    suspect = one.guests[0]
    suspect.record = fakes.partial(suspect.record)
    one.breaker.trip(suspect.uuid, calls.Call('statistics', lambda call: None))
    assert one.read(alone=[suspect]).keys() == one.uuids(0, 1)
    assert one.breaker.open == {suspect.uuid}


def test_a_wedged_guest_in_a_migration_is_found_though_it_shows_a_job(bench):
    """virDomainGetControlInfo says job, not occupied, as long as there is one."""
    one = bench(4)
    one.guests[2].wedge()
    one.guests[2].control = [1, 0, 60_000]
    assert one.read().keys() == one.uuids(0, 1, 3)
    assert one.breaker.open == one.uuids(2)


def test_a_job_is_not_suspected_while_another_one_is_occupied(bench):
    one = bench(4)
    one.guests[1].control = [1, 0, 60_000]
    one.guests[2].wedge()
    assert one.read().keys() == one.uuids(0, 1, 3)
    assert one.breaker.open == one.uuids(2)


def test_a_guest_occupied_for_a_moment_is_not_suspected(bench):
    one = bench(3)
    one.guests[0].control = [2, 0, int(TIMEOUT * 1000 / 2) - 1]
    one.guests[1].wedge()
    assert one.read().keys() == one.uuids(0, 2)
    assert one.breaker.open == one.uuids(1)


# --- slowness is no wedge ---------------------------------------------------


def test_a_slow_chunk_that_moves_gets_more_time_once(bench):
    one = bench(3, timeout=3 * TIMEOUT)
    looked = threading.Event()

    def read_controls(progress, connection, handles):
        looked.set()
        return one.read_controls(progress, connection, handles)

    def move_slowly():
        looked.wait(LONG)
        threading.Event().wait(TIMEOUT / 4)

    one.reader._read_controls = read_controls
    one.host.scripts['statistics'] = move_slowly
    assert len(one.read()) == 3
    assert one.breaker.open == frozenset()
    assert not one.reader.errors
    assert len(one.asked) == 1


def test_one_that_does_not_come_back_ends_after_two_deadlines(bench):
    one = bench(3)
    one.host.scripts['statistics'] = one.host.gate()
    begun = time.monotonic()
    assert one.read() == {}
    assert time.monotonic() - begun >= 2 * TIMEOUT
    assert one.calls.statistics()['rescue'].count == 2
    # Nobody can be named: any of them may be the one.
    assert one.breaker.open == one.uuids(0, 1, 2)
    assert one.reader.errors == {'timeout': 3}


def test_a_call_that_returns_while_it_is_looked_into_is_taken(bench):
    one = bench(3)
    gate = one.host.gate()
    one.host.scripts['statistics'] = gate

    def read_controls(progress, connection, handles):
        gate.release()
        while one.calls.free < 3:  # this call is the only one left
            threading.Event().wait(0.005)
        return one.read_controls(progress, connection, handles)

    one.reader._read_controls = read_controls
    assert len(one.read()) == 3
    assert one.breaker.open == frozenset()
    assert len(one.asked) == 1


def test_a_slow_chunk_with_a_migrating_guest_gets_more_time_too(bench):
    """What we ask it counts as part of its job, which is long; that is no sign of a wedge."""
    one = bench(3, timeout=3 * TIMEOUT)
    one.guests[1].control = [1, 0, 3_600_000]
    looked = threading.Event()

    def read_controls(progress, connection, handles):
        looked.set()
        return one.read_controls(progress, connection, handles)

    def move_slowly():
        looked.wait(LONG)
        threading.Event().wait(TIMEOUT / 4)

    one.reader._read_controls = read_controls
    one.host.scripts['statistics'] = move_slowly
    assert len(one.read()) == 3
    assert one.breaker.open == frozenset()


# --- errors -------------------------------------------------------------------


@pytest.mark.parametrize('culprit', [0, 3, 6])
def test_an_error_of_a_chunk_is_narrowed_down_to_its_domain(bench, culprit):
    """libvirt gives no record at all when one domain of the call fails."""
    one = bench(7)
    one.guests[culprit].scripts['statistics'] = fakes.Error(fakes.OPERATION_FAILED, 'no cgroup')
    assert one.read().keys() == one.uuids(*set(range(7)) - {culprit})
    assert one.reader.errors == {'error': 1}
    assert one.breaker.open == frozenset()
    assert len(one.asked) <= 7


def test_an_odd_exception_is_treated_like_an_error_of_libvirt(bench):
    one = bench(4)
    one.guests[1].scripts['statistics'] = UnicodeDecodeError('utf-8', b'\xff', 0, 1, 'odd')
    assert one.read().keys() == one.uuids(0, 2, 3)


def test_a_lasting_error_of_a_domain_is_logged_once_with_its_end(bench, caplog):
    one = bench(2)
    guest = one.guests[0]
    guest.scripts['statistics'] = fakes.Error(fakes.OPERATION_FAILED, 'no cgroup')
    for _ in range(3):
        one.read()
    guest.scripts.clear()
    for _ in range(2):
        one.read()
    assert [record.getMessage() for record in caplog.records] == [
        f'{guest.uuid}: statistics not read: no cgroup',
        f'{guest.uuid}: statistics not read: over',
    ]


def test_a_connection_that_breaks_is_not_searched_for_a_culprit(bench):
    one = bench(8)

    def restart():
        one.host.restart()
        one.main.lose('closed')

    one.host.scripts['statistics'] = restart
    assert one.read() == {}
    assert one.reader.errors == {'unreachable': 8}
    assert len(one.asked) == 1


def test_handles_are_never_used_on_another_connection(bench):
    one = bench(2)
    handles = {h.UUIDString(): h for h in one.main.get(LONG).listAllDomains(1)}
    one.main.lose('closed')
    assert one.reader.read(handles, {}, one.main, one.rescue) == {}
    assert one.reader.errors == {'unreachable': 2}
    assert not one.main.is_open


# --- the limits of what we may hold -----------------------------------------


def test_as_many_stuck_calls_as_we_allow_suspend_tier_two(bench):
    one = bench(5)
    one.main.get(LONG)
    one.fill(3)
    assert one.read() == {}
    assert one.reader.errors == {'suspended': 5}
    assert one.asked == []
    assert one.calls.free == 1


def test_wedged_guests_never_take_the_last_call(bench):
    one = bench(12, chunk_size=1, width=3)
    for guest in one.guests[:6]:
        guest.wedge()
    one.read()
    assert one.calls.stuck == 3
    assert one.calls.free == 1
    assert one.host.most_in_flight <= 4
    assert one.reader.errors['suspended'] >= 3
    assert one.read() == {}
    assert one.calls.stuck == 3
    assert all(guest.most_waiting <= 1 for guest in one.guests)


def test_the_rescue_can_be_unavailable(bench, caplog):
    one = bench(3)
    one.main.get(LONG)
    one.guests[0].wedge()
    one.host.scripts['open'] = fakes.Error(fakes.SYSTEM_ERROR, 'refused')
    assert one.read() == {}
    assert one.breaker.open == one.uuids(0, 1, 2)
    said = [record.getMessage() for record in caplog.records]
    assert sum('cannot tell which domain does not answer' in line for line in said) == 1


def test_a_rescue_that_hangs_is_bounded(bench):
    one = bench(3)
    one.guests[0].wedge()
    handles = {h.UUIDString(): h for h in one.main.get(LONG).listAllDomains(1)}
    one.host.scripts['lookup'] = one.host.scripts['getLibVersion'] = one.host.gate()
    begun = time.monotonic()
    assert one.reader.read(handles, {}, one.main, one.rescue) == {}
    assert time.monotonic() - begun < LONG
    assert one.breaker.open == one.uuids(0, 1, 2)
    assert one.rescue.stuck >= 1


def test_a_rescue_that_is_broken_is_opened_anew(bench):
    one = bench(3)
    one.rescue.get(LONG).is_alive = False
    one.guests[0].wedge()
    assert one.read().keys() == one.uuids(1, 2)
    assert one.rescue.opened == 2


def test_handles_of_a_rescue_that_was_lost_are_not_used_on_the_next_one(bench):
    """The rest of the first chunk waits while the second one is looked into."""
    one = bench(4, chunk_size=2, width=1)
    for number in (0, 2):
        one.guests[number].wedge()
    looks = []

    def read_controls(progress, connection, handles):
        looks.append(1)
        if len(looks) == 2:
            raise fakes.disconnected()
        return one.read_controls(progress, connection, handles)

    one.reader._read_controls = read_controls
    assert one.read().keys() == one.uuids(3)
    assert one.breaker.open == one.uuids(0, 2)
    assert one.reader.errors == {'timeout': 2, 'unreachable': 1}


def test_a_long_list_of_the_blamed_does_not_fill_the_log(bench, caplog):
    one = bench(100, chunk_size=1000)
    one.host.scripts['statistics'] = one.host.gate()
    one.read()
    [line] = [r.getMessage() for r in caplog.records if 'no answer' in r.getMessage()]
    assert 'and 99 more' in line
    assert len(line) < 300
