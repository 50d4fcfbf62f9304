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


"""One instance: CPU, memory, disks, network, what it talks to, jobs, and how old all that is."""

from tools.dashboards import common
from tools.dashboards import panels

NOW = panels.Row(
    'Now',
    (
        panels.stat(
            'State',
            'What libvirt says of the domain.',
            'max(oie_instance_state_code{@uuid})',
            words=common.STATES,
            width=3,
        ),
        panels.stat(
            'Figures are whole',
            'Whether the latest cycle read this instance completely. No: what its QEMU knows is '
            'old or missing.',
            'max(oie_instance_data_complete{@uuid})',
            words=panels.YES,
            steps=panels.ONE_IS_GOOD,
        ),
        panels.stat(
            'Age of the figures',
            'Seconds since the instance was last read completely.',
            'min(time() - oie_instance_last_success_timestamp_seconds{@uuid})',
            unit='s',
            steps=(('green', None), ('orange', 60), ('red', 300)),
        ),
        panels.stat('vCPUs', 'vCPUs that are online.', 'max(oie_instance_vcpus{@uuid})'),
        panels.stat(
            'Memory',
            'What the guest may use at present.',
            'max(oie_instance_memory_balloon_bytes{@uuid})',
            unit='bytes',
        ),
        panels.stat(
            'Disks',
            'Size of all disks.',
            'sum(max by (disk_path) (oie_instance_disk_capacity_bytes{@uuid}))',
            unit='bytes',
        ),
        panels.stat(
            'Monitor busy',
            'For how long something has occupied the monitor of the domain. More than a minute is '
            'a job, or QEMU hangs.',
            'max(oie_instance_libvirt_control_busy_seconds{@uuid})',
            unit='s',
            steps=(('green', None), ('orange', 60)),
        ),
        panels.stat(
            'Age of the instance',
            'Since Nova wrote the metadata: at the creation, and when a port came or went.',
            'time() - min(oie_instance_created_timestamp_seconds{@uuid})',
            unit='s',
        ),
        panels.table(
            'What it is',
            'What Nova says of it.',
            {
                'instance': 'Host',
                'domain': 'Domain',
                'name': 'Name',
                'project_name': 'Project',
                'user_name': 'User',
                'flavor': 'Flavor',
                'root_type': 'Root disk',
                'nova_version': 'Nova',
                'Value': 'Hosts',
            },
            panels.Query(
                'count by (instance, domain, name, project_name, user_name, flavor, root_type,'
                ' nova_version) (oie_instance_openstack_info{@uuid})'
            ),
            width=16,
            height=4,
        ),
        panels.table(
            'Operating system',
            'What runs in the guest, and who told. Needs [guest_os] enabled.',
            {
                'os_product_name': 'System',
                'os_version': 'Version',
                'os_source': 'Told by',
                'Value': 'Guests',
            },
            panels.Query(
                'count by (os_product_name, os_version, os_source) (oie_instance_os_info{@uuid})'
            ),
            width=8,
            height=4,
        ),
    ),
)
CPU = panels.Row(
    'CPU',
    (
        panels.graph(
            'Cores',
            'CPU seconds per second: of the whole instance, of its vCPUs alone, and the vCPUs '
            'that '
            'it has. The rest are the emulator and its I/O threads.',
            panels.Query('sum(rate(oie_instance_cpu_seconds_total{@uuid}[@rate]))', 'instance'),
            panels.Query('sum(rate(oie_instance_vcpu_seconds_total{@uuid}[@rate]))', 'vCPUs busy'),
            panels.Query('max(oie_instance_vcpus{@uuid})', 'vCPUs'),
            minimum=0,
        ),
        panels.graph(
            'Steal',
            'Share of the time in which a vCPU could have run, but the host was busy with others.',
            panels.Query(
                'sum(rate(oie_instance_cpu_steal_seconds_total{@uuid}[@rate]))'
                ' / max(oie_instance_vcpus{@uuid})',
                'steal',
            ),
            unit='percentunit',
            steps=(('green', None), ('red', 0.1)),
            minimum=0,
        ),
        panels.graph(
            'By vCPU',
            'CPU seconds per second of each vCPU. ' + common.optional('vcpus'),
            panels.Query(
                'sum by (vcpu) (rate(oie_instance_vcpu_seconds_total{@uuid,vcpu!=""}[@rate]))',
                'vCPU {{vcpu}}',
            ),
            minimum=0,
        ),
        panels.graph(
            'User and system',
            'CPU seconds per second that the host spent in each mode. '
            + common.optional('cpu_split'),
            panels.Query('sum(rate(oie_instance_cpu_user_seconds_total{@uuid}[@rate]))', 'user'),
            panels.Query(
                'sum(rate(oie_instance_cpu_system_seconds_total{@uuid}[@rate]))', 'system'
            ),
            is_stacked=True,
            minimum=0,
        ),
        panels.graph(
            'Limit',
            'Cores that the CPU quota allows, beside those that are used. '
            + common.optional('limits'),
            panels.Query('max(oie_instance_cpu_limit_cores{@uuid})', 'limit'),
            panels.Query('sum(rate(oie_instance_cpu_seconds_total{@uuid}[@rate]))', 'used'),
            minimum=0,
        ),
        panels.graph(
            'Instructions per cycle',
            'How well the guest uses the processor. Needs perf events in the domain and a '
            'processor '
            'that counts them.',
            panels.Query(
                'sum(rate(oie_instance_perf_instructions_total{@uuid}[@rate]))'
                ' / (sum(rate(oie_instance_perf_cpu_cycles_total{@uuid}[@rate])) > 0)',
                'instructions per cycle',
            ),
            minimum=0,
        ),
    ),
)
MEMORY = panels.Row(
    'Memory',
    (
        panels.graph(
            'On the host',
            'What QEMU occupies, what the guest may use, and what it could have.',
            panels.Query('sum(oie_instance_memory_rss_bytes{@uuid})', 'resident'),
            panels.Query('max(oie_instance_memory_balloon_bytes{@uuid})', 'balloon'),
            panels.Query('max(oie_instance_memory_maximum_bytes{@uuid})', 'maximum'),
            unit='bytes',
            minimum=0,
        ),
        panels.graph(
            'In the guest',
            'What its balloon driver reports. Usable counts caches that the guest could drop.',
            panels.Query('max(oie_instance_memory_guest_available_bytes{@uuid})', 'available'),
            panels.Query('max(oie_instance_memory_guest_used_bytes{@uuid})', 'used'),
            panels.Query('max(oie_instance_memory_guest_usable_bytes{@uuid})', 'usable'),
            unit='bytes',
            minimum=0,
        ),
        panels.graph(
            'Swapping and faults',
            'Bytes per second to and from the swap of the guest, and pages that it had to fetch '
            'from a disk.',
            panels.Query(
                'sum(rate(oie_instance_memory_swap_in_bytes_total{@uuid}[@rate]))',
                'swapped in, B/s',
            ),
            panels.Query(
                'sum(rate(oie_instance_memory_swap_out_bytes_total{@uuid}[@rate]))',
                'swapped out, B/s',
            ),
            panels.Query(
                'sum(rate(oie_instance_memory_major_faults_total{@uuid}[@rate]))', 'major faults'
            ),
            minimum=0,
        ),
    ),
)
DISKS = panels.Row(
    'Disks',
    (
        panels.graph(
            'Traffic',
            'Bytes per second.',
            panels.Query(
                'sum by (disk_path) (rate(oie_instance_disk_read_bytes_total{@uuid}[@rate]))',
                '{{disk_path}} read',
            ),
            panels.Query(
                'sum by (disk_path) (rate(oie_instance_disk_write_bytes_total{@uuid}[@rate]))',
                '{{disk_path}} written',
            ),
            unit='Bps',
            minimum=0,
        ),
        panels.graph(
            'Requests',
            'Requests per second, beside the thresholds of the tier.',
            panels.Query(
                'sum by (disk_path) (rate(oie_disk_r_requests{@uuid}[@rate]))',
                '{{disk_path}} reads',
            ),
            panels.Query(
                'sum by (disk_path) (rate(oie_disk_w_requests{@uuid}[@rate]))',
                '{{disk_path}} writes',
            ),
            panels.Query(
                'max by (disk_path) (oie_disk_r_alert_threshold{@uuid})',
                '{{disk_path}} read threshold',
            ),
            panels.Query(
                'max by (disk_path) (oie_disk_w_alert_threshold{@uuid})',
                '{{disk_path}} write threshold',
            ),
            unit='iops',
            minimum=0,
        ),
        panels.graph(
            'Latency',
            'Mean time of one request.',
            panels.Query(
                'sum by (disk_path) (rate(oie_instance_disk_read_seconds_total{@uuid}[@rate]))'
                ' / (sum by (disk_path) (rate(oie_disk_r_requests{@uuid}[@rate])) > 0)',
                '{{disk_path}} read',
            ),
            panels.Query(
                'sum by (disk_path) (rate(oie_instance_disk_write_seconds_total{@uuid}[@rate]))'
                ' / (sum by (disk_path) (rate(oie_disk_w_requests{@uuid}[@rate])) > 0)',
                '{{disk_path}} write',
            ),
            panels.Query(
                'sum by (disk_path) (rate(oie_instance_disk_flush_seconds_total{@uuid}[@rate]))'
                ' / (sum by (disk_path)'
                ' (rate(oie_instance_disk_flush_requests_total{@uuid}[@rate])) > 0)',
                '{{disk_path}} flush',
            ),
            unit='s',
            steps=(('green', None), ('red', 0.05)),
            minimum=0,
        ),
        panels.graph(
            'Space',
            'Size of each disk, and the highest place that was ever written.',
            panels.Query(
                'max by (disk_path) (oie_instance_disk_capacity_bytes{@uuid})',
                '{{disk_path}} size',
            ),
            panels.Query(
                'max by (disk_path) (oie_instance_disk_allocation_bytes{@uuid})',
                '{{disk_path}} allocated',
            ),
            unit='bytes',
            minimum=0,
        ),
        panels.graph(
            'Throttles',
            'What the flavor or the volume type allows. ' + common.optional('limits'),
            panels.Query(
                'max by (disk_path, op) (oie_instance_disk_limit_bytes_per_second{@uuid})',
                '{{disk_path}} {{op}} B/s',
            ),
            panels.Query(
                'max by (disk_path, op) (oie_instance_disk_limit_iops{@uuid})',
                '{{disk_path}} {{op}} IOPS',
            ),
            minimum=0,
        ),
        panels.graph(
            'Latency, 99th percentile',
            'Nearly all requests were faster. ' + common.optional('disk_latency'),
            panels.Query(
                'histogram_quantile(0.99, sum by (disk_path, op, le)'
                ' (rate(oie_instance_disk_latency_seconds_bucket{@uuid}[@rate])))',
                '{{disk_path}} {{op}}',
            ),
            unit='s',
            minimum=0,
        ),
    ),
)
NETWORK = panels.Row(
    'Network',
    (
        panels.graph(
            'Traffic',
            'Bytes per second that the guest received and sent.',
            panels.Query(
                'sum by (interface) '
                '(rate(oie_instance_interface_receive_bytes_total{@uuid}[@rate]))',
                '{{interface}} received',
            ),
            panels.Query(
                'sum by (interface) '
                '(rate(oie_instance_interface_transmit_bytes_total{@uuid}[@rate]))',
                '{{interface}} sent',
            ),
            unit='Bps',
            minimum=0,
        ),
        panels.graph(
            'Packets',
            'Packets per second.',
            panels.Query(
                'sum by (interface) (rate(oie_net_rx_pkt_total{@uuid}[@rate]))',
                '{{interface}} received',
            ),
            panels.Query(
                'sum by (interface) (rate(oie_net_tx_pkt_total{@uuid}[@rate]))',
                '{{interface}} sent',
            ),
            unit='pps',
            minimum=0,
        ),
        panels.graph(
            'Drops and errors',
            'Packets per second that did not arrive or leave.',
            panels.Query(
                'sum by (interface) (rate(oie_net_rx_drp_total{@uuid}[@rate]))',
                '{{interface}} received, dropped',
            ),
            panels.Query(
                'sum by (interface) (rate(oie_net_tx_drp_total{@uuid}[@rate]))',
                '{{interface}} sent, dropped',
            ),
            panels.Query(
                'sum by (interface) (rate(oie_net_rx_er_total{@uuid}[@rate]))',
                '{{interface}} receive errors',
            ),
            panels.Query(
                'sum by (interface) (rate(oie_net_tx_er_total{@uuid}[@rate]))',
                '{{interface}} send errors',
            ),
            unit='pps',
            minimum=0,
        ),
        panels.graph(
            'SR-IOV ports',
            'Bytes per second over ports that the guest has for itself. Needs a network card that '
            'counts them. ' + common.optional('vf_counters'),
            panels.Query(
                'sum by (interface) '
                '(rate(oie_instance_interface_vf_receive_bytes_total{@uuid}[@rate]))',
                '{{interface}} received',
            ),
            panels.Query(
                'sum by (interface) '
                '(rate(oie_instance_interface_vf_transmit_bytes_total{@uuid}[@rate]))',
                '{{interface}} sent',
            ),
            unit='Bps',
            minimum=0,
        ),
        panels.graph(
            'Connections',
            'Connections of each fixed IP, and entries of the connection tracking table. Shown '
            'while the address is active. Needs [conntrack] enabled and [outbound] enabled; '
            'inbound ones need [outbound] inbound.',
            panels.Query('max by (ip) (oie_outbound_flows{@uuid})', '{{ip}} outbound'),
            panels.Query('max by (ip) (oie_inbound_flows{@uuid})', '{{ip}} inbound'),
            panels.Query('max by (ip) (oie_conntrack_ip_flows_total{@uuid})', '{{ip}} entries'),
            minimum=0,
        ),
        panels.graph(
            'Reachable',
            'Whether each fixed IP answers an echo from within its network. '
            + common.optional('reachability'),
            panels.Query('min by (ip) (oie_instance_reachable{@uuid})', '{{ip}}'),
            unit='bool_yes_no',
            minimum=0,
            maximum=1,
        ),
    ),
)
JOBS = panels.Row(
    'Jobs and migration',
    (
        panels.graph(
            'Left to transfer',
            'Memory and disk that the running job has not transferred yet.',
            panels.Query(
                'max by (instance) (oie_instance_job_memory_remaining_bytes{@uuid})',
                '{{instance}} memory',
            ),
            panels.Query(
                'max by (instance) (oie_instance_job_disk_remaining_bytes{@uuid})',
                '{{instance}} disk',
            ),
            unit='bytes',
            minimum=0,
        ),
        panels.graph(
            'Transfer against change',
            'A migration ends only if memory goes over faster than the guest changes it.',
            panels.Query(
                'max by (instance) (oie_instance_job_memory_bandwidth_bytes_per_second{@uuid})',
                '{{instance}} transferred',
            ),
            panels.Query(
                'max by (instance) (oie_instance_job_dirty_bytes_per_second{@uuid})',
                '{{instance}} changed',
            ),
            unit='Bps',
            minimum=0,
        ),
        panels.stat(
            'Last job succeeded',
            'Whether the last job that ended did so well.',
            'min(oie_instance_last_job_success{@uuid})',
            words=panels.YES,
            steps=panels.ONE_IS_GOOD,
            width=4,
        ),
        panels.stat(
            'Stood still for',
            'How long the last job kept the guest stopped.',
            'max(oie_instance_last_job_downtime_seconds{@uuid})',
            unit='s',
            steps=(('green', None), ('orange', 1), ('red', 10)),
            width=4,
        ),
        panels.graph(
            'Block jobs',
            'How far copies and commits of disks are. ' + common.optional('block_jobs'),
            panels.Query(
                'max by (disk_path, type) (oie_instance_blockjob_progress_ratio{@uuid})',
                '{{disk_path}} {{type}}',
            ),
            unit='percentunit',
            minimum=0,
            maximum=1,
        ),
        panels.graph(
            'Life cycle',
            'What happened to the instance, events in each window. '
            + common.optional('lifecycle_events'),
            panels.Query(
                'sum by (event, detail) '
                '(increase(oie_instance_lifecycle_events_total{@uuid}[@rate]))',
                '{{event}}: {{detail}}',
            ),
            minimum=0,
        ),
    ),
)
USED = panels.Row(
    'Used in the time shown',
    (
        panels.stat(
            'vCPU hours',
            'vCPUs times the hours in which the instance was seen to exist.',
            'sum(increase(oie_instance_usage_vcpu_seconds_total{@uuid}[@range])) / 3600',
            unit='h',
            width=4,
        ),
        panels.stat(
            'CPU time',
            'Over all of its lives on these hosts.',
            'sum(increase(oie_instance_usage_cpu_seconds_total{@uuid}[@range]))',
            unit='s',
            width=4,
        ),
        panels.stat(
            'Read',
            'From all disks that it ever had.',
            'sum(increase(oie_instance_usage_disk_read_bytes_total{@uuid}[@range]))',
            unit='bytes',
            width=4,
        ),
        panels.stat(
            'Written',
            'To all disks that it ever had.',
            'sum(increase(oie_instance_usage_disk_write_bytes_total{@uuid}[@range]))',
            unit='bytes',
            width=4,
        ),
        panels.stat(
            'Received',
            'Over all interfaces that it ever had.',
            'sum(increase(oie_instance_usage_network_receive_bytes_total{@uuid}[@range]))',
            unit='bytes',
            width=4,
        ),
        panels.stat(
            'Sent',
            'Over all interfaces that it ever had.',
            'sum(increase(oie_instance_usage_network_transmit_bytes_total{@uuid}[@range]))',
            unit='bytes',
            width=4,
        ),
    ),
)

DASHBOARD = panels.Dashboard(
    uid='oie-instance',
    title='OpenStack instance',
    description='One instance: CPU, memory, disks, network, jobs, and how old all that is.',
    variables=(common.HOSTS, common.PROJECTS, common.INSTANCE),
    rows=(NOW, CPU, MEMORY, DISKS, NETWORK, JOBS, USED),
)
