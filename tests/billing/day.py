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

"""Two hours of a compute node, told cycle by cycle: exactly known usage for a bill.

The readings are invented, evenly; everything behind them is ours: the ledger with its file, the
collectors, the renderer of Prometheus and the lists of ``oie-pollster``. Times are given in
seconds after the begin of the first hour.

* ``web`` is Windows, project ``shop``: four vCPUs, 8 GiB, four licence units; reads 1 MiB/s,
  writes 2 MiB/s, receives 512 KiB/s, sends 1 MiB/s. At 1799 its QEMU starts anew, so that all of
  libvirt's counters begin at zero.
* ``db`` is Debian, project ``lab``: two vCPUs, 2 GiB, no licence; sends 512 KiB/s, uses no disk.
  It is deleted after 5399.
* ``oie-exporter`` is down between 5999 and 6599 and takes the file over.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import json
import os
import pathlib
from typing import Any

from oie import model
from oie.cmd import wiring
from oie.ledger import reader
from oie.ledger import store
from oie.ledger import writer
from oie.outputs import prometheus
from tests import builders

HOUR = 3600
MIB = 2**20
SHOP = '8f0f3c0e5d6a4b7c9e1d2f3a4b5c6d7e'
LAB = '1a1a3c0e5d6a4b7c9e1d2f3a4b5c6d7e'
WEB = '6c1f0a3e-3f5b-4a57-9b61-2f1d5a7c9e01'
DB = '7d2a1b4f-0000-4000-8000-000000000002'

#: Of cycles, which are scrapes here, and of polls. The last second of an interval: so the usage of
#: an hour lies between two readings, and none of it on the edge.
CYCLE = 60
POLL = 300
FIRST = -POLL - 1
LAST = 2 * HOUR - 1
REBOOT = 1799
DELETED = 5399
DOWN = range(6000, 6599)
# Three cycles, as the service counts by default.
MAX_GAP = 3 * CYCLE


@dataclasses.dataclass(frozen=True)
class Machine:
    """An instance; rates in bytes per second."""

    definition: model.Definition
    system: model.GuestOs
    read: int
    write: int
    receive: int
    send: int


def web() -> Machine:
    definition = builders.definition(
        uuid=WEB,
        name='web',
        project_uuid=SHOP,
        flavor=builders.flavor(name='m1.large', vcpus=4, memory_mib=8192),
    )
    system = builders.guest_os(license_units=4)
    return Machine(definition, system, MIB, 2 * MIB, MIB // 2, MIB)


def db() -> Machine:
    definition = builders.definition(
        uuid=DB,
        name='db',
        domain='instance-0000002b',
        project_uuid=LAB,
        flavor=builders.flavor(name='m1.small', vcpus=2, memory_mib=2048),
        interfaces=(builders.interface(target='tap22222222-22'),),
    )
    return Machine(definition, builders.debian(license_units=0), 0, 0, 0, MIB // 2)


class Clock:
    """A clock that stands."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


