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

"""What the wire promises: both ends mean the same, and nothing improper gets through."""

import dataclasses
import json

import hypothesis
from hypothesis import strategies
import numpy as np
import pytest

from oie import address_sets
from oie import exceptions
from oie.feeds import state
from oie.feeds import wire
from tests.unit.feeds import working

HELD = state.Held(entries=7, since=800.0, times=2)


def encoded(answer):
    return bytearray(b''.join(wire.encode_answer(answer)))


def answer_of(v4=(), v6=(), **fields):
    addresses = address_sets.AddressSet(np.array(v4, np.uint32), address_sets.wide(v6))
    return wire.Answer(**({'status': wire.Status.ACCEPTED, 'addresses': addresses} | fields))


def without_addresses(answer):
    return dataclasses.replace(answer, addresses=address_sets.EMPTY)


def same(one, two):
    return (
        np.array_equal(one.v4, two.v4)
        and np.array_equal(one.v6.high, two.v6.high)
        and np.array_equal(one.v6.low, two.v6.low)
    )


def test_a_job_arrives_as_it_was_sent():
    job = working.job(
        own_networks=('5.6.7.0/24',),
        cache_dir='/x',
        entries=3,
        documents='ab',
        validators=(('"1"', ''), ('', 'Thu, 01 Jan 1970 00:00:00 GMT')),
        held=HELD,
    )
    assert wire.decode_job(wire.encode_job(job)) == job
    job = working.job(mode=wire.Mode.LOAD)
    assert wire.decode_job(wire.encode_job(job)) == job


def test_a_daemon_of_another_version_is_told_to_restart():
    fields = json.loads(wire.encode_job(working.job(cache_dir='/x')))
    with pytest.raises(exceptions.FeedError, match='restart the exporter'):
        wire.decode_job(json.dumps(fields | {'protocol': 0}).encode())


EDGES = strategies.lists(strategies.integers(0, 2**32 - 1), unique=True, max_size=20).map(sorted)
WIDE_EDGES = strategies.lists(
    strategies.integers(0, 2**128 - 1) | strategies.integers(2**64, 2**64 + 9),
    unique=True,
    max_size=20,
).map(sorted)


@hypothesis.given(v4=EDGES, v6=WIDE_EDGES, text=strategies.text(max_size=20))
def test_an_answer_arrives_as_it_was_sent(v4, v6, text):
    sent = answer_of(
        v4,
        v6,
        seconds=1.5,
        sources=('https://feeds.example/a', text),
        error=text,
        is_answered=True,
        retry_after=60.0,
        entries=len(v4),
        rejected={'malformed': 1},
        documents='ab',
        validators=((text, ''),),
        fetched_at=1000.0,
        held=HELD,
        cache_error=text,
    )
    got = wire.decode_answer(encoded(sent))
    assert same(got.addresses, sent.addresses)
    assert without_addresses(got) == without_addresses(sent)


def test_arrays_are_used_where_they_arrived_and_cannot_be_changed():
    received = encoded(answer_of([1, 2, 3], [4, 5]))
    addresses = wire.decode_answer(received).addresses
    for array in (addresses.v4, addresses.v6.high, addresses.v6.low):
        assert array.flags.aligned
        assert not array.flags.writeable
        assert not array.flags.owndata


@pytest.mark.parametrize(
    ('v4', 'v6'), [((2, 1), ()), ((1, 1), ()), ((), (2, 1)), ((), (2**64, 1)), ((), (7, 7))]
)
def test_edges_out_of_order_are_refused(v4, v6):
    with pytest.raises(exceptions.FeedError, match='do not ascend'):
        wire.decode_answer(encoded(answer_of(v4, v6)))


@hypothesis.given(data=strategies.data())
def test_an_answer_that_is_cut_off_or_longer_is_refused(data):
    received = encoded(answer_of([1, 2, 3], [4, 5]))
    cut = data.draw(strategies.integers(0, len(received) - 1))
    for wrong in (received[:cut], received + b'\0'):
        with pytest.raises(exceptions.FeedError, match='no proper answer'):
            wire.decode_answer(wrong)


@hypothesis.given(strategies.binary(max_size=100))
@hypothesis.example(b'null\n')
@hypothesis.example(b'[' * 100000 + b'\n')
def test_garbage_is_refused(received):
    with pytest.raises(exceptions.FeedError, match='no proper answer'):
        wire.decode_answer(bytearray(received))


@pytest.mark.parametrize(
    'change',
    [
        {'status': 'fine'},
        {'addresses': [-1, 4]},
        {'addresses': [1]},
        {'addresses': None},
        {'entries': 'many'},
        {'validators': [['a']]},
        {'validators': [[1, 2]]},
        {'rejected': []},
        {'error': None},
        {'held': {'entries': -1}},
    ],
)
def test_a_wrong_field_is_refused(change):
    fields = json.loads(encoded(answer_of()))
    with pytest.raises(exceptions.FeedError, match='no proper answer'):
        wire.decode_answer(bytearray(json.dumps(fields | change).encode() + b'\n'))


def test_the_largest_list_fits_into_the_longest_answer():
    # 1000 addresses with gaps between are 2000 edges.
    numbers = list(range(0, 4000 * 2**64, 2 * 2**64))
    assert len(encoded(answer_of((), numbers))) <= wire.most_answer_bytes(1000)
