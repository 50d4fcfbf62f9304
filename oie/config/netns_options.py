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


"""The options of everything that is read of, and told of, network namespaces."""

from oslo_config import cfg

from oie.config import option_types

# What is read of each namespace besides its devices, which are always read.
PARTS = {
    'addresses': 'addresses of the devices',
    'conntrack': 'entries of the connection tracking table, and how many there may be; it needs '
    'CAP_NET_ADMIN besides',
    'snmp': 'counters of IPv4, ICMP, TCP and UDP',
    'snmp6': 'counters of IPv6, ICMPv6 and UDP over IPv6',
    'sockstat': 'sockets in use',
}
# What a node that forwards for others wants to know, and the kernel counts for every device.
INTERFACE_METRICS = tuple(
    f'{side}_{what}' for side in ('rx', 'tx') for what in ('bytes', 'packets', 'errors', 'dropped')
)

NETNS = cfg.OptGroup(
    'netns',
    title='Network namespaces',
    help='What the network namespaces of this host receive and send: routers and DHCP servers of '
    'Neutron on a network node. Reading enters each of them for some hundred microseconds and '
    'holds none.',
)
NETNS_OPTS = (
    cfg.BoolOpt(
        'enabled',
        default=False,
        help='Whether network namespaces are read. It needs CAP_SYS_ADMIN, see mode; add it to '
        'both lines of the unit. Switch it on where Neutron\'s L3 or DHCP agents run; a thousand '
        'namespaces cost each cycle 0.2 seconds.',
    ),
    cfg.StrOpt(
        'mode',
        default='setns',
        choices=[
            ('setns', 'Enter each namespace and read there. It needs CAP_SYS_ADMIN.'),
            (
                'nsid',
                'Ask for devices and addresses from outside. It needs CAP_NET_ADMIN alone, and '
                'sees only namespaces that have an id in ours (ip netns list-id).',
            ),
        ],
        help='How a namespace is read.',
    ),
    cfg.BoolOpt(
        'assign_nsid',
        default=False,
        help='Whether namespaces without an id get one, in the mode nsid. Whoever listens to '
        'all namespaces, such as ovs-vswitchd, hears of theirs from then on, and the id stays '
        'until the namespace goes.',
    ),
    cfg.Opt(
        'directory',
        type=option_types.FilePath(may_be_empty=False),
        default='/run/netns',
        help='Where the files are that stand for namespaces. A container needs that of the host, '
        'with the propagation of mounts from the host (rslave).',
    ),
    cfg.Opt(
        'parts',
        type=option_types.Names(PARTS),
        default='addresses,conntrack,snmp,sockstat',
        help='What is read of each namespace besides its devices, with commas between them. In '
        'the mode nsid only addresses can be.',
    ),
    cfg.Opt(
        'namespaces_blacklist',
        type=option_types.Pattern(),
        default='',
        help='Regular expression; a namespace in whose name it is found is left out. Empty: none '
        'is.',
    ),
    cfg.Opt(
        'namespaces_whitelist',
        type=option_types.Pattern(),
        default='',
        help='Regular expression; a namespace in whose name it is not found is left out, such as '
        '^(qrouter|snat)-. What the blacklist names is out all the same. Empty: none is.',
    ),
    cfg.Opt(
        'device_blacklist',
        type=option_types.Pattern(),
        default='',
        help='Regular expression; a device in whose name it is found is left out. Empty: only lo '
        'is, which always is.',
    ),
    cfg.Opt(
        'device_whitelist',
        type=option_types.Pattern(),
        default='',
        help='Regular expression; a device in whose name it is not found is left out, such as '
        '^(qg|qr)-. What the blacklist names is out all the same. Empty: none is.',
    ),
    cfg.Opt(
        'interface_metrics',
        type=option_types.LinkCounters(),
        default=','.join(INTERFACE_METRICS),
        help='Counters of a device that get series, by the names of the files in '
        '/sys/class/net/DEVICE/statistics, with commas between them. Each is a series per device.',
    ),
    cfg.Opt(
        'proc_metrics',
        type=option_types.ProcFiles(),
        default='',
        help='Further files below /proc that hold one number, each by the name that its metric '
        'gets, such as nat_conntrack:sys/net/netfilter/nf_conntrack_count. Files below sys/net '
        'take 40 microseconds each where there are a thousand namespaces.',
    ),
    cfg.Opt(
        'netns_exporter_config',
        type=option_types.FilePath(),
        default='',
        help='YAML file of netns-exporter. What it says of namespaces_filter, device_filter, '
        'interface_metrics and proc_metrics replaces the options of the same meaning here; '
        'the rest of it is not used, and the log says so once. Empty: none.',
    ),
    cfg.StrOpt(
        'compat',
        default='saeed-mcu',
        choices=[
            ('velp', 'As velp/netns-exporter: labels netns and device.'),
            (
                'saeed-mcu',
                'As saeed-mcu/netns-exporter: also router, host, hostname and deviceIP, and the '
                'series netns_network_up and netns_network_namespace.',
            ),
        ],
        help='Whose labels and series the metric set netns has.',
    ),
    cfg.Opt(
        'interval',
        type=option_types.Duration(minimum=0, maximum=3600),
        default='0s',
        help='Shortest time from the start of one reading to the start of the next. 0: every '
        'cycle reads.',
    ),
    cfg.Opt(
        'timeout',
        type=option_types.Duration(minimum=0.01, maximum=60),
        default='2s',
        help='How long a cycle waits for a reading. One that takes longer goes on; its figures '
        'are shown by the cycle after it, and until then the last ones are.',
    ),
    cfg.Opt(
        'deadline',
        type=option_types.Duration(minimum=0.1, maximum=600),
        default='30s',
        help='After this time a reading ends. Namespaces that were not reached are counted as '
        'skipped.',
    ),
)
