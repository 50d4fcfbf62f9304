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

"""Hosts for the Ansible role: this machine's root as it is, and what is written lies above it.

Each host has namespaces of its own for mounts, processes and the network; the machine
sees nothing of them. In place of systemd there is a program that notes how it was
called.
"""

import collections
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import hashlib
import os
import pathlib
import re
import stat
import subprocess
import sys

import yaml

from tests.functional import processes

TOP = pathlib.Path(__file__).parents[2]
ROLE = 'openstack_instance_exporter'
ROLES = TOP / 'etc/ansible/roles'
PLUGINS = pathlib.Path(__file__).parent / 'ansible_plugins'
#: A device of each host, with an address of the networks for documentation.
INTERFACE, ADDRESS = 'br-oie', '192.0.2.7'
#: Its other end, which has none.
BARE_INTERFACE = 'bare-oie'
CALLS = '/var/lib/systemctl.calls'

_PREPARE = """\
set -e
cd "$0"
mkdir -p upper work root
mount -t overlay overlay -o "lowerdir=$1,upperdir=upper,workdir=work" root
mount -t proc proc root/proc
mount -t sysfs -o ro sysfs root/sys
mount -t tmpfs tmpfs root/dev
mkdir root/dev/shm
for node in null zero full random urandom tty; do
    touch "root/dev/$node"
    mount --bind "/dev/$node" "root/dev/$node"
done
for directory in run tmp; do
    mount -t tmpfs tmpfs "root/$directory"
done
chmod 1777 root/tmp
mkdir -p root/run/systemd/system
ip link set lo up
ip link add DEVICE type veth peer name BARE
ip address add ADDRESS/24 dev DEVICE
ip link set DEVICE up
exec chroot root /bin/sh -c 'echo ready; exec sleep infinity'
"""
# What the module systemd_service asks, and what it has done.
_SYSTEMCTL = """\
#!/bin/sh
state=/var/lib/systemctl
mkdir -p "$state"
for unit; do :; done
case $1 in
show)
    [ -e "/etc/systemd/system/$unit" ] && echo LoadState=loaded || echo LoadState=not-found
    [ -e "$state/active" ] && echo ActiveState=active || echo ActiveState=inactive
    exit 0 ;;
is-enabled)
    [ -e "$state/enabled" ] && echo enabled && exit 0
    echo disabled
    exit 1 ;;
--version) exit 0 ;;
esac
echo "$*" >>CALLS
case $1 in
start | restart)
    # A service whose program is not there, or has a wrong configuration, does not start.
    program=$(cat "/etc/systemd/system/$unit" "/etc/systemd/system/$unit.d/"*.conf 2>/dev/null |
        sed -n 's/^ExecStart=\\(..*\\)/\\1/p' | tail -n 1)
    "$program" --version >/dev/null || exit 1
    setpriv --reuid=oie --regid=oie --init-groups \\
        "${program%exporter}status" upgrade check >/dev/null
    [ $? -le 1 ] || exit 1
    touch "$state/active" ;;
enable) touch "$state/enabled" ;;
esac
"""


