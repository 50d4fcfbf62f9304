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

"""A portal fetches the usage of a site through the gate, and nothing else gets through it."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import urllib.parse

import pytest

from oie.config import gate_options
from oie.federation import attempts_http1
from oie.federation import attempts_http2
from oie.federation import request_lines
from oie.federation import tokens
from tests import machine
from tests.functional import exporter as exporters
from tests.functional import gates
from tests.functional import processes

PROGRAMS = ('haproxy', 'prometheus', 'promtool')
SITE, PORTAL = gates.site_config, gates.portal_config
ATTEMPTS = len(attempts_http1.attempts_of()) + len(attempts_http2.attempts_of())
Gates = Callable[..., gates.Gate]


@pytest.fixture(scope='module', autouse=True)
def programs() -> None:
    missing = [name for name in PROGRAMS if processes.find_program(name) is None]
    if missing:
        machine.give_up(f'missing: {", ".join(missing)}; see bindep.txt')


@contextlib.contextmanager
def _site(exporter: str, projects: int) -> Iterator[gates.Prometheus]:
    """Give a site with so many projects, and another job that is nobody's business."""
    secret = 'secret_usage{project_id="1"} 1\nproject_vcpu_usage{project_id="secret"} 1\n'
    flags = ('--web.enable-lifecycle', '--web.enable-admin-api')
    with (
        gates.Listener(secret) as other,
        gates.Prometheus(SITE(exporter, '5s', other.address), *flags) as prometheus,
    ):
        processes.wait_for(
            lambda: prometheus.values('count(project_vcpu_usage)') == [projects + 1.0],
            60,
            'the projects at the site',
        )
        yield prometheus


@pytest.fixture(scope='module')
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[gates.Prometheus]:
    """A site whose exporter has 10,000 invented projects."""
    invented = tmp_path_factory.mktemp('invented') / 'projects.toml'
    invented.write_text(gates.invented())
    settings: exporters.Settings = {
        'collector': {'enabled': 'project_usage,exporter'},
        'conntrack': {'enabled': 'false'},
        'usage': {
            'enabled': 'true',
            'start_date': '2026-01-01',
            'dummy_file': invented,
            'path': '',
        },
    }
    # Whoever asked libvirt would fail.
    with (
        exporters.Exporter('test:///nowhere/node.xml', settings) as exporter,
        _site(exporter.address, gates.PROJECTS) as prometheus,
    ):
        yield prometheus


@pytest.fixture(scope='module')
def small_site() -> Iterator[gates.Prometheus]:
    with gates.Listener(gates.exposition(10)) as exporter, _site(exporter.address, 10) as running:
        yield running


@pytest.fixture(scope='module')
def certificate(tmp_path_factory: pytest.TempPathFactory) -> gates.Certificate:
    return gates.certificate(tmp_path_factory.mktemp('certificate'))


@pytest.fixture
def new_gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gates]:
    """Return a function that starts gates; they end with the test."""
    with contextlib.ExitStack() as stack:

        def start(backend: str, **options: object) -> gates.Gate:
            made = gates.Gate(tmp_path_factory.mktemp('gate'), backend, **options)  # type: ignore[arg-type]
            # The user of HAProxy does not read them, but passes through to its socket.
            return stack.enter_context(made.running())

        yield start


# --- what passes ----------------------------------------------------------------


