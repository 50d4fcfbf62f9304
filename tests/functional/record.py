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

"""Record what a real libvirt says of guests of many shapes, for the unit tests.

    python -m tests.functional.record

writes tests/data/domstats/*.json, tests/data/domain_xml/*.xml and the README.rst of both.
Hand-written XML stays as it is; its first line tells the README what it is.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import datetime
import json
import os
import pathlib
import platform
import sys
import tempfile
import threading
import time
from typing import Any
import uuid

import libvirt

from tests.functional import domains
from tests.functional import guests as lab_guests
from tests.functional import lab
from tests.functional import migrations
from tests.functional import processes

_DATA = pathlib.Path(__file__).parents[1] / 'data'
_NOWAIT = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
_COMPLETED = libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED
_KEPT = libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED

_IMAGE = domains.Image(
    uuid='fe55c69a-8b2e-4bbc-811a-9ad2023a0426',
    min_ram_mib=512,
    properties={'os_distro': 'debian', 'os_type': 'linux', 'hw_qemu_guest_agent': 'True'},
)
_FLAVOR = domains.Flavor(
    name='c2.small',
    flavor_id='f719a0dd-4b43-4efe-8336-48ef74099ad4',
    vcpus=2,
    extra_specs={'hw:cpu_policy': 'shared', 'quota:vif_inbound_average': '10240'},
)

#: Options of lab.Libvirtd.guest() by the name of the recording.
_SHAPES: dict[str, dict[str, Any]] = {
    'idle': {},
    'two_of_four_vcpus': {
        **{'vcpus': 2, 'max_vcpus': 4, 'disks': ('qcow2',)},
        **{'metadata': '2025.2', 'nova_version': '32.0.0'},
        **{'flavor': _FLAVOR, 'image': _IMAGE},
    },
    'no_balloon': {'has_balloon': False},
    'many_devices': {
        **{'disks': ('qcow2', 'block', 'cdrom'), 'ports': 2},
        **{'port_model': 'rtl8139', 'program': 'disk'},
    },
    'no_devices': {'disks': (), 'ports': 0, 'metadata': 'none'},
    'paused': {},
    'volume_booted': {'root_id': ''},
    'volume_booted_nova_29': {'root_id': '', 'nova_version': '29.2.0'},
    'metadata_1_0': {'metadata': '1.0', 'nova_version': '18.3.0'},
    'shut_off': {},
    'crashed': {},
    'wedged': {},
    'migrating': {'program': 'dirty'},
}

_NOTES = {
    'idle': 'One vCPU, one raw disk, one port; halted after the boot sector was read.',
    'two_of_four_vcpus': 'Two of at most four vCPUs, qcow2, metadata of Nova 2025.2.',
    'no_balloon': 'No balloon device.',
    'many_devices': 'qcow2, block and cdrom, two ports; reads, writes and receives.',
    'many_devices_later': 'The same guest some seconds later.',
    'no_devices': 'No disk, no interface, no Nova metadata.',
    'paused': 'Paused by the user.',
    'volume_booted': 'Metadata 1.1, root of type volume with an empty uuid (2024.2 and later).',
    'volume_booted_nova_29': 'Metadata 1.1 without a root element, as Nova wrote up to 2024.1.',
    'metadata_1_0': 'Metadata namespace 1.0: no ports.',
    'shut_off': 'Defined, not running; its cpu.* are those of libvirtd itself.',
    'crashed': 'Its QEMU was killed; its cpu.* are those of libvirtd itself.',
    'wedged': 'Its QEMU is stopped and a call is stuck in it: the partial record of NOWAIT.',
    'migrating_out': 'Live migration under way, at the source.',
    'migrating_in': 'Live migration under way, at the destination.',
    'migrated': 'After the migration, at the destination.',
}


def main() -> None:
    libvirt.registerErrorHandler(lambda *_: None, None)
    with _new_libvirtd('000') as source, _new_libvirtd('001') as destination:
        guests = {name: _make(source, name) for name in _SHAPES}
        destination.take_capabilities_of(source)
        _prepare(guests)
        for name in guests.keys() - {'wedged', 'migrating'}:
            _record(source, guests[name], name)
        time.sleep(5)
        guests['many_devices'].send_frames(100)
        _record(source, guests['many_devices'], 'many_devices_later')
        with _stuck_call(source, guests['wedged']):
            _record(source, guests['wedged'], 'wedged')
        _record_migration(source, destination, guests['migrating'])
        facts = _describe_host(source)
    _write_readme('domstats', 'json', facts)
    _write_readme('domain_xml', 'xml', facts)


def _new_libvirtd(run_id: str) -> lab.Libvirtd:
    base = pathlib.Path(tempfile.gettempdir()) / f'{lab.PREFIX}{run_id}'
    base.mkdir()
    return lab.Libvirtd(base)


def _make(libvirtd: lab.Libvirtd, name: str) -> lab_guests.Guest:
    guest_uuid = str(uuid.uuid5(uuid.NAMESPACE_DNS, name))
    guest = libvirtd.guest(uuid=guest_uuid, **_SHAPES[name])
    if name == 'shut_off':
        guest.define()
    else:
        guest.start()
    return guest


def _prepare(guests: dict[str, lab_guests.Guest]) -> None:
    """Bring the guests into the states they are recorded in, once all have booted."""
    time.sleep(3)
    guests['paused'].pause()
    guests['crashed'].sigkill()
    guests['many_devices'].send_frames(250, 0)
    guests['many_devices'].send_frames(50, 1)
    time.sleep(3)


@contextlib.contextmanager
def _stuck_call(libvirtd: lab.Libvirtd, guest: lab_guests.Guest) -> Iterator[None]:
    """Stop the guest's QEMU and let one call hang in it for some seconds."""
    connection = libvirt.openReadOnly(libvirtd.uri)
    domain = connection.lookupByUUIDString(guest.uuid)
    guest.sigstop()
    stuck = threading.Thread(target=domain.memoryStats, daemon=True)
    stuck.start()
    try:
        time.sleep(3)
        yield
    finally:
        guest.sigcont()
        stuck.join()


