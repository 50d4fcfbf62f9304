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


"""Whether mounts reach a directory, by what the kernel tells of mounts."""

import pytest

from oie.sources import mount_propagation

ROOT = '21 1 8:1 / / rw,relatime {} - ext4 /dev/sda1 rw\n'
RUN = '24 21 0:22 / /run rw,nosuid {} - tmpfs tmpfs rw\n'
NETNS = '99 24 0:22 /netns /run/netns rw {} - tmpfs tmpfs rw\n'
OTHER = '98 24 0:22 /netns /run/netnsx rw {} - tmpfs tmpfs rw\n'


def lines(*pairs):
    """Return mounts with these optional fields; without any the two blanks become one."""
    return ''.join(form.format(fields).replace('  ', ' ') for form, fields in pairs)


@pytest.mark.parametrize(
    ('mounts', 'receives'),
    [
        (lines((ROOT, 'shared:1'), (RUN, 'shared:5')), True),
        (lines((ROOT, ''), (RUN, 'master:5')), True),
        (lines((ROOT, 'shared:1'), (RUN, 'shared:7 master:5')), True),
        (lines((ROOT, 'shared:1'), (RUN, '')), False),
        (lines((ROOT, '')), False),
        (lines((ROOT, 'shared:1'), (RUN, 'unbindable')), False),
        # What lies nearest to it counts, and of two at one place the later.
        (lines((ROOT, ''), (RUN, ''), (NETNS, 'shared:9')), True),
        (lines((RUN, 'shared:5'), (NETNS, '')), False),
        (lines((NETNS, ''), (NETNS, 'master:3')), True),
        (lines((RUN, ''), (OTHER, 'shared:1')), False),
        ('', None),
        ('nonsense\n\n1 2 3\n', None),
    ],
)
def test_nearest_mount_decides(mounts, receives):
    assert mount_propagation.receives('/run/netns', mounts) is receives


def test_escaped_names_are_understood():
    mounts = r'24 21 0:22 / /a\040b rw shared:1 - tmpfs tmpfs rw'
    assert mount_propagation.receives('/a b/netns', mounts) is True


@pytest.fixture
def proc(tmp_path):
    """Return a /proc in which processes have these mounts."""

    def fill(**mounts):
        for who, text in mounts.items():
            directory = tmp_path / who.lstrip('_')
            directory.mkdir()
            (directory / 'mountinfo').write_text(text)
        return str(tmp_path)

    return fill


PRIVATE = lines((ROOT, ''), (RUN, ''))


def test_problem_says_what_to_do(proc):
    text = mount_propagation.problem('/run/netns', proc=proc(self=PRIVATE))
    assert 'MountFlags=private' in text
    assert 'rslave' in text


def test_problem_of_another_process_names_it(proc):
    path = proc(self=lines((ROOT, 'shared:1')), _42=PRIVATE)
    assert mount_propagation.problem('/run/netns', proc=path) == ''
    assert 'process 42' in mount_propagation.problem('/run/netns', '42', path)


@pytest.mark.parametrize('text', [lines((ROOT, 'shared:1')), ''])
def test_nothing_is_claimed_of_what_is_right_or_unknown(proc, text):
    path = proc(self=text)
    assert mount_propagation.problem('/run/netns', proc=path) == ''
    assert mount_propagation.problem('/run/netns', '43', path) == ''


def test_other_mount_namespace_is_known_by_the_numbers_of_its_mounts(proc):
    host = lines((ROOT, 'shared:1'), (RUN, 'shared:5'))
    other = host.replace('21 1 ', '521 1 ').replace('24 21 ', '524 521 ')
    path = proc(_1=host, self=other, _42=host + NETNS.format('shared:9'), _43='')
    assert mount_propagation.is_apart(proc=path)
    assert not mount_propagation.is_apart('42', path)
    # Of nobody who cannot be read is anything claimed.
    assert not mount_propagation.is_apart('43', path)
    assert not mount_propagation.is_apart('44', path)


def test_mounts_of_this_process_are_understood():
    with open('/proc/self/mountinfo', encoding='utf-8') as file:
        assert mount_propagation.receives('/', file.read()) is not None
