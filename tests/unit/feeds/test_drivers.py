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

"""What every installed feed promises, ours and those of others; then what each is for."""

from collections.abc import Iterator
import json
import re

import hypothesis
from hypothesis import strategies as st
from oslo_config import cfg
import pytest

from oie import exceptions
from oie import plugins
from oie.feeds import base
from oie.feeds import lists
from tests.unit.feeds import drivers

CLASSES = plugins.load('oie.threat_feeds')
WITH_DEFAULTS = {name: drivers.feed(name) for name in CLASSES}
NAMES = pytest.mark.parametrize('name', CLASSES)
# What it takes to have sources, where the defaults have none.
SETTINGS = {
    name: {'url': 'https://lists.example.org/list'}
    for name in ('plain_list', 'csv_list', 'json_lines')
} | {'customlist': {'path': '/etc/oie/listed'}}

# The defaults of the contract.
REFRESH = {
    'tor_exit': '1h',
    'tor_relay': '1h',
    'spamhaus': '6h',
    'emergingthreats': '6h',
    'customlist': '10m',
}
TAGS = {
    'tor_exit': 'TOR',
    'tor_relay': 'TORRELAY',
    'spamhaus': 'SPAMHAUS',
    'emergingthreats': 'EMTHREATS',
    'customlist': 'CUSTOMLIST',
}


def sample(name):
    paths = [path for path in drivers.DATA.glob(f'{name}.*') if path.suffix != '.expected']
    if not paths and not CLASSES[name].__module__.startswith('oie.'):
        pytest.skip(f'the package of the feed {name} has brought no sample')
    [path] = paths
    return path.read_bytes()


def parsed(name, document, **options):
    feed = drivers.feed(name, **options) if options else WITH_DEFAULTS[name]
    return list(feed.parse(document))


def refusal(name, document, **options):
    with pytest.raises(exceptions.FeedError) as caught:
        parsed(name, document, **options)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def built_or_refused(name, document):
    """Build a list; whatever is raised but for FeedError is a failure of the driver."""
    feed = WITH_DEFAULTS[name]
    entries, message = [], ''
    try:
        entries.extend(feed.parse(document))
        assert isinstance(drivers.build(feed, document), lists.Built)
    except exceptions.FeedError as exc:
        message = str(exc) or '\n'
    assert '\n' not in message
    assert all(isinstance(entry, str) for entry in entries)


# --- every driver -----------------------------------------------------------


@NAMES
def test_a_driver_says_what_it_lists(name):
    each = CLASSES[name]
    assert issubclass(each, base.ThreatFeed)
    assert re.fullmatch(r'[a-z][a-z0-9_]*', name)
    assert re.fullmatch(r'[A-Z0-9_]*', each.TAG)
    assert (each.__doc__ or '').partition('\n')[0].endswith('.')


@NAMES
def test_a_driver_has_the_common_options_and_explains_its_own(name):
    options = {option.dest: option for option in CLASSES[name].OPTS}
    assert len(options) == len(CLASSES[name].OPTS)
    assert options.keys() >= {option.dest for option in base.options()}
    for option in options.values():
        assert isinstance(option, cfg.Opt)
        assert re.fullmatch(r'[A-Z].*\.', option.help), option.dest


@NAMES
def test_defaults_are_values_that_may_be_set(name):
    settings = drivers.feed(name).settings
    assert 0 <= settings.min_interval < settings.refresh * 0.9, 'a refresh may come a tenth early'
    assert settings.direction == ''


@NAMES
def test_a_driver_has_sources_once_it_is_told(name):
    found = drivers.feed(name, **SETTINGS.get(name, {})).sources()
    assert isinstance(found, tuple)
    assert all(re.match('https://|/', source) for source in found)
    assert bool(found) != (name == 'noop')


@NAMES
def test_the_sample_says_what_is_expected(name):
    document = sample(name)
    expected = (drivers.DATA / f'{name}.expected').read_text().splitlines()
    assert drivers.intervals(parsed(name, document)) == expected
    built = drivers.build(drivers.feed(name), document)
    assert built.entries == len(expected)
    assert sum(built.rejected.values()) - built.rejected['duplicate'] == 0


