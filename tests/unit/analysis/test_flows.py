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

import ipaddress
import random
import socket

import numpy as np

from oie import model
from oie.analysis import attribution
from oie.analysis import behaviour
from oie.analysis import flows
from tests.unit.analysis import columns

Flow = columns.Flow


def instance(uuid, *ips, ports=()):
    addresses = tuple(
        model.Address(ip=ip, family='ipv6' if ':' in ip else 'ipv4', port_uuid=port)
        for ip, port in zip(ips, (*ports, *[''] * len(ips)), strict=False)
    )
    return model.Instance(
        definition=model.Definition(uuid=uuid, domain=uuid, addresses=addresses),
        domain_id=1,
        state=1,
        state_reason=1,
        read_at=0.0,
        read_clock_ns=0,
        cpu_time_ns=0,
        vcpus=1,
        memory_maximum_bytes=0,
    )


def attribute(instances, *batches, zones=None):
    found = attribution.Attribution(attribution.Owners(instances, zones))
    for batch in batches:
        if batch:
            found.take(columns.Columns(*batch))
    return found


def who(found, ends):
    """Return (instance, fixed IP, peer) of each flow, sorted."""
    slots = found.owners.slots
    peers = [
        str(
            ipaddress.ip_address(
                int(low) if family == socket.AF_INET else (int(high) << 64) + int(low)
            )
        )
        for family, high, low in zip(
            ends.family, ends.peer_high.tolist(), ends.peer_low.tolist(), strict=True
        )
    ]
    return sorted(
        (slots[slot].definition.uuid, slots[slot].address.ip, peer)
        for slot, peer in zip(ends.slot.tolist(), peers, strict=True)
    )


class TestSide:
    def test_original_source_initiates_and_its_peer_is_whom_it_addressed(self):
        found = attribute([instance('a', '10.0.0.5')], [Flow('10.0.0.5', '1.1.1.1')])
        assert who(found, found.outbound()) == [('a', '10.0.0.5', '1.1.1.1')]
        assert len(found.inbound()) == 0

    def test_source_of_replies_responds(self):
        found = attribute([instance('a', '10.0.0.5')], [Flow('8.8.8.8', '10.0.0.5')])
        assert who(found, found.inbound()) == [('a', '10.0.0.5', '8.8.8.8')]
        assert len(found.outbound()) == 0

    def test_source_nat_does_not_hide_the_initiator(self):
        flow = Flow('10.0.0.5', '1.1.1.1', reply_dst='203.0.113.5')
        found = attribute([instance('a', '10.0.0.5')], [flow])
        assert who(found, found.outbound()) == [('a', '10.0.0.5', '1.1.1.1')]

    def test_floating_ip_does_not_hide_the_responder(self):
        flow = Flow('8.8.8.8', '203.0.113.5', reply_src='10.0.0.5')
        found = attribute([instance('a', '10.0.0.5')], [flow])
        assert who(found, found.inbound()) == [('a', '10.0.0.5', '8.8.8.8')]

    def test_floating_ip_to_floating_ip_gives_each_side_what_it_sees(self):
        flow = Flow('10.0.0.5', '203.0.113.9', reply_src='10.1.0.9', reply_dst='203.0.113.5')
        found = attribute([instance('a', '10.0.0.5'), instance('b', '10.1.0.9')], [flow])
        assert who(found, found.outbound()) == [('a', '10.0.0.5', '203.0.113.9')]
        assert who(found, found.inbound()) == [('b', '10.1.0.9', '203.0.113.5')]

    def test_flow_between_two_instances_is_one_for_each(self):
        found = attribute(
            [instance('a', '10.0.0.5'), instance('b', '10.0.0.6')], [Flow('10.0.0.5', '10.0.0.6')]
        )
        assert found.entries_of().tolist() == [1, 1]
        assert who(found, found.outbound()) == [('a', '10.0.0.5', '10.0.0.6')]
        assert who(found, found.inbound()) == [('b', '10.0.0.6', '10.0.0.5')]

    def test_flow_with_itself_is_one_entry(self):
        found = attribute([instance('a', '10.0.0.5')], [Flow('10.0.0.5', '10.0.0.5')])
        assert found.entries_of().tolist() == [1]

    def test_ipv6_is_no_ipv4(self):
        found = attribute(
            [instance('a', '::a00:5'), instance('b', '10.0.0.5')],
            [Flow('10.0.0.5', '1.1.1.1')],
            [Flow('::a00:5', '2001:db8::1')],
        )
        assert who(found, found.outbound()) == [
            ('a', '::a00:5', '2001:db8::1'),
            ('b', '10.0.0.5', '1.1.1.1'),
        ]

    def test_flow_of_nobody_is_counted(self):
        found = attribute([instance('a', '10.0.0.5')], [Flow('9.9.9.9', '1.1.1.1')])
        assert (found.entries, found.unattributed, found.ambiguous) == (1, 1, 0)

    def test_one_address_at_two_ports_of_an_instance_is_one_fixed_ip(self):
        """A scrape with two samples of one identity would be refused as a whole (S24)."""
        twice = instance('a', '10.0.0.5', '10.0.0.5', ports=('port-a', 'port-b'))
        found = attribute([twice], [Flow('10.0.0.5', '1.1.1.1'), Flow('8.8.8.8', '10.0.0.5')])
        assert found.entries_of().tolist() == [2]
        assert found.ambiguous == 0
        zones = {7: 'port-a', 8: 'port-b'}
        batch = [Flow('10.0.0.5', '1.1.1.1', zone=7), Flow('10.0.0.5', '2.2.2.2', zone=8)]
        assert attribute([twice], batch, zones=zones).entries_of().tolist() == [2]


