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

"""What domain_stats promises: the figures of a record, None for what it does not say."""

import dataclasses
import json
import pathlib
import random

import hypothesis
from hypothesis import strategies
import pytest

from oie import model
from oie.sources import domain_stats
from oie.sources import domain_xml
from tests import fakes

DATA = pathlib.Path(__file__).parents[2] / 'data'
RECORDED = {path.stem: path for path in sorted((DATA / 'domstats').glob('*.json'))}
# What of a recording was read while its QEMU did not answer or did not run.
PARTIAL = {'wedged', 'migrating_in', 'shut_off', 'crashed'}
UNSUPPORTED = (-1, 2**64 - 1)
KIB = 1024

DISK_KEYS = {
    'read_bytes': 'rd.bytes',
    'read_requests': 'rd.reqs',
    'read_time_ns': 'rd.times',
    'write_bytes': 'wr.bytes',
    'write_requests': 'wr.reqs',
    'write_time_ns': 'wr.times',
    'flush_requests': 'fl.reqs',
    'flush_time_ns': 'fl.times',
    'capacity_bytes': 'capacity',
    'allocation_bytes': 'allocation',
    'physical_bytes': 'physical',
    'threshold_bytes': 'threshold',
}
NET_KEYS = {
    f'{way}_{ours}': f'{way}.{theirs}'
    for way in ('rx', 'tx')
    for ours, theirs in (
        ('bytes', 'bytes'),
        ('packets', 'pkts'),
        ('errors', 'errs'),
        ('drops', 'drop'),
    )
}
MEMORY_KEYS = {
    'current_bytes': 'current',
    'maximum_bytes': 'maximum',
    'rss_bytes': 'rss',
    'available_bytes': 'available',
    'usable_bytes': 'usable',
    'unused_bytes': 'unused',
    'disk_caches_bytes': 'disk_caches',
    'swap_in_bytes': 'swap_in',
    'swap_out_bytes': 'swap_out',
}
FAULT_KEYS = {
    'major_faults': 'major_fault',
    'minor_faults': 'minor_fault',
    'hugetlb_pgalloc': 'hugetlb_pgalloc',
    'hugetlb_pgfail': 'hugetlb_pgfail',
}


def disk(target):
    return model.DiskDevice(owner=model.NO_LABELS, target=target, type='file')


def interface(target):
    return model.InterfaceDevice(owner=model.NO_LABELS, target=target, type='bridge')


def monitor(record, *targets, read_at=1000.0, **options):
    return domain_stats.monitor(record, [disk(target) for target in targets], read_at, **options)


@pytest.fixture(params=RECORDED, ids=str)
def recording(request):
    name = request.param
    xml = (DATA / 'domain_xml' / f'{name}.xml').read_text()
    return name, json.loads(RECORDED[name].read_text()), domain_xml.parse(xml)


def test_there_are_recordings():
    assert len(RECORDED) > 10


# --- recorded by a real libvirt -----------------------------------------------


def test_recorded_state_is_that_of_virdomaingetstate(recording):
    _, data, _ = recording
    assert list(domain_stats.state(data['stats'])) == data['state']


def test_recorded_disks_have_the_figures_of_their_name(recording):
    _, data, definition = recording
    stats = data['stats']
    found = domain_stats.monitor(stats, definition.disks, data['read_at']).disks
    indexes = {stats[f'block.{n}.name']: n for n in range(stats['block.count'])}
    known = {device.target for device in definition.disks}
    assert [d.device.target for d in found] == [name for name in indexes if name in known]
    for one in found:
        prefix = f'block.{indexes[one.device.target]}'
        for field, key in DISK_KEYS.items():
            assert getattr(one, field) == stats.get(f'{prefix}.{key}'), (field, key)
        assert (one.backing_depth, one.latency) == (None, {})


def test_recorded_interfaces_have_the_figures_of_their_name(recording):
    _, data, definition = recording
    stats = data['stats']
    found = domain_stats.interfaces(stats, definition.interfaces)
    names = {stats[f'net.{n}.name']: n for n in range(stats.get('net.count', 0))}
    assert {i.device.target for i in found} == names.keys()
    assert domain_stats.interface_names(stats) == names.keys()
    for one in found:
        prefix = f'net.{names[one.device.target]}'
        for field, key in NET_KEYS.items():
            assert getattr(one, field) == stats[f'{prefix}.{key}'], (field, key)


