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


"""oie-pollster says one JSON list or one sentence, in time, and nothing beside."""

from collections.abc import Iterator
import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time

import hypothesis
from hypothesis import strategies as st
import pytest

from oie import endpoint
from oie import exceptions
from oie import model
from oie import service
from oie import web
from oie.cmd import pollster
from oie.cmd import pollster_direct
from oie.cmd import wiring
from oie.config import loading
from tests import builders

LIST = b'[{"resource_id": "x"}]\n'
# Runs the program as Ceilometer does, with a deadline that tests can wait for.
RUN = """
import sys
from oie.cmd import pollster
pollster.DEADLINE = float(sys.argv.pop(1))
sys.exit(pollster.main())
"""


def response(body=LIST, status='200 OK', length=None):
    head = f'HTTP/1.1 {status}\r\nContent-Type: application/json\r\n'
    return (
        f'{head}Content-Length: {len(body) if length is None else length}\r\n\r\n'.encode() + body
    )


def is_one_sentence(text):
    """Whether this is one line in ASCII that no reader takes for JSON."""
    assert text.isascii()
    assert text.endswith(b'\n')
    assert text.count(b'\n') == 1
    assert text.strip()
    with pytest.raises(ValueError, match='Expecting value'):
        json.loads(text)
    return True


@contextlib.contextmanager
def serving(path: pathlib.Path, answer: bytes | None) -> Iterator[list[bytes]]:
    """Serve one answer to everybody, None to be silent; give the requests."""
    requests: list[bytes] = []
    ending = threading.Event()

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with connection:
                    if answer is None:
                        ending.wait()
                        return
                    requests.append(connection.recv(65536))
                    connection.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(1)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield requests
        finally:
            ending.set()
            # Closing alone does not wake accept().
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(5)


@pytest.fixture
def node(tmp_path):
    """A configuration whose socket and libvirt are in a scratch directory."""
    return Node(tmp_path)


class Node:
    def __init__(self, directory: pathlib.Path) -> None:
        self.socket = directory / 's'
        self.config = directory / 'oie.conf'
        # No daemon has a socket there, and the URI asks for none of the system's.
        self.write(f'[libvirt]\nuri = qemu+unix:///system?socket={directory}/libvirt\n')

    def write(self, more: str) -> None:
        self.config.write_text(f'[exporter]\nsocket_path = {self.socket}\n{more}')

    def ask(self, name='instances'):
        return pollster.ask(['--config-file', str(self.config), name])

    def run(self, *arguments, deadline=8.0):
        """Run the program; return status, answer and stderr."""
        done = subprocess.run(
            [sys.executable, '-c', RUN, str(deadline), *arguments],
            capture_output=True,
            check=False,
            timeout=30,
            cwd=self.config.parent,
        )
        return done.returncode, done.stdout, done.stderr

    def run_named(self, name='instances', **more):
        return self.run(name, '--config-file', str(self.config), **more)


# --- the command line -------------------------------------------------------


@pytest.mark.parametrize(
    ('argv', 'expected'),
    [
        (['disks', '--config-file', 'a'], ('disks', ['a'])),
        (['--config-file=a', 'disks'], ('disks', ['a'])),
        (['--config-file', 'a', '--config-file=b', 'vnics'], ('vnics', ['a', 'b'])),
    ],
)
def test_the_short_path_understands_what_definitions_use(argv, expected):
    assert pollster._parse(argv) == expected


@pytest.mark.parametrize(
    'argv',
    [
        [],
        ['--help'],
        ['disks', 'vnics'],
        ['disks', '--config-dir', 'x'],
        ['disks', '--config-file'],
        ['../etc'],
        ['disks HTTP/1.1'],
        ['d\N{LATIN SMALL LETTER I WITH DIAERESIS}sks'],
        [''],
    ],
)
def test_whatever_else_is_left_to_the_long_path(argv):
    with pytest.raises(pollster._Unusual):
        pollster._parse(argv)


@hypothesis.given(st.lists(st.text(max_size=20), max_size=5))
def test_no_command_line_reaches_the_socket_but_a_plain_name(argv):
    try:
        name, _ = pollster._parse(argv)
    except pollster._Unusual:
        return
    assert name.isascii()
    assert name.isidentifier()


# --- where the socket is ----------------------------------------------------


