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

"""Who gets past a web configuration file, and what a file must not say."""

import base64
from collections.abc import Iterator
import contextlib
import functools
import http.client
import os
import pathlib
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time

import bcrypt
import pytest
import trustme

from oie import exceptions
from oie import web
from oie.web import authentication
from oie.web import protection
from oie.web import web_file

PASSWORD = 'correct horse'
# The least cost: the tests need it to be right, not slow.
HASH = '$2b$04$gV0Z76dxWTbmARes5uDnPO0201M0m0XwQ0D9lFlKr4nSfxhvCGvsW'
USERS = f'basic_auth_users:\n  prometheus: {HASH}\n'
TLS = 'tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n'
MUTUAL = f'{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n'
BIG = b'0123456789abcdef' * 512 * 1024
ROUTES: web.Routes = {
    '/hello': {'GET': web.Route(lambda request: web.Response(body=b'hello\n'))},
    '/big': {'GET': web.Route(lambda request: web.Response(body=BIG), is_slow=True)},
}
PATIENCE = 5.0


@functools.cache
def authority(name: str) -> trustme.CA:
    return trustme.CA(organization_name=name)


@functools.cache
def certificate(*names: str, of: str = 'ours') -> trustme.LeafCert:
    return authority(of).issue_cert(*names)


class Site:
    """A directory with a web configuration file and what it names, and a clock."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.now = 0.0
        self.renew(certificate('127.0.0.1'))
        authority('ours').cert_pem.write_to_path(str(directory / 'ca.pem'))

    def renew(self, leaf: trustme.LeafCert) -> None:
        self.write('server.key', leaf.private_key_pem.bytes())
        self.write('server.pem', b''.join(blob.bytes() for blob in leaf.cert_chain_pems))

    def write(self, name: str, content: bytes | str, mode: int = 0o600) -> str:
        """Replace a file as careful programs do."""
        path = self.directory / name
        new = path.with_suffix('.new')
        new.write_bytes(content.encode() if isinstance(content, str) else content)
        new.chmod(mode)
        os.replace(new, path)
        return str(path)

    def guard(self, text: str) -> protection.Guard:
        return protection.Guard(self.write('web.yml', text), clock=lambda: self.now)

    @contextlib.contextmanager
    def serving(self, text: str, limits: web.Limits | None = None) -> Iterator['Served']:
        guard = self.guard(text)
        server = web.Server([web.TcpListener('127.0.0.1', 0, ROUTES, guard=guard)], limits)
        server.start()
        try:
            yield Served(server, guard)
        finally:
            server.stop(PATIENCE)


class Served:
    """A running server and its good clients."""

    def __init__(self, server: web.Server, guard: protection.Guard) -> None:
        self.server, self.guard = server, guard
        self.address = web.parse_address(server.addresses[0])

    def https(
        self, leaf: trustme.LeafCert | None = None, **versions: ssl.TLSVersion
    ) -> http.client.HTTPSConnection:
        context = ssl.create_default_context()
        authority('ours').configure_trust(context)
        if leaf is not None:
            leaf.configure_cert(context)
        for name, version in versions.items():
            setattr(context, name, version)
        return http.client.HTTPSConnection(*self.address, timeout=PATIENCE, context=context)

    def http(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(*self.address, timeout=PATIENCE)

    def dropped(self) -> dict[str, int]:
        return {reason: n for reason, n in self.server.statistics().dropped.items() if n}


@pytest.fixture
def site(tmp_path: pathlib.Path) -> Site:
    return Site(tmp_path)


def ask(client: http.client.HTTPConnection, path: str = '/hello', **headers: str) -> int:
    """Return the status; the client stays connected."""
    client.request('GET', path, headers=headers)
    response = client.getresponse()
    response.read()
    return response.status


def as_user(user: str = 'prometheus', password: str = PASSWORD) -> str:
    return 'Basic ' + base64.b64encode(f'{user}:{password}'.encode()).decode()


def until(condition) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, 'waited in vain'
        time.sleep(0.002)


# --- what a file must not say -------------------------------------------------


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('tls_server_confg: {}', "unknown key 'tls_server_confg'"),
        ('tls_server_config:\n  cert_filse: x', "unknown key 'cert_filse'"),
        ('{', 'is not YAML'),
        ('- a', 'not a mapping'),
        ('rate_limit: 5', 'rate_limit is not a mapping'),
        ('rate_limit: {burst: 1}\nrate_limit: {burst: 2}', "'rate_limit' is there twice"),
        ('tls_server_config:\n  key_file: server.key', 'has no cert_file'),
        ('tls_server_config:\n  cert_file: server.pem', 'has no key_file'),
        ('tls_server_config:\n  cert_file: ""\n  key_file: ""', 'has no cert_file'),
        (TLS.replace('server.pem', 'gone.pem'), 'cannot read'),
        (TLS.replace('server.pem', 'web.yml'), 'OpenSSL says'),
        (TLS.replace('server.key', 'other.key'), 'KEY_VALUES_MISMATCH'),
        (f'{TLS}  cert: x', 'cert and cert_file are both given'),
        (f'{TLS}  client_ca_file: ca.pem', 'client_ca_file is of no use with client_auth_type No'),
        (f'{TLS}  client_allowed_sans: [a]', 'client_allowed_sans prove nothing'),
        (f'{TLS}  client_auth_type: RequireAnyClientCert', "'RequireAnyClientCert' is none of"),
        (f'{TLS}  min_version: TLS09', "min_version: 'TLS09' is none of TLS10, TLS11"),
        (f'{TLS}  min_version: TLS13\n  max_version: TLS12', 'is above max_version'),
        (f'{TLS}  cipher_suites: [RC4]', "cipher_suites: 'RC4' is none of"),
        (f'{TLS}  curve_preferences: [CurveP257]', "curve_preferences: 'CurveP257' is none of"),
        (f'{TLS}  prefer_server_cipher_suites: 7', 'neither true nor false'),
        ('http_server_config:\n  headers:\n    X-Powered-By: us', "unknown key 'X-Powered-By'"),
        ('http_server_config:\n  headers:\n    X-Frame-Options: foo', 'is none of deny'),
        ('http_server_config:\n  headers:\n    X-Content-Type-Options: sniff', 'none of nosniff'),
        (
            'http_server_config:\n  headers:\n    X-XSS-Protection: "1\\nX: 2"',
            'no header may have',
        ),
        ('basic_auth_users:\n  john: doe', "password of 'john' is not hashed by bcrypt"),
        (f'basic_auth_users:\n  john: {HASH.replace("$04$", "$15$")}', 'cost 15: use 4 to 14'),
        ('rate_limit: {interval: 1, burst: 1}', 'write a number and a unit'),
        ('rate_limit: {interval: 1s}', 'burst: 0 would refuse every request'),
        ('rate_limit: {interval: 1s, burst: -1}', "'-1' is not a number"),
    ],
)
def test_wrong_file_is_refused_in_one_line(site, text, reason):
    site.write('other.key', certificate('x', of='theirs').private_key_pem.bytes())
    with pytest.raises(exceptions.WebError) as raised:
        site.guard(text)
    message = str(raised.value)
    assert reason in message
    assert '\n' not in message


@pytest.mark.parametrize('name', ['web.yml', 'server.key'])
def test_secrets_that_everybody_may_read_are_refused(site, name):
    site.write('web.yml', TLS + USERS)
    (site.directory / name).chmod(0o644)
    with pytest.raises(exceptions.WebError, match=f'{name}: chmod o-r|{name} holds secrets'):
        web_file.Reader(str(site.directory / 'web.yml')).read()


def test_messages_show_no_password(site):
    with pytest.raises(exceptions.WebError) as raised:
        site.guard('basic_auth_users:\n  john: hunter2')
    assert 'hunter2' not in str(raised.value)


def test_a_pipe_in_the_place_of_the_file_does_not_hold_us(site):
    os.mkfifo(site.directory / 'web.yml')
    with pytest.raises(exceptions.WebError, match='not a plain file'):
        protection.Guard(str(site.directory / 'web.yml'))


@pytest.mark.parametrize('text', ['', '# nothing\n', 'basic_auth_users:\n', 'rate_limit: null'])
def test_an_empty_file_demands_nothing(site, text):
    with site.serving(text) as served:
        assert ask(served.http()) == 200
        assert not served.guard.is_complete


def test_everything_that_the_toolkit_has_is_read(site):
    path = site.write(
        'web.yml',
        f"""{MUTUAL}  client_allowed_sans: [a.example.org, 192.0.2.7]
  min_version: TLS12
  max_version: TLS12
  prefer_server_cipher_suites: no
  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]
  curve_preferences: [X25519, CurveP256, CurveP384, CurveP521]
