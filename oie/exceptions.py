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

"""What can go wrong, as a tree.

* OieError
  x ConfigError     a wrong option, file or plugin: the program does not start
  x SourceError     a source could not be read; its last values stay
    + SourceTimeout the same, because it did not answer in time
    + InconsistentTable  the same, because what came contradicts itself
    + OversizedTable  the same, because it is larger than the operator allows
    + VanishedNamespace  a network namespace is gone: there is nothing to read
    + UsageError    the same of a cloud's usage, with the reason by which it is counted
  x FeedError       a threat list could not be had, or is not plausible: the last good one stays
  x WebError        the endpoint cannot listen
  x PollsterError   no trustworthy answer for Ceilometer
  x LedgerError     the file of the totals cannot be used: they are kept in memory
    + LedgerHeld    the same, because another exporter writes it: there are no totals
  x GateError       a file of the gate cannot be changed, or the gate cannot be asked
"""


class OieError(Exception):
    """Base of all our errors; the text names the thing, the value, the next step."""


class ConfigError(OieError):
    """A wrong option, file or plugin: the program does not start."""


class SourceError(OieError):
    """A source could not be read."""


class SourceTimeout(SourceError):
    """A source did not answer in time."""


class InconsistentTable(SourceError):
    """A table came, but it contradicts itself or the kernel's own counter."""


class OversizedTable(SourceError):
    """A table has more entries than the operator wants to have read."""


class VanishedNamespace(SourceError):
    """A network namespace is gone, or what lies at its path is none."""


class UsageError(SourceError):
    """The usage of a cloud could not be read or booked.

    :ivar reason: one of model.USAGE_FAILURES
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class FeedError(OieError):
    """A threat list could not be had, or what came is not plausible."""


class WebError(OieError):
    """The endpoint cannot listen on an address."""


class PollsterError(OieError):
    """There is no trustworthy answer to print for Ceilometer."""


class LedgerError(OieError):
    """The file of the totals cannot be used."""


class LedgerHeld(LedgerError):
    """Another exporter writes the file of the totals."""


class GateError(OieError):
    """A file of the gate cannot be changed, or a running gate cannot be asked."""
