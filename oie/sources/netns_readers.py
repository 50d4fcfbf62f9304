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


"""One network namespace → what is known of it, from inside or from outside.

Nothing of a namespace stays open when it has been read: it would live on by that.
"""

from collections.abc import Callable
from collections.abc import Mapping
import contextlib
import errno
import os
import socket
import struct
import types
from typing import Protocol
from typing import TypeVar

from oie import exceptions
from oie import model
from oie.config import netns_settings
from oie.sources import conntrack_counts
from oie.sources import device_addresses
from oie.sources import links
from oie.sources import namespaces
from oie.sources import netlink_attributes
from oie.sources import netlink_client
from oie.sources import netns_devices
from oie.sources import netns_files
from oie.sources import proc_figures

T = TypeVar('T')

PROC = '/proc'
# Of the thread that reads: /proc/net is that of the main thread.
NET = f'{PROC}/thread-self/net'

RTM_NEWNSID = 88
RTM_GETNSID = 90
NETNSA_NSID = 1
NETNSA_FD = 3
NLM_F_ACK = 0x4
IFLA_TARGET_NETNSID = 46
IFA_TARGET_NETNSID = 10
_NO_RIGHT = (errno.EPERM, errno.EACCES)
_NSID = struct.Struct('=i')
_ANY = _NOT_ASSIGNED = -1
# struct rtgenmsg, and what pads it.
_GENERAL = bytes(4)

_NONE: Mapping[str, str] = types.MappingProxyType({})
_NO_FIGURES: Mapping[tuple[str, str], int] = types.MappingProxyType({})
_NO_FILES: Mapping[str, float] = types.MappingProxyType({})


class Reader(Protocol):
    """What reads namespaces during one pass, in the thread of the pass."""

    def read(self, file: int, name: str, known: netns_devices.Known) -> model.Namespace:
        """Return what is known of a namespace; what could not be read has a failure.

        :param file: stands for the namespace, open
        :raises SkippedError: nothing can be read of it
        """

    def end_pass(self) -> None:
        """Close what the pass has opened."""


class _Attempts:
    """Tries one part after the other; the failure of one costs only itself."""

    def __init__(self) -> None:
        self.failures: dict[str, str] = {}

    def __call__(self, part: str, function: Callable[..., T], *arguments: object) -> T | None:
        """Return what the function gives, None if that failed."""
        try:
            return function(*arguments)
        except exceptions.SourceError as exc:
            self.failures[part] = str(exc)
        except OSError as exc:
            self.failures[part] = exc.strerror or str(exc)
        return None


class InsideReader:
    """Enters each namespace, and leaves it only for the next.

    So its thread must end after the last one: it never comes home, and nobody else may run in it.

    :param parts: what is read besides the devices, see [netns] parts
    """

    def __init__(self, settings: netns_settings.Settings, parts: tuple[str, ...]) -> None:
        self._devices = netns_devices.DeviceReader(settings.devices)
        self._parts = frozenset(parts)
        self._proc_metrics = settings.proc_metrics
        self._parsers = {
            part: proc_figures.Parser(keys, settings.figures)
            for part, keys in proc_figures.PARSERS.items()
            if part in parts
        }
        self._net: int | None = None
        self._buffer = memoryview(bytearray(netlink_client.ROOM))
        self._links_request = links.request()
        self._addresses_request = device_addresses.request()

    def read(self, file: int, name: str, known: netns_devices.Known) -> model.Namespace:
        """Return what is known of a namespace."""
        try:
            namespaces.setns(file)
        except OSError as exc:
            raise netns_files.refused(file, exc) from exc
        attempt = _Attempts()
        devices = attempt('links', self._read_devices, known, attempt)
        entries, maximum = self._connections(attempt)
        return model.Namespace(
            labels=known.labels,
            info=known.info,
            name=name,
            kind=known.kind,
            uuid=known.uuid,
            devices=devices,
            conntrack_entries=entries,
            conntrack_maximum=maximum,
            snmp=self._figures('snmp', attempt),
            snmp6=self._figures('snmp6', attempt),
            sockstat=self._figures('sockstat', attempt),
            proc=self._files(attempt) if self._proc_metrics else _NO_FILES,
            failures=attempt.failures or _NONE,
        )

    def end_pass(self) -> None:
        """Close the directory of the thread; all else is closed with each namespace."""
        if self._net is not None:
            os.close(self._net)
            self._net = None

    def _read_devices(
        self, known: netns_devices.Known, attempt: _Attempts
    ) -> tuple[model.NamespaceDevice, ...]:
        with netlink_client.NetlinkClient(socket.NETLINK_ROUTE, buffer=self._buffer) as client:
            # Only kernels older than Linux 4.20 cannot; inside they mistake nothing for our own.
            with contextlib.suppress(exceptions.SourceError):
                client.be_strict()
            # They come first: the kernel makes bigger parts for who has received before.
            addresses = None
            if 'addresses' in self._parts:
                addresses = attempt(
                    'addresses', self._devices.addresses, client, self._addresses_request, known
                )
            return self._devices.devices(client, self._links_request, known, addresses)

    def _connections(self, attempt: _Attempts) -> tuple[int | None, int | None]:
        if 'conntrack' not in self._parts:
            return None, None
        return attempt('conntrack', self._ask_connections) or (None, None)

    def _ask_connections(self) -> tuple[int | None, int | None]:
        protocol = conntrack_counts.NETLINK_NETFILTER
        with netlink_client.NetlinkClient(protocol, buffer=self._buffer) as client:
            return conntrack_counts.parse(client.ask(conntrack_counts.REQUEST))

    def _figures(self, part: str, attempt: _Attempts) -> Mapping[tuple[str, str], int]:
        parser = self._parsers.get(part)
        if parser is None:
            return _NO_FIGURES
        return attempt(part, self._read_figures, part, parser) or _NO_FIGURES

    def _read_figures(
        self, part: str, parser: proc_figures.Parser
    ) -> Mapping[tuple[str, str], int]:
        try:
            text = self._text(part, self._directory())
        except FileNotFoundError:
            # A kernel without IPv6 has no snmp6.
            return _NO_FIGURES
        return parser.parse(text)

    def _files(self, attempt: _Attempts) -> Mapping[str, float]:
        found = {
            name: attempt(name, self._number, path) for name, path in self._proc_metrics.items()
        }
        return {name: value for name, value in found.items() if value is not None}

    def _number(self, path: str) -> float:
        return proc_figures.number(self._text(f'{PROC}/{path}'))

    def _directory(self) -> int:
        """Return the directory of the network that the thread is in, whichever that is.

        A file is looked up in it anew each time (proc_tgid_net_lookup()), so it keeps no
        namespace; the way to it would take longer than the file.
        """
        if self._net is None:
            self._net = os.open(NET, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        return self._net

    def _text(self, path: str, directory: int | None = None) -> str:
        """Return what is in a file.

        :raises OSError: it cannot be read
        :raises SourceError: it does not fit
        """
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=directory)
        try:
            size = os.readv(file, [self._buffer])
        finally:
            os.close(file)
        # One call gives all there is of such a file, as long as there is room.
        if size == len(self._buffer):
            raise exceptions.SourceError(f'{path} has {size} bytes or more')
        return str(self._buffer[:size], 'ascii', 'replace')


