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

"""The table of meters → files for Ceilometer's pipeline, Gnocchi and CloudKitty."""

from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import json
from typing import Any

import yaml

from oie import model
from oie.outputs import ceilometer

WIDTH = 95
PERIOD = 3600
RESOURCES_FILE = 'oie_gnocchi_resources.yaml'

Pollsters = Mapping[str, ceilometer.Pollster]

PIPELINE = f"""\
# Source and sink for the pipeline.yaml of Ceilometer's notification agent: put
# each below the ones that are there, and take our meters out of the other source,
# whose publisher does not know them:  meters: ["*", "!oie.*"]
# Written by tools/generate.py; do not edit it in the source tree.
#
# The file that it names is etc/gnocchi/gnocchi_resources.yaml. A publisher of its
# own leaves Ceilometer's file of that name as it is.
---
sources:
  - name: oie
    meters:
      - "oie.*"
    sinks:
      - oie
sinks:
  - name: oie
    publishers:
      - gnocchi://?resources_definition_file=/etc/ceilometer/{RESOURCES_FILE}
"""

RESOURCES_HEADER = f"""\
# Which of our meters Gnocchi stores, with which resource, under which policy.
# Written by tools/generate.py; do not edit it in the source tree.
#
# Copy it to /etc/ceilometer/{RESOURCES_FILE} of the notification
# agents, add the source and the sink of etc/ceilometer/pipeline.yaml, and run
# create.sh beside this file first: a resource with an attribute that its type does
# not have is refused, with its measures.
---
"""

CREATE_HEADER = """\
#!/bin/sh
# Makes in Gnocchi what gnocchi_resources.yaml needs: archive policies, types of
# resources, and attributes of the type that Ceilometer made (ceilometer-upgrade).
# Written by tools/generate.py; do not edit it in the source tree.
#
# Run it with the rights of an administrator; a second run changes nothing. METRIC is
# the command, for example METRIC='gnocchi --os-auth-plugin gnocchi-basic --user admin'.
set -eu
METRIC=${METRIC:-openstack metric}

policy() {
    name=$1
    shift
    $METRIC archive-policy show "$name" >/dev/null 2>&1 ||
        $METRIC archive-policy create --back-window 0 "$@" "$name"
}

# An older installation may lack a part of them, so only those that are missing are added.
attributes() {
    type=$1
    shift
    known=$($METRIC resource-type show "$type" -f json 2>/dev/null) || known=
    missing=
    for name; do
        case $known in
        *'attributes/'"$name"'"'*) ;;
        *) missing="$missing --attribute $name:string:false:max_length=255" ;;
        esac
    done
    if [ -z "$known" ]; then
        $METRIC resource-type create $missing "$type"
    elif [ -n "$missing" ]; then
        $METRIC resource-type update $missing "$type"
    fi
}
"""

METRICS_HEADER = """\
# What CloudKitty rates of our meters, collected from {collector}.
# Written by tools/generate.py; do not edit it in the source tree.
#
# Copy it to /etc/cloudkitty/metrics.yml, or its entries into the one that is there.
# All quantities are sums over the period of an hour, CloudKitty's default.
{more}---
"""

GNOCCHI_MORE = """\
#
# A counter that only grows is summed up by its differences (rate:sum); it belongs to an
# instance on one host, so a migration does not make it jump. The first value of all is
# no difference: what was used before it, one interval of polling at most, is not rated.
"""

PROMETHEUS_MORE = """\
#
# CloudKitty asks by [collect] scope_key, project_id by default; our label is
# project_uuid. Let Prometheus write it down under that name too:
#
#   metric_relabel_configs:
#     - source_labels: [project_uuid]
#       regex: (.+)
#       target_label: project_id
#
# rate() extrapolates by up to half an interval of scrapes where an instance begins or
# ends within the hour. What describes the instance is joined: the counters themselves
# carry only labels that never change.
"""

POLICIES: dict[str, tuple[str, ...]] = {
    'oie-billing': ('mean', 'max', 'last', 'sum'),
    'oie-billing-rate': ('mean', 'max', 'last', 'sum', 'rate:mean', 'rate:sum'),
}
DEFINITION = (
    {'granularity': '5 minutes', 'timespan': '30 days'},
    {'granularity': '1 hour', 'timespan': '400 days'},
)

# Those of the type that Ceilometer has; the same in its own file.
_OF_INSTANCE = {
    'host': 'resource_metadata.(instance_host|host)',
    'image_ref': 'resource_metadata.image_ref',
    'display_name': 'resource_metadata.display_name',
    'flavor_id': 'resource_metadata.flavor_id',
    'flavor_name': 'resource_metadata.(instance_type|flavor_name)',
}
_OF_PART = {'instance_id': 'resource_metadata.instance_id'}
_BUILT_IN: dict[str, dict[str, str]] = {
    'instance': _OF_INSTANCE,
    'instance_disk': {'name': 'resource_metadata.disk_name', **_OF_PART},
    'instance_network_interface': {'name': 'resource_metadata.vnic_name', **_OF_PART},
}


