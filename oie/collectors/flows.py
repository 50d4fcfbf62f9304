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

"""Flows of the instances' fixed IPs, and the connection tracking table of the host."""

from collections.abc import Iterator
import operator
from typing import Any

from oslo_config import cfg

from oie import model
from oie.collectors import base

GAUGE, CUMULATIVE = model.Kind.GAUGE, model.Kind.CUMULATIVE
DUMP = 'IPCTNL_MSG_CT_GET dump'
OWN = 'own bookkeeping'
SYSCTL = '/proc/sys/net/netfilter'


def _meter(
    prometheus: str,
    unit: str,
    help: str,
    source: str = DUMP,
    kind: model.Kind = GAUGE,
    ceilometer: str = '',
    field: str = '',
) -> model.Meter:
    return model.Meter(
        prometheus=prometheus,
        ceilometer=ceilometer,
        field=field,
        unit=unit,
        kind=kind,
        help=help,
        source=source,
    )


def _new_remotes(direction: model.FlowDirection) -> int:
    # Without a baseline nothing is new, because nothing is known.
    return direction.new_remotes or 0


def _new_ports(direction: model.FlowDirection) -> int:
    return direction.new_ports or 0


IP_FLOWS = _meter(
    'oie_conntrack_ip_flows_total',
    'entry',
    'Entries of the connection tracking table that belong to a fixed IP (a gauge).',
    ceilometer='oie.flows',
    field='entries',
)
OUTBOUND = (
    (
        _meter(
            'oie_outbound_unique_remotes',
            'remote',
            'Distinct remotes the fixed IP has connections to.',
            ceilometer='oie.flows.outbound.remotes',
            field='outbound_remotes',
        ),
        operator.attrgetter('remotes'),
    ),
    (
        _meter(
            'oie_outbound_flows',
            'connection',
            'Distinct connections the fixed IP initiated.',
            ceilometer='oie.flows.outbound',
            field='outbound_flows',
        ),
        operator.attrgetter('flows'),
    ),
    (
        _meter(
            'oie_outbound_new_remotes',
            'remote',
            'Remotes of these that the preceding interval did not have.',
        ),
        _new_remotes,
    ),
    (
        _meter(
            'oie_outbound_max_flows_single_remote',
            'connection',
            'Connections to the remote that has most of them.',
        ),
        operator.attrgetter('largest_remote'),
    ),
)
# Left out when no connection has a port.
OUTBOUND_PORTS = (
    (
        _meter(
            'oie_outbound_unique_dst_ports',
            'port',
            'Distinct destination ports of the fixed IP.',
            ceilometer='oie.flows.outbound.ports',
            field='outbound_ports',
        ),
        operator.attrgetter('ports'),
    ),
    (
        _meter(
            'oie_outbound_new_dst_ports',
            'port',
            'Destination ports of these that the preceding interval did not have.',
        ),
        _new_ports,
    ),
    (
        _meter(
            'oie_outbound_max_flows_single_dst_port',
            'connection',
            'Connections to the destination port that has most of them.',
        ),
        operator.attrgetter('largest_port'),
    ),
)
INBOUND = (
    (
        _meter(
            'oie_inbound_unique_remotes',
            'remote',
            'Distinct remotes that have connections to the fixed IP.',
            ceilometer='oie.flows.inbound.remotes',
            field='inbound_remotes',
        ),
        operator.attrgetter('remotes'),
    ),
    (
        _meter(
            'oie_inbound_flows',
            'connection',
            'Distinct connections that others initiated to the fixed IP.',
            ceilometer='oie.flows.inbound',
            field='inbound_flows',
        ),
        operator.attrgetter('flows'),
    ),
    (
        _meter(
            'oie_inbound_new_remotes',
            'remote',
            'Remotes of these that the preceding interval did not have.',
        ),
        _new_remotes,
    ),
    (
        _meter(
            'oie_inbound_max_flows_single_remote',
            'connection',
            'Connections from the remote that has most of them.',
        ),
        operator.attrgetter('largest_remote'),
    ),
)
INBOUND_PORTS = (
    (
        _meter('oie_inbound_unique_dst_ports', 'port', 'Distinct ports others connect to.'),
        operator.attrgetter('ports'),
    ),
    (
        _meter(
            'oie_inbound_new_dst_ports',
            'port',
            'Ports of these that the preceding interval did not have.',
        ),
        _new_ports,
    ),
    (
        _meter(
            'oie_inbound_max_flows_single_dst_port',
            'connection',
            'Connections to the port that has most of them.',
        ),
        operator.attrgetter('largest_port'),
    ),
)
UNREPLIED = _meter(
    'oie_outbound_unreplied_ratio',
    '1',
    'Share of the connections the fixed IP initiated that nobody answered, 0 to 1.',
    f'{DUMP}: status bit SEEN_REPLY',
)
UNREPLIED_FLOWS = _meter(
    '',
    'connection',
    'Connections the fixed IP initiated that nobody answered.',
    f'{DUMP}: status bit SEEN_REPLY',
    ceilometer='oie.flows.outbound.unreplied',
    field='outbound_unreplied',
)
PATTERN = _meter(
    'oie_outbound_pattern',
    '1',
    'The connections of the fixed IP look like a scan or a fan-out, always 1 (see thresholds).',
)
SATURATED = _meter(
    'oie_flows_saturated',
    '1',
    'The fixed IP has more remotes or ports than are remembered: what is new is known in part.',
    OWN,
)

