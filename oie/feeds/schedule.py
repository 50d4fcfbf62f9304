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

"""When a feed is asked next: often enough for us, seldom enough for its publisher.

Of a fetch that the publisher answered, well or not, the next one is at least
``min_interval`` away, over restarts too. Where nobody answered, nobody was
bothered, and the next attempt is made after 30 seconds, then after twice as
long each time, up to the ordinary interval. What the publisher asks for by
Retry-After counts always.
"""

from collections.abc import Callable
import dataclasses

from oie.feeds import state

FIRST_BACKOFF = 30.0
LONGEST_RETRY_AFTER = 86400.0
_LONGEST_START_SPREAD = 30.0
_MOST_DOUBLINGS = 30

Random = Callable[[], float]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often a feed may be asked, in seconds.

    :ivar is_local: whether it is files of this host, which nobody else has to serve
    """

    refresh: float
    min_interval: float
    is_local: bool = False

    @property
    def etiquette(self) -> float:
        """Least time between two fetches that were answered."""
        return 0.0 if self.is_local else self.min_interval


def at_start(
    pace: Pace, known: state.State, now: float, *, has_list: bool, random: Random
) -> float:
    """Return the seconds until the first fetch.

    :param has_list: whether there is a list to use meanwhile; then it may take a
        little longer, so that hosts that start together do not ask together
    :param random: gives a number from 0 to 1
    """
    if pace.is_local:
        return 0.0
    gap = pace.etiquette if known.is_answered else min(FIRST_BACKOFF, pace.refresh)
    wait = gap - state.since(known.last_attempt_at, now)
    if known.not_before is not None:
        wait = max(wait, min(known.not_before - now, LONGEST_RETRY_AFTER))
    spread = min(pace.refresh / 10, _LONGEST_START_SPREAD) * random() if has_list else 0.0
    return max(wait, 0.0) + spread


def after_success(pace: Pace, random: Random) -> float:
    """Return the seconds until the next fetch: the interval, give or take a tenth."""
    return max(pace.refresh * (0.9 + 0.2 * random()), pace.etiquette)


def after_failure(
    pace: Pace,
    failures: int,
    random: Random,
    *,
    is_answered: bool,
    retry_after: float | None = None,
) -> float:
    """Return the seconds until the next attempt.

    :param failures: how many attempts in a row have failed, this one included
    :param is_answered: whether the publisher answered, or may have
    """
    doubled: float = FIRST_BACKOFF * 2 ** min(failures - 1, _MOST_DOUBLINGS)
    wait = min(doubled * (1 + random() / 10), pace.refresh)
    if is_answered:
        wait = max(wait, pace.etiquette)
    asked = min(retry_after or 0.0, LONGEST_RETRY_AFTER)
    return max(wait, asked * (1 + random() / 10))
