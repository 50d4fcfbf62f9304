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

"""The four series of the retired libvirt_nova exporter, for its dashboards."""

from collections.abc import Iterator
import operator

from oie import model
from oie.collectors import base

GAUGE, CUMULATIVE = model.Kind.GAUGE, model.Kind.CUMULATIVE
KIB = 1024

CPU_TIME = model.Meter(
    prometheus='libvirt_nova_instance_cpu_time_total',
    unit='ns',
    kind=CUMULATIVE,
    help='CPU time of the instance in nanoseconds, the emulator included.',
    source='virDomainGetInfo cpuTime, ns',
)
MEMORY_ALLOC = model.Meter(
    prometheus='libvirt_nova_instance_memory_alloc_kb',
    unit='KiB',
    kind=GAUGE,
    help='Memory the operating system of the guest manages.',
    source='virConnectGetAllDomainStats balloon.available, KiB',
)
MEMORY_USED = model.Meter(
    prometheus='libvirt_nova_instance_memory_used_kb',
    unit='KiB',
    kind=GAUGE,
    help='Memory the guest uses: available - usable.',
    source='virConnectGetAllDomainStats balloon.available, .usable, KiB',
)
VCPU_COUNT = model.Meter(
    prometheus='libvirt_nova_instance_vcpu_count',
    unit='vcpu',
    kind=GAUGE,
    help='Number of vCPUs the instance could have at most.',
    source='virConnectGetAllDomainStats vcpu.maximum',
)


def _used(monitor: model.MonitorStatistics) -> int | None:
    """Return what the guest uses, None while its figures contradict each other."""
    available, usable = monitor.memory.available_bytes, monitor.memory.usable_bytes
    if available is None or usable is None or usable > available:
        return None
    return (available - usable) // KIB


def _alloc(monitor: model.MonitorStatistics) -> int | None:
    available = monitor.memory.available_bytes
    return None if available is None else available // KIB


INSTANCE_COLUMNS = ((CPU_TIME, operator.attrgetter('cpu_time_ns')),)
MONITOR_COLUMNS = (
    (MEMORY_ALLOC, _alloc),
    (MEMORY_USED, _used),
    (VCPU_COUNT, operator.attrgetter('vcpus_maximum')),
)


class LibvirtNovaCollector(base.Collector):
    """``libvirt_nova_instance_*`` under its own labels."""

    GROUP = 'collector_libvirt_nova'
    METERS = (CPU_TIME, MEMORY_ALLOC, MEMORY_USED, VCPU_COUNT)
    METRIC_SET = 'libvirt_nova'

    def collect(
        self, previous: model.Snapshot | None, current: model.Snapshot, notes: base.Notes
    ) -> Iterator[model.Family]:
        """Give the four series; what was not read is absent, never 0."""
        rows = [(base.noted(notes, i.definition, _labels), i) for i in current.instances.value]
        yield from base.families(INSTANCE_COLUMNS, rows)
        monitors = [(labels, i.monitor) for labels, i in rows if i.monitor is not None]
        yield from base.families(MONITOR_COLUMNS, monitors)


def _labels(definition: model.Definition) -> model.Labels:
    return model.Labels.of(
        libvirtname=definition.domain,
        novaname=definition.name,
        novaproject=definition.project_name,
    )
