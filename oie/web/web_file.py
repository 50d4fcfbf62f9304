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

"""A web configuration file -> what it says: the format of Prometheus' exporter-toolkit.

Source: docs/web-configuration.md and web/tls_config.go of
https://github.com/prometheus/exporter-toolkit. What is stricter here than there:
a TLS section without a certificate is an error instead of plain HTTP, allowed
names need verified certificates, and secrets must not be readable by all.
"""

from collections.abc import Mapping
import dataclasses
import os
import re
import stat
from typing import Any

import yaml

from oie import exceptions
from oie.config import yaml_values

MOST_BYTES = 1024 * 1024
HEADERS: Mapping[str, tuple[str, ...]] = {
    'Content-Security-Policy': (),
    'Strict-Transport-Security': (),
    'X-Content-Type-Options': ('nosniff',),
    'X-Frame-Options': ('deny', 'sameorigin'),
    'X-XSS-Protection': (),
}
CLIENT_AUTH_TYPES = (
    'NoClientCert',
    'RequestClientCert',
    'VerifyClientCertIfGiven',
    'RequireAndVerifyClientCert',
)
VERIFYING = CLIENT_AUTH_TYPES[2:]
VERSIONS = ('TLS10', 'TLS11', 'TLS12', 'TLS13')
# What Python and Go call by different names; those of TLS 1.3 are not a matter of choice.
CIPHERS: Mapping[str, str] = {
    'TLS_AES_128_GCM_SHA256': '',
    'TLS_AES_256_GCM_SHA384': '',
    'TLS_CHACHA20_POLY1305_SHA256': '',
    'TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA': 'ECDHE-ECDSA-AES128-SHA',
    'TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256': 'ECDHE-ECDSA-AES128-GCM-SHA256',
    'TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA': 'ECDHE-ECDSA-AES256-SHA',
    'TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384': 'ECDHE-ECDSA-AES256-GCM-SHA384',
    'TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256': 'ECDHE-ECDSA-CHACHA20-POLY1305',
    'TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA': 'ECDHE-RSA-AES128-SHA',
    'TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256': 'ECDHE-RSA-AES128-GCM-SHA256',
    'TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA': 'ECDHE-RSA-AES256-SHA',
    'TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384': 'ECDHE-RSA-AES256-GCM-SHA384',
    'TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256': 'ECDHE-RSA-CHACHA20-POLY1305',
}
CURVES: Mapping[str, str] = {
    'CurveP256': 'prime256v1',
    'CurveP384': 'secp384r1',
    'CurveP521': 'secp521r1',
    'X25519': 'X25519',
}
# A cost of 10 takes 0.1 s; each step doubles it, and all of it is ours to pay.
MOST_COST = 14
_HASH = re.compile(r'\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}')
_HEADER_VALUE = re.compile(r'[!-~]([ -~]*[!-~])?')


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """The section ``tls_server_config``; PEM texts are bytes, read already."""

    cert: bytes
    key: bytes = dataclasses.field(repr=False)
    client_ca: bytes = b''
    client_auth_type: str = 'NoClientCert'
    client_allowed_sans: tuple[str, ...] = ()
    min_version: str = 'TLS12'
    max_version: str = 'TLS13'
    cipher_suites: tuple[str, ...] = ()
    prefer_server_cipher_suites: bool = True
    curve_preferences: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class RateLimit:
    """One request in so many seconds, and so many at once."""

    interval: float
    burst: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WebFile:
    """What the file says; ``notes`` are sentences for the log."""

    tls: Tls | None = None
    headers: tuple[tuple[str, str], ...] = ()
    users: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    rate_limit: RateLimit | None = None
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(slots=True)
class Reader:
    """Reads the file and those that it names, and remembers which they were.

    ``seen`` grows while it reads, so that a watcher knows also after an error
    what must change before another try is worth it.
    """

    path: str
    seen: list[str] = dataclasses.field(default_factory=list)

    def read(self) -> WebFile:
        """Return what the file says.

        :raises WebError: it, or a file that it names, is unreadable or wrong
        """
        text = self._bytes(self.path)
        try:
            tree = yaml.load(text, yaml_values.Loader)  # noqa: S506 - a BaseLoader makes only texts
        except (yaml.YAMLError, RecursionError, ValueError) as exc:
            raise exceptions.WebError(f'{self.path} is not YAML: {_one_line(exc)}') from exc
        try:
            return self._parse(tree)
        except ValueError as exc:
            raise exceptions.WebError(f'{self.path}: {exc}') from exc

    def _parse(self, tree: object) -> WebFile:
        top = yaml_values.section(
            tree,
            'the file',
            ('tls_server_config', 'http_server_config', 'basic_auth_users', 'rate_limit'),
        )
        http = yaml_values.section(
            top.get('http_server_config', ''), 'http_server_config', ('http2', 'headers')
        )
        users = _users(top.get('basic_auth_users', ''))
        if users:
            self._refuse_world_readable(self.path)
        notes: tuple[str, ...] = ()
        if 'http2' in http and yaml_values.boolean(http['http2'], 'http2'):
            notes = ('http2 is not offered: clients use HTTP/1.1',)
        return WebFile(
            tls=self._tls(top.get('tls_server_config', '')),
            headers=_headers(http.get('headers', '')),
            users=users,
            rate_limit=_rate_limit(top.get('rate_limit', '')),
            notes=notes,
        )

    # --- TLS ----------------------------------------------------------------

    def _tls(self, tree: object) -> Tls | None:
        names = {field.name for field in dataclasses.fields(Tls)}
        files = {'cert_file', 'key_file', 'client_ca_file'}
        found = yaml_values.section(tree, 'tls_server_config', names | files)
        if not found:
            return None
        cert, key = self._pem(found, 'cert'), self._pem(found, 'key')
        if not (cert and key):
            missing = 'key_file' if cert else 'cert_file'
            raise ValueError(f'tls_server_config has no {missing}: name one, or drop the section')
        auth = (
            yaml_values.text(found.get('client_auth_type', ''), 'client_auth_type')
            or 'NoClientCert'
        )
        if 'prefer_server_cipher_suites' in found:
            prefers = yaml_values.boolean(
                found['prefer_server_cipher_suites'], 'prefer_server_cipher_suites'
            )
        else:
            prefers = True
        tls = Tls(
            cert=cert,
            key=key,
            client_ca=self._pem(found, 'client_ca'),
            client_auth_type=yaml_values.one_of(auth, 'client_auth_type', CLIENT_AUTH_TYPES),
            client_allowed_sans=yaml_values.texts(
                found.get('client_allowed_sans', ''), 'client_allowed_sans'
            ),
            min_version=yaml_values.one_of(
                found.get('min_version', 'TLS12'), 'min_version', VERSIONS
            ),
            max_version=yaml_values.one_of(
                found.get('max_version', 'TLS13'), 'max_version', VERSIONS
            ),
            cipher_suites=yaml_values.names(found, 'cipher_suites', CIPHERS),
            prefer_server_cipher_suites=prefers,
            curve_preferences=yaml_values.names(found, 'curve_preferences', CURVES),
        )
        _check_tls(tls)
        return tls

    def _pem(self, found: Mapping[str, Any], name: str) -> bytes:
        """Return what stands in the file or is in the file that it names, else nothing."""
        named = yaml_values.text(found.get(f'{name}_file', ''), f'{name}_file')
        inline = yaml_values.text(found.get(name, ''), name)
        if named and inline:
            raise ValueError(f'{name} and {name}_file are both given: keep one')
        if name == 'key' and (named or inline):
            path = self._absolute(named) if named else self.path
            self._refuse_world_readable(path)
        return self._bytes(self._absolute(named)) if named else inline.encode()

    def _absolute(self, path: str) -> str:
        return os.path.join(os.path.dirname(os.path.abspath(self.path)), path)

    # --- files --------------------------------------------------------------

    def _refuse_world_readable(self, path: str) -> None:
        try:
            mode = os.stat(path).st_mode
        except OSError:
            return  # reading it tells why
        if mode & stat.S_IROTH:
            raise ValueError(f'{path} holds secrets and everybody may read it: chmod o-r {path}')

    def _bytes(self, path: str) -> bytes:
        """Return the content of a plain file of a reasonable size; a pipe must not hold us."""
        if path not in self.seen:
            self.seen.append(path)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, 'rb') as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise exceptions.WebError(f'{path} is not a plain file')
                content = file.read(MOST_BYTES + 1)
        except (OSError, ValueError) as exc:
            reason = getattr(exc, 'strerror', None) or exc
            raise exceptions.WebError(f'cannot read {path}: {reason}') from exc
        if len(content) > MOST_BYTES:
            raise exceptions.WebError(f'{path} is longer than {MOST_BYTES} bytes')
        return content


