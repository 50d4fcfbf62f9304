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

"""What is set is right and known, or one line names the place, the option and the value."""

import logging
import pathlib
import subprocess
import sys

import hypothesis
from hypothesis import strategies
from oslo_config import cfg
import pytest

from oie import config
from oie import exceptions
from tests.unit import entry_points

# What an installed plugin brings.
FEED_OPTS = (
    cfg.StrOpt('url', default='https://example.org', help='Address.', deprecated_name='uri'),
    cfg.IntOpt('limit', default=3, min=1, help='Limit.'),
    cfg.BoolOpt('strict', default=False, help='Strict.'),
    cfg.Opt('key_age', type=config.Duration(), default='1s', secret=True, help='A secret.'),
)
GROUPS = [(cfg.OptGroup('feed_list'), FEED_OPTS), (cfg.OptGroup('collector_cpu'), ())]
# The defaults that operators and their roles rely on.
CONTRACT = {
    ('collector', 'enabled'): (),
    ('collector', 'interval'): 10.0,
    ('collector', 'static_cache_expiration'): 3600.0,
    ('collector', 'dynamic_cache_expiration'): 10.0,
    ('collector', 'cpu_min'): 10.0,
    ('collector', 'without_nova_metadata'): 'keep',
    ('disk', 'default_read_threshold'): 100,
    ('disk', 'default_write_threshold'): 100,
    ('disk', 'read_thresholds'): {},
    ('disk', 'write_thresholds'): {},
    ('exporter', 'listen_address'): [config.Endpoint('127.0.0.1', 9120)],
    ('exporter', 'telemetry_path'): '/metrics',
    ('exporter', 'metric_sets'): ('oie',),
    ('exporter', 'socket_path'): '/run/oie/oie.sock',
    ('exporter', 'socket_group'): '',
}
NAME = cfg.StrOpt('name', positional=True, choices=['instances', 'disks'])


@pytest.fixture(autouse=True)
def _one_collector(monkeypatch):
    entry_points.install(monkeypatch, 'oie.collectors', [('cpu', 'nowhere:Cpu')])


@pytest.fixture
def load(tmp_path):
    """Return a function that loads one default file; {file} in its arguments is the path."""

    def load(text='', *argv, groups=GROUPS, extra_cli=()):
        path = tmp_path / 'oie.conf'
        path.write_text(text)
        return config.load(
            [argument.format(file=path) for argument in argv],
            prog='oie-exporter',
            groups=lambda _settings: groups,
            extra_cli=extra_cli,
            version='1.2.3',
            default_file=str(path),
            default_directory=f'{path}.d',
        )

    return load


@pytest.fixture
def error_of(load, tmp_path):
    """Return a function that loads as load does and gives the error, less the directory."""

    def error_of(*arguments, **more):
        with pytest.raises(exceptions.ConfigError) as caught:
            load(*arguments, **more)
        return str(caught.value).replace(f'{tmp_path}/', '')

    return error_of


class TestDefaults:
    def test_missing_default_files_leave_all_defaults(self):
        conf = config.load(
            [],
            prog='p',
            groups=lambda _settings: (),
            default_file='/nowhere/a',
            default_directory='/nowhere/b',
        )
        assert {name: conf[group][name] for group, name in CONTRACT} == {
            name: value for (_, name), value in CONTRACT.items()
        }
        assert conf.oie_log_level == 'error'
        assert conf.log_file is None

    def test_a_plugin_without_options_still_has_its_group(self, load):
        assert dict(load()['collector_cpu']) == {}

    def test_the_environment_sets_nothing(self, load, monkeypatch):
        monkeypatch.setenv('OS_COLLECTOR__INTERVAL', '5s')
        assert load().collector.interval == 10.0

    def test_one_load_knows_nothing_of_another(self, load):
        load().set_override('interval', 5.0, 'collector')
        assert load().collector.interval == 10.0


