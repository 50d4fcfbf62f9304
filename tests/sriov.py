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

"""A host with SR-IOV and without the hardware: its sysfs, and what its kernel answers.

The answers are constructed byte by byte after linux/if_link.h and rtnl_fill_vfinfo() of Linux
6.18, not recorded: no network device with virtual functions was at hand.

    host = sriov.Host(tmp_path)
    host.add('0000:81:00.0', '0000:81:00.2', '0000:81:00.3')
    host.devices[5].functions[0] = sriov.counters(rx_bytes=7)
    VirtualFunctionReader(root=host.root, ask=host.ask)
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import itertools
import os
import pathlib
import struct

RTM_NEWLINK = 16
NLMSG_ERROR = 2
ENODEV = 19

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_STATS64 = 1, 3, 4, 23
IFLA_NUM_VF, IFLA_VFINFO_LIST = 21, 22
IFLA_VF_INFO, IFLA_VF_MAC, IFLA_VF_STATS = 1, 1, 8

# The types of IFLA_VF_STATS_*, of which the sixth only pads.
_STATS = {
    0: 'rx_packets',
    1: 'tx_packets',
    2: 'rx_bytes',
    3: 'tx_bytes',
    4: '',
    5: '',
    7: '',
    8: '',
}

Counters = Mapping[str, int]


def counters(**more: int) -> Counters:
    """Return counters of a virtual function, all 0 but for these."""
    return {**dict.fromkeys(('rx_bytes', 'rx_packets', 'tx_bytes', 'tx_packets'), 0), **more}


# --- what the kernel answers --------------------------------------------------


def attribute(kind: int, payload: bytes) -> bytes:
    """Return an attribute; the length of one that is too long wraps, as in the kernel."""
    size = 4 + len(payload)
    return struct.pack('=HH', size & 0xFFFF, kind) + payload + bytes(-size % 4)


def message(kind: int, payload: bytes, sequence: int = 1) -> bytes:
    """Return the one message of an answer."""
    return struct.pack('=IHHII', 16 + len(payload), kind, 0, sequence, 4711) + payload


def link(name: str, functions: Mapping[int, Counters] | None, index: int = 5) -> bytes:
    """Return the answer about a network device; None: its driver knows of no functions."""
    told = b''
    if functions is not None:
        infos = b''.join(function(number, of) for number, of in functions.items())
        told = attribute(IFLA_NUM_VF, struct.pack('=I', len(functions)))
        told += attribute(IFLA_VFINFO_LIST, infos)
    return message(
        RTM_NEWLINK,
        struct.pack('=BxHiII', 0, 1, index, 0x1043, 0)
        + attribute(IFLA_IFNAME, name.encode() + b'\0')
        + attribute(IFLA_MTU, struct.pack('=I', 1500))
        + attribute(IFLA_ADDRESS, bytes.fromhex('0c42a1000001'))
        + attribute(IFLA_STATS64, bytes(25 * 8))
        + told,
    )


def function(number: int, of: Counters) -> bytes:
    """Return IFLA_VF_INFO with everything that Linux 6.18 puts there, 296 bytes."""
    words = [(2, 3), (6, 3), (3, 2), (4, 2), (5, 2), (7, 2), (9, 2)]
    vlan = struct.pack('=IIIHxx', number, 0, 0, 0x0081)
    return attribute(
        IFLA_VF_INFO,
        attribute(IFLA_VF_MAC, struct.pack('=I32s', number, bytes.fromhex('fa163e000002')))
        + attribute(13, bytes(32))
        + b''.join(
            attribute(kind, struct.pack(f'={count}I', number, *[0] * (count - 1)))
            for kind, count in words
        )
        + attribute(12, attribute(1, vlan))
        + attribute(IFLA_VF_STATS, stats(of)),
    )


def stats(of: Counters) -> bytes:
    """Return the attributes of IFLA_VF_STATS."""
    return b''.join(
        attribute(kind, struct.pack('=Q', of.get(name, 0))) for kind, name in _STATS.items()
    )


def refusal(number: int) -> bytes:
    """Return the answer that there is none."""
    return message(NLMSG_ERROR, struct.pack('=i', -number) + bytes(16))


# --- the host -----------------------------------------------------------------


@dataclasses.dataclass
class Device:
    """The network device of a physical function."""

    name: str
    functions: dict[int, Counters] | None


class Host:
    """Physical functions with their virtual ones; everything may be changed at any time.

    ``asked`` has the indexes of the network devices that were asked for, in turn.
    """

    def __init__(self, root: pathlib.Path) -> None:
        self.root = str(root)
        self.devices: dict[int, Device] = {}
        self.asked: list[int] = []
        self.script: Callable[[], object] | None = None
        self._indexes = itertools.count(5)

    def add(self, parent: str, *addresses: str) -> Device:
        """Add a PF and its VFs, numbered in this order, with a network device each."""
        for number, address in enumerate(addresses):
            self.directory(address)
            os.symlink(f'../{parent}', self.directory(address) / 'physfn')
            os.symlink(f'../{address}', self.directory(parent) / f'virtfn{number}')
        return self.add_device(parent, {n: counters() for n in range(len(addresses))})

    def add_device(
        self, parent: str, functions: dict[int, Counters] | None = None, port: str = ''
    ) -> Device:
        """Add one more network device to a PF, with the name of its port."""
        index = next(self._indexes)
        device = self.devices[index] = Device(f'ens{index}', functions)
        place = self.directory(parent) / 'net' / device.name
        place.mkdir(parents=True)
        (place / 'ifindex').write_text(f'{index}\n')
        if port:
            (place / 'phys_port_name').write_text(f'{port}\n')
        return device

    def directory(self, address: str) -> pathlib.Path:
        """Return the directory of a PCI device."""
        path = pathlib.Path(self.root, address)
        path.mkdir(exist_ok=True)
        return path

    def ask(self, index: int) -> bytes:
        """Answer as the kernel does."""
        self.asked.append(index)
        if self.script is not None:
            self.script()
        device = self.devices.get(index)
        return refusal(ENODEV) if device is None else link(device.name, device.functions, index)
