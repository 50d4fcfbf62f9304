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

"""What an attempt to get past the gate is, and what it is filled in with.

No attempt changes anything behind a gate that lets it through: what would stop
Prometheus or delete series is asked for by a harmless method, or of nothing.
"""

import base64
import dataclasses
import re
import string

# Groups, in the order in which the gate looks.
CREDENTIAL, METHOD, BODY, TARGET, ELSEWHERE = 'credential', 'method', 'body', 'target', 'elsewhere'

Fields = tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One request, or bytes that look like one to somebody.

    :ivar passes: how many answers from behind the gate are right: of two requests on one
        connection the first may be an allowed one
    :ivar raw: what goes over the connection, for HTTP/1.1
    :ivar fields: pseudo headers and headers in their order, for HTTP/2
    :ivar data: what follows the headers; None: they end the request, for HTTP/2
    :ivar trailers: headers after the data, for HTTP/2
    :ivar pause: seconds between the headers and the data, for HTTP/2
    :ivar has_end: whether the request ends at all, for HTTP/2
    """

    name: str
    group: str
    passes: int = 0
    raw: str = ''
    fields: Fields = ()
    data: str | None = None
    trailers: Fields = ()
    pause: float = 0.0
    has_end: bool = True

    @property
    def protocol(self) -> str:
        """What it is spoken in."""
        return 'HTTP/1.1' if self.raw else 'HTTP/2'

    @property
    def needs_token(self) -> bool:
        """Whether it can only be made by whom has a valid token."""
        texts = (self.raw, *(value for _, value in self.fields))
        return any(_OF_A_TOKEN.search(text) for text in texts)


_OF_A_TOKEN = re.compile(r'\$\{?(?:token|wrong|half|swapped|basic)\b')


@dataclasses.dataclass(frozen=True, slots=True)
class Filling:
    """What stands for ``$line``, ``$token`` and so on.

    :ivar scheme: http or https
    :ivar host: host and port of the gate, as a Host header has it
    :ivar line: path and query that are allowed
    :ivar token: a valid one, or an empty text
    """

    scheme: str
    host: str
    line: str
    token: str = ''

    def fill(self, text: str) -> str:
        """Return a text with every word in the place of its name."""
        return string.Template(text).substitute(self._words())

    def fill_fields(self, fields: Fields) -> Fields:
        """Return headers with every word in the place of its name."""
        return tuple((self.fill(name), self.fill(value)) for name, value in fields)

    def _words(self) -> dict[str, str]:
        path, _, query = self.line.partition('?')
        token = self.token
        return {
            'scheme': self.scheme,
            'host': self.host,
            'line': self.line,
            'path': path,
            'query': query,
            # The same parameter and value, its name and quotes as people write them.
            'bare': query.replace('%5B%5D', '[]'),
            'small': query.replace('%5B', '%5b').replace('%5D', '%5d'),
            'twice': query.replace('%', '%25'),
            'name': path.lstrip('/'),
            'first': f'%{ord(path[1:2] or "/"):02x}{path[2:]}',
            'capitals': path.upper(),
            'token': token,
            'wrong': token[:-1] + ('A' if token[-1:] != 'A' else 'B'),
            'half': token[: len(token) // 2],
            'swapped': token.swapcase(),
            'basic': base64.b64encode(f'portal:{token}'.encode('ascii')).decode('ascii'),
        }
