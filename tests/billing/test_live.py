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

"""Real guests, the real daemon and the real chain, live: what is used is what is paid.

Nothing here is back-dated. Two guests of two projects run for less than a minute; meanwhile one is
stopped and started, ``oie-exporter`` is killed by SIGKILL, and the other guest is deleted. Periods
are the five minutes of Gnocchi's finer granularity, in place of an hour; those that were touched
are rated before they are over, which changes nothing: nobody uses anything after that.
"""

from collections.abc import Iterator
import dataclasses
import time

import pytest

from tests.billing import ceilometer
from tests.billing import cloudkitty
from tests.billing import environments
from tests.billing import gnocchi
from tests.billing import history
from tests.functional import exporter as exporters
from tests.functional import guests as lab_guests
from tests.functional import lab
from tests.functional import processes

PERIOD = 300
VCPU_SECONDS = 'oie.usage.vcpu.seconds'
# Prices per second: etc/cloudkitty/hashmap.sh has them per hour.
PER_VCPU_SECOND = 0.01 / 3600

Totals = dict[tuple[str, str], float]


@dataclasses.dataclass(frozen=True)
class Past:
    """What happened, and what it was seen to use.

    :ivar polls: the totals of each poll by instance and meter
    :ivar times: Unix times of the polls
    :ivar seconds: for how long there was no guest or no daemon, until it was seen again
    :ivar before: what ``oie-pollster`` printed before the first poll, ``after`` behind it
    """

    kept: lab_guests.Guest
    deleted: lab_guests.Guest
    polls: tuple[Totals, ...]
    times: tuple[float, ...]
    seconds: float
    before: Totals
    after: Totals
    prometheus: history.Relabelling

    def used(self, guest: lab_guests.Guest, meter: str) -> float:
        """Return the difference of the last and the first total that Ceilometer got."""
        found = [poll[guest.uuid, meter] for poll in self.polls if (guest.uuid, meter) in poll]
        return found[-1] - found[0]

    @property
    def periods(self) -> tuple[int, ...]:
        """The begins of the periods that were touched."""
        first, last = (int(moment) // PERIOD * PERIOD for moment in (self.times[0], time.time()))
        return tuple(range(first, last + 1, PERIOD))


# The first test waits for the servers, and for the installation of what is not there yet.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope='module')
def past(
    installed: dict[str, environments.Environment],
    server: gnocchi.Gnocchi,
    libvirtd: lab.Libvirtd,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Past]:
    """Let it happen."""
    kept, deleted = (
        # A network card that takes frames before there is a driver.
        libvirtd.guest(vcpus=vcpus, program='disk', port_model='rtl8139')
        for vcpus in (2, 1)
    )
    for guest in (kept, deleted):
        guest.start()
    settings: exporters.Settings = {
        'collector': {'interval': '1s', 'dynamic_cache_expiration': '10s', 'cpu_min': 0},
        'ledger': {'path': tmp_path_factory.mktemp('ledger') / 'ledger.sqlite'},
    }
    with exporters.Exporter(libvirtd.uri, settings) as exporter:
        command = f'exec {exporters.BIN}/oie-pollster "$@" --config-file {exporter.config}'
        with (
            history.Relabelling(exporter.address) as prometheus,
            ceilometer.Agent(installed['ceilometer'], server, command) as agent,
        ):
            prometheus.wait_until_up()
            yield _happen(exporter, agent, prometheus, kept, deleted, libvirtd)
    libvirtd.remove([kept])


def _happen(
    exporter: exporters.Exporter,
    agent: ceilometer.Agent,
    prometheus: history.Relabelling,
    kept: lab_guests.Guest,
    deleted: lab_guests.Guest,
    libvirtd: lab.Libvirtd,
) -> Past:
    polls: list[Totals] = []
    times: list[float] = []

    def poll() -> None:
        exporter.next_scrape()
        times.append(time.time())
        polls.append(_totals(agent.poll()))

    exporter.next_scrape()
    before = _printed(exporter)
    poll()
    after = _printed(exporter)
    kept.send_frames(20)
    poll()
    missed = time.time()
    kept.destroy()
    kept.start()
    exporter.next_scrape()
    seconds = time.time() - missed
    kept.send_frames(30)
    poll()
    missed = time.time()
    exporter.kill()
    exporter.start()
    exporter.next_scrape()
    seconds += time.time() - missed
    poll()
    libvirtd.remove([deleted])
    exporter.wait_for(lambda now: deleted.uuid not in now.instances(), 'the end of the guest')
    poll()
    # A scrape with the last of it.
    last = exporter.next_scrape()
    processes.wait_for(
        lambda: any(
            float(one['value'][1]) >= last.taken for one in prometheus.query(exporters.TAKEN)
        ),
        20,
        'Prometheus',
    )
    # The guest runs on, and Prometheus would see it while the other side is rated.
    exporter.stop()
    return Past(
        kept=kept,
        deleted=deleted,
        polls=tuple(polls),
        times=tuple(times),
        seconds=seconds,
        before=before,
        after=after,
        prometheus=prometheus,
    )


def _totals(samples: list[ceilometer.Sample]) -> Totals:
    return {
        (sample['resource_metadata']['instance_id'], sample['counter_name']): float(
            sample['counter_volume']
        )
        for sample in samples
        if sample['counter_name'].startswith('oie.usage.')
    }


def _printed(exporter: exporters.Exporter) -> Totals:
    return {
        (entry['instance_id'], f'oie.{each[key]}'): float(each['value'])
        for entry in exporter.pollster('usage').entries
        for key, values in entry.items()
        if isinstance(values, list)
        for each in values
        if each['value'] is not None
    }


@pytest.fixture(scope='module')
def gnocchi_bill(
    past: Past, server: gnocchi.Gnocchi, rating: cloudkitty.CloudKitty
) -> cloudkitty.Bill:
    server.wait_until_processed()
    return rating.rate_gnocchi(server, _projects(past), past.periods, PERIOD)


@pytest.fixture(scope='module')
def prometheus_bill(past: Past, rating: cloudkitty.CloudKitty) -> cloudkitty.Bill:
    return rating.rate_prometheus(past.prometheus.url, _projects(past), past.periods, PERIOD)


def _projects(past: Past) -> tuple[str, str]:
    one, other = (guest.instance.owner.project_id for guest in (past.kept, past.deleted))
    assert one != other
    return one, other


def test_samples_are_what_the_pollster_prints(past: Past) -> None:
    first = past.polls[0]
    assert first.keys() == past.before.keys()
    for key, value in first.items():
        assert past.before[key] <= value <= past.after[key], key


def test_no_total_ever_falls(past: Past) -> None:
    for guest in (past.kept, past.deleted):
        for meter in {name for _, name in past.polls[0]}:
            found = [poll[guest.uuid, meter] for poll in past.polls if (guest.uuid, meter) in poll]
            assert found == sorted(found), meter
    packets = past.used(past.kept, 'oie.usage.network.incoming.packets')
    assert packets >= 20 + 30
    assert (past.deleted.uuid, VCPU_SECONDS) not in past.polls[-1]


def test_time_is_counted_while_somebody_looks(past: Past) -> None:
    """Between the first and the last poll; what nobody can see may be missing, not more."""
    seconds = past.times[-1] - past.times[0]
    used = past.used(past.kept, VCPU_SECONDS) / past.kept.instance.vcpus
    # Each poll shows the cycle before it.
    assert seconds - past.seconds - 4 <= used <= seconds + 4


def test_price_over_gnocchi_is_that_of_the_totals(
    past: Past, gnocchi_bill: cloudkitty.Bill
) -> None:
    """Killing the daemon, the guest's restart and the deletion change nothing in it."""
    for guest in (past.kept, past.deleted):
        used = past.used(guest, VCPU_SECONDS)
        scope = guest.instance.owner.project_id
        assert used > 0
        price = gnocchi_bill.price(scope=scope, service='vcpu_hours')
        # The storage has eight decimals, each period is rounded.
        assert price == pytest.approx(used * PER_VCPU_SECOND, abs=1e-7)
        sent = past.used(guest, 'oie.usage.disk.write.bytes') / 2**30
        written = gnocchi_bill.quantity(scope=scope, service='disk_write')
        assert written == pytest.approx(sent, abs=2e-5)
        assert {line.labels['instance_id'] for line in gnocchi_bill.of(scope=scope)} == {
            guest.uuid
        }


def test_price_over_prometheus_is_that_of_the_totals_that_it_saw(
    past: Past, prometheus_bill: cloudkitty.Bill
) -> None:
    """It began to look before Ceilometer; rate() adds up to half a scrape at an end."""
    for guest in (past.kept, past.deleted):
        scope = guest.instance.owner.project_id
        paid = prometheus_bill.price(scope=scope, service='vcpu_hours') / PER_VCPU_SECOND
        total = f'oie_instance_usage_vcpu_seconds_total{{instance_uuid="{guest.uuid}"}}[10m]'
        query = f'max_over_time({total}) - min_over_time({total})'
        [seen] = past.prometheus.query(query)
        used = float(seen['value'][1])
        assert paid == pytest.approx(used, abs=2 * guest.instance.vcpus)
        assert used >= past.used(guest, VCPU_SECONDS)
        assert {line.labels['instance_uuid'] for line in prometheus_bill.of(scope=scope)} == {
            guest.uuid
        }


def test_gnocchi_has_the_owner_and_the_flavor(past: Past, server: gnocchi.Gnocchi) -> None:
    for guest in (past.kept, past.deleted):
        for type_, name in (('instance', guest.uuid), ('oie_usage', f'{guest.uuid}-cmp1')):
            resource = server.resource(type_, name)
            assert resource['project_id'] == guest.instance.owner.project_id
            assert resource['flavor_name'] == guest.instance.flavor.name
            assert resource['display_name'] == guest.instance.display_name
            assert isinstance(resource['os_distro'], str)
        disk = server.resource('instance_disk', f'{guest.uuid}-vda')
        assert (disk['name'], disk['instance_id']) == ('vda', guest.uuid)
