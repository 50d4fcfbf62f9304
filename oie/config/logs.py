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

"""Where the log goes and from which level on."""

import logging

from oslo_config import cfg

from oie import exceptions
from oie.config import messages

# No level of our own for notice: the colours of oslo.log 8.3 raise KeyError for
# one, and its journal and syslog handlers give it the priority of debug.
LEVELS = {
    'error': logging.ERROR,
    'notice': logging.WARNING,
    'info': logging.INFO,
    'debug': logging.DEBUG,
}


def register(conf: cfg.ConfigOpts) -> list[cfg.Opt]:
    """Register what the command line may say of the log; return all options of oslo.log."""
    # Importing oslo.log costs as much as all of ours; describing options needs none of it.
    from oslo_log import _options  # the module that its entry point for list_opts() names
    from oslo_log import log

    handlers = list(logging.root.handlers)
    log.register_options(conf)
    logging.root.handlers[:] = handlers  # it adds one that writes to stderr
    return [opt for _, opts in _options.list_opts() for opt in opts]


def setup(conf: cfg.ConfigOpts) -> None:
    """Send the log where the options of oslo.log say, to stderr when they name nothing.

    oie logs from ``oie_log_level`` on, everything else from warnings on. A file
    named by ``log_config_append`` decides all of this alone.

    :raises ConfigError: the log cannot be written there
    """
    from oslo_log import log

    if not (conf.log_file or conf.log_dir or conf.use_journal or conf.use_syslog):
        conf.set_default('use_stderr', True)
    try:
        log.setup(conf, 'oie')
    except OSError as exc:
        raise exceptions.ConfigError(
            f'the log cannot be written to {exc.filename}: {exc.strerror}'
        ) from exc
    except (log.LogConfigError, TypeError, ValueError, RuntimeError) as exc:
        raise exceptions.ConfigError(
            messages.one_line(f'the log cannot be set up: {exc}')
        ) from exc
    for handler in logging.getLogger().handlers:
        if handler.formatter is not None:
            handler.setFormatter(WithoutSummary(handler.formatter))
    if not conf.log_config_append:
        logging.getLogger().setLevel(logging.WARNING)
        set_level('debug' if conf.debug else conf.oie_log_level)


class WithoutSummary(logging.Formatter):
    """Writes a record as another formatter does, and nothing behind it.

    Within an except clause oslo.log appends the exception that is handled, as it is: the text
    that the line has already, with whatever a tenant wrote into it. A ValueError it leaves out
    (oslo_log.formatters, _get_error_summary). A traceback that is asked for stays.
    """

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self._formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        try:
            raise ValueError
        except ValueError:
            return self._formatter.format(record)


def set_level(name: str) -> None:
    """Let oie log from the level of this name on; the libraries stay as they are."""
    logging.getLogger('oie').setLevel(LEVELS[name])
