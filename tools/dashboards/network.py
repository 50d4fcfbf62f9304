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


"""Who talks to whom: connections of fixed IPs, patterns, contacts with listed addresses, lists."""

from tools.dashboards import common
from tools.dashboards import panels

_NEEDS = 'Needs [conntrack] enabled and [outbound] enabled.'
_INBOUND = 'Needs [conntrack] enabled, [outbound] enabled and [outbound] inbound.'
_LISTS = 'For each list in [threats] enabled_feeds.'
# The one figure that every list has, and nothing else.
_IS_LIST = 'refresh_last_success_timestamp_seconds'


def _of_lists(suffix: str) -> str:
    """Return one figure of every list, and of nothing else whose name ends the same way."""
    return (
        common.named(common.series(suffix), suffix)
        + ' and on (instance, list) '
        + common.named(common.series(_IS_LIST), _IS_LIST)
    )


NOW = panels.Row(
    'Now',
    (
        panels.stat(
            'Contacts',
            f'Pairs of a fixed IP and a listed address at this moment. {_LISTS}',
            f'sum({common.series("contact_active", "@project")}) or vector(0)',
            steps=panels.ZERO_IS_GOOD,
            width=4,
        ),
        panels.stat(
            'Instances in contact',
            f'Instances that talk to a listed address at this moment. {_LISTS}',
            f'count(max by (instance_uuid) ({common.series("contact_active", "@project")}) > 0)'
            ' or vector(0)',
            steps=panels.ZERO_IS_GOOD,
            width=4,
        ),
        panels.stat(
            'Patterns',
            'Fixed IPs whose connections look like a scan or a fan-out. Needs [conntrack] '
            'enabled, '
            '[outbound] enabled and [outbound] patterns.',
            'count(max by (ip, instance_uuid) (oie_outbound_pattern{@project})) or vector(0)',
            steps=panels.ZERO_IS_GOOD,
            width=4,
        ),
        panels.stat(
            'Own addresses listed',
            'Addresses of the hosts that stand on a list: mail and updates may be refused.',
            'count(oie_host_threat_listed{@host}) or vector(0)',
            steps=panels.ZERO_IS_GOOD,
            width=4,
        ),
        panels.stat(
            'Oldest list',
            f'Time since the list that waits longest was last fetched. {_LISTS}',
            f'time() - min({common.series(_IS_LIST)})',
            unit='s',
            steps=(('green', None), ('orange', 86400)),
            width=4,
        ),
        panels.stat(
            'Threat log',
            'Whether the threat log can be written, on every host. Needs [threat_log] enabled.',
            'min(oie_threat_log_writable{@host})',
            words=panels.YES,
            steps=panels.ONE_IS_GOOD,
            width=4,
        ),
    ),
)
OUTBOUND = panels.Row(
    'Outbound',
    (
        panels.graph(
            'Connections',
            f'Connections that a fixed IP began; the ten with most. {_NEEDS}',
            panels.Query(
                'topk(10, max by (domain, ip) (oie_outbound_flows{@project}))', '{{domain}} {{ip}}'
            ),
            minimum=0,
        ),
        panels.graph(
            'Remotes',
            f'Different remotes of a fixed IP; the ten with most. {_NEEDS}',
            panels.Query(
                'topk(10, max by (domain, ip) (oie_outbound_unique_remotes{@project}))',
                '{{domain}} {{ip}}',
            ),
            minimum=0,
        ),
        panels.graph(
            'New remotes',
            'Remotes that the interval before did not have: a guest that is spreading meets many. '
            + _NEEDS,
            panels.Query(
                'topk(10, max by (domain, ip) (oie_outbound_new_remotes{@project}))',
                '{{domain}} {{ip}}',
            ),
            minimum=0,
        ),
        panels.graph(
            'Ports',
            f'Different destination ports of a fixed IP; the ten with most. {_NEEDS}',
            panels.Query(
                'topk(10, max by (domain, ip) (oie_outbound_unique_dst_ports{@project}))',
                '{{domain}} {{ip}}',
            ),
            minimum=0,
        ),
        panels.graph(
            'To one remote',
            f'Connections to the remote that has most of them; the ten with most. {_NEEDS}',
            panels.Query(
                'topk(10, max by (domain, ip) (oie_outbound_max_flows_single_remote{@project}))',
                '{{domain}} {{ip}}',
            ),
            minimum=0,
        ),
        panels.graph(
            'Unanswered',
            'Share of the connections that nobody answered: near 1 it is a scan, or a firewall. '
            'Needs [conntrack] enabled, [outbound] enabled and [outbound] unreplied.',
            panels.Query(
                'topk(10, max by (domain, ip) (oie_outbound_unreplied_ratio{@project}))',
                '{{domain}} {{ip}}',
            ),
            unit='percentunit',
            minimum=0,
            maximum=1,
        ),
        panels.table(
            'Patterns',
            'Fixed IPs whose connections look like a scan or a fan-out at this moment. Needs '
            '[conntrack] enabled, [outbound] enabled and [outbound] patterns.',
            {
                'instance': 'Host',
                'domain': 'Domain',
                'project_uuid': 'Project',
                'ip': 'Address',
                'pattern': 'Pattern',
                'Value': 'Seen',
            },
            panels.Query(
                'count by (instance, domain, project_uuid, ip, pattern)'
                ' (oie_outbound_pattern{@project})'
            ),
        ),
        panels.table(
            'Known in part',
            f'Fixed IPs with more remotes or ports than are remembered. {_NEEDS}',
            {
                'instance': 'Host',
                'domain': 'Domain',
                'project_uuid': 'Project',
                'ip': 'Address',
                'Value': 'Seen',
            },
            panels.Query(
                'count by (instance, domain, project_uuid, ip) (oie_flows_saturated{@project} > 0)'
            ),
        ),
    ),
)
INBOUND = panels.Row(
    'Inbound',
    (
        panels.graph(
            'Connections',
            f'Connections that others began; the ten fixed IPs with most. {_INBOUND}',
            panels.Query(
                'topk(10, max by (domain, ip) (oie_inbound_flows{@project}))', '{{domain}} {{ip}}'
            ),
            minimum=0,
        ),
        panels.graph(
            'Remotes',
            f'Different remotes that came; the ten fixed IPs with most. {_INBOUND}',
            panels.Query(
                'topk(10, max by (domain, ip) (oie_inbound_unique_remotes{@project}))',
                '{{domain}} {{ip}}',
            ),
            minimum=0,
        ),
        panels.graph(
            'New remotes',
            f'Remotes that the interval before did not have. {_INBOUND}',
            panels.Query(
                'topk(10, max by (domain, ip) (oie_inbound_new_remotes{@project}))',
                '{{domain}} {{ip}}',
            ),
            minimum=0,
        ),
    ),
)
CONTACTS = panels.Row(
    'Contacts with listed addresses',
    (
        panels.graph(
            'By list',
            f'Pairs of a fixed IP and a listed address at each moment. {_LISTS}',
            panels.Query(
                'sum by (list, direction) ('
                + common.named(common.series('contact_active', '@project'), 'contact_active')
                + ')',
                '{{list}} {{direction}}',
            ),
            is_stacked=True,
            minimum=0,
        ),
        panels.graph(
            'By instance',
            f'The ten instances with most contacts at each moment. {_LISTS}',
            panels.Query(
                f'topk(10, sum by (domain) ({common.series("contact_active", "@project")}))',
                '{{domain}}',
            ),
            minimum=0,
        ),
        panels.table(
            'Who and how often',
            'Contacts in the time shown, summed up over all intervals: a lasting one counts in '
            'each. ' + _LISTS,
            {
                'list': 'List',
                'direction': 'Direction',
                'domain': 'Domain',
                'instance_uuid': 'Instance',
                'project_uuid': 'Project',
                'Value': 'Contacts',
            },
            panels.Query(
                'sum by (list, direction, domain, instance_uuid, project_uuid) ('
                # Over names that differ only increase() cannot go; the label keeps them apart.
                + f'increase({common.named(common.series("contact", "@project"), "contact")}'
                '[@range:@rate])' + ' > 0)'
            ),
            width=8,
        ),
        panels.table(
            'Hosts on lists',
            f'Addresses of our own that somebody has listed. {_LISTS}',
            {'instance': 'Host', 'list': 'List', 'ip': 'Address', 'Value': 'Entries'},
            panels.Query('count by (instance, list, ip) (oie_host_threat_listed{@host})'),
            width=8,
        ),
        panels.graph(
            'Reachability',
            'Fixed IPs by the result of their last probe. ' + common.optional('reachability'),
            panels.Query('sum by (result) (oie_host_probe_addresses{@host})', '{{result}}'),
            is_stacked=True,
            minimum=0,
        ),
        panels.graph(
            'Threat log',
            'Lines per second that were written, and those that were left out. Needs [threat_log] '
            'enabled.',
            panels.Query('sum(rate(oie_threat_log_lines_total{@host}[@rate]))', 'written'),
            panels.Query(
                'sum by (reason) (rate(oie_threat_log_dropped_total{@host}[@rate]))',
                'left out: {{reason}}',
            ),
            minimum=0,
        ),
    ),
)
LISTS = panels.Row(
    'Lists',
    (
        panels.table(
            'State of the lists',
            'Fetched: how long ago. Fresh: within two intervals. Held: suddenly much smaller or '
            f'larger, so that the older one stays until that is confirmed. {_LISTS}',
            {
                'instance': 'Host',
                'list': 'List',
                'Value #A': 'Fetched',
                'Value #B': 'Fresh',
                'Value #C': 'Held',
            },
            panels.Query(
                'time() - max by (instance, list) ('
                + common.named(common.series(_IS_LIST), _IS_LIST)
                + ')'
            ),
            panels.Query(f'min by (instance, list) ({_of_lists("fresh")})'),
            panels.Query(f'max by (instance, list) ({_of_lists("held")})'),
            units={'Fetched': 's', 'Fresh': 'bool_yes_no', 'Held': 'bool_yes_no'},
        ),
        panels.graph(
            'Entries',
            f'Entries in use. {_LISTS}',
            panels.Query(
                f'max by (instance, list) ({_of_lists("entries")})', '{{instance}} {{list}}'
            ),
            minimum=0,
            width=12,
        ),
        panels.graph(
            'Failed refreshes',
            f'Since the exporter was started. {_LISTS}',
            panels.Query(
                f'max by (instance, list) ({_of_lists("refresh_errors_total")})',
                '{{instance}} {{list}}',
            ),
            minimum=0,
        ),
        panels.graph(
            'Length of a refresh',
            f'Of the last good one. {_LISTS}',
            panels.Query(
                f'max by (instance, list) ({_of_lists("refresh_duration_seconds")})',
                '{{instance}} {{list}}',
            ),
            unit='s',
            minimum=0,
        ),
        panels.graph(
            'Entries left out',
            f'By reason: malformed, twice, or addresses that no list may name. {_LISTS}',
            panels.Query(
                f'max by (list, reason) ({_of_lists("rejected_entries")})', '{{list}} {{reason}}'
            ),
            minimum=0,
        ),
    ),
)

DASHBOARD = panels.Dashboard(
    uid='oie-network',
    title='OpenStack network behaviour and threats',
    description='Who talks to whom: connections of fixed IPs, patterns, contacts with listed '
    'addresses, and the lists themselves.',
    variables=(common.HOSTS, common.PROJECTS),
    rows=(NOW, OUTBOUND, INBOUND, CONTACTS, LISTS),
)
