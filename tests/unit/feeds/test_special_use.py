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

"""What no list may name, against what the standard library's ipaddress calls global."""

import ipaddress
import re

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from oie import address_sets
from oie import exceptions
from oie.feeds import special_use

OURS = special_use.addresses()

# Where ipaddress of one or all supported releases says otherwise, and why we do not.
DIFFERENCES = {
    '224.0.0.0/4': 'multicast is no row of the registry',
    'ff00::/8': 'multicast is no row of the registry',
    '192.0.0.0/24': 'older releases know only some pieces of it',
    '192.88.99.2/32': 'unknown to ipaddress',
    '2001::/23': 'older releases: its reachable pieces too; all: Teredo, N/A in the registry',
    '2002::/16': 'N/A in the registry; newer releases: private',
    '64:ff9b:1::/48': 'unknown to older releases',
    '100:0:0:1::/64': 'of 2025, unknown',
    '3fff::/20': 'of 2024, unknown to older releases',
    '5f00::/16': 'of 2024, unknown',
    '::ffff:0:0/96': 'entries makes IPv4 of them, which is judged instead',
}
DIFFERENT = [ipaddress.ip_network(network) for network in DIFFERENCES]
ROWS = (*special_use.NOT_REACHABLE, *special_use.REACHABLE_ALL_THE_SAME)


def holds(addresses, address):
    index = address_sets.Index((addresses,))
    number = int(ipaddress.ip_address(address))
    if ipaddress.ip_address(address).version == 4:
        return bool(index.find_v4(np.array([number], np.uint32))[0])
    wide = address_sets.wide([number])
    return bool(index.find_v6(wide.high, wide.low)[0])


def judged_alike(address):
    if any(address in network for network in DIFFERENT):
        return True
    return holds(OURS, address) != address.is_global


def around(network):
    """Return the addresses at both ends of a network, and those beside it."""
    network = ipaddress.ip_network(network)
    first, last = int(network[0]), int(network[-1])
    address = type(network[0])
    return [
        address(number)
        for number in (first - 1, first, last, last + 1)
        if 0 <= number < 2**network.max_prefixlen
    ]


@pytest.mark.parametrize('network', [network for network, _, _ in ROWS])
def test_the_ends_of_each_row_are_judged_as_ipaddress_does(network):
    assert all(judged_alike(address) for address in around(network))


@hypothesis.given(st.ip_addresses())
def test_any_address_is_judged_as_ipaddress_does(address):
    assert judged_alike(address)


@pytest.mark.parametrize(
    ('address', 'expected'),
    [
        ('223.255.255.255', False),
        ('224.0.0.1', True),
        ('255.255.255.255', True),
        ('ff02::1', True),
        ('192.0.0.8', True),
        ('192.0.0.9', False),
        ('192.0.0.10', False),
        ('192.0.0.11', True),
        ('192.0.0.170', True),
        ('192.88.99.1', False),
        ('192.88.99.2', True),
        ('2001:0:506:708::1', False),
        ('2001:1::', True),
        ('2001:1::1', False),
        ('2001:1::3', False),
        ('2001:1::4', True),
        ('2001:2::1', True),
        ('2001:3::1', False),
        ('2001:4:111::1', True),
        ('2001:4:112::1', False),
        ('2001:10::1', True),
        ('2001:20::1', False),
        ('2001:3f:ffff::1', False),
        ('2001:40::', True),
        ('2001:1ff::1', True),
        ('2001:200::', False),
        ('2002:506:708::1', False),
        ('64:ff9b::506:708', False),
        ('64:ff9b:1::1', True),
        ('100:0:0:1::1', True),
        ('100:0:0:2::', False),
        ('3fff:fff::1', True),
        ('3fff:1000::', False),
        ('5f00::1', True),
    ],
)
def test_where_ipaddress_differs_the_registry_is_followed(address, expected):
    assert holds(OURS, address) == expected


def test_each_row_says_where_it_comes_from_and_is_a_network():
    for network, purpose, source in ROWS:
        assert str(ipaddress.ip_network(network)) == network
        assert purpose
        assert re.fullmatch(r'RFC [0-9]+(, RFC [0-9]+)*', source)
    assert len({network for network, _, _ in ROWS}) == len(ROWS)


def test_each_exception_lies_within_a_row():
    rows = [ipaddress.ip_network(network) for network, _, _ in special_use.NOT_REACHABLE]
    for text, _, _ in special_use.REACHABLE_ALL_THE_SAME:
        network = ipaddress.ip_network(text)
        assert any(row.version == network.version and network.subnet_of(row) for row in rows)


def test_own_networks_join_even_where_an_exception_is():
    own = special_use.addresses(['5.6.7.0/24', '45.0.0.1-45.0.0.3', '2001:3::/32', '2a00:1::9'])
    for address in ('5.6.7.0', '5.6.7.255', '45.0.0.2', '2001:3::1', '2a00:1::9', '10.0.0.1'):
        assert holds(own, address)
    for address in ('5.6.8.0', '45.0.0.4', '2001:20::1', '2a00:1::8'):
        assert not holds(own, address)


def test_an_own_network_that_is_none_is_a_configuration_error():
    with pytest.raises(exceptions.ConfigError, match='own networks is no address'):
        special_use.addresses(['5.6.7'])
