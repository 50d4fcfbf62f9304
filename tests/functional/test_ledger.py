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

"""Totals for billing go on, whatever ends: the guest, its QEMU, libvirtd, the exporter."""

from collections.abc import Iterator
import contextlib
import itertools
import pathlib
import random
import sqlite3
import time

import pytest

from tests.functional import conftest
from tests.functional import exporter as exporters
from tests.functional import guests as lab_guests
from tests.functional import lab
from tests.functional import processes
from tests.functional import virsh

PREFIX = 'oie_instance_usage_'
READS = f'{PREFIX}disk_read_requests_total'
READ_BYTES = f'{PREFIX}disk_read_bytes_total'
CPU = f'{PREFIX}cpu_seconds_total'
VCPU_SECONDS = f'{PREFIX}vcpu_seconds_total'
MEMORY = f'{PREFIX}memory_mebibyte_seconds_total'
RAW = 'oie_disk_r_requests'
DURABLE = 'oie_ledger_durable'
KILLS = 20


@pytest.fixture(scope='module')
def exporter(libvirtd: lab.Libvirtd) -> Iterator[exporters.Exporter]:
    with exporters.Exporter(libvirtd.uri) as running:
        yield running
        assert 'Traceback' not in running.log


def of(scrape: exporters.Scrape, name: str, guest: lab_guests.Guest) -> float:
    """Return the value of a series of the guest with one value, 0 where there is none."""
    return scrape.value(name, instance_uuid=guest.uuid) or 0


def raw(daemon: lab.Libvirtd, guest: lab_guests.Guest, name: str = 'rd.reqs') -> int:
    """Return the sum of a counter over the disks of the QEMU that runs now."""
    stats = virsh.domstats(daemon, guest)
    return sum(
        int(value)
        for key, value in stats.items()
        if key.startswith('block.') and key.endswith(name)
    )


def use(exporter: exporters.Exporter, guest: lab_guests.Guest, reads: int = 40) -> None:
    """Wait for so many more reads, then have the guest stand still."""
    before = of(exporter.scrape(), READS, guest)
    exporter.wait_for(lambda now: of(now, READS, guest) > before + reads, 'reads', 30)
    guest.pause()


def test_totals_of_the_first_life_are_the_raw_counters(
    exporter: exporters.Exporter, guests: conftest.GuestFactory, libvirtd: lab.Libvirtd
) -> None:
    (guest,) = guests(program='disk')
    use(exporter, guest)

    scrape = exporter.next_scrape()

    assert of(scrape, READS, guest) == raw(libvirtd, guest)
    assert of(scrape, READ_BYTES, guest) == raw(libvirtd, guest, 'rd.bytes')
    assert scrape.value(DURABLE) == 1
    assert time.time() - (scrape.value('oie_ledger_last_write_timestamp_seconds') or 0) < 5
    assert {name for name in scrape.names(instance_uuid=guest.uuid) if name.startswith(PREFIX)}


def test_reboot_of_the_guest_changes_nothing(
    exporter: exporters.Exporter, guests: conftest.GuestFactory, libvirtd: lab.Libvirtd
) -> None:
    (guest,) = guests(program='disk')
    exporter.wait_for(lambda now: of(now, READS, guest) > 20, 'reads', 30)

    with exporter.watched() as watch:
        guest.reset()
        watch.wait_for_cycles(3)
    guest.pause()

    assert of(exporter.next_scrape(), READS, guest) == raw(libvirtd, guest)
    for name in (READS, CPU, VCPU_SECONDS):
        found = watch.values(name, instance_uuid=guest.uuid)
        assert found == sorted(found)


def test_new_qemu_goes_on_where_the_last_one_ended(
    exporter: exporters.Exporter, guests: conftest.GuestFactory, libvirtd: lab.Libvirtd
) -> None:
    (guest,) = guests(program='disk')
    use(exporter, guest)
    exporter.next_scrape()
    first = raw(libvirtd, guest)

    with exporter.watched() as watch:
        guest.destroy()
        guest.start()
        use(exporter, guest)

    scrape = exporter.next_scrape()
    assert of(scrape, READS, guest) == first + raw(libvirtd, guest)
    for name in (READS, CPU, VCPU_SECONDS):
        found = watch.values(name, instance_uuid=guest.uuid)
        assert found == sorted(found)
    fallen = watch.values(RAW, instance_uuid=guest.uuid)
    assert any(later < earlier for earlier, later in itertools.pairwise(fallen))


def test_killed_exporter_goes_on_and_its_absence_is_no_usage(
    guests: conftest.GuestFactory, libvirtd: lab.Libvirtd
) -> None:
    (guest,) = guests(program='disk')
    with exporters.Exporter(libvirtd.uri) as exporter:
        use(exporter, guest)
        before = exporter.next_scrape()
        first = raw(libvirtd, guest)
        exporter.kill()
        guest.destroy()
        guest.start()
        time.sleep(3)
        exporter.start()
        after = exporter.scrape()
        use(exporter, guest)
        last = exporter.next_scrape()

    assert of(before, READS, guest) == first
    assert of(last, READS, guest) == first + raw(libvirtd, guest)
    assert of(after, CPU, guest) > of(before, CPU, guest)
    # The first cycle after the gap, or the second one: nobody saw the seconds before.
    assert of(after, VCPU_SECONDS, guest) - of(before, VCPU_SECONDS, guest) < 2.5
    assert of(after, MEMORY, guest) - of(before, MEMORY, guest) < 2.5 * 64


