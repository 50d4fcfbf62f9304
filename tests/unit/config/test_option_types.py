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

"""Texts become values, or one sentence says what is wrong with them."""

import hypothesis
from hypothesis import strategies
from oslo_config import cfg
import pytest

from oie import config
from oie.config import durations
from oie.config import option_types
from tests.unit import entry_points


def error_of(option_type, text):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is what is asserted
        option_type(text)
    return str(caught.value)


class TestDuration:
    @pytest.mark.parametrize(
        ('text', 'seconds'),
        [
            ('10s', 10.0),
            ('1h30m', 5400.0),
            ('500ms', 0.5),
            ('2d', 172800.0),
            ('1d1h1m1s1ms', 90061.001),  # 86400 + 3600 + 60 + 1 + 0.001
            ('1.5h', 5400.0),
            ('90', 90.0),
            ('0.25', 0.25),
            ('0', 0.0),
            (' 5m ', 300.0),
        ],
    )
    def test_text_gives_seconds(self, text, seconds):
        assert config.Duration()(text) == seconds

    @pytest.mark.parametrize(
        'text',
        ['', ' ', '10x', 's', '10 s', '-1', '-1s', '1s1s', '1m1h', '1e3', 'nan', 'inf', '1h30'],
    )
    def test_anything_else_is_refused_with_an_example(self, text):
        assert error_of(config.Duration(), text) == (
            f'{text.strip()!r} is not a duration; write for example 10s, 1m30s, 500ms'
        )

    def test_digits_of_other_scripts_are_refused(self):
        assert error_of(config.Duration(), '\u0661s').endswith('500ms')

    def test_long_text_is_cut_in_the_message(self):
        assert len(error_of(config.Duration(), 'x' * 65536)) < 150

    def test_number_counts_as_seconds(self):
        assert config.Duration(maximum=60)(0.5) == 0.5

    def test_ends_of_the_range_belong_to_it(self):
        duration = config.Duration(minimum=1, maximum=3600)
        assert (duration('1s'), duration('1h')) == (1.0, 3600.0)

    def test_out_of_range_names_the_bound(self):
        duration = config.Duration(minimum=1, maximum=3600)
        assert error_of(duration, '0') == '0s is below the minimum 1s'
        assert error_of(duration, '999ms') == '999ms is below the minimum 1s'
        assert error_of(duration, '61m') == '1h1m is above the maximum 1h'

    @pytest.mark.parametrize(
        ('seconds', 'text'),
        [
            (0, '0s'),
            (0.5, '500ms'),
            (0.0005, '0.5ms'),
            (1, '1s'),
            (2.5, '2.5s'),
            (90, '1m30s'),
            (100, '1m40s'),
            (3600, '1h'),
            (86400, '1d'),
            (86400.25, '1d0.25s'),
            (8640000, '100d'),
        ],
    )
    def test_seconds_give_text(self, seconds, text):
        assert durations.text_of(seconds) == text

    @hypothesis.given(strategies.integers(min_value=0, max_value=10**12))
    def test_milliseconds_come_back_from_their_text(self, milliseconds):
        seconds = milliseconds / 1000
        assert durations.parse(durations.text_of(seconds)) == seconds

    @hypothesis.given(strategies.integers(min_value=0, max_value=10**12))
    def test_the_text_of_a_default_is_stable(self, milliseconds):
        text = durations.text_of(milliseconds / 1000)
        assert config.Duration().format_defaults(text) == [text]

    @hypothesis.given(strategies.text() | strategies.from_regex(r'[0-9.dhms]+', fullmatch=True))
    def test_any_text_is_a_length_of_time_or_refused_in_one_line(self, text):
        try:
            seconds, error = durations.parse(text), ''
        except ValueError as exc:
            seconds, error = 0, str(exc)
        assert 0 <= seconds < 1e21
        assert len(error.splitlines()) <= 1


