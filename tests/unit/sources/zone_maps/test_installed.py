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

"""Every installed zone map keeps the rules of the namespace."""

import subprocess
import sys

import pytest

from oie import plugins
from oie.sources.zone_maps import base
from tests.unit.sources.zone_maps import fakes

NAMESPACE = 'oie.zone_maps'
INSTALLED = plugins.load(NAMESPACE)
GROUPS = {name: plugins.group_of(NAMESPACE, name, each) for name, each in INSTALLED.items()}


def test_names_and_groups():
    assert GROUPS == {
        'none': 'zone_map_none',
        'ovn': 'zone_map_ovn',
        'ovn_controller': 'zone_map_ovn_controller',
    }


@pytest.mark.parametrize('name', INSTALLED)
def test_map_is_made_of_its_own_options(name):
    driver = INSTALLED[name](fakes.options(INSTALLED[name]))
    assert isinstance(driver, base.ZoneMap)
    assert (driver.refresh, driver.max_age) == (10.0, 300.0)
    assert (driver.conflicts, driver.malformed) == (0, 0)


@pytest.mark.parametrize('name', INSTALLED)
def test_every_option_has_a_text(name):
    assert all(option.help for option in plugins.options_of(INSTALLED[name]))


def test_loading_and_making_maps_imports_neither_ovs_nor_ovsdbapp():
    program = (
        'import sys\n'
        'from oie import plugins\n'
        f'maps = [plugin() for plugin in plugins.load({NAMESPACE!r}).values()]\n'
        'assert len(maps) == 3\n'
        'print(sorted({"ovs", "ovsdbapp"} & sys.modules.keys()))\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', program], capture_output=True, text=True, check=True
    )
    assert done.stdout == '[]\n'
