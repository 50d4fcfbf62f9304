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

"""The script that prepares Gnocchi, run once more."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.billing import ceilometer
from tests.billing import environments
from tests.billing import gnocchi

# The first test waits for the servers, and for the installation of what is not there yet.
pytestmark = pytest.mark.timeout(900)


def test_second_run_changes_nothing(
    installed: Mapping[str, environments.Environment], server: gnocchi.Gnocchi
) -> None:
    before = _made(server)

    ceilometer.create(installed['ceilometer'], server)

    assert _made(server) == before
    assert {'oie_usage', 'oie_fixed_ip', 'oie_threat_list', 'oie_router'} <= before['types'].keys()
    assert 'os_distro' in before['types']['instance']['attributes']
    assert {'oie-billing', 'oie-billing-rate'} <= before['policies'].keys()
    assert 'rate:sum' in before['policies']['oie-billing-rate']['aggregation_methods']


def _made(server: gnocchi.Gnocchi) -> dict[str, Any]:
    return {
        'types': {each['name']: each for each in server.get('resource_type')},
        'policies': {each['name']: each for each in server.get('archive_policy')},
    }
