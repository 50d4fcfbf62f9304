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

"""How much one peer, and all of them together, may take."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Numbers, bytes, and seconds that no byte of a peer prolongs.

    :raises ValueError: peers that idle or are answered could fill the server up
    """

    connections: int = 256
    handshakes: int = 128
    handshake_seconds: float = 5.0
    head_seconds: float = 5.0
    head_bytes: int = 16 * 1024
    head_lines: int = 64
    request_line_bytes: int = 8 * 1024
    body_seconds: float = 5.0
    body_bytes: int = 4 * 1024
    # From the whole request to the last byte of the answer.
    write_seconds: float = 30.0
    requests: int = 40
    # From this age on an answer that its peer does not read makes room for another.
    stalled_seconds: float = 1.0
    idle_seconds: float = 120.0
    idle_connections: int = 64
    # How long a refused peer may go on sending, so that it comes to read why.
    linger_seconds: float = 1.0

    def __post_init__(self) -> None:
        if self.idle_connections + self.requests >= self.connections:
            raise ValueError('no room for newcomers: raise connections')
