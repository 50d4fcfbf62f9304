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

"""Lines that no name can forge."""

import json
import re
import time

import hypothesis
from hypothesis import strategies
import pytest

from oie.outputs import threat_lines

STAMP = '2026-01-02T03:04:05.678+01:00'
UUID = '00000000-0000-4000-8000-000000000001'
CONTACT = threat_lines.Contact(
    'TOR', 'instance-0000002a', UUID, 'p1', 'u1', '10.0.0.5', '2a00:1::7', 'out'
)
OUTBOUND = threat_lines.Outbound(
    'instance-0000002a', UUID, 'p1', 'u1', '10.0.0.5', 'ipv4', 9, None, 12, 4, 3, 0, 5
)
HOST_THREAT = threat_lines.HostThreat('spamhaus', '5.6.7.8', 'ipv4')

NANOSECONDS = 1767323045 * 10**9  # 2026-01-02 03:04:05 UTC
# Lone surrogates too: libvirt's names are bytes that Python may have to smuggle through.
TEXTS = strategies.text(strategies.characters(exclude_categories=()), max_size=300)
CONTACTS = strategies.builds(threat_lines.Contact, *[TEXTS] * 8)
UNICODE_CONTACTS = strategies.builds(threat_lines.Contact, *[strategies.text(max_size=300)] * 8)
NAMES = ('tag', 'domain', 'uuid', 'project', 'user', 'src', 'dst', 'direction')


def cut(text):
    return text if len(text) <= 256 else f'{text[:256]}…'


@pytest.fixture
def zone(monkeypatch):
    def be_in(name):
        monkeypatch.setenv('TZ', name)
        time.tzset()

    yield be_in
    monkeypatch.undo()
    time.tzset()


def test_a_contact_is_the_line_of_the_reference():
    assert (
        threat_lines.reference(STAMP, CONTACT, 0)
        == (
            f'{STAMP} tag=TOR domain=instance-0000002a uuid={UUID} project=p1 user=u1 '
            'src=10.0.0.5 dst=2a00:1::7 direction=out\n'
        ).encode()
    )


def test_repeats_are_counted_at_the_end_of_the_line():
    assert threat_lines.reference(STAMP, CONTACT, 29).endswith(b' direction=out count=29\n')


def test_outbound_has_its_numbers_and_what_is_unknown_stays_empty():
    assert (
        threat_lines.reference(STAMP, OUTBOUND, 0)
        == (
            f'{STAMP} tag=OUTBOUND domain=instance-0000002a uuid={UUID} project=p1 user=u1 '
            'ip=10.0.0.5 family=ipv4 uniq_remotes=9 new_remotes= flows=12 max_single_remote=4 '
            'uniq_dst_ports=3 new_dst_ports=0 max_single_dst_port_flows=5\n'
        ).encode()
    )


def test_host_threat_and_dropped_have_the_four_identity_fields_empty():
    identity = 'domain= uuid= project= user='
    assert (
        threat_lines.reference(STAMP, HOST_THREAT, 0)
        == (f'{STAMP} tag=HOST_THREAT {identity} list=spamhaus ip=5.6.7.8 family=ipv4\n').encode()
    )
    assert (
        threat_lines.reference(STAMP, threat_lines.Dropped('rate'), 7)
        == (f'{STAMP} tag=DROPPED {identity} reason=rate count=7\n').encode()
    )


def test_json_has_the_same_fields_with_numbers_and_null():
    line = threat_lines.as_json(STAMP, OUTBOUND, 3)
    found = json.loads(line)
    assert list(found)[:6] == ['time', *NAMES[:5]]
    assert (found['time'], found['tag'], found['flows']) == (STAMP, 'OUTBOUND', 12)
    assert (found['new_remotes'], found['new_dst_ports'], found['count']) == (None, 0, 3)


@hypothesis.given(CONTACTS)
def test_any_text_gives_one_line_that_reads_back_as_exactly_its_fields(contact):
    line = threat_lines.reference(STAMP, contact, 0).decode('ascii')
    assert line.endswith('\n')
    assert line[:-1].isprintable()
    stamp, *fields = line[:-1].split(' ')
    found = [field.split('=') for field in fields]
    assert stamp == STAMP
    assert [name for name, _ in found] == list(NAMES)
    for name, value in found:
        assert value.encode().decode('unicode_escape') == cut(getattr(contact, name))
        assert not re.search('["\'`<>]', value)


