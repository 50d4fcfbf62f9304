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

"""Network interfaces of instances, seen from the guest: rx is what it received."""

from collections.abc import Iterator
import operator

from oie import model
from oie.analysis import suppression
from oie.collectors import base

GAUGE, CUMULATIVE, INFO = model.Kind.GAUGE, model.Kind.CUMULATIVE, model.Kind.INFO
NET = 'virConnectGetAllDomainStats net.<n>'
VF = 'rtnetlink RTM_GETLINK of the physical function: IFLA_VF_STATS'

INTERFACE_INFO = model.Meter(
    prometheus='oie_instance_interface_info',
    unit='1',
    kind=INFO,
    help='Static metadata of a network interface, always 1.',
    source='virDomainGetXMLDesc: devices/interface',
)
STATS_AVAILABLE = model.Meter(
    prometheus='oie_instance_interface_stats_available',
    unit='1',
    kind=GAUGE,
    help='Whether libvirt counts the traffic of this interface; 0 for passed-through ones.',
    source=f'{NET}.name',
)


def _traffic(prometheus: str, unit: str, help: str, key: str) -> model.Meter:
    return model.Meter(
        prometheus=prometheus,
        unit=unit,
        kind=CUMULATIVE,
        help=f'{help}; left out until the interface was used.',
        source=f'{NET}.{key}',
    )


def _meter(name: str, field: str, unit: str, help: str, key: str) -> model.Meter:
    return model.Meter(
        ceilometer=f'oie.network.{name}',
        field=field,
        unit=unit,
        kind=CUMULATIVE,
        help=help,
        source=f'{NET}.{key}',
    )


def _vf_traffic(prometheus: str, unit: str, help: str, key: str) -> model.Meter:
    return model.Meter(
        prometheus=prometheus,
        unit=unit,
        kind=CUMULATIVE,
        help=f'{help} over an SR-IOV port; left out while all four counters are zero.',
        source=f'{VF}_{key}',
    )


VF_TRAFFIC = (
    (
        _vf_traffic(
            'oie_instance_interface_vf_receive_bytes_total',
            'B',
            'Bytes the guest received',
            'RX_BYTES',
        ),
        operator.attrgetter('rx_bytes'),
    ),
    (
        _vf_traffic(
            'oie_instance_interface_vf_transmit_bytes_total',
            'B',
            'Bytes the guest sent',
            'TX_BYTES',
        ),
        operator.attrgetter('tx_bytes'),
    ),
    (
        _vf_traffic(
            'oie_instance_interface_vf_receive_packets_total',
            'packet',
            'Packets the guest received',
            'RX_PACKETS',
        ),
        operator.attrgetter('rx_packets'),
    ),
    (
        _vf_traffic(
            'oie_instance_interface_vf_transmit_packets_total',
            'packet',
            'Packets the guest sent',
            'TX_PACKETS',
        ),
        operator.attrgetter('tx_packets'),
    ),
)

TRAFFIC = (
    (
        _traffic('oie_net_rx_gbytes', 'GiB', 'Gigabytes (2^30) received', 'rx.bytes'),
        lambda n: base.gbytes(n.rx_bytes),
        'rx_bytes',
    ),
    (
        _traffic('oie_net_tx_gbytes', 'GiB', 'Gigabytes (2^30) sent', 'tx.bytes'),
        lambda n: base.gbytes(n.tx_bytes),
        'tx_bytes',
    ),
    (
        _traffic('oie_net_rx_pkt_total', 'packet', 'Packets received', 'rx.pkts'),
        operator.attrgetter('rx_packets'),
        'rx_packets',
    ),
    (
        _traffic('oie_net_tx_pkt_total', 'packet', 'Packets sent', 'tx.pkts'),
        operator.attrgetter('tx_packets'),
        'tx_packets',
    ),
    (
        _traffic('oie_net_rx_er_total', 'packet', 'Receive errors', 'rx.errs'),
        operator.attrgetter('rx_errors'),
        'rx_errors',
    ),
    (
        _traffic('oie_net_tx_er_total', 'packet', 'Send errors', 'tx.errs'),
        operator.attrgetter('tx_errors'),
        'tx_errors',
    ),
    (
        _traffic('oie_net_rx_drp_total', 'packet', 'Received packets dropped', 'rx.drop'),
        operator.attrgetter('rx_drops'),
        'rx_drops',
    ),
    (
        _traffic('oie_net_tx_drp_total', 'packet', 'Sent packets dropped', 'tx.drop'),
        operator.attrgetter('tx_drops'),
        'tx_drops',
    ),
)


