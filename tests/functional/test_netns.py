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


"""Real network namespaces: what is read is what ip(8) and their files say, and nothing is held."""

from collections.abc import Iterator
import contextlib
import ctypes
import json
import os
import pathlib
import pwd
import socket
import struct
import subprocess
import sys
import threading
from typing import Any

import pytest

from oie import model
from oie.cmd import check_table
from oie.cmd import host_namespaces
from oie.config import netns_settings
from oie.sources import namespaces
from oie.sources import netns
from oie.sources import netns_devices
from oie.sources import netns_passes
from oie.sources import netns_readers
from tests import held
from tests.functional import exporter as exporters
from tests.functional import namespace_farm
from tests.functional import network
from tests.functional import own_namespaces
from tests.functional import packets
from tests.functional import processes
from tests.unit import measuring

DIRECTORY = '/run/netns'
ROOT = pathlib.Path(__file__).parents[2]
URI = f'test://{ROOT / "etc/oie/demo/node.xml"}'
UUID = '9f3c1e52-7a84-4d0b-b6e1-0c5d8f2a7b01'
FIXED, FLOATING, REMOTE = '10.10.0.11', '203.0.113.5', '192.0.2.9'
#: Reading our own code, wherever it lies, is all that is left of root.
NOBODY = ('setpriv', '--reuid=nobody', '--regid=nogroup', '--clear-groups')
READS = '+dac_read_search'
PARTS = ('addresses', 'conntrack', 'snmp', 'snmp6', 'sockstat')


pytestmark = pytest.mark.usefixtures('own_namespaces')


class Net(own_namespaces.OwnNamespaces):
    """Namespaces of one test by short names."""

    @property
    def pattern(self) -> str:
        """A regular expression for the names."""
        return f'^{self.run}-'

    def add(self, name: str) -> str:
        """Return the whole name of a new namespace."""
        return self.make(f'{self.run}-{name}')

    def pair(self, one: str, other: str, device: str = 'qg-1') -> None:
        """Join two namespaces by a cable: ``device`` with 192.0.2.1 in one, eth0 in the other."""
        own_namespaces.ip(one, f'link add {device} type veth peer name eth0 netns {other}')
        for whole, each, address in ((one, device, '192.0.2.1'), (other, 'eth0', '192.0.2.2')):
            own_namespaces.ip(whole, f'address add {address}/24 dev {each}')
            own_namespaces.ip(whole, f'address add 2001:db8::{address[-1]}/64 dev {each} nodad')
            own_namespaces.ip(whole, f'link set {each} up')
            own_namespaces.ip(whole, 'link set lo up')


def _file(whole: str, path: str) -> str:
    """Return what a file says inside a namespace."""
    return str(namespaces.run_in(f'{DIRECTORY}/{whole}', pathlib.Path(path).read_text))


def _send(whole: str, count: int) -> None:
    """Have a namespace send so many datagrams to its neighbour."""

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(count):
                with contextlib.suppress(ConnectionRefusedError):
                    sender.sendto(bytes(100), ('192.0.2.2', 9))

    namespaces.run_in(f'{DIRECTORY}/{whole}', send)


@pytest.fixture
def net() -> Iterator[Net]:
    with Net() as net:
        yield net


def source(pattern: str, **more: Any) -> netns.NamespacesSource:
    """Return a source that reads the namespaces of one test."""
    options = {'namespaces_whitelist': pattern, 'parts': PARTS, 'timeout': 30.0, **more}
    conf = measuring.options(**{f'netns__{name}': value for name, value in options.items()})
    return netns.NamespacesSource(conf.netns, netns_settings.of(conf.netns))


def table(pattern: str, **more: Any) -> model.NamespaceTable:
    """Return what one pass finds."""
    reading = source(pattern, **more).read((), 60.0)['namespaces']
    assert reading.error == ''
    found: model.NamespaceTable = reading.value
    return found


def only(found: model.NamespaceTable, name: str = '') -> model.Namespace:
    """Return the one namespace whose name ends so."""
    (one,) = [each for each in found.namespaces if each.name.endswith(name)]
    return one


