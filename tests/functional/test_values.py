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

"""What the exporter shows and the pollsters print is what virsh says of the same guests."""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import datetime
import pathlib
from typing import Any
from xml.etree import ElementTree

import pytest

from oie import plugins
from tests.functional import domains
from tests.functional import exporter as exporters
from tests.functional import guests as lab_guests
from tests.functional import lab
from tests.functional import virsh

HOSTILE = 'a "quoted" \\ b\\n\nnext\tline <&> \'é\' 🦄 ' + 'x' * 65536
SHAPES: dict[str, dict[str, Any]] = {
    'busy': {
        **{'vcpus': 2, 'max_vcpus': 4, 'disks': ('raw', 'qcow2'), 'ports': 2},
        **{'port_model': 'rtl8139', 'program': 'disk'},
    },
    'not of Nova': {'metadata': 'none'},
    'hostile': {
        **{'display_name': HOSTILE, 'metadata': '2025.2', 'nova_version': '32.0.0'},
        'image': domains.Image(properties={'os_distro': HOSTILE[:64], 'os_type': 'windows'}),
        'flavor': domains.Flavor(
            name='c2 "big" \\', flavor_id='f-1', extra_specs={'hw:cpu_policy': 'shared\n"'}
        ),
    },
    'same address': {'ports': 2},
    'old': {
        **{'metadata': '1.0', 'nova_version': '18.3.0', 'disks': ('block', 'cdrom')},
        **{'has_balloon': False, 'root_id': ''},
    },
    'sends': {'disks': (), 'has_network_boot': True},
}

# What virsh has no word for: identity, our own bookkeeping, and a rate.
BESIDE = {
    'oie_cpu_percent',
    'oie_disk_info',
    'oie_instance_address_info',
    'oie_instance_created_timestamp_seconds',
    'oie_instance_data_complete',
    'oie_instance_data_fresh',
    'oie_instance_flavor_extra_spec_info',
    'oie_instance_info',
    'oie_instance_interface_info',
    'oie_instance_last_success_timestamp_seconds',
    'oie_instance_license_units',
    'oie_instance_openstack_info',
    'oie_instance_os_info',
}
# Sums over all lives of a guest, which have a test of their own.
USAGE = 'oie_instance_usage_'
# What only an operating system in the guest could tell.
NEED_A_BALLOON_DRIVER = {
    'oie_instance_memory_guest_available_bytes',
    'oie_instance_memory_guest_unused_bytes',
    'oie_instance_memory_guest_usable_bytes',
    'oie_instance_memory_guest_used_bytes',
    'oie_instance_memory_major_faults_total',
    'oie_instance_memory_minor_faults_total',
    'oie_instance_memory_stats_timestamp_seconds',
    'oie_instance_memory_swap_in_bytes_total',
    'oie_instance_memory_swap_out_bytes_total',
}

Values = Mapping[str, Mapping[virsh.Key, float]]
Readings = tuple[Values, exporters.Scrape, Values]


@pytest.fixture(scope='module')
def shapes(libvirtd: lab.Libvirtd) -> Iterator[dict[str, lab_guests.Guest]]:
    strange: dict[str, dict[str, Any]] = {
        'hostile': {'name': f'{libvirtd.prefix}-"x\' \\n{{}},=🦄'}
    }
    guests = {
        shape: libvirtd.guest(**options, **strange.get(shape, {}))
        for shape, options in SHAPES.items()
    }
    _give_the_same_address_twice(guests['same address'])
    for guest in guests.values():
        guest.start()
    yield guests
    libvirtd.remove(guests.values())


@pytest.fixture(scope='module')
def exporter(
    libvirtd: lab.Libvirtd, shapes: dict[str, lab_guests.Guest]
) -> Iterator[exporters.Exporter]:
    settings = {
        'collector': {'optional': 'address_info,extra_specs'},
        'collector_instance': {'extra_specs': 'hw:cpu_policy'},
    }
    shapes['busy'].send_frames(20)
    with exporters.Exporter(libvirtd.uri, settings) as running:
        yield running
        assert 'Traceback' not in running.log


