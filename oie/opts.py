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

"""All options there are, for oslo-config-generator and for the documentation."""

from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

from oslo_config import cfg

from oie import config
from oie import plugins
from oie.outputs import threat_log


def option_groups(settings: Iterable[Any] = ()) -> list[tuple[cfg.OptGroup, Sequence[cfg.Opt]]]:
    """Return the groups that are not the core's own: of outputs and of installed plugins.

    :param settings: what the files say, see plugins.option_groups()
    """
    return [(threat_log.GROUP, threat_log.OPTS), *plugins.option_groups(settings)]


def list_opts() -> list[tuple[cfg.OptGroup | None, list[cfg.Opt]]]:
    """Return the options by group: our own, and those of every installed plugin.

    Plugins that share a group share its entry, and an option that two of them
    name comes once.
    """
    groups: dict[str, cfg.OptGroup | None] = {}
    options: dict[str, list[cfg.Opt]] = {}
    for group, listed in (*config.OPTS, *option_groups()):
        name = group.name if group else 'DEFAULT'
        groups.setdefault(name, group)
        known = options.setdefault(name, [])
        known.extend(option for option in listed if option not in known)
    return [(groups[name], options[name]) for name in groups if options[name]]
