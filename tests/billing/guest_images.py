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

"""Disk images with as much of an operating system as libguestfs looks at.

The ext4 image is made by mke2fs from a directory; LVM and NTFS need an
appliance of libguestfs, one for both images. The registry hives are written
here (Windows registry file format, regf 1.3), so no Windows is needed.
"""

from collections.abc import Mapping
import os
import pathlib
import struct
import subprocess
import sys

MIB = 2**20
_SECTOR = 512

Key = Mapping[str, 'int | str | Key']


# --- Linux --------------------------------------------------------------------


def debian_tree(root: pathlib.Path, version: str = '12.5', codename: str = 'bookworm') -> None:
    """Write the files by which Debian is known."""
    major = version.partition('.')[0]
    files = {
        'etc/os-release': (
            f'PRETTY_NAME="Debian GNU/Linux {major} ({codename})"\nNAME="Debian GNU/Linux"\n'
            f'VERSION_ID="{major}"\nVERSION="{major} ({codename})"\nID=debian\n'
        ),
        'etc/debian_version': f'{version}\n',
        'etc/hostname': f'guest-{codename}\n',
        'etc/fstab': 'LABEL=root / ext4 defaults 0 1\n',
        'var/lib/dpkg/status': '',
        'usr/bin/ls': '',
        'usr/lib/ld': '',
        'boot/config': '',
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding='utf-8')
    (root / 'bin').symlink_to('usr/bin')
    (root / 'lib').symlink_to('usr/lib')


