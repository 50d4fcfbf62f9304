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

"""Rules for Prometheus ask for series that there are, and are explained and tested each.

Whether they fire is tested by promtool itself, in the functional tests.
"""

import pathlib
import re

import pytest
import yaml

from oie import model
from oie import plugins

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHIPPED = ROOT / 'etc/prometheus'
FEDERATION = ROOT / 'etc/federation'
RUNBOOKS = ROOT / 'doc/source/admin/runbooks'
GOLDEN = ROOT / 'tests/data/golden/metrics_everything.txt'
BASE = 'https://docs.example.org/oie/admin/runbooks/'
#: Labels that Prometheus gives a target, by its job or by targets/*.yml.
OF_TARGETS = {'instance', 'job', 'zone', 'cell', 'role'}
WORDS = {'and', 'or', 'unless', 'bool', 'offset', 'by', 'without', 'on', 'ignoring', 'group_left'}
FILES = sorted(path.stem for path in (SHIPPED / 'rules').glob('*.yml'))


def load(path):
    return yaml.safe_load(path.read_text(encoding='utf-8'))


def groups_of(name):
    return load(SHIPPED / f'rules/{name}.yml')['groups']


RULES = [rule for name in FILES for group in groups_of(name) for rule in group['rules']]
ALERTS = {rule['alert']: rule for rule in RULES if 'alert' in rule}
RECORDED = {rule['record']: rule for rule in RULES if 'record' in rule}
TESTED = [group for name in FILES for group in load(SHIPPED / f'tests/{name}.yml')['tests']]
# Those of a portal; what its rules ask for is tested with the rest of its files.
OF_PORTAL = {
    rule['alert']: rule
    for group in load(FEDERATION / 'rules/usage.yml')['groups']
    for rule in group['rules']
    if 'alert' in rule
}
TESTED_OF_PORTAL = load(FEDERATION / 'tests/usage.yml')['tests']
EVERY_ALERT = {**ALERTS, **OF_PORTAL}
FEED_SUFFIX = re.compile(r'oie_[a-z_]+?_(contact_active|fresh|held|refresh_[a-z_]+)$')


@pytest.fixture(scope='module')
def kinds():
    """Return the kind of each series that collectors publish."""
    collectors = plugins.load('oie.collectors').values()
    return {m.prometheus: m.kind for each in collectors for m in each.meters() if m.prometheus}


@pytest.fixture(scope='module')
def labels():
    """Return the names of labels of each series of the whole exposition."""
    found = {}
    for line in GOLDEN.read_text(encoding='utf-8').splitlines():
        if not line.startswith('#'):
            name = re.split(r'[{ ]', line)[0]
            found.setdefault(name, set()).update(re.findall(r'(\w+)="(?:[^"\\]|\\.)*"', line))
    return found


def names_in(expression):
    """Return the names of series in an expression, and the patterns of __name__ in it."""
    patterns = re.findall(r'__name__=~"([^"]+)"', expression)
    text = re.sub(r'"[^"]*"', '', expression)
    text = re.sub(r'\b(?:by|without|on|ignoring|group_left)\s*\([^)]*\)', ' ', text)
    text = re.sub(r'\{[^}]*\}|\[[^\]]*\]|\boffset \w+', ' ', text)
    found = re.findall(r'(?<![\w.])([a-zA-Z_][\w:]*)(?!\w|\s*\()', text)
    return set(found) - WORDS, patterns


def grown_in(expression):
    """Return what stands in rate() and increase(), up to the window."""
    text = re.sub(r'"[^"]*"', lambda found: found[0].replace('[', ''), expression)
    return re.findall(r'\b(?:i?rate|increase)\(\s*([^[]*)\[', text)


def reaches(pattern, kinds):
    """Return the series that a pattern of __name__ selects, as Prometheus anchors it."""
    return {name for name in kinds if re.fullmatch(pattern, name)}


def questions_of(alert):
    """Return what the templates of an alert ask Prometheus."""
    for text in alert['annotations'].values():
        yield from re.findall(r'printf\s+"([^"]*oie_[^"]*)"', text)


def test_names_are_found_in_expressions():
    names, patterns = names_in(
        'sum without (vcpu) (rate(a_total{x="b_total"}[5m])) / on (c) group_left (d) oie:e:sum'
        ' unless (f == 0) offset 6h or increase({__name__=~"oie_.+_g"}[6h:5m]) > 0.5'
    )
    assert names == {'a_total', 'oie:e:sum', 'f'}
    assert patterns == ['oie_.+_g']


def test_every_series_that_rules_ask_for_exists(kinds):
    known = kinds.keys() | RECORDED.keys() | {'up'}
    for rule in RULES:
        texts = [rule['expr'], *(questions_of(rule) if 'alert' in rule else ())]
        for text in texts:
            names, patterns = names_in(text.replace("'", '"'))
            assert names or patterns, text
            assert names <= known, rule
            assert all(reaches(pattern, kinds) for pattern in patterns), rule


