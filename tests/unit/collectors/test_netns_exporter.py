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

"""``netns_network_*``: the names, labels and types that dashboards of netns-exporter ask for."""

import pytest

from oie import model
from oie.cmd import wiring
from oie.collectors import netns_exporter
from oie.outputs import prometheus
from tests import builders
from tests.unit import measuring

NAME = f'qrouter-{builders.ROUTER}'
VELP = frozenset({('netns', NAME), ('device', 'qg-aabbcc1')})
SAEED = VELP | {
    ('router', builders.ROUTER),
    ('host', builders.HOST),
    ('hostname', builders.HOST),
    ('deviceIP', '203.0.113.10'),
}
#: What the description of the reference configures and shows.
SAMPLE = ('rx_bytes', 'rx_packets', 'rx_dropped', 'tx_bytes', 'tx_packets')


def snapshot(*found):
    return builders.snapshot(namespaces=builders.namespaces(*found))


def shown(*found, **options):
    chosen = {'netns__interface_metrics': SAMPLE, **options}
    return measuring.shown(measuring.collector('netns_exporter', **chosen), snapshot(*found))


@pytest.mark.parametrize(('compat', 'labels'), [('velp', VELP), ('saeed-mcu', SAEED)])
def test_the_sample_of_the_reference(compat, labels):
    found = shown(builders.netns(), netns__compat=compat)
    names = {
        'netns_network_rx_bytes_total': 1003,
        'netns_network_rx_packets_total': 1001,
        'netns_network_rx_dropped_total': 1007,
        'netns_network_tx_bytes_total': 1004,
        'netns_network_tx_packets_total': 1002,
    }
    assert {name: found[name][labels] for name in names} == names
    assert found['netns_network_nat_conntrack_total'] == {frozenset({('netns', NAME)}): 81.0}
    [build] = found['netns_exporter_build_info']
    assert {name for name, _ in build} == {'branch', 'goversion', 'revision', 'version'}


def test_velp_has_no_further_series():
    assert set(shown(builders.netns(), netns__compat='velp')) == {
        *(f'netns_network_{name}_total' for name in SAMPLE),
        'netns_network_nat_conntrack_total',
        'netns_exporter_build_info',
    }


def test_saeed_mcu_tells_what_is_set_up_and_what_is_there():
    down = builders.netns_device(NAME, 'qr-aabbcc2', is_up=False, addresses=())
    found = shown(builders.netns(devices=(builders.netns_device(NAME), down)))
    by_device = {dict(lb)['device']: value for lb, value in found['netns_network_up'].items()}
    assert by_device == {'qg-aabbcc1': 1, 'qr-aabbcc2': 0}
    assert found['netns_network_namespace'] == {
        frozenset({('netns', NAME), ('hostname', builders.HOST)}): 1
    }


def test_up_is_the_flag_of_the_administrator_as_there_whatever_its_help_says():
    device = builders.netns_device(NAME, is_up=True, operstate='lowerlayerdown')
    found = shown(builders.netns(devices=(device,)))
    assert measuring.only(found['netns_network_up']) == 1


@pytest.mark.parametrize(
    ('addresses', 'first'),
    [
        (('192.168.110.10/24', '10.0.0.1/8'), '192.168.110.10'),
        (('2001:db8::1/64',), '2001:db8::1'),
        ((), ''),
        (None, ''),
    ],
)
def test_device_ip_is_the_first_address_or_empty(addresses, first):
    device = builders.netns_device(NAME, addresses=addresses)
    [labels] = shown(builders.netns(devices=(device,)))['netns_network_rx_bytes_total']
    assert dict(labels)['deviceIP'] == first


@pytest.mark.parametrize(
    ('name', 'router'),
    [(NAME, builders.ROUTER), ('qdhcp-1', 'qdhcp-1'), ('test', 'test')],
)
def test_router_is_the_name_without_its_prefix(name, router):
    found = shown(builders.netns(name, devices=(builders.netns_device(name),)))
    [labels] = found['netns_network_rx_bytes_total']
    assert dict(labels)['router'] == router


def test_types_are_those_of_the_reference_also_where_they_are_odd():
    collector = measuring.collector('netns_exporter')
    text = prometheus.Renderer().render(collector.collect(None, snapshot(builders.netns()), {}))
    lines = text.text.decode().splitlines()
    for line in (
        '# HELP netns_network_rx_bytes_total Interface statistics in the network namespace',
        '# TYPE netns_network_rx_bytes_total counter',
        '# HELP netns_network_nat_conntrack_total Statistics from /proc filesystem in the '
        'network namespace',
        '# TYPE netns_network_nat_conntrack_total counter',
        "# HELP netns_network_up Value is 1 if operstate is 'up', 0 otherwise.",
        '# TYPE netns_network_up counter',
        '# TYPE netns_network_namespace counter',
        '# TYPE netns_exporter_build_info gauge',
    ):
        assert line in lines


def test_every_number_of_the_kernel_has_its_name_there():
    assert set(netns_exporter.INTERFACE_METERS) == set(model.LinkStatistics._fields)
    for field, meter in netns_exporter.INTERFACE_METERS.items():
        assert meter.prometheus == f'netns_network_{field}_total'


def test_files_of_proc_have_the_names_that_options_give_them():
    found = shown(builders.netns(proc={'arp_size': 3.5, 'nat_conntrack': 2.0}))
    assert measuring.only(found['netns_network_arp_size_total']) == 3.5
    assert measuring.only(found['netns_network_nat_conntrack_total']) == 2


def test_what_could_not_be_read_is_absent_never_minus_one():
    device = builders.netns_device(NAME, statistics=model.LinkStatistics(), is_up=None)
    found = shown(builders.netns(devices=(device,), proc={}))
    assert set(found) == {'netns_network_namespace', 'netns_exporter_build_info'}


def test_before_the_first_pass_there_is_its_version_only():
    collector = measuring.collector('netns_exporter')
    assert set(measuring.shown(collector, builders.snapshot())) == {'netns_exporter_build_info'}


def test_it_is_a_set_of_its_own():
    alone = wiring.collectors(measuring.options(exporter__metric_sets='netns'))
    assert set(alone) == {'netns_exporter'}
    assert 'netns_exporter' not in wiring.collectors(measuring.options())


def test_labels_are_the_same_objects_while_nothing_changes():
    collector = measuring.collector('netns_exporter')
    current = snapshot(builders.netns())
    first, second = (
        [
            labels
            for family in collector.collect(None, current, {})
            for labels, _ in family.samples
            if 'netns' in dict(labels.pairs)
        ]
        for _ in range(2)
    )
    assert [id(labels) for labels in first] == [id(labels) for labels in second]
