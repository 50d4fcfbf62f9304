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


"""Jobs: the running one while it runs, the last one afterwards."""

import pytest

from oie import model
from tests import builders
from tests.unit import measuring


def shown(**fields):
    snapshot = builders.snapshot(builders.instance(**fields))
    return measuring.shown(measuring.collector('job'), snapshot)


def test_an_instance_without_jobs_shows_nothing():
    assert shown(job=None, last_job=None) == {}


def test_a_migration_is_told_in_seconds_and_bytes():
    found = shown(job=builders.job())
    [labels] = found['oie_instance_job_info']
    assert (dict(labels)['operation'], dict(labels)['type']) == ('migration_out', 'unbounded')
    assert measuring.only(found['oie_instance_job_elapsed_seconds']) == 12.5
    assert measuring.only(found['oie_instance_job_remaining_seconds']) == 3.5
    assert measuring.only(found['oie_instance_job_dirty_bytes_per_second']) == 7 * builders.MIB


@pytest.mark.parametrize(
    ('operation', 'kind', 'expected'),
    [(99, 77, ('99', '77')), (None, 1, ('unknown', 'bounded')), (0, 0, ('unknown', 'none'))],
)
def test_numbers_of_a_newer_libvirt_are_told_as_they_are(operation, kind, expected):
    found = shown(job=model.Job(type=kind, operation=operation))
    [labels] = found['oie_instance_job_info']
    assert (dict(labels)['operation'], dict(labels)['type']) == expected


def test_a_running_job_of_which_nothing_is_known_shows_no_figures():
    assert set(shown(job=model.Job(type=2))) == {'oie_instance_job_info'}


@pytest.mark.parametrize(
    ('last', 'success'),
    [
        (model.Job(type=3), 1),
        (model.Job(type=4), 0),
        (model.Job(type=5), 0),
        (model.Job(type=3, succeeded=False), 0),
        (model.Job(type=4, succeeded=True), 1),
    ],
)
def test_the_last_job_tells_how_it_ended(last, success):
    found = shown(last_job=last)
    assert found.keys() == {'oie_instance_last_job_success'}
    assert measuring.only(found['oie_instance_last_job_success']) == success


def test_downtime_of_the_last_migration_is_seconds():
    found = shown(last_job=model.Job(type=3, downtime_ms=120, elapsed_ms=61_000))
    assert measuring.only(found['oie_instance_last_job_downtime_seconds']) == 0.12
    assert measuring.only(found['oie_instance_last_job_elapsed_seconds']) == 61


def test_throttling_is_told_when_asked_for():
    snapshot = builders.snapshot(builders.instance(job=builders.job()))
    collector = measuring.collector('job', collector__optional='auto_converge')
    found = measuring.shown(collector, snapshot)
    assert measuring.only(found['oie_instance_job_auto_converge_throttle_ratio']) == 0.2
