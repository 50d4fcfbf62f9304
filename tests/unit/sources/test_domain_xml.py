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


"""What domain XML promises: facts of libvirt and Nova, no guesses, bounded text."""

from collections.abc import Iterator
import dataclasses
import pathlib
import time
from xml.etree import ElementTree
from xml.sax import saxutils

import hypothesis
from hypothesis import strategies
import pytest

from oie import exceptions
from oie import model
from oie.sources import domain_xml

RECORDED = sorted((pathlib.Path(__file__).parents[2] / 'data' / 'domain_xml').glob('*.xml'))

UUID = '190f5907-fd86-4ade-9315-705e14aa63cd'
VOLUME = '7c1b2a34-0d5e-4f6a-8b7c-9d0e1f2a3b4c'
PORT = '5f6e7d8c-1a2b-4c3d-9e8f-7a6b5c4d3e2f'
OTHER_PORT = '0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d'
NOVA_10 = 'http://openstack.org/xmlns/libvirt/nova/1.0'
NOVA_11 = 'http://openstack.org/xmlns/libvirt/nova/1.1'

# Nova 2025.2 on libvirt 10 as `virsh dumpxml` shows it, shortened where the
# parser does not look; RBD root disk, LVM volume, Open vSwitch port.
TYPICAL = f"""<domain type='kvm' id='7'>
  <name>instance-0000002a</name>
  <uuid>{UUID}</uuid>
  <metadata>
    <nova:instance xmlns:nova="{NOVA_11}">
      <nova:package version="32.0.0"/>
      <nova:name>web &amp; db</nova:name>
      <nova:creationTime>2009-02-13 23:31:30</nova:creationTime>
      <nova:flavor name="m1.small" id="42">
        <nova:memory>2048</nova:memory>
        <nova:disk>20</nova:disk>
        <nova:swap>512</nova:swap>
        <nova:ephemeral>0</nova:ephemeral>
        <nova:vcpus>2</nova:vcpus>
        <nova:extraSpecs>
          <nova:extraSpec name="hw_rng:allowed">True</nova:extraSpec>
          <nova:extraSpec name="hw:cpu_policy">dedicated</nova:extraSpec>
        </nova:extraSpecs>
      </nova:flavor>
      <nova:image uuid="6a1e0d6e-31b8-4a55-8d2b-0a5a3f4f9b11">
        <nova:containerFormat>bare</nova:containerFormat>
        <nova:diskFormat>raw</nova:diskFormat>
        <nova:minDisk>20</nova:minDisk>
        <nova:minRam>0</nova:minRam>
        <nova:properties>
          <nova:property name="os_distro">debian</nova:property>
          <nova:property name="os_version">12</nova:property>
          <nova:property name="img_use_agent">True</nova:property>
        </nova:properties>
      </nova:image>
      <nova:owner>
        <nova:user uuid="0123456789abcdef0123456789abcdef">alice</nova:user>
        <nova:project uuid="8f0f8f0f8f0f8f0f8f0f8f0f8f0f8f0f">shop</nova:project>
      </nova:owner>
      <nova:root type="image" uuid="6a1e0d6e-31b8-4a55-8d2b-0a5a3f4f9b11"/>
      <nova:ports>
        <nova:port uuid="{PORT}">
          <nova:ip type="fixed" address="10.0.0.5" ipVersion="4"/>
          <nova:ip type="fixed" address="2001:DB8:0::5" ipVersion="6"/>
        </nova:port>
      </nova:ports>
    </nova:instance>
    <libosinfo:libosinfo xmlns:libosinfo="http://libosinfo.org/xmlns/libvirt/domain/1.0">
      <libosinfo:os id="http://debian.org/debian/12"/>
    </libosinfo:libosinfo>
  </metadata>
  <memory unit='KiB'>2097152</memory>
  <currentMemory unit='KiB'>2097152</currentMemory>
  <vcpu placement='static'>2</vcpu>
  <cputune>
    <shares>2048</shares>
    <period>50000</period>
    <quota>25000</quota>
  </cputune>
  <resource>
    <partition>/machine</partition>
  </resource>
  <sysinfo type='smbios'>
    <system>
      <entry name='manufacturer'>OpenStack Foundation</entry>
      <entry name='product'>OpenStack Nova</entry>
      <entry name='version'>32.0.0</entry>
      <entry name='serial'>{UUID}</entry>
      <entry name='uuid'>{UUID}</entry>
      <entry name='family'>Virtual Machine</entry>
    </system>
  </sysinfo>
  <os>
    <type arch='x86_64' machine='pc-i440fx-9.2'>hvm</type>
    <boot dev='hd'/>
    <smbios mode='sysinfo'/>
  </os>
  <features>
    <acpi/>
    <apic/>
    <vmcoreinfo state='on'/>
  </features>
  <cpu mode='custom' match='exact' check='full'>
    <model fallback='forbid'>Cascadelake-Server</model>
    <topology sockets='2' dies='1' clusters='1' cores='1' threads='1'/>
    <feature policy='require' name='vmx'/>
    <feature policy='require' name='hypervisor'/>
    <feature policy='disable' name='hle'/>
    <feature policy='disable' name='rtm'/>
  </cpu>
  <clock offset='utc'>
    <timer name='pit' tickpolicy='delay'/>
    <timer name='rtc' tickpolicy='catchup'/>
    <timer name='hpet' present='no'/>
  </clock>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw' cache='writeback' discard='unmap'/>
      <auth username='nova'>
        <secret type='ceph' uuid='457eb676-33da-42ec-9a8c-9293d545c337'/>
      </auth>
      <source protocol='rbd' name='vms/{UUID}_disk' index='2'>
        <host name='192.0.2.11' port='6789'/>
        <host name='192.0.2.12' port='6789'/>
        <host name='192.0.2.13' port='6789'/>
      </source>
      <target dev='vda' bus='virtio'/>
      <alias name='virtio-disk0'/>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x04' function='0x0'/>
    </disk>
    <disk type='block' device='disk'>
      <driver name='qemu' type='raw' cache='none' io='native'/>
      <source dev='/dev/cinder-volumes/volume-{VOLUME}' index='1'/>
      <backingStore/>
      <target dev='vdb' bus='virtio'/>
      <iotune>
        <total_iops_sec>500</total_iops_sec>
      </iotune>
      <serial>{VOLUME}</serial>
      <alias name='virtio-disk1'/>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x05' function='0x0'/>
    </disk>
    <disk type='file' device='cdrom'>
      <driver name='qemu' type='raw' cache='none'/>
      <source file='/var/lib/nova/instances/{UUID}/disk.config' index='3'/>
      <backingStore/>
      <target dev='hda' bus='ide'/>
      <readonly/>
      <alias name='ide0-0-0'/>
      <address type='drive' controller='0' bus='0' target='0' unit='0'/>
    </disk>
    <controller type='usb' index='0' model='piix3-uhci'>
      <alias name='usb'/>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x01' function='0x2'/>
    </controller>
    <controller type='pci' index='0' model='pci-root'>
      <alias name='pci.0'/>
    </controller>
    <controller type='ide' index='0'>
      <alias name='ide'/>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x01' function='0x1'/>
    </controller>
    <interface type='bridge'>
      <mac address='FA:16:3E:01:02:03'/>
      <source bridge='br-int'/>
      <virtualport type='openvswitch'>
        <parameters interfaceid='{PORT}'/>
      </virtualport>
      <target dev='tap5f6e7d8c-1a'/>
      <model type='virtio'/>
      <driver name='vhost' queues='2'/>
      <mtu size='1442'/>
      <alias name='net0'/>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x03' function='0x0'/>
    </interface>
    <serial type='pty'>
      <source path='/dev/pts/1'/>
      <log file='/var/lib/nova/instances/{UUID}/console.log' append='off'/>
      <target type='isa-serial' port='0'>
        <model name='isa-serial'/>
      </target>
      <alias name='serial0'/>
    </serial>
    <input type='mouse' bus='ps2'>
      <alias name='input1'/>
    </input>
    <graphics type='vnc' port='5900' autoport='yes' listen='192.0.2.1'>
      <listen type='address' address='192.0.2.1'/>
    </graphics>
    <video>
      <model type='virtio' heads='1' primary='yes'/>
      <alias name='video0'/>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x02' function='0x0'/>
    </video>
    <memballoon model='virtio'>
      <stats period='10'/>
      <alias name='balloon0'/>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x06' function='0x0'/>
    </memballoon>
    <rng model='virtio'>
      <backend model='random'>/dev/urandom</backend>
      <alias name='rng0'/>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x07' function='0x0'/>
    </rng>
  </devices>
  <seclabel type='dynamic' model='dac' relabel='yes'>
    <label>+64055:+64055</label>
    <imagelabel>+64055:+64055</imagelabel>
  </seclabel>
</domain>
"""

