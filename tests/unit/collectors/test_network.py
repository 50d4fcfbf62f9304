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


"""Interfaces: identity always, the reference's eight counters once there was traffic."""

import pytest

from tests import builders
from tests.unit import measuring

FIELDS = {
    'rx_bytes': 'oie_net_rx_gbytes',
    'tx_bytes': 'oie_net_tx_gbytes',
    'rx_packets': 'oie_net_rx_pkt_total',
    'tx_packets': 'oie_net_tx_pkt_total',
    'rx_errors': 'oie_net_rx_er_total',
    'tx_errors': 'oie_net_tx_er_total',
    'rx_drops': 'oie_net_rx_drp_total',
    'tx_drops': 'oie_net_tx_drp_total',
}
NO_TRAFFIC = dict.fromkeys(FIELDS, 0)


def of_one_interface(**statistics):
    """Return a snapshot of an instance with one interface that has these counters."""
    of = builders.definition()
    counted = builders.interface_statistics(of.interfaces[0], **statistics)
    return builders.snapshot(builders.instance(of, interfaces=(counted,)))


def of_devices(*devices):
    """Return a snapshot of an instance with these interfaces."""
    return builders.snapshot(builders.instance(builders.definition(interfaces=devices)))


def shown(snapshot):
    return measuring.shown(measuring.collector('network'), snapshot)


def test_an_interface_that_was_never_used_shows_no_traffic():
    assert not set(FIELDS.values()) & set(shown(of_one_interface(**NO_TRAFFIC)))


@pytest.mark.parametrize('moved', FIELDS)
def test_all_eight_counters_come_with_the_first_that_moves(moved):
    found = shown(of_one_interface(**{**NO_TRAFFIC, moved: 2**30}))
    values = {name: measuring.only(found[name]) for name in FIELDS.values()}
    expected = 1.0 if moved.endswith('bytes') else 2**30
    assert values == {**dict.fromkeys(FIELDS.values(), 0), FIELDS[moved]: expected}


@pytest.mark.parametrize('unknown', FIELDS)
def test_a_counter_the_host_does_not_keep_is_absent_alone(unknown):
    found = shown(of_one_interface(**{unknown: None}))
    assert set(FIELDS.values()) - set(found) == {FIELDS[unknown]}


def test_gbytes_have_five_decimals_and_exact_bytes_stand_beside():
    found = shown(of_one_interface(rx_bytes=5368, tx_bytes=5369))
    assert measuring.only(found['oie_net_rx_gbytes']) == 0
    assert measuring.only(found['oie_net_tx_gbytes']) == 0.00001
    assert measuring.only(found['oie_instance_interface_receive_bytes_total']) == 5368
    assert measuring.only(found['oie_instance_interface_transmit_bytes_total']) == 5369


def test_exact_counters_are_not_suppressed():
    found = shown(of_one_interface(**NO_TRAFFIC))
    assert measuring.only(found['oie_instance_interface_receive_bytes_total']) == 0


def test_identity_tells_mac_port_and_kind():
    [identity] = shown(of_devices(builders.interface()))['oie_instance_interface_info']
    told = dict(identity)
    assert told['interface'] == 'tap11111111-11'
    assert told['mac'] == 'fa:16:3e:00:00:01'
    assert told['port_uuid'] == '11111111-1111-4111-8111-111111111111'
    assert (told['type'], told['model'], told['mtu']) == ('bridge', 'virtio', '1450')


def test_a_passed_through_interface_has_identity_but_no_counters():
    found = shown(of_devices(builders.virtual_function()))
    assert set(found) == {'oie_instance_interface_info', 'oie_instance_interface_stats_available'}
    [(labels, value)] = found['oie_instance_interface_stats_available'].items()
    assert (dict(labels)['interface'], value) == ('0000:81:00.2', 0)


def test_traffic_of_sriov_ports_by_their_pci_addresses():
    of = builders.definition(
        interfaces=(
            builders.interface(),
            builders.virtual_function(pci_address='0000:81:00.2'),
            builders.virtual_function(pci_address='0000:81:10.2'),
        )
    )
    _, used, partly = of.interfaces
    instance = builders.instance(
        of,
        virtual_functions=(
            builders.virtual_function_statistics(
                used, rx_bytes=1, rx_packets=2, tx_bytes=3, tx_packets=4
            ),
            builders.virtual_function_statistics(
                partly, rx_bytes=5, rx_packets=6, tx_bytes=0, tx_packets=None
            ),
        ),
    )
    collector = measuring.collector('network', collector__optional='vf_counters')
    found = measuring.shown(collector, builders.snapshot(instance))
    assert {
        name: {dict(labels)['interface']: value for labels, value in values.items()}
        for name, values in found.items()
        if '_vf_' in name
    } == {
        'oie_instance_interface_vf_receive_bytes_total': {'0000:81:00.2': 1, '0000:81:10.2': 5},
        'oie_instance_interface_vf_receive_packets_total': {'0000:81:00.2': 2, '0000:81:10.2': 6},
        'oie_instance_interface_vf_transmit_bytes_total': {'0000:81:00.2': 3, '0000:81:10.2': 0},
        'oie_instance_interface_vf_transmit_packets_total': {'0000:81:00.2': 4},
    }


def test_two_passed_through_members_of_a_bond_share_a_mac_but_no_series():
    found = shown(
        of_devices(
            builders.virtual_function(pci_address='0000:81:00.2'),
            builders.virtual_function(pci_address='0000:81:10.2'),
        )
    )
    names = {dict(labels)['interface'] for labels in found['oie_instance_interface_info']}
    assert names == {'0000:81:00.2', '0000:81:10.2'}


def test_an_interface_without_any_device_goes_by_its_mac():
    assert builders.virtual_function(pci_address='').name == 'fa:16:3e:00:00:02'


def test_statistics_are_available_where_the_host_counts():
    of = builders.definition(
        interfaces=(builders.interface(), builders.interface(target='vhu22222222-22'))
    )
    tap, vhostuser = of.interfaces
    instance = builders.instance(
        of,
        interfaces=(
            builders.interface_statistics(tap),
            builders.interface_statistics(vhostuser, **dict.fromkeys(FIELDS)),
        ),
    )
    found = shown(builders.snapshot(instance))['oie_instance_interface_stats_available']
    told = {dict(labels)['interface']: value for labels, value in found.items()}
    assert told == {'tap11111111-11': 1, 'vhu22222222-22': 0}
