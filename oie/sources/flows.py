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

"""The connection tracking tables of this host, complete, handed on in columns.

Each reading starts with a fresh consumer and counts only when the dump was
complete; an incomplete one is repeated once. What the kernel counts needs no
privilege and is read apart.
"""

from collections.abc import Callable
from collections.abc import Mapping
import functools
import logging
import time
from typing import Any
from typing import ClassVar
from typing import Generic
from typing import Protocol
from typing import TypeVar

from oslo_config import cfg

from oie import config
from oie import exceptions
from oie import failures
from oie import model
from oie.sources import namespaces
from oie.sources.zone_maps import kept

LOG = logging.getLogger(__name__)

ATTEMPTS = 2

OPTS = (
    cfg.BoolOpt(
        'enabled',
        default=True,
        help='Whether the connection tracking table is read. It needs CAP_NET_ADMIN; without it '
        'only the number of entries is published.',
    ),
    cfg.IntOpt(
        'min',
        default=20,
        help='Entries, or remotes, from which a fixed IP is active enough to get series. 0 '
        'gives series to every fixed IP.',
    ),
    cfg.IntOpt(
        'max_entries',
        default=1000000,
        min=1,
        help='A table with more entries is not read, and a metric says so; the limit holds for '
        'each network namespace. A million entries take about as long as the kernel needs to '
        'hand them over, one to two seconds.',
    ),
    cfg.Opt(
        'timeout',
        type=config.Duration(minimum=0.1, maximum=300),
        default='20s',
        help='How long reading one table may take. When it takes longer the last summaries stay.',
    ),
    cfg.StrOpt(
        'zone_map',
        default='auto',
        help='Which driver of oie.zone_maps tells what conntrack zone belongs to which port: '
        'ovn, none, another installed one, or auto for the one this host keeps. Without a map '
        'only an address that one instance alone has tells the owner of a connection.',
    ),
    cfg.ListOpt(
        'namespaces',
        default=[],
        help='Network namespaces whose tables are read too, by patterns of their names such as '
        'qrouter-*,snat-*: floating IPs of central routers are tracked there. It needs '
        'CAP_SYS_ADMIN.',
    ),
)


C = TypeVar('C', bound='Consumer')


class Consumer(Protocol):
    """What takes the flows of one reading."""

    def take(self, flows: Any, *, has_zones: bool = True) -> None:
        """Take a batch; ``has_zones`` is false where the zones are another's."""

    def part(self: 'C') -> 'C':
        """Return an empty one for a part that may turn out incomplete."""

    def add(self: 'C', part: 'C') -> None:
        """Take over a part that turned out complete."""


class FlowSource(Generic[C]):
    """Reads the tables into a consumer and knows how well that goes.

    :param options: our group ``[conntrack]``
    :param zone_map: tells whose the zones of the host's table are
    """

    GROUP: ClassVar[str] = 'conntrack'
    GROUP_HELP: ClassVar[str] = 'Connection tracking: whose flows the kernel sees.'
    OPTS: ClassVar[tuple[cfg.Opt, ...]] = OPTS

    def __init__(
        self, options: Any, zone_map: kept.KeptZoneMap, *, netns: str = namespaces.DIRECTORY
    ) -> None:
        self._options = options
        self._zone_map = zone_map
        self._netns = netns
        # numpy costs 8 MB and 60 ms: only who reads tables imports it.
        from oie.sources import conntrack
        from oie.sources import ctnetlink

        self._conntrack = conntrack
        self._templates = ctnetlink.Templates()
        self._failures = failures.LastingFailures(LOG)
        self._last: model.Reading[C | None] = model.Reading(value=None, read_at=None, seconds=0.0)
        self._errors = 0
        self._inconsistent = 0
        self._is_skipped = False
        self._odd = 0

    @property
    def odd(self) -> int:
        """Entries of the latest complete reading that were read carefully."""
        return self._odd

    def read(self, make: Callable[[Mapping[int, str] | None], C]) -> model.Reading[C | None]:
        """Return a consumer that took a complete reading; None with the reason.

        :param make: gives a new consumer for the zones that are known
        """
        began = time.monotonic()
        error, value = '', None
        try:
            value = self._read(make)
            self._is_skipped = False
            self._failures.settle('conntrack', 'not read')
        except exceptions.SourceError as exc:
            error = str(exc)
            self._is_skipped = isinstance(exc, exceptions.OversizedTable)
            self._errors += 1
            self._failures.report('conntrack', 'not read', error)
        read_at = self._last.read_at if error else time.time()
        self._last = model.Reading(
            value=value, read_at=read_at, seconds=time.monotonic() - began, error=error
        )
        return self._last

    def health(self) -> model.FlowHealth:
        """Return how full the table is and how well it could be read."""
        zones = self._zone_map.read()
        return model.FlowHealth(
            counted=self._number(self._conntrack.COUNT),
            maximum=self._number(self._conntrack.MAXIMUM),
            is_skipped=self._is_skipped,
            errors=self._errors,
            inconsistent=self._inconsistent,
            zone_map=self._zone_map.name,
            zones=None if zones.value is None else len(zones.value),
            zone_map_read_at=zones.read_at,
            zone_conflicts=self._zone_map.conflicts,
        )

    def close(self) -> None:
        """Let go of everything, at once."""

    def _read(self, make: Callable[[Mapping[int, str] | None], C]) -> C:
        zones = self._zone_map.read().value
        for attempt in range(1, ATTEMPTS + 1):
            consumer = make(zones)
            try:
                self._odd = self._dump_all(consumer)
            except exceptions.InconsistentTable as exc:
                self._inconsistent += 1
                if attempt == ATTEMPTS:
                    raise
                LOG.debug('the table is read again: %s', exc)
            else:
                return consumer
        raise AssertionError('unreachable')

    def _dump_all(self, consumer: C) -> int:
        """Read the table of the host and of the chosen namespaces; return the odd entries.

        :raises SourceError: one of them is not complete: a sum without it would
            fall, and what it holds would be new in the next cycle
        """
        odd = self._dump(consumer.take)
        for path in self._namespaces():
            part = consumer.part()
            take = functools.partial(part.take, has_zones=False)
            try:
                odd += self._dump(take, path)
            except exceptions.VanishedNamespace as exc:
                # A router may vanish at any moment; it costs only itself.
                self._failures.report(path, 'not read', exc)
            except exceptions.OversizedTable as exc:
                raise exceptions.OversizedTable(
                    f'{path}: {exc}, or leave it out of [conntrack] namespaces'
                ) from exc
            else:
                consumer.add(part)
                self._failures.settle(path, 'not read')
        return odd

    def _dump(self, take: Callable[..., None], namespace: str | None = None) -> int:
        report = self._conntrack.dump(
            take,
            namespace=namespace,
            timeout=self._options.timeout,
            max_entries=self._options.max_entries,
            templates=self._templates,
        )
        return report.odd

    def _namespaces(self) -> list[str]:
        if not self._options.namespaces:
            return []
        try:
            return namespaces.matching(self._options.namespaces, self._netns)
        except OSError as exc:
            self._failures.report(self._netns, 'not listed', exc)
            return []

    def _number(self, path: str) -> int | None:
        try:
            return self._conntrack.read_number(path)
        except exceptions.SourceError:
            return None
