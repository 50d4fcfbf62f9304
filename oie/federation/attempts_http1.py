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

"""The attempts over HTTP/1.1, as the bytes of a connection."""

from collections.abc import Iterator

from oie.federation import attempts

HOST, AUTH, CLOSE = 'Host: $host', 'Authorization: Bearer $token', 'Connection: close'
_EVERYTHING = '{__name__=~".+"}'
_ENCODED_EVERYTHING = '%7B__name__%3D~%22.%2B%22%7D'
# A request that must never be answered from behind, for the second one of a connection.
_HIDDEN = f'GET /api/v1/targets HTTP/1.1\r\n{HOST}\r\n{AUTH}\r\n{CLOSE}\r\n\r\n'

Attempt = attempts.Attempt


def control() -> Attempt:
    """Return the request that is allowed."""
    return _request('the allowed request', 'allowed', passes=1)


def attempts_of() -> tuple[Attempt, ...]:
    """Return all attempts, in the order in which the gate looks."""
    return (
        *_credentials(),
        *_methods(),
        *_bodies(),
        *_second_requests(),
        *_upgrades(),
        *_targets(),
        *_queries(),
        *_elsewhere(),
    )


def _request(
    name: str,
    group: str,
    *,
    method: str = 'GET',
    target: str = '$line',
    version: str = 'HTTP/1.1',
    headers: tuple[str, ...] = (HOST, AUTH, CLOSE),
    body: str = '',
    passes: int = 0,
) -> Attempt:
    lines = (f'{method} {target} {version}', *headers, '', body)
    return Attempt(name=name, group=group, raw='\r\n'.join(lines), passes=passes)


# --- who ----------------------------------------------------------------------


_CREDENTIALS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ('no credential', ()),
    ('empty credential', ('Authorization:',)),
    ('scheme without token', ('Authorization: Bearer',)),
    ('scheme with a blank token', ('Authorization: Bearer  ',)),
    ('hash of nothing', ('Authorization: Bearer -',)),
    ('last character wrong', ('Authorization: Bearer $wrong',)),
    ('first half of the token', ('Authorization: Bearer $half',)),
    ('one character more', ('Authorization: Bearer ${token}x',)),
    ('token in the other case', ('Authorization: Bearer $swapped',)),
    ('token with a quote', ('Authorization: Bearer "$token"',)),
    ('token without scheme', ('Authorization: $token',)),
    ('scheme in small letters', ('Authorization: bearer $token',)),
    ('scheme in capitals', ('Authorization: BEARER $token',)),
    ('another scheme', ('Authorization: Token $token',)),
    ('token as a password', ('Authorization: Basic $basic',)),
    ('two blanks before the token', ('Authorization: Bearer  $token',)),
    ('tab before the token', ('Authorization: Bearer\t$token',)),
    ('NUL after the token', (f'{AUTH}\x00',)),
    ('the header twice', (AUTH, AUTH)),
    ('right, then wrong', (AUTH, 'Authorization: Bearer $wrong')),
    ('wrong, then right', ('Authorization: Bearer $wrong', AUTH)),
    ('right, then empty', (AUTH, 'authorization:')),
    ('two in one header', ('Authorization: Bearer $wrong, Bearer $token',)),
    ('right first of two in one header', (f'{AUTH}, Bearer $wrong',)),
    ('blank before the colon', ('Authorization : Bearer $token',)),
    ('credential of a proxy', ('Proxy-Authorization: Bearer $token',)),
    ('credential by another name', ('X-Authorization: Bearer $token',)),
    (
        'underscore in the name',
        ('X_Authorization: Bearer $token', 'Authorization_: Bearer $token'),
    ),
    ('token in a cookie', ('Cookie: Authorization=Bearer%20$token',)),
)


def _credentials() -> Iterator[Attempt]:
    for name, headers in _CREDENTIALS:
        yield _request(name, attempts.CREDENTIAL, headers=(HOST, *headers, CLOSE))
    yield _request(
        'token in the query',
        attempts.CREDENTIAL,
        target='$line&access_token=$token',
        headers=(HOST, CLOSE),
    )
    yield _request(
        'token as a user of the URL',
        attempts.CREDENTIAL,
        target='http://portal:$token@$host$line',
        headers=(HOST, CLOSE),
    )


# --- how ----------------------------------------------------------------------


_METHODS = (
    *('HEAD', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'TRACE', 'CONNECT'),
    *('get', 'GETS', 'FEDERATE', 'PROPFIND'),
)


def _methods() -> Iterator[Attempt]:
    group = attempts.METHOD
    for method in _METHODS:
        yield _request(f'method {method}', group, method=method)
    yield _request('no method', group, method='')
    yield Attempt(name='HTTP/0.9', group=group, raw='GET $line\r\n\r\n')
    yield _request('HTTP/2.0 in the first line', group, version='HTTP/2.0')
    yield _request('HTTP/11.1', group, version='HTTP/11.1')
    yield _request('no version', group, version='')
    override = 'X-HTTP-Method-Override: GET'
    headers = (HOST, AUTH, override, CLOSE)
    yield _request('POST that says it is GET', group, method='POST', headers=headers)


