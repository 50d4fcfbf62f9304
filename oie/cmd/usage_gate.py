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

"""oie-usage-gate: the files of the gate, the tokens of portals, and a test of a running gate."""

import argparse
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import os
import sys

from oslo_config import cfg

from oie import config
from oie import exceptions
from oie.cmd import command_lines
from oie.cmd import gate_check
from oie.cmd import gate_tokens
from oie.cmd import wiring
from oie.config import loading
from oie.config import messages
from oie.federation import files
from oie.federation import request_lines

PROG = 'oie-usage-gate'
FAILED = 1

_DESCRIPTION = """\
Let a portal fetch exactly the chosen series of this site, and nothing else.

commands:
  generate              write the list of allowed requests; print what a portal needs
  token new NAME        make a token for a portal and print it, this once
  token list            show whose tokens are valid, by the beginning of their hash
  token remove NAME     end the tokens of a portal, or one of them
  check URL             try to get past a running gate; print what became of each attempt
"""
_EPILOG = f"""\
Without --config-file and --config-dir, {loading.DEFAULT_FILE} and
{loading.DEFAULT_DIRECTORY}/*.conf are read as far as they exist; [gate] counts.

exit status:
  0    done; of a check: all attempts that were made ended as they should
  1    not done; of a check: something got past the gate, or was refused though allowed
  2    the command line or an option is wrong, or the check could not be made in full
"""


def main() -> int:
    """Run the command; return the exit status."""
    return run(sys.argv[1:])


def run(argv: Sequence[str]) -> int:
    """Run the command; return the exit status.

    :raises SystemExit: the command line or an option is wrong, or asks for help
    """
    try:
        arguments = _parser().parse_args(argv)
        conf = wiring.load([*arguments.named, *arguments.named_later], PROG)
        command: Callable[[cfg.ConfigOpts, argparse.Namespace], int] = arguments.run
        return command(conf, arguments)
    except exceptions.ConfigError as exc:
        config.fail(PROG, exc)
    except exceptions.OieError as exc:
        sys.stderr.write(f'{PROG}: {messages.one_line(exc)}\n')
        return FAILED


# --- the command line ---------------------------------------------------------


def _parser() -> command_lines.Parser:
    usage = f'{PROG} [options] COMMAND ...'
    parser = command_lines.parser(PROG, _DESCRIPTION, _EPILOG, usage)
    commands = parser.add_subparsers(required=True, metavar='COMMAND', help=argparse.SUPPRESS)
    _command(commands, 'generate', generate)
    _token_commands(commands)
    _check_command(commands)
    return parser


def _command(
    commands: 'argparse._SubParsersAction[command_lines.Parser]',
    name: str,
    run_it: Callable[[cfg.ConfigOpts, argparse.Namespace], int],
    arguments: Mapping[str, str] | None = None,
) -> argparse.ArgumentParser:
    """Add a command with its positional arguments, each by name and help."""
    parser = commands.add_parser(name, allow_abbrev=False)
    parser.set_defaults(run=run_it)
    # Behind the command they count as well; a list of its own, or it would hide the other.
    command_lines.add_files(parser, 'named_later')
    for word, text in (arguments or {}).items():
        optional = '?' if word.startswith('[') else None
        parser.add_argument(word.strip('[]').lower(), metavar=word, nargs=optional, help=text)
    return parser


def _token_commands(commands: 'argparse._SubParsersAction[command_lines.Parser]') -> None:
    parser = commands.add_parser('token', allow_abbrev=False)
    tokens = parser.add_subparsers(required=True, metavar='COMMAND')
    new = _command(tokens, 'new', gate_tokens.new, {'NAME': 'of the portal'})
    new.add_argument(
        '--token-file',
        metavar='FILE',
        help='take the token that is in this file, and print none: one that a portal has already',
    )
    _command(tokens, 'list', gate_tokens.show)
    remove = _command(
        tokens,
        'remove',
        gate_tokens.remove,
        {'NAME': 'of the portal', '[ID]': 'beginning of the hash of one of its tokens'},
    )
    remove.add_argument('--older', action='store_true', help='all of its tokens but the newest')


def _check_command(commands: 'argparse._SubParsersAction[command_lines.Parser]') -> None:
    check = _command(
        commands, 'check', gate_check.check, {'URL': 'http://HOST:PORT or https://HOST:PORT'}
    )
    check.add_argument(
        '--token-file',
        metavar='FILE',
        help='a valid token; without one only what strangers can do is tried',
    )
    check.add_argument(
        '--ca', metavar='FILE', default='', help='authorities to trust, in place of the system\'s'
    )
    check.add_argument(
        '--quiet', action='store_true', help='print only what is not as it should be'
    )


# --- generate -----------------------------------------------------------------


def generate(conf: cfg.ConfigOpts, arguments: argparse.Namespace) -> int:
    """Write the list of allowed requests, and an empty map of tokens where there is none.

    :raises ConfigError: the gate has no room for a request; nothing is written
    """
    gate = conf.gate
    request_lines.check_lengths(gate.selectors, gate.path, gate.max_line_bytes)
    _make_directory(gate.directory)
    path = os.path.join(gate.directory, 'allowed_uris.lst')
    with files.locked(gate.directory):
        text = request_lines.listed(gate.selectors, gate.path)
        is_new = files.replace(path, text, mode=0o644)
        if files.read(gate_tokens.map_path(conf)) is None:
            gate_tokens.write(conf, ())
    state = 'written; reload HAProxy' if is_new else 'unchanged'
    print(f'# {path}: {state}. A scrape job of a portal has:')
    print(request_lines.scrape_parameters(gate.selectors, gate.path), end='')
    return 0


def _make_directory(path: str) -> None:
    try:
        os.makedirs(path, mode=0o755, exist_ok=True)
    except OSError as exc:
        raise exceptions.GateError(
            f'[gate] directory = {path}: cannot be made: {exc.strerror}; make it, or name another'
        ) from exc


if __name__ == '__main__':
    sys.exit(main())
