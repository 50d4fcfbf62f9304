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


def test_problem_says_what_to_do(tmp_path):
    path = tmp_path / 'mountinfo'
    path.write_text(lines((ROOT, ''), (RUN, '')))
    text = mount_propagation.problem('/run/netns', str(path))
    assert 'MountFlags=private' in text
    assert 'rslave' in text


@pytest.mark.parametrize('text', [lines((ROOT, 'shared:1')), ''])
def test_nothing_is_claimed_of_what_is_right_or_unknown(tmp_path, text):
    path = tmp_path / 'mountinfo'
    path.write_text(text)
    assert mount_propagation.problem('/run/netns', str(path)) == ''
    assert mount_propagation.problem('/run/netns', str(tmp_path / 'none')) == ''


@pytest.mark.parametrize(
    ('own', 'first', 'is_apart'), [('mnt:[1]', 'mnt:[1]', False), ('mnt:[2]', 'mnt:[1]', True)]
)
def test_mount_namespace_of_our_own_is_known_by_its_number(tmp_path, own, first, is_apart):
    for who, link in (('self', own), ('1', first)):
        (tmp_path / who / 'ns').mkdir(parents=True)
        (tmp_path / who / 'ns/mnt').symlink_to(link)
    assert mount_propagation.is_apart(str(tmp_path)) is is_apart
    assert not mount_propagation.is_apart(str(tmp_path / 'none'))


def test_mounts_of_this_process_are_understood():
    with open(mount_propagation.MOUNTINFO, encoding='utf-8') as file:
        assert mount_propagation.receives('/', file.read()) is not None
