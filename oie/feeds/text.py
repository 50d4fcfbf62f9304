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

"""Documents of text: their lines, the entries on them, addresses with ports, JSON.

A document is a stranger's. It is walked through slice by slice, and nothing in it
raises but for FeedError.
"""

from collections.abc import Iterator
import json
import re
from typing import Any

from oie import exceptions

LONGEST_LINE = 4096

_SLICE = 65536
_BYTE_ORDER_MARK = b'\xef\xbb\xbf'
_BLANK = re.compile(rb'(?:\xef\xbb\xbf)?\s*')
_LINE_END = re.compile(rb'[\r\n]')
_SPACE = ' \t\v\f'
_TOO_LONG = '(a line too long to be an entry)'
_WITH_PORT = re.compile(r'\[([^][]*)\](?::[0-9]{1,5})?|([^][:]*):[0-9]{1,5}')


def first_byte(document: bytes) -> bytes:
    """Return the first byte that is not blank, nothing if there is none."""
    blank = _BLANK.match(document)
    place = blank.end() if blank else 0
    return document[place : place + 1]


def entries(document: bytes) -> Iterator[str]:
    """Yield each line that says something, without its comment: the rest from # or ; on."""
    for line in lines(document):
        entry = line.partition('#')[0].partition(';')[0].strip(_SPACE)
        if entry:
            yield entry


def lines(document: bytes, longest: int = LONGEST_LINE) -> Iterator[str]:
    """Yield the lines, however they end; what is not ASCII becomes U+FFFD.

    A line that is too long comes as a text that is no entry, unless it is a comment.

    :param longest: in characters, less than 65536
    """
    for piece in _slices(document):
        for line in piece.decode('ascii', 'replace').replace('\r', '\n').split('\n'):
            if len(line) <= longest or line.lstrip(_SPACE).startswith(('#', ';')):
                yield line
            else:
                yield _TOO_LONG


def without_port(address: str) -> str:
    """Return the address of ``address:port`` or ``[address]:port``, any other text as it is."""
    found = _WITH_PORT.fullmatch(address)
    return (found[1] or found[2] or '') if found else address


def value_of(field: object) -> str:
    """Return the text of a JSON value; what is no text is no entry."""
    return field if isinstance(field, str) else f'({type(field).__name__}, not text)'


def json_value(document: bytes | str) -> Any:
    """Return what a JSON document says.

    :raises FeedError: it is none, or too deep or too large a one
    """
    try:
        return json.loads(document)
    except MemoryError as exc:
        raise exceptions.FeedError('it is more JSON than there is memory for') from exc
    except (ValueError, RecursionError) as exc:
        raise exceptions.FeedError(f'it is not JSON: {type(exc).__name__}: {exc}') from exc


def _slices(document: bytes) -> Iterator[bytes]:
    """Yield some lines at a time; of a line larger than a slice, only its beginning."""
    begin = len(_BYTE_ORDER_MARK) if document.startswith(_BYTE_ORDER_MARK) else 0
    while begin < len(document):
        end = begin + _SLICE
        if end >= len(document):
            yield document[begin:]
            return
        cut = max(document.rfind(b'\n', begin, end), document.rfind(b'\r', begin, end)) + 1
        if cut:
            yield document[begin:cut]
            begin = cut
        else:
            yield document[begin:end]
            line_end = _LINE_END.search(document, end)
            begin = line_end.end() if line_end else len(document)
