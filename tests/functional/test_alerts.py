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

"""promtool tests the shipped rules, and a real Prometheus runs them over a real exporter."""

from collections.abc import Iterator
from collections.abc import Mapping
import json
import pathlib
import shutil
from typing import Any

import pytest

from oie.config import core_options
from tests.functional import exporter as exporters
from tests.functional import guests as lab_guests
from tests.functional import lab
from tests.functional import processes
from tests.functional import servers
from tests.functional import web_site

SHIPPED = pathlib.Path(__file__).parents[2] / 'etc/prometheus'
EXAMPLES = ('prometheus', 'prometheus-tls')
GLOBAL = 'prometheus-global'
TESTS = sorted(path.name for path in (SHIPPED / 'tests').glob('*.yml'))
RULES = sorted(str(path) for path in (SHIPPED / 'rules').glob('*.yml'))
#: What a host may really have while the tests use up its CPUs.
LOADED = {'InstanceStarvesForCpu', 'OieCyclesTooLong', 'InstanceDiskSlow'}


class ShippedPrometheus(servers.Prometheus):
    """A Prometheus with one of the shipped examples, every second in place of every 15.

    :param example: its name
    :param target: host:port that is in the file of targets
    """

    def __init__(self, example: str, target: str, site: web_site.Site | None = None) -> None:
        super().__init__(target, site=site)
        self._example = example

    def rules(self) -> list[dict[str, Any]]:
        """Return every rule with its ``health``, ``lastError`` and ``alerts``."""
        groups = json.loads(self.get('/api/v1/rules'))['data']['groups']
        return [rule for group in groups for rule in group['rules']]

    def _arguments(self, directory: pathlib.Path) -> tuple[str, ...]:
        config = _copied(directory, self._example, self.site)
        text = config.read_text(encoding='utf-8')
        for long in ('scrape_interval: 15s', 'evaluation_interval: 1m', 'scrape_timeout: 5s'):
            assert long in text
            text = text.replace(long, long.split(':')[0] + ': 1s')
        config.write_text(text, encoding='utf-8')
        group = {'targets': [self._target], 'labels': {'zone': 'az-1', 'cell': 'cell1'}}
        # JSON is YAML too.
        (config.parent / 'targets/compute.yml').write_text(json.dumps([group]))
        return _with_config(super()._arguments(directory), config)


class GlobalPrometheus(servers.Prometheus):
    """The shipped Prometheus of all zones, every second in place of every minute.

    :param zones: host:port of a Prometheus, by what the file of zones calls it
    """

    def __init__(self, zones: Mapping[str, str]) -> None:
        super().__init__(', '.join(zones.values()))
        self._zones = zones

    def _arguments(self, directory: pathlib.Path) -> tuple[str, ...]:
        config = _copied(directory, GLOBAL)
        text = config.read_text(encoding='utf-8')
        assert 'scrape_interval: 1m' in text
        config.write_text(text.replace('scrape_interval: 1m', 'scrape_interval: 1s'))
        found = [{'targets': [at], 'labels': {'part': name}} for name, at in self._zones.items()]
        (config.parent / 'zones/zones.yml').write_text(json.dumps(found))
        return _with_config(super()._arguments(directory), config)


def _with_config(arguments: tuple[str, ...], config: pathlib.Path) -> tuple[str, ...]:
    return tuple(f'--config.file={config}' if '--config.file' in a else a for a in arguments)


def _copied(
    directory: pathlib.Path, example: str, site: web_site.Site | None = None
) -> pathlib.Path:
    """Return an example in a copy of the directory, with the secrets it names."""
    new = directory / 'shipped'
    shutil.copytree(SHIPPED, new)
    (new / 'secrets').mkdir()
    (new / 'secrets/password').write_text(web_site.PASSWORD)
    if site is not None:
        shutil.copy(site.directory / 'ca.pem', new / 'secrets/ca.pem')
    return new / f'{example}.yml'


@pytest.mark.parametrize('name', TESTS)
def test_rules_fire_and_are_silent_as_their_tests_say(name: str) -> None:
    assert 'SUCCESS' in processes.run('promtool', 'test', 'rules', str(SHIPPED / 'tests' / name))


def test_every_file_of_rules_has_its_tests() -> None:
    assert [pathlib.Path(path).name for path in RULES] == TESTS


@pytest.mark.parametrize('example', EXAMPLES)
def test_examples_are_good_configurations(example: str, tmp_path: pathlib.Path) -> None:
    site = web_site.Site(tmp_path, is_mutual=False)

    text = processes.run('promtool', 'check', 'config', str(_copied(tmp_path, example, site)))

    assert text.count('rules found') == len(RULES)


