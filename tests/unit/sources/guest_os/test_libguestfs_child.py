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

import ast
import io
import json
import os
import pathlib
import struct
import subprocess
import sys

import hypothesis
from hypothesis import strategies
import pytest

from oie.sources.guest_os import inspection_child as child


def qcow2(
    backing: bytes = b'',
    backing_format: bytes = b'',
    version: int = 3,
    features: int = 0,
    extensions: bytes = b'',
) -> bytes:
    """Return the header of an image as docs/interop/qcow2.txt has it."""
    if backing_format:
        padding = b'\0' * (-len(backing_format) % 8)
        length = len(backing_format)
        extensions += struct.pack('>II', 0xE2792ACA, length) + backing_format + padding
    extensions += struct.pack('>II', 0, 0)
    length = 104 if version == 3 else 72
    offset = length + len(extensions) if backing else 0
    head = b'QFI\xfb' + struct.pack('>IQI', version, offset, len(backing))
    head = head.ljust(72, b'\0')
    if version == 3:
        head += struct.pack('>Q', features).ljust(28, b'\0') + struct.pack('>I', 104)
    return head + extensions + backing


def backing_of(content: bytes) -> tuple[str, str] | None:
    return child.backing_of(io.BytesIO(content), 'disk')


class TestHeader:
    def test_image_without_a_backing_file_has_none(self):
        assert backing_of(qcow2()) is None

    @pytest.mark.parametrize('version', [2, 3])
    def test_backing_file_and_its_format_are_read(self, version):
        content = qcow2(b'/base/image', b'raw', version=version)
        assert backing_of(content) == ('/base/image', 'raw')

    def test_other_extensions_are_passed_over(self):
        features = struct.pack('>II', 0x6803F857, 5) + b'names\0\0\0'
        assert backing_of(qcow2(b'b', b'qcow2', extensions=features)) == ('b', 'qcow2')

    def test_format_that_is_not_told_is_empty(self):
        assert backing_of(qcow2(b'b')) == ('b', '')

    def test_header_of_qemu_is_read(self):
        """What qemu-img 7.2 wrote for: create -f qcow2 -b base -F raw top 1M."""
        head = bytes.fromhex(
            '514649fb00000003000000000000021000000004000000100000000000100000'
            '0000000000000001000000000003000000000000000100000000000100000000'
            '0000000000000000000000000000000000000000000000000000000000000000'
            '00000004000000700000000000000000e2792aca000000037261770000000000'
            '6803f85700000180000064697274792062697400000000000000000000000000'
            '0000000000000000000000000000000000000000000000000001636f72727570'
            '7420626974000000000000000000000000000000000000000000000000000000'
            '0000000000000000000265787465726e616c20646174612066696c6500000000'
            '0000000000000000000000000000000000000000000000000003636f6d707265'
            '7373696f6e207479706500000000000000000000000000000000000000000000'
            '00000000000000000004657874656e646564204c3220656e7472696573000000'
            '00000000000000000000000000000000000000000000000001006c617a792072'
            '6566636f756e7473000000000000000000000000000000000000000000000000'
            '000000000000000002006269746d617073000000000000000000000000000000'
            '0000000000000000000000000000000000000000000000000201726177206578'
            '7465726e616c2064617461000000000000000000000000000000000000000000'
            '00000000000000000000000000000000'
        )
        content = head + b'base'
        assert backing_of(content) == ('base', 'raw')

    @pytest.mark.parametrize(
        ('content', 'why'),
        [
            (b'', 'not in format qcow2'),
            (b'\0' * 512, 'not in format qcow2'),
            (qcow2()[:60], 'not in format qcow2'),
            (qcow2()[:80], 'damaged'),
            (qcow2(version=4), 'damaged'),
            (qcow2(b'x' * 2000), 'damaged'),
            (qcow2(features=4), 'another file for its data'),
        ],
    )
    def test_other_content_is_refused(self, content, why):
        with pytest.raises(child.Refusal, match=why) as caught:
            backing_of(content)
        assert caught.value.reason == 'image'

    @hypothesis.given(strategies.binary(max_size=300))
    def test_any_bytes_behind_the_magic_are_read_or_refused(self, content):
        try:
            found = backing_of(b'QFI\xfb' + content)
        except child.Refusal:
            return
        assert found is None or len(found) == 2


