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

"""CPU time that instances use, wait for, and are refused."""

from collections.abc import Callable
from collections.abc import Iterator
import operator
from typing import Any

from oie import model
from oie.analysis import rates
from oie.analysis import suppression
from oie.collectors import base

GAUGE, CUMULATIVE = model.Kind.GAUGE, model.Kind.CUMULATIVE

CPU_PERCENT = model.Meter(
    prometheus='oie_cpu_percent',
    unit='%',
    kind=GAUGE,
    help='CPU usage since the previous cycle, 100 = all vCPUs busy; left out while idle.',
    source='virDomainGetInfo cpuTime, ns, over the monotonic clock and the live vCPU count',
)
VCPU_SECONDS = model.Meter(
    prometheus='oie_instance_vcpu_seconds_total',
    unit='s',
    kind=CUMULATIVE,
    help='CPU time of the vCPUs, without the emulator and its I/O threads.',
    source='virConnectGetAllDomainStats vcpu.<n>.time, ns',
)
STEAL_SECONDS = model.Meter(
    prometheus='oie_instance_cpu_steal_seconds_total',
    unit='s',
    kind=CUMULATIVE,
    help='Time the vCPUs were ready to run but waited for a CPU of the host.',
    source='virConnectGetAllDomainStats vcpu.<n>.delay, ns (libvirt 7.2 and later)',
)
WAIT_SECONDS = model.Meter(
    prometheus='oie_instance_cpu_wait_seconds_total',
    unit='s',
    kind=CUMULATIVE,
    help='Time the vCPUs waited for I/O; only where kernel.sched_schedstats is on.',
    source='virConnectGetAllDomainStats vcpu.<n>.wait, ns',
)
VCPU_STATE = model.Meter(
    prometheus='oie_instance_vcpu_state_code',
    unit='state',
    kind=GAUGE,
    help='State of a vCPU: 0 offline, 1 running, 2 blocked.',
    source='virConnectGetAllDomainStats vcpu.<n>.state',
)
VCPU_HALTED = model.Meter(
    prometheus='oie_instance_vcpu_halted',
    unit='1',
    kind=GAUGE,
    help='Whether the guest has halted a vCPU.',
    source='virConnectGetAllDomainStats vcpu.<n>.halted',
)
HALT_POLL_SECONDS = model.Meter(
    prometheus='oie_instance_halt_poll_seconds_total',
    unit='s',
    kind=CUMULATIVE,
    help='Time KVM polled before it halted a vCPU, by result.',
    source='virConnectGetAllDomainStats cpu.haltpoll.{success,fail}.time, ns',
)
CPU_USER_SECONDS = model.Meter(
    prometheus='oie_instance_cpu_user_seconds_total',
    unit='s',
    kind=CUMULATIVE,
    help='CPU time the host spent for the instance in user mode.',
    source='virConnectGetAllDomainStats cpu.user, ns',
)
CPU_SYSTEM_SECONDS = model.Meter(
    prometheus='oie_instance_cpu_system_seconds_total',
    unit='s',
    kind=CUMULATIVE,
    help='CPU time the host spent for the instance in kernel mode.',
    source='virConnectGetAllDomainStats cpu.system, ns',
)
CPU_LIMIT = model.Meter(
    prometheus='oie_instance_cpu_limit_cores',
    unit='core',
    kind=GAUGE,
    help='CPU time per second the instance may use; absent without a quota.',
    source='virDomainGetXMLDesc: cputune quota / period x vCPUs',
)
LLC_OCCUPANCY = model.Meter(
    prometheus='oie_instance_llc_occupancy_bytes',
    unit='B',
    kind=GAUGE,
    help='Last level cache a cache monitor of the domain counts, by bank.',
    source='virConnectGetAllDomainStats cpu.cache.monitor.<n>.bank.<i>.bytes',
)
MEMORY_BANDWIDTH = model.Meter(
    prometheus='oie_instance_memory_bandwidth_bytes_total',
    unit='B',
    kind=CUMULATIVE,
    help='Bytes over the memory bus that a bandwidth monitor counts, by node and scope.',
    source='virConnectGetAllDomainStats memory.bandwidth.monitor.<n>.node.<i>.bytes.<scope>',
)


