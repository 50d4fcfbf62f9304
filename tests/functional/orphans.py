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

"""Reaping of the QEMUs that libvirtd detached from itself.

Such an orphan goes to process 1, and in many containers that is slow to reap: the zombie counts as
alive for libvirt, which then takes seconds to end a guest (1 to 2 s here, November 2026). The test
process takes the orphans instead.
"""

import ctypes
import functools
import os
import threading
import time

from tests.functional import processes

_PR_SET_CHILD_SUBREAPER = 36


@functools.cache
def adopt() -> None:
    """Make this process the parent of its orphaned descendants, and reap the QEMUs among them."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise processes.LabError(f'prctl: {os.strerror(ctypes.get_errno())}')
    threading.Thread(target=_reap_for_good, name='reaper', daemon=True).start()


def _reap_for_good() -> None:
    while True:
        for pid in _read_children():
            if _is_dead_qemu(pid):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.1)


def _read_children() -> list[int]:
    tasks = os.listdir('/proc/self/task')
    return [
        int(pid) for task in tasks for pid in _read(f'/proc/self/task/{task}/children').split()
    ]


def _is_dead_qemu(pid: int) -> bool:
    status = _read(f'/proc/{pid}/stat')
    return '(qemu-system' in status and processes.process_state(pid) is None


def _read(path: str) -> str:
    try:
        with open(path, encoding='utf-8', errors='replace') as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return ''
