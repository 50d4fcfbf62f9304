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

"""Instances → the JSON that Ceilometer polls, and the pollster definitions for it.

Ceilometer runs our command in a shell, mixes stderr into the answer and drops a
whole batch when one entry lacks a key. So every entry of a list has the same
keys, what could not be read is null (the definitions skip null), texts fit into
Gnocchi's strings and all of it is ASCII. A value is a finite number: the
notification agent would take a list or an object from its queue for ever.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import dataclasses
import functools
import hashlib
import json
import math
import numbers
import re
from typing import Any

from oie import exceptions
from oie import model

Entry = dict[str, Any]
Routers = Callable[[model.NamespaceTable], Iterable[model.Router]]
Columns = tuple[tuple[model.Meter, model.Getter], ...]

# Begin of every meter's name; none of Ceilometer's own has it.
PREFIX = 'oie.'
# Gnocchi's string attributes hold no more.
MAX_TEXT = 255

# By numbers: a state that a newer libvirt adds must not cost the list.
_STATES: dict[int, str] = {state.value: state.name.lower() for state in model.DomainState}
_STATUS: dict[int, str] = {
    model.DomainState.RUNNING: 'active',
    model.DomainState.BLOCKED: 'active',
    model.DomainState.PAUSED: 'paused',
    model.DomainState.SHUTDOWN: 'stopping',
    model.DomainState.SHUTOFF: 'stopped',
    model.DomainState.CRASHED: 'error',
    model.DomainState.PMSUSPENDED: 'suspended',
}

COMMON = (
    'display_name',
    'name',
    'instance_id',
    'instance_host',
    'host',
    'flavor_id',
    'flavor_name',
    'instance_type',
    'image_ref',
    'status',
    'state',
    'architecture',
    'root_type',
    'vcpus',
    'memory_mb',
    'disk_gb',
    'root_gb',
    'ephemeral_gb',
)

_OS = (
    'os_family',
    'os_distro',
    'os_info',
    'os_version',
    'os_version_major',
    'os_version_minor',
    'os_product_name',
    'os_product_variant',
    'os_source',
)


@dataclasses.dataclass(frozen=True, slots=True)
class Pollster:
    """One list that ``oie-pollster`` can print.

    :ivar metadata: keys of every entry that describe, in the order printed
    :ivar columns: meters whose ``field`` is a key of every entry
    :ivar entries: snapshot → (metadata, resources by kind of column)
    :ivar needs: fields of the snapshot that it shows
    :ivar resource_type: what its resources are in Gnocchi
    :ivar has_projects: whether its resources belong to projects
    """

    name: str
    metadata: tuple[str, ...]
    columns: Columns
    entries: Callable[[model.Snapshot, Columns], Iterator[Entry]]
    needs: frozenset[str] = frozenset({'instances'})
    resource_type: str = 'instance'
    has_projects: bool = True

    def render(self, snapshot: model.Snapshot) -> bytes:
        """Return the list as one ASCII JSON document, one entry a line.

        Instances without a project are left out: such a sample makes Ceilometer's
        publisher clear the project of the resource in Gnocchi, which nobody pays then.
        Resources that never have one are of a type that nobody else fills.
        """
        groups = self.groups()
        lines = ',\n'.join(
            json.dumps(self._grouped(entry, groups), ensure_ascii=True, allow_nan=False)
            for entry in self.entries(snapshot, self.columns)
            if entry['project_id'] or not self.has_projects
        )
        return f'[{lines}]\n'.encode('ascii')

    def groups(self) -> dict[str, tuple[model.Meter, ...]]:
        """Return the meters that one definition can poll together: those of one type and unit.

        The key says all three, ``disks_cumulative_B``: an agent takes a definition's
        name once only, and this is the part in which ours differ.
        """
        found: dict[str, list[model.Meter]] = {}
        for meter, _ in self.columns:
            unit = re.sub(r'\W', '_', meter.unit)
            found.setdefault(f'{self.name}_{meter.kind.value}_{unit}', []).append(meter)
        return {key: tuple(meters) for key, meters in found.items()}

    def definitions(self) -> Iterator[dict[str, Any]]:
        """Give a dynamic pollster definition for each group of meters."""
        for key, meters in self.groups().items():
            yield {
                'name': f'{PREFIX}{{{key}}}',
                'sample_type': meters[0].kind.value,
                'unit': meters[0].unit,
                'namespaces': ['compute'],
                'host_command': f'oie-pollster {self.name}',
                'value_attribute': f'[{key}].value',
                # Compared with the names of the meters too.
                'skip_sample_values': [None],
                'resource_id_attribute': 'resource_id',
                'project_id_attribute': 'project_id',
                'user_id_attribute': 'user_id',
                'metadata_fields': list(self.metadata),
            }

    def _grouped(self, entry: Entry, groups: dict[str, tuple[model.Meter, ...]]) -> Entry:
        """Return the entry with finite values, and the same values in a list for each group."""
        values = {meter.field: _number(entry[meter.field]) for meter, _ in self.columns}
        lists = {
            key: [
                {key: meter.ceilometer.removeprefix(PREFIX), 'value': values[meter.field]}
                for meter in meters
            ]
            for key, meters in groups.items()
        }
        return {**entry, **values, **lists}


def pollsters(
    instance: Columns,
    monitor: Columns,
    disk: Columns,
    interface: Columns,
    address: Columns,
    contacts: Columns,
    guest: Columns = (),
    numbers_as_integers: bool = False,
    usage: Columns = (),
    router: Columns = (),
    routers: Routers = lambda _table: (),
    routers_by_host: bool = False,
) -> dict[str, Pollster]:
    """Return the pollsters by name, made of the meters that have a Ceilometer name.

    :param monitor: columns over an instance's ``monitor``
    :param numbers_as_integers: how ``os`` prints the numbers of versions
    :param routers: how routers are found among namespaces
    :param routers_by_host: whether a router on another host is another resource
    """
    through = tuple((meter, _through_monitor(value_of)) for meter, value_of in monitor)
    made = (
        Pollster('instances', COMMON, _named((*instance, *through)), _instances),
        Pollster(
            'disks',
            (*COMMON, 'disk_name', 'disk_type', 'disk_uuid', 'disk_source', 'volume_id'),
            _named(disk),
            _disks,
            resource_type='instance_disk',
        ),
        Pollster(
            'vnics',
            (*COMMON, 'vnic_name', 'mac', 'port_id', 'vnic_type', 'vnic_model'),
            _named(interface),
            _vnics,
            resource_type='instance_network_interface',
        ),
        Pollster(
            'flows',
            (*COMMON, 'ip', 'family', 'port_id'),
            _named(address),
            _flows,
            frozenset({'instances', 'flows'}),
            resource_type='oie_fixed_ip',
        ),
        Pollster(
            'contacts',
            (*COMMON, 'threat_list', 'direction'),
            _named(contacts),
            _contacts,
            frozenset({'instances', 'flows', 'threats'}),
            resource_type='oie_threat_list',
        ),
        Pollster(
            'os',
            # The vCPUs are the value of a meter here, as they were in the reference.
            (*(key for key in COMMON if key != 'vcpus'), *_OS),
            _named(guest),
            functools.partial(_guests, as_integers=numbers_as_integers),
            frozenset({'instances', 'guest_os'}),
        ),
        Pollster(
            'usage',
            (*COMMON, *_OS),
            _named(usage),
            _usage,
            frozenset({'instances', 'usage'}),
            resource_type='oie_usage',
        ),
        Pollster(
            'routers',
            ('router_id', 'host', 'netns', 'devices'),
            _named(router),
            functools.partial(_routers, routers=routers, is_by_host=routers_by_host),
            frozenset({'namespaces'}),
            resource_type='oie_router',
            has_projects=False,
        ),
    )
    return {pollster.name: pollster for pollster in made}


def _named(columns: Columns) -> Columns:
    return tuple((meter, value_of) for meter, value_of in columns if meter.ceilometer)


def _through_monitor(value_of: model.Getter) -> model.Getter:
    return lambda instance: None if instance.monitor is None else value_of(instance.monitor)


def _values(columns: Columns, resource: Any) -> Entry:
    return {
        meter.field: None if resource is None else value_of(resource)
        for meter, value_of in columns
    }


def _number(value: Any) -> float | int | None:
    """Return a value as a finite number; None for what is none, so that it gives no sample."""
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real) and math.isfinite(value):
        return float(value)
    return None


def _instances(snapshot: model.Snapshot, columns: Columns) -> Iterator[Entry]:
    for instance in snapshot.instances.value:
        uuid = instance.definition.uuid
        yield {**_identity(uuid, instance, snapshot.hostname), **_values(columns, instance)}


def _disks(snapshot: model.Snapshot, columns: Columns) -> Iterator[Entry]:
    for instance in snapshot.instances.value:
        definition, monitor = instance.definition, instance.monitor
        known = {d.device.target: d for d in monitor.disks} if monitor is not None else {}
        for device in definition.disks:
            resource_id = f'{definition.uuid}-{device.target}'
            yield {
                **_identity(resource_id, instance, snapshot.hostname),
                'disk_name': _text(device.target),
                'disk_type': _text(device.tier),
                'disk_uuid': _text(device.uuid),
                'disk_source': _text(device.source),
                'volume_id': _text(device.serial),
                **_values(columns, known.get(device.target)),
            }


def _vnics(snapshot: model.Snapshot, columns: Columns) -> Iterator[Entry]:
    for instance in snapshot.instances.value:
        definition = instance.definition
        known = {nic.device.target: nic for nic in instance.interfaces}
        for device in definition.interfaces:
            # The form of Ceilometer's own network pollsters; a cut must not make two equal.
            end = f'-{definition.uuid}-{device.name}'
            resource_id = f'{definition.domain[: max(0, MAX_TEXT - len(end))]}{end}'
            yield {
                **_identity(resource_id, instance, snapshot.hostname),
                'vnic_name': _text(device.name),
                'mac': _text(device.mac),
                'port_id': _text(device.port_uuid),
                'vnic_type': _text(device.type),
                'vnic_model': _text(device.model),
                **_values(columns, known.get(device.target) if device.target else None),
            }


def _flows(snapshot: model.Snapshot, columns: Columns) -> Iterator[Entry]:
    """Give every fixed IP, quiet ones too.

    :raises PollsterError: no complete table is known
    """
    table = snapshot.flows.value
    if table is None:
        reason = snapshot.flows.error or 'it is switched off by [conntrack] enabled'
        raise exceptions.PollsterError(f'the connection tracking table is not known: {reason}')
    instances = {i.definition.uuid: i for i in snapshot.instances.value}
    for flows in table.addresses:
        instance = instances.get(flows.definition.uuid)
        if instance is None:
            continue
        resource_id = f'{flows.definition.uuid}-{flows.address.ip}'
        yield {
            **_identity(resource_id, instance, snapshot.hostname),
            'ip': flows.address.ip,
            'family': flows.address.family,
            'port_id': _text(flows.address.port_uuid),
            **_values(columns, flows),
        }


def _contacts(snapshot: model.Snapshot, columns: Columns) -> Iterator[Entry]:
    """Give every instance with every list that is enabled; null while the list is not there.

    :raises PollsterError: no complete table is known
    """
    threats, table = snapshot.threats, snapshot.flows
    if threats is None or not threats.lists:
        return
    if table.value is None:
        reason = table.error or 'it is switched off by [conntrack] enabled'
        raise exceptions.PollsterError(f'the connection tracking table is not known: {reason}')
    known = {(each.definition.uuid, each.list): each for each in threats.contacts}
    for instance in snapshot.instances.value:
        definition = instance.definition
        for each in threats.lists:
            nothing = model.Contacts(
                definition=definition,
                list=each.name,
                direction=each.direction,
                active=0,
                total=0,
            )
            found = known.get((definition.uuid, each.name), nothing if each.is_loaded else None)
            yield {
                **_identity(f'{definition.uuid}-{each.name}', instance, snapshot.hostname),
                'threat_list': each.name,
                'direction': each.direction,
                **_values(columns, found),
            }


def _guests(snapshot: model.Snapshot, columns: Columns, *, as_integers: bool) -> Iterator[Entry]:
    """Give every instance with its operating system, be it unknown.

    :raises PollsterError: nobody wants to know
    """
    if snapshot.guest_os is None:
        raise exceptions.PollsterError(
            'nobody looks for operating systems: it is switched off by [guest_os] enabled'
        )
    for instance in snapshot.instances.value:
        found = snapshot.guest_os.get(instance.definition.uuid, model.GuestOs())
        yield {
            **_identity(instance.definition.uuid, instance, snapshot.hostname),
            **_system(found, as_integers=as_integers),
            **_values(columns, model.Guest(instance, found)),
        }


def _system(found: model.GuestOs, *, as_integers: bool = False) -> Entry:
    """Return what is known of an operating system, by the keys of _OS."""
    return {
        'os_family': _text(found.family),
        'os_distro': _text(found.distro),
        'os_info': _text(found.info),
        'os_version': _text(found.version),
        'os_version_major': _version_number(found.version_major, as_integers),
        'os_version_minor': _version_number(found.version_minor, as_integers),
        'os_product_name': _text(found.product_name),
        'os_product_variant': _text(found.product_variant),
        'os_source': _text(found.source),
    }


def _version_number(number: int | None, as_integer: bool) -> str | int:
    """Return a text for Gnocchi, or what libguestfs gives: an integer, 0 for unknown."""
    if as_integer:
        return number or 0
    return model.UNKNOWN if number is None else str(number)


def _usage(snapshot: model.Snapshot, columns: Columns) -> Iterator[Entry]:
    """Give the totals of every instance, which are those of this host.

    Another host has others. One resource for both would let Gnocchi see a jump at
    each migration, and a bill take the way back for usage.

    :raises PollsterError: nobody keeps them, or they are not known
    """
    reading = snapshot.usage
    if reading.value is None:
        raise exceptions.PollsterError(
            f'the totals are not known: {reading.error}'
            if reading.error
            else 'totals are kept by a running oie-exporter with [ledger] enabled only'
        )
    known = {usage.definition.uuid: usage for usage in reading.value}
    systems = snapshot.guest_os or {}
    for instance in snapshot.instances.value:
        uuid = instance.definition.uuid
        yield {
            **_identity(f'{uuid}-{snapshot.hostname}', instance, snapshot.hostname),
            **_system(systems.get(uuid, model.GuestOs())),
            **_values(columns, known.get(uuid)),
        }


def _routers(
    snapshot: model.Snapshot, columns: Columns, *, routers: Routers, is_by_host: bool
) -> Iterator[Entry]:
    """Give every router that forwards to the outside here; none where namespaces are not read.

    A namespace does not tell whose it is, so project and user are null.

    :raises PollsterError: they should be read and are not known
    """
    reading = snapshot.namespaces
    if reading.value is None:
        if reading.error or reading.read_at is not None:
            reason = reading.error or 'they were last read too long ago'
            raise exceptions.PollsterError(f'the network namespaces are not known: {reason}')
        return
    for router in routers(reading.value):
        resource_id = f'{router.uuid}-{snapshot.hostname}' if is_by_host else router.uuid
        yield {
            'resource_id': _text(resource_id),
            'project_id': None,
            'user_id': None,
            'router_id': _text(router.uuid),
            'host': _text(snapshot.hostname),
            'netns': _text(','.join(router.namespaces)),
            'devices': _text(','.join(router.devices)),
            **_values(columns, router),
        }


def _identity(resource_id: str, instance: model.Instance, hostname: str) -> Entry:
    """Return what all entries share, by the names of Ceilometer's own samples."""
    definition = instance.definition
    flavor = definition.flavor
    flavor_name = _text(flavor.name or 'unknown')
    return {
        'resource_id': _text(resource_id),
        'project_id': _text(definition.project_uuid),
        'user_id': _text(definition.user_uuid),
        'display_name': _text(definition.name or definition.domain),
        'name': _text(definition.domain),
        'instance_id': _text(definition.uuid),
        'instance_host': _text(hostname),
        'host': _host_id(definition.project_uuid, hostname),
        # Before Nova 2025.2 the XML has no id; Ceilometer then falls back to the name too.
        'flavor_id': _text(flavor.id) or flavor_name,
        'flavor_name': flavor_name,
        'instance_type': flavor_name,
        'image_ref': _text(definition.image_uuid),
        'status': _STATUS.get(instance.state, 'unknown'),
        'state': _STATES.get(instance.state, 'unknown'),
        'architecture': _text(definition.architecture),
        'root_type': _text(definition.root_type),
        'vcpus': instance.vcpus if flavor.vcpus is None else flavor.vcpus,
        'memory_mb': _memory_mib(instance),
        'disk_gb': _sum((flavor.disk_gib, flavor.ephemeral_gib)),
        'root_gb': flavor.disk_gib,
        'ephemeral_gb': flavor.ephemeral_gib,
    }


def _host_id(project_uuid: str, hostname: str) -> str:
    """Return Nova's hostId, which tenants see in place of the host's name."""
    return hashlib.sha224((project_uuid + hostname).encode('utf-8', 'replace')).hexdigest()


def _memory_mib(instance: model.Instance) -> int | None:
    flavor_mib = instance.definition.flavor.memory_mib
    if flavor_mib is not None or instance.memory_maximum_bytes is None:
        return flavor_mib
    return instance.memory_maximum_bytes // 2**20


def _sum(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _text(text: str) -> str:
    """Return a text as the databases behind Gnocchi take it: short, encodable, without NUL."""
    cut = text[:MAX_TEXT]
    if cut.isprintable():
        return cut
    return cut.replace('\0', '\N{REPLACEMENT CHARACTER}').encode('utf-8', 'replace').decode()