class TestThresholds:
    def test_pieces_give_numbers_by_tier(self):
        assert config.Thresholds()('default:500, local : 200,\nceph:0') == {
            'default': 500,
            'local': 200,
            'ceph': 0,
        }

    @pytest.mark.parametrize('text', ['', ' ', '\n'])
    def test_nothing_gives_no_thresholds(self, text):
        assert config.Thresholds()(text) == {}

    @pytest.mark.parametrize('piece', ['x:y', 'bad', ':1', 'x:', 'x:-1', 'x:1.5', 'x:1:2', ''])
    def test_a_bad_piece_is_refused_by_its_text(self, piece):
        assert error_of(config.Thresholds(), f'default:500,{piece}') == (
            f'{piece!r} is not tier:IOPS; write for example default:500,local:200'
        )

    def test_a_tier_that_comes_twice_is_refused(self):
        assert error_of(config.Thresholds(), 'a:1,a:2') == "'a' is there twice"

    @hypothesis.given(
        strategies.dictionaries(
            strategies.from_regex('[A-Za-z0-9_-]+', fullmatch=True),
            strategies.integers(min_value=0, max_value=10**9),
        )
    )
    def test_thresholds_come_back_from_their_text(self, thresholds):
        option_type = config.Thresholds()
        [text] = option_type.format_defaults(thresholds)
        assert option_type(text) == thresholds


class TestLicences:
    def test_pieces_give_units_by_system(self):
        assert config.Licences()('Windows:vcpu, rhel : instance') == {
            'windows': 'vcpu',
            'rhel': 'instance',
        }

    @pytest.mark.parametrize('text', ['', ' ', '\n'])
    def test_nothing_gives_no_licences(self, text):
        assert config.Licences()(text) == {}

    @pytest.mark.parametrize('piece', ['windows', 'windows:', ':vcpu', 'a:core', 'a:vcpu:2', ''])
    def test_a_bad_piece_is_refused_by_its_text(self, piece):
        assert error_of(config.Licences(), f'sles:vcpu,{piece}') == (
            f'{piece!r} is not system:UNIT; write for example windows:vcpu,rhel:instance'
        )

    def test_a_system_that_comes_twice_is_refused(self):
        assert error_of(config.Licences(), 'a:vcpu,A:instance') == "'a' is there twice"

    @hypothesis.given(
        strategies.dictionaries(
            strategies.from_regex('[a-z0-9_-]+', fullmatch=True),
            strategies.sampled_from(config.Licences.UNITS),
        )
    )
    def test_licences_come_back_from_their_text(self, licences):
        option_type = config.Licences()
        [text] = option_type.format_defaults(licences)
        assert option_type(text) == licences


class TestNames:
    def test_names_keep_their_order(self):
        assert config.Names()('b, a') == ('b', 'a')

    def test_nothing_gives_no_names(self):
        assert config.Names()(' ') == ()

    def test_nothing_is_refused_where_a_name_must_be(self):
        names = config.Names({'a': 'the first', 'b': 'the second'}, may_be_empty=False)
        assert error_of(names, '') == 'the list is empty; write at least one of a, b'

    def test_a_name_that_comes_twice_is_refused(self):
        assert error_of(config.Names(), 'a,b,a') == "'a' is there twice"

    @pytest.mark.parametrize('text', ['a,', ',a', 'a,,b'])
    def test_an_empty_name_is_refused(self, text):
        assert error_of(config.Names(), text) == 'there is a comma too many'

    def test_a_name_that_is_no_choice_is_refused(self):
        assert error_of(config.Names({'a': '', 'b': ''}), 'a,c') == "'c' is not one of a, b"

    def test_the_name_of_an_installed_plugin_is_taken(self, monkeypatch):
        entry_points.install(monkeypatch, 'oie.collectors', [('cpu', 'nowhere:Cpu')])
        assert config.PluginNames('oie.collectors')('cpu') == ('cpu',)

    def test_the_name_of_no_plugin_is_refused_with_the_known_ones(self, monkeypatch):
        installed = [('disk', 'nowhere:Disk'), ('cpu', 'nowhere:Cpu')]
        entry_points.install(monkeypatch, 'oie.collectors', installed)
        assert error_of(config.PluginNames('oie.collectors'), 'cpu,gpu') == (
            "'gpu' is not an installed plugin of oie.collectors; these are: cpu, disk"
        )

    def test_the_name_of_a_plugin_where_none_is_installed(self, monkeypatch):
        entry_points.install(monkeypatch, 'oie.collectors', [])
        assert error_of(config.PluginNames('oie.collectors'), 'cpu') == (
            "'cpu' is not an installed plugin of oie.collectors; these are: none"
        )