def real_path(config):
    """Return the option as oslo.config reads it, None when it refuses."""
    try:
        return wiring.load(['--config-file', str(config)], 'test').exporter.socket_path
    except exceptions.ConfigError:
        return None


def quick_path(config):
    """Return the option as the short path reads it, None when it does not dare."""
    try:
        return pollster._socket_path([str(config)])
    except pollster._Unusual:
        return None


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('', '/run/oie/oie.sock'),
        ('[exporter]\nsocket_path = /a b\n', '/a b'),
        ('[exporter]\nsocket_path=/a=b\n', '/a=b'),
        ('[exporter]\nsocket_path =\n', ''),
        ('[exporter]\n#socket_path = /a\n', '/run/oie/oie.sock'),
        ('[exporter]\n[DEFAULT]\nhost = x\n[exporter]\nsocket_path=/b\n', '/b'),
        ('[exporter]\r\nsocket_path = /a\r\n', '/a'),
        ('[exporter]\nsocket_group = g\nsocket_path = /a\n\n  \nlisten_address=1.1.1.1:1', '/a'),
        ('[disk]\nread_thresholds = a:1,\n  b:2\n[exporter]\nsocket_path = /a\n', '/a'),
    ],
)
def test_the_socket_is_the_one_that_the_exporter_has(text, expected, tmp_path):
    config = tmp_path / 'c'
    config.write_bytes(text.encode())
    assert quick_path(config) == expected
    assert real_path(config) == expected


@pytest.mark.parametrize(
    'text',
    [
        'socket_path: /a',
        'socket_path = $state_path/s',
        'socket_path = /$$a',
        'socket_path = "/a"',
        "socket_path = '/a",
        'socket_path = /a\n b',
        'socket_path',
    ],
)
def test_a_socket_that_needs_the_whole_parser_is_left_to_the_long_path(text, tmp_path):
    config = tmp_path / 'c'
    config.write_text(f'[exporter]\n{text}\n')
    assert quick_path(config) is None


@hypothesis.given(
    st.text(alphabet=st.sampled_from('/ab=:$"\'\\ \t\n#[];\r'), max_size=30),
)
def test_the_short_path_never_reads_another_socket_than_the_exporter(value):
    with tempfile.NamedTemporaryFile('w', newline='') as config:
        config.write(f'[exporter]\nsocket_path = {value}\n')
        config.flush()
        real, quick = real_path(config.name), quick_path(config.name)
    # Where the exporter would not even start, there is nobody to ask.
    assert real is None or quick in (real, None)


def test_the_last_file_wins(tmp_path):
    files = [tmp_path / 'a', tmp_path / 'b']
    for file in files:
        file.write_text(f'[exporter]\nsocket_path = /{file.name}\n')
    assert pollster._socket_path([str(file) for file in files]) == '/b'


def test_default_files_are_those_of_the_exporter(monkeypatch, tmp_path):
    assert pollster.DEFAULT_FILE == loading.DEFAULT_FILE
    assert pollster.DEFAULT_DIRECTORY == loading.DEFAULT_DIRECTORY
    monkeypatch.setattr(pollster, 'DEFAULT_FILE', str(tmp_path / 'oie.conf'))
    monkeypatch.setattr(pollster, 'DEFAULT_DIRECTORY', str(tmp_path / 'oie.conf.d'))
    assert pollster._default_files() == []
    (tmp_path / 'oie.conf').touch()
    (tmp_path / 'oie.conf.d').mkdir()
    for name in ('b.conf', 'a.conf', 'c.txt'):
        (tmp_path / 'oie.conf.d' / name).touch()
    assert [pathlib.Path(path).name for path in pollster._default_files()] == [
        'oie.conf',
        'a.conf',
        'b.conf',
    ]


def test_the_default_socket_is_that_of_the_exporter():
    conf = wiring.load(['--config-file', os.devnull], 'test')
    assert conf.exporter.socket_path == pollster.DEFAULT_SOCKET


# --- the answer -------------------------------------------------------------


def test_a_whole_answer_is_printed_as_it_is():
    assert pollster._read_answer(response(), 'instances') == (LIST, 0)


def test_an_empty_list_of_an_empty_host_is_printed():
    assert pollster._read_answer(response(b'[]\n'), 'instances') == (b'[]\n', 0)


