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


"""What scrapes, probes and pollsters are answered, and when they are refused."""

import gzip
import html.parser
import json
import os

import pytest

from oie import endpoint
from oie import model
from oie import service
from oie import web
from oie.cmd import exporter
from oie.cmd import wiring
from oie.outputs import prometheus
from tests import builders

FIRST = prometheus.Exposition(b'first 1\n', gzip.compress(b'first 1\n'))
LATEST = prometheus.Exposition(b'latest 1\n', gzip.compress(b'latest 1\n'))
MAX_AGE = 30.0


class Answers:
    """An endpoint over one publication, at a time that the test sets."""

    def __init__(self, snapshot=None, *, age=0.0, path='/metrics', has_instances=True):
        published = None if snapshot is None else service.Publication(snapshot, LATEST)
        self.endpoint = endpoint.Endpoint(
            lambda: published,
            first=lambda: FIRST,
            content_type=prometheus.CONTENT_TYPE,
            telemetry_path=path,
            pollsters=wiring.pollsters(),
            max_age=lambda: MAX_AGE,
            has_instances=has_instances,
            clock=lambda: builders.NOW + age,
        )

    def get(self, path, **headers):
        request = web.Request(method='GET', path=path, headers=headers)
        return self.endpoint.tcp_routes()[path]['GET'].handler(request)

    def poll(self, name):
        path = f'/pollsters/{name}'
        request = web.Request(method='GET', path=path)
        return self.endpoint.socket_routes()[path]['GET'].handler(request)


def text(answer):
    return answer.body.decode()


# --- metrics ----------------------------------------------------------------


def test_a_scrape_gets_the_ready_bytes_of_the_latest_cycle():
    answer = Answers(builders.snapshot()).get('/metrics')
    assert (answer.status, answer.body) == (200, LATEST.text)
    assert answer.content_type == 'text/plain; version=0.0.4; charset=utf-8'
    assert answer.body is LATEST.text


def test_before_the_first_cycle_a_scrape_gets_what_is_known_of_the_process():
    assert Answers().get('/metrics').body == FIRST.text


@pytest.mark.parametrize(
    ('accepted', 'is_gzipped'),
    [
        ({}, False),
        ({'accept-encoding': 'gzip'}, True),
        ({'accept-encoding': 'deflate, GZIP;q=0.5'}, True),
        ({'accept-encoding': 'gzip;q=0'}, False),
        ({'accept-encoding': 'identity'}, False),
    ],
)
def test_gzip_is_sent_to_those_that_ask_for_it(accepted, is_gzipped):
    answer = Answers(builders.snapshot()).get('/metrics', **accepted)
    headers = dict(answer.headers)
    assert headers.pop('Vary') == 'Accept-Encoding'
    if is_gzipped:
        assert headers == {'Content-Encoding': 'gzip'}
        assert gzip.decompress(answer.body) == LATEST.text
    else:
        assert headers == {}
        assert answer.body == LATEST.text


def test_figures_that_no_cycle_refreshed_in_time_are_served_no_more():
    fine, late = (
        Answers(builders.snapshot(), age=MAX_AGE),
        Answers(builders.snapshot(), age=MAX_AGE + 1),
    )
    assert fine.get('/metrics').body == LATEST.text
    assert late.get('/metrics').body == FIRST.text
    assert gzip.decompress(late.get('/metrics', **{'accept-encoding': 'gzip'}).body) == FIRST.text


def test_while_libvirt_is_down_the_health_goes_on_being_served():
    """Cycles go on then; the service itself drops the instances that have expired."""
    down = builders.snapshot(
        error='libvirt is down', read_at=builders.NOW - 3600, taken_at=builders.NOW
    )
    assert Answers(down).get('/metrics').body == LATEST.text


def test_the_path_of_the_metrics_is_an_option():
    answers = Answers(builders.snapshot(), path='/oie')
    assert answers.get('/oie').body == LATEST.text
    assert '/metrics' not in answers.endpoint.tcp_routes()


