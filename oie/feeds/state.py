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

"""What must be known of a feed after a restart: when it was asked, and how that went.

Without it every restart would ask the publisher again, and a list on hold would
wait anew.
"""

from collections.abc import Mapping
import dataclasses
import json
import math
from typing import Any

from oie import exceptions
from oie.feeds import cache
from oie.feeds import files

_VERSION = 1
_MOST_BYTES = 2**16


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A list that differs too much from the one in use, and waits to be confirmed.

    :ivar since: when it was seen first, in seconds since 1970
    :ivar times: how often it was seen
    """

    entries: int
    since: float
    times: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """All times are seconds since 1970.

    :ivar sources: digest of where the list came from; another source has another state
    :ivar documents: digest of what came at ``last_success_at``
    :ivar is_answered: whether the publisher answered at ``last_attempt_at``, or may have
    :ivar failures: how many attempts have failed since the last good one
    :ivar not_before: before this time the publisher does not want to be asked
    """

    sources: str = ''
    documents: str = ''
    last_attempt_at: float | None = None
    is_answered: bool = False
    last_success_at: float | None = None
    failures: int = 0
    not_before: float | None = None
    held: Held | None = None


def since(then: float | None, now: float) -> float:
    """Return the seconds from then to now, infinity for never.

    A time in the future is taken for now: the clock was set back.
    """
    return math.inf if then is None else max(now - then, 0.0)


def read(directory: str, feed: str) -> State:
    """Return what is known of a feed, an empty state when nothing is.

    :raises FeedError: the file is damaged, or is not ours
    """
    name = cache.file_name(feed, 'state')
    content = files.read(directory, name, _MOST_BYTES)
    if content is None:
        return State()
    try:
        return _decoded(json.loads(content))
    except (ValueError, TypeError, KeyError, RecursionError) as exc:
        raise exceptions.FeedError(f'{directory}/{name} is damaged: {exc}') from exc


def write(directory: str, feed: str, state: State) -> None:
    """Keep what is known of a feed.

    :raises FeedError: it could not be written; what was kept before stays
    """
    fields = {'format': _VERSION, **dataclasses.asdict(state)}
    files.replace(directory, cache.file_name(feed, 'state'), (json.dumps(fields).encode(),))


def _decoded(fields: Mapping[str, Any]) -> State:
    if fields['format'] != _VERSION:
        raise ValueError(f'this is not format {_VERSION}')
    held = fields['held']
    return State(
        sources=_text(fields['sources']),
        documents=_text(fields['documents']),
        last_attempt_at=_time(fields['last_attempt_at']),
        is_answered=bool(fields['is_answered']),
        last_success_at=_time(fields['last_success_at']),
        failures=_count(fields['failures']),
        not_before=_time(fields['not_before']),
        held=None if held is None else decode_held(held),
    )


def decode_held(fields: Mapping[str, Any]) -> Held:
    """Return what dataclasses.asdict() made of a Held.

    :raises ValueError: or KeyError, or TypeError: it is something else
    """
    times = _time(fields['since'])
    if times is None:
        raise ValueError('a list is on hold since never')
    return Held(entries=_count(fields['entries']), since=times, times=_count(fields['times']))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f'{value!r} is no text')
    return value


def _time(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f'{value!r} is no time')
    return float(value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f'{value!r} is no count')
    return value
