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

import os
import pathlib
import re

from oslo_log import _options
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
    """Return group and name of every option, those of oslo.log included."""
    return {
        (group.name if group else 'DEFAULT', option.dest)
        for group, listed in (*opts.list_opts(), *_options.list_opts())
        for option in listed
    }


@pytest.mark.parametrize('path', TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
class TestDocumentation:
    def test_series_exist(self, path, metrics):
        named = re.findall(
            r'\b(?:oie|libvirt_nova)_[a-z]+_[a-z_]*[a-z]\b(?![_…]|\.\w)', read(path)
        )
        unknown = {name for name in named if name not in metrics}
        types = {pollster.resource_type for pollster in wiring.pollsters().values()}
        assert unknown <= {'oie_log_level', 'libvirt_nova_exporter'} | types

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


# --- what replaces the flags of others --------------------------------------

GO, LIBVIRT_NOVA = 'install/from-go-exporter.rst', 'install/from-libvirt-nova-exporter.rst'
LISTS = ('tor.exit', 'tor.relay', 'spamhaus', 'emergingthreats', 'customlist')
# Of version 1.1 of the exporter in Go, as its role and its source have them.
GO_FLAGS = {
    *('web.listen-address', 'web.telemetry-path', 'libvirt.uri', 'collection.interval'),
    *('static.cache.expiration', 'dynamic.cache.expiration', 'cpu.min', 'conntrack.min'),
    *('default.read.threshold', 'default.write.threshold', 'read.thresholds'),
    *('write.thresholds', 'contacts.direction', 'outbound.behavior.enable'),
    *('host.threats.enable', 'host.ips.allow-private', 'host.interfaces'),
    *('threatfile.enable', 'threatfile.path', 'log.file.enable', 'log.file.path', 'log.level'),
    *(f'{name}.{part}' for name in LISTS for part in ('enable', 'refresh', 'direction')),
    *(f'{name}.url' for name in LISTS if name != 'customlist'),
    *('spamhaus.ipv6.url', 'customlist.path'),
}


def rows(page):
    """Return the first two cells of each row of the tables of a page whose first is a flag."""
    text = (ROOT / 'doc/source' / page).read_text(encoding='utf-8')
    found = re.findall(r'^   \* - ``-([\w.-]+)``\n     - (.*)$', text, re.MULTILINE)
    assert len(found) == len(dict(found)), 'a flag stands twice'
    return dict(found)


def test_every_flag_of_the_go_exporter_has_its_row():
    assert len(GO_FLAGS) == 43
    assert rows(GO).keys() >= GO_FLAGS


def test_every_option_of_libvirt_nova_exporter_has_its_row():
    assert rows(LIBVIRT_NOVA).keys() == {'uri', 'path', 'port', 'log'}


@pytest.mark.parametrize('page', [GO, LIBVIRT_NOVA])
def test_flags_lead_to_options_that_exist(page, options):
    for flag, cell in rows(page).items():
        named = re.findall(r'\[(\w+)\] (\w+)', cell)
        assert named or cell.startswith(('none', '``block_jobs``')), flag
        assert set(named) <= options, flag


def test_switches_of_lists_lead_to_lists_that_exist():
    for name in LISTS:
        cell = rows(GO)[f'{name}.enable']
        [listed] = re.findall(r'^``(\w+)`` in ', cell)
        assert listed == name.replace('.', '_')
        assert listed in plugins.load('oie.threat_feeds')


def test_defaults_that_the_table_does_not_call_different_are_those_of_the_go_exporter():
    conf = wiring.load(('--config-file', os.devnull), 'test')
    assert str(conf.libvirt.uri) == 'qemu:///system'
    assert (conf.collector.interval, conf.collector.static_cache_expiration) == (10, 3600)
    assert (conf.collector.dynamic_cache_expiration, conf.collector.cpu_min) == (10, 10.0)
    assert (conf.conntrack.min, conf.threats.contacts_direction) == (20, 'out')
    assert (conf.disk.default_read_threshold, conf.disk.default_write_threshold) == (100, 100)
    hours = {'tor_exit': 1, 'tor_relay': 1, 'spamhaus': 6, 'emergingthreats': 6}
    for name, number in hours.items():
        assert conf[f'feed_{name}'].refresh == number * 3600
    assert conf.feed_customlist.refresh == 600


def test_privileges_name_every_capability_that_is_asked_for():
    text = read(ROOT / 'doc/source/admin/privileges.rst')
    code = (ROOT / 'oie/cmd/rights.py').read_text(encoding='utf-8')
    asked = set(re.findall(r'CAP_[A-Z_]+[A-Z]', code))
    assert asked
    assert {name for name in asked if name not in text} == set()
