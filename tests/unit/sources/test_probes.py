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

"""Echo requests: bounded, repeated, and answered only by who was asked."""

import errno
import ipaddress
import os
import socket

import pytest

from oie import exceptions
from oie.sources import icmp
from oie.sources import probes

NOW = 1_795_000_000.0
LIMITS = probes.Limits(parallel=4, timeout=1.0, attempts=2)
OTHER_TOKEN = bytes(16)


class Channel:
    """A network: ``delays`` says after how many seconds who answers which attempt.

    :ivar sent: time, address and echo of each request
    """

    def __init__(self, family=socket.AF_INET, delays=None, refused=None):
        self.family = family
        self.is_lossy = False
        self.delays = delays or {}
        self.refused = refused or {}
        self.sent = []
        self.due = []
        self.clock = None

    def send(self, ip, packet):
        if ip in self.refused:
            number = self.refused[ip]
            raise OSError(number, os.strerror(number))
        identifier, sequence = int.from_bytes(packet[4:6], 'big'), packet[6:8]
        echo = icmp.Echo(identifier, int.from_bytes(sequence, 'big'), packet[8:])
        self.sent.append((self.clock.now, ip, echo))
        attempt = sum(one == ip for _, one, _ in self.sent) - 1
        delays = self.delays.get(ip, ())
        if attempt < len(delays) and delays[attempt] is not None:
            self.answer(self.clock.now + delays[attempt], ip, echo)

    def answer(self, at, ip, echo, stamp=None):
        received = probes.Received(ipaddress.ip_address(ip).packed, echo, stamp)
        self.due.append((at, received))

    def receive(self):
        come = [received for at, received in self.due if at <= self.clock.now]
        self.due = [one for one in self.due if one[0] > self.clock.now]
        return come

    def fileno(self):
        raise AssertionError('nobody waits for real')


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self, *channels):
        self.now = 100.0
        self.most = 0
        for channel in channels:
            channel.clock = self

    def time(self):
        return NOW + self.now

    def monotonic(self):
        return self.now

    def wait(self, channels, seconds):
        arrivals = [at for channel in channels for at, _ in channel.due]
        self.now = max(self.now, min([*arrivals, self.now + seconds]))
        return [c for c in channels if any(at <= self.now for at, _ in c.due)]


def exchange(wanted, limits=LIMITS, **more):
    """Return the outcomes of asking these pairs of channel and address, and the clock."""
    clock = Clock(*{id(channel): channel for channel, _ in wanted}.values())
    found = probes.exchange(
        [probes.Probe(channel, ip) for channel, ip in wanted],
        limits,
        clock=clock,
        wait=clock.wait,
        **more,
    )
    return found, clock


def test_answer_tells_its_time():
    channel = Channel(delays={'10.0.0.5': [0.25]})
    found, _ = exchange([(channel, '10.0.0.5')])
    assert found == [probes.Outcome(seconds=0.25)]
    assert len(channel.sent) == 1


def test_nobody_to_ask_takes_no_time():
    found, clock = exchange([])
    assert (found, clock.now) == ([], 100.0)


def test_silence_is_known_after_all_attempts():
    channel = Channel()
    found, clock = exchange([(channel, '10.0.0.5')])
    assert found == [probes.Outcome()]
    assert [at for at, _, _ in channel.sent] == pytest.approx([100.0, 101.0])
    assert clock.now == pytest.approx(100 + 2 * 1.0)


def test_second_attempt_may_be_answered():
    found, _ = exchange([(Channel(delays={'10.0.0.5': [None, 0.5]}), '10.0.0.5')])
    assert [one.seconds for one in found] == pytest.approx([0.5])


def test_answer_that_comes_too_late_is_none():
    channel = Channel(delays={'10.0.0.5': [1.5]})
    found, _ = exchange([(channel, '10.0.0.5')])
    assert found == [probes.Outcome()]


