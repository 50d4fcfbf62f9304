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

"""Tor relays, as Onionoo tells of them: one JSON object for all of them.

Source: https://metrics.torproject.org/onionoo.html, "details" documents, made
once an hour. ``or_addresses`` carry ports, and IPv6 brackets; ``exit_addresses``,
from which an exit was seen to call, do not, and are missing where none was seen.
"""

from collections.abc import Iterator
from typing import Any

from oie import exceptions
from oie.feeds import base
from oie.feeds import sources
from oie.feeds import text

_DETAILS = 'https://onionoo.torproject.org/details?type=relay&running=true'
_FIELDS = ('or_addresses', 'exit_addresses')


class RelayFeed(base.ThreatFeed):
    """Tor relays that are running."""

    TAG = 'TORRELAY'
    OPTS = base.options(
        url=f'{_DETAILS}&fields={",".join(_FIELDS)}', refresh='1h', min_interval='30m'
    )

    def sources(self) -> tuple[str, ...]:
        """Return the one document."""
        return sources.of_url(self.settings)

    def parse(self, document: bytes) -> Iterator[str]:
        """Yield all addresses of each relay.

        :raises FeedError: it is no document of Onionoo
        """
        for relay in _listed(text.json_value(document), 'relays'):
            for field in _FIELDS:
                for address in _listed(relay, field, ()):
                    yield text.without_port(text.value_of(address))


class ExitFeed(RelayFeed):
    """Tor relays that are running and let traffic out, with the addresses it comes from."""

    TAG = 'TOR'
    OPTS = base.options(
        url=f'{_DETAILS}&flag=Exit&fields={",".join(_FIELDS)}', refresh='1h', min_interval='30m'
    )


def _listed(value: Any, key: str, default: Any = None) -> Any:
    """Return the list that an object has under a key."""
    found = value.get(key, default) if isinstance(value, dict) else None
    if not isinstance(found, list | tuple):
        raise exceptions.FeedError(f'it is no document of Onionoo: there is no list {key}')
    return found
