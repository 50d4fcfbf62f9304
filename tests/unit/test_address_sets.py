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

"""Sets of addresses, compared with what the standard ``ipaddress`` module says of each address."""

import functools
import ipaddress
import random

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from oie import address_sets
from tests.unit.analysis import columns

made = columns.address_set

# numpy tells by a warning that a number ran over.
pytestmark = pytest.mark.filterwarnings('error')

LAST = {4: 2**32 - 1, 6: 2**128 - 1}
ADDRESS = {4: ipaddress.IPv4Address, 6: ipaddress.IPv6Address}
NETWORK = {4: ipaddress.IPv4Network, 6: ipaddress.IPv6Network}
ONES = 2**64 - 1
HIGHS = (0, 1, 0x20010DB800000000, 0x20010DB800000001, ONES - 1, ONES)


# --- sets out of text, and what ipaddress says of them ----------------------


@functools.cache
def networks(text):
    """Return ``address``, ``network/prefix`` or ``first-last`` as networks."""
    first, _, last = text.partition('-')
    if not last:
        return (ipaddress.ip_network(first),)
    ends = (ipaddress.ip_address(first), ipaddress.ip_address(last))
    return tuple(ipaddress.summarize_address_range(*ends))


def find(index, *addresses):
    """Return the bits of each address, given as text or as ipaddress has it."""
    wanted = [ipaddress.ip_address(a) if isinstance(a, str) else a for a in addresses]
    v4 = np.array([int(each) for each in wanted if each.version == 4], np.uint32)
    v6 = address_sets.wide([int(each) for each in wanted if each.version == 6])
    bits = {
        4: iter(index.find_v4(v4).tolist()),
        6: iter(index.find_v6(v6.high, v6.low).tolist()),
    }
    return [next(bits[each.version]) for each in wanted]


def holds(addresses, *wanted):
    return [bool(bits) for bits in find(address_sets.Index((addresses,)), *wanted)]


def oracle(texts):
    """Return what tells by ipaddress whether an address is in one of the entries."""
    ranges, held = [], []
    for text in texts:
        if '-' in text:
            ranges.append([ipaddress.ip_address(end) for end in text.split('-')])
        else:
            held.append(ipaddress.ip_network(text))
    return lambda address: (
        any(address in network for network in held)
        or any(a <= address <= b for a, b in ranges if a.version == address.version)
    )


def expected_edges(texts, version):
    """Return first addresses and those after the last one of what ipaddress collapses."""
    found = [n for text in texts for n in networks(text) if n.version == version]
    edges = []
    for network in ipaddress.collapse_addresses(found):
        if edges and edges[-1] == int(network[0]):
            edges.pop()
        else:
            edges.append(int(network[0]))
        edges.append(int(network[-1]) + 1)
    return [edge for edge in edges if edge <= LAST[version]]


def edges_of(addresses):
    v6 = zip(addresses.v6.high.tolist(), addresses.v6.low.tolist(), strict=True)
    return addresses.v4.tolist(), [high << 64 | low for high, low in v6]


def around(texts):
    """Return the addresses at which something may change, and those beside them."""
    places = {version: {0, LAST[version]} for version in (4, 6)}
    for found in map(networks, texts):
        for end in (int(found[0][0]), int(found[-1][-1])):
            places[found[0].version] |= {end - 1, end, end + 1}
    return [
        ADDRESS[version](number)
        for version, numbers in places.items()
        for number in sorted(numbers)
        if 0 <= number <= LAST[version]
    ]


# --- addresses that often lie at, beside and inside of each other -----------

near = st.integers(-3, 3)
v4_numbers = st.one_of(
    st.builds(
        lambda base, step: min(max(base + step, 0), LAST[4]),
        st.sampled_from([0, LAST[4], 2**31, 0x0A000000, 0x0A000100]),
        near,
    ),
    st.integers(0, LAST[4]),
)
v6_numbers = st.one_of(
    st.builds(
        lambda high, low, step: min(max((high << 64 | low) + step, 0), LAST[6]),
        st.sampled_from(HIGHS),
        st.sampled_from([0, 2**32, 2**63, ONES]),
        near,
    ),
    st.integers(0, LAST[6]),
)
NUMBERS = {4: v4_numbers, 6: v6_numbers}
addresses_of = {
    version: st.builds(ADDRESS[version], numbers) for version, numbers in NUMBERS.items()
}


