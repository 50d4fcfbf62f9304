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

"""A libvirt without libvirt: a daemon, its guests and connections, misbehaving on command.

    host = fakes.Host()
    guest = host.add('instance-00000001')
    host.libvirt.openReadOnly('qemu:///system').listAllDomains(1)

A guest with ``is_wedged`` holds the first call into its monitor until it is resumed; NOWAIT then
gives the later ones a partial record, as libvirt 9.0.0 does. One whose ``lock`` is held holds
every call that is about it, and every listing. Any call can be made to hang, fail or answer
otherwise by an entry in ``Host.scripts`` or ``Guest.scripts`` under its name.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import copy
import itertools
import threading
import time
from typing import Any
import uuid as uuids

NO_DOMAIN = 42
OPERATION_INVALID = 55
NO_SUPPORT = 3
INTERNAL_ERROR = 1
OPERATION_FAILED = 9
SYSTEM_ERROR = 38
RPC = 39
FROM_QEMU, FROM_RPC, FROM_REMOTE = 10, 7, 8

STATE, CPU_TOTAL, BALLOON, VCPU, INTERFACE, BLOCK, PERF = (1 << n for n in range(7))
MEMORY = 1 << 8
NOWAIT, BACKING = 1 << 29, 1 << 30

_PREFIXES = {
    STATE: 'state.',
    CPU_TOTAL: 'cpu.',
    BALLOON: 'balloon.',
    VCPU: 'vcpu.',
    INTERFACE: 'net.',
    BLOCK: 'block.',
    PERF: 'perf.',
    MEMORY: 'memory.',
}
_NEED_MONITOR = CPU_TOTAL | BALLOON | VCPU | BLOCK
# What a record has without the monitor: of the groups that need it, only this.
_WITHOUT_MONITOR = ('.name', '.path', '.count', 'balloon.current', 'balloon.maximum')

Script = Callable[[], Any] | BaseException
Scripts = dict[str, Script]


class Error(Exception):
    """libvirtError: a code of virErrorNumber and a domain of virErrorDomain."""

    def __init__(self, code: int, message: str = '', domain: int = FROM_QEMU) -> None:
        super().__init__(message or f'error {code} of {domain}')
        self._code = code
        self._domain = domain

    def get_error_code(self) -> int:
        return self._code

    def get_error_domain(self) -> int:
        return self._domain


def gone() -> Error:
    return Error(NO_DOMAIN, 'Domain not found: no domain with matching uuid')


def disconnected() -> Error:
    return Error(INTERNAL_ERROR, 'internal error: client socket is closed', FROM_RPC)


class Gate:
    """Holds calls until it is released; tells when the first one has come."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self._released = threading.Event()

    def __call__(self) -> None:
        self.entered.set()
        # The end of every test: no thread of one reaches into another.
        self._released.wait(20)

    def release(self) -> None:
        self._released.set()


class Lock:
    """The lock of a domain, which every question to it and every listing takes for a moment.

    libvirtd holds it while it looks into the image of a disk that is being attached.
    """

    def __init__(self) -> None:
        self.waiting = 0
        self.most_waiting = 0
        self._is_free = threading.Event()
        self._is_free.set()
        self._counting = threading.Lock()

    def hold(self) -> None:
        self._is_free.clear()

    def release(self) -> None:
        self._is_free.set()

    def take(self) -> None:
        """Wait until nobody holds it."""
        with self._counting:
            self.waiting += 1
            self.most_waiting = max(self.most_waiting, self.waiting)
        self._is_free.wait(20)
        with self._counting:
            self.waiting -= 1


