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


"""Values that strangers chose → markup that is nothing else than these values."""

from collections.abc import Iterable
from collections.abc import Sequence
import html
import re

# Longer texts are cut: a name may have any length, a page may not.
LONGEST = 200

# Controls would break lines, and marks of direction let a text pose as its neighbour (UAX #9).
_UNPRINTABLE = re.compile(
    '[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]'
)
_REPLACEMENT = '\ufffd'
_STEPS = (('d', 86400.0), ('h', 3600.0), ('min', 60.0))


class Html(str):
    """Markup. Whatever is none gets escaped where it becomes a part of some."""

    __slots__ = ()


def text(value: object) -> Html:
    """Return a value as the text of a page: printable, escaped, of a bounded length."""
    whole = str(value)
    cut = whole if len(whole) <= LONGEST else f'{whole[:LONGEST]}…'
    return Html(html.escape(_UNPRINTABLE.sub(_REPLACEMENT, cut)))


def name(value: object) -> Html:
    """Return a name that anybody may have chosen; its direction of writing stays its own."""
    return tag('bdi', value)


def tag(element: str, *children: object, **attributes: str) -> Html:
    """Return an element with what is in it.

    :param attributes: ``class_`` is class, ``aria_label`` is aria-label
    """
    shown = ''.join(
        f' {key.strip("_").replace("_", "-")}="{text(value)}"' for key, value in attributes.items()
    )
    return Html(f'<{element}{shown}>{join(children)}</{element}>')


def join(children: Iterable[object]) -> Html:
    """Return markup as it is and everything else escaped, one after the other."""
    return Html(''.join(c if isinstance(c, Html) else text(c) for c in children))


def table(caption: str, titles: Sequence[str], rows: Iterable[Sequence[object]]) -> Html:
    """Return a table whose first column names the rows; empty without rows.

    It stands in a box that scrolls where a window is narrow, by keyboard too.
    """
    lines = [tag('tr', tag('th', row[0], scope='row'), *map(_cell, row[1:])) for row in rows]
    if not lines:
        return Html()
    head = tag('tr', *(tag('th', title, scope='col') for title in titles))
    body = tag('table', tag('caption', caption), tag('thead', head), tag('tbody', *lines))
    return tag('div', body, class_='wide', role='region', aria_label=caption, tabindex='0')


def _cell(value: object) -> Html:
    return tag('td', value)


def terms(pairs: Iterable[tuple[str, object]]) -> Html:
    """Return a list of terms and what they are; None is left out, as it is not known."""
    return tag(
        'dl',
        *(
            tag('div', tag('dt', term), tag('dd', value))
            for term, value in pairs
            if value is not None and value != ''
        ),
    )


def span(seconds: float) -> str:
    """Return a length of time in words: ``54 ms``, ``4.2 s``, ``3 min``, ``2 d 5 h``."""
    if seconds < 1:
        return f'{max(0.0, 1000 * seconds):.3g} ms'
    if seconds < 60:
        return f'{seconds:.3g} s'
    for (unit, size), (smaller, part) in zip(_STEPS, (*_STEPS[1:], ('s', 1.0)), strict=True):
        if seconds >= size:
            rest = int(seconds % size // part)
            whole = f'{int(seconds // size)} {unit}'
            return f'{whole} {rest} {smaller}' if rest and unit != 'min' else whole
    raise AssertionError(seconds)


def ago(moment: float | None, now: float) -> str:
    """Return how long ago a Unix time was, ``never`` for None."""
    if moment is None:
        return 'never'
    # Less than a second is nothing that a reader could use.
    age = round(now - moment)
    return f'{span(age)} ago' if age > 0 else 'just now'


def count(number: int | float | None) -> str | None:
    """Return a number with its thousands apart; None is not known."""
    return None if number is None else f'{number:,}'.replace(',', '\u202f')