# --- a part of the metrics ----------------------------------------------------


def family(name, value):
    meter = model.Meter(
        prometheus=name, unit='1', kind=model.Kind.GAUGE, help='A figure.', source='test'
    )
    return model.Family.of(meter, [(model.Labels.of(), value)])


class Selecting(Answers):
    """An endpoint over what three collectors gave; counts what it writes down."""

    def __init__(self, **more):
        super().__init__(builders.snapshot(), **more)
        families = {
            'cpu': [family('oie_a', 1)],
            'disk': [family('oie_b', 2)],
            'exporter': [family('oie_c', 3)],
        }
        self.published = service.Publication(builders.snapshot(), LATEST, families)
        self.rendered = 0
        age = more.get('age', 0.0)
        self.endpoint = endpoint.Endpoint(
            lambda: self.published,
            first=lambda: FIRST,
            content_type=prometheus.CONTENT_TYPE,
            telemetry_path='/metrics',
            pollsters={},
            max_age=lambda: MAX_AGE,
            collectors=families,
            render=self.render,
            clock=lambda: builders.NOW + age,
        )

    def render(self, families):
        self.rendered += 1
        return prometheus.Renderer().render(families)

    def scrape(self, query, **headers):
        request = web.Request(method='GET', path='/metrics', query=query, headers=headers)
        route = self.endpoint.tcp_routes()['/metrics']['GET']
        assert route.is_slow_for(request) == bool(query)
        return route.handler(request)

    def names(self, query):
        lines = text(self.scrape(query)).splitlines()
        return [line.split()[0] for line in lines if not line.startswith('#')]


@pytest.mark.parametrize(
    ('query', 'names'),
    [
        ('collect[]=cpu', ['oie_a']),
        ('collect[]=disk&collect[]=cpu', ['oie_a', 'oie_b']),
        ('collect%5B%5D=exporter', ['oie_c']),
        ('exclude[]=cpu', ['oie_b', 'oie_c']),
        ('exclude[]=cpu&exclude[]=disk&exclude[]=exporter', []),
    ],
)
def test_a_scrape_may_ask_for_some_collectors_or_all_but_some(query, names):
    assert Selecting().names(query) == names


@pytest.mark.parametrize(
    ('query', 'reason'),
    [
        ('collect[]=gpu', "there is no collector 'gpu' here"),
        ('exclude[]=', "there is no collector '' here"),
        ('collect[]=cpu&exclude[]=disk', 'collect[] and exclude[] exclude each other'),
        ('&'.join('collect[]=cpu' for _ in range(101)), 'more than 100 fields in the query'),
    ],
)
def test_a_selection_that_cannot_be_is_a_bad_request(query, reason):
    with pytest.raises(web.RequestError) as raised:
        Selecting().scrape(query)
    assert (raised.value.status, str(raised.value)) == (400, reason)


def test_a_query_that_selects_nothing_gets_the_ready_bytes():
    answers = Selecting()
    assert answers.scrape('debug=1').body is LATEST.text
    assert answers.rendered == 0


def test_a_selection_is_written_down_once_in_a_cycle_also_with_gzip():
    answers = Selecting()
    plain = answers.scrape('collect[]=cpu')
    zipped = answers.scrape('collect[]=cpu', **{'accept-encoding': 'gzip'})
    assert gzip.decompress(zipped.body) == plain.body
    assert answers.rendered == 1
    answers.published = service.Publication(builders.snapshot(), LATEST, {})
    assert answers.scrape('collect[]=cpu').body == b''
    assert answers.rendered == 2


def test_selections_of_figures_that_are_too_old_are_served_no_more():
    assert Selecting(age=MAX_AGE + 1).scrape('collect[]=cpu').body == FIRST.text


def test_the_first_exposition_tells_of_the_process_and_the_version():
    shown = exporter.first_exposition()
    assert b'oie_build_info{' in shown.text
    assert b'process_resident_memory_bytes ' in shown.text
    assert b'oie_host' not in shown.text
    assert gzip.decompress(shown.gzipped) == shown.text