# --- figures ------------------------------------------------------------------


def _as_told(whole: str) -> dict[str, tuple[Any, ...]]:
    """Return what ip(8) says of the devices of a namespace, by their names."""
    links = json.loads(own_namespaces.ip(whole, '-s -j link'))
    addresses = {
        each['ifname']: tuple(f'{one["local"]}/{one["prefixlen"]}' for one in each['addr_info'])
        for each in json.loads(own_namespaces.ip(whole, '-j address'))
    }
    return {
        link['ifname']: (
            *(link['stats64'][side][what]
              for side in ('rx', 'tx') for what in ('bytes', 'packets', 'errors', 'dropped')),
            'UP' in link['flags'],
            link['operstate'].lower(),
            link['mtu'],
            link['address'],
            addresses[link['ifname']],
        )
        for link in links
        if link['ifname'] != 'lo'
    }  # fmt: skip


def _as_read(namespace: model.Namespace) -> dict[str, tuple[Any, ...]]:
    assert namespace.devices is not None
    return {
        each.name: (
            *(getattr(each.statistics, f'{side}_{what}')
              for side in ('rx', 'tx') for what in ('bytes', 'packets', 'errors', 'dropped')),
            each.is_up,
            each.operstate,
            each.mtu,
            each.mac,
            each.addresses,
        )
        for each in namespace.devices
    }  # fmt: skip


def _between_equal_looks(
    whole: str, made: netns.NamespacesSource
) -> tuple[model.Namespace, dict[str, tuple[Any, ...]]]:
    """Return a namespace as we read it, and as ip(8) told it before and after that.

    In between the kernel may send something by itself, for neighbours and multicast groups.
    """
    for _ in range(20):
        before = _as_told(whole)
        namespace = only(made.read((), 60.0)['namespaces'].value, whole)
        if _as_told(whole) == before:
            return namespace, before
    raise processes.LabError(f'{whole} never falls silent')


@pytest.mark.parametrize('mode', ['setns', 'nsid'])
def test_devices_are_those_of_ip_under_traffic(net: Net, mode: str) -> None:
    one, other = net.add('one'), net.add('other')
    net.pair(one, other)
    own_namespaces.ip(one, 'link add down0 type bridge')
    own_namespaces.ip(one, 'link add far0 type veth peer name far1')
    own_namespaces.ip(one, 'link set far0 up mtu 1400')
    processes.wait_for(
        lambda: 'LOWERLAYERDOWN' in own_namespaces.ip(one, '-brief link show dev far0'),
        5,
        'a cable without an end',
    )
    made = source(net.pattern, mode=mode, assign_nsid=True)
    for sent in (3, 500):
        _send(one, sent)
        namespace, before = _between_equal_looks(one, made)
        assert _as_read(namespace) == before
        assert namespace.devices
        assert {each.operstate for each in namespace.devices} >= {'up', 'down', 'lowerlayerdown'}


def test_counters_grow_by_what_was_sent(net: Net) -> None:
    one, other = net.add('one'), net.add('other')
    net.pair(one, other)
    made = source(net.pattern)

    def sent() -> int:
        (device,) = only(made.read((), 60.0)['namespaces'].value, '-one').devices or ()
        assert device.statistics.tx_packets is not None
        return device.statistics.tx_packets

    before = sent()
    _send(one, 1000)

    assert sent() - before >= 1000


def test_figures_are_those_of_the_files_inside(net: Net) -> None:
    one, other = net.add('one'), net.add('other')
    net.pair(one, other)
    _send(one, 7)

    namespace = only(table(net.pattern), '-other')

    lines = _file(other, '/proc/thread-self/net/snmp').splitlines()
    pairs = zip(lines[::2], lines[1::2], strict=True)
    told = {
        (names.split(':')[0], name): int(number)
        for names, numbers in pairs
        for name, number in zip(names.split()[1:], numbers.split()[1:], strict=True)
    }
    assert dict(namespace.snmp) == told
    assert namespace.snmp['Udp', 'NoPorts'] == 7
    used = _file(other, '/proc/thread-self/net/sockstat').splitlines()[0].split()[-1]
    # Ours is among them while we look from within.
    assert abs(namespace.sockstat['sockets', 'used'] - int(used)) <= 2
    assert namespace.snmp6['Ip6', 'InReceives'] >= 0
    assert namespace.failures == {}


