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


"""Lists in the form of every driver, entries that touch them, and who is in contact with whom.

The answer is worked out by ``ipaddress`` from what ``conntrack -L`` says, with
nothing of ours. All addresses of publishers and peers are synthetic.

    lists = [contacts.Published('ours', contacts.KINDS['plain_list'], 'out')]
    router.add(*contacts.traffic(lists))
    assert contacts.active(scrape, lists) == contacts.expected(router.listed(), lists)
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import ipaddress
import itertools
import json
import pathlib
import random

from tests import conntrack_list
from tests import ctnetlink
from tests.functional import exporter as exporters
from tests.unit.feeds import feed_server

Pair = tuple[str, str]
Key = tuple[str, str]
Document = bytes | Mapping[str, bytes]
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

DIRECTIONS = ('out', 'in', 'any')

DEMO = pathlib.Path(__file__).parents[2] / 'etc/oie/demo/node.xml'
WEB, DATABASE, BUILD, RESCUE = UUIDS = (
    '9f3c1e52-7a84-4d0b-b6e1-0c5d8f2a7b01',
    '2b7d9e41-3c58-4f6a-a1d0-9e8c7b6a5f02',
    'd81f4a6c-5e2b-4973-8c0d-1b2a3f4e5d03',
    '47c6b5a4-9382-4716-a5f4-e3d2c1b0a904',
)
#: A name that would end a field and begin another one.
ODD_NAME = 'build 7 tag=TOR direction=out'
#: Has an address that stands on every list, and talks to itself over it.
LISTED_IP = '5.6.200.12'
OWNER_OF = {
    '10.10.0.11': WEB,
    '2001:db8:10::11': WEB,
    '10.10.0.12': DATABASE,
    LISTED_IP: DATABASE,
    '10.20.0.5': BUILD,
    '2001:db8:20::5': BUILD,
}
FLOATING = {4: '203.0.113.5', 6: '2001:db8:ffff::5'}
ROUTER = {4: '203.0.113.1', 6: '2001:db8:ffff::1'}
MEMBER = {4: '10.99.0.1', 6: '2001:db8:99::1'}

#: Of the site, and of special use: lists that name them are not believed in that.
OWN_NETWORK = '45.0.8.0/24'
UNWANTED = (OWN_NETWORK, '192.0.2.0/24', '2001:db8:dead::/48')
_UNWANTED_PEERS = ('45.0.8.9', '192.0.2.77', '2001:db8:dead::1')
_SPACES = tuple(map(ipaddress.ip_network, ('5.6.0.0/16', '45.0.0.0/20', '2a00:1::/32')))
_NETWORK_LENGTHS = {4: range(20, 32), 6: range(36, 128)}


def write_node(directory: pathlib.Path) -> pathlib.Path:
    """Write the instances of the demonstration, with an odd name and one address more."""
    second = f'<nova:ip type="fixed" address="{LISTED_IP}" ipVersion="4"/>'
    ours = {
        '<name>instance-00000003</name>': f'<name>{ODD_NAME}</name>',
        '<nova:port uuid="1d9b6f5e-0c3a-4c0f-9a6d-7b8e5f4c3d02">': None,
    }
    text = DEMO.read_text(encoding='utf-8')
    for old, new in ours.items():
        assert text.count(old) == 1
        text = text.replace(old, new or f'{old}{second}')
    path = directory / 'node.xml'
    path.write_text(text, encoding='utf-8')
    return path


# --- lists ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Kind:
    """A form of lists.

    :ivar documents: entries → documents by the option that says where each is
    :ivar takes: which entries such a list can hold
    """

    driver: str
    documents: Callable[[Sequence[str]], Mapping[str, Document]]
    takes: Callable[[str], bool] = bool
    options: Mapping[str, object] = dataclasses.field(default_factory=dict)
    is_wide: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Published:
    """A list: its name, its form and what it counts; the entries follow from name and form."""

    name: str
    kind: Kind
    direction: str
    seed: str = ''

    @functools.cached_property
    def entries(self) -> tuple[str, ...]:
        """Addresses, networks and ranges; more than it may list."""
        chosen = random.Random(self.seed or self.name)
        wide = ('5.0.0.0/8', '2a00::/19') if self.kind.is_wide else ()
        made = (*wide, *UNWANTED, '192.0.2.77', f'{LISTED_IP}/32', LISTED_IP, *_entries(chosen))
        return tuple(entry for entry in made if self.kind.takes(entry))

    @functools.cached_property
    def networks(self) -> tuple[_Network, ...]:
        return tuple(itertools.chain.from_iterable(map(networks_of, self.entries)))

    @property
    def size(self) -> int:
        """How many entries count: distinct ones, without those that it may not list."""
        distinct = {tuple(networks_of(entry)) for entry in self.entries}
        return sum(not all(map(_is_unwanted, networks)) for networks in distinct)

    @functools.cache  # noqa: B019, lists live as long as the tests
    def has(self, peer: str) -> bool:
        """Whether an address is on the list, and may be."""
        address = ipaddress.ip_network(peer)
        return not _is_unwanted(address) and any(map(address.overlaps, self.networks))

    @property
    def tag(self) -> str:
        known = {'tor_exit': 'TOR', 'tor_relay': 'TORRELAY', 'emergingthreats': 'EMTHREATS'}
        return known.get(self.name, self.name.upper())

    def publish(
        self, server: feed_server.FeedServer, directory: pathlib.Path
    ) -> dict[str, object]:
        """Serve or write its documents; return the options of ``[feed_NAME]``."""
        options = {'driver': self.kind.driver, 'direction': self.direction, **self.kind.options}
        for option, document in self.kind.documents(self.entries).items():
            if option == 'path':
                options[option] = _write(document, directory / self.name)
            elif isinstance(document, bytes):
                target = f'/{self.name}/{option}?format=text'
                server.play(target, feed_server.packed(document))
                options.update({option: server.url(target), 'ca_file': server.ca_file})
        return options


def networks_of(entry: str) -> Sequence[_Network]:
    first, dash, last = entry.partition('-')
    if not dash:
        return (ipaddress.ip_network(entry, strict=False),)
    ends = ipaddress.ip_address(first), ipaddress.ip_address(last)
    return tuple(ipaddress.summarize_address_range(*ends))


def _is_unwanted(network: _Network) -> bool:
    others = (ipaddress.ip_network(each) for each in UNWANTED)
    return any(o.version == network.version and network.subnet_of(o) for o in others)


def _entries(chosen: random.Random) -> Iterator[str]:
    """Give addresses, networks of many lengths, and ranges."""
    for space in (*_SPACES, *_SPACES, *_SPACES):
        yield str(_address_in(space, chosen))
        length = chosen.choice(_NETWORK_LENGTHS[space.version])
        # With host bits, which do not count.
        network = ipaddress.ip_network(f'{_address_in(space, chosen)}/{length}', strict=False)
        yield f'{network[chosen.randrange(2)]}/{length}'
    first = _address_in(_SPACES[1], chosen)
    yield f'{first}-{first + chosen.randrange(1, 700)}'


def _address_in(space: _Network, chosen: random.Random) -> ipaddress.IPv4Address:
    return space[chosen.randrange(space.num_addresses)]  # type: ignore[return-value]


def _is_address(entry: str) -> bool:
    return not {'/', '-'} & set(entry)


def _is_network(entry: str) -> bool:
    return '/' in entry


def _lines(entries: Iterable[str]) -> bytes:
    return '\n'.join(('# a comment', '', *entries, '')).encode()


def _text(entries: Sequence[str]) -> Mapping[str, Document]:
    return {'url': _lines(entries)}


def _file(entries: Sequence[str]) -> Mapping[str, Document]:
    return {'path': _lines(f'{entry} # ours' for entry in entries)}


def _directory(entries: Sequence[str]) -> Mapping[str, Document]:
    return {'path': {'one': _lines(entries[::2]), 'two': _lines(entries[1::2])}}


def _onionoo(entries: Sequence[str]) -> Mapping[str, Document]:
    """Give half of the addresses as they listen, with ports, half as they call."""
    listening = [f'[{each}]:443' if ':' in each else f'{each}:9001' for each in entries[::2]]
    relays = [
        {'or_addresses': listening, 'exit_addresses': []},
        {'or_addresses': listening[:1], 'exit_addresses': list(entries[1::2])},
        {'or_addresses': listening[-1:]},
    ]
    return {'url': json.dumps({'version': '8.0', 'relays': relays, 'bridges': []}).encode()}


def _families(entries: Sequence[str]) -> Mapping[str, Sequence[str]]:
    return {
        'url': [entry for entry in entries if ':' not in entry],
        'ipv6_url': [entry for entry in entries if ':' in entry],
    }


def _drop_json(entries: Sequence[str]) -> Mapping[str, Document]:
    documents = {}
    for option, part in _families(entries).items():
        records = [{'cidr': cidr, 'sblid': 'SBL1', 'rir': 'arin'} for cidr in part]
        end = {'type': 'metadata', 'records': len(records), 'copyright': '(c) nobody'}
        documents[option] = '\n'.join(json.dumps(each) for each in (*records, end)).encode()
    return documents


def _drop_text(entries: Sequence[str]) -> Mapping[str, Document]:
    return {
        option: '\r\n'.join(('; a comment', *(f'{cidr} ; SBL1' for cidr in part))).encode()
        for option, part in _families(entries).items()
    }


def _csv(entries: Sequence[str]) -> Mapping[str, Document]:
    """Give a table in which the last two rows do not count."""
    rows = [f'2026-11-21;"{entry}";{90 + number % 9}' for number, entry in enumerate(entries)]
    doubtful = ['2026-11-21;45.0.1.1;10', '2026-11-21;5.6.0.0/16;89.9']
    return {'url': '\n'.join(('# c', 'seen;address;sure', *rows, *doubtful)).encode()}


def _json_lines(entries: Sequence[str]) -> Mapping[str, Document]:
    return {'url': '\n'.join(json.dumps({'at': {'ip': entry}}) for entry in entries).encode()}


def _write(document: Document, path: pathlib.Path) -> str:
    if isinstance(document, bytes):
        path.write_bytes(document)
        return str(path)
    path.mkdir()
    for name, part in document.items():
        (path / name).write_bytes(part)
    return str(path)


KINDS: Mapping[str, Kind] = {
    'tor_exit': Kind('tor_exit', _onionoo, _is_address),
    'relays': Kind('tor_relay', _onionoo, _is_address),
    'spamhaus': Kind('spamhaus', _drop_json, _is_network),
    'droptext': Kind('spamhaus', _drop_text, _is_network),
    'emergingthreats': Kind('emergingthreats', _text, _is_address),
    'customlist': Kind('customlist', _file),
    'customdir': Kind('customlist', _directory),
    'plain_list': Kind('plain_list', _text),
    'csv_list': Kind(
        'csv_list',
        _csv,
        options={
            'column': 'address',
            'delimiter': 'semicolon',
            'where_column': 'sure',
            'at_least': 90,
        },
    ),
    'json_lines': Kind('json_lines', _json_lines, options={'field': 'at.ip'}, is_wide=True),
}


def of_every_kind() -> list[Published]:
    """Return a list of each driver for each direction, and one of each further form.

    Those of a form have the same entries. One of them is called as its form.
    """
    made = []
    for name, kind in KINDS.items():
        directions = DIRECTIONS if name == kind.driver else ('any',)
        for number, direction in enumerate(directions):
            called = f'{name}_{direction}' if number else name
            made.append(Published(called, kind, direction, seed=name))
    return made


# --- traffic ----------------------------------------------------------------------


def traffic(lists: Iterable[Published]) -> list[ctnetlink.Entry]:
    """Return entries of all shapes with peers on lists and next to them."""
    chosen = random.Random('traffic')
    peers = {*_UNWANTED_PEERS, LISTED_IP}
    for network in itertools.chain.from_iterable(each.networks for each in lists):
        first, last = network[0], network[-1]
        ends = first - 1, first, _address_in(network, chosen), last, last + 1
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
    for ends in (('10.10.0.12', LISTED_IP), (LISTED_IP, '10.10.0.12')):
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


def expected(table: Iterable[conntrack_list.Listed], lists: Iterable[Published]) -> dict[Key, int]:
    """Return how many contacts each instance has with each list; who has none is left out."""
    found, counts = pairs(table), dict[Key, int]()
    for each in lists:
        for fixed, peer in found[each.direction]:
            if each.has(peer):
                key = OWNER_OF[fixed], each.name
                counts[key] = counts.get(key, 0) + 1
    return counts


def expected_lines(
    table: Iterable[conntrack_list.Listed], lists: Iterable[Published]
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


def active(scrape: exporters.Scrape, lists: Iterable[Published]) -> dict[Key, int]:
    """Return the contacts of the last interval, by instance and list."""
    return _values(scrape, lists, 'contact_active')


def totals(scrape: exporters.Scrape, lists: Iterable[Published]) -> dict[Key, int]:
    """Return the sums of contacts, by instance and list."""
    return _values(scrape, lists, 'contact')


def _values(scrape: exporters.Scrape, lists: Iterable[Published], end: str) -> dict[Key, int]:
    found = {}
    for each in lists:
        for series in scrape.of(f'oie_{each.name}_{end}', direction=each.direction):
            found[series.labels['instance_uuid'], each.name] = int(series.value)
        assert len(scrape.of(f'oie_{each.name}_{end}')) == len(
            scrape.of(f'oie_{each.name}_{end}', direction=each.direction)
        )
    return found
