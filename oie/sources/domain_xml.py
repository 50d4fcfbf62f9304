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

"""Domain XML with Nova's metadata in it becomes what does not change while a guest runs.

The XML is libvirt's (https://libvirt.org/formatdomain.html), the metadata is
what Nova writes there (nova/virt/libvirt/config.py): since 2014 in namespace
1.0, since Wallaby in 1.1 with the ports, since 2025.2 also with the flavor's id
and extra specs and the image's properties.

Names in it are chosen by users, so nothing leaves here but through bounded().
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import datetime
import ipaddress
import re
from xml.etree import ElementTree

from oie import exceptions
from oie import model

MAX_TEXT = 1024
"""The longest text of a definition, in characters."""

UNKNOWN = 'unknown'

NOVA_NAMESPACE = 'http://openstack.org/xmlns/libvirt/nova/'
LIBOSINFO_NAMESPACE = 'http://libosinfo.org/xmlns/libvirt/domain/'
# The name that libvirt and QEMU's guest agent agree on.
AGENT_CHANNEL = 'org.qemu.guest_agent.0'

Parts = Mapping[str, ElementTree.Element]

_UNENCODABLE = dict.fromkeys((0, *range(0xD800, 0xE000)), '\N{REPLACEMENT CHARACTER}')
_NOTHING = ElementTree.Element('nothing')
_VOLUME_ID = '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}'
_VOLUME_SERIAL = re.compile(f'({_VOLUME_ID})')
_VOLUME_PATH = re.compile(f'volume-({_VOLUME_ID})')
# Directories of /dev that belong to the kernel and udev. Any other one is a
# volume group: vgcreate refuses a name that exists in /dev.
_DEVICE_DIRECTORIES = frozenset(
    {'block', 'cciss', 'disk', 'drbd', 'etherd', 'mapper', 'md', 'rbd', 'storpool', 'zvol'}
)
# Children of iotune: operation, unit per second, burst. Lengths of bursts and
# sizes of requests are no limits of their own.
_LIMITS = {
    f'{operation}_{name}_sec{suffix}': (operation, unit, bool(suffix))
    for suffix in ('', '_max')
    for name, unit in (('bytes', 'bytes'), ('iops', 'requests'))
    for operation in ('total', 'read', 'write')
}
# QEMU takes longer chains and more monitors, nobody has them.
_MOST_BACKING = 16
_MOST_HOSTS = 16
_DEFAULT_CPU_PERIOD_US = 100_000
"""What the kernel takes where only a quota is set (Documentation/scheduler/sched-bwc.rst)."""


def parse(text: str) -> model.Definition:
    """Return the definition of the instance that a domain XML describes.

    Without Nova metadata, or where it is incomplete, the fields it would fill
    stay empty.

    :param text: what virDomainGetXMLDesc gave
    :raises SourceError: it is not the XML of a domain, or without name or uuid
    """
    sections = _parts(_read(text))
    definition = _domain(sections)
    nova = _nova_instance(sections.get('metadata', _NOTHING))
    facts = {} if nova is None else _parts(nova)
    ports = list(facts.get('ports', _NOTHING))
    if nova is not None:
        definition = _with_metadata(definition, nova.tag, facts, ports)
    port_uuids = {_attribute(port, 'uuid') for port in ports}
    return _with_devices(definition, sections.get('devices', _NOTHING), port_uuids)


def bounded(text: str | None) -> str:
    """Return a user's text as it is, but never too long and always encodable.

    At most MAX_TEXT characters, a cut shown by an ellipsis; NUL and lone
    surrogates replaced. All else stays, line breaks and control characters
    too: to escape them is the business of each output.
    """
    if not text:
        return ''
    if len(text) > MAX_TEXT:
        text = f'{text[: MAX_TEXT - 1]}\N{HORIZONTAL ELLIPSIS}'
    return text if text.isprintable() else text.translate(_UNENCODABLE)


def _domain(sections: Parts) -> model.Definition:
    """Return what the domain says beside metadata and devices."""
    name, uuid = bounded(_text(sections, 'name')), bounded(_text(sections, 'uuid').strip())
    if not name or not uuid:
        missing = 'uuid' if name else 'name'
        raise exceptions.SourceError(f'domain {name or uuid!r}: no {missing} in its XML')
    os_type = _parts(sections.get('os', _NOTHING)).get('type', _NOTHING)
    cputune = _parts(sections.get('cputune', _NOTHING))
    quota = _number(_text(cputune, 'quota')) or None  # 0 and -1 are no quota
    period = _number(_text(cputune, 'period')) or _DEFAULT_CPU_PERIOD_US
    return model.Definition(
        uuid=uuid,
        domain=name,
        libosinfo_id=_libosinfo_id(sections.get('metadata', _NOTHING)),
        os_type=bounded(os_type.text).strip(),
        architecture=_attribute(os_type, 'arch'),
        cpu_quota_us=quota,
        cpu_period_us=period if quota else None,
    )


# --- XML --------------------------------------------------------------------


def _read(text: str) -> ElementTree.Element:
    """Return the root element ``domain``; ElementTree is expat, in C."""
    try:
        # It is libvirtd's own output, and expat bounds the expansion of entities.
        root = ElementTree.fromstring(text)  # noqa: S314
    except (ElementTree.ParseError, ValueError) as exc:
        name = text.partition('<name>')[2].partition('</name>')[0]
        problem = bounded(str(exc))
        raise exceptions.SourceError(f'domain {bounded(name)!r}: broken XML: {problem}') from exc
    if root.tag != 'domain':
        raise exceptions.SourceError(f'domain XML expected, not {bounded(root.tag)!r}')
    return root


def _local(tag: str) -> str:
    """Return a tag without its namespace."""
    return tag.rpartition('}')[2]


def _parts(element: ElementTree.Element) -> Parts:
    """Return the children by local name, the first of each."""
    return {_local(child.tag): child for child in element[::-1]}


def _text(parts: Parts, name: str) -> str:
    return parts.get(name, _NOTHING).text or ''


def _attribute(element: ElementTree.Element, name: str) -> str:
    return bounded(element.get(name))


def _number(text: str | None) -> int | None:
    """Return a plain decimal of a plausible size; anything else is not reported."""
    text = (text or '').strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


# --- metadata ---------------------------------------------------------------


def _nova_instance(metadata: ElementTree.Element) -> ElementTree.Element | None:
    """Return the ``instance`` in Nova's newest namespace, never another application's.

    Both are there when a domain of an old Nova had a port attached by a new
    one: libvirt replaces metadata within one namespace only, and 1.0 is stale.
    """
    prefix = f'{{{NOVA_NAMESPACE}'
    found = [c for c in metadata if c.tag.startswith(prefix) and _local(c.tag) == 'instance']
    return max(found, key=lambda element: element.tag, default=None)


def _libosinfo_id(metadata: ElementTree.Element) -> str:
    prefix = f'{{{LIBOSINFO_NAMESPACE}'
    for child in metadata:
        if child.tag.startswith(prefix) and _local(child.tag) == 'libosinfo':
            return _attribute(_parts(child).get('os', _NOTHING), 'id')
    return ''


def _with_metadata(
    definition: model.Definition,
    tag: str,
    facts: Parts,
    ports: Sequence[ElementTree.Element],
) -> model.Definition:
    """Return the definition completed by the children of ``nova:instance``."""
    owner = _parts(facts.get('owner', _NOTHING))
    root = facts.get('root', _NOTHING)
    root_type = _attribute(root, 'type').strip()
    created_at = bounded(_text(facts, 'creationTime').strip())
    image = _parts(facts.get('image', _NOTHING))
    return dataclasses.replace(
        definition,
        has_nova_metadata=True,
        metadata_namespace=bounded(tag[1 + len(NOVA_NAMESPACE) :].partition('}')[0]),
        nova_version=_attribute(facts.get('package', _NOTHING), 'version').strip(),
        name=bounded(_text(facts, 'name')),
        created_at=created_at,
        created_timestamp=_timestamp(created_at),
        project_uuid=_attribute(owner.get('project', _NOTHING), 'uuid'),
        project_name=bounded(_text(owner, 'project').strip()),
        user_uuid=_attribute(owner.get('user', _NOTHING), 'uuid'),
        user_name=bounded(_text(owner, 'user').strip()),
        flavor=_flavor(facts.get('flavor', _NOTHING)),
        root_type=root_type,
        image_uuid=_attribute(root, 'uuid') if root_type == 'image' else '',
        image_properties=_named_texts(image.get('properties', _NOTHING)),
        addresses=_addresses(ports),
    )


def _flavor(element: ElementTree.Element) -> model.Flavor:
    parts = _parts(element)
    return model.Flavor(
        name=_attribute(element, 'name').strip(),
        id=_attribute(element, 'id').strip(),
        vcpus=_number(_text(parts, 'vcpus')),
        memory_mib=_number(_text(parts, 'memory')),
        disk_gib=_number(_text(parts, 'disk')),
        ephemeral_gib=_number(_text(parts, 'ephemeral')),
        swap_mib=_number(_text(parts, 'swap')),
        extra_specs=_named_texts(parts.get('extraSpecs', _NOTHING)),
    )


def _named_texts(element: ElementTree.Element) -> Mapping[str, str]:
    """Return the texts of the children by their attribute ``name``."""
    return {bounded(name): bounded(child.text) for child in element if (name := child.get('name'))}


def _timestamp(created_at: str) -> float | None:
    """Return the Unix time of Nova's ``creationTime``, which is UTC without saying so."""
    try:
        time = datetime.datetime.strptime(created_at, '%Y-%m-%d %H:%M:%S')
    except ValueError:
        return None
    return time.replace(tzinfo=datetime.timezone.utc).timestamp()


