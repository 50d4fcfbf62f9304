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

import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest

from oie.sources.guest_os import sessions

ENVIRONMENT = {'PATH': '/usr/bin:/bin'}


def run(
    program: str,
    *,
    question: bytes = b'',
    seconds: float = 20.0,
    stop: threading.Event | None = None,
    runner: sessions.Runner | None = None,
) -> sessions.Ending:
    return (runner or sessions.Runner()).run(
        (sys.executable, '-I', '-c', program),
        question,
        environment=ENVIRONMENT,
        seconds=seconds,
        stop=stop or threading.Event(),
    )


def test_answer_words_and_status_come_back():
    ending = run(
        'import sys; print(sys.stdin.read()); print("why", file=sys.stderr); sys.exit(3)',
        question=b'asked',
    )
    assert ending == sessions.Ending(b'asked\n', 'why\n', 3)


def test_only_the_given_environment_is_there():
    ending = run('import os; print(sorted(set(os.environ) - {"LC_CTYPE"}))')
    assert ending.output == b"['PATH']\n"


def test_large_question_and_answer_do_not_wait_for_each_other():
    question = b'x' * 60_000
    ending = run('import sys; sys.stdout.write(sys.stdin.read())', question=question)
    assert ending.output == question


def test_question_that_nobody_reads_does_not_hold_us():
    assert run('pass', question=b'x' * 2**20).status == 0


def test_endless_answer_is_cut_off_and_its_writer_killed():
    ending = run('while True: print("x" * 1000)')
    assert (ending.why, ending.status) == ('output', None)
    assert len(ending.output) < 2**18


def test_only_the_end_of_long_complaints_is_kept():
    ending = run('import sys; sys.stderr.write("x" * 100000 + "end")')
    assert len(ending.said) == 4096
    assert ending.said.endswith('end')


def test_limit_ends_the_whole_session_also_other_process_groups(tmp_path):
    pids = tmp_path / 'pids'
    program = (
        'import os, subprocess, sys, time\n'
        'other = subprocess.Popen(["sleep", "1000"], preexec_fn=lambda: os.setpgid(0, 0))\n'
        'same = subprocess.Popen(["sleep", "1000"])\n'
        f'open({str(pids)!r}, "w").write(f"{{os.getpid()}} {{other.pid}} {{same.pid}}")\n'
        'print("before", flush=True)\n'
        'time.sleep(1000)'
    )
    began = time.monotonic()
    ending = run(program, seconds=2.0)
    assert time.monotonic() - began < 5
    assert (ending.why, ending.status, ending.output) == ('timeout', None, b'before\n')
    check_are_gone(pids)


def test_what_a_program_leaves_behind_is_ended_with_it(tmp_path):
    pids = tmp_path / 'pids'
    program = (
        'import subprocess\n'
        'left = subprocess.Popen(["sleep", "1000"])\n'
        f'open({str(pids)!r}, "w").write(str(left.pid))\n'
        'print("done")'
    )
    began = time.monotonic()
    assert run(program).output == b'done\n'
    assert time.monotonic() - began < 5
    check_are_gone(pids)


def check_are_gone(pids: pathlib.Path) -> None:
    for pid in pids.read_text().split():
        path = pathlib.Path('/proc', pid, 'stat')
        assert not path.exists() or path.read_text().rpartition(')')[2].split()[0] == 'Z'


def test_stop_ends_it_at_once():
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    began = time.monotonic()
    assert run('import time; time.sleep(1000)', stop=stop).why == 'stopped'
    assert time.monotonic() - began < 5


def test_program_that_is_missing_is_an_os_error():
    with pytest.raises(FileNotFoundError):
        sessions.Runner().run(('/none',), b'', environment={}, seconds=1.0, stop=threading.Event())


def test_no_program_is_started_while_a_killed_one_does_not_end():
    runner = sessions.Runner()
    with subprocess.Popen(('sleep', '1000')) as stuck:
        runner._stuck = stuck
        with pytest.raises(sessions.NotEnded, match=str(stuck.pid)):
            run('pass', runner=runner)
        stuck.kill()
        stuck.wait()
        assert run('print(1)', runner=runner).output == b'1\n'


def test_members_are_the_living_of_a_session():
    with subprocess.Popen(('sleep', '1000'), start_new_session=True) as process:
        assert list(sessions.members(process.pid)) == [process.pid]
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert list(sessions.members(process.pid)) == []
