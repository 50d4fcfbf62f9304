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

"""From when on usage counts: an option, or what a server says once."""

from typing import Any

from oie import exceptions
from oie.config import moments
from oie.sources.project_usage import documents

_REASON = 'start_date'


def parse(document: Any) -> int:
    """Return the moment of a document: a list whose first entry has a ``start_date``.

    :raises ValueError: it is none
    """
    first = document[0] if isinstance(document, list) and document else None
    if not isinstance(first, dict) or 'start_date' not in first:
        raise ValueError('it is no list whose first entry has a start_date')
    return moments.parse(str(first['start_date']))


class StartDate:
    """Knows from when on usage counts.

    :param fixed: microseconds since 1970, None for the first start
    :param url: empty for the fixed one
    """

    def __init__(self, fixed: int | None, url: str, *, timeout: float) -> None:
        self._fixed = fixed
        self._url = url
        self._timeout = timeout
        self._answered: int | None = None

    def moment(self) -> int | None:
        """Return the moment in microseconds, None for the first start.

        :raises UsageError: the server has not told it yet
        """
        if not self._url:
            return self._fixed
        if self._answered is None:
            document = documents.read(self._url, reason=_REASON, timeout=self._timeout)
            try:
                self._answered = parse(document)
            except ValueError as exc:
                shown = self._url.partition('?')[0]
                raise exceptions.UsageError(_REASON, f'{shown}: {exc}') from exc
        return self._answered