def _addresses(ports: Iterable[ElementTree.Element]) -> tuple[model.Address, ...]:
    """Return every address of every port once, with the port that had it first."""
    found: dict[str, model.Address] = {}
    for port in ports:
        for child in port:
            ip = _ip(child.get('address', '')) if _local(child.tag) == 'ip' else None
            if ip is not None:
                address = model.Address(
                    ip=str(ip), family=f'ipv{ip.version}', port_uuid=_attribute(port, 'uuid')
                )
                found.setdefault(address.ip, address)
    return tuple(found.values())


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an address that can stand in a packet: no scope, no IPv4 mapped into IPv6."""
    try:
        ip = ipaddress.ip_address(text.strip())
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    return None if ip.scope_id is not None else ip.ipv4_mapped or ip


# --- devices ----------------------------------------------------------------


def _with_devices(
    definition: model.Definition,
    devices: ElementTree.Element,
    port_uuids: Iterable[str],
) -> model.Definition:
    return dataclasses.replace(
        definition,
        disks=_disks(devices, definition.labels),
        interfaces=_interfaces(devices, definition.labels, port_uuids),
        host_devices=_host_devices(devices),
        has_agent_channel=_has_agent_channel(devices),
    )


def _has_agent_channel(devices: ElementTree.Element) -> bool:
    targets = (_parts(each).get('target', _NOTHING) for each in devices if each.tag == 'channel')
    return any(target.get('name') == AGENT_CHANNEL for target in targets)


def _disks(devices: ElementTree.Element, owner: model.Labels) -> tuple[model.DiskDevice, ...]:
    """Return the hard disks, as the contract has it: no cdrom, floppy or lun."""
    found: dict[str, model.DiskDevice] = {}
    for element in devices:
        if element.tag == 'disk' and element.get('device', 'disk') == 'disk':
            disk = _disk(element, owner)
            if disk.target:
                found.setdefault(disk.target, disk)
    return tuple(found.values())


def _disk(element: ElementTree.Element, owner: model.Labels) -> model.DiskDevice:
    parts = _parts(element)
    source, target = parts.get('source', _NOTHING), parts.get('target', _NOTHING)
    disk_type = _attribute(element, 'type')
    serial = bounded(_text(parts, 'serial').strip())
    tier, uuid = _tier_and_uuid(disk_type, source, serial)
    return model.DiskDevice(
        owner=owner,
        target=_attribute(target, 'dev'),
        type=disk_type,
        tier=bounded(tier) or UNKNOWN,
        uuid=bounded(uuid) or UNKNOWN,
        source=bounded(_disk_source(disk_type, source)),
        driver_format=_attribute(parts.get('driver', _NOTHING), 'type'),
        serial=serial,
        bus=_attribute(target, 'bus'),
        limits=_disk_limits(_parts(parts.get('iotune', _NOTHING))),
        boot_order=_number(parts.get('boot', _NOTHING).get('order')),
        is_encrypted='encryption' in parts or 'encryption' in _parts(source),
        backing=_backing(parts.get('backingStore')),
        server=_disk_server(parts, source) if disk_type == 'network' else None,
    )


def _backing(element: ElementTree.Element | None) -> tuple[tuple[str, str], ...] | None:
    """Return the images below a disk, the nearest first, each with its format.

    libvirt ends the chain of a running domain by an empty element.
    """
    if element is None:
        return None
    chain: list[tuple[str, str]] = []
    while element is not None and len(element) and len(chain) < _MOST_BACKING:
        parts = _parts(element)
        source = _disk_source(_attribute(element, 'type'), parts.get('source', _NOTHING))
        chain.append((bounded(source), _attribute(parts.get('format', _NOTHING), 'type')))
        element = parts.get('backingStore')
    return tuple(chain)


def _disk_server(parts: Parts, source: ElementTree.Element) -> model.DiskServer:
    hosts = [
        _host(_attribute(host, 'name'), _attribute(host, 'port'))
        for host in source
        if host.tag == 'host' and host.get('name')
    ]
    auth = parts.get('auth', _parts(source).get('auth', _NOTHING))
    return model.DiskServer(
        protocol=_attribute(source, 'protocol'),
        name=_attribute(source, 'name'),
        hosts=tuple(hosts[:_MOST_HOSTS]),
        user=_attribute(auth, 'username'),
    )


def _host(name: str, port: str) -> str:
    name = f'[{name}]' if ':' in name and not name.startswith('[') else name
    return bounded(f'{name}:{port}' if port else name)


def _disk_limits(parts: Parts) -> tuple[model.DiskLimit, ...]:
    """Return the throttles that are set; libvirt writes 0 for none."""
    return tuple(
        model.DiskLimit(operation=operation, unit=unit, is_burst=is_burst, value=value)
        for name, (operation, unit, is_burst) in _LIMITS.items()
        if (value := _number(_text(parts, name)))
    )


def _tier_and_uuid(disk_type: str, source: ElementTree.Element, serial: str) -> tuple[str, str]:
    """Return where a disk lies and how it is called there, empty for unknown.

    Files and images in a pool (``pool/image``, further parts dropped) are told
    as the reference exporter does. An empty part of a name (``/image``) is
    unknown: an empty label would be none at all.
    """
    if disk_type == 'file':
        return 'local', source.get('file', '')
    if disk_type == 'network':
        pool, slash, image = source.get('name', '').partition('/')
        return (pool, image.partition('/')[0]) if slash else ('', '')
    if disk_type == 'volume':
        return source.get('pool', ''), source.get('volume', '')
    return _device_tier_and_uuid(source.get('dev', ''), serial)


def _device_tier_and_uuid(path: str, serial: str) -> tuple[str, str]:
    """Return volume group and volume of a block device as far as the XML proves them.

    The uuid is Cinder's volume id, by the serial that Nova gives to every
    volume or by a path that ends or goes on after ``volume-UUID`` (LVM, iSCSI);
    else the name of the logical volume. Paths like /dev/dm-3, /dev/disk/by-id
    or /dev/mapper name no group that is sure, so their tier is unknown.
    """
    directory, _, name = path.rpartition('/')
    group = directory.removeprefix('/dev/')
    is_group = group != directory and '/' not in group and group not in _DEVICE_DIRECTORIES
    volume = _VOLUME_SERIAL.fullmatch(serial) or _VOLUME_PATH.search(path)
    tier = group if is_group else ''
    return tier, volume[1] if volume else name if tier else ''


def _disk_source(disk_type: str, source: ElementTree.Element) -> str:
    """Return what a human would look for: a path, ``rbd:pool/image`` or ``pool/volume``."""
    if disk_type == 'network':
        return ':'.join(filter(None, (source.get('protocol'), source.get('name'))))
    if disk_type == 'volume':
        return '/'.join(filter(None, (source.get('pool'), source.get('volume'))))
    return _first(source, ('file', 'dev', 'dir', 'path'))


def _first(element: ElementTree.Element, names: Iterable[str]) -> str:
    """Return the first of the attributes that is there."""
    return next((value for name in names if (value := element.get(name))), '')


def _interfaces(
    devices: ElementTree.Element, owner: model.Labels, port_uuids: Iterable[str]
) -> tuple[model.InterfaceDevice, ...]:
    """Return the interfaces; of several with one host device the first."""
    found: dict[str | int, model.InterfaceDevice] = {}
    for element in devices:
        if element.tag == 'interface':
            interface = _interface(element, owner, port_uuids)
            found.setdefault(interface.target or len(found), interface)
    return tuple(found.values())


def _interface(
    element: ElementTree.Element, owner: model.Labels, port_uuids: Iterable[str]
) -> model.InterfaceDevice:
    parts = _parts(element)
    source = parts.get('source', _NOTHING)
    interface_type = _attribute(element, 'type')
    is_passed_through = interface_type == 'hostdev'
    target = '' if is_passed_through else _attribute(parts.get('target', _NOTHING), 'dev')
    parameters = _parts(parts.get('virtualport', _NOTHING)).get('parameters', _NOTHING)
    return model.InterfaceDevice(
        owner=owner,
        target=target,
        type=interface_type,
        mac=bounded(parts.get('mac', _NOTHING).get('address', '').lower()),
        port_uuid=_attribute(parameters, 'interfaceid') or _port_of(target, port_uuids),
        model=_attribute(parts.get('model', _NOTHING), 'type'),
        mtu=_number(parts.get('mtu', _NOTHING).get('size')),
        source=bounded(_first(source, ('network', 'bridge', 'dev', 'path'))),
        pci_address=_pci_address(source) if is_passed_through else '',
    )


def _port_of(target: str, port_uuids: Iterable[str]) -> str:
    """Return the port whose uuid begins as a device of Nova's naming goes on.

    Nova and Neutron call a port's device tap, vhu or nic and the port's uuid,
    cut to 14 characters (NIC_NAME_LEN in nova/network/model.py). The order of
    ports and interfaces proves nothing: attaching and detaching changes it.
    """
    if len(target) != 14 or not target.startswith(('tap', 'vhu', 'nic')):
        return ''
    ports = [uuid for uuid in port_uuids if uuid.startswith(target[3:])]
    return ports[0] if len(ports) == 1 else ''


def _host_devices(devices: ElementTree.Element) -> tuple[model.HostDevice, ...]:
    """Return the passed-through PCI and mediated devices that are no interfaces."""
    found: dict[tuple[str, str], model.HostDevice] = {}
    for element in devices:
        device_type = _attribute(element, 'type')
        if element.tag == 'hostdev' and device_type in ('pci', 'mdev'):
            source = _parts(element).get('source', _NOTHING)
            mdev = _attribute(_parts(source).get('address', _NOTHING), 'uuid')
            address = mdev if device_type == 'mdev' else _pci_address(source)
            device = model.HostDevice(
                type=device_type, address=address, model=_attribute(element, 'model')
            )
            if address:
                found.setdefault((device_type, address), device)
    return tuple(found.values())


def _pci_address(source: ElementTree.Element) -> str:
    """Return the host's address in ``source`` as lspci writes it, 0000:81:00.2."""
    address = _parts(source).get('address', _NOTHING)
    names = ('domain', 'bus', 'slot', 'function')
    try:
        domain, bus, slot, function = (int(address.get(name, ''), 16) for name in names)
    except ValueError:
        return ''
    is_valid = 0 <= domain < 2**32 and 0 <= bus < 256 and 0 <= slot < 32 and 0 <= function < 8
    return f'{domain:04x}:{bus:02x}:{slot:02x}.{function:x}' if is_valid else ''