# --- probes -----------------------------------------------------------------


def test_the_process_is_alive_whatever_libvirt_does():
    assert Answers().get('/healthz').status == 200


UNFINISHED = 'no cycle has ended since; of the last one conntrack took 19.0 s'
READY = builders.snapshot(
    builders.instance(),
    flows=builders.flows_of(builders.instance()),
    cycle=model.CycleStatistics(
        groups={
            'libvirt': model.GroupHealth(is_success=True, seconds=0.3),
            'conntrack': model.GroupHealth(is_success=True, seconds=19.0),
            'netns': model.GroupHealth(is_success=False, seconds=2.0),
        }
    ),
)
NOT_READY = {
    'no collection is complete yet': Answers(),
    'libvirt could not be read yet: no such socket': Answers(
        builders.snapshot(read_at=None, error='no such socket')
    ),
    'libvirt was last read 31 s ago: no such socket': Answers(
        builders.snapshot(error='no such socket'), age=31
    ),
    f'libvirt was last read 31 s ago: {UNFINISHED}': Answers(READY, age=31),
}


def test_it_is_ready_while_the_latest_complete_cycle_is_young():
    assert Answers(READY, age=MAX_AGE).get('/readyz').status == 200


def test_a_failed_cycle_after_a_good_one_is_still_ready_until_the_limit():
    assert Answers(builders.snapshot(error='down'), age=MAX_AGE).get('/readyz').status == 200


@pytest.mark.parametrize('reason', NOT_READY)
def test_it_is_not_ready_and_says_why(reason):
    answer = NOT_READY[reason].get('/readyz')
    assert (answer.status, text(answer)) == (503, f'{reason}\n')


# --- pollsters --------------------------------------------------------------


@pytest.mark.parametrize('name', ['instances', 'disks', 'vnics', 'flows'])
def test_a_pollster_gets_the_list_of_the_latest_snapshot(name):
    answer = Answers(READY).poll(name)
    assert (answer.status, answer.content_type) == (200, 'application/json')
    [entry] = json.loads(answer.body)
    assert entry['instance_id'] == builders.UUID


def test_an_empty_host_is_an_empty_list():
    assert json.loads(Answers(builders.snapshot()).poll('instances').body) == []


@pytest.mark.parametrize('reason', NOT_READY)
@pytest.mark.parametrize('name', ['instances', 'disks', 'vnics', 'flows'])
def test_a_pollster_is_refused_rather_than_given_an_empty_or_old_list(name, reason):
    answer = NOT_READY[reason].poll(name)
    assert (answer.status, text(answer)) == (503, f'{reason}\n')


def test_a_table_that_is_not_known_costs_the_list_of_flows_alone():
    unread = builders.flows(value=None, read_at=None, error='it needs CAP_NET_ADMIN')
    answers = Answers(builders.snapshot(builders.instance(), flows=unread))
    answer = answers.poll('flows')
    assert answer.status == 503
    assert text(answer).endswith('is not known: it needs CAP_NET_ADMIN\n')
    assert answers.poll('instances').status == answers.get('/readyz').status == 200


ROUTERS_ALONE = builders.snapshot(
    read_at=None,
    error='libvirt is down',
    namespaces=builders.namespaces(builders.netns()),
)


def test_a_network_node_without_libvirt_tells_its_routers():
    answers = Answers(ROUTERS_ALONE, age=MAX_AGE)
    assert answers.poll('instances').status == answers.get('/readyz').status == 503
    answer = answers.poll('routers')
    [entry] = json.loads(answer.body)
    assert (answer.status, entry['resource_id']) == (200, builders.ROUTER)


@pytest.mark.parametrize(
    ('answers', 'reason'),
    [
        (Answers(), 'no collection is complete yet'),
        (Answers(ROUTERS_ALONE, age=MAX_AGE + 1), 'the last collection ended 31 s ago'),
    ],
)
def test_routers_too_are_not_told_when_nothing_is_collected(answers, reason):
    answer = answers.poll('routers')
    assert (answer.status, text(answer)) == (503, f'{reason}\n')


