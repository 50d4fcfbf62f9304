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

"""The documents of a list as they came, kept on the disk for the next start.

A cache is one file, ``<feed>.list``: a line of JSON that says what follows and
carries a digest of everything, then the raw documents one after the other. Who
reads it has to parse it with the same checks as if it came from the network.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import hashlib
import json
import re
from typing import Any

from oie import exceptions
from oie.feeds import files

_MAGIC = 'oie threat list'
_VERSION = 1
_MOST_HEADER_BYTES = 2**18
# Also what keeps a name from leading out of the directory.
_NAME = re.compile('[A-Za-z0-9_-]{1,100}')

Validators = tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is kept of a list.

    :ivar sources: where each document came from
    :ivar validators: ETag and Last-Modified of each document
    :ivar fetched_at: when they came, in seconds since 1970
    :ivar entries: how many addresses were found then
    :ivar version: of oie, for people
    """

    feed: str
    driver: str
    sources: tuple[str, ...]
    documents: tuple[bytes, ...]
    validators: Validators
    fetched_at: float
    entries: int
    version: str = ''


def file_name(feed: str, kind: str) -> str:
    """Return the name of a feed's file.

    :raises FeedError: the feed's name would not make one
    """
    if not _NAME.fullmatch(feed):
        raise exceptions.FeedError(
            f'{feed!r} cannot name a file; name the feed with letters, digits, _ and -'
        )
    return f'{feed}.{kind}'


def digest_of(documents: Sequence[bytes]) -> str:
    """Return a text that differs when a document does."""
    each = b''.join(hashlib.sha256(document).digest() for document in documents)
    return hashlib.sha256(each).hexdigest()


def write(directory: str, entry: Entry) -> None:
    """Keep a list in place of the one before.

    :raises FeedError: it could not be written; the one before is what it was
    """
    fields = {
        'magic': _MAGIC,
        'format': _VERSION,
        'feed': entry.feed,
        'driver': entry.driver,
        'sources': entry.sources,
        'documents': [_described(document) for document in entry.documents],
        'digest': digest_of(entry.documents),
        'validators': entry.validators,
        'fetched_at': entry.fetched_at,
        'entries': entry.entries,
        'oie': entry.version,
    }
    header = _line({**fields, 'seal': _seal(fields)}) + b'\n'
    files.replace(directory, file_name(entry.feed, 'list'), (header, *entry.documents))


def read(
    directory: str, *, feed: str, driver: str, sources: Sequence[str], max_document_bytes: int
) -> Entry | None:
    """Return the list that was kept, None when there is none.

    :raises FeedError: the file is damaged, foreign, or of another feed, driver or source
    """
    name = file_name(feed, 'list')
    most = _MOST_HEADER_BYTES + max_document_bytes * len(sources)
    content = files.read(directory, name, most)
    if content is None:
        return None
    try:
        return _decoded(content, feed=feed, driver=driver, sources=tuple(sources))
    except exceptions.FeedError as exc:
        raise exceptions.FeedError(f'{directory}/{name}: {exc}') from exc
    except (KeyError, TypeError, ValueError) as exc:
        raise exceptions.FeedError(f'{directory}/{name}: the header lacks something') from exc


def stored_digest(directory: str, feed: str) -> str:
    """Return digest_of() the documents that are kept, empty when it cannot be told.

    Only the header is looked at: this tells what the file claims to hold.
    """
    try:
        line = files.read_head(directory, file_name(feed, 'list'), _MOST_HEADER_BYTES)
        return str(_header((line or b'').partition(b'\n')[0])['digest'])
    except (exceptions.FeedError, KeyError):
        return ''


def set_aside(directory: str, feed: str) -> str:
    """Move a cache that is not to be trusted to ``<feed>.list.bad``; return what became of it."""
    return files.set_aside(directory, file_name(feed, 'list'))


def _decoded(content: bytes, *, feed: str, driver: str, sources: tuple[str, ...]) -> Entry:
    end = content.find(b'\n', 0, _MOST_HEADER_BYTES)
    header = _header(content[: max(end, 0)])
    for key, wanted in (('feed', feed), ('driver', driver), ('sources', list(sources))):
        if header[key] != wanted:
            raise exceptions.FeedError(f'this is a list of another {key.rstrip("s")}')
    return Entry(
        feed=feed,
        driver=driver,
        sources=sources,
        documents=_documents(memoryview(content)[end + 1 :], header['documents']),
        validators=tuple((etag, modified) for etag, modified in header['validators']),
        fetched_at=header['fetched_at'],
        entries=header['entries'],
        version=header['oie'],
    )


def _header(line: bytes) -> dict[str, Any]:
    """Return the fields of a header that is as it was written, to the bit."""
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or header.get('magic') != _MAGIC:
        raise exceptions.FeedError('this is no cached list')
    if header.get('format') != _VERSION:
        raise exceptions.FeedError(f'this is not format {_VERSION}, the one that is known')
    seal = header.pop('seal', '')
    if seal != _seal(header):
        raise exceptions.FeedError('the header is damaged')
    return header


def _documents(content: memoryview, described: Sequence[Mapping[str, Any]]) -> tuple[bytes, ...]:
    whole = sum(each['bytes'] for each in described)
    if len(content) != whole:
        raise exceptions.FeedError(f'there are {len(content)} bytes of documents, not {whole}')
    documents: list[bytes] = []
    for each in described:
        document = bytes(content[: each['bytes']])
        content = content[each['bytes'] :]
        if _described(document) != each:
            raise exceptions.FeedError(f'document {len(documents) + 1} is damaged')
        documents.append(document)
    return tuple(documents)


def _described(document: bytes) -> dict[str, Any]:
    return {'bytes': len(document), 'sha256': hashlib.sha256(document).hexdigest()}


def _seal(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(_line(fields)).hexdigest()


def _line(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(',', ':')).encode()
