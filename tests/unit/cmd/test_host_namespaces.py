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

import pytest

from oie import model
from oie.cmd import check_table
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

    def rows(table=None, error='', private='', is_apart=False, **options):
        reading = model.Reading(value=table, read_at=1.0, seconds=0.15, error=error)
        monkeypatch.setattr(
            netns.NamespacesSource, 'read', lambda *_arguments: {'namespaces': reading}
        )
        monkeypatch.setattr(mount_propagation, 'problem', lambda _directory: private)
        monkeypatch.setattr(mount_propagation, 'is_apart', lambda: is_apart)
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


def test_missing_right_is_a_warning_with_what_to_add(rows):
    [row] = rows(error='none of 2 may be entered: it needs CAP_SYS_ADMIN')
    assert (row.result, 'CAP_SYS_ADMIN' in row.detail) == (WARNING, True)
    assert 'AmbientCapabilities' in row.advice


def test_part_that_is_not_read_is_named(rows):
    table = model.NamespaceTable(found=1, namespaces=(namespace(failures={'conntrack': 'EPERM'}),))
    [row] = rows(table)
    assert (row.result, 'not everywhere read: conntrack' in row.detail) == (WARNING, True)


def test_skipped_ones_are_told_by_reason(rows):
    table = model.NamespaceTable(found=3, skipped={'stale': 2}, namespaces=(namespace(),))
    [row] = rows(table)
    assert (row.result, row.detail.endswith('skipped: 2 stale')) == (WARNING, True)
    assert 'ip netns' in row.advice


def test_private_mount_is_told_by_what_it_hides(rows):
    table = model.NamespaceTable(found=2, skipped={'stale': 1}, namespaces=(namespace(),))
    [row] = rows(table, private='mounted privately; do that')
    assert (row.result, row.advice) == (WARNING, 'mounted privately; do that')


def test_private_mount_is_told_before_it_hides_anything(rows):
    table = model.NamespaceTable(found=1, namespaces=(namespace(),))
    [row] = rows(table, private='do that', is_apart=True)
    assert (row.result, row.advice) == (WARNING, 'do that')
    [row] = rows(table, private='do that')
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
