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

"""Weights: the formulas of OS_project_usage_exporter, exact, and the last good ones kept."""

import contextlib
import decimal
import http.server
import json
import threading

import hypothesis
from hypothesis import strategies
import pytest

from oie import exceptions
from oie.config import moments
from oie.config import weight_tables
from oie.sources.project_usage import documents
from oie.sources.project_usage import weights

ONE = weight_tables.ONE
OLD, NEW = 1_577_836_800, 1_609_459_200  # 2020-01-01, 2021-01-01
SAMPLE = [
    {
        'resource_set_timestamp': NEW,
        'vcpus': [{'value': 2, 'weight': 1}, {'value': 4, 'weight': 2}],
        'memory_mb': [{'value': 8192, 'weight': 1}, {'value': 16384, 'weight': 2}],
    },
    {
        'resource_set_timestamp': OLD,
        'vcpus': [{'value': 1, 'weight': 1}, {'value': 2, 'weight': 2}, {'value': 3, 'weight': 2}],
        'memory_mb': [],
    },
]
TOML = """
[[weights]]
resource_set_timestamp = 1609459200
vcpus = [{value = 4, weight = 1.1}]
memory_mb = [{value = 8, weight = 0.3}]
"""


def with_vcpus(table):
    return [{**SAMPLE[0], 'vcpus': table}]


def weigher(unit='gib_floor', found=SAMPLE):
    return weights.Weigher(weights.parse(found), unit)


def made(place='', unit='gib_floor', every=1, **more):
    fixed = weights.Set(0, more.pop('vcpus', ()), ())
    return weights.Weights(str(place), fixed, unit, every=every, timeout=2, clock=lambda: 5.0)


@pytest.mark.parametrize(('vcpus', 'weight'), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 2), (64, 2)])
def test_the_smallest_value_that_is_not_exceeded_gives_the_weight(vcpus, weight):
    after = (NEW + 1) * moments.SECOND
    assert weigher()(vcpus, 1024, after)[0] == weight * ONE


@pytest.mark.parametrize(
    ('started', 'weight'),
    [
        # Older than all sets: the oldest; at the moment itself: that set.
        (OLD - 10**6, 2),
        (OLD, 2),
        (NEW - 1, 2),
        (NEW, 1),
        (NEW + 10**6, 1),
    ],
)
def test_the_newest_set_that_is_not_younger_than_the_instance_counts(started, weight):
    assert weigher()(2, 1024, started * moments.SECOND)[0] == weight * ONE


def test_the_moment_is_utc_to_the_microsecond():
    start = moments.parse('2021-01-01T00:00:00.000000')
    assert weigher()(2, 1024, start)[0] == ONE
    assert weigher()(2, 1024, start - 1)[0] == 2 * ONE


def test_no_weights_and_an_empty_table_count_once():
    assert weights.Weigher((), 'mb')(64, 2**20, 0) == (ONE, ONE)
    assert weigher()(1, 2**20, OLD * moments.SECOND)[1] == ONE


@pytest.mark.parametrize(
    ('unit', 'memory_mb', 'weight'),
    [
        # 12288 MiB are 12 GiB, which is below 8192, or 12288 MiB, which is above it.
        ('gib_floor', 12288, 1),
        ('gib', 12288, 1),
        ('mb', 12288, 2),
        ('mb', 8192, 1),
    ],
)
def test_the_unit_of_memory_is_that_of_the_values(unit, memory_mb, weight):
    assert weigher(unit)(1, memory_mb, NEW * moments.SECOND)[1] == weight * ONE


def test_parts_of_a_gib_count_where_they_are_asked_for():
    found = [{**SAMPLE[0], 'memory_mb': [{'value': 1, 'weight': 1}, {'value': 2, 'weight': 3}]}]
    assert weigher('gib_floor', found)(1, 1536, 0)[1] == ONE
    assert weigher('gib', found)(1, 1536, 0)[1] == 3 * ONE


@hypothesis.given(
    strategies.dictionaries(
        strategies.integers(0, 100), strategies.decimals('0', '99', places=3), min_size=1
    ),
    strategies.integers(0, 120),
)
def test_weights_are_those_of_the_published_rule(table, amount):
    entries = [{'value': key, 'weight': value} for key, value in table.items()]
    found = [{'resource_set_timestamp': 0, 'vcpus': entries, 'memory_mb': []}]
    above = [key for key in table if key >= amount]
    by_rule = table[min(above) if above else max(table)]
    assert decimal.Decimal(weigher(found=found)(amount, 1, 0)[0]) / ONE == by_rule


# --- documents --------------------------------------------------------------


def test_json_and_toml_give_exact_decimals(tmp_path):
    path = tmp_path / 'weights'
    path.write_text(TOML)
    found = made(path)
    found.refresh()
    assert found.weigher()(1, 1024, 0) == (1_100_000_000_000, 300_000_000_000)
    path.write_text(json.dumps(SAMPLE).replace('"weight": 2', '"weight": 0.00029296875'))
    found.refresh()
    assert found.weigher()(64, 1024, NEW * moments.SECOND)[0] == 292_968_750


