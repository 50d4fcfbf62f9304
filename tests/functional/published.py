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


"""Lists as their publishers have them: the same random entries in the form of every driver.

All addresses are synthetic. What is on a list is worked out by ``ipaddress``,
with nothing of ours.

    ours = published.Published('ours', published.KINDS['plain_list'], 'out')
    options = ours.publish(server, directory)
    assert ours.has(published.LISTED_IP)
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

from tests.unit.feeds import feed_server

Document = bytes | Mapping[str, bytes]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Stands on every list.
LISTED_IP = '5.6.200.12'
#: Of the site, and of special use: lists that name them are not believed in that.
OWN_NETWORK = '45.0.8.0/24'
UNWANTED = (OWN_NETWORK, '192.0.2.0/24', '2001:db8:dead::/48')
DIRECTIONS = ('out', 'in', 'any')

_SPACES = tuple(map(ipaddress.ip_network, ('5.6.0.0/16', '45.0.0.0/20', '2a00:1::/32')))
_NETWORK_LENGTHS = {4: range(20, 32), 6: range(36, 128)}


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
    def networks(self) -> tuple[Network, ...]:
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


def networks_of(entry: str) -> Sequence[Network]:
    """Return what an entry means."""
    first, dash, last = entry.partition('-')
    if not dash:
        return (ipaddress.ip_network(entry, strict=False),)
    ends = ipaddress.ip_address(first), ipaddress.ip_address(last)
    return tuple(ipaddress.summarize_address_range(*ends))


def _is_unwanted(network: Network) -> bool:
    others = (ipaddress.ip_network(each) for each in UNWANTED)
    return any(o.version == network.version and network.subnet_of(o) for o in others)


def _entries(chosen: random.Random) -> Iterator[str]:
    """Give addresses, networks of many lengths, and ranges."""
    for space in (*_SPACES, *_SPACES, *_SPACES):
        yield str(address_in(space, chosen))
        length = chosen.choice(_NETWORK_LENGTHS[space.version])
        # With host bits, which do not count.
        network = ipaddress.ip_network(f'{address_in(space, chosen)}/{length}', strict=False)
        yield f'{network[chosen.randrange(2)]}/{length}'
    first = address_in(_SPACES[1], chosen)
    yield f'{first}-{first + chosen.randrange(1, 700)}'


def address_in(space: Network, chosen: random.Random) -> Address:
    """Return one of the addresses of a network."""
    return space[chosen.randrange(space.num_addresses)]


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
