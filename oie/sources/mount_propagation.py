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


"""Whether mounts that the host makes below a directory reach a process.

Source: proc_pid_mountinfo(5).

The file of a network namespace is a mount. A process in a mount namespace of its own sees those
that are made later only if mounts propagate to it (mount_namespaces(7)).
"""

import os

SELF = 'self'
PROC = '/proc'
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


def problem(directory: str, process: str = SELF, proc: str = PROC) -> str:
    """Return what to do about mounts that do not reach a process, empty if they do.

    Empty too where that cannot be found out.

    :param process: its id, by default ours
    """
    text = _mountinfo(process, proc)
    if receives(os.path.realpath(directory), text) is not False:
        return ''
    where = 'here' if process == SELF else f'for the exporter (process {process})'
    return (
        f'{directory} is mounted privately {where}, so namespaces that are made later look like '
        'plain files; take MountFlags=private out of the unit, or give the container the '
        'directory with bind-propagation=rslave'
    )


def is_apart(process: str = SELF, proc: str = PROC) -> bool:
    """Return whether a process is in another mount namespace than process 1.

    Each mount has a number that none in another namespace has, and everybody may read these;
    /proc/PID/ns/mnt tells only who may trace the process. False where they cannot be read.
    """
    own, first = (_numbers(_mountinfo(who, proc)) for who in (process, '1'))
    return bool(own and first) and own.isdisjoint(first)


def _mountinfo(process: str, proc: str) -> str:
    path = f'{proc}/{process}/mountinfo'
    try:
        with open(path, encoding='utf-8', errors='surrogateescape') as file:
            return file.read()
    except OSError:
        return ''


def _numbers(mountinfo: str) -> frozenset[str]:
    return frozenset(line.partition(' ')[0] for line in mountinfo.splitlines())


def _is_below(directory: str, point: str) -> bool:
    return point == '/' or directory == point or directory.startswith(f'{point}/')


def _unescaped(text: str) -> str:
    for octal, sign in (('\\040', ' '), ('\\011', '\t'), ('\\012', '\n'), ('\\134', '\\')):
        text = text.replace(octal, sign)
    return text
