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

"""Zone maps of real OVN and of real Open vSwitch databases, healthy and broken."""

from collections.abc import Iterator
import contextlib
import os
import signal
import time
from typing import Any
import uuid

from oslo_config import cfg
import pytest

from oie import exceptions
from oie import plugins
from oie.sources.zone_maps import base
from oie.sources.zone_maps import choice
from oie.sources.zone_maps import kept
from oie.sources.zone_maps import ovn
from tests import held
from tests import machine
from tests.functional import openvswitch
from tests.functional import processes

NAMESPACE = 'oie.zone_maps'
PORTS = [str(uuid.uuid5(uuid.NAMESPACE_DNS, f'port-{number}')) for number in range(4)]


@pytest.fixture(scope='module', autouse=True)
def _programs() -> None:
    machine.require(openvswitch.what_is_missing())


@pytest.fixture
def database() -> Iterator[openvswitch.Database]:
    """A database with an integration bridge that has no zones yet."""
    with openvswitch.Database() as database:
        yield database


@pytest.fixture
def chassis() -> Iterator[openvswitch.Chassis]:
    """A compute node of OVN with one port."""
    with openvswitch.Chassis() as chassis:
        chassis.bind(PORTS[0])
        yield chassis


class TestDatabase:
    def test_zones_of_ports_are_read(self, database: openvswitch.Database) -> None:
        database.set_zones({PORTS[0]: '1', PORTS[1]: '65535', f'{PORTS[2]}_dnat': '2'})

        assert _ovn(database).read() == {1: PORTS[0], 65535: PORTS[1]}

    @pytest.mark.parametrize('value', ['', '0', '65536', '-1', 'seven', '1 ', '１', '9' * 5000])
    def test_odd_number_costs_its_port_only(
        self, value: str, database: openvswitch.Database
    ) -> None:
        database.set_zones({PORTS[0]: '1', PORTS[1]: value})
        driver = _ovn(database)

        assert (driver.read(), driver.malformed) == ({1: PORTS[0]}, 1)

    def test_zone_of_two_ports_is_nobodys(self, database: openvswitch.Database) -> None:
        database.set_zones({PORTS[0]: '1', PORTS[1]: '1', PORTS[2]: '2'})
        driver = _ovn(database)

        assert (driver.read(), driver.conflicts) == ({2: PORTS[2]}, 1)

    def test_bridge_without_zones_is_empty_and_not_chosen(
        self, database: openvswitch.Database
    ) -> None:
        driver = _ovn(database)

        assert (driver.read(), driver.is_kept_here()) == ({}, False)

    def test_missing_bridge_is_told(self, database: openvswitch.Database) -> None:
        database.vsctl('del-br', openvswitch.BRIDGE)
        driver = _ovn(database)

        assert not driver.is_kept_here()
        with pytest.raises(exceptions.SourceError, match='no bridge br-int'):
            driver.read()

    def test_thousands_of_ports_are_read_in_time(self, database: openvswitch.Database) -> None:
        ports = {zone: str(uuid.uuid4()) for zone in range(1, 2001)}
        database.set_zones({port: str(zone) for zone, port in ports.items()})

        assert _ovn(database).read() == ports

    def test_tcp_is_read_too(self, database: openvswitch.Database) -> None:
        database.set_zones({PORTS[0]: '1'})

        driver = _ovn(database, connection=f'tcp:127.0.0.1:{database.port}')

        assert driver.read() == {1: PORTS[0]}

    def test_server_that_restarts_is_read_again(self, database: openvswitch.Database) -> None:
        database.set_zones({PORTS[0]: '1'})
        driver = _ovn(database)
        before = driver.read()
        database.server.stop()

        with pytest.raises(exceptions.SourceError, match='No such file'):
            driver.read()
        database.start()
        database.set_zones({PORTS[1]: '2'})

        assert before == {1: PORTS[0]}
        assert driver.read() == {1: PORTS[0], 2: PORTS[1]}

    def test_killed_server_is_a_failure_not_the_lack_of_a_map(
        self, database: openvswitch.Database
    ) -> None:
        database.server.kill()

        with pytest.raises(exceptions.SourceError, match='Connection refused'):
            _ovn(database).is_kept_here()

    def test_stopped_server_is_a_time_out_that_holds_nothing(
        self, database: openvswitch.Database
    ) -> None:
        database.set_zones({PORTS[0]: '1'})
        driver = _ovn(database, timeout='500ms')
        driver.read()
        took = []

        with held.nothing_more():
            with _stopped(database.server):
                for _ in range(4):
                    began = time.monotonic()
                    with pytest.raises(exceptions.SourceTimeout, match='stopped or overloaded'):
                        driver.read()
                    took.append(time.monotonic() - began)
            assert driver.read() == {1: PORTS[0]}

        assert max(took) < 0.5 + ovn.GRACE

    def test_many_readings_leave_nothing_behind(self, database: openvswitch.Database) -> None:
        database.set_zones({PORTS[0]: '1'})
        driver = _ovn(database)
        driver.read()
        contents = database.external_ids()

        with held.nothing_more():
            for _ in range(50):
                driver.read()

        assert database.external_ids() == contents
        assert 'ERR' not in database.server.last_words(1000)

    def test_forbidden_socket_names_the_ways_out(self, database: openvswitch.Database) -> None:
        database.set_zones({PORTS[0]: '1'})
        ovn.import_ovsdbapp()
        driver = _ovn(database)

        with _nobody(), pytest.raises(exceptions.SourceError, match='Permission denied; give'):
            driver.read()
        with _nobody(), pytest.raises(exceptions.SourceError, match='Permission denied; give'):
            driver.is_kept_here()
        with _nobody():
            tcp = _ovn(database, connection=f'tcp:127.0.0.1:{database.port}')
            assert tcp.read() == {1: PORTS[0]}


