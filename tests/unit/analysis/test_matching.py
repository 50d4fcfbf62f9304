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

"""Contacts, compared with plain sets of Python and the standard ``ipaddress`` module."""

import collections
import ipaddress

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from oie import address_sets
from oie.analysis import attribution
from oie.analysis import behaviour
from oie.analysis import matching
from tests import builders
from tests.unit.analysis import columns

# numpy tells by a warning that a number ran over.
pytestmark = pytest.mark.filterwarnings('error')

Flow = columns.Flow

# The vector of the contract (19.3).
VECTOR = (
    Flow('10.0.0.5', '1.1.1.1', 443, 40001),
    Flow('10.0.0.5', '1.1.1.1', 443, 40002),
    Flow('10.0.0.5', '1.1.1.1', 53, 40003, 17),
    Flow('8.8.8.8', '10.0.0.5', 22, 40004),
    Flow('10.0.0.5', '10.0.0.5', 0, 0),
)


def instance(uuid, *ips, port=''):
    addresses = tuple(
        builders.address(ip=ip, family='ipv6' if ':' in ip else 'ipv4', port_uuid=port)
        for ip in ips
    )
    return builders.instance(
        builders.definition(uuid=uuid, domain=uuid, addresses=addresses, interfaces=())
    )


A = instance('a', '10.0.0.5')
B = instance('b', '10.0.0.6')


class Interval:
    """What is found among the flows of one interval; a list is its direction and entries."""

    def __init__(self, instances, flows, *lists, zones=None):
        found = attribution.Attribution(attribution.Owners(instances, zones))
        shapes = collections.defaultdict(list)
        for flow in flows:
            shapes[':' in flow.src, flow.zone is None].append(flow)
        for batch in shapes.values():
            found.take(columns.Columns(*batch))
        self.owners = found.owners
        self.talks = behaviour.Talks.of(found)
        self.lists = len(lists)
        index = address_sets.Index([columns.address_set(*entries) for _, *entries in lists])
        directions = [direction for direction, *_ in lists]
        self.matches = matching.match(self.talks, index, directions)

    def contacts(self):
        """Return list, instance, fixed IP, who began it and peer of each contact, sorted."""
        found, slots = self.matches, self.owners.slots
        return sorted(
            (
                number,
                slots[slot].definition.uuid,
                slots[slot].address.ip,
                'out' if is_out else 'in',
                peer,
            )
            for number, slot, is_out, peer in zip(
                found.list.tolist(),
                found.slot.tolist(),
                found.is_out.tolist(),
                found.peers(),
                strict=True,
            )
        )

    def peers(self):
        """Return list, who began it and peer of each contact, sorted."""
        return [(number, began, peer) for number, _, _, began, peer in self.contacts()]

    def counts(self):
        """Return the contacts of each instance and list that has any."""
        counted = list(matching.count(self.matches, self.owners, self.lists))
        sizes = {(uuid, number): size for uuid, number, size in counted}
        assert len(sizes) == len(counted)
        return sizes

    def keys(self):
        """Return the key of each contact, by instance, list and peer."""
        keys = self.matches.keys(behaviour.identities(self.owners.slots)).tolist()
        slots = [self.owners.slots[slot] for slot in self.matches.slot.tolist()]
        return {
            (slot.definition.uuid, slot.address.ip, number, is_out, peer): key
            for slot, number, is_out, peer, key in zip(
                slots,
                self.matches.list.tolist(),
                self.matches.is_out.tolist(),
                self.matches.peers(),
                keys,
                strict=True,
            )
        }


# --- the vectors of the contract --------------------------------------------


def test_talks_of_the_vector():
    talks = Interval([A], VECTOR).talks
    sent, received = (behaviour.summarise(talk, 1) for talk in (talks.outbound, talks.inbound))
    assert (sent.flows.tolist(), sent.remotes.tolist(), sent.ports.tolist()) == ([3], [1], [2])
    assert (sent.largest_remote.tolist(), sent.largest_port.tolist()) == ([3], [2])
    assert (received.flows.tolist(), received.remotes.tolist()) == ([1], [1])


