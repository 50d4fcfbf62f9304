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

"""The disks of an instance as a job for the inspection: which, in which order, how to open them.

The format of each image is the one of the domain XML. It is never looked for in
the image: what begins a raw disk is written by the guest, and a header there
could name any file of the host.
"""

import base64
import binascii
from collections.abc import Mapping
from collections.abc import Sequence
import os
from typing import Any

from oie import model
from oie.sources.guest_os import base

BOOT_ID = '/proc/sys/kernel/random/boot_id'
MOST_DISKS = 4
MOST_SECRET_BYTES = 4096

# QEMU reads more, but Nova uses these, and each further one is more code that meets
# strangers' data.
_FORMATS = ('raw', 'qcow2')
_LAST = 2**63


def ordered(definition: model.Definition) -> tuple[model.DiskDevice, ...]:
    """Return the disks, the one that the guest boots from first.

    That is the first of the boot order where the XML has one, else the first of all.
    """
    return tuple(sorted(definition.disks, key=lambda disk: disk.boot_order or _LAST))


def job(disks: Sequence[model.DiskDevice], secrets: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return how to open the first disk, and those of the next three that can be.

    :param disks: the one that the guest boots from first
    :param secrets: keys of Ceph by user
    :raises InspectionFailed: the first one cannot be opened; others may tell of another system
    """
    first, *others = disks[:MOST_DISKS]
    entries = [entry(first, secrets)]
    for disk in others:
        try:
            entries.append(entry(disk, secrets))
        except base.InspectionFailed:
            continue
    return entries


def entry(disk: model.DiskDevice, secrets: Mapping[str, str]) -> dict[str, Any]:
    """Return how to open a disk.

    :raises InspectionFailed: it cannot be, or must not be opened
    """
    name = f'disk {disk.target} ({disk.source or "no source"})'
    if disk.is_encrypted:
        raise base.InspectionFailed('refused', f'{name} is encrypted')
    if disk.driver_format not in _FORMATS:
        told = disk.driver_format or 'no format'
        raise base.InspectionFailed(
            'refused',
            f'{name}: the domain XML tells {told}; only {" and ".join(_FORMATS)} are inspected',
        )
    if disk.type in ('file', 'block') and os.path.isabs(disk.source):
        return {
            'path': disk.source,
            'format': disk.driver_format,
            'backing': [list(below) for below in disk.backing or ()],
        }
    if disk.server is not None and disk.server.protocol == 'rbd':
        return _rbd(name, disk.driver_format, disk.server, secrets)
    kind = disk.server.protocol if disk.server else disk.type
    raise base.InspectionFailed(
        'refused', f'{name}: disks of kind {kind or "unknown"} are not inspected'
    )


def _rbd(
    name: str, image_format: str, server: model.DiskServer, secrets: Mapping[str, str]
) -> dict[str, Any]:
    if image_format != 'raw':
        # Its header cannot be checked from here.
        raise base.InspectionFailed('refused', f'{name}: only raw images of RBD are inspected')
    if server.user and server.user not in secrets:
        raise base.InspectionFailed(
            'setup',
            f'{name}: no key for the Ceph user {server.user}; name a keyring that has it in '
            '[guest_os_libguestfs] rbd_keyring',
        )
    if any(sign in server.name + server.user for sign in '\\:@='):
        # libguestfs pastes them into options of QEMU.
        raise base.InspectionFailed('refused', f'{name}: its name would change how it is opened')
    return {
        'name': server.name,
        'format': image_format,
        'hosts': list(server.hosts),
        'username': server.user,
        'secret': secrets.get(server.user, ''),
    }


def identity(disk: model.DiskDevice) -> str:
    """Return what changes when another image takes the place of a disk.

    The length of a raw image is part of it; one in format qcow2 grows while it is written.
    """
    known = [disk.type, disk.source, disk.driver_format]
    if disk.server is not None:
        known.extend(disk.server.hosts)
    elif disk.source:
        known.extend(_inode(disk))
    return '|'.join(known)


def _inode(disk: model.DiskDevice) -> list[str]:
    try:
        status = os.stat(disk.source)
    except (OSError, ValueError):
        return []
    size = status.st_size if disk.driver_format == 'raw' else 0
    return [str(each) for each in (status.st_dev, status.st_rdev, status.st_ino, size)]


def boot_id() -> str:
    """Return what changes with every boot of this host. Source: random(4)."""
    with open(BOOT_ID, encoding='ascii') as file:
        return file.read().strip()


def keyring(text: str) -> dict[str, str]:
    """Return the keys of a Ceph keyring by user.

    :param text: sections ``[client.USER]``, each with a line ``key = BASE64``
    """
    found: dict[str, str] = {}
    user = ''
    for line in text.splitlines():
        line = line.strip()
        if line.startswith('['):
            kind, _, user = line.strip('[]').partition('.')
            user = user if kind == 'client' else ''
        name, equals, value = (part.strip() for part in line.partition('='))
        if user and equals and name == 'key' and _is_base64(value):
            found.setdefault(user, value)
    return found


def _is_base64(text: str) -> bool:
    try:
        return bool(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return False
