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

"""Project usage with the real daemon: a control node without libvirt, a cloud over HTTP, Keystone.

Nova is ours (tests/nova_cloud.py); Keystone is the real one in the last tests.
"""

from collections.abc import Iterator
import os
import pathlib
import sqlite3
import threading
import time

import pytest

from tests import machine
from tests import nova_cloud
from tests.functional import exporter as exporters
from tests.functional import keystone
from tests.functional import processes

HOUR = 3600.0
# Whoever asked libvirt would fail.
NOWHERE = 'test:///nowhere/node.xml'
HOURS = 'oie_project_vcpu_hours_total'
ERRORS = 'oie_project_usage_errors_total'
UPDATES = 'oie_project_usage_updates_total'
LEFT_OUT = 'oie_project_usage_left_out'
TOML = """
[elixir]
domain_id = "elixir_id"
[[elixir.projects]]
project_name = "Cell"
project_id = "1234"
machines = [{ram = 8, cpus = 4, existence = [2026-01-01T00:00:00Z, 2026-01-02T00:00:00Z]}]
"""


@pytest.fixture(autouse=True)
def _no_cloud_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    for name in os.environ:
        if name.startswith(('OS_', 'USAGE_EXPORTER_')):
            monkeypatch.delenv(name)
    monkeypatch.setenv('HOME', str(tmp_path))


@pytest.fixture
def nova(monkeypatch: pytest.MonkeyPatch) -> Iterator[nova_cloud.Cloud]:
    """A cloud with one project and one instance, to which OS_* variables lead."""
    # As old as the start date allows, so that hours are large against the time of a test.
    now = time.time()
    with nova_cloud.running(now) as made:
        made.projects = {'p-web': ('web', 'default')}
        made.servers = [nova_cloud.Server('a', 'p-web', now - 10 * HOUR)]
        auth = made.settings['auth']
        for name, value in {**auth, 'region_name': 'RegionOne'}.items():
            monkeypatch.setenv(f'OS_{name.upper()}', value)
        yield made


def settings(directory: pathlib.Path, **usage: object) -> exporters.Settings:
    return {
        'collector': {'enabled': 'project_usage,exporter', 'interval': '1s'},
        'conntrack': {'enabled': 'false'},
        'usage': {
            'enabled': 'true',
            'interval': '1s',
            'timeout': '5s',
            'start_date': '2026-01-01',
            'path': directory / 'projects.sqlite',
            **usage,
        },
    }


@pytest.fixture
def control_node(nova: nova_cloud.Cloud, tmp_path: pathlib.Path) -> Iterator[exporters.Exporter]:
    with exporters.Exporter(NOWHERE, settings(tmp_path)) as running:
        yield running


def hours(scrape: exporters.Scrape, name: str = HOURS, **labels: str) -> float:
    value = scrape.value(name, **(labels or {'project_name': 'web'}))
    return -1.0 if value is None else value


def advance(nova: nova_cloud.Cloud, seconds: float) -> None:
    nova.now += seconds


# --- without libvirt --------------------------------------------------------


def test_a_control_node_is_ready_without_libvirt(control_node: exporters.Exporter) -> None:
    assert control_node.get('/readyz') == (200, 'ok\n')
    scrape = control_node.wait_for(lambda scrape: hours(scrape) > 0, 'usage')
    assert not scrape.of('oie_libvirt_up')
    assert not scrape.of('oie_collector_success', group='libvirt')
    assert scrape.value('oie_collector_success', group='projects') == 1
    assert 'libvirt' not in control_node.log


def test_lists_of_instances_are_refused_there_never_empty(
    control_node: exporters.Exporter,
) -> None:
    answer = control_node.pollster('instances')
    assert answer.status != 0
    assert '[]' not in answer.text


# --- usage ------------------------------------------------------------------


def test_hours_are_those_of_the_cloud(
    control_node: exporters.Exporter, nova: nova_cloud.Cloud
) -> None:
    scrape = control_node.wait_for(lambda scrape: hours(scrape) > 0, 'usage')
    labels = {
        'project_id': 'p-web',
        'project_name': 'web',
        'domain_name': 'Default',
        'domain_id': 'default',
    }
    # 10 h x 2 vCPUs, x 4096 MiB, x 4 GiB
    assert [one.labels for one in scrape.of(HOURS)] == [labels]
    assert hours(scrape) == pytest.approx(20, abs=1e-6)
    assert hours(scrape, 'project_vcpu_usage') == pytest.approx(20, abs=1e-6)
    assert hours(scrape, 'oie_project_memory_mb_hours_total') == pytest.approx(40960, abs=1e-3)
    assert hours(scrape, 'project_mb_usage') == pytest.approx(40, abs=1e-6)
    assert scrape.types[HOURS] == 'counter'
    assert scrape.types['project_vcpu_usage'] == 'gauge'