@pytest.mark.parametrize(('direction', 'active'), [('out', 1), ('in', 0), ('any', 1)])
def test_contacts_of_the_vector(direction, active):
    counts = Interval([A], VECTOR, (direction, '1.1.1.1')).counts()
    assert counts == ({('a', 0): active} if active else {})


@pytest.mark.parametrize(('direction', 'active'), [('out', 0), ('in', 1), ('any', 1)])
def test_a_listed_address_that_began_it_is_an_inbound_contact(direction, active):
    counts = Interval([A], VECTOR, (direction, '8.8.8.8')).counts()
    assert counts == ({('a', 0): active} if active else {})


# --- what is one contact ----------------------------------------------------


def test_several_connections_with_one_peer_are_one_contact():
    flows = [Flow('10.0.0.5', '1.1.1.1', port, 40000 + port) for port in range(1, 50)]
    assert Interval([A], flows, ('out', '1.1.1.1')).counts() == {('a', 0): 1}


def test_a_connection_that_is_tracked_in_two_zones_is_one_contact():
    flows = [Flow('10.0.0.5', '1.1.1.1', zone=zone) for zone in (7, 9)]
    a = instance('a', '10.0.0.5', port='port-a')
    found = Interval([a], flows, ('any', '1.1.1.1'), zones={7: 'port-a'})
    assert found.counts() == {('a', 0): 1}


def test_zones_tell_whose_contact_it_is():
    twins = [instance('a', '10.0.0.5', port='port-a'), instance('b', '10.0.0.5', port='port-b')]
    flow = Flow('10.0.0.5', '1.1.1.1', zone=8)
    found = Interval(twins, [flow], ('out', '1.1.1.1'), zones={7: 'port-a', 8: 'port-b'})
    assert found.counts() == {('b', 0): 1}


def test_a_pair_that_talks_both_ways_counts_in_each_direction_and_once_in_any():
    flows = [Flow('10.0.0.5', '1.1.1.1'), Flow('1.1.1.1', '10.0.0.5', 22)]
    lists = [(direction, '1.1.1.1') for direction in ('out', 'in', 'any')]
    found = Interval([A], flows, *lists)
    assert found.counts() == {('a', 0): 1, ('a', 1): 1, ('a', 2): 1}
    assert found.peers() == [(0, 'out', '1.1.1.1'), (1, 'in', '1.1.1.1'), (2, 'out', '1.1.1.1')]


def test_what_only_the_peer_began_is_inbound_in_any_too():
    found = Interval([A], [Flow('1.1.1.1', '10.0.0.5', 22)], ('any', '1.1.1.1'))
    assert found.peers() == [(0, 'in', '1.1.1.1')]


def test_one_pair_both_ways_does_not_hide_another_one():
    flows = [
        Flow('10.0.0.5', '1.1.1.1'),
        Flow('1.1.1.1', '10.0.0.5', 22),
        Flow('1.1.1.2', '10.0.0.5', 22),
        Flow('1.1.1.1', '10.0.0.6', 22),
    ]
    found = Interval([A, B], flows, ('any', '1.1.1.0/24'))
    assert found.contacts() == [
        (0, 'a', '10.0.0.5', 'in', '1.1.1.2'),
        (0, 'a', '10.0.0.5', 'out', '1.1.1.1'),
        (0, 'b', '10.0.0.6', 'in', '1.1.1.1'),
    ]


def test_each_fixed_ip_of_an_instance_has_contacts_of_its_own():
    both = instance('a', '10.0.0.5', '10.0.0.7')
    flows = [Flow('10.0.0.5', '1.1.1.1'), Flow('10.0.0.7', '1.1.1.1')]
    found = Interval([both, B], flows, ('out', '1.1.1.1'))
    assert [contact[2] for contact in found.contacts()] == ['10.0.0.5', '10.0.0.7']
    assert found.counts() == {('a', 0): 2}


