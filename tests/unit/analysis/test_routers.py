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

"""Which routers forward to the outside here, and what their sums are."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st
import pytest

from oie import model
from oie.analysis import routers
from tests import builders

OTHER = '11e6b9c0-73c4-4624-9481-eb5c90f109bd'


def table(*namespaces):
    return model.NamespaceTable(found=len(namespaces), namespaces=namespaces)


def active(*namespaces, **more):
    return routers.active(table(*namespaces), **more)


def external(name='qg-aabbcc1', **more):
    return builders.netns_device(f'qrouter-{builders.ROUTER}', name, **more)


def snat(*devices, **more):
    values = {'kind': 'snat', 'devices': devices, **more}
    return builders.netns(f'snat-{builders.ROUTER}', **values)


def test_a_router_has_the_traffic_of_its_external_device_alone():
    [router] = active(builders.netns())
    # Counters of the builder: 1000 and the place of the field in LinkStatistics.
    assert router == model.Router(
        uuid=builders.ROUTER,
        namespaces=(f'qrouter-{builders.ROUTER}',),
        devices=('qg-aabbcc1',),
        rx_packets=1001,
        tx_packets=1002,
        rx_bytes=1003,
        tx_bytes=1004,
        conntrack_entries=81,
    )


def test_two_namespaces_of_one_router_are_one_router():
    """With DVR the floating IPs leave by qrouter-UUID and all others by snat-UUID."""
    distributed = builders.netns(devices=(external('rfp-aabbcc1'),), conntrack_entries=5)
    [router] = active(snat(external()), distributed, external=('qg-*', 'rfp-*'))
    assert router.namespaces == (f'qrouter-{builders.ROUTER}', f'snat-{builders.ROUTER}')
    assert router.devices == ('qg-aabbcc1', 'rfp-aabbcc1')
    assert router.rx_bytes == 1003 + 1003
    assert router.conntrack_entries == 81 + 5


@pytest.mark.parametrize(
    'standby',
    [
        {'addresses': ()},
        {'is_up': False},
        {'addresses': ('fe80::f816:3eff:fe00:1/64',)},
    ],
)
def test_the_standby_of_an_ha_router_is_none(standby):
    """Else two hosts would write into one resource of Gnocchi."""
    assert active(builders.netns(devices=(external(**standby),))) == ()


def test_a_router_without_a_gateway_has_nothing_outside():
    assert active(builders.netns(devices=(external('qr-aabbcc2'),))) == ()


def test_an_ipv6_address_of_its_own_makes_a_router_active():
    assert active(builders.netns(devices=(external(addresses=('2001:db8::1/64',)),)))


def test_all_external_devices_count_while_one_is_in_use():
    """A device that loses its addresses for a while must not make the sum fall."""
    [router] = active(builders.netns(devices=(external(), external('qg-2', addresses=()))))
    assert router.rx_bytes == 2 * 1003


@pytest.mark.parametrize(
    'unknown',
    [
        {'devices': None},
        {'devices': (external(addresses=None),)},
        {'devices': (external(is_up=None),)},
    ],
)
def test_where_it_is_not_known_whether_it_is_active_there_are_no_figures(unknown):
    [router] = active(builders.netns(**unknown))
    numbers = (router.rx_bytes, router.rx_packets, router.tx_bytes, router.tx_packets)
    assert (*numbers, router.conntrack_entries) == (None,) * 5


def test_an_unreadable_namespace_of_two_leaves_no_half_of_a_sum():
    [router] = active(builders.netns(devices=None), snat(external()))
    assert router.rx_bytes is None
    assert router.conntrack_entries is None


def test_a_skipped_namespace_of_two_leaves_no_half_of_a_sum():
    """Seen: 6000, then 1000 while snat-UUID was not reached, and 6000 again."""
    skipped = snat(devices=None, conntrack_entries=None)
    whole = table(builders.netns())
    [router] = routers.active(dataclasses.replace(whole, found=2, unread=(skipped,)))
    assert router.namespaces == (f'qrouter-{builders.ROUTER}', f'snat-{builders.ROUTER}')
    assert (router.rx_bytes, router.tx_packets, router.conntrack_entries) == (None,) * 3


@pytest.mark.parametrize('kind', ['fip', 'other'])
def test_a_skipped_namespace_of_something_else_costs_no_router_its_sum(kind):
    other = builders.netns(f'{kind}-1', kind=kind, devices=None)
    [router] = routers.active(dataclasses.replace(table(builders.netns()), unread=(other,)))
    assert router.rx_bytes == 1003


def test_a_counter_that_was_not_read_costs_its_own_sum():
    part = model.LinkStatistics(rx_bytes=7, rx_packets=None, tx_bytes=0, tx_packets=9)
    [router] = active(builders.netns(devices=(external(statistics=part),), conntrack_entries=None))
    assert (router.rx_bytes, router.rx_packets) == (7, None)
    assert (router.tx_bytes, router.tx_packets) == (0, 9)
    assert router.conntrack_entries is None


@pytest.mark.parametrize('kind', ['dhcp', 'fip', 'metadata', 'other'])
def test_what_is_no_router_is_none(kind):
    assert active(builders.netns(kind=kind)) == ()


def test_a_router_without_a_uuid_is_none():
    assert active(builders.netns(uuid='')) == ()


@given(st.permutations([builders.ROUTER, OTHER, 'ff']))
def test_the_order_is_that_of_the_uuids(uuids):
    namespaces = [builders.netns(f'qrouter-{uuid}', uuid=uuid) for uuid in uuids]
    found = [router.uuid for router in active(*namespaces)]
    assert found == sorted(uuids)
