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


"""Projects: what they have, what they use of it, and what they used in the time shown."""

from tools.dashboards import common
from tools.dashboards import panels

# Each series takes the name of its project from its own instance: a project that was renamed
# has two names at once, and a join by project would fail.
_NAMED = ' * on (instance, instance_uuid) group_left (project_name) oie_instance_info{@project}'
_BY = 'sum by (project_name, project_uuid)'


def _by_project(expression: str) -> str:
    """Return the sum of an expression of instances for each project."""
    return f'{_BY} (({expression}){_NAMED})'


def _once(metric: str, label: str = '') -> str:
    """Return the sum of a gauge for each project, an instance that is on two hosts once."""
    labels = ', '.join(
        ('project_name', 'project_uuid', 'instance_uuid', *([label] if label else []))
    )
    return f'{_BY} (max by ({labels}) ({metric}{{@project}}{_NAMED}))'


def _used(what: str) -> str:
    """Return what each project used in the time shown, by one of the totals of the ledger."""
    total = f'oie_instance_usage_{what}_total'
    return f'sum by (project_uuid) (increase({total}{{@project}}[@range]))'


_TWICE = 'A live migration shows an instance on two hosts for a moment; it counts once.'

NOW = panels.Row(
    'Now',
    (
        panels.stat(
            'Instances',
            f'Active instances. {_TWICE}',
            'count(max by (instance_uuid) (oie_instance_info{@project}))',
            width=4,
        ),
        panels.stat(
            'vCPUs',
            f'vCPUs that are online. {_TWICE}',
            'sum(max by (instance_uuid) (oie_instance_vcpus{@project}))',
            width=4,
        ),
        panels.stat(
            'Cores busy',
            'CPU seconds per second.',
            'sum(rate(oie_instance_cpu_seconds_total{@project}[@rate]))',
            width=4,
        ),
        panels.stat(
            'Memory',
            f'What the instances could have. {_TWICE}',
            'sum(max by (instance_uuid) (oie_instance_memory_maximum_bytes{@project}))',
            unit='bytes',
            width=4,
        ),
        panels.stat(
            'Disks',
            f'Size of all disks. {_TWICE}',
            'sum(max by (instance_uuid, disk_path) (oie_instance_disk_capacity_bytes{@project}))',
            unit='bytes',
            width=4,
        ),
        panels.stat(
            'Licences',
            'Licence units that the guests need. Needs [guest_os] enabled and licences.',
            'sum(max by (instance_uuid) (oie_instance_license_units{@project}))',
            width=4,
        ),
    ),
)
USE = panels.Row(
    'Use',
    (
        panels.graph(
            'Instances',
            f'By project. {_TWICE}',
            panels.Query(
                'count by (project_name, project_uuid) (max by (project_name, project_uuid,'
                ' instance_uuid) (oie_instance_info{@project}))',
                '{{project_name}}',
            ),
            is_stacked=True,
            minimum=0,
        ),
        panels.graph(
            'CPU cores',
            'CPU seconds per second.',
            panels.Query(
                _by_project('rate(oie_instance_cpu_seconds_total{@project}[@rate])'),
                '{{project_name}}',
            ),
            is_stacked=True,
            minimum=0,
        ),
        panels.graph(
            'Share of the vCPUs that is busy',
            'Low for long: a smaller flavor would do.',
            panels.Query(
                _by_project('rate(oie_instance_cpu_seconds_total{@project}[@rate])')
                + ' / '
                + _once('oie_instance_vcpus'),
                '{{project_name}}',
            ),
            unit='percentunit',
            minimum=0,
        ),
        panels.graph(
            'Memory',
            'What the guests use by their own account, beside what QEMU occupies.',
            panels.Query(_once('oie_instance_memory_guest_used_bytes'), '{{project_name}} used'),
            panels.Query(_once('oie_instance_memory_rss_bytes'), '{{project_name}} resident'),
            unit='bytes',
            minimum=0,
        ),
        panels.graph(
            'Disk traffic',
            'Bytes per second, read and written together.',
            panels.Query(
                _by_project(
                    'rate(oie_instance_disk_read_bytes_total{@project}[@rate])'
                    ' + rate(oie_instance_disk_write_bytes_total{@project}[@rate])'
                ),
                '{{project_name}}',
            ),
            unit='Bps',
            is_stacked=True,
            minimum=0,
        ),
        panels.graph(
            'Network traffic',
            'Bytes per second, received and sent together.',
            panels.Query(
                _by_project(
                    'rate(oie_instance_interface_receive_bytes_total{@project}[@rate])'
                    ' + rate(oie_instance_interface_transmit_bytes_total{@project}[@rate])'
                ),
                '{{project_name}}',
            ),
            unit='Bps',
            is_stacked=True,
            minimum=0,
        ),
        panels.graph(
            'CPU steal',
            'Cores that the instances wanted and did not get.',
            panels.Query(
                _by_project('rate(oie_instance_cpu_steal_seconds_total{@project}[@rate])'),
                '{{project_name}}',
            ),
            minimum=0,
        ),
        panels.graph(
            'Entries of connection tracking',
            'What the active fixed IPs of each project occupy of the tables. Needs [conntrack] '
            'enabled.',
            panels.Query(_once('oie_conntrack_ip_flows_total', 'ip'), '{{project_name}}'),
            is_stacked=True,
            minimum=0,
        ),
        panels.graph(
            'Contacts with listed addresses',
            'Pairs of a fixed IP and an address on a list, at each moment. Shown for lists in '
            '[threats] enabled_feeds.',
            panels.Query(
                'sum by (project_name, project_uuid, list) ('
                + common.named(common.series('contact_active', '@project'), 'contact_active')
                + f'{_NAMED})',
                '{{project_name}} {{list}}',
            ),
            minimum=0,
        ),
    ),
)
USED = panels.Row(
    'Used in the time shown',
    (
        panels.table(
            'Projects',
            'From the totals that never fall, of all hosts: an instance that moved counts on each '
            'for its time there, one that is gone for the time that it had.',
            {
                'project_name': 'Project',
                'project_uuid': 'Id',
                'Value #A': 'vCPU hours',
                'Value #B': 'GiB hours',
                'Value #C': 'CPU hours',
                'Value #D': 'Disk traffic',
                'Value #E': 'Network traffic',
                'Value #F': 'Instances now',
            },
            panels.Query(f'{_used("vcpu_seconds")} / 3600'),
            panels.Query(f'{_used("memory_mebibyte_seconds")} / 3600 / 1024'),
            panels.Query(f'{_used("cpu_seconds")} / 3600'),
            panels.Query(f'{_used("disk_read_bytes")} + {_used("disk_write_bytes")}'),
            panels.Query(f'{_used("network_receive_bytes")} + {_used("network_transmit_bytes")}'),
            panels.Query(
                'count by (project_name, project_uuid) (max by (project_name, project_uuid,'
                ' instance_uuid) (oie_instance_info{@project}))'
            ),
            units={'Disk traffic': 'bytes', 'Network traffic': 'bytes'},
            width=24,
        ),
        panels.table(
            'Instances',
            'All instances of the projects.',
            {
                'instance': 'Host',
                'domain': 'Domain',
                'instance_uuid': 'Instance',
                'project_name': 'Project',
                'flavor': 'Flavor',
                'vcpus': 'vCPUs',
                'mem_mb': 'MiB',
                'Value': 'Shown',
            },
            panels.Query(
                'count by (instance, domain, instance_uuid, project_name, flavor, vcpus, mem_mb)'
                ' (oie_instance_info{@project})'
            ),
            width=24,
            height=10,
        ),
        panels.bars(
            'Flavors',
            'Instances of each flavor.',
            panels.Query(
                'count by (flavor) (max by (flavor, instance_uuid) (oie_instance_info{@project}))',
                '{{flavor}}',
            ),
            width=12,
            height=6,
            minimum=0,
        ),
        panels.bars(
            'Operating systems',
            'Guests of each system, as far as it is known. Needs [guest_os] enabled.',
            panels.Query(
                'count by (os_product_name) (max by (os_product_name, instance_uuid)'
                ' (oie_instance_os_info{@project}))',
                '{{os_product_name}}',
            ),
            width=12,
            height=6,
            minimum=0,
        ),
    ),
)

DASHBOARD = panels.Dashboard(
    uid='oie-project',
    title='OpenStack projects',
    description='Projects: what they have, what they use of it, and what they used in a time.',
    variables=(common.HOSTS, common.PROJECTS),
    rows=(NOW, USE, USED),
)
