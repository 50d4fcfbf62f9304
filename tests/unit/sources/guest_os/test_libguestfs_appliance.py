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

import contextlib
import fcntl
import json
import os
import pathlib
import stat
import threading
import types

import pytest

from oie.sources.guest_os import appliance
from oie.sources.guest_os import base
from oie.sources.guest_os import inspection_child
from oie.sources.guest_os import sessions

DISK = {'path': '/i/disk', 'format': 'raw', 'backing': []}
FOUND = sessions.Ending(b'{"roots": [{"type": "linux"}], "seconds": 9.1}', '', 0)
LATE = sessions.Ending(b'', '', None, 'timeout')
LATE_INSIDE = sessions.Ending(b'', f'{inspection_child.LAUNCHED}\n', None, 'timeout')


class FakeRunner:
    """Ends as it is told; remembers how it was called."""

    def __init__(self, *endings: sessions.Ending) -> None:
        self.endings = list(endings)
        self.jobs: list[dict[str, object]] = []
        self.environments: list[dict[str, str]] = []
        self.commands: list[tuple[str, ...]] = []

    def run(self, command, question, *, environment, seconds, stop):
        self.commands.append(tuple(command))
        self.jobs.append(json.loads(question))
        self.environments.append(dict(environment))
        assert pathlib.Path(environment['TMPDIR']).is_dir()
        return self.endings.pop(0)

    @property
    def is_emulated(self) -> list[bool]:
        return ['LIBGUESTFS_BACKEND_SETTINGS' in each for each in self.environments]


@pytest.fixture
def home(tmp_path):
    return tmp_path / 'cache'


@pytest.fixture(autouse=True)
def _python(monkeypatch):
    monkeypatch.setattr('oie.sources.guest_os.pythons.find', lambda wanted='': '/usr/bin/python3')


def made(home, *endings, kvm='/dev/null', **more):
    values = {
        'timeout': 120.0,
        'cache_dir': str(home),
        'user': '',
        'python': '',
        'memory': 768,
        'force_tcg': 'auto',
        'emulator': '',
    }
    found = appliance.Appliance(
        types.SimpleNamespace(**{**values, **more}), threading.Event(), kvm=kvm
    )
    found._runner = FakeRunner(*endings)
    return found


def failure_of(found, *disks):
    with pytest.raises(base.InspectionFailed) as caught:
        found.look(disks or [DISK])
    return caught.value


class TestLook:
    def test_job_has_the_disks_and_the_limits(self, home):
        found = made(home, FOUND)
        assert found.look([DISK, DISK, DISK]) == [{'type': 'linux'}]
        (job,) = found._runner.jobs
        assert job['disks'] == [DISK] * 3
        assert job['attempts'] == [1, 3]
        assert job['parent'] == os.getpid()
        assert job['user'] is None
        assert job['memory_mib'] == 768
        assert job['limits']['RLIMIT_CPU'] == 130
        assert job['limits']['RLIMIT_AS'] > 2**32
        assert found._runner.commands == [
            ('/usr/bin/python3', '-I', inspection_child.__file__),
        ]

    def test_one_disk_is_looked_at_once(self, home):
        found = made(home, FOUND)
        found.look([DISK])
        assert found._runner.jobs[0]['attempts'] == [1]

    def test_environment_is_ours_alone(self, home, monkeypatch):
        monkeypatch.setenv('LIBGUESTFS_DEBUG', '1')
        monkeypatch.setenv('SECRET', 'x')
        found = made(home, FOUND, emulator='/usr/bin/qemu')
        found.look([DISK])
        (environment,) = found._runner.environments
        assert environment['LIBGUESTFS_BACKEND'] == 'direct'
        assert environment['LIBGUESTFS_HV'] == '/usr/bin/qemu'
        assert environment['LIBGUESTFS_CACHEDIR'] == str(home / f'appliance-{os.geteuid()}')
        assert {'LIBGUESTFS_DEBUG', 'SECRET'}.isdisjoint(environment)
        assert environment['TMPDIR'].startswith(str(home / 'run'))

    def test_nothing_of_a_look_is_left_nor_of_one_that_was_cut_off(self, home):
        (home / 'run' / 'old').mkdir(parents=True)
        (home / 'run' / 'old' / 'overlay').touch()
        made(home, FOUND).look([DISK])
        assert list((home / 'run').iterdir()) == []

    def test_appliance_is_kept_where_nobody_else_may_go(self, home):
        made(home, FOUND).look([DISK])
        place = home / f'appliance-{os.geteuid()}'
        assert stat.S_IMODE(place.stat().st_mode) == 0o700

    def test_only_one_program_looks_below_a_directory(self, home):
        home.mkdir()
        with contextlib.closing(os.fdopen(os.dup(0))):
            place = os.open(home, os.O_RDONLY)
            fcntl.flock(place, fcntl.LOCK_EX)
            assert failure_of(made(home, FOUND)).reason == 'setup'
            os.close(place)
        assert made(home, FOUND).look([DISK])

    def test_directory_that_cannot_be_made_is_told(self, tmp_path):
        (tmp_path / 'file').touch()
        failure = failure_of(made(tmp_path / 'file' / 'cache'))
        assert failure.reason == 'setup'
        assert 'cache_dir' in str(failure)

    def test_user_who_does_not_exist_is_told(self, home, monkeypatch):
        monkeypatch.setattr(os, 'geteuid', lambda: 0)
        failure = failure_of(made(home, user='no-such-user'))
        assert (failure.reason, 'no-such-user' in str(failure)) == ('setup', True)

    def test_user_is_not_looked_at_without_root(self, home, monkeypatch):
        monkeypatch.setattr(os, 'geteuid', lambda: 4242)
        found = made(home, FOUND, user='no-such-user')
        assert found._user() is None

    def test_python_without_guestfs_is_told_and_not_searched_each_time(self, home, monkeypatch):
        searches = []
        monkeypatch.setattr('oie.sources.guest_os.pythons.find', searches.append)
        found = made(home)
        for _ in range(3):
            failure = failure_of(found)
            assert (failure.reason, 'python3-guestfs' in str(failure)) == ('setup', True)
        assert searches == ['']


