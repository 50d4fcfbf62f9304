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

"""What came back over a connection into answers: who gave each of them, and with which status."""

import dataclasses
import re

_HEAD_END = b'\r\n\r\n'
_STATUS = re.compile(rb'HTTP/1\.[01] (\d{3})')
_LENGTH = re.compile(rb'^content-length:[ \t]*(\d+)[ \t]*\r?$', re.MULTILINE | re.IGNORECASE)
_CHUNKED = re.compile(rb'^transfer-encoding:.*chunked', re.MULTILINE | re.IGNORECASE)
_DATE = re.compile(rb'^date:', re.MULTILINE | re.IGNORECASE)


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """One answer to a request.

    :ivar has_date: Prometheus, as every server made with Go's net/http, dates its answers;
        HAProxy does not date its own (2.6.12, 2026-11). So a refusal without a date is the
        gate's own, and whatever has one comes from behind it.
    """

    status: int
    has_date: bool

    @property
    def is_refusal(self) -> bool:
        """Whether the gate itself said no."""
        return self.status >= 400 and not self.has_date

    def __str__(self) -> str:
        return f'{self.status} {"by the gate" if self.is_refusal else "from behind the gate"}'


def parse(data: bytes) -> list[Answer]:
    """Return the answers of a connection of HTTP/1, those of status 100 left out.

    What is no HTTP at all, as a Prometheus asked by HTTP/0.9 would give, counts as an answer
    from behind: status 0.
    """
    found: list[Answer] = []
    rest = data
    while rest:
        match = _STATUS.match(rest)
        if not match:
            # Of another protocol, HTTP/2 after an upgrade, or none.
            found.append(Answer(0, has_date=True))
            break
        head, _, after = rest.partition(_HEAD_END)
        status = int(match[1])
        if status != 100:
            found.append(Answer(status, has_date=_DATE.search(head) is not None))
        if status == 101:
            break
        rest = after[_body_length(head, after) :]
    return found


def _body_length(head: bytes, after: bytes) -> int:
    """Return how many bytes of what follows a head are its body."""
    length = _LENGTH.search(head)
    if length:
        return int(length[1])
    if not _CHUNKED.search(head):
        return 0 if _STATUS.match(after) else len(after)
    position = 0
    while match := re.compile(rb'([0-9A-Fa-f]+)[^\r\n]*\r\n').match(after, position):
        size = int(match[1], 16)
        position = match.end() + size + 2
        if size == 0:
            return position
    return len(after)
