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

"""Known usage in, the price computed by hand out: over Gnocchi and over Prometheus.

All of it is back-dated by hours: ``tests.billing.day`` tells what was used, the clock of
Ceilometer's agent is set to each poll, Gnocchi's resources are dated back in its index, and
``promtool`` makes blocks of the past for Prometheus. What is real beside that: the ledger, the
lists, Ceilometer's agent, pipeline and publisher, Gnocchi with metricd, Prometheus, and
CloudKitty's collectors, worker, hashmap and storage with our files and our script of prices.
"""

from collections.abc import Iterator
import datetime
import pathlib
import time

import pytest

from tests.billing import ceilometer
from tests.billing import cloudkitty
from tests.billing import day
from tests.billing import environments
from tests.billing import gnocchi
from tests.billing import history

#: As far back that all of it is over.
AGO = 4 * day.HOUR

# Per hour of the machine "web", see tests.billing.day, at the prices of etc/cloudkitty/hashmap.sh.
#   4 vCPU*h * 0.01 + 8 GiB*h * 0.005 + 3.515625 GiB read * 0.001 + 7.03125 GiB written * 0.002
#   + 1.7578125 GiB received * 0 + 3.515625 GiB sent * 0.02 + 4 units*h of Windows * 0.05
#   = 0.04 + 0.04 + 0.003515625 + 0.0140625 + 0 + 0.0703125 + 0.2
WEB_HOUR = 0.367890625
# Of the second hour ten minutes are not known to anybody: a sixth of what goes by time is missing
# (0.28 / 6), the bytes are counted all the same.
WEB_HOUR_WITH_GAP = WEB_HOUR - 0.28 / 6
# Per hour of "db": 2 vCPU*h * 0.01 + 2 GiB*h * 0.005 + 1.7578125 GiB sent * 0.02
DB_HOUR = 0.02 + 0.01 + 0.03515625


# The first test waits for the servers, and for the installation of what is not there yet.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope='module')
def begin() -> int:
    """Return the Unix time of the first hour."""
    return int(time.time()) // day.HOUR * day.HOUR - AGO


@pytest.fixture(scope='module')
def told(begin: int, tmp_path_factory: pytest.TempPathFactory) -> 'Told':
    """Return the two hours as files for Ceilometer and text for Prometheus."""
    directory = tmp_path_factory.mktemp('day')
    told = Told(directory)
    for second, snapshot in day.Node(begin, directory / 'ledger.sqlite').snapshots():
        told.history.add(snapshot)
        if (second + 1) % day.POLL == 0:
            day.write_lists(snapshot, directory / f'{second}')
            told.polls.append(second)
    return told


class Told:
    """What is made of the two hours.

    :ivar polls: the seconds at which Ceilometer polls; the lists are in directories of that name
    """

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.history = day.History()
        self.polls: list[int] = []


@pytest.fixture(scope='module')
def filled(
    installed: dict[str, environments.Environment],
    server: gnocchi.Gnocchi,
    told: Told,
    begin: int,
) -> gnocchi.Gnocchi:
    """Return Gnocchi with the two hours in it."""
    command = 'exec cat "$LISTS/$1.json"'
    meters = ('oie.{usage_*', 'oie.{os_*')
    agent_of_it = ceilometer.Agent(installed['ceilometer'], server, command, meters)
    with server.held(), agent_of_it as agent:
        for second in told.polls:
            now = datetime.datetime.fromtimestamp(begin + second, datetime.timezone.utc)
            at = now.replace(tzinfo=None).isoformat()
            samples = agent.poll(at=at, lists=str(told.directory / f'{second}'))
            assert samples
            assert {sample['timestamp'][:19] for sample in samples} == {at}
    server.backdate(AGO + day.HOUR)
    server.wait_until_processed()
    return server


@pytest.fixture(scope='module')
def remembering(
    installed: dict[str, environments.Environment], told: Told
) -> Iterator[history.Remembering]:
    with history.Remembering(told.history.text) as running:
        yield running


@pytest.fixture(scope='module')
def gnocchi_bill(
    filled: gnocchi.Gnocchi, rating: cloudkitty.CloudKitty, begin: int
) -> cloudkitty.Bill:
    return rating.rate_gnocchi(filled, (day.SHOP, day.LAB), (begin, begin + day.HOUR))


@pytest.fixture(scope='module')
def prometheus_bill(
    remembering: history.Remembering, rating: cloudkitty.CloudKitty, begin: int
) -> cloudkitty.Bill:
    return rating.rate_prometheus(remembering.url, (day.SHOP, day.LAB), (begin, begin + day.HOUR))


