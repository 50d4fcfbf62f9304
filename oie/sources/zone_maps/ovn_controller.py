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

"""What ovn-controller itself answers about its zones → zone map.

The same as ``ovn-appctl -t ovn-controller ct-zone-list``, without the process:
one JSON-RPC question over the control socket. It needs no library, yet it is
the second choice: ovn-controller answers between two rounds of its main loop,
which may take many seconds on a large site, is not there while it is upgraded
though its zones stay in use, and whoever may ask may also end it.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import glob
import json
import socket
import time
from typing import Any

from oslo_config import cfg

from oie import config
from oie import exceptions
from oie.sources.zone_maps import base
from oie.sources.zone_maps import ovn

COMMAND = 'ct-zone-list'

# All 65,535 zones with names of 64 characters are 5 MB.
_LARGEST_ANSWER = 16 * 2**20

Ask = Callable[[str, float], str]


class OvnControllerZoneMap(base.ZoneMap):
    """Asks ovn-controller for the zones that it has given to ports.

    :param ask: returns what the controller behind a control socket answers
    """

    GROUP_HELP = (
        'Conntrack zones of OVN as its controller tells them over its control socket. For hosts '
        'where the Open vSwitch database cannot be read.'
    )
    OPTS = (
        cfg.Opt(
            'socket',
            type=config.FilePath(),
            default='/run/ovn/ovn-controller.*.ctl',
            help='The control socket; * and ? stand for any characters, because the number of '
            'the process is part of the name. It is usually open to root alone.',
        ),
        *base.OPTS,
    )

    def __init__(self, options: Any = None, ask: Ask | None = None) -> None:
        super().__init__(options)
        self._ask = ask or ask_controller

    def is_kept_here(self) -> bool:
        """Tell whether a controller runs here and has given out zones.

        :raises SourceError: there is a socket, but no good answer
        """
        return bool(self._sockets() and self._claims())

    def read(self) -> dict[int, str]:
        """Return the zones of the ports that are bound to this host.

        :raises SourceError: not exactly one controller gives a good answer
        """
        zones = ovn.zones_of(self._claims())
        self.conflicts, self.malformed = zones.conflicts, zones.malformed
        return dict(zones.ports)

    def _sockets(self) -> list[str]:
        return sorted(glob.glob(self.options.socket))

    def _claims(self) -> list[tuple[str, str]]:
        answers, problem = [], ''
        deadline = time.monotonic() + self.options.timeout
        for path in self._sockets():
            try:
                answers.append(self._ask(path, deadline - time.monotonic()))
            except ConnectionRefusedError as exc:
                # A controller that was killed leaves its socket behind.
                problem = f'{path}: {exc}'
            except OSError as exc:
                raise exceptions.SourceError(f'ovn-controller at {path}: {exc}') from exc
        if len(answers) != 1:
            raise exceptions.SourceError(
                f'{len(answers)} controllers of OVN answer at {self.options.socket}, one must; '
                f'set [zone_map_ovn_controller] socket{problem and f" ({problem})"}'
            )
        return list(_parse(answers[0]))


def _parse(answer: str) -> Iterator[tuple[str, str]]:
    """Give name and zone of each line.

    :raises SourceError: a line is something else
    """
    for line in answer.splitlines():
        name, blank, zone = line.rpartition(' ')
        if not blank:
            raise exceptions.SourceError(f'ovn-controller: {line[:80]!r} is not a name and a zone')
        yield name, zone


def ask_controller(path: str, timeout: float) -> str:
    """Return the answer to ``ct-zone-list`` of the controller at a control socket.

    Source: ovn-appctl(8), lib/unixctl.c of Open vSwitch: JSON-RPC 1.0 without
    framing.

    :raises SourceError: it refuses, or answers nonsense, late or without end
    :raises OSError: it cannot be reached
    """
    question = {'id': 0, 'method': COMMAND, 'params': []}
    deadline = time.monotonic() + timeout
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(max(timeout, 0.001))
        connection.connect(path)
        connection.sendall(json.dumps(question).encode())
        answer = _receive(connection, path, deadline)
    if not isinstance(answer, dict) or not isinstance(answer.get('result'), str):
        reason = answer.get('error') if isinstance(answer, dict) else answer
        raise exceptions.SourceError(f'ovn-controller at {path} answers: {str(reason)[:200]!r}')
    return str(answer['result'])


def _receive(connection: socket.socket, path: str, deadline: float) -> Any:
    received = b''
    while len(received) < _LARGEST_ANSWER:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            piece = connection.recv(2**16)
        except TimeoutError as exc:
            raise exceptions.SourceTimeout(
                f'ovn-controller at {path} has not answered in time; is it stopped or busy?'
            ) from exc
        if not piece:
            break
        received += piece
        # Nothing frames a message, but only a brace can end it.
        if received.rstrip().endswith(b'}'):
            with contextlib.suppress(ValueError, RecursionError):
                return json.loads(received)
    raise exceptions.SourceError(f'ovn-controller at {path} answers no whole message')