http_server_config:
  http2: true
  headers:
    X-XSS-Protection: 1
    X-Frame-Options: deny
{USERS}rate_limit:
  interval: 1m0.5s
  burst: 20
""",
    )
    found = web_file.Reader(path).read()
    assert found.tls is not None
    assert found.tls.client_allowed_sans == ('a.example.org', '192.0.2.7')
    assert (found.tls.min_version, found.tls.max_version) == ('TLS12', 'TLS12')
    assert not found.tls.prefer_server_cipher_suites
    assert found.headers == (('X-XSS-Protection', '1'), ('X-Frame-Options', 'deny'))
    assert found.users == {'prometheus': HASH}
    assert found.rate_limit == web_file.RateLimit(60.5, 20)
    assert found.notes == ('http2 is not offered: clients use HTTP/1.1',)
    protection.Guard(path)


# --- TLS ----------------------------------------------------------------------


@pytest.mark.parametrize('version', [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_answers_come_over_tls_and_the_connection_is_kept(site, version):
    with site.serving(TLS) as served:
        client = served.https(maximum_version=version)
        assert ask(client) == 200
        connected = client.sock
        client.request('GET', '/big')
        assert client.getresponse().read() == BIG
        assert ask(client) == 200
        assert client.sock is connected
        assert served.dropped() == {}


def test_tls_inline_is_used_without_a_file(site):
    leaf = certificate('127.0.0.1')
    pems = {
        'cert': leaf.cert_chain_pems[0].bytes().decode(),
        'key': leaf.private_key_pem.bytes().decode(),
    }
    lines = ['tls_server_config:']
    for name, pem in pems.items():
        lines += [f'  {name}: |', *(f'    {line}' for line in pem.splitlines())]
    with site.serving('\n'.join(lines)) as served:
        assert ask(served.https()) == 200


def test_versions_below_the_minimum_are_refused(site):
    with site.serving(f'{TLS}  min_version: TLS13\n') as served:
        with pytest.raises(ssl.SSLError):
            ask(served.https(maximum_version=ssl.TLSVersion.TLSv1_2))
        until(lambda: served.dropped() == {'tls_failed': 1})


def test_only_the_cipher_suites_of_the_file_are_offered(site):
    suites = '  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]\n  max_version: TLS12\n'
    with site.serving(TLS + suites) as served:
        client = served.https()
        assert ask(client) == 200
        assert client.sock.cipher()[0] == 'ECDHE-ECDSA-AES256-GCM-SHA384'


def test_plain_http_to_a_tls_port_reads_why_it_fails(site):
    with site.serving(TLS) as served:
        client = served.http()
        assert ask(client) == 400


def test_pipelined_requests_and_a_farewell_get_all_answers(site):
    with site.serving(TLS) as served:
        client = served.https()
        client.connect()
        client.sock.sendall(b'GET /hello HTTP/1.1\r\nHost: x\r\n\r\n' * 3)
        received = b''
        while received.count(b'hello\n') < 3:
            received += client.sock.recv(65536)


@pytest.mark.parametrize(
    ('request_', 'status'),
    [
        (b'GET /hello HTTP/1.1\r\nHost: x\r\n\r\n', b'200'),
        (b'GET /hello HTTP/1.1\nHost: x\n\n', b'400'),
        (b'GET /hello HTTP/1.1\r\nHos', b''),
        (b'', b''),
    ],
)
def test_a_request_and_a_farewell_at_once_are_answered(site, caplog, request_, status):
    with site.serving(TLS) as served, socket.create_connection(served.address) as peer:
        peer.settimeout(PATIENCE)
        context = ssl.create_default_context()
        authority('ours').configure_trust(context)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing, server_hostname='127.0.0.1')
        with contextlib.suppress(ssl.SSLWantReadError):
            client.do_handshake()
        peer.sendall(outgoing.read())
        incoming.write(peer.recv(65536))
        client.do_handshake()
        client.write(request_)
        with contextlib.suppress(ssl.SSLWantReadError):
            client.unwrap()
        peer.sendall(outgoing.read())
        received = b''
        while data := peer.recv(65536):
            received += data
        until(lambda: sum(served.server.statistics().connections.values()) == 0)
        statuses = served.server.statistics().requests
        assert {key[1][:1].encode() for key in statuses} == ({status[:1]} if status else set())
    assert received
    assert 'Fatal error' not in caplog.text


def test_connection_close_ends_with_a_farewell(site):
    """A client must be able to tell the end of an answer from a cut."""
    with site.serving(TLS) as served:
        client = served.https()
        client.connect()
        client.sock.sendall(b'GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
        received = b''
        while data := client.sock.recv(65536):
            received += data
        assert received.endswith(b'hello\n')


def test_a_silent_peer_is_dropped_at_the_deadline_of_the_handshake(site):
    limits = web.Limits(handshake_seconds=0.2)
    with site.serving(TLS, limits) as served, socket.create_connection(served.address) as peer:
        peer.settimeout(PATIENCE)
        begun = time.monotonic()
        while time.monotonic() < begun + 0.15:
            peer.send(b'\x16')  # bytes do not prolong it
            time.sleep(0.05)
        with contextlib.suppress(ConnectionError):
            assert peer.recv(100) == b''
        until(lambda: set(served.dropped()) <= {'handshake_timeout', 'tls_failed'})
        assert served.dropped()


def test_handshakes_that_hang_are_capped_and_good_clients_get_through(site):
    with site.serving(TLS, web.Limits(handshakes=5)) as served, contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(socket.create_connection(served.address))
        begun = time.monotonic()
        assert ask(served.https()) == 200
        assert time.monotonic() - begun < 3
        until(lambda: served.dropped().get('too_many_handshakes', 0) >= 15)
        assert served.server.statistics().connections['handshake'] <= 5


# --- client certificates --------------------------------------------------------


def is_refused(served: Served, leaf: trustme.LeafCert | None) -> bool:
    try:
        return ask(served.https(leaf)) != 200
    except (ssl.SSLError, ConnectionError):
        return True


def test_only_certificates_of_the_authority_are_let_in(site):
    with site.serving(MUTUAL) as served:
        assert ask(served.https(certificate('prometheus.example.org'))) == 200
        assert is_refused(served, None)
        assert is_refused(served, certificate('prometheus.example.org', of='theirs'))
        assert served.guard.is_complete


@pytest.mark.parametrize(
    'allowed', ['prometheus.example.org', '2001:db8::0001', 'ops@example.org', '192.0.2.7']
)
def test_one_allowed_name_is_enough_and_others_are_refused(site, allowed):
    names = ('prometheus.example.org', '2001:db8::1', 'ops@example.org', '192.0.2.7')
    with site.serving(f'{MUTUAL}  client_allowed_sans: ["{allowed}"]\n') as served:
        assert ask(served.https(certificate(*names))) == 200
        assert is_refused(served, certificate('other.example.org', '192.0.2.8'))
        assert is_refused(served, certificate('prometheus.example.org.evil.example'))


def test_a_certificate_is_optional_where_the_file_says_so_but_never_a_wrong_one(site):
    text = MUTUAL.replace('RequireAndVerifyClientCert', 'VerifyClientCertIfGiven')
    with site.serving(text) as served:
        assert ask(served.https()) == 200
        assert is_refused(served, certificate('x.example.org', of='theirs'))
        assert not served.guard.is_complete


# --- passwords ------------------------------------------------------------------


def test_right_password_is_let_in_and_all_else_is_401(site):
    with site.serving(USERS) as served:
        client = served.http()
        assert ask(client, Authorization=as_user()) == 200
        for wrong in (
            as_user(password='wrong'),
            as_user(user='nobody'),
            as_user(user='', password=''),
            as_user(password=PASSWORD + '\0'),
            as_user(password='a' * 73),
            'Bearer ' + as_user().partition(' ')[2],
            'Basic !!!',
            'Basic ' + 'a' * 2000,
            'Basic ' + base64.b64encode(b'prometheus').decode(),
            'Basic ' + base64.b64encode(b'\xff:\xff').decode(),
        ):
            assert ask(client, Authorization=wrong) == 401, wrong
        client.request('GET', '/unknown')
        response = client.getresponse()
        assert response.status == 401
        assert response.headers['WWW-Authenticate'].startswith('Basic realm=')


class Checks:
    """Counts what would be computed; the password is the hash's user name backwards."""

    def __init__(self) -> None:
        self.tried: list[tuple[bytes, bytes]] = []
        self.is_open = threading.Event()
        self.is_open.set()

    def __call__(self, password: bytes, hashed: bytes) -> bool:
        self.tried.append((password, hashed))
        self.is_open.wait(PATIENCE)
        return bcrypt.checkpw(password, hashed)


