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

"""What a Runner promises: an answer in time or an error, and no process left, whatever it runs."""

import os
import pathlib
import subprocess
import sys
import threading
import time
from unittest import mock

import pytest

from oie import exceptions
from oie.feeds import children
from oie.feeds import wire
from tests.unit.feeds import working

ANSWER = b''.join(wire.encode_answer(wire.Answer(status=wire.Status.ABSENT, entries=7)))
GOOD = f'import sys; sys.stdin.read(); sys.stdout.buffer.write({ANSWER!r})'
LONG = 60.0


@pytest.fixture
def run(tmp_path):
    """Run a program as the worker; it finds a file for its number in ``sys.argv[1]``."""

    def run(code: str, seconds: float = LONG, stop: threading.Event | None = None, **fields):
        command = (sys.executable, '-c', code, str(tmp_path / 'pid'))
        runner = children.Runner(command, grace=0.0)
        return runner.run(working.job(seconds=seconds, **fields), stop or threading.Event())

    return run


def is_running(pid: int) -> bool:
    try:
        status = pathlib.Path(f'/proc/{pid}/status').read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return 'State:\tZ' not in status


def wait_until(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_answer_comes_back(run):
    assert run(GOOD).entries == 7


def test_the_worker_reads_the_job_however_long_it_is(run):
    networks = tuple(f'45.{n // 256}.{n % 256}.0/24' for n in range(50000))
    code = f'import sys; assert len(sys.stdin.read()) > 900000; {GOOD}'
    assert run(code, own_networks=networks).entries == 7


def test_a_worker_that_does_not_listen_is_no_error(run):
    networks = ('45.0.0.0/24',) * 50000
    code = f'import sys; sys.stdout.buffer.write({ANSWER!r})'
    assert run(code, own_networks=networks).entries == 7


@pytest.mark.parametrize(
    ('code', 'reason'),
    [
        ('', 'no proper answer'),
        ('print(1)', 'no proper answer'),
        (f'{GOOD}; print()', 'no proper answer'),
        ('raise KeyError(5)', 'itself with status 1: KeyError: 5$'),
        (f'{GOOD}; sys.exit(3)', 'itself with status 3: without a word'),
        ('import os; os.kill(os.getpid(), 9)', 'SIGKILL: without a word'),
        ('import os; os.abort()', 'SIGABRT'),
        ('print("x" * 3000000); import time; time.sleep(60)', 'more than .* bytes'),
    ],
)
def test_anything_else_is_told(run, code, reason):
    with pytest.raises(exceptions.FeedError, match=reason):
        run(code, settings={'max_entries': 1})


def test_queries_of_urls_are_not_told(run):
    with pytest.raises(exceptions.FeedError) as caught:
        run('raise ValueError("https://feeds.example/list?key=hush&x=1 is wrong")')
    assert 'hush' not in str(caught.value)
    assert 'https://feeds.example/list?... is wrong' in str(caught.value)


def test_only_the_last_words_are_kept(run):
    with pytest.raises(exceptions.FeedError) as caught:
        run('import sys; sys.exit("x" * 100000 + "end")')
    assert len(str(caught.value)) < 5000
    assert str(caught.value).endswith('end')


NOTE = 'import os, sys, time; open(sys.argv[1], "w").write(str(os.getpid())); '


@pytest.mark.parametrize(
    'code',
    [
        'time.sleep(60)',
        'os.close(1); os.close(2); time.sleep(60)',
        'import signal; signal.pthread_sigmask(0, range(1, 65)); time.sleep(60)',
        # A child of the worker goes too, and does not keep us waiting.
        'os.fork() and sys.exit(); open(sys.argv[1], "w").write(str(os.getpid())); time.sleep(60)',
    ],
)
def test_a_worker_that_hangs_is_killed_with_its_children(run, tmp_path, code):
    started = time.monotonic()
    with pytest.raises(exceptions.FeedError, match='in time and was killed'):
        run(NOTE + code, seconds=1.0)
    assert time.monotonic() - started < 10
    wait_until(lambda: not is_running(int((tmp_path / 'pid').read_text())))


def test_a_stop_ends_the_worker_at_once(run, tmp_path):
    stop = threading.Event()
    ended: list[float] = []

    def work():
        with pytest.raises(children.Stopped):
            run(NOTE + 'time.sleep(60)', stop=stop)
        ended.append(time.monotonic())

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    wait_until(lambda: (tmp_path / 'pid').exists() and (tmp_path / 'pid').read_text())
    stopped = time.monotonic()
    stop.set()
    thread.join(10)
    assert ended[0] - stopped < 1.0
    assert not is_running(int((tmp_path / 'pid').read_text()))


def test_no_process_is_left_behind(run):
    run(GOOD)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_program_that_cannot_be_started_is_told_apart():
    runner = children.Runner(('/nonexistent/program',))
    with pytest.raises(children.NotStarted, match='no worker can be started'):
        runner.run(working.job(), threading.Event())


def test_one_that_does_not_end_has_no_successor_until_it_is_gone():
    runner = children.Runner((sys.executable, '-c', GOOD))
    kept = subprocess.TimeoutExpired('worker', 5)
    with (
        mock.patch.object(subprocess.Popen, 'wait', autospec=True, side_effect=kept),
        mock.patch.object(subprocess.Popen, 'poll', autospec=True, return_value=None),
    ):
        assert runner.run(working.job(), threading.Event()).entries == 7
        with pytest.raises(children.NotStarted, match=r'does not end .pid \d+'):
            runner.run(working.job(), threading.Event())
    assert runner.run(working.job(), threading.Event()).entries == 7


def test_the_environment_holds_neither_proxies_nor_secrets(run, monkeypatch):
    for name in ('http_proxy', 'HTTPS_PROXY', 'ALL_PROXY', 'REQUESTS_CA_BUNDLE', 'AWS_SECRET'):
        monkeypatch.setenv(name, 'http://192.0.2.1:3128')
    with pytest.raises(exceptions.FeedError) as caught:
        run('import os, sys; sys.exit(" ".join(sorted(os.environ)) + " " + os.getcwd())')
    assert '192.0.2.1' not in str(caught.value)
    assert 'proxy' not in str(caught.value).lower()
    assert str(caught.value).endswith(' /')
