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


"""What several dashboards share: the choices above them, and words for numbers."""

from tools.dashboards import panels

HOSTS = panels.Variable(
    name='host',
    title='Host',
    query='label_values(oie_host_collection_timestamp_seconds, instance)',
)
# The answer is text; the value stands last and has no quotation mark, whatever the name holds.
PROJECTS = panels.Variable(
    name='project',
    title='Project',
    query=(
        'query_result(count by (project_name, project_uuid) ('
        'oie_instance_info{instance=~"$host"}))'
    ),
    pattern=r'/project_name="(?<text>[\s\S]*)",project_uuid="(?<value>[^"]*)"} /',
)
# By its name in Nova where it has one, else by that in libvirt. The value stands first.
INSTANCE = panels.Variable(
    name='uuid',
    title='Instance',
    query=(
        'query_result(count by (instance_uuid, name) ('
        'oie_instance_openstack_info{instance=~"$host",project_uuid=~"$project",name!=""}'
        ' or on (instance_uuid) label_replace('
        'oie_instance_info{instance=~"$host",project_uuid=~"$project"},'
        ' "name", "$1", "domain", "(?s:(.*))")))'
    ),
    pattern=r'/{instance_uuid="(?<value>[^"]*)",name="(?<text>[\s\S]*)"} /',
    is_multiple=False,
)
LOCATIONS = panels.Variable(
    name='location',
    title='Site',
    query='label_values({__name__=~"oie_project_vcpu_hours_total|project_vcpu_usage"}, location)',
)

# virDomainState
STATES = {
    '0': ('no state', 'text'),
    '1': ('running', 'green'),
    '2': ('blocked', 'green'),
    '3': ('paused', 'orange'),
    '4': ('shutting down', 'orange'),
    '5': ('shut off', 'red'),
    '6': ('crashed', 'red'),
    '7': ('suspended', 'orange'),
}
# virDomainPausedReason
PAUSED_BECAUSE = {
    '1': 'by user',
    '2': 'migration',
    '5': 'I/O error',
    '6': 'watchdog',
    '10': 'crashed',
    '13': 'post-copy failed',
}


def named(expression: str, suffix: str) -> str:
    """Return an expression over the series of all lists, each list named by a label ``list``."""
    pattern = f'oie_(.+)_{suffix}'
    return f'label_replace({expression}, "list", "$1", "__name__", "{pattern}")'


def series(suffix: str, matchers: str = '@host') -> str:
    """Return the selector of one figure of every list of addresses, also of one's own."""
    return f'{{__name__=~"oie_.+_{suffix}",{matchers}}}'


def optional(name: str) -> str:
    """Return what a panel says that shows nothing by default."""
    return f'Needs {name} in [collector] optional.'
