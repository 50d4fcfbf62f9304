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

"""Flows of active fixed IPs, and what is known of the table in every state it may be in."""

import dataclasses

import pytest

from oie import model
from tests import builders
from tests.unit import measuring

FLOWS = 'oie_conntrack_ip_flows_total'
OUTBOUND = {
    'oie_outbound_unique_remotes': 25,
    'oie_outbound_flows': 30,
    'oie_outbound_new_remotes': 5,
    'oie_outbound_max_flows_single_remote': 4,
}
OUTBOUND_PORTS = {
    'oie_outbound_unique_dst_ports': 3,
    'oie_outbound_new_dst_ports': 1,
    'oie_outbound_max_flows_single_dst_port': 21,
}
INBOUND = {
    'oie_inbound_unique_remotes': 8,
    'oie_inbound_flows': 9,
    'oie_inbound_new_remotes': 2,
    'oie_inbound_max_flows_single_remote': 4,
}
INBOUND_PORTS = {name.replace('outbound', 'inbound') for name in OUTBOUND_PORTS}
# What every dump tells, and what is told of any table that is meant to be read.
OF_TABLE = {
    'oie_host_conntrack_entries_total': 1000,
    'oie_host_conntrack_odd_entries': 11,
    'oie_host_conntrack_unattributed_entries': 120,
    'oie_host_conntrack_ambiguous_entries': 13,
}
HEALTH = {
    'oie_host_conntrack_read_duration_seconds',
    'oie_conntrack_read_errors_total',
    'oie_host_conntrack_read_errors_total',
    'oie_host_conntrack_inconsistent_total',
    'oie_host_conntrack_complete',
    'oie_host_conntrack_skipped',
}
OF_KERNEL = {
    'oie_host_conntrack_entries': 1024,
    'oie_host_conntrack_max': 4096,
    'oie_host_conntrack_utilization_ratio': 1024 / 4096,
}
OF_ZONES = {
    'oie_host_conntrack_zones': 7,
    'oie_host_conntrack_zone_conflicts': 1,
    'oie_host_conntrack_zone_map_last_success_timestamp_seconds': builders.NOW - 4,
}
ZONE_MAP = 'oie_host_conntrack_zone_map'
LAST_SUCCESS = 'oie_host_conntrack_last_success_timestamp_seconds'


def shown(flows=None, health=None, **switches):
    """Return what the collector shows, with these options of ``[outbound]`` on."""
    collector = measuring.collector(
        'flows', **{f'outbound__{name}': value for name, value in switches.items()}
    )
    snapshot = builders.snapshot(
        builders.instance(),
        **({} if flows is None else {'flows': flows}),
        flow_health=health,
    )
    return measuring.shown(collector, snapshot)


def of(*addresses, **switches):
    return shown(builders.flows(*addresses), builders.flow_health(), **switches)


def values(found, names):
    """Return the values of names that have one sample each."""
    return {name: measuring.only(found[name]) for name in names}


# --- the gates ----------------------------------------------------------------


def test_an_active_fixed_ip_shows_its_entries():
    [(labels, value)] = of(builders.address_flows())[FLOWS].items()
    assert value == 41
    assert dict(labels) == {
        'domain': 'instance-0000002a',
        'instance_uuid': builders.UUID,
        'project_uuid': builders.PROJECT,
        'user_uuid': builders.USER,
        'ip': '10.0.0.5',
        'family': 'ipv4',
    }


def test_a_quiet_fixed_ip_shows_nothing_whatever_is_switched_on():
    quiet = builders.address_flows(is_active=False, is_saturated=True, patterns={'fan_out'})
    assert of(quiet, enabled=True, inbound=True, unreplied=True, patterns=True) == of()


def test_activity_of_any_kind_opens_the_gate_of_all_series():
    """S2, S3: the address passes as a whole, by its entries or its remotes, not by direction."""
    few = builders.flow_direction(flows=1, unreplied=1, remotes=1, largest_remote=1)
    found = of(builders.address_flows(outbound=few), enabled=True)
    assert measuring.only(found['oie_outbound_flows']) == 1


def test_without_outbound_activity_there_are_no_outbound_series():
    found = of(
        builders.address_flows(outbound=model.FlowDirection()),
        enabled=True,
        unreplied=True,
        inbound=True,
    )
    assert measuring.only(found[FLOWS]) == 41
    assert values(found, INBOUND) == INBOUND
    assert not [name for name in found if name.startswith('oie_outbound')]