ENTRIES = _meter(
    'oie_host_conntrack_entries_total',
    'entry',
    'Entries of the latest complete dump (a gauge).',
)
COUNT = _meter(
    'oie_host_conntrack_entries',
    'entry',
    'Entries the kernel counts in the table of the host.',
    f'{SYSCTL}/nf_conntrack_count',
)
MAXIMUM = _meter(
    'oie_host_conntrack_max',
    'entry',
    'Entries the table of the host may have.',
    f'{SYSCTL}/nf_conntrack_max',
)
UTILIZATION = _meter(
    'oie_host_conntrack_utilization_ratio',
    '1',
    'How full the table of the host is, 0 to 1.',
    f'{SYSCTL}/nf_conntrack_count / nf_conntrack_max',
)
READ_SECONDS = _meter(
    'oie_host_conntrack_read_duration_seconds',
    's',
    'How long the latest attempt to read the table took.',
    'own clock',
)
READ_ERRORS = _meter(
    'oie_conntrack_read_errors_total',
    'cycle',
    'Cycles in which the table could not be read completely.',
    OWN,
    CUMULATIVE,
)
HOST_READ_ERRORS = _meter(
    'oie_host_conntrack_read_errors_total',
    'cycle',
    'Cycles in which the table could not be read completely.',
    OWN,
    CUMULATIVE,
)
INCONSISTENT = _meter(
    'oie_host_conntrack_inconsistent_total',
    'dump',
    'Dumps that were thrown away because they contradicted the kernel\'s counter or themselves.',
    OWN,
    CUMULATIVE,
)
COMPLETE = _meter(
    'oie_host_conntrack_complete',
    '1',
    'Whether the latest cycle read the whole table; when 0 the last summaries are shown.',
    OWN,
)
SKIPPED = _meter(
    'oie_host_conntrack_skipped',
    '1',
    'Whether the table was not read because it has more entries than [conntrack] max_entries.',
    OWN,
)
LAST_SUCCESS = _meter(
    'oie_host_conntrack_last_success_timestamp_seconds',
    's',
    'Unix time of the latest complete dump.',
    'own clock',
)
ODD = _meter(
    'oie_host_conntrack_odd_entries',
    'entry',
    'Entries of the latest dump that only the careful decoder could read.',
    OWN,
)
UNATTRIBUTED = _meter(
    'oie_host_conntrack_unattributed_entries',
    'entry',
    'Entries of the latest dump that belong to no fixed IP of this host.',
)
AMBIGUOUS = _meter(
    'oie_host_conntrack_ambiguous_entries',
    'entry',
    'Entries of these whose address several instances share and whose zone is not known.',
)
ZONE_MAP = _meter(
    'oie_host_conntrack_zone_map',
    '1',
    'Whether it is known which zone belongs to which port, by the driver that tells.',
    OWN,
)
ZONES = _meter(
    'oie_host_conntrack_zones', 'zone', 'Zones that belong to a port.', 'the zone map driver'
)
ZONE_CONFLICTS = _meter(
    'oie_host_conntrack_zone_conflicts',
    'zone',
    'Zones that several ports claim; they are left out.',
    'the zone map driver',
)
ZONE_LAST_SUCCESS = _meter(
    'oie_host_conntrack_zone_map_last_success_timestamp_seconds',
    's',
    'Unix time at which the zone map was last read.',
    'own clock',
)

