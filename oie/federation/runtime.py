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

"""Commands to a running HAProxy over its stats socket, so that a new token needs no reload.

Source: the management guide of HAProxy 2.6, ``add map`` and ``del map``.
"""

from collections.abc import Iterable
import socket

from oie import exceptions
from oie.federation import tokens

SECONDS = 5.0
_LONGEST_ANSWER = 2**16


class NoGate(exceptions.GateError):
    """No HAProxy runs that serves the socket."""


def additions(map_path: str, entries: Iterable[tokens.Entry]) -> list[str]:
    """Return the commands that make tokens valid."""
    return [f'add map {map_path} {entry.hash} {entry.portal}' for entry in entries]


def removals(map_path: str, entries: Iterable[tokens.Entry]) -> list[str]:
    """Return the commands that end tokens."""
    return [f'del map {map_path} {entry.hash}' for entry in entries]


def send(path: str, commands: Iterable[str]) -> None:
    """Have a running HAProxy do these commands.

    :raises NoGate: nobody serves the socket
    :raises GateError: it cannot be asked, or it refused one
    """
    for command in commands:
        try:
            answer = _ask(path, command)
        except (FileNotFoundError, ConnectionRefusedError) as exc:
            raise NoGate(f'{path}: {exc.strerror}') from exc
        except OSError as exc:
            raise exceptions.GateError(f'{path}: {exc.strerror or exc}') from exc
        if answer.strip():
            raise exceptions.GateError(f'{path}: HAProxy says {" ".join(answer.split())!r}')


def _ask(path: str, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(SECONDS)
        connection.connect(path)
        connection.sendall(f'{command}\n'.encode('ascii'))
        parts, size = [], 0
        while size < _LONGEST_ANSWER and (part := connection.recv(4096)):
            parts.append(part)
            size += len(part)
    return b''.join(parts).decode('utf-8', 'replace')
