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

"""Records of virConnectGetAllDomainStats → statistics of the model.

Pure functions over the dictionaries that libvirt-python gives. A key that is
missing, or that says *unsupported* (-1), becomes None. The parameters are
matched by name: their order is not part of libvirt's promise.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import functools
import re
from typing import Any

from oie import model

Record = Mapping[str, Any]

KIB = 1024
# No record of libvirt lists so many of anything: what counts more is broken.
_MOST = 4096
# libvirt says "unsupported" by -1, which unsigned parameters show as 2^64 - 1.
_UNSUPPORTED = 2**63

_NET = ('rx.bytes', 'rx.pkts', 'rx.errs', 'rx.drop', 'tx.bytes', 'tx.pkts', 'tx.errs', 'tx.drop')
_BLOCK = (
    'rd.bytes',
    'rd.reqs',
    'rd.times',
    'wr.bytes',
    'wr.reqs',
    'wr.times',
    'fl.reqs',
    'fl.times',
    'capacity',
    'allocation',
    'physical',
    'threshold',
)
_VCPU = ('state', 'time', 'wait', 'delay')


@functools.lru_cache(maxsize=1024)
def _keys(group: str, number: int, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f'{group}.{number}.{name}' for name in names)


def number(record: Record, key: str) -> int | None:
    """Return a parameter, None when it is missing or unsupported."""
    return _known(record.get(key))


def _known(value: Any) -> int | None:
    if not isinstance(value, (int, float)) or not 0 <= value < _UNSUPPORTED:
        return None
    return int(value)


def _numbers(record: Record, keys: Iterable[str]) -> list[int | None]:
    get = record.get
    return [_known(get(key)) for key in keys]


def _indexes(record: Record, key: str) -> range:
    """Return the numbers of a group's members, as many as a count says."""
    return range(min(number(record, key) or 0, _MOST))


def state(record: Record) -> tuple[int, int | None]:
    """Return state and reason of the STATE group."""
    found = number(record, 'state.state')
    return model.DomainState.NOSTATE if found is None else found, number(record, 'state.reason')


def interfaces(
    record: Record, devices: Iterable[model.InterfaceDevice]
) -> tuple[model.InterfaceStatistics, ...]:
    """Return the INTERFACE group for the known devices, in their order.

    A device that the record does not name has no statistics and is left out.
    The counters are those of the guest: ``rx`` is what it received (libvirt
    swaps the view of the host's tap).
    """
    names = {record.get(f'net.{n}.name'): n for n in _indexes(record, 'net.count')}
    found = ((device, names[device.target]) for device in devices if device.target in names)
    return tuple(_interface(record, device, n) for device, n in found)


def _interface(
    record: Record, device: model.InterfaceDevice, index: int
) -> model.InterfaceStatistics:
    v = _numbers(record, _keys('net', index, _NET))
    return model.InterfaceStatistics(
        device=device,
        rx_bytes=v[0],
        rx_packets=v[1],
        rx_errors=v[2],
        rx_drops=v[3],
        tx_bytes=v[4],
        tx_packets=v[5],
        tx_errors=v[6],
        tx_drops=v[7],
    )


def interface_names(record: Record) -> frozenset[str]:
    """Return the host devices that the INTERFACE group names."""
    names = (record.get(f'net.{n}.name') for n in _indexes(record, 'net.count'))
    return frozenset(name for name in names if name)


def is_complete(record: Record) -> bool:
    """Whether BALLOON, VCPU and BLOCK hold what needs the monitor.

    A busy domain gives a shorter record under NOWAIT (19 of 34 keys, libvirt
    9.0.0): RSS and the block counters are missing then.
    """
    if 'balloon.rss' not in record or 'vcpu.current' not in record:
        return False
    disks = _indexes(record, 'block.count')
    return not disks or any(f'block.{n}.rd.reqs' in record for n in disks)


