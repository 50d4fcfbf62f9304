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

"""Events of libvirt: hints which domains have changed, never the truth itself.

The callbacks run in the thread of libvirt's event loop and only append to
queues; the cycle drains them. An exception in them would be printed to stderr
by libvirt-python, so they do nothing that can fail.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import logging
from typing import Any

LOG = logging.getLogger(__name__)

# virDomainEventType and its details, in the order of their numbers.
LIFECYCLE = (
    ('defined', ('added', 'updated', 'renamed', 'from_snapshot')),
    ('undefined', ('removed', 'renamed')),
    ('started', ('booted', 'migrated', 'restored', 'from_snapshot', 'wakeup', 'recreated')),
    (
        'suspended',
        (
            'paused',
            'migrated',
            'ioerror',
            'watchdog',
            'restored',
            'from_snapshot',
            'api_error',
            'postcopy',
            'postcopy_failed',
        ),
    ),
    ('resumed', ('unpaused', 'migrated', 'from_snapshot', 'postcopy', 'postcopy_failed')),
    (
        'stopped',
        (
            'shutdown',
            'destroyed',
            'crashed',
            'migrated',
            'saved',
            'failed',
            'from_snapshot',
            'recreated',
        ),
    ),
    ('shutdown', ('finished', 'guest', 'host')),
    ('pmsuspended', ('memory', 'disk')),
    ('crashed', ('panicked', 'crashloaded')),
)

# What of a domain's XML may change while it runs, by names of libvirt's module.
# A block job that ends may leave a disk with another source (a swapped volume).
_CHANGES = (
    'VIR_DOMAIN_EVENT_ID_DEVICE_ADDED',
    'VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED',
    'VIR_DOMAIN_EVENT_ID_METADATA_CHANGE',
    'VIR_DOMAIN_EVENT_ID_TUNABLE',
    'VIR_DOMAIN_EVENT_ID_DISK_CHANGE',
    'VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2',
)

# virDomainJobType, which the event leaves out of the statistics it brings.
# The number of 'started' in LIFECYCLE.
_STARTED = 2

_COMPLETED, _FAILED = 3, 4

# A queue that nobody drains (libvirt floods us, the cycle hangs) stays bounded.
_LONGEST_QUEUE = 10000


class Events:
    """Collects what the daemon tells between two cycles."""

    def __init__(self) -> None:
        self._changed = _queue()
        self._lifecycle = _queue()
        self._started = _queue()
        self._migrating = _queue()
        self._jobs = _queue()

    def register(self, libvirt: Any, connection: Any) -> list[int]:
        """Ask a new connection for events; a driver that has none is all right.

        :returns: the numbers by which ``deregister`` undoes it
        """
        wanted: list[tuple[str, Callable[..., None]]] = [
            ('VIR_DOMAIN_EVENT_ID_LIFECYCLE', self._on_lifecycle),
            ('VIR_DOMAIN_EVENT_ID_JOB_COMPLETED', self._on_job),
            ('VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION', self._on_iteration),
            *((name, self._on_change) for name in _CHANGES),
        ]
        numbers = []
        for name, callback in wanted:
            event = getattr(libvirt, name)
            try:
                numbers.append(connection.domainEventRegisterAny(None, event, callback, None))
            except libvirt.libvirtError as exc:
                LOG.debug('no events %s: %s', name, exc)
        return numbers

    def changed(self) -> set[str]:
        """Return the domains whose definition must be read again."""
        return set(_drain(self._changed))

    def lifecycle(self) -> Iterator[tuple[str, str, str]]:
        """Give uuid, event and detail of each life cycle event."""
        for uuid, event, detail in _drain(self._lifecycle):
            yield uuid, *_names(event, detail)

    def started(self) -> Mapping[str, Any]:
        """Return the handles of the domains that have started, by uuid."""
        return dict(_drain(self._started))

    def migrating(self) -> set[str]:
        """Return the domains whose memory began to be sent, once more, elsewhere.

        The only hint of a running migration: virDomainGetControlInfo shows a
        job only while a command of it is in the monitor (in none of 400 looks
        at a live migration, libvirt 9.0.0).
        """
        return set(_drain(self._migrating))

    def finished_jobs(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the statistics of the last completed job by uuid."""
        return dict(_drain(self._jobs))

    def _on_lifecycle(self, _conn: Any, domain: Any, event: int, detail: int, _: Any) -> None:
        uuid = domain.UUIDString()
        self._changed.append(uuid)
        self._lifecycle.append((uuid, event, detail))
        if event == _STARTED:
            self._started.append((uuid, domain))

    def _on_change(self, _conn: Any, domain: Any, *_: Any) -> None:
        self._changed.append(domain.UUIDString())

    def _on_iteration(self, _conn: Any, domain: Any, *_: Any) -> None:
        self._migrating.append(domain.UUIDString())

    def _on_job(self, _conn: Any, domain: Any, stats: Mapping[str, Any], _: Any) -> None:
        job_type = _COMPLETED if stats.get('success', True) else _FAILED
        self._jobs.append((domain.UUIDString(), {'type': job_type, **stats}))


class LifecycleCounts:
    """How often what has happened to whom, since we listen.

    An instance that is shut off keeps its counts; one that was undefined loses
    them, and so does the one unheard of for longest when there are too many.
    """

    def __init__(self, limit: int = 2000) -> None:
        self._limit = limit
        self._counts: dict[str, collections.Counter[tuple[str, str]]] = {}
        self._undefined: set[str] = set()

    def add(self, uuid: str, event: str, detail: str) -> None:
        """Count one event."""
        counts = self._counts.pop(uuid, None) or collections.Counter()
        counts[event, detail] += 1
        self._counts[uuid] = counts
        if event == 'undefined':
            self._undefined.add(uuid)
        elif event == 'defined':
            self._undefined.discard(uuid)
        if len(self._counts) > self._limit:
            del self._counts[next(iter(self._counts))]

    def of(self, uuid: str) -> Mapping[tuple[str, str], int]:
        """Return the counts by event and detail."""
        return dict(self._counts.get(uuid, ()))

    def forget_undefined(self, present: set[str]) -> None:
        """Drop the domains that were undefined and do not run any more."""
        for uuid in self._undefined - present:
            self._counts.pop(uuid, None)
        self._undefined &= present


def _names(event: int, detail: int) -> tuple[str, str]:
    """Return the texts of a life cycle event; a newer libvirt may know more."""
    if not 0 <= event < len(LIFECYCLE):
        return str(event), str(detail)
    name, details = LIFECYCLE[event]
    return name, details[detail] if 0 <= detail < len(details) else str(detail)


def _queue() -> collections.deque[Any]:
    return collections.deque(maxlen=_LONGEST_QUEUE)


def _drain(queue: collections.deque[Any]) -> Iterator[Any]:
    for _ in range(len(queue)):
        yield queue.popleft()
