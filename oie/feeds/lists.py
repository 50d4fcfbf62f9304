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

"""Documents of a list into one set of addresses, or one sentence that says why not.

Nothing is repaired and nothing is cut off: a list that is not plausible as a
whole is refused as a whole, and the last good one stays.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import itertools

import numpy as np
import numpy.typing as npt

from oie import address_sets
from oie import exceptions
from oie.feeds import base
from oie.feeds import entries
from oie.feeds import text

# Why an entry is not there as it was written; those with host bits are, as networks.
REASONS = ('malformed', 'host_bits', 'duplicate', 'special_use')

# Bad entries that are always allowed: a short list would have no room for one.
FEW_BAD = 5
# Below this many entries a list may change as it likes.
SMALL_LIST = 50
LARGE_GROWTH = 10000
TIMES_GROWN = 5

# A list that covers more than half of what is in use is a default route in pieces.
_MOST_V4 = 2**31
_MOST_V6 = 2**124
_BATCH = 4096
_NO_ENTRIES = 'it has no entries; where that is right, set allow_empty'

Mask = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A list that is fit for use.

    :ivar entries: distinct entries, without those of special use
    :ivar rejected: how many were not taken as written, by each of REASONS
    """

    addresses: address_sets.AddressSet
    entries: int
    rejected: Mapping[str, int]


def build(
    feed: base.ThreatFeed, documents: Sequence[bytes], *, unwanted: address_sets.AddressSet
) -> Built:
    """Return the list that the documents make up together.

    :param documents: what came from all sources of the feed, in their order
    :param unwanted: addresses that are taken out, such as special_use.addresses()
    :raises FeedError: a document is not plausible, or what they say together
    """
    found = entries.Entries()
    for number, document in enumerate(documents, 1):
        try:
            found.update(_read(feed, document))
            _check_count(found, feed)
        except exceptions.FeedError as exc:
            which = f'document {number} of {len(documents)}: ' if len(documents) > 1 else ''
            raise exceptions.FeedError(f'{which}{exc}') from exc
    return _built(found, feed, unwanted)


def check_change(now: int, before: int | None) -> str:
    """Return why a list should wait for confirmation, nothing if it need not.

    :param before: entries of the list in use, None if there is none
    """
    if before is None:
        return ''
    change = f'{now} entries after {before}'
    if before >= SMALL_LIST and 2 * now < before:
        return f'{change}: less than half of the list is left'
    if now > TIMES_GROWN * before and now > before + LARGE_GROWTH:
        return f'{change}: the list is more than {TIMES_GROWN} times as long'
    return ''


def _read(feed: base.ThreatFeed, document: bytes) -> entries.Entries:
    """Return the entries of one document that is plausible by itself."""
    if text.first_byte(document) == b'<':
        raise exceptions.FeedError('it begins with <, so it is a web page or a program, no list')
    found = entries.Entries()
    texts = feed.parse(document)
    while batch := list(itertools.islice(texts, _BATCH)):
        found.extend(batch)
        _check_count(found, feed)
    _check_bad(found, feed)
    if not found.accepted and not feed.settings.allow_empty:
        raise exceptions.FeedError(_NO_ENTRIES)
    return found


def _check_count(found: entries.Entries, feed: base.ThreatFeed) -> None:
    most = feed.settings.max_entries
    if found.accepted > most:
        raise exceptions.FeedError(
            f'more than {most} entries, duplicates included; raise max_entries if that is right'
        )


def _check_bad(found: entries.Entries, feed: base.ThreatFeed) -> None:
    bad, total = found.malformed, found.malformed + found.accepted
    example = f'such as {found.example}'
    if bad and not found.accepted:
        raise exceptions.FeedError(f'none of its {bad} entries is an address, {example}')
    if bad > FEW_BAD and 100 * bad > feed.settings.max_bad_percent * total:
        raise exceptions.FeedError(
            f'{bad} of its {total} entries are no addresses, {example}; '
            f'max_bad_percent is {feed.settings.max_bad_percent:g}'
        )


