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

"""A program of its own: which operating systems are on these disks, by libguestfs.

It is given a job as JSON on stdin and writes one JSON document on stdout::

    {"roots": [{"type": "linux", "distro": "debian", ...}], "seconds": 9.1}
    {"failure": "launch", "text": "why"}

It imports nothing but the standard library and guestfs, so that the Python of
the system can run it where only that has guestfs; hence also the syntax of
Python 3.9. Disks are strangers' data: before the first byte of one is read,
all rights are given up but the one to read files. Sources: capabilities(7),
prctl(2), ioprio_set(2), sched(7), guestfs(3), QEMU's docs/interop/qcow2.txt.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import resource
import signal
import stat
import struct
import subprocess  # noqa: S404, one program of our own choice
import sys
import threading
import time
from typing import Any
from typing import BinaryIO

MOST_JOB_BYTES = 2**18
MOST_TEXT = 500
MOST_ROOTS = 8
LAUNCHED = 'oie: launched'
"""What the parent waits for on stderr to know that the appliance runs."""

_KEYS = (
    'type',
    'distro',
    'osinfo',
    'product_name',
    'product_variant',
    'major_version',
    'minor_version',
)

_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_CAPBSET_DROP = 24
_PR_SET_SECUREBITS = 28
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4
# access(2), which libguestfs asks, leaves out the rights of a user who is not root without it.
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_CAP_DAC_READ_SEARCH = 2
_CAP_SETPCAP = 8
_CAPABILITY_VERSION_3 = 0x20080522

_IOPRIO_IDLE = 3 << 13
_IOPRIO_SET = {'x86_64': 251, 'aarch64': 30, 'ppc64le': 273, 's390x': 282, 'riscv64': 30}
_FIRST_SECONDS = 0.1
_FOLLOW_SECONDS = 1.0
_WORTH_TICKS = 20

_QCOW2_MAGIC = b'QFI\xfb'
_QCOW2_BACKING_FORMAT = 0xE2792ACA
_QCOW2_DATA_FILE_BIT = 1 << 2
_QCOW2_MOST_EXTENSIONS = 64
_QCOW2_MOST_NAME = 1023


class Refusal(Exception):
    """The disks are not looked into; ``reason`` is one word for a counter."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def main() -> int:
    """Do the job on stdin; return 0 when an answer was written, whatever it says."""
    job = json.loads(sys.stdin.buffer.read(MOST_JOB_BYTES))
    answers = _own_stdout()
    confine(job)
    # Rights belong to threads, so there is no second one before.
    threading.Thread(target=stay_aside, args=(os.sched_getaffinity(0),), daemon=True).start()
    # The daemon may have died before the kernel was told to end us with it.
    if os.getppid() != job['parent']:
        return 1
    answer = _answer(job)
    with open(answers, 'w', encoding='ascii') as stdout:
        json.dump(answer, stdout)
    return 0


def _own_stdout() -> int:
    """Return what was stdout; whatever else a library prints goes to stderr."""
    answers = os.dup(1)
    os.dup2(2, 1)
    return answers


def _answer(job: dict[str, Any]) -> dict[str, Any]:
    started = time.monotonic()
    try:
        roots = inspect(job)
    except Refusal as exc:
        return {'failure': exc.reason, 'text': _cut(str(exc))}
    return {'roots': roots, 'seconds': time.monotonic() - started}


def _cut(text: str) -> str:
    return text[:MOST_TEXT]


# --- rights -----------------------------------------------------------------


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (('version', ctypes.c_uint32), ('pid', ctypes.c_int))


class _CapabilityData(ctypes.Structure):
    _fields_ = (
        ('effective', ctypes.c_uint32),
        ('permitted', ctypes.c_uint32),
        ('inheritable', ctypes.c_uint32),
    )


def confine(job: dict[str, Any]) -> None:
    """Give up rights and priority for good; what is started later inherits that.

    :raises OSError: the kernel refused one of these
    """
    libc = ctypes.CDLL(None, use_errno=True)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o077)
    os.chdir('/')
    _step_back(libc)
    for name, value in job['limits'].items():
        _limit(getattr(resource, name), value)
    _drop_rights(libc, job.get('user'))
    # A change of user takes it back, so it comes last.
    _control(libc, _PR_SET_PDEATHSIG, signal.SIGKILL)
    _control(libc, _PR_SET_NO_NEW_PRIVS, 1)


