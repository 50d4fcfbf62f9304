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

"""A web configuration file with all that it names, and what a welcome client needs.

The file is one that exporter-toolkit of Debian 12 reads as well as we do: so without
``client_allowed_sans`` and ``rate_limit``, which it does not know yet.
"""

import base64
import functools
import http.client
import pathlib
import ssl
from typing import Any

import bcrypt
import trustme

USER, PASSWORD = 'prometheus', 'correct horse'
CLIENT = 'prometheus.example.org'
# What htpasswd and our documentation take: a check costs 0.1 s.
COST = 10
TEXT = """\
tls_server_config:
  cert_file: server.pem
  key_file: server.key
  min_version: TLS12
{mutual}http_server_config:
  http2: false
  headers:
    Strict-Transport-Security: max-age=31536000
basic_auth_users:
  {user}: {hashed}
"""
MUTUAL = """\
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.pem
"""


class Site:
    """A directory with the files of a server and of its client.

    :param is_mutual: clients show a certificate, too
    :param cost: of the password's hash
    """

    def __init__(
        self, directory: pathlib.Path, *, is_mutual: bool = True, cost: int = COST
    ) -> None:
        self.directory = directory
        self.is_mutual = is_mutual
        hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(cost)).decode()
        self._authority = trustme.CA(organization_name='oie')
        self.renew()
        self._write_pair('client', CLIENT)
        self.write('ca.pem', self._authority.cert_pem.bytes())
        mutual = MUTUAL if is_mutual else ''
        self.text = TEXT.format(user=USER, hashed=hashed, mutual=mutual)
        self.write(self.config.name, self.text.encode())

    @property
    def config(self) -> pathlib.Path:
        """The web configuration file."""
        return self.directory / 'web.yml'

    @property
    def headers(self) -> dict[str, str]:
        """What shows that a request comes from the user."""
        return authorization(USER, PASSWORD)

    @functools.cached_property
    def context(self) -> ssl.SSLContext:
        """What a client trusts, and its certificate."""
        made = ssl.create_default_context(cafile=self.directory / 'ca.pem')
        made.load_cert_chain(self.directory / 'client.pem', self.directory / 'client.key')
        return made

    def connection(self, port: int, timeout: float = 5.0) -> http.client.HTTPSConnection:
        """Return a connection of a client that trusts the server, and is trusted."""
        return http.client.HTTPSConnection(
            '127.0.0.1', port, timeout=timeout, context=self.context
        )

    def scraping(self) -> dict[str, Any]:
        """Return what a scrape job of Prometheus needs beside its targets."""
        return {
            'scheme': 'https',
            'basic_auth': {'username': USER, 'password': PASSWORD},
            'tls_config': {
                'ca_file': str(self.directory / 'ca.pem'),
                'cert_file': str(self.directory / 'client.pem'),
                'key_file': str(self.directory / 'client.key'),
            },
        }

    def renew(self) -> None:
        """Give the server another certificate, for another key."""
        self._write_pair('server', '127.0.0.1', 'localhost')

    def write(self, name: str, content: bytes, mode: int = 0o600) -> pathlib.Path:
        """Replace a file as careful programs do."""
        path = self.directory / name
        new = path.with_suffix('.new')
        new.write_bytes(content)
        new.chmod(mode)
        return new.replace(path)

    def _write_pair(self, name: str, *identities: str) -> None:
        leaf = self._authority.issue_cert(*identities)
        self.write(f'{name}.key', leaf.private_key_pem.bytes())
        self.write(f'{name}.pem', b''.join(blob.bytes() for blob in leaf.cert_chain_pems))


def authorization(user: str, password: str) -> dict[str, str]:
    """Return the header with a user and a password. Source: RFC 7617."""
    encoded = base64.b64encode(f'{user}:{password}'.encode()).decode()
    return {'Authorization': f'Basic {encoded}'}
