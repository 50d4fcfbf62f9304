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

"""Real Prometheus servers: one that is given a past, and one that scrapes as our files say."""

import json
import pathlib
import re

import yaml

from tests.billing import environments
from tests.functional import processes
from tests.functional import servers

_METRICS = environments.ROOT / 'etc/cloudkitty/metrics-prometheus.yml'


class Remembering(servers.Prometheus):
    """A Prometheus that scrapes nobody; its blocks are made of OpenMetrics by ``promtool``.

    :param text: samples with times
    """

    def __init__(self, text: str) -> None:
        super().__init__('127.0.0.1:1')
        self._text = text

    def _arguments(self, directory: pathlib.Path) -> tuple[str, ...]:
        source = directory / 'history.om'
        source.write_text(self._text, encoding='utf-8')
        words = ('tsdb', 'create-blocks-from', 'openmetrics', '--quiet', str(source))
        processes.run('promtool', *words, str(directory / 'data'))
        arguments = super()._arguments(directory)
        (directory / 'prometheus.yml').write_text('{}', encoding='ascii')
        return (*arguments, '--storage.tsdb.retention.time=10d')


class Relabelling(servers.Prometheus):
    """A Prometheus that scrapes with the relabelling that our file for CloudKitty tells."""

    def _arguments(self, directory: pathlib.Path) -> tuple[str, ...]:
        arguments = super()._arguments(directory)
        path = directory / 'prometheus.yml'
        config = json.loads(path.read_text(encoding='utf-8'))
        config['scrape_configs'][0].update(told_relabelling())
        path.write_text(json.dumps(config), encoding='utf-8')
        return arguments


def told_relabelling() -> dict[str, object]:
    """Return the lines of the comment that an operator copies into a scrape configuration."""
    text = _METRICS.read_text(encoding='ascii')
    found = re.search(r'(?m)^#   metric_relabel_configs:\n(?:#    .*\n)+', text)
    assert found is not None
    lines = (line.removeprefix('#   ') for line in found[0].splitlines())
    told = yaml.safe_load('\n'.join(lines))
    assert isinstance(told, dict)
    return told