class TestListenAddress:
    @pytest.mark.parametrize(
        ('text', 'host', 'port'),
        [
            ('127.0.0.1:9120', '127.0.0.1', 9120),
            ('0.0.0.0:1', '0.0.0.0', 1),
            ('[::1]:9120', '::1', 9120),
            ('[::]:65535', '::', 65535),
            ('[2001:DB8:0::1]:9120', '2001:db8::1', 9120),
            ('[fe80::1%eth0]:9120', 'fe80::1%eth0', 9120),
            ('localhost:9120', 'localhost', 9120),
            ('compute-1.example.org:9120', 'compute-1.example.org', 9120),
        ],
    )
    def test_text_gives_host_and_port(self, text, host, port):
        assert config.ListenAddress()(text) == config.Endpoint(host, port)

    @pytest.mark.parametrize(
        ('text', 'error'),
        [
            ('', "'' is not HOST:PORT or [IPV6]:PORT"),
            ('9120', "'9120' is not HOST:PORT or [IPV6]:PORT"),
            ('127.0.0.1', "'127.0.0.1' is not HOST:PORT or [IPV6]:PORT"),
            ('127.0.0.1:http', "'127.0.0.1:http' is not HOST:PORT or [IPV6]:PORT"),
            ('127.0.0.1:0', 'port 0 is not between 1 and 65535'),
            ('127.0.0.1:65536', 'port 65536 is not between 1 and 65535'),
            (
                ':9120',
                "':9120' names no host; write 0.0.0.0:9120 for all IPv4 addresses, "
                '[::]:9120 for all IPv6 addresses',
            ),
            ('::1:9120', 'an IPv6 address needs brackets; write [::1]'),
            ('1:2:3:9120', "'1:2:3' is not an IPv6 address"),
            ('[]:9120', "'' is not an IPv6 address"),
            ('[127.0.0.1]:9120', "'127.0.0.1' is not an IPv6 address"),
            ('127.1:9120', "Expected 4 octets in '127.1'"),
            ('*:9120', "'*' is neither an address nor the name of a host"),
            ('-a:9120', "'-a' is neither an address nor the name of a host"),
            ('a..b:9120', "'a..b' is neither an address nor the name of a host"),
        ],
    )
    def test_anything_else_is_refused_with_the_reason(self, text, error):
        assert error_of(config.ListenAddress(), text) == error

    @pytest.mark.parametrize('text', ['127.0.0.1:9120', '[::1]:9120', 'localhost:9120'])
    def test_an_endpoint_is_written_as_it_was_read(self, text):
        assert str(config.ListenAddress()(text)) == text


