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

"""Addresses that nobody reaches over the Internet, and those of the site itself.

A published list that names them is mistaken or hostile: a match would tell of
the site's own machines. Source: the special-purpose address registries of IANA
(iana-ipv4-special-registry, iana-ipv6-special-registry) as of 2025-10-09, every
row whose "Globally Reachable" is False; and multicast. Where that says N/A
(Teredo, 6to4 and its anycast relays) packets do travel: these stay.

The row ::ffff:0:0/96 is missing because ``entries`` makes IPv4 of it.
"""

from collections.abc import Iterable

from oie import address_sets
from oie import exceptions
from oie.config import messages
from oie.feeds import entries

# Network, what it is for, where that is said.
NOT_REACHABLE: tuple[tuple[str, str, str], ...] = (
    ('0.0.0.0/8', 'this network', 'RFC 791'),
    ('10.0.0.0/8', 'private use', 'RFC 1918'),
    ('100.64.0.0/10', 'shared address space of carriers', 'RFC 6598'),
    ('127.0.0.0/8', 'loopback', 'RFC 1122'),
    ('169.254.0.0/16', 'link local', 'RFC 3927'),
    ('172.16.0.0/12', 'private use', 'RFC 1918'),
    ('192.0.0.0/24', 'IETF protocol assignments', 'RFC 6890'),
    ('192.0.2.0/24', 'documentation', 'RFC 5737'),
    ('192.88.99.2/32', '6a44 relay anycast', 'RFC 6751'),
    ('192.168.0.0/16', 'private use', 'RFC 1918'),
    ('198.18.0.0/15', 'benchmarking', 'RFC 2544'),
    ('198.51.100.0/24', 'documentation', 'RFC 5737'),
    ('203.0.113.0/24', 'documentation', 'RFC 5737'),
    ('224.0.0.0/4', 'multicast', 'RFC 5771'),
    ('240.0.0.0/4', 'reserved, and the limited broadcast', 'RFC 1112, RFC 8190'),
    ('::/128', 'unspecified address', 'RFC 4291'),
    ('::1/128', 'loopback', 'RFC 4291'),
    ('64:ff9b:1::/48', 'translation to IPv4, local use', 'RFC 8215'),
    ('100::/64', 'discard only', 'RFC 6666'),
    ('100:0:0:1::/64', 'dummy prefix', 'RFC 9780'),
    ('2001::/23', 'IETF protocol assignments', 'RFC 2928'),
    ('2001:db8::/32', 'documentation', 'RFC 3849'),
    ('3fff::/20', 'documentation', 'RFC 9637'),
    ('5f00::/16', 'segment identifiers of SRv6', 'RFC 9602'),
    ('fc00::/7', 'unique local', 'RFC 4193'),
    ('fe80::/10', 'link local', 'RFC 4291'),
    ('ff00::/8', 'multicast', 'RFC 4291'),
)
# More specific rows within those above.
REACHABLE_ALL_THE_SAME: tuple[tuple[str, str, str], ...] = (
    ('192.0.0.9/32', 'Port Control Protocol anycast', 'RFC 7723'),
    ('192.0.0.10/32', 'TURN anycast', 'RFC 8155'),
    ('2001::/32', 'Teredo (N/A)', 'RFC 4380'),
    ('2001:1::1/128', 'Port Control Protocol anycast', 'RFC 7723'),
    ('2001:1::2/128', 'TURN anycast', 'RFC 8155'),
    ('2001:1::3/128', 'DNS-SD service registration anycast', 'RFC 9665'),
    ('2001:3::/32', 'AMT', 'RFC 7450'),
    ('2001:4:112::/48', 'AS112', 'RFC 7535'),
    ('2001:20::/28', 'ORCHIDv2', 'RFC 7343'),
    ('2001:30::/28', 'drone remote identification', 'RFC 9374'),
)


def addresses(own: Iterable[str] = ()) -> address_sets.AddressSet:
    """Return the addresses that no list may name.

    :param own: addresses, networks and ranges of the site
    :raises ConfigError: one of them is none
    """
    own = tuple(own)
    special = tuple(network for network, _, _ in NOT_REACHABLE)
    reachable = tuple(network for network, _, _ in REACHABLE_ALL_THE_SAME)
    return _set((*special, *own)).without(_set(reachable).without(_set(own)))


def _set(texts: tuple[str, ...]) -> address_sets.AddressSet:
    for text in texts:
        if entries.parse(text) is None:
            raise exceptions.ConfigError(
                f'{messages.quoted(text)} of the site\'s own networks is no address, network or '
                'range; write for example 192.0.2.0/24'
            )
    found = entries.Entries()
    found.extend(texts)
    return entries.address_set(*found.distinct())
