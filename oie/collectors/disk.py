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

"""Disks of instances: identity, thresholds, traffic, latency, sizes."""

from collections.abc import Iterator
from collections.abc import Mapping
import operator

from oie import model
from oie.analysis import suppression
from oie.collectors import base

GAUGE, CUMULATIVE, INFO = model.Kind.GAUGE, model.Kind.CUMULATIVE, model.Kind.INFO
BLOCK = 'virConnectGetAllDomainStats block.<n>'
XML = 'virDomainGetXMLDesc: devices/disk'

DISK_INFO = model.Meter(
    prometheus='oie_disk_info',
    unit='1',
    kind=INFO,
    help='Static metadata of a disk of an active instance, always 1.',
    source=XML,
)
READ_THRESHOLD = model.Meter(
    prometheus='oie_disk_r_alert_threshold',
    unit='request/s',
    kind=GAUGE,
    help='Read threshold of this disk for alerts, from the options.',
    source='[disk] read_thresholds, default_read_threshold',
)
WRITE_THRESHOLD = model.Meter(
    prometheus='oie_disk_w_alert_threshold',
    unit='request/s',
    kind=GAUGE,
    help='Write threshold of this disk for alerts, from the options.',
    source='[disk] write_thresholds, default_write_threshold',
)
READ_GBYTES = model.Meter(
    prometheus='oie_disk_r_gbytes',
    unit='GiB',
    kind=CUMULATIVE,
    help='Gigabytes (2^30) read, five decimals; left out until the disk was used.',
    source=f'{BLOCK}.rd.bytes',
)
WRITE_GBYTES = model.Meter(
    prometheus='oie_disk_w_gbytes',
    unit='GiB',
    kind=CUMULATIVE,
    help='Gigabytes (2^30) written, five decimals; left out until the disk was used.',
    source=f'{BLOCK}.wr.bytes',
)
READ_REQUESTS = model.Meter(
    prometheus='oie_disk_r_requests',
    unit='request',
    kind=CUMULATIVE,
    help='Read requests; left out until the disk was used.',
    source=f'{BLOCK}.rd.reqs',
)
WRITE_REQUESTS = model.Meter(
    prometheus='oie_disk_w_requests',
    unit='request',
    kind=CUMULATIVE,
    help='Write requests; left out until the disk was used.',
    source=f'{BLOCK}.wr.reqs',
)
DISK_ERROR = model.Meter(
    prometheus='oie_instance_disk_error_code',
    unit='code',
    kind=GAUGE,
    help='Why a disk stopped its guest: 1 unspecified, 2 no space.',
    source='virDomainGetDiskErrors, asked while paused for an I/O error',
)
DISK_LIMIT = model.Meter(
    prometheus='oie_instance_disk_limit_bytes_per_second',
    unit='B/s',
    kind=GAUGE,
    help='Throughput limit of a disk; absent where there is none.',
    source=f'{XML}/iotune',
)
DISK_LIMIT_IOPS = model.Meter(
    prometheus='oie_instance_disk_limit_iops',
    unit='request/s',
    kind=GAUGE,
    help='Request limit of a disk; absent where there is none.',
    source=f'{XML}/iotune',
)
LATENCY = model.Meter(
    prometheus='oie_instance_disk_latency_seconds',
    unit='s',
    kind=model.Kind.HISTOGRAM,
    help='Time that requests took, by operation (libvirt 12.1 and later).',
    source=f'{BLOCK}.latency_histogram.<op>.bin.<m>.{{start,value}}, ns',
)
BLOCK_JOB_RATIO = model.Meter(
    prometheus='oie_instance_blockjob_progress_ratio',
    unit='1',
    kind=GAUGE,
    help='Progress of a block job (copy, commit, pull), 0 to 1.',
    source='virDomainGetBlockJobInfo cur / end',
)
BLOCK_JOB_LIMIT = model.Meter(
    prometheus='oie_instance_blockjob_bandwidth_bytes_per_second',
    unit='B/s',
    kind=GAUGE,
    help='Bandwidth limit of a block job; absent where there is none.',
    source='virDomainGetBlockJobInfo bandwidth',
)
# virDomainBlockJobType, in order of its numbers.
BLOCK_JOB_TYPES = ('unknown', 'pull', 'copy', 'commit', 'active_commit', 'backup')

TRAFFIC = (
    (READ_GBYTES, lambda d: base.gbytes(d.read_bytes)),
    (WRITE_GBYTES, lambda d: base.gbytes(d.write_bytes)),
    (READ_REQUESTS, operator.attrgetter('read_requests')),
    (WRITE_REQUESTS, operator.attrgetter('write_requests')),
)


def _counter(
    prometheus: str, unit: str, help: str, key: str, *, ceilometer: str = '', field: str = ''
) -> model.Meter:
    return model.Meter(
        prometheus=prometheus,
        ceilometer=ceilometer,
        field=field,
        unit=unit,
        kind=CUMULATIVE,
        help=help,
        source=f'{BLOCK}.{key}',
    )


