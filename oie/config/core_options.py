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

"""The options that belong to the program itself, not to one plugin, by group."""

from oslo_config import cfg

from oie.config import gate_options
from oie.config import ledger_options
from oie.config import netns_options
from oie.config import option_types
from oie.config import threat_options
from oie.config import usage_options

# Paths of the endpoint that the metrics may not take.
RESERVED_PATHS = ('/', '/healthz', '/readyz', '/debug/log-level')

DEFAULT_OPTS = (
    cfg.StrOpt(
        'host',
        default='',
        sample_default='<name of this host>',
        help='Name by which OpenStack knows this host, as [DEFAULT] host of Nova and Ceilometer. '
        'Empty: the name that the system has.',
    ),
    cfg.StrOpt(
        'oie_log_level',
        default='error',
        choices=[
            ('error', 'Only what somebody must act on.'),
            ('notice', 'Also warnings (the service is degraded) and remarkable events.'),
            ('info', 'Also the life cycle: start, connections, stop.'),
            ('debug', 'Also every cycle.'),
        ],
        help='How much oie itself writes to its log. The libraries it uses write only their '
        'warnings and errors, whatever the level. Choose notice to hear of degraded sources '
        'before somebody must act; debug writes several lines in every cycle. The option debug '
        'of oslo.log, when true, stands above this one.',
    ),
)

EXPORTER = cfg.OptGroup(
    'exporter', title='Endpoint', help='Where and how the metrics are handed out.'
)
EXPORTER_OPTS = (
    cfg.MultiOpt(
        'listen_address',
        item_type=option_types.ListenAddress(),
        default=['127.0.0.1:9120'],
        help='Address and TCP port of the endpoint, ports 1 to 65535. Repeat the line to listen '
        'on several. The metrics name tenants and their addresses, so choose an address of the '
        'management network: 0.0.0.0:9120 listens on all IPv4 addresses, [::]:9120 on all IPv6 '
        'addresses.',
    ),
    cfg.Opt(
        'telemetry_path',
        type=option_types.HttpPath(reserved=RESERVED_PATHS),
        default='/metrics',
        help='Path at which Prometheus finds the metrics. Change it only together with '
        f'metrics_path of the scrape job. Taken are {", ".join(RESERVED_PATHS)}.',
    ),
    cfg.Opt(
        'web_config_file',
        type=option_types.FilePath(),
        default='',
        help='File with TLS, client certificates, passwords, headers and a rate limit for all '
        'addresses of listen_address, in the format of web.config.file of the exporters of '
        'Prometheus; the same file works for both. It and the certificates are read again when '
        'they change, within a second; a file that turns bad changes nothing and sets '
        'oie_exporter_web_config_ok to 0. A TLS handshake costs about a millisecond, a password '
        'a tenth of a second once. Name a file wherever listen_address is reachable from other '
        'hosts. Relative paths in it begin at its own directory. Empty: no TLS and no '
        'authentication.',
    ),
    cfg.Opt(
        'metric_sets',
        type=option_types.Names(
            {
                'oie': 'the series whose names begin with oie',
                'libvirt_nova': 'the four libvirt_nova_instance series of the older exporter',
                'netns': 'the netns_network series of netns-exporter, where [netns] is enabled',
            },
            may_be_empty=False,
        ),
        default='oie',
        help='Families of series to publish, with commas between them. Add libvirt_nova while '
        'dashboards still ask for the names of the older exporter; it costs four series per '
        'instance. Add netns while they ask for those of netns-exporter.',
    ),
    cfg.Opt(
        'socket_path',
        type=option_types.SocketPath(),
        default='/run/oie/oie.sock',
        help='Unix socket over which oie-pollster asks a running exporter, at most 107 bytes '
        'long. Without it every poll asks libvirt anew and needs the rights to do so. Empty: no '
        'such socket.',
    ),
    cfg.StrOpt(
        'socket_group',
        default='',
        help='Group that may use the socket, by name or number: the group that Ceilometer runs '
        'with. Empty: the group of the exporter itself.',
    ),
    cfg.Opt(
        'documentation_url',
        type=option_types.FeedUrl(),
        default='',
        help='Address of your copy of the documentation, such as https://docs.example.org/oie. '
        'The status page of the endpoint then leads to it. Empty: no such link.',
    ),
)

