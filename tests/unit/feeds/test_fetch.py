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


"""A document comes whole, in time and from the right place, or one line says why not."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import email.utils
import gzip
import logging
import os
import pathlib
import socket
import stat
import time
import traceback
import tracemalloc
from typing import Any

import hypothesis
from hypothesis import strategies as st
import pytest

from oie import exceptions
from oie.feeds import answers
from oie.feeds import fetch
from oie.feeds import targets
from oie.feeds import transport
from tests.unit.feeds import feed_server

LIST = b'5.6.7.0/24\n45.0.0.0/20\n' * 100
SECRET = 'c0rrect-horse'
PATH = f'/list.txt?key={SECRET}'
SHORT = 0.4
# Above a deadline, for a machine with better things to do.
SLACK = 2.0

CHUNKED = feed_server.head(headers={'Transfer-Encoding': 'chunked'})
HUGE_LINE = b'HTTP/1.1 200 OK\r\nX-Large: ' + b'x' * 2**17 + b'\r\nContent-Length: 0\r\n\r\n'
MANY_LINES = b'HTTP/1.1 200 OK\r\n' + b'X: y\r\n' * 500 + b'Content-Length: 0\r\n\r\n'
BROKEN_LINE = b'HTTP/1.1 200 OK\r\nX-Fine: 1\r\nno colon\r\nContent-Length: 3\r\n\r\nabc'
PACKED = gzip.compress(LIST)
IN_GZIP = {'Content-Encoding': 'gzip'}


@pytest.fixture
def server() -> Iterator[feed_server.FeedServer]:
    with feed_server.FeedServer() as running:
        yield running


@pytest.fixture
def tls_server() -> Iterator[feed_server.FeedServer]:
    with feed_server.FeedServer(tls=True) as running:
        yield running


def get(
    server: feed_server.FeedServer, target: str = PATH, *, url: str = '', **more: Any
) -> fetch.Document:
    settings: dict[str, Any] = {
        'timeout': 10.0,
        'ca_file': server.ca_file,
        'allow_plain_http': True,
        'allow_private_targets': True,
    }
    return fetch.fetch(fetch.Request(url=url or server.url(target), **{**settings, **more}))


def refusal(server: feed_server.FeedServer, *args: str, **more: Any) -> str:
    """Return the text of the error, having seen that it is one line and gives nothing away."""
    with pytest.raises(exceptions.FeedError) as caught:
        get(server, *args, **more)
    whole = ''.join(traceback.format_exception(caught.value))
    assert SECRET not in whole
    text = str(caught.value)
    assert text.isprintable()
    return text


def wait_until(is_so: Callable[[], object]) -> None:
    give_up = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < give_up
        time.sleep(0.005)


# --- good answers -----------------------------------------------------------------


@pytest.mark.parametrize(
    'script',
    [
        feed_server.answer(LIST),
        feed_server.packed(LIST),
        feed_server.chunked(LIST[:1000], LIST[1000:]),
        feed_server.answer(PACKED[:300] + PACKED[300:], headers=IN_GZIP),
        feed_server.answer(gzip.compress(LIST[:7]) + gzip.compress(LIST[7:]), headers=IN_GZIP),
        feed_server.answer(LIST, headers={'Content-Type': 'application/octet-stream'}),
        feed_server.answer(LIST, headers={'Content-Encoding': 'identity'}),
    ],
)
def test_a_good_list_comes_as_it_is(tls_server, script):
    tls_server.play(PATH, script)

    assert get(tls_server) == fetch.Document(body=LIST)


def test_an_empty_list_comes_too(server):
    server.play(PATH, feed_server.answer())

    assert get(server) == fetch.Document(body=b'')


def test_server_that_keeps_the_connection_is_not_waited_for(server):
    def keep(exchange: feed_server.Exchange) -> None:
        feed_server.answer(LIST)(exchange)
        exchange.pause(60)

    server.play(PATH, keep)
    started = time.monotonic()

    assert get(server).body == LIST
    assert time.monotonic() - started < 5


def test_request_tells_who_asks_and_what_for(server):
    server.play(PATH, feed_server.answer(LIST))

    get(server)

    [asked] = server.requests
    assert (asked.method, asked.target) == ('GET', PATH)
    assert asked.headers['user-agent'].startswith('oie/')
    assert asked.headers['accept-encoding'] == 'gzip, identity'
    assert {'if-none-match', 'if-modified-since', 'cookie', 'authorization'}.isdisjoint(
        asked.headers
    )


@pytest.mark.parametrize(
    ('validators', 'header'),
    [
        ({'etag': '"7"'}, 'if-none-match'),
        ({'last_modified': 'Mon, 05 Jan 2026 07:00:00 GMT'}, 'if-modified-since'),
    ],
)
def test_unchanged_list_is_not_sent_again(server, validators, header):
    server.play(PATH, feed_server.kept(LIST, **validators))
    first = get(server)
    assert first == fetch.Document(body=LIST, **validators)

    second = get(server, etag=first.etag, last_modified=first.last_modified)

    assert second == fetch.Document(body=b'', is_unchanged=True, **validators)
    assert server.requests[1].headers[header] == next(iter(validators.values()))


def test_not_modified_without_having_asked_is_no_list(server):
    server.play(PATH, feed_server.answer(status=304))

    assert '304 Not Modified' in refusal(server)


def test_validators_that_cannot_be_sent_are_not_kept(server):
    server.play(
        PATH, feed_server.answer(LIST, headers={'ETag': '"\xe9"', 'Last-Modified': 'x' * 5000})
    )

    assert get(server) == fetch.Document(body=LIST)


def test_validators_from_a_damaged_cache_are_not_sent(server):
    server.play(PATH, feed_server.answer(LIST))

    get(server, etag='"1"\r\nX-Injected: 1', last_modified='\xe9')

    assert {'if-none-match', 'x-injected', 'if-modified-since'}.isdisjoint(
        server.requests[0].headers
    )


def test_body_is_kept_once(server):
    body = bytes(8 * 2**20)
    server.play('/plain', feed_server.answer(body))
    server.play('/packed', feed_server.packed(body))
    for path in ('/plain', '/packed'):
        get(server, path)  # what is imported late is not to be counted
        tracemalloc.start()
        try:
            document = get(server, path)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

        assert len(document.body) == len(body)
        assert peak < 1.5 * len(body)


# --- bad answers ------------------------------------------------------------------

BAD = {
    'web page': (feed_server.page(), 'a web page (HTML) came'),
    'other status': (feed_server.answer(LIST, status=206), 'the answer is 206 Partial Content'),
    'unknown status': (feed_server.raw(b'HTTP/1.1 799 Go\r\n\r\n'), 'the answer is 799; the next'),
    'early hints': (feed_server.raw(feed_server.head(103)), 'the answer is 103 Early Hints'),
    'short body': (feed_server.answer(LIST, headers={'Content-Length': 9999}), 'broke off'),
    'long body': (feed_server.answer(LIST, headers={'Content-Length': 9}), 'longer than its'),
    'no length': (feed_server.raw(feed_server.head() + LIST), 'nothing tells where'),
    'no good length': (feed_server.answer(LIST, headers={'Content-Length': -1}), 'nothing tells'),
    'two lengths': (
        feed_server.raw(b'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab'),
        'contradict',
    ),
    'unknown transfer': (
        feed_server.answer(LIST, headers={'Transfer-Encoding': 'gzip, chunked'}),
        'nothing tells where',
    ),
    'chunks that are none': (feed_server.raw(CHUNKED + b'zz\r\n5.6.7.8'), 'its chunks are none'),
    'chunks that stop': (feed_server.raw(CHUNKED + b'9\r\n5.6.7.8'), 'broke off'),
    'chunks without end': (feed_server.raw(CHUNKED + b'8\r\n5.6.7.8\n\r\n'), 'broke off'),
    'negative chunk': (feed_server.raw(CHUNKED + b'-5\r\n5.6.7.8'), 'not HTTP'),
    'reset in headers': (feed_server.reset(b'HTTP/1.1 200 OK\r\nX'), 'connection reset'),
    'reset in body': (feed_server.reset(feed_server.head(headers={'Content-Length': 9})), 'reset'),
    'no answer': (feed_server.raw(b''), 'closed the connection without an answer'),
    'other protocol': (feed_server.raw(b'SSH-2.0-OpenSSH_9.2\r\n'), 'not HTTP'),
    'odd status': (feed_server.raw(b'HTTP/1.1 99999 OK\r\n\r\n'), 'not HTTP'),
    'broken header': (feed_server.raw(BROKEN_LINE), 'headers of the answer are not HTTP'),
    'huge header': (feed_server.raw(HUGE_LINE), 'headers of the answer are too long'),
    'many headers': (feed_server.raw(MANY_LINES), 'headers of the answer are too many'),
    'nested encodings': (
        feed_server.answer(gzip.compress(PACKED), headers={'Content-Encoding': 'gzip, gzip'}),
        "Content-Encoding 'gzip, gzip' was not asked for",
    ),
    'other encoding': (feed_server.answer(LIST, headers={'Content-Encoding': 'br'}), 'not asked'),
    'no gzip': (feed_server.answer(LIST, headers=IN_GZIP), 'gzip data is damaged'),
    'half gzip': (feed_server.answer(PACKED[:-5], headers=IN_GZIP), 'gzip data ends too early'),
    'more than gzip': (feed_server.answer(PACKED + b'!', headers=IN_GZIP), 'something else'),
    'bomb': (feed_server.bomb(), 'larger than 2097152 bytes unpacked'),
    'endless': (feed_server.endless(), 'larger than 2097152 bytes as transferred'),
    'announced too large': (
        feed_server.raw(feed_server.head(headers={'Content-Length': 2**30})),
        'larger than 2097152 bytes as transferred',
    ),
    # http.client takes the size -1 for "to the end, whatever it is".
    'endless chunk': (feed_server.flood(CHUNKED + b'-1\r\n', bytes(2**16)), 'more bytes came'),
    'endless line': (feed_server.flood(CHUNKED, b'1' * 2**16), 'too long'),
    'endless trailers': (feed_server.flood(CHUNKED + b'0\r\n', b'x: y\r\n' * 999), 'more bytes'),
}


@pytest.mark.parametrize(('script', 'reason'), BAD.values(), ids=BAD)
def test_a_bad_answer_gives_no_list(server, script, reason):
    server.play(PATH, script)

    text = refusal(server, max_bytes=2**21, max_unpacked_bytes=2**21)

    assert text.startswith(f'{server.url("/list.txt")}: ')
    assert reason in text


@pytest.mark.parametrize(
    'name', ['short body', 'long body', 'chunks that stop', 'bomb', 'endless']
)
def test_a_bad_answer_gives_no_list_over_tls_either(tls_server, name):
    script, reason = BAD[name]
    tls_server.play(PATH, script)

    assert reason in refusal(tls_server, max_bytes=2**21, max_unpacked_bytes=2**21)


def test_bombs_are_met_at_the_limit_and_soon(server):
    server.play(PATH, feed_server.bomb())
    tracemalloc.start()
    try:
        refusal(server, max_unpacked_bytes=8 * 2**20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 16 * 2**20


SLOW = {
    'silence': feed_server.silence,
    'slow headers': feed_server.drip(b'HTTP/1.1 200 OK\r\nX-Slow: ', b'x'),
    'slow body': feed_server.drip(feed_server.head(headers={'Content-Length': 9999}), b'x'),
    'slow chunks': feed_server.drip(CHUNKED, b'1\r\nx\r\n'),
    'answers to come': feed_server.drip(b'', b'HTTP/1.1 100 Continue\r\n\r\n'),
    'slow redirects': feed_server.in_turn(
        *3 * (lambda exchange: (exchange.pause(SHORT / 2), feed_server.redirect(PATH)(exchange)),)
    ),
}


@pytest.mark.parametrize('script', SLOW.values(), ids=SLOW)
def test_deadline_is_for_all_of_it(server, script):
    server.play(PATH, script)
    started = time.monotonic()

    text = refusal(server, timeout=SHORT)

    assert SHORT <= time.monotonic() - started < SHORT + SLACK
    assert f'not done within {SHORT} s; raise timeout' in text


@pytest.mark.parametrize(
    'greeting', [feed_server.silence, feed_server.drip(b'\x16\x03\x03\x40\x00', b'x')]
)
def test_deadline_is_for_the_handshake_too(greeting):
    with feed_server.FeedServer(greeting=greeting) as server:
        url = server.url(PATH).replace('http:', 'https:')
        started = time.monotonic()

        text = refusal(server, url=url, timeout=SHORT)

        assert time.monotonic() - started < SHORT + SLACK
        assert 'it fell silent' in text


PIECES = st.one_of(
    st.sampled_from(
        (
            b'HTTP/1.1 200 OK\r\n',
            b'HTTP/1.0 302 \r\n',
            b'HTTP/1.1 100 Continue\r\n\r\n',
            b'Content-Length: 3\r\n',
            b'Transfer-Encoding: chunked\r\n',
            b'Content-Encoding: gzip\r\n',
            b'Set-Cookie: a=b; Max-Age=x; Domain=[\r\n',
            b'Content-Type: multipart/mixed\r\n',
            b'Location: ',
            b'\r\n',
            b'3\r\nabc\r\n',
            b'0\r\n\r\n',
            PACKED,
        )
    ),
    st.binary(max_size=8),
)


@hypothesis.given(st.lists(PIECES, max_size=12).map(b''.join))
@hypothesis.settings(
    max_examples=200,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_whatever_comes_there_is_a_document_or_an_error_of_ours(server, data):
    server.play('*', feed_server.raw(b'HTTP/1.1 200 OK\r\n' + data))
    with contextlib.suppress(exceptions.FeedError):
        assert not get(server).is_unchanged


# --- statuses ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ('status', 'headers', 'retry_after'),
    [
        (401, {'Retry-After': '60'}, None),
        (429, {'Retry-After': '120'}, 120.0),
        (429, {}, None),
        (503, {'Retry-After': '9' * 5000}, 86400.0),
        (503, {'Retry-After': 'soon'}, None),
    ],
)
def test_a_no_tells_when_to_ask_again(server, status, headers, retry_after):
    server.play(PATH, feed_server.answer(status=status, headers=headers))

    with pytest.raises(
        fetch.Refused, match=rf'^http://.*/list\.txt: the answer is {status} '
    ) as no:
        get(server)

    assert no.value.retry_after == retry_after


NOW = 1767225600.0  # 2026-01-01T00:00:00Z


@pytest.mark.parametrize(
    ('text', 'seconds'),
    [
        ('0', 0.0),
        (' 120 ', 120.0),
        (email.utils.formatdate(NOW + 90, usegmt=True), 90.0),
        (email.utils.formatdate(NOW - 90, usegmt=True), 0.0),
        (email.utils.formatdate(NOW + 10**7, usegmt=True), 86400.0),
        ('-1', None),
        ('1.5', None),
        ('\u0661', None),
        ('', None),
        ('Thu, 99 Jan 2026 00:00:00 GMT', None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text, seconds):
    assert answers.parse_retry_after(text, NOW) == seconds


@hypothesis.given(st.text(max_size=60))
def test_nonsense_in_retry_after_is_ignored(text):
    seconds = answers.parse_retry_after(text, NOW)

    assert seconds is None or 0 <= seconds <= 86400


# --- redirects --------------------------------------------------------------------


def test_redirects_are_followed(server, tls_server):
    server.play('/old', feed_server.redirect('/older', 301))
    server.play('/older', feed_server.redirect(tls_server.url('/new'), 307))
    tls_server.play('/new', feed_server.redirect('newer?part=1', 308))
    tls_server.play('/newer?part=1', feed_server.answer(LIST))

    assert get(server, '/old').body == LIST


def test_more_than_three_redirects_are_a_loop(server):
    server.play(PATH, feed_server.redirect(PATH))

    assert 'more than 3 redirects' in refusal(server)
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    ('location', 'reason'),
    [
        ('file:///etc/passwd', 'something else than a web server'),
        ('ftp://lists.example.org/', 'something else than a web server'),
        ('', 'redirects to nowhere'),
        ('https://[::1/', 'host or port in the URL are none'),
        ('https://lists.example.org:99999999/', 'host or port in the URL are none'),
        (f'https://user:{SECRET}@lists.example.org/', 'a password stands in the URL'),
        ('http://\x7f', 'redirects to nowhere'),
        ('https://a..b/', 'there can be no such host'),
    ],
)
def test_redirects_lead_to_web_servers_only(server, location, reason):
    server.play(PATH, feed_server.redirect(location))

    assert reason in refusal(server, allow_file_urls=True)


def test_no_redirect_leads_away_from_tls(server, tls_server):
    tls_server.play(PATH, feed_server.redirect(server.url(PATH)))

    text = refusal(tls_server, allow_plain_http=True)

    assert f'it redirects away from TLS, to {server.url("/list.txt")}' in text
    assert not server.requests


def test_body_of_a_redirect_is_not_read(server):
    headers = {'Location': '/list', 'Content-Encoding': 'gzip', 'Content-Length': 2**30}
    server.play(PATH, feed_server.flood(feed_server.head(302, headers), bytes(2**16)))
    server.play('/list', feed_server.answer(LIST))

    assert get(server, timeout=5.0).body == LIST


def test_error_after_a_redirect_names_the_place_where_it_happened(server):
    server.play(PATH, feed_server.redirect('/gone'))
    server.play('/gone', feed_server.answer(status=410))

    assert refusal(server).startswith(f'{server.url("/gone")}: the answer is 410 Gone')


# --- targets ----------------------------------------------------------------------


@pytest.mark.parametrize('tls', [False, True])
def test_private_target_is_left_before_a_byte_is_sent(monkeypatch, tls):
    # The name of a public list, which its owner lets point to us: DNS rebinding.
    with feed_server.FeedServer(tls=tls) as server:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, '', ('127.0.0.1', server.port))]
        monkeypatch.setattr(socket, 'getaddrinfo', lambda *args, **kwargs: found)
        url = server.url(PATH, host='lists.example.org')

        text = refusal(server, url=url, allow_private_targets=False)
        wait_until(lambda: server.unasked)

    assert 'its address 127.0.0.1 is not one of the Internet; set allow_private_targets' in text
    assert (server.unasked, server.requests) == (1, [])


def test_redirect_to_a_private_target_is_refused(server, monkeypatch):
    # As if the address of the server were one of the Internet.
    monkeypatch.setattr(targets, 'is_special', lambda each: str(each) != '127.0.0.1')
    with socket.create_server(('127.0.0.2', 0)) as metadata:
        metadata.settimeout(5)
        to = f'http://127.0.0.2:{metadata.getsockname()[1]}/latest'
        server.play(PATH, feed_server.redirect(to))

        text = refusal(server, allow_private_targets=False)

        assert text.startswith(f'{to}: its address 127.0.0.2 is not one of the Internet')
        assert metadata.accept()[0].recv(100) == b''


def test_plain_http_needs_permission(server):
    assert 'set allow_plain_http' in refusal(server, allow_plain_http=False)
    assert not server.requests


def test_unreachable_server_and_unknown_name_are_told_apart(server):
    with socket.create_server(('127.0.0.1', 0)) as listener:
        port = listener.getsockname()[1]

    assert 'connection refused' in refusal(server, url=f'http://127.0.0.1:{port}{PATH}')
    assert 'its name is not found' in refusal(server, url=f'https://lists.invalid{PATH}')


@pytest.mark.parametrize(
    'url', ['ftp://lists.example.org/', 'lists.txt', 'https://', 'https:///a']
)
def test_other_urls_are_refused(server, url):
    assert 'no URL of a list' in refusal(server, url=url)


def test_environment_does_not_count(server, monkeypatch, tmp_path):
    (tmp_path / '.netrc').write_text(f'machine 127.0.0.1 login me password {SECRET}\n')
    (tmp_path / '.netrc').chmod(0o600)
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('REQUESTS_CA_BUNDLE', '/nonexistent')
    for name in ('http_proxy', 'HTTP_PROXY', 'ALL_PROXY'):
        monkeypatch.setenv(name, 'http://127.0.0.1:1')
    server.play(PATH, feed_server.answer(LIST))

    assert get(server).body == LIST
    assert 'authorization' not in server.requests[0].headers


# --- TLS --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('certificate', 'reason'),
    [
        ({'is_expired': True}, 'certificate refused: certificate has expired'),
        ({'is_foreign': True}, 'certificate refused: '),
        ({'names': ('lists.example.org',)}, 'certificate refused: '),
    ],
)
def test_bad_certificate_is_refused(certificate, reason):
    with feed_server.FeedServer(tls=True, **certificate) as server:
        text = refusal(server)

    assert reason in text
    assert text.endswith('; check url and clock, or set ca_file')
    assert not server.requests


def test_port_without_tls_is_told():
    def complain(exchange: feed_server.Exchange) -> None:
        exchange.connection.recv(4096)  # what is left unread makes a reset of the close
        exchange.send(b'HTTP/1.1 400 Bad\r\n\r\n')

    with feed_server.FeedServer(greeting=complain) as server:
        text = refusal(server, url=server.url(PATH).replace('http:', 'https:'))

    assert 'TLS failed: ' in text
    assert text.endswith('; check that the port speaks it')


def test_ca_file_stands_in_place_of_the_system_s(tls_server, monkeypatch):
    assert 'certificate refused' in refusal(tls_server, ca_file='')

    monkeypatch.setattr(transport, '_SYSTEM_BUNDLES', ('/nonexistent', tls_server.ca_file))
    tls_server.play(PATH, feed_server.answer(LIST))
    assert get(tls_server, ca_file='').body == LIST


def test_unusable_ca_file_is_named(tls_server, tmp_path):
    empty = tmp_path / 'empty.pem'
    empty.touch()

    text = refusal(tls_server, ca_file=str(empty))
    assert f'ca_file {empty}: no certificates (PEM) in it' in text
    text = refusal(tls_server, ca_file='/nonexistent.pem')
    assert 'ca_file /nonexistent.pem: No such file or directory' in text


# --- proxies ----------------------------------------------------------------------


def test_proxy_is_asked_for_plain_http(server):
    server.play('http://lists.example.org/list.txt', feed_server.answer(LIST))
    url = 'http://lists.example.org/list.txt'

    assert get(server, url=url, proxy=server.url(), allow_private_targets=False).body == LIST


def test_proxy_passes_tls_on(server):
    with feed_server.FeedServer(tls=True, names=('lists.example.org',)) as beyond:
        beyond.play(PATH, feed_server.answer(LIST))
        server.play('lists.example.org:443', feed_server.tunnel(beyond.port))
        url = f'https://lists.example.org{PATH}'

        assert get(server, url=url, proxy=server.url(), allow_private_targets=False).body == LIST


@pytest.mark.parametrize('status', [403, 407])
def test_proxy_that_does_not_want_is_told(server, status):
    server.play('lists.example.org:443', feed_server.answer(status=status))

    text = refusal(server, url=f'https://lists.example.org{PATH}', proxy=server.url())

    assert text.startswith('https://lists.example.org/list.txt: the proxy')


@pytest.mark.parametrize(
    'proxy',
    [f'socks5://me:{SECRET}@127.0.0.1', '127.0.0.1:3128', 'http://', 'http://[', 'http://a:x'],
)
def test_proxy_must_be_a_url(server, proxy):
    assert 'proxy is no URL such as' in refusal(server, proxy=proxy)


def test_unreachable_proxy_is_told_without_its_password(server):
    proxy = f'http://me:{SECRET}@127.0.0.1:1'

    assert 'the proxy cannot be reached' in refusal(server, url='https://a.example/', proxy=proxy)


# --- secrets ----------------------------------------------------------------------


@pytest.fixture
def secret_file(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / 'key'
    path.write_text(f'Bearer {SECRET}\n')
    path.chmod(0o640)
    return path


def test_secret_goes_to_its_server(tls_server, secret_file):
    tls_server.play(PATH, feed_server.redirect('/there'))
    tls_server.play('/there', feed_server.answer(LIST))

    get(tls_server, secret_header='Authorization', secret_file=str(secret_file))

    sent = [asked.headers['authorization'] for asked in tls_server.requests]
    assert sent == [f'Bearer {SECRET}'] * 2


@pytest.mark.parametrize('is_other_name', [False, True])
def test_secret_goes_to_no_other_server(server, secret_file, is_other_name):
    with feed_server.FeedServer() as other:
        to = server if is_other_name else other
        host = 'localhost' if is_other_name else '127.0.0.1'
        server.play(PATH, feed_server.redirect(to.url('/there', host=host)))
        to.play('/there', feed_server.answer(LIST))

        get(server, secret_header='Auth-Key', secret_file=str(secret_file))

        assert server.requests[0].headers['auth-key'] == f'Bearer {SECRET}'
        assert to.requests[-1].target == '/there'
        assert SECRET not in str(to.requests[-1].headers)


@pytest.mark.parametrize(
    ('content', 'mode', 'reason'),
    [
        (SECRET, 0o604, 'others may use this file'),
        (SECRET, 0o602, 'others may use this file'),
        ('', 0o600, 'must hold one line'),
        (' \n', 0o600, 'must hold one line'),
        (f'{SECRET}\nX-Injected: 1\n', 0o600, 'must hold one line'),
        (f'{SECRET}\xe9', 0o600, 'must hold one line'),
        (SECRET * 1000, 0o600, 'longer than 8192 bytes'),
    ],
)
def test_secret_file_must_be_private_and_one_line(server, tmp_path, content, mode, reason):
    path = tmp_path / 'key'
    path.write_text(content)
    path.chmod(mode)

    text = refusal(server, secret_header='Auth-Key', secret_file=str(path))

    assert f'{path}: {reason}' in text
    assert not server.requests


def test_secret_file_is_a_file(server, tmp_path):
    pipe = tmp_path / 'pipe'
    os.mkfifo(pipe)

    for path, reason in (
        (pipe, 'no regular file'),
        (tmp_path / 'none', 'cannot be read: No such'),
    ):
        text = refusal(server, secret_header='Auth-Key', secret_file=str(path))
        assert f'{path}: {reason}' in text


@pytest.mark.parametrize(
    ('header', 'has_file'), [('', True), ('Auth-Key', False), ('Auth Key', True), ('A:\r\n', True)]
)
def test_secret_needs_header_and_file(server, secret_file, header, has_file):
    path = str(secret_file) if has_file else ''

    assert 'needs both' in refusal(server, secret_header=header, secret_file=path)


def test_neither_query_nor_secret_is_logged(server, secret_file, caplog):
    caplog.set_level(logging.DEBUG)
    for script in (feed_server.raw(BROKEN_LINE), feed_server.answer(LIST), feed_server.raw(b'')):
        server.play(PATH, script)
        with contextlib.suppress(exceptions.FeedError):
            get(server, secret_header='Auth-Key', secret_file=str(secret_file))

    assert SECRET not in caplog.text
    assert SECRET not in repr(fetch.Request(url=server.url(PATH), proxy=f'http://:{SECRET}@a'))


# --- files ------------------------------------------------------------------------


def test_file_url_needs_permission(server, tmp_path):
    path = tmp_path / 'a list.txt'
    path.write_bytes(LIST)
    url = path.as_uri()

    assert 'set allow_file_urls' in refusal(server, url=url)
    document = get(server, url=url, allow_file_urls=True)
    assert document.body == LIST
    again = get(server, url=url, allow_file_urls=True, etag=document.etag)
    assert again == fetch.Document(body=b'', etag=document.etag, is_unchanged=True)


@pytest.mark.parametrize('url', ['file://lists.example.org/a', 'file:a', 'file://[/a'])
def test_file_url_names_a_file_of_this_host(server, url):
    assert refusal(server, url=url, allow_file_urls=True)


def test_unchanged_file_says_so_whatever_its_times(tmp_path):
    path = tmp_path / 'list'
    path.write_bytes(LIST)
    first = fetch.read_file(str(path), 10**6)
    assert first.body == LIST

    os.utime(path, ns=(0, 0))
    assert fetch.read_file(str(path), 10**6, first.etag).is_unchanged

    path.write_bytes(LIST.replace(b'5', b'6'))
    os.utime(path, ns=(0, 0))
    assert fetch.read_file(str(path), 10**6, first.etag).body == LIST.replace(b'5', b'6')


def test_directory_is_one_list(tmp_path):
    (tmp_path / 'b').write_bytes(b'45.0.0.0/20\n')
    (tmp_path / 'a').write_bytes(b'5.6.7.0/24')
    (tmp_path / 'c').symlink_to(tmp_path / '.target')
    (tmp_path / '.target').write_bytes(b'2a00:1::/32\n')
    (tmp_path / 'd').mkdir()
    os.mkfifo(tmp_path / 'e')

    document = fetch.read_file(str(tmp_path), 10**6)

    assert document.body == b'5.6.7.0/24\n45.0.0.0/20\n\n2a00:1::/32\n'


def test_empty_directory_is_an_empty_list(tmp_path):
    assert fetch.read_file(str(tmp_path), 10**6).body == b''


def test_missing_part_of_a_directory_is_an_error(tmp_path):
    (tmp_path / 'a').write_bytes(LIST)
    (tmp_path / 'b').symlink_to(tmp_path / 'nowhere')

    with pytest.raises(exceptions.FeedError, match='/b: cannot be read: No such file'):
        fetch.read_file(str(tmp_path), 10**6)


def test_too_large_files_are_refused(tmp_path):
    (tmp_path / 'a').write_bytes(bytes(60))
    (tmp_path / 'b').write_bytes(bytes(60))
    assert len(fetch.read_file(str(tmp_path), 121).body) == 121

    with pytest.raises(exceptions.FeedError, match='/b: more than 120 bytes; raise max_bytes'):
        fetch.read_file(str(tmp_path), 120)


def test_pipes_devices_and_sockets_are_never_opened(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / 'pipe')
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / 'socket'))
        monkeypatch.setattr(os, 'open', lambda *args: pytest.fail('opened'))
        for path in (tmp_path / 'pipe', tmp_path / 'socket', '/dev/null'):
            with pytest.raises(exceptions.FeedError, match=f'^{path}: no regular file'):
                fetch.read_file(str(path), 10**6)


def test_file_that_became_a_pipe_is_not_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / 'pipe')
    monkeypatch.setattr(os, 'stat', lambda path: os.stat_result((stat.S_IFREG, *[0] * 9)))

    with pytest.raises(exceptions.FeedError, match='no regular file'):
        fetch.read_file(str(tmp_path / 'pipe'), 10**6)


def test_unreadable_file_is_named(tmp_path, monkeypatch):
    path = tmp_path / 'list'
    path.write_bytes(LIST)

    def refuse(*args: Any) -> int:
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(os, 'open', refuse)
    with pytest.raises(exceptions.FeedError, match=f'^{path}: cannot be read: Permission denied$'):
        fetch.read_file(str(path), 10**6)
    with pytest.raises(exceptions.FeedError, match='is no path'):
        fetch.read_file('/a\0b', 10**6)


def test_file_that_is_written_meanwhile_is_refused(tmp_path, monkeypatch):
    path = tmp_path / 'list'
    path.write_bytes(LIST)
    read = os.read

    def read_and_append(descriptor: int, count: int) -> bytes:
        data = read(descriptor, count)
        if data == LIST:
            with path.open('ab') as file:
                file.write(b'5.6.8.0/24\n')
        return data

    monkeypatch.setattr(os, 'read', read_and_append)
    with pytest.raises(exceptions.FeedError, match='was written to while it was read'):
        fetch.read_file(str(path), 10**6)
