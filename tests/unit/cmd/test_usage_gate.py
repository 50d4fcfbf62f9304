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

"""oie-usage-gate writes what the gate reads, tells a running one, and says what is wrong."""

import os
import socket
import stat
import threading

import pytest

from oie.cmd import usage_gate
from oie.federation import files
from oie.federation import request_lines
from oie.federation import tokens

LINE = '/federate?match%5B%5D=up\n'


@pytest.fixture
def run(tmp_path, capsys):
    """Return a function that runs a command and gives its status, output and errors."""
    config = tmp_path / 'oie.conf'
    config.write_text(
        f'[gate]\ndirectory = {tmp_path}/gate\nsocket_path =\nselectors = up\n', encoding='utf-8'
    )

    def run(*words, more=''):
        if more:
            # An option may stand there twice only where each line counts.
            name = more.partition(' ')[0]
            lines = config.read_text().splitlines()
            kept = [line for line in lines if name == 'selectors' or line.split()[0] != name]
            config.write_text('\n'.join([*kept, more, '']))
        try:
            status = usage_gate.run(['--config-file', str(config), *words])
        except SystemExit as exc:
            status = exc.code
        found = capsys.readouterr()
        return status, found.out, found.err

    return run


@pytest.mark.parametrize('words', [('generate',), ('token', 'list')])
def test_files_may_be_named_before_and_behind_the_command(run, tmp_path, words):
    later = tmp_path / 'later.conf'
    later.write_text('[gate]\ncolour = red\n', encoding='utf-8')
    status, _, errors = run(*words, '--config-file', str(later))
    assert status == 2
    assert f'{later}:2: [gate] colour' in errors
    later.write_text(f'[gate]\ndirectory = {tmp_path}/other\n', encoding='utf-8')
    assert run(*words, '--config-file', str(later))[0] == 0


@pytest.fixture
def haproxy(tmp_path):
    """A stats socket that writes down the commands and answers what the test says."""
    heard, answers = [], []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / 'admin.sock'))
        listener.listen()

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    heard.append(connection.recv(4096).decode())
                    connection.sendall((answers.pop(0) if answers else '\n').encode())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield heard, answers, f'socket_path = {tmp_path}/admin.sock'
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_generate_writes_the_list_and_an_empty_map(run, tmp_path):
    status, out, err = run('generate', more='selectors = {a="b"} {c="d"}')
    listed = tmp_path / 'gate/allowed_uris.lst'
    assert (status, err) == (0, '')
    assert listed.read_text() == (
        f'{LINE}/federate?match%5B%5D=%7Ba%3D%22b%22%7D&match%5B%5D=%7Bc%3D%22d%22%7D\n'
    )
    assert (tmp_path / 'gate/tokens.map').read_text() == ''
    assert "- '{c=\"d\"}'" in out
    assert 'written; reload HAProxy' in out
    assert (mode(listed), mode(tmp_path / 'gate/tokens.map')) == (0o644, 0o600)


def test_generate_refuses_a_request_that_no_gate_would_take(run, tmp_path):
    run('generate')
    listed = tmp_path / 'gate/allowed_uris.lst'
    names = '|'.join(f'oie_{number}' for number in range(2500))
    status, out, err = run('generate', more=f'selectors = {{__name__=~"{names}"}}')
    size = len(request_lines.request_line([f'{{__name__=~"{names}"}}']))
    assert (status, out) == (2, '')
    assert err == (
        'oie-usage-gate: [gate] selectors, {__name__=~"oie_0|oie_1|oie_2|oie_3|oie_...: the '
        f'request has {size} bytes and [gate] max_line_bytes is 12288; write several lines of '
        'selectors, a scrape job of the portal for each, or raise max_line_bytes and '
        'tune.bufsize in haproxy.cfg, which must be larger by 4096\n'
    )
    # What was right before is what it was.
    assert listed.read_text() == LINE
    more = f'max_line_bytes = {size}'
    assert run('generate', more=more)[::2] == (0, '')
    assert len(listed.read_text().splitlines()[1]) == size


def test_generate_keeps_the_tokens_and_says_when_nothing_changed(run, tmp_path):
    run('generate')
    run('token', 'new', 'portal')
    before = (tmp_path / 'gate/tokens.map').read_text()
    _, out, _ = run('generate')
    assert 'unchanged' in out
    assert (tmp_path / 'gate/tokens.map').read_text() == before != ''


def test_token_is_printed_once_and_only_its_hash_is_kept(run, tmp_path):
    run('generate')
    status, out, err = run('token', 'new', 'portal')
    [token] = out.split()
    line = f'{tokens.hash_of(token)} portal\n'
    assert (status, (tmp_path / 'gate/tokens.map').read_text()) == (0, line)
    assert err.endswith(f'\nadd map {tmp_path}/gate/tokens.map {line}')
    assert token not in err
    assert run('token', 'list')[1] == f'{tokens.hash_of(token)[:12]}  portal\n'


def test_token_of_a_file_becomes_valid_and_is_not_printed(run, tmp_path):
    run('generate')
    path = tmp_path / 'token'
    path.write_text('x' * 40 + '\n')
    path.chmod(0o600)
    status, out, _ = run('token', 'new', 'portal', '--token-file', str(path))
    assert (status, out) == (0, '')
    assert (tmp_path / 'gate/tokens.map').read_text() == f'{tokens.hash_of("x" * 40)} portal\n'
    status, out, err = run('token', 'new', 'again', '--token-file', str(path))
    assert (status, out) == (1, '')
    assert 'in the map already' in err


