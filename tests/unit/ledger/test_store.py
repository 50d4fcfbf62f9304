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

"""The file of the ledger: it survives, it is nobody else's, and damage is told."""

import dataclasses
import logging
import os
import pathlib
import signal
import sqlite3
import stat
import subprocess
import sys
import time

import pytest

from oie import exceptions
from oie.ledger import store

ROW = store.Row(
    uuid='6c1f0a3e-3f5b-4a57-9b61-2f1d5a7c9e01',
    seen_at=1_795_000_000.5,
    project_uuid='8f0f3c0e5d6a4b7c9e1d2f3a4b5c6d7e',
    user_uuid='0123456789abcdef0123456789abcdef',
    name='web-1 \N{SNOWMAN}',
    flavor_name='m1.medium',
    vcpus=2,
    memory_mib=None,
    account='{}',
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'ledger.sqlite'


@pytest.fixture
def opened(path):
    """Return a function that opens the file; what it opened is closed after the test."""
    made = []

    def opened():
        made.append(store.Store(str(path)))
        return made[-1], made[-1].open()

    yield opened
    for each in made:
        each.close()


def fill(opened, *rows):
    made, _ = opened()
    made.write(rows or (ROW,), ())
    made.close()


def accounts(opened):
    made, found = opened()
    made.close()
    return found.accounts


def test_rows_read_back(opened):
    other = dataclasses.replace(ROW, uuid='other', account='{"x":1}')
    fill(opened, ROW, other)
    expected = {ROW.uuid: (ROW.seen_at, '{}'), 'other': (ROW.seen_at, '{"x":1}')}
    projects = dict.fromkeys(expected, ROW.project_uuid)
    assert opened()[1] == store.Found(expected, projects=projects)


def test_the_latest_row_of_an_instance_stays_and_the_forgotten_go(opened):
    fill(opened, ROW, dataclasses.replace(ROW, uuid='gone'))
    made, _ = opened()
    made.write([dataclasses.replace(ROW, account='new')], ['gone', 'never there'])
    made.close()
    assert accounts(opened) == {ROW.uuid: (ROW.seen_at, 'new')}


def test_whose_the_rows_are_can_be_asked_with_sql(opened, path):
    fill(opened)
    with sqlite3.connect(path) as reader:
        found = reader.execute(
            'SELECT name, flavor_name, vcpus, memory_mib FROM instance WHERE project_uuid = ?',
            (ROW.project_uuid,),
        ).fetchall()
    assert found == [(ROW.name, 'm1.medium', 2, None)]


def test_the_file_tells_whose_it_is_and_which_version(opened, path):
    fill(opened)
    header = path.read_bytes()[:100]
    assert header[:16] == b'SQLite format 3\0'
    assert int.from_bytes(header[60:64], 'big') == store.SCHEMA_VERSION
    assert int.from_bytes(header[68:72], 'big') == store.APPLICATION_ID


def test_writing_does_not_wait_for_the_disk(opened):
    made, _ = opened()
    ask = made._connection.execute
    assert ask('PRAGMA journal_mode').fetchone() == ('wal',)
    assert ask('PRAGMA synchronous').fetchone() == (1,)


def test_nobody_else_may_read_what_tenants_do(opened, path):
    previous = os.umask(0)
    try:
        fill(opened)
        made, _ = opened()
        made.write([ROW], ())
        modes = {stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    finally:
        os.umask(previous)
    assert modes == {0o600}


def test_the_directory_is_made(tmp_path):
    made = store.Store(str(tmp_path / 'var/lib/oie/ledger.sqlite'))
    made.open()
    made.close()


# --- one at a time ----------------------------------------------------------


def test_the_second_exporter_is_refused_and_told_who_the_first_one_is(opened, path):
    first, _ = opened()
    with pytest.raises(exceptions.LedgerHeld, match=rf'process id {os.getpid()}: end that one'):
        opened()
    first.write([ROW], ())
    first.close()
    assert accounts(opened) == {ROW.uuid: (ROW.seen_at, '{}')}


def test_a_lock_without_a_number_is_told_too(opened, path):
    opened()
    path.with_suffix('.sqlite.lock').write_text('\n')
    with pytest.raises(exceptions.LedgerHeld, match='process id unknown'):
        opened()


# --- what is not ours -------------------------------------------------------


def foreign_text(path):
    path.write_text('important notes\n')


def foreign_database(path):
    with sqlite3.connect(path) as other:
        other.execute('CREATE TABLE important (x)')


def foreign_id(path):
    with sqlite3.connect(path) as other:
        other.execute('CREATE TABLE instance (x)')
        other.execute('PRAGMA application_id = 252006673')


def foreign_table_of_our_name(path):
    with sqlite3.connect(path) as other:
        other.execute('CREATE TABLE instance (x)')


def newer(path):
    made = store.Store(str(path))
    made.open()
    made.close()
    with sqlite3.connect(path) as other:
        other.execute('PRAGMA user_version = 99')
    other.close()


@pytest.mark.parametrize(
    ('make', 'reason'),
    [
        (foreign_text, 'is not a database of SQLite'),
        (foreign_database, 'holds tables of another program'),
        (foreign_id, 'was written by another program'),
        (foreign_table_of_our_name, 'has version 0, this oie knows 1'),
        (newer, 'has version 99, this oie knows 1'),
        (pathlib.Path.mkdir, 'cannot be used: .*Is a directory'),
        (os.mkfifo, 'is no file'),
        (lambda path: path.symlink_to('/etc/passwd'), 'cannot be used: .*symbolic links'),
    ],
)
def test_what_is_not_ours_is_refused_and_left_as_it_is(path, opened, make, reason):
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(exceptions.LedgerError, match=reason):
        opened()
    assert (path.read_bytes() if path.is_file() else None) == before
    assert not pathlib.Path(f'{path}{store.BAD}').exists()


def test_a_directory_that_cannot_be_made_is_told(tmp_path):
    tmp_path.joinpath('file').write_text('')
    with pytest.raises(exceptions.LedgerError, match=r'cannot be used: .*check the owner'):
        store.Store(str(tmp_path / 'file/ledger.sqlite')).open()


def test_an_empty_file_is_a_new_one(path, opened):
    path.touch()
    assert opened()[1] == store.Found({})


# --- damage -----------------------------------------------------------------


def many(opened):
    fill(
        opened,
        *(dataclasses.replace(ROW, uuid=f'{n:036}', account='x' * 500) for n in range(100)),
    )


def garbage(path, begin, end):
    content = bytearray(path.read_bytes())
    content[begin:end] = os.urandom(len(content[begin:end]))
    path.write_bytes(content)


@pytest.mark.parametrize(
    'damage',
    [
        lambda path: garbage(path, 4096, 8192),
        lambda path: garbage(path, 100, 4096),
        lambda path: garbage(path, 16, 60),
        lambda path: os.truncate(path, 4096),
        lambda path: os.truncate(path, 5000),
    ],
    ids=['a page', 'the schema', 'the header', 'half of it', 'a part of a page'],
)
def test_damage_is_put_aside_and_told_and_a_new_file_begun(path, opened, damage, caplog):
    many(opened)
    damage(path)
    damaged = path.read_bytes()
    with caplog.at_level(logging.ERROR):
        made, found = opened()
    assert found == store.Found({}, is_lost=True)
    assert pathlib.Path(f'{path}{store.BAD}').read_bytes() == damaged
    [record] = caplog.records
    assert 'is damaged' in record.getMessage()
    assert f'kept as {path}.bad' in record.getMessage()
    made.write([ROW], ())
    made.close()
    assert accounts(opened) == {ROW.uuid: (ROW.seen_at, '{}')}


# --- writing ----------------------------------------------------------------


def test_a_write_is_done_as_a_whole_or_not_at_all(opened):
    made, _ = opened()
    made.write([ROW], ())
    broken = dataclasses.replace(ROW, account=None)
    with pytest.raises(exceptions.LedgerError, match='NOT NULL'):
        made.write([dataclasses.replace(ROW, account='new'), broken], ())
    made.write([dataclasses.replace(ROW, uuid='later')], ())
    made.close()
    assert set(accounts(opened)) == {ROW.uuid, 'later'}
    assert accounts(opened)[ROW.uuid] == (ROW.seen_at, '{}')


@pytest.mark.parametrize('wrong', [{'name': 'a\0b\ud800'}, {'memory_mib': 2**64}])
def test_what_sqlite_cannot_hold_is_an_error_of_ours(opened, wrong):
    made, _ = opened()
    with pytest.raises(exceptions.LedgerError, match='cannot be used'):
        made.write([dataclasses.replace(ROW, **wrong)], ())
    made.write([ROW], ())


KILLED = """
import sys
from oie.ledger import store
from tests.unit.ledger import test_store
import dataclasses
made = store.Store(sys.argv[1])
made.open()
number = int(sys.argv[2])
while True:
    number += 1
    made.write(
        [dataclasses.replace(test_store.ROW, uuid=str(n), account=str(number)) for n in range(50)],
        (),
    )
    print(number, flush=True)
"""


@pytest.mark.parametrize('rounds', [8])
def test_kill_9_at_any_moment_leaves_whole_writes_only(path, opened, rounds):
    number = 0
    for delay in range(rounds):
        writing = subprocess.Popen(
            (sys.executable, '-c', KILLED, path, str(number)), stdout=subprocess.PIPE, text=True
        )
        assert writing.stdout.readline()
        time.sleep(delay * 0.013)
        writing.send_signal(signal.SIGKILL)
        told = [int(line) for line in writing.stdout if line.endswith('\n')]
        writing.wait()
        writing.stdout.close()
        found = accounts(opened)
        numbers = {int(account) for _, account in found.values()}
        assert len(found) == 50
        assert len(numbers) == 1
        [number] = numbers
        assert number >= max(told, default=0)
    assert not pathlib.Path(f'{path}{store.BAD}').exists()