TYPICAL_OWNER = model.identity(
    'instance-0000002a',
    UUID,
    '8f0f8f0f8f0f8f0f8f0f8f0f8f0f8f0f',
    '0123456789abcdef0123456789abcdef',
)
TYPICAL_DEFINITION = model.Definition(
    uuid=UUID,
    domain='instance-0000002a',
    has_nova_metadata=True,
    metadata_namespace='1.1',
    nova_version='32.0.0',
    name='web & db',
    created_at='2009-02-13 23:31:30',
    created_timestamp=1234567890.0,
    project_uuid='8f0f8f0f8f0f8f0f8f0f8f0f8f0f8f0f',
    project_name='shop',
    user_uuid='0123456789abcdef0123456789abcdef',
    user_name='alice',
    flavor=model.Flavor(
        name='m1.small',
        id='42',
        vcpus=2,
        memory_mib=2048,
        disk_gib=20,
        ephemeral_gib=0,
        swap_mib=512,
        extra_specs={'hw_rng:allowed': 'True', 'hw:cpu_policy': 'dedicated'},
    ),
    root_type='image',
    image_uuid='6a1e0d6e-31b8-4a55-8d2b-0a5a3f4f9b11',
    image_properties={'os_distro': 'debian', 'os_version': '12', 'img_use_agent': 'True'},
    addresses=(
        model.Address(ip='10.0.0.5', family='ipv4', port_uuid=PORT),
        model.Address(ip='2001:db8::5', family='ipv6', port_uuid=PORT),
    ),
    libosinfo_id='http://debian.org/debian/12',
    os_type='hvm',
    architecture='x86_64',
    cpu_quota_us=25_000,
    cpu_period_us=50_000,
    disks=(
        model.DiskDevice(
            owner=TYPICAL_OWNER,
            target='vda',
            type='network',
            tier='vms',
            uuid=f'{UUID}_disk',
            source=f'rbd:vms/{UUID}_disk',
            driver_format='raw',
            bus='virtio',
            server=model.DiskServer(
                protocol='rbd',
                name=f'vms/{UUID}_disk',
                hosts=('192.0.2.11:6789', '192.0.2.12:6789', '192.0.2.13:6789'),
                user='nova',
            ),
        ),
        model.DiskDevice(
            owner=TYPICAL_OWNER,
            target='vdb',
            type='block',
            tier='cinder-volumes',
            uuid=VOLUME,
            source=f'/dev/cinder-volumes/volume-{VOLUME}',
            driver_format='raw',
            serial=VOLUME,
            bus='virtio',
            limits=(
                model.DiskLimit(operation='total', unit='requests', is_burst=False, value=500),
            ),
            backing=(),
        ),
    ),
    interfaces=(
        model.InterfaceDevice(
            owner=TYPICAL_OWNER,
            target='tap5f6e7d8c-1a',
            type='bridge',
            mac='fa:16:3e:01:02:03',
            port_uuid=PORT,
            model='virtio',
            mtu=1442,
            source='br-int',
        ),
    ),
)


