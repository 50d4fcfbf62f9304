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

"""The zone map of OVN is what ovn-controller noted, whole, in time, or not at all."""

import contextlib
import sys
import threading

import hypothesis
from hypothesis import strategies
import pytest

from oie import exceptions
from oie.sources.zone_maps import ovn
from tests.unit.sources.zone_maps import fakes

PORT = '5f6e7d8c-1a2b-4c3d-9e8f-7a6b5c4d3e2f'
OTHER = '0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d'


def zones(*claims):
    found = ovn.zones_of(claims)
    return dict(found.ports), found.conflicts, found.malformed


class TestZonesOf:
    def test_ports_have_their_zones(self):
        assert zones((PORT, '1'), (OTHER, '65535')) == ({1: PORT, 65535: OTHER}, 0, 0)

    @pytest.mark.parametrize(
        'name',
        [
            f'{PORT}_dnat',
            f'{PORT}_snat',
            f'neutron-{PORT}_dnat',
            f'lrp-{PORT}',
            f'cr-lrp-{PORT}',
            f'provnet-{PORT}',
            PORT.replace('-', ''),
            PORT.upper(),
            f'{PORT}\n',
            'range',
            '',
        ],
    )
    def test_other_names_are_no_ports(self, name):
        assert zones((name, '7')) == ({}, 0, 0)

    @pytest.mark.parametrize(
        'text', ['0', '65536', '99999999', '-1', '+1', '01', '1.0', ' 1', '1\n', '١', '0x1', '']
    )
    def test_port_without_usable_number_is_left_out_and_counted(self, text):
        assert zones((PORT, text), (OTHER, '2')) == ({2: OTHER}, 0, 1)

    def test_zone_of_two_ports_belongs_to_nobody_and_is_counted(self):
        assert zones((PORT, '1'), (OTHER, '1')) == ({}, 1, 0)

    def test_zone_that_a_port_shares_with_a_router_belongs_to_nobody(self):
        assert zones((f'{OTHER}_snat', '1'), (PORT, '1'), (OTHER, '2')) == ({2: OTHER}, 1, 0)

    def test_routers_may_share_a_zone(self):
        # option snat-ct-zone gives the same zone to whoever asks for it
        assert zones((f'{PORT}_snat', '1'), (f'{OTHER}_snat', '1')) == ({}, 0, 0)

    @hypothesis.given(
        strategies.dictionaries(
            strategies.uuids().map(str),
            strategies.integers(-2, 5).map(str) | strategies.text(max_size=3),
        )
    )
    def test_every_port_is_mapped_or_counted(self, claims):
        found = ovn.zones_of(claims.items())
        mapped = {port: str(zone) for zone, port in found.ports.items()}
        assert mapped.items() <= claims.items()
        lost = len(claims) - len(mapped) - found.malformed
        assert found.conflicts * 2 <= lost
        assert (lost == 0) == (found.conflicts == 0)


def bridge(external_ids):
    """Return a map that reads these external_ids instead of a database."""
    return ovn.OvnZoneMap(fakes.options(ovn.OvnZoneMap), lambda *_: external_ids)


