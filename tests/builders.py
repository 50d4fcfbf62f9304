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

"""Builders of the model's nouns: whole by default, and any field by keyword.

Counters are small and distinct numbers, so that a mix-up shows. ``silent``
gives an instance of which nothing could be read; ``node`` gives a snapshot that
shows every meter there is.
"""

import dataclasses
from typing import Any

from oie import model
from oie.sources import netns_devices
from oie.sources import netns_names

NOW = 1_795_000_000.0
UUID = '6c1f0a3e-3f5b-4a57-9b61-2f1d5a7c9e01'
PROJECT = '8f0f3c0e5d6a4b7c9e1d2f3a4b5c6d7e'
USER = '0123456789abcdef0123456789abcdef'
HOST = 'cmp1'
GIB = 2**30
MIB = 2**20
THREAT_TAGS = {
    'tor_exit': 'TOR',
    'tor_relay': 'TORRELAY',
    'spamhaus': 'SPAMHAUS',
    'emergingthreats': 'EMTHREATS',
    'customlist': 'CUSTOMLIST',
}
"""Lists that the reference exporter has, and what it calls them in its log."""


def flavor(**more: Any) -> model.Flavor:
    """Return a flavor of two vCPUs and 4 GiB."""
    values: dict[str, Any] = {
        'name': 'm1.medium',
        'id': '42',
        'vcpus': 2,
        'memory_mib': 4096,
        'disk_gib': 40,
        'ephemeral_gib': 2,
        'swap_mib': 0,
    }
    return model.Flavor(**{**values, **more})


def disk(**more: Any) -> model.DiskDevice:
    """Return an RBD disk ``vda``; a definition makes itself its owner."""
    values: dict[str, Any] = {
        'owner': model.NO_LABELS,
        'target': 'vda',
        'type': 'network',
        'tier': 'vms',
        'uuid': f'{UUID}_disk',
        'source': f'rbd:vms/{UUID}_disk',
        'bus': 'virtio',
    }
    return model.DiskDevice(**{**values, **more})


def interface(**more: Any) -> model.InterfaceDevice:
    """Return an OVS port; a definition makes itself its owner."""
    values: dict[str, Any] = {
        'owner': model.NO_LABELS,
        'target': 'tap11111111-11',
        'type': 'bridge',
        'mac': 'fa:16:3e:00:00:01',
        'port_uuid': '11111111-1111-4111-8111-111111111111',
        'model': 'virtio',
        'mtu': 1450,
        'source': 'br-int',
    }
    return model.InterfaceDevice(**{**values, **more})


def virtual_function(**more: Any) -> model.InterfaceDevice:
    """Return an SR-IOV port: it has no device on the host."""
    values: dict[str, Any] = {
        'target': '',
        'type': 'hostdev',
        'mac': 'fa:16:3e:00:00:02',
        'port_uuid': '',
        'model': '',
        'mtu': None,
        'source': '',
        'pci_address': '0000:81:00.2',
    }
    return interface(**{**values, **more})


def address(**more: Any) -> model.Address:
    """Return a fixed IP."""
    values: dict[str, Any] = {
        'ip': '10.0.0.5',
        'family': 'ipv4',
        'port_uuid': '11111111-1111-4111-8111-111111111111',
    }
    return model.Address(**{**values, **more})


def definition(**more: Any) -> model.Definition:
    """Return an instance of Nova with one disk and one interface, which it owns."""
    values: dict[str, Any] = {
        'uuid': UUID,
        'domain': 'instance-0000002a',
        'has_nova_metadata': True,
        'metadata_namespace': '1.1',
        'nova_version': '29.0.1',
        'name': 'web-1',
        'created_at': '2026-01-02 03:04:05',
        'created_timestamp': 1767323045.0,
        'project_uuid': PROJECT,
        'project_name': 'shop',
        'user_uuid': USER,
        'user_name': 'alice',
        'flavor': flavor(),
        'root_type': 'image',
        'image_uuid': 'b6a9d2e4-0000-4000-8000-0000000000aa',
        'addresses': (address(),),
        'os_type': 'hvm',
        'architecture': 'x86_64',
        'disks': (disk(),),
        'interfaces': (interface(),),
    }
    made = model.Definition(**{**values, **more})
    return dataclasses.replace(
        made,
        disks=tuple(dataclasses.replace(device, owner=made.labels) for device in made.disks),
        interfaces=tuple(
            dataclasses.replace(device, owner=made.labels) for device in made.interfaces
        ),
    )


