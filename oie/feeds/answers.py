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


"""Turns the answer of a web server into a document, whole and of the size allowed, or refuses it.

"Whole" is what the server says of the length: a list that lacks its second
half would be as good as any other to everybody after us.
"""

import email.utils
import http
import re
import time

import requests

from oie import exceptions
from oie.feeds import documents
from oie.feeds import unpack

LONGEST_RETRY_AFTER = 86400.0

_CHUNK = 2**16
_LONGEST_VALIDATOR = 1024
_HTML = frozenset({'text/html', 'application/xhtml+xml'})
_LATER = frozenset({429, 503})
_HINTS = {
    401: 'check secret_header and secret_file',
    403: 'check secret_header and secret_file',
    404: 'check url',
    410: 'check url',
    429: 'raise refresh, or ask a mirror',
}


def document(answer: requests.Response, request: documents.Request) -> documents.Document:
    """Return the document of an answer whose body was not read yet.

    :raises FeedError: not all of a list; Refused when there is none, or one that is too large
    :raises causes.FAILURES: the body broke off
    """
    etag = validator(answer.headers.get('ETag', ''))
    last_modified = validator(answer.headers.get('Last-Modified', ''))
    if answer.status_code == 304 and (request.etag or request.last_modified):
        return documents.Document(
            body=b'',
            etag=etag or request.etag,
            last_modified=last_modified or request.last_modified,
            is_unchanged=True,
        )
    if answer.status_code != 200:
        raise _refusal(answer)
    if _media_type(answer) in _HTML:
        raise documents.Refused('a web page (HTML) came in place of a list; check url')
    body = _body(answer, request)
    return documents.Document(body=body, etag=etag, last_modified=last_modified)


def validator(text: str) -> str:
    """Return an ETag or a date that is fit to be sent, or nothing."""
    is_fit = len(text) <= _LONGEST_VALIDATOR and text.isascii() and text.isprintable()
    return text.strip() if is_fit else ''


def parse_retry_after(text: str, now: float) -> float | None:
    """Return in how many seconds a server wants to be asked again, at most a day.

    None: the header is missing, or nonsense.

    :param text: seconds, or a date (RFC 9110, 10.2.3)
    :param now: seconds since the epoch
    """
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), LONGEST_RETRY_AFTER)
    try:
        until = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(until - now, 0.0), LONGEST_RETRY_AFTER)


def _refusal(answer: requests.Response) -> documents.Refused:
    status = answer.status_code
    try:
        # The words of the standard: those of the server are foreign text.
        name = f'{status} {http.HTTPStatus(status).phrase}'
    except ValueError:
        name = str(status)
    hint = _HINTS.get(status, 'the next fetch tries again')
    retry_after = None
    if status in _LATER:
        retry_after = parse_retry_after(answer.headers.get('Retry-After', ''), time.time())
    return documents.Refused(f'the answer is {name}; {hint}', retry_after)


def _media_type(answer: requests.Response) -> str:
    return answer.headers.get('Content-Type', '').partition(';')[0].strip().lower()


def _body(answer: requests.Response, request: documents.Request) -> bytes:
    announced = _announced_length(answer)
    if announced is not None and announced > request.max_bytes:
        raise _too_large(request)
    encoding = answer.headers.get('Content-Encoding', '')
    unpacker = unpack.Unpacker(encoding, request.max_unpacked_bytes)
    received = 0
    while piece := answer.raw.read(_CHUNK, decode_content=False):
        received += len(piece)
        if received > request.max_bytes:
            raise _too_large(request)
        unpacker.feed(piece)
    if announced is not None and received != announced:
        raise exceptions.FeedError(f'the body broke off: {received} of {announced} bytes came')
    return unpacker.finish()


def _announced_length(answer: requests.Response) -> int | None:
    """Return how long the body is to be; None for one in chunks, which tells its end itself.

    :raises FeedError: it merely stops, so that nobody can tell whether it is all
    """
    transfer = answer.headers.get('Transfer-Encoding', '').strip().lower()
    length = answer.headers.get('Content-Length', '').strip()
    if transfer == 'chunked':
        return None
    if transfer or not re.fullmatch('[0-9]{1,15}', length):
        raise exceptions.FeedError(
            'nothing tells where the body ends; the server must send Content-Length, or chunks'
        )
    return int(length)


def _too_large(request: documents.Request) -> documents.Refused:
    return documents.Refused(
        f'larger than {request.max_bytes} bytes as transferred; raise max_bytes if the list '
        'rightly is'
    )
