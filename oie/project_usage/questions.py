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

"""What is booked → the cloud's answer about the window after it, in bounded time."""

from collections.abc import Callable
from typing import Any

from oie import exceptions
from oie import model
from oie.ledger import project_tables
from oie.project_usage import parts
from oie.project_usage import windows
from oie.sources import calls

_DAY_US = 86400 * 10**6


class Questions:
    """Asks about one window after the other.

    :param deadline: seconds after which an answer is not waited for any more
    :param is_stopping: whether nobody waits for any answer
    """

    def __init__(
        self,
        source: parts.Source,
        start_date: parts.StartDate,
        calls: calls.Calls,
        *,
        deadline: float,
        is_stopping: Callable[[], bool],
        monotonic: Callable[[], float],
    ) -> None:
        self._source = source
        self._start_date = start_date
        self._calls = calls
        self._deadline = deadline
        self._is_stopping = is_stopping
        self._monotonic = monotonic
        self._windows = windows.Windows(deadline)

    def begin(self) -> None:
        """Begin an update."""
        self._windows.begin()

    def note_success(self) -> None:
        """End an update with which all is known."""
        self._windows.note_success()

    def answered(self, booked: project_tables.Booked) -> tuple[int, model.CloudUsage]:
        """Return from when on usage counts, and what the cloud says about the next window.

        :raises UsageError: it did not answer, or not in time
        """
        begun = self._monotonic()
        try:
            found = self._calls.run(
                'update of project usage',
                lambda call: self._ask(call, booked),
                self._deadline,
            )
        except exceptions.SourceTimeout as exc:
            self._windows.note_timeout()
            raise self._late() from exc
        except exceptions.UsageError as exc:
            if exc.reason == 'timeout':
                self._windows.note_timeout()
            raise
        except exceptions.SourceError as exc:
            text = f'{exc}: the cloud is silent; those end after [usage] timeout, then it is asked'
            raise exceptions.UsageError('timeout', text) from exc
        self._windows.note_answer(self._monotonic() - begun)
        return found

    def _late(self) -> exceptions.UsageError:
        days = self._windows.length_us / _DAY_US
        return exceptions.UsageError(
            'timeout',
            f'an answer about {days:.3g} days at most did not come within [usage] deadline = '
            f'{self._deadline:g} s; the next attempt asks for less. If that does not '
            'help, raise it above the time that Nova needs for all instances, [usage] page_size '
            'of them by a request',
        )

    def _ask(
        self, call: calls.Call[Any], booked: project_tables.Booked
    ) -> tuple[int, model.CloudUsage]:
        """Return from when on usage counts, and what the cloud says; meant to be a call."""

        def is_wanted() -> bool:
            return not (call.is_abandoned or self._is_stopping())

        start = self._start_date.moment()
        since = booked.first_us if start is None else start
        length = self._windows.length_us
        return since, self._source.read(since, booked.cursor_us, is_wanted, window_us=length)
