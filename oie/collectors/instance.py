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

"""Who an instance is, in which state, and how well it can be read."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import operator

from oslo_config import cfg

from oie import model
from oie.collectors import base

GAUGE, CUMULATIVE, INFO = model.Kind.GAUGE, model.Kind.CUMULATIVE, model.Kind.INFO

INSTANCE_INFO = model.Meter(
    prometheus='oie_instance_info',
    unit='1',
    kind=INFO,
    help='Static metadata of an active instance, always 1.',
    source='virDomainGetXMLDesc: nova:instance',
)
OPENSTACK_INFO = model.Meter(
    prometheus='oie_instance_openstack_info',
    unit='1',
    kind=INFO,
    help='What Nova says of an instance beyond oie_instance_info, always 1.',
    source='virDomainGetXMLDesc: nova:instance of the 1.0 or 1.1 namespace',
)
ADDRESS_INFO = model.Meter(
    prometheus='oie_instance_address_info',
    unit='1',
    kind=INFO,
    help='A fixed IP of an instance and its Neutron port, always 1.',
    source='virDomainGetXMLDesc: nova:ports',
)
EXTRA_SPEC_INFO = model.Meter(
    prometheus='oie_instance_flavor_extra_spec_info',
    unit='1',
    kind=INFO,
    help='An extra spec of the flavor, always 1 (Nova 2025.2 and later).',
    source='virDomainGetXMLDesc: nova:flavor/nova:extraSpecs',
)
HOST_DEVICE_INFO = model.Meter(
    prometheus='oie_instance_hostdev_info',
    unit='1',
    kind=INFO,
    help='A device of the host that the instance owns, always 1.',
    source='virDomainGetXMLDesc: devices/hostdev',
)
LIFECYCLE_EVENTS = model.Meter(
    prometheus='oie_instance_lifecycle_events_total',
    unit='event',
    kind=CUMULATIVE,
    help='Life cycle events of an instance since this exporter has known it.',
    source='VIR_DOMAIN_EVENT_ID_LIFECYCLE',
)

# Labels of the reference that say "unknown" when Nova says nothing.
UNKNOWN = 'unknown'


class InstanceCollector(base.Collector):
    """Identity, state and health of each instance."""

    GROUP = 'collector_instance'
    OPTS = (
        cfg.ListOpt(
            'extra_specs',
            default=[],
            help='Extra specs of flavors that oie_instance_flavor_extra_spec_info shows, by '
            'their full names. It needs extra_specs in [collector] optional.',
        ),
    )
    METERS = (
        INSTANCE_INFO,
        OPENSTACK_INFO,
        ADDRESS_INFO,
        EXTRA_SPEC_INFO,
        HOST_DEVICE_INFO,
        LIFECYCLE_EVENTS,
    )
    COLUMNS = {
        base.Resource.INSTANCE: (
            (
                model.Meter(
                    prometheus='oie_instance_state_code',
                    ceilometer='oie.state',
                    field='state_code',
                    unit='state',
                    kind=GAUGE,
                    help='State of the domain: 1 running, 2 blocked, 3 paused, 4 shutting down, '
                    '5 shut off, 6 crashed, 7 suspended by the guest.',
                    source='virConnectGetAllDomainStats state.state',
                ),
                operator.attrgetter('state'),
            ),
            (
                model.Meter(
                    prometheus='oie_instance_state_reason_code',
                    unit='reason',
                    kind=GAUGE,
                    help='Why it is in this state; of a paused one: 5 I/O error, 6 watchdog, '
                    '10 crashed, 13 post-copy failed.',
                    source='virConnectGetAllDomainStats state.reason',
                ),
                operator.attrgetter('state_reason'),
            ),
            (
                model.Meter(
                    prometheus='oie_instance_libvirt_control_state_code',
                    unit='state',
                    kind=GAUGE,
                    help='What occupies the monitor of the domain: 0 nothing, 1 a job, 2 a '
                    'command, 3 error.',
                    source='virDomainGetControlInfo state',
                ),
                lambda i: i.control and i.control.state,
            ),
            (
                model.Meter(
                    prometheus='oie_instance_libvirt_control_busy_seconds',
                    unit='s',
                    kind=GAUGE,
                    help='For how long the monitor of the domain has been in that state.',
                    source='virDomainGetControlInfo stateTime, ms',
                ),
                lambda i: i.control and base.milliseconds(i.control.busy_ms),
            ),
            (
                model.Meter(
                    prometheus='oie_instance_data_fresh',
                    unit='1',
                    kind=GAUGE,
                    help='Whether the latest cycle read this instance at all; when 0 the last '
                    'good values are shown.',
                    source='own bookkeeping',
                ),
                lambda i: int(i.is_fresh),
            ),
            (
                model.Meter(
                    prometheus='oie_instance_data_complete',
                    unit='1',
                    kind=GAUGE,
                    help='Whether the latest cycle read this instance completely; when 0, what '
                    'its QEMU monitor knows is old or missing.',
                    source='own bookkeeping',
                ),
                lambda i: int(i.is_complete),
            ),
            (
                model.Meter(
                    prometheus='oie_instance_last_success_timestamp_seconds',
                    unit='s',
                    kind=GAUGE,
                    help='Unix time at which this instance was last read completely.',
                    source='own clock',
                ),
                operator.attrgetter('completed_at'),
            ),
            (
                model.Meter(
                    prometheus='oie_instance_created_timestamp_seconds',
                    unit='s',
                    kind=GAUGE,
                    help='Unix time at which Nova wrote the metadata: at creation, at each port '
                    'attached or detached.',
                    source='virDomainGetXMLDesc: nova:creationTime',
                ),
                operator.attrgetter('definition.created_timestamp'),
            ),
        )
    }

    def collect(
        self, previous: model.Snapshot | None, current: model.Snapshot, notes: base.Notes
    ) -> Iterator[model.Family]:
        """Give the info series, always present, then the plain meters."""
        instances = current.instances.value
        infos = [base.noted(notes, i.definition, _infos) for i in instances]
        yield from base.family(INSTANCE_INFO, ((info[0], 1) for info in infos))
        yield from base.family(OPENSTACK_INFO, ((info[1], 1) for info in infos))
        yield from super().collect(previous, current, notes)
        yield from self._optional(instances)

    def _optional(self, instances: tuple[model.Instance, ...]) -> Iterator[model.Family]:
        definitions = [i.definition for i in instances]
        if self.wants('address_info'):
            yield from base.family(ADDRESS_INFO, _ones(_addresses, definitions))
        if self.wants('extra_specs'):
            yield from base.family(EXTRA_SPEC_INFO, _ones(self._extra_specs, definitions))
        if self.wants('host_devices'):
            yield from base.family(HOST_DEVICE_INFO, _ones(_host_devices, definitions))
        if self.wants('lifecycle_events'):
            yield from base.family(LIFECYCLE_EVENTS, _lifecycle(instances))

    def _extra_specs(self, definition: model.Definition) -> Iterator[model.Labels]:
        specs = definition.flavor.extra_specs
        for key in dict.fromkeys(self.options.extra_specs):
            if key in specs:
                yield definition.labels.extended(key=key, value=specs[key])


def _infos(definition: model.Definition) -> tuple[model.Labels, model.Labels]:
    flavor = definition.flavor
    seed = definition.labels.extended(
        project_name=definition.project_name or UNKNOWN,
        user_name=definition.user_name or UNKNOWN,
        flavor=flavor.name or UNKNOWN,
        vcpus=str(flavor.vcpus or 0),
        mem_mb=str(flavor.memory_mib or 0),
        root_type=definition.root_type or UNKNOWN,
        created_at=definition.created_at or UNKNOWN,
        metadata_version=definition.nova_version or UNKNOWN,
    )
    openstack = definition.labels.extended(
        name=definition.name,
        flavor=flavor.name,
        flavor_id=flavor.id,
        image_uuid=definition.image_uuid,
        root_type=definition.root_type,
        project_name=definition.project_name,
        user_name=definition.user_name,
        nova_version=definition.nova_version,
        metadata_ns=definition.metadata_namespace,
    )
    return seed, openstack


def _ones(
    labels_of: Callable[[model.Definition], Iterator[model.Labels]],
    definitions: Iterable[model.Definition],
) -> Iterator[tuple[model.Labels, int]]:
    return ((labels, 1) for definition in definitions for labels in labels_of(definition))


def _addresses(definition: model.Definition) -> Iterator[model.Labels]:
    for address in definition.addresses:
        yield definition.labels.extended(
            port_uuid=address.port_uuid, ip=address.ip, family=address.family
        )


def _host_devices(definition: model.Definition) -> Iterator[model.Labels]:
    for device in definition.host_devices:
        yield definition.labels.extended(
            type=device.type, address=device.address, model=device.model
        )


def _lifecycle(instances: tuple[model.Instance, ...]) -> Iterator[tuple[model.Labels, int]]:
    for instance in instances:
        for (event, detail), count in instance.lifecycle_events.items():
            yield instance.definition.labels.extended(event=event, detail=detail), count
