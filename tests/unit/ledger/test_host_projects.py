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

"""What projects have used on this host: the sum over instances, and it never falls."""

import hypothesis
from hypothesis import strategies
import pytest

from oie.ledger import reader
from oie.ledger import store
from oie.ledger import writer
from tests import builders

DAY = 86400.0
GAP = 30.0
PROJECT, OTHER = '8f0f3c0e5d6a4b7c9e1d2f3a4b5c6d7e', 'other'


class Clock:
    def __init__(self):
        self.now = 0.0

    def time(self):
        return builders.NOW + self.now

    def monotonic(self):
        return 5000 + self.now


def guest(number, project=PROJECT, **more):
    of = builders.definition(
        uuid=f'{number:08x}-0000-4000-8000-000000000000',
        domain=f'instance-{number:08x}',
        project_uuid=project,
    )
    return builders.instance(of, **{'vcpus': 2, 'monitor': None, **more})


class Host:
    """A ledger over a real file, whose cycles the test runs."""

    def __init__(self, path, keep=400 * DAY):
        self.path, self.keep, self.clock = path, keep, Clock()
        self.start()

    def start(self):
        rows = writer.Writer(store.Store(str(self.path)), retry=0.01, clock=self.clock.time)
        self.ledger = reader.LedgerReader(rows, keep=self.keep, boot_id='boot-1', clock=self.clock)

    def restart(self):
        self.ledger.close()
        self.start()

    def cycle(self, *guests, seconds=10.0):
        """Return vCPU-seconds by project after a cycle that is written."""
        self.clock.now += seconds
        now = [builders.later(each, self.clock.now, self.clock.now) for each in guests]
        known = frozenset(each.definition.uuid for each in guests)
        found = self.ledger.read(tuple(now), GAP, known)
        while found['usage'].error or found['host_projects'] is None:
            # A slow disk, nothing is shown before it is written: the same moment once more.
            found = self.ledger.read(tuple(now), GAP, known)
        return {
            dict(each.labels.pairs)['project_uuid']: each.vcpu_seconds
            for each in found['host_projects']
        }


@pytest.fixture
def host(tmp_path):
    made = Host(tmp_path / 'ledger.sqlite')
    yield made
    made.ledger.close()


def settled(host, *guests):
    """Return the totals of a later cycle in which no time counts."""
    return host.cycle(*guests, seconds=2 * GAP)


def test_a_project_has_the_sum_of_its_instances(host):
    host.cycle(guest(1), guest(2), guest(3, OTHER))
    host.cycle(guest(1), guest(2), guest(3, OTHER))
    # 10 s x 2 vCPUs, twice; 10 s x 2
    assert settled(host, guest(1), guest(2), guest(3, OTHER)) == {PROJECT: 40.0, OTHER: 20.0}


def test_an_instance_that_left_stays_in_the_sum_and_is_not_counted_twice_when_it_comes_back(host):
    host.cycle(guest(1), guest(2))
    host.cycle(guest(1), guest(2))
    host.cycle(guest(2), seconds=2 * GAP)
    assert settled(host, guest(2))[PROJECT] == 40.0
    assert settled(host, guest(1), guest(2))[PROJECT] == 40.0
    host.cycle(guest(1), guest(2))
    assert settled(host, guest(1), guest(2))[PROJECT] == 80.0


def test_a_restart_changes_nothing(host):
    host.cycle(guest(1), guest(2))
    host.cycle(guest(1), guest(2))
    settled(host, guest(2))
    host.restart()
    assert settled(host, guest(2))[PROJECT] == 40.0


def test_a_forgotten_instance_stays_in_the_sum_over_a_restart(tmp_path):
    host = Host(tmp_path / 'ledger.sqlite', keep=DAY)
    host.cycle(guest(1), guest(2))
    host.cycle(guest(1), guest(2))
    for _ in range(3):
        host.cycle(guest(2), seconds=DAY)
    assert host.ledger.read((), GAP, frozenset())['ledger'].instances == 1
    assert settled(host, guest(2))[PROJECT] == 40.0
    host.restart()
    assert settled(host, guest(2))[PROJECT] == 40.0
    host.ledger.close()


def test_guests_that_belong_to_nobody_are_in_no_sum(host):
    host.cycle(guest(1, ''))
    assert host.cycle(guest(1, '')) == {}


def test_an_older_file_is_taken_over(tmp_path):
    host = Host(tmp_path / 'ledger.sqlite')
    host.cycle(guest(1))
    host.cycle(guest(1))
    host.ledger.close()
    older = store.Store(str(host.path))
    older.open()
    older._connection.execute('DROP TABLE forgotten')
    older.close()
    host.start()
    assert settled(host, guest(1)) == {PROJECT: 20.0}
    host.ledger.close()


@hypothesis.settings(max_examples=25)
@hypothesis.given(
    strategies.lists(
        strategies.tuples(
            strategies.sets(strategies.integers(1, 4)),
            strategies.sampled_from([1.0, 10.0, 100.0, DAY]),
            strategies.booleans(),
        ),
        max_size=12,
    )
)
def test_no_sum_falls_whoever_comes_and_goes(tmp_path_factory, cycles):
    host = Host(tmp_path_factory.mktemp('host') / 'ledger.sqlite', keep=DAY)
    before = {}
    for present, seconds, restarts in cycles:
        if restarts:
            host.restart()
        guests = [guest(number, (PROJECT, OTHER)[number % 2]) for number in present]
        found = host.cycle(*guests, seconds=seconds)
        assert all(found[project] >= value for project, value in before.items())
        before = found
    host.ledger.close()
