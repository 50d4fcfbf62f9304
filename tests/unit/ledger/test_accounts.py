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

"""Accounts: totals of one instance that never fall and never hold what was not used."""

import dataclasses
import json
import math

import hypothesis
from hypothesis import stateful
from hypothesis import strategies as st
import pytest

from oie.ledger import accounts
from tests import builders

GAP = 30.0
COUNTED = (
    'cpu_time_ns',
    'disk_read_bytes',
    'disk_read_requests',
    'disk_write_bytes',
    'disk_write_requests',
    'network_rx_bytes',
    'network_rx_packets',
    'network_tx_bytes',
    'network_tx_packets',
)
DISKS = ('vda', 'vdb')
TAPS = ('tap11111111-11', 'tap22222222-22')
OF = builders.definition(
    disks=tuple(builders.disk(target=name) for name in DISKS),
    interfaces=tuple(builders.interface(target=name) for name in TAPS),
)


def four(names, numbers, device):
    """Return the counters of a device by name; None where there are no numbers for it."""
    return dict(zip(names, (numbers or {}).get(device.target, (None,) * 4), strict=True))


def instance(at=0.0, cpu=0, disks=None, nics=None, of=OF, **more):
    """Return a reading some seconds after the first one; raw numbers of devices in fours."""
    values = {
        'read_at': builders.NOW + at,
        'read_clock_ns': round((1000 + at) * 1e9),
        'cpu_time_ns': cpu,
        'interfaces': tuple(
            builders.interface_statistics(
                device,
                **four(accounts.NETWORK, nics, device),
            )
            for device in of.interfaces
        ),
        'monitor': builders.monitor(
            of,
            read_at=builders.NOW + at,
            disks=tuple(
                builders.disk_statistics(
                    device,
                    **four(accounts.DISK, disks, device),
                )
                for device in of.disks
            ),
        ),
    }
    return builders.instance(of, **{**values, **more})


def account(*readings, units=None, since=builders.NOW, is_late=False):
    """Return an account that counted pairs of a life and a reading."""
    made = accounts.Account(since, is_late=is_late)
    for life, reading in readings:
        made.count(reading, life, GAP, units)
    return made


def usage(*readings, **more):
    return account(*readings, **more).usage(OF)


# --- counters ---------------------------------------------------------------


def test_the_first_life_counts_from_its_beginning():
    found = usage(
        ('a', instance(cpu=7, disks={'vda': (1, 2, 3, 4)}, nics={TAPS[0]: (5, 6, 7, 8)}))
    )
    assert [getattr(found, name) for name in COUNTED] == [7, 1, 2, 3, 4, 5, 6, 7, 8]


def test_a_new_qemu_goes_on_where_the_last_one_ended():
    found = usage(
        ('a', instance(0, cpu=1000, disks={'vda': (100, 10, 200, 20)})),
        ('b', instance(10, cpu=30, disks={'vda': (5, 1, 6, 2)})),
    )
    assert found.cpu_time_ns == 1000 + 30
    assert found.disk_read_bytes == 100 + 5
    assert found.disk_write_requests == 20 + 2


def test_a_new_qemu_counts_in_full_even_where_it_has_used_more_than_the_last_one():
    found = usage(
        ('a', instance(0, cpu=1000, nics={TAPS[0]: (9, 9, 9, 9)})),
        ('b', instance(10, cpu=5000, nics={TAPS[0]: (90, 90, 90, 90)})),
    )
    assert (found.cpu_time_ns, found.network_rx_bytes) == (6000, 99)


def test_a_device_that_is_plugged_anew_begins_with_all_its_counters():
    found = usage(
        ('a', instance(0, disks={'vdb': (100, 10, 200, 20)})),
        # It was written more to than ever before, but read less from.
        ('a', instance(10, disks={'vdb': (1, 1, 500, 50)})),
    )
    assert (found.disk_read_bytes, found.disk_write_bytes) == (100 + 1, 200 + 500)


def test_an_unplugged_device_keeps_what_it_was_used_for():
    found = usage(
        ('a', instance(0, disks={'vda': (1, 1, 1, 1), 'vdb': (100, 10, 200, 20)})),
        ('a', instance(10, disks={'vda': (2, 2, 2, 2)})),
    )
    assert (found.disk_read_bytes, found.disk_write_bytes) == (2 + 100, 2 + 200)


