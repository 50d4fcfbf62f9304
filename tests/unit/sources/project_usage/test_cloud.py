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

"""What a cloud answers, over openstacksdk and real HTTP: all pages or nothing."""

import openstack
import pytest

from oie import exceptions
from oie import model
from oie.config import moments
from oie.sources.project_usage import cloud
from tests import nova_cloud

NOW = 1_795_000_000.0
HOUR = 3600.0
SINCE = int((NOW - 24 * HOUR) * moments.SECOND)
ONE, TWO, LAB = 'p-one', 'p-two', 'p-lab'


@pytest.fixture
def nova():
    with nova_cloud.running(NOW) as made:
        made.projects = {
            ONE: ('one', 'default'),
            TWO: ('two', 'default'),
            LAB: ('one', 'd-lab'),
        }
        yield made


@pytest.fixture
def source(nova):
    """Return a function that makes a source; what it made is closed after the test."""
    made = []

    def source(clock=lambda: NOW, **settings):
        def connect(asked):
            return openstack.connect(
                load_envvars=False,
                load_yaml_config=False,
                api_timeout=asked.timeout,
                **nova.settings,
            )

        wanted = cloud.Settings(**{'timeout': 5.0, **settings})
        made.append(cloud.Cloud(wanted, connect=connect, clock=clock))
        return made[-1]

    yield source
    for each in made:
        each.close()


def servers(nova, number, project=ONE, **more):
    found = [
        nova_cloud.Server(f'{project}-{index:04d}', project, NOW - 2 * HOUR, **more)
        for index in range(number)
    ]
    nova.servers += found
    return found


def uuids(answer):
    return sorted(server.uuid for server in answer.servers)


def fault_at(path, answer, times=1, marker=None):
    """Return a fault that strikes so many requests for a path, and how often it did."""
    struck = []

    def fault(request):
        is_meant = path in request.path and marker in (None, request.query.get('marker'))
        if not is_meant or len(struck) >= times:
            return None
        struck.append(request)
        return answer

    return fault, struck


def reason_of(source, *arguments):
    with pytest.raises(exceptions.UsageError) as caught:
        source.read(*(arguments or (SINCE, None)))
    assert caught.value.reason in model.USAGE_FAILURES
    return caught.value.reason


# --- whole answers ----------------------------------------------------------


def test_an_instance_comes_as_nova_tells_it(nova, source):
    ended = nova_cloud.Server('b', TWO, NOW - 5 * HOUR, NOW - HOUR, vcpus=4, memory_mb=512)
    nova.servers = [nova_cloud.Server('a', ONE, NOW - HOUR - 0.25), ended]
    answer = source().read(SINCE, None)
    at = int(NOW * moments.SECOND)
    hour = moments.HOUR
    assert answer.servers == (
        model.ServerUsage('a', ONE, 2, 4096, at - hour - 250_000, None),
        model.ServerUsage('b', TWO, 4, 512, at - 5 * hour, at - hour),
    )
    assert answer.taken_us == at
    assert answer.rejected == 0


def test_projects_come_with_the_names_of_their_domains_those_without_usage_too(source):
    assert source().read(SINCE, None).projects == (
        model.Project(id=ONE, name='one', domain_id='default', domain_name='Default'),
        model.Project(id=TWO, name='two', domain_id='default', domain_name='Default'),
        model.Project(id=LAB, name='one', domain_id='d-lab', domain_name='lab'),
    )


@pytest.mark.parametrize('page_size', [1, 3, 10, 11, 12, 1000])
def test_all_pages_make_one_answer_whatever_their_size(nova, source, page_size):
    servers(nova, 7)
    servers(nova, 4, TWO)
    answer = source(page_size=page_size).read(SINCE, None)
    assert uuids(answer) == sorted(each.uuid for each in nova.servers)


def test_a_cloud_that_gives_smaller_pages_than_asked_for_is_followed(nova, source):
    nova.max_limit = 2
    servers(nova, 7)
    assert len(source(page_size=1000).read(SINCE, None).servers) == 7
    # Pages of 2, 2, 2 and 1.
    assert sum(path.endswith('os-simple-tenant-usage') for path in nova.paths()) == 4


