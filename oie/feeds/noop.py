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

"""A feed that lists nothing: the template of a driver."""

from collections.abc import Iterator

from oie.feeds import base


class NoopFeed(base.ThreatFeed):
    """Lists nothing; for trying out what depends on a list."""

    OPTS = base.options(allow_empty=True)

    def sources(self) -> tuple[str, ...]:
        """Return none: there is nothing to fetch."""
        return ()

    def parse(self, document: bytes) -> Iterator[str]:
        """Yield nothing, whatever the document says."""
        return iter(())
