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

"""Programs the tests start, and what the kernel says about a process."""

import atexit
import collections
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
from typing import TypeVar

_CLOCK_TICKS = os.sysconf('SC_CLK_TCK')
_PAGE_BYTES = os.sysconf('SC_PAGE_SIZE')
_ADMIN_PATH = '/usr/sbin:/sbin'
_T = TypeVar('_T')

#: What has to be ended, by the object it belongs to; the last one started ends first.
_endings: dict[int, Callable[[], None]] = {}


class LabError(Exception):
    """The laboratory itself failed, not what is tested in it."""


class Program:
    """One program of ours, started as a child and ended by its pid."""

    def __init__(
        self, argv: Sequence[str], log: pathlib.Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.argv = tuple(argv)
        self.log = log
        self._env = dict(env if env is not None else environment())
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise LabError(f'{self.argv[0]} was not started')
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        if self.is_running:
            raise LabError(f'{self.argv[0]} runs already, pid {self.pid}')
        with self.log.open('ab') as log:
            # A session of its own: Ctrl-C reaches pytest, which then ends things in order.
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                start_new_session=True,
            )
        end_later(self, self.kill)

    def stop(self, timeout: float = 15.0) -> None:
        """End it politely; by force after ``timeout`` seconds."""
        if self._process is not None and self.is_running:
            for number in (signal.SIGTERM, signal.SIGCONT):
                # It may be gone before the second one.
                with contextlib.suppress(LabError):
                    self.signal(number)
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self.kill()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        ended(self)

    def signal(self, number: signal.Signals) -> None:
        if not self.is_running:
            raise LabError(f'{self.argv[0]} does not run; its log ends: {self.last_words()}')
        os.kill(self.pid, number)

    def last_words(self, lines: int = 10) -> str:
        """Return the end of what it wrote."""
        if not self.log.exists():
            return ''
        with self.log.open(encoding='utf-8', errors='replace') as log:
            return ''.join(collections.deque(log, lines))


def end_later(owner: object, ending: Callable[[], None]) -> None:
    """Have ``ending`` called by end_all(), also when Python exits, unless ended() comes first."""
    if not _endings:
        atexit.unregister(end_all)
        atexit.register(end_all)
    _endings[id(owner)] = ending


def ended(owner: object) -> None:
    _endings.pop(id(owner), None)


def end_all() -> None:
    """End everything started and not ended yet; one failure does not keep the others."""
    failures = []
    while _endings:
        _, ending = _endings.popitem()
        try:
            ending()
        except (LabError, OSError, subprocess.SubprocessError) as exc:
            failures.append(str(exc))
    if failures:
        raise LabError('; '.join(failures))


def find_program(name: str) -> str | None:
    """Return the program's path; administrators' directories count even when PATH lacks them."""
    return shutil.which(name, path=environment()['PATH'])


def environment() -> dict[str, str]:
    path = os.environ.get('PATH', os.defpath)
    return {**os.environ, 'PATH': f'{path}:{_ADMIN_PATH}', 'LC_ALL': 'C.UTF-8'}


def run(*argv: str, timeout: float = 60.0) -> str:
    """Return what the program wrote to stdout.

    :raises LabError: it failed or took longer than ``timeout`` seconds
    """
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment(),
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise LabError(f'no answer in {timeout} s: {" ".join(argv)}') from exc
    if done.returncode:
        raise LabError(f'{" ".join(argv)}: {done.stderr.strip()} (status {done.returncode})')
    return done.stdout


def wait_for(
    predicate: Callable[[], _T], timeout: float = 10.0, what: str = 'the condition'
) -> _T:
    """Return the first true value of ``predicate``, asked for ``timeout`` seconds.

    :raises LabError: it stayed false
    """
    deadline = time.monotonic() + timeout
    while not (value := predicate()):
        if time.monotonic() > deadline:
            raise LabError(f'waited {timeout} s in vain for {what}')
        time.sleep(0.02)
    return value


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return int(probe.getsockname()[1])


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of a process and its threads. Source: proc(5)."""
    fields = stat_fields(pid)
    return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS


def rss_bytes(pid: int) -> int:
    """Return resident memory, shared pages included. Source: proc(5), statm."""
    pages = pathlib.Path(f'/proc/{pid}/statm').read_text(encoding='ascii').split()[1]
    return int(pages) * _PAGE_BYTES


def peak_rss_bytes(pid: int) -> int:
    """Return the largest RSS that a process has had."""
    status = pathlib.Path(f'/proc/{pid}/status').read_text(encoding='ascii', errors='replace')
    line = next(line for line in status.splitlines() if line.startswith('VmHWM:'))
    return int(line.split()[1]) * 1024


def pss_bytes(pid: int) -> int:
    """Return resident memory with shared pages divided among their users."""
    text = pathlib.Path(f'/proc/{pid}/smaps_rollup').read_text(encoding='ascii')
    return sum(int(line.split()[1]) for line in text.splitlines() if line[:4] == 'Pss:') * 1024


def process_state(pid: int) -> str | None:
    """Return the letter of proc(5), ``T`` when stopped by a signal; None for gone.

    A zombie is gone once its last thread is: until then its files are open.
    """
    try:
        state = stat_fields(pid)[0]
        threads = len(os.listdir(f'/proc/{pid}/task'))
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in 'ZX' and threads == 1 else state


def process_arguments(pid: int) -> tuple[str, ...]:
    try:
        raw = pathlib.Path(f'/proc/{pid}/cmdline').read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return ()
    return tuple(os.fsdecode(argument) for argument in raw.split(b'\0'))


def kill_and_wait(pids: Sequence[int], timeout: float = 10.0) -> None:
    """Kill processes by force; they need not be children, and may be gone already."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    wait_for(lambda: not any(map(process_state, pids)), timeout, f'the end of {list(pids)}')


def stat_fields(pid: int) -> list[str]:
    """Return the fields after the program's name, which may hold blanks and parentheses."""
    text = pathlib.Path(f'/proc/{pid}/stat').read_text(encoding='utf-8', errors='replace')
    return text.rpartition(')')[2].split()