def disk_statistics(device: model.DiskDevice, **more: Any) -> model.DiskStatistics:
    """Return the counters of a disk that was used."""
    values: dict[str, Any] = {
        'read_bytes': 3 * GIB,
        'read_requests': 301,
        'read_time_ns': 3_020_000_000,
        'write_bytes': 4 * GIB,
        'write_requests': 401,
        'write_time_ns': 4_020_000_000,
        'flush_requests': 501,
        'flush_time_ns': 5_020_000_000,
        'capacity_bytes': 40 * GIB,
        'allocation_bytes': 9 * GIB,
        'physical_bytes': 10 * GIB,
    }
    return model.DiskStatistics(device=device, **{**values, **more})


def interface_statistics(device: model.InterfaceDevice, **more: Any) -> model.InterfaceStatistics:
    """Return the counters of an interface that was used, without errors and drops."""
    values: dict[str, Any] = {
        'rx_bytes': 5 * GIB,
        'rx_packets': 5001,
        'rx_errors': 0,
        'rx_drops': 0,
        'tx_bytes': 6 * GIB,
        'tx_packets': 6001,
        'tx_errors': 0,
        'tx_drops': 0,
    }
    return model.InterfaceStatistics(device=device, **{**values, **more})


def virtual_function_statistics(
    device: model.InterfaceDevice, **more: Any
) -> model.VirtualFunctionStatistics:
    """Return the counters of an SR-IOV port that was used."""
    values: dict[str, Any] = {
        'rx_bytes': 7 * GIB,
        'rx_packets': 7001,
        'tx_bytes': 8 * GIB,
        'tx_packets': 8001,
    }
    return model.VirtualFunctionStatistics(device=device, **{**values, **more})


def vcpu(number: int = 0, **more: Any) -> model.VcpuStatistics:
    """Return a vCPU that has run for 10 s and waited for 1 s."""
    values: dict[str, Any] = {
        'state': 1,
        'time_ns': 10_000_000_000,
        'wait_ns': 2_000_000_000,
        'delay_ns': 1_000_000_000,
        'is_halted': False,
    }
    return model.VcpuStatistics(number=number, **{**values, **more})


def memory(**more: Any) -> model.Memory:
    """Return the figures of a guest of 4 GiB with a balloon driver."""
    values: dict[str, Any] = {
        'current_bytes': 4096 * MIB,
        'maximum_bytes': 8192 * MIB,
        'rss_bytes': 3000 * MIB,
        'available_bytes': 3900 * MIB,
        'usable_bytes': 2900 * MIB,
        'unused_bytes': 1900 * MIB,
        'disk_caches_bytes': 800 * MIB,
        'swap_in_bytes': 3 * MIB,
        'swap_out_bytes': 4 * MIB,
        'major_faults': 71,
        'minor_faults': 7200,
        'updated_at': int(NOW) - 3,
    }
    return model.Memory(**{**values, **more})


def monitor(of: model.Definition, **more: Any) -> model.MonitorStatistics:
    """Return what the QEMU monitor says of this definition, everything known."""
    values: dict[str, Any] = {
        'read_at': NOW,
        'is_complete': True,
        'vcpus_current': 2,
        'vcpus_maximum': 4,
        'vcpus': (vcpu(0), vcpu(1)),
        'memory': memory(),
        'disks': tuple(disk_statistics(device) for device in of.disks),
    }
    return model.MonitorStatistics(**{**values, **more})


def instance(of: model.Definition | None = None, **more: Any) -> model.Instance:
    """Return a running instance of which everything was read a moment ago.

    By default its disks, its interfaces with a host device and its SR-IOV ports have counters.
    """
    of = of or definition()
    values: dict[str, Any] = {
        'definition': of,
        'domain_id': 7,
        'state': model.DomainState.RUNNING.value,
        'state_reason': 1,
        'read_at': NOW,
        'read_clock_ns': 1_000_000_000_000,
        'cpu_time_ns': 25_000_000_000,
        'vcpus': 2,
        'memory_maximum_bytes': 4096 * MIB,
        'control': model.Control(state=0, busy_ms=0),
        'interfaces': tuple(interface_statistics(d) for d in of.interfaces if d.target),
        'virtual_functions': tuple(
            virtual_function_statistics(d) for d in of.interfaces if d.pci_address
        ),
        'monitor': monitor(of),
        'completed_at': NOW,
    }
    return model.Instance(**{**values, **more})


