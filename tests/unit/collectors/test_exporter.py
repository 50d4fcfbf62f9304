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


"""Figures about ourselves, in every scrape."""

import pytest

from oie import model
from oie.collectors import exporter
from tests import builders
from tests.unit import measuring

COLLECTOR = measuring.collector('exporter')


def shown(snapshot):
    return measuring.shown(COLLECTOR, snapshot)


def test_the_references_cycle_figures_keep_names_and_rounding():
    found = shown(builders.snapshot(cycle=builders.cycle()))
    assert measuring.only(found['oie_host_collection_errors_total']) == 1
    assert measuring.only(found['oie_host_collection_duration_seconds']) == 0.05432
    assert measuring.only(found['oie_host_collection_lag_seconds']) == 9.98765
    assert measuring.only(found['oie_cache_cleanup_duration_seconds']) == 0.00012
    assert measuring.only(found['oie_cache_evictions_total']) == 3


def test_caches_are_counted_in_instances_and_domains():
    snapshot = builders.snapshot(
        builders.instance(), hypervisor=builders.hypervisor(definitions_cached=4)
    )
    found = shown(snapshot)
    assert measuring.only(found['oie_dynamic_cache_entries']) == 1
    assert measuring.only(found['oie_host_dynamic_cache_series_total']) == 1
    assert measuring.only(found['oie_static_cache_entries']) == 4


def test_the_age_of_what_is_shown_can_be_computed():
    found = shown(builders.snapshot(taken_at=1234.5))
    assert measuring.only(found['oie_host_collection_timestamp_seconds']) == 1234.5


def test_each_group_tells_its_own_health():
    found = shown(builders.snapshot(cycle=builders.cycle()))
    success = {dict(k)['group']: v for k, v in found['oie_collector_success'].items()}
    assert success == {'libvirt': 1, 'cpu': 0}
    series = {dict(k)['group']: v for k, v in found['oie_exporter_series'].items()}
    assert series == {'cpu': 40}


def test_a_group_that_never_succeeded_has_no_time_of_success():
    groups = {'cpu': model.GroupHealth(is_success=False, seconds=0.1)}
    found = shown(builders.snapshot(cycle=builders.cycle(groups=groups)))
    assert 'oie_collector_last_success_timestamp_seconds' not in found


def test_requests_are_told_by_class_of_status():
    web = model.WebStatistics(requests={'2xx': 7}, dropped={'slow': 1}, connections=2)
    found = shown(builders.snapshot(web=web))
    assert found['oie_exporter_http_requests_total'] == {frozenset({('status', '2xx')}): 7}
    assert found['oie_exporter_http_dropped_total'] == {frozenset({('reason', 'slow')}): 1}
    assert measuring.only(found['oie_exporter_http_connections']) == 2


def test_an_endpoint_that_does_not_listen_yet_tells_no_connections():
    assert 'oie_exporter_http_connections' not in shown(builders.snapshot())


def test_the_state_of_the_web_configuration_file_is_told_where_there_is_one():
    web = model.WebStatistics(
        config_is_ok=False, config_errors=3, is_public_without_authentication=True
    )
    found = shown(builders.snapshot(web=web))
    assert measuring.only(found['oie_exporter_web_config_ok']) == 0
    assert measuring.only(found['oie_exporter_web_config_reload_errors_total']) == 3
    assert measuring.only(found['oie_exporter_public_without_authentication']) == 1
    without = shown(builders.snapshot())
    assert not [name for name in without if 'web_config' in name or 'public' in name]


def test_the_state_of_the_configuration_files_is_told():
    reloads = model.Reloads(is_ok=False, errors=2, succeeded_at=1234.5, waiting=3)
    found = shown(builders.snapshot(reloads=reloads))
    assert measuring.only(found['oie_exporter_config_ok']) == 0
    assert measuring.only(found['oie_exporter_config_reload_errors_total']) == 2
    name = 'oie_exporter_config_last_reload_success_timestamp_seconds'
    assert measuring.only(found[name]) == 1234.5
    assert measuring.only(found['oie_exporter_config_options_waiting']) == 3


def test_the_name_of_the_go_heap_carries_our_anonymous_memory():
    found = shown(builders.snapshot())
    assert measuring.only(found['oie_host_go_heap_alloc_bytes']) > 1_000_000
    assert measuring.only(found['oie_host_heap_alloc_bytes']) > 1_000_000


@pytest.mark.parametrize('status', ['', 'Name:\tpython\n', 'RssAnon:\tmuch kB\n'])
def test_a_kernel_that_does_not_tell_gives_no_heap(status, monkeypatch, tmp_path):
    path = tmp_path / 'status'
    path.write_text(status)
    monkeypatch.setattr(exporter, 'STATUS', str(path))
    assert not any('heap' in name for name in shown(builders.snapshot()) if 'oie' in name)


def test_the_version_is_told_under_our_name_and_the_references():
    found = shown(builders.snapshot())
    for name in ('oie_build_info', 'prometheus_build_info'):
        [labels] = found[name]
        assert dict(labels)['version']


def test_the_process_is_measured_by_the_client_library():
    found = shown(builders.snapshot())
    assert {'process_cpu_seconds_total', 'process_resident_memory_bytes'} <= set(found)
    assert 'python_info' in found


def test_process_figures_have_the_types_of_the_client_library():
    kinds = {family.meter.prometheus: family.meter.kind for family in exporter.process()}
    assert kinds['process_cpu_seconds_total'] is model.Kind.CUMULATIVE
    assert kinds['process_resident_memory_bytes'] is model.Kind.GAUGE
