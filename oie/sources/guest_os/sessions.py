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

"""Runs a program in a session of its own: asked, listened to, and ended with all it started."""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import os
import pathlib
import selectors
import signal
import subprocess  # noqa: S404, the program and its arguments are our own
import threading
import time

from oie import exceptions

_MOST_OUTPUT_BYTES = 2**16
_MOST_SAID_BYTES = 2**12
_MOST_READ_BYTES = 2**14
# How soon a stop is noticed, and how soon an end.
_TICK_SECONDS = 0.1
_SHORT_TICK_SECONDS = 0.01
_KILL_SECONDS = 5.0


class NotEnded(exceptions.SourceError):
    """A program was killed and is still there: the kernel holds it, say for a dead file server."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ending:
    """How a program ended.

    :ivar output: what it wrote to stdout, at most 64 KiB
    :ivar said: the end of what it wrote to stderr
    :ivar status: of its exit, negative for a signal; None when it was killed by us
    :ivar why: why it was killed: ``timeout``, ``stopped`` or ``output``
    """

    output: bytes
    said: str
    status: int | None
    why: str = ''


class Runner:
    """Runs one program at a time; nothing of it outlives run()."""

    def __init__(self) -> None:
        self._stuck: subprocess.Popen[bytes] | None = None

    def run(
        self,
        command: Sequence[str],
        question: bytes,
        *,
        environment: Mapping[str, str],
        seconds: float,
        stop: threading.Event,
    ) -> Ending:
        """Return how the program ended, be it by itself or because time was up.

        :param question: what it reads from stdin
        :param stop: ends it when it is set
        :raises NotEnded: the last one cannot be ended
        :raises OSError: it cannot be started
        """
        if self._stuck is not None and self._stuck.poll() is None:
            raise NotEnded(f'the last program was killed but does not end (pid {self._stuck.pid})')
        self._stuck = None
        process = subprocess.Popen(  # noqa: S603, see above
            tuple(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd='/',
            env=dict(environment),
            start_new_session=True,
        )
        talk = _Talk(process, question)
        why = 'error'
        try:
            why = talk.listen(time.monotonic() + seconds, stop)
        finally:
            if not _end(process):
                self._stuck = process
        status = None if why else process.returncode
        return Ending(bytes(talk.output), talk.said.decode('utf-8', 'replace'), status, why)


class _Talk:
    """The pipes of one program."""

    def __init__(self, process: subprocess.Popen[bytes], question: bytes) -> None:
        self.output = bytearray()
        self.said = b''
        self._process = process
        self._question = memoryview(question)

    def listen(self, deadline: float, stop: threading.Event) -> str:
        """Return nothing when the program has ended, else why it must be ended."""
        process = self._process
        with selectors.DefaultSelector() as selector:
            for stream, event, step in (
                (process.stdin, selectors.EVENT_WRITE, self._ask),
                (process.stdout, selectors.EVENT_READ, self._receive),
                (process.stderr, selectors.EVENT_READ, self._hear),
            ):
                assert stream is not None  # noqa: S101, all three are pipes
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, event, (stream, step))
            while not _has_ended(process.pid):
                why = self._why_not(deadline, stop)
                if why:
                    return why
                self._turn(selector, _TICK_SECONDS)
            # What it started may hold the pipes open, so their end is not waited for.
            while self._turn(selector, 0.0):
                why = self._why_not(deadline, stop)
                if why:
                    return why
        return ''

    def _why_not(self, deadline: float, stop: threading.Event) -> str:
        if stop.is_set():
            return 'stopped'
        if len(self.output) > _MOST_OUTPUT_BYTES:
            return 'output'
        return 'timeout' if time.monotonic() > deadline else ''

    def _turn(self, selector: selectors.BaseSelector, seconds: float) -> bool:
        """Read and write what can be; tell whether anything could."""
        if not selector.get_map():
            time.sleep(min(seconds, _SHORT_TICK_SECONDS))
            return False
        ready = selector.select(seconds)
        for key, _ in ready:
            stream, step = key.data
            if step(key.fd):
                selector.unregister(stream)
                stream.close()
        return bool(ready)

    def _ask(self, fd: int) -> bool:
        """Write some of the question; tell whether that was all, as the next two do."""
        with contextlib.suppress(BrokenPipeError):
            self._question = self._question[os.write(fd, self._question) :]
            return not self._question
        return True

    def _receive(self, fd: int) -> bool:
        piece = os.read(fd, _MOST_OUTPUT_BYTES + 1)
        self.output += piece
        return not piece

    def _hear(self, fd: int) -> bool:
        piece = os.read(fd, _MOST_READ_BYTES)
        self.said = (self.said + piece)[-_MOST_SAID_BYTES:]
        return not piece


def _has_ended(pid: int) -> bool:
    """Tell whether a child has ended; it stays a zombie, so that its number stays its own."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _end(process: subprocess.Popen[bytes]) -> bool:
    """Kill what is left of the whole session; tell whether nothing is."""
    deadline = time.monotonic() + _KILL_SECONDS
    # The number is nobody else's while the leader of the session is not waited for.
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    while left := tuple(members(process.pid)):
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            break
        time.sleep(_SHORT_TICK_SECONDS)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(0.0 if left else _KILL_SECONDS)
    return not left and process.returncode is not None


def members(session: int) -> Iterator[int]:
    """Give the living processes of a session. Source: proc(5), stat."""
    for name in os.listdir('/proc'):
        if not name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            text = pathlib.Path('/proc', name, 'stat').read_bytes()
            state, _, _, number = text.rpartition(b')')[2].split()[:4]
            if int(number) == session and state not in b'ZX':
                yield int(name)
