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


"""What every installed collector promises, ours and those of others."""

import dataclasses
import pathlib
import re

import pytest

from oie import exceptions
from oie import model
from oie import sources
from oie.cmd import wiring
from oie.collectors import base
from oie.collectors import cpu
from oie.config import core_options
from tests import builders
from tests.unit import measuring

LISTS = tuple(builders.THREAT_TAGS)
# Names of the reference exporter that break the conventions; dashboards rely on them.
LITERAL_COUNTERS = {
    *(f'oie_{name}_contact' for name in LISTS),
    'oie_disk_r_gbytes',
    'oie_disk_w_gbytes',
    'oie_disk_r_requests',
    'oie_disk_w_requests',
    'oie_net_rx_gbytes',
    'oie_net_tx_gbytes',
    'netns_network_up',
    'netns_network_namespace',
}
LITERAL_GAUGES = {
    'oie_host_dynamic_cache_series_total',
    'oie_conntrack_ip_flows_total',
    'oie_host_conntrack_entries_total',
}
LITERAL_UNITS = {
    'oie_host_active_mem_gbytes',
    'libvirt_nova_instance_memory_alloc_kb',
    'libvirt_nova_instance_memory_used_kb',
    'libvirt_nova_instance_cpu_time_total',
    # perf.cpu_clock and perf.task_clock are events that happen to count nanoseconds.
    'oie_instance_perf_cpu_clock_total',
    'oie_instance_perf_task_clock_total',
}

INSTANCE = {'domain', 'instance_uuid', 'project_uuid', 'user_uuid'}
DISK = INSTANCE | {'disk_uuid', 'disk_type', 'disk_path'}
INTERFACE = INSTANCE | {'interface'}
ADDRESS = INSTANCE | {'ip', 'family'}
CONTACTS = INSTANCE | {'direction'}
PROJECT = {'project_id', 'project_name', 'domain_name', 'domain_id'}
NOVA = {'libvirtname', 'novaname', 'novaproject'}
NETNS = {'netns', 'device', 'router', 'host', 'hostname', 'deviceIP'}
INFO = INSTANCE | {
    'project_name',
    'user_name',
    'flavor',
    'vcpus',
    'mem_mb',
    'root_type',
    'created_at',
    'metadata_version',
}
LABELS = {
    'oie_instance_info': INFO,
    'oie_cpu_percent': INSTANCE,
    'oie_disk_info': DISK,
    'oie_disk_r_alert_threshold': DISK,
    'oie_disk_w_alert_threshold': DISK,
    'oie_disk_r_gbytes': DISK,
    'oie_disk_w_gbytes': DISK,
    'oie_disk_r_requests': DISK,
    'oie_disk_w_requests': DISK,
    'oie_net_rx_gbytes': INTERFACE,
    'oie_net_tx_gbytes': INTERFACE,
    'oie_net_rx_pkt_total': INTERFACE,
    'oie_net_tx_pkt_total': INTERFACE,
    'oie_net_rx_er_total': INTERFACE,
    'oie_net_tx_er_total': INTERFACE,
    'oie_net_rx_drp_total': INTERFACE,
    'oie_net_tx_drp_total': INTERFACE,
    'oie_conntrack_ip_flows_total': ADDRESS,
    'oie_outbound_unique_remotes': ADDRESS,
    'oie_outbound_flows': ADDRESS,
    'oie_outbound_new_remotes': ADDRESS,
    'oie_outbound_max_flows_single_remote': ADDRESS,
    'oie_outbound_unique_dst_ports': ADDRESS,
    'oie_outbound_new_dst_ports': ADDRESS,
    'oie_outbound_max_flows_single_dst_port': ADDRESS,
    'oie_host_conntrack_read_duration_seconds': set(),
    'oie_host_conntrack_entries_total': set(),
    'oie_host_conntrack_read_errors_total': set(),
    'oie_conntrack_read_errors_total': set(),
    **{f'oie_{name}_contact': CONTACTS for name in LISTS},
    **{f'oie_{name}_contact_active': CONTACTS for name in LISTS},
    **{f'oie_{name}_entries': set() for name in LISTS},
    **{f'oie_{name}_refresh_duration_seconds': set() for name in LISTS},
    **{f'oie_{name}_refresh_errors_total': set() for name in LISTS},
    **{f'oie_{name}_refresh_last_success_timestamp_seconds': set() for name in LISTS},
    'oie_host_threat_listed': {'list', 'ip', 'family'},
    'oie_host_active_vms': set(),
    'oie_host_active_vcpus': set(),
    'oie_host_active_mem_gbytes': set(),
    'oie_host_collection_errors_total': set(),
    'oie_host_collection_duration_seconds': set(),
    'oie_host_collection_lag_seconds': set(),
    'oie_host_libvirt_list_duration_seconds': set(),
    'oie_host_dynamic_cache_series_total': set(),
    'oie_host_go_heap_alloc_bytes': set(),
    'oie_static_cache_entries': set(),
    'oie_dynamic_cache_entries': set(),
    'oie_cache_cleanup_duration_seconds': set(),
    'oie_cache_evictions_total': set(),
    'project_vcpu_usage': PROJECT,
    'project_mb_usage': PROJECT,
    'oie_project_vcpu_hours_total': PROJECT,
    'oie_project_memory_mb_hours_total': PROJECT,
    'libvirt_nova_instance_cpu_time_total': NOVA,
    'libvirt_nova_instance_memory_alloc_kb': NOVA,
    'libvirt_nova_instance_memory_used_kb': NOVA,
    'libvirt_nova_instance_vcpu_count': NOVA,
    **{f'netns_network_{name}_total': NETNS for name in model.LinkStatistics._fields},
    'netns_network_nat_conntrack_total': {'netns'},
    'netns_network_up': NETNS,
    'netns_network_namespace': {'netns', 'hostname'},
    'netns_exporter_build_info': {'branch', 'goversion', 'revision', 'version'},
}
COUNTERS = {
    name for name in LABELS if name.startswith(('oie_net_', 'oie_disk_r_', 'oie_disk_w_'))
} - {'oie_disk_r_alert_threshold', 'oie_disk_w_alert_threshold'} | {
    *(f'oie_{name}_contact' for name in LISTS),
    *(f'oie_{name}_refresh_errors_total' for name in LISTS),
    'oie_host_collection_errors_total',
    'oie_cache_evictions_total',
    'oie_conntrack_read_errors_total',
    'oie_host_conntrack_read_errors_total',
    'libvirt_nova_instance_cpu_time_total',
    'oie_project_vcpu_hours_total',
    'oie_project_memory_mb_hours_total',
    *(name for name in LABELS if name.startswith('netns_network_')),
}

