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


"""The files of /proc/net that hold figures by name → these figures.

Source: proc_pid_net(5); snmp_seq_show(), sockstat_seq_show() and snmp6_seq_show() of the kernel.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from collections.abc import Set
import math
import operator
import re

from oie import exceptions

Key = tuple[str, str]

_NUMBER = re.compile(r'[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?')
_OF_IPV6 = re.compile('(Ip6|Icmp6|UdpLite6|Udp6)(.+)')
# The names of one kernel are few; IcmpMsg has a name for each type that was seen.
_MOST_LAYOUTS = 128


class Figures(Mapping[Key, int]):
    """Numbers by protocol and name; thousands of these share the names."""

    __slots__ = ('_places', '_values')

    def __init__(self, places: Mapping[Key, int], values: tuple[int, ...]) -> None:
        self._places = places
        self._values = values

    def __getitem__(self, key: Key) -> int:
        return self._values[self._places[key]]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({dict(self)})'


class Layout:
    """Which words of a text are names, and which are the numbers that belong to them.

    :param wanted: the keys of the numbers that are looked at, None for all
    """

    def __init__(
        self, words: Sequence[str], keys: Mapping[int, Key], wanted: Set[Key] | None
    ) -> None:
        names = [place for place in range(len(words)) if place not in keys]
        self._names = operator.itemgetter(*names, 0)
        self._expected = self._names(words)
        kept = {place: key for place, key in keys.items() if wanted is None or key in wanted}
        # Two that nobody wants, for of one alone it gives no tuple.
        self._numbers = operator.itemgetter(*kept, 0, 0)
        self._places = {key: place for place, key in enumerate(kept.values())}

    def figures(self, words: Sequence[str]) -> Figures | None:
        """Return the figures of so many words, None if the names are others.

        :raises SourceError: a number is none
        """
        if self._names(words) != self._expected:
            return None
        try:
            return Figures(self._places, tuple(map(int, self._numbers(words)[:-2])))
        except ValueError as exc:
            raise exceptions.SourceError(str(exc)) from exc


class Parser:
    """Turns the texts of one file into figures; keeps the layouts, which hardly ever change.

    :param keys: gives the keys of the numbers of a text, by the places of these among its words
    :param wanted: the keys of the figures that are kept, None for all
    """

    def __init__(
        self, keys: Callable[[str], Mapping[int, Key]], wanted: Set[Key] | None = None
    ) -> None:
        self._keys = keys
        self._wanted = wanted
        self._layouts: dict[int, list[Layout]] = {}
        self._count = 0

    def parse(self, text: str) -> Figures:
        """Return the figures.

        :raises SourceError: it is no such text, or cut off
        """
        if text[-1:] != '\n':
            raise exceptions.SourceError('the text is empty, or cut off')
        words = text.split()
        for layout in self._layouts.get(len(words), ()):
            found = layout.figures(words)
            if found is not None:
                return found
        keys = self._keys(text)
        if not keys:
            raise exceptions.SourceError('there are no figures in the text')
        layout = Layout(words, keys, self._wanted)
        if self._count == _MOST_LAYOUTS:
            self._layouts, self._count = {}, 0
        self._layouts.setdefault(len(words), []).append(layout)
        self._count += 1
        return layout.figures(words) or Figures({}, ())


def snmp(text: str) -> dict[int, Key]:
    """Return the keys of /proc/net/snmp: lines with names, each before one with numbers.

    :raises SourceError: it is no such text
    """
    keys: dict[int, Key] = {}
    lines = [line.split() for line in text.splitlines()]
    lines += [[]] * (len(lines) % 2)
    place = 0
    for names, numbers in zip(lines[::2], lines[1::2], strict=True):
        place += len(names) + 1
        if names[:1] != numbers[:1] or len(names) != len(numbers) or not _is_name(names):
            raise exceptions.SourceError('names and numbers that do not belong together')
        keys |= {place + step: (names[0][:-1], name) for step, name in enumerate(names[1:])}
        place += len(numbers) - 1
    return keys


def sockstat(text: str) -> dict[int, Key]:
    """Return the keys of /proc/net/sockstat: ``TCP: inuse 5 orphan 0`` and the like.

    :raises SourceError: it is no such text
    """
    keys, place = dict[int, Key](), 0
    for words in map(str.split, text.splitlines()):
        if not _is_name(words) or len(words) % 2 == 0:
            raise exceptions.SourceError('a line that is no list of names and numbers')
        for step in range(1, len(words), 2):
            keys[place + step + 1] = words[0][:-1], words[step]
        place += len(words)
    return keys


def snmp6(text: str) -> dict[int, Key]:
    """Return the keys of /proc/net/snmp6: names such as Udp6InErrors, each with a number.

    :raises SourceError: it is no such text
    """
    words = text.split()
    if any(len(line.split()) != 2 for line in text.splitlines()):
        raise exceptions.SourceError('a line that is no name and number')
    names = [(place, _OF_IPV6.fullmatch(words[place])) for place in range(0, len(words), 2)]
    return {
        place + 1: (match[1], match[2]) if match else ('', words[place]) for place, match in names
    }


PARSERS: Mapping[str, Callable[[str], Mapping[int, Key]]] = {
    'snmp': snmp,
    'snmp6': snmp6,
    'sockstat': sockstat,
}


def number(text: str) -> float:
    """Return the one number that is in a file.

    :raises SourceError: there is something else in it
    """
    found = text.strip()
    if not _NUMBER.fullmatch(found) or not math.isfinite(float(found)):
        raise exceptions.SourceError(f'{found[:40]!r} is no number')
    return float(found)


def _is_name(words: Sequence[str]) -> bool:
    """Return whether a line begins with the name of a protocol."""
    return bool(words) and len(words[0]) > 1 and words[0].endswith(':')
