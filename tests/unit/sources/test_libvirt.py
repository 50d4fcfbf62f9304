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

"""What LibvirtSource promises: every domain costs only itself, and nothing is invented."""

from collections.abc import Callable
import functools
import itertools
import json
import logging
import sys
import threading
import time
import types

import hypothesis
from hypothesis import strategies
import pytest

from oie import model
from oie.sources import libvirt
from oie.sources import libvirt_connection
from oie.sources import virtual_functions
from tests import fakes
from tests import sriov

LONG = 5.0
# For guests that do not answer: it costs so much, and busy machines are slow.
SHORT = 0.2
OPTIONS = {
    'uri': 'qemu:///system',
    'timeout': LONG,
    'monitor_timeout': LONG,
    'busy_limit': 0.05,
    'chunk_size': 16,
    'parallel_calls': 2,
    'guest_memory_max_age': 30.0,
    'keepalive_interval': 5,
    'keepalive_count': 3,
}
PAUSED_MIGRATING, PAUSED_POSTCOPY, RUNNING = (3, 2), (3, 12), (1, 1)
PAUSED_IO_ERROR, PAUSED_STARTING, PAUSED_BY_USER = (3, 5), (3, 11), (3, 1)
LIFECYCLE = fakes.Libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
DEVICE_ADDED = fakes.Libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED
MIGRATION_ITERATION = fakes.Libvirt.VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION
JOB_COMPLETED = fakes.Libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED


@pytest.fixture
def host(monkeypatch):
    """A daemon that ``import libvirt`` leads to."""
    host = fakes.Host()
    monkeypatch.setitem(sys.modules, 'libvirt', host.libvirt)
    monkeypatch.setattr(libvirt_connection, '_loop_started', True)
    yield host
    host.release_all()


MakeSource = Callable[..., libvirt.LibvirtSource]


@pytest.fixture
def make(host) -> MakeSource:
    """Make a source; options by their names, the rest as its own arguments."""

    def make(**wanted):
        options = {name: wanted.pop(name, value) for name, value in OPTIONS.items()}
        return libvirt.LibvirtSource(types.SimpleNamespace(**options), **wanted)

    return make


@pytest.fixture
def said(caplog):
    """Return what was logged as warning or worse about a subject."""
    caplog.set_level(logging.WARNING)

    def said(subject=''):
        lines = [record.getMessage() for record in caplog.records]
        return [line for line in lines if line.startswith(subject)]

    return said


def read(source):
    """Read once; return the instances by name of their domain."""
    reading = source.read()
    assert not reading.error, reading.error
    return by_name(reading)


def by_name(reading):
    return {instance.definition.domain: instance for instance in reading.value}


def emit(host, event, guest, *details):
    """Let libvirt call back on whatever connection listens."""
    for connection in host.connections:
        if connection.is_alive:
            connection.emit(event, guest, *details)


# --- all is well --------------------------------------------------------------


def test_a_happy_cycle_reads_both_tiers(host, make):
    guest = host.add('a', state=RUNNING, cpu_time_ns=7)
    source = make()
    reading = source.read()
    assert reading.error == ''
    assert reading.read_at is not None
    [instance] = reading.value
    assert instance.definition.uuid == guest.uuid
    assert instance.definition.name == 'name of a'
    assert (instance.state, instance.state_reason) == RUNNING
    assert (instance.cpu_time_ns, instance.vcpus) == (7, 1)
    assert instance.memory_maximum_bytes == 24576 * 1024
    assert instance.control == model.Control(state=0, busy_ms=0)
    assert [nic.rx_bytes for nic in instance.interfaces] == [90]
    assert instance.monitor.memory.rss_bytes == 43028 * 1024
    assert [disk.read_requests for disk in instance.monitor.disks] == [3]
    assert instance.is_fresh
    assert instance.is_complete
    assert instance.completed_at == instance.read_at == instance.monitor.read_at


def test_the_connection_is_read_only_with_keepalive(host, make):
    read(make())
    [connection] = host.connections
    assert connection.keepalive == (5, 3)
    assert connection.on_close is not None


def test_versions_are_read_without_waiting_for_them(host, make):
    gate = host.gate()
    host.scripts['getVersion'] = gate
    host.add('a')
    source = make()
    assert read(source).keys() == {'a'}
    assert source.hypervisor().version == ''
    gate.release()
    wait_until(lambda: source.hypervisor().version == '7.2.22')
    hypervisor = source.hypervisor()
    assert (hypervisor.libvirt_version, hypervisor.hostname) == ('9.0.0', 'compute1')
    assert hypervisor.stuck_calls == 0


def test_versions_that_never_come_count_as_a_stuck_call(host, make):
    gate = host.gate()
    host.scripts['getVersion'] = gate
    source = make(timeout=SHORT)
    read(source)
    assert gate.entered.wait(LONG)
    threading.Event().wait(SHORT)
    read(source)
    assert source.hypervisor().stuck_calls == 1


def wait_until(condition):
    for _ in range(500):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError('it did not happen')


def test_the_hypervisor_tells_how_it_goes(host, make):
    host.add('a')
    host.add('b', state=PAUSED_BY_USER)
    source = make()
    read(source)
    hypervisor = source.hypervisor()
    assert hypervisor.is_connected
    assert hypervisor.uri == 'qemu:///system'
    assert hypervisor.domains_by_state == {'running': 1, 'paused': 1}
    assert hypervisor.definitions_cached == 2
    assert hypervisor.list_seconds >= 0
    assert {'open', 'list', 'statistics'} <= hypervisor.calls.keys()
    assert hypervisor.domain_errors == {}
    assert (hypervisor.reconnects, hypervisor.stuck_calls, hypervisor.suspects) == (0, 0, 0)


def test_a_host_without_guests_is_read_well(host, make):
    assert read(make()) == {}


def test_the_plain_driver_is_asked_domain_by_domain(host, make):
    """The test driver's bulk statistics hold nothing but the state."""
    host.type = 'TEST'
    host.add('a', record={'vcpu.current': 1}, control=[0, 0, 0])
    instance = read(make())['a']
    assert instance.is_complete
    assert [disk.read_bytes for disk in instance.monitor.disks] == [512]
    assert instance.interfaces[0].tx_bytes == 20


def test_guests_without_nova_metadata_are_kept_or_skipped(host, make):
    host.add('nova')
    host.add('other', has_metadata=False)
    assert read(make()).keys() == {'nova', 'other'}
    assert read(make(keep_without_metadata=False)).keys() == {'nova'}


def test_a_driver_without_control_info_is_read_all_the_same(host, make):
    host.add('a', scripts={'controlInfo': fakes.Error(fakes.NO_SUPPORT)})
    instance = read(make())['a']
    assert instance.control is None
    assert instance.is_complete


# --- domains that change under us -------------------------------------------


@pytest.mark.parametrize('call', ['info', 'controlInfo', 'XMLDesc'])
@pytest.mark.parametrize('code', [fakes.NO_DOMAIN, fakes.OPERATION_INVALID])
def test_a_domain_that_ends_while_it_is_read_costs_itself(host, make, said, call, code):
    host.add('a')
    host.add('b', scripts={call: fakes.Error(code)})
    source = make()
    assert read(source).keys() == {'a'}
    assert source.hypervisor().domain_errors == {'gone': 1}
    assert said() == []


def test_a_domain_that_ends_before_its_statistics_costs_itself(host, make):
    host.add('a')
    guest = host.add('b')

    def leave():
        host.guests.pop(guest.uuid, None)

    host.scripts['safeStatistics'] = leave
    source = make()
    assert read(source).keys() == {'a'}
    assert source.hypervisor().domain_errors == {'gone': 1}


def test_a_persistent_domain_that_ends_is_known_as_shut_off_and_costs_itself(host, make):
    """Its definition stays, so libvirt gives a record of it all the same."""
    host.add('a')
    guest = host.add('b')
    source = make()
    read(source)

    def stop():
        guest.state = (5, 1)

    host.scripts['safeStatistics'] = stop
    assert read(source).keys() == {'a'}
    assert source.hypervisor().domain_errors == {'gone': 1}
    assert source.hypervisor().domains_by_state == {'running': 1}


