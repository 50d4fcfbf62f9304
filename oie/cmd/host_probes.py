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

"""Whether fixed IPs can be probed, for ``oie-status host check``."""

from oslo_config import cfg

from oie import exceptions
from oie.cmd import check_table
from oie.cmd import wiring

NAME = 'Reachability'
ADVICE = (
    'Give the service CAP_NET_RAW and CAP_SYS_ADMIN (AmbientCapabilities of its unit), or take '
    'reachability out of [collector] optional.'
)
Row = check_table.Row


def rows(conf: cfg.ConfigOpts) -> tuple[Row, ...]:
    """Return a row if probes are wanted; none is sent."""
    source = wiring.probes(conf)
    if source is None:
        return ()
    try:
        count = source.check()
    except exceptions.SourceError as exc:
        return (Row(NAME, check_table.Result.WARNING, str(exc), ADVICE),)
    return (_found(count, ', '.join(conf.reachability.namespaces)),)


def _found(count: int, patterns: str) -> Row:
    if count:
        detail = f'{count} network namespaces match {patterns}; probes can be sent there'
        return Row(NAME, check_table.Result.OK, detail)
    detail = f'no network namespace matches {patterns}, so nothing is probed'
    advice = (
        'Set [reachability] namespaces to those in which your Neutron serves metadata or DHCP. '
        'A container needs /run/netns of the host.'
    )
    return Row(NAME, check_table.Result.WARNING, detail, advice)
