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

"""Who talked to whom it should not → the threat log, without ever holding up who tells it.

A thread of its own writes. The first sighting becomes a line at once, repeats a
sum per window (``count=``, the intervals in which it was seen again), a burst a
line ``tag=DROPPED domain= uuid= project= user= reason= count=``. All lines
begin with the same five fields, so a reader may skip the tags it does not know.
"""

from collections.abc import Callable
from collections.abc import Iterable
import enum
import logging
import queue
import threading
import time
from typing import Any
from typing import TypeAlias

from oslo_config import cfg

from oie import config
from oie import model
from oie.outputs import threat_lines
from oie.outputs import threat_writer
from oie.outputs import throttling

LOG = logging.getLogger(__name__)

GROUP = cfg.OptGroup(
    'threat_log',
    title='Threat log',
    help='A file with a line for each contact of an instance with a listed address. It holds '
    'addresses that tenants talk to, which are personal data: keep it no longer than needed.',
)
OPTS = (
    cfg.BoolOpt(
        'enabled',
        default=False,
        help='Whether the threat log is written.',
    ),
    cfg.Opt(
        'path',
        type=config.FilePath(),
        default='/var/log/oie/threat.log',
        help='The file, which is made with mode 0640. It may be rotated by renaming (SIGHUP, or '
        'the next line, opens the new one) or by copytruncate. A symbolic link is not followed. '
        'Empty: no file, for the journal alone.',
    ),
    cfg.StrOpt(
        'format',
        default='reference',
        choices=[
            ('reference', 'Time and key=value with a space between; odd characters as \\xHH.'),
            ('json', 'One JSON object a line, with the same keys and time.'),
        ],
        help='How a line looks.',
    ),
    cfg.Opt(
        'window',
        type=config.Duration(maximum=86400),
        default='5m',
        help='A contact is written when it is first seen; while it lasts, one line per window '
        'says in how many intervals it was seen again (count=). What was not seen for a whole '
        'window is new again. 0 writes a line in every interval.',
    ),
    cfg.IntOpt(
        'max_lines_per_second',
        default=100,
        min=1,
        help='How many lines may be written a second, in the long run; ten seconds\' worth of '
        'them may come at once. The rest is dropped, counted by a metric and told by a line.',
    ),
    cfg.BoolOpt(
        'journal',
        default=False,
        help='Whether each line also goes to the log of the exporter, as [THREAT] line of the '
        'level notice. It shows there when [DEFAULT] oie_log_level is notice or more.',
    ),
)

Contact = threat_lines.Contact
Outbound = threat_lines.Outbound
HostThreat = threat_lines.HostThreat
Record = threat_lines.Record

# Some 20 MB of records, when the disk hangs.
MOST_WAITING = 50000
# A disk that keeps one message busy for longer is not writable, whatever it said last.
STUCK_SECONDS = 5.0


class _Order(enum.Enum):
    REOPEN = enum.auto()
    STOP = enum.auto()


_Batch: TypeAlias = tuple[threat_writer.Moment, tuple[Record, ...]]


class ThreatLog:
    """The threat log; it works from the moment it is made until close().

    :param options: our group ``[threat_log]``
    :param clock: nanoseconds since the epoch
    :param monotonic: seconds that never go back
    """

    def __init__(
        self,
        options: Any,
        *,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._losses = throttling.Losses()
        self._writer = threat_writer.Writer(options, self._losses, monotonic)
        # Of the queues this one alone may be used in a signal handler.
        self._inbox: queue.SimpleQueue[_Batch | _Order] = queue.SimpleQueue()
        self._room = MOST_WAITING
        self._room_lock = threading.Lock()
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._run, name='oie-threat-log', daemon=True)
        self._thread.start()

    def write(self, records: Iterable[Record]) -> None:
        """Hand over the sightings of one interval, each once; what does not fit is counted."""
        moment = self._moment()
        batch = tuple(records)
        with self._room_lock:
            fitting = batch[: self._room if self._thread.is_alive() else 0]
            self._room -= len(fitting)
        if len(fitting) < len(batch):
            self._losses.add(throttling.QUEUE, moment.monotonic, len(batch) - len(fitting))
        if batch:  # even if nothing fits: then it is the losses that the writer has to tell
            self._inbox.put((moment, fitting))

    def skip(self, number: int) -> None:
        """Count sightings that nobody made records of, because they are too many."""
        moment = self._moment()
        self._losses.add(throttling.QUEUE, moment.monotonic, number)
        self._inbox.put((moment, ()))

    def reopen(self) -> None:
        """Open the file anew, soon; this may be called in a signal handler."""
        self._inbox.put(_Order.REOPEN)

    def close(self, timeout: float = 2.0) -> None:
        """Write what is left, for ``timeout`` seconds at most."""
        self._inbox.put(_Order.STOP)
        self._thread.join(timeout)
        if self._thread.is_alive():
            LOG.warning('threat log: the disk is too slow; what waits for it is lost')

    def health(self) -> model.ThreatLogHealth:
        """Return what was written and left out; it waits for nothing."""
        return model.ThreatLogHealth(
            lines=self._writer.lines,
            dropped=self._losses.totals(),
            is_writable=self._writer.is_writable
            and self._thread.is_alive()
            and not self._is_stuck,
        )

    @property
    def _is_stuck(self) -> bool:
        since = self._busy_since
        return since is not None and self._monotonic() - since > STUCK_SECONDS

    def _moment(self) -> threat_writer.Moment:
        return threat_writer.Moment(self._clock(), self._monotonic())

    def _run(self) -> None:
        message: _Batch | _Order | None = _Order.REOPEN
        while message is not _Order.STOP:
            self._busy_since = self._monotonic()
            self._handle(message)
            self._busy_since = None
            message = self._next()
        self._writer.finish(self._moment())

    def _handle(self, message: '_Batch | _Order | None') -> None:
        if message is None:
            self._writer.tick(self._moment())
        elif message is _Order.REOPEN:
            self._writer.reopen()
        elif not isinstance(message, _Order):
            moment, records = message
            self._writer.take(moment, records)
            with self._room_lock:
                self._room += len(records)

    def _next(self) -> '_Batch | _Order | None':
        """Return the next message, None when something is due before one comes."""
        try:
            return self._inbox.get(timeout=self._writer.patience(self._monotonic()))
        except queue.Empty:
            return None
