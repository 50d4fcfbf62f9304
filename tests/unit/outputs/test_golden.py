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


"""One full node, whole outputs: the text for Prometheus and the lists for Ceilometer."""

import shutil
import subprocess

from prometheus_client import parser
import pytest

from oie import model
from oie.cmd import wiring
from oie.collectors import cpu
from oie.collectors import exporter
from oie.outputs import prometheus
from tests import builders
from tests.unit import golden
from tests.unit import measuring

# What promtool says, and why it must: the names are those of the reference exporters.
PROMTOOL = {
    f'{name} {complaint}'
    for complaint, found in {
        'counter metrics should have "_total" suffix': (
            'oie_disk_r_gbytes',
            'oie_disk_r_requests',
            'oie_disk_w_gbytes',
            'oie_disk_w_requests',
            'oie_net_rx_gbytes',
            'oie_net_tx_gbytes',
            *(f'oie_{name}_contact' for name in builders.THREAT_TAGS),
            'netns_network_up',
            'netns_network_namespace',
        ),
        "label names should be written in 'snake_case' not 'camelCase'": (
            *(f'netns_network_{name}_total' for name in model.LinkStatistics._fields),
            'netns_network_up',
        ),
        'non-counter metrics should not have "_total" suffix': (
            'oie_conntrack_ip_flows_total',
            'oie_host_conntrack_entries_total',
            'oie_host_dynamic_cache_series_total',
        ),
        'metric names should not contain abbreviated units': (
            'libvirt_nova_instance_memory_alloc_kb',
            'libvirt_nova_instance_memory_used_kb',
            'oie_project_memory_mb_hours_total',
            'oie_project_weighted_memory_mb_hours_total',
            'project_mb_usage',
        ),
        # Nova, OS_project_usage_exporter and every bill count hours.
        'use base unit "seconds" instead of "hours"': (
            'oie_project_memory_mb_hours_total',
            'oie_project_vcpu_hours_total',
            'oie_project_weighted_memory_mb_hours_total',
            'oie_project_weighted_vcpu_hours_total',
        ),
        'non-histogram and non-summary metrics should not have "_count" suffix': (
            'libvirt_nova_instance_vcpu_count',
        ),
    }.items()
    for name in found
}


@pytest.fixture(autouse=True)
def _process_stands_still(monkeypatch, tmp_path):
    path = tmp_path / 'sched_schedstats'
    path.write_text('1\n')
    monkeypatch.setattr(cpu, 'SCHEDSTATS', str(path))
    monkeypatch.setattr(exporter, 'process', lambda: ())
    monkeypatch.setattr(exporter, '_anonymous_bytes', lambda: 40 * builders.MIB)
    monkeypatch.setattr(exporter, 'version', lambda: '1.2.3')


def exposition(collectors):
    found = measuring.families(collectors.values(), builders.node(), builders.node_before())
    return prometheus.Renderer().render(found)


def everything():
    return exposition(measuring.everything(collector_instance__extra_specs=[builders.EXTRA_SPEC]))


def test_metrics_by_default():
    golden.check('metrics.txt', exposition(wiring.collectors(measuring.options())).text)


def test_metrics_with_every_set_and_every_option():
    golden.check('metrics_everything.txt', everything().text)


@pytest.mark.parametrize('name', ['instances', 'disks', 'vnics', 'flows', 'contacts', 'routers'])
def test_lists_of_the_pollsters(name):
    golden.check(f'{name}.json', wiring.pollsters()[name].render(builders.node()))


def test_all_of_it_reads_back():
    shown = everything()
    families = list(parser.text_string_to_metric_families(shown.text.decode()))
    assert sum(len(family.samples) for family in families) == shown.series


def test_promtool_finds_nothing_but_the_literal_names():
    promtool = shutil.which('promtool')
    if promtool is None:
        pytest.skip('no promtool here: it is in the Debian package prometheus')
    checked = subprocess.run(
        [promtool, 'check', 'metrics'],
        input=everything().text,
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert set((checked.stdout + checked.stderr).decode().splitlines()) == PROMTOOL