def test_a_domain_that_ends_before_tier_two_keeps_tier_one(host, make):
    host.add('a')
    guest = host.add('b')

    def leave():
        host.guests.pop(guest.uuid, None)

    host.scripts['statistics'] = leave
    instances = read(make())
    assert instances['a'].is_complete
    assert (instances['b'].monitor, instances['b'].is_complete) == (None, False)


def test_a_complete_listing_without_an_instance_drops_it_at_once(host, make):
    host.add('a')
    guest = host.add('b')
    source = make()
    read(source)
    host.remove(guest)
    assert read(source).keys() == {'a'}
    assert source.hypervisor().definitions_cached == 1
    assert source.hypervisor().domain_errors == {}


def test_an_error_of_one_domain_keeps_its_last_values(host, make, said):
    host.add('a')
    guest = host.add('b', cpu_time_ns=7)
    source = make()
    before = read(source)['b']
    guest.scripts['info'] = fakes.Error(fakes.OPERATION_FAILED, 'cannot read cputime')
    guest.cpu_time_ns = 8
    for _ in range(3):
        instances = read(source)
    assert instances['a'].is_fresh
    assert not instances['b'].is_fresh
    assert not instances['b'].is_complete
    assert (instances['b'].cpu_time_ns, instances['b'].read_at) == (7, before.read_at)
    assert source.hypervisor().domain_errors == {'error': 3}
    guest.scripts.clear()
    assert read(source)['b'].is_fresh
    assert said(guest.uuid) == [
        f'{guest.uuid}: not read: cannot read cputime',
        f'{guest.uuid}: not read: over',
    ]


@pytest.mark.parametrize('call', ['info', 'controlInfo', 'XMLDesc', 'statistics'])
@pytest.mark.parametrize(
    'odd',
    [
        fakes.Error(fakes.OPERATION_FAILED, 'no'),
        fakes.Error(fakes.RPC, 'message too long', fakes.FROM_RPC),
        UnicodeDecodeError('utf-8', b'\xff', 0, 1, 'invalid start byte'),
        RuntimeError('odd'),
        KeyError('odd'),
    ],
    ids=str,
)
def test_whatever_a_call_raises_for_one_domain_costs_only_that_one(host, make, said, call, odd):
    host.add('a')
    guest = host.add('b', scripts={call: odd})
    source = make()
    for _ in range(3):
        instances = read(source)
        assert instances['a'].is_complete
    assert 'b' not in instances or not instances['b'].is_complete
    assert len(said(guest.uuid)) == 1
    assert len(host.connections) == 1
    guest.scripts.clear()
    assert read(source)['b'].is_complete


def test_a_domain_that_spoils_the_bulk_call_costs_only_itself(host, make):
    host.add('a')
    guest = host.add('b')
    source = make()
    read(source)
    guest.scripts['safeStatistics'] = fakes.Error(fakes.OPERATION_FAILED, 'no such tap')
    instances = read(source)
    assert instances['a'].is_complete
    assert not instances['b'].is_fresh
    assert source.hypervisor().domain_errors == {'error': 1}


def test_a_record_of_a_shape_nobody_has_seen_costs_one_instance(host, make, monkeypatch, said):
    host.add('a')
    guest = host.add('b')
    source = make()
    read(source)
    real = libvirt.domain_stats.interfaces

    def interfaces(record, devices):
        if devices[0].owner.pairs[0] == ('domain', 'b'):
            raise TypeError('odd')
        return real(record, devices)

    monkeypatch.setattr(libvirt.domain_stats, 'interfaces', interfaces)
    for _ in range(2):
        instances = read(source)
    assert instances['a'].is_fresh
    assert not instances['b'].is_fresh
    assert len(said(guest.uuid)) == 1
    assert source.hypervisor().active_instances == 2


# --- definitions --------------------------------------------------------------


def test_a_definition_is_parsed_once_and_shared(host, make):
    guest = host.add('a')
    source = make()
    definitions = {id(read(source)['a'].definition) for _ in range(3)}
    assert len(definitions) == 1
    assert host.count('XMLDesc', guest.uuid) == 1


def test_a_definition_is_parsed_again_after_its_expiration(host, make):
    guest = host.add('a')
    source = make(expiration=0.0)
    for _ in range(3):
        read(source)
    assert host.count('XMLDesc', guest.uuid) == 3


@pytest.mark.parametrize(
    ('event', 'details'),
    [(DEVICE_ADDED, ['net1']), (LIFECYCLE, [4, 0])],
    ids=['device', 'resumed'],
)
def test_a_definition_is_parsed_again_after_an_event(host, make, event, details):
    host.add('a')
    guest = host.add('b')
    source = make()
    read(source)
    guest.disks.append('vdb')
    emit(host, event, guest, *details)
    definition = read(source)['b'].definition
    assert [disk.target for disk in definition.disks] == ['vda', 'vdb']
    read(source)
    assert host.count('XMLDesc', guest.uuid) == 2
    assert host.count('XMLDesc') == 3


def test_a_definition_is_parsed_again_for_a_new_qemu(host, make):
    guest = host.add('a')
    source = make()
    read(source)
    host.restart_guest(guest)
    assert read(source)['a'].domain_id == guest.domain_id
    assert host.count('XMLDesc', guest.uuid) == 2


def test_a_definition_is_parsed_again_when_interface_names_disagree(host, make):
    """The event of a hot-plugged port was lost."""
    guest = host.add('a')
    source = make()
    read(source)
    guest.interfaces.append('tap2')
    assert [nic.device.target for nic in read(source)['a'].interfaces] == ['tap1', 'tap2']
    read(source)
    assert host.count('XMLDesc', guest.uuid) == 2


def test_an_interface_the_xml_never_names_is_asked_for_once(host, make):
    guest = host.add('a', xml=None)
    guest.xml = fakes.xml(guest)
    guest.interfaces.append('tap2')
    source = make()
    for _ in range(3):
        read(source)
    assert host.count('XMLDesc', guest.uuid) == 2
    guest.interfaces.append('tap3')
    for _ in range(3):
        read(source)
    assert host.count('XMLDesc', guest.uuid) == 3


def test_a_domain_that_ends_amid_a_disagreement_costs_nothing_else(host, make):
    host.add('a')
    guest = host.add('b')
    source = make()
    read(source)
    guest.interfaces.append('tap2')
    guest.scripts['XMLDesc'] = fakes.gone()
    instances = read(source)
    assert instances['a'].is_complete
    assert [nic.device.target for nic in instances['b'].interfaces] == ['tap1']


def test_a_disagreement_that_cannot_be_settled_costs_nothing(host, make, said):
    guest = host.add('a')
    source = make()
    read(source)
    guest.interfaces.append('tap2')
    guest.scripts['XMLDesc'] = fakes.Error(fakes.OPERATION_FAILED, 'no')
    for _ in range(2):
        instance = read(source)['a']
    assert instance.is_complete
    assert [nic.device.target for nic in instance.interfaces] == ['tap1']
    assert said(guest.uuid) == [f'{guest.uuid}: definition not read again: no']
    guest.scripts.clear()
    assert [nic.device.target for nic in read(source)['a'].interfaces] == ['tap1', 'tap2']


@pytest.mark.parametrize('broken', ['<domain', '', 'text', '<domain><name>x</name></domain>'])
def test_broken_xml_of_a_new_domain_costs_itself(host, make, said, broken):
    host.add('a')
    guest = host.add('b', xml=broken)
    source = make()
    for _ in range(3):
        assert read(source).keys() == {'a'}
    assert source.hypervisor().domain_errors == {'parse': 3}
    assert len(said(guest.uuid)) == 1
    guest.xml = None
    assert read(source).keys() == {'a', 'b'}
    assert said(guest.uuid)[1:] == [f'{guest.uuid}: broken XML: over']


