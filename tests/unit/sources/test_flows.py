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

"""Tables are read whole or not at all, the kernel's count in any case."""

import logging
import types

import pytest

from oie import exceptions
from oie import model
from oie.sources import conntrack
from oie.sources import flows
from tests.unit import measuring

REFUSED = exceptions.SourceError('the kernel refuses the table: EPERM; it needs CAP_NET_ADMIN')
INCONSISTENT = exceptions.InconsistentTable('only 3 of 500 entries came')
OVERSIZED = exceptions.OversizedTable('the table has 500 entries; raise max_entries')
VANISHED = exceptions.VanishedNamespace('the network namespace has vanished')
ZONES = {7: '11111111-1111-4111-8111-111111111111'}


class Kernel:
    """The module ``conntrack``: tables by namespace, and a script of what goes wrong.

    A table is a list of batches; an error in it is raised at its place.
    """

    COUNT, MAXIMUM = conntrack.COUNT, conntrack.MAXIMUM

    def __init__(self):
        self.numbers = {self.COUNT: 500, self.MAXIMUM: 4096}
        self.tables = {None: ['a', 'b']}
        self.sizes = {None: 500}
        self.attempts = []
        self.failures = []
        self.timeouts = set()
        self.templates = set()

    def read_number(self, path):
        number = self.numbers.get(path)
        if number is None:
            raise exceptions.SourceError(f'{path}: No such file or directory')
        return number

    def dump(self, consume, *, namespace, timeout, max_entries, templates):
        self.read_number(self.COUNT)
        if self.sizes.get(namespace, 0) > max_entries:
            raise OVERSIZED
        self.attempts.append(namespace)
        self.timeouts.add(timeout)
        self.templates.add(id(templates))
        for batch in self.tables[namespace]:
            if isinstance(batch, Exception):
                raise batch
            consume(batch)
        if namespace is None and self.failures:
            raise self.failures.pop(0)
        return types.SimpleNamespace(odd=len(self.tables[namespace]))


class Taken:
    """What takes the flows."""

    def __init__(self, zones=None):
        self.zones = zones
        self.batches = []

    def take(self, batch, *, has_zones=True):
        self.batches.append((batch, has_zones))

    def part(self):
        return Taken(self.zones)

    def add(self, part):
        self.batches += part.batches


class ZoneMap:
    """The zone map that is kept for us."""

    name = 'ovn'
    conflicts = 2

    def __init__(self):
        self.reading = model.Reading(value=ZONES, read_at=5.0, seconds=0.0)

    def read(self):
        return self.reading


@pytest.fixture
def kernel():
    return Kernel()


@pytest.fixture
def zone_map():
    return ZoneMap()


@pytest.fixture
def make(kernel, zone_map, tmp_path):
    """Return a function that makes a source with these options of ``[conntrack]``."""

    def make(**options):
        conf = measuring.options(
            **{f'conntrack__{name}': value for name, value in options.items()}
        )
        source = flows.FlowSource(conf.conntrack, zone_map, netns=str(tmp_path / 'netns'))
        source._conntrack = kernel
        return source

    return make


@pytest.fixture
def namespaces(kernel, tmp_path):
    """Return a function that makes network namespaces with one batch each."""

    def make(*names):
        directory = tmp_path / 'netns'
        directory.mkdir()
        paths = {}
        for name in names:
            (directory / name).touch()
            paths[name] = str(directory / name)
            kernel.tables[paths[name]] = [name]
        return paths

    return make


def batches(reading):
    """Return what was taken of a reading."""
    return [batch for batch, _ in reading.value.batches]


# --- a table ------------------------------------------------------------------


def test_a_complete_table_is_handed_on_with_the_zones(make, kernel):
    source = make(timeout='7s')
    reading = source.read(Taken)
    assert batches(reading) == ['a', 'b']
    assert reading.value.zones == ZONES
    assert (reading.error, source.odd) == ('', 2)
    assert reading.read_at is not None
    assert kernel.timeouts == {7.0}