def test_files_below_proc_are_those_of_the_namespace(net: Net) -> None:
    one = net.add('one')
    namespaces.run_in(
        f'{DIRECTORY}/{one}',
        lambda: pathlib.Path('/proc/sys/net/ipv4/ip_default_ttl').write_text('77'),
    )
    wanted = {'ttl': 'sys/net/ipv4/ip_default_ttl', 'no': 'sys/net/none', 'text': 'net/snmp'}

    namespace = only(table(net.pattern, proc_metrics=wanted))

    assert namespace.proc == {'ttl': 77.0}
    assert set(namespace.failures) == {'no', 'text'}


def test_connections_are_counted_where_they_are_tracked() -> None:
    with network.Network({'a': [f'{FIXED}/24'], 'outside': [f'{REMOTE}/24']}) as net:
        net.start_over(
            'table ip oiet { chain passing {'
            ' type filter hook forward priority 0; ct state new accept; }; }'
        )
        with (
            packets.tcp(net['a'], REMOTE, net['outside']),
            packets.udp(net['a'], REMOTE, net['outside']),
        ):
            found = table(f'^{net.host.name}$')
            counted = net.host.count()

    namespace = only(found)
    assert (namespace.conntrack_entries, counted) == (2, 2)
    assert namespace.conntrack_maximum == int(
        pathlib.Path('/proc/sys/net/netfilter/nf_conntrack_max').read_text()
    )


def test_floating_ip_of_a_central_router_is_the_instances() -> None:
    """Real packets, translated in the namespace of a router both ways."""
    machines = {'a': [f'{FIXED}/24'], 'outside': [f'{REMOTE}/24']}
    options = {'outbound': {'enabled': 'true'}}
    with network.Network(machines) as net:
        net.start_over(f"""
            table ip oiet {{
                chain arriving {{
                    type nat hook prerouting priority dstnat
                    ip daddr {FLOATING} dnat to {FIXED}
                }}
                chain leaving {{
                    type nat hook postrouting priority srcnat
                    ip saddr {FIXED} snat to {FLOATING}
                }}
            }}
        """)
        options['conntrack'] = {'namespaces': net.host.name, 'min': '0'}
        with (
            packets.tcp(net['a'], REMOTE, net['outside']),
            packets.udp(net['a'], REMOTE, net['outside']),
            packets.tcp(net['outside'], FLOATING, net['a']),
            exporters.Exporter(URI, options) as exporter,
        ):
            exporter.next_scrape()
            listed = exporter.pollster('flows')

    (entry,) = [
        each for each in listed.entries if (each['instance_id'], each['ip']) == (UUID, FIXED)
    ]
    assert (entry['entries'], entry['outbound_flows'], entry['inbound_flows']) == (3, 2, 1)
    assert entry['outbound_remotes'] == 1


# --- what is not there, or no namespace -----------------------------------------


@pytest.fixture
def directory(tmp_path: pathlib.Path, net: Net) -> pathlib.Path:
    """A directory with one namespace among all that may lie there."""
    whole = net.add('good')
    (tmp_path / 'stale').touch(mode=0)
    (tmp_path / 'link').symlink_to(f'{DIRECTORY}/{whole}')
    (tmp_path / 'directory').mkdir()
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / 'other').touch()
    (tmp_path / 'good').touch()
    os.close(os.open(bytes(tmp_path) + b'/odd\xe9', os.O_CREAT | os.O_WRONLY))
    os.close(os.open(bytes(tmp_path) + b'/two\nlines', os.O_CREAT | os.O_WRONLY))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / 'socket'))
    mounted = ((f'{DIRECTORY}/{whole}', 'good'), ('/proc/self/ns/uts', 'other'))
    try:
        for what, where in mounted:
            processes.run('mount', '--bind', what, str(tmp_path / where))
        yield tmp_path
    finally:
        for _, where in mounted:
            processes.run('umount', str(tmp_path / where))


