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


"""The status page tells what is read and how old it is, of any size and any name."""

import base64
import dataclasses
import hashlib
import html
import html.parser
import re

from hypothesis import given
from hypothesis import strategies
import pytest

from oie import model
from oie.outputs import page_markup
from oie.outputs import page_style
from oie.outputs import status_page
from tests import builders

NOW = builders.NOW
GOOD = model.GroupHealth(is_success=True, seconds=0.05, succeeded_at=NOW - 4)
# Elements without an end.
VOID = {'meta', 'link'}


def page(snapshot=None, **more):
    """Return the page of a snapshot, by default in good order."""
    values = {
        'now': NOW,
        'started_at': NOW - 7260,
        'version': '1.2.3',
        'problem': '',
        'max_age': 30.0,
        'telemetry_path': '/metrics',
        'collectors': ('instance', 'namespaces'),
    }
    return status_page.render(snapshot, status_page.About(**{**values, **more})).decode()


class Reader(html.parser.HTMLParser):
    """Reads a page: its sections by heading, its text, and whether every element ends."""

    def __init__(self, text):
        super().__init__()
        self.open, self.sections, self.elements = [], {'': []}, []
        self._title = ''
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag in {'h2', 'summary'}:
            self._title = None
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self._title is None:
            self._title = data
            self.sections[data] = []
        elif 'style' not in self.open and data.strip():
            self.sections[self._title].append(data)

    @property
    def states(self):
        """The words by which states are coloured."""
        classes = [attributes.get('class', '') for _, attributes in self.elements]
        return [each.removeprefix('state ') for each in classes if each.startswith('state ')]

    @property
    def text(self):
        return ' '.join(' '.join((title, *lines)) for title, lines in self.sections.items())


def read(snapshot=None, **more):
    return Reader(page(snapshot, **more))


def after(lines, *words):
    """Return what follows these words in a list of texts."""
    place = next(n for n in range(len(lines)) if lines[n : n + len(words)] == list(words))
    return lines[place + len(words)]


def groups(**more):
    return builders.snapshot(cycle=builders.cycle(groups=more))


# --- what it tells --------------------------------------------------------------


def test_the_head_tells_host_version_and_the_last_cycle():
    node = dataclasses.replace(builders.node(), taken_at=NOW - 4)
    head = read(node).sections['']
    assert head[:3] == [
        'cmp1 - OpenStack Instance Exporter',
        'OpenStack Instance Exporter 1.2.3',
        'cmp1',
    ]
    assert after(head, 'State') == 'ready'
    # 7260 s = 2 h 1 min
    assert after(head, 'Up for') == '2 h 1 min'
    assert after(head, 'Last cycle') == '4 s ago'
    assert after(head, 'It took') == '54.3 ms'
    assert after(head, 'Instances') == '3'
    assert after(head, 'Series') == '40'


def test_before_the_first_cycle_the_page_says_so_and_keeps_its_links():
    found = read(problem='no collection is complete yet')
    assert found.sections['Needs attention'][0] == 'Not ready: no collection is complete yet.'
    assert {'Metrics', 'Ready?', 'Alive?'} <= set(found.sections['Needs attention'])
    assert 'Sources' not in found.sections


@pytest.mark.parametrize(
    ('health', 'word'),
    [
        (GOOD, 'ok'),
        (dataclasses.replace(GOOD, succeeded_at=NOW - 31), 'late'),
        (dataclasses.replace(GOOD, succeeded_at=None), 'waiting'),
        (dataclasses.replace(GOOD, is_success=False), 'failed'),
    ],
)
def test_a_source_is_ok_late_waiting_or_failed(health, word):
    # The first word is that of the page.
    assert read(groups(libvirt=health)).states == ['ok', word]


def test_what_has_a_rhythm_of_its_own_is_not_late_between_two_beats():
    old = dataclasses.replace(GOOD, succeeded_at=NOW - 50)
    lines = read(groups(probes=old)).sections['Sources']
    assert after(lines, 'reachability') == 'ok'
    assert after(lines, 'ok') == '50 s ago'


def test_all_is_late_once_the_cycles_stand_still():
    still = dataclasses.replace(groups(probes=GOOD), taken_at=NOW - 31)
    assert after(read(still).sections['Sources'], 'reachability') == 'late'


def test_a_failed_source_says_why():
    snapshot = dataclasses.replace(
        groups(conntrack=dataclasses.replace(GOOD, is_success=False)),
        flows=builders.flows(error='conntrack dump incomplete: ENOBUFS'),
    )
    lines = read(snapshot).sections['Sources']
    assert after(lines, 'flows') == 'conntrack dump incomplete: ENOBUFS'
    assert after(lines, 'conntrack dump incomplete: ENOBUFS') == 'failed'


def test_instances_are_counted_by_state_and_old_ones_named():
    lines = read(builders.node()).sections['Instances']
    for state, number in (('running', '2'), ('paused', '1'), ('incoming', '1')):
        assert after(lines, state) == number
    assert after(lines, 'not read just now') == '1'
    assert after(lines, '00000000-0000-4000-8000-000000000003') == 'everything'
    assert after(lines, 'everything') == '30 s ago'