def test_an_instance_is_no_contact_of_itself():
    """Neither by the same fixed IP nor by another one, whatever list they stand on."""
    both = instance('a', '10.0.0.5', '10.0.0.7')
    flows = [Flow('10.0.0.5', '10.0.0.5'), Flow('10.0.0.5', '10.0.0.7'), *VECTOR]
    assert Interval([both], flows, ('any', '10.0.0.0/24')).contacts() == []


def test_an_own_address_on_a_list_makes_nobody_else_a_threat():
    """The reference would count the instance itself; here it is whom it talks to."""
    flows = [Flow('10.0.0.5', '9.9.9.9'), Flow('9.9.9.9', '10.0.0.5', 22)]
    assert Interval([A], flows, ('any', '10.0.0.5')).contacts() == []


def test_the_address_of_another_instance_is_a_peer_like_any_other():
    flows = [Flow('10.0.0.5', '10.0.0.6')]
    found = Interval([A, B], flows, ('any', '10.0.0.5'), ('any', '10.0.0.6'))
    assert found.contacts() == [
        (0, 'b', '10.0.0.6', 'in', '10.0.0.5'),
        (1, 'a', '10.0.0.5', 'out', '10.0.0.6'),
    ]


def test_the_peer_is_whom_the_instance_sees_behind_address_translation():
    """What a load balancer or a floating IP made of it, the instance never addressed."""
    outward = Flow('10.0.0.5', '203.0.113.9', reply_src='10.1.0.9', reply_dst='203.0.113.5')
    inward = Flow('8.8.8.8', '203.0.113.5', reply_src='10.0.0.5')
    lists = [('any', text) for text in ('203.0.113.9', '10.1.0.9', '203.0.113.5', '8.8.8.8')]
    found = Interval([A], [outward, inward], *lists)
    assert found.peers() == [(0, 'out', '203.0.113.9'), (3, 'in', '8.8.8.8')]


def test_flows_of_nobody_and_of_a_shared_address_are_nobodys_contacts():
    twins = [instance('a', '10.0.0.5'), instance('b', '10.0.0.5')]
    flows = [Flow('9.9.9.9', '1.1.1.1'), Flow('10.0.0.5', '1.1.1.1')]
    assert Interval(twins, flows, ('any', '1.1.1.1')).contacts() == []


# --- lists ------------------------------------------------------------------


def test_networks_of_every_width_hold_their_peers():
    """Vector 19.7: all of a /14, not only its first /16."""
    flows = [Flow('10.0.0.5', peer) for peer in ('2.56.0.9', '2.57.0.9', '2.60.0.1')]
    found = Interval([A], flows, ('out', '1.10.16.0/20', '2.56.0.0/14'))
    assert found.peers() == [(0, 'out', '2.56.0.9'), (0, 'out', '2.57.0.9')]


def test_ipv6_and_ipv4_are_looked_up_apart():
    both = instance('a', '2001:db8::5', '10.0.0.5')
    flows = [Flow('2001:db8::5', '::1.1.1.1'), Flow('2001:db8::5', '2a00:7::1')]
    flows += [Flow('10.0.0.5', '1.1.1.1'), Flow('10.0.0.5', '1.1.1.2')]
    found = Interval([both], flows, ('out', '1.1.1.1'), ('out', '::1.1.1.1'), ('out', '2a00::/29'))
    assert found.contacts() == [
        (0, 'a', '10.0.0.5', 'out', '1.1.1.1'),
        (1, 'a', '2001:db8::5', 'out', '::101:101'),
        (2, 'a', '2001:db8::5', 'out', '2a00:7::1'),
    ]


def test_a_peer_on_several_lists_is_a_contact_of_each_that_wants_its_direction():
    flows = [Flow('10.0.0.5', '1.1.1.1'), Flow('1.1.1.2', '10.0.0.5', 22)]
    lists = [
        ('out', '1.1.1.1'),
        ('in', '1.1.1.0/24'),
        ('any', '1.0.0.0/8'),
        ('out', '9.9.9.9'),
        ('out', '1.1.1.2'),
    ]
    found = Interval([A], flows, *lists)
    assert found.counts() == {('a', 0): 1, ('a', 1): 1, ('a', 2): 2}