class TestPaths:
    @pytest.mark.parametrize('text', ['/metrics', '/a/b-c_d.e~f', '/.well-known/metrics'])
    def test_plain_path_is_taken(self, text):
        assert config.HttpPath()(text) == text

    @pytest.mark.parametrize(
        'text', ['', '/', 'metrics', '/metrics/', '//x', '/a b', '/a?b', '/a/../b', '/.', '/é']
    )
    def test_anything_else_is_refused_with_an_example(self, text):
        assert error_of(config.HttpPath(), text) == (
            f'{text!r} is not a path of letters, digits and ._~- ; write for example /metrics'
        )

    def test_reserved_path_is_refused(self):
        assert error_of(config.HttpPath(['/healthz']), '/healthz') == (
            "'/healthz' serves something else; choose another path"
        )

    @pytest.mark.parametrize('text', ['', '/run/oie/oie.sock', '/' + 'x' * 106])
    def test_socket_path_is_absolute_or_nothing(self, text):
        assert config.SocketPath()(text) == text

    def test_relative_socket_path_is_refused(self):
        assert error_of(config.SocketPath(), 'oie.sock') == "'oie.sock' is not an absolute path"

    def test_socket_path_that_the_kernel_would_cut_is_refused(self):
        assert error_of(config.SocketPath(), '/' + 'é' * 54).endswith(  # 1 + 2 * 54 = 109 bytes
            'is longer than the 107 bytes that the path of a unix socket may have'
        )


def test_types_made_alike_are_equal_so_that_plugins_can_share_an_option():
    conf = cfg.ConfigOpts()
    for _ in range(2):
        opt = cfg.Opt('pause', type=config.Duration(minimum=1), default='1s')
        conf.register_opt(opt, 'shared')
    with pytest.raises(cfg.DuplicateOptError):
        conf.register_opt(cfg.Opt('pause', type=config.Duration(), default='1s'), 'shared')


@pytest.mark.parametrize('text', ['', ' '])
def test_a_text_that_must_be_there_is_not_empty(text):
    assert error_of(config.Text(), text) == 'the value is empty; write one or take the line away'
    assert config.Text()('qemu:///system') == 'qemu:///system'


class TestFeedUrl:
    @pytest.mark.parametrize(
        'text', ['https://a.example/b?c=d', 'http://a.example', 'file:///a', '']
    )
    def test_url_stays_as_it_is(self, text):
        assert config.FeedUrl()(f' {text} ') == text

    @pytest.mark.parametrize(
        ('text', 'expected'),
        [
            ('ftp://a.example/', 'is not a URL that begins with https://, http:// or file:///'),
            ('a.example/list', 'is not a URL that begins with'),
            ('https:///list', 'names no host'),
            ('file://a.example/list', 'names a host'),
            ('https://a.example/\x1b[0m', 'is not a URL'),
        ],
    )
    def test_anything_else_is_refused(self, text, expected):
        assert expected in error_of(config.FeedUrl(), text)

    def test_scheme_is_given_in_small_letters(self):
        assert config.FeedUrl()('HTTP://A.example/B') == 'http://A.example/B'

    def test_password_is_refused_and_not_repeated(self):
        error = error_of(config.FeedUrl(), 'https://me:secret@a.example/')
        assert error == 'a URL with a password gets logged; use secret_file'


class TestDirection:
    @pytest.mark.parametrize(
        ('text', 'expected'),
        [('OUT', 'out'), (' src ', 'out'), ('inbound', 'in'), ('Dst', 'in'), ('any', 'any')],
    )
    def test_words_of_the_reference(self, text, expected):
        assert config.Direction()(text) == expected

    def test_anything_else_is_refused(self):
        assert error_of(config.Direction(), 'both') == (
            "'both' is not one of out, outbound, src, in, inbound, dst, any"
        )
        assert "'' is not one of" in error_of(config.Direction(), '')

    def test_nothing_where_that_is_allowed(self):
        assert config.Direction(may_be_empty=True)('') == ''


def test_names_of_lists_become_parts_of_names():
    assert option_types.ListNames()('a, b_2') == ('a', 'b_2')
    for name in ('2a', 'A', 'a-b', 'a' * 41, '_a'):
        assert 'is no name of a list' in error_of(option_types.ListNames(), name)


def test_networks_are_strict():
    networks = '10.0.0.0/8,192.0.2.1,2001:db8::/32'
    assert option_types.Networks()(networks) == tuple(networks.split(','))
    for name in ('10.0.0.1/8', '10.0.0', 'a.example', '10.0.0.0/33'):
        assert f'{name!r} is no network' in error_of(option_types.Networks(), name)
