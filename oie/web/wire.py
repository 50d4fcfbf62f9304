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

"""Bytes -> requests, responses -> bytes, by h11 and more strictly than h11 alone.

h11 0.16 also takes lines that end in LF alone or are folded, control characters,
versions like 0.9 and 7.3, heads of any size that come in one piece, a length
beside chunks, and equal lengths twice or in a list. None of our clients sends
such, and what two parsers read differently is how requests are smuggled.
"""

import email.utils
import http
import re
from typing import cast

import h11

from oie.web import limits as web_limits
from oie.web import messages

_HEAD_END = re.compile(rb'\n\r?\n')
_STRICT_HEAD = re.compile(
    rb'[!-~]+ [!-~]+ HTTP/1\.[01]\r\n'
    rb"(?:[-!#$%&'*+.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*\r\n)*\r\n"
)
_FRAMING = re.compile(rb'\n(?:content-length|transfer-encoding):([^\r]*)', re.IGNORECASE)
_SCHEME_AND_HOST = re.compile(r'^https?://[^/?]*', re.IGNORECASE)


def head_size(buffer: bytearray, limits: web_limits.Limits) -> int:
    """Return the length of the head that the buffer begins with, 0 while it is incomplete.

    :raises RequestError: it is too long already
    """
    line_bytes = limits.request_line_bytes
    if len(buffer) > line_bytes and buffer.find(b'\n', 0, line_bytes + 2) < 0:
        raise messages.RequestError(414, reason='head_too_large')
    end = _HEAD_END.search(buffer, 0, limits.head_bytes)
    if end is None and len(buffer) >= limits.head_bytes:
        raise messages.RequestError(431, reason='head_too_large')
    return end.end() if end else 0


def parse_head(parser: h11.Connection, head: bytes, limits: web_limits.Limits) -> h11.Request:
    """Return what the head says.

    :raises RequestError: it is malformed or has too many lines
    """
    if head.count(b'\n') - 2 > limits.head_lines:
        raise messages.RequestError(431, reason='head_too_large')
    framing = _FRAMING.findall(head)
    if not _STRICT_HEAD.fullmatch(head) or len(framing) > 1 or b',' in b''.join(framing):
        raise messages.RequestError(400)
    parser.receive_data(head)
    try:
        # A whole head gives a request or an error, never anything else.
        return cast(h11.Request, parser.next_event())
    except h11.RemoteProtocolError as exc:
        raise messages.RequestError(exc.error_status_hint) from exc


def body_length(head: h11.Request, limits: web_limits.Limits) -> int:
    """Return how many bytes follow the head.

    :raises RequestError: they are too many or come in chunks
    """
    headers = dict(head.headers)
    if b'transfer-encoding' in headers:
        raise messages.RequestError(411)
    length = int(headers.get(b'content-length', b'0'))
    if length > limits.body_bytes:
        raise messages.RequestError(413, reason='body_too_large')
    return length


def parse_request(
    parser: h11.Connection, head: h11.Request, body: bytes, peer: messages.Peer
) -> messages.Request:
    """Return the whole request; the parser, too, has then seen where it ends."""
    if body:
        parser.receive_data(body)
    while not isinstance(parser.next_event(), h11.EndOfMessage):
        pass
    headers: dict[str, str] = {}
    for raw_name, raw_value in head.headers:
        name, value = raw_name.decode('ascii'), raw_value.decode('latin-1')
        headers[name] = f'{headers[name]}, {value}' if name in headers else value
    target = _SCHEME_AND_HOST.sub('', head.target.decode('ascii'))
    path, _, query = target.partition('?')
    return messages.Request(
        method=head.method.decode('ascii'),
        path=path or '/',
        query=query,
        headers=headers,
        body=body,
        peer=peer,
    )


def encode_head(
    response: messages.Response, more: tuple[tuple[str, str], ...] = ()
) -> h11.Response:
    """Return the head of an answer, with more headers than its own."""
    headers = [('Date', email.utils.formatdate(usegmt=True)), ('Server', 'oie')]
    if response.status != 204:
        headers.append(('Content-Type', response.content_type))
        headers.append(('Content-Length', str(len(response.body))))
    return h11.Response(
        status_code=response.status,
        headers=[*headers, *response.headers, *more],
        reason=http.HTTPStatus(response.status).phrase,
    )