def monitor(
    record: Record,
    devices: Iterable[model.DiskDevice],
    read_at: float,
    guest_max_age: float = float('inf'),
    *,
    has_layers: bool = False,
) -> model.MonitorStatistics:
    """Return what one record says of vCPUs, memory and disks.

    :param guest_max_age: seconds for which figures of the guest are believed
    :param has_layers: whether the BACKING flag was set
    """
    known = {device.target: device for device in devices}
    return model.MonitorStatistics(
        read_at=read_at,
        is_complete=is_complete(record),
        vcpus_current=number(record, 'vcpu.current'),
        vcpus_maximum=number(record, 'vcpu.maximum'),
        vcpus=tuple(_vcpus(record)),
        memory=memory(record, read_at - guest_max_age),
        disks=tuple(_disks(record, known, has_layers=has_layers)),
        cpu_user_ns=number(record, 'cpu.user'),
        cpu_system_ns=number(record, 'cpu.system'),
        halt_poll_success_ns=number(record, 'cpu.haltpoll.success.time'),
        halt_poll_fail_ns=number(record, 'cpu.haltpoll.fail.time'),
        perf={
            key[5:]: known_value
            for key, value in record.items()
            if key.startswith('perf.') and (known_value := _known(value)) is not None
        },
        bandwidth=tuple(_bandwidth(record)),
        cache_occupancy=tuple(_cache_occupancy(record)),
    )


def _vcpus(record: Record) -> Iterator[model.VcpuStatistics]:
    # Hot-plugged vCPUs may leave holes: vcpu.maximum bounds the numbers.
    for n in _indexes(record, 'vcpu.maximum') or _indexes(record, 'vcpu.current'):
        state, time, wait, delay = _numbers(record, _keys('vcpu', n, _VCPU))
        if state is None and time is None:
            continue
        halted = record.get(f'vcpu.{n}.halted')
        yield model.VcpuStatistics(
            number=n,
            state=state,
            time_ns=time,
            wait_ns=wait,
            delay_ns=delay,
            is_halted=None if halted is None else bool(halted),
        )


def memory(record: Record, oldest: float = 0.0) -> model.Memory:
    """Return the BALLOON group, sizes in bytes.

    Without a balloon driver in the guest only ``current``, ``maximum`` and
    ``rss`` come. QEMU repeats the last figures of a driver that fell silent.

    :param oldest: Unix time; figures the guest gave before it are left out
    """
    # 0 until the balloon driver of the guest has answered once.
    updated_at = number(record, 'balloon.last-update') or None
    known = model.Memory(
        current_bytes=_bytes(record, 'current'),
        maximum_bytes=_bytes(record, 'maximum'),
        rss_bytes=_bytes(record, 'rss'),
        updated_at=updated_at,
    )
    if updated_at is not None and updated_at < oldest:
        return known
    return dataclasses.replace(
        known,
        available_bytes=_bytes(record, 'available'),
        usable_bytes=_bytes(record, 'usable'),
        unused_bytes=_bytes(record, 'unused'),
        disk_caches_bytes=_bytes(record, 'disk_caches'),
        swap_in_bytes=_bytes(record, 'swap_in'),
        swap_out_bytes=_bytes(record, 'swap_out'),
        major_faults=number(record, 'balloon.major_fault'),
        minor_faults=number(record, 'balloon.minor_fault'),
        hugetlb_pgalloc=number(record, 'balloon.hugetlb_pgalloc'),
        hugetlb_pgfail=number(record, 'balloon.hugetlb_pgfail'),
    )


def _bytes(record: Record, key: str) -> int | None:
    kib = number(record, f'balloon.{key}')
    return None if kib is None else kib * KIB


def _disks(
    record: Record, devices: Mapping[str, model.DiskDevice], *, has_layers: bool
) -> Iterator[model.DiskStatistics]:
    # Under the BACKING flag each layer of a disk has an index and the name of
    # the disk; the first is the active one, which the guest reads and writes.
    layers: dict[str, list[int]] = {}
    for n in _indexes(record, 'block.count'):
        name = record.get(f'block.{n}.name', '')
        if name in devices:
            layers.setdefault(name, []).append(n)
    for name, indexes in layers.items():
        depth = len(indexes) - 1 if has_layers else None
        yield _disk(record, devices[name], indexes[0], depth)