@hypothesis.given(CONTACTS)
def test_any_text_gives_one_line_of_ascii_json(contact):
    line = threat_lines.as_json(STAMP, contact, 0).decode('ascii')
    assert line.endswith('\n')
    assert line[:-1].isprintable()
    assert list(json.loads(line)) == ['time', *NAMES]


@hypothesis.given(UNICODE_CONTACTS)
def test_json_reads_back_as_exactly_its_fields(contact):
    found = json.loads(threat_lines.as_json(STAMP, contact, 0))
    assert [found[name] for name in NAMES] == [cut(getattr(contact, name)) for name in NAMES]


@hypothesis.given(CONTACTS)
def test_no_text_forges_a_line_of_the_journal(contact):
    line = threat_lines.journal(contact, 0)
    assert line.isascii()
    assert line.isprintable()
    assert line.count('=') == 5
    assert len(line.split(' ')) == 7


@pytest.mark.parametrize(
    ('text', 'shown'),
    [
        ('instance-0000002a', 'instance-0000002a'),
        ('', ''),
        ('a b', 'a\\x20b'),
        ('a\nb', 'a\\x0ab'),
        ('x tag=TOR', 'x\\x20tag\\x3dTOR'),
        ('"\'\\', '\\x22\\x27\\x5c'),
        ('\u202e', '\\u202e'),
        ('é', '\\xe9'),
        ('\U0001f600', '\\U0001f600'),
        ('\x7f\x1b[31m', '\\x7f\\x1b\\x5b31m'),
        (None, ''),
        (0, '0'),
    ],
)
def test_odd_characters_are_escaped_in_place(text, shown):
    assert threat_lines.escaped(text) == shown


def test_a_long_value_is_cut_and_marked():
    assert threat_lines.escaped('x' * 256) == 'x' * 256
    assert threat_lines.escaped('x' * 257) == 'x' * 256 + '\\u2026'


@pytest.mark.parametrize(
    ('tag', 'shown'),
    [
        ('TOR', 'TOREXIT'),
        ('TORRELAY', 'TORRELAY'),
        ('SPAMHAUS', 'SPAMHAUS'),
        ('EMTHREATS', 'EMTHREATS'),
        ('CUSTOMLIST', 'CUSTOMLIST'),
        ('MY_LIST', 'MY_LIST'),
    ],
)
def test_the_journal_has_the_tags_of_the_reference(tag, shown):
    contact = threat_lines.Contact(tag, 'd', UUID, 'p', 'u', '10.0.0.5', '5.6.7.8', 'out')
    assert threat_lines.journal(contact, 0) == (
        f'[THREAT] {shown}-HIT: domain=d uuid={UUID} src=10.0.0.5 dst=5.6.7.8 direction=out'
    )


def test_the_journal_tells_of_hosts_and_losses_without_empty_fields():
    assert threat_lines.journal(HOST_THREAT, 2) == (
        '[THREAT] HOST_THREAT-HIT: list=spamhaus ip=5.6.7.8 family=ipv4 count=2'
    )
    assert threat_lines.journal(threat_lines.Dropped('queue'), 5) == (
        '[THREAT] DROPPED: reason=queue count=5'
    )


@pytest.mark.parametrize(
    ('name', 'nanoseconds', 'shown'),
    [
        ('UTC', 0, '2026-01-02T03:04:05Z'),
        ('UTC', 500_000_000, '2026-01-02T03:04:05.5Z'),
        ('UTC', 1, '2026-01-02T03:04:05.000000001Z'),
        ('UTC', 120_000, '2026-01-02T03:04:05.00012Z'),
        ('CET-1CEST,M3.5.0,M10.5.0/3', 999_999_999, '2026-01-02T04:04:05.999999999+01:00'),
        ('XST+3:30', 0, '2026-01-01T23:34:05-03:30'),
        ('IST-5:30', 0, '2026-01-02T08:34:05+05:30'),
    ],
)
def test_times_are_those_of_go_in_local_time(zone, name, nanoseconds, shown):
    zone(name)
    assert threat_lines.timestamp(NANOSECONDS + nanoseconds) == shown


def test_times_follow_daylight_saving(zone):
    zone('CET-1CEST,M3.5.0,M10.5.0/3')
    # 181 days after 2 January: 2 July.
    july = NANOSECONDS + 181 * 86400 * 10**9
    assert threat_lines.timestamp(july) == '2026-07-02T05:04:05+02:00'
