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

"""Instances that have addresses, and the flows attributed to them as plain values."""

import ipaddress
import socket

from oie import model
from oie.analysis import attribution
from tests import builders

Side = tuple[str, str, str]


def instance(uuid: str, *addresses: str, port: str = '') -> model.Instance:
    """Return an instance with these fixed IPs, all of one port."""
    return builders.instance(
        definition=builders.definition(
            uuid=uuid,
            addresses=tuple(
                model.Address(ip=ip, family='ipv6' if ':' in ip else 'ipv4', port_uuid=port)
                for ip in addresses
            ),
        )
    )


def sides(found: attribution.Attribution, ends: attribution.Ends) -> list[Side]:
    """Return instance, fixed IP and peer of each flow."""
    slots = found.owners.slots
    return sorted(
        (slots[slot].definition.uuid, slots[slot].address.ip, _text(family, high, low))
        for slot, family, high, low in zip(
            ends.slot.tolist(),
            ends.family.tolist(),
            ends.peer_high.tolist(),
            ends.peer_low.tolist(),
            strict=True,
        )
    )


def _text(family: int, high: int, low: int) -> str:
    if family == socket.AF_INET:
        return str(ipaddress.IPv4Address(low))
    return str(ipaddress.IPv6Address(high << 64 | low))