def test_what_is_no_namespace_costs_only_itself(directory: pathlib.Path) -> None:
    made = source('', directory=str(directory))

    with held.nothing_more():
        fields = made.read((), 60.0)

    found = fields['namespaces'].value
    assert [each.name for each in found.namespaces] == ['good']
    skipped = {'symlink': 1, 'name': 2, 'not_a_namespace': 3, 'stale': 2}
    assert (found.found, found.skipped) == (9, skipped)
    assert fields['namespaces_health'].errors == skipped


def test_directory_that_is_not_there_has_no_namespaces(tmp_path: pathlib.Path) -> None:
    found = table('', directory=str(tmp_path / 'none'))

    assert (found.found, found.namespaces) == (0, ())


# --- they come and go -----------------------------------------------------------


class Meddling:
    """A reader that does something between two namespaces."""

    def __init__(self, inner: netns_readers.Reader, meddle: Any) -> None:
        self._inner = inner
        self._meddle = meddle
        self.names: list[str] = []

    def read(self, file: int, name: str, known: netns_devices.Known) -> model.Namespace:
        found = self._inner.read(file, name, known)
        self.names.append(name)
        self._meddle(name)
        return found

    def end_pass(self) -> None:
        self._inner.end_pass()


def _run(reader: Any, pattern: str) -> netns_passes.Result:
    """Return what one pass finds, made in a thread of its own."""
    passes = netns_passes.Passes(DIRECTORY, netns_settings.Filter('', pattern), reader, 30.0)
    found: list[netns_passes.Result] = []
    thread = threading.Thread(target=lambda: found.append(passes.run(lambda: False)))
    thread.start()
    thread.join()
    return found[0]


def _inside() -> netns_readers.InsideReader:
    every = netns_settings.Filter()
    settings = netns_settings.Settings(
        namespaces=every, devices=every, interface_metrics=(), proc_metrics={}
    )
    return netns_readers.InsideReader(settings, PARTS)


def test_namespace_that_vanishes_in_mid_pass_costs_only_itself(net: Net) -> None:
    names = [net.add(name) for name in ('a', 'b', 'c')]

    def meddle(name: str) -> None:
        if name == names[0]:
            net.delete(names[1])
            net.add('d')

    found = _run(Meddling(_inside(), meddle), net.pattern)

    assert [each.name for each in found.table.namespaces] == [names[0], names[2]]
    assert found.table.skipped == {'vanished': 1}
    assert only(table(net.pattern), '-d').failures == {}


def test_device_that_is_renamed_and_deleted_in_mid_pass(net: Net) -> None:
    one, other = net.add('a'), net.add('b')
    net.pair(one, other)

    def meddle(name: str) -> None:
        if name == one:
            own_namespaces.ip(other, 'link set eth0 down')
            own_namespaces.ip(other, 'link set eth0 name renamed0')

    reader = Meddling(_inside(), meddle)
    found = _run(reader, net.pattern)
    assert [each.name for each in found.table.namespaces[1].devices or ()] == ['renamed0']

    def delete(name: str) -> None:
        if name == one and 'qg-1' in own_namespaces.ip(one, '-brief link'):
            own_namespaces.ip(one, 'link delete qg-1')

    found = _run(Meddling(_inside(), delete), net.pattern)
    assert [len(each.devices or ()) for each in found.table.namespaces] == [1, 0]


def test_labels_live_as_long_as_their_device(net: Net) -> None:
    one, other = net.add('a'), net.add('b')
    net.pair(one, other)
    made = source(net.pattern)

    def device() -> model.NamespaceDevice:
        (found,) = only(made.read((), 60.0)['namespaces'].value, '-a').devices or ()
        return found

    first = device()
    assert first.labels.pairs == (('netns', one), ('device', 'qg-1'))
    own_namespaces.ip(one, 'link set qg-1 down')
    second = device()
    assert (second.labels, second.is_up) == (first.labels, False)
    own_namespaces.ip(one, 'link set qg-1 name qg-2')
    assert device().labels.pairs == (('netns', one), ('device', 'qg-2'))