def files(pollsters: Pollsters, series: frozenset[str]) -> dict[str, str]:
    """Return the text of every file by its path in the repository.

    :param series: names of all series that the collectors may publish
    :raises KeyError: what shall be rated is in no table
    """
    check(pollsters, series)
    return {
        'etc/ceilometer/pipeline.yaml': PIPELINE,
        'etc/gnocchi/gnocchi_resources.yaml': RESOURCES_HEADER + _yaml(resources(pollsters)),
        'etc/gnocchi/create.sh': CREATE_HEADER + '\n' + '\n'.join(create(pollsters)) + '\n',
        'etc/cloudkitty/metrics-gnocchi.yml': METRICS_HEADER.format(
            collector='Gnocchi', more=GNOCCHI_MORE
        )
        + _yaml(metrics_gnocchi(pollsters)),
        'etc/cloudkitty/metrics-prometheus.yml': METRICS_HEADER.format(
            collector='Prometheus', more=PROMETHEUS_MORE
        )
        + _yaml(metrics_prometheus()),
        'etc/cloudkitty/hashmap.sh': HASHMAP_HEADER + '\n' + '\n'.join(hashmap()) + '\n',
    }


# --- Gnocchi ----------------------------------------------------------------


def resources(pollsters: Pollsters) -> dict[str, Any]:
    """Return the resource definitions for Ceilometer's publisher."""
    return {
        'archive_policy_default': 'oie-billing',
        'archive_policies': [
            {
                'name': name,
                'aggregation_methods': list(methods),
                'back_window': 0,
                'definition': list(DEFINITION),
            }
            for name, methods in POLICIES.items()
        ],
        'resources': [
            {
                'resource_type': pollster.resource_type,
                'metrics': {
                    meter.ceilometer: {'archive_policy_name': _policy(meter)}
                    for meter, _ in pollster.columns
                },
                'attributes': attributes(pollster),
            }
            for pollster in pollsters.values()
            if pollster.columns
        ],
    }


def _policy(meter: model.Meter) -> str:
    return 'oie-billing-rate' if meter.kind is model.Kind.CUMULATIVE else 'oie-billing'


def attributes(pollster: ceilometer.Pollster) -> dict[str, str]:
    """Return where the attributes of a pollster's resources come from, by their names."""
    built_in = _BUILT_IN.get(pollster.resource_type)
    if built_in is not None and pollster.resource_type != 'instance':
        return built_in
    if 'instance_id' not in pollster.metadata:
        return {name: f'resource_metadata.{name}' for name in pollster.metadata}
    common = built_in or {**_OF_PART, **_OF_INSTANCE}
    own = {name: f'resource_metadata.{name}' for name in _own(pollster)}
    return {**common, **own}


def _own(pollster: ceilometer.Pollster) -> tuple[str, ...]:
    return tuple(name for name in pollster.metadata if name not in ceilometer.COMMON)


def create(pollsters: Pollsters) -> Iterator[str]:
    """Give the calls of create.sh."""
    for name, methods in POLICIES.items():
        definition = ' '.join(
            f"--definition 'granularity:{each['granularity']},timespan:{each['timespan']}'"
            for each in DEFINITION
        )
        wanted = ' '.join(f'--aggregation-method {method}' for method in methods)
        yield f'policy {name} \\\n    {definition} \\\n    {wanted}'
    wanted_of: dict[str, dict[str, None]] = {}
    for pollster in pollsters.values():
        known = _BUILT_IN.get(pollster.resource_type, {})
        new = (name for name in attributes(pollster) if name not in known)
        wanted_of.setdefault(pollster.resource_type, {}).update(dict.fromkeys(new))
    for name, new_ones in wanted_of.items():
        if new_ones:
            yield f'attributes {name} \\\n    {" ".join(new_ones)}'


# --- CloudKitty -------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Rated:
    """Something that is sold.

    :ivar service: its name in CloudKitty
    :ivar unit: what one of it is, and ``factor`` times the meter's unit gives it
    :ivar meter: Ceilometer's name of the counter
    :ivar series: Prometheus's name of the counter
    :ivar price: an example, per unit
    """

    service: str
    unit: str
    factor: str
    meter: str
    series: str
    price: str


GIB = str(2**30)
RATED = (
    Rated(
        'vcpu_hours',
        'vCPU*h',
        '1/3600',
        'oie.usage.vcpu.seconds',
        'oie_instance_usage_vcpu_seconds_total',
        '0.01',
    ),
    Rated(
        'memory_hours',
        'GiB*h',
        f'1/{1024 * 3600}',
        'oie.usage.memory.mb.seconds',
        'oie_instance_usage_memory_mebibyte_seconds_total',
        '0.005',
    ),
    Rated(
        'disk_read',
        'GiB',
        f'1/{GIB}',
        'oie.usage.disk.read.bytes',
        'oie_instance_usage_disk_read_bytes_total',
        '0.001',
    ),
    Rated(
        'disk_write',
        'GiB',
        f'1/{GIB}',
        'oie.usage.disk.write.bytes',
        'oie_instance_usage_disk_write_bytes_total',
        '0.002',
    ),
    Rated(
        'traffic_incoming',
        'GiB',
        f'1/{GIB}',
        'oie.usage.network.incoming.bytes',
        'oie_instance_usage_network_receive_bytes_total',
        '0',
    ),
    Rated(
        'traffic_outgoing',
        'GiB',
        f'1/{GIB}',
        'oie.usage.network.outgoing.bytes',
        'oie_instance_usage_network_transmit_bytes_total',
        '0.02',
    ),
    Rated(
        'licence_hours',
        'unit*h',
        '1/3600',
        'oie.usage.license.unit.seconds',
        'oie_instance_usage_license_unit_seconds_total',
        '0',
    ),
)
LICENCES = 'licence_hours'
LICENCE_PRICES = {'windows': '0.05', 'rhel': '0.04'}

