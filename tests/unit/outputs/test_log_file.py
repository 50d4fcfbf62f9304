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

"""A file that is rotated, removed, replaced, and whose disk fills up."""

import contextlib
import errno
import os
import stat

import pytest

from oie.outputs import log_file
from tests import held


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


class Disk:
    """os.write on a disk with so much room."""

    def __init__(self):
        self.room = 10**9
        self.calls = 0
        self._write = os.write

    def write(self, fd, data):
        self.calls += 1
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._write(fd, data[: self.room])
        self.room -= written
        return written


@pytest.fixture
def disk(monkeypatch):
    made = Disk()
    monkeypatch.setattr(os, 'write', made.write)
    return made


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'threat.log'


@pytest.fixture
def open_at(clock):
    """Make the file of a path; it is closed after the test."""
    with contextlib.ExitStack() as made:
        yield lambda path: made.enter_context(
            contextlib.closing(log_file.LogFile(str(path), clock))
        )


@pytest.fixture
def file(open_at, path):
    return open_at(path)


@pytest.fixture
def set_umask():
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize('umask', [0, 0o022, 0o777])
def test_a_new_file_has_mode_0640_whatever_the_umask(file, path, set_umask, umask):
    set_umask(umask)
    file.write(b'one\n')
    assert mode(path) == 0o640
    assert path.read_bytes() == b'one\n'


def test_a_file_that_is_there_keeps_its_lines_and_its_mode(file, path):
    path.write_bytes(b'old\n')
    path.chmod(0o600)
    file.write(b'new\n')
    assert path.read_bytes() == b'old\nnew\n'
    assert mode(path) == 0o600


def test_a_missing_directory_is_made_for_owner_and_group(tmp_path, open_at, set_umask):
    set_umask(0)
    path = tmp_path / 'a' / 'oie' / 'threat.log'
    open_at(path).write(b'one\n')
    assert path.read_bytes() == b'one\n'
    assert mode(path.parent) == 0o750


def test_a_directory_that_cannot_be_made_is_told(tmp_path, open_at):
    (tmp_path / 'oie').symlink_to(tmp_path / 'nowhere' / 'else')
    with pytest.raises(OSError, match='its directory cannot be made'):
        open_at(tmp_path / 'oie' / 'threat.log').write(b'one\n')


def test_a_symbolic_link_is_not_followed(file, path, tmp_path):
    target = tmp_path / 'passwd'
    target.write_bytes(b'root\n')
    path.symlink_to(target)
    with pytest.raises(OSError, match='symbolic link'):
        file.write(b'one\n')
    assert target.read_bytes() == b'root\n'
    assert not file.is_writable


def test_a_dangling_symbolic_link_makes_no_file(file, path, tmp_path):
    path.symlink_to(tmp_path / 'target')
    with pytest.raises(OSError, match='symbolic link'):
        file.write(b'one\n')
    assert not (tmp_path / 'target').exists()


def test_a_fifo_neither_holds_nor_gets_anything(file, path):
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(OSError, match='not a regular file'):
            file.write(b'one\n')
        assert os.read(reader, 10) == b''
    finally:
        os.close(reader)


@pytest.mark.parametrize('make', [os.mkdir, lambda path: os.mknod(path, stat.S_IFSOCK)])
def test_what_is_no_file_is_refused_and_nothing_stays_open(file, path, make):
    make(path)
    with held.nothing_more(), pytest.raises(OSError):  # noqa: PT011
        file.write(b'one\n')


def test_after_renaming_lines_go_to_a_new_file_within_a_second(file, path, clock):
    file.write(b'one\n')
    rotated = path.rename(path.with_suffix('.1'))
    clock.advance(0.5)
    file.write(b'two\n')
    clock.advance(0.5)
    file.write(b'three\n')
    assert rotated.read_bytes() == b'one\ntwo\n'
    assert path.read_bytes() == b'three\n'
    assert mode(path) == 0o640


def test_the_file_that_rotation_made_is_used_as_it_is(file, path, clock):
    file.write(b'one\n')
    path.rename(path.with_suffix('.1'))
    path.touch(0o600)
    clock.advance(1)
    file.write(b'two\n')
    assert path.read_bytes() == b'two\n'
    assert mode(path) == 0o600


