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

"""The threat log under the rotation of a real logrotate, and on a disk that is really full."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import gzip
import os
import pathlib
import signal
import threading
from typing import Any

from oslo_config import cfg
import pytest

from oie.outputs import threat_log
from tests import machine
from tests.functional import processes

UUID = '00000000-0000-4000-8000-000000000001'
ROTATIONS = 5
ROOM_BYTES = 32 * 1024
BALLAST_BYTES = 16 * 1024

Rotate = Callable[..., None]


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> pathlib.Path:
    # logrotate refuses a directory that others may write.
    made = tmp_path / 'log'
    made.mkdir(mode=0o750)
    return made


@pytest.fixture
def rotate(tmp_path: pathlib.Path, directory: pathlib.Path) -> Rotate:
    """Rotate with these directives."""
    program = processes.find_program('logrotate')
    if program is None:
        machine.give_up('logrotate is not installed (bindep test)')

    def run(*directives: str) -> None:
        lines = '\n'.join(('rotate 20', *directives))
        config = tmp_path / 'logrotate.conf'
        config.write_text(f'{directory}/threat.log {{\n{lines}\n}}\n')
        config.chmod(0o644)
        processes.run(str(program), '--force', '--state', str(tmp_path / 'state'), str(config))

    return run


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    mountpoint = tmp_path / 'small'
    mountpoint.mkdir()
    try:
        processes.run('mount', '-t', 'tmpfs', '-o', f'size={ROOM_BYTES}', 'tmpfs', str(mountpoint))
    except processes.LabError as exc:
        machine.give_up(f'no tmpfs can be mounted: {exc}')
    yield mountpoint
    processes.run('umount', '--lazy', str(mountpoint))


@contextlib.contextmanager
def started(path: pathlib.Path, **overrides: Any) -> Iterator[threat_log.ThreatLog]:
    conf = cfg.ConfigOpts()
    conf.register_opts(threat_log.OPTS, threat_log.GROUP.name)
    conf([], default_config_files=[], default_config_dirs=[])
    settings = {'path': str(path), 'window': 0, 'max_lines_per_second': 100000, **overrides}
    for name, value in settings.items():
        conf.set_override(name, value, threat_log.GROUP.name)
    log = threat_log.ThreatLog(conf.threat_log)
    try:
        yield log
    finally:
        log.close(10)


def contact(number: int) -> threat_log.Contact:
    return threat_log.Contact(
        'SPAMHAUS', f'instance-{number:08}', UUID, 'p', 'u', '10.0.0.5', '5.6.7.8', 'out'
    )


def written(directory: pathlib.Path) -> list[int]:
    """Return the numbers of all lines of all files; each line must be a whole one."""
    found = []
    for path in directory.iterdir():
        content = path.read_bytes()
        text = gzip.decompress(content) if path.suffix == '.gz' else content
        assert not text or text.endswith(b'\n')
        for line in text.decode('ascii').splitlines():
            fields = dict(field.split('=') for field in line.split(' ')[1:])
            assert list(fields)[0] == 'tag'
            assert list(fields)[-1] == 'direction'
            found.append(int(fields['domain'].removeprefix('instance-')))
    return sorted(found)


def write_whole(log: threat_log.ThreatLog, number: int) -> None:
    """Write one line and wait until it is in the file."""
    before = log.health().lines
    log.write([contact(number)])
    processes.wait_for(lambda: log.health().lines > before, what='the line')


@pytest.mark.parametrize('directive', ['create 0600', 'nocreate'])
def test_after_renaming_lines_soon_go_to_the_new_file(
    directory: pathlib.Path, rotate: Rotate, directive: str
) -> None:
    path = directory / 'threat.log'
    number = 0
    with started(path) as log:
        write_whole(log, number)
        for _ in range(2):
            rotate(directive)
            while not (path.exists() and path.stat().st_size):
                number += 1
                assert number < 100000
                write_whole(log, number)
        assert path.stat().st_mode & 0o777 == (0o640 if directive == 'nocreate' else 0o600)
    assert written(directory) == list(range(number + 1))
    assert len(list(directory.iterdir())) == 3


def test_copytruncate_loses_nothing_that_was_written_before_and_leaves_no_hole(
    directory: pathlib.Path, rotate: Rotate
) -> None:
    path = directory / 'threat.log'
    with started(path) as log:
        for number in range(ROTATIONS):
            write_whole(log, number)
            rotate('copytruncate')
            assert path.read_bytes() == b''
        write_whole(log, ROTATIONS)
        assert path.read_bytes().count(b'\0') == 0
    assert written(directory) == list(range(ROTATIONS + 1))


def test_renaming_under_load_loses_no_line(directory: pathlib.Path, rotate: Rotate) -> None:
    stopping = threading.Event()
    path = directory / 'threat.log'
    numbers = iter(range(10**9))

    def load() -> None:
        while not stopping.wait(0.001):
            log.write([contact(next(numbers)) for _ in range(10)])

    with started(path) as log:
        thread = threading.Thread(target=load)
        thread.start()
        try:
            for _ in range(ROTATIONS):
                rotate('create 0640')
                processes.wait_for(lambda: path.stat().st_size, what='lines in the new file')
        finally:
            stopping.set()
            thread.join()
    assert written(directory) == list(range(next(numbers)))
    assert sum(log.health().dropped.values()) == 0


def test_sighup_makes_compression_without_delay_safe(
    directory: pathlib.Path, rotate: Rotate
) -> None:
    path = directory / 'threat.log'
    with started(path) as log:
        before = signal.signal(signal.SIGHUP, lambda *_: log.reopen())
        try:
            for number in range(ROTATIONS):
                write_whole(log, number)
                rotate(
                    'create 0640', 'compress', f'postrotate\nkill -HUP {os.getpid()}\nendscript'
                )
                # No second passes before the next line, yet it is in the new file.
            write_whole(log, ROTATIONS)
        finally:
            signal.signal(signal.SIGHUP, before)
    assert path.stat().st_size
    assert written(directory) == list(range(ROTATIONS + 1))
    assert len(list(directory.glob('*.gz'))) == ROTATIONS


def test_a_full_disk_costs_lines_only_and_tells_how_many(small_disk: pathlib.Path) -> None:
    path, ballast = small_disk / 'threat.log', small_disk / 'ballast'
    ballast.write_bytes(bytes(BALLAST_BYTES))
    with started(path) as log:
        log.write([contact(number) for number in range(1000)])
        processes.wait_for(lambda: log.health().dropped['error'], what='the full disk')
        processes.wait_for(lambda: not log.health().is_writable, what='health to say so')
        ballast.unlink()
        # Nobody writes anything any more: the log itself finds out and tells what is missing.
        processes.wait_for(lambda: log.health().is_writable, what='the log to recover')
        write_whole(log, 1000)
        health = log.health()
    *lines, told, last = path.read_text().splitlines()
    torn = [line for line in lines if line.endswith('\\')]
    assert len(torn) <= 1
    assert ' tag=DROPPED ' in told
    assert told.endswith(f' reason=error count={health.dropped["error"]}')
    assert f'domain=instance-{1000:08} ' in last
    assert len(lines) - len(torn) + health.dropped['error'] == 1000
    assert health.lines == len(lines) - len(torn) + 2