# --- sections ----------------------------------------------------------------


def _headers(tree: object) -> tuple[tuple[str, str], ...]:
    found = yaml_values.section(tree, 'headers', HEADERS)
    headers = []
    for name, value in found.items():
        text = yaml_values.text(value, name)
        if not text:
            continue
        if HEADERS[name]:
            yaml_values.one_of(text, name, HEADERS[name])
        if not _HEADER_VALUE.fullmatch(text):
            raise ValueError(f'{name}: {text!r} has characters that no header may have')
        headers.append((name, text))
    return tuple(headers)


def _users(tree: object) -> dict[str, str]:
    """Return the bcrypt hash of each user; a message never shows one."""
    users = {}
    for name, value in yaml_values.mapping(tree, 'basic_auth_users').items():
        match = _HASH.fullmatch(yaml_values.text(value, f'the password of {name!r}'))
        if match is None:
            raise ValueError(f'the password of {name!r} is not hashed by bcrypt: use htpasswd -nB')
        if not 4 <= int(match[1]) <= MOST_COST:
            raise ValueError(
                f'the password of {name!r} is hashed with cost {match[1]}: use 4 to {MOST_COST}'
            )
        if ':' in name or not name:
            raise ValueError(f'{name!r} cannot be the name of a user')
        users[name] = match[0]
    return users