def silent(of: model.Definition | None = None, **more: Any) -> model.Instance:
    """Return an instance of which nothing but its state could ever be read."""
    of = of or definition()
    values: dict[str, Any] = {
        'state_reason': None,
        'cpu_time_ns': None,
        'vcpus': None,
        'memory_maximum_bytes': None,
        'control': None,
        'interfaces': tuple(model.InterfaceStatistics(device=d) for d in of.interfaces),
        'virtual_functions': tuple(
            model.VirtualFunctionStatistics(device=d) for d in of.interfaces
        ),
        'monitor': model.MonitorStatistics(
            read_at=NOW,
            is_complete=False,
            vcpus=(model.VcpuStatistics(number=0), model.VcpuStatistics(number=1)),
            disks=tuple(model.DiskStatistics(device=device) for device in of.disks),
        ),
        'is_complete': False,
        'completed_at': None,
        'job': model.Job(type=2),
        'last_job': None,
    }
    return instance(of, **{**values, **more})


def later(
    known: model.Instance, seconds: float, cpu_seconds: float, **more: Any
) -> model.Instance:
    """Return an instance some seconds later, when it has used so much more CPU time."""
    assert known.cpu_time_ns is not None
    values: dict[str, Any] = {
        'read_at': known.read_at + seconds,
        'read_clock_ns': known.read_clock_ns + round(seconds * 1e9),
        'cpu_time_ns': known.cpu_time_ns + round(cpu_seconds * 1e9),
    }
    return dataclasses.replace(known, **{**values, **more})


def flow_direction(**more: Any) -> model.FlowDirection:
    """Return 30 connections to 25 remotes at 3 ports, a third of them unanswered."""
    values: dict[str, Any] = {
        'flows': 30,
        'unreplied': 10,
        'remotes': 25,
        'largest_remote': 4,
        'ports': 3,
        'largest_port': 21,
        'new_remotes': 5,
        'new_ports': 1,
    }
    return model.FlowDirection(**{**values, **more})


def address_flows(
    of: model.Definition | None = None, address: model.Address | None = None, **more: Any
) -> model.AddressFlows:
    """Return the flows of an active fixed IP, by default the first one of the definition."""
    of = of or definition()
    values: dict[str, Any] = {
        'definition': of,
        'address': address or of.addresses[0],
        'entries': 41,
        'outbound': flow_direction(),
        'inbound': flow_direction(flows=9, unreplied=0, remotes=8, new_remotes=2),
        'is_active': True,
    }
    return model.AddressFlows(**{**values, **more})


def flow_table(*addresses: model.AddressFlows, **more: Any) -> model.FlowTable:
    """Return a table of 1000 entries in which these fixed IPs have their flows."""
    values: dict[str, Any] = {
        'entries': 1000,
        'odd': 11,
        'unattributed': 120,
        'ambiguous': 13,
        'addresses': addresses,
    }
    return model.FlowTable(**{**values, **more})


def flows(*addresses: model.AddressFlows, **more: Any) -> model.Reading[model.FlowTable | None]:
    """Return a complete reading of such a table."""
    values: dict[str, Any] = {
        'value': flow_table(*addresses),
        'read_at': NOW - 0.5,
        'seconds': 0.0654321,
    }
    return model.Reading(**{**values, **more})


def flows_of(*instances: model.Instance) -> model.Reading[model.FlowTable | None]:
    """Return a complete reading in which every fixed IP of the instances is active."""
    return flows(
        *(
            address_flows(instance.definition, address)
            for instance in instances
            for address in instance.definition.addresses
        )
    )


def flow_health(**more: Any) -> model.FlowHealth:
    """Return a table that is a quarter full and has been read with some trouble."""
    values: dict[str, Any] = {
        'counted': 1024,
        'maximum': 4096,
        'errors': 3,
        'inconsistent': 2,
        'zone_map': 'ovn',
        'zones': 7,
        'zone_map_read_at': NOW - 4,
        'zone_conflicts': 1,
    }
    return model.FlowHealth(**{**values, **more})


def probe(of: model.Definition | None = None, **more: Any) -> model.AddressProbe:
    """Return an answer of a fixed IP, by default the first one of the definition."""
    of = of or definition()
    values: dict[str, Any] = {
        'definition': of,
        'address': of.addresses[0],
        'is_reachable': True,
        'seconds': 0.000512,
    }
    return model.AddressProbe(**{**values, **more})


def probes(
    *addresses: model.AddressProbe, **results: int
) -> model.Reading[model.Reachability | None]:
    """Return a round of probes that found this, and how many fixed IPs ended how."""
    found = model.Reachability(
        addresses=addresses,
        results={model.ProbeResult(name): count for name, count in results.items()},
    )
    return model.Reading(value=found, read_at=NOW - 20, seconds=2.125)


