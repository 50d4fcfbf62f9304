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

"""What a run has on the machine outside its base directory: processes, loop devices, taps."""

import pathlib

from tests.functional import processes


def clear(base: pathlib.Path, tap_prefix: str) -> None:
    """End the processes by force, detach the loop devices, delete the taps."""
    processes.kill_and_wait(find_processes(base))
    for device in find_loop_devices(base):
        processes.run('losetup', '--detach', device)
    for name in find_taps(tap_prefix):
        processes.run('ip', 'link', 'delete', name)


def find_processes(base: pathlib.Path) -> list[int]:
    """Return every process for which ``base`` lies over /run: the daemon and the guests."""
    pids = (int(path.name) for path in pathlib.Path('/proc').iterdir() if path.name.isdigit())
    return [pid for pid in pids if _is_inside(pid, base)]


def find_loop_devices(base: pathlib.Path) -> list[str]:
    """Return the loop devices whose file is below ``base``."""
    text = processes.run('losetup', '--list', '--noheadings', '--output', 'NAME,BACK-FILE')
    rows = (line.split() for line in text.splitlines())
    return [row[0] for row in rows if row[1:] and row[1].startswith(f'{base}/')]


def find_taps(prefix: str) -> list[str]:
    """Return the network interfaces of this run."""
    rows = processes.run('ip', '-brief', 'link').splitlines()
    names = (row.split()[0] for row in rows)
    return [name for name in names if name.startswith(prefix)]


def _is_inside(pid: int, base: pathlib.Path) -> bool:
    try:
        text = pathlib.Path(f'/proc/{pid}/mountinfo').read_text(encoding='utf-8')
    except OSError:
        return False
    mounts = (line.split()[3:5] for line in text.splitlines())
    return any(point == '/run' and root.endswith(f'/{base.name}/run') for root, point in mounts)