@pytest.fixture(scope='module')
def readings(
    libvirtd: lab.Libvirtd, shapes: dict[str, lab_guests.Guest], exporter: exporters.Exporter
) -> Readings:
    """Return what virsh said before, what we said, and what virsh said after."""

    def ask_virsh() -> dict[str, dict[virsh.Key, float]]:
        return {shape: virsh.series(libvirtd, guest) for shape, guest in shapes.items()}

    return ask_virsh(), exporter.next_scrape(), ask_virsh()


@pytest.mark.parametrize('shape', SHAPES)
def test_series_of_a_guest_are_those_of_virsh(
    shape: str, shapes: dict[str, lab_guests.Guest], readings: Readings
) -> None:
    guest = shapes[shape]
    before, scrape, after = readings

    _assert_between(before[shape], _series(scrape, guest), after[shape])


def test_series_that_no_guest_has_are_known(
    exporter: exporters.Exporter,
) -> None:
    tables = (t for c in plugins.load('oie.collectors').values() for t in c.COLUMNS.values())
    usual = {meter.prometheus for table in tables for meter, _ in table}

    missing = usual - exporter.next_scrape().names()

    assert {name for name in missing if name.startswith('oie_instance_')} == NEED_A_BALLOON_DRIVER


@pytest.mark.parametrize('shape', SHAPES)
def test_labels_of_a_guest_are_those_of_its_xml(
    shape: str,
    shapes: dict[str, lab_guests.Guest],
    libvirtd: lab.Libvirtd,
    exporter: exporters.Exporter,
) -> None:
    guest = shapes[shape]
    xml = virsh.dumpxml(libvirtd, guest)
    facts = {element.tag.rpartition('}')[2]: element for element in xml.iterfind('metadata//*')}
    identity = {
        'domain': xml.findtext('name'),
        'instance_uuid': xml.findtext('uuid'),
        'project_uuid': facts['project'].get('uuid') if facts else '',
        'user_uuid': facts['user'].get('uuid') if facts else '',
    }

    scrape = exporter.scrape()

    (info,) = scrape.of('oie_instance_info', instance_uuid=guest.uuid)
    expected = {**identity, **_info_labels(facts)}
    assert info.labels == expected
    others = [
        s for found in scrape.series.values() for s in found if s.has({'domain': guest.name})
    ]
    assert all(one.has(identity) for one in others)  # type: ignore[arg-type]
    assert _devices(scrape, guest) == _devices_in(xml)


def test_created_timestamp_is_nova_s_time_in_utc(
    shapes: dict[str, lab_guests.Guest], exporter: exporters.Exporter
) -> None:
    at = datetime.datetime(2026, 11, 20, 8, 9, 10, tzinfo=datetime.timezone.utc)

    scrape = exporter.scrape()

    name = 'oie_instance_created_timestamp_seconds'
    assert scrape.value(name, instance_uuid=shapes['busy'].uuid) == at.timestamp()
    assert scrape.value(name, instance_uuid=shapes['not of Nova'].uuid) is None


def test_text_of_users_arrives_whole_up_to_its_bound(
    shapes: dict[str, lab_guests.Guest], exporter: exporters.Exporter
) -> None:
    guest = shapes['hostile']

    scrape = exporter.scrape()
    (entry,) = _entries(exporter, 'instances', guest)

    (info,) = scrape.of('oie_instance_openstack_info', instance_uuid=guest.uuid)
    (spec,) = scrape.of('oie_instance_flavor_extra_spec_info', instance_uuid=guest.uuid)
    assert info.labels['name'] == HOSTILE[:1023] + '…'
    assert info.labels['domain'] == guest.name
    assert (info.labels['flavor'], info.labels['flavor_id']) == ('c2 "big" \\', 'f-1')
    assert (spec.labels['key'], spec.labels['value']) == ('hw:cpu_policy', 'shared\n"')
    assert entry['display_name'] == HOSTILE[:255]
    assert entry['name'] == guest.name
    assert (entry['flavor_name'], entry['flavor_id']) == ('c2 "big" \\', 'f-1')