def test_each_reading_has_a_consumer_of_its_own_and_keeps_the_templates(make, kernel):
    source = make()
    first, second = source.read(Taken), source.read(Taken)
    assert first.value is not second.value
    assert batches(second) == ['a', 'b']
    assert len(kernel.templates) == 1


def test_an_inconsistent_table_is_read_once_more_and_nothing_of_the_first_is_kept(make, kernel):
    kernel.failures = [INCONSISTENT]
    source = make()
    reading = source.read(Taken)
    assert batches(reading) == ['a', 'b']
    assert reading.error == ''
    assert kernel.attempts == [None, None]
    health = source.health()
    assert (health.inconsistent, health.errors) == (1, 0)


def test_twice_inconsistent_is_a_failure(make, kernel):
    kernel.failures = [INCONSISTENT, INCONSISTENT]
    source = make()
    reading = source.read(Taken)
    assert (reading.value, reading.error) == (None, str(INCONSISTENT))
    assert len(kernel.attempts) == 2
    assert (source.health().inconsistent, source.health().errors) == (2, 1)


@pytest.mark.parametrize('error', [REFUSED, exceptions.SourceTimeout('no end within 20 s')])
def test_whatever_else_goes_wrong_is_not_tried_again(make, kernel, error):
    kernel.failures = [error]
    source = make()
    reading = source.read(Taken)
    assert (reading.value, reading.error) == (None, str(error))
    assert len(kernel.attempts) == 1
    assert (source.health().inconsistent, source.health().errors) == (0, 1)


def test_a_failure_keeps_the_time_of_the_last_success(make, kernel):
    source = make()
    succeeded_at = source.read(Taken).read_at
    kernel.failures = [REFUSED]
    failed = source.read(Taken)
    assert failed.value is None
    assert failed.read_at == succeeded_at
    assert source.read(Taken).error == ''


def test_a_lasting_failure_is_logged_when_it_starts_and_when_it_ends(make, kernel, caplog):
    caplog.set_level(logging.INFO, 'oie')
    kernel.failures = [REFUSED, REFUSED]
    source = make()
    for _ in range(4):
        source.read(Taken)
    assert [record.getMessage() for record in caplog.records] == [
        f'conntrack: not read: {REFUSED}',
        'conntrack: not read: over',
    ]


# --- what the kernel counts ---------------------------------------------------


def test_without_the_right_to_read_it_the_table_is_still_counted(make, kernel):
    kernel.failures = [REFUSED]
    source = make()
    assert 'CAP_NET_ADMIN' in source.read(Taken).error
    health = source.health()
    assert (health.counted, health.maximum) == (500, 4096)


def test_a_table_that_is_too_large_is_not_read_and_says_so(make, kernel):
    source = make(max_entries=499)
    reading = source.read(Taken)
    assert reading.value is None
    assert reading.error == str(OVERSIZED)
    assert kernel.attempts == []
    health = source.health()
    assert (health.is_skipped, health.errors, health.counted) == (True, 1, 500)


def test_a_namespace_with_too_large_a_table_makes_the_reading_incomplete(make, kernel, namespaces):
    path = namespaces('qrouter-1')['qrouter-1']
    kernel.sizes[path] = 501
    source = make(max_entries=500, namespaces='qrouter-*')
    reading = source.read(Taken)
    assert reading.value is None
    assert reading.error == f'{path}: {OVERSIZED}, or leave it out of [conntrack] namespaces'
    assert source.health().is_skipped


def test_a_table_that_is_just_small_enough_is_read(make):
    source = make(max_entries=500)
    assert batches(source.read(Taken)) == ['a', 'b']
    assert not source.health().is_skipped


def test_a_table_that_shrank_is_read_again(make, kernel):
    source = make(max_entries=499)
    source.read(Taken)
    kernel.sizes[None] = 400
    assert source.read(Taken).error == ''
    assert not source.health().is_skipped


def test_a_table_that_was_not_even_counted_was_not_skipped(make, kernel):
    source = make(max_entries=499)
    source.read(Taken)
    del kernel.numbers[kernel.COUNT]
    assert 'nf_conntrack_count' in source.read(Taken).error
    assert not source.health().is_skipped


