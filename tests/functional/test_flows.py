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

"""Flows from a real kernel's table, through the daemon, to the series and the pollster."""

from collections.abc import Iterator
import pathlib

import pytest

from tests import ctnetlink
from tests.functional import exporter as exporters
from tests.functional import flows

URI = f'test://{pathlib.Path(__file__).parents[2] / "etc/oie/demo/node.xml"}'
UUID = '9f3c1e52-7a84-4d0b-b6e1-0c5d8f2a7b01'
FIXED, FLOATING = '10.10.0.11', '203.0.113.5'


pytestmark = pytest.mark.usefixtures('own_namespaces')


@pytest.fixture
def router() -> Iterator[flows.Namespace]:
    """A namespace that translates thirty connections of an instance."""
    with flows.Namespace() as router:
        router.add(
            *(
                ctnetlink.Entry(ctnetlink.tcp(FIXED, f'192.0.2.{n}'), nat_src=FLOATING)
                for n in range(1, 31)
            )
        )
        yield router


def test_connections_in_a_router_namespace_are_those_of_the_instance(
    router: flows.Namespace,
) -> None:
    options = {'conntrack': {'namespaces': router.name}, 'outbound': {'enabled': 'true'}}
    with exporters.Exporter(URI, options) as exporter:
        scrape = exporter.next_scrape()
        listed = exporter.pollster('flows')

    labels = {'instance_uuid': UUID, 'ip': FIXED, 'family': 'ipv4'}
    assert scrape.value('oie_conntrack_ip_flows_total', **labels) == 30
    assert scrape.value('oie_outbound_unique_remotes', **labels) == 30
    assert scrape.value('oie_outbound_unique_dst_ports', **labels) == 1
    assert scrape.value('oie_outbound_new_remotes', **labels) == 0
    assert scrape.value('oie_host_conntrack_complete') == 1
    (entry,) = [e for e in listed.entries if (e['instance_id'], e['ip']) == (UUID, FIXED)]
    assert (entry['entries'], entry['outbound_remotes'], entry['inbound_flows']) == (30, 30, 0)


def test_pattern_that_matches_no_namespace_is_no_failure() -> None:
    with exporters.Exporter(URI, {'conntrack': {'namespaces': 'oiet-gone-*'}}) as exporter:
        scrape = exporter.next_scrape()

    assert scrape.value('oie_host_conntrack_complete') == 1
    assert scrape.value('oie_conntrack_read_errors_total') == 0
