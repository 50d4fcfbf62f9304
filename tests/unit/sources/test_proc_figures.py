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


"""Figures of /proc/net: those of this kernel, of others, and of no kernel."""

import pathlib

import hypothesis
from hypothesis import strategies
import pytest

from oie import exceptions
from oie.sources import proc_figures

SNMP = """\
Ip: Forwarding DefaultTTL InReceives
Ip: 2 64 10766640
IcmpMsg: InType3 OutType3
IcmpMsg: 3 3
Tcp: RtoAlgorithm MaxConn RetransSegs
Tcp: 1 -1 2949
"""
SOCKSTAT = """\
sockets: used 420
TCP: inuse 1 orphan 0 tw 382 alloc 1 mem 165
FRAG: inuse 0 memory 0
"""
SNMP6 = """\
Ip6InReceives                   \t2206
Icmp6InType135                  \t7
Udp6InErrors                    \t0
UdpLite6InErrors                \t1
Odd                             \t5
"""


def parse(part, text, parser=None):
    found = (parser or proc_figures.Parser(proc_figures.PARSERS[part])).parse(text)
    return dict(found)


# --- what is right ------------------------------------------------------------


def test_snmp_has_the_numbers_below_their_names():
    assert parse('snmp', SNMP) == {
        ('Ip', 'Forwarding'): 2,
        ('Ip', 'DefaultTTL'): 64,
        ('Ip', 'InReceives'): 10766640,
        ('IcmpMsg', 'InType3'): 3,
        ('IcmpMsg', 'OutType3'): 3,
        ('Tcp', 'RtoAlgorithm'): 1,
        ('Tcp', 'MaxConn'): -1,
        ('Tcp', 'RetransSegs'): 2949,
    }


def test_sockstat_has_the_numbers_beside_their_names():
    found = parse('sockstat', SOCKSTAT)
    assert found['sockets', 'used'] == 420
    assert found['TCP', 'tw'] == 382
    assert found['FRAG', 'memory'] == 0
    assert len(found) == 8


def test_names_of_snmp6_are_taken_apart():
    assert parse('snmp6', SNMP6) == {
        ('Ip6', 'InReceives'): 2206,
        ('Icmp6', 'InType135'): 7,
        ('Udp6', 'InErrors'): 0,
        ('UdpLite6', 'InErrors'): 1,
        ('', 'Odd'): 5,
    }


def test_layout_that_changes_is_seen_though_it_has_as_many_words():
    parser = proc_figures.Parser(proc_figures.snmp)
    assert ('IcmpMsg', 'InType3') in parse('snmp', SNMP, parser)

    other = SNMP.replace('InType3', 'InType8')
    assert parse('snmp', other, parser)['IcmpMsg', 'InType8'] == 3
    assert parse('snmp', SNMP, parser)['IcmpMsg', 'InType3'] == 3


def test_only_the_wanted_figures_are_kept():
    parser = proc_figures.Parser(proc_figures.snmp, {('Tcp', 'RetransSegs'), ('Ip', 'None')})
    assert parse('snmp', SNMP, parser) == {('Tcp', 'RetransSegs'): 2949}
    other = SNMP.replace('2949', '5').replace('InType3', 'InType8')
    assert parse('snmp', other, parser) == {('Tcp', 'RetransSegs'): 5}


def test_text_without_a_wanted_figure_is_taken_apart_once():
    texts = []

    def keys(text):
        texts.append(text)
        return proc_figures.snmp(text)

    parser = proc_figures.Parser(keys, frozenset())
    assert [parse('snmp', SNMP, parser) for _ in range(3)] == [{}] * 3
    assert texts == [SNMP]


def test_layouts_without_end_are_not_kept():
    parser = proc_figures.Parser(proc_figures.snmp)
    for number in range(1000):
        text = SNMP.replace('InType3', f'InType{number}')
        assert parse('snmp', text, parser)['IcmpMsg', f'InType{number}'] == 3
    assert sum(map(len, parser._layouts.values())) <= 128


@pytest.mark.parametrize('part', proc_figures.PARSERS)
def test_files_of_this_kernel_are_understood(part):
    path = pathlib.Path('/proc/thread-self/net') / part
    if not path.exists():
        pytest.skip(f'the kernel has no {path}')
    text = path.read_text()

    found = parse(part, text)

    numbers = sum(word.lstrip('-').isdecimal() for word in text.split())
    assert len(found) == numbers


# --- what is wrong ------------------------------------------------------------


@pytest.mark.parametrize(
    ('part', 'text'),
    [
        ('snmp', ''),
        ('snmp', '\n'),
        ('snmp', SNMP[:-1]),
        ('snmp', SNMP[: SNMP.index('Tcp: 1')]),
        ('snmp', SNMP.replace('64', '')),
        ('snmp', SNMP.replace('64', 'many')),
        ('snmp', SNMP.replace('Tcp: 1', 'Udp: 1')),
        ('snmp', 'Ip\nIp\n'),
        ('sockstat', SOCKSTAT[:-1]),
        ('sockstat', SOCKSTAT.replace('420', '')),
        ('sockstat', SOCKSTAT.replace('420', '4x')),
        ('sockstat', SOCKSTAT.replace('TCP:', 'TCP')),
        ('snmp6', SNMP6.replace('2206', '')),
        ('snmp6', SNMP6.replace('2206', '2 2')),
        ('snmp6', SNMP6.replace('2206', 'x')),
    ],
)
def test_what_the_kernel_never_writes_is_an_error(part, text):
    with pytest.raises(exceptions.SourceError):
        parse(part, text)


@hypothesis.given(
    strategies.sampled_from(sorted(proc_figures.PARSERS)),
    strategies.text(max_size=120) | strategies.text('Ip: 12\n-x', max_size=60),
)
def test_any_text_gives_our_own_error_or_numbers(part, text):
    try:
        found = parse(part, text)
    except exceptions.SourceError:
        return
    assert all(isinstance(value, int) for value in found.values())
    assert found


@pytest.mark.parametrize(('text', 'value'), [('5\n', 5.0), (' -1.5e3 ', -1500.0), ('0', 0.0)])
def test_file_with_one_number(text, value):
    assert proc_figures.number(text) == value


@pytest.mark.parametrize('text', ['', '5 6', 'nan', 'inf', '0x10', '1_0', '1e999', 'five'])
def test_file_with_anything_else_has_no_number(text):
    with pytest.raises(exceptions.SourceError, match='is no number'):
        proc_figures.number(text)