def test_example_of_a_global_prometheus_is_a_good_configuration() -> None:
    processes.run('promtool', 'check', 'config', str(SHIPPED / f'{GLOBAL}.yml'))


def test_rules_have_no_lint() -> None:
    processes.run('promtool', 'check', 'rules', '--lint=all', '--lint-fatal', *RULES)


@pytest.fixture(scope='module')
def guests(libvirtd: lab.Libvirtd) -> Iterator[list[lab_guests.Guest]]:
    new = libvirtd.start_guests(2, program='disk', port_model='rtl8139', metadata='2025.2')
    new[0].send_frames(10)
    yield new
    libvirtd.remove(new)


@pytest.fixture(scope='module', params=EXAMPLES)
def prometheus(
    request: pytest.FixtureRequest,
    libvirtd: lab.Libvirtd,
    guests: list[lab_guests.Guest],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ShippedPrometheus]:
    """Return a Prometheus that was found its exporter by the file of targets."""
    site = None
    if request.param == 'prometheus-tls':
        site = web_site.Site(tmp_path_factory.mktemp('site'), is_mutual=False)
    settings: exporters.Settings = {
        'collector': {'optional': ','.join(core_options.OPTIONAL)},
        'conntrack': {'min': 0},
    }
    with exporters.Exporter(libvirtd.uri, settings, site=site) as exporter:
        with ShippedPrometheus(request.param, exporter.address, site) as running:
            running.wait_until_up()
            yield running


def test_targets_of_the_file_have_their_labels(prometheus: ShippedPrometheus) -> None:
    (target,) = prometheus.targets()

    assert target['health'] == 'up', target['lastError']
    assert target['labels'] == {
        'job': 'oie',
        'instance': '127.0.0.1',
        'zone': 'az-1',
        'cell': 'cell1',
    }


def test_every_rule_is_evaluated_without_an_error(prometheus: ShippedPrometheus) -> None:
    processes.wait_for(
        lambda: all(rule['health'] != 'unknown' for rule in prometheus.rules()),
        20,
        'a first evaluation of all rules',
    )

    assert {rule['health'] for rule in prometheus.rules()} == {'ok'}


def test_sums_have_values_and_those_of_projects_no_labels_of_the_host(
    prometheus: ShippedPrometheus, guests: list[lab_guests.Guest]
) -> None:
    rates = processes.wait_for(
        lambda: prometheus.query('oie:host_disk_read_requests:rate5m > 0'), 20, 'a rate'
    )

    assert rates[0]['metric'].keys() == {'__name__', 'instance', 'job', 'zone', 'cell'}
    (count,) = prometheus.query('sum(oie:project_instances:count)')
    assert int(count['value'][1]) == len(guests)
    for row in prometheus.query('{__name__=~"oie:project_.+"}'):
        assert row['metric'].keys() == {'__name__', 'project_uuid'}


def test_every_sum_is_there_but_of_what_the_host_does_not_have(
    prometheus: ShippedPrometheus,
) -> None:
    recorded = {rule['name'] for rule in prometheus.rules() if rule['type'] == 'recording'}
    # No routers, no lists, no balloon driver, and nobody who opens a connection.
    absent = {name for name in recorded if 'router' in name or 'contacts' in name}
    absent |= {'oie:project_memory_guest_used_bytes:sum', 'oie:project_outbound_flows:sum'}

    def names() -> set[str]:
        return {row['metric']['__name__'] for row in prometheus.query('{__name__=~"oie:.+"}')}

    processes.wait_for(lambda: recorded - absent <= names(), 20, 'all sums')

    assert names() == recorded - absent


def test_a_healthy_host_raises_no_alert(prometheus: ShippedPrometheus) -> None:
    raised = {rule['name'] for rule in prometheus.rules() if rule.get('alerts')}

    assert raised <= LOADED


# The global one fetches from its zones over plain HTTP.
@pytest.mark.parametrize('prometheus', ['prometheus'], indirect=True)
def test_a_global_prometheus_has_the_sums_of_each_zone_and_no_instances(
    prometheus: ShippedPrometheus,
) -> None:
    # One zone under two names is as good as two zones with the same projects.
    zones = {'az-1': f'127.0.0.1:{prometheus.port}', 'az-2': f'localhost:{prometheus.port}'}

    with GlobalPrometheus(zones) as above:

        def parts() -> set[str]:
            rows = above.query('oie:project_vcpus:sum')
            return {row['metric']['part'] for row in rows}

        processes.wait_for(lambda: parts() == zones.keys(), 20, 'sums of both zones')
        (host,) = above.query('oie:host_memory_rss_bytes:sum{part="az-1"}')
        assert host['metric']['instance'] == '127.0.0.1'
        assert above.query('{__name__=~"oie_.+"}') == []