def test_recorded_memory_is_in_bytes(recording):
    _, data, _ = recording
    stats = data['stats']
    memory = domain_stats.memory(stats)
    for field, key in MEMORY_KEYS.items():
        kib = stats.get(f'balloon.{key}')
        assert getattr(memory, field) == (None if kib is None else kib * KIB), field
    # The recorded guests have no operating system, hence no balloon driver.
    assert memory.updated_at is None
    assert memory.rss_bytes is None or memory.rss_bytes > memory.current_bytes


def test_recorded_vcpus_are_those_that_are_plugged(recording):
    name, data, _ = recording
    stats = data['stats']
    found = monitor(stats)
    assert found.vcpus_current == stats['vcpu.current']
    assert found.vcpus_maximum == stats['vcpu.maximum']
    for vcpu in found.vcpus:
        prefix = f'vcpu.{vcpu.number}'
        assert vcpu.state == stats[f'{prefix}.state']
        assert vcpu.time_ns == stats[f'{prefix}.time']
        assert vcpu.wait_ns == stats[f'{prefix}.wait']
        assert vcpu.delay_ns == stats[f'{prefix}.delay']
        assert vcpu.is_halted is None
    running = 0 if name in ('shut_off', 'crashed') else found.vcpus_current
    assert len(found.vcpus) == running


def test_recorded_cpu_split_and_halt_poll(recording):
    _, data, _ = recording
    stats = data['stats']
    found = monitor(stats)
    assert found.cpu_user_ns == stats['cpu.user']
    assert found.cpu_system_ns == stats['cpu.system']
    assert found.halt_poll_success_ns == stats.get('cpu.haltpoll.success.time')
    assert found.halt_poll_fail_ns == stats.get('cpu.haltpoll.fail.time')


def test_recorded_records_are_complete_but_for_those_without_the_monitor(recording):
    name, data, _ = recording
    assert domain_stats.is_complete(data['stats']) == (name not in PARTIAL)
    assert monitor(data['stats']).is_complete == (name not in PARTIAL)


def test_recorded_parameters_may_come_in_any_order(recording):
    _, data, definition = recording
    items = list(data['stats'].items())
    random.Random(7).shuffle(items)
    shuffled = dict(items)
    expected = domain_stats.monitor(data['stats'], definition.disks, 1.0)
    assert domain_stats.monitor(shuffled, definition.disks, 1.0) == expected
    interfaces = domain_stats.interfaces(data['stats'], definition.interfaces)
    assert domain_stats.interfaces(shuffled, definition.interfaces) == interfaces


def test_recorded_jobs(recording):
    name, data, _ = recording
    for stats in (data['completed_job_stats'], data.get('job_stats', {})):
        job = domain_stats.job({} if 'error' in stats else stats)
        if not stats.get('type'):
            assert job is None
            continue
        assert job.operation == stats['operation']
        assert job.elapsed_ms == stats['time_elapsed']
        assert job.memory_processed_bytes == stats['memory_processed']
        page_bytes = stats['memory_page_size']
        assert job.dirty_bytes_per_second == stats['memory_dirty_rate'] * page_bytes
        assert name in ('migrating_out', 'migrated')


def test_recorded_counters_go_on():
    """Two recordings of one guest, seconds apart: nothing falls, reads and writes rise."""
    before, after = (
        domain_stats.monitor(
            json.loads(RECORDED[name].read_text())['stats'],
            domain_xml.parse((DATA / 'domain_xml' / f'{name}.xml').read_text()).disks,
            1.0,
        )
        for name in ('many_devices', 'many_devices_later')
    )
    for old, new in zip(before.disks, after.disks, strict=True):
        for field in ('read_bytes', 'write_bytes', 'read_time_ns', 'write_time_ns'):
            assert getattr(new, field) >= getattr(old, field)
    assert after.disks[0].write_requests > before.disks[0].write_requests
    assert after.vcpus[0].time_ns >= before.vcpus[0].time_ns


# --- missing and unsupported --------------------------------------------------


