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

"""The options of threat lists that belong to no single list."""

from oslo_config import cfg

from oie.config import option_types

THREATS = cfg.OptGroup(
    'threats',
    title='Threat lists',
    help='Published lists of addresses and who is in touch with them.',
)
THREATS_OPTS = (
    cfg.Opt(
        'enabled_feeds',
        type=option_types.ListNames(),
        default='',
        help='Lists to use, with commas between them, such as tor_exit,spamhaus. Each has its '
        'own group [feed_NAME]; a list of your own is any other name whose group says driver. '
        'Without any, nothing is fetched.',
    ),
    cfg.Opt(
        'contacts_direction',
        type=option_types.Direction(),
        default='out',
        help='Which contacts count where a list does not say otherwise: out (the instance '
        'addressed a listed address), in (a listed address addressed the instance) or any.',
    ),
    cfg.BoolOpt(
        'export_zero_contacts',
        default=False,
        help='Publish oie_NAME_contact with 0 for each instance as soon as the list is there, '
        'so that increase() sees the first contact too. Costs a series per instance and list.',
    ),
    cfg.Opt(
        'own_networks',
        type=option_types.Networks(),
        default='',
        help='Networks of this cloud and of what it relies on (provider networks, floating IPs, '
        'API, DNS and NTP servers), with commas between them. They are taken out of every list, '
        'like private and reserved networks.',
    ),
    cfg.BoolOpt(
        'allow_plain_http',
        default=False,
        help='Whether a list may be fetched without TLS. Anybody on the way can change it then.',
    ),
    cfg.BoolOpt(
        'allow_private_targets',
        default=False,
        help='Whether a list may come from a private, link-local or loopback address: set it '
        'for a mirror inside of your network.',
    ),
    cfg.BoolOpt(
        'allow_file_urls',
        default=False,
        help='Whether the URL of a list may begin with file://.',
    ),
    cfg.Opt(
        'cache_dir',
        type=option_types.FilePath(),
        default='/var/lib/oie/feeds',
        help='Directory for the last good lists and the times of the last fetches; with it the '
        'lists work at once after a restart, without a network. Empty: nothing is kept.',
    ),
)

HOST_THREATS = cfg.OptGroup(
    'host_threats',
    title='Addresses of this host',
    help='Whether addresses of this host itself stand on a list.',
)
HOST_THREATS_OPTS = (
    cfg.BoolOpt(
        'enabled',
        default=False,
        help='Whether the addresses of this host are looked up in every cycle.',
    ),
    cfg.Opt(
        'interfaces',
        type=option_types.Names(),
        default='',
        help='Interfaces whose addresses are looked up, with commas between them. Empty: '
        'bgp-nic. Interfaces that are administratively down do not count.',
    ),
    cfg.BoolOpt(
        'allow_private',
        default=False,
        help='Whether addresses that are not routed globally (RFC 1918 and all others of the '
        'special-purpose registries of IANA) are looked up too.',
    ),
)
