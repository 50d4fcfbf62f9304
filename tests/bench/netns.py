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


"""What reading network namespaces costs: a thousand routers, read and rendered."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import multiprocessing
import os
import socket
import statistics
import struct
import subprocess
import threading
from typing import Any

from oie import service
from oie.cmd import wiring
from oie.outputs import prometheus
from oie.sources import conntrack_counts
from oie.sources import device_addresses
from oie.sources import links
from oie.sources import namespaces
from oie.sources import netns
from tests.bench import table
from tests.functional import namespace_farm
from tests.functional import processes

FEW, MANY = 100, 1000
REPEATS = 11
BY_IP = 50
FULL = ('addresses', 'conntrack', 'snmp', 'sockstat')
_HEADER = struct.Struct('=IH')
_DONE = 3


def tables() -> Iterator[tuple[str, list[table.Line]]]:
    """Give the tables with their titles."""
    with namespace_farm.Farm(FEW, is_joined=True) as farm:
        few = Measured(farm)
    with namespace_farm.Farm(MANY, is_joined=True) as farm:
        number = len(namespace_farm.KINDS)
        title = f'{MANY} network namespaces with {number} veth each that all receive'
        yield title, list(lines(few, Measured(farm), farm))


class Measured:
    """The fastest of some passes each, in seconds; what else runs here only makes them slower.

    :ivar raw_links: nothing but the calls into the kernel for the devices
    :ivar raw: nothing but the calls into the kernel for all
    """

    def __init__(self, farm: namespace_farm.Farm) -> None:
        files = len(os.listdir('/proc/self/fd'))
        only_links, full = source(farm, ()), source(farm, FULL)
        shown = daemon(farm)
        found = table.in_turn(
            REPEATS,
            lambda: in_thread(lambda: raw(farm.names, is_full=False)),
            farm.send,
            lambda: read(only_links),
            lambda: in_thread(lambda: raw(farm.names, is_full=True)),
            farm.send,
            lambda: read(full),
            farm.send,
            shown.cycle,
        )
        # The first one fills what is kept. Sending is not ours.
        best = [min(times[1:]) for place, times in enumerate(found) if place not in (1, 4, 6)]
        self.raw_links, self.links, self.raw, self.full, self.shown = best
        self.series = published(shown).series
        with Files() as watch:
            read(full)
        self.files = watch.most - files
        for each in (only_links, full):
            each.close()
        shown.stop()


def lines(few: Measured, many: Measured, farm: namespace_farm.Farm) -> Iterator[table.Line]:
    """Give the lines of the table."""
    yield of_time('devices and counters alone', many.links, many.raw_links, 0.08)
    what = 'devices, addresses, conntrack, snmp, sockstat'
    yield of_time(what, many.full, many.raw, 0.2)
    yield of_time(f'the same and {many.series} series as text', many.shown, many.raw, 0.25)
    ratio = many.full / MANY / (few.full / FEW)
    yield table.Line(
        f'one of {MANY} / one of {FEW}, all of it',
        f'{ratio:.2f} x ({few.full / FEW * 1e6:.0f} / {many.full / MANY * 1e6:.0f} us)',
        'at most 1.3 x',
        ratio <= 1.3,
    )
    by_ip = statistics.median(table.in_turn(3, lambda: ask_ip(farm.names[:BY_IP]))[0]) / BY_IP
    ratio = by_ip / (many.links / MANY)
    yield table.Line(
        'ip -n NAME -s -j link / devices alone',
        f'{ratio:.0f} x ({by_ip * 1e6:.0f} us each)',
        'at least 20 x',
        ratio >= 20,
    )
    yield table.Line(
        'files open at once, more than before', str(many.files), 'at most 12', many.files <= 12
    )
    reading, text = (grown(farm, with_text=with_text) for with_text in (False, True))
    yield table.Line(
        f'RSS after {REPEATS} readings, more than before',
        f'{reading / 1e6:.1f} MB',
        'at most 15 MB',
        reading <= 15e6,
    )
    yield table.Line(
        f'the same with {many.series} series as text',
        f'{text / 1e6:.1f} MB',
        'at most 15 MB',
        text <= 15e6,
    )


def of_time(what: str, seconds: float, raw_seconds: float, goal: float) -> table.Line:
    """Return the line for a time, compared with that of the kernel in the same run."""
    return table.Line(
        what,
        f'{seconds * 1000:.0f} ms ({seconds / raw_seconds:.2f} x the bare calls, '
        f'{raw_seconds * 1000:.0f} ms)',
        f'at most {goal * 1000:.0f} ms',
        seconds <= goal,
    )


# --- ours ---------------------------------------------------------------------


def options(farm: namespace_farm.Farm, parts: Sequence[str]) -> Any:
    """Return options that read the namespaces of the farm."""
    conf = wiring.load(['--config-file', os.devnull], 'bench')
    for name, value in (
        ('enabled', True),
        ('namespaces_whitelist', farm.pattern),
        ('parts', ','.join(parts)),
        ('timeout', 30.0),
    ):
        conf.set_override(name, value, 'netns')
    conf.set_override('enabled', 'namespaces', 'collector')
    return conf


def source(farm: namespace_farm.Farm, parts: Sequence[str]) -> netns.NamespacesSource:
    """Return what reads them."""
    made = wiring.network_namespaces(options(farm, parts))
    if made is None:
        raise processes.LabError('[netns] enabled is not on')
    return made


def read(made: netns.NamespacesSource) -> dict[str, Any]:
    """Return the fields of the snapshot that one reading gives."""
    fields = made.read((), 3600.0)
    if fields['namespaces'].error or not fields['namespaces'].value.namespaces:
        raise processes.LabError(f'nothing was read: {fields["namespaces"].error}')
    return fields


def daemon(farm: namespace_farm.Farm) -> service.Service:
    """Return the cycles of a daemon that reads namespaces alone."""
    conf = options(farm, FULL)
    return service.Service(
        None,
        wiring.collectors(conf),
        prometheus.Renderer(),
        hostname='bench',
        interval=conf.collector.interval,
        expiration=conf.collector.dynamic_cache_expiration,
        readers=wiring.readers(conf, has_instances=False),
    )


def published(shown: service.Service) -> prometheus.Exposition:
    """Return the text of the last cycle."""
    if shown.published is None or shown.published.snapshot.cycle.errors:
        raise processes.LabError('a cycle failed')
    exposition: prometheus.Exposition = shown.published.exposition
    return exposition


def grown(farm: namespace_farm.Farm, *, with_text: bool) -> int:
    """Return by how many bytes the memory of a process of its own grows by some cycles."""
    context = multiprocessing.get_context('spawn')
    with context.Pool(1) as pool:
        return pool.apply(_grown, (farm, with_text))


def _grown(farm: namespace_farm.Farm, with_text: bool) -> int:
    full, shown = source(farm, FULL), daemon(farm)
    before = processes.rss_bytes(os.getpid())
    # The last one is in use at the end, as its text is.
    kept: object = None
    for _ in range(REPEATS):
        farm.send()
        if with_text:
            shown.cycle()
            kept = published(shown)
        else:
            kept = read(full)
    after = processes.rss_bytes(os.getpid())
    return after - before if kept else 0


# --- to compare with ----------------------------------------------------------


def raw(names: Sequence[str], *, is_full: bool) -> None:
    """Make the calls into the kernel that cannot be left out, and look for nothing but the end."""
    buffer = bytearray(2**15)
    for name in names:
        file = os.open(f'/run/netns/{name}', os.O_RDONLY | os.O_CLOEXEC)
        namespaces.setns(file)
        os.close(file)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as route:
            if is_full:
                drain(route, device_addresses.request(), buffer)
            drain(route, links.request(), buffer)
        if is_full:
            protocol = conntrack_counts.NETLINK_NETFILTER
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as counts:
                counts.send(conntrack_counts.REQUEST)
                counts.recv_into(buffer)
            for part in ('snmp', 'sockstat'):
                file = os.open(f'/proc/thread-self/net/{part}', os.O_RDONLY | os.O_CLOEXEC)
                os.readv(file, [buffer])
                os.close(file)


def drain(route: socket.socket, request: bytes, buffer: bytearray) -> None:
    """Receive a dump up to its end."""
    route.send(request)
    kind = 0
    while kind != _DONE:
        size, place = route.recv_into(buffer), 0
        while place < size:
            length, kind = _HEADER.unpack_from(buffer, place)
            place += length + 3 & ~3


def in_thread(function: Callable[[], None]) -> None:
    """Call a function that ends in another namespace."""
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def ask_ip(names: Sequence[str]) -> None:
    """Ask ip(8) for each."""
    for name in names:
        argv = ('ip', '-n', name, '-s', '-j', 'link')
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


class Files:
    """Counts the open files of this process again and again while the block lasts."""

    def __init__(self) -> None:
        self.most = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> 'Files':
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.is_set():
            # The directory that is listed is one of them.
            self.most = max(self.most, len(os.listdir('/proc/self/fd')) - 1)
