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

"""tools/demo.py shows the main job, with and without guests of one's own."""

from collections.abc import Sequence
import json
import pathlib
import subprocess
import sys

from tests.functional import conftest
from tests.functional import exporter as exporters
from tests.functional import lab
from tests.functional import processes

DEMO = pathlib.Path(__file__).parents[2] / 'tools/demo.py'
#: The test driver of libvirt, whatever runs on this machine.
URI = f'test://{DEMO.parent.parent / "etc/oie/demo/node.xml"}'


def test_demo_prints_every_list_and_a_scrape(laboratory: None) -> None:
    lists, scrape = _demo('--uri', URI)

    assert len(scrape.instances()) == 4
    # Nova did not start one of them, so nobody pays for it.
    assert len(lists['instances']) == len(lists['os']) == len(lists['usage']) == 3
    assert len({entry['project_id'] for entry in lists['instances']}) == 2
    assert scrape.value('oie_libvirt_up') == 1
    assert all(entry['read_bytes'] is not None for entry in lists['disks'])


def test_demo_shows_a_router_and_a_dhcp_server_of_its_own(laboratory: None) -> None:
    before = processes.run('ip', 'netns', 'list')

    lists, scrape = _demo('--uri', URI)

    (router,) = lists['routers']
    uuid = router['resource_id']
    # Nobody has a router of that name but the demonstration.
    assert uuid.startswith('de300000-')
    assert scrape.names(netns=f'qrouter-{uuid}') >= {'oie_netns_info', 'netns_network_up'}
    kinds = {one.labels['netns']: one.labels['kind'] for one in scrape.of('oie_netns_info')}
    assert kinds == {f'qrouter-{uuid}': 'router', f'qdhcp-{uuid}': 'dhcp'}
    assert uuid not in processes.run('ip', 'netns', 'list')
    assert uuid not in before


def test_demo_goes_on_where_it_may_make_no_namespaces(laboratory: None) -> None:
    text = _run('--uri', URI, launcher=('setpriv', '--bounding-set=-sys_admin'))

    lists, scrape = _parsed(text)
    (line,) = [line for line in text.splitlines() if 'network namespaces' in line]
    assert line.startswith('No network namespaces are shown, because none can be made: ')
    assert lists['routers'] == []
    assert not scrape.of('oie_netns_info')
    assert len(lists['instances']) == 3


def test_demo_finds_guests_by_itself(laboratory: None) -> None:
    lists, scrape = _demo()

    assert lists['instances']
    assert scrape.instances() >= {entry['resource_id'] for entry in lists['instances']}


def test_demo_shows_the_guests_of_a_real_libvirtd(
    libvirtd: lab.Libvirtd, guests: conftest.GuestFactory
) -> None:
    new = guests(2)

    lists, scrape = _demo('--uri', libvirtd.uri)

    expected = {guest.uuid for guest in new}
    assert {entry['resource_id'] for entry in lists['instances']} == expected
    assert scrape.instances() == expected
    assert len(lists['disks']) == len(lists['vnics']) == 2


def _demo(*arguments: str) -> tuple[dict[str, list[dict[str, str]]], exporters.Scrape]:
    """Return the printed lists by name, and the printed scrape."""
    return _parsed(_run(*arguments))


def _run(*arguments: str, launcher: Sequence[str] = ()) -> str:
    done = subprocess.run(
        (*launcher, sys.executable, str(DEMO), '--once', *arguments),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert 'Traceback' not in done.stderr
    return done.stdout


def _parsed(text: str) -> tuple[dict[str, list[dict[str, str]]], exporters.Scrape]:
    _, *parts = text.split('\n$ ')
    answers = dict(part.split('\n', 1) for part in parts)
    names = (*exporters.POLLSTERS, 'contacts', 'os', 'usage', 'routers')
    lists = {name: json.loads(answers[f'oie-pollster {name}']) for name in names}
    (scrape,) = (text for command, text in answers.items() if command.startswith('curl'))
    return lists, exporters.Scrape(scrape, 0)
