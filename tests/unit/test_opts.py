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

"""The sample file names every option, and it is the one that the code writes today."""

import configparser
import importlib.metadata
import io
import pathlib
import re

from oslo_config import cfg
from oslo_config import generator
import pytest

from oie import config
from oie import opts
from oie import plugins
from tests.unit import entry_points

ROOT = pathlib.Path(__file__).parents[2]
HERE = 'tests.unit.test_opts'


class Plugin:
    """A plugin of a stranger."""

    OPTS = (
        cfg.StrOpt('colour', default='red', help='A colour.'),
        cfg.Opt('pause', type=config.Duration(minimum=1), default='90', help='A pause.'),
    )


class Sharing(Plugin):
    GROUP = 'collector_strange'


def generate(*arguments):
    """Return the sample file for a command line of oslo-config-generator."""
    conf = cfg.ConfigOpts()
    generator.register_cli_opts(conf)
    conf(list(arguments), prog='oslo-config-generator')
    output = io.StringIO()
    generator.generate(conf, output)
    return output.getvalue()


def without_oslo_log(sample):
    """Return a sample file without the part that changes with the version of oslo.log."""
    return re.sub(r'#\n# From oslo\.log\n#\n.*?(?=\n\[)', '', sample, count=1, flags=re.DOTALL)


def names_of(listed):
    return {group.name if group else 'DEFAULT': [o.dest for o in found] for group, found in listed}


@pytest.fixture
def install(monkeypatch):
    """Return a function that installs plugins of this module; nothing else is installed."""

    def install(namespace, **found):
        entry_points.install(
            monkeypatch, namespace, [(name, f'{HERE}:{value}') for name, value in found.items()]
        )

    for namespace in plugins.NAMESPACES:
        install(namespace)
    return install


@pytest.fixture
def _as_setup_cfg_says(monkeypatch):
    """Install what setup.cfg names, so that no old or foreign installation has a say."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    for namespace in (*plugins.NAMESPACES, 'oslo.config.opts'):
        lines = setup['entry_points'].get(namespace, '').strip().splitlines()
        found = [tuple(part.strip() for part in line.split('=')) for line in lines]
        if namespace == 'oslo.config.opts':
            [log] = importlib.metadata.entry_points(group=namespace, name='oslo.log')
            found.append((log.name, log.value))
        entry_points.install(monkeypatch, namespace, found)


@pytest.mark.usefixtures('install')
def test_core_groups_are_listed():
    listed = list(names_of(opts.list_opts()))
    assert listed == [*names_of(config.OPTS), 'threat_log']
    assert set(listed) >= {'DEFAULT', 'collector', 'disk', 'exporter', 'threats', 'host_threats'}


def test_a_strangers_plugin_is_listed_by_itself(install):
    install('oie.collectors', strange='Plugin')
    assert names_of(opts.list_opts())['collector_strange'] == ['colour', 'pause']


def test_a_shared_option_is_listed_once(install):
    install('oie.collectors', strange='Plugin', stranger='Sharing')
    listed = opts.list_opts()
    assert names_of(listed)['collector_strange'] == ['colour', 'pause']
    assert len(listed) == len(names_of(listed))


@pytest.mark.usefixtures('_as_setup_cfg_says')
def test_every_option_of_ours_has_help_in_sentences():
    for _, found in opts.list_opts():
        for option in found:
            assert re.fullmatch(r'[A-Z/].*\.', option.help, re.DOTALL), option.name


@pytest.mark.usefixtures('_as_setup_cfg_says')
def test_every_default_of_ours_is_right():
    config.load(['--config-file', '/dev/null'], prog='p', groups=plugins.option_groups)


def test_sample_shows_type_range_and_default(install, monkeypatch):
    install('oie.collectors', strange='Plugin')
    entry_points.install(monkeypatch, 'oslo.config.opts', [('oie', 'oie.opts:list_opts')])
    sample = generate('--namespace', 'oie')
    for expected in (
        '[collector_strange]\n# A plugin of a stranger.\n\n#\n# From oie\n#\n\n'
        '# A colour. (string value)\n#colour = red\n\n'
        '# A pause. (duration)\n# Minimum value: 1s\n#pause = 1m30s\n',
        '# Minimum value: 1s\n# Maximum value: 1h\n#interval = 10s\n',
        '#static_cache_expiration = 1h\n',
        '#listen_address = 127.0.0.1:9120\n',
        '# oie - the series whose names begin with oie\n',
        '#metric_sets = oie\n',
        '#read_thresholds =\n',
        '#enabled =\n',
        '# notice - Also warnings',
        '#oie_log_level = error\n',
        '#cpu_min = 10.0\n',
    ):
        assert expected in sample


@pytest.mark.usefixtures('_as_setup_cfg_says')
def test_sample_in_the_repository_is_the_one_generated_today(monkeypatch):
    monkeypatch.chdir(ROOT)
    generated = generate('--config-file', 'etc/oie/oie-config-generator.conf')
    stored = (ROOT / 'etc/oie/oie.conf.sample').read_text(encoding='utf-8')
    assert without_oslo_log(stored) == without_oslo_log(generated), 'run: tox -e genconfig'
