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

"""What an inspection of a disk costs: how many CPUs, and what a cycle feels of it."""

from collections.abc import Iterator
import os
import pathlib
import resource
import statistics
import tempfile
import threading
import time
import types

from oie import model
from oie import service
from oie.cmd import wiring
from oie.outputs import prometheus
from oie.sources.guest_os import base
from oie.sources.guest_os import libguestfs
from tests import builders
from tests.bench import table

INSTANCES = 200
SECONDS = 600.0
PAUSE = 0.2


def tables() -> Iterator[tuple[str, list[table.Line]]]:
    """Give the tables with their titles."""
    yield f'inspection of a disk beside cycles of {INSTANCES} instances', list(lines())


def lines() -> Iterator[table.Line]:
    """Give the lines of the table; the second inspection is measured, the first builds."""
    with tempfile.TemporaryDirectory(prefix='oieb-') as directory:
        place = pathlib.Path(directory)
        driver = libguestfs.LibguestfsDriver(options(place))
        driver.read(instance(place, 0))
        calm = cycles(threading.Event(), 40)
        is_over = threading.Event()
        inspection = Inspection(driver, instance(place, 1), is_over)
        inspection.start()
        busy = cycles(is_over, None)
        inspection.join()
    longer = statistics.median(busy) - statistics.median(calm)
    # They share caches and memory, and on a small machine a core; nobody waits for it.
    yield table.Line(
        'a cycle with an inspection under way - without',
        f'{longer * 1000:.1f} ms ({table.milliseconds(busy)} - {table.milliseconds(calm)})',
        'at most 25 ms',
        longer <= 0.025,
    )
    cpus = inspection.cpu_seconds / inspection.seconds
    yield table.Line(
        'CPUs of an inspection',
        f'{cpus:.2f} ({inspection.cpu_seconds:.1f} s in {inspection.seconds:.1f} s)',
        'at most 1',
        cpus <= 1.0,
    )


class Inspection(threading.Thread):
    """One inspection, and what it used."""

    def __init__(
        self,
        driver: base.GuestOsDriver,
        wanted: model.Instance,
        is_over: threading.Event,
    ) -> None:
        super().__init__()
        self._driver = driver
        self._wanted = wanted
        self._is_over = is_over
        self.seconds = 0.0
        self.cpu_seconds = 0.0

    def run(self) -> None:
        """Inspect; all processes have been waited for when it is over."""
        began, used = time.monotonic(), children_seconds()
        try:
            self._driver.read(self._wanted)
        finally:
            self.seconds = time.monotonic() - began
            self.cpu_seconds = children_seconds() - used
            self._is_over.set()


def children_seconds() -> float:
    """Return the CPU time of all processes that were started here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class Source:
    """Instances that always answer, so that a cycle is our own work alone."""

    def __init__(self) -> None:
        self._value = tuple(
            builders.instance(
                builders.definition(uuid=f'{number:08x}-0000-4000-8000-000000000000')
            )
            for number in range(INSTANCES)
        )

    def read(self) -> model.Reading[tuple[model.Instance, ...]]:
        """Return the same instances, read now."""
        return model.Reading(value=self._value, read_at=time.time(), seconds=0.0)

    def hypervisor(self) -> model.Hypervisor:
        """Return one of which nothing is known."""
        return model.Hypervisor()

    def close(self) -> None:
        """Do nothing."""


def cycles(is_over: threading.Event, count: int | None) -> list[float]:
    """Return the seconds of whole cycles, rendering included, but for what libvirt takes."""
    conf = wiring.load(['--config-file', os.devnull], 'bench')
    runner = service.Service(
        Source(),
        wiring.collectors(conf),
        prometheus.Renderer(),
        hostname='bench',
        interval=10,
        expiration=10,
    )
    found: list[float] = []
    while not is_over.is_set() and (count is None or len(found) < count):
        began = time.perf_counter()
        runner.cycle()
        found.append(time.perf_counter() - began)
        time.sleep(PAUSE)
    runner.stop()
    return found


def options(place: pathlib.Path) -> types.SimpleNamespace:
    """Return the options of the driver by default, but for time and place."""
    values = {option.dest: option.default for option in libguestfs.LibguestfsDriver.OPTS}
    values.update(timeout=SECONDS, refresh=SECONDS, retry=SECONDS, force_tcg='true')
    return types.SimpleNamespace(**{**values, 'cache_dir': str(place / 'cache')})


def instance(place: pathlib.Path, number: int) -> model.Instance:
    """Return an instance with a blank disk of its own."""
    image = place / f'{number}.raw'
    with image.open('wb') as file:
        file.truncate(16 * 2**20)
    disk = builders.disk(type='file', source=str(image), driver_format='raw')
    uuid = f'{number:08x}-0000-4000-8000-00000000000f'
    return builders.instance(builders.definition(uuid=uuid, disks=(disk,)))
