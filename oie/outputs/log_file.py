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

"""Lines → a file that others may rotate, remove or fill the disk of."""

from collections.abc import Callable
import errno
import os
import stat
import time

MODE = 0o640
DIRECTORY_MODE = 0o750
# Seconds from one look at the path to the next, and from a failure to the next attempt.
LOOK_INTERVAL = 1.0
RETRY_INTERVAL = 1.0

# Not for writing alone: the end of the file is looked at. O_NONBLOCK: a FIFO must not hold us.
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_ATTEMPTS = 3
# A cut number looks like a smaller one; no line of ours ends in a backslash.
_END_OF_TORN_LINE = b'\\\n'


class LogFile:
    """Appends whole lines to the file at a path, which may become another one at any time.

    :param clock: seconds that never go back
    """

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._fd: int | None = None
        self._looked_at = 0.0
        self._is_torn = False
        self._failure: tuple[int | None, str] | None = None
        self._failed_at = 0.0

    @property
    def is_writable(self) -> bool:
        """Whether the last attempt to open or to write it succeeded."""
        return self._failure is None

    def write(self, line: bytes) -> None:
        """Append one line.

        After a failure nothing is tried for a second. A line of which only a part
        fitted is ended by a backslash as soon as there is room again.

        :raises OSError: it could not be written, or not all of it
        """
        now = self._clock()
        if self._failure is not None and now - self._failed_at < RETRY_INTERVAL:
            raise OSError(*self._failure)
        try:
            self._append(self._file(now), line)
        except OSError as exc:
            self._note(exc, now)
            raise
        self._failure = None

    def open(self) -> None:
        """Open the file that is at the path now, if that was not done.

        :raises OSError: it cannot be opened, or is not a regular file
        """
        now = self._clock()
        try:
            self._opened(now)
        except OSError as exc:
            self._note(exc, now)
            raise

    def close(self) -> None:
        """Close the file; the next line opens what is at the path then."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _file(self, now: float) -> int:
        if self._fd is not None and now - self._looked_at >= LOOK_INTERVAL:
            self._looked_at = now
            if not _leads_to(self._path, self._fd):
                self.close()
        return self._opened(now)

    def _opened(self, now: float) -> int:
        if self._fd is None:
            self._fd = _open(self._path)
            self._looked_at = now
            self._failure = None
            self._is_torn = True  # perhaps: the writer before us may have died in a full disk
        return self._fd

    def _append(self, fd: int, line: bytes) -> None:
        # A file that was truncated meanwhile has no torn line any more.
        rest = _END_OF_TORN_LINE + line if self._is_torn and not _ends_clean(fd) else line
        while rest:
            written = os.write(fd, rest)
            if not written:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._is_torn = rest[written - 1] != ord('\n')
            rest = rest[written:]

    def _note(self, exc: OSError, now: float) -> None:
        self._failure, self._failed_at = (exc.errno, exc.strerror or str(exc)), now


def _open(path: str) -> int:
    """Return the open file at a path, which is made if need be, with its directory.

    :raises OSError: it cannot be opened, or is not a regular file
    """
    for _ in range(_ATTEMPTS):
        try:
            return _make(path)
        except FileNotFoundError:
            _make_directory(os.path.dirname(path))
        except FileExistsError:
            try:
                return _regular(os.open(path, _FLAGS))
            except FileNotFoundError:
                continue  # it was rotated away between the two
            except OSError as exc:
                if exc.errno == errno.ELOOP:
                    raise OSError(exc.errno, 'a symbolic link is not followed') from exc
                raise
    return _make(path)


def _make_directory(path: str) -> None:
    try:
        os.makedirs(path, DIRECTORY_MODE, exist_ok=True)
    except OSError as exc:
        raise OSError(exc.errno, f'its directory cannot be made: {exc.strerror}') from exc


def _make(path: str) -> int:
    fd = _regular(os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, MODE))
    os.fchmod(fd, MODE)  # whatever the umask is
    return fd


def _regular(fd: int) -> int:
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, 'it is not a regular file')


def _leads_to(path: str, fd: int) -> bool:
    """Whether a path is still that of the open file."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(fd))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # nobody can tell; what is open still takes lines


def _ends_clean(fd: int) -> bool:
    size = os.fstat(fd).st_size
    return not size or os.pread(fd, 1, size - 1) in (b'\n', b'')
