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


"""The lists that Ceilometer polls: uniform, plain, and never an invented number."""

import dataclasses
import hashlib
import json
import math
import re

import hypothesis
from hypothesis import strategies as st
import pytest

from oie import exceptions
from oie import model
from oie.cmd import wiring
from oie.outputs import ceilometer
from tests import builders

POLLSTERS = wiring.pollsters()
BY_NAME = pytest.mark.parametrize('name', POLLSTERS)
OF_INSTANCES = [name for name, each in POLLSTERS.items() if 'instances' in each.needs]
OF_INSTANCE = pytest.mark.parametrize('name', OF_INSTANCES)
# A table is known as a whole or not at all: of flows no single value is missing.
OF_LIBVIRT = pytest.mark.parametrize(
    'name', [name for name in OF_INSTANCES if 'flows' not in POLLSTERS[name].needs]
)

# Ceilometer's own meters, and those its Gnocchi resource types declare: a second source of
# one of them makes the two replace each other, or the polling task fail.
BUILT_IN = """
cpu vcpus memory memory.usage memory.available memory.resident memory.swap.in memory.swap.out
power.state disk.root.size disk.ephemeral.size disk.device.read.bytes disk.device.write.bytes
disk.device.read.requests disk.device.write.requests disk.device.read.latency
disk.device.write.latency disk.device.capacity disk.device.allocation disk.device.usage
network.incoming.bytes network.outgoing.bytes network.incoming.packets network.outgoing.packets
network.incoming.bytes.rate network.outgoing.bytes.rate network.incoming.bytes.delta
network.outgoing.bytes.delta network.incoming.packets.drop network.outgoing.packets.drop
network.incoming.packets.error network.outgoing.packets.error perf.cpu.cycles perf.instructions
perf.cache.references perf.cache.misses disk.latency disk.iops disk.capacity disk.allocation
disk.usage compute.instance.booting.time bandwidth ip.floating
""".split()
BUILT_IN_PREFIXES = (
    *('compute.node.', 'volume.', 'image.', 'hardware.', 'storage.', 'radosgw.', 'manila.'),
    # Our own: these become labels that Prometheus itself sets.
    *('loadbalancer.', 'dns.', 'instance.', 'job.'),
)
# Keys that the agent overwrites, or that mean something else in the built-in samples.
TAKEN_KEYS = {'value', 'metadata', 'id', 'os_type'}

# Everything Python can hold, lone surrogates and NUL too.
names = st.text(
    alphabet=st.one_of(st.characters(), st.sampled_from('\n\0"\\\u2028\ud800\udfff')), max_size=300
)


def entries(name, *instances, **more):
    """Return what a pollster prints of these instances, read as Ceilometer reads it."""
    more.setdefault('flows', builders.flows_of(*instances))
    more.setdefault('threats', builders.threats())
    printed = POLLSTERS[name].render(builders.snapshot(*instances, **more))
    assert printed.isascii()
    return json.loads(printed, parse_constant=lambda text: pytest.fail(f'{text} is no number'))


def one(name, *instances):
    [entry] = entries(name, *instances)
    return entry


def full():
    return builders.node().instances.value


# --- the document -----------------------------------------------------------


@BY_NAME
def test_an_empty_host_is_an_empty_list(name):
    snapshot = builders.snapshot(flows=builders.flows(), threats=builders.threats())
    assert POLLSTERS[name].render(snapshot) == b'[]\n'


@BY_NAME
def test_it_is_one_line_an_entry_and_ends_its_line(name):
    printed = POLLSTERS[name].render(builders.node())
    assert printed.endswith(b'}]\n')
    assert printed.count(b'\n') == len(json.loads(printed))


@OF_INSTANCE
def test_all_entries_have_the_same_keys_also_of_instances_that_are_silent(name):
    silent = builders.silent(
        builders.definition(uuid='9d2a1b4f-0000-4000-8000-000000000009', domain='mute')
    )
    found = entries(name, *full(), silent, builders.instance(monitor=None, interfaces=()))
    assert len(found) > 3
    assert len({tuple(entry) for entry in found}) == 1
    pollster = POLLSTERS[name]
    fields = {meter.field for meter, _ in pollster.columns} | set(pollster.groups())
    assert {'resource_id', 'project_id', 'user_id', *pollster.metadata} | fields == set(found[0])


