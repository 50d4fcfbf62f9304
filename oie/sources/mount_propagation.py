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


"""Whether mounts that the host makes below a directory reach us. Source: proc_pid_mountinfo(5).

The file of a network namespace is a mount. A process in a mount namespace of its own sees those
that are made later only if mounts propagate to it (mount_namespaces(7)).
"""

import os

MOUNTINFO = '/proc/self/mountinfo'
_RECEIVES = ('shared:', 'master:')


def receives(directory: str, mountinfo: str) -> bool | None:
    """Return whether mounts below a directory reach us; None if the text does not tell.

    :param mountinfo: text of ``/proc/PID/mountinfo``
    """
    found, best = None, -1
    for line in mountinfo.splitlines():
        fields = line.split(' ')
        if len(fields) < 7 or '-' not in fields[6:]:
            continue
        point = _unescaped(fields[4])
        # Of two mounts at one point the later one lies above.
        if len(point) >= best and _is_below(directory, point):
            best = len(point)
            found = any(field.startswith(_RECEIVES) for field in fields[6 : fields.index('-')])
    return found


def problem(directory: str, path: str = MOUNTINFO) -> str:
    """Return what to do about mounts that do not reach us, empty if they do."""
    try:
        with open(path, encoding='utf-8', errors='surrogateescape') as file:
            text = file.read()
    except OSError:
        return ''
    if receives(os.path.realpath(directory), text) is not False:
        return ''
    return (
        f'{directory} is mounted privately here, so namespaces that are made later look like '
        'plain files; take MountFlags=private out of the unit, or give the container the '
        'directory with bind-propagation=rslave'
    )


def is_apart(proc: str = '/proc') -> bool:
    """Return whether we are in another mount namespace than process 1; False if nobody knows."""
    try:
        own, first = (os.readlink(f'{proc}/{who}/ns/mnt') for who in ('self', '1'))
    except OSError:
        return False
    return own != first


def _is_below(directory: str, point: str) -> bool:
    return point == '/' or directory == point or directory.startswith(f'{point}/')


def _unescaped(text: str) -> str:
    for octal, sign in (('\\040', ' '), ('\\011', '\t'), ('\\012', '\n'), ('\\134', '\\')):
        text = text.replace(octal, sign)
    return text
