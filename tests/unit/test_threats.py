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

"""Contacts from interval to interval: what is counted, kept, shown and written down."""

import collections
import logging
import threading

import hypothesis
from hypothesis import strategies as st
import pytest

from oie import address_sets
from oie import exceptions
from oie import flow_reader
from oie import model
from oie import threats
from oie.analysis import attribution
from oie.analysis import behaviour
from oie.analysis import flows
from oie.outputs import threat_log
from tests import builders
from tests.unit.analysis import columns

# numpy tells by a warning that a number ran over.
pytestmark = pytest.mark.filterwarnings('error')

Flow = columns.Flow

MAX_AGE = 30.0
TOR = threats.List('tor_exit', 'TOR', 'out')
SPAMHAUS = threats.List('spamhaus', 'SPAMHAUS', 'in')
OWN = threats.List('my_own', 'MY_OWN', 'any')


def instance(uuid, *ips):
    addresses = tuple(
        builders.address(ip=ip, family='ipv6' if ':' in ip else 'ipv4') for ip in ips
    )
    return builders.instance(
        builders.definition(uuid=uuid, domain=f'instance-{uuid}', addresses=addresses)
    )


A = instance('a', '10.0.0.5', '2001:db8::5')
B = instance('b', '10.0.0.6')


class Feeds:
    """Feeds whose lists a test hands over; a list is loaded as soon as it came."""

    def __init__(self, lists, take):
        self._lists = lists
        self._take = take
        self.sizes = {}
        self.starts = 0
        self.is_closed = False

    def give(self, name, *entries):
        self.sizes[name] = len(entries)
        self._take(name, columns.address_set(*entries))

    def start(self):
        self.starts += 1

    def lists(self):
        return [
            model.ThreatList(
                name=each.name,
                tag=each.tag,
                direction=each.direction,
                entries=self.sizes.get(each.name, 0),
                is_loaded=each.name in self.sizes,
            )
            for each in self._lists
        ]

    def close(self):
        self.is_closed = True


class Log:
    """A threat log that keeps what it is given."""

    def __init__(self):
        self.records = []
        self.skipped = 0
        self.reopened = 0
        self.is_closed = False

    def write(self, records):
        self.records.extend(records)

    def skip(self, number):
        self.skipped += number

    def health(self):
        return model.ThreatLogHealth(lines=len(self.records), dropped={'queue': self.skipped})

    def reopen(self):
        self.reopened += 1

    def close(self):
        self.is_closed = True

    def taken(self):
        """Return what came since the last time."""
        records, self.records = self.records, []
        return records


class Host:
    """Addresses of the host, or the error that reading them gives."""

    def __init__(self, *addresses):
        self.addresses = addresses
        self.error = ''

    def read(self):
        if self.error:
            raise exceptions.SourceError(self.error)
        return self.addresses


class Site:
    """A watch over these lists, with fakes around it and a clock that the test sets."""

    def __init__(self, *lists, **more):
        self.now = builders.NOW
        self.lists = lists or (TOR,)
        self.watch = threats.Watch(self.lists, self._make_feeds, clock=lambda: self.now, **more)

    def _make_feeds(self, take):
        self.feeds = Feeds(self.lists, take)
        return self.feeds

    def see(self, *seen, instances=(A, B), table=None, later=10.0):
        """Show the watch the flows of a complete interval, some seconds later."""
        self.now += later
        found = attribute(instances, seen)
        self.watch.see(found, behaviour.Talks.of(found), table or builders.flow_table())

    def read(self, *instances, known=('a', 'b'), later=0.0):
        self.now += later
        fields = self.watch.read(instances or (A, B), MAX_AGE, frozenset(known))
        assert set(fields) == {'threats'}
        return fields['threats']

    def contacts(self, *instances, **more):
        """Return what is active and the total, by instance and list."""
        found = self.read(*instances, **more).contacts
        numbers = {(c.definition.uuid, c.list): (c.active, c.total) for c in found}
        assert len(numbers) == len(found)
        return numbers


