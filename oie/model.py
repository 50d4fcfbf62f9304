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

"""All nouns: what is read from a host, frozen, with units in the names.

``None`` always means *not reported*: a failed or refused read, a key that this
hypervisor does not have. It never means zero.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import enum
import functools
from typing import Any
from typing import Generic
from typing import NamedTuple
from typing import TypeVar

T = TypeVar('T')


# --- values and their labels ------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Names and values that identify a series; compared by identity.

    One object serves all series of its resource for as long as the definition
    of that resource lives, so an output keeps in ``written`` what it made of it.
    """

    names: tuple[str, ...]
    values: tuple[str, ...]
    written: str | None = dataclasses.field(default=None, init=False, repr=False)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Each name with its value."""
        return tuple(zip(self.names, self.values, strict=True))

    def extended(self, **more: str) -> 'Labels':
        """Return these labels followed by more of them."""
        return Labels(_once((*self.names, *more)), (*self.values, *more.values()))

    @classmethod
    def of(cls, **labels: str) -> 'Labels':
        """Return the labels given by name."""
        return cls(_once(tuple(labels)), tuple(labels.values()))

    def write(self, text: str) -> str:
        """Keep what an output made of these labels, and return it."""
        # No part of the value, and the same whoever makes it.
        object.__setattr__(self, 'written', text)
        return text


@functools.cache
def _once(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return one object for equal names: there are a few of them for many thousands of labels."""
    return names


NO_LABELS = Labels((), ())


class Kind(enum.Enum):
    """What a number may do; the words are Ceilometer's, the last three Prometheus's."""

    GAUGE = 'gauge'
    CUMULATIVE = 'cumulative'
    INFO = 'info'
    SUMMARY = 'summary'
    HISTOGRAM = 'histogram'


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Meter:
    """One published number: its names, unit, meaning and source, written once.

    ``prometheus`` is the literal series name; ``field`` is the key of the
    pollster's JSON and ``ceilometer`` the meter made of it. A number that only
    one of both worlds has leaves the other out.
    """

    prometheus: str = ''
    ceilometer: str = ''
    field: str = ''
    unit: str
    kind: Kind
    help: str
    source: str


@dataclasses.dataclass(frozen=True, slots=True)
class Family:
    """A meter and its samples of one cycle, in two columns of one length.

    The meters of one resource share the column of labels. ``suffix`` says which part of a
    summary or histogram they are: ``_sum``, ``_count`` or ``_bucket``.
    """

    meter: Meter
    labels: list[Labels]
    values: list[float | int]
    suffix: str = ''

    @classmethod
    def of(
        cls, meter: Meter, samples: Iterable[tuple[Labels, float | int]], suffix: str = ''
    ) -> 'Family':
        """Return a family of labels with their values."""
        pairs = list(samples)
        return cls(meter, [labels for labels, _ in pairs], [value for _, value in pairs], suffix)

    @property
    def samples(self) -> list[tuple[Labels, float | int]]:
        """Each value with its labels."""
        return list(zip(self.labels, self.values, strict=True))


Getter = Callable[[Any], float | int | None]


