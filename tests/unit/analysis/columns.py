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

"""Columns of flows, and sets of addresses, for tests: made of what a person can read."""

import dataclasses
import ipaddress
import socket
from typing import Any

import numpy as np

from oie import address_sets


@dataclasses.dataclass(frozen=True)
class Flow:
    """One entry; the reply tuple is the mirror of the original one unless NAT says else."""

    src: str
    dst: str
    dst_port: int = 443
    src_port: int = 40000
    protocol: int = socket.IPPROTO_TCP
    zone: int | None = None
    reply_src: str = ''
    reply_dst: str = ''
    is_replied: bool = True


class Columns:
    """What the decoder gives for entries of one family and shape."""

    def __init__(self, *flows: Flow) -> None:
        self._flows = flows
        version = ipaddress.ip_address(flows[0].src).version
        self.family = socket.AF_INET if version == 4 else socket.AF_INET6

    def __len__(self) -> int:
        return len(self._flows)

    def column(self, name: str) -> Any:
        values = {
            'orig_protocol': [f.protocol for f in self._flows],
            'orig_src_port': [f.src_port for f in self._flows],
            'orig_dst_port': [f.dst_port for f in self._flows],
            'reply_src_port': [f.dst_port for f in self._flows],
            'reply_dst_port': [f.src_port for f in self._flows],
            'status': [f.is_replied << 1 for f in self._flows],
            'zone': [f.zone for f in self._flows],
        }.get(name)
        if values is None or None in values:
            return None
        return np.array(values, np.uint32)

    def address(self, name: str) -> Any:
        numbers = [
            int(
                ipaddress.ip_address(
                    {
                        'orig_src': f.src,
                        'orig_dst': f.dst,
                        'reply_src': f.reply_src or f.dst,
                        'reply_dst': f.reply_dst or f.src,
                    }[name]
                )
            )
            for f in self._flows
        ]
        high = np.array([number >> 64 for number in numbers], np.uint64)
        return high, np.array([number & (2**64 - 1) for number in numbers], np.uint64)


def address_set(*texts: str) -> address_sets.AddressSet:
    """Return the set of these entries: ``address``, ``network/prefix`` or ``first-last``."""
    ends: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
    for text in texts:
        first, _, last = text.partition('-')
        network = ipaddress.ip_network(first)
        end = ipaddress.ip_address(last) if last else network[-1]
        ends[network.version].append((int(network[0]), int(end)))
    v4 = np.array(ends[4], np.uint32).reshape(-1, 2)
    v6 = [address_sets.wide([pair[n] for pair in ends[6]]) for n in (0, 1)]
    return address_sets.AddressSet.of((v4[:, 0].copy(), v4[:, 1].copy()), (v6[0], v6[1]))
