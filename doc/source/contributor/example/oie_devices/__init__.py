"""Devices of instances: how many there are."""

from oslo_config import cfg

from oie import model
from oie.collectors import base

DISKS = model.Meter(
    prometheus='example_instance_disks',
    ceilometer='example.disks',
    field='disk_count',
    unit='disk',
    kind=model.Kind.GAUGE,
    help='Number of disks of an instance.',
    source='virDomainGetXMLDesc: devices/disk',
)
MANY_DISKS = model.Meter(
    prometheus='example_instance_has_many_disks',
    unit='1',
    kind=model.Kind.GAUGE,
    help='Whether an instance has more disks than the option "many" says.',
    source='virDomainGetXMLDesc: devices/disk',
)


class DevicesCollector(base.Collector):
    """How many devices each instance has."""

    GROUP = 'collector_devices'
    OPTS = (
        cfg.IntOpt('many', default=4, min=1, help='Number of disks above which they are many.'),
    )
    COLUMNS = {
        base.Resource.INSTANCE: ((DISKS, lambda instance: len(instance.definition.disks)),),
    }
    METERS = (MANY_DISKS,)

    def collect(self, previous, current, notes):
        """Give the plain meters, then the comparison."""
        yield from super().collect(previous, current, notes)
        yield from base.family(MANY_DISKS, map(self._has_many, current.instances.value))

    def _has_many(self, instance):
        definition = instance.definition
        return definition.labels, int(len(definition.disks) > self.options.many)
