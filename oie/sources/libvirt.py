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

"""Bulk statistics and XML of the running domains → instances of the model.

Each cycle reads in two tiers. Tier one (``libvirt_domains``) needs no QEMU
monitor: list, state, CPU time, control info, interface counters. Tier two
(``libvirt_monitor``) does: vCPUs, memory, disks. Both are bounded; a domain that
fails costs only itself, and its last good values stay until they expire.
"""

import collections
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import logging
import os
import time
from typing import Any
from typing import ClassVar

from oslo_config import cfg

from oie import config
from oie import exceptions
from oie import failures
from oie import model
from oie.sources import base
from oie.sources import breaker as breakers
from oie.sources import calls
from oie.sources import domain_stats
from oie.sources import libvirt_connection
from oie.sources import libvirt_daemon
from oie.sources import libvirt_details
from oie.sources import libvirt_domains
from oie.sources import libvirt_events
from oie.sources import libvirt_held
from oie.sources import libvirt_listing
from oie.sources import libvirt_monitor
from oie.sources import libvirt_pools
from oie.sources import vcpu_ledgers
from oie.sources import virtual_functions

LOG = logging.getLogger(__name__)

# 20 workers serve all clients of libvirtd; a stuck call holds one of them even
# after our death. Four is all an observer may ever take.
MAX_CALLS_IN_FLIGHT = 4

# Beside the file of the suspects.
VCPU_TIMES = 'vcpu_times.json'

# When so many monitors are wedged, whoever did it, the host is in distress (a
# storage outage): each further question could hold one more of libvirtd's
# workers, so none is asked. It holds for short-lived processes too.
DISTRESS = 3

OPTS = (
    cfg.Opt(
        'uri',
        type=config.Text(),
        default='qemu:///system',
        help='URI of the hypervisor. It is opened read-only, whatever it says. Modular '
        'daemons are found by the same URI. In a container mount the directory '
        '/run/libvirt, not the socket in it: the socket is replaced when the daemon restarts. It '
        'may not be empty: libvirt would choose, and for a user other than root that is a '
        'daemon without the guests.',
    ),
    cfg.Opt(
        'timeout',
        type=config.Duration(minimum=0.1, maximum=60),
        default='5s',
        help='How long opening a connection and reading what needs no QEMU monitor may take '
        'in one cycle. When it takes longer the last values stay, until they expire.',
    ),
    cfg.Opt(
        'monitor_timeout',
        type=config.Duration(minimum=0.1, maximum=60),
        default='2s',
        help='How long a bulk call for what needs the QEMU monitors (vCPUs, memory, disks) may '
        'take. A guest whose monitor does not answer within this time is asked no more until '
        'it does; this cycle then takes so much longer.',
    ),
    cfg.Opt(
        'busy_limit',
        type=config.Duration(minimum=0.01, maximum=3600),
        default='500ms',
        help='A domain whose monitor somebody else has occupied for longer than this is asked '
        'only for what needs no monitor.',
    ),
    cfg.IntOpt(
        'chunk_size',
        default=16,
        min=1,
        max=1000,
        help='How many domains one bulk call asks. A smaller number loses less to a guest that '
        'does not answer, a larger one saves round trips.',
    ),
    cfg.IntOpt(
        'parallel_calls',
        default=2,
        min=1,
        max=3,
        help='How many bulk calls run at the same time. libvirtd has 20 workers for all its '
        f'clients; never more than {MAX_CALLS_IN_FLIGHT} calls of ours are in flight, stuck '
        'ones included.',
    ),
    cfg.Opt(
        'guest_memory_max_age',
        type=config.Duration(minimum=1, maximum=86400),
        default='30s',
        help='Memory figures that a guest gave longer ago are left out: QEMU repeats the last '
        'ones for ever. Three times [libvirt] mem_stats_period_seconds of Nova is a good value.',
    ),
    cfg.Opt(
        'suspects_path',
        type=config.FilePath(),
        default='/run/oie/suspects.json',
        help='File that remembers, over a restart, which guests did not answer. Beside it, in '
        f'{VCPU_TIMES}, stands what the vCPUs of the guests have used, so that counters do not '
        'fall when one is unplugged. Empty: both are forgotten.',
    ),
    cfg.IntOpt(
        'keepalive_interval',
        default=5,
        min=1,
        max=3600,
        help='Seconds between two keepalive messages on an idle connection.',
    ),
    cfg.IntOpt(
        'keepalive_count',
        default=3,
        min=1,
        max=100,
        help='How many unanswered keepalive messages mean that the daemon is gone.',
    ),
)


