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


"""The dashboards ask for series that there are, in the way in which such series can be asked."""

import collections
import itertools
import json
import pathlib
import re

import pytest
import yaml

from oie import model
from oie import plugins
from oie.config import core_options
from tools.dashboards import grafana
from tools.dashboards import panels
from tools.dashboards import shipped

ROOT = pathlib.Path(__file__).parents[2]
PROVISIONING = ROOT / 'etc/grafana/provisioning'
BOARDS = [pytest.param(each, id=each.uid) for each in shipped.ALL]
PANELS = [
    pytest.param(board, panel, id=f'{board.uid}-{number}-{panel.title}')
    for board in shipped.ALL
    for number, panel in enumerate(board.panels())
]
METERS = {
    meter.prometheus: meter
    for each in plugins.load('oie.collectors').values()
    for meter in each.meters()
    if meter.prometheus
}
GROWING = {model.Kind.CUMULATIVE, model.Kind.SUMMARY, model.Kind.HISTOGRAM}
NAME = re.compile(r'\b((?:oie|project)_[a-z0-9_]+)(?=[{\[ )*/+]|$)(?!\s*\()')
REGEX = re.compile(r'__name__=~"([^"]+)"')
LISTS = tuple(
    name.removesuffix('refresh_duration_seconds')
    for name in METERS
    if name.endswith('_refresh_duration_seconds')
)
LABELS = {'project_name', 'project_uuid', 'project_id'}


def meters(text):
    """Return the names that a query selects, those that its expressions match included."""
    is_of_lists = ' and on (instance, list) ' in text
    text = re.sub(r'\b(?:by|on|group_left|without) \([^)]*\)', '', text)
    found = set(NAME.findall(text)) - LABELS
    parts = {re.sub('_(sum|count|bucket)$', '', name) for name in found - METERS.keys()}
    for pattern in REGEX.findall(text):
        matching = {name for name in METERS if re.fullmatch(pattern, name)}
        # Joined with what only lists have, a pattern gives no more than that.
        if is_of_lists:
            matching = {name for name in matching if name.startswith(LISTS)}
        assert matching, pattern
        parts |= matching
    return (found & METERS.keys()) | parts


def expressions(board):
    return [query.text for panel in board.panels() for query in panel.queries]


def when(name):
    """Return what the reference says of when a series is there."""
    text = (ROOT / 'doc/source/admin/metrics.rst').read_text()
    [row] = re.findall(rf'(?m)^   \* - ``{name}``\n((?:     .*\n)+)', text)
    return [' '.join(cell.split()) for cell in re.split(r'(?m)^     -', row)[1:]][3]


def test_names_are_found_as_prometheus_would_find_them():
    text = 'sum by (project_name) (rate(oie_disk_r_requests{a="b"}[5m]) * on (x) oie_build_info)'
    assert meters(text) == {'oie_disk_r_requests', 'oie_build_info'}
    assert meters('{__name__=~"oie_.+_contact"}') >= {'oie_tor_exit_contact'}
    assert meters('oie_nothing_total') == {'oie_nothing_total'}


@pytest.mark.parametrize(('board', 'panel'), PANELS)
def test_every_series_that_is_asked_for_exists(board, panel):
    for query in panel.queries:
        assert meters(query.text)
        assert meters(query.text) <= METERS.keys()


@pytest.mark.parametrize('board', BOARDS)
def test_choices_ask_for_series_that_exist(board):
    for variable in board.variables:
        assert meters(variable.query) <= METERS.keys()


@pytest.mark.parametrize(('board', 'panel'), PANELS)
def test_only_what_grows_is_asked_for_its_rate(board, panel):
    for query in panel.queries:
        inside = re.findall(r'(?:rate|increase)\((.*?)\[', query.text)
        for name in itertools.chain.from_iterable(map(meters, inside)):
            assert METERS[name].kind in GROWING, name
        without = re.sub(r'(?:rate|increase)\(.*?\[[^]]*\]', '', query.text)
        # A total of hours is a number that people read; others say nothing as they stand.
        growing = {name for name in meters(without) if METERS[name].kind in GROWING}
        assert all('hours' in name or 'refresh_errors' in name for name in growing), growing


@pytest.mark.parametrize(('board', 'panel'), PANELS)
def test_a_panel_says_what_it_shows_and_what_must_be_switched_on(board, panel):
    assert panel.description.endswith('.')
    assert len(panel.title) < 40
    conditions = ' '.join(
        when(name) for query in panel.queries for name in meters(query.text)
    ).replace('``', '')
    described = panel.description
    for name in core_options.OPTIONAL:
        if f'with {name} in [collector] optional' in conditions:
            assert f'Needs {name} in [collector] optional' in described
    for group, option in re.findall(r'with \[(\w+)\] (\w+)', conditions):
        # These are on by default, or the whole dashboard is about them.
        if (group, option) not in {('ledger', 'enabled'), ('usage', 'enabled')}:
            assert f'[{group}] {option}' in described