def test_portal_gets_every_project_over_tls_and_nothing_else(
    site: gates.Prometheus, new_gate: Gates, certificate: gates.Certificate
) -> None:
    gate = new_gate(site.address, shown=certificate)
    token_file = gate.write_token(gate.new_token('portal-1'))
    address = gate.tls_url.removeprefix('https://')

    with gates.Prometheus(PORTAL(address, token_file, '5s', certificate.ca)) as portal:
        # A scrape is up a moment before its samples are there to be asked for.
        processes.wait_for(lambda: portal.values('count(project_mb_usage)'), 60, 'projects')
        counts = {
            row['metric']['__name__']: float(row['value'][1])
            for row in portal.query('count by (__name__) ({location!=""})')
        }
        rows = portal.query('project_vcpu_usage{project_name="project-4711"}')
        credits = portal.values('sum(oie_project_vcpu_hours_total)')

    stored = {name: count for name, count in counts.items() if 'project_' in name}
    assert stored.keys() >= gates.METRICS.keys()
    assert stored == dict.fromkeys(stored, float(gates.PROJECTS))
    # 156 times 1 + ... + 64, and the first 16 once more.
    assert credits == [156 * 2080.0 + 136.0]
    # The others are of the scrape itself.
    assert {name for name in counts if name not in stored} <= {
        *('up', 'scrape_duration_seconds', 'scrape_samples_scraped', 'scrape_series_added'),
        'scrape_samples_post_metric_relabeling',
    }
    [row] = rows
    # 1 + 4711 % 64
    assert row['value'][1] == '40'
    assert row['metric'] == {
        '__name__': 'project_vcpu_usage',
        'job': 'site-a',
        'instance': address,
        'location': 'site-a',
        'location_id': '1',
        'project_id': row['metric']['project_id'],
        'project_name': 'project-4711',
        'domain_id': row['metric']['domain_id'],
        'domain_name': 'elixir',
    }
    # It spoke HTTP/2; nothing but the portal's name is told of the credential.
    assert re.search(r' HTTP/2\.0 200 \d+ \d+ portal="portal-1" refused=- ', gate.log)


@pytest.mark.parametrize(
    'selectors',
    [
        (gate_options.SELECTORS,),
        ('up{a="b c+d~e*f\'g"}', '{job=~"x|ÿ€",b!=`"`}', 'up'),
        ('{a="%2F&=;#?/\\\\"}', '{a="[]()!$,:@"}', '{a="[]()!$,:@"}'),
    ],
)
def test_generated_line_is_what_prometheus_asks_for(
    selectors: tuple[str, ...], tmp_path: pathlib.Path
) -> None:
    token_file = tmp_path / 'token'
    token_file.write_text('x')
    with gates.Listener('up 1\n') as listener:
        config = PORTAL(
            listener.address, token_file, '1s', None, params={'match[]': list(selectors)}
        )
        with gates.Prometheus(config) as portal:
            portal.wait_until_up()

    asked = {request for request, _ in listener.requests}
    assert asked == {f'GET {request_lines.request_line(selectors)} HTTP/1.1'}


@pytest.mark.parametrize('way', ['plain', 'tls'])
def test_longest_line_that_is_listed_passes_with_a_long_token(
    new_gate: Gates, certificate: gates.Certificate, way: str, tmp_path: pathlib.Path
) -> None:
    most = gate_options.MOST_LINE_BYTES
    selector = '{__name__=~"%s"}' % ('x' * most)
    selector = selector.replace('x' * (len(request_lines.request_line((selector,))) - most), '', 1)
    token = 'long' * 300
    with gates.Listener('project_vcpu_usage{project_id="1"} 1\n') as behind:
        gate = new_gate(
            behind.address,
            shown=certificate if way == 'tls' else None,
            more=f'selectors = {selector}',
        )
        assert [len(line) for line in gate.lines] == [most]
        token_file = gate.write_token(token)
        assert gate.run('token', 'new', 'portal', '--token-file', str(token_file)).returncode == 0
        address = (gate.tls_url if way == 'tls' else gate.plain_url).partition('//')[2]
        ca = certificate.ca if way == 'tls' else None
        params = {'match[]': [selector]}
        with gates.Prometheus(PORTAL(address, token_file, '1s', ca, params=params)) as portal:
            processes.wait_for(lambda: portal.query('project_vcpu_usage'), 20, 'usage')


# --- what does not --------------------------------------------------------------


