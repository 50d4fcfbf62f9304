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

"""The Ansible role, by the real ansible-core, on hosts that are this machine's root under a copy.

Wheels of this tree are installed by the hosts' own Python and pip, without a network.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import configparser
import contextlib
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
from typing import Any

import bcrypt
from oslo_config import cfg
import pytest
import yaml

from oie.cmd import wiring
from oie.web import web_file
from tests.functional import ansible_root
from tests.functional import processes

PREFIX = f'{ansible_root.ROLE}_'
ROLE = ansible_root.ROLES / ansible_root.ROLE
REFERENCE = ansible_root.TOP / 'tests/data/ansible/reference_variables.txt'
OLD, NEW = '1.0.0', '2.0.0'
#: Where the hosts have the wheels of everything that oie needs.
WHEELS = '/srv/wheels'
#: bcrypt of "secret", cost 4.
HASH = '$2b$04$aaaaaaaaaaaaaaaaaaaaa.' + 'b' * 31

# The first test of a run makes wheels, which compiles the binding of libvirt.
pytestmark = pytest.mark.timeout(600)

Apply = Callable[..., ansible_root.Played]
Installed = tuple[ansible_root.Host, ansible_root.Played, list[str]]


# --- hosts --------------------------------------------------------------------


@pytest.fixture(scope='module')
def wheels(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Return a directory with two versions of oie and, in another one, what they need."""
    top = tmp_path_factory.mktemp('wheels')
    source = top / 'source'
    ignored = shutil.ignore_patterns('__pycache__', '*.pyc')
    for name in ('oie', 'etc'):
        shutil.copytree(ansible_root.TOP / name, source / name, ignore=ignored)
    for name in ('setup.py', 'setup.cfg', 'pyproject.toml', 'README.rst', 'LICENSE'):
        shutil.copy(ansible_root.TOP / name, source)
    shutil.copy(ansible_root.TOP / 'requirements.txt', source)
    processes.run('/usr/bin/python3', '-m', 'venv', str(top / 'venv'))
    for version in (OLD, NEW):
        _pip(top, '--no-deps', '-w', str(top), str(source), PBR_VERSION=version)
    _pip(top, '-w', str(top / 'needed'), '-r', str(source / 'requirements.txt'))
    return top


def _pip(top: pathlib.Path, *arguments: str, **variables: str) -> None:
    done = subprocess.run(
        (str(top / 'venv/bin/python'), '-m', 'pip', '-q', 'wheel', *arguments),
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope='module')
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ansible_root.Store]:
    made = ansible_root.Store(tmp_path_factory.mktemp('store'))
    yield made
    made.close()


