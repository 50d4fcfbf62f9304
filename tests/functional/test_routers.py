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

"""Series and lists of real namespaces, as the daemon serves them."""

from collections.abc import Iterator
import contextlib
import pathlib
from typing import Any

import pytest

from tests.functional import exporter as exporters
from tests.functional import processes
from tests.functional import routers

URI = f'test://{pathlib.Path(__file__).parents[2] / "etc/oie/demo/node.xml"}'

#: That of the reference's description, but for the filter: others have namespaces too.
CONFIG = """\
api_server:
  server_address: 127.0.0.1
  server_port: 8080
  request_timeout: 600
  telemetry_path: /metrics
interface_metrics: ["rx_bytes", "rx_packets", "rx_dropped", "tx_bytes", "tx_packets"]
proc_metrics:
  nat_conntrack:
    file: sys/net/netfilter/nf_conntrack_count
namespaces_filter:
  whitelist_pattern: {uuid}
device_filter:
  whitelist_pattern: qg-*|qr-*
"""


pytestmark = pytest.mark.usefixtures('own_namespaces')


@pytest.fixture
def router() -> Iterator[routers.Router]:
    with routers.Router() as router:
        router.receive(5)
        yield router


def exporter(
    router: routers.Router, uri: str = URI, sets: str = 'oie', **netns: object
) -> exporters.Exporter:
    """Return a daemon that reads the namespaces of the router alone."""
    settings: dict[str, dict[str, Any]] = {
        'exporter': {'metric_sets': sets},
        'netns': {'enabled': True, 'namespaces_whitelist': router.uuid, **netns},
    }
    return exporters.Exporter(uri, settings)


def test_counters_are_those_of_ip(router: routers.Router) -> None:
    with exporter(router) as running:
        scrape = running.next_scrape()
        stats = router.counters()
        labels = {'netns': router.name, 'device': router.device}
        for side, name in (('rx', 'receive'), ('tx', 'transmit')):
            for what in ('bytes', 'packets', 'errors', 'dropped'):
                series = f'oie_netns_device_{name}_{what}_total'
                assert scrape.value(series, **labels) == stats[side][what], series
        # 14 of Ethernet, 20 of IPv4, 8 of UDP, 100 of ours.
        assert stats['rx']['bytes'] == 5 * 142

        router.receive(7)
        scrape = running.next_scrape()
        assert scrape.value('oie_netns_device_receive_packets_total', **labels) == 12
        assert scrape.value('oie_netns_udp_no_port_packets_total', netns=router.name) == 12
        (info,) = scrape.of('oie_netns_info', netns=router.dhcp)
        assert (info.labels['kind'], info.labels['network_id']) == ('dhcp', router.uuid)
        assert scrape.value('oie_netns_data_complete', netns=router.name) == 1


def test_another_address_makes_no_other_counter(router: routers.Router) -> None:
    with exporter(router) as running:
        before = running.next_scrape().names(device=router.device)
        router.ip(f'address add 203.0.113.99/32 dev {router.device}')
        router.ip(f'address delete {routers.EXTERNAL}/24 dev {router.device}')
        scrape = running.next_scrape()
        assert scrape.names(device=router.device) == before
        (info,) = scrape.of('oie_netns_device_address_info', device=router.device)
        assert info.labels['address'] == '203.0.113.99/32'
        name = 'oie_netns_device_receive_bytes_total'
        assert scrape.value(name, device=router.device) == 5 * 142


@pytest.mark.parametrize('compat', ['velp', 'saeed-mcu'])
def test_netns_exporters_own_file_gives_its_own_series(
    router: routers.Router, tmp_path: pathlib.Path, compat: str
) -> None:
    """The two routers of the description: one with a gateway, one that was never set up."""
    router.ip('link add name qr-aabbcc1 type veth peer name of-nobody')
    path = tmp_path / 'config.yaml'
    path.write_text(CONFIG.format(uuid=router.uuid), encoding='ascii')
    more = {'netns_exporter_config': path, 'compat': compat, 'namespaces_whitelist': ''}
    with exporter(router, sets='oie,netns', **more) as running:
        scrape = running.next_scrape()
        stats = router.counters()
        log = running.log

    gateway = {'netns': router.name, 'device': router.device}
    expected = {
        'netns_network_rx_bytes_total': stats['rx']['bytes'],
        'netns_network_rx_packets_total': stats['rx']['packets'],
        'netns_network_rx_dropped_total': stats['rx']['dropped'],
        'netns_network_tx_bytes_total': stats['tx']['bytes'],
        'netns_network_tx_packets_total': stats['tx']['packets'],
    }
    for name, value in expected.items():
        assert scrape.value(name, **gateway) == value
        assert scrape.types[name] == 'counter'
    assert scrape.value('netns_network_nat_conntrack_total', netns=router.name) is not None
    assert {one.labels['device'] for one in scrape.of('netns_network_rx_bytes_total')} == {
        router.device,
        'qr-aabbcc1',
    }
    up = {
        (one.labels['device'], one.labels['deviceIP'], one.labels['router']): one.value
        for one in scrape.of('netns_network_up')
    }
    if compat == 'velp':
        assert up == {}
        (series,) = scrape.of('netns_network_rx_bytes_total', **gateway)
        assert series.labels == gateway
    else:
        assert up == {
            (router.device, routers.EXTERNAL, router.uuid): 1,
            ('qr-aabbcc1', '', router.uuid): 0,
        }
    assert 'api_server is not used' in log


