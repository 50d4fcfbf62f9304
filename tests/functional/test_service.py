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
from collections.abc import Iterator
import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

import pytest

from tests.functional import exporter as exporters
from tests.functional import processes

ROOT = pathlib.Path(__file__).parents[2]
UNITS = ROOT / 'etc/systemd'
ROTATION = ROOT / 'etc/logrotate.d/oie'
# The test driver of libvirt: no daemon, no guests that could end.
URI = f'test://{ROOT}/etc/oie/demo/node.xml'
MOST_EXPOSURE = 3.5

Program = Callable[[str], str]


@pytest.fixture
def program() -> Program:
    """Return the path of a program that bindep names."""

    def find(name: str) -> str:
        path = processes.find_program(name)
        if path is None:
            give_up = pytest.fail if os.environ.get('OIE_REQUIRE_LAB') == '1' else pytest.skip
            give_up(f'{name} is not installed (bindep test)')
        return str(path)

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

    exporter.config.write_text(f'{text}\n[nonsense]\n')
    os.kill(exporter.pid, signal.SIGHUP)
    processes.wait_for(lambda: 'was not reloaded' in _log_at(tmp_path), 10, 'the refusal')
    assert exporter.get('/debug/log-level') == (200, 'notice\n')
    assert 'unknown section [nonsense]' in _log_at(tmp_path)


def test_report_is_written_while_all_goes_on(exporter: exporters.Exporter) -> None:
    os.kill(exporter.pid, signal.SIGUSR2)
    processes.wait_for(lambda: 'Calls in flight' in exporter.log, 10, 'the report')
    assert 'oie-cycle' in exporter.log
    assert exporter.get('/healthz') == (200, 'ok\n')


# --- rotation ---------------------------------------------------------------


@pytest.mark.parametrize('way', ['nocreate', 'copytruncate'])
def test_rotation_loses_no_line(
    way: str, exporter: exporters.Exporter, tmp_path: pathlib.Path, program: Program
) -> None:
    tmp_path.chmod(0o750)
    config = tmp_path / 'rotation'
    text = ROTATION.read_text()
    # Ours in place of what belongs to an installed service.
    text = text.replace('/var/log/oie/*.log', f'{tmp_path}/oie.log')
    text = text.replace('su oie oie', 'su root root').replace('nocreate', way)
    text = re.sub('systemctl kill .*', f'kill -HUP {exporter.pid}', text)
    config.write_text(text)
    config.chmod(0o644)
    rotate = (program('logrotate'), '--force', '--state', str(tmp_path / 'state'), str(config))

    for number in range(1, 61):
        asked = f'{exporter.address}/debug/log-level?level=info&ttl={number + 1000}'
        assert processes.run('curl', '-s', '-X', 'POST', asked) == 'info\n'
        if number % 20 == 0:
            processes.run(*rotate)
            if way == 'copytruncate':
                # What is written between copy and truncation is lost, as logrotate says.
                time.sleep(0.1)

    lines = processes.run('sh', '-c', f'cat {tmp_path}/oie.log; zcat -f {tmp_path}/oie.log.*')
    numbers = sorted(int(number) for number in re.findall(r'info for (\d+) s by', lines))
    assert numbers == [number + 1000 for number in range(1, 61)]


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