def test_a_removed_file_is_made_again(file, path, clock):
    file.write(b'one\n')
    path.unlink()
    clock.advance(1)
    file.write(b'two\n')
    assert path.read_bytes() == b'two\n'


def test_a_directory_that_vanished_is_made_again(tmp_path, open_at, clock):
    path = tmp_path / 'oie' / 'threat.log'
    file = open_at(path)
    file.write(b'one\n')
    path.unlink()
    path.parent.rmdir()
    clock.advance(1)
    file.write(b'two\n')
    assert path.read_bytes() == b'two\n'


def test_copytruncate_leaves_no_hole(file, path):
    file.write(b'one\n')
    os.truncate(path, 0)
    file.write(b'two\n')
    assert path.read_bytes() == b'two\n'


def test_a_closed_file_is_opened_anew_at_once(file, path):
    file.write(b'one\n')
    path.rename(path.with_suffix('.1'))
    file.close()
    file.open()
    assert path.read_bytes() == b''
    file.write(b'two\n')
    assert path.read_bytes() == b'two\n'


def test_a_symbolic_link_in_place_of_the_file_is_not_followed_either(file, path, clock):
    file.write(b'one\n')
    rotated = path.rename(path.with_suffix('.1'))
    path.symlink_to(rotated)
    clock.advance(1)
    with pytest.raises(OSError, match='symbolic link'):
        file.write(b'two\n')
    assert rotated.read_bytes() == b'one\n'


def test_a_full_disk_costs_lines_and_is_over_by_itself(file, path, disk, clock):
    file.write(b'one\n')
    disk.room = 0
    with pytest.raises(OSError, match='No space left'):
        file.write(b'two\n')
    assert not file.is_writable
    disk.room = 1000
    clock.advance(1)
    file.write(b'three\n')
    assert file.is_writable
    assert path.read_bytes() == b'one\nthree\n'


def test_a_failing_disk_is_asked_once_a_second(file, disk, clock):
    disk.room = 0
    for _ in range(5):
        with pytest.raises(OSError, match='No space left'):
            file.write(b'one\n')
    assert disk.calls == 1


def test_a_torn_line_is_marked_and_the_next_one_begins_clean(file, path, disk, clock):
    disk.room = 12
    with pytest.raises(OSError, match='No space left'):
        file.write(b'flows=1 count=12345\n')
    disk.room = 1000
    clock.advance(1)
    file.write(b'flows=2\n')
    assert path.read_bytes() == b'flows=1 coun\\\nflows=2\n'


def test_a_line_torn_twice_still_leaves_the_next_one_clean(file, path, disk, clock):
    # Room for 3 bytes of the line; for the backslash alone; for the whole end and a byte more.
    for room in (3, 1, 3):
        disk.room = room
        with pytest.raises(OSError, match='No space left'):
            file.write(b'abcdef\n')
        clock.advance(1)
    disk.room = 1000
    file.write(b'last\n')
    *torn, last = path.read_bytes().splitlines()
    assert last == b'last'
    assert all(line.endswith(b'\\') for line in torn)


def test_a_torn_line_of_an_earlier_process_is_ended_too(path, open_at):
    path.write_bytes(b'one\nhalf a li')
    open_at(path).write(b'two\n')
    assert path.read_bytes() == b'one\nhalf a li\\\ntwo\n'


def test_a_torn_line_that_was_truncated_away_is_forgotten(file, path, disk, clock):
    disk.room = 3
    with pytest.raises(OSError, match='No space left'):
        file.write(b'abcdef\n')
    disk.room = 1000
    os.truncate(path, 0)
    clock.advance(1)
    file.write(b'two\n')
    assert path.read_bytes() == b'two\n'


def test_short_writes_alone_cost_nothing(file, path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, 'write', lambda fd, data: write(fd, data[:5]))
    file.write(b'a long line\n')
    assert path.read_bytes() == b'a long line\n'


def test_a_write_that_takes_nothing_does_not_loop_for_ever(file, monkeypatch):
    monkeypatch.setattr(os, 'write', lambda fd, data: 0)
    with pytest.raises(OSError, match='No space left'):
        file.write(b'one\n')
