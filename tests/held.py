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

"""What this process holds: open files and threads."""

from collections.abc import Iterator
import contextlib
import os
import threading
import time

_SECONDS = 5.0


@contextlib.contextmanager
def nothing_more(*, but: str = '') -> Iterator[None]:
    """Check that nothing is held after the block that was not held before it.

    What is only passing is waited for: threads of tests before may still open and close
    files, and a thread that ends does so a moment after its last word.

    :param but: the name of threads that may be there
    """
    before = _held()
    yield
    deadline = time.monotonic() + _SECONDS
    while more := {one for one in _held() - before if one[1] != but}:
        assert time.monotonic() < deadline, f'still held: {sorted(more)}'
        time.sleep(0.02)


def _held() -> set[tuple[int, str]]:
    """Return the open files by number and target, the threads by number and name."""
    held = {(thread.ident or 0, thread.name) for thread in threading.enumerate()}
    for number in os.listdir('/proc/self/fd'):
        # That of the listing itself is closed by now.
        with contextlib.suppress(FileNotFoundError):
            held.add((int(number), os.readlink(f'/proc/self/fd/{number}')))
    return held
