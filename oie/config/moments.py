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

"""Dates of clouds ↔ whole microseconds since 1970; without a zone they are UTC.

Nova writes ``2026-11-21T20:17:46.000000`` and means UTC, Keystone and people add a zone.
"""

import datetime
import re

from oie.config import messages

SECOND = 10**6
HOUR = 3600 * SECOND
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_MICROSECOND = datetime.timedelta(microseconds=1)
# Nova began in 2010; whatever comes after the last year is a mistake too.
_FIRST_YEAR, _LAST_YEAR = 2010, 2199
_SHAPE = re.compile(
    r'([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[T ]([0-9]{2}:[0-9]{2}(?::[0-9]{2})?)(?:[.]([0-9]{1,9}))?)?'
    r'(Z|[+-][0-9]{2}:?[0-9]{2})?'
)


def parse(text: object) -> int:
    """Return the moment of a text.

    :raises ValueError: no date, or one that no cloud has seen
    """
    found = _SHAPE.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None:
        raise ValueError(
            f'{messages.quoted(text)} is no date; write for example 2026-01-31 or '
            '2026-01-31T06:00:00Z'
        )
    day, time, fraction, zone = found.groups()
    zone = '+00:00' if zone in (None, 'Z') else f'{zone[:3]}:{zone[-2:]}'
    try:
        moment = datetime.datetime.fromisoformat(f'{day}T{time or "00:00"}{zone}')
    except ValueError as exc:
        raise ValueError(f'{messages.quoted(text)} is no date: {exc}') from exc
    return of(moment) + int((fraction or '0')[:6].ljust(6, '0'))


def of(moment: datetime.datetime) -> int:
    """Return the microseconds of a moment; without a zone it is UTC.

    :raises ValueError: no cloud has seen it
    """
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise ValueError(f'the year {moment.year} is not between {_FIRST_YEAR} and {_LAST_YEAR}')
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.timezone.utc)
    return (moment - _EPOCH) // _MICROSECOND


def text_of(moment: int) -> str:
    """Return a moment as Nova takes it in a query: UTC with all microseconds."""
    at = _EPOCH + datetime.timedelta(microseconds=moment)
    return at.strftime('%Y-%m-%dT%H:%M:%S.%f')