def test_gnocchi_stores_totals_that_only_grow_with_what_describes_the_instance(
    filled: gnocchi.Gnocchi, begin: int
) -> None:
    name = f'{day.WEB}-cmp1'

    resource = filled.resource('oie_usage', name)
    hours = filled.measures('oie_usage', name, 'oie.usage.vcpu.seconds', 'rate:sum', day.HOUR)
    sent = filled.measures(
        'oie_usage', name, 'oie.usage.network.outgoing.bytes', 'rate:sum', day.POLL
    )

    assert resource['project_id'] == day.SHOP
    described = {
        'instance_id': day.WEB,
        'display_name': 'web',
        'flavor_name': 'm1.large',
        'host': 'cmp1',
        'os_family': 'windows',
        'os_distro': 'windows',
        'os_version_major': '10',
    }
    assert {key: resource[key] for key in described} == described
    # 4 vCPUs * 3600 s, and 600 s less.
    assert [value for _, value in hours][-2:] == [14400, 12000]
    # The reboot does not show. One poll was missed; then comes all that was sent meanwhile.
    assert {value for _, value in sent} == {300 * day.MIB, 600 * day.MIB}


def test_gnocchi_stores_the_operating_system_with_the_instance(
    filled: gnocchi.Gnocchi,
) -> None:
    resource = filled.resource('instance', day.WEB)

    assert (resource['project_id'], resource['os_distro']) == (day.SHOP, 'windows')
    assert resource['os_product_name'] == 'Windows Server 2022'
    units = filled.measures('instance', day.WEB, 'oie.license.units', 'max', day.HOUR)
    assert {value for _, value in units} == {4}


def test_first_hour_costs_what_was_computed_by_hand(
    gnocchi_bill: cloudkitty.Bill, prometheus_bill: cloudkitty.Bill, begin: int
) -> None:
    """The reboot in the middle of it does not show."""
    for bill in (gnocchi_bill, prometheus_bill):
        assert bill.price(scope=day.SHOP, begin=begin) == pytest.approx(WEB_HOUR, rel=1e-6)
        assert bill.price(scope=day.LAB, begin=begin) == pytest.approx(DB_HOUR, rel=1e-6)


@pytest.mark.parametrize(
    ('service', 'quantity'),
    [
        ('vcpu_hours', 4),
        ('memory_hours', 8),
        ('disk_read', 3600 / 1024),
        ('disk_write', 2 * 3600 / 1024),
        ('traffic_incoming', 1800 / 1024),
        ('traffic_outgoing', 3600 / 1024),
        ('licence_hours', 4),
    ],
)
def test_quantities_are_those_used(
    gnocchi_bill: cloudkitty.Bill,
    prometheus_bill: cloudkitty.Bill,
    begin: int,
    service: str,
    quantity: float,
) -> None:
    for bill in (gnocchi_bill, prometheus_bill):
        [line] = bill.of(scope=day.SHOP, begin=begin, service=service)
        # This storage keeps five decimals of a quantity, and eight of its price.
        assert line.quantity == pytest.approx(quantity, abs=1e-5)


def test_second_hour_bills_neither_the_gap_nor_what_is_deleted(
    gnocchi_bill: cloudkitty.Bill, begin: int
) -> None:
    second = begin + day.HOUR
    web = gnocchi_bill.price(scope=day.SHOP, begin=second)
    assert web == pytest.approx(WEB_HOUR_WITH_GAP, rel=1e-6)
    # It was there for half of the hour.
    db = gnocchi_bill.price(scope=day.LAB, begin=second)
    assert db == pytest.approx(DB_HOUR / 2, rel=1e-6)


def test_prometheus_differs_by_half_a_scrape_at_an_end_and_evens_out_a_gap(
    gnocchi_bill: cloudkitty.Bill, prometheus_bill: cloudkitty.Bill, begin: int
) -> None:
    """rate() extrapolates: a half of the 60 s at the end of "db", and over a gap an average."""
    second = begin + day.HOUR
    db = prometheus_bill.quantity(scope=day.LAB, begin=second, service='vcpu_hours')
    # 1799 s between its first and last second of the hour, and 30 s more.
    assert db == pytest.approx(2 * 1829 / 3600, rel=1e-3)
    web = prometheus_bill.price(scope=day.SHOP, begin=second)
    assert web == pytest.approx(WEB_HOUR_WITH_GAP, rel=5e-3)


def test_a_licence_is_billed_by_the_system_that_needs_it(
    gnocchi_bill: cloudkitty.Bill, prometheus_bill: cloudkitty.Bill, begin: int
) -> None:
    for bill in (gnocchi_bill, prometheus_bill):
        [windows] = bill.of(scope=day.SHOP, begin=begin, service='licence_hours')
        assert windows.labels['os_distro'] == 'windows'
        assert windows.price == pytest.approx(0.2, rel=1e-6)
        assert bill.price(scope=day.LAB, service='licence_hours') == 0


def test_nobody_pays_for_the_other_project(gnocchi_bill: cloudkitty.Bill) -> None:
    for scope, uuid in ((day.SHOP, day.WEB), (day.LAB, day.DB)):
        lines = gnocchi_bill.of(scope=scope)
        assert {line.labels['instance_id'] for line in lines} == {uuid}
        assert {line.labels['project_id'] for line in lines} == {scope}
