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

"""Whether the fixed IPs of running guests answer from within their networks."""

from collections.abc import Iterator
import operator

from oie import model
from oie.collectors import base

ECHO = 'ICMP echo from the namespace of the network, believed by the MAC address of the neighbour'


def _meter(prometheus: str, unit: str, help: str, source: str = ECHO) -> model.Meter:
    return model.Meter(
        prometheus=prometheus, unit=unit, kind=model.Kind.GAUGE, help=help, source=source
    )


PROBED: tuple[base.Column, ...] = (
    (
        _meter(
            'oie_instance_reachable',
            '1',
            'Whether the fixed IP of a running guest answers an echo request from within its '
            'network; 0 also where its firewall or security group forbids ICMP, absent where '
            'that cannot be known.',
        ),
        lambda probe: int(probe.is_reachable),
    ),
    (
        _meter(
            'oie_instance_reachable_probe_seconds',
            's',
            'Time until the fixed IP answered the latest probe; absent when it did not.',
        ),
        operator.attrgetter('seconds'),
    ),
)
ADDRESSES = _meter(
    'oie_host_probe_addresses',
    'address',
    'Fixed IPs of running guests in the latest round of probes, by its result.',
    'own bookkeeping',
)


class ReachabilityCollector(base.Collector):
    """What answers to probes, and how many fixed IPs could be probed."""

    NEEDS = frozenset({'reachability'})
    METERS = (*(meter for meter, _ in PROBED), ADDRESSES)

    def collect(
        self, previous: model.Snapshot | None, current: model.Snapshot, notes: base.Notes
    ) -> Iterator[model.Family]:
        """Give the fixed IPs of which something is known, and the sums of the round."""
        found = current.reachability.value
        if found is None or not self.wants('reachability'):
            return
        probed = [
            (base.address_labels(notes, probe.definition, probe.address), probe)
            for probe in found.addresses
        ]
        yield from base.families(PROBED, probed)
        counts = (
            (model.Labels.of(result=result.value), found.results.get(result, 0))
            for result in model.ProbeResult
        )
        yield from base.family(ADDRESSES, counts)
