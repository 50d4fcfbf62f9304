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


"""Gets the document behind a URL or a path, whole and in time, or says why not.

Meant for the main thread of a short-lived process: see ``deadlines``.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import hashlib
import importlib.metadata
import re

import requests

from oie import exceptions
from oie.feeds import answers
from oie.feeds import causes
from oie.feeds import deadlines
from oie.feeds import documents
from oie.feeds import local_files
from oie.feeds import transport
from oie.feeds import urls

MOST_REDIRECTS = 3

Document = documents.Document
Refused = documents.Refused
Request = documents.Request
deadline = deadlines.deadline

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def fetch(request: Request) -> Document:
    """Return the document behind a URL.

    :raises FeedError: for whatever reason there is none, in one line that names the URL without
        its query; Refused, a FeedError, when the server said no
    """
    trail = [request.url]
    with _naming(trail), deadline(request.timeout):
        if urls.is_file(request.url):
            return _read_file_url(request)
        return _follow(request, trail)


def read_file(path: str, max_bytes: int, etag: str = '') -> Document:
    """Return the content of a file, or of the files in a directory with a line break between.

    The ETag is a digest of the content: times and inodes may stay the same where it does not,
    and to read a list costs less than the start of the process that does it.

    :param etag: of the document that is there already, or empty
    :raises FeedError: not readable, not regular, too large, or written to meanwhile
    """
    body = local_files.read(path, max_bytes)
    found = hashlib.sha256(body).hexdigest()
    if found == etag:
        return Document(body=b'', etag=found, is_unchanged=True)
    return Document(body=body, etag=found)


def _read_file_url(request: Request) -> Document:
    if not request.allow_file_urls:
        raise exceptions.FeedError('a file of this host; set allow_file_urls')
    return read_file(urls.file_path(request.url), request.max_bytes, request.etag)


def _follow(request: Request, trail: list[str]) -> Document:
    """Return the document at the end of redirects; each URL on the way joins the trail."""
    while len(trail) <= MOST_REDIRECTS + 1:
        urls.check(trail[-1], allow_plain_http=request.allow_plain_http)
        with _answer(trail[-1], request) as answer:
            if answer.status_code not in _REDIRECTS:
                return answers.document(answer, request)
            trail.append(urls.redirected(trail[-1], answer.headers.get('Location', '')))
    raise exceptions.FeedError(f'more than {MOST_REDIRECTS} redirects lead here; check url')


@contextlib.contextmanager
def _answer(url: str, request: Request) -> Iterator[requests.Response]:
    limits = transport.Limits(
        seconds=request.timeout,
        max_bytes=request.max_bytes,
        allow_private_targets=request.allow_private_targets,
    )
    headers = _headers(url, request)
    try:
        with transport.get(
            url, headers, limits=limits, ca_file=request.ca_file, proxy=request.proxy
        ) as answer:
            yield answer
    except causes.FAILURES as exc:
        # Not "from exc": the text of these exceptions holds the query.
        raise exceptions.FeedError(causes.told(exc)) from None


def _headers(url: str, request: Request) -> dict[str, str]:
    found = {
        'User-Agent': _user_agent(),
        'Accept': '*/*',
        'Accept-Encoding': 'gzip, identity',
        # One question is all; and so the end of the body shows (transport).
        'Connection': 'close',
        'If-None-Match': answers.validator(request.etag),
        'If-Modified-Since': answers.validator(request.last_modified),
    }
    secret = _secret(request)
    if secret and urls.server(url) == urls.server(request.url):
        found[request.secret_header] = secret
    return {name: value for name, value in found.items() if value}


def _user_agent() -> str:
    about = importlib.metadata.metadata('oie')
    home = about['Home-page'] if 'Home-page' in about else ''
    name = f'oie/{about["Version"]}'
    return f'{name} (+{home})' if home.startswith('http') else name


def _secret(request: Request) -> str:
    if not request.secret_file and not request.secret_header:
        return ''
    if not request.secret_file or not _HEADER_NAME.fullmatch(request.secret_header):
        raise exceptions.FeedError(
            'a secret needs both: secret_file, and secret_header, the name of a header'
        )
    return local_files.read_secret(request.secret_file)


@contextlib.contextmanager
def _naming(trail: Sequence[str]) -> Iterator[None]:
    """Make errors name the URL that failed, the last one asked."""
    try:
        yield
    except Refused as exc:
        raise Refused(f'{urls.shown(trail[-1])}: {exc}', exc.retry_after) from exc
    except exceptions.FeedError as exc:
        raise exceptions.FeedError(f'{urls.shown(trail[-1])}: {exc}') from exc
