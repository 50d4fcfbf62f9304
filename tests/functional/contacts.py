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


"""Entries that touch lists, and who is in contact with whom.

The answer is worked out by ``ipaddress`` from what ``conntrack -L`` says, with
nothing of ours.

    lists = [published.Published('ours', published.KINDS['plain_list'], 'out')]
    router.add(*contacts.traffic(lists))
    assert contacts.active(scrape, lists) == contacts.expected(router.listed(), lists)
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import ipaddress
import itertools
import pathlib
import random

from tests import conntrack_list
from tests import ctnetlink
from tests.functional import exporter as exporters
from tests.functional import flows
from tests.functional import published

Pair = tuple[str, str]
Key = tuple[str, str]

#: Ends of the names of series.
ERRORS, SUCCEEDED = 'refresh_errors_total', 'refresh_last_success_timestamp_seconds'
#: A table with more is not read.
MOST_ENTRIES = 20000

DEMO = pathlib.Path(__file__).parents[2] / 'etc/oie/demo/node.xml'
WEB, DATABASE, BUILD = UUIDS = (
    '9f3c1e52-7a84-4d0b-b6e1-0c5d8f2a7b01',
    '2b7d9e41-3c58-4f6a-a1d0-9e8c7b6a5f02',
    'd81f4a6c-5e2b-4973-8c0d-1b2a3f4e5d03',
)
#: A name that would end a field and begin another one.
ODD_NAME = 'build 7 tag=TOR direction=out'
OWNER_OF = {
    '10.10.0.11': WEB,
    '2001:db8:10::11': WEB,
    '10.10.0.12': DATABASE,
    published.LISTED_IP: DATABASE,
    '10.20.0.5': BUILD,
    '2001:db8:20::5': BUILD,
}
FLOATING = {4: '203.0.113.5', 6: '2001:db8:ffff::5'}
ROUTER = {4: '203.0.113.1', 6: '2001:db8:ffff::1'}
MEMBER = {4: '10.99.0.1', 6: '2001:db8:99::1'}

_UNWANTED_PEERS = ('45.0.8.9', '192.0.2.77', '2001:db8:dead::1')


def write_node(directory: pathlib.Path) -> pathlib.Path:
    """Write Nova's instances of the demonstration, with an odd name and one address more."""
    second = f'<nova:ip type="fixed" address="{published.LISTED_IP}" ipVersion="4"/>'
    text = DEMO.read_text(encoding='utf-8')
    port = '<nova:port uuid="1d9b6f5e-0c3a-4c0f-9a6d-7b8e5f4c3d02">'
    for old, new in (('>instance-00000003<', f'>{ODD_NAME}<'), (port, f'{port}{second}')):
        assert text.count(old) == 1
        text = text.replace(old, new)
    # The last one is not Nova's.
    text = text[: text.rindex('<domain ')] + '</node>\n'
    path = directory / 'node.xml'
    path.write_text(text, encoding='utf-8')
    return path


# --- an exporter with lists ---------------------------------------------------------


def settings_of(
    router: flows.Namespace,
    feeds: Mapping[str, Mapping[str, object]],
    directory: pathlib.Path,
    **more: Mapping[str, object],
) -> dict[str, Mapping[str, object]]:
    """Return the options of an exporter with these lists."""
    return {
        'threats': {
            'enabled_feeds': ','.join(feeds),
            'own_networks': published.OWN_NETWORK,
            'allow_private_targets': 'true',
            'cache_dir': directory,
        },
        'conntrack': {
            'namespaces': router.name,
            'max_entries': MOST_ENTRIES,
            'min': 0,
        },
        **{f'feed_{name}': options for name, options in feeds.items()},
        **more,
    }


def are_loaded(scrape: exporters.Scrape, *names: str) -> bool:
    return all(value(scrape, SUCCEEDED, name) for name in names)


def value(scrape: exporters.Scrape, end: str, name: str) -> float | None:
    return scrape.value(f'oie_{name}_{end}')


# --- traffic ----------------------------------------------------------------------


def traffic(lists: Iterable[published.Published]) -> list[ctnetlink.Entry]:
    """Return entries of all shapes with peers on lists and next to them."""
    chosen = random.Random('traffic')
    peers = {*_UNWANTED_PEERS, published.LISTED_IP}
    for network in itertools.chain.from_iterable(each.networks for each in lists):
        first, last = network[0], network[-1]
        ends = first - 1, first, published.address_in(network, chosen), last, last + 1
        peers |= {str(peer) for peer in chosen.sample(ends, 2)}
    ports = itertools.count(10000)
    made: list[ctnetlink.Entry] = []
    for peer in sorted(peers):
        version = ipaddress.ip_address(peer).version
        ours = [ip for ip in OWNER_OF if ipaddress.ip_address(ip).version == version]
        shapes = chosen.sample(_SHAPES, 2)
        for fixed, shape in zip(chosen.choices(ours, k=2), shapes, strict=True):
            if fixed != peer:
                made += shape(fixed, peer, next(ports))
    for ends in (('10.10.0.12', published.LISTED_IP), (published.LISTED_IP, '10.10.0.12')):
        made.append(ctnetlink.Entry(ctnetlink.tcp(*ends, next(ports))))
    return made


