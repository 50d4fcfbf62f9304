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


"""Network namespaces and the devices in them: what the routers of a network node forward."""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import operator
from typing import Any

from oslo_config import cfg

from oie import model
from oie.collectors import base
from oie.collectors import further_labels
from oie.config import netns_settings
from oie.config import option_types

GAUGE, CUMULATIVE, INFO = model.Kind.GAUGE, model.Kind.CUMULATIVE, model.Kind.INFO
LINK = 'rtnetlink RTM_GETLINK'
OWN = 'own bookkeeping'
SNMP = '/proc/net/snmp'
SOCKSTAT = '/proc/net/sockstat'

# linux/if.h, in the words of RFC 2863; those of /sys/class/net/DEVICE/operstate.
OPERSTATES = ('unknown', 'notpresent', 'down', 'lowerlayerdown', 'testing', 'dormant', 'up')
_CODES = {word: code for code, word in enumerate(OPERSTATES)}

# Why a namespace is skipped, and which of its parts may fail. All of them are present from the
# start, so that increase() sees the first one.
REASONS = (
    *('deadline', 'failed', 'name', 'no_id', 'not_a_namespace', 'refused', 'stale', 'symlink'),
    'vanished',
)
PARTS = ('addresses', 'conntrack', 'links', 'snmp', 'snmp6', 'sockstat')
_WHOLE = 'pass'

Samples = Iterator[tuple[model.Labels, float | int | None]]

OPTS = (
    cfg.Opt(
        'statistics',
        type=option_types.Names(),
        default='',
        help='Numbers of /proc/net/snmp, snmp6 and sockstat of each network namespace to publish '
        'as oie_netns_statistic beside those that have series of their own, for example '
        'Tcp.CurrEstab,Icmp.InMsgs,FRAG.inuse. They must be among the parts that are read. Each '
        'costs a series for every namespace; one that a kernel does not have gives none.',
    ),
    cfg.ListOpt(
        'external_devices',
        default=['qg-*'],
        help='Devices through which a router reaches the outside, by patterns of their names: '
        'what oie-pollster routers sums up; their addresses, one of the parts that are read, tell '
        'the active one of HA routers. Add rfp-* on compute nodes with DVR to count the '
        'floating IPs of distributed routers; the same router then is on many hosts, see '
        'routers_by_host.',
    ),
    cfg.BoolOpt(
        'routers_by_host',
        default=False,
        help='Whether the resource of oie-pollster routers is a router on one host, '
        'ROUTER-HOST, in place of the router. A counter then belongs to one host and never '
        'jumps when an HA router moves to another one, which a bill would take for traffic.',
    ),
)


def _meter(
    prometheus: str, unit: str, help: str, source: str, kind: model.Kind = GAUGE
) -> model.Meter:
    return model.Meter(prometheus=prometheus, unit=unit, kind=kind, help=help, source=source)


