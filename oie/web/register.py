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

"""Who is connected and what was counted; who must go when there are too many."""

import collections
from collections.abc import Mapping
import dataclasses
import enum
import itertools
import logging
from typing import Protocol

from oie.web import limits as web_limits
from oie.web import messages
from oie.web import routes

LOG = logging.getLogger(__name__)

REASONS = (
    'bad_request',
    'body_timeout',
    'body_too_large',
    'handshake_timeout',
    'head_timeout',
    'head_too_large',
    'idle_timeout',
    'stalled',
    'tls_failed',
    'too_many_connections',
    'too_many_handshakes',
    'too_many_idle',
    'too_many_requests',
    'write_timeout',
)


class Phase(enum.Enum):
    """What a connection is doing."""

    HANDSHAKE = 'handshake'
    HEAD = 'head'
    BODY = 'body'
    WRITE = 'write'
    IDLE = 'idle'
    LINGER = 'linger'


@dataclasses.dataclass(frozen=True, slots=True)
class Statistics:
    """What happened since the start, and who is connected now."""

    # (path, or '' where nothing is; class of the status, such as '2xx') -> number
    requests: Mapping[tuple[str, str], int]
    # reason -> number; all REASONS are there from the start
    dropped: Mapping[str, int]
    # phase -> number
    connections: Mapping[str, int]


class Member(Protocol):
    """A connection, as far as it concerns the others."""

    def close(self) -> None:
        """Close at once and leave the register."""

    def drop(self, reason: str) -> None:
        """Close and count why."""

    def is_stalled(self) -> bool:
        """Return whether the peer has not read its answer for a while."""


class Register:
    """All connections by phase, those longest in it first, and all counters.

    Only the loop's thread writes here. Others copy a dictionary, which is one step for them.
    """

    def __init__(self, limits: web_limits.Limits) -> None:
        self.limits = limits
        self.phases: dict[Phase, dict[Member, None]] = {phase: {} for phase in Phase}
        self.requests: collections.Counter[tuple[str, str]] = collections.Counter()
        self.dropped = dict.fromkeys(REASONS, 0)
        self._failures: dict[str, type[Exception]] = {}

    def members(self) -> list[Member]:
        """Return all connections."""
        return list(itertools.chain(*self.phases.values()))

    def admit(self) -> None:
        """Make room for a newcomer, at the cost of who has been sending a request for longest.

        There is such a peer: those that are answered or idle cannot be as many (see Limits).
        """
        if len(self.members()) >= self.limits.connections:
            # Handshakes last: limit_handshakes() sees to them.
            order = (Phase.LINGER, Phase.HEAD, Phase.BODY, Phase.HANDSHAKE)
            asking = (self.phases[phase] for phase in order)
            next(itertools.chain(*asking)).drop('too_many_connections')

    def limit_handshakes(self) -> None:
        """Close whose handshake has lasted longest if there are too many."""
        shaking = self.phases[Phase.HANDSHAKE]
        if len(shaking) > self.limits.handshakes:
            next(iter(shaking)).drop('too_many_handshakes')

    def admit_request(self) -> None:
        """Make room for one more answer, at the cost of one that is not read.

        :raises RequestError: all others are on their way
        """
        answered = self.phases[Phase.WRITE]
        if len(answered) >= self.limits.requests:
            stalled = next((member for member in answered if member.is_stalled()), None)
            if stalled is None:
                raise messages.RequestError(503, reason='too_many_requests')
            stalled.drop('stalled')

    def limit_idle(self) -> None:
        """Close who has idled for longest if there are too many."""
        idle = self.phases[Phase.IDLE]
        if len(idle) > self.limits.idle_connections:
            next(iter(idle)).drop('too_many_idle')

    def statistics(self) -> Statistics:
        """Return a copy of the counters; any thread may ask."""
        return Statistics(
            requests=dict(self.requests),
            dropped=dict(self.dropped),
            connections={phase.value: len(members) for phase, members in self.phases.items()},
        )

    def run(self, route: routes.Route, request: messages.Request) -> messages.Response:
        """Return the handler's answer, else 500; a lasting failure is logged once, and its end."""
        try:
            response = route.handler(request)
        except messages.RequestError as exc:
            return messages.sentence(exc.status, str(exc))
        except Exception as exc:
            if self._failures.get(request.path) is not type(exc):
                self._failures[request.path] = type(exc)
                LOG.exception('%s: answered with 500 until this ends', request.path)
            return messages.sentence(500)
        if self._failures.pop(request.path, None):
            LOG.info('%s: answered as usual again', request.path)
        return response
