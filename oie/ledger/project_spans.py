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

"""Answers about instances → spans of time with a size, each counted once, and their sums.

A total may miss what nobody saw; it never holds what was not used. So no span is counted
twice, whatever a cloud answers later, and where a size changed between two looks the smaller
one counts for that time.
"""

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

from oie import model

GIB = 1024
HOUR_US = 3600 * 10**6
# Weights are whole numbers of so many parts, see oie.config.weight_tables.
ONE = 10**12

# Of vCPUs, MiB and the moment of the start: the weights of both, in parts of ONE.
Weigh = Callable[[int, int, int], tuple[int, int]]


class Life(NamedTuple):
    """What is known of an instance: its size, and up to which moment it is counted.

    ``since_us`` is where the last span begins that has this size and no gap.
    """

    vcpus: int
    memory_mb: int
    since_us: int
    counted_us: int
    ended_us: int | None


class Span(NamedTuple):
    """Time in which an instance had a size; moments in microseconds since 1970."""

    start_us: int
    stop_us: int
    vcpus: int
    memory_mb: int


@dataclasses.dataclass(slots=True)
class Sums:
    """What was used: microseconds times vCPUs or MiB, the weighted ones in parts of ``ONE``.

    Whole numbers, so that no order of additions changes anything. ``floor`` is weighted memory
    in whole GiB of each instance.
    """

    vcpus: int = 0
    memory: int = 0
    weighted_vcpus: int = 0
    weighted_memory: int = 0
    floor: int = 0

    def add(self, span: Span, weights: tuple[int, int]) -> None:
        """Add what a span holds."""
        length = span.stop_us - span.start_us
        memory = length * span.memory_mb
        self.vcpus += length * span.vcpus
        self.memory += memory
        self.weighted_vcpus += length * span.vcpus * weights[0]
        self.weighted_memory += memory * weights[1]
        self.floor += length * (span.memory_mb // GIB) * weights[1]

    def join(self, other: 'Sums') -> None:
        """Add other sums."""
        self.vcpus += other.vcpus
        self.memory += other.memory
        self.weighted_vcpus += other.weighted_vcpus
        self.weighted_memory += other.weighted_memory
        self.floor += other.floor


class Counted(NamedTuple):
    """What one answer about an instance adds.

    ``closed`` are spans that will not grow any more; the one that does is in ``life``.
    """

    life: Life
    added: Span | None = None
    closed: tuple[Span, ...] = ()


def count(
    known: Life | None, seen: model.ServerUsage, *, since_us: int, now_us: int
) -> Counted | None:
    """Return what is known of an instance after this answer, None if there is nothing to count.

    :param since_us: nothing before this moment counts
    :param now_us: nothing after it does: the moment for which the cloud was asked
    """
    until = now_us if seen.ended_us is None else min(seen.ended_us, now_us)
    begin = max(seen.started_us, since_us)
    if known is None:
        if until <= begin:
            return None
        life = Life(seen.vcpus, seen.memory_mb, begin, until, seen.ended_us)
        return Counted(life, Span(begin, until, seen.vcpus, seen.memory_mb))
    begin = max(begin, known.counted_us)
    if until <= begin:
        return Counted(known._replace(ended_us=seen.ended_us))
    return _continued(known, seen, begin, until)


def _continued(known: Life, seen: model.ServerUsage, begin: int, until: int) -> Counted:
    size = (min(known.vcpus, seen.vcpus), min(known.memory_mb, seen.memory_mb))
    added = Span(begin, until, *size)
    is_same = (known.vcpus, known.memory_mb) == (seen.vcpus, seen.memory_mb)
    if is_same and begin == known.counted_us:
        return Counted(known._replace(counted_us=until, ended_us=seen.ended_us), added)
    closed = [added] if not is_same else []
    if known.since_us < known.counted_us:
        closed.insert(0, open_span(known))
    since = begin if is_same else until
    life = Life(seen.vcpus, seen.memory_mb, since, until, seen.ended_us)
    return Counted(life, added, tuple(closed))


def open_span(life: Life) -> Span:
    """Return the last span of an instance, which is empty right after a change of its size."""
    return Span(life.since_us, life.counted_us, life.vcpus, life.memory_mb)