class OutsideReader:
    """Asks for devices and addresses of namespaces by their ids, and enters none.

    :param parts: of these only the addresses can be read
    :param assigns: whether a namespace without an id gets one
    """

    def __init__(
        self, settings: netns_settings.Settings, parts: tuple[str, ...], *, assigns: bool
    ) -> None:
        self._devices = netns_devices.DeviceReader(settings.devices)
        self._has_addresses = 'addresses' in parts
        self._assigns = assigns
        self._client: netlink_client.NetlinkClient | None = None

    def read(self, file: int, name: str, known: netns_devices.Known) -> model.Namespace:
        """Return what is known of a namespace from outside."""
        # As long as the file is open nobody else can get the id.
        nsid = _NSID.pack(self._id_of(file))
        attempt = _Attempts()
        devices = attempt('links', self._read_devices, nsid, known, attempt)
        return model.Namespace(
            labels=known.labels,
            info=known.info,
            name=name,
            kind=known.kind,
            uuid=known.uuid,
            devices=devices,
            failures=attempt.failures or _NONE,
        )

    def end_pass(self) -> None:
        """Close the socket of the pass."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _read_devices(
        self, nsid: bytes, known: netns_devices.Known, attempt: _Attempts
    ) -> tuple[model.NamespaceDevice, ...]:
        client = self._opened()
        attribute = netlink_attributes.attribute
        addresses = None
        if self._has_addresses:
            request = device_addresses.request(attribute(IFA_TARGET_NETNSID, nsid))
            addresses = attempt('addresses', self._devices.addresses, client, request, known)
        request = links.request(attribute(IFLA_TARGET_NETNSID, nsid))
        try:
            return self._devices.devices(client, request, known, addresses)
        except netlink_client.Refusal as exc:
            if exc.number in _NO_RIGHT:
                raise netns_files.SkippedError(netns_files.REFUSED, str(exc)) from exc
            raise

    def _opened(self) -> netlink_client.NetlinkClient:
        if self._client is None:
            self._client = netlink_client.NetlinkClient(socket.NETLINK_ROUTE)
            # Without it a kernel that does not know the id of another namespace in a request for
            # addresses gives those of our own.
            self._client.be_strict()
        return self._client

    def _id_of(self, file: int) -> int:
        try:
            found = self._ask_id(file)
            if found == _NOT_ASSIGNED and self._assigns:
                self._assign(file)
                found = self._ask_id(file)
        except netlink_client.Refusal as exc:
            if exc.number in _NO_RIGHT:
                raise netns_files.SkippedError(netns_files.REFUSED, str(exc)) from exc
            error = OSError(exc.number, os.strerror(exc.number))
            raise netns_files.refused(file, error) from exc
        if found == _NOT_ASSIGNED:
            raise netns_files.SkippedError('no_id', 'it has no id; see [netns] assign_nsid')
        return found

    def _ask_id(self, file: int) -> int:
        of_file = netlink_attributes.attribute(NETNSA_FD, _NSID.pack(file))
        request = netlink_client.request(RTM_GETNSID, _GENERAL + of_file)
        body = netlink_client.only(self._opened().ask(request), RTM_NEWNSID, len(_GENERAL))
        for kind, value in netlink_attributes.walk(body[len(_GENERAL) :]):
            if kind == NETNSA_NSID and len(value) == _NSID.size:
                return int(_NSID.unpack(value)[0])
        raise exceptions.SourceError('the id of a network namespace: none in the answer')

    def _assign(self, file: int) -> None:
        attribute = netlink_attributes.attribute
        body = attribute(NETNSA_NSID, _NSID.pack(_ANY)) + attribute(NETNSA_FD, _NSID.pack(file))
        flags = netlink_client.NLM_F_REQUEST | NLM_F_ACK
        request = netlink_client.request(RTM_NEWNSID, _GENERAL + body, flags)
        netlink_client.split(self._opened().ask(request), 0, 0)
