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

"""Installed plugins by name, each with a group of options that is its own.

A plugin is a class behind an entry point. Its ``OPTS`` say what it can be told
and its ``GROUP``, if it has one, where; without it the group is the prefix of
the namespace and the plugin's name, like ``[collector_cpu]``. The sample file
introduces the group by ``GROUP_HELP``, else by the beginning of the docstring.
"""

from collections.abc import Iterable
from collections.abc import Mapping
import importlib.metadata
import inspect
from typing import Any

from oslo_config import cfg
from stevedore import named

from oie import exceptions
from oie.config import files
from oie.config import messages

# By namespace, the prefix of its plugins' groups.
NAMESPACES: Mapping[str, str] = {
    'oie.collectors': 'collector_',
    'oie.guest_os': 'guest_os_',
    'oie.sources': 'source_',
    'oie.threat_feeds': 'feed_',
    'oie.zone_maps': 'zone_map_',
}

FEEDS = 'oie.threat_feeds'


def names(namespace: str) -> tuple[str, ...]:
    """Return the names of the installed plugins in the order of the alphabet."""
    return tuple(sorted({entry_point.name for entry_point in _entry_points(namespace)}))


def load(namespace: str, wanted: Iterable[str] | None = None) -> dict[str, type[Any]]:
    """Return the classes of the plugins by name, in the order asked for.

    :param wanted: names of plugins; None means all that are installed
    :raises ConfigError: a plugin is not installed, cannot be imported, or shares its name
    """
    return {
        name: _import(_find(namespace, name))
        for name in (names(namespace) if wanted is None else wanted)
    }


def group_of(namespace: str, name: str, plugin: type[Any]) -> str:
    """Return the name of the option group that the plugin gets."""
    return getattr(plugin, 'GROUP', '') or f'{NAMESPACES[namespace]}{name}'


def options_of(plugin: type[Any]) -> tuple[cfg.Opt, ...]:
    """Return the options of the plugin, none if it names none.

    :raises ConfigError: ``OPTS`` holds something else than options
    """
    options = tuple(getattr(plugin, 'OPTS', ()))
    for option in options:
        if not isinstance(option, cfg.Opt):
            raise exceptions.ConfigError(
                f'plugin {plugin.__module__}:{plugin.__qualname__}: '
                f'OPTS holds {option!r}, which is not an option of oslo.config'
            )
    return options


def option_groups(
    settings: Iterable[files.Setting] = (),
) -> list[tuple[cfg.OptGroup, tuple[cfg.Opt, ...]]]:
    """Return the group and options of every installed plugin of every namespace.

    A group comes as often as plugins share it. A group of the files that names
    its driver has the options of that driver.

    :param settings: what the files say
    :raises ConfigError: as load() and options_of()
    """
    named_groups = {
        f'{NAMESPACES[FEEDS]}{name}': load(FEEDS, (driver,))[driver]
        for name, driver in drivers(settings).items()
    }
    groups = [
        (group_of(namespace, name, plugin), plugin)
        for namespace in NAMESPACES
        for name, plugin in load(namespace).items()
    ]
    kept = [(group, plugin) for group, plugin in groups if group not in named_groups]
    return [
        (_group(group, plugin), options_of(plugin))
        for group, plugin in (*kept, *named_groups.items())
    ]


def drivers(settings: Iterable[files.Setting]) -> dict[str, str]:
    """Return the drivers of the lists whose groups ``[feed_NAME]`` name one.

    :raises ConfigError: a list is not installed and its group names no driver
    """
    prefix, installed = NAMESPACES[FEEDS], names(FEEDS)
    found, places = dict[str, str](), dict[str, str]()
    for setting in settings:
        name = setting.section.lower().removeprefix(prefix)
        if setting.section.lower() == name:
            continue
        places.setdefault(name, setting.place)
        if setting.name == 'driver' and setting.value:
            found[name] = setting.value
    for name in places.keys() - found.keys() - set(installed):
        raise exceptions.ConfigError(
            f'{places[name]}: [{prefix}{messages.shown(name)}] is no installed list '
            f'({", ".join(installed)}) and names no driver; for a list of your own write for '
            'example driver = plain_list'
        )
    return found


def _group(name: str, plugin: type[Any]) -> cfg.OptGroup:
    purpose, _, _ = (inspect.getdoc(plugin) or '').partition('\n\n')
    return cfg.OptGroup(name, help=getattr(plugin, 'GROUP_HELP', '') or purpose)


def _entry_points(namespace: str) -> list[importlib.metadata.EntryPoint]:
    # stevedore lists them from its cache; nothing is imported for no names.
    manager: named.NamedExtensionManager[Any] = named.NamedExtensionManager(namespace, ())
    return manager.list_entry_points()


def _find(namespace: str, name: str) -> importlib.metadata.EntryPoint:
    found = [each for each in _entry_points(namespace) if each.name == name]
    if not found:
        raise exceptions.ConfigError(
            f'plugin {name!r} of {namespace} is not installed; '
            f'these are: {", ".join(names(namespace)) or "none"}'
        )
    if len(found) > 1:
        homes = ', '.join(each.value for each in found)
        raise exceptions.ConfigError(
            f'plugin {name!r} of {namespace} is installed more than once ({homes}); '
            'uninstall all but one'
        )
    return found[0]


def _import(entry_point: importlib.metadata.EntryPoint) -> type[Any]:
    try:
        plugin = entry_point.load()
    # The module may be a stranger's: whatever its import raises is told in one line.
    except Exception as exc:
        reason = messages.one_line(f'{type(exc).__name__}: {exc}')
        raise _broken(entry_point, reason) from exc
    if not inspect.isclass(plugin):
        raise _broken(entry_point, 'it is not a class')
    # It is a part of what it should be; better known now than when it is asked.
    missing = ', '.join(sorted(getattr(plugin, '__abstractmethods__', ())))
    if missing:
        raise _broken(entry_point, f'it does not define {missing}')
    return plugin


def _broken(entry_point: importlib.metadata.EntryPoint, reason: str) -> exceptions.ConfigError:
    return exceptions.ConfigError(
        f'plugin {entry_point.name!r} of {entry_point.group} ({entry_point.value}) '
        f'cannot be loaded: {reason}; repair its package or uninstall it'
    )
