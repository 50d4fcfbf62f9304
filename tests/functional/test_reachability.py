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

"""Probes over real cables: namespaces of networks, and of the guests behind them.

A network has a bridge in its namespace, which Neutron's have not; what counts is that the
prefix is on link there, and that guests are known there by their MAC addresses.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import os
import pathlib
import pwd
import types

import pytest

from oie import model
from oie.cmd import check_table
from oie.cmd import host_probes
from oie.sources import namespaces
from oie.sources import reachability
from tests import builders
from tests import held
from tests.functional import exporter as exporters
from tests.functional import own_namespaces
from tests.functional import processes
from tests.unit import measuring

URI = f'test://{pathlib.Path(__file__).parents[2] / "etc/oie/demo/node.xml"}'
#: Reading our own code, wherever it lies, is all that is left of root.
NOBODY = ('setpriv', '--reuid=nobody', '--regid=nogroup', '--clear-groups')
READS = '+dac_read_search'

IPV4, IPV6 = '10.7.0.5', '2001:db8:7::5'
MAC, OTHER_MAC = 'fa:16:3e:07:00:05', 'fa:16:3e:07:00:99'
PORT = '77777777-7777-4777-8777-777777777777'
PREFIXES = ('10.7.0.1/24', '2001:db8:7::1/64')
#: What every namespace of OVN's metadata agent has besides.
METADATA = ('169.254.169.254/32', 'fe80::a9fe:a9fe/64')
OPTIONS = {'interval': 10.0, 'parallel': 32, 'timeout': 0.3, 'attempts': 2}

Result = model.ProbeResult


pytestmark = pytest.mark.usefixtures('own_namespaces')


class Net(own_namespaces.OwnNamespaces):
    """The namespaces of one test: ``network()`` matches the pattern, ``guest()`` does not."""

    @property
    def pattern(self) -> str:
        """Of the names of the networks of this test."""
        return f'{self.run}-net*'

    def network(self, *addresses: str) -> str:
        """Return the name of a namespace that serves a network."""
        name = self._add('net')
        own_namespaces.ip(name, 'link add name tap type bridge')
        own_namespaces.ip(name, 'link set tap up')
        for address in (*addresses, *METADATA):
            own_namespaces.ip(name, f'address add {address} dev tap nodad')
        return name

    def guest(self, network: str, mac: str = MAC, addresses: Sequence[str] = ()) -> str:
        """Return the name of a namespace that stands for a guest of the network."""
        name = self._add('vm')
        port = f'port{len(self.names)}'
        own_namespaces.ip(network, f'link add {port} type veth peer name eth0 netns {name}')
        own_namespaces.ip(network, f'link set {port} master tap up')
        own_namespaces.ip(name, f'link set eth0 address {mac} up')
        for address in addresses or (f'{IPV4}/24', f'{IPV6}/64'):
            own_namespaces.ip(name, f'address add {address} dev eth0 nodad')
        return name

    def _add(self, kind: str) -> str:
        return self.make(f'{self.run}-{kind}{len(self.names)}')


def _drop_echo_requests(name: str, hook: str) -> None:
    """Have a firewall drop them on their way in (input) or out (output)."""
    rules = f"""table inet firewall {{
        chain echo {{
            type filter hook {hook} priority 0;
            icmp type echo-request drop
            icmpv6 type echo-request drop
        }}
    }}"""
    processes.run('ip', 'netns', 'exec', name, 'nft', rules)


def _links(name: str) -> str:
    return processes.run('ip', '-n', name, '-brief', 'link')


def _raw_sockets(name: str) -> list[str]:
    """Return the raw sockets for IPv4 in a namespace, one line each."""
    lines = pathlib.Path('/proc/thread-self/net/raw').read_text
    return namespaces.run_in(f'/run/netns/{name}', lines).splitlines()[1:]


@pytest.fixture
def net() -> Iterator[Net]:
    with Net() as net:
        yield net


def instance(**more: object) -> model.Instance:
    """Return a guest with an address of each family on one port."""
    addresses = tuple(
        builders.address(ip=ip, family=family, port_uuid=PORT)
        for ip, family in ((IPV4, 'ipv4'), (IPV6, 'ipv6'))
    )
    interfaces = (builders.interface(mac=MAC, port_uuid=PORT),)
    of = builders.definition(addresses=addresses, interfaces=interfaces)
    return builders.instance(of, **more)


@contextlib.contextmanager
def source(pattern: str, **more: object) -> Iterator[reachability.ReachabilitySource]:
    options = types.SimpleNamespace(namespaces=[pattern], **{**OPTIONS, **more})
    made = reachability.ReachabilitySource(options)
    yield made
    made.close()


def probed(pattern: str, *instances: model.Instance) -> model.Reachability:
    """Return what one round finds; its thread ends with it."""
    with source(pattern) as made:
        return first_round(made, *(instances or (instance(),)))


def first_round(
    made: reachability.ReachabilitySource, *instances: model.Instance
) -> model.Reachability:
    def value() -> model.Reachability | None:
        reading = made.read(instances, 0.0, frozenset())['reachability']
        assert not reading.error
        found: model.Reachability | None = reading.value
        return found

    found = processes.wait_for(value, 20, 'a round of probes')
    assert found is not None
    return found


def answers(found: model.Reachability) -> dict[str, bool]:
    """Return who is known to be reachable or not, by address."""
    for probe in found.addresses:
        assert (probe.seconds is not None) == probe.is_reachable
        assert probe.seconds is None or 0 < probe.seconds < OPTIONS['timeout'] + 1
    return {probe.address.ip: probe.is_reachable for probe in found.addresses}


# --- what is said of a guest ----------------------------------------------------


def test_guest_that_answers_is_reachable_by_both_families(net: Net) -> None:
    net.guest(net.network(*PREFIXES))

    found = probed(net.pattern)

    assert answers(found) == {IPV4: True, IPV6: True}
    assert found.results == {Result.REACHABLE: 2}


def test_guest_that_drops_icmp_is_not_reachable(net: Net) -> None:
    guest = net.guest(net.network(*PREFIXES))
    _drop_echo_requests(guest, 'input')

    found = probed(net.pattern)

    assert answers(found) == {IPV4: False, IPV6: False}
    assert found.results == {Result.UNREACHABLE: 2}


def test_guest_that_falls_silent_altogether_is_not_reachable(net: Net) -> None:
    network = net.network(*PREFIXES)
    guest = net.guest(network)
    with source(net.pattern) as made:
        assert answers(first_round(made, instance())) == {IPV4: True, IPV6: True}
        own_namespaces.ip(guest, 'link set eth0 down')
        own_namespaces.ip(network, 'neigh flush all')

        made.round()

        assert answers(first_round(made, instance())) == {IPV4: False, IPV6: False}


def test_silence_where_the_port_was_never_seen_says_nothing(net: Net) -> None:
    """The prefix may be another tenant's; the network of the guest has no namespace then."""
    net.network(*PREFIXES)

    found = probed(net.pattern)

    assert answers(found) == {}
    assert found.results == {Result.AMBIGUOUS: 2}


