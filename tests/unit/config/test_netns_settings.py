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


"""What is read of namespaces: the options, and netns-exporter's file as it is."""

import types

import hypothesis
from hypothesis import strategies
import pytest

from oie import exceptions
from oie.cmd import wiring
from oie.config import netns_settings
from oie.config import proc_files

# The sample files of velp's and of saeed-mcu's netns-exporter, and more of what they may say.
FILE = b"""
api_server:
  server_address: 127.0.0.1
  server_port: 8080
  request_timeout: 600
  telemetry_path: /metrics
threads: 4
interface_metrics: ["rx_bytes", "rx_packets", "rx_dropped", "tx_bytes", "tx_packets"]
proc_metrics:
  nat_conntrack:
    file: sys/net/netfilter/nf_conntrack_count
  ip_forward:
    file: sys/net/ipv4/ip_forward
namespaces_filter:
  blacklist_pattern: ^qrouter-dead
  whitelist_pattern: qrouter-*
device_filter:
  whitelist_pattern: qg-*|qr-*
"""


def options(**more):
    values = {
        'enabled': True,
        'namespaces_blacklist': '',
        'namespaces_whitelist': '',
        'device_blacklist': '',
        'device_whitelist': '',
        'interface_metrics': ('rx_errors',),
        'proc_metrics': {},
        'netns_exporter_config': '',
        **more,
    }
    return types.SimpleNamespace(**values)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / 'config.yaml'
    path.write_bytes(FILE)
    return path


# --- filters ------------------------------------------------------------------


@pytest.mark.parametrize(
    ('blacklist', 'whitelist', 'passing'),
    [
        ('', '', ['qdhcp-1', 'qrouter-1', 'qrouter-2']),
        ('', 'qrouter', ['qrouter-1', 'qrouter-2']),
        ('2$', '', ['qdhcp-1', 'qrouter-1']),
        # The black list stands above the white one.
        ('-1', 'qrouter', ['qrouter-2']),
        ('.', 'qrouter', []),
    ],
)
def test_black_list_comes_before_the_white_one(blacklist, whitelist, passing):
    wanted = netns_settings.Filter(blacklist, whitelist)
    names = ['qdhcp-1', 'qrouter-1', 'qrouter-2']
    assert [name for name in names if wanted.passes(name)] == passing


# --- the file -----------------------------------------------------------------


def test_file_replaces_the_options_that_it_names(file):
    found = netns_settings.of(
        options(netns_exporter_config=str(file), device_blacklist='lost', proc_metrics={'x': 'y'})
    )

    assert found.namespaces == netns_settings.Filter('^qrouter-dead', 'qrouter-*')
    assert found.devices == netns_settings.Filter('', 'qg-*|qr-*')
    counters = ('rx_bytes', 'rx_packets', 'rx_dropped', 'tx_bytes', 'tx_packets')
    assert found.interface_metrics == counters
    assert found.proc_metrics == {
        'nat_conntrack': 'sys/net/netfilter/nf_conntrack_count',
        'ip_forward': 'sys/net/ipv4/ip_forward',
    }


def test_what_of_the_file_is_not_used_is_told(file):
    first, second = netns_settings.of(options(netns_exporter_config=str(file))).notes
    assert 'api_server is not used; [exporter] listen_address and telemetry_path' in first
    assert second.endswith('not used: threads')


def test_options_hold_where_the_file_says_nothing(tmp_path):
    path = tmp_path / 'empty.yaml'
    path.write_text('# nothing\n')
    found = netns_settings.of(options(netns_exporter_config=str(path), device_whitelist='qg'))
    assert found == netns_settings.of(options(device_whitelist='qg'))