def test_addresses_are_canonical_and_none_comes_twice(
    shapes: dict[str, lab_guests.Guest], exporter: exporters.Exporter
) -> None:
    guest = shapes['same address']
    first, second = (port.port_id for port in guest.instance.ports)

    found = exporter.scrape().of('oie_instance_address_info', instance_uuid=guest.uuid)

    addresses = {(s.labels['ip'], s.labels['family'], s.labels['port_uuid']) for s in found}
    assert len(found) == len(addresses)
    assert addresses == {
        ('10.0.0.5', 'ipv4', first),
        ('2001:db8::5', 'ipv6', first),
        ('10.0.0.9', 'ipv4', second),
    }


def test_frames_for_the_guest_count_as_received(
    shapes: dict[str, lab_guests.Guest], exporter: exporters.Exporter
) -> None:
    guest = shapes['busy']
    port = guest.instance.ports[0]
    before = _traffic(exporter.next_scrape(), port)
    host_before = _host_counter(port, 'tx_packets')

    guest.send_frames(40)

    scrape = exporter.wait_for(
        lambda now: _traffic(now, port)['rx_packets'] >= before['rx_packets'] + 40,
        'the frames to be counted',
    )
    after, host_after = _traffic(scrape, port), _host_counter(port, 'tx_packets')
    # Somebody else's frames (the kernel's IPv6 discovery) may come in between.
    assert before['rx_packets'] + 40 <= after['rx_packets'] <= before['rx_packets'] + 60
    assert after['rx_bytes'] - before['rx_bytes'] >= 40 * 60
    assert after['tx_packets'] == before['tx_packets'] == 0
    assert host_after - host_before >= 40


def test_frames_of_the_guest_count_as_sent(
    shapes: dict[str, lab_guests.Guest], exporter: exporters.Exporter
) -> None:
    port = shapes['sends'].instance.ports[0]

    # Its boot ROM asks for an address by DHCP.
    scrape = exporter.wait_for(
        lambda now: _traffic(now, port)['tx_packets'] > 0, 'the boot ROM to send', 30
    )

    assert _traffic(scrape, port)['tx_packets'] <= _host_counter(port, 'rx_packets')
    assert _traffic(scrape, port)['tx_bytes'] <= _host_counter(port, 'rx_bytes')


def test_cpu_percent_is_the_growth_of_cpu_time(
    shapes: dict[str, lab_guests.Guest], exporter: exporters.Exporter
) -> None:
    guest = shapes['busy']
    first = exporter.next_scrape()

    second = exporter.next_scrape(1)

    seconds = [
        one.value('oie_instance_cpu_seconds_total', instance_uuid=guest.uuid) or 0.0
        for one in (first, second)
    ]
    percent = second.value('oie_cpu_percent', instance_uuid=guest.uuid)
    vcpus = 2
    percents = [
        (seconds[1] - seconds[0]) / elapsed * 100 / vcpus for elapsed in _between(first, second)
    ]
    assert percents[0] <= percent <= percents[1]  # type: ignore[operator]


def test_sums_of_the_host_are_those_of_virsh(
    libvirtd: lab.Libvirtd, shapes: dict[str, lab_guests.Guest], exporter: exporters.Exporter
) -> None:
    active = libvirtd.virsh('list', '--uuid').split()
    infos = [virsh.dominfo(libvirtd, guest) for guest in shapes.values()]
    versions = libvirtd.virsh('version')

    scrape = exporter.next_scrape()

    memory = sum(int(info['Max memory'].split()[0]) for info in infos) * 1024
    assert scrape.instances() == set(active) == {guest.uuid for guest in shapes.values()}
    assert scrape.value('oie_host_active_vms') == len(active)
    assert scrape.value('oie_host_active_vcpus') == sum(int(i['CPU(s)']) for i in infos)
    assert scrape.value('oie_host_active_mem_gbytes') == virsh.gbytes(memory)
    assert scrape.value('oie_libvirt_domains', state='running') == len(active)
    (info,) = scrape.of('oie_libvirt_info')
    assert info.labels['libvirt_version'] in versions
    assert info.labels['hypervisor'] == 'QEMU'
    assert f'QEMU {info.labels["hypervisor_version"]}' in versions


