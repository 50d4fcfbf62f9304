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

"""What YAML holds -> what a key wants, strictly.

Each function raises ValueError with a message that names the key.
"""

from collections.abc import Iterable
from collections.abc import Mapping
import re
from typing import Any

import yaml

_NOTHING = ('', '~', 'null')
_BOOLEANS = {'true': True, 'yes': True, 'on': True, 'false': False, 'no': False, 'off': False}
_UNITS = {'ns': 1e-9, 'us': 1e-6, 'µs': 1e-6, 'ms': 1e-3, 's': 1.0, 'm': 60.0, 'h': 3600.0}
_DURATION_PART = r'([0-9]+(?:\.[0-9]+)?)(ns|us|µs|ms|s|m|h)'


class Loader(yaml.BaseLoader):
    """Every scalar a text, as it is written; a key that comes twice is an error."""

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Any, Any]:
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            doubled = {key for key in keys if keys.count(key) > 1}
            if doubled:
                raise yaml.constructor.ConstructorError(
                    None, None, f'{min(doubled)!r} is there twice', node.start_mark
                )
        made: dict[Any, Any] = super().construct_mapping(node, deep)  # type: ignore[arg-type]
        return made


def parsed(data: bytes) -> object:
    """Return what a document holds, of scalars only texts.

    :raises ValueError: it is no YAML
    """
    try:
        return yaml.load(data, Loader)  # noqa: S506 - a BaseLoader makes only texts
    except (yaml.YAMLError, RecursionError, ValueError) as exc:
        reason = ' '.join(str(exc).split())
        raise ValueError(f'it is not YAML: {reason}') from exc


def section(tree: object, name: str, known: Iterable[str]) -> Mapping[str, Any]:
    """Return a mapping that has none but known keys."""
    found = mapping(tree, name)
    unknown = found.keys() - set(known)
    if unknown:
        raise ValueError(f'{name} has an unknown key {min(unknown)!r}: take it out')
    return found


def mapping(tree: object, name: str) -> Mapping[str, Any]:
    """Return a mapping, empty where nothing is written."""
    if tree is None or tree in _NOTHING:
        return {}
    if not isinstance(tree, dict):
        raise ValueError(f'{name} is not a mapping: write "key: value" below it')
    return tree


def text(value: object, name: str) -> str:
    """Return a text, empty where nothing is written."""
    if not isinstance(value, str):
        raise ValueError(f'{name} is not a text')
    return '' if value in _NOTHING else value


def texts(value: object, name: str) -> tuple[str, ...]:
    """Return the texts of a list, none where nothing is written."""
    if value in _NOTHING:
        return ()
    if not isinstance(value, list):
        raise ValueError(f'{name} is not a list: write "- value" lines below it')
    return tuple(text(each, name) for each in value)


def names(found: Mapping[str, Any], name: str, known: Mapping[str, str]) -> tuple[str, ...]:
    """Return the texts of a list of which each must be known."""
    return tuple(one_of(each, name, known) for each in texts(found.get(name, ''), name))


def one_of(value: object, name: str, known: Iterable[str]) -> str:
    """Return the value, which must be known."""
    for each in known:
        if value == each:
            return each
    raise ValueError(f'{name}: {value!r} is none of {", ".join(known)}')


def boolean(value: object, name: str) -> bool:
    """Return the truth of one of the words that YAML 1.1 has for it."""
    found = _BOOLEANS.get(value.lower()) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f'{name}: {value!r} is neither true nor false')
    return found


def seconds(value: object, name: str) -> float:
    """Return the seconds of a duration as Go writes them, ``1m30s``, and 0 for nothing."""
    found = text(value, name)
    if found in ('', '0'):
        return 0.0
    if not re.fullmatch(f'({_DURATION_PART})+', found):
        raise ValueError(f'{name}: {found!r} is no duration: write a number and a unit, as in 1s')
    parts = re.findall(_DURATION_PART, found)
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
