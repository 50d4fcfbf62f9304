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

"""Entries that came twice, found by 64 bits of each.

Who makes flows chooses addresses and ports, but neither the multipliers, random for
each dump, nor the ids, which the kernel draws: nobody can make two entries that look
like one. By chance two of a million do in one dump of thirty million.
"""

import secrets

import numpy as np
import numpy.typing as npt

from oie.sources import flow_columns


class Fingerprints:
    """Those of one dump."""

    def __init__(self) -> None:
        self._multipliers: list[np.uint64] = []
        self._found: list[npt.NDArray[np.uint64]] = []

    def add(self, flows: flow_columns.Flows) -> None:
        """Note entries."""
        found = np.full(len(flows), flows.family, np.uint64)
        for place, column in enumerate(flows.identity()):
            if place == len(self._multipliers):
                self._multipliers.append(np.uint64(secrets.randbits(64) | 1))
            # The columns have 32 bits for a reason. Of a difference in the highest
            # of 64 bits any multiplication leaves just that bit, and with it the
            # chance to undo it in the next column.
            found ^= column
            found *= self._multipliers[place]
            found ^= found >> np.uint64(32)
        self._found.append(found)

    def duplicates(self) -> int:
        """Return how many entries had been noted before."""
        every = np.concatenate((np.zeros(0, np.uint64), *self._found))
        every.sort()
        return int(np.count_nonzero(every[1:] == every[:-1]))