@pytest.mark.parametrize('way', ['socket', 'direct'])
def test_json_of_the_pollsters_is_what_virsh_says(
    way: str,
    shapes: dict[str, lab_guests.Guest],
    libvirtd: lab.Libvirtd,
    exporter: exporters.Exporter,
) -> None:
    # Nobody pays for a guest without a project.
    shapes = {shape: guest for shape, guest in shapes.items() if shape != 'not of Nova'}
    before = _fields(libvirtd, shapes)
    exporter.next_scrape()
    lists = _poll(exporter) if way == 'socket' else _poll_directly(exporter, libvirtd)
    after = _fields(libvirtd, shapes)

    assert {entry['resource_id'] for entries in lists.values() for entry in entries} == set(before)
    for entry in (entry for entries in lists.values() for entry in entries):
        resource = entry['resource_id']
        for name in before[resource]:
            low, high = sorted((before[resource][name], after[resource][name]))
            assert low <= entry[name] <= high, (way, resource, name)


def test_entries_of_a_list_have_the_same_keys(
    shapes: dict[str, lab_guests.Guest], exporter: exporters.Exporter
) -> None:
    for name in exporters.POLLSTERS:
        entries = exporter.pollster(name).entries

        assert len({tuple(entry) for entry in entries}) == 1


def test_json_identifies_a_guest_as_ceilometer_does(
    shapes: dict[str, lab_guests.Guest], exporter: exporters.Exporter
) -> None:
    guest = shapes['busy']
    port, disk = guest.instance.ports[0], guest.instance.disks[1]

    (instance,) = _entries(exporter, 'instances', guest)
    disks = {entry['disk_name']: entry for entry in _entries(exporter, 'disks', guest)}
    vnics = {entry['vnic_name']: entry for entry in _entries(exporter, 'vnics', guest)}

    assert instance['resource_id'] == instance['instance_id'] == guest.uuid
    assert instance['project_id'] == guest.instance.owner.project_id
    assert instance['user_id'] == guest.instance.owner.user_id
    assert instance['instance_host'] == exporters.HOST
    assert (instance['status'], instance['state']) == ('active', 'running')
    assert (instance['vcpus'], instance['memory_mb']) == (2, 24)
    assert disks['vdb']['resource_id'] == f'{guest.uuid}-vdb'
    assert disks['vdb']['disk_source'] == disk.path
    expected = f'{guest.name}-{guest.uuid}-{port.target}'
    assert vnics[port.target]['resource_id'] == expected
    assert vnics[port.target]['port_id'] == port.port_id
    assert vnics[port.target]['mac'] == port.mac


def _give_the_same_address_twice(guest: lab_guests.Guest) -> None:
    first, second = guest.instance.ports
    ports = (
        dataclasses.replace(first, addresses=('10.0.0.5', '2001:DB8:0:0::0005')),
        dataclasses.replace(
            second, addresses=('10.0.0.5', '2001:db8::5', '::ffff:10.0.0.9', '10.0.0.9')
        ),
    )
    guest.instance = dataclasses.replace(guest.instance, ports=ports)


def _series(scrape: exporters.Scrape, guest: lab_guests.Guest) -> dict[virsh.Key, float]:
    """Return the values of a guest's series, by name and device."""
    return {
        (one.name, one.labels.get('disk_path') or one.labels.get('interface') or ''): one.value
        for found in scrape.series.values()
        for one in found
        if one.name not in BESIDE
        and not one.name.startswith(USAGE)
        and guest.name in (one.labels.get('domain'), one.labels.get('libvirtname'))
    }


def _assert_between(
    before: Mapping[virsh.Key, float],
    ours: Mapping[virsh.Key, float],
    after: Mapping[virsh.Key, float],
) -> None:
    assert set(ours) == set(after)
    for key, value in ours.items():
        # A series that began in between had the value 0.
        low, high = sorted((before.get(key, 0), after[key]))
        assert low - 1e-9 <= value <= high + 1e-9, (key, low, value, high)


def _info_labels(facts: Mapping[str, ElementTree.Element]) -> dict[str, str]:
    """Return the labels of oie_instance_info, the seed's fall-backs included."""

    def text(name: str) -> str:
        return (facts[name].text or '').strip() if name in facts else ''

    def attribute(name: str, key: str) -> str:
        return facts[name].get(key, '') if name in facts else ''

    return {
        'project_name': text('project') or 'unknown',
        'user_name': text('user') or 'unknown',
        'flavor': attribute('flavor', 'name') or 'unknown',
        'vcpus': text('vcpus') or '0',
        'mem_mb': text('memory') or '0',
        'root_type': attribute('root', 'type') or 'unknown',
        'created_at': text('creationTime') or 'unknown',
        'metadata_version': attribute('package', 'version') or 'unknown',
    }


