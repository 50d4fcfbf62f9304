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


"""The files made of the code are the ones that it makes today, and fit for their readers."""

import pathlib
import re
import runpy

import pytest
import yaml

from oie.cmd import wiring

ROOT = pathlib.Path(__file__).parents[2]
POLLSTERS = ROOT / 'etc/ceilometer/pollsters.d/oie.yaml'
POLLING = ROOT / 'etc/ceilometer/polling.yaml'
SUDOERS = ROOT / 'etc/sudoers.d/oie-ceilometer'

# The interval of the source that Ceilometer ships.
CEILOMETERS_INTERVAL = 300


@pytest.fixture(scope='module')
def generate():
    """The names of tools/generate.py."""
    return runpy.run_path(str(ROOT / 'tools/generate.py'))


@pytest.mark.parametrize(
    'path',
    [
        'etc/ceilometer/polling.yaml',
        'etc/ceilometer/pollsters.d/oie.yaml',
        'etc/sudoers.d/oie-ceilometer',
        'doc/source/admin/metrics.rst',
    ],
)
def test_files_in_the_repository_are_those_generated_today(generate, path):
    generated = generate['files']()[path].splitlines()
    assert (ROOT / path).read_text().splitlines() == generated, 'run: tox -e genconfig'


def test_no_generated_file_is_forgotten_here(generate):
    assert len(generate['files']()) == 4
    assert generate['stale']() == {}


def test_definitions_are_those_of_the_pollsters(generate):
    made = wiring.pollsters(generate['collectors']().values())
    expected = [each for pollster in made.values() for each in pollster.definitions()]
    assert yaml.safe_load(POLLSTERS.read_text()) == expected


def test_any_definition_can_be_deleted_without_hurting_the_others():
    """Ceilometer's agent dies at start of a file that is not a list with names."""
    text = POLLSTERS.read_text()
    assert not re.search(r'[&*]id\d', text), 'anchors bind definitions to each other'
    header, *parts = re.split(r'(?m)^(?=- name:)', text)
    for number in range(len(parts)):
        rest = parts[:number] + parts[number + 1 :]
        assert len(yaml.safe_load(header + ''.join(rest))) == len(parts) - 1


def test_the_source_has_an_interval_of_its_own_and_polls_all_our_meters():
    [source] = yaml.safe_load(POLLING.read_text())['sources']
    assert source['name'] == 'oie'
    assert source['meters'] == ['oie.*']
    assert CEILOMETERS_INTERVAL / 2 < source['interval'] < CEILOMETERS_INTERVAL


def test_sudo_allows_exactly_the_commands_and_nothing_free():
    lines = [line for line in SUDOERS.read_text().splitlines() if not line.startswith('#')]
    text = '\n'.join(lines).replace('\\\n', ' ')
    [alias] = re.findall(r'Cmnd_Alias OIE_POLLSTERS = (.*)', text)
    allowed = [command.strip() for command in alias.split(',')]
    assert allowed == [f'/usr/bin/oie-pollster {name}' for name in sorted(wiring.pollsters())]
    assert re.findall(r'.*NOPASSWD.*', text) == ['ceilometer ALL = (root) NOPASSWD: OIE_POLLSTERS']
    # No wildcards, no negation, no environment from the caller.
    assert not re.search(r'[*?\[\]]|NOPASSWD:\s*ALL|SETENV|env_keep', text)


def test_every_generated_file_is_ascii_and_ends_with_one_line_feed(generate):
    for text in generate['files']().values():
        assert text.isascii()
        assert text.endswith('\n')
        assert not text.endswith('\n\n')
        assert all(line == line.rstrip() for line in text.splitlines())
