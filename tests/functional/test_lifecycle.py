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

"""Guests come, change and go: their series follow within a cycle or two, the others' go on."""

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import itertools
import json
import time
from typing import Any
from unittest import mock

import libvirt
import pytest

from oie import model
from oie.cmd import wiring
from tests.functional import conftest
from tests.functional import exporter as exporters
from tests.functional import guests as lab_guests
from tests.functional import lab
from tests.functional import processes
from tests.functional import test_rights

STATE = 'oie_instance_state_code'
REASON = 'oie_instance_state_reason_code'
READ_REQUESTS = 'oie_disk_r_requests'

PAUSED_BY_USER = 1
_CYCLES = 60
_MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Cost:
    rss_bytes: int
    threads: int
    descriptors: int


@dataclasses.dataclass(frozen=True)
class Run:
    """The exporter of all tests here, and what it cost when it was young."""

    exporter: exporters.Exporter
    started: float
    cost: Cost


@pytest.fixture(scope='module')
def witness(libvirtd: lab.Libvirtd) -> Iterator[lab_guests.Guest]:
    """Return a guest to which nothing happens."""
    (guest,) = libvirtd.start_guests(1)
    yield guest
    libvirtd.remove([guest])


@pytest.fixture(scope='module')
def run(libvirtd: lab.Libvirtd, witness: lab_guests.Guest) -> Iterator[Run]:
    with exporters.Exporter(libvirtd.uri) as exporter:
        started = time.monotonic()
        exporter.next_scrape(5)
        yield Run(exporter, started, _cost(exporter))
        assert 'Traceback' not in exporter.log


@pytest.fixture
def exporter(run: Run, witness: lab_guests.Guest) -> Iterator[exporters.Exporter]:
    """Return the exporter; at the end of the test the witness must have been well in all of it."""
    with exporters.Watch(run.exporter) as watch:
        yield run.exporter
    assert watch.failures == []
    assert [scrape.is_good(witness.uuid) for scrape in watch.cycles] == [True] * len(watch.cycles)
    assert watch.slowest < 1.0


def test_started_guest_appears(
    exporter: exporters.Exporter, guests: conftest.GuestFactory
) -> None:
    (guest,) = guests()

    scrape = exporter.next_scrape()

    assert scrape.is_good(guest.uuid)
    assert scrape.value(STATE, instance_uuid=guest.uuid) == model.DomainState.RUNNING


def test_stopped_guest_leaves_nothing(
    exporter: exporters.Exporter, guests: conftest.GuestFactory
) -> None:
    (guest,) = guests()
    before = exporter.next_scrape()

    guest.destroy()

    after = exporter.next_scrape()
    assert guest.uuid in before.text
    assert guest.uuid not in after.text
    assert guest.uuid not in exporter.pollster('instances').text
    assert (after.value('oie_cache_evictions_total') or 0) > (
        before.value('oie_cache_evictions_total') or 0
    )


def test_undefined_guest_stays_until_it_ends(
    exporter: exporters.Exporter, guests: conftest.GuestFactory
) -> None:
    (guest,) = guests()

    guest.undefine()
    undefined = exporter.next_scrape()
    guest.destroy()
    destroyed = exporter.next_scrape()

    assert undefined.is_good(guest.uuid)
    assert guest.uuid not in destroyed.text


def test_killed_guest_leaves_nothing(
    exporter: exporters.Exporter, guests: conftest.GuestFactory
) -> None:
    (guest,) = guests()
    before = exporter.next_scrape()

    guest.sigkill()

    exporter.wait_for(lambda now: guest.uuid not in now.text, 'its series to end', 5)
    assert before.is_good(guest.uuid)


def test_paused_guest_says_so_and_keeps_its_values(
    exporter: exporters.Exporter, guests: conftest.GuestFactory
) -> None:
    (guest,) = guests()
    guest.pause()

    paused = exporter.next_scrape()
    (entry,) = _entries(exporter, guest)
    guest.resume()
    resumed = exporter.next_scrape()

    assert paused.value(STATE, instance_uuid=guest.uuid) == model.DomainState.PAUSED
    assert paused.value(REASON, instance_uuid=guest.uuid) == PAUSED_BY_USER
    assert paused.is_good(guest.uuid)
    assert (entry['status'], entry['state']) == ('paused', 'paused')
    assert resumed.value(STATE, instance_uuid=guest.uuid) == model.DomainState.RUNNING


def test_plugged_devices_appear(
    exporter: exporters.Exporter, guests: conftest.GuestFactory, libvirtd: lab.Libvirtd
) -> None:
    (guest,) = guests()
    exporter.next_scrape()

    guest.attach_port(libvirtd.new_port())
    guest.attach_disk(libvirtd.new_disk('raw', 'vdb', libvirtd.instance_directory(guest.uuid)))

    scrape = exporter.next_scrape()
    port, disk = guest.instance.ports[1], guest.instance.disks[1]
    (info,) = scrape.of('oie_instance_interface_info', interface=port.target)
    assert info.labels['mac'] == port.mac
    assert scrape.value('oie_instance_interface_receive_bytes_total', interface=port.target)
    assert scrape.value('oie_disk_info', instance_uuid=guest.uuid, disk_uuid=disk.path) == 1
    capacity = scrape.value(
        'oie_instance_disk_capacity_bytes', instance_uuid=guest.uuid, disk_path='vdb'
    )
    assert capacity == 2**20


