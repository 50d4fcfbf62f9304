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

"""What ``conntrack -L -o extended,id,timestamp`` says of an entry, as a dictionary.

An entry that was decoded can be put in the same words, so that the two compare.
"""

from collections.abc import Iterable
from collections.abc import Iterator
import ipaddress
import re

from oie.sources import flow_columns
from tests import ctnetlink

Listed = dict[str, str]

_PAIR = re.compile(r'([a-z-]+)=(\S+)')
# What changes by itself, and what nobody decodes.
_BESIDE = frozenset({'delta-time', 'use', 'helper'})
_WITH_PORTS = frozenset({ctnetlink.TCP, ctnetlink.UDP, ctnetlink.SCTP})
_FAMILIES = {4: 'ipv4', 16: 'ipv6'}


def parse(line: str) -> Listed:
    """Return one line by names.

    The names of the second tuple begin with ``reply_``; what stands in brackets
    is ``flags``.
    """
    words = line.split()
    found: Listed = {'family': words[0], 'protocol': words[3], 'flags': ''}
    for word in words[4:]:
        pair = _PAIR.fullmatch(word)
        if word.startswith('['):
            found['flags'] += word
        elif pair:
            name, value = pair.groups()
            # An echo has an id too, but before the number of uses.
            name = 'entry_id' if name == 'id' and 'use' in found else name
            found[f'reply_{name}' if name in found else name] = value
    return {name: value for name, value in found.items() if name not in _BESIDE}


def in_order(unordered: Iterable[Listed]) -> list[Listed]:
    """Return entries so that two lists of the same ones are equal; ids are not unique."""
    return sorted(unordered, key=lambda entry: sorted(entry.items()))


def told(records: Iterable[ctnetlink.Record]) -> list[Listed]:
    """Return entries that were decoded in the words of ``conntrack -L``."""
    return in_order(words_for(record) for record in records)


def words_for(record: ctnetlink.Record) -> Listed:
    """Return what ``conntrack -L`` says of an entry that was decoded."""
    status = record['status']
    assert isinstance(status, int)
    flags = '' if status & flow_columns.SEEN_REPLY else '[UNREPLIED]'
    flags += '[ASSURED]' if status & flow_columns.ASSURED else ''
    return {
        'family': _FAMILIES[len(record['orig_src'])],  # type: ignore[arg-type]
        'protocol': str(record['orig_protocol']),
        'flags': flags,
        **dict(_of_side(record, 'orig', '')),
        **dict(_of_side(record, 'reply', 'reply_')),
        **dict(_zone(record)),
        'mark': str(record['mark']),
        'entry_id': str(record['id']),
    }


def _of_side(record: ctnetlink.Record, side: str, prefix: str) -> Iterator[tuple[str, str]]:
    protocol = record['orig_protocol']
    for name in ('src', 'dst'):
        address = record[f'{side}_{name}']
        assert isinstance(address, bytes)
        yield f'{prefix}{name}', str(ipaddress.ip_address(address))
    if protocol in _WITH_PORTS:
        yield f'{prefix}sport', str(record[f'{side}_src_port'])
        yield f'{prefix}dport', str(record[f'{side}_dst_port'])
    if protocol == ctnetlink.GRE:
        yield f'{prefix}srckey', f'{record[f"{side}_src_port"]:#x}'
        yield f'{prefix}dstkey', f'{record[f"{side}_dst_port"]:#x}'
    if protocol in (ctnetlink.ICMP, ctnetlink.ICMPV6):
        for name in ('type', 'code', 'id'):
            yield f'{prefix}{name}', str(record[f'{side}_icmp_{name}'])
    if record[f'{side}_packets'] is not None:
        yield f'{prefix}packets', str(record[f'{side}_packets'])
        yield f'{prefix}bytes', str(record[f'{side}_bytes'])


def _zone(record: ctnetlink.Record) -> Iterator[tuple[str, str]]:
    sides = {'zone-orig': record['orig_zone'], 'zone-reply': record['reply_zone']}
    limited = {name: str(zone) for name, zone in sides.items() if zone}
    if limited:
        yield from limited.items()
    elif record['zone']:
        yield 'zone', str(record['zone'])
