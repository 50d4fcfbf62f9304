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

"""A look into disks by libguestfs: in a child without rights, with a limit, and nothing left.

libguestfs starts QEMU with a small Linux, the appliance, which mounts the disks
read-only. The appliance is built once from packages and the kernel of this host
and kept (368 MB on Debian 12, libguestfs 1.48).
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import fcntl
import json
import logging
import os
import pathlib
import pwd
import shutil
import stat
import tempfile
import threading
import time
from typing import Any

from oie.sources.guest_os import base
from oie.sources.guest_os import disks
from oie.sources.guest_os import inspection_child
from oie.sources.guest_os import pythons
from oie.sources.guest_os import sessions

LOG = logging.getLogger(__name__)

_KVM = '/dev/kvm'
_PATH = '/usr/sbin:/usr/bin:/sbin:/bin'
_MIB, _GIB = 2**20, 2**30
_REASONS = frozenset({'image', 'inspection', 'launch', 'setup'})
# Of each process of the inspection. The root disk of the appliance is a sparse file of
# 4 GiB.
_LIMITS = {
    'RLIMIT_CORE': 0,
    'RLIMIT_FSIZE': 5 * _GIB,
    'RLIMIT_NOFILE': 1024,
}
# Besides the memory of the appliance QEMU 7.2 mapped 1.4 GiB (x86, with its translator).
_MAPPED_BYTES = 4 * _GIB
# Beyond the limit of the wall clock; only a child that nobody watches any more meets it.
_CPU_GRACE_SECONDS = 10
# A search costs a third of a second, and each instance may ask.
_SEARCH_SECONDS = 300.0


class Appliance:
    """Looks into disks, one set at a time.

    :param options: those of the driver ``libguestfs``
    :param stop: ends what is under way when it is set
    """

    def __init__(self, options: Any, stop: threading.Event, *, kvm: str = _KVM) -> None:
        self._options = options
        self._stop = stop
        self._kvm = kvm
        self._runner = sessions.Runner()
        self._home = pathlib.Path(options.cache_dir)
        self._python = ''
        self._next_search = 0.0

    def look(self, entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the operating systems on the first disk, or else on all of them.

        :param entries: as disks.job() gives them
        :raises InspectionFailed: they could not be looked for
        """
        try:
            user = self._user()
            with self._place(user) as place:
                return self._looked(entries, user, place)
        except sessions.NotEnded as exc:
            raise base.InspectionFailed('setup', str(exc)) from exc
        except OSError as exc:
            raise base.InspectionFailed(
                'setup',
                f'disks cannot be inspected below {self._home}: {exc}; make it writable for uid '
                f'{os.geteuid()}, or set [guest_os_libguestfs] cache_dir to a place that is',
            ) from exc

    def _looked(
        self, entries: Sequence[Mapping[str, Any]], user: pwd.struct_passwd | None, place: str
    ) -> list[dict[str, Any]]:
        is_emulated = self.is_emulated()
        ending = self._run(entries, user, place, is_emulated=is_emulated)
        has_launched = inspection_child.LAUNCHED in ending.said
        if ending.why == 'timeout' and not is_emulated and not has_launched:
            self._remember_kvm()
            if self.is_emulated():
                ending = self._run(entries, user, place, is_emulated=True)
        return roots_of(ending, self._options.timeout)

    def _run(
        self,
        entries: Sequence[Mapping[str, Any]],
        user: pwd.struct_passwd | None,
        place: str,
        *,
        is_emulated: bool,
    ) -> sessions.Ending:
        seconds = self._options.timeout
        job = {
            'parent': os.getpid(),
            'user': None if user is None else self._identity(user),
            'limits': {
                **_LIMITS,
                'RLIMIT_AS': self._options.memory * _MIB + _MAPPED_BYTES,
                'RLIMIT_CPU': int(seconds) + _CPU_GRACE_SECONDS,
            },
            'memory_mib': self._options.memory,
            'disks': list(entries),
            'attempts': sorted({1, len(entries)}),
        }
        command = (self._found_python(), '-I', inspection_child.__file__)
        return self._runner.run(
            command,
            json.dumps(job).encode(),
            environment=self._environment(user, place, is_emulated=is_emulated),
            seconds=seconds,
            stop=self._stop,
        )

    # --- as whom, with what -------------------------------------------------

    def _user(self) -> pwd.struct_passwd | None:
        """Return who shall look, None for ourselves: only root can choose.

        :raises InspectionFailed: there is no such user
        """
        name = self._options.user
        if os.geteuid() or not name:
            return None
        try:
            return pwd.getpwnam(name)
        except KeyError as exc:
            raise base.InspectionFailed(
                'setup', f'there is no user {name}; correct [guest_os_libguestfs] user'
            ) from exc

    def _identity(self, user: pwd.struct_passwd) -> dict[str, Any]:
        groups = [user.pw_gid]
        with contextlib.suppress(OSError):
            groups.append(os.stat(self._kvm).st_gid)
        return {'uid': user.pw_uid, 'gid': user.pw_gid, 'groups': groups}

    def _found_python(self) -> str:
        if not self._python and time.monotonic() >= self._next_search:
            self._python = pythons.find(self._options.python)
            self._next_search = time.monotonic() + _SEARCH_SECONDS
        if not self._python:
            wanted = self._options.python or pythons.SYSTEM
            raise base.InspectionFailed(
                'setup',
                f'{wanted} has no module guestfs; install the package python3-guestfs '
                '(python3-libguestfs), or name the Python that has it in '
                '[guest_os_libguestfs] python',
            )
        return self._python

    def _environment(
        self, user: pwd.struct_passwd | None, place: str, *, is_emulated: bool
    ) -> dict[str, str]:
        made = {
            'PATH': _PATH,
            'LANG': 'C.UTF-8',
            'HOME': place,
            'TMPDIR': place,
            'XDG_RUNTIME_DIR': place,
            'LIBGUESTFS_BACKEND': 'direct',
            'LIBGUESTFS_CACHEDIR': str(self._appliance_place(user)),
            'LIBGUESTFS_TMPDIR': place,
        }
        if is_emulated:
            made['LIBGUESTFS_BACKEND_SETTINGS'] = 'force_tcg'
        if self._options.emulator:
            made['LIBGUESTFS_HV'] = self._options.emulator
        return made

    # --- places -------------------------------------------------------------

    @contextlib.contextmanager
    def _place(self, user: pwd.struct_passwd | None) -> Iterator[str]:
        """Give an empty directory for one look, of whoever looks; nobody else looks meanwhile."""
        runs = self._home / 'run'
        runs.mkdir(0o755, parents=True, exist_ok=True)
        with self._locked():
            for left in runs.iterdir():
                shutil.rmtree(left, ignore_errors=True)
            _make_private(self._appliance_place(user), user)
            place = pathlib.Path(tempfile.mkdtemp(dir=runs))
            try:
                _make_private(place, user)
                yield str(place)
            finally:
                shutil.rmtree(place, ignore_errors=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the directory; one appliance at a time is enough for a host."""
        file = os.open(self._home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as exc:
            raise base.InspectionFailed(
                'setup', f'another program inspects disks below {self._home}; give each its own'
            ) from exc
        finally:
            os.close(file)

    def _appliance_place(self, user: pwd.struct_passwd | None) -> pathlib.Path:
        return self._home / f'appliance-{os.geteuid() if user is None else user.pw_uid}'

    # --- KVM ----------------------------------------------------------------

    def is_emulated(self) -> bool:
        """Tell whether the appliance runs without KVM.

        Where KVM exists but cannot run it, as in some nested guests, QEMU 7.2 hangs for ever.
        """
        if self._options.force_tcg != 'auto':
            return bool(self._options.force_tcg == 'true')
        if not os.path.exists(self._kvm):
            return True
        try:
            return self._kvm_note().read_text(encoding='ascii') == disks.boot_id()
        except (OSError, ValueError):
            return False

    def _remember_kvm(self) -> None:
        if self._options.force_tcg != 'auto':
            return
        LOG.warning(
            'libguestfs: the appliance did not start with KVM in %.0f s; until the next boot of '
            'this host it runs without. Set [guest_os_libguestfs] force_tcg = true to never try',
            self._options.timeout,
        )
        self._kvm_note().write_text(disks.boot_id(), encoding='ascii')

    def _kvm_note(self) -> pathlib.Path:
        return self._home / 'kvm-hangs'


def _make_private(path: pathlib.Path, user: pwd.struct_passwd | None) -> None:
    """Make a directory that belongs to whoever looks, and that nobody else may enter."""
    path.mkdir(0o700, exist_ok=True)
    place = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(place)
        if user is not None and status.st_uid != user.pw_uid:
            os.fchown(place, user.pw_uid, user.pw_gid)
        if stat.S_IMODE(status.st_mode) != 0o700:
            os.fchmod(place, 0o700)
    finally:
        os.close(place)


def roots_of(ending: sessions.Ending, seconds: float) -> list[dict[str, Any]]:
    """Return what the child has found.

    :param seconds: its limit
    :raises InspectionFailed: it told why not, or it ended otherwise
    """
    if ending.why == 'timeout':
        raise base.InspectionFailed(
            'timeout',
            f'the inspection took longer than {seconds:.0f} s and was killed; see whether '
            'the host is busy, or raise [guest_os_libguestfs] timeout',
        )
    if ending.why == 'stopped':
        raise base.InspectionFailed('stopped', 'the exporter stops')
    if ending.why or ending.status:
        last = ending.said.strip().rpartition('\n')[2] or 'without a word'
        how = ending.why or f'status {ending.status}'
        raise base.InspectionFailed('crash', f'the inspection ended by {how}: {base.clean(last)}')
    return _decoded(ending.output)


def _decoded(output: bytes) -> list[dict[str, Any]]:
    try:
        answer = json.loads(output)
    except (ValueError, RecursionError) as exc:
        raise base.InspectionFailed('crash', f'the inspection gave no JSON: {exc}') from exc
    if isinstance(answer, dict):
        reason, text = answer.get('failure'), base.clean(answer.get('text'))
        if reason is not None:
            known = isinstance(reason, str) and reason in _REASONS
            raise base.InspectionFailed(str(reason) if known else 'crash', text)
        roots = answer.get('roots')
        if isinstance(roots, list) and all(isinstance(root, dict) for root in roots):
            return roots
    raise base.InspectionFailed('crash', 'the inspection gave JSON of another form')
