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

"""A private Open vSwitch, and OVN on top of it, for the functional tests.

Everything lives in one directory: databases, sockets, logs. The switch has dummy
datapaths only, so it needs neither a kernel module nor network interfaces, and
touches nothing of the machine's own switch. ovn-northd and ovn-controller are
the real ones: zones are given and taken by OVN itself.

    with openvswitch.Chassis() as chassis:
        chassis.bind(port_uuid)
        zones = chassis.zones()
"""

from collections.abc import Iterable
from collections.abc import Mapping
import json
import pathlib
import shutil
import tempfile
from typing import TypeVar

from tests.functional import processes

BRIDGE = 'br-int'
NETWORK = 'neutron-net'

_S = TypeVar('_S', bound='Database')

_OVS_SCHEMA = pathlib.Path('/usr/share/openvswitch/vswitch.ovsschema')
_OVN_SCHEMAS = {
    'nb.db': pathlib.Path('/usr/share/ovn/ovn-nb.ovsschema'),
    'sb.db': pathlib.Path('/usr/share/ovn/ovn-sb.ovsschema'),
}
_PROGRAMS = (
    *('ovsdb-server', 'ovsdb-tool', 'ovs-vsctl', 'ovs-vswitchd'),
    *('ovn-controller', 'ovn-northd', 'ovn-nbctl', 'ovn-appctl'),
)


def what_is_missing() -> str | None:
    """Return why Open vSwitch and OVN cannot run on this machine; None if they can."""
    missing = [name for name in _PROGRAMS if processes.find_program(name) is None]
    missing += [
        str(schema) for schema in (_OVS_SCHEMA, *_OVN_SCHEMAS.values()) if not schema.exists()
    ]
    return f'the tests of OVN need {", ".join(missing)} (bindep test)' if missing else None


class Database:
    """The database of an Open vSwitch with an integration bridge, and no switch."""

    def __init__(self) -> None:
        self.base = pathlib.Path(tempfile.mkdtemp(prefix='oiet-'))
        self._programs: list[processes.Program] = []
        processes.end_later(self, self.close)
        self.socket = self.base / 'db.sock'
        self.port = processes.free_port()
        self.server = self._program(
            'ovsdb-server',
            self._create('conf.db', _OVS_SCHEMA),
            f'--remote=punix:{self.socket}',
            f'--remote=ptcp:{self.port}:127.0.0.1',
        )

    def __enter__(self: _S) -> _S:
        self.start()
        self.vsctl('init')
        self.vsctl('add-br', BRIDGE, '--', 'set', 'bridge', BRIDGE, 'fail-mode=secure')
        self._start_more()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def connection(self) -> str:
        """Where the database listens, as Open vSwitch writes it."""
        return f'unix:{self.socket}'

    def start(self) -> None:
        """Start the server, the first time or again."""
        self.server.start()
        processes.wait_for(lambda: _is_ready(self.server, self.socket), what='ovsdb-server')

    def close(self) -> None:
        """End everything and remove the directory."""
        for program in reversed(self._programs):
            program.stop()
        shutil.rmtree(self.base, ignore_errors=True)
        processes.ended(self)

    def vsctl(self, *arguments: str) -> str:
        """Return what ovs-vsctl says; it waits for no switch."""
        command = ('ovs-vsctl', f'--db={self.connection}', '--no-wait', '--timeout=10')
        return processes.run(*command, *arguments)

    def set_zones(self, zones: Mapping[str, str]) -> None:
        """Note these zones as ovn-controller does, by name; others stay."""
        pairs = (
            f'external_ids:{json.dumps(f"ct-zone-{name}")}={json.dumps(zone)}'
            for name, zone in zones.items()
        )
        self.vsctl('set', 'bridge', BRIDGE, *pairs)

    def remove_zones(self, names: Iterable[str]) -> None:
        keys = (f'ct-zone-{name}' for name in names)
        self.vsctl('remove', 'bridge', BRIDGE, 'external_ids', *keys)

    def external_ids(self) -> dict[str, str]:
        """Return everything that is noted at the bridge."""
        answer = json.loads(self.vsctl('--format=json', 'list', 'bridge', BRIDGE))
        row = dict(zip(answer['headings'], answer['data'][0], strict=True))
        return dict(row['external_ids'][1])

    def _start_more(self) -> None:
        """Start what comes besides the database."""

    def _create(self, name: str, schema: pathlib.Path) -> str:
        processes.run('ovsdb-tool', 'create', str(self.base / name), str(schema))
        return str(self.base / name)

    def _program(self, name: str, *arguments: str) -> processes.Program:
        kinds = ('RUNDIR', 'LOGDIR', 'DBDIR', 'SYSCONFDIR')
        directories = [f'{project}_{kind}' for project in ('OVS', 'OVN') for kind in kinds]
        env = {**processes.environment(), **dict.fromkeys(directories, str(self.base))}
        self._programs.append(
            processes.Program((name, *arguments), self.base / f'{name}.log', env)
        )
        return self._programs[-1]


