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

"""A file or URL → JSON or TOML as plain values with exact decimals, whole or not at all."""

import decimal
import json
import pathlib
import sys
import time
from typing import Any
import urllib.parse
import urllib.request

import requests

from oie import exceptions

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MOST_BYTES = 16 * 2**20
_CHUNK_BYTES = 2**16


def read(place: str, *, reason: str, timeout: float) -> Any:
    """Return what stands in a document: JSON, or TOML where it does not begin as JSON does.

    :param place: a path, or a URL (https, http, file)
    :param reason: by which a failure is counted
    :raises UsageError: it cannot be had, or is neither
    """
    # A query may hold a secret.
    shown = place.partition('?')[0]
    try:
        data = _bytes(place, timeout)
        return parsed(data.decode())
    except (OSError, ValueError, RecursionError, requests.RequestException) as exc:
        raise exceptions.UsageError(reason, f'{shown}: {_told(exc)}') from None


def parsed(text: str) -> Any:
    """Return the values of a text.

    :raises ValueError: neither JSON nor TOML
    """
    if text.lstrip()[:1] in ('{', '[') and not text.lstrip().startswith('[['):
        try:
            return json.loads(text, parse_float=decimal.Decimal)
        except ValueError:
            if text.lstrip()[0] == '{':
                raise
    return tomllib.loads(text, parse_float=decimal.Decimal)


def _bytes(place: str, timeout: float) -> bytes:
    if place.startswith('/'):
        return _limited(pathlib.Path(place))
    if place.startswith('file:'):
        return _limited(
            pathlib.Path(urllib.request.url2pathname(urllib.parse.urlsplit(place).path))
        )
    return _fetched(place, timeout)


def _limited(path: pathlib.Path) -> bytes:
    if not path.is_file():
        raise ValueError('there is no such file')
    with path.open('rb') as file:
        return _checked(file.read(MOST_BYTES + 1))


def _fetched(url: str, timeout: float) -> bytes:
    """Return what a server sends; one that trickles ends by the time-out too."""
    deadline = time.monotonic() + timeout
    data = b''
    with requests.get(url, timeout=timeout, stream=True) as answer:
        if answer.status_code != requests.codes.ok:
            raise ValueError(f'the server answered {answer.status_code}')
        for chunk in answer.iter_content(_CHUNK_BYTES):
            data = _checked(data + chunk)
            if time.monotonic() > deadline:
                raise ValueError(f'it did not come in {timeout:g} s')
        _check_length(data, answer)
    return data


def _check_length(data: bytes, answer: requests.Response) -> None:
    """Refuse a body that is cut off, which urllib3 1.26 does not notice and TOML may not show.

    :raises ValueError: it is
    """
    told = answer.headers.get('Content-Length', '')
    if told.isdecimal() and 'Content-Encoding' not in answer.headers and int(told) != len(data):
        raise ValueError(f'only {len(data)} of {told} bytes came')


def _checked(data: bytes) -> bytes:
    if len(data) > MOST_BYTES:
        raise ValueError(f'it has more than {MOST_BYTES} bytes')
    return data


def _told(exc: Exception) -> str:
    if isinstance(exc, requests.RequestException):
        # Its text holds the query.
        return type(exc).__name__
    return (isinstance(exc, OSError) and exc.strerror) or str(exc)
