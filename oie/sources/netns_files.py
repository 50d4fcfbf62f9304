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


"""The files that stand for network namespaces: which there are, and one of them opened.

Whatever lies there in place of one costs only itself. Source: ip-netns(8), setns(2).
"""

import errno
import os
import stat

from oie import exceptions

# O_NONBLOCK: a pipe must not make us wait for whoever writes into it.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
REFUSED = 'refused'
VANISHED = 'vanished'
_REASONS = {
    errno.ENOENT: VANISHED,
    errno.ESTALE: VANISHED,
    errno.ELOOP: 'symlink',
    errno.ENXIO: 'not_a_namespace',
    errno.ENODEV: 'not_a_namespace',
    errno.EPERM: REFUSED,
    errno.EACCES: REFUSED,
}
_FAILED = 'failed'


class SkippedError(Exception):
    """A namespace could not be entered.

    :ivar reason: ``vanished``, ``stale`` (a plain file that is left, or all that a private mount
        shows), ``symlink``, ``not_a_namespace``, ``refused``, ``failed`` or what a caller adds
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def names(directory: str) -> list[str]:
    """Return the names in the directory in order, none where there is no directory.

    It comes with the first namespace that somebody names.

    :raises SourceError: it cannot be listed
    """
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise exceptions.SourceError(f'[netns] directory: {directory}: {exc.strerror}') from exc


def is_fit(name: str) -> bool:
    """Return whether a name can be a label: not of bytes that are no text, or no printed one."""
    return name.isprintable()


def open_file(path: str) -> int:
    """Return a file of a namespace, open.

    :raises SkippedError: it cannot be opened
    """
    try:
        return os.open(path, _FLAGS)
    except OSError as exc:
        raise SkippedError(_REASONS.get(exc.errno or 0, _FAILED), _text(exc)) from exc


def refused(file: int, exc: OSError) -> SkippedError:
    """Return why the kernel takes an open file for no namespace, or lets nobody in."""
    if exc.errno == errno.EPERM:
        return SkippedError(REFUSED, f'{_text(exc)}; it needs CAP_SYS_ADMIN')
    if exc.errno != errno.EINVAL:
        return SkippedError(_REASONS.get(exc.errno or 0, _FAILED), _text(exc))
    if stat.S_ISREG(os.fstat(file).st_mode):
        return SkippedError('stale', 'a plain file that stands for no network namespace')
    return SkippedError('not_a_namespace', 'no file of a network namespace')


def _text(exc: OSError) -> str:
    return exc.strerror or str(exc)