def test_file_is_not_read_where_no_namespaces_are():
    found = netns_settings.of(options(enabled=False, netns_exporter_config='/nowhere/at/all'))
    assert found.interface_metrics == ('rx_errors',)


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('[', 'it is not YAML'),
        ('- a\n- b', 'the file is not a mapping'),
        ('a: 1\na: 2', 'is there twice'),
        ('interface_metrics: rx_bytes', 'interface_metrics is not a list'),
        ('interface_metrics: [rx_bites]', "interface_metrics: 'rx_bites' is not one of"),
        ('namespaces_filter: [a]', 'namespaces_filter is not a mapping'),
        ('device_filter: {blacklist_pattern: "("}', "device_filter.blacklist_pattern: '('"),
        ('namespaces_filter: {whitelist_pattern: "a\\\\z"}', 'write \\Z'),
        ('proc_metrics: {a: b}', 'proc_metrics.a is not a mapping'),
        ('proc_metrics: {a: {}}', "proc_metrics.a: '' is no file below /proc"),
        ('proc_metrics: {a b: {file: loadavg}}', "proc_metrics.a b: 'a b' is no name"),
        ('proc_metrics: {a: {file: ../etc/passwd}}', "'../etc/passwd' is no file below"),
        ('# ' + 'x' * netns_settings.MOST_BYTES, 'it has more than 262144 bytes'),
    ],
)
def test_nonsense_in_the_file_is_told_in_one_line(tmp_path, text, reason):
    path = tmp_path / 'config.yaml'
    path.write_text(text)
    with pytest.raises(exceptions.ConfigError) as caught:
        netns_settings.of(options(netns_exporter_config=str(path)))
    message = str(caught.value)
    assert message.startswith('[netns] netns_exporter_config = ')
    assert reason in message
    assert '\n' not in message


@pytest.mark.parametrize('path', ['/nowhere/config.yaml', '/proc'])
def test_file_that_cannot_be_read_is_named(path):
    with pytest.raises(exceptions.ConfigError, match=f'= {path}: (No such file|Is a directory)'):
        netns_settings.of(options(netns_exporter_config=path))


@hypothesis.given(strategies.binary(max_size=300) | strategies.text(max_size=300))
def test_any_bytes_give_settings_or_one_of_our_errors(data):
    own = netns_settings.of(options())
    try:
        found = netns_settings.with_file(own, data if isinstance(data, bytes) else data.encode())
    except ValueError:
        return
    assert isinstance(found, netns_settings.Settings)


@hypothesis.given(
    strategies.recursive(
        strategies.none() | strategies.text(max_size=8) | strategies.integers(),
        lambda inner: (
            strategies.lists(inner, max_size=3)
            | strategies.dictionaries(strategies.text(max_size=8), inner, max_size=3)
        ),
        max_leaves=8,
    ),
    strategies.sampled_from(
        ['namespaces_filter', 'device_filter', 'interface_metrics', 'proc_metrics', 'api_server']
    ),
)
def test_any_tree_below_a_known_key_gives_settings_or_one_of_our_errors(tree, key):
    import yaml

    own, said = netns_settings.of(options()), key
    try:
        netns_settings.with_file(own, yaml.safe_dump({key: tree}).encode())
    except ValueError as exc:
        said = str(exc)
    assert key in said or 'it is not YAML' in said


# --- files below /proc ----------------------------------------------------------


@pytest.mark.parametrize(
    ('file', 'place'),
    [
        ('sys/net/netfilter/nf_conntrack_count', 'sys/net/netfilter/nf_conntrack_count'),
        ('/proc/loadavg', 'loadavg'),
        # Of the thread that is inside, never of the process.
        ('net/sockstat', 'thread-self/net/sockstat'),
        ('self/net/sockstat', 'thread-self/net/sockstat'),
        ('thread-self/net/stat/nf_conntrack', 'thread-self/net/stat/nf_conntrack'),
        ('1/net/snmp', 'thread-self/net/snmp'),
    ],
)
def test_file_is_that_of_the_namespace(file, place):
    assert proc_files.checked('a', file) == place


@pytest.mark.parametrize(
    'file',
    [
        *('', '/', '.', '..', '../etc/shadow', 'net/../../etc/shadow', '/etc/shadow', 'a//b'),
        *('self/root/etc/shadow', '1/root/etc/shadow', 'self/cwd/x', 'thread-self/fd/3'),
        *('self/task/1/root/etc', '1/environ', 'self', 'net/\0', 'net/\n', './net/x', 'net/.'),
    ],
)
def test_way_out_of_proc_is_refused(file):
    with pytest.raises(ValueError, match='below /proc|belongs to a process'):
        proc_files.checked('a', file)


@pytest.mark.parametrize('name', ['', '1a', 'a-b', 'a b', 'a"', 'x' * 61, 'é'])
def test_name_that_cannot_be_part_of_a_series_is_refused(name):
    with pytest.raises(ValueError, match='is no name of a metric'):
        proc_files.checked(name, 'loadavg')


# --- options in a file of ours ----------------------------------------------------


def load(tmp_path, text):
    path = tmp_path / 'oie.conf'
    path.write_text(text)
    return wiring.load(['--config-file', str(path)], 'test')


def test_proc_metrics_are_names_and_files(tmp_path):
    conf = load(tmp_path, '[netns]\nproc_metrics = a:net/sockstat, b : loadavg\n')
    assert conf.netns.proc_metrics == {'a': 'thread-self/net/sockstat', 'b': 'loadavg'}


