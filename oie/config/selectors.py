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

"""What a request to ``/federate`` asks for: series selectors, checked, and never changed.

Prometheus sends a selector as it is written in its file, blanks included, and
the gate compares the bytes. So a text is only taken apart, not tidied up.
"""

import re

from oie.config import messages

_STRING = r'''"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`[^`]*`'''
_MATCHER = rf'\s*[a-zA-Z_]\w*\s*(?:=~|!~|!=|=)\s*(?:{_STRING})\s*'
_NAME = r'[a-zA-Z_:][\w:]*'
_SELECTOR = re.compile(
    rf'({_NAME})?\s*(\{{(?:{_MATCHER}(?:,{_MATCHER})*(?:,\s*)?|\s*)\}})?', re.ASCII
)
_PARTS = re.compile(rf'([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*({_STRING})', re.ASCII)
_EXAMPLE = 'write for example {job="project_usage"}'


def parse(text: str) -> tuple[str, ...]:
    """Return the selectors of one request in their order, each as it was written.

    Blanks stand between them.

    :raises ValueError: a text that is no selector, or one that Prometheus refuses because it
        would choose every series
    """
    found: list[str] = []
    rest = text.strip()
    if not rest:
        raise ValueError(f'there is no selector; {_EXAMPLE}')
    while rest:
        match = _SELECTOR.match(rest)
        selector = match[0].rstrip() if match else ''
        after = rest[len(selector) :]
        if not match or not selector or (after and not after[0].isspace()):
            raise ValueError(f'{messages.quoted(rest)} is no selector; {_EXAMPLE}')
        if not match[1] and not _chooses(match[2]):
            raise ValueError(
                f'{messages.quoted(selector)} chooses every series, which Prometheus refuses; '
                f'{_EXAMPLE}'
            )
        found.append(selector)
        rest = after.lstrip()
    return tuple(found)


def _chooses(braces: str) -> bool:
    """Return whether a series without labels is not meant, which is what Prometheus asks for."""
    return any(
        not _takes_nothing(operator, string[1:-1])
        for _, operator, string in _PARTS.findall(braces)
    )


def _takes_nothing(operator: str, value: str) -> bool:
    """Return whether a matcher takes the value of a label that is not there."""
    if operator in ('=', '!='):
        return (value == '') == (operator == '=')
    try:
        takes = re.fullmatch(value.replace('\\\\', '\\'), '') is not None
    except re.error:
        # Prometheus knows expressions that Python does not; it will judge by itself.
        return False
    return takes == (operator == '=~')