# What can be said of an instance of which nothing can be read.
ALWAYS_KNOWN = {
    'oie_instance_info',
    'oie_instance_openstack_info',
    'oie_instance_address_info',
    'oie_instance_state_code',
    'oie_instance_data_fresh',
    'oie_instance_data_complete',
    'oie_instance_created_timestamp_seconds',
    'oie_disk_info',
    'oie_disk_r_alert_threshold',
    'oie_disk_w_alert_threshold',
    'oie_instance_interface_info',
    'oie_instance_interface_stats_available',
    'oie_instance_job_info',
    'oie_host_active_vms',
    'oie_host_instances_without_project',
    'oie_libvirt_up',
}
# Families that tell of ourselves, not of the host.
OWN = re.compile(
    r'oie_(host_(collection|dynamic|go_heap|heap)|static|dynamic|cache|collector|exporter|build'
    r'|libvirt_(reconnects|stuck|suspect)|domain_errors)\w*|(prometheus|netns_exporter)_build_info'
    r'|(process|python)_\w+'
)

CLASSES = pytest.mark.parametrize('each', measuring.CLASSES.values(), ids=measuring.CLASSES)


@pytest.fixture(autouse=True)
def _kernel_counts_waiting(monkeypatch, tmp_path):
    path = tmp_path / 'sched_schedstats'
    path.write_text('1\n')
    monkeypatch.setattr(cpu, 'SCHEDSTATS', str(path))


def everything(current=None, previous=None):
    """Return the families of all collectors with all options on, by default of the full node."""
    collectors = measuring.everything(collector_instance__extra_specs=[builders.EXTRA_SPEC])
    if current is None:
        current, previous = builders.node(), builders.node_before()
    return measuring.families(collectors.values(), current, previous)


def all_meters():
    return [meter for each in measuring.CLASSES.values() for meter in each.meters()]


# --- meters: one of each, documented, named by rule --------------------------


def test_names_are_unique_over_all_collectors():
    for field in ('prometheus', 'ceilometer'):
        names = [name for meter in all_meters() if (name := getattr(meter, field))]
        assert sorted(names) == sorted(set(names))