class TestZones:
    TWINS = (
        instance('a', '10.0.0.5', ports=('port-a',)),
        instance('b', '10.0.0.5', ports=('port-b',)),
    )

    def test_zone_tells_equal_addresses_apart(self):
        batch = [Flow('10.0.0.5', '1.1.1.1', zone=7), Flow('10.0.0.5', '2.2.2.2', zone=8)]
        found = attribute(self.TWINS, batch, zones={7: 'port-a', 8: 'port-b'})
        assert who(found, found.outbound()) == [
            ('a', '10.0.0.5', '1.1.1.1'),
            ('b', '10.0.0.5', '2.2.2.2'),
        ]

    def test_shared_address_without_a_zone_is_never_guessed(self):
        found = attribute(self.TWINS, [Flow('10.0.0.5', '1.1.1.1')])
        assert found.entries_of().tolist() == [0, 0]
        assert (found.unattributed, found.ambiguous) == (1, 1)

    def test_shared_address_in_a_foreign_zone_is_never_guessed(self):
        found = attribute(
            self.TWINS, [Flow('10.0.0.5', '1.1.1.1', zone=9)], zones={7: 'port-a', 8: 'port-b'}
        )
        assert (found.unattributed, found.ambiguous) == (1, 1)

    def test_zone_of_one_port_is_not_the_other_end(self):
        a, b = instance('a', '10.0.0.5', ports=('pa',)), instance('b', '10.0.0.6', ports=('pb',))
        batch = [Flow('10.0.0.5', '10.0.0.6', zone=1), Flow('10.0.0.5', '10.0.0.6', zone=2)]
        found = attribute([a, b], batch, zones={1: 'pa', 2: 'pb'})
        assert found.entries_of().tolist() == [1, 1]

    def test_zones_of_another_namespace_say_nothing_here(self):
        found = attribution.Attribution(attribution.Owners(self.TWINS, {7: 'port-a'}))
        batch = columns.Columns(Flow('10.0.0.5', '1.1.1.1', zone=7))
        found.take(batch, has_zones=False)
        assert found.ambiguous == 1

    def test_connection_seen_in_two_zones_is_one_connection_but_two_entries(self):
        batch = [Flow('10.0.0.5', '1.1.1.1', zone=7), Flow('10.0.0.5', '1.1.1.1', zone=9)]
        found = attribute([self.TWINS[0]], batch, zones={7: 'port-a'})
        assert found.entries_of().tolist() == [2]
        talk = behaviour.Talk.of(found.outbound())
        assert behaviour.summarise(talk, 1).flows.tolist() == [1]


