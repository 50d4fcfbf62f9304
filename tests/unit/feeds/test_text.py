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

"""Lines are found in any document, and no document harms."""

import hypothesis
from hypothesis import strategies as st
import pytest

from oie import exceptions
from oie.feeds import entries
from oie.feeds import text

TOO_LONG = next(text.lines(b'x' * 5000))


@pytest.mark.parametrize(
    ('document', 'expected'),
    [
        (b'', []),
        (b'\n\r\n \t\n', []),
        (b'a', ['a']),
        (b'a\nb\n', ['a', 'b']),
        (b'a\r\nb\r\n', ['a', 'b']),
        (b'a\rb\r', ['a', 'b']),
        (b'\xef\xbb\xbfa\n', ['a']),
        (b' a \n\tb\t\n', ['a', 'b']),
        (b'# a\n; b\n  # c\nd', ['d']),
        (b'a # b ; c\nd;e#f', ['a', 'd']),
        (b'# \xc2\xa9 a\nb', ['b']),
        (b'\xff\xfea\x00', ['\ufffd\ufffda\x00']),
        (b'a\x0bb', ['a\x0bb']),
    ],
)
def test_entries_are_lines_without_comments(document, expected):
    assert list(text.entries(document)) == expected


@pytest.mark.parametrize('line_end', [b'\n', b'\r\n', b'\r'])
@pytest.mark.parametrize('length', [4096, 4097, 65535, 65536, 65537, 200_000, 131_072])
def test_a_long_line_is_one_bad_entry_and_the_next_line_is_read(line_end, length):
    document = line_end.join((b'a', b'x' * length, b'b', b'# ' + b'y' * length, b'c'))
    long = 'x' * length if length <= text.LONGEST_LINE else TOO_LONG
    assert list(text.entries(document)) == ['a', long, 'b', 'c']
    assert entries.parse(TOO_LONG) is None


@hypothesis.given(st.lists(st.integers(1, 9000), max_size=60), st.sampled_from(['\n', '\r\n']))
def test_lines_are_those_of_the_document_wherever_slices_end(lengths, line_end):
    expected = ['x' * length for length in lengths]
    document = ''.join(f'{line}{line_end}' for line in expected).encode()
    found = [line for line in text.lines(document, 60_000) if line]
    assert found == expected


@hypothesis.given(st.binary())
def test_any_document_has_lines(document):
    for line in text.entries(document):
        assert line
        assert len(line) <= text.LONGEST_LINE


@pytest.mark.parametrize(
    ('address', 'expected'),
    [
        ('1.2.3.4:9001', '1.2.3.4'),
        ('[2001:DB8::1]:443', '2001:DB8::1'),
        ('[2001:db8::1]', '2001:db8::1'),
        ('2001:db8::2', '2001:db8::2'),
        ('1.2.3.4', '1.2.3.4'),
        ('1.2.3.0/24', '1.2.3.0/24'),
        ('2001:db8::/32', '2001:db8::/32'),
        ('host:1', 'host'),
        ('[2001:db8::3', '[2001:db8::3'),
        ('[::1]x', '[::1]x'),
        ('1.2.3.4:http', '1.2.3.4:http'),
        ('1.2.3.4:', '1.2.3.4:'),
        (':1', ''),
        ('[]', ''),
        ('', ''),
    ],
)
def test_a_port_is_left_out(address, expected):
    assert text.without_port(address) == expected


@pytest.mark.parametrize(
    ('document', 'expected'),
    [(b'', b''), (b' \r\n\t<', b'<'), (b'\xef\xbb\xbf\n{', b'{'), (b'a', b'a'), (b'\n', b'')],
)
def test_the_first_byte_is_the_first_that_is_not_blank(document, expected):
    assert text.first_byte(document) == expected


@pytest.mark.parametrize(
    'document',
    [
        b'',
        b'{',
        b'[1,]',
        b'\xff',
        b'\xff\xfe',
        b'[' * 100_000,
        b'9' * 5000,
        '{} {}',
        '{"a":' * 9999,
    ],
)
def test_what_is_no_json_is_told_in_one_line(document):
    with pytest.raises(exceptions.FeedError) as caught:
        text.json_value(document)
    assert str(caught.value).startswith('it is not JSON: ')
    assert '\n' not in str(caught.value)


def test_json_that_memory_does_not_hold_is_refused(monkeypatch):
    def exhausted(document):
        raise MemoryError

    monkeypatch.setattr(text.json, 'loads', exhausted)
    with pytest.raises(exceptions.FeedError, match='more JSON than there is memory for'):
        text.json_value(b'{}')
