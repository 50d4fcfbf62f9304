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

"""Small bootable disks: what a guest without an operating system does, in 512 bytes."""

from collections.abc import Sequence
import pathlib
import struct
from typing import Literal
import uuid

from tests.functional import domains
from tests.functional import processes

#: ``block`` is a loop device over a file.
Kind = Literal['raw', 'qcow2', 'block', 'cdrom']
Program = Literal['idle', 'busy', 'disk', 'dirty']

SIZE_BYTES = 1 << 20

#: Machine code for 16-bit real mode, loaded by the BIOS at 0000:7c00 with the drive in DL.
PROGRAMS: dict[Program, bytes] = {
    # cli; mov al,ff; out 21,al; out a1,al; mov al,30; out 43,al; xor al,al; out 40,al (twice);
    # 1: hlt; jmp 1b.  Interrupts and the timer off: QEMU sleeps for good.
    'idle': bytes.fromhex('fab0ffe621e6a1b030e64330c0e640e640f4ebfd'),
    # cli; 1: jmp 1b.  One vCPU at 100 %.
    'busy': bytes.fromhex('faebfe'),
    # xor ax,ax; mov ds,ax; mov ss,ax; mov sp,7c00; sti;
    # 1: mov si,7c1c; mov ah,42; int 13; mov si,7c1c; mov ax,4300; int 13; hlt; jmp 1b;
    # packet: 8 sectors, to 0000:8000, from sector 8.
    # Reads and writes 4 KiB at each tick of the BIOS clock: about 18 times a second.
    'disk': bytes.fromhex(
        '31c08ed88ed0bc007cfbbe1c7cb442cd13be1c7cb80043cd13f4ebee10000800008000000800000000000000'
    ),
    # xor ax,ax; mov ds,ax; mov ss,ax; mov sp,7c00;
    # 1: cli; lgdt [7c42]; mov eax,cr0; or al,1; mov cr0,eax; mov bx,8; mov fs,bx; and al,fe;
    # mov cr0,eax; inc edx; mov esi,100000;
    # 2: mov fs:[esi],edx; add esi,1000; cmp esi,1400000; jb 2b; sti; hlt; jmp 1b; gdtr; gdt.
    # Writes to 4864 pages at each tick: a slow migration of it never ends by itself.
    'dirty': bytes.fromhex(
        '31c08ed88ed0bc007cfa0f0116427c0f20c00c010f22c0bb08008ee324fe0f22c0664266be000010'
        '0064676689166681c6001000006681fe0000400172ebfbf4ebc70f00487c00000000000000000000'
        'ffff00000092cf00'
    ),
}

_CLUSTER_BITS = 16
_COPIED = 1 << 63


def make_all(
    kinds: Sequence[Kind], directory: pathlib.Path, program: Program = 'idle'
) -> tuple[domains.Disk, ...]:
    """Make an instance's disks, named as Nova names them: vda and so on, a cdrom on IDE."""
    letters = iter('abcdefgh')
    targets = ['hda' if kind == 'cdrom' else f'vd{next(letters)}' for kind in kinds]
    return tuple(
        make(kind, target, directory, program) for kind, target in zip(kinds, targets, strict=True)
    )


def make(
    kind: Kind, target: str, directory: pathlib.Path, program: Program = 'idle'
) -> domains.Disk:
    """Make one disk below ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / {'vda': 'disk', 'hda': 'disk.config'}.get(target, f'disk.{target}')
    if kind == 'qcow2':
        write_qcow2(path, program)
        return domains.Disk(target=target, path=str(path), format='qcow2')
    write_raw(path, program)
    if kind == 'cdrom':
        return domains.Disk(target=target, path=str(path), device='cdrom', bus='ide')
    if kind == 'raw':
        return domains.Disk(target=target, path=str(path))
    device = processes.run('losetup', '--find', '--show', str(path)).strip()
    serial = str(uuid.uuid5(uuid.NAMESPACE_URL, str(path)))
    return domains.Disk(target=target, path=device, type='block', serial=serial)


def write_raw(path: pathlib.Path, program: Program, size_bytes: int = SIZE_BYTES) -> None:
    """Write a sparse raw disk whose first sector is the program."""
    with path.open('wb') as disk:
        disk.write(boot_sector(program))
        disk.truncate(size_bytes)


def write_qcow2(path: pathlib.Path, program: Program, size_bytes: int = SIZE_BYTES) -> None:
    """Write a qcow2 disk with one data cluster, without needing qemu-img.

    Clusters: header, refcount table, refcount block, L1 table, L2 table, data.
    Source: QEMU's docs/interop/qcow2.txt, version 2.
    """
    cluster = 1 << _CLUSTER_BITS
    l1_entries = -(-size_bytes // (cluster * cluster // 8))
    header = struct.pack(
        '>4sIQIIQIIQQIIQ',
        *(b'QFI\xfb', 2, 0, 0, _CLUSTER_BITS, size_bytes, 0, l1_entries),
        *(3 * cluster, cluster, 1, 0, 0),
    )
    clusters = (
        header,
        struct.pack('>Q', 2 * cluster),
        struct.pack('>6H', *[1] * 6),
        struct.pack('>Q', 4 * cluster | _COPIED),
        struct.pack('>Q', 5 * cluster | _COPIED),
        boot_sector(program),
    )
    path.write_bytes(b''.join(content.ljust(cluster, b'\0') for content in clusters))


def boot_sector(program: Program) -> bytes:
    return PROGRAMS[program].ljust(510, b'\0') + b'\x55\xaa'
