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

"""The host: how much runs on it, and how well its libvirt answers."""

from collections.abc import Iterable
from collections.abc import Iterator

from oie import model
from oie.collectors import base

GAUGE, CUMULATIVE, INFO = model.Kind.GAUGE, model.Kind.CUMULATIVE, model.Kind.INFO


def _meter(
    prometheus: str, unit: str, help: str, source: str, kind: model.Kind = GAUGE
) -> model.Meter:
    return model.Meter(prometheus=prometheus, unit=unit, kind=kind, help=help, source=source)


ACTIVE_VMS = _meter(
    'oie_host_active_vms',
    'instance',
    'Number of active instances, also those that could not be read; one that is migrating in is '
    'not yet counted.',
    'virConnectListAllDomains ACTIVE',
)
ACTIVE_VCPUS = _meter(
    'oie_host_active_vcpus',
    'vcpu',
    'Number of vCPUs of the active instances, as far as they are known.',
    'virDomainGetInfo nrVirtCpu',
)
ACTIVE_MEMORY = _meter(
    'oie_host_active_mem_gbytes',
    'GiB',
    'Memory of the active instances, as far as known, in gigabytes (2^30), five decimals.',
    'virDomainGetInfo maxMem, KiB',
)
WITHOUT_PROJECT = _meter(
    'oie_host_instances_without_project',
    'instance',
    'Instances that belong to no project by their Nova metadata; no list for Ceilometer has them, '
    'so nobody pays for them.',
    'virDomainGetXMLDesc: nova:project',
)
LIST_SECONDS = _meter(
    'oie_host_libvirt_list_duration_seconds',
    's',
    'How long the last listing of the domains took.',
    'own clock around virConnectListAllDomains',
)
LISTED_AT = _meter(
    'oie_libvirt_last_listing_timestamp_seconds',
    's',
    'Unix time of the last complete listing of the domains; who started later may be missing.',
    'own clock at virConnectListAllDomains',
)
UP = _meter(
    'oie_libvirt_up',
    '1',
    'Whether the latest cycle got a complete listing from libvirt, and could read any of it.',
    'own bookkeeping',
)
LIBVIRT_INFO = _meter(
    'oie_libvirt_info',
    '1',
    'Versions of libvirt and of the hypervisor, always 1.',
    'virConnectGetLibVersion, virConnectGetType, virConnectGetVersion',
    INFO,
)
RECONNECTS = _meter(
    'oie_libvirt_reconnects_total',
    'connection',
    'Connections to libvirt that were opened after the first one.',
    'own bookkeeping',
    CUMULATIVE,
)
STUCK_CALLS = _meter(
    'oie_libvirt_stuck_calls',
    'call',
    'Calls into libvirt that were left behind and have not returned.',
    'own bookkeeping',
)
SUSPECTS = _meter(
    'oie_libvirt_suspect_domains',
    'domain',
    'Domains that are asked nothing that needs their QEMU monitor, because it did not answer.',
    'own bookkeeping',
)
CALL_SECONDS = _meter(
    'oie_libvirt_call_duration_seconds',
    's',
    'Number of calls into libvirt that have returned, and their time, by call.',
    'own clock',
    model.Kind.SUMMARY,
)
CALL_TIMEOUTS = _meter(
    'oie_libvirt_call_timeouts_total',
    'call',
    'Calls into libvirt that did not return in time, by call.',
    'own bookkeeping',
    CUMULATIVE,
)
DOMAINS = _meter(
    'oie_libvirt_domains',
    'domain',
    'Active domains by state; incoming and outgoing ones are being migrated.',
    'virConnectGetAllDomainStats state.state',
)
DOMAIN_ERRORS = _meter(
    'oie_domain_errors_total',
    'domain',
    'Domains that could not be read (completely), by reason, each cycle counted.',
    'own bookkeeping',
    CUMULATIVE,
)

POOL_CAPACITY = _meter(
    'oie_storage_pool_capacity_bytes',
    'B',
    'Size of a storage pool that libvirt manages.',
    'virStoragePoolGetInfo capacity, not refreshed',
)
POOL_ALLOCATION = _meter(
    'oie_storage_pool_allocation_bytes',
    'B',
    'What the volumes of the pool occupy.',
    'virStoragePoolGetInfo allocation, not refreshed',
)
POOL_AVAILABLE = _meter(
    'oie_storage_pool_available_bytes',
    'B',
    'What is left in the pool.',
    'virStoragePoolGetInfo available, not refreshed',
)

# Present from the start, so that increase() sees the first one.
REASONS = ('error', 'gone', 'parse', 'partial', 'suspended', 'timeout', 'unreachable')


