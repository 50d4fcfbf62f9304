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


"""Draws what the dashboards would show, by the answers of a real Prometheus: a PNG for each.

For where no Grafana is at hand: it asks every query of every panel, and places the pictures
as Grafana does. What a panel says that has no data is the reason. Needs matplotlib, which
nothing else here does:

    pip install matplotlib
    python tools/draw_dashboards.py --prometheus http://127.0.0.1:9090 --output /tmp/pictures \\
        --set uuid=6c1f0a3e-3f5b-4a57-9b61-2f1d5a7c9e01
"""

import argparse
from collections.abc import Mapping
from collections.abc import Sequence
import json
import pathlib
import re
import sys
import time
from typing import Any
import urllib.error
import urllib.parse
import urllib.request

from matplotlib import pyplot

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.dashboards import grafana  # noqa: E402
from tools.dashboards import panels  # noqa: E402
from tools.dashboards import shipped  # noqa: E402

# Inches for one unit of Grafana's grid.
ACROSS, DOWN = 0.85, 0.42
POINTS = 300
MOST_ROWS, MOST_NAMES = 12, 8
SECONDS = 30
DARK = {
    'axes.edgecolor': '#3a4450',
    'axes.facecolor': '#181b1f',
    'axes.labelcolor': '#c7d0d9',
    'axes.prop_cycle': pyplot.cycler(
        color=['#73bf69', '#f2cc0c', '#5794f2', '#ff9830', '#f2495c', '#b877d9', '#37872d']
    ),
    'axes.titlecolor': '#e4e9ee',
    'figure.facecolor': '#111217',
    'font.size': 7,
    'grid.color': '#2b3138',
    'text.color': '#e4e9ee',
    'xtick.color': '#9aa7b4',
    'ytick.color': '#9aa7b4',
}
COLORS = {
    'blue': '#5794f2',
    'green': '#73bf69',
    'orange': '#ff9830',
    'red': '#f2495c',
    'text': '#c7d0d9',
}
BINARY, DECIMAL = ('', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi'), ('', 'k', 'M', 'G', 'T', 'P')


class Prometheus:
    """A Prometheus, and the values of the variables in what it is asked."""

    def __init__(self, url: str, values: Mapping[str, str], end: float, seconds: float) -> None:
        self._url = url.rstrip('/')
        self._values = values
        self.end, self.seconds = end, seconds

    def now(self, query: str) -> list[dict[str, Any]]:
        """Return the series of a moment."""
        return self._ask('query', query=self._filled(query), time=str(self.end))

    def history(self, query: str) -> list[dict[str, Any]]:
        """Return the series over the time shown."""
        begin, step = self.end - self.seconds, self.seconds / POINTS
        given = {'start': str(begin), 'end': str(self.end), 'step': str(max(1.0, step))}
        return self._ask('query_range', query=self._filled(query), **given)

    def _filled(self, query: str) -> str:
        for name in sorted(self._values, key=len, reverse=True):
            query = query.replace(f'${name}', self._values[name])
        return query

    def _ask(self, call: str, **parameters: str) -> list[dict[str, Any]]:
        url = f'{self._url}/api/v1/{call}?{urllib.parse.urlencode(parameters)}'
        try:
            with urllib.request.urlopen(url, timeout=SECONDS) as answer:  # noqa: S310
                return list(json.load(answer)['data']['result'])
        except urllib.error.HTTPError as exc:
            said = json.load(exc)['error']
            raise SystemExit(f'{parameters["query"]}: {said}') from exc


def main() -> int:
    """Draw all dashboards; return 1 if a query had no data."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--prometheus', default='http://127.0.0.1:9090', help='its address')
    parser.add_argument('--output', default='.', type=pathlib.Path, help='directory of the PNGs')
    parser.add_argument('--seconds', default=3600.0, type=float, help='length of the time shown')
    parser.add_argument('--end', default=time.time(), type=float, help='Unix time of its end')
    parser.add_argument(
        '--set', action='append', default=[], metavar='NAME=VALUE', help='a choice, such as uuid'
    )
    given = parser.parse_args()
    values = {
        **dict.fromkeys(('host', 'project', 'location'), '.*'),
        '__rate_interval': '2m',
        '__range': f'{given.seconds:.0f}s',
        **dict(each.split('=', 1) for each in given.set),
    }
    prometheus = Prometheus(given.prometheus, values, given.end, given.seconds)
    missing = []
    with pyplot.rc_context(DARK):
        for dashboard in shipped.ALL:
            path = given.output / f'{dashboard.uid}.png'
            missing += draw(dashboard, prometheus, path)
            print(path)
    print('\n'.join(f'no data: {each}' for each in missing))
    return int(bool(missing))


def draw(dashboard: panels.Dashboard, prometheus: Prometheus, path: pathlib.Path) -> list[str]:
    """Write the picture of a dashboard; return the titles of panels without data."""
    known = {(each.title, each.description): each for each in dashboard.panels()}
    places = grafana.document(dashboard)['panels']
    height = max(place['gridPos']['y'] + place['gridPos']['h'] for place in places)
    figure = pyplot.figure(figsize=(grafana.COLUMNS * ACROSS, (height + 1) * DOWN))
    figure.suptitle(dashboard.title, x=0.01, y=0.999, ha='left', size=13)
    missing = []
    for place in places:
        grid = place['gridPos']
        if place['type'] == 'row':
            y = 1 - (grid['y'] + 1.7) / (height + 1)
            figure.text(0.008, y, place['title'], size=10, weight='bold')
            continue
        # A margin for the title above, and for the numbers beside.
        left, below = (0.55 if place['type'] == 'timeseries' else 0.1), 0.35
        box = (
            (grid['x'] + 0.25 + left) / grafana.COLUMNS,
            1 - (grid['y'] + grid['h'] + 1 - below) / (height + 1),
            (grid['w'] - 0.5 - left) / grafana.COLUMNS,
            (grid['h'] - 1.1 - below) / (height + 1),
        )
        panel = known[place['title'], place['description']]
        if not _panel(figure.add_axes(box), panel, prometheus):
            missing.append(f'{dashboard.title} / {panel.title}')
    figure.savefig(path, dpi=80)
    pyplot.close(figure)
    return missing


def _panel(axes: Any, panel: panels.Panel, prometheus: Prometheus) -> bool:
    """Draw one panel; return whether each of its queries had data."""
    axes.set_title(panel.title, loc='left', size=8)
    ask = prometheus.history if panel.kind == 'timeseries' else prometheus.now
    answers = [ask(query.text) for query in panel.queries]
    if not any(answers):
        axes.text(0.5, 0.5, 'no data', ha='center', color=COLORS['red'])
        axes.axis('off')
    elif panel.kind == 'timeseries':
        _lines(axes, panel, answers)
    elif panel.kind == 'table':
        _table(axes, panel, answers)
    elif panel.kind == 'bargauge':
        _bars(axes, panel, answers)
    else:
        value = float(answers[0][0]['value'][1])
        axes.text(
            0.5, 0.45, _shown(panel, value), ha='center', size=15, color=_color(panel, value)
        )
        axes.axis('off')
    return all(answers)


def _lines(axes: Any, panel: panels.Panel, answers: Sequence[list[dict[str, Any]]]) -> None:
    named = [
        (_name(query, series), [(float(at), float(value)) for at, value in series['values']])
        for query, found in zip(panel.queries, answers, strict=True)
        for series in found
    ]
    for place, (name, points) in enumerate(named):
        moments, values = zip(*points, strict=True)
        axes.plot(moments, values, linewidth=0.9, label=name if place < MOST_NAMES else None)
        axes.fill_between(moments, values, alpha=0.08)
    for _, limit in panel.steps[1:]:
        axes.axhline(limit, color=COLORS['red'], linewidth=0.6, linestyle='--')
    axes.set_ylim(bottom=panel.minimum, top=panel.maximum)
    axes.yaxis.set_major_formatter(lambda value, _: _number(panel.unit, value))
    axes.xaxis.set_major_formatter(lambda at, _: time.strftime('%H:%M', time.gmtime(at)))
    axes.xaxis.set_major_locator(pyplot.MaxNLocator(5))
    axes.grid(visible=True, linewidth=0.4)
    axes.legend(fontsize=5.5, loc='upper left', framealpha=0.5, ncols=2)


def _bars(axes: Any, panel: panels.Panel, answers: Sequence[list[dict[str, Any]]]) -> None:
    pairs = [(_name(panel.queries[0], series), float(series['value'][1])) for series in answers[0]]
    names, values = zip(*pairs[:MOST_ROWS], strict=True)
    axes.barh(names, values, color=[_color(panel, value) for value in values])
    axes.set_xlim(0, panel.maximum)
    axes.tick_params(axis='y', direction='in', pad=-4)
    for label in axes.get_yticklabels():
        label.set_horizontalalignment('left')
        label.set_color('white')
    axes.xaxis.set_major_formatter(lambda value, _: _number(panel.unit, value))


def _table(axes: Any, panel: panels.Panel, answers: Sequence[list[dict[str, Any]]]) -> None:
    rows: list[dict[str, str]] = []
    for letter, found in zip(grafana.LETTERS, answers, strict=False):
        column = 'Value' if len(answers) == 1 else f'Value #{letter}'
        title = panel.columns[column]
        for series in found:
            row = _row(rows, series['metric'])
            row[column] = _shown(panel, float(series['value'][1]), panel.units.get(title))
    cells = [
        [re.sub(r'\s', ' ', row.get(name, ''))[:22] for name in panel.columns]
        for row in rows[:MOST_ROWS]
    ]
    axes.axis('off')
    drawn = axes.table(
        cellText=cells, colLabels=list(panel.columns.values()), loc='upper left', cellLoc='left'
    )
    for cell in drawn.get_celld().values():
        cell.set(facecolor='#181b1f', edgecolor='#2b3138')
        cell.get_text().set_color('#e4e9ee')


def _row(rows: list[dict[str, str]], labels: Mapping[str, str]) -> dict[str, str]:
    """Return the row that says nothing else of any of these labels, a new one if there is none."""
    for row in rows:
        if all(row.get(name, value) == value for name, value in labels.items()):
            row.update(labels)
            return row
    rows.append(dict(labels))
    return rows[-1]


def _name(query: panels.Query, series: Mapping[str, Any]) -> str:
    labels = series['metric']
    name = re.sub(r'\{\{(\w+)\}\}', lambda found: labels.get(found[1], ''), query.legend)
    return name[:42] or ' '


def _shown(panel: panels.Panel, value: float, unit: str | None = None) -> str:
    if unit is None and f'{value:g}' in panel.words:
        return panel.words[f'{value:g}'][0]
    return _number(unit or panel.unit, value)


def _color(panel: panels.Panel, value: float) -> str:
    if f'{value:g}' in panel.words:
        return COLORS[panel.words[f'{value:g}'][1]]
    passed = [color for color, limit in panel.steps if limit is None or value >= limit]
    return COLORS[passed[-1]]


def _number(unit: str, value: float) -> str:
    """Return a number about as Grafana writes it."""
    if unit == 'percentunit':
        return f'{100 * value:.3g} %'
    if unit == 'bool_yes_no':
        return 'yes' if value else 'no'
    if unit == 's' and 0 < abs(value) < 1:
        return f'{1000 * value:.3g} ms'
    if unit == 's' and abs(value) >= 3600:
        return f'{value / 3600:.3g} h'
    base, signs = (1024, BINARY) if unit == 'bytes' else (1000, DECIMAL)
    power = 0
    while abs(value) >= base and power < len(signs) - 1:
        value, power = value / base, power + 1
    tail = {'bytes': 'B', 'Bps': 'B/s', 's': ' s', 'h': ' h', 'gbytes': ' GiB', 'pps': ' p/s'}
    return f'{value:.3g} {signs[power]}{tail.get(unit, "")}'.replace('  ', ' ').strip()


if __name__ == '__main__':
    sys.exit(main())
