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

"""Whose a flow is, from entries that a real kernel keeps and translates.

The entries are made by ctnetlink in a private network namespace; where one is
translated, the kernel makes the tuple of the replies itself.
"""

from collections.abc import Iterator

import pytest

from oie import model
from oie.analysis import attribution
from oie.sources import conntrack
from tests import ctnetlink
from tests.functional import attributed
from tests.functional import flows

FIXED, FLOATING = '10.0.0.5', '203.0.113.5'
OTHER, OTHER_FLOATING = '10.1.0.9', '203.0.113.9'
FIXED6, REMOTE6 = '2001:db8::5', '2001:db8:1::1'
REMOTE = '192.0.2.1'


A, B = (
    attributed.instance('a', FIXED, FIXED6, port='port-a'),
    attributed.instance('b', OTHER, port='port-b'),
)
TWIN = attributed.instance('twin', FIXED, port='port-t')


pytestmark = pytest.mark.usefixtures('own_namespaces')


@pytest.fixture(scope='module')
def namespace() -> Iterator[flows.Namespace]:
    with flows.Namespace() as namespace:
        yield namespace


def attribute(
    namespace: flows.Namespace,
    *entries: ctnetlink.Entry,
    instances: tuple[model.Instance, ...] = (A, B),
    zones: dict[int, str] | None = None,
) -> attribution.Attribution:
    namespace.flush()
    namespace.add(*entries)
    found = attribution.Attribution(attribution.Owners(instances, zones))
    namespace.run(lambda: conntrack.dump(found.take))
    return found


OUT, IN = [('a', FIXED, REMOTE)], [('a', FIXED, REMOTE)]
TABLE = {
    'plain, out': (ctnetlink.Entry(ctnetlink.tcp(FIXED, REMOTE)), OUT, []),
    'plain, in': (ctnetlink.Entry(ctnetlink.tcp(REMOTE, FIXED)), [], IN),
    'source NAT': (
        ctnetlink.Entry(ctnetlink.tcp(FIXED, REMOTE), nat_src=FLOATING),
        OUT,
        [],
    ),
    'destination NAT': (
        ctnetlink.Entry(ctnetlink.tcp(REMOTE, FLOATING), nat_dst=FIXED),
        [],
        IN,
    ),
    'hairpin: to the own floating IP': (
        ctnetlink.Entry(ctnetlink.tcp(FIXED, FLOATING), nat_src=FLOATING, nat_dst=FIXED),
        [('a', FIXED, FLOATING)],
        [('a', FIXED, FLOATING)],
    ),
    'floating IP to floating IP': (
        ctnetlink.Entry(ctnetlink.tcp(FIXED, OTHER_FLOATING), nat_src=FLOATING, nat_dst=OTHER),
        [('a', FIXED, OTHER_FLOATING)],
        [('b', OTHER, FLOATING)],
    ),
    'IPv6': (
        ctnetlink.Entry(ctnetlink.udp(FIXED6, REMOTE6)),
        [('a', FIXED6, REMOTE6)],
        [],
    ),
    'ICMP': (ctnetlink.Entry(ctnetlink.echo(FIXED, REMOTE)), OUT, []),
    'GRE': (ctnetlink.Entry(ctnetlink.gre(FIXED, REMOTE)), OUT, []),
    'SCTP': (ctnetlink.Entry(ctnetlink.sctp(FIXED, REMOTE)), OUT, []),
    'between two guests': (
        ctnetlink.Entry(ctnetlink.tcp(FIXED, OTHER)),
        [('a', FIXED, OTHER)],
        [('b', OTHER, FIXED)],
    ),
    'of nobody': (ctnetlink.Entry(ctnetlink.tcp(REMOTE, FLOATING)), [], []),
}


@pytest.mark.parametrize('row', TABLE)
def test_instance_direction_and_peer(namespace: flows.Namespace, row: str) -> None:
    entry, outbound, inbound = TABLE[row]

    found = attribute(namespace, entry)

    assert attributed.sides(found, found.outbound()) == outbound
    assert attributed.sides(found, found.inbound()) == inbound
    assert found.unattributed == (not outbound and not inbound)


def test_zones_tell_equal_addresses_apart(namespace: flows.Namespace) -> None:
    entries = [
        ctnetlink.Entry(ctnetlink.tcp(FIXED, REMOTE), zone=7),
        ctnetlink.Entry(ctnetlink.tcp(FIXED, '192.0.2.2'), zone=8),
    ]

    found = attribute(namespace, *entries, instances=(A, TWIN), zones={7: 'port-a', 8: 'port-t'})

    assert attributed.sides(found, found.outbound()) == [
        ('a', FIXED, REMOTE),
        ('twin', FIXED, '192.0.2.2'),
    ]
    assert found.ambiguous == 0


def test_equal_addresses_without_zones_are_never_guessed(namespace: flows.Namespace) -> None:
    entry = ctnetlink.Entry(ctnetlink.tcp(FIXED, REMOTE))

    found = attribute(namespace, entry, instances=(A, TWIN))

    assert attributed.sides(found, found.outbound()) == []
    assert (found.unattributed, found.ambiguous) == (1, 1)


def test_unanswered_connection_is_known_as_such(namespace: flows.Namespace) -> None:
    answered = ctnetlink.Entry(ctnetlink.tcp(FIXED, REMOTE))
    unanswered = ctnetlink.Entry(ctnetlink.udp(FIXED, REMOTE), status=ctnetlink.CONFIRMED)

    found = attribute(namespace, answered, unanswered)

    assert sorted(found.outbound().is_replied.tolist()) == [False, True]


def test_expected_connection_has_an_owner_of_its_own(namespace: flows.Namespace) -> None:
    control = ctnetlink.tcp(FIXED, REMOTE, dst_port=21)
    data = ctnetlink.Entry(ctnetlink.tcp(REMOTE, FIXED, src_port=20), master=control)

    found = attribute(namespace, ctnetlink.Entry(control), data)

    assert attributed.sides(found, found.outbound()) == [('a', FIXED, REMOTE)]
    assert attributed.sides(found, found.inbound()) == [('a', FIXED, REMOTE)]