def test_rendering_a_list_never_holds_up_a_scrape():
    routes = Answers(READY).endpoint.socket_routes()
    assert all(route['GET'].is_slow for route in routes.values())


def test_the_socket_answers_only_pollsters_and_tcp_none():
    answers = Answers(READY)
    assert set(answers.endpoint.tcp_routes()) == {'/', '/metrics', '/healthz', '/readyz'}
    assert set(answers.endpoint.socket_routes()) == {
        '/pollsters/instances',
        '/pollsters/disks',
        '/pollsters/vnics',
        '/pollsters/flows',
        '/pollsters/contacts',
        '/pollsters/os',
        '/pollsters/usage',
        '/pollsters/routers',
    }


# --- the page for people ----------------------------------------------------


class Links(html.parser.HTMLParser):
    """Collects the links and all text of a page."""

    def __init__(self, page):
        super().__init__()
        self.found, self.text = [], ''
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        links = [value for name, value in attributes if name == 'href']
        self.found += links if tag == 'a' else []

    def handle_data(self, data):
        self.text += data


def test_the_page_links_to_everything_and_counts_the_instances():
    answer = Answers(READY).get('/')
    page = Links(text(answer))
    assert answer.content_type == 'text/html; charset=utf-8'
    assert page.found == ['/metrics', '/readyz', '/healthz']
    assert 'Instances1' in page.text


def test_the_page_may_take_its_time_without_holding_up_a_scrape():
    assert Answers(READY).endpoint.tcp_routes()['/']['GET'].is_slow


def test_the_page_says_why_it_is_not_ready():
    assert 'Not ready: no collection is complete yet.' in Links(text(Answers().get('/'))).text


def test_nothing_that_libvirt_says_becomes_markup():
    error = '<script>alert("{path}")</script> & {0} \ud800'
    shown = text(Answers(builders.snapshot(read_at=None, error=error)).get('/'))
    assert '<script>' not in shown
    assert error.replace('\ud800', '\ufffd') in Links(shown).text


def test_a_path_with_quotes_stays_one_link():
    page = Links(text(Answers(READY, path='/a"b<c').get('/')))
    assert page.found[0] == '/a"b<c'


# --- who may poll -----------------------------------------------------------

GID = 4711


@pytest.mark.parametrize(
    ('uid', 'gid', 'groups', 'may'),
    [
        (0, 0, (), True),
        (os.geteuid(), 1, (), True),
        (64055, GID, (), True),
        (64055, 1, (27, GID, 100), True),
        (64055, 1, (27, 47110, 100), False),
        (64055, 1, (), False),
        (None, GID, (GID,), False),
    ],
    ids=['root', 'self', 'group', 'member', 'other', 'groupless', 'unknown'],
)
def test_root_ourselves_and_the_group_may_poll(uid, gid, groups, may):
    asked = web.Peer('unix', pid=20, uid=uid, gid=gid, groups=frozenset(groups))
    assert endpoint.may_poll(GID)(asked) is may


def test_an_instance_with_any_name_is_polled():
    strange = builders.definition(name='\ud800"\n\0', project_name='x' * 2**16)
    answer = Answers(builders.snapshot(builders.instance(strange))).poll('instances')
    assert isinstance(json.loads(answer.body)[0]['display_name'], str)


# --- a host without libvirt -------------------------------------------------


def test_a_host_that_reads_no_instances_is_ready_while_cycles_end():
    unread = builders.snapshot(read_at=None, error='nobody asked')
    for age, status in ((0.0, 200), (MAX_AGE + 1, 503)):
        answers = Answers(unread, age=age, has_instances=False)
        assert answers.get('/readyz').status == status


def test_lists_of_instances_are_refused_where_nobody_reads_them():
    answer = Answers(builders.snapshot(), has_instances=False).poll('instances')
    assert answer.status == 503
    assert '[collector] enabled' in text(answer)
