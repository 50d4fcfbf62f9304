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

import os

import hypothesis
from hypothesis import strategies
import pytest

from oie import model
from oie.sources.guest_os import base
from oie.sources.guest_os import disks
from tests import builders

CEPH = model.DiskServer(
    protocol='rbd', name='vms/6c1f_disk', hosts=('192.0.2.11:6789', '[2001:db8::1]:6789')
)


def disk(**more):
    values = {'type': 'file', 'source': '/i/disk', 'driver_format': 'raw'}
    return builders.disk(**{**values, **more})


def rbd(user: str = '', **more):
    server = model.DiskServer(protocol='rbd', name=CEPH.name, hosts=CEPH.hosts, user=user)
    return disk(type='network', source='rbd:vms/6c1f_disk', server=server, **more)


class TestOrder:
    def test_boot_disk_is_the_first_one(self):
        found = disks.ordered(builders.definition(disks=(disk(target='vda'), disk(target='vdb'))))
        assert [each.target for each in found] == ['vda', 'vdb']

    def test_boot_order_counts_where_there_is_one(self):
        devices = (disk(target='vda'), disk(target='vdb', boot_order=2))
        devices += (disk(target='vdc', boot_order=1),)
        found = disks.ordered(builders.definition(disks=devices))
        assert [each.target for each in found] == ['vdc', 'vdb', 'vda']

    def test_at_most_four_disks_are_opened(self):
        assert len(disks.job([disk()] * 9, {})) == 4

    def test_disks_that_cannot_be_opened_are_left_out_behind_the_boot_disk(self):
        devices = [disk(), disk(is_encrypted=True), disk(source='/i/data')]
        assert [each['path'] for each in disks.job(devices, {})] == ['/i/disk', '/i/data']

    def test_boot_disk_that_cannot_be_opened_is_no_answer_from_others(self):
        with pytest.raises(base.InspectionFailed, match='encrypted'):
            disks.job([disk(is_encrypted=True), disk()], {})


class TestEntry:
    @pytest.mark.parametrize('kind', ['file', 'block'])
    def test_format_and_chain_are_those_of_the_domain_xml(self, kind):
        device = disk(type=kind, driver_format='qcow2', backing=(('/base', 'raw'),))
        assert disks.entry(device, {}) == {
            'path': '/i/disk',
            'format': 'qcow2',
            'backing': [['/base', 'raw']],
        }

    @pytest.mark.parametrize(
        ('more', 'why'),
        [
            ({'driver_format': ''}, 'tells no format'),
            ({'driver_format': 'vmdk'}, 'tells vmdk'),
            ({'is_encrypted': True}, 'encrypted'),
            ({'type': 'volume', 'source': 'pool/volume'}, 'of kind volume'),
            ({'type': 'vhostuser', 'source': '/run/x.sock'}, 'of kind vhostuser'),
            ({'type': 'nvme', 'source': ''}, 'of kind nvme'),
            ({'source': 'relative'}, 'of kind file'),
            ({'source': ''}, 'no source'),
            (
                {'type': 'network', 'server': model.DiskServer(protocol='nbd', name='x')},
                'of kind nbd',
            ),
        ],
    )
    def test_other_disks_are_refused_and_named(self, more, why):
        with pytest.raises(base.InspectionFailed, match=why) as caught:
            disks.entry(disk(**more), {})
        assert caught.value.reason == 'refused'
        assert 'vda' in str(caught.value)


class TestRbd:
    def test_servers_user_and_key_are_handed_on(self):
        assert disks.entry(rbd('cinder'), {'cinder': 'a2V5'}) == {
            'name': 'vms/6c1f_disk',
            'format': 'raw',
            'hosts': ['192.0.2.11:6789', '[2001:db8::1]:6789'],
            'username': 'cinder',
            'secret': 'a2V5',
        }

    def test_without_a_user_no_key_is_needed(self):
        assert disks.entry(rbd(), {})['secret'] == ''

    def test_user_without_a_key_is_told_what_to_do(self):
        with pytest.raises(base.InspectionFailed, match='rbd_keyring') as caught:
            disks.entry(rbd('cinder'), {'nova': 'a2V5'})
        assert caught.value.reason == 'setup'
        assert 'a2V5' not in str(caught.value)

    def test_only_raw_images_are_opened(self):
        with pytest.raises(base.InspectionFailed, match='only raw'):
            disks.entry(rbd(driver_format='qcow2'), {})

    @pytest.mark.parametrize('name', ['vms/x:conf=/etc/passwd', 'vms/a\\', 'vms/x@snap'])
    def test_name_that_would_add_options_of_qemu_is_refused(self, name):
        server = model.DiskServer(protocol='rbd', name=name)
        with pytest.raises(base.InspectionFailed, match='change how'):
            disks.entry(disk(type='network', server=server), {})


class TestIdentity:
    def test_replaced_file_is_another_disk(self, tmp_path):
        path = tmp_path / 'disk'
        path.write_bytes(b'1')
        before = disks.identity(disk(source=str(path)))
        assert disks.identity(disk(source=str(path))) == before
        (tmp_path / 'new').write_bytes(b'1')
        os.replace(tmp_path / 'new', path)
        assert disks.identity(disk(source=str(path))) != before

    @pytest.mark.parametrize(('image_format', 'is_same'), [('raw', False), ('qcow2', True)])
    def test_length_counts_for_raw_images_alone(self, tmp_path, image_format, is_same):
        path = tmp_path / 'disk'
        path.write_bytes(b'1')
        device = disk(source=str(path), driver_format=image_format)
        before = disks.identity(device)
        path.write_bytes(b'12')
        assert (disks.identity(device) == before) is is_same

    def test_source_alone_counts_where_nothing_else_is_known(self):
        assert disks.identity(disk(source='/none')) != disks.identity(disk(source='/nil'))
        assert disks.identity(rbd()) != disks.identity(disk())
        assert disks.identity(disk(source='\0')) == 'file|\0|raw'


class TestKeyring:
    def test_keys_come_by_user(self):
        text = (
            '[client.cinder]\n\tkey = QUJD\n\tcaps mon = "profile rbd"\n'
            '[mon.]\nkey = QUJE\n[client.nova]\nkey=QU*F\n[client.glance]\n key = QUJFRA==\n'
        )
        assert disks.keyring(text) == {'cinder': 'QUJD', 'glance': 'QUJFRA=='}

    @hypothesis.given(strategies.text(alphabet='[]client.key= \nQ\0"\u20ac', max_size=80))
    def test_any_text_gives_keys_or_none(self, text):
        assert all(user and key for user, key in disks.keyring(text).items())
