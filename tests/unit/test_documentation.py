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

"""The documentation names only metrics, options and meters that there are."""

import pathlib
import re

import pytest

from oie import opts
from oie import plugins
from oie.cmd import wiring

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXTS = sorted(
    path
    for path in (*ROOT.glob('*.rst'), *(ROOT / 'doc/source').rglob('*'))
    if path.suffix in {'.rst', '.yaml', '.conf', '.inc'}
)
# An option of Nova, and an example of an option that is none.
FOREIGN = {('libvirt', 'mem_stats_period_seconds'), ('collector', 'intervals')}


def read(path):
    # What a line break or a double backquote takes apart is one name all the same.
    return re.sub(r'\s+', ' ', path.read_text(encoding='utf-8').replace('``', ' '))


@pytest.fixture(scope='module')
def metrics():
    """Return the names of all series that collectors publish."""
    collectors = plugins.load('oie.collectors').values()
    return {meter.prometheus for each in collectors for meter in each.meters()}


@pytest.fixture(scope='module')
def options():
    """Return group and name of every option, those of oslo.log aside."""
    return {
        (group.name if group else 'DEFAULT', option.dest)
        for group, listed in opts.list_opts()
        for option in listed
    }


@pytest.mark.parametrize('path', TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
class TestDocumentation:
    def test_series_exist(self, path, metrics):
        named = re.findall(
            r'\b(?:oie|libvirt_nova)_[a-z]+_[a-z_]*[a-z]\b(?![_…]|\.\w)', read(path)
        )
        unknown = {name for name in named if name not in metrics}
        assert unknown <= {'oie_log_level', 'libvirt_nova_exporter'}

    def test_options_exist(self, path, options):
        groups = {group for group, _ in options}
        named = re.findall(r'\[([a-zA-Z_]+)\] ([a-z_]+)(?= |[.,:;)]|$)', read(path))
        unknown = {each for each in named if each[0] in groups} - options - FOREIGN
        assert not unknown

    def test_meters_exist(self, path):
        meters = {m.ceilometer for p in wiring.pollsters().values() for m, _ in p.columns}
        named = re.findall(
            r'\boie\.(?:cpu|memory|disk|network|vcpus|state)[a-z.]*[a-z]', read(path)
        )
        assert set(named) <= meters
