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

"""oie-status tells what works, what does not, what to do, and by its status how bad it is."""

import contextlib
import functools
import importlib.util
import json
import logging
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

from oie import model
from oie import web
from oie.cmd import check_table
from oie.cmd import host_access
from oie.cmd import host_check
from oie.cmd import status
from oie.cmd import wiring

ROOT = pathlib.Path(__file__).resolve().parents[3]
NODE = ROOT / 'etc/oie/demo/node.xml'
OK, INFO = check_table.Result.OK, check_table.Result.INFO
WARNING, FAILURE = check_table.Result.WARNING, check_table.Result.FAILURE
UUIDS = [f'00000000-0000-4000-8000-{number:012}' for number in range(10)]
RUNNING = model.Hypervisor(
    is_connected=True,
    uri='qemu:///system',
    libvirt_version='9.0.0',
    type='QEMU',
    version='7.2.22',
    hostname='cmp-1.example.org',
    domains_by_state={'running': 2},
)
LISTS = ('instances', 'disks', 'vnics')
needs_libvirt = pytest.mark.skipif(
    importlib.util.find_spec('libvirt') is None, reason='the Python module libvirt is missing'
)


# --- builders -----------------------------------------------------------------


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a configuration of this test alone and gives its path.

    What its lines set goes in place of what is usual here.
    """

    def write(*lines):
        path = tmp_path / 'oie.conf'
        usual = (
            '[exporter]',
            f'socket_path = {tmp_path}/run/oie.sock',
            f'listen_address = 127.0.0.1:{free_port()}',
            '[libvirt]',
            f'uri = test://{NODE}',
            f'suspects_path = {tmp_path}/run/suspects.json',
        )
        replaced = {line.split()[0] for line in lines} - {'[exporter]', '[libvirt]'}
        kept = [line for line in usual if line.split()[0] not in replaced]
        path.write_text('\n'.join([*kept, *lines]))
        return str(path)

    return write


@pytest.fixture
def load(write):
    """Return a function that gives the options of such a configuration."""
    return lambda *lines: wiring.load(['--config-file', write(*lines)], status.PROG)


def definition(number=0, namespace='1.1', **more):
    owner = model.NO_LABELS
    return model.Definition(
        uuid=UUIDS[number],
        domain=f'instance-{number:08x}',
        has_nova_metadata=bool(namespace),
        metadata_namespace=namespace,
        project_uuid='p1',
        disks=(model.DiskDevice(owner=owner, target='vda', type='file'),),
        interfaces=(model.InterfaceDevice(owner=owner, target='tap0', type='bridge'),),
        **more,
    )


def instance(number=0, *, monitor=True, control=None, namespace='1.1', **more):
    """Return an instance; without its monitor it has only tier one."""
    known = definition(number, namespace)
    statistics = model.MonitorStatistics(
        read_at=1.0,
        is_complete=True,
        vcpus=(model.VcpuStatistics(number=0, time_ns=1),),
        memory=model.Memory(current_bytes=2**30),
        disks=(model.DiskStatistics(device=known.disks[0], read_requests=0),),
    )
    values = {
        'definition': known,
        'domain_id': number + 1,
        'state': 1,
        'state_reason': 1,
        'read_at': 1.0,
        'read_clock_ns': 1,
        'cpu_time_ns': 5,
        'vcpus': 1,
        'memory_maximum_bytes': 2**30,
        'control': control,
        'interfaces': (model.InterfaceStatistics(device=known.interfaces[0], rx_bytes=0),),
        'monitor': statistics if monitor else None,
        'is_complete': monitor,
    }
    return model.Instance(**{**values, **more})


def occupied(milliseconds, state=model.ControlState.OCCUPIED):
    return model.Control(state=state, busy_ms=milliseconds)


class Source:
    """Gives what it was told to; like the real one it also logs."""

    def __init__(self, *instances, error='', hypervisor=RUNNING, says=()):
        self._instances = instances
        self._error = error
        self._hypervisor = hypervisor
        self._says = says

    def read(self):
        for text in self._says:
            logging.getLogger('oie.sources.libvirt').warning('%s', text)
        return model.Reading(value=self._instances, read_at=1.0, seconds=0.25, error=self._error)

    def hypervisor(self):
        return self._hypervisor


class HangingSource(Source):
    """Does not answer before it is told to."""

    def __init__(self):
        super().__init__()
        self.go_on = threading.Event()

    def read(self):
        self.go_on.wait()
        return super().read()


def rows_of(conf, source, seconds=10.0):
    """Return the rows by name of their check."""
    found = list(host_check.rows(conf, source, time.monotonic() + seconds))
    assert len({row.check for row in found}) == len(found)
    return {row.check: row for row in found}


def look(*instances, **more):
    return host_check.look(Source(*instances, **more))


# --- the table ----------------------------------------------------------------


class TestTable:
    @pytest.mark.parametrize(
        ('results', 'expected'),
        [
            ((), 0),
            ((OK, INFO), 0),
            ((OK, WARNING), 1),
            ((WARNING, FAILURE, OK), 2),
        ],
    )
    def test_status_is_that_of_the_worst_row(self, results, expected):
        assert check_table.status(check_table.Row('x', each, '') for each in results) == expected

    def test_texts_are_wrapped_into_their_cells(self):
        row = check_table.Row('Check', FAILURE, 'word ' * 60, 'do ' * 60)
        lines = check_table.table([row], width=100).splitlines()
        assert max(map(len, lines)) <= 100
        assert ' '.join(lines).count('word') == 60

    def test_foreign_text_cannot_break_out_of_its_cell(self):
        row = check_table.Row('Check', OK, 'a\nb\x1b[31m\x00c')
        lines = check_table.table([row], width=100).splitlines()
        assert len(lines) == 5
        assert 'a b?[31m?c' in lines[3]

    def test_json_has_the_form_of_the_upgrade_check(self):
        text = check_table.as_json('Title', [check_table.Row('libvirt', WARNING, 'slow', 'wait')])
        assert json.loads(text) == {
            'name': 'Title',
            'checks': [
                {'check': 'libvirt', 'result': 'WARNING', 'details': 'slow', 'advice': 'wait'}
            ],
        }


# --- libvirt ------------------------------------------------------------------


class TestLibvirt:
    def test_healthy_host_has_no_warning(self, load):
        found = rows_of(load(), Source(instance(0), instance(1)))
        assert {row.result for row in found.values()} == {OK, INFO}
        assert found['libvirt'].detail == (
            'libvirt 9.0.0, QEMU 7.2.22 at qemu:///system; '
            '2 active domains (2 running), read in 0.25 s'
        )
        assert found['Statistics'].detail == '2 of 2 domains complete'
        assert found['Nova metadata'].detail == '2 of 2 domains: 2 of namespace 1.1'
        assert found['Pollsters'].detail.endswith('2 instances, 2 disks, 2 vnics')

    def test_libvirt_that_fails_is_a_failure_with_its_reason(self, load):
        found = rows_of(load(), Source(error='cannot open a connection to libvirt: no such file'))
        assert found['libvirt'].result is FAILURE
        assert 'no such file' in found['libvirt'].detail
        assert found['Pollsters'].result is FAILURE
        assert 'Statistics' not in found

    def test_libvirt_that_no_collector_needs_is_no_failure(self, load):
        conf = load('[collector]', 'enabled = project_usage,exporter')
        found = rows_of(conf, Source(error='cannot open a connection to libvirt: no such file'))
        assert found['libvirt'].result is found['Pollsters'].result is INFO

    def test_libvirt_that_hangs_costs_no_more_than_the_deadline(self, load):
        source = HangingSource()
        found = rows_of(load(), source, seconds=0.1)
        source.go_on.set()
        assert found['libvirt'].result is FAILURE
        assert 'no answer in time' in found['libvirt'].detail
        assert 'Kernel: resctrl' in found

    def test_versions_that_come_late_are_not_waited_for_long(self, load, monkeypatch):
        monkeypatch.setattr(host_check, 'FACTS_SECONDS', 0.0)
        hypervisor = model.Hypervisor(uri='qemu:///system')
        found = rows_of(load(), Source(hypervisor=hypervisor))
        assert found['libvirt'].detail.startswith('libvirt of unknown version at qemu:///system')

    def test_host_without_domains_is_no_warning(self, load):
        hypervisor = model.Hypervisor(uri='qemu:///system', version='1')
        found = rows_of(load(), Source(hypervisor=hypervisor))
        assert found['Read-only access'].detail == 'no active domain to try it on'
        assert {row.result for row in found.values()} == {OK, INFO}

    def test_domains_that_cannot_be_read_are_told_with_what_was_logged(self, load, capsys):
        hypervisor = model.Hypervisor(version='1', domain_errors={'parse': 1, 'error': 1})
        said = (f'{UUIDS[3]}: broken XML: mismatched tag', f'{UUIDS[4]}: not read: denied')
        found = rows_of(load(), Source(instance(0), hypervisor=hypervisor, says=said))
        assert found['Domains'].result is WARNING
        assert found['Domains'].detail == f'2 could not be read: {said[0]}; {said[1]}'
        assert capsys.readouterr().err == ''

    def test_lists_that_libvirt_alone_gives_are_tried(self, load):
        detail = rows_of(load(), Source(instance(0), instance(1)))['Pollsters'].detail
        assert detail.endswith('read from libvirt: 2 instances, 2 disks, 2 vnics')

    def test_another_name_of_the_host_in_libvirt_is_shown(self, load):
        found = rows_of(load('[DEFAULT]', 'host = cmp-7'), Source())
        assert found['Host name'].detail == (
            'cmp-7 ([DEFAULT] host); libvirt says cmp-1.example.org'
        )


class TestReadOnly:
    def test_every_group_that_came_is_named(self):
        row = host_check.read_only(look(instance()))
        assert row.result is OK
        assert row.detail.endswith('gives CPU time, interfaces, vCPUs, memory, disks')

    def test_group_that_no_domain_gave_is_a_warning(self):
        bare = functools.partial(instance, interfaces=())
        row = host_check.read_only(look(bare(0), bare(1)))
        assert row.result is WARNING
        assert row.detail == 'no domain gave its interfaces'

    def test_one_domain_that_gave_it_proves_the_right(self):
        row = host_check.read_only(look(instance(0, interfaces=()), instance(1)))
        assert row.result is OK

    def test_busy_monitor_says_nothing_of_rights(self):
        row = host_check.read_only(look(instance(monitor=False)))
        assert row.result is OK
        assert row.detail.endswith('gives CPU time, interfaces')


class TestStatistics:
    @pytest.fixture
    def statistics(self, load):
        """Return a function that gives the row for some instances."""
        return lambda *args, **more: host_check.statistics(load(), look(*args, **more))

    def test_occupied_monitor_is_named_with_its_time(self, statistics):
        row = statistics(instance(0), instance(1, monitor=False, control=occupied(12345)))
        assert row.result is WARNING
        assert row.detail == (
            f'1 of 2 domains complete; {UUIDS[1]}: its monitor is busy for 12.3 s'
        )

    def test_monitor_that_did_not_answer_us_is_named(self, statistics):
        row = statistics(instance(0, monitor=False, control=occupied(0, state=0)))
        assert row.detail == f'0 of 1 domains complete; {UUIDS[0]}: no answer within 2 s'

    def test_job_and_part_that_is_missing_are_named(self, statistics):
        short = instance(1, is_complete=False)
        job = instance(0, is_complete=False, control=occupied(2000, model.ControlState.JOB))
        assert statistics(job, short).detail == (
            f'0 of 2 domains complete; {UUIDS[0]}: a job keeps it busy for 2.0 s; '
            f'{UUIDS[1]}: a part is missing'
        )

    def test_only_some_of_many_are_named(self, statistics):
        row = statistics(*(instance(n, monitor=False) for n in range(8)))
        assert row.detail.endswith('and 3 more')
        assert row.detail.count('no answer') == 5

    def test_host_in_distress_is_a_failure_that_names_who_holds_it(self, statistics):
        wedged = [instance(n, monitor=False, control=occupied(11000)) for n in range(3)]
        hypervisor = model.Hypervisor(version='1', domain_errors={'suspended': 4})
        row = statistics(*wedged, instance(3, monitor=False), hypervisor=hypervisor)
        assert row.result is FAILURE
        assert row.detail.count('busy for 11.0 s') == 3
        assert UUIDS[3] not in row.detail

    def test_host_in_distress_by_our_own_calls_is_told_from_the_log(self, statistics):
        said = f'no answer within 2 s from the QEMU monitor of {UUIDS[0]}'
        hypervisor = model.Hypervisor(version='1', domain_errors={'suspended': 4})
        row = statistics(instance(0, monitor=False), hypervisor=hypervisor, says=(said,))
        assert row.result is FAILURE
        assert row.detail.endswith(said)


class TestMetadata:
    @pytest.fixture
    def metadata(self, load):
        """Return a function that gives the row for instances by namespace."""

        def metadata(*namespaces, lines=(), states=None):
            instances = [instance(n, namespace=each) for n, each in enumerate(namespaces)]
            hypervisor = model.Hypervisor(
                version='1', domains_by_state=states or {'running': len(namespaces)}
            )
            return host_check.metadata(load(*lines), look(*instances, hypervisor=hypervisor))

        return metadata

    def test_both_namespaces_are_counted(self, metadata):
        row = metadata('1.0', '1.1', '1.1')
        assert row.result is OK
        assert row.detail == '3 of 3 domains: 1 of namespace 1.0, 2 of namespace 1.1'

    def test_guest_beside_nova_is_only_told(self, metadata):
        row = metadata('1.1', '')
        assert row.result is INFO
        assert row.detail.endswith('the others are shown without project and user')

    def test_no_metadata_at_all_is_a_warning(self, metadata):
        assert metadata('', '').result is WARNING

    def test_skipped_guests_count_as_domains(self, metadata):
        row = metadata(
            '1.1',
            lines=('[collector]', 'without_nova_metadata = skip'),
            states={'running': 3, 'incoming': 1},
        )
        assert row.detail == '1 of 3 domains: 1 of namespace 1.1; the others are left out'


# --- what we may use ----------------------------------------------------------


@contextlib.contextmanager
def serving(listener):
    """Run a web server of ours; gives its address."""
    server = web.Server([listener])
    server.start()
    try:
        yield server.addresses[0]
    finally:
        server.stop(2.0)


def answering(status_code, text):
    response = web.Response(status=status_code, body=text.encode())
    return {'GET': web.Route(lambda _request: response)}


class TestEndpoint:
    @staticmethod
    def row(port, host='127.0.0.1'):
        return host_access.endpoint(host_access.config.Endpoint(host, port))

    def test_free_address_is_all_right(self):
        row = self.row(free_port())
        assert (row.result, row.detail) == (OK, 'free; no exporter runs there')

    @pytest.mark.parametrize(
        ('code', 'text', 'result', 'detail'),
        [
            (200, 'ok', OK, 'an exporter runs and is ready'),
            (503, 'no cycle\n', WARNING, 'an exporter runs and is not ready: no cycle'),
        ],
    )
    def test_running_exporter_is_asked_whether_it_is_ready(self, code, text, result, detail):
        routes = {'/readyz': answering(code, text)}
        with serving(web.TcpListener('127.0.0.1', 0, routes)) as address:
            row = self.row(int(address.rpartition(':')[2]))
        assert (row.result, row.detail) == (result, detail)

    def test_everywhere_is_asked_over_the_loopback(self):
        with serving(web.TcpListener('0.0.0.0', 0, {'/readyz': answering(200, 'ok')})) as address:
            row = self.row(int(address.rpartition(':')[2]), '0.0.0.0')
        assert row.result is OK

    def test_silent_program_on_the_port_is_a_failure(self, monkeypatch):
        monkeypatch.setattr(host_access, 'SECONDS', 0.1)
        with socket.create_server(('127.0.0.1', 0)) as server:
            row = self.row(server.getsockname()[1])
        assert row.result is FAILURE
        assert 'does not answer as oie does: timed out' in row.detail

    def test_other_program_on_the_port_is_a_failure(self):
        with socket.create_server(('127.0.0.1', 0)) as server:
            threading.Thread(target=_answer_once, args=(server,), daemon=True).start()
            row = self.row(server.getsockname()[1])
        assert (row.result, row.detail) == (FAILURE, 'taken by another program: nginx')

    def test_address_of_another_host_is_a_failure_at_once(self):
        row = self.row(9120, '192.0.2.1')
        assert row.result is FAILURE
        assert row.detail == 'an exporter could not listen: Cannot assign requested address'


def _answer_once(server):
    connection, _ = server.accept()
    with connection:
        connection.recv(1000)
        connection.sendall(b'HTTP/1.1 404 Not Found\r\nServer: nginx\r\nContent-Length: 0\r\n\r\n')


class TestPollsters:
    @staticmethod
    def ask(path, routes, **more):
        with serving(web.UnixListener(str(path), routes, **more)):
            return host_access.ask_pollsters(str(path), LISTS)

    def test_running_exporter_answers_for_every_list(self, tmp_path):
        routes = {f'/pollsters/{name}': answering(200, '[{}, {}]') for name in LISTS}
        answers = self.ask(tmp_path / 'oie.sock', routes)
        row = host_access.pollsters(answers, None, {})
        assert row.result is OK
        assert row.detail.startswith('the exporter gives 2 instances, 2 disks, 2 vnics in 0.0')

    def test_exporter_that_has_no_answer_is_a_warning_with_its_reason(self, tmp_path):
        routes = {'/pollsters/instances': answering(503, 'libvirt was last read 90 s ago\n')}
        row = host_access.pollsters(self.ask(tmp_path / 'oie.sock', routes), None, {})
        assert row.result is WARNING
        assert row.detail.endswith('libvirt was last read 90 s ago')

    def test_exporter_that_refuses_us_leads_to_the_group(self, tmp_path):
        answers = self.ask(tmp_path / 'oie.sock', {}, authorize=lambda _peer: False)
        row = host_access.pollsters(answers, None, {})
        assert row.result is WARNING
        assert 'socket_group' in row.advice

    def test_answer_that_is_no_json_is_a_warning(self, tmp_path):
        routes = {f'/pollsters/{name}': answering(200, 'sorry') for name in LISTS}
        row = host_access.pollsters(self.ask(tmp_path / 'oie.sock', routes), None, {})
        assert row.result is WARNING

    def test_socket_file_that_nobody_serves_is_no_exporter(self, tmp_path):
        path = str(tmp_path / 'oie.sock')
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(path)
        assert host_access.ask_pollsters(path, LISTS) == host_access.Answers()
        assert host_access.ask_pollsters('', LISTS) == host_access.Answers()


class TestPlaces:
    def test_missing_directories_will_be_made(self, load):
        conf = load()
        assert host_access.suspects(conf).result is OK
        assert host_access.socket_place(conf, is_served=False).result is OK

    def test_places_we_may_not_write_stop_the_exporter(self, load, monkeypatch):
        monkeypatch.setattr(os, 'access', lambda *_: False)
        conf = load()
        assert host_access.suspects(conf).result is FAILURE
        assert host_access.socket_place(conf, is_served=False).result is FAILURE

    def test_suspects_in_a_directory_we_may_not_write_are_only_forgotten(
        self, load, monkeypatch, tmp_path
    ):
        (tmp_path / 'run').mkdir()
        monkeypatch.setattr(os, 'access', lambda *_: False)
        row = host_access.suspects(load())
        assert row.result is WARNING
        assert f'install -d -o USER {tmp_path}/run' in row.advice

    def test_socket_that_is_served_needs_no_rights_of_ours(self, load, monkeypatch):
        monkeypatch.setattr(os, 'access', lambda *_: False)
        assert host_access.socket_place(load(), is_served=True).result is OK

    def test_places_that_are_switched_off_are_told(self, load):
        conf = load('suspects_path =', '[exporter]', 'socket_path =')
        assert host_access.suspects(conf).result is INFO
        assert host_access.socket_place(conf, is_served=False).result is INFO

    def test_group_that_is_missing_is_a_failure(self, load):
        row = host_access.socket_group(load('[exporter]', 'socket_group = no-such-group'))
        assert (row.result, row.detail) == (FAILURE, 'there is no group no-such-group')

    @pytest.mark.parametrize('name', ['root', '0'])
    def test_group_is_known_by_name_and_number(self, name, load, monkeypatch):
        monkeypatch.setattr(os, 'geteuid', lambda: 0)
        row = host_access.socket_group(load('[exporter]', f'socket_group = {name}'))
        assert row.result is OK
        assert row.detail.startswith('root (gid 0)')

    def test_group_that_we_are_not_in_cannot_get_the_socket(self, load, monkeypatch):
        for name, answer in (('geteuid', 4711), ('getegid', 4711), ('getgroups', [4711])):
            monkeypatch.setattr(os, name, lambda answer=answer: answer)
        row = host_access.socket_group(load('[exporter]', 'socket_group = root'))
        assert row.result is FAILURE
        assert 'usermod -a -G root' in row.advice


class TestKernel:
    @pytest.fixture
    def schedstats(self, load, monkeypatch, tmp_path):
        """Return a function that gives the row for what the kernel and the options say."""

        def schedstats(value, optional=''):
            path = tmp_path / 'sched_schedstats'
            path.write_text(f'{value}\n')
            monkeypatch.setattr(host_access, 'SCHEDSTATS', str(path))
            monkeypatch.setattr(host_access, 'RESCTRL', str(tmp_path / 'nothing'))
            found = host_access.kernel(load('[collector]', f'optional = {optional}'))
            return {row.check: row for row in found}

        return schedstats

    def test_feature_is_information(self, schedstats):
        assert schedstats(1)['Kernel: sched_schedstats'].detail.startswith('on;')
        off = schedstats(0)
        assert {row.result for row in off.values()} == {INFO}

    def test_feature_that_an_option_needs_and_the_kernel_lacks_is_a_warning(self, schedstats):
        found = schedstats(0, 'vcpu_wait,memory_bandwidth')
        assert [row.result for row in found.values()] == [WARNING, WARNING]
        assert 'memory_bandwidth' in found['Kernel: resctrl'].detail
        assert 'cache_occupancy' not in found['Kernel: resctrl'].detail


# --- the program --------------------------------------------------------------


class TestCommandLine:
    @pytest.mark.parametrize(
        ('argv', 'message'),
        [
            ((), 'the following arguments are required: COMMAND, check'),
            (('guest', 'check'), "invalid choice: 'guest'"),
            (('host', 'check', '--verbose'), 'unrecognized arguments: --verbose'),
        ],
    )
    def test_wrong_command_line_is_one_line_and_status_2(self, argv, message, capsys):
        with pytest.raises(SystemExit) as left:
            status.run(argv)
        printed = capsys.readouterr()
        assert left.value.code == 2
        assert (printed.out, printed.err.count('\n')) == ('', 1)
        assert message in printed.err

    def test_help_tells_commands_files_and_exit_status(self, capsys):
        with pytest.raises(SystemExit) as left:
            status.run(['--help'])
        text = capsys.readouterr().out
        assert not left.value.code
        for expected in ('host check', 'upgrade check', '/etc/oie/oie.conf', '255'):
            assert expected in text

    def test_wrong_option_is_the_only_row_and_status_2(self, write, capsys):
        path = write('[collector]', 'interval = 0s')
        assert status.run(['host', 'check', '--json', '--config-file', path]) == 2
        (check,) = json.loads(capsys.readouterr().out)['checks']
        assert check['result'] == 'FAILURE'
        assert f'{path}:8: [collector] interval = 0s' in check['details']

    def test_something_unexpected_is_status_255(self, monkeypatch, capsys):
        monkeypatch.setattr(wiring, 'load', lambda *_: 1 / 0)
        assert status.run(['host', 'check']) == 255
        assert 'ZeroDivisionError' in capsys.readouterr().err


class TestUpgradeCheck:
    def test_good_configuration_is_a_success(self, write, capsys):
        assert status.run(['upgrade', 'check', '--config-file', write()]) == 0
        assert capsys.readouterr().out.count('Success') == 2

    def test_wrong_configuration_is_a_failure(self, write, capsys):
        path = write('[collector]', 'colour = red')
        assert status.run(['--config-file', path, 'upgrade', 'check', '--json']) == 2
        checks = json.loads(capsys.readouterr().out)['checks']
        assert [check['result'] for check in checks] == [2, 0]
        assert 'colour' in checks[0]['details']

    @pytest.mark.parametrize(
        ('lines', 'named'),
        [
            (('[exporter]', 'web_config_file = /nowhere/web.yml'), '/nowhere/web.yml'),
            (('[threats]', 'enabled_feeds = mine'), 'feed_mine'),
            (
                (
                    '[threats]',
                    'enabled_feeds = emergingthreats',
                    '[feed_emergingthreats]',
                    'refresh = 1m',
                ),
                'min_interval',
            ),
            (
                ('[netns]', 'enabled = true', 'netns_exporter_config = /nowhere/netns.yml'),
                '/nowhere/netns.yml',
            ),
        ],
    )
    def test_what_ends_the_daemon_at_its_start_is_a_failure(self, write, capsys, lines, named):
        arguments = ['upgrade', 'check', '--json', '--config-file', write(*lines)]
        assert status.run(arguments) == 2
        check = json.loads(capsys.readouterr().out)['checks'][0]
        assert check['result'] == 2
        assert named in check['details']

    def test_old_name_of_an_option_is_a_warning(self, write, tmp_path, capsys):
        path = write('[DEFAULT]', f'logfile = {tmp_path}/oie.log')
        assert status.run(['upgrade', 'check', '--json', f'--config-file={path}']) == 1
        check = json.loads(capsys.readouterr().out)['checks'][1]
        assert check['details'] == (
            f'{path}:8: [DEFAULT] logfile is an old name; write [DEFAULT] log_file'
        )

    def test_option_that_will_be_removed_is_a_warning(self, write, monkeypatch):
        (option,) = [
            opt
            for group, opts in status.config.OPTS
            if group is not None and group.name == 'collector'
            for opt in opts
            if opt.dest == 'cpu_min'
        ]
        monkeypatch.setattr(option, 'deprecated_for_removal', True)
        monkeypatch.setattr(option, 'deprecated_reason', 'Nobody\nneeds it.')
        (sentence,) = status.deprecated([f'--config-file={write("[collector]", "cpu_min = 5")}'])
        assert sentence.endswith('[collector] cpu_min will be removed: Nobody needs it.')

    def test_something_unexpected_is_status_255(self, monkeypatch, capsys):
        monkeypatch.setattr(wiring, 'load', lambda *_: 1 / 0)
        assert status.run(['upgrade', 'check']) == 255
        assert 'ZeroDivisionError' in capsys.readouterr().out


@needs_libvirt
class TestProgram:
    """The program itself, over libvirt's own test driver."""

    @staticmethod
    def run(*argv):
        command = [sys.executable, '-m', 'oie.cmd.status', *argv]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    @pytest.mark.parametrize('is_first', [True, False])
    def test_options_may_come_before_and_after_the_command(self, is_first, write):
        named = ('--config-file', write())
        command = (*named, 'host', 'check') if is_first else ('host', 'check', *named)
        ended = self.run(*command, '--json')
        assert (ended.returncode, ended.stderr) == (0, '')
        found = {each['check']: each for each in json.loads(ended.stdout)['checks']}
        assert '4 active domains (4 running)' in found['libvirt']['details']
        assert found['Statistics']['details'] == '4 of 4 domains complete'
        assert found['Nova metadata']['details'].startswith('3 of 4 domains')
        assert found['Pollsters']['details'].endswith('3 instances, 4 disks, 4 vnics')

    def test_table_is_printed(self, write):
        ended = self.run('host', 'check', '--config-file', write())
        assert ended.returncode == 0
        assert '| Check ' in ended.stdout
        assert '| What to do ' in ended.stdout

    def test_unreachable_libvirt_is_status_2(self, write, tmp_path):
        path = write(f'uri = qemu:///system?socket={tmp_path}/nothing')
        ended = self.run('host', 'check', '--json', '--config-file', path)
        assert (ended.returncode, ended.stderr) == (2, '')
        assert 'cannot open a connection to libvirt' in ended.stdout

    def test_running_exporter_is_found(self, write):
        path = write('[ledger]', 'enabled = false')
        conf = wiring.load(['--config-file', path], status.PROG)
        with running_exporter(path, conf.exporter.listen_address[0]):
            ended = self.run('host', 'check', '--json', '--config-file', path)
        found = {each['check']: each for each in json.loads(ended.stdout)['checks']}
        assert ended.returncode == 0
        assert found[f'Endpoint {conf.exporter.listen_address[0]}']['details'] == (
            'an exporter runs and is ready'
        )
        assert found['Pollsters']['details'].startswith(
            'the exporter gives 3 instances, 4 disks, 4 vnics'
        )
        assert found['Socket']['details'].endswith('is served by an exporter')


@contextlib.contextmanager
def running_exporter(path, address):
    """Run oie-exporter until the block ends; it is ready when the block begins."""
    command = [sys.executable, '-m', 'oie.cmd.exporter', '--config-file', path]
    with subprocess.Popen(command) as process:
        try:
            deadline = time.monotonic() + 20
            while not _is_ready(f'http://{address}/readyz'):
                assert process.poll() is None, 'the exporter has ended'
                assert time.monotonic() < deadline, 'the exporter is not ready'
                time.sleep(0.05)
            yield
        finally:
            process.terminate()


def _is_ready(url):
    try:
        urllib.request.urlopen(url, timeout=2).close()  # noqa: S310
    except (OSError, urllib.error.HTTPError):
        return False
    return True
