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

"""From the options of lists to what watches: each mistake is one line at the start."""

import pytest

from oie import exceptions
from oie.cmd import threat_wiring
from oie.cmd import wiring

OWN = """\
[feed_ours]
driver = plain_list
path = /nowhere/ours.txt
"""


@pytest.fixture
def load(tmp_path):
    """Return a function that loads these lines."""

    def load(text):
        path = tmp_path / 'oie.conf'
        path.write_text(f'[threats]\ncache_dir = {tmp_path}/cache\n{text}')
        return wiring.load(['--config-file', str(path)], 'test')

    return load


@pytest.fixture
def watch(load):
    """Return a function that makes the watch of these lines, which has not begun yet."""
    made = []

    def watch(text):
        made.append(threat_wiring.watch(load(text)))
        return made[-1]

    yield watch
    for each in made:
        if each is not None:
            each.close()


@pytest.fixture
def error_of(watch):
    """Return a function that gives the error of these lines."""

    def error_of(text):
        with pytest.raises(exceptions.ConfigError) as caught:
            watch(text)
        return str(caught.value)

    return error_of


def lists(watch):
    """Return name, tag and direction of each list."""
    return [
        (each.name, each.tag, each.direction)
        for each in watch.read((), 0.0, frozenset())['threats'].lists
    ]


def test_where_nobody_wants_it_there_is_no_watch(watch):
    assert watch('') is None


def test_tag_is_that_of_the_list_and_not_of_its_driver(watch):
    found = watch(
        f'enabled_feeds = customlist, ours, other\n{OWN}'
        + (
            '[feed_customlist]\npath = /nowhere\n'
            '[feed_other]\ndriver = customlist\npath = /nowhere\n'
        )
    )
    assert [(name, tag) for name, tag, _ in lists(found)] == [
        ('customlist', 'CUSTOMLIST'),
        ('ours', 'OURS'),
        ('other', 'OTHER'),
    ]


@pytest.mark.parametrize(
    ('common', 'own', 'expected'),
    [
        ('', '', 'out'),
        ('contacts_direction = dst', '', 'in'),
        ('contacts_direction = in', 'direction = Any', 'any'),
        ('', 'direction =', 'out'),
    ],
)
def test_direction_of_a_list_stands_above_the_common_one(watch, common, own, expected):
    found = watch(f'enabled_feeds = ours\n{common}\n{OWN}{own}\n')
    assert lists(found) == [('ours', 'OURS', expected)]


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('contacts_direction = outt', "contacts_direction = outt: 'outt' is not one of out,"),
        (f'enabled_feeds = ours\n{OWN}direction = both', "'both' is not one of out, outbound"),
        ('enabled_feeds = ours', '[threats] enabled_feeds: ours is no installed list'),
        ('[feed_ours]\nurl = https://a.example/', '[feed_ours] is no installed list'),
        ('[feed_ours]\ndriver = plain_lits', "plugin 'plain_lits' of oie.threat_feeds is not"),
        (f'{OWN}colour = red', 'unknown option'),
        ('enabled_feeds = Ours', "'Ours' is no name of a list"),
        ('enabled_feeds = plain_list', '[feed_plain_list] set either url or path; none is set'),
        ('enabled_feeds = a\n[feed_a]\ndriver=plain_list\nurl=http://b.example/', 'plain_http'),
        ('enabled_feeds = a\n[feed_a]\ndriver=plain_list\nurl=HTTP://b.example/', 'plain_http'),
        ('enabled_feeds = a\n[feed_a]\ndriver=plain_list\nurl=file:///b', 'allow_file_urls'),
        ('enabled_feeds = tor_exit\n[feed_tor_exit]\nrefresh = 1m', 'shorter than min_interval'),
        (
            'enabled_feeds = host_conntrack\n[feed_host_conntrack]\ndriver=plain_list\npath=/b',
            'oie_host_conntrack_entries is a series of the collector flows',
        ),
        ('own_networks = 10.0.0.1/8', "'10.0.0.1/8' is no network"),
    ],
)
def test_mistake_is_one_line(error_of, text, expected):
    error = error_of(text)
    assert expected in error
    assert '\n' not in error


def test_file_may_be_read_as_often_as_one_likes(watch):
    assert watch(f'enabled_feeds = ours\n{OWN}refresh = 10s\nmin_interval = 1h\n')


def test_password_in_a_url_is_not_repeated(error_of):
    error = error_of('[feed_a]\ndriver = plain_list\nurl = https://me:hush@b.example/')
    assert 'url = https://***@b.example/: a URL with a password gets logged' in error


def test_more_lists_than_bits_are_refused(error_of):
    names = [f'list_{number}' for number in range(65)]
    groups = ''.join(f'[feed_{name}]\ndriver = plain_list\npath = /nowhere\n' for name in names)
    assert 'names 65 lists; 64 are possible' in error_of(
        f'enabled_feeds = {",".join(names)}\n{groups}'
    )


def test_lists_without_a_table_of_connections_are_told(watch, caplog):
    watch(f'enabled_feeds = ours\n{OWN}[conntrack]\nenabled = false\n')
    assert '[conntrack] enabled is false' in caplog.text


def test_installed_list_may_be_read_by_another_driver(load):
    conf = load('[feed_spamhaus]\ndriver = plain_list\npath = /nowhere\n')
    assert conf.feed_spamhaus.path == '/nowhere'
    assert 'ipv6_url' not in conf.feed_spamhaus
