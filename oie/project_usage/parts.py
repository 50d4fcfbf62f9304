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

"""What the reader of project usage needs of a cloud, of weights, of a start date, of a ledger."""

from collections.abc import Callable
from typing import Protocol

from oie import model
from oie.ledger import project_spans
from oie.ledger import project_tables


class Source(Protocol):
    """What tells the usage of a cloud."""

    def read(
        self,
        since_us: int,
        cursor_us: int | None,
        is_wanted: Callable[[], bool],
        *,
        window_us: int | None,
    ) -> model.CloudUsage:
        """Return the usage of all projects.

        :param window_us: how much time after ``cursor_us``, or ``since_us``, is enough
        :raises UsageError: no whole answer came
        """

    def close(self) -> None:
        """Let go of everything."""


class Weights(Protocol):
    """What knows how much usage counts."""

    read_at: float | None

    def refresh(self) -> None:
        """Read the weights if it is time to.

        :raises UsageError: they cannot be read; those before stay
        """

    def weigher(self) -> project_spans.Weigh:
        """Return what weighs.

        :raises UsageError: nobody knows
        """


class StartDate(Protocol):
    """What knows from when on usage counts."""

    def moment(self) -> int | None:
        """Return the moment in microseconds since 1970, None for the first start.

        :raises UsageError: nobody knows
        """


class Ledger(Protocol):
    """What books answers."""

    def open(self, now_us: int) -> project_tables.Booked:
        """Return what is booked.

        :raises LedgerError: nothing can be booked
        """

    def book(
        self, answer: model.CloudUsage, *, since_us: int, weigh: project_spans.Weigh
    ) -> project_tables.Booked:
        """Book an answer.

        :raises LedgerError: nothing was booked
        """

    def close(self) -> None:
        """Let go of it."""
