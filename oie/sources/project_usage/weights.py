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

"""Documents with weights and their history → the weights of an instance by its size and start.

The set that counts is the newest one that is not younger than the instance, else the oldest:
a change of weights never touches an instance that was there before.
"""

from collections.abc import Callable
from collections.abc import Sequence
import decimal
import time
from typing import Any
from typing import NamedTuple

from oie import exceptions
from oie.config import messages
from oie.config import weight_tables
from oie.sources.project_usage import documents

_MICROSECOND = 10**6
_MEBIBYTES = 1024
_REASON = 'weights'
_TABLES = ('vcpus', 'memory_mb')
_MOST_KEYS = 8


class Set(NamedTuple):
    """Weights that count from a moment on, in microseconds since 1970."""

    from_us: int
    vcpus: weight_tables.Table
    memory: weight_tables.Table


def parse(document: Any) -> tuple[Set, ...]:
    """Return the sets of a document, the oldest first.

    A document without sets, or a set without one of its tables, is refused: everything would
    count once then, for good, which nobody writes weights for.

    :param document: a list of sets, or a mapping that has it as ``weights``
    :raises ValueError: it is none; the text says where
    """
    listed = document.get('weights') if isinstance(document, dict) else document
    if not isinstance(listed, list):
        raise ValueError('the weights are no list of sets')
    if not listed:
        raise ValueError(
            'there are no weights in it; write a set, or leave the option out to count all once'
        )
    found = [_set(each, f'set {number}') for number, each in enumerate(listed, 1)]
    moments = [each.from_us for each in found]
    if len(set(moments)) < len(moments):
        raise ValueError('two sets have one resource_set_timestamp')
    return tuple(sorted(found))


def _set(found: Any, place: str) -> Set:
    if not isinstance(found, dict):
        raise ValueError(f'{place} is no mapping')
    moment = _number(found.get('resource_set_timestamp'), f'{place}: resource_set_timestamp')
    missing = [key for key in _TABLES if key not in found]
    if missing:
        listed = ', '.join(messages.quoted(key) for key in list(found)[:_MOST_KEYS])
        raise ValueError(f'{place} has no {missing[0]}, only {listed}; an empty list counts once')
    tables = [_table(found[key], f'{place}: {key}') for key in _TABLES]
    return Set(int(moment * _MICROSECOND), *tables)


def _table(found: Any, place: str) -> weight_tables.Table:
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ValueError(f'{place} is no list of mappings')
    try:
        return weight_tables.checked(
            (_number(each.get('value'), 'value'), _number(each.get('weight'), 'weight'))
            for each in found
        )
    except ValueError as exc:
        raise ValueError(f'{place}: {exc}') from exc


def _number(value: Any, place: str) -> decimal.Decimal:
    # A text is no number here: whoever wrote it meant something else.
    if isinstance(value, str):
        raise ValueError(f'{place}: {messages.quoted(value)} is a text, not a number')
    try:
        return weight_tables.number(value)
    except ValueError as exc:
        raise ValueError(f'{place}: {exc}') from exc


def chosen(sets: Sequence[Set], started_us: int) -> Set | None:
    """Return the set that counts for an instance, None where there are none."""
    found = sets[0] if sets else None
    for each in sets:
        if each.from_us <= started_us:
            found = each
    return found


def amount_of_memory(memory_mb: int, unit: str) -> int | decimal.Decimal:
    """Return the memory in a unit of ``[usage] memory_unit``."""
    if unit == 'gib_floor':
        return memory_mb // _MEBIBYTES
    return decimal.Decimal(memory_mb) / _MEBIBYTES if unit == 'gib' else memory_mb


class Weigher:
    """Weights of instances; those of one size and set are looked up once."""

    def __init__(self, sets: Sequence[Set], unit: str) -> None:
        self._sets = sets
        self._unit = unit
        self._memory: dict[tuple[Set | None, int, int], tuple[int, int]] = {}

    def __call__(self, vcpus: int, memory_mb: int, started_us: int) -> tuple[int, int]:
        """Return the weights of vCPUs and memory in parts of weight_tables.ONE."""
        wanted = chosen(self._sets, started_us)
        key = (wanted, vcpus, memory_mb)
        found = self._memory.get(key)
        if found is None:
            tables = ((), ()) if wanted is None else (wanted.vcpus, wanted.memory)
            found = self._memory[key] = (
                weight_tables.parts_of(tables[0], vcpus),
                weight_tables.parts_of(tables[1], amount_of_memory(memory_mb, self._unit)),
            )
        return found


class Weights:
    """Reads the weights now and then, and keeps the last good ones.

    :param place: a path or a URL; empty for the fixed ones
    :param every: calls of ``refresh`` from one reading to the next
    """

    def __init__(
        self,
        place: str,
        fixed: Set,
        unit: str,
        *,
        every: int,
        timeout: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._place = place
        self._unit = unit
        self._every = every
        self._timeout = timeout
        self._clock = clock
        self._calls = 0
        self._sets: Sequence[Set] | None = None if place else (fixed,)
        self.read_at: float | None = None

    def refresh(self) -> None:
        """Read the weights if it is time to.

        :raises UsageError: they are not there, or wrong; those before stay
        """
        if not self._place:
            return
        is_due = self._calls % self._every == 0
        if is_due:
            document = documents.read(self._place, reason=_REASON, timeout=self._timeout)
            try:
                self._sets = parse(document)
            except ValueError as exc:
                shown = self._place.partition('?')[0]
                raise exceptions.UsageError(_REASON, f'{shown}: {exc}') from exc
            self.read_at = self._clock()
        self._calls += 1

    def weigher(self) -> Weigher:
        """Return what weighs by the weights as they were last read.

        :raises UsageError: they were never read
        """
        if self._sets is None:
            raise exceptions.UsageError(_REASON, 'nothing is counted before weights are known')
        return Weigher(self._sets, self._unit)