def test_totals_never_fall_through_resize_deletion_purge_and_a_kill(
    control_node: exporters.Exporter, nova: nova_cloud.Cloud
) -> None:
    seen = [hours(control_node.wait_for(lambda scrape: hours(scrape) > 19, 'the first hours'))]
    nova.servers[0].vcpus = 1
    seen.append(hours(control_node.next_scrape(3)))
    nova.servers = []
    seen.append(hours(control_node.next_scrape(3)))
    control_node.kill()
    control_node.start()
    seen.append(hours(control_node.wait_for(lambda scrape: hours(scrape) > 0, 'a restart')))
    assert seen == pytest.approx([20.0] * 4, abs=1e-2)
    assert seen == sorted(seen)


def test_failures_of_the_cloud_keep_the_totals_and_are_counted(
    control_node: exporters.Exporter, nova: nova_cloud.Cloud
) -> None:
    before = hours(control_node.wait_for(lambda scrape: hours(scrape) > 0, 'usage'))
    for fault, reason in (
        ((503, {}), 'http'),
        ((200, {'tenant_usages': 'none'}), 'malformed'),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"tenant', 'truncated'),
        (b'', 'connect'),
    ):
        nova.faults = [lambda request, fault=fault: fault if 'usage' in request.path else None]
        scrape = control_node.wait_for(
            lambda scrape, reason=reason: (scrape.value(ERRORS, reason=reason) or 0) > 0, reason
        )
        assert hours(scrape) == before
        assert scrape.value('oie_collector_success', group='projects') == 0
        assert control_node.get('/readyz')[0] == 200
    nova.faults = []
    advance(nova, 0.0)
    control_node.wait_for(
        lambda scrape: scrape.value('oie_collector_success', group='projects') == 1, 'an end'
    )


def test_a_cloud_that_hangs_delays_no_cycle(
    control_node: exporters.Exporter, nova: nova_cloud.Cloud
) -> None:
    control_node.wait_for(lambda scrape: hours(scrape) > 0, 'usage')
    nova.delay = 4.0
    first = control_node.next_scrape(1)
    later = control_node.next_scrape(3)
    assert 2.5 < later.taken - first.taken < 4.5
    assert control_node.stop() < 5.0


def test_the_ledger_says_what_the_series_say(
    control_node: exporters.Exporter, nova: nova_cloud.Cloud, tmp_path: pathlib.Path
) -> None:
    control_node.wait_for(lambda scrape: hours(scrape) > 0, 'usage')
    control_node.stop()
    connection = sqlite3.connect(tmp_path / 'projects.sqlite')
    [(total,)] = connection.execute('SELECT vcpus FROM project')
    [(since, until, vcpus)] = connection.execute(
        'SELECT since_us, counted_us, vcpus FROM instance'
    )
    connection.close()
    assert int(total) == (until - since) * vcpus


# --- the older exporter -----------------------------------------------------


