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

"""Questions to a cloud, one by one: a path → its document, or ``UsageError``."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import email.utils
from typing import Any
import urllib.parse

from oie import exceptions
from oie.config import messages
from oie.sources.project_usage import errors

# The first with pages, of OpenStack Ocata.
MICROVERSION = '2.40'

IsWanted = Callable[[], bool]


class Asking:
    """Asks over one connection of openstacksdk.

    :param is_wanted: whether anybody still waits for an answer
    :ivar skew: seconds that our clock is ahead of the cloud's, None if it did not tell
    """

    def __init__(self, connection: Any, clock: Callable[[], float], is_wanted: IsWanted) -> None:
        self._connection = connection
        self._clock = clock
        self._is_wanted = is_wanted
        self.skew: float | None = None

    def identity(self, path: str, query: Mapping[str, str]) -> Iterator[Any]:
        """Give the pages of a list of Keystone.

        :raises UsageError: one of them is not there
        """
        seen = {''}
        marker = ''
        while True:
            more = {'marker': marker} if marker else {}
            document = self._get('identity', path, {**query, **more})
            yield document
            links = document.get('links') if isinstance(document, dict) else None
            following = links.get('next') if isinstance(links, dict) else None
            if not following:
                _check_whole(path, document)
                return
            query_of = urllib.parse.parse_qs(urllib.parse.urlsplit(str(following)).query)
            marker = query_of.get('marker', [''])[0]
            if marker in seen:
                raise exceptions.UsageError('truncated', f'{path}: the pages go in a ring')
            seen.add(marker)

    def compute(self, path: str, query: Mapping[str, str]) -> Any:
        """Return a document of Nova.

        :raises UsageError: there is none
        """
        return self._get('compute', path, query, microversion=MICROVERSION)

    def _get(self, service: str, path: str, query: Mapping[str, str], **more: str) -> Any:
        """Return the document at a path.

        :raises UsageError: there is none
        """
        if not self._is_wanted():
            raise exceptions.UsageError('timeout', f'{path}: nobody waits for it any more')
        with errors.translated(path):
            # To name a service logs in already.
            proxy = getattr(self._connection, service)
            answer = proxy.get(path, params=dict(query), raise_exc=False, **more)
            errors.check(path, answer)
            self._check_version(path, answer, more)
            self._note_clock(answer)
            return answer.json()

    def _check_version(self, path: str, answer: Any, more: Mapping[str, str]) -> None:
        told = str(answer.headers.get('OpenStack-API-Version', ''))
        if more and MICROVERSION not in told.split():
            raise exceptions.UsageError(
                'setup',
                f'{path}: Nova does not answer in microversion {MICROVERSION} but in '
                f'{messages.quoted(told)}; it needs OpenStack Ocata or later',
            )

    def _note_clock(self, answer: Any) -> None:
        """Compare our clock with the Date of an answer, where that has one."""
        with contextlib.suppress(TypeError, ValueError):
            date = email.utils.parsedate_to_datetime(answer.headers.get('Date', ''))
            self.skew = self._clock() - date.timestamp()


def _check_whole(path: str, document: Any) -> None:
    """Refuse a list that Keystone has cut off, which it says beside it and names no next page.

    So do those before pages came; Keystone 30.0 says the same, and names the next page.
    Source: list_limit in https://docs.openstack.org/keystone/latest/configuration/

    :raises UsageError: it is cut off
    """
    if not isinstance(document, dict) or not document.get('truncated'):
        return
    listed = document.get(path.strip('/'))
    number = len(listed) if isinstance(listed, list) else 0
    raise exceptions.UsageError(
        'truncated',
        f'{path}: Keystone cuts its list off after {number} entries; raise list_limit in '
        'keystone.conf above the number of all projects, or name fewer in [usage] domains',
    )