@contextlib.contextmanager
def counting(site: Site, text: str = USERS) -> Iterator[tuple[Served, Checks]]:
    checks = Checks()
    basic = authentication.BasicAuthentication(checks)
    guard = protection.Guard(site.write('web.yml', text), clock=lambda: site.now, basic=basic)
    server = web.Server([web.TcpListener('127.0.0.1', 0, ROUTES, guard=guard)])
    server.start()
    try:
        yield Served(server, guard), checks
    finally:
        checks.is_open.set()
        server.stop(PATIENCE)


def test_a_success_is_computed_once_and_failures_always(site):
    with counting(site) as (served, checks):
        client = served.http()
        for _ in range(3):
            assert ask(client, Authorization=as_user()) == 200
        assert len(checks.tried) == 1
        for _ in range(2):
            assert ask(client, Authorization=as_user(password='no')) == 401
        assert len(checks.tried) == 3


def test_an_unknown_user_costs_as_much_as_a_known_one(site):
    with counting(site) as (served, checks):
        assert ask(served.http(), Authorization=as_user(user='nobody')) == 401
        [(_, tried)] = checks.tried
        assert tried.startswith(b'$2b$04$')
        assert tried != HASH.encode()


def test_user_and_password_cannot_be_shifted_into_each_other(site):
    """What the joined key of CVE-2022-46146 let pass."""
    with counting(site) as (served, _):
        assert ask(served.http(), Authorization=as_user()) == 200
        assert ask(served.http(), Authorization=as_user('prometheu', 's' + PASSWORD)) == 401
        stuffed = as_user('prometheus' + HASH, PASSWORD)
        assert ask(served.http(), Authorization=stuffed) == 401


