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

"""oie-status: does oie work on this host, and may an upgrade go on?"""

import argparse
from collections.abc import Iterator
from collections.abc import Sequence
import os
import sys
import time
import traceback
from typing import NoReturn

from oslo_config import cfg
from oslo_upgradecheck import upgradecheck

from oie import config
from oie import exceptions
from oie import plugins
from oie.cmd import check_table
from oie.cmd import command_lines
from oie.cmd import host_check
from oie.cmd import threat_wiring
from oie.cmd import wiring
from oie.collectors import base as collectors_base
from oie.config import files
from oie.config import loading
from oie.config import messages
from oie.config import netns_settings

PROG = 'oie-status'
DEADLINE = 15.0
# oslo.upgradecheck's, for what nobody foresaw.
UNEXPECTED = 255

_DESCRIPTION = """\
Tell whether oie works on this host, and whether an upgrade may go on.

commands:
  host check      show what works here, and what to do about what does not
  upgrade check   look for what would stop the next version from starting
"""
_EPILOG = f"""\
Without --config-file and --config-dir, {loading.DEFAULT_FILE} and
{loading.DEFAULT_DIRECTORY}/*.conf are read as far as they exist. Run the host
check as the user that the exporter runs as: rights are judged for whoever asks.

exit status:
  0    all is well
  1    there are warnings
  2    something does not work, or an option is wrong
  255  something unexpected happened
"""


def main() -> NoReturn:
    """Run the command and leave with its exit status."""
    status = run(sys.argv[1:])
    sys.stdout.flush()
    # A libvirt call that hangs holds a thread that nothing can end.
    os._exit(status)


def run(argv: Sequence[str]) -> int:
    """Run the command; return the exit status.

    :raises SystemExit: the command line is wrong, or asks for help
    """
    started = time.monotonic()
    try:
        arguments = _parser().parse_args(argv)
    except exceptions.ConfigError as exc:
        config.fail(PROG, exc)
    try:
        if arguments.subject == 'upgrade':
            return check_upgrade(arguments.named, is_json=arguments.json)
        rows = check_host(arguments.named, started + DEADLINE)
        as_json = check_table.as_json('Host Check Results', rows)
        print(as_json if arguments.json else check_table.table(rows))
        return check_table.status(rows)
    except Exception:
        sys.stderr.write(f'{PROG}: unexpected: {traceback.format_exc()}')
        return UNEXPECTED


# --- the command line ---------------------------------------------------------


def _parser() -> command_lines.Parser:
    usage = f'{PROG} [options] {{host,upgrade}} check'
    parser = command_lines.parser(PROG, _DESCRIPTION, _EPILOG, usage)
    hidden = argparse.SUPPRESS
    parser.add_argument('subject', choices=['host', 'upgrade'], metavar='COMMAND', help=hidden)
    parser.add_argument('action', choices=['check'], metavar='check', help=hidden)
    parser.add_argument('--json', action='store_true', help='print JSON in place of a table')
    return parser


def checked_collectors(conf: cfg.ConfigOpts) -> dict[str, collectors_base.Collector]:
    """Return the collectors, after a look at all that could stop the daemon at its start.

    :raises ConfigError: something would
    """
    wiring.web_guard(conf)
    threat_wiring.lists(conf)
    if conf.netns.enabled:
        netns_settings.of(conf.netns)
    return wiring.collectors(conf)


# --- host check ---------------------------------------------------------------


def check_host(argv: Sequence[str], deadline: float) -> list[check_table.Row]:
    """Return the rows; with a wrong configuration there is only the one that says so.

    :param deadline: on the monotonic clock
    """
    name = 'Configuration'
    try:
        conf = wiring.load(argv, PROG)
        collectors = checked_collectors(conf)
    except exceptions.ConfigError as exc:
        advice = 'Correct it; no program of oie starts before. Then check again.'
        return [check_table.Row(name, check_table.Result.FAILURE, messages.one_line(exc), advice)]
    read = ', '.join(_paths(argv)) or 'no file, so every option has its default'
    detail = f'{read}; collectors: {", ".join(sorted(collectors))}'
    first = check_table.Row(name, check_table.Result.OK, detail)
    return [
        first,
        *host_check.rows(conf, wiring.instances_source(conf, remembers=False), deadline),
    ]


# --- upgrade check ------------------------------------------------------------


class Checks(upgradecheck.UpgradeCommands):  # type: ignore[misc,unused-ignore]
    """What could stop the next version from starting.

    :param argv: the configuration files, as options of the command line
    """

    def __init__(self, argv: Sequence[str]) -> None:
        super().__init__()
        self._argv = argv

    def configuration(self) -> upgradecheck.Result:
        """Fail when a program of this version would not start with these files."""
        try:
            checked_collectors(wiring.load(self._argv, PROG))
        except exceptions.ConfigError as exc:
            return upgradecheck.Result(upgradecheck.Code.FAILURE, messages.one_line(exc))
        return upgradecheck.Result(upgradecheck.Code.SUCCESS)

    def deprecated_options(self) -> upgradecheck.Result:
        """Warn of names and options that a later version will not know."""
        try:
            found = list(deprecated(self._argv))
        except exceptions.ConfigError as exc:
            return upgradecheck.Result(upgradecheck.Code.FAILURE, messages.one_line(exc))
        if found:
            return upgradecheck.Result(upgradecheck.Code.WARNING, '; '.join(found))
        return upgradecheck.Result(upgradecheck.Code.SUCCESS)

    _upgrade_checks = (
        ('Configuration', configuration),
        ('Deprecated options', deprecated_options),
    )


def check_upgrade(argv: Sequence[str], *, is_json: bool = False) -> int:
    """Print the results of oslo.upgradecheck; return the exit status."""
    conf = cfg.ConfigOpts()
    upgradecheck.register_cli_options(conf, Checks(argv))
    arguments = ['upgrade', 'check', *(['--json'] if is_json else [])]
    conf(arguments, prog=PROG, default_config_files=[], default_config_dirs=[])
    # There the library looks for --json; its own main() does the same.
    upgradecheck.CONF = conf
    return int(upgradecheck.run(conf))


def deprecated(argv: Sequence[str]) -> Iterator[str]:
    """Give a sentence for each setting that will lose its meaning.

    :raises ConfigError: a file cannot be read
    """
    options = loading.register(cfg.ConfigOpts(), plugins.option_groups())
    for setting in files.read(_paths(argv)):
        section = setting.section if setting.section == 'DEFAULT' else setting.section.lower()
        option = options.get(section, {}).get(setting.name)
        if option is None:
            continue
        place = f'{setting.place}: [{setting.section}] {setting.name}'
        if (section, setting.name) != option.key:
            yield f'{place} is an old name; write [{option.group}] {option.opt.dest}'
        if option.opt.deprecated_for_removal:
            reason = messages.one_line(option.opt.deprecated_reason or '')
            yield f'{place} will be removed{f": {reason}" if reason else ""}'


def _paths(argv: Sequence[str]) -> list[str]:
    """Return the configuration files that count, in their order."""
    named = files.named(argv)
    if named is None:
        return files.present(loading.DEFAULT_FILE, loading.DEFAULT_DIRECTORY)
    return named


if __name__ == '__main__':
    main()
