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

"""The row of the host check for probes: whether they could work, if they are wanted."""

import pytest

from oie import exceptions
from oie.cmd import check_table
from oie.cmd import host_probes
from oie.sources import reachability
from tests.unit import measuring

ON = {'collector__optional': 'reachability'}
WARNING = check_table.Result.WARNING


def rows(monkeypatch, found, **overrides):
    """Return the rows where so many namespaces are found, or this failure."""

    def check(_source):
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(reachability.ReachabilitySource, 'check', check)
    return host_probes.rows(measuring.options(**overrides))


def test_without_the_option_there_is_no_row(monkeypatch):
    assert rows(monkeypatch, 3) == ()


def test_namespaces_are_counted(monkeypatch):
    [row] = rows(monkeypatch, 3, **ON)
    assert row.result is check_table.Result.OK
    assert row.detail.startswith('3 network namespaces match ovnmeta-*, qdhcp-*;')


def test_no_namespace_is_a_warning(monkeypatch):
    [row] = rows(monkeypatch, 0, **ON, reachability__namespaces=['meta-*'])
    assert (row.result, 'meta-*' in row.detail) == (WARNING, True)
    assert '[reachability] namespaces' in row.advice


@pytest.mark.parametrize('right', ['CAP_NET_RAW', 'CAP_SYS_ADMIN'])
def test_missing_right_is_a_warning_with_what_to_add(monkeypatch, right):
    [row] = rows(monkeypatch, exceptions.SourceError(f'it needs {right}'), **ON)
    assert (row.result, row.detail) == (WARNING, f'it needs {right}')
    assert right in row.advice
