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

"""A connection to the gate under test: to where, over TLS or not, how long it is waited for."""

import contextlib
import dataclasses
import socket
import ssl
import urllib.parse

from oie import exceptions

# The gate ends a request that is not complete after 5 seconds.
SECONDS = 6.0
LONGEST_ANSWER = 2**28


@dataclasses.dataclass(frozen=True, slots=True)
class Gate:
    """Where the gate under test is.

    :ivar context: what is trusted over TLS; None: no TLS
    """

    host: str
    port: int
    context: ssl.SSLContext | None = None

    @property
    def scheme(self) -> str:
        """``http`` or ``https``."""
        return 'http' if self.context is None else 'https'

    @property
    def authority(self) -> str:
        """Host and port as a Host header has them."""
        return f'[{self.host}]:{self.port}' if ':' in self.host else f'{self.host}:{self.port}'

    def connect(self, protocol: str) -> socket.socket:
        """Return a connection on which a protocol of ALPN is spoken.

        :raises OSError: there is nobody, or it is not who it says
        """
        plain = socket.create_connection((self.host, self.port), SECONDS)
        if self.context is None:
            return plain
        self.context.set_alpn_protocols([protocol])
        try:
            secured = self.context.wrap_socket(plain, server_hostname=self.host)
        except OSError:
            plain.close()
            raise
        if protocol != (secured.selected_alpn_protocol() or 'http/1.1'):
            secured.close()
            raise ConnectionError(f'the gate does not speak {protocol} over TLS')
        return secured


def gate_of(url: str, ca: str = '') -> Gate:
    """Return where a URL leads to.

    :param ca: file with the authorities to trust; empty: those of the system
    :raises ConfigError: another scheme, no host, more than host and port, a file that is none
    """
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise exceptions.ConfigError(f'{url!r} is no URL: {exc}') from exc
    if parts.scheme not in ('http', 'https') or not parts.hostname:
        raise exceptions.ConfigError(f'{url!r} is not http://HOST:PORT or https://HOST:PORT')
    if parts.username is not None or parts.path not in ('', '/') or parts.query or parts.fragment:
        raise exceptions.ConfigError(
            'the URL names host and port only; what is asked for comes from [gate] selectors'
        )
    if parts.scheme == 'http':
        return Gate(parts.hostname, port or 80)
    return Gate(parts.hostname, port or 443, _context(ca))


def _context(ca: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca or None)
    except (OSError, ssl.SSLError) as exc:
        raise exceptions.ConfigError(f'--ca {ca}: cannot be read as PEM: {exc}') from exc


def read(connection: socket.socket, size: int = 2**16) -> bytes:
    """Return the next bytes, none at the end or when nothing more comes in time."""
    with contextlib.suppress(OSError):
        return connection.recv(size)
    return b''