def _record_migration(
    source: lab.Libvirtd, destination: lab.Libvirtd, guest: lab_guests.Guest
) -> None:
    with migrations.Migration(guest, source, destination) as migration:
        time.sleep(3)
        _record(source, guest, 'migrating_out')
        _record(destination, guest, 'migrating_in')
        migration.finish()
    _record(destination, guest, 'migrated')


def _record(libvirtd: lab.Libvirtd, guest: lab_guests.Guest, name: str) -> None:
    connection = libvirt.openReadOnly(libvirtd.uri)
    domain = connection.lookupByUUIDString(guest.uuid)
    calls: dict[str, Callable[[], Any]] = {
        'stats': lambda: connection.domainListGetStats([domain], 0, _NOWAIT)[0][1],
        'state': domain.state,
        'info': domain.info,
        'control_info': domain.controlInfo,
        'completed_job_stats': lambda: domain.jobStats(_COMPLETED | _KEPT),
    }
    if name != 'wedged':
        # It would wait 30 s there.
        calls['job_stats'] = domain.jobStats
    answers: dict[str, Any] = {'read_at': round(time.time(), 3)}
    for call, ask in calls.items():
        try:
            answers[call] = ask()
        except libvirt.libvirtError as exc:
            answers[call] = {'error': [exc.get_error_code(), exc.get_error_message()]}
    text = json.dumps(answers, indent=1) + '\n'
    _write(_DATA / 'domstats' / f'{name}.json', text, libvirtd)
    _write(_DATA / 'domain_xml' / f'{name}.xml', domain.XMLDesc(0), libvirtd)


def _write(path: pathlib.Path, text: str, libvirtd: lab.Libvirtd) -> None:
    """Write with the names that a compute node would have."""
    for run in ('000', '001'):
        base = libvirtd.base.with_name(f'{lab.PREFIX}{run}')
        text = text.replace(f'{base}/instances/', '/var/lib/nova/instances/')
        text = text.replace(f'{base.name}-instance-', 'instance-')
    if lab.PREFIX in text:
        raise processes.LabError(f'a name of the laboratory is left in {path.name}')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')


def _describe_host(libvirtd: lab.Libvirtd) -> str:
    """Return what the recordings were made with, in one line."""
    qemu = libvirt.openReadOnly(libvirtd.uri).getVersion()
    versions = {'libvirt': libvirt.getVersion(), 'QEMU': qemu}
    parts = [
        platform.freedesktop_os_release()['PRETTY_NAME'],
        *(f'{name} {_dotted(number)}' for name, number in versions.items()),
        f'Linux {os.uname().release.split("-")[0]}',
        f'{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}',
    ]
    return ', '.join(parts)


def _dotted(number: int) -> str:
    return f'{number // 1000000}.{number // 1000 % 1000}.{number % 1000}'


def _write_readme(directory: str, suffix: str, facts: str) -> None:
    lines = [
        'Recorded by ``python -m tests.functional.record`` on',
        f'{facts};',
        'QEMU without KVM (TCG), no cgroups, guests without an operating system. Paths and names',
        'are rewritten to those of a compute node; everything else is as libvirt gave it.',
        '',
        *(f'* ``{name}.{suffix}``: {note}' for name, note in _NOTES.items()),
    ]
    if suffix == 'json':
        lines += [
            '',
            'Each holds the answers of ``domainListGetStats`` (all groups, NOWAIT), ``state``,',
            '``info``, ``controlInfo`` and ``jobStats`` (also of the completed job); an error is',
            '``{"error": [code, message]}``. ``read_at`` is seconds since 1970.',
        ]
    notes = {path.name: _read_note(path) for path in (_DATA / directory).glob('*.xml')}
    written = {name: note for name, note in sorted(notes.items()) if note}
    if written:
        lines += [
            '',
            "Written by hand after Nova's code (openstack/nova at 00a030403f) and libvirt's",
            'documentation; a functional test has libvirt validate them:',
            '',
        ]
        lines += [f'* ``{name}``: {note}' for name, note in written.items()]
    (_DATA / directory / 'README.rst').write_text('\n'.join(lines) + '\n', encoding='utf-8')


def _read_note(path: pathlib.Path) -> str | None:
    """Return what the comment at the begin of a hand-written file says."""
    text = path.read_text(encoding='utf-8')
    if not text.startswith('<!-- Hand-written: '):
        return None
    return ' '.join(text[len('<!-- Hand-written: ') : text.index('-->')].split())


if __name__ == '__main__':
    main()
    sys.stdout.write(f'written to {_DATA}\n')