def test_what_is_not_read_changes_nothing():
    known = instance(0, cpu=7, disks={'vda': (1, 2, 3, 4)})
    silent = builders.silent(OF, read_at=builders.NOW + 10)
    before = usage(('a', known))
    after = usage(('a', known), ('a', silent))
    assert {n: getattr(after, n) for n in COUNTED} == {n: getattr(before, n) for n in COUNTED}


def test_what_was_never_read_is_none_never_zero():
    found = usage(('a', builders.silent(OF)))
    assert {getattr(found, name) for name in COUNTED} == {None}


def test_a_single_counter_that_is_not_read_keeps_its_place():
    found = usage(
        ('a', instance(0, disks={'vda': (10, 1, 10, 1)})),
        ('a', instance(10, disks={'vda': (None, 2, 20, 2)})),
        ('a', instance(20, disks={'vda': (30, 3, 30, 3)})),
    )
    assert (found.disk_read_bytes, found.disk_write_bytes) == (30, 30)


def test_an_instance_that_is_not_fresh_adds_nothing():
    stale = dataclasses.replace(instance(10, cpu=900), is_fresh=False)
    found = usage(('a', instance(0, cpu=100)), ('a', stale))
    assert (found.cpu_time_ns, found.vcpu_seconds, found.updated_at) == (100, 0, builders.NOW)


def test_what_the_last_monitor_said_is_not_counted_for_the_next_qemu():
    first = instance(0, disks={'vda': (100, 10, 200, 20)})
    # The monitor of the new QEMU has not answered yet.
    second = dataclasses.replace(instance(10), monitor=first.monitor)
    assert usage(('a', first), ('b', second)).disk_read_bytes == 100


@pytest.mark.parametrize(('now', 'total'), [(999, 1000), (500, 1000), (499, 1499), (0, 1000)])
def test_cpu_time_that_falls_is_another_qemu_only_if_it_falls_far(now, total):
    assert usage(('a', instance(0, cpu=1000)), ('a', instance(10, cpu=now))).cpu_time_ns == total


def test_another_qemu_by_the_same_number_counts_its_devices_in_full():
    # libvirtd was restarted while nobody ran: it numbers domains from 1 again.
    found = usage(
        ('a', instance(0, cpu=10**12, disks={'vda': (100, 10, 200, 20)})),
        ('a', instance(10, cpu=10**9, disks={'vda': (150, 15, 250, 25)})),
    )
    assert found.cpu_time_ns == 10**12 + 10**9
    assert found.disk_read_bytes == 100 + 150


def test_a_virtual_function_counts_from_when_the_guest_was_first_seen_with_it():
    of = builders.definition(interfaces=(builders.virtual_function(),), disks=())

    def reading(at, value):
        counted = builders.virtual_function_statistics(
            of.interfaces[0], **dict.fromkeys(accounts.NETWORK, value)
        )
        return instance(at, of=of, virtual_functions=(counted,))

    found = usage(
        ('a', reading(0, 5000)),  # of whoever had it before
        ('a', reading(10, 5100)),
        ('b', reading(20, 9000)),  # of whoever had it meanwhile
        ('b', reading(30, 9001)),
        ('b', reading(40, 3)),  # the driver of the physical function was loaded anew
        ('b', reading(50, 5)),
    )
    assert found.network_rx_bytes == 100 + 1 + 2


def test_after_a_loss_only_what_is_used_from_then_on_counts():
    found = usage(
        ('a', instance(0, cpu=1000, disks={'vda': (100, 10, 200, 20)})),
        ('a', instance(10, cpu=1010, disks={'vda': (101, 10, 200, 20)})),
        ('b', instance(20, cpu=5, disks={'vda': (7, 1, 1, 1)})),
        is_late=True,
    )
    assert (found.cpu_time_ns, found.disk_read_bytes) == (10 + 5, 1 + 7)


def test_ports_that_come_and_go_for_ever_are_summed_up():
    made = accounts.Account(builders.NOW)
    for number in range(200):
        of = builders.definition(interfaces=(builders.interface(target=f'tap{number}'),), disks=())
        made.count(instance(number, of=of, nics={f'tap{number}': (1, 1, 1, 1)}), 'a', GAP)
    assert made.usage(OF).network_rx_bytes == 200
    assert len(json.loads(made.text())['interfaces']) == accounts.MOST_DEVICES


# --- over time --------------------------------------------------------------