def test_a_changed_password_ends_what_the_old_one_allowed(site):
    with counting(site) as (served, _):
        client = served.http()
        assert ask(client, Authorization=as_user()) == 200
        new = bcrypt.hashpw(b'new', bcrypt.gensalt(4)).decode()
        site.write('web.yml', f'basic_auth_users:\n  prometheus: {new}\n')
        site.now += 2
        assert ask(client, Authorization=as_user()) == 401
        assert ask(client, Authorization=as_user(password='new')) == 200


def test_the_same_password_at_once_is_computed_once_and_others_are_429(site):
    with counting(site) as (served, checks), contextlib.ExitStack() as stack:
        checks.is_open.clear()
        clients = [stack.enter_context(contextlib.closing(served.http())) for _ in range(6)]
        for client in clients:
            client.request('GET', '/hello', headers={'Authorization': as_user()})
        until(lambda: served.server.statistics().connections['write'] == 6)
        more = [stack.enter_context(contextlib.closing(served.http())) for _ in range(4)]
        for number, client in enumerate(more):
            wrong = as_user(password=str(number))
            client.request('GET', '/hello', headers={'Authorization': wrong})
        refused = more[-1].getresponse()
        assert (refused.status, refused.headers['Retry-After']) == (429, '1')
        checks.is_open.set()
        assert [client.getresponse().status for client in clients] == [200] * 6
        assert [client.getresponse().status for client in more[:-1]] == [401] * 3
        assert len(checks.tried) == 4