def test_64_lists_are_as_good_as_one():
    flows = [Flow('10.0.0.5', '1.1.1.1'), Flow('1.1.1.1', '10.0.0.5', 22)]
    lists = [(('out', 'in', 'any')[n % 3], '1.1.1.1') for n in range(64)]
    found = Interval([A], flows, *lists)
    assert found.counts() == {('a', n): 1 for n in range(64)}


def test_no_list_no_flow_no_instance_and_an_empty_list_are_no_trouble():
    for instances, flows, lists in (
        ([A], VECTOR, []),
        ([A], [], [('any', '1.1.1.1')]),
        ([], VECTOR, [('any', '1.1.1.1')]),
        ([A], VECTOR, [('any',), ('out',)]),
    ):
        found = Interval(instances, flows, *lists)
        assert (len(found.matches), found.contacts(), found.counts()) == (0, [], {})


# --- everything at once, against plain Python -------------------------------

# Of both families, often the same number; instances and lists take what they want.
POOL = (
    *('0.0.0.0', '10.0.0.1', '10.0.0.2', '10.0.0.3', '10.0.1.0', '1.1.1.1', '255.255.255.255'),
    *('::', '::a00:1', '::a00:2', '2001:db8::1', '2001:db8:0:1::', '2001:db8:0:1::1'),
    'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff',
)
FAMILIES = [[ip for ip in POOL if ':' in ip], [ip for ip in POOL if ':' not in ip]]


@st.composite
def flows_among(draw):
    ips = st.sampled_from(draw(st.sampled_from(FAMILIES)))
    return Flow(
        src=draw(ips),
        dst=draw(ips),
        dst_port=draw(st.sampled_from([0, 22, 443])),
        src_port=draw(st.sampled_from([0, 40000])),
        reply_src=draw(st.sampled_from(['', '', draw(ips)])),
        reply_dst=draw(st.sampled_from(['', '', draw(ips)])),
        zone=draw(st.sampled_from([None, 3])),
    )


def network_around(ip, width):
    """Return the network of a pool address, as wide as the family at most."""
    bits = ipaddress.ip_address(ip).max_prefixlen
    return str(ipaddress.ip_network((ip, max(bits - width, 0)), strict=False))


networks = st.builds(
    network_around, st.sampled_from(POOL), st.sampled_from([0, 0, 1, 8, 32, 64, 65, 128])
)
some_lists = st.lists(
    st.builds(
        lambda direction, entries: (direction, *entries),
        st.sampled_from(['out', 'in', 'any', 'any']),
        st.lists(networks, max_size=4),
    ),
    min_size=1,
    max_size=5,
)
some_instances = st.lists(
    st.lists(st.sampled_from(POOL), min_size=1, max_size=3, unique=True), min_size=1, max_size=3
).map(lambda chosen: [instance(f'uuid-{n}', *ips) for n, ips in enumerate(chosen)])
some_flows = st.lists(flows_among(), min_size=5, max_size=40)


def pairs_of(instances, flows):
    """Return (instance, fixed IP, peer) of those who addressed, and of those who answered."""
    owners = collections.defaultdict(list)
    for each in instances:
        for address in each.definition.addresses:
            owners[address.ip].append(each.definition)
    sent, received = set(), set()
    for flow in flows:
        ends = ((flow.src, flow.dst, sent),)
        ends += ((flow.reply_src or flow.dst, flow.reply_dst or flow.src, received),)
        for ip, peer, pairs in ends:
            if len(owners[ip]) == 1:  # whose a shared address is nobody knows without a zone map
                [owner] = owners[ip]
                if peer not in {address.ip for address in owner.addresses}:
                    pairs.add((owner.uuid, ip, peer))
    return sent, received


