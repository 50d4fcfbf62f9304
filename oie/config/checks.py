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

"""Is everything that the files and the command line say known and right?

Each error is one line with place, option, value and reason. oslo.config finds
a wrong value only when somebody reads it and an unknown option never.
"""

from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import difflib
import math
import re
from typing import Any

from oslo_config import cfg

from oie import exceptions
from oie.config import files
from oie.config import messages


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """An option and the name of its group."""

    group: str
    opt: cfg.Opt

    @property
    def key(self) -> tuple[str, str]:
        """What tells this option from all others."""
        return self.group, self.opt.dest


# By section of a file and name in it, old names of options included.
Options = dict[str, dict[str, Option]]
# By group and option, what counts: one setting, or all of an option that may repeat.
Settings = dict[tuple[str, str], list[files.Setting]]

# What int() and float() say, and how to end a sentence about it.
_PLAINER = (
    ('invalid literal for int() with base 10: ', 'is not a whole number'),
    ('could not convert string to float: ', 'is not a number'),
)


def check_files(found: Iterable[files.Setting], options: Options) -> Settings:
    """Return the settings that count, which are the later ones.

    Of a value with a reference ($) only the reference is checked here.

    :raises ConfigError: an unknown section or option, a wrong value, a reference to nothing,
        one file that says two things
    """
    settings: Settings = {}
    for setting in found:
        option = _find(setting, options)
        if option:
            before = settings.get(option.key, [])
            if not option.opt.multi:
                _check_once(option, before, setting)
                before = []
            settings[option.key] = [*before, setting]
    for option in _each(options):
        for setting in settings.get(option.key, ()):
            _check_text(option, setting, options)
    return settings


def check_values(conf: cfg.ConfigOpts, settings: Settings, options: Options) -> None:
    """Read every option once, so that references and the command line are checked too.

    :raises ConfigError: a wrong value, or a reference that leads back to itself
    """
    for option in _each(options):
        try:
            values = conf if option.group == 'DEFAULT' else conf[option.group]
            _check_value(option.opt, values[option.opt.dest])
        except (cfg.Error, ValueError, RecursionError) as exc:
            setting = settings[option.key][-1] if option.key in settings else None
            raise _wrong(option, setting, exc) from exc


def _each(options: Options) -> Iterable[Option]:
    return {option.key: option for names in options.values() for option in names.values()}.values()


# --- names --------------------------------------------------------------------


def _find(setting: files.Setting, options: Options) -> Option | None:
    """Return the option that is set, None for the head of a section."""
    # oslo.config takes sections for equal in this way.
    section = setting.section if setting.section == 'DEFAULT' else setting.section.lower()
    if section not in options:
        hint = _did_you_mean(setting.section, options, '[{}]')
        shown = messages.shown(setting.section)
        raise exceptions.ConfigError(f'{setting.place}: unknown section [{shown}]{hint}')
    if not setting.name:
        return None
    if setting.name not in options[section]:
        hint = _home(setting.name, options) or _did_you_mean(setting.name, options[section])
        raise exceptions.ConfigError(f'{_sentence(setting)}: unknown option{hint}')
    return options[section][setting.name]


def _home(name: str, options: Options) -> str:
    homes = [f'[{section}]' for section, names in options.items() if name in names]
    return f'; it belongs to {" or ".join(homes)}' if homes else ''


def _did_you_mean(word: str, known: Iterable[str], form: str = '{}') -> str:
    by_lower = {each.lower(): each for each in known}
    close = difflib.get_close_matches(word.lower().replace('-', '_'), by_lower, 1)
    return f'; did you mean {form.format(by_lower[close[0]])}?' if close else ''


# --- values -------------------------------------------------------------------


def _check_text(option: Option, setting: files.Setting, options: Options) -> None:
    try:
        if '$' in setting.value:
            _check_references(option.group, setting.value, options)
        else:
            _check_value(option.opt, option.opt.type(setting.value))
    except ValueError as exc:
        raise _wrong(option, setting, exc) from exc


def _check_once(option: Option, before: Sequence[files.Setting], setting: files.Setting) -> None:
    """Refuse what the same file says already: of two values nobody knows which is meant.

    A later file may say otherwise, and a file may be named twice.
    """
    for first in before:
        if first.path != setting.path or first.line == setting.line:
            continue
        name = '' if first.name == setting.name else f'{messages.shown(first.name)} = '
        value = _value(first, is_secret=option.opt.secret)
        raise exceptions.ConfigError(
            f'{_sentence(setting, is_secret=option.opt.secret)}: '
            f'line {first.line} says {name}{value}; take one of them away'
        )


def _check_references(group: str, value: str, options: Options) -> None:
    # oslo.config takes \$ for $$, and looks first in the same group, then in [DEFAULT].
    for match in cfg.ConfigOpts.Template.pattern.finditer(value.replace(r'\$', '$$')):
        reference = match['named'] or match['braced']
        if not reference:
            continue
        home, dot, name = reference.rpartition('.')
        homes = (home,) if dot else (group, 'DEFAULT')
        if not any(name in options.get(each, ()) for each in homes):
            raise ValueError(f'${reference} refers to no option; write $$ for a dollar sign')


def _check_value(opt: cfg.Opt, value: Any) -> None:
    # oslo.config's numbers take an empty text for None and know "nan".
    if value is None and opt.default is not None:
        raise ValueError('the value is empty; write one or take the line away')
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f'{value} is not a finite number')


def _wrong(
    option: Option, setting: files.Setting | None, error: Exception
) -> exceptions.ConfigError:
    if option.opt.secret:
        reason = 'not a valid value'
    elif isinstance(error, RecursionError) or isinstance(error.__context__, RecursionError):
        reason = 'the reference leads back to itself'
    else:
        reason = _plainer(error)
    place = f'[{option.group}] {option.opt.dest}'
    if setting:
        place = _sentence(setting, is_secret=option.opt.secret)
    return exceptions.ConfigError(messages.one_line(f'{place}: {reason}'))


def _plainer(error: Exception) -> str:
    # oslo.config raises its own in place of what the type said.
    within = error.__context__ if isinstance(error, cfg.ConfigSourceValueError) else None
    text = str(within or error)
    for beginning, end in _PLAINER:
        if text.startswith(beginning):
            return f'{text.removeprefix(beginning)} {end}'
    return text


def _sentence(setting: files.Setting, *, is_secret: bool = False) -> str:
    value = _value(setting, is_secret=is_secret)
    section, name = messages.shown(setting.section), messages.shown(setting.name)
    return f'{setting.place}: [{section}] {name} = {value}'


def _value(setting: files.Setting, *, is_secret: bool) -> str:
    return '***' if is_secret else messages.shown(_masked(setting.value)) or "''"


def _masked(value: str) -> str:
    """Return a value without what a URL in it says of a user and a password."""
    return re.sub(r'//[^/\s]*@', '//***@', value)
