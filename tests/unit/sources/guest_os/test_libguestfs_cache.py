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

import dataclasses
import json
import os

import hypothesis
from hypothesis import strategies
import pytest

from oie import model
from oie.sources.guest_os import disk_cache
from tests import builders

FOUND = model.GuestOs(family='linux', distro='debian', version_major=12, learned_at=5.0)
RECORD = disk_cache.Record(
    key='boot|3|disk', inspected_at=5.0, found=FOUND, failed_at=6.0, reason='timeout', text='late'
)


@pytest.fixture
def directory(tmp_path):
    return tmp_path / 'results'


@pytest.fixture
def cache(directory):
    return disk_cache.DiskCache(str(directory))


def path_of(directory, uuid=builders.UUID):
    return directory / f'{uuid}.json'


class TestKept:
    def test_record_comes_back_whole(self, cache):
        cache.store(builders.UUID, RECORD)
        assert cache.load(builders.UUID, RECORD.key) == RECORD

    def test_no_operating_system_is_kept_too(self, cache):
        record = disk_cache.Record(key='k', inspected_at=5.0)
        cache.store(builders.UUID, record)
        assert cache.load(builders.UUID, 'k') == record

    def test_another_question_has_no_answer(self, cache):
        cache.store(builders.UUID, RECORD)
        assert cache.load(builders.UUID, 'other') == disk_cache.Record(key='other')

    def test_nothing_kept_is_told_to_nobody(self, cache, caplog):
        assert cache.load(builders.UUID, 'k') == disk_cache.Record(key='k')
        assert caplog.messages == []

    def test_name_of_a_file_never_leads_out(self, cache, directory):
        cache.store('../../etc/x', RECORD)
        (path,) = directory.iterdir()
        assert len(path.stem) == 64
        assert cache.load('../../etc/x', RECORD.key) == RECORD

    def test_others_cannot_read_it(self, cache, directory):
        cache.store(builders.UUID, RECORD)
        assert path_of(directory).stat().st_mode & 0o7 == 0
        assert directory.stat().st_mode & 0o7 == 0

    def test_gone_instances_are_forgotten_after_a_month(self, cache, directory):
        cache.store(builders.UUID, RECORD)
        written = path_of(directory).stat().st_mtime
        cache.prune(written + 29 * 86400)
        assert path_of(directory).exists()
        cache.prune(written + 31 * 86400)
        assert not path_of(directory).exists()


class TestDamage:
    def check_is_not_used(self, cache, caplog):
        assert cache.load(builders.UUID, RECORD.key) == disk_cache.Record(key=RECORD.key)
        cache.load(builders.UUID, RECORD.key)
        assert len(caplog.messages) == 1
        assert 'inspected anew' in caplog.text

    @pytest.mark.parametrize('content', [b'', b'{', b'[]', b'null', b'{}', b'\xff', b'[' * 9999])
    def test_damaged_file_is_none_and_told_once(self, cache, directory, caplog, content):
        directory.mkdir()
        path_of(directory).write_bytes(content)
        self.check_is_not_used(cache, caplog)

    @pytest.mark.parametrize(
        ('field', 'value'),
        [
            ('format', 2),
            ('inspected_at', 'soon'),
            ('inspected_at', float('nan')),
            ('failed_at', True),
            ('reason', 7),
            ('found', []),
            ('found', {'family': 'linux'}),
        ],
    )
    def test_field_of_another_kind_spoils_the_file(self, cache, directory, caplog, field, value):
        cache.store(builders.UUID, RECORD)
        fields = {**json.loads(path_of(directory).read_bytes()), field: value}
        path_of(directory).write_text(json.dumps(fields))
        self.check_is_not_used(cache, caplog)

    def test_file_that_others_can_write_is_not_believed(self, cache, directory, caplog):
        cache.store(builders.UUID, RECORD)
        path_of(directory).chmod(0o666)
        self.check_is_not_used(cache, caplog)

    def test_directory_of_another_user_is_told_once(self, cache, monkeypatch, caplog):
        def content(path):
            raise PermissionError(13, 'Permission denied')

        monkeypatch.setattr(cache, '_content', content)
        for number in range(200):
            cache.load(f'{number}', 'k')
        assert len(caplog.messages) == 1

    def test_symbolic_link_is_not_followed(self, cache, directory, caplog, tmp_path):
        cache.store(builders.UUID, RECORD)
        path_of(directory).rename(tmp_path / 'elsewhere')
        path_of(directory).symlink_to(tmp_path / 'elsewhere')
        self.check_is_not_used(cache, caplog)

    def test_pipe_is_not_waited_for(self, cache, directory, caplog):
        directory.mkdir()
        os.mkfifo(path_of(directory))
        self.check_is_not_used(cache, caplog)

    def test_endless_file_is_not_read(self, cache, directory, caplog):
        directory.mkdir()
        path_of(directory).write_bytes(b' ' * 2**20)
        self.check_is_not_used(cache, caplog)

    def test_directory_that_cannot_be_made_is_told_once(self, tmp_path, caplog):
        (tmp_path / 'file').touch()
        cache = disk_cache.DiskCache(str(tmp_path / 'file' / 'results'))
        for _ in range(2):
            cache.store(builders.UUID, RECORD)
        assert len(caplog.messages) == 1
        assert 'cache_dir' in caplog.text


class TestEncoding:
    @hypothesis.given(strategies.binary(max_size=200))
    def test_any_bytes_are_a_record_or_an_error_that_is_caught(self, content):
        with pytest.raises((ValueError, TypeError, KeyError)):
            disk_cache.decode(content)

    @hypothesis.given(
        strategies.builds(
            disk_cache.Record,
            key=strategies.text(),
            inspected_at=strategies.none() | strategies.floats(0, 1e12),
            found=strategies.none()
            | strategies.builds(
                model.GuestOs,
                family=strategies.from_regex(r'[a-z]{1,20}', fullmatch=True),
                version_major=strategies.none() | strategies.integers(0, 2**31 - 1),
                learned_at=strategies.floats(0, 1e12),
                source=strategies.just('pending'),
                license_units=strategies.none(),
                **{
                    name: strategies.just('unknown')
                    for name in ('distro', 'info', 'product_name', 'product_variant', 'version')
                },
                version_minor=strategies.none(),
            ),
            failed_at=strategies.none() | strategies.floats(0, 1e12),
            reason=strategies.text(max_size=20),
            text=strategies.text(max_size=50),
        )
    )
    def test_every_record_comes_back(self, record):
        assert disk_cache.decode(disk_cache.encode(record)) == record

    def test_texts_of_a_file_are_cleaned_again(self):
        found = dataclasses.replace(FOUND, distro='a\nb' + 'x' * 300)
        decoded = disk_cache.decode(
            disk_cache.encode(dataclasses.replace(RECORD, found=found))
        ).found
        assert decoded is not None
        assert decoded.distro == ('a\ufffdb' + 'x' * 300)[:255]