def attribute(instances, seen):
    found = attribution.Attribution(attribution.Owners(instances))
    batches = collections.defaultdict(list)
    for flow in seen:
        batches[':' in flow.src].append(flow)
    for batch in batches.values():
        found.take(columns.Columns(*batch))
    return found


def to(*peers, src='10.0.0.5'):
    return [Flow(src, peer) for peer in peers]


def site(*lists, entries=('1.1.1.0/24',), **more):
    """Return a site whose lists have all come with these entries."""
    made = Site(*lists, **more)
    for each in made.lists:
        made.feeds.give(each.name, *entries)
    return made


# --- what is counted --------------------------------------------------------


def test_a_lasting_contact_counts_once_in_each_interval():
    """The vector of the contract (19.5): active 1, contact +1 per interval."""
    here = site(entries=('1.1.1.1',))
    for total in (1, 2, 3):
        here.see(*to('1.1.1.1', '2.2.2.2'), Flow('10.0.0.5', '1.1.1.1', 53))
        assert here.contacts() == {('a', 'tor_exit'): (1, total)}


def test_totals_grow_by_what_is_active_and_outlast_it():
    here = site()
    here.see(*to('1.1.1.1', '1.1.1.2', '1.1.1.3'))
    here.see(*to('1.1.1.1'), *to('1.1.1.1', src='10.0.0.6'))
    assert here.contacts() == {('a', 'tor_exit'): (1, 3 + 1), ('b', 'tor_exit'): (1, 1)}
    here.see(*to('2.2.2.2'))
    assert here.contacts() == {('a', 'tor_exit'): (0, 4), ('b', 'tor_exit'): (0, 1)}


def test_each_list_counts_its_own_direction_and_entries():
    here = Site(TOR, SPAMHAUS, OWN)
    here.feeds.give('tor_exit', '1.1.1.1')
    here.feeds.give('spamhaus', '1.1.0.0/16')
    here.feeds.give('my_own', '1.0.0.0/8', '2a00::/16')
    here.see(
        *to('1.1.1.1', '1.2.0.0'),
        Flow('1.1.1.9', '10.0.0.5', 22),
        Flow('2001:db8::5', '2a00::7'),
    )
    found = here.read()
    assert {(c.list, c.direction): (c.active, c.total) for c in found.contacts} == {
        ('tor_exit', 'out'): (1, 1),
        ('spamhaus', 'in'): (1, 1),
        ('my_own', 'any'): (4, 4),
    }
    assert {c.definition for c in found.contacts} == {A.definition}


def test_a_failed_interval_adds_nothing():
    here = site()
    here.see(*to('1.1.1.1'))
    for _ in range(3):
        assert here.contacts(later=5.0) == {('a', 'tor_exit'): (1, 1)}


def test_what_is_active_ends_at_its_age_and_the_total_stays():
    here = site()
    here.see(*to('1.1.1.1'))
    assert here.contacts(later=MAX_AGE) == {('a', 'tor_exit'): (1, 1)}
    assert here.contacts(later=0.1) == {('a', 'tor_exit'): (0, 1)}
    here.see(*to('1.1.1.1'))
    assert here.contacts() == {('a', 'tor_exit'): (1, 2)}


def test_how_often_it_is_read_changes_no_total():
    here = site()
    here.see(*to('1.1.1.1'))
    here.see(*to('1.1.1.1'))
    assert {tuple(here.contacts().values()) for _ in range(5)} == {((1, 2),)}


def test_an_interval_that_the_flow_reader_could_not_read_is_none():
    class Table:
        odd = 0
        next = ()

        def read(self, make):
            if not self.next:
                return model.Reading(value=None, read_at=None, seconds=0.0, error='EPERM')
            found = make(None)
            found.take(columns.Columns(*self.next))
            return model.Reading(value=found, read_at=here.now, seconds=0.0)

        def health(self):
            return builders.flow_health()

    here, table = site(), Table()
    reader = flow_reader.FlowReader(
        table, flows.Limits(), watch=here.watch, clock=lambda: here.now
    )
    for table.next, total in ((to('1.1.1.1'), 1), ((), 1), (to('1.1.1.1'), 2)):
        reader.read((A, B), MAX_AGE, frozenset())
        assert here.contacts() == {('a', 'tor_exit'): (1, total)}