@pytest.mark.parametrize('status', ['503 Service Unavailable', '500 X', '403 Forbidden', '2000 X'])
def test_any_other_status_is_a_sentence_with_the_reason(status):
    text, exit_status = pollster._read_answer(
        response(b'libvirt was last read 99 s ago\n', status), 'instances'
    )
    assert is_one_sentence(text)
    assert b'libvirt was last read 99 s ago' in text
    assert exit_status == 1


def test_a_refusal_that_looks_like_a_list_is_still_a_sentence():
    text, exit_status = pollster._read_answer(response(b'[]\n', '503 X'), 'instances')
    assert is_one_sentence(text)
    assert exit_status == 1


def test_a_list_that_the_exporter_does_not_know_is_left_to_the_long_path():
    with pytest.raises(pollster._UnknownList):
        pollster._read_answer(response(b'', '404 Not Found'), 'instances')


@hypothesis.given(st.integers(min_value=0, max_value=len(response()) - 1))
def test_a_truncated_answer_is_a_sentence(length):
    text, status = pollster._read_answer(response()[:length], 'instances')
    assert is_one_sentence(text)
    assert status == 1


@hypothesis.given(st.binary(min_size=1, max_size=20))
def test_an_answer_that_goes_on_too_long_is_a_sentence(more):
    text, status = pollster._read_answer(response() + more, 'instances')
    assert is_one_sentence(text)
    assert status == 1


@hypothesis.given(
    st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=100).map(lambda body: response(body, '503 X')),
        st.tuples(st.binary(max_size=50), st.binary(max_size=50)).map(b'\r\n\r\n'.join),
        st.binary(max_size=50).map(lambda rest: b'HTTP/1.1 200 OK\r\nContent-Length: ' + rest),
    )
)
def test_garbage_is_a_sentence(answer):
    try:
        text, status = pollster._read_answer(answer, 'instances')
    except pollster._UnknownList:
        return
    if status == 0:
        assert answer.endswith(b'\r\n\r\n' + text)
    else:
        assert is_one_sentence(text)


# --- asking -----------------------------------------------------------------


def test_the_exporter_is_asked_for_the_list_by_name(node):
    with serving(node.socket, response()) as requests:
        assert node.ask('disks') == (LIST, 0)
    assert requests[0].startswith(b'GET /pollsters/disks HTTP/1.1\r\n')


def test_without_an_exporter_the_long_path_decides(node):
    assert node.ask() is None
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(node.socket))
    assert node.ask() is None


def test_without_a_socket_the_long_path_decides(node):
    node.config.write_text('[exporter]\nsocket_path =\n')
    assert node.ask() is None


def test_a_socket_we_may_not_use_says_what_to_do(node, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(pollster, '_request', refuse)
    text, status = node.ask()
    assert is_one_sentence(text)
    assert b'socket_group' in text
    assert status == 1


def test_a_path_that_is_no_socket_is_a_sentence(node):
    node.config.write_text(f'[exporter]\nsocket_path = /{"x" * 200}\n')
    text, status = node.ask()
    assert is_one_sentence(text)
    assert status == 1


def test_nobody_fills_our_memory(node, monkeypatch):
    monkeypatch.setattr(pollster, 'LARGEST_ANSWER', 2**20)
    with serving(node.socket, response(b'x' * 2**24)):
        text, status = node.ask()
    assert is_one_sentence(text)
    assert status == 1


# --- the whole program ------------------------------------------------------


def test_one_list_and_nothing_beside(node):
    with serving(node.socket, response()):
        assert node.run_named() == (0, LIST, b'')


def test_a_refusal_is_one_sentence_and_nothing_beside(node):
    with serving(node.socket, response(b'not yet\n', '503 X')):
        status, answer, stderr = node.run_named()
    assert is_one_sentence(answer)
    assert (status, stderr) == (1, b'')


def test_an_exporter_that_never_answers_is_given_up_at_the_deadline(node):
    with serving(node.socket, None):
        begun = time.monotonic()
        status, answer, stderr = node.run_named(deadline=0.5)
        seconds = time.monotonic() - begun
    assert is_one_sentence(answer)
    assert (status, stderr) == (1, b'')
    assert seconds < pollster.DEADLINE


def test_an_exporter_that_does_not_even_accept_is_given_up_at_the_deadline(node):
    with socket.socket(socket.AF_UNIX) as full, contextlib.ExitStack() as waiting:
        full.bind(str(node.socket))
        full.listen(0)
        for _ in range(2):
            queued = waiting.enter_context(socket.socket(socket.AF_UNIX))
            queued.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                queued.connect(str(node.socket))
        status, answer, stderr = node.run_named(deadline=0.5)
    assert is_one_sentence(answer)
    assert b'no answer' in answer
    assert (status, stderr) == (1, b'')


def test_without_exporter_and_libvirt_there_is_a_sentence_not_an_empty_list(node):
    status, answer, stderr = node.run_named()
    assert is_one_sentence(answer)
    assert (status, stderr) == (1, b'')


@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [
        ([], b'pollster'),
        (['nonsense'], b'instances'),
        (['instances', '--config-file', '/nonexistent'], b'/nonexistent'),
        (['instances', '--nonsense'], b'--nonsense'),
        (['\N{SNOWMAN}'], b'instances'),
    ],
)
def test_a_wrong_command_line_is_one_sentence_and_status_2(node, arguments, reason):
    status, answer, stderr = node.run(*arguments)
    assert is_one_sentence(answer)
    assert reason in answer
    assert (status, stderr) == (2, b'')