class TestParts:
    def test_complete_part_is_added(self):
        found = attribute([instance('a', '10.0.0.5')], [Flow('10.0.0.5', '1.1.1.1')])
        part = found.part()
        part.take(columns.Columns(Flow('10.0.0.5', '2.2.2.2')))
        found.add(part)
        assert found.entries_of().tolist() == [2]
        assert len(found.outbound()) == 2


class TestKeys:
    @staticmethod
    def key(number):
        high = np.array([number >> 64], np.uint64)
        low = np.array([number & (2**64 - 1)], np.uint64)
        return int(attribution.keys(socket.AF_INET6, high, low)[0])

    def test_top_bit_of_the_network_cannot_be_undone_in_the_host_part(self):
        victim = int(ipaddress.ip_address('2001:db8::5'))
        steps = [sign << bit for bit in range(64) for sign in (1, -1)]
        steps += [a + b for a in steps for b in steps]
        chosen = {victim ^ 1 << 127 ^ (step & 2**64 - 1) for step in steps} | {
            (victim ^ 1 << 127) + step for step in steps
        }
        assert self.key(victim) not in {self.key(number % 2**128) for number in chosen}

    def test_addresses_of_both_families_have_keys_of_their_own(self):
        keys = {int(attribution.key_of(f'10.0.{n // 250}.{n % 250}')) for n in range(5000)}
        keys |= {int(attribution.key_of(f'::10.0.{n // 250}.{n % 250}')) for n in range(5000)}
        assert len(keys) == 10000


class TestTable:
    def test_every_key_is_found_and_no_other(self):
        numbers = random.Random(1)  # noqa: S311
        entries = {numbers.getrandbits(64): value for value in range(5000)}
        table = attribution.Table(entries)
        wanted = np.array(list(entries), np.uint64)
        assert table.find(wanted).tolist() == list(entries.values())
        others = np.array([numbers.getrandbits(64) for _ in range(5000)], np.uint64)
        assert set(table.find(others).tolist()) == {attribution.NOBODY}

    def test_keys_of_one_place_are_told_apart(self):
        entries = {place << 32 | 5: place for place in range(40)}
        table = attribution.Table(entries)
        assert table.find(np.array(list(entries), np.uint64)).tolist() == list(range(40))

    def test_empty_table_finds_nothing(self):
        found = attribution.Table({}).find(np.array([0, 1], np.uint64))
        assert found.tolist() == [attribution.NOBODY] * 2


VECTOR = [
    Flow('10.0.0.5', '1.1.1.1', 443, 40001),
    Flow('10.0.0.5', '1.1.1.1', 443, 40002),
    Flow('10.0.0.5', '1.1.1.1', 53, 40003, socket.IPPROTO_UDP),
    Flow('8.8.8.8', '10.0.0.5', 22, 40004),
    Flow('10.0.0.5', '10.0.0.5', 0, 0),
]
QUIET = [Flow('10.9.9.9', '1.1.1.1')]


def interval(instances, batch, memory, **limits):
    found = attribute(instances, batch)
    return flows.summarise(found, behaviour.Talks.of(found), memory, flows.Limits(**limits), odd=0)