def test_outcomes_come_in_the_order_of_the_probes():
    channel = Channel(delays={'10.0.0.5': [0.3], '10.0.0.7': [0.1]})
    found, _ = exchange([(channel, f'10.0.0.{n}') for n in (5, 6, 7)])
    assert [one.seconds for one in found] == [
        pytest.approx(0.3),
        None,
        pytest.approx(0.1),
    ]


def test_no_more_than_the_limit_are_under_way():
    channel = Channel()
    wanted = [(channel, f'10.0.0.{n}') for n in range(1, 11)]
    _, clock = exchange(wanted, probes.Limits(parallel=4, timeout=1.0, attempts=1))
    begun = [at for at, _, _ in channel.sent]
    assert begun == pytest.approx([100.0] * 4 + [101.0] * 4 + [102.0] * 2)
    assert clock.now == pytest.approx(103.0)


def test_answers_make_room_at_once():
    ips = [f'10.0.0.{n}' for n in range(1, 11)]
    channel = Channel(delays={ip: [0.01] for ip in ips})
    found, clock = exchange([(channel, ip) for ip in ips])
    assert None not in [one.seconds for one in found]
    # Three turns of four.
    assert clock.now == pytest.approx(100.03)


def test_every_echo_is_another():
    channel = Channel()
    exchange([(channel, f'10.0.0.{n}') for n in range(1, 5)])
    echoes = [echo for _, _, echo in channel.sent]
    assert len({echo.sequence for echo in echoes}) == len({echo.token for echo in echoes}) == 8
    assert len({echo.identifier for echo in echoes}) == 1


def test_both_families_are_asked_over_their_own_channels():
    ipv4 = Channel(delays={'10.0.0.5': [0.1]})
    ipv6 = Channel(socket.AF_INET6, delays={'2001:db8::5': [0.2]})
    found, _ = exchange([(ipv4, '10.0.0.5'), (ipv6, '2001:db8::5')])
    assert [one.seconds for one in found] == pytest.approx([0.1, 0.2])


# --- whose answer -------------------------------------------------------------


class Forger(Channel):
    """Answers every request at once, but not rightly."""

    def __init__(self, forge):
        super().__init__()
        self.forge = forge

    def send(self, ip, packet):
        super().send(ip, packet)
        _, _, echo = self.sent[-1]
        self.answer(self.clock.now, *self.forge(ip, echo))


@pytest.mark.parametrize(
    'forge',
    [
        lambda _ip, echo: ('10.0.0.9', echo),
        lambda ip, echo: (ip, icmp.Echo(echo.identifier ^ 1, echo.sequence, echo.token)),
        lambda ip, echo: (ip, icmp.Echo(echo.identifier, echo.sequence ^ 0x8000, echo.token)),
        lambda ip, echo: (ip, icmp.Echo(echo.identifier, echo.sequence, OTHER_TOKEN)),
    ],
    ids=['source', 'identifier', 'sequence', 'token'],
)
def test_forged_answer_is_none(forge):
    found, _ = exchange([(Forger(forge), '10.0.0.5')])
    assert found == [probes.Outcome()]


def test_answer_over_another_channel_is_none():
    class Wrong(Channel):
        def send(self, ip, packet):
            super().send(ip, packet)
            other.answer(self.clock.now, ip, self.sent[-1][2])

    other = Channel()
    found, _ = exchange([(Wrong(), '10.0.0.5'), (other, '10.0.0.6')])
    assert found == [probes.Outcome(), probes.Outcome()]


def test_second_answer_changes_nothing():
    class Twice(Channel):
        def send(self, ip, packet):
            super().send(ip, packet)
            for delay in (0.1, 0.2):
                self.answer(self.clock.now + delay, ip, self.sent[-1][2])

    found, _ = exchange([(Twice(), '10.0.0.5')])
    assert [one.seconds for one in found] == pytest.approx([0.1])


