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

"""Memory of instances: what the host gives and what the guest makes of it."""

from collections.abc import Callable
import operator

from oie import model
from oie.collectors import base

GAUGE, CUMULATIVE = model.Kind.GAUGE, model.Kind.CUMULATIVE
BALLOON = 'virConnectGetAllDomainStats balloon'
MIB = 2**20


def _mib(field: str) -> Callable[[model.MonitorStatistics], float | None]:
    value_of = operator.attrgetter(f'memory.{field}')

    def get(monitor: model.MonitorStatistics) -> float | None:
        value = value_of(monitor)
        return None if value is None else value / MIB

    return get


def used_bytes(memory: model.Memory) -> int | None:
    """Return what the guest uses: available minus usable, else minus unused.

    The order is Ceilometer's. The guest writes these figures one by one, so a
    difference may come out below zero for a moment: then nothing is known.
    """
    free = memory.unused_bytes if memory.usable_bytes is None else memory.usable_bytes
    if memory.available_bytes is None or free is None or free > memory.available_bytes:
        return None
    return memory.available_bytes - free


def _used_mib(monitor: model.MonitorStatistics) -> float | None:
    used = used_bytes(monitor.memory)
    return None if used is None else used / MIB


def _gauge(prometheus: str, help: str, source: str) -> model.Meter:
    return model.Meter(prometheus=prometheus, unit='B', kind=GAUGE, help=help, source=source)


def _mebibytes(ceilometer: str, field: str, help: str, source: str) -> model.Meter:
    return model.Meter(
        ceilometer=ceilometer, field=field, unit='MiB', kind=GAUGE, help=help, source=source
    )


