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


r"""Regular expressions as other exporters take them, from Go's to Python's.

What both know means the same here: ``\d``, ``\s``, ``\w`` and ``\b`` know ASCII only. What
Python does not know, or would take for something else, is refused. Source: re2/wiki/Syntax
of Go's package regexp/syntax, and the documentation of Python's re.
"""

import re
import warnings

from oie.config import messages

# What is looked for outside of an escape, and what to write in its place.
_GO_ONLY: tuple[tuple[str, str], ...] = (
    (r'\[\[?\^?:\^?[a-z]+:\]', 'a class like [[:alpha:]]; write [A-Za-z] or so'),
    (r'\(\?[a-z]*U', 'the flag U (ungreedy); write *? in place of *, and so on'),
    (r'\(\?<[A-Za-z_]', 'a group (?<name>...); write (?P<name>...)'),
    (r'\{,[0-9]+\}', 'a repetition without a lower bound; write {0,n}, or \\{ for the sign'),
)
_GO_ESCAPES = {
    'z': '\\z; write \\Z for the end of the text',
    'Q': '\\Q...\\E; write a \\ before each sign',
    'p': 'a class of Unicode (\\p); write the signs in [...]',
    'P': 'a class of Unicode (\\P); write the signs in [^...]',
    'C': '\\C; write . for any sign',
}
_ESCAPE = re.compile(r'\\(x\{|.)', re.DOTALL)


def compiled(text: str) -> re.Pattern[str]:
    """Return a regular expression, to be searched anywhere in a text.

    :raises ValueError: it is wrong, or Python's re does not take it as Go does
    """
    refused = _refused(text)
    if refused:
        raise ValueError(f'{messages.quoted(text)} has {refused}')
    try:
        with warnings.catch_warnings():
            # Of what may be a set in a set some day, and of flags that are not at the beginning.
            warnings.simplefilter('error')
            return re.compile(text, re.ASCII)
    except (re.error, RecursionError, OverflowError, Warning, ValueError) as exc:
        reason = messages.one_line(exc)
        raise ValueError(f'{messages.quoted(text)} is no regular expression: {reason}') from exc


def _refused(text: str) -> str:
    """Return what only Go knows, and what to write instead; empty if there is nothing."""
    for match in _ESCAPE.finditer(text):
        if match[1] == 'x{':
            return '\\x{...}; write \\xHH, \\uHHHH or the sign itself'
        if match[1] in _GO_ESCAPES:
            return _GO_ESCAPES[match[1]]
    plain = _ESCAPE.sub('__', text)
    return next((instead for form, instead in _GO_ONLY if re.search(form, plain)), '')
