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


"""What every driver is that knows the operating system of a guest.

A quick driver answers from what libvirt has told of the instance already. A slow
one asks the guest or reads its disk: it runs in a background thread, one
instance at a time, and never holds up a cycle.
"""

import abc
import re
import threading
from typing import Any
from typing import ClassVar

from oslo_config import cfg

from oie import exceptions
from oie import model

MAX_TEXT = 255
"""The longest text of an answer, in characters: Gnocchi's strings hold no more."""

MAX_NUMBER = 2**31 - 1

_NUMBER = re.compile('[0-9]{1,10}')
_REPLACEMENT = '\N{REPLACEMENT CHARACTER}'


class InspectionFailed(exceptions.SourceError):
    """A slow driver has no answer this time; what it knew before stays.

    :ivar reason: a short word of small letters and underscores; it becomes a label,
        so a driver has few of them
    :ivar retry: seconds after which to ask again; None leaves that to the reader
    """

    def __init__(self, reason: str, text: str, retry: float | None = None) -> None:
        super().__init__(text)
        self.reason = reason
        self.retry = retry


class GuestOsDriver(abc.ABC):
    """Knows, for some guests, which operating system they run.

    A driver is built with its own option group only, and with the URI of the
    hypervisor. What it returns is cleaned and gets the name of the driver as its
    source by whoever asks; a driver leaves ``source`` alone, and ``learned_at``
    too unless it answers from a cache of its own.

    :cvar IS_SLOW: whether ``read`` takes more than microseconds
    """

    OPTS: ClassVar[tuple[cfg.Opt, ...]] = ()
    IS_SLOW: ClassVar[bool] = False

    def __init__(self, options: Any = None, uri: str = '') -> None:
        self.options = options
        self.uri = uri
        self.stopping = threading.Event()

    @abc.abstractmethod
    def read(self, instance: model.Instance) -> model.GuestOs | None:
        """Return what runs in the guest, None when this driver cannot know.

        After None the next driver is asked.

        :raises InspectionFailed: it might know, but not now; the reason is counted
        :raises SourceError: the same, for reasons that have no name
        """

    def remembered(self, instance: model.Instance) -> model.GuestOs | None:
        """Return what a slow driver keeps from earlier inspections, at once.

        Neither guest nor disk is asked. ``oie-pollster`` without an exporter
        shows this, and nothing else of slow drivers.
        """
        return None

    def close(self) -> None:
        """Give up what is under way, called from another thread; must return at once."""
        self.stopping.set()


def clean(text: object) -> str:
    """Return a stranger's text on one line, encodable and short; ``unknown`` for none.

    What does not print (control characters, lone surrogates, line breaks) becomes
    U+FFFD, so that nobody can forge a line or hide a part of a name.
    """
    if not isinstance(text, str) or not text.strip():
        return model.UNKNOWN
    cut = text.strip()[:MAX_TEXT]
    if cut.isprintable():
        return cut
    return ''.join(each if each.isprintable() else _REPLACEMENT for each in cut)


def number(value: object) -> int | None:
    """Return a part of a version as an integer, None for anything that is none."""
    if isinstance(value, str):
        value = int(value) if _NUMBER.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= MAX_NUMBER else None


def cleaned(found: model.GuestOs, source: str, learned_at: float) -> model.GuestOs:
    """Return an answer that is safe to publish, with its source and time."""
    return model.GuestOs(
        family=clean(found.family),
        distro=clean(found.distro),
        info=clean(found.info),
        product_name=clean(found.product_name),
        product_variant=clean(found.product_variant),
        version=clean(found.version),
        version_major=number(found.version_major),
        version_minor=number(found.version_minor),
        source=source,
        learned_at=learned_at if found.learned_at is None else found.learned_at,
    )
