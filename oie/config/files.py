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

"""Configuration files into a list of settings, each with the place where it stands.

oslo.config reads the same files by the same parser; it only does not tell
where a value came from, nor what nobody asked for.
"""

import argparse
from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import io
import os
import stat
from typing import NoReturn

from oslo_config import iniparser

from oie import exceptions
from oie.config import messages


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """What one place of a file says; a section's head is a setting without a name."""

    path: str
    line: int
    section: str
    name: str = ''
    value: str = ''

    @property
    def place(self) -> str:
        """File and line, as compilers and editors write them."""
        return f'{self.path}:{self.line}'


# --- which files --------------------------------------------------------------


def named(argv: Sequence[str]) -> list[str] | None:
    """Return the files that --config-file and --config-dir name, later ones win.

    None: the command line has neither of the two.

    :raises ConfigError: a directory cannot be listed, an argument lacks its value
    """
    parser = _Arguments(add_help=False)
    parser.add_argument('--config-file', dest='found', action='append', type=_file)
    parser.add_argument('--config-dir', dest='found', action='append', type=_files_below)
    found = parser.parse_known_args(argv)[0].found
    return None if found is None else [path for paths in found for path in paths]


def present(file: str, directory: str) -> list[str]:
    """Return the default files as far as they exist, later ones win.

    :raises ConfigError: the directory is there and cannot be listed
    """
    files = [file] if _is_present(file) else []
    return files + (_files_below(directory) if _is_present(directory) else [])


class _Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise exceptions.ConfigError(message)


def _file(path: str) -> list[str]:
    return [os.path.abspath(os.path.expanduser(path))]


def _files_below(directory: str) -> list[str]:
    [directory] = _file(directory)
    try:
        names = sorted(os.listdir(directory))
    except OSError as exc:
        raise _unreadable(directory, exc) from exc
    return [
        os.path.join(directory, name)
        for name in names
        if name.endswith('.conf') and not name.startswith('.')
    ]


def _is_present(path: str) -> bool:
    """Return False only where there is surely nothing: what we may not see is there."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


# --- what they say ------------------------------------------------------------


def read(paths: Iterable[str]) -> list[Setting]:
    """Return the settings of all files in their order.

    :raises ConfigError: a file cannot be read, is not UTF-8, or breaks the syntax
    """
    return [setting for path in paths for setting in parse(path, _read_bytes(path))]


def parse(path: str, content: bytes) -> list[Setting]:
    """Return the settings of one file.

    :param path: only for the places of the settings
    :raises ConfigError: not UTF-8, or against the syntax
    """
    try:
        text = content.decode()
    except UnicodeDecodeError as exc:
        line = content.count(b'\n', 0, exc.start) + 1
        raise exceptions.ConfigError(
            f'{path}:{line}: not UTF-8 text: byte 0x{content[exc.start]:02x}'
        ) from exc
    parser = _Parser(path)
    try:
        # The blank line at the end lets the last assignment end like all others.
        parser.parse([*io.StringIO(text, newline=None), '\n'])
    except iniparser.ParseError as exc:
        shown = f': {messages.quoted(exc.line)}' if exc.line else ''
        raise exceptions.ConfigError(f'{path}:{exc.lineno}: {exc.msg}{shown}') from exc
    return parser.settings


class _Parser(iniparser.BaseParser):
    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._section = ''
        self.settings: list[Setting] = []

    def new_section(self, section: str) -> None:
        self._section = section
        self.settings.append(Setting(self._path, self.lineno, section))

    def assignment(self, key: str, value: list[str]) -> None:
        # Called at the line after the last one of the value.
        line = self.lineno - len(value)
        if not self._section:
            raise iniparser.ParseError('Option before the first [section]', line, key)
        text = '\n'.join(value)
        self.settings.append(Setting(self._path, line, self._section, key, text))


def _read_bytes(path: str) -> bytes:
    try:
        # oslo.config reads the file once more, which a pipe would answer with nothing.
        if stat.S_ISFIFO(os.stat(path).st_mode):
            raise exceptions.ConfigError(f'{path}: a pipe can be read only once; name a file')
        with open(path, 'rb') as file:
            return file.read()
    except OSError as exc:
        raise _unreadable(path, exc) from exc


def _unreadable(path: str, error: OSError) -> exceptions.ConfigError:
    return exceptions.ConfigError(f'{path}: cannot be read: {error.strerror}')
