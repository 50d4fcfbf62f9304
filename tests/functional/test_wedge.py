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

"""A guest whose QEMU answers no more costs its own second tier, and nobody else anything."""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import json
import os
import pathlib
import statistics
import threading

import pytest

from tests.functional import domains
from tests.functional import exporter as exporters
from tests.functional import guests as lab_guests
from tests.functional import lab
from tests.functional import processes

STUCK = 'oie_libvirt_stuck_calls'
SUSPECTS = 'oie_libvirt_suspect_domains'
UP = 'oie_libvirt_up'
LISTED_AT = 'oie_libvirt_last_listing_timestamp_seconds'
ACTIVE = 'oie_host_active_vms'
TIER_ONE = (
    'oie_disk_info',
    'oie_instance_cpu_seconds_total',
    'oie_instance_info',
    'oie_instance_interface_receive_bytes_total',
    'oie_instance_libvirt_control_busy_seconds',
    'oie_instance_state_code',
    'oie_instance_vcpus',
)
TIER_TWO = (
    'oie_disk_r_requests',
    'oie_instance_cpu_steal_seconds_total',
    'oie_instance_disk_capacity_bytes',
    'oie_instance_memory_rss_bytes',
    'oie_instance_vcpu_seconds_total',
)

#: Of the 20 that libvirtd has for all its clients.
MOST_WORKERS = 4
DEADLINE = 8.0


@pytest.fixture(scope='module')
def daemon(libvirtd: lab.Libvirtd) -> Iterator[lab.Libvirtd]:
    """Return a libvirtd of our own: all its busy workers are busy for us."""
    own = lab.Libvirtd()
    own.take_capabilities_of(libvirtd)
    with own:
        own.start_guests(6)
        yield own


@pytest.fixture
def exporter(daemon: lab.Libvirtd) -> Iterator[exporters.Exporter]:
    """Return an exporter that knows nothing bad of anybody."""
    # A cycle that leaves three guests behind lasts 3 s.
    settings = {'collector': {'dynamic_cache_expiration': '5s'}}
    with exporters.Exporter(daemon.uri, settings) as running:
        running.wait_for(
            lambda now: all(now.is_good(guest.uuid) for guest in daemon.guests),
            'all guests to be complete',
        )
        yield running
        assert 'Traceback' not in running.log


def test_wedged_guests_cost_their_own_second_tier_only(
    daemon: lab.Libvirtd, exporter: exporters.Exporter
) -> None:
    first, second, *others = daemon.guests

    with exporter.watched() as watch, _busy_workers(daemon) as busy:
        with _stopped(first):
            watch.wait_for_cycles(3)
            one = watch.cycles[-1]
            with _stopped(second):
                watch.wait_for_cycles(4)
                two = watch.cycles[-1]
        exporter.wait_for(
            lambda now: now.is_good(first.uuid) and now.is_good(second.uuid),
            'both to be complete again',
            5,
        )

    recovered = watch.cycles[-1]
    _assert_good(watch.cycles, others)
    for victim in (first, second):
        assert all(_has(scrape, victim, TIER_ONE) for scrape in watch.cycles)
        assert watch.values(exporters.FRESH, instance_uuid=victim.uuid) == [1] * len(watch.cycles)
        assert two.value('oie_cpu_percent', instance_uuid=victim.uuid) == 0
        assert not two.is_good(victim.uuid)
        assert _has(recovered, victim, TIER_TWO)
    # By now its last good values are older than their expiration.
    assert not any(two.of(name, instance_uuid=first.uuid) for name in TIER_TWO)
    assert one.is_good(second.uuid)
    assert [(s.value(STUCK), s.value(SUSPECTS)) for s in (one, two)] == [(1, 1), (2, 2)]
    assert (recovered.value(STUCK), recovered.value(SUSPECTS)) == (0, 0)
    assert max(busy) <= MOST_WORKERS
    assert watch.slowest < 1.0


def test_restarted_exporter_leaves_a_wedged_guest_alone(
    daemon: lab.Libvirtd, exporter: exporters.Exporter
) -> None:
    _, victim, *others = daemon.guests

    with _stopped(victim):
        exporter.wait_for(lambda now: now.value(SUSPECTS) == 1, 'the suspect')
        seconds_to_end = exporter.stop()
        remembered = json.loads(exporter.suspects.read_text(encoding='utf-8'))
        with _busy_workers(daemon) as busy:
            exporter.start()
            with exporter.watched() as watch:
                watch.wait_for_cycles(3)

    assert seconds_to_end < 5
    assert remembered == [victim.uuid]
    # The stuck call of the first exporter holds its worker still; no other one got stuck.
    assert statistics.median(busy) == 1
    assert max(busy) <= MOST_WORKERS
    _assert_good(watch.cycles, others)
    assert all(_has(scrape, victim, TIER_ONE) for scrape in watch.cycles)
    assert set(watch.values(SUSPECTS)) == {1}
    assert set(watch.values(STUCK)) == {0}
    processes.wait_for(lambda: _busy(daemon) == 0, what='the worker to come back')