def domain(devices: str = '', metadata: str = '', name: str = 'instance-0000002a') -> str:
    return (
        f'<domain type="kvm"><name>{name}</name><uuid>{UUID}</uuid>'
        f'<metadata>{metadata}</metadata><devices>{devices}</devices></domain>'
    )


def nova(content: str = '', namespace: str = NOVA_11) -> str:
    return f'<n:instance xmlns:n="{namespace}">{content}</n:instance>'


def disk(source: str = '', target: str = 'vda', type: str = 'file', more: str = '') -> str:
    return (
        f'<disk type="{type}" device="disk"><source {source}/>'
        f'<target dev="{target}" bus="virtio"/>{more}</disk>'
    )


def serial(text: str) -> str:
    return f'<serial>{text}</serial>'


def port(uuid: str, *ips: str) -> str:
    inside = ''.join(f'<n:ip type="fixed" address="{ip}"/>' for ip in ips)
    return f'<n:port uuid="{uuid}">{inside}</n:port>'


def parse_metadata(content: str) -> model.Definition:
    return domain_xml.parse(domain(metadata=nova(content)))


def parse_disk(*arguments: str, **keywords: str) -> model.DiskDevice:
    (device,) = domain_xml.parse(domain(disk(*arguments, **keywords))).disks
    return device


def parse_interface(xml: str, *port_uuids: str) -> model.InterfaceDevice:
    ports = ''.join(port(uuid) for uuid in port_uuids)
    definition = domain_xml.parse(domain(xml, nova(f'<n:ports>{ports}</n:ports>')))
    (interface,) = definition.interfaces
    return interface


def plain(noun: object) -> object:
    """Return a noun as data that compares by value."""
    if isinstance(noun, model.Labels):
        return noun.pairs
    if isinstance(noun, tuple):
        return tuple(plain(item) for item in noun)
    if dataclasses.is_dataclass(noun):
        return {f.name: plain(getattr(noun, f.name)) for f in dataclasses.fields(noun)}
    return noun