def test_the_list_is_the_same_with_and_without_the_daemon(router: routers.Router) -> None:
    with exporter(router) as running:
        running.next_scrape()
        asked = running.pollster('routers').entries
        running.stop()
        direct = running.pollster('routers').entries
    assert asked == direct
    stats = router.counters()
    [entry] = asked
    assert (entry['resource_id'], entry['project_id']) == (router.uuid, None)
    assert (entry['incoming_bytes'], entry['incoming_packets']) == (5 * 142, 5)
    assert entry['outgoing_bytes'] == stats['tx']['bytes']
    assert (entry['netns'], entry['devices']) == (router.name, router.device)


def test_a_node_without_libvirt_tells_its_routers_and_refuses_the_rest(
    router: routers.Router, tmp_path: pathlib.Path
) -> None:
    running = exporter(router, f'qemu:///system?socket={tmp_path}/none')
    try:
        running.start(is_ready=False)
        scrape = running.wait_for(
            lambda now: now.of('oie_netns_info', netns=router.name), 'the first pass'
        )
        assert scrape.value('oie_libvirt_up') == 0
        assert [each['resource_id'] for each in running.pollster('routers').entries] == [
            router.uuid
        ]
        assert 'libvirt could not be read' in running.pollster('instances').sentence
    finally:
        running.close()


@pytest.mark.parametrize('change', ['link set {} down', 'address flush dev {}'])
def test_the_standby_of_a_router_is_in_no_list(router: routers.Router, change: str) -> None:
    with exporter(router) as running:
        running.next_scrape()
        assert running.pollster('routers').entries
        router.ip(change.format(router.device))
        running.next_scrape()
        assert running.pollster('routers').entries == []


def add_snat(router: routers.Router) -> str:
    """Return the name of a second namespace of the router, with an external device in use."""
    snat = f'snat-{router.uuid}'
    router.add(snat)
    router.ip('link add name qg-snat type veth peer name sink', snat)
    for arguments in (
        'address add 198.51.100.2/24 dev qg-snat',
        'link set sink up',
        'link set qg-snat up',
    ):
        router.ip(arguments, snat)
    return snat


def test_two_namespaces_of_a_router_are_one_sum(router: routers.Router) -> None:
    """As on a host that has the SNAT part of a distributed router beside its own."""
    snat = add_snat(router)
    with exporter(router) as running:
        running.next_scrape()
        [entry] = running.pollster('routers').entries
        other = router.counters(snat, 'qg-snat')['rx']['bytes']
    assert entry['netns'] == f'{router.name},{snat}'
    assert entry['devices'] == f'{router.device},qg-snat'
    assert entry['incoming_bytes'] == 5 * 142 + other


@contextlib.contextmanager
def kept(path: str, place: pathlib.Path) -> Iterator[None]:
    """Keep a namespace whose file loses its mount meanwhile, and mount it again."""
    place.touch()
    processes.run('mount', '--bind', path, str(place))
    try:
        yield
        processes.run('mount', '--bind', str(place), path)
    finally:
        processes.run('umount', str(place))


def test_a_sum_never_falls_because_one_of_two_namespaces_is_not_read(
    router: routers.Router, tmp_path: pathlib.Path
) -> None:
    """Gnocchi takes a counter that falls for traffic, or for less than nothing."""
    snat = add_snat(router)
    path = f'/run/netns/{snat}'
    with exporter(router) as running:
        running.next_scrape()
        [whole] = running.pollster('routers').entries
        with kept(path, tmp_path / 'kept'):
            # What is left is a plain file, as where mounts do not propagate.
            processes.run('umount', path)
            running.next_scrape()
            [cut] = running.pollster('routers').entries
        running.next_scrape()
        [again] = running.pollster('routers').entries
    fields = ('incoming_bytes', 'outgoing_bytes', 'incoming_packets', 'conntrack_entries')
    assert [cut[field] for field in fields] == [None] * 4
    assert cut['netns'] == whole['netns'] == f'{router.name},{snat}'
    assert whole['incoming_bytes'] >= 5 * 142
    assert again['incoming_bytes'] >= whole['incoming_bytes']


def test_a_deleted_router_leaves_the_list_and_the_series(router: routers.Router) -> None:
    with exporter(router) as running:
        running.next_scrape()
        assert running.pollster('routers').entries
        router.close()
        scrape = running.next_scrape()
        assert running.pollster('routers').entries == []
        assert scrape.names(netns=router.name) == set()
