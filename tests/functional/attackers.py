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

"""Peers that hold on to the endpoint without ever asking for anything, in a process of their own.

``python -m tests.functional.attackers PORT SECONDS [CA]`` attacks for so long, then waits until
the endpoint is rid of all of them, and prints JSON: after how many seconds that was, and how many
connections were made.

300 drip: a byte of a head every three seconds. 50 hold half a head. 20 say nothing; over TLS they
hold a handshake, of which half of them have sent the first bytes. Whoever is dropped while the
attack lasts comes again. Over TLS two more guess passwords as fast as they are answered.
"""

import argparse
import collections
import contextlib
import http.client
import json
import socket
import ssl
import sys
import threading
import time

from tests.functional import web_site

DRIPPING, HALF, SILENT, GUESSING = 300, 50, 20, 2
DRIP_SECONDS = 3.0
# Longer than any deadline of the endpoint: whoever is still there then stays.
PATIENCE_SECONDS = 30.0
HEAD = b'GET /metrics HTTP/1.1\r\nHost: x\r\nUser-Agent: a peer with a lot of time\r\n'
CLIENT_HELLO = b'\x16\x03\x01\x02\x00\x01\x00'


class Attacker:
    """A peer that says the first bytes of a request, and then more of them or nothing.

    :param first: bytes of the head, or of a handshake that never ends where there is no context
    """

    def __init__(
        self,
        port: int,
        first: bytes,
        *,
        context: ssl.SSLContext | None = None,
        drips: bool = False,
    ) -> None:
        self._port = port
        self._first = first
        self._context = context
        self._interval = DRIP_SECONDS if drips else float('inf')
        self._socket: socket.socket | None = None

    def connect(self) -> None:
        self.close()
        self._sent = len(self._first)
        self._next_drip = time.monotonic() + self._interval
        with contextlib.suppress(OSError):
            plain = socket.create_connection(('127.0.0.1', self._port), 5)
            self._socket = self._context.wrap_socket(plain) if self._context else plain
            self._socket.sendall(self._first)
            self._socket.setblocking(False)

    def drip(self) -> None:
        if self._socket is not None and time.monotonic() >= self._next_drip:
            self._next_drip += self._interval
            with contextlib.suppress(OSError):
                self._socket.send(HEAD[self._sent : self._sent + 1])
            self._sent += 1

    def is_gone(self) -> bool:
        """Return whether the server has closed the connection."""
        if self._socket is None or self._socket.fileno() < 0:
            return True
        try:
            return self._socket.recv(1000) == b''
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()


class Guesser(threading.Thread):
    """A client that tries one password after the other."""

    def __init__(self, port: int, context: ssl.SSLContext, ending: threading.Event) -> None:
        super().__init__(daemon=True)
        self.statuses: collections.Counter[int] = collections.Counter()
        self._port = port
        self._context = context
        self._ending = ending

    def run(self) -> None:
        connection: http.client.HTTPSConnection | None = None
        while not self._ending.is_set():
            guess = web_site.authorization(web_site.USER, f'{self.name} {time.monotonic()}')
            try:
                if connection is None:
                    connection = http.client.HTTPSConnection(
                        '127.0.0.1', self._port, timeout=5, context=self._context
                    )
                connection.request('GET', '/metrics', headers=guess)
                answer = connection.getresponse()
                answer.read()
                self.statuses[answer.status] += 1
            except (OSError, http.client.HTTPException):
                connection = None
        if connection is not None:
            connection.close()


def attack(port: int, seconds: float, ca: str | None) -> dict[str, object]:
    """Return what became of it."""
    context = ssl.create_default_context(cafile=ca) if ca else None
    if context is not None:
        context.check_hostname = False
    hello = CLIENT_HELLO if context else b''
    peers = [Attacker(port, HEAD[:1], context=context, drips=True) for _ in range(DRIPPING)]
    peers += [Attacker(port, HEAD[: len(HEAD) // 2], context=context) for _ in range(HALF)]
    peers += [Attacker(port, hello[: 7 * (n % 2)]) for n in range(SILENT)]
    ending = threading.Event()
    guessers = [Guesser(port, context, ending) for _ in range(GUESSING)] if context else []
    for guesser in guessers:
        guesser.start()
    made = _hold(peers, seconds)
    ending.set()
    ended = time.monotonic()
    while peers and time.monotonic() - ended < PATIENCE_SECONDS:
        peers = [peer for peer in peers if not peer.is_gone()]
        for peer in peers:
            peer.drip()
        time.sleep(0.05)
    statuses = sum((guesser.statuses for guesser in guessers), collections.Counter())
    return {'gone_after': time.monotonic() - ended, 'connections': made, 'guesses': statuses}


def _hold(peers: list[Attacker], seconds: float) -> int:
    """Keep all of them connected for so long; return how often one had to come."""
    began, made = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        for peer in peers:
            if peer.is_gone():
                peer.connect()
                made += 1
            peer.drip()
        time.sleep(0.05)
    return made


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m tests.functional.attackers')
    parser.add_argument('port', type=int)
    parser.add_argument('seconds', type=float)
    parser.add_argument('ca', nargs='?')
    arguments = parser.parse_args()
    json.dump(attack(arguments.port, arguments.seconds, arguments.ca), sys.stdout)
    return 0


if __name__ == '__main__':
    sys.exit(main())