class Node:
    """The node and its exporter.

    :param begin: Unix time of the first hour
    :param path: file of the ledger
    """

    def __init__(self, begin: int, path: pathlib.Path) -> None:
        self.begin = begin
        self._path = path
        self._clock = Clock()
        self._machines = (web(), db())

    def snapshots(self) -> Iterator[tuple[int, model.Snapshot]]:
        """Give the time and the snapshot of each cycle."""
        times = range(FIRST, LAST + 1, CYCLE)
        before = [second for second in times if second < DOWN.start]
        after = [second for second in times if second >= DOWN.stop]
        for run in (before, after):
            with self._ledger() as ledger:
                for second in run:
                    yield second, self._snapshot(second, ledger)

    @contextlib.contextmanager
    def _ledger(self) -> Iterator[reader.LedgerReader]:
        """Open the ledger, as the exporter does when it starts."""
        units = {m.definition.uuid: float(m.system.license_units or 0) for m in self._machines}
        opened = reader.LedgerReader(
            writer.Writer(store.Store(str(self._path))),
            keep=30 * 86400.0,
            boot_id='boot',
            units=units.get,
            clock=self._clock,
        )
        try:
            yield opened
        finally:
            opened.close()

    def _snapshot(self, second: int, ledger: reader.LedgerReader) -> model.Snapshot:
        self._clock.now = float(self.begin + second)
        there = [m for m in self._machines if m.definition.uuid != DB or second <= DELETED]
        instances = tuple(self._instance(machine, second) for machine in there)
        uuids = {machine.definition.uuid for machine in there}
        return builders.snapshot(
            *instances,
            taken_at=self._clock.now,
            guest_os={machine.definition.uuid: machine.system for machine in there},
            **ledger.read(instances, MAX_GAP, uuids),
        )

    def _instance(self, machine: Machine, second: int) -> model.Instance:
        """Return what libvirt says, whose counters begin with QEMU."""
        is_reborn = machine.definition.uuid == WEB and second > REBOOT
        age = second - (REBOOT if is_reborn else FIRST)
        now = self._clock.now
        of = machine.definition
        nic = builders.interface_statistics(
            of.interfaces[0], rx_bytes=age * machine.receive, tx_bytes=age * machine.send
        )
        disk = builders.disk_statistics(
            of.disks[0], read_bytes=age * machine.read, write_bytes=age * machine.write
        )
        return builders.instance(
            of,
            domain_id=8 if is_reborn else 7,
            read_at=now,
            read_clock_ns=int(now) * 10**9,
            cpu_time_ns=age * 10**9,
            vcpus=of.flavor.vcpus,
            memory_maximum_bytes=(of.flavor.memory_mib or 0) * MIB,
            interfaces=(nic,),
            monitor=builders.monitor(of, read_at=now, disks=(disk,), **_vcpus(of)),
            completed_at=now,
        )


def _vcpus(of: model.Definition) -> dict[str, Any]:
    return {'vcpus_current': of.flavor.vcpus, 'vcpus_maximum': of.flavor.vcpus}


def write_lists(snapshot: model.Snapshot, directory: pathlib.Path) -> None:
    """Write what ``oie-pollster`` would print, a file for each list."""
    directory.mkdir(parents=True)
    pollsters = wiring.pollsters()
    for name in ('usage', 'os'):
        (directory / f'{name}.json').write_bytes(pollsters[name].render(snapshot))


class History:
    """What Prometheus would have scraped, as OpenMetrics with times."""

    def __init__(self) -> None:
        conf = wiring.load(('--config-file', os.devnull), 'billing')
        self._collectors = wiring.collectors(conf).values()
        self._notes: dict[int, dict[str, Any]] = {}
        self._renderer = prometheus.Renderer()
        self._lines: list[str] = []

    def add(self, snapshot: model.Snapshot) -> None:
        """Add a scrape of this snapshot."""
        families = [
            family
            for collector in self._collectors
            for family in collector.collect(
                None, snapshot, self._notes.setdefault(id(collector), {})
            )
            if family.meter.prometheus.startswith(('oie_instance_usage_', 'oie_instance_info'))
            or family.meter.prometheus == 'oie_instance_os_info'
        ]
        text = self._renderer.render(families).text.decode()
        self._lines += [
            f'{_with_project_id(line)} {snapshot.taken_at:.0f}'
            for line in text.splitlines()
            if not line.startswith('#')
        ]

    @property
    def text(self) -> str:
        # In the order of time: promtool drops what is older than what it has.
        return '\n'.join([*self._lines, '# EOF', ''])


def _with_project_id(line: str) -> str:
    """Do what ``metric_relabel_configs`` of etc/cloudkitty does at a scrape."""
    for project in (SHOP, LAB):
        line = line.replace(
            f'project_uuid={json.dumps(project)}',
            f'project_uuid={json.dumps(project)},project_id={json.dumps(project)}',
        )
    return line
