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

"""Samples → Prometheus' text format 0.0.4, names literally as they are.

Rendered once per cycle; a scrape writes the ready bytes. The text of a label
set is kept with its object, because most of a line is labels that do not
change.
"""

from collections.abc import Iterable
import dataclasses
import io
import logging
import math
import zlib

from oie import failures
from oie import model

LOG = logging.getLogger(__name__)

CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

# Level 1: most of the text is repeated labels, higher levels cost far more CPU
# than they save bytes.
GZIP_LEVEL = 1
_GZIP_WINDOW = 31
# Of 200 instances it is less; more is as large as all else that a cycle of a network node keeps.
_MOST_PLAIN = 2 * 2**20

Values = list[float | int]

_TYPES = {
    model.Kind.GAUGE: 'gauge',
    model.Kind.INFO: 'gauge',
    model.Kind.CUMULATIVE: 'counter',
    model.Kind.SUMMARY: 'summary',
    model.Kind.HISTOGRAM: 'histogram',
}


@dataclasses.dataclass(frozen=True, slots=True)
class Exposition:
    """The bytes of one cycle, ready to be written.

    ``plain`` is None where that is long: Prometheus always takes the other one.
    """

    plain: bytes | None = b''
    gzipped: bytes = b''
    series: int = 0

    @property
    def text(self) -> bytes:
        """The exposition as it is, not compressed."""
        if self.plain is not None:
            return self.plain
        return zlib.decompress(self.gzipped, _GZIP_WINDOW)


class Renderer:
    """Writes families down; the text of label sets is kept with them between cycles."""

    def __init__(self) -> None:
        # The texts of each column of labels of one cycle, by its id; families share columns.
        self._columns: dict[int, tuple[list[str], frozenset[str]]] = {}
        self._failures = failures.LastingFailures(LOG)
        self._doubled: frozenset[str] = frozenset()

    def render(self, families: Iterable[model.Family]) -> Exposition:
        """Return the exposition of one cycle.

        Name by name, so that the lines of only one are in memory beside the bytes.
        """
        gzipped = io.BytesIO()
        plain: io.BytesIO | None = io.BytesIO()
        compressor = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
        series = 0
        doubled: dict[str, str] = {}
        for group in _by_name(families).values():
            lines = self._lines(group, doubled)
            series += len(lines)
            block = (_header(group[0].meter) + ''.join(lines)).encode('utf-8', 'replace')
            gzipped.write(compressor.compress(block))
            if plain is not None and plain.tell() + len(block) <= _MOST_PLAIN:
                plain.write(block)
            else:
                plain = None
        gzipped.write(compressor.flush())
        self._columns = {}
        self._report(doubled)
        text = None if plain is None else plain.getvalue()
        return Exposition(text, gzipped.getvalue(), series)

    def _lines(self, group: list[model.Family], doubled: dict[str, str]) -> list[str]:
        """Return the lines of one name; of two with equal labels only the first.

        Prometheus would refuse the whole scrape for the second.
        """
        lines: list[str] = []
        shown: dict[str, set[str]] = {}
        for family in group:
            start = f'{family.meter.prometheus}{family.suffix}'
            seen, values = shown.setdefault(start, set()), family.values
            texts, fresh = self._column(family.labels)
            if len(fresh) < len(texts) or not seen.isdisjoint(fresh):
                texts, values = _only_first(start, texts, values, seen, doubled)
            if len(group) > 1:
                seen |= fresh
            # Most values are integers: here they cost no call.
            lines += [
                f'{start}{text} {value if value.__class__ is int else _number(value)}\n'
                for text, value in zip(texts, values, strict=True)
            ]
        return lines

    def _column(self, column: list[model.Labels]) -> tuple[list[str], frozenset[str]]:
        """Return the text of each label set, and once more those that differ."""
        found = self._columns.get(id(column))
        if found is None:
            # A label set of an earlier cycle, or of another column, has its text already.
            texts = [
                _write(labels) if labels.written is None else labels.written for labels in column
            ]
            found = self._columns[id(column)] = (texts, frozenset(texts))
        return found

    def _report(self, doubled: dict[str, str]) -> None:
        for name, text in doubled.items():
            self._failures.report(name, 'the second of two samples is left out', text)
        for name in self._doubled - doubled.keys():
            self._failures.settle(name, 'the second of two samples is left out')
        self._doubled = frozenset(doubled)


def _header(meter: model.Meter) -> str:
    return (
        f'# HELP {meter.prometheus} {_escape_help(meter.help)}\n'
        f'# TYPE {meter.prometheus} {_TYPES[meter.kind]}\n'
    )


def _by_name(families: Iterable[model.Family]) -> dict[str, list[model.Family]]:
    """Return the families by their name: the format wants each name only once."""
    found: dict[str, list[model.Family]] = {}
    for family in families:
        found.setdefault(family.meter.prometheus, []).append(family)
    return found


def _write(labels: model.Labels) -> str:
    if not labels.names:
        return labels.write('')
    pairs = ','.join(f'{name}="{_escape(value)}"' for name, value in labels.pairs)
    # Here, not only at the end: two texts must not become equal after the comparison.
    return labels.write(f'{{{pairs}}}'.encode('utf-8', 'replace').decode())


def _escape(value: str) -> str:
    return value.replace('\\', r'\\').replace('\n', r'\n').replace('"', r'\"')


def _escape_help(text: str) -> str:
    return text.replace('\\', r'\\').replace('\n', r'\n')


def _only_first(
    start: str, texts: list[str], values: Values, seen: set[str], doubled: dict[str, str]
) -> tuple[list[str], Values]:
    """Return texts and values without those whose labels were there before; note one of them."""
    found: dict[str, float | int] = {}
    for text, value in zip(texts, values, strict=True):
        if text in seen or text in found:
            doubled.setdefault(start, text)
        else:
            found[text] = value
    return list(found), list(found.values())


def _number(value: float | int) -> str:
    if value.__class__ is int:
        return str(value)
    if math.isfinite(value):
        return repr(float(value))
    return 'NaN' if math.isnan(value) else '+Inf' if value > 0 else '-Inf'