def test_nova_is_asked_in_the_first_version_with_pages(nova, source):
    source().read(SINCE, None)
    asked = [each for each in nova.asked if 'tenant-usage' in each.path]
    assert asked[0].headers['OpenStack-API-Version'] == 'compute 2.40'


def test_the_first_question_reaches_back_to_the_start_and_later_ones_an_hour(nova, source):
    made = source()
    made.read(SINCE, None)
    made.read(SINCE, int(NOW * moments.SECOND))
    starts = [each.query['start'] for each in nova.asked if 'tenant-usage' in each.path]
    assert [moments.parse(start) for start in starts] == [
        SINCE,
        int((NOW - HOUR) * moments.SECOND),
    ]


def test_a_window_is_asked_for_alone_and_is_not_the_last_one(nova, source):
    day = 24 * moments.HOUR
    nova.servers = [
        nova_cloud.Server('a', ONE, NOW - 90 * 24 * HOUR, NOW - 80 * 24 * HOUR),
        nova_cloud.Server('b', ONE, NOW - 10 * 24 * HOUR),
        nova_cloud.Server('c', ONE, NOW - 90 * 24 * HOUR, NOW - 10 * 24 * HOUR),
    ]
    since = int(NOW * moments.SECOND) - 100 * day
    made = source()
    first = made.read(since, None, window_us=30 * day)
    assert (first.taken_us, first.is_last) == (since + 30 * day, False)
    # As it is: the end may be later than the window.
    assert [(each.uuid, each.ended_us) for each in first.servers] == [
        ('a', since + 20 * day),
        ('c', since + 90 * day),
    ]
    second = made.read(since, first.taken_us, window_us=365 * day)
    assert (second.taken_us, second.is_last) == (since + 100 * day, True)
    assert uuids(second) == ['b', 'c']
    starts = [each.query['start'] for each in nova.asked if 'tenant-usage' in each.path]
    assert moments.parse(starts[-1]) == first.taken_us - moments.HOUR


def test_a_cloud_whose_clock_is_behind_the_window_has_no_later_one(nova, source):
    nova.servers = [nova_cloud.Server('a', ONE, NOW - 9 * HOUR)]
    nova.now = NOW - 5 * HOUR
    answer = source().read(SINCE, None, window_us=int(20 * moments.HOUR))
    assert (answer.taken_us, answer.is_last) == (int((NOW - 5 * HOUR) * moments.SECOND), True)


def test_a_clock_ahead_of_the_cloud_counts_no_time_to_come(nova, source):
    servers(nova, 1)
    answer = source(clock=lambda: NOW + HOUR).read(SINCE, None)
    assert answer.taken_us == int(NOW * moments.SECOND)
    assert answer.clock_skew_seconds == pytest.approx(HOUR)


def test_a_clock_behind_the_start_date_still_asks_for_a_period(nova, source):
    made = source(clock=lambda: NOW - 48 * HOUR)
    assert made.read(SINCE, None).servers == ()


def test_a_token_that_ends_midway_is_replaced(nova, source):
    servers(nova, 5)
    gone = (401, {'error': {'code': 401, 'message': 'The token has expired.'}})
    fault, struck = fault_at('tenant-usage', gone, marker=f'{ONE}-0001')
    nova.faults = [fault]
    assert len(source(page_size=2).read(SINCE, None).servers) == 5
    assert struck
    assert len(nova.tokens) == 2


# --- which projects ---------------------------------------------------------


def test_the_domain_by_name(nova, source):
    servers(nova, 1)
    servers(nova, 2, LAB)
    answer = source(domains=('lab',)).read(SINCE, None)
    assert [project.id for project in answer.projects] == [LAB]
    assert {server.project_id for server in answer.servers} == {LAB}


def test_the_domain_by_id_stands_above_names(source):
    answer = source(domains=('lab',), domain_id='default').read(SINCE, None)
    assert [project.id for project in answer.projects] == [ONE, TWO]
    assert answer.projects[0].domain_name == 'Default'