def test_three_wedged_guests_leave_the_first_tier_of_all(
    daemon: lab.Libvirtd, exporter: exporters.Exporter
) -> None:
    victims, others = daemon.guests[2:5], [daemon.guests[0], daemon.guests[5]]

    with exporter.watched() as watch, _busy_workers(daemon) as busy:
        with contextlib.ExitStack() as stopped:
            for victim in victims:
                stopped.enter_context(_stopped(victim))
            # After 10 s a monitor counts as occupied for good.
            distressed = exporter.wait_for(
                lambda _now: 'too many monitors do not answer' in exporter.log, 'distress', 25
            )
            watch.wait_for_cycles(2)
            polled = exporter.pollster('instances')
        exporter.wait_for(
            lambda now: all(now.is_good(guest.uuid) for guest in daemon.guests),
            'all guests to be complete again',
            10,
        )

    everybody = {guest.uuid for guest in daemon.guests}
    for scrape in watch.cycles:
        assert scrape.instances() == everybody
        assert scrape.value('oie_libvirt_up') == 1
        assert all(_has(scrape, guest, TIER_ONE) for guest in daemon.guests)
    assert all(distressed.value(exporters.FRESH, instance_uuid=g.uuid) == 1 for g in others)
    assert max(watch.values(STUCK)) <= MOST_WORKERS
    assert max(busy) <= MOST_WORKERS
    assert watch.slowest < 1.0
    assert {entry['resource_id'] for entry in polled.entries} == everybody
    assert polled.seconds < DEADLINE / 2
    assert watch.cycles[-1].value(STUCK) == 0


def test_pollster_without_daemon_bounds_a_wedged_guest(daemon: lab.Libvirtd) -> None:
    *others, victim = daemon.guests
    described = exporters.Exporter(daemon.uri)
    described.write_config()

    with _stopped(victim), _busy_workers(daemon) as busy:
        answers = [described.pollster('instances') for _ in range(3)]
        disks = described.pollster('disks')
    described.close()

    for answer in (*answers, disks):
        assert answer.seconds < DEADLINE
    for answer in answers:
        entries = {entry['resource_id']: entry for entry in answer.entries}
        assert entries.keys() == {guest.uuid for guest in daemon.guests}
        assert all(entries[guest.uuid]['memory_resident'] for guest in others)
        assert entries[victim.uuid]['memory_resident'] is None
        assert entries[victim.uuid]['cpu_total'] > 0
    (entry,) = (e for e in disks.entries if e['instance_id'] == victim.uuid)
    assert entry['read_bytes'] is None
    # One guest holds one worker, however often we ask.
    assert max(busy) <= MOST_WORKERS
    assert busy[-1] == 1


def test_pollster_without_daemon_bounds_three_wedged_guests(daemon: lab.Libvirtd) -> None:
    victims, healthy = daemon.guests[:3], daemon.guests[3]
    described = exporters.Exporter(daemon.uri)
    described.write_config()

    with contextlib.ExitStack() as stopped:
        for victim in victims:
            stopped.enter_context(_stopped(victim))
        with _busy_workers(daemon) as busy:
            answers = [described.pollster('instances') for _ in range(3)]
    described.close()

    for answer in answers:
        entries = {entry['resource_id']: entry for entry in answer.entries}
        assert answer.seconds < DEADLINE
        assert entries.keys() == {guest.uuid for guest in daemon.guests}
        assert entries[healthy.uuid]['cpu_total'] > 0
    assert max(busy) <= MOST_WORKERS


