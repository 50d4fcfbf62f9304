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


"""Names of operating systems, wherever they come from → one way to say them.

Families and distributions are called as libguestfs calls them (guestfs(3),
guestfs_inspect_get_type and _distro), ``info`` is the short id of libosinfo
(https://gitlab.com/libosinfo/osinfo-db). So all drivers agree, and a rule for a
price holds whichever of them has answered.
"""

from collections.abc import Mapping
import re
from typing import NamedTuple
import urllib.parse

from oie import model

WINDOWS = 'windows'
LINUX = 'linux'

_LINUXES = (
    'almalinux alpinelinux altlinux amazonlinux archlinux asianux buildroot caasp centos circle '
    'cirros clearlinux coreos debian elementary eos fedora flatcar freenix gentoo guix hyperbola '
    'kalilinux linuxmint mageia mandrake mandriva manjaro mbs mes miraclelinux nixos oel '
    'openeuler openmandriva opensuse oraclelinux popos pureos rhel rhel-atomic rhl rocky '
    'scientificlinux silverblue slackware sled slem sles talos trisquel ubuntu ucs voidlinux'
)
# Distribution → family; others are in no family unless somebody says so.
_FAMILIES: Mapping[str, str] = {
    **dict.fromkeys(_LINUXES.split(), LINUX),
    WINDOWS: WINDOWS,
    **{name: name for name in ('dragonfly', 'freebsd', 'haiku', 'netbsd', 'netware', 'openbsd')},
    **dict.fromkeys(('freedos', 'msdos'), 'dos'),
    'macosx': 'darwin',
    'solaris': 'solaris',
    'opensolaris': 'solaris',
}
# Other names: of os-release(5), of Glance, of libosinfo.
_ALIASES: Mapping[str, str] = {
    'alma': 'almalinux',
    'alpine': 'alpinelinux',
    'alt': 'altlinux',
    'amazon': 'amazonlinux',
    'amzn': 'amazonlinux',
    'arch': 'archlinux',
    'centos-stream': 'centos',
    'dragonflybsd': 'dragonfly',
    'fedora-coreos': 'coreos',
    'kali': 'kalilinux',
    'ol': 'oraclelinux',
    'opensusetumbleweed': 'opensuse',
    'oracle': 'oraclelinux',
    'osx': 'macosx',
    'pop': 'popos',
    'redhat': 'rhel',
    'rockylinux': 'rocky',
    'scientific': 'scientificlinux',
    'sle': 'sles',
    'suse': 'sles',
    'void': 'voidlinux',
}
_WINDOWS = re.compile(r'(?:microsoft|(?:microsoft[ _-]?|ms)?(?:windows|winnt|win))(?![a-z])')
# os_type of an image, and the word by which libosinfo begins a kind without a distribution.
_TYPES: Mapping[str, str] = {LINUX: LINUX, WINDOWS: WINDOWS}
# Of these libosinfo has one entry for each major version.
_MAJOR_ONLY = frozenset({'almalinux', 'debian', 'fedora', 'rocky'})


class _Windows(NamedTuple):
    """A release of Windows: its name, whether for servers or clients, and its NT version."""

    product_name: str
    variant: str
    version: tuple[int, int]


_RELEASES: Mapping[str, _Windows] = {
    '2k': _Windows('Windows 2000', model.UNKNOWN, (5, 0)),
    'xp': _Windows('Windows XP', 'Client', (5, 1)),
    '2k3': _Windows('Windows Server 2003', 'Server', (5, 2)),
    '2k3r2': _Windows('Windows Server 2003 R2', 'Server', (5, 2)),
    'vista': _Windows('Windows Vista', 'Client', (6, 0)),
    '2k8': _Windows('Windows Server 2008', 'Server', (6, 0)),
    '7': _Windows('Windows 7', 'Client', (6, 1)),
    '2k8r2': _Windows('Windows Server 2008 R2', 'Server', (6, 1)),
    '8': _Windows('Windows 8', 'Client', (6, 2)),
    '2k12': _Windows('Windows Server 2012', 'Server', (6, 2)),
    '8.1': _Windows('Windows 8.1', 'Client', (6, 3)),
    '2k12r2': _Windows('Windows Server 2012 R2', 'Server', (6, 3)),
    '10': _Windows('Windows 10', 'Client', (10, 0)),
    '11': _Windows('Windows 11', 'Client', (10, 0)),
    '2k16': _Windows('Windows Server 2016', 'Server', (10, 0)),
    '2k19': _Windows('Windows Server 2019', 'Server', (10, 0)),
    '2k22': _Windows('Windows Server 2022', 'Server', (10, 0)),
    '2k25': _Windows('Windows Server 2025', 'Server', (10, 0)),
}
# "2012 R2", "server-2022", "2k19", "Windows 8.1": a year or a number, and a release.
_RELEASE = re.compile(r'(?<![0-9.k])(2k|20)?([0-9]{1,2}(?:\.1)?)(?![0-9.])[ _-]?(r2)?(?![a-z0-9])')
_NAMED = re.compile(r'(?<![a-z0-9])(2k|xp|vista)(?![a-z0-9])')
_NT_VERSION = re.compile(r'(?:5|6|10)\.[0-3](?:\.[0-9]{1,9})*')
_VERSION = re.compile(r'([0-9]{1,9})(?:\.([0-9]{1,9}))?(?:\.[0-9]{1,9})*')
# A short id of libosinfo: a name, and a version that begins with a digit.
_SHORT_ID = re.compile(r'([a-z](?:[a-z_-]*[a-z])?)(?:[ _-]?([0-9][0-9a-z._-]*))?')


