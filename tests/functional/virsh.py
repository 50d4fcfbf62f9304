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

"""What virsh says of a guest, under the names of our series and of our JSON.

Read by other calls than ours wherever libvirt has them: dominfo, domblkstat, domifstat.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import math
import re
from xml.etree import ElementTree

from tests.functional import guests as lab_guests
from tests.functional import lab
from tests.functional import processes

#: Name of a series or field, and the disk or interface it belongs to, else empty.
Key = tuple[str, str]

_NS = 1e9
_MIB_IN_KIB = 1024


def gbytes(value: int) -> float:
    """Return bytes as the contract's gbytes: GiB, five decimals, half away from zero."""
    return math.floor(value / 2**30 * 1e5 + 0.5) / 1e5


def _seconds(value: int) -> float:
    return value / _NS


def _kib(value: int) -> int:
    return value * 1024


def _mib(value: int) -> float:
    return value / _MIB_IN_KIB


def _same(value: int) -> int:
    return value


Table = Mapping[str, tuple[str, Callable[[int], float]]]

_STATS: Table = {
    'oie_instance_state_code': ('state.state', _same),
    'oie_instance_state_reason_code': ('state.reason', _same),
    'oie_instance_cpu_seconds_total': ('cpu.time', _seconds),
    'oie_instance_vcpus_maximum': ('vcpu.maximum', _same),
    'oie_instance_memory_balloon_bytes': ('balloon.current', _kib),
    'oie_instance_memory_maximum_bytes': ('balloon.maximum', _kib),
    'oie_instance_memory_rss_bytes': ('balloon.rss', _kib),
    'oie_instance_memory_guest_available_bytes': ('balloon.available', _kib),
    'oie_instance_memory_guest_usable_bytes': ('balloon.usable', _kib),
    'oie_instance_memory_guest_unused_bytes': ('balloon.unused', _kib),
    'oie_instance_memory_swap_in_bytes_total': ('balloon.swap_in', _kib),
    'oie_instance_memory_swap_out_bytes_total': ('balloon.swap_out', _kib),
    'oie_instance_memory_major_faults_total': ('balloon.major_fault', _same),
    'oie_instance_memory_minor_faults_total': ('balloon.minor_fault', _same),
    'libvirt_nova_instance_cpu_time_total': ('cpu.time', _same),
    'libvirt_nova_instance_vcpu_count': ('vcpu.maximum', _same),
}
_STATS_JSON: Table = {
    'state_code': ('state.state', _same),
    'cpu_total': ('cpu.time', _same),
    'memory': ('balloon.current', _mib),
    'memory_resident': ('balloon.rss', _mib),
    'memory_available': ('balloon.available', _mib),
    'memory_swap_in': ('balloon.swap_in', _mib),
    'memory_swap_out': ('balloon.swap_out', _mib),
}
_DISK: Table = {
    'oie_disk_r_gbytes': ('rd_bytes', gbytes),
    'oie_disk_w_gbytes': ('wr_bytes', gbytes),
    'oie_disk_r_requests': ('rd_req', _same),
    'oie_disk_w_requests': ('wr_req', _same),
    'oie_instance_disk_read_bytes_total': ('rd_bytes', _same),
    'oie_instance_disk_write_bytes_total': ('wr_bytes', _same),
    'oie_instance_disk_read_seconds_total': ('rd_total_times', _seconds),
    'oie_instance_disk_write_seconds_total': ('wr_total_times', _seconds),
    'oie_instance_disk_flush_seconds_total': ('flush_total_times', _seconds),
    'oie_instance_disk_flush_requests_total': ('flush_operations', _same),
    'oie_instance_disk_capacity_bytes': ('capacity', _same),
    'oie_instance_disk_allocation_bytes': ('allocation', _same),
}
_DISK_JSON: Table = {
    'read_bytes': ('rd_bytes', _same),
    'write_bytes': ('wr_bytes', _same),
    'read_requests': ('rd_req', _same),
    'write_requests': ('wr_req', _same),
    'read_latency': ('rd_total_times', _same),
    'write_latency': ('wr_total_times', _same),
    'capacity': ('capacity', _same),
    'allocation': ('allocation', _same),
    'usage': ('physical', _same),
}
_INTERFACE: Table = {
    'oie_net_rx_gbytes': ('rx_bytes', gbytes),
    'oie_net_tx_gbytes': ('tx_bytes', gbytes),
    'oie_net_rx_pkt_total': ('rx_packets', _same),
    'oie_net_tx_pkt_total': ('tx_packets', _same),
    'oie_net_rx_er_total': ('rx_errs', _same),
    'oie_net_tx_er_total': ('tx_errs', _same),
    'oie_net_rx_drp_total': ('rx_drop', _same),
    'oie_net_tx_drp_total': ('tx_drop', _same),
    'oie_instance_interface_receive_bytes_total': ('rx_bytes', _same),
    'oie_instance_interface_transmit_bytes_total': ('tx_bytes', _same),
}
_INTERFACE_JSON: Table = {
    'incoming_bytes': ('rx_bytes', _same),
    'outgoing_bytes': ('tx_bytes', _same),
    'incoming_packets': ('rx_packets', _same),
    'outgoing_packets': ('tx_packets', _same),
    'incoming_errors': ('rx_errs', _same),
    'outgoing_errors': ('tx_errs', _same),
    'incoming_drops': ('rx_drop', _same),
    'outgoing_drops': ('tx_drop', _same),
}
# Left out while all of them are 0: contract 3 and 5.
_DISK_ONCE_USED = ('rd_bytes', 'wr_bytes', 'rd_req', 'wr_req')
_THRESHOLD = 100