class NetworkCollector(base.Collector):
    """Interfaces as the reference shows them, and their exact byte counters."""

    GROUP = 'collector_network'
    METERS = (INTERFACE_INFO, STATS_AVAILABLE, *(meter for meter, _, _ in TRAFFIC))
    COLUMNS = {
        base.Resource.INTERFACE: (
            (
                model.Meter(
                    prometheus='oie_instance_interface_receive_bytes_total',
                    ceilometer='oie.network.incoming.bytes',
                    field='incoming_bytes',
                    unit='B',
                    kind=CUMULATIVE,
                    help='Bytes the guest received.',
                    source=f'{NET}.rx.bytes',
                ),
                operator.attrgetter('rx_bytes'),
            ),
            (
                model.Meter(
                    prometheus='oie_instance_interface_transmit_bytes_total',
                    ceilometer='oie.network.outgoing.bytes',
                    field='outgoing_bytes',
                    unit='B',
                    kind=CUMULATIVE,
                    help='Bytes the guest sent.',
                    source=f'{NET}.tx.bytes',
                ),
                operator.attrgetter('tx_bytes'),
            ),
            (
                _meter(
                    'incoming.packets',
                    'incoming_packets',
                    'packet',
                    'Packets received.',
                    'rx.pkts',
                ),
                operator.attrgetter('rx_packets'),
            ),
            (
                _meter(
                    'outgoing.packets', 'outgoing_packets', 'packet', 'Packets sent.', 'tx.pkts'
                ),
                operator.attrgetter('tx_packets'),
            ),
            (
                _meter(
                    'incoming.packets.error',
                    'incoming_errors',
                    'packet',
                    'Receive errors.',
                    'rx.errs',
                ),
                operator.attrgetter('rx_errors'),
            ),
            (
                _meter(
                    'outgoing.packets.error',
                    'outgoing_errors',
                    'packet',
                    'Send errors.',
                    'tx.errs',
                ),
                operator.attrgetter('tx_errors'),
            ),
            (
                _meter(
                    'incoming.packets.drop',
                    'incoming_drops',
                    'packet',
                    'Received packets dropped.',
                    'rx.drop',
                ),
                operator.attrgetter('rx_drops'),
            ),
            (
                _meter(
                    'outgoing.packets.drop',
                    'outgoing_drops',
                    'packet',
                    'Sent packets dropped.',
                    'tx.drop',
                ),
                operator.attrgetter('tx_drops'),
            ),
        )
    }
    OPTIONAL = {'vf_counters': {base.Resource.VIRTUAL_FUNCTION: VF_TRAFFIC}}

    def collect(
        self, previous: model.Snapshot | None, current: model.Snapshot, notes: base.Notes
    ) -> Iterator[model.Family]:
        """Give identity of every interface, traffic of the used ones."""
        instances = current.instances.value
        infos = [base.noted(notes, i.definition, _infos) for i in instances]
        yield from base.family(INTERFACE_INFO, ((one, 1) for info in infos for one in info))
        yield from base.family(STATS_AVAILABLE, _available(instances))
        used = [
            (labels, nic)
            for labels, nic in base.rows(current, base.Resource.INTERFACE)
            if suppression.shows_counters(getattr(nic, field) for _, _, field in TRAFFIC)
        ]
        for meter, value_of, field in TRAFFIC:
            known = [(labels, nic) for labels, nic in used if getattr(nic, field) is not None]
            yield from base.families(((meter, value_of),), known)
        yield from super().collect(previous, current, notes)


def _infos(definition: model.Definition) -> list[model.Labels]:
    return [
        device.labels.extended(
            mac=device.mac,
            port_uuid=device.port_uuid,
            type=device.type,
            model=device.model,
            mtu='' if device.mtu is None else str(device.mtu),
            source=device.source,
        )
        for device in definition.interfaces
    ]


def _available(instances: tuple[model.Instance, ...]) -> Iterator[tuple[model.Labels, int]]:
    for instance in instances:
        counted = {nic.device.target for nic in instance.interfaces if nic.rx_bytes is not None}
        for device in instance.definition.interfaces:
            yield device.labels, int(device.target in counted)