class TestValues:
    def test_values_of_the_file_count(self, load):
        conf = load(
            '[DEFAULT]\noie_log_level = info\nlog_file = /var/log/oie.log\n'
            '[collector]\nenabled = cpu\ninterval = 1s\ncpu_min = 0\n'
            '[disk]\nread_thresholds = default:500,local:200\n'
            '[exporter]\nmetric_sets = oie,libvirt_nova\nsocket_path =\n'
            'listen_address = 192.0.2.1:9120\nlisten_address = [::1]:9120\n'
            '[feed_list]\nlimit = 7\n'
        )
        assert (conf.oie_log_level, conf.log_file) == ('info', '/var/log/oie.log')
        assert conf.collector.enabled == ('cpu',)
        assert (conf.collector.interval, conf.collector.cpu_min) == (1.0, 0.0)
        assert conf.disk.read_thresholds == {'default': 500, 'local': 200}
        assert conf.exporter.metric_sets == ('oie', 'libvirt_nova')
        assert conf.exporter.socket_path == ''
        assert conf.exporter.listen_address == [
            config.Endpoint('192.0.2.1', 9120),
            config.Endpoint('::1', 9120),
        ]
        assert conf.feed_list.limit == 7

    def test_sections_are_found_in_any_case_as_in_oslo_config(self, load):
        assert load('[Collector]\ninterval = 5s\n').collector.interval == 5.0

    def test_the_old_name_of_an_option_still_counts(self, load):
        assert load('[feed_list]\nuri = https://old\n').feed_list.url == 'https://old'

    def test_later_files_win(self, load, tmp_path):
        (tmp_path / 'oie.conf.d').mkdir()
        (tmp_path / 'oie.conf.d/a.conf').write_text('[collector]\ninterval = 20\n')
        (tmp_path / 'oie.conf.d/b.conf').write_text('[collector]\ninterval = 30\n')
        conf = load('[collector]\ninterval = 40\ncpu_min = 1\n')
        assert (conf.collector.interval, conf.collector.cpu_min) == (30.0, 1.0)

    def test_an_option_that_takes_many_values_may_stand_there_often(self, load):
        conf = load(
            '[exporter]\nlisten_address = 127.0.0.1:1\nlisten_address = 127.0.0.1:2\n'
            '[EXPORTER]\nlisten_address = 127.0.0.1:1\n'
        )
        assert [each.port for each in conf.exporter.listen_address] == [1, 2, 1]

    def test_a_file_that_is_named_twice_says_nothing_twice(self, load):
        again = ('--config-file', '{file}', '--config-file', '{file}')
        assert load('[collector]\ninterval = 5s\n', *again).collector.interval == 5.0

    def test_a_wrong_value_that_a_later_file_replaces_does_not_count(self, load, tmp_path):
        (tmp_path / 'oie.conf.d').mkdir()
        (tmp_path / 'oie.conf.d/a.conf').write_text('[collector]\ninterval = 20\n')
        assert load('[collector]\ninterval = 10x\n').collector.interval == 20.0

    def test_named_files_replace_the_default_ones(self, load, tmp_path):
        (tmp_path / 'other.conf').write_text('[collector]\ninterval = 20\n')
        text = '[collector]\ninterval = 40\ncpu_min = 1\n'
        conf = load(text, '--config-file', f'{tmp_path}/other.conf')
        assert (conf.collector.interval, conf.collector.cpu_min) == (20.0, 10.0)

    def test_a_named_directory_replaces_the_default_file(self, load, tmp_path):
        (tmp_path / 'empty').mkdir()
        conf = load('[collector]\ninterval = 40\n', '--config-dir', f'{tmp_path}/empty')
        assert conf.collector.interval == 10.0

    def test_references_are_resolved(self, load):
        conf = load(
            '[exporter]\nsocket_group = oie\n'
            'socket_path = /run/$socket_group/${oie_log_level}/$feed_list.limit/$$x\n'
        )
        assert conf.exporter.socket_path == '/run/oie/error/3/$x'

    def test_arguments_of_the_program_count(self, load):
        assert load('', 'disks', '--debug', extra_cli=[NAME]).name == 'disks'