def test_restarted_libvirtd_that_numbers_from_one_again_costs_nothing(
    new_libvirtd: conftest.LibvirtdFactory,
) -> None:
    daemon = new_libvirtd()
    (guest,) = daemon.start_guests(1, program='disk')
    settings = {'collector': {'dynamic_cache_expiration': '30s'}}
    with exporters.Exporter(daemon.uri, settings) as exporter:
        use(exporter, guest, 80)
        exporter.next_scrape()
        first, number = raw(daemon, guest), daemon.virsh('domid', guest.name)
        with exporter.watched() as watch:
            daemon.restart()
            exporter.next_scrape(3)
            assert raw(daemon, guest) == first
            guest.destroy()
            daemon.restart()
            guest.start()
            assert daemon.virsh('domid', guest.name) == number
            use(exporter, guest)
        last = exporter.next_scrape()

    assert of(last, READS, guest) == first + raw(daemon, guest)
    for name in (READS, CPU, VCPU_SECONDS):
        found = watch.values(name, instance_uuid=guest.uuid)
        assert found == sorted(found)


def test_json_for_ceilometer_has_the_same_totals(
    exporter: exporters.Exporter, guests: conftest.GuestFactory
) -> None:
    (guest,) = guests(program='disk')
    use(exporter, guest)

    scrape = exporter.next_scrape()
    (entry,) = (
        entry for entry in exporter.pollster('usage').entries if entry['instance_id'] == guest.uuid
    )

    assert entry['disk_read_requests'] == of(scrape, READS, guest)
    assert entry['project_id']
    assert entry['memory_mb_seconds'] >= of(scrape, MEMORY, guest)


def test_without_an_exporter_nobody_knows_totals(
    guests: conftest.GuestFactory, libvirtd: lab.Libvirtd
) -> None:
    guests()
    with contextlib.closing(exporters.Exporter(libvirtd.uri)) as never_started:
        never_started.write_config()
        answer = never_started.pollster('usage')

    assert 'totals are kept by a running oie-exporter' in answer.sentence


def test_second_exporter_on_one_file_is_refused_until_the_first_one_ends(
    guests: conftest.GuestFactory, libvirtd: lab.Libvirtd
) -> None:
    (guest,) = guests(program='disk')
    with exporters.Exporter(libvirtd.uri) as first:
        use(first, guest)
        total = of(first.next_scrape(), READS, guest)
        path = first.directory / 'ledger.sqlite'
        with exporters.Exporter(libvirtd.uri, {'ledger': {'path': path}}) as second:
            scrape = second.next_scrape()
            assert scrape.value(DURABLE) == 0
            assert scrape.of(READS) == []
            assert scrape.is_good(guest.uuid)
            sentence = second.pollster('usage').sentence
            assert f'is kept by the oie-exporter with process id {first.pid}' in sentence
            assert second.log.count('ledger: not opened: ') == 1
            first.stop()
            scrape = second.wait_for(lambda now: now.value(DURABLE) == 1, 'the file', 20)
            assert of(scrape, READS, guest) == total


@pytest.mark.timeout(300)
def test_kill_9_at_any_moment_leaves_a_good_file_and_totals_that_never_fall(
    guests: conftest.GuestFactory, libvirtd: lab.Libvirtd
) -> None:
    running = guests(2, program='disk')
    moments = random.Random(5)
    seen = {guest.uuid: [0.0] for guest in running}
    with exporters.Exporter(libvirtd.uri) as exporter:
        path = exporter.directory / 'ledger.sqlite'
        for _ in range(KILLS):
            time.sleep(moments.uniform(0, 0.9))
            scrape = exporter.scrape()
            for guest in running:
                # Nothing is shown before the first cycle is done.
                seen[guest.uuid] += [
                    one.value for one in scrape.of(READS, instance_uuid=guest.uuid)
                ]
            exporter.kill()
            assert check(path) == 'ok'
            exporter.start(is_ready=False)
        exporter.next_scrape()
        running[0].pause()
        last = exporter.next_scrape()
        assert of(last, READS, running[0]) == raw(libvirtd, running[0])
        assert 'damaged' not in exporter.log
        assert 'Traceback' not in exporter.log
    for values in seen.values():
        assert len(values) > KILLS // 5
        assert values == sorted(values)
        assert values[-1] > 0


def check(path: pathlib.Path) -> str:
    """Return what SQLite says of a copy of the file and its log."""
    copy = path.parent / 'copy'
    copy.mkdir(exist_ok=True)
    for each in (path, path.with_name(f'{path.name}-wal')):
        if each.exists():
            (copy / each.name).write_bytes(each.read_bytes())
    with contextlib.closing(sqlite3.connect(copy / path.name)) as connection:
        return str(connection.execute('PRAGMA integrity_check').fetchone()[0])


def test_directory_that_cannot_be_written_is_told(
    guests: conftest.GuestFactory, libvirtd: lab.Libvirtd
) -> None:
    (guest,) = guests(program='disk')
    settings = {'ledger': {'path': '/proc/no/such/ledger.sqlite'}}
    with exporters.Exporter(libvirtd.uri, settings) as exporter:
        scrape = exporter.wait_for(lambda now: of(now, READS, guest) > 20, 'reads', 30)
        assert scrape.value(DURABLE) == 0
        assert scrape.is_good(guest.uuid)
        processes.wait_for(lambda: 'cannot be used' in exporter.log, 5, 'the reason')
        # Begun with the exporter: what the guest had used before is not counted twice.
        assert of(scrape, READS, guest) < raw(libvirtd, guest)
