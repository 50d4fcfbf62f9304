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


"""Whatever is measured, the exposition can be read back to the same names and numbers."""

import gzip
import logging
import math
import struct
import sys

import hypothesis
from hypothesis import strategies as st
from prometheus_client import parser
import pytest

from oie import model
from oie.outputs import prometheus

GAUGE = model.Meter(
    prometheus='oie_x', unit='1', kind=model.Kind.GAUGE, help='X.', source='nothing'
)
# Everything Python can hold: line ends of all kinds, NUL, quotes, lone surrogates.
text = st.text(
    alphabet=st.one_of(
        st.characters(),
        st.sampled_from('\n\r\v\f\x1c\x85\u2028\u2029\0\\"{}=,# \t\ud800\udfff'),
    ),
    max_size=40,
)
label_names = st.from_regex(r'[a-z][a-z0-9_]{0,10}', fullmatch=True).filter(
    lambda name: name not in ('le', 'quantile')
)
labels = st.dictionaries(label_names, text, max_size=4).map(lambda d: model.Labels.of(**d))
numbers = st.one_of(
    st.integers(min_value=-(2**64), max_value=2**64),
    st.floats(allow_nan=True, allow_infinity=True),
)


def meter(name='oie_x', kind=model.Kind.GAUGE, help='X.'):
    return model.Meter(prometheus=name, unit='1', kind=kind, help=help, source='nothing')


def rendered(*families):
    return prometheus.Renderer().render(families)


def text_of(*families):
    return rendered(*families).text.decode()


def one(value, of=GAUGE, labels=model.NO_LABELS):
    return model.Family.of(of, [(labels, value)])


def encodable(value):
    """Return a text as it can be written: lone surrogates become question marks."""
    return value.encode('utf-8', 'replace').decode()


def parsed(exposition):
    """Return what Prometheus' own library reads: names, labels and values."""
    # Split as Prometheus does, at line feeds only.
    return [
        (sample.name, sample.labels, sample.value)
        for metric in parser.text_string_to_metric_families(exposition.text.decode())
        for sample in metric.samples
    ]


def bits(value):
    return struct.pack('d', value)


# --- the format -------------------------------------------------------------


def test_a_family_is_help_type_and_samples():
    family = model.Family.of(
        meter('oie_disk_r_gbytes', model.Kind.CUMULATIVE, 'Gigabytes read.'),
        [(model.Labels.of(disk='a', b='c'), 1.5), (model.NO_LABELS, 2)],
    )
    assert text_of(family) == (
        '# HELP oie_disk_r_gbytes Gigabytes read.\n'
        '# TYPE oie_disk_r_gbytes counter\n'
        'oie_disk_r_gbytes{disk="a",b="c"} 1.5\n'
        'oie_disk_r_gbytes 2\n'
    )


def test_nothing_measured_is_an_empty_exposition():
    exposition = rendered()
    assert (exposition.text, exposition.series) == (b'', 0)
    assert gzip.decompress(exposition.gzipped) == b''


@pytest.mark.parametrize(
    ('kind', 'expected'),
    [
        (model.Kind.GAUGE, 'gauge'),
        (model.Kind.INFO, 'gauge'),
        (model.Kind.CUMULATIVE, 'counter'),
        (model.Kind.SUMMARY, 'summary'),
        (model.Kind.HISTOGRAM, 'histogram'),
    ],
)
def test_every_kind_has_a_type_of_prometheus(kind, expected):
    assert f'# TYPE oie_x {expected}\n' in text_of(one(1, meter(kind=kind)))
    assert len(model.Kind) == 5


def test_families_of_one_name_stand_together_below_one_header():
    other = meter('oie_y')
    shown = text_of(
        one(1, labels=model.Labels.of(a='1')), one(2, other), one(3, labels=model.Labels.of(a='2'))
    )
    assert [line for line in shown.splitlines() if not line.startswith('# HELP')] == [
        '# TYPE oie_x gauge',
        'oie_x{a="1"} 1',
        'oie_x{a="2"} 3',
        '# TYPE oie_y gauge',
        'oie_y 2',
    ]


def test_parts_of_a_summary_share_the_header_of_its_name():
    summary = meter('oie_call_seconds', model.Kind.SUMMARY)
    of_list = model.Labels.of(call='list')
    shown = text_of(
        model.Family.of(summary, [(of_list, 0.5)], '_sum'),
        model.Family.of(summary, [(of_list, 3)], '_count'),
    )
    assert shown == (
        '# HELP oie_call_seconds X.\n# TYPE oie_call_seconds summary\n'
        'oie_call_seconds_sum{call="list"} 0.5\noie_call_seconds_count{call="list"} 3\n'
    )


def test_series_are_counted_without_headers():
    assert rendered(one(1), one(2, meter('oie_y'))).series == 2


# --- values -----------------------------------------------------------------


@hypothesis.given(st.integers(min_value=-(2**64), max_value=2**64))
def test_integers_are_exact(value):
    assert text_of(one(value)).splitlines()[-1] == f'oie_x {value}'


@hypothesis.given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_survive_bit_by_bit(value):
    written = text_of(one(value)).splitlines()[-1].removeprefix('oie_x ')
    assert bits(float(written)) == bits(value)