def test_restarted_guest_counts_anew(
    exporter: exporters.Exporter, guests: conftest.GuestFactory
) -> None:
    (guest,) = guests(program='disk')
    exporter.wait_for(lambda now: _of(now, READ_REQUESTS, guest) > 40, 'its disk to be used')

    with exporter.watched() as watch:
        watch.wait_for_cycles(1)
        guest.destroy()
        guest.start()
        watch.wait_for_cycles(2)

    requests = watch.values(READ_REQUESTS, instance_uuid=guest.uuid)
    percents = watch.values('oie_cpu_percent', instance_uuid=guest.uuid)
    assert watch.cycles[-1].is_good(guest.uuid)
    assert any(later < earlier for earlier, later in itertools.pairwise(requests))
    assert min(requests) >= 0
    assert percents
    assert all(0 <= percent <= 100 for percent in percents)


def test_what_an_unplugged_vcpu_used_is_known_after_a_restart_and_without_exporter(
    libvirtd: lab.Libvirtd, guests: conftest.GuestFactory
) -> None:
    """A guest without an operating system lets no vCPU go: the file is told that one went."""
    (guest,) = guests()
    guest.pause()  # its vCPUs stand still, QEMU goes on

    with exporters.Exporter(libvirtd.uri) as exporter:
        (before,) = _entries(exporter, guest)
        exporter.stop()
        path = exporter.suspects.with_name('vcpu_times.json')
        kept = json.loads(path.read_text(encoding='utf-8'))
        kept[guest.uuid]['vcpus']['1'] = {'time_ns': [7_000_000, 0]}
        path.write_text(json.dumps(kept), encoding='utf-8')
        (alone,) = _entries(exporter, guest, launcher=test_rights.STRANGER)
        exporter.start()
        (after,) = _entries(exporter, guest)

    assert kept[guest.uuid]['vcpus']['0']['time_ns'] == [0, before['cpu']]
    assert [alone['cpu'], after['cpu']] == [before['cpu'] + 7_000_000] * 2
    assert before['cpu_total'] <= alone['cpu_total'] <= after['cpu_total']


def test_renamed_guest_has_one_name_only(
    exporter: exporters.Exporter, guests: conftest.GuestFactory, libvirtd: lab.Libvirtd
) -> None:
    (guest,) = guests()
    exporter.next_scrape()
    old, new = guest.name, f'{guest.name}-renamed'
    guest.destroy()

    libvirtd.virsh('domrename', old, new)
    libvirtd.virsh('start', new)
    scrape = exporter.next_scrape()
    libvirtd.virsh('destroy', new)
    libvirtd.virsh('undefine', new)

    infos = scrape.of('oie_instance_info', instance_uuid=guest.uuid)
    assert [info.labels['domain'] for info in infos] == [new]
    assert f'"{old}"' not in scrape.text


def test_guests_in_quick_succession_disturb_nobody(
    exporter: exporters.Exporter, guests: conftest.GuestFactory
) -> None:
    for _ in range(5):
        (guest,) = guests(is_persistent=False)
        guest.destroy()

    scrape = exporter.next_scrape()

    assert scrape.value('oie_libvirt_up') == 1
    assert scrape.value('oie_host_collection_errors_total') == 0


@pytest.mark.parametrize('is_persistent', [True, False])
@pytest.mark.parametrize(
    ('owner', 'call'), [(libvirt.virDomain, 'info'), (libvirt.virConnect, 'domainListGetStats')]
)
def test_guest_that_ends_while_it_is_read_is_gone(
    owner: type,
    call: str,
    is_persistent: bool,  # noqa: FBT001
    libvirtd: lab.Libvirtd,
    run: Run,
    witness: lab_guests.Guest,
    guests: conftest.GuestFactory,
) -> None:
    (guest,) = guests(is_persistent=is_persistent)
    described = exporters.Exporter(libvirtd.uri)
    conf = wiring.load(['--config-file', str(described.write_config())], 'oie-exporter')
    source = wiring.instances_source(conf, remembers=False)
    ask = getattr(owner, call)

    def end_it_before(*arguments: object) -> object:
        if guest.is_running:
            guest.destroy()
        return ask(*arguments)

    with run.exporter.suspended():
        first = _by_uuid(source.read())
        with mock.patch.object(owner, call, autospec=True, side_effect=end_it_before):
            second = _by_uuid(source.read())
    source.close()
    described.close()

    assert first[guest.uuid].is_complete
    assert guest.uuid not in second
    assert second[witness.uuid].is_complete


def test_sixty_cycles_cost_no_memory_no_thread_and_no_descriptor(run: Run) -> None:
    # Most of them have passed in the tests before this one.
    age = time.monotonic() - run.started
    time.sleep(max(0.0, _CYCLES - age))

    cost = _cost(run.exporter)

    assert cost.rss_bytes - run.cost.rss_bytes < 4 * _MIB
    assert cost.threads <= run.cost.threads + 1
    assert cost.descriptors <= run.cost.descriptors + 2


def _cost(exporter: exporters.Exporter) -> Cost:
    return Cost(processes.rss_bytes(exporter.pid), exporter.threads(), exporter.descriptors())


def _of(scrape: exporters.Scrape, name: str, guest: lab_guests.Guest) -> float:
    return scrape.value(name, instance_uuid=guest.uuid) or 0.0


def _entries(
    exporter: exporters.Exporter, guest: lab_guests.Guest, launcher: Sequence[str] = ()
) -> list[dict[str, Any]]:
    entries = exporter.pollster('instances', launcher=launcher).entries
    return [entry for entry in entries if entry['resource_id'] == guest.uuid]


def _by_uuid(
    reading: model.Reading[tuple[model.Instance, ...]],
) -> dict[str, model.Instance]:
    assert reading.error == ''
    return {instance.definition.uuid: instance for instance in reading.value}