def family_of(name: str) -> str:
    """Return the family of a distribution or of itself, ``unknown`` for names we do not know."""
    return name if name in _FAMILIES.values() else _FAMILIES.get(name, model.UNKNOWN)


def describe(distro: str, version: str = '', os_type: str = '') -> model.GuestOs | None:
    """Return what these names say, None when they say nothing.

    Windows wins where type and distribution contradict each other: Nova builds
    the hardware for Windows by the type, so who runs Windows sets it.

    :param distro: a name of a distribution, a short id of libosinfo
        (``debian12``), or its long id (``http://debian.org/debian/12``)
    :param version: its version if the name has none, such as ``22.04``
    :param os_type: ``linux`` or ``windows``, as images have it
    """
    word, kind = distro.strip().lower(), _TYPES.get(os_type.strip().lower(), '')
    if word.startswith(('http://', 'https://')):
        word, version = _from_long_id(word, version)
    if kind == WINDOWS or _is_windows(word):
        return windows(word if _release(word) else version)
    name, of_name = _split(word)
    if not name or name == model.UNKNOWN:
        return model.GuestOs(family=kind) if kind else None
    if name in _TYPES:
        return model.GuestOs(family=_TYPES[name])
    return _distribution(_ALIASES.get(name, name), of_name or version.strip(), word, kind)


def windows(release: str, version: str = '') -> model.GuestOs:
    """Return a Windows.

    :param release: what tells the release: ``2022``, ``win2k12r2``, ``Windows 8.1``
    :param version: the NT version, if it is known
    """
    found = _release(release.strip().lower())
    known = _RELEASES.get(found)
    if not known and not version and _NT_VERSION.fullmatch(release.strip()):
        version = release.strip()
    numbers = _numbers(version) or (known.version if known else None)
    return model.GuestOs(
        family=WINDOWS,
        distro=WINDOWS,
        info=f'win{found}' if known else model.UNKNOWN,
        product_name=known.product_name if known else model.UNKNOWN,
        product_variant=known.variant if known else model.UNKNOWN,
        version=version or ('{}.{}'.format(*numbers) if numbers else model.UNKNOWN),
        version_major=numbers[0] if numbers else None,
        version_minor=numbers[1] if numbers else None,
    )


def _is_windows(word: str) -> bool:
    return bool(_WINDOWS.match(word)) or (word.startswith('win') and bool(_release(word)))


def _release(text: str) -> str:
    """Return a release of Windows as libosinfo has it, such as 2k12r2; empty if none is named."""
    text = re.sub(r'^(?:ms)?(?:windows|win)(?=[0-9xv])', '', text)
    for found in _RELEASE.finditer(text):
        century, number, r2 = found.groups()
        if century:
            number = f'2k{number.lstrip("0")}'
        if (release := f'{number}{r2 or ""}') in _RELEASES:
            return release
    by_name = _NAMED.search(text)
    return by_name[1] if by_name else ''


def _from_long_id(word: str, version: str) -> tuple[str, str]:
    """Return name and version of ``http://debian.org/debian/12``, the short id for Windows."""
    _, *path = urllib.parse.unquote(word.partition('://')[2]).split('/')
    name, last = path[0] if path else '', path[1] if len(path) > 1 else ''
    if _WINDOWS.fullmatch(name):
        return f'win{last}' if last else WINDOWS, version
    # "unknown" is what libosinfo calls a system of which nothing is known.
    return ('' if name == model.UNKNOWN else name), last or version


def _split(word: str) -> tuple[str, str]:
    """Return name and version of a short id; ``debian-testing`` is a debian without one."""
    found = _SHORT_ID.fullmatch(word)
    if found is None or _is_known(word):
        return word, ''
    name, version = found[1], found[2] or ''
    shorter = name
    while shorter and not _is_known(shorter):
        shorter = shorter.rpartition('-')[0]
    # libosinfo: sles12sp5 is what its maker calls 12.5.
    return shorter or name, re.sub('^([0-9]+)sp([0-9]+)$', r'\1.\2', version)


def _is_known(name: str) -> bool:
    return name in _FAMILIES or name in _ALIASES


def _distribution(name: str, version: str, word: str, kind: str) -> model.GuestOs:
    numbers = _numbers(version)
    major, minor = numbers if numbers else (None, None)
    return model.GuestOs(
        family=_FAMILIES.get(name, kind) or model.UNKNOWN,
        distro=name,
        info=_info(name, version, major, minor, word),
        version=version or model.UNKNOWN,
        version_major=major,
        version_minor=minor,
    )


def _info(name: str, version: str, major: int | None, minor: int | None, word: str) -> str:
    """Return the short id of libosinfo."""
    if major is None:
        return model.UNKNOWN
    if name == 'sles':
        # libosinfo: sles12sp5, sle15sp4, sle15.
        base = 'sle' if major >= 15 else 'sles'
        return f'{base}{major}sp{minor}' if minor else f'{base}{major}'
    if word.startswith('centos-stream'):
        return f'centos-stream{major}'
    if name in _MAJOR_ONLY:
        return f'{name}{major}'
    short = {'oraclelinux': 'ol'}.get(name, name)
    return f'{short}{version}' if _VERSION.fullmatch(version) else f'{short}{major}'


def _numbers(version: str) -> tuple[int, int | None] | None:
    """Return major and minor version, None for a version that is no number."""
    found = _VERSION.match(version)
    return (int(found[1]), int(found[2]) if found[2] else None) if found else None
