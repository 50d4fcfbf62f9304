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

"""ovn-controller's own answer is the map, or one sentence says why there is none."""

import pytest

from oie import exceptions
from oie.sources.zone_maps import ovn_controller
from tests.unit.sources.zone_maps import fakes

PORT = '5f6e7d8c-1a2b-4c3d-9e8f-7a6b5c4d3e2f'
OTHER = '0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d'
# OVN 23.03.1 on Debian 12, 2026-11-21, shortened.
ANSWER = f'lrp-x 8\n{OTHER}_snat 3\n{PORT} 4\nto router 7\n'


@pytest.fixture
def make(tmp_path):
    """Return a function that makes a map over sockets of these names."""

    def make(*names, ask=None, **overrides):
        for name in names:
            (tmp_path / name).touch()
        pattern = f'{tmp_path}/ovn-controller.*.ctl'
        options = fakes.options(ovn_controller.OvnControllerZoneMap, socket=pattern, **overrides)
        return ovn_controller.OvnControllerZoneMap(options, ask)

    return make


def refuse(*_):
    raise ConnectionRefusedError(111, 'Connection refused')


class TestOvnControllerZoneMap:
    def test_ports_of_the_answer_are_the_map(self, make):
        assert make('ovn-controller.7.ctl', ask=lambda *_: ANSWER).read() == {4: PORT}

    def test_conflicts_and_malformed_are_counted(self, make):
        driver = make('ovn-controller.7.ctl', ask=lambda *_: f'a 1\n{PORT} 1\n{OTHER} 0\n')
        assert (driver.read(), driver.conflicts, driver.malformed) == ({}, 1, 1)

    def test_controller_without_zones_is_an_empty_map(self, make):
        driver = make('ovn-controller.7.ctl', ask=lambda *_: '')
        assert (driver.read(), driver.is_kept_here()) == ({}, False)

    def test_answer_of_another_form_is_no_map(self, make):
        with pytest.raises(exceptions.SourceError, match='not a name and a zone'):
            make('ovn-controller.7.ctl', ask=lambda *_: f'{ANSWER}nonsense').read()

    def test_socket_left_by_a_killed_controller_is_passed_over(self, make):
        def ask(path, _timeout):
            return refuse() if '.6.' in path else ANSWER

        driver = make('ovn-controller.6.ctl', 'ovn-controller.7.ctl', ask=ask)
        assert driver.read() == {4: PORT}

    def test_two_controllers_are_no_map(self, make):
        driver = make('ovn-controller.6.ctl', 'ovn-controller.7.ctl', ask=lambda *_: ANSWER)
        with pytest.raises(exceptions.SourceError, match='2 controllers of OVN answer'):
            driver.read()

    def test_no_socket_is_an_error_to_read_and_no_map_to_choose(self, make):
        driver = make()
        assert not driver.is_kept_here()
        with pytest.raises(exceptions.SourceError, match=r'0 controllers.*_controller\] socket'):
            driver.read()

    def test_dead_socket_alone_cannot_tell(self, make):
        with pytest.raises(exceptions.SourceError, match='Connection refused'):
            make('ovn-controller.6.ctl', ask=refuse).is_kept_here()

    def test_forbidden_socket_is_an_error(self, make):
        def ask(*_):
            raise PermissionError(13, 'Permission denied')

        with pytest.raises(exceptions.SourceError, match='Permission denied'):
            make('ovn-controller.6.ctl', ask=ask).is_kept_here()

    def test_zones_given_out_tell_that_the_map_is_here(self, make):
        assert make('ovn-controller.7.ctl', ask=lambda *_: 'lrp-x 8\n').is_kept_here()

    def test_timeout_is_that_of_all_sockets_together(self, make):
        asked = []
        make('ovn-controller.7.ctl', ask=lambda *args: asked.append(args) or '', timeout=2).read()
        ((_, timeout),) = asked
        assert 1.9 < timeout <= 2


class TestAskController:
    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / 'ctl'

    def ask(self, path, respond, timeout=5.0):
        with fakes.serving(path, respond):
            return ovn_controller.ask_controller(str(path), timeout)

    def test_question_is_the_command(self, path):
        asked = []

        def respond(question):
            asked.append(question)
            return fakes.answered(question, ANSWER)

        assert self.ask(path, respond) == ANSWER
        assert asked == [{'id': 0, 'method': 'ct-zone-list', 'params': []}]

    def test_large_answer_arrives_whole(self, path):
        large = ''.join(f'{{{PORT}}} {zone}\n' for zone in range(65536))
        assert self.ask(path, lambda q: fakes.answered(q, large)) == large

    def test_answer_without_end_is_refused(self, path, monkeypatch):
        monkeypatch.setattr(ovn_controller, '_LARGEST_ANSWER', 100000)
        with pytest.raises(exceptions.SourceError, match='no whole message'):
            self.ask(path, lambda _: b'{' * 300000)

    def test_command_it_does_not_know_is_told(self, path):
        with pytest.raises(exceptions.SourceError, match='not a valid command'):
            self.ask(path, lambda q: fakes.answered(q, None, '"x" is not a valid command'))

    @pytest.mark.parametrize('answer', [b'{}', b'{"result": 7}', b'{"result": null}'])
    def test_answer_of_another_form_is_our_error(self, answer, path):
        with pytest.raises(exceptions.SourceError, match='answers'):
            self.ask(path, lambda _: answer)

    @pytest.mark.parametrize('answer', [None, b'{"result": "half', b'\xff}', b'[1]'])
    def test_answer_that_does_not_come_is_a_time_out(self, answer, path):
        with pytest.raises(exceptions.SourceTimeout, match='stopped or busy'):
            self.ask(path, lambda _: answer, 0.1)

    def test_missing_socket_is_an_os_error(self, path):
        with pytest.raises(FileNotFoundError):
            ovn_controller.ask_controller(str(path), 1.0)
