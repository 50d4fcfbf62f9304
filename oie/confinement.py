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

"""A process gives up, for good, what it does not need for the one thing it does.

All of it holds before the first byte of a stranger is read. Sources: prctl(2),
capabilities(7), capset(2), setrlimit(2), proc(5).
"""

import contextlib
import ctypes
import os
import pathlib
import resource
import signal

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522

_NICE = 10
_UMASK = 0o027
_LIMITS = {
    # 0.12 GiB are mapped before anything is read; a million IPv6 addresses take 0.3 more.
    resource.RLIMIT_AS: 2**30,
    resource.RLIMIT_CPU: 60,
    resource.RLIMIT_CORE: 0,
}


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (('version', ctypes.c_uint32), ('pid', ctypes.c_int))


class _CapabilityData(ctypes.Structure):
    _fields_ = (
        ('effective', ctypes.c_uint32),
        ('permitted', ctypes.c_uint32),
        ('inheritable', ctypes.c_uint32),
    )


def confine() -> None:
    """Lower priority and limits, drop all capabilities, and die with the parent.

    To be called while there is one thread: capabilities belong to threads.

    :raises OSError: the kernel refused one of these
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.nice(_NICE)
    os.umask(_UMASK)
    _die_first()
    libc = ctypes.CDLL(None, use_errno=True)
    _control(libc, _PR_SET_PDEATHSIG, signal.SIGKILL)
    _control(libc, _PR_SET_NO_NEW_PRIVS, 1)
    _drop_capabilities(libc)
    for limit, wanted in _LIMITS.items():
        _, most = resource.getrlimit(limit)
        value = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(limit, (value, value))


def _die_first() -> None:
    """When memory runs out, it shall be us and not the daemon."""
    with contextlib.suppress(OSError):
        pathlib.Path('/proc/self/oom_score_adj').write_text('1000', encoding='ascii')


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    # Kernels from 4.3 on know ambient capabilities; they go with the permitted ones anyway.
    with contextlib.suppress(OSError):
        _control(libc, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    nothing = (_CapabilityData * 2)()
    if libc.capset(ctypes.byref(header), nothing) and _holds_capabilities():
        number = ctypes.get_errno()
        raise OSError(number, f'capabilities cannot be dropped: {os.strerror(number)}')


def _holds_capabilities() -> bool:
    status = pathlib.Path('/proc/self/status').read_text(encoding='ascii', errors='replace')
    held = [line.split()[1] for line in status.splitlines() if line.startswith('CapPrm:')]
    return not held or int(held[0], 16) != 0


def _control(libc: ctypes.CDLL, option: int, argument: int) -> None:
    zero = ctypes.c_ulong(0)
    if libc.prctl(option, ctypes.c_ulong(argument), zero, zero, zero):
        number = ctypes.get_errno()
        raise OSError(number, f'prctl({option}, {argument}): {os.strerror(number)}')
