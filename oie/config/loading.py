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

"""The command line and the configuration files into checked options, or one line of error."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
import contextlib
import io
import sys
from typing import NoReturn

from oslo_config import cfg

from oie import exceptions
from oie.config import checks
from oie.config import core_options
from oie.config import files
from oie.config import logs
from oie.config import messages
from oie.config import secrets

DEFAULT_FILE = '/etc/oie/oie.conf'
DEFAULT_DIRECTORY = '/etc/oie/oie.conf.d'
EXIT_STATUS = 2

_HELP = frozenset({'-h', '--help', '--version'})
_EPILOG = (
    f'Without --config-file and --config-dir, {DEFAULT_FILE} and {DEFAULT_DIRECTORY}/*.conf '
    'are read as far as they exist.'
)

Group = tuple[cfg.OptGroup | None, Sequence[cfg.Opt]]


def load(
    argv: Sequence[str],
    *,
    prog: str,
    groups: Callable[[Sequence[files.Setting]], Iterable[Group]],
    extra_cli: Sequence[cfg.Opt] = (),
    version: str | None = None,
    default_file: str = DEFAULT_FILE,
    default_directory: str = DEFAULT_DIRECTORY,
) -> cfg.ConfigOpts:
    """Return all options, each of them read once and found right.

    They come from the files and the command line, never from the environment.

    :param argv: the command line without the name of the program
    :param groups: gives the options of the plugins, see plugins.option_groups(); what the
        files say decides about groups that operators name themselves
    :param extra_cli: arguments of this program alone; files cannot set them
    :raises ConfigError: anything is wrong, or others may read a file with secrets; the text is
        one line with place, option and value
    :raises SystemExit: the command line asked for help or the version
    """
    conf = cfg.ConfigOpts()
    conf.register_cli_opts(list(extra_cli))
    if _HELP.intersection(argv):
        register(conf, groups(()))
        _parse(conf, argv, prog, version, ())
    named = files.named(argv)
    present = files.present(default_file, default_directory) if named is None else []
    found = list(files.read(named or present))
    options = register(conf, groups(found))
    settings = checks.check_files(found, options)
    secrets.check(settings, options)
    _parse(conf, argv, prog, version, present)
    checks.check_values(conf, settings, options)
    return conf


def fail(prog: str, error: exceptions.OieError) -> NoReturn:
    """Say in one line on stderr why the program does not start, and end it with status 2."""
    sys.stderr.write(f'{prog}: {messages.one_line(error)}\n')
    sys.exit(EXIT_STATUS)


def register(conf: cfg.ConfigOpts, groups: Iterable[Group]) -> checks.Options:
    """Make the options known to conf: the program's, the plugins' and those of oslo.log.

    :raises ConfigError: two plugins mean different things by one name
    """
    options: checks.Options = {'DEFAULT': {}}
    for group, opts in (*core_options.OPTS, *groups, (None, logs.register(conf))):
        name = group.name if group else 'DEFAULT'
        options.setdefault(name, {})
        if group:
            # Never the object itself: oslo.config keeps one conf's overrides in it.
            conf.register_group(cfg.OptGroup(name))
        for opt in opts:
            _register(conf, name, opt)
            options[name][opt.dest] = checks.Option(name, opt)
            for old in opt.deprecated_opts:
                section = options.setdefault(old.group or name, {})
                section.setdefault(old.name or opt.dest, checks.Option(name, opt))
    return options


def _register(conf: cfg.ConfigOpts, group: str, opt: cfg.Opt) -> None:
    try:
        conf.register_opt(opt, None if group == 'DEFAULT' else group)
    except cfg.DuplicateOptError as exc:
        raise exceptions.ConfigError(
            f'[{group}] {opt.dest} is an option of two plugins that do not agree about it; '
            'uninstall one of them'
        ) from exc


def _parse(
    conf: cfg.ConfigOpts,
    argv: Sequence[str],
    prog: str,
    version: str | None,
    default_files: Sequence[str],
) -> None:
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            conf(
                list(argv),
                prog=prog,
                version=version,
                epilog=_EPILOG,
                default_config_files=list(default_files),
                default_config_dirs=[],
                use_env=False,
            )
    except SystemExit as exc:
        # Older oslo.config ends with no status for a wrong value too.
        if not exc.code and not errors.getvalue():
            raise
        # argparse prints its usage before the reason.
        reason = errors.getvalue().rpartition(f'{prog}: error: ')[-1]
        raise exceptions.ConfigError(messages.one_line(reason)) from None
    except (cfg.Error, OSError, UnicodeError) as exc:
        raise exceptions.ConfigError(messages.one_line(exc)) from exc
    except RecursionError as exc:
        raise exceptions.ConfigError('[DEFAULT]: a reference ($) leads back to itself') from exc