def _step_back(libc: ctypes.CDLL) -> None:
    """Run only when nobody else wants to, and die first when memory runs out."""
    os.nice(19)
    # Also makes the kernel treat our reads and writes as idle ones; told anyway.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        libc.syscall(number, 1, 0, _IOPRIO_IDLE)
    _write('/proc/self/oom_score_adj', '1000')
    # A session has a group of the scheduler to itself, within which alone nice counts.
    _write('/proc/self/autogroup', '19')


def _write(path: str, text: str) -> None:
    """Tell the kernel a wish that it may not know."""
    with contextlib.suppress(OSError), open(path, 'w', encoding='ascii') as file:
        file.write(text)


def stay_aside(allowed: set[int]) -> None:
    """Keep our session on one CPU, the one that others need least, for ever.

    So it never takes more than one, whatever it starts, and it does not wait for a busy
    CPU while another one is idle.
    """
    cpu, before = -1, taken_ticks()
    while True:
        # The first choice is made soon, since nothing has been measured yet.
        time.sleep(_FIRST_SECONDS if cpu < 0 else _FOLLOW_SECONDS)
        after = taken_ticks()
        taken = {each: ticks - before.get(each, 0) for each, ticks in after.items()}
        best = least_taken(taken, allowed, cpu)
        if best != cpu:
            cpu = best
            _move(cpu)
        before = after


def least_taken(taken: dict[int, int], allowed: set[int], present: int) -> int:
    """Return the CPU to be on; the present one unless another is clearly better."""
    best = min(sorted(allowed), key=lambda cpu: taken.get(cpu, 0))
    is_allowed = present in allowed
    gain = taken.get(present, 0) - taken.get(best, 0)
    return present if is_allowed and gain < _WORTH_TICKS else best


def taken_ticks() -> dict[int, int]:
    """Return what others have used of each CPU. Source: proc_stat(5).

    Fields of a line: user, nice, system, idle, iowait, irq, softirq, steal. Our own time
    counts as nice, so that is left out.
    """
    with open('/proc/stat', encoding='ascii') as file:
        lines = [line.split() for line in file if line[:3] == 'cpu' and line[3].isdigit()]
    return {
        int(words[0][3:]): sum(int(words[field]) for field in (1, 3, 6, 7, 8)) for words in lines
    }


def _move(cpu: int) -> None:
    """Move all threads of our session; those that they start later follow them."""
    session = os.getsid(0)
    for name in filter(str.isdecimal, os.listdir('/proc')):
        # Processes end meanwhile, and a cpuset may have become smaller.
        with contextlib.suppress(OSError):
            if os.getsid(int(name)) == session:
                for thread in os.listdir(f'/proc/{name}/task'):
                    os.sched_setaffinity(int(thread), {cpu})


def _limit(number: int, value: int) -> None:
    _, most = resource.getrlimit(number)
    value = value if most == resource.RLIM_INFINITY else min(value, most)
    resource.setrlimit(number, (value, value))


def _drop_rights(libc: ctypes.CDLL, user: dict[str, Any] | None) -> None:
    """Become another user where told so, and keep at most the right to read any file."""
    permitted = _permitted()
    if permitted & 1 << _CAP_SETPCAP:
        _control(libc, _PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP)
        _empty_bounding_set(libc)
    if user is not None:
        _control(libc, _PR_SET_KEEPCAPS, 1)
        os.setgroups(user['groups'])
        os.setresgid(user['gid'], user['gid'], user['gid'])
        os.setresuid(user['uid'], user['uid'], user['uid'])
    kept = permitted & 1 << _CAP_DAC_READ_SEARCH
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    data = (_CapabilityData * 2)()
    data[0].effective = data[0].permitted = data[0].inheritable = kept
    if libc.capset(ctypes.byref(header), data):
        raise _os_error('capset')
    _control(libc, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    if kept:
        _control(libc, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_READ_SEARCH)
    if _permitted() != kept:
        raise OSError('rights were not given up')


def _empty_bounding_set(libc: ctypes.CDLL) -> None:
    with open('/proc/sys/kernel/cap_last_cap', encoding='ascii') as file:
        last = int(file.read())
    for capability in range(last + 1):
        if capability != _CAP_DAC_READ_SEARCH:
            _control(libc, _PR_CAPBSET_DROP, capability)


def _permitted() -> int:
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    data = (_CapabilityData * 2)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capget(ctypes.byref(header), data):
        raise _os_error('capget')
    return int(data[0].permitted) | int(data[1].permitted) << 32


def _control(libc: ctypes.CDLL, option: int, first: int, second: int = 0) -> None:
    zero = ctypes.c_ulong(0)
    if libc.prctl(option, ctypes.c_ulong(first), ctypes.c_ulong(second), zero, zero):
        raise _os_error(f'prctl({option}, {first})')


def _os_error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f'{what}: {os.strerror(number)}')


