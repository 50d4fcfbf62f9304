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

"""An attempt over HTTP/2 into the answers it got, however malformed it is.

The library ``h2`` makes the frames (extra ``gate``). It would refuse to send
half of what is tried here, so its checks of what goes out are off.
"""

import contextlib
import importlib.util
import socket
import time
from typing import Any

from oie.federation import answers
from oie.federation import attempts
from oie.federation import connections

_STREAM = 1


def is_available() -> bool:
    """Return whether the library is installed."""
    return importlib.util.find_spec('h2') is not None


def exchange(
    gate: connections.Gate, attempt: attempts.Attempt, filling: attempts.Filling
) -> list[answers.Answer]:
    """Return the answers to an attempt, none when the gate reset the stream or hung up.

    Without TLS the client begins with HTTP/2 at once.

    :raises OSError: there is no connection to be had
    """
    with gate.connect('h2') as connection:
        try:
            speaker = _Speaker(connection)
            speaker.send(attempt, filling)
            return speaker.receive()
        except OSError:
            return []


class _Speaker:
    def __init__(self, connection: socket.socket) -> None:
        import h2.config
        import h2.connection

        self._socket = connection
        settings = h2.config.H2Configuration(
            client_side=True,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
            header_encoding=None,
        )
        self._state: Any = h2.connection.H2Connection(settings)
        self._state.initiate_connection()
        # Answers of some megabytes come without a pause for our permission.
        self._state.increment_flow_control_window(2**30)
        self._flush()

    def send(self, attempt: attempts.Attempt, filling: attempts.Filling) -> None:
        fields = _encoded(filling.fill_fields(attempt.fields))
        is_end = attempt.data is None and attempt.has_end
        self._state.send_headers(_STREAM, fields, end_stream=is_end)
        self._state.increment_flow_control_window(2**30, _STREAM)
        self._flush()
        if attempt.data is not None:
            time.sleep(attempt.pause)
            data = filling.fill(attempt.data).encode('latin-1')
            is_end = attempt.has_end and not attempt.trailers
            self._state.send_data(_STREAM, data, end_stream=is_end)
        if attempt.trailers:
            trailers = _encoded(filling.fill_fields(attempt.trailers))
            self._state.send_headers(_STREAM, trailers, end_stream=True)
        self._flush()

    def receive(self) -> list[answers.Answer]:
        import h2.events
        import h2.exceptions

        found: list[answers.Answer] = []
        ends = (h2.events.StreamEnded, h2.events.StreamReset, h2.events.ConnectionTerminated)
        while data := connections.read(self._socket):
            try:
                events = self._state.receive_data(data)
            except h2.exceptions.ProtocolError:
                # An answer of HTTP/1: the gate does not speak HTTP/2 here.
                return found or answers.parse(data)
            for event in events:
                if isinstance(event, h2.events.ResponseReceived):
                    found.append(_answer(event.headers))
            if any(isinstance(event, ends) for event in events):
                return found
            with contextlib.suppress(OSError):
                self._flush()
        return found

    def _flush(self) -> None:
        self._socket.sendall(self._state.data_to_send())


def _encoded(fields: attempts.Fields) -> list[tuple[bytes, bytes]]:
    return [(name.encode('latin-1'), value.encode('latin-1')) for name, value in fields]


def _answer(headers: Any) -> answers.Answer:
    fields = {bytes(name).lower(): bytes(value) for name, value in headers}
    return answers.Answer(int(fields.get(b':status', b'0')), has_date=b'date' in fields)