@NAMES
def test_line_ends_and_a_byte_order_mark_do_not_matter(name):
    expected = parsed(name, sample(name))
    assert parsed(name, sample(name).replace(b'\n', b'\r\n')) == expected
    assert parsed(name, b'\xef\xbb\xbf' + sample(name)) == expected
    assert parsed(name, sample(name).rstrip(b'\n')) == expected


@NAMES
def test_parsing_begins_when_the_first_entry_is_wanted(name):
    assert isinstance(drivers.feed(name).parse(b'<html>\x00\xff{['), Iterator)


@NAMES
@pytest.mark.parametrize(
    'page', [b'<!DOCTYPE html>\n<html><body>5.6.7.8</body></html>\n', b'\n <?php echo 1; ?>\n']
)
def test_a_web_page_is_refused(name, page):
    with pytest.raises(exceptions.FeedError, match='it begins with <'):
        drivers.build(drivers.feed(name), page)


@NAMES
@pytest.mark.parametrize(
    'character', [b'x', b'1', b'{', b'[', b'"', b'#', b' ', b',', b'\0', b'\xff']
)
def test_a_line_of_a_mebibyte_does_no_harm(name, character):
    built_or_refused(name, character * 2**20)
    built_or_refused(name, b'5.6.7.8\n' + character * 2**20 + b'\n5.6.7.9\n')


@NAMES
@hypothesis.given(document=st.binary() | st.text().map(str.encode))
def test_any_bytes_are_entries_or_refused(name, document):
    built_or_refused(name, document)


@NAMES
@hypothesis.given(data=st.data())
def test_a_damaged_sample_is_entries_or_refused(name, data):
    document = sample(name)
    begin = data.draw(st.integers(0, len(document)))
    end = data.draw(st.integers(begin, len(document)))
    damage = data.draw(st.binary(max_size=20) | st.just(document[begin:end] * 2))
    built_or_refused(name, document[:begin] + damage + document[end:])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(['relays', 'or_addresses', 'cidr', 'type', 'records', 'ip']), inner
        )
    ),
)


@NAMES
@hypothesis.given(value=JSON)
def test_any_json_is_entries_or_refused(name, value):
    built_or_refused(name, json.dumps(value).encode())


@NAMES
def test_depth_does_no_harm(name):
    for depth in (100, 900, 1000, 100_000):
        for left, right in (('[', ']'), ('{"ip":', '}'), ('{"relays":', '}'), ('{"cidr":', '}')):
            built_or_refused(name, (left * depth + '1' + right * depth).encode())


# --- the contract -----------------------------------------------------------


def test_names_tags_and_refresh_are_those_of_the_contract():
    assert CLASSES.keys() >= TAGS.keys()
    assert {name: CLASSES[name].TAG for name in TAGS} == TAGS
    for name, refresh in REFRESH.items():
        [option] = [option for option in CLASSES[name].OPTS if option.dest == 'refresh']
        assert drivers.feed(name).settings.refresh == option.type(refresh)


@pytest.mark.parametrize('name', ['tor_exit', 'tor_relay'])
class TestTor:
    def test_addresses_come_without_ports_and_brackets(self, name):
        addresses = [
            '1.2.3.4:9001',
            '[2001:DB8::1]:443',
            '2001:db8::2',
            '[2001:db8::3',
            'host:1',
        ]
        document = json.dumps({'relays': [{'or_addresses': addresses}]}).encode()
        built = drivers.build(drivers.feed(name), document)
        assert built.rejected['malformed'] == 2
        assert built.entries == 3
        entries = parsed(name, document)
        assert drivers.intervals(entries) == ['1.2.3.4/32', '2001:db8::1/128', '2001:db8::2/128']

    @pytest.mark.parametrize(
        'document', [{}, [], 'x', 1, None, {'relays': None}, {'relays': {}}, {'bridges': []}]
    )
    def test_a_document_without_relays_is_refused(self, name, document):
        message = refusal(name, json.dumps(document).encode())
        assert message == 'it is no document of Onionoo: there is no list relays'

    @pytest.mark.parametrize('relay', [None, 'x', {'or_addresses': '5.6.7.8:1'}])
    def test_a_relay_that_is_none_is_refused(self, name, relay):
        message = refusal(name, json.dumps({'relays': [relay]}).encode())
        assert message == 'it is no document of Onionoo: there is no list or_addresses'

    def test_no_relays_are_no_list(self, name):
        with pytest.raises(exceptions.FeedError, match='no entries'):
            drivers.build(drivers.feed(name), b'{"relays": []}')

    def test_a_part_of_a_document_is_refused(self, name):
        document = sample(name).strip()
        for end in range(len(document)):
            assert refusal(name, document[:end]).startswith('it is not JSON: ')

    def test_running_relays_are_asked_for_with_the_addresses_that_they_call_from(self, name):
        [url] = drivers.feed(name).sources()
        assert url.startswith('https://onionoo.torproject.org/details?')
        assert {'type=relay', 'running=true', 'fields=or_addresses,exit_addresses'} <= set(
            url.partition('?')[2].split('&')
        )
        assert ('flag=Exit' in url) == (name == 'tor_exit')