def _rate_limit(tree: object) -> RateLimit | None:
    found = yaml_values.section(tree, 'rate_limit', ('interval', 'burst'))
    interval = yaml_values.seconds(found.get('interval', '0'), 'interval')
    burst = yaml_values.text(found.get('burst', '0'), 'burst')
    if not re.fullmatch('[0-9]{1,9}', burst):
        raise ValueError(f'burst: {burst!r} is not a number of requests')
    if not interval:
        return None
    if not int(burst):
        raise ValueError('burst: 0 would refuse every request: write 1 or more')
    return RateLimit(interval, int(burst))


def _check_tls(tls: Tls) -> None:
    """Refuse what contradicts itself.

    :raises ValueError: it does
    """
    verifies = tls.client_auth_type in VERIFYING
    if tls.client_ca and not verifies:
        raise ValueError(
            f'client_ca_file is of no use with client_auth_type {tls.client_auth_type}: '
            f'write {CLIENT_AUTH_TYPES[-1]}'
        )
    if tls.client_allowed_sans and not verifies:
        raise ValueError(
            f'client_allowed_sans prove nothing with client_auth_type {tls.client_auth_type}: '
            f'write {CLIENT_AUTH_TYPES[-1]}'
        )
    if VERSIONS.index(tls.min_version) > VERSIONS.index(tls.max_version):
        raise ValueError(f'min_version {tls.min_version} is above max_version {tls.max_version}')
    old = [name for name in tls.cipher_suites if CIPHERS[name]]
    if tls.cipher_suites and not old and tls.max_version != 'TLS13':
        raise ValueError(f'cipher_suites has none that {tls.max_version} knows')


def _one_line(exc: Exception) -> str:
    return ' '.join(str(exc).split())