def entries_of(version):
    bits = {4: 32, 6: 128}[version]
    prefixes = st.one_of(st.integers(bits - 8, bits), st.integers(0, bits))
    return st.one_of(
        st.builds(
            lambda number, prefix: str(NETWORK[version]((number, prefix), strict=False)),
            NUMBERS[version],
            prefixes,
        ),
        st.builds(
            lambda a, b: f'{min(a, b)}-{max(a, b)}', addresses_of[version], addresses_of[version]
        ),
        st.builds(str, addresses_of[version]),
    )


entries = st.lists(st.one_of(entries_of(4), entries_of(6)), max_size=9)
probes = st.lists(st.one_of(*addresses_of.values()), max_size=12)


# --- one set ----------------------------------------------------------------


@hypothesis.given(entries, probes)
def test_it_holds_what_ipaddress_finds_in_its_entries(texts, more):
    wanted, is_in = [*around(texts), *more], oracle(texts)
    assert holds(made(*texts), *wanted) == [is_in(each) for each in wanted]


@hypothesis.given(entries)
def test_edges_are_those_of_the_merged_entries(texts):
    """One form for one set: sorted, without an edge at which nothing changes."""
    assert edges_of(made(*texts)) == (expected_edges(texts, 4), expected_edges(texts, 6))


@hypothesis.given(entries, st.randoms(use_true_random=False))
def test_order_and_repetition_of_entries_do_not_matter(texts, chance):
    shuffled = chance.sample([*texts, *texts[:3]], len(texts) + len(texts[:3]))
    assert edges_of(made(*shuffled)) == edges_of(made(*texts))


@pytest.mark.parametrize(
    ('texts', 'v4'),
    [
        (['10.0.0.0/24', '10.0.1.0/24'], ['10.0.0.0', '10.0.2.0']),
        (['10.0.0.0/24', '10.0.0.128/25'], ['10.0.0.0', '10.0.1.0']),
        (['10.0.0.0/16', '10.0.7.0/24', '10.0.7.7'], ['10.0.0.0', '10.1.0.0']),
        (['10.0.0.5-10.0.0.9', '10.0.0.7-10.0.0.20'], ['10.0.0.5', '10.0.0.21']),
        (['10.0.0.5', '10.0.0.7'], ['10.0.0.5', '10.0.0.6', '10.0.0.7', '10.0.0.8']),
        (['0.0.0.0'], ['0.0.0.0', '0.0.0.1']),
        (['255.255.255.255'], ['255.255.255.255']),
        (['255.255.255.254', '255.255.255.255', '255.255.255.255'], ['255.255.255.254']),
        (['0.0.0.0/0'], ['0.0.0.0']),
        (['0.0.0.0/0', '10.0.0.0/8', '255.255.255.255'], ['0.0.0.0']),
    ],
    ids=' '.join,
)
def test_entries_that_touch_are_one_interval(texts, v4):
    assert made(*texts).v4.tolist() == [int(ipaddress.IPv4Address(edge)) for edge in v4]


@pytest.mark.parametrize(
    ('texts', 'v6'),
    [
        (['::'], ['::', '::1']),
        (['ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'], [str(ADDRESS[6](LAST[6]))]),
        (['::/0'], ['::']),
        # The carry goes from one half into the other.
        (['2001:db8::/64'], ['2001:db8::', '2001:db8:0:1::']),
        (['2001:db8::/64', '2001:db8:0:1::/64'], ['2001:db8::', '2001:db8:0:2::']),
        (['2001:db8::/32', '2001:db8:ffff::/48'], ['2001:db8::', '2001:db9::']),
        (['2001:db8::5-2001:db8::9', '2001:db8::a'], ['2001:db8::5', '2001:db8::b']),
        (['::ffff:ffff:ffff:ffff', '0:0:0:1::'], ['::ffff:ffff:ffff:ffff', '0:0:0:1::1']),
    ],
    ids=lambda value: ' '.join(value),
)
def test_ipv6_entries_that_touch_are_one_interval(texts, v6):
    assert edges_of(made(*texts))[1] == [int(ipaddress.IPv6Address(edge)) for edge in v6]