@pytest.mark.parametrize('way', ['plain', 'h2c', 'tls'])
def test_whole_list_of_attempts_is_refused(
    small_site: gates.Prometheus, new_gate: Gates, certificate: gates.Certificate, way: str
) -> None:
    site = small_site
    gate = new_gate(
        site.address, shown=certificate if way == 'tls' else None, has_h2c=way == 'h2c'
    )
    token = gate.new_token()
    words = (gate.tls_url, '--ca', str(certificate.ca)) if way == 'tls' else (gate.plain_url,)
    config = site.get('/api/v1/status/config')

    done = gate.run('check', *words, '--token-file', str(gate.write_token(token)))

    assert (done.returncode, done.stderr) == (0, '')
    *outcomes, summary = done.stdout.splitlines()
    # The allowed request first, over HTTP/2, and last.
    assert len(outcomes) == ATTEMPTS + 3 >= 85
    assert summary.startswith(f'{ATTEMPTS + 3} attempts: ')
    assert summary.endswith(' 0 BYPASS, 0 NOT ALLOWED')
    allowed = {
        re.split(r'  +', line, maxsplit=3)[-1] for line in outcomes if line[:7] == 'allowed'
    }
    assert 'the allowed request: 200 from behind the gate' in allowed
    over_http2 = [line for line in outcomes if line.startswith('allowed       HTTP/2')]
    assert bool(over_http2) is (way != 'plain')
    # Prometheus lives, and what it was told to do is what it was.
    assert site.get('/api/v1/status/config') == config
    for text in (done.stdout, gate.log, site.log):
        assert token not in text


@pytest.mark.parametrize('way', ['plain', 'h2c', 'tls'])
def test_only_the_allowed_request_arrives_behind_the_gate(
    new_gate: Gates, certificate: gates.Certificate, way: str
) -> None:
    with gates.Listener('up 1\n') as behind:
        gate = new_gate(
            behind.address, shown=certificate if way == 'tls' else None, has_h2c=way == 'h2c'
        )
        token_file = str(gate.write_token(gate.new_token()))
        words = (gate.tls_url, '--ca', str(certificate.ca)) if way == 'tls' else (gate.plain_url,)

        done = gate.run('check', *words, '--token-file', token_file)

        allowed = [line for line in done.stdout.splitlines() if line.startswith('allowed')]
        assert len(behind.requests) == len(allowed) >= 5
        assert {request for request, _ in behind.requests} == {f'GET {gate.line} HTTP/1.1'}
        names = {name.lower() for _, headers in behind.requests for name in headers}
        # HAProxy speaks of its connection, and passes an empty body on as one.
        assert names <= {'host', 'connection', 'transfer-encoding'}
        assert {headers['host'] for _, headers in behind.requests} == {'prometheus'}


def test_published_gate_is_found_to_let_others_through(
    small_site: gates.Prometheus, new_gate: Gates
) -> None:
    token = 'published-token-of-forty-three-characters-0'
    selector = urllib.parse.quote(gate_options.SELECTORS, safe='')
    config = gates.PUBLISHED % {'token': token, 'selector': selector}
    gate = new_gate(small_site.address, config=config)

    done = gate.run('check', gate.plain_url, '--token-file', str(gate.write_token(token)))

    assert done.returncode == 1
    bypasses = [line for line in done.stdout.splitlines() if line.startswith('BYPASS')]
    assert len(bypasses) >= 16
    for name in (
        *('method POST:', 'everything besides:', 'the line twice:', 'encoded first letter:'),
        *('one parameter more:', 'body:', 'segment and back:'),
    ):
        assert any(f'  {name}' in line for line in bypasses), name
    assert token not in done.stdout


def test_gate_that_refuses_what_is_allowed_is_found(new_gate: Gates) -> None:
    with gates.Listener('up 1\n') as behind:
        gate = new_gate(behind.address)
        token_file = str(gate.write_token(gate.new_token()))
        config = gate.directory / 'oie.conf'
        config.write_text(config.read_text() + 'selectors = other\n')

        done = gate.run('check', gate.plain_url, '--token-file', token_file, '--quiet')

    assert done.returncode == 1
    assert '2 NOT ALLOWED' in done.stdout


