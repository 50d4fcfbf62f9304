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


"""Devices from dump to dump: taken apart once, and never shown as they were before."""

import ipaddress
import struct

import pytest

from oie import exceptions
from oie import model
from oie.config import netns_settings
from oie.sources import device_addresses
from oie.sources import links
from oie.sources import netns_devices
from oie.sources.netlink_attributes import attribute


class Client:
    """Give messages for dumps."""

    def __init__(self):
        self.messages = {links.RTM_NEWLINK: [], device_addresses.RTM_NEWADDR: []}

    def dump(self, _request, kind, _least, take):
        return [take(memoryview(message)) for message in self.messages[kind]]


def link(name='qg-1', index=2, rx_bytes=5, mtu=1500, counters_first=False, flags=1):
    counters = attribute(links.IFLA_STATS64, struct.pack('=25Q', 1, 2, rx_bytes, *range(22)))
    told = attribute(links.IFLA_MTU, struct.pack('=I', mtu))
    begin = struct.pack('=BxHiII', 0, 1, index, flags, 0)
    begin += attribute(links.IFLA_IFNAME, name.encode() + b'\0')
    return begin + (counters + told if counters_first else told + counters)


def address(ip, device=2):
    packed = ipaddress.ip_address(ip).packed
    fixed = struct.pack('=BBBBI', 2 if len(packed) == 4 else 10, 24, 0, 0, device)
    return fixed + attribute(1, packed)


@pytest.fixture
def client():
    return Client()


@pytest.fixture
def known():
    return netns_devices.Known(model.Labels.of(netns='a'), model.Labels.of(netns='a'), 'other', '')


def read(client, known, *messages, addresses=None, wanted=None):
    reader = netns_devices.DeviceReader(wanted or netns_settings.Filter())
    client.messages[links.RTM_NEWLINK] = messages
    return reader, lambda: reader.devices(client, b'', known, addresses)


def test_counters_are_those_of_this_dump(client, known):
    reader, devices = read(client, known, link(rx_bytes=5), link('qr-2', 3))
    assert [each.statistics.rx_bytes for each in devices()] == [5, 5]
    client.messages[links.RTM_NEWLINK] = [link(rx_bytes=6), link('qr-2', 3)]
    again = devices()
    assert [each.statistics.rx_bytes for each in again] == [6, 5]
    assert [each.statistics.rx_packets for each in again] == [1, 1]


@pytest.mark.parametrize('counters_first', [False, True])
def test_what_changed_besides_the_counters_is_seen(client, known, counters_first):
    _, devices = read(client, known, link(counters_first=counters_first))
    (before,) = devices()
    client.messages[links.RTM_NEWLINK] = [link(mtu=1400, counters_first=counters_first)]
    (after,) = devices()
    assert (before.mtu, after.mtu) == (1500, 1400)
    assert after.labels is before.labels
    assert [dict(each.info.pairs)['mtu'] for each in (before, after)] == ['1500', '1400']


def test_labels_with_addresses_live_as_long_as_these(client, known):
    """Else the text of each of their series would be made anew in every cycle."""
    own = {2: ('10.0.0.1/24', '2001:db8::1/64')}
    reader, _ = read(client, known, link())
    (before,) = reader.devices(client, b'', known, own)
    client.messages[links.RTM_NEWLINK] = [link(rx_bytes=6)]
    (busy,) = reader.devices(client, b'', known, own)
    client.messages[links.RTM_NEWLINK] = [link(rx_bytes=6, flags=0)]
    (down,) = reader.devices(client, b'', known, own)
    assert (busy.is_up, down.is_up) == (True, False)
    assert before.info is busy.info is down.info
    assert before.address_infos is busy.address_infos is down.address_infos
    assert [dict(each.pairs) for each in down.address_infos] == [
        {'netns': 'a', 'device': 'qg-1', 'address': '10.0.0.1/24', 'family': 'ipv4'},
        {'netns': 'a', 'device': 'qg-1', 'address': '2001:db8::1/64', 'family': 'ipv6'},
    ]


def test_addresses_that_are_not_read_for_once_are_not_shown(client, known):
    reader, _ = read(client, known, link())
    (before,) = reader.devices(client, b'', known, {2: ('10.0.0.1/24',)})
    (unread,) = reader.devices(client, b'', known, None)
    (again,) = reader.devices(client, b'', known, {2: ('10.0.0.1/24',)})
    assert [len(each.address_infos) for each in (before, unread, again)] == [1, 0, 1]


def test_idle_device_is_the_same_object(client, known):
    _, devices = read(client, known, link())
    assert devices()[0] is devices()[0]


def test_idle_device_with_a_new_address_is_another(client, known):
    reader, _ = read(client, known, link())
    (before,) = reader.devices(client, b'', known, {2: ('10.0.0.1/24',)})
    (after,) = reader.devices(client, b'', known, {2: ('10.0.0.2/24',)})
    (none,) = reader.devices(client, b'', known, None)
    assert [each.addresses for each in (before, after, none)] == [
        ('10.0.0.1/24',),
        ('10.0.0.2/24',),
        None,
    ]


def test_name_that_passes_to_another_device(client, known):
    _, devices = read(client, known, link('qg-1', 2), link('qr-2', 3))
    first, second = devices()
    client.messages[links.RTM_NEWLINK] = [link('qr-2', 2), link('qg-1', 3)]
    third, fourth = devices()
    assert [each.name for each in (third, fourth)] == ['qr-2', 'qg-1']
    assert (third.labels, fourth.labels) == (second.labels, first.labels)
    assert (third.info, fourth.info) == (second.info, first.info)


def test_device_that_comes_back_has_new_labels(client, known):
    _, devices = read(client, known, link())
    (before,) = devices()
    client.messages[links.RTM_NEWLINK] = []
    assert devices() == ()
    client.messages[links.RTM_NEWLINK] = [link()]
    (after,) = devices()
    assert after.labels is not before.labels


def test_loopback_is_left_out_whatever_its_name(client, known):
    loopback = links.IFF_UP | links.IFF_LOOPBACK
    _, devices = read(client, known, link('lo', 1, flags=loopback), link('lo0', 2, flags=loopback))
    assert devices() == ()
    assert known.devices == {}


def test_what_the_filter_names_is_left_out(client, known):
    wanted = netns_settings.Filter('dead', 'q')
    messages = [link('qr-2', 1), link('qg-1', 2), link('qg-dead', 3), link('ha-1', 4)]
    _, devices = read(client, known, *messages, wanted=wanted)
    for _ in range(2):
        assert [each.name for each in devices()] == ['qr-2', 'qg-1']


def test_dump_that_fails_costs_no_labels(client, known):
    _, devices = read(client, known, link())
    (before,) = devices()
    client.messages[links.RTM_NEWLINK] = [link(mtu=1400)[:-3]]
    with pytest.raises(exceptions.SourceError):
        devices()
    client.messages[links.RTM_NEWLINK] = [link(mtu=1400)]
    assert devices()[0].labels is before.labels


def test_addresses_of_a_device_have_ipv4_first(client, known):
    reader, _ = read(client, known)
    messages = [address('2001:db8::1'), address('10.0.0.1'), address('10.0.0.2', 3)]
    client.messages[device_addresses.RTM_NEWADDR] = messages
    found = reader.addresses(client, b'', known)
    assert found == {2: ('10.0.0.1/24', '2001:db8::1/24'), 3: ('10.0.0.2/24',)}
    assert reader.addresses(client, b'', known) is found

    client.messages[device_addresses.RTM_NEWADDR] = messages[:1]
    assert reader.addresses(client, b'', known) == {2: ('2001:db8::1/24',)}
