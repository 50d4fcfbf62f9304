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

"""Addresses -> listening sockets, and who may ask what there."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import fcntl
import functools
import grp
import os
import re
import socket
import stat
from typing import TYPE_CHECKING

from oie import exceptions
from oie.web import messages
from oie.web import routes as web_routes

if TYPE_CHECKING:  # who needs no web configuration file does not pay for YAML and TLS
    from oie.web import protection

BACKLOG = 128
_ADDRESS = re.compile(r'(?:\[([^][]+)]|([^][:]+)):([0-9]{1,5})')


def everybody(peer: messages.Peer) -> bool:
    """Return True: whoever reaches the address may ask."""
    return True


@dataclasses.dataclass(frozen=True, slots=True)
class Bound:
    """A listening socket; release() is due just before it is closed."""

    socket: socket.socket
    address: str
    release: Callable[[], None] = lambda: None


@dataclasses.dataclass(frozen=True, slots=True)
class TcpListener:
    """A name or address and a port; ``::`` is IPv6 only, as ``0.0.0.0`` is IPv4 only."""

    host: str
    port: int
    routes: web_routes.Routes
    authorize: Callable[[messages.Peer], bool] = everybody
    guard: 'protection.Guard | None' = None

    @property
    def address(self) -> str:
        """The address as one writes it."""
        return f'[{self.host}]:{self.port}' if ':' in self.host else f'{self.host}:{self.port}'

    def bind(self) -> Bound:
        """Return a socket on the first address of the host.

        :raises OSError: the address is taken, unknown or not ours
        """
        family, kind, protocol, _, address = socket.getaddrinfo(
            self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with contextlib.ExitStack() as undo:
            # Named, because asyncio sets TCP_NODELAY only where the protocol is.
            listening = undo.enter_context(socket.socket(family, kind, protocol))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind(address)
            listening.listen(BACKLOG)
            undo.pop_all()
        port = listening.getsockname()[1]
        return Bound(listening, dataclasses.replace(self, port=port).address)


@dataclasses.dataclass(frozen=True, slots=True)
class UnixListener:
    """A path; its directory is made if missing, a socket that nobody serves is replaced."""

    path: str
    routes: web_routes.Routes
    authorize: Callable[[messages.Peer], bool] = everybody
    mode: int = 0o660
    group: str | None = None

    @property
    def guard(self) -> None:
        """None: the kernel vouches for who asks here."""

    @property
    def address(self) -> str:
        """The address as one writes it."""
        return f'unix:{self.path}'

    def bind(self) -> Bound:
        """Return a socket on the path; its release takes the path away.

        :raises OSError: the path cannot be used
        :raises WebError: somebody else uses it, or there is no such group
        """
        directory = os.path.dirname(os.path.abspath(self.path))
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory)
            os.chmod(directory, 0o755)  # noqa: S103 - who may use the socket must reach it
        with _locked(directory), contextlib.ExitStack() as undo:
            _remove_stale(self.path)
            listening = undo.enter_context(socket.socket(socket.AF_UNIX))
            listening.bind(self.path)
            undo.callback(os.unlink, self.path)
            # Nobody can connect before listen(), so nobody can before the rights are right.
            if self.group is not None:
                os.chown(self.path, -1, group_id(self.group))
            os.chmod(self.path, self.mode)
            listening.listen(BACKLOG)
            release = functools.partial(_unlink, self.path, _identity(self.path))
            undo.pop_all()
        return Bound(listening, self.address, release)


@dataclasses.dataclass(frozen=True, slots=True)
class PassedListener:
    """A socket that the service manager opened and keeps; its path is not ours to remove."""

    socket: socket.socket
    routes: web_routes.Routes
    authorize: Callable[[messages.Peer], bool] = everybody
    guard: 'protection.Guard | None' = None

    @property
    def is_unix(self) -> bool:
        """Whether it is a unix socket, TCP else."""
        return self.socket.family == socket.AF_UNIX

    @property
    def address(self) -> str:
        """The address as one writes it."""
        name = self.socket.getsockname()
        if self.is_unix:
            return f'unix:{name}'
        return f'[{name[0]}]:{name[1]}' if ':' in name[0] else f'{name[0]}:{name[1]}'

    def bind(self) -> Bound:
        """Return the socket, which listens already."""
        return Bound(self.socket, self.address)


Listener = TcpListener | UnixListener | PassedListener


def parse_address(text: str) -> tuple[str, int]:
    """Return the host and port of ``HOST:PORT`` or ``[IPV6]:PORT``.

    :raises WebError: the text is neither
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match[3]) > 65535:
        raise exceptions.WebError(f'{text!r} is not an address: write HOST:PORT or [IPV6]:PORT')
    return match[1] or match[2], int(match[3])


def group_id(name: str) -> int:
    """Return the number of a group, given by name or as a number.

    :raises WebError: there is no such group
    """
    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError as exc:
        raise exceptions.WebError(f'there is no group {name!r}') from exc


@contextlib.contextmanager
def _locked(directory: str) -> Iterator[None]:
    """Keep other instances from looking at a path here while we change it, or the reverse."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_stale(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise exceptions.WebError(f'{path} is there and is not a socket: remove it')
    if _is_served(path):
        raise exceptions.WebError(
            f'{path} is served by a running process: stop it or choose another path'
        )
    os.unlink(path)


def _is_served(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            return True  # its queue is full, so somebody has one
    return True


def _identity(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def _unlink(path: str, identity: tuple[int, int]) -> None:
    """Remove the path if it is still ours; our open socket keeps its inode from being reused."""
    with contextlib.suppress(OSError), _locked(os.path.dirname(os.path.abspath(path))):
        if _identity(path) == identity:
            os.unlink(path)
