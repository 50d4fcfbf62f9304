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


"""Network namespaces → the routers of Neutron that forward to the outside here."""

from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import fnmatch

from oie import model

# Both may belong to one router: with DVR, snat-UUID stands beside qrouter-UUID.
KINDS = frozenset({'router', 'snat'})

# Names of devices through which a router that is not distributed reaches the outside.
EXTERNAL = ('qg-*',)


def active(
    table: model.NamespaceTable, external: Sequence[str] = EXTERNAL
) -> tuple[model.Router, ...]:
    """Return the routers whose external devices are in use here, in the order of their uuids.

    The standby of an HA router has the same devices, without addresses or set down, so it is
    left out: of all hosts only the active one tells. Where it is not known whether a router is
    active, or one of its namespaces could not be read, its figures are None, all of them.

    :param external: patterns of the names of external devices, as those of a shell
    """
    by_uuid: dict[str, list[model.Namespace]] = {}
    for namespace in (*table.namespaces, *table.unread):
        if namespace.kind in KINDS and namespace.uuid:
            by_uuid.setdefault(namespace.uuid, []).append(namespace)
    found = (_router(uuid, by_uuid[uuid], external) for uuid in sorted(by_uuid))
    return tuple(router for router in found if router is not None)


def _router(
    uuid: str, namespaces: Sequence[model.Namespace], external: Sequence[str]
) -> model.Router | None:
    devices = _external(namespaces, external)
    silent = model.Router(
        uuid=uuid,
        namespaces=tuple(sorted(namespace.name for namespace in namespaces)),
        devices=tuple(device.name for device in devices),
    )
    uses = {_is_in_use(device) for device in devices}
    if any(namespace.devices is None for namespace in namespaces):
        return silent
    if True not in uses:
        return silent if None in uses else None
    # All of them: the sum must not fall because one has no address for a while.
    statistics = [device.statistics for device in devices]
    return dataclasses.replace(
        silent,
        rx_bytes=_sum(each.rx_bytes for each in statistics),
        rx_packets=_sum(each.rx_packets for each in statistics),
        tx_bytes=_sum(each.tx_bytes for each in statistics),
        tx_packets=_sum(each.tx_packets for each in statistics),
        conntrack_entries=_sum(each.conntrack_entries for each in namespaces),
    )


def _external(
    namespaces: Iterable[model.Namespace], patterns: Sequence[str]
) -> list[model.NamespaceDevice]:
    found = (
        device
        for namespace in namespaces
        for device in namespace.devices or ()
        if any(fnmatch.fnmatchcase(device.name, pattern) for pattern in patterns)
    )
    return sorted(found, key=lambda device: device.name)


def _is_in_use(device: model.NamespaceDevice) -> bool | None:
    """Return whether it is set up and has an address that somebody gave it; None: not known."""
    if device.is_up is False:
        return False
    if device.addresses is None or device.is_up is None:
        return None
    # The kernel makes those of fe80::/64 by itself.
    return any(not address.startswith('fe80:') for address in device.addresses)


def _sum(values: Iterable[int | None]) -> int | None:
    """Return the sum, None if a part of it is not known."""
    total = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total
