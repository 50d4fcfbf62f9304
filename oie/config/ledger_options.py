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

"""The options of the ledger."""

from oslo_config import cfg

from oie.config import option_types

DAY = 86400

LEDGER = cfg.OptGroup(
    'ledger',
    title='Totals for billing',
    help='What each instance has used since it was first seen on this host, kept over restarts '
    'of guests, of this host and of oie-exporter.',
)
LEDGER_OPTS = (
    cfg.BoolOpt(
        'enabled',
        default=True,
        help='Whether oie-exporter keeps the totals: oie_instance_usage_* and the list usage of '
        'oie-pollster. It costs one small write per cycle, on a thread of its own.',
    ),
    cfg.Opt(
        'path',
        type=option_types.FilePath(),
        default='/var/lib/oie/ledger.sqlite',
        help='File of the totals, which must lie on a local disk that survives a restart of the '
        'host; beside it there are files with the same name and -wal, -shm and .lock. Two '
        'exporters never share one. Empty: the totals begin anew with each start.',
    ),
    cfg.Opt(
        'keep',
        type=option_types.Duration(minimum=DAY),
        default='400d',
        help='How long an instance that left this host is remembered. When it comes back later '
        'than that its totals begin anew. Each costs about a kilobyte on disk and in memory.',
    ),
)
