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


"""Disks: identity and thresholds always, the reference's traffic once there was some."""

import dataclasses

import hypothesis
from hypothesis import strategies as st
import pytest

from oie.collectors import disk as disks
from tests import builders
from tests.unit import measuring

TRAFFIC = ('oie_disk_r_gbytes', 'oie_disk_w_gbytes', 'oie_disk_r_requests', 'oie_disk_w_requests')
NO_TRAFFIC = dict.fromkeys(('read_bytes', 'read_requests', 'write_bytes', 'write_requests'), 0)
COLLECTOR = measuring.collector('disk')


def of_one_disk(device=None, **statistics):
    """Return a snapshot of an instance with one disk that has these statistics."""
    of = builders.definition(disks=(device or builders.disk(),))
    counted = builders.disk_statistics(of.disks[0], **statistics)
    return builders.snapshot(builders.instance(of, monitor=builders.monitor(of, disks=(counted,))))


def shown(snapshot, notes=None, **options):
    collector = measuring.collector('disk', **options) if options else COLLECTOR
    return measuring.shown(collector, snapshot, notes=notes)


# --- thresholds -------------------------------------------------------------


@pytest.mark.parametrize(
    ('thresholds', 'tier', 'expected'),
    [
        ({'default': 500, 'local': 200, 'ceph': 1000}, 'local', 200),
        ({'default': 500, 'local': 200, 'ceph': 1000}, 'ceph', 1000),
        ({'default': 500, 'local': 200, 'ceph': 1000}, 'unknown', 500),
        ({'local': 200}, 'ceph', 100),
        ({}, 'local', 100),
        ({'local': 0}, 'local', 0),
    ],
)
def test_a_threshold_is_that_of_the_tier_then_default_then_the_option(thresholds, tier, expected):
    assert disks.threshold(tier, thresholds, 100) == expected


def test_reads_and_writes_have_thresholds_of_their_own():
    found = shown(
        of_one_disk(builders.disk(tier='ceph')),
        disk__read_thresholds='ceph:3000',
        disk__default_write_threshold=70,
    )
    assert measuring.only(found['oie_disk_r_alert_threshold']) == 3000
    assert measuring.only(found['oie_disk_w_alert_threshold']) == 70


# --- what is always there (S6) ----------------------------------------------


def test_identity_and_thresholds_need_no_statistics():
    found = shown(builders.snapshot(builders.instance(monitor=None)))
    assert set(found) == {
        'oie_disk_info',
        'oie_disk_r_alert_threshold',
        'oie_disk_w_alert_threshold',
    }
    assert measuring.only(found['oie_disk_info']) == 1


def test_labels_tell_tier_uuid_and_target():
    device = builders.disk(type='volume', tier='pool', uuid='volume-ab', target='vdc')
    [identity] = shown(of_one_disk(device))['oie_disk_info']
    told = dict(identity)
    assert (told['disk_type'], told['disk_uuid'], told['disk_path']) == (
        'pool',
        'volume-ab',
        'vdc',
    )


# --- traffic (S7, S21) ------------------------------------------------------


def test_a_disk_that_was_never_used_shows_no_traffic():
    assert not set(TRAFFIC) & set(shown(of_one_disk(**NO_TRAFFIC)))


@pytest.mark.parametrize('moved', NO_TRAFFIC)
def test_all_four_counters_come_with_the_first_that_moves(moved):
    found = shown(of_one_disk(**{**NO_TRAFFIC, moved: 2**30}))
    values = [measuring.only(found[name]) for name in TRAFFIC]
    assert sorted(values) == [0, 0, 0, 1.0 if moved.endswith('bytes') else 2**30]


def test_traffic_once_shown_stays_when_a_restart_sets_it_to_zero():
    notes: dict[str, object] = {}
    shown(of_one_disk(), notes)
    after = shown(of_one_disk(**NO_TRAFFIC), notes)
    assert [measuring.only(after[name]) for name in TRAFFIC] == [0, 0, 0, 0]


def test_traffic_of_one_disk_shows_nothing_of_the_other():
    of = builders.definition(disks=(builders.disk(), builders.disk(target='vdb')))
    vda, vdb = of.disks
    counted = (builders.disk_statistics(vda), builders.disk_statistics(vdb, **NO_TRAFFIC))
    found = shown(
        builders.snapshot(builders.instance(of, monitor=builders.monitor(of, disks=counted)))
    )
    for name in TRAFFIC:
        assert [dict(labels)['disk_path'] for labels in found[name]] == ['vda']


@pytest.mark.parametrize('unknown', NO_TRAFFIC)
def test_a_counter_that_is_not_known_leaves_out_all_four(unknown):
    found = shown(of_one_disk(**{unknown: None}))
    assert not set(TRAFFIC) & set(found)


