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

"""A list as text: one address, network or range a line."""

from collections.abc import Iterator

from oie.feeds import base
from oie.feeds import sources
from oie.feeds import text


class PlainListFeed(base.ThreatFeed):
    """A text of one address, network or ``first-last`` a line, with comments after # or ;."""

    OPTS = (*base.options(), sources.PATH)

    def sources(self) -> tuple[str, ...]:
        """Return the one document."""
        return sources.of_url_or_path(self.settings)

    def parse(self, document: bytes) -> Iterator[str]:
        """Yield what each line says."""
        return text.entries(document)
