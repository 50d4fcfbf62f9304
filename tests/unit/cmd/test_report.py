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

"""The report of what the process is doing: all that helps, no secret."""

import threading

from oslo_config import cfg
import pytest

from oie import model
from oie import service
from oie.cmd import report
from oie.sources import calls
from tests import builders


@pytest.fixture
def conf():
    made = cfg.ConfigOpts()
    made.register_opts([cfg.StrOpt('password', secret=True), cfg.StrOpt('proxy')], 'feed_x')
    made([], default_config_files=[], default_config_dirs=[])
    made.set_override('password', 'hunter2', 'feed_x')
    made.set_override('proxy', 'http://me:hunter2@proxy.example.org:3128', 'feed_x')
    return made


def test_report_has_all_sections_and_no_secret(conf):
    text = report.make(conf, '1.2.3', None)
    assert 'oie-exporter 1.2.3' in text
    for section in ('Threads', 'Configuration', 'Sources', 'Calls in flight'):
        assert f' {section} ' in text
    assert 'MainThread' in text
    assert 'test_report_has_all_sections' in text
    assert 'proxy = http://***@proxy.example.org:3128' in text
    assert 'password = ***' in text
    assert 'hunter2' not in text


def test_sources_are_told_by_name():
    groups = {
        'libvirt': model.GroupHealth(is_success=False, seconds=2.0),
        'cpu': model.GroupHealth(is_success=True, seconds=0.5, succeeded_at=builders.NOW),
    }
    snapshot = builders.snapshot(cycle=model.CycleStatistics(groups=groups))
    found = report.sources(service.Publication(snapshot, None))
    assert list(found) == ['cpu', 'libvirt']
    assert found['libvirt'] == 'failed, 2.000 s, last success never'
    assert found['cpu'].startswith('good, 0.500 s, last success ')


def test_calls_under_way_are_told_until_they_return():
    ending = threading.Event()
    pool = calls.Calls(2, 'oie-test')
    call = pool.start('virDomainGetInfo', lambda _call: ending.wait(10))
    (shown,) = (name for name in report.in_flight() if name.startswith('oie-test'))
    ending.set()
    call.wait(10)
    assert shown.endswith(' virDomainGetInfo')
    assert not any(name.startswith('oie-test') for name in report.in_flight())
    pool.close()


def test_report_goes_to_stderr(conf, capsys):
    report.write(conf, '1', None)
    shown = capsys.readouterr()
    assert shown.out == ''
    assert 'Guru Meditation Report' in shown.err


def test_report_that_fails_is_told(capsys, caplog):
    report.write(None, '1', None)
    assert 'no report could be made' in caplog.text