def _disk(
    record: Record, device: model.DiskDevice, index: int, depth: int | None
) -> model.DiskStatistics:
    v = _numbers(record, _keys('block', index, _BLOCK))
    return model.DiskStatistics(
        device=device,
        read_bytes=v[0],
        read_requests=v[1],
        read_time_ns=v[2],
        write_bytes=v[3],
        write_requests=v[4],
        write_time_ns=v[5],
        flush_requests=v[6],
        flush_time_ns=v[7],
        capacity_bytes=v[8],
        allocation_bytes=v[9],
        physical_bytes=v[10],
        threshold_bytes=v[11],
        backing_depth=depth,
        latency=_latency(record, index) if _has_latency(record, index) else {},
    )


def _has_latency(record: Record, index: int) -> bool:
    prefix = f'block.{index}.latency_histogram.'
    return any(f'{prefix}{op}.bin.count' in record for op in ('read', 'write', 'flush'))


def _latency(record: Record, index: int) -> dict[str, tuple[tuple[int, int], ...]]:
    """Return (start in ns, requests) of every bin by operation, libvirt >= 12.1."""
    histograms = {}
    for operation in ('read', 'write', 'flush'):
        prefix = f'block.{index}.latency_histogram.{operation}.bin'
        bins = [
            (start, value)
            for m in _indexes(record, f'{prefix}.count')
            if (start := number(record, f'{prefix}.{m}.start')) is not None
            and (value := number(record, f'{prefix}.{m}.value')) is not None
        ]
        if bins:
            histograms[operation] = tuple(bins)
    return histograms


_BANDWIDTH = re.compile(r'memory\.bandwidth\.monitor\.(\d+)\.node\.(\d+)\.bytes\.(local|total)')
_CACHE = re.compile(r'cpu\.cache\.monitor\.(\d+)\.bank\.(\d+)\.bytes')


def _bandwidth(record: Record) -> Iterator[tuple[str, str, str, int]]:
    """Give monitor, node, scope and bytes of the MEMORY group (resctrl)."""
    if not record.get('memory.bandwidth.monitor.count'):
        return
    for key, value in record.items():
        if (match := _BANDWIDTH.fullmatch(key)) and (found := _known(value)) is not None:
            monitor, node, scope = match.groups()
            yield monitor, node, scope, found


def _cache_occupancy(record: Record) -> Iterator[tuple[str, str, int]]:
    """Give monitor, bank and bytes of the cache monitors in CPU_TOTAL (resctrl)."""
    if not record.get('cpu.cache.monitor.count'):
        return
    for key, value in record.items():
        if (match := _CACHE.fullmatch(key)) and (found := _known(value)) is not None:
            monitor, bank = match.groups()
            yield monitor, bank, found


def job(stats: Record) -> model.Job | None:
    """Return virDomainGetJobStats of a running or completed job.

    The times are milliseconds, ``memory_dirty_rate`` is pages per second. None
    when the domain has no job (type 0).
    """
    kind = number(stats, 'type')
    if not kind:
        return None
    pages, page_bytes = number(stats, 'memory_dirty_rate'), number(stats, 'memory_page_size')
    succeeded = stats.get('success')
    return model.Job(
        type=kind,
        operation=number(stats, 'operation'),
        elapsed_ms=number(stats, 'time_elapsed'),
        remaining_ms=number(stats, 'time_remaining'),
        downtime_ms=number(stats, 'downtime'),
        memory_total_bytes=number(stats, 'memory_total'),
        memory_processed_bytes=number(stats, 'memory_processed'),
        memory_remaining_bytes=number(stats, 'memory_remaining'),
        memory_bytes_per_second=number(stats, 'memory_bps'),
        dirty_bytes_per_second=(
            None if pages is None or page_bytes is None else pages * page_bytes
        ),
        iterations=number(stats, 'memory_iteration'),
        disk_total_bytes=number(stats, 'disk_total'),
        disk_processed_bytes=number(stats, 'disk_processed'),
        disk_remaining_bytes=number(stats, 'disk_remaining'),
        auto_converge_percent=number(stats, 'auto_converge_throttle'),
        succeeded=None if succeeded is None else bool(succeeded),
    )


def block_job(info: Record) -> model.BlockJob:
    """Return virDomainGetBlockJobInfo: bytes done and to do, bandwidth in bytes/s."""
    return model.BlockJob(
        type=info['type'],
        done_bytes=info['cur'],
        end_bytes=info['end'],
        # Nova and virsh set it in bytes; 0 means no limit.
        limit_bytes_per_second=info.get('bandwidth') or None,
    )