def test_check_without_a_token_tries_what_strangers_can(new_gate: Gates) -> None:
    with gates.Listener('up 1\n') as behind:
        gate = new_gate(behind.address)

        done = gate.run('check', gate.plain_url)

        assert (done.returncode, behind.requests) == (0, [])
    assert re.search(r'[1-9]\d* refused, 0 BYPASS, .* [1-9]\d* not tried', done.stdout)


def test_check_of_nobody_says_so(new_gate: Gates) -> None:
    with gates.Listener('up 1\n') as behind:
        gate = new_gate(behind.address)

    done = gate.run('check', f'http://127.0.0.1:{processes.free_port()}')

    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert 'see that the gate runs' in done.stderr


# --- tokens ---------------------------------------------------------------------


def test_tokens_rotate_without_a_reload(new_gate: Gates) -> None:
    with gates.Listener('up 1\n') as behind:
        gate = new_gate(behind.address)
        first, other = gate.new_token('portal-1'), gate.new_token('portal-2')
        pid = gate.program.pid
        assert (gate.status(first), gate.status(other)) == (200, 200)

        second = gate.new_token('portal-1')
        assert [gate.status(each) for each in (first, second, other)] == [200, 200, 200]

        assert gate.run('token', 'remove', 'portal-1', '--older').returncode == 0
        assert [gate.status(each) for each in (first, second, other)] == [401, 200, 200]
        listed = gate.run('token', 'list').stdout.split()
        assert listed[1::2] == ['portal-2', 'portal-1']

        assert gate.run('token', 'remove', 'portal-2').returncode == 0
        assert [gate.status(each) for each in (first, second, other)] == [401, 200, 401]
        assert gate.program.pid == pid
        # The file says the same to a gate that starts anew.
        gate.program.stop()
        gate.start()
        assert [gate.status(each) for each in (first, second, other)] == [401, 200, 401]


def test_files_hold_no_token_and_are_closed(new_gate: Gates) -> None:
    with gates.Listener('up 1\n') as behind:
        gate = new_gate(behind.address)
        token = gate.new_token()

    map_file = gate.files / 'tokens.map'
    assert token not in map_file.read_text()
    assert map_file.stat().st_mode & 0o777 == 0o600
    assert (gate.files / 'allowed_uris.lst').stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in gate.files.iterdir()) == ['allowed_uris.lst', 'tokens.map']


# As "token new --token-file" takes them: 24 random bytes in base64, and what is longer.
@pytest.mark.parametrize(
    'token',
    ['I6qhox9HOmpHE0oYwJc74dXc6gFLACVg', 'q+8/Zt0a+/pKcXvB2m5sN7e+R/4dQw9h', 'x.~+/-' * 9 + '=='],
)
@pytest.mark.parametrize('way', ['plain', 'tls'])
def test_token_in_a_wrong_place_is_not_logged(
    new_gate: Gates, certificate: gates.Certificate, token: str, way: str
) -> None:
    with gates.Listener('up 1\n') as behind:
        gate = new_gate(behind.address, shown=certificate if way == 'tls' else None)
        done = gate.run('token', 'new', 'portal', '--token-file', str(gate.write_token(token)))
        assert done.returncode == 0, done.stderr
        quoted = urllib.parse.quote(token, safe='')
        for place in (token, quoted):
            targets = [f'/{place}', f'/federate/{place}', f'/federate?access_token={place}']
            targets += [f'{gate.line}&token={place}', f'/{place}?x=1', f'/x?{place}']
            assert [gate.ask(target, token) for target in targets] == [403] * len(targets)
            assert [gate.ask(target, '') for target in targets] == [401] * len(targets)
        assert gate.ask(gate.line, token) == 200
        # A request is logged a moment after its answer.
        last = f'refused=- asked="{gate.line}"'
        processes.wait_for(lambda: last in gate.log, 10, 'the line of the last request')

    assert 'refused=target asked="/federate"' in gate.log
    assert 'refused=target asked="/x"' in gate.log
    # No part of it either: what is long enough for one is not told at all.
    for text in (token, quoted):
        assert text[:16] not in gate.log
        assert text[-16:] not in gate.log


