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


"""A document is unpacked whole, whatever the pieces it comes in, and never beyond its limit."""

import contextlib
import gzip
import zlib

import hypothesis
from hypothesis import strategies as st
import pytest

from oie import exceptions
from oie.feeds import unpack

DOCUMENTS = st.binary(max_size=200) | st.binary(max_size=4).map(lambda part: part * 70000)
PACKERS = {'gzip': gzip.compress, 'x-gzip': gzip.compress, 'deflate': zlib.compress, '': bytes}


def unpacked(encoding: str, data: bytes, *, piece: int = 2**16, most: int = 2**20) -> bytes:
    unpacker = unpack.Unpacker(encoding, most)
    for place in range(0, len(data), piece):
        unpacker.feed(data[place : place + piece])
    return unpacker.finish()


@hypothesis.given(st.sampled_from(tuple(PACKERS)), DOCUMENTS, st.integers(1, 300))
def test_pieces_make_the_document(encoding, document, piece):
    assert unpacked(encoding, PACKERS[encoding](document), piece=piece) == document


@hypothesis.given(st.lists(DOCUMENTS, min_size=1, max_size=4), st.integers(1, 300))
def test_members_of_gzip_are_one_document(documents, piece):
    data = b''.join(map(gzip.compress, documents))

    assert unpacked('gzip', data, piece=piece, most=2**21) == b''.join(documents)


@hypothesis.given(st.sampled_from(('gzip', 'deflate')), DOCUMENTS, st.data())
def test_data_that_ends_early_is_refused(encoding, document, data):
    whole = PACKERS[encoding](document)
    part = whole[: data.draw(st.integers(0, len(whole) - 1))]

    with pytest.raises(exceptions.FeedError, match='ends too early'):
        unpacked(encoding, part)


@hypothesis.given(
    st.sampled_from(('gzip', 'deflate')), DOCUMENTS, st.binary(min_size=1, max_size=9)
)
def test_data_that_goes_on_is_refused(encoding, document, more):
    with pytest.raises(exceptions.FeedError):
        unpacked(encoding, PACKERS[encoding](document) + more)


@hypothesis.given(DOCUMENTS.filter(bool), st.integers(0, 400))
def test_changed_data_gives_no_other_document(document, place):
    data = bytearray(gzip.compress(document))
    data[place % len(data)] ^= 0x55

    # Some bits, such as those of the time, mean nothing.
    with contextlib.suppress(exceptions.FeedError):
        assert unpacked('gzip', bytes(data)) == document


@pytest.mark.parametrize('encoding', PACKERS)
def test_limit_holds_to_the_byte(encoding):
    data = PACKERS[encoding](bytes(1000000))

    assert len(unpacked(encoding, data, most=1000000)) == 1000000
    with pytest.raises(exceptions.FeedError, match='larger than 999999 bytes unpacked'):
        unpacked(encoding, data, most=999999)


@hypothesis.given(st.sampled_from(tuple(PACKERS)), st.binary(max_size=300), st.integers(1, 30))
def test_garbage_is_refused_or_small(encoding, data, piece):
    with contextlib.suppress(exceptions.FeedError):
        assert len(unpacked(encoding, data, piece=piece, most=10000)) <= 10000


@pytest.mark.parametrize('encoding', ['br', 'zstd', 'gzip, gzip', 'gzip,', 'compress', 'x' * 999])
def test_encodings_nobody_asked_for_are_refused(encoding):
    with pytest.raises(exceptions.FeedError, match='was not asked for'):
        unpack.Unpacker(encoding, 100)