@pytest.mark.parametrize(
    'wrong',
    [
        {},
        {'weights': 7},
        # OS_project_usage_exporter took these for no weights at all, with a warning.
        [],
        {'weights': []},
        # It took no set that lacks a table; one with a mistyped key is such a set.
        [{'resource_set_timestamp': 1}],
        [{'resource_set_timestamp': 1, 'vcpus': []}],
        [{'resource_set_timestamp': 1, 'vcpu': [{'value': 1, 'weight': 2}], 'memory_mb': []}],
        [{**SAMPLE[0], 'resource_set_timestamp': 1, 'memory_mb': None}],
        [1],
        [{}],
        [{'resource_set_timestamp': 'soon'}],
        [{'resource_set_timestamp': -1}],
        [{'resource_set_timestamp': True}],
        [SAMPLE[0], SAMPLE[0]],
        with_vcpus({'value': 1, 'weight': 1}),
        with_vcpus([{'value': 1}]),
        with_vcpus([{'value': 1, 'weight': '2'}]),
        with_vcpus([{'value': 1, 'weight': -2}]),
        with_vcpus([{'value': 1, 'weight': float('nan')}]),
        with_vcpus([{'value': 1, 'weight': 10**13}]),
        with_vcpus([{'value': 1, 'weight': 1}] * 2),
    ],
)
def test_wrong_weights_are_refused_and_the_last_good_ones_stay(tmp_path, wrong):
    path = tmp_path / 'weights.json'
    path.write_text(json.dumps(SAMPLE))
    found = made(path)
    found.refresh()
    path.write_text(json.dumps(wrong))
    with pytest.raises(exceptions.UsageError) as caught:
        found.refresh()
    assert caught.value.reason == 'weights'
    assert found.weigher()(64, 1, NEW * moments.SECOND)[0] == 2 * ONE
    assert found.read_at == 5.0


@pytest.mark.parametrize('text', ['', '[', '{', 'x', '[[weights]', '\x00', '[' * 100_000])
def test_what_is_neither_json_nor_toml_is_refused(tmp_path, text):
    path = tmp_path / 'weights'
    path.write_text(text)
    with pytest.raises(exceptions.UsageError):
        made(path).refresh()


def test_nothing_is_weighed_before_weights_are_known(tmp_path):
    found = made(tmp_path / 'missing')
    with pytest.raises(exceptions.UsageError):
        found.refresh()
    with pytest.raises(exceptions.UsageError):
        found.weigher()


def test_weights_are_read_again_after_so_many_updates(tmp_path):
    path = tmp_path / 'weights.json'
    path.write_text(json.dumps(SAMPLE))
    found = made(path, every=3)
    found.refresh()
    path.write_text(json.dumps(SAMPLE[:1]).replace('"weight": 2', '"weight": 1'))
    seen = []
    for _ in range(3):
        found.refresh()
        seen.append(found.weigher()(64, 1, NEW * moments.SECOND)[0] // ONE)
    assert seen == [2, 2, 1]


def test_a_reading_that_failed_is_tried_with_the_next_update(tmp_path):
    path = tmp_path / 'weights.json'
    found = made(path, every=100)
    for _ in range(2):
        with pytest.raises(exceptions.UsageError):
            found.refresh()
    path.write_text(json.dumps(SAMPLE))
    found.refresh()
    assert found.weigher()(1, 1, NEW * moments.SECOND) == (ONE, ONE)


def test_a_wrong_document_says_where_and_what_to_do(tmp_path):
    path = tmp_path / 'weights.json'
    for text, told in (
        ('[]', 'leave the option out'),
        ('[{"resource_set_timestamp": 1, "vcpu": [], "memory_mb": []}]', 'set 1 has no vcpus'),
    ):
        path.write_text(text)
        with pytest.raises(exceptions.UsageError, match=told):
            made(path).refresh()


def test_more_keys_than_ours_are_none_of_our_business(tmp_path):
    path = tmp_path / 'weights.json'
    path.write_text(json.dumps([{**each, 'id': 7} for each in SAMPLE]))
    found = made(path)
    found.refresh()
    assert found.weigher()(64, 1, NEW * moments.SECOND)[0] == 2 * ONE


def test_fixed_weights_need_no_document():
    found = made(vcpus=((decimal.Decimal(4), decimal.Decimal('1.5')),))
    found.refresh()
    assert found.weigher()(64, 1, 0) == (3 * ONE // 2, ONE)
    assert found.read_at is None


def test_a_query_is_not_told():
    found = made('http://127.0.0.1:1/weights?token=secret')
    with pytest.raises(exceptions.UsageError) as caught:
        found.refresh()
    assert 'secret' not in str(caught.value)
    assert '127.0.0.1:1/weights' in str(caught.value)


# --- over HTTP --------------------------------------------------------------


@contextlib.contextmanager
def serving(status, body, length=None):
    """Give the URL of a server that answers so."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response_only(status)
            self.send_header('Content-Length', str(len(body) if length is None else length))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def log_message(self, format, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f'http://127.0.0.1:{server.server_address[1]}/weights?site=a'
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_weights_come_over_http():
    with serving(200, json.dumps(SAMPLE).encode()) as url:
        found = made(url)
        found.refresh()
    assert found.weigher()(64, 1, NEW * moments.SECOND)[0] == 2 * ONE


@pytest.mark.parametrize(
    ('status', 'body', 'length'),
    [
        (500, b'[]', None),
        (404, b'[]', None),
        (200, b'<html>', None),
        (200, b'\xff', None),
        # Cut off.
        (200, b'[', 100),
        (200, b' ' * (documents.MOST_BYTES + 1), None),
    ],
)
def test_what_a_server_sends_instead_is_refused(status, body, length):
    with serving(status, body, length) as url, pytest.raises(exceptions.UsageError) as caught:
        made(url).refresh()
    assert caught.value.reason == 'weights'
    assert 'site=a' not in str(caught.value)