# --- fails closed ---------------------------------------------------------------


def test_empty_map_refuses_everybody(new_gate: Gates) -> None:
    with gates.Listener('up 1\n') as behind:
        gate = new_gate(behind.address)

        assert (gate.files / 'tokens.map').read_text() == ''
        assert [gate.status(token) for token in ('', 'x', '0' * 43)] == [401, 401, 401]
    assert behind.requests == []


def test_empty_list_refuses_everything(new_gate: Gates) -> None:
    with gates.Listener('up 1\n') as behind:
        gate = new_gate(behind.address)
        token, line = gate.new_token(), gate.line
        gate.program.stop()
        (gate.files / 'allowed_uris.lst').write_text('')
        gate.start()

        found = [gates.status(gate.plain_port, target, token) for target in (line, '/', '/x?')]
    assert (found, behind.requests) == ([403, 403, 403], [])


@pytest.mark.parametrize('name', ['tokens.map', 'allowed_uris.lst'])
def test_gate_without_one_of_its_files_does_not_start(new_gate: Gates, name: str) -> None:
    gate = new_gate('127.0.0.1:1')
    gate.program.stop()
    (gate.files / name).unlink()

    with pytest.raises(processes.LabError, match=r'haproxy ended(.|\n)*' + re.escape(name)):
        gate.start()


# --- what a portal stores -------------------------------------------------------


CLAIM = ',location="site-b",location_id="2",job="x",instance="y",exported_location="site-b"'


@pytest.mark.parametrize(('honors', 'expected'), [(False, {'site-a'}), (True, {'site-b'})])
def test_site_cannot_book_its_usage_on_another(
    new_gate: Gates, tmp_path: pathlib.Path, honors: bool, expected: set[str]
) -> None:
    text = gates.exposition(3, CLAIM)
    with gates.Listener(text) as behind:
        gate = new_gate(behind.address)
        token_file = gate.write_token(gate.new_token())
        address = gate.plain_url.removeprefix('http://')
        # With "true", which nobody ships, it could: so the test tells the two apart.
        more = {} if not honors else {'honor_labels': True}
        with gates.Prometheus(PORTAL(address, token_file, '1s', None, **more)) as portal:
            rows = processes.wait_for(lambda: portal.query('project_vcpu_usage'), 20, 'usage')

    assert len(rows) == 3
    assert {row['metric']['location'] for row in rows} == expected
    assert {
        name for row in rows for name in row['metric'] if name.startswith('exported_')
    } == set()


def _labels(count: int) -> str:
    return ''.join(f',label_{number}="x"' for number in range(count))


@pytest.mark.parametrize(
    ('text', 'more', 'error'),
    [
        (gates.exposition(30), {'sample_limit': 119}, 'sample limit exceeded'),
        (gates.exposition(3, _labels(4)), {}, 'label_limit exceeded'),
        (gates.exposition(3, f',x="{"y" * 513}"'), {}, 'label_value_length_limit exceeded'),
        (gates.exposition(3, f',{"x" * 65}="y"'), {}, 'label_name_length_limit exceeded'),
        (gates.exposition(300), {'body_size_limit': '64KB'}, 'body size limit exceeded'),
    ],
    ids=('samples', 'labels', 'values', 'names', 'bytes'),
)
def test_scrape_beyond_a_limit_is_not_stored(
    new_gate: Gates, text: str, more: dict[str, object], error: str
) -> None:
    with gates.Listener(text) as behind:
        gate = new_gate(behind.address)
        token_file = gate.write_token(gate.new_token())
        address = gate.plain_url.removeprefix('http://')
        with gates.Prometheus(PORTAL(address, token_file, '1s', None, **more)) as portal:
            failed = processes.wait_for(
                lambda: [each for each in portal.targets() if each['lastError']], 20, 'a failure'
            )
            rows = portal.query('{project_id!=""}')

    assert (failed[0]['health'], rows) == ('down', [])
    assert error in failed[0]['lastError']


