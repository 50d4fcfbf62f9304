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

"""A site and a portal: real Prometheus on both ends, the real HAProxy as the gate between them.

Configurations are the shipped ones; what differs is where things are, and how often they ask.
"""

from collections.abc import Callable
from collections.abc import Mapping
import contextlib
import dataclasses
import http.client
import http.server
import os
import pathlib
import subprocess
import threading
from typing import Any

import trustme
import yaml

from oie.federation import attempts
from oie.federation import connections
from oie.federation import http2_client
from tests.functional import exporter as exporters
from tests.functional import processes
from tests.functional import servers

ROOT = pathlib.Path(__file__).parents[2]
FEDERATION = ROOT / 'etc/federation'
PROGRAM = exporters.BIN / 'oie-usage-gate'
PROJECTS = 10_000
METRICS = {
    'project_vcpu_usage': 'gauge',
    'project_mb_usage': 'gauge',
    'oie_project_vcpu_hours_total': 'counter',
    'oie_project_memory_mb_hours_total': 'counter',
}
# The two rules that were published for such a gate, which look at a part of each request.
PUBLISHED = """\
global
    log stdout format raw daemon info
defaults
    mode http
    timeout connect 5s
    timeout client 10s
    timeout server 10s
    timeout http-request 2s
frontend gate
    bind "${OIE_GATE_PLAIN}"
    http-request deny unless { req.hdr(Authorization) -m str "Bearer %(token)s" }
    http-request deny unless { urlp(match%%5B%%5D) -m str "%(selector)s" }
    default_backend site
backend site
    server prometheus "${OIE_GATE_PROMETHEUS}"
"""


def exposition(projects: int = PROJECTS, more: str = '') -> str:
    """Return what an exporter with so many projects shows; project N has used N hours.

    :param more: labels that the site adds to each series, with a comma before each
    """
    lines = []
    for name, kind in METRICS.items():
        lines.append(f'# TYPE {name} {kind}')
        lines += [
            f'{name}{{project_id="{number:032x}",project_name="project-{number}",'
            f'domain_id="default",domain_name="Default"{more}}} {number}.25'
            for number in range(projects)
        ]
    return '\n'.join((*lines, ''))


def invented(projects: int = PROJECTS) -> str:
    """Return what [usage] dummy_file says for so many projects, in the form of 2018.

    Project N has had a machine of 1 + N % 64 vCPUs for an hour.
    """
    return '\n'.join(
        f'["project-{number}"]\ndomain = "elixir"\n[["project-{number}".machines]]\n'
        f'cpus = {1 + number % 64}\nram = 2\n'
        'existence = [2026-01-01T00:00:00Z, 2026-01-01T01:00:00Z]\n'
        for number in range(projects)
    )


class Listener:
    """An HTTP server of one text that remembers what it was asked, as it was asked."""

    def __init__(self, text: str = '') -> None:
        self.text = text
        self.requests: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def handle_any(self) -> None:
                outer.requests.append((self.requestline, dict(self.headers)))
                body = outer.text.encode()
                self.send_response(200)
                self.send_header('Content-Type', 'text/plain; version=0.0.4')
                self.send_header('Content-Length', str(len(body)))
                self.end_headers()
                if self.command != 'HEAD':
                    self.wfile.write(body)

            def __getattr__(self, name: str) -> Callable[[], None]:
                # Any method is answered: only the gate shall refuse.
                if name.startswith('do_'):
                    return self.handle_any
                raise AttributeError(name)

            def log_message(self, format: str, *arguments: object) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.address = f'127.0.0.1:{self._server.server_port}'
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> 'Listener':
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Prometheus(servers.Prometheus):
    """A real Prometheus with a configuration of its own.

    :param config: what its file says
    """

    def __init__(self, config: Mapping[str, Any], *flags: str) -> None:
        super().__init__(target='')
        self._config = config
        self._flags = flags

    @property
    def address(self) -> str:
        return f'127.0.0.1:{self.port}'

    @property
    def log(self) -> str:
        assert self._program is not None
        return self._program.log.read_text(encoding='utf-8', errors='replace')

    def values(self, promql: str) -> list[float]:
        return [float(row['value'][1]) for row in self.query(promql)]

    def _arguments(self, directory: pathlib.Path) -> tuple[str, ...]:
        path = directory / 'prometheus.yml'
        path.write_text(yaml.safe_dump(dict(self._config)), encoding='utf-8')
        return (
            'prometheus',
            f'--config.file={path}',
            f'--storage.tsdb.path={directory / "data"}',
            f'--web.listen-address={self.address}',
            *self._flags,
        )