def test_a_file_for_trials_and_the_variables_of_the_older_exporter(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dummy = tmp_path / 'dummy.toml'
    dummy.write_text(TOML)
    monkeypatch.setenv('USAGE_EXPORTER_DUMMY_FILE', str(dummy))
    monkeypatch.setenv('USAGE_EXPORTER_VCPU_WEIGHTS', "{'2': 1, '4': 1.5}")
    monkeypatch.setenv('USAGE_EXPORTER_UPDATE_INTERVAL', '1')
    with exporters.Exporter(NOWHERE, settings(tmp_path)) as running:
        scrape = running.wait_for(lambda scrape: bool(scrape.of(HOURS)), 'usage')
        # 24 h x 4 vCPUs, x 1.5; 24 h x 8 GiB
        assert scrape.value(HOURS, project_name='Cell') == 96
        assert scrape.value('project_vcpu_usage', project_name='Cell') == 144
        assert scrape.value('project_mb_usage', project_name='Cell') == 192
        dummy.write_text('[broken')
        scrape = running.wait_for(
            lambda scrape: (scrape.value(ERRORS, reason='malformed') or 0) > 0, 'a broken file'
        )
        assert scrape.value(HOURS, project_name='Cell') == 96


# --- the real Keystone ------------------------------------------------------


@pytest.fixture(scope='module')
def real_keystone() -> Iterator[keystone.Keystone]:
    try:
        made = keystone.Keystone()
    except processes.LabError as exc:
        machine.give_up(f'no environment with Keystone: {exc}')
    with made as running:
        yield running


@pytest.fixture
def site(
    real_keystone: keystone.Keystone, monkeypatch: pytest.MonkeyPatch
) -> Iterator[nova_cloud.Cloud]:
    """Nova of ours behind the real Keystone, which knows it and its tokens."""
    with nova_cloud.running(time.time()) as made:
        made.validates = real_keystone.knows
        service = real_keystone.make('service', type='compute', name='nova')
        real_keystone.make(
            'endpoint',
            service_id=service,
            interface='public',
            region_id='RegionOne',
            url=f'{made.url}/compute/v2.1',
        )
        for name, value in real_keystone.variables().items():
            monkeypatch.setenv(name, value)
        yield made
        # With it goes the endpoint, which the next test would be led to.
        real_keystone.delete('service', service)


def test_projects_of_the_real_keystone_and_its_outage(
    real_keystone: keystone.Keystone, site: nova_cloud.Cloud, tmp_path: pathlib.Path
) -> None:
    lab = real_keystone.make('domain', name='lab')
    project = real_keystone.make('project', name='web', domain_id=lab)
    real_keystone.make('project', name='other', domain_id='default')
    site.servers = [nova_cloud.Server('a', project, site.now - 10 * HOUR)]
    with exporters.Exporter(NOWHERE, settings(tmp_path, domains='lab')) as running:
        scrape = running.wait_for(lambda scrape: hours(scrape) > 0, 'usage', 30)
        [one] = scrape.of(HOURS)
        assert one.labels == {
            'project_id': project,
            'project_name': 'web',
            'domain_name': 'lab',
            'domain_id': lab,
        }
        assert one.value == pytest.approx(20, abs=1e-2)
        real_keystone.stop()
        scrape = running.wait_for(
            lambda scrape: scrape.value('oie_collector_success', group='projects') == 0,
            'a failure',
            60,
        )
        assert hours(scrape) >= one.value
        real_keystone.start()
        running.wait_for(
            lambda scrape: scrape.value('oie_collector_success', group='projects') == 1,
            'the end of it',
            60,
        )
        real_keystone.change('project', project, name='www')
        running.wait_for(lambda scrape: hours(scrape, project_name='www') > 0, 'a new name', 60)


def test_a_token_that_the_real_keystone_revokes_is_replaced_and_no_update_fails(
    real_keystone: keystone.Keystone, site: nova_cloud.Cloud, tmp_path: pathlib.Path
) -> None:
    # keystoneauth renews a token before its end by itself; of one that is revoked it learns by
    # a 401: between two updates from Keystone, in the middle of one from Nova.
    project = real_keystone.make('project', name='revoked', domain_id='default')
    site.servers = [nova_cloud.Server('a', project, site.now - 10 * HOUR)]
    asked: list[str] = []
    revoked: list[str] = []
    is_armed = threading.Event()

    def note(request: nova_cloud.Request) -> None:
        asked.append(request.headers.get('X-Auth-Token', ''))
        if is_armed.is_set() and 'tenant-usage' in request.path:
            is_armed.clear()
            real_keystone.revoke(asked[-1])
            revoked.append(asked[-1])

    site.faults = [note]
    with exporters.Exporter(NOWHERE, settings(tmp_path)) as running:
        running.wait_for(lambda found: hours(found, project_name='revoked') > 0, 'usage', 30)
        revoked.append(asked[-1])
        real_keystone.revoke(revoked[0])
        processes.wait_for(lambda: asked[-1] not in ('', *revoked), 30, 'a token after the first')
        is_armed.set()
        processes.wait_for(lambda: len(revoked) == 2, 30, 'an update under way')
        processes.wait_for(lambda: asked[-1] not in ('', *revoked), 30, 'a token after the second')
        updates = running.next_scrape().value(UPDATES) or 0
        scrape = running.wait_for(
            lambda found: (found.value(UPDATES) or 0) > updates, 'another update', 30
        )
        assert sum(one.value for one in scrape.of(ERRORS)) == 0
        assert len(set(revoked)) == 2


def test_a_list_that_the_real_keystone_gives_in_pages_is_followed_to_the_last(
    real_keystone: keystone.Keystone, site: nova_cloud.Cloud, tmp_path: pathlib.Path
) -> None:
    # Those before it (unit tests have one) name no next page: then the update must fail.
    names = [f'paged-{number}' for number in range(3)]
    projects = [real_keystone.make('project', name=name, domain_id='default') for name in names]
    site.servers = [nova_cloud.Server(each, each, site.now - 10 * HOUR) for each in projects]
    real_keystone.limit_lists(1)
    try:
        with exporters.Exporter(NOWHERE, settings(tmp_path)) as running:
            scrape = running.wait_for(lambda found: bool(found.of(HOURS)), 'usage', 60)
            assert all(hours(scrape, project_name=name) > 19 for name in names)
            assert sum(one.value for one in scrape.of(ERRORS)) == 0
    finally:
        real_keystone.limit_lists(None)


def test_a_project_that_the_real_keystone_deletes_is_billed_while_its_instance_runs(
    real_keystone: keystone.Keystone, site: nova_cloud.Cloud, tmp_path: pathlib.Path
) -> None:
    project = real_keystone.make('project', name='deleted', domain_id='default')
    site.servers = [
        nova_cloud.Server('a', project, site.now - 10 * HOUR),
        nova_cloud.Server('b', 'p-never-was', site.now - 10 * HOUR),
    ]
    labels = {'project_name': 'deleted'}
    with exporters.Exporter(NOWHERE, settings(tmp_path)) as running:
        running.wait_for(lambda found: hours(found, **labels) > 0, 'usage', 30)
        real_keystone.delete('project', project)
        before = running.next_scrape(3)
        site.now = time.time()
        scrape = running.wait_for(
            lambda found: hours(found, **labels) > hours(before, **labels), 'more hours', 30
        )
        assert scrape.value(LEFT_OUT, reason='project') == 1
        assert 'p-never-was' in running.log
        assert scrape.value('oie_collector_success', group='projects') == 1
