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

"""The row of the host check for libguestfs: whether it could run, if it is wanted."""

import os

import pytest

from oie.cmd import check_table
from oie.cmd import host_disks
from oie.sources.guest_os import pythons
from tests.unit import measuring

WARNING = check_table.Result.WARNING


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host that lacks nothing; returns the options that use it."""
    kernel = tmp_path / 'vmlinuz-6.1'
    kernel.touch()
    monkeypatch.setattr(host_disks, 'KERNELS', str(tmp_path / 'vmlinu[xz]*'))
    monkeypatch.setattr(pythons, 'find', lambda wanted: wanted or '/usr/bin/python3')
    monkeypatch.setattr(host_disks.shutil, 'which', lambda name, path: f'/usr/bin/{name}')
    return {
        'guest_os__drivers': 'nova_image,libguestfs',
        'guest_os_libguestfs__cache_dir': str(tmp_path / 'not' / 'yet'),
        'guest_os_libguestfs__force_tcg': 'true',
    }


def row(options):
    [found] = host_disks.rows(measuring.options(**options))
    return found


def test_who_does_not_use_it_gets_no_row(host):
    assert host_disks.rows(measuring.options()) == ()
    assert host_disks.rows(measuring.options(**host, guest_os__enabled=False)) == ()


def test_host_that_lacks_nothing_is_well(host):
    assert row(host).result is check_table.Result.OK
    assert 'without KVM' in row(host).detail


@pytest.mark.parametrize('wanted', ['', '/opt/python'])
def test_missing_module_is_told_with_its_package(host, monkeypatch, wanted):
    monkeypatch.setattr(pythons, 'find', lambda wanted: '')
    found = row({**host, 'guest_os_libguestfs__python': wanted})
    assert (found.result, (wanted or pythons.SYSTEM) in found.detail) == (WARNING, True)
    assert 'python3-guestfs' in found.advice


def test_missing_qemu_img_is_told(host, monkeypatch):
    monkeypatch.setattr(host_disks.shutil, 'which', lambda name, path: None)
    assert (row(host).result, 'qemu-img' in row(host).detail) == (WARNING, True)


def test_missing_kernel_is_told(host, monkeypatch):
    monkeypatch.setattr(host_disks, 'KERNELS', '/none/*')
    assert (row(host).result, 'no kernel' in row(host).detail) == (WARNING, True)


def test_kernel_that_only_others_can_read_is_told(host, monkeypatch):
    granted = os.access
    monkeypatch.setattr(
        os, 'access', lambda path, mode: 'vmlinuz' not in str(path) and granted(path, mode)
    )
    assert 'can be read' in row(host).detail
    assert 'chmod' in row(host).advice


def test_cache_that_cannot_be_written_is_told(host, tmp_path):
    (tmp_path / 'file').touch()
    options = {**host, 'guest_os_libguestfs__cache_dir': str(tmp_path / 'file' / 'cache')}
    assert (row(options).result, 'cache cannot be written' in row(options).detail) == (
        WARNING,
        True,
    )
    assert 'install -d' in row(options).advice
