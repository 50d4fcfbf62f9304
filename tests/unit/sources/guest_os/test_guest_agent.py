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


"""What is made of an agent's answer, and of a child process that gives none."""

import contextlib
import io
import json
import os
import sys
import types

import hypothesis
from hypothesis import strategies as st
import pytest

from oie import confinement
from oie import exceptions
from oie import model
from oie.sources.guest_os import agent_worker
from oie.sources.guest_os import base
from oie.sources.guest_os import guest_agent
from oie.sources.guest_os import sessions
from tests import builders

DEBIAN = {'id': 'debian', 'version-id': '12', 'pretty-name': 'Debian GNU/Linux 12 (bookworm)'}
CHANNEL = builders.instance(builders.definition(has_agent_channel=True))


def options(**more):
    return types.SimpleNamespace(**{'allow_read_write': True, 'uri': '', 'timeout': 5.0, **more})


def driver(code='', **more):
    """Return a driver whose child runs this code."""
    return guest_agent.GuestAgentDriver(
        options(**more), 'qemu:///system', command=(sys.executable, '-c', code), grace=20.0
    )


def ending(output=b'', said='', status=0, why=''):
    return sessions.Ending(output, said, status, why)


# --- the driver -------------------------------------------------------------------


def test_it_must_be_allowed():
    with pytest.raises(exceptions.ConfigError, match='allow_read_write = true or take it out'):
        guest_agent.GuestAgentDriver(options(allow_read_write=False))


def test_its_own_address_counts_first():
    assert driver().uri == 'qemu:///system'
    assert driver(uri='qemu+unix:///system').uri == 'qemu+unix:///system'


def test_a_guest_without_a_channel_is_not_asked():
    assert driver('raise SystemExit(7)').read(builders.instance()) is None


@pytest.mark.parametrize('state', [s for s in model.DomainState if s.name != 'RUNNING'])
def test_a_guest_that_does_not_run_is_not_asked(state):
    instance = builders.instance(CHANNEL.definition, state=state.value)
    with pytest.raises(base.InspectionFailed) as caught:
        driver('raise SystemExit(7)').read(instance)
    assert caught.value.reason == 'not_running'


def test_the_child_is_told_what_to_ask():
    code = (
        'import json, sys; job = json.load(sys.stdin); '
        "print(json.dumps({'os': {'id': 'debian', 'pretty-name': json.dumps(job)}}))"
    )
    found = driver(code, timeout=2.9).read(CHANNEL)
    assert json.loads(found.product_name) == {
        'parent': os.getpid(),
        'uri': 'qemu:///system',
        'uuid': builders.UUID,
        'domain_id': 7,
        'timeout': 2,
    }


def test_the_child_gets_no_secrets(monkeypatch):
    monkeypatch.setenv('OS_PASSWORD', 'hush')
    code = 'import json, os; print(json.dumps({"os": {"name": " ".join(os.environ)}}))'
    assert 'OS_PASSWORD' not in driver(code).read(CHANNEL).product_name


def test_a_child_that_cannot_be_started_is_told():
    broken = guest_agent.GuestAgentDriver(options(), command=('/nonexistent/program',))
    with pytest.raises(base.InspectionFailed, match='no child process') as caught:
        broken.read(CHANNEL)
    assert caught.value.reason == 'not_started'


# --- what the child brings --------------------------------------------------------


def test_facts_come_back():
    answer = ending(json.dumps({'os': DEBIAN}).encode())
    assert guest_agent.decode(answer, 9.0) == DEBIAN


def test_an_agent_that_cannot_tell_is_no_failure():
    assert guest_agent.decode(ending(b'{"os": null}'), 9.0) is None


@pytest.mark.parametrize(
    ('given', 'reason', 'text'),
    [
        (ending(why='timeout'), 'timeout', 'killed after 9 s'),
        (ending(said='x\nImportError: no oie\n', status=1), 'broken', 'status 1.: ImportError'),
        (ending(b'{"os": {}}', why='output'), 'broken', 'was ended: output'),
        (ending(b'[]'), 'broken', 'no answer'),
        (ending(b'7'), 'broken', 'no answer'),
        (ending(b'[' * 60000), 'broken', 'no answer'),
        (ending(b'\xff'), 'broken', 'no answer'),
        (ending(b'{"os": 7}'), 'invalid', 'no facts'),
        (
            ending(b'{"failure": "denied", "text": "no\\nno"}'),
            'denied',
            'no\N{REPLACEMENT CHARACTER}no',
        ),
        (ending(b'{"failure": "made up", "text": "x"}'), 'failed', 'x'),
        (ending(b'{"failure": ["a"], "text": "x"}'), 'failed', 'x'),
        (ending(b'{"failure": "gone"}'), 'gone', 'unknown'),
    ],
)
def test_anything_else_is_a_failure_with_a_reason(given, reason, text):
    with pytest.raises(base.InspectionFailed, match=text) as caught:
        guest_agent.decode(given, 9.0)
    assert caught.value.reason == reason


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@hypothesis.given(
    st.binary(max_size=200)
    | json_values.map(lambda value: json.dumps({'os': value}).encode())
    | json_values.map(lambda value: json.dumps({'failure': value, 'text': value}).encode())
)
def test_a_child_may_write_anything(output):
    found = None
    with contextlib.suppress(base.InspectionFailed):
        found = guest_agent.decode(ending(output), 9.0)
    assert found is None or all(isinstance(each, str) for each in found.values())