# By the names of [netns] interface_metrics.
DEVICE_COUNTERS = {
    field: _meter(name, unit, help, f'{LINK} IFLA_STATS64 {field}', CUMULATIVE)
    for field, name, unit, help in (
        ('rx_bytes', 'oie_netns_device_receive_bytes_total', 'B', 'Bytes the device received.'),
        ('tx_bytes', 'oie_netns_device_transmit_bytes_total', 'B', 'Bytes the device sent.'),
        (
            'rx_packets',
            'oie_netns_device_receive_packets_total',
            'packet',
            'Packets the device received.',
        ),
        (
            'tx_packets',
            'oie_netns_device_transmit_packets_total',
            'packet',
            'Packets the device sent.',
        ),
        ('rx_errors', 'oie_netns_device_receive_errors_total', 'packet', 'Bad packets received.'),
        (
            'tx_errors',
            'oie_netns_device_transmit_errors_total',
            'packet',
            'Packets that could not be sent.',
        ),
        (
            'rx_dropped',
            'oie_netns_device_receive_dropped_total',
            'packet',
            'Received packets dropped for want of room or of somebody who wants them.',
        ),
        (
            'tx_dropped',
            'oie_netns_device_transmit_dropped_total',
            'packet',
            'Packets dropped on their way out.',
        ),
        (
            'multicast',
            'oie_netns_device_receive_multicast_total',
            'packet',
            'Multicast packets received.',
        ),
        ('collisions', 'oie_netns_device_transmit_collisions_total', 'collision', 'Collisions.'),
        (
            'rx_length_errors',
            'oie_netns_device_receive_length_errors_total',
            'packet',
            'Packets received with a wrong length.',
        ),
        (
            'rx_over_errors',
            'oie_netns_device_receive_over_errors_total',
            'packet',
            'Packets lost because a ring of the receiver was full.',
        ),
        (
            'rx_crc_errors',
            'oie_netns_device_receive_crc_errors_total',
            'packet',
            'Packets received with a wrong checksum of the link.',
        ),
        (
            'rx_frame_errors',
            'oie_netns_device_receive_frame_errors_total',
            'packet',
            'Packets received with a bad alignment of the frame.',
        ),
        (
            'rx_fifo_errors',
            'oie_netns_device_receive_fifo_errors_total',
            'packet',
            'Packets lost because a queue of the receiver was full.',
        ),
        (
            'rx_missed_errors',
            'oie_netns_device_receive_missed_errors_total',
            'packet',
            'Packets that the host had no room for.',
        ),
        (
            'tx_aborted_errors',
            'oie_netns_device_transmit_aborted_errors_total',
            'packet',
            'Sendings that were aborted.',
        ),
        (
            'tx_carrier_errors',
            'oie_netns_device_transmit_carrier_errors_total',
            'packet',
            'Packets not sent because the carrier was lost.',
        ),
        (
            'tx_fifo_errors',
            'oie_netns_device_transmit_fifo_errors_total',
            'packet',
            'Packets not sent because a queue of the sender ran empty or over.',
        ),
        (
            'tx_heartbeat_errors',
            'oie_netns_device_transmit_heartbeat_errors_total',
            'packet',
            'Errors of the heartbeat on old Ethernet.',
        ),
        (
            'tx_window_errors',
            'oie_netns_device_transmit_window_errors_total',
            'packet',
            'Late collisions.',
        ),
        (
            'rx_compressed',
            'oie_netns_device_receive_compressed_total',
            'packet',
            'Compressed packets received.',
        ),
        (
            'tx_compressed',
            'oie_netns_device_transmit_compressed_total',
            'packet',
            'Compressed packets sent.',
        ),
        (
            'rx_nohandler',
            'oie_netns_device_receive_nohandler_total',
            'packet',
            'Packets received by a device that hands nothing on.',
        ),
    )
}

DEVICE_UP = _meter(
    'oie_netns_device_up',
    '1',
    'Whether the device was set up (IFF_UP), whatever its link does.',
    f'{LINK} ifi_flags',
)
DEVICE_OPERSTATE = _meter(
    'oie_netns_device_operstate_code',
    '1',
    'State of the link: 0 unknown, as internal ports of Open vSwitch are, 1 not present, 2 down, '
    '3 lower layer down, 4 testing, 5 dormant, 6 up.',
    f'{LINK} IFLA_OPERSTATE',
)
DEVICE_INFO = _meter(
    'oie_netns_device_info',
    '1',
    'MAC address and MTU of the device, always 1.',
    f'{LINK} IFLA_ADDRESS, IFLA_MTU',
    INFO,
)
DEVICE_ADDRESS_INFO = _meter(
    'oie_netns_device_address_info',
    '1',
    'An address of the device with the length of its prefix, always 1.',
    'rtnetlink RTM_GETADDR',
    INFO,
)

NETNS_INFO = _meter(
    'oie_netns_info',
    '1',
    'What Neutron made the namespace for, always 1; router_id or network_id is empty where its '
    'name does not tell one.',
    'the name of the namespace',
    INFO,
)
COMPLETE = _meter(
    'oie_netns_data_complete',
    '1',
    'Whether all that is asked of the namespace could be read.',
    OWN,
)
PART_FAILED = _meter(
    'oie_netns_part_failed',
    '1',
    'A part of the namespace that could not be read; its series are missing. Always 1.',
    OWN,
)
CONNTRACK_ENTRIES = _meter(
    'oie_netns_conntrack_entries',
    'entry',
    'Entries of the connection tracking table of the namespace.',
    'ctnetlink IPCTNL_MSG_CT_GET_STATS',
)
CONNTRACK_LIMIT = _meter(
    'oie_netns_conntrack_limit',
    'entry',
    'Entries that the connection tracking table of the namespace may have.',
    'ctnetlink IPCTNL_MSG_CT_GET_STATS',
)