Shape = Callable[[str, str, int], Sequence[ctnetlink.Entry]]


def _version(address: str) -> int:
    return ipaddress.ip_address(address).version


def _sent(fixed: str, peer: str, port: int) -> Sequence[ctnetlink.Entry]:
    return (ctnetlink.Entry(ctnetlink.tcp(fixed, peer, port)),)


def _sent_from_floating(fixed: str, peer: str, port: int) -> Sequence[ctnetlink.Entry]:
    orig = ctnetlink.udp(fixed, peer, port)
    return (ctnetlink.Entry(orig, nat_src=FLOATING[_version(peer)]),)


def _sent_to_balancer(fixed: str, peer: str, port: int) -> Sequence[ctnetlink.Entry]:
    """The instance addressed the peer, and somebody else answers."""
    return (ctnetlink.Entry(ctnetlink.tcp(fixed, peer, port), nat_dst=MEMBER[_version(peer)]),)


def _came(fixed: str, peer: str, port: int) -> Sequence[ctnetlink.Entry]:
    return (ctnetlink.Entry(ctnetlink.echo(peer, fixed, port), status=ctnetlink.CONFIRMED),)


def _came_to_floating(fixed: str, peer: str, port: int) -> Sequence[ctnetlink.Entry]:
    orig = ctnetlink.tcp(peer, FLOATING[_version(peer)], port)
    return (ctnetlink.Entry(orig, nat_dst=fixed),)


def _came_as_router(fixed: str, peer: str, port: int) -> Sequence[ctnetlink.Entry]:
    """Behind two translations the instance sees the router, which is on no list."""
    version = _version(peer)
    orig = ctnetlink.tcp(peer, FLOATING[version], port)
    return (ctnetlink.Entry(orig, nat_dst=fixed, nat_src=ROUTER[version]),)


def _both_ways_in_two_zones(fixed: str, peer: str, port: int) -> Sequence[ctnetlink.Entry]:
    sent, came = ctnetlink.sctp(fixed, peer, port), ctnetlink.gre(peer, fixed, port)
    return tuple(ctnetlink.Entry(orig, zone=zone) for orig in (sent, came) for zone in (3, 4))


_SHAPES: Sequence[Shape] = (
    _sent,
    _sent_from_floating,
    _sent_to_balancer,
    _came,
    _came_to_floating,
    _came_as_router,
    _both_ways_in_two_zones,
)


# --- the answer -------------------------------------------------------------------


def pairs(table: Iterable[conntrack_list.Listed]) -> dict[str, set[Pair]]:
    """Return, by direction, the fixed IPs and who they are in touch with."""
    sent, came = set[Pair](), set[Pair]()
    for entry in table:
        names = ('src', 'dst', 'reply_src', 'reply_dst')
        src, dst, reply_src, reply_dst = (str(ipaddress.ip_address(entry[n])) for n in names)
        for found, fixed, peer in ((sent, src, dst), (came, reply_src, reply_dst)):
            if fixed in OWNER_OF and OWNER_OF[fixed] != OWNER_OF.get(peer):
                found.add((fixed, peer))
    return {'out': sent, 'in': came, 'any': sent | came}


def expected(
    table: Iterable[conntrack_list.Listed], lists: Iterable[published.Published]
) -> dict[Key, int]:
    """Return how many contacts each instance has with each list; who has none is left out."""
    found, counts = pairs(table), dict[Key, int]()
    for each in lists:
        for fixed, peer in found[each.direction]:
            if each.has(peer):
                key = OWNER_OF[fixed], each.name
                counts[key] = counts.get(key, 0) + 1
    return counts


def expected_lines(
    table: Iterable[conntrack_list.Listed], lists: Iterable[published.Published]
) -> set[tuple[str, str, str, str, str]]:
    """Return tag, instance, source, destination and direction of each contact."""
    found, lines = pairs(table), set()
    for each in lists:
        for fixed, peer in found[each.direction]:
            if each.has(peer):
                is_out = each.direction != 'in' and (fixed, peer) in found['out']
                ends = (fixed, peer, 'out') if is_out else (peer, fixed, 'in')
                lines.add((each.tag, OWNER_OF[fixed], *ends))
    return lines


def active(scrape: exporters.Scrape, lists: Iterable[published.Published]) -> dict[Key, int]:
    """Return the contacts of the last interval, by instance and list."""
    return _values(scrape, lists, 'contact_active')


def totals(scrape: exporters.Scrape, lists: Iterable[published.Published]) -> dict[Key, int]:
    """Return the sums of contacts, by instance and list."""
    return _values(scrape, lists, 'contact')


def _values(
    scrape: exporters.Scrape, lists: Iterable[published.Published], end: str
) -> dict[Key, int]:
    found = {}
    for each in lists:
        for series in scrape.of(f'oie_{each.name}_{end}', direction=each.direction):
            found[series.labels['instance_uuid'], each.name] = int(series.value)
        assert len(scrape.of(f'oie_{each.name}_{end}')) == len(
            scrape.of(f'oie_{each.name}_{end}', direction=each.direction)
        )
    return found
