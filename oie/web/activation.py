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

"""Sockets that the service manager opened for us, as sd_listen_fds(3) describes them."""

from collections.abc import MutableMapping
import os
import socket

from oie import exceptions

_FIRST = 3
_VARIABLES = ('LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES')


def passed(environment: MutableMapping[str, str] = os.environ) -> list[socket.socket]:
    """Return the listening sockets that are meant for this process, none where nobody passed any.

    The variables are taken away and no child inherits the sockets.

    :raises WebError: the number is none, or one of them is no listening stream socket
    """
    found = {name: environment.pop(name, '') for name in _VARIABLES}
    if found['LISTEN_PID'] != str(os.getpid()):
        return []
    if not found['LISTEN_FDS'].isdecimal():
        raise exceptions.WebError(f'LISTEN_FDS is no number: {found["LISTEN_FDS"]!a}')
    return [_adopt(_FIRST + number) for number in range(int(found['LISTEN_FDS']))]


def _adopt(descriptor: int) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        # Family and kind are those that the kernel tells.
        adopted = socket.socket(fileno=descriptor)
    except OSError as exc:
        raise exceptions.WebError(
            f'descriptor {descriptor} of the service manager is no socket: {exc.strerror}'
        ) from exc
    is_stream = adopted.type == socket.SOCK_STREAM
    is_known = adopted.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
    if not (
        is_stream and is_known and adopted.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    ):
        raise exceptions.WebError(
            f'descriptor {descriptor} of the service manager is no listening TCP or unix stream '
            'socket; the .socket unit needs ListenStream= and Accept=no'
        )
    return adopted