def _devices(
    scrape: exporters.Scrape, guest: lab_guests.Guest
) -> tuple[set[tuple[str, ...]], set[tuple[str, ...]]]:
    disks = scrape.of('oie_disk_info', instance_uuid=guest.uuid)
    interfaces = scrape.of('oie_instance_interface_info', instance_uuid=guest.uuid)
    names = ('interface', 'mac', 'type', 'model')
    return (
        {(disk.labels['disk_path'], disk.labels['disk_type']) for disk in disks},
        {tuple(interface.labels[name] for name in names) for interface in interfaces},
    )


def _devices_in(
    xml: ElementTree.Element,
) -> tuple[set[tuple[str, ...]], set[tuple[str, ...]]]:
    disks, interfaces = set(), set()
    for disk in xml.iterfind('devices/disk[@device="disk"]'):
        tier = 'local' if disk.get('type') == 'file' else 'unknown'
        disks.add((disk.find('target').get('dev'), tier))  # type: ignore[union-attr]
    for interface in xml.iterfind('devices/interface'):
        parts = {part.tag: part for part in interface}
        row = (parts['target'].get('dev'), parts['mac'].get('address'))
        interfaces.add((*row, interface.get('type'), parts['model'].get('type')))
    return disks, interfaces  # type: ignore[return-value]


def _entries(
    exporter: exporters.Exporter, pollster: str, guest: lab_guests.Guest
) -> list[dict[str, Any]]:
    entries = exporter.pollster(pollster).entries
    return [entry for entry in entries if entry['instance_id'] == guest.uuid]


def _between(first: exporters.Scrape, second: exporters.Scrape) -> tuple[float, float]:
    """Return the most and the least time that may be between the readings of two cycles.

    A cycle is dated when it has read everything; the CPU time comes first.
    """
    elapsed = second.taken - first.taken
    name = 'oie_host_collection_duration_seconds'
    durations = [scrape.value(name) or 0.0 for scrape in (first, second)]
    return elapsed + durations[0] + 0.01, elapsed - durations[1] - 0.01


def _poll(exporter: exporters.Exporter) -> dict[str, list[dict[str, Any]]]:
    return {name: exporter.pollster(name).entries for name in exporters.POLLSTERS}


def _poll_directly(
    exporter: exporters.Exporter, libvirtd: lab.Libvirtd
) -> dict[str, list[dict[str, Any]]]:
    without_daemon = exporters.Exporter(libvirtd.uri)
    without_daemon.write_config()
    with exporter.suspended(), contextlib.closing(without_daemon):
        return _poll(without_daemon)


def _fields(
    libvirtd: lab.Libvirtd, shapes: Mapping[str, lab_guests.Guest]
) -> dict[str, dict[str, float]]:
    """Return the numbers of all lists by resource."""
    found = {}
    for guest in shapes.values():
        found[guest.uuid] = virsh.instance_fields(libvirtd, guest)
        for target, disk in virsh.disk_fields(libvirtd, guest).items():
            found[f'{guest.uuid}-{target}'] = disk
        for target, vnic in virsh.vnic_fields(libvirtd, guest).items():
            found[f'{guest.name}-{guest.uuid}-{target}'] = vnic
    return found


def _traffic(scrape: exporters.Scrape, port: domains.Port) -> dict[str, float]:
    names = {
        'rx_packets': 'oie_net_rx_pkt_total',
        'tx_packets': 'oie_net_tx_pkt_total',
        'rx_bytes': 'oie_instance_interface_receive_bytes_total',
        'tx_bytes': 'oie_instance_interface_transmit_bytes_total',
    }
    return {key: scrape.value(name, interface=port.target) or 0 for key, name in names.items()}


def _host_counter(port: domains.Port, name: str) -> int:
    """Return a counter of the tap, as the host sees it."""
    path = pathlib.Path('/sys/class/net') / port.target / 'statistics' / name
    return int(path.read_text(encoding='ascii'))
