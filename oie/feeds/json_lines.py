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

"""A list as JSON: addresses in one field of objects, one a line or all in an array."""

from collections.abc import Iterator
from typing import Any

from oslo_config import cfg

from oie import exceptions
from oie.feeds import base
from oie.feeds import sources
from oie.feeds import text

_LONGEST_LINE = 60000


class JsonLinesFeed(base.ThreatFeed):
    """A field of JSON objects, one object a line or all in one array."""

    OPTS = (
        *base.options(),
        sources.PATH,
        cfg.StrOpt(
            'field',
            default='ip',
            help='Field of the address, network or range, or of several in an array; dots lead '
            'into objects within objects. A port behind an address is left out.',
        ),
    )

    def sources(self) -> tuple[str, ...]:
        """Return the one document."""
        return sources.of_url_or_path(self.settings)

    def parse(self, document: bytes) -> Iterator[str]:
        """Yield what the field says in each object; a line that is no JSON is a bad entry.

        :raises FeedError: the document begins as an array, and is none
        """
        path = self.settings.field.split('.')
        is_array = text.first_byte(document) == b'['
        for value in text.json_value(document) if is_array else _lines(document):
            for name in path:
                value = value.get(name) if isinstance(value, dict) else None
            for entry in value if isinstance(value, list) else [value]:
                yield text.without_port(text.value_of(entry))


def _lines(document: bytes) -> Iterator[Any]:
    for line in text.lines(document, _LONGEST_LINE):
        if line.strip():
            yield _value(line)


def _value(line: str) -> Any:
    try:
        return text.json_value(line)
    except exceptions.FeedError:
        return None
