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

"""Echo requests to many addresses, a bounded number at a time, and who answered.

Nothing here opens a socket: ``probe_sockets`` does.
"""

import collections
from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import errno
import ipaddress
import secrets
import select
import time
from typing import Protocol

from oie import exceptions
from oie.sources import icmp

# How soon the end of the program is noticed.
_LONGEST_WAIT = 0.2


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """How many echoes may be unanswered at once, for how long (seconds), how often in all."""

    parallel: int
    timeout: float
    attempts: int


@dataclasses.dataclass(frozen=True, slots=True)
class Received:
    """An echo that came back.

    :param source: who sent it, the bytes of the address
    :param at: Unix time at which the kernel got it, if it tells
    """

    source: bytes
    echo: icmp.Echo
    at: float | None


class Channel(Protocol):
    """What sends echo requests of one family in one namespace, and gets the replies."""

    family: int
    is_lossy: bool

    def send(self, ip: str, packet: bytes) -> None:
        """Send without waiting.

        :raises OSError: it was not sent
        """

    def receive(self) -> list[Received]:
        """Return what has come.

        :raises OSError: nothing can be received
        """

    def fileno(self) -> int:
        """Return what select.poll() wants."""


@dataclasses.dataclass(frozen=True, slots=True)
class Probe:
    """An address to be asked, and over what."""

    channel: Channel
    ip: str


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """How it went: an answer after so many seconds, silence, or a failure of ours."""

    seconds: float | None = None
    failure: str = ''


Waiting = Callable[[Sequence[Channel], float], Sequence[Channel]]


class Clock(Protocol):
    """What tells the time; the module ``time`` does."""

    def time(self) -> float:
        """Return the Unix time."""

    def monotonic(self) -> float:
        """Return seconds that nobody sets back."""


def wait_for_any(channels: Sequence[Channel], seconds: float) -> Sequence[Channel]:
    """Return the channels that have something, after so many seconds perhaps none."""
    poller = select.poll()
    by_number = {channel.fileno(): channel for channel in channels}
    for number in by_number:
        poller.register(number, select.POLLIN)
    # Rounded up: else we would ask again and again during the last millisecond.
    return [by_number[number] for number, _ in poller.poll(int(seconds * 1000) + 1)]


@dataclasses.dataclass(frozen=True, slots=True)
class _Flight:
    """A request that is not answered yet."""

    number: int
    attempt: int
    token: bytes
    sent: float
    sent_at: float


def exchange(
    probes: Sequence[Probe],
    limits: Limits,
    *,
    is_stopping: Callable[[], bool] = lambda: False,
    clock: Clock = time,
    wait: Waiting = wait_for_any,
) -> list[Outcome]:
    """Ask addresses, several at the same time; return how it went, in their order.

    :param is_stopping: whether nobody wants the result any more
    :raises SourceError: it was stopped before its end
    """
    return _Exchange(probes, limits, is_stopping, clock, wait).run()


class _Exchange:
    def __init__(
        self,
        probes: Sequence[Probe],
        limits: Limits,
        is_stopping: Callable[[], bool],
        clock: Clock,
        wait: Waiting,
    ) -> None:
        self._probes = probes
        self._limits = limits
        self._is_stopping = is_stopping
        self._clock = clock
        self._wait = wait
        self._identifier = secrets.randbits(16)
        self._sequence = secrets.randbits(16)
        self._targets = [ipaddress.ip_address(probe.ip).packed for probe in probes]
        self._channels = tuple({id(p.channel): p.channel for p in probes}.values())
        self._due = collections.deque((number, 1) for number in range(len(probes)))
        # By sequence, in the order in which they were sent.
        self._flights: dict[int, _Flight] = {}
        self._outcomes: dict[int, Outcome] = {}

    def run(self) -> list[Outcome]:
        while self._due or self._flights:
            if self._is_stopping():
                raise exceptions.SourceError('the probes were stopped')
            self._send()
            ready = self._wait(self._channels, self._patience())
            # What is late at this moment can be no more in a socket after it was emptied.
            now = self._clock.monotonic()
            for channel in ready:
                self._receive(channel)
            self._expire(now)
        return [self._outcome(number) for number in range(len(self._probes))]

    def _send(self) -> None:
        while self._due and len(self._flights) < self._limits.parallel:
            number, attempt = self._due.popleft()
            try:
                self._launch(number, attempt)
            except OSError as exc:
                if isinstance(exc, BlockingIOError) and self._flights:
                    # There is room again when one of these is over.
                    self._due.appendleft((number, attempt))
                    return
                self._outcomes[number] = Outcome(failure=f'not sent: {_name(exc)}')

    def _launch(self, number: int, attempt: int) -> None:
        self._sequence = self._sequence + 1 & 0xFFFF
        probe, token = self._probes[number], secrets.token_bytes(icmp.TOKEN_BYTES)
        echo = icmp.Echo(self._identifier, self._sequence, token)
        packet = icmp.request(probe.channel.family, echo)
        flight = _Flight(number, attempt, token, self._clock.monotonic(), self._clock.time())
        probe.channel.send(probe.ip, packet)
        self._flights[self._sequence] = flight

    def _patience(self) -> float:
        if not self._flights:
            return 0.0
        first = next(iter(self._flights.values()))
        left = first.sent + self._limits.timeout - self._clock.monotonic()
        return min(max(left, 0.0), _LONGEST_WAIT)

    def _receive(self, channel: Channel) -> None:
        try:
            received = channel.receive()
        except OSError as exc:
            self._fail(channel, f'not received: {_name(exc)}')
            return
        now = self._clock.monotonic()
        for one in received:
            flight = self._flights.get(one.echo.sequence)
            if flight is not None and self._answers(one, channel, flight):
                del self._flights[one.echo.sequence]
                self._outcomes[flight.number] = Outcome(seconds=_elapsed(flight, one.at, now))

    def _answers(self, received: Received, channel: Channel, flight: _Flight) -> bool:
        return (
            received.echo.identifier == self._identifier
            and received.echo.token == flight.token
            and received.source == self._targets[flight.number]
            and channel is self._probes[flight.number].channel
        )

    def _expire(self, now: float) -> None:
        for sequence, flight in tuple(self._flights.items()):
            if now < flight.sent + self._limits.timeout:
                return
            del self._flights[sequence]
            if flight.attempt < self._limits.attempts:
                self._due.append((flight.number, flight.attempt + 1))

    def _fail(self, channel: Channel, failure: str) -> None:
        """Give up a channel: who is silent there is so by our own fault."""
        self._channels = tuple(one for one in self._channels if one is not channel)
        lost = {n for n, probe in enumerate(self._probes) if probe.channel is channel}
        self._flights = {s: f for s, f in self._flights.items() if f.number not in lost}
        self._due = collections.deque(due for due in self._due if due[0] not in lost)
        for number in lost:
            self._outcomes.setdefault(number, Outcome(failure=failure))

    def _outcome(self, number: int) -> Outcome:
        outcome = self._outcomes.get(number, Outcome())
        if outcome == Outcome() and self._probes[number].channel.is_lossy:
            return Outcome(failure='not received: the kernel had to throw answers away')
        return outcome


def _elapsed(flight: _Flight, at: float | None, now: float) -> float:
    """Return the seconds that an answer took.

    The kernel's time knows nothing of how long we had to wait for a CPU; but that clock may be
    set meanwhile.
    """
    seconds = now - flight.sent
    if at is not None and 0 <= at - flight.sent_at <= seconds:
        return at - flight.sent_at
    return seconds


def _name(exc: OSError) -> str:
    return errno.errorcode.get(exc.errno or 0, str(exc))