def _size(prometheus: str, name: str, help: str, key: str) -> model.Meter:
    return model.Meter(
        prometheus=prometheus,
        ceilometer=f'oie.disk.device.{name}' if name else '',
        field=name,
        unit='B',
        kind=GAUGE,
        help=help,
        source=f'{BLOCK}.{key}',
    )


class DiskCollector(base.Collector):
    """Disks as the reference shows them, and their exact counters beside."""

    GROUP = 'disk'
    METERS = (
        DISK_INFO,
        READ_THRESHOLD,
        WRITE_THRESHOLD,
        *(meter for meter, _ in TRAFFIC),
        DISK_ERROR,
        DISK_LIMIT,
        DISK_LIMIT_IOPS,
        LATENCY,
        BLOCK_JOB_RATIO,
        BLOCK_JOB_LIMIT,
    )
    COLUMNS = {
        base.Resource.DISK: (
            (
                _counter(
                    'oie_instance_disk_read_bytes_total',
                    'B',
                    'Bytes read.',
                    'rd.bytes',
                    ceilometer='oie.disk.device.read.bytes',
                    field='read_bytes',
                ),
                operator.attrgetter('read_bytes'),
            ),
            (
                _counter(
                    'oie_instance_disk_write_bytes_total',
                    'B',
                    'Bytes written.',
                    'wr.bytes',
                    ceilometer='oie.disk.device.write.bytes',
                    field='write_bytes',
                ),
                operator.attrgetter('write_bytes'),
            ),
            (
                _counter(
                    '',
                    'request',
                    'Read requests.',
                    'rd.reqs',
                    ceilometer='oie.disk.device.read.requests',
                    field='read_requests',
                ),
                operator.attrgetter('read_requests'),
            ),
            (
                _counter(
                    '',
                    'request',
                    'Write requests.',
                    'wr.reqs',
                    ceilometer='oie.disk.device.write.requests',
                    field='write_requests',
                ),
                operator.attrgetter('write_requests'),
            ),
            (
                _counter(
                    'oie_instance_disk_read_seconds_total',
                    's',
                    'Time spent on read requests, each counted by itself.',
                    'rd.times, ns',
                ),
                lambda d: base.seconds(d.read_time_ns),
            ),
            (
                _counter(
                    'oie_instance_disk_write_seconds_total',
                    's',
                    'Time spent on write requests, each counted by itself.',
                    'wr.times, ns',
                ),
                lambda d: base.seconds(d.write_time_ns),
            ),
            (
                _counter(
                    'oie_instance_disk_flush_seconds_total',
                    's',
                    'Time spent on flush requests, each counted by itself.',
                    'fl.times, ns',
                ),
                lambda d: base.seconds(d.flush_time_ns),
            ),
            (
                _counter(
                    '',
                    'ns',
                    'Time spent on read requests.',
                    'rd.times, ns',
                    ceilometer='oie.disk.device.read.latency',
                    field='read_latency',
                ),
                operator.attrgetter('read_time_ns'),
            ),
            (
                _counter(
                    '',
                    'ns',
                    'Time spent on write requests.',
                    'wr.times, ns',
                    ceilometer='oie.disk.device.write.latency',
                    field='write_latency',
                ),
                operator.attrgetter('write_time_ns'),
            ),
            (
                _counter(
                    'oie_instance_disk_flush_requests_total',
                    'request',
                    'Flush requests.',
                    'fl.reqs',
                ),
                operator.attrgetter('flush_requests'),
            ),
            (
                _size(
                    'oie_instance_disk_capacity_bytes',
                    'capacity',
                    'Size of the disk as the guest sees it.',
                    'capacity',
                ),
                operator.attrgetter('capacity_bytes'),
            ),
            (
                _size(
                    'oie_instance_disk_allocation_bytes',
                    'allocation',
                    'Highest offset written so far; not what the guest uses.',
                    'allocation',
                ),
                operator.attrgetter('allocation_bytes'),
            ),
            (
                _size(
                    '',
                    'usage',
                    'Size of the image on the storage of the host.',
                    'physical',
                ),
                operator.attrgetter('physical_bytes'),
            ),
        )
    }
    OPTIONAL = {
        'disk_physical': {
            base.Resource.DISK: (
                (
                    _size(
                        'oie_instance_disk_physical_bytes',
                        '',
                        'Size of the image on the storage of the host.',
                        'physical',
                    ),
                    operator.attrgetter('physical_bytes'),
                ),
            )
        },
        'write_threshold': {
            base.Resource.DISK: (
                (
                    _size(
                        'oie_instance_disk_write_threshold_bytes',
                        '',
                        'Offset whose writing raises libvirt\'s block-threshold event.',
                        'threshold',
                    ),
                    lambda d: d.threshold_bytes or None,
                ),
            )
        },
        'backing_depth': {
            base.Resource.DISK: (
                (
                    model.Meter(
                        prometheus='oie_instance_disk_backing_depth',
                        unit='image',
                        kind=GAUGE,
                        help='Number of images below the disk\'s active one.',
                        source=f'{BLOCK}.name under the BACKING flag',
                    ),
                    operator.attrgetter('backing_depth'),
                ),
            )
        },
    }

    def collect(
        self, previous: model.Snapshot | None, current: model.Snapshot, notes: base.Notes
    ) -> Iterator[model.Family]:
        """Give identity and thresholds of every disk, traffic of the used ones."""
        instances = current.instances.value
        devices = [device for i in instances for device in i.definition.disks]
        yield from base.family(DISK_INFO, ((device.labels, 1) for device in devices))
        yield from self._thresholds(devices)
        disks = base.rows(current, base.Resource.DISK)
        yield from base.families(TRAFFIC, list(_used(instances, notes)))
        yield from super().collect(previous, current, notes)
        yield from base.family(DISK_ERROR, _errors(instances))
        yield from self._optional(instances, devices, disks)

    def _thresholds(self, devices: list[model.DiskDevice]) -> Iterator[model.Family]:
        options = self.options
        reads, writes = options.read_thresholds, options.write_thresholds
        yield from base.family(
            READ_THRESHOLD,
            (
                (d.labels, threshold(d.tier, reads, options.default_read_threshold))
                for d in devices
            ),
        )
        yield from base.family(
            WRITE_THRESHOLD,
            (
                (d.labels, threshold(d.tier, writes, options.default_write_threshold))
                for d in devices
            ),
        )

    def _optional(
        self,
        instances: tuple[model.Instance, ...],
        devices: list[model.DiskDevice],
        disks: base.Rows,
    ) -> Iterator[model.Family]:
        if self.wants('limits'):
            yield from base.family(DISK_LIMIT, _limits(devices, 'bytes'))
            yield from base.family(DISK_LIMIT_IOPS, _limits(devices, 'requests'))
        if self.wants('disk_latency'):
            yield from base.family(LATENCY, _buckets(disks), '_bucket')
            yield from base.family(LATENCY, _requests(disks), '_count')
        if self.wants('block_jobs'):
            yield from base.family(BLOCK_JOB_RATIO, _block_jobs(instances, _progress))
            yield from base.family(
                BLOCK_JOB_LIMIT,
                _block_jobs(instances, operator.attrgetter('limit_bytes_per_second')),
            )


