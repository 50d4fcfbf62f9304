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


"""Which files below /proc an operator may name, and what for."""

import re

from oie.config import messages

# It becomes a part of the name of a series.
_NAME = re.compile('[a-z_][a-z0-9_]{0,59}', re.IGNORECASE)
_PROCESS = re.compile('self|thread-self|[0-9]+')


def checked(name: str, file: str) -> str:
    """Return where below /proc a file is.

    Files of a process are refused, except those of its network: by root, cwd and fd they lead
    anywhere.

    :param name: of the metric that the file gives
    :raises ValueError: the name, or the file, may not be used
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f'{messages.quoted(name)} is no name of a metric; write NAME:FILE, for example '
            'nat_conntrack:sys/net/netfilter/nf_conntrack_count'
        )
    steps = file.removeprefix('/proc/').split('/')
    if not all(steps) or {'.', '..'}.intersection(steps) or not file.isprintable():
        raise ValueError(
            f'{messages.quoted(file)} is no file below /proc; write its path without /proc/, '
            'for example net/sockstat'
        )
    if _PROCESS.fullmatch(steps[0]) and steps[1:2] != ['net']:
        raise ValueError(f'{messages.quoted(file)} belongs to a process, not to a namespace')
    return '/'.join(_own(steps))


def _own(steps: list[str]) -> list[str]:
    """Return the steps to the network of the thread that reads, not of the process.

    /proc/net is that of the main thread, which never enters a namespace.
    """
    if steps[0] == 'net':
        return ['thread-self', *steps]
    return ['thread-self', *steps[1:]] if _PROCESS.fullmatch(steps[0]) else steps
