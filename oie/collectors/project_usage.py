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

"""What each project of a cloud has used, as Nova tells it, and how the reading goes."""

from collections.abc import Iterator
import operator

from oie import model
from oie.collectors import base

GAUGE, CUMULATIVE = model.Kind.GAUGE, model.Kind.CUMULATIVE
_NOVA = 'Nova, os-simple-tenant-usage, over [usage] path'


def _meter(
    prometheus: str,
    unit: str,
    help: str,
    kind: model.Kind = GAUGE,
    source: str = 'our own counter',
) -> model.Meter:
    return model.Meter(prometheus=prometheus, unit=unit, kind=kind, help=help, source=source)


PROJECT: tuple[base.Column, ...] = (
    (
        # Names, help and type of these two are those of OS_project_usage_exporter.
        _meter('project_vcpu_usage', 'vcpu.h', 'Total vcpu usage', source=_NOVA),
        operator.attrgetter('weighted_vcpu_hours'),
    ),
    (
        _meter('project_mb_usage', '1', 'Total MB usage', source=_NOVA),
        operator.attrgetter('memory_usage'),
    ),
    (
        _meter(
            'oie_project_vcpu_hours_total',
            'vcpu.h',
            'Virtual CPUs of the instances of the project times the hours in which they existed.',
            CUMULATIVE,
            _NOVA,
        ),
        operator.attrgetter('vcpu_hours'),
    ),
    (
        _meter(
            'oie_project_memory_mb_hours_total',
            'MB.h',
            'Memory in MiB of the instances of the project times the hours in which they existed.',
            CUMULATIVE,
            _NOVA,
        ),
        operator.attrgetter('memory_mb_hours'),
    ),
    (
        _meter(
            'oie_project_weighted_vcpu_hours_total',
            'vcpu.h',
            'Hours of virtual CPUs, those of each instance times its weight.',
            CUMULATIVE,
            _NOVA,
        ),
        operator.attrgetter('weighted_vcpu_hours'),
    ),
    (
        _meter(
            'oie_project_weighted_memory_mb_hours_total',
            'MB.h',
            'Hours of memory in MiB, those of each instance times its weight.',
            CUMULATIVE,
            _NOVA,
        ),
        operator.attrgetter('weighted_memory_mb_hours'),
    ),
)
HEALTH: tuple[base.Column, ...] = (
    (
        _meter(
            'oie_project_usage_last_success_timestamp_seconds',
            's',
            'Unix time of the last update that succeeded; absent before the first one.',
            source='own clock',
        ),
        operator.attrgetter('succeeded_at'),
    ),
    (
        _meter(
            'oie_project_usage_update_duration_seconds',
            's',
            'How long the last update that succeeded took.',
            source='own clock',
        ),
        operator.attrgetter('seconds'),
    ),
    (
        _meter(
            'oie_project_usage_updates_total',
            'update',
            'Updates that succeeded since the start.',
            CUMULATIVE,
        ),
        operator.attrgetter('updates'),
    ),
    (
        _meter('oie_project_usage_projects', 'project', 'Projects of the last update.'),
        operator.attrgetter('projects'),
    ),
    (
        _meter(
            'oie_project_usage_instances', 'instance', 'Instances that existed at the last update.'
        ),
        operator.attrgetter('instances'),
    ),
    (
        _meter(
            'oie_project_usage_remembered_instances',
            'instance',
            'Instances whose times are kept, those that are gone included.',
        ),
        operator.attrgetter('remembered'),
    ),
    (
        _meter(
            'oie_project_usage_weights_timestamp_seconds',
            's',
            'Unix time at which the weights were last read; absent where they are fixed.',
            source='own clock',
        ),
        operator.attrgetter('weights_read_at'),
    ),
    (
        _meter(
            'oie_project_usage_clock_skew_seconds',
            's',
            'Our clock minus that of the cloud at the last update, to about a second.',
            source='Date of its answers',
        ),
        operator.attrgetter('clock_skew_seconds'),
    ),
)
ERRORS = _meter(
    'oie_project_usage_errors_total',
    'error',
    'Updates that failed, parts that could not be read and records left out, by reason.',
    CUMULATIVE,
)


LEFT_OUT = _meter(
    'oie_project_usage_left_out',
    'instance',
    'Instances that the last update could not count, by reason: record, nobody can read its size '
    'or dates; project, neither Keystone nor the totals know its project.',
    source='os-simple-tenant-usage and projects of Keystone',
)


class ProjectUsageCollector(base.Collector):
    """What the projects of a cloud have used; nothing unless ``[usage] enabled`` is true."""

    NEEDS = frozenset({'project_usage', 'project_usage_health'})
    METERS = (*(meter for meter, _ in (*PROJECT, *HEALTH)), ERRORS, LEFT_OUT)

    def collect(
        self, previous: model.Snapshot | None, current: model.Snapshot, notes: base.Notes
    ) -> Iterator[model.Family]:
        """Give the totals of the last good update, and how the updates go."""
        rows = [(usage.labels, usage) for usage in current.project_usage.value or ()]
        yield from base.families(PROJECT, rows)
        health = current.project_usage_health
        if health is None:
            return
        yield from base.families(HEALTH, [(model.NO_LABELS, health)])
        failures = health.failures.items()
        yield from base.family(ERRORS, ((model.Labels.of(reason=r), n) for r, n in failures))
        left_out = health.left_out.items()
        yield from base.family(LEFT_OUT, ((model.Labels.of(reason=r), n) for r, n in left_out))