def threat_list(name: str = 'tor_exit', **more: Any) -> model.ThreatList:
    """Return a list that was had a minute ago, after some trouble."""
    values: dict[str, Any] = {
        'name': name,
        'tag': THREAT_TAGS.get(name, name.upper()),
        'direction': 'out',
        'entries': 1234,
        'is_loaded': True,
        'succeeded_at': NOW - 60.25,
        'seconds': 1.2345678,
        'errors': 2,
        'is_fresh': True,
        'rejected': {'malformed': 1, 'host_bits': 0, 'duplicate': 4, 'special_use': 3},
    }
    return model.ThreatList(**{**values, **more})


def contacts(of: model.Definition | None = None, **more: Any) -> model.Contacts:
    """Return two contacts with addresses of ``tor_exit``, and seven since the start."""
    values: dict[str, Any] = {
        'definition': of or definition(),
        'list': 'tor_exit',
        'direction': 'out',
        'active': 2,
        'total': 7,
    }
    return model.Contacts(**{**values, **more})


def threats(*found: model.Contacts, **more: Any) -> model.Threats:
    """Return these contacts, by default with a list and an unlisted host."""
    values: dict[str, Any] = {
        'lists': (threat_list(),),
        'contacts': found,
        'host': (),
        'looks_at_host': True,
        'log': model.ThreatLogHealth(lines=21, dropped={'rate': 5, 'queue': 0, 'error': 1}),
    }
    return model.Threats(**{**values, **more})


def usage(of: model.Definition | None = None, **more: Any) -> model.Usage:
    """Return what an instance has used in a day and two lives, everything known."""
    values: dict[str, Any] = {
        'definition': of or definition(),
        'since': NOW - 86400,
        'updated_at': NOW,
        'cpu_time_ns': 41_500_000_000,
        'vcpu_seconds': 172_800.0,
        'memory_mb_seconds': 353_894_400.0,
        'license_unit_seconds': 86_400.5,
        'disk_read_bytes': 7 * GIB,
        'disk_read_requests': 701,
        'disk_write_bytes': 8 * GIB,
        'disk_write_requests': 801,
        'network_rx_bytes': 9 * GIB,
        'network_rx_packets': 9001,
        'network_tx_bytes': 10 * GIB,
        'network_tx_packets': 10001,
    }
    return model.Usage(**{**values, **more})


def usage_of(
    *instances: model.Instance, **more: Any
) -> model.Reading[tuple[model.Usage, ...] | None]:
    """Return a reading of the ledger that has an account for each of the instances."""
    values: dict[str, Any] = {
        'value': tuple(usage(instance.definition) for instance in instances),
        'read_at': NOW,
        'seconds': 0.004,
    }
    return model.Reading(**{**values, **more})


def ledger_health(**more: Any) -> model.LedgerHealth:
    """Return a ledger that works again after some trouble and remembers two that left."""
    values: dict[str, Any] = {
        'is_durable': True,
        'written_at': NOW - 0.25,
        'write_errors': 2,
        'instances': 5,
    }
    return model.LedgerHealth(**{**values, **more})


def project_usage(
    *found: model.ProjectUsage, **more: Any
) -> model.Reading[tuple[model.ProjectUsage, ...] | None]:
    """Return the usage of these projects, by default of two that share an id."""
    usage = found or (project_used(), project_used(name='tagged', vcpu_hours=1.5))
    values: dict[str, Any] = {'read_at': NOW - 60, 'seconds': 2.5}
    return model.Reading(value=usage, **{**values, **more})


def project_used(name: str = 'web', **more: Any) -> model.ProjectUsage:
    """Return what a project has used, every number another one."""
    labels = model.Labels.of(
        project_id='8f0f3c0e5d6a4b7c9e1d2f3a4b5c6d7e',
        project_name=name,
        domain_name='Default',
        domain_id='default',
    )
    values: dict[str, Any] = {
        'labels': labels,
        'vcpu_hours': 12.5,
        'memory_mb_hours': 51200.0,
        'weighted_vcpu_hours': 18.75,
        'weighted_memory_mb_hours': 61440.0,
        'memory_usage': 60.0,
    }
    return model.ProjectUsage(**{**values, **more})


def project_usage_health(**more: Any) -> model.ProjectUsageHealth:
    """Return how the reading of project usage goes, every number another one."""
    values: dict[str, Any] = {
        'succeeded_at': NOW - 60,
        'seconds': 2.5,
        'updates': 7,
        'failures': {'connect': 2, 'malformed': 0},
        'projects': 3,
        'instances': 41,
        'left_out': {'project': 0, 'record': 6},
        'remembered': 59,
        'weights_read_at': NOW - 3000,
        'clock_skew_seconds': -0.25,
    }
    return model.ProjectUsageHealth(**{**values, **more})


