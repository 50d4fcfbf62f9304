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


"""What shall be read of network namespaces, and shown: the options and netns-exporter's file.

The file is read once, at the start, and only where namespaces are read at all.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import fnmatch
import re
from typing import Any

from oie import exceptions
from oie.config import messages
from oie.config import option_types
from oie.config import patterns
from oie.config import proc_files

MOST_BYTES = 2**18
_FILE = '[netns] netns_exporter_config'
_FILTERS = ('namespaces_filter', 'device_filter')
# Names as Neutron makes them: of a port, its gateway, and the two namespaces of a router.
_UUID = '27e6b9c0-73c4-4624-9481-eb5c90f109bd'
_PORT = _UUID[:11]
_GATEWAY = f'qg-{_PORT}'
_ROUTERS = ('qrouter', 'snat')
_USED = (*_FILTERS, 'interface_metrics', 'proc_metrics')


@dataclasses.dataclass(frozen=True, slots=True)
class Filter:
    """Which names are wanted: not those on the black list, and of the others the white ones.

    The expressions are searched anywhere in a name; an empty one is not applied.
    """

    blacklist: str = ''
    whitelist: str = ''
    _black: re.Pattern[str] | None = dataclasses.field(init=False, repr=False, compare=False)
    _white: re.Pattern[str] | None = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, text in (('_black', self.blacklist), ('_white', self.whitelist)):
            object.__setattr__(self, name, patterns.compiled(text) if text else None)

    def passes(self, name: str) -> bool:
        """Return whether a name is wanted."""
        if self._black is not None and self._black.search(name):
            return False
        return self._white is None or self._white.search(name) is not None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What counts in the end; ``notes`` are sentences for the log.

    ``figures`` are those of /proc/net that somebody wants, by protocol and name; None for all.
    ``overlooked`` are sentences about filters that hide traffic of routers.
    """

    namespaces: Filter
    devices: Filter
    interface_metrics: tuple[str, ...]
    proc_metrics: Mapping[str, str]
    figures: frozenset[tuple[str, str]] | None = None
    notes: tuple[str, ...] = ()
    overlooked: tuple[str, ...] = ()


def of(options: Any) -> Settings:
    """Return the settings of the group ``[netns]``; its file replaces the options it names.

    :raises ConfigError: the file cannot be read, or is wrong
    """
    own = Settings(
        namespaces=Filter(options.namespaces_blacklist, options.namespaces_whitelist),
        devices=Filter(options.device_blacklist, options.device_whitelist),
        interface_metrics=options.interface_metrics,
        proc_metrics=options.proc_metrics,
    )
    path = options.netns_exporter_config
    if not (options.enabled and path):
        return own
    try:
        return with_file(own, _read(path))
    except (OSError, ValueError) as exc:
        reason = (isinstance(exc, OSError) and exc.strerror) or exc
        raise exceptions.ConfigError(
            messages.one_line(f'{_FILE} = {messages.shown(path)}: {reason}')
        ) from exc


def overlooked(settings: Settings, external: Iterable[str]) -> tuple[str, ...]:
    """Return sentences about filters that leave traffic out of ``oie-pollster routers``.

    :param external: patterns of the names of external devices, as those of a shell
    """
    patterns = tuple(external)
    return (
        *(_hidden(pattern) for pattern in patterns if _hides(settings.devices, pattern)),
        *_missing_kinds(settings.namespaces, patterns),
    )


def _hides(devices: Filter, pattern: str) -> bool:
    name = _sample(pattern)
    # Of a pattern for which we find no name nothing is claimed.
    return fnmatch.fnmatchcase(name, pattern) and not devices.passes(name)


def _hidden(pattern: str) -> str:
    return (
        f'[netns] external_devices = {messages.shown(pattern)}: the filter of devices leaves out '
        f'{messages.shown(_sample(pattern))}, so oie-pollster routers counts no such device; let '
        'the filter pass them, or take the pattern out'
    )