# --- whose totals live, and for how long --------------------------------------


def test_an_instance_that_is_not_shown_keeps_its_total_as_long_as_it_is_known():
    here = site()
    here.see(*to('1.1.1.1'))
    assert here.contacts(B) == {}
    here.see(*to('1.1.1.1', src='10.0.0.6'), instances=(B,))
    assert here.contacts(B) == {('b', 'tor_exit'): (1, 1)}
    assert here.contacts() == {('a', 'tor_exit'): (0, 1), ('b', 'tor_exit'): (1, 1)}
    here.see(*to('1.1.1.1'))
    assert here.contacts()['a', 'tor_exit'] == (1, 2)


def test_only_an_instance_that_is_not_known_any_more_loses_its_total():
    here = site()
    here.see(*to('1.1.1.1'), *to('1.1.1.1', src='10.0.0.6'))
    assert here.contacts(B, known=('b',)) == {('b', 'tor_exit'): (1, 1)}
    here.see(*to('1.1.1.1'), *to('1.1.1.1', src='10.0.0.6'))
    # It came back: another life of it, or another instance.
    assert here.contacts() == {('a', 'tor_exit'): (1, 1), ('b', 'tor_exit'): (1, 2)}


def test_with_its_total_an_instance_loses_what_is_active():
    """More active than ever counted would be told of one that is back before the next interval."""
    here = site(has_zeros=True)
    here.see(*to('1.1.1.1'))
    here.read(B, known=('b',))
    assert here.contacts() == {('a', 'tor_exit'): (0, 0), ('b', 'tor_exit'): (0, 0)}


def test_a_new_definition_of_an_instance_goes_on_with_its_total():
    """Another fixed IP, another name: libvirt made its XML anew."""
    here = site()
    here.see(*to('1.1.1.1'))
    renewed = instance('a', '10.0.0.9')
    here.see(*to('1.1.1.1', src='10.0.0.9'), instances=(renewed,))
    [found] = here.read(renewed).contacts
    assert (found.definition, found.active, found.total) == (renewed.definition, 1, 2)


peers = st.lists(st.sampled_from(['1.1.1.1', '1.1.1.2', '2.2.2.2']), unique=True, max_size=3)
who = st.sets(st.sampled_from(['a', 'b']))
steps = st.lists(
    st.one_of(
        st.tuples(st.just('see'), peers, peers),
        st.tuples(st.just('swap'), st.sets(st.sampled_from(['1.1.1.1', '1.1.1.2']))),
        st.tuples(st.just('read'), who, st.just({'a', 'b'}), st.sampled_from([1.0, MAX_AGE + 1])),
        st.tuples(st.just('read'), who, who, st.just(1.0)),
    ),
    max_size=30,
)


@hypothesis.given(steps)
def test_totals_of_known_instances_are_the_sum_of_their_intervals(steps):
    """Whatever happens between: failures, outages, new lists, instances that are not shown."""
    here, on_list, totals = Site(), set(), collections.Counter()
    for kind, *what in steps:
        if kind == 'see':
            here.see(*to(*what[0]), *to(*what[1], src='10.0.0.6'), later=1.0)
            totals += {
                uuid: len(on_list.intersection(seen))
                for uuid, seen in zip('ab', what, strict=True)
            }
        elif kind == 'swap':
            [on_list] = what
            here.feeds.give('tor_exit', *on_list)
        else:
            shown, known, later = what
            here.now += later
            totals = collections.Counter({u: n for u, n in totals.items() if u in known})
            instances = tuple(each for each in (A, B) if each.definition.uuid in shown & known)
            found = here.watch.read(instances, MAX_AGE, known)['threats'].contacts
            assert {c.definition.uuid: c.total for c in found} == {
                uuid: totals[uuid] for uuid in shown & known if totals[uuid]
            }


