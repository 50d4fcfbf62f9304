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


"""However a system is called, it gets one name; strangers' names never do harm."""

import pathlib
from xml.etree import ElementTree

import hypothesis
from hypothesis import strategies as st
import pytest

from oie import model
from oie.sources.guest_os import base
from oie.sources.guest_os import catalogue

OSINFO = pathlib.Path('/usr/share/osinfo/os')


def system(family, distro=model.UNKNOWN, info=model.UNKNOWN, version=model.UNKNOWN, *numbers):
    major, minor = (*numbers, None, None)[:2]
    return model.GuestOs(
        family=family,
        distro=distro,
        info=info,
        version=version,
        version_major=major,
        version_minor=minor,
    )


def windows(info, product, variant, version):
    major, minor = version.split('.')
    return model.GuestOs(
        family='windows',
        distro='windows',
        info=info,
        product_name=product,
        product_variant=variant,
        version=version,
        version_major=int(major),
        version_minor=int(minor),
    )


WIN2K22 = windows('win2k22', 'Windows Server 2022', 'Server', '10.0')
WIN2K12R2 = windows('win2k12r2', 'Windows Server 2012 R2', 'Server', '6.3')
WIN10 = windows('win10', 'Windows 10', 'Client', '10.0')
WIN81 = windows('win8.1', 'Windows 8.1', 'Client', '6.3')
SOME_WINDOWS = system('windows', 'windows')
DEBIAN12 = system('linux', 'debian', 'debian12', '12', 12)
UBUNTU = system('linux', 'ubuntu', 'ubuntu22.04', '22.04', 22, 4)


@pytest.mark.parametrize(
    ('names', 'expected'),
    [
        (('debian', '12'), DEBIAN12),
        (('Debian ', ' 12'), DEBIAN12),
        (('debian12',), DEBIAN12),
        (('http://debian.org/debian/12',), DEBIAN12),
        (('debian', '12', 'linux'), DEBIAN12),
        (('debian', '12.5'), system('linux', 'debian', 'debian12', '12.5', 12, 5)),
        (('debian', 'bookworm'), system('linux', 'debian', version='bookworm')),
        (('ubuntu', '22.04'), UBUNTU),
        (('ubuntu22.04',), UBUNTU),
        (('http://ubuntu.com/ubuntu/22.04',), UBUNTU),
        (('rhel9.2',), system('linux', 'rhel', 'rhel9.2', '9.2', 9, 2)),
        (('ol', '8.5'), system('linux', 'oraclelinux', 'ol8.5', '8.5', 8, 5)),
        (('centos-stream9',), system('linux', 'centos', 'centos-stream9', '9', 9)),
        (('sles', '12.5'), system('linux', 'sles', 'sles12sp5', '12.5', 12, 5)),
        (('sle15sp4',), system('linux', 'sles', 'sle15sp4', '15.4', 15, 4)),
        (('opensuse-leap', '15.4'), system('linux', 'opensuse', 'opensuse15.4', '15.4', 15, 4)),
        (('arch',), system('linux', 'archlinux')),
        (('freebsd13.1',), system('freebsd', 'freebsd', 'freebsd13.1', '13.1', 13, 1)),
        (('homegrown', '3'), system('unknown', 'homegrown', 'homegrown3', '3', 3)),
        (('homegrown', '', 'linux'), system('linux', 'homegrown')),
        (('', '', 'linux'), system('linux')),
        (('http://libosinfo.org/linux/2022',), system('linux')),
    ],
)
def test_all_names_of_a_system_are_one(names, expected):
    assert catalogue.describe(*names) == expected


@pytest.mark.parametrize(
    ('names', 'expected'),
    [
        (('win2k22',), WIN2K22),
        (('windows', '2022'), WIN2K22),
        (('windows', 'Windows Server 2022'), WIN2K22),
        (('windows-2022',), WIN2K22),
        (('windows_server_2022',), WIN2K22),
        (('mswindows', '2022'), WIN2K22),
        (('http://microsoft.com/win/2k22',), WIN2K22),
        (('', '2022', 'windows'), WIN2K22),
        (('windows', '2012 R2'), WIN2K12R2),
        (('windows', '2012r2'), WIN2K12R2),
        (('win2k12r2',), WIN2K12R2),
        (('windows', '10'), WIN10),
        (('Microsoft Windows 10',), WIN10),
        (('win8.1',), WIN81),
        (('windows', '8.1'), WIN81),
        (('windows',), SOME_WINDOWS),
        (('windows', 'the newest'), SOME_WINDOWS),
        (('win2k99',), SOME_WINDOWS),
        (('', '', 'windows'), SOME_WINDOWS),
        (('windows', '10.0'), system('windows', 'windows', 'unknown', '10.0', 10, 0)),
    ],
)
def test_a_windows_is_never_missed(names, expected):
    assert catalogue.describe(*names) == expected


@pytest.mark.parametrize('distro', ['debian', 'ubuntu', 'linux', 'homegrown'])
def test_windows_wins_over_a_distribution_that_is_none(distro):
    """Otherwise a word in an image's properties would save the licence."""
    found = catalogue.describe(distro, '12', 'windows')
    assert (found.family, found.distro) == ('windows', 'windows')


@pytest.mark.parametrize('distro', ['winlinux', 'darwin', 'twin', 'windsor'])
def test_a_name_that_sounds_like_windows_is_none(distro):
    assert catalogue.describe(distro).family != 'windows'


@pytest.mark.parametrize(
    'names', [('',), (' ', '12'), ('unknown',), ('', '', 'beos'), ('http://',)]
)
def test_nothing_is_known_of_no_name(names):
    assert catalogue.describe(*names) is None


def test_short_and_long_ids_of_libosinfo_mean_the_same():
    """Over all of libosinfo's own files, where they are installed."""
    if not OSINFO.is_dir():
        pytest.skip('osinfo-db is not installed')
    systems = [
        (each.findtext('short-id', ''), each.get('id', ''), each.findtext('family', ''))
        for path in OSINFO.glob('*/*.xml')
        for each in ElementTree.parse(path).getroot().findall('os')
    ]
    assert len(systems) > 300
    families = {'linux': 'linux', 'winnt': 'windows', 'freebsd': 'freebsd', 'openbsd': 'openbsd'}
    for short, long, family in systems:
        if family in families and not any(word in long for word in ('gnome', 'android', 'dos')):
            found = catalogue.describe(long)
            assert found.family == families[family], long
        if family == 'winnt' and short not in ('winnt3.1', 'winnt3.5', 'winnt3.51', 'winnt4.0'):
            assert catalogue.describe(short) == catalogue.describe(long)
            assert catalogue.describe(short).info == short


words = st.one_of(
    st.text(max_size=300),
    st.from_regex(r'(http://[a-z.]{0,9}/)?(win|debian|sles)[ _./0-9a-z-]{0,40}', fullmatch=True),
    st.sampled_from(['a-' * 200, 'win' * 100, '9' * 400, '9.' * 200, 'http://' + '/' * 300]),
)


@hypothesis.given(words, words, st.one_of(words, st.sampled_from(['linux', 'windows'])))
def test_any_words_give_a_clean_answer_or_none(distro, version, os_type):
    found = catalogue.describe(distro, version, os_type)
    if found is None:
        return
    shown = base.cleaned(found, 'driver', 1.0)
    for text in (shown.family, shown.distro, shown.info, shown.version, shown.product_name):
        assert 0 < len(text) <= 255
        assert text.isprintable()
    assert shown.version_major is None or 0 <= shown.version_major < 2**31