def texts(data: object) -> Iterator[str]:
    """Yield every text in plain data."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict):
        for key, value in data.items():
            yield from texts(key)
            yield from texts(value)
    elif isinstance(data, tuple):
        for item in data:
            yield from texts(item)


def check_promises(definition: model.Definition) -> None:
    """Hold what is promised of every definition, whatever the XML."""
    for text in texts(plain(definition)):
        assert len(text) <= domain_xml.MAX_TEXT
        assert '\0' not in text
        text.encode()
    assert definition.domain
    assert definition.uuid
    for names in (
        [disk.target for disk in definition.disks],
        [nic.target for nic in definition.interfaces if nic.target],
        [(address.ip, address.family) for address in definition.addresses],
        [(device.type, device.address) for device in definition.host_devices],
    ):
        assert len(names) == len(set(names))
    for device in definition.disks:
        assert all(value for key, value in device.labels.pairs if key.startswith('disk_'))


@pytest.fixture
def _tokyo(monkeypatch):
    monkeypatch.setenv('TZ', 'JST-9')
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class TestDefinition:
    def test_typical_domain_gives_all_facts(self):
        assert plain(domain_xml.parse(TYPICAL)) == plain(TYPICAL_DEFINITION)

    def test_devices_share_one_owner(self):
        definition = domain_xml.parse(TYPICAL)
        owners = {id(device.owner) for device in (*definition.disks, *definition.interfaces)}
        assert len(owners) == 1
        assert definition.disks[0].owner.pairs == definition.labels.pairs

    def test_domain_without_anything_else_has_empty_facts(self):
        definition = domain_xml.parse('<domain><name>a</name><uuid>b</uuid></domain>')
        assert plain(definition) == plain(model.Definition(uuid='b', domain='a'))

    @pytest.mark.parametrize(
        ('cputune', 'quota', 'period'),
        [
            ('<period>50000</period><quota>25000</quota>', 25_000, 50_000),
            # The kernel's period holds where Nova was told a quota only.
            ('<quota>25000</quota>', 25_000, 100_000),
            ('<period>50000</period><quota>-1</quota>', None, None),
            ('<quota>0</quota>', None, None),
            ('<period>50000</period>', None, None),
            ('<global_quota>25000</global_quota>', None, None),
        ],
    )
    def test_processor_quota_comes_with_its_period(self, cputune, quota, period):
        text = domain().replace('<devices>', f'<cputune>{cputune}</cputune><devices>')
        definition = domain_xml.parse(text)
        assert (definition.cpu_quota_us, definition.cpu_period_us) == (quota, period)

    @pytest.mark.parametrize('path', RECORDED, ids=lambda path: path.name)
    def test_recorded_files_keep_the_promises(self, path):
        text = path.read_text(encoding='utf-8')
        if 'broken' in path.name:
            with pytest.raises(exceptions.SourceError):
                domain_xml.parse(text)
        else:
            check_promises(domain_xml.parse(text))


class TestBrokenXml:
    @pytest.mark.parametrize(
        ('text', 'words'),
        [
            ('', "domain '': broken XML: no element found"),
            (TYPICAL[:1000], "domain 'instance-0000002a': broken XML: unclosed token"),
            ('<domain><name>a\nb</name>', r"domain 'a\nb': broken XML: no element found"),
            (domain(name='a\ud800'), "domain 'a\N{REPLACEMENT CHARACTER}': broken XML: "),
            (domain(name='a&#1;'), "domain 'a&#1;': broken XML: reference to invalid character"),
            (domain(name=''), f"domain '{UUID}': no name in its XML"),
            ('<domain><name>a</name></domain>', "domain 'a': no uuid in its XML"),
            ('<network><name>a</name></network>', "domain XML expected, not 'network'"),
        ],
    )
    def test_source_error_names_domain_and_problem_in_one_line(self, text, words):
        with pytest.raises(exceptions.SourceError) as caught:
            domain_xml.parse(text)
        message = str(caught.value)
        assert words in message
        assert '\n' not in message
        message.encode()

    def test_deep_nesting_is_no_danger(self):
        depth = 100_000
        devices = '<b>' * depth + '</b>' * depth
        assert domain_xml.parse(domain(devices)).disks == ()

    def test_entities_that_multiply_are_refused(self):
        entities = ''.join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 20}">' for n in range(8))
        text = f'<!DOCTYPE d [<!ENTITY e0 "{"x" * 1000}">{entities}]>{domain(name="&e8;")}'
        with pytest.raises(exceptions.SourceError, match='amplification'):
            domain_xml.parse(text)


class TestNovaMetadata:
    def test_domain_without_nova_metadata_has_no_owner(self):
        definition = domain_xml.parse(domain())
        assert not definition.has_nova_metadata
        assert (definition.project_uuid, definition.user_uuid) == ('', '')

    def test_namespace_1_0_is_read(self):
        content = '<n:name>old</n:name><n:owner><n:project uuid="p">shop</n:project></n:owner>'
        definition = domain_xml.parse(domain(metadata=nova(content, NOVA_10)))
        assert definition.has_nova_metadata
        assert definition.metadata_namespace == '1.0'
        assert (definition.name, definition.project_uuid) == ('old', 'p')
        assert definition.addresses == ()

    def test_future_namespace_of_nova_is_read(self):
        metadata = nova('<n:name>new</n:name>', NOVA_11.replace('1.1', '2.0'))
        definition = domain_xml.parse(domain(metadata=metadata))
        assert (definition.metadata_namespace, definition.name) == ('2.0', 'new')

    def test_newest_namespace_wins_in_any_order(self):
        old, new = nova('<n:name>old</n:name>', NOVA_10), nova('<n:name>new</n:name>')
        assert domain_xml.parse(domain(metadata=old + new)).name == 'new'
        assert domain_xml.parse(domain(metadata=new + old)).name == 'new'

    def test_foreign_instance_element_is_never_taken(self):
        foreign = nova('<n:name>theirs</n:name>', 'http://example.org/monitoring/1.1')
        definition = domain_xml.parse(domain(metadata=foreign))
        assert not definition.has_nova_metadata
        definition = domain_xml.parse(domain(metadata=foreign + nova('<n:name>ours</n:name>')))
        assert definition.name == 'ours'

    @pytest.mark.parametrize('prefix', ['n:', ''])
    def test_default_namespace_is_as_good_as_a_prefix(self, prefix):
        xmlns = 'xmlns' if not prefix else 'xmlns:n'
        metadata = (
            f'<{prefix}instance {xmlns}="{NOVA_11}">'
            f'<{prefix}name>web</{prefix}name></{prefix}instance>'
        )
        assert domain_xml.parse(domain(metadata=metadata)).name == 'web'

    @pytest.mark.parametrize(
        ('text', 'number'),
        [
            ('8', 8),
            (' 8\n', 8),
            ('0', 0),
            ('', None),
            ('-1', None),
            ('+1', None),
            ('1.5', None),
            ('1_0', None),
            ('٣', None),
            ('²', None),
            ('many', None),
            ('9' * 5000, None),
        ],
    )
    def test_flavor_numbers_are_plain_decimals_or_not_reported(self, text, number):
        names = ('vcpus', 'memory', 'disk', 'ephemeral', 'swap')
        content = ''.join(f'<n:{name}>{text}</n:{name}>' for name in names)
        flavor = parse_metadata(f'<n:flavor name="f">{content}</n:flavor>').flavor
        assert flavor == model.Flavor(
            name='f',
            vcpus=number,
            memory_mib=number,
            disk_gib=number,
            ephemeral_gib=number,
            swap_mib=number,
        )

    def test_flavor_of_an_older_nova_has_no_id_and_no_specs(self):
        flavor = parse_metadata('<n:flavor name="m1.tiny"/>').flavor
        assert flavor == model.Flavor(name='m1.tiny')

    @pytest.mark.parametrize(
        ('text', 'created_at', 'timestamp'),
        [
            # 16 days of 86,400 s after 1970: 1,382,400; 1:01:01 more: 3,661.
            ('\n 1970-01-17 01:01:01 \n', '1970-01-17 01:01:01', 1_386_061.0),
            ('yesterday', 'yesterday', None),
            ('2024-02-30 00:00:00', '2024-02-30 00:00:00', None),
            ('', '', None),
        ],
    )
    @pytest.mark.usefixtures('_tokyo')
    def test_creation_time_is_utc_and_kept_as_written(self, text, created_at, timestamp):
        definition = parse_metadata(f'<n:creationTime>{text}</n:creationTime>')
        assert definition.created_at == created_at
        assert definition.created_timestamp == timestamp

    def test_of_two_equal_elements_the_first_counts(self):
        assert parse_metadata('<n:name>a</n:name><n:name>b</n:name>').name == 'a'

    def test_root_volume_is_no_image(self):
        definition = parse_metadata(f'<n:root type="volume" uuid="{VOLUME}"/>')
        assert (definition.root_type, definition.image_uuid) == ('volume', '')

    def test_names_that_the_contract_trims_are_trimmed(self):
        definition = parse_metadata(
            '<n:package version=" 27.1 "/><n:flavor name=" f "/><n:root type=" image " uuid="i"/>'
            '<n:owner><n:user uuid="u"> alice\n</n:user><n:project uuid="p"> </n:project>'
            '</n:owner>'
        )
        assert definition.nova_version == '27.1'
        assert definition.flavor.name == 'f'
        assert (definition.root_type, definition.image_uuid) == ('image', 'i')
        assert (definition.user_name, definition.project_name) == ('alice', '')

    def test_display_name_is_kept_as_it_is(self):
        name = ' two\nlines, "quotes" and \\backslash\t'
        assert parse_metadata(f'<n:name>{name}</n:name>').name == name

    @pytest.mark.parametrize(
        ('channels', 'expected'),
        [
            ('', False),
            ('<channel><target type="virtio" name="org.qemu.guest_agent.0"/></channel>', True),
            ('<channel><target type="virtio" name="com.redhat.spice.0"/></channel>', False),
            ('<channel/>', False),
        ],
    )
    def test_a_channel_of_the_guest_agent_is_seen(self, channels, expected):
        assert domain_xml.parse(domain(devices=channels)).has_agent_channel is expected

    def test_libosinfo_of_another_namespace_is_not_taken(self):
        metadata = '<l:libosinfo xmlns:l="http://example.org/"><l:os id="x"/></l:libosinfo>'
        assert domain_xml.parse(domain(metadata=metadata)).libosinfo_id == ''


class TestAddresses:
    def parse(self, *ports: str) -> list[tuple[str, str, str]]:
        addresses = parse_metadata(f'<n:ports>{"".join(ports)}</n:ports>').addresses
        return [(address.ip, address.family, address.port_uuid) for address in addresses]

    def test_all_ports_in_document_order(self):
        assert self.parse(port('a', '10.0.0.9', '2001:db8::1'), port('b', '10.0.0.1')) == [
            ('10.0.0.9', 'ipv4', 'a'),
            ('2001:db8::1', 'ipv6', 'a'),
            ('10.0.0.1', 'ipv4', 'b'),
        ]

    def test_every_child_of_ports_counts(self):
        assert self.parse('<n:trunk uuid="t"><n:ip address="10.0.0.1"/></n:trunk>') == [
            ('10.0.0.1', 'ipv4', 't')
        ]

    def test_same_address_on_two_ports_comes_once_with_the_first(self):
        assert self.parse(port('a', '10.0.0.5'), port('b', '10.0.0.5')) == [
            ('10.0.0.5', 'ipv4', 'a')
        ]

    @pytest.mark.parametrize(
        ('text', 'ip', 'family'),
        [
            ('2001:DB8:0:0:0:0:0:1', '2001:db8::1', 'ipv6'),
            ('::ffff:10.0.0.5', '10.0.0.5', 'ipv4'),
            (' 10.0.0.5 ', '10.0.0.5', 'ipv4'),
            ('0.0.0.0', '0.0.0.0', 'ipv4'),
        ],
    )
    def test_address_is_canonical_and_knows_its_family(self, text, ip, family):
        assert self.parse(f'<n:port uuid="a"><n:ip address="{text}" ipVersion="9"/></n:port>') == [
            (ip, family, 'a')
        ]

    def test_two_spellings_are_one_address(self):
        spellings = ('2001:db8::1', '2001:DB8:0::1', '10.0.0.5', '::FFFF:10.0.0.5')
        assert [ip for ip, _, _ in self.parse(port('a', *spellings))] == [
            '2001:db8::1',
            '10.0.0.5',
        ]

    @pytest.mark.parametrize(
        'text',
        ['', 'fe80::1%eth0', '10.0.0.0/24', '010.0.0.1', '10.0.0', 'host', '1 2', '١.٢.٣.٤'],
    )
    def test_what_is_no_address_is_left_out(self, text):
        assert self.parse(port('a', text, '10.0.0.5')) == [('10.0.0.5', 'ipv4', 'a')]


class TestDisks:
    @pytest.mark.parametrize(
        ('name', 'tier', 'uuid'),
        [
            ('vms/6c1f_disk', 'vms', '6c1f_disk'),
            ('volumes/volume-ab/x', 'volumes', 'volume-ab'),
            ('', 'unknown', 'unknown'),
            ('alone', 'unknown', 'unknown'),
            ('/image', 'unknown', 'image'),
            ('pool/', 'pool', 'unknown'),
            ('/', 'unknown', 'unknown'),
        ],
    )
    def test_network_disk_is_told_by_pool_and_image(self, name, tier, uuid):
        device = parse_disk(f'protocol="rbd" name="{name}"', type='network')
        assert (device.tier, device.uuid) == (tier, uuid)
        assert device.source == (f'rbd:{name}' if name else 'rbd')

    def test_serial_does_not_change_what_the_contract_says_of_rbd(self):
        source = f'protocol="rbd" name="volumes/volume-{VOLUME}"'
        device = parse_disk(source, type='network', more=serial(VOLUME))
        assert (device.tier, device.uuid) == ('volumes', f'volume-{VOLUME}')
        assert device.serial == VOLUME

    def test_file_disk_is_local_with_its_whole_path(self):
        device = parse_disk('file="/var/lib/nova/i/disk"')
        assert (device.tier, device.uuid) == ('local', '/var/lib/nova/i/disk')
        assert device.source == '/var/lib/nova/i/disk'

    def test_file_disk_without_path_has_no_empty_label(self):
        assert parse_disk().labels.pairs[-3:] == (
            ('disk_uuid', 'unknown'),
            ('disk_type', 'local'),
            ('disk_path', 'vda'),
        )

    @pytest.mark.parametrize(
        ('path', 'serial_text', 'tier', 'uuid'),
        [
            (f'/dev/cinder-volumes/volume-{VOLUME}', VOLUME, 'cinder-volumes', VOLUME),
            (f'/dev/cinder-volumes/volume-{VOLUME}', '', 'cinder-volumes', VOLUME),
            # After a migration between backends the path carries Cinder's
            # internal name, the serial what the user knows.
            (f'/dev/vg/volume-{UUID}', VOLUME, 'vg', VOLUME),
            (f'/dev/nova-vg/{UUID}_disk', '', 'nova-vg', f'{UUID}_disk'),
            ('/dev/dm-3', VOLUME, 'unknown', VOLUME),
            ('/dev/disk/by-id/dm-uuid-mpath-3600a0980', VOLUME, 'unknown', VOLUME),
            ('/dev/mapper/3600a0980', VOLUME, 'unknown', VOLUME),
            ('/dev/mapper/vg-lv', '', 'unknown', 'unknown'),
            (
                '/dev/disk/by-path/ip-192.0.2.1:3260-iscsi-iqn.2010-10.org.openstack:'
                f'volume-{VOLUME}-lun-1',
                '',
                'unknown',
                VOLUME,
            ),
            ('/dev/sdb', '', 'unknown', 'unknown'),
            ('/dev/sdb', 'WD-WCC4N7', 'unknown', 'unknown'),
            ('/dev//lv', '', 'unknown', 'unknown'),
            ('/srv/dev/vg/lv', '', 'unknown', 'unknown'),
            ('', '', 'unknown', 'unknown'),
        ],
    )
    def test_block_disk_is_told_as_far_as_the_xml_proves_it(self, path, serial_text, tier, uuid):
        device = parse_disk(f'dev="{path}"', type='block', more=serial(serial_text))
        assert (device.tier, device.uuid) == (tier, uuid)
        assert device.source == path

    @pytest.mark.parametrize(
        ('source', 'tier', 'uuid', 'text'),
        [
            ('pool="fast" volume="v1"', 'fast', 'v1', 'fast/v1'),
            ('pool="fast"', 'fast', 'unknown', 'fast'),
            ('', 'unknown', 'unknown', ''),
        ],
    )
    def test_volume_disk_is_told_by_pool_and_volume(self, source, tier, uuid, text):
        device = parse_disk(source, type='volume')
        assert (device.tier, device.uuid, device.source) == (tier, uuid, text)

    def test_any_other_disk_is_told_by_the_serial_of_its_volume(self):
        source = 'type="unix" path="/run/vhost.sock"'
        device = parse_disk(source, type='vhostuser', more=serial(VOLUME))
        assert (device.tier, device.uuid) == ('unknown', VOLUME)
        assert device.source == '/run/vhost.sock'

    def test_throttles_are_those_that_are_set(self):
        iotune = (
            '<iotune><total_bytes_sec>0</total_bytes_sec><read_bytes_sec>1000</read_bytes_sec>'
            '<write_iops_sec>20</write_iops_sec><write_iops_sec_max>40</write_iops_sec_max>'
            '<write_iops_sec_max_length>60</write_iops_sec_max_length>'
            '<size_iops_sec>4096</size_iops_sec><group_name>g</group_name></iotune>'
        )
        assert [dataclasses.astuple(limit) for limit in parse_disk(more=iotune).limits] == [
            ('read', 'bytes', False, 1000),
            ('write', 'requests', False, 20),
            ('write', 'requests', True, 40),
        ]

    def test_chain_below_a_disk_is_told_with_its_formats(self):
        base = '<backingStore type="file"><format type="raw"/><source file="/b"/></backingStore>'
        middle = (
            '<backingStore type="block"><format type="qcow2"/><source dev="/dev/m"/>'
            f'{base}</backingStore>'
        )
        chain = (('/dev/m', 'qcow2'), ('/b', 'raw'))
        assert parse_disk(more=middle).backing == chain
        assert parse_disk(more=middle.replace(base, f'{base}<x/>')).backing == chain

    @pytest.mark.parametrize(
        ('more', 'expected'),
        [
            ('', None),
            ('<backingStore/>', ()),
            ('<backingStore type="file"><source file="/b"/></backingStore>', (('/b', ''),)),
            ('<backingStore type="file"><format type="raw"/></backingStore>', (('', 'raw'),)),
        ],
    )
    def test_chain_that_is_not_told_differs_from_none(self, more, expected):
        assert parse_disk(more=more).backing == expected

    def test_endless_chain_is_cut(self):
        more = '<backingStore type="file"><source file="/b"/>' * 40 + '</backingStore>' * 40
        backing = parse_disk(more=more).backing
        assert backing is not None
        assert len(backing) == 16

    def test_order_of_booting_is_told(self):
        assert parse_disk(more='<boot order="2"/>').boot_order == 2
        assert parse_disk().boot_order is None

    def test_encryption_is_seen_wherever_it_stands(self):
        inside = domain(disk().replace('<source />', '<source><encryption/></source>'))
        assert domain_xml.parse(inside).disks[0].is_encrypted
        assert parse_disk(more='<encryption format="luks"/>').is_encrypted
        assert not parse_disk().is_encrypted

    def test_servers_of_a_network_disk_are_told_with_its_user(self):
        devices = (
            '<disk type="network" device="disk"><target dev="vda"/>'
            '<source protocol="rbd" name="p/i"><host name="mon1"/><host name="::1" port="1"/>'
            '<host transport="unix" socket="/x"/><auth username="cinder"/></source></disk>'
        )
        [device] = domain_xml.parse(domain(devices)).disks
        assert device.server == model.DiskServer(
            protocol='rbd', name='p/i', hosts=('mon1', '[::1]:1'), user='cinder'
        )
        assert parse_disk().server is None

    def test_only_hard_disks_are_disks(self):
        kinds = ('cdrom', 'floppy', 'lun', 'disk')
        devices = ''.join(
            disk(target=f'{kind}0').replace('device="disk"', f'device="{kind}"') for kind in kinds
        )
        absent = disk(target='vdz').replace('device="disk"', '')
        definition = domain_xml.parse(domain(devices + absent))
        assert [device.target for device in definition.disks] == ['disk0', 'vdz']

    def test_disk_without_target_is_skipped(self):
        devices = disk(target='') + '<disk type="file" device="disk"/>' + disk(target='vdb')
        assert [d.target for d in domain_xml.parse(domain(devices)).disks] == ['vdb']

    def test_of_two_disks_with_one_target_the_first_stays(self):
        devices = disk('file="/a"') + disk('file="/b"')
        assert [d.source for d in domain_xml.parse(domain(devices)).disks] == ['/a']

    def test_sources_of_the_backing_chain_and_of_a_mirror_are_not_the_disk(self):
        devices = (
            '<disk type="file"><mirror><source file="/mirror"/></mirror><backingStore type="file">'
            '<source file="/base"/></backingStore><source file="/top"/><target dev="vda"/></disk>'
        )
        assert [d.source for d in domain_xml.parse(domain(devices)).disks] == ['/top']


class TestInterfaces:
    @pytest.mark.parametrize(
        ('type', 'source', 'text'),
        [
            ('bridge', 'bridge="br-int"', 'br-int'),
            ('network', 'network="default" portid="x" bridge="virbr0"', 'default'),
            ('direct', 'dev="eth0" mode="passthrough"', 'eth0'),
            ('vdpa', 'dev="/dev/vhost-vdpa-0"', '/dev/vhost-vdpa-0'),
            ('vhostuser', 'type="unix" path="/run/vhu0" mode="server"', '/run/vhu0'),
            ('user', '', ''),
        ],
    )
    def test_source_is_what_the_type_is_plugged_into(self, type, source, text):
        interface = parse_interface(
            f'<interface type="{type}"><source {source}/><target dev="t0"/></interface>'
        )
        assert plain(interface) == plain(
            model.InterfaceDevice(owner=interface.owner, target='t0', type=type, source=text)
        )

    def test_passed_through_interface_has_an_address_and_no_target(self):
        interface = parse_interface(
            '<interface type="hostdev" managed="yes"><mac address="FA:16:3E:00:00:01"/>'
            '<source><address type="pci" domain="0x0000" bus="0x81" slot="0x0a" function="0x2"/>'
            '</source><target dev="ignored"/>'
            '<address type="pci" domain="0x0000" bus="0x00" slot="0x05" function="0x0"/>'
            '</interface>',
            PORT,
        )
        assert plain(interface) == plain(
            model.InterfaceDevice(
                owner=interface.owner,
                target='',
                type='hostdev',
                mac='fa:16:3e:00:00:01',
                pci_address='0000:81:0a.2',
            )
        )

    @pytest.mark.parametrize('prefix', ['tap', 'vhu', 'nic'])
    def test_device_of_novas_naming_finds_its_port(self, prefix):
        interface = parse_interface(
            f'<interface type="ethernet"><target dev="{prefix}{PORT[:11]}"/></interface>',
            OTHER_PORT,
            PORT,
        )
        assert interface.port_uuid == PORT

    def test_virtual_port_says_more_than_the_name(self):
        interface = parse_interface(
            f'<interface type="bridge"><virtualport><parameters interfaceid="{OTHER_PORT}"/>'
            f'</virtualport><target dev="tap{PORT[:11]}"/></interface>',
            PORT,
        )
        assert interface.port_uuid == OTHER_PORT

    @pytest.mark.parametrize(
        ('target', 'port_uuids'),
        [
            # The only port of the only interface: likely, but not said.
            ('vnet0', [PORT]),
            ('tap5f6e7d8c', [PORT]),
            (f'xyz{PORT[:11]}', [PORT]),
            (f'tap{PORT[:11]}', [OTHER_PORT]),
            (f'tap{PORT[:11]}', [PORT, PORT[:-1] + '0']),
            (f'tap{PORT[:11]}', []),
        ],
    )
    def test_port_is_not_guessed(self, target, port_uuids):
        xml = f'<interface type="ethernet"><target dev="{target}"/></interface>'
        assert parse_interface(xml, *port_uuids).port_uuid == ''

    def test_of_two_interfaces_with_one_device_the_first_stays(self):
        xml = ''.join(
            f'<interface type="{type}"><target dev="tap0"/></interface>'
            for type in ('bridge', 'ethernet')
        )
        assert [nic.type for nic in domain_xml.parse(domain(xml)).interfaces] == ['bridge']

    def test_interfaces_without_device_all_stay(self):
        definition = domain_xml.parse(domain('<interface type="hostdev"/>' * 3))
        assert [nic.target for nic in definition.interfaces] == ['', '', '']


class TestHostDevices:
    @pytest.mark.parametrize(
        ('address', 'text'),
        [
            ('domain="0x0000" bus="0x81" slot="0x00" function="0x3"', '0000:81:00.3'),
            ('domain="0x10000" bus="0xe1" slot="0x1f" function="0x7"', '10000:e1:1f.7'),
            ('domain="0" bus="5" slot="1" function="0"', '0000:05:01.0'),
        ],
    )
    def test_pci_device_has_the_address_of_the_host(self, address, text):
        definition = domain_xml.parse(
            domain(
                '<hostdev mode="subsystem" type="pci" managed="yes"><source>'
                f'<address {address}/></source><address type="pci" slot="0x06"/></hostdev>'
            )
        )
        assert definition.host_devices == (model.HostDevice(type='pci', address=text),)

    def test_mediated_device_has_its_uuid_and_model(self):
        definition = domain_xml.parse(
            domain(
                '<hostdev mode="subsystem" type="mdev" model="vfio-pci"><source>'
                f'<address uuid="{VOLUME}"/></source></hostdev>'
            )
        )
        assert definition.host_devices == (
            model.HostDevice(type='mdev', address=VOLUME, model='vfio-pci'),
        )

    @pytest.mark.parametrize(
        'content',
        [
            'type="usb"><source><address bus="1" device="2"/></source>',
            'type="mdev"><source><address/></source>',
            'type="pci"><source/>',
            'type="pci"><source><address domain="0" bus="x" slot="0" function="0"/></source>',
            'type="pci"><source><address domain="0" bus="-1" slot="0" function="0"/></source>',
            'type="pci"><source><address domain="0" bus="0" slot="0" function="8"/></source>',
        ],
    )
    def test_device_without_a_usable_address_is_left_out(self, content):
        assert domain_xml.parse(domain(f'<hostdev {content}</hostdev>')).host_devices == ()

    def test_same_device_twice_comes_once(self):
        device = f'<hostdev type="mdev"><source><address uuid="{VOLUME}"/></source></hostdev>'
        assert len(domain_xml.parse(domain(device * 2)).host_devices) == 1


class TestBounded:
    @pytest.mark.parametrize(
        ('text', 'expected'),
        [
            (None, ''),
            ('', ''),
            ('Müller & "Söhne"\n\t\x1b', 'Müller & "Söhne"\n\t\x1b'),
            ('a\0b\ud800c\udfff', 'a\ufffdb\ufffdc\ufffd'),
            ('x' * 1024, 'x' * 1024),
            ('x' * 1025, 'x' * 1023 + '…'),
            ('\0' * 65536, '\ufffd' * 1023 + '…'),
        ],
    )
    def test_text_is_kept_cut_and_encodable(self, text, expected):
        assert domain_xml.bounded(text) == expected

    @hypothesis.given(strategies.text(strategies.characters(exclude_categories=[])))
    def test_any_text_is_encodable_and_short_text_differs_only_where_it_must(self, text):
        result = domain_xml.bounded(text)
        assert len(result) == len(text) <= domain_xml.MAX_TEXT
        result.encode()
        for before, after in zip(text, result, strict=True):
            is_bad = before == '\0' or '\ud800' <= before <= '\udfff'
            assert after == ('\N{REPLACEMENT CHARACTER}' if is_bad else before)

    @hypothesis.given(strategies.text(), strategies.integers(0, 5000))
    def test_bounding_twice_changes_nothing(self, text, times):
        once = domain_xml.bounded(text * times)
        assert domain_xml.bounded(once) == once


# What XML 1.0 can carry; a carriage return is normalized by every parser.
XML_TEXT = strategies.text(
    strategies.characters(
        exclude_categories=['Cs', 'Cc'],
        include_characters='\t\n',
        exclude_characters='\ufffe\uffff',
    )
)


class TestAnything:
    @hypothesis.given(XML_TEXT.filter(bool), XML_TEXT, XML_TEXT.filter(bool))
    def test_any_name_arrives_as_it_was_written(self, domain_name, name, path):
        definition = domain_xml.parse(
            domain(
                disk(f'file={saxutils.quoteattr(path)}'),
                nova(f'<n:name>{saxutils.escape(name)}</n:name>'),
                saxutils.escape(domain_name),
            )
        )
        check_promises(definition)
        assert definition.domain == domain_xml.bounded(domain_name)
        assert definition.name == domain_xml.bounded(name)
        assert definition.disks[0].uuid == domain_xml.bounded(path)

    @hypothesis.given(strategies.data())
    def test_any_text_in_any_place_keeps_the_promises(self, data):
        root = ElementTree.fromstring(TYPICAL)
        elements = list(root.iter())
        text = data.draw(XML_TEXT) * data.draw(strategies.sampled_from([1, 1, 1, 1000]))
        element = data.draw(strategies.sampled_from(elements))
        name = data.draw(strategies.sampled_from(['', *element.attrib]))
        if name:
            element.set(name, text)
        else:
            element.text = text
        try:
            check_promises(domain_xml.parse(ElementTree.tostring(root, 'unicode')))
        except exceptions.SourceError:
            assert element.tag in ('name', 'uuid')

    @hypothesis.given(strategies.data())
    def test_any_missing_or_doubled_element_keeps_the_promises(self, data):
        root = ElementTree.fromstring(TYPICAL)
        parent = data.draw(strategies.sampled_from([e for e in root.iter() if len(e)]))
        child = data.draw(strategies.sampled_from(list(parent)))
        if data.draw(strategies.booleans()):
            parent.append(child)
        else:
            parent.remove(child)
        try:
            check_promises(domain_xml.parse(ElementTree.tostring(root, 'unicode')))
        except exceptions.SourceError:
            assert child.tag in ('name', 'uuid')

    @hypothesis.given(strategies.data())
    def test_damaged_xml_parses_or_raises_source_error_only(self, data):
        start = data.draw(strategies.integers(0, len(TYPICAL)))
        end = data.draw(strategies.integers(start, len(TYPICAL)))
        rubbish = data.draw(strategies.text(strategies.characters(exclude_categories=[])))
        self.parse_or_refuse(TYPICAL[:start] + rubbish + TYPICAL[end:])

    @hypothesis.given(strategies.text(strategies.characters(exclude_categories=[])))
    def test_garbage_parses_or_raises_source_error_only(self, text):
        self.parse_or_refuse(text)

    def parse_or_refuse(self, text: str) -> None:
        refusal = ''
        try:
            check_promises(domain_xml.parse(text))
        except exceptions.SourceError as exc:
            refusal = str(exc)
        refusal.encode()
        assert len(refusal.splitlines()) <= 1
