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


"""The files made of the code are the ones that it makes today, and fit for their readers."""

import dataclasses
import json
import pathlib
import re
import runpy
import subprocess

import pytest
import yaml

from oie.cmd import wiring
from tests import builders

ROOT = pathlib.Path(__file__).parents[2]
POLLSTERS = ROOT / 'etc/ceilometer/pollsters.d/oie.yaml'
POLLING = ROOT / 'etc/ceilometer/polling.yaml'
PIPELINE = ROOT / 'etc/ceilometer/pipeline.yaml'
RESOURCES = ROOT / 'etc/gnocchi/gnocchi_resources.yaml'
METRICS = ROOT / 'etc/cloudkitty'
SUDOERS = ROOT / 'etc/sudoers.d/oie-ceilometer'

# The interval of the source that Ceilometer ships.
CEILOMETERS_INTERVAL = 300


@pytest.fixture(scope='module')
def generate():
    """The names of tools/generate.py."""
    return runpy.run_path(str(ROOT / 'tools/generate.py'))


@pytest.fixture(scope='module')
def files(generate):
    """What the code makes today, by path."""
    return generate['files']()


@pytest.mark.parametrize(
    'path',
    [
        'etc/ceilometer/pipeline.yaml',
        'etc/ceilometer/polling.yaml',
        'etc/ceilometer/pollsters.d/oie.yaml',
        'etc/cloudkitty/hashmap.sh',
        'etc/cloudkitty/metrics-gnocchi.yml',
        'etc/cloudkitty/metrics-prometheus.yml',
        'etc/gnocchi/create.sh',
        'etc/gnocchi/gnocchi_resources.yaml',
        'etc/grafana/dashboards/oie-host.json',
        'etc/grafana/dashboards/oie-instance.json',
        'etc/grafana/dashboards/oie-network.json',
        'etc/grafana/dashboards/oie-project.json',
        'etc/grafana/dashboards/oie-usage.json',
        'etc/sudoers.d/oie-ceilometer',
        'doc/source/admin/metrics.rst',
        'doc/source/admin/pollsters.rst',
    ],
)
def test_files_in_the_repository_are_those_generated_today(files, path):
    generated = files[path].splitlines()
    assert (ROOT / path).read_text().splitlines() == generated, 'run: tox -e genconfig'


def test_no_generated_file_is_forgotten_here(generate, files):
    assert len(files) == 16
    assert generate['stale']() == {}


def test_definitions_are_those_of_the_pollsters(generate):
    made = wiring.pollsters(generate['collectors']().values())
    expected = [each for pollster in made.values() for each in pollster.definitions()]
    assert yaml.safe_load(POLLSTERS.read_text()) == expected


def test_any_definition_can_be_deleted_without_hurting_the_others():
    """Ceilometer's agent dies at start of a file that is not a list with names."""
    text = POLLSTERS.read_text()
    assert not re.search(r'[&*]id\d', text), 'anchors bind definitions to each other'
    header, *parts = re.split(r'(?m)^(?=- name:)', text)
    for number in range(len(parts)):
        rest = parts[:number] + parts[number + 1 :]
        assert len(yaml.safe_load(header + ''.join(rest))) == len(parts) - 1


def test_the_source_has_an_interval_of_its_own_and_polls_all_our_meters():
    [source] = yaml.safe_load(POLLING.read_text())['sources']
    assert source['name'] == 'oie'
    assert source['meters'] == ['oie.*']
    assert CEILOMETERS_INTERVAL / 2 < source['interval'] < CEILOMETERS_INTERVAL


def test_a_comment_names_the_meters_of_each_definition():
    text = POLLSTERS.read_text()
    for pollster in wiring.pollsters().values():
        for key, meters in pollster.groups().items():
            [about] = re.findall(rf'((?:# .*\n)+)- name: oie\.{{{key}}}', text)
            named = re.findall(r'(?m)^# (oie\.[\w.]+):', about)
            assert named == [meter.ceilometer for meter in meters]


def test_the_pipeline_has_a_sink_of_its_own():
    document = yaml.safe_load(PIPELINE.read_text())
    [source], [sink] = document['sources'], document['sinks']
    assert source == {'name': 'oie', 'meters': ['oie.*'], 'sinks': ['oie']}
    [publisher] = sink['publishers']
    assert publisher.startswith('gnocchi://?resources_definition_file=/etc/ceilometer/')


