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

"""The endpoint of the real exporter: one file with Prometheus, every path, every address."""

from collections.abc import Iterator
import contextlib
import gzip
import http.client
import pathlib
import ssl
import subprocess

import pytest

from tests.functional import exporter as exporters
from tests.functional import processes
from tests.functional import servers
from tests.functional import web_site

ROOT = pathlib.Path(__file__).parents[2]
# The test driver of libvirt: no daemon, no guests that could end.
URI = f'test://{ROOT}/etc/oie/demo/node.xml'
QUIET = {'conntrack': {'enabled': 'false'}, 'ledger': {'enabled': 'false'}}
LEVEL = '/debug/log-level'
CONFIG_OK = 'oie_exporter_web_config_ok'


@pytest.fixture
def site(tmp_path: pathlib.Path) -> web_site.Site:
    return web_site.Site(tmp_path)


@pytest.fixture
def exporter(site: web_site.Site) -> Iterator[exporters.Exporter]:
    with exporters.Exporter(URI, QUIET, site=site) as running:
        yield running
        assert 'Traceback' not in running.log


# --- one file for both ------------------------------------------------------


def _promtool_says(path: pathlib.Path) -> tuple[int, str]:
    """Return the status and the text of the toolkit's own check."""
    done = subprocess.run(
        ('promtool', 'check', 'web-config', str(path)),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_one_file_serves_prometheus_and_us(
    site: web_site.Site, exporter: exporters.Exporter
) -> None:
    assert _promtool_says(site.config) == (0, f'{site.config} SUCCESS\n')

    with servers.Prometheus(exporter.address, site=site) as prometheus:
        target = prometheus.wait_until_up()
        (version,) = processes.wait_for(
            lambda: prometheus.query('oie_build_info'), 10, 'the version in Prometheus'
        )
        ports = {'Prometheus': prometheus.port, 'oie-exporter': exporter.port}
        answers = {name: _welcome(site, port) for name, port in ports.items()}

    assert target['scrapeUrl'] == f'https://{exporter.address}/metrics'
    assert version['value'][1] == '1'
    expected = {'right': 200, 'wrong': 401, 'none': 401, 'no certificate': 'refused'}
    assert answers == dict.fromkeys(ports, expected)


def _welcome(site: web_site.Site, port: int) -> dict[str, int | str]:
    """Return what clients with this and that to show for themselves are answered."""
    stranger = ssl.create_default_context(cafile=site.directory / 'ca.pem')
    wrong = web_site.authorization(web_site.USER, 'wrong')
    return {
        'right': _status(site.connection(port), site.headers),
        'wrong': _status(site.connection(port), wrong),
        'none': _status(site.connection(port), {}),
        'no certificate': _status(
            http.client.HTTPSConnection('127.0.0.1', port, timeout=5, context=stranger),
            site.headers,
        ),
    }


def _status(connection: http.client.HTTPConnection, headers: dict[str, str]) -> int | str:
    with contextlib.closing(connection):
        try:
            connection.request('GET', '/metrics', headers=headers)
            answer = connection.getresponse()
            assert answer.getheader('Strict-Transport-Security') == 'max-age=31536000'
            return answer.status
        except (ssl.SSLError, ConnectionError):
            return 'refused'


def test_file_that_turns_bad_changes_nothing_and_a_metric_says_so(
    site: web_site.Site, exporter: exporters.Exporter
) -> None:
    before = exporter.scrape()
    bad = site.text.replace('basic_auth_users', 'basic_auth_user')
    site.write('web.yml', bad.encode())
    refused = exporter.wait_for(lambda now: now.value(CONFIG_OK) == 0, 'the refusal')
    stranger, _ = exporter.ask('GET', '/metrics', {})
    promtool, _ = _promtool_says(site.config)
    site.write('web.yml', site.text.encode())
    mended = exporter.wait_for(lambda now: now.value(CONFIG_OK) == 1, 'the mended file')

    errors = 'oie_exporter_web_config_reload_errors_total'
    assert [scrape.value(errors) for scrape in (before, refused, mended)] == [0, 1, 1]
    assert (before.value(CONFIG_OK), stranger.status) == (1, 401)
    assert promtool != 0
    # At the level that is the default: somebody must act.
    (line,) = [
        line for line in exporter.log.splitlines() if "unknown key 'basic_auth_user'" in line
    ]
    assert ' ERROR ' in line


def test_renewed_certificate_is_shown_by_both_and_no_scrape_fails(
    site: web_site.Site, exporter: exporters.Exporter
) -> None:
    with servers.Prometheus(exporter.address, site=site) as prometheus:
        prometheus.wait_until_up()
        ports = (prometheus.port, exporter.port)
        before = {_serial(site, port) for port in ports}
        site.renew()
        processes.wait_for(
            lambda: before.isdisjoint(_serial(site, port) for port in ports), 10, 'the renewal'
        )
        since = prometheus.targets()[0]['lastScrape']
        target = processes.wait_for(
            lambda: next((t for t in prometheus.targets() if t['lastScrape'] > since), {}),
            10,
            'a scrape after it',
        )
        ups = prometheus.query('min_over_time(up[1m])')
    assert len(before) == 1
    assert (target['health'], target['lastError']) == ('up', '')
    assert [row['value'][1] for row in ups] == ['1']
    assert 'read anew' in exporter.log


def _serial(site: web_site.Site, port: int) -> str:
    """Return the serial number of the certificate that a server shows."""
    with contextlib.closing(site.connection(port)) as connection:
        connection.connect()
        return str(connection.sock.getpeercert()['serialNumber'])


@pytest.mark.parametrize('name', ['web.yml', 'server.key'])
def test_secrets_that_everybody_may_read_are_refused_in_one_line(
    name: str, site: web_site.Site
) -> None:
    (site.directory / name).chmod(0o644)
    described = exporters.Exporter(URI, QUIET, site=site)
    with contextlib.closing(described):
        done = subprocess.run(
            (exporters.BIN / 'oie-exporter', '--config-file', described.write_config()),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    path = site.directory / name
    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr == (
        f'oie-exporter: [exporter] web_config_file: {site.config}: {path} holds secrets and '
        f'everybody may read it: chmod o-r {path}\n'
    )


# --- every path, every address ----------------------------------------------


def test_every_path_and_method_has_its_answer(exporter: exporters.Exporter) -> None:
    def status(method: str, path: str) -> tuple[int, str | None]:
        answer, body = exporter.ask(method, path)
        assert bool(body) is (method != 'HEAD'), (method, path)
        return answer.status, answer.getheader('Allow')

    for path in ('/', '/metrics', '/healthz', '/readyz', LEVEL):
        allowed = 'GET, HEAD, POST' if path == LEVEL else 'GET, HEAD'
        for method in ('GET', 'HEAD'):
            assert status(method, path) == (200, None), (method, path)
        for method in ('PUT', 'DELETE', 'OPTIONS', 'TRACE', 'PATCH'):
            assert status(method, path) == (405, allowed), (method, path)
    assert status('POST', '/metrics') == (405, 'GET, HEAD')
    for path in ('/metrics/', '/metric', '/favicon.ico', '/debug', '/pollsters/instances', '//'):
        for method in ('GET', 'HEAD', 'POST'):
            assert status(method, path) == (404, None), (method, path)


def test_selections_come_by_get_and_head_plain_and_compressed(
    site: web_site.Site, exporter: exporters.Exporter
) -> None:
    packed = {**site.headers, 'Accept-Encoding': 'gzip'}
    for query in ('collect[]=host&collect%5B%5D=instance', 'exclude[]=exporter&exclude[]=host'):
        path = f'/metrics?{query}'
        (_, plain), (answer, small) = (
            exporter.ask('GET', path),
            exporter.ask('GET', path, packed),
        )
        head, nothing = exporter.ask('HEAD', path, packed)
        names = set(exporters.Scrape(plain.decode(), 0).series)
        assert 'oie_instance_info' in names
        assert ('oie_host_active_vms' in names) is query.startswith('collect')
        assert 'oie_build_info' not in names
        assert exporters.Scrape(gzip.decompress(small).decode(), 0).series.keys() == names
        assert answer.getheader('Content-Encoding') == 'gzip'
        assert (head.status, nothing) == (200, b'')
        assert int(head.getheader('Content-Length', '0')) == pytest.approx(len(small), rel=0.2)
    for wrong in ('collect[]=nope', 'collect[]=cpu&exclude[]=cpu'):
        assert exporter.ask('HEAD', f'/metrics?{wrong}')[0].status == 400


def test_all_addresses_serve_by_the_same_rules_and_the_socket_by_its_own(
    site: web_site.Site,
) -> None:
    ports = [processes.free_port(), processes.free_port()]
    addresses = (f'127.0.0.1:{ports[0]}', f'127.0.0.2:{ports[1]}')
    settings = {**QUIET, 'exporter': {'listen_address': addresses}}
    exporter = exporters.Exporter(URI, settings, site=site)
    exporter.port = ports[0]
    with exporter:
        context = ssl.create_default_context(cafile=site.directory / 'ca.pem')
        context.load_cert_chain(site.directory / 'client.pem', site.directory / 'client.key')
        context.check_hostname = False  # the certificate is for 127.0.0.1
        second = http.client.HTTPSConnection('127.0.0.2', ports[1], timeout=5, context=context)
        with contextlib.closing(second):
            for headers, status in ((site.headers, 200), ({}, 401)):
                second.request('GET', '/metrics', headers=headers)
                answer = second.getresponse()
                answer.read()
                assert answer.status == status
                assert exporter.ask('GET', '/metrics', headers)[0].status == status
        # The fourth is not Nova's.
        assert len(exporter.pollster('instances').entries) == 3


# --- the level of the log ---------------------------------------------------


def test_level_of_the_log_wants_the_password_also_of_this_host(
    site: web_site.Site, exporter: exporters.Exporter
) -> None:
    wanted = f'{LEVEL}?level=debug&ttl=1m'
    for headers in ({}, web_site.authorization(web_site.USER, 'wrong')):
        assert exporter.ask('POST', wanted, headers)[0].status == 401
        assert exporter.ask('GET', LEVEL, headers)[0].status == 401
    for name in ('Origin', 'Sec-Fetch-Site'):
        browser = {**site.headers, name: 'https://example.org'}
        assert exporter.ask('POST', wanted, browser)[0].status == 403
        assert exporter.ask('GET', LEVEL, browser)[0].status == 403
    assert exporter.get(LEVEL) == (200, 'info\n')

    answer, body = exporter.ask('POST', wanted)

    assert (answer.status, body) == (200, b'debug\n')
    assert 'the log level was set from info to debug for 60 s by 127.0.0.1' in exporter.log


def test_level_of_the_log_goes_back_by_itself(exporter: exporters.Exporter) -> None:
    assert exporter.ask('POST', f'{LEVEL}?level=debug&ttl=1s')[0].status == 200
    processes.wait_for(lambda: exporter.get(LEVEL) == (200, 'info\n'), 10, 'the level before')
    assert 'the log level goes back from debug to info' in exporter.log
