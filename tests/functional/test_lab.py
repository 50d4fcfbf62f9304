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

"""The laboratory keeps its promises: what the other functional tests lean on."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import pathlib
import re
import threading
from typing import Any

import libvirt
import pytest

from tests.functional import conftest
from tests.functional import domains
from tests.functional import guests as lab_guests
from tests.functional import lab
from tests.functional import migrations
from tests.functional import processes
from tests.functional import servers

NOWAIT = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
_NAME = re.compile('<name>(.*)</name>')

NOVA_1_1 = domains.NAMESPACE + '1.1'

#: Calls that need no QEMU monitor. libvirt 9.0.0, QEMU 7.2.22, Debian 12, November 2026.
CALLS_THAT_NEED_NO_MONITOR: dict[str, Callable[[Any, Any], Any]] = {
    'list': lambda connection, _: connection.listAllDomains(),
    'state': lambda _, domain: domain.state(),
    'info': lambda _, domain: domain.info(),
    'xml': lambda _, domain: domain.XMLDesc(0),
    'metadata': lambda _, domain: domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NOVA_1_1),
    'control': lambda _, domain: domain.controlInfo(),
    'vcpus': lambda _, domain: domain.vcpus(),
    'completed job': lambda _, domain: domain.jobStats(
        libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED | libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED
    ),
    'bulk state and interface': lambda connection, _: connection.getAllDomainStats(
        libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_INTERFACE
    ),
    'bulk perf and memory': lambda connection, _: connection.getAllDomainStats(
        libvirt.VIR_DOMAIN_STATS_PERF | libvirt.VIR_DOMAIN_STATS_MEMORY
    ),
}


@pytest.fixture(autouse=True, scope='module')
def _silent_libvirt() -> None:
    libvirt.registerErrorHandler(lambda *_: None, None)


def test_guest_runs_with_the_metadata_of_nova(
    libvirtd: lab.Libvirtd, guests: conftest.GuestFactory
) -> None:
    (guest,) = guests(display_name='wéb <1> & "2"')

    domain = _open(libvirtd).lookupByUUIDString(guest.uuid)

    xml = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NOVA_1_1)
    port = guest.instance.ports[0]
    assert domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING
    # libvirt takes prefix and namespace off in metadata(), not in XMLDesc().
    assert '<name>wéb &lt;1&gt; &amp; "2"</name>' in xml
    assert f'<port uuid="{port.port_id}">' in xml
    assert f'<nova:port uuid="{port.port_id}">' in domain.XMLDesc(0)
    assert port.target == f'tap{port.port_id[:11]}'


def test_virsh_sees_every_guest(libvirtd: lab.Libvirtd, guests: conftest.GuestFactory) -> None:
    new = guests(3)

    names = libvirtd.virsh('list', '--name').split()

    assert {guest.name for guest in new} <= set(names)
    assert all(guest.name.startswith(libvirtd.prefix) for guest in new)


@pytest.mark.parametrize('disk', ['raw', 'qcow2', 'block'])
def test_guest_boots_from_its_disk(
    disk: str, libvirtd: lab.Libvirtd, guests: conftest.GuestFactory
) -> None:
    (guest,) = guests(disks=(disk, 'cdrom'))

    stats = processes.wait_for(
        lambda: _stats_after_boot(libvirtd, guest), what='the BIOS to read the disk'
    )

    assert stats['block.0.rd.bytes'] == 512
    assert stats['block.count'] == 2


def test_shape_of_a_guest_is_what_was_asked(
    libvirtd: lab.Libvirtd, guests: conftest.GuestFactory
) -> None:
    (guest,) = guests(vcpus=2, max_vcpus=4, ports=2, disks=(), has_balloon=False)

    stats = _stats(libvirtd, guest)

    assert (stats['vcpu.current'], stats['vcpu.maximum']) == (2, 4)
    assert (stats['net.count'], stats['block.count']) == (2, 0)
    assert 'balloon.last-update' not in stats


def test_counters_of_a_working_guest_move(
    libvirtd: lab.Libvirtd, guests: conftest.GuestFactory
) -> None:
    (guest,) = guests(program='disk', port_model='rtl8139')

    guest.send_frames(50)

    processes.wait_for(
        lambda: (
            _stats(libvirtd, guest)['net.0.rx.pkts'] >= 50
            and _stats(libvirtd, guest)['block.0.wr.reqs'] >= 5
        ),
        what='counters to move',
    )


def test_devices_can_be_plugged(libvirtd: lab.Libvirtd, guests: conftest.GuestFactory) -> None:
    (guest,) = guests()

    guest.attach_port(libvirtd.new_port())
    guest.attach_disk(libvirtd.new_disk('raw', 'vdb', libvirtd.instance_directory(guest.uuid)))

    stats = _stats(libvirtd, guest)
    assert stats['net.1.name'] == guest.instance.ports[1].target
    assert stats['block.1.path'] == guest.instance.disks[1].path


def test_pause_and_resume_show_in_the_state(
    libvirtd: lab.Libvirtd, guests: conftest.GuestFactory
) -> None:
    (guest,) = guests()

    guest.pause()
    paused = _stats(libvirtd, guest)['state.state']
    guest.resume()

    assert paused == libvirt.VIR_DOMAIN_PAUSED
    assert _stats(libvirtd, guest)['state.state'] == libvirt.VIR_DOMAIN_RUNNING


def test_killed_guest_is_seen_as_crashed(
    libvirtd: lab.Libvirtd, guests: conftest.GuestFactory
) -> None:
    (guest,) = guests()

    guest.sigkill()

    processes.wait_for(
        lambda: 'crashed' in libvirtd.virsh('domstate', guest.name, '--reason'),
        what='libvirt to notice',
    )
    assert not guest.is_running


def test_destroyed_transient_guest_is_unknown(
    libvirtd: lab.Libvirtd, guests: conftest.GuestFactory
) -> None:
    (guest,) = guests(is_persistent=False)

    guest.destroy()

    assert guest.uuid not in libvirtd.virsh('list', '--all', '--uuid').split()


@pytest.mark.parametrize('end', ['stop', 'kill'])
def test_guests_outlive_the_daemon(end: str, new_libvirtd: conftest.LibvirtdFactory) -> None:
    daemon = new_libvirtd()
    (guest,) = daemon.start_guests(1)
    pid = guest.pid

    getattr(daemon, end)()
    with pytest.raises(libvirt.libvirtError):
        _open(daemon)
    daemon.start()

    assert guest.pid == pid
    assert guest.uuid in daemon.virsh('list', '--uuid').split()


def test_second_start_with_the_same_base_finds_the_guests(
    new_libvirtd: conftest.LibvirtdFactory,
) -> None:
    first = new_libvirtd()
    (old,) = first.start_guests(1)
    first.stop()

    with lab.Libvirtd(first.base) as second:
        (new,) = second.start_guests(1)
        uuids = second.virsh('list', '--uuid').split()

    assert set(uuids) == {old.uuid, new.uuid}
    assert old.name != new.name


def test_suspended_daemon_answers_only_after_resume(
    new_libvirtd: conftest.LibvirtdFactory,
) -> None:
    daemon = new_libvirtd()

    daemon.suspend()
    with pytest.raises(processes.LabError, match='no answer'):
        daemon.virsh('list', timeout=1)
    daemon.resume()

    assert daemon.virsh('list') == ''


def test_limits_reach_the_daemon(new_libvirtd: conftest.LibvirtdFactory) -> None:
    daemon = new_libvirtd(max_workers=7, max_clients=11)

    assert daemon.threadpool()['maxWorkers'] == 7
    assert daemon.clients()['nclients_max'] == 11


@pytest.mark.parametrize('call', CALLS_THAT_NEED_NO_MONITOR)
def test_call_answers_though_the_qemu_is_stopped(
    call: str, libvirtd: lab.Libvirtd, guests: conftest.GuestFactory
) -> None:
    (guest,) = guests()
    connection = _open(libvirtd)
    domain = connection.lookupByUUIDString(guest.uuid)

    with _stopped(guest):
        attempt = _Attempt(lambda: CALLS_THAT_NEED_NO_MONITOR[call](connection, domain))
        is_answered = attempt.is_over_after(5)

    assert is_answered


def test_first_nowait_call_hangs_in_a_stopped_qemu_and_the_second_is_partial(
    libvirtd: lab.Libvirtd, guests: conftest.GuestFactory
) -> None:
    wedged, healthy = guests(2)
    rescue = _open(libvirtd)
    domain = rescue.lookupByUUIDString(wedged.uuid)

    with _stopped(wedged):
        first = _Attempt(lambda: _open(libvirtd).getAllDomainStats(0, NOWAIT))
        processes.wait_for(
            lambda: domain.controlInfo()[0] == libvirt.VIR_DOMAIN_CONTROL_OCCUPIED,
            what='the stuck call to show',
        )
        pool = libvirtd.threadpool()
        records = {entry.UUIDString(): stats for entry, stats in _bulk(rescue)}
        is_over = first.is_over_after(0)

    assert not is_over
    assert pool['nWorkers'] - pool['freeWorkers'] == 1
    assert 'block.0.rd.reqs' not in records[wedged.uuid]
    assert 'block.0.rd.reqs' in records[healthy.uuid]
    assert first.is_over_after(10)


def test_migration_can_be_held_half_way_and_finished(
    libvirtd: lab.Libvirtd,
    new_libvirtd: conftest.LibvirtdFactory,
    guests: conftest.GuestFactory,
) -> None:
    destination = new_libvirtd()
    (guest,) = guests(program='dirty')

    with migrations.Migration(guest, libvirtd, destination) as migration:
        half_way = _domain(destination, guest).state()
        job = _domain(libvirtd, guest).jobStats()
        migration.finish()
    finished = _domain(destination, guest).state()

    assert half_way == [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION]
    assert job['operation'] == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
    assert finished == [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_MIGRATED]
    assert not guest.is_running


def test_aborted_migration_leaves_the_guest_at_the_source(
    libvirtd: lab.Libvirtd,
    new_libvirtd: conftest.LibvirtdFactory,
    guests: conftest.GuestFactory,
) -> None:
    destination = new_libvirtd()
    (guest,) = guests(program='dirty')

    with migrations.Migration(guest, libvirtd, destination):
        pass

    assert guest.is_running
    assert destination.virsh('list', '--name') == ''


def test_prometheus_scrapes_the_exporter_of_debian(
    libvirtd: lab.Libvirtd, guests: conftest.GuestFactory
) -> None:
    guests(2)

    with (
        servers.DebianExporter(libvirtd.uri) as exporter,
        servers.Prometheus(f'127.0.0.1:{exporter.port}') as prometheus,
    ):
        prometheus.wait_until_up()
        result = prometheus.query('libvirt_up')

    assert result[0]['value'][1] == '1'


@pytest.mark.parametrize(
    'path',
    sorted((pathlib.Path(__file__).parents[1] / 'data/domain_xml').glob('*.xml')),
    ids=lambda path: path.stem,
)
def test_libvirt_accepts_the_domain_xml_of_the_unit_tests(
    path: pathlib.Path, libvirtd: lab.Libvirtd, tmp_path: pathlib.Path
) -> None:
    # This libvirt may be without KVM.
    text = path.read_text(encoding='utf-8').replace("type='kvm'", "type='qemu'")
    copy = tmp_path / path.name
    copy.write_text(text, encoding='utf-8')

    libvirtd.virsh('define', '--validate', str(copy))

    libvirtd.virsh('undefine', ''.join(_NAME.findall(text)))


def test_close_leaves_nothing_behind(new_libvirtd: conftest.LibvirtdFactory) -> None:
    daemon = new_libvirtd()
    running, stopped = daemon.start_guests(2, disks=('block',))
    pids = [running.pid, stopped.pid, daemon.pid]
    stopped.sigstop()

    daemon.close()

    assert not any(map(processes.process_state, pids))
    assert daemon.tap_prefix not in processes.run('ip', 'link')
    assert str(daemon.base) not in processes.run('losetup', '--list')
    assert not daemon.base.exists()


class _Attempt:
    """A call on a thread, as it may never return."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._thread = threading.Thread(target=call, daemon=True)
        self._thread.start()

    def is_over_after(self, timeout: float) -> bool:
        self._thread.join(timeout)
        return not self._thread.is_alive()


@contextlib.contextmanager
def _stopped(guest: lab_guests.Guest) -> Iterator[None]:
    guest.sigstop()
    try:
        yield
    finally:
        guest.sigcont()


def _open(libvirtd: lab.Libvirtd) -> Any:
    return libvirt.openReadOnly(libvirtd.uri)


def _domain(libvirtd: lab.Libvirtd, guest: lab_guests.Guest) -> Any:
    return _open(libvirtd).lookupByUUIDString(guest.uuid)


def _bulk(connection: Any) -> list[tuple[Any, dict[str, Any]]]:
    return list(connection.getAllDomainStats(0, NOWAIT))


def _stats(libvirtd: lab.Libvirtd, guest: lab_guests.Guest) -> dict[str, Any]:
    records = {entry.UUIDString(): stats for entry, stats in _bulk(_open(libvirtd))}
    return records[guest.uuid]


def _stats_after_boot(libvirtd: lab.Libvirtd, guest: lab_guests.Guest) -> dict[str, Any]:
    stats = _stats(libvirtd, guest)
    return stats if stats.get('block.0.rd.reqs') else {}