def test_a_wrong_option_is_one_sentence_and_status_2(node):
    node.write('[collector]\ninterval = never\n')
    status, answer, stderr = node.run_named()
    assert is_one_sentence(answer)
    assert b'interval' in answer
    assert (status, stderr) == (2, b'')


def test_help_is_help(node):
    status, answer, stderr = node.run('--help')
    assert (status, stderr) == (0, b'')
    assert b'usage: oie-pollster' in answer


def test_the_way_over_the_socket_imports_nothing_heavy(node):
    code = (
        'import sys; from oie.cmd import pollster; pollster.ask(sys.argv[1:]);'
        'print(*sorted({name.partition(".")[0] for name in sys.modules}))'
    )
    with serving(node.socket, response()):
        done = subprocess.run(
            [sys.executable, '-c', code, 'instances', '--config-file', str(node.config)],
            capture_output=True,
            check=True,
            timeout=30,
        )
    loaded = set(done.stdout.decode().split())
    heavy = {'oslo_config', 'libvirt', 'json', 'logging', 'argparse', 'stevedore', 'numpy'}
    assert not loaded & heavy


# --- the long path ----------------------------------------------------------


class Source:
    """Stands for libvirt."""

    def __init__(self, reading):
        self.reading = reading

    def read(self):
        return self.reading


@pytest.fixture
def read_directly(node, monkeypatch):
    """Return a function that runs the long path over a reading."""

    def run(reading, name='instances', more=''):
        node.write(f'[DEFAULT]\nhost = cmp1\n{more}')
        source = Source(reading)
        monkeypatch.setattr(wiring, 'instances_source', lambda conf, *, remembers: source)
        return pollster_direct.collect([name, '--config-file', str(node.config)])

    return run


@pytest.mark.parametrize('name', ['instances', 'disks', 'vnics'])
def test_the_numbers_are_the_same_with_and_without_exporter(name, read_directly):
    snapshot = builders.node()
    answers = endpoint.Endpoint(
        lambda: service.Publication(snapshot, None),
        first=lambda: pytest.fail('not asked for'),
        content_type='',
        telemetry_path='/metrics',
        pollsters=wiring.pollsters(),
        max_age=lambda: 30,
        clock=lambda: builders.NOW,
    )
    route = answers.socket_routes()[f'/pollsters/{name}']['GET']
    over_socket = route.handler(web.Request(method='GET', path=f'/pollsters/{name}')).body
    assert read_directly(snapshot.instances, name) == (0, over_socket)


class Flows:
    """Stands for the connection tracking table."""

    def __init__(self, reading):
        self.reading = reading
        self.asked = []

    def read(self, instances, max_age, known):
        self.asked.append((instances, max_age))
        return {'flows': self.reading}


def test_flows_are_read_once_for_the_instances_and_for_no_other_list(read_directly, monkeypatch):
    snapshot = builders.node()
    flows = Flows(snapshot.flows)
    monkeypatch.setattr(wiring, 'flow_reader', lambda _conf: flows)
    expected = wiring.pollsters()['flows'].render(snapshot)
    assert read_directly(snapshot.instances, 'flows') == (0, expected)
    assert flows.asked == [(snapshot.instances.value, 0.0)]
    for name in ('instances', 'disks', 'vnics'):
        assert read_directly(snapshot.instances, name)[0] == 0
    assert len(flows.asked) == 1