class Chassis(Database):
    """A compute node of OVN, with the central databases beside its own."""

    def __init__(self) -> None:
        super().__init__()
        self.central = self.base / 'central.sock'
        self.central_server = self._program(
            'ovsdb-server',
            *(self._create(name, schema) for name, schema in _OVN_SCHEMAS.items()),
            f'--remote=punix:{self.central}',
        )
        dummies = ('--enable-dummy=override', '--disable-system')
        self.switch = self._program('ovs-vswitchd', self.connection, *dummies)
        central = (f'--ovnnb-db=unix:{self.central}', f'--ovnsb-db=unix:{self.central}')
        self.northd = self._program('ovn-northd', *central)
        self.controller = self._program('ovn-controller', self.connection)

    def nbctl(self, *arguments: str) -> str:
        return processes.run('ovn-nbctl', f'--db=unix:{self.central}', '--timeout=20', *arguments)

    def bind(self, port_uuid: str) -> None:
        """Make a Neutron port and plug it here; it has a zone afterwards."""
        self.nbctl('lsp-add', NETWORK, port_uuid)
        self.vsctl(
            *('add-port', BRIDGE, _tap(port_uuid), '--'),
            *('set', 'interface', _tap(port_uuid), 'type=dummy'),
            f'external_ids:iface-id={port_uuid}',
        )
        self._wait_for_zone(port_uuid)

    def unbind(self, port_uuid: str) -> None:
        """Unplug a port; it has no zone afterwards."""
        self.vsctl('del-port', BRIDGE, _tap(port_uuid))
        processes.wait_for(
            lambda: f'ct-zone-{port_uuid}' not in self.external_ids(), what=f'{port_uuid} to leave'
        )

    def add_router(self) -> None:
        """Make a router on this chassis, with a port in the network."""
        self.nbctl(
            *('lr-add', 'neutron-router', '--'),
            *('set', 'logical_router', 'neutron-router', 'options:chassis=chassis', '--'),
            *('lrp-add', 'neutron-router', 'lrp-x', '00:00:00:00:ff:01', '10.0.0.254/24', '--'),
            *('lsp-add', NETWORK, 'to-router', '--', 'lsp-set-type', 'to-router', 'router', '--'),
            *('lsp-set-options', 'to-router', 'router-port=lrp-x'),
        )
        self._wait_for_zone('lrp-x')

    def zones(self) -> dict[str, int]:
        """Return all zones by name, as ovn-appctl tells them."""
        path = self.base / f'ovn-controller.{self.controller.pid}.ctl'
        processes.wait_for(path.exists, what='ovn-controller')
        text = processes.run('ovn-appctl', '-t', str(path), 'ct-zone-list', timeout=10)
        pairs = (line.rsplit(' ', 1) for line in text.splitlines())
        return {name: int(zone) for name, zone in pairs}

    def _start_more(self) -> None:
        self.central_server.start()
        processes.wait_for(
            lambda: _is_ready(self.central_server, self.central), what='the central databases'
        )
        self.vsctl(
            *('set', 'open_vswitch', '.', 'external_ids:system-id=chassis'),
            f'external_ids:ovn-remote="unix:{self.central}"',
            *('external_ids:ovn-encap-type=geneve', 'external_ids:ovn-encap-ip=127.0.0.1'),
        )
        self.switch.start()
        self.northd.start()
        # ovn-controller 23.03.1 may crash when it comes before the two are ready.
        self.nbctl('--wait=sb', 'ls-add', NETWORK)
        processes.wait_for((self.base / f'{BRIDGE}.mgmt').exists, what='ovs-vswitchd')
        self.controller.start()

    def _wait_for_zone(self, name: str) -> None:
        processes.wait_for(
            lambda: f'ct-zone-{name}' in self.external_ids(), what=f'a zone of {name}'
        )


def _is_ready(server: processes.Program, path: pathlib.Path) -> bool:
    if not server.is_running:
        raise processes.LabError(f'{server.argv[0]} ended: {server.last_words()}')
    return path.exists()


def _tap(port_uuid: str) -> str:
    return f'tap{port_uuid[:11]}'
