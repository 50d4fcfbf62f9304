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

"""SIGHUP applies what it can, says what it cannot, and a wrong file changes nothing."""

import logging

import pytest

from oie import config
from oie import model
from oie.cmd import exporter
from oie.cmd import log_level
from oie.cmd import reloading


@pytest.fixture(autouse=True)
def _level_as_before():
    before = logging.getLogger('oie').level
    yield
    logging.getLogger('oie').setLevel(before)


class Running:
    """A service that was started with these lines."""

    def __init__(self, path, text):
        self.path = path
        path.write_text(text)
        values = reloading.values_of(self.load())
        self.level = log_level.LogLevel(reloading.level_of(values))
        self.now = 1000.0
        self._reloader = reloading.Reloader(values, self.load, self.level, clock=lambda: self.now)

    def load(self):
        return exporter.load(['--config-file', str(self.path)])

    def reload(self, text):
        self.path.write_bytes(text if isinstance(text, bytes) else text.encode())
        self.now += 1
        return self._reloader.reload()

    @property
    def statistics(self):
        return self._reloader.statistics


@pytest.fixture
def start(tmp_path):
    return lambda text: Running(tmp_path / 'oie.conf', text)


def test_level_of_the_file_counts_at_once(start, caplog):
    running = start('[DEFAULT]\noie_log_level = notice\n')
    assert running.reload('[DEFAULT]\noie_log_level = info\n')
    assert running.level.name == 'info'
    assert caplog.messages == ['reloaded: oie_log_level is info, nothing else changed']


def test_debug_of_oslo_log_counts_too(start):
    running = start('[DEFAULT]\noie_log_level = notice\n')
    running.reload('[DEFAULT]\ndebug = true\n')
    assert running.level.name == 'debug'
    running.reload('[DEFAULT]\n')
    assert running.level.name == 'error'


def test_level_set_over_the_endpoint_ends(start):
    running = start('[DEFAULT]\noie_log_level = notice\n')
    running.level.set('debug')
    running.reload('[DEFAULT]\noie_log_level = notice\n')
    assert running.level.name == 'notice'


def test_level_of_a_logging_configuration_file_stays(start, tmp_path):
    lines = f'[DEFAULT]\noie_log_level = notice\nlog_config_append = {tmp_path}/logging.ini\n'
    running = start(lines)
    logging.getLogger('oie').setLevel(logging.CRITICAL)
    assert running.reload(lines)
    assert logging.getLogger('oie').level == logging.CRITICAL


def test_one_line_names_what_needs_a_restart(start, caplog):
    running = start('[collector]\ninterval = 10s\n')
    running.reload('[collector]\ninterval = 20s\ncpu_min = 5\n[feed_own]\ndriver = plain_list\n')
    (line,) = caplog.messages
    assert line.startswith('reloaded oie_log_level (error); these changes need a restart: ')
    named = line.partition('restart: ')[2].split(', ')
    assert named[:2] == ['[collector] cpu_min', '[collector] interval']
    assert '[feed_own] driver' in named
    assert len(named) == 20
    assert named[-1].endswith('more')


def test_another_writing_of_the_same_value_is_no_change(start, caplog):
    caplog.set_level('INFO', 'oie')
    running = start('[DEFAULT]\noie_log_level = info\n[collector]\ninterval = 60s\n')
    running.reload('[collector]\ninterval = 1m\n[DEFAULT]\noie_log_level = info\n')
    assert caplog.messages == ['reloaded: oie_log_level is info, nothing else changed']


@pytest.mark.parametrize(
    'text', ['[collector]\ninterval = soon\n', '[nowhere]\n', 'x', b'[DEFAULT]\nhost = \xff\0\n']
)
def test_wrong_file_changes_nothing_and_is_told(start, text, caplog):
    running = start('[DEFAULT]\noie_log_level = notice\n')
    assert not running.reload(text)
    assert running.level.name == 'notice'
    (line,) = caplog.messages
    assert line.startswith('the configuration was not reloaded and stays as it was: ')
    assert str(running.path) in line
    assert '\n' not in line


def test_file_that_is_gone_changes_nothing(start, caplog):
    running = start('[DEFAULT]\noie_log_level = notice\n')
    running.path.unlink()
    assert not running._reloader.reload()
    assert 'cannot be read: No such file or directory' in caplog.text


def test_what_was_read_last_is_counted(start):
    running = start('[collector]\ninterval = 10s\n')
    assert running.statistics == model.Reloads(is_ok=True, errors=0, succeeded_at=1000, waiting=0)
    running.reload('[collector]\ninterval = 20s\ncpu_min = 5\n[DEFAULT]\ndebug = true\n')
    assert running.statistics == model.Reloads(is_ok=True, errors=0, succeeded_at=1001, waiting=2)
    for _ in range(2):
        running.reload('[nowhere]\n')
    # What waits for a restart is what the last right files said.
    assert running.statistics == model.Reloads(is_ok=False, errors=2, succeeded_at=1001, waiting=2)
    running.reload('[collector]\ninterval = 10s\n')
    assert running.statistics == model.Reloads(is_ok=True, errors=2, succeeded_at=1004, waiting=0)


@pytest.fixture
def handler(tmp_path):
    made = logging.FileHandler(tmp_path / 'oie.log')
    logging.getLogger().addHandler(made)
    yield made
    logging.getLogger().removeHandler(made)
    made.close()


def test_rotated_log_file_is_opened_anew(handler, tmp_path):
    logger = logging.getLogger('oie.test')
    logger.error('one')
    (tmp_path / 'oie.log').rename(tmp_path / 'oie.log.1')
    logger.error('two')
    reloading.reopen_log_files()
    logger.error('three')
    assert (tmp_path / 'oie.log.1').read_text() == 'one\ntwo\n'
    assert (tmp_path / 'oie.log').read_text() == 'three\n'


def test_log_goes_on_where_the_new_file_cannot_be_opened(handler, tmp_path):
    (tmp_path / 'oie.log').rename(tmp_path / 'oie.log.1')
    (tmp_path / 'oie.log').mkdir()
    reloading.reopen_log_files()
    assert 'cannot be opened anew: Is a directory' in (tmp_path / 'oie.log.1').read_text()


def test_levels_are_those_of_the_option():
    assert config.LOG_LEVELS == ('error', 'notice', 'info', 'debug')
