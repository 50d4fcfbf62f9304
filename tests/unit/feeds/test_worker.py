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

"""What the real worker process promises: the list, no rights, and no trust in any driver."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time

import pytest

from oie import exceptions
from oie.feeds import children
from oie.feeds import wire
from tests.unit.feeds import feed_server
from tests.unit.feeds import working

SPY = """
    import json, os, pathlib, resource, sys, time
    from oie import exceptions
    from oie.feeds import base

    class Spy(base.ThreatFeed):
        def sources(self):
            return (self.settings.path,)

        def parse(self, document):
            yield '5.6.7.8'
            getattr(self, document.decode().strip())()

        def tell(self):
            lines = pathlib.Path('/proc/self/status').read_text().splitlines()
            status = dict(line.split(':', 1) for line in lines)
            names = ('CapEff', 'CapPrm', 'CapInh', 'CapAmb', 'NoNewPrivs', 'Threads', 'Uid')
            told = {name: status[name].strip() for name in names}
            told['nice'] = os.nice(0)
            told['umask'] = os.umask(0)
            told['oom'] = int(pathlib.Path('/proc/self/oom_score_adj').read_text())
            for name in ('RLIMIT_AS', 'RLIMIT_CPU', 'RLIMIT_CORE'):
                told[name] = resource.getrlimit(getattr(resource, name))
            raise exceptions.FeedError(json.dumps(told))

        def chat(self):
            print('hello')
            os.write(1, b'hello again')

        def hang(self):
            pathlib.Path(self.settings.note).write_text(str(os.getpid()))
            while True:
                try:
                    time.sleep(60)
                except BaseException:
                    pass

        def spin(self):
            while True:
                pass

        def bloat(self):
            bytearray(2**31)

        def crash(self):
            os.abort()

        def err(self):
            raise KeyError('https://feeds.example/?key=hush')
