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

"""The driver libguestfs with the real libguestfs, on images made here; root, no KVM needed.

Each look takes 9 to 20 s without KVM, so there are few, and all share an appliance.
"""

from collections.abc import Iterator
import contextlib
import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading
import time
import types
from typing import Any

import pytest

from oie import model
from oie.sources.guest_os import base
from oie.sources.guest_os import libguestfs
from oie.sources.guest_os import pythons
from oie.sources.guest_os import sessions
from tests import builders
from tests import machine
from tests.billing import guest_images
from tests.functional import processes

PRODUCT = 'Windows Server 2022 Datacenter'
PROGRAMS = ('mke2fs', 'qemu-img', 'qemu-io', 'tar')


def what_is_missing() -> str:
    if os.geteuid():
        return 'inspections change to another user, which takes root'
    path = f'{os.environ.get("PATH", "")}:/usr/sbin:/sbin'
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if not pythons.find():
        missing.append('python3-guestfs')
    if not list(pathlib.Path('/boot').glob('vmlinu*')):
        missing.append('a kernel in /boot')
    return f'not here: {", ".join(missing)}' if missing else ''


def options(directory: pathlib.Path, **more: Any) -> types.SimpleNamespace:
    values = {option.dest: option.default for option in libguestfs.LibguestfsDriver.OPTS}
    # Long: on a busy machine inspections wait, having the lowest priority.
    values.update(timeout=300.0, refresh=86400.0, retry=3600.0, force_tcg='true')
    return types.SimpleNamespace(**{**values, 'cache_dir': str(directory), **more})


def instance(
    *images: tuple[pathlib.Path, str],
    uuid: str = builders.UUID,
    backing: tuple[tuple[str, str], ...] = (),
) -> model.Instance:
    disks = tuple(
        builders.disk(
            target=f'vd{letter}',
            type='block' if path.is_block_device() else 'file',
            source=str(path),
            driver_format=image_format,
            backing=backing,
        )
        for letter, (path, image_format) in zip('abcd', images, strict=False)
    )
    return builders.instance(definition=builders.definition(uuid=uuid, disks=disks))


def uuid_of(number: int) -> str:
    return f'{builders.UUID[:-2]}{number:02x}'


def digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextlib.contextmanager
def in_use(image: pathlib.Path) -> Iterator[None]:
    """Hold an image open for writing, as the QEMU of a guest does."""
    command = ('qemu-io', '-f', 'qcow2', str(image))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        processes.wait_for(lambda: is_locked(image), what='the lock of the image')
        yield
        process.terminate()


def is_locked(image: pathlib.Path) -> bool:
    """Tell whether anybody holds a lock; to ask by opening it would take one. Source: proc(5)."""
    inode = f':{image.stat().st_ino} '
    return inode in pathlib.Path('/proc/locks').read_text(encoding='ascii')