def test_a_domain_that_is_not_there_is_told(source):
    assert reason_of(source(domains=('elixir',))) == 'setup'


@pytest.mark.parametrize('more', [{}, {'domains': ('Default',)}, {'domain_id': 'default'}])
def test_a_list_that_keystone_cuts_off_is_no_answer(nova, source, more):
    servers(nova, 1)
    servers(nova, 1, TWO)
    # Two domains, and two projects in the first of them.
    nova.list_limit = 1
    made = source(**more)
    with pytest.raises(exceptions.UsageError, match='list_limit') as caught:
        made.read(SINCE, None)
    assert caught.value.reason == 'truncated'
    nova.list_limit = 3
    assert len(made.read(SINCE, None).servers) == 2


def test_a_list_of_projects_in_pages_is_followed_although_it_calls_itself_cut_off(nova, source):
    def paged(request):
        if not request.path.endswith('/projects'):
            return None
        found = nova.identity(request)[1]['projects']
        is_first = 'marker' not in request.query
        following = f'{nova.url}/identity/v3/projects?limit=1&marker={ONE}' if is_first else None
        shown = found[:1] if is_first else found[1:]
        return document(projects=shown, links={'next': following}, truncated=is_first)

    nova.faults = [paged]
    assert len(source().read(SINCE, None).projects) == 3


def test_instances_of_a_project_that_keystone_does_not_name_come_apart(nova, source):
    servers(nova, 1)
    servers(nova, 2, 'p-gone')
    answer = source().read(SINCE, None)
    assert [each.uuid for each in answer.servers] == [f'{ONE}-0000']
    assert [each.uuid for each in answer.strangers] == ['p-gone-0000', 'p-gone-0001']
    assert answer.domain_ids == frozenset()


def test_who_asks_for_domains_tells_which(nova, source):
    servers(nova, 1)
    assert source(domains=('lab',)).read(SINCE, None).domain_ids == {'d-lab'}
    assert source(domain_id='d-lab').read(SINCE, None).domain_ids == {'d-lab'}


def test_who_may_not_list_domains_gets_projects_without_their_names(nova, source):
    nova.faults = [fault_at('/domains', (403, {}), times=9)[0]]
    names = {project.domain_name for project in source().read(SINCE, None).projects}
    assert names == {''}


def test_who_may_not_ask_for_all_is_asked_project_by_project(nova, source):
    nova.may_list_all = False
    servers(nova, 5)
    servers(nova, 2, TWO)
    answer = source(page_size=2).read(SINCE, None)
    assert len(answer.servers) == 7
    # Pages of 2, 2, 1; 2 and an empty one; an empty one.
    assert [path.rpartition('/')[2] for path in nova.paths() if f'usage/{"p-"}' in path] == [
        *(ONE, ONE, ONE),
        *(TWO, TWO),
        LAB,
    ]


# --- tags -------------------------------------------------------------------


@pytest.mark.parametrize('limit', [1000, 1])
def test_instances_of_the_tagged_project_name_to_whom_they_count(nova, source, limit):
    nova.max_limit = limit
    nova.servers = [
        nova_cloud.Server('a', ONE, NOW - HOUR, metadata={'project_name': 'alpha'}),
        nova_cloud.Server('b', ONE, NOW - HOUR, metadata={'project_name': 'beta'}),
        nova_cloud.Server('c', ONE, NOW - HOUR),
        nova_cloud.Server('d', TWO, NOW - HOUR, metadata={'project_name': 'nobody'}),
        nova_cloud.Server('e', ONE, NOW - HOUR, NOW - 60, metadata={'project_name': 'alpha'}),
    ]
    answer = source(tagged_project_id=ONE, tag='project_name').read(SINCE, None)
    assert {server.uuid: server.tag for server in answer.servers} == {
        **{'a': 'alpha', 'b': 'beta', 'c': '', 'd': ''},
        # Administrators are told of deleted servers.
        'e': 'alpha',
    }