Samples = Iterator[tuple[model.Labels, Any]]


# What the pollster prints of every fixed IP, without any gate.
ADDRESS_COLUMNS: tuple[base.Column, ...] = (
    (IP_FLOWS, operator.attrgetter('entries')),
    (OUTBOUND[1][0], operator.attrgetter('outbound.flows')),
    (OUTBOUND[0][0], operator.attrgetter('outbound.remotes')),
    (OUTBOUND_PORTS[0][0], operator.attrgetter('outbound.ports')),
    (UNREPLIED_FLOWS, operator.attrgetter('outbound.unreplied')),
    (INBOUND[1][0], operator.attrgetter('inbound.flows')),
    (INBOUND[0][0], operator.attrgetter('inbound.remotes')),
)


class FlowsCollector(base.Collector):
    """Flows by fixed IP with the reference's gates, and the health of the table."""

    GROUP = 'outbound'
    GROUP_HELP = 'Whom each fixed IP talks to, and what looks odd about it.'
    OPTS = (
        cfg.BoolOpt(
            'enabled',
            default=False,
            help='Whether the oie_outbound series are published: whom and which ports each '
            'active fixed IP talks to, and how many of them are new.',
        ),
        cfg.BoolOpt(
            'inbound',
            default=False,
            help='Whether the twins of these series for the other direction are published too.',
        ),
        cfg.BoolOpt(
            'unreplied',
            default=False,
            help='Whether the share of unanswered connections is published: it tells a scanner '
            'from a busy client.',
        ),
        cfg.BoolOpt(
            'patterns',
            default=False,
            help='Whether a series flags fixed IPs whose connections look like a horizontal '
            'scan, a vertical scan or a fan-out, for two intervals in a row.',
        ),
        cfg.IntOpt(
            'scan_threshold',
            default=20,
            min=2,
            help='Remotes of a horizontal scan, or ports of a vertical one, in one interval.',
        ),
        cfg.FloatOpt(
            'scan_unreplied_ratio',
            default=0.6,
            min=0,
            max=1,
            help='Share of unanswered connections from which many connections are a scan.',
        ),
        cfg.IntOpt(
            'fan_out_threshold',
            default=200,
            min=2,
            help='Remotes in one interval that are a fan-out, answered or not.',
        ),
        cfg.IntOpt(
            'remembered',
            default=4096,
            min=16,
            max=1000000,
            help='Remotes, and ports, of each fixed IP that are remembered from one interval to '
            'the next, 12 bytes each. An address with more is flagged: what is new about it '
            'is known in part.',
        ),
    )
    NEEDS = frozenset({'flows'})
    COLUMNS = {base.Resource.ADDRESS: ADDRESS_COLUMNS}
    METERS = (
        *(
            meter
            for meter, _ in (*OUTBOUND, *OUTBOUND_PORTS, *INBOUND, *INBOUND_PORTS)
            if not meter.ceilometer
        ),
        UNREPLIED,
        PATTERN,
        SATURATED,
        ENTRIES,
        COUNT,
        MAXIMUM,
        UTILIZATION,
        READ_SECONDS,
        READ_ERRORS,
        HOST_READ_ERRORS,
        INCONSISTENT,
        COMPLETE,
        SKIPPED,
        LAST_SUCCESS,
        ODD,
        UNATTRIBUTED,
        AMBIGUOUS,
        ZONE_MAP,
        ZONES,
        ZONE_CONFLICTS,
        ZONE_LAST_SUCCESS,
    )

    def collect(
        self, previous: model.Snapshot | None, current: model.Snapshot, notes: base.Notes
    ) -> Iterator[model.Family]:
        """Give the active fixed IPs, then the table of the host.

        Where nobody reads the table there is nothing to tell, not even its health.
        """
        table = current.flows.value
        if table is not None:
            active = [
                (base.address_labels(notes, flows.definition, flows.address), flows)
                for flows in table.addresses
                if flows.is_active
            ]
            yield from base.family(IP_FLOWS, ((labels, f.entries) for labels, f in active))
            yield from self._behaviour(active)
            yield from _table(table)
        if current.flow_health is not None:
            yield from _health(current.flow_health, current.flows)

    def _behaviour(
        self, active: list[tuple[model.Labels, model.AddressFlows]]
    ) -> Iterator[model.Family]:
        if not self.options.enabled:
            return
        outbound = [(labels, f.outbound) for labels, f in active if f.outbound.flows]
        yield from base.families(OUTBOUND, outbound)
        yield from base.families(OUTBOUND_PORTS, [(lb, d) for lb, d in outbound if d.ports])
        saturated = ((labels, 1) for labels, f in active if f.is_saturated)
        yield from base.family(SATURATED, saturated)
        if self.options.inbound:
            inbound = [(labels, f.inbound) for labels, f in active if f.inbound.flows]
            yield from base.families(INBOUND, inbound)
            yield from base.families(INBOUND_PORTS, [(lb, d) for lb, d in inbound if d.ports])
        if self.options.unreplied:
            ratios = ((labels, d.unreplied / d.flows) for labels, d in outbound)
            yield from base.family(UNREPLIED, ratios)
        if self.options.patterns:
            yield from base.family(PATTERN, _patterns(active))


