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

"""Whose a flow is, from real packets that nftables translates on their way.

Guests, the host between them and somebody outside are network namespaces; the
table is that of the host. test_attribution.py has entries without packets.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import re
import socket

import pytest

from oie import model
from oie.analysis import attribution
from oie.sources import conntrack
from oie.sources import flow_columns
from tests import conntrack_list
from tests import ctnetlink
from tests import machine
from tests.functional import attributed
from tests.functional import flows
from tests.functional import network
from tests.functional import packets

FIXED, FLOATING, FIXED6 = '10.0.0.5', '203.0.113.5', '2001:db8::5'
OTHER, OTHER_FLOATING = '10.1.0.9', '203.0.113.9'
OTHER6, OTHER_FLOATING6 = '2001:db8:a::9', '2001:db8:b::9'
TWIN_FLOATING = '203.0.113.7'
REMOTE, REMOTE6 = '192.0.2.1', '2001:db8:1::1'
# The host itself, as the guest sees it and as the remote does.
GATEWAY, ROUTER = '10.0.0.254', '192.0.2.254'
# Where both ends are translated: an address that stands for the remote, and a
# floating IP whose callers look like the host.
SERVICE, SHARED = '198.51.100.80', '203.0.113.80'

# The order makes the marks: 1 leads to a, 2 to its twin.
MACHINES = {
    'a': [f'{FIXED}/24', f'{FIXED6}/64'],
    'twin': [f'{FIXED}/24'],
    'b': [f'{OTHER}/24', f'{OTHER6}/64'],
    'outside': [f'{REMOTE}/24', f'{REMOTE6}/64'],
}
A = attributed.instance('a', FIXED, FIXED6, port='port-a')
B = attributed.instance('b', OTHER, OTHER6, port='port-b')
TWIN = attributed.instance('twin', FIXED, port='port-twin')

FLOATING_OF_FIXED = f'ip saddr map {{ {FIXED} : {FLOATING}, {OTHER} : {OTHER_FLOATING} }}'
RULES = f"""
table ip oiet {{
    chain arriving {{
        type nat hook prerouting priority dstnat
        dnat to ip daddr map {{
            {FLOATING} : {FIXED}, {SHARED} : {FIXED}, {OTHER_FLOATING} : {OTHER},
            {SERVICE} : {REMOTE}
        }}
    }}
    chain leaving {{
        type nat hook postrouting priority srcnat
        ct original ip daddr {SHARED} snat to {GATEWAY}
        oifname outside snat to {FLOATING_OF_FIXED}
        ct status dnat snat to {FLOATING_OF_FIXED}
    }}
}}
table ip6 oiet {{
    chain arriving {{
        type nat hook prerouting priority dstnat
        ip6 daddr {OTHER_FLOATING6} dnat to {OTHER6}
    }}
    chain leaving {{
        type nat hook postrouting priority srcnat
        oifname outside ip6 saddr {OTHER6} snat to {OTHER_FLOATING6}
    }}
}}
"""

SRC, DST = flow_columns.SRC_NAT, flow_columns.DST_NAT
# IPS_EXPECTED of linux/netfilter/nf_conntrack_common.h.
EXPECTED = 1
PATIENCE = 10.0


@pytest.fixture(scope='module')
def net() -> Iterator[network.Network]:
    machine.require(network.what_is_missing())
    with network.Network(MACHINES) as net:
        yield net


def attribute(
    net: network.Network,
    *instances: model.Instance,
    zones: dict[int, str] | None = None,
) -> attribution.Attribution:
    found = attribution.Attribution(attribution.Owners(instances, zones))
    conntrack.dump(found.take, namespace=net.host.path)
    return found


def decode(net: network.Network) -> list[ctnetlink.Record]:
    taken: list[flow_columns.Flows] = []
    conntrack.dump(taken.append, namespace=net.host.path)
    return ctnetlink.records(taken)


def status_bits(entries: list[ctnetlink.Record], mask: int) -> list[int]:
    """Return those of the bits that each entry has."""
    return sorted(int(entry['status'] or 0) & mask for entry in entries)


# --- one flow -----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Case:
    """Who speaks to which address, who gets it, and what shall be made of it."""

    talk: packets.Talk
    source: str
    target: str
    listener: str
    nat: int = 0
    outbound: tuple[attributed.Side, ...] = ()
    inbound: tuple[attributed.Side, ...] = ()
    is_replied: bool = True

    def start(self, net: network.Network) -> contextlib.AbstractContextManager[packets.Ends]:
        return self.talk(net[self.source], self.target, net[self.listener])


# Between a guest and the remote, whoever began.
OF_A, OF_B = ('a', FIXED, REMOTE), ('b', OTHER, REMOTE)
OF_A6, OF_B6 = ('a', FIXED6, REMOTE6), ('b', OTHER6, REMOTE6)
ITSELF = ('a', FIXED, FLOATING)

TABLE = {
    'source NAT': Case(packets.tcp, 'a', REMOTE, 'outside', SRC, outbound=(OF_A,)),
    'destination NAT': Case(packets.tcp, 'outside', FLOATING, 'a', DST, inbound=(OF_A,)),
    'both, outbound': Case(
        *(packets.tcp, 'a', SERVICE, 'outside', SRC | DST),
        outbound=(('a', FIXED, SERVICE),),
    ),
    'both, inbound': Case(
        *(packets.tcp, 'outside', SHARED, 'a', SRC | DST),
        inbound=(('a', FIXED, GATEWAY),),
    ),
    'hairpin: to the own floating IP': Case(
        *(packets.tcp, 'a', FLOATING, 'a', SRC | DST),
        outbound=(ITSELF,),
        inbound=(ITSELF,),
    ),
    'floating IP to floating IP': Case(
        *(packets.tcp, 'a', OTHER_FLOATING, 'b', SRC | DST),
        outbound=(('a', FIXED, OTHER_FLOATING),),
        inbound=(('b', OTHER, FLOATING),),
    ),
    'between two guests': Case(
        *(packets.udp, 'a', OTHER, 'b'),
        outbound=(('a', FIXED, OTHER),),
        inbound=(('b', OTHER, FIXED),),
    ),
    'UDP, outbound': Case(packets.udp, 'a', REMOTE, 'outside', SRC, outbound=(OF_A,)),
    'UDP, inbound': Case(packets.udp, 'outside', FLOATING, 'a', DST, inbound=(OF_A,)),
    'IPv6, outbound': Case(packets.udp, 'a', REMOTE6, 'outside', outbound=(OF_A6,)),
    'IPv6, inbound': Case(packets.tcp, 'outside', FIXED6, 'a', inbound=(OF_A6,)),
    'IPv6, source NAT': Case(packets.tcp, 'b', REMOTE6, 'outside', SRC, outbound=(OF_B6,)),
    'IPv6, destination NAT': Case(
        *(packets.udp, 'outside', OTHER_FLOATING6, 'b', DST),
        inbound=(OF_B6,),
    ),
    'IPv6, fixed IP to floating IP': Case(
        *(packets.tcp, 'a', OTHER_FLOATING6, 'b', DST),
        outbound=(('a', FIXED6, OTHER_FLOATING6),),
        inbound=(('b', OTHER6, FIXED6),),
    ),
    'ICMP, outbound': Case(packets.ping, 'a', REMOTE, 'outside', SRC, outbound=(OF_A,)),
    'ICMP, inbound': Case(packets.ping, 'outside', FLOATING, 'a', DST, inbound=(OF_A,)),
    'ICMP, hairpin': Case(
        *(packets.ping, 'a', FLOATING, 'a', SRC | DST),
        outbound=(ITSELF,),
        inbound=(ITSELF,),
    ),
    'ICMPv6, outbound': Case(packets.ping, 'a', REMOTE6, 'outside', outbound=(OF_A6,)),
    'ICMPv6, inbound': Case(
        *(packets.ping, 'outside', OTHER_FLOATING6, 'b', DST),
        inbound=(OF_B6,),
    ),
    'GRE, outbound': Case(packets.gre, 'a', REMOTE, 'outside', SRC, outbound=(OF_A,)),
    'GRE, inbound': Case(packets.gre, 'outside', OTHER_FLOATING, 'b', DST, inbound=(OF_B,)),
    'SCTP, outbound': Case(packets.sctp, 'a', REMOTE, 'outside', SRC, outbound=(OF_A,)),
    'SCTP, inbound': Case(packets.sctp, 'outside', OTHER_FLOATING, 'b', DST, inbound=(OF_B,)),
    'unanswered': Case(
        *(packets.udp_unanswered, 'a', REMOTE, 'outside', SRC),
        outbound=(OF_A,),
        is_replied=False,
    ),
    'unanswered, inbound': Case(
        *(packets.udp_unanswered, 'outside', FLOATING, 'a', DST),
        inbound=(OF_A,),
        is_replied=False,
    ),
    'an ICMP error is no answer': Case(
        *(packets.udp_refused, 'a', REMOTE, 'outside', SRC),
        outbound=(OF_A,),
        is_replied=False,
    ),
    'of nobody': Case(packets.udp, 'outside', ROUTER, 'host'),
}


@pytest.mark.parametrize('name', TABLE)
def test_instance_direction_and_peer(net: network.Network, name: str) -> None:
    case = TABLE[name]
    net.start_over(RULES)

    with case.start(net):
        found, entries = attribute(net, A, B), decode(net)

    outbound, inbound = found.outbound(), found.inbound()
    assert attributed.sides(found, outbound) == list(case.outbound)
    assert attributed.sides(found, inbound) == list(case.inbound)
    assert {*outbound.is_replied, *inbound.is_replied} <= {case.is_replied}
    assert status_bits(entries, SRC | DST) == [case.nat]
    assert found.unattributed == (not case.outbound and not case.inbound)


# --- many at once -------------------------------------------------------------


def test_many_at_once_are_as_they_are_one_by_one(net: network.Network) -> None:
    net.start_over(RULES)

    with contextlib.ExitStack() as talks:
        for case in TABLE.values():
            talks.enter_context(case.start(net))
        found, entries, listed = attribute(net, A, B), decode(net), net.host.listed()

    outbound = sorted(side for case in TABLE.values() for side in case.outbound)
    inbound = sorted(side for case in TABLE.values() for side in case.inbound)
    assert attributed.sides(found, found.outbound()) == outbound
    assert attributed.sides(found, found.inbound()) == inbound
    assert found.entries == len(TABLE)
    assert conntrack_list.told(entries) == listed


# --- zones --------------------------------------------------------------------

ZONES = {1: 'port-a', 2: 'port-twin'}
ZONE_OF_GUEST = 'iifname map { "a" : 1, "twin" : 2 }'
ZONE_OF_FLOATING = f'ip daddr map {{ {FLOATING} : 1, {TWIN_FLOATING} : 2 }}'


def in_zones(*rules: str) -> str:
    """Return rules for guests of one fixed IP; by its mark a packet finds back to its guest."""
    return f"""