class Guest:
    """A domain with its QEMU; everything of it may be changed at any time."""

    def __init__(self, host: 'Host', name: str, domain_id: int) -> None:
        self.host = host
        self.name = name
        self.uuid = str(uuids.uuid5(uuids.NAMESPACE_DNS, name))
        self.domain_id = domain_id
        self.state = (1, 1)
        self.cpu_time_ns = 5_000_000_000
        self.control: list[int] | None = None
        self.record = record()
        self.disks = ['vda']
        self.interfaces = ['tap1']
        self.has_metadata = True
        self.xml: str | None = None
        self.job: dict[str, Any] = {'type': 0}
        self.completed_job: dict[str, Any] = {'type': 0}
        self.disk_errors: dict[str, int] = {}
        self.block_jobs: dict[str, dict[str, int]] = {}
        self.scripts: Scripts = {}
        self.most_waiting = 0
        self._waiting = 0
        self._is_held = threading.Lock()
        self._held_since = 0.0
        self._answers = threading.Event()
        self._answers.set()
        self.lock = Lock()

    def wedge(self) -> None:
        """Stop its QEMU: who enters its monitor does not come back."""
        self._answers.clear()

    def resume(self) -> None:
        self._answers.set()

    @property
    def is_occupied(self) -> bool:
        return self._is_held.locked()

    @contextlib.contextmanager
    def monitor(self) -> Iterator[bool]:
        """Give whether the monitor could be entered, as NOWAIT does."""
        if not self._is_held.acquire(blocking=False):
            yield False
            return
        self._held_since = time.monotonic()
        try:
            self.wait()
            yield True
        finally:
            self._is_held.release()

    def wait(self) -> None:
        """Wait for its QEMU, as every call into its monitor does."""
        with self.host.lock:
            self._waiting += 1
            self.most_waiting = max(self.most_waiting, self._waiting)
        self._answers.wait(20)
        with self.host.lock:
            self._waiting -= 1

    def control_info(self) -> list[int]:
        if self.control is not None:
            return self.control
        if not self.is_occupied:
            return [0, 0, 0]
        return [2, 0, int((time.monotonic() - self._held_since) * 1000)]

    def read(self, groups: int, flags: int) -> dict[str, Any]:
        """Return what virConnectGetAllDomainStats says of it."""
        prefixes = tuple(prefix for bit, prefix in _PREFIXES.items() if groups & bit)
        values = {
            'state.state': self.state[0],
            'state.reason': self.state[1],
            **net(*self.interfaces),
            **self.record,
        }
        found = {key: value for key, value in values.items() if key.startswith(prefixes)}
        if not groups & _NEED_MONITOR:
            return found
        assert flags & NOWAIT, 'without NOWAIT a busy domain holds the call for 30 s'
        with self.monitor() as is_entered:
            return copy.copy(found) if is_entered else partial(found)

    def describe(self) -> str:
        """Return its XML."""
        return self.xml if self.xml is not None else xml(self)


class Host:
    """The daemon: its guests, and a count of what is asked of it at a time."""

    def __init__(self) -> None:
        self.guests: dict[str, Guest] = {}
        self.connections: list[Connection] = []
        self.scripts: Scripts = {}
        self.calls: list[tuple[str, str]] = []
        self.most_in_flight = 0
        self.type = 'QEMU'
        self.libvirt = Libvirt(self)
        self._in_flight = 0
        self.lock = threading.Lock()
        self._ids = itertools.count(1)
        self._gates: list[Gate] = []

    def add(self, name: str, **attributes: Any) -> Guest:
        """Start a guest."""
        guest = Guest(self, name, next(self._ids))
        for attribute, value in attributes.items():
            assert hasattr(guest, attribute), attribute
            setattr(guest, attribute, value)
        self.guests[guest.uuid] = guest
        return guest

    def remove(self, guest: Guest) -> None:
        del self.guests[guest.uuid]

    def restart_guest(self, guest: Guest) -> None:
        """Give a guest another QEMU."""
        guest.domain_id = next(self._ids)

    def gate(self) -> Gate:
        """Return a gate that the end of the test opens at the latest."""
        gate = Gate()
        self._gates.append(gate)
        return gate

    def restart(self) -> None:
        """Start the daemon again: every connection and every handle is dead."""
        for connection in self.connections:
            connection.close_by_peer()

    def count(self, name: str, subject: str | None = None) -> int:
        """Return how often a call was made, of all or of one domain."""
        return sum(call == name and subject in (None, of) for call, of in self.calls)

    def release_all(self) -> None:
        """Let every call that hangs return."""
        for gate in self._gates:
            gate.release()
        for guest in self.guests.values():
            guest.resume()
            guest.lock.release()

    @contextlib.contextmanager
    def call(
        self, name: str, connection: 'Connection | None' = None, guest: Guest | None = None
    ) -> Iterator[None]:
        """Make one call to the daemon: counted, and scripted to hang or to fail."""
        with self.lock:
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
            self.calls.append((name, guest.uuid if guest else ''))
        try:
            _play(self.scripts, name)
            if connection is not None and not connection.is_alive:
                raise disconnected()
            if guest is not None:
                _play(guest.scripts, name)
                guest.lock.take()
                if guest.uuid not in self.guests:
                    raise gone()
            yield
            if connection is not None and not connection.is_alive:
                raise disconnected()
        finally:
            with self.lock:
                self._in_flight -= 1


