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


"""Every query of every dashboard has data in a real Prometheus that scraped a whole node.

The node is the recorded one that shows all there is (tests/functional/lively.py), so this
covers what needs hardware or a newer libvirt too, as far as its series have the right names
and labels.
"""

from collections.abc import Iterator
import importlib.util
import itertools
import json
import math
import re
from typing import Any

import pytest

from tests import builders
from tests.functional import lively
from tests.functional import processes
from tests.functional import servers
from tools.dashboards import grafana
from tools.dashboards import panels
from tools.dashboards import shipped

# What Grafana would put in: all hosts and projects, one instance, and short windows.
VALUES = {
    '$host': '.*',
    '$project': '.*',
    '$location': '.*',
    '$uuid': builders.UUID,
    '$__rate_interval': '4s',
    '$__range': '12s',
}
PANELS = [
    pytest.param(panel, id=f'{each.uid}-{number}-{panel.title}')
    for each in shipped.ALL
    for number, panel in enumerate(each.panels())
]
VARIABLES = {each.name: each for board in shipped.ALL for each in board.variables}
_LEGEND = re.compile(r'\{\{(\w+)\}\}')


@pytest.fixture(scope='module')
def prometheus(laboratory: None) -> Iterator[servers.Prometheus]:
    with lively.Node() as node, servers.Prometheus(node.address) as running:
        running.wait_until_up()
        # Until the longest window holds enough scrapes.
        enough = f'count_over_time(oie_libvirt_up[{VALUES["$__range"]}]) >= 12'
        processes.wait_for(lambda: running.query(enough), 30, 'twelve seconds of scrapes')
        yield running


@pytest.mark.parametrize('panel', PANELS)
def test_every_query_has_data_and_the_labels_that_its_panel_shows(
    panel: panels.Panel, prometheus: servers.Prometheus
) -> None:
    for query in panel.queries:
        found = prometheus.query(filled(query.text))

        assert found, query.text
        values = [float(series['value'][1]) for series in found]
        assert any(math.isfinite(value) for value in values), (query.text, values)
        labels = set.union(*(set(series['metric']) for series in found))
        assert set(_LEGEND.findall(query.legend)) <= labels | {'location'}, query.text
        if panel.kind == 'stat':
            assert len(found) == 1, query.text


@pytest.mark.parametrize('panel', [each for each in PANELS if each.values[0].kind == 'table'])
def test_every_table_has_columns_for_what_its_queries_give(
    panel: panels.Panel, prometheus: servers.Prometheus
) -> None:
    answers = [prometheus.query(filled(query.text)) for query in panel.queries]
    labels = [set.union(*(set(each['metric']) for each in found)) for found in answers]
    # A portal knows sites, a site itself does not.
    known = {name for name in panel.columns if not name.startswith('Value')} - {'location'}

    assert set.union(*labels) - {'location'} == known
    # Rows become one where they have labels in common.
    assert set.intersection(*labels)
    values = [name for name in panel.columns if name.startswith('Value')]
    letters = grafana.LETTERS[: len(panel.queries)]
    assert values == (['Value'] if len(letters) == 1 else [f'Value #{each}' for each in letters])


@pytest.mark.parametrize('panel', [each for each in PANELS if each.values[0].kind != 'table'])
def test_every_line_of_a_graph_has_a_name_of_its_own(
    panel: panels.Panel, prometheus: servers.Prometheus
) -> None:
    names = [
        _LEGEND.sub(lambda found, of=series: of['metric'].get(found[1], ''), query.legend)  # type: ignore[misc]
        for query in panel.queries
        for series in prometheus.query(filled(query.text))
    ]
    assert len(names) == len(set(names)), names


@pytest.mark.parametrize('name', VARIABLES)
def test_every_choice_above_a_dashboard_offers_something(
    name: str, prometheus: servers.Prometheus
) -> None:
    offered = _offered(VARIABLES[name], prometheus)

    expected = {
        'host': [('', prometheus.targets()[0]['labels']['instance'])],
        # What belongs to no project is under "All".
        'project': [('shop', builders.PROJECT)],
        'uuid': [
            # A guest that Nova does not know, under its name in libvirt.
            ('a "guest"\\with\nlines, \N{SNOWMAN}', '00000000-0000-4000-8000-000000000003'),
            ('db-1', '7d2a1b4f-0000-4000-8000-000000000002'),
            ('web-1', builders.UUID),
        ],
        # A site itself has no location; "All" is offered by Grafana.
        'location': [],
    }
    assert sorted(offered) == expected[name]