def host_project(project_uuid: str = '8f0f3c0e5d6a4b7c9e1d2f3a4b5c6d7e') -> model.HostProject:
    """Return what the instances of a project have used on this host."""
    return model.HostProject(
        labels=model.Labels.of(project_uuid=project_uuid),
        vcpu_seconds=7200.5,
        memory_mb_seconds=7372800.0,
    )


def guest_os(**more: Any) -> model.GuestOs:
    """Return a Windows that Nova's image properties told of a minute ago; it needs two units."""
    values: dict[str, Any] = {
        'family': 'windows',
        'distro': 'windows',
        'info': 'win2k22',
        'product_name': 'Windows Server 2022',
        'product_variant': 'Server',
        'version': '10.0',
        'version_major': 10,
        'version_minor': 0,
        'source': 'nova_image',
        'learned_at': NOW - 60,
        'license_units': 2,
    }
    return model.GuestOs(**{**values, **more})


def debian(**more: Any) -> model.GuestOs:
    """Return a Debian that its guest agent told of; it needs no licence."""
    values: dict[str, Any] = {
        'family': 'linux',
        'distro': 'debian',
        'info': 'debian12',
        'product_name': 'Debian GNU/Linux 12 (bookworm)',
        'product_variant': model.UNKNOWN,
        'version': '12',
        'version_major': 12,
        'version_minor': None,
        'source': 'guest_agent',
        'license_units': 0,
    }
    return guest_os(**{**values, **more})


def guest_os_health(**more: Any) -> model.GuestOsHealth:
    """Return slow drivers at work, with some trouble."""
    values: dict[str, Any] = {
        'queued': 4,
        'is_inspecting': True,
        'inspections': 31,
        'seconds': 12.5,
        'failures': {'not_connected': 3, 'timeout': 1},
    }
    return model.GuestOsHealth(**{**values, **more})


ROUTER = '27e6b9c0-73c4-4624-9481-eb5c90f109bd'
NETWORK = '4f5b1c74-56a8-4fbc-8e4e-c30f620b11bd'


def netns_device(netns: str, name: str = 'qg-aabbcc1', **more: Any) -> model.NamespaceDevice:
    """Return a device that is up and has forwarded traffic; each counter has its own number."""
    counters = dict(enumerate(model.LinkStatistics._fields, 1))
    values: dict[str, Any] = {
        'labels': model.Labels.of(netns=netns, device=name),
        'name': name,
        'index': 7,
        'mac': 'fa:16:3e:00:01:01',
        'mtu': 1500,
        'is_up': True,
        'operstate': 'up',
        'addresses': ('203.0.113.10/24', '2001:db8:1::10/64'),
        'statistics': model.LinkStatistics(*(1000 + number for number in counters)),
        **more,
    }
    labels = values['labels']
    values['info'] = netns_devices.info(labels, values['mac'], values['mtu'])
    values['address_infos'] = netns_devices.address_infos(labels, values['addresses'])
    return model.NamespaceDevice(**values)


def netns(name: str = f'qrouter-{ROUTER}', **more: Any) -> model.Namespace:
    """Return the namespace of a router with an external device and an internal one."""
    values: dict[str, Any] = {
        'labels': model.Labels.of(netns=name),
        'name': name,
        'kind': 'router',
        'uuid': ROUTER,
        'devices': (
            netns_device(name),
            netns_device(name, 'qr-aabbcc2', addresses=('10.0.0.1/24',), index=8),
        ),
        'conntrack_entries': 81,
        'conntrack_maximum': 262_144,
        'snmp': {
            ('Ip', 'ForwDatagrams'): 91,
            ('Ip', 'OutNoRoutes'): 92,
            ('Tcp', 'CurrEstab'): 93,
            ('Tcp', 'RetransSegs'): 94,
            ('Tcp', 'InErrs'): 95,
            ('Udp', 'InErrors'): 96,
            ('Udp', 'NoPorts'): 97,
        },
        'sockstat': {
            ('sockets', 'used'): 101,
            ('TCP', 'inuse'): 102,
            ('TCP', 'tw'): 103,
            ('UDP', 'inuse'): 104,
        },
        'proc': {'nat_conntrack': 81.0},
        **more,
    }
    values['info'] = netns_names.info(values['labels'], values['kind'], values['uuid'])
    return model.Namespace(**values)