def _missing_kinds(namespaces: Filter, patterns: Iterable[str]) -> Iterator[str]:
    """Give a sentence if of the two namespaces that a router may have only one is read."""
    passed = {kind: namespaces.passes(f'{kind}-{_UUID}') for kind in _ROUTERS}
    has_gateway = any(fnmatch.fnmatchcase(_GATEWAY, pattern) for pattern in patterns)
    if has_gateway and len(set(passed.values())) == len(passed):
        seen, unseen = sorted(passed, key=lambda kind: not passed[kind])
        yield (
            f'the filter of namespaces passes {seen}-UUID and leaves out {unseen}-UUID, so '
            f'oie-pollster routers does not count what leaves by {unseen}-UUID; let it pass both'
        )


def _sample(pattern: str) -> str:
    """Return a name as Neutron makes them that a pattern may match."""
    text = re.sub(r'\[([^]])[^]]*\]', r'\1', pattern)
    return text.replace('*', _PORT).replace('?', '0')


def _read(path: str) -> bytes:
    """Return what is in the file.

    :raises ValueError: it is longer than such a file can be
    """
    with open(path, 'rb') as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f'it has more than {MOST_BYTES} bytes; name the YAML of netns-exporter')
    return data


def with_file(own: Settings, data: bytes) -> Settings:
    """Return the settings, what a file of netns-exporter says put in the place of some.

    :raises ValueError: it is no such file; the text says where
    """
    # YAML costs who does not need it 2 MB and 40 ms.
    from oie.config import yaml_values

    tree = yaml_values.mapping(yaml_values.parsed(data), 'the file')
    found: dict[str, Any] = {}
    for key, field in zip(_FILTERS, ('namespaces', 'devices'), strict=True):
        if key in tree:
            found[field] = _filter(yaml_values.mapping(tree[key], key), key)
    if 'interface_metrics' in tree:
        found['interface_metrics'] = _counters(tree['interface_metrics'])
    if 'proc_metrics' in tree:
        named = yaml_values.mapping(tree['proc_metrics'], 'proc_metrics')
        found['proc_metrics'] = {name: _file(name, each) for name, each in named.items()}
    return dataclasses.replace(own, **found, notes=tuple(_notes(tree)))


def _filter(tree: Mapping[str, Any], key: str) -> Filter:
    from oie.config import yaml_values

    texts = {}
    for name in ('blacklist', 'whitelist'):
        place = f'{key}.{name}_pattern'
        texts[name] = yaml_values.text(tree.get(f'{name}_pattern', ''), place)
        try:
            patterns.compiled(texts[name])
        except ValueError as exc:
            raise ValueError(f'{place}: {exc}') from exc
    return Filter(**texts)


def _counters(listed: object) -> tuple[str, ...]:
    from oie.config import yaml_values

    names = dict.fromkeys(yaml_values.texts(listed, 'interface_metrics'))
    try:
        return option_types.LinkCounters()(tuple(names))
    except ValueError as exc:
        raise ValueError(f'interface_metrics: {exc}') from exc


def _file(name: str, tree: object) -> str:
    from oie.config import yaml_values

    place = f'proc_metrics.{name}'
    found = yaml_values.mapping(tree, place)
    try:
        return proc_files.checked(name, yaml_values.text(found.get('file', ''), f'{place}.file'))
    except ValueError as exc:
        raise ValueError(f'{place}: {exc}') from exc


def _notes(tree: Mapping[str, Any]) -> list[str]:
    """Return what the log shall say of keys that are not used."""
    unused = sorted(str(key) for key in tree.keys() - set(_USED))
    notes = []
    if 'api_server' in unused:
        notes.append(
            f'{_FILE}: api_server is not used; [exporter] listen_address and telemetry_path say '
            'where the metrics are'
        )
        unused.remove('api_server')
    if unused:
        notes.append(f'{_FILE}: not used: {messages.shown(", ".join(unused))}')
    return notes
