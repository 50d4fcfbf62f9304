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


"""The devices of a network namespace with their addresses, by one socket of rtnetlink.

Nearly all that the kernel tells of them is what it told before. So a message is taken apart once,
and again when something in it has changed besides the counters.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses

from oie import model
from oie.config import netns_settings
from oie.sources import device_addresses
from oie.sources import links
from oie.sources import netlink_client

LOOPBACK = 'lo'

Addresses = Mapping[int, tuple[str, ...]]


@dataclasses.dataclass(slots=True)
class _Seen:
    """A device, and the beginning of its message up to the counters.

    One that is not wanted has no labels. ``device`` is what was made of it with the ``counters``
    of the last reading: between two of them most devices of a network node are idle.
    """

    beginning: bytes
    link: links.Link
    labels: model.Labels | None
    counters: bytes = b''
    device: model.NamespaceDevice | None = None


@dataclasses.dataclass(slots=True)
class Known:
    """What is kept of a namespace from one reading to the next."""

    labels: model.Labels
    kind: str
    uuid: str
    # By the beginnings of the messages, and by name.
    devices: dict[bytes, _Seen] = dataclasses.field(default_factory=dict)
    device_labels: dict[str, model.Labels | None] = dataclasses.field(default_factory=dict)
    # The messages about addresses, and what they say.
    address_messages: Sequence[bytes] = ()
    addresses: Addresses = dataclasses.field(default_factory=dict)


class DeviceReader:
    """Reads the devices of one namespace after the other.

    :param wanted: which devices
    """

    def __init__(self, wanted: netns_settings.Filter) -> None:
        self._wanted = wanted
        # How much of a message of so many bytes is the same from one reading to the next.
        self._steady: dict[int, int] = {}

    def devices(
        self,
        client: netlink_client.NetlinkClient,
        request: bytes,
        known: Known,
        addresses: Addresses | None,
    ) -> tuple[model.NamespaceDevice, ...]:
        """Return the wanted devices of a namespace.

        :param request: of ``links.request()``
        :param addresses: by device, None if they were not read
        :raises SourceError: they could not be read, or not all of them
        """
        before, known.devices = known.devices, {}
        steady = self._steady

        def take(body: memoryview) -> model.NamespaceDevice | None:
            # Messages that begin alike have the header of the counters in one place too.
            seen = before.get(bytes(body[: steady.get(len(body))]))
            if seen is None:
                seen = self._look_at(body, known)
            known.devices[seen.beginning] = seen
            return None if seen.labels is None else _device(body, seen, seen.labels, addresses)

        found = client.dump(request, links.RTM_NEWLINK, links.FIXED.size, take)
        if known.devices.keys() != before.keys():
            known.device_labels = {s.link.name: s.labels for s in known.devices.values()}
        return tuple([device for device in found if device is not None])

    def addresses(
        self, client: netlink_client.NetlinkClient, request: bytes, known: Known
    ) -> Addresses:
        """Return the addresses by device, those of IPv4 first.

        :param request: of ``device_addresses.request()``
        :raises SourceError: they could not be read, or not all of them
        """
        kind, least = device_addresses.RTM_NEWADDR, device_addresses.FIXED.size
        messages = client.dump(request, kind, least, bytes)
        if messages != known.address_messages:
            known.addresses = _addresses(messages)
            known.address_messages = messages
        return known.addresses

    def _look_at(self, body: memoryview, known: Known) -> _Seen:
        link = links.parse(body)
        self._steady[len(body)] = link.steady
        name = link.name
        if name in known.device_labels:
            labels = known.device_labels[name]
        elif name == LOOPBACK or not self._wanted.passes(name):
            labels = None
        else:
            labels = known.labels.extended(device=name)
        return _Seen(bytes(body[: link.steady]), link, labels)


def _addresses(messages: Sequence[bytes]) -> Addresses:
    by_device: dict[int, list[str]] = {}
    for message in messages:
        address = device_addresses.parse(memoryview(message))
        if text := device_addresses.text(address):
            by_device.setdefault(address.device, []).append(text)
    return {device: tuple(sorted(each, key=_is_ipv6)) for device, each in by_device.items()}


def _device(
    body: memoryview, seen: _Seen, labels: model.Labels, addresses: Addresses | None
) -> model.NamespaceDevice:
    link, last = seen.link, seen.device
    counters = bytes(body[link.begin : link.end])
    its = None if addresses is None else addresses.get(link.device, ())
    if last is not None and counters == seen.counters and last.addresses == its:
        return last
    seen.counters = counters
    seen.device = model.NamespaceDevice(
        labels=labels,
        name=link.name,
        index=link.device,
        mac=link.mac,
        mtu=link.mtu,
        is_up=link.is_up,
        operstate=link.operstate,
        addresses=its,
        statistics=links.statistics(counters),
    )
    return seen.device


def _is_ipv6(text: str) -> bool:
    return ':' in text