class TestChain:
    """The header of each image agrees with the domain XML, or nothing is opened."""

    @pytest.fixture
    def images(self, tmp_path):
        (tmp_path / 'base').write_bytes(b'\0' * 512)
        (tmp_path / 'top').write_bytes(qcow2(str(tmp_path / 'base').encode(), b'raw'))
        return tmp_path

    def check(self, images, *backing):
        child.check(str(images / 'top'), 'qcow2', [list(each) for each in backing])

    def test_chain_of_the_domain_xml_is_good(self, images):
        self.check(images, (str(images / 'base'), 'raw'))

    def test_backing_file_may_be_named_beside_the_image(self, images):
        (images / 'top').write_bytes(qcow2(b'base', b'raw'))
        self.check(images, (str(images / 'base'), 'raw'))

    def test_longer_chain_is_followed(self, images):
        (images / 'top').write_bytes(qcow2(b'middle', b'qcow2'))
        (images / 'middle').write_bytes(qcow2(b'base', b'raw'))
        middle, base = str(images / 'middle'), str(images / 'base')
        self.check(images, (middle, 'qcow2'), (base, 'raw'))
        with pytest.raises(child.Refusal):
            self.check(images, (middle, 'qcow2'))

    @pytest.mark.parametrize(
        'header',
        [
            qcow2(b'/etc/shadow', b'raw'),
            qcow2(b'base', b'qcow2'),
            qcow2(b'base'),
            qcow2(b'nbd:base', b'raw'),
            qcow2(b'json:{"driver":"file"}', b'raw'),
            qcow2(),
        ],
    )
    def test_header_that_says_something_else_is_refused(self, images, header):
        (images / 'top').write_bytes(header)
        with pytest.raises(child.Refusal, match='by the domain XML') as caught:
            self.check(images, (str(images / 'base'), 'raw'))
        assert caught.value.reason == 'image'

    def test_backing_file_that_the_xml_does_not_name_is_refused(self, images):
        with pytest.raises(child.Refusal):
            self.check(images)

    def test_what_is_in_a_raw_image_is_not_looked_at(self, images):
        child.check(str(images / 'top'), 'raw', [])

    def test_missing_image_directory_and_pipe_are_refused(self, images):
        os.mkfifo(images / 'pipe')
        for name in ('none', '.', 'pipe'):
            with pytest.raises(child.Refusal) as caught:
                child.check(str(images / name), 'raw', [])
            assert caught.value.reason == 'image'


class TestOpening:
    def test_whole_chain_is_named_with_its_formats(self, tmp_path):
        for name in ('base', 'top'):
            (tmp_path / name).touch()
        top, base = str(tmp_path / 'top'), str(tmp_path / 'base')
        assert child.chain({'path': top, 'format': 'qcow2', 'backing': [[base, 'raw']]}) == {
            'driver': 'qcow2',
            'read-only': True,
            'file': {'driver': 'file', 'filename': top, 'locking': 'off'},
            'backing': {
                'driver': 'raw',
                'read-only': True,
                'file': {'driver': 'file', 'filename': base, 'locking': 'off'},
            },
        }

    def test_image_without_a_backing_file_gets_none(self, tmp_path):
        found = child.chain({'path': str(tmp_path), 'format': 'qcow2', 'backing': []})
        assert found['backing'] is None

    def test_key_of_ceph_is_in_a_private_file_only(self, tmp_path, monkeypatch):
        monkeypatch.setenv('TMPDIR', str(tmp_path))
        disk = {'name': 'vms/6c1f_disk', 'format': 'raw', 'hosts': ['192.0.2.11:6789', 'mon2']}
        found = child.chain({**disk, 'username': 'cinder', 'secret': 'QUJD'})
        conf = tmp_path / 'ceph.conf'
        assert found == {
            'driver': 'raw',
            'read-only': True,
            'file': {
                'driver': 'rbd',
                'pool': 'vms',
                'image': '6c1f_disk',
                'conf': str(conf),
                'user': 'cinder',
            },
        }
        assert conf.stat().st_mode & 0o777 == 0o600
        assert conf.read_text().splitlines() == [
            '[global]',
            'mon_host = 192.0.2.11:6789,mon2',
            'auth_client_required = cephx',
            'key = QUJD',
        ]

    def test_ceph_without_users_needs_no_key(self, tmp_path, monkeypatch):
        monkeypatch.setenv('TMPDIR', str(tmp_path))
        disk = {'name': 'vms/x', 'format': 'raw', 'hosts': ['mon'], 'username': '', 'secret': ''}
        assert 'user' not in child.chain(disk)['file']
        assert 'auth_client_required = none' in (tmp_path / 'ceph.conf').read_text()


