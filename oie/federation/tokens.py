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

"""The credentials of portals: fresh tokens, and the map of their hashes that the gate reads.

A line of the map is the hash of ``Bearer TOKEN``, the whole value of the header,
and the name of the portal. The gate hashes what comes and looks it up; nobody
who reads the map can make a request of it.
"""

from collections.abc import Iterable
import dataclasses
import hashlib
import re
import secrets

from oie import exceptions

TOKEN_BYTES = 32
# Shorter ones could be guessed with patience.
SHORTEST = 32
ID_LENGTH = 12

_NAME = re.compile('[A-Za-z0-9][A-Za-z0-9_.-]{0,63}')
_LINE = re.compile(rf'([0-9A-F]{{64}})\s+({_NAME.pattern})\s*')
_TOKEN = re.compile(r'[A-Za-z0-9._~+/-]+=*')


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A token of a portal, by its hash."""

    hash: str
    portal: str

    @property
    def id(self) -> str:
        """How people name the token: the beginning of its hash."""
        return self.hash[:ID_LENGTH]


def fresh() -> str:
    """Return a token that nobody has had before: 43 letters, digits, ``-`` and ``_``."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def hash_of(token: str) -> str:
    """Return what stands for a token in the map, in capitals as HAProxy's ``hex`` makes them."""
    return hashlib.sha256(f'Bearer {token}'.encode('ascii')).hexdigest().upper()


def check_name(name: str) -> str:
    """Return the name of a portal.

    :raises ConfigError: it could not stand in the map
    """
    if not _NAME.fullmatch(name):
        raise exceptions.ConfigError(
            f'{name!r} is no name of a portal: it begins with a letter or a digit and goes on '
            'with up to 63 letters, digits and _.-'
        )
    return name


def check_token(token: str) -> str:
    """Return a token that somebody else made.

    :raises ConfigError: too short, or it could not stand in a header; the text never shows it
    """
    if len(token) < SHORTEST or not _TOKEN.fullmatch(token):
        raise exceptions.ConfigError(
            f'the token must have {SHORTEST} characters or more, letters, digits and -._~+/= at '
            'its end; let "token new" make one'
        )
    return token


def parse(text: str, path: str) -> tuple[Entry, ...]:
    """Return the entries of a map, the oldest first.

    :param path: only for the error
    :raises GateError: a line is something else; the text does not show it, it may be a token
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith('#'):
            continue
        match = _LINE.fullmatch(line)
        if not match:
            raise exceptions.GateError(
                f'{path}:{number}: not a hash in capitals and the name of a portal; take the line '
                'away and make the token anew'
            )
        found.append(Entry(match[1], match[2]))
    return tuple(found)


def text_of(entries: Iterable[Entry]) -> str:
    """Return the text of a map."""
    return ''.join(f'{entry.hash} {entry.portal}\n' for entry in entries)


def chosen(
    entries: Iterable[Entry], portal: str, *, id_: str = '', is_older: bool = False
) -> tuple[Entry, ...]:
    """Return the entries of a portal that shall go.

    :param id_: the beginning of the hash of one of them; empty: any
    :param is_older: all but the newest
    :raises GateError: there is none, or ``id_`` means more than one
    """
    found = tuple(
        entry for entry in entries if entry.portal == portal and entry.hash.startswith(id_.upper())
    )
    if is_older:
        found = found[:-1]
    if not found:
        raise exceptions.GateError(
            f'there is no such token of {portal}; "token list" shows those there are'
        )
    if id_ and len(found) > 1:
        raise exceptions.GateError(f'{id_} begins {len(found)} tokens; write more of it')
    return found