# Of the attributes that Gnocchi's resource has, those by which prices may differ.
GNOCCHI_METADATA = ('instance_id', 'display_name', 'flavor_id', 'flavor_name', 'host')
PROMETHEUS_METADATA = ('flavor',)
OS_METADATA = ('os_family', 'os_distro')


def check(pollsters: Pollsters, series: frozenset[str]) -> None:
    """Compare what is rated with the tables.

    :raises KeyError: no table has it
    """
    columns = [column for each in pollsters.values() for column in each.columns]
    meters = {meter.ceilometer: meter for meter, _ in columns}
    for rated in RATED:
        if meters[rated.meter].kind is not model.Kind.CUMULATIVE:
            raise KeyError(f'{rated.meter} does not only grow')
        if rated.series not in series:
            raise KeyError(rated.series)


def metrics_gnocchi(pollsters: Pollsters) -> dict[str, Any]:
    """Return metrics.yml for CloudKitty's Gnocchi collector."""
    type_of = {
        meter.ceilometer: each.resource_type
        for each in pollsters.values()
        for meter, _ in each.columns
    }
    return {
        'metrics': {
            rated.meter: {
                'unit': rated.unit,
                'alt_name': rated.service,
                'factor': rated.factor,
                'groupby': ['id', 'project_id'],
                'metadata': [*GNOCCHI_METADATA, *OS_METADATA],
                'extra_args': {
                    'resource_type': type_of[rated.meter],
                    'aggregation_method': 'rate:sum',
                    're_aggregation_method': 'sum',
                    'force_granularity': PERIOD,
                },
            }
            for rated in RATED
        }
    }


def metrics_prometheus() -> dict[str, Any]:
    """Return metrics.yml for CloudKitty's Prometheus collector."""
    return {'metrics': {rated.series: _prometheus(rated) for rated in RATED}}


def _prometheus(rated: Rated) -> dict[str, Any]:
    if rated.service == LICENCES:
        info, labels = 'oie_instance_os_info', OS_METADATA
    else:
        info, labels = 'oie_instance_info', PROMETHEUS_METADATA
    numerator, _, denominator = rated.factor.partition('/')
    return {
        'unit': rated.unit,
        'alt_name': rated.service,
        # rate() is per second.
        'factor': f'{int(numerator) * PERIOD}/{denominator}',
        'groupby': ['instance_uuid'],
        'metadata': list(labels),
        'extra_args': {
            'aggregation_method': 'sum',
            'range_function': 'rate',
            'query_suffix': f'* on (instance_uuid) group_left ({", ".join(labels)}) '
            f'topk by (instance_uuid) (1, last_over_time({info}[{PERIOD}s]))',
        },
    }


HASHMAP_HEADER = """\
#!/bin/sh
# Example prices for CloudKitty's module hashmap, one rule for each service of
# metrics-gnocchi.yml and metrics-prometheus.yml.
# Written by tools/generate.py; do not edit it in the source tree.
#
# Put your own prices in. RATING is the command, for example RATING=cloudkitty. Rules
# hold from now on, or from START, a later time (ISO 8601, UTC): what was used before
# has no price. Run it once: a second run stops at the first service.
set -eu
RATING=${RATING:-openstack rating}

service() {
    $RATING hashmap service create "$1" -f value -c 'Service ID'
}

field() {
    $RATING hashmap field create "$1" "$2" -f value -c 'Field ID'
}

mapping() {
    $RATING hashmap mapping create --type flat ${START:+--start "$START"} "$@"
}

$RATING module enable hashmap
"""


def hashmap() -> Iterator[str]:
    """Give the calls of hashmap.sh."""
    for rated in RATED:
        yield f'# {rated.service}, per {rated.unit}'
        yield f'id=$(service {rated.service})'
        if rated.service == LICENCES:
            yield 'id=$(field "$id" os_distro)'
            for distro, price in LICENCE_PRICES.items():
                yield f'mapping --field-id "$id" --value {distro} {price}'
        else:
            yield f'mapping --service-id "$id" {rated.price}'


# --- both -------------------------------------------------------------------


def _yaml(document: dict[str, Any]) -> str:
    # Through JSON: a list that stands in two places must not become an anchor.
    plain = json.loads(json.dumps(document))
    return yaml.safe_dump(plain, default_flow_style=None, sort_keys=False, width=WIDTH)