@pytest.mark.parametrize(
    'odd', ['<domain', UnicodeDecodeError('utf-8', b'\xff', 0, 1, 'invalid start byte')], ids=str
)
def test_broken_xml_of_a_known_domain_leaves_the_last_definition(host, make, said, odd):
    guest = host.add('a')
    source = make(expiration=0.0)
    definition = read(source)['a'].definition
    if isinstance(odd, str):
        guest.xml = odd
    else:
        guest.scripts['XMLDesc'] = odd
    for _ in range(3):
        instance = read(source)['a']
    assert instance.definition is definition
    assert instance.is_complete
    assert source.hypervisor().domain_errors == {'parse': 3}
    assert len(said(guest.uuid)) == 1
    guest.xml = None
    guest.scripts.clear()
    assert read(source)['a'].definition is not definition
    assert said(guest.uuid)[1:] == [f'{guest.uuid}: definition not read again: over']


def test_a_failing_domain_without_values_does_not_flood_the_log(host, make, said):
    """Its definition is known, but it never became an instance."""
    guest = host.add('a', scripts={'controlInfo': fakes.Error(fakes.OPERATION_FAILED, 'no')})
    source = make()
    for _ in range(5):
        assert source.read().value == ()
    assert said(guest.uuid) == [f'{guest.uuid}: not read: no']
    assert host.count('XMLDesc') == 1


def test_what_was_said_of_a_domain_goes_with_it(host, make, said):
    guest = host.add('a', xml='<domain')
    host.add('b')
    source = make()
    read(source)
    host.remove(guest)
    read(source)
    assert source._failures._said == {}


# --- what is listed and cannot be read --------------------------------------------


@pytest.mark.parametrize('call', ['XMLDesc', 'info', 'safeStatistics'])
def test_a_listing_of_which_nothing_can_be_read_is_no_empty_host(host, make, call):
    for name in ('a', 'b'):
        host.add(name, scripts={call: fakes.Error(88, 'access denied: domain:read')})
    source = make()
    reading = source.read()
    assert reading.error.startswith('could not read any instance, of 2 listed; ')
    assert reading.error.endswith(': access denied: domain:read')
    assert (reading.value, reading.read_at) == ((), None)
    assert source.hypervisor().active_instances == 2
    for guest in host.guests.values():
        guest.scripts.clear()
    assert read(source).keys() == {'a', 'b'}


def test_when_all_that_was_known_cannot_be_read_any_more_it_is_old(host, make):
    guests = [host.add(name) for name in ('a', 'b', 'gone')]
    source = make()
    before = source.read()
    host.remove(guests.pop())
    for guest in guests:
        guest.scripts['info'] = fakes.Error(fakes.OPERATION_FAILED, 'no')
    reading = source.read()
    assert by_name(reading).keys() == {'a', 'b'}
    assert not any(instance.is_fresh for instance in reading.value)
    assert reading.read_at == before.read_at
    assert 'could not read any instance' in reading.error


def test_instances_are_counted_by_the_listing_read_or_not(host, make):
    host.add('a')
    broken = host.add('b', xml='<domain')
    failing = host.add('c')
    source = make()
    assert read(source).keys() == {'a', 'c'}
    assert source.hypervisor().active_instances == 3
    failing.scripts['info'] = fakes.Error(fakes.OPERATION_FAILED, 'no')
    host.remove(broken)
    read(source)
    assert source.hypervisor().active_instances == 2


@pytest.mark.parametrize('call', ['info', 'safeStatistics'])
def test_what_is_no_instance_here_is_not_counted_when_it_fails(host, make, call):
    host.add('a')
    guests = [host.add('incoming', state=PAUSED_MIGRATING), host.add('b', has_metadata=False)]
    source = make(keep_without_metadata=False)
    for _ in range(2):
        assert read(source).keys() == {'a'}
        assert source.hypervisor().active_instances == 1
        for guest in guests:
            guest.scripts[call] = fakes.Error(fakes.OPERATION_FAILED, 'no')


def test_while_libvirt_is_away_nobody_knows_how_many_are_active(host, make):
    host.add('a')
    source = make()
    read(source)
    host.scripts['listAllDomains'] = fakes.Error(fakes.OPERATION_FAILED, 'no')
    source.read()
    assert source.hypervisor().active_instances is None


# --- a domain that libvirtd does not let go of ----------------------------------


HELD = (
    'libvirt does not answer even what needs no monitor: is a disk being attached whose storage '
    'hangs? It is left alone until that call returns'
)


@pytest.fixture
def known(host, make):
    """Return a source that knows three guests and waits for nobody for long, and them."""
    guests = [host.add(f'guest-{n}') for n in range(3)]
    source = make(timeout=2 * SHORT, monitor_timeout=2 * SHORT)
    read(source)
    return source, *guests


def is_good(source):
    """Read once; return by name whether all was read anew, None for what is old."""
    found = by_name(source.read())
    return {name: i.is_complete if i.is_fresh else None for name, i in found.items()}


def asked_alone(host, guest):
    """Return how often a guest was asked what would keep others from defining theirs."""
    return sum(host.count(name, guest.uuid) for name in ('info', 'controlInfo', 'lookup'))


def test_a_domain_that_hangs_all_listings_costs_only_itself(host, known, said):
    source, _, victim, _ = known
    before = source.hypervisor()
    asked = asked_alone(host, victim)
    victim.lock.hold()
    for cycle in range(1, 4):
        reading = source.read()
        assert 'others may be missing' in reading.error
        assert reading.read_at > before.listed_at
        found = by_name(reading)
        assert found['guest-0'].is_complete
        assert found['guest-2'].is_complete
        assert not found['guest-1'].is_fresh
        hypervisor = source.hypervisor()
        assert (hypervisor.stuck_calls, hypervisor.suspects) == (2, 1)
        assert hypervisor.domain_errors == {'timeout': cycle}
        assert hypervisor.listed_at == before.listed_at
    # The listing, and one of its own.
    assert victim.lock.most_waiting == 2
    assert asked_alone(host, victim) == asked
    assert host.most_in_flight <= 4
    assert said() == [
        f'{victim.uuid}: not read: {HELD}',
        f'libvirt: not listed: {source.read().error}',
    ]
    victim.lock.release()
    wait_until(lambda: source.hypervisor().stuck_calls == 0)
    assert is_good(source) == dict.fromkeys(found, True)
    assert source.hypervisor().suspects == 0
    assert said()[2:] == [f'{victim.uuid}: not read: over', 'libvirt: not listed: over']


@pytest.mark.parametrize(
    ('call', 'stuck'),
    [
        ('info', 1),
        ('controlInfo', 1),
        ('XMLDesc', 1),
        ('completedJobStats', 1),
        ('safeStatistics', 2),
    ],
)
def test_whatever_hangs_in_tier_one_of_one_domain_costs_only_that_one(host, known, call, stuck):
    source, _, victim, _ = known
    host.restart_guest(victim)  # so that all of it is read
    victim.scripts[call] = gate = host.gate()
    for _ in range(3):
        assert is_good(source) == {'guest-0': True, 'guest-1': None, 'guest-2': True}
        assert source.hypervisor().stuck_calls == stuck
    gate.release()
    wait_until(lambda: source.hypervisor().stuck_calls == 0)
    victim.scripts.clear()
    source.read()
    assert by_name(source.read())['guest-1'].is_fresh


def test_a_domain_that_hangs_amid_tier_two_is_named_and_costs_only_itself(host, known):
    """The others of its chunk are asked again in the same cycle."""
    source, _, victim, _ = known
    host.scripts['statistics'] = victim.lock.hold
    asked = asked_alone(host, victim)
    assert is_good(source) == {'guest-0': True, 'guest-1': False, 'guest-2': True}
    host.scripts.clear()
    for _ in range(3):
        assert is_good(source) == {'guest-0': True, 'guest-1': None, 'guest-2': True}
        hypervisor = source.hypervisor()
        assert (hypervisor.stuck_calls, hypervisor.suspects) == (2, 1)
    # But for what tier one asked before.
    assert asked_alone(host, victim) == asked + 2
    victim.lock.release()
    wait_until(lambda: source.hypervisor().stuck_calls == 0)
    assert is_good(source) == dict.fromkeys(('guest-0', 'guest-1', 'guest-2'), True)


