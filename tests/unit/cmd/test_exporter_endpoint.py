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

"""The daemon gives its TCP addresses, and these alone, what the web configuration file says."""

import base64
import contextlib
import http.client
import socket

import pytest
import trustme

from oie import exceptions
from oie.cmd import exporter
from oie.cmd import log_level

HASH = '$2b$04$WLflminy/iSXBEyBR1z6luucQ4jxjiO3HXHKcQRj0dr9bkstS67La'
USERS = f'basic_auth_users:\n  prometheus: {HASH}\n'
TLS = 'tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n'
RIGHT = {'Authorization': 'Basic ' + base64.b64encode(b'prometheus:right').decode()}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(directory, host='127.0.0.1', web_config=None, level='error'):
    """A daemon that listens and collects nothing, and its port."""
    port = free_port()
    lines = [f'[exporter]\nlisten_address = {host}:{port}\nsocket_path = {directory}/oie.sock']
    if web_config is not None:
        leaf = trustme.CA().issue_cert('127.0.0.1')
        leaf.private_key_pem.write_to_path(str(directory / 'server.key'))
        leaf.cert_chain_pems[0].write_to_path(str(directory / 'server.pem'))
        (directory / 'web.yml').write_text(web_config)
        for name in ('server.key', 'web.yml'):
            (directory / name).chmod(0o600)
        lines.append(f'web_config_file = {directory}/web.yml')
    lines.append('[conntrack]\nenabled = false\n[ledger]\npath =\n[libvirt]\nsuspects_path =')
    (directory / 'oie.conf').write_text('\n'.join(lines))
    conf = exporter.load(['--config-file', str(directory / 'oie.conf')])
    daemon = exporter.Daemon(conf, log_level.LogLevel(level))
    daemon._service.start = lambda: None
    daemon.start()
    try:
        yield daemon, port
    finally:
        daemon.stop()


def ask(port, method='GET', path='/metrics', headers=None):
    client = http.client.HTTPConnection('127.0.0.1', port, timeout=5)
    with contextlib.closing(client):
        client.request(method, path, headers=headers or {})
        return client.getresponse().status


@pytest.mark.parametrize(
    ('host', 'web_config', 'is_exposed'),
    [
        ('127.0.0.1', None, False),
        ('0.0.0.0', None, True),
        ('0.0.0.0', USERS, True),
        ('0.0.0.0', TLS, True),
        ('0.0.0.0', TLS + USERS, False),
    ],
)
def test_a_public_address_is_told_of_unless_it_has_tls_and_authentication(
    tmp_path, caplog, host, web_config, is_exposed
):
    with running(tmp_path, host, web_config) as (daemon, _):
        assert daemon._web_statistics().is_public_without_authentication is is_exposed
        told = [line for line in caplog.messages if 'other hosts can read' in line]
        assert len(told) == is_exposed


def test_every_path_asks_for_the_password(tmp_path):
    with running(tmp_path, web_config=USERS) as (_, port):
        for path in ('/', '/metrics', '/healthz', '/readyz', '/unknown', '/debug/log-level'):
            assert ask(port, path=path) == 401, path
        assert ask(port, headers=RIGHT) == 200
        assert ask(port, 'HEAD', headers=RIGHT) == 200


def test_the_socket_of_the_pollsters_asks_for_no_password(tmp_path):
    with running(tmp_path, web_config=TLS + USERS), socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(tmp_path / 'oie.sock'))
        peer.sendall(b'GET /pollsters/instances HTTP/1.1\r\nHost: x\r\n\r\n')
        assert peer.recv(4096).startswith(b'HTTP/1.1 503 ')  # nothing is collected yet


def test_a_wrong_file_is_a_wrong_option(tmp_path):
    with pytest.raises(exceptions.ConfigError, match=r'\[exporter\] web_config_file: .*web\.yml'):
        running(tmp_path, web_config='tls_server_confg: {}').__enter__()


def test_unknown_collectors_are_a_bad_request(tmp_path):
    with running(tmp_path) as (_, port):
        assert ask(port, path='/metrics?collect[]=exporter') == 200
        assert ask(port, path='/metrics?collect[]=nope') == 400
        assert ask(port, path='/metrics?collect[]=cpu&exclude[]=disk') == 400