def _play(scripts: Scripts, name: str) -> None:
    script = scripts.get(name)
    if isinstance(script, BaseException):
        raise script
    if script is not None:
        script()


class Domain:
    """virDomain: a handle of one connection; its identity is known without a call."""

    def __init__(self, connection: 'Connection', guest: Guest) -> None:
        self.connection = connection
        self._guest = guest
        self._host = guest.host
        self._domain_id = guest.domain_id

    def ID(self) -> int:
        return self._domain_id

    def UUIDString(self) -> str:
        return self._guest.uuid

    def connect(self) -> 'Connection':
        return self.connection

    def _call(self, name: str) -> contextlib.AbstractContextManager[None]:
        return self._host.call(name, self.connection, self._guest)

    def info(self) -> list[int]:
        with self._call('info'):
            vcpus = self._guest.record['vcpu.current']
            return [self._guest.state[0], 24576, 24576, vcpus, self._guest.cpu_time_ns]

    def controlInfo(self) -> list[int]:
        with self._call('controlInfo'):
            return self._guest.control_info()

    def XMLDesc(self, flags: int) -> str:
        assert flags == 0, 'a read-only connection may ask for nothing more'
        with self._call('XMLDesc'):
            return self._guest.describe()

    def jobStats(self, flags: int = 0) -> dict[str, Any]:
        # COMPLETED without KEEP_COMPLETED (2) would take the statistics away from Nova.
        assert flags in (0, 3), flags
        with self._call('completedJobStats' if flags else 'jobStats'):
            if not flags:
                self._guest.wait()
            return dict(self._guest.completed_job if flags else self._guest.job)

    def diskErrors(self) -> dict[str, int]:
        with self._call('diskErrors'):
            self._guest.wait()
            return dict(self._guest.disk_errors)

    def blockJobInfo(self, target: str) -> dict[str, int]:
        with self._call('blockJobInfo'):
            self._guest.wait()
            return dict(self._guest.block_jobs.get(target, {}))

    def interfaceStats(self, target: str) -> tuple[int, ...]:
        with self._call('interfaceStats'):
            return (10, 1, 0, 0, 20, 2, 0, 0)

    def blockStats(self, target: str) -> tuple[int, ...]:
        with self._call('blockStats'):
            return (1, 512, 2, 1024, -1)

    def blockInfo(self, target: str) -> tuple[int, ...]:
        with self._call('blockInfo'):
            return (1048576, 4096, 8192)

    def vcpus(self) -> tuple[list[tuple[int, int, int, int]], list[Any]]:
        with self._call('vcpus'):
            return [(0, 1, 7_000_000, 0)], []