class LibvirtSource(base.Source):
    """Reads ``Snapshot.instances`` and ``Snapshot.hypervisor``.

    :param options: our group ``[libvirt]``
    :param expiration: seconds a parsed definition is trusted without events
    :param optional: names of the optional series whose facts are wanted
    :param suspects_path: file of the suspects, empty to forget them
    :param remembers: False for a program beside the daemon, which writes no file of it
    """

    GROUP: ClassVar[str] = 'libvirt'
    GROUP_HELP: ClassVar[str] = 'The hypervisor: how it is reached and how far it is trusted.'
    OPTS: ClassVar[tuple[cfg.Opt, ...]] = OPTS

    def __init__(
        self,
        options: Any,
        *,
        expiration: float = 3600.0,
        keep_without_metadata: bool = True,
        optional: frozenset[str] = frozenset(),
        suspects_path: str = '',
        remembers: bool = True,
    ) -> None:
        self._options = options
        self._keep_without_metadata = keep_without_metadata
        self._optional = optional
        self._instances: dict[str, model.Instance] = {}
        self._errors: collections.Counter[str] = collections.Counter()
        self._states: collections.Counter[str] = collections.Counter()
        self._lifecycle = libvirt_events.LifecycleCounts()
        self._active: int | None = None
        self._listens_since = 0
        self._read_at: float | None = None
        self._failures = failures.LastingFailures(LOG)
        self._calls = calls.Calls(MAX_CALLS_IN_FLIGHT)
        self._breaker = breakers.Breaker(suspects_path if remembers else '')
        self._vcpus = vcpu_ledgers.VcpuLedgers(_beside(suspects_path), writes=remembers)
        self._daemon = libvirt_daemon.Daemon(
            options.uri,
            self._calls,
            timeout=options.timeout,
            keepalive=(options.keepalive_interval, options.keepalive_count),
        )
        self._domains = libvirt_domains.DomainReader(
            self._daemon, self._calls, self._errors, self._failures, expiration=expiration
        )
        self._held = libvirt_held.HeldDomains(
            self._calls,
            self._breaker,
            timeout=options.timeout,
            patience=options.monitor_timeout,
        )
        self._listing = libvirt_listing.ListingReader(
            self._daemon,
            self._calls,
            self._domains,
            self._held,
            self._errors,
            self._failures,
            timeout=options.timeout,
        )
        self._pool_reader = libvirt_pools.PoolReader(
            self._calls, self._failures, timeout=options.timeout
        )
        self._pools: tuple[model.StoragePool, ...] = ()
        self._virtual_functions = virtual_functions.VirtualFunctionReader()
        self._monitor = self._make_monitor_reader()
        self._details = self._make_details_reader()

    def _make_monitor_reader(self) -> libvirt_monitor.MonitorReader:
        return libvirt_monitor.MonitorReader(
            self._calls,
            self._breaker,
            read_records=self._read_records,
            read_controls=self._domains.read_controls,
            held=self._held,
            lasting=self._failures,
            timeout=self._options.monitor_timeout,
            chunk_size=self._options.chunk_size,
            width=self._options.parallel_calls,
        )

    def _make_details_reader(self) -> libvirt_details.DetailsReader:
        return libvirt_details.DetailsReader(
            self._calls,
            self._breaker,
            self._errors,
            self._failures,
            timeout=self._options.monitor_timeout,
            total=self._options.timeout,
            wants_block_jobs='block_jobs' in self._optional,
        )

    def read(self) -> model.Reading[tuple[model.Instance, ...]]:
        """Return all instances; on failure the last ones, none of them fresh."""
        started = time.monotonic()
        try:
            error = self._cycle()
            self._failures.settle('libvirt', 'not read')
        except Exception as exc:
            # Whatever it is, the last values go out, marked as old.
            LOG.debug('reading libvirt failed', exc_info=True)
            error = (str(exc) if isinstance(exc, exceptions.SourceError) else '') or repr(exc)
            self._failures.report('libvirt', 'not read', error)
            self._pools, self._active = (), None
            self._instances = {uuid: _stale(i) for uuid, i in self._instances.items()}
        return model.Reading(
            # libvirt's own order changes from start to start.
            value=tuple(sorted(self._instances.values(), key=_name)),
            read_at=self._read_at,
            seconds=time.monotonic() - started,
            error=error,
        )

    def hypervisor(self) -> model.Hypervisor:
        """Return how well libvirt answers us."""
        daemon = self._daemon
        # A listing left behind may be counting meanwhile; dict() copies in one step.
        errors = collections.Counter(dict(self._errors))
        return model.Hypervisor(
            is_connected=daemon.main.is_open or daemon.rescue.is_open,
            uri=self._options.uri,
            reconnects=max(0, daemon.main.opened - 1),
            stuck_calls=self._calls.stuck,
            suspects=len(self._breaker.open),
            list_seconds=self._listing.seconds,
            listed_at=self._listing.listed_at,
            active_instances=self._active,
            calls=self._calls.statistics(),
            domains_by_state=dict(self._states),
            domain_errors=dict(errors + self._monitor.errors),
            definitions_cached=len(self._domains.known),
            storage_pools=self._pools,
            **daemon.versions,
        )

    def close(self) -> None:
        """Let go of connections and threads, at once; what hangs is left behind."""
        self._daemon.close()
        self._calls.close()
        self._vcpus.close()
        self._virtual_functions.close()

    # --- one cycle ----------------------------------------------------------

    def _cycle(self) -> str:
        """Read everything; return what is wrong with the result as a whole, if anything is."""
        self._daemon.leave_late_calls()
        connection, rescue = self._daemon.pick()
        connection.get(self._options.timeout)
        self._drain_events()
        listing = self._listing.read(connection, rescue)
        observed = list(listing.observed.values())
        self._pools = self._read_pools(connection)
        self._breaker.forget(one.uuid for one in observed if self._has_new_qemu(one))
        is_distressed = self._is_distressed(observed)
        records = {} if is_distressed else self._read_monitors(observed, connection, rescue)
        read_at = time.time()
        counted = self._count(observed)
        details = {} if is_distressed else self._read_details(counted)
        if 'vf_counters' in self._optional:
            self._virtual_functions.read(one.known.definition for one in counted)
        instances = self._assemble(counted, records, details, read_at, listing.failed)
        kept = listing.failed.keys() & self._instances.keys()
        self._instances = {
            **{uuid: _stale(self._instances[uuid]) for uuid in kept},
            **instances,
        }
        self._forget_gone(listing.observed.keys() | listing.failed.keys())
        unread = {uuid for uuid in listing.failed if self._is_counted(uuid)}
        self._active = len(unread.union(one.uuid for one in counted))
        return self._judge(listing, is_empty=not instances)

    def _judge(self, listing: libvirt_domains.Listing, *, is_empty: bool) -> str:
        """Return what is wrong with a cycle as a whole; date it as read if it is worth it."""
        if listing.problem:
            self._failures.report('libvirt', 'not listed', listing.problem)
        else:
            self._failures.settle('libvirt', 'not listed')
        if is_empty and listing.failed:
            uuid, reason = min(listing.failed.items())
            number = len(listing.failed)
            return f'could not read any instance, of {number} listed; {uuid}: {reason}'
        self._read_at = time.time()
        return listing.problem

    def _is_counted(self, uuid: str) -> bool:
        """Whether a domain that could not be read is an instance here, by all that is known."""
        known = self._domains.known.get(uuid)
        return known is None or (known.is_counted and self._is_wanted(known))

    def _is_wanted(self, known: libvirt_domains.Known) -> bool:
        return self._keep_without_metadata or known.definition.has_nova_metadata

    def _read_pools(
        self, connection: libvirt_connection.Connection
    ) -> tuple[model.StoragePool, ...]:
        if 'storage_pools' not in self._optional:
            return ()
        handle = connection.get(self._options.timeout)
        return self._pool_reader.read(self._daemon.libvirt, handle)

    def _drain_events(self) -> None:
        events, known = self._daemon.events, self._domains.known
        self._domains.expire(events.changed())
        if self._listens_since != self._daemon.main.opened:
            # What happened while nobody listened is not known.
            self._listens_since = self._daemon.main.opened
            self._domains.expire(known)
        self._listing.expect(events.started())
        for uuid in events.migrating() & known.keys():
            known[uuid].has_job = True
        for uuid, stats in events.finished_jobs().items():
            if uuid in known:
                known[uuid].last_job, known[uuid].has_job = domain_stats.job(stats), False
        for event in events.lifecycle():
            if 'lifecycle_events' in self._optional:
                self._lifecycle.add(*event)

    def _has_new_qemu(self, one: libvirt_domains.Observed) -> bool:
        last = self._instances.get(one.uuid)
        return last is not None and last.domain_id != one.known.domain_id

    def _forget_gone(self, present: set[str]) -> None:
        self._failures.keep_only({*present, 'libvirt', 'storage pools'})
        for uuid in self._domains.known.keys() - present:
            del self._domains.known[uuid]
        self._breaker.keep_only(present)
        self._vcpus.end_cycle(present)
        self._lifecycle.forget_undefined(present)

    # --- tier two -----------------------------------------------------------

    def _is_distressed(self, observed: Sequence[libvirt_domains.Observed]) -> bool:
        if sum(one.is_wedged for one in observed) < DISTRESS:
            self._failures.settle('libvirt', 'suspended')
            return False
        self._errors['suspended'] += len(observed)
        self._failures.report('libvirt', 'suspended', 'too many monitors do not answer')
        return True

    def _verdict(self, one: libvirt_domains.Observed) -> breakers.Verdict:
        """Return whether this domain may be asked for what needs its monitor."""
        if one.role:
            return breakers.Verdict.SKIP
        is_suspect = one.uuid in self._breaker.open
        is_busy = one.is_busy(self._options.busy_limit * 1000, is_suspect=is_suspect)
        return self._breaker.verdict(one.uuid, is_busy=is_busy)

    def _read_monitors(
        self,
        observed: Iterable[libvirt_domains.Observed],
        connection: libvirt_connection.Connection,
        rescue: libvirt_connection.Connection,
    ) -> Mapping[str, libvirt_domains.Record]:
        handles: dict[breakers.Verdict, dict[str, Any]] = {each: {} for each in breakers.Verdict}
        for one in observed:
            handles[self._verdict(one)][one.uuid] = one.handle
        together, alone = handles[breakers.Verdict.ASK], handles[breakers.Verdict.PROBE]
        return self._monitor.read(together, alone, connection, rescue)

    def _read_records(
        self, connection: Any, handles: Iterable[Any]
    ) -> dict[str, libvirt_domains.Record]:
        flags = 0
        if 'backing_depth' in self._optional:
            flags = self._daemon.libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_BACKING
        return self._domains.bulk(connection, list(handles), self._monitor_groups(), flags)

    def _monitor_groups(self) -> int:
        libvirt = self._daemon.libvirt
        groups = (
            libvirt.VIR_DOMAIN_STATS_BALLOON
            | libvirt.VIR_DOMAIN_STATS_VCPU
            | libvirt.VIR_DOMAIN_STATS_BLOCK
            | libvirt.VIR_DOMAIN_STATS_PERF
        )
        if self._optional & {'cpu_split', 'halt_poll', 'cache_occupancy'}:
            groups |= libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
        if 'memory_bandwidth' in self._optional:
            groups |= libvirt.VIR_DOMAIN_STATS_MEMORY
        return int(groups)

    def _read_details(
        self, counted: Iterable[libvirt_domains.Observed]
    ) -> Mapping[str, dict[str, Any]]:
        ask = breakers.Verdict.ASK
        return self._details.read(
            [one for one in counted if self._details.is_wanted(one) and self._verdict(one) is ask]
        )

    # --- assembly -----------------------------------------------------------

    def _count(
        self, observed: Iterable[libvirt_domains.Observed]
    ) -> list[libvirt_domains.Observed]:
        """Count the domains by state; return those that are instances of this host."""
        states: collections.Counter[str] = collections.Counter()
        counted = []
        for one in observed:
            role, state = one.role, one.state[0]
            states[role or _name_of(state)] += 1
            if state == model.DomainState.RUNNING:
                one.known.has_run = True
            one.known.is_counted = not role
            if not role and self._is_wanted(one.known):
                counted.append(one)
        self._states = states
        return counted

    def _assemble(
        self,
        counted: Iterable[libvirt_domains.Observed],
        records: Mapping[str, libvirt_domains.Record],
        details: Mapping[str, Mapping[str, Any]],
        read_at: float,
        failed: dict[str, str],
    ) -> dict[str, model.Instance]:
        instances = {}
        for one in counted:
            uuid = one.uuid
            try:
                monitor = self._monitor_statistics(one, records.get(uuid), read_at)
                instances[uuid] = self._instance(one, monitor, details.get(uuid, {}), read_at)
            except Exception as exc:
                # A record of a shape nobody has seen costs one instance.
                LOG.debug('instance %s failed', uuid, exc_info=True)
                self._errors['error'] += 1
                self._failures.report(uuid, 'not understood', repr(exc))
                failed[uuid] = repr(exc)
            else:
                self._failures.settle(uuid, 'not understood')
        return instances

    def _instance(
        self,
        one: libvirt_domains.Observed,
        monitor: model.MonitorStatistics | None,
        details: Mapping[str, Any],
        read_at: float,
    ) -> model.Instance:
        known, last = one.known, self._instances.get(one.uuid)
        _, max_memory_kib, _, vcpus, cpu_time_ns = one.info
        is_complete = monitor is not None and monitor.read_at == read_at and monitor.is_complete
        state, reason = one.state
        return model.Instance(
            definition=known.definition,
            domain_id=known.domain_id,
            state=state,
            state_reason=reason,
            read_at=read_at,
            read_clock_ns=one.read_clock_ns,
            cpu_time_ns=cpu_time_ns,
            vcpus=vcpus,
            memory_maximum_bytes=max_memory_kib * domain_stats.KIB,
            control=one.control,
            interfaces=domain_stats.interfaces(one.record, known.definition.interfaces),
            virtual_functions=self._virtual_functions.of(known.definition),
            monitor=monitor,
            is_complete=is_complete,
            completed_at=read_at if is_complete else last.completed_at if last else None,
            last_job=known.last_job,
            lifecycle_events=self._lifecycle.of(one.uuid),
            **details,
        )

    def _monitor_statistics(
        self, one: libvirt_domains.Observed, record: libvirt_domains.Record | None, read_at: float
    ) -> model.MonitorStatistics | None:
        """Return tier two: new if it is complete, else the last complete one."""
        last = self._instances.get(one.uuid)
        is_same = last is not None and last.domain_id == one.known.domain_id
        kept = last.monitor if last is not None and is_same else None
        if record is None:
            return kept
        fresh = domain_stats.monitor(
            record,
            one.known.definition.disks,
            read_at,
            self._options.guest_memory_max_age,
            has_layers='backing_depth' in self._optional,
        )
        if not fresh.is_complete:
            self._errors['partial'] += 1
            if kept is not None and kept.is_complete:
                return kept
        vcpus = self._vcpus.settle(
            one.uuid,
            fresh.vcpus,
            fresh.vcpus_current,
            domain_id=one.known.domain_id,
            cpu_time_ns=one.info[4],
        )
        return dataclasses.replace(fresh, vcpus=vcpus)


def _beside(suspects_path: str) -> str:
    """Return where the times of vCPUs are kept, empty if nowhere."""
    return os.path.join(os.path.dirname(suspects_path), VCPU_TIMES) if suspects_path else ''


def _name(instance: model.Instance) -> str:
    return instance.definition.domain


def _name_of(state: int) -> str:
    try:
        return model.DomainState(state).name.lower()
    except ValueError:
        return str(state)


def _stale(instance: model.Instance) -> model.Instance:
    return dataclasses.replace(instance, is_fresh=False, is_complete=False)