def test_namespace_is_free_as_soon_as_it_is_deleted(net: Net) -> None:
    one, other = net.add('a'), net.add('b')
    net.pair(one, other)
    made = source(net.pattern)
    with held.nothing_more():
        made.read((), 60.0)
    processes.wait_for(_no_reader, 5, 'the end of the thread of the pass')

    net.delete(one)

    # The other end of the cable goes with the namespace, and that with whoever holds it last.
    processes.wait_for(
        lambda: 'eth0' not in own_namespaces.ip(other, '-brief link'), 5, 'the end of the cable'
    )


def _no_reader() -> bool:
    return not any(thread.name.startswith('oie-netns') for thread in threading.enumerate())


def test_only_the_thread_of_a_pass_is_ever_elsewhere(net: Net) -> None:
    net.add('a')
    seen: list[set[int]] = []
    home = os.stat('/proc/self/ns/net').st_ino

    def meddle(_name: str) -> None:
        others = (
            task
            for task in pathlib.Path('/proc/self/task').iterdir()
            if int(task.name) != threading.get_native_id()
        )
        seen.append({os.stat(task / 'ns/net').st_ino for task in others})

    _run(Meddling(_inside(), meddle), net.pattern)

    assert seen == [{home}]
    assert os.stat('/proc/self/ns/net').st_ino == home
    assert os.stat('/proc/thread-self/ns/net').st_ino == home


# --- from outside ---------------------------------------------------------------


def test_namespace_without_an_id_is_left_alone(net: Net) -> None:
    net.add('a')

    found = table(net.pattern, mode='nsid')

    assert (found.skipped, found.namespaces) == ({'no_id': 1}, ())
    assert net.run not in processes.run('ip', 'netns', 'list-id')


def test_id_that_is_used_again_is_another_namespace(net: Net) -> None:
    first = net.add('a')
    own_namespaces.ip(first, 'link add first0 type bridge')
    processes.run('ip', 'netns', 'set', first, '31415')
    made = source(net.pattern, mode='nsid')
    before = only(made.read((), 60.0)['namespaces'].value)
    net.delete(first)
    second = net.add('b')
    own_namespaces.ip(second, 'link add second0 type bridge')
    # The first one goes when the kernel has cleaned up.
    processes.wait_for(lambda: _takes_id(second), 10, 'the id to be free')

    after = only(made.read((), 60.0)['namespaces'].value)

    assert [each.name for each in before.devices or ()] == ['first0']
    assert (after.name, [each.name for each in after.devices or ()]) == (second, ['second0'])


def _takes_id(whole: str) -> bool:
    try:
        processes.run('ip', 'netns', 'set', whole, '31415')
    except processes.LabError:
        return False
    return True


# --- many -----------------------------------------------------------------------


def test_a_thousand_are_read_whole_with_a_handful_of_files() -> None:
    with namespace_farm.Farm(1000) as farm:
        most = 0

        def meddle(_name: str) -> None:
            nonlocal most
            most = max(most, len(os.listdir('/proc/self/fd')))

        before = len(os.listdir('/proc/self/fd'))
        found = _run(Meddling(_inside(), meddle), farm.pattern)

    assert found.problems == {}
    assert [each.name for each in found.table.namespaces] == farm.names
    addresses = {
        each.devices and tuple(device.addresses for device in each.devices)
        for each in found.table.namespaces
    }
    assert len(addresses) == 1000
    for number, each in enumerate(found.table.namespaces):
        assert [device.name for device in each.devices or ()] == farm.devices(number)
    assert most - before <= 12


# --- rights ---------------------------------------------------------------------


def exporter(pattern: str, capabilities: str, **more: str) -> exporters.Exporter:
    """Return an exporter that nobody runs, with these capabilities and no others."""
    settings: exporters.Settings = {
        'conntrack': {'enabled': 'false'},
        'netns': {'enabled': 'true', 'namespaces_whitelist': pattern, **more},
    }
    rights = (f'--inh-caps={capabilities}', f'--ambient-caps={capabilities}')
    made = exporters.Exporter(URI, settings, launcher=(*NOBODY, *rights))
    made.write_config()
    nobody = pwd.getpwnam('nobody')
    os.chown(made.socket.parent, nobody.pw_uid, nobody.pw_gid)
    return made