@CLASSES
def test_a_collector_says_what_it_is_about_and_belongs_to_a_set(each):
    assert issubclass(each, base.Collector)
    assert each.__doc__
    assert each.METRIC_SET in ('oie', 'libvirt_nova', 'netns')
    assert each.NEEDS <= {field.name for field in dataclasses.fields(model.Snapshot)}
    assert each.meters()


@CLASSES
def test_every_meter_is_documented(each):
    for meter in each.meters():
        assert meter.prometheus or meter.ceilometer
        # The words of netns-exporter, and of OS_project_usage_exporter, stay what they are.
        is_literal = each.METRIC_SET == 'netns' or meter.prometheus.startswith('project_')
        end = r'\.?' if is_literal else r'\.'
        assert re.fullmatch(rf'[A-Z][ -~]*[^ .]{end}', meter.help), meter
        assert '  ' not in meter.help
        assert meter.unit, meter
        assert meter.source, meter


@CLASSES
def test_every_name_follows_the_conventions_or_is_literal(each):
    for meter in each.meters():
        name = meter.prometheus
        if not name:
            continue
        sets = 'oie|libvirt_nova|netns|project|prometheus'
        assert re.fullmatch(rf'({sets})_[a-z][a-z0-9_]*[a-z0-9]', name)
        is_counter = meter.kind is model.Kind.CUMULATIVE
        if name not in LITERAL_COUNTERS | LITERAL_GAUGES:
            assert name.endswith('_total') == is_counter, name
        assert name.endswith('_info') == (meter.kind is model.Kind.INFO), name
        assert not name.endswith(('_sum', '_count', '_bucket')) or name in LABELS, name


@CLASSES
def test_base_units_are_told_by_the_name(each):
    units = {'s': '_seconds', 'B': '_bytes', 'B/s': '_bytes_per_second'}
    for meter in each.meters():
        name = meter.prometheus
        if not name or name in LITERAL_COUNTERS | LITERAL_UNITS:
            continue
        assert meter.unit not in ('ns', 'ms', 'KiB', 'MiB', 'GiB', 'kb'), name
        if meter.unit in units:
            assert name.removesuffix('_total').endswith(units[meter.unit]), name


def test_literal_names_exist_and_have_the_types_of_the_contract():
    by_name = {meter.prometheus: meter for meter in all_meters() if meter.prometheus}
    assert set(LABELS) | LITERAL_COUNTERS | LITERAL_GAUGES <= set(by_name)
    counters = {n for n in LABELS if by_name[n].kind is model.Kind.CUMULATIVE}
    assert counters == COUNTERS
    assert all(by_name[n].kind is model.Kind.GAUGE for n in LITERAL_GAUGES)


@CLASSES
def test_every_meter_for_ceilometer_has_a_field_and_an_own_prefix(each):
    for meter in each.meters():
        assert bool(meter.ceilometer) == bool(meter.field), meter
        if meter.ceilometer:
            assert meter.ceilometer.startswith('oie.')
            assert meter.kind in (model.Kind.GAUGE, model.Kind.CUMULATIVE)


# --- samples ----------------------------------------------------------------


def test_a_node_that_tells_all_shows_every_meter():
    shown = {family.meter.prometheus for family in everything()}
    assert {meter.prometheus for meter in all_meters()} - {''} - shown == set()


def test_nothing_is_shown_that_no_collector_declares():
    shown = {family.meter.prometheus for family in everything()}
    declared = {meter.prometheus for meter in all_meters()}
    assert all(name.startswith(('process_', 'python_')) for name in shown - declared)


def test_labels_are_exactly_those_of_the_contract():
    samples = measuring.samples(everything())
    for name, expected in LABELS.items():
        assert {frozenset(n for n, _ in labels) for labels in samples[name]} == {
            frozenset(expected)
        }, name


def test_every_series_of_an_instance_can_be_joined():
    for name, values in measuring.samples(everything()).items():
        for labels in values:
            names = {n for n, _ in labels}
            if name.startswith('oie_') and 'domain' in names:
                assert names >= INSTANCE, name


def test_label_names_are_valid_and_not_reserved():
    for values in measuring.samples(everything()).values():
        for labels in values:
            for name, value in labels:
                assert re.fullmatch(r'[a-z][a-z0-9_]*|deviceIP', name), name
                assert name not in ('job', 'instance', 'quantile')
                assert isinstance(value, str), (name, value)


def test_an_instance_of_which_nothing_is_known_shows_no_invented_value():
    silent = builders.silent()
    found = measuring.samples(everything(builders.snapshot(silent), builders.snapshot(silent)))
    assert {name for name in found if not OWN.fullmatch(name)} == ALWAYS_KNOWN