# --- what an agent says -------------------------------------------------------------


def test_an_agent_that_tells_nothing_is_not_known():
    assert guest_agent.parse({}) is None
    assert guest_agent.parse(None) is None


def test_a_linux_keeps_its_pretty_name():
    found = guest_agent.parse(DEBIAN)
    assert (found.info, found.product_name) == ('debian12', 'Debian GNU/Linux 12 (bookworm)')


@pytest.mark.parametrize(
    ('version', 'nt', 'variant', 'info', 'numbers'),
    [
        ('2022', '10.0', 'server', 'win2k22', (10, 0)),
        ('2012r2', '6.3', 'server', 'win2k12r2', (6, 3)),
        ('11', '10.0', 'client', 'win11', (10, 0)),
        ('8.1', '6.3', 'client', 'win8.1', (6, 3)),
        ('vista', '6.0', 'client', 'winvista', (6, 0)),
        ('', '10.0', 'server', 'unknown', (10, 0)),
    ],
)
def test_windows_by_the_agents_own_table(version, nt, variant, info, numbers):
    """Names as in qga/commands-win32.c of QEMU 7.2."""
    found = guest_agent.parse(
        {
            'id': 'mswindows',
            'pretty-name': 'Windows Edition',
            'version-id': version,
            'kernel-version': nt,
            'variant-id': variant,
        }
    )
    assert (found.family, found.distro, found.info) == ('windows', 'windows', info)
    assert (found.version, found.version_major, found.version_minor) == (nt, *numbers)
    assert (found.product_name, found.product_variant) == ('Windows Edition', variant.title())


def test_an_unnamed_system_has_its_product_at_least():
    found = guest_agent.parse({'name': 'Mine'})
    assert (found.family, found.distro, found.product_name) == ('unknown', 'unknown', 'Mine')


@hypothesis.given(
    st.dictionaries(
        st.sampled_from(
            ('id', 'name', 'pretty-name', 'version-id', 'variant', 'variant-id', 'kernel-version')
        ),
        st.text(max_size=256) | st.sampled_from(('mswindows', 'debian', '10.0', '2022')),
    )
)
def test_whatever_an_agent_says_is_safe_to_publish(facts):
    found = guest_agent.parse(facts)
    if found is not None:
        shown = base.cleaned(found, 'guest_agent', 1.0)
        for text in (shown.family, shown.distro, shown.info, shown.version, shown.product_name):
            assert 0 < len(text) <= 255
            assert text.isprintable()


# --- the child ----------------------------------------------------------------------

JOB = {'uri': 'qemu:///system', 'uuid': builders.UUID, 'domain_id': 7, 'timeout': 5}


class Error(Exception):
    def __init__(self, code, text='no'):
        super().__init__(text)
        self._code = code

    def get_error_code(self):
        return self._code


class Libvirt:
    """The part of the module that is used, and the only domain of its only connection."""

    libvirtError = Error
    VIR_DOMAIN_GUEST_INFO_OS = 2
    VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK = -2
    VIR_ERR_OPERATION_UNSUPPORTED = 84
    VIR_ERR_AGENT_UNRESPONSIVE = 86
    VIR_ERR_AGENT_UNSYNCED = 103
    VIR_ERR_OPERATION_TIMEOUT = 68
    VIR_ERR_OPERATION_DENIED = 29
    VIR_ERR_ACCESS_DENIED = 88
    VIR_ERR_AUTH_FAILED = 45
    VIR_ERR_AUTH_CANCELLED = 79
    VIR_ERR_AUTH_UNAVAILABLE = 80
    VIR_ERR_NO_DOMAIN = 42

    def __init__(self, answer, *, state='connected', number=7, refuses=None):
        self.answer = answer
        self.state = state
        self.number = number
        self.refuses = refuses
        self.calls = []

    def open(self, uri):
        if self.refuses is not None:
            raise self.refuses
        self.calls.append(('open', uri))
        return self

    def close(self):
        self.calls.append(('close',))

    def lookupByUUIDString(self, uuid):
        assert uuid == builders.UUID
        return self

    def ID(self):
        return self.number

    def XMLDesc(self, flags):
        assert flags == 0
        return (
            f'<domain><devices><channel type="unix"><target type="virtio" '
            f'name="org.qemu.guest_agent.0" state="{self.state}"/></channel></devices></domain>'
        )

    def agentSetResponseTimeout(self, seconds, flags):
        self.calls.append(('timeout', seconds))

    def guestInfo(self, types, flags):
        self.calls.append(('ask', types, flags))
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def test_the_time_out_is_set_before_the_question_and_back_after_it():
    libvirt = Libvirt({'os.id': 'debian'})
    assert agent_worker.ask(libvirt, JOB) == {'id': 'debian'}
    assert libvirt.calls == [
        ('open', 'qemu:///system'),
        ('timeout', 5),
        ('ask', 2, 0),
        ('timeout', -2),
        ('close',),
    ]