class MemoryCollector(base.Collector):
    """The balloon group of the bulk statistics.

    The source drops the figures of a guest that has fallen silent.
    """

    GROUP = 'collector_memory'
    COLUMNS = {
        base.Resource.MONITOR: (
            (
                _gauge(
                    'oie_instance_memory_balloon_bytes',
                    'Memory the balloon leaves to the guest at present.',
                    f'{BALLOON}.current, KiB',
                ),
                operator.attrgetter('memory.current_bytes'),
            ),
            (
                _gauge(
                    'oie_instance_memory_maximum_bytes',
                    'Memory the guest could have at most.',
                    f'{BALLOON}.maximum, KiB',
                ),
                operator.attrgetter('memory.maximum_bytes'),
            ),
            (
                _gauge(
                    'oie_instance_memory_rss_bytes',
                    'Memory of the host that QEMU occupies.',
                    f'{BALLOON}.rss, KiB',
                ),
                operator.attrgetter('memory.rss_bytes'),
            ),
            (
                _mebibytes(
                    'oie.memory', 'memory', 'Memory of the guest.', f'{BALLOON}.current, KiB'
                ),
                _mib('current_bytes'),
            ),
            (
                _mebibytes(
                    'oie.memory.resident',
                    'memory_resident',
                    'Memory of the host that QEMU occupies.',
                    f'{BALLOON}.rss, KiB',
                ),
                _mib('rss_bytes'),
            ),
            # From here on the balloon driver of the guest speaks, or nobody.
            (
                model.Meter(
                    prometheus='oie_instance_memory_stats_timestamp_seconds',
                    unit='s',
                    kind=GAUGE,
                    help='Unix time of the latest figures of the guest; absent without a driver.',
                    source=f'{BALLOON}.last-update',
                ),
                operator.attrgetter('memory.updated_at'),
            ),
            (
                _gauge(
                    'oie_instance_memory_guest_available_bytes',
                    'Memory the operating system of the guest manages.',
                    f'{BALLOON}.available, KiB',
                ),
                operator.attrgetter('memory.available_bytes'),
            ),
            (
                _gauge(
                    'oie_instance_memory_guest_usable_bytes',
                    'Memory the guest could use without swapping, caches included.',
                    f'{BALLOON}.usable, KiB',
                ),
                operator.attrgetter('memory.usable_bytes'),
            ),
            (
                _gauge(
                    'oie_instance_memory_guest_unused_bytes',
                    'Memory the guest uses for nothing at all.',
                    f'{BALLOON}.unused, KiB',
                ),
                operator.attrgetter('memory.unused_bytes'),
            ),
            (
                _gauge(
                    'oie_instance_memory_guest_used_bytes',
                    'Memory the guest uses: available - usable, else available - unused.',
                    f'{BALLOON}.available, .usable, .unused, KiB',
                ),
                lambda m: used_bytes(m.memory),
            ),
            (
                _mebibytes(
                    'oie.memory.available',
                    'memory_available',
                    'Memory the operating system of the guest manages.',
                    f'{BALLOON}.available, KiB',
                ),
                _mib('available_bytes'),
            ),
            (
                _mebibytes(
                    'oie.memory.usage',
                    'memory_usage',
                    'Memory the guest uses: available - usable, else available - unused.',
                    f'{BALLOON}.available, .usable, .unused, KiB',
                ),
                _used_mib,
            ),
            (
                model.Meter(
                    prometheus='oie_instance_memory_swap_in_bytes_total',
                    unit='B',
                    kind=CUMULATIVE,
                    help='Bytes the guest has read back from its swap.',
                    source=f'{BALLOON}.swap_in, KiB',
                ),
                operator.attrgetter('memory.swap_in_bytes'),
            ),
            (
                model.Meter(
                    prometheus='oie_instance_memory_swap_out_bytes_total',
                    unit='B',
                    kind=CUMULATIVE,
                    help='Bytes the guest has written to its swap.',
                    source=f'{BALLOON}.swap_out, KiB',
                ),
                operator.attrgetter('memory.swap_out_bytes'),
            ),
            (
                model.Meter(
                    ceilometer='oie.memory.swap.in',
                    field='memory_swap_in',
                    unit='MiB',
                    kind=CUMULATIVE,
                    help='What the guest has read back from its swap.',
                    source=f'{BALLOON}.swap_in, KiB',
                ),
                _mib('swap_in_bytes'),
            ),
            (
                model.Meter(
                    ceilometer='oie.memory.swap.out',
                    field='memory_swap_out',
                    unit='MiB',
                    kind=CUMULATIVE,
                    help='What the guest has written to its swap.',
                    source=f'{BALLOON}.swap_out, KiB',
                ),
                _mib('swap_out_bytes'),
            ),
            (
                model.Meter(
                    prometheus='oie_instance_memory_major_faults_total',
                    unit='fault',
                    kind=CUMULATIVE,
                    help='Page faults of the guest that had to wait for its disk.',
                    source=f'{BALLOON}.major_fault',
                ),
                operator.attrgetter('memory.major_faults'),
            ),
            (
                model.Meter(
                    prometheus='oie_instance_memory_minor_faults_total',
                    unit='fault',
                    kind=CUMULATIVE,
                    help='Page faults of the guest that did not.',
                    source=f'{BALLOON}.minor_fault',
                ),
                operator.attrgetter('memory.minor_faults'),
            ),
        )
    }
    OPTIONAL = {
        'disk_caches': {
            base.Resource.MONITOR: (
                (
                    _gauge(
                        'oie_instance_memory_guest_disk_caches_bytes',
                        'Memory the guest uses as disk cache and can reclaim.',
                        f'{BALLOON}.disk_caches, KiB',
                    ),
                    operator.attrgetter('memory.disk_caches_bytes'),
                ),
            )
        },
        'hugetlb': {
            base.Resource.MONITOR: (
                (
                    model.Meter(
                        prometheus='oie_instance_hugetlb_pgalloc_total',
                        unit='page',
                        kind=CUMULATIVE,
                        help='Huge pages the guest has allocated.',
                        source=f'{BALLOON}.hugetlb_pgalloc',
                    ),
                    operator.attrgetter('memory.hugetlb_pgalloc'),
                ),
                (
                    model.Meter(
                        prometheus='oie_instance_hugetlb_pgfail_total',
                        unit='page',
                        kind=CUMULATIVE,
                        help='Huge pages the guest could not allocate.',
                        source=f'{BALLOON}.hugetlb_pgfail',
                    ),
                    operator.attrgetter('memory.hugetlb_pgfail'),
                ),
            )
        },
    }