def test_gnocchi_knows_every_meter_once_under_a_policy_that_is_declared():
    document = yaml.safe_load(RESOURCES.read_text())
    policies = {each['name']: each for each in document['archive_policies']}
    named = {}
    for resource in document['resources']:
        for meter, more in resource['metrics'].items():
            assert meter not in named
            named[meter] = policies[more['archive_policy_name']]
    columns = [column for each in wiring.pollsters().values() for column in each.columns]
    meters = {meter.ceilometer: meter for meter, _ in columns}
    assert named.keys() == meters.keys()
    for name, policy in named.items():
        # What CloudKitty takes by default.
        assert 'max' in policy['aggregation_methods']
        assert {'granularity': '1 hour', 'timespan': '400 days'} in policy['definition']
        is_total = meters[name].kind.value == 'cumulative'
        assert ('rate:sum' in policy['aggregation_methods']) == is_total


def test_gnocchi_gets_only_attributes_that_every_entry_has_as_a_text_or_null():
    """Another type is refused by Gnocchi, and the measures with it."""
    document = yaml.safe_load(RESOURCES.read_text())
    snapshot = builders.node()
    for resource, pollster in zip(document['resources'], wiring.pollsters().values(), strict=True):
        for path in resource['attributes'].values():
            names = re.findall(r'\w+', path.removeprefix('resource_metadata.'))
            assert set(names) & set(pollster.metadata), path
            for entry in json.loads(pollster.render(snapshot)):
                for name in names:
                    assert entry.get(name) is None or isinstance(entry[name], str), name


def test_every_attribute_is_made_that_ceilometers_types_do_not_have(generate):
    create = (ROOT / 'etc/gnocchi/create.sh').read_text()
    # What Ceilometer 27 makes: ceilometer/gnocchi_client.py.
    theirs = {
        'instance': {'host', 'image_ref', 'display_name', 'flavor_id', 'flavor_name'},
        'instance_disk': {'name', 'instance_id'},
        'instance_network_interface': {'name', 'instance_id'},
    }
    made = {
        name: set(rest.split())
        for name, rest in re.findall(r'(?m)^attributes (\w+) \\\n\s+(.*)$', create)
    }
    for resource in yaml.safe_load(RESOURCES.read_text())['resources']:
        name = resource['resource_type']
        known = made.get(name, set()) | theirs.get(name, set())
        assert set(resource['attributes']) <= known, name


@pytest.mark.parametrize('collector', ['gnocchi', 'prometheus'])
def test_the_same_is_rated_from_both_sides_in_the_same_units(collector):
    metrics = yaml.safe_load((METRICS / f'metrics-{collector}.yml').read_text())['metrics']
    found = {each['alt_name']: each['unit'] for each in metrics.values()}
    assert found == {
        'vcpu_hours': 'vCPU*h',
        'memory_hours': 'GiB*h',
        'disk_read': 'GiB',
        'disk_write': 'GiB',
        'traffic_incoming': 'GiB',
        'traffic_outgoing': 'GiB',
        'licence_hours': 'unit*h',
    }
    services = set(re.findall(r'service (\w+)\)', (METRICS / 'hashmap.sh').read_text()))
    assert services == set(found)


def test_cloudkitty_asks_gnocchi_only_for_what_it_stores():
    document = yaml.safe_load(RESOURCES.read_text())
    policies = {each['name']: each for each in document['archive_policies']}
    stored = {
        meter: (resource, policies[more['archive_policy_name']])
        for resource in document['resources']
        for meter, more in resource['metrics'].items()
    }
    metrics = yaml.safe_load((METRICS / 'metrics-gnocchi.yml').read_text())['metrics']
    for name, metric in metrics.items():
        resource, policy = stored[name]
        extra = metric['extra_args']
        assert extra['resource_type'] == resource['resource_type']
        assert extra['aggregation_method'] in policy['aggregation_methods']
        # Seconds of the granularity "1 hour".
        assert extra['force_granularity'] == 3600
        assert set(metric['metadata']) <= set(resource['attributes'])
        assert not set(metric['metadata']) & set(metric['groupby'])