class FakeGuest:
    """Answers of libguestfs, some of which cannot be decoded."""

    def inspect_os(self) -> list[str]:
        return ['/dev/sda1'] * 20

    def __getattr__(self, name: str):
        return getattr(self, f'_{name}')

    def _inspect_get_type(self, root: str) -> str:
        return 'linux'

    def _inspect_get_distro(self, root: str) -> str:
        return b'\xff'.decode('utf-8')

    def _inspect_get_osinfo(self, root: str) -> str:
        raise RuntimeError('not known')

    def _inspect_get_product_name(self, root: str) -> str:
        return 'x' * 10**6

    def _inspect_get_product_variant(self, root: str) -> str:
        return 'unknown'

    def _inspect_get_major_version(self, root: str) -> int:
        return 12

    _inspect_get_minor_version = _inspect_get_major_version


def test_answers_of_the_guest_are_bounded_and_never_an_error():
    roots = child._roots(FakeGuest())
    assert len(roots) == 8
    assert roots[0] == {
        'type': 'linux',
        'distro': None,
        'osinfo': None,
        'product_name': 'x' * 500,
        'product_variant': 'unknown',
        'major_version': 12,
        'minor_version': 12,
    }


class TestCpu:
    def test_idlest_one_is_chosen_first(self):
        assert child.least_taken({0: 50, 1: 3, 2: 90}, {0, 1, 2}, -1) == 1

    def test_little_gain_is_no_reason_to_move(self):
        assert child.least_taken({0: 15, 1: 0}, {0, 1}, 0) == 0
        assert child.least_taken({0: 25, 1: 0}, {0, 1}, 0) == 1

    def test_only_allowed_ones_are_used(self):
        assert child.least_taken({0: 0, 1: 90}, {1}, 0) == 1

    def test_ticks_are_those_of_others(self):
        ticks = child.taken_ticks()
        assert set(ticks) >= os.sched_getaffinity(0)
        assert all(value >= 0 for value in ticks.values())


class TestProgram:
    SOURCE = pathlib.Path(child.__file__).read_text(encoding='utf-8')

    def test_python_3_9_of_a_system_can_read_it(self):
        ast.parse(self.SOURCE, feature_version=(3, 9))
        assert 'from __future__ import annotations' in self.SOURCE

    def test_it_needs_the_standard_library_and_guestfs_only(self):
        names = set()
        for node in ast.walk(ast.parse(self.SOURCE)):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add((node.module or '').partition('.')[0])
        assert names - {'guestfs'} <= sys.stdlib_module_names

    def run(self, **more):
        job = {
            'parent': os.getpid(),
            'user': None,
            'limits': {'RLIMIT_CORE': 0, 'RLIMIT_CPU': 20},
            'memory_mib': 512,
            'disks': [{'path': '/none', 'format': 'raw', 'backing': []}],
            'attempts': [1],
        }
        return subprocess.run(
            (sys.executable, '-I', child.__file__),
            input=json.dumps({**job, **more}).encode(),
            capture_output=True,
            check=False,
        )

    def test_missing_disk_is_one_document_on_stdout(self):
        done = self.run()
        assert done.returncode == 0
        assert json.loads(done.stdout) == {'failure': 'image', 'text': '/none does not exist'}

    def test_python_without_guestfs_is_told(self, tmp_path):
        (tmp_path / 'disk').touch()
        disk = {'path': str(tmp_path / 'disk'), 'format': 'raw', 'backing': []}
        done = self.run(disks=[disk])
        answer = json.loads(done.stdout)
        # Where this Python has guestfs, there is nowhere to write instead.
        assert answer['failure'] == 'setup' or b'TMPDIR' in done.stderr

    def test_child_of_a_daemon_that_has_died_does_nothing(self):
        done = self.run(parent=1)
        assert done.returncode == 1
        assert done.stdout == b''
