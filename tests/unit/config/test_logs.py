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

"""The log goes where the options say, from the level they name."""

import logging
import sys

import pytest

from oie import config
from oie import exceptions
from oie import failures


@pytest.fixture(autouse=True)
def _log_as_before():
    root, ours = logging.getLogger(), logging.getLogger('oie')
    before = list(root.handlers), root.level, ours.level, sys.excepthook
    yield
    for handler in root.handlers:
        if handler not in before[0]:
            handler.close()
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])
    sys.excepthook = before[3]


@pytest.fixture
def setup(tmp_path):
    """Return a function that sets logging up by the lines of [DEFAULT]."""

    def setup(*lines, argv=()):
        path = tmp_path / 'oie.conf'
        path.write_text('\n'.join(['[DEFAULT]', *lines]))
        config.setup_logging(
            config.load(
                argv,
                prog='p',
                groups=lambda _settings: (),
                default_file=str(path),
                default_directory='/nowhere',
            )
        )

    return setup


def shown_of(logger):
    """Return the names of the levels that this logger lets through."""
    levels = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
    return [logging.getLevelName(level) for level in levels if logger.isEnabledFor(level)]


OURS = logging.getLogger('oie.service')
THEIRS = logging.getLogger('urllib3.connection')


@pytest.mark.parametrize(
    ('level', 'shown'),
    [
        ('error', ['ERROR']),
        ('notice', ['WARNING', 'ERROR']),
        ('info', ['INFO', 'WARNING', 'ERROR']),
        ('debug', ['DEBUG', 'INFO', 'WARNING', 'ERROR']),
    ],
)
def test_level_is_ours_and_libraries_stay_at_warnings(setup, level, shown):
    setup(f'oie_log_level = {level}')
    assert shown_of(OURS) == shown
    assert shown_of(THEIRS) == ['WARNING', 'ERROR']


def test_debug_of_oslo_log_is_debug_for_us_alone(setup):
    setup('oie_log_level = error', argv=['--debug'])
    assert shown_of(OURS)[0] == 'DEBUG'
    assert shown_of(THEIRS) == ['WARNING', 'ERROR']


def test_level_changes_while_we_run(setup):
    setup('oie_log_level = error')
    config.set_log_level('info')
    assert shown_of(OURS)[0] == 'INFO'
    assert shown_of(THEIRS) == ['WARNING', 'ERROR']


def test_log_goes_to_stderr_when_nothing_else_is_named(setup, capfd):
    setup('oie_log_level = notice')
    OURS.warning('a match')
    shown = capfd.readouterr()
    assert shown.out == ''
    assert 'WARNING oie.service [-] a match' in shown.err


def test_log_goes_to_the_file_alone(setup, capfd, tmp_path):
    setup(f'log_file = {tmp_path}/oie.log')
    OURS.error('no libvirt')
    assert 'ERROR oie.service [-] no libvirt' in (tmp_path / 'oie.log').read_text()
    assert capfd.readouterr() == ('', '')


def test_log_file_that_cannot_be_opened_is_told(setup):
    with pytest.raises(exceptions.ConfigError) as caught:
        setup('log_file = /nowhere/oie.log')
    assert str(caught.value) == (
        'the log cannot be written to /nowhere/oie.log: No such file or directory'
    )


@pytest.mark.parametrize(
    ('lines', 'error'),
    [
        (['log_config_append = /nowhere'], 'the log cannot be set up: '),
        (['use_syslog = true', 'syslog_log_facility = x'], 'the log cannot be set up: syslog'),
        (['default_log_levels = a=LOUD'], "the log cannot be set up: Unknown level: 'LOUD'"),
    ],
)
def test_log_that_cannot_be_set_up_is_told_in_one_line(setup, lines, error):
    with pytest.raises(exceptions.ConfigError) as caught:
        setup(*lines)
    assert str(caught.value).startswith(error)
    assert len(str(caught.value).splitlines()) == 1


def test_a_logging_configuration_file_decides_alone(setup, tmp_path):
    path = tmp_path / 'logging.ini'
    path.write_text(
        '[loggers]\nkeys = root,oie\n[handlers]\nkeys =\n[formatters]\nkeys =\n'
        '[logger_root]\nlevel = ERROR\nhandlers =\n'
        '[logger_oie]\nlevel = INFO\nhandlers =\nqualname = oie\n'
    )
    setup(f'log_config_append = {path}', 'oie_log_level = debug')
    assert shown_of(OURS)[0] == 'INFO'
    assert shown_of(THEIRS) == ['ERROR']


def test_failure_told_while_it_is_handled_is_there_once_and_plain(setup, tmp_path):
    """oslo.log adds the exception that is being handled, as it is, to what is logged then."""
    setup('log_file = oie.log', f'log_dir = {tmp_path}', 'oie_log_level = notice')
    log = logging.getLogger('oie.test')
    try:
        raise exceptions.SourceError('no \x1b[31m route\rof a tenant')
    except exceptions.SourceError as exc:
        failures.LastingFailures(log).report('a', 'not read', exc)
        log.warning('told without it')
    line, other = (tmp_path / 'oie.log').read_text(encoding='utf-8').splitlines()
    assert line.endswith(r'a: not read: no \x1b[31m route\rof a tenant')
    assert line.count('route') == 1
    assert line.isprintable()
    assert other.endswith('told without it')
