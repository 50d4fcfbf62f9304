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

"""Failures that last: logged when they start, when they change and when they end."""

import logging

_LONGEST_LINE = 1000
_MOST_TEXTS = 8


class LastingFailures:
    """Remembers what has been said about whom, so that logs stay short.

    A failure that alternates between a few texts says each of them once; more
    than a few are not said at all.

    :param log: where the lines go
    :param limit: how many subjects are remembered at most; the oldest goes
    :param level: of the lines; that of errors, which the default level shows, where somebody
        must act
    """

    def __init__(
        self, log: logging.Logger, limit: int = 10000, level: int = logging.WARNING
    ) -> None:
        self._log = log
        self._limit = limit
        self._level = level
        self._said: dict[tuple[str, str], set[str]] = {}

    def report(self, subject: str, reason: str, text: object) -> None:
        """Log a failure unless the same was said of this subject since it began."""
        line = (str(text) or repr(text))[:_LONGEST_LINE]
        said = self._said.setdefault((subject, reason), set())
        if line in said or len(said) >= _MOST_TEXTS:
            return
        said.add(line)
        # Names and messages may come from tenants: repr keeps them on one line.
        self._log.log(self._level, '%s: %s: %s', subject, reason, repr(line)[1:-1])
        if len(self._said) > self._limit:
            self._said.pop(next(iter(self._said)), None)

    def settle(self, subject: str, *reasons: str) -> None:
        """Log that a failure is over, if there was one."""
        for reason in reasons:
            if self._said.pop((subject, reason), None) is not None:
                self._log.log(self._level, '%s: %s: over', subject, reason)

    def keep_only(self, subjects: set[str]) -> None:
        """Drop what was said of all others: they are gone."""
        for key in tuple(self._said):
            if key[0] not in subjects:
                self._said.pop(key, None)
