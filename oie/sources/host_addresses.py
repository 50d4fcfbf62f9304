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

"""The addresses that this host has on some of its interfaces, as they are right now.

Source: RTM_GETADDR of rtnetlink(7) and the flags of the interface in sysfs. No
right is needed.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import pathlib
import socket

from oie import exceptions
from oie.sources import neighbours

SYSFS = '/sys/class/net'
IFF_UP = 0x1


class HostAddresses:
    """Reads the addresses of interfaces that are administratively up.

    An interface that does not exist, now, has no addresses: it may come later.

    :param interfaces: their names
    """

    def __init__(self, interfaces: Sequence[str], *, sysfs: str = SYSFS) -> None:
        self._interfaces = interfaces
        self._sysfs = pathlib.Path(sysfs)

    def read(self) -> tuple[str, ...]:
        """Return the addresses in canonical text, each once.

        :raises SourceError: they could not be read, or not all of them
        """
        indexes = set(self._indexes())
        with neighbours.NeighbourSocket() as rtnetlink:
            found = rtnetlink.addresses()
        return tuple(dict.fromkeys(str(each.ip) for each in found if each.interface in indexes))

    def _indexes(self) -> Iterator[int]:
        for name in self._interfaces:
            try:
                flags = (self._sysfs / name / 'flags').read_text(encoding='ascii')
                if int(flags, 16) & IFF_UP:
                    yield socket.if_nametoindex(name)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as exc:
                raise exceptions.SourceError(f'interface {name}: {exc}') from exc
