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

"""What VcpuLedgers promises: what unplugged vCPUs used is known after a restart of ours."""

import json
import os
import stat

import hypothesis
from hypothesis import strategies
import pytest

from oie import model
from oie.sources import vcpu_ledgers

SECOND = 10**9
PLENTY = 10**6 * SECOND


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'vcpu_times.json'


def settle(ledgers, *times, uuid='a', cpu_time_ns=PLENTY, others=()):
    """Show the vCPUs with these times, None for an unplugged one; return the sum."""
    vcpus = tuple(
        model.VcpuStatistics(number=number, state=1, time_ns=time_ns, delay_ns=time_ns // 2)
        for number, time_ns in enumerate(times)
        if time_ns is not None
    )
    settled = ledgers.settle(uuid, vcpus, len(vcpus), domain_id=7, cpu_time_ns=cpu_time_ns)
    ledgers.end_cycle([uuid, *others])
    return sum(vcpu.time_ns for vcpu in settled)


def again(path, **more):
    return vcpu_ledgers.VcpuLedgers(str(path), **more)


def test_the_file_is_written_when_a_vcpu_has_gone_and_at_no_other_time(path):
    ledgers = again(path)
    for second in range(5):
        settle(ledgers, second, 2 * second)
        assert not path.exists()
    settle(ledgers, 5, None)
    written = path.stat().st_mtime_ns, path.stat().st_ino
    settle(ledgers, 6, None)
    settle(ledgers, 7, 1)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == written
    # 7 and 8 run on, 8 ended before.
    assert settle(again(path), 7, 1) == 7 + 8 + 1


def test_steal_and_waiting_are_kept_too(path):
    ledgers = again(path)
    settle(ledgers, 100, 90)
    settle(ledgers, 100, None)
    [first, second] = again(path).settle(
        'a',
        (model.VcpuStatistics(number=0, state=1, time_ns=100, delay_ns=50, wait_ns=3),),
        1,
        domain_id=7,
        cpu_time_ns=PLENTY,
    )
    assert (first.time_ns, first.delay_ns, first.wait_ns) == (100, 50, 3)
    assert (second.time_ns, second.delay_ns, second.wait_ns) == (90, 45, None)


def test_a_domain_that_is_not_seen_at_once_is_not_forgotten(path):
    """Its QEMU may not answer when we start."""
    ledgers = again(path)
    settle(ledgers, 100, 90, uuid='wedged')
    settle(ledgers, 100, None, uuid='wedged')
    second = again(path)
    settle(second, 10, 20, others=['wedged'])
    settle(second, 10, None, others=['wedged'])
    assert settle(again(path), 100, None, uuid='wedged') == 100 + 90


def test_a_domain_that_left_is_forgotten(path):
    ledgers = again(path)
    settle(ledgers, 100, 90, uuid='gone')
    settle(ledgers, 100, None, uuid='gone')
    settle(ledgers, 10, 20)
    ledgers.close()
    assert json.loads(path.read_text()).keys() == {'a'}


def test_nothing_is_overwritten_before_libvirt_was_read(path):
    path.write_text('{"a": {"domain_id": 7, "vcpus": {"1": {"time_ns": [90, 0]}}}}')
    again(path).close()
    assert settle(again(path), 100) == 100 + 90


def test_who_may_use_libvirt_may_read_the_file(path):
    """An oie-pollster without an exporter runs as another user; the unit's umask is 0027."""
    ledgers = again(path)
    settle(ledgers, 1)
    before = os.umask(0o077)
    try:
        ledgers.close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(path.parent) == [path.name]


GOOD = '"a": {"domain_id": 7, "vcpus": {"1": {"time_ns": [90, 0]}}}'
BROKEN = (
    '"a": 7',
    '"a": {}',
    '"a": {"domain_id": "7", "vcpus": {}}',
    '"a": {"domain_id": 7, "vcpus": []}',
    '"a": {"domain_id": 7, "vcpus": {"one": {"time_ns": [90, 0]}}}',
    '"a": {"domain_id": 7, "vcpus": {"-1": {"time_ns": [90, 0]}}}',
    '"a": {"domain_id": 7, "vcpus": {"1": {"time_ns": [-90, 0]}}}',
    '"a": {"domain_id": 7, "vcpus": {"1": {"time_ns": [90, 0, 0]}}}',
    '"a": {"domain_id": 7, "vcpus": {"1": {"time_ns": [1e9, true]}}}',
    f'"a": {{"domain_id": 7, "vcpus": {{"1": {{"time_ns": [{2**63}, 0]}}}}}}',
    '"a": {"domain_id": 7, "vcpus": {"1": {"delay_ns": ["0"], "time_ns": [90, 0]}}}',
)


@pytest.mark.parametrize('broken', BROKEN)
def test_a_broken_entry_costs_its_domain_only(path, broken):
    path.write_text(f'{{{broken}, {GOOD.replace("a", "b", 1)}}}')
    ledgers = again(path)
    assert settle(again(path), 100, uuid='b') == 100 + 90
    assert settle(ledgers, 100) == 100


@pytest.mark.parametrize(
    'content', [b'', b'{', b'\xff', b'[' * 100_000, b'{"a": NaN', b'{"a":' + b'9' * 5000 + b'}']
)
def test_a_damaged_file_is_said_once_and_begun_anew(path, caplog, content):
    path.write_bytes(content)
    ledgers = again(path)
    [line] = caplog.messages
    assert str(path) in line
    assert settle(ledgers, 100, 90) == 190
    assert settle(ledgers, 101, None) == 191
    assert settle(again(path), 101, None) == 191


def test_what_is_no_plain_file_is_neither_waited_for_nor_followed(path, caplog):
    os.mkfifo(path)
    assert settle(again(path), 100) == 100
    path.unlink()
    path.symlink_to('/dev/zero')
    assert settle(again(path), 100) == 100
    assert len(caplog.messages) == 2


def test_a_file_that_cannot_be_written_costs_the_next_start_only(tmp_path, caplog):
    ledgers = again(tmp_path / 'missing/vcpu_times.json')
    assert settle(ledgers, 100, 90) == 190
    assert settle(ledgers, 101, None) == 191
    assert settle(ledgers, None, 5) == 101 + 90 + 5
    [line] = caplog.messages
    assert 'missing/vcpu_times.json' in line
    (tmp_path / 'missing').mkdir()
    ledgers.close()
    assert settle(again(tmp_path / 'missing/vcpu_times.json'), None, 5) == 101 + 90 + 5


def test_without_a_path_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ledgers = vcpu_ledgers.VcpuLedgers()
    settle(ledgers, 100, 90)
    assert settle(ledgers, 100, None) == 190
    ledgers.close()
    assert os.listdir(tmp_path) == []


def test_a_process_that_libvirt_reads_by_ticks_is_the_same_still(path):
    """Its threads are read more finely: their sum may be a little more than the whole."""
    ledgers = again(path)
    settle(ledgers, 100 * SECOND, 90 * SECOND)
    ledgers.close()
    whole = 190 * SECOND - 9_999_999
    assert settle(again(path), 100 * SECOND, None, cpu_time_ns=whole) == 190 * SECOND


steps = strategies.lists(
    strategies.tuples(
        strategies.sampled_from(['plug', 'unplug', 'kill us', 'end us', 'nothing']),
        strategies.integers(0, 3),
        strategies.integers(0, 10**12),
    ),
    max_size=30,
)


@hypothesis.given(steps)
def test_over_starts_of_ours_the_sum_is_what_was_really_used(tmp_path_factory, steps):
    """Also when a vCPU goes while we are away, unless we were killed before."""
    path = tmp_path_factory.mktemp('ledgers') / 'vcpu_times.json'
    ledgers = again(path)
    threads, used = {0: 0, 1: 0}, 0
    for action, number, time_ns in steps:
        listed = [threads.get(each) for each in range(4)]
        assert settle(ledgers, *listed, cpu_time_ns=used) == used
        if action == 'end us':
            ledgers.close()
        elif action == 'kill us':
            ledgers = again(path)
            continue
        if action == 'plug':
            threads.setdefault(number, 0)
        elif action in ('unplug', 'end us') and len(threads) > 1:
            threads.pop(number, None)
        if action == 'end us':
            ledgers = again(path)
        listed = [threads.get(each) for each in range(4)]
        assert settle(ledgers, *listed, cpu_time_ns=used) == used
        for each in threads:
            threads[each] += time_ns
            used += time_ns
