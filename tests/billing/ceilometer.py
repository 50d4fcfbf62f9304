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

"""The Ceilometer of a compute node: our shipped files, polled and published into Gnocchi."""

from collections.abc import Sequence
import json
import pathlib
import shutil
import stat
import subprocess
import tempfile
from typing import Any

from tests.billing import environments
from tests.billing import gnocchi
from tests.functional import processes

_ETC = environments.ROOT / 'etc'
_RESOURCES = _ETC / 'gnocchi/gnocchi_resources.yaml'

Sample = dict[str, Any]

_CONFIG = """\
[DEFAULT]
host = cmp1
transport_url = fake://
pollsters_definitions_dirs = {directory}/pollsters.d
pipeline_cfg_file = {directory}/pipeline.yaml

[polling]
cfg_file = {directory}/polling.yaml

[notification]
pipelines = meter

[oslo_messaging_notifications]
transport_url = fake://

[publisher]
telemetry_secret = none

[service_credentials]
auth_type = gnocchi-basic
user = {user}
endpoint = {endpoint}
"""


class Agent:
    """The agent's process; ``oie-pollster`` on its PATH is the command given here.

    :param command: lines of a shell script
    :param meters: the definitions to poll, in place of those in our ``polling.yaml``
    """

    def __init__(
        self,
        environment: environments.Environment,
        server: gnocchi.Gnocchi,
        command: str,
        meters: Sequence[str] = (),
    ) -> None:
        self._environment = environment
        self._server = server
        self._command = command
        self._meters = meters
        self._directory: pathlib.Path | None = None
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> 'Agent':
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Write its configuration and start it; it polls when asked to."""
        directory = self._directory = pathlib.Path(tempfile.mkdtemp(prefix='oiet-ce'))
        processes.end_later(self, self.stop)
        write_config(directory, self._server)
        shutil.copytree(_ETC / 'ceilometer', directory, dirs_exist_ok=True)
        if self._meters:
            source = {'name': 'oie', 'interval': 299, 'meters': list(self._meters)}
            text = json.dumps({'sources': [source]})
            (directory / 'polling.yaml').write_text(text, encoding='ascii')
        self._write_pipeline(directory)
        self._write_command(directory / 'bin')
        environment = processes.environment()
        with (directory / 'log').open('wb') as log:
            self._process = subprocess.Popen(
                (*self._environment.module('polling'), str(directory)),
                cwd=environments.ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**environment, 'PATH': f'{directory / "bin"}:{environment["PATH"]}'},
                start_new_session=True,
            )

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        processes.ended(self)

    def poll(self, **step: str) -> list[Sample]:
        """Return the samples of one polling, when all of them are published.

        :param step: ``at``, ``lists``: see tests.billing.polling
        :raises LabError: the agent ended
        :raises AssertionError: Ceilometer logged a warning or an error
        """
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(step) + '\n')
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            assert self._directory is not None
            log = (self._directory / 'log').read_text(encoding='utf-8', errors='replace')
            raise processes.LabError(f'the agent ended: {log[-3000:]}')
        answer = json.loads(line)
        assert answer['errors'] == []
        samples: list[Sample] = answer['samples']
        return samples

    def _write_pipeline(self, directory: pathlib.Path) -> None:
        """Take our pipeline, with our definitions of resources, and a file at its end."""
        text = (_ETC / 'ceilometer/pipeline.yaml').read_text(encoding='ascii')
        named = text.replace('/etc/ceilometer/oie_gnocchi_resources.yaml', str(_RESOURCES))
        assert named != text
        # Without it the publisher asks Keystone for its own project.
        open_ = named.replace('gnocchi://?', 'gnocchi://?enable_filter_project=false&')
        assert open_ != named
        publishers = f'      - file://{directory}/published?json\n'
        (directory / 'pipeline.yaml').write_text(open_ + publishers, encoding='ascii')

    def _write_command(self, directory: pathlib.Path) -> None:
        directory.mkdir()
        path = directory / 'oie-pollster'
        path.write_text(f'#!/bin/sh\n{self._command}\n', encoding='utf-8')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)


def write_config(directory: pathlib.Path, server: gnocchi.Gnocchi) -> pathlib.Path:
    """Write a ceilometer.conf for this Gnocchi; return its path."""
    path = directory / 'ceilometer.conf'
    text = _CONFIG.format(directory=directory, user=gnocchi.USER, endpoint=server.url)
    path.write_text(text, encoding='ascii')
    return path


def prepare(environment: environments.Environment, server: gnocchi.Gnocchi) -> None:
    """Do once what an operator does: Ceilometer's own upgrade, then our script."""
    with tempfile.TemporaryDirectory(prefix='oiet-ce') as name:
        config = write_config(pathlib.Path(name), server)
        upgrade = environment.program('ceilometer-upgrade')
        environment.run(upgrade, '--config-file', str(config))
    create(environment, server)


def create(environment: environments.Environment, server: gnocchi.Gnocchi) -> None:
    """Run our script; here the command of Gnocchi's client stands in for ``openstack metric``."""
    command = f'{environment.program("gnocchi")} --os-auth-plugin gnocchi-basic'
    metric = f'{command} --user {gnocchi.USER} --endpoint {server.url}'
    environment.run('sh', str(_ETC / 'gnocchi/create.sh'), METRIC=metric)
