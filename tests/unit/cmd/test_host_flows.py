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

"""The row of the host check for connection tracking, in each state of the table."""

import types

from oie import model
from oie.cmd import check_table
from oie.cmd import host_flows
from oie.cmd import wiring

OK, INFO = check_table.Result.OK, check_table.Result.INFO
WARNING = check_table.Result.WARNING


def row(monkeypatch, reading=None, **health):
    """Return the row for a reader that gives this; without a reading it is off."""
    reader = reading and types.SimpleNamespace(
        read=lambda _instances, _max_age, _known: {
            'flows': reading,
            'flow_health': model.FlowHealth(maximum=262144, **health),
        },
        close=lambda: None,
    )
    monkeypatch.setattr(wiring, 'flow_reader', lambda _conf: reader)
    return host_flows.table(None)


def test_table_that_is_off_is_said_so(monkeypatch):
    assert row(monkeypatch).result is INFO


def test_table_that_may_not_be_read_is_a_warning_with_the_right_it_needs(monkeypatch):
    refused = model.Reading(value=None, read_at=None, seconds=0.0, error='EPERM')
    found = row(monkeypatch, refused)
    assert (found.result, found.detail) == (WARNING, 'EPERM')
    assert 'CAP_NET_ADMIN' in found.advice


def test_table_that_was_read_tells_size_and_zones(monkeypatch):
    table = model.FlowTable(entries=7, odd=0, unattributed=7, ambiguous=0)
    good = model.Reading(value=table, read_at=1.0, seconds=0.25)
    found = row(monkeypatch, good, zone_map='ovn', zones=3)
    assert (found.result, found.detail) == (
        OK,
        '7 entries, 262144 at most, read in 0.25 s; zone map ovn, 3 zones of ports',
    )
