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


"""What ``oie-status host check`` says of guest agents."""

from oie.cmd import check_table
from oie.cmd import host_agents
from oie.sources.guest_os import base
from oie.sources.guest_os import guest_agent
from tests.unit import measuring

ALLOWED = {
    'guest_os__drivers': 'nova_image,guest_agent',
    'guest_os_guest_agent__allow_read_write': True,
    'libvirt__uri': 'qemu:///system',
}


def test_nobody_asks_by_default():
    assert host_agents.rows(measuring.options()) == ()
    assert host_agents.rows(measuring.options(**ALLOWED, guest_os__enabled=False)) == ()


def test_what_is_not_allowed_is_a_failure():
    conf = measuring.options(guest_os__drivers='guest_agent')
    [row] = host_agents.rows(conf)
    assert row.result is check_table.Result.FAILURE
    assert 'allow_read_write' in row.detail


def test_an_open_door_is_told(monkeypatch):
    monkeypatch.setattr(guest_agent.GuestAgentDriver, 'check', lambda driver: None)
    [row] = host_agents.rows(measuring.options(**ALLOWED))
    assert row.result is check_table.Result.OK
    assert row.detail == 'a read-write connection to qemu:///system opens'


def test_a_closed_one_is_a_warning_with_advice(monkeypatch):
    def refuse(driver):
        raise base.InspectionFailed('denied', 'authentication unavailable')

    monkeypatch.setattr(guest_agent.GuestAgentDriver, 'check', refuse)
    [row] = host_agents.rows(measuring.options(**ALLOWED))
    assert row.result is check_table.Result.WARNING
    assert row.detail == 'authentication unavailable'
    assert 'read-write socket' in row.advice