@pytest.mark.parametrize(
    ('value', 'written'),
    [
        (math.inf, '+Inf'),
        (-math.inf, '-Inf'),
        (math.nan, 'NaN'),
        (-0.0, '-0.0'),
        (1e300, '1e+300'),
        (True, '1.0'),
        (model.DomainState.PAUSED, '3.0'),
    ],
)
def test_odd_numbers_are_written_as_prometheus_reads_them(value, written):
    assert text_of(one(value)).splitlines()[-1] == f'oie_x {written}'


# --- texts ------------------------------------------------------------------


def test_line_feeds_quotes_and_backslashes_are_escaped():
    shown = text_of(one(1, labels=model.Labels.of(a='\\ " \n \\n')))
    assert shown.splitlines()[-1] == r'oie_x{a="\\ \" \n \\n"} 1'


def test_help_keeps_its_quotes_and_its_line():
    assert text_of(one(1, meter(help='a "b"\nc\\d'))).splitlines()[0] == (
        r'# HELP oie_x a "b"\nc\\d'
    )


@hypothesis.given(st.lists(st.tuples(labels, numbers), max_size=6))
def test_whatever_names_users_choose_it_reads_back_to_the_same(samples):
    exposition = rendered(model.Family.of(GAUGE, samples))
    expected, seen = [], set()
    for of_sample, value in samples:
        told = {name: encodable(label) for name, label in of_sample.pairs}
        if (identity := tuple(told.items())) not in seen:
            seen.add(identity)
            expected.append(('oie_x', told, repr(float(value))))
    assert [(n, of, repr(float(v))) for n, of, v in parsed(exposition)] == expected
    assert exposition.text.count(b'\n') == 2 + len(expected)
    assert exposition.series == len(expected)
    assert gzip.decompress(exposition.gzipped) == exposition.text


@hypothesis.given(text)
def test_any_help_stays_on_one_line_and_reads_back(help):
    exposition = rendered(one(1, meter(help=f'A{help}.')))
    assert exposition.text.count(b'\n') == 3
    [metric] = parser.text_string_to_metric_families(exposition.text.decode())
    assert metric.documentation == f'A{encodable(help)}.'


def test_64_kib_of_anything_are_one_line():
    name = ('"\n\\\0\ud800x' * 2**14)[: 2**16]
    exposition = rendered(one(1, labels=model.Labels.of(a=name)))
    assert exposition.text.count(b'\n') == 3
    assert parsed(exposition) == [('oie_x', {'a': encodable(name)}, 1.0)]


# --- no two samples of one identity -----------------------------------------


@pytest.fixture
def twice():
    return [(model.Labels.of(a='1'), 1), (model.Labels.of(a='1'), 2), (model.Labels.of(a='2'), 3)]


def test_of_two_samples_with_the_same_labels_only_the_first_is_shown(twice):
    exposition = rendered(model.Family.of(GAUGE, twice))
    assert parsed(exposition) == [('oie_x', {'a': '1'}, 1.0), ('oie_x', {'a': '2'}, 3.0)]
    assert exposition.series == 2


def test_also_when_they_come_in_two_families(twice):
    shown = parsed(rendered(*(model.Family.of(GAUGE, [sample]) for sample in twice)))
    assert shown == [('oie_x', {'a': '1'}, 1.0), ('oie_x', {'a': '2'}, 3.0)]


def test_labels_that_become_equal_by_encoding_are_equal():
    family = model.Family.of(
        GAUGE, [(model.Labels.of(a='\ud800'), 1), (model.Labels.of(a='\ud801'), 2)]
    )
    assert parsed(rendered(family)) == [('oie_x', {'a': '?'}, 1.0)]


def test_a_lasting_duplicate_is_logged_when_it_starts_and_when_it_ends(twice, caplog):
    renderer = prometheus.Renderer()
    with caplog.at_level(logging.WARNING):
        for samples in (twice, twice, twice[:1], twice[:1]):
            renderer.render([model.Family.of(GAUGE, samples)])
    first, last = caplog.messages
    assert 'oie_x' in first
    assert last.endswith('over')


# --- what is kept between cycles --------------------------------------------


def test_text_of_labels_is_made_once_and_kept_with_them_alone():
    renderer, labels = prometheus.Renderer(), model.Labels.of(a='1')
    references = sys.getrefcount(labels)
    renderer.render([model.Family.of(GAUGE, [(labels, 1)])])
    text = labels.written
    renderer.render([model.Family.of(GAUGE, [(labels, 1), (model.Labels.of(a='2'), 2)])])
    assert text == '{a="1"}'
    assert labels.written is text
    assert sys.getrefcount(labels) == references


def test_long_text_is_kept_compressed_alone(monkeypatch):
    monkeypatch.setattr(prometheus, '_MOST_PLAIN', 1000)
    few, many = (
        [(model.Labels.of(a=str(number)), number) for number in range(count)]
        for count in (10, 1000)
    )
    short, whole = (rendered(model.Family.of(GAUGE, samples)) for samples in (few, many))
    assert short.plain == short.text == gzip.decompress(short.gzipped)
    assert whole.plain is None
    assert whole.text == gzip.decompress(whole.gzipped)
    assert (len(parsed(whole)), whole.series) == (1000, 1000)


def test_the_same_families_give_the_same_bytes():
    families = [model.Family.of(GAUGE, [(model.Labels.of(a='1'), 1)])]
    renderer = prometheus.Renderer()
    assert renderer.render(families) == renderer.render(families)


def test_a_broken_family_does_not_cost_the_next_cycle():
    renderer = prometheus.Renderer()
    with pytest.raises(AttributeError):
        renderer.render([None])
    assert renderer.render([one(1)]).series == 1