# Everything that may stand in a file, and what is said of it.
WRONG_FILES = [
    # durations
    (
        '[collector]\ninterval = 10x\n',
        "oie.conf:2: [collector] interval = 10x: '10x' is not a duration; "
        'write for example 10s, 1m30s, 500ms',
    ),
    (
        '[collector]\ninterval =\n',
        "oie.conf:2: [collector] interval = '': '' is not a duration; "
        'write for example 10s, 1m30s, 500ms',
    ),
    (
        '# ten\n\n[collector]\n\ninterval: 999ms\n',
        'oie.conf:5: [collector] interval = 999ms: 999ms is below the minimum 1s',
    ),
    (
        '[collector]\ninterval = 2h\n',
        'oie.conf:2: [collector] interval = 2h: 2h is above the maximum 1h',
    ),
    (
        '[collector]\ninterval = 1\n  0s\n',
        "oie.conf:2: [collector] interval = 1\\n0s: '1\\n0s' is not a duration; "
        'write for example 10s, 1m30s, 500ms',
    ),
    # numbers
    (
        '[collector]\ncpu_min = ten\n',
        "oie.conf:2: [collector] cpu_min = ten: 'ten' is not a number",
    ),
    (
        '[collector]\ncpu_min = nan\n',
        'oie.conf:2: [collector] cpu_min = nan: nan is not a finite number',
    ),
    (
        '[collector]\ncpu_min = -1\n',
        'oie.conf:2: [collector] cpu_min = -1: Should be greater than or equal to 0',
    ),
    (
        '[disk]\ndefault_read_threshold = 1.5\n',
        "oie.conf:2: [disk] default_read_threshold = 1.5: '1.5' is not a whole number",
    ),
    (
        '[disk]\ndefault_write_threshold =\n',
        "oie.conf:2: [disk] default_write_threshold = '': "
        'the value is empty; write one or take the line away',
    ),
    # choices, lists, tables
    (
        '[DEFAULT]\noie_log_level = loud\n',
        'oie.conf:2: [DEFAULT] oie_log_level = loud: '
        "Valid values are [error, notice, info, debug], but found 'loud'",
    ),
    (
        '[collector]\nwithout_nova_metadata = maybe\n',
        'oie.conf:2: [collector] without_nova_metadata = maybe: '
        "Valid values are [keep, skip], but found 'maybe'",
    ),
    (
        '[collector]\nenabled = cpu,gpu\n',
        "oie.conf:2: [collector] enabled = cpu,gpu: 'gpu' is not an installed plugin of "
        'oie.collectors; these are: cpu',
    ),
    (
        '[exporter]\nmetric_sets =\n',
        "oie.conf:2: [exporter] metric_sets = '': "
        'the list is empty; write at least one of oie, libvirt_nova, netns',
    ),
    (
        '[exporter]\nmetric_sets = oie,oie\n',
        "oie.conf:2: [exporter] metric_sets = oie,oie: 'oie' is there twice",
    ),
    (
        '[disk]\nread_thresholds = default:500,bad,ceph:1000\n',
        'oie.conf:2: [disk] read_thresholds = default:500,bad,ceph:1000: '
        "'bad' is not tier:IOPS; write for example default:500,local:200",
    ),
    # addresses and paths
    (
        '[exporter]\nlisten_address = 127.0.0.1:9120\nlisten_address = :9120\n'
        'listen_address = 127.0.0.2:9120\n',
        "oie.conf:3: [exporter] listen_address = :9120: ':9120' names no host; "
        'write 0.0.0.0:9120 for all IPv4 addresses, [::]:9120 for all IPv6 addresses',
    ),
    (
        '[exporter]\ntelemetry_path = /healthz\n',
        "oie.conf:2: [exporter] telemetry_path = /healthz: '/healthz' serves something else; "
        'choose another path',
    ),
    (
        '[exporter]\nsocket_path = oie.sock\n',
        "oie.conf:2: [exporter] socket_path = oie.sock: 'oie.sock' is not an absolute path",
    ),
    # options of plugins and of oslo.log
    (
        '[feed_list]\nlimit = many\n',
        "oie.conf:2: [feed_list] limit = many: 'many' is not a whole number",
    ),
    (
        '[feed_list]\nstrict = maybe\n',
        "oie.conf:2: [feed_list] strict = maybe: Unexpected boolean value 'maybe'",
    ),
    (
        '[feed_list]\nkey_age = hunter2\n',
        'oie.conf:2: [feed_list] key_age = ***: not a valid value',
    ),
    (
        '[DEFAULT]\ndebug = maybe\n',
        "oie.conf:2: [DEFAULT] debug = maybe: Unexpected boolean value 'maybe'",
    ),
    # references
    (
        '[exporter]\nsocket_path = $rundir/oie.sock\n',
        'oie.conf:2: [exporter] socket_path = $rundir/oie.sock: '
        '$rundir refers to no option; write $$ for a dollar sign',
    ),
    (
        '[exporter]\nsocket_path = ${nowhere.rundir}/oie.sock\n',
        'oie.conf:2: [exporter] socket_path = ${nowhere.rundir}/oie.sock: '
        '$nowhere.rundir refers to no option; write $$ for a dollar sign',
    ),
    (
        '[DEFAULT]\nlog_file = $rundir/oie.log\n',
        'oie.conf:2: [DEFAULT] log_file = $rundir/oie.log: '
        '$rundir refers to no option; write $$ for a dollar sign',
    ),
    (
        '[exporter]\nsocket_path = $socket_path\n',
        'oie.conf:2: [exporter] socket_path = $socket_path: the reference leads back to itself',
    ),
    ('[DEFAULT]\nlog_file = $log_file\n', '[DEFAULT]: a reference ($) leads back to itself'),
    (
        '[collector]\ninterval = $oie_log_level\n',
        "oie.conf:2: [collector] interval = $oie_log_level: 'error' is not a duration; "
        'write for example 10s, 1m30s, 500ms',
    ),
    # names
    (
        '[collector]\nintervel = 5\n',
        'oie.conf:2: [collector] intervel = 5: unknown option; did you mean interval?',
    ),
    (
        '[collector]\nInterval = 5\n',
        'oie.conf:2: [collector] Interval = 5: unknown option; did you mean interval?',
    ),
    (
        '[exporter]\ncpu_min = 5\n',
        'oie.conf:2: [exporter] cpu_min = 5: unknown option; it belongs to [collector]',
    ),
    ('[disk]\nxyz = 5\n', 'oie.conf:2: [disk] xyz = 5: unknown option'),
    (
        '[feed_list]\nlimits = 5\n',
        'oie.conf:2: [feed_list] limits = 5: unknown option; did you mean limit?',
    ),
    (
        '[DEFAULT]\nlog-file = /x\n',
        'oie.conf:2: [DEFAULT] log-file = /x: unknown option; did you mean log_file?',
    ),
    (
        '[DEFAULT]\nconfig_source = x\n',
        'oie.conf:2: [DEFAULT] config_source = x: unknown option',
    ),
    (
        '[colektor]\ninterval = 5\n',
        'oie.conf:1: unknown section [colektor]; did you mean [collector]?',
    ),
    (
        '[collector_gpu]\n',
        'oie.conf:1: unknown section [collector_gpu]; did you mean [collector_cpu]?',
    ),
    ('[default]\n', 'oie.conf:1: unknown section [default]; did you mean [DEFAULT]?'),
    ('\n[nova]\n', 'oie.conf:2: unknown section [nova]'),
    # twice
    (
        '[collector]\ninterval = 10s\n\ninterval = 20s\n',
        'oie.conf:4: [collector] interval = 20s: line 2 says 10s; take one of them away',
    ),
    (
        '[collector]\ninterval = 10s\n[disk]\n[COLLECTOR]\ninterval = 10s\n',
        'oie.conf:5: [COLLECTOR] interval = 10s: line 2 says 10s; take one of them away',
    ),
    (
        '[feed_list]\nuri = https://old\nurl = https://new\n',
        'oie.conf:3: [feed_list] url = https://new: line 2 says uri = https://old; '
        'take one of them away',
    ),
    (
        '[feed_list]\nkey_age = 1s\nkey_age = 2s\n',
        'oie.conf:3: [feed_list] key_age = ***: line 2 says ***; take one of them away',
    ),
    # syntax
    ('interval = 5\n', "oie.conf:1: Option before the first [section]: 'interval'"),
    ('[collector]\ninterval\n', "oie.conf:2: No ':' or '=' found in assignment: 'interval'"),
]


