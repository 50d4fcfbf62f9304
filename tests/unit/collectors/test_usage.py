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

"""The series of the totals: those of the ledger, in the units of Prometheus."""

import dataclasses

from oie import model
from oie.collectors import usage
from oie.ledger import accounts
from tests import builders
from tests.unit import measuring

PREFIX = 'oie_instance_usage_'


def shown(*usages, **more):
    snapshot = builders.snapshot(
        usage=model.Reading(value=usages, read_at=builders.NOW, seconds=0.0), **more
    )
    return measuring.shown(measuring.collector('usage'), snapshot)


def test_every_total_is_a_series_of_its_instance():
    found = shown(builders.usage())
    labels = frozenset(builders.definition().labels.pairs)
    assert {name.removeprefix(PREFIX): values[labels] for name, values in found.items()} == {
        'cpu_seconds_total': 41.5,
        'vcpu_seconds_total': 2 * 86400,
        'memory_mebibyte_seconds_total': 4096 * 86400,
        'license_unit_seconds_total': 86400.5,
        'disk_read_bytes_total': 7 * builders.GIB,
        'disk_read_requests_total': 701,
        'disk_write_bytes_total': 8 * builders.GIB,
        'disk_write_requests_total': 801,
        'network_receive_bytes_total': 9 * builders.GIB,
        'network_receive_packets_total': 9001,
        'network_transmit_bytes_total': 10 * builders.GIB,
        'network_transmit_packets_total': 10001,
    }


def test_what_was_never_read_is_no_series():
    nothing = dict.fromkeys(
        field.name
        for field in dataclasses.fields(model.Usage)
        if field.name not in ('definition', 'since', 'updated_at')
    )
    assert shown(builders.usage(**nothing)) == {}


def test_a_total_of_nothing_is_zero_billing_knows_no_suppression():
    found = shown(builders.usage(disk_read_bytes=0))
    assert measuring.only(found[f'{PREFIX}disk_read_bytes_total']) == 0


def test_the_ledger_tells_how_it_is_also_before_the_first_write():
    found = shown(ledger=builders.ledger_health(written_at=None, is_durable=False))
    assert {name: measuring.only(values) for name, values in found.items()} == {
        'oie_ledger_write_errors_total': 2,
        'oie_ledger_durable': 0,
        'oie_ledger_instances': 5,
    }
    found = shown(ledger=builders.ledger_health())
    name = 'oie_ledger_last_write_timestamp_seconds'
    assert measuring.only(found[name]) == builders.NOW - 0.25


def test_without_a_ledger_there_is_nothing():
    assert (
        measuring.shown(
            measuring.collector('usage'),
            model.Snapshot(
                taken_at=builders.NOW, hostname=builders.HOST, instances=builders.reading()
            ),
        )
        == {}
    )


def test_every_total_of_an_account_has_a_meter_for_both_worlds():
    totals = {
        field.name
        for field in dataclasses.fields(accounts.Account(0.0).usage(builders.definition()))
    } - {'definition', 'since', 'updated_at'}
    assert {meter.field for meter, _ in usage.USAGE if meter.ceilometer} == totals
    assert len([meter for meter, _ in usage.USAGE if meter.prometheus]) == len(totals)
