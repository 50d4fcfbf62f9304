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

"""What a handler gets and what it gives."""

from collections.abc import Mapping
import dataclasses
import http
import re
import urllib.parse

from oie import exceptions

MAX_QUERY_FIELDS = 100
_HEADER_NAME = re.compile(r'[A-Za-z][A-Za-z0-9-]*')
_HEADER_VALUE = re.compile(r'[!-~]([ -~]*[!-~])?')
_WEIGHT_ZERO = re.compile(r'q=0(\.0*)?')


class RequestError(exceptions.OieError):
    """The request is at fault; a handler may raise it too. The text is what the client reads."""

    def __init__(self, status: int, text: str = '', *, reason: str = 'bad_request') -> None:
        super().__init__(text or http.HTTPStatus(status).phrase)
        self.status = status
        self.reason = reason


class HandshakeError(exceptions.OieError):
    """TLS with a peer failed; ``is_plain`` says that it speaks plain HTTP."""

    def __init__(self, text: str, *, is_plain: bool = False) -> None:
        super().__init__(text)
        self.is_plain = is_plain


@dataclasses.dataclass(frozen=True, slots=True)
class Peer:
    """Who asks; the kernel vouches for all but the address, on unix sockets only.

    :ivar groups: supplementary groups, none where it has more than the kernel tells us
    """

    address: str
    pid: int | None = None
    uid: int | None = None
    gid: int | None = None
    groups: frozenset[int] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One whole request within the limits; the names of its headers are in lower case."""

    method: str
    path: str
    query: str = ''
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    body: bytes = b''
    peer: Peer = Peer('')

    def parameters(self) -> dict[str, list[str]]:
        """Return the values of every field of the query.

        :raises RequestError: there are more fields than anybody needs
        """
        try:
            return urllib.parse.parse_qs(
                self.query, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS
            )
        except ValueError as exc:
            raise RequestError(400, f'more than {MAX_QUERY_FIELDS} fields in the query') from exc

    def accepts_gzip(self) -> bool:
        """Return whether the client asks for gzip, and not with a weight of 0."""
        for item in self.headers.get('accept-encoding', '').lower().split(','):
            coding, _, weight = item.replace(' ', '').partition(';')
            if coding == 'gzip':
                return not _WEIGHT_ZERO.fullmatch(weight)
        return False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """An answer; its body is sent as it is.

    :raises ValueError: the status is unknown, or a header would break out of its line
    """

    status: int = 200
    body: bytes = b''
    content_type: str = 'text/plain; charset=utf-8'
    headers: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        http.HTTPStatus(self.status)
        for name, value in (('Content-Type', self.content_type), *self.headers):
            if not (_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value)):
                raise ValueError(f'not a header: {name!r}: {value!r}')


def sentence(status: int, text: str = '', *headers: tuple[str, str]) -> Response:
    """Return a short text, by default the usual phrase for the status."""
    line = f'{text or http.HTTPStatus(status).phrase}\n'
    return Response(status=status, body=line.encode(errors='replace'), headers=headers)