def dhcp_netns(**more: Any) -> model.Namespace:
    """Return the namespace of a DHCP server: a port of Open vSwitch, and two failed parts."""
    name = f'qdhcp-{NETWORK}'
    port = netns_device(
        name, 'tap0a0b0c0d-01', operstate='unknown', addresses=('10.0.0.2/24',), mtu=None
    )
    values: dict[str, Any] = {
        'name': name,
        'kind': 'dhcp',
        'uuid': NETWORK,
        'devices': (port,),
        'conntrack_entries': None,
        'conntrack_maximum': None,
        'snmp': {},
        'failures': {'conntrack': 'EPERM', 'snmp': 'ENOENT'},
    }
    return netns(**{**values, 'labels': model.Labels.of(netns=name), **more})


def namespaces(*found: model.Namespace, **more: Any) -> model.Reading[model.NamespaceTable | None]:
    """Return a reading of these namespaces and of five that were left out."""
    table = model.NamespaceTable(
        found=len(found) + 5, filtered=3, skipped={'vanished': 2, 'stale': 0}, namespaces=found
    )
    values: dict[str, Any] = {'value': table, 'read_at': NOW - 0.25, 'seconds': 0.0123456}
    return model.Reading(**{**values, **more})


def reading(*instances: model.Instance, **more: Any) -> model.Reading[tuple[model.Instance, ...]]:
    """Return what a source gave that could read all of them."""
    return model.Reading(**{'value': instances, 'read_at': NOW, 'seconds': 0.01, **more})


def snapshot(*instances: model.Instance, **more: Any) -> model.Snapshot:
    """Return a snapshot of these instances on a healthy host.

    Instance fields go into the snapshot, ``error`` and ``read_at`` into the reading.
    """
    of_reading = {name: more.pop(name) for name in ('error', 'read_at') if name in more}
    values: dict[str, Any] = {
        'taken_at': NOW,
        'hostname': HOST,
        'instances': reading(*instances, **of_reading),
        'guest_os': {},
        'usage': usage_of(),
    }
    return model.Snapshot(**{**values, **more})


# --- a node that shows everything -------------------------------------------

PERF_EVENTS = (
    'cmt',
    'mbmt',
    'mbml',
    'cpu_cycles',
    'instructions',
    'cache_references',
    'cache_misses',
    'branch_instructions',
    'branch_misses',
    'bus_cycles',
    'stalled_cycles_frontend',
    'stalled_cycles_backend',
    'ref_cpu_cycles',
    'cpu_clock',
    'task_clock',
    'page_faults',
    'context_switches',
    'cpu_migrations',
    'page_faults_min',
    'page_faults_maj',
    'alignment_faults',
    'emulation_faults',
)
"""virDomainPerfEventType of libvirt 9.0.0, without the prefix ``perf.``."""

EXTRA_SPEC = 'hw:cpu_policy'


def node() -> model.Snapshot:
    """Return a host of three guests that shows every meter.

    One is busy in every way there is, one idle without a balloon driver, one a
    stranger to Nova with an awkward name. Of the two fixed IPs of the busy one,
    one scans and one is quiet.
    """
    scanning, quiet = busy(), idle()
    ipv4, ipv6 = scanning.definition.addresses
    unknown = stranger()
    return snapshot(
        scanning,
        quiet,
        unknown,
        guest_os={
            scanning.definition.uuid: guest_os(),
            quiet.definition.uuid: debian(),
            unknown.definition.uuid: model.GuestOs(),
        },
        guest_os_health=guest_os_health(),
        usage=usage_of(scanning, quiet),
        ledger=ledger_health(),
        host_projects=(host_project(),),
        project_usage=project_usage(),
        project_usage_health=project_usage_health(),
        hypervisor=hypervisor(),
        flows=flows(
            address_flows(
                scanning.definition,
                ipv4,
                is_saturated=True,
                patterns=frozenset({'horizontal_scan', 'fan_out'}),
            ),
            quiet_flows(scanning.definition, ipv6),
        ),
        flow_health=flow_health(),
        reachability=probes(
            probe(scanning.definition),
            probe(scanning.definition, address=ipv6, is_reachable=False, seconds=None),
            reachable=1,
            unreachable=1,
            ambiguous=2,
        ),
        threats=listed(scanning.definition, quiet.definition),
        namespaces=namespaces(netns(), dhcp_netns()),
        namespaces_health=model.NamespacesHealth(errors={'vanished': 2, 'stale': 0}),
        cycle=cycle(),
        web=model.WebStatistics(
            requests={'2xx': 12, '4xx': 1},
            dropped={'slow': 2},
            connections=3,
            config_is_ok=True,
            config_errors=4,
            is_public_without_authentication=False,
        ),
        reloads=model.Reloads(is_ok=True, errors=5, succeeded_at=NOW - 7200, waiting=6),
    )


