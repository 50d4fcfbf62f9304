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


"""What a guest agent says, rightly or not, through a real libvirtd and a real QEMU.

The guest is a Linux that opens the agent's port; the answers are the test's (agent_guest.py).
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import json
import pathlib
import tempfile
import threading
import time
import types
from typing import Any

import pytest

from oie import model
from oie.sources import domain_xml
from oie.sources.guest_os import base
from oie.sources.guest_os import guest_agent
from tests import builders
from tests import machine
from tests.functional import agent_guest
from tests.functional import domains
from tests.functional import exporter as exporters
from tests.functional import guests as lab_guests
from tests.functional import lab
from tests.functional import processes

DEBIAN = {
    'id': 'debian',
    'name': 'Debian GNU/Linux',
    'pretty-name': 'Debian GNU/Linux 12 (bookworm)',
    'version': '12 (bookworm)',
    'version-id': '12',
    'kernel-release': '6.1.0-56-cloud-amd64',
    'machine': 'x86_64',
}
# As qemu-ga for Windows answers (qga/commands-win32.c of QEMU 7.2).
WINDOWS = {
    'id': 'mswindows',
    'name': 'Microsoft Windows',
    'pretty-name': 'Windows Server 2022 Datacenter',
    'version': 'Microsoft Windows Server 2022',
    'version-id': '2022',
    'variant': 'server',
    'variant-id': 'server',
    'kernel-release': '20348',
    'kernel-version': '10.0',
    'machine': 'x86_64',
}
NO_PROPER_ANSWER = ('', 'invalid', 'refused', 'unresponsive')
WAITS = 1.0


@dataclasses.dataclass
class Agent:
    """A running guest with an agent of ours."""

    libvirtd: lab.Libvirtd
    guest: lab_guests.Guest
    listener: agent_guest.Listener

    def says(self, facts: object) -> None:
        """Answer in the right form, whatever the facts are."""
        self.answers(lambda: json.dumps({'return': facts}).encode() + b'\n')

    def answers(self, answer: Callable[[], bytes | None]) -> None:
        """Answer the handshake rightly and the question with these bytes."""

        def agent(request: Any) -> bytes | None:
            if request['execute'] == 'guest-sync':
                return json.dumps({'return': request['arguments']['id']}).encode() + b'\n'
            return answer()

        self.listener.agent = agent

    def is_silent(self) -> None:
        """Do not answer anything."""
        self.listener.agent = lambda request: None

    def driver(self, **more: Any) -> guest_agent.GuestAgentDriver:
        options = types.SimpleNamespace(allow_read_write=True, uri='', timeout=WAITS)
        return guest_agent.GuestAgentDriver(options, self.libvirtd.rw_uri, **more)

    def instance(self) -> model.Instance:
        """Return the guest as the exporter sees it."""
        definition = domain_xml.parse(self.libvirtd.virsh('dumpxml', self.guest.name))
        number = int(self.libvirtd.virsh('domid', self.guest.name))
        return builders.instance(definition, domain_id=number)

    def is_answered(self) -> bool:
        """Whether libvirt itself gets what it asks for."""
        try:
            return 'debian' in self.libvirtd.virsh('guestinfo', self.guest.name, '--os')
        except processes.LabError:
            return False

    def is_connected(self) -> bool:
        return "state='connected'" in self.libvirtd.virsh('dumpxml', self.guest.name)

    def response_timeout(self) -> int | None:
        """Return what libvirtd keeps as the time-out of the agent; None for its default."""
        status = (self.libvirtd.base / f'run/libvirt/qemu/{self.guest.name}.xml').read_text()
        _, found, rest = status.partition('<agentTimeout>')
        return int(rest.partition('<')[0]) if found else None


@pytest.fixture(scope='module')
def booted(libvirtd: lab.Libvirtd) -> Iterator[Agent]:
    machine.require(agent_guest.what_is_missing())
    # The path of a socket has room for 107 bytes.
    with tempfile.TemporaryDirectory(prefix='oiet-agent-') as name:
        directory = pathlib.Path(name)
        kernel, initrd = agent_guest.boot_files(directory)
        listener = agent_guest.Listener(directory / 'agent')
        [guest] = libvirtd.start_guests(
            1,
            memory_mib=128,
            kernel=kernel,
            initrd=initrd,
            agent_socket=str(directory / 'agent'),
        )
        agent = Agent(libvirtd, guest, listener)
        processes.wait_for(agent.is_connected, 60, 'a guest that opens the port of its agent')
        yield agent
        libvirtd.remove([guest])
        listener.close()


@pytest.fixture
def agent(booted: Agent) -> Iterator[Agent]:
    """Begin with an agent that libvirt believes in; check that libvirtd has its workers back."""
    booted.says(DEBIAN)
    if not booted.is_answered():
        # After nonsense libvirt asks no more until the guest has opened the port anew.
        booted.listener.reopen()
        processes.wait_for(booted.is_answered, 20, 'an agent that libvirt believes in')
    booted.is_silent()
    yield booted
    processes.wait_for(lambda: workers_are_free(booted.libvirtd), 10, 'free workers of libvirtd')
    assert booted.response_timeout() in (None, -2)


def workers_are_free(libvirtd: lab.Libvirtd) -> bool:
    pool = libvirtd.threadpool()
    return pool['freeWorkers'] == pool['nWorkers']


def test_a_linux_tells_its_release(agent: Agent) -> None:
    agent.says(DEBIAN)
    assert agent.driver().read(agent.instance()) == model.GuestOs(
        family='linux',
        distro='debian',
        info='debian12',
        product_name='Debian GNU/Linux 12 (bookworm)',
        version='12',
        version_major=12,
    )


def test_a_windows_tells_its_release(agent: Agent) -> None:
    agent.says(WINDOWS)
    assert agent.driver().read(agent.instance()) == model.GuestOs(
        family='windows',
        distro='windows',
        info='win2k22',
        product_name='Windows Server 2022 Datacenter',
        product_variant='Server',
        version='10.0',
        version_major=10,
        version_minor=0,
    )


def test_the_agent_is_asked_for_nothing_else(agent: Agent) -> None:
    agent.says(DEBIAN)
    agent.listener.requests.clear()
    agent.driver().read(agent.instance())
    # libvirt itself asks for the first when it is not sure of being in step.
    assert set(agent.listener.requests) <= {'guest-sync', 'guest-get-osinfo'}
    assert agent.listener.requests.count('guest-get-osinfo') == 1


@pytest.mark.parametrize(
    'facts',
    [
        {'id': 'x' * 2**20, 'pretty-name': 'y' * 2**20},
        {'id': 'debian', 'version-id': '9' * 5000, 'pretty-name': 'a\nb\x1b[2J\u202ec\x00'},
        {'id': 'debian"} 1\noie_up 0', 'variant': '\ud800\udfff'},
        {**DEBIAN, 'unknown-key': {'a': [1, 2, {'b': 3}]}},
    ],
    ids=['huge', 'control characters', 'injection', 'more than asked for'],
)
def test_whatever_it_says_is_short_and_prints(agent: Agent, facts: dict[str, Any]) -> None:
    agent.says(facts)
    found, reason = outcome(agent)
    assert reason in NO_PROPER_ANSWER
    shown = base.cleaned(found or model.GuestOs(), 'guest_agent', 1.0)
    for text in (shown.family, shown.distro, shown.info, shown.product_name, shown.version):
        assert len(text) <= 255
        assert text.isprintable()


@pytest.mark.parametrize(
    'answer',
    [
        b'{"return": []}\n',
        b'{"return": 7}\n',
        b'{"return": {"id": 7, "name": ["a"]}}\n',
        b'{"return": {"id": "\xff\xfe"}}\n',
        b'no json\n',
        b'{"error": {"class": "GenericError", "desc": "no"}}\n',
        b'[' * 100000 + b'\n',
    ],
    ids=['list', 'number', 'wrong types', 'no UTF-8', 'no JSON', 'error', 'nested'],
)
def test_nonsense_is_no_operating_system(agent: Agent, answer: bytes) -> None:
    agent.answers(lambda: answer)
    found, reason = outcome(agent)
    assert found is None
    assert reason in NO_PROPER_ANSWER


def test_an_agent_that_does_not_know_the_question_gives_no_answer(agent: Agent) -> None:
    error = {'class': 'CommandNotFound', 'desc': 'The command guest-get-osinfo has not been found'}
    agent.answers(lambda: json.dumps({'error': error}).encode() + b'\n')
    with pytest.raises(base.InspectionFailed, match='has not been found') as caught:
        agent.driver().read(agent.instance())
    assert caught.value.reason == 'refused'


@pytest.mark.parametrize('is_in_step', [True, False], ids=['to the question', 'to anything'])
def test_silence_ends_at_the_time_out(agent: Agent, is_in_step: bool) -> None:
    if is_in_step:
        agent.answers(lambda: None)
    started = time.monotonic()
    with pytest.raises(base.InspectionFailed) as caught:
        agent.driver().read(agent.instance())
    assert caught.value.reason == 'unresponsive'
    # Its own limit, and what a child and a connection take on a busy machine.
    assert time.monotonic() - started < WAITS + 8
    agent.says(DEBIAN)
    found = agent.driver().read(agent.instance())
    assert found is not None
    assert found.distro == 'debian'


def test_drops_of_an_answer_do_not_stretch_the_time_out(agent: Agent) -> None:
    """Each byte on its own, for ever."""
    stop = threading.Event()

    def drip() -> bytes:
        stop.wait(WAITS * 3)
        return b' '

    agent.answers(drip)
    started = time.monotonic()
    with pytest.raises(base.InspectionFailed):
        agent.driver().read(agent.instance())
    stop.set()
    assert time.monotonic() - started < WAITS + 8


def test_a_daemon_that_hangs_costs_the_child_its_life(agent: Agent) -> None:
    driver, instance = agent.driver(grace=1.0), agent.instance()
    agent.libvirtd.suspend()
    try:
        with pytest.raises(base.InspectionFailed) as caught:
            driver.read(instance)
    finally:
        agent.libvirtd.resume()
    assert caught.value.reason == 'timeout'
    assert children() == set()
    agent.says(DEBIAN)
    assert agent.driver().read(instance) is not None


def test_a_stop_ends_the_child_at_once(agent: Agent) -> None:
    agent.answers(lambda: None)
    driver, instance = agent.driver(), agent.instance()
    threading.Timer(0.5, driver.close).start()
    started = time.monotonic()
    with pytest.raises(base.InspectionFailed):
        driver.read(instance)
    assert time.monotonic() - started < WAITS + 3
    assert children() == set()
    # libvirtd gives up by itself; the time-out that was left behind is then set back.
    agent.says(DEBIAN)
    assert agent.driver().read(instance) is not None


def test_another_life_is_not_asked(agent: Agent) -> None:
    agent.says(DEBIAN)
    with pytest.raises(base.InspectionFailed) as caught:
        agent.driver().read(dataclasses.replace(agent.instance(), domain_id=999999))
    assert caught.value.reason == 'gone'


def test_a_read_only_address_is_refused(agent: Agent) -> None:
    """libvirt's own rule, and why there is an option."""
    driver = agent.driver()
    driver.uri = agent.libvirtd.uri
    with pytest.raises(base.InspectionFailed) as caught:
        driver.read(agent.instance())
    assert caught.value.reason in ('denied', 'unreachable', 'refused')