def contacts_of(instances, flows, lists):
    """Return what Interval.contacts() should, by sets of Python."""
    sent, received = pairs_of(instances, flows)
    wanted = {'out': (sent, set()), 'in': (set(), received), 'any': (sent, received - sent)}
    return sorted(
        (number, uuid, ip, began, peer)
        for number, (direction, *entries) in enumerate(lists)
        for began, pairs in zip(('out', 'in'), wanted[direction], strict=True)
        for uuid, ip, peer in pairs
        if any(ipaddress.ip_address(peer) in ipaddress.ip_network(entry) for entry in entries)
    )


@hypothesis.given(some_instances, some_flows, some_lists)
def test_contacts_are_those_of_plain_sets(instances, flows, lists):
    found = Interval(instances, flows, *lists)
    contacts = contacts_of(instances, flows, lists)
    assert found.contacts() == contacts
    assert found.counts() == collections.Counter((uuid, number) for number, uuid, *_ in contacts)
    assert len(set(found.keys().values())) == len(contacts)


# --- one by one -------------------------------------------------------------


def test_contacts_can_be_chosen_by_index_and_by_mask():
    flows = [Flow('10.0.0.5', f'1.1.1.{n}') for n in range(5)]
    found = Interval([A], flows, ('out', '1.1.1.0/24')).matches
    peers = list(found.peers())
    assert list(found.where(np.array([3, 0])).peers()) == [peers[3], peers[0]]
    assert list(found.where(np.arange(5) > 2).peers()) == peers[3:]
    assert len(found.where(np.zeros(5, np.bool_))) == 0


def test_a_contact_has_the_same_key_in_every_interval():
    """Also when its instance gets another number, and other contacts come and go."""
    lists = [('out', '1.1.1.0/24'), ('any', '1.1.1.1')]
    before = Interval([A], [Flow('10.0.0.5', '1.1.1.1')], *lists).keys()
    others = [Flow('10.0.0.6', f'1.1.1.{n}') for n in range(9)]
    others += [Flow('10.0.0.5', '1.1.1.1', 53), Flow('10.0.0.5', '1.1.1.9')]
    later = Interval([B, A], others, *lists).keys()
    assert len(before) == 2
    assert {contact: later[contact] for contact in before} == before


def test_a_contact_that_the_other_side_began_is_another_one():
    lists = [('any', '1.1.1.1')]
    [sent] = Interval([A], [Flow('10.0.0.5', '1.1.1.1')], *lists).keys().values()
    [received] = Interval([A], [Flow('1.1.1.1', '10.0.0.5')], *lists).keys().values()
    assert sent != received


def test_contacts_that_differ_in_anything_have_keys_of_their_own():
    """In the instance, the fixed IP, the list or the peer."""
    a, own = instance('a', '10.0.0.5', '10.0.0.7'), ('10.0.0.5', '10.0.0.6', '10.0.0.7')
    flows = [Flow(src, f'1.1.{n // 250}.{n % 250}') for n in range(500) for src in own]
    flows += [Flow(f'1.1.{n // 250}.{n % 250}', src, 22) for n in range(500) for src in own]
    lists = [(direction, '1.1.0.0/16') for direction in ('out', 'in', 'any')]
    keys = Interval([a, B], flows, *lists).keys()
    assert len(keys) == 500 * 3 * 3
    assert len(set(keys.values())) == len(keys)


def test_peers_of_ipv6_that_share_halves_have_keys_of_their_own():
    """A sum or difference of both halves alone would make a network and a host the same."""
    a = instance('a', '2001:db8::5')
    halves = (0, 1, 2, 3, 0x20010DB800000000, 0x20010DB800000001, 2**64 - 1)
    peers = {str(ipaddress.IPv6Address(x << 64 | y)) for x in halves for y in halves}
    flows = [Flow('2001:db8::5', peer) for peer in peers]
    keys = Interval([a], flows, ('out', '::/0')).keys()
    assert len(keys) == len(peers)
    assert len(set(keys.values())) == len(keys)