def test_without_inbound_activity_there_are_no_inbound_series():
    found = of(builders.address_flows(inbound=model.FlowDirection()), enabled=True, inbound=True)
    assert values(found, OUTBOUND) == OUTBOUND
    assert not [name for name in found if name.startswith('oie_inbound')]


def test_every_fixed_ip_has_a_series_of_its_own():
    instance = builders.definition(
        addresses=(builders.address(), builders.address(ip='2001:db8::5', family='ipv6'))
    )
    found = of(
        *(builders.address_flows(instance, address) for address in instance.addresses),
        enabled=True,
    )
    for name in (FLOWS, *OUTBOUND, *OUTBOUND_PORTS):
        assert {dict(labels)['ip'] for labels in found[name]} == {'10.0.0.5', '2001:db8::5'}


# --- outbound -----------------------------------------------------------------


def test_behaviour_is_off_by_default_and_the_twins_need_it():
    active = builders.address_flows(is_saturated=True, patterns={'fan_out'})
    for switches in ({}, {'inbound': True, 'unreplied': True, 'patterns': True}):
        found = of(active, **switches)
        assert not [name for name in found if name.startswith(('oie_outbound', 'oie_inbound'))]
        assert 'oie_flows_saturated' not in found


def test_outbound_alone_shows_the_seven():
    found = of(builders.address_flows(), enabled=True)
    behaviour = {name for name in found if name.startswith(('oie_outbound', 'oie_inbound'))}
    assert behaviour == {*OUTBOUND, *OUTBOUND_PORTS}
    assert values(found, behaviour) == {**OUTBOUND, **OUTBOUND_PORTS}


def test_connections_without_ports_show_no_ports():
    nothing = {'ports': 0, 'largest_port': 0, 'new_ports': 0}
    found = of(
        builders.address_flows(
            outbound=builders.flow_direction(**nothing), inbound=builders.flow_direction(**nothing)
        ),
        enabled=True,
        inbound=True,
    )
    assert {*OUTBOUND, *INBOUND} <= set(found)
    assert not {*OUTBOUND_PORTS, *INBOUND_PORTS} & set(found)


def test_a_baseline_is_silent():
    """S4: after a start or an outage nothing is new; the series are there all the same."""
    unknown = builders.flow_direction(new_remotes=None, new_ports=None)
    found = of(
        builders.address_flows(outbound=unknown, inbound=unknown), enabled=True, inbound=True
    )
    for direction in ('outbound', 'inbound'):
        assert measuring.only(found[f'oie_{direction}_new_remotes']) == 0
        assert measuring.only(found[f'oie_{direction}_new_dst_ports']) == 0


def test_inbound_twins_are_an_option():
    found = of(builders.address_flows(), enabled=True, inbound=True)
    assert values(found, INBOUND) == INBOUND
    assert set(found) >= INBOUND_PORTS


def test_unanswered_share_is_an_option():
    found = of(builders.address_flows(), enabled=True, unreplied=True)
    assert measuring.only(found['oie_outbound_unreplied_ratio']) == 10 / 30


def test_patterns_are_an_option_and_flag_only_whom_they_fit():
    scanning = builders.address_flows(patterns=frozenset({'vertical_scan', 'fan_out'}))
    found = of(scanning, enabled=True, patterns=True)['oie_outbound_pattern']
    assert {dict(labels)['pattern']: value for labels, value in found.items()} == {
        'vertical_scan': 1,
        'fan_out': 1,
    }
    harmless = of(builders.address_flows(), enabled=True, patterns=True)
    assert 'oie_outbound_pattern' not in harmless


def test_more_than_is_remembered_is_flagged_with_the_address():
    found = of(builders.address_flows(is_saturated=True), enabled=True)
    [labels] = found['oie_flows_saturated']
    assert dict(labels)['ip'] == '10.0.0.5'
    assert 'oie_flows_saturated' not in of(builders.address_flows(), enabled=True)


def test_labels_are_made_once_for_as_long_as_the_definition_lives():
    definition, notes = builders.definition(), {}
    collector = measuring.collector('flows')
    snapshot = builders.snapshot(flows=builders.flows(builders.address_flows(definition)))

    def labels():
        [family] = [f for f in collector.collect(None, snapshot, notes) if f.meter.ceilometer]
        return family.samples[0][0]

    assert labels() is labels()
    assert set(notes) == {builders.UUID}


# --- the table ----------------------------------------------------------------