def test_growth_is_asked_of_counters_only(kinds):
    """``rate()`` and ``increase()`` take each fall of a gauge for a counter that began again."""
    asked = 0
    for rule in RULES:
        for inner in grown_in(rule['expr']):
            names, patterns = names_in(inner)
            reached = names.union(*(reaches(pattern, kinds) for pattern in patterns))
            assert reached, inner
            assert {kinds[name] for name in reached} == {model.Kind.CUMULATIVE}, inner
            asked += 1
    assert asked > 30


def test_patterns_of_lists_reach_series_of_lists_only(kinds):
    for rule in RULES:
        excluded = set(re.findall(r'__name__!="([^"]+)"', rule['expr']))
        for pattern in names_in(rule['expr'])[1]:
            for name in reaches(pattern, kinds) - excluded:
                assert FEED_SUFFIX.match(name), (rule, name)


def test_recorded_names_have_a_level_a_metric_and_what_was_done():
    assert RECORDED
    for name in RECORDED:
        assert re.fullmatch(r'oie:(project|host|router)_[a-z_]+:(sum|count|(ratio_)?rate5m)', name)


@pytest.mark.parametrize('name', EVERY_ALERT)
class TestAlert:
    def test_it_says_how_urgent_it_is_and_what_happens(self, name):
        alert = EVERY_ALERT[name]
        assert alert['labels'].keys() == {'severity'}
        assert alert['labels']['severity'] in {'critical', 'warning', 'info'}
        assert alert['annotations'].keys() - {'who'} == {'summary', 'description', 'runbook_url'}
        summary = alert['annotations']['summary']
        assert '{{' in summary or 'absent' in alert['expr'], 'it names nobody'
        assert '\n' not in summary

    def test_its_runbook_says_what_it_means_how_to_check_and_what_to_do(self, name):
        url = EVERY_ALERT[name]['annotations']['runbook_url']
        page, _, anchor = url.removeprefix(BASE).partition('.html#')
        assert anchor == name.lower()
        text = (RUNBOOKS / f'{page}.rst').read_text(encoding='utf-8')
        section = text.partition(f'\n{name}\n{"-" * len(name)}\n')[2]
        section = re.split(r'\n\w+\n-+\n', section)[0]
        parts = re.findall(r'^(\w+)\n    \S', section, re.MULTILINE)
        assert parts == ['Means', 'Check', 'Do']

    def test_it_is_tested_to_fire_and_to_be_silent(self, name):
        tests = [
            one
            for group in (*TESTED, *TESTED_OF_PORTAL)
            for one in group.get('alert_rule_test', ())
            if one['alertname'] == name
        ]
        assert any(one.get('exp_alerts') for one in tests)
        assert any(not one.get('exp_alerts') for one in tests)


def test_every_recorded_series_is_tested_with_a_value():
    tested = {
        re.split(r'[{ ]', sample['labels'])[0]
        for group in TESTED
        for one in group.get('promql_expr_test', ())
        for sample in one['exp_samples']
    }
    assert RECORDED.keys() <= tested


def test_every_runbook_belongs_to_an_alert():
    headings = set()
    for path in RUNBOOKS.glob('*.rst'):
        text = path.read_text(encoding='utf-8')
        headings |= set(re.findall(r'^(\w+)\n-+$', text, re.MULTILINE))
    assert headings == EVERY_ALERT.keys()


def test_tests_use_series_as_the_exporter_shows_them(labels):
    for group in TESTED:
        for each in group['input_series']:
            name, _, inner = each['series'].partition('{')
            if name == 'up':
                continue
            # A list of one's own has the series of any other list.
            name = re.sub(r'^oie_ours_', 'oie_spamhaus_', name)
            used = set(re.findall(r'(\w+)="', inner))
            assert name in labels, each
            assert used - OF_TARGETS <= labels[name], each


def test_both_examples_differ_in_how_they_reach_the_exporter_only():
    plain, secured = (load(SHIPPED / f'prometheus{end}.yml') for end in ('', '-tls'))
    (job,), (other,) = plain.pop('scrape_configs'), secured.pop('scrape_configs')
    assert plain == secured
    assert job['job_name'] == 'oie'
    assert other.keys() - job.keys() == {'scheme', 'tls_config', 'basic_auth'}
    assert {key: other[key] for key in job} == job


def test_targets_have_labels_that_no_series_has(labels):
    targets = load(SHIPPED / 'targets/compute.yml')
    given = {name for group in targets for name in group['labels']}
    assert given <= OF_TARGETS
    assert not given & set().union(*labels.values())