@pytest.fixture(scope='module')
def installed(
    store: ansible_root.Store, wheels: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> Installed:
    """Return a host on which the role was applied once, closed, how that went, and its calls."""
    made = ansible_root.Host(store, 'installed')
    shutil.copytree(wheels / 'needed', made.outside('/srv') / 'wheels')
    shutil.copy(_wheel(wheels, NEW), made.outside(WHEELS))
    played = ansible_root.apply(made, tmp_path_factory.mktemp('first'), _variables(wheels))
    calls = made.take_calls()
    made.close()
    assert not played.failed, played.output
    return made, played, calls


@pytest.fixture
def host(
    store: ansible_root.Store,
    installed: Installed,
    tmp_path: pathlib.Path,
) -> Iterator[ansible_root.Host]:
    """Return a host with the old version; what a test does to it ends with the test."""
    made = ansible_root.Host(store, tmp_path.name, installed[0])
    yield made
    made.close()


@pytest.fixture
def fresh(store: ansible_root.Store, tmp_path: pathlib.Path) -> Iterator[ansible_root.Host]:
    """Return a host without an exporter."""
    made = ansible_root.Host(store, f'fresh-{tmp_path.name}')
    yield made
    made.close()


@pytest.fixture
def apply(wheels: pathlib.Path, tmp_path: pathlib.Path) -> Apply:
    """Apply the role to a host: variables that differ from those of the first time, arguments."""

    def call(
        host: ansible_root.Host, variables: Mapping[str, object] | None = None, *arguments: str
    ) -> ansible_root.Played:
        every = {**_variables(wheels), **(variables or {})}
        return ansible_root.apply(host, tmp_path, every, *arguments)

    return call


def _wheel(wheels: pathlib.Path, version: str) -> pathlib.Path:
    return wheels / f'oie-{version}-py3-none-any.whl'


def _digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _variables(wheels: pathlib.Path) -> dict[str, object]:
    wheel = _wheel(wheels, OLD)
    return {
        'enabled': True,
        'version': f'v{OLD}',
        'wheel': str(wheel),
        'sha256': _digest(wheel),
        'pip_extra_args': ['--no-index', f'--find-links={WHEELS}'],
        # What the machine lacks could not be fetched.
        'packages': [],
    }


#: The new version from the "index", with what the old one needs: seconds instead of half a minute.
_UPGRADE = {
    'version': NEW,
    'wheel': '',
    'sha256': '',
    'site_packages': True,
    'pip_extra_args': ['--no-index', f'--find-links={WHEELS}'],
}


def _lend_libraries(host: ansible_root.Host) -> None:
    """Let the system's Python see what the old version needs, as packages of the system would."""
    host.sh(
        'cd /opt/oie/releases/*/lib/python3*/site-packages && echo "$PWD" '
        '>/usr/lib/python3/dist-packages/oie-libraries.pth'
    )


def _options(host: ansible_root.Host, directory: pathlib.Path) -> cfg.ConfigOpts:
    """Return what our own strict parser reads from the host's files."""
    copies = directory / 'etc'
    shutil.copytree(host.outside('/etc/oie'), copies)
    more = sorted((copies / 'oie.conf.d').glob('*.conf'))
    arguments = [f'--config-file={path}' for path in (copies / 'oie.conf', *more)]
    return wiring.load(arguments, 'oie-exporter')


# --- install ------------------------------------------------------------------


def test_example_of_the_readme_works_on_a_fresh_host_in_check_mode_and_touches_nothing(
    fresh: ansible_root.Host, apply: Apply
) -> None:
    before = fresh.written()
    [example] = yaml.safe_load(re.findall('```yaml\n(- hosts.*?)```', _readme(), re.S)[0])
    variables = {name.removeprefix(PREFIX): value for name, value in example['vars'].items()}
    played = apply(fresh, {**variables, 'version': OLD}, '--check', '--diff')
    assert not played.failed, played.output
    assert 'Write the options that have variables' in played.changed
    assert 'Switch to the release' in played.changed
    assert fresh.written() == before
    assert fresh.take_calls() == []


def test_disabled_means_that_the_host_is_not_even_looked_at(
    fresh: ansible_root.Host, tmp_path: pathlib.Path
) -> None:
    before = fresh.written()
    # It is by default.
    played = ansible_root.apply(fresh, tmp_path, {'cpu_min': 3})
    assert not played.failed, played.output
    # The check of the types, on the controller.
    assert played.recap['ok'] == 1
    assert played.recap['changed'] == 0
    assert fresh.written() == before


def test_install_makes_a_service_that_runs_without_root(
    host: ansible_root.Host, installed: Installed
) -> None:
    _, played, calls = installed
    assert calls == [
        'daemon-reload',
        'start oie-exporter.service',
        'enable oie-exporter.service',
    ]
    assert played.changed.count('Restart oie-exporter') == 1
    assert host.version == OLD
    unit = (ansible_root.TOP / 'etc/systemd/oie-exporter.service').read_text()
    assert host.read('/etc/systemd/system/oie-exporter.service') == unit
    assert not host.outside('/etc/systemd/system/oie-exporter.service.d').exists()
    assert host.sh('readlink /usr/local/bin/oie-pollster') == '/opt/oie/bin/oie-pollster\n'
    assert host.sh('getent passwd oie').strip().endswith(':/nonexistent:/usr/sbin/nologin')
    paths = ('/etc/oie', '/etc/oie/oie.conf.d', '/etc/oie/oie.conf', '/opt/oie')
    assert [host.owner(path) for path in paths] == [
        'root:oie 750',
        'root:oie 750',
        'root:oie 640',
        'root:root 755',
    ]
    # The umask of whoever ran Ansible was 077.
    assert host.sh('find /opt/oie ! -type l ! -perm -o+r') == ''
    assert not host.outside('/opt/oie/.staging').exists()


def test_second_run_changes_nothing_and_a_check_shows_what_would_change(
    host: ansible_root.Host, apply: Apply
) -> None:
    before = host.written()
    played = apply(host)
    assert not played.failed, played.output
    assert (played.recap['changed'], played.changed) == (0, ())
    assert host.written() == before
    played = apply(host, {'cpu_min': 2.5}, '--check', '--diff')
    assert not played.failed, played.output
    assert played.changed == ('Write the options that have variables', 'Restart oie-exporter')
    assert '+cpu_min = 2.5\n' in played.output
    assert host.written() == before
    assert host.take_calls() == []


# --- releases -----------------------------------------------------------------


def test_upgrade_from_an_index_and_back_to_the_release_that_is_still_there(
    host: ansible_root.Host, apply: Apply, wheels: pathlib.Path
) -> None:
    _lend_libraries(host)
    host.sh(f'cd {WHEELS} && sha256sum *.whl >/srv/sums')
    restarted = ['daemon-reload', 'restart oie-exporter.service']
    played = apply(host, {**_UPGRADE, 'sha256': 'file:///srv/sums'})
    assert not played.failed, played.output
    assert (host.version, host.take_calls()) == (NEW, restarted)
    assert len(_releases(host)) == 2

    played = apply(host, {'keep_releases': 1})
    assert not played.failed, played.output
    assert (host.version, host.take_calls()) == (OLD, restarted)
    assert played.changed == (
        'Switch to the release',
        'Compare with what the exporter was started with',
        'Restart oie-exporter',
        'Remove the oldest releases',
    )
    [release] = _releases(host)
    assert release.startswith(f'{OLD}-')


def _releases(host: ansible_root.Host) -> list[str]:
    return host.sh('ls /opt/oie/releases').split()


def test_release_that_cannot_be_had_leaves_the_old_one_running(
    host: ansible_root.Host, wheels: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    host.sh(
        f"""cd {WHEELS} && echo "{'0' * 64}  oie-{NEW}-py3-none-any.whl" >/srv/sums
        cp oie-{NEW}-py3-none-any.whl oie-3.0.0-py3-none-any.whl
        mkdir -p /srv/manual/bin
        printf '#!/bin/sh\\necho 3.8 0 venv ensurepip\\n' >/srv/python-old
        printf '#!/bin/sh\\necho 3.11 0 venv\\n' >/srv/python-bare
        chmod +x /srv/python-*
        mv /etc/logrotate.d /srv
        printf '[threats]\\nenabled_feeds = tor_exit\\n' >/etc/oie/oie.conf.d/10-own.conf
        chmod 644 /etc/oie/oie.conf.d/10-own.conf"""
    )
    _make_certificates(host)
    _lend_libraries(host)
    before, releases = host.written(), _releases(host)
    elsewhere = f'file://{WHEELS}/oie-{NEW}-py3-none-any.whl'
    lying = f'file://{WHEELS}/oie-3.0.0-py3-none-any.whl'
    # What the message must hold, and the values that bring it.
    cases: dict[str, dict[str, object]] = {
        'sha256 wants 1111': {**_UPGRADE, 'wheel': elsewhere, 'sha256': '1' * 64},
        'has no line for oie-1.0.0': {'sha256': 'file:///srv/sums'},
        'is oie-2.0.0-py3-none-any.whl, which is not': {'wheel': elsewhere},
        'version 3.0.0 was not installed': {**_UPGRADE, 'version': '3.0.0', 'wheel': lying},
        'ovsdbapp': {**_UPGRADE, 'extras': ['ovn']},
        'nosuch-oie': {'extras': ['x'], 'packages': ['nosuch-oie']},
        'which is no Python here': {'python': '/srv/nosuch'},
        'which is 3.8 here': {'python': '/srv/python-old'},
        'python3-venv': {'python': '/srv/python-bare'},
        'did not make': {'install_dir': '/srv/manual'},
        'no such group': {'socket_group': 'oie-nobody'},
        'this host has no /etc/logrotate.d': {'log_file_enable': True},
        # The new release judges all of it together before anything is replaced.
        'stays: /etc/oie/oie.conf.d/50-role.conf:5: [ledger] kept': {
            'config': {'ledger': {'kept': '1d'}}
        },
    }
    judged: dict[str, dict[str, object]] = {
        '/etc/oie/web.yml: the password of': {'web_config': {'basic_auth_users': {'x': 'secret'}}},
        'cannot read /etc/shadow': {
            'web_config': {'tls_server_config': {**_TLS, 'key_file': '/etc/shadow'}}
        },
        'KEY_VALUES_MISMATCH': {
            'web_config': {'tls_server_config': {**_TLS, 'key_file': '/etc/oie/other.key'}}
        },
        # With what somebody else wrote into that directory.
        '[feed_tor_exit] refresh is shorter': {'tor_exit_refresh': '10m'},
        '[feed_tor_relay] refresh is shorter': {
            'tor_relay_refresh': '10m',
            'config': {'threats': {'enabled_feeds': 'tor_relay'}},
        },
    }
    told = _failures(host, tmp_path, _variables(wheels), [*cases.values()], [*judged.values()])
    parts = (*cases, *judged)
    missing = {
        part: message for part, message in zip(parts, told, strict=True) if part not in message
    }
    assert not missing
    assert host.take_calls() == []
    assert host.written() == before
    # Nor is there anything left in memory.
    assert ansible_root.ROLE not in host.sh('ls /run')
    assert _releases(host) == releases
    assert host.version == OLD


#: What _make_certificates() makes.
_TLS = {'cert_file': '/etc/oie/tls.crt', 'key_file': '/etc/oie/tls.key'}


def _make_certificates(host: ansible_root.Host) -> None:
    """Make a certificate, and another one, with keys that the service may read."""
    host.sh(
        f"""cd /etc/oie && for name in tls other; do
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \\
                -subj /CN=oie -addext subjectAltName=IP:{ansible_root.ADDRESS} \\
                -out $name.crt -keyout $name.key 2>/dev/null
        done
        chgrp oie *.key && chmod 640 *.key && chmod 644 *.crt"""
    )


def test_release_that_cannot_judge_changes_nothing_and_a_broken_one_is_made_anew(
    host: ansible_root.Host, apply: Apply
) -> None:
    # As a program ends that Python could not even load; 1 is also what warnings bring.
    host.sh("printf '#!/bin/sh\necho lost >&2\nexit 1\n' >/opt/oie/current/bin/oie-status")
    before = host.written()
    played = apply(host, {'cpu_min': 3})
    assert played.failed
    assert 'oie-status ended with status 1: lost' in played.output
    assert host.written() == before

    # As the next version of the distribution does it; what was complete is so no more.
    host.sh('cd /opt/oie/current/lib && mv python3.* python3.0')
    assert host.run('/opt/oie/bin/oie-exporter', '--version').returncode != 0
    played = apply(host)
    assert not played.failed, played.output
    assert host.version == OLD
    assert host.take_calls() == ['daemon-reload', 'restart oie-exporter.service']


def test_restart_that_a_failed_run_owes_comes_with_the_next_one(
    host: ansible_root.Host, apply: Apply
) -> None:
    # The configuration is written then, and the directory cannot be made.
    host.sh('touch /etc/systemd/system/oie-exporter.service.d')
    played = apply(host, {'cpu_min': 3, 'service_options': 'MemoryMax=1G'})
    assert played.failed
    assert played.changed == ('Write the options that have variables',)
    assert host.take_calls() == []
    # A restart that fails counts for nothing.
    host.sh(
        'rm /etc/systemd/system/oie-exporter.service.d; mv /usr/bin/systemctl /usr/bin/systemctl.1'
        " && printf '#!/bin/sh\n[ $1 != restart ] && exec systemctl.1 \"$@\"\n' "
        '>/usr/bin/systemctl && chmod 755 /usr/bin/systemctl'
    )
    assert apply(host, {'cpu_min': 3}).failed
    host.sh('mv /usr/bin/systemctl.1 /usr/bin/systemctl')
    host.take_calls()
    played = apply(host, {'cpu_min': 3})
    assert not played.failed, played.output
    assert played.changed == (
        'Compare with what the exporter was started with',
        'Restart oie-exporter',
    )
    assert host.take_calls() == ['daemon-reload', 'restart oie-exporter.service']


def _failures(
    host: ansible_root.Host,
    directory: pathlib.Path,
    usual: Mapping[str, object],
    cases: list[dict[str, Any]],
    judged: Sequence[dict[str, Any]] = (),
) -> list[str]:
    """Return why the role fails with each of the cases in turn; empty where it does not.

    :param judged: more cases, for which only that part of the role runs: it takes a third
    """
    parts = [('main', case) for case in cases] + [('judge', case) for case in judged]
    blocks = [
        {
            'block': [
                {
                    'ansible.builtin.include_role': {
                        'name': ansible_root.ROLE,
                        'tasks_from': part,
                    },
                    'vars': {f'{PREFIX}{name}': value for name, value in case.items()},
                }
            ],
            'rescue': [
                {
                    'ansible.builtin.debug': {
                        'msg': f'CASE {number}: {{{{ ansible_failed_result | to_json }}}}'
                    }
                }
            ],
        }
        for number, (part, case) in enumerate(parts)
    ]
    plays = [
        {
            'hosts': 'all',
            'gather_facts': True,
            'vars': {f'{PREFIX}{name}': value for name, value in usual.items()},
            'tasks': blocks,
        }
    ]
    output = ansible_root.play(host, directory, plays).output
    found = dict(re.findall(r'"msg": "CASE (\d+): (.*)"', output))
    return [found.get(str(number), '') for number in range(len(parts))]


# --- values -------------------------------------------------------------------

#: What Ansible itself finds wrong, by the specification of the role.
_WRONG_TYPES: Mapping[str, tuple[object, ...]] = {
    'enabled': ('perhaps',),
    'bind_port': ('http',),
    'web_config': (['tls'],),
    'cpu_min': ('much',),
    'conntrack_min': (2.5, 'many'),
    'default_write_threshold': ('x',),
    'write_thresholds': ([{'disk_tier': 'local'}],),
    'read_thresholds': ([{'disk_tier': 'local', 'threshold': 'x'}],),
    'contacts_direction': ('sideways', ''),
    'outbound_behavior_enable': ('perhaps',),
    'tor_relay_direction': ('both',),
    'customlist_enable': ('2',),
    'log_level': ('warning',),
}
#: What the role finds wrong.
_WRONG: Mapping[str, tuple[object, ...]] = {
    'version': ('latest', '1.0\n2.0'),
    'sha256': ('abc123', 'http://sums.example.org/sums'),
    'install_dir': ('opt/oie', '/home/oie', '/opt/../oie', '/'),
    'wheel': ('oie.whl', 'ftp://example.org/oie-1.0.0-py3-none-any.whl', '/srv/oie.tar.gz'),
    'python': ('python3',),
    'keep_releases': (0,),
    'web_listen_address': ('9120', '127.0.0.1', '127.0.0.1:0', '127.0.0.1:65536', '::1:9120'),
    'network_interface': ('br monitoring',),
    'bind_port': (0, 65536),
    'web_telemetry_path': ('metrics', '/healthz', '/a/../b'),
    'libvirt_uri': ('qemu', 'qemu:///system\n[threats]'),
    'collection_interval': ('500ms', '2h', '10 s', 'soon', '', '1s1s', '-1'),
    'static_cache_expiration': ('0',),
    'dynamic_cache_expiration': ('1h 30m',),
    'cpu_min': (-1, 'nan'),
    'conntrack_min': (-1,),
    'default_read_threshold': (-1,),
    'read_thresholds': (
        [{'disk_tier': 'a:b', 'threshold': 1}],
        [{'disk_tier': 'a', 'threshold': -1}],
        [{'disk_tier': 'a', 'threshold': 1}, {'disk_tier': 'a', 'threshold': 2}],
    ),
    'tor_exit_refresh': ('5s', '31d'),
    'spamhaus_url': ('drop.txt',),
    'customlist_path': ('list.txt', '/tmp/list.txt'),
    'threat_log_file_path': ('', 'threat.log'),
    'log_file_path': ('', '/home/oie.log', '/var/log/with space'),
    'capabilities': (['NET_ADMIN'],),
    'web_config': ({'tls_server_config': {'cert_file': 'tls.crt', 'key_file': '/root/x'}},),
    'config': ({'ledger': 'x'}, {'ledger': {'keep': '1d\n[threats]'}}, {'a b': {'c': 1}}),
}
#: What is wrong only together, by the variable that is told.
_WRONG_TOGETHER: Mapping[str, dict[str, object]] = {
    'sha256': {'wheel': 'http://example.org/oie-1.0.0-py3-none-any.whl', 'sha256': ''},
    'tor_exit_refresh': {'tor_exit_enable': True, 'tor_exit_refresh': '10m'},
    'tor_relay_url': {'tor_relay_enable': True, 'tor_relay_url': 'http://example.org/x'},
    'spamhaus_ipv6_url': {'spamhaus_enable': 'yes', 'spamhaus_ipv6_url': 'file:///srv/x'},
}


def _rounds(values: Mapping[str, tuple[object, ...]]) -> list[dict[str, object]]:
    """Return the first value of each variable, then the second of those that have one, and so on.

    All that is wrong is told at once, so that few runs of Ansible tell of all.
    """
    most = max(len(each) for each in values.values())
    return [
        {name: each[number] for name, each in values.items() if number < len(each)}
        for number in range(most)
    ]


def test_wrong_value_is_told_by_its_name_before_anything_is_touched(
    host: ansible_root.Host, tmp_path: pathlib.Path, wheels: pathlib.Path
) -> None:
    before = host.written()
    together: dict[str, object] = {}
    for case in _WRONG_TOGETHER.values():
        together.update(case)
    cases = [*_rounds(_WRONG_TYPES), *_rounds(_WRONG), together, {'cpu_mim': 1}]
    names = [set(case) for case in cases]
    names[-2] = set(_WRONG_TOGETHER)
    told = _failures(host, tmp_path, _variables(wheels), cases)
    silent = [
        {name: case[name] for name in wrong if not re.search(rf'{PREFIX}{name}\b', message)}
        for case, wrong, message in zip(cases, names, told, strict=True)
    ]
    assert [each for each in silent if each] == []
    recipes = ('min_interval of [feed_tor_exit]', 'allow_plain_http of', 'allow_file_urls of')
    assert [recipe for recipe in recipes if recipe not in told[-2]] == []
    assert host.written() == before


def test_all_that_is_wrong_is_told_at_once(host: ansible_root.Host, apply: Apply) -> None:
    played = apply(host, {'collection_interval': 'soon', 'bind_port': 0})
    assert played.failed
    line = next(line for line in played.output.splitlines() if line.startswith('fatal'))
    assert 'collection_interval is \\"soon\\": write a duration' in line
    assert 'bind_port is \\"0\\": write a number, 1 to 65535' in line


def test_refresh_limits_are_those_of_the_lists(tmp_path: pathlib.Path) -> None:
    known = _yaml('vars/main.yml')[f'__{PREFIX}least_refresh']
    conf = wiring.load([f'--config-file={os.devnull}'], 'oie-exporter')
    real = {name: conf[f'feed_{name}'].min_interval for name in known}
    assert known == real


def test_binding_rule(host: ansible_root.Host, tmp_path: pathlib.Path) -> None:
    device, bare = ansible_root.INTERFACE, ansible_root.BARE_INTERFACE
    cases = {
        '198.51.100.1:9444': {
            'web_listen_address': '198.51.100.1:9444',
            'network_interface': device,
            'bind_port': 1,
        },
        '[::1]:9120': {'web_listen_address': '[::1]:9120'},
        f'{ansible_root.ADDRESS}:9120': {'network_interface': device},
        f'{ansible_root.ADDRESS}:9445': {'network_interface': device, 'bind_port': 9445},
        '0.0.0.0:9120': {'network_interface': bare},
        '0.0.0.0:9121': {'network_interface': 'nosuch', 'bind_port': 9121},
        '0.0.0.0:9122': {'bind_port': 9122},
    }
    # The template alone, with the facts of the host: the rest of the role has its own tests.
    tasks = [
        {
            'ansible.builtin.template': {
                'src': str(ROLE / 'templates/oie.conf.j2'),
                'dest': f'/srv/{number}.conf',
            },
            'vars': {f'{PREFIX}{name}': value for name, value in case.items()},
        }
        for number, case in enumerate(cases.values())
    ]
    files = [str(ROLE / 'defaults/main.yml'), str(ROLE / 'vars/main.yml')]
    plays = [{'hosts': 'all', 'vars_files': files, 'tasks': tasks}]
    played = ansible_root.play(host, tmp_path, plays)
    assert not played.failed, played.output
    found = []
    for number in range(len(cases)):
        arguments = [f'--config-file={host.outside("/srv")}/{number}.conf']
        [address] = wiring.load(arguments, 'oie-exporter').exporter.listen_address
        found.append(str(address))
    assert found == list(cases)


# --- every variable -----------------------------------------------------------


def _tier(name: str, number: int) -> list[dict[str, object]]:
    return [{'disk_tier': name, 'threshold': number}, {'disk_tier': 'local', 'threshold': 7}]


#: A value that is not the default, and where it must be found: an option and its value. Those
#: of some lists are right only with what _others() has in config, as the role itself advises.
_OPTIONS: Mapping[str, tuple[object, str, object]] = {
    'web_telemetry_path': ('/all', 'exporter.telemetry_path', '/all'),
    'socket_group': ('oie-polls', 'exporter.socket_group', 'oie-polls'),
    'libvirt_uri': ('test:///default', 'libvirt.uri', 'test:///default'),
    'collection_interval': ('1m30s', 'collector.interval', 90.0),
    'static_cache_expiration': ('2h', 'collector.static_cache_expiration', 7200.0),
    'dynamic_cache_expiration': (45, 'collector.dynamic_cache_expiration', 45.0),
    'cpu_min': (0.5, 'collector.cpu_min', 0.5),
    'conntrack_min': (3, 'conntrack.min', 3),
    'default_read_threshold': (101, 'disk.default_read_threshold', 101),
    'default_write_threshold': (102, 'disk.default_write_threshold', 102),
    'read_thresholds': (_tier('ssd', 1), 'disk.read_thresholds', {'ssd': 1, 'local': 7}),
    'write_thresholds': (_tier('hdd', 2), 'disk.write_thresholds', {'hdd': 2, 'local': 7}),
    'contacts_direction': ('any', 'threats.contacts_direction', 'any'),
    'outbound_behavior_enable': ('yes', 'outbound.enabled', True),
    'tor_exit_url': ('http://a.example/$1', 'feed_tor_exit.url', 'http://a.example/$1'),
    'tor_exit_refresh': ('31m', 'feed_tor_exit.refresh', 1860.0),
    'tor_exit_direction': ('in', 'feed_tor_exit.direction', 'in'),
    'tor_relay_url': ('https://b.example/', 'feed_tor_relay.url', 'https://b.example/'),
    'tor_relay_refresh': ('10m', 'feed_tor_relay.refresh', 600.0),
    'tor_relay_direction': ('any', 'feed_tor_relay.direction', 'any'),
    'spamhaus_url': ('file:///srv/4', 'feed_spamhaus.url', 'file:///srv/4'),
    'spamhaus_ipv6_url': ('https://c.example/6', 'feed_spamhaus.ipv6_url', 'https://c.example/6'),
    'spamhaus_refresh': ('2d', 'feed_spamhaus.refresh', 172800.0),
    'spamhaus_direction': ('out', 'feed_spamhaus.direction', 'out'),
    'emergingthreats_url': ('https://d.example', 'feed_emergingthreats.url', 'https://d.example'),
    'emergingthreats_refresh': ('3h', 'feed_emergingthreats.refresh', 10800.0),
    'emergingthreats_direction': ('in', 'feed_emergingthreats.direction', 'in'),
    'customlist_path': ('/srv/list', 'feed_customlist.path', '/srv/list'),
    'customlist_refresh': ('20s', 'feed_customlist.refresh', 20.0),
    'customlist_direction': ('out', 'feed_customlist.direction', 'out'),
    'threat_log_file_enable': (True, 'threat_log.enabled', True),
    'threat_log_file_path': ('/srv/logs/t.log', 'threat_log.path', '/srv/logs/t.log'),
    'host_threats_enable': (True, 'host_threats.enabled', True),
    'host_ips_allow_private': (True, 'host_threats.allow_private', True),
    'host_interfaces': (['eth0', 'eth1'], 'host_threats.interfaces', ('eth0', 'eth1')),
    'log_level': ('info', 'oie_log_level', 'info'),
    'log_file_enable': (True, 'use_stderr', True),
    'log_file_path': ('/var/log/oie-one.log', 'log_file', '/var/log/oie-one.log'),
    'web_listen_address': ('127.0.0.1:9444', 'exporter.listen_address.0.port', 9444),
}
#: The enabled lists show together, in their order.
_LISTS = ('tor_exit', 'tor_relay', 'spamhaus', 'emergingthreats', 'customlist')
#: Variables whose effect another test looks at: the binding rule, the packages, the extras.
_ELSEWHERE = {'network_interface', 'bind_port', 'packages', 'extras', 'enabled'}


def _others(wheels: pathlib.Path, directory: pathlib.Path) -> dict[str, object]:
    """Return values for what is no option of the exporter."""
    sums = directory / 'SHA256SUMS'
    sums.write_text(f'{_digest(_wheel(wheels, NEW))} *./dist/{_wheel(wheels, NEW).name}\n')
    return {
        **{f'{name}_enable': True for name in _LISTS},
        'version': f'v{NEW}',
        'sha256': str(sums),
        'install_dir': '/opt/oie-two',
        'wheel': f'file://{WHEELS}/oie-{NEW}-py3-none-any.whl',
        'pip_extra_args': ['--no-index'],
        'environment': {'PIP_NO_DEPS': '1'},
        'python': '/usr/local/bin/python-of-oie',
        'site_packages': True,
        'keep_releases': 1,
        'links_dir': '/usr/local/sbin',
        'web_config': {'basic_auth_users': {'prometheus': HASH}},
        'logrotate_content': (
            '{% if openstack_instance_exporter_log_file_enable|default(false)|bool %}\n'
            '{{ openstack_instance_exporter_log_file_path }} {\n  weekly\n  missingok\n}\n'
            '{% endif %}\n'
        ),
        'manage_service': False,
        'capabilities': ['CAP_NET_ADMIN', 'CAP_NET_RAW', 'CAP_SYS_ADMIN'],
        'supplementary_groups': ['oie-guests'],
        'service_options': 'MemoryMax=1G',
        'config': {
            'collector': {'optional': ['vcpus', 'limits'], 'cpu_min': 0.75},
            'conntrack': {'enabled': False},
            'exporter': {'listen_address': ['[::1]:9446']},
            'feed_tor_relay': {'min_interval': '5m'},
            'threats': {'allow_plain_http': True, 'allow_file_urls': True},
        },
    }


def test_every_variable_is_set_once_and_found_in_effect(
    host: ansible_root.Host,
    apply: Apply,
    wheels: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    others = _others(wheels, tmp_path)
    options = {name: value for name, (value, _, _) in _OPTIONS.items()}
    every = {**options, **others}
    defaults = _yaml('defaults/main.yml')
    assert {*every, *_ELSEWHERE} == {name.removeprefix(PREFIX) for name in defaults}
    assert [name for name in every if every[name] == defaults[f'{PREFIX}{name}']] == []

    _lend_libraries(host)
    host.sh('ln -s /usr/bin/python3 /usr/local/bin/python-of-oie; rm -f /usr/local/sbin/oie-*')
    played = apply(host, every)
    assert not played.failed, played.output
    assert HASH not in played.output
    _look_at_options(_options(host, tmp_path))
    _look_at_release(host)
    _look_at_service(host)
    _look_at_files(host, tmp_path)


def _look_at_options(conf: cfg.ConfigOpts) -> None:
    found = {name: _value(conf, path) for name, (_, path, _) in _OPTIONS.items()}
    wanted = {name: value for name, (_, _, value) in _OPTIONS.items()}
    # What stands in the free part counts more.
    assert found == {**wanted, 'cpu_min': 0.75}
    assert conf.threats.enabled_feeds == _LISTS
    assert conf.collector.optional == ('vcpus', 'limits')
    assert conf.conntrack.enabled is False
    assert [str(each) for each in conf.exporter.listen_address][1:] == ['[::1]:9446']
    assert conf.exporter.web_config_file == '/etc/oie/web.yml'


def _value(conf: cfg.ConfigOpts, path: str) -> object:
    value: Any = conf
    for part in path.split('.'):
        value = value[int(part)] if part.isdigit() else getattr(value, part)
    return value


def _look_at_release(host: ansible_root.Host) -> None:
    [release] = host.sh('ls /opt/oie-two/releases').split()
    assert release.startswith(f'{NEW}-')
    settings = host.read('/opt/oie-two/current/pyvenv.cfg')
    assert 'include-system-site-packages = true' in settings
    assert '/usr/local/bin/python-of-oie' in settings
    # The environment told pip to leave out what oie needs.
    assert host.run('/bin/sh', '-c', 'ls -d /opt/oie-two/current/lib/*/*/numpy').returncode != 0
    assert host.sh('/usr/local/sbin/oie-status --version').split()[-1] == NEW


def _look_at_service(host: ansible_root.Host) -> None:
    directory = '/etc/systemd/system/oie-exporter.service.d'
    lines = host.read(f'{directory}/50-role.conf').splitlines()
    rights = 'CAP_NET_ADMIN CAP_NET_RAW CAP_SYS_ADMIN'
    assert lines[lines.index('[Service]') + 1 :] == [
        'ExecStart=',
        'ExecStart=/opt/oie-two/bin/oie-exporter',
        'AmbientCapabilities=',
        f'AmbientCapabilities={rights}',
        'CapabilityBoundingSet=',
        f'CapabilityBoundingSet={rights}',
        'SupplementaryGroups=oie-guests oie-polls',
        'ReadWritePaths=-/var/log/oie-one.log',
        'ReadWritePaths=-/srv/logs/t.log',
        'MemoryMax=1G',
    ]
    done = host.run('systemd-analyze', 'verify', '--man=no', f'{directory.removesuffix(".d")}')
    assert [line for line in done.stderr.splitlines() if 'oie-exporter' in line] == []
    # manage_service is false.
    assert host.take_calls() == []


def _look_at_files(host: ansible_root.Host, directory: pathlib.Path) -> None:
    web = web_file.Reader(str(directory / 'etc/web.yml')).read()
    assert web.users == {'prometheus': HASH}
    rules = host.read('/etc/logrotate.d/openstack_instance_exporter')
    assert rules == '/var/log/oie-one.log {\n  weekly\n  missingok\n}\n'
    paths = (
        '/etc/oie/web.yml',
        '/etc/oie/oie.conf.d/50-role.conf',
        '/var/log/oie-one.log',
        '/srv/logs/t.log',
    )
    assert [host.owner(path) for path in paths] == [
        'root:oie 640',
        'root:oie 640',
        'oie:oie 640',
        'oie:oie 640',
    ]


# --- what it is for -----------------------------------------------------------


def test_configured_exporter_serves_logs_and_hears_of_a_new_password_and_of_tls(
    host: ansible_root.Host, apply: Apply, tmp_path: pathlib.Path
) -> None:
    variables: dict[str, object] = {
        'libvirt_uri': 'test:///opt/oie/current/etc/oie/demo/node.xml',
        'network_interface': ansible_root.INTERFACE,
        'log_level': 'info',
        'log_file_enable': True,
        'log_file_path': '/var/log/openstack_instance_exporter.log',
        'threat_log_file_enable': True,
        'web_config': _users('first'),
        'config': {'conntrack': {'enabled': False}},
    }
    restarted = ['daemon-reload', 'restart oie-exporter.service']
    played = apply(host, variables)
    assert not played.failed, played.output
    assert host.take_calls() == restarted
    _make_certificates(host)
    with _service(host, tmp_path):
        processes.wait_for(lambda: _status(host, 'first') == 200, 30, 'an answer')
        assert _status(host, 'second') == 401

        plain = {**variables, 'web_config': _users('second')}
        played = apply(host, plain)
        assert not played.failed, played.output
        assert played.changed == (f'Write {PREFIX}web_config',)
        # It reads that file by itself.
        assert host.take_calls() == []
        processes.wait_for(lambda: _status(host, 'second') == 200, 10, 'the new password')
        assert _status(host, 'first') == 401

        _rotate(host)
        # Whether there is TLS it decides at its start.
        played = apply(
            host, {**plain, 'web_config': {**_users('second'), 'tls_server_config': _TLS}}
        )
        assert not played.failed, played.output
        assert host.take_calls() == restarted
    with _service(host, tmp_path):
        processes.wait_for(lambda: _status(host, 'second', 'https') == 200, 30, 'TLS')
        assert _status(host, 'second', 'http') != 200
        played = apply(host, plain)
        assert not played.failed, played.output
        assert host.take_calls() == restarted
    log = '/var/log/openstack_instance_exporter.log'
    assert 'oie-exporter' in host.read(f'{log}.1')
    assert 'stopped' in host.read(log)
    assert host.owner('/var/log/oie/threat.log') == 'oie:oie 640'


def _users(password: str) -> dict[str, object]:
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
    return {'basic_auth_users': {'prometheus': hashed}}


def _status(host: ansible_root.Host, password: str, scheme: str = 'http') -> int:
    """Return the status of the answer, 0 without one."""
    done = host.run(
        *('curl', '-s', '-o', '/dev/null', '-w', '%{http_code}', '--cacert', '/etc/oie/tls.crt'),
        *('-u', f'prometheus:{password}', f'{scheme}://{ansible_root.ADDRESS}:9120/metrics'),
    )
    return int(done.stdout)


@contextlib.contextmanager
def _service(host: ansible_root.Host, directory: pathlib.Path) -> Iterator[None]:
    """Run what the unit would start, as its user, with the directories that it would make."""
    own = '/run/oie /var/lib/oie /var/log/oie'
    host.sh(f'mkdir -p {own} && chown oie:oie {own}')
    script = (
        'echo $$ >/run/pid; exec setpriv --reuid=oie --regid=oie --init-groups '
        '/opt/oie/bin/oie-exporter'
    )
    service = processes.Program((*host.enter(), '/bin/sh', '-c', script), directory / 'service')
    service.start()
    try:
        yield
        host.sh('kill $(cat /run/pid)')
        processes.wait_for(lambda: not service.is_running, 15, 'the end of the service')
    except BaseException:
        sys.stderr.write(service.last_words())
        raise
    finally:
        service.kill()


def _rotate(host: ansible_root.Host) -> None:
    done = host.run(
        *('logrotate', '--force', '--state', '/run/logrotate'),
        '/etc/logrotate.d/openstack_instance_exporter',
    )
    assert (done.returncode, done.stderr) == (0, '')


# --- the role as text ---------------------------------------------------------


def test_role_is_what_ansible_lint_wants_of_production() -> None:
    done = subprocess.run(
        (
            str(pathlib.Path(sys.executable).parent / 'ansible-lint'),
            *('--offline', '--strict', '--nocolor', '--profile=production', ansible_root.ROLE),
        ),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=ansible_root.ROLES,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_modules_of_ansible_itself_are_used() -> None:
    text = ''.join(path.read_text() for path in ROLE.glob('*/*.yml'))
    modules = set(re.findall(r'^\s+((?:\w+\.)+\w+):', text, re.M))
    assert {module.rpartition('.')[0] for module in modules} == {'ansible.builtin'}


def test_readme_and_checks_know_every_variable() -> None:
    defaults = _yaml('defaults/main.yml')
    specified = _yaml('meta/argument_specs.yml')['argument_specs']['main']['options']
    rows = re.findall(r'^\| `(\w+)` \| (.*?) \| .', _readme(), re.M)
    assert list(specified) == [PREFIX + name for name, _ in rows]
    assert set(specified) == set(defaults)
    assert set(REFERENCE.read_text().split()) <= set(defaults)
    plain = {
        name: str(value)
        for name, value in defaults.items()
        if isinstance(value, str | int | float) and not isinstance(value, bool) and value
    }
    told = {PREFIX + name: default for name, default in rows}
    calculated = {PREFIX + 'packages', PREFIX + 'logrotate_content'}
    wrong = [
        name
        for name, value in plain.items()
        if name not in calculated and told[name] != f'`{value}`'
    ]
    assert wrong == []


def test_default_version_is_that_of_this_tree() -> None:
    tree = configparser.ConfigParser()
    tree.read(ansible_root.TOP / 'setup.cfg')
    version = tree['metadata']['version']
    assert _yaml('defaults/main.yml')[f'{PREFIX}version'] == f'v{version}'


def _readme() -> str:
    return (ROLE / 'README.md').read_text()


def _yaml(name: str) -> Any:
    return yaml.safe_load((ROLE / name).read_text())