@pytest.mark.parametrize(
    ('tag', 'shown'),
    [
        ('x' * 255, 'x' * 200),
        ('ü' * 255, 'ü' * 100),
        # 1 + 99 x 2 bytes; half of the next one does not fit.
        ('x' + 'ü' * 255, 'x' + 'ü' * 99),
        ('\ud800', '?'),
    ],
)
def test_a_tag_is_cut_to_what_a_portal_takes(nova, source, tag, shown):
    nova.servers = [nova_cloud.Server('a', ONE, NOW - HOUR, metadata={'k': tag})]
    [server] = source(tagged_project_id=ONE, tag='k').read(SINCE, None).servers
    assert server.tag == shown


def test_who_may_not_see_deleted_servers_gets_the_others(nova, source):
    nova.servers = [
        nova_cloud.Server('a', ONE, NOW - HOUR, metadata={'k': 'alpha'}),
        nova_cloud.Server('e', ONE, NOW - HOUR, NOW - 60, metadata={'k': 'alpha'}),
    ]
    nova.faults = [lambda request: (403, {}) if 'deleted' in request.query else None]
    answer = source(tagged_project_id=ONE, tag='k').read(SINCE, None)
    assert [server.tag for server in answer.servers] == ['alpha', '']


@pytest.mark.parametrize('status', [400, 401, 404, 429, 500, 502, 503, 504])
def test_any_other_failure_about_deleted_servers_fails_the_answer(nova, source, status):
    # What was booked without its tag would stay with the wrong party.
    nova.servers = [
        nova_cloud.Server('a', ONE, NOW - HOUR, metadata={'k': 'alpha'}),
        nova_cloud.Server('e', ONE, NOW - 20 * HOUR, NOW - 60, metadata={'k': 'alpha'}),
    ]
    nova.faults = [lambda request: (status, {}) if 'deleted' in request.query else None]
    made = source(tagged_project_id=ONE, tag='k')
    assert reason_of(made) == ('auth' if status == 401 else 'http')
    nova.faults = []
    assert [each.tag for each in made.read(SINCE, None).servers] == ['alpha', 'alpha']


def test_who_is_no_administrator_gets_tags_of_its_project_only(nova, source):
    nova.is_admin = False
    nova.servers = [
        nova_cloud.Server('a', ONE, NOW - HOUR, metadata={'k': 'alpha'}),
        nova_cloud.Server('b', TWO, NOW - HOUR, metadata={'k': 'beta'}),
        nova_cloud.Server('e', ONE, NOW - HOUR, NOW - 60, metadata={'k': 'alpha'}),
    ]
    answer = source(tagged_project_id=ONE, tag='k').read(SINCE, None)
    assert {each.uuid: each.tag for each in answer.servers} == {
        'a': 'alpha',
        'b': '',
        'e': 'alpha',
    }


def test_a_list_of_servers_that_fails_fails_the_answer(nova, source):
    servers(nova, 1)
    nova.faults = [fault_at('servers/detail', (500, {}))[0]]
    assert reason_of(source(tagged_project_id=ONE, tag='k')) == 'http'


# --- faults -----------------------------------------------------------------

CUT = (
    b'HTTP/1.1 200 OK\r\nContent-Length: 400\r\nContent-Type: application/json\r\n'
    b'OpenStack-API-Version: compute 2.40\r\n\r\n{"tenant_usages": [{"tenant_id": "p-'
)
NO_JSON = (
    b'HTTP/1.1 200 OK\r\nContent-Length: 6\r\nOpenStack-API-Version: compute 2.40\r\n\r\n<html>'
)


def document(**found):
    return 200, found


@pytest.mark.parametrize(
    ('answer', 'reason'),
    [
        ((503, {'error': {'code': 503}}), 'http'),
        ((404, {}), 'http'),
        ((401, {}), 'auth'),
        (CUT, 'truncated'),
        (NO_JSON, 'malformed'),
        (b'', 'connect'),
        (document(), 'malformed'),
        (document(tenant_usages={}), 'malformed'),
        (document(tenant_usages=[{'tenant_id': ONE}]), 'malformed'),
        (document(tenant_usages=[{'tenant_id': 7, 'server_usages': []}]), 'malformed'),
        (document(tenant_usages=[], tenant_usages_links='next'), 'malformed'),
        (
            document(tenant_usages=[], tenant_usages_links=[{'rel': 'next', 'href': 'x'}]),
            'malformed',
        ),
        ((200, [1, 2]), 'malformed'),
    ],
)
def test_a_page_that_fails_fails_the_answer_by_its_reason(nova, source, answer, reason):
    servers(nova, 3)
    # The second page: what came before it must not count.
    nova.faults = [fault_at('tenant-usage', answer, times=9, marker=f'{ONE}-0000')[0]]
    made = source(page_size=1)
    assert reason_of(made) == reason
    nova.faults = []
    assert len(made.read(SINCE, None).servers) == 3