class TestOvnZoneMap:
    def test_only_zones_are_taken_of_what_is_noted(self):
        driver = bridge({'ovn-nb-cfg': '4', f'ct-zone-{PORT}': '9', PORT: '8'})
        assert driver.read() == {9: PORT}

    def test_bridge_without_zones_is_an_empty_map(self):
        assert bridge({'ovn-nb-cfg': '4'}).read() == {}

    def test_missing_bridge_is_an_error_that_names_the_option(self):
        with pytest.raises(exceptions.SourceError, match=r'br-int; set \[zone_map_ovn\] bridge'):
            bridge(None).read()

    def test_counts_are_those_of_the_last_reading(self):
        external_ids = {f'ct-zone-{PORT}': '1', f'ct-zone-{OTHER}': '1', 'ct-zone-x': '1'}
        driver = bridge(external_ids)
        driver.read()
        first = driver.conflicts, driver.malformed
        external_ids[f'ct-zone-{OTHER}'] = 'x'
        driver.read()
        assert (first, (driver.conflicts, driver.malformed)) == ((1, 0), (1, 1))

    def test_fetch_gets_the_options(self):
        asked = []
        options = fakes.options(
            ovn.OvnZoneMap, connection='tcp:[::1]:6640', bridge='br-x', timeout='500ms'
        )
        ovn.OvnZoneMap(options, lambda *args: asked.append(args) or {}).read()
        assert asked == [('tcp:[::1]:6640', 'br-x', 0.5)]

    def test_reading_that_hangs_is_left_behind_and_not_repeated(self, monkeypatch):
        monkeypatch.setattr(ovn, 'GRACE', 0.0)
        release, over = threading.Event(), threading.Event()
        before = threading.active_count()

        def hang(*_):
            release.wait()
            over.set()
            return {f'ct-zone-{PORT}': '1'}

        driver = ovn.OvnZoneMap(fakes.options(ovn.OvnZoneMap, timeout='100ms'), hang)
        with pytest.raises(exceptions.SourceTimeout, match='database at unix:/run'):
            driver.read()
        for _ in range(5):
            with pytest.raises(exceptions.SourceError, match='not started'):
                driver.read()
        threads = threading.active_count()
        release.set()
        over.wait()
        while True:
            with contextlib.suppress(exceptions.SourceError):
                assert driver.read() == {1: PORT}
                break
        assert threads == before + 1

    @pytest.mark.parametrize(
        'value',
        ['/run/db.sock', 'unix:db.sock', 'ssl:1.2.3.4:6640', 'tcp:host', 'unix:/a,unix:/b'],
    )
    def test_connection_of_another_kind_is_refused(self, value):
        with pytest.raises(ValueError, match='connection|regex'):
            fakes.options(ovn.OvnZoneMap, connection=value)

    def test_refresh_below_ten_seconds_is_refused(self):
        with pytest.raises(ValueError, match='below the minimum 10s'):
            fakes.options(ovn.OvnZoneMap, refresh='9s')


class TestIsKeptHere:
    @pytest.mark.parametrize(
        ('external_ids', 'is_kept'),
        [({f'ct-zone-{PORT}_dnat': '1'}, True), ({'ovn-nb-cfg': '4'}, False), (None, False)],
    )
    def test_zones_at_the_bridge_tell(self, external_ids, is_kept, tmp_path):
        (tmp_path / 'db.sock').touch()
        options = fakes.options(ovn.OvnZoneMap, connection=f'unix:{tmp_path}/db.sock')
        assert ovn.OvnZoneMap(options, lambda *_: external_ids).is_kept_here() is is_kept

    @pytest.mark.parametrize('path', ['missing.sock', 'file/db.sock'])
    def test_host_without_the_socket_is_not_asked(self, path, tmp_path):
        (tmp_path / 'file').touch()
        options = fakes.options(ovn.OvnZoneMap, connection=f'unix:{tmp_path}/{path}')
        assert not ovn.OvnZoneMap(options, pytest.fail).is_kept_here()

    def test_socket_that_refuses_is_an_error(self, tmp_path):
        (tmp_path / 'db.sock').touch()
        options = fakes.options(ovn.OvnZoneMap, connection=f'unix:{tmp_path}/db.sock')
        with pytest.raises(exceptions.SourceError, match='Connection refused; is ovsdb-server'):
            ovn.OvnZoneMap(options).is_kept_here()


