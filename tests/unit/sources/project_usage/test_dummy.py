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

"""The file in the place of a cloud: both of its forms, and what is wrong in it."""

import json

import pytest

from oie import exceptions
from oie.config import moments
from oie.sources.project_usage import dummy
from oie.sources.project_usage import start_dates

NOW = 1_795_000_000
SINCE = (NOW - 7200) * moments.SECOND
DOMAINS = """
[elixir]
domain_id = "elixir_id"
[[elixir.projects]]
project_name = "Cell"
project_id = "1234"
machines = [
  {ram = 2, cpus = 3, existence = true, metadata = {project_name = "alpha"}},
  {ram = 0.5, cpus = 1, existence = 2026-11-18T09:00:00Z, instance_id = "x"},
  {existence = [2026-11-18T10:00:00+01:00, 2026-11-18T10:30:00], instance_id = "x"},
  {existence = false},
]
[[elixir.projects]]
project_name = "Empty"
project_id = "5678"
[other]
domain_id = "other_id"
[[other.projects]]
project_name = "Cell"
project_id = "9"
machines = [{}]
"""
OF_2018 = """
[admin]
domain = 'domainA'
machines = [
  {ram = 1, cpus = 2},
  {ram = 2, cpus = 2, uptime = 2018-11-26T14:30:00Z},
  {ram = 2, cpus = 2, uptime = false},
  {ram = 8, cpus = 24, uptime = [2018-11-27T14:00:00Z, 2018-11-27T15:00:10Z]},
]
[demo]
domain = 'domainB'
machines = []
"""
# The reference of November 2018; its memory was in MiB.
OLDER = """
[admin]
test1 = {ram = 128, cpus = 2}
test2 = {ram = 256, cpus = 2, uptime = 2018-11-26T14:30:00Z}
"""


@pytest.fixture
def read(tmp_path):
    """Return a function that reads a text as such a file."""
    path = tmp_path / 'dummy.toml'

    def read(text, **more):
        path.write_text(text)
        return dummy.DummyCloud(str(path), clock=lambda: NOW, **more).read(SINCE, None)

    return read