def test_a_full_page_without_a_way_on_is_no_answer(nova, source):
    servers(nova, 3)
    page = nova._usage(
        nova_cloud.Request(
            '/x',
            {'start': nova_cloud.text_of(NOW - HOUR), 'end': nova_cloud.text_of(NOW)},
            {},
        ),
        None,
    )
    nova.faults = [lambda request: (200, page) if 'tenant-usage' in request.path else None]
    assert reason_of(source(page_size=3)) == 'truncated'


def test_pages_that_go_in_a_ring_end(nova, source):
    servers(nova, 3)

    def ring(request):
        if 'tenant-usage' in request.path and 'marker' in request.query:
            # As if the first page was asked for again.
            return nova.compute(
                nova_cloud.Request(request.path, {**request.query, 'marker': ''}, {})
            )
        return None

    nova.faults = [ring]
    assert reason_of(source(page_size=1)) == 'truncated'


def test_a_nova_without_pages_is_refused_because_it_cuts_its_answers_off(nova, source):
    nova.speaks = ''
    assert reason_of(source()) == 'setup'


def test_a_wrong_password_is_told(nova):
    settings = nova.settings
    settings['auth']['password'] = 'another'
    connection = openstack.connect(load_envvars=False, load_yaml_config=False, **settings)
    made = cloud.Cloud(cloud.Settings(), connect=lambda _: connection, clock=lambda: NOW)
    assert reason_of(made) == 'auth'
    made.close()


def test_nobody_there_is_told():
    def connect(settings):
        auth = {'auth_url': 'http://127.0.0.1:1/v3', 'username': 'u', 'password': 'p'}
        more = {'project_name': 'x', 'user_domain_id': 'd', 'project_domain_id': 'd'}
        return openstack.connect(load_envvars=False, load_yaml_config=False, auth={**auth, **more})

    assert reason_of(cloud.Cloud(cloud.Settings(), connect=connect)) == 'connect'


def test_a_cloud_that_clouds_yaml_does_not_name_is_told(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert reason_of(cloud.Cloud(cloud.Settings(cloud='nowhere'))) == 'setup'


def test_a_server_that_is_silent_is_left_after_the_time_out(nova, source):
    nova.delay = 3.0
    assert reason_of(source(timeout=0.2)) in ('timeout', 'connect')


def test_who_does_not_wait_any_more_lets_nobody_be_asked(nova, source):
    with pytest.raises(exceptions.UsageError) as caught:
        source().read(SINCE, None, lambda: False)
    assert caught.value.reason == 'timeout'
    assert nova.asked == []


@pytest.mark.parametrize(
    'wrong',
    [
        {'started_at': '0001-01-01T00:00:00.000000'},
        {'started_at': '9999-12-31T23:59:59.999999'},
        {'started_at': None},
        {'started_at': 1795000000},
        {'ended_at': 'soon'},
        {'vcpus': '2'},
        {'vcpus': -1},
        {'vcpus': True},
        {'memory_mb': 1.5},
        {'memory_mb': 2**60},
        {'instance_id': ''},
    ],
)
def test_a_record_that_nobody_can_read_costs_itself_only(nova, source, wrong):
    servers(nova, 3)
    record = nova._record

    def broken(server, start, end):
        made = record(server, start, end)
        return {**made, **wrong} if server.uuid.endswith('1') else made

    nova._record = broken
    answer = source().read(SINCE, None)
    assert uuids(answer) == [f'{ONE}-0000', f'{ONE}-0002']
    assert answer.rejected == 1
