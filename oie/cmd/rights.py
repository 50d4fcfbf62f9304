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

"""Which rights this process lacks for what the options ask of it. Source: capabilities(7)."""

import dataclasses
import re

from oslo_config import cfg

_NUMBERS = {'CAP_NET_ADMIN': 12, 'CAP_NET_RAW': 13, 'CAP_SYS_ADMIN': 21}


@dataclasses.dataclass(frozen=True, slots=True)
class Lost:
    """What does not work, the capabilities that it lacks, and how to ask for it no more."""

    what: str
    lacking: tuple[str, ...]
    instead: str

    def __str__(self) -> str:
        return (
            f'{self.what} will not work: {" and ".join(self.lacking)} missing; add to '
            f'AmbientCapabilities and CapabilityBoundingSet of the unit, or {self.instead}'
        )


def lost(conf: cfg.ConfigOpts, status: str) -> list[Lost]:
    """Return what the options ask for and the rights do not allow.

    :param status: the text of ``/proc/self/status``
    """
    wanted = []
    if conf.conntrack.enabled:
        wanted.append(_for_flows(conf))
    if 'reachability' in conf.collector.optional:
        needed = ('CAP_NET_RAW', 'CAP_SYS_ADMIN')
        instead = 'take reachability out of [collector] optional'
        wanted.append(Lost('reachability', needed, instead))
    if conf.netns.enabled:
        instead = 'set [netns] enabled = false'
        wanted.append(Lost('network namespaces', _for_namespaces(conf), instead))
    held = effective(status)
    found = []
    for each in wanted:
        lacking = tuple(name for name in each.lacking if not held >> _NUMBERS[name] & 1)
        if lacking:
            found.append(dataclasses.replace(each, lacking=lacking))
    return found


def _for_flows(conf: cfg.ConfigOpts) -> Lost:
    if conf.conntrack.namespaces:
        needed = ('CAP_NET_ADMIN', 'CAP_SYS_ADMIN')
        return Lost('flows', needed, 'leave [conntrack] namespaces empty')
    return Lost('flows', ('CAP_NET_ADMIN',), 'set [conntrack] enabled = false')


def _for_namespaces(conf: cfg.ConfigOpts) -> tuple[str, ...]:
    if conf.netns.mode == 'nsid':
        return ('CAP_NET_ADMIN',)
    of_tables = ('CAP_NET_ADMIN',) if 'conntrack' in conf.netns.parts else ()
    return ('CAP_SYS_ADMIN', *of_tables)


def read_status() -> str:
    """Return the text of ``/proc/self/status``, empty where it cannot be read."""
    try:
        with open('/proc/self/status', encoding='ascii', errors='replace') as file:
            return file.read()
    except OSError:
        return ''


def effective(status: str) -> int:
    """Return the effective capabilities as bits; all of them where the text does not tell."""
    match = re.search(r'^CapEff:\s*([0-9a-f]+)$', status, re.MULTILINE)
    return int(match[1], 16) if match else -1