def test_time_counts_between_readings():
    monitor = builders.monitor(OF, vcpus_current=3)
    found = usage(('a', instance(0, monitor=monitor)), ('a', instance(10, monitor=monitor)))
    assert found.vcpu_seconds == 3 * 10
    assert found.memory_mb_seconds == 4096 * 10


def test_without_a_monitor_and_a_flavor_live_figures_stand_in():
    of = builders.definition(flavor=builders.flavor(memory_mib=None))
    readings = [
        instance(at, of=of, monitor=None, vcpus=2, memory_maximum_bytes=512 * builders.MIB)
        for at in (0, 10)
    ]
    found = usage(*(('a', reading) for reading in readings))
    assert (found.vcpu_seconds, found.memory_mb_seconds) == (2 * 10, 512 * 10)


@pytest.mark.parametrize(('seconds', 'counted'), [(GAP, GAP), (GAP + 0.001, 0), (-5, 0)])
def test_a_gap_counts_nothing(seconds, counted):
    found = usage(('a', instance(0)), ('a', instance(seconds)))
    assert found.vcpu_seconds == 2 * counted


def test_after_a_gap_time_counts_again():
    found = usage(*(('a', instance(at)) for at in (0, 1000, 1010)))
    assert found.vcpu_seconds == 2 * 10


def test_the_time_between_two_lives_counts_while_the_instance_is_seen():
    found = usage(('a', instance(0)), ('b', instance(10)))
    assert found.vcpu_seconds == 2 * 10


def test_of_two_sizes_the_smaller_one_counts():
    readings = [
        ('a', instance(at, monitor=builders.monitor(OF, vcpus_current=vcpus)))
        for at, vcpus in ((0, 4), (10, 2), (20, 4), (30, 4))
    ]
    assert usage(*readings).vcpu_seconds == 2 * 10 + 2 * 10 + 4 * 10


def test_a_size_that_is_not_known_counts_nothing_on_both_sides():
    unknown = {'monitor': None, 'vcpus': None}
    readings = (instance(0), instance(10, **unknown), instance(20), instance(30))
    assert usage(*(('a', reading) for reading in readings)).vcpu_seconds == 2 * 10


def test_licence_units_count_like_the_rest_and_are_none_where_nobody_knows_them():
    readings = (('a', instance(0)), ('a', instance(10)))
    assert usage(*readings, units=1.5).license_unit_seconds == 15
    assert usage(*readings, units=0).license_unit_seconds == 0
    assert usage(*readings).license_unit_seconds is None


def test_no_time_counts_over_a_restart():
    before = account(('a', instance(0)), ('a', instance(10)))
    after = accounts.Account.parse(before.text())
    after.count(instance(20), 'a', GAP)
    assert after.usage(OF).vcpu_seconds == 2 * 10


# --- texts ------------------------------------------------------------------


def test_an_account_reads_back():
    made = account(
        ('a', instance(0, cpu=7, disks={'vda': (1, 2, 3, None)}, nics={TAPS[0]: (5, 6, 7, 8)})),
        ('a', instance(10, cpu=2**70)),
        units=0.1,
    )
    again = accounts.Account.parse(made.text())
    assert again.text() == made.text()
    assert again.usage(OF) == made.usage(OF)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@hypothesis.given(st.text() | json_values.map(json.dumps))
def test_what_nobody_wrote_is_refused(text):
    with pytest.raises(ValueError, match='not an account'):
        accounts.Account.parse(text)


@hypothesis.given(data=st.data())
def test_an_account_with_one_wrong_value_is_refused_or_still_a_sound_one(data):
    found = json.loads(account(('a', instance(cpu=7, disks={'vda': (1, 2, 3, 4)}))).text())
    found[data.draw(st.sampled_from(sorted(found)))] = data.draw(json_values)
    try:
        made = accounts.Account.parse(json.dumps(found))
    except ValueError:
        return
    for field in dataclasses.fields(made.usage(OF)):
        value = getattr(made.usage(OF), field.name)
        if field.name != 'definition' and value is not None:
            assert math.isfinite(value)
            assert value >= 0
    assert json.loads(made.text())


# --- whatever comes ---------------------------------------------------------