@OF_LIBVIRT
def test_what_could_not_be_read_is_null_never_zero(name):
    entry = one(name, builders.silent())
    values = {meter.field: entry[meter.field] for meter, _ in POLLSTERS[name].columns}
    # libvirt tells the state with the listing itself, Nova the vCPUs of the flavor.
    known = {'state_code', 'vcpus'}
    assert {field for field, value in values.items() if value is not None} <= known


@OF_LIBVIRT
def test_a_monitor_that_never_answered_leaves_nulls(name):
    entry = one(name, builders.instance(monitor=None, interfaces=()))
    values = {meter.field: entry[meter.field] for meter, _ in POLLSTERS[name].columns}
    known = {'instances': {'cpu_total', 'vcpus_online', 'state_code'}, 'os': {'vcpus'}}
    assert {field for field, value in values.items() if value is not None} == known.get(
        name, set()
    )


@pytest.mark.parametrize(
    ('error', 'reason'),
    [
        ('the kernel refuses the table: EPERM', 'the kernel refuses the table: EPERM'),
        ('', r'switched off by \[conntrack\] enabled'),
    ],
)
@pytest.mark.parametrize('name', ['flows', 'contacts'])
def test_a_table_that_is_not_known_is_refused_never_an_empty_list(name, error, reason):
    unread = builders.flows(value=None, read_at=None, error=error)
    with pytest.raises(exceptions.PollsterError, match=reason):
        entries(name, builders.instance(), flows=unread)


@pytest.mark.parametrize('threats', [None, builders.threats(lists=())], ids=['nobody', 'no list'])
def test_without_lists_there_are_no_contacts_to_tell_of(threats):
    assert entries('contacts', builders.instance(), threats=threats) == []


@pytest.mark.parametrize('name', ['flows', 'contacts'])
def test_the_last_table_is_shown_while_a_new_one_cannot_be_read(name):
    instance = builders.instance()
    stale = dataclasses.replace(builders.flows_of(instance), error='only 1 of 500 entries came')
    assert len(entries(name, instance, flows=stale)) == 1


def test_flows_and_contacts_of_an_instance_that_left_meanwhile_are_left_out():
    assert entries('flows', flows=builders.flows_of(builders.instance())) == []
    assert entries('contacts', threats=builders.threats(builders.contacts())) == []


def test_zeros_are_carried_billing_knows_no_suppression():
    idle = builders.idle()
    assert one('disks', idle)['read_bytes'] == 0
    assert one('vnics', idle)['incoming_bytes'] == 0
    nothing = model.FlowDirection()
    quiet = builders.address_flows(entries=0, outbound=nothing, inbound=nothing, is_active=False)
    [entry] = entries('flows', builders.instance(), flows=builders.flows(quiet))
    assert {entry[meter.field] for meter, _ in POLLSTERS['flows'].columns} == {0}


@OF_INSTANCE
def test_entries_are_flat_but_for_the_lists_of_meters_and_their_keys_are_free(name):
    lists = POLLSTERS[name].groups()
    for entry in entries(name, *full()):
        assert not TAKEN_KEYS & set(entry)
        for key, value in entry.items():
            if key not in lists:
                assert value is None or isinstance(value, (str, int, float)), key
                assert not isinstance(value, bool), key


@OF_INSTANCE
def test_lists_name_every_meter_once_and_repeat_the_values(name):
    pollster = POLLSTERS[name]
    fields = {meter.ceilometer: meter.field for meter, _ in pollster.columns}
    for entry in entries(name, *full(), builders.silent()):
        found = {}
        for key in pollster.groups():
            for each in entry[key]:
                assert set(each) == {key, 'value'}
                found[f'oie.{each[key]}'] = each['value']
        assert found == {meter: entry[field] for meter, field in fields.items()}