def _patterns(active: list[tuple[model.Labels, model.AddressFlows]]) -> Samples:
    for labels, flows in active:
        for pattern in sorted(flows.patterns):
            yield labels.extended(pattern=pattern), 1


def _table(table: model.FlowTable) -> Iterator[model.Family]:
    yield from base.single(ENTRIES, table.entries)
    yield from base.single(ODD, table.odd)
    yield from base.single(UNATTRIBUTED, table.unattributed)
    yield from base.single(AMBIGUOUS, table.ambiguous)


def _health(
    health: model.FlowHealth, reading: model.Reading[model.FlowTable | None]
) -> Iterator[model.Family]:
    yield from base.single(COUNT, health.counted)
    yield from base.single(MAXIMUM, health.maximum)
    if health.counted is not None and health.maximum:
        yield from base.single(UTILIZATION, health.counted / health.maximum)
    yield from base.single(READ_SECONDS, base.round5(reading.seconds))
    yield from base.single(READ_ERRORS, health.errors)
    yield from base.single(HOST_READ_ERRORS, health.errors)
    yield from base.single(INCONSISTENT, health.inconsistent)
    yield from base.single(COMPLETE, int(reading.read_at is not None and not reading.error))
    yield from base.single(SKIPPED, int(health.is_skipped))
    yield from base.single(LAST_SUCCESS, reading.read_at)
    yield from _zone_map(health)


def _zone_map(health: model.FlowHealth) -> Iterator[model.Family]:
    if health.zone_map:
        labels = model.Labels.of(driver=health.zone_map)
        yield from base.family(ZONE_MAP, ((labels, int(health.zones is not None)),))
    yield from base.single(ZONES, health.zones)
    yield from base.single(ZONE_LAST_SUCCESS, health.zone_map_read_at)
    if health.zones is not None:
        yield from base.single(ZONE_CONFLICTS, health.zone_conflicts)