def test_states_are_counted_where_libvirt_was_not_asked_for_them():
    odd = (builders.instance(state=1), builders.instance(state=1), builders.instance(state=42))
    lines = read(builders.snapshot(*odd)).sections['Instances']
    assert (after(lines, 'running'), after(lines, 'state 42')) == ('2', '1')


def test_an_instance_whose_monitor_is_silent_is_named_as_read_in_part():
    partial = builders.instance(is_complete=False, completed_at=None)
    lines = read(builders.snapshot(partial)).sections['Instances']
    assert after(lines, 'read in part') == '1'
    assert after(lines, builders.UUID) == 'what QEMU knows'
    assert after(lines, 'what QEMU knows') == 'never'


def test_names_are_told_only_where_the_metrics_tell_them():
    told, silent = read(builders.node()), read(builders.node(), collectors=('cpu', 'host'))
    for name in ('00000000-0000-4000-8000-000000000003', f'qdhcp-{builders.NETWORK}'):
        assert name in told.text
        assert name not in silent.text
    assert after(silent.sections['Instances'], 'not read just now') == '1'


def test_tenants_and_addresses_are_never_told():
    text = read(builders.node()).text
    node = builders.node()
    for instance in node.instances.value:
        definition = instance.definition
        secrets = [definition.project_uuid, definition.user_uuid, definition.project_name]
        secrets += [address.ip for address in definition.addresses]
        assert not [secret for secret in secrets if secret and secret in text]
    assert not [each.ip for each in node.threats.host if each.ip in text]


def test_feeds_have_their_entries_age_and_state():
    lists = (
        builders.threat_list('tor_exit', succeeded_at=NOW - 3600),
        builders.threat_list('odd', is_held=True),
        builders.threat_list('old', is_fresh=False, error='503 of the server'),
        builders.threat_list('new', is_loaded=False, succeeded_at=None),
        builders.threat_list('bad', is_loaded=False, succeeded_at=None, error='no such host'),
    )
    lines = read(builders.snapshot(threats=builders.threats(lists=lists))).sections['Threat feeds']
    place = lines.index('tor_exit')
    assert lines[place : place + 5] == ['tor_exit', 'left out: 8', 'ok', '1\u202f234', '1 h ago']
    words = [line for line in lines if line in {'ok', 'held', 'late', 'waiting', 'failed'}]
    assert words == ['ok', 'held', 'late', 'waiting', 'failed']
    assert {'503 of the server', 'no such host'} <= set(lines)


def test_namespaces_ledger_and_flows_have_their_figures():
    found = read(builders.node()).sections
    assert after(found['Network namespaces'], 'found') == '7'
    assert after(found['Network namespaces'], 'skipped: vanished') == '2'
    assert 'conntrack: EPERM, snmp: ENOENT' in found['Network namespaces']
    # 1024 / 4096 = 25 %
    assert after(found['Connection tracking'], 'full') == '25.0 %'
    assert after(found['Totals for billing'], 'survive a crash') == 'yes'
    assert after(found['Totals for billing'], 'failed writes') == '2'


def test_what_is_not_known_is_left_out_and_not_zero():
    unknown = builders.snapshot(flow_health=model.FlowHealth())
    lines = read(unknown).sections['Connection tracking']
    assert 'entries' not in lines
    assert 'full' not in lines
    assert 'Threat feeds' not in read(unknown).sections


def test_usage_of_projects_has_its_figures():
    health = model.ProjectUsageHealth(
        succeeded_at=NOW - 240, seconds=12.5, failures={'auth': 1, 'http': 2}, projects=10_000
    )
    lines = read(builders.snapshot(project_usage_health=health)).sections['Project usage']
    assert after(lines, 'projects') == '10\u202f000'
    assert after(lines, 'updated') == '4 min ago'
    assert after(lines, 'failures') == '3'
    assert 'instances' not in lines


def test_a_failed_collector_opens_the_list_of_all():
    def details(found):
        return [attributes for tag, attributes in found.elements if tag == 'details']

    good = dataclasses.replace(GOOD, series=9)
    bad = dataclasses.replace(good, is_success=False)
    assert details(read(groups(cpu=good))) == [{'class': 'all'}]
    failed = read(groups(cpu=good, disk=bad))
    assert details(failed) == [{'class': 'all', 'open': ''}]
    assert 'Collectors: 1 of 2 failed' in failed.sections


TROUBLES = [
    ({'hypervisor': builders.hypervisor(suspects=0)}, 'Calls into libvirt that hang: 2.'),
    (
        {'hypervisor': builders.hypervisor(stuck_calls=0)},
        'Instances left alone, because QEMU did not answer: 1.',
    ),
    ({'flow_health': builders.flow_health(is_skipped=True)}, 'max_entries'),
    ({'ledger': builders.ledger_health(is_durable=False)}, 'would not survive a crash'),
    (
        {'threats': builders.threats(log=model.ThreatLogHealth(is_writable=False))},
        'The threat log cannot be written.',
    ),
    ({'reloads': model.Reloads(is_ok=False)}, 'The configuration files are wrong'),
    ({'reloads': model.Reloads(is_ok=True, waiting=3)}, 'wait for a restart: 3.'),
    ({'web': model.WebStatistics(config_is_ok=False)}, 'an older state of it holds'),
    ({'web': model.WebStatistics(is_public_without_authentication=True)}, 'without TLS'),
]


