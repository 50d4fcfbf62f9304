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

"""The polling agent of Ceilometer, without a message bus: prints the Samples it would send.

    python -m tests.functional.ceilometer_agent DIRECTORY [METER...]

DIRECTORY is one as /etc/ceilometer, with pollsters.d and polling.yaml. The agent, its manager, its
tasks and its dynamic pollsters are Ceilometer's own; only the driver of oslo.messaging is the one
that keeps notifications in memory. One JSON document: samples, names of the loaded pollsters, what
was logged as an error.
"""

import json
import logging
import pathlib
import sys
from typing import Any

from ceilometer import service
from ceilometer.cmd import polling
from ceilometer.polling import dynamic_pollster
from ceilometer.polling import manager
from oslo_config import cfg
from oslo_messaging.notify import _impl_test as memory

_CONFIG = """\
[DEFAULT]
host = cmp1
pollsters_definitions_dirs = {directory}/pollsters.d
transport_url = fake://

[polling]
cfg_file = {directory}/polling.yaml

[publisher]
telemetry_secret = none

[publisher_notifier]
telemetry_driver = test
"""


def main() -> None:
    directory = pathlib.Path(sys.argv[1])
    config = directory / 'ceilometer.conf'
    config.write_text(_CONFIG.format(directory=directory), encoding='ascii')
    conf = cfg.ConfigOpts()
    conf.register_cli_opts(polling.CLI_OPTS)
    service.prepare_service(argv=['ceilometer-polling'], config_files=[str(config)], conf=conf)
    errors = _Errors()
    logging.root.handlers[:] = [errors]

    agent = manager.AgentManager(0, conf, ['compute'])
    agent.polling_manager = manager.PollingManager(conf)
    for task in agent.setup_polling_tasks().values():
        # The daemon would call it at each interval; what it raises ends our test.
        agent.interval_task(task)

    document = {
        'pollsters': [
            extension.name
            for extension in agent.extensions
            if isinstance(extension, dynamic_pollster.DynamicPollster)
        ],
        'samples': [
            sample
            for _, message, _, _ in memory.NOTIFICATIONS
            for sample in message['payload']['samples']
        ],
        'errors': errors.lines,
    }
    sys.stdout.write(json.dumps(document, default=str))


class _Errors(logging.Handler):
    """Keeps what Ceilometer logs as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> Any:
        if record.name.startswith('ceilometer'):
            self.lines.append(record.getMessage())


if __name__ == '__main__':
    main()
