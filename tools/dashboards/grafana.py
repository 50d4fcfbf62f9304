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


"""Dashboards → the JSON that Grafana provisions and imports.

The form is the classic one of Grafana 10 and later (schemaVersion 39), which later versions
read too: https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import json
from typing import Any

from tools.dashboards import panels

COLUMNS = 24
# Of the queries of one panel.
LETTERS = 'ABCDEFGH'
SCHEMA = 39
TAG = 'oie'
# Where a cell of a table leads: dashboard and variable, by the label that it shows.
LEADS_TO = {
    'instance': ('oie-host', 'host'),
    'instance_uuid': ('oie-instance', 'uuid'),
    'project_uuid': ('oie-project', 'project'),
}
_DATASOURCE = {'type': 'prometheus', 'uid': '${datasource}'}


def text(dashboard: panels.Dashboard) -> str:
    """Return the file of a dashboard."""
    return json.dumps(document(dashboard), indent=1, ensure_ascii=True) + '\n'


def document(dashboard: panels.Dashboard) -> dict[str, Any]:
    """Return a dashboard as Grafana stores it."""
    return {
        'annotations': {'list': []},
        'description': dashboard.description,
        'editable': True,
        'graphTooltip': 1,
        'id': None,
        'links': [_links()],
        'panels': list(_placed(dashboard.rows)),
        'refresh': '1m',
        'schemaVersion': SCHEMA,
        'tags': [TAG],
        'templating': {'list': [_source(), *map(_variable, dashboard.variables)]},
        'time': {'from': 'now-3h', 'to': 'now'},
        'timezone': 'browser',
        'title': dashboard.title,
        'uid': dashboard.uid,
        'version': 1,
    }


def _links() -> dict[str, Any]:
    """Return the way to all dashboards of ours, with the choices that were made."""
    return {
        'asDropdown': True,
        'includeVars': True,
        'keepTime': True,
        'tags': [TAG],
        'title': 'OpenStack instances',
        'type': 'dashboards',
    }


def _source() -> dict[str, Any]:
    return {
        'label': 'Prometheus',
        'name': 'datasource',
        'query': 'prometheus',
        'type': 'datasource',
    }


def _variable(each: panels.Variable) -> dict[str, Any]:
    shown: dict[str, Any] = {
        'datasource': _DATASOURCE,
        'includeAll': each.is_multiple,
        'label': each.title,
        'multi': each.is_multiple,
        'name': each.name,
        'query': {'query': each.query, 'refId': each.name},
        'refresh': 2,
        'regex': each.pattern,
        'sort': 1,
        'type': 'query',
    }
    if each.is_multiple:
        # One word for all keeps the queries short, and does not lose what has no such label.
        shown |= {'allValue': '.*', 'current': {'text': ['All'], 'value': ['$__all']}}
    return shown


def _placed(rows: Iterable[panels.Row]) -> Iterator[dict[str, Any]]:
    """Give headings and panels, numbered, each beside the one before while there is room."""
    number = top = 0
    for row in rows:
        number += 1
        heading = {
            'collapsed': row.is_collapsed,
            'gridPos': {'h': 1, 'w': COLUMNS, 'x': 0, 'y': top},
            'id': number,
            'title': row.title,
            'type': 'row',
        }
        places, bottom = _places(row.panels, top + 1)
        shown = [
            _panel(panel, number + count, place)
            for count, (panel, place) in enumerate(zip(row.panels, places, strict=True), 1)
        ]
        number += len(shown)
        # A row that is folded up holds its panels, an open one has them behind it.
        yield {**heading, 'panels': shown if row.is_collapsed else []}
        if not row.is_collapsed:
            yield from shown
        top = top + 1 if row.is_collapsed else bottom


def _places(row: Iterable[panels.Panel], top: int) -> tuple[list[dict[str, int]], int]:
    """Return the place of each panel, and the line below the last one."""
    places, left, bottom = [], 0, top
    for panel in row:
        if left + panel.width > COLUMNS:
            left, top = 0, bottom
        places.append({'h': panel.height, 'w': panel.width, 'x': left, 'y': top})
        left, bottom = left + panel.width, max(bottom, top + panel.height)
    return places, bottom


def _panel(panel: panels.Panel, number: int, place: Mapping[str, int]) -> dict[str, Any]:
    targets = [
        _target(panel, query, letter)
        for query, letter in zip(panel.queries, LETTERS[: len(panel.queries)], strict=True)
    ]
    shown = {
        'datasource': _DATASOURCE,
        'description': panel.description,
        'fieldConfig': {'defaults': _defaults(panel), 'overrides': _overrides(panel)},
        'gridPos': dict(place),
        'id': number,
        'options': _options(panel),
        'targets': targets,
        'title': panel.title,
        'type': panel.kind,
    }
    return {**shown, 'transformations': _joined(panel)} if panel.kind == 'table' else shown


def _target(panel: panels.Panel, query: panels.Query, letter: str) -> dict[str, Any]:
    is_instant = panel.kind != 'timeseries'
    return {
        'datasource': _DATASOURCE,
        'editorMode': 'code',
        'expr': query.text,
        'format': 'table' if panel.kind == 'table' else 'time_series',
        'instant': is_instant,
        'legendFormat': query.legend,
        'range': not is_instant,
        'refId': letter,
    }


def _defaults(panel: panels.Panel) -> dict[str, Any]:
    steps = [{'color': color, 'value': value} for color, value in panel.steps]
    shown: dict[str, Any] = {
        'mappings': [
            {
                'options': {
                    value: {'color': color, 'index': place, 'text': word}
                    for place, (value, (word, color)) in enumerate(panel.words.items())
                },
                'type': 'value',
            }
        ]
        if panel.words
        else [],
        'thresholds': {'mode': 'absolute', 'steps': steps},
        'unit': panel.unit,
    }
    if panel.minimum is not None:
        shown['min'] = panel.minimum
    if panel.maximum is not None:
        shown['max'] = panel.maximum
    if panel.kind == 'timeseries':
        shown |= {'color': {'mode': 'palette-classic'}, 'custom': _line(panel)}
    return shown


def _line(panel: panels.Panel) -> dict[str, Any]:
    has_limits = len(panel.steps) > 1
    return {
        'drawStyle': 'line',
        'fillOpacity': 25 if panel.is_stacked else 8,
        'lineWidth': 1,
        'showPoints': 'never',
        # A gap is a gap: what was not read must not look like a number.
        'spanNulls': False,
        'stacking': {'group': 'A', 'mode': 'normal' if panel.is_stacked else 'none'},
        'thresholdsStyle': {'mode': 'dashed' if has_limits else 'off'},
    }


def _options(panel: panels.Panel) -> dict[str, Any]:
    if panel.kind == 'timeseries':
        return {
            'legend': {
                'calcs': ['lastNotNull', 'max'],
                'displayMode': 'table',
                'placement': 'bottom',
            },
            'tooltip': {'mode': 'multi', 'sort': 'desc'},
        }
    if panel.kind == 'table':
        return {'cellHeight': 'sm', 'footer': {'show': False}, 'showHeader': True}
    reduced = {'calcs': ['lastNotNull'], 'fields': '', 'values': False}
    if panel.kind == 'bargauge':
        return {'displayMode': 'gradient', 'orientation': 'horizontal', 'reduceOptions': reduced}
    return {'colorMode': 'value', 'graphMode': 'none', 'reduceOptions': reduced}


def _overrides(panel: panels.Panel) -> list[dict[str, Any]]:
    """Return what columns of a table have for themselves: a unit, or a way to more."""
    if panel.kind != 'table':
        return []
    units = [
        _override(title, {'id': 'unit', 'value': unit}) for title, unit in panel.units.items()
    ]
    links = [
        _override(panel.columns[label], {'id': 'links', 'value': [_lead(dashboard, variable)]})
        for label, (dashboard, variable) in LEADS_TO.items()
        if label in panel.columns
    ]
    return units + links


def _override(title: str, *properties: dict[str, Any]) -> dict[str, Any]:
    return {'matcher': {'id': 'byName', 'options': title}, 'properties': list(properties)}


def _lead(dashboard: str, variable: str) -> dict[str, Any]:
    url = f'/d/{dashboard}?var-{variable}=${{__value.raw:percentencode}}&${{__url_time_range}}'
    return {'targetBlank': False, 'title': 'Show it', 'url': url}


def _joined(panel: panels.Panel) -> list[dict[str, Any]]:
    """Return how the answers become one table: joined by labels, ordered, named."""
    order = {name: place for place, name in enumerate(panel.columns)}
    organize = {
        'excludeByName': {'Time': True},
        'indexByName': order,
        'renameByName': dict(panel.columns),
    }
    return [{'id': 'merge', 'options': {}}, {'id': 'organize', 'options': organize}]
