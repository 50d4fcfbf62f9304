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

"""Selectors into the line that Prometheus asks for: path and query, byte for byte.

Prometheus gives the parameters of a scrape to Go's ``url.Values.Encode``: names
in the order of the alphabet, the values of a name in the order of the file,
everything but letters, digits and ``-_.~`` as ``%XX`` in capitals, a blank as
``+``. Source: net/url of Go, ``Target.URL()`` of Prometheus 2.42.
"""

from collections.abc import Iterable
from collections.abc import Sequence
import urllib.parse

from oie import exceptions

PARAMETER = 'match[]'
# What stands in a buffer of HAProxy besides a line: 1,024 bytes that haproxy.cfg keeps free
# (tune.maxrewrite), and the headers: a token of up to 2 kB, and what Prometheus says of itself.
# With a token of 43 characters 15,143 bytes pass over HTTP/2 (HAProxy 2.6.12, 2026-11).
BESIDES = 4096
_SHOWN = 40


def request_line(selectors: Sequence[str], path: str = '/federate') -> str:
    """Return the path and the query by which Prometheus asks for these series."""
    # What Python leaves as it is are the same characters.
    query = urllib.parse.urlencode([(PARAMETER, each) for each in selectors])
    return f'{path}?{query}'


def check_lengths(requests: Iterable[Sequence[str]], path: str, most: int) -> None:
    """Make sure that the gate has room for each request.

    :param most: bytes that a line may have
    :raises ConfigError: one is longer
    """
    for selectors in requests:
        size = len(request_line(selectors, path))
        if size > most:
            begin = ' '.join(selectors)[:_SHOWN]
            raise exceptions.ConfigError(
                f'[gate] selectors, {begin}...: the request has {size} bytes and [gate] '
                f'max_line_bytes is {most}; write several lines of selectors, a scrape job of the '
                'portal for each, or raise max_line_bytes and tune.bufsize in haproxy.cfg, which '
                f'must be larger by {BESIDES}'
            )


def listed(requests: Iterable[Sequence[str]], path: str) -> str:
    """Return the list of allowed lines as text, each of them once."""
    lines = dict.fromkeys(request_line(selectors, path) for selectors in requests)
    return ''.join(f'{line}\n' for line in lines)


def scrape_parameters(requests: Iterable[Sequence[str]], path: str) -> str:
    """Return what a portal writes into its scrape jobs, a job for each request, as YAML."""
    parts = []
    for selectors in requests:
        values = ''.join(f"    - '{_single_quoted(each)}'\n" for each in selectors)
        parts.append(f"metrics_path: {path}\nparams:\n  '{PARAMETER}':\n{values}")
    return '---\n'.join(parts)


def _single_quoted(text: str) -> str:
    return text.replace("'", "''")
