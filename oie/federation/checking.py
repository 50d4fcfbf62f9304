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

"""All attempts against a gate, and for each of them whether the gate did what it should."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import dataclasses

from oie import exceptions
from oie.federation import answers
from oie.federation import attempts
from oie.federation import attempts_http1
from oie.federation import attempts_http2
from oie.federation import connections
from oie.federation import http1_client
from oie.federation import http2_client

ALLOWED, REFUSED = 'allowed', 'refused'
BYPASS, NOT_ALLOWED, UNREACHED = 'BYPASS', 'NOT ALLOWED', 'NO CONNECTION'
NOT_TRIED = 'not tried'

Exchange = Callable[[connections.Gate, attempts.Attempt, attempts.Filling], list[answers.Answer]]


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an attempt."""

    attempt: attempts.Attempt
    result: str
    detail: str = ''


def outcomes(gate: connections.Gate, lines: Iterable[str], token: str) -> Iterator[Outcome]:
    """Give what became of each attempt, beginning with what is allowed.

    :param lines: paths and queries that are allowed; the attempts change the first one
    :param token: a valid one; empty: only what somebody without one can do is tried
    """
    every = tuple(lines)
    fillings = [attempts.Filling(gate.scheme, gate.authority, line, token) for line in every]
    for filling in fillings:
        yield _made(http1_client.exchange, gate, attempts_http1.control(), filling)
    for attempt in attempts_http1.attempts_of():
        yield _made(http1_client.exchange, gate, attempt, fillings[0])
    for filling in fillings:
        yield _made(http2_client.exchange, gate, _control_http2(gate), filling)
    for attempt in attempts_http2.attempts_of():
        yield _made(http2_client.exchange, gate, attempt, fillings[0])
    # A gate that broke down on the way refused nothing since.
    control = attempts_http1.control()
    again = dataclasses.replace(control, name=f'{control.name}, once more')
    yield _made(http1_client.exchange, gate, again, fillings[0])


def _control_http2(gate: connections.Gate) -> attempts.Attempt:
    """Return the allowed request. Without TLS a gate need not speak HTTP/2 at all."""
    control = attempts_http2.control()
    if gate.context is not None:
        return control
    return dataclasses.replace(control, name=f'{control.name}, without TLS', group='may pass')


def _made(
    exchange: Exchange,
    gate: connections.Gate,
    attempt: attempts.Attempt,
    filling: attempts.Filling,
) -> Outcome:
    if attempt.needs_token and not filling.token:
        return Outcome(attempt, NOT_TRIED, 'needs a token')
    if not attempt.raw and not http2_client.is_available():
        return Outcome(attempt, NOT_TRIED, 'needs h2: pip install oie[gate]')
    try:
        found = exchange(gate, attempt, filling)
    except OSError as exc:
        return Outcome(attempt, UNREACHED, str(exc))
    return judge(attempt, found)


def judge(attempt: attempts.Attempt, found: list[answers.Answer]) -> Outcome:
    """Return whether these answers to an attempt are right."""
    detail = ', '.join(map(str, found)) or 'hung up'
    passed = [answer for answer in found if not answer.is_refusal]
    if len(passed) > attempt.passes or (passed and attempt.group != 'allowed' and _is_odd(passed)):
        return Outcome(attempt, BYPASS, detail)
    if attempt.group == 'allowed':
        is_good = [answer.status for answer in passed] == [200]
        return Outcome(attempt, ALLOWED if is_good else NOT_ALLOWED, detail)
    if passed:
        return Outcome(attempt, ALLOWED, detail)
    return Outcome(attempt, REFUSED, detail)


def _is_odd(passed: list[answers.Answer]) -> bool:
    """Return whether something came from behind that is no answer to an allowed request."""
    return any(answer.status != 200 for answer in passed)


def check_reachable(gate: connections.Gate) -> None:
    """Make sure that there is somebody to be tested.

    :raises GateError: no connection, or a certificate that is not trusted
    """
    try:
        gate.connect('http/1.1').close()
    except OSError as exc:
        raise exceptions.GateError(
            f'{gate.scheme}://{gate.authority}: {exc}; see that the gate runs, and with --ca that '
            'its certificate is trusted'
        ) from exc
