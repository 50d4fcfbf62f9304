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
set is kept for as long as its object is in use, because most of a line is
labels that do not change.
"""

from collections.abc import Iterable
from collections.abc import Iterator
import dataclasses
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

_TYPES = {
    model.Kind.GAUGE: 'gauge',
    model.Kind.INFO: 'gauge',
    model.Kind.CUMULATIVE: 'counter',
    model.Kind.SUMMARY: 'summary',
    model.Kind.HISTOGRAM: 'histogram',
}


@dataclasses.dataclass(frozen=True, slots=True)
class Exposition:
    """The bytes of one cycle, ready to be written."""

    text: bytes = b''
    gzipped: bytes = b''
    series: int = 0


class Renderer:
    """Writes families down; keeps the text of label sets between cycles."""

    def __init__(self) -> None:
        self._texts: dict[model.Labels, str] = {}
        self._failures = failures.LastingFailures(LOG)
        self._doubled: frozenset[str] = frozenset()

    def render(self, families: Iterable[model.Family]) -> Exposition:
        """Return the exposition of one cycle."""
        lines: list[str] = []
        series = 0
        known, self._texts = self._texts, {}
        doubled: dict[str, str] = {}
        for name, group in _by_name(families).items():
            lines.append(_header(group[0].meter))
            before = len(lines)
            lines.extend(self._samples(name, group, known, doubled))
            series += len(lines) - before
        self._report(doubled)
        text = ''.join(lines).encode('utf-8', 'replace')
        return Exposition(text, _gzip(text), series)

    def _samples(
        self,
        name: str,
        group: list[model.Family],
        known: dict[model.Labels, str],
        doubled: dict[str, str],
    ) -> Iterator[str]:
        """Give the lines of one name; of two with equal labels only the first.

        Prometheus would refuse the whole scrape for the second.
        """
        texts = self._texts
        shown: dict[str, set[str]] = {}
        for family in group:
            start = f'{name}{family.suffix}'
            seen = shown.setdefault(start, set())
            for labels, value in family.samples:
                text = texts.get(labels)
                if text is None:
                    text = texts[labels] = known.get(labels) or _labels(labels)
                if text in seen:
                    doubled.setdefault(start, text)
                    continue
                seen.add(text)
                yield f'{start}{text} {_number(value)}\n'

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


def _labels(labels: model.Labels) -> str:
    if not labels.pairs:
        return ''
    pairs = ','.join(f'{name}="{_escape(value)}"' for name, value in labels.pairs)
    # Here, not only at the end: two texts must not become equal after the comparison.
    return f'{{{pairs}}}'.encode('utf-8', 'replace').decode()


def _escape(value: str) -> str:
    return value.replace('\\', r'\\').replace('\n', r'\n').replace('"', r'\"')


def _escape_help(text: str) -> str:
    return text.replace('\\', r'\\').replace('\n', r'\n')


def _number(value: float | int) -> str:
    if value.__class__ is int:
        return str(value)
    if math.isfinite(value):
        return repr(float(value))
    return 'NaN' if math.isnan(value) else '+Inf' if value > 0 else '-Inf'


def _gzip(text: bytes) -> bytes:
    compressor = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
    return compressor.compress(text) + compressor.flush()