@contextlib.contextmanager
def block_device(image: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give a loop device over an image, or the image where there are no loop devices."""
    command = ('losetup', '--find', '--show', str(image))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        yield image
        return
    device = done.stdout.strip()
    try:
        yield pathlib.Path(device)
    finally:
        subprocess.run(('losetup', '--detach', device), check=True)


@pytest.fixture(scope='module')
def place() -> Iterator[pathlib.Path]:
    """A directory whose path is short: a socket of libguestfs lies in it."""
    machine.require(what_is_missing())
    with tempfile.TemporaryDirectory(prefix='oie-') as name:
        yield pathlib.Path(name)


@pytest.fixture(scope='module')
def images(place: pathlib.Path) -> pathlib.Path:
    """Images that only root may read, as the disks of guests are."""
    made, tree = place / 'images', place / 'tree'
    made.mkdir(0o700)
    tree.mkdir()
    guest_images.debian_tree(tree)
    guest_images.ext4(made / 'debian.raw', tree)
    guest_images.by_appliance(
        made / 'lvm.raw',
        made / 'windows.raw',
        guest_images.windows_hives(PRODUCT, 'Server', 10, 0),
        tree,
        {
            'LIBGUESTFS_BACKEND': 'direct',
            'LIBGUESTFS_BACKEND_SETTINGS': 'force_tcg',
            'LIBGUESTFS_CACHEDIR': str(place),
            'LIBGUESTFS_MEMSIZE': '768',
        },
    )
    with (made / 'blank.raw').open('wb') as file:
        file.truncate(16 * guest_images.MIB)
    return made


@pytest.fixture
def driver(place: pathlib.Path) -> libguestfs.LibguestfsDriver:
    """The driver with a cache that all tests share, as they share the appliance."""
    return libguestfs.LibguestfsDriver(options(place / 'cache'))


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """See that no process of an inspection is there after the test."""
    yield
    assert processes_of_inspections() == []


def processes_of_inspections() -> list[str]:
    found = []
    for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
        try:
            line = path.read_bytes().replace(b'\0', b' ').decode('utf-8', 'replace')
            environment = (path.parent / 'environ').read_bytes()
        except OSError:
            continue
        if b'LIBGUESTFS_BACKEND=' in environment:
            found.append(line)
    return found


pytestmark = [pytest.mark.usefixtures('nothing_left'), pytest.mark.timeout(700)]


class TestGuests:
    """What is on the disks becomes the facts of the reference, and the disks stay as they are."""

    def test_debian_on_ext4_below_an_overlay_that_is_in_use(self, images, driver):
        top = images / 'top.qcow2'
        guest_images.overlay(top, images / 'debian.raw', 'raw')
        chain = ((str(images / 'debian.raw'), 'raw'),)
        made = instance((top, 'qcow2'), uuid=uuid_of(1), backing=chain)
        with in_use(top):
            before = digest(images / 'debian.raw'), digest(top)
            found = driver.read(made)
            assert (digest(images / 'debian.raw'), digest(top)) == before
        assert found is not None
        assert (found.family, found.distro, found.info) == ('linux', 'debian', 'debian12')
        assert (found.version, found.version_major, found.version_minor) == ('12.5', 12, 5)
        assert (found.product_name, found.product_variant) == ('12.5', 'unknown')
        again = time.monotonic()
        assert driver.read(made) == driver.remembered(made) == found
        assert time.monotonic() - again < 2

    def test_windows_on_ntfs_on_a_block_device(self, images, driver):
        before = digest(images / 'windows.raw')
        with block_device(images / 'windows.raw') as device:
            found = driver.read(instance((device, 'raw'), uuid=uuid_of(2)))
        assert digest(images / 'windows.raw') == before
        assert found is not None
        assert (found.family, found.distro, found.info) == ('windows', 'windows', 'win2k22')
        assert (found.product_name, found.product_variant) == (PRODUCT, 'Server')
        assert found.version == '10.0'

    def test_linux_in_lvm_beside_an_esp_behind_a_blank_boot_disk(self, images, driver):
        before = digest(images / 'lvm.raw'), digest(images / 'blank.raw')
        disks = (images / 'blank.raw', 'raw'), (images / 'lvm.raw', 'raw')
        found = driver.read(instance(*disks, uuid=uuid_of(3)))
        assert (digest(images / 'lvm.raw'), digest(images / 'blank.raw')) == before
        assert found is not None
        assert (found.distro, found.version) == ('debian', '12.5')

    def test_lying_qcow2_header_in_a_raw_disk_leads_nowhere(self, place, images, driver):
        """The guest writes a header that names Debian as backing file: it stays a raw disk."""
        header = place / 'header.qcow2'
        guest_images.overlay(header, images / 'debian.raw', 'raw')
        lying = images / 'lying.raw'
        lying.write_bytes(header.read_bytes().ljust(16 * guest_images.MIB, b'\0'))
        assert driver.read(instance((lying, 'raw'), uuid=uuid_of(4))) is None


class TestFailures:
    """What cannot be inspected is told, at once or at the limit, and nothing stays behind."""

    def test_corrupt_image_fails(self, images, driver):
        corrupt = images / 'corrupt.qcow2'
        guest_images.qcow2(corrupt, images / 'debian.raw')
        content = bytearray(corrupt.read_bytes())
        # The offset of the table that all data is found by.
        content[40:48] = b'\xff' * 8
        corrupt.write_bytes(content)
        with pytest.raises(base.InspectionFailed) as caught:
            driver.read(instance((corrupt, 'qcow2'), uuid=uuid_of(5)))
        assert caught.value.reason in ('launch', 'image')
        assert caught.value.retry == 3600.0

    def test_hanging_appliance_is_killed_at_the_limit(self, place, images):
        wrapper = place / 'qemu'
        wrapper.write_text(
            '#!/bin/sh\n'
            'case "$*" in *-kernel*) sleep 1000 & exec sleep 1000;; esac\n'
            f'exec {shutil.which("qemu-system-x86_64")} "$@"\n'
        )
        wrapper.chmod(0o755)
        driver = libguestfs.LibguestfsDriver(
            options(place / 'cache', emulator=str(wrapper), timeout=20.0)
        )
        is_over = threading.Event()
        watched: set[str] = set()

        def watch() -> None:
            while not is_over.wait(0.5):
                watched.update(processes_of_inspections())

        watcher = threading.Thread(target=watch)
        watcher.start()
        began = time.monotonic()
        with pytest.raises(base.InspectionFailed, match='longer than 20 s') as caught:
            driver.read(instance((images / 'blank.raw', 'raw'), uuid=uuid_of(6)))
        assert time.monotonic() - began < 60
        is_over.set()
        watcher.join()
        assert caught.value.reason == 'timeout'
        assert any('sleep 1000' in line for line in watched)
        assert list((place / 'cache/run').iterdir()) == []

    def test_end_of_the_exporter_ends_an_inspection(self, images, driver):
        threading.Timer(3.0, driver.close).start()
        began = time.monotonic()
        with pytest.raises(base.InspectionFailed) as caught:
            driver.read(instance((images / 'blank.raw', 'raw'), uuid=uuid_of(7)))
        assert caught.value.reason == 'stopped'
        assert time.monotonic() - began < 15


class TestRights:
    """What the inspection may do, asked of a program that runs in its place."""

    def test_reads_every_file_and_can_do_nothing_else(self, place, monkeypatch):
        from oie.sources.guest_os import inspection_child

        secret = place / 'secret'
        secret.write_text('of root')
        secret.chmod(0o600)
        probe = place / 'probe.py'
        source = pathlib.Path(inspection_child.__file__).read_text(encoding='utf-8')
        probe.write_text(
            source.replace('    answer = _answer(job)\n', _PROBE.format(secret=secret))
        )
        probe.chmod(0o644)
        monkeypatch.setattr(inspection_child, '__file__', str(probe))
        driver = libguestfs.LibguestfsDriver(options(place / 'cache'))
        found = driver._appliance.look([{'path': '/', 'format': 'raw', 'backing': []}])
        assert found == [
            {
                'uid': [65534, 65534, 65534],
                'capabilities': 1 << 2,
                'read': 'of root',
                'written': 'PermissionError',
                'killed': 'PermissionError',
                'nice': 19,
                'policy': os.SCHED_IDLE,
                'cpus': 1,
                'no_new_privileges': 1,
                'io': 'idle',
            }
        ]


_PROBE = """
    time.sleep(0.5)
    def attempt(function):
        try:
            return function()
        except OSError as exc:
            return type(exc).__name__
    status = dict(line.split(':', 1) for line in open('/proc/self/status'))
    answer = {{'roots': [{{
        'uid': list(os.getresuid()),
        'capabilities': _permitted(),
        'read': attempt(open('{secret}').read),
        'written': attempt(lambda: open('{secret}', 'w')),
        'killed': attempt(lambda: os.kill(os.getppid(), 0)),
        'nice': os.nice(0),
        'policy': os.sched_getscheduler(0),
        'cpus': len(os.sched_getaffinity(0)),
        'no_new_privileges': int(status['NoNewPrivs']),
        'io': subprocess.run(
            ['ionice', '-p', str(os.getpid())], stdout=subprocess.PIPE, text=True
        ).stdout.strip(),
    }}]}}
"""


def test_session_of_a_process_names_its_members():
    assert os.getpid() in set(sessions.members(os.getsid(0)))
