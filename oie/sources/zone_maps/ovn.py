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

"""What ovn-controller notes in the local Open vSwitch database → zone map.

ovn-controller gives each logical port of its chassis a conntrack zone, and each
router and switch two more. It notes them as external_ids of the integration
bridge, after the kernel forgot what the zone held before: ``ct-zone-NAME``, the
number as text. Neutron names a logical port by its uuid. Other names are no
Neutron ports: ``UUID_dnat`` and ``UUID_snat`` up to OVN 23.06, since 23.09
``neutron-UUID_dnat``, and ``lrp-UUID``. Source: ovn-controller(8),
controller/ct-zone.c of OVN 23.03 to 26.03. A free zone goes to the next port at
once (OVN 23.03: within a second).
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import json
import os
import re
import socket
import time
from typing import Any

from oslo_config import cfg

from oie import exceptions
from oie.sources import calls
from oie.sources.zone_maps import base

PREFIX = 'ct-zone-'

# ovsdbapp measures its own waiting by a clock that may be set back.
GRACE = 1.0

_PORT = re.compile('[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}')
# Never zone 0: that is where connections of the host itself are.
_ZONE = re.compile('[1-9][0-9]{0,4}')
_LAST_ZONE = 65535
_REMOTE = r'(unix:/[^,\s]+|tcp:(\[[0-9A-Fa-f:.]+\]|[0-9.]+):[0-9]{1,5})'

# What is read of the database; asking for its whole schema has no time-out in ovsdbapp.
_SCHEMA = {
    'name': 'Open_vSwitch',
    'version': '7.0.0',
    'tables': {
        'Bridge': {
            'columns': {
                'name': {'type': 'string'},
                'external_ids': {
                    'type': {'key': 'string', 'value': 'string', 'min': 0, 'max': 'unlimited'}
                },
            }
        }
    },
}

Fetch = Callable[[str, str, float], Mapping[str, str] | None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Zones:
    """The zones of ports, and how many claims say nothing that can be used."""

    ports: Mapping[int, str]
    conflicts: int
    malformed: int


def zones_of(claims: Iterable[tuple[str, str]]) -> Zones:
    """Return which zone belongs to which port.

    A zone that a port shares, be it with a router, belongs to nobody: for a
    moment that happens while zones move.

    :param claims: names that OVN gives a zone to, and the zone as text
    """
    names: dict[int, list[str]] = {}
    malformed = 0
    for name, text in claims:
        zone = int(text) if _ZONE.fullmatch(text) else 0
        if 0 < zone <= _LAST_ZONE:
            names.setdefault(zone, []).append(name)
        else:
            malformed += _is_port(name)
    claimed = {zone: found for zone, found in names.items() if any(map(_is_port, found))}
    ports = {zone: found[0] for zone, found in claimed.items() if len(found) == 1}
    return Zones(ports=ports, conflicts=len(claimed) - len(ports), malformed=malformed)


def _is_port(name: str) -> bool:
    return _PORT.fullmatch(name) is not None


class OvnZoneMap(base.ZoneMap):
    """Reads the zones that OVN notes in the local Open vSwitch database.

    :param fetch: reads the external_ids of a bridge
    """

    GROUP_HELP = (
        'Conntrack zones of OVN as its controller notes them in the Open vSwitch database of '
        'this host. Needs the Python package ovsdbapp: pip install "oie[ovn]".'
    )
    OPTS = (
        cfg.StrOpt(
            'connection',
            default='unix:/run/openvswitch/db.sock',
            regex=f'^{_REMOTE}$',
            help='Where the database listens: unix:PATH, or tcp:ADDRESS:PORT. The socket is '
            'usually open to root alone; where Neutron has the database listen on '
            'tcp:127.0.0.1:6640 this address needs no rights. Nothing is ever written.',
        ),
        cfg.StrOpt(
            'bridge',
            default='br-int',
            help='Name of the integration bridge.',
        ),
        *base.OPTS,
    )

    def __init__(self, options: Any = None, fetch: Fetch | None = None) -> None:
        super().__init__(options)
        self._fetch = fetch or fetch_external_ids
        self._calls = calls.Calls(1)

    def is_kept_here(self) -> bool:
        """Tell whether the bridge carries zones; without the socket it cannot.

        :raises SourceError: the database is here but cannot be read
        """
        if _is_absent(self.options.connection):
            return False
        return any(key.startswith(PREFIX) for key in self._external_ids() or ())

    def read(self) -> Mapping[int, str]:
        """Return the zones of the ports that are bound to this host.

        :raises SourceError: the database cannot be read, or it lacks the bridge
        """
        found = self._external_ids()
        if found is None:
            raise exceptions.SourceError(
                f'the Open vSwitch database at {self.options.connection} has no bridge '
                f'{self.options.bridge}; set [zone_map_ovn] bridge'
            )
        keys = (key for key in found if key.startswith(PREFIX))
        zones = zones_of((key.removeprefix(PREFIX), found[key]) for key in keys)
        self.conflicts, self.malformed = zones.conflicts, zones.malformed
        return zones.ports

    def _external_ids(self) -> Mapping[str, str] | None:
        options = self.options
        return self._calls.run(
            f'reading the Open vSwitch database at {options.connection}',
            lambda _call: self._fetch(options.connection, options.bridge, options.timeout),
            options.timeout + GRACE,
        )


def _is_absent(connection: str) -> bool:
    kind, _, path = connection.partition(':')
    if kind != 'unix':
        return False
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False  # It is there, we must not see it.
    return False


def fetch_external_ids(connection: str, bridge: str, timeout: float) -> Mapping[str, str] | None:
    """Return the external_ids of a bridge; None if there is no such bridge.

    The connection is new each time: one that stays open does not notice that
    the server stopped answering, and serves old zones as if they were new.

    :raises SourceError: the database cannot be read
    """
    _knock(connection, timeout)
    backend, idlutils = import_ovsdbapp()
    helper = idlutils.create_schema_helper(json.dumps(_SCHEMA))
    helper.register_columns('Bridge', ['name', 'external_ids'])
    database = backend.OvsdbIdl(connection, helper, leader_only=False)
    began = time.monotonic()
    try:
        database.cond_change('Bridge', [['name', '==', bridge]])
        idlutils.wait_for_change(database, timeout)
        rows = {row.name: row.external_ids for row in database.tables['Bridge'].rows.values()}
        return dict(rows[bridge]) if bridge in rows else None
    # A parser fed by a peer: whatever it stumbles over means that there is no map.
    except Exception as exc:
        raise _failure(connection, exc, timeout, time.monotonic() - began) from exc
    finally:
        database.close()


def _failure(
    connection: str, exc: Exception, timeout: float, seconds: float
) -> exceptions.SourceError:
    # Before ovsdbapp 2.3 a time-out is a plain Exception.
    if seconds >= 0.99 * timeout:
        return exceptions.SourceTimeout(
            f'the Open vSwitch database at {connection} has not answered within {timeout:g} s; '
            'is ovsdb-server stopped or overloaded?'
        )
    return exceptions.SourceError(
        f'the Open vSwitch database at {connection} cannot be read: {exc!r}'
    )


def import_ovsdbapp() -> tuple[Any, Any]:
    """Return what is needed of ovsdbapp: OVSDB clients and their helpers.

    Only whoever reads the database pays the import: 15 ms and 1.2 MB in the
    exporter, 60 ms and 13 MB alone (ovsdbapp 3.0.0, Python 3.11).

    :raises SourceError: the package is not installed
    """
    try:
        from ovsdbapp.backend.ovs_idl import connection
        from ovsdbapp.backend.ovs_idl import idlutils
    except ImportError as exc:
        raise exceptions.SourceError(
            f'the Open vSwitch database cannot be read without the Python package ovsdbapp: '
            f'{exc}; pip install "oie[ovn]", or set [conntrack] zone_map to another map'
        ) from exc
    return connection, idlutils


def _knock(connection: str, timeout: float) -> None:
    """Connect once: ovsdbapp would try until the time-out and not say what is wrong."""
    kind, _, where = connection.partition(':')
    try:
        if kind == 'unix':
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(timeout)
                probe.connect(where)
        else:
            host, _, port = where.rpartition(':')
            socket.create_connection((host.strip('[]'), int(port)), timeout).close()
    except (OSError, OverflowError) as exc:
        raise exceptions.SourceError(
            f'the Open vSwitch database at {connection} lets nobody in: {exc}; {_advice(exc)}'
        ) from exc


def _advice(exc: Exception) -> str:
    if isinstance(exc, PermissionError):
        return (
            'give the user of oie access to the socket, or set [zone_map_ovn] connection to '
            'tcp:127.0.0.1:6640 where the database listens there'
        )
    return 'is ovsdb-server running, and [zone_map_ovn] connection right?'
