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

"""A good client is served while hundreds of bad ones hold on to the endpoint."""

from collections.abc import Iterator
import contextlib
import http.client
import pathlib
import re
import socket
import subprocess
import sys
import time

import pytest

from oie import web

BODY_BYTES = 1_200_000
ATTACK_SECONDS = 10.0
GONE_SECONDS = 15.0
LATENCY_SECONDS = 1.0
DRIP_SECONDS = 3.0
HEAD = b'GET /metrics HTTP/1.1\r\nHost: x\r\nUser-Agent: a peer with a lot of time\r\n'

SERVER = f"""
import sys
from oie import web
route = web.Route(lambda request: web.Response(body=b'x' * {BODY_BYTES}))
server = web.Server([web.TcpListener('127.0.0.1', 0, {{'/metrics': {{'GET': route}}}})])
server.start()
print(server.addresses[0], flush=True)
sys.stdin.read()
server.stop()
"""


class Attacker:
    """A peer that says the first bytes of a request, then one more every three seconds."""

    def __init__(self, address: tuple[str, int], first: int, drips: bool) -> None:
        self.address = address
        self.first = first
        self.interval = DRIP_SECONDS if drips else float('inf')
        self.connect()

    def connect(self) -> None:
        self.socket = socket.create_connection(self.address, 5)
        self.socket.setblocking(False)
        self.sent = self.first
        self.next_drip = time.monotonic() + self.interval
        with contextlib.suppress(ConnectionError):
            self.socket.send(HEAD[: self.first])

    def drip(self) -> None:
        if time.monotonic() >= self.next_drip:
            self.next_drip += self.interval
            with contextlib.suppress(ConnectionError):
                self.socket.send(HEAD[self.sent : self.sent + 1])
            self.sent += 1

    def is_gone(self) -> bool:
        """Return whether the server has closed the connection."""
        try:
            return self.socket.recv(1000) == b''
        except BlockingIOError:
            return False
        except ConnectionError:
            return True


@pytest.fixture
def server() -> Iterator[tuple[int, tuple[str, int]]]:
    """Give the pid and address of a server in a process of its own."""
    command = [sys.executable, '-c', SERVER]
    root = pathlib.Path(__file__).parents[2]
    with subprocess.Popen(
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.pid, web.parse_address(process.stdout.readline().strip())
            process.stdin.close()
            assert process.wait(5) == 0
        finally:
            process.kill()


def scrape(connection: http.client.HTTPConnection) -> float:
    """Return the seconds that one whole answer took."""
    start = time.monotonic()
    connection.request('GET', '/metrics')
    response = connection.getresponse()
    assert (response.status, len(response.read())) == (200, BODY_BYTES)
    return time.monotonic() - start


def scrape_anew(address: tuple[str, int]) -> float:
    with contextlib.closing(http.client.HTTPConnection(*address, timeout=5)) as connection:
        return scrape(connection)


def status(pid: int, field: str) -> int:
    """Return one number of /proc/PID/status, such as Threads or VmRSS (in KiB)."""
    text = pathlib.Path(f'/proc/{pid}/status').read_text()
    match = re.search(rf'^{field}:\s+(\d+)', text, re.MULTILINE)
    assert match is not None
    return int(match[1])


def test_good_client_is_served_at_once_and_attackers_are_gone_soon(server):
    pid, address = server
    kept = http.client.HTTPConnection(*address, timeout=5)
    latencies = [scrape(kept)]
    threads, rss_kib = 0, 0
    attackers = [Attacker(address, 1, drips=True) for _ in range(300)]
    attackers += [Attacker(address, len(HEAD) // 2, drips=False) for _ in range(50)]
    attackers += [Attacker(address, 0, drips=False) for _ in range(20)]
    start = time.monotonic()
    while attackers:
        is_attack = time.monotonic() - start < ATTACK_SECONDS
        gone = [attacker for attacker in attackers if attacker.is_gone()]
        for attacker in gone:
            attacker.socket.close()
            if is_attack:
                attacker.connect()
            else:
                attackers.remove(attacker)
        for attacker in attackers:
            attacker.drip()
        latencies += [scrape(kept), scrape_anew(address)]
        threads = max(threads, status(pid, 'Threads'))
        rss_kib = max(rss_kib, status(pid, 'VmRSS'))
        assert time.monotonic() - start < ATTACK_SECONDS + GONE_SECONDS
        time.sleep(0.05)
    kept.close()
    took = time.monotonic() - start - ATTACK_SECONDS
    print(f'{len(latencies)} scrapes, slowest {max(latencies):.3f} s; attackers gone after')
    print(f'{took:.1f} s; {threads} threads; {rss_kib / 1024:.0f} MiB')
    assert max(latencies) < LATENCY_SECONDS
    assert threads < 16
    assert rss_kib < 150 * 1024