@OF_INSTANCE
def test_ids_and_required_attributes_are_texts_in_every_entry(name):
    for entry in entries(name, *full(), builders.silent()):
        for key in ('resource_id', 'display_name', 'flavor_id', 'flavor_name', 'instance_host'):
            assert isinstance(entry[key], str), key
            assert entry[key], key
        assert isinstance(entry['project_id'], str)
        assert isinstance(entry['user_id'], str)


@OF_INSTANCE
@hypothesis.given(data=st.data())
def test_no_name_breaks_the_list(name, data):
    chosen = data.draw(st.lists(names, min_size=9, max_size=9))
    of = builders.definition(
        domain=chosen[0],
        name=chosen[1],
        project_uuid=chosen[2],
        user_uuid=chosen[3],
        flavor=builders.flavor(name=chosen[4], id=chosen[5]),
        disks=(
            builders.disk(tier=chosen[6], uuid=chosen[7], source=chosen[8], serial=chosen[0]),
            builders.disk(target='vdb'),
        ),
        interfaces=(
            builders.interface(port_uuid=chosen[1], mac=chosen[2], model=chosen[3]),
            builders.interface(target='tap22222222-22'),
        ),
    )
    found = entries(name, builders.instance(of), hostname=chosen[4])
    for entry in found:
        for key, value in entry.items():
            if isinstance(value, str):
                assert len(value) <= 255, key
                assert '\0' not in value, key
                value.encode('utf-8')  # databases and message queues take no lone surrogates
    resource_ids = [entry['resource_id'] for entry in found]
    assert len(set(resource_ids)) == len(resource_ids)


def test_64_kib_of_a_name_do_not_hide_which_interface_it_is():
    of = builders.definition(
        domain='x' * 2**16,
        interfaces=(builders.interface(), builders.interface(target='tap22222222-22')),
    )
    first, second = entries('vnics', builders.instance(of))
    assert first['resource_id'].endswith(f'-{builders.UUID}-tap11111111-11')
    assert second['resource_id'].endswith(f'-{builders.UUID}-tap22222222-22')
    assert len(first['resource_id']) == 255


@hypothesis.given(st.integers(min_value=0, max_value=2**64))
def test_counters_are_exact(value):
    of = builders.definition()
    counted = builders.interface_statistics(of.interfaces[0], rx_bytes=value)
    assert one('vnics', builders.instance(of, interfaces=(counted,)))['incoming_bytes'] == value


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.lists(st.integers()),
    st.dictionaries(st.text(), st.integers()),
    st.decimals(),
    st.fractions(),
)


@BY_NAME
@hypothesis.settings(max_examples=25)
@hypothesis.given(data=st.data())
def test_whatever_a_column_gives_the_list_has_finite_numbers_or_null(name, data):
    """A list or an object would stay in the queue of Ceilometer's notification agent for ever."""
    pollster = POLLSTERS[name]
    columns = tuple((meter, lambda _: data.draw(ANYTHING)) for meter, _ in pollster.columns)
    patched = dataclasses.replace(pollster, columns=columns)
    for entry in json.loads(patched.render(builders.node()), parse_constant=pytest.fail):
        values = [entry[meter.field] for meter, _ in columns]
        values += [each['value'] for key in pollster.groups() for each in entry[key]]
        for value in values:
            assert value is None or type(value) in (int, float)
            assert value is None or math.isfinite(value)


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf, '3', [3], {}])
def test_what_is_no_number_costs_its_own_sample_and_no_other(value):
    instance = dataclasses.replace(builders.instance(), cpu_time_ns=value)
    entry = one('instances', instance)
    assert entry['cpu_total'] is None
    assert entry['cpu'] == 2 * 10_000_000_000


def test_a_truth_value_is_a_number():
    columns = tuple((meter, lambda _: True) for meter, _ in POLLSTERS['instances'].columns)
    pollster = dataclasses.replace(POLLSTERS['instances'], columns=columns)
    [entry] = json.loads(pollster.render(builders.snapshot(builders.instance())))
    assert [type(entry[meter.field]) for meter, _ in columns] == [int] * len(columns)


# --- the fields Ceilometer knows --------------------------------------------


