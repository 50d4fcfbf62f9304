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

"""One entry is an interval or is malformed, as the standard library's ipaddress judges."""

import ipaddress
import tracemalloc

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from oie.feeds import entries
from oie.feeds import text
from tests.unit.feeds import drivers

ADDRESSES = st.ip_addresses()
MAPPED = ipaddress.ip_network('::ffff:0:0/96')


@st.composite
def networks(draw):
    """Networks of every length, with host bits or without."""
    address = draw(ADDRESSES)
    length = draw(st.integers(0, address.max_prefixlen))
    return ipaddress.ip_interface(f'{address}/{length}')


def unmapped(network):
    """Return the network of IPv4 that one of IPv6 maps, any other as it is."""
    if network.version == 4 or not network.subnet_of(MAPPED):
        return network
    address = network.network_address.ipv4_mapped
    return ipaddress.ip_network(f'{address}/{network.prefixlen - 96}')


def numbers(found):
    return int.from_bytes(found.first, 'big'), int.from_bytes(found.last, 'big')


def gathered(*texts):
    found = entries.Entries()
    found.extend(texts)
    return found


# --- one entry --------------------------------------------------------------


@pytest.mark.parametrize(
    ('entry', 'expected'),
    [
        ('5.6.7.8', '5.6.7.8/32'),
        ('5.6.7.0/24', '5.6.7.0/24'),
        ('5.6.7.8/24', '5.6.7.0/24'),
        ('5.6.7.8/32', '5.6.7.8/32'),
        ('0.0.0.0/0', '0.0.0.0/0'),
        ('5.6.7.0-5.6.7.255', '5.6.7.0/24'),
        ('5.6.7.1 - 5.6.7.3', '5.6.7.1-5.6.7.3'),
        ('5.6.7.1-5.6.7.1', '5.6.7.1/32'),
        ('2A00:0001::8', '2a00:1::8/128'),
        ('2a00:1::8/32', '2a00:1::/32'),
        ('::/0', '::/0'),
        ('2a00:1::-2a00:1::f', '2a00:1::/124'),
        ('::ffff:5.6.7.8', '5.6.7.8/32'),
        ('::ffff:506:708', '5.6.7.8/32'),
        ('::ffff:5.6.7.8/120', '5.6.7.0/24'),
        ('::ffff:0:0/96', '0.0.0.0/0'),
        ('::ffff:0:0/95', '::fffe:0:0/95'),
        ('::ffff:5.6.7.0-::ffff:5.6.7.255', '5.6.7.0/24'),
    ],
)
def test_an_entry_is_the_interval_that_it_means(entry, expected):
    assert drivers.intervals([entry]) == [expected]


@pytest.mark.parametrize(
    'entry',
    [
        '',
        ' 5.6.7.8',
        '5.6.7.8 ',
        '1.2.3',
        '16909060',
        '0x1.2.3.4',
        '010.0.0.1',
        '1.2.3.04',
        '1.2.3.256',
        '1.2.3.4.5',
        '1.2.3.4/33',
        '1.2.3.4/',
        '1.2.3.4/+8',
        '1.2.3.4/08',
        '1.2.3.4/8/8',
        '1.2.3.0/255.255.255.0',
        '1.2.3.٤',
        '1.2.3.4/٨',
        '1.2.3.4\0',
        '1.2.3.\ud800',
        'fe80::1%eth0',
        '2a00:1::/129',
        '2a00::1::1',
        '12345::',
        '::ffff:1.2.3.04',
        '[2a00:1::1]',
        '1.2.3.4:80',
        '5.6.7.9-5.6.7.8',
        '5.6.7.8-',
        '-5.6.7.8',
        '5.6.7.8-9',
        '5.6.7.0/24-5.6.8.0/24',
        '5.6.7.8-2a00:1::1',
        '::-::ffff:5.6.7.8',
        'list.example.org',
        '<html>',
    ],
)
def test_what_is_no_entry_is_malformed(entry):
    assert entries.parse(entry) is None
    assert gathered(entry).malformed == 1