@pytest.mark.parametrize(('text', 'error'), WRONG_FILES)
def test_anything_wrong_in_a_file_is_told_in_one_line(error_of, text, error):
    assert error_of(text) == error


class TestPlaces:
    def test_the_file_that_counts_is_named(self, error_of, tmp_path):
        (tmp_path / 'oie.conf.d').mkdir()
        (tmp_path / 'oie.conf.d/a.conf').write_text('\n[collector]\ninterval = 10x\n')
        assert error_of('[collector]\ninterval = 20s\n').startswith(
            'oie.conf.d/a.conf:3: [collector] interval = 10x: '
        )

    def test_an_unknown_option_counts_in_every_file(self, error_of, tmp_path):
        (tmp_path / 'oie.conf.d').mkdir()
        (tmp_path / 'oie.conf.d/a.conf').touch()
        assert error_of('[disk]\nx = 1\n') == 'oie.conf:2: [disk] x = 1: unknown option'

    @pytest.mark.parametrize(
        'text', ['[collector]\ninterval = {}\n', '[collector]\n{} = 1\n', '[{}]\n']
    )
    def test_long_text_is_cut(self, error_of, text):
        assert len(error_of(text.format('1' * 65536))) < 300

    def test_signs_that_control_a_terminal_are_escaped(self, error_of):
        assert error_of('[a\x1b]\n') == 'oie.conf:1: unknown section [a\\x1b]'

    def test_missing_named_file_is_told(self, error_of):
        assert error_of('', '--config-file', '{file}.old') == (
            'oie.conf.old: cannot be read: No such file or directory'
        )

    def test_a_file_cannot_set_an_argument_of_the_program(self, error_of):
        assert error_of('[DEFAULT]\nname = disks\n', 'disks', extra_cli=[NAME]) == (
            'oie.conf:2: [DEFAULT] name = disks: unknown option'
        )

    def test_required_option_that_nobody_sets_is_told(self, error_of):
        group = cfg.OptGroup('feed_x')
        required = cfg.StrOpt('url', required=True)
        assert error_of('', groups=[(group, [required])]) == (
            'value required for option url in group [feed_x]'
        )

    def test_plugins_that_do_not_agree_are_told(self, error_of):
        group = cfg.OptGroup('shared')
        opts = [(group, [cfg.StrOpt('x', default=value)]) for value in 'ab']
        assert error_of('', groups=opts) == (
            '[shared] x is an option of two plugins that do not agree about it; '
            'uninstall one of them'
        )