class Machine(stateful.RuleBasedStateMachine):
    """A guest with two disks and two interfaces, and an exporter that is not always there.

    ``true`` sums up what was really used, ``known`` is what was last read of the
    present lives. ``missed`` sums up what nobody could know: what a life had used
    since it was last read, and of lives that are over what was read, but not
    written when the exporter crashed (``at_risk``).
    """

    def __init__(self):
        super().__init__()
        self.life = 0
        self.clock = 0.0
        self.raw = {'cpu': [0]} | {name: [0] * 4 for name in (*DISKS, *TAPS)}
        self.true = {name: [0] * len(values) for name, values in self.raw.items()}
        self.known = {name: [0] * len(values) for name, values in self.raw.items()}
        self.missed, self.at_risk = self._copy(self.true), self._copy(self.true)
        self.account = accounts.Account(builders.NOW)
        self.written, self.known_then = self.account.text(), self._copy(self.known)
        self.shown = [0] * len(COUNTED)

    @staticmethod
    def _copy(values):
        return {name: list(found) for name, found in values.items()}

    @stateful.rule(used=st.lists(st.integers(0, 1000), min_size=17, max_size=17))
    def use(self, used):
        rest = iter(used)
        for name, values in self.raw.items():
            for index in range(len(values)):
                more = next(rest)
                values[index] += more
                self.true[name][index] += more

    @stateful.rule(seconds=st.floats(0, 100))
    def wait(self, seconds):
        self.clock += seconds

    @staticmethod
    def _add(sums, name, more, less):
        for index, (plus, minus) in enumerate(zip(more, less, strict=True)):
            sums[name][index] += plus - minus

    def _end(self, name):
        self._add(self.missed, name, self.raw[name], self.known[name])
        self._add(self.at_risk, name, self.known[name], self.known_then[name])
        for values in (self.raw, self.known, self.known_then):
            values[name] = [0] * len(values[name])

    @stateful.rule()
    def start_anew(self):
        self.life += 1
        for name in self.raw:
            self._end(name)

    @stateful.rule(name=st.sampled_from((*DISKS, *TAPS)))
    def plug_anew(self, name):
        before = self.known[name]
        self._end(name)
        # Nobody can tell before the counters fall; what is used until then may be missed.
        self._add(self.missed, name, before, [0] * 4)

    @stateful.rule(missing=st.sets(st.sampled_from(('cpu', *DISKS, *TAPS, 'all'))))
    def read(self, missing):
        if 'all' in missing:
            self.account.count(dataclasses.replace(instance(self.clock), is_fresh=False), 'x', GAP)
            return
        seen = {name: tuple(v) for name, v in self.raw.items() if name not in missing}
        self.clock += 1
        reading = instance(
            self.clock, cpu=seen['cpu'][0] if 'cpu' in seen else None, disks=seen, nics=seen
        )
        self.account.count(reading, f'boot/{self.life}', GAP)
        for name, values in seen.items():
            self.known[name] = list(values)

    @stateful.rule()
    def write(self):
        self.written, self.known_then = self.account.text(), self._copy(self.known)
        self.at_risk = {name: [0] * len(values) for name, values in self.raw.items()}
        self.shown = self._totals(self.account)

    @stateful.rule()
    def crash(self):
        self.account = accounts.Account.parse(self.written)
        self.known = self._copy(self.known_then)
        for name, values in self.at_risk.items():
            self._add(self.missed, name, values, [0] * len(values))
            self.at_risk[name] = [0] * len(values)

    @staticmethod
    def _totals(account):
        found = account.usage(OF)
        return [getattr(found, name) or 0 for name in COUNTED]

    def _sums(self, values):
        return [
            values['cpu'][0],
            *(sum(values[name][index] for name in DISKS) for index in range(4)),
            *(sum(values[name][index] for name in TAPS) for index in range(4)),
        ]

    @stateful.invariant()
    def never_above_what_was_used(self):
        for total, true in zip(self._totals(self.account), self._sums(self.true), strict=True):
            assert total <= true

    @stateful.invariant()
    def never_below_what_was_shown(self):
        for total, shown in zip(self._totals(self.account), self.shown, strict=True):
            assert total >= shown

    @stateful.invariant()
    def nothing_is_missed_but_what_nobody_could_know(self):
        rows = (self._totals(self.account), *map(self._sums, (self.true, self.missed, self.raw)))
        for total, true, missed, raw, known in zip(*rows, self._sums(self.known), strict=True):
            assert total >= true - missed - (raw - known)

    @stateful.invariant()
    def no_more_time_than_has_passed(self):
        found = self.account.usage(OF)
        assert (found.vcpu_seconds or 0) <= 2 * self.clock + 1e-6


TestWhateverComes = Machine.TestCase
