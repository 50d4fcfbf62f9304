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

"""Threats → lines of the threat log, which no name in them can forge.

Letters, digits and ``._:/@+-`` of a value stand as they are; every other
character is ``\\xHH``, ``\\uXXXX`` or ``\\UXXXXXXXX``. So fields end at a space,
lines at a line feed, and ``value.encode().decode('unicode_escape')`` of Python
gives the original. What is longer than 256 characters ends in ``\\u2026`` there.
"""

from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import json
import re
import time
from typing import ClassVar
from typing import TypeAlias

Value: TypeAlias = str | int | None

MOST_CHARACTERS = 256
_CUT = '…'

_IDENTITY = ('domain', 'uuid', 'project', 'user')
_NANOSECONDS = 10**9
_ODD = re.compile('[^A-Za-z0-9._:/@+-]')


@dataclasses.dataclass(frozen=True, slots=True)
class Contact:
    """An instance and an address of a list that are in touch; ``tag`` names the list."""

    tag: str
    domain: str
    uuid: str
    project: str
    user: str
    src: str
    dst: str
    direction: str

    DETAILS: ClassVar[tuple[str, ...]] = ('src', 'dst', 'direction')
    JOURNAL: ClassVar[tuple[str, ...]] = ('domain', 'uuid', *DETAILS)

    @property
    def identity(self) -> Hashable:
        """What makes two of them the same one, seen twice."""
        return self


@dataclasses.dataclass(frozen=True, slots=True)
class Outbound:
    """What a busy fixed IP does outbound in one interval; None is what nobody could tell."""

    domain: str
    uuid: str
    project: str
    user: str
    ip: str
    family: str
    uniq_remotes: int | None
    new_remotes: int | None
    flows: int | None
    max_single_remote: int | None
    uniq_dst_ports: int | None
    new_dst_ports: int | None
    max_single_dst_port_flows: int | None

    tag: ClassVar[str] = 'OUTBOUND'
    DETAILS: ClassVar[tuple[str, ...]] = (
        'ip',
        'family',
        'uniq_remotes',
        'new_remotes',
        'flows',
        'max_single_remote',
        'uniq_dst_ports',
        'new_dst_ports',
        'max_single_dst_port_flows',
    )
    JOURNAL: ClassVar[tuple[str, ...]] = ('domain', 'uuid', *DETAILS)

    @property
    def identity(self) -> Hashable:
        """The fixed IP and whose it is, without the numbers."""
        return (self.domain, self.uuid, self.project, self.user, self.ip, self.family)


@dataclasses.dataclass(frozen=True, slots=True)
class HostThreat:
    """An address of this host that stands on a list."""

    list: str
    ip: str
    family: str

    tag: ClassVar[str] = 'HOST_THREAT'
    DETAILS: ClassVar[tuple[str, ...]] = ('list', 'ip', 'family')
    JOURNAL: ClassVar[tuple[str, ...]] = DETAILS

    @property
    def identity(self) -> Hashable:
        """What makes two of them the same one, seen twice."""
        return self


@dataclasses.dataclass(frozen=True, slots=True)
class Dropped:
    """Lines that were left out, written as ``count`` with the reason."""

    reason: str

    tag: ClassVar[str] = 'DROPPED'
    DETAILS: ClassVar[tuple[str, ...]] = ('reason',)
    JOURNAL: ClassVar[tuple[str, ...]] = DETAILS


Record: TypeAlias = Contact | Outbound | HostThreat
Line: TypeAlias = Record | Dropped
# (time as text, what the line tells, intervals or lines it stands for; 0 is left out) → line
Format: TypeAlias = Callable[[str, Line, int], bytes]


def reference(stamp: str, line: Line, count: int) -> bytes:
    """Return ``<time> tag=… domain=… …`` as the reference exporter has it."""
    fields = ' '.join(f'{name}={escaped(value)}' for name, value in _fields(line, count))
    return f'{stamp} {fields}\n'.encode('ascii')


def as_json(stamp: str, line: Line, count: int) -> bytes:
    """Return the same fields as one ASCII JSON object; numbers are numbers, unknown is null."""
    fields: dict[str, Value] = {'time': stamp}
    for name, value in _fields(line, count):
        fields[name] = _cut(value) if isinstance(value, str) else value
    text = json.dumps(fields, ensure_ascii=True, allow_nan=False, default=str)
    return f'{text}\n'.encode('ascii')


FORMATS: Mapping[str, Format] = {'reference': reference, 'json': as_json}


def journal(line: Line, count: int) -> str:
    """Return ``[THREAT] <TAG>-HIT: domain= uuid= …``, escaped as the lines are."""
    tag = 'TOREXIT' if line.tag == 'TOR' else escaped(line.tag)
    head = tag if isinstance(line, Dropped) else f'{tag}-HIT'
    fields = [f'{name}={escaped(getattr(line, name))}' for name in line.JOURNAL]
    return f'[THREAT] {head}: {" ".join(fields)}{f" count={count}" if count else ""}'


def timestamp(ns: int) -> str:
    """Return nanoseconds since the epoch as Go's time.RFC3339Nano writes local time.

    Zeros at the end of the fraction are cut; the offset is numeric, ``Z`` for none.
    """
    seconds, rest = divmod(ns, _NANOSECONDS)
    local = time.localtime(seconds)
    fraction = f'.{rest:09}'.rstrip('0') if rest else ''
    return f'{time.strftime("%Y-%m-%dT%H:%M:%S", local)}{fraction}{_offset(local.tm_gmtoff)}'


def escaped(value: Value) -> str:
    """Return a value without anything that could end a field or look like another one."""
    return '' if value is None else _ODD.sub(_escape, _cut(str(value)))


def _fields(line: Line, count: int) -> Iterator[tuple[str, Value]]:
    yield 'tag', line.tag
    for name in _IDENTITY:
        yield name, getattr(line, name, '')
    for name in line.DETAILS:
        yield name, getattr(line, name)
    if count:
        yield 'count', count


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f'{text[:MOST_CHARACTERS]}{_CUT}'


def _escape(odd: re.Match[str]) -> str:
    code = ord(odd[0])
    if code <= 0xFF:
        return f'\\x{code:02x}'
    return f'\\u{code:04x}' if code <= 0xFFFF else f'\\U{code:08x}'


def _offset(seconds: int) -> str:
    if not seconds:
        return 'Z'
    hours, minutes = divmod(abs(seconds) // 60, 60)
    return f'{"-" if seconds < 0 else "+"}{hours:02}:{minutes:02}'
