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

"""Whether the connection tracking table can be read, for ``oie-status host check``."""

from oslo_config import cfg

from oie.cmd import check_table
from oie.cmd import wiring

NAME = 'Connection tracking'
ADVICE = (
    'Give the service CAP_NET_ADMIN (AmbientCapabilities of its unit), or set '
    '[conntrack] enabled = false.'
)
Row = check_table.Row


def table(conf: cfg.ConfigOpts) -> Row:
    """Return the row for the table; it is read once, which writes nothing."""
    reader = wiring.flow_reader(conf)
    if reader is None:
        return Row(NAME, check_table.Result.INFO, 'off by [conntrack] enabled')
    fields = reader.read((), 0.0, frozenset())
    reading, health = fields['flows'], fields['flow_health']
    reader.close()
    if reading.value is None:
        return Row(NAME, check_table.Result.WARNING, reading.error, ADVICE)
    zones = 'no zones known' if health.zones is None else f'{health.zones} zones of ports'
    detail = (
        f'{reading.value.entries} entries, {health.maximum} at most, read in '
        f'{reading.seconds:.2f} s; zone map {health.zone_map or "none"}, {zones}'
    )
    return Row(NAME, check_table.Result.OK, detail)
