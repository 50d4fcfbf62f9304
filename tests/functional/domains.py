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

"""Domain XML as Nova writes it, for guests without an operating system."""

from collections.abc import Mapping
import dataclasses
import ipaddress
from typing import Literal
from xml.etree import ElementTree

#: ``1.0``: before Victoria, no ports. ``1.1``: Victoria to 2025.1. ``2025.2``: namespace 1.1 with
#: flavor id, extra specs and image. ``none``: not a Nova instance.
Metadata = Literal['none', '1.0', '1.1', '2025.2']

NAMESPACE = 'http://openstack.org/xmlns/libvirt/nova/'
EMULATOR = '/usr/bin/qemu-system-x86_64'

_FIRST_WITH_ROOT_OF_VOLUME = 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Owner:
    user_id: str
    user_name: str
    project_id: str
    project_name: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flavor:
    name: str = 'm1.nano'
    flavor_id: str = '42'
    memory_mib: int = 24
    disk_gib: int = 1
    swap_mib: int = 0
    ephemeral_gib: int = 0
    vcpus: int = 1
    extra_specs: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Image:
    uuid: str = ''
    container_format: str = 'bare'
    disk_format: str = 'raw'
    min_disk_gib: int = 1
    min_ram_mib: int = 0
    properties: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Port:
    """A Neutron port and the interface of the guest that it belongs to."""

    port_id: str
    mac: str
    target: str
    addresses: tuple[str, ...] = ()
    model: str = 'virtio'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Disk:
    target: str
    path: str
    type: Literal['file', 'block'] = 'file'
    device: Literal['disk', 'cdrom'] = 'disk'
    format: Literal['raw', 'qcow2'] = 'raw'
    bus: str = 'virtio'
    serial: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instance:
    """What Nova and libvirt know of one guest.

    ``root_id`` empty means booted from a volume. ``kernel`` and ``initrd`` are booted instead of
    the disk. ``agent_socket`` is where somebody listens who answers for the guest agent: QEMU and
    libvirtd both connect there. ``nova_version`` and ``created_at`` (text in UTC,
    as in the XML) are what the metadata says.
    """

    name: str
    uuid: str
    display_name: str
    owner: Owner
    flavor: Flavor = Flavor()
    image: Image = Image()
    root_id: str = 'fe55c69a-8b2e-4bbc-811a-9ad2023a0426'
    nova_version: str = '31.0.0'
    created_at: str = '2026-11-20 08:09:10'
    metadata: Metadata = '1.1'
    vcpus: int = 1
    max_vcpus: int = 1
    memory_mib: int = 24
    disks: tuple[Disk, ...] = ()
    ports: tuple[Port, ...] = ()
    has_balloon: bool = True
    has_network_boot: bool = False
    kernel: str = ''
    initrd: str = ''
    agent_socket: str = ''


def nova_metadata(instance: Instance) -> ElementTree.Element | None:
    """Return the ``nova:instance`` element in the order Nova writes; None for no metadata.

    Source: nova/virt/libvirt/config.py and driver.py, commits 838370a490 (namespace 1.1) and
    00a030403f (2026); nova/virt/driver.py, commit 93b90d2b6a (2024.2, root of a volume).
    """
    if instance.metadata == 'none':
        return None
    is_new = instance.metadata == '2025.2'
    namespace = NAMESPACE + ('1.0' if instance.metadata == '1.0' else '1.1')
    meta = ElementTree.Element('nova:instance', {'xmlns:nova': namespace})
    _add(meta, 'nova:package', version=instance.nova_version)
    _add(meta, 'nova:name', instance.display_name)
    _add(meta, 'nova:creationTime', instance.created_at)
    _add_flavor(meta, instance.flavor, is_new=is_new)
    if is_new:
        _add_image(meta, instance.image)
    owner = _add(meta, 'nova:owner')
    _add(owner, 'nova:user', instance.owner.user_name, uuid=instance.owner.user_id)
    _add(owner, 'nova:project', instance.owner.project_name, uuid=instance.owner.project_id)
    if instance.root_id:
        _add(meta, 'nova:root', type='image', uuid=instance.root_id)
    elif int(instance.nova_version.partition('.')[0]) >= _FIRST_WITH_ROOT_OF_VOLUME:
        _add(meta, 'nova:root', type='volume', uuid='')
    if instance.metadata != '1.0':
        _add_ports(meta, instance.ports)
    return meta


def domain_xml(instance: Instance) -> str:
    """Return a domain that QEMU can run without KVM and without an operating system."""
    domain = ElementTree.Element('domain', {'type': 'qemu'})
    _add(domain, 'name', instance.name)
    _add(domain, 'uuid', instance.uuid)
    metadata = nova_metadata(instance)
    if metadata is not None:
        _add(domain, 'metadata').append(metadata)
    _add(domain, 'memory', str(instance.memory_mib), unit='MiB')
    current = {'current': str(instance.vcpus)} if instance.vcpus < instance.max_vcpus else {}
    _add(domain, 'vcpu', str(instance.max_vcpus), placement='static', **current)
    _add_system(domain, instance)
    devices = _add(domain, 'devices')
    _add(devices, 'emulator', EMULATOR)
    for disk in instance.disks:
        devices.append(disk_element(disk))
    _add(devices, 'controller', type='usb', model='none')
    if instance.agent_socket:
        devices.append(_agent_channel(instance.agent_socket))
    for port in instance.ports:
        devices.append(interface_element(port, has_rom=instance.has_network_boot))
    balloon = _add(devices, 'memballoon', model='virtio' if instance.has_balloon else 'none')
    if instance.has_balloon:
        _add(balloon, 'stats', period='10')
    return to_text(domain)