# --- images -----------------------------------------------------------------


def check(path: str, image_format: str, backing: list[list[str]]) -> None:
    """See that QEMU will open exactly the images of the domain XML, each in its format.

    libguestfs is told the format of the first image only; what lies below is
    named by the image itself, and so is a file that holds its data.

    :raises Refusal: an image is something else than the domain XML says
    """
    for below in [*backing, None]:
        named = _named_below(path, image_format)
        if named is None and below is None:
            return
        if named is None or below is None or not _is_same(path, named, below):
            told = 'none' if below is None else f'{below[0]} ({below[1] or "no format"})'
            found = 'none' if named is None else f'{named[0]} ({named[1] or "no format"})'
            raise Refusal(
                'image', f'{path} lies on {found} by its own header, on {told} by the domain XML'
            )
        path, image_format = below


def _is_same(path: str, named: tuple[str, str], below: list[str]) -> bool:
    name, image_format = named
    home = os.path.dirname(path)
    # A colon before the first slash is a protocol for QEMU, not a file.
    is_file = ':' not in name.partition('/')[0]
    is_there = os.path.realpath(os.path.join(home, name)) == os.path.realpath(below[0])
    return is_file and is_there and image_format == below[1] != ''


def _named_below(path: str, image_format: str) -> tuple[str, str] | None:
    """Return the backing file and its format as an image has them; None without one."""
    try:
        # O_NONBLOCK: opening a pipe would wait for somebody to write.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), 'rb') as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
                raise Refusal('image', f'{path} is neither a file nor a block device')
            return None if image_format == 'raw' else backing_of(file, path)
    except FileNotFoundError as exc:
        raise Refusal('image', f'{path} does not exist') from exc
    except OSError as exc:
        raise Refusal('image', f'{path} cannot be read: {exc.strerror}') from exc


def backing_of(file: BinaryIO, path: str) -> tuple[str, str] | None:
    """Return the backing file of a qcow2 image and its format, None without one.

    :raises Refusal: it is no qcow2 image, or its data lies in another file
    """
    head = file.read(104)
    if len(head) < 72 or head[:4] != _QCOW2_MAGIC:
        raise Refusal('image', f'{path} is not in format qcow2, as the domain XML says')
    version, offset, size = struct.unpack('>IQI', head[4:20])
    if version not in (2, 3) or size > _QCOW2_MOST_NAME or (version == 3 and len(head) < 104):
        raise Refusal('image', f'{path} is a damaged image in format qcow2')
    if version == 3 and struct.unpack('>Q', head[72:80])[0] & _QCOW2_DATA_FILE_BIT:
        raise Refusal('image', f'{path} names another file for its data')
    if not offset or not size:
        return None
    length = struct.unpack('>I', head[100:104])[0] if version == 3 else 72
    image_format = _backing_format(file, length)
    name = _piece(file, offset, size)
    return os.fsdecode(name), image_format.decode('ascii', 'replace')


def _backing_format(file: BinaryIO, position: int) -> bytes:
    """Return the text of the header extension that holds it, empty without one."""
    for _ in range(_QCOW2_MOST_EXTENSIONS):
        head = _piece(file, position, 8)
        if len(head) < 8:
            break
        kind, length = struct.unpack('>II', head)
        if kind == 0:
            break
        if kind == _QCOW2_BACKING_FORMAT:
            return _piece(file, position + 8, min(length, 16))
        position += 8 + length + -length % 8
    return b''


def _piece(file: BinaryIO, offset: int, size: int) -> bytes:
    try:
        file.seek(offset)
        return file.read(size)
    except (OSError, OverflowError, ValueError):
        return b''


# --- libguestfs -------------------------------------------------------------


