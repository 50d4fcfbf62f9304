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


"""Many network namespaces at once, furnished like routers of Neutron's L3 agent.

Each has three devices, one end of a virtual cable each; the other ends are all in one namespace
more. A thousand take a few seconds.

    with namespace_farm.Farm(1000) as farm:
        print(farm.pattern, farm.names[0])
"""

import ipaddress
import pathlib
import secrets
import socket
import struct
import tempfile

from oie.sources import namespaces
from oie.sources import netlink_attributes
from oie.sources import netlink_client
from tests.functional import flows
from tests.functional import processes

KINDS = ('qr', 'qg', 'ha')

_IPV6 = '/proc/sys/net/ipv6/conf'
# To everybody, of a protocol that is for experiments (IEEE 802, local experimental EtherType 1).
_PROTOCOL = 0x88B5
_FRAME = struct.pack('>6s6sH60s', b'\xff' * 6, b'\x02\0\0\0\0\1', _PROTOCOL, b'')
_RTM_NEWLINK, _RTM_NEWADDR = 16, 20
_IFF_UP = 1
_NLM_F_ACK, _NLM_F_CREATE = 0x4, 0x400
_FLAGS = netlink_client.NLM_F_REQUEST | _NLM_F_ACK | _NLM_F_CREATE


class Farm:
    """So many namespaces and their hub, gone after the block.

    :param count: of namespaces
    :param is_joined: whether the other ends are set up too, so that the devices have links, and
        addresses of IPv6
    """

    def __init__(self, count: int, *, is_joined: bool = False) -> None:
        self.run = f'{flows.PREFIX}{secrets.token_hex(3)}'
        self.hub = f'{self.run}-hub'
        self._is_joined = is_joined
        self.names = [f'{self.run}-r{number:04}' for number in range(count)]

    @property
    def pattern(self) -> str:
        """A regular expression for the names, without the hub."""
        return f'^{self.run}-r'

    def devices(self, number: int) -> list[str]:
        """Return the names of the devices in a namespace, as long as those of Neutron."""
        return [f'{kind}-{number:08x}-ab' for kind in KINDS]

    def __enter__(self) -> 'Farm':
        processes.end_later(self, self.close)
        _ip_batch('', [f'netns add {name}' for name in (self.hub, *self.names)])
        namespaces.run_in(f'/run/netns/{self.hub}', _silence)
        _ip_batch(self.hub, self._cables())
        for number, name in enumerate(self.names):
            namespaces.run_in(
                f'/run/netns/{name}',
                lambda number=number: _furnish(self.devices(number), number),  # type: ignore[misc]
            )
        if self._is_joined:
            _ip_batch(self.hub, [f'link set {end} up' for end in self._ends()])
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Delete all that is left of them."""
        processes.ended(self)
        present = {path.name for path in pathlib.Path('/run/netns').iterdir()}
        mine = [name for name in (self.hub, *self.names) if name in present]
        _ip_batch('', [f'netns delete {name}' for name in mine])

    def send(self) -> None:
        """Have each device receive a packet, and so all counters grow; it takes milliseconds."""

        def send() -> None:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
                for end in self._ends():
                    sender.sendto(_FRAME, (end, _PROTOCOL))

        namespaces.run_in(f'/run/netns/{self.hub}', send)

    def _ends(self) -> list[str]:
        """Return the names of the other ends, in the order of the devices."""
        places = range(len(KINDS))
        return [f'p{number:05}{place}' for number in range(len(self.names)) for place in places]

    def _cables(self) -> list[str]:
        devices = [
            (name, device)
            for number, name in enumerate(self.names)
            for device in self.devices(number)
        ]
        return [
            f'link add {end} type veth peer name {device} netns {name}'
            for end, (name, device) in zip(self._ends(), devices, strict=True)
        ]


def _ip_batch(namespace: str, lines: list[str]) -> None:
    with tempfile.NamedTemporaryFile('w', prefix='oiet-', suffix='.batch') as file:
        file.write('\n'.join([*lines, '']))
        file.flush()
        inside = ('-n', namespace) if namespace else ()
        processes.run('ip', *inside, '-batch', file.name, timeout=120)


def _furnish(devices: list[str], number: int) -> None:
    """Give each device of the namespace in which this runs an address, and set it up."""
    _write(f'{_IPV6}/default/router_solicitations', '0')
    with netlink_client.NetlinkClient(socket.NETLINK_ROUTE) as client:
        for place, device in enumerate(devices):
            index = socket.if_nametoindex(device)
            address = (ipaddress.ip_address('10.0.0.0') + number * 256 + place + 1).packed
            attributes = (netlink_attributes.attribute(kind, address) for kind in (1, 2))
            body = struct.pack('=BBBBI', socket.AF_INET, 24, 0, 0, index) + b''.join(attributes)
            _order(client, _RTM_NEWADDR, body)
            up = struct.pack('=BxHiII', socket.AF_UNSPEC, 0, index, _IFF_UP, _IFF_UP)
            _order(client, _RTM_NEWLINK, up)


def _silence() -> None:
    """Have the devices of this namespace send nothing by themselves."""
    _write(f'{_IPV6}/default/disable_ipv6', '1')


def _write(path: str, text: str) -> None:
    file = pathlib.Path(path)
    # A kernel without IPv6 has none of these.
    if file.exists():
        file.write_text(text, encoding='ascii')


def _order(client: netlink_client.NetlinkClient, kind: int, body: bytes) -> None:
    answer = client.ask(netlink_client.request(kind, body, _FLAGS))
    netlink_client.split(answer, 0, 0)