table ip oiet {{
    chain zoned {{
        type filter hook prerouting priority raw
        meta mark set {ZONE_OF_FLOATING}
        {'; '.join(rules)}
    }}
    chain arriving {{
        type nat hook prerouting priority dstnat
        ip daddr {{ {FLOATING}, {TWIN_FLOATING} }} dnat to {FIXED}
    }}
    chain leaving {{
        type nat hook postrouting priority srcnat
        oifname outside snat to ct original zone map {{ 1 : {FLOATING}, 2 : {TWIN_FLOATING} }}
    }}
}}
"""


BOTH_WAYS = in_zones(f'ct zone set {ZONE_OF_GUEST}', f'ct zone set {ZONE_OF_FLOATING}')
ONE_WAY = in_zones(f'ct original zone set {ZONE_OF_GUEST}')


@pytest.fixture(params=[BOTH_WAYS, ONE_WAY], ids=['zone', 'zone of one direction'])
def equals(net: network.Network, request: pytest.FixtureRequest) -> Iterator[network.Network]:
    """Two guests of one fixed IP sent the same echo request; one of them a datagram too."""
    net.start_over(request.param)
    with (
        packets.ping(net['a'], REMOTE, net['outside']),
        packets.ping(net['twin'], REMOTE, net['outside']),
        packets.udp(net['twin'], REMOTE, net['outside']),
    ):
        yield net


def test_zones_tell_equal_addresses_apart(equals: network.Network) -> None:
    found = attribute(equals, A, TWIN, zones=ZONES)

    of_twin = ('twin', FIXED, REMOTE)
    assert attributed.sides(found, found.outbound()) == [OF_A, of_twin, of_twin]
    assert attributed.sides(found, found.inbound()) == []
    assert (found.entries, found.unattributed) == (3, 0)


def test_zones_tell_equal_addresses_apart_inbound(net: network.Network) -> None:
    net.start_over(BOTH_WAYS)

    with (
        packets.tcp(net['b'], FLOATING, net['a']),
        packets.tcp(net['outside'], TWIN_FLOATING, net['twin']),
    ):
        found = attribute(net, A, TWIN, zones=ZONES)

    of_both = [('a', FIXED, OTHER), ('twin', FIXED, REMOTE)]
    assert attributed.sides(found, found.inbound()) == of_both
    assert attributed.sides(found, found.outbound()) == []


def test_equal_addresses_without_zones_are_never_guessed(equals: network.Network) -> None:
    found = attribute(equals, A, TWIN)

    assert (len(found.outbound()), len(found.inbound())) == (0, 0)
    assert (found.entries, found.unattributed, found.ambiguous) == (3, 3, 3)


def test_zone_that_the_map_lacks_is_never_guessed(equals: network.Network) -> None:
    found = attribute(equals, A, TWIN, zones={1: 'port-a'})

    assert attributed.sides(found, found.outbound()) == [OF_A]
    assert (found.entries, found.unattributed, found.ambiguous) == (3, 2, 2)


def test_entries_in_zones_are_what_conntrack_lists(equals: network.Network) -> None:
    assert conntrack_list.told(decode(equals)) == equals.host.listed()


# --- expectations -------------------------------------------------------------


def expect(net: network.Network, helper: str, protocol: str, port: int) -> None:
    """Let out only, and in only what the helper expects."""
    missing = network.missing_helper(net.host, helper, protocol)
    if missing:
        pytest.skip(missing)
    net.start_over(f"""