def test_two_domains_that_hang_leave_tier_one_of_the_others(host, known):
    source, first, second, _ = known
    first.lock.hold()
    second.lock.hold()
    for _ in range(3):
        found = by_name(source.read())
        assert [name for name, one in found.items() if one.is_fresh] == ['guest-2']
        assert source.hypervisor().stuck_calls == 3
    assert host.most_in_flight <= 4
    for guest in (first, second):
        guest.lock.release()
    wait_until(lambda: source.hypervisor().stuck_calls == 0)
    assert is_good(source) == dict.fromkeys(found, True)


def test_while_nothing_is_listed_events_tell_who_starts_and_answers_who_is_gone(host, known):
    source, leaving, victim, _ = known
    victim.lock.hold()
    source.read()
    emit(host, LIFECYCLE, host.add('new'), 2, 0)
    emit(host, LIFECYCLE, host.add('short'), 2, 0)
    host.remove(host.guests[leaving.uuid])
    host.remove(next(guest for guest in host.guests.values() if guest.name == 'short'))
    expected = {'guest-1': None, 'guest-2': True, 'new': True}
    assert is_good(source) == expected
    assert is_good(source) == expected
    assert source.hypervisor().active_instances == 3
    assert source.hypervisor().domain_errors['gone'] == 2


def test_where_the_only_domain_hangs_nothing_is_known(host, make):
    guest = host.add('a')
    source = make(timeout=SHORT)
    before = source.read()
    guest.lock.hold()
    for _ in range(2):
        reading = source.read()
        assert f'{guest.uuid}: {HELD}' in reading.error
        assert reading.read_at == before.read_at
        assert not reading.value[0].is_fresh


def test_a_daemon_that_hangs_makes_nobody_a_suspect(host, known):
    source, *guests = known
    gate = host.gate()
    for name in ('listAllDomains', 'getLibVersion', 'lookup', 'info', 'controlInfo'):
        host.scripts[name] = gate
    for _ in range(4):
        assert is_good(source) == dict.fromkeys(('guest-0', 'guest-1', 'guest-2'))
    hypervisor = source.hypervisor()
    # The listing, and what tells whether it is the daemon.
    assert (hypervisor.stuck_calls, hypervisor.suspects) == (2, 0)
    assert hypervisor.domain_errors == {}


def test_calls_that_are_lost_with_their_connection_are_not_waited_for(host, known):
    """As libvirt 9.0.0 does with a second call, when keepalive ends the connection."""
    source, _, victim, _ = known
    victim.lock.hold()
    source.read()
    assert source.hypervisor().stuck_calls == 2
    for connection in host.connections:
        connection.close_by_peer()
    replacement = fakes.Lock()
    lost, victim.lock = victim.lock, replacement
    wait_until(lambda: not source.read().error)
    assert is_good(source)['guest-1'] is not None
    assert source.hypervisor().stuck_calls == 2
    lost.release()


def test_a_daemon_that_begins_to_hang_after_the_listing_makes_nobody_a_suspect(host, known):
    source, *_ = known
    gate = host.gate()
    for name in ('getLibVersion', 'info'):
        host.scripts[name] = gate
    for _ in range(4):
        assert source.read().error
    assert source.hypervisor().suspects == 0
    gate.release()
    host.scripts.clear()
    wait_until(lambda: not source.read().error)


def test_a_slow_daemon_that_moves_makes_nobody_a_suspect(host, make):
    """Each domain takes its time, and all together too much."""
    for number in range(8):
        host.add(f'guest-{number}')
    source = make(timeout=2 * SHORT, monitor_timeout=2 * SHORT)
    host.scripts['info'] = lambda: threading.Event().wait(SHORT / 2)
    for _ in range(2):
        assert 'domains has not returned after' in source.read().error
    assert source.hypervisor().suspects == 0
    host.scripts.clear()
    wait_until(lambda: not source.read().error)


# --- migrations ---------------------------------------------------------------


def test_the_destination_of_a_migration_is_no_instance_of_this_host(host, make):
    host.add('a')
    guest = host.add('b', state=PAUSED_MIGRATING)
    source = make()
    assert read(source).keys() == {'a'}
    assert source.hypervisor().domains_by_state == {'running': 1, 'incoming': 1}
    # Nor is it asked for what needs its monitor, which waits for the sender.
    assert host.count('statistics of', guest.uuid) == 0
    guest.state = (1, 2)
    assert read(source).keys() == {'a', 'b'}


def test_the_destination_is_no_instance_while_its_qemu_starts(host, make):
    """QEMU that will receive is paused (starting up) before it is paused (migration)."""
    guest = host.add('b', state=PAUSED_STARTING)
    source = make()
    assert read(source) == {}
    assert source.hypervisor().domains_by_state == {'starting': 1}
    guest.state = PAUSED_MIGRATING
    assert read(source) == {}


def test_the_sender_stays_an_instance_while_it_is_paused(host, make):
    guest = host.add('a')
    source = make()
    read(source)
    guest.state = PAUSED_MIGRATING
    # libvirt tells of the pause, and the definition is read again for it.
    emit(host, LIFECYCLE, guest, 3, 1)
    assert read(source).keys() == {'a'}
    assert source.hypervisor().domains_by_state == {'paused': 1}


def test_the_source_of_a_post_copy_migration_is_left_out(host, make):
    guest = host.add('a')
    source = make()
    read(source)
    guest.state = PAUSED_POSTCOPY
    assert read(source) == {}
    assert source.hypervisor().domains_by_state == {'outgoing': 1}


def test_a_guest_paused_by_its_user_is_an_instance(host, make):
    host.add('a', state=PAUSED_BY_USER)
    assert read(make()).keys() == {'a'}


# --- tier two -----------------------------------------------------------------


def test_a_wedged_guest_loses_only_tier_two_from_the_first_cycle(host, make):
    for name in 'abc':
        host.add(name)
    wedged = host.add('wedged', cpu_time_ns=7)
    wedged.wedge()
    source = make(monitor_timeout=SHORT)
    for _ in range(3):
        instances = read(source)
        for name in 'abc':
            assert instances[name].is_complete
        assert instances['wedged'].is_fresh
        assert instances['wedged'].cpu_time_ns == 7
        assert (instances['wedged'].monitor, instances['wedged'].is_complete) == (None, False)
        assert instances['wedged'].completed_at is None
    assert wedged.most_waiting == 1
    assert host.count('statistics of', wedged.uuid) == 1
    assert source.hypervisor().stuck_calls == 1
    assert source.hypervisor().suspects == 1
    assert instances['wedged'].control.state == model.ControlState.OCCUPIED


def test_a_guest_that_leaves_amid_the_rescue_costs_only_itself(host, make):
    for name in 'abc':
        host.add(name)
    leaver = host.guests[next(iter(host.guests))]
    wedged = host.add('wedged')
    wedged.wedge()
    source = make(monitor_timeout=SHORT)
    looks = []

    def leave():
        looks.append(1)
        if len(looks) == 2:  # the first is tier one's
            host.guests.pop(leaver.uuid)
            raise fakes.gone()

    leaver.scripts['controlInfo'] = leave
    instances = read(source)
    assert instances['b'].is_complete
    assert instances['c'].is_complete
    assert instances['a'].monitor is None


def test_a_guest_that_answers_again_is_complete_again(host, make):
    host.add('a')
    guest = host.add('b')
    guest.wedge()
    source = make(monitor_timeout=SHORT)
    read(source)
    guest.resume()
    wait_until(lambda: source.hypervisor().stuck_calls == 0)
    assert read(source)['b'].is_complete
    assert source.hypervisor().suspects == 0