# What is shown of the files of the same names in every namespace, by (protocol, name).
SNMP_METERS = {
    ('Ip', 'ForwDatagrams'): _meter(
        'oie_netns_ip_forwarded_packets_total',
        'packet',
        'IPv4 packets forwarded.',
        f'{SNMP} Ip ForwDatagrams',
        CUMULATIVE,
    ),
    ('Ip', 'OutNoRoutes'): _meter(
        'oie_netns_ip_no_route_packets_total',
        'packet',
        'IPv4 packets dropped because there was no route for them.',
        f'{SNMP} Ip OutNoRoutes',
        CUMULATIVE,
    ),
    ('Tcp', 'RetransSegs'): _meter(
        'oie_netns_tcp_retransmitted_segments_total',
        'segment',
        'TCP segments that processes of the namespace sent again.',
        f'{SNMP} Tcp RetransSegs',
        CUMULATIVE,
    ),
    ('Tcp', 'InErrs'): _meter(
        'oie_netns_tcp_receive_errors_total',
        'segment',
        'Bad TCP segments received.',
        f'{SNMP} Tcp InErrs',
        CUMULATIVE,
    ),
    ('Udp', 'InErrors'): _meter(
        'oie_netns_udp_receive_errors_total',
        'packet',
        'UDP packets that could not be delivered for another reason than a missing receiver.',
        f'{SNMP} Udp InErrors',
        CUMULATIVE,
    ),
    ('Udp', 'NoPorts'): _meter(
        'oie_netns_udp_no_port_packets_total',
        'packet',
        'UDP packets for a port where nobody listens.',
        f'{SNMP} Udp NoPorts',
        CUMULATIVE,
    ),
}
SOCKSTAT_METERS = {
    ('sockets', 'used'): _meter(
        'oie_netns_sockets', 'socket', 'Sockets of the namespace.', f'{SOCKSTAT} sockets used'
    ),
    ('TCP', 'inuse'): _meter(
        'oie_netns_tcp_sockets', 'socket', 'TCP sockets in use.', f'{SOCKSTAT} TCP inuse'
    ),
    ('TCP', 'tw'): _meter(
        'oie_netns_tcp_time_wait_sockets',
        'socket',
        'TCP sockets that wait for late segments.',
        f'{SOCKSTAT} TCP tw',
    ),
    ('UDP', 'inuse'): _meter(
        'oie_netns_udp_sockets', 'socket', 'UDP sockets in use.', f'{SOCKSTAT} UDP inuse'
    ),
}
CONNTRACK_COLUMNS: tuple[base.Column, ...] = (
    (CONNTRACK_ENTRIES, operator.attrgetter('conntrack_entries')),
    (CONNTRACK_LIMIT, operator.attrgetter('conntrack_maximum')),
)


def _columns(
    meters: Mapping[tuple[str, str], model.Meter],
) -> tuple[base.Column, ...]:
    """Return the meters over mappings that have such keys, not each of them."""
    return tuple((meter, operator.methodcaller('get', key)) for key, meter in meters.items())


SNMP_COLUMNS = _columns(SNMP_METERS)
SOCKSTAT_COLUMNS = _columns(SOCKSTAT_METERS)
STATISTIC = _meter(
    'oie_netns_statistic',
    '1',
    'A number of [netns] statistics; whether it only grows, its name tells.',
    '/proc/net/snmp, snmp6, sockstat',
)
PROC = _meter(
    'oie_netns_proc',
    '1',
    'The number in a file of [netns] proc_metrics; whether it only grows, its name tells.',
    'the file below /proc',
)