def test_a_peer_that_leaves_while_its_password_is_computed_harms_nobody(site):
    with counting(site) as (served, checks):
        checks.is_open.clear()
        client = served.http()
        client.request('GET', '/hello', headers={'Authorization': as_user()})
        until(lambda: checks.tried)
        # Reset instead of closed: who only closed its side still wants the answer.
        reset = struct.pack('ii', 1, 0)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        client.close()
        until(lambda: served.server.statistics().connections['write'] == 0)
        checks.is_open.set()
        assert ask(served.http(), Authorization=as_user()) == 200


# --- rate and headers -------------------------------------------------------------


def test_requests_beyond_the_rate_are_429_until_a_token_grows(site):
    with site.serving('rate_limit: {interval: 10s, burst: 2}') as served:
        client = served.http()
        assert [ask(client) for _ in range(4)] == [200, 200, 429, 429]
        site.now += 10
        assert [ask(client) for _ in range(2)] == [200, 429]
        site.now += 1000
        assert [ask(client) for _ in range(3)] == [200, 200, 429]


def test_every_answer_carries_the_headers(site):
    text = 'http_server_config:\n  headers:\n    Strict-Transport-Security: max-age=31536000\n'
    with site.serving(text + USERS) as served:
        client = served.http()
        for headers in ({}, {'Authorization': as_user()}):
            client.request('GET', '/hello', headers=headers)
            response = client.getresponse()
            response.read()
            assert response.headers['Strict-Transport-Security'] == 'max-age=31536000'


# --- changes at run time ------------------------------------------------------------


def serial(served: Served) -> str:
    client = served.https()
    assert ask(client) == 200
    return str(client.sock.getpeercert()['serialNumber'])


