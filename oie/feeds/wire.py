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

"""What the daemon and its worker tell each other: a job of JSON, an answer of JSON and arrays.

The answer begins with one line, filled up with blanks to a multiple of eight
bytes; the edges of both halves of IPv6 and those of IPv4 follow in the
machine's own order of bytes. So the daemon uses them where they arrived,
without parsing anything.
"""

from collections.abc import Mapping
import dataclasses
import enum
import json
from typing import Any

import numpy as np

from oie import address_sets
from oie import exceptions
from oie.feeds import cache
from oie.feeds import state

# Grows with any change of a job or an answer: a package may be replaced under a running daemon.
PROTOCOL = 1
_MOST_HEADER_BYTES = 2**20
_EDGE_BYTES = 16


class Mode(enum.Enum):
    """What a worker does: read the cache, or ask the publisher."""

    LOAD = 'load'
    REFRESH = 'refresh'


class Status(enum.Enum):
    """How it went; only with the first two an answer brings addresses."""

    LOADED = 'loaded'
    ACCEPTED = 'accepted'
    UNCHANGED = 'unchanged'
    ABSENT = 'absent'
    HELD = 'held'
    FAILED = 'failed'


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What ``[threats]`` allows all feeds."""

    allow_plain_http: bool = False
    allow_private_targets: bool = False
    allow_file_urls: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One thing to do for one feed.

    :ivar parent: process id of who asks
    :ivar seconds: time for all of it
    :ivar settings: the options of ``[feed_NAME]``
    :ivar own_networks: networks that are never listed
    :ivar entries: entries of the list in use, None if there is none
    :ivar documents: digest of the documents of the list in use
    :ivar validators: ETag and Last-Modified of those documents
    """

    mode: Mode
    parent: int
    seconds: float
    feed: str
    driver: str
    settings: Mapping[str, Any]
    own_networks: tuple[str, ...]
    flags: Flags
    cache_dir: str
    entries: int | None = None
    documents: str = ''
    validators: cache.Validators = ()
    held: state.Held | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of a job.

    :ivar seconds: how long it took
    :ivar error: why it failed, or why the list is held
    :ivar is_answered: whether a publisher answered, whatever it said
    :ivar retry_after: seconds that the publisher wants to be left alone
    :ivar entries: of the list that came, ``rejected`` too
    :ivar fetched_at: when the documents came, in seconds since 1970
    :ivar cache_error: why the list could not be kept on the disk
    """

    status: Status
    seconds: float = 0.0
    sources: tuple[str, ...] = ()
    error: str = ''
    is_answered: bool = False
    retry_after: float | None = None
    addresses: address_sets.AddressSet = address_sets.EMPTY
    entries: int = 0
    rejected: Mapping[str, int] = dataclasses.field(default_factory=dict)
    documents: str = ''
    validators: cache.Validators = ()
    fetched_at: float | None = None
    held: state.Held | None = None
    cache_error: str = ''


def encode_job(job: Job) -> bytes:
    """Return a job as JSON."""
    fields = {
        **{field.name: getattr(job, field.name) for field in dataclasses.fields(job)},
        'protocol': PROTOCOL,
        'mode': job.mode.value,
        'settings': dict(job.settings),
        'flags': dataclasses.asdict(job.flags),
        'held': job.held and dataclasses.asdict(job.held),
    }
    return json.dumps(fields).encode()


def decode_job(text: bytes) -> Job:
    """Return the job.

    :raises FeedError: the daemon is of another version than the worker
    """
    fields = json.loads(text)
    if fields.pop('protocol', None) != PROTOCOL:
        raise exceptions.FeedError('oie was upgraded while the exporter ran; restart the exporter')
    return Job(
        **{
            **fields,
            'mode': Mode(fields['mode']),
            'own_networks': tuple(fields['own_networks']),
            'flags': Flags(**fields['flags']),
            'validators': _pairs(fields['validators']),
            'held': fields['held'] and state.decode_held(fields['held']),
        }
    )


def encode_answer(answer: Answer) -> tuple[bytes, ...]:
    """Return an answer in pieces to be written one after the other."""
    v4, v6 = answer.addresses.v4, answer.addresses.v6
    fields = {
        **{field.name: getattr(answer, field.name) for field in dataclasses.fields(answer)},
        'status': answer.status.value,
        'rejected': dict(answer.rejected),
        'addresses': [len(v6), len(v4)],
        'held': answer.held and dataclasses.asdict(answer.held),
    }
    line = json.dumps(fields).encode()
    padding = b' ' * (-(len(line) + 1) % 8)
    return (line + padding + b'\n', v6.high.tobytes(), v6.low.tobytes(), v4.tobytes())


def most_answer_bytes(most_entries: int) -> int:
    """Return how long an answer may be; taking out networks splits entries, but not many."""
    return 2 * _MOST_HEADER_BYTES + 2 * _EDGE_BYTES * most_entries


def decode_answer(received: bytearray) -> Answer:
    """Return an answer, whose arrays are those that were received.

    :raises FeedError: it is cut off, or is no answer
    """
    end = received.find(b'\n', 0, _MOST_HEADER_BYTES) + 1
    try:
        fields = json.loads(received[:end])
        lengths = fields['addresses']
        return _answer(fields, _addresses(received, end, *lengths))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise exceptions.FeedError(f'the worker gave no proper answer: {exc!r}') from exc


def _answer(fields: Mapping[str, Any], addresses: address_sets.AddressSet) -> Answer:
    return Answer(
        status=Status(fields['status']),
        seconds=float(fields['seconds']),
        sources=tuple(map(_text, fields['sources'])),
        error=_text(fields['error']),
        is_answered=bool(fields['is_answered']),
        retry_after=_number(fields['retry_after']),
        addresses=addresses,
        entries=int(fields['entries']),
        rejected={_text(reason): int(count) for reason, count in fields['rejected'].items()},
        documents=_text(fields['documents']),
        validators=_pairs(fields['validators']),
        fetched_at=_number(fields['fetched_at']),
        held=fields['held'] and state.decode_held(fields['held']),
        cache_error=_text(fields['cache_error']),
    )


def _addresses(
    received: bytearray, offset: int, wide: int, narrow: int
) -> address_sets.AddressSet:
    if len(received) - offset != wide * _EDGE_BYTES + narrow * 4 or min(wide, narrow) < 0:
        raise ValueError('the arrays are not as long as announced')
    high = np.frombuffer(received, np.uint64, wide, offset)
    low = np.frombuffer(received, np.uint64, wide, offset + wide * 8)
    v4 = np.frombuffer(received, np.uint32, narrow, offset + wide * 16)
    rises = high[1:] > high[:-1]
    if not np.all(v4[1:] > v4[:-1]) or not np.all(
        rises | ((high[1:] == high[:-1]) & (low[1:] > low[:-1]))
    ):
        raise ValueError('the edges do not ascend')
    for array in (high, low, v4):
        array.flags.writeable = False
    return address_sets.AddressSet(v4, address_sets.Wide(high, low))


def _pairs(value: Any) -> cache.Validators:
    return tuple((_text(etag), _text(modified)) for etag, modified in value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f'{value!r:.50} is no text')
    return value


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
