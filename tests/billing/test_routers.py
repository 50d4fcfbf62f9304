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

"""The traffic of a router, from its network namespace to a series of Gnocchi."""

from collections.abc import Iterator
from collections.abc import Mapping
import re

import pytest
import yaml

from tests.billing import ceilometer
from tests.billing import environments
from tests.billing import gnocchi
from tests.functional import exporter as exporters
from tests.functional import routers

# The first test waits for the servers, and for the installation of what is not there yet.
pytestmark = pytest.mark.timeout(900)

TYPE = 'oie_router'
INCOMING = 'oie.router.external.incoming.bytes'


@pytest.fixture
def router() -> Iterator[routers.Router]:
    with routers.Router() as router:
        router.receive(5)
        yield router


def test_it_is_a_resource_without_a_project_that_has_what_was_used(
    installed: Mapping[str, environments.Environment],
    server: gnocchi.Gnocchi,
    router: routers.Router,
) -> None:
    settings = {'netns': {'enabled': True, 'namespaces_whitelist': router.uuid}}
    # No libvirt answers on a network node.
    node = exporters.Exporter('qemu:///system?socket=/nowhere/of-oie', settings)
    try:
        node.start(is_ready=False)
        _poll_twice(installed['ceilometer'], server, node, router)
    finally:
        node.close()

    server.wait_until_processed()
    resource = server.resource(TYPE, router.uuid)
    assert resource['project_id'] is resource['user_id'] is None
    assert resource['router_id'] == router.uuid
    assert resource['host'] == exporters.HOST
    assert resource['netns'] == router.name
    assert resource['devices'] == router.device
    used = server.measures(TYPE, router.uuid, INCOMING, 'rate:sum', 300)
    # 14 of Ethernet, 20 of IPv4, 8 of UDP, 100 of ours.
    assert sum(value for _, value in used) == 7 * 142


def _poll_twice(
    environment: environments.Environment,
    server: gnocchi.Gnocchi,
    node: exporters.Exporter,
    router: routers.Router,
) -> None:
    """Let Ceilometer poll, the router receive seven packets, and Ceilometer poll again."""
    command = f'exec {exporters.BIN}/oie-pollster "$@" --config-file {node.config}'
    with ceilometer.Agent(environment, server, command, _definitions()) as agent:
        node.next_scrape()
        first = agent.poll()
        router.receive(7)
        node.next_scrape()
        second = agent.poll()
    volumes = [
        sample['counter_volume']
        for sample in (*first, *second)
        if sample['counter_name'] == INCOMING
    ]
    assert volumes == [5 * 142, 12 * 142]


def _definitions() -> list[str]:
    """Return the names of the shipped definitions that ask for routers."""
    text = (environments.ROOT / 'etc/ceilometer/pollsters.d/oie.yaml').read_text(encoding='ascii')
    names = [each['name'] for each in yaml.safe_load(text)]
    return [name for name in names if re.match(r'oie\.{routers_', name)]
