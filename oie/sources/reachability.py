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

"""Whether the fixed IPs of running guests answer from within their networks.

A thread of its own asks, on a schedule of its own; a cycle only takes what is known.
"""

import collections
from collections.abc import Mapping
from collections.abc import Set
import dataclasses
import logging
import threading
import time
from typing import Any
from typing import ClassVar
from typing import Protocol

from oslo_config import cfg

from oie import config
from oie import exceptions
from oie import failures
from oie import model
from oie.sources import probe_rounds
from oie.sources import probes

LOG = logging.getLogger(__name__)

OPTS = (
    cfg.ListOpt(
        'namespaces',
        default=['ovnmeta-*', 'qdhcp-*'],
        help='Network namespaces from which fixed IPs are probed, by patterns of their names: '
        'those in which Neutron serves metadata (OVN) or DHCP to a network. A fixed IP that '
        'several of them could reach is not probed.',
    ),
    cfg.Opt(
        'interval',
        type=config.Duration(minimum=10, maximum=3600),
        default='60s',
        help='Time from the start of one round of probes to the start of the next. A round that '
        'takes longer delays the next one.',
    ),
    cfg.IntOpt(
        'parallel',
        default=32,
        min=1,
        max=256,
        help='Echo requests that may be unanswered at the same time. Only silent guests take '
        'time: 100 of them make a round of 7 seconds with the defaults.',
    ),
    cfg.Opt(
        'timeout',
        type=config.Duration(minimum=0.1, maximum=10),
        default='1s',
        help='How long an answer may take.',
    ),
    cfg.IntOpt(
        'attempts',
        default=2,
        min=1,
        max=10,
        help='Echo requests in a row that stay unanswered before a fixed IP is unreachable.',
    ),
)

_SUBJECT, _REASON = 'probes', 'failed'
_JOIN_SECONDS = 0.5


class Rounds(Protocol):
    """What asks all targets once."""

    def run(self, wanted: Mapping[probe_rounds.Target, bool]) -> probe_rounds.Round:
        """Return what was found; targets that are False are not asked.

        :raises SourceError: nothing could be found
        """

    def check(self) -> int:
        """Return in how many namespaces we can look; nothing is sent.

        :raises SourceError: they cannot be used
        """


@dataclasses.dataclass(frozen=True, slots=True)
class _Known:
    """What the rounds gave: the verdicts of the last good one, the health of the latest.

    ``began`` is the monotonic time at which the good one began, or the first one.
    """

    began: float
    verdicts: Mapping[probe_rounds.Target, probe_rounds.Verdict] | None = None
    read_at: float | None = None
    seconds: float = 0.0
    error: str = ''


