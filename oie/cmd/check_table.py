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

"""Results of checks into a table, JSON and an exit status."""

from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import enum
import json
import shutil
import sys
import textwrap

import prettytable

from oie.config import messages

# Rules between all rows; the name of this number differs between releases.
_RULES = 1
_TITLES = ('Check', 'Result', 'Detail', 'What to do')
# Borders and blanks of four columns.
_FRAME = 13
_NARROWEST = 24


class Result(enum.Enum):
    """How a check ended."""

    OK = 'OK'
    INFO = 'INFO'
    WARNING = 'WARNING'
    FAILURE = 'FAILURE'

    @property
    def status(self) -> int:
        """The exit status it calls for, in the convention of oslo.upgradecheck."""
        return {Result.WARNING: 1, Result.FAILURE: 2}.get(self, 0)


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One check: what was found, and what to do about it."""

    check: str
    result: Result
    detail: str
    advice: str = ''


def status(rows: Iterable[Row]) -> int:
    """Return the exit status: 0 all is well, 1 warnings, 2 a failure."""
    return max((row.result.status for row in rows), default=0)


def table(rows: Sequence[Row], width: int = 0) -> str:
    """Return the rows as a table.

    :param width: columns of the terminal; 0 asks it
    """
    width = width or shutil.get_terminal_size((120, 0)).columns
    drawn = prettytable.PrettyTable(_TITLES, align='l', hrules=_RULES)
    first = max(len(row.check) for row in rows)
    second = max(len(row.result.value) for row in rows)
    rest = max(width - _FRAME - first - second, 2 * _NARROWEST)
    for row in rows:
        cells = (_wrap(row.detail, rest - rest // 3), _wrap(row.advice, rest // 3))
        drawn.add_row([row.check, row.result.value, *cells])
    return _printable(drawn.get_string())


def as_json(title: str, rows: Iterable[Row]) -> str:
    """Return the rows as JSON in the form of oslo.upgradecheck, with advice."""
    checks = [
        {
            'check': row.check,
            'result': row.result.value,
            'details': row.detail,
            'advice': row.advice,
        }
        for row in rows
    ]
    return json.dumps({'name': title, 'checks': checks})


def _wrap(text: str, width: int) -> str:
    # Texts come from files, libvirt and guests: none may break out of its cell.
    shown = ''.join(c if c.isprintable() else '?' for c in messages.one_line(text))
    return textwrap.fill(shown, width, break_on_hyphens=False)


def _printable(text: str) -> str:
    """Return the text with escapes for what stdout cannot show."""
    encoding = sys.stdout.encoding or 'ascii'
    return text.encode(encoding, 'backslashreplace').decode(encoding)