def test_exporter_with_two_capabilities_reads_all(net: Net) -> None:
    net.add('a')
    with exporter(net.pattern, f'{READS},+sys_admin,+net_admin') as running:
        scrape = running.next_scrape()

    assert scrape.value('oie_collector_success', group='netns') == 1
    assert 'will not work' not in running.log


@pytest.mark.parametrize(
    ('capabilities', 'mode', 'lacking'),
    [
        (READS, 'setns', 'CAP_SYS_ADMIN'),
        (f'{READS},+net_admin', 'setns', 'CAP_SYS_ADMIN'),
        (READS, 'nsid', 'CAP_NET_ADMIN'),
    ],
)
def test_exporter_without_a_right_says_so_once(
    net: Net, capabilities: str, mode: str, lacking: str
) -> None:
    whole = net.add('a')
    processes.run('ip', 'netns', 'set', whole, 'auto')
    with exporter(net.pattern, capabilities, mode=mode, parts='addresses') as running:
        scrape = running.next_scrape(4)
        log = running.log

    told = [line for line in log.splitlines() if lacking in line]
    # At the start what it means, and from the first pass what happened.
    assert ['will not work' in line for line in told] == [True, False], log
    assert scrape.value('oie_collector_success', group='netns') == 0


def test_without_net_admin_only_the_connections_are_missing(net: Net) -> None:
    net.add('a')
    code = (
        f'import sys; sys.path.insert(0, {str(ROOT)!r})\n'
        'from tests.functional import test_netns\n'
        f'found = test_netns.only(test_netns.table({net.pattern!r}))\n'
        'print(found.devices is not None, bool(found.snmp), found.conntrack_entries)\n'
        'print(found.failures)'
    )
    rights = f'{READS},+sys_admin'
    argv = (
        *NOBODY,
        f'--inh-caps={rights}',
        f'--ambient-caps={rights}',
        sys.executable,
        '-c',
        code,
    )
    said = processes.run(*argv)

    first, second = said.strip().splitlines()
    assert first == 'True True None'
    assert 'EPERM' in second
    assert 'CAP_NET_ADMIN' in second


def keep_net_admin() -> str:
    """Give up all capabilities but CAP_NET_ADMIN; return what the kernel then says we have."""
    # Version 3 of struct cap_user_header_t, and what is effective, permitted and inheritable of
    # the first 32; see capset(2). CAP_NET_ADMIN is number 12.
    header, sets = struct.pack('=Ii', 0x20080522, 0), struct.pack('=6I', 2**12, 2**12, *[0] * 4)
    if ctypes.CDLL(None, use_errno=True).capset(header, sets):
        raise OSError(ctypes.get_errno(), 'capset')
    status = pathlib.Path('/proc/self/status').read_bytes().decode()
    return next(line.split()[1] for line in status.splitlines() if line.startswith('CapEff:'))


@pytest.mark.parametrize('assigns', [False, True])
def test_from_outside_net_admin_alone_is_enough(net: Net, assigns: bool) -> None:
    one, other = net.add('one'), net.add('other')
    net.pair(one, other)
    if not assigns:
        processes.run('ip', 'netns', 'set', one, 'auto')
    options = {'mode': 'nsid', 'assign_nsid': assigns, 'parts': ('addresses',)}
    # Who has read the code needs the right to do so no more.
    code = (
        f'import sys; sys.path.insert(0, {str(ROOT)!r})\n'
        'from tests.functional import test_netns\n'
        f'made = test_netns.source({one!r}, **{options!r})\n'
        'print(test_netns.keep_net_admin())\n'
        "reading = made.read((), 60.0)['namespaces']\n"
        'assert reading.error == "", reading.error\n'
        '(found,) = reading.value.namespaces\n'
        '(device,) = found.devices\n'
        'print(found.name, device.name, device.addresses[0], device.statistics.rx_bytes, '
        'dict(found.failures))'
    )
    rights = f'{READS},+net_admin'
    said = processes.run(
        *(*NOBODY, f'--inh-caps={rights}', f'--ambient-caps={rights}', sys.executable, '-c', code)
    )

    first, second = said.strip().splitlines()
    assert int(first, 16) == 2**12
    name, device, address, received, failures = second.split()
    assert (name, device, address, failures) == (one, 'qg-1', '192.0.2.1/24', '{}')
    assert received.isdecimal()