def listed(of: model.Definition, once: model.Definition) -> model.Threats:
    """Return all lists of the reference with contacts, and a host that is on two of them.

    One instance is in touch with each list now, the other one was with the first.
    """
    lists = tuple(
        threat_list(name, entries=1000 + number) for number, name in enumerate(THREAT_TAGS)
    )
    lists = (*lists[:-1], dataclasses.replace(lists[-1], direction='any', is_held=True))
    return threats(
        *(
            contacts(of, list=each.name, direction=each.direction, active=n, total=10 + n)
            for n, each in enumerate(lists, 1)
        ),
        contacts(once, active=0, total=3),
        lists=lists,
        host=(
            model.ListedAddress(list='tor_exit', ip='198.51.100.7', family='ipv4'),
            model.ListedAddress(list='spamhaus', ip='2001:db8::7', family='ipv6'),
        ),
    )


def quiet_flows(of: model.Definition, address: model.Address) -> model.AddressFlows:
    """Return the flows of a fixed IP that has one unanswered connection without a port."""
    one = model.FlowDirection(
        flows=1, unreplied=1, remotes=1, largest_remote=1, new_remotes=0, new_ports=0
    )
    return address_flows(
        of, address, entries=1, outbound=one, inbound=model.FlowDirection(), is_active=False
    )


def node_before() -> model.Snapshot:
    """Return the same host ten seconds earlier; the busy guest then used 15 CPU seconds."""
    before = dataclasses.replace(
        busy(), read_at=NOW - 10, read_clock_ns=990_000_000_000, cpu_time_ns=10_000_000_000
    )
    return snapshot(before, idle(), stranger(), taken_at=NOW - 10, read_at=NOW - 10)


def busy() -> model.Instance:
    """Return an instance with every fact there may be."""
    of = definition(
        flavor=flavor(extra_specs={EXTRA_SPEC: 'dedicated', 'quota:vif_inbound_average': '1'}),
        addresses=(address(), address(ip='2001:db8::5', family='ipv6')),
        cpu_quota_us=50_000,
        cpu_period_us=100_000,
        disks=(
            disk(limits=(limit(), limit(operation='read', unit='requests', is_burst=True))),
            disk(
                target='vdb',
                type='block',
                tier='unknown',
                uuid='33333333-3333-4333-8333-333333333333',
                source='/dev/dm-3',
                serial='33333333-3333-4333-8333-333333333333',
            ),
        ),
        interfaces=(
            interface(),
            virtual_function(),
            virtual_function(pci_address='0000:81:10.2'),
        ),
        host_devices=(
            model.HostDevice(type='pci', address='0000:3b:00.0'),
            model.HostDevice(type='mdev', address='4b20d080-1b54-4048-85b3-a6a62d165c01'),
        ),
    )
    vda, vdb = of.disks
    bins = ((0, 3), (10_000, 4), (1_000_000, 1))
    return instance(
        of,
        control=model.Control(state=1, busy_ms=1500),
        monitor=monitor(
            of,
            memory=memory(hugetlb_pgalloc=5, hugetlb_pgfail=6),
            disks=(
                disk_statistics(
                    vda,
                    threshold_bytes=30 * GIB,
                    backing_depth=2,
                    latency={'read': bins, 'write': bins[:1], 'flush': bins[1:]},
                ),
                disk_statistics(vdb, backing_depth=0),
            ),
            cpu_user_ns=8_000_000_000,
            cpu_system_ns=9_000_000_000,
            halt_poll_success_ns=600_000_000,
            halt_poll_fail_ns=700_000_000,
            perf={event: 1000 + number for number, event in enumerate(PERF_EVENTS)},
            bandwidth=(('0', '0', 'local', 81), ('0', '0', 'total', 82)),
            cache_occupancy=(('0', '1', 83),),
        ),
        job=job(),
        last_job=model.Job(
            type=3, operation=5, elapsed_ms=61_000, downtime_ms=120, succeeded=True
        ),
        disk_errors={'vdb': 2},
        block_jobs={
            'vda': model.BlockJob(
                type=2, done_bytes=GIB, end_bytes=4 * GIB, limit_bytes_per_second=10 * MIB
            )
        },
        lifecycle_events={('resumed', 'migrated'): 1, ('started', 'booted'): 2},
    )


def limit(**more: Any) -> model.DiskLimit:
    """Return a throttle of 100 MB/s in all."""
    values: dict[str, Any] = {
        'operation': 'total',
        'unit': 'bytes',
        'is_burst': False,
        'value': 100_000_000,
    }
    return model.DiskLimit(**{**values, **more})