table ip oiet {{
    ct helper oiet {{
        type "{helper}" protocol {protocol}
    }}
    chain helped {{
        type filter hook prerouting priority filter
        {protocol} dport {port} ct helper set "oiet"
    }}
    chain leaving {{
        type nat hook postrouting priority srcnat
        oifname outside snat to {FLOATING}
    }}
}}
""")


def test_connection_that_ftp_expects(net: network.Network) -> None:
    """The guest names a port of its own, to which the remote connects by the floating IP."""
    expect(net, 'ftp', 'tcp', 21)
    with (
        packets.tcp(net['a'], REMOTE, net['outside'], port=21) as control,
        net['a'].run(lambda: socket.create_server(('', 0))) as server,
    ):
        server.settimeout(PATIENCE)
        port = server.getsockname()[1]
        # The helper reads a line only after it has seen the end of one.
        say(*control, 'USER oiet')
        line = say(*control, f'PORT {FIXED.replace(".", ",")},{port >> 8},{port & 255}')
        *address, high, low = re.findall(r'\d+', line)
        told = '.'.join(address), int(high) << 8 | int(low)
        data = net['outside'].run(lambda: socket.create_connection(told, PATIENCE))
        with data, server.accept()[0]:
            found, entries = attribute(net, A), decode(net)

    assert attributed.sides(found, found.outbound()) == [OF_A]
    assert attributed.sides(found, found.inbound()) == [OF_A]
    assert found.inbound().service_port.tolist() == [port]
    assert status_bits(entries, EXPECTED | DST) == [0, EXPECTED | DST]


def test_flow_that_tftp_expects(net: network.Network) -> None:
    """The remote answers from another port than the one that was asked."""
    expect(net, 'tftp', 'udp', 69)
    with (
        udp_socket(net['a']) as client,
        udp_socket(net['outside'], 69) as service,
        udp_socket(net['outside']) as transfer,
    ):
        client.sendto(b'\0\1oiet\0octet\0', (REMOTE, 69))
        transfer.sendto(b'\0\3\0\1', service.recvfrom(2048)[1])
        _, (_, port) = client.recvfrom(2048)
        found, entries = attribute(net, A), decode(net)

    assert attributed.sides(found, found.outbound()) == [OF_A]
    assert attributed.sides(found, found.inbound()) == [OF_A]
    assert found.inbound().client_port.tolist() == [port]
    assert status_bits(entries, EXPECTED | DST) == [0, EXPECTED | DST]


def say(client: socket.socket, server: socket.socket, line: str) -> str:
    """Return a line of FTP as the other end gets it; it has been answered then."""
    client.sendall(f'{line}\r\n'.encode())
    arrived = server.recv(2048).decode()
    server.sendall(b'200 oiet\r\n')
    client.recv(2048)
    return arrived


def udp_socket(namespace: flows.Namespace, port: int = 0) -> socket.socket:
    opened = namespace.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    opened.settimeout(PATIENCE)
    opened.bind(('', port))
    return opened
