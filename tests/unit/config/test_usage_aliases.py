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

"""Environment variables of the older exporter: they stand in, and a wrong one is named."""

import os
import pathlib
import re

import pytest

from oie import exceptions
from oie.cmd import wiring
from oie.config import moments
from oie.config import usage_aliases

PAGE = pathlib.Path(__file__).parents[3] / 'doc/source/admin/project-usage.rst'


@pytest.fixture
def load(monkeypatch, tmp_path):
    """Return a function that loads ``[usage]`` with these lines and variables."""
    for name in os.environ:
        if name.startswith(usage_aliases.PREFIX):
            monkeypatch.delenv(name)

    def load(lines='', **variables):
        path = tmp_path / 'oie.conf'
        path.write_text(f'[usage]\nenabled = true\n{lines}\n')
        for name, value in variables.items():
            monkeypatch.setenv(f'{usage_aliases.PREFIX}{name}', value)
        return wiring.load(['--config-file', str(path)], 'test')['usage']

    return load


@pytest.mark.parametrize(
    ('name', 'text', 'option', 'value'),
    [
        ('DUMMY_FILE', '/x/dummy.toml', 'dummy_file', '/x/dummy.toml'),
        ('DUMMY_WEIGHTS_FILE', '/x/w.toml', 'weights_file', '/x/w.toml'),
        ('PROJECT_DOMAINS', 'elixir,,portal', 'domains', ('elixir', 'portal')),
        ('PROJECT_DOMAIN_ID', 'abc', 'domain_id', 'abc'),
        ('SIMPLE_VM_PROJECT_ID', 'abc', 'simple_vm_project_id', 'abc'),
        ('SIMPLE_VM_PROJECT_TAG', 'owner', 'simple_vm_tag', 'owner'),
        ('START_DATE', '2020-01-01', 'start_date', moments.parse('2020-01-01')),
        ('START_DATE_ENDPOINT', 'https://x/s', 'start_date_url', 'https://x/s'),
        ('UPDATE_INTERVAL', '30', 'interval', 30.0),
        ('WEIGHTS_UPDATE_ENDPOINT', 'https://x/w', 'weights_url', 'https://x/w'),
        ('WEIGHT_UPDATE_FREQUENCY', '3', 'weights_every', 3),
    ],
)
def test_a_variable_stands_in_for_an_option_that_nothing_sets(load, name, text, option, value):
    assert load(**{name: text})[option] == value


@pytest.mark.parametrize('name', ['VCPU_WEIGHTS', 'PROJECT_MB_WEIGHTS'])
def test_weights_may_be_written_as_a_dictionary(load, name):
    option = usage_aliases.VARIABLES[name][0]
    found = load(**{name: "{'4': 1, 8: 2.5}"})[option]
    assert [(str(amount), str(weight)) for amount, weight in found] == [('4', '1'), ('8', '2.5')]


def test_a_file_stands_above_the_environment(load):
    assert load('interval = 7', UPDATE_INTERVAL='30').interval == 7


def test_a_path_that_is_relative_begins_where_the_program_was_started(load, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert load(DUMMY_FILE='d.toml').dummy_file == str(tmp_path / 'd.toml')


@pytest.mark.parametrize(
    ('name', 'text'),
    [
        ('UPDATE_INTERVAL', 'often'),
        ('UPDATE_INTERVAL', '0'),
        ('START_DATE', 'last week'),
        ('WEIGHT_UPDATE_FREQUENCY', '0'),
        ('WEIGHTS_UPDATE_ENDPOINT', 'ftp://x'),
        ('VCPU_WEIGHTS', '4'),
    ],
)
def test_a_wrong_value_names_the_variable(load, name, text):
    with pytest.raises(exceptions.ConfigError, match=f'USAGE_EXPORTER_{name} = '):
        load(**{name: text})


def test_where_usage_is_off_no_variable_is_looked_at(load, monkeypatch, tmp_path):
    path = tmp_path / 'oie.conf'
    path.write_text('')
    monkeypatch.setenv('USAGE_EXPORTER_UPDATE_INTERVAL', 'often')
    assert wiring.load(['--config-file', str(path)], 'test')['usage'].interval == 300


def test_an_empty_variable_is_none(load):
    assert load(UPDATE_INTERVAL=' ').interval == 300


@pytest.mark.parametrize(
    ('line', 'option', 'value'),
    [
        ('dummy_data = /x', 'dummy_file', '/x'),
        ('dummy_weights = /x', 'weights_file', '/x'),
        ('domain = a', 'domains', ('a',)),
        ('simple_vm_id = a', 'simple_vm_project_id', 'a'),
        ('weight_update_frequency = 2', 'weights_every', 2),
        ('weight_update_endpoint = https://x/', 'weights_url', 'https://x/'),
        ('start_date_endpoint = https://x/', 'start_date_url', 'https://x/'),
        ('start = 2020-01-01', 'start_date', moments.parse('2020-01-01')),
        ('update_interval = 30', 'interval', 30.0),
    ],
)
def test_names_of_the_older_options_are_understood(load, line, option, value):
    assert load(line)[option] == value


def test_the_documentation_has_a_row_for_every_variable():
    text = PAGE.read_text(encoding='utf-8')
    named = set(re.findall(r'USAGE_EXPORTER_([A-Z_]+[A-Z])', text))
    assert set(usage_aliases.VARIABLES) <= named
