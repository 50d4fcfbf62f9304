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

"""What the web configuration file demands of a request, up to date at every one."""

import asyncio
from collections.abc import Callable
import dataclasses
import logging
import os
import ssl
import time

from oie import exceptions
from oie import failures
from oie.web import authentication
from oie.web import messages
from oie.web import tls
from oie.web import web_file

LOG = logging.getLogger(__name__)

# A look at the files costs four system calls; more often than this nobody renews them.
LOOK_SECONDS = 1.0
_UNAUTHORIZED = messages.sentence(
    401, '', ('WWW-Authenticate', 'Basic realm="oie", charset="UTF-8"')
)

Fingerprint = tuple[int, ...] | None


@dataclasses.dataclass(frozen=True, slots=True)
class Protection:
    """One state of the file that was good as a whole."""

    file: web_file.WebFile
    context: ssl.SSLContext | None

    @property
    def authenticates(self) -> bool:
        """Whether only who is known gets an answer."""
        config = self.file.tls
        return bool(self.file.users) or (
            config is not None and config.client_auth_type == web_file.CLIENT_AUTH_TYPES[-1]
        )

    @property
    def is_complete(self) -> bool:
        """Whether, besides, nobody reads along."""
        return self.context is not None and self.authenticates


class Bucket:
    """Tokens: one more in every interval, so many at most, one for each request."""

    def __init__(self, limit: web_file.RateLimit, clock: Callable[[], float]) -> None:
        self.limit = limit
        self._clock = clock
        self._tokens = float(limit.burst)
        self._at = clock()

    def take(self) -> bool:
        """Return whether there was a token."""
        now = self._clock()
        grown = self._tokens + (now - self._at) / self.limit.interval
        self._tokens, self._at = min(grown, float(self.limit.burst)), now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Guard:
    """Keeps the last good state of the file and judges requests by it.

    Only the loop's thread calls it once the server runs; others may read ``is_ok``,
    ``errors`` and ``is_complete``.

    :raises WebError: the file, or one that it names, is wrong at the start
    """

    def __init__(
        self,
        path: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        basic: authentication.BasicAuthentication | None = None,
    ) -> None:
        self.is_ok = True
        self.errors = 0
        self._path = path
        self._clock = clock
        self._basic = basic or authentication.BasicAuthentication()
        self._failures = failures.LastingFailures(LOG, level=logging.ERROR)
        self._bucket: Bucket | None = None
        self._seen: dict[str, Fingerprint] = {}
        self._state = self._use(self._load())
        self._looked_at = clock()

    @property
    def is_complete(self) -> bool:
        """Whether there are both TLS and authentication."""
        return self._state.is_complete

    @property
    def authenticates(self) -> bool:
        """Whether whoever is welcome has shown who it is."""
        return self._state.authenticates

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """What goes with every answer."""
        return self._state.file.headers

    def channel(self) -> tls.Channel | None:
        """Return the TLS of a new connection, None where the file wants none."""
        state = self._current()
        if state.context is None or state.file.tls is None:
            return None
        return tls.Channel(state.context, state.file.tls.client_allowed_sans)

    def is_outdated(self, channel: tls.Channel) -> bool:
        """Return whether a connection was let in by rules that hold no more."""
        return channel.context is not self._state.context

    def judge(
        self, request: messages.Request
    ) -> 'messages.Response | asyncio.Future[bool] | None':
        """Return None where the request is welcome, a refusal, or what will tell whether it is."""
        state = self._current()
        if self._bucket is not None and not self._bucket.take():
            return messages.sentence(429, '', ('Retry-After', '1'))
        if not state.file.users:
            return None
        try:
            verdict = self._basic.verify(state.file.users, request)
        except authentication.Busy:
            text = 'too many passwords wait to be verified'
            return messages.sentence(429, text, ('Retry-After', '1'))
        if isinstance(verdict, asyncio.Future):
            return verdict
        return None if verdict else _UNAUTHORIZED

    def unauthorized(self) -> messages.Response:
        """Return what a wrong password is answered."""
        return _UNAUTHORIZED

    def close(self) -> None:
        """End the thread that verifies passwords."""
        self._basic.close()

    # --- the file -----------------------------------------------------------

    def _current(self) -> Protection:
        now = self._clock()
        if now - self._looked_at < LOOK_SECONDS:
            return self._state
        self._looked_at = now
        if any(_fingerprint(path) != seen for path, seen in self._seen.items()):
            self._reload()
        return self._state

    def _reload(self) -> None:
        try:
            loaded = self._load()
            if (loaded.context is None) is not (self._state.context is None):
                raise exceptions.WebError('TLS is switched on and off by a restart alone')
        except exceptions.WebError as exc:
            self.is_ok = False
            self.errors += 1
            self._failures.report(self._path, 'not used, what it said before holds', exc)
            return
        self.is_ok = True
        self._failures.settle(self._path, 'not used, what it said before holds')
        self._state = self._use(loaded)
        LOG.info('%s: read anew', self._path)

    def _load(self) -> Protection:
        """Return what the files say; remember how they looked just before they were read.

        :raises WebError: one of them is wrong
        """
        reader = web_file.Reader(self._path)
        before = {path: _fingerprint(path) for path in (self._path, *self._seen)}
        try:
            file = reader.read()
            return Protection(file, None if file.tls is None else tls.context(file.tls))
        finally:
            # A file that is named for the first time counts as it is now.
            self._seen = {
                path: before[path] if path in before else _fingerprint(path)
                for path in reader.seen
            }

    def _use(self, loaded: Protection) -> Protection:
        limit = loaded.file.rate_limit
        if limit is None:
            self._bucket = None
        elif self._bucket is None or self._bucket.limit != limit:
            self._bucket = Bucket(limit, self._clock)
        own = tls.notes(loaded.file.tls) if loaded.file.tls else ()
        for note in (*loaded.file.notes, *own):
            LOG.warning('%s: %s', self._path, note)
        return loaded


def _fingerprint(path: str) -> Fingerprint:
    """Return what changes when a file is written, replaced or made readable; None without it."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
