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

"""Readers are made where an option wants them, and fill fields that there are."""

import dataclasses

import pytest

from oie import exceptions
from oie import model
from oie import plugins
from oie.cmd import wiring
from oie.ledger import reader as ledger_reader
from oie.sources import reachability
from tests import builders
from tests.unit import measuring

OFF = {'conntrack__enabled': False}


def test_probes_are_made_only_on_demand():
    assert 'probes' not in wiring.readers(measuring.options(**OFF))
    made = wiring.readers(measuring.options(**OFF, collector__optional='reachability'))
    assert isinstance(made['probes'], reachability.ReachabilitySource)


def test_totals_are_kept_unless_switched_off():
    made = wiring.readers(measuring.options(**OFF))['ledger']
    assert isinstance(made, ledger_reader.LedgerReader)
    assert 'ledger' not in wiring.readers(measuring.options(**OFF, ledger__enabled=False))


def test_without_a_web_configuration_file_nobody_is_asked_who_he_is():
    assert wiring.web_guard(measuring.options(**OFF)) is None


def test_a_wrong_web_configuration_file_is_a_wrong_option(tmp_path):
    path = tmp_path / 'web.yml'
    with pytest.raises(exceptions.ConfigError, match='web_config_file: cannot read'):
        wiring.web_guard(measuring.options(**OFF, exporter__web_config_file=str(path)))
    path.write_text('rate_limit: {interval: 1s, burst: 5}\n')
    assert wiring.web_guard(measuring.options(**OFF, exporter__web_config_file=str(path)))


def test_nothing_of_the_ledger_is_opened_before_the_first_cycle(tmp_path):
    path = tmp_path / 'ledger.sqlite'
    made = wiring.readers(measuring.options(**OFF, ledger__path=str(path)))['ledger']
    made.close()
    assert list(tmp_path.iterdir()) == []


def test_totals_without_a_path_are_those_since_the_start():
    made = wiring.readers(measuring.options(**OFF, ledger__path=''))['ledger']
    fields = made.read((builders.instance(),), 30.0, {builders.UUID})
    assert set(fields) <= {field.name for field in dataclasses.fields(model.Snapshot)}
    assert fields['usage'].value[0].cpu_time_ns == 0
    assert not fields['ledger'].is_durable


def test_licences_are_counted_where_systems_are_known(tmp_path):
    made = wiring.readers(
        measuring.options(**OFF, ledger__path='', guest_os__licences={'windows': 'vcpu'})
    )
    windows = builders.instance(
        builders.definition(image_properties={'os_distro': 'windows', 'os_type': 'windows'})
    )
    for instance in (windows, builders.later(windows, 10, 0)):
        for name in ('guest_os', 'ledger'):
            fields = made[name].read((instance,), 30.0, {builders.UUID})
    assert fields['usage'].value[0].license_unit_seconds == 2 * 10
    assert list(made).index('guest_os') < list(made).index('ledger')


def test_sources_are_named_after_fields_of_the_snapshot():
    fields = {field.name for field in dataclasses.fields(model.Snapshot)}
    assert set(plugins.names(wiring.SOURCES)) <= fields


def test_only_quick_drivers_are_asked_by_default():
    made = wiring.guest_os(measuring.options())
    assert list(made._drivers) == ['nova_image', 'libosinfo']
    assert not any(driver.IS_SLOW for driver in made._drivers.values())


def test_drivers_keep_the_order_of_the_option():
    made = wiring.guest_os(measuring.options(guest_os__drivers='libosinfo,nova_image'))
    assert list(made._drivers) == ['libosinfo', 'nova_image']


def test_nobody_is_asked_where_that_is_switched_off():
    conf = measuring.options(**OFF, guest_os__enabled=False)
    assert wiring.guest_os(conf) is None
    assert 'guest_os' not in wiring.readers(conf)


def test_a_read_write_connection_must_be_allowed():
    conf = measuring.options(guest_os__drivers='nova_image,guest_agent')
    with pytest.raises(exceptions.ConfigError, match='allow_read_write'):
        wiring.guest_os(conf)


def test_an_allowed_agent_uses_the_hypervisor_of_libvirt():
    conf = measuring.options(
        guest_os__drivers='guest_agent',
        guest_os_guest_agent__allow_read_write=True,
        libvirt__uri='qemu:///elsewhere',
    )
    [driver] = wiring.guest_os(conf)._drivers.values()
    assert driver.uri == 'qemu:///elsewhere'


def test_a_metric_set_of_namespaces_that_nobody_reads_is_told(caplog):
    wiring.network_namespaces(measuring.options(exporter__metric_sets='oie,netns'))
    assert '[netns] enabled is false' in caplog.text
    caplog.clear()
    wiring.network_namespaces(measuring.options())
    assert not caplog.text


# --- project usage, and hosts without libvirt -------------------------------


def needs_instances(enabled):
    conf = measuring.options(collector__enabled=enabled)
    return wiring.needs_instances(wiring.collectors(conf).values())


@pytest.mark.parametrize(
    'enabled', [('project_usage', 'exporter'), ('project_usage',), ('namespaces', 'exporter')]
)
def test_libvirt_is_not_asked_where_no_collector_needs_instances(enabled):
    assert not needs_instances(enabled)


@pytest.mark.parametrize('enabled', [(), ('exporter',), ('project_usage', 'cpu'), ('threats',)])
def test_libvirt_is_asked_where_any_collector_may_need_it(enabled):
    assert needs_instances(enabled)


def test_project_usage_is_read_only_where_it_is_switched_on():
    assert 'projects' not in wiring.readers(measuring.options(**OFF))
    found = wiring.readers(measuring.options(**OFF, usage__enabled=True), has_instances=False)
    assert set(found) == {'projects'}


def test_nothing_of_project_usage_is_opened_before_the_first_cycle(tmp_path):
    path = tmp_path / 'there' / 'projects.sqlite'
    wiring.projects(measuring.options(usage__enabled=True, usage__path=str(path)))
    assert not path.parent.exists()


def test_project_usage_fills_fields_that_there_are():
    reader = wiring.projects(measuring.options(usage__enabled=True, usage__path=''))
    reader._thread = object()
    found = reader.read((), 10.0, frozenset())
    assert set(found) <= {field.name for field in dataclasses.fields(model.Snapshot)}