def ext4(path: pathlib.Path, tree: pathlib.Path, megabytes: int = 64) -> None:
    """Make a raw image: an MBR with one partition, ext4 with a tree of files."""
    with path.open('wb') as image:
        image.truncate(megabytes * MIB)
        image.write(_mbr(first=2048, sectors=(megabytes - 1) * MIB // _SECTOR))
    subprocess.run(
        ['mke2fs', '-q', '-F', '-t', 'ext4', '-L', 'root', '-E', f'offset={MIB}']
        + ['-d', tree, path, f'{megabytes - 1}M'],
        check=True,
        env={**os.environ, 'PATH': f'{os.environ["PATH"]}:/usr/sbin:/sbin'},
    )


def _mbr(first: int, sectors: int) -> bytes:
    entry = struct.pack('<B3sB3sII', 0x80, b'\0\2\0', 0x83, b'\xff\xff\xff', first, sectors)
    return b'\0' * 446 + entry + b'\0' * 48 + b'\x55\xaa'


def qcow2(path: pathlib.Path, source: pathlib.Path) -> None:
    """Convert a raw image."""
    command = ['qemu-img', 'convert', '-q', '-f', 'raw', '-O', 'qcow2', source, path]
    subprocess.run(command, check=True)


def overlay(path: pathlib.Path, below: pathlib.Path, below_format: str) -> None:
    """Make an empty qcow2 image above another one."""
    command = ['qemu-img', 'create', '-q', '-f', 'qcow2', '-b', below, '-F', below_format, path]
    subprocess.run(command, check=True)


# --- Windows ------------------------------------------------------------------


def windows_hives(product: str, variant: str, major: int, minor: int) -> dict[str, bytes]:
    """Return the two hives by which Windows is known."""
    version = {
        'ProductName': product,
        'InstallationType': variant,
        'CurrentVersion': '6.3',
        'CurrentMajorVersionNumber': major,
        'CurrentMinorVersionNumber': minor,
        'CurrentBuildNumber': '20348',
        'CurrentBuild': '20348',
        'SystemRoot': 'C:\\Windows',
    }
    control = {'Services': {'Tcpip': {'Parameters': {'Hostname': 'GUEST-WIN'}}}}
    return {
        'SOFTWARE': hive({'Microsoft': {'Windows NT': {'CurrentVersion': version}}}),
        'SYSTEM': hive({'ControlSet001': control, 'MountedDevices': {}, 'Select': {'Current': 1}}),
    }


def hive(root: Key) -> bytes:
    """Return a registry hive: texts become REG_SZ, integers REG_DWORD, mappings keys."""
    return _Hive().made(root)


class _Hive:
    """Cells of a hive; an offset counts from the first block after the header."""

    _NONE = 0xFFFFFFFF
    _BLOCK = 4096

    def __init__(self) -> None:
        self._cells = bytearray(32)
        self._security = 0

    def made(self, root: Key) -> bytes:
        descriptor = struct.pack('<BBHIIII', 1, 0, 0x8000, 0, 0, 0, 0)
        offset = self._reserve(20 + len(descriptor))
        self._fill(
            offset,
            struct.pack('<2sHIIII', b'sk', 0, offset, offset, 1, len(descriptor)) + descriptor,
        )
        self._security = offset
        root_offset = self._key('ROOT', root, self._NONE, flags=0x2C)
        return self._header(root_offset, self._closed())

    def _closed(self) -> bytes:
        free = -len(self._cells) % self._BLOCK or self._BLOCK
        self._cells += struct.pack('<i', free) + b'\0' * (free - 4)
        self._cells[:32] = struct.pack('<4sII', b'hbin', 0, len(self._cells)) + b'\0' * 20
        return bytes(self._cells)

    def _header(self, root_offset: int, cells: bytes) -> bytes:
        head = struct.pack(
            '<4sIIQIIIIIII', b'regf', 1, 1, 0, 1, 3, 0, 1, root_offset, len(cells), 1
        ).ljust(508, b'\0')
        checksum = 0
        for (word,) in struct.iter_unpack('<I', head):
            checksum ^= word
        return (head + struct.pack('<I', checksum)).ljust(self._BLOCK, b'\0') + cells

    def _reserve(self, size: int) -> int:
        offset, whole = len(self._cells), size + 4 + -(size + 4) % 8
        self._cells += struct.pack('<i', -whole) + b'\0' * (whole - 4)
        return offset

    def _fill(self, offset: int, content: bytes) -> None:
        self._cells[offset + 4 : offset + 4 + len(content)] = content

    def _add(self, content: bytes) -> int:
        offset = self._reserve(len(content))
        self._fill(offset, content)
        return offset

    def _key(self, name: str, content: Key, parent: int, flags: int = 0x20) -> int:
        offset = self._reserve(76 + len(name))
        keys = sorted((n for n, v in content.items() if isinstance(v, Mapping)), key=str.upper)
        below = [(self._key(n, content[n], offset), n) for n in keys]  # type: ignore[arg-type]
        values = [self._value(n, v) for n, v in content.items() if not isinstance(v, Mapping)]
        listed = b''.join(struct.pack('<I4s', at, n.encode()[:4]) for at, n in below)
        fields = (
            *(0, 0, parent, len(below), 0),
            self._add(struct.pack('<2sH', b'lf', len(below)) + listed) if below else self._NONE,
            self._NONE,
            len(values),
            self._add(struct.pack(f'<{len(values)}I', *values)) if values else self._NONE,
            self._security,
            self._NONE,
            *(max((2 * len(n) for _, n in below), default=0), 0, 64, 256, 0),
        )
        text = name.encode()
        head = struct.pack('<2sHQ15I', b'nk', flags, *fields)
        self._fill(offset, head + struct.pack('<HH', len(text), 0) + text)
        return offset

    def _value(self, name: str, value: object) -> int:
        if isinstance(value, int):
            kind, length, place = 4, 0x80000004, value
        else:
            data = f'{value}\0'.encode('utf-16-le')
            kind, length, place = 1, len(data), self._add(data)
        text = name.encode()
        head = struct.pack('<2sHIIIHH', b'vk', len(text), length, place, kind, 1, 0)
        return self._add(head + text)


# --- by an appliance ----------------------------------------------------------


def by_appliance(
    lvm: pathlib.Path,
    ntfs: pathlib.Path,
    hives: Mapping[str, bytes],
    tree: pathlib.Path,
    environment: Mapping[str, str],
) -> None:
    """Make two raw images: an ESP with LVM beside it, and NTFS; tar and hives go in.

    This very file does it, run by the Python that has guestfs.
    """
    for image in (lvm, ntfs):
        with image.open('wb') as file:
            file.truncate(128 * MIB)
    archive = lvm.with_suffix('.tar')
    subprocess.run(['tar', '-C', tree, '-cf', archive, '.'], check=True)
    places = []
    for name, content in hives.items():
        place = ntfs.with_name(name)
        place.write_bytes(content)
        places.append(str(place))
    subprocess.run(
        ['/usr/bin/python3', '-I', __file__, lvm, ntfs, archive, *places],
        check=True,
        timeout=400,
        env={'PATH': '/usr/sbin:/usr/bin:/sbin:/bin', **environment},
    )


def _make(lvm: str, ntfs: str, archive: str, *hives: str) -> None:
    import guestfs

    guest = guestfs.GuestFS(python_return_dict=True)
    for path in (lvm, ntfs):
        guest.add_drive_opts(path, format='raw')
    guest.launch()
    guest.part_init('/dev/sda', 'gpt')
    guest.part_add('/dev/sda', 'p', 2048, 40959)
    guest.part_add('/dev/sda', 'p', 40960, -64)
    guest.part_set_gpt_type('/dev/sda', 1, 'C12A7328-F81F-11D2-BA4B-00A0C93EC93B')
    guest.mkfs('vfat', '/dev/sda1')
    guest.pvcreate('/dev/sda2')
    guest.vgcreate('vg', ['/dev/sda2'])
    guest.lvcreate('root', 'vg', 80)
    guest.mkfs('ext4', '/dev/vg/root')
    guest.mount('/dev/vg/root', '/')
    guest.tar_in(archive, '/')
    guest.umount_all()
    guest.part_disk('/dev/sdb', 'mbr')
    guest.part_set_mbr_id('/dev/sdb', 1, 7)
    guest.mkfs('ntfs', '/dev/sdb1')
    guest.mount('/dev/sdb1', '/')
    guest.mkdir_p('/Windows/System32/Config')
    guest.mkdir('/Program Files')
    guest.upload('/bin/true', '/Windows/System32/cmd.exe')
    guest.write('/autoexec.bat', b'')
    for path in hives:
        guest.upload(path, f'/Windows/System32/Config/{pathlib.Path(path).name}')
    guest.shutdown()
    guest.close()


if __name__ == '__main__':
    _make(*sys.argv[1:])
