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

"""Ceilometer's polling agent, its pipeline and its publishers in one process, without a bus.

    python -m tests.billing.polling DIRECTORY

runs in Ceilometer's environment. DIRECTORY is like /etc/ceilometer, with ceilometer.conf. Each
line of standard input is a JSON object and makes the agent poll once; the answer is one line, the
samples that it sent and what was logged as an error. ``at`` is the time that the agent takes
for now (ISO 8601, UTC), ``lists`` the value of the environment variable LISTS for the commands.

Agent, tasks, dynamic pollsters, notification service, pipeline and publishers are Ceilometer's
own. Between the two services is oslo.messaging's driver for a bus within one process.
"""

import contextlib
import datetime
import json
import logging
import os
import pathlib
import sys
import time
from typing import Any

from ceilometer import notification
from ceilometer import service
from ceilometer.cmd import polling
from ceilometer.polling import manager
from oslo_config import cfg
from oslo_utils import timeutils

_TIMEOUT = 60.0


class _Errors(logging.Handler):
    """Keeps what is logged as a warning or worse by Ceilometer itself."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith('ceilometer') and 'libvirt' not in record.getMessage():
            self.lines.append(f'{record.levelname} {record.getMessage()}')


class _Sent:
    """Counts the samples that a notifier sends."""

    def __init__(self, notifier: Any) -> None:
        self._notifier = notifier
        self.samples: list[dict[str, Any]] = []

    def sample(self, context: Any, event_type: str, payload: Any) -> None:
        self.samples += payload['samples']
        self._notifier.sample(context, event_type, payload)


def main() -> None:
    directory = pathlib.Path(sys.argv[1])
    answers, sys.stdout = sys.stdout, sys.stderr
    conf = cfg.ConfigOpts()
    conf.register_cli_opts(polling.CLI_OPTS)
    files = [str(directory / 'ceilometer.conf')]
    service.prepare_service(argv=['ceilometer-polling'], config_files=files, conf=conf)
    errors = _Errors()
    logging.root.handlers[:] = [errors]

    with contextlib.redirect_stdout(sys.stderr):
        notification.NotificationService(0, conf).run()
    agent = manager.AgentManager(0, conf, ['compute'])
    agent.polling_manager = manager.PollingManager(conf)
    sent = agent.notifier = _Sent(agent.notifier)
    tasks = list(agent.setup_polling_tasks().values())
    count = 0
    for line in sys.stdin:
        _poll(agent, tasks, json.loads(line))
        count += len(sent.samples)
        _wait_until_published(directory / 'published', count)
        document = {'samples': sent.samples, 'errors': errors.lines}
        answers.write(json.dumps(document, default=str) + '\n')
        answers.flush()
        sent.samples, errors.lines = [], []
    # Threads of the services would keep us.
    os._exit(0)


def _poll(agent: Any, tasks: list[Any], step: dict[str, str]) -> None:
    """Let the agent poll all its sources, as its timer would."""
    if 'lists' in step:
        os.environ['LISTS'] = step['lists']
    if 'at' in step:
        timeutils.set_time_override(datetime.datetime.fromisoformat(step['at']))
    for task in tasks:
        agent.interval_task(task)
    timeutils.clear_time_override()


def _wait_until_published(path: pathlib.Path, count: int) -> None:
    """Wait until the last publisher of the pipeline, which writes a file, has had all samples."""
    deadline = time.monotonic() + _TIMEOUT
    while count:
        lines = path.read_bytes().count(b'\n') if path.exists() else 0
        if lines >= count:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f'{lines} of {count} samples were published')
        time.sleep(0.02)


if __name__ == '__main__':
    main()
