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

"""Series of network namespaces: what was read, under labels that do not change by themselves."""

import dataclasses
import gc

import pytest

from oie import exceptions
from oie import model
from oie.collectors import namespaces
from oie.outputs import prometheus
from tests import builders
from tests.unit import measuring

NAME = f'qrouter-{builders.ROUTER}'
NETNS = frozenset({('netns', NAME)})
QG = NETNS | {('device', 'qg-aabbcc1')}
DEFAULT = {
    f'oie_netns_device_{side}_{what}_total'
    for side in ('receive', 'transmit')
    for what in ('bytes', 'packets', 'errors', 'dropped')
}


def shown(*found, previous=None, health=None, **options):
    snapshot = builders.snapshot(namespaces=builders.namespaces(*found), namespaces_health=health)
    return measuring.shown(measuring.collector('namespaces', **options), snapshot)


def counters(found):
    return {
        name for name in found if name.startswith('oie_netns_device_') and name.endswith('_total')
    }


def test_counters_of_a_device_are_the_eight_of_a_router_by_default():
    found = shown(builders.netns())
    assert counters(found) == DEFAULT
    assert found['oie_netns_device_receive_bytes_total'][QG] == 1003
    assert found['oie_netns_device_transmit_dropped_total'][QG] == 1008


def test_every_field_of_the_kernel_has_a_counter_and_is_shown_when_named():
    assert set(namespaces.DEVICE_COUNTERS) == set(model.LinkStatistics._fields)
    for number, field in enumerate(model.LinkStatistics._fields, 1001):
        found = shown(builders.netns(), netns__interface_metrics=(field,))
        [name] = counters(found)
        assert found[name][QG] == number, field


def test_netns_exporters_own_file_chooses_the_counters(tmp_path):
    path = tmp_path / 'config.yaml'
    path.write_text('interface_metrics: [rx_bytes, tx_errors]\n')
    options = {'netns__enabled': True, 'netns__netns_exporter_config': str(path)}
    assert counters(shown(builders.netns(), **options)) == {
        'oie_netns_device_receive_bytes_total',
        'oie_netns_device_transmit_errors_total',
    }
    path.write_text('interface_metrics: [rx_bites]\n')
    with pytest.raises(exceptions.ConfigError, match='rx_bites'):
        shown(builders.netns(), **options)


def test_set_up_and_having_a_link_are_two_things():
    device = builders.netns_device(NAME, is_up=True, operstate='lowerlayerdown')
    found = shown(builders.netns(devices=(device,)))
    assert found['oie_netns_device_up'][QG] == 1
    assert found['oie_netns_device_operstate_code'][QG] == 3


def test_codes_are_those_of_the_kernel():
    # linux/if.h, IF_OPER_*.
    assert namespaces.OPERSTATES == (
        *('unknown', 'notpresent', 'down', 'lowerlayerdown', 'testing', 'dormant', 'up'),
    )


def test_another_address_changes_no_labels_of_a_counter():
    before = shown(builders.netns())
    device = builders.netns_device(NAME, addresses=('198.51.100.1/24',), mac='fa:16:3e:00:00:99')
    after = shown(builders.netns(devices=(device,)))
    for name in (*DEFAULT, 'oie_netns_device_up'):
        assert set(after[name]) <= set(before[name])
    assert list(after['oie_netns_device_address_info']) == [
        QG | {('address', '198.51.100.1/24'), ('family', 'ipv4')}
    ]
    assert list(after['oie_netns_device_info']) == [
        QG | {('mac', 'fa:16:3e:00:00:99'), ('mtu', '1500')}
    ]


def test_every_address_is_a_series_of_its_family():
    found = shown(builders.netns())['oie_netns_device_address_info']
    assert {dict(labels)['address']: dict(labels)['family'] for labels in found} == {
        '203.0.113.10/24': 'ipv4',
        '2001:db8:1::10/64': 'ipv6',
        '10.0.0.1/24': 'ipv4',
    }


@pytest.mark.parametrize(
    ('kind', 'router', 'network'),
    [
        ('router', 'u', ''),
        ('snat', 'u', ''),
        ('dhcp', '', 'u'),
        ('fip', '', 'u'),
        ('metadata', '', 'u'),
    ],
)
def test_the_uuid_is_that_of_a_router_or_of_a_network(kind, router, network):
    [labels] = shown(builders.netns(kind=kind, uuid='u'))['oie_netns_info']
    assert dict(labels) == {
        'netns': NAME,
        'kind': kind,
        'router_id': router,
        'network_id': network,
    }


def test_what_neutron_did_not_make_has_neither():
    [labels] = shown(builders.netns('test', kind='other', uuid=''))['oie_netns_info']
    assert labels == {('netns', 'test'), ('kind', 'other'), ('router_id', ''), ('network_id', '')}


def test_figures_of_a_namespace():
    found = shown(builders.netns())
    assert {
        name.removeprefix('oie_netns_'): values[NETNS]
        for name, values in found.items()
        if NETNS in values
    } == {
        'conntrack_entries': 81,
        'conntrack_limit': 262_144,
        'data_complete': 1,
        'ip_forwarded_packets_total': 91,
        'ip_no_route_packets_total': 92,
        'tcp_retransmitted_segments_total': 94,
        'tcp_receive_errors_total': 95,
        'udp_receive_errors_total': 96,
        'udp_no_port_packets_total': 97,
        'sockets': 101,
        'tcp_sockets': 102,
        'tcp_time_wait_sockets': 103,
        'udp_sockets': 104,
    }
    assert found['oie_netns_proc'] == {NETNS | {('name', 'nat_conntrack')}: 81.0}


