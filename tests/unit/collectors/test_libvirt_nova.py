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


"""The four series of the retired exporter: its names, labels and units."""

from oie import model
from oie.cmd import wiring
from tests import builders
from tests.unit import measuring

MIB = builders.MIB
LABELS = frozenset(
    {('libvirtname', 'instance-0000002a'), ('novaname', 'web-1'), ('novaproject', 'shop')}
)


def shown(**fields):
    snapshot = builders.snapshot(builders.instance(**fields))
    return measuring.shown(measuring.collector('libvirt_nova'), snapshot)


def of_memory(**figures):
    return builders.monitor(builders.definition(), memory=model.Memory(**figures))


def test_exactly_the_four_series_with_exactly_the_three_labels():
    assert shown() == {
        'libvirt_nova_instance_cpu_time_total': {LABELS: 25_000_000_000},
        'libvirt_nova_instance_memory_alloc_kb': {LABELS: 3900 * 1024},
        'libvirt_nova_instance_memory_used_kb': {LABELS: (3900 - 2900) * 1024},
        'libvirt_nova_instance_vcpu_count': {LABELS: 4},
    }


def test_types_are_those_of_the_retired_exporter():
    kinds = {m.prometheus: m.kind for m in measuring.CLASSES['libvirt_nova'].meters()}
    assert kinds.pop('libvirt_nova_instance_cpu_time_total') is model.Kind.CUMULATIVE
    assert set(kinds.values()) == {model.Kind.GAUGE}


def test_without_a_balloon_driver_there_is_no_memory_series():
    found = shown(monitor=of_memory(current_bytes=MIB, rss_bytes=MIB))
    assert set(found) == {
        'libvirt_nova_instance_cpu_time_total',
        'libvirt_nova_instance_vcpu_count',
    }


def test_figures_that_contradict_each_other_are_no_zero():
    found = shown(monitor=of_memory(available_bytes=MIB, usable_bytes=2 * MIB))
    assert 'libvirt_nova_instance_memory_used_kb' not in found


def test_a_silent_monitor_leaves_the_cpu_time():
    assert set(shown(monitor=None)) == {'libvirt_nova_instance_cpu_time_total'}


def test_the_series_come_only_with_their_metric_set():
    default = wiring.collectors(measuring.options())
    assert 'libvirt_nova' not in default
    alone = wiring.collectors(measuring.options(exporter__metric_sets='libvirt_nova'))
    assert set(alone) == {'libvirt_nova'}
