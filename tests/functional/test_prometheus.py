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

"""A real Prometheus scrapes the exporter and computes with what it got."""

from collections.abc import Iterator
import concurrent.futures
import gzip
import http.client
import subprocess
import time

import pytest

from oie import plugins
from oie.config import core_options
from tests.functional import exporter as exporters
from tests.functional import guests as lab_guests
from tests.functional import lab
from tests.functional import processes
from tests.functional import servers

NAME = 'wéb "1"\n\\n 🦄'
# What promtool says of names that are the contract's: dashboards and alerts of sites use them.
COMPLAINTS = {
    'libvirt_nova_instance_vcpu_count non-histogram and non-summary metrics should not have '
    '"_count" suffix',
    'oie_disk_r_gbytes counter metrics should have "_total" suffix',
    'oie_disk_r_requests counter metrics should have "_total" suffix',
    'oie_disk_w_gbytes counter metrics should have "_total" suffix',
    'oie_disk_w_requests counter metrics should have "_total" suffix',
    'oie_host_conntrack_entries_total non-counter metrics should not have "_total" suffix',
    'oie_host_dynamic_cache_series_total non-counter metrics should not have "_total" suffix',
    'oie_net_rx_gbytes counter metrics should have "_total" suffix',
    'oie_net_tx_gbytes counter metrics should have "_total" suffix',
}
COLLECTORS = set(plugins.names('oie.collectors')) - {'exporter'}


@pytest.fixture(scope='module')
def guest(libvirtd: lab.Libvirtd) -> Iterator[lab_guests.Guest]:
    (new,) = libvirtd.start_guests(
        1, program='disk', port_model='rtl8139', display_name=NAME, metadata='2025.2', vcpus=2
    )
    new.send_frames(10)
    yield new
    libvirtd.remove([new])


@pytest.fixture(scope='module')
def exporter(libvirtd: lab.Libvirtd, guest: lab_guests.Guest) -> Iterator[exporters.Exporter]:
    """Return an exporter with every series that there is."""
    settings = {'collector': {'optional': ','.join(core_options.OPTIONAL)}}
    with exporters.Exporter(libvirtd.uri, settings) as running:
        yield running
        assert 'Traceback' not in running.log


@pytest.fixture(scope='module')
def prometheus(exporter: exporters.Exporter) -> Iterator[servers.Prometheus]:
    with servers.Prometheus(exporter.address) as running:
        running.wait_until_up()
        yield running


def test_target_is_up_and_every_series_arrives(
    prometheus: servers.Prometheus, exporter: exporters.Exporter
) -> None:
    (target,) = prometheus.targets()
    ours = exporter.next_scrape()
    expected = sum(map(len, ours.series.values()))

    processes.wait_for(
        lambda: _value(prometheus, 'scrape_samples_scraped') >= expected, what='a scrape'
    )

    assert (target['health'], target['lastError']) == ('up', '')
    assert _value(prometheus, 'scrape_samples_scraped') == pytest.approx(expected, abs=3)
    names = {row['metric']['__name__'] for row in prometheus.query('{job="oie"}')}
    assert ours.names() - names == set()


def test_rates_of_counters_are_computed(
    prometheus: servers.Prometheus, guest: lab_guests.Guest
) -> None:
    selector = f'{{instance_uuid="{guest.uuid}"}}[10s]'

    reads = _wait_for_value(prometheus, f'rate(oie_disk_r_requests{selector})')
    cpu = _wait_for_value(prometheus, f'rate(oie_instance_cpu_seconds_total{selector})')

    # Its program reads at each tick of the BIOS clock, 18.2 times a second.
    assert 2 < reads < 30
    assert 0 < cpu < 2
    assert _value(prometheus, 'rate(oie_instance_disk_read_bytes_total[10s])') > 2 * 4096


def test_names_join_with_values_and_stay_as_they_are(
    prometheus: servers.Prometheus, guest: lab_guests.Guest
) -> None:
    query = (
        'oie_instance_state_code * on (instance_uuid) group_left (name)'
        f' oie_instance_openstack_info{{instance_uuid="{guest.uuid}"}}'
    )

    (row,) = prometheus.query(query)

    assert row['metric']['name'] == NAME
    assert row['value'][1] == '1'


def test_promtool_complains_of_names_of_the_contract_only(exporter: exporters.Exporter) -> None:
    scrape = exporter.next_scrape()

    done = subprocess.run(
        ('promtool', 'check', 'metrics'),
        input=scrape.text,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout == ''
    expected = {line for line in COMPLAINTS if line.split()[0] in scrape.types}
    assert set(done.stderr.splitlines()) == expected


def test_scrape_never_mixes_two_cycles(
    exporter: exporters.Exporter, libvirtd: lab.Libvirtd
) -> None:
    bodies: dict[float, set[str]] = {}
    until = time.monotonic() + 3

    def scrape_on() -> list[exporters.Scrape]:
        found = []
        while time.monotonic() < until:
            found.append(exporter.scrape())
        return found

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        for future in [pool.submit(scrape_on) for _ in range(3)]:
            for scrape in future.result():
                bodies.setdefault(scrape.taken, set()).add(scrape.text)

    assert len(bodies) >= 3
    assert {len(texts) for texts in bodies.values()} == {1}
    for taken, (text,) in bodies.items():
        scrape = exporters.Scrape(text, 0)
        read = {s.value for s in scrape.of('oie_instance_last_success_timestamp_seconds')}
        made = {
            one.value
            for one in scrape.of('oie_collector_last_success_timestamp_seconds')
            # The other groups are the sources, and the collector that tells of the others.
            if one.labels['group'] in COLLECTORS
        }
        assert made == {taken}
        assert len(read) == 1
        assert 0 <= taken - read.pop() < 1


def test_compressed_answer_is_the_same(exporter: exporters.Exporter) -> None:
    plain, packed = exporter.scrape(), _scrape_compressed(exporter)
    while plain.taken != packed.taken:
        plain, packed = exporter.scrape(), _scrape_compressed(exporter)

    assert packed.text == plain.text


def test_landing_page_leads_to_the_metrics(exporter: exporters.Exporter) -> None:
    status, page = exporter.get('/')

    assert status == 200
    assert '<dt>Instances</dt><dd>1</dd>' in page
    assert '<a href="/metrics">' in page


def _scrape_compressed(exporter: exporters.Exporter) -> exporters.Scrape:
    connection = http.client.HTTPConnection('127.0.0.1', exporter.port, timeout=5)
    connection.request('GET', '/metrics', headers={'Accept-Encoding': 'gzip'})
    answer = connection.getresponse()
    assert answer.getheader('Content-Encoding') == 'gzip'
    assert answer.getheader('Content-Type', '').startswith('text/plain; version=0.0.4')
    body = gzip.decompress(answer.read()).decode()
    connection.close()
    return exporters.Scrape(body, 0)


def _value(prometheus: servers.Prometheus, query: str) -> float:
    """Return the only value of an instant query, -1 for none yet."""
    rows = prometheus.query(query)
    assert len(rows) < 2, rows
    return float(rows[0]['value'][1]) if rows else -1.0


def _wait_for_value(prometheus: servers.Prometheus, query: str) -> float:
    """Return the value once there are enough scrapes for it."""
    return processes.wait_for(lambda: max(0.0, _value(prometheus, query)), 15, query)