# --- instances: what does not change while a guest runs ---------------------


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Flavor:
    """A flavor as the Nova metadata of the domain tells it."""

    name: str = ''
    id: str = ''
    vcpus: int | None = None
    memory_mib: int | None = None
    disk_gib: int | None = None
    ephemeral_gib: int | None = None
    swap_mib: int | None = None
    extra_specs: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One fixed IP of a port, in canonical text."""

    ip: str
    family: str
    port_uuid: str = ''


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DiskLimit:
    """A throttle of a disk: ``unit`` is bytes or requests per second."""

    operation: str
    unit: str
    is_burst: bool
    value: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DiskServer:
    """Where a disk lies that is reached over the network; hosts are ``name:port``."""

    protocol: str
    name: str
    hosts: tuple[str, ...] = ()
    user: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class DiskDevice:
    """A disk of the domain XML: ``target`` is its name in the guest (vda).

    ``tier`` and ``uuid`` follow the contract: file disks are ``local`` with
    their path, ``pool/image`` sources give both, else ``unknown``. ``backing``
    is the chain of images below this one, each with its format; None where the
    XML does not tell of any or of none.
    """

    owner: Labels
    target: str
    type: str
    device: str = 'disk'
    tier: str = 'unknown'
    uuid: str = 'unknown'
    source: str = ''
    driver_format: str = ''
    serial: str = ''
    bus: str = ''
    limits: tuple['DiskLimit', ...] = ()
    boot_order: int | None = None
    is_encrypted: bool = False
    backing: tuple[tuple[str, str], ...] | None = None
    server: DiskServer | None = None

    @functools.cached_property
    def labels(self) -> Labels:
        """The seven labels of every disk series."""
        return self.owner.extended(disk_uuid=self.uuid, disk_type=self.tier, disk_path=self.target)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class InterfaceDevice:
    """A network interface of the domain XML; ``target`` is the host's device.

    Passed-through interfaces have no host device: ``target`` is empty and
    libvirt has no statistics for them.
    """

    owner: Labels
    target: str
    type: str
    mac: str = ''
    port_uuid: str = ''
    model: str = ''
    mtu: int | None = None
    source: str = ''
    pci_address: str = ''

    @property
    def name(self) -> str:
        """The device of the host; passed-through interfaces go by their PCI address.

        Their MAC address would not do: the members of a bond in the guest
        share one.
        """
        return self.target or self.pci_address or self.mac

    @functools.cached_property
    def labels(self) -> Labels:
        """The labels of every series of this interface."""
        return self.owner.extended(interface=self.name)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HostDevice:
    """A device of the host that the guest owns (PCI address or mdev uuid)."""

    type: str
    address: str
    model: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Definition:
    """What domain XML and Nova metadata say of one instance.

    Read once and shared by every snapshot until the domain changes, hence
    compared by identity.
    """

    uuid: str
    domain: str
    has_nova_metadata: bool = False
    metadata_namespace: str = ''
    nova_version: str = ''
    name: str = ''
    created_at: str = ''
    created_timestamp: float | None = None
    project_uuid: str = ''
    project_name: str = ''
    user_uuid: str = ''
    user_name: str = ''
    flavor: Flavor = Flavor()
    root_type: str = ''
    image_uuid: str = ''
    image_properties: Mapping[str, str] = dataclasses.field(default_factory=dict)
    addresses: tuple[Address, ...] = ()
    libosinfo_id: str = ''
    has_agent_channel: bool = False
    os_type: str = ''
    architecture: str = ''
    cpu_quota_us: int | None = None
    cpu_period_us: int | None = None
    disks: tuple[DiskDevice, ...] = ()
    interfaces: tuple[InterfaceDevice, ...] = ()
    host_devices: tuple[HostDevice, ...] = ()

    @functools.cached_property
    def labels(self) -> Labels:
        """The four labels that every series of this instance carries."""
        return identity(self.domain, self.uuid, self.project_uuid, self.user_uuid)


def identity(domain: str, uuid: str, project_uuid: str, user_uuid: str) -> Labels:
    """Return the labels that join all series of one instance."""
    return Labels.of(
        domain=domain, instance_uuid=uuid, project_uuid=project_uuid, user_uuid=user_uuid
    )


# --- instances: what every cycle reads anew ---------------------------------


class DomainState(enum.IntEnum):
    """virDomainState, numbers of libvirt's stable API."""

    NOSTATE = 0
    RUNNING = 1
    BLOCKED = 2
    PAUSED = 3
    SHUTDOWN = 4
    SHUTOFF = 5
    CRASHED = 6
    PMSUSPENDED = 7


class PausedReason(enum.IntEnum):
    """virDomainPausedReason as far as we decide by it."""

    MIGRATION = 2
    IO_ERROR = 5
    POST_COPY = 12
    POST_COPY_FAILED = 13