def unknown(statistics, *known):
    """Assert that all numbers but some are None: neither 0 nor invented."""
    for field in dataclasses.fields(statistics):
        value = getattr(statistics, field.name)
        if field.name not in known and not isinstance(value, (model.DiskDevice, dict)):
            assert value is None or isinstance(value, model.InterfaceDevice), field.name


def test_an_empty_record_says_nothing():
    found = monitor({}, 'vda')
    assert found == model.MonitorStatistics(read_at=1000.0, is_complete=False)
    assert domain_stats.interfaces({}, [interface('tap1')]) == ()
    assert domain_stats.state({}) == (0, None)


def test_a_disk_of_which_only_the_name_is_known_has_no_figures():
    [found] = monitor({'block.count': 1, 'block.0.name': 'vda'}, 'vda').disks
    unknown(found, 'device')


def test_an_interface_of_which_only_the_name_is_known_has_no_figures():
    record = {'net.count': 1, 'net.0.name': 'tap1'}
    [found] = domain_stats.interfaces(record, [interface('tap1')])
    unknown(found, 'device')


@pytest.mark.parametrize('value', UNSUPPORTED)
def test_unsupported_is_unknown_never_a_number(value):
    record = {
        'block.count': 1,
        'block.0.name': 'vda',
        **{f'block.0.{key}': value for key in DISK_KEYS.values()},
        'net.count': 1,
        'net.0.name': 'tap1',
        **{f'net.0.{key}': value for key in NET_KEYS.values()},
        **{f'balloon.{key}': value for key in (*MEMORY_KEYS.values(), *FAULT_KEYS.values())},
        'balloon.last-update': value,
        'vcpu.current': 1,
        'vcpu.maximum': 1,
        'vcpu.0.state': 1,
        **{f'vcpu.0.{key}': value for key in ('time', 'wait', 'delay')},
        'cpu.user': value,
        'perf.cmt': value,
        'memory.bandwidth.monitor.count': 1,
        'memory.bandwidth.monitor.0.node.0.bytes.total': value,
        'cpu.cache.monitor.count': 1,
        'cpu.cache.monitor.0.bank.0.bytes': value,
    }
    found = monitor(record, 'vda')
    unknown(found.disks[0], 'device')
    unknown(found.memory)
    unknown(found.vcpus[0], 'number', 'state')
    unknown(domain_stats.interfaces(record, [interface('tap1')])[0], 'device')
    assert (found.cpu_user_ns, found.perf, found.bandwidth, found.cache_occupancy) == (
        *(None, {}),
        *((), ()),
    )


def test_zero_is_a_number():
    record = {'block.count': 1, 'block.0.name': 'vda', 'block.0.rd.bytes': 0}
    assert monitor(record, 'vda').disks[0].read_bytes == 0


def test_the_largest_counter_is_a_number():
    record = {'block.count': 1, 'block.0.name': 'vda', 'block.0.rd.bytes': 2**63 - 1}
    assert monitor(record, 'vda').disks[0].read_bytes == 2**63 - 1


@pytest.mark.parametrize(
    'missing', ['balloon.rss', 'vcpu.current', 'block.0.rd.reqs'], ids=lambda key: key
)
def test_a_record_without_what_needs_the_monitor_is_partial(missing):
    record = fakes.record()
    assert domain_stats.is_complete(record)
    del record[missing]
    assert not domain_stats.is_complete(record)


def test_a_guest_without_disks_is_complete():
    assert domain_stats.is_complete(fakes.record(**{'block.count': 0}))


def test_one_disk_without_figures_does_not_make_a_record_partial():
    """A vhost-user disk has none, whatever QEMU answers."""
    record = fakes.record(**{'block.count': 2, 'block.1.name': 'vdb'})
    assert domain_stats.is_complete(record)


def test_a_broken_count_does_not_hold_us_up():
    record = fakes.record(**{'block.count': 2**62, 'net.count': 2**62, 'vcpu.maximum': 2**62})
    assert len(monitor(record, 'vda').disks) == 1
    assert domain_stats.interface_names(record) == frozenset()


# --- devices ------------------------------------------------------------------