# --- zeros --------------------------------------------------------------------


def test_without_contacts_nobody_is_told_of():
    here = site()
    here.see(*to('2.2.2.2'))
    assert here.contacts() == {}


def test_zeros_are_told_of_every_instance_as_soon_as_a_list_is_loaded():
    here = Site(TOR, OWN, has_zeros=True)
    assert here.contacts() == {}
    here.feeds.give('my_own', '1.1.1.1')
    assert here.contacts() == {('a', 'my_own'): (0, 0), ('b', 'my_own'): (0, 0)}
    here.see(*to('1.1.1.1'))
    assert here.contacts() == {('a', 'my_own'): (1, 1), ('b', 'my_own'): (0, 0)}


# --- lists come and go ----------------------------------------------------------


def test_before_a_list_came_there_are_no_contacts_with_it():
    here = Site(TOR)
    here.see(*to('1.1.1.1'))
    assert here.contacts() == {}
    assert [each.is_loaded for each in here.read().lists] == [False]


def test_a_new_list_counts_from_the_next_interval_on():
    here = site(entries=('1.1.1.1',))
    here.see(*to('1.1.1.1', '2.2.2.1', '2.2.2.2'))
    here.feeds.give('tor_exit', '2.2.2.0/24')
    assert here.contacts() == {('a', 'tor_exit'): (1, 1)}
    here.see(*to('1.1.1.1', '2.2.2.1', '2.2.2.2'))
    assert here.contacts() == {('a', 'tor_exit'): (2, 1 + 2)}


def test_a_new_list_leaves_the_others_as_they_are():
    here = site(TOR, OWN, entries=('1.1.1.1',))
    here.feeds.give('my_own', '9.9.9.9')
    here.see(*to('1.1.1.1'))
    assert here.contacts() == {('a', 'tor_exit'): (1, 1)}


def test_a_list_that_became_empty_ends_what_is_active_and_no_total():
    here = site()
    here.see(*to('1.1.1.1'))
    here.feeds.give('tor_exit')
    here.see(*to('1.1.1.1'))
    assert here.contacts() == {('a', 'tor_exit'): (0, 1)}


def test_lists_that_come_at_the_same_time_all_arrive():
    """Each feed has a thread of its own."""
    lists = [threats.List(f'list_{n}', f'LIST_{n}', 'out') for n in range(16)]
    here = Site(*lists)
    together = threading.Barrier(len(lists))

    def give(name):
        together.wait(20)
        for entry in ('9.9.9.9', '1.1.1.1'):
            here.feeds.give(name, entry)

    feeding = [threading.Thread(target=give, args=(each.name,)) for each in lists]
    for thread in feeding:
        thread.start()
    for thread in feeding:
        thread.join(20)
    here.see(*to('1.1.1.1'))
    assert here.contacts() == {('a', each.name): (1, 1) for each in lists}


def test_how_the_lists_are_is_shown_as_the_feeds_tell_it_now():
    here = site()
    assert [each.entries for each in here.read().lists] == [1]
    here.feeds.give('tor_exit', '1.1.1.1', '1.1.1.2')
    assert list(here.read().lists) == here.feeds.lists()


def test_without_any_list_there_is_nothing_to_find():
    """The threat log and the look at the host may be wanted for themselves."""
    here = Site()
    here.watch = threats.Watch((), here._make_feeds, log=(log := Log()), host=Host('1.1.1.1'))
    here.lists = ()
    here.see(*to('1.1.1.1'))
    assert (here.read().contacts, here.read().host, log.records) == ((), (), [])


# --- the threat log ---------------------------------------------------------------


def record(src, dst, direction, tag='TOR', of=A):
    return threat_log.Contact(
        tag=tag,
        domain=of.definition.domain,
        uuid=of.definition.uuid,
        project=builders.PROJECT,
        user=builders.USER,
        src=src,
        dst=dst,
        direction=direction,
    )


