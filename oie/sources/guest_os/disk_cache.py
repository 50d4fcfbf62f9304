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

"""What inspections found, kept over restarts: one small file an instance.

An answer holds for one instance, one disk and one life (of the guest on this
host); anything else is another question. A file is old or new but never half,
and one that is damaged is none.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import os
import pathlib
import re
import stat
from typing import Any

from oie import model
from oie.sources.guest_os import base

LOG = logging.getLogger(__name__)

_VERSION = 1
_MOST_BYTES = 2**14
_MODE = 0o640
_DIRECTORY_MODE = 0o750
_UUID = re.compile('[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}')
_TEXTS = ('family', 'distro', 'info', 'product_name', 'product_variant', 'version')
_NUMBERS = ('version_major', 'version_minor')
# What nobody has asked about for so long belongs to an instance that is gone.
_FORGET_SECONDS = 30 * 86400.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known of one instance; times are seconds since 1970.

    :ivar key: the question that it answers: disk and life
    :ivar inspected_at: when an inspection ended well; None for never
    :ivar found: what it found, None for no operating system
    :ivar failed_at: when the last inspection failed after that; None when it did not
    :ivar reason: one word for that failure, and ``text`` the whole of it
    """

    key: str
    inspected_at: float | None = None
    found: model.GuestOs | None = None
    failed_at: float | None = None
    reason: str = ''
    text: str = ''


class DiskCache:
    """Records by instance, in a directory that nobody else writes."""

    def __init__(self, directory: str) -> None:
        self._directory = pathlib.Path(directory)
        self._told: set[str] = set()

    def load(self, uuid: str, key: str) -> Record:
        """Return what is known of an instance, an empty record for nothing."""
        path = self._path(uuid)
        try:
            record = decode(self._content(path))
        except FileNotFoundError:
            return Record(key=key)
        except PermissionError:
            # Of the whole directory, not of each file in it.
            self._tell(
                f'{self._directory} cannot be read by uid {os.geteuid()}: what was found earlier '
                'is not known'
            )
            return Record(key=key)
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as exc:
            self._tell(f'{path} is not used: {exc}; the instance will be inspected anew')
            return Record(key=key)
        return record if record.key == key else Record(key=key)

    def store(self, uuid: str, record: Record) -> None:
        """Keep a record; when that fails it is known until the next restart only."""
        path = self._path(uuid)
        beside = path.with_name(f'{path.name}.{os.getpid()}.tmp')
        try:
            self._directory.mkdir(_DIRECTORY_MODE, parents=True, exist_ok=True)
            self._write(beside, encode(record))
            beside.replace(path)
        except OSError as exc:
            self._tell(
                f'{path} cannot be written: {exc.strerror}; after a restart the instances will be '
                'inspected anew. Make the directory writable, or set '
                '[guest_os_libguestfs] cache_dir to one that is'
            )
            with contextlib.suppress(OSError):
                beside.unlink()

    def prune(self, now: float) -> None:
        """Remove the records of instances that have been gone for a month."""
        with contextlib.suppress(OSError):
            for entry in tuple(os.scandir(self._directory)):
                if entry.stat(follow_symlinks=False).st_mtime < now - _FORGET_SECONDS:
                    os.unlink(entry.path)

    def _path(self, uuid: str) -> pathlib.Path:
        # The uuid is libvirt's, yet it must not lead out of the directory.
        name = uuid if _UUID.fullmatch(uuid) else hashlib.sha256(uuid.encode()).hexdigest()
        return self._directory / f'{name}.json'

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            LOG.warning('%s', text)

    @staticmethod
    def _content(path: pathlib.Path) -> bytes:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(path, flags), 'rb') as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise ValueError('it is no plain file that only its owner can write')
            if status.st_uid not in (0, os.geteuid()):
                raise ValueError(f'it belongs to uid {status.st_uid}')
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ValueError('it is too long')
        return content

    @staticmethod
    def _write(path: pathlib.Path, content: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(path, flags, _MODE), 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def encode(record: Record) -> bytes:
    """Return a record as JSON."""
    return json.dumps({'format': _VERSION, **dataclasses.asdict(record)}).encode()


def decode(content: bytes) -> Record:
    """Return the record of a file.

    :raises ValueError: or TypeError, KeyError, RecursionError: it is none
    """
    fields = json.loads(content)
    if fields['format'] != _VERSION:
        raise ValueError(f'it is not of format {_VERSION}')
    return Record(
        key=_text(fields['key']),
        inspected_at=_time(fields['inspected_at']),
        found=None if fields['found'] is None else _guest_os(fields['found']),
        failed_at=_time(fields['failed_at']),
        reason=_text(fields['reason']),
        text=_text(fields['text']),
    )


def _guest_os(fields: dict[str, Any]) -> model.GuestOs:
    values: dict[str, Any] = {name: base.clean(_text(fields[name])) for name in _TEXTS}
    values.update({name: base.number(fields[name]) for name in _NUMBERS})
    return model.GuestOs(**values, learned_at=_time(fields['learned_at']))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f'{value!r:.60} is no text')
    return value


def _time(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f'{value!r:.60} is no time')
    return float(value)
