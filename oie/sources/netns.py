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


"""The network namespaces of this host with their devices and figures, as a cycle shows them.

Each pass over them has a thread of its own, for which a cycle waits a bounded time.
"""

import collections
from collections.abc import Set
import logging
import threading
import time
from typing import Any
from typing import ClassVar

from oie import exceptions
from oie import failures
from oie import model
from oie.config import netns_options
from oie.config import netns_settings
from oie.sources import calls
from oie.sources import mount_propagation
from oie.sources import netns_passes
from oie.sources import netns_readers
from oie.sources import probes

LOG = logging.getLogger(__name__)

_SUBJECT = 'network namespaces'
_NAME = 'a pass over the network namespaces'
_WHOLE = 'pass'
# What comes with every router that is deleted is not worth a line.
_USUAL = frozenset({'vanished'})

Call = calls.Call[netns_passes.Result]


class NamespacesSource:
    """Reads all network namespaces that have a name, or shows what was read last.

    :param options: our group ``[netns]``
    :param settings: what of it counts beside the file of netns-exporter
    :param passes: what makes the passes, by default real ones
    """

    GROUP: ClassVar[str] = netns_options.NETNS.name

    def __init__(
        self,
        options: Any,
        settings: netns_settings.Settings,
        *,
        passes: netns_passes.Passes | None = None,
        clock: probes.Clock = time,
    ) -> None:
        self._options = options
        self._clock = clock
        self._passes = passes or netns_passes.Passes(
            options.directory, settings.namespaces, reader(options, settings), options.deadline
        )
        self._failures = failures.LastingFailures(LOG)
        self._stopping = threading.Event()
        self._call: Call | None = None
        self._began = float('-inf')
        self._last: netns_passes.Result | None = None
        self._told: frozenset[str] = frozenset()
        self._errors: collections.Counter[str] = collections.Counter()
        for note in (*settings.notes, *settings.overlooked):
            LOG.warning('%s', note)

    def read(
        self, instances: tuple[model.Instance, ...], max_age: float, known: Set[str] = frozenset()
    ) -> dict[str, Any]:
        """Return the fields ``namespaces`` and ``namespaces_health`` of the snapshot.

        :param instances: not looked at, as ``known``
        :param max_age: seconds after which the last table is not shown any more
        """
        before, error = self._last, ''
        try:
            self._look(0)
            if self._is_due():
                self._start()
                self._look(self._options.timeout)
        except exceptions.SourceError as exc:
            # A pass that ended between two cycles is news enough.
            if self._last is before:
                error = str(exc)
        except Exception as exc:
            LOG.debug('%s failed', _NAME, exc_info=True)
            error = repr(exc)
        if error:
            self._errors[_WHOLE] += 1
            self._failures.report(_SUBJECT, 'not read', error)
        else:
            self._failures.settle(_SUBJECT, 'not read')
        return {
            'namespaces': self._reading(max_age, error),
            'namespaces_health': model.NamespacesHealth(errors=dict(self._errors)),
        }

    def close(self) -> None:
        """Make no more passes; one that is under way ends after the namespace it is in."""
        self._stopping.set()

    # --- passes ---------------------------------------------------------------

    def _is_due(self) -> bool:
        is_over = self._clock.monotonic() - self._began >= self._options.interval
        return is_over and self._call is None

    def _start(self) -> None:
        """Start a pass in a thread that ends with it.

        :raises SourceError: there is no thread to be had
        """
        self._began = self._clock.monotonic()
        pool = calls.Calls(1, 'oie-netns')
        try:
            self._call = pool.start(_NAME, lambda _call: self._passes.run(self._stopping.is_set))
        finally:
            # The thread may be in a foreign namespace then: nothing else may run in it.
            pool.close()

    def _look(self, timeout: float) -> None:
        """Take over what the pass under way has found, if it ends in time.

        :raises SourceError: it has not ended, or could not read
        """
        if self._call is None:
            return
        if not (timeout or self._call.has_returned):
            age = self._clock.monotonic() - self._began
            raise exceptions.SourceTimeout(f'{_NAME} has not ended for {age:.0f} s')
        try:
            found = self._call.wait(timeout)
        finally:
            if self._call.has_returned:
                self._call = None
        self._last = found
        self._tell(found)

    def _tell(self, found: netns_passes.Result) -> None:
        """Count what could not be read; log it when it begins and when it ends."""
        self._errors.update(reason for _, reason in found.problems)
        # One line for all that have the same trouble; the metrics name each of them.
        texts = {reason: f'{name}: {text}' for (name, reason), text in found.problems.items()}
        for reason in self._told - texts.keys():
            self._failures.settle(_SUBJECT, reason)
        for reason in texts.keys() - _USUAL:
            self._failures.report(_SUBJECT, reason, texts[reason])
        self._told = frozenset(texts)
        if found.table.skipped.get('stale'):
            if problem := mount_propagation.problem(self._options.directory):
                self._failures.report(_SUBJECT, 'stale', problem)

    def _reading(self, max_age: float, error: str) -> model.Reading[model.NamespaceTable | None]:
        last = self._last
        if last is None:
            seconds = max(0.0, self._clock.monotonic() - self._began) if error else 0.0
            return model.Reading(value=None, read_at=None, seconds=seconds, error=error)
        longest = max(max_age, 2 * self._options.interval + last.seconds)
        is_young = self._clock.time() - last.read_at <= longest
        return model.Reading(
            value=last.table if is_young else None,
            read_at=last.read_at,
            seconds=last.seconds,
            error=error,
        )


def reader(options: Any, settings: netns_settings.Settings) -> netns_readers.Reader:
    """Return what reads a namespace in the way that ``[netns] mode`` names."""
    if options.mode == 'nsid':
        return netns_readers.OutsideReader(settings, options.parts, assigns=options.assign_nsid)
    return netns_readers.InsideReader(settings, options.parts)
