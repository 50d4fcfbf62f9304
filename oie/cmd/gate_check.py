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

"""``oie-usage-gate check``: every attempt against a running gate, and what became of it."""

import argparse
import collections
from collections.abc import Iterable
from collections.abc import Mapping

from oslo_config import cfg

from oie import exceptions
from oie.federation import checking
from oie.federation import connections
from oie.federation import http2_client
from oie.federation import request_lines
from oie.feeds import local_files

_WRONG = (checking.BYPASS, checking.NOT_ALLOWED)
_RIGHT = (checking.ALLOWED, checking.REFUSED)


def check(conf: cfg.ConfigOpts, arguments: argparse.Namespace) -> int:
    """Try to get past a gate; print each outcome and a sum; return the exit status.

    :raises ConfigError: the URL, the file of the token or that of the authorities is wrong
    """
    gate = connections.gate_of(arguments.url, arguments.ca)
    token = read_token(arguments.token_file) if arguments.token_file else ''
    lines = [request_lines.request_line(each, conf.gate.path) for each in conf.gate.selectors]
    try:
        checking.check_reachable(gate)
    except exceptions.GateError as exc:
        raise exceptions.ConfigError(str(exc)) from exc
    counts = _printed(checking.outcomes(gate, lines, token), is_quiet=arguments.quiet)
    print(_summary(counts))
    if any(counts[word] for word in _WRONG):
        return 1
    # What a stranger cannot try is left out on purpose; what h2 would try is not.
    is_whole = http2_client.is_available() and not counts[checking.UNREACHED]
    return 0 if is_whole else 2


def read_token(path: str) -> str:
    """Return the token that is in a file.

    :raises ConfigError: others may read the file, or it holds something else
    """
    try:
        return local_files.read_secret(path)
    except exceptions.FeedError as exc:
        raise exceptions.ConfigError(f'--token-file {path}: {exc}') from exc


def _printed(found: Iterable[checking.Outcome], *, is_quiet: bool) -> Mapping[str, int]:
    counts: collections.Counter[str] = collections.Counter()
    for outcome in found:
        counts[outcome.result] += 1
        if is_quiet and outcome.result in _RIGHT:
            continue
        attempt = outcome.attempt
        print(
            f'{outcome.result:13} {attempt.protocol:8}  {attempt.group:10}  {attempt.name}: '
            f'{outcome.detail}'
        )
    return counts


def _summary(counts: Mapping[str, int]) -> str:
    said = [f'{counts[word]} {word}' for word in (*_RIGHT, *_WRONG)]
    missing = (checking.UNREACHED, checking.NOT_TRIED)
    said += [f'{counts[word]} {word}' for word in missing if counts[word]]
    return f'{sum(counts.values())} attempts: {", ".join(said)}'
