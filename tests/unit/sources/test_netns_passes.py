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


"""One pass: what is no namespace costs only itself, and nothing stays open."""

import errno
import os
import socket

import pytest

from oie import exceptions
from oie import model
from oie.config import netns_settings
from oie.sources import netns_files
from oie.sources import netns_passes
from tests import held


class Reader:
    """Take files that hold text for namespaces; of some, parts fail."""

    def __init__(self):
        self.failures = {}
        self.meddle = lambda name: None
        self.ends = 0
        self.known = {}

    def read(self, file, name, known):
        self.meddle(name)
        self.known[name] = known
        try:
            text = os.read(file, 10)
        except OSError as exc:
            raise netns_files.refused(file, OSError(errno.EINVAL, 'Invalid argument')) from exc
        if text == b'refused':
            raise netns_files.refused(file, PermissionError(errno.EPERM, 'not permitted'))
        if not text:
            raise netns_files.refused(file, OSError(errno.EINVAL, 'Invalid argument'))
        failures = self.failures.get(name, {})
        return model.Namespace(labels=known.labels, name=name, failures=failures)

    def end_pass(self):
        self.ends += 1


@pytest.fixture
def reader():
    return Reader()


@pytest.fixture
def directory(tmp_path):
    def fill(*names, text='a namespace'):
        for name in names:
            (tmp_path / name).write_text(text)
        return tmp_path

    return fill


def passes(reader, path, wanted=None, deadline=5.0, **more):
    return netns_passes.Passes(
        str(path), wanted or netns_settings.Filter(), reader, deadline, **more
    )


def run(reader, path, **more):
    return passes(reader, path, **more).run(lambda: False)


def test_all_are_read_in_order(reader, directory):
    found = run(reader, directory('b', 'a', 'c'))
    assert [each.name for each in found.table.namespaces] == ['a', 'b', 'c']
    assert (found.table.found, found.table.filtered, found.table.skipped) == (3, 0, {})


def test_filter_leaves_names_out(reader, directory):
    path = directory('qrouter-1', 'qdhcp-1')
    found = run(reader, path, wanted=netns_settings.Filter('', 'qrouter'))
    assert (found.table.found, found.table.filtered) == (2, 1)
    assert [each.name for each in found.table.namespaces] == ['qrouter-1']


def test_what_is_no_namespace_is_counted_by_reason(reader, directory):
    path = directory('good')
    directory('stale', text='')
    (path / 'link').symlink_to('good')
    (path / 'folder').mkdir()
    os.mkfifo(path / 'pipe')
    os.close(os.open(bytes(path) + b'/\xff', os.O_CREAT | os.O_WRONLY))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path / 'socket'))

    with held.nothing_more():
        found = run(reader, path)

    assert [each.name for each in found.table.namespaces] == ['good']
    assert found.table.skipped == {
        **{'stale': 1, 'symlink': 1, 'name': 1},
        'not_a_namespace': 3,
    }
    assert reader.ends == 1


def test_namespace_that_vanishes_meanwhile_is_counted(reader, directory):
    path = directory('a', 'b', 'c')
    reader.meddle = lambda name: name == 'a' and (path / 'b').unlink()
    found = run(reader, path)
    assert [each.name for each in found.table.namespaces] == ['a', 'c']
    assert found.table.skipped == {'vanished': 1}


def test_one_that_may_not_be_entered_costs_only_itself(reader, directory):
    path = directory('a')
    directory('b', text='refused')
    found = run(reader, path)
    assert (len(found.table.namespaces), found.table.skipped) == (1, {'refused': 1})


def test_no_right_at_all_is_a_failure_that_names_it(reader, directory):
    path = directory('a', 'b', text='refused')
    with pytest.raises(exceptions.SourceError, match='none of 2 .* it needs CAP_SYS_ADMIN'):
        run(reader, path)
    assert reader.ends == 1


def test_part_that_failed_is_a_problem_and_no_reason_to_skip(reader, directory):
    reader.failures = {'a': {'conntrack': 'EPERM'}}
    found = run(reader, directory('a', 'b'))
    assert found.problems == {('a', 'conntrack'): 'EPERM'}
    assert (len(found.table.namespaces), found.table.skipped) == (2, {})


def test_deadline_ends_the_pass_and_counts_the_rest(reader, directory):
    now = [0.0]

    def meddle(name):
        now[0] += 2

    reader.meddle = meddle
    found = run(reader, directory('a', 'b', 'c', 'd'), deadline=3.0, clock=lambda: now[0])
    assert [each.name for each in found.table.namespaces] == ['a', 'b']
    assert found.table.skipped == {'deadline': 2}
    assert found.seconds == 4.0


ROUTER = '27e6b9c0-73c4-4624-9481-eb5c90f109bd'


def test_skipped_ones_that_may_still_be_there_are_named_with_what_they_are(reader, directory):
    """A router whose second namespace is not reached must be known to have one."""
    now = [0.0]

    def meddle(name):
        now[0] += 2

    reader.meddle = meddle
    path = directory(f'qrouter-{ROUTER}', f'snat-{ROUTER}')
    directory('no_namespace', text='')
    found = run(reader, path, deadline=3.0, clock=lambda: now[0])
    assert found.table.skipped == {'stale': 1, 'deadline': 1}
    assert [(each.name, each.kind, each.uuid, each.devices) for each in found.table.unread] == [
        ('no_namespace', 'other', '', None),
        (f'snat-{ROUTER}', 'snat', ROUTER, None),
    ]


def test_one_that_vanished_is_nothing_that_may_still_be_there(reader, directory):
    path = directory('a', f'snat-{ROUTER}')
    reader.meddle = lambda name: name == 'a' and (path / f'snat-{ROUTER}').unlink()
    found = run(reader, path)
    assert (found.table.skipped, found.table.unread) == ({'vanished': 1}, ())


def test_nobody_waits_for_a_pass_that_nobody_wants(reader, directory):
    stops = iter([False, True, True])
    found = passes(reader, directory('a', 'b', 'c')).run(lambda: next(stops))
    assert [each.name for each in found.table.namespaces] == ['a']


def test_labels_are_the_same_object_while_the_namespace_is_there(reader, directory):
    path = directory('qrouter-1b5c74fb-56a8-4fbc-8e4e-c30f620b11bd')
    made = passes(reader, path)

    def labels():
        (namespace,) = made.run(lambda: False).table.namespaces
        return namespace.labels

    first = labels()
    assert first is labels()
    (known,) = reader.known.values()
    assert (known.kind, known.uuid[:4]) == ('router', '1b5c')
    (entry,) = path.iterdir()
    entry.rename(path / 'other')
    second = labels()
    assert second is not first
    (path / 'other').rename(entry)
    assert labels() is not first


def test_labels_outlive_a_deadline(reader, directory):
    made = passes(reader, directory('a'))
    (before,) = made.run(lambda: False).table.namespaces
    made.run(lambda: True)
    (after,) = made.run(lambda: False).table.namespaces
    assert after.labels is before.labels


def test_directory_that_does_not_exist_is_empty(reader, tmp_path):
    assert run(reader, tmp_path / 'none').table == model.NamespaceTable(found=0)


def test_directory_that_is_none_is_a_failure(reader, directory):
    path = directory('file')
    with pytest.raises(exceptions.SourceError, match='directory: .*Not a directory'):
        run(reader, path / 'file')
