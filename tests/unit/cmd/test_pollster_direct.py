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
"""A list that lacks what could not be read: with an exporter and without one it is the same."""

import sys

import pytest

from oie import endpoint
from oie import model
from oie import service
from oie import web
from oie.cmd import pollster_direct
from oie.cmd import wiring
from oie.sources import libvirt_connection
from tests import builders
from tests import fakes

NAMES = ('instances', 'disks', 'vnics')
OWNER = (
    '<nova:owner><nova:project uuid="8f0f3c0e5d6a4b7c9e1d2f3a4b5c6d7e">p</nova:project>'
    '</nova:owner></nova:instance>'
)


@pytest.fixture
def host(monkeypatch):
    """A daemon that ``import libvirt`` leads to, with two guests of a project."""
    host = fakes.Host()
    monkeypatch.setitem(sys.modules, 'libvirt', host.libvirt)
    monkeypatch.setattr(libvirt_connection, '_loop_started', True)
    for name in ('a', 'b'):
        guest = host.add(name)
        guest.xml = guest.describe().replace('</nova:instance>', OWNER)
    yield host
    host.release_all()


@pytest.fixture
def argv(tmp_path):
    """Return the arguments of a program that finds no exporter."""
    config = tmp_path / 'oie.conf'
    config.write_text(
        '[DEFAULT]\nhost = cmp1\n[exporter]\nsocket_path =\n[libvirt]\nsuspects_path =\n'
    )
    return ['--config-file', str(config)]


def over_socket(argv, name):
    """Return status and answer of an exporter in its first cycle."""
    conf = wiring.load(argv, 'oie-exporter')
    source = wiring.instances_source(conf)
    snapshot = model.Snapshot(taken_at=builders.NOW, hostname='cmp1', instances=source.read())
    source.close()
    answers = endpoint.Endpoint(
        lambda: service.Publication(snapshot, None),
        first=lambda: pytest.fail('not asked for'),
        content_type='',
        telemetry_path='/metrics',
        pollsters=wiring.pollsters(conf=conf),
        max_age=lambda: 30,
        clock=lambda: snapshot.instances.read_at or builders.NOW,
    )
    route = answers.socket_routes()[f'/pollsters/{name}']['GET']
    answer = route.handler(web.Request(method='GET', path=f'/pollsters/{name}'))
    return answer.status, answer.body


@pytest.mark.parametrize('name', NAMES)
def test_domain_that_cannot_be_read_is_missing_in_both_lists(host, argv, name):
    broken, _ = host.guests.values()
    broken.scripts['XMLDesc'] = fakes.Error(88, 'access denied')

    status, printed = pollster_direct.collect([name, *argv])

    assert status == 0
    assert printed.count(b'"resource_id"') == 1
    assert over_socket(argv, name) == (200, printed)


@pytest.mark.parametrize('name', NAMES)
def test_domains_none_of_which_can_be_read_are_no_empty_list(host, argv, name):
    for guest in host.guests.values():
        guest.scripts['XMLDesc'] = fakes.Error(88, 'access denied')

    status, printed = pollster_direct.collect([name, *argv])

    assert status == 1
    assert b'could not read any instance, of 2 listed' in printed
    status, answer = over_socket(argv, name)
    assert status == 503
    assert b'could not read any instance, of 2 listed' in answer


@pytest.mark.parametrize('name', NAMES)
def test_host_without_domains_is_an_empty_list(host, argv, name):
    host.guests.clear()
    assert pollster_direct.collect([name, *argv]) == (0, b'[]\n')
    assert over_socket(argv, name) == (200, b'[]\n')