# --- time ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ('stamp', 'expected'),
    [(NOW + 100.02, 0.02), (NOW + 99.0, 0.3), (NOW + 107.0, 0.3), (None, 0.3)],
    ids=['kernel', 'clock set back', 'clock set forward', 'no stamp'],
)
def test_time_of_the_kernel_counts_if_it_can_be_true(stamp, expected):
    class Stamping(Channel):
        def send(self, ip, packet):
            super().send(ip, packet)
            self.answer(self.clock.now + 0.3, ip, self.sent[-1][2], stamp)

    found, _ = exchange([(Stamping(), '10.0.0.5')])
    assert [one.seconds for one in found] == pytest.approx([expected])


def test_answer_that_came_while_we_had_no_cpu_counts():
    """Late is what had not come when we looked, not when we got to think about it."""
    channel = Channel(delays={'10.0.0.5': [0.9]})
    clock = Clock(channel)

    def stall(channels, seconds):
        clock.now += 5
        return channels

    found = probes.exchange([probes.Probe(channel, '10.0.0.5')], LIMITS, clock=clock, wait=stall)
    assert found[0].seconds is not None


# --- failures of ours ---------------------------------------------------------


@pytest.mark.parametrize('number', [errno.ENETUNREACH, errno.EPERM, errno.EACCES])
def test_what_was_not_sent_is_no_silence(number):
    channel = Channel(delays={'10.0.0.6': [0.1]}, refused={'10.0.0.5': number})
    found, _ = exchange([(channel, '10.0.0.5'), (channel, '10.0.0.6')])
    assert found[0] == probes.Outcome(failure=f'not sent: {errno.errorcode[number]}')
    assert found[1].seconds is not None


def test_full_buffer_waits_for_room():
    class Full(Channel):
        def send(self, ip, packet):
            if self.clock.now < 100.5 and self.sent:
                raise BlockingIOError(errno.EAGAIN, 'full')
            super().send(ip, packet)

    channel = Full(delays={'10.0.0.5': [0.7], '10.0.0.6': [0.1]})
    found, _ = exchange([(channel, '10.0.0.5'), (channel, '10.0.0.6')])
    assert [one.seconds for one in found] == pytest.approx([0.7, 0.1])


def test_buffer_that_is_full_of_nothing_of_ours_is_a_failure():
    found, _ = exchange([(Channel(refused={'10.0.0.5': errno.EAGAIN}), '10.0.0.5')])
    assert found == [probes.Outcome(failure='not sent: EAGAIN')]


def test_channel_that_breaks_says_nothing_of_those_behind_it():
    class Broken(Channel):
        def receive(self):
            raise OSError(errno.ENETDOWN, 'down')

    broken = Broken(delays={'10.0.0.5': [0.1]})
    sound = Channel(delays={'10.1.0.5': [0.2]})
    wanted = [(broken, f'10.0.0.{n}') for n in range(5, 12)]
    found, _ = exchange([*wanted, (sound, '10.1.0.5')])
    assert set(found[:-1]) == {probes.Outcome(failure='not received: ENETDOWN')}
    assert found[-1].seconds is not None


def test_silence_where_answers_were_lost_says_nothing():
    channel = Channel(delays={'10.0.0.5': [0.1]})
    channel.is_lossy = True
    found, _ = exchange([(channel, '10.0.0.5'), (channel, '10.0.0.6')])
    assert found[0].seconds is not None
    assert 'throw' in found[1].failure


def test_stopped_exchange_gives_nothing():
    with pytest.raises(exceptions.SourceError, match='stopped'):
        exchange([(Channel(), '10.0.0.5')], is_stopping=lambda: True)


def test_waiting_gives_the_channels_that_have_something():
    class Ready(Channel):
        def __init__(self, end):
            super().__init__()
            self.end = end

        def fileno(self):
            return self.end.fileno()

    ours, theirs = zip(*(socket.socketpair() for _ in range(2)), strict=True)
    quiet, ready = (Ready(end) for end in ours)
    theirs[1].send(b'x')
    assert probes.wait_for_any([quiet, ready], 5.0) == [ready]
    assert probes.wait_for_any([quiet], 0.0) == []
    for end in (*ours, *theirs):
        end.close()
