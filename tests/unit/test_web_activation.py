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

"""Sockets that the service manager passed: taken when they are meant for us, and served."""

import contextlib
import os
import socket

import pytest

from oie import exceptions
from oie import web
from oie.web import activation

ROUTES = {'/': {'GET': web.Route(lambda _request: web.Response(body=b'hello'))}}


@pytest.fixture
def passed(monkeypatch):
    """Play the service manager, at whatever number comes next in place of 3."""
    with contextlib.ExitStack() as stack:

        def passed(*sockets, **environment):
            # Above all that tests before have left open.
            first = 1 + max(int(number) for number in os.listdir('/proc/self/fd'))
            for number, each in enumerate(sockets, first):
                os.dup2(each.fileno(), number, inheritable=True)
                each.close()
            monkeypatch.setattr(activation, '_FIRST', first)
            found = {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': str(len(sockets))}
            found.update(environment)
            taken = activation.passed(found)
            assert not found.keys() & set(activation._VARIABLES)
            numbers = range(first, first + len(sockets))
            assert [each.fileno() for each in taken] == list(numbers)[: len(taken)]
            for each in taken:
                stack.enter_context(each)
            return taken

        yield passed


def tcp(family=socket.AF_INET, address='127.0.0.1'):
    made = socket.socket(family)
    made.bind((address, 0))
    made.listen()
    return made


def ask(address):
    with socket.create_connection(address, 5) as asking:
        asking.sendall(b'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
        return b''.join(iter(lambda: asking.recv(4096), b''))


def test_without_variables_nothing_is_taken():
    assert activation.passed({}) == []


def test_sockets_for_another_process_are_left_alone(passed):
    assert passed(tcp(), LISTEN_PID='1') == []


def test_family_is_that_of_the_socket_and_no_child_inherits_it(passed, tmp_path):
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / 's'))
    unix.listen()
    taken = passed(tcp(), unix)
    assert [each.family for each in taken] == [socket.AF_INET, socket.AF_UNIX]
    assert not any(each.get_inheritable() for each in taken)
    addresses = [web.PassedListener(each, ROUTES).address for each in taken]
    assert addresses[0].startswith('127.0.0.1:')
    assert addresses[1] == f'unix:{tmp_path}/s'


def test_passed_socket_is_served_and_its_path_stays(passed, tmp_path):
    path = tmp_path / 's'
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(path))
    unix.listen()
    taken = passed(tcp(), unix)
    address = taken[0].getsockname()
    server = web.Server([web.PassedListener(each, ROUTES) for each in taken])
    server.start()
    try:
        assert server.is_running
        assert ask(address).endswith(b'hello')
    finally:
        server.stop()
    assert not server.is_running
    assert path.is_socket()


def test_number_that_is_none_is_refused(passed):
    with pytest.raises(exceptions.WebError, match='LISTEN_FDS is no number'):
        passed(LISTEN_FDS='two')


def test_socket_that_does_not_listen_is_refused(passed):
    idle = socket.socket()
    with pytest.raises(exceptions.WebError, match='no listening TCP or unix stream socket'):
        passed(idle)


def test_datagram_socket_is_refused(passed):
    with pytest.raises(exceptions.WebError, match='no listening TCP or unix stream socket'):
        passed(socket.socket(type=socket.SOCK_DGRAM))


def test_descriptor_that_is_no_socket_is_refused(monkeypatch, tmp_path):
    with open(tmp_path / 'file', 'wb') as file:
        monkeypatch.setattr(activation, '_FIRST', file.fileno())
        environment = {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '1'}
        with pytest.raises(exceptions.WebError, match='of the service manager is no socket'):
            activation.passed(environment)