def test_a_guest_that_is_rebooted_hard_is_believed_at_once(host, make):
    guest = host.add('a')
    guest.wedge()
    source = make(monitor_timeout=SHORT)
    read(source)
    for _ in range(5):
        source._breaker.trip(guest.uuid, source._breaker._suspects[guest.uuid].call)
    guest.resume()
    wait_until(lambda: source.hypervisor().stuck_calls == 0)
    assert not read(source)['a'].is_complete
    host.restart_guest(guest)
    assert read(source)['a'].is_complete


def test_last_values_of_a_guest_that_wedges_stay_with_their_time(host, make):
    guest = host.add('a')
    source = make(monitor_timeout=SHORT)
    before = read(source)['a']
    guest.wedge()
    after = read(source)['a']
    assert after.monitor is before.monitor
    assert after.completed_at == before.completed_at
    assert after.is_fresh
    assert not after.is_complete
    assert after.read_at > before.read_at


def test_values_of_an_earlier_qemu_do_not_stay(host, make):
    guest = host.add('a')
    source = make(monitor_timeout=SHORT)
    read(source)
    host.restart_guest(guest)
    guest.wedge()
    assert read(source)['a'].monitor is None


def test_a_busy_guest_is_asked_for_tier_one_only(host, make):
    host.add('a')
    host.add('b', control=[2, 0, 51])
    source = make()
    instances = read(source)
    assert instances['a'].is_complete
    assert (instances['b'].is_fresh, instances['b'].monitor) == (True, None)
    assert source.hypervisor().suspects == 0


@pytest.mark.parametrize('control', [[2, 0, 49], [1, 0, 3_600_000], [3, 0, 0]])
def test_a_guest_that_is_hardly_busy_or_migrating_is_asked(host, make, control):
    host.add('a', control=control)
    assert read(make())['a'].is_complete


def test_a_wedged_guest_in_a_migration_is_asked_once(host, make):
    guest = host.add('a', control=[1, 0, 3_600_000])
    guest.wedge()
    source = make(monitor_timeout=SHORT)
    for _ in range(3):
        read(source)
        for suspect in source._breaker._suspects.values():
            suspect.tripped_at -= 3600
    assert host.count('statistics') == 1


def test_a_partial_record_keeps_the_last_complete_one(host, make):
    guest = host.add('a')
    source = make()
    before = read(source)['a']
    guest.record = fakes.partial(fakes.record(**fakes.vcpu(9_000_000_000)))
    after = read(source)['a']
    assert after.monitor is before.monitor
    assert not after.is_complete
    assert source.hypervisor().domain_errors == {'partial': 1}


def test_partial_records_alone_are_shown_as_they_come(host, make):
    guest = host.add('a', record=fakes.partial(fakes.record()))
    source = make()
    times = []
    for time_ns in (1, 2):
        guest.record |= fakes.vcpu(time_ns)
        instance = read(source)['a']
        assert not instance.is_complete
        times.append(instance.monitor.vcpus[0].time_ns)
    assert times == [1, 2]


def test_distress_suspends_tier_two_of_all(host, make, said):
    """Three monitors occupied for 10 s, by whomever: a storage outage."""
    for n in range(3):
        host.add(f'wedged-{n}', control=[2, 0, 10_000])
    host.add('healthy')
    host.add('with a job', control=[1, 0, 100])
    host.add('full disk', state=PAUSED_IO_ERROR)
    source = make(optional=frozenset({'block_jobs'}))
    for _ in range(2):
        instances = read(source)
    assert all(instance.is_fresh for instance in instances.values())
    assert not any(instance.is_complete for instance in instances.values())
    for call in ('statistics', 'jobStats', 'diskErrors', 'blockJobInfo'):
        assert host.count(call) == 0
    assert source.hypervisor().domain_errors == {'suspended': 12}
    assert said('libvirt') == ['libvirt: suspended: too many monitors do not answer']
    next(iter(host.guests.values())).control = [0, 0, 0]
    assert read(source)['healthy'].is_complete
    assert said('libvirt')[1:] == ['libvirt: suspended: over']


def test_two_wedged_guests_are_no_distress(host, make):
    for n in range(2):
        host.add(f'wedged-{n}', control=[2, 0, 10_000])
    host.add('briefly busy', control=[2, 0, 9_999])
    host.add('healthy')
    assert read(make())['healthy'].is_complete


def test_never_more_than_four_calls_and_never_two_in_one_guest(host, make):
    """Half of the guests wedge one after the other, some recover, one after the other."""
    guests = [host.add(f'guest-{n}') for n in range(12)]
    source = make(monitor_timeout=SHORT, chunk_size=2, optional=frozenset({'block_jobs'}))
    for guest in guests[:6]:
        guest.wedge()
        assert source.read().error == ''
        assert source.hypervisor().stuck_calls <= 4
    for guest in guests[:3]:
        guest.resume()
        assert source.read().error == ''
    assert host.most_in_flight <= 4
    assert max(guest.most_waiting for guest in guests) == 1


def test_suspects_survive_a_restart(host, make, tmp_path):
    path = tmp_path / 'suspects.json'
    host.add('a')
    guest = host.add('b')
    guest.wedge()
    read(make(monitor_timeout=SHORT, suspects_path=str(path)))
    assert json.loads(path.read_text()) == [guest.uuid]
    guest.resume()
    again = make(monitor_timeout=SHORT, suspects_path=str(path))
    instances = read(again)
    assert instances['a'].is_complete
    assert not instances['b'].is_complete
    assert again.hypervisor().suspects == 1


def test_groups_are_asked_only_when_they_are_wanted(host, make):
    host.add('a', record=fakes.record(**{'cpu.user': 5, 'memory.bandwidth.monitor.count': 0}))
    assert read(make())['a'].monitor.cpu_user_ns is None
    assert read(make(optional=frozenset({'cpu_split'})))['a'].monitor.cpu_user_ns == 5


def test_resctrl_monitors_are_asked_only_when_they_are_wanted(host, make):
    bandwidth = {'memory.bandwidth.monitor.count': 1}
    bandwidth['memory.bandwidth.monitor.0.node.0.bytes.total'] = 7
    host.add('a', record=fakes.record(**bandwidth))
    assert read(make())['a'].monitor.bandwidth == ()
    wanted = read(make(optional=frozenset({'memory_bandwidth'})))['a']
    assert wanted.monitor.bandwidth == (('0', '0', 'total', 7),)


def test_backing_depth_is_counted_only_when_it_is_wanted(host, make):
    layers = {'block.count': 3, 'block.1.name': 'vda', 'block.2.name': 'vda'}
    guest = host.add('a', record=fakes.record(**layers))
    [disk] = read(make(optional=frozenset({'backing_depth'})))['a'].monitor.disks
    assert (disk.backing_depth, disk.read_requests) == (2, 3)
    guest.record = fakes.record()
    assert read(make())['a'].monitor.disks[0].backing_depth is None


PF, VF = '0000:81:00.0', '0000:81:00.2'
SRIOV_PORT = (
    '<interface type="hostdev" managed="yes"><mac address="fa:16:3e:00:00:02"/><source>'
    '<address type="pci" domain="0x0000" bus="0x81" slot="0x00" function="0x2"/></source>'
    '</interface></devices>'
)


@pytest.fixture
def hardware(host, monkeypatch, tmp_path):
    """A host with a virtual function that the guest ``a`` owns."""
    hardware = sriov.Host(tmp_path)
    hardware.add(PF, VF).functions[0] = sriov.counters(rx_bytes=5)
    monkeypatch.setattr(
        virtual_functions,
        'VirtualFunctionReader',
        functools.partial(
            virtual_functions.VirtualFunctionReader, root=hardware.root, ask=hardware.ask
        ),
    )
    guest = host.add('a')
    guest.xml = fakes.xml(guest).replace('</devices>', SRIOV_PORT)
    return hardware


def test_virtual_functions_are_read_only_when_they_are_wanted(host, make, hardware):
    assert read(make())['a'].virtual_functions == ()
    assert hardware.asked == []
    [port] = read(make(optional=frozenset({'vf_counters'})))['a'].virtual_functions
    assert (port.device.name, port.rx_bytes, port.tx_bytes) == (VF, 5, 0)
    assert hardware.asked == [5]