def test_machines_of_projects_in_domains(read):
    answer = read(DOMAINS)
    assert [(p.id, p.name, p.domain_id, p.domain_name) for p in answer.projects] == [
        ('1234', 'Cell', 'elixir_id', 'elixir'),
        ('5678', 'Empty', 'elixir_id', 'elixir'),
        ('9', 'Cell', 'other_id', 'other'),
    ]
    day = moments.parse('2026-11-18')
    assert [server[1:6] for server in answer.servers] == [
        ('1234', 3, 2048, SINCE, None),
        ('1234', 1, 512, day + 9 * moments.HOUR, None),
        ('1234', 4, 8192, day + 9 * moments.HOUR, day + 10 * moments.HOUR + moments.HOUR // 2),
        ('9', 4, 8192, SINCE, None),
    ]
    # Even those that the file gives one name.
    assert len({server.uuid for server in answer.servers}) == 4


def test_machines_keep_their_ids_from_one_reading_to_the_next(read):
    assert read(DOMAINS).servers == read(DOMAINS).servers


def test_the_form_of_2018(read):
    answer = read(OF_2018)
    first = answer.projects[0]
    # printf admin | sha256sum, the last 16; so for domainA
    assert (first.id, first.name) == ('a81f6f2ab448a918', 'admin')
    assert (first.domain_id, first.domain_name) == ('eeb4914693fa6503', 'domainA')
    assert [(s.vcpus, s.memory_mb) for s in answer.servers] == [(2, 1024), (2, 2048), (24, 8192)]
    last = answer.servers[-1]
    assert last.ended_us - last.started_us == moments.HOUR + 10 * moments.SECOND


def test_domains_choose(read):
    assert [p.id for p in read(DOMAINS, domains=('other',)).projects] == ['9']
    assert [p.id for p in read(DOMAINS, domain_id='other_id').projects] == ['9']
    assert len(read(DOMAINS, domains=('other',)).servers) == 1


def test_machines_of_the_tagged_project_name_to_whom_they_count(read):
    answer = read(DOMAINS, tagged_project_id='1234', tag='project_name')
    assert [server.tag for server in answer.servers] == ['alpha', '', '', '']


@pytest.mark.parametrize(
    'text',
    [
        '',
        'a = 1',
        '[a]\nprojects = 7',
        '[[a]]',
        '[a]\nmachines = [{cpus = 0}]',
        '[a]\nmachines = [{cpus = "4"}]',
        '[a]\nmachines = [{ram = -1}]',
        '[a]\nmachines = [{ram = nan}]',
        '[a]\nmachines = [{ram = inf}]',
        '[a]\nmachines = [{ram = 1e30}]',
        '[a]\nmachines = [{cpus = nan}]',
        '[a]\nmachines = [{cpu = 4}]',
        '[a]\nmachines = [{metadata = 7}]\n[b]',
        '[a]\nmachine = [{cpus = 4}]',
        '[a]\ndomain = "b"',
        '[a]\ndomain_id = "b"\n[[a.project]]\nproject_id = "c"',
        '[[a.projects]]\nproject_id = "c"\nmachine = [{cpus = 4}]',
        OLDER,
        '[admin.1234abcd]\ntest1 = {ram = 128, cpus = 2}',
        '[a]\nmachines = [{uptime = 7}]',
        '[a]\nmachines = [{uptime = 1999-01-01T00:00:00Z}]',
        '[a]\nmachines = [{uptime = [2018-11-27T15:00:00Z, 2018-11-27T14:00:00Z]}]',
        '[[a.projects]]\n[[a.projects]]',
        '[a',
    ],
)
def test_what_is_wrong_is_refused(read, text):
    with pytest.raises(exceptions.UsageError) as caught:
        read(text)
    assert caught.value.reason == 'malformed'


def test_a_table_that_says_nothing_is_named_with_what_to_write(read):
    with pytest.raises(exceptions.UsageError, match=r"'admin' has neither projects nor machines"):
        read(OLDER)


NAMED = [f'{{cpus = 1, instance_id = "{name}"}}' for name in 'abcb']
UNNAMED = ['{cpus = 2}', '{cpus = 3}']


def test_a_machine_with_an_id_keeps_it_when_others_come_and_go(read):
    def ids(*machines):
        answer = read(f'[a]\nmachines = [{", ".join(machines)}]')
        return [each.uuid for each in answer.servers]

    every = ids(*NAMED, *UNNAMED)
    assert len(set(every)) == 6
    # Without the first one, and those without an id before the others.
    assert ids(*UNNAMED, *NAMED[1:]) == [*every[4:], *every[1:4]]


@pytest.mark.parametrize('tag', ['x' * 300, 'ü' * 150, '😀' * 60, 'x' + 'ü' * 150])
def test_a_tag_is_cut_to_what_a_portal_takes(read, tag):
    text = DOMAINS.replace('"alpha"', f'"{tag}"')
    [found] = {
        each.tag for each in read(text, tagged_project_id='1234', tag='project_name').servers
    } - {''}
    assert tag.startswith(found)
    assert 196 < len(found.encode()) <= 200


def test_no_file_is_told(tmp_path):
    with pytest.raises(exceptions.UsageError, match='no such file'):
        dummy.DummyCloud(str(tmp_path / 'missing')).read(SINCE, None)


# --- the start date ---------------------------------------------------------


def test_the_start_date_of_a_document_stands_above_the_fixed_one_and_is_asked_once(tmp_path):
    path = tmp_path / 'start.json'
    path.write_text(json.dumps([{'start_date': '2026-01-01'}, {'start_date': '2027-01-01'}]))
    found = start_dates.StartDate(1, f'file://{path}', timeout=1)
    assert found.moment() == moments.parse('2026-01-01T00:00:00Z')
    path.unlink()
    assert found.moment() == moments.parse('2026-01-01T00:00:00Z')


@pytest.mark.parametrize(
    'text', ['[]', '{}', '[{}]', '[{"start_date": "soon"}]', '[{"start_date": 7}]', '[7]']
)
def test_a_start_date_that_is_none_is_refused(tmp_path, text):
    path = tmp_path / 'start.json'
    path.write_text(text)
    with pytest.raises(exceptions.UsageError) as caught:
        start_dates.StartDate(None, f'file://{path}', timeout=1).moment()
    assert caught.value.reason == 'start_date'


@pytest.mark.parametrize('fixed', [None, 17])
def test_without_a_document_the_fixed_one_counts(fixed):
    assert start_dates.StartDate(fixed, '', timeout=1).moment() == fixed