class ReachabilitySource:
    """Probes in the background from the first instance on.

    :param options: our group ``[reachability]``
    :param rounds: what makes the rounds, by default real ones
    """

    GROUP: ClassVar[str] = 'reachability'
    GROUP_HELP: ClassVar[str] = (
        'Probes of fixed IPs from within their networks, when [collector] optional names '
        'reachability. They need CAP_NET_RAW and CAP_SYS_ADMIN.'
    )
    OPTS: ClassVar[tuple[cfg.Opt, ...]] = OPTS

    def __init__(
        self, options: Any, *, rounds: Rounds | None = None, clock: probes.Clock = time
    ) -> None:
        self._interval: float = options.interval
        self._stopping = threading.Event()
        self._rounds = rounds or probe_rounds.Rounds(
            options.namespaces,
            probes.Limits(options.parallel, options.timeout, options.attempts),
            is_stopping=self._stopping.is_set,
        )
        self._clock = clock
        self._failures = failures.LastingFailures(LOG)
        # Replaced as a whole: by the cycle the one, by the thread the other.
        self._wanted: Mapping[probe_rounds.Target, bool] = {}
        self._known = _Known(clock.monotonic())
        self._thread: threading.Thread | None = None

    def read(
        self, instances: tuple[model.Instance, ...], max_age: float, known: Set[str] = frozenset()
    ) -> dict[str, Any]:
        """Return the field ``reachability`` of the snapshot, at once.

        :param max_age: not looked at: verdicts hold for two rounds, however long a cycle is
        :param known: not looked at: only of who is shown a probe could tell
        """
        owners = {
            target: instance
            for instance in instances
            for target in probe_rounds.targets(instance.definition)
        }
        self._wanted = {target: _runs(instance) for target, instance in owners.items()}
        if owners and self._thread is None:
            self._start()
        return {'reachability': self._reading(owners)}

    def check(self) -> int:
        """Return in how many namespaces we can look; nothing is sent.

        :raises SourceError: they cannot be used
        """
        return self._rounds.check()

    def close(self) -> None:
        """Make no more rounds; one that waits in the kernel is left behind."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_JOIN_SECONDS)

    # --- what is shown --------------------------------------------------------

    def _reading(
        self, owners: Mapping[probe_rounds.Target, model.Instance]
    ) -> model.Reading[model.Reachability | None]:
        known = self._known
        age = self._clock.monotonic() - known.began
        value, error = None, known.error
        if self._thread is not None and age > _longest(self._interval, known.seconds):
            error = error or f'no round of probes has ended for {age:.0f} s'
        elif known.verdicts is not None:
            value = _reachability(known.verdicts, owners)
        return model.Reading(
            value=value, read_at=known.read_at, seconds=known.seconds, error=error
        )

    # --- the thread -----------------------------------------------------------

    def _start(self) -> None:
        """Start the rounds.

        :raises SourceError: there is no thread to be had
        """
        thread = threading.Thread(target=self._run, name='oie-probes', daemon=True)
        self._known = _Known(self._clock.monotonic())
        try:
            thread.start()
        except RuntimeError as exc:
            raise exceptions.SourceError(f'no thread for probes: {exc}') from exc
        self._thread = thread

    def _run(self) -> None:
        due = self._clock.monotonic()
        while not self._stopping.is_set():
            self.round()
            now = self._clock.monotonic()
            due = max(due + self._interval, now)
            self._stopping.wait(due - now)

    def round(self) -> None:
        """Make one round; no failure leaves this function."""
        began, last = self._clock.monotonic(), self._known
        try:
            found = self._rounds.run(self._wanted)
        # The thread must outlive whatever a kernel comes up with.
        except Exception as exc:
            LOG.debug('a round of probes failed', exc_info=True)
            error = str(exc) if isinstance(exc, exceptions.OieError) else repr(exc)
            if not self._stopping.is_set():
                self._failures.report(_SUBJECT, _REASON, error)
            seconds = self._clock.monotonic() - began
            self._known = dataclasses.replace(last, seconds=seconds, error=error)
            return
        self._failures.settle(_SUBJECT, _REASON)
        self._known = _Known(
            began=began,
            verdicts=found.verdicts,
            read_at=last.read_at if found.error else self._clock.time(),
            seconds=self._clock.monotonic() - began,
            error=found.error,
        )


def _runs(instance: model.Instance) -> bool:
    return instance.state == model.DomainState.RUNNING


def _longest(interval: float, seconds: float) -> float:
    """Return for how long the verdicts of a round hold: until two more should have ended."""
    return 2 * max(interval, seconds) + seconds


def _reachability(
    verdicts: Mapping[probe_rounds.Target, probe_rounds.Verdict],
    owners: Mapping[probe_rounds.Target, model.Instance],
) -> model.Reachability:
    """Return what is known of the guests that are here and run."""
    known = {model.ProbeResult.REACHABLE: True, model.ProbeResult.UNREACHABLE: False}
    addresses = tuple(
        model.AddressProbe(
            definition=instance.definition,
            address=target.address,
            is_reachable=known[verdict.result],
            seconds=verdict.seconds,
        )
        for target, instance in owners.items()
        if _runs(instance) and (verdict := verdicts.get(target)) and verdict.result in known
    )
    results = collections.Counter(verdict.result for verdict in verdicts.values())
    return model.Reachability(addresses=addresses, results=results)