def test_virtual_function_that_cannot_be_read_costs_only_itself(host, make, hardware):
    def fail():
        raise ZeroDivisionError

    source = make(optional=frozenset({'vf_counters'}))
    read(source)
    hardware.script = fail
    instance = read(source)['a']
    assert instance.virtual_functions == ()
    assert instance.is_complete


def test_virtual_functions_of_a_wedged_guest_go_on(host, make, hardware):
    source = make(monitor_timeout=SHORT, optional=frozenset({'vf_counters'}))
    read(source)
    hardware.devices[5].functions[0] = sriov.counters(rx_bytes=6)
    next(iter(host.guests.values())).wedge()
    instance = read(source)['a']
    assert not instance.is_complete
    assert [port.rx_bytes for port in instance.virtual_functions] == [6]


def test_times_of_vcpus_go_on_when_one_is_unplugged(host, make):
    guest = host.add('a', record=fakes.record(**fakes.vcpu(100, 50)))
    source = make()
    sums = []
    for times in ((100, 50), (110, None), (120, 5), (130, 60)):
        guest.record = fakes.record(**fakes.vcpu(*times))
        vcpus = read(source)['a'].monitor.vcpus
        sums.append(sum(vcpu.time_ns for vcpu in vcpus))
        assert [bool(vcpu.state) for vcpu in vcpus] == [t is not None for t in times]
    # 100 + 50, 110 + 50, 120 + 50 + 5, 130 + 50 + 60
    assert sums == [150, 160, 175, 240]
    host.restart_guest(guest)
    assert [vcpu.time_ns for vcpu in read(source)['a'].monitor.vcpus] == [130, 60]


def test_an_expired_definition_does_not_reset_the_times_of_vcpus(host, make):
    guest = host.add('a', record=fakes.record(**fakes.vcpu(100, 50)))
    source = make(expiration=0.0)
    read(source)
    guest.record = fakes.record(**fakes.vcpu(110, None))
    assert sum(v.time_ns for v in read(source)['a'].monitor.vcpus) == 160


def counted(source):
    """Return the sum of an instance's vCPUs, in seconds."""
    return sum(vcpu.time_ns for vcpu in read(source)['a'].monitor.vcpus) / 10**9


@pytest.fixture
def unplugged(host):
    """Return a guest, and what takes its second vCPU away."""
    guest = host.add('a', cpu_time_ns=300 * 10**9)
    guest.record = fakes.record(**fakes.vcpu(100 * 10**9, 90 * 10**9))

    def unplug():
        guest.record = fakes.record(**fakes.vcpu(101 * 10**9, None))

    return guest, unplug


def test_a_new_start_knows_what_unplugged_vcpus_used(make, unplugged, tmp_path):
    """Ours, or that of an oie-pollster while no daemon runs."""
    _, unplug = unplugged
    path = str(tmp_path / 'suspects.json')
    source = make(suspects_path=path)
    assert counted(source) == 100 + 90
    unplug()
    assert counted(source) == 101 + 90
    # Killed: there was no time to close anything.
    assert counted(make(suspects_path=path)) == 101 + 90
    assert counted(make(suspects_path=path, remembers=False)) == 101 + 90


def test_a_vcpu_that_is_unplugged_while_we_do_not_run_is_known_too(make, unplugged, tmp_path):
    _, unplug = unplugged
    path = str(tmp_path / 'suspects.json')
    source = make(suspects_path=path)
    read(source)
    source.close()
    unplug()
    assert counted(make(suspects_path=path, remembers=False)) == 101 + 90
    assert counted(make(suspects_path=path)) == 101 + 90


def test_another_qemu_does_not_inherit_what_unplugged_vcpus_used(host, make, unplugged, tmp_path):
    guest, unplug = unplugged
    path = str(tmp_path / 'suspects.json')
    source = make(suspects_path=path)
    read(source)
    unplug()
    read(source)
    host.restart_guest(guest)
    assert counted(make(suspects_path=path, remembers=False)) == 101


def test_the_number_of_an_earlier_qemu_is_seen_through(make, unplugged, tmp_path):
    """A host that starts again counts its domains from 1 again."""
    guest, unplug = unplugged
    path = str(tmp_path / 'suspects.json')
    source = make(suspects_path=path)
    read(source)
    unplug()
    read(source)
    guest.cpu_time_ns = 5 * 10**9
    guest.record = fakes.record(**fakes.vcpu(3 * 10**9))
    assert counted(make(suspects_path=path)) == 3


def test_who_runs_beside_the_daemon_writes_nothing(make, unplugged, tmp_path):
    _, unplug = unplugged
    source = make(suspects_path=str(tmp_path / 'suspects.json'), remembers=False)
    read(source)
    unplug()
    read(source)
    source.close()
    assert list(tmp_path.iterdir()) == []


# --- jobs, disk errors, events ------------------------------------------------

JOB = {'type': 2, 'operation': 5, 'memory_total': 1000}


def test_a_job_is_read_while_the_monitor_shows_one(host, make):
    guest = host.add('a', control=[1, 0, 100], job=JOB)
    source = make()
    assert read(source)['a'].job.memory_total_bytes == 1000
    guest.control = None
    guest.job = {'type': 0}
    assert read(source)['a'].job is None


def test_a_migration_is_read_from_its_first_round_to_its_end(host, make):
    """Nothing but the event tells of it: control info shows no job in between."""
    guest = host.add('a', job=JOB)
    source = make()
    assert read(source)['a'].job is None
    emit(host, MIGRATION_ITERATION, guest, 1)
    for _ in range(2):
        assert read(source)['a'].job.operation == 5
    guest.job = {'type': 0}
    for _ in range(2):
        assert read(source)['a'].job is None
    assert host.count('jobStats') == 3


def test_without_a_sign_of_a_job_nobody_is_asked_for_one(host, make):
    """Asking enters the monitor, without NOWAIT."""
    host.add('a', job=JOB)
    read(make())
    assert host.count('jobStats') == 0


def test_a_job_that_cannot_be_read_costs_only_itself(host, make, said):
    guest = host.add('a', control=[1, 0, 100], scripts={'jobStats': fakes.Error(84, 'no')})
    source = make()
    for _ in range(2):
        instance = read(source)['a']
        assert (instance.job, instance.is_complete) == (None, True)
    assert said(guest.uuid) == [f'{guest.uuid}: details not read: no']


def test_a_job_that_does_not_answer_opens_the_breaker(host, make):
    host.add('a')
    guest = host.add('b', control=[1, 0, 100])
    guest.scripts['jobStats'] = host.gate()
    source = make(monitor_timeout=SHORT)
    for _ in range(2):
        instances = read(source)
        assert instances['a'].is_complete
    assert host.count('jobStats') == 1
    assert source.hypervisor().suspects == 1
    assert source.hypervisor().calls['details'].timeouts == 1


def test_details_leave_a_call_for_the_listing(host, make):
    """Many guests that get stuck one by one must not cost tier one of all."""
    for n in range(6):
        host.add(f'guest-{n}', control=[1, 0, 100], scripts={'jobStats': host.gate()})
    source = make(monitor_timeout=SHORT)
    for _ in range(3):
        assert all(instance.is_fresh for instance in read(source).values())
    assert source.hypervisor().stuck_calls == 3
    assert host.most_in_flight <= 4


def test_details_of_many_slow_guests_end_with_the_time_of_a_cycle(host, make):
    for n in range(20):
        slow = {'jobStats': lambda: threading.Event().wait(0.05)}
        host.add(f'guest-{n}', control=[1, 0, 100], scripts=slow)
    source = make(timeout=SHORT)
    source.read()
    assert 1 <= host.count('jobStats') < 20
    assert source.hypervisor().domain_errors['suspended'] >= 1


def test_a_finished_job_comes_by_event(host, make):
    guest = host.add('a')
    source = make()
    assert read(source)['a'].last_job is None
    emit(host, JOB_COMPLETED, guest, {'operation': 9, 'time_elapsed': 5, 'success': False})
    assert read(source)['a'].last_job == model.Job(
        type=4, operation=9, elapsed_ms=5, succeeded=False
    )