class TestKvm:
    def test_without_kvm_it_is_emulated(self, home):
        found = made(home, FOUND, kvm='/dev/none')
        found.look([DISK])
        assert found._runner.is_emulated == [True]

    def test_kvm_is_used_where_it_is(self, home):
        found = made(home, FOUND)
        found.look([DISK])
        assert found._runner.is_emulated == [False]

    def test_kvm_that_hangs_is_replaced_at_once_and_remembered(self, home, caplog):
        found = made(home, LATE, FOUND, FOUND)
        assert found.look([DISK]) == [{'type': 'linux'}]
        found.look([DISK])
        assert found._runner.is_emulated == [False, True, True]
        assert 'force_tcg' in caplog.text
        again = made(home, FOUND)
        again.look([DISK])
        assert again._runner.is_emulated == [True]

    def test_next_boot_of_the_host_tries_it_again(self, home, tmp_path, monkeypatch):
        made(home, LATE, FOUND).look([DISK])
        boot = tmp_path / 'boot_id'
        boot.write_text('another\n')
        monkeypatch.setattr('oie.sources.guest_os.disks.BOOT_ID', str(boot))
        assert not made(home).is_emulated()

    def test_slow_inspection_is_not_the_fault_of_kvm(self, home):
        found = made(home, LATE_INSIDE)
        assert failure_of(found).reason == 'timeout'
        assert not found.is_emulated()

    @pytest.mark.parametrize(('wanted', 'is_emulated'), [('true', True), ('false', False)])
    def test_operator_decides(self, home, wanted, is_emulated):
        found = made(home, LATE, force_tcg=wanted)
        assert failure_of(found).reason == 'timeout'
        assert found._runner.is_emulated == [is_emulated]
        assert found.is_emulated() is is_emulated


class TestEnding:
    @pytest.mark.parametrize(
        ('ending', 'reason', 'text'),
        [
            (LATE, 'timeout', 'longer than 120 s'),
            (sessions.Ending(b'', '', None, 'stopped'), 'stopped', 'stops'),
            (sessions.Ending(b'', '', None, 'output'), 'crash', 'by output'),
            (sessions.Ending(b'', 'a\nOSError: no\n', 1), 'crash', 'status 1: OSError: no'),
            (sessions.Ending(b'', '', -9), 'crash', 'status -9: without a word'),
            (sessions.Ending(b'', '', 0), 'crash', 'no JSON'),
            (sessions.Ending(b'[' * 9999, '', 0), 'crash', 'no JSON'),
            (sessions.Ending(b'\xff', '', 0), 'crash', 'no JSON'),
            (sessions.Ending(b'[]', '', 0), 'crash', 'another form'),
            (sessions.Ending(b'{"roots": [1]}', '', 0), 'crash', 'another form'),
            (sessions.Ending(b'{"failure": "launch", "text": "why"}', '', 0), 'launch', 'why'),
            (sessions.Ending(b'{"failure": "x y", "text": "why"}', '', 0), 'crash', 'why'),
            (sessions.Ending(b'{"failure": [], "text": 1}', '', 0), 'crash', 'unknown'),
        ],
    )
    def test_failure_has_one_of_few_reasons(self, ending, reason, text):
        with pytest.raises(base.InspectionFailed, match=text) as caught:
            appliance.roots_of(ending, 120.0)
        assert caught.value.reason == reason

    def test_text_of_a_failure_is_cleaned(self):
        ending = sessions.Ending(b'{"failure": "launch", "text": "a\\nb\\u001b"}', '', 0)
        with pytest.raises(base.InspectionFailed, match='^a\ufffdb\ufffd$'):
            appliance.roots_of(ending, 120.0)

    def test_no_operating_system_is_an_answer(self):
        assert appliance.roots_of(sessions.Ending(b'{"roots": []}', '', 0), 120.0) == []
