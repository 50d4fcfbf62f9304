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

"""The loop of the daemon: signals are obeyed, a part that dies ends it."""

import queue
import signal
import subprocess
import sys
from unittest import mock

import pytest

from oie.cmd import exporter
from oie.cmd import reloading
from oie.cmd import service_manager


class Loop:
    """The daemon's loop over parts that only note what they are asked."""

    def __init__(self):
        self.daemon = mock.create_autospec(exporter.Daemon, instance=True)
        self.daemon.dead_part.return_value = ''
        self.reloader = mock.create_autospec(reloading.Reloader, instance=True)
        self.heartbeat = mock.create_autospec(service_manager.Heartbeat, instance=True)

    def run(self, *numbers):
        wishes = queue.SimpleQueue()
        for number in numbers:
            wishes.put(number)
        return exporter.serve(self.daemon, wishes, self.reloader, self.heartbeat)


@pytest.fixture
def loop():
    return Loop()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_end_that_was_asked_for_is_status_0(loop, number):
    assert loop.run(number) == 0
    loop.reloader.reload.assert_not_called()


def test_hangup_opens_logs_and_reloads(loop):
    assert loop.run(signal.SIGHUP, signal.SIGHUP, signal.SIGTERM) == 0
    assert loop.daemon.reopen_logs.call_count == 2
    assert loop.reloader.reload.call_count == 2
    loop.daemon.report.assert_not_called()


STARTS = """
import os, signal
from oie import exceptions
from oie.cmd import exporter

def load(_arguments):
    os.kill(os.getpid(), signal.SIGHUP)
    raise exceptions.ConfigError('as far as this')

exporter.load = load
exporter.main([])
"""


def test_hangup_while_options_are_read_does_not_end_it():
    done = subprocess.run(
        (sys.executable, '-c', STARTS), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (2, 'oie-exporter: as far as this\n')


def test_report_is_written_on_demand(loop):
    loop.run(signal.SIGUSR2, signal.SIGTERM)
    loop.daemon.report.assert_called_once_with()
    loop.reloader.reload.assert_not_called()


def test_service_manager_hears_of_us_also_between_signals(loop):
    loop.run(signal.SIGHUP, signal.SIGUSR2, signal.SIGTERM)
    assert loop.heartbeat.beat.call_count == 3


def test_end_of_a_cycle_only_wakes_it(loop):
    assert loop.run(None, None, signal.SIGTERM) == 0
    assert loop.heartbeat.beat.call_count == 3
    loop.reloader.reload.assert_not_called()
    loop.daemon.report.assert_not_called()


def test_part_that_died_ends_the_process_as_a_failure(loop, caplog):
    loop.daemon.dead_part.side_effect = ['', 'the thread of the cycles']
    assert loop.run(signal.SIGHUP, signal.SIGHUP) == 1
    assert caplog.messages == [
        'the thread of the cycles died; the exporter ends so that it is started anew'
    ]
