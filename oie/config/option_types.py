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

"""The types of our options: a text into its value, or one sentence that says what is wrong.

oslo.config's generator prints a type's ``min``, ``max`` and ``choices`` as they
are, hence ``Duration.min`` is text.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import decimal
import ipaddress
import re
from typing import Any
from typing import ClassVar
import urllib.parse

from oslo_config import types
from stevedore import named

from oie import model
from oie.config import durations
from oie.config import endpoints
from oie.config import messages
from oie.config import moments
from oie.config import patterns
from oie.config import proc_files
from oie.config import selectors
from oie.config import weight_tables

_HTTP_PATH = re.compile(r'(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)+')
# sun_path of unix(7) has 108 bytes, the last of them is NUL.
_LIST_NAME = re.compile('[a-z][a-z0-9_]{0,39}')
_SOCKET_PATH_BYTES = 107


class _Type(types.ConfigType):
    """What our types share: equal when made alike, which oslo.config asks of options."""

    def __repr__(self) -> str:
        return type(self).__name__

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def _formatter(self, value: Any) -> str:
        return str(value)


class Duration(_Type):
    """A length of time; the value is seconds as float.

    :param minimum: the shortest one allowed, in seconds
    :param maximum: the longest one allowed, in seconds
    """

    def __init__(self, minimum: float = 0, maximum: float | None = None) -> None:
        super().__init__(type_name='duration')
        self._minimum = minimum
        self._maximum = maximum
        self.min = durations.text_of(minimum) if minimum else None
        self.max = None if maximum is None else durations.text_of(maximum)

    def __call__(self, value: Any) -> float:
        """Return the seconds of a text or of a number.

        :raises ValueError: no duration, or one out of range
        """
        seconds = float(value) if isinstance(value, int | float) else durations.parse(value)
        if seconds < self._minimum:
            raise ValueError(f'{durations.text_of(seconds)} is below the minimum {self.min}')
        if self._maximum is not None and seconds > self._maximum:
            raise ValueError(f'{durations.text_of(seconds)} is above the maximum {self.max}')
        return seconds

    def _formatter(self, value: Any) -> str:
        return durations.text_of(self(value))


class Thresholds(_Type):
    """``tier:IOPS,tier:IOPS``; the value is a dictionary of whole numbers."""

    def __init__(self) -> None:
        super().__init__(type_name='tier:IOPS,tier:IOPS')

    def __call__(self, value: Any) -> dict[str, int]:
        """Return the numbers by tier.

        :raises ValueError: a piece is not ``tier:IOPS``, or a tier comes twice
        """
        if isinstance(value, Mapping):
            return dict(value)
        thresholds: dict[str, int] = {}
        for piece in value.split(',') if value.strip() else ():
            tier, number = _parse_threshold(piece.strip())
            if tier in thresholds:
                raise ValueError(f'{messages.quoted(tier)} is there twice')
            thresholds[tier] = number
        return thresholds

    def _formatter(self, value: Any) -> str:
        return ','.join(f'{tier}:{number}' for tier, number in self(value).items())


def _parse_threshold(piece: str) -> tuple[str, int]:
    tier, _, number = (part.strip() for part in piece.partition(':'))
    if not tier or not re.fullmatch('[0-9]{1,15}', number):
        raise ValueError(
            f'{messages.quoted(piece)} is not tier:IOPS; write for example default:500,local:200'
        )
    return tier, int(number)


class Licences(_Type):
    """``system:UNIT,system:UNIT``; the value is a dictionary of ``vcpu`` and ``instance``."""

    UNITS: ClassVar[tuple[str, ...]] = ('vcpu', 'instance')

    def __init__(self) -> None:
        super().__init__(type_name='system:UNIT,system:UNIT')

    def __call__(self, value: Any) -> dict[str, str]:
        """Return the units by the name of the system, in small letters.

        :raises ValueError: a piece is not ``system:UNIT``, or a system comes twice
        """
        if isinstance(value, Mapping):
            return dict(value)
        units: dict[str, str] = {}
        for piece in value.split(',') if value.strip() else ():
            system, _, unit = (part.strip().lower() for part in piece.partition(':'))
            if not system or unit not in self.UNITS:
                raise ValueError(
                    f'{messages.quoted(piece.strip())} is not system:UNIT; write for example '
                    'windows:vcpu,rhel:instance'
                )
            if system in units:
                raise ValueError(f'{messages.quoted(system)} is there twice')
            units[system] = unit
        return units

    def _formatter(self, value: Any) -> str:
        return ','.join(f'{system}:{unit}' for system, unit in self(value).items())


class Names(_Type):
    """Names with commas between them, none twice; the value is a tuple.

    :param choices: what each name means, when only these are allowed
    :param may_be_empty: whether no name at all is allowed
    """

    def __init__(
        self, choices: Mapping[str, str] | None = None, *, may_be_empty: bool = True
    ) -> None:
        super().__init__(type_name='list of names')
        self.choices = choices
        self._may_be_empty = may_be_empty

    def __call__(self, value: Any) -> tuple[str, ...]:
        """Return the names in their order.

        :raises ValueError: an unknown name, an empty one, or one that comes twice
        """
        names = _split(value) if isinstance(value, str) else tuple(value)
        if not names and not self._may_be_empty:
            raise ValueError(f'the list is empty; write at least one of {self._allowed()}')
        for position, name in enumerate(names):
            if name in names[:position]:
                raise ValueError(f'{messages.quoted(name)} is there twice')
            self._check(name)
        return names

    def _check(self, name: str) -> None:
        if not name:
            raise ValueError('there is a comma too many')
        if self.choices is not None and name not in self.choices:
            raise ValueError(f'{messages.quoted(name)} is not one of {self._allowed()}')

    def _allowed(self) -> str:
        return ', '.join(self.choices or ())

    def _formatter(self, value: Any) -> str:
        return ','.join(self(value))


def _split(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(',')) if text.strip() else ()


class PluginNames(Names):
    """Names of installed plugins.

    :param namespace: the entry points to choose from, like ``oie.collectors``
    """

    def __init__(self, namespace: str) -> None:
        super().__init__()
        self.namespace = namespace

    def _check(self, name: str) -> None:
        super()._check(name)
        installed = named.NamedExtensionManager(self.namespace, ()).entry_points_names()
        if name not in installed:
            raise ValueError(
                f'{messages.quoted(name)} is not an installed plugin of {self.namespace}; '
                f'these are: {", ".join(sorted(set(installed))) or "none"}'
            )


class ListNames(Names):
    """Names of threat lists, which become parts of the names of series."""

    def _check(self, name: str) -> None:
        super()._check(name)
        if not _LIST_NAME.fullmatch(name):
            raise ValueError(
                f'{messages.quoted(name)} is no name of a list: it begins with a letter and '
                'goes on with up to 39 small letters, digits and _'
            )


class LinkCounters(Names):
    """Names of counters of a network device."""

    def _check(self, name: str) -> None:
        super()._check(name)
        if name not in model.LinkStatistics._fields:
            raise ValueError(
                f'{messages.quoted(name)} is not one of {", ".join(model.LinkStatistics._fields)}'
            )


class Networks(Names):
    """Networks and addresses with commas between them; the value is a tuple of their texts."""

    def __init__(self) -> None:
        super().__init__()

    def _check(self, name: str) -> None:
        super()._check(name)
        try:
            ipaddress.ip_network(name)
        except ValueError as exc:
            raise ValueError(f'{messages.quoted(name)} is no network: {exc}') from exc


class ListenAddress(_Type):
    """``HOST:PORT`` or ``[IPV6]:PORT``; the value is an Endpoint."""

    def __init__(self) -> None:
        super().__init__(type_name='HOST:PORT or [IPV6]:PORT')

    def __call__(self, value: Any) -> Any:
        """Return the Endpoint; of a list, which only a default is, the list of them.

        :raises ValueError: not an address, or a port out of range
        """
        if isinstance(value, str):
            return endpoints.parse(value)
        return [self(item) for item in value] if isinstance(value, Sequence) else value

    def format_defaults(self, default: Any, sample_default: Any = None) -> list[str]:
        """Return the default addresses, a line each."""
        return [str(endpoint) for endpoint in self(sample_default or default or [])]


class HttpPath(_Type):
    """The path of a URL; the value is its text.

    :param reserved: paths that serve something else
    """

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        super().__init__(type_name='path of a URL')
        self._reserved = frozenset(reserved)

    def __call__(self, value: Any) -> str:
        """Return the path.

        :raises ValueError: not a plain absolute path, or a reserved one
        """
        if value in self._reserved:
            raise ValueError(
                f'{messages.quoted(value)} serves something else; choose another path'
            )
        if not _HTTP_PATH.fullmatch(value):
            raise ValueError(
                f'{messages.quoted(value)} is not a path of letters, digits and ._~- ; '
                'write for example /metrics'
            )
        return str(value)


class FilePath(_Type):
    """Where a file is, or nothing; the value is the text.

    :param may_be_empty: whether nothing is allowed
    """

    def __init__(self, *, may_be_empty: bool = True) -> None:
        super().__init__(type_name='absolute path')
        self._may_be_empty = may_be_empty

    def __call__(self, value: Any) -> str:
        """Return the path, or an empty text.

        :raises ValueError: the path is relative: to what, a daemon does not know
        """
        if not value.startswith('/') and (value or not self._may_be_empty):
            raise ValueError(f'{messages.quoted(value)} is not an absolute path')
        return str(value)


class Text(types.String):
    """A text of at least one sign; the value is the text."""

    def __call__(self, value: Any) -> str:
        """Return the text.

        :raises ValueError: there is none
        """
        text = str(super().__call__(value))
        if not text.strip():
            raise ValueError('the value is empty; write one or take the line away')
        return text


class FeedUrl(_Type):
    """Where a list is published, or nothing; the value is the text."""

    def __init__(self) -> None:
        super().__init__(type_name='URL (https, http, file)')

    def __call__(self, value: Any) -> str:
        """Return the URL with its scheme in small letters, or an empty text.

        :raises ValueError: another scheme, no host, or a password: URLs get logged
        """
        text = str(value).strip()
        if not text:
            return ''
        parts = urllib.parse.urlsplit(text)
        shown = messages.quoted(messages.shown(text))
        if parts.username or parts.password:
            raise ValueError('a URL with a password gets logged; use secret_file')
        if parts.scheme not in ('https', 'http', 'file') or not text.isprintable():
            raise ValueError(
                f'{shown} is not a URL that begins with https://, http:// or file:///'
            )
        if bool(parts.hostname) == (parts.scheme == 'file'):
            raise ValueError(f'{shown} names {"a" if parts.hostname else "no"} host')
        # Schemes are the same in capitals; who compares them later need not know.
        return parts.scheme + text[len(parts.scheme) :]


class Direction(_Type):
    """Which end of a connection began it; the value is ``out``, ``in`` or ``any``.

    :param may_be_empty: whether nothing is allowed too
    """

    WORDS: ClassVar[Mapping[str, str]] = {
        'out': 'out',
        'outbound': 'out',
        'src': 'out',
        'in': 'in',
        'inbound': 'in',
        'dst': 'in',
        'any': 'any',
    }

    def __init__(self, *, may_be_empty: bool = False) -> None:
        super().__init__(type_name='out, in or any')
        self._may_be_empty = may_be_empty

    def __call__(self, value: Any) -> str:
        """Return the direction by its short name.

        :raises ValueError: it is none
        """
        word = str(value).strip().lower()
        if not word and self._may_be_empty:
            return ''
        if word not in self.WORDS:
            raise ValueError(f'{messages.quoted(value)} is not one of {", ".join(self.WORDS)}')
        return self.WORDS[word]


class SocketPath(FilePath):
    """Where a unix socket is, or nothing; the value is the text."""

    def __call__(self, value: Any) -> str:
        """Return the path, or an empty text.

        :raises ValueError: the path is relative, or too long for the kernel
        """
        if len(value.encode()) > _SOCKET_PATH_BYTES:
            raise ValueError(
                f'{messages.quoted(value)} is longer than the {_SOCKET_PATH_BYTES} bytes '
                'that the path of a unix socket may have'
            )
        return super().__call__(value)


class Pattern(_Type):
    """A regular expression, or nothing; the value is the text."""

    def __init__(self) -> None:
        super().__init__(type_name='regular expression')

    def __call__(self, value: Any) -> str:
        """Return the expression, or an empty text.

        :raises ValueError: it is none
        """
        patterns.compiled(value)
        return str(value)


class ProcFiles(_Type):
    """``name:file,name:file``; the value is a dictionary of files below /proc by name."""

    def __init__(self) -> None:
        super().__init__(type_name='name:file,name:file')

    def __call__(self, value: Any) -> dict[str, str]:
        """Return the files by name.

        :raises ValueError: a piece is not ``name:file``, or a name comes twice
        """
        if isinstance(value, Mapping):
            return dict(value)
        files: dict[str, str] = {}
        for piece in _split(value):
            name, _, file = (part.strip() for part in piece.partition(':'))
            if name in files:
                raise ValueError(f'{messages.quoted(name)} is there twice')
            files[name] = proc_files.checked(name, file)
        return files

    def _formatter(self, value: Any) -> str:
        return ','.join(f'{name}:{file}' for name, file in self(value).items())


class Moment(_Type):
    """A date, or a date with a time; the value is microseconds since 1970, None for nothing."""

    def __init__(self) -> None:
        super().__init__(type_name='date (ISO 8601)')

    def __call__(self, value: Any) -> int | None:
        """Return the moment of a text.

        :raises ValueError: no date of a cloud
        """
        if value is None or isinstance(value, int):
            return value
        return moments.parse(value) if value.strip() else None

    def _formatter(self, value: Any) -> str:
        moment = self(value)
        return '' if moment is None else moments.text_of(moment)


class WeightTable(_Type):
    """``amount:weight,amount:weight``; the value is a tuple of pairs, the smallest amount first.

    Braces and quotes around them may stand as in a dictionary of Python.
    """

    def __init__(self) -> None:
        super().__init__(type_name='amount:weight,amount:weight')

    def __call__(self, value: Any) -> tuple[tuple[decimal.Decimal, decimal.Decimal], ...]:
        """Return the weights by their amounts.

        :raises ValueError: no such pair, or an amount that comes twice
        """
        if not isinstance(value, str):
            return tuple(value)
        text = value.strip().removeprefix('{').removesuffix('}').strip()
        return weight_tables.checked(
            weight_tables.pair(piece) for piece in text.split(',') if text
        )

    def _formatter(self, value: Any) -> str:
        return ','.join(f'{amount}:{weight}' for amount, weight in self(value))


class Selectors(_Type):
    """Series selectors of one request to Prometheus, blanks between them; the value is a tuple."""

    def __init__(self) -> None:
        super().__init__(type_name='series selectors')

    def __call__(self, value: Any) -> tuple[str, ...]:
        """Return the selectors in their order; of a list, which only a default is, of each.

        :raises ValueError: one is no selector, or would choose every series
        """
        return selectors.parse(value) if isinstance(value, str) else tuple(value)

    def format_defaults(self, default: Any, sample_default: Any = None) -> list[str]:
        """Return the default requests, a line each."""
        return list(sample_default or default or [])

    def _formatter(self, value: Any) -> str:
        return ' '.join(self(value))
