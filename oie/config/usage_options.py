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

"""The options of project usage, and which older names lead to them."""

from oslo_config import cfg

from oie.config import ledger_options
from oie.config import option_types

MEMORY_UNITS = [
    ('gib_floor', 'GiB-hours of whole GiB: a flavor below 1 GiB costs nothing, 1536 MiB count 1.'),
    ('gib', 'GiB-hours.'),
    ('mb', 'MiB-hours, as Nova itself sums them up.'),
]

USAGE = cfg.OptGroup(
    'usage',
    title='Project usage',
    help='What each project of a cloud has used, as Nova tells it; for one control node. The '
    'environment variables of OS_project_usage_exporter (USAGE_EXPORTER_*) stand in for options '
    'that no file sets.',
)


def _formerly(*names: str) -> list[cfg.DeprecatedOpt]:
    return [cfg.DeprecatedOpt(name, group='usage') for name in names]


USAGE_OPTS = (
    cfg.BoolOpt(
        'enabled',
        default=False,
        help='Whether the usage of all projects is read from Nova. Switch it on in one place of a '
        'cloud only: two would count everything twice. It needs the package openstacksdk and a '
        'user who may list projects and their usage.',
    ),
    cfg.StrOpt(
        'cloud',
        default='',
        help='Name of the cloud in clouds.yaml, see os-client-config. Empty: OS_CLOUD, or the '
        'variables OS_* of the environment.',
    ),
    cfg.Opt(
        'interval',
        type=option_types.Duration(minimum=1, maximum=86400),
        default='5m',
        deprecated_opts=_formerly('update_interval'),
        help='Time from one update to the next, give or take a tenth. An update costs Nova one '
        'request for each page_size instances. After a failure the next attempt comes after 30 '
        'seconds, then after twice as long each time, up to this interval.',
    ),
    cfg.Opt(
        'timeout',
        type=option_types.Duration(minimum=0.1, maximum=600),
        default='30s',
        help='How long one request may be silent. Nova takes seconds for a page of a thousand '
        'instances.',
    ),
    cfg.Opt(
        'deadline',
        type=option_types.Duration(minimum=1, maximum=86400),
        default='10m',
        help='After this time an answer of the cloud, with all of its pages, has failed, whatever '
        'it waits for. Each answer is booked by itself: the past after start_date, or after an '
        'outage, is asked for in windows of 30 days, shorter ones after a time-out. So this must '
        'be above what Nova needs for the instances that exist at one time: 200,000 in pages of '
        '1,000 that take 5 seconds each are 17 minutes.',
    ),
    cfg.IntOpt(
        'page_size',
        default=1000,
        min=1,
        max=100000,
        help='Instances that one request asks for. Nova gives [api] max_limit at most, whatever '
        'stands here.',
    ),
    cfg.Opt(
        'domains',
        type=option_types.Names(),
        default='',
        deprecated_opts=_formerly('domain'),
        help='Names of the domains whose projects are counted, with commas between them. Empty: '
        'all domains.',
    ),
    cfg.StrOpt(
        'domain_id',
        default='',
        help='Id of the only domain whose projects are counted. It stands above domains.',
    ),
    cfg.StrOpt(
        'simple_vm_project_id',
        default='',
        deprecated_opts=_formerly('simple_vm_id'),
        help='Id of a project whose instances are counted apart, by the value of the key '
        'simple_vm_tag in their metadata: a series for each value, with the value as '
        'project_name, cut at 200 bytes of UTF-8. Empty: none.',
    ),
    cfg.StrOpt(
        'simple_vm_tag',
        default='project_name',
        help='Key in the metadata of an instance that names to whom it is counted.',
    ),
    cfg.Opt(
        'start_date',
        type=option_types.Moment(),
        default=None,
        deprecated_opts=_formerly('start'),
        help='Moment from which on usage counts, such as 2026-01-01 or 2026-01-01T06:00:00+01:00; '
        'UTC where no zone is named. What is counted already stays, whatever changes here. Empty: '
        'the first start with this [usage] path.',
    ),
    cfg.Opt(
        'start_date_url',
        type=option_types.FeedUrl(),
        default='',
        deprecated_opts=_formerly('start_date_endpoint'),
        help='URL (https, http or file) of a JSON list whose first entry has a start_date. It '
        'stands above start_date; until it has answered once, nothing is counted.',
    ),
    cfg.Opt(
        'weights_url',
        type=option_types.FeedUrl(),
        default='',
        deprecated_opts=_formerly('weight_update_endpoint'),
        help='URL (https, http or file) of the weights: JSON, a list of sets with '
        'resource_set_timestamp, vcpus and memory_mb. While it does not answer, or without sets, '
        'the last good ones count; until it has answered once, nothing is counted. Empty: none.',
    ),
    cfg.Opt(
        'weights_file',
        type=option_types.FilePath(),
        default='',
        deprecated_opts=_formerly('dummy_weights'),
        help='File of the weights, TOML ([[weights]]) or JSON. It stands above weights_url.',
    ),
    cfg.IntOpt(
        'weights_every',
        default=10,
        min=1,
        deprecated_opts=_formerly('weight_update_frequency'),
        help='Updates from one reading of the weights to the next.',
    ),
    cfg.Opt(
        'vcpu_weights',
        type=option_types.WeightTable(),
        default='',
        help='Weights by the number of vCPUs where there is neither weights_file nor weights_url, '
        'such as 4:1,16:1.5: instances of up to 4 vCPUs count once, larger ones one and a half '
        'times.',
    ),
    cfg.Opt(
        'memory_weights',
        type=option_types.WeightTable(),
        default='',
        deprecated_opts=_formerly('mb_weights'),
        help='Weights by the memory in the unit of memory_unit, in the form of vcpu_weights.',
    ),
    cfg.StrOpt(
        'memory_unit',
        default='gib_floor',
        choices=MEMORY_UNITS,
        help='Unit of project_mb_usage, and of the amount by which a weight of memory is chosen. '
        'The default is what OS_project_usage_exporter shows since 2020, whatever the name says. '
        'Counters of our own are in MiB-hours always.',
    ),
    cfg.Opt(
        'path',
        type=option_types.FilePath(),
        default='/var/lib/oie/projects.sqlite',
        help='File of the totals, on a local disk that survives a restart; beside it there are '
        'files with the same name and -wal, -shm and .lock. Empty: the totals begin anew with '
        'each start.',
    ),
    cfg.Opt(
        'keep',
        type=option_types.Duration(minimum=ledger_options.DAY),
        default='400d',
        help='How long the times of an instance that is gone are kept beside the totals of its '
        'project; each costs some 150 bytes.',
    ),
    cfg.Opt(
        'keep_projects',
        type=option_types.Duration(minimum=0),
        default='30d',
        help='How long the series of a project stay after Keystone, or an instance, has named it '
        'last, and those of a value of simple_vm_tag after its last instance.',
    ),
    cfg.Opt(
        'dummy_file',
        type=option_types.FilePath(),
        default='',
        deprecated_opts=_formerly('dummy_data'),
        help='TOML file with projects and machines that are counted in place of a cloud, for '
        'trials. It is read at every update. Empty: a real cloud.',
    ),
)
