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

"""The TLS of one connection without its socket: bytes in, bytes out.

Done on memory instead of by asyncio's own TLS, whose time-outs and buffers differ
between the versions of Python: so the deadlines, the limits and the closing of a
connection are the same with and without TLS.
"""

import ipaddress
import os
import ssl
from typing import cast
from typing import NoReturn

from oie import exceptions
from oie.web import messages
from oie.web import web_file

READ_BYTES = 64 * 1024
_VERSIONS = {
    'TLS10': ssl.TLSVersion.TLSv1,
    'TLS11': ssl.TLSVersion.TLSv1_1,
    'TLS12': ssl.TLSVersion.TLSv1_2,
    'TLS13': ssl.TLSVersion.TLSv1_3,
}
_MODES = {
    'VerifyClientCertIfGiven': ssl.CERT_OPTIONAL,
    'RequireAndVerifyClientCert': ssl.CERT_REQUIRED,
}


class Channel:
    """Plain text of a peer behind TLS; whoever calls writes ``outgoing()`` to the socket."""

    def __init__(self, context: ssl.SSLContext, allowed_sans: tuple[str, ...] = ()) -> None:
        self.context = context
        self.is_open = False
        self.is_ended = False
        self._allowed = {_canonical(san) for san in allowed_sans}
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def outgoing(self) -> bytes:
        """Return what is due to the peer."""
        return self._outgoing.read()

    def receive(self, data: bytes) -> bytes:
        """Return the plain text that has come; the handshake goes on first.

        :raises HandshakeError: the peer does not speak TLS, or is not let in
        """
        self._incoming.write(data)
        try:
            if not self.is_open:
                self._object.do_handshake()
                self._check_names()
                self.is_open = True
            return self._read()
        except ssl.SSLWantReadError:
            return b''
        except ssl.SSLError as exc:
            is_plain = exc.reason in ('HTTP_REQUEST', 'HTTPS_PROXY_REQUEST')
            raise messages.HandshakeError(exc.reason or str(exc), is_plain=is_plain) from exc

    def encrypt(self, data: bytes | memoryview) -> bytes:
        """Return what the data looks like on the wire.

        :raises HandshakeError: the peer has spoilt the connection
        """
        try:
            if data:
                self._object.write(data)
        except ssl.SSLError as exc:
            raise messages.HandshakeError(exc.reason or str(exc)) from exc
        return self._outgoing.read()

    def end(self) -> bytes:
        """Return the words of farewell; nothing may be written after them."""
        try:
            self._object.unwrap()
        except (ssl.SSLError, ValueError):
            pass  # it waits for the peer's farewell, which we do not need
        return self._outgoing.read()

    def _read(self) -> bytes:
        parts = []
        try:
            while part := self._object.read(READ_BYTES):
                parts.append(part)
            self.is_ended = True
        except ssl.SSLZeroReturnError:
            self.is_ended = True
        except ssl.SSLWantReadError:
            pass
        return b''.join(parts)

    def _check_names(self) -> None:
        if not self._allowed:
            return
        found = self._object.getpeercert() or {}
        names = cast(tuple[tuple[str, str], ...], found.get('subjectAltName', ()))
        if self._allowed.isdisjoint(_canonical(value) for _, value in names):
            raise messages.HandshakeError('the certificate has none of client_allowed_sans')


def context(config: web_file.Tls) -> ssl.SSLContext:
    """Return what OpenSSL needs to serve as the file says.

    :raises WebError: OpenSSL does not take the certificate, the key or a name
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    # Without resumption whoever comes anew shows the certificate anew.
    made.num_tickets = 0
    made.set_alpn_protocols(['http/1.1'])
    try:
        _set_limits(made, config)
        _load(made, config)
    except (ssl.SSLError, ValueError, OSError) as exc:
        reason = getattr(exc, 'reason', None) or exc
        raise exceptions.WebError(f'tls_server_config: OpenSSL says {reason}') from exc
    return made


def notes(config: web_file.Tls) -> tuple[str, ...]:
    """Return what is done otherwise than the file says, in sentences."""
    found = []
    if config.client_auth_type == 'RequestClientCert':
        found.append('RequestClientCert is taken for NoClientCert: nobody would verify it')
    if config.client_auth_type in web_file.VERIFYING and not config.client_ca:
        found.append('without client_ca_file every authority that this host trusts is trusted')
    if len(config.curve_preferences) > 1 and not hasattr(ssl.SSLContext, 'set_groups'):
        found.append(
            'of curve_preferences only the first is used that can be set: this Python takes one'
        )
    return tuple(found)


def _set_limits(made: ssl.SSLContext, config: web_file.Tls) -> None:
    made.minimum_version = _VERSIONS[config.min_version]
    made.maximum_version = _VERSIONS[config.max_version]
    if not config.prefer_server_cipher_suites:
        made.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    old = [web_file.CIPHERS[name] for name in config.cipher_suites if web_file.CIPHERS[name]]
    if old:
        made.set_ciphers(':'.join(old))
    elif config.cipher_suites:
        made.minimum_version = ssl.TLSVersion.TLSv1_3
    curves = [web_file.CURVES[name] for name in config.curve_preferences]
    if curves and hasattr(made, 'set_groups'):
        made.set_groups(':'.join(curves))
    elif curves:
        _set_curve(made, curves)


def _set_curve(made: ssl.SSLContext, curves: list[str]) -> None:
    """Set the first curve that can be set: Python 3.10 knows those of NIST alone here."""
    for curve in curves:
        try:
            made.set_ecdh_curve(curve)
        except (ssl.SSLError, ValueError):
            continue
        return
    raise ValueError('this Python can set none of curve_preferences: name CurveP256 too')


def _load(made: ssl.SSLContext, config: web_file.Tls) -> None:
    _load_pair(made, config.cert + b'\n' + config.key)
    if config.client_auth_type not in _MODES:
        return
    made.verify_mode = _MODES[config.client_auth_type]
    if config.client_ca:
        made.load_verify_locations(cadata=config.client_ca.decode('ascii', 'replace'))
    else:
        made.load_default_certs(ssl.Purpose.CLIENT_AUTH)


def _load_pair(made: ssl.SSLContext, pem: bytes) -> None:
    """Load certificate and key; OpenSSL reads files only, so they go through memory."""
    with open(os.memfd_create('oie-tls'), 'wb') as file:
        file.write(pem)
        file.flush()
        made.load_cert_chain(f'/proc/self/fd/{file.fileno()}', password=_refuse_password)


def _refuse_password() -> NoReturn:
    """Keep OpenSSL from asking on the terminal."""
    raise ValueError('the key needs a password: store it without one')


def _canonical(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name.strip()))
    except ValueError:
        return name