class TestCommandLine:
    @pytest.mark.parametrize(
        ('argv', 'error'),
        [
            (['--interval=5'], 'unrecognized arguments: --interval=5'),
            (['disks', 'more'], 'unrecognized arguments: more'),
            (['disks', '--config-file'], 'argument --config-file: expected one argument'),
            (['disks', '--count', 'x'], 'argument --count: Invalid Integer value: x'),
            ([], 'the following arguments are required: name'),
            (
                ['flavors'],
                "argument --name: Invalid String(choices=['instances', 'disks']) value: flavors",
            ),
        ],
    )
    def test_anything_wrong_is_told_in_one_line(self, error_of, capfd, argv, error):
        extra = [NAME, cfg.IntOpt('count')]
        if argv[:1] == ['--interval=5']:
            extra = []
        assert error_of('', *argv, extra_cli=extra) == error
        assert capfd.readouterr() == ('', '')

    @pytest.mark.parametrize('argument', ['--help', '-h'])
    def test_help_comes_whatever_the_files_say(self, load, capsys, argument):
        with pytest.raises(SystemExit) as caught:
            load('[nonsense', argument)
        assert caught.value.code == 0
        assert '/etc/oie/oie.conf.d/*.conf' in capsys.readouterr().out

    def test_version_comes_whatever_the_files_say(self, load, capsys):
        with pytest.raises(SystemExit) as caught:
            load('[nonsense', '--version')
        assert caught.value.code == 0
        assert capsys.readouterr().out == '1.2.3\n'


class TestFail:
    def test_one_line_on_stderr_and_status_2(self, capsys):
        with pytest.raises(SystemExit) as caught:
            config.fail('oie-exporter', exceptions.ConfigError('two\n  lines'))
        assert caught.value.code == 2
        assert capsys.readouterr() == ('', 'oie-exporter: two lines\n')


class TestImport:
    def test_describing_options_does_not_import_oslo_log(self):
        code = "import sys; from oie import config; sys.exit('oslo_log.log' in sys.modules)"
        subprocess.run([sys.executable, '-c', code], check=True)

    def test_load_leaves_the_log_alone(self, load):
        before = list(logging.root.handlers)
        load()
        assert logging.root.handlers == before


WORDS = strategies.sampled_from(
    ['collector', 'disk', 'DEFAULT', 'interval', 'read_thresholds', 'oie_log_level', 'debug']
    + ['exporter', 'listen_address', 'log_file', '10s', '$interval', 'a:1', '[::1]:1', 'x', '']
) | strategies.text(strategies.characters(codec='utf-8', exclude_characters='\0'), max_size=12)


@hypothesis.settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(strategies.lists(strategies.tuples(WORDS, WORDS, WORDS), max_size=3))
def test_any_file_is_taken_or_refused_in_one_line(load, lines):
    text = ''.join(f'[{section}]\n{name} = {value}\n' for section, name, value in lines)
    error = ''
    try:
        load(text)
    except exceptions.ConfigError as exc:
        error = str(exc)
    assert len(error.splitlines()) <= 1
    assert len(error) < 500


def test_the_example_in_the_documentation_is_right(load):
    page = pathlib.Path(__file__).parents[3] / 'doc/source/configuration/index.rst'
    _, _, example = page.read_text().partition('.. code-block:: ini\n\n')
    conf = load('\n'.join(line.strip() for line in example.splitlines()))
    assert conf.collector.interval == 10.0
