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


"""Usage of projects over whole clouds: on the site that counts it, and on a portal of many."""

from tools.dashboards import common
from tools.dashboards import panels

_SINCE = 'Since the ledger of the site began.'
# Prices of etc/federation/rules/usage.yml: 1.0 for a vCPU hour, 0.3 for a GiB hour.
_CREDITS = (
    'sum by ({labels}) ({call}(oie_project_vcpu_hours_total{{@site}}{window}))'
    ' + 0.3 / 1024 * sum by ({labels}) '
    '({call}(oie_project_memory_mb_hours_total{{@site}}{window}))'
)

NOW = panels.Row(
    'Now',
    (
        panels.stat(
            'Sites',
            'Sites that show their usage: one on a site itself, each location on a portal.',
            'count(count by (location) (oie_project_vcpu_hours_total{@site}))',
            width=4,
        ),
        panels.stat(
            'Projects',
            'Projects of all sites.',
            'count(count by (location, project_id) (oie_project_vcpu_hours_total{@site}))',
            width=4,
        ),
        panels.stat(
            'vCPUs',
            'vCPU hours per hour: vCPUs that exist, busy or not, the mean of the time shown.',
            'sum(rate(oie_project_vcpu_hours_total{@site}[@range])) * 3600',
            width=4,
        ),
        panels.stat(
            'Memory',
            'GiB hours per hour: memory of the instances that exist, the mean of the time shown.',
            'sum(rate(oie_project_memory_mb_hours_total{@site}[@range])) * 3600 / 1024',
            unit='gbytes',
            width=4,
        ),
        panels.stat(
            'vCPU hours',
            f'Of all projects. {_SINCE}',
            'sum(oie_project_vcpu_hours_total{@site})',
            unit='h',
            width=4,
        ),
        panels.stat(
            'Age of the figures',
            'Since Nova was last asked with success. On a site only: a portal does not see it.',
            'time() - max(oie_project_usage_last_success_timestamp_seconds)',
            unit='s',
            steps=(('green', None), ('orange', 1800), ('red', 7200)),
            width=4,
        ),
    ),
)
USE = panels.Row(
    'Use',
    (
        panels.graph(
            'vCPU hours per hour',
            'The ten projects that have most vCPUs; the mean of the hour before each moment.',
            panels.Query(
                'topk(10, sum by (location, project_name)'
                ' (rate(oie_project_vcpu_hours_total{@site}[1h]))) * 3600',
                '{{location}} {{project_name}}',
            ),
            is_stacked=True,
            minimum=0,
            width=12,
        ),
        panels.graph(
            'GiB hours per hour',
            'The ten projects that have most memory; the mean of the hour before each moment.',
            panels.Query(
                'topk(10, sum by (location, project_name)'
                ' (rate(oie_project_memory_mb_hours_total{@site}[1h]))) * 3600 / 1024',
                '{{location}} {{project_name}}',
            ),
            unit='gbytes',
            is_stacked=True,
            minimum=0,
            width=12,
        ),
        panels.graph(
            'Sites',
            'vCPU hours per hour of each site, the mean of the hour before each moment.',
            panels.Query(
                'sum by (location) (rate(oie_project_vcpu_hours_total{@site}[1h])) * 3600',
                '{{location}}',
            ),
            is_stacked=True,
            minimum=0,
            width=12,
        ),
        panels.graph(
            'The older gauges',
            'project_vcpu_usage and project_mb_usage, weighted, as OS_project_usage_exporter '
            'shows '
            'them. The second one is in the unit of [usage] memory_unit.',
            panels.Query('sum by (location) (project_vcpu_usage{@site})', '{{location}} vcpu'),
            panels.Query('sum by (location) (project_mb_usage{@site})', '{{location}} mb'),
            minimum=0,
            width=12,
        ),
        panels.table(
            'Used in the time shown',
            'Hours, weighted hours, and credits: 1.0 for a vCPU hour and 0.3 for a GiB hour.',
            {
                'location': 'Site',
                'domain_name': 'Domain',
                'project_name': 'Project',
                'project_id': 'Id',
                'Value #A': 'vCPU hours',
                'Value #B': 'GiB hours',
                'Value #C': 'Weighted vCPU hours',
                'Value #D': 'Weighted GiB hours',
                'Value #E': 'Credits',
            },
            *(
                panels.Query(
                    'sum by (location, domain_name, project_name, project_id)'
                    f' (increase({name}{{@site}}[@range])){scale}'
                )
                for name, scale in (
                    ('oie_project_vcpu_hours_total', ''),
                    ('oie_project_memory_mb_hours_total', ' / 1024'),
                    ('oie_project_weighted_vcpu_hours_total', ''),
                    ('oie_project_weighted_memory_mb_hours_total', ' / 1024'),
                )
            ),
            panels.Query(
                _CREDITS.format(
                    labels='location, domain_name, project_name, project_id',
                    call='increase',
                    window='[@range]',
                )
            ),
            width=24,
            height=10,
        ),
        panels.table(
            'Used in all',
            f'{_SINCE} The difference of two moments is a bill that loses nothing, whatever was '
            'reached between them.',
            {
                'location': 'Site',
                'project_name': 'Project',
                'project_id': 'Id',
                'Value #A': 'vCPU hours',
                'Value #B': 'GiB hours',
                'Value #C': 'Credits',
            },
            panels.Query(
                'sum by (location, project_name, project_id) (oie_project_vcpu_hours_total{@site})'
            ),
            panels.Query(
                'sum by (location, project_name, project_id)'
                ' (oie_project_memory_mb_hours_total{@site}) / 1024'
            ),
            panels.Query(
                _CREDITS.format(labels='location, project_name, project_id', call='', window='')
            ),
            width=24,
            height=10,
        ),
    ),
)
SITE = panels.Row(
    'The exporter that counts (on a site only)',
    (
        panels.graph(
            'Updates',
            'In the hour before each moment: updates that succeeded, and what failed, by reason.',
            panels.Query('sum(increase(oie_project_usage_updates_total[1h]))', 'succeeded'),
            panels.Query(
                'sum by (reason) (increase(oie_project_usage_errors_total[1h]))', '{{reason}}'
            ),
            minimum=0,
        ),
        panels.graph(
            'Length of an update',
            'Of the last good one.',
            panels.Query('max(oie_project_usage_update_duration_seconds)', 'update'),
            unit='s',
            minimum=0,
        ),
        panels.graph(
            'What it knows',
            'Projects and instances of the last update, and instances whose times are kept.',
            panels.Query('max(oie_project_usage_projects)', 'projects'),
            panels.Query('max(oie_project_usage_instances)', 'instances'),
            panels.Query('max(oie_project_usage_remembered_instances)', 'remembered'),
            minimum=0,
        ),
    ),
)

DASHBOARD = panels.Dashboard(
    uid='oie-usage',
    title='OpenStack project usage',
    description='Usage of projects over whole clouds: for the Prometheus of a site, and for that '
    'of a portal that federates many. Needs [usage] enabled on one node of each cloud.',
    variables=(common.LOCATIONS,),
    rows=(NOW, USE, SITE),
)