class TestSpamhaus:
    def test_both_formats_say_the_same(self):
        classic = (drivers.DATA / 'spamhaus_classic.txt').read_bytes()
        assert parsed('spamhaus', classic) == parsed('spamhaus', sample('spamhaus'))

    def test_both_families_make_up_the_list(self):
        v6 = (drivers.DATA / 'spamhaus_ipv6.json').read_bytes()
        feed = drivers.feed('spamhaus')
        assert drivers.build(feed, sample('spamhaus'), v6).entries == 5
        assert [source.rpartition('/')[2] for source in feed.sources()] == [
            'drop_v4.json',
            'drop_v6.json',
        ]
        for document in (b'<html>', b'', b'; nothing here\n'):
            with pytest.raises(exceptions.FeedError, match='document 2 of 2'):
                drivers.build(feed, sample('spamhaus'), document)
            with pytest.raises(exceptions.FeedError, match='document 1 of 2'):
                drivers.build(feed, document, v6)

    def test_the_second_document_can_be_left_out(self):
        assert len(drivers.feed('spamhaus', ipv6_url='').sources()) == 1

    def test_text_says_networks_only(self):
        document = b'; comment\n# c\n1.10.16.0/20 ; SBL1\n5.6.7.8\n2.56.0.0/14;SBL2\n'
        entries = parsed('spamhaus', document)
        assert drivers.intervals(entries) == ['1.10.16.0/20', '2.56.0.0/14']
        assert drivers.build(drivers.feed('spamhaus'), document).rejected['malformed'] == 1

    def test_a_document_of_comments_is_empty_not_broken(self):
        document = (drivers.DATA / 'spamhaus_merged.txt').read_bytes()
        assert parsed('spamhaus', document) == []
        with pytest.raises(exceptions.FeedError, match='no entries'):
            drivers.build(drivers.feed('spamhaus'), document)

    def test_a_part_of_a_document_is_refused(self):
        document = sample('spamhaus').strip()
        for end in range(1, len(document)):
            refusal('spamhaus', document[:end])

    def test_records_must_be_as_many_as_the_metadata_says(self):
        lines = sample('spamhaus').splitlines()
        assert refusal('spamhaus', b'\n'.join(lines[1:])) == (
            'it has 2 records, and the number that it should have is 3: '
            'the end is missing, or it is another format'
        )
        assert 'is not told' in refusal('spamhaus', b'\n'.join(lines[:-1]))

    def test_a_record_without_a_network_is_a_bad_entry(self):
        document = b'{"asn":64496,"cc":"ZZ"}\n{"type":"metadata","records":1}\n'
        with pytest.raises(exceptions.FeedError, match='none of its 1 entries is an address'):
            drivers.build(drivers.feed('spamhaus'), document)


class TestListsOfASite:
    @pytest.mark.parametrize('name', ['plain_list', 'csv_list', 'json_lines', 'customlist'])
    def test_either_url_or_path_is_set(self, name):
        url, path = 'https://lists.example.org/list', '/etc/oie/listed'
        assert drivers.feed(name, url=url).sources() == (url,)
        assert drivers.feed(name, path=path).sources() == (path,)
        with pytest.raises(exceptions.FeedError, match='^set either url or path; none is set$'):
            drivers.feed(name).sources()
        with pytest.raises(exceptions.FeedError, match='^set either url or path; both are set$'):
            drivers.feed(name, url=url, path=path).sources()

    @pytest.mark.parametrize('name', ['tor_exit', 'tor_relay', 'spamhaus', 'emergingthreats'])
    def test_a_published_list_has_a_url(self, name):
        with pytest.raises(exceptions.FeedError, match='^url is empty; say where the list is$'):
            drivers.feed(name, url='').sources()

    def test_the_file_of_a_site_is_read_often_may_be_empty_and_is_believed(self):
        settings = drivers.feed('customlist').settings
        assert (settings.min_interval, settings.hold, settings.allow_empty) == (0, 0, True)
        assert drivers.feed('plain_list').settings.hold == 24 * 3600