def test_disks_are_found_by_name_not_by_place():
    record = {
        'block.count': 2,
        'block.0.name': 'vdb',
        'block.0.rd.bytes': 2,
        'block.1.name': 'vda',
        'block.1.rd.bytes': 1,
    }
    found = {d.device.target: d.read_bytes for d in monitor(record, 'vda', 'vdb').disks}
    assert found == {'vda': 1, 'vdb': 2}


def test_a_disk_the_definition_does_not_know_is_left_out():
    record = {'block.count': 1, 'block.0.name': 'vdz', 'block.0.rd.bytes': 1}
    assert monitor(record, 'vda').disks == ()


def test_interfaces_are_found_by_name_and_keep_the_order_of_the_definition():
    record = fakes.net('tap2', 'tap1') | {'net.0.rx.bytes': 2, 'net.1.rx.bytes': 1}
    devices = [interface('tap1'), interface(''), interface('tap9'), interface('tap2')]
    found = domain_stats.interfaces(record, devices)
    assert [(i.device, i.rx_bytes) for i in found] == [(devices[0], 1), (devices[3], 2)]


def test_an_interface_without_a_host_device_never_gets_those_of_another():
    """A passed-through device has no name, and neither has a hole in the record."""
    assert domain_stats.interfaces({'net.count': 3}, [interface('')]) == ()


def chain(*names):
    """Return the BLOCK group under the BACKING flag: a record for each layer."""
    record = {'block.count': len(names)}
    for n, name in enumerate(names):
        record |= {f'block.{n}.name': name, f'block.{n}.backingIndex': n + 1}
        if name not in names[:n]:
            record |= {f'block.{n}.rd.reqs': 10 + n, f'block.{n}.capacity': 100 + n}
        else:
            record |= {f'block.{n}.capacity': 900 + n}
    return record


def test_of_a_backing_chain_the_active_layer_counts():
    """The first record of a name is what the guest reads and writes."""
    record = chain('vda', 'vda', 'vda', 'vdb', 'vdc', 'vdc')
    found = monitor(record, 'vda', 'vdb', 'vdc', has_layers=True).disks
    assert [(d.device.target, d.read_requests, d.capacity_bytes) for d in found] == [
        ('vda', 10, 100),
        ('vdb', 13, 103),
        ('vdc', 14, 104),
    ]


def test_the_depth_counts_the_layers_below_the_active_one():
    record = chain('vda', 'vda', 'vda', 'vdb', 'vdc', 'vdc')
    found = monitor(record, 'vda', 'vdb', 'vdc', has_layers=True).disks
    assert [d.backing_depth for d in found] == [2, 0, 1]


def test_without_the_flag_the_depth_is_unknown_not_zero():
    assert monitor(chain('vda'), 'vda').disks[0].backing_depth is None


def histogram(operation, *bins):
    prefix = f'block.0.latency_histogram.{operation}.bin'
    found = {f'{prefix}.count': len(bins)}
    for m, (start, value) in enumerate(bins):
        found |= {f'{prefix}.{m}.start': start, f'{prefix}.{m}.value': value}
    return found


def test_latency_histograms_of_libvirt_12_1():
    """The names are those of its commit message; no such host was at hand."""
    record = fakes.record(
        **histogram('read', (0, 0), (1000, 1047), (10000, 2131)), **histogram('flush', (0, 5))
    )
    assert monitor(record, 'vda').disks[0].latency == {
        'read': ((0, 0), (1000, 1047), (10000, 2131)),
        'flush': ((0, 5),),
    }


def test_a_broken_bin_costs_only_itself():
    record = fakes.record(**histogram('write', (0, 3), (1000, -1), (10000, 4)))
    del record['block.0.latency_histogram.write.bin.0.start']
    assert monitor(record, 'vda').disks[0].latency == {'write': ((10000, 4),)}


# --- vCPUs --------------------------------------------------------------------


def test_hot_plug_leaves_holes_in_the_numbers():
    record = fakes.vcpu(11, None, None, 14)
    found = monitor(record)
    assert [(v.number, v.time_ns) for v in found.vcpus] == [(0, 11), (3, 14)]
    assert (found.vcpus_current, found.vcpus_maximum) == (2, 4)