def test_what_was_counted_is_logged_and_nothing_else():
    """S19: source, destination and direction as observed, the tag that of the list."""
    here = site(TOR, SPAMHAUS, OWN, entries=('1.1.1.0/24', '2a00::/16'), log=(log := Log()))
    here.see(
        *to('1.1.1.1', '2.2.2.2'),
        Flow('10.0.0.5', '1.1.1.1', 53),
        Flow('1.1.1.9', '10.0.0.6', 22),
        Flow('2001:db8::5', '2a00::7'),
        Flow('1.1.1.1', '9.9.9.9'),
    )
    expected = [
        record('10.0.0.5', '1.1.1.1', 'out'),
        record('2001:db8::5', '2a00::7', 'out'),
        record('1.1.1.9', '10.0.0.6', 'in', 'SPAMHAUS', B),
        record('10.0.0.5', '1.1.1.1', 'out', 'MY_OWN'),
        record('2001:db8::5', '2a00::7', 'out', 'MY_OWN'),
        record('1.1.1.9', '10.0.0.6', 'in', 'MY_OWN', B),
    ]
    assert collections.Counter(log.records) == collections.Counter(expected)
    assert sum(total for _, total in here.contacts().values()) == len(expected)


def test_a_pair_that_talks_both_ways_is_one_record_of_a_list_for_any_direction():
    here = site(OWN, log=(log := Log()))
    here.see(*to('1.1.1.1'), Flow('1.1.1.1', '10.0.0.5', 22))
    assert log.records == [record('10.0.0.5', '1.1.1.1', 'out', 'MY_OWN')]


def test_a_lasting_contact_is_handed_over_in_each_interval():
    """Summing up is the business of the log."""
    here = site(log=(log := Log()))
    for _ in range(3):
        here.see(*to('1.1.1.1'))
        assert log.taken() == [record('10.0.0.5', '1.1.1.1', 'out')]


def test_as_many_contacts_as_are_logged_at_most_are_all_logged(monkeypatch):
    monkeypatch.setattr(threats, 'MOST_LOGGED', 3)
    here = site(log=(log := Log()))
    for _ in range(2):
        here.see(*to('1.1.1.1', '1.1.1.2', '1.1.1.3'))
        assert (len(log.taken()), log.skipped) == (3, 0)


def test_of_too_many_contacts_the_new_ones_are_logged_first_and_the_others_counted(monkeypatch):
    monkeypatch.setattr(threats, 'MOST_LOGGED', 5)
    here = site(log=(log := Log()))

    def logged(*seen):
        here.see(*to(*seen))
        return {each.dst for each in log.taken()}

    old = [f'1.1.1.{n}' for n in range(4)]
    new = [f'1.1.1.{n}' for n in range(100, 104)]
    assert logged(*old) == set(old)
    found = logged(*old, *new)
    assert found > set(new)
    assert (len(found), log.skipped) == (5, 3)
    assert here.contacts() == {('a', 'tor_exit'): (8, 4 + 8)}


def test_contacts_that_were_not_logged_come_first_in_the_next_interval(monkeypatch):
    monkeypatch.setattr(threats, 'MOST_LOGGED', 3)
    here = site(log=(log := Log()))
    lasting = [f'1.1.1.{n}' for n in range(5)]
    logged = []
    for _ in range(2):
        here.see(*to(*lasting))
        logged.append({each.dst for each in log.taken()})
    assert [len(each) for each in logged] == [3, 3]
    assert set().union(*logged) == set(lasting)
    assert log.skipped == 2 + 2


def test_the_limit_of_records_is_no_small_number():
    here = site(OWN, entries=('11.0.0.0/8',), log=(log := Log()))
    here.see(*to(*(f'11.0.{n // 250}.{n % 250}' for n in range(threats.MOST_LOGGED + 1))))
    assert (len(log.records), log.skipped) == (5000, 1)
    assert here.contacts() == {('a', 'my_own'): (5001, 5001)}


def test_health_of_the_log_is_shown():
    here = site(log=(log := Log()))
    here.see(*to('1.1.1.1'))
    log.skip(4)
    assert here.read().log == model.ThreatLogHealth(lines=1, dropped={'queue': 4})
    assert site().read().log is None


