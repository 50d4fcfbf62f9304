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

"""JSON that must outlive us → a small file and back.

It is written beside its place and renamed, so that it is always a whole one. None is
flushed to the disk: what is told of QEMUs ends with the host, as they do.
"""

import contextlib
import json
import os
import stat
from typing import Any

from oie import exceptions

# Uuids and numbers, which libvirt's read-only socket gives anybody who reads this. An
# oie-pollster without an exporter runs as another user than the one who wrote it.
_MODE = 0o644
_MOST_BYTES = 16 * 2**20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def load(path: str) -> Any:
    """Return what was kept, None where nothing was.

    :raises SourceError: the file cannot be read, or holds no JSON
    """
    try:
        with open(os.open(path, _READ), 'rb') as file:
            return json.loads(_content(file))
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise exceptions.SourceError(f'{path} cannot be read: {exc.strerror}') from exc
    except (ValueError, RecursionError) as exc:
        raise exceptions.SourceError(f'{path} is damaged: {exc}') from exc


def save(path: str, value: Any) -> None:
    """Keep a value in the place of the last one.

    :raises SourceError: it could not be written; the last one is still there
    """
    beside = f'{path}.new'
    content = json.dumps(value).encode('ascii')
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        with open(os.open(beside, _WRITE, _MODE), 'wb') as file:
            # Whatever the umask takes away.
            os.fchmod(file.fileno(), _MODE)
            file.write(content)
        os.replace(beside, path)
    except OSError as exc:
        raise exceptions.SourceError(f'{path} cannot be written: {exc.strerror}') from exc


def _content(file: Any) -> bytes:
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        raise ValueError('it is no plain file')
    content: bytes = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f'it has more than {_MOST_BYTES} bytes')
    return content
