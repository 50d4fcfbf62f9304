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

"""What every instance has used since it was first seen here, and whether that is remembered."""

from collections.abc import Iterator
import operator

from oie import model
from oie.collectors import base

_LEDGER = 'the ledger, [ledger] path'


def _meter(
    prometheus: str, ceilometer: str, field: str, unit: str, help: str
) -> tuple[model.Meter, model.Getter]:
    """Return a total of both worlds; ``field`` is that of model.Usage too."""
    meter = model.Meter(
        prometheus=prometheus,
        ceilometer=ceilometer,
        field=field,
        unit=unit,
        kind=model.Kind.CUMULATIVE,
        help=help,
        source=_LEDGER,
    )
    return meter, operator.attrgetter(field)


CPU_SECONDS = model.Meter(
    prometheus='oie_instance_usage_cpu_seconds_total',
    unit='s',
    kind=model.Kind.CUMULATIVE,
    help='CPU time that the instance has used on this host, over all of its lives.',
    source=_LEDGER,
)
CPU_NANOSECONDS = model.Meter(
    ceilometer='oie.usage.cpu',
    field='cpu_time_ns',
    unit='ns',
    kind=model.Kind.CUMULATIVE,
    help='CPU time that the instance has used on this host, over all of its lives.',
    source=_LEDGER,
)
USAGE: tuple[base.Column, ...] = (
    (CPU_SECONDS, lambda usage: base.seconds(usage.cpu_time_ns)),
    (CPU_NANOSECONDS, operator.attrgetter('cpu_time_ns')),
    _meter(
        'oie_instance_usage_vcpu_seconds_total',
        'oie.usage.vcpu.seconds',
        'vcpu_seconds',
        'vcpu.s',
        'Plugged vCPUs of the instance times the seconds in which it was seen to exist.',
    ),
    _meter(
        'oie_instance_usage_memory_mebibyte_seconds_total',
        'oie.usage.memory.mb.seconds',
        'memory_mb_seconds',
        'MB.s',
        'Memory of the flavor in MiB times the seconds in which the instance was seen to exist.',
    ),
    _meter(
        'oie_instance_usage_license_unit_seconds_total',
        'oie.usage.license.unit.seconds',
        'license_unit_seconds',
        'unit.s',
        'Licence units of the guest times the seconds in which it was seen to need them.',
    ),
    _meter(
        'oie_instance_usage_disk_read_bytes_total',
        'oie.usage.disk.read.bytes',
        'disk_read_bytes',
        'B',
        'Bytes read from all disks that the instance has ever had, over all of its lives.',
    ),
    _meter(
        'oie_instance_usage_disk_read_requests_total',
        'oie.usage.disk.read.requests',
        'disk_read_requests',
        'request',
        'Reads from all disks that the instance has ever had, over all of its lives.',
    ),
    _meter(
        'oie_instance_usage_disk_write_bytes_total',
        'oie.usage.disk.write.bytes',
        'disk_write_bytes',
        'B',
        'Bytes written to all disks that the instance has ever had, over all of its lives.',
    ),
    _meter(
        'oie_instance_usage_disk_write_requests_total',
        'oie.usage.disk.write.requests',
        'disk_write_requests',
        'request',
        'Writes to all disks that the instance has ever had, over all of its lives.',
    ),
    _meter(
        'oie_instance_usage_network_receive_bytes_total',
        'oie.usage.network.incoming.bytes',
        'network_rx_bytes',
        'B',
        'Bytes received over all interfaces that the instance has ever had.',
    ),
    _meter(
        'oie_instance_usage_network_receive_packets_total',
        'oie.usage.network.incoming.packets',
        'network_rx_packets',
        'packet',
        'Packets received over all interfaces that the instance has ever had.',
    ),
    _meter(
        'oie_instance_usage_network_transmit_bytes_total',
        'oie.usage.network.outgoing.bytes',
        'network_tx_bytes',
        'B',
        'Bytes sent over all interfaces that the instance has ever had.',
    ),
    _meter(
        'oie_instance_usage_network_transmit_packets_total',
        'oie.usage.network.outgoing.packets',
        'network_tx_packets',
        'packet',
        'Packets sent over all interfaces that the instance has ever had.',
    ),
)
LAST_WRITE = model.Meter(
    prometheus='oie_ledger_last_write_timestamp_seconds',
    unit='s',
    kind=model.Kind.GAUGE,
    help='Unix time at which the totals were last written; absent before the first time.',
    source=_LEDGER,
)
WRITE_ERRORS = model.Meter(
    prometheus='oie_ledger_write_errors_total',
    unit='error',
    kind=model.Kind.CUMULATIVE,
    help='Attempts to write the totals that failed.',
    source='our own counter',
)
DURABLE = model.Meter(
    prometheus='oie_ledger_durable',
    unit='1',
    kind=model.Kind.GAUGE,
    help='Whether the totals survive a crash; 0: they are kept in memory only, or not at all.',
    source=_LEDGER,
)
INSTANCES = model.Meter(
    prometheus='oie_ledger_instances',
    unit='instance',
    kind=model.Kind.GAUGE,
    help='Instances whose totals are remembered, those that left this host included.',
    source=_LEDGER,
)
HOST_PROJECT: tuple[base.Column, ...] = (
    (
        model.Meter(
            prometheus='oie_host_project_vcpu_seconds_total',
            unit='vcpu.s',
            kind=model.Kind.CUMULATIVE,
            help='Plugged vCPUs times seconds of all instances that the project ever had on this '
            'host; the sum over all hosts, not over this and oie_project_vcpu_hours_total.',
            source=_LEDGER,
        ),
        operator.attrgetter('vcpu_seconds'),
    ),
    (
        model.Meter(
            prometheus='oie_host_project_memory_mebibyte_seconds_total',
            unit='MB.s',
            kind=model.Kind.CUMULATIVE,
            help='Memory of the flavors in MiB times seconds of all instances that the project '
            'ever had on this host.',
            source=_LEDGER,
        ),
        operator.attrgetter('memory_mb_seconds'),
    ),
)


class UsageCollector(base.Collector):
    """What every instance has used since it was first seen on this host, and never falls."""

    NEEDS = frozenset({'instances', 'usage', 'ledger', 'host_projects'})
    COLUMNS = {base.Resource.USAGE: USAGE}
    METERS = (
        LAST_WRITE,
        WRITE_ERRORS,
        DURABLE,
        INSTANCES,
        *(meter for meter, _ in HOST_PROJECT),
    )

    def collect(
        self, previous: model.Snapshot | None, current: model.Snapshot, notes: base.Notes
    ) -> Iterator[model.Family]:
        """Give the totals, and how the ledger is."""
        yield from super().collect(previous, current, notes)
        rows = [(project.labels, project) for project in current.host_projects or ()]
        yield from base.families(HOST_PROJECT, rows)
        ledger = current.ledger
        if ledger is None:
            return
        yield from base.single(LAST_WRITE, ledger.written_at)
        yield from base.single(WRITE_ERRORS, ledger.write_errors)
        yield from base.single(DURABLE, int(ledger.is_durable))
        yield from base.single(INSTANCES, ledger.instances)
