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


"""Contacts through the whole daemon: counted, logged, polled; and addresses of the host.

Connections stand in the table of a private namespace, lists come from files and
from a web server on loopback, instances from libvirt's test driver behind a
libvirtd that can be restarted.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import importlib.util
import itertools
import json
import os
import pathlib
import re
import secrets
import signal

import pytest

from tests import ctnetlink
from tests import machine
from tests.functional import contacts
from tests.functional import exporter as exporters
from tests.functional import flows
from tests.functional import lab
from tests.functional import processes
from tests.functional import published
from tests.functional import test_ceilometer as ceilometer_tests
from tests.unit.feeds import feed_server

#: A fixture: polls once with Ceilometer's own agent.
poll = ceilometer_tests.poll

INTERVAL = 1.0
STAMP = re.compile(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)')
NEW_PEER = '5.6.77.9'
CONTACT = ('tag', 'uuid', 'src', 'dst', 'direction')
OUTBOUND = {
    'uniq_remotes': 'oie_outbound_unique_remotes',
    'flows': 'oie_outbound_flows',
    'max_single_remote': 'oie_outbound_max_flows_single_remote',
    'uniq_dst_ports': 'oie_outbound_unique_dst_ports',
    'max_single_dst_port_flows': 'oie_outbound_max_flows_single_dst_port',
}
IDENTITY = ('tag', 'domain', 'uuid', 'project', 'user')

Line = dict[str, str]
Reader = Callable[[str], Line]


@pytest.fixture(scope='module', autouse=True)
def _machine(laboratory: None) -> None:
    machine.require(flows.what_is_missing())


@pytest.fixture
def _ceilometer() -> None:
    if importlib.util.find_spec('ceilometer') is None:
        machine.give_up('ceilometer is not installed (tests/functional/requirements.txt)')


@pytest.fixture(scope='module')
def node(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return contacts.write_node(tmp_path_factory.mktemp('node'))


# --- contacts of every list, direction and kind of entry --------------------------


@dataclasses.dataclass(frozen=True)
class Station:
    """An exporter with a list of every form for each direction."""

    libvirtd: lab.Libvirtd
    router: flows.Namespace
    exporter: exporters.Exporter
    lists: Sequence[published.Published]

    def expected(self) -> dict[contacts.Key, int]:
        return contacts.expected(self.router.listed(), self.lists)

    def replace(self, *entries: ctnetlink.Entry) -> None:
        self.router.flush()
        self.router.add(*entries)


@pytest.fixture(scope='module')
def station(node: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    directory = tmp_path_factory.mktemp('station')
    lists = published.of_every_kind()
    with (
        lab.Libvirtd() as libvirtd,
        flows.Namespace() as router,
        feed_server.FeedServer(tls=True) as server,
    ):
        feeds = {each.name: each.publish(server, directory) for each in lists}
        uri = f'test+unix://{node}?socket={libvirtd.socket()}'
        settings = contacts.settings_of(router, feeds, directory / 'cache')
        with exporters.Exporter(uri, settings) as exporter:
            exporter.wait_for(lambda now: contacts.are_loaded(now, *feeds), 'all lists', 60)
            yield Station(libvirtd, router, exporter, lists)
            assert 'Traceback' not in exporter.log


def test_contacts_are_those_that_ipaddress_finds(station: Station) -> None:
    station.replace(*contacts.traffic(station.lists))

    scrape = station.exporter.next_scrape()

    expected = station.expected()
    assert contacts.active(scrape, station.lists) == expected
    assert {name for _, name in expected} == {each.name for each in station.lists}
    sizes = {each.name: scrape.value(f'oie_{each.name}_entries') for each in station.lists}
    assert sizes == {each.name: each.size for each in station.lists}
    (series,) = scrape.of('oie_customlist_contact', instance_uuid=contacts.WEB)
    assert series.labels == {
        'domain': 'instance-00000001',
        'instance_uuid': contacts.WEB,
        'project_uuid': '0a4f5c86d1c34b0e9d6a3f7be1f0c2a1',
        'user_uuid': '3f1b2c4d5e6f47a8b9c0d1e2f3a4b5c6',
        'direction': 'out',
    }


def test_totals_grow_by_what_is_active_in_each_interval(station: Station) -> None:
    entries = contacts.traffic(station.lists)
    with exporters.Watch(station.exporter) as watch:
        for some in (entries[::2], (), entries[::3]):
            station.replace(*some)
            watch.wait_for_cycles(2)
            assert contacts.active(watch.cycles[-1], station.lists) == station.expected()

    assert_totals_follow(watch.cycles, station.lists)


def test_table_that_could_not_be_read_for_a_while_costs_no_total(station: Station) -> None:
    exporter = station.exporter
    station.replace(*contacts.traffic(station.lists))
    many = flows.many(
        ctnetlink.Entry(ctnetlink.tcp('10.64.0.1', '10.65.0.1')), contacts.MOST_ENTRIES + 1
    )
    with exporters.Watch(exporter) as watch:
        watch.wait_for_cycles(2)
        station.router.add_many(many)
        exporter.wait_for(lambda now: not contacts.active(now, station.lists), 'no contacts')
        station.router.add_many(flows.deletions(many))
        exporter.wait_for(lambda now: contacts.active(now, station.lists), 'contacts again')
        watch.wait_for_cycles(2)

    assert contacts.active(watch.cycles[-1], station.lists) == station.expected()
    assert not all(scrape.value('oie_host_conntrack_complete') for scrape in watch.cycles)
    assert_totals_follow(watch.cycles, station.lists)


def test_libvirt_that_was_away_costs_no_total(station: Station) -> None:
    exporter, libvirtd = station.exporter, station.libvirtd
    station.replace(*contacts.traffic(station.lists))
    with exporters.Watch(exporter) as watch:
        watch.wait_for_cycles(2)
        libvirtd.kill()
        without = exporter.wait_for(lambda now: not now.instances(), 'no instances')
        libvirtd.start()
        exporter.wait_for(exporters.Scrape.instances, 'the instances again')
        watch.wait_for_cycles(2)

    assert contacts.active(watch.cycles[-1], station.lists) == station.expected()
    assert not contacts.totals(without, station.lists)
    assert without.value('oie_customlist_entries')
    assert_totals_follow(watch.cycles, station.lists)


def assert_totals_follow(
    cycles: Sequence[exporters.Scrape], lists: Sequence[published.Published]
) -> None:
    """Check that each total is the one before and, in a complete interval, what is active."""
    known, compared = contacts.totals(cycles[0], lists), 0
    for before, now in itertools.pairwise(cycles):
        totals, active = contacts.totals(now, lists), contacts.active(now, lists)
        is_complete = now.value('oie_host_conntrack_complete') == 1
        for key, total in totals.items():
            assert total >= known.get(key, 0), key
            # Else a cycle in between may have gone unseen.
            if now.taken - before.taken < 1.9 * INTERVAL:
                assert total - known.get(key, 0) == is_complete * active.get(key, 0), key
                compared += 1
        known |= totals
        if now.instances():
            assert totals.keys() == known.keys()
    assert compared > len(lists)


# --- pollster and Ceilometer ------------------------------------------------------


def test_pollster_gives_every_instance_with_every_list(station: Station) -> None:
    station.replace(*contacts.traffic(station.lists))
    before = station.exporter.next_scrape()

    entries = station.exporter.pollster('contacts').entries

    after = station.exporter.next_scrape(1)
    found = {(entry['instance_id'], entry['threat_list']): entry for entry in entries}
    everything = set(itertools.product(contacts.UUIDS, (each.name for each in station.lists)))
    assert len(found) == len(entries)
    assert found.keys() == everything
    expected = station.expected()
    least, most = (contacts.totals(scrape, station.lists) for scrape in (before, after))
    directions = {each.name: each.direction for each in station.lists}
    for key, entry in found.items():
        assert entry['resource_id'] == f'{key[0]}-{key[1]}'
        assert entry['direction'] == directions[key[1]]
        assert entry['contacts_active'] == expected.get(key, 0)
        assert least.get(key, 0) <= entry['contacts'] <= most.get(key, 0)


@pytest.mark.usefixtures('_ceilometer')
def test_ceilometer_makes_samples_of_the_contacts(
    station: Station, poll: ceilometer_tests.Poll
) -> None:
    station.replace(*contacts.traffic(station.lists))
    station.exporter.next_scrape()
    # From now on no total changes.
    station.router.flush()
    totals = contacts.totals(station.exporter.next_scrape(), station.lists)

    polled = poll(
        station.exporter,
        ('oie.{contacts_cumulative_contact}', 'oie.{contacts_gauge_contact}'),
    )

    assert polled.errors == []
    samples = polled.of('oie.threat.contacts', counter_type='cumulative', counter_unit='contact')
    names = [each.name for each in station.lists]
    assert {sample['resource_id']: sample['counter_volume'] for sample in samples} == {
        f'{uuid}-{name}': totals.get((uuid, name), 0)
        for uuid, name in itertools.product(contacts.UUIDS, names)
    }
    metadata = [sample['resource_metadata'] for sample in samples]
    assert {(each['threat_list'], each['direction']) for each in metadata} == {
        (each.name, each.direction) for each in station.lists
    }
    assert len(polled.of('oie.threat.contacts.active', counter_volume=0)) == len(samples)


# --- the threat log, and addresses of the host ------------------------------------


class Interfaces:
    """Two interfaces of this machine that nobody uses, each with addresses of its own."""

    ADDRESSES = ('5.6.77.7', '2a00:1:77::7')
    BESIDE = '5.6.77.8'

    def __init__(self) -> None:
        self.name = f'{flows.PREFIX}{secrets.token_hex(3)}'
        self._other = f'{self.name}p'

    def __enter__(self) -> 'Interfaces':
        processes.run('ip', 'link', 'add', self.name, 'type', 'veth', 'peer', 'name', self._other)
        processes.end_later(self, self.close)
        for address in self.ADDRESSES:
            self._add(address, self.name)
        self._add(self.BESIDE, self._other)
        for name in (self.name, self._other):
            processes.run('ip', 'link', 'set', name, 'up')
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        processes.ended(self)
        processes.run('ip', 'link', 'delete', self.name)

    def set(self, state: str) -> None:
        processes.run('ip', 'link', 'set', self.name, state)

    def _add(self, address: str, interface: str) -> None:
        # A single address, whose only route is the machine's own to itself.
        more = ('nodad',) if ':' in address else ()
        processes.run('ip', 'address', 'add', address, 'dev', interface, *more)


@dataclasses.dataclass(frozen=True)
class Logged:
    """An exporter with a threat log, and the lists and interfaces that it watches."""

    exporter: exporters.Exporter
    router: flows.Namespace
    interfaces: Interfaces
    lists: Sequence[published.Published]
    path: pathlib.Path

    def lines(self, read: Reader, *tags: str) -> list[Line]:
        """Return the lines with these tags, of files that were renamed too."""
        texts = (path.read_text(encoding='ascii') for path in self.path.parent.glob('threat.log*'))
        found = (read(line) for line in itertools.chain.from_iterable(map(str.splitlines, texts)))
        return [line for line in found if line['tag'] in tags]

    @property
    def tags(self) -> tuple[str, ...]:
        return tuple(each.tag for each in self.lists)

    def expected(self) -> set[tuple[str, ...]]:
        return contacts.expected_lines(self.router.listed(), self.lists)


@contextlib.contextmanager
def logging(node: pathlib.Path, directory: pathlib.Path, form: str) -> Iterator[Logged]:
    kind = published.KINDS['customlist']
    wide = dataclasses.replace(kind, is_wide=True)
    lists = [
        published.Published('customlist', kind, 'any'),
        published.Published('ours', wide, 'out'),
        published.Published('scanners', kind, 'in'),
    ]
    path = directory / 'threat.log'
    with (
        feed_server.FeedServer() as server,
        flows.Namespace() as router,
        Interfaces() as interfaces,
    ):
        settings = contacts.settings_of(
            router,
            {each.name: each.publish(server, directory) for each in lists},
            directory / 'cache',
            threat_log={
                'enabled': 'true',
                'path': path,
                'window': '1h',
                'max_lines_per_second': 10000,
                'format': form,
            },
            host_threats={'enabled': 'true', 'interfaces': interfaces.name},
            outbound={'enabled': 'true'},
        )
        router.add(*contacts.traffic(lists))
        with exporters.Exporter(f'test://{node}', settings) as exporter:
            exporter.wait_for(
                lambda now: contacts.are_loaded(now, *(each.name for each in lists)), 'lists'
            )
            yield Logged(exporter, router, interfaces, lists, path)


@pytest.fixture(scope='module')
def logged(node: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    """Return an exporter whose log is as the reference exporter has it."""
    with logging(node, tmp_path_factory.mktemp('log'), 'reference') as logged:
        yield logged


def reference_line(text: str) -> Line:
    """Return the fields of a line as the reference exporter has it."""
    stamp, *fields = text.split(' ')
    assert STAMP.fullmatch(stamp), text
    pairs = (field.partition('=') for field in fields)
    return {name: value.encode().decode('unicode_escape') for name, _, value in pairs}


def json_line(text: str) -> Line:
    fields = json.loads(text)
    assert STAMP.fullmatch(fields.pop('time')), text
    return {name: str(value) for name, value in fields.items()}


def check_contacts(logged: Logged, read: Reader) -> None:
    """Check that there is a line for each contact, and no other."""
    expected = logged.expected()
    processes.wait_for(
        lambda: len(logged.lines(read, *logged.tags)) >= len(expected), what='lines'
    )

    lines = logged.lines(read, *logged.tags)

    found = [tuple(line[name] for name in CONTACT) for line in lines]
    assert len(found) == len(expected)
    assert set(found) == expected
    assert {tuple(line) for line in lines} == {(*IDENTITY, 'src', 'dst', 'direction')}
    assert {
        (each['uuid'], each['domain'], each['project'], each['user']) for each in lines
    } == owners(logged.exporter.scrape(), 'oie_customlist_contact')


def owners(scrape: exporters.Scrape, name: str) -> set[tuple[str, ...]]:
    labels = ('instance_uuid', 'domain', 'project_uuid', 'user_uuid')
    return {tuple(series.labels[label] for label in labels) for series in scrape.of(name)}


def test_log_has_a_line_for_exactly_what_was_counted(logged: Logged) -> None:
    check_contacts(logged, reference_line)

    assert logged.path.stat().st_mode & 0o777 == 0o640
    lines = logged.lines(reference_line, *logged.tags)
    (domain,) = {line['domain'] for line in lines if line['uuid'] == contacts.BUILD}
    assert domain == contacts.ODD_NAME
    assert ' tag=TOR' not in logged.path.read_text(encoding='ascii')


def test_log_in_json_sums_up_what_was_counted(node: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with logging(node, tmp_path, 'json') as logged:
        check_contacts(logged, json_line)
        logged.router.flush()
        totals = contacts.totals(logged.exporter.next_scrape(), logged.lists)
        # At its end it says in how many intervals more it saw each.
        logged.exporter.stop()
        names = {each.tag: each.name for each in logged.lists}
        lines = logged.lines(json_line, *logged.tags)

    sums: dict[contacts.Key, int] = {}
    for line in lines:
        key = line['uuid'], names[line['tag']]
        sums[key] = sums.get(key, 0) + int(line.get('count', 1))
    assert sums == totals


def test_log_tells_of_outbound_behaviour(logged: Logged) -> None:
    scrape = logged.exporter.next_scrape()

    lines = logged.lines(reference_line, 'OUTBOUND')

    assert sorted(line['ip'] for line in lines) == sorted(contacts.OWNER_OF)
    for line in lines:
        labels = {'ip': line['ip'], 'family': line['family'], 'instance_uuid': line['uuid']}
        assert contacts.OWNER_OF[line['ip']] == line['uuid']
        for field, name in OUTBOUND.items():
            assert int(line[field]) == scrape.value(name, **labels), name
        # The first interval is a silent baseline.
        assert (line['new_remotes'], line['new_dst_ports']) == ('0', '0')


def test_addresses_of_chosen_interfaces_are_listed_while_these_are_up(logged: Logged) -> None:
    exporter, interfaces = logged.exporter, logged.interfaces
    addresses = {
        (each.name, ip, 'ipv6' if ':' in ip else 'ipv4')
        for each in logged.lists
        for ip in interfaces.ADDRESSES
        if each.has(ip)
    }

    before = exporter.next_scrape()
    interfaces.set('down')
    without = exporter.next_scrape()
    interfaces.set('up')
    again = exporter.next_scrape()

    assert {ip for _, ip, _ in addresses} == set(interfaces.ADDRESSES)
    assert listed_addresses(before) == addresses
    assert listed_addresses(without) == set()
    assert without.value('oie_host_threat_addresses_known') == 1
    # The kernel forgets the addresses of IPv6 of an interface that goes down.
    assert listed_addresses(again) == {each for each in addresses if each[2] == 'ipv4'}
    lines = logged.lines(reference_line, 'HOST_THREAT')
    assert len(lines) == len(addresses)
    assert {(line['list'], line['ip'], line['family']) for line in lines} == addresses
    nobody = dict.fromkeys(IDENTITY[1:], '')
    assert all(nobody.items() <= line.items() for line in lines)


def listed_addresses(scrape: exporters.Scrape) -> set[tuple[str, ...]]:
    found = scrape.of('oie_host_threat_listed')
    assert all(series.value == 1 for series in found)
    return {tuple(series.labels[name] for name in ('list', 'ip', 'family')) for series in found}


def test_after_renaming_and_sighup_lines_go_to_a_new_file(logged: Logged) -> None:
    old, known = logged.path.with_name('threat.log.1'), logged.expected()
    before = logged.path.read_bytes()
    logged.path.rename(old)

    os.kill(logged.exporter.pid, signal.SIGHUP)
    processes.wait_for(logged.path.exists, what='the new file')
    is_empty = not logged.path.read_bytes()
    logged.router.add(ctnetlink.Entry(ctnetlink.tcp('10.20.0.5', NEW_PEER)))
    new = logged.expected() - known
    processes.wait_for(lambda: logged.path.read_bytes().count(b'\n') >= len(new), what='lines')

    assert is_empty
    lines = map(reference_line, logged.path.read_text(encoding='ascii').splitlines())
    assert sorted(tuple(line[name] for name in CONTACT) for line in lines) == sorted(new)
    assert {src for _, _, src, _, _ in new} == {'10.20.0.5'}
    assert old.read_bytes() == before
