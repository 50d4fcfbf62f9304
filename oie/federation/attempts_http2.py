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

"""The attempts over HTTP/2, as lists of pseudo headers and headers."""

from collections.abc import Iterator

from oie.federation import attempts

AUTH = ('authorization', 'Bearer $token')
_PSEUDO = (
    (':method', 'GET'),
    (':scheme', '$scheme'),
    (':authority', '$host'),
    (':path', '$line'),
)
_EVERYTHING = '$line&match%5B%5D=%7B__name__%3D~%22.%2B%22%7D'
_HIDDEN = 'GET /api/v1/targets HTTP/1.1\r\nHost: $host\r\nAuthorization: Bearer $token\r\n\r\n'

Attempt = attempts.Attempt
Fields = attempts.Fields


def control() -> Attempt:
    """Return the request that is allowed."""
    return _request('the allowed request', 'allowed', passes=1)


def attempts_of() -> tuple[Attempt, ...]:
    """Return all attempts, in the order in which the gate looks."""
    return (*_credentials(), *_methods(), *_bodies(), *_malformed(), *_targets(), *_elsewhere())


def _request(
    name: str,
    group: str,
    *,
    pseudo: Fields = _PSEUDO,
    headers: Fields = (AUTH,),
    data: str | None = None,
    trailers: Fields = (),
    passes: int = 0,
) -> Attempt:
    return Attempt(
        name=name,
        group=group,
        fields=(*pseudo, *headers),
        data=data,
        trailers=trailers,
        passes=passes,
    )


def _with(name: str, value: str) -> Fields:
    """Return the usual pseudo headers, one of them with another value."""
    return tuple((each, value if each == name else usual) for each, usual in _PSEUDO)


def _without(name: str) -> Fields:
    return tuple(each for each in _PSEUDO if each[0] != name)


_WRONG = ('authorization', 'Bearer $wrong')
_CREDENTIALS: tuple[tuple[str, Fields], ...] = (
    ('no credential', ()),
    ('empty credential', (('authorization', ''),)),
    ('last character wrong', (_WRONG,)),
    ('the header twice', (AUTH, AUTH)),
    ('right, then wrong', (AUTH, _WRONG)),
    ('wrong, then right', (_WRONG, AUTH)),
    ('two in one header', (('authorization', 'Bearer $wrong, Bearer $token'),)),
    ('name in capitals', (('Authorization', 'Bearer $token'),)),
    ('scheme in small letters', (('authorization', 'bearer $token'),)),
    ('two blanks before the token', (('authorization', 'Bearer  $token'),)),
    ('token in a cookie', (('cookie', 'authorization=$token'),)),
    ('credential of a proxy', (('proxy-authorization', 'Bearer $token'),)),
)


def _credentials() -> Iterator[Attempt]:
    for name, headers in _CREDENTIALS:
        yield _request(name, attempts.CREDENTIAL, headers=headers)
    yield _request(
        'credential after the data', attempts.CREDENTIAL, headers=(), data='', trailers=(AUTH,)
    )


