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


"""Which URLs may be asked, where a redirect leads, and how messages name them."""

import urllib.parse
import urllib.request

from oie import exceptions

_PORTS = {'http': 80, 'https': 443}


def check(url: str, *, allow_plain_http: bool) -> None:
    """Check that a URL is one to ask a web server for.

    :raises FeedError: it is not, it holds a password, or it is http and that is not allowed
    """
    parts = _split(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise exceptions.FeedError('no URL of a list; it must begin with https://')
    if '@' in parts.netloc:
        raise exceptions.FeedError('a password stands in the URL; use secret_file')
    if parts.scheme == 'http' and not allow_plain_http:
        raise exceptions.FeedError(
            'without TLS anybody on the way can change a list; use https, or set allow_plain_http'
        )


def server(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port.

    :raises FeedError: it is no URL
    """
    parts = _split(url)
    return parts.scheme, parts.hostname or '', parts.port or _PORTS.get(parts.scheme, 0)


def redirected(url: str, location: str) -> str:
    """Return where a redirect leads.

    :param url: who redirects
    :param location: the header Location
    :raises FeedError: to nowhere, away from TLS, or away from the web
    """
    if not location or not location.isascii() or not location.isprintable():
        raise exceptions.FeedError('it redirects to nowhere')
    _split(location)
    found = urllib.parse.urljoin(url, location)
    before, after = _split(url).scheme, _split(found).scheme
    if after not in _PORTS:
        raise exceptions.FeedError('it redirects to something else than a web server')
    if before == 'https' and after == 'http':
        raise exceptions.FeedError(f'it redirects away from TLS, to {shown(found)}')
    return found


def is_file(url: str) -> bool:
    """Return whether a URL names a file."""
    return url[:5].lower() == 'file:'


def file_path(url: str) -> str:
    """Return the path in the URL of a file of this host.

    :raises FeedError: it is a file of another host
    """
    parts = _split(url)
    if parts.netloc not in ('', 'localhost') or not parts.path.startswith('/'):
        raise exceptions.FeedError('no file of this host; write file:///path')
    return urllib.request.url2pathname(parts.path)


def shown(url: str) -> str:
    """Return a URL as messages name it: without query and user, which may hold keys."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return 'the URL'
    host = parts.netloc.rpartition('@')[2]
    return repr(f'{parts.scheme}://{host}{parts.path}'[:200])[1:-1]


def _split(url: str) -> urllib.parse.SplitResult:
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port
    except ValueError:
        # Not "from exc": the text of the exception may hold a part of the query.
        raise exceptions.FeedError('host or port in the URL are none') from None
    return parts