@pytest.mark.parametrize(('more', 'sentence'), TROUBLES)
def test_what_needs_a_hand_stands_first(more, sentence):
    found = read(builders.snapshot(**more))
    [line] = found.sections['Needs attention']
    assert sentence in line
    assert list(found.sections)[1] == 'Needs attention'


def test_a_host_in_good_order_has_nothing_to_complain_of():
    assert 'Needs attention' not in read(builders.snapshot()).sections


def test_the_documentation_is_linked_where_somebody_named_it():
    links = [a['href'] for tag, a in read(builders.snapshot()).elements if tag == 'a']
    assert links == ['/metrics', '/readyz', '/healthz']
    url = 'https://docs.example.org/oie?a=1&b="2"'
    more = [a['href'] for tag, a in read(documentation=url).elements if tag == 'a']
    assert more == [*links, url]


# --- what it may never do ---------------------------------------------------------


def test_a_host_in_great_trouble_still_has_a_small_page():
    old = tuple(
        builders.instance(builders.definition(uuid=f'{n:08}', domain='<' * 10_000), is_fresh=False)
        for n in range(2_000)
    )
    lists = tuple(builders.threat_list(f'{n}', error='&' * 10_000) for n in range(500))
    text = page(builders.snapshot(*old, threats=builders.threats(lists=lists)))
    assert len(text) < 100_000
    assert 'And 1980 more.' in text
    assert 'And 480 more.' in text


def test_there_is_no_script_no_form_and_nothing_from_elsewhere():
    found = read(builders.node())
    tags = {tag for tag, _ in found.elements}
    assert not tags & {'script', 'form', 'iframe', 'object', 'embed', 'base', 'img'}
    for _, attributes in found.elements:
        assert not [name for name in attributes if name.startswith('on') or name == 'style']
        assert not re.match('(https?:)?//', attributes.get('href') or '')
    assert 'url(' not in page_style.SHEET
    assert '@import' not in page_style.SHEET


def test_the_policy_allows_this_style_sheet_and_nothing_that_runs():
    [sheet] = re.findall('<style>(.*)</style>', page(builders.node()), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode()
    policy = dict(part.strip().split(' ', 1) for part in page_style.POLICY.split(';'))
    assert policy['default-src'] == "'none'"
    assert policy['style-src'] == f"'sha256-{digest}'"
    assert policy['img-src'] == 'data:'
    assert 'script-src' not in policy
    assert 'unsafe' not in page_style.POLICY


@given(strategies.text())
def test_any_text_stays_one_text(value):
    shown = page_markup.text(value)
    read_back = html.parser.HTMLParser(convert_charrefs=True)
    seen, tags = [], []
    read_back.handle_data = seen.append
    read_back.handle_starttag = lambda tag, _: tags.append(tag)
    read_back.feed(f'<p>{shown}</p>')
    read_back.close()
    assert tags == ['p']
    assert not re.search('[<>"\']', shown)
    assert ''.join(seen) == html.unescape(shown)
    assert len(html.unescape(shown)) <= page_markup.LONGEST + 1


NAMES = strategies.text(min_size=1)


@given(NAMES, NAMES, NAMES)
def test_any_names_keep_the_page_as_it_is(domain, name, error):
    def elements(domain, name, error):
        snapshot = builders.snapshot(
            builders.instance(builders.definition(domain=domain), is_fresh=False),
            error=error,
            threats=builders.threats(lists=(builders.threat_list(name, error=error),)),
            cycle=builders.cycle(groups={'libvirt': GOOD}),
        )
        return read(snapshot, problem=error).elements

    assert elements(domain, name, error) == elements('a', 'b', 'c')


@pytest.mark.parametrize(
    'hidden', ['\u202e', '\u2066', '\u200f', '\0', '\x1b', '\x85', '\u2028', '\ufeff', '\ud800']
)
def test_marks_that_nobody_sees_are_shown(hidden):
    assert page_markup.text(f'a{hidden}b') == 'a\ufffdb'


def test_letters_of_all_languages_stay():
    assert page_markup.text('übung 示例 مثال 🦄') == 'übung 示例 مثال 🦄'


@pytest.mark.parametrize(
    ('seconds', 'words'),
    [
        (-1, '0 ms'),
        (0.0543, '54.3 ms'),
        (4.2, '4.2 s'),
        (59.9, '59.9 s'),
        (60, '1 min'),
        (119, '1 min'),
        (3600, '1 h'),
        (3_661, '1 h 1 min'),
        (90_000, '1 d 1 h'),
        (864_000, '10 d'),
    ],
)
def test_lengths_of_time_have_words(seconds, words):
    assert page_markup.span(seconds) == words


def test_a_moment_ahead_of_our_clock_is_just_now():
    assert page_markup.ago(NOW + 5, NOW) == 'just now'
    assert page_markup.ago(None, NOW) == 'never'
