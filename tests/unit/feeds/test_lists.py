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

"""Documents become a list when they are plausible, and otherwise a sentence says why not."""

import ipaddress

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from oie import address_sets
from oie import exceptions
from oie.feeds import lists
from oie.feeds import special_use
from tests.unit.feeds import drivers

SPECIAL = special_use.addresses(['45.9.0.0/16'])
FEED = drivers.feed('plain_list')
NO_REASON = dict.fromkeys(lists.REASONS, 0)


def lines(*entries):
    return '\n'.join(entries).encode()


def many(count):
    return [str(ipaddress.IPv4Address('5.0.0.0') + number) for number in range(count)]


def build(*documents, **options):
    return drivers.build(drivers.feed('plain_list', **options), *documents, unwanted=SPECIAL)


def refusal(*documents, **options):
    with pytest.raises(exceptions.FeedError) as caught:
        build(*documents, **options)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def edges(built):
    """Return where the list begins and ends, IPv4 and IPv6, as text."""
    wide = built.addresses.v6
    return [str(ipaddress.IPv4Address(int(edge))) for edge in built.addresses.v4] + [
        str(ipaddress.IPv6Address(drivers.number(wide, place))) for place in range(len(wide))
    ]


# --- good lists -------------------------------------------------------------


def test_documents_make_up_one_list():
    built = build(lines('5.6.7.8', '5.6.8.0/24'), lines('2a00:1::/32', '5.6.7.8'))
    assert edges(built) == [
        '5.6.7.8',
        '5.6.7.9',
        '5.6.8.0',
        '5.6.9.0',
        '2a00:1::',
        '2a00:2::',
    ]
    assert built.entries == 3
    assert built.rejected == NO_REASON | {'duplicate': 1}


def test_entries_are_those_written_not_what_they_merge_into():
    built = build(lines('5.6.7.0/25', '5.6.7.128/25', '5.6.7.9'))
    assert built.entries == 3
    assert edges(built) == ['5.6.7.0', '5.6.8.0']


def test_host_bits_are_counted_and_the_network_is_used():
    built = build(lines('5.6.7.9/24', '5.6.7.0/24'))
    assert built.entries == 1
    assert built.rejected == NO_REASON | {'host_bits': 1, 'duplicate': 1}
    assert edges(built) == ['5.6.7.0', '5.6.8.0']


def test_an_empty_list_is_a_list_where_it_is_allowed():
    for documents in ((), (b'',), (b'# none today\n', b'')):
        built = build(*documents, allow_empty=True)
        assert built.addresses.is_empty
        assert (built.entries, built.rejected) == (0, NO_REASON)


# --- special use and own ranges ---------------------------------------------


def test_special_use_and_own_addresses_are_taken_out_and_counted():
    built = build(
        lines('5.6.7.8', '10.0.0.0/8', '127.0.0.1', '203.0.113.9', '45.9.1.1', 'fe80::1', '::')
    )
    assert edges(built) == ['5.6.7.8', '5.6.7.9']
    assert built.entries == 1
    assert built.rejected == NO_REASON | {'special_use': 6}


def test_an_entry_that_is_partly_of_special_use_is_cut():
    built = build(lines('9.255.255.254-10.0.0.9', '45.8.0.0/15', '2a00:1::1'))
    assert built.entries == 3
    assert built.rejected == NO_REASON
    assert edges(built) == [
        '9.255.255.254',
        '10.0.0.0',
        '45.8.0.0',
        '45.9.0.0',
        '2a00:1::1',
        '2a00:1::2',
    ]


def test_an_entry_around_special_use_keeps_both_ends():
    built = build(lines('192.0.1.255-192.0.3.0', '2001:db7:ffff::-2001:db9::'))
    assert edges(built) == [
        '192.0.1.255',
        '192.0.2.0',
        '192.0.3.0',
        '192.0.3.1',
        '2001:db7:ffff::',
        '2001:db8::',
        '2001:db9::',
        '2001:db9::1',
    ]


def test_an_entry_from_one_special_range_to_the_next_is_not_within_one():
    built = build(lines('198.51.100.9-203.0.113.9', '5.6.7.8'), widest_ipv4=4)
    assert built.rejected == NO_REASON
    assert built.entries == 2


def test_a_list_of_nothing_but_special_use_is_empty():
    document = lines('10.0.0.1', '192.168.0.0/16')
    assert refusal(document) == 'all of its 2 entries are of special use or our own'
    assert build(document, allow_empty=True).rejected == NO_REASON | {'special_use': 2}


# --- what is no list --------------------------------------------------------


@pytest.mark.parametrize(
    'document',
    [
        b'<!DOCTYPE html><html>5.6.7.8</html>',
        b'\xef\xbb\xbf\r\n \t<html>\n5.6.7.8\n',
        b'<?php include "list.php"; ?>\n5.6.7.8\n',
        b'<?xml version="1.0"?><feed/>',
    ],
)
def test_markup_and_programs_are_refused_even_where_empty_lists_are_allowed(document):
    expected = 'it begins with <, so it is a web page or a program, no list'
    assert refusal(document) == expected
    assert refusal(document, allow_empty=True) == expected


