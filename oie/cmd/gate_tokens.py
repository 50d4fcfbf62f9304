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

"""``oie-usage-gate token``: tokens of portals, made, shown and ended without a reload."""

import argparse
from collections.abc import Iterable
from collections.abc import Sequence
import os
import sys

from oslo_config import cfg

from oie import exceptions
from oie.cmd import gate_check
from oie.federation import files
from oie.federation import runtime
from oie.federation import tokens


def map_path(conf: cfg.ConfigOpts) -> str:
    """Return where the map of tokens is."""
    return os.path.join(conf.gate.directory, 'tokens.map')


def write(conf: cfg.ConfigOpts, entries: Iterable[tokens.Entry]) -> None:
    """Replace the map of tokens.

    :raises GateError: it could not be written; the old one is what it was
    """
    mode = 0o640 if conf.gate.group else 0o600
    files.replace(map_path(conf), tokens.text_of(entries), mode=mode, group=conf.gate.group)


def new(conf: cfg.ConfigOpts, arguments: argparse.Namespace) -> int:
    """Make a token valid and print it, or make valid the one of a file."""
    name = tokens.check_name(arguments.name)
    given = arguments.token_file
    token = tokens.check_token(gate_check.read_token(given)) if given else tokens.fresh()
    entry = tokens.Entry(tokens.hash_of(token), name)
    with files.locked(conf.gate.directory):
        known = _known(conf)
        if any(each.hash == entry.hash for each in known):
            raise exceptions.GateError('this token is in the map already; let us make a fresh one')
        write(conf, (*known, entry))
    if not given:
        print(token)
        sys.stdout.flush()
    commands = runtime.additions(map_path(conf), [entry])
    return _tell(conf, commands, f'the new token of {name}', is_harmless=True)


def remove(conf: cfg.ConfigOpts, arguments: argparse.Namespace) -> int:
    """End tokens of a portal."""
    with files.locked(conf.gate.directory):
        known = _known(conf)
        gone = tokens.chosen(
            known, arguments.name, id_=arguments.id or '', is_older=arguments.older
        )
        write(conf, [entry for entry in known if entry not in gone])
    commands = runtime.removals(map_path(conf), gone)
    what = f'the end of {len(gone)} tokens of {arguments.name}'
    return _tell(conf, commands, what, is_harmless=False)


def show(conf: cfg.ConfigOpts, arguments: argparse.Namespace) -> int:
    """Print whose tokens are valid, the oldest first."""
    for entry in _known(conf):
        print(f'{entry.id}  {entry.portal}')
    return 0


def _known(conf: cfg.ConfigOpts) -> tuple[tokens.Entry, ...]:
    path = map_path(conf)
    return tokens.parse(files.read(path) or '', path)


def _tell(conf: cfg.ConfigOpts, commands: Sequence[str], what: str, *, is_harmless: bool) -> int:
    """Tell the running gate, or print how to; return the exit status.

    :param is_harmless: whether a gate that has not heard of it lets in nobody that it should not
    """
    path = conf.gate.socket_path
    if not path:
        sys.stderr.write(_lines('send this to the stats socket of HAProxy:', commands))
        return 0
    try:
        runtime.send(path, commands)
    except exceptions.GateError as exc:
        head = f'the file is written, but no running gate has heard of {what}: {exc}; reload it, '
        sys.stderr.write(_lines(f'{head}or send it:', commands))
        # A gate that starts later reads the file; one that runs unseen still knows a token.
        return 0 if isinstance(exc, runtime.NoGate) and is_harmless else 1
    return 0


def _lines(head: str, commands: Sequence[str]) -> str:
    return ''.join(f'{line}\n' for line in (f'oie-usage-gate: {head}', *commands))
