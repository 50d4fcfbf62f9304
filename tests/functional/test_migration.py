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

"""Live migration between two hosts, each with its exporter."""

from collections.abc import Iterator
import re

import pytest

from oie import model
from tests.functional import conftest
from tests.functional import exporter as exporters
from tests.functional import guests as lab_guests
from tests.functional import lab
from tests.functional import migrations

JOB = 'oie_instance_job_info'


@pytest.fixture(scope='module')
def source(libvirtd: lab.Libvirtd) -> Iterator[exporters.Exporter]:
    with exporters.Exporter(libvirtd.uri) as running:
        yield running
        assert 'Traceback' not in running.log


@pytest.fixture
def destination(new_libvirtd: conftest.LibvirtdFactory) -> lab.Libvirtd:
    return new_libvirtd()


@pytest.fixture
def guest(source: exporters.Exporter, guests: conftest.GuestFactory) -> lab_guests.Guest:
    (new,) = guests(program='dirty')
    source.wait_for(lambda now: now.is_good(new.uuid), 'the guest')
    return new


def test_migrating_guest_counts_at_one_host_only(
    guest: lab_guests.Guest,
    source: exporters.Exporter,
    libvirtd: lab.Libvirtd,
    destination: lab.Libvirtd,
) -> None:
    with exporters.Exporter(destination.uri) as arrival:
        with migrations.Migration(guest, libvirtd, destination) as migration:
            elapsed_before = _elapsed_ms(libvirtd, guest)
            sending, receiving = source.next_scrape(), arrival.next_scrape()
            elapsed_after = _elapsed_ms(libvirtd, guest)
            polled = arrival.pollster('instances').entries
            migration.finish()
            moved_at = source.scrape().taken
        here = arrival.wait_for(lambda now: now.is_good(guest.uuid), 'its arrival')
        left = source.next_scrape()
        completed = destination.virsh('domjobinfo', '--completed', guest.uuid)

    # Half-way: it runs at the source, with a job; the destination does not count it.
    assert sending.value(exporters.FRESH, instance_uuid=guest.uuid) == 1
    (job,) = sending.of(JOB, instance_uuid=guest.uuid)
    assert (job.labels['operation'], job.labels['type']) == ('migration_out', 'unbounded')
    elapsed = _of(sending, 'oie_instance_job_elapsed_seconds', guest)
    assert elapsed_before / 1000 <= elapsed <= elapsed_after / 1000
    total = _of(sending, 'oie_instance_job_memory_total_bytes', guest)
    assert total >= guest.instance.memory_mib * 2**20
    assert 0 < _of(sending, 'oie_instance_job_memory_remaining_bytes', guest) <= total
    assert _of(sending, 'oie_instance_job_memory_processed_bytes', guest) > 0
    assert guest.uuid not in receiving.text
    assert receiving.value('oie_libvirt_domains', state='incoming') == 1
    assert receiving.value('oie_host_active_vms') == 0
    assert polled == []
    # Afterwards: the other way round, and the job is over.
    assert left.taken > moved_at
    assert guest.uuid not in left.text
    assert here.value('oie_instance_state_code', instance_uuid=guest.uuid) == (
        model.DomainState.RUNNING
    )
    assert here.value('oie_host_active_vms') == 1
    assert not here.of(JOB)
    assert _of(here, 'oie_instance_last_job_success', guest) == 1
    assert _of(here, 'oie_instance_last_job_elapsed_seconds', guest) * 1000 == pytest.approx(
        _milliseconds(completed, 'Time elapsed')
    )
    assert _of(here, 'oie_instance_last_job_downtime_seconds', guest) * 1000 == pytest.approx(
        _milliseconds(completed, 'Total downtime')
    )


def test_aborted_migration_leaves_the_guest_as_it_was(
    guest: lab_guests.Guest,
    source: exporters.Exporter,
    libvirtd: lab.Libvirtd,
    destination: lab.Libvirtd,
) -> None:
    with exporters.Exporter(destination.uri) as arrival:
        with migrations.Migration(guest, libvirtd, destination):
            sending = source.next_scrape()

        scrape = source.wait_for(
            lambda now: now.is_good(guest.uuid) and not now.of(JOB), 'the job to end'
        )
        there = arrival.next_scrape()

    assert sending.of(JOB, instance_uuid=guest.uuid)
    assert scrape.value('oie_instance_state_code', instance_uuid=guest.uuid) == (
        model.DomainState.RUNNING
    )
    assert guest.uuid not in there.text
    assert (there.value('oie_libvirt_domains', state='incoming') or 0) == 0


def _of(scrape: exporters.Scrape, name: str, guest: lab_guests.Guest) -> float:
    value = scrape.value(name, instance_uuid=guest.uuid)
    assert value is not None, name
    return value


def _elapsed_ms(libvirtd: lab.Libvirtd, guest: lab_guests.Guest) -> int:
    return _milliseconds(libvirtd.virsh('domjobinfo', guest.uuid), 'Time elapsed')


def _milliseconds(text: str, name: str) -> int:
    match = re.search(rf'{name}: +(\d+) +ms', text)
    assert match, text
    return int(match[1])