def test_a_complete_reading_shows_the_table_and_its_health():
    found = of()
    expected = {
        **OF_TABLE,
        **OF_KERNEL,
        **OF_ZONES,
        LAST_SUCCESS: builders.NOW - 0.5,
        'oie_host_conntrack_read_duration_seconds': 0.06543,
        'oie_conntrack_read_errors_total': 3,
        'oie_host_conntrack_read_errors_total': 3,
        'oie_host_conntrack_inconsistent_total': 2,
        'oie_host_conntrack_complete': 1,
        'oie_host_conntrack_skipped': 0,
    }
    assert values(found, expected) == expected
    assert found[ZONE_MAP] == {frozenset({('driver', 'ovn')}): 1}
    assert set(found) == {*expected, ZONE_MAP}


def test_where_nobody_reads_the_table_nothing_is_said_of_it():
    """With ``[conntrack] enabled = false`` a zero would be an invention."""
    assert shown() == {}


def test_a_table_that_was_never_read_shows_its_health_only():
    unread = builders.flows(value=None, read_at=None, error='EPERM; it needs CAP_NET_ADMIN')
    found = shown(unread, builders.flow_health(errors=1))
    assert set(found) == {*HEALTH, *OF_KERNEL, *OF_ZONES, ZONE_MAP}
    assert measuring.only(found['oie_host_conntrack_complete']) == 0
    assert measuring.only(found['oie_conntrack_read_errors_total']) == 1
    assert values(found, OF_KERNEL) == OF_KERNEL


def test_after_a_failure_the_last_summaries_stay_and_are_called_incomplete():
    stale = dataclasses.replace(
        builders.flows(builders.address_flows()), error='only 1 of 500 entries came'
    )
    found = shown(stale, builders.flow_health(), enabled=True)
    assert measuring.only(found[FLOWS]) == 41
    assert values(found, OUTBOUND) == OUTBOUND
    assert values(found, OF_TABLE) == OF_TABLE
    assert measuring.only(found['oie_host_conntrack_complete']) == 0
    assert measuring.only(found[LAST_SUCCESS]) == builders.NOW - 0.5


def test_once_the_last_summaries_have_expired_the_time_of_the_success_remains():
    expired = builders.flows(value=None, error='EPERM')
    found = shown(expired, builders.flow_health())
    assert set(found) == {*HEALTH, *OF_KERNEL, *OF_ZONES, ZONE_MAP, LAST_SUCCESS}


def test_a_table_that_is_too_large_is_called_skipped_and_still_counted():
    skipped = builders.flows(value=None, read_at=None, error='the table has 1024 entries')
    found = shown(skipped, builders.flow_health(is_skipped=True))
    assert measuring.only(found['oie_host_conntrack_skipped']) == 1
    assert measuring.only(found['oie_host_conntrack_complete']) == 0
    assert values(found, OF_KERNEL) == OF_KERNEL


def test_a_kernel_without_connection_tracking_has_no_counts():
    unread = builders.flows(value=None, read_at=None, error='nf_conntrack_count: no such file')
    found = shown(unread, builders.flow_health(counted=None, maximum=None))
    assert not set(OF_KERNEL) & set(found)


@pytest.mark.parametrize('maximum', [None, 0])
def test_without_a_limit_there_is_no_utilization(maximum):
    found = shown(builders.flows(), builders.flow_health(maximum=maximum))
    assert 'oie_host_conntrack_utilization_ratio' not in found
    assert measuring.only(found['oie_host_conntrack_entries']) == 1024


# --- zones --------------------------------------------------------------------


def test_a_zone_map_that_is_not_known_is_said_so_without_numbers():
    found = shown(builders.flows(), builders.flow_health(zones=None, zone_map_read_at=None))
    assert found[ZONE_MAP] == {frozenset({('driver', 'ovn')}): 0}
    assert not set(OF_ZONES) & set(found)


def test_before_a_driver_is_chosen_no_zone_map_is_named():
    health = builders.flow_health(zone_map='', zones=None, zone_map_read_at=None)
    assert not {ZONE_MAP, *OF_ZONES} & set(shown(builders.flows(), health))


def test_a_map_without_zones_is_known():
    found = shown(builders.flows(), builders.flow_health(zones=0, zone_conflicts=0))
    assert measuring.only(found[ZONE_MAP]) == 1
    assert measuring.only(found['oie_host_conntrack_zones']) == 0
    assert measuring.only(found['oie_host_conntrack_zone_conflicts']) == 0