def job(**more: Any) -> model.Job:
    """Return a migration under way."""
    values: dict[str, Any] = {
        'type': 2,
        'operation': 5,
        'elapsed_ms': 12_500,
        'remaining_ms': 3_500,
        'memory_total_bytes': 4096 * MIB,
        'memory_processed_bytes': 3000 * MIB,
        'memory_remaining_bytes': 1096 * MIB,
        'memory_bytes_per_second': 100 * MIB,
        'dirty_bytes_per_second': 7 * MIB,
        'iterations': 3,
        'disk_total_bytes': 40 * GIB,
        'disk_processed_bytes': 30 * GIB,
        'disk_remaining_bytes': 10 * GIB,
        'auto_converge_percent': 20,
    }
    return model.Job(**{**values, **more})


def idle() -> model.Instance:
    """Return a paused instance whose counters are all zero, without a balloon driver."""
    of = definition(
        uuid='7d2a1b4f-0000-4000-8000-000000000002',
        domain='instance-0000002b',
        name='db-1',
        nova_version='',
        flavor=flavor(id='', name='m1.small', vcpus=1, memory_mib=2048, ephemeral_gib=0),
        root_type='volume',
        image_uuid='',
        addresses=(),
        disks=(disk(type='file', tier='local', uuid='/srv/nova/disk', source='/srv/nova/disk'),),
        interfaces=(interface(target='tap22222222-22', mac='fa:16:3e:00:00:03', mtu=None),),
    )
    zeros = dict.fromkeys(('read_bytes', 'read_requests', 'write_bytes', 'write_requests'), 0)
    none = dict.fromkeys(('rx_bytes', 'rx_packets', 'tx_bytes', 'tx_packets'), 0)
    return instance(
        of,
        domain_id=8,
        state=model.DomainState.PAUSED.value,
        state_reason=1,
        vcpus=1,
        interfaces=(interface_statistics(of.interfaces[0], **none),),
        monitor=monitor(
            of,
            vcpus_current=1,
            vcpus_maximum=1,
            vcpus=(vcpu(0, time_ns=0, delay_ns=0, wait_ns=0, is_halted=True),),
            memory=model.Memory(
                current_bytes=2048 * MIB, maximum_bytes=2048 * MIB, rss_bytes=40 * MIB
            ),
            disks=(disk_statistics(of.disks[0], **zeros),),
        ),
    )


def stranger() -> model.Instance:
    """Return a guest that Nova does not know, named by somebody with humour; not fresh."""
    of = model.Definition(
        uuid='00000000-0000-4000-8000-000000000003',
        domain='a "guest"\\with\nlines, \N{SNOWMAN}',
    )
    return instance(
        of,
        domain_id=9,
        vcpus=1,
        memory_maximum_bytes=512 * MIB,
        interfaces=(),
        monitor=None,
        is_fresh=False,
        is_complete=False,
        completed_at=NOW - 30,
        read_at=NOW - 5,
    )


def hypervisor(**more: Any) -> model.Hypervisor:
    """Return a libvirt that has seen some trouble."""
    values: dict[str, Any] = {
        'is_connected': True,
        'uri': 'qemu:///system',
        'libvirt_version': '9.0.0',
        'type': 'QEMU',
        'version': '7.2.22',
        'hostname': HOST,
        'reconnects': 1,
        'stuck_calls': 2,
        'suspects': 1,
        'list_seconds': 0.0123456,
        'listed_at': NOW - 5,
        'calls': {
            'list': model.CallStatistics(count=10, seconds=0.25),
            'monitor': model.CallStatistics(count=20, seconds=1.5, timeouts=3),
        },
        'domains_by_state': {'running': 2, 'paused': 1, 'incoming': 1},
        'domain_errors': {'timeout': 4},
        'definitions_cached': 4,
        'storage_pools': (
            model.StoragePool(
                name='default',
                capacity_bytes=1000 * GIB,
                allocation_bytes=400 * GIB,
                available_bytes=600 * GIB,
            ),
        ),
    }
    return model.Hypervisor(**{**values, **more})


def cycle(**more: Any) -> model.CycleStatistics:
    """Return statistics of some cycles, with the health of two groups."""
    values: dict[str, Any] = {
        'lag_seconds': 9.9876543,
        'duration_seconds': 0.0543219,
        'errors': 1,
        'missed': 2,
        'evictions': 3,
        'cleanup_seconds': 0.0001234,
        'render_seconds': 0.005,
        'groups': {
            'libvirt': model.GroupHealth(is_success=True, seconds=0.04, succeeded_at=NOW),
            'cpu': model.GroupHealth(
                is_success=False, seconds=0.002, succeeded_at=NOW - 10, series=40
            ),
        },
    }
    return model.CycleStatistics(**{**values, **more})
