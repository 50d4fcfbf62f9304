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

"""Jobs of instances, migrations above all: the running one and the last one."""

from collections.abc import Callable
from collections.abc import Iterator
import operator
from typing import Any

from oie import model
from oie.collectors import base

GAUGE, INFO = model.Kind.GAUGE, model.Kind.INFO
STATS = 'virDomainGetJobStats'
COMPLETED = 'virDomainGetJobStats COMPLETED, or VIR_DOMAIN_EVENT_ID_JOB_COMPLETED'

# virDomainJobOperation and virDomainJobType, in order of their numbers.
OPERATIONS = (
    'unknown',
    'start',
    'save',
    'restore',
    'migration_in',
    'migration_out',
    'snapshot',
    'snapshot_revert',
    'dump',
    'backup',
    'snapshot_delete',
)
TYPES = ('none', 'bounded', 'unbounded', 'completed', 'failed', 'cancelled')

JOB_INFO = model.Meter(
    prometheus='oie_instance_job_info',
    unit='1',
    kind=INFO,
    help='A job is running on this instance, always 1.',
    source=f'{STATS} operation, type',
)


def _gauge(prometheus: str, unit: str, help: str, source: str) -> model.Meter:
    return model.Meter(prometheus=prometheus, unit=unit, kind=GAUGE, help=help, source=source)


RUNNING = (
    (
        _gauge(
            'oie_instance_job_elapsed_seconds',
            's',
            'Time since the running job began.',
            f'{STATS} time_elapsed, ms',
        ),
        lambda job: base.milliseconds(job.elapsed_ms),
    ),
    (
        _gauge(
            'oie_instance_job_remaining_seconds',
            's',
            'Time the running job still needs, as far as QEMU can tell.',
            f'{STATS} time_remaining, ms',
        ),
        lambda job: base.milliseconds(job.remaining_ms),
    ),
    (
        _gauge(
            'oie_instance_job_memory_total_bytes',
            'B',
            'Memory the running job has to transfer.',
            f'{STATS} memory_total',
        ),
        operator.attrgetter('memory_total_bytes'),
    ),
    (
        _gauge(
            'oie_instance_job_memory_processed_bytes',
            'B',
            'Memory the running job has transferred.',
            f'{STATS} memory_processed',
        ),
        operator.attrgetter('memory_processed_bytes'),
    ),
    (
        _gauge(
            'oie_instance_job_memory_remaining_bytes',
            'B',
            'Memory the running job has not transferred yet.',
            f'{STATS} memory_remaining',
        ),
        operator.attrgetter('memory_remaining_bytes'),
    ),
    (
        _gauge(
            'oie_instance_job_memory_bandwidth_bytes_per_second',
            'B/s',
            'Speed at which the running job transfers memory.',
            f'{STATS} memory_bps',
        ),
        operator.attrgetter('memory_bytes_per_second'),
    ),
    (
        _gauge(
            'oie_instance_job_dirty_bytes_per_second',
            'B/s',
            'Speed at which the guest changes memory while the job runs.',
            f'{STATS} memory_dirty_rate x memory_page_size',
        ),
        operator.attrgetter('dirty_bytes_per_second'),
    ),
    (
        _gauge(
            'oie_instance_job_iterations',
            'iteration',
            'How often the running job has gone over the memory.',
            f'{STATS} memory_iteration',
        ),
        operator.attrgetter('iterations'),
    ),
    (
        _gauge(
            'oie_instance_job_disk_total_bytes',
            'B',
            'Disk data the running job has to transfer.',
            f'{STATS} disk_total',
        ),
        operator.attrgetter('disk_total_bytes'),
    ),
    (
        _gauge(
            'oie_instance_job_disk_processed_bytes',
            'B',
            'Disk data the running job has transferred.',
            f'{STATS} disk_processed',
        ),
        operator.attrgetter('disk_processed_bytes'),
    ),
    (
        _gauge(
            'oie_instance_job_disk_remaining_bytes',
            'B',
            'Disk data the running job has not transferred yet.',
            f'{STATS} disk_remaining',
        ),
        operator.attrgetter('disk_remaining_bytes'),
    ),
)
THROTTLE = (
    _gauge(
        'oie_instance_job_auto_converge_throttle_ratio',
        '1',
        'How much auto-converge slows the guest down, 0 to 1.',
        f'{STATS} auto_converge_throttle, %',
    ),
    lambda job: None if job.auto_converge_percent is None else job.auto_converge_percent / 100,
)
LAST = (
    (
        _gauge(
            'oie_instance_last_job_downtime_seconds',
            's',
            'How long the last completed job kept the guest stopped.',
            f'{COMPLETED} downtime, ms',
        ),
        lambda job: base.milliseconds(job.downtime_ms),
    ),
    (
        _gauge(
            'oie_instance_last_job_elapsed_seconds',
            's',
            'How long the last completed job took.',
            f'{COMPLETED} time_elapsed, ms',
        ),
        lambda job: base.milliseconds(job.elapsed_ms),
    ),
    (
        _gauge(
            'oie_instance_last_job_success',
            '1',
            'Whether the last completed job succeeded.',
            f'{COMPLETED} success, else type',
        ),
        lambda job: (
            int(job.type == TYPES.index('completed'))
            if job.succeeded is None
            else int(job.succeeded)
        ),
    ),
)


class JobCollector(base.Collector):
    """Migrations, saves, backups: how far they are and how the last one ended."""

    GROUP = 'collector_job'
    METERS = (
        JOB_INFO,
        *(meter for meter, _ in RUNNING),
        THROTTLE[0],
        *(meter for meter, _ in LAST),
    )

    def collect(
        self, previous: model.Snapshot | None, current: model.Snapshot, notes: base.Notes
    ) -> Iterator[model.Family]:
        """Give the running jobs, then the last completed ones."""
        instances = current.instances.value
        running = _jobs(instances, lambda i: i.job)
        yield from base.family(JOB_INFO, ((_named(labels, job), 1) for labels, job in running))
        yield from base.families(RUNNING, running)
        if self.wants('auto_converge'):
            yield from base.families((THROTTLE,), running)
        yield from base.families(LAST, _jobs(instances, lambda i: i.last_job))


def _jobs(
    instances: tuple[model.Instance, ...], job_of: Callable[[model.Instance], Any]
) -> list[tuple[model.Labels, model.Job]]:
    pairs = ((i.definition.labels, job_of(i)) for i in instances)
    return [(labels, job) for labels, job in pairs if job is not None]


def _named(labels: model.Labels, job: model.Job) -> model.Labels:
    operation, kind = job.operation or 0, job.type
    return labels.extended(
        operation=OPERATIONS[operation] if operation < len(OPERATIONS) else str(operation),
        type=TYPES[kind] if kind < len(TYPES) else str(kind),
    )
