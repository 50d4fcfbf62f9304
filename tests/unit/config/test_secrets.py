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

"""Files with secrets that everybody may read are refused with one line."""

from oslo_config import cfg
import pytest

from oie import config
from oie import exceptions
from oie.config import secrets

GROUP = cfg.OptGroup('feed_x')
OPTS = (
    cfg.StrOpt('password', default='', secret=True),
    cfg.StrOpt('proxy', default=''),
    cfg.StrOpt('secret_file', default=''),
)


@pytest.fixture
def load(tmp_path):
    """Load one line of [feed_x], in a file of this mode."""

    def load(line, mode):
        path = tmp_path / 'oie.conf'
        path.write_text(f'[feed_x]\n{line}\n')
        path.chmod(mode)
        return config.load(
            ['--config-file', str(path)], prog='p', groups=lambda _settings: [(GROUP, OPTS)]
        )

    return load


SECRET = ['password = hunter2', 'proxy = http://me:hunter2@proxy.example.org:3128']


@pytest.mark.parametrize('line', SECRET)
def test_open_file_with_a_secret_is_refused(load, line, tmp_path):
    with pytest.raises(exceptions.ConfigError) as caught:
        load(line, 0o644)
    name = line.partition(' ')[0]
    assert str(caught.value) == (
        f'{tmp_path}/oie.conf:2: [feed_x] {name} holds a secret, but everybody may read '
        f'{tmp_path}/oie.conf (mode 0644): chmod o= it'
    )


@pytest.mark.parametrize('line', SECRET)
def test_closed_file_with_a_secret_is_taken(load, line):
    assert load(line, 0o640)


@pytest.mark.parametrize(
    'line', ['password =', 'proxy = http://proxy.example.org:3128', 'proxy = http://a/b@c:d']
)
def test_open_file_without_a_secret_is_taken(load, line):
    assert load(line, 0o644)


@pytest.mark.parametrize(('mode', 'is_refused'), [(0o604, True), (0o600, False), (0o640, False)])
def test_file_that_is_named_as_a_secret_must_be_closed(load, tmp_path, mode, is_refused):
    path = tmp_path / 'key'
    path.write_text('hunter2')
    path.chmod(mode)
    line = f'secret_file = {path}'
    if not is_refused:
        assert load(line, 0o644)
        return
    with pytest.raises(exceptions.ConfigError, match=r'names a file with a secret.*mode 0604'):
        load(line, 0o644)


def test_missing_file_is_for_others_to_tell(load):
    assert load('secret_file = /nowhere/key', 0o644)


def test_masked_text_shows_hosts_and_no_passwords():
    text = 'proxy = http://me:hunter2@proxy:1, unix:/run/x, https://host/path?key=1'
    expected = 'proxy = http://***@proxy:1, unix:/run/x, https://host/path?***'
    assert secrets.masked(text) == expected