_BODIES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ('empty body', ('Content-Length: 0',), ''),
    ('body', ('Content-Length: 5',), 'x=y&z'),
    ('chunked body', ('Transfer-Encoding: chunked',), '1\r\nx\r\n0\r\n\r\n'),
    ('empty chunked body', ('Transfer-Encoding: chunked',), '0\r\n\r\n'),
    ('two different lengths', ('Content-Length: 0', 'Content-Length: 5'), 'hello'),
    ('list of lengths', ('Content-Length: 0, 5',), 'hello'),
    ('length with a sign', ('Content-Length: +0',), ''),
    ('length in words', ('Content-Length: zero',), ''),
    ('transfer encoding nobody knows', ('Transfer-Encoding: xchunked',), '0\r\n\r\n'),
    ('transfer encoding identity', ('Transfer-Encoding: identity',), ''),
    ('chunked twice', ('Transfer-Encoding: chunked, chunked',), '0\r\n\r\n'),
    ('blank before the colon of chunked', ('Transfer-Encoding : chunked',), '0\r\n\r\n'),
    ('tab in chunked', ('Transfer-Encoding:\x0bchunked',), '0\r\n\r\n'),
    ('a body is announced', ('Expect: 100-continue', 'Content-Length: 5'), ''),
    ('expectation without a body', ('Expect: 100-continue',), ''),
)


def _bodies() -> Iterator[Attempt]:
    for name, headers, body in _BODIES:
        yield _request(name, attempts.BODY, headers=(HOST, AUTH, *headers, CLOSE), body=body)
    form = f'match[]={_EVERYTHING}'
    headers = ('Content-Type: application/x-www-form-urlencoded', f'Content-Length: {len(form)}')
    yield _request(
        'another selector in a form',
        attempts.BODY,
        method='POST',
        headers=(HOST, AUTH, *headers, CLOSE),
        body=form,
    )
    # The lengths count what $host and $token stand for, so the rest comes by another way.
    chunk = '0\r\n\r\n'
    yield _request(
        'hidden request, length first',
        attempts.BODY,
        headers=(HOST, AUTH, 'Content-Length: 5', 'Transfer-Encoding: chunked'),
        body=f'{chunk}{_HIDDEN}',
    )
    yield _request(
        'hidden request, chunked first',
        attempts.BODY,
        headers=(HOST, AUTH, 'Transfer-Encoding: chunked', 'Content-Length: 5'),
        body=f'{chunk}{_HIDDEN}',
    )
    yield _request(
        'hidden request behind a line feed',
        attempts.BODY,
        headers=(HOST, AUTH, 'X: y\nTransfer-Encoding: chunked'),
        body=f'{chunk}{_HIDDEN}',
    )


def _second_requests() -> Iterator[Attempt]:
    """Give two requests on one connection: what the first may, the second may not."""
    first = f'GET $line HTTP/1.1\r\n{HOST}\r\n{AUTH}\r\n\r\n'
    bare = f'GET $line HTTP/1.1\r\n{HOST}\r\n{CLOSE}\r\n\r\n'
    yield Attempt(
        name='allowed, then another path',
        group=attempts.BODY,
        raw=first + _HIDDEN,
        passes=1,
    )
    yield Attempt(
        name='allowed, then no credential', group=attempts.BODY, raw=first + bare, passes=1
    )
    yield Attempt(
        name='allowed, then HTTP/0.9',
        group=attempts.BODY,
        raw=first + 'GET /metrics\r\n\r\n',
        passes=1,
    )


_UPGRADES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        'upgrade to HTTP/2',
        (
            'Connection: Upgrade, HTTP2-Settings',
            'Upgrade: h2c',
            'HTTP2-Settings: AAMAAABkAAQAAP__',
        ),
    ),
    (
        'upgrade to a web socket',
        (
            'Connection: Upgrade',
            'Upgrade: websocket',
            'Sec-WebSocket-Version: 13',
            'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
        ),
    ),
    ('upgrade to TLS', ('Connection: Upgrade', 'Upgrade: TLS/1.0')),
)


def _upgrades() -> Iterator[Attempt]:
    for name, headers in _UPGRADES:
        yield _request(name, attempts.BODY, headers=(HOST, AUTH, *headers))


# --- what ---------------------------------------------------------------------


