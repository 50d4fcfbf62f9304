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

"""What SIGHUP does: log files and level anew; what else changed in the configuration is told."""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import logging
import time

from oslo_config import cfg

from oie import exceptions
from oie import model
from oie.cmd import log_level

LOG = logging.getLogger(__name__)

# By group and option.
Values = Mapping[tuple[str, str], object]

RELOADED = frozenset({('DEFAULT', 'oie_log_level'), ('DEFAULT', 'debug')})
# Which files were named is no option of the service.
_IGNORED = frozenset({('DEFAULT', name) for name in ('config_file', 'config_dir')})
_MOST_NAMED = 20


def values_of(conf: cfg.ConfigOpts) -> Values:
    """Return the value of every option."""
    found: dict[tuple[str, str], object] = {}
    for name in conf:
        value = conf[name]
        if isinstance(value, cfg.ConfigOpts.GroupAttr):
            found.update({(name, option): value[option] for option in value})
        else:
            found['DEFAULT', name] = value
    return {key: value for key, value in found.items() if key not in _IGNORED}


def level_of(values: Values) -> str:
    """Return the name of the level from which on oie logs."""
    return 'debug' if values['DEFAULT', 'debug'] else str(values['DEFAULT', 'oie_log_level'])


def reopen_log_files() -> None:
    """Open the files of oslo.log anew, so that a rotation by renaming loses nothing.

    One that cannot be opened is told, and what is logged goes on into the old one.
    """
    for handler in list(logging.getLogger().handlers):
        if isinstance(handler, logging.FileHandler):
            reason = _reopen(handler)
            if reason:
                LOG.error('%s cannot be opened anew: %s', handler.baseFilename, reason)


def _reopen(handler: logging.FileHandler) -> str:
    """Let the handler write to a file at its path; return why it cannot, else nothing."""
    try:
        stream = open(handler.baseFilename, 'a', encoding=handler.encoding)
    except OSError as exc:
        return exc.strerror or str(exc)
    old = handler.setStream(stream)
    if old is not None:
        old.close()
    return ''


class Reloader:
    """Compares the files with what runs.

    ``statistics`` is swapped as a whole; any thread may read it.

    :param running: the values that the service was started with
    :param load: reads the files anew; raises ConfigError
    """

    def __init__(
        self,
        running: Values,
        load: Callable[[], cfg.ConfigOpts],
        level: log_level.LogLevel,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._running = running
        self._load = load
        self._level = level
        self._clock = clock
        self.statistics = model.Reloads(is_ok=True, errors=0, succeeded_at=clock(), waiting=0)

    def reload(self) -> bool:
        """Apply what can be applied and say what cannot; return whether the files are right.

        A wrong file changes nothing.
        """
        try:
            new = values_of(self._load())
        except exceptions.ConfigError as exc:
            reason = str(exc)
        else:
            self._apply(new)
            return True
        # Within the except clause oslo.log would add the same text once more.
        LOG.error('the configuration was not reloaded and stays as it was: %s', reason)
        errors = (self.statistics.errors or 0) + 1
        self.statistics = dataclasses.replace(self.statistics, is_ok=False, errors=errors)
        return False

    def _apply(self, new: Values) -> None:
        # A level that somebody set over the endpoint ends here, too; but where the log has a file
        # of its own, that decides alone.
        if not self._running['DEFAULT', 'log_config_append']:
            self._level.set(level_of(new))
        waiting = changed(self._running, new) - RELOADED
        self.statistics = dataclasses.replace(
            self.statistics, is_ok=True, succeeded_at=self._clock(), waiting=len(waiting)
        )
        if waiting:
            LOG.error(
                'reloaded oie_log_level (%s); these changes need a restart: %s',
                self._level.name,
                _named(waiting),
            )
        else:
            LOG.info('reloaded: oie_log_level is %s, nothing else changed', self._level.name)


def changed(before: Values, after: Values) -> set[tuple[str, str]]:
    """Return the options whose values differ, those of sections that came or went too."""
    missing = object()
    keys = before.keys() | after.keys()
    return {key for key in keys if before.get(key, missing) != after.get(key, missing)}


def _named(options: set[tuple[str, str]]) -> str:
    names = [f'[{group}] {option}' for group, option in sorted(options)]
    rest = len(names) - _MOST_NAMED
    return ', '.join(names[:_MOST_NAMED]) + (f' and {rest} more' if rest > 0 else '')
