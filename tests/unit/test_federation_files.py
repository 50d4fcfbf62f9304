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

"""What is shipped for sites and portals fits together: selectors, names, files, ports."""

import pathlib
import re

import pytest
import yaml

from oie import plugins
from oie.cmd import wiring
from oie.config import gate_options
from oie.federation import request_lines
from oie.federation import tokens
from oie.sources.project_usage import documents
from oie.sources.project_usage import dummy
from oie.sources.project_usage import tags

ROOT = pathlib.Path(__file__).parents[2]
FEDERATION = ROOT / 'etc/federation'
COMPOSE = sorted(FEDERATION.glob('compose.*.yml'))
GATE = (FEDERATION / 'haproxy.cfg').read_text(encoding='utf-8')
# What a site keeps to itself: no port of the host.
HIDDEN = ('exporter', 'control', 'tool')


def load(name):
    return yaml.safe_load((FEDERATION / name).read_text(encoding='utf-8'))


def services(path):
    return yaml.safe_load(path.read_text(encoding='utf-8'))['services']


def portal_jobs():
    return load('prometheus-portal.yml')['scrape_configs']


def test_portal_asks_for_what_the_gate_allows_by_default():
    asked = {tuple(job['params']['match[]']) for job in portal_jobs()}
    assert asked == {(gate_options.SELECTORS,)}
    assert {job['metrics_path'] for job in portal_jobs()} == {'/federate'}


def test_site_has_the_job_that_is_asked_for():
    [job] = load('prometheus-site.yml')['scrape_configs']
    assert f'job="{job["job_name"]}"' in gate_options.SELECTORS


def test_portal_prints_what_generate_prints():
    printed = yaml.safe_load(
        request_lines.scrape_parameters([(gate_options.SELECTORS,)], '/federate')
    )
    for job in portal_jobs():
        assert {name: job[name] for name in printed} == printed


def test_every_job_of_a_portal_has_every_limit():
    for job in portal_jobs():
        assert job['honor_labels'] is False
        assert job['honor_timestamps'] is False
        assert job['follow_redirects'] is False
        assert (job['scheme'], 'bearer_token' in job) == ('https', False)
        assert min(job[f'{name}_limit'] for name in ('sample', 'label', 'label_value_length')) > 0
        assert job['body_size_limit']
        [labels] = [each['labels'] for each in job['static_configs']]
        assert labels.keys() == {'location', 'location_id'}
        assert job['authorization'] == {'credentials_file': f'tokens/{labels["location"]}'}
        kept, dropped = job['metric_relabel_configs']
        assert (kept['action'], dropped['action']) == ('keep', 'labeldrop')
        assert re.fullmatch(dropped['regex'], 'exported_location')
    assert len({job['static_configs'][0]['labels']['location'] for job in portal_jobs()}) == 2


def longest_values():
    """Return how many bytes a value of each label may have.

    Keystone lets names have 64 characters, ids too, and a character has up to four bytes. A
    name of a project may be a tag in its stead, which is cut. A host has 253 at most.
    """
    name, host = 64 * 4, 253 + len(':65535')
    return {
        **{'project_id': 64, 'project_name': max(name, tags.MOST_BYTES)},
        **{'domain_id': 64, 'domain_name': name, 'instance': host, 'job': len('project_usage')},
    }


def test_portal_stores_the_longest_names_that_a_site_may_have():
    for job in portal_jobs():
        assert job['label_value_length_limit'] >= max(longest_values().values())
        assert job['label_name_length_limit'] >= max(map(len, longest_values()))
        # The name of the series, location and location_id besides.
        assert job['label_limit'] >= len(longest_values()) + 3


def test_portal_takes_as_many_bytes_as_its_samples_may_have():
    """Else long names would be a limit of their own, long before that of the samples."""
    [expression] = re.findall('__name__=~"([^"]+)"', gate_options.SELECTORS)
    meters = plugins.load('oie.collectors')['project_usage'].meters()
    names = [each.prometheus for each in meters if re.fullmatch(expression, each.prometheus)]
    # A value in 17 digits, a moment in milliseconds.
    rest = len('{} 1.2345678901234567e+12 1795000000000\n')
    labels = sum(len(label) + len('="",') + size for label, size in longest_values().items())
    # Every character of a tag may need a backslash.
    labels += tags.MOST_BYTES
    for job in portal_jobs():
        size = re.fullmatch(r'(\d+)MB', job['body_size_limit'])
        most = job['sample_limit'] * (max(map(len, names)) + labels + rest)
        assert most <= int(size[1]) * 2**20


def test_limits_are_said_as_they_are():
    [limit] = {job['sample_limit'] for job in portal_jobs()}
    [site] = load('prometheus-site.yml')['scrape_configs']
    rules = [rule for group in load('rules/usage.yml')['groups'] for rule in group['rules']]
    [near] = [rule for rule in rules if rule.get('alert') == 'OieSiteNearLimit']
    assert int(near['expr'].rpartition('> ')[2]) < limit == site['sample_limit']
    assert f'{limit:,} are the limit' in near['annotations']['summary']


def test_gate_tells_no_path_that_is_long_enough_for_a_token():
    [most] = re.findall(r'^ +acl is_short path -m len 0:(\d+)$', GATE, re.MULTILINE)
    assert int(most) < tokens.SHORTEST
    told = re.findall(r'set-var\(txn.asked\) (.+)', GATE)
    assert told == ['str(-)', 'path if is_short', 'pathq if is_allowed']


def test_portal_keeps_the_names_that_the_gate_allows():
    [expression] = re.findall('__name__=~"([^"]+)"', gate_options.SELECTORS)
    assert {job['metric_relabel_configs'][0]['regex'] for job in portal_jobs()} == {expression}