class ControlState(enum.IntEnum):
    """virDomainControlState: what occupies the domain's monitor."""

    OK = 0
    JOB = 1
    OCCUPIED = 2
    ERROR = 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """virDomainGetControlInfo: the monitor's state and since when."""

    state: int
    busy_ms: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class VcpuStatistics:
    """One virtual CPU, ``vcpu.<n>.*`` of virConnectGetAllDomainStats."""

    number: int
    state: int | None = None
    time_ns: int | None = None
    wait_ns: int | None = None
    delay_ns: int | None = None
    is_halted: bool | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """``balloon.*`` of virConnectGetAllDomainStats, KiB made bytes."""

    current_bytes: int | None = None
    maximum_bytes: int | None = None
    rss_bytes: int | None = None
    available_bytes: int | None = None
    usable_bytes: int | None = None
    unused_bytes: int | None = None
    disk_caches_bytes: int | None = None
    swap_in_bytes: int | None = None
    swap_out_bytes: int | None = None
    major_faults: int | None = None
    minor_faults: int | None = None
    hugetlb_pgalloc: int | None = None
    hugetlb_pgfail: int | None = None
    updated_at: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DiskStatistics:
    """One disk, ``block.<n>.*`` of virConnectGetAllDomainStats."""

    device: DiskDevice
    read_bytes: int | None = None
    read_requests: int | None = None
    read_time_ns: int | None = None
    write_bytes: int | None = None
    write_requests: int | None = None
    write_time_ns: int | None = None
    flush_requests: int | None = None
    flush_time_ns: int | None = None
    capacity_bytes: int | None = None
    allocation_bytes: int | None = None
    physical_bytes: int | None = None
    threshold_bytes: int | None = None
    backing_depth: int | None = None
    latency: Mapping[str, tuple[tuple[int, int], ...]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceStatistics:
    """One interface, ``net.<n>.*``, seen from the guest: rx is what it received."""

    device: InterfaceDevice
    rx_bytes: int | None = None
    rx_packets: int | None = None
    rx_errors: int | None = None
    rx_drops: int | None = None
    tx_bytes: int | None = None
    tx_packets: int | None = None
    tx_errors: int | None = None
    tx_drops: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class VirtualFunctionStatistics:
    """One passed-through interface, IFLA_VF_STATS of its physical function; rx and tx as above.

    Since when they count is up to the driver of the physical function, not to the guest.
    """

    device: InterfaceDevice
    rx_bytes: int | None = None
    rx_packets: int | None = None
    tx_bytes: int | None = None
    tx_packets: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A running or the last completed job, virDomainGetJobStats."""

    type: int
    operation: int | None = None
    elapsed_ms: int | None = None
    remaining_ms: int | None = None
    downtime_ms: int | None = None
    memory_total_bytes: int | None = None
    memory_processed_bytes: int | None = None
    memory_remaining_bytes: int | None = None
    memory_bytes_per_second: int | None = None
    dirty_bytes_per_second: int | None = None
    iterations: int | None = None
    disk_total_bytes: int | None = None
    disk_processed_bytes: int | None = None
    disk_remaining_bytes: int | None = None
    auto_converge_percent: int | None = None
    succeeded: bool | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BlockJob:
    """A running job of one disk, virDomainGetBlockJobInfo."""

    type: int
    done_bytes: int
    end_bytes: int
    limit_bytes_per_second: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MonitorStatistics:
    """What only the QEMU monitor knows (tier two), read at one moment."""

    read_at: float
    is_complete: bool
    vcpus_current: int | None = None
    vcpus_maximum: int | None = None
    vcpus: tuple[VcpuStatistics, ...] = ()
    memory: Memory = Memory()
    disks: tuple[DiskStatistics, ...] = ()
    cpu_user_ns: int | None = None
    cpu_system_ns: int | None = None
    halt_poll_success_ns: int | None = None
    halt_poll_fail_ns: int | None = None
    perf: Mapping[str, int] = dataclasses.field(default_factory=dict)
    bandwidth: tuple[tuple[str, str, str, int], ...] = ()
    cache_occupancy: tuple[tuple[str, str, int], ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One instance in one cycle: tier one always, tier two as last read.

    ``read_at`` and ``monitor.read_at`` are Unix times of the two reads;
    ``read_clock_ns`` is the monotonic clock at the reading of ``cpu_time_ns``.
    ``is_fresh`` says that this cycle gave tier one, ``is_complete`` that it
    gave both tiers; ``completed_at`` is the Unix time when both last came.
    """

    definition: Definition
    domain_id: int
    state: int
    state_reason: int | None
    read_at: float
    read_clock_ns: int
    cpu_time_ns: int | None
    vcpus: int | None
    memory_maximum_bytes: int | None
    control: Control | None = None
    interfaces: tuple[InterfaceStatistics, ...] = ()
    virtual_functions: tuple[VirtualFunctionStatistics, ...] = ()
    monitor: MonitorStatistics | None = None
    is_fresh: bool = True
    is_complete: bool = True
    completed_at: float | None = None
    job: Job | None = None
    last_job: Job | None = None
    disk_errors: Mapping[str, int] = dataclasses.field(default_factory=dict)
    block_jobs: Mapping[str, BlockJob] = dataclasses.field(default_factory=dict)
    lifecycle_events: Mapping[tuple[str, str], int] = dataclasses.field(default_factory=dict)

    @property
    def billed_vcpus(self) -> int | None:
        """The vCPUs of the flavor; where Nova does not tell them, those that are there."""
        of_flavor = self.definition.flavor.vcpus
        return self.vcpus if of_flavor is None else of_flavor


# --- flows ------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FlowDirection:
    """What one fixed IP does in one direction; connections, not table entries.

    ``largest_remote`` and ``largest_port`` are the connections of the remote
    and of the port that have most. What is new is None without a baseline.
    """

    flows: int = 0
    unreplied: int = 0
    remotes: int = 0
    largest_remote: int = 0
    ports: int = 0
    largest_port: int = 0
    new_remotes: int | None = None
    new_ports: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AddressFlows:
    """All flows of one fixed IP of one instance.

    ``entries`` counts entries of the table: one connection that is tracked in
    two zones has two. ``is_active`` says that it reaches ``[conntrack] min``;
    ``is_saturated`` that more remotes or ports were seen than are remembered,
    so that what is new is known of a part only.
    """

    definition: Definition
    address: Address
    entries: int
    outbound: FlowDirection
    inbound: FlowDirection
    is_active: bool
    is_saturated: bool = False
    patterns: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FlowTable:
    """The connection tracking table of one complete dump, summed up.

    ``unattributed`` entries belong to no fixed IP here; ``ambiguous`` ones of
    these have an address that several instances share, in no known zone.
    """

    entries: int
    odd: int
    unattributed: int
    ambiguous: int
    addresses: tuple[AddressFlows, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FlowHealth:
    """How full the table is and how well it could be read; totals since the start."""

    counted: int | None = None
    maximum: int | None = None
    is_skipped: bool = False
    errors: int = 0
    inconsistent: int = 0
    zone_map: str = ''
    zones: int | None = None
    zone_map_read_at: float | None = None
    zone_conflicts: int = 0


# --- threats ----------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ThreatList:
    """A published list of addresses and how fetching it goes; totals since the start.

    ``seconds`` is the length of the last good refresh and ``rejected`` counts
    what was left out of the list in use, by reason. ``is_fresh`` says that the
    last good refresh is no longer ago than two intervals, ``is_held`` that a
    suddenly much smaller or larger list waits for confirmation.
    """

    name: str
    tag: str
    direction: str
    entries: int = 0
    is_loaded: bool = False
    succeeded_at: float | None = None
    seconds: float | None = None
    errors: int = 0
    is_fresh: bool = False
    is_held: bool = False
    rejected: Mapping[str, int] = dataclasses.field(default_factory=dict)
    error: str = ''


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Contacts:
    """Contacts of one instance with the addresses of one list.

    A contact is a pair of a fixed IP and a listed address. ``active`` are those
    of this interval; ``total`` sums them up since the start, so a lasting
    contact counts once in each interval.
    """

    definition: Definition
    list: str
    direction: str
    active: int
    total: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ListedAddress:
    """An address of this host that stands on a list."""

    list: str
    ip: str
    family: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ThreatLogHealth:
    """What the threat log has written and left out since the start."""

    lines: int = 0
    dropped: Mapping[str, int] = dataclasses.field(default_factory=dict)
    is_writable: bool = True


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Threats:
    """Who talks to whom it should not.

    ``host`` are the addresses of this host on lists, None when they are not known;
    ``looks_at_host`` says whether anybody wants to know.
    """

    lists: tuple[ThreatList, ...] = ()
    contacts: tuple[Contacts, ...] = ()
    host: tuple[ListedAddress, ...] | None = None
    looks_at_host: bool = False
    log: ThreatLogHealth | None = None


# --- reachability -----------------------------------------------------------


class ProbeResult(enum.Enum):
    """How the probe of a fixed IP ended; only the first two say anything about the guest.

    ``AMBIGUOUS`` means that an answer, or silence, might be that of somebody
    else, ``FAILED`` that it was our own fault.
    """

    REACHABLE = 'reachable'
    UNREACHABLE = 'unreachable'
    AMBIGUOUS = 'ambiguous'
    NO_NAMESPACE = 'no_namespace'
    FAILED = 'failed'


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AddressProbe:
    """Whether a fixed IP answered from within its network, and after how many seconds."""

    definition: Definition
    address: Address
    is_reachable: bool
    seconds: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reachability:
    """What a round of probes found; ``addresses`` are those of which it is known.

    ``results`` counts the fixed IPs of the whole round.
    """

    addresses: tuple[AddressProbe, ...]
    results: Mapping[ProbeResult, int]


# --- what a bill needs ------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one instance has used on this host since ``since``, over all of its lives.

    Sums over its devices, those that are gone included. They never fall: not
    when the guest or its QEMU starts anew, nor when we do. ``vcpu_seconds`` and
    ``memory_mb_seconds`` grow while the instance was seen to exist; a time in
    which nobody looked counts nothing. None: never read.
    """

    definition: Definition
    since: float
    updated_at: float
    cpu_time_ns: int | None = None
    vcpu_seconds: float | None = None
    memory_mb_seconds: float | None = None
    license_unit_seconds: float | None = None
    disk_read_bytes: int | None = None
    disk_read_requests: int | None = None
    disk_write_bytes: int | None = None
    disk_write_requests: int | None = None
    network_rx_bytes: int | None = None
    network_rx_packets: int | None = None
    network_tx_bytes: int | None = None
    network_tx_packets: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HostProject:
    """What all instances that a project ever had on this host have used; it never falls."""

    labels: Labels
    vcpu_seconds: float
    memory_mb_seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LedgerHealth:
    """Whether what was used is remembered; totals since the start.

    ``is_durable`` says that a crash now would lose one interval at most,
    ``written_at`` is the Unix time of the last write, ``instances`` counts those
    that are remembered, gone ones too.
    """

    is_durable: bool = False
    written_at: float | None = None
    write_errors: int = 0
    instances: int = 0


# --- what the projects of a cloud have used ---------------------------------

# Why an update of the usage of projects failed, or a part of one was left out.
USAGE_FAILURES = (
    'auth',
    'connect',
    'http',
    'ledger',
    'malformed',
    'other',
    'project',
    'record',
    'setup',
    'start_date',
    'timeout',
    'truncated',
    'weights',
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project as Keystone names it."""

    id: str
    name: str
    domain_id: str = ''
    domain_name: str = ''


class ServerUsage(NamedTuple):
    """An instance as Nova's usage tells it; moments in microseconds since 1970, UTC.

    ``ended_us`` is None while it exists. ``tag`` names to whom it is counted within its
    project, empty for the project itself.
    """

    uuid: str
    project_id: str
    vcpus: int
    memory_mb: int
    started_us: int
    ended_us: int | None = None
    tag: str = ''


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CloudUsage:
    """One whole answer of a cloud about [window, taken_us]; moments in microseconds since 1970.

    ``servers`` are all that existed in the window, in projects that ``projects`` names, and
    ``strangers`` those in projects that it does not name. ``domain_ids`` are the domains that
    were asked for, none for all. ``rejected`` are records that nobody can read.
    ``clock_skew_seconds`` is how far our clock is ahead of the cloud's, None if that did not
    tell. ``is_last`` is False while there are later windows to ask for; ``asked_us`` is when
    that was, ``taken_us`` where it is None.
    """

    taken_us: int
    projects: tuple[Project, ...]
    servers: tuple[ServerUsage, ...]
    strangers: tuple[ServerUsage, ...] = ()
    domain_ids: frozenset[str] = frozenset()
    rejected: int = 0
    clock_skew_seconds: float | None = None
    is_last: bool = True
    asked_us: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProjectUsage:
    """What a project, or a part of it by tag, has used since counting began; it never falls.

    ``labels`` (project_id, project_name, domain_name, domain_id) is one object for as long as
    the names stay. ``memory_usage`` is in the unit of ``[usage] memory_unit``, weighted.
    """

    labels: Labels
    vcpu_hours: float
    memory_mb_hours: float
    weighted_vcpu_hours: float
    weighted_memory_mb_hours: float
    memory_usage: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProjectUsageHealth:
    """How the reading of project usage goes; totals since the start, times in seconds.

    ``projects`` and ``instances`` are those of the last good update, ``left_out`` the instances
    that it could not count, by reason, ``remembered`` all instances whose times are kept.
    """

    succeeded_at: float | None = None
    seconds: float | None = None
    updates: int = 0
    failures: Mapping[str, int] = dataclasses.field(default_factory=dict)
    projects: int | None = None
    instances: int | None = None
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)
    remembered: int | None = None
    weights_read_at: float | None = None
    clock_skew_seconds: float | None = None


UNKNOWN = 'unknown'


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GuestOs:
    """The operating system of a guest; texts are ``unknown`` where nothing is known.

    ``source`` names the driver that learned it at ``learned_at``, or is ``pending``
    while nobody has looked and ``unknown`` when nobody found anything. ``license_units``
    is how many units of a licence the guest needs, None while that is not known.
    """

    family: str = UNKNOWN
    distro: str = UNKNOWN
    info: str = UNKNOWN
    product_name: str = UNKNOWN
    product_variant: str = UNKNOWN
    version: str = UNKNOWN
    version_major: int | None = None
    version_minor: int | None = None
    source: str = 'pending'
    learned_at: float | None = None
    license_units: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Guest:
    """An instance and the operating system in it."""

    instance: Instance
    os: GuestOs


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GuestOsHealth:
    """How the slow way to a guest's operating system goes; totals since the start."""

    queued: int = 0
    is_inspecting: bool = False
    inspections: int = 0
    seconds: float = 0.0
    failures: Mapping[str, int] = dataclasses.field(default_factory=dict)


# --- network namespaces -----------------------------------------------------


class LinkStatistics(NamedTuple):
    """What a network device has counted since it was made; None where the kernel does not tell.

    The names are those of the files in /sys/class/net/DEVICE/statistics, the order is that of
    struct rtnl_link_stats64 in linux/if_link.h.
    """

    rx_packets: int | None = None
    tx_packets: int | None = None
    rx_bytes: int | None = None
    tx_bytes: int | None = None
    rx_errors: int | None = None
    tx_errors: int | None = None
    rx_dropped: int | None = None
    tx_dropped: int | None = None
    multicast: int | None = None
    collisions: int | None = None
    rx_length_errors: int | None = None
    rx_over_errors: int | None = None
    rx_crc_errors: int | None = None
    rx_frame_errors: int | None = None
    rx_fifo_errors: int | None = None
    rx_missed_errors: int | None = None
    tx_aborted_errors: int | None = None
    tx_carrier_errors: int | None = None
    tx_fifo_errors: int | None = None
    tx_heartbeat_errors: int | None = None
    tx_window_errors: int | None = None
    rx_compressed: int | None = None
    tx_compressed: int | None = None
    rx_nohandler: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceDevice:
    """A network device in a network namespace.

    ``labels`` (netns, device) is one object for as long as the device lives under its name,
    ``info`` (and mac, mtu) while that does not change, and so is each of ``address_infos`` (and
    address, family). ``is_up`` is what the administrator wants (IFF_UP), ``operstate`` what is
    (RFC 2863, the words of /sys/class/net/DEVICE/operstate). ``addresses`` are canonical with
    their prefix length, IPv4 first; None if they could not be read.
    """

    labels: Labels
    name: str
    index: int
    mac: str = ''
    mtu: int | None = None
    is_up: bool | None = None
    operstate: str = 'unknown'
    addresses: tuple[str, ...] | None = None
    statistics: LinkStatistics = LinkStatistics()
    info: Labels | None = None
    address_infos: tuple[Labels, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """A network namespace that has a name, as one pass found it.

    ``labels`` (netns) and ``info`` (and kind, router_id, network_id) are one object each for as
    long as the namespace lives under its name. ``kind`` is ``router``, ``dhcp``, ``fip``,
    ``snat``, ``metadata`` or ``other``, ``uuid`` that of the router or network which Neutron's
    name for it tells. What could not be read is None or left out; ``failures`` says why, by
    part: ``links``, ``addresses``, ``conntrack``, ``snmp``, ``snmp6``, ``sockstat``, or a name
    of ``proc_metrics``.

    ``snmp``, ``snmp6`` and ``sockstat`` have the numbers of the files of /proc/net by (protocol,
    name), such as ``('Tcp', 'RetransSegs')``: those that have series, and those of the option
    ``statistics``; ``proc`` those of the option ``proc_metrics``.
    """

    labels: Labels
    info: Labels | None = None
    name: str
    kind: str = 'other'
    uuid: str = ''
    devices: tuple[NamespaceDevice, ...] | None = None
    conntrack_entries: int | None = None
    conntrack_maximum: int | None = None
    snmp: Mapping[tuple[str, str], int] = dataclasses.field(default_factory=dict)
    snmp6: Mapping[tuple[str, str], int] = dataclasses.field(default_factory=dict)
    sockstat: Mapping[tuple[str, str], int] = dataclasses.field(default_factory=dict)
    proc: Mapping[str, float] = dataclasses.field(default_factory=dict)
    failures: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceTable:
    """The network namespaces of one pass.

    ``found`` counts the names in the directory, ``filtered`` those that the filters leave out,
    ``skipped`` by reason those that could not be entered. All others are ``namespaces``. Of the
    skipped ones ``unread`` are those that have not vanished; only their names tell of them.
    """

    found: int
    filtered: int = 0
    skipped: Mapping[str, int] = dataclasses.field(default_factory=dict)
    namespaces: tuple[Namespace, ...] = ()
    unread: tuple[Namespace, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """What a router of Neutron has exchanged with the outside on this host, and what it tracks.

    Sums over ``devices``, its external ones, in ``namespaces``; rx is what it received from
    outside. They begin again at 0 when a device is made anew, and fall when one goes.
    """

    uuid: str
    namespaces: tuple[str, ...]
    devices: tuple[str, ...] = ()
    rx_bytes: int | None = None
    rx_packets: int | None = None
    tx_bytes: int | None = None
    tx_packets: int | None = None
    conntrack_entries: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NamespacesHealth:
    """What went wrong while namespaces were read, by reason; totals since the start."""

    errors: Mapping[str, int] = dataclasses.field(default_factory=dict)


# --- the host and the hypervisor --------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CallStatistics:
    """What calls of one name have cost since the start."""

    count: int = 0
    seconds: float = 0.0
    timeouts: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StoragePool:
    """An active storage pool, virStoragePoolGetInfo."""

    name: str
    capacity_bytes: int
    allocation_bytes: int
    available_bytes: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Hypervisor:
    """The daemon that manages the guests and how well it answers us.

    ``listed_at`` is the Unix time of the last complete listing of the domains,
    ``active_instances`` how many of those in the latest cycle are instances of this
    host, read or not; None if that cycle could not tell.
    """

    is_connected: bool = False
    uri: str = ''
    libvirt_version: str = ''
    type: str = ''
    version: str = ''
    hostname: str = ''
    reconnects: int = 0
    stuck_calls: int = 0
    suspects: int = 0
    list_seconds: float | None = None
    listed_at: float | None = None
    active_instances: int | None = None
    calls: Mapping[str, CallStatistics] = dataclasses.field(default_factory=dict)
    domains_by_state: Mapping[str, int] = dataclasses.field(default_factory=dict)
    domain_errors: Mapping[str, int] = dataclasses.field(default_factory=dict)
    definitions_cached: int = 0
    storage_pools: tuple[StoragePool, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reading(Generic[T]):
    """What one source gave in one cycle, with its own health.

    On failure ``value`` is the last good one, or what could be had all the same, and
    ``error`` says why. ``read_at`` is the Unix time of the last success, ``seconds``
    the length of the latest attempt.
    """

    value: T
    read_at: float | None
    seconds: float
    error: str = ''


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GroupHealth:
    """How one source or collector did in a cycle."""

    is_success: bool
    seconds: float
    succeeded_at: float | None = None
    series: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CycleStatistics:
    """How our own work goes; times in seconds, totals since the start.

    ``groups`` names sources and collectors; what is not known before the cycle
    ends (render time, number of series) is that of the cycle before.
    """

    lag_seconds: float = 0.0
    duration_seconds: float = 0.0
    errors: int = 0
    missed: int = 0
    evictions: int = 0
    cleanup_seconds: float = 0.0
    render_seconds: float | None = None
    groups: Mapping[str, GroupHealth] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WebStatistics:
    """What the endpoint has answered and refused since the start."""

    requests: Mapping[str, int] = dataclasses.field(default_factory=dict)
    dropped: Mapping[str, int] = dataclasses.field(default_factory=dict)
    connections: int | None = None
    # None where there is no web configuration file.
    config_is_ok: bool | None = None
    config_errors: int | None = None
    # None while nothing listens.
    is_public_without_authentication: bool | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reloads:
    """How the configuration files stand to what runs; None where nobody reads them again."""

    # Whether they were right when they were last read.
    is_ok: bool | None = None
    errors: int | None = None
    # Unix time at which they were last read and right.
    succeeded_at: float | None = None
    # Options that a restart would change.
    waiting: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything one cycle knows; outputs only ever see these."""

    taken_at: float
    hostname: str
    instances: Reading[tuple[Instance, ...]]
    hypervisor: Hypervisor = Hypervisor()
    flows: Reading[FlowTable | None] = Reading(value=None, read_at=None, seconds=0.0)
    flow_health: FlowHealth | None = None
    reachability: Reading[Reachability | None] = Reading(value=None, read_at=None, seconds=0.0)
    threats: Threats | None = None
    usage: Reading[tuple[Usage, ...] | None] = Reading(value=None, read_at=None, seconds=0.0)
    ledger: LedgerHealth | None = None
    guest_os: Mapping[str, GuestOs] | None = None
    guest_os_health: GuestOsHealth | None = None
    namespaces: Reading[NamespaceTable | None] = Reading(value=None, read_at=None, seconds=0.0)
    namespaces_health: NamespacesHealth | None = None
    project_usage: Reading[tuple[ProjectUsage, ...] | None] = Reading(
        value=None, read_at=None, seconds=0.0
    )
    project_usage_health: ProjectUsageHealth | None = None
    host_projects: tuple[HostProject, ...] | None = None
    cycle: CycleStatistics = CycleStatistics()
    web: WebStatistics = WebStatistics()
    reloads: Reloads = Reloads()