class TestFetchExternalIds:
    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / 'db.sock'

    def fetch(self, path, timeout=5.0, bridge='br-int'):
        return ovn.fetch_external_ids(f'unix:{path}', bridge, timeout)

    def test_recorded_server_gives_what_is_noted_at_the_bridge(self, path):
        with fakes.serving(path, fakes.recorded):
            found = self.fetch(path)
        assert ovn.zones_of(
            (key.removeprefix('ct-zone-'), value) for key, value in found.items()
        ).ports == {
            1: '79a61704-a03e-5aa4-a06f-b0d05b5eaa7e',
            4: '2d3f3979-5bab-5c90-9953-2bf2370191d9',
        }
        assert found['ct-zone-lrp-x'] == '8'
        assert len(found) == 9

    def test_question_asks_for_two_columns_of_one_bridge(self, path):
        asked = []

        def respond(question):
            asked.append(question)
            return fakes.recorded(question)

        with fakes.serving(path, respond):
            self.fetch(path)
        assert {question['method'] for question in asked} <= fakes.ANSWERS.keys()
        (data,) = (q['params'][2] for q in asked if q['method'] == 'monitor_cond_since')
        (bridge,) = data.pop('Bridge')
        assert not data
        assert sorted(bridge['columns']) == ['external_ids', 'name']
        assert bridge['where'] == [['name', '==', 'br-int']]

    def test_database_without_the_bridge_gives_none(self, path):
        def respond(question):
            if question['method'] == 'monitor_cond_since':
                return fakes.answered(
                    question, [False, fakes.ANSWERS['monitor_cond_since'][1], {}]
                )
            return fakes.recorded(question)

        with fakes.serving(path, respond):
            assert self.fetch(path) is None

    @pytest.mark.parametrize(
        'answer',
        [None, b'\x00\xff nonsense', b'{"id": 0, "result', b'[]', b'{"id": 0}', b'"\\ud800"'],
        ids=['nothing', 'nonsense', 'half', 'list', 'no result', 'surrogate'],
    )
    def test_server_without_a_good_answer_is_a_time_out(self, answer, path):
        with (
            fakes.serving(path, lambda _: answer),
            pytest.raises(exceptions.SourceTimeout, match=r'not answered within 0\.3 s'),
        ):
            self.fetch(path, 0.3)

    @pytest.mark.parametrize('method', fakes.ANSWERS)
    @pytest.mark.parametrize('result', [None, [], {}, 7, 'x', [1, 2, 3], {'Bridge': []}])
    def test_strange_answers_are_our_errors(self, method, result, path):
        def respond(question):
            if question['method'] == method:
                return fakes.answered(question, result)
            return fakes.recorded(question)

        with fakes.serving(path, respond), contextlib.suppress(exceptions.SourceError):
            found = self.fetch(path, 0.2)
            assert found is None or len(found) == 9

    def test_refusal_is_our_error(self, path):
        with (
            fakes.serving(path, lambda q: fakes.answered(q, None, {'error': 'unknown database'})),
            pytest.raises(exceptions.SourceError),
        ):
            self.fetch(path, 0.3)

    def test_missing_socket_says_what_to_look_at(self, path):
        with pytest.raises(exceptions.SourceError, match=r'No such file.*\[zone_map_ovn\] conn'):
            self.fetch(path)

    def test_path_too_long_for_the_kernel_is_our_error(self, path):
        with pytest.raises(exceptions.SourceError, match='too long'):
            self.fetch('/' + 'x' * 200)

    @pytest.mark.parametrize('connection', ['tcp:127.0.0.1:1', 'tcp:127.0.0.1:99999'])
    def test_tcp_that_leads_nowhere_is_our_error(self, connection):
        with pytest.raises(exceptions.SourceError, match='lets nobody in'):
            ovn.fetch_external_ids(connection, 'br-int', 1.0)

    def test_nothing_is_printed(self, path, capfd):
        with (
            fakes.serving(path, lambda _: b'nonsense'),
            pytest.raises(exceptions.SourceError),
        ):
            self.fetch(path, 0.2)
        assert capfd.readouterr() == ('', '')

    def test_missing_package_is_named(self, path, monkeypatch):
        monkeypatch.setitem(sys.modules, 'ovsdbapp.backend.ovs_idl', None)
        with (
            fakes.serving(path, fakes.recorded),
            pytest.raises(exceptions.SourceError, match=r'ovsdbapp.*pip install "oie\[ovn\]"'),
        ):
            self.fetch(path)
