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
import functools
import hashlib

from oie import model
from oie.config import netns_settings
from oie.sources import device_addresses
from oie.sources import links
from oie.sources import netlink_client

# Two different answers have one digest once in the age of the universe.
_DIGEST_BYTES = 16
# Labels that thousands of devices share.
_FAMILIES = ('ipv4', 'ipv6')
_MOST_SIZES = 256

Addresses = Mapping[int, tuple[str, ...]]


@dataclasses.dataclass(slots=True)
class _Seen:
    """The beginning of a message up to the counters, and the place of these.

    ``device`` is what the last reading made of it: between two of them most devices of a network
    node are idle. One that is not wanted is none.
    """

    beginning: bytes
    counters: slice
    device: model.NamespaceDevice | None


@dataclasses.dataclass(slots=True)
class Known:
    """What is kept of a namespace from one reading to the next."""

    labels: model.Labels
    info: model.Labels
    kind: str
    uuid: str
    # By the beginnings of the messages.
    devices: dict[bytes, _Seen] = dataclasses.field(default_factory=dict)
    # A digest of the messages about addresses, and what they say.
    address_digest: bytes = b''
    addresses: Addresses = dataclasses.field(default_factory=dict)


class DeviceReader:
    """Reads the devices of one namespace after the other.

    :param wanted: which devices, besides loopback, which nobody wants
    """

    def __init__(self, wanted: netns_settings.Filter) -> None:
        self._wanted = wanted
        # How much of a message of so many bytes is the same from one reading to the next.
        self._steady: dict[int, int] = {}
        # Where counters are: one object for thousands of devices.
        self._places: dict[tuple[int, int], slice] = {}

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
        before, now = known.devices, dict[bytes, _Seen]()
        names: dict[str, model.NamespaceDevice] = {}
        steady = self._steady

        def take(body: memoryview) -> model.NamespaceDevice | None:
            if links.is_loopback(body):
                return None
            # Messages that begin alike have the header of the counters in one place too.
            seen = before.get(bytes(body[: steady.get(len(body))]))
            if seen is None:
                if not names:
                    names.update(_by_name(before))
                seen = self._look_at(body, known.labels, names)
            now[seen.beginning] = seen
            return None if seen.device is None else _counted(body, seen, seen.device, addresses)

        found = client.dump(request, links.RTM_NEWLINK, links.FIXED.size, take)
        known.devices = now
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
        digest = hashlib.blake2b(b''.join(messages), digest_size=_DIGEST_BYTES).digest()
        if digest != known.address_digest:
            known.addresses = _addresses(messages)
            known.address_digest = digest
        return known.addresses

    def _look_at(
        self,
        body: memoryview,
        labels: model.Labels,
        names: Mapping[str, model.NamespaceDevice],
    ) -> _Seen:
        """Take a message apart that says something new, or is of a new device."""
        link = links.parse(body)
        self._steady[len(body)] = link.steady
        is_wanted = self._wanted.passes(link.name)
        device = _device(link, labels, names.get(link.name)) if is_wanted else None
        place = slice(link.begin, link.end)
        place = self._places.setdefault((link.begin, link.end), place)
        return _Seen(bytes(body[: link.steady]), place, device)


def address_infos(
    labels: model.Labels, addresses: tuple[str, ...] | None
) -> tuple[model.Labels, ...]:
    """Return the labels of a device with each of its addresses."""
    return tuple(
        [
            labels.extended(address=text, family=_FAMILIES[_is_ipv6(text)])
            for text in addresses or ()
        ]
    )


def info(labels: model.Labels, mac: str, mtu: int | None) -> model.Labels:
    """Return the labels of a device with what it is."""
    return labels.extended(mac=mac, mtu=_of_mtu(mtu))


@functools.lru_cache(_MOST_SIZES)
def _of_mtu(mtu: int | None) -> str:
    return '' if mtu is None else str(mtu)


def _addresses(messages: Sequence[bytes]) -> Addresses:
    by_device: dict[int, list[str]] = {}
    for message in messages:
        address = device_addresses.parse(memoryview(message))
        if text := device_addresses.text(address):
            by_device.setdefault(address.device, []).append(text)
    return {device: tuple(sorted(each, key=_is_ipv6)) for device, each in by_device.items()}


def _by_name(seen: Mapping[bytes, _Seen]) -> dict[str, model.NamespaceDevice]:
    return {each.device.name: each.device for each in seen.values() if each.device is not None}


def _device(
    link: links.Link, netns: model.Labels, last: model.NamespaceDevice | None
) -> model.NamespaceDevice:
    """Return a device without counters.

    :param last: the device that had this name before: labels belong to names
    """
    labels = netns.extended(device=link.name) if last is None else last.labels
    its_info = None
    if last is not None and (last.mac, last.mtu) == (link.mac, link.mtu):
        its_info = last.info
    return model.NamespaceDevice(
        labels=labels,
        name=link.name,
        index=link.device,
        mac=link.mac,
        mtu=link.mtu,
        is_up=link.is_up,
        operstate=link.operstate,
        addresses=None if last is None else last.addresses,
        info=its_info or info(labels, link.mac, link.mtu),
        address_infos=() if last is None else last.address_infos,
    )


def _counted(
    body: memoryview, seen: _Seen, last: model.NamespaceDevice, addresses: Addresses | None
) -> model.NamespaceDevice:
    """Return a device with the counters of a message, as it was if nothing has changed."""
    statistics = links.statistics(body[seen.counters])
    its = None if addresses is None else addresses.get(last.index, ())
    is_same = last.addresses == its
    if is_same and statistics == last.statistics:
        return last
    seen.device = model.NamespaceDevice(
        labels=last.labels,
        name=last.name,
        index=last.index,
        mac=last.mac,
        mtu=last.mtu,
        is_up=last.is_up,
        operstate=last.operstate,
        addresses=its,
        statistics=statistics,
        info=last.info,
        address_infos=last.address_infos if is_same else address_infos(last.labels, its),
    )
    return seen.device


def _is_ipv6(text: str) -> bool:
    return ':' in text
