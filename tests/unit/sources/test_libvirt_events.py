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

"""What Events promises: hints of the daemon, queued in its thread, drained in ours."""

import pytest

from oie.sources import libvirt_events
from tests import fakes

LIBVIRT = fakes.Libvirt
STARTED, STOPPED, UNDEFINED = 2, 5, 1


@pytest.fixture
def host():
    return fakes.Host()


@pytest.fixture
def guest(host):
    return host.add('a')


@pytest.fixture
def connection(host):
    return host.libvirt.openReadOnly('test:///default')


@pytest.fixture
def events(host, connection):
    events = libvirt_events.Events()
    events.register(host.libvirt, connection)
    return events


@pytest.mark.parametrize(
    ('event', 'details'),
    [
        (LIBVIRT.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, ['net1']),
        (LIBVIRT.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, ['net1']),
        (LIBVIRT.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, [2, 'uri']),
        (LIBVIRT.VIR_DOMAIN_EVENT_ID_TUNABLE, [{'cputune.vcpu_quota': 1}]),
        (LIBVIRT.VIR_DOMAIN_EVENT_ID_DISK_CHANGE, ['old', 'new', 'vda', 0]),
        (LIBVIRT.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, ['vda', 2, 0]),
        (LIBVIRT.VIR_DOMAIN_EVENT_ID_LIFECYCLE, [STARTED, 0]),
    ],
)
def test_what_may_change_the_xml_is_a_change(events, connection, guest, event, details):
    connection.emit(event, guest, *details)
    assert events.changed() == {guest.uuid}
    assert events.changed() == set()


def test_other_events_are_not_asked_for(connection, events):
    wanted = sorted(event for event, _ in connection.callbacks.values())
    assert wanted == [0, 9, 15, 16, 17, 19, 20, 21, 23]


def test_life_cycle_events_are_told_in_words(events, connection, guest):
    for event, detail in ((STARTED, 0), (3, 2), (STOPPED, 3)):
        connection.emit(LIBVIRT.VIR_DOMAIN_EVENT_ID_LIFECYCLE, guest, event, detail)
    assert list(events.lifecycle()) == [
        (guest.uuid, 'started', 'booted'),
        (guest.uuid, 'suspended', 'ioerror'),
        (guest.uuid, 'stopped', 'migrated'),
    ]
    assert list(events.lifecycle()) == []


def test_events_of_a_newer_libvirt_are_told_by_number(events, connection, guest):
    for event, detail in ((99, 1), (STARTED, 77), (-1, -1)):
        connection.emit(LIBVIRT.VIR_DOMAIN_EVENT_ID_LIFECYCLE, guest, event, detail)
    names = [names for _, *names in events.lifecycle()]
    assert names == [['99', '1'], ['started', '77'], ['-1', '-1']]


def test_the_words_are_those_of_libvirt():
    libvirt = pytest.importorskip('libvirt')
    for number, (event, details) in enumerate(libvirt_events.LIFECYCLE):
        assert getattr(libvirt, f'VIR_DOMAIN_EVENT_{event.upper()}') == number
        for detail_number, detail in enumerate(details):
            # An older header lacks the newest of them.
            name = f'VIR_DOMAIN_EVENT_{event.upper()}_{detail.upper()}'
            assert getattr(libvirt, name, detail_number) == detail_number, name
        named = [n for n in dir(libvirt) if n.startswith(f'VIR_DOMAIN_EVENT_{event.upper()}_')]
        assert len(details) >= len(named)


def test_a_migration_is_hinted_by_its_rounds(events, connection, guest):
    connection.emit(LIBVIRT.VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION, guest, 2)
    assert events.migrating() == {guest.uuid}
    assert events.migrating() == set()


@pytest.mark.parametrize(
    ('statistics', 'job_type'), [({}, 3), ({'success': True}, 3), ({'success': False}, 4)]
)
def test_a_finished_job_gets_the_type_that_the_event_leaves_out(
    events, connection, guest, statistics, job_type
):
    """Seen with libvirt 9.0.0: all of virDomainGetJobStats but ``type``."""
    statistics = {'operation': 5, 'time_elapsed': 1036, **statistics}
    connection.emit(LIBVIRT.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, guest, statistics)
    assert events.finished_jobs() == {guest.uuid: {'type': job_type, **statistics}}
    assert events.finished_jobs() == {}


def test_of_several_jobs_the_last_counts(events, connection, guest):
    for elapsed in (1, 2):
        statistics = {'time_elapsed': elapsed}
        connection.emit(LIBVIRT.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, guest, statistics)
    assert events.finished_jobs()[guest.uuid]['time_elapsed'] == 2


def test_a_driver_without_events_is_all_right(host, connection):
    host.scripts['domainEventRegisterAny'] = fakes.Error(fakes.NO_SUPPORT)
    events = libvirt_events.Events()
    assert events.register(host.libvirt, connection) == []
    assert events.changed() == set()


def test_registration_can_be_undone_by_its_numbers(host, connection):
    for number in libvirt_events.Events().register(host.libvirt, connection):
        connection.domainEventDeregisterAny(number)
    assert connection.callbacks == {}


def test_nobody_draining_does_not_eat_the_memory(events, connection, guest):
    for _ in range(25_000):
        connection.emit(LIBVIRT.VIR_DOMAIN_EVENT_ID_LIFECYCLE, guest, STARTED, 0)
    assert len(list(events.lifecycle())) == 10_000


# --- counts -------------------------------------------------------------------


def test_events_are_counted_by_event_and_detail():
    counts = libvirt_events.LifecycleCounts()
    for detail in ('booted', 'booted', 'migrated'):
        counts.add('a', 'started', detail)
    assert counts.of('a') == {('started', 'booted'): 2, ('started', 'migrated'): 1}
    assert counts.of('b') == {}


def test_counts_given_away_do_not_change_any_more():
    counts = libvirt_events.LifecycleCounts()
    counts.add('a', 'started', 'booted')
    given = counts.of('a')
    counts.add('a', 'started', 'booted')
    assert given == {('started', 'booted'): 1}


def test_an_instance_that_is_shut_off_keeps_its_counts():
    counts = libvirt_events.LifecycleCounts()
    counts.add('a', 'stopped', 'shutdown')
    counts.forget_undefined(present=set())
    counts.add('a', 'started', 'booted')
    assert counts.of('a') == {('stopped', 'shutdown'): 1, ('started', 'booted'): 1}


def test_one_that_was_deleted_is_forgotten_when_it_runs_no_more():
    counts = libvirt_events.LifecycleCounts()
    counts.add('a', 'undefined', 'removed')
    counts.forget_undefined(present={'a'})
    assert counts.of('a') == {('undefined', 'removed'): 1}
    counts.forget_undefined(present=set())
    assert counts.of('a') == {}


def test_one_that_was_defined_again_is_not_forgotten():
    counts = libvirt_events.LifecycleCounts()
    counts.add('a', 'undefined', 'removed')
    counts.add('a', 'defined', 'added')
    counts.forget_undefined(present=set())
    assert counts.of('a') == {('undefined', 'removed'): 1, ('defined', 'added'): 1}


def test_counts_are_bounded_by_dropping_who_was_silent_longest():
    counts = libvirt_events.LifecycleCounts(limit=2)
    for uuid in ('a', 'b', 'a', 'c'):
        counts.add(uuid, 'started', 'booted')
    assert counts.of('a') == {('started', 'booted'): 2}
    assert counts.of('b') == {}
    assert counts.of('c') == {('started', 'booted'): 1}
