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

"""Network namespaces named as Neutron names those of a router and of a DHCP server.

    with routers.Router() as router:
        router.receive(5)
        router.counters('qg')['rx']['packets']

Their uuids are ours alone. Nothing in them sends by itself, so that counters stand still.
"""

import json
import pathlib
import secrets
import socket
from typing import Any

from oie.sources import namespaces
from tests.functional import own_namespaces

EXTERNAL, OUTSIDE = '203.0.113.7', '203.0.113.8'
_MACS = {'qg': 'fa:16:3e:01:e7:01', 'eth0': 'fa:16:3e:01:e7:02'}


class Router(own_namespaces.OwnNamespaces):
    """A router whose gateway is joined to a machine outside, and a DHCP server.

    :ivar uuid: of the router and of the network
    :ivar device: the gateway of the router
    """

    def __init__(self) -> None:
        super().__init__()
        self.uuid = f'01e70000-0000-4000-8000-{secrets.token_hex(6)}'
        self.device = f'qg-{self.uuid[-11:]}'
        self.name = f'qrouter-{self.uuid}'
        self.dhcp = f'qdhcp-{self.uuid}'
        self.outside = self.run

    def __enter__(self) -> 'Router':
        super().__enter__()
        for name in (self.name, self.dhcp, self.outside):
            self.add(name)
        self.ip(
            f'link add name {self.device} address {_MACS["qg"]} type veth '
            f'peer name eth0 address {_MACS["eth0"]} netns {self.outside}'
        )
        self.ip(f'address add {EXTERNAL}/24 dev {self.device}')
        self.ip(f'link set {self.device} up')
        self.ip(f'address add {OUTSIDE}/24 dev eth0', self.outside)
        self.ip('link set eth0 up', self.outside)
        # Else they ask for each other now and then.
        self.ip(f'neighbour add {OUTSIDE} lladdr {_MACS["eth0"]} dev {self.device} nud permanent')
        self.ip(f'neighbour add {EXTERNAL} lladdr {_MACS["qg"]} dev eth0', self.outside)
        return self

    def add(self, name: str) -> None:
        """Make one more namespace."""
        self.make(name)
        namespaces.run_in(f'/run/netns/{name}', _without_ipv6)

    def ip(self, arguments: str, name: str = '') -> str:
        """Return what ip(8) says in a namespace, by default that of the router."""
        return own_namespaces.ip(name or self.name, arguments)

    def receive(self, count: int) -> None:
        """Have the router receive so many packets of 142 bytes from outside."""

        def send() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for _ in range(count):
                    sender.sendto(bytes(100), (EXTERNAL, 9))

        namespaces.run_in(f'/run/netns/{self.outside}', send)

    def counters(self, name: str = '', device: str = '') -> Any:
        """Return ``rx`` and ``tx`` of a device as ip(8) tells them, by default of the gateway."""
        text = self.ip(f'-s -j link show dev {device or self.device}', name)
        return json.loads(text)[0]['stats64']


def _without_ipv6() -> None:
    path = pathlib.Path('/proc/sys/net/ipv6/conf/all/disable_ipv6')
    if path.exists():
        path.write_text('1', encoding='ascii')
