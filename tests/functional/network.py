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

"""Machines behind a host that forwards, translates and tracks what they say to each other.

Each is a network namespace of its own, joined to the host's by a virtual cable.
A packet marked with 1 goes to the first of them, one marked with 2 to the second,
and so on: two machines may have one address.

    with network.Network({'a': ['10.0.0.5/24'], 'outside': ['192.0.2.1/24']}) as net:
        net.start_over('table ip nat { ... }')
        with packets.tcp(net['a'], '192.0.2.1', net['outside']):
            conntrack.dump(print, namespace=net.host.path)
"""

from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import ipaddress
import pathlib

from tests.functional import flows
from tests.functional import processes

# Addresses are usable at once, not after the second that looking for duplicates takes.
_OF_ALL = {'ipv6/conf/all/accept_dad': '0', 'ipv6/conf/default/accept_dad': '0'}
_OF_THE_HOST = {
    'ipv4/ip_forward': '1',
    'ipv4/conf/all/rp_filter': '0',
    'ipv4/conf/default/rp_filter': '0',
    'ipv4/conf/all/send_redirects': '0',
    'ipv4/conf/default/send_redirects': '0',
    'ipv6/conf/all/forwarding': '1',
}

_TRANSLATION = 'table inet probe { chain out { type nat hook postrouting priority srcnat; }; }'


def what_is_missing() -> str | None:
    """Return why there can be no such network on this machine; None if there can."""
    missing = flows.what_is_missing()
    if missing:
        return missing
    try:
        with Network({'a': ['10.0.0.5/24', '2001:db8::5/64']}) as network:
            network.start_over(_TRANSLATION)
    except (OSError, processes.LabError) as exc:
        return f'no private network with translation: {exc}'
    return None


def missing_helper(host: flows.Namespace, name: str, protocol: str) -> str | None:
    """Return that the kernel cannot read a protocol and expect connections; None if it can."""
    rules = f'table ip probe {{ ct helper probe {{ type "{name}" protocol {protocol}; }}; }}'
    try:
        host.program('nft', '--check', rules)
    except processes.LabError as exc:
        if 'No such file' not in str(exc):
            raise
        return f'the kernel has no connection tracking helper {name}'
    return None


class Network:
    """A host and the machines joined to it.

    :param machines: addresses of each machine, with the length of the prefix; the
        host has the last usable address of the same network
    """

    def __init__(self, machines: Mapping[str, Sequence[str]]) -> None:
        self.host = flows.Namespace()
        self._addresses = machines
        self._machines = {'host': self.host, **{name: flows.Namespace() for name in machines}}
        self._ends = contextlib.ExitStack()

    def __enter__(self) -> 'Network':
        with contextlib.ExitStack() as ends:
            for namespace in self._machines.values():
                ends.enter_context(namespace)
                _write(namespace, _OF_ALL)
            _write(self.host, _OF_THE_HOST)
            # What the end of an earlier connection is about makes no new entry.
            self.host.set(acct=1, tcp_loose=0)
            for mark, name in enumerate(self._addresses, 1):
                self._join(name, mark)
            self._ends = ends.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ends.close()

    def __getitem__(self, name: str) -> flows.Namespace:
        """Return a machine's namespace; that of ``host`` is the host's."""
        return self._machines[name]

    def start_over(self, rules: str) -> None:
        """Have these rules alone, and an empty table."""
        self.host.program('nft', f'flush ruleset\n{rules}')
        self.host.flush()

    def _join(self, name: str, mark: int) -> None:
        machine = self[name]
        _ip(self.host, f'link add name {name} type veth peer name eth0 netns {machine.name}')
        for namespace, device in ((self.host, name), (machine, 'eth0')):
            _ip(namespace, f'link set dev {device} up')
        _ip(machine, 'link set lo up')
        for text in self._addresses[name]:
            address = ipaddress.ip_interface(text)
            gateway, version = address.network[-2], address.version
            _ip(self.host, f'address add {gateway}/{address.network.prefixlen} dev {name}')
            _ip(self.host, f'-{version} route add {address.network} dev {name} table {mark}')
            _ip(machine, f'address add {text} dev eth0')
            _ip(machine, f'-{version} route replace default via {gateway}')
        for version in (4, 6):
            _ip(self.host, f'-{version} rule add fwmark {mark} lookup {mark}')


def _ip(namespace: flows.Namespace, arguments: str) -> None:
    processes.run('ip', '-n', namespace.name, *arguments.split())


def _write(namespace: flows.Namespace, settings: Mapping[str, str]) -> None:
    """Write settings below /proc/sys/net of a namespace."""

    def write() -> None:
        for name, value in settings.items():
            (pathlib.Path('/proc/sys/net') / name).write_text(value, encoding='ascii')

    namespace.run(write)