def test_the_log_is_opened_anew_on_demand():
    here = site(log=(log := Log()))
    here.watch.reopen_log()
    assert log.reopened == 1
    site().watch.reopen_log()


# --- outbound behaviour in the log --------------------------------------------------


def table_of(**more):
    return builders.flow_table(builders.address_flows(A.definition, **more))


def outbound(**more):
    values = {
        'domain': 'instance-a',
        'uuid': 'a',
        'project': builders.PROJECT,
        'user': builders.USER,
        'ip': '10.0.0.5',
        'family': 'ipv4',
        'uniq_remotes': 25,
        'new_remotes': 5,
        'flows': 30,
        'max_single_remote': 4,
        'uniq_dst_ports': 3,
        'new_dst_ports': 1,
        'max_single_dst_port_flows': 21,
    }
    return threat_log.Outbound(**{**values, **more})


def test_outbound_behaviour_of_an_active_address_is_logged_in_each_interval():
    here = site(log=(log := Log()), logs_outbound=True)
    for _ in range(2):
        here.see(table=table_of())
        assert log.taken() == [outbound()]


def test_each_fixed_ip_has_its_own_record():
    here = site(log=(log := Log()), logs_outbound=True)
    addresses = [builders.address_flows(A.definition, each) for each in A.definition.addresses]
    here.see(table=builders.flow_table(*addresses))
    assert log.records == [outbound(), outbound(ip='2001:db8::5', family='ipv6')]


@pytest.mark.parametrize('more', [{'is_active': False}, {'outbound': model.FlowDirection()}])
def test_a_quiet_address_and_one_without_outbound_flows_are_not_logged(more):
    """The gate of the series (S2) is that of the record."""
    here = site(log=(log := Log()), logs_outbound=True)
    here.see(table=table_of(**more))
    assert log.records == []


def test_what_nobody_could_compare_is_0_new_in_the_log_as_in_the_series():
    """S4: the first interval after a start or an outage is a silent baseline."""
    here = site(log=(log := Log()), logs_outbound=True)
    here.see(table=table_of(outbound=builders.flow_direction(new_remotes=None, new_ports=None)))
    assert log.records == [outbound(new_remotes=0, new_dst_ports=0)]


def test_outbound_behaviour_is_logged_only_if_somebody_looks_at_it():
    here = site(log=(log := Log()))
    here.see(*to('1.1.1.1'), table=table_of())
    assert log.records == [record('10.0.0.5', '1.1.1.1', 'out')]
    site(logs_outbound=True).see(table=table_of())


# --- addresses of the host ----------------------------------------------------------


def listed(name, ip, family='ipv4'):
    return model.ListedAddress(list=name, ip=ip, family=family)


def test_addresses_of_the_host_are_told_for_each_list_they_are_on():
    """Whatever direction counts for contacts."""
    host = Host('198.51.100.7', '203.0.113.1', '2a00::7', '0.0.0.0', '255.255.255.255')
    here = Site(TOR, SPAMHAUS, host=host)
    here.feeds.give('tor_exit', '198.51.100.7', '2a00::/16')
    here.feeds.give('spamhaus', '198.51.100.0/24', '255.255.255.255')
    found = here.read()
    assert found.looks_at_host
    assert set(found.host) == {
        listed('tor_exit', '198.51.100.7'),
        listed('spamhaus', '198.51.100.7'),
        listed('tor_exit', '2a00::7', 'ipv6'),
        listed('spamhaus', '255.255.255.255'),
    }
    assert len(found.host) == 4


def test_the_host_is_looked_up_anew_in_every_cycle():
    here = site(host=(host := Host('1.1.1.1')))
    assert here.read().host == (listed('tor_exit', '1.1.1.1'),)
    host.addresses = ('1.1.1.2', '9.9.9.9')
    assert here.read().host == (listed('tor_exit', '1.1.1.2'),)
    here.feeds.give('tor_exit', '9.9.9.9')
    assert here.read().host == (listed('tor_exit', '9.9.9.9'),)


