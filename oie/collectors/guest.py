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


"""Which operating systems the guests run, and the licences they need."""

from collections.abc import Iterator
import operator

from oie import model
from oie.collectors import base

DRIVERS = '[guest_os] drivers'


def _meter(prometheus: str, kind: model.Kind, unit: str, help: str) -> model.Meter:
    return model.Meter(
        prometheus=prometheus, unit=unit, kind=kind, help=help, source='own bookkeeping'
    )


OS_INFO = model.Meter(
    prometheus='oie_instance_os_info',
    unit='1',
    kind=model.Kind.INFO,
    help='The operating system of a guest as os_source tells it, always 1; unknown where nothing '
    'is known, with os_source pending while somebody is still to be asked.',
    source=DRIVERS,
)
OS_VCPUS = model.Meter(
    ceilometer='oie.os.vcpus',
    field='vcpus',
    unit='vcpu',
    kind=model.Kind.GAUGE,
    help='Number of vCPUs of the flavor, to be priced by the metadata os_family and os_distro.',
    source='virDomainGetXMLDesc: nova:flavor',
)
LICENSE_UNITS = model.Meter(
    prometheus='oie_instance_license_units',
    ceilometer='oie.license.units',
    field='license_units',
    unit='unit',
    kind=model.Kind.GAUGE,
    help='Units of a licence that the guest needs by [guest_os] licences, 0 for one that needs '
    'none; absent while its operating system is not known.',
    source=DRIVERS,
)
QUEUE = _meter(
    'oie_guest_os_queue',
    model.Kind.GAUGE,
    'guest',
    'Guests that wait to be asked, or looked into, by a slow driver.',
)
INSPECTING = _meter(
    'oie_guest_os_inspecting',
    model.Kind.GAUGE,
    '1',
    'Whether a slow driver is at work on a guest.',
)
INSPECTIONS = _meter(
    'oie_guest_os_inspections_total',
    model.Kind.CUMULATIVE,
    'inspection',
    'Questions to slow drivers that have ended, with an answer or without.',
)
SECONDS = _meter(
    'oie_guest_os_inspection_seconds_total',
    model.Kind.CUMULATIVE,
    's',
    'Time that slow drivers have worked.',
)
FAILURES = _meter(
    'oie_guest_os_failures_total',
    model.Kind.CUMULATIVE,
    'inspection',
    'Questions to slow drivers that brought no answer, by reason.',
)


class GuestCollector(base.Collector):
    """Operating systems, licences, and how the slow ways to know them go."""

    NEEDS = frozenset({'instances', 'guest_os', 'guest_os_health'})
    COLUMNS = {
        base.Resource.GUEST: (
            (OS_VCPUS, operator.attrgetter('instance.billed_vcpus')),
            (LICENSE_UNITS, operator.attrgetter('os.license_units')),
        )
    }
    METERS = (OS_INFO, QUEUE, INSPECTING, INSPECTIONS, SECONDS, FAILURES)

    def collect(
        self, previous: model.Snapshot | None, current: model.Snapshot, notes: base.Notes
    ) -> Iterator[model.Family]:
        """Give every instance its system, and the figures of slow drivers where there are some."""
        known = current.guest_os
        if known is not None:
            guests = [
                model.Guest(instance, found)
                for instance in current.instances.value
                if (found := known.get(instance.definition.uuid)) is not None
            ]
            yield from base.family(OS_INFO, ((_labels(notes, guest), 1) for guest in guests))
            rows = [(guest.instance.definition.labels, guest) for guest in guests]
            yield from base.families(self.COLUMNS[base.Resource.GUEST], rows)
        if current.guest_os_health is not None:
            yield from _health(current.guest_os_health)


def _labels(notes: base.Notes, guest: model.Guest) -> model.Labels:
    """Return the labels of a guest, the same object while its system is the same."""
    definition, found = guest.instance.definition, guest.os
    noted = notes.get(definition.uuid)
    if noted is None or noted[0] is not definition or noted[1] is not found:
        labels = definition.labels.extended(
            os_family=found.family,
            os_distro=found.distro,
            os_info=found.info,
            os_version=found.version,
            os_product_name=found.product_name,
            os_source=found.source,
        )
        noted = notes[definition.uuid] = (definition, found, labels)
    made: model.Labels = noted[2]
    return made


def _health(health: model.GuestOsHealth) -> Iterator[model.Family]:
    yield from base.single(QUEUE, health.queued)
    yield from base.single(INSPECTING, int(health.is_inspecting))
    yield from base.single(INSPECTIONS, health.inspections)
    yield from base.single(SECONDS, health.seconds)
    reasons = sorted(health.failures.items())
    yield from base.family(
        FAILURES, ((model.Labels.of(reason=reason), count) for reason, count in reasons)
    )
