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

"""What every source is: something that reads one kind of fact from this host."""

import abc
from typing import Any
from typing import ClassVar

from oslo_config import cfg

from oie import model


class Source(abc.ABC):
    """Reads one field of the snapshot.

    A source is built with its own option group only and keeps what it must
    remember between two cycles (connections, caches). Its failures become
    readings: ``read`` never raises for what the host does.
    """

    GROUP: ClassVar[str]
    OPTS: ClassVar[tuple[cfg.Opt, ...]] = ()

    @abc.abstractmethod
    def read(self) -> model.Reading[Any]:
        """Return the present facts, or the last good ones with the error."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of connections and threads; must return at once."""