def test_guest_that_does_not_run_is_not_probed(net: Net) -> None:
    net.guest(net.network(*PREFIXES))

    found = probed(net.pattern, instance(state=model.DomainState.PAUSED.value))

    assert (found.addresses, found.results) == ((), {})


# --- whose answer it is -----------------------------------------------------------


def test_prefix_in_two_namespaces_is_never_guessed(net: Net) -> None:
    net.guest(net.network(*PREFIXES))
    net.network(PREFIXES[0])

    found = probed(net.pattern)

    assert answers(found) == {IPV6: True}
    assert found.results == {Result.AMBIGUOUS: 1, Result.REACHABLE: 1}


def test_answer_of_another_mac_address_is_somebody_elses(net: Net) -> None:
    net.guest(net.network(*PREFIXES), mac=OTHER_MAC)

    found = probed(net.pattern)

    assert answers(found) == {}
    assert found.results == {Result.AMBIGUOUS: 2}


def test_answer_of_the_namespace_itself_is_not_the_guests(net: Net) -> None:
    net.network(f'{IPV4}/24', f'{IPV6}/64')

    found = probed(net.pattern)

    assert answers(found) == {}
    assert found.results == {Result.NO_NAMESPACE: 2}


def test_address_in_no_prefix_is_not_probed(net: Net) -> None:
    net.network('10.8.0.1/24')

    found = probed(net.pattern)

    assert answers(found) == {}
    assert found.results == {Result.NO_NAMESPACE: 2}


