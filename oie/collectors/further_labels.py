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


"""Labels and what a collector adds to them → the same object in each cycle that asks for it.

Most of a line is labels that do not change, so an output keeps what it made of them, as long as
it gets the same object.
"""

from collections.abc import Callable

from oie import model

Key = tuple[model.Labels | str, ...]


class FurtherLabels:
    """Keeps what this cycle and the last one have asked for, and so nothing of what is gone.

    :param make: returns the labels, given others and some values
    """

    def __init__(self, make: Callable[..., model.Labels]) -> None:
        self._make = make
        self._now: dict[Key, model.Labels] = {}
        self._before: dict[Key, model.Labels] = {}

    def begin_cycle(self) -> None:
        """Forget all that the last cycle has not asked for."""
        self._before, self._now = self._now, {}

    def of(self, labels: model.Labels, *values: str) -> model.Labels:
        """Return what is made of the labels and the values."""
        key: Key = (labels, *values)
        found = self._now.get(key)
        if found is None:
            found = self._now[key] = self._before.get(key) or self._make(labels, *values)
        return found