class TestCsv:
    TABLE = b'# made today\nname,ip,score\n"a, b",5.6.7.8,90\nc,"2a00:1::1",50\nd,5.6.0.0/16,9\n'

    def test_a_column_is_found_by_name(self):
        assert parsed('csv_list', self.TABLE, column='ip') == [
            '5.6.7.8',
            '2a00:1::1',
            '5.6.0.0/16',
        ]

    def test_a_column_is_found_by_number_below_a_header(self):
        entries = parsed('csv_list', self.TABLE, column='2', header=True)
        assert entries == ['5.6.7.8', '2a00:1::1', '5.6.0.0/16']
        assert parsed('csv_list', self.TABLE, column='2')[0] == 'ip'

    @pytest.mark.parametrize('where', ['score', '3'])
    def test_rows_are_chosen_by_a_number(self, where):
        options = {'column': 'ip', 'where_column': where, 'at_least': 50}
        assert parsed('csv_list', self.TABLE, **options) == ['5.6.7.8', '2a00:1::1']

    def test_a_number_that_is_none_makes_a_bad_entry(self):
        options = {'where_column': '2', 'at_least': 50}
        entries = parsed('csv_list', b'5.6.7.8,high\n5.6.7.9,\n5.6.7.10\n', **options)
        assert entries == ['no number: high', 'no number: ', 'no number: ']

    def test_a_row_without_the_column_is_a_bad_entry(self):
        assert parsed('csv_list', b'a,5.6.7.8\nb\n', column='2') == ['5.6.7.8', '']

    def test_a_column_that_is_not_there_is_named(self):
        expected = 'it has no column address; the first line names: name, ip, score'
        assert refusal('csv_list', self.TABLE, column='address') == expected

    @pytest.mark.parametrize(
        ('delimiter', 'character'), [('semicolon', ';'), ('tab', '\t'), ('bar', '|')]
    )
    def test_columns_are_apart_by_what_is_set(self, delimiter, character):
        document = f'a{character}5.6.7.8:80\n'.encode()
        assert parsed('csv_list', document, column='2', delimiter=delimiter) == ['5.6.7.8']

    def test_quotes_that_do_not_match_refuse_the_list(self):
        assert 'is not CSV' in refusal('csv_list', b'5.6.7.8,"a\n5.6.7.9,b\n')

    @pytest.mark.parametrize(
        ('option', 'value'), [('column', '0'), ('where_column', '00'), ('delimiter', '::')]
    )
    def test_what_cannot_be_is_refused_at_the_start(self, option, value):
        with pytest.raises(ValueError, match=re.escape(value)):
            drivers.feed('csv_list', **{option: value})


class TestJson:
    def test_objects_come_one_a_line_or_in_an_array(self):
        objects = [json.loads(line) for line in sample('json_lines').splitlines()]
        expected = parsed('json_lines', sample('json_lines'))
        assert parsed('json_lines', json.dumps(objects, indent=1).encode()) == expected

    def test_dots_lead_into_objects(self):
        document = b'{"ioc":{"value":"5.6.7.8:80"}}\n{"ioc":null}\n{"ioc":{"value":["::1","::2"]}}'
        assert parsed('json_lines', document, field='ioc.value') == [
            '5.6.7.8',
            '(NoneType, not text)',
            '::1',
            '::2',
        ]

    def test_a_line_that_is_no_json_is_a_bad_entry(self):
        entries = parsed('json_lines', b'{"ip":"5.6.7.8"}\n{"ip":\n5\n')
        assert entries == ['5.6.7.8', '(NoneType, not text)', '(NoneType, not text)']

    def test_long_objects_are_read(self):
        document = json.dumps({'about': 'x' * 50_000, 'ip': '5.6.7.8'}).encode()
        assert parsed('json_lines', document) == ['5.6.7.8']

    def test_an_array_that_is_cut_short_is_refused(self):
        assert refusal('json_lines', b'[{"ip":"5.6.7.8"},').startswith('it is not JSON: ')
