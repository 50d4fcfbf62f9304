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


"""A compute node: its instances as a whole, libvirt, connection tracking, and the exporter."""

from tools.dashboards import common
from tools.dashboards import panels

NOW = panels.Row(
    'Now',
    (
        panels.stat(
            'libvirt answers',
            'Whether the latest cycle got a complete list of the domains, on every host.',
            'min(oie_libvirt_up{@host})',
            words=panels.YES,
            steps=panels.ONE_IS_GOOD,
        ),
        panels.stat(
            'Instances',
            'Active instances; one that is migrating in is not yet counted.',
            'sum(oie_host_active_vms{@host})',
        ),
        panels.stat(
            'vCPUs', 'vCPUs of the active instances.', 'sum(oie_host_active_vcpus{@host})'
        ),
        panels.stat(
            'Cores busy',
            'CPU seconds per second that the instances use.',
            'sum(rate(oie_instance_cpu_seconds_total{@host}[@rate]))',
        ),
        panels.stat(
            'Memory promised',
            'Memory that the instances could have, whether they use it or not.',
            'sum(oie_host_active_mem_gbytes{@host})',
            unit='gbytes',
        ),
        panels.stat(
            'Read in part',
            'Instances whose figures are old or missing: their QEMU did not answer in time.',
            'count(oie_instance_data_complete{@host} == 0) or vector(0)',
            steps=panels.ZERO_IS_GOOD,
        ),
        panels.stat(
            'Left alone',
            'Instances whose QEMU monitor is not asked any more, because it did not answer.',
            'sum(oie_libvirt_suspect_domains{@host})',
            steps=panels.ZERO_IS_GOOD,
        ),
        panels.stat(
            'Calls that hang',
            'Calls into libvirt that never returned. At 3 no QEMU monitor is asked any more, at 4 '
            'nothing can be read: restart libvirtd.',
            'max(oie_libvirt_stuck_calls{@host})',
            steps=(('green', None), ('orange', 1), ('red', 3)),
        ),
    ),
)
INSTANCES = panels.Row(
    'Instances',
    (
        panels.graph(
            'Instances by state',
            'Active domains; incoming and outgoing ones are being migrated.',
            panels.Query('sum by (state) (oie_libvirt_domains{@host})', '{{state}}'),
            is_stacked=True,
        ),
        panels.graph(
            'CPU cores',
            'CPU seconds per second that the instances use, beside the vCPUs that they have.',
            panels.Query(
                'sum by (instance) (rate(oie_instance_cpu_seconds_total{@host}[@rate]))',
                '{{instance}} used',
            ),
            panels.Query('sum by (instance) (oie_host_active_vcpus{@host})', '{{instance}} vCPUs'),
            minimum=0,
        ),
        panels.graph(
            'CPU steal',
            'Cores that vCPUs wanted and did not get, because the host was busy with others.',
            panels.Query(
                'sum by (instance) (rate(oie_instance_cpu_steal_seconds_total{@host}[@rate]))',
                '{{instance}}',
            ),
            minimum=0,
        ),
        panels.graph(
            'Busiest instances',
            'Cores that each of the ten busiest instances uses, emulator and I/O threads '
            'included.',
            panels.Query(
                'topk(10, sum by (domain, instance_uuid)'
                ' (rate(oie_instance_cpu_seconds_total{@host}[@rate])))',
                '{{domain}}',
            ),
            minimum=0,
        ),
        panels.graph(
            'Memory',
            'What QEMU occupies, beside what the instances could have.',
            panels.Query(
                'sum by (instance) (oie_instance_memory_rss_bytes{@host})', '{{instance}} resident'
            ),
            panels.Query(
                'sum by (instance) (oie_instance_memory_maximum_bytes{@host})',
                '{{instance}} maximum',
            ),
            unit='bytes',
            minimum=0,
        ),
        panels.graph(
            'Least free memory in guests',
            'Share of its memory that the guest could still use; the ten with least. Guests '
            'without '
            'a balloon driver are missing.',
            panels.Query(
                'bottomk(10, sum by (domain, instance_uuid) '
                '(oie_instance_memory_guest_usable_bytes'
                '{@host} / oie_instance_memory_guest_available_bytes{@host}))',
                '{{domain}}',
            ),
            unit='percentunit',
            steps=(('red', None), ('green', 0.05)),
            minimum=0,
            maximum=1,
        ),
        panels.graph(
            'Disk traffic',
            'Bytes per second that the instances read and write.',
            panels.Query(
                'sum by (instance) (rate(oie_instance_disk_read_bytes_total{@host}[@rate]))',
                '{{instance}} read',
            ),
            panels.Query(
                'sum by (instance) (rate(oie_instance_disk_write_bytes_total{@host}[@rate]))',
                '{{instance}} written',
            ),
            unit='Bps',
            minimum=0,
        ),
        panels.graph(
            'Slowest writes',
            'Mean time of one write; the ten slowest disks. Above 50 ms guests suffer.',
            panels.Query(
                'topk(10, sum by (domain, disk_path)'
                ' (rate(oie_instance_disk_write_seconds_total{@host}[@rate]))'
                ' / (sum by (domain, disk_path) (rate(oie_disk_w_requests{@host}[@rate])) > 0))',
                '{{domain}} {{disk_path}}',
            ),
            unit='s',
            steps=(('green', None), ('red', 0.05)),
            minimum=0,
        ),
        panels.graph(
            'Network traffic',
            'Bytes per second that the guests received and sent.',
            panels.Query(
                'sum by (instance)'
                ' (rate(oie_instance_interface_receive_bytes_total{@host}[@rate]))',
                '{{instance}} received',
            ),
            panels.Query(
                'sum by (instance)'
                ' (rate(oie_instance_interface_transmit_bytes_total{@host}[@rate]))',
                '{{instance}} sent',
            ),
            unit='Bps',
            minimum=0,
        ),
        panels.graph(
            'Dropped packets',
            'Packets per second to guests and from them that were dropped; the ten worst '
            'interfaces.',
            panels.Query(
                'topk(10, sum by (domain, interface) (rate(oie_net_rx_drp_total{@host}[@rate])'
                ' + rate(oie_net_tx_drp_total{@host}[@rate])))',
                '{{domain}} {{interface}}',
            ),
            unit='pps',
            minimum=0,
        ),
        panels.table(
            'Not running',
            'Instances that are paused, shut off or crashed at this moment.',
            {
                'instance': 'Host',
                'domain': 'Domain',
                'instance_uuid': 'Instance',
                'Value': 'State',
            },
            panels.Query(
                'max by (instance, domain, instance_uuid) (oie_instance_state_code{@host} >= 3)'
            ),
            words=common.STATES,
            width=8,
        ),
        panels.table(
            'Disk errors',
            'Disks of which QEMU reports an error; the guest may be paused by it.',
            {'instance': 'Host', 'domain': 'Domain', 'disk_path': 'Disk', 'Value': 'Error'},
            panels.Query(
                'max by (instance, domain, disk_path) (oie_instance_disk_error_code{@host} > 0)'
            ),
            words={'1': ('unspecified', 'red'), '2': ('no space', 'red')},
            width=8,
        ),
        panels.table(
            'Jobs under way',
            'Migrations, snapshots and backups: how long already, what is left to transfer, and '
            'how fast the guest changes its memory meanwhile.',
            {
                'instance': 'Host',
                'domain': 'Domain',
                'operation': 'Operation',
                'Value #A': 'Since',
                'Value #B': 'Left',
                'Value #C': 'Changes',
            },
            *(
                panels.Query(
                    'max by (instance, domain, operation) (oie_instance_job_info{@host}'
                    f' * on (instance, instance_uuid) group_left () {name}{{@host}})'
                )
                for name in (
                    'oie_instance_job_elapsed_seconds',
                    'oie_instance_job_memory_remaining_bytes',
                    'oie_instance_job_dirty_bytes_per_second',
                )
            ),
            units={'Since': 's', 'Left': 'bytes', 'Changes': 'Bps'},
            width=16,
        ),
        panels.bars(
            'Storage pools',
            'How full each pool is that libvirt manages. ' + common.optional('storage_pools'),
            panels.Query(
                'max by (instance, pool) (oie_storage_pool_allocation_bytes{@host}'
                ' / oie_storage_pool_capacity_bytes{@host})',
                '{{instance}} {{pool}}',
            ),
            unit='percentunit',
            steps=(('green', None), ('orange', 0.8), ('red', 0.9)),
            minimum=0,
            maximum=1,
        ),
    ),
)
LIBVIRT = panels.Row(
    'libvirt',
    (
        panels.graph(
            'Length of calls',
            'Mean time of a call into libvirt, by call.',
            panels.Query(
                'sum by (call) (rate(oie_libvirt_call_duration_seconds_sum{@host}[@rate]))'
                ' / (sum by (call) (rate(oie_libvirt_call_duration_seconds_count{@host}[@rate])) '
                '> 0)',
                '{{call}}',
            ),
            unit='s',
            minimum=0,
        ),
        panels.graph(
            'Calls that took too long',
            'Calls per second that did not return in time and were left behind.',
            panels.Query(
                'sum by (instance, call) (rate(oie_libvirt_call_timeouts_total{@host}[@rate]))',
                '{{instance}} {{call}}',
            ),
            minimum=0,
        ),
        panels.graph(
            'Instances that could not be read',
            'Per second, by reason; an instance counts once in each cycle.',
            panels.Query(
                'sum by (reason) (rate(oie_domain_errors_total{@host}[@rate]))', '{{reason}}'
            ),
            is_stacked=True,
            minimum=0,
        ),
        panels.graph(
            'Listing the domains',
            'How long the last listing took.',
            panels.Query(
                'max by (instance) (oie_host_libvirt_list_duration_seconds{@host})', '{{instance}}'
            ),
            unit='s',
            minimum=0,
        ),
        panels.graph(
            'Connections opened anew',
            'How often the connection to libvirt had to be opened again in the time shown.',
            panels.Query(
                'sum by (instance) (increase(oie_libvirt_reconnects_total{@host}[@rate]))',
                '{{instance}}',
            ),
            minimum=0,
        ),
        panels.table(
            'Versions',
            'libvirt and QEMU of each host.',
            {
                'instance': 'Host',
                'libvirt_version': 'libvirt',
                'hypervisor': 'Hypervisor',
                'hypervisor_version': 'Version',
                'Value': 'Hosts',
            },
            panels.Query(
                'count by (instance, libvirt_version, hypervisor, hypervisor_version)'
                ' (oie_libvirt_info{@host})'
            ),
            width=8,
        ),
    ),
)
CONNTRACK = panels.Row(
    'Connection tracking and namespaces',
    (
        panels.graph(
            'How full the table is',
            'Entries of the connection tracking table over what it may have. Near 1 the host '
            'drops '
            'new connections of every instance. Needs [conntrack] enabled.',
            panels.Query(
                'max by (instance) (oie_host_conntrack_utilization_ratio{@host})', '{{instance}}'
            ),
            unit='percentunit',
            steps=(('green', None), ('orange', 0.8), ('red', 0.95)),
            minimum=0,
            maximum=1,
        ),
        panels.graph(
            'Entries',
            'Entries of the latest complete reading, those that belong to no fixed IP here, and '
            'those whose address several instances share. Needs [conntrack] enabled.',
            panels.Query(
                'sum by (instance) (oie_host_conntrack_entries_total{@host})', '{{instance}} all'
            ),
            panels.Query(
                'sum by (instance) (oie_host_conntrack_unattributed_entries{@host})',
                '{{instance}} of nobody here',
            ),
            panels.Query(
                'sum by (instance) (oie_host_conntrack_ambiguous_entries{@host})',
                '{{instance}} ambiguous',
            ),
            minimum=0,
        ),
        panels.graph(
            'Reading the table',
            'How long the latest attempt took. Needs [conntrack] enabled.',
            panels.Query(
                'max by (instance) (oie_host_conntrack_read_duration_seconds{@host})',
                '{{instance}}',
            ),
            unit='s',
            minimum=0,
        ),
        panels.graph(
            'Routers',
            'Bytes per second that routers received from outside and sent there. Needs [netns] '
            'enabled.',
            panels.Query(
                'sum by (netns) (rate(oie_netns_device_receive_bytes_total'
                '{@host,netns=~"(qrouter|snat)-.+",device=~"qg-.*"}[@rate]))',
                '{{netns}} received',
            ),
            panels.Query(
                'sum by (netns) (rate(oie_netns_device_transmit_bytes_total'
                '{@host,netns=~"(qrouter|snat)-.+",device=~"qg-.*"}[@rate]))',
                '{{netns}} sent',
            ),
            unit='Bps',
            minimum=0,
        ),
        panels.graph(
            'Entries by namespace',
            'Connection tracking entries of the ten namespaces that have most. Needs [netns] '
            'enabled.',
            panels.Query(
                'topk(10, max by (instance, netns) (oie_netns_conntrack_entries{@host}))',
                '{{netns}}',
            ),
            minimum=0,
        ),
        panels.graph(
            'Namespaces',
            'Network namespaces that were read, filtered out, or skipped. Needs [netns] enabled.',
            panels.Query('sum by (instance) (oie_host_netns_read{@host})', '{{instance}} read'),
            panels.Query(
                'sum by (instance) (oie_host_netns_filtered{@host})', '{{instance}} filtered'
            ),
            panels.Query(
                'sum by (instance) (oie_host_netns_skipped{@host})', '{{instance}} skipped'
            ),
            minimum=0,
        ),
    ),
)
EXPORTER = panels.Row(
    'Exporter',
    (
        panels.graph(
            'Cycles',
            'Length of a cycle, and how long ago the good one before it ended: about the interval '
            'when all is well.',
            panels.Query(
                'max by (instance) (oie_host_collection_duration_seconds{@host})',
                '{{instance}} length',
            ),
            panels.Query(
                'max by (instance) (oie_host_collection_lag_seconds{@host})', '{{instance}} lag'
            ),
            unit='s',
            minimum=0,
        ),
        panels.graph(
            'Age of what is shown',
            'Seconds since the cycle that is shown was taken.',
            panels.Query(
                'time() - max by (instance) (oie_host_collection_timestamp_seconds{@host})',
                '{{instance}}',
            ),
            unit='s',
            steps=(('green', None), ('red', 60)),
            minimum=0,
        ),
        panels.graph(
            'Series',
            'Series of each group.',
            panels.Query('sum by (group) (oie_exporter_series{@host})', '{{group}}'),
            is_stacked=True,
            minimum=0,
        ),
        panels.table(
            'Sources and collectors',
            'Groups of series, and whether they could be made in the latest cycle.',
            {'instance': 'Host', 'group': 'Group', 'Value': 'Works'},
            panels.Query('min by (instance, group) (oie_collector_success{@host})'),
            words=panels.YES,
            width=8,
        ),
        panels.graph(
            'Requests',
            'Requests per second that were answered, by class of status, and connections that '
            'were '
            'closed by us.',
            panels.Query(
                'sum by (status) (rate(oie_exporter_http_requests_total{@host}[@rate]))',
                '{{status}}',
            ),
            panels.Query(
                'sum by (reason) (rate(oie_exporter_http_dropped_total{@host}[@rate]))',
                'closed: {{reason}}',
            ),
            unit='reqps',
            minimum=0,
        ),
        panels.graph(
            'Memory of the exporter',
            'Heap and stacks of the process.',
            panels.Query('max by (instance) (oie_host_heap_alloc_bytes{@host})', '{{instance}}'),
            unit='bytes',
            minimum=0,
        ),
        panels.stat(
            'Totals are durable',
            'Whether the totals for billing would survive a crash, on every host.',
            'min(oie_ledger_durable{@host})',
            words=panels.YES,
            steps=panels.ONE_IS_GOOD,
            width=4,
        ),
        panels.stat(
            'Totals written',
            'The longest time since the totals for billing were last written.',
            'max(time() - oie_ledger_last_write_timestamp_seconds{@host})',
            unit='s',
            steps=(('green', None), ('red', 120)),
            width=4,
        ),
        panels.stat(
            'Configuration is right',
            'Whether the configuration files were right when they were last read, on every host.',
            'min(oie_exporter_config_ok{@host})',
            words=panels.YES,
            steps=panels.ONE_IS_GOOD,
            width=4,
        ),
        panels.stat(
            'Options that wait',
            'Options that the files set otherwise than what runs: restart the exporter.',
            'max(oie_exporter_config_options_waiting{@host})',
            steps=(('green', None), ('orange', 1)),
            width=4,
        ),
        panels.stat(
            'Open to everybody',
            'Hosts whose endpoint others can reach without TLS and authentication.',
            'sum(oie_exporter_public_without_authentication{@host})',
            steps=panels.ZERO_IS_GOOD,
            width=4,
        ),
        panels.stat(
            'Without a project',
            'Instances that belong to no project, so that nobody pays for them.',
            'sum(oie_host_instances_without_project{@host})',
            steps=(('green', None), ('orange', 1)),
            width=4,
        ),
    ),
)

DASHBOARD = panels.Dashboard(
    uid='oie-host',
    title='OpenStack hosts',
    description='Compute nodes: their instances as a whole, libvirt, connection tracking, and the '
    'exporter itself.',
    variables=(common.HOSTS,),
    rows=(NOW, INSTANCES, LIBVIRT, CONNTRACK, EXPORTER),
)