def test_a_check_tells_whether_libvirt_lets_us_in(agent: Agent) -> None:
    driver = agent.driver()
    agent.listener.requests.clear()
    driver.check()
    assert agent.listener.requests == []
    driver.uri = 'qemu:///system?socket=/nonexistent/socket'
    with pytest.raises(base.InspectionFailed) as caught:
        driver.check()
    assert caught.value.reason == 'unreachable'


def test_a_guest_that_has_not_opened_its_port_is_not_asked(
    agent: Agent, tmp_path: pathlib.Path
) -> None:
    with tempfile.TemporaryDirectory(prefix='oiet-agent-') as name:
        path = pathlib.Path(name, 'agent')
        listener = agent_guest.Listener(path)
        [guest] = agent.libvirtd.start_guests(1, agent_socket=str(path))
        idle = Agent(agent.libvirtd, guest, listener)
        with contextlib.ExitStack() as stack:
            stack.callback(listener.close)
            stack.callback(agent.libvirtd.remove, [guest])
            with pytest.raises(base.InspectionFailed) as caught:
                idle.driver().read(idle.instance())
    assert caught.value.reason == 'not_connected'
    assert listener.requests == []


def test_the_exporter_shows_what_the_agent_says(agent: Agent) -> None:
    agent.says(WINDOWS)
    settings = {
        'guest_os': {'drivers': 'nova_image,guest_agent'},
        'guest_os_guest_agent': {
            'allow_read_write': 'true',
            'uri': agent.libvirtd.rw_uri,
            'timeout': '1s',
        },
    }
    uuid = agent.guest.uuid
    with exporters.Exporter(agent.libvirtd.uri, settings) as exporter:
        scrape = exporter.wait_for(
            lambda now: now.of('oie_instance_os_info', os_source='guest_agent'), 'an answer'
        )
        [info] = scrape.of('oie_instance_os_info', instance_uuid=uuid)
        assert info.labels['os_info'] == 'win2k22'
        assert info.labels['os_product_name'] == 'Windows Server 2022 Datacenter'
        assert scrape.value('oie_instance_license_units', instance_uuid=uuid) == 1
        assert scrape.value('oie_guest_os_inspections_total') == 1
        [entry] = exporter.pollster('os').entries
        assert entry['resource_id'] == uuid
        assert (entry['os_family'], entry['os_source']) == ('windows', 'guest_agent')
        assert (entry['vcpus'], entry['license_units']) == (1, 1)
        assert (entry['os_version_major'], entry['os_version_minor']) == ('10', '0')
        exporter.stop()
        # Without a daemon nobody is asked, so nothing is known of the guest.
        requests = len(agent.listener.requests)
        [entry] = exporter.pollster('os').entries
        assert (entry['os_family'], entry['os_source']) == ('unknown', 'pending')
        assert (entry['vcpus'], entry['license_units']) == (1, None)
        assert len(agent.listener.requests) == requests