def test_address_that_a_router_would_reach_is_not_on_link(net: Net) -> None:
    network = net.network('10.8.0.1/24', *PREFIXES)
    net.guest(network, addresses=['10.8.0.5/24', f'{IPV4}/32', f'{IPV6}/128'])
    for arguments in ('route del 10.7.0.0/24 dev tap', 'route add 10.7.0.0/24 via 10.8.0.5'):
        own_namespaces.ip(network, arguments)

    found = probed(net.pattern)

    assert found.results[Result.AMBIGUOUS] == 1
    assert IPV4 not in answers(found)


# --- failures of ours -------------------------------------------------------------


def test_probe_that_may_not_leave_is_no_silence(net: Net) -> None:
    network = net.network(*PREFIXES)
    net.guest(network)
    _drop_echo_requests(network, 'output')

    found = probed(net.pattern)

    assert answers(found) == {}
    assert found.results == {Result.FAILED: 2}


def test_network_that_is_down_is_no_silence(net: Net) -> None:
    network = net.network(PREFIXES[0])
    net.guest(network)
    own_namespaces.ip(network, 'link set tap down')

    found = probed(net.pattern)

    assert found.results == {Result.FAILED: 1, Result.NO_NAMESPACE: 1}


def test_namespace_that_vanishes_costs_only_itself(net: Net) -> None:
    network = net.network(*PREFIXES)
    net.guest(network)
    with source(net.pattern) as made:
        assert answers(first_round(made, instance())) == {IPV4: True, IPV6: True}
        net.delete(network)

        made.round()

        found = first_round(made, instance())
        assert (found.addresses, found.results) == ((), {Result.NO_NAMESPACE: 2})


def test_namespace_that_vanishes_while_it_is_asked_is_let_go_at_once(net: Net) -> None:
    network = net.network(*PREFIXES)
    guest = net.guest(network)
    own_namespaces.ip(guest, 'link set eth0 down')
    with source(net.pattern, timeout=0.5) as made:
        made.read((instance(),), 0.0, frozenset())
        processes.wait_for(lambda: _raw_sockets(network), 10, 'the sockets of a round')
        net.delete(network)

        first_round(made, instance())

        # The other end of the cable goes with the namespace, and that with its last socket.
        processes.wait_for(lambda: 'eth0' not in _links(guest), 10, 'the end of the namespace')


def test_nothing_is_held_between_two_rounds_and_after_the_end(net: Net) -> None:
    network = net.network(*PREFIXES)
    net.guest(network)

    with held.nothing_more(), source(net.pattern) as made:
        with held.nothing_more(but='oie-probes'):
            first_round(made, instance())
        net.delete(network)


def test_many_answers_take_no_time_and_stay_within_the_limit(net: Net) -> None:
    network = net.network('10.7.0.1/16')
    wanted = [f'10.7.{number // 100}.{number % 100 + 5}' for number in range(200)]
    net.guest(network, addresses=[f'{ip}/16' for ip in wanted])
    of = builders.definition(
        addresses=tuple(builders.address(ip=ip, port_uuid=PORT) for ip in wanted),
        interfaces=(builders.interface(mac=MAC, port_uuid=PORT),),
    )

    found = probed(net.pattern, builders.instance(of))

    assert answers(found) == dict.fromkeys(wanted, True)


