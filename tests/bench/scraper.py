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

"""A client of the endpoint in a process of its own, so that it costs the exporter nothing.

``python -m tests.bench.scraper URL SECONDS`` scrapes as Prometheus does and prints JSON: the
seconds of each good scrape, the number of failed ones, and the bytes of a body. With ``--rate`` it
scrapes so many times a second and counts from the moment at which a scrape was due, so that one
that is late makes the next ones late too; without it, as fast as it is answered.
"""

import argparse
from collections.abc import Callable
from collections.abc import Mapping
import contextlib
import http.client
import json
import socket
import ssl
import sys
import threading
import time
import urllib.parse

# More than a socket has ready at once.
_DISCARD_BYTES = 1 << 20
_LONGEST_HEAD = 4096


class Client:
    """One connection, or one for each scrape; it reads the body and keeps nothing of it."""

    def __init__(
        self, url: str, headers: Mapping[str, str], ca: str | None, *, is_kept: bool
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        self._host, self._port = parts.hostname or '', parts.port or 0
        self._path, self._headers, self._is_kept = parts.path, headers, is_kept
        self._context = ssl.create_default_context(cafile=ca) if ca else None
        self._connection: http.client.HTTPConnection | None = None

    def scrape(self) -> int:
        """Return the length of the body.

        :raises OSError: no answer
        :raises HTTPException: no good one
        """
        if self._connection is None:
            self._connection = self._connect()
        try:
            self._connection.request('GET', self._path, headers=dict(self._headers))
            answer = self._connection.getresponse()
            size = len(answer.read())
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        if not self._is_kept:
            self.close()
        if answer.status != 200:
            raise http.client.HTTPException(f'status {answer.status}')
        return size

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> http.client.HTTPConnection:
        if self._context is not None:
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=10, context=self._context
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=10)


class PlainClient:
    """A kept connection whose bodies the kernel throws away: it costs next to nothing."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        parts = urllib.parse.urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port), 10)
        lines = [f'GET {parts.path} HTTP/1.1', f'Host: {parts.netloc}']
        lines += [f'{name}: {value}' for name, value in headers.items()]
        self._request = '\r\n'.join([*lines, '', '']).encode()
        self._room = bytearray(_DISCARD_BYTES)

    def scrape(self) -> int:
        """Return the length of the body.

        :raises OSError: no answer
        :raises HTTPException: no good one
        """
        self._socket.sendall(self._request)
        begin = b''
        while b'\r\n\r\n' not in begin:
            part = self._socket.recv(_LONGEST_HEAD)
            if not part:
                raise ConnectionError('closed')
            begin += part
        head, _, body = begin.partition(b'\r\n\r\n')
        if not head.startswith(b'HTTP/1.1 200 '):
            raise http.client.HTTPException(head[:80].decode())
        size = int(head.lower().partition(b'content-length:')[2].split(b'\r\n')[0])
        left = size - len(body)
        while left:
            # Linux reads and forgets, tcp(7).
            got = self._socket.recv_into(self._room, min(left, _DISCARD_BYTES), socket.MSG_TRUNC)
            if not got:
                raise ConnectionError('closed')
            left -= got
        return size

    def close(self) -> None:
        self._socket.close()


def paced(
    scrape: Callable[[], int], rate: float, seconds: float
) -> tuple[list[float], list[str], int]:
    """Return what each scrape took from when it was due, what failed, and the size of a body."""
    taken, failed, size = [], [], 0
    began = time.perf_counter()
    for number in range(int(rate * seconds)):
        due = began + number / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        try:
            size = scrape()
        except (OSError, http.client.HTTPException) as exc:
            failed.append(repr(exc))
        else:
            taken.append(time.perf_counter() - due)
    return taken, failed, size


def unpaced(scrape: Callable[[], int], seconds: float) -> tuple[list[float], list[str], int]:
    """Return the same of scrapes one after the other, from when each began."""
    taken, failed, size = [], [], 0
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        try:
            size = scrape()
        except (OSError, http.client.HTTPException) as exc:
            failed.append(repr(exc))
        else:
            taken.append(time.perf_counter() - began)
    return taken, failed, size


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m tests.bench.scraper')
    parser.add_argument('url')
    parser.add_argument('seconds', type=float)
    parser.add_argument('--rate', type=float, help='scrapes a second; else as many as it can')
    parser.add_argument('--anew', action='store_true', help='a new connection for each')
    parser.add_argument('--clients', type=int, default=1, help='so many at once')
    parser.add_argument('--plain-text', action='store_true', help='do not ask for gzip')
    parser.add_argument('--ca', help='authority of the server')
    parser.add_argument('--authorization', help='the header that shows who asks')
    arguments = parser.parse_args()
    results: list[tuple[list[float], list[str], int]] = []
    threads = [
        threading.Thread(target=lambda: results.append(run(arguments)))
        for _ in range(arguments.clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    json.dump(
        {
            'seconds': [taken for result in results for taken in result[0]],
            'failed': [text for result in results for text in result[1]],
            'bytes': max(result[2] for result in results),
        },
        sys.stdout,
    )
    return 0


def run(arguments: argparse.Namespace) -> tuple[list[float], list[str], int]:
    """Return what one client saw."""
    headers = {} if arguments.plain_text else {'Accept-Encoding': 'gzip'}
    if arguments.authorization:
        headers['Authorization'] = arguments.authorization
    client: Client | PlainClient
    if arguments.ca or arguments.anew:
        client = Client(arguments.url, headers, arguments.ca, is_kept=not arguments.anew)
    else:
        client = PlainClient(arguments.url, headers)
    with contextlib.closing(client):
        if arguments.rate:
            return paced(client.scrape, arguments.rate, arguments.seconds)
        return unpaced(client.scrape, arguments.seconds)


if __name__ == '__main__':
    sys.exit(main())
