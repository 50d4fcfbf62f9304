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

"""Files become settings with their places, or one line says why not."""

import os
from unittest import mock

import hypothesis
from hypothesis import strategies
from oslo_config import cfg
import pytest

from oie import exceptions
from oie.config import files


def message_of(action, *arguments):
    with pytest.raises(exceptions.ConfigError) as caught:
        action(*arguments)
    return str(caught.value)


class TestParse:
    def test_settings_know_the_line_they_begin_at(self):
        content = b'# first\n[a]\nx = 1\ny: 2\n  3\n\n; more\n[b]\n\nz = "4 "'
        assert files.parse('f', content) == [
            files.Setting('f', 2, 'a'),
            files.Setting('f', 3, 'a', 'x', '1'),
            files.Setting('f', 4, 'a', 'y', '2\n3'),
            files.Setting('f', 8, 'b'),
            files.Setting('f', 10, 'b', 'z', '4 '),
        ]

    def test_windows_line_ends_count_once(self):
        assert files.parse('f', b'[a]\r\nx = 1\r\n')[1] == files.Setting('f', 2, 'a', 'x', '1')

    def test_empty_file_has_no_settings(self):
        assert files.parse('f', b'') == []

    def test_place_is_file_and_line(self):
        assert files.Setting('/etc/oie/oie.conf', 7, 'a').place == '/etc/oie/oie.conf:7'

    @pytest.mark.parametrize(
        ('content', 'error'),
        [
            (b'x = 1', "f:1: Option before the first [section]: 'x'"),
            (b'[a]\nx\n', "f:2: No ':' or '=' found in assignment: 'x'"),
            (b'[a\n', "f:1: Invalid section (must end with ]): '[a'"),
            (b'[]\n', "f:1: Empty section name: '[]'"),
            (b'[a]\n= 1\n', "f:2: Key cannot be empty: '= 1'"),
            (b'[a]\n  x = 1\n', "f:2: Unexpected continuation line: '  x = 1'"),
            (b'[a]\n\nx = \xff\n', 'f:3: not UTF-8 text: byte 0xff'),
        ],
    )
    def test_broken_syntax_is_told_with_its_line(self, content, error):
        assert message_of(files.parse, 'f', content) == error

    def test_long_line_is_cut_in_the_message(self):
        assert len(message_of(files.parse, 'f', b'[a]\n' + b'x' * 65536)) < 150

    @hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
    @hypothesis.given(
        strategies.lists(
            strategies.sampled_from(
                [
                    '[a]',
                    '[b]',
                    '',
                    ' ',
                    '# c',
                    'x = 1',
                    'x: 2',
                    'y="3"',
                    '  more',
                    "z=' '",
                    'x',
                    '[',
                ]
            )
            | strategies.text(strategies.characters(exclude_categories=['Cs']), max_size=8)
        )
    )
    def test_what_oslo_config_reads_is_what_we_read(self, tmp_path, lines):
        content = '\n'.join(lines).encode()
        path = tmp_path / 'oie.conf'
        path.write_bytes(content)
        sections = {}
        try:
            cfg.ConfigParser(str(path), sections).parse()
        except cfg.ParseError:
            with pytest.raises(exceptions.ConfigError):
                files.parse('f', content)
            return
        ours = {}
        for setting in files.parse('f', content):
            section = ours.setdefault(setting.section, {})
            if setting.name:
                section.setdefault(setting.name, []).append(setting.value)
        assert ours == sections


class TestNamed:
    def test_no_argument_names_no_files(self):
        assert files.named(['instances', '--debug', '-x', '--other', '1']) is None

    def test_files_and_directories_keep_their_order(self, tmp_path):
        for name in ('b.conf', 'a.conf', '.hidden.conf', 'c.conf.rpmsave'):
            (tmp_path / name).touch()
        argv = ['--config-file', '/z', 'x', f'--config-dir={tmp_path}', '--config-f', '/y']
        assert files.named(argv) == ['/z', f'{tmp_path}/a.conf', f'{tmp_path}/b.conf', '/y']

    def test_empty_directory_is_not_no_directory(self, tmp_path):
        assert files.named(['--config-dir', str(tmp_path)]) == []

    def test_path_is_made_absolute(self, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv('HOME', '/home/nova')
        argv = ['--config-file', 'a.conf', '--config-file', '~/b.conf']
        assert files.named(argv) == [f'{tmp_path}/a.conf', '/home/nova/b.conf']

    def test_missing_directory_is_told(self):
        assert message_of(files.named, ['--config-dir', '/nowhere']) == (
            '/nowhere: cannot be read: No such file or directory'
        )

    def test_missing_argument_is_told(self):
        assert message_of(files.named, ['--config-file']) == (
            'argument --config-file: expected one argument'
        )


class TestPresent:
    def test_nothing_there_is_fine(self, tmp_path):
        assert files.present(f'{tmp_path}/oie.conf', f'{tmp_path}/oie.conf.d') == []

    def test_the_directory_comes_after_the_file(self, tmp_path):
        directory = tmp_path / 'oie.conf.d'
        directory.mkdir()
        for path in (tmp_path / 'oie.conf', directory / '20.conf', directory / '10.conf'):
            path.touch()
        assert files.present(f'{tmp_path}/oie.conf', str(directory)) == [
            f'{tmp_path}/oie.conf',
            f'{directory}/10.conf',
            f'{directory}/20.conf',
        ]

    def test_what_we_may_not_see_counts_as_there(self):
        with mock.patch.object(os, 'lstat', autospec=True, side_effect=PermissionError):
            assert files._is_present('/etc/oie/oie.conf')

    def test_dangling_link_counts_as_there(self, tmp_path):
        (tmp_path / 'oie.conf').symlink_to('nowhere')
        assert files.present(f'{tmp_path}/oie.conf', '/nowhere') == [f'{tmp_path}/oie.conf']


class TestRead:
    def test_settings_of_all_files_keep_their_order(self, tmp_path):
        for name in 'ab':
            (tmp_path / name).write_text(f'[x]\n{name} = 1\n')
        settings = files.read([f'{tmp_path}/b', f'{tmp_path}/a'])
        assert [setting.name for setting in settings] == ['', 'b', '', 'a']

    def test_missing_file_is_told(self):
        assert message_of(files.read, ['/nowhere/oie.conf']) == (
            '/nowhere/oie.conf: cannot be read: No such file or directory'
        )

    def test_directory_in_place_of_a_file_is_told(self, tmp_path):
        assert message_of(files.read, [tmp_path]) == f'{tmp_path}: cannot be read: Is a directory'

    def test_missing_right_is_told(self, tmp_path):
        (tmp_path / 'oie.conf').touch()
        refused = PermissionError(13, 'Permission denied')
        with mock.patch('builtins.open', autospec=True, side_effect=refused):
            message = message_of(files.read, [f'{tmp_path}/oie.conf'])
        assert message == f'{tmp_path}/oie.conf: cannot be read: Permission denied'

    def test_pipe_is_refused_because_oslo_config_reads_once_more(self, tmp_path):
        os.mkfifo(tmp_path / 'pipe')
        assert message_of(files.read, [f'{tmp_path}/pipe']) == (
            f'{tmp_path}/pipe: a pipe can be read only once; name a file'
        )

    def test_dev_null_is_an_empty_file(self):
        assert files.read(['/dev/null']) == []