FOUND = _meter(
    'oie_host_netns_found', 'namespace', 'Named network namespaces that there are.', 'readdir(3)'
)
FILTERED = _meter(
    'oie_host_netns_filtered',
    'namespace',
    'Named network namespaces that the filters leave out.',
    OWN,
)
SKIPPED = _meter(
    'oie_host_netns_skipped',
    'namespace',
    'Named network namespaces that could not be entered, by reason.',
    OWN,
)
READ = _meter('oie_host_netns_read', 'namespace', 'Network namespaces that were read.', OWN)
READ_SECONDS = _meter(
    'oie_host_netns_read_duration_seconds',
    's',
    'Time the latest pass over the network namespaces took.',
    'own clock',
)
LAST_SUCCESS = _meter(
    'oie_host_netns_last_success_timestamp_seconds',
    's',
    'Unix time of the latest good pass over the network namespaces.',
    'own clock',
)
ERRORS = _meter(
    'oie_host_netns_errors_total',
    'error',
    'What went wrong while network namespaces were read: a namespace that was skipped, by '
    'reason; a part of one, by its name; a whole pass.',
    OWN,
    CUMULATIVE,
)


def _router(name: str, field: str, unit: str, help: str, kind: model.Kind) -> model.Meter:
    return model.Meter(
        ceilometer=f'oie.router.{name}',
        field=field,
        unit=unit,
        kind=kind,
        help=help,
        source='the external devices of the namespaces of the router',
    )


ROUTER_COLUMNS: tuple[base.Column, ...] = (
    (
        _router(
            'external.incoming.bytes',
            'incoming_bytes',
            'B',
            'Bytes the router received from outside.',
            CUMULATIVE,
        ),
        operator.attrgetter('rx_bytes'),
    ),
    (
        _router(
            'external.outgoing.bytes',
            'outgoing_bytes',
            'B',
            'Bytes the router sent to the outside.',
            CUMULATIVE,
        ),
        operator.attrgetter('tx_bytes'),
    ),
    (
        _router(
            'external.incoming.packets',
            'incoming_packets',
            'packet',
            'Packets the router received from outside.',
            CUMULATIVE,
        ),
        operator.attrgetter('rx_packets'),
    ),
    (
        _router(
            'external.outgoing.packets',
            'outgoing_packets',
            'packet',
            'Packets the router sent to the outside.',
            CUMULATIVE,
        ),
        operator.attrgetter('tx_packets'),
    ),
    (
        _router(
            'conntrack.entries',
            'conntrack_entries',
            'entry',
            'Entries of the connection tracking tables of the router.',
            GAUGE,
        ),
        operator.attrgetter('conntrack_entries'),
    ),
)


class NamespacesCollector(base.Collector):
    """Network namespaces, their devices and what they track, where ``[netns] enabled`` is on.

    Of the counters of a device those are shown that ``[netns] interface_metrics`` names, by
    the last word of their source.
    """

    GROUP = 'netns'
    OPTS = OPTS
    NEEDS = frozenset({'namespaces'})
    COLUMNS = {base.Resource.ROUTER: ROUTER_COLUMNS}
    METERS = (
        *DEVICE_COUNTERS.values(),
        DEVICE_UP,
        DEVICE_OPERSTATE,
        DEVICE_INFO,
        DEVICE_ADDRESS_INFO,
        NETNS_INFO,
        COMPLETE,
        PART_FAILED,
        CONNTRACK_ENTRIES,
        CONNTRACK_LIMIT,
        *SNMP_METERS.values(),
        *SOCKSTAT_METERS.values(),
        STATISTIC,
        PROC,
        FOUND,
        FILTERED,
        SKIPPED,
        READ,
        READ_SECONDS,
        LAST_SUCCESS,
        ERRORS,
    )

    def __init__(self, options: Any, common: Any) -> None:
        """Learn which counters are shown.

        :raises ConfigError: the file of netns-exporter is wrong
        """
        super().__init__(options, common)
        self._counters = netns_settings.of(options).interface_metrics
        self._named = further_labels.FurtherLabels(_named)

    def collect(
        self, previous: model.Snapshot | None, current: model.Snapshot, notes: base.Notes
    ) -> Iterator[model.Family]:
        """Give the namespaces that were read, and how reading goes.

        Where nobody reads namespaces there is nothing to tell, not even that.
        """
        table = current.namespaces.value
        if table is not None:
            yield from _totals(table)
            namespaces = table.namespaces
            devices = [(d.labels, d) for each in namespaces for d in each.devices or ()]
            yield from _devices(devices, self._counters)
            yield from _namespaces([(each.labels, each) for each in namespaces])
            yield from _statistics(namespaces, self.options.statistics, self._named)
        if current.namespaces_health is not None:
            yield from _health(current.namespaces_health, current.namespaces)


