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

"""The service as systemd and logrotate see it: units, notices, signals, sockets, rotation."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import concurrent.futures
import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

from tests import machine
from tests.functional import exporter as exporters
from tests.functional import processes

ROOT = pathlib.Path(__file__).parents[2]
UNITS = ROOT / 'etc/systemd'
ROTATION = ROOT / 'etc/logrotate.d/oie'
# The test driver of libvirt: no daemon, no guests that could end.
URI = f'test://{ROOT}/etc/oie/demo/node.xml'
MOST_EXPOSURE = 3.5
LOADED = 'oie_exporter_config_last_reload_success_timestamp_seconds'
# Clients that have lines written to the log at once, and how often it is rotated meanwhile.
WRITERS, ROTATIONS = 3, 8

Program = Callable[[str], str]


@pytest.fixture
def program() -> Program:
    """Return the path of a program that bindep names."""

    def find(name: str) -> str:
        path = processes.find_program(name)
        if path is None:
            machine.give_up(f'{name} is not installed (bindep test)')
        return path

    return find


@pytest.fixture
def exporter(tmp_path: pathlib.Path) -> Iterator[exporters.Exporter]:
    settings = {
        'DEFAULT': {'log_file': tmp_path / 'oie.log'},
        'conntrack': {'enabled': 'false'},
        'ledger': {'enabled': 'false'},
    }
    with exporters.Exporter(URI, settings) as running:
        yield running


# --- units ------------------------------------------------------------------


@pytest.fixture
def units(tmp_path: pathlib.Path) -> pathlib.Path:
    """Return a directory with the units, whose program is the one that is tested."""
    for source in UNITS.iterdir():
        text = re.sub(
            '^ExecStart=.*',
            f'ExecStart={exporters.BIN}/oie-exporter',
            source.read_text(),
            flags=re.M,
        )
        (tmp_path / source.name).write_text(text)
    return tmp_path


def test_units_are_what_systemd_understands(units: pathlib.Path, program: Program) -> None:
    names = sorted(str(path) for path in units.iterdir())
    done = subprocess.run(
        (program('systemd-analyze'), 'verify', '--man=no', *names),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if 'oie-exporter' in line]
    assert (done.returncode, ours) == (0, [])
    assert len(names) == 2


@pytest.mark.parametrize('more', ['', ' CAP_NET_RAW CAP_SYS_ADMIN'])
def test_service_is_hardened(units: pathlib.Path, program: Program, more: str) -> None:
    unit = units / 'oie-exporter.service'
    unit.write_text(unit.read_text().replace('=CAP_NET_ADMIN', f'=CAP_NET_ADMIN{more}'))
    told = processes.run(program('systemd-analyze'), 'security', '--offline=true', str(unit))
    exposure = re.search(r'exposure level for oie-exporter.service: ([0-9.]+)', told)
    assert exposure is not None
    assert float(exposure[1]) <= MOST_EXPOSURE


# --- notifications ----------------------------------------------------------


def test_service_manager_hears_of_all_that_happens(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / 'notify'))
        manager.settimeout(10)
        monkeypatch.setenv('NOTIFY_SOCKET', str(tmp_path / 'notify'))
        monkeypatch.setenv('WATCHDOG_USEC', '2000000')
        settings = {'conntrack': {'enabled': 'false'}, 'ledger': {'enabled': 'false'}}
        with exporters.Exporter(URI, settings) as exporter:
            first = manager.recv(4096).decode().split('\n')
            ready = exporter.get('/readyz')
            second = [manager.recv(4096).decode() for _ in range(3)]
            seconds = exporter.stop()
            rest = _rest(manager)
    assert first == ['READY=1', 'WATCHDOG_USEC=3000000']
    assert ready == (200, 'ok\n')
    assert sorted(second) == ['STATUS=all is read', 'WATCHDOG=1', 'WATCHDOG=1']
    assert rest[-1] == 'STOPPING=1\nSTATUS=stopping'
    assert seconds < 5


def _rest(manager: socket.socket) -> list[str]:
    manager.settimeout(0.2)
    found = []
    with contextlib.suppress(TimeoutError):
        while True:
            found.append(manager.recv(4096).decode())
    return found


def test_passed_sockets_stand_in_the_place_of_the_configured_ones(
    tmp_path: pathlib.Path, program: Program
) -> None:
    port, path = processes.free_port(), tmp_path / 'passed.sock'
    command = (
        program('systemd-socket-activate'),
        f'--listen=127.0.0.1:{port}',
        f'--listen={path}',
    )
    settings = {'conntrack': {'enabled': 'false'}, 'ledger': {'enabled': 'false'}}
    described = exporters.Exporter(URI, settings)
    config = described.write_config()
    argv = (*command, str(exporters.BIN / 'oie-exporter'), '--config-file', str(config))
    activated = processes.Program(argv, tmp_path / 'log')
    activated.start()
    try:
        processes.wait_for(path.is_socket, 10, 'the passed socket')
        described.port, configured = port, described.port
        processes.wait_for(lambda: described.get('/readyz')[0] == 200, 20, '/readyz')
        assert not described.socket.exists()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(('127.0.0.1', configured), 1)
        assert '200' in _curl('--unix-socket', str(path), 'http://x/pollsters/instances')
    finally:
        activated.stop()
        described.close()
    assert path.is_socket()


def _curl(*arguments: str) -> str:
    """Return the status of an answer."""
    return processes.run('curl', '-s', '-o', '/dev/null', '-w', '%{http_code}', *arguments)


# --- ends -------------------------------------------------------------------


def _start(config: pathlib.Path) -> tuple[int, list[str]]:
    """Return the status of an exporter that must not start, and what it wrote."""
    done = subprocess.run(
        (str(exporters.BIN / 'oie-exporter'), '--config-file', str(config)),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.returncode, done.stderr.splitlines()


def test_second_instance_on_the_same_socket_refuses(exporter: exporters.Exporter) -> None:
    text = exporter.config.read_text()
    other = exporter.directory / 'other.conf'
    other.write_text(text.replace(exporter.address, f'127.0.0.1:{processes.free_port()}'))
    other.write_text(re.sub('^log_file.*', '', other.read_text(), flags=re.M))
    status, lines = _start(other)
    assert status == 1
    assert lines[-1] == (
        f'oie-exporter: {exporter.socket} is served by a running process: stop it or choose '
        'another path'
    )
    assert exporter.get('/healthz') == (200, 'ok\n')


def test_taken_port_ends_with_a_status_of_its_own(exporter: exporters.Exporter) -> None:
    other = exporter.directory / 'other.conf'
    other.write_text(f'[exporter]\nlisten_address = {exporter.address}\nsocket_path =\n')
    status, lines = _start(other)
    assert status == 1
    assert lines[-1].startswith(f'oie-exporter: cannot listen on {exporter.address}: ')


@pytest.mark.parametrize(
    ('text', 'status', 'reason'),
    [
        ('[collector]\ninterval = soon\n', 2, "'soon' is not a duration"),
        ('[exporter]\nlisten_address = 192.0.2.1:9120\n', 1, 'cannot listen on 192.0.2.1:9120'),
        ('[exporter]\nsocket_group = oie-no-such\n', 1, "there is no group 'oie-no-such'"),
        ('[exporter]\nweb_config_file = /nowhere/web.yml\n', 2, 'cannot read /nowhere/web.yml'),
        ('[DEFAULT]\nlog_file = /nowhere/oie.log\n', 2, 'the log cannot be written'),
        ('[conntrack]\nzone_map = nope\n', 2, 'nope'),
    ],
)
def test_what_cannot_be_mended_by_waiting_ends_it_with_a_status_and_one_line(
    text: str, status: int, reason: str, tmp_path: pathlib.Path
) -> None:
    usual = f'[exporter]\nlisten_address = 127.0.0.1:{processes.free_port()}\nsocket_path =\n'
    config = tmp_path / 'oie.conf'
    kept = usual if '[exporter]' not in text else text + f'socket_path = {tmp_path}/oie.sock\n'
    config.write_text(kept if kept != usual else usual + text)
    found, lines = _start(config)
    assert (found, len(lines)) == (status, 1), lines
    assert reason in lines[0]
    assert lines[0].startswith('oie-exporter: ')


# --- signals ----------------------------------------------------------------


def _log_at(directory: pathlib.Path) -> str:
    return (directory / 'oie.log').read_text(encoding='utf-8')


def test_hangup_reloads_the_level_and_names_the_rest(
    exporter: exporters.Exporter, tmp_path: pathlib.Path
) -> None:
    text = exporter.config.read_text()
    changed = text.replace('oie_log_level = info', 'oie_log_level = notice')
    exporter.config.write_text(changed.replace('cpu_min = 0', 'cpu_min = 7'))
    os.kill(exporter.pid, signal.SIGHUP)
    processes.wait_for(lambda: 'need a restart' in _log_at(tmp_path), 10, 'the line')
    assert exporter.get('/debug/log-level') == (200, 'notice\n')
    assert 'restart: [collector] cpu_min\n' in _log_at(tmp_path)
    assert _configuration(exporter.next_scrape()) == (1, 0, 1)

    exporter.config.write_text(f'{text}\n[nonsense]\n')
    os.kill(exporter.pid, signal.SIGHUP)
    processes.wait_for(lambda: 'was not reloaded' in _log_at(tmp_path), 10, 'the refusal')
    assert exporter.get('/debug/log-level') == (200, 'notice\n')
    assert 'unknown section [nonsense]' in _log_at(tmp_path)
    refused = exporter.next_scrape()
    assert _configuration(refused) == (0, 1, 1)

    exporter.config.write_text(text)
    os.kill(exporter.pid, signal.SIGHUP)
    mended = exporter.wait_for(lambda now: _configuration(now) == (1, 1, 0), 'the mended file')
    assert mended.value(LOADED) > refused.value(LOADED)  # type: ignore[operator]


def test_systemd_starts_it_again_when_a_hangup_ended_it_before_it_could_listen() -> None:
    text = (UNITS / 'oie-exporter.service').read_text()
    assert re.search('^RestartForceExitStatus=SIGHUP$', text, re.M)


def _configuration(scrape: exporters.Scrape) -> tuple[float | None, ...]:
    """Return whether the files are right, how often they were not, what waits for a restart."""
    names = ('ok', 'reload_errors_total', 'options_waiting')
    return tuple(scrape.value(f'oie_exporter_config_{name}') for name in names)


def test_report_is_written_without_secrets_while_all_goes_on() -> None:
    settings = {
        'conntrack': {'enabled': 'false'},
        'ledger': {'enabled': 'false'},
        'feed_customlist': {'proxy': 'http://me:hunter2@proxy.example.org:3128'},
    }
    # With a secret in it the file must not be readable by everybody.
    mask = os.umask(0o077)
    try:
        exporter = exporters.Exporter(URI, settings)
        exporter.start()
    finally:
        os.umask(mask)
    with contextlib.closing(exporter):
        os.kill(exporter.pid, signal.SIGUSR2)
        processes.wait_for(lambda: 'Calls in flight' in exporter.log, 10, 'the report')
        report = exporter.log
        assert exporter.get('/healthz') == (200, 'ok\n')
    for expected in (
        'Threads',
        'MainThread',
        'oie-cycle',
        'oie-web',
        'service.py',
        'Configuration',
        'proxy = http://***@proxy.example.org:3128',
        'Sources',
        'libvirt: good, ',
    ):
        assert expected in report, expected
    assert 'hunter2' not in report


# --- rotation ---------------------------------------------------------------


@pytest.mark.parametrize('way', ['nocreate', 'copytruncate'])
def test_rotation_loses_no_line(
    way: str, exporter: exporters.Exporter, tmp_path: pathlib.Path, program: Program
) -> None:
    rotate = _rotation(program, exporter, tmp_path, way)
    for number in range(1, 61):
        asked = f'{exporter.address}/debug/log-level?level=info&ttl={number + 1000}'
        assert processes.run('curl', '-s', '-X', 'POST', asked) == 'info\n'
        if number % 20 == 0:
            processes.run(*rotate)
            if way == 'copytruncate':
                # What is written between copy and truncation is lost, as logrotate says.
                time.sleep(0.1)

    assert _numbers(tmp_path) == [number + 1000 for number in range(1, 61)]


def _rotation(
    program: Program, exporter: exporters.Exporter, directory: pathlib.Path, way: str
) -> tuple[str, ...]:
    """Return the command that rotates the log of the exporter as our file says."""
    directory.chmod(0o750)
    config = directory / 'rotation'
    text = ROTATION.read_text()
    # Ours in place of what belongs to an installed service.
    text = text.replace('/var/log/oie/*.log', f'{directory}/oie.log')
    text = text.replace('su oie oie', 'su root root').replace('nocreate', way)
    text = text.replace('rotate 14', 'rotate 1000')
    text = re.sub('systemctl kill .*', f'kill -HUP {exporter.pid}', text)
    config.write_text(text)
    config.chmod(0o644)
    return (program('logrotate'), '--force', '--state', str(directory / 'state'), str(config))


def _numbers(directory: pathlib.Path) -> list[int]:
    """Return the numbers of all lines of all logs."""
    lines = processes.run('sh', '-c', f'cat {directory}/oie.log; zcat -f {directory}/oie.log.*')
    return sorted(int(number) for number in re.findall(r'info for (\d+) s by', lines))


def test_rotation_by_renaming_loses_no_line_under_load(
    exporter: exporters.Exporter, tmp_path: pathlib.Path, program: Program
) -> None:
    rotate = _rotation(program, exporter, tmp_path, 'nocreate')
    ending = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(WRITERS) as pool:
        try:
            numbers = (range(first, 86400, WRITERS) for first in range(2000, 2000 + WRITERS))
            writing = [pool.submit(_write_lines, exporter, each, ending) for each in numbers]
            for _ in range(ROTATIONS):
                # Less seldom than every 100 MB, by far.
                time.sleep(0.3)
                processes.run(*rotate)
        finally:
            ending.set()
        written = [number for future in writing for number in future.result()]
    assert len(written) > 10 * ROTATIONS
    assert _numbers(tmp_path) == sorted(written)
    assert len(list(tmp_path.glob('oie.log*'))) == ROTATIONS + 1


def _write_lines(
    exporter: exporters.Exporter, numbers: Iterable[int], ending: threading.Event
) -> list[int]:
    """Have a line written for each number until the end; return those that were."""
    written = []
    with contextlib.closing(exporter.connection()) as connection:
        for number in numbers:
            if ending.is_set():
                break
            connection.request('POST', f'/debug/log-level?level=info&ttl={number}')
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b'info\n')
            written.append(number)
    return written


def test_truncated_log_is_written_on_from_its_beginning(
    exporter: exporters.Exporter, tmp_path: pathlib.Path, program: Program
) -> None:
    rotate = _rotation(program, exporter, tmp_path, 'copytruncate')
    never = threading.Event()
    for _ in range(3):
        _write_lines(exporter, range(2000, 2040), never)
        processes.run(*rotate)
        _write_lines(exporter, range(2000, 2003), never)
        # Where it was would be behind a hole of zeros.
        assert '\0' not in _log_at(tmp_path)


def test_rotation_file_is_right(program: Program, tmp_path: pathlib.Path) -> None:
    config = tmp_path / 'rotation'
    config.write_text(ROTATION.read_text().replace('su oie oie', 'su root root'))
    config.chmod(0o644)
    done = subprocess.run(
        (program('logrotate'), '--debug', '--state', str(tmp_path / 'state'), str(config)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert 'error:' not in done.stderr
