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

"""An attempt over HTTP/1.1 into the answers it got: bytes out, bytes in, nothing in between."""

from oie.federation import answers
from oie.federation import attempts
from oie.federation import connections

_PATIENCE = 2.0


def exchange(
    gate: connections.Gate, attempt: attempts.Attempt, filling: attempts.Filling
) -> list[answers.Answer]:
    """Return the answers to an attempt, none when the gate only hung up.

    :raises OSError: there is no connection to be had
    """
    data = filling.fill(attempt.raw).encode('latin-1')
    with gate.connect('http/1.1') as connection:
        try:
            connection.sendall(data)
        except OSError:
            # Refused already: what it said before may be there to read.
            pass
        received = [connections.read(connection)]
        size = len(received[-1])
        # A first answer has come; a second one follows at once or not at all.
        connection.settimeout(_PATIENCE)
        while received[-1] and size < connections.LONGEST_ANSWER:
            received.append(connections.read(connection))
            size += len(received[-1])
    return answers.parse(b''.join(received))