def threshold(tier: str, thresholds: Mapping[str, int], default: int) -> int:
    """Return the threshold of a tier: its own, else ``default``'s, else the option's."""
    return thresholds.get(tier, thresholds.get('default', default))


def _used(
    instances: tuple[model.Instance, ...], notes: base.Notes
) -> Iterator[tuple[model.Labels, model.DiskStatistics]]:
    """Give the disks whose traffic is shown, with their labels."""
    for instance in instances:
        if instance.monitor is None:
            continue
        targets = notes.setdefault(instance.definition.uuid, set())
        for disk in instance.monitor.disks:
            if _is_used(disk, targets):
                yield disk.device.labels, disk


def _is_used(disk: model.DiskStatistics, targets: set[str]) -> bool:
    """Whether all four counters are known and any of them has ever moved here.

    :param targets: the disks of this instance of which that is noted
    """
    counters = (disk.read_bytes, disk.write_bytes, disk.read_requests, disk.write_requests)
    if None in counters:
        return False
    if suppression.shows_counters(counters):
        targets.add(disk.device.target)
    return disk.device.target in targets


def _errors(instances: tuple[model.Instance, ...]) -> Iterator[tuple[model.Labels, int]]:
    for instance in instances:
        for device in instance.definition.disks:
            if device.target in instance.disk_errors:
                yield device.labels, instance.disk_errors[device.target]


def _limits(devices: list[model.DiskDevice], unit: str) -> Iterator[tuple[model.Labels, int]]:
    for device in devices:
        for limit in device.limits:
            if limit.unit == unit:
                labels = device.labels.extended(op=limit.operation, burst=str(int(limit.is_burst)))
                yield labels, limit.value


def _buckets(disks: base.Rows) -> Iterator[tuple[model.Labels, int]]:
    """Give cumulative buckets: libvirt's bins hold requests from their start on."""
    for labels, disk in disks:
        for operation, bins in disk.latency.items():
            requests = 0
            uppers = (*(start for start, _ in bins[1:]), None)
            for (_, value), upper in zip(bins, uppers, strict=True):
                requests += value
                le = '+Inf' if upper is None else repr(upper / 1e9)
                yield labels.extended(op=operation, le=le), requests


def _requests(disks: base.Rows) -> Iterator[tuple[model.Labels, int]]:
    for labels, disk in disks:
        for operation, bins in disk.latency.items():
            yield labels.extended(op=operation), sum(value for _, value in bins)


def _progress(job: model.BlockJob) -> float | None:
    return job.done_bytes / job.end_bytes if job.end_bytes else None


def _block_jobs(
    instances: tuple[model.Instance, ...], value_of: model.Getter
) -> Iterator[tuple[model.Labels, float | int | None]]:
    for instance in instances:
        for device in instance.definition.disks:
            if (job := instance.block_jobs.get(device.target)) is not None:
                kind = BLOCK_JOB_TYPES[job.type] if job.type < len(BLOCK_JOB_TYPES) else 'unknown'
                yield device.labels.extended(type=kind), value_of(job)