def _built(
    found: entries.Entries, feed: base.ThreatFeed, unwanted: address_sets.AddressSet
) -> Built:
    v4, v6 = found.distinct()
    distinct = len(v4) + len(v6)
    v4 = v4.where(~_is_within(v4.first, v4.last, unwanted.v4))
    v6 = v6.where(~_is_within(v6.first, v6.last, entries.keys(unwanted.v6)))
    taken = len(v4) + len(v6)
    if not taken and not feed.settings.allow_empty:
        removed = f'all of its {distinct} entries are of special use or our own'
        raise exceptions.FeedError(removed if distinct else _NO_ENTRIES)
    _check_width(v4, v6, feed)
    addresses = entries.address_set(v4, v6).without(unwanted)
    _check_share(addresses)
    counts = (found.malformed, found.host_bits, found.accepted - distinct, distinct - taken)
    rejected = dict(zip(REASONS, counts, strict=True))
    return Built(addresses=addresses, entries=taken, rejected=rejected)


def _is_within(
    first: address_sets.U32 | entries.Keys,
    last: address_sets.U32 | entries.Keys,
    edges: address_sets.U32 | entries.Keys,
) -> Mask:
    """Tell of each interval whether a set with these edges holds all of it."""
    places = np.searchsorted(edges, first, 'right')
    # After an odd number of edges one is in the set, until the next edge.
    found: Mask = (places % 2 == 1) & (places == np.searchsorted(edges, last, 'right'))
    return found


def _check_width(v4: entries.V4, v6: entries.V6, feed: base.ThreatFeed) -> None:
    """Refuse a default route, and what else is wider than the feed allows."""
    widest_ipv4, widest_ipv6 = feed.settings.widest_ipv4, feed.settings.widest_ipv6
    for interval in _wide_v4(v4, widest_ipv4):
        raise _too_wide(interval, 'widest_ipv4', widest_ipv4)
    for interval in _wide_v6(v6, widest_ipv6):
        raise _too_wide(interval, 'widest_ipv6', widest_ipv6)


def _too_wide(interval: str, option: str, widest: int) -> exceptions.FeedError:
    return exceptions.FeedError(
        f'{interval} is wider than /{widest}; if that is right, set {option}'
    )


def _wide_v4(found: entries.V4, widest: int) -> Iterator[str]:
    """Yield the intervals that are larger than a network with this prefix, as text."""
    largest = np.uint32(2 ** (32 - widest) - 1)
    for place in np.flatnonzero(found.last - found.first > largest):
        yield entries.shown_v4(int(found.first[place]), int(found.last[place]))


def _wide_v6(found: entries.V6, widest: int) -> Iterator[str]:
    first, last = entries.wide(found.first), entries.wide(found.last)
    borrowed = (last.low < first.low).astype(np.uint64)
    high, low = last.high - first.high - borrowed, last.low - first.low
    largest = address_sets.wide([2 ** (128 - widest) - 1])
    is_wide = (high > largest.high) | (high == largest.high) & (low > largest.low)
    for place in np.flatnonzero(is_wide):
        begin, end = (int(each.high[place]) << 64 | int(each.low[place]) for each in (first, last))
        yield entries.shown_v6(begin, end)


def _check_share(addresses: address_sets.AddressSet) -> None:
    """Refuse what lists most of the Internet, in whatever pieces."""
    v4 = addresses.v4.astype(np.float64)
    v6 = addresses.v6.high.astype(np.float64) * 2.0**64 + addresses.v6.low.astype(np.float64)
    if _size(v4, 2.0**32) > _MOST_V4 or _size(v6, 2.0**128) > _MOST_V6:
        raise exceptions.FeedError(
            'it covers more than half of the Internet: a default route in pieces'
        )


def _size(edges: npt.NDArray[np.float64], end: float) -> float:
    """Return about how many addresses a set with these edges has."""
    if len(edges) % 2:
        edges = np.append(edges, end)
    return float(np.sum(edges[1::2] - edges[::2]))