_TARGETS = (
    ('absolute URI', '$scheme://$host$line'),
    ('absolute URI of another host', 'http://127.0.0.1:9090$line'),
    ('absolute URI without host', 'http://$line'),
    ('scheme without host', 'http:$line'),
    ('two slashes', '/$line'),
    ('dot segment', '/.$line'),
    ('segment and back', '/x/..$line'),
    ('encoded segment and back', '/x/%2e%2e$line'),
    ('encoded first letter', '/$first?$query'),
    ('path in capitals', '$capitals?$query'),
    ('slash at the end of the path', '$path/?$query'),
    ('parameter of the path', '$path;x=y?$query'),
    ('encoded question mark', '$path%3F$query'),
    ('backslash', '\\$name?$query'),
    ('no slash at the begin', '$name?$query'),
    ('asterisk', '*'),
    ('host and port', '$host'),
    ('no target', ''),
    ('blank within', '$path ?$query'),
    ('tab within', '$path\t?$query'),
    ('NUL at the end', '$line\x00'),
    ('byte above 127', '$line\xff'),
    ('fragment', '$line#x'),
    ('another path behind', '$line/../../api/v1/targets'),
    ('encoded line break and a request', '$line%0d%0a%0d%0aGET%20/metrics'),
)
_QUERIES = (
    ('no query', '$path'),
    ('empty query', '$path?'),
    ('everything', f'$path?match%5B%5D={_ENCODED_EVERYTHING}'),
    ('everything besides', f'$line&match%5B%5D={_ENCODED_EVERYTHING}'),
    ('everything first', f'$path?match%5B%5D={_ENCODED_EVERYTHING}&$query'),
    ('everything besides, by the plain name', f'$line&match[]={_ENCODED_EVERYTHING}'),
    ('everything besides, by a half encoded name', f'$line&match[%5D={_ENCODED_EVERYTHING}'),
    ('everything besides, by an encoded name', f'$line&%6Datch%5B%5D={_ENCODED_EVERYTHING}'),
    ('everything behind a semicolon', f'$line;match%5B%5D={_ENCODED_EVERYTHING}'),
    ('everything behind an encoded ampersand', f'$line%26match%5B%5D={_ENCODED_EVERYTHING}'),
    ('everything behind a question mark', f'$line?match%5B%5D={_ENCODED_EVERYTHING}'),
    ('the line twice', '$line&$query'),
    ('name of the parameter not encoded', '$path?$bare'),
    ('encoded in small letters', '$path?$small'),
    ('encoded twice', '$path?$twice'),
    ('selector left out', '$path?match%5B%5D='),
    ('ampersand at the end', '$line&'),
    ('ampersand first', '$path?&$query'),
    ('blank at the end, encoded', '$line%20'),
    ('one parameter more', '$line&x=y'),
)


def _targets() -> Iterator[Attempt]:
    for name, target in _TARGETS:
        yield _request(name, attempts.TARGET, target=target)
    yield _request('no host', attempts.TARGET, headers=(AUTH, CLOSE))
    yield _request('two hosts', attempts.TARGET, headers=(HOST, 'Host: x', AUTH, CLOSE))
    headers = (HOST, AUTH, 'X-Original-URL: /metrics', 'X-Rewrite-URL: /metrics', CLOSE)
    yield _request('another path in a header', attempts.TARGET, target='/', headers=headers)


def _queries() -> Iterator[Attempt]:
    for name, target in _QUERIES:
        yield _request(name, attempts.TARGET, target=target)


# What would change something is asked for by GET, which Prometheus refuses by itself: an
# answer of Prometheus is proof enough.
_GET_PATHS = (
    *('/', '/metrics', '/graph', '/config', '/flags', '/targets', '/alerts', '/status'),
    *('/api/v1/query?query=up', '/api/v1/query_range?query=up&start=0&end=1&step=1'),
    *('/api/v1/series?match%5B%5D=up', '/api/v1/labels', '/api/v1/label/job/values'),
    *('/api/v1/targets', '/api/v1/rules', '/api/v1/alerts', '/api/v1/metadata'),
    *('/api/v1/status/config', '/api/v1/status/tsdb', '/api/v1/query_exemplars?query=up'),
    *('/api/v1/admin/tsdb/snapshot', '/api/v1/admin/tsdb/clean_tombstones'),
    *('/api/v1/read', '/api/v1/write', '/-/healthy', '/-/ready', '/-/quit', '/-/reload'),
    *('/debug/pprof/cmdline', '/consoles/', '/haproxy?stats', '/federate/../metrics'),
)


def _elsewhere() -> Iterator[Attempt]:
    for path in _GET_PATHS:
        yield _request(path, attempts.ELSEWHERE, target=path)
    nothing = 'match%5B%5D=oie_gate_check_nothing&start=1&end=1'
    for name, path, body in (
        ('query by POST', '/api/v1/query', 'query=up'),
        ('series by POST', '/api/v1/series', 'match[]=up'),
        ('deletion of nothing', f'/api/v1/admin/tsdb/delete_series?{nothing}', ''),
        ('remote read', '/api/v1/read', ''),
    ):
        headers = (
            *(HOST, AUTH, CLOSE, 'Content-Type: application/x-www-form-urlencoded'),
            f'Content-Length: {len(body)}',
        )
        yield _request(
            name, attempts.ELSEWHERE, method='POST', target=path, headers=headers, body=body
        )