def test_a_kernel_without_connection_tracking_counts_nothing(make, kernel):
    kernel.numbers = {}
    source = make()
    assert source.read(Taken).error == f'{kernel.COUNT}: No such file or directory'
    health = source.health()
    assert (health.counted, health.maximum) == (None, None)


# --- zones --------------------------------------------------------------------


def test_health_tells_of_the_zone_map(make):
    health = make().health()
    assert (health.zone_map, health.zones, health.zone_conflicts) == ('ovn', 1, 2)
    assert health.zone_map_read_at == 5.0


def test_without_a_map_flows_are_read_without_zones(make, zone_map):
    zone_map.reading = model.Reading(value=None, read_at=None, seconds=0.0, error='no rights')
    source = make()
    assert source.read(Taken).value.zones is None
    assert (source.health().zones, source.health().zone_map_read_at) == (None, None)


# --- namespaces ---------------------------------------------------------------


def test_other_namespaces_are_left_alone_by_default(make, kernel, namespaces):
    namespaces('qrouter-1')
    make().read(Taken)
    assert kernel.attempts == [None]


def test_tables_of_chosen_namespaces_are_added_without_their_zones(make, namespaces):
    namespaces('qrouter-2', 'qdhcp-1', 'snat-1', 'qrouter-1')
    source = make(namespaces=['qrouter-*', 'snat-*'])
    reading = source.read(Taken)
    assert reading.value.batches == [
        ('a', True),
        ('b', True),
        ('qrouter-1', False),
        ('qrouter-2', False),
        ('snat-1', False),
    ]
    assert source.odd == 2 + 1 + 1 + 1


def test_a_namespace_that_is_not_complete_fails_the_reading_after_one_retry(
    make, kernel, namespaces
):
    paths = namespaces('qrouter-1', 'qrouter-2')
    kernel.tables[paths['qrouter-1']] = ['half', INCONSISTENT]
    source = make(namespaces=['qrouter-*'])
    reading = source.read(Taken)
    assert reading.value is None
    assert reading.error == str(INCONSISTENT)
    assert kernel.attempts.count(None) == 2
    assert (source.health().errors, source.health().inconsistent) == (1, 2)


def test_a_namespace_that_may_not_be_entered_fails_the_reading(make, kernel, namespaces):
    paths = namespaces('qrouter-1')
    kernel.tables[paths['qrouter-1']] = [exceptions.SourceError('it needs CAP_SYS_ADMIN')]
    reading = make(namespaces=['qrouter-*']).read(Taken)
    assert (reading.value, reading.error) == (None, 'it needs CAP_SYS_ADMIN')
    assert kernel.attempts.count(None) == 1


def test_a_namespace_that_vanished_costs_only_itself(make, kernel, namespaces):
    paths = namespaces('qrouter-1', 'qrouter-2')
    kernel.tables[paths['qrouter-1']] = ['half', VANISHED]
    source = make(namespaces=['qrouter-*'])
    reading = source.read(Taken)
    assert batches(reading) == ['a', 'b', 'qrouter-2']
    assert reading.error == ''
    assert kernel.attempts.count(None) == 1
    assert (source.health().errors, source.odd) == (0, 2 + 1)


def test_a_namespace_that_vanished_is_logged_when_it_starts_and_when_it_ends(
    make, kernel, namespaces, caplog
):
    caplog.set_level(logging.INFO, 'oie')
    path = namespaces('qrouter-1')['qrouter-1']
    source = make(namespaces=['qrouter-*'])
    for table in (['half', VANISHED], ['half', VANISHED], ['whole']):
        kernel.tables[path] = table
        source.read(Taken)
    assert [record.getMessage() for record in caplog.records] == [
        f'{path}: not read: {VANISHED}',
        f'{path}: not read: over',
    ]


def test_a_host_without_named_namespaces_has_none_to_read(make, kernel):
    reading = make(namespaces=['*']).read(Taken)
    assert (batches(reading), kernel.attempts) == (['a', 'b'], [None])


def test_closing_needs_nothing(make):
    make().close()
