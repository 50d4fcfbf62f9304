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

"""A private libvirtd with real QEMU guests, for the functional tests and the benchmarks.

The daemon lives in a mount namespace of its own, where directories below one base directory lie
over /run, /etc/libvirt, /var/lib/libvirt, /var/cache/libvirt and /var/log/libvirt: it neither sees
nor disturbs the machine's own libvirt, and a second start with the same base finds its guests
again. Processes and network interfaces are those of the machine, so tests signal a QEMU by its
pid. Names carry the run: ``oiet1a2`` begins those of guests and files, ``tap01e71a2`` (that is,
``tap`` and the begin of the port's UUID, as Neutron has it) those of network interfaces.

    with lab.Libvirtd() as libvirtd:
        guest = libvirtd.guest(vcpus=2)
        guest.start()
        connection = libvirt.openReadOnly(libvirtd.uri)
"""

from collections.abc import Iterable
from collections.abc import Sequence
import concurrent.futures
import itertools
import json
import os
import pathlib
import re
import secrets
import shutil
import signal
import sys
import tempfile
from typing import Any
import uuid

from tests.functional import boot_disk
from tests.functional import domains
from tests.functional import guests
from tests.functional import orphans
from tests.functional import processes
from tests.functional import remains

PREFIX = 'oiet'
_TAP_PREFIX = 'tap01e7'
_BASE_NAME = re.compile(f'{PREFIX}[0-9a-f]{{3}}')

#: Name of the directory below the base, and what it lies over for the daemon.
_MOUNTS = {
    'run': '/run',
    'etc': '/etc/libvirt',
    'lib': '/var/lib/libvirt',
    'cache': '/var/cache/libvirt',
    'log': '/var/log/libvirt',
}
_NEEDED_PROGRAMS = (
    *('libvirtd', 'virsh', 'virt-admin', 'unshare', 'mount', 'losetup', 'ip'),
    domains.EMULATOR,
)

# No machined, no virtlogd, no cgroups: /run is empty in there, and nothing of the guests stays
# behind outside the base.
_QEMU_CONF = """\
security_driver = "none"
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
"""


def what_is_missing() -> str | None:
    """Return why the laboratory cannot work on this machine; None if it can."""
    if os.geteuid() != 0:
        return 'the laboratory needs root'
    missing = [name for name in _NEEDED_PROGRAMS if processes.find_program(name) is None]
    if missing:
        return f'the laboratory needs {", ".join(missing)} (bindep functional)'
    if not pathlib.Path('/dev/net/tun').exists():
        return 'the laboratory needs /dev/net/tun'
    try:
        processes.run('unshare', '--mount', 'true')
    except processes.LabError as exc:
        return f'the laboratory needs a mount namespace: {exc}'
    return None


