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


"""Whether guest agents can be asked, where ``[guest_os] drivers`` names ``guest_agent``."""

from oslo_config import cfg

from oie import exceptions
from oie.cmd import check_table
from oie.sources.guest_os import guest_agent

NAME = 'Guest agents'
ADVICE = (
    'Give the user of the service the right to use the read-write socket of libvirt (its group, '
    'or polkit), or take guest_agent out of [guest_os] drivers.'
)
Row = check_table.Row


def rows(conf: cfg.ConfigOpts) -> tuple[Row, ...]:
    """Return a row if agents are to be asked; none is."""
    if not conf.guest_os.enabled or 'guest_agent' not in conf.guest_os.drivers:
        return ()
    try:
        driver = guest_agent.GuestAgentDriver(conf.guest_os_guest_agent, conf.libvirt.uri)
        driver.check()
    except exceptions.ConfigError as exc:
        advice = 'Until then oie-exporter does not start.'
        return (Row(NAME, check_table.Result.FAILURE, str(exc), advice),)
    except exceptions.SourceError as exc:
        return (Row(NAME, check_table.Result.WARNING, str(exc), ADVICE),)
    detail = f'a read-write connection to {driver.uri} opens'
    return (Row(NAME, check_table.Result.OK, detail),)
