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

"""Which Python can look into disks: the one that has the module ``guestfs``.

Distributions build it for their own Python only; in a virtual environment it is
rarely there. So it is tried, in a process of its own.
"""

from collections.abc import Iterable
import subprocess  # noqa: S404, the program and its arguments are our own
import sys

SYSTEM = '/usr/bin/python3'

_TRIAL = 'import guestfs; guestfs.GuestFS'
_SECONDS = 20.0


def find(wanted: str = '') -> str:
    """Return the path of a Python that can import guestfs, empty for none.

    :param wanted: the only one to try; empty tries the one we run in, then the system's
    """
    tried = (wanted,) if wanted else (sys.executable, SYSTEM)
    return next((path for path in _once(tried) if _has_guestfs(path)), '')


def _once(paths: Iterable[str]) -> Iterable[str]:
    return dict.fromkeys(path for path in paths if path)


def _has_guestfs(python: str) -> bool:
    try:
        done = subprocess.run(  # noqa: S603, see above
            (python, '-I', '-c', _TRIAL),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd='/',
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0