# Groups of series that are off by default; each says what it costs.
OPTIONAL = {
    'address_info': 'fixed IPs and ports of each instance; a series for each address',
    'auto_converge': 'throttling of a guest by a running migration',
    'backing_depth': 'number of backing images of each disk; the bulk call gets longer',
    'block_jobs': 'progress of copies and commits; one call for each disk in every cycle',
    'cache_occupancy': 'last level cache by cache monitor (resctrl)',
    'cpu_split': 'CPU time in user and kernel mode; CPU_TOTAL asks each QEMU once more',
    'disk_caches': 'memory the guest uses as disk cache',
    'disk_latency': 'latency histograms of each disk (libvirt 12.1 and later)',
    'disk_physical': 'size of each image on the storage of the host',
    'extra_specs': 'extra specs of the flavor, chosen by [collector_instance] extra_specs',
    'halt_poll': 'time KVM polls before it halts a vCPU; CPU_TOTAL asks each QEMU once more',
    'host_devices': 'PCI and mediated devices of each instance',
    'hugetlb': 'huge pages that the guest allocated',
    'lifecycle_events': 'starts, stops, crashes and migrations of each instance',
    'limits': 'CPU quota and disk throttles, as far as there are any',
    'memory_bandwidth': 'memory traffic by bandwidth monitor (resctrl)',
    'reachability': 'whether each fixed IP answers an echo request from within its network; asked '
    'in the background, see [reachability], with rights of its own',
    'storage_pools': 'size of each storage pool that libvirt manages; two calls in every cycle',
    'vcpu_wait': 'time the vCPUs wait for I/O, where kernel.sched_schedstats is on',
    'vcpus': 'a series for each vCPU in place of their sum, with state and halted',
    'vf_counters': 'traffic of SR-IOV ports; the kernel asks the driver of each physical function '
    'for all of its virtual functions in every cycle',
    'write_threshold': 'offsets that raise libvirt\'s block-threshold event',
}

COLLECTOR = cfg.OptGroup(
    'collector', title='Collection', help='What is collected, how often, and how long it is kept.'
)
COLLECTOR_OPTS = (
    cfg.Opt(
        'enabled',
        type=option_types.PluginNames('oie.collectors'),
        default='',
        help='Collectors to run, with commas between them. Empty: all that are installed. A '
        'shorter list saves the reading of what only the others need.',
    ),
    cfg.Opt(
        'optional',
        type=option_types.Names(OPTIONAL, may_be_empty=True),
        default='',
        help='Groups of series to publish beyond the usual ones, with commas between them.',
    ),
    cfg.Opt(
        'interval',
        type=option_types.Duration(minimum=1, maximum=3600),
        default='10s',
        help='Time from the start of one collection to the start of the next. Scrapes never '
        'wait for a collection: they get the last one. Take the scrape interval of Prometheus '
        'or less; a cycle costs about as much as one bulk call to libvirt.',
    ),
    cfg.Opt(
        'static_cache_expiration',
        type=option_types.Duration(minimum=1),
        default='1h',
        help='How long the definition of an instance (its XML and Nova metadata) is trusted '
        'when libvirt reports no change. Changes that libvirt reports count at once. A shorter '
        'time costs one call per instance and period.',
    ),
    cfg.Opt(
        'dynamic_cache_expiration',
        type=option_types.Duration(minimum=1),
        default='10s',
        help='How long the last good values of an instance stay published after they could not '
        'be read anew. They are marked as stale meanwhile; after this time their series end. '
        'Raise it when short hangs of a guest should leave no gap in its series.',
    ),
    cfg.FloatOpt(
        'cpu_min',
        default=10.0,
        min=0,
        help='CPU use from which an instance gets the series oie_cpu_percent; 100 percent are all '
        'of its vCPUs. A lower number gives more series; 0 gives one to every instance.',
    ),
    cfg.StrOpt(
        'without_nova_metadata',
        default='keep',
        choices=[
            ('keep', 'Count them, with empty project and user.'),
            ('skip', 'Leave them out of everything.'),
        ],
        help='What to do with domains that carry no Nova metadata: guests that somebody started '
        'beside Nova, or that a very old Nova defined.',
    ),
)

DISK = cfg.OptGroup(
    'disk',
    title='Disks',
    help='Thresholds in I/O operations per second (IOPS). They are published next to the '
    'measured values, so that one alert serves all tiers; nothing is limited by them.',
)
DISK_OPTS = (
    cfg.IntOpt(
        'default_read_threshold',
        default=100,
        min=0,
        help='Read threshold, in IOPS, of the disks for which read_thresholds has no entry.',
    ),
    cfg.IntOpt(
        'default_write_threshold',
        default=100,
        min=0,
        help='Write threshold, in IOPS, of the disks for which write_thresholds has no entry.',
    ),
    cfg.Opt(
        'read_thresholds',
        type=option_types.Thresholds(),
        default='',
        help='Read thresholds in IOPS by tier, for example local:400,ceph_premium:3000. The '
        'tier of a file is local, that of an RBD image the name of its pool, any other one is '
        'unknown. An entry named default stands above default_read_threshold.',
    ),
    cfg.Opt(
        'write_thresholds',
        type=option_types.Thresholds(),
        default='',
        help='Write thresholds in IOPS by tier, in the form of read_thresholds. An entry named '
        'default stands above default_write_threshold.',
    ),
)

# None is the group [DEFAULT], as oslo.config has it.
OPTS: tuple[tuple[cfg.OptGroup | None, tuple[cfg.Opt, ...]], ...] = (
    (None, DEFAULT_OPTS),
    (COLLECTOR, COLLECTOR_OPTS),
    (DISK, DISK_OPTS),
    (EXPORTER, EXPORTER_OPTS),
    (gate_options.GATE, gate_options.GATE_OPTS),
    (ledger_options.LEDGER, ledger_options.LEDGER_OPTS),
    (netns_options.NETNS, netns_options.NETNS_OPTS),
    (threat_options.THREATS, threat_options.THREATS_OPTS),
    (threat_options.HOST_THREATS, threat_options.HOST_THREATS_OPTS),
    (usage_options.USAGE, usage_options.USAGE_OPTS),
)