class Connection:
    """virConnect, read-only."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.is_alive = True
        self.keepalive: tuple[int, int] | None = None
        self.callbacks: dict[int, tuple[int, Callable[..., None]]] = {}
        self.on_close: Callable[..., None] | None = None
        self._numbers = itertools.count()

    def close_by_peer(self) -> None:
        """Die; libvirt's event loop then tells who asked for it."""
        self.is_alive = False
        if self.on_close is not None:
            self.on_close(self, 2, None)

    def isAlive(self) -> int:
        return int(self.is_alive)

    def setKeepAlive(self, interval: int, count: int) -> int:
        with self.host.call('setKeepAlive', self):
            self.keepalive = (interval, count)
        return 0

    def registerCloseCallback(self, callback: Callable[..., None], opaque: Any) -> int:
        with self.host.call('registerCloseCallback', self):
            self.on_close = callback
        return 0

    def unregisterCloseCallback(self) -> None:
        self.on_close = None
        with self.host.call('unregisterCloseCallback', self):
            pass

    def domainEventRegisterAny(
        self, domain: Any, event: int, callback: Callable[..., None], opaque: Any
    ) -> int:
        with self.host.call('domainEventRegisterAny', self):
            number = next(self._numbers)
            self.callbacks[number] = (event, callback)
        return number

    def domainEventDeregisterAny(self, number: int) -> None:
        del self.callbacks[number]
        with self.host.call('domainEventDeregisterAny', self):
            pass

    def emit(self, event: int, guest: Guest, *details: Any) -> None:
        """Call back as libvirt's event loop does."""
        for wanted, callback in tuple(self.callbacks.values()):
            if wanted == event:
                callback(self, Domain(self, guest), *details, None)

    def getType(self) -> str:
        with self.host.call('getType', self):
            return self.host.type

    def getLibVersion(self) -> int:
        with self.host.call('getLibVersion', self):
            return 9_000_000

    def getVersion(self) -> int:
        with self.host.call('getVersion', self):
            return 7_002_022

    def getHostname(self) -> str:
        with self.host.call('getHostname', self):
            return 'compute1'

    def listAllDomains(self, flags: int) -> list[Domain]:
        assert flags == Libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE
        with self.host.call('listAllDomains', self):
            for guest in tuple(self.host.guests.values()):
                guest.lock.take()
            return [Domain(self, guest) for guest in tuple(self.host.guests.values())]

    def lookupByUUIDString(self, uuid: str) -> Domain:
        guest = self.host.guests.get(uuid)
        with self.host.call('lookup', self, guest):
            if guest is None:
                raise gone()
            return Domain(self, guest)

    def domainListGetStats(
        self, domains: Iterable[Domain], groups: int, flags: int
    ) -> list[tuple[Domain, dict[str, Any]]]:
        domains = list(domains)
        assert all(domain.connection is self for domain in domains), 'handles of another one'
        name = 'statistics' if groups & _NEED_MONITOR else 'safeStatistics'
        found = []
        with self.host.call(name, self):
            for domain in domains:
                guest = self.host.guests.get(domain.UUIDString())
                if guest is None:
                    continue  # it is left out without an error
                self.host.calls.append((f'{name} of', guest.uuid))
                _play(guest.scripts, name)
                guest.lock.take()
                found.append((domain, guest.read(groups, flags)))
        return found