def _perf(
    event: str, prometheus: str, unit: str, help: str, kind: model.Kind = CUMULATIVE
) -> tuple[str, model.Meter]:
    source = f'virConnectGetAllDomainStats perf.{event}'
    return event, model.Meter(
        prometheus=prometheus, unit=unit, kind=kind, help=help, source=source
    )


# Present only where Nova's [libvirt] enabled_perf_events switches them on.
PERF = dict(
    (
        _perf('cmt', 'oie_instance_perf_llc_bytes', 'B', 'Last level cache in use.', GAUGE),
        _perf(
            'mbmt',
            'oie_instance_perf_memory_bandwidth_bytes_total',
            'B',
            'Bytes over the memory bus.',
        ),
        _perf(
            'mbml',
            'oie_instance_perf_memory_bandwidth_local_bytes_total',
            'B',
            'Bytes to and from local memory.',
        ),
        _perf('cpu_cycles', 'oie_instance_perf_cpu_cycles_total', 'cycle', 'CPU cycles.'),
        _perf(
            'instructions',
            'oie_instance_perf_instructions_total',
            'instruction',
            'Instructions retired.',
        ),
        _perf(
            'cache_references',
            'oie_instance_perf_cache_references_total',
            'reference',
            'Cache references.',
        ),
        _perf('cache_misses', 'oie_instance_perf_cache_misses_total', 'miss', 'Cache misses.'),
        _perf(
            'branch_instructions',
            'oie_instance_perf_branch_instructions_total',
            'instruction',
            'Branches.',
        ),
        _perf(
            'branch_misses',
            'oie_instance_perf_branch_misses_total',
            'miss',
            'Branches mispredicted.',
        ),
        _perf('bus_cycles', 'oie_instance_perf_bus_cycles_total', 'cycle', 'Bus cycles.'),
        _perf(
            'stalled_cycles_frontend',
            'oie_instance_perf_stalled_cycles_frontend_total',
            'cycle',
            'Cycles the front end of the pipeline stalled.',
        ),
        _perf(
            'stalled_cycles_backend',
            'oie_instance_perf_stalled_cycles_backend_total',
            'cycle',
            'Cycles the back end of the pipeline stalled.',
        ),
        _perf(
            'ref_cpu_cycles',
            'oie_instance_perf_ref_cpu_cycles_total',
            'cycle',
            'Reference cycles.',
        ),
        _perf('cpu_clock', 'oie_instance_perf_cpu_clock_total', 'ns', 'CPU clock, ns.'),
        _perf('task_clock', 'oie_instance_perf_task_clock_total', 'ns', 'Task clock, ns.'),
        _perf('page_faults', 'oie_instance_perf_page_faults_total', 'fault', 'Page faults.'),
        _perf(
            'context_switches',
            'oie_instance_perf_context_switches_total',
            'switch',
            'Context switches.',
        ),
        _perf(
            'cpu_migrations',
            'oie_instance_perf_cpu_migrations_total',
            'migration',
            'CPU migrations.',
        ),
        _perf(
            'page_faults_min',
            'oie_instance_perf_page_faults_minor_total',
            'fault',
            'Minor faults.',
        ),
        _perf(
            'page_faults_maj',
            'oie_instance_perf_page_faults_major_total',
            'fault',
            'Major faults.',
        ),
        _perf(
            'alignment_faults',
            'oie_instance_perf_alignment_faults_total',
            'fault',
            'Alignment faults.',
        ),
        _perf(
            'emulation_faults',
            'oie_instance_perf_emulation_faults_total',
            'fault',
            'Emulation faults.',
        ),
    )
)

SCHEDSTATS = '/proc/sys/kernel/sched_schedstats'