@pytest.mark.parametrize('document', [b'Service unavailable', b'{"error": "too many requests"}\n'])
def test_a_message_is_no_list_even_where_empty_lists_are_allowed(document):
    shown = document.decode().strip()
    expected = f'none of its 1 entries is an address, such as {shown!r}'
    assert refusal(document) == expected
    assert refusal(document, allow_empty=True, max_bad_percent=100) == expected


@pytest.mark.parametrize(
    'documents', [(), (b'',), (b'\n# nothing\n; here\n',), (b'5.6.7.8', b'#')]
)
def test_a_list_or_a_document_without_entries_is_refused(documents):
    assert refusal(*documents).endswith('it has no entries; where that is right, set allow_empty')


def test_every_document_must_be_plausible_by_itself():
    good = lines(*many(1000))
    expected = 'document 2 of 2: it begins with <, so it is a web page or a program, no list'
    assert refusal(good, b'<html>') == expected
    assert refusal(b'x', good).startswith('document 1 of 2: none of its 1 entries')
    assert refusal(good, lines(*['x'] * 6, '5.6.7.8')).startswith('document 2 of 2: 6 of its 7 ')


@pytest.mark.parametrize(
    ('bad', 'good', 'is_refused'),
    [
        (5, 1, False),  # up to five are always allowed
        (6, 294, False),  # 6 of 300 = 2 %
        (6, 293, True),  # 6 of 299 = 2.007 %
        (20, 980, False),  # 20 of 1000 = 2 %
        (21, 980, True),  # 21 of 1001 = 2.098 %
    ],
)
def test_two_of_a_hundred_entries_may_be_bad(bad, good, is_refused):
    document = lines(*many(good), *['not.an.address'] * bad)
    if is_refused:
        assert refusal(document) == (
            f"{bad} of its {bad + good} entries are no addresses, such as 'not.an.address'; "
            'max_bad_percent is 2'
        )
    else:
        assert build(document).rejected == NO_REASON | {'malformed': bad}


def test_the_share_of_bad_entries_is_an_option():
    document = lines(*many(10), *['x'] * 10)
    assert build(document, max_bad_percent=50).entries == 10
    assert build(document, max_bad_percent=100).entries == 10


# --- too much ---------------------------------------------------------------


@pytest.mark.parametrize(
    ('entry', 'option', 'shown'),
    [
        ('0.0.0.0/0', 'widest_ipv4', '0.0.0.0/0'),
        ('5.0.0.0/7', 'widest_ipv4', '4.0.0.0/7'),
        ('0.0.0.0-255.255.255.255', 'widest_ipv4', '0.0.0.0/0'),
        ('5.0.0.0-6.0.0.0', 'widest_ipv4', '5.0.0.0-6.0.0.0'),
        ('::ffff:0:0/96', 'widest_ipv4', '0.0.0.0/0'),
        ('::/0', 'widest_ipv6', '::/0'),
        ('2a00::/18', 'widest_ipv6', '2a00::/18'),
        ('2a00::-2a00:2000::', 'widest_ipv6', '2a00::-2a00:2000::'),
        ('2a00:0:0:1::-2a00:2000:0:1::', 'widest_ipv6', '2a00:0:0:1::-2a00:2000:0:1::'),
    ],
)
def test_a_default_route_and_what_is_too_wide_are_refused(entry, option, shown):
    widest = 8 if option == 'widest_ipv4' else 19
    expected = f'{shown} is wider than /{widest}; if that is right, set {option}'
    assert refusal(lines(*many(100), entry)) == expected


@pytest.mark.parametrize(
    'entry',
    [
        '5.0.0.0/8',
        '5.0.0.1-6.0.0.0',
        '2a00::/19',
        '2a00:0:0:1::-2a00:2000::ffff:ffff',
        '2a00::ffff-2a00:2000::1',
    ],
)
def test_what_is_as_wide_as_allowed_is_taken(entry):
    assert build(lines(entry)).entries == 1


def test_a_wide_network_that_is_all_of_special_use_does_no_harm():
    """As in lists that hold all bogons."""
    built = build(lines('5.6.7.8', '224.0.0.0/3', 'fc00::/7'))
    assert built.rejected == NO_REASON | {'special_use': 2}


def test_the_widest_network_is_an_option():
    assert build(lines('4.0.0.0/7'), widest_ipv4=7).entries == 1
    assert 'widest_ipv4' in refusal(lines('5.6.7.8', '5.6.0.0/16'), widest_ipv4=17)
    assert 'widest_ipv6' in refusal(lines('2a00:1::', '2a00:1::/127'), widest_ipv6=128)


