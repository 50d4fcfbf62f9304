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

"""One round: who is asked from where, and what of it is believed."""

import contextlib
import ipaddress
import types

import pytest

from oie import exceptions
from oie import model
from oie.sources import neighbours
from oie.sources import probe_rounds
from oie.sources import probes
from tests import builders

PORT = '11111111-1111-4111-8111-111111111111'
MAC, OTHER = 'fa:16:3e:00:00:01', 'fa:16:3e:00:00:99'
IP, IP6 = '10.0.0.5', '2001:db8::5'
LIMITS = probes.Limits(parallel=4, timeout=1.0, attempts=2)
METADATA = (
    '169.254.169.254/32',
    '169.254.169.253/16',
    'fe80::a9fe:a9fe/64',
    '127.0.0.1/8',
    '::1/128',
)

Result = model.ProbeResult
ANSWER, SILENCE = probes.Outcome(seconds=0.25), probes.Outcome()
REACHABLE = probe_rounds.Verdict(Result.REACHABLE, 0.25)


def target(ip=IP, mac=MAC, port=PORT, uuid='a'):
    address = model.Address(ip=ip, family='ipv6' if ':' in ip else 'ipv4', port_uuid=port)
    return probe_rounds.Target(uuid, address, mac)


def interface(text):
    ip = ipaddress.ip_interface(text)
    return neighbours.LocalAddress(ip.ip, ip.network)


class Host:
    """Namespaces with their addresses and neighbours, and how each fixed IP behaves.

    :ivar asked: the addresses of each exchange
    :ivar lines: the namespaces that are open now, and how many were at most
    """

    def __init__(self, directory):
        self.directory = directory
        self.addresses = {}
        self.known = {}
        self.outcomes = {}
        self.broken = {}
        self.asked = []
        self.open = set()
        self.most_open = 0

    def namespace(self, name, *addresses, known=None):
        (self.directory / name).touch()
        path = str(self.directory / name)
        self.addresses[path] = [interface(one) for one in (*addresses, *METADATA)]
        self.known[path] = known or {}
        return path

    def local_addresses(self, path):
        if ('addresses', path) in self.broken:
            raise self.broken['addresses', path]
        return self.addresses[path]

    @contextlib.contextmanager
    def open_line(self, path, families):
        if ('open', path) in self.broken:
            raise self.broken['open', path]
        self.open.add(path)
        self.most_open = max(self.most_open, len(self.open))
        try:
            yield types.SimpleNamespace(
                channels=dict.fromkeys(families, path),
                neighbours=lambda: self.neighbours(path),
            )
        finally:
            self.open.remove(path)

    def neighbours(self, path):
        if ('neighbours', path) in self.broken:
            raise self.broken['neighbours', path]
        known = self.known[path].items()
        return {ipaddress.ip_address(ip): frozenset(macs) for ip, macs in known}

    def exchange(self, wanted, limits, *, is_stopping):
        self.asked.append([(probe.channel, probe.ip) for probe in wanted])
        return [self.outcomes.get(probe.ip, ANSWER) for probe in wanted]

    def rounds(self, **more):
        values = {
            'directory': str(self.directory),
            'open_line': self.open_line,
            'local_addresses': self.local_addresses,
            'exchange': self.exchange,
            **more,
        }
        return probe_rounds.Rounds(['ovnmeta-*', 'qdhcp-*'], LIMITS, **values)


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def run(host, *targets):
    """Return the verdicts of one round over running guests."""
    return host.rounds().run(dict.fromkeys(targets or (target(),), True)).verdicts


# --- from where -----------------------------------------------------------------


def test_address_is_asked_from_the_namespace_that_has_its_prefix(host):
    host.namespace('ovnmeta-1', '10.1.0.2/24')
    path = host.namespace('qdhcp-2', '10.0.0.2/24', known={IP: [MAC]})
    assert run(host) == {target(): REACHABLE}
    assert host.asked == [[(path, IP)]]
    assert host.open == set()


def test_namespaces_of_other_names_are_not_looked_at(host):
    host.namespace('qrouter-1', '10.0.0.1/24', known={IP: [MAC]})
    assert run(host) == {target(): probe_rounds.NO_NAMESPACE}