def test_series_of_the_collector_pass_the_gate():
    from oie.collectors import project_usage

    [expression] = re.findall('__name__=~"([^"]+)"', gate_options.SELECTORS)
    names = {meter.prometheus for meter in project_usage.ProjectUsageCollector.meters()}
    passing = {name for name in names if re.fullmatch(expression, name)}
    assert passing >= {
        *('project_vcpu_usage', 'project_mb_usage', 'oie_project_vcpu_hours_total'),
        'oie_project_memory_mb_hours_total',
    }
    # Health of the exporter is nobody's business.
    assert all('hours' in name or name.startswith('project_') for name in passing)


def test_rules_know_only_series_that_pass_the_gate_or_are_recorded():
    [expression] = re.findall('__name__=~"([^"]+)"', gate_options.SELECTORS)
    groups = load('rules/usage.yml')['groups']
    rules = [rule for group in groups for rule in group['rules']]
    recorded = {rule['record'] for rule in rules if 'record' in rule}
    for rule in rules:
        text = re.sub(r'"[^"]*"', '', rule['expr'])
        named = set(
            re.findall(r'\b(?:oie|project|location_project:)[a-z0-9_:]*_[a-z0-9_:]+', text)
        )
        named -= {'project_id', 'project_name'} | recorded | {'oie_credits_granted'}
        assert all(re.fullmatch(expression, name) for name in named), named
        # Gauges that fall are no counters.
        assert not re.search(r'(?:increase|rate)\(project_', text)


def test_every_rule_is_tested_with_promtool():
    tests = (FEDERATION / 'tests/usage.yml').read_text(encoding='utf-8')
    for group in load('rules/usage.yml')['groups']:
        for rule in group['rules']:
            name = rule.get('record') or f'alertname: {rule["alert"]}'
            assert name in tests, name


@pytest.mark.parametrize('path', COMPOSE, ids=lambda path: path.name)
class TestCompose:
    def test_images_have_a_tag(self, path):
        for name, service in services(path).items():
            image = service['image'].replace('${OIE_VERSION:-0.1.0}', '0.1.0')
            assert re.fullmatch(r'[a-z/]+:v?\d[\w.-]*', image), name

    def test_only_gates_and_portals_have_ports(self, path):
        for name, service in services(path).items():
            ports = service.get('ports', [])
            if name.startswith('gate') or path.name == 'compose.portal.yml' or name == 'portal':
                assert ports
            else:
                assert not ports, name

    def test_what_is_mounted_is_shipped_or_made_by_who_starts_it(self, path):
        made = re.compile(r'\./(?:gate|tokens|ca|dev/made)\b')
        for service in services(path).values():
            for mount in service.get('volumes', []):
                source = re.sub(r'\$\{\w+:-([^}]*)\}', r'\1', mount).partition(':')[0]
                if source.startswith('./') and not made.match(source):
                    assert (FEDERATION / source).exists(), mount

    def test_variables_are_in_the_sample(self, path):
        named = set(re.findall(r'\$\{(\w+)', path.read_text(encoding='utf-8')))
        sample = FEDERATION / path.name.replace('compose.', '').replace('.yml', '.env.sample')
        known = {'OIE_VERSION'}
        if sample.exists():
            known |= set(re.findall(r'^(\w+)=', sample.read_text(encoding='utf-8'), re.MULTILINE))
        assert named <= known

    def test_gates_are_told_only_what_they_know(self, path):
        for service in services(path).values():
            environment = service.get('environment', {})
            told = {name for name in environment if name.startswith('OIE_GATE_')}
            assert all(name in GATE for name in told)


def test_defaults_of_the_samples_are_those_of_the_compose_files():
    for name in ('site', 'portal'):
        text = (FEDERATION / f'compose.{name}.yml').read_text(encoding='utf-8')
        defaults = dict(re.findall(r'\$\{(\w+):-([^}]*)\}', text))
        sample = (FEDERATION / f'{name}.env.sample').read_text(encoding='utf-8')
        for variable, value in re.findall(r'^(\w+)=(.*)$', sample, re.MULTILINE):
            assert defaults.get(variable, value) == value


def test_gate_asks_who_before_how_before_what():
    rules = [line.strip() for line in GATE.splitlines() if 'http-request deny' in line]
    statuses = [int(re.findall(r'deny_status (\d+)', rule)[0]) for rule in rules]
    assert statuses == [401, 400, 405, 400, 400, 403, 403]


def test_log_of_the_gate_has_no_header():
    [line] = re.findall(r'^ *log-format .*$', GATE, re.MULTILINE)
    assert not re.search(r'%h[rs]|%r\b|%\{?[+,QE]*\}?H[UPQ]|hdr', line)
    assert 'capture' not in GATE


@pytest.mark.parametrize('name', ['exporter.conf', 'gate.conf'])
def test_options_of_the_samples_are_right(name):
    conf = wiring.load(['--config-file', str(FEDERATION / name)], 'test')
    assert conf.gate.selectors == [(gate_options.SELECTORS,)]
    if name == 'exporter.conf':
        assert (conf['usage'].enabled, conf.conntrack.enabled) == (True, False)
        assert wiring.collectors(conf).keys() == {'exporter', 'project_usage'}


@pytest.mark.parametrize('name', ['site-a', 'site-b'])
def test_invented_projects_are_read(name):
    path = FEDERATION / f'dev/{name}.toml'
    found = dummy.parse(documents.read(str(path), reason='x', timeout=0))
    assert len(found) == 2
    assert 'genomes' in {project.name for project, _ in found}
