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

"""The command lines of programs whose commands are words; the others are oslo.config's."""

import argparse
import importlib.metadata
from typing import NoReturn

from oie import exceptions


class Parser(argparse.ArgumentParser):
    """A parser whose errors are those of a configuration: one line, and status 2."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        :raises ConfigError: always
        """
        raise exceptions.ConfigError(f'{message}; see {self.prog.split()[0]} --help')


def parser(prog: str, description: str, epilog: str, usage: str | None = None) -> Parser:
    """Return a parser that knows where the configuration is.

    ``named`` is what oslo.config is to get: files and directories in one list, because of
    both the later ones win.
    """
    made = Parser(
        prog=prog,
        usage=usage,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        '--version', action='version', version=f'{prog} {importlib.metadata.version("oie")}'
    )
    add_files(made, 'named')
    return made


def add_files(made: argparse.ArgumentParser, name: str) -> None:
    """Let a parser, or that of a command, take files and directories as a list of this name."""
    made.set_defaults(**{name: []})
    for option, word, text in (
        ('--config-file', 'FILE', 'read this file; may repeat, later ones win'),
        ('--config-dir', 'DIR', 'read the *.conf files of this directory, in order'),
    ):
        made.add_argument(
            option,
            dest=name,
            action='append',
            type=f'{option}={{}}'.format,
            metavar=word,
            help=text,
        )
