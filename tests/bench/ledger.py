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

"""What the totals cost a cycle, and what writing them costs."""

from collections.abc import Iterator
import pathlib
import statistics
import tempfile
import time

from oie import model
from oie.ledger import reader
from oie.ledger import store
from oie.ledger import writer
from tests import builders
from tests.bench import table

INSTANCES = 200
CYCLES = 60
KEEP = 400 * 86400.0
MAX_AGE = 30.0


class TimedStore(store.Store):
    """A store that tells how long its writes take."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.seconds: list[float] = []

    def write(self, *arguments: object) -> None:
        """Write, and note how long it took."""
        began = time.perf_counter()
        super().write(*arguments)  # type: ignore[arg-type]
        self.seconds.append(time.perf_counter() - began)


def tables() -> Iterator[tuple[str, list[table.Line]]]:
    """Give the tables with their titles."""
    yield f'totals of {INSTANCES} instances with 2 disks and 2 vNICs', list(lines())


def host() -> list[model.Instance]:
    """Return instances that all have two disks and two interfaces."""
    return [
        builders.instance(
            builders.definition(
                uuid=f'{number:08x}-0000-4000-8000-000000000000',
                domain=f'instance-{number:08x}',
                disks=tuple(builders.disk(target=target) for target in ('vda', 'vdb')),
                interfaces=tuple(
                    builders.interface(target=f'tap{number:08x}-{side}') for side in '12'
                ),
            )
        )
        for number in range(INSTANCES)
    ]


def later(instance: model.Instance, cycle: int) -> model.Instance:
    """Return the instance some cycles later, when all of its counters have moved."""
    moved = builders.later(instance, 10.0 * cycle, 1.5 * cycle)
    interfaces = tuple(
        builders.interface_statistics(device, rx_bytes=10**12 + cycle, tx_bytes=10**12 + cycle)
        for device in instance.definition.interfaces
    )
    disks = tuple(
        builders.disk_statistics(device, read_bytes=10**12 + cycle)
        for device in instance.definition.disks
    )
    monitor = builders.monitor(instance.definition, read_at=moved.read_at, disks=disks)
    return builders.later(moved, 0, 0, interfaces=interfaces, monitor=monitor)


def lines() -> Iterator[table.Line]:
    """Give the lines of the table."""
    shares, writes, size = measure()
    both = statistics.median(shares)
    yield table.Line(
        "a cycle's share, the write waited for",
        f'{both * 1000:.1f} ms',
        'at most 10 ms',
        both <= 0.01,
    )
    write = statistics.median(writes)
    yield table.Line(
        'of it the write, on a thread of its own',
        f'{write * 1000:.1f} ms (longest of {CYCLES}: {max(writes) * 1000:.1f} ms)',
        'at most 10 ms',
        write <= 0.01,
    )
    yield table.Line(
        'the file and its log', f'{size // 1024} KiB', 'at most 10 MiB', size <= 10 * 2**20
    )


def measure() -> tuple[list[float], list[float], int]:
    """Return the seconds of shares and of writes, and the size of all files in bytes."""
    instances = host()
    known = frozenset(instance.definition.uuid for instance in instances)
    with tempfile.TemporaryDirectory(prefix='oieb-', dir='/var/tmp') as directory:
        rows = TimedStore(f'{directory}/ledger.sqlite')
        ledger = reader.LedgerReader(writer.Writer(rows), keep=KEEP, boot_id='bench')
        shares = []
        for cycle in range(CYCLES + 1):
            moved = tuple(later(instance, cycle) for instance in instances)
            began = time.perf_counter()
            ledger.read(moved, MAX_AGE, known)
            shares.append(time.perf_counter() - began)
        size = sum(each.stat().st_size for each in pathlib.Path(directory).iterdir())
        ledger.close()
    # The first one opens the file.
    return shares[1:], rows.seconds[1:], size