def inspect(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the operating systems of the first set of disks that has any.

    :raises Refusal: they could not be looked for
    """
    for count in job['attempts']:
        disks = job['disks'][:count]
        for disk in disks:
            if 'path' in disk:
                check(disk['path'], disk['format'], disk['backing'])
        roots = _look(job, disks)
        if roots:
            return roots
    return []


def _look(job: dict[str, Any], disks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    try:
        import guestfs
    except ImportError as exc:
        raise Refusal('setup', f'{sys.executable}: {exc}') from exc
    overlays = [overlay(disk, f'{len(disks)}-{number}') for number, disk in enumerate(disks)]
    guest = guestfs.GuestFS(python_return_dict=True)
    try:
        guest.set_network(False)
        guest.set_memsize(job['memory_mib'])
        guest.set_smp(1)
        # A kill of our group shall reach QEMU as well.
        guest.set_pgroup(False)
        _launch(guest, overlays)
        return _roots(guest)
    except RuntimeError as exc:
        raise Refusal('inspection', str(exc)) from exc
    finally:
        guest.close()


def _launch(guest: Any, overlays: list[str]) -> None:
    try:
        for path in overlays:
            # Not readonly: see overlay().
            guest.add_drive_opts(path, format='qcow2', cachemode='unsafe')
        guest.launch()
    except RuntimeError as exc:
        raise Refusal('launch', str(exc)) from exc
    print(LAUNCHED, file=sys.stderr, flush=True)


def overlay(disk: dict[str, Any], name: str) -> str:
    """Make an empty image above a disk, which takes all writes; return its path.

    libguestfs makes one for read-only drives too, but then lets QEMU probe what the
    disk holds: with libguestfs 1.48 and QEMU 7.2, a qcow2 header in a raw disk was
    followed to another file of the host, whatever format was told. Here the whole
    chain is named with its formats, and nothing is left to probe.

    :raises Refusal: QEMU cannot open the disk
    """
    path = os.path.join(os.environ['TMPDIR'], f'{name}.qcow2')
    backing = f'json:{json.dumps(chain(disk))}'
    command = ['qemu-img', 'create', '-q', '-f', 'qcow2', '-b', backing]
    command += ['-F', disk['format'], path]
    try:
        subprocess.run(  # noqa: S603, the program and its arguments are our own
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=True,
        )
    except FileNotFoundError as exc:
        raise Refusal('setup', 'there is no qemu-img; install qemu-utils (qemu-img)') from exc
    except subprocess.CalledProcessError as exc:
        text = exc.stderr.decode('utf-8', 'replace').strip()
        raise Refusal('image', f'qemu-img cannot open the disk: {text}') from exc
    return path


def chain(disk: dict[str, Any]) -> dict[str, Any]:
    """Return how QEMU opens a disk and all images below it (BlockdevOptions of its QAPI)."""
    if 'path' not in disk:
        return {'driver': 'raw', 'read-only': True, 'file': _rbd(disk)}
    node: dict[str, Any] | None = None
    for path, image_format in reversed([[disk['path'], disk['format']], *disk['backing']]):
        # The QEMU of the guest holds the lock, and goes on writing.
        file = {'driver': _file_driver(path), 'filename': path, 'locking': 'off'}
        below, node = node, {'driver': image_format, 'read-only': True, 'file': file}
        if image_format == 'qcow2':
            node['backing'] = below
    return node or {}


def _file_driver(path: str) -> str:
    return 'host_device' if stat.S_ISBLK(os.stat(path).st_mode) else 'file'


def _rbd(disk: dict[str, Any]) -> dict[str, Any]:
    """Return how QEMU opens an image of RBD; the key is in a file that only we can read."""
    pool, _, image = disk['name'].partition('/')
    path = os.path.join(os.environ['TMPDIR'], 'ceph.conf')
    lines = ['[global]', f'mon_host = {",".join(disk["hosts"])}']
    lines.append(f'auth_client_required = {"cephx" if disk["username"] else "none"}')
    if disk['secret']:
        lines.append(f'key = {disk["secret"]}')
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 'w') as file:
        file.write('\n'.join(lines) + '\n')
    found = {'driver': 'rbd', 'pool': pool, 'image': image, 'conf': path}
    if disk['username']:
        found['user'] = disk['username']
    return found


def _roots(guest: Any) -> list[dict[str, Any]]:
    return [
        {key: _fact(getattr(guest, f'inspect_get_{key}'), root) for key in _KEYS}
        for root in guest.inspect_os()[:MOST_ROOTS]
    ]


def _fact(get: Any, root: str) -> Any:
    """Return one answer; None where there is none, or none that is text."""
    try:
        value = get(root)
    # The binding decodes strictly, and the bytes are the guest's.
    except (RuntimeError, UnicodeDecodeError):
        return None
    return _cut(value) if isinstance(value, str) else value


if __name__ == '__main__':
    sys.exit(main())
