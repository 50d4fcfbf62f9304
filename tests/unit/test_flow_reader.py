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

"""From one interval to the next: what failed changes nothing, what is too old is forgotten."""

import pytest

from oie import exceptions
from oie import flow_reader
from oie import model
from oie.analysis import flows
from oie.cmd import wiring
from tests import builders
from tests.unit import measuring
from tests.unit.analysis import columns

MAX_AGE = 30.0
ADDRESSES = {
    '10.0.0.5': builders.definition(uuid='a', addresses=(builders.address(ip='10.0.0.5'),)),
    '10.0.0.6': builders.definition(uuid='b', addresses=(builders.address(ip='10.0.0.6'),)),
}
A, B = (builders.instance(definition) for definition in ADDRESSES.values())


class Source:
    """A table of flows, or an error, at a time that the test sets."""

    def __init__(self):
        self.now = builders.NOW
        self.read_at = None
        self.zones = None
        self.odd = 0
        self.is_closed = False
        self.next = ()

    def read(self, make):
        if isinstance(self.next, str):
            return model.Reading(value=None, read_at=self.read_at, seconds=0.2, error=self.next)
        found = make(self.zones)
        if self.next:
            found.take(columns.Columns(*self.next))
        self.read_at = self.now
        return model.Reading(value=found, read_at=self.now, seconds=0.1)

    def health(self):
        return builders.flow_health()

    def close(self):
        self.is_closed = True


class Reader:
    """A reader of such a source."""

    def __init__(self):
        self.source = Source()
        self.reader = flow_reader.FlowReader(
            self.source, flows.Limits(), clock=lambda: self.source.now
        )

    def read(self, what, *instances, later=10.0):
        """Read flows, or an error, some seconds later."""
        self.source.now += later
        self.source.next = what
        return self.reader.read(instances or (A, B), MAX_AGE, frozenset())['flows']

    def new_remotes(self, what, **more):
        """Return how many new remotes the first address has."""
        return self.read(what, **more).value.addresses[0].outbound.new_remotes


@pytest.fixture
def one():
    return Reader()


def to(*peers, src='10.0.0.5', **more):
    return tuple(columns.Flow(src, peer, **more) for peer in peers)


def test_flows_of_an_interval_are_summed_up_by_fixed_ip(one):
    one.source.odd = 3
    reading = one.read(to('1.1.1.1', '2.2.2.2') + to('3.3.3.3', src='10.0.0.6'))
    assert [each.entries for each in reading.value.addresses] == [2, 1]
    assert (reading.value.entries, reading.value.odd) == (3, 3)
    assert (reading.read_at, reading.seconds, reading.error) == (one.source.now, 0.1, '')


def test_zones_decide_whose_a_shared_address_is(one):
    twins = [
        builders.instance(
            builders.definition(uuid=uuid, addresses=(builders.address(port_uuid=uuid),))
        )
        for uuid in ('a', 'b')
    ]
    one.source.zones = {7: 'b'}
    reading = one.read(to('1.1.1.1', zone=7), *twins)
    assert [each.entries for each in reading.value.addresses] == [0, 1]


def test_a_failed_interval_shows_the_last_table_with_the_error(one):
    good = one.read(to('1.1.1.1'))
    failed = one.read('EPERM')
    assert failed.value == good.value
    assert (failed.read_at, failed.seconds, failed.error) == (good.read_at, 0.2, 'EPERM')


def test_a_failed_interval_keeps_what_is_not_new(one):
    assert one.new_remotes(to('1.1.1.1')) is None
    one.read('EPERM')
    assert one.new_remotes(to('1.1.1.1', '2.2.2.2')) == 1


def test_a_table_that_was_never_read_is_unknown(one):
    assert one.read('EPERM') == model.Reading(value=None, read_at=None, seconds=0.2, error='EPERM')


def test_the_last_table_ends_at_its_age(one):
    one.read(to('1.1.1.1'))
    assert one.read('EPERM', later=MAX_AGE).value is not None
    assert one.read('EPERM', later=0.1).value is None


def test_after_an_outage_the_next_interval_is_a_silent_baseline(one):
    one.read(to('1.1.1.1'))
    one.read('EPERM', later=MAX_AGE + 0.1)
    assert one.new_remotes(to('9.9.9.9')) is None
    assert one.new_remotes(to('9.9.9.9', '2.2.2.2')) == 1


def test_a_pause_without_any_attempt_is_an_outage_too(one):
    """A host that slept, or a cycle that hung in libvirt."""
    one.read(to('1.1.1.1'))
    assert one.new_remotes(to('9.9.9.9'), later=MAX_AGE + 0.1) is None
    assert one.new_remotes(to('9.9.9.9')) == 0


def test_instances_that_left_leave_the_last_table_at_once(one):
    one.read(to('1.1.1.1') + to('3.3.3.3', src='10.0.0.6'))
    assert [each.definition.uuid for each in one.read('EPERM', B).value.addresses] == ['b']
    assert one.read('EPERM', builders.instance()).value.addresses == ()


def test_health_and_end_are_those_of_the_source(one):
    assert one.reader.read((), MAX_AGE, frozenset())['flow_health'] == builders.flow_health()
    one.reader.close()
    assert one.source.is_closed


# --- wiring -------------------------------------------------------------------


def test_switched_off_there_is_nothing_that_reads():
    assert wiring.flow_reader(measuring.options(conntrack__enabled=False)) is None


def test_lines_are_drawn_by_the_options():
    reader = wiring.flow_reader(
        measuring.options(
            conntrack__min=1,
            conntrack__zone_map='none',
            outbound__remembered=16,
            outbound__scan_threshold=3,
            outbound__scan_unreplied_ratio=0.5,
            outbound__fan_out_threshold=4,
        )
    )
    assert reader._limits == flows.Limits(
        minimum=1, remembered=16, scan=3, unreplied=0.5, fan_out=4
    )


def test_a_zone_map_that_nobody_installed_is_refused():
    with pytest.raises(exceptions.ConfigError, match='nonsense'):
        wiring.flow_reader(measuring.options(conntrack__zone_map='nonsense'))