class TestOvn:
    @pytest.mark.parametrize('name', ['ovn', 'ovn_controller'])
    def test_map_is_what_ovn_says_of_ports(self, name: str, chassis: openvswitch.Chassis) -> None:
        chassis.bind(PORTS[1])
        chassis.add_router()

        zones = _maps(chassis)[name].read()

        told = chassis.zones()
        assert zones == {told[port]: port for port in PORTS[:2]}
        assert len(told) == 8
        assert len(set(told.values())) == 8

    def test_zone_that_moves_to_the_next_port_moves_in_the_map(
        self, chassis: openvswitch.Chassis
    ) -> None:
        driver = _ovn(chassis)
        before = driver.read()
        chassis.unbind(PORTS[0])
        between = driver.read()
        chassis.bind(PORTS[1])

        # Zones 2 and 3 are those of the network.
        assert (before, between, driver.read()) == ({1: PORTS[0]}, {}, {1: PORTS[1]})

    def test_auto_takes_the_database(self, chassis: openvswitch.Chassis) -> None:
        zones = kept.KeptZoneMap(_maps(chassis))

        assert list(zones.read().value or {}) == [chassis.zones()[PORTS[0]]]
        assert zones.name == 'ovn'

    def test_auto_asks_the_controller_where_the_database_is_shut(
        self, chassis: openvswitch.Chassis
    ) -> None:
        maps = _maps(chassis)
        with _stopped(chassis.server):
            chosen = choice.choose(maps)

        assert chosen == 'ovn_controller'

    def test_database_keeps_the_map_while_the_controller_is_away(
        self, chassis: openvswitch.Chassis
    ) -> None:
        maps = _maps(chassis)
        before = maps['ovn'].read()
        chassis.controller.kill()

        with pytest.raises(exceptions.SourceError, match='0 controllers of OVN.*refused'):
            maps['ovn_controller'].read()
        away = maps['ovn'].read()
        # The socket of the killed one stays beside the new one.
        chassis.controller.start()
        processes.wait_for(chassis.zones, what='the zones of the new controller')

        assert len(list(chassis.base.glob('ovn-controller.*.ctl'))) == 2
        assert before == away == maps['ovn'].read() == maps['ovn_controller'].read()

    def test_stopped_controller_is_a_time_out(self, chassis: openvswitch.Chassis) -> None:
        driver = _maps(chassis, timeout='300ms')['ovn_controller']

        with (
            held.nothing_more(),
            _stopped(chassis.controller),
            pytest.raises(exceptions.SourceTimeout, match='stopped or busy'),
        ):
            driver.read()

        assert driver.read()


def _maps(lab: openvswitch.Database, **overrides: Any) -> dict[str, base.ZoneMap]:
    """Return the installed maps with their options, as the programs make them."""
    where = {
        'ovn': {'connection': lab.connection},
        'ovn_controller': {'socket': str(lab.base / 'ovn-controller.*.ctl')},
        'none': {},
    }
    return {
        name: _make(plugin, **where[name], **(overrides if where[name] else {}))
        for name, plugin in plugins.load(NAMESPACE).items()
    }


def _ovn(lab: openvswitch.Database, **overrides: Any) -> base.ZoneMap:
    return _make(ovn.OvnZoneMap, **{'connection': lab.connection, **overrides})


def _make(plugin: type[base.ZoneMap], **overrides: Any) -> base.ZoneMap:
    conf = cfg.ConfigOpts()
    conf.register_opts((*plugins.options_of(plugin), cfg.StrOpt('unused')), 'map')
    conf(args=[], default_config_files=[])
    for option, value in overrides.items():
        conf.set_override(option, value, 'map')
    return plugin(conf.map)


@contextlib.contextmanager
def _stopped(program: processes.Program) -> Iterator[None]:
    program.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        program.signal(signal.SIGCONT)


@contextlib.contextmanager
def _nobody() -> Iterator[None]:
    """Be a user without rights, as oie is where it runs as its own."""
    if os.geteuid() != 0:
        pytest.skip('only root can become another user')
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