def test_a_renewed_certificate_is_used_from_the_next_connection_on(site):
    with site.serving(TLS) as served:
        old = serial(served)
        kept = served.https()
        assert ask(kept) == 200
        site.renew(authority('ours').issue_cert('127.0.0.1'))
        assert serial(served) == old, 'looked at most once a second'
        site.now += 2
        assert serial(served) != old
        assert ask(kept) == 200  # answered once more, then closed: the rules changed
        assert (served.guard.is_ok, served.guard.errors) == (True, 0)


def test_a_file_that_turns_bad_keeps_the_last_good_state_until_it_is_good_again(site):
    with site.serving(TLS + USERS) as served:
        for bad in ('{', TLS.replace('.pem', '.gone') + USERS):
            site.write('web.yml', bad)
            site.now += 2
            assert ask(served.https()) == 401
            assert not served.guard.is_ok
        assert served.guard.errors == 2
        site.now += 2
        assert ask(served.https()) == 401
        assert served.guard.errors == 2, 'what did not change is not read again'
        site.write('web.yml', TLS)
        site.now += 2
        assert ask(served.https()) == 200
        assert (served.guard.is_ok, served.guard.errors) == (True, 2)


def test_certificate_and_key_may_be_replaced_one_after_the_other(site):
    with site.serving(TLS) as served:
        old = serial(served)
        leaf = authority('ours').issue_cert('127.0.0.1')
        site.write('server.pem', leaf.cert_chain_pems[0].bytes())
        site.now += 2
        assert serial(served) == old
        assert not served.guard.is_ok
        site.write('server.key', leaf.private_key_pem.bytes())
        site.now += 2
        assert serial(served) != old
        assert served.guard.is_ok


def test_tls_is_not_dropped_at_run_time(site):
    with site.serving(TLS) as served:
        site.write('web.yml', USERS)
        site.now += 2
        assert ask(served.https()) == 200
        assert not served.guard.is_ok


def test_a_file_that_is_taken_away_opens_nothing(site):
    with site.serving(USERS) as served:
        os.unlink(site.directory / 'web.yml')
        site.now += 2
        assert ask(served.http()) == 401
        assert not served.guard.is_ok


def test_the_unix_socket_is_not_touched_by_the_file(site):
    path = str(site.directory / 'oie.sock')
    server = web.Server([web.UnixListener(path, ROUTES)])
    server.start()
    try:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(path)
            peer.sendall(b'GET /hello HTTP/1.1\r\nHost: x\r\n\r\n')
            assert peer.recv(4096).startswith(b'HTTP/1.1 200 ')
        assert not server.is_public()
    finally:
        server.stop(PATIENCE)


# --- who can reach it ---------------------------------------------------------------


@pytest.mark.parametrize(
    ('host', 'is_public'), [('127.0.0.1', False), ('localhost', False), ('0.0.0.0', True)]
)
def test_an_address_that_is_not_loopback_is_public(host, is_public):
    server = web.Server([web.TcpListener(host, 0, {})])
    server.start()
    try:
        assert server.is_public() is is_public
    finally:
        server.stop(PATIENCE)


@pytest.mark.parametrize(
    ('text', 'is_complete'),
    [
        ('', False),
        (TLS, False),
        (USERS, False),
        (TLS + USERS, True),
        (MUTUAL, True),
        (MUTUAL.replace('RequireAndVerifyClientCert', 'VerifyClientCertIfGiven'), False),
    ],
)
def test_tls_and_authentication_are_needed_both(site, text, is_complete):
    assert site.guard(text).is_complete is is_complete


def test_who_needs_no_file_does_not_load_its_libraries():
    names = "{'bcrypt', 'yaml', 'oie.web.tls'}"
    program = f'import sys, oie.web; print({names} & sys.modules.keys())'
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, check=True)
    assert done.stdout == b'set()\n'


def test_no_handler_runs_before_the_password_was_right(site):
    seen = []
    routes = {'/x': {'POST': web.Route(lambda request: seen.append(1) or web.Response())}}
    guard = site.guard(USERS)
    server = web.Server([web.TcpListener('127.0.0.1', 0, routes, guard=guard)])
    server.start()
    try:
        client = Served(server, guard).http()
        client.request('POST', '/x')
        response = client.getresponse()
        response.read()
        assert (response.status, seen) == (401, [])
        client.request('POST', '/x', headers={'Authorization': as_user()})
        assert (client.getresponse().status, seen) == (200, [1])
    finally:
        server.stop(PATIENCE)
