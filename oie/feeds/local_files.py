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


"""Reads lists and secrets from files of this host, and opens nothing but regular files."""

from collections.abc import Iterator
import contextlib
import io
import os
import stat

from oie import exceptions

_LONGEST_SECRET = 8192
_CHUNK = 2**16


def read(path: str, max_bytes: int) -> bytes:
    """Return the content of a file, or of the files in a directory with a line break between.

    Of a directory the regular files count whose names begin with no dot, in the order of the
    names.

    :raises FeedError: not readable, not regular, too large, or written to meanwhile
    """
    document = io.BytesIO()
    with _told(path):
        paths = _files_below(path) if os.path.isdir(path) else [path]
    for position, file_path in enumerate(paths):
        with _told(file_path):
            if position:
                document.write(b'\n')
            _copy(file_path, document, max_bytes)
    return document.getvalue()


def read_secret(path: str) -> str:
    """Return the secret in a file, without the line break at its end.

    :raises FeedError: others may read the file, or it holds no line of ASCII; the text never
        shows what is in it
    """
    with _told(path), _opened(path) as descriptor:
        if os.fstat(descriptor).st_mode & 0o007:
            raise exceptions.FeedError('others may use this file; chmod o= it')
        content = os.read(descriptor, _LONGEST_SECRET + 1)
        if len(content) > _LONGEST_SECRET:
            raise exceptions.FeedError(f'longer than {_LONGEST_SECRET} bytes: no secret')
        secret = content.strip(b' \t\r\n')
        if not secret or not all(0x20 <= byte < 0x7F for byte in secret):
            raise exceptions.FeedError('must hold one line of printable ASCII, and nothing else')
        return secret.decode('ascii')


def _files_below(directory: str) -> list[str]:
    names = sorted(name for name in os.listdir(directory) if not name.startswith('.'))
    paths = [os.path.join(directory, name) for name in names]
    # A link to nowhere is an error, not a file less: part of the list would be missing.
    return [path for path in paths if stat.S_ISREG(_stat(path).st_mode)]


def _stat(path: str) -> os.stat_result:
    with _told(path):
        return os.stat(path)


def _copy(path: str, document: io.BytesIO, max_bytes: int) -> None:
    with _opened(path) as descriptor:
        before = os.fstat(descriptor)
        while chunk := os.read(descriptor, _CHUNK):
            document.write(chunk)
            if document.tell() > max_bytes:
                raise exceptions.FeedError(f'more than {max_bytes} bytes; raise max_bytes')
        after = os.fstat(descriptor)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise exceptions.FeedError(
            'was written to while it was read; write another file and rename it over this one'
        )


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    """Open a regular file; to open a pipe would wait, to open a device may act on it."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise exceptions.FeedError('no regular file')
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        # Something else may lie there by now.
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise exceptions.FeedError('no regular file')
        yield descriptor
    finally:
        os.close(descriptor)


class _NamedError(exceptions.FeedError):
    """Names its file already."""


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    """Make errors name the file."""
    try:
        yield
    except _NamedError:
        raise
    except exceptions.FeedError as exc:
        raise _NamedError(f'{path}: {exc}') from exc
    except OSError as exc:
        raise _NamedError(f'{path}: cannot be read: {exc.strerror}') from exc
    except ValueError as exc:
        raise _NamedError(f'{path!r} is no path') from exc