def test_a_namespace_of_which_nothing_could_be_read_shows_that_and_no_number():
    failures = {'links': 'ENOMEM', 'conntrack': 'EPERM'}
    nothing = {'devices': None, 'conntrack_entries': None, 'conntrack_maximum': None}
    none = {'snmp': {}, 'sockstat': {}, 'proc': {}, 'kind': 'other', 'uuid': ''}
    silent = builders.netns('mute', failures=failures, **nothing, **none)
    mute = frozenset({('netns', 'mute')})
    found = shown(silent)
    of_namespace = {name: values for name, values in found.items() if '_host_' not in name}
    assert of_namespace == {
        'oie_netns_info': {mute | {('kind', 'other'), ('router_id', ''), ('network_id', '')}: 1},
        'oie_netns_data_complete': {mute: 0},
        'oie_netns_part_failed': {
            mute | {('part', 'links')}: 1,
            mute | {('part', 'conntrack')}: 1,
        },
    }


def test_a_device_of_which_nothing_could_be_read_shows_no_invented_number():
    device = model.NamespaceDevice(
        labels=model.Labels.of(netns=NAME, device='qg-aabbcc1'), name='qg-aabbcc1', index=3
    )
    found = shown(builders.netns(devices=(device,)))
    assert {name for name, values in found.items() if QG in values} == {
        'oie_netns_device_operstate_code'
    }
    odd = dataclasses.replace(device, operstate='of a newer kernel')
    assert 'oie_netns_device_operstate_code' not in shown(builders.netns(devices=(odd,)))


def test_further_numbers_of_the_kernel_come_by_their_names_and_only_then():
    six = {('Ip6', 'OutForwDatagrams'): 66}
    wanted = ('Tcp.CurrEstab', 'Ip6.OutForwDatagrams', 'UDP.inuse', 'No.Such')
    found = shown(builders.netns(snmp6=six), netns__statistics=wanted)['oie_netns_statistic']
    assert {dict(labels)['name']: value for labels, value in found.items()} == {
        'Tcp.CurrEstab': 93,
        'Ip6.OutForwDatagrams': 66,
        'UDP.inuse': 104,
    }
    assert 'oie_netns_statistic' not in shown(builders.netns(snmp6=six))


def test_totals_and_errors_of_the_pass():
    health = model.NamespacesHealth(errors={'vanished': 4, 'stale': 0})
    found = shown(builders.netns(), builders.dhcp_netns(), health=health)
    ours = {name: values for name, values in found.items() if name.startswith('oie_host_netns_')}
    assert {
        (name.removeprefix('oie_host_netns_'), *dict(labels).values()): value
        for name, values in ours.items()
        for labels, value in values.items()
        if value
    } == {
        ('found',): 7,
        ('filtered',): 3,
        ('read',): 2,
        ('skipped', 'vanished'): 2,
        ('read_duration_seconds',): 0.01235,
        ('last_success_timestamp_seconds',): builders.NOW - 0.25,
        ('errors_total', 'vanished'): 4,
    }
    # Present from the start, so that increase() sees the first one.
    for name in ('oie_host_netns_skipped', 'oie_host_netns_errors_total'):
        assert found[name][frozenset({('reason', 'stale')})] == 0


def test_a_pass_that_never_succeeded_shows_its_errors_only():
    snapshot = builders.snapshot(
        namespaces=model.Reading(value=None, read_at=None, seconds=0.5, error='EPERM'),
        namespaces_health=model.NamespacesHealth(errors={'refused': 1}),
    )
    assert set(measuring.shown(measuring.collector('namespaces'), snapshot)) == {
        'oie_host_netns_errors_total',
        'oie_host_netns_read_duration_seconds',
    }


def test_where_nobody_reads_namespaces_there_is_nothing():
    assert measuring.shown(measuring.collector('namespaces'), builders.snapshot()) == {}


def test_labels_are_the_same_objects_from_one_cycle_to_the_next():
    """The text of a label set is made once for as long as its object lives."""
    collector = measuring.collector('namespaces', netns__statistics=('Tcp.CurrEstab',))
    routers = builders.netns()
    first, second = (
        [
            labels
            for family in collector.collect(
                None, builders.snapshot(namespaces=builders.namespaces(routers)), {}
            )
            for labels, _ in family.samples
            if dict(labels.pairs).keys() & {'netns'}
        ]
        for _ in range(2)
    )
    assert [id(labels) for labels in first] == [id(labels) for labels in second]
    assert len(first) > 30


@pytest.mark.parametrize('name', ['namespaces', 'netns_exporter'])
def test_nothing_is_kept_of_routers_that_are_gone(name):
    """A network node lives for years, and a router of a test for a minute."""
    collector = measuring.collector(name, netns__statistics=('Tcp.CurrEstab',))
    living = []
    for number in range(6):
        found = [builders.netns(f'qrouter-{number}-{each}') for each in range(5)]
        snapshot = builders.snapshot(namespaces=builders.namespaces(*found))
        for _ in range(2):
            assert list(collector.collect(None, snapshot, {}))
        del found, snapshot
        gc.collect()
        living.append(sum(isinstance(each, model.Labels) for each in gc.get_objects()))
    assert living[1:] == [living[1]] * 5


def test_a_name_of_strange_bytes_is_a_label_that_prometheus_takes():
    name = 'a"\\\n\udcff'
    found = builders.netns(name, devices=(builders.netns_device(name),))
    collector = measuring.collector('namespaces')
    snapshot = builders.snapshot(namespaces=builders.namespaces(found))
    text = prometheus.Renderer().render(collector.collect(None, snapshot, {})).text
    assert rb'netns="a\"\\\n?"' in text