def test_gbytes_are_gib_with_five_decimals_and_exact_bytes_stand_beside():
    found = shown(of_one_disk(read_bytes=5369, write_bytes=2**63 - 1))
    assert measuring.only(found['oie_disk_r_gbytes']) == 0.00001
    assert measuring.only(found['oie_instance_disk_read_bytes_total']) == 5369
    assert measuring.only(found['oie_instance_disk_write_bytes_total']) == 2**63 - 1


def test_exact_counters_are_not_suppressed():
    found = shown(of_one_disk(**NO_TRAFFIC))
    assert measuring.only(found['oie_instance_disk_read_bytes_total']) == 0


@hypothesis.given(st.lists(st.sampled_from([0, 0, 0, 1, 2**40]), max_size=8))
def test_traffic_never_disappears_while_the_disk_is_read(readings):
    notes, was_shown = {}, False
    for value in readings:
        found = shown(of_one_disk(**{**NO_TRAFFIC, 'write_requests': value}), notes)
        is_shown = 'oie_disk_w_requests' in found
        assert is_shown == (was_shown or value > 0)
        was_shown = is_shown


# --- beyond the reference ---------------------------------------------------


def test_times_are_seconds_and_flushes_are_counted():
    found = shown(of_one_disk())
    assert measuring.only(found['oie_instance_disk_read_seconds_total']) == 3.02
    assert measuring.only(found['oie_instance_disk_write_seconds_total']) == 4.02
    assert measuring.only(found['oie_instance_disk_flush_seconds_total']) == 5.02
    assert measuring.only(found['oie_instance_disk_flush_requests_total']) == 501


def test_an_error_is_told_for_the_disk_that_has_it_only():
    of = builders.definition(disks=(builders.disk(), builders.disk(target='vdb')))
    found = shown(builders.snapshot(builders.instance(of, disk_errors={'vdb': 2, 'gone': 1})))
    [(labels, code)] = found['oie_instance_disk_error_code'].items()
    assert (dict(labels)['disk_path'], code) == ('vdb', 2)


def test_limits_are_told_by_operation_and_burst_and_none_is_no_series():
    limits = (
        builders.limit(operation='read', value=1000),
        builders.limit(operation='read', value=2000, is_burst=True),
        builders.limit(operation='total', unit='requests', value=300),
    )
    found = shown(of_one_disk(builders.disk(limits=limits)), collector__optional='limits')
    told = {
        (dict(labels)['op'], dict(labels)['burst']): value
        for labels, value in found['oie_instance_disk_limit_bytes_per_second'].items()
    }
    assert told == {('read', '0'): 1000, ('read', '1'): 2000}
    assert measuring.only(found['oie_instance_disk_limit_iops']) == 300
    without = shown(of_one_disk(), collector__optional='limits')
    assert not any('limit' in name for name in without)


def test_latency_is_a_histogram_with_cumulative_buckets():
    bins = ((0, 3), (10_000, 4), (1_000_000, 1))  # ns at which a bin begins, requests in it
    found = shown(of_one_disk(latency={'read': bins}), collector__optional='disk_latency')
    buckets = {
        dict(labels)['le']: value
        for labels, value in found['oie_instance_disk_latency_seconds_bucket'].items()
    }
    assert buckets == {'1e-05': 3, '0.001': 3 + 4, '+Inf': 3 + 4 + 1}
    assert measuring.only(found['oie_instance_disk_latency_seconds_count']) == 3 + 4 + 1


def test_a_block_job_shows_how_far_it_is():
    found = shown(builders.snapshot(builders.busy()), collector__optional='block_jobs')
    [(labels, ratio)] = found['oie_instance_blockjob_progress_ratio'].items()
    assert (dict(labels)['type'], dict(labels)['disk_path'], ratio) == ('copy', 'vda', 0.25)
    bandwidth = found['oie_instance_blockjob_bandwidth_bytes_per_second']
    assert measuring.only(bandwidth) == 10 * builders.MIB


def test_a_block_job_of_unknown_length_and_kind_is_no_failure():
    busy = builders.busy()
    strange = dataclasses.replace(
        busy.block_jobs['vda'], type=99, end_bytes=0, limit_bytes_per_second=None
    )
    instance = dataclasses.replace(busy, block_jobs={'vda': strange})
    found = shown(builders.snapshot(instance), collector__optional='block_jobs')
    assert not any('blockjob' in name for name in found)


def test_no_write_threshold_is_no_series():
    found = shown(of_one_disk(threshold_bytes=0), collector__optional='write_threshold')
    assert 'oie_instance_disk_write_threshold_bytes' not in found


def test_a_disk_without_backing_image_has_depth_zero():
    found = shown(of_one_disk(backing_depth=0), collector__optional='backing_depth')
    assert measuring.only(found['oie_instance_disk_backing_depth']) == 0