def _devices(
    devices: list[tuple[model.Labels, model.NamespaceDevice]], fields: Iterable[str]
) -> Iterator[model.Family]:
    counted = [(labels, device.statistics) for labels, device in devices]
    chosen = ((DEVICE_COUNTERS[field], operator.attrgetter(field)) for field in fields)
    yield from base.families(chosen, counted)
    up = ((lb, None if d.is_up is None else int(d.is_up)) for lb, d in devices)
    yield from base.family(DEVICE_UP, up)
    yield from base.family(DEVICE_OPERSTATE, ((lb, _CODES.get(d.operstate)) for lb, d in devices))
    yield from base.family(DEVICE_INFO, ((d.info, 1) for _, d in devices if d.info is not None))
    addresses = ((each, 1) for _, d in devices for each in d.address_infos)
    yield from base.family(DEVICE_ADDRESS_INFO, addresses)


def _namespaces(namespaces: list[tuple[model.Labels, model.Namespace]]) -> Iterator[model.Family]:
    infos = ((each.info, 1) for _, each in namespaces if each.info is not None)
    yield from base.family(NETNS_INFO, infos)
    yield from base.family(COMPLETE, ((lb, int(not each.failures)) for lb, each in namespaces))
    failed = ((lb.extended(part=part), 1) for lb, each in namespaces for part in each.failures)
    yield from base.family(PART_FAILED, failed)
    yield from base.families(CONNTRACK_COLUMNS, namespaces)
    snmp = [(lb, each.snmp) for lb, each in namespaces if each.snmp]
    yield from base.families(SNMP_COLUMNS, snmp)
    sockets = [(lb, each.sockstat) for lb, each in namespaces if each.sockstat]
    yield from base.families(SOCKSTAT_COLUMNS, sockets)


def _statistics(
    namespaces: Iterable[model.Namespace],
    wanted: Iterable[str],
    named: further_labels.FurtherLabels,
) -> Iterator[model.Family]:
    """Give what only options ask for, by the name that the option has for it."""
    named.begin_cycle()
    keys = [(name, _key(name)) for name in wanted]
    found: list[tuple[model.Labels, float | int | None]] = []
    proc: list[tuple[model.Labels, float | int | None]] = []
    for each in namespaces:
        for name, key in keys:
            for numbers in (each.snmp, each.snmp6, each.sockstat):
                if key in numbers:
                    found.append((named.of(each.labels, name), numbers[key]))
                    break
        proc.extend((named.of(each.labels, name), value) for name, value in each.proc.items())
    yield from base.family(STATISTIC, found)
    yield from base.family(PROC, proc)


def figures(statistics: Iterable[str]) -> frozenset[tuple[str, str]]:
    """Return the keys of all figures of /proc/net that have series.

    :param statistics: the option of that name
    """
    return frozenset((*SNMP_METERS, *SOCKSTAT_METERS, *map(_key, statistics)))


def _key(name: str) -> tuple[str, str]:
    protocol, _, number = name.partition('.')
    return protocol, number


def _totals(table: model.NamespaceTable) -> Iterator[model.Family]:
    yield from base.single(FOUND, table.found)
    yield from base.single(FILTERED, table.filtered)
    yield from base.single(READ, len(table.namespaces))
    yield from base.family(SKIPPED, _by_reason(REASONS, table.skipped))


def _health(
    health: model.NamespacesHealth, reading: model.Reading[model.NamespaceTable | None]
) -> Iterator[model.Family]:
    yield from base.single(READ_SECONDS, base.round5(reading.seconds))
    yield from base.single(LAST_SUCCESS, reading.read_at)
    yield from base.family(ERRORS, _by_reason((*REASONS, *PARTS, _WHOLE), health.errors))


def _by_reason(known: Iterable[str], counts: Mapping[str, int]) -> Samples:
    found = {**dict.fromkeys(known, 0), **counts}
    return ((model.Labels.of(reason=reason), found[reason]) for reason in sorted(found))


def _named(labels: model.Labels, name: str) -> model.Labels:
    return labels.extended(name=name)