def test_exactly_as_much_as_the_limits_allow_is_stored(new_gate: Gates) -> None:
    # The name, four labels of a project, four of ours, and three more.
    with gates.Listener(gates.exposition(30, _labels(3))) as behind:
        gate = new_gate(behind.address)
        token_file = gate.write_token(gate.new_token())
        address = gate.plain_url.removeprefix('http://')
        config = PORTAL(address, token_file, '1s', None, sample_limit=120)
        with gates.Prometheus(config) as portal:
            found = processes.wait_for(
                lambda: portal.values('count({project_id!=""})'), 20, 'usage'
            )
    assert found == [120.0]


def test_names_that_are_as_long_as_names_can_be_are_stored(new_gate: Gates) -> None:
    # A character of four bytes, as often as Keystone lets it stand in a name. A limit of
    # Prometheus counts bytes: one name beyond it would keep all projects of the site away.
    longest = '\U0001f600' * 64
    text = gates.exposition(3, f',domain="{longest}"').replace('project-1', longest)
    with gates.Listener(text) as behind:
        gate = new_gate(behind.address)
        token_file = gate.write_token(gate.new_token())
        address = gate.plain_url.removeprefix('http://')
        with gates.Prometheus(PORTAL(address, token_file, '1s', None)) as portal:
            rows = processes.wait_for(lambda: portal.query('project_vcpu_usage'), 20, 'usage')

    assert {row['metric']['domain'] for row in rows} == {longest}
    assert {row['metric']['project_name'] for row in rows} == {'project-0', longest, 'project-2'}


# --- what is shipped ------------------------------------------------------------


def test_rules_count_as_they_promise() -> None:
    tests = sorted((gates.FEDERATION / 'tests').glob('*.yml'))
    assert tests

    processes.run('promtool', 'test', 'rules', *map(str, tests))


@pytest.mark.parametrize('name', ['site', 'portal', 'dev'])
def test_compose_files_are_taken_by_compose(tmp_path: pathlib.Path, name: str) -> None:
    compose = next(
        (
            words
            for words in (('docker', 'compose'), ('docker-compose',))
            if processes.find_program(words[0])
            and subprocess.run((*words, 'version'), capture_output=True, check=False).returncode
            == 0
        ),
        None,
    )
    if compose is None:
        pytest.skip('neither docker compose nor docker-compose is installed')
    copy = tmp_path / 'federation'
    shutil.copytree(gates.FEDERATION, copy)
    for sample in copy.glob('*.env.sample'):
        sample.rename(sample.with_suffix(''))
    known = ('--env-file', str(copy / f'{name}.env')) if name != 'dev' else ()

    processes.run(*compose, *known, '-f', str(copy / f'compose.{name}.yml'), 'config', '--quiet')


def test_trial_is_prepared(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, certificate: gates.Certificate
) -> None:
    copy = tmp_path / 'federation'
    shutil.copytree(gates.FEDERATION, copy)
    monkeypatch.setenv('PATH', f'{gates.PROGRAM.parent}:{os.environ["PATH"]}')

    processes.run(str(copy / 'dev/prepare.sh'))

    made = copy / 'dev/made'
    for site in ('a', 'b'):
        [line] = (made / f'gate-{site}/tokens.map').read_text().splitlines()
        token = (made / f'tokens/site-{site}').read_text().strip()
        assert line == f'{tokens.hash_of(token)} portal'
    processes.run('promtool', 'check', 'config', str(made / 'prometheus.yml'))


def test_configurations_are_taken_by_promtool(
    tmp_path: pathlib.Path, certificate: gates.Certificate
) -> None:
    # A portal has these files; nobody ships them.
    copy = tmp_path / 'federation'
    shutil.copytree(gates.FEDERATION, copy)
    for name in ('site-a', 'site-b'):
        for path in (copy / 'tokens' / name, copy / 'ca' / f'{name}.pem'):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(certificate.ca.read_bytes())

    for path in sorted(copy.rglob('prometheus*.yml')):
        done = subprocess.run(
            ('promtool', 'check', 'config', str(path)), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