def disk_element(disk: Disk) -> ElementTree.Element:
    element = ElementTree.Element('disk', {'type': disk.type, 'device': disk.device})
    _add(element, 'driver', name='qemu', type=disk.format)
    _add(element, 'source', **{'file' if disk.type == 'file' else 'dev': disk.path})
    _add(element, 'target', dev=disk.target, bus=disk.bus)
    if disk.serial is not None:
        _add(element, 'serial', disk.serial)
    if disk.device == 'cdrom':
        _add(element, 'readonly')
    return element


def interface_element(port: Port, *, has_rom: bool = False) -> ElementTree.Element:
    """Return an interface as Nova writes it for a port plugged by os-vif."""
    element = ElementTree.Element('interface', {'type': 'ethernet'})
    _add(element, 'mac', address=port.mac)
    _add(element, 'target', dev=port.target)
    _add(element, 'model', type=port.model)
    if not has_rom:
        _add(element, 'rom', enabled='no')
    return element


def _agent_channel(path: str) -> ElementTree.Element:
    channel = ElementTree.Element('channel', {'type': 'unix'})
    _add(channel, 'source', mode='connect', path=path)
    _add(channel, 'target', type='virtio', name='org.qemu.guest_agent.0')
    return channel


def to_text(element: ElementTree.Element) -> str:
    ElementTree.indent(element)
    return ElementTree.tostring(element, encoding='unicode') + '\n'


def _add_system(domain: ElementTree.Element, instance: Instance) -> None:
    sysinfo = _add(_add(domain, 'sysinfo', type='smbios'), 'system')
    _add(sysinfo, 'entry', 'OpenStack Foundation', name='manufacturer')
    _add(sysinfo, 'entry', 'OpenStack Nova', name='product')
    _add(sysinfo, 'entry', instance.nova_version, name='version')
    _add(sysinfo, 'entry', instance.uuid, name='serial')
    _add(sysinfo, 'entry', instance.uuid, name='uuid')
    _add(sysinfo, 'entry', 'Virtual Machine', name='family')
    system = _add(domain, 'os')
    _add(system, 'type', 'hvm', arch='x86_64', machine='pc')
    if instance.kernel:
        _add(system, 'kernel', instance.kernel)
        _add(system, 'initrd', instance.initrd)
        _add(system, 'cmdline', 'quiet panic=-1')
    if instance.has_network_boot:
        _add(system, 'boot', dev='network')
    _add(system, 'boot', dev='hd')
    _add(system, 'smbios', mode='sysinfo')
    _add(_add(domain, 'features'), 'acpi')
    _add(_add(domain, 'clock', offset='utc'), 'timer', name='hpet', present='no')


def _add_flavor(meta: ElementTree.Element, flavor: Flavor, *, is_new: bool) -> None:
    identity = {'id': flavor.flavor_id} if is_new else {}
    element = _add(meta, 'nova:flavor', name=flavor.name, **identity)
    _add(element, 'nova:memory', str(flavor.memory_mib))
    _add(element, 'nova:disk', str(flavor.disk_gib))
    _add(element, 'nova:swap', str(flavor.swap_mib))
    _add(element, 'nova:ephemeral', str(flavor.ephemeral_gib))
    _add(element, 'nova:vcpus', str(flavor.vcpus))
    if is_new:
        specs = _add(element, 'nova:extraSpecs')
        for name, value in flavor.extra_specs.items():
            _add(specs, 'nova:extraSpec', value, name=name)


def _add_image(meta: ElementTree.Element, image: Image) -> None:
    element = _add(meta, 'nova:image', uuid=image.uuid)
    _add(element, 'nova:containerFormat', image.container_format)
    _add(element, 'nova:diskFormat', image.disk_format)
    _add(element, 'nova:minDisk', str(image.min_disk_gib))
    _add(element, 'nova:minRam', str(image.min_ram_mib))
    properties = _add(element, 'nova:properties')
    for name, value in image.properties.items():
        _add(properties, 'nova:property', value, name=name)


def _add_ports(meta: ElementTree.Element, ports: tuple[Port, ...]) -> None:
    element = _add(meta, 'nova:ports')
    for port in ports:
        port_element = _add(element, 'nova:port', uuid=port.port_id)
        for address in port.addresses:
            version = str(ipaddress.ip_address(address).version)
            _add(port_element, 'nova:ip', type='fixed', address=address, ipVersion=version)


def _add(
    parent: ElementTree.Element, tag: str, text: str | None = None, **attributes: str
) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, tag, attributes)
    element.text = text
    return element