def test_the_time_out_is_set_back_after_a_failure_too():
    libvirt = Libvirt(Error(Libvirt.VIR_ERR_AGENT_UNRESPONSIVE))
    with pytest.raises(agent_worker.Failure):
        agent_worker.ask(libvirt, JOB)
    assert libvirt.calls[-2:] == [('timeout', -2), ('close',)]


@pytest.mark.parametrize(
    ('libvirt', 'reason'),
    [
        (Libvirt({}, refuses=Error(Libvirt.VIR_ERR_AUTH_UNAVAILABLE)), 'denied'),
        (Libvirt({}, refuses=Error(38)), 'unreachable'),
        (Libvirt({}, number=8), 'gone'),
        (Libvirt({}, state='disconnected'), 'not_connected'),
        (Libvirt({}), 'unresponsive'),
        (Libvirt({'os.unheard-of': 'x'}), 'unresponsive'),
        (Libvirt(Error(Libvirt.VIR_ERR_OPERATION_DENIED)), 'denied'),
        (Libvirt(Error(Libvirt.VIR_ERR_NO_DOMAIN)), 'gone'),
        (Libvirt(Error(1)), 'refused'),
        (Libvirt(SystemError('returned a result with an exception set')), 'invalid'),
        (Libvirt(ValueError('no UTF-8')), 'invalid'),
    ],
)
def test_whatever_libvirt_refuses_has_a_reason(libvirt, reason):
    with pytest.raises(agent_worker.Failure) as caught:
        agent_worker.ask(libvirt, JOB)
    assert caught.value.reason == reason
    assert reason in guest_agent._FAILURES


def test_a_libvirt_that_has_no_such_question_is_no_failure():
    assert agent_worker.ask(Libvirt(Error(84)), JOB) is None


def test_a_check_asks_no_guest():
    libvirt = Libvirt({'os.id': 'debian'})
    assert agent_worker.ask(libvirt, {**JOB, 'uuid': ''}) is None
    assert libvirt.calls == [('open', 'qemu:///system'), ('close',)]


def test_a_check_says_why_libvirt_refuses():
    driver('print(\'{"os": null}\')').check()
    with pytest.raises(base.InspectionFailed, match='no polkit'):
        driver('print(\'{"failure": "denied", "text": "no polkit"}\')').check()


def test_texts_are_cut_and_other_values_left_out():
    given = {'os.id': 'x' * 9999, 'os.name': 7, 'os.version': None, 'fs.count': 3}
    assert agent_worker.facts(given) == {'id': 'x' * 256}


class Stdin:
    def __init__(self, text):
        self.buffer = io.BytesIO(text)


def run_child(monkeypatch, capsys, job, libvirt):
    confined = []
    monkeypatch.setattr(confinement, 'confine', lambda: confined.append(True))
    monkeypatch.setattr(agent_worker, 'import_libvirt', lambda: libvirt)
    monkeypatch.setattr(sys, 'stdin', Stdin(json.dumps(job).encode()))
    status = agent_worker.main()
    assert confined == [True]
    return status, capsys.readouterr().out


def test_the_child_writes_one_document(monkeypatch, capsys):
    job = {**JOB, 'parent': os.getppid()}
    status, output = run_child(monkeypatch, capsys, job, Libvirt({'os.id': 'd\ud800'}))
    assert (status, json.loads(output)) == (0, {'os': {'id': 'd\ud800'}})
    assert output.isascii()
    status, output = run_child(monkeypatch, capsys, job, Libvirt({}, number=1))
    assert (status, json.loads(output)['failure']) == (0, 'gone')


def test_a_child_whose_daemon_has_died_asks_nobody(monkeypatch, capsys):
    libvirt = Libvirt({'os.id': 'debian'})
    status, output = run_child(monkeypatch, capsys, {**JOB, 'parent': -1}, libvirt)
    assert (status, output, libvirt.calls) == (1, '', [])