def test_a_halted_vcpu_a_running_one_and_one_that_does_not_say():
    record = fakes.vcpu(1, 2, 3) | {'vcpu.0.halted': True, 'vcpu.1.halted': False}
    assert [v.is_halted for v in monitor(record).vcpus] == [True, False, None]


# --- memory -------------------------------------------------------------------

DRIVER = {
    'balloon.current': 2000,
    'balloon.maximum': 2048,
    'balloon.rss': 1500,
    'balloon.available': 1900,
    'balloon.usable': 900,
    'balloon.unused': 800,
    'balloon.disk_caches': 100,
    'balloon.swap_in': 7,
    'balloon.swap_out': 8,
    'balloon.major_fault': 9,
    'balloon.minor_fault': 10,
    'balloon.hugetlb_pgalloc': 11,
    'balloon.hugetlb_pgfail': 12,
    'balloon.last-update': 970,
}


def test_a_balloon_driver_tells_of_the_guest():
    assert domain_stats.memory(DRIVER) == model.Memory(
        current_bytes=2000 * KIB,
        maximum_bytes=2048 * KIB,
        rss_bytes=1500 * KIB,
        available_bytes=1900 * KIB,
        usable_bytes=900 * KIB,
        unused_bytes=800 * KIB,
        disk_caches_bytes=100 * KIB,
        swap_in_bytes=7 * KIB,
        swap_out_bytes=8 * KIB,
        major_faults=9,
        minor_faults=10,
        hugetlb_pgalloc=11,
        hugetlb_pgfail=12,
        updated_at=970,
    )


def test_a_balloon_device_without_a_driver_tells_nothing_of_the_guest():
    record = {'balloon.current': 1, 'balloon.maximum': 2, 'balloon.last-update': 0}
    assert domain_stats.memory(record) == model.Memory(
        current_bytes=1 * KIB, maximum_bytes=2 * KIB
    )


@pytest.mark.parametrize(
    ('max_age', 'is_believed'), [(30, True), (29.9, False), (float('inf'), True)]
)
def test_figures_of_a_driver_that_fell_silent_are_not_believed(max_age, is_believed):
    """QEMU repeats them for ever; when they were given stays known."""
    memory = monitor(DRIVER, read_at=1000.0, guest_max_age=max_age).memory
    assert (memory.usable_bytes is not None) == is_believed
    assert (memory.major_faults is not None) == is_believed
    assert (memory.rss_bytes, memory.updated_at) == (1500 * KIB, 970)


# --- resctrl and perf ---------------------------------------------------------


def test_perf_events_by_their_name():
    record = {'perf.cpu_cycles': 5, 'perf.cmt': 6, 'perf.broken': 'text', 'perfect': 7}
    assert monitor(record).perf == {'cpu_cycles': 5, 'cmt': 6}


def test_resctrl_monitors():
    record = {
        'memory.bandwidth.monitor.count': 1,
        'memory.bandwidth.monitor.0.name': 'vcpus_0-4',
        'memory.bandwidth.monitor.0.node.count': 2,
        'memory.bandwidth.monitor.0.node.0.bytes.local': 10,
        'memory.bandwidth.monitor.0.node.1.bytes.total': 20,
        'cpu.cache.monitor.count': 1,
        'cpu.cache.monitor.0.bank.1.bytes': 30,
    }
    found = monitor(record)
    assert found.bandwidth == (('0', '0', 'local', 10), ('0', '1', 'total', 20))
    assert found.cache_occupancy == (('0', '1', 30),)


# --- jobs ---------------------------------------------------------------------


def test_no_job_is_none():
    assert domain_stats.job({'type': 0}) is None
    assert domain_stats.job({}) is None