def test_running_gate_is_told_of_new_and_removed_tokens(run, haproxy, tmp_path):
    heard, _, option = haproxy
    run('generate', more=option)
    first, second = (tokens.hash_of(run('token', 'new', 'portal')[1].strip()) for _ in range(2))
    status, out, err = run('token', 'remove', 'portal', '--older')
    path = f'{tmp_path}/gate/tokens.map'
    assert (status, out, err) == (0, '', '')
    assert heard == [
        f'add map {path} {first} portal\n',
        f'add map {path} {second} portal\n',
        f'del map {path} {first}\n',
    ]


def test_gate_that_refuses_a_command_is_an_error_with_the_command(run, haproxy, tmp_path):
    _, answers, option = haproxy
    run('generate', more=option)
    run('token', 'new', 'portal')
    answers.append('Unknown map identifier. Please use #<id> or <file>.\n')
    status, _, err = run('token', 'remove', 'portal')
    assert status == 1
    assert 'Unknown map identifier' in err
    assert f'\ndel map {tmp_path}/gate/tokens.map ' in err


def test_without_a_running_gate_a_new_token_is_well_and_an_end_is_not(run, tmp_path):
    run('generate', more=f'socket_path = {tmp_path}/none.sock')
    status, _, err = run('token', 'new', 'portal')
    assert status == 0
    assert 'no running gate has heard of the new token of portal' in err
    status, _, err = run('token', 'remove', 'portal')
    assert status == 1
    assert 'no running gate has heard of the end of 1 tokens of portal' in err
    assert (tmp_path / 'gate/tokens.map').read_text() == ''


@pytest.mark.parametrize(
    ('words', 'more', 'reason'),
    [
        ((), '', 'COMMAND'),
        (('frobnicate',), '', 'frobnicate'),
        (('generate', '--frobnicate'), '', 'frobnicate'),
        (('token', 'new'), '', 'NAME'),
        (('token', 'new', 'a b'), '', 'no name of a portal'),
        (('token', 'new', 'p', '--token-file', '/nonexistent'), '', '/nonexistent'),
        (('generate',), 'selectors = {a=""}', 'every series'),
        (('generate',), 'path = federate', 'is not a path'),
        (('generate',), 'directory = x', 'absolute'),
        (('generate',), 'colour = red', 'unknown option'),
        (('check', 'gate'), '', 'http://HOST:PORT'),
        (('check', 'http://127.0.0.1:1'), '', 'see that the gate runs'),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(run, words, more, reason):
    status, out, err = run(*words, more=more)
    assert (status, out, err.count('\n')) == (2, '', 1)
    assert reason in err


@pytest.mark.parametrize(
    ('words', 'reason'),
    [
        (('token', 'new', 'p'), 'make the directory'),
        (('token', 'remove', 'p'), 'make the directory'),
    ],
)
def test_missing_directory_is_one_line_and_status_1(run, words, reason):
    status, out, err = run(*words)
    assert (status, out, err.count('\n')) == (1, '', 1)
    assert reason in err


def test_broken_map_is_not_replaced(run, tmp_path):
    run('generate')
    path = tmp_path / 'gate/tokens.map'
    path.write_text('a token that somebody pasted\n')
    for words in (('new', 'p'), ('remove', 'p'), ('list',)):
        status, out, err = run('token', *words)
        assert (status, out) == (1, '')
        assert 'pasted' not in err
    assert path.read_text() == 'a token that somebody pasted\n'


def test_group_may_read_the_map_and_others_may_not(run, tmp_path):
    status, _, _ = run('generate', more=f'group = {os.getgid()}')
    path = tmp_path / 'gate/tokens.map'
    assert (status, mode(path), path.stat().st_gid) == (0, 0o640, os.getgid())


def test_unknown_group_is_told_and_nothing_is_written(run, tmp_path):
    status, _, err = run('generate', more='group = no-such-group-here')
    assert status == 1
    assert '[gate] group = no-such-group-here' in err
    assert not (tmp_path / 'gate/tokens.map').exists()


def test_token_file_that_everybody_may_read_is_refused(run, tmp_path):
    path = tmp_path / 'token'
    path.write_text('x' * 40)
    path.chmod(0o644)
    status, _, err = run('check', 'http://127.0.0.1:1', '--token-file', str(path))
    assert status == 2
    assert 'chmod o=' in err
    assert 'xxxx' not in err


def test_failed_replacement_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / 'file'
    files.replace(str(path), 'old', mode=0o600)

    def fail(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', fail)
    with pytest.raises(Exception, match='No space left'):
        files.replace(str(path), 'new', mode=0o600)
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['file']


def test_all_at_once_lose_no_token(run, tmp_path):
    run('generate')
    directory = str(tmp_path / 'gate')
    path = os.path.join(directory, 'count')
    files.replace(path, '0', mode=0o600)

    def add():
        for _ in range(20):
            with files.locked(directory):
                files.replace(path, str(int(files.read(path)) + 1), mode=0o600)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert files.read(path) == '80'