# --- the whole way ----------------------------------------------------------------


def exporter(net: Net, capabilities: str) -> exporters.Exporter:
    """Return an exporter that nobody runs, with these capabilities and no others."""
    settings: exporters.Settings = {
        'collector': {'optional': 'reachability'},
        'conntrack': {'enabled': 'false'},
        'reachability': {'namespaces': net.pattern, 'timeout': '300ms'},
    }
    rights = (f'--inh-caps={capabilities}', f'--ambient-caps={capabilities}')
    made = exporters.Exporter(URI, settings, launcher=(*NOBODY, *rights))
    made.write_config()
    nobody = pwd.getpwnam('nobody')
    os.chown(made.socket.parent, nobody.pw_uid, nobody.pw_gid)
    return made


def is_over(scrape: exporters.Scrape) -> bool:
    """Whether a round of probes has ended, well or not."""
    seconds = scrape.value('oie_collector_duration_seconds', group='probes')
    return bool(seconds)


def test_exporter_with_two_capabilities_shows_who_answers(net: Net) -> None:
    network = net.network('10.10.0.1/24', '2001:db8:10::1/64')
    net.guest(network, 'fa:16:3e:10:00:11', ['10.10.0.11/24', '2001:db8:10::11/64'])

    with exporter(net, f'{READS},+net_raw,+sys_admin') as running:
        scrape = running.wait_for(is_over, 'a round of probes')

    found = {one.labels['ip']: one.value for one in scrape.of('oie_instance_reachable')}
    assert found == {'10.10.0.11': 1, '2001:db8:10::11': 1}
    seconds = [one.value for one in scrape.of('oie_instance_reachable_probe_seconds')]
    assert len(seconds) == 2
    assert all(0 < value < 1 for value in seconds)
    counted = scrape.of('oie_host_probe_addresses')
    assert {one.labels['result']: one.value for one in counted} == {
        'reachable': 2,
        'unreachable': 0,
        # 10.10.0.12 might be in this network.
        'ambiguous': 1,
        'no_namespace': 2,
        'failed': 0,
    }
    assert scrape.value('oie_collector_success', group='probes') == 1


@pytest.mark.parametrize(
    ('capabilities', 'lacking'),
    [(READS, 'CAP_SYS_ADMIN'), (f'{READS},+sys_admin', 'CAP_NET_RAW')],
)
def test_exporter_without_a_right_shows_nothing_and_says_so_once(
    net: Net, capabilities: str, lacking: str
) -> None:
    network = net.network('10.10.0.1/24')
    net.guest(network, 'fa:16:3e:10:00:11', ['10.10.0.11/24'])

    with exporter(net, capabilities) as running:
        scrape = running.wait_for(is_over, 'a round of probes')
        log = running.log

    assert not scrape.of('oie_instance_reachable')
    assert scrape.value('oie_collector_success', group='probes') == 0
    told = [line for line in log.splitlines() if lacking in line]
    # Once at the start, what it means; once from the first round, what happened.
    assert ['will not work' in line for line in told] == [True, False]


def test_host_check_tells_what_is_found_and_what_right_is_missing(net: Net) -> None:
    def row(pattern: str) -> check_table.Row:
        (found,) = host_probes.rows(
            measuring.options(
                collector__optional='reachability', reachability__namespaces=[pattern]
            )
        )
        return found

    net.network(*PREFIXES)
    assert host_probes.rows(measuring.options()) == ()
    assert row(net.pattern).result is check_table.Result.OK
    assert row(f'{net.run}-nothing*').result is check_table.Result.WARNING
