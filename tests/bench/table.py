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

"""Lines of the table of costs, and how two things are measured in turn."""

from collections.abc import Callable
from collections.abc import Iterable
import dataclasses
import statistics
import time
from typing import Any


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of the table."""

    what: str
    measured: str
    goal: str
    is_reached: bool


def show(title: str, lines: Iterable[Line]) -> None:
    """Print a table as reStructuredText."""
    rows = [
        ('What', 'Measured', 'Goal', ''),
        *(
            (line.what, line.measured, line.goal, 'ok' if line.is_reached else 'MISSED')
            for line in lines
        ),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    rule = '  '.join('=' * max(width, 2) for width in widths)
    print(f'{title}\n\n{rule}')
    for number, row in enumerate(rows):
        print(
            '  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
        if number == 0:
            print(rule)
    print(f'{rule}\n', flush=True)


def in_turn(repeats: int, *functions: Callable[[], Any]) -> list[list[float]]:
    """Return the seconds of each function, called one after the other."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats):
        for function, found in zip(functions, times, strict=True):
            began = time.perf_counter()
            function()
            found.append(time.perf_counter() - began)
    return times


def milliseconds(seconds: list[float]) -> str:
    """Return the median as text."""
    return f'{statistics.median(seconds) * 1000:.1f} ms'
