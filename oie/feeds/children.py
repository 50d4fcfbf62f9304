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

"""Runs a worker process for a job: asked, listened to, and ended whatever it does."""

from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import logging
import os
import re
import selectors
import signal
import subprocess  # noqa: S404, the program and its arguments are our own
import sys
import threading
import time

from oie import exceptions
from oie.feeds import wire

LOG = logging.getLogger(__name__)

COMMAND = (sys.executable, '-m', 'oie.feeds.worker')

# A worker ends itself in time, unless a driver swallows that or hangs in a library.
_GRACE_SECONDS = 10.0
_REAP_SECONDS = 5.0
# How soon a stop is noticed, and how soon the end of a process.
_TICK_SECONDS = 0.1
_SHORT_TICK_SECONDS = 0.005
_MOST_READ_BYTES = 2**18
_MOST_SAID_BYTES = 2**12
_QUERY = re.compile(r'\?[^\s\'"<>]+?(?=[:;,.)]*(?:[\s\'"<>]|$))')
# A proxy from the environment must not count, one thread is enough for sorting, and each more
# would take its share of the memory a worker may map.
_KEPT_VARIABLES = ('PATH', 'LANG', 'LC_ALL', 'TZ', 'PYTHONPATH', 'PYTHONHOME')
_SET_VARIABLES = {'OPENBLAS_NUM_THREADS': '1', 'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1'}


class NotStarted(exceptions.FeedError):
    """There is no worker, so nobody was asked for anything."""


class Stopped(Exception):
    """The exporter stops; how the job would have ended is not known."""


class Runner:
    """Runs workers, for several threads at once; none of them outlives its job.

    :param command: the worker
    :param grace: seconds that a worker has beyond its own deadline
    """

    def __init__(self, command: Sequence[str] = COMMAND, *, grace: float = _GRACE_SECONDS) -> None:
        self._command = tuple(command)
        self._grace = grace
        # Killed, but held up in the kernel, say by a file server that is gone.
        self._stuck: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, job: wire.Job, stop: threading.Event) -> wire.Answer:
        """Return the worker's answer.

        The calling thread must live on until then: the kernel ends the worker with it.

        :param stop: ends the worker when it is set
        :raises NotStarted: there are no resources for it, or its predecessor cannot be ended
        :raises FeedError: no proper answer came in time
        :raises Stopped: the event was set
        """
        worker = _Worker(self._start(job), wire.encode_job(job), _most_bytes(job))
        try:
            worker.talk(time.monotonic() + job.seconds + self._grace, stop)
        finally:
            if not worker.end():
                self._stuck[job.feed] = worker.process
        return worker.answer()

    def _start(self, job: wire.Job) -> subprocess.Popen[bytes]:
        stuck = self._stuck.pop(job.feed, None)
        if stuck is not None and stuck.poll() is None:
            self._stuck[job.feed] = stuck
            raise NotStarted(f'the last worker was killed but does not end (pid {stuck.pid})')
        try:
            return subprocess.Popen(  # noqa: S603, see above
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                # Not the directory we happen to be in: python -m would import from it.
                cwd='/',
                env=_environment(os.environ),
                start_new_session=True,
            )
        except OSError as exc:
            raise NotStarted(f'no worker can be started: {exc}') from exc


class _Worker:
    """One worker under way."""

    def __init__(self, process: subprocess.Popen[bytes], question: bytes, most: int) -> None:
        self.process = process
        self._question = memoryview(question)
        self._most = most
        self._received = bytearray()
        self._said = b''

    def talk(self, deadline: float, stop: threading.Event) -> None:
        """Listen until the worker has ended.

        :raises FeedError: it has not in time, or it says too much
        :raises Stopped: the event was set
        """
        with selectors.DefaultSelector() as selector:
            for stream, event, step in (
                (self.process.stdin, selectors.EVENT_WRITE, self._ask),
                (self.process.stdout, selectors.EVENT_READ, self._receive),
                (self.process.stderr, selectors.EVENT_READ, self._listen),
            ):
                assert stream is not None  # noqa: S101, all three are pipes
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, event, (stream, step))
            while selector.get_map():
                _check_time(deadline, stop)
                for key, _ in selector.select(_TICK_SECONDS):
                    stream, step = key.data
                    if step(key.fd):
                        selector.unregister(stream)
                        stream.close()
        while not _has_ended(self.process.pid):
            _check_time(deadline, stop)
            stop.wait(_SHORT_TICK_SECONDS)

    def _ask(self, fd: int) -> bool:
        """Write some of the question; tell whether that was all, as the next two do."""
        with contextlib.suppress(BrokenPipeError):
            self._question = self._question[os.write(fd, self._question) :]
            return not self._question
        return True

    def _receive(self, fd: int) -> bool:
        piece = os.read(fd, _MOST_READ_BYTES)
        self._received += piece
        if len(self._received) > self._most:
            raise exceptions.FeedError(f'the worker gave more than {self._most} bytes')
        return not piece

    def _listen(self, fd: int) -> bool:
        piece = os.read(fd, _MOST_SAID_BYTES)
        self._said = (self._said + piece)[-_MOST_SAID_BYTES:]
        return not piece

    def end(self) -> bool:
        """Kill what is left of the worker and of its children; tell whether that worked."""
        # The number of the group is nobody else's while its leader is not waited for.
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        try:
            self.process.wait(_REAP_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        return True

    def answer(self) -> wire.Answer:
        """Return what the worker said before it ended.

        :raises FeedError: it failed
        """
        said = without_queries(self._said.decode('utf-8', 'replace')).strip()
        if said:
            LOG.debug('a worker said: %r', said)
        if self.process.returncode:
            last_line = said.rpartition('\n')[2] or 'without a word'
            how = _ending(self.process.returncode)
            raise exceptions.FeedError(f'the worker was ended by {how}: {last_line}')
        return wire.decode_answer(self._received)


def without_queries(text: str) -> str:
    """Return a text whose URLs have lost their queries, which may hold keys."""
    return _QUERY.sub('?...', text)


def _check_time(deadline: float, stop: threading.Event) -> None:
    if stop.is_set():
        raise Stopped
    if time.monotonic() > deadline:
        raise exceptions.FeedError('the worker did not end in time and was killed')


def _has_ended(pid: int) -> bool:
    """Tell whether a child has ended; it stays a zombie, so that its number stays its own."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _ending(status: int) -> str:
    if status > 0:
        return f'itself with status {status}'
    names = {number.value: number.name for number in signal.Signals}
    return names.get(-status, f'signal {-status}')


def _most_bytes(job: wire.Job) -> int:
    return wire.most_answer_bytes(int(job.settings['max_entries']))


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    kept = {name: ours[name] for name in _KEPT_VARIABLES if name in ours}
    return {**kept, **_SET_VARIABLES}