class TestIntervals:
    OWN = (instance('a', '10.0.0.5'),)

    def test_sums_of_the_contract(self):
        table, _ = interval(self.OWN, VECTOR, None)
        (address,) = table.addresses
        assert address.entries == 5
        assert address.outbound == model.FlowDirection(
            flows=3, remotes=1, largest_remote=3, ports=2, largest_port=2
        )
        assert address.inbound.flows == 1

    def test_first_interval_is_a_silent_baseline(self):
        table, _ = interval(self.OWN, VECTOR, None)
        assert table.addresses[0].outbound.new_remotes is None

    def test_new_is_what_the_preceding_interval_did_not_have(self):
        _, memory = interval(self.OWN, VECTOR, None)
        table, memory = interval(self.OWN, VECTOR, memory)
        assert table.addresses[0].outbound.new_remotes == 0
        assert table.addresses[0].outbound.new_ports == 0
        table, memory = interval(self.OWN, QUIET, memory)
        assert table.addresses[0].outbound.flows == 0
        table, memory = interval(self.OWN, VECTOR, memory)
        assert table.addresses[0].outbound.new_remotes == 1
        assert table.addresses[0].outbound.new_ports == 2

    def test_memory_outlives_the_order_of_instances(self):
        others = (instance('b', '10.0.0.7'), *self.OWN)
        _, memory = interval(self.OWN, VECTOR, None)
        table, _ = interval(others, VECTOR, memory)
        assert table.addresses[1].outbound.new_remotes == 0

    def test_address_that_just_came_is_its_own_baseline(self):
        _, memory = interval((instance('b', '10.0.0.7'),), QUIET, None)
        table, memory = interval(self.OWN, VECTOR, memory)
        assert table.addresses[0].outbound.new_remotes == 0
        more = [*VECTOR, Flow('10.0.0.5', '3.3.3.3', 22)]
        table, _ = interval(self.OWN, more, memory)
        assert table.addresses[0].outbound.new_remotes == 1

    def test_gate_is_entries_or_remotes(self):
        (address,) = interval(self.OWN, VECTOR, None, minimum=5)[0].addresses
        assert address.is_active
        (address,) = interval(self.OWN, VECTOR, None, minimum=6)[0].addresses
        assert not address.is_active

    def test_guests_of_the_same_host_are_remotes(self):
        both = (*self.OWN, instance('b', '10.0.0.6'))
        table, _ = interval(both, [Flow('10.0.0.5', '10.0.0.6')], None)
        assert table.addresses[0].outbound.remotes == 1

    def test_own_other_address_is_no_remote(self):
        table, _ = interval(
            (instance('a', '10.0.0.5', '10.1.0.5'),), [Flow('10.0.0.5', '10.1.0.5')], None
        )
        assert [a.entries for a in table.addresses] == [1, 1]
        assert table.addresses[0].outbound.flows == 0

    def test_unanswered_connections_are_counted(self):
        batch = [Flow('10.0.0.5', f'1.1.1.{n}', is_replied=n % 2 == 0) for n in range(10)]
        table, _ = interval(self.OWN, batch, None)
        assert table.addresses[0].outbound.unreplied == 5

    def test_more_remotes_than_remembered_are_flagged(self):
        batch = [Flow('10.0.0.5', f'1.1.{n // 250}.{n % 250}') for n in range(1000)]
        table, memory = interval(self.OWN, batch, None, remembered=100)
        assert table.addresses[0].is_saturated
        assert table.addresses[0].outbound.remotes == 1000
        table, _ = interval(self.OWN, batch, memory, remembered=100)
        assert table.addresses[0].outbound.new_remotes == 0

    def test_no_instances_and_no_flows_are_no_trouble(self):
        assert interval((), [], None)[0].addresses == ()
        assert interval((), QUIET, None)[0].unattributed == 1


class TestPatterns:
    OWN = (instance('a', '10.0.0.5'),)
    SCAN = [Flow('10.0.0.5', f'1.1.1.{n}', 23, is_replied=False) for n in range(30)]
    PORTS = [Flow('10.0.0.5', '1.1.1.1', 1 + n, is_replied=False) for n in range(30)]
    BUSY = [Flow('10.0.0.5', f'1.1.1.{n}', 443) for n in range(30)]

    def patterns(self, *batches):
        memory, shown = None, []
        for batch in batches:
            table, memory = interval(self.OWN, batch, memory, fan_out=200)
            shown.append(sorted(table.addresses[0].patterns))
        return shown

    def test_scan_is_shown_after_two_intervals_and_ends_after_two(self):
        assert self.patterns(self.SCAN, self.SCAN, QUIET, self.SCAN, QUIET, QUIET) == [
            [],
            [flows.HORIZONTAL_SCAN],
            [flows.HORIZONTAL_SCAN],
            [flows.HORIZONTAL_SCAN],
            [flows.HORIZONTAL_SCAN],
            [],
        ]

    def test_many_ports_of_one_remote_are_a_vertical_scan(self):
        assert self.patterns(self.PORTS, self.PORTS)[1] == [flows.VERTICAL_SCAN]

    def test_answered_connections_are_no_scan(self):
        assert self.patterns(self.BUSY, self.BUSY)[1] == []

    def test_very_many_remotes_are_a_fan_out_even_if_answered(self):
        many = [Flow('10.0.0.5', f'1.1.{n // 250}.{n % 250}') for n in range(300)]
        assert self.patterns(many, many)[1] == [flows.FAN_OUT]
