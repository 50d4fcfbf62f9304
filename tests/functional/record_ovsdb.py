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

"""Record what a real ovsdb-server answers about a chassis of OVN: ``tests/data/ovsdb``.

python -m tests.functional.record_ovsdb
"""

import json
import pathlib
import socket
from typing import Any
import uuid

from tests.functional import openvswitch

DIRECTORY = pathlib.Path(__file__).parents[1] / 'data' / 'ovsdb'

#: What ovsdbapp 3.0.0 asks for, in its order; the uuids name monitors.
_SERVER = ['_Server', str(uuid.UUID(int=1))]
_DATA = ['Open_vSwitch', str(uuid.UUID(int=2))]
_DATABASE_COLUMNS = ['name', 'model', 'connected', 'leader', 'schema', 'sid', 'cid', 'index']
_BRIDGE = {'columns': ['external_ids', 'name'], 'where': [['name', '==', openvswitch.BRIDGE]]}
QUESTIONS: tuple[tuple[str, list[Any]], ...] = (
    ('get_schema', _SERVER[:1]),
    ('monitor_cond', [*_SERVER, {'Database': [{'columns': _DATABASE_COLUMNS}]}]),
    ('monitor_cond_since', [*_DATA, {'Bridge': [_BRIDGE]}, str(uuid.UUID(int=0))]),
    ('set_db_change_aware', [True]),
)


def main() -> None:
    with openvswitch.Chassis() as chassis:
        for number in (1, 2):
            chassis.bind(str(uuid.uuid5(uuid.NAMESPACE_DNS, f'port-{number}')))
        chassis.add_router()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(chassis.socket))
            answers = {method: _ask(connection, method, params) for method, params in QUESTIONS}
    _write('chassis', answers)


def _ask(connection: socket.socket, method: str, params: list[Any]) -> Any:
    question = {'id': 1, 'method': method, 'params': params}
    connection.sendall(json.dumps(question).encode())
    received = b''
    while True:
        received += connection.recv(65536)
        try:
            return json.loads(received)['result']
        except ValueError:
            continue


def _write(name: str, answers: dict[str, Any]) -> None:
    text = json.dumps(answers, indent=1, sort_keys=True) + '\n'
    (DIRECTORY / f'{name}.json').write_text(text, encoding='utf-8')


if __name__ == '__main__':
    main()