@pytest.mark.parametrize('board', BOARDS)
def test_every_variable_is_a_choice_and_every_choice_is_used(board):
    offered = {variable.name for variable in board.variables}
    text = ' '.join(expressions(board))
    used = set(re.findall(r'\$([a-z_]\w*)', text)) - {'__rate_interval', '__range'}
    among = set(re.findall(r'\$([a-z_]\w*)', ' '.join(each.query for each in board.variables)))
    assert used <= offered
    assert offered == used | among
    assert '@' not in text


@pytest.mark.parametrize('board', BOARDS)
def test_no_two_panels_lie_in_one_place(board):
    taken = collections.Counter()
    for panel in grafana.document(board)['panels']:
        place = panel['gridPos']
        assert 0 <= place['x'] < place['x'] + place['w'] <= grafana.COLUMNS
        taken.update(
            (x, y)
            for x in range(place['x'], place['x'] + place['w'])
            for y in range(place['y'], place['y'] + place['h'])
        )
    assert set(taken.values()) == {1}


def test_a_row_that_is_folded_up_takes_one_line_and_holds_its_panels():
    one = panels.stat('One', 'One.', 'oie_libvirt_up')
    rows = (panels.Row('folded', (one, one), is_collapsed=True), panels.Row('open', (one,)))
    board = panels.Dashboard(uid='x', title='x', description='x', variables=(), rows=rows)
    folded, heading, panel = grafana.document(board)['panels']
    assert [each['id'] for each in folded['panels']] == [2, 3]
    assert (folded['id'], heading['id'], panel['id']) == (1, 4, 5)
    assert [each['gridPos']['y'] for each in (folded, heading, panel)] == [0, 1, 2]


@pytest.mark.parametrize('board', BOARDS)
def test_every_panel_has_a_number_of_its_own(board):
    numbers = [panel['id'] for panel in grafana.document(board)['panels']]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize('board', BOARDS)
def test_every_query_goes_to_the_prometheus_that_is_chosen(board):
    for panel in grafana.document(board)['panels']:
        for target in panel.get('targets', ()):
            assert target['datasource'] == {'type': 'prometheus', 'uid': '${datasource}'}
    [first, *_] = grafana.document(board)['templating']['list']
    assert (first['name'], first['type'], first['query']) == (
        'datasource',
        'datasource',
        'prometheus',
    )


def test_addresses_of_dashboards_never_change():
    assert [each.uid for each in shipped.ALL] == [
        'oie-host',
        'oie-instance',
        'oie-project',
        'oie-network',
        'oie-usage',
    ]
    assert len({each.title for each in shipped.ALL}) == len(shipped.ALL)


@pytest.mark.parametrize('board', BOARDS)
def test_cells_lead_to_dashboards_and_choices_that_exist(board):
    choices = {each.uid: {variable.name for variable in each.variables} for each in shipped.ALL}
    for panel in grafana.document(board)['panels']:
        for override in panel.get('fieldConfig', {}).get('overrides', ()):
            for each in override['properties']:
                if each['id'] == 'links':
                    [link] = each['value']
                    [(uid, variable)] = re.findall(r'^/d/([\w-]+)\?var-(\w+)=', link['url'])
                    assert variable in choices[uid]
    assert all(variable in choices[uid] for uid, variable in grafana.LEADS_TO.values())


def test_provisioning_finds_prometheus_and_the_dashboards():
    [source] = yaml.safe_load((PROVISIONING / 'datasources/oie.yaml').read_text())['datasources']
    assert source['type'] == 'prometheus'
    scraping = yaml.safe_load((ROOT / 'etc/prometheus/prometheus.yml').read_text())
    assert source['jsonData']['timeInterval'] == scraping['global']['scrape_interval']
    [provider] = yaml.safe_load((PROVISIONING / 'dashboards/oie.yaml').read_text())['providers']
    assert provider['type'] == 'file'
    assert provider['options']['path'].startswith('/')


def test_files_are_the_dashboards_and_nothing_else():
    stored = {path.name for path in (ROOT / 'etc/grafana/dashboards').iterdir()}
    assert stored == {f'{each.uid}.json' for each in shipped.ALL}
    for path, text in shipped.files().items():
        assert json.loads(text) == json.loads((ROOT / path).read_text())