def test_what_is_rated_must_be_in_the_tables(generate):
    chain = generate['chain']
    pollsters = wiring.pollsters()
    with pytest.raises(KeyError, match='oie_instance_usage_vcpu_seconds_total'):
        chain.check(pollsters, frozenset())
    without = {name: each for name, each in pollsters.items() if name != 'usage'}
    with pytest.raises(KeyError, match='oie.usage.vcpu.seconds'):
        chain.check(without, frozenset())


@pytest.mark.parametrize('path', ['etc/gnocchi/create.sh', 'etc/cloudkitty/hashmap.sh'])
def test_scripts_are_for_every_shell(path):
    text = (ROOT / path).read_text()
    assert text.startswith('#!/bin/sh\n')
    subprocess.run(('sh', '-n', str(ROOT / path)), check=True)


def test_sudo_allows_exactly_the_commands_and_nothing_free():
    lines = [line for line in SUDOERS.read_text().splitlines() if not line.startswith('#')]
    text = '\n'.join(lines).replace('\\\n', ' ')
    [alias] = re.findall(r'Cmnd_Alias OIE_POLLSTERS = (.*)', text)
    allowed = [command.strip() for command in alias.split(',')]
    assert allowed == [f'/usr/bin/oie-pollster {name}' for name in sorted(wiring.pollsters())]
    assert re.findall(r'.*NOPASSWD.*', text) == ['ceilometer ALL = (root) NOPASSWD: OIE_POLLSTERS']
    # No wildcards, no negation, no environment from the caller.
    assert not re.search(r'[*?\[\]]|NOPASSWD:\s*ALL|SETENV|env_keep', text)


def test_every_generated_file_is_ascii_and_ends_with_one_line_feed(files):
    for text in files.values():
        assert text.isascii()
        assert text.endswith('\n')
        assert not text.endswith('\n\n')
        assert all(line == line.rstrip() for line in text.splitlines())


def when(name):
    """Return what the reference says of when a series is there."""
    text = (ROOT / 'doc/source/admin/metrics.rst').read_text()
    [row] = re.findall(rf'(?m)^   \* - ``{name}``\n((?:     .*\n)+)', text)
    cells = [' '.join(cell.split()) for cell in re.split(r'(?m)^     -', row)[1:]]
    kind, unit, labels, found, help, source = cells
    assert all((kind, unit, found, help, source)), name
    return found


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('oie_libvirt_up', 'always'),
        ('oie_instance_disk_read_bytes_total', 'once QEMU has answered'),
        ('oie_disk_r_gbytes', 'once QEMU has answered, unless idle (:doc:`prometheus`)'),
        ('oie_net_rx_er_total', 'unless idle (:doc:`prometheus`)'),
        ('oie_cpu_percent', 'unless idle (:doc:`prometheus`)'),
        ('oie_host_conntrack_max', 'with ``[conntrack] enabled``'),
        (
            'oie_conntrack_ip_flows_total',
            'while connection tracking is read, unless idle (:doc:`prometheus`)',
        ),
        (
            'oie_instance_vcpu_halted',
            'with ``vcpus`` in ``[collector] optional``, once QEMU has answered',
        ),
        ('oie_spamhaus_entries', 'while the list is in ``[threats] enabled_feeds``'),
        ('oie_host_threat_listed', 'while an address of this host is on a list'),
        ('oie_threat_log_writable', 'with ``[threat_log] enabled``'),
    ],
)
def test_reference_tells_when_a_series_is_there(name, expected):
    assert when(name) == expected


def test_reference_tells_when_for_every_series(generate):
    for each in generate['collectors']().values():
        for meter in each.meters():
            if meter.prometheus:
                assert when(meter.prometheus)


def test_a_key_that_nobody_explains_fails_the_generation(generate):
    [pollster, *_] = wiring.pollsters().values()
    unknown = dataclasses.replace(pollster, metadata=(*pollster.metadata, 'shoe_size'))
    with pytest.raises(KeyError, match='shoe_size'):
        generate['lists'].page([unknown], generate['table'], generate['section'])


def test_the_page_of_pollsters_has_every_key_and_every_meter():
    text = (ROOT / 'doc/source/admin/pollsters.rst').read_text()
    for pollster in wiring.pollsters().values():
        for name in pollster.metadata:
            assert f'``{name}``' in text
        for meter, _ in pollster.columns:
            assert f'``{meter.field}``\n     - ``{meter.ceilometer}``' in text
