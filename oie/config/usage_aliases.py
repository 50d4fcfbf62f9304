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

"""Environment variables of OS_project_usage_exporter → options of ``[usage]`` that nothing sets.

Which option a variable leads to is told in doc/source/admin/project-usage.rst.
"""

from collections.abc import Callable
from collections.abc import Mapping
import logging
import os

from oslo_config import cfg

from oie import exceptions
from oie.config import messages

LOG = logging.getLogger(__name__)

PREFIX = 'USAGE_EXPORTER_'
GROUP = 'usage'


def _same(text: str) -> str:
    return text


def _names(text: str) -> str:
    # An empty piece was no domain there.
    return ','.join(name.strip() for name in text.split(',') if name.strip())


VARIABLES: Mapping[str, tuple[str, Callable[[str], str]]] = {
    'DUMMY_FILE': ('dummy_file', os.path.abspath),
    'DUMMY_WEIGHTS_FILE': ('weights_file', os.path.abspath),
    'PROJECT_DOMAINS': ('domains', _names),
    'PROJECT_DOMAIN_ID': ('domain_id', _same),
    'PROJECT_MB_WEIGHTS': ('memory_weights', _same),
    'SIMPLE_VM_PROJECT_ID': ('simple_vm_project_id', _same),
    'SIMPLE_VM_PROJECT_TAG': ('simple_vm_tag', _same),
    'START_DATE': ('start_date', _same),
    'START_DATE_ENDPOINT': ('start_date_url', _same),
    'UPDATE_INTERVAL': ('interval', _same),
    'VCPU_WEIGHTS': ('vcpu_weights', _same),
    'WEIGHTS_UPDATE_ENDPOINT': ('weights_url', _same),
    'WEIGHT_UPDATE_FREQUENCY': ('weights_every', _same),
}


def apply(conf: cfg.ConfigOpts, environ: Mapping[str, str]) -> None:
    """Let variables stand in for options that no file sets, where ``[usage] enabled`` is true.

    An empty variable is none.

    :raises ConfigError: a value is wrong; the text names the variable
    """
    if not conf[GROUP].enabled:
        return
    for name, text in sorted(environ.items()):
        if not name.startswith(PREFIX) or not text.strip():
            continue
        option, converted = VARIABLES.get(name.removeprefix(PREFIX), ('', _same))
        if not option:
            LOG.warning('the environment variable %s means nothing here', name)
        elif _is_default(conf, option):
            _set(conf, name, option, converted(text.strip()))


def _is_default(conf: cfg.ConfigOpts, option: str) -> bool:
    found = conf.get_location(option, GROUP)
    return found is None or found.location is cfg.Locations.opt_default


def _set(conf: cfg.ConfigOpts, name: str, option: str, text: str) -> None:
    try:
        conf.set_default(option, text, GROUP)
        # oslo.config looks at the value of a default when it is read.
        conf[GROUP][option]
    except (cfg.Error, ValueError) as exc:
        reason = messages.one_line(exc)
        raise exceptions.ConfigError(
            f'environment variable {name} = {messages.quoted(text)}: {reason}; it stands in for '
            f'[{GROUP}] {option}'
        ) from exc
