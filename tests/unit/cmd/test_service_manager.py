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

"""What systemd is told, and when."""

import os
import socket

import pytest

from oie.cmd import service_manager


@pytest.fixture
def manager_socket(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiving:
        receiving.bind(str(tmp_path / 'notify'))
        receiving.setblocking(False)
        yield receiving


def received(manager_socket):
    """Return all lines that have come."""
    lines = []
    while True:
        try:
            lines += manager_socket.recv(4096).decode().splitlines()
        except BlockingIOError:
            return lines


class Cycles:
    """A service whose cycles the test makes end."""

    def __init__(self, manager_socket, interval=10.0, **environment):
        self.ended = 0
        self.latest = None
        self.status = 'all is read'
        self.environment = {'NOTIFY_SOCKET': manager_socket.getsockname(), **environment}
        self.heartbeat = service_manager.Heartbeat(
            service_manager.ServiceManager(self.environment),
            interval=interval,
            ended=lambda: self.ended,
            completed=lambda: self.latest,
            status=lambda: self.status,
        )

    def end(self, *, is_complete=True):
        self.ended += 1
        if is_complete:
            self.latest = object()


def test_nothing_is_said_before_the_first_cycle_ended(manager_socket):
    Cycles(manager_socket).heartbeat.beat()
    assert received(manager_socket) == []


def test_ready_alive_and_how_it_is_after_the_first_cycle(manager_socket):
    cycles = Cycles(manager_socket)
    cycles.end()
    cycles.heartbeat.beat()
    assert received(manager_socket) == ['READY=1', 'WATCHDOG=1', 'STATUS=all is read']


def test_ready_but_not_alive_after_a_cycle_that_failed(manager_socket):
    cycles = Cycles(manager_socket)
    cycles.end(is_complete=False)
    cycles.status = 'no collection\nis complete yet'
    cycles.heartbeat.beat()
    assert received(manager_socket) == ['READY=1', 'STATUS=no collection is complete yet']


def test_only_another_completed_cycle_feeds_the_watchdog(manager_socket):
    cycles = Cycles(manager_socket)
    cycles.end()
    cycles.heartbeat.beat()
    received(manager_socket)

    cycles.heartbeat.beat()
    cycles.end(is_complete=False)
    cycles.heartbeat.beat()
    without = received(manager_socket)
    cycles.end()
    cycles.heartbeat.beat()

    assert without == []
    assert received(manager_socket) == ['WATCHDOG=1']


@pytest.mark.parametrize(('interval', 'expected'), [(40, []), (41, ['WATCHDOG_USEC=123000000'])])
def test_rare_cycles_get_a_longer_watchdog(manager_socket, interval, expected):
    cycles = Cycles(manager_socket, interval, WATCHDOG_USEC='120000000')
    cycles.end()
    cycles.heartbeat.beat()
    assert received(manager_socket)[1:-2] == expected


@pytest.mark.parametrize(
    ('environment', 'seconds'),
    [
        ({}, 0),
        ({'WATCHDOG_USEC': '1500000'}, 1.5),
        ({'WATCHDOG_USEC': '1500000', 'WATCHDOG_PID': str(os.getpid())}, 1.5),
        ({'WATCHDOG_USEC': '1500000', 'WATCHDOG_PID': '1'}, 0),
        ({'WATCHDOG_USEC': 'x'}, 0),
    ],
)
def test_watchdog_counts_where_it_is_meant_for_us(environment, seconds):
    assert service_manager.ServiceManager(dict(environment)).watchdog == seconds


def test_end_is_announced(manager_socket):
    Cycles(manager_socket).heartbeat.stop()
    assert received(manager_socket) == ['STOPPING=1', 'STATUS=stopping']


def test_children_do_not_see_the_variables(manager_socket):
    cycles = Cycles(manager_socket, WATCHDOG_USEC='1', WATCHDOG_PID='1', HOME='/')
    assert cycles.environment == {'HOME': '/'}


def test_abstract_address_is_understood():
    name = f'oie-test-{os.getpid()}'
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiving:
        receiving.bind(f'\0{name}')
        receiving.setblocking(False)
        service_manager.ServiceManager({'NOTIFY_SOCKET': f'@{name}'}).notify('READY=1')
        assert received(receiving) == ['READY=1']


@pytest.mark.parametrize('address', ['', '/nowhere/notify', 'vsock:2:1', '/' + 'x' * 200])
def test_nobody_to_tell_is_no_failure(address):
    service_manager.ServiceManager({'NOTIFY_SOCKET': address}).notify('READY=1')