class Store:
    """Where what the hosts write is kept: a file system in memory, gone with the process."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        script = 'mount -t tmpfs -o mode=755 tmpfs "$0" && echo ready && exec sleep infinity'
        self._process = _hold(
            ('unshare', '--mount', '--propagation=private'),
            '/bin/sh',
            '-c',
            script,
            str(directory),
        )
        self.pid = self._process.pid
        processes.end_later(self, self.close)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        processes.ended(self)


class Host:
    """A host for the role.

    :param base: the host on which it builds, which must be closed
    """

    def __init__(self, store: Store, name: str, base: 'Host | None' = None) -> None:
        self.store = store
        self.layers: tuple[str, ...] = ('/',)
        if base is not None:
            self.layers = (f'{base.directory}/upper', *base.layers)
        self.directory = store.directory / name
        script = _PREPARE.replace('DEVICE', INTERFACE).replace('ADDRESS', ADDRESS)
        # The layers end with the process, so nothing has to be unmounted.
        self._process = _hold(
            (
                *('nsenter', f'--target={store.pid}', '--mount'),
                *('unshare', '--mount', '--net', '--pid', '--fork', '--kill-child'),
                *('--propagation=private', '/bin/sh', '-c', 'mkdir -p "$0" && exec "$@"'),
            ),
            str(self.directory),
            *('/bin/sh', '-c', script.replace('BARE', BARE_INTERFACE)),
            *(str(self.directory), ':'.join(self.layers)),
        )
        self.pid = _child_of(self._process.pid)
        processes.end_later(self, self.close)
        if base is None:
            self._make_fresh()

    def _make_fresh(self) -> None:
        """Take away what an exporter of this machine, or of a developer, left in the root."""
        self.sh(
            'rm -rf /opt/oie /etc/oie /var/lib/oie /var/log/oie /etc/systemd/system/oie-exporter.*'
            ' /usr/local/bin/oie-* /etc/logrotate.d/openstack_instance_exporter;'
            ' userdel oie; groupdel oie; groupadd --system oie-guests;'
            ' groupadd --system oie-polls;'
            ' cat >/usr/bin/systemctl.new && chmod 755 /usr/bin/systemctl.new'
            ' && mv /usr/bin/systemctl.new /usr/bin/systemctl',
            _SYSTEMCTL.replace('CALLS', CALLS),
        )

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        processes.ended(self)

    def enter(self, *options: str) -> tuple[str, ...]:
        """Return what stands before a command line to have it run there."""
        return (
            *('nsenter', f'--target={self.pid}', '--mount', '--net', '--pid', '--root', '--wd=/'),
            *(*options, '--'),
        )

    def run(self, *argv: str, text: str = '') -> subprocess.CompletedProcess[str]:
        """Return how a program ended there."""
        return subprocess.run(
            (*self.enter(), *argv),
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={'PATH': '/usr/sbin:/usr/bin:/sbin:/bin', 'HOME': '/root', 'LANG': 'C.UTF-8'},
        )

    def sh(self, script: str, text: str = '') -> str:
        """Return what a script prints.

        :raises AssertionError: it fails
        """
        done = self.run('/bin/sh', '-c', script, text=text)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def read(self, path: str) -> str:
        return self.sh(f'cat {path}')

    def outside(self, path: str) -> pathlib.Path:
        """Return where the controller finds a path; links with absolute targets lead astray."""
        return pathlib.Path(f'/proc/{self.pid}/root{path}')

    def owner(self, path: str) -> str:
        """Return owner, group and mode, as ``root:oie 640``."""
        return self.sh(f'stat -c "%U:%G %a" {path}').strip()

    def take_calls(self) -> list[str]:
        """Return how systemctl was called to change something since the last time."""
        return self.sh(f'touch {CALLS}; cat {CALLS}; rm {CALLS}').splitlines()

    def written(self) -> Mapping[str, tuple[int, int, str]]:
        """Return the files that differ from the layers below: mode, owner, content by path."""
        seen = pathlib.Path(f'/proc/{self.store.pid}/root')
        below = [seen / layer.lstrip('/') for layer in self.layers]
        found = _described(seen / str(self.directory).lstrip('/') / 'upper', below)
        return dict(sorted(found))

    @property
    def version(self) -> str:
        """The version that the service would start with now."""
        return self.sh('/opt/oie/bin/oie-exporter --version').split()[-1]


def _described(
    top: pathlib.Path, below: Sequence[pathlib.Path]
) -> Iterable[tuple[str, tuple[int, int, str]]]:
    for path in top.rglob('*'):
        status, name = path.lstat(), str(path.relative_to(top))
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        elif stat.S_ISCHR(status.st_mode):
            content = 'gone'
        elif any((layer / name).is_dir() for layer in below):
            # It may be here for what was made in it and has gone again.
            continue
        else:
            content = 'directory'
        # What Python and pip keep for the next time is not of the role's making.
        if '__pycache__' not in path.parts and not name.startswith('root/.cache'):
            yield name, (status.st_mode, status.st_uid, content)


def _hold(prefix: Sequence[str], *argv: str) -> subprocess.Popen[str]:
    """Start what holds namespaces and wait until they are there."""
    process = subprocess.Popen(
        (*prefix, *argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    if process.stdout.readline() != 'ready\n':
        process.kill()
        raise processes.LabError(f'no namespaces: {process.stderr.read()}')
    return process


def _child_of(pid: int) -> int:
    [child] = pathlib.Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
    return int(child)


# --- the role -----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Played:
    """How a playbook ended.

    :ivar changed: names of the tasks and handlers that changed something
    """

    output: str
    status: int
    changed: tuple[str, ...]

    @property
    def failed(self) -> bool:
        return self.status != 0

    @property
    def recap(self) -> Mapping[str, int]:
        """What the last line counts."""
        found = re.findall(r'(\w+)=(\d+)', self.output.rpartition('PLAY RECAP')[2])
        return collections.Counter({name: int(number) for name, number in found})


def play(
    host: Host,
    directory: pathlib.Path,
    plays: Sequence[Mapping[str, object]],
    *arguments: str,
) -> Played:
    """Run a playbook on a host by the real ansible-playbook.

    :param directory: where its files are written
    """
    inventory = {'all': {'hosts': {'target': {'ansible_host': str(host.pid)}}}}
    # An empty one, so that no other counts.
    (directory / 'ansible.cfg').touch()
    for name, content in (('inventory', inventory), ('playbook', plays)):
        (directory / f'{name}.yml').write_text(yaml.safe_dump(content, sort_keys=False))
    done = subprocess.run(
        (
            str(pathlib.Path(sys.executable).parent / 'ansible-playbook'),
            *('--inventory', str(directory / 'inventory.yml'), *arguments),
            str(directory / 'playbook.yml'),
        ),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=directory,
        env=_environment(directory),
    )
    output = done.stdout + done.stderr
    return Played(output, done.returncode, tuple(_changed(done.stdout)))


def apply(
    host: Host, directory: pathlib.Path, variables: Mapping[str, object], *arguments: str
) -> Played:
    """Apply the role.

    :param variables: without the prefix of the role
    """
    plays = [
        {
            'hosts': 'all',
            'gather_facts': False,
            'roles': [{'role': ROLE}],
            'vars': {f'{ROLE}_{name}': value for name, value in variables.items()},
        }
    ]
    return play(host, directory, plays, *arguments)


def _environment(directory: pathlib.Path) -> Mapping[str, str]:
    return {
        'PATH': os.environ['PATH'],
        'HOME': str(directory),
        'LANG': 'C.UTF-8',
        'ANSIBLE_CONFIG': str(directory / 'ansible.cfg'),
        'ANSIBLE_HOME': str(directory / 'ansible'),
        'ANSIBLE_ROLES_PATH': str(ROLES),
        'ANSIBLE_CONNECTION_PLUGINS': str(PLUGINS),
        'ANSIBLE_TRANSPORT': 'oie_root',
        'ANSIBLE_REMOTE_TMP': '/tmp/ansible',
        'ANSIBLE_PYTHON_INTERPRETER': '/usr/bin/python3',
        'ANSIBLE_PIPELINING': 'true',
        'ANSIBLE_NOCOLOR': 'true',
        'ANSIBLE_DEPRECATION_WARNINGS': 'true',
    }


def _changed(output: str) -> Iterable[str]:
    name = ''
    for line in output.splitlines():
        head = re.match(r'(?:TASK|RUNNING HANDLER) \[(?:\w+ : )?(.*)\] \*', line)
        if head:
            name = head[1]
        elif line.startswith('changed: '):
            yield name
