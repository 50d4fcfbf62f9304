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

"""Functions run inside another network namespace, by a thread made for it.

The namespace of a thread decides only at one moment: when a socket or a file of
/proc/sys/net is opened. So the thread enters, opens what is wanted and ends; what
it opened works everywhere. Nobody else ever runs in a foreign namespace, and when
the caller has closed what it got, nothing of ours keeps the namespace alive.

Needs CAP_SYS_ADMIN. Source: setns(2), network_namespaces(7).
"""

from collections.abc import Callable
from collections.abc import Sequence
import ctypes
import errno
import fnmatch
import functools
import os
import threading
from typing import Generic
from typing import TypeVar

from oie import exceptions

# Where ip-netns(8) and Neutron's agents keep the files of theirs.
DIRECTORY = '/run/netns'

# Named because the wildcard zero is what RestrictNamespaces= of systemd blocks.
CLONE_NEWNET = 0x40000000

_GONE = frozenset({errno.ENOENT, errno.EINVAL, errno.ESTALE})
_REFUSED = frozenset({errno.EPERM, errno.EACCES})

T = TypeVar('T')


def matching(patterns: Sequence[str], directory: str = DIRECTORY) -> list[str]:
    """Return the files of the namespaces whose names match one of the patterns, in order.

    :raises OSError: the directory cannot be listed
    """
    return [
        os.path.join(directory, name)
        for name in sorted(os.listdir(directory))
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    ]


def run_in(path: str, function: Callable[[], T]) -> T:
    """Return what ``function`` gives inside a network namespace.

    It should open what it needs and return soon: nobody can interrupt it.

    :param path: file that stands for the namespace, as in /run/netns
    :raises SourceError: the namespace has vanished or may not be entered
    """
    visit = _Visit(path, function)
    thread = threading.Thread(target=visit.run, name='oie-netns', daemon=True)
    try:
        thread.start()
    except RuntimeError as exc:
        raise exceptions.SourceError(f'no thread for {path}: {exc}') from exc
    thread.join()
    return visit.result()


class _Visit(Generic[T]):
    """One thread's way into a namespace; it never comes back, it ends."""

    def __init__(self, path: str, function: Callable[[], T]) -> None:
        self._path = path
        self._function = function
        self._value: T
        self._error: BaseException | None = None

    def run(self) -> None:
        """Enter and call the function, in the thread that is sacrificed."""
        try:
            _enter(self._path)
            self._value = self._function()
        except BaseException as exc:
            self._error = exc

    def result(self) -> T:
        """Return the function's value or raise what was raised in the thread."""
        if self._error is not None:
            raise self._error
        return self._value


def _enter(path: str) -> None:
    """Move the calling thread, and no other, into a network namespace for good.

    :raises VanishedNamespace: there is no such namespace any more
    :raises SourceError: it may not be entered
    """
    try:
        # O_NONBLOCK: whatever lies there instead must not make us wait for it.
        # What is no network namespace is refused by setns() itself.
        namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            setns(namespace)
        finally:
            os.close(namespace)
    except OSError as exc:
        kind = exceptions.VanishedNamespace if exc.errno in _GONE else exceptions.SourceError
        raise kind(f'{path}: {_reason(exc)}') from exc


def setns(namespace: int) -> None:
    """Move the calling thread into the network namespace that an open file stands for.

    :raises OSError: EINVAL: it stands for none; EPERM: it may not be entered
    """
    # os.setns() came with Python 3.12.
    if _library().setns(namespace, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.setns.argtypes = (ctypes.c_int, ctypes.c_int)
    return library


def _reason(exc: OSError) -> str:
    if exc.errno in _GONE:
        return f'the network namespace has vanished ({exc.strerror})'
    if exc.errno in _REFUSED:
        return f'the network namespace may not be entered ({exc.strerror}); it needs CAP_SYS_ADMIN'
    return str(exc.strerror)
