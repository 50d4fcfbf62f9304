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

"""A zone map is read when due; the last good one stays, but not for ever."""

import logging

import pytest

from oie.sources.zone_maps import kept
from oie.sources.zone_maps import none
from tests.unit.sources.zone_maps import fakes

FIRST = {1: 'port-1'}
SECOND = {2: 'port-2'}
BROKEN = fakes.unreadable('database is gone')


class Clock:
    """Seconds that pass when told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def keep(clock):
    """Return a function that makes a kept map of drivers, 'ovn' by default."""

    def keep(driver, wanted='ovn'):
        drivers = {'none': none.NoZoneMap(), 'ovn': driver}
        return kept.KeptZoneMap(drivers, wanted, monotonic=clock, wall=lambda: 1.7e9 + clock.now)

    return keep


def reads_within(seconds, zones, driver, clock, step=10.0):
    """Return how often the driver was read in so many seconds of cycles."""
    before, end = driver.reads, clock.now + seconds
    while clock.now < end:
        clock.now += step
        zones.read()
    return driver.reads - before


class TestPace:
    def test_map_is_read_once_in_a_refresh(self, keep, clock):
        driver = fakes.FakeMap(FIRST)
        zones = keep(driver)
        zones.read()
        assert reads_within(60, zones, driver, clock, step=1.0) == 6

    def test_cycle_that_begins_a_little_early_reads_too(self, keep, clock):
        driver = fakes.FakeMap(FIRST)
        zones = keep(driver)
        zones.read()
        assert reads_within(99.9, zones, driver, clock, step=9.99) == 10

    def test_pauses_grow_while_it_fails(self, keep, clock):
        driver = fakes.FakeMap(BROKEN)
        zones = keep(driver)
        zones.read()
        # after 10, 20, 40 and then every 60 seconds
        assert reads_within(310, zones, driver, clock) == 7

    def test_failures_of_a_year_are_survived(self, keep, clock):
        driver = fakes.FakeMap(BROKEN)
        zones = keep(driver)
        assert reads_within(60 * 2000, zones, driver, clock, step=60.0) == 2000

    def test_pace_is_usual_after_a_success(self, keep, clock):
        driver = fakes.FakeMap(BROKEN, BROKEN, BROKEN, FIRST)
        zones = keep(driver)
        reads_within(70, zones, driver, clock)
        assert reads_within(30, zones, driver, clock) == 3


class TestReading:
    def test_success_tells_when(self, keep, clock):
        reading = keep(fakes.FakeMap(FIRST)).read()
        assert (reading.value, reading.read_at, reading.error) == (FIRST, 1.7e9 + 100, '')

    def test_empty_map_is_not_no_map(self, keep):
        assert keep(fakes.FakeMap({})).read().value == {}
        assert keep(fakes.FakeMap({}), 'none').read().value is None

    def test_last_good_map_stays_with_the_error_and_its_time(self, keep, clock):
        zones = keep(fakes.FakeMap(FIRST, BROKEN))
        zones.read()
        clock.now += 10
        reading = zones.read()
        assert reading.value == FIRST
        assert reading.read_at == 1.7e9 + 100
        assert reading.error == 'database is gone'

    def test_map_that_is_too_old_is_no_map(self, keep, clock):
        zones = keep(fakes.FakeMap(FIRST, BROKEN))
        zones.read()
        clock.now += 300
        young = zones.read()
        clock.now += 1
        old = zones.read()
        assert (young.value, old.value, old.error) == (FIRST, None, 'database is gone')

    def test_new_map_replaces_the_old_one(self, keep, clock):
        zones = keep(fakes.FakeMap(FIRST, BROKEN, SECOND))
        values = []
        for _ in range(4):
            values.append(zones.read().value)
            clock.now += 10
        assert values == [FIRST, FIRST, SECOND, SECOND]
        assert zones.read().error == ''

    def test_driver_that_raises_anything_costs_the_map_only(self, keep):
        reading = keep(fakes.FakeMap(KeyError('x'))).read()
        assert (reading.value, reading.error) == (None, "KeyError('x')")

    def test_counts_are_those_of_the_driver(self, keep):
        driver = fakes.FakeMap(FIRST)
        driver.conflicts, driver.malformed = 3, 4
        zones = keep(driver)
        assert (zones.conflicts, zones.malformed) == (3, 4)

    def test_lasting_failure_is_logged_when_it_starts_and_ends(self, keep, clock, caplog):
        driver = fakes.FakeMap(BROKEN, BROKEN, FIRST)
        reads_within(60, keep(driver), driver, clock)
        assert [(r.levelno, r.getMessage()) for r in caplog.records] == [
            (logging.WARNING, 'zone map: not read: database is gone'),
            (logging.WARNING, 'zone map: not read: over'),
        ]


class TestAuto:
    def test_map_that_is_here_is_used(self, keep):
        zones = keep(fakes.FakeMap(FIRST), 'auto')
        assert zones.read().value == FIRST
        assert zones.name == 'ovn'

    def test_host_without_a_map_is_looked_at_again(self, keep, clock):
        driver = fakes.FakeMap(FIRST, is_here=False)
        zones = keep(driver, 'auto')
        before = zones.read()
        driver.is_here = True
        clock.now += 50
        between = zones.read()
        clock.now += 10
        after = zones.read()
        assert (before.value, between.value, after.value) == (None, None, FIRST)
        assert before.error == between.error == after.error == ''

    def test_choice_once_made_stays(self, keep, clock):
        driver = fakes.FakeMap(FIRST, BROKEN)
        zones = keep(driver, 'auto')
        zones.read()
        driver.is_here = False
        clock.now += 10
        reading = zones.read()
        assert (zones.name, reading.value, reading.error) == ('ovn', FIRST, 'database is gone')

    def test_unclear_host_has_an_error_and_no_name_until_it_is_clear(self, keep, clock):
        driver = fakes.FakeMap(FIRST, is_here=fakes.unreadable('permission denied'))
        zones = keep(driver, 'auto')
        unclear = zones.read()
        name = zones.name
        counts = zones.conflicts, zones.malformed
        driver.is_here = True
        clock.now += 10
        assert (unclear.value, name, counts) == (None, '', (0, 0))
        assert 'permission denied' in unclear.error
        assert zones.read().value == FIRST
