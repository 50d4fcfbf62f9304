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

"""The options of the gate that lets a portal fetch chosen series of a site."""

from oslo_config import cfg

from oie.config import option_types

SELECTORS = '{__name__=~"project_(vcpu|mb)_usage|oie_project_.+_hours_total",job="project_usage"}'
# With the headers it fits into 16384 bytes, the buffer of HAProxy.
MOST_LINE_BYTES = 12288

GATE = cfg.OptGroup(
    'gate',
    title='Gate for portals',
    help='What oie-usage-gate writes for the HAProxy between the Prometheus of a site and the '
    'portals that fetch from it, see etc/federation. No other program reads this.',
)
GATE_OPTS = (
    cfg.MultiOpt(
        'selectors',
        item_type=option_types.Selectors(),
        default=[SELECTORS],
        help='What a portal may ask of the Prometheus of the site: the selectors of one scrape '
        'job, exactly as the portal has them under match[], with blanks between them where there '
        'are several. Repeat the line for another job. Any other request is refused. Write $$ '
        'for a dollar sign.',
    ),
    cfg.Opt(
        'path',
        type=option_types.HttpPath(),
        default='/federate',
        help='Path of the federation at the Prometheus of the site. It differs from the default '
        'only where Prometheus has a --web.route-prefix.',
    ),
    cfg.IntOpt(
        'max_line_bytes',
        default=MOST_LINE_BYTES,
        min=1024,
        max=1048576,
        help='Longest request that generate lists, path and query in bytes. HAProxy refuses what '
        'does not fit into its buffer together with the headers: tune.bufsize, 16384 by default, '
        'must be larger by 4096. Raise both, or write several lines of selectors.',
    ),
    cfg.Opt(
        'directory',
        type=option_types.FilePath(may_be_empty=False),
        default='/etc/oie/gate',
        help='Where the gate finds allowed_uris.lst and tokens.map, by this same path: HAProxy '
        'knows a map by the path that its configuration names.',
    ),
    cfg.StrOpt(
        'group',
        default='',
        help='Group that may read tokens.map, by name or number, where HAProxy does not start as '
        'root, as in a container. Empty: nobody but its owner.',
    ),
    cfg.Opt(
        'socket_path',
        type=option_types.SocketPath(),
        default='/run/haproxy/admin.sock',
        help='Stats socket of the running HAProxy, which is told there of new and removed tokens, '
        'so that it need not be reloaded. Empty: the commands are only printed.',
    ),
)
