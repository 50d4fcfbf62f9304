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

"""Small files that are old or new but never half, in a directory that others may have touched.

A file is written beside its place, flushed to the disk and renamed; it is read
only when it is a plain file of ours that nobody else can write. Neither way a
symbolic link is followed or a pipe waited for.
"""

from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import os
import stat

from oie import exceptions

_FILE_MODE = 0o640
_DIRECTORY_MODE = 0o750
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def replace(directory: str, name: str, parts: Iterable[bytes]) -> None:
    """Put a file with these contents in the place of the one that was there.

    The directory is made when it is missing. What a killed writer left of its
    own attempt goes.

    :raises FeedError: it could not be written; the old file is what it was
    """
    path = os.path.join(directory, name)
    try:
        with _opened(directory, is_made=True) as place:
            _remove_leftovers(place, name)
            temporary = f'{name}.{os.getpid()}.tmp'
            try:
                _write(place, temporary, parts)
                os.rename(temporary, name, src_dir_fd=place, dst_dir_fd=place)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=place)
                raise
            os.fsync(place)
    except OSError as exc:
        raise exceptions.FeedError(
            f'{path} cannot be written: {exc.strerror}; make the directory writable for '
            f'uid {os.geteuid()} and see that the disk is not full'
        ) from exc


def read(directory: str, name: str, max_bytes: int) -> bytes | None:
    """Return the contents of a file, None when there is none.

    :raises FeedError: it cannot be read, is no plain file, is not ours alone, or is too large
    """
    content = read_head(directory, name, max_bytes + 1)
    if content is not None and len(content) > max_bytes:
        raise exceptions.FeedError(
            f'{os.path.join(directory, name)} has more than the {max_bytes} bytes that it may have'
        )
    return content


def read_head(directory: str, name: str, count: int) -> bytes | None:
    """Return the first bytes of a file, None when there is none.

    :raises FeedError: it cannot be read, is no plain file, or is not ours alone
    """
    path = os.path.join(directory, name)
    try:
        with _opened(directory) as place:
            # O_NONBLOCK: opening a pipe would wait for somebody to write.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with open(os.open(name, flags, dir_fd=place), 'rb') as file:
                _check(path, os.fstat(file.fileno()))
                return file.read(count)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise exceptions.FeedError(f'{path} cannot be read: {exc.strerror}') from exc


def set_aside(directory: str, name: str) -> str:
    """Rename a file to ``<name>.bad``, in place of an earlier one; return what became of it."""
    try:
        with _opened(directory) as place:
            os.rename(name, f'{name}.bad', src_dir_fd=place, dst_dir_fd=place)
    except OSError as exc:
        return f'it cannot be moved away: {exc.strerror}'
    return f'it is now {name}.bad'


def is_writable(directory: str) -> bool:
    """Tell whether files can be made in the directory."""
    return os.access(directory, os.W_OK | os.X_OK, effective_ids=True)


@contextlib.contextmanager
def _opened(directory: str, *, is_made: bool = False) -> Iterator[int]:
    if is_made:
        os.makedirs(directory, _DIRECTORY_MODE, exist_ok=True)
    place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield place
    finally:
        os.close(place)


def _remove_leftovers(place: int, name: str) -> None:
    for other in os.listdir(place):
        if other.startswith(f'{name}.') and other.endswith('.tmp'):
            with contextlib.suppress(OSError):
                os.unlink(other, dir_fd=place)


def _write(place: int, name: str, parts: Iterable[bytes]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(name, flags, _FILE_MODE, dir_fd=place), 'wb') as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def _check(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise exceptions.FeedError(f'{path} is no plain file; remove it')
    if status.st_uid not in (0, os.geteuid()):
        raise exceptions.FeedError(
            f'{path} belongs to uid {status.st_uid}, not to us (uid {os.geteuid()}); remove it'
        )
    if status.st_mode & _OTHERS_MAY_WRITE:
        raise exceptions.FeedError(
            f'{path} can be written by others (mode {stat.S_IMODE(status.st_mode):o}); remove it'
        )