def test_a_table_that_cannot_be_read_is_a_sentence(read_directly, monkeypatch):
    refused = builders.flows(value=None, read_at=None, error='EPERM; it needs CAP_NET_ADMIN')
    monkeypatch.setattr(wiring, 'flow_reader', lambda _conf: Flows(refused))
    status, text = read_directly(builders.reading(builders.instance()), 'flows')
    assert status == 1
    assert is_one_sentence(text)
    assert b'CAP_NET_ADMIN' in text


def test_a_table_that_is_switched_off_is_a_sentence(read_directly, monkeypatch):
    monkeypatch.setattr(wiring, 'flow_reader', lambda _conf: None)
    status, text = read_directly(builders.reading(builders.instance()), 'flows')
    assert status == 1
    assert b'[conntrack] enabled' in text


def test_contacts_are_not_guessed_without_the_exporter_that_counts(read_directly):
    status, text = read_directly(
        builders.reading(builders.instance()), 'contacts', '[threats]\nenabled_feeds = noop\n'
    )
    assert (status, text) == (
        1,
        b'oie-pollster: contacts are counted by a running oie-exporter only\n',
    )


class Namespaces:
    """Stands for the network namespaces."""

    is_closed = False

    def __init__(self, reading):
        self.reading = reading

    def read(self, instances, max_age):
        assert max_age > 0
        return {'namespaces': self.reading}

    def close(self):
        self.is_closed = True


LIBVIRT_IS_DOWN = builders.reading(error='libvirt is down')


def test_routers_are_read_without_libvirt(read_directly, monkeypatch):
    snapshot = builders.snapshot(namespaces=builders.namespaces(builders.netns()))
    namespaces = Namespaces(snapshot.namespaces)
    monkeypatch.setattr(wiring, 'network_namespaces', lambda _conf: namespaces)
    expected = wiring.pollsters()['routers'].render(snapshot)
    assert read_directly(LIBVIRT_IS_DOWN, 'routers') == (0, expected)
    assert namespaces.is_closed
    assert builders.ROUTER.encode() in expected


def test_routers_that_nobody_reads_are_an_empty_list(read_directly):
    assert read_directly(LIBVIRT_IS_DOWN, 'routers') == (0, b'[]\n')


def test_namespaces_that_cannot_be_read_are_a_sentence(read_directly, monkeypatch):
    refused = model.Reading(value=None, read_at=None, seconds=0.0, error='it needs CAP_SYS_ADMIN')
    monkeypatch.setattr(wiring, 'network_namespaces', lambda _conf: Namespaces(refused))
    status, text = read_directly(LIBVIRT_IS_DOWN, 'routers')
    assert status == 1
    assert is_one_sentence(text)
    assert b'CAP_SYS_ADMIN' in text


def test_an_empty_host_gives_an_empty_list(read_directly):
    assert read_directly(builders.reading()) == (0, b'[]\n')


def test_what_cannot_be_read_gives_a_sentence_even_with_old_values_at_hand(read_directly):
    reading = builders.reading(builders.instance(), error='libvirt\nis down \N{SNOWMAN}')
    status, text = read_directly(reading)
    assert status == 1
    assert is_one_sentence(text)
    assert text == b'oie-pollster: libvirt is down ?\n'


def test_a_socket_that_the_short_path_cannot_find_is_asked_by_the_long_one(node):
    node.config.write_text(f'[exporter]\nsocket_path: "{node.socket}"\n')
    assert node.ask() is None
    with serving(node.socket, response()):
        assert node.run_named() == (0, LIST, b'')
    # So does a directory of files.
    directory = node.config.parent / 'd'
    directory.mkdir()
    (directory / 'a.conf').write_text(f'[exporter]\nsocket_path = {node.socket}\n')
    node.socket.unlink()
    with serving(node.socket, response()):
        assert node.run('instances', '--config-dir', str(directory)) == (0, LIST, b'')


def test_the_direct_reading_does_not_touch_the_list_of_suspects(node, monkeypatch):
    asked = []

    def source(conf, *, remembers):
        asked.append(remembers)
        return Source(model.Reading(value=(), read_at=builders.NOW, seconds=0.1))

    monkeypatch.setattr(wiring, 'instances_source', source)
    pollster_direct.collect(['instances', '--config-file', str(node.config)])
    assert asked == [False]