def test_what_a_tenant_names_its_project_chooses_no_other_project() -> None:
    """The name holds what would end it; Grafana quotes nothing in the text that it searches."""
    enemy = 'x",project_uuid="stolen"} 1 2'
    shown = f'{{project_name="{enemy}",project_uuid="own"}} 1 1795000000000'
    found = _pattern(VARIABLES['project'].pattern).search(shown)
    assert found is not None
    assert found.groupdict() == {'text': enemy, 'value': 'own'}

    name = '",name="x"} 1 2'
    shown = f'{{instance_uuid="own",name="{name}"}} 1 1795000000000'
    found = _pattern(VARIABLES['uuid'].pattern).search(shown)
    assert found is not None
    assert found.groupdict() == {'text': name, 'value': 'own'}


def filled(text: str) -> str:
    """Return a query as Grafana would send it.

    :raises AssertionError: a variable is left that nobody knows
    """
    for name, value in sorted(VALUES.items(), key=lambda pair: -len(pair[0])):
        text = text.replace(name, value)
    assert not re.search(r'\$(?!1)', text), text
    return text


def _offered(variable: panels.Variable, prometheus: servers.Prometheus) -> list[tuple[str, str]]:
    """Return text and value of all that a choice offers, as Grafana finds them."""
    whole = filled(variable.query)
    by_label = re.fullmatch(r'label_values\((.*), (\w+)\)', whole)
    if by_label:
        found = prometheus.query(by_label[1])
        values = {series['metric'].get(by_label[2], '') for series in found}
        return [('', value) for value in values if value]
    query = re.fullmatch(r'query_result\((.*)\)', whole)
    assert query is not None, whole
    pairs = []
    for series in prometheus.query(query[1]):
        taken = _pattern(variable.pattern).search(_as_text(series))
        if taken:
            pairs.append((taken['text'], taken['value']))
    return pairs


def _as_text(series: dict[str, Any]) -> str:
    """Return a series as Grafana writes it before it searches; nothing in it is quoted."""
    metric = dict(series['metric'])
    name = metric.pop('__name__', '')
    labels = ','.join(f'{label}="{value}"' for label, value in metric.items())
    moment, value = series['value']
    return f'{name}{{{labels}}} {value} {moment * 1000:.0f}'


def _pattern(pattern: str) -> re.Pattern[str]:
    """Return an expression of JavaScript as one of Python."""
    return re.compile(pattern.strip('/').replace('(?<', '(?P<'))


@pytest.mark.parametrize('board', shipped.ALL, ids=lambda board: board.uid)
def test_grafanas_own_library_knows_every_field(board: panels.Dashboard) -> None:
    """What it did not know it would drop, or write back as something else."""
    if importlib.util.find_spec('grafana_foundation_sdk') is None:
        pytest.skip('no grafana-foundation-sdk here; see tests/functional/requirements.txt')
    from grafana_foundation_sdk.cog import encoder
    from grafana_foundation_sdk.cog import plugins
    from grafana_foundation_sdk.models import dashboard

    plugins.register_default_plugins()
    ours = grafana.document(board)

    read = dashboard.Dashboard.from_json(ours)
    theirs = json.loads(encoder.JSONEncoder().encode(read))

    # It leaves out what is null, and an id is that until Grafana gives one.
    del ours['id']
    assert _changed(ours, theirs) == []


def _changed(ours: Any, theirs: Any, path: str = '') -> list[str]:
    """Return where something of ours is missing or otherwise."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        known = [name for name in ours if name in theirs]
        missing = [f'{path}.{name}' for name in ours if name not in theirs]
        deeper = (_changed(ours[name], theirs[name], f'{path}.{name}') for name in known)
        return [*missing, *itertools.chain.from_iterable(deeper)]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        found = (_changed(*pair, f'{path}[{number}]') for number, pair in pairs)
        return list(itertools.chain.from_iterable(found))
    return [] if ours == theirs else [f'{path}: {ours!r}, not {theirs!r}']