"""
NO_RIGHTS = dict.fromkeys(('CapEff', 'CapPrm', 'CapInh', 'CapAmb'), '0' * 16)
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason='only root has rights to give up')


@pytest.fixture
def place():
    """Return a directory that every user can read."""
    with tempfile.TemporaryDirectory(prefix='oie-worker-') as name:
        os.chmod(name, 0o755)  # noqa: S103, the workers of other users are tested too
        yield pathlib.Path(name)


@pytest.fixture
def spy(place, monkeypatch):
    """Return a job whose list is read by a driver of another package, which does as it is told."""
    info = place / 'oie_spy-1.dist-info'
    info.mkdir()
    (place / 'oie_spy.py').write_text(textwrap.dedent(SPY))
    (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: oie-spy\nVersion: 1\n')
    (info / 'entry_points.txt').write_text('[oie.threat_feeds]\nspy = oie_spy:Spy\n')
    monkeypatch.setenv('PYTHONPATH', str(place), prepend=os.pathsep)

    def job(order: str, **fields: object) -> wire.Job:
        (place / 'order').write_text(order)
        options = {'path': str(place / 'order'), 'note': str(place / 'note')}
        job = working.job(cache_dir=str(place / 'cache'), settings=options, **fields)
        return dataclasses.replace(job, driver='spy')

    return job


def run(job: wire.Job, **more: object) -> wire.Answer:
    return children.Runner(**more).run(job, threading.Event())


def wait_until(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    path = pathlib.Path(f'/proc/{pid}/status')
    try:
        return 'State:\tZ' not in path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


class TestLists:
    def test_a_file_is_read_kept_and_loaded_again(self, tmp_path):
        (tmp_path / 'list').write_bytes(working.ONE)
        job = working.job(
            cache_dir=str(tmp_path / 'cache'), settings={'path': str(tmp_path / 'list')}
        )
        answer = run(job)
        assert answer.status is wire.Status.ACCEPTED
        assert answer.entries == 3
        assert working.holds(answer.addresses, '5.6.7.8')
        assert working.holds(answer.addresses, '2a00:1::8')
        assert not working.holds(answer.addresses, '5.6.8.1')
        (tmp_path / 'list').unlink()
        again = run(dataclasses.replace(job, mode=wire.Mode.LOAD))
        assert again.status is wire.Status.LOADED
        assert again.documents == answer.documents
        assert working.holds(again.addresses, '5.6.7.8')

    def test_a_publisher_is_asked_over_tls(self, tmp_path):
        with feed_server.FeedServer(tls=True) as server:
            server.play('/list', feed_server.packed(working.TWO))
            job = working.job(
                cache_dir=str(tmp_path),
                settings={'url': server.url('/list'), 'ca_file': server.ca_file},
            )
            answer = run(job)
        assert answer.error == ''
        assert working.holds(answer.addresses, '45.0.1.2')

    def test_a_failure_is_an_answer(self, tmp_path):
        with feed_server.FeedServer() as server:
            server.play('*', feed_server.answer(status=503, headers={'Retry-After': '60'}))
            job = working.job(
                cache_dir=str(tmp_path), settings={'url': server.url('/list?k=hush')}
            )
            answer = run(job)
        assert answer.status is wire.Status.FAILED
        assert answer.retry_after == 60.0
        assert 'hush' not in answer.error


class TestConfinement:
    def told(self, job: wire.Job, **more: object) -> dict[str, object]:
        found: dict[str, object] = json.loads(run(job, **more).error)
        return found

    @ROOT_ONLY
    def test_root_gives_up_everything(self, spy):
        told = self.told(spy('tell'))
        assert NO_RIGHTS.items() <= told.items()
        assert told['NoNewPrivs'] == '1'

    def test_limits_are_set_before_anything_is_read(self, spy):
        told = self.told(spy('tell'))
        assert told['Threads'] == '1'
        assert told['nice'] == min(os.nice(0) + 10, 19)
        assert told['umask'] == 0o027
        assert told['oom'] == 1000
        assert told['RLIMIT_AS'] == [2**30, 2**30]
        assert told['RLIMIT_CPU'] == [60, 60]
        assert told['RLIMIT_CORE'] == [0, 0]

    @ROOT_ONLY
    @pytest.mark.skipif(not shutil.which('setpriv'), reason='setpriv is not installed')
    def test_a_user_with_ambient_capabilities_gives_them_up(self, spy):
        user = (
            'setpriv --reuid=65534 --regid=65534 --clear-groups '
            '--inh-caps=+net_admin,+sys_admin --ambient-caps=+net_admin,+sys_admin'
        ).split()
        held = subprocess.run([*user, 'cat', '/proc/self/status'], capture_output=True, text=True)
        assert 'CapAmb:\t0000000000201000' in held.stdout
        probe = [*user, sys.executable, '-c', 'import oie.feeds.jobs']
        if subprocess.run(probe, capture_output=True, cwd='/').returncode:
            pytest.skip('user 65534 cannot read this installation')
        told = self.told(spy('tell'), command=(*user, *children.COMMAND))
        assert NO_RIGHTS.items() <= told.items()
        assert told['Uid'].split() == ['65534'] * 4


class TestDrivers:
    def test_what_a_driver_prints_is_no_part_of_the_answer(self, spy):
        assert run(spy('chat')).entries == 1

    def test_a_driver_that_swallows_the_deadline_is_killed(self, spy, place):
        with pytest.raises(exceptions.FeedError, match='in time and was killed'):
            run(spy('hang', seconds=0.5), grace=4.0)
        assert not is_running(int((place / 'note').read_text()))

    def test_a_driver_that_never_ends_is_ended_at_the_deadline(self, spy):
        answer = run(spy('spin', seconds=0.5))
        assert answer.status is wire.Status.FAILED
        assert 'within 0.5 s' in answer.error

    def test_a_driver_that_takes_all_memory_gets_none(self, spy):
        assert 'more memory' in run(spy('bloat')).error

    def test_a_crash_is_told(self, spy):
        with pytest.raises(exceptions.FeedError, match='SIGABRT'):
            run(spy('crash'))

    def test_a_mistake_of_a_driver_is_told_in_a_line_without_queries(self, spy):
        with pytest.raises(exceptions.FeedError, match='KeyError') as caught:
            run(spy('err'))
        assert 'hush' not in str(caught.value)
        assert '\n' not in str(caught.value)


class TestParent:
    def test_a_worker_whose_parent_is_another_one_does_nothing(self, spy):
        with pytest.raises(exceptions.FeedError, match='status 1: without a word'):
            run(spy('chat', parent=os.getpid() + 1))

    def test_a_worker_dies_with_the_daemon(self, spy, place):
        daemon = subprocess.Popen(
            [sys.executable, '-c', DAEMON], stdin=subprocess.PIPE, start_new_session=True
        )
        try:
            job = spy('hang', parent=daemon.pid)
            daemon.stdin.write(wire.encode_job(job))
            daemon.stdin.close()
            wait_until(lambda: (place / 'note').exists() and (place / 'note').read_text())
            worker = int((place / 'note').read_text())
            assert is_running(worker)
        finally:
            daemon.send_signal(signal.SIGKILL)
            daemon.wait()
        wait_until(lambda: not is_running(worker))


DAEMON = """
import sys, threading
from oie.feeds import children, wire
job = wire.decode_job(sys.stdin.buffer.read())
thread = threading.Thread(target=children.Runner().run, args=(job, threading.Event()))
thread.start()
"""