@pytest.mark.parametrize(
    ('line', 'reason'),
    [
        ('namespaces_blacklist = (', "'(' is no regular expression"),
        ('device_whitelist = [[:alpha:]]', 'has a class like [[:alpha:]]'),
        ('interface_metrics = rx_bites', "'rx_bites' is not one of"),
        ('interface_metrics = rx_bytes,rx_bytes', "'rx_bytes' is there twice"),
        ('proc_metrics = a', "'' is no file below /proc"),
        ('proc_metrics = a:loadavg,a:uptime', "'a' is there twice"),
        ('proc_metrics = a:self/root/etc', 'belongs to a process'),
        ('parts = everything', "'everything' is not one of"),
        ('directory =', "'' is not an absolute path"),
        ('mode = both', 'both'),
        ('timeout = 0', 'below the minimum 10ms'),
    ],
)
def test_wrong_option_is_told_with_its_place(tmp_path, line, reason):
    with pytest.raises(exceptions.ConfigError) as caught:
        load(tmp_path, f'[netns]\n{line}\n')
    message = str(caught.value)
    assert message.startswith(f'{tmp_path}/oie.conf:2: [netns] {line.split(" =")[0]} = ')
    assert reason in message


def test_daemon_does_not_start_with_a_wrong_file(tmp_path):
    path = tmp_path / 'config.yaml'
    path.write_text('device_filter: {blacklist_pattern: "("}')
    conf = load(tmp_path, f'[netns]\nenabled = true\nnetns_exporter_config = {path}\n')
    with pytest.raises(exceptions.ConfigError, match='netns_exporter_config'):
        wiring.network_namespaces(conf)


def test_nothing_is_made_where_namespaces_are_not_read(tmp_path):
    assert wiring.network_namespaces(load(tmp_path, '')) is None


# --- what filters hide ----------------------------------------------------------


def overlooked(external=('qg-*',), **more):
    return netns_settings.overlooked(netns_settings.of(options(**more)), external)


@pytest.mark.parametrize(
    ('external', 'filters'),
    [
        (['qg-*'], {}),
        (['qg-*'], {'device_whitelist': '^(qg|qr)-', 'device_blacklist': 'dead'}),
        (['qg-*'], {'device_whitelist': '^qg-[0-9a-f]{8}-[0-9a-f]{2}$'}),
        ([], {'device_whitelist': '^qr-'}),
        (['eth[]]'], {'device_whitelist': '^qr-'}),
        # Neither of a router's, or both; and there is no gateway in snat-UUID to be counted.
        (['qg-*'], {'namespaces_whitelist': '^qdhcp-'}),
        (['qg-*'], {'namespaces_whitelist': '^(qrouter|snat)-'}),
        (['rfp-*'], {'namespaces_whitelist': '^qrouter-'}),
    ],
)
def test_nothing_is_said_of_filters_that_hide_no_router(external, filters):
    assert overlooked(external, **filters) == ()


@pytest.mark.parametrize(
    ('filters', 'pattern'),
    [
        ({'device_whitelist': '^qr-'}, 'qg-*'),
        ({'device_whitelist': '^(qg|qr)-'}, 'rfp-*'),
        ({'device_blacklist': 'rfp'}, 'rfp-????????-??'),
        ({'device_blacklist': '^q'}, '[q]g-*'),
    ],
)
def test_filter_that_leaves_out_external_devices_is_told(filters, pattern):
    [said] = overlooked([pattern], **filters)
    assert f'external_devices = {pattern}:' in said
    assert 'counts no such device' in said


@pytest.mark.parametrize(
    ('filters', 'unseen'),
    [
        # As saeed-mcu's exporter is shipped: a regular expression, whatever it looks like.
        ({'namespaces_whitelist': 'qrouter-*'}, 'snat'),
        ({'namespaces_whitelist': '^snat-'}, 'qrouter'),
        ({'namespaces_blacklist': 'snat'}, 'snat'),
    ],
)
def test_filter_that_leaves_out_half_of_a_router_is_told(filters, unseen):
    [said] = overlooked(**filters)
    assert f'leaves out {unseen}-UUID' in said


def test_what_filters_hide_is_among_the_settings_that_the_daemon_reads_by(tmp_path):
    conf = load(tmp_path, '[netns]\nenabled = true\ndevice_whitelist = ^qr-\n')
    [said] = wiring.namespace_settings(conf).overlooked
    assert ' qg-27e6b9c0-73,' in said