class Libvirtd:
    """A private libvirt daemon and everything below its base directory.

    :param base: directory of an earlier run to go on with; a new one under /tmp if None
    :param modular: run virtqemud instead of the monolithic daemon
    :param limits: further integers of libvirtd.conf: max_clients, max_workers,
        max_client_requests, …
    """

    def __init__(
        self, base: pathlib.Path | None = None, *, modular: bool = False, **limits: int
    ) -> None:
        self.daemon = 'virtqemud' if modular else 'libvirtd'
        if processes.find_program(self.daemon) is None:
            raise processes.LabError(f'{self.daemon} is not installed')
        self.base = _new_base() if base is None else base.resolve()
        if not _BASE_NAME.fullmatch(self.base.name):
            raise processes.LabError(f'{self.base} is not named like {PREFIX}1a2')
        _claim(self.base)
        self._run_id = self.base.name[-3:]
        self.limits = limits
        self.guests: list[guests.Guest] = []
        self._numbers = itertools.count(1)
        self._port_numbers = itertools.count(1)
        self._program = self._make_program()

    def __enter__(self) -> 'Libvirtd':
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def prefix(self) -> str:
        """Begin of every guest's name."""
        return f'{PREFIX}{self._run_id}'

    @property
    def tap_prefix(self) -> str:
        return f'{_TAP_PREFIX}{self._run_id}'

    @property
    def uri(self) -> str:
        """Address for openReadOnly(), usable outside the namespace."""
        return f'qemu:///system?socket={self.socket("sock-ro")}'

    @property
    def rw_uri(self) -> str:
        return f'qemu:///system?socket={self.socket("sock")}'

    @property
    def pid(self) -> int:
        return self._program.pid

    def socket(self, kind: str = 'sock-ro') -> pathlib.Path:
        """Return a socket's path: ``sock-ro``, ``sock`` or ``admin-sock``."""
        stem = self.daemon if self.daemon != 'libvirtd' else 'libvirt'
        return self.base / 'run/libvirt' / f'{stem}-{kind}'

    def start(self, timeout: float = 30.0) -> None:
        """Start the daemon and wait until it answers."""
        self._write_files()
        processes.end_later(self, self.close)
        orphans.adopt()
        self._program.start()
        processes.wait_for(self._answers, timeout, f'{self.daemon} in {self.base}')

    def take_capabilities_of(self, other: 'Libvirtd') -> None:
        """Save the second or more that a new daemon needs to learn what QEMU can do."""
        shutil.copytree(other.base / 'cache', self.base / 'cache', dirs_exist_ok=True)

    def stop(self) -> None:
        """End the daemon; guests go on running."""
        self._program.stop()

    def kill(self) -> None:
        """SIGKILL the daemon; guests go on running."""
        self._program.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def suspend(self) -> None:
        """SIGSTOP the daemon: connections stay open, nothing answers, open() hangs."""
        self._program.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._program.signal(signal.SIGCONT)

    def close(self) -> None:
        """End daemon and guests, detach loop devices and taps, delete the base directory."""
        self._program.kill()
        remains.clear(self.base, self.tap_prefix)
        shutil.rmtree(self.base, ignore_errors=True)
        processes.ended(self)

    def virsh(self, *arguments: str, timeout: float = 60.0) -> str:
        """Return what virsh prints; it has a read-write connection.

        :raises LabError: it failed
        """
        connect = ('virsh', '--quiet', '--connect', self.rw_uri)
        return processes.run(*connect, *arguments, timeout=timeout)

    def threadpool(self) -> dict[str, int]:
        """Return minWorkers, maxWorkers, nWorkers, freeWorkers, prioWorkers, jobQueueDepth."""
        return self._admin('srv-threadpool-info')

    def clients(self) -> dict[str, int]:
        """Return nclients, nclients_max and more of the main server."""
        return self._admin('srv-clients-info')

    def guest(
        self,
        *,
        vcpus: int = 1,
        max_vcpus: int | None = None,
        memory_mib: int = 24,
        disks: Sequence[boot_disk.Kind] = ('raw',),
        ports: int = 1,
        port_model: str = 'virtio',
        program: boot_disk.Program = 'idle',
        is_persistent: bool = True,
        **instance: Any,
    ) -> guests.Guest:
        """Return a guest, not started yet.

        :param disks: kinds, in order; ``block`` is a loop device
        :param program: nothing, burn a CPU, or use the disk or memory 18 times a second
        :param instance: fields of domains.Instance to have other than usual: metadata,
            display_name, owner, flavor, image, root_id, has_balloon, …
        """
        number = next(self._numbers)
        guest_uuid = instance.pop('uuid', None) or str(uuid.uuid4())
        fields: dict[str, Any] = {
            'name': f'{self.prefix}-instance-{number:08x}',
            'display_name': f'server-{number}',
            'owner': usual_owner(number),
            'flavor': domains.Flavor(name=f'm1.nano{vcpus}', memory_mib=memory_mib, vcpus=vcpus),
            'memory_mib': memory_mib,
            'vcpus': vcpus,
            'max_vcpus': max_vcpus or vcpus,
            'disks': boot_disk.make_all(disks, self.instance_directory(guest_uuid), program),
            'ports': tuple(self.new_port(port_model) for _ in range(ports)),
        }
        described = domains.Instance(**{**fields, **instance, 'uuid': guest_uuid})
        guest = guests.Guest(
            described, virsh=self.virsh, base=self.base, is_persistent=is_persistent
        )
        self.guests.append(guest)
        return guest

    def start_guests(self, count: int, **options: Any) -> list[guests.Guest]:
        """Start many guests alike, a few at a time; options are those of guest()."""
        new = [self.guest(**options) for _ in range(count)]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(guests.Guest.start, new))
        return new

    def remove(self, unwanted: Iterable[guests.Guest]) -> None:
        """End and forget guests."""
        gone = list(unwanted)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(guests.Guest.remove, gone))
        self.guests = [guest for guest in self.guests if guest not in gone]

    def new_port(self, model: str = 'virtio') -> domains.Port:
        """Return a port with UUID, MAC, tap name and one address of each family of this run."""
        number = next(self._port_numbers)
        digits = f'{self._run_id}{number:03x}'
        port_id = f'01e7{digits[:4]}-{digits[4:]}00-4000-8000-{number:012x}'
        return domains.Port(
            port_id=port_id,
            mac=f'fa:16:3e:{digits[:2]}:{digits[2:4]}:{digits[4:]}',
            target=f'tap{port_id[:11]}',
            addresses=(f'10.77.{number >> 8}.{number & 255}', f'2001:db8:77::{number:x}'),
            model=model,
        )

    def new_disk(self, kind: boot_disk.Kind, target: str, directory: pathlib.Path) -> domains.Disk:
        """Make a further disk, to plug into a guest."""
        return boot_disk.make(kind, target, directory)

    def instance_directory(self, guest_uuid: str) -> pathlib.Path:
        """Return where an instance's files lie, like /var/lib/nova/instances/UUID."""
        return self.base / 'instances' / guest_uuid

    def _make_program(self) -> processes.Program:
        # Learning what one emulator can do takes libvirt 1 to 4 s, at the latest within the first
        # statistics of CPUs; it shall know of one only.
        others = (
            path
            for path in pathlib.Path(domains.EMULATOR).parent.glob('qemu-system-*')
            if str(path) != domains.EMULATOR
        )
        binds = [f'mount --bind {self.base / name} {path}' for name, path in _MOUNTS.items()]
        binds += [f'mount --bind /dev/null {path}' for path in others]
        script = ' && '.join([*binds, f'exec {self.daemon} --pid-file /run/{self.daemon}.pid'])
        argv = ('unshare', '--mount', '--propagation', 'private', 'sh', '-c', script)
        return processes.Program(argv, self.base / f'log/{self.daemon}.log')

    def _write_files(self) -> None:
        for name in (*_MOUNTS, 'xml', 'instances'):
            (self.base / name).mkdir(parents=True, exist_ok=True)
        settings: dict[str, int | str] = {
            'auth_unix_ro': 'none',
            'auth_unix_rw': 'none',
            'unix_sock_ro_perms': '0666',
            'unix_sock_rw_perms': '0700',
            'host_uuid': str(uuid.uuid5(uuid.NAMESPACE_URL, str(self.base))),
            'log_level': 3,
            'log_outputs': '3:stderr',
            'min_workers': min(5, self.limits.get('max_workers', 20)),
            'max_anonymous_clients': min(20, self.limits.get('max_clients', 5000)),
            **self.limits,
        }
        lines = [f'{name} = {json.dumps(value)}\n' for name, value in settings.items()]
        (self.base / f'etc/{self.daemon}.conf').write_text(''.join(lines), encoding='ascii')
        (self.base / 'etc/qemu.conf').write_text(_QEMU_CONF, encoding='ascii')

    def _answers(self) -> bool:
        if not self._program.is_running:
            raise processes.LabError(f'{self.daemon} ended: {self._program.last_words()}')
        try:
            names = self.virsh('list', '--all', '--name', timeout=10).split()
        except processes.LabError:
            return False
        self._skip_numbers_of(names)
        return True

    def _skip_numbers_of(self, names: Iterable[str]) -> None:
        """Let new guests and ports not take the numbers of those found in an old base."""
        used = max((int(name[-8:], 16) for name in names if self.prefix in name), default=0)
        if used and not self.guests:
            self._numbers = itertools.count(used + 1)
            taps = [int(name[-4] + name[-2:], 16) for name in remains.find_taps(self.tap_prefix)]
            self._port_numbers = itertools.count(max(taps, default=0) + 1)

    def _admin(self, command: str) -> dict[str, int]:
        uri = f'{self.daemon}:///system?socket={self.socket("admin-sock")}'
        text = processes.run('virt-admin', '--quiet', '--connect', uri, command, self.daemon)
        pairs = (line.split(':') for line in text.splitlines() if ':' in line)
        return {name.strip(): int(value) for name, value in pairs}


