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

"""Who may see and set the log level while the exporter runs, and for how long."""

import logging
import os
import time

import pytest

from oie import web
from oie.cmd import log_level

LOCAL = web.Peer('127.0.0.1')
OURS = logging.getLogger('oie')


@pytest.fixture(autouse=True)
def _level_as_before():
    before = OURS.level
    yield
    OURS.setLevel(before)


@pytest.fixture
def level():
    made = log_level.LogLevel('error')
    yield made
    made.set('error')  # ends a timer


def ask(level, method='POST', query='', body=b'', peer=LOCAL, headers=(), **more):
    """Return status and line of an answer."""
    request = web.Request(
        method=method,
        path=log_level.PATH,
        query=query,
        body=body,
        peer=peer,
        headers=dict(headers),
    )
    route = log_level.LogLevelRoutes(level, **more).routes()[log_level.PATH][method]
    answer = route.handler(request)
    return answer.status, answer.body.decode().rstrip('\n')


def test_get_shows_the_name_and_changes_nothing(level):
    assert ask(level, 'GET', 'level=debug') == (200, 'error')
    assert level.name == 'error'


@pytest.mark.parametrize('name', ['error', 'notice', 'info', 'debug'])
@pytest.mark.parametrize('place', ['query', 'body'])
def test_post_sets_ours_alone(level, name, place):
    libraries = logging.getLogger().level, logging.getLogger('urllib3').level
    field = f'level={name}'
    asked = {'query': field} if place == 'query' else {'body': field.encode()}
    assert ask(level, **asked) == (200, name)
    assert ask(level, 'GET') == (200, name)
    expected = {'error': 40, 'notice': 30, 'info': 20, 'debug': 10}
    assert OURS.level == expected[name]
    assert (logging.getLogger().level, logging.getLogger('urllib3').level) == libraries


@pytest.mark.parametrize(
    ('query', 'reason'),
    [
        ('', 'level must be one of error, notice, info, debug'),
        ('level=', 'level must be one of error, notice, info, debug'),
        ('level=DEBUG', 'level must be one of error, notice, info, debug'),
        ('level=10', 'level must be one of error, notice, info, debug'),
        ('level=debug&level=info', 'a field comes twice'),
        ('level=debug&logger=', "unknown field 'logger'; there are level and ttl"),
        ('level=debug&ttl=soon', "'soon' is not a duration"),
        ('level=debug&ttl=', "'' is not a duration"),
        ('level=debug&ttl=0', '0s is below the minimum 1s'),
        ('level=debug&ttl=2d', '2d is above the maximum 1d'),
        ('nothing', 'bad query field'),
        ('&'.join(f'a{number}=1' for number in range(20)), 'Max number of fields exceeded'),
    ],
)
def test_what_is_wrong_is_refused_and_changes_nothing(level, query, reason):
    status, text = ask(level, query=query)
    assert status == 400
    assert text.startswith(reason)
    assert level.name == 'error'


@pytest.mark.parametrize(
    'header', ['origin', 'sec-fetch-site', 'sec-fetch-mode', 'sec-fetch-something-new']
)
@pytest.mark.parametrize('method', ['GET', 'POST'])
def test_browsers_are_refused(level, header, method):
    asked = {'query': 'level=debug', 'headers': {header: 'none'}}
    assert ask(level, method, **asked, is_authenticated=lambda: True)[0] == 403
    assert level.name == 'error'


@pytest.mark.parametrize(
    ('peer', 'headers', 'status'),
    [
        (web.Peer('127.0.0.1'), {}, 200),
        (web.Peer('127.1.2.3'), {}, 200),
        (web.Peer('::1'), {}, 200),
        (web.Peer('::ffff:127.0.0.1'), {}, 200),
        (web.Peer('192.0.2.1'), {}, 403),
        (web.Peer('fe80::1%eth0'), {}, 403),
        (web.Peer('::ffff:192.0.2.1'), {}, 403),
        (web.Peer('unknown'), {}, 403),
        (web.Peer('127.0.0.1'), {'x-forwarded-for': '192.0.2.1'}, 403),
        (web.Peer('127.0.0.1'), {'forwarded': 'for=192.0.2.1'}, 403),
        (web.Peer('unix', 1, 0, 0), {}, 200),
        (web.Peer('unix', 1, os.geteuid(), 5), {}, 200),
        (web.Peer('unix', 1, 4242, 5), {}, 403),
    ],
)
def test_only_local_peers_may_set_without_authentication(level, peer, headers, status):
    assert ask(level, query='level=info', peer=peer, headers=headers)[0] == status
    assert level.name == ('info' if status == 200 else 'error')


def test_with_authentication_others_may_set_too(level):
    peer = web.Peer('192.0.2.1')
    assert ask(level, query='level=info', peer=peer, is_authenticated=lambda: True) == (
        200,
        'info',
    )


@pytest.mark.parametrize('name', ['error', 'debug'])
def test_every_change_is_logged_with_the_peer_whatever_the_level(level, name, caplog):
    ask(level, query=f'level={name}&ttl=1m', peer=web.Peer('::1'))
    assert caplog.messages == [f'the log level was set from error to {name} for 60 s by ::1']


def test_level_goes_back_after_its_time(level, caplog):
    level.set('notice')
    level.set('debug', 0.01)
    level.set('info', 0.02)
    deadline = time.monotonic() + 10
    while level.name != 'notice' and time.monotonic() < deadline:
        time.sleep(0.005)
    assert level.name == 'notice'
    assert OURS.level == logging.WARNING
    assert caplog.messages == ['the log level goes back from info to notice']


def test_level_set_for_good_ends_the_time_of_another(level):
    level.set('debug', 0.01)
    level.set('info')
    time.sleep(0.05)
    assert level.name == 'info'