def test_an_instance_has_the_identity_of_the_built_in_samples():
    entry = one('instances', builders.instance())
    host_id = hashlib.sha224((builders.PROJECT + builders.HOST).encode()).hexdigest()
    expected = {
        'resource_id': builders.UUID,
        'project_id': builders.PROJECT,
        'user_id': builders.USER,
        'display_name': 'web-1',
        'name': 'instance-0000002a',
        'instance_id': builders.UUID,
        'instance_host': builders.HOST,
        'host': host_id,
        'flavor_id': '42',
        'flavor_name': 'm1.medium',
        'instance_type': 'm1.medium',
        'image_ref': 'b6a9d2e4-0000-4000-8000-0000000000aa',
        'status': 'active',
        'state': 'running',
        'architecture': 'x86_64',
        'root_type': 'image',
        'vcpus': 2,
        'memory_mb': 4096,
        'disk_gb': 40 + 2,
        'root_gb': 40,
        'ephemeral_gb': 2,
    }
    assert {key: entry[key] for key in expected} == expected


def test_values_are_in_the_units_of_the_built_in_meters():
    entry = one('instances', builders.instance())
    values = {meter.field: entry[meter.field] for meter, _ in POLLSTERS['instances'].columns}
    assert values == {
        'cpu_total': 25_000_000_000,
        'vcpus_online': 2,
        'state_code': 1,
        'cpu': 2 * 10_000_000_000,
        'cpu_steal': 2 * 1_000_000_000,
        'memory': 4096,
        'memory_resident': 3000,
        'memory_available': 3900,
        'memory_usage': 3900 - 2900,
        'memory_swap_in': 3,
        'memory_swap_out': 4,
    }


def test_a_disk_is_instance_and_target():
    entry = one('disks', builders.instance())
    assert entry['resource_id'] == f'{builders.UUID}-vda'
    assert (entry['disk_name'], entry['disk_type']) == ('vda', 'vms')
    assert (entry['read_bytes'], entry['write_requests']) == (3 * builders.GIB, 401)
    assert (entry['read_latency'], entry['usage']) == (3_020_000_000, 10 * builders.GIB)


def test_an_interface_is_domain_instance_and_device():
    entry = one('vnics', builders.instance())
    assert entry['resource_id'] == f'instance-0000002a-{builders.UUID}-tap11111111-11'
    assert entry['port_id'] == '11111111-1111-4111-8111-111111111111'
    assert (entry['incoming_bytes'], entry['outgoing_packets']) == (5 * builders.GIB, 6001)


def test_a_passed_through_interface_is_listed_without_values():
    of = builders.definition(interfaces=(builders.virtual_function(),))
    entry = one('vnics', builders.instance(of))
    assert entry['vnic_name'] == '0000:81:00.2'
    assert {entry[meter.field] for meter, _ in POLLSTERS['vnics'].columns} == {None}


def test_a_fixed_ip_is_instance_and_address():
    of = builders.definition(
        addresses=(builders.address(), builders.address(ip='2001:db8::5', family='ipv6'))
    )
    ipv4, ipv6 = entries('flows', builders.instance(of))
    assert ipv4['resource_id'] == f'{builders.UUID}-10.0.0.5'
    assert ipv6['resource_id'] == f'{builders.UUID}-2001:db8::5'
    assert (ipv6['ip'], ipv6['family']) == ('2001:db8::5', 'ipv6')
    assert ipv4['port_id'] == '11111111-1111-4111-8111-111111111111'
    assert (ipv4['project_id'], ipv4['user_id']) == (builders.PROJECT, builders.USER)
    assert {meter.field: ipv4[meter.field] for meter, _ in POLLSTERS['flows'].columns} == {
        'entries': 41,
        'outbound_flows': 30,
        'outbound_remotes': 25,
        'outbound_ports': 3,
        'outbound_unreplied': 10,
        'inbound_flows': 9,
        'inbound_remotes': 8,
    }


