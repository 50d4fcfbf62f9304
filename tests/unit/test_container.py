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


"""The Containerfile keeps its promises; what hadolint knows by itself is left to it (pep8)."""

import configparser
import json
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
CONTAINERFILE = ROOT / 'etc/container/Containerfile'

Instruction = tuple[str, str]


@pytest.fixture(scope='module')
def stages() -> list[list[Instruction]]:
    """Return the instructions of each stage: word and rest, without comments."""
    lines = CONTAINERFILE.read_text(encoding='utf-8').splitlines()
    text = '\n'.join(line for line in lines if not line.startswith('#')).replace('\\\n', ' ')
    found: list[list[Instruction]] = [[]]
    for line in filter(None, text.splitlines()):
        word, _, rest = line.partition(' ')
        if word == 'FROM':
            found.append([])
        found[-1].append((word, rest.strip()))
    return found


@pytest.fixture(scope='module')
def last(stages: list[list[Instruction]]) -> dict[str, str]:
    """Return what counts in the image: the last instruction of each word."""
    return dict(stages[-1])


def _of(instructions: list[Instruction], word: str) -> list[str]:
    return [rest for found, rest in instructions if found == word]


def test_base_is_named_once_with_its_release(stages: list[list[Instruction]]) -> None:
    before, *rest = stages
    base = dict(re.fullmatch(r'(\w+)=(.+)', value).groups() for value in _of(before, 'ARG'))
    assert re.search(r':\d', base['BASE_IMAGE'])
    assert [_of(stage, 'FROM')[0].split()[0] for stage in rest] == ['${BASE_IMAGE}'] * 2


def test_runs_as_a_user_that_is_not_root(stages: list[list[Instruction]], last: dict) -> None:
    assert last['USER'] == '${OIE_UID}:${OIE_GID}'
    numbers = [int(value.partition('=')[2]) for value in _of(stages[-1], 'ARG') if 'ID=' in value]
    assert len(numbers) == 2
    assert min(numbers) > 0


def test_what_is_started_is_a_program_of_the_package(last: dict) -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    scripts = re.findall(r'^([\w-]+) =', setup['entry_points']['console_scripts'], re.MULTILINE)
    [program] = json.loads(last['ENTRYPOINT'])
    assert program == 'oie-exporter'
    assert program in scripts
    assert '/opt/oie/bin:' in last['ENV']


def test_health_is_asked_for_by_a_file_that_is_copied(
    stages: list[list[Instruction]], last: dict
) -> None:
    _, _, command = last['HEALTHCHECK'].partition('CMD ')
    python, probe = json.loads(command)
    assert python == '/opt/oie/bin/python'
    copies = [copy.split() for copy in _of(stages[-1], 'COPY')]
    assert ['etc/container/probe.py', probe] in copies


def copied(stages: list[list[Instruction]]) -> set[str]:
    """Return the paths that come from the context."""
    copies = [copy.split()[:-1] for stage in stages for copy in _of(stage, 'COPY')]
    return {path for copy in copies for path in copy if not copy[0].startswith('--from=')}


def test_all_that_is_copied_is_there_and_let_through(stages: list[list[Instruction]]) -> None:
    lines = (ROOT / '.dockerignore').read_text(encoding='utf-8').splitlines()
    let_through = {line[1:] for line in lines if line.startswith('!')}
    paths = copied(stages)
    assert {path for path in paths if not (ROOT / path).exists()} == set()
    assert {path.split('/')[0] for path in paths} == let_through
    assert '*' in lines


def test_what_compiles_stays_out_of_the_image(stages: list[list[Instruction]]) -> None:
    [apt] = [run for run in _of(stages[-1], 'RUN') if 'apt-get' in run]
    packages = set(apt.partition('install')[2].partition('&&')[0].split()) - {
        '--yes',
        '--no-install-recommends',
    }
    assert packages == {'ca-certificates', 'libvirt0', 'python3'}


def test_nothing_is_fetched_but_by_package_managers(stages: list[list[Instruction]]) -> None:
    text = ' '.join(f'{word} {rest}' for stage in stages for word, rest in stage)
    assert 'ADD ' not in text
    assert not re.search(r'\b(?:curl|wget|git)\b', text)


def test_version_is_that_of_setup_cfg_unless_given(stages: list[list[Instruction]]) -> None:
    """What the shell takes from setup.cfg in place of a version that is not given."""
    [build] = [run for run in _of(stages[1], 'RUN') if 'PBR_VERSION=' in run]
    assert "sed -n 's/^version *= *//p' setup.cfg" in build
    found = re.findall(r'(?m)^version *= *(.*)$', (ROOT / 'setup.cfg').read_text())
    assert len(found) == 1