class Libvirt:
    """The module."""

    libvirtError = Error
    VIR_CONNECT_LIST_DOMAINS_ACTIVE = 1
    VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT = NOWAIT
    VIR_CONNECT_GET_ALL_DOMAINS_STATS_BACKING = BACKING
    VIR_DOMAIN_STATS_STATE = STATE
    VIR_DOMAIN_STATS_CPU_TOTAL = CPU_TOTAL
    VIR_DOMAIN_STATS_BALLOON = BALLOON
    VIR_DOMAIN_STATS_VCPU = VCPU
    VIR_DOMAIN_STATS_INTERFACE = INTERFACE
    VIR_DOMAIN_STATS_BLOCK = BLOCK
    VIR_DOMAIN_STATS_PERF = PERF
    VIR_DOMAIN_STATS_MEMORY = MEMORY
    VIR_DOMAIN_JOB_STATS_COMPLETED = 1
    VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED = 2
    VIR_ERR_INTERNAL_ERROR = INTERNAL_ERROR
    VIR_ERR_NO_SUPPORT = NO_SUPPORT
    VIR_ERR_SYSTEM_ERROR = SYSTEM_ERROR
    VIR_ERR_NO_DOMAIN = NO_DOMAIN
    VIR_ERR_OPERATION_INVALID = OPERATION_INVALID
    VIR_FROM_RPC = FROM_RPC
    VIR_FROM_REMOTE = FROM_REMOTE
    VIR_DOMAIN_EVENT_ID_LIFECYCLE = 0
    VIR_DOMAIN_EVENT_ID_DISK_CHANGE = 9
    VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED = 15
    VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2 = 16
    VIR_DOMAIN_EVENT_ID_TUNABLE = 17
    VIR_DOMAIN_EVENT_ID_DEVICE_ADDED = 19
    VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION = 20
    VIR_DOMAIN_EVENT_ID_JOB_COMPLETED = 21
    VIR_DOMAIN_EVENT_ID_METADATA_CHANGE = 23

    def __init__(self, host: Host) -> None:
        self._host = host
        self.error_handler: Callable[..., None] | None = None
        self.is_event_loop_registered = False

    def openReadOnly(self, uri: str) -> Connection:
        with self._host.call('open'):
            connection = Connection(self._host)
            self._host.connections.append(connection)
            return connection

    def registerErrorHandler(self, handler: Callable[..., None], context: Any) -> None:
        self.error_handler = handler

    def virEventRegisterDefaultImpl(self) -> None:
        self.is_event_loop_registered = True

    def virEventAddTimeout(self, milliseconds: int, callback: Any, opaque: Any) -> int:
        return 1

    def virEventRunDefaultImpl(self) -> None:
        script = self._host.scripts.get('event loop')
        if isinstance(script, BaseException):
            raise script
        threading.Event().wait(0.05)


def record(**more: Any) -> dict[str, Any]:
    """Return the groups that need the monitor, of a guest with one vCPU and one disk."""
    return {
        'balloon.current': 24576,
        'balloon.maximum': 24576,
        'balloon.rss': 43028,
        **vcpu(1_000_000_000),
        'block.count': 1,
        'block.0.name': 'vda',
        'block.0.rd.reqs': 3,
        'block.0.rd.bytes': 1536,
        **more,
    }


def vcpu(*times_ns: int | None) -> dict[str, int]:
    """Return the VCPU group; a vCPU without a time is not plugged."""
    found = {
        'vcpu.current': sum(time_ns is not None for time_ns in times_ns),
        'vcpu.maximum': len(times_ns),
    }
    for n, time_ns in enumerate(times_ns):
        if time_ns is not None:
            found |= {f'vcpu.{n}.state': 1, f'vcpu.{n}.time': time_ns}
    return found


def net(*names: str) -> dict[str, Any]:
    """Return the INTERFACE group."""
    found: dict[str, Any] = {'net.count': len(names)}
    for n, name in enumerate(names):
        found |= {f'net.{n}.name': name, f'net.{n}.rx.bytes': 90, f'net.{n}.tx.bytes': 0}
    return found


def partial(full: dict[str, Any]) -> dict[str, Any]:
    """Return what NOWAIT leaves of a record when the monitor is occupied."""
    return {
        key: value
        for key, value in full.items()
        if not key.startswith(('balloon.', 'block.', 'cpu.')) or key.endswith(_WITHOUT_MONITOR)
    }


def xml(guest: Guest) -> str:
    """Return the XML of a guest, with Nova's metadata if it has some."""
    disks = ''.join(
        f'<disk type="file" device="disk"><driver name="qemu" type="raw"/>'
        f'<source file="/var/lib/nova/{target}"/><target dev="{target}" bus="virtio"/></disk>'
        for target in guest.disks
    )
    interfaces = ''.join(
        f'<interface type="bridge"><mac address="fa:16:3e:00:00:{n:02x}"/>'
        f'<target dev="{target}"/></interface>'
        for n, target in enumerate(guest.interfaces)
    )
    metadata = (
        '<metadata><nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">'
        f'<nova:name>name of {guest.name}</nova:name></nova:instance></metadata>'
    )
    return (
        f'<domain type="qemu" id="{guest.domain_id}"><name>{guest.name}</name>'
        f'<uuid>{guest.uuid}</uuid>{metadata if guest.has_metadata else ""}'
        f'<devices>{disks}{interfaces}</devices></domain>'
    )