def usual_owner(number: int) -> domains.Owner:
    """Return one of two projects, in turn; their ids are the same in every run."""
    name = 'alpha' if number % 2 else 'beta'
    return domains.Owner(
        user_id=uuid.uuid5(uuid.NAMESPACE_DNS, f'{name}-user').hex,
        user_name=f'{name}-user',
        project_id=uuid.uuid5(uuid.NAMESPACE_DNS, name).hex,
        project_name=name,
    )


def sweep() -> list[pathlib.Path]:
    """End what runs that were killed left behind; return their base directories."""
    left = []
    for base in pathlib.Path(tempfile.gettempdir()).glob(f'{PREFIX}???'):
        owner = base / 'owner'
        if owner.exists() and not _is_alive(*owner.read_text(encoding='ascii').split()):
            Libvirtd(base).close()
            left.append(base)
    return left


def _new_base() -> pathlib.Path:
    """Make the directory that gives the run its name; no other run has it."""
    parent = pathlib.Path(tempfile.gettempdir()).resolve()
    while True:
        base = parent / f'{PREFIX}{secrets.token_hex(2)[1:]}'
        try:
            base.mkdir()
        except FileExistsError:
            continue
        return base


def _claim(base: pathlib.Path) -> None:
    """Write down that this process will clear the base; sweep() may when the process is gone."""
    owner = f'{os.getpid()} {_start_time(os.getpid())}\n'
    (base / 'owner').write_text(owner, encoding='ascii')


def _is_alive(pid: str, start_time: str) -> bool:
    return processes.process_state(int(pid)) is not None and _start_time(int(pid)) == start_time


def _start_time(pid: int) -> str:
    return processes.stat_fields(pid)[19]


if __name__ == '__main__':
    for path in sweep():
        sys.stdout.write(f'swept {path}\n')