def test_contacts_are_of_an_instance_and_a_list():
    of = builders.definition()
    lists = (builders.threat_list(), builders.threat_list('my_own', direction='any'))
    found = (
        builders.contacts(of, active=2, total=7),
        builders.contacts(of, list='my_own', direction='any', active=0, total=5),
    )
    threats = builders.threats(*found, lists=lists)
    entry, own = entries('contacts', builders.instance(of), threats=threats)
    assert entry['resource_id'] == f'{builders.UUID}-tor_exit'
    assert own['resource_id'] == f'{builders.UUID}-my_own'
    assert (entry['project_id'], entry['user_id']) == (builders.PROJECT, builders.USER)
    values = ('threat_list', 'direction', 'contacts', 'contacts_active')
    assert [entry[key] for key in values] == ['tor_exit', 'out', 7, 2]
    assert [own[key] for key in values] == ['my_own', 'any', 5, 0]


def test_contacts_need_lists_and_a_table():
    """A daemon that reads none of it would print an empty list for years."""
    assert POLLSTERS['contacts'].needs == {'instances', 'flows', 'threats'}


def test_every_instance_has_zeros_for_every_list_that_is_there_and_null_for_the_others():
    """Before a list is there nobody looked: a zero would be an invention."""
    busy, idle = builders.instance(), builders.idle()
    lists = (builders.threat_list(), builders.threat_list('spamhaus', is_loaded=False))
    threats = builders.threats(builders.contacts(busy.definition), lists=lists)
    found = entries('contacts', busy, idle, threats=threats)
    assert [
        (each['instance_id'], each['threat_list'], each['contacts'], each['contacts_active'])
        for each in found
    ] == [
        (builders.UUID, 'tor_exit', 7, 2),
        (builders.UUID, 'spamhaus', None, None),
        (idle.definition.uuid, 'tor_exit', 0, 0),
        (idle.definition.uuid, 'spamhaus', None, None),
    ]
    assert len({each['resource_id'] for each in found}) == 4


@OF_INSTANCE
def test_an_instance_without_a_project_is_in_no_list(name):
    """Its sample would clear the project of a resource in Gnocchi: who shall pay for it?"""
    known = entries(name, builders.instance())
    assert entries(name, builders.instance(), builders.stranger()) == known
    assert entries(name, builders.stranger()) == []


def test_without_a_flavor_live_figures_and_names_stand_in():
    of = dataclasses.replace(builders.stranger().definition, project_uuid=builders.PROJECT)
    entry = one('instances', dataclasses.replace(builders.stranger(), definition=of))
    assert entry['user_id'] == ''
    assert entry['display_name'] == of.domain
    assert entry['flavor_id'] == entry['flavor_name'] == 'unknown'
    assert (entry['vcpus'], entry['memory_mb'], entry['disk_gb']) == (1, 512, None)


def test_before_nova_2025_2_the_flavors_name_is_its_id():
    of = builders.definition(flavor=builders.flavor(id=''))
    assert one('instances', builders.instance(of))['flavor_id'] == 'm1.medium'


@pytest.mark.parametrize(
    ('state', 'status', 'name'),
    [
        (1, 'active', 'running'),
        (3, 'paused', 'paused'),
        (5, 'stopped', 'shutoff'),
        (6, 'error', 'crashed'),
        (7, 'suspended', 'pmsuspended'),
        (99, 'unknown', 'unknown'),
    ],
)
def test_states_are_told_in_novas_words_and_a_new_one_costs_nothing(state, status, name):
    entry = one('instances', builders.instance(state=state))
    assert (entry['status'], entry['state']) == (status, name)


# --- the definitions --------------------------------------------------------


def definitions():
    return [each for pollster in POLLSTERS.values() for each in pollster.definitions()]


def test_names_of_meters_are_our_own():
    found = [meter.ceilometer for pollster in POLLSTERS.values() for meter, _ in pollster.columns]
    assert sorted(found) == sorted(set(found))
    for name in found:
        assert name.startswith('oie.')
        assert name not in BUILT_IN
        assert not name.startswith(BUILT_IN_PREFIXES)