def test_a_job_has_its_units():
    job = domain_stats.job(
        {
            **{'type': 2, 'operation': 5, 'time_elapsed': 1000, 'time_remaining': 2000},
            **{'memory_total': 4, 'memory_processed': 3, 'memory_remaining': 1},
            **{'memory_bps': 100, 'memory_dirty_rate': 10, 'memory_page_size': 4096},
            **{'memory_iteration': 7, 'auto_converge_throttle': 20, 'success': True},
            **{'disk_total': 40, 'disk_processed': 30, 'disk_remaining': 10, 'downtime': 63},
        }
    )
    assert job == model.Job(
        type=2,
        operation=5,
        elapsed_ms=1000,
        remaining_ms=2000,
        downtime_ms=63,
        memory_total_bytes=4,
        memory_processed_bytes=3,
        memory_remaining_bytes=1,
        memory_bytes_per_second=100,
        dirty_bytes_per_second=10 * 4096,
        iterations=7,
        disk_total_bytes=40,
        disk_processed_bytes=30,
        disk_remaining_bytes=10,
        auto_converge_percent=20,
        succeeded=True,
    )


@pytest.mark.parametrize('missing', ['memory_dirty_rate', 'memory_page_size'])
def test_a_dirty_rate_needs_pages_and_their_size(missing):
    stats = {'type': 2, 'memory_dirty_rate': 10, 'memory_page_size': 4096}
    del stats[missing]
    assert domain_stats.job(stats).dirty_bytes_per_second is None


def test_a_block_job_without_a_limit():
    info = {'type': 2, 'bandwidth': 0, 'cur': 10, 'end': 20}
    assert domain_stats.block_job(info) == model.BlockJob(type=2, done_bytes=10, end_bytes=20)
    limited = domain_stats.block_job(info | {'bandwidth': 5})
    assert limited.limit_bytes_per_second == 5


# --- anything -----------------------------------------------------------------

indexes = strategies.integers(-1, 6)
names = strategies.sampled_from(['vda', 'vdb', 'tap1', '', 'x'])
odd = strategies.one_of(
    strategies.integers(-(2**64), 2**64),
    strategies.sampled_from([*UNSUPPORTED, 0, 2**63]),
    strategies.floats(),
    strategies.booleans(),
    strategies.text(max_size=5),
    strategies.none(),
)
plain_keys = strategies.sampled_from(
    [
        *('state.state', 'state.reason', 'cpu.time', 'cpu.user', 'cpu.haltpoll.fail.time'),
        *(f'balloon.{key}' for key in (*MEMORY_KEYS.values(), *FAULT_KEYS.values())),
        *('balloon.last-update', 'vcpu.current', 'vcpu.maximum', 'net.count', 'block.count'),
        *('memory.bandwidth.monitor.count', 'cpu.cache.monitor.count', 'perf.cmt', 'perf.'),
        *('cpu.cache.monitor.0.bank.0.bytes', 'memory.bandwidth.monitor.0.node.0.bytes.local'),
    ]
)
device_keys = strategies.one_of(
    strategies.builds(
        'block.{}.{}'.format, indexes, strategies.sampled_from([*DISK_KEYS.values()])
    ),
    strategies.builds('net.{}.{}'.format, indexes, strategies.sampled_from([*NET_KEYS.values()])),
    strategies.builds(
        'vcpu.{}.{}'.format, indexes, strategies.sampled_from(['state', 'time', 'delay', 'halted'])
    ),
    strategies.builds(
        'block.{}.latency_histogram.{}.bin.{}'.format,
        indexes,
        strategies.sampled_from(['read', 'write', 'flush']),
        strategies.sampled_from(['count', '0.start', '0.value', '1.start']),
    ),
)
name_keys = strategies.builds(
    '{}.{}.name'.format, strategies.sampled_from(['net', 'block']), indexes
)
records = strategies.builds(
    lambda plain, named: plain | named,
    strategies.dictionaries(strategies.one_of(plain_keys, device_keys), odd, max_size=40),
    strategies.dictionaries(name_keys, strategies.one_of(names, odd), max_size=8),
)


@hypothesis.given(records, strategies.booleans())
def test_no_record_of_plausible_keys_raises_or_gives_a_negative_number(record, has_layers):
    found = monitor(record, 'vda', 'vdb', has_layers=has_layers)
    interfaces = domain_stats.interfaces(record, [interface('tap1'), interface('')])
    domain_stats.interface_names(record)
    domain_stats.state(record)
    domain_stats.job(record)
    for part in (found.memory, *found.vcpus, *found.disks, *interfaces):
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            assert not isinstance(value, (int, float)) or 0 <= value < 2**73
    targets = [d.device.target for d in found.disks]
    assert len(targets) == len(set(targets))
