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

"""Small files that another program reads, replaced in one step and under a lock."""

from collections.abc import Iterator
import contextlib
import fcntl
import grp
import os
import tempfile

from oie import exceptions


@contextlib.contextmanager
def locked(directory: str) -> Iterator[None]:
    """Keep all others who ask for it from changing the files of a directory.

    :raises GateError: there is no such directory
    """
    try:
        place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as exc:
        raise exceptions.GateError(
            f'{directory}: {exc.strerror}; make the directory that [gate] directory names'
        ) from exc
    try:
        fcntl.flock(place, fcntl.LOCK_EX)
        yield
    finally:
        os.close(place)


def read(path: str) -> str | None:
    """Return the text of a file, None when there is none.

    :raises GateError: it cannot be read
    """
    try:
        with open(path, encoding='utf-8') as file:
            return file.read()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as exc:
        raise exceptions.GateError(f'{path} cannot be read: {exc}') from exc


def replace(path: str, text: str, *, mode: int, group: str = '') -> bool:
    """Put a file with this text, mode and group in place; return whether its text changed.

    A reader sees the old file or the new one, whole.

    :param group: name or number; empty: the group stays the writer's
    :raises GateError: it could not be written; the old file is what it was
    """
    before = read(path)
    try:
        gid = _gid(group) if group else -1
        descriptor, temporary = tempfile.mkstemp(
            prefix=f'.{os.path.basename(path)}.', dir=os.path.dirname(path)
        )
        try:
            with os.fdopen(descriptor, 'w', encoding='utf-8') as file:
                file.write(text)
                file.flush()
                os.fchown(file.fileno(), -1, gid)
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as exc:
        raise exceptions.GateError(
            f'{path} cannot be written: {exc.strerror}; run this as a user who may, and see '
            'that [gate] group is one of its groups'
        ) from exc
    return text != before


def _gid(group: str) -> int:
    if group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise exceptions.GateError(
            f'[gate] group = {group}: there is no such group here; name another one, or its number'
        ) from None
