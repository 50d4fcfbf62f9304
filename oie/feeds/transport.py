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


"""One request over HTTP and its answer, with bounds that requests and urllib3 do not have.

No redirect is followed, no byte is unpacked, nothing comes from the
environment. Whom a connection reached is checked before anything is sent.
"""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import http.client
import io
import logging
import os
import socket
import ssl
from typing import Any
from typing import ClassVar
import urllib.parse

import requests
import requests.adapters
import requests.utils
import urllib3
import urllib3.connection

from oie import exceptions
from oie.feeds import targets

# Headers, and the sizes between the chunks of a body; http.client bounds each line and their
# number, but not how many answers "100 Continue" come before the real one.
_AROUND_BODY_BYTES = 2**20
# How long to wait for the close that we ask for, to see whether the body has ended with it.
_CLOSING_SECONDS = 0.5
# Where Debian, Red Hat and SUSE keep what the operator's system trusts.
_SYSTEM_BUNDLES = (
    '/etc/ssl/certs/ca-certificates.crt',
    '/etc/pki/tls/certs/ca-bundle.crt',
    '/etc/ssl/ca-bundle.pem',
)
# They log URLs with what stands behind the question mark, which may be a key.
_LOG_URLS = (
    'urllib3.connection',
    'urllib3.connectionpool',
    'urllib3.poolmanager',
    'urllib3.util.retry',
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What holds for a connection.

    :ivar seconds: how long it may be silent; the deadline over all is the caller's
    :ivar max_bytes: how large a body may be
    """

    seconds: float
    max_bytes: int
    allow_private_targets: bool


@contextlib.contextmanager
def get(
    url: str, headers: Mapping[str, str], *, limits: Limits, ca_file: str, proxy: str
) -> Iterator[requests.Response]:
    """Ask for a URL; the body is still to be read, from ``raw`` and not decoded.

    :param ca_file: certificates to trust in place of those of the system, or empty
    :param proxy: URL of the proxy, or empty; the target is not checked behind one
    :raises FeedError: a wrong option, a target that is not allowed, unusable headers; all else
        raises whatever requests raises
    """
    for name in _LOG_URLS:
        logging.getLogger(name).disabled = True
    with _Session() as session:
        session.trust_env = False
        session.headers.clear()
        session.verify = _trusted(ca_file)
        session.proxies = _proxies(proxy)
        session.mount('http://', _Adapter(limits))
        session.mount('https://', _Adapter(limits))
        # A host whose first address is a black hole must be left time for the second.
        timeout = (limits.seconds / 3, limits.seconds)
        answer = session.get(
            url, headers=dict(headers), timeout=timeout, stream=True, allow_redirects=False
        )
        try:
            yield answer
        finally:
            answer.close()


def _trusted(ca_file: str) -> str:
    """Return the file of certificates to trust.

    The system's comes before that of certifi: there the operator adds the
    authority of a mirror, and updates of the system take a lost one out, while
    certifi in a virtual environment stays as old as the environment.
    """
    if not ca_file:
        return next(filter(os.path.isfile, _SYSTEM_BUNDLES), requests.utils.DEFAULT_CA_BUNDLE_PATH)
    try:
        # Only a trial, for an error that names the file: requests tells of a failed handshake.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=ca_file)
    except OSError as exc:
        reason = 'no certificates (PEM) in it' if isinstance(exc, ssl.SSLError) else exc.strerror
        raise exceptions.FeedError(f'ca_file {ca_file}: {reason}') from exc
    return ca_file


def _proxies(proxy: str) -> dict[str, str]:
    if not proxy:
        return {}
    try:
        parts = urllib.parse.urlsplit(proxy)
        is_good = parts.scheme in ('http', 'https') and parts.hostname and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        # Without its text: a password may stand in it.
        raise exceptions.FeedError('proxy is no URL such as http://proxy.example.org:3128')
    return {'http': proxy, 'https': proxy}


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        # Even when it is not to follow, requests looks for the next URL, and before that reads
        # and unpacks the whole body of the redirect, however large.
        return None


class _Adapter(requests.adapters.HTTPAdapter):
    """Makes connections of ours."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _pool_classes(self._limits)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        # The operator chose the proxy, and it is the proxy that connects to the target.
        limits = dataclasses.replace(self._limits, allow_private_targets=True)
        manager.pool_classes_by_scheme = _pool_classes(limits)
        return manager


class _Wire(io.RawIOBase):
    """What comes from a socket, up to a number of bytes.

    http.client reads to the end, whatever its size, when the size of a chunk is -1.
    """

    def __init__(self, stream: io.RawIOBase, most: int) -> None:
        self._stream = stream
        self._left = most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        count = self._stream.readinto(buffer)
        self._left -= count or 0
        if self._left < 0:
            raise exceptions.FeedError(
                'more bytes came than max_bytes allows; raise it if the list rightly is as large'
            )
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    """An answer that comes from a bounded stream and must make sense."""

    limits: ClassVar[Limits]

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._socket = sock
        most = self.limits.max_bytes + _AROUND_BODY_BYTES
        self.fp = io.BufferedReader(_Wire(self.fp.detach(), most))

    def begin(self) -> None:
        super().begin()
        # What follows a broken header line is dropped in silence, a Content-Length too.
        if self.msg.defects:
            raise exceptions.FeedError('headers of the answer are not HTTP')

    def _close_conn(self) -> None:
        # Called at the end of a body, and when one is given up: then its length is not 0.
        is_at_end = self.status == http.HTTPStatus.OK and self.length == 0
        is_too_long = is_at_end and self._goes_on()
        super()._close_conn()  # type: ignore[misc]
        if is_too_long:
            raise exceptions.FeedError('the body is longer than its Content-Length says')

    def _goes_on(self) -> bool:
        """Return whether bytes follow the body, after which the server was to close."""
        try:
            self._socket.settimeout(_CLOSING_SECONDS)
            return bool(self.fp.peek(1))
        except OSError:
            return False


class _HttpConnection(urllib3.connection.HTTPConnection):
    limits: ClassVar[Limits]

    def _new_conn(self) -> socket.socket:
        return _checked(super()._new_conn(), self.limits)


class _HttpsConnection(urllib3.connection.HTTPSConnection):
    limits: ClassVar[Limits]

    def _new_conn(self) -> socket.socket:
        return _checked(super()._new_conn(), self.limits)


def _checked(connected: socket.socket, limits: Limits) -> socket.socket:
    try:
        if not limits.allow_private_targets:
            targets.check(connected)
    except BaseException:
        connected.close()
        raise
    return connected


def _pool_classes(obeyed: Limits) -> dict[str, Any]:
    """Return, by scheme, the pools whose connections and answers obey the limits."""

    class Answer(_Answer):
        limits = obeyed

    class HttpConnection(_HttpConnection):
        limits = obeyed
        response_class = Answer

    class HttpsConnection(_HttpsConnection):
        limits = obeyed
        response_class = Answer

    class HttpPool(urllib3.HTTPConnectionPool):
        ConnectionCls = HttpConnection

    class HttpsPool(urllib3.HTTPSConnectionPool):
        ConnectionCls = HttpsConnection

    return {'http': HttpPool, 'https': HttpsPool}
