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


"""Does the exporter of this container answer? Exit status 0 if so, else 1 and one line.

It asks over the unix socket, which is the same whatever address, certificate and password
the endpoint has. The only argument is the path of the socket, where [exporter] socket_path
is not the usual one.
"""

import socket
import sys

SOCKET = '/run/oie/oie.sock'
SECONDS = 3.0
# Answered by the endpoint itself: no libvirt, no collection, no log.
REQUEST = b'GET /debug/log-level HTTP/1.1\r\nHost: oie\r\nConnection: close\r\n\r\n'


def main() -> int:
    """Ask once; return the exit status."""
    path = sys.argv[1] if len(sys.argv) > 1 else SOCKET
    try:
        line = ask(path)
    except OSError as exc:
        line = str(exc)
    if line.split()[1:2] == ['200']:
        return 0
    print(f'{path}: {line or "closed without an answer"}')
    return 1


def ask(path: str) -> str:
    """Return the first line of the answer.

    :raises OSError: nobody listens, or nobody answers in time
    """
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(SECONDS)
        peer.connect(path)
        peer.sendall(REQUEST)
        return peer.recv(256).decode('ascii', 'replace').partition('\r\n')[0]


if __name__ == '__main__':
    sys.exit(main())
