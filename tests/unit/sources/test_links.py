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


"""Messages about network devices and their addresses: understood, or refused."""

import ipaddress
import pathlib
import socket
import struct

import hypothesis
from hypothesis import strategies
import pytest

from oie import exceptions
from oie import model
from oie.sources import device_addresses
from oie.sources import links
from oie.sources import netlink_client
from oie.sources.netlink_attributes import attribute

FIELDS = model.LinkStatistics._fields
COUNTERS = tuple(range(2**40, 2**40 + 25))


def body(*attributes, index=7, flags=0x1003):
    return struct.pack('=BxHiII', 0, 1, index, flags, 0) + b''.join(attributes)


def counters(count=25):
    return attribute(links.IFLA_STATS64, struct.pack(f'={count}Q', *COUNTERS[:count]))


NAME = attribute(links.IFLA_IFNAME, b'qg-11111111-22\0')
USUAL = (
    NAME,
    attribute(links.IFLA_OPERSTATE, b'\6'),
    attribute(links.IFLA_MTU, struct.pack('=I', 1450)),
    attribute(links.IFLA_ADDRESS, bytes.fromhex('fa163e000001')),
)
WHOLE = body(*USUAL, counters(), attribute(26, bytes(40)))


def parse(data):
    return links.parse(memoryview(data))


def statistics(data):
    link = parse(data)
    return links.statistics(data[link.begin : link.end])


# --- devices ------------------------------------------------------------------


def test_device_is_told_whole():
    link = parse(WHOLE)
    assert link[:6] == (7, 'qg-11111111-22', True, 'up', 1450, 'fa:16:3e:00:00:01')
    assert statistics(WHOLE) == model.LinkStatistics._make(COUNTERS[:24])


def test_what_is_not_told_is_none_or_empty():
    link = parse(body(flags=0))
    assert link[:6] == (7, '', False, 'unknown', None, '')
    assert statistics(body()) == model.LinkStatistics()


@pytest.mark.parametrize(('count', 'known'), [(0, 0), (1, 1), (23, 23), (24, 24), (30, 24)])
def test_counters_that_an_older_kernel_has_not_are_none(count, known):
    data = body(NAME, attribute(links.IFLA_STATS64, struct.pack(f'={count}Q', *range(count))))
    told = (*range(known), *[None] * (24 - known))
    assert statistics(data) == model.LinkStatistics._make(told)


def test_counters_of_odd_length_are_refused():
    with pytest.raises(exceptions.SourceError, match='with 9 bytes'):
        statistics(body(NAME, attribute(links.IFLA_STATS64, bytes(9))))


def test_operstate_has_the_words_of_the_kernel():
    words = [
        parse(body(attribute(links.IFLA_OPERSTATE, bytes([number])))).operstate
        for number in range(8)
    ]
    assert words == [*links.OPERSTATES, 'unknown']


def test_name_of_strange_bytes_can_be_a_label():
    assert parse(body(attribute(links.IFLA_IFNAME, b'caf\xe9\0'))).name == 'caf\ufffd'


def test_steady_part_ends_where_the_counters_begin():
    link = parse(WHOLE)
    assert link.steady == link.begin == len(body(*USUAL)) + 4


@pytest.mark.parametrize('data', [body(*USUAL), body(NAME, counters(), *USUAL[1:])])
def test_steady_part_is_all_where_counters_come_first_or_are_missing(data):
    assert parse(data).steady == len(data)


def test_message_that_was_cut_is_an_error_or_says_the_same():
    for size in range(16, len(WHOLE)):
        try:
            link = parse(WHOLE[:size])
        except exceptions.SourceError:
            continue
        assert link.name in ('', 'qg-11111111-22')
        assert link.end <= size


@hypothesis.given(strategies.binary(max_size=200))
def test_any_attributes_give_our_own_error_or_a_device(data):
    try:
        link = parse(body() + data)
        statistics(body() + data)
    except exceptions.SourceError:
        return
    assert link.end <= len(data) + 16


def test_this_kernel_and_its_sysfs_agree():
    with netlink_client.NetlinkClient(socket.NETLINK_ROUTE) as client:
        found = client.dump(links.request(), links.RTM_NEWLINK, links.FIXED.size, parse)
    assert {link.name for link in found} == {name for _, name in socket.if_nameindex()}
    for link in found:
        directory = pathlib.Path('/sys/class/net') / link.name
        for name in ('mtu', 'operstate'):
            assert str(getattr(link, name)) == (directory / name).read_text().strip()
        assert {each.name for each in (directory / 'statistics').iterdir()} >= set(FIELDS)


# --- addresses ----------------------------------------------------------------


def address(own, prefix=24, far=None, device=3):
    packed = ipaddress.ip_address(own).packed
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    said = attribute(device_addresses.IFA_ADDRESS, ipaddress.ip_address(far or own).packed)
    if far or family == socket.AF_INET:
        said += attribute(device_addresses.IFA_LOCAL, packed)
    return struct.pack('=BBBBI', family, prefix, 0, 0, device) + said


@pytest.mark.parametrize(
    ('message', 'text'),
    [
        (address('10.0.0.2'), '10.0.0.2/24'),
        (address('2001:db8:0:0::2', 64), '2001:db8::2/64'),
        (address('10.0.0.2', 32, far='10.9.0.1'), '10.0.0.2/32'),
        (struct.pack('=BBBBI', 2, 24, 0, 0, 3), ''),
        (struct.pack('=BBBBI', 2, 24, 0, 0, 3) + attribute(1, bytes(3)), ''),
        (struct.pack('=BBBBI', 12, 0, 0, 0, 3) + attribute(1, bytes(2)), ''),
    ],
)
def test_address_is_the_devices_own_with_its_prefix(message, text):
    found = device_addresses.parse(memoryview(message))
    assert (found.device, device_addresses.text(found)) == (3, text)


@hypothesis.given(strategies.binary(min_size=8, max_size=100))
def test_any_bytes_give_our_own_error_or_an_address(data):
    try:
        text = device_addresses.text(device_addresses.parse(memoryview(data)))
    except exceptions.SourceError:
        return
    if text:
        ipaddress.ip_address(text.split('/')[0])