def test_the_first_and_the_last_address_of_each_family_can_be_held_and_left_out():
    ends = [str(ADDRESS[version](number)) for version in (4, 6) for number in (0, LAST[version])]
    inner = ['0.0.0.1', '255.255.255.254', '::1', str(ADDRESS[6](LAST[6] - 1))]
    assert holds(made(*ends), *ends, *inner) == [True] * 4 + [False] * 4
    assert holds(made(*inner), *ends, *inner) == [False] * 4 + [True] * 4


def test_a_wide_network_holds_all_of_itself():
    """S10; the vector of the contract: a /14 is not only its first /16."""
    found = made('2.56.0.0/14', '2a00::/29')
    within = ('2.56.0.9', '2.57.0.9', '2.59.255.255', '2a00:7:ffff::1')
    assert holds(found, *within) == [True] * 4
    assert holds(found, '2.55.255.255', '2.60.0.0', '2a00:8::', '29ff:ffff::') == [False] * 4


def test_families_are_apart_whatever_their_numbers():
    v4, v6 = made('1.2.3.4'), made('::1.2.3.4')
    assert holds(v4, '1.2.3.4', '::1.2.3.4') == [True, False]
    assert holds(v6, '1.2.3.4', '::1.2.3.4') == [False, True]


def test_an_empty_set_holds_nothing_and_takes_nothing():
    assert address_sets.EMPTY.is_empty
    assert made().is_empty
    assert address_sets.EMPTY.nbytes == 0
    assert holds(made(), '0.0.0.0', '255.255.255.255', '::') == [False] * 3


@pytest.mark.parametrize('text', ['0.0.0.0', '::', '255.255.255.255', '::/0'])
def test_a_set_of_one_entry_is_not_empty(text):
    assert not made(text).is_empty


def test_half_a_million_scattered_addresses_take_4_mb():
    numbers = np.arange(500_000, dtype=np.uint32) * np.uint32(8000)
    nothing = address_sets.wide(())
    found = address_sets.AddressSet.of((numbers, numbers), (nothing, nothing))
    assert found.nbytes == 500_000 * 2 * 4
    index = address_sets.Index((found,))
    assert index.find_v4(numbers).tolist() == [1] * 500_000
    assert not index.find_v4(numbers + np.uint32(1)).any()


def test_what_a_set_is_made_of_stays_as_it_was():
    v4 = (np.array([9, 1], np.uint32), np.array([LAST[4], 3], np.uint32))
    v6 = (address_sets.wide([9, 1]), address_sets.wide([LAST[6], 3]))
    address_sets.AddressSet.of(v4, v6)
    assert [each.tolist() for each in v4] == [[9, 1], [LAST[4], 3]]
    assert [each.low.tolist() for each in v6] == [[9, 1], [ONES, 3]]


# --- IPv6: numbers in two halves --------------------------------------------


def test_many_edges_with_one_high_half_are_told_apart():
    """Whole networks of one provider: the search goes on inside of equal high halves."""
    chance = random.Random(4)
    lows = sorted(chance.sample(range(4000), 500))
    texts = [str(ADDRESS[6](high << 64 | low)) for high in HIGHS for low in lows]
    numbers = [high << 64 | low for high in HIGHS for low in range(4001)]
    wanted = {high << 64 | low for high in HIGHS for low in lows}
    index = address_sets.Index((made(*texts),))
    halves = address_sets.wide(numbers)
    found = index.find_v6(halves.high, halves.low)
    assert found.tolist() == [int(number in wanted) for number in numbers]


def test_a_network_goes_on_where_no_edge_has_that_high_half():
    found = made('2001:db8::/32')
    assert holds(found, '2001:db8::', '2001:db8:7::', '2001:db8:ffff:ffff::1') == [True] * 3
    assert holds(found, '::', '2001:db7:ffff:ffff:ffff::', '2001:db9::') == [False] * 3


@hypothesis.given(
    st.lists(st.tuples(st.sampled_from(HIGHS), st.integers(0, 40)), max_size=30),
    st.lists(st.tuples(st.sampled_from(HIGHS), st.integers(0, 41)), min_size=1, max_size=30),
)
def test_addresses_in_few_high_halves_are_found_as_in_a_python_set(chosen, wanted):
    held = {high << 64 | low for high, low in chosen}
    halves = address_sets.wide([high << 64 | low for high, low in wanted])
    texts = [str(ADDRESS[6](number)) for number in held]
    found = address_sets.Index((made(*texts),)).find_v6(halves.high, halves.low)
    assert found.tolist() == [int((high << 64 | low) in held) for high, low in wanted]