def site_config(target: str, interval: str, secrets: str = '') -> dict[str, Any]:
    """Return the shipped configuration of a site for a target.

    :param secrets: a target of another job that no portal may see
    """
    config: dict[str, Any] = yaml.safe_load((FEDERATION / 'prometheus-site.yml').read_text())
    config['global'] = {'scrape_interval': interval, 'scrape_timeout': interval}
    [job] = config['scrape_configs']
    del job['file_sd_configs']
    job['static_configs'] = [{'targets': [target]}]
    if secrets:
        config['scrape_configs'].append(
            {'job_name': 'secret', 'static_configs': [{'targets': [secrets]}]}
        )
    return config


def portal_config(
    address: str, token_file: pathlib.Path, interval: str, ca: pathlib.Path | None, **more: Any
) -> dict[str, Any]:
    """Return the shipped configuration of a portal for one site.

    :param ca: whom it trusts; None: no TLS
    :param more: what the job has in place of what is shipped
    """
    config: dict[str, Any] = yaml.safe_load((FEDERATION / 'prometheus-portal.yml').read_text())
    job = config['scrape_configs'][0]
    job['static_configs'][0]['targets'] = [address]
    job['authorization'] = {'credentials_file': str(token_file)}
    job['scheme'] = 'https' if ca else 'http'
    job['tls_config'] = {'ca_file': str(ca)} if ca else {}
    job.update(more)
    every = {'scrape_interval': interval, 'scrape_timeout': interval}
    return {'global': every, 'scrape_configs': [job]}


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What the gate shows, and whom its clients trust."""

    pem: pathlib.Path
    ca: pathlib.Path


def certificate(directory: pathlib.Path) -> Certificate:
    """Return files made for 127.0.0.1."""
    authority = trustme.CA(organization_name='oie')
    leaf = authority.issue_cert('127.0.0.1')
    made = Certificate(directory / 'gate.pem', directory / 'ca.pem')
    leaf.private_key_and_cert_chain_pem.write_to_path(str(made.pem))
    authority.cert_pem.write_to_path(str(made.ca))
    return made


class Gate:
    """A HAProxy with the shipped configuration, or with another one.

    :param directory: its own: the configuration of oie-usage-gate, list, map, socket, log
    :param backend: host:port behind it
    :param has_h2c: whether HTTP/2 is spoken without TLS, too
    :param config: what stands in place of the shipped configuration
    :param more: lines of [gate]
    """

    def __init__(
        self,
        directory: pathlib.Path,
        backend: str,
        *,
        shown: Certificate | None = None,
        has_h2c: bool = False,
        config: str = '',
        more: str = '',
    ) -> None:
        self.directory = directory
        self.shown = shown
        self.plain_port, self.tls_port = processes.free_port(), processes.free_port()
        text = config or (FEDERATION / 'haproxy.cfg').read_text(encoding='utf-8')
        if has_h2c:
            text = text.replace('    option disable-h2-upgrade\n', '')
        (directory / 'haproxy.cfg').write_text(text, encoding='utf-8')
        (directory / 'oie.conf').write_text(
            f'[gate]\ndirectory = {self.files}\nsocket_path = {directory}/admin.sock\n{more}\n'
        )
        self._backend = backend
        argv = ('haproxy', '-db', '-f', str(directory / 'haproxy.cfg'))
        self.program = processes.Program(argv, directory / 'log', self._environment())

    @property
    def files(self) -> pathlib.Path:
        return self.directory / 'gate'

    @property
    def plain_url(self) -> str:
        return f'http://127.0.0.1:{self.plain_port}'

    @property
    def tls_url(self) -> str:
        return f'https://127.0.0.1:{self.tls_port}'

    @property
    def lines(self) -> list[str]:
        return (self.files / 'allowed_uris.lst').read_text().splitlines()

    @property
    def line(self) -> str:
        return self.lines[0]

    @property
    def log(self) -> str:
        return self.program.log.read_text(encoding='utf-8', errors='replace')

    @contextlib.contextmanager
    def running(self) -> Any:
        """Have it run, with its list made."""
        if not self.files.exists():
            assert self.run('generate').returncode == 0
        self.start()
        try:
            yield self
        finally:
            self.program.stop()

    def start(self) -> None:
        self.program.start()
        processes.wait_for(self._is_open, 10, 'the gate')

    def run(self, *words: str) -> 'subprocess.CompletedProcess[str]':
        """Run oie-usage-gate with the configuration of this gate."""
        argv = (str(PROGRAM), '--config-file', str(self.directory / 'oie.conf'), *words)
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=110)

    def new_token(self, name: str = 'portal') -> str:
        done = self.run('token', 'new', name)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def write_token(self, token: str) -> pathlib.Path:
        """Return a file with the token that nobody else may read."""
        path = self.directory / f'token-{len(token)}-{hash(token)}'
        path.touch(mode=0o600)
        path.write_text(f'{token}\n')
        return path

    def status(self, token: str) -> int:
        """Return how the allowed request is answered, over a connection of its own."""
        return status(self.plain_port, self.line, token)

    def ask(self, target: str, token: str) -> int:
        """Return how a GET is answered: over HTTP/2 with TLS, else over HTTP/1.1."""
        if self.shown is None:
            return status(self.plain_port, target, token)
        gate = connections.gate_of(self.tls_url, str(self.shown.ca))
        fields = [(':method', 'GET'), (':scheme', 'https'), (':path', target)]
        fields.append((':authority', gate.authority))
        if token:
            fields.append(('authorization', f'Bearer {token}'))
        # Nothing is filled in: a token may have a "$" as little as a target.
        attempt = attempts.Attempt(name='a request', group='', fields=tuple(fields))
        [answer] = http2_client.exchange(
            gate, attempt, attempts.Filling(gate.scheme, gate.authority, target)
        )
        return answer.status

    def _is_open(self) -> bool:
        if not self.program.is_running:
            raise processes.LabError(f'haproxy ended: {self.program.last_words()}')
        with contextlib.suppress(OSError):
            status(self.plain_port, '/', '')
            return True
        return False

    def _environment(self) -> dict[str, str]:
        found = {
            **processes.environment(),
            'OIE_GATE_PLAIN': f'127.0.0.1:{self.plain_port}',
            'OIE_GATE_PROMETHEUS': self._backend,
            'OIE_GATE_DIRECTORY': str(self.files),
            'OIE_GATE_SOCKET': str(self.directory / 'admin.sock'),
        }
        if os.geteuid():
            found['OIE_GATE_UNCONFINED'] = '1'
        if self.shown is None:
            return {**found, 'OIE_GATE_NO_TLS': '1'}
        return {
            **found,
            'OIE_GATE_LISTEN': f'127.0.0.1:{self.tls_port}',
            'OIE_GATE_CERTIFICATE': str(self.shown.pem),
        }


def status(port: int, target: str, token: str) -> int:
    """Return the status of the answer to a GET without TLS."""
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=10)
    try:
        connection.putrequest('GET', target, skip_accept_encoding=True)
        if token:
            connection.putheader('Authorization', f'Bearer {token}')
        connection.endheaders()
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()