def test_a_finished_job_is_known_at_first_sight_and_not_taken_away(host, make):
    """The fake refuses COMPLETED without KEEP_COMPLETED."""
    host.add('a', completed_job={'type': 3, 'operation': 5, 'downtime': 63})
    source = make()
    for _ in range(2):
        assert read(source)['a'].last_job == model.Job(type=3, operation=5, downtime_ms=63)
    assert host.count('completedJobStats') == 1


def test_without_a_last_job_nothing_is_said_of_one(host, make, said):
    host.add('a', scripts={'completedJobStats': fakes.Error(fakes.NO_SUPPORT)})
    instance = read(make())['a']
    assert (instance.last_job, instance.is_complete) == (None, True)
    assert said() == []


def test_the_last_job_stays_while_another_one_runs(host, make):
    """libvirt gives no completed job then."""
    guest = host.add('a', completed_job={'type': 3, 'operation': 5})
    source = make(expiration=0.0)
    read(source)
    guest.completed_job = {'type': 0}
    assert read(source)['a'].last_job.operation == 5


def test_events_of_domains_that_are_not_here_are_ignored(host, make):
    guest = host.add('a')
    source = make()
    read(source)
    host.remove(guest)
    emit(host, JOB_COMPLETED, guest, {'operation': 9})
    emit(host, MIGRATION_ITERATION, guest, 1)
    emit(host, DEVICE_ADDED, guest, 'x')
    assert read(source) == {}


def test_disk_errors_are_read_only_while_paused_for_one(host, make):
    guest = host.add('a', disk_errors={'vda': 2})
    source = make()
    assert read(source)['a'].disk_errors == {}
    guest.state = PAUSED_BY_USER
    assert read(source)['a'].disk_errors == {}
    assert host.count('diskErrors') == 0
    guest.state = PAUSED_IO_ERROR
    assert read(source)['a'].disk_errors == {'vda': 2}
    guest.state = RUNNING
    assert read(source)['a'].disk_errors == {}


def test_block_jobs_are_read_only_when_they_are_wanted(host, make):
    job = {'type': 2, 'bandwidth': 0, 'cur': 10, 'end': 20}
    host.add('a', disks=['vda', 'vdb'], block_jobs={'vdb': job})
    assert read(make())['a'].block_jobs == {}
    wanted = read(make(optional=frozenset({'block_jobs'})))['a'].block_jobs
    assert wanted == {'vdb': model.BlockJob(type=2, done_bytes=10, end_bytes=20)}


def test_life_cycle_events_are_counted_when_they_are_wanted(host, make):
    guest = host.add('a')
    wanted, unwanted = make(optional=frozenset({'lifecycle_events'})), make()
    for source in (wanted, unwanted):
        assert read(source)['a'].lifecycle_events == {}
    for event, detail in ((3, 0), (4, 0), (3, 0)):
        emit(host, LIFECYCLE, guest, event, detail)
    expected = {('suspended', 'paused'): 2, ('resumed', 'unpaused'): 1}
    for _ in range(2):
        assert read(wanted)['a'].lifecycle_events == expected
    assert read(unwanted)['a'].lifecycle_events == {}


def test_life_cycle_events_of_a_guest_count_over_its_stop_and_start(host, make):
    host.add('a')
    source = make(optional=frozenset({'lifecycle_events'}))
    read(source)
    guest = host.add('b')
    emit(host, LIFECYCLE, guest, 2, 0)
    assert read(source)['b'].lifecycle_events == {('started', 'booted'): 1}
    host.remove(guest)
    emit(host, LIFECYCLE, guest, 5, 0)
    assert read(source).keys() == {'a'}
    host.guests[guest.uuid] = guest
    emit(host, LIFECYCLE, guest, 2, 0)
    expected = {('started', 'booted'): 2, ('stopped', 'shutdown'): 1}
    assert read(source)['b'].lifecycle_events == expected


# --- the daemon ---------------------------------------------------------------


def test_no_daemon_is_an_error_not_an_empty_host(host, make):
    host.scripts['open'] = fakes.Error(fakes.SYSTEM_ERROR, 'Failed to connect socket')
    source = make()
    reading = source.read()
    assert 'Failed to connect socket' in reading.error
    assert (reading.value, reading.read_at) == ((), None)
    assert not source.hypervisor().is_connected


def test_a_failed_listing_keeps_all_as_not_fresh_with_the_error(host, make):
    for name in 'ab':
        host.add(name)
    source = make()
    before = source.read()
    host.scripts['listAllDomains'] = fakes.Error(fakes.OPERATION_FAILED, 'no')
    after = source.read()
    assert after.error == 'cannot list the domains: no'
    assert by_name(after).keys() == {'a', 'b'}
    assert not any(i.is_fresh or i.is_complete for i in after.value)
    assert after.read_at == before.read_at
    assert [i.read_at for i in after.value] == [i.read_at for i in before.value]
    assert source.hypervisor().is_connected
    host.scripts.clear()
    assert all(i.is_complete for i in source.read().value)


def test_a_restart_of_the_daemon_costs_one_cycle_at_most(host, make):
    host.add('a')
    source = make()
    read(source)
    host.restart()
    assert not source.hypervisor().is_connected
    instance = read(source)['a']
    assert instance.is_complete
    assert source.hypervisor().reconnects == 1
    assert len(host.connections) == 2
    # The callbacks of the dead one are undone, else it would stay for ever.
    wait_until(lambda: not host.connections[0].callbacks)
    assert host.connections[0].on_close is None
    assert len(host.connections[1].callbacks) == 9


def test_a_connection_that_dies_silently_is_noticed_by_its_errors(host, make):
    host.add('a')
    source = make()
    read(source)
    host.connections[0].is_alive = False
    reading = source.read()
    assert 'client socket is closed' in reading.error
    assert not reading.value[0].is_fresh
    assert read(source)['a'].is_complete
    assert len(host.connections) == 2


@pytest.mark.parametrize('spoilt', [False, True], ids=['all', 'one by one'])
def test_a_connection_that_dies_amid_the_bulk_call_is_replaced(host, make, spoilt):
    guest = host.add('a')
    source = make()
    read(source)
    answers = [fakes.Error(fakes.OPERATION_FAILED)] * spoilt

    def die():
        if answers:
            raise answers.pop()
        host.restart()

    guest.scripts['safeStatistics'] = die
    reading = source.read()
    assert 'client socket is closed' in reading.error
    assert not reading.value[0].is_fresh
    guest.scripts.clear()
    assert read(source)['a'].is_complete


def test_a_connection_that_dies_amid_the_listing_is_replaced(host, make):
    guest = host.add('a')
    source = make()
    read(source)
    guest.scripts['info'] = host.restart
    assert 'client socket is closed' in source.read().error
    guest.scripts.clear()
    assert read(source)['a'].is_complete


def test_what_changed_while_nobody_listened_is_read_again(host, make):
    guest = host.add('a')
    source = make()
    read(source)
    host.restart()
    guest.disks.append('vdb')
    assert [disk.target for disk in read(source)['a'].definition.disks] == ['vda', 'vdb']


def test_events_come_once_also_after_a_reconnect(host, make):
    guest = host.add('a')
    source = make(monitor_timeout=SHORT, optional=frozenset({'lifecycle_events'}))
    read(source)
    guest.wedge()
    read(source)  # opens the rescue connection too
    guest.resume()
    wait_until(lambda: source.hypervisor().stuck_calls == 0)
    host.restart()
    read(source)
    emit(host, LIFECYCLE, guest, 3, 0)
    assert read(source)['a'].lifecycle_events == {('suspended', 'paused'): 1}