def test_names_of_definitions_differ_and_ceilometer_understands_them():
    """Of two definitions with one name an agent takes the first."""
    found = [each['name'] for each in definitions()]
    assert sorted(found) == sorted(set(found))
    for each in definitions():
        # Both patterns are those of ceilometer.polling.dynamic_pollster.
        assert re.match(r'^([\w-]+)(\.[\w-]+)*(\.{[\w-]+})?$', each['name'])
        [key] = re.findall(r'^oie\.{(\w+)}$', each['name'])
        assert re.match(r'^(\[(\w+)\])((\.\w+)+)$', each['value_attribute'])
        assert each['value_attribute'] == f'[{key}].value'


def test_units_that_look_alike_in_a_key_would_show():
    """The key has no dots, so two units could have one key; a definition has one unit."""
    for pollster in POLLSTERS.values():
        for meters in pollster.groups().values():
            assert len({(meter.kind, meter.unit) for meter in meters}) == 1


@OF_INSTANCE
def test_a_definition_asks_only_for_keys_that_every_entry_has(name):
    entry = one(name, builders.instance())
    for each in POLLSTERS[name].definitions():
        keys = {each[key] for key in each if key.endswith('_id_attribute')}
        assert keys | set(each['metadata_fields']) <= set(entry)
        assert isinstance(each['metadata_fields'], list)
        assert each['value_attribute'].partition(']')[0][1:] in entry


@BY_NAME
def test_a_definition_is_one_that_ceilometer_runs_on_compute_nodes(name):
    for each in POLLSTERS[name].definitions():
        assert each['namespaces'] == ['compute']
        assert each['host_command'] == f'oie-pollster {name}'
        assert each['sample_type'] in ('gauge', 'cumulative')
        assert each['unit']
        # Ceilometer compares it with the names of the meters too.
        assert each['skip_sample_values'] == [None]
        assert 'next_sample_url_attribute' not in each
        with pytest.raises(SyntaxError):
            # Ceilometer gives it to eval() first; only a failure leaves it as it is.
            compile(each['host_command'], 'host_command', 'eval')


def test_totals_are_of_an_instance_on_one_host():
    """On another host they are others: one resource for both would jump at each migration."""
    entry = one('usage', builders.instance())
    assert entry['resource_id'] == f'{builders.UUID}-{builders.HOST}'
    assert entry['instance_id'] == builders.UUID


@pytest.mark.parametrize(
    ('error', 'reason'),
    [
        ('', r'totals are kept by a running oie-exporter with \[ledger\] enabled only'),
        ('the file is kept by process 7', 'the totals are not known: the file is kept by'),
    ],
)
def test_totals_that_nobody_knows_are_refused_never_an_empty_list(error, reason):
    unread = builders.usage_of(value=None, read_at=None, error=error)
    with pytest.raises(exceptions.PollsterError, match=reason):
        entries('usage', builders.instance(), usage=unread)


def test_totals_of_an_instance_without_an_account_are_null():
    entry = one('usage', builders.instance())
    assert {entry[meter.field] for meter, _ in POLLSTERS['usage'].columns} == {None}
    [entry] = entries('usage', i := builders.instance(), usage=builders.usage_of(i))
    assert entry['cpu_time_ns'] == 41_500_000_000
    assert entry['license_unit_seconds'] == 86_400.5


def test_totals_tell_the_operating_system_as_texts():
    instance = builders.instance()
    [entry] = entries('usage', instance, guest_os={builders.UUID: builders.guest_os()})
    assert (entry['os_distro'], entry['os_version_major']) == ('windows', '10')
    [entry] = entries('usage', instance, guest_os=None)
    assert (entry['os_distro'], entry['os_version_major']) == ('unknown', 'unknown')


def test_fields_of_one_list_are_unique_and_no_metadata():
    for pollster in POLLSTERS.values():
        fields = [meter.field for meter, _ in pollster.columns]
        assert sorted(fields) == sorted(set(fields))
        assert not set(fields) & set(pollster.metadata)


def test_a_column_without_a_name_for_ceilometer_is_not_in_the_list():
    meter = model.Meter(
        prometheus='oie_x', unit='1', kind=model.Kind.GAUGE, help='X.', source='nothing'
    )
    columns = ((meter, lambda _: 1),)
    made = ceilometer.pollsters(*[columns] * 6)
    assert all(pollster.columns == () for pollster in made.values())
