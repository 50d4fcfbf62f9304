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

"""What the service manager is told: ready, alive, stopping. Source: sd_notify(3)."""

from collections.abc import Callable
from collections.abc import MutableMapping
import contextlib
import os
import socket

# Of three cycles that should end in a period one must: a slow one is no reason to be killed.
_CYCLES_IN_A_PERIOD = 3
_KIND = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC


class ServiceManager:
    """Sends datagrams to the socket that systemd named; without one it does nothing.

    The variables are taken out of the environment, so that no child speaks in our name.

    :param environment: NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self._address = environment.pop('NOTIFY_SOCKET', '')
        microseconds = environment.pop('WATCHDOG_USEC', '')
        pid = environment.pop('WATCHDOG_PID', '') or str(os.getpid())
        is_ours = microseconds.isdecimal() and pid == str(os.getpid())
        self.watchdog = int(microseconds) / 1e6 if is_ours else 0.0

    def notify(self, *lines: str) -> None:
        """Send lines such as ``READY=1``; nobody there to hear them is no failure of ours."""
        if self._address[:1] not in ('/', '@'):
            return
        # An abstract address begins with a null byte where text writes @.
        address = f'\0{self._address[1:]}' if self._address[0] == '@' else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, _KIND) as ours:
            ours.setblocking(False)
            ours.sendto('\n'.join(lines).encode(errors='replace'), address)


class Heartbeat:
    """Tells the service manager what cycles do, whenever it is asked to look.

    :param interval: seconds from one cycle to the next
    :param ended: how many cycles ended, well or not
    :param completed: something that is another object after each cycle that was published
    :param status: what to say of the service in one line
    """

    def __init__(
        self,
        manager: ServiceManager,
        *,
        interval: float,
        ended: Callable[[], int],
        completed: Callable[[], object | None],
        status: Callable[[], str],
    ) -> None:
        self._manager = manager
        self._interval = interval
        self._ended = ended
        self._completed = completed
        self._status = status
        self._is_ready = False
        self._seen: object | None = None
        self._said = ''

    def beat(self) -> None:
        """Say READY once the first cycle ended, WATCHDOG for each that was completed since.

        A cycle that fails for a reason of ours is not completed; one in which libvirt does not
        answer is, because a restart would not help.
        """
        if not self._is_ready:
            if not self._ended():
                return
            self._is_ready = True
            self._manager.notify('READY=1', *self._longer_watchdog())
        latest = self._completed()
        if latest is not None and latest is not self._seen:
            self._seen = latest
            self._manager.notify('WATCHDOG=1')
        self._say_status()

    def stop(self) -> None:
        """Say that the end has begun."""
        self._manager.notify('STOPPING=1', 'STATUS=stopping')

    def _longer_watchdog(self) -> tuple[str, ...]:
        """Return the line that asks for more time where cycles are rare."""
        needed = _CYCLES_IN_A_PERIOD * self._interval
        if not self._manager.watchdog or needed <= self._manager.watchdog:
            return ()
        return (f'WATCHDOG_USEC={int(needed * 1e6)}',)

    def _say_status(self) -> None:
        status = ' '.join(self._status().split())
        if status != self._said:
            self._said = status
            self._manager.notify(f'STATUS={status}')