@hypothesis.given(ADDRESSES)
def test_every_address_is_read(address):
    found = entries.parse(str(address))
    mapped = unmapped(ipaddress.ip_network(address))
    assert numbers(found) == (int(mapped.network_address),) * 2


@hypothesis.given(networks())
def test_every_network_is_read(interface):
    found = entries.parse(str(interface))
    network = unmapped(interface.network)
    assert numbers(found) == (int(network.network_address), int(network.broadcast_address))
    assert found.has_host_bits == (interface.ip != interface.network.network_address)


@hypothesis.given(
    st.one_of(
        st.text(max_size=30),
        st.text('0123456789abcdefABCDEF.:/% x', max_size=20),
        st.from_regex(r'\A[0-9]{1,3}(\.[0-9]{1,3}){3}(/[0-9]{1,3})?\Z'),
    )
)
def test_no_text_is_taken_that_ipaddress_does_not_take(entry):
    try:
        network = ipaddress.ip_network(entry, strict=False)
    except ValueError:
        assert entries.parse(entry) is None
        return
    found = entries.parse(entry)
    # ipaddress reads scopes, masks and /08 too.
    if found is None:
        prefix = entry.partition('/')[2]
        assert '%' in entry or '.' in prefix or prefix != str(int(prefix))
    else:
        assert numbers(found)[0] == int(unmapped(network).network_address)


# --- all of them ------------------------------------------------------------


def test_entries_are_counted_by_what_they_are():
    found = gathered('5.6.7.8', '5.6.7.8', '5.6.7.9/24', 'x', 'y', '2a00:1::1/64', '2a00:1::')
    assert (found.accepted, found.malformed, found.host_bits) == (5, 2, 2)
    assert found.example == "'x'"


def test_an_interval_comes_once_in_order():
    texts = ['9.0.0.0/8', '2a00:1::', '5.6.7.8', '5.6.7.0/24', '5.6.7.8', '::2', '2a00:1::/128']
    assert drivers.intervals(texts) == [
        '5.6.7.0/24',
        '5.6.7.8/32',
        '9.0.0.0/8',
        '::2/128',
        '2a00:1::/128',
    ]


def test_an_example_is_cut_and_stays_on_its_line():
    found = gathered('a\n' + 'b' * 1000)
    assert '\n' not in found.example
    assert len(found.example) < 80


def test_entries_of_two_documents_add_up():
    found, more = gathered('5.6.7.8', 'x'), gathered('5.6.7.8', '2a00:1::1', '5.6.7.8/8', 'y')
    found.update(more)
    assert (found.accepted, found.malformed, found.host_bits) == (4, 2, 1)
    assert found.example == "'x'"
    assert [len(each) for each in found.distinct()] == [2, 1]


@hypothesis.given(st.lists(st.integers(0, 2**128 - 1)))
def test_sixteen_bytes_sort_and_compare_as_the_numbers_do(values):
    texts = [str(ipaddress.IPv6Address(value)) for value in values]
    expected = sorted({value for value in values if value >> 32 != 0xFFFF})
    _, found = gathered(*texts).distinct()
    wide = entries.wide(found.first)
    assert [drivers.number(wide, place) for place in range(len(wide))] == expected
    np.testing.assert_array_equal(entries.keys(wide), found.first)
    np.testing.assert_array_equal(np.searchsorted(found.first, found.last), range(len(wide)))


def test_a_document_is_not_taken_apart_all_at_once():
    document = b'5.6.7.8\n' * 50_000
    found = entries.Entries()
    tracemalloc.start()
    try:
        found.extend(text.entries(document))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # 8 bytes each, some to grow, and a slice of 65536 bytes as 8192 strings of 56 bytes.
    assert found.accepted == 50_000
    assert peak < 2 * 8 * 50_000 + 2**20
