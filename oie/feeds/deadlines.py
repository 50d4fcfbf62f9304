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


"""Deadlines by an alarm, which ends whatever Python waits for; for the main thread alone.

Only what waits in a C library, such as the look-up of a name, goes on until it
returns: who must not wait for that runs us in a process, and kills it.
"""

from collections.abc import Iterator
import contextlib
import signal
import time
import types

from oie import exceptions

# An exception from an alarm is lost when it meets a destructor: the alarm comes again.
_AGAIN_SECONDS = 0.5
# setitimer(2) takes 0 for "never".
_AT_ONCE_SECONDS = 1e-6


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """End what runs within by a FeedError once the time is over.

    Deadlines may stand within others: the first one to come counts.

    :raises FeedError: the time is over
    """
    outer_seconds, outer_again = signal.getitimer(signal.ITIMER_REAL)
    if 0 < outer_seconds <= seconds:
        yield
        return
    is_running = True

    def end(number: int, frame: types.FrameType | None) -> None:
        if is_running:
            raise exceptions.FeedError(f'not done within {round(seconds, 1):g} s; raise timeout')

    started = time.monotonic()
    outer = signal.signal(signal.SIGALRM, end)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(seconds, _AT_ONCE_SECONDS), _AGAIN_SECONDS)
        yield
    finally:
        is_running = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, outer)
        if outer_seconds:
            left = outer_seconds - (time.monotonic() - started)
            signal.setitimer(signal.ITIMER_REAL, max(left, _AT_ONCE_SECONDS), outer_again)
