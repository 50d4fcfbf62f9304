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

"""What every zone map is: something that knows whose a conntrack zone is.

A zone is a number from 0 to 65535 that keeps equal connections of one kernel
table apart. Where each Neutron port has a zone of its own, the zone of an entry
says whose it is, whatever the addresses.
"""

import abc
from collections.abc import Mapping
from typing import Any
from typing import ClassVar

from oslo_config import cfg

from oie import config

# Seconds, where a driver has no options of its own.
REFRESH = 10.0
MAX_AGE = 300.0

# For drivers that ask somebody.
OPTS = (
    cfg.Opt(
        'timeout',
        type=config.Duration(minimum=0.1, maximum=60),
        default='3s',
        help='How long one reading of the map may take; a cycle may wait so long. When it takes '
        'longer the last map stays, and after failures the pauses between attempts grow.',
    ),
    cfg.Opt(
        'refresh',
        type=config.Duration(minimum=10, maximum=3600),
        default='10s',
        help='How often the map is read. A zone is given to the next port as soon as it is free '
        '(within a second), so an older map leaves more connections without an owner.',
    ),
    cfg.Opt(
        'max_age',
        type=config.Duration(minimum=10, maximum=86400),
        default='5m',
        help='How old the last good map may become while it cannot be read anew, at least two '
        'refreshes. An older one is not used: only an address that one instance alone has then '
        'tells the owner of a connection.',
    ),
)


class ZoneMap(abc.ABC):
    """Knows which conntrack zone of this host belongs to which Neutron port.

    A map is built with its own option group only. Its attributes tell of the
    last good reading: ``conflicts`` counts the zones left out because more than
    one claims them, ``malformed`` the ports left out because their zone is no
    usable number.
    """

    OPTS: ClassVar[tuple[cfg.Opt, ...]] = ()

    def __init__(self, options: Any = None) -> None:
        self.options = options
        self.refresh: float = getattr(options, 'refresh', REFRESH)
        self.max_age: float = getattr(options, 'max_age', MAX_AGE)
        self.conflicts = 0
        self.malformed = 0

    @abc.abstractmethod
    def is_kept_here(self) -> bool:
        """Tell whether this host keeps such a map.

        :raises SourceError: it cannot be told
        """

    @abc.abstractmethod
    def read(self) -> Mapping[int, str] | None:
        """Return the whole map, from zone to Neutron port uuid.

        It is empty when no port has a zone and None when nobody gives ports
        zones. It is never a part of the map.

        :raises SourceError: the map cannot be read
        """
