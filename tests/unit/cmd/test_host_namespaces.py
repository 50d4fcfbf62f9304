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


"""The rows of the host check for network namespaces: whether and how completely they are read."""

import os
import socket

import pytest

from oie import model
from oie.cmd import check_table
from oie.cmd import host_access
from oie.cmd import host_namespaces
from oie.sources import mount_propagation
from oie.sources import netns
from tests.unit import measuring

OK, INFO = check_table.Result.OK, check_table.Result.INFO
WARNING, FAILURE = check_table.Result.WARNING, check_table.Result.FAILURE


def namespace(name='a', **more):
    labels = model.Labels.of(netns=name)
    device = model.NamespaceDevice(labels=labels, name='qg-1', index=2)
    return model.Namespace(labels=labels, name=name, **{'devices': (device,), **more})


@pytest.fixture
def rows(monkeypatch):
    """Return the rows for a table, or for an error."""

    def rows(table=None, error='', private='', apart=(), exporter=None, **options):
        reading = model.Reading(value=table, read_at=1.0, seconds=0.15, error=error)
        monkeypatch.setattr(
            netns.NamespacesSource, 'read', lambda *_arguments: {'namespaces': reading}
        )
        monkeypatch.setattr(mount_propagation, 'problem', lambda _directory, _who='self': private)
        monkeypatch.setattr(mount_propagation, 'is_apart', lambda who: who in apart)
        monkeypatch.setattr(host_access, 'exporter_process', lambda _path: exporter)
        return host_namespaces.rows(measuring.options(**{'netns__enabled': True, **options}))

    return rows


def test_without_the_option_there_is_no_row(rows):
    assert rows(netns__enabled=False) == ()


def test_namespaces_and_devices_are_counted(rows):
    table = model.NamespaceTable(found=3, filtered=1, namespaces=(namespace(), namespace('b')))
    [row] = rows(table)
    assert row.result is OK
    assert row.detail == (
        '2 of 3 in /run/netns read, with 2 devices, in 0.15 s; left out by filters: 1'
    )


def test_host_without_namespaces_is_no_fault(rows):
    [row] = rows(model.NamespaceTable(found=0))
    assert (row.result, 'container' in row.advice) == (INFO, True)


@pytest.mark.parametrize(
    ('mode', 'right'), [('setns', 'CAP_SYS_ADMIN and CAP_NET_ADMIN'), ('nsid', 'CAP_NET_ADMIN')]
)
def test_missing_right_is_a_warning_with_what_to_add(rows, mode, right):
    [row] = rows(error='none of 2 may be entered: it needs CAP_SYS_ADMIN', netns__mode=mode)
    assert (row.result, 'CAP_SYS_ADMIN' in row.detail) == (WARNING, True)
    assert row.advice.startswith(f'Give the service {right} (AmbientCapabilities')


@pytest.mark.parametrize(
    ('error', 'advice'),
    [
        ('[netns] directory: /etc/passwd: Not a directory', 'Correct [netns] directory'),
        ('a pass over the network namespaces has not returned after 2 s', 'raise [netns] timeout'),
        ('can\'t start new thread', 'the log of the exporter'),
    ],
)
def test_advice_is_about_what_went_wrong(rows, error, advice):
    [row] = rows(error=error)
    assert (row.result, row.detail) == (WARNING, error)
    assert advice in row.advice
    assert 'CAP_' not in row.advice


def test_part_that_is_not_read_is_named(rows):
    failures = {'conntrack': 'EPERM; it needs CAP_NET_ADMIN'}
    table = model.NamespaceTable(found=1, namespaces=(namespace(failures=failures),))
    [row] = rows(table)
    assert row.result is WARNING
    assert row.detail.endswith('not everywhere read: conntrack (EPERM; it needs CAP_NET_ADMIN)')
    assert 'CAP_NET_ADMIN' in row.advice
    broken = model.NamespaceTable(found=1, namespaces=(namespace(failures={'snmp': 'cut off'}),))
    [row] = rows(broken)
    assert row.advice == 'See the log of the exporter.'


def test_skipped_ones_are_told_by_reason(rows):
    table = model.NamespaceTable(found=3, skipped={'stale': 2}, namespaces=(namespace(),))
    [row] = rows(table)
    assert (row.result, row.detail.endswith('skipped: 2 stale')) == (WARNING, True)
    assert 'ls -l, ip netns' in row.advice
    assert '/run/netns' in row.advice


@pytest.mark.parametrize(
    ('skipped', 'advice'),
    [
        ({'no_id': 1}, 'assign_nsid'),
        ({'deadline': 1}, 'deadline'),
        ({'refused': 1}, 'CAP_SYS_ADMIN'),
        ({'failed': 1}, 'log of the exporter'),
    ],
)
def test_advice_for_skipped_ones_is_about_the_reason(rows, skipped, advice):
    [row] = rows(model.NamespaceTable(found=2, skipped=skipped, namespaces=(namespace(),)))
    assert row.result is WARNING
    assert advice in row.advice
    assert 'ls -l' not in row.advice


def test_one_that_vanished_meanwhile_is_no_fault(rows):
    table = model.NamespaceTable(found=2, skipped={'vanished': 1}, namespaces=(namespace(),))
    [row] = rows(table)
    assert (row.result, row.detail.endswith('skipped: 1 vanished')) == (OK, True)


def test_filters_that_hide_routers_have_a_row(rows):
    table = model.NamespaceTable(found=1, namespaces=(namespace(),))
    [_, filters] = rows(table, netns__device_whitelist='^qr-')
    assert (filters.check, filters.result) == ('Network namespaces: filters', INFO)
    assert 'external_devices = qg-*:' in filters.detail


def test_private_mount_is_told_by_what_it_hides(rows):
    table = model.NamespaceTable(found=2, skipped={'stale': 1}, namespaces=(namespace(),))
    [row] = rows(table, private='mounted privately; do that')
    assert (row.result, row.advice) == (WARNING, 'mounted privately; do that')


def test_private_mount_is_told_before_it_hides_anything(rows):
    table = model.NamespaceTable(found=1, namespaces=(namespace(),))
    [row] = rows(table, private='do that', apart={'self'})
    assert (row.result, row.advice) == (WARNING, 'do that')
    [row] = rows(table, private='do that')
    assert row.result is OK


def test_exporter_is_known_by_its_socket(tmp_path):
    path = str(tmp_path / 'socket')
    assert host_access.exporter_process(path) is None
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        assert host_access.exporter_process(path) == os.getpid()
    assert host_access.exporter_process(path) is None
    assert host_access.exporter_process('') is None


def test_private_mount_is_that_of_the_running_exporter(rows):
    """Whoever checks is not in the mount namespace that MountFlags= gives the service."""
    table = model.NamespaceTable(found=1, namespaces=(namespace(),))
    [row] = rows(table, private='do that', apart={'42'}, exporter=42)
    assert (row.result, row.advice) == (WARNING, 'do that')
    [row] = rows(table, private='do that', apart={'self'}, exporter=42)
    assert row.result is OK


def test_notes_about_the_file_have_a_row(rows, tmp_path):
    path = tmp_path / 'config.yaml'
    path.write_text('threads: 3')
    table = model.NamespaceTable(found=1, namespaces=(namespace(),))
    [_, notes] = rows(table, netns__netns_exporter_config=str(path))
    assert (notes.result, 'not used: threads' in notes.detail) == (INFO, True)


def test_wrong_file_is_a_failure(rows):
    [row] = rows(netns__netns_exporter_config='/nowhere/config.yaml')
    assert (row.result, '/nowhere/config.yaml' in row.detail) == (FAILURE, True)
