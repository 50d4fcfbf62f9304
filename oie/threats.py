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

"""Lists and flows → contacts: who is in touch with listed addresses, cycle by cycle.

The lists come from the threads of their feeds and are swapped in as one
reference; the cycle only ever looks up. Totals live as long as the instance
exists, whatever libvirt or the kernel's table does in between.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from collections.abc import Set
import dataclasses
import ipaddress
import itertools
import logging
import threading
import time
from typing import Any
from typing import Protocol

import numpy as np

from oie import address_sets
from oie import allocator
from oie import exceptions
from oie import failures
from oie import model
from oie.analysis import attribution
from oie.analysis import behaviour
from oie.analysis import matching
from oie.outputs import threat_log

LOG = logging.getLogger(__name__)

# More contacts of one interval are counted, not written.
MOST_LOGGED = 5000


class Feeds(Protocol):
    """What keeps the lists up to date."""

    def start(self) -> None:
        """Begin to load and to refresh."""

    def lists(self) -> Sequence[model.ThreatList]:
        """Return how each list is, at this moment."""

    def close(self) -> None:
        """Let go of everything, at once."""


class Log(Protocol):
    """What writes down who was in touch with whom."""

    def write(self, records: Iterable[threat_log.Record]) -> None:
        """Take records; neither waits nor fails."""

    def skip(self, number: int) -> None:
        """Count records that were not even made."""

    def health(self) -> model.ThreatLogHealth:
        """Return what was written and left out."""

    def reopen(self) -> None:
        """Open the file anew before the next line."""

    def close(self) -> None:
        """Write what is there and let go of the file, soon."""


class HostAddresses(Protocol):
    """What knows the addresses of this host."""

    def read(self) -> Sequence[str]:
        """Return them in canonical text.

        :raises SourceError: they are not known
        """


@dataclasses.dataclass(frozen=True, slots=True)
class List:
    """A list that is enabled: its name, its tag in the log, and what counts."""

    name: str
    tag: str
    direction: str


class Watch:
    """Looks up whom the instances, and the host, are in touch with.

    :param lists: the enabled lists, 64 at most
    :param make_feeds: makes the feeds, given what takes each new list
    :param has_zeros: whether instances without any contact are told of too
    :param log: the threat log, None where nobody wants it
    :param host: the addresses of the host, None where nobody asks
    :param unwanted: addresses of the host that are not looked up
    :param logs_outbound: whether the log gets the outbound behaviour as well
    """

    def __init__(
        self,
        lists: Sequence[List],
        make_feeds: Callable[[Callable[[str, address_sets.AddressSet], None]], Feeds],
        *,
        has_zeros: bool = False,
        log: Log | None = None,
        host: HostAddresses | None = None,
        unwanted: address_sets.AddressSet = address_sets.EMPTY,
        logs_outbound: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._lists = lists
        self._has_zeros = has_zeros
        self._log = log
        self._host = host
        self._unwanted = address_sets.Index((unwanted,))
        self._logs_outbound = logs_outbound
        self._clock = clock
        self._failures = failures.LastingFailures(LOG)
        self._lock = threading.Lock()
        self._sets = {each.name: address_sets.EMPTY for each in lists}
        self._index = address_sets.Index(tuple(self._sets.values()))
        self._active: dict[tuple[str, int], int] = {}
        self._totals: dict[tuple[str, int], int] = {}
        self._logged = np.zeros(0, np.uint64)
        self._seen_at = 0.0
        self._feeds = make_feeds(self.swap)
        self._is_started = False

    def swap(self, name: str, addresses: address_sets.AddressSet) -> None:
        """Take a new list; called by the thread of its feed, which also pays for the index."""
        with self._lock:
            self._sets[name] = addresses
            self._index = address_sets.Index(tuple(self._sets.values()))
        # What was needed on the way is several times as much, and malloc(3) keeps it.
        allocator.give_back()

    def see(
        self,
        found: attribution.Attribution,
        talks: behaviour.Talks,
        table: model.FlowTable,
    ) -> None:
        """Look up the peers of one complete interval, and count each contact once."""
        directions = [each.direction for each in self._lists]
        matches = matching.match(talks, self._index, directions)
        counted = matching.count(matches, found.owners, len(self._lists))
        self._active = {(uuid, number): size for uuid, number, size in counted}
        for key, size in self._active.items():
            self._totals[key] = self._totals.get(key, 0) + size
        self._seen_at = self._clock()
        if self._log is not None:
            self._log_contacts(self._log, matches, found.owners)
            if self._logs_outbound:
                self._log.write(_outbound(table))

    def read(
        self, instances: tuple[model.Instance, ...], max_age: float, known: Set[str]
    ) -> dict[str, Any]:
        """Return the field ``threats`` of the snapshot, and start the feeds the first time.

        :param max_age: seconds after which the contacts last seen are not active any more
        :param known: uuids of all instances that exist: the totals of others end
        """
        if not self._is_started:
            self._feeds.start()
            self._is_started = True
        if self._clock() - self._seen_at > max_age:
            self._active = {}
        for key in [key for key in self._totals if key[0] not in known]:
            del self._totals[key]
            self._active.pop(key, None)
        lists = tuple(self._feeds.lists())
        return {
            'threats': model.Threats(
                lists=lists,
                contacts=tuple(self._contacts(instances, lists)),
                host=self._listed(),
                looks_at_host=self._host is not None,
                log=None if self._log is None else self._log.health(),
            )
        }

    def reopen_log(self) -> None:
        """Open the threat log anew: it was rotated."""
        if self._log is not None:
            self._log.reopen()

    def close(self) -> None:
        """Let go of everything, at once."""
        self._feeds.close()
        if self._log is not None:
            self._log.close()

    def _contacts(
        self, instances: tuple[model.Instance, ...], lists: Sequence[model.ThreatList]
    ) -> Iterator[model.Contacts]:
        loaded = {each.name for each in lists if each.is_loaded}
        for instance, (number, each) in itertools.product(instances, enumerate(self._lists)):
            key = (instance.definition.uuid, number)
            total = self._totals.get(key, 0)
            if total or self._has_zeros and each.name in loaded:
                yield model.Contacts(
                    definition=instance.definition,
                    list=each.name,
                    direction=each.direction,
                    active=self._active.get(key, 0),
                    total=total,
                )

    def _listed(self) -> tuple[model.ListedAddress, ...] | None:
        """Return the addresses of this host that stand on lists; None if they are not known."""
        if self._host is None:
            return None
        try:
            addresses = self._host.read()
        except exceptions.SourceError as exc:
            self._failures.report('host addresses', 'not read', exc)
            return None
        self._failures.settle('host addresses', 'not read')
        listed = tuple(self._look_up(addresses))
        if self._log is not None:
            self._log.write(
                threat_log.HostThreat(list=each.list, ip=each.ip, family=each.family)
                for each in listed
            )
        return listed

    def _look_up(self, addresses: Iterable[str]) -> Iterator[model.ListedAddress]:
        for text in addresses:
            address = ipaddress.ip_address(text)
            mask = 0 if _mask(self._unwanted, address) else _mask(self._index, address)
            for number, each in enumerate(self._lists):
                if mask >> number & 1:
                    family = 'ipv6' if ':' in text else 'ipv4'
                    yield model.ListedAddress(list=each.name, ip=text, family=family)

    def _log_contacts(
        self, log: Log, matches: matching.Matches, owners: attribution.Owners
    ) -> None:
        """Log the contacts; of very many those that were not there before come first."""
        identities = behaviour.identities(owners.slots)
        keys = matches.keys(identities)
        if len(keys) > MOST_LOGGED:
            log.skip(len(keys) - MOST_LOGGED)
            chosen = np.argsort(np.isin(keys, self._logged), kind='stable')[:MOST_LOGGED]
            matches, keys = matches.where(chosen), keys[chosen]
        self._logged = keys
        log.write([self._record(row, owners) for row in _rows(matches)])

    def _record(self, row: tuple[int, int, bool, str], owners: attribution.Owners) -> Any:
        number, slot, is_out, peer = row
        owner = owners.slots[slot]
        ends = (owner.address.ip, peer) if is_out else (peer, owner.address.ip)
        return threat_log.Contact(
            tag=self._lists[number].tag,
            **_identity(owner.definition),
            src=ends[0],
            dst=ends[1],
            direction=matching.OUT if is_out else matching.IN,
        )


def _rows(matches: matching.Matches) -> Iterator[tuple[int, int, bool, str]]:
    columns = (matches.list.tolist(), matches.slot.tolist(), matches.is_out.tolist())
    return zip(*columns, matches.peers(), strict=True)


def _outbound(table: model.FlowTable) -> Iterator[threat_log.Record]:
    """Give the behaviour of every fixed IP that passes the gate of its series."""
    for each in table.addresses:
        sent = each.outbound
        if each.is_active and sent.flows:
            yield threat_log.Outbound(
                **_identity(each.definition),
                ip=each.address.ip,
                family=each.address.family,
                uniq_remotes=sent.remotes,
                # A silent baseline is 0 here as in the series.
                new_remotes=sent.new_remotes or 0,
                flows=sent.flows,
                max_single_remote=sent.largest_remote,
                uniq_dst_ports=sent.ports,
                new_dst_ports=sent.new_ports or 0,
                max_single_dst_port_flows=sent.largest_port,
            )


def _identity(definition: model.Definition) -> dict[str, str]:
    return {
        'domain': definition.domain,
        'uuid': definition.uuid,
        'project': definition.project_uuid,
        'user': definition.user_uuid,
    }


def _mask(
    index: address_sets.Index, address: ipaddress.IPv4Address | ipaddress.IPv6Address
) -> int:
    number = int(address)
    if address.version == 4:
        return int(index.find_v4(np.array([number], np.uint32))[0])
    both = address_sets.wide((number,))
    return int(index.find_v6(both.high, both.low)[0])