def test_numbers_in_two_halves_are_joined_chosen_and_counted():
    halves = address_sets.joined((address_sets.wide([1, LAST[6]]), address_sets.wide([2**64])))
    assert len(halves) == 3
    chosen = halves.where(np.array([2, 1]))
    assert (chosen.high.tolist(), chosen.low.tolist()) == ([1, ONES], [0, ONES])
    assert len(address_sets.joined(())) == 0


# --- several sets -----------------------------------------------------------


@hypothesis.given(st.lists(entries, max_size=4), probes)
def test_the_bits_say_in_which_sets_an_address_is(several, more):
    wanted = [*around([text for texts in several for text in texts]), *more]
    index = address_sets.Index([made(*texts) for texts in several])
    oracles = [oracle(texts) for texts in several]
    assert find(index, *wanted) == [
        sum(is_in(each) << bit for bit, is_in in enumerate(oracles)) for each in wanted
    ]


@pytest.mark.parametrize('place', [0, 1, 2])
def test_an_empty_set_among_others_keeps_its_bit(place):
    sets = [made('10.0.0.0/8', '2001:db8::/32')] * 3
    sets[place] = address_sets.EMPTY
    assert find(address_sets.Index(sets), '10.1.1.1', '2001:db8::1') == [0b111 & ~(1 << place)] * 2


def test_an_index_of_nothing_finds_nothing():
    for sets in ((), (address_sets.EMPTY,)):
        assert find(address_sets.Index(sets), '0.0.0.0', '10.0.0.1', '::', '::1') == [0] * 4


def test_nothing_to_look_up_is_no_trouble():
    index = address_sets.Index((made('10.0.0.0/8', '2001:db8::/32'),))
    nothing = np.zeros(0, np.uint64)
    assert len(index.find_v4(np.zeros(0, np.uint32))) == 0
    assert len(index.find_v6(nothing, nothing)) == 0


def test_64_sets_have_a_bit_each():
    texts = [[f'10.0.0.{n}', '10.1.0.0/16', f'2001:db8::{n:x}', '2a00::/16'] for n in range(64)]
    index = address_sets.Index([made(*each) for each in texts])
    for n in range(64):
        assert find(index, f'10.0.0.{n}', f'2001:db8::{n:x}') == [1 << n] * 2
    assert find(index, '10.1.2.3', '2a00:7::') == [2**64 - 1] * 2
    assert find(index, '10.0.0.64', '2a01::') == [0, 0]


def test_a_65th_set_is_refused():
    with pytest.raises(ValueError, match='65 sets; an index has room for 64'):
        address_sets.Index([address_sets.EMPTY] * 65)


# --- less another set -------------------------------------------------------


@hypothesis.given(entries, entries, probes)
def test_without_another_set_all_but_its_addresses_stay(texts, others, more):
    wanted = [*around([*texts, *others]), *more]
    left = made(*texts).without(made(*others))
    is_in, is_taken = oracle(texts), oracle(others)
    assert holds(left, *wanted) == [is_in(each) and not is_taken(each) for each in wanted]
    for edges in edges_of(left):
        assert edges == sorted(set(edges))


@hypothesis.given(entries)
def test_without_itself_nothing_is_left(texts):
    found = made(*texts)
    assert found.without(found).is_empty
    assert found.without(made('0.0.0.0/0', '::/0')).is_empty


@hypothesis.given(entries)
def test_without_nothing_it_is_the_same(texts):
    found = made(*texts)
    assert edges_of(found.without(address_sets.EMPTY)) == edges_of(found)
    assert address_sets.EMPTY.without(found).is_empty


def test_a_hole_and_both_ends_can_be_taken_out():
    everything = made('0.0.0.0/0', '::/0')
    left = everything.without(made('0.0.0.0', '10.0.0.0/8', '255.255.255.255', '2001:db8::/64'))
    assert edges_of(left) == (
        [1, 0x0A000000, 0x0B000000, LAST[4]],
        [0, 0x20010DB8 << 96, 0x20010DB800000001 << 64],
    )