def test_the_image_is_enough_without_anybody_being_asked(
    libvirtd: lab.Libvirtd, guests: Callable[..., list[lab_guests.Guest]]
) -> None:
    """The same entry from the daemon and without it."""
    image = domains.Image(properties={'os_distro': 'windows', 'os_version': '2019'})
    [guest] = guests(
        1, metadata='2025.2', nova_version='32.0.0', image=image, vcpus=2, max_vcpus=2
    )
    with exporters.Exporter(libvirtd.uri) as exporter:
        [info] = exporter.scrape().of('oie_instance_os_info', instance_uuid=guest.uuid)
        assert info.labels['os_info'] == 'win2k19'
        with_daemon = exporter.pollster('os').entries
        exporter.stop()
        assert exporter.pollster('os').entries == with_daemon
    [entry] = [one for one in with_daemon if one['resource_id'] == guest.uuid]
    assert (entry['os_source'], entry['license_units']) == ('nova_image', 2)


def outcome(agent: Agent) -> tuple[model.GuestOs | None, str]:
    """Return what was found, or the reason why nothing was."""
    try:
        return agent.driver().read(agent.instance()), ''
    except base.InspectionFailed as exc:
        return None, exc.reason


def children() -> set[str]:
    """Return the processes that ask agents."""
    found = set()
    for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
        with contextlib.suppress(OSError):
            if b'guest_os.agent_worker' in path.read_bytes():
                found.add(path.parent.name)
    return found