def test_addresses_of_the_host_that_nobody_wants_are_not_looked_up():
    """Private and reserved ones (S23); what the instances talk to is another matter."""
    unwanted = columns.address_set('10.0.0.0/8', 'fc00::/7')
    here = site(
        entries=('10.0.0.0/8', 'fc00::/7', '1.1.1.1'),
        host=Host('10.9.9.9', '1.1.1.1', 'fd00::1', '11.0.0.0'),
        log=(log := Log()),
        unwanted=unwanted,
    )
    here.see(*to('10.9.9.9'))
    assert here.read().host == (listed('tor_exit', '1.1.1.1'),)
    assert here.contacts() == {('a', 'tor_exit'): (1, 1)}
    assert {each.ip for each in log.records if isinstance(each, threat_log.HostThreat)} == {
        '1.1.1.1'
    }


def test_a_listed_host_is_logged():
    here = site(TOR, OWN, host=Host('1.1.1.1', '9.9.9.9'), log=(log := Log()))
    here.read()
    assert log.records == [
        threat_log.HostThreat(list='tor_exit', ip='1.1.1.1', family='ipv4'),
        threat_log.HostThreat(list='my_own', ip='1.1.1.1', family='ipv4'),
    ]


def test_where_nobody_asks_nothing_is_known_of_the_host():
    found = site().read()
    assert (found.host, found.looks_at_host) == (None, False)


def test_addresses_that_are_not_known_are_not_told_as_none_and_logged_once(caplog):
    here = site(host=(host := Host('1.1.1.1')), log=(log := Log()))
    host.error = 'rtnetlink: EPERM'
    for _ in range(3):
        found = here.read()
        assert (found.host, found.looks_at_host) == (None, True)
    assert [(each.levelno, 'EPERM' in each.message) for each in caplog.records] == [
        (logging.WARNING, True)
    ]
    assert log.records == []


def test_the_end_of_a_failure_is_logged_once_too(caplog):
    here = site(host=(host := Host('1.1.1.1')))
    host.error = 'rtnetlink: EPERM'
    here.read()
    host.error = ''
    caplog.clear()
    for _ in range(3):
        assert here.read().host == (listed('tor_exit', '1.1.1.1'),)
    assert [each.message.endswith('over') for each in caplog.records] == [True]


def test_contacts_are_counted_while_the_host_is_not_known():
    here = site(host=(host := Host()))
    host.error = 'rtnetlink: EPERM'
    here.see(*to('1.1.1.1'))
    assert here.contacts() == {('a', 'tor_exit'): (1, 1)}


# --- from start to end ----------------------------------------------------------------


def test_feeds_begin_with_the_first_read_and_once():
    """In the cycle's own thread: a daemon that only checks its options fetches nothing."""
    here = site()
    assert here.feeds.starts == 0
    for _ in range(3):
        here.read()
    assert here.feeds.starts == 1


def test_a_list_may_come_while_the_feeds_are_being_made():
    def make_feeds(take):
        take('tor_exit', columns.address_set('1.1.1.1'))
        return Feeds((TOR,), take)

    here = Site()
    here.watch = threats.Watch((TOR,), make_feeds, clock=lambda: here.now)
    here.see(*to('1.1.1.1'))
    assert here.contacts() == {('a', 'tor_exit'): (1, 1)}


def test_the_end_ends_feeds_and_log():
    here = site(log=(log := Log()))
    here.watch.close()
    assert (here.feeds.is_closed, log.is_closed) == (True, True)


def test_it_can_end_before_it_began_and_without_a_log():
    here = Site()
    here.watch.close()
    assert (here.feeds.is_closed, here.feeds.starts) == (True, 0)


def test_more_than_64_lists_are_refused_at_once():
    lists = [threats.List(f'list_{n}', f'LIST_{n}', 'out') for n in range(65)]
    with pytest.raises(ValueError, match='65 sets'):
        Site(*lists)
    assert address_sets.MOST_SETS == 64
