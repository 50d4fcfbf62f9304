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

"""What the files promise: old or new, never half; nothing is read that others may have made."""

import os
import pathlib
import stat
import threading

import pytest

from oie import exceptions
from oie.feeds import files


@pytest.fixture
def place(tmp_path):
    return tmp_path / 'feeds'


def names(place: pathlib.Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def test_what_was_written_is_read(place):
    files.replace(str(place), 'a', (b'one ', b'two'))
    assert files.read(str(place), 'a', 100) == b'one two'
    assert names(place) == ['a']


def test_a_missing_directory_is_made_for_us_alone(place):
    files.replace(str(place), 'a', (b'x',))
    assert stat.S_IMODE(place.stat().st_mode) == 0o750
    assert stat.S_IMODE((place / 'a').stat().st_mode) == 0o640


def test_no_file_and_no_directory_give_none(place):
    assert files.read(str(place), 'a', 100) is None
    place.mkdir()
    assert files.read(str(place), 'a', 100) is None


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(place):
    files.replace(str(place), 'a', (b'old',))

    def parts():
        yield b'new'
        raise OSError(28, 'No space left on device')

    with pytest.raises(exceptions.FeedError, match='No space left on device; make'):
        files.replace(str(place), 'a', parts())
    assert files.read(str(place), 'a', 100) == b'old'
    assert names(place) == ['a']


def test_leftovers_of_killed_writers_go_and_those_of_others_stay(place):
    place.mkdir()
    for name in ('a.1.tmp', 'a.22.tmp', 'ab.1.tmp', 'a.bad'):
        (place / name).write_bytes(b'x')
    files.replace(str(place), 'a', (b'new',))
    assert names(place) == ['a', 'a.bad', 'ab.1.tmp']


def test_a_link_in_the_way_is_replaced_not_followed(place, tmp_path):
    place.mkdir()
    victim = tmp_path / 'victim'
    victim.write_bytes(b'precious')
    (place / 'a').symlink_to(victim)
    with pytest.raises(exceptions.FeedError, match='cannot be read'):
        files.read(str(place), 'a', 100)
    files.replace(str(place), 'a', (b'new',))
    assert victim.read_bytes() == b'precious'
    assert files.read(str(place), 'a', 100) == b'new'


def test_a_pipe_is_refused_at_once(place):
    place.mkdir()
    os.mkfifo(place / 'a', 0o640)
    refused = threading.Event()

    def read():
        with pytest.raises(exceptions.FeedError, match='is no plain file'):
            files.read(str(place), 'a', 100)
        refused.set()

    threading.Thread(target=read, daemon=True).start()
    assert refused.wait(10)


@pytest.mark.parametrize('mode', [0o660, 0o642, 0o666])
def test_a_file_that_others_may_write_is_refused(place, mode):
    files.replace(str(place), 'a', (b'x',))
    (place / 'a').chmod(mode)
    with pytest.raises(exceptions.FeedError, match=f'written by others .mode {mode:o}'):
        files.read(str(place), 'a', 100)


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can give files away')
def test_a_file_of_another_user_is_refused(place):
    files.replace(str(place), 'a', (b'x',))
    os.chown(place / 'a', 4242, 4242)
    with pytest.raises(exceptions.FeedError, match='belongs to uid 4242'):
        files.read(str(place), 'a', 100)


def test_a_file_that_is_too_long_is_refused(place):
    files.replace(str(place), 'a', (b'x' * 101,))
    with pytest.raises(exceptions.FeedError, match='more than the 100 bytes'):
        files.read(str(place), 'a', 100)
    assert files.read_head(str(place), 'a', 3) == b'xxx'


def test_one_bad_file_is_kept_aside(place):
    for content in (b'first', b'second'):
        files.replace(str(place), 'a', (content,))
        assert files.set_aside(str(place), 'a') == 'it is now a.bad'
    assert names(place) == ['a.bad']
    assert (place / 'a.bad').read_bytes() == b'second'


def test_what_cannot_be_put_aside_is_told(place):
    assert 'cannot be moved away' in files.set_aside(str(place), 'a')


def test_a_directory_that_is_none_is_told(place):
    place.write_bytes(b'')
    with pytest.raises(exceptions.FeedError, match='cannot be written'):
        files.replace(str(place), 'a', (b'x',))
    assert not files.is_writable(str(place / 'below'))