@pytest.mark.parametrize(
    'pieces',
    [
        [f'{number}.0.0.0/8' for number in range(256)],
        ['0.0.0.0/1', '128.0.0.0/1'],
        [f'{number:x}00::/8' for number in range(0x20, 0x40)],
    ],
)
def test_a_default_route_in_pieces_is_refused(pieces):
    expected = 'it covers more than half of the Internet: a default route in pieces'
    assert refusal(lines(*pieces), widest_ipv4=1, widest_ipv6=1) == expected


def test_a_list_to_the_last_address_is_measured():
    feed = drivers.feed('plain_list', widest_ipv4=1, widest_ipv6=1)
    upper = ['128.0.0.0/1', 'f000::/4']
    with pytest.raises(exceptions.FeedError, match='more than half of the Internet'):
        drivers.build(feed, lines(*upper, '5.6.7.8'))
    assert drivers.build(feed, lines('f800::/5', '192.0.0.0/2')).entries == 2


def test_too_many_entries_are_refused():
    assert build(lines(*many(10)), max_entries=10).entries == 10
    expected = 'more than 10 entries, duplicates included; raise max_entries if that is right'
    assert refusal(lines(*many(11)), max_entries=10) == expected
    assert refusal(lines(*many(6)), lines(*many(5)), max_entries=10).endswith(expected)


def test_an_endless_list_is_given_up_early():
    taken = []

    class Endless(type(FEED)):
        def parse(self, document):
            while True:
                taken.append('5.6.7.8')
                yield '5.6.7.8'

    with pytest.raises(exceptions.FeedError, match='more than 1000 entries'):
        drivers.build(Endless(drivers.feed('plain_list', max_entries=1000).settings), b'')
    assert len(taken) < 10_000


# --- against the standard library -------------------------------------------


NEARBY = st.integers(0, 2**12 - 1).map(lambda low: ipaddress.IPv4Address(0xC0000000 | low))
NEARBY_V6 = st.integers(0, 2**12 - 1).map(
    lambda low: ipaddress.IPv6Address(0x20010DB7FFFF << 80 | (low >> 6) << 64 | low & 63)
)


@st.composite
def networks(draw):
    address = draw(NEARBY | NEARBY_V6)
    length = draw(st.integers(address.max_prefixlen - 10, address.max_prefixlen))
    return ipaddress.ip_network(f'{address}/{length}', strict=False)


@hypothesis.given(st.lists(networks(), min_size=1), st.lists(NEARBY | NEARBY_V6, max_size=20))
def test_an_address_is_listed_as_ipaddress_says(wanted, probes):
    own = ['192.0.5.0/24', '192.0.6.9', '2001:db7:ffff:0:5::/80', '2001:db7:ffff:9::9']
    unwanted = special_use.addresses(own)
    feed = drivers.feed('plain_list', allow_empty=True)
    built = drivers.build(feed, lines(*map(str, wanted)), unwanted=unwanted)
    index = address_sets.Index((built.addresses,))
    avoided = [
        ipaddress.ip_network(text)
        for text in (*own, *(network for network, _, _ in special_use.NOT_REACHABLE))
    ]
    reachable = [ipaddress.ip_network(text) for text, _, _ in special_use.REACHABLE_ALL_THE_SAME]

    def is_avoided(address):
        is_special = any(address in network for network in avoided)
        return is_special and not any(address in network for network in reachable)

    for probe in (*probes, *(network[0] for network in wanted)):
        expected = any(probe in network for network in wanted) and not is_avoided(probe)
        if probe.version == 4:
            found = index.find_v4(np.array([int(probe)], np.uint32))[0]
        else:
            wide = address_sets.wide([int(probe)])
            found = index.find_v6(wide.high, wide.low)[0]
        assert bool(found) == expected
    assert built.entries + built.rejected['special_use'] == len(set(wanted))


# --- sudden changes ---------------------------------------------------------


@pytest.mark.parametrize(
    ('before', 'now'),
    [
        (None, 0),
        (None, 10**6),
        (0, 0),
        (0, 10_000),
        (49, 0),
        (50, 25),
        (1000, 500),
        (1000, 1000),
        (1000, 11_000),  # eleven times as many, but not more than 10,000 more
        (10_000, 50_000),  # 40,000 more, but not more than five times as many
    ],
)
def test_a_usual_change_is_taken(before, now):
    assert lists.check_change(now, before) == ''


@pytest.mark.parametrize(
    ('before', 'now', 'expected'),
    [
        (50, 24, '24 entries after 50: less than half of the list is left'),
        (50, 0, '0 entries after 50: less than half of the list is left'),
        (1000, 499, '499 entries after 1000: less than half of the list is left'),
        (0, 10_001, '10001 entries after 0: the list is more than 5 times as long'),
        (1000, 11_001, '11001 entries after 1000: the list is more than 5 times as long'),
        (10_000, 50_001, '50001 entries after 10000: the list is more than 5 times as long'),
    ],
)
def test_a_collapse_and_an_explosion_are_held(before, now, expected):
    assert lists.check_change(now, before) == expected
