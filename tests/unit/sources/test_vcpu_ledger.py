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

"""What VcpuLedger promises: times that never fall, whatever is plugged and unplugged."""

import hypothesis
from hypothesis import strategies
import pytest

from oie import model
from oie.sources import vcpu_ledger

SECOND = 10**9


def vcpu(number, time_ns, **more):
    return model.VcpuStatistics(number=number, state=1, time_ns=time_ns, **more)


def settle(ledger, *vcpus, current=None):
    return ledger.settle(vcpus, len(vcpus) if current is None else current)


def total(vcpus, field='time_ns'):
    """Sum as collectors/cpu.py does."""
    values = [getattr(one, field) for one in vcpus]
    return None if not values or None in values else sum(values)


def test_while_nothing_is_plugged_the_very_same_objects_come_back():
    ledger = vcpu_ledger.VcpuLedger()
    for time_ns in (5, 5, 9):
        vcpus = (vcpu(0, time_ns), vcpu(1, time_ns))
        assert all(a is b for a, b in zip(settle(ledger, *vcpus), vcpus, strict=True))


def test_an_unplugged_vcpu_stays_offline_with_what_it_used():
    ledger = vcpu_ledger.VcpuLedger()
    settle(ledger, vcpu(0, 10, delay_ns=1, wait_ns=0), vcpu(1, 20, delay_ns=2, wait_ns=0))
    first = vcpu(0, 11, delay_ns=1, wait_ns=0)
    assert settle(ledger, first) == (
        first,
        model.VcpuStatistics(number=1, state=0, time_ns=20, delay_ns=2, wait_ns=0),
    )


def test_a_vcpu_that_is_plugged_again_goes_on_where_it_was():
    ledger = vcpu_ledger.VcpuLedger()
    settle(ledger, vcpu(0, 10), vcpu(1, 20))
    settle(ledger, vcpu(0, 11))
    assert settle(ledger, vcpu(0, 12), vcpu(1, 3))[1] == vcpu(1, 23)
    assert settle(ledger, vcpu(0, 12), vcpu(1, 30))[1] == vcpu(1, 50)


def test_plugged_again_between_two_looks_it_goes_on_too():
    ledger = vcpu_ledger.VcpuLedger()
    settle(ledger, vcpu(0, 100 * SECOND))
    assert total(settle(ledger, vcpu(0, SECOND))) == 101 * SECOND


def test_another_rounding_is_not_taken_for_a_new_thread():
    """A restarted libvirtd of another version may read the same thread more finely."""
    ledger = vcpu_ledger.VcpuLedger()
    settle(ledger, vcpu(0, 100 * SECOND))
    assert total(settle(ledger, vcpu(0, 100 * SECOND - 9_999_999))) == 100 * SECOND
    assert total(settle(ledger, vcpu(0, 101 * SECOND))) == 101 * SECOND


def test_order_is_by_number():
    ledger = vcpu_ledger.VcpuLedger()
    settle(ledger, vcpu(0, 1), vcpu(1, 2), vcpu(2, 3))
    assert [one.number for one in settle(ledger, vcpu(0, 1), vcpu(2, 3))] == [0, 1, 2]


@pytest.mark.parametrize('listed', [0, 1])
def test_vcpus_that_libvirt_could_not_read_are_not_taken_for_unplugged(listed):
    """It leaves them out without an error when /proc fails it."""
    ledger = vcpu_ledger.VcpuLedger()
    settle(ledger, vcpu(0, 10), vcpu(1, 20))
    assert settle(ledger, *[vcpu(0, 10)][:listed], current=2) == ()
    assert total(settle(ledger, vcpu(0, 11), vcpu(1, 21))) == 32


def test_an_unknown_number_of_vcpus_says_nothing():
    assert vcpu_ledger.VcpuLedger().settle((vcpu(0, 1),), None) == ()


def test_a_time_that_is_not_reported_stays_unknown():
    ledger = vcpu_ledger.VcpuLedger()
    settle(ledger, vcpu(0, 1, delay_ns=None), vcpu(1, 1, delay_ns=None))
    settled = settle(ledger, vcpu(0, 1, delay_ns=None))
    assert [one.delay_ns for one in settled] == [None, None]
    assert total(settled) == 2


def test_a_time_that_is_missing_once_goes_on_afterwards():
    ledger = vcpu_ledger.VcpuLedger()
    settle(ledger, vcpu(0, 10))
    assert total(settle(ledger, vcpu(0, None))) is None
    assert total(settle(ledger, vcpu(0, 15))) == 15


class Qemu:
    """Threads of vCPUs that begin at zero, and the truth about what was used."""

    def __init__(self, size):
        self.threads = dict.fromkeys(range(size), 0)
        self.used = 0

    def plug(self, number):
        self.threads.setdefault(number, 0)

    def unplug(self, number):
        if len(self.threads) > 1:
            self.threads.pop(number, None)

    def run(self, time_ns):
        for number in self.threads:
            self.threads[number] += time_ns + number
            self.used += time_ns + number

    def listed(self):
        return tuple(
            vcpu(n, t, delay_ns=2 * t, wait_ns=0) for n, t in sorted(self.threads.items())
        )


steps = strategies.lists(
    strategies.tuples(
        strategies.sampled_from(['plug', 'unplug', 'nothing']),
        strategies.integers(0, 7),
        strategies.integers(0, 10**12),
    ),
    max_size=40,
)


@hypothesis.given(steps)
def test_the_sum_is_what_was_really_used(steps):
    """Looked at after each change, as every cycle does: not less, not more."""
    qemu, ledger = Qemu(2), vcpu_ledger.VcpuLedger()
    for action, number, time_ns in steps:
        if action != 'nothing':
            getattr(qemu, action)(number)
        # Every change is seen before the next thread begins.
        settled = ledger.settle(qemu.listed(), len(qemu.threads))
        assert total(settled) == qemu.used
        qemu.run(time_ns)
        settled = ledger.settle(qemu.listed(), len(qemu.threads))
        assert total(settled) == qemu.used
        assert total(settled, 'delay_ns') == 2 * qemu.used
        assert [one.number for one in settled if one.state] == sorted(qemu.threads)


@hypothesis.given(steps, strategies.lists(strategies.booleans(), min_size=40, max_size=40))
def test_looked_at_rarely_the_sum_still_never_falls_and_never_exceeds(steps, looks):
    qemu, ledger, before = Qemu(2), vcpu_ledger.VcpuLedger(), 0
    for (action, number, time_ns), is_looked_at in zip(steps, looks, strict=False):
        if action != 'nothing':
            getattr(qemu, action)(number)
        qemu.run(time_ns)
        if is_looked_at:
            now = total(ledger.settle(qemu.listed(), len(qemu.threads)))
            assert before <= now <= qemu.used
            before = now
