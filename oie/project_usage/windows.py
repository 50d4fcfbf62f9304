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

"""How much of the past a cloud is asked for at once: less after a time-out, more after haste.

What an answer tells is booked before the next one is asked for. So a first update that reaches
back for years loses no more than one answer when it is broken off.
"""

from oie.ledger import project_spans

_DAY_US = 24 * project_spans.HOUR_US
# A month of a cloud with 100,000 instances in it is a hundred requests of a few seconds.
_USUAL_US = 30 * _DAY_US
_LEAST_US = project_spans.HOUR_US
# Where nothing has happened for years a few questions are enough.
_MOST_US = 3600 * _DAY_US
_HASTE = 4


class Windows:
    """Chooses the length of the next window, in microseconds.

    :param patience: seconds that an answer may take
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._first_us = _USUAL_US
        self.length_us = _USUAL_US

    def begin(self) -> None:
        """Begin an update."""
        self.length_us = self._first_us

    def note_answer(self, seconds: float) -> None:
        """Ask for twice as much after an answer that took a small part of the time for it."""
        if seconds * _HASTE < self._patience:
            self.length_us = min(2 * self.length_us, _MOST_US)

    def note_timeout(self) -> None:
        """Ask for half as much the next time."""
        self._first_us = max(min(self.length_us, self._first_us) // 2, _LEAST_US)

    def note_success(self) -> None:
        """Forget time-outs: all of the past is known."""
        self._first_us = _USUAL_US
