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

"""Spamhaus DROP: networks of criminals alone, for IPv4 and IPv6 in a document each.

Source: https://www.spamhaus.org/drop/. As published: an object a line, the last
of which counts the others; or, announced to go, text with comments after ``;``.
To be asked once an hour at most. Its terms want the copyright and the date kept
where it is passed on; it is not passed on.
"""

from collections.abc import Iterator
from typing import Any

from oslo_config import cfg

from oie import config
from oie import exceptions
from oie.feeds import base
from oie.feeds import sources
from oie.feeds import text


class SpamhausFeed(base.ThreatFeed):
    """Networks that belong to criminals, by Spamhaus (DROP)."""

    TAG = 'SPAMHAUS'
    OPTS = (
        *base.options(url='https://www.spamhaus.org/drop/drop_v4.json'),
        cfg.Opt(
            'ipv6_url',
            type=config.FeedUrl(),
            default='https://www.spamhaus.org/drop/drop_v6.json',
            help='Where the networks of IPv6 are. Both documents are used or none. Empty: only '
            'those of url.',
        ),
    )

    def sources(self) -> tuple[str, ...]:
        """Return the document of IPv4 and, where it is wanted, that of IPv6."""
        ipv6_url = self.settings.ipv6_url
        return (*sources.of_url(self.settings), *((ipv6_url,) if ipv6_url else ()))

    def parse(self, document: bytes) -> Iterator[str]:
        """Yield each network; an address alone counts as a bad entry.

        :raises FeedError: a record is missing or none
        """
        is_json = text.first_byte(document) == b'{'
        for entry in _cidrs(document) if is_json else text.entries(document):
            yield entry if '/' in entry else f'no network: {entry}'


def _cidrs(document: bytes) -> Iterator[str]:
    count, expected = 0, None
    for line in text.lines(document):
        if not line.strip():
            continue
        record: Any = text.json_value(line)
        if not isinstance(record, dict):
            raise exceptions.FeedError('one of its lines is not a JSON object')
        if record.get('type') == 'metadata':
            expected = record.get('records')
        else:
            count += 1
            yield text.value_of(record.get('cidr'))
    if count != expected:
        told = 'not told' if expected is None else str(expected)[:20]
        raise exceptions.FeedError(
            f'it has {count} records, and the number that it should have is {told}: '
            'the end is missing, or it is another format'
        )
