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

"""A list as a table: addresses in one column of CSV, chosen by another one at wish."""

from collections.abc import Iterator
from collections.abc import Sequence
import csv

from oslo_config import cfg

from oie import exceptions
from oie.config import messages
from oie.feeds import base
from oie.feeds import sources
from oie.feeds import text

_DELIMITERS = {'comma': ',', 'semicolon': ';', 'tab': '\t', 'bar': '|'}
_NOT_ZERO = '^(?!0+$)'


class CsvListFeed(base.ThreatFeed):
    """A column of a table (CSV); a line that begins with # is a comment."""

    OPTS = (
        *base.options(),
        sources.PATH,
        cfg.StrOpt(
            'column',
            default='1',
            regex=_NOT_ZERO,
            help='Column of the address, network or range, by number from 1 or by its name in the '
            'first line. A port behind an address is left out.',
        ),
        cfg.BoolOpt(
            'header',
            default=False,
            help='Whether the first line holds names. Where a column is given by name it does.',
        ),
        cfg.StrOpt(
            'delimiter',
            default='comma',
            choices=[(name, repr(character)) for name, character in _DELIMITERS.items()],
            help='What stands between two columns.',
        ),
        cfg.StrOpt(
            'where_column',
            default='',
            regex=_NOT_ZERO,
            help='Column of a number that chooses, such as a confidence. Empty: all rows count.',
        ),
        cfg.FloatOpt(
            'at_least',
            default=0,
            help='The number that where_column must have for a row to count.',
        ),
    )

    def sources(self) -> tuple[str, ...]:
        """Return the one document."""
        return sources.of_url_or_path(self.settings)

    def parse(self, document: bytes) -> Iterator[str]:
        """Yield what the column says in each row that counts.

        :raises FeedError: a column is missing in the first line, or quotes do not match
        """
        lines = (line for line in text.lines(document) if not line.startswith('#'))
        delimiter = _DELIMITERS[self.settings.delimiter]
        rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
        try:
            yield from self._entries(row for row in rows if row)
        except csv.Error as exc:
            raise exceptions.FeedError(f'line {rows.line_num} is not CSV: {exc}') from exc

    def _entries(self, rows: Iterator[Sequence[str]]) -> Iterator[str]:
        column, where = self.settings.column, self.settings.where_column
        has_names = self.settings.header or not (column + where).isdecimal()
        names = next(rows, ()) if has_names else ()
        place = _place(column, names)
        number_place = _place(where, names) if where else None
        for row in rows:
            entry = text.without_port(_cell(row, place))
            if number_place is None:
                yield entry
            else:
                yield from _chosen(entry, _cell(row, number_place), self.settings.at_least)


def _chosen(entry: str, number: str, at_least: float) -> Iterator[str]:
    """Yield the entry if its number is large enough, a bad entry if that is none."""
    try:
        if float(number) >= at_least:
            yield entry
    except ValueError:
        yield f'no number: {number}'


def _place(column: str, names: Sequence[str]) -> int:
    if column.isdecimal():
        return int(column) - 1
    if column not in names:
        known = ', '.join(map(messages.shown, names[:20])) or 'none'
        raise exceptions.FeedError(f'it has no column {column}; the first line names: {known}')
    return names.index(column)


def _cell(row: Sequence[str], place: int) -> str:
    return row[place].strip() if place < len(row) else ''