class CpuCollector(base.Collector):
    """CPU usage, as the reference has it, and the counters behind it."""

    GROUP = 'collector_cpu'
    METERS = (
        CPU_PERCENT,
        VCPU_SECONDS,
        STEAL_SECONDS,
        WAIT_SECONDS,
        VCPU_STATE,
        VCPU_HALTED,
        HALT_POLL_SECONDS,
        CPU_USER_SECONDS,
        CPU_SYSTEM_SECONDS,
        CPU_LIMIT,
        LLC_OCCUPANCY,
        MEMORY_BANDWIDTH,
        *PERF.values(),
    )
    COLUMNS = {
        base.Resource.INSTANCE: (
            (
                model.Meter(
                    prometheus='oie_instance_cpu_seconds_total',
                    unit='s',
                    kind=CUMULATIVE,
                    help='CPU time of the whole instance, the emulator included.',
                    source='virDomainGetInfo cpuTime, ns',
                ),
                lambda i: base.seconds(i.cpu_time_ns),
            ),
            (
                model.Meter(
                    ceilometer='oie.cpu.total',
                    field='cpu_total',
                    unit='ns',
                    kind=CUMULATIVE,
                    help='CPU time of the whole instance, the emulator included.',
                    source='virDomainGetInfo cpuTime, ns',
                ),
                operator.attrgetter('cpu_time_ns'),
            ),
            (
                model.Meter(
                    prometheus='oie_instance_vcpus',
                    ceilometer='oie.vcpus',
                    field='vcpus_online',
                    unit='vcpu',
                    kind=GAUGE,
                    help='Number of vCPUs that are online.',
                    source='virDomainGetInfo nrVirtCpu',
                ),
                operator.attrgetter('vcpus'),
            ),
        ),
        base.Resource.MONITOR: (
            (
                model.Meter(
                    prometheus='oie_instance_vcpus_maximum',
                    unit='vcpu',
                    kind=GAUGE,
                    help='Number of vCPUs that could be plugged.',
                    source='virConnectGetAllDomainStats vcpu.maximum',
                ),
                operator.attrgetter('vcpus_maximum'),
            ),
            (
                model.Meter(
                    ceilometer='oie.cpu',
                    field='cpu',
                    unit='ns',
                    kind=CUMULATIVE,
                    help='CPU time of the vCPUs; unlike Ceilometer\'s cpu without their waiting.',
                    source='virConnectGetAllDomainStats vcpu.<n>.time, ns',
                ),
                lambda m: total(m.vcpus, 'time_ns'),
            ),
            (
                model.Meter(
                    ceilometer='oie.cpu.steal',
                    field='cpu_steal',
                    unit='ns',
                    kind=CUMULATIVE,
                    help='Time the vCPUs waited for a CPU of the host.',
                    source='virConnectGetAllDomainStats vcpu.<n>.delay, ns',
                ),
                lambda m: total(m.vcpus, 'delay_ns'),
            ),
        ),
    }

    def collect(
        self, previous: model.Snapshot | None, current: model.Snapshot, notes: base.Notes
    ) -> Iterator[model.Family]:
        """Give the usage, suppressed by the reference's rules, then the counters."""
        instances = current.instances.value
        yield from base.family(CPU_PERCENT, self._percents(previous, instances, notes))
        yield from super().collect(previous, current, notes)
        monitors = base.rows(current, base.Resource.MONITOR)
        yield from self._vcpus(VCPU_SECONDS, 'time_ns', monitors)
        yield from self._vcpus(STEAL_SECONDS, 'delay_ns', monitors)
        yield from _perf_events(monitors)
        yield from self._optional(instances, monitors)

    def _percents(
        self,
        previous: model.Snapshot | None,
        instances: tuple[model.Instance, ...],
        notes: base.Notes,
    ) -> Iterator[tuple[model.Labels, float]]:
        before = {i.definition.uuid: i for i in previous.instances.value} if previous else {}
        for instance in instances:
            uuid = instance.definition.uuid
            usage = rates.cpu_percent(before.get(uuid), instance)
            if usage is None:
                continue
            if suppression.shows_cpu(usage, notes.get(uuid), self.common.cpu_min):
                notes[uuid] = usage
                yield instance.definition.labels, base.round5(usage)

    def _vcpus(
        self, meter: model.Meter, field: str, monitors: base.Rows
    ) -> Iterator[model.Family]:
        """Give the sum of an instance's vCPUs, or each of them when wanted."""
        if self.wants('vcpus'):
            value_of = operator.attrgetter(field)
            return base.family(meter, _each(monitors, lambda v: base.seconds(value_of(v))))
        sums = ((labels, base.seconds(total(m.vcpus, field))) for labels, m in monitors)
        return base.family(meter, sums)

    def _optional(
        self, instances: tuple[model.Instance, ...], monitors: base.Rows
    ) -> Iterator[model.Family]:
        if self.wants('vcpu_wait') and _has_schedstats():
            yield from self._vcpus(WAIT_SECONDS, 'wait_ns', monitors)
        if self.wants('vcpus'):
            yield from base.family(VCPU_STATE, _each(monitors, lambda v: v.state))
            halted = _each(monitors, lambda v: None if v.is_halted is None else int(v.is_halted))
            yield from base.family(VCPU_HALTED, halted)
        if self.wants('cpu_split'):
            user = ((labels, base.seconds(m.cpu_user_ns)) for labels, m in monitors)
            system = ((labels, base.seconds(m.cpu_system_ns)) for labels, m in monitors)
            yield from base.family(CPU_USER_SECONDS, user)
            yield from base.family(CPU_SYSTEM_SECONDS, system)
        if self.wants('halt_poll'):
            yield from base.family(HALT_POLL_SECONDS, _halt_poll(monitors))
        if self.wants('limits'):
            limits = ((i.definition.labels, _limit(i)) for i in instances)
            yield from base.family(CPU_LIMIT, limits)
        if self.wants('cache_occupancy'):
            yield from base.family(LLC_OCCUPANCY, _cache(monitors))
        if self.wants('memory_bandwidth'):
            yield from base.family(MEMORY_BANDWIDTH, _bandwidth(monitors))