def test_a_hanging_listing_is_bounded_and_not_made_twice(host, make, said):
    host.add('a')
    source = make(timeout=SHORT)
    read(source)
    listed_at = source.hypervisor().listed_at
    gate = host.gate()
    host.scripts['listAllDomains'] = gate
    for _ in range(5):
        reading = source.read()
        assert 'others may be missing' in reading.error
        assert by_name(reading)['a'].is_complete
        assert reading.read_at >= reading.value[0].read_at > listed_at
    hypervisor = source.hypervisor()
    assert (hypervisor.stuck_calls, hypervisor.suspects) == (1, 0)
    assert hypervisor.calls['list'].timeouts == 1
    assert hypervisor.listed_at == listed_at
    assert len(said('libvirt')) == 1
    gate.release()
    host.scripts.clear()
    wait_until(lambda: not source.read().error)
    assert said('libvirt')[-1] == 'libvirt: not listed: over'
    assert source.hypervisor().listed_at > listed_at


def test_a_listing_that_hangs_before_anything_is_known_is_no_empty_host(host, make):
    host.add('a')
    host.scripts['listAllDomains'] = host.gate()
    source = make(timeout=SHORT)
    for _ in range(3):
        reading = source.read()
        assert reading.error == 'libvirt has not answered the last listing of domains'
        assert (reading.value, reading.read_at) == ((), None)
    assert source.hypervisor().stuck_calls == 1


def test_a_reading_nobody_waits_for_any_more_asks_no_further(host, make):
    first, *others = [host.add(f'guest-{n}') for n in range(5)]
    source = make(timeout=SHORT)
    gate = first.scripts['info'] = host.gate()
    assert read(source).keys() == {guest.name for guest in others}
    gate.release()
    wait_until(lambda: source.hypervisor().stuck_calls == 0)
    assert host.count('info') == 1 + len(others)
    assert host.count('safeStatistics') == 1


def test_a_hanging_open_is_bounded_and_not_made_twice(host, make):
    gate = host.gate()
    host.scripts['open'] = gate
    source = make(timeout=SHORT)
    for _ in range(3):
        assert 'is the daemon stopped or overloaded?' in source.read().error
    assert host.count('open') == 1
    assert source.hypervisor().stuck_calls == 1
    gate.release()
    wait_until(lambda: not source.read().error)
    assert len(host.connections) == 1


def test_at_most_two_connections_are_ever_open(host, make):
    guests = [host.add(f'guest-{n}') for n in range(6)]
    source = make(monitor_timeout=SHORT, chunk_size=1)
    for guest in guests[:4]:
        guest.wedge()
        source.read()
    assert len(host.connections) == 2


def test_the_connection_with_fewer_stuck_calls_is_worked_on(host, make):
    host.add('a')
    guest = host.add('b')
    guest.wedge()
    source = make(monitor_timeout=SHORT)
    for _ in range(2):
        read(source)
    main, rescue = host.connections
    worked_on = []
    host.scripts['listAllDomains'] = lambda: worked_on.append(1)
    assert source._daemon.pick()[0]._handle is rescue
    assert main.callbacks
    assert not rescue.callbacks


@pytest.mark.parametrize('call', ['open', 'setKeepAlive', 'getType', 'listAllDomains'])
@pytest.mark.parametrize(
    'odd', [UnicodeDecodeError('utf-8', b'\xff', 0, 1, 'odd'), KeyError('odd'), RuntimeError('')]
)
def test_an_odd_exception_of_the_daemon_is_a_failed_reading(host, make, monkeypatch, call, odd):
    monkeypatch.setattr(libvirt_connection, 'FIRST_DELAY', 0.0)
    host.add('a')
    host.scripts[call] = odd
    source = make()
    reading = source.read()
    assert reading.error
    assert reading.value == ()
    host.scripts.clear()
    wait_until(lambda: not source.read().error)


def test_an_alive_check_that_fails_is_no_second_failure(host, make, monkeypatch):
    source = make()
    read(source)
    host.scripts['listAllDomains'] = fakes.Error(fakes.OPERATION_FAILED, 'no')

    def fail(_self):
        raise fakes.Error(fakes.INTERNAL_ERROR)

    monkeypatch.setattr(fakes.Connection, 'isAlive', fail)
    assert source.read().error == 'cannot list the domains: no'
    host.scripts.clear()
    assert read(source) == {}


def test_missing_bindings_are_a_failed_reading(host, make, monkeypatch):
    monkeypatch.setitem(sys.modules, 'libvirt', None)
    assert 'install libvirt-python' in make().read().error


def test_a_lasting_failure_of_the_daemon_is_logged_once(host, make, said):
    host.scripts['open'] = fakes.Error(fakes.SYSTEM_ERROR, 'refused')
    source = make()
    for _ in range(5):
        source.read()
    assert len(said('libvirt: not read')) == 1


CALLS = (
    *('open', 'setKeepAlive', 'getType', 'registerCloseCallback', 'domainEventRegisterAny'),
    *('getLibVersion', 'listAllDomains', 'safeStatistics', 'statistics'),
)
GUEST_CALLS = (
    *('info', 'controlInfo', 'XMLDesc', 'jobStats', 'completedJobStats', 'diskErrors'),
    *('blockJobInfo', 'statistics', 'safeStatistics'),
)
errors = strategies.one_of(
    strategies.builds(
        fakes.Error,
        strategies.sampled_from([1, 3, 9, 29, 38, 39, 42, 55, 68, 84]),
        strategies.text(max_size=8),
        strategies.sampled_from([fakes.FROM_QEMU, fakes.FROM_RPC, fakes.FROM_REMOTE]),
    ),
    strategies.sampled_from([ValueError('x'), KeyError('x'), RuntimeError(''), TypeError()]),
    strategies.just(UnicodeDecodeError('utf-8', b'\xff', 0, 1, 'x')),
)


@hypothesis.settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
    strategies.dictionaries(strategies.sampled_from(CALLS), errors, max_size=2),
    strategies.dictionaries(strategies.sampled_from(GUEST_CALLS), errors, max_size=3),
    strategies.booleans(),
)
def test_read_never_raises_and_always_recovers(
    host, make, monkeypatch, of_daemon, of_guest, is_known
):
    host.guests.clear()
    host.scripts = {}
    monkeypatch.setattr(libvirt_connection, 'FIRST_DELAY', 0.0)
    host.add('healthy')
    guest = host.add('b', control=[1, 0, 100], state=PAUSED_IO_ERROR, job=JOB)
    source = make(optional=frozenset({'block_jobs', 'lifecycle_events'}))
    if is_known:
        read(source)
    host.scripts, guest.scripts = dict(of_daemon), dict(of_guest)
    for _ in range(2):
        instances = by_name(source.read())
        source.hypervisor()
        assert not is_known or 'healthy' in instances
        if not of_daemon and not _breaks_the_connection(of_guest):
            assert instances['healthy'].is_complete
    host.scripts, guest.scripts = {}, {}
    for _ in range(3):
        reading = source.read()
        if not reading.error:
            break
    assert {name: i.is_complete for name, i in by_name(reading).items()} == {
        'healthy': True,
        'b': True,
    }


def _breaks_the_connection(errors):
    """Whether one of these errors says that the connection is gone."""
    return any(
        isinstance(error, fakes.Error) and error.get_error_domain() != fakes.FROM_QEMU
        for error in errors.values()
    )


def test_closed_means_let_go_of_connections_and_threads(host, make):
    host.add('a')
    guest = host.add('b')
    guest.wedge()
    source = make(monitor_timeout=SHORT)
    read(source)
    begun = time.monotonic()
    source.close()
    assert time.monotonic() - begun < LONG
    wait_until(lambda: not any(c.callbacks or c.on_close for c in host.connections))
    assert source.read().error
    guest.resume()
    wait_until(lambda: source.hypervisor().stuck_calls == 0)


def test_numbers_of_a_state_nobody_knows_are_told_as_numbers(host, make):
    host.add('a', state=(42, 0))
    source = make()
    assert read(source)['a'].state == 42
    assert source.hypervisor().domains_by_state == {'42': 1}


def test_two_sources_in_one_process_do_not_disturb_each_other(host, make):
    host.add('a')
    sources = [make() for _ in range(2)]
    for source, _ in itertools.product(sources, range(2)):
        assert read(source)['a'].is_complete