def _methods() -> Iterator[Attempt]:
    for method in ('HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'TRACE', 'get', 'FEDERATE', ''):
        yield _request(
            f'method {method or "left empty"}', attempts.METHOD, pseudo=_with(':method', method)
        )
    yield _request(
        'CONNECT', attempts.METHOD, pseudo=((':method', 'CONNECT'), (':authority', '$host'))
    )
    yield _request(
        'CONNECT with a protocol',
        attempts.METHOD,
        pseudo=(*_with(':method', 'CONNECT'), (':protocol', 'websocket')),
    )
    yield _request(
        'request in the method',
        attempts.METHOD,
        pseudo=_with(':method', 'GET /metrics HTTP/1.1\r\nx: y\r\n\r\nGET'),
    )


_LENGTH = 'content-length'
_BODIES: tuple[tuple[str, Fields, str | None], ...] = (
    ('empty body with its length', ((_LENGTH, '0'),), None),
    ('body with its length', ((_LENGTH, '5'),), 'x=y&z'),
    ('body without a length', (), 'x=y&z'),
    ('body longer than it says', ((_LENGTH, '0'),), _HIDDEN),
    ('body shorter than it says', ((_LENGTH, '500'),), 'x'),
    ('two lengths', ((_LENGTH, '0'), (_LENGTH, '5')), 'hello'),
    ('chunked', (('transfer-encoding', 'chunked'),), f'0\r\n\r\n{_HIDDEN}'),
    ('upgrade', (('upgrade', 'h2c'), ('connection', 'upgrade')), None),
    ('connection header', (('connection', 'close'),), None),
    ('te other than trailers', (('te', 'gzip'),), None),
    ('a body is announced', (('expect', '100-continue'),), 'x'),
)


def _bodies() -> Iterator[Attempt]:
    for name, headers, data in _BODIES:
        yield _request(name, attempts.BODY, headers=(AUTH, *headers), data=data)
    yield _request('empty body, then trailers', attempts.BODY, data='', trailers=(('x', 'y'),))
    # Nothing is hidden in it, so a gate may take it for the request that it is.
    yield _request('empty body that nothing announces', attempts.BODY, data='', passes=1)
    usual = (*_PSEUDO, AUTH)
    for name, data, is_whole in (
        ('body that comes late', _HIDDEN, True),
        ('body that is never complete', 'x', False),
        ('end that never comes', None, False),
    ):
        yield Attempt(
            name=name,
            group=attempts.BODY,
            fields=usual,
            data=data,
            pause=0.3,
            has_end=is_whole,
        )


def _malformed() -> Iterator[Attempt]:
    group = attempts.BODY
    for name in (':method', ':scheme', ':path'):
        yield _request(f'no {name}', group, pseudo=_without(name))
    twice = (':path', '/api/v1/targets')
    yield _request('two paths, the allowed one first', group, pseudo=(*_PSEUDO, twice))
    yield _request('two paths, the allowed one last', group, pseudo=(twice, *_PSEUDO))
    yield _request('two methods', group, pseudo=(*_PSEUDO, (':method', 'POST')))
    yield _request('path after a header', group, headers=(AUTH, (':path', '/api/v1/targets')))
    yield _request('pseudo header of answers', group, pseudo=(*_PSEUDO, (':status', '200')))
    yield _request('pseudo header nobody knows', group, pseudo=(*_PSEUDO, (':x', 'y')))
    yield _request('two authorities', group, pseudo=(*_PSEUDO, (':authority', 'x')))
    yield _request('request in a header', group, headers=(AUTH, ('x', f'y\r\n\r\n{_HIDDEN}')))
    yield _request('header line in a header', group, headers=(('x', f'y\r\n{AUTH[0]}: $token'),))
    yield _request('colon in the name of a header', group, headers=(AUTH, ('x: y', 'z')))
    yield _request('NUL in a header', group, headers=(AUTH, ('x', 'y\x00z')))


_TARGETS = (
    ('everything besides', _EVERYTHING),
    ('the line twice', '$line&$query'),
    ('one parameter more', '$line&x=y'),
    ('name of the parameter not encoded', '$path?$bare'),
    ('encoded in small letters', '$path?$small'),
    ('two slashes', '/$line'),
    ('segment and back', '/x/..$line'),
    ('encoded first letter', '/$first?$query'),
    ('slash at the end of the path', '$path/?$query'),
    ('no slash at the begin', '$name?$query'),
    ('absolute URI', '$scheme://$host$line'),
    ('absolute URI of another host', 'http://127.0.0.1:9090$line'),
    ('fragment', '$line#x'),
    ('empty path', ''),
    ('asterisk', '*'),
    ('request in the path', f'$line HTTP/1.1\r\n\r\n{_HIDDEN}'),
    ('blank in the path', '$line HTTP/1.1'),
)


def _targets() -> Iterator[Attempt]:
    for name, path in _TARGETS:
        yield _request(name, attempts.TARGET, pseudo=_with(':path', path))
    yield _request(
        'path in the scheme',
        attempts.TARGET,
        pseudo=(
            *((':method', 'GET'), (':scheme', 'http://x/metrics?')),
            *((':authority', '$host'), (':path', '/')),
        ),
    )
    yield _request(
        'path in the authority',
        attempts.TARGET,
        pseudo=(
            *((':method', 'GET'), (':scheme', '$scheme')),
            *((':authority', '$host/metrics?'), (':path', '/')),
        ),
    )


_PATHS = (
    *('/', '/metrics', '/config', '/api/v1/query?query=up', '/api/v1/targets'),
    *('/api/v1/status/config', '/api/v1/admin/tsdb/snapshot', '/-/quit', '/-/reload'),
    *('/api/v1/read', '/debug/pprof/cmdline'),
)


def _elsewhere() -> Iterator[Attempt]:
    for path in _PATHS:
        yield _request(path, attempts.ELSEWHERE, pseudo=_with(':path', path))