class HostCollector(base.Collector):
    """Sums over the instances, and the health of the connection to libvirt."""

    GROUP = 'collector_host'
    METERS = (
        ACTIVE_VMS,
        ACTIVE_VCPUS,
        ACTIVE_MEMORY,
        WITHOUT_PROJECT,
        LIST_SECONDS,
        LISTED_AT,
        UP,
        LIBVIRT_INFO,
        RECONNECTS,
        STUCK_CALLS,
        SUSPECTS,
        CALL_SECONDS,
        CALL_TIMEOUTS,
        DOMAINS,
        DOMAIN_ERRORS,
        POOL_CAPACITY,
        POOL_ALLOCATION,
        POOL_AVAILABLE,
    )

    def collect(
        self, previous: model.Snapshot | None, current: model.Snapshot, notes: base.Notes
    ) -> Iterator[model.Family]:
        """Give the sums while they are known, the health always."""
        hypervisor = current.hypervisor
        yield from _sums(current.instances, hypervisor.active_instances)
        yield from base.single(
            LIST_SECONDS,
            None if hypervisor.list_seconds is None else base.round5(hypervisor.list_seconds),
        )
        yield from base.single(LISTED_AT, hypervisor.listed_at)
        yield from base.single(UP, int(not current.instances.error))
        yield from _health(hypervisor)
        yield from _calls(hypervisor)
        if self.wants('storage_pools'):
            yield from _pools(hypervisor)


def _sums(
    reading: model.Reading[tuple[model.Instance, ...]], active: int | None
) -> Iterator[model.Family]:
    """Give the sums of what is shown.

    :param active: how many instances there are, read or not; None if the latest cycle could
        not tell
    """
    instances = reading.value
    # Without a listing an empty host is an unknown one: its values have expired.
    if active is None and reading.read_at is not None and (instances or not reading.error):
        active = len(instances)
    yield from base.single(ACTIVE_VMS, active)
    if active is None or (active and not instances):
        return
    memory = _sum(i.memory_maximum_bytes for i in instances)
    yield from base.single(ACTIVE_VCPUS, _sum(i.vcpus for i in instances))
    yield from base.single(ACTIVE_MEMORY, None if memory is None else base.gbytes(memory))
    strangers = sum(not i.definition.project_uuid for i in instances)
    yield from base.single(WITHOUT_PROJECT, strangers)


def _sum(values: Iterable[int | None]) -> int | None:
    """Return the sum of what is known; None when there are values and none is known."""
    listed = list(values)
    known = [value for value in listed if value is not None]
    return sum(known) if known or not listed else None


def _health(hypervisor: model.Hypervisor) -> Iterator[model.Family]:
    if hypervisor.libvirt_version:
        info = model.Labels.of(
            libvirt_version=hypervisor.libvirt_version,
            hypervisor=hypervisor.type,
            hypervisor_version=hypervisor.version,
        )
        yield from base.family(LIBVIRT_INFO, ((info, 1),))
    yield from base.single(RECONNECTS, hypervisor.reconnects)
    yield from base.single(STUCK_CALLS, hypervisor.stuck_calls)
    yield from base.single(SUSPECTS, hypervisor.suspects)
    states = hypervisor.domains_by_state.items()
    yield from base.family(DOMAINS, ((model.Labels.of(state=s), n) for s, n in states))
    errors = {**dict.fromkeys(REASONS, 0), **hypervisor.domain_errors}
    yield from base.family(
        DOMAIN_ERRORS, ((model.Labels.of(reason=r), n) for r, n in errors.items())
    )


def _calls(hypervisor: model.Hypervisor) -> Iterator[model.Family]:
    calls = [(model.Labels.of(call=name), call) for name, call in hypervisor.calls.items()]
    seconds = ((labels, call.seconds) for labels, call in calls)
    yield from base.family(CALL_SECONDS, seconds, '_sum')
    counts = ((labels, call.count) for labels, call in calls)
    yield from base.family(CALL_SECONDS, counts, '_count')
    yield from base.family(CALL_TIMEOUTS, ((labels, call.timeouts) for labels, call in calls))


def _pools(hypervisor: model.Hypervisor) -> Iterator[model.Family]:
    pools = [(model.Labels.of(pool=pool.name), pool) for pool in hypervisor.storage_pools]
    yield from base.family(POOL_CAPACITY, ((labels, p.capacity_bytes) for labels, p in pools))
    yield from base.family(POOL_ALLOCATION, ((labels, p.allocation_bytes) for labels, p in pools))
    yield from base.family(POOL_AVAILABLE, ((labels, p.available_bytes) for labels, p in pools))