def total(vcpus: tuple[model.VcpuStatistics, ...], field: str) -> int | None:
    """Return the sum over all vCPUs, None when one of them is unknown."""
    values = [getattr(vcpu, field) for vcpu in vcpus]
    return None if not values or None in values else sum(values)


def _each(
    monitors: base.Rows, value_of: Callable[[model.VcpuStatistics], Any]
) -> Iterator[tuple[model.Labels, Any]]:
    for labels, monitor in monitors:
        for vcpu in monitor.vcpus:
            yield labels.extended(vcpu=str(vcpu.number)), value_of(vcpu)


def _perf_events(monitors: base.Rows) -> Iterator[model.Family]:
    if not any(monitor.perf for _, monitor in monitors):
        return
    for event, meter in PERF.items():
        yield from base.family(meter, ((labels, m.perf.get(event)) for labels, m in monitors))


def _halt_poll(monitors: base.Rows) -> Iterator[tuple[model.Labels, float | None]]:
    for labels, m in monitors:
        yield labels.extended(result='success'), base.seconds(m.halt_poll_success_ns)
        yield labels.extended(result='fail'), base.seconds(m.halt_poll_fail_ns)


def _cache(monitors: base.Rows) -> Iterator[tuple[model.Labels, int]]:
    for labels, m in monitors:
        for number, bank, value in m.cache_occupancy:
            yield labels.extended(monitor=number, bank=bank), value


def _bandwidth(monitors: base.Rows) -> Iterator[tuple[model.Labels, int]]:
    for labels, m in monitors:
        for number, node, scope, value in m.bandwidth:
            yield labels.extended(monitor=number, node=node, scope=scope), value


def _limit(instance: model.Instance) -> float | None:
    definition = instance.definition
    if not definition.cpu_quota_us or not definition.cpu_period_us or not instance.vcpus:
        return None
    return definition.cpu_quota_us / definition.cpu_period_us * instance.vcpus


def _has_schedstats() -> bool:
    """Whether the kernel counts waiting: libvirt reports 0 when it does not."""
    try:
        with open(SCHEDSTATS, encoding='ascii') as file:
            return file.read().strip() == '1'
    except OSError:
        return False