def test_host_without_namespaces_is_no_failure(host, tmp_path):
    rounds = host.rounds(directory=str(tmp_path / 'missing'))
    found = rounds.run({target(): True})
    assert (found.verdicts, found.error) == ({target(): probe_rounds.NO_NAMESPACE}, '')


def test_directory_that_cannot_be_listed_is_a_failure(host, tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(exceptions.SourceError, match='Not a directory'):
        host.rounds(directory=str(tmp_path / 'file')).run({target(): True})


def test_two_namespaces_with_the_prefix_are_ambiguous(host):
    host.namespace('ovnmeta-1', '10.0.0.2/24', known={IP: [MAC]})
    host.namespace('ovnmeta-2', '10.0.0.3/16')
    assert run(host) == {target(): probe_rounds.AMBIGUOUS}
    assert host.asked == []


def test_two_prefixes_of_one_namespace_are_not(host):
    host.namespace('ovnmeta-1', '10.0.0.2/24', '10.0.0.3/16', known={IP: [MAC]})
    assert run(host) == {target(): REACHABLE}


def test_link_local_and_single_addresses_reach_nobody(host):
    """Every namespace has them."""
    host.namespace('ovnmeta-1')
    ips = ('169.254.7.7', 'fe80::5', '127.0.0.5', '::1')
    assert set(run(host, *map(target, ips)).values()) == {probe_rounds.NO_NAMESPACE}


def test_namespace_that_has_the_address_itself_is_not_its_network(host):
    host.namespace('ovnmeta-1', f'{IP}/24', known={IP: [MAC]})
    path = host.namespace('ovnmeta-2', '10.0.0.2/24', known={IP: [MAC]})
    assert run(host) == {target(): REACHABLE}
    assert host.asked == [[(path, IP)]]


def test_namespace_that_cannot_be_read_makes_all_unknown(host):
    """It might have any prefix."""
    host.namespace('ovnmeta-1', '10.0.0.2/24', known={IP: [MAC]})
    path = host.namespace('ovnmeta-2')
    host.broken['addresses', path] = exceptions.SourceError('EPERM')
    with pytest.raises(exceptions.SourceError, match='EPERM'):
        run(host)


def test_namespace_that_vanished_has_nothing(host):
    host.namespace('ovnmeta-1', '10.0.0.2/24', known={IP: [MAC]})
    path = host.namespace('ovnmeta-2', '10.0.0.3/24')
    host.broken['addresses', path] = exceptions.VanishedNamespace('gone')
    assert run(host) == {target(): REACHABLE}


def test_guest_that_does_not_run_is_not_asked(host):
    host.namespace('ovnmeta-1', '10.0.0.2/24', known={IP: [MAC]})
    assert host.rounds().run({target(): False}).verdicts == {}


def test_port_without_a_mac_address_is_not_asked(host):
    host.namespace('ovnmeta-1', '10.0.0.2/24', known={IP: [MAC]})
    assert run(host, target(mac='')) == {target(mac=''): probe_rounds.AMBIGUOUS}
    assert host.asked == []


# --- what is believed -------------------------------------------------------------


@pytest.mark.parametrize(
    ('outcome', 'known', 'expected'),
    [
        (ANSWER, [MAC], REACHABLE),
        (ANSWER, [OTHER], probe_rounds.AMBIGUOUS),
        (ANSWER, [MAC, OTHER], probe_rounds.AMBIGUOUS),
        (ANSWER, [], probe_rounds.AMBIGUOUS),
        (SILENCE, [MAC], probe_rounds.UNREACHABLE),
        (SILENCE, [OTHER], probe_rounds.AMBIGUOUS),
        (SILENCE, [], probe_rounds.AMBIGUOUS),
        (probes.Outcome(failure='not sent: EPERM'), [MAC], probe_rounds.FAILED),
    ],
)
def test_outcome_counts_only_with_the_mac_address_of_the_port(host, outcome, known, expected):
    host.namespace('ovnmeta-1', '10.0.0.2/24', known={IP: known})
    host.outcomes[IP] = outcome
    assert run(host) == {target(): expected}


def test_silence_of_a_port_that_was_seen_before_is_silence(host):
    path = host.namespace('ovnmeta-1', '10.0.0.2/24', known={IP: [MAC]})
    rounds = host.rounds()
    rounds.run({target(): True})
    host.known[path], host.outcomes[IP] = {}, SILENCE
    assert rounds.run({target(): True}).verdicts == {target(): probe_rounds.UNREACHABLE}


def test_port_that_was_seen_by_its_other_address_is_known_too(host):
    path = host.namespace('ovnmeta-1', '10.0.0.2/24', '2001:db8::2/64', known={IP6: [MAC]})
    rounds = host.rounds()
    host.outcomes[IP] = SILENCE
    wanted = {target(IP6): True, target(): True}
    assert rounds.run(wanted).verdicts == {
        target(IP6): REACHABLE,
        target(): probe_rounds.UNREACHABLE,
    }
    assert [path] == list({channel for channel, _ in host.asked[0]})


@pytest.mark.parametrize('change', ['other namespace', 'other address', 'forgotten'])
def test_port_that_was_seen_elsewhere_is_not_known_here(host, change):
    path = host.namespace('ovnmeta-1', '10.0.0.2/24', known={IP: [MAC]})
    rounds, wanted = host.rounds(), {target(): True}
    rounds.run(wanted)
    host.outcomes[IP] = SILENCE
    host.known[path] = {}
    if change == 'other namespace':
        host.addresses[path] = []
        host.namespace('ovnmeta-2', '10.0.0.2/24')
    elif change == 'other address':
        wanted = {target(mac=OTHER): True}
    else:
        rounds.run({})
    assert set(rounds.run(wanted).verdicts.values()) == {probe_rounds.AMBIGUOUS}


def test_paused_guest_is_remembered(host):
    path = host.namespace('ovnmeta-1', '10.0.0.2/24', known={IP: [MAC]})
    rounds = host.rounds()
    rounds.run({target(): True})
    rounds.run({target(): False})
    host.known[path], host.outcomes[IP] = {}, SILENCE
    assert rounds.run({target(): True}).verdicts == {target(): probe_rounds.UNREACHABLE}


def test_equal_addresses_of_two_guests_are_told_apart(host):
    host.namespace('ovnmeta-1', '10.0.0.2/24', known={IP: [MAC]})
    twin = target(mac=OTHER, port='22222222-2222-4222-8222-222222222222', uuid='b')
    assert run(host, target(), twin) == {target(): REACHABLE, twin: probe_rounds.AMBIGUOUS}


# --- failures of ours -------------------------------------------------------------


@pytest.mark.parametrize('step', ['open', 'neighbours'])
def test_namespace_that_fails_costs_only_itself_and_is_told_once(host, step, caplog):
    good = host.namespace('ovnmeta-1', '10.0.0.2/24', known={IP: [MAC]})
    bad = host.namespace('ovnmeta-2', '10.1.0.2/24')
    host.broken[step, bad] = exceptions.SourceError('no raw socket')
    rounds, wanted = host.rounds(), {target(): True, target('10.1.0.5'): True}
    for _ in range(3):
        found = rounds.run(wanted)
    assert found.verdicts == {target(): REACHABLE, target('10.1.0.5'): probe_rounds.FAILED}
    assert found.error == f'{bad}: no raw socket'
    assert [record.getMessage() for record in caplog.records] == [
        f'{bad}: not probed: no raw socket'
    ]
    del host.broken[step, bad]
    rounds.run(wanted)
    assert caplog.records[-1].getMessage() == f'{bad}: not probed: over'
    assert good not in caplog.text


def test_namespace_that_vanishes_meanwhile_has_nothing(host):
    path = host.namespace('ovnmeta-1', '10.0.0.2/24')
    host.broken['open', path] = exceptions.VanishedNamespace('gone')
    found = host.rounds().run({target(): True})
    assert (found.verdicts, found.error) == ({target(): probe_rounds.NO_NAMESPACE}, '')


def test_request_that_was_not_sent_is_told_once(host, caplog):
    path = host.namespace('ovnmeta-1', '10.0.0.2/24')
    host.outcomes[IP] = probes.Outcome(failure='not sent: ENETUNREACH')
    rounds = host.rounds()
    for _ in range(2):
        assert rounds.run({target(): True}).error == ''
    assert [record.getMessage() for record in caplog.records] == [
        f'{path}: not probed: {IP}: not sent: ENETUNREACH'
    ]


def test_nothing_stays_open_when_an_exchange_is_stopped(host):
    def stop(*_arguments, **_more):
        raise exceptions.SourceError('stopped')

    host.namespace('ovnmeta-1', '10.0.0.2/24')
    with pytest.raises(exceptions.SourceError, match='stopped'):
        host.rounds(exchange=stop).run({target(): True})
    assert (host.most_open, host.open) == (1, set())


# --- how many at once -------------------------------------------------------------


def test_namespaces_are_asked_together_up_to_the_limit(host):
    wanted = {}
    for number in range(6):
        ips = [f'10.{number}.0.{n}' for n in (5, 6)]
        host.namespace(f'ovnmeta-{number}', f'10.{number}.0.2/24', known={ip: [MAC] for ip in ips})
        wanted |= {target(ip): True for ip in ips}
    assert set(host.rounds().run(wanted).verdicts.values()) == {REACHABLE}
    # Four at once, and two in each namespace.
    assert [len(asked) for asked in host.asked] == [4, 4, 4]
    assert host.most_open == 2


def test_number_of_open_namespaces_is_bounded_too(host):
    wanted = {}
    for number in range(40):
        host.namespace(f'ovnmeta-{number}', f'10.{number}.0.2/24')
        wanted[target(f'10.{number}.0.5')] = True
    rounds = probe_rounds.Rounds(
        ['*'],
        probes.Limits(parallel=256, timeout=1.0, attempts=1),
        directory=str(host.directory),
        open_line=host.open_line,
        local_addresses=host.local_addresses,
        exchange=host.exchange,
    )
    rounds.run(wanted)
    assert host.most_open == probe_rounds.NAMESPACES_AT_ONCE == 32


# --- targets ----------------------------------------------------------------------


def test_target_has_the_mac_address_of_its_own_port():
    other = '22222222-2222-4222-8222-222222222222'
    of = builders.definition(
        addresses=(builders.address(), builders.address(ip=IP6, family='ipv6', port_uuid=other)),
        interfaces=(builders.interface(), builders.virtual_function(port_uuid=other)),
    )
    assert [(one.uuid, one.address.ip, one.mac) for one in probe_rounds.targets(of)] == [
        (builders.UUID, IP, MAC),
        (builders.UUID, IP6, 'fa:16:3e:00:00:02'),
    ]


@pytest.mark.parametrize(
    'interfaces',
    [
        (),
        (builders.interface(port_uuid=''),),
        (builders.interface(mac=''),),
        (builders.interface(), builders.interface(mac=OTHER)),
    ],
    ids=['none', 'no port', 'no address', 'two'],
)
def test_mac_address_that_is_not_certain_is_unknown(interfaces):
    of = builders.definition(interfaces=interfaces)
    assert [one.mac for one in probe_rounds.targets(of)] == ['']


def test_address_without_a_port_belongs_to_no_interface():
    of = builders.definition(
        addresses=(builders.address(port_uuid=''),), interfaces=(builders.interface(port_uuid=''),)
    )
    assert [one.mac for one in probe_rounds.targets(of)] == ['']


# --- the check --------------------------------------------------------------------


def test_check_sends_nothing(host):
    host.namespace('ovnmeta-1', '10.0.0.2/24')
    host.namespace('qdhcp-1')
    assert host.rounds().check() == 2
    assert host.asked == []
    assert host.open == set()


def test_check_tells_what_is_missing(host):
    path = host.namespace('ovnmeta-1', '10.0.0.2/24')
    host.broken['open', path] = exceptions.SourceError('CAP_NET_RAW')
    with pytest.raises(exceptions.SourceError, match='CAP_NET_RAW'):
        host.rounds().check()
