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

"""Compromised hosts as Emerging Threats publishes them: one address a line, once a day."""

from collections.abc import Iterator

from oie.feeds import base
from oie.feeds import sources
from oie.feeds import text


class EmergingThreatsFeed(base.ThreatFeed):
    """Compromised hosts, by Emerging Threats."""

    TAG = 'EMTHREATS'
    OPTS = base.options(url='https://rules.emergingthreats.net/blockrules/compromised-ips.txt')

    def sources(self) -> tuple[str, ...]:
        """Return the one document."""
        return sources.of_url(self.settings)

    def parse(self, document: bytes) -> Iterator[str]:
        """Yield what each line says."""
        return text.entries(document)