def test_from_outside_ids_are_assigned_to_nobody_without_net_admin(net: Net) -> None:
    """The right that is missing is not the one that entering would need."""
    net.add('a')
    more = {'mode': 'nsid', 'assign_nsid': 'true', 'parts': 'addresses'}
    with exporter(net.pattern, READS, **more) as running:
        log = running.log

    told = [line for line in log.splitlines() if 'none of 1 network namespaces' in line]
    assert ['CAP_NET_ADMIN' in line for line in told] == [True], log
    assert 'CAP_SYS_ADMIN' not in told[0]


# --- what the host check says -----------------------------------------------------


def row(**options: Any) -> check_table.Row:
    conf = measuring.options(**{f'netns__{name}': each for name, each in options.items()})
    (found,) = host_namespaces.rows(conf)
    return found


def test_host_check_tells_what_was_read(net: Net) -> None:
    net.pair(net.add('a'), net.add('b'))

    found = row(enabled=True, namespaces_whitelist=net.pattern)

    assert found.result is check_table.Result.OK
    assert ' with 2 devices' in found.detail


def test_host_check_tells_of_a_private_mount(net: Net, tmp_path: pathlib.Path) -> None:
    """A namespace made after a private mount namespace looks like a plain file in there."""
    net.add('before')
    whole = f'{net.run}-after'
    ready, go = tmp_path / 'ready', tmp_path / 'go'
    code = (
        'import pathlib, sys, time\n'
        'from tests.functional import test_netns\n'
        f'pathlib.Path({str(ready)!r}).touch()\n'
        f'while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.02)\n'
        f'found = test_netns.row(enabled=True, namespaces_whitelist={net.pattern!r})\n'
        'print(found.result.name, found.detail, found.advice, sep="|")\n'
    )
    argv = ('unshare', '--mount', '--propagation', 'private', sys.executable, '-c', code)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        processes.wait_for(ready.exists, 60, 'the private mount namespace')
        net.add('after')
        go.touch()
        said, _ = process.communicate(timeout=120)

    result, detail, advice = said.strip().split('|')
    assert result == 'WARNING'
    assert '1 stale' in detail
    assert 'mounted privately' in advice
    assert only(table(f'^{whole}$')).failures == {}


def test_host_check_tells_of_the_private_mount_of_the_exporter(net: Net) -> None:
    """As under MountFlags=private, while whoever checks is in the mount namespace of the host."""
    net.add('before')
    settings: exporters.Settings = {
        'conntrack': {'enabled': 'false'},
        'netns': {'enabled': 'true', 'namespaces_whitelist': net.pattern},
    }
    private = ('unshare', '--mount', '--propagation', 'private')
    for launcher, result in ((private, check_table.Result.WARNING), ((), check_table.Result.OK)):
        with exporters.Exporter(URI, settings, launcher=launcher) as running:
            conf = measuring.options(
                exporter__socket_path=str(running.socket),
                netns__enabled=True,
                netns__namespaces_whitelist=net.pattern,
            )
            (found,) = host_namespaces.rows(conf)
            assert found.result is result, found
            if launcher:
                assert f'(process {running.pid})' in found.advice
                # All that the check itself reads is there.
                assert found.detail.startswith('1 of ')
                net.add('after')
                scrape = running.next_scrape()
                assert scrape.value('oie_host_netns_skipped', reason='stale') == 1


def test_host_check_of_another_file_asks_for_no_right(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'file'
    path.touch()

    found = row(enabled=True, directory=str(path))

    assert found.result is check_table.Result.WARNING
    assert 'Not a directory' in found.detail
    assert found.advice.startswith('Correct [netns] directory')