def series(libvirtd: lab.Libvirtd, guest: lab_guests.Guest) -> dict[Key, float]:
    """Return the values that the usual series of a guest should have now."""
    stats = domstats(libvirtd, guest)
    found = {(name, ''): value for name, value in _of(_STATS, stats)}
    found['oie_instance_vcpus', ''] = int(dominfo(libvirtd, guest)['CPU(s)'])
    found['oie_instance_vcpu_seconds_total', ''] = _seconds(_sum_of_vcpus(stats, 'time'))
    found['oie_instance_cpu_steal_seconds_total', ''] = _seconds(_sum_of_vcpus(stats, 'delay'))
    # Occupied for a moment where the exporter asks in this moment.
    processes.wait_for(lambda: libvirtd.virsh('domcontrol', guest.uuid).strip() == 'ok')
    found['oie_instance_libvirt_control_state_code', ''] = 0
    found['oie_instance_libvirt_control_busy_seconds', ''] = 0
    for target, disk in disks(libvirtd, guest, stats).items():
        is_used = any(disk[name] for name in _DISK_ONCE_USED)
        names = {n: row for n, row in _DISK.items() if is_used or n.startswith('oie_instance')}
        found.update({(name, target): value for name, value in _of(names, disk)})
        found['oie_disk_r_alert_threshold', target] = _THRESHOLD
        found['oie_disk_w_alert_threshold', target] = _THRESHOLD
    for target, interface in interfaces(libvirtd, guest).items():
        is_used = any(interface.values())
        names = {n: row for n, row in _INTERFACE.items() if is_used or n.startswith('oie_inst')}
        found.update({(name, target): value for name, value in _of(names, interface)})
        found['oie_instance_interface_stats_available', target] = 1
    return found


def instance_fields(libvirtd: lab.Libvirtd, guest: lab_guests.Guest) -> dict[str, float]:
    """Return the numbers of the guest's entry of ``oie-pollster instances``."""
    stats = domstats(libvirtd, guest)
    return {
        **dict(_of(_STATS_JSON, stats)),
        'vcpus_online': int(dominfo(libvirtd, guest)['CPU(s)']),
        'cpu': _sum_of_vcpus(stats, 'time'),
        'cpu_steal': _sum_of_vcpus(stats, 'delay'),
    }


def disk_fields(libvirtd: lab.Libvirtd, guest: lab_guests.Guest) -> dict[str, dict[str, float]]:
    """Return the numbers of ``oie-pollster disks`` by target."""
    found = disks(libvirtd, guest, domstats(libvirtd, guest))
    return {target: dict(_of(_DISK_JSON, disk)) for target, disk in found.items()}


def vnic_fields(libvirtd: lab.Libvirtd, guest: lab_guests.Guest) -> dict[str, dict[str, float]]:
    """Return the numbers of ``oie-pollster vnics`` by host device."""
    found = interfaces(libvirtd, guest)
    return {target: dict(_of(_INTERFACE_JSON, nic)) for target, nic in found.items()}


def domstats(libvirtd: lab.Libvirtd, guest: lab_guests.Guest) -> dict[str, str]:
    lines = libvirtd.virsh('domstats', guest.uuid).splitlines()
    pairs = (line.strip().partition('=') for line in lines if line.startswith('  '))
    return {name: value for name, _, value in pairs}


def dominfo(libvirtd: lab.Libvirtd, guest: lab_guests.Guest) -> dict[str, str]:
    lines = libvirtd.virsh('dominfo', guest.uuid).splitlines()
    pairs = (line.partition(':') for line in lines)
    return {name: value.strip() for name, _, value in pairs}


def dumpxml(libvirtd: lab.Libvirtd, guest: lab_guests.Guest) -> ElementTree.Element:
    return ElementTree.fromstring(libvirtd.virsh('dumpxml', guest.uuid))


def disks(
    libvirtd: lab.Libvirtd, guest: lab_guests.Guest, stats: Mapping[str, str]
) -> dict[str, dict[str, int]]:
    """Return counters (domblkstat) and sizes (domstats) of the hard disks by target."""
    found = {}
    for disk in guest.instance.disks:
        if disk.device == 'disk':
            lines = libvirtd.virsh('domblkstat', guest.uuid, disk.target)
            found[disk.target] = {**_numbers(lines), **_sizes(stats, disk.target)}
    return found


def interfaces(libvirtd: lab.Libvirtd, guest: lab_guests.Guest) -> dict[str, dict[str, int]]:
    """Return the counters (domifstat) by host device."""
    targets = [port.target for port in guest.instance.ports]
    return {t: _numbers(libvirtd.virsh('domifstat', guest.uuid, t)) for t in targets}


def _of(table: Table, values: Mapping[str, str | int]) -> Iterator[tuple[str, float]]:
    for name, (key, convert) in table.items():
        if key in values:
            yield name, convert(int(values[key]))


def _sum_of_vcpus(stats: Mapping[str, str], name: str) -> int:
    return sum(int(v) for k, v in stats.items() if re.fullmatch(rf'vcpu\.\d+\.{name}', k))


def _sizes(stats: Mapping[str, str], target: str) -> dict[str, int]:
    numbers = range(int(stats['block.count']))
    number = next(n for n in numbers if stats[f'block.{n}.name'] == target)
    names = ('capacity', 'allocation', 'physical')
    return {name: int(stats[f'block.{number}.{name}']) for name in names}


def _numbers(text: str) -> dict[str, int]:
    """Return the rows ``DEVICE NAME NUMBER`` of domblkstat and domifstat."""
    rows = (line.split() for line in text.splitlines())
    return {row[1]: int(row[2]) for row in rows if len(row) == 3}