def test_disk_whose_storage_hangs_costs_its_own_guest_only(
    daemon: lab.Libvirtd, exporter: exporters.Exporter, tmp_path: pathlib.Path
) -> None:
    victim, *others = daemon.guests

    with exporter.watched() as watch, _busy_workers(daemon) as busy:
        with _hanging_attachment(daemon, victim, tmp_path):
            exporter.wait_for(
                lambda now: now.value(exporters.FRESH, instance_uuid=victim.uuid) == 0, 'the hang'
            )
            watch.wait_for_cycles(2)
            first = len(watch.cycles)
            with _started_meanwhile(daemon) as new:
                exporter.wait_for(lambda now: now.is_good(new.uuid), 'the new guest to be read')
            exporter.wait_for(lambda now: not _is_shown(now, new), 'the new guest to be gone')
            # By now the last good values of the victim are older than their expiration.
            exporter.wait_for(lambda now: not _is_shown(now, victim), 'its series to end')
            hung = watch.cycles[first:]
            ready, _ = exporter.get('/readyz')
            polled = exporter.pollster('instances')
        exporter.wait_for(
            lambda now: now.value(UP) == 1 and now.is_good(victim.uuid), 'the end of it', 30
        )

    _assert_good(watch.cycles, others)
    assert ready == 200
    assert {entry['resource_id'] for entry in polled.entries} == {one.uuid for one in others}
    # The listing, and one question to the victim.
    assert {(scrape.value(STUCK), scrape.value(SUSPECTS)) for scrape in hung} == {(2, 1)}
    assert {scrape.value(UP) for scrape in hung} == {0}
    assert len({scrape.value(LISTED_AT) for scrape in hung}) == 1
    assert set(watch.values(ACTIVE)) == {len(daemon.guests), len(daemon.guests) + 1}
    assert watch.cycles[-1].value(STUCK) == 0
    assert exporter.log.count(f'{victim.uuid}: not read: ') == len(('its begin', 'its end'))
    # One of them is not ours: who attaches the disk.
    assert max(busy) <= 1 + MOST_WORKERS
    assert watch.slowest < 1.0


@contextlib.contextmanager
def _hanging_attachment(
    daemon: lab.Libvirtd, guest: lab_guests.Guest, directory: pathlib.Path
) -> Iterator[None]:
    """Attach a disk whose image gives no byte: libvirtd holds the guest until it does."""
    image = directory / f'{daemon.prefix}-hanging.qcow2'
    os.mkfifo(image)
    disk = domains.Disk(target='vdb', path=str(image), format='qcow2')
    xml = directory / 'disk.xml'
    xml.write_text(domains.to_text(domains.disk_element(disk)), encoding='utf-8')
    argv = ('virsh', '--connect', daemon.rw_uri, 'attach-device', guest.name, str(xml), '--live')
    attaching = processes.Program(argv, directory / 'attach.log')
    attaching.start()
    try:
        yield
    finally:
        # Who waits for it reads its end, and who opens it again finds nothing.
        writer = os.open(image, os.O_RDWR | os.O_NONBLOCK)
        image.unlink()
        os.close(writer)
        processes.wait_for(lambda: not attaching.is_running, what='the attachment to fail')
        attaching.kill()


@contextlib.contextmanager
def _started_meanwhile(daemon: lab.Libvirtd) -> Iterator[lab_guests.Guest]:
    """Run one guest more; its usual ways of starting and ending ask for a list."""
    guest = daemon.guest()
    try:
        guest.define()
        daemon.virsh('start', guest.name)
        yield guest
        daemon.virsh('destroy', guest.name)
        daemon.virsh('undefine', guest.name)
    finally:
        daemon.guests.remove(guest)


@contextlib.contextmanager
def _stopped(guest: lab_guests.Guest) -> Iterator[None]:
    guest.sigstop()
    try:
        yield
    finally:
        guest.sigcont()


@contextlib.contextmanager
def _busy_workers(daemon: lab.Libvirtd) -> Iterator[list[int]]:
    """Count libvirtd's busy workers four times a second as long as the block lasts."""
    counts: list[int] = []
    ending = threading.Event()

    def count() -> None:
        while not ending.wait(0.25):
            counts.append(_busy(daemon))

    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    try:
        yield counts
    finally:
        counts.append(_busy(daemon))
        ending.set()
        thread.join()


def _busy(daemon: lab.Libvirtd) -> int:
    pool = daemon.threadpool()
    return pool['nWorkers'] - pool['freeWorkers']


def _is_shown(scrape: exporters.Scrape, guest: lab_guests.Guest) -> bool:
    return guest.uuid in scrape.instances()


def _has(scrape: exporters.Scrape, guest: lab_guests.Guest, names: Sequence[str]) -> bool:
    return all(scrape.of(name, instance_uuid=guest.uuid) for name in names)


def _assert_good(cycles: Sequence[exporters.Scrape], guests: Sequence[lab_guests.Guest]) -> None:
    for guest in guests:
        assert [scrape.is_good(guest.uuid) for scrape in cycles] == [True] * len(cycles)
