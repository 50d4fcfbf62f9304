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


"""Says in a few words why an exchange over HTTP failed.

The texts of requests and urllib3 are never used: they hold the URL with its
query, where some publishers want a key, and words of the server.
"""

from collections.abc import Callable
from collections.abc import Iterator
import http.client
import socket
import ssl

import requests
import urllib3
import urllib3.util.ssl_match_hostname

from oie.config import messages

_BROKEN_OFF = 'the body broke off, or its chunks are none; the next fetch tries again'
_NO_URL = 'there can be no such host; check url'

FAILURES: tuple[type[Exception], ...] = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    # http.client and the modules below it let these through for odd chunks, names and headers.
    OSError,
    ValueError,
)


def told(failure: BaseException) -> str:
    """Return what happened and what to do, in half a line."""
    causes = tuple(_causes(failure))
    for kind, tell in _TOLD:
        for cause in causes:
            if isinstance(cause, kind) and (text := tell(cause)):
                return text
    return f'the exchange failed: {type(causes[-1]).__name__}'


def _causes(failure: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all those inside it, the outermost first."""
    seen: set[int] = set()
    waiting: list[BaseException] = [failure]
    while waiting:
        exc = waiting.pop(0)
        if id(exc) in seen:
            continue
        seen.add(id(exc))
        yield exc
        inside = (getattr(exc, 'reason', None), *exc.args, exc.__cause__, exc.__context__)
        waiting.extend(each for each in inside if isinstance(each, BaseException))


def _bad_certificate(exc: BaseException) -> str:
    said = getattr(exc, 'verify_message', '') or 'it is for another host'
    return (
        f'certificate refused: {messages.one_line(said)[:120].rstrip(".")}; '
        'check url and clock, or set ca_file'
    )


def _failed_tls(exc: BaseException) -> str:
    reason = str(getattr(exc, 'reason', None) or 'ended early').replace('_', ' ').lower()
    return f'TLS failed: {reason}; check that the port speaks it'


def _no_name(exc: BaseException) -> str:
    return f'its name is not found: {_strerror(exc)}; check url and resolver'


def _system(exc: BaseException) -> str:
    error = _strerror(exc)
    return f'{error[:1].lower()}{error[1:]}; check the way to the server' if error else ''


def _strerror(exc: BaseException) -> str:
    # requests and urllib3 derive from OSError too, with other things in the place of the text.
    text = getattr(exc, 'strerror', None)
    return text[:120] if isinstance(text, str) else ''


def _always(text: str) -> Callable[[BaseException], str]:
    return lambda exc: text


# The first row counts for which there is a cause with something to tell.
_TOLD: tuple[tuple[type[BaseException], Callable[[BaseException], str]], ...] = (
    (
        requests.exceptions.ProxyError,
        _always('the proxy cannot be reached, or does not let us through; check proxy'),
    ),
    (ssl.SSLCertVerificationError, _bad_certificate),
    (urllib3.util.ssl_match_hostname.CertificateError, _bad_certificate),
    (ssl.SSLError, _failed_tls),
    (socket.gaierror, _no_name),
    (OSError, _system),
    (TimeoutError, _always('it fell silent; raise timeout, or ask a mirror')),
    (
        http.client.RemoteDisconnected,
        _always('it closed the connection without an answer; the next fetch tries again'),
    ),
    (http.client.IncompleteRead, _always(_BROKEN_OFF)),
    (urllib3.exceptions.IncompleteRead, _always(_BROKEN_OFF)),
    (http.client.LineTooLong, _always('headers of the answer are too long')),
    (http.client.BadStatusLine, _always('the answer is not HTTP; check url')),
    (http.client.HTTPException, _always('headers of the answer are too many, or not HTTP')),
    (requests.exceptions.InvalidHeader, _always('headers of the answer contradict each other')),
    (requests.exceptions.InvalidURL, _always(_NO_URL)),
    (UnicodeError, _always(_NO_URL)),
    (ValueError, _always('the answer is not HTTP; check url')),
)