def test_a_host_that_could_never_be_read_shows_its_health_only():
    unread = builders.snapshot(read_at=None, error='libvirt is down')
    found = measuring.samples(everything(unread))
    assert {name for name in found if not OWN.fullmatch(name)} == {'oie_libvirt_up'}


@CLASSES
def test_a_first_cycle_of_an_empty_host_is_no_failure(each):
    [name] = [name for name, found in measuring.CLASSES.items() if found is each]
    measuring.shown(measuring.collector(name), builders.snapshot())


@CLASSES
def test_collecting_twice_gives_the_same_and_changes_nothing(each):
    [name] = [name for name, found in measuring.CLASSES.items() if found is each]
    collector, notes = measuring.everything()[name], {}
    node, before = builders.node(), builders.node_before()
    found = [
        {
            name: values
            for name, values in measuring.shown(collector, node, before, notes).items()
            if not name.startswith(('process_', 'python_', 'oie_host_heap', 'oie_host_go_heap'))
        }
        for _ in range(2)
    ]
    assert found[0] == found[1]


def test_notes_are_kept_by_instance_so_that_they_can_be_dropped():
    uuids = {instance.definition.uuid for instance in builders.node().instances.value}
    for name, collector in measuring.everything().items():
        notes: base.Notes = {}
        measuring.shown(collector, builders.node(), builders.node_before(), notes)
        assert set(notes) <= uuids, name


def test_equal_devices_and_addresses_give_no_second_sample():
    """A scrape with two samples of one identity would be refused as a whole (S24)."""
    of = builders.definition(
        addresses=(
            builders.address(),
            builders.address(port_uuid='22222222-2222-4222-8222-222222222222'),
        ),
        interfaces=(
            builders.interface(),
            builders.virtual_function(),
            builders.virtual_function(pci_address='0000:81:10.2'),
        ),
    )
    everything(builders.snapshot(builders.instance(of)))  # measuring.samples() compares


# --- optional groups --------------------------------------------------------


@pytest.fixture(scope='module')
def by_default():
    """What a node that tells all shows without any optional group."""
    return shown_with()


def shown_with(*optional):
    collectors = measuring.collectors(
        collector__optional=','.join(optional),
        collector_instance__extra_specs=[builders.EXTRA_SPEC],
    )
    return measuring.samples(
        measuring.families(collectors.values(), builders.node(), builders.node_before())
    )


@pytest.mark.parametrize('name', core_options.OPTIONAL)
def test_an_optional_group_adds_its_series_and_only_when_switched_on(name, by_default):
    found = shown_with(name)
    new = {series for series in found if series not in by_default}
    assert new
    changed = {
        series
        for series in by_default
        if found.get(series, {}).keys() != by_default[series].keys()
    }
    # Each vCPU by itself in place of the sum is the one group that changes others.
    assert changed == (
        {'oie_instance_vcpu_seconds_total', 'oie_instance_cpu_steal_seconds_total'}
        if name == 'vcpus'
        else set()
    )


def test_every_fact_that_a_collector_may_show_is_read_by_some_source():
    """Else an option could be switched on, cost something and show nothing."""
    package = pathlib.Path(sources.__file__).parent
    text = '\n'.join(path.read_text() for path in package.rglob('*.py'))
    nouns = (
        *(model.Flavor, model.DiskDevice, model.InterfaceDevice, model.HostDevice),
        *(model.Definition, model.VcpuStatistics, model.Memory, model.DiskStatistics),
        *(model.InterfaceStatistics, model.VirtualFunctionStatistics),
        *(model.Job, model.BlockJob, model.MonitorStatistics),
        *(model.Instance, model.Hypervisor, model.FlowHealth),
    )
    unread = [
        f'{noun.__name__}.{field.name}'
        for noun in nouns
        for field in dataclasses.fields(noun)
        if not re.search(rf"\b{field.name}=|'{field.name}'", text)
    ]
    assert unread == []


def test_declared_optional_tables_have_names_of_options():
    for each in measuring.CLASSES.values():
        assert set(each.OPTIONAL) <= set(core_options.OPTIONAL)


def test_a_choice_that_leaves_no_collector_is_refused():
    with pytest.raises(exceptions.ConfigError, match='enabled'):
        wiring.collectors(measuring.options(collector__enabled='libvirt_nova'))


def test_a_shorter_list_of_collectors_is_obeyed():
    assert set(wiring.collectors(measuring.options(collector__enabled='memory,host'))) == {
        'memory',
        'host',
    }
