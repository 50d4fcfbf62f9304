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

"""What the cache promises: what was kept comes back to the bit, and nothing else does."""

import dataclasses
import hashlib
import json

import hypothesis
from hypothesis import strategies
import pytest

from oie import exceptions
from oie.feeds import cache
from tests.unit.feeds import working

DOCUMENTS = (working.ONE, b'', b'\0binary\n\xff')


@pytest.fixture
def place(tmp_path):
    return str(tmp_path)


def read(place, entry, **more):
    known = {
        'feed': entry.feed,
        'driver': entry.driver,
        'sources': entry.sources,
        'max_document_bytes': 1000,
    }
    return cache.read(place, **(known | more))


def path_of(place, entry, suffix='.list'):
    return f'{place}/{entry.feed}{suffix}'


def content_of(place, entry):
    with open(path_of(place, entry), 'rb') as file:
        return file.read()


def overwrite(place, entry, content):
    with open(path_of(place, entry), 'wb') as file:
        file.write(content)


def test_what_was_kept_comes_back(place):
    entry = working.entry(*DOCUMENTS, version='1.2.3')
    cache.write(place, entry)
    assert read(place, entry) == entry


def test_nothing_kept_is_no_error(place):
    assert read(place, working.entry()) is None
    assert cache.stored_digest(place, 'sample') == ''


def test_a_list_of_no_documents_is_a_list(place):
    entry = working.entry(entries=0)
    cache.write(place, entry)
    assert read(place, entry) == entry


def test_the_header_is_one_line_that_people_can_read(place):
    entry = working.entry(b'x\n', version='1.2.3')
    cache.write(place, entry)
    line, _, rest = content_of(place, entry).partition(b'\n')
    header = json.loads(line)
    assert rest == b'x\n'
    assert header['sources'] == ['https://feeds.example/0']
    assert header['oie'] == '1.2.3'
    assert header['documents'] == [{'bytes': 2, 'sha256': hashlib.sha256(b'x\n').hexdigest()}]


def test_the_stored_digest_is_that_of_the_documents(place):
    entry = working.entry(*DOCUMENTS)
    cache.write(place, entry)
    assert cache.stored_digest(place, entry.feed) == cache.digest_of(DOCUMENTS)


def test_digests_know_where_a_document_ends():
    assert cache.digest_of((b'ab', b'c')) != cache.digest_of((b'a', b'bc'))
    assert cache.digest_of((b'',)) != cache.digest_of(())


@pytest.mark.parametrize(
    ('field', 'value', 'named'),
    [
        ('driver', 'csv_list', 'driver'),
        ('sources', ('https://feeds.example/other',), 'source'),
        ('sources', (), 'source'),
    ],
)
def test_a_list_of_another_driver_or_source_is_refused(place, field, value, named):
    entry = working.entry(working.ONE)
    cache.write(place, entry)
    with pytest.raises(exceptions.FeedError, match=f'sample.list: .* of another {named}'):
        read(place, dataclasses.replace(entry, **{field: value}))


def test_a_list_under_another_name_is_refused(place):
    entry, other = working.entry(working.ONE), working.entry(working.ONE, feed='other')
    cache.write(place, entry)
    overwrite(place, other, content_of(place, entry))
    with pytest.raises(exceptions.FeedError, match='of another feed'):
        read(place, other)


def test_a_format_of_the_future_is_refused(place):
    entry = working.entry(working.ONE)
    cache.write(place, entry)
    content = content_of(place, entry).replace(b'"format":1', b'"format":2')
    overwrite(place, entry, content)
    with pytest.raises(exceptions.FeedError, match='not format 1'):
        read(place, entry)


@pytest.mark.parametrize(
    'content',
    [b'', b'\n', b'5.6.7.0/24\n', b'{}\n', b'[]\n', b'[' * 100000, b'\xff\n', b'{"a":1}'],
)
def test_what_is_no_cache_is_refused(place, content):
    entry = working.entry(working.ONE)
    overwrite(place, entry, content)
    with pytest.raises(exceptions.FeedError, match='no cached list'):
        read(place, entry)


def test_a_list_that_is_too_large_is_refused(place):
    entry = working.entry(b'x' * 2**19)
    cache.write(place, entry)
    with pytest.raises(exceptions.FeedError, match='more than the'):
        read(place, entry)


def test_a_sealed_header_that_lacks_something_is_refused(place):
    entry = working.entry(working.ONE)
    fields = {'magic': 'oie threat list', 'format': 1, 'feed': entry.feed}
    seal = hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(',', ':')).encode())
    overwrite(place, entry, json.dumps(fields | {'seal': seal.hexdigest()}).encode() + b'\n')
    with pytest.raises(exceptions.FeedError, match='lacks something'):
        read(place, entry)


@hypothesis.settings(
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], max_examples=200
)
@hypothesis.given(data=strategies.data())
def test_any_damage_is_found(place, data):
    entry = working.entry(working.ONE, working.TWO)
    cache.write(place, entry)
    whole = bytearray(content_of(place, entry))
    position = data.draw(strategies.integers(0, len(whole) - 1))
    match data.draw(strategies.sampled_from(['flip', 'cut', 'add'])):
        case 'flip':
            whole[position] ^= 1 << data.draw(strategies.integers(0, 7))
        case 'cut':
            del whole[position:]
        case 'add':
            whole[position:position] = data.draw(strategies.binary(min_size=1, max_size=9))
    overwrite(place, entry, whole)
    try:
        found = read(place, entry)
    except exceptions.FeedError:
        return
    # White space in the header changes nothing.
    assert found == entry


@pytest.mark.parametrize('name', ['', '..', 'a/b', '/etc/passwd', 'a.b', 'a\n', 'ä', 'x' * 101])
def test_a_name_that_leads_elsewhere_is_refused(name):
    with pytest.raises(exceptions.FeedError, match='cannot name a file'):
        cache.file_name(name, 'list')


def test_a_refused_list_is_moved_aside(place, tmp_path):
    entry = working.entry(working.ONE)
    cache.write(place, entry)
    assert cache.set_aside(place, entry.feed) == 'it is now sample.list.bad'
    assert [path.name for path in tmp_path.iterdir()] == ['sample.list.bad']
