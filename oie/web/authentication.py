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

"""User and password of a request -> welcome or not, by bcrypt and off the loop.

bcrypt is slow on purpose: 0.1 s at cost 10. So one thread computes, few may wait for
it, fewer of one address, and who was right once is remembered. The thread lets
others run meanwhile, since the library gives up the interpreter's lock.
"""

import asyncio
import base64
import binascii
import collections
from collections.abc import Callable
from collections.abc import Mapping
import concurrent.futures
import hashlib
import hmac
import os

from oie.web import messages

MOST_HEADER_CHARACTERS = 1024
MOST_WAITING = 16
MOST_WAITING_PER_PEER = 4
REMEMBERED = 100
# bcrypt sees no more of a password; some versions of the library cut it off, some raise.
_MOST_PASSWORD_BYTES = 72
# Salt and digest of nothing that anybody knows.
_NOBODY = 'C6UzMDM.H6dfI/f/IKcEeO7RAl0/8BX9oAJcEyRPZ0WsZEaBrsVzy'

Check = Callable[[bytes, bytes], bool]
Verdict = bool | asyncio.Future[bool]


class Busy(Exception):
    """Too many wait for an answer already."""


class BasicAuthentication:
    """Verifies passwords; only the loop's thread calls it.

    The key under which a success is remembered is made of user, hash and password, the
    length of each before it: joined plainly, one could pass for another
    (CVE-2022-46146). So a changed hash ends what the old one allowed.
    """

    def __init__(self, check: Check | None = None) -> None:
        self._check = check or _bcrypt
        self._secret = os.urandom(32)
        self._remembered: collections.OrderedDict[bytes, None] = collections.OrderedDict()
        self._waiting: dict[bytes, asyncio.Future[bool]] = {}
        self._by_peer: collections.Counter[str] = collections.Counter()
        self._worker: concurrent.futures.ThreadPoolExecutor | None = None

    def verify(self, users: Mapping[str, str], request: messages.Request) -> Verdict:
        """Return whether one of the users asks, or what will tell.

        :raises Busy: too many wait already
        """
        user, password = credentials(request.headers.get('authorization', ''))
        if password is None:
            return False
        hashed = users.get(user)
        is_known = hashed is not None
        tried = (hashed or self._stand_in(users, user)).encode()
        key = self._key(user.encode(), tried, password)
        if is_known and key in self._remembered:
            self._remembered.move_to_end(key)
            return True
        return self._waiting.get(key) or self._start(key, tried, password, is_known, request.peer)

    def close(self) -> None:
        """End the thread; who waits is told nothing."""
        if self._worker is not None:
            self._worker.shutdown(wait=False, cancel_futures=True)
            self._worker = None

    def _start(
        self, key: bytes, hashed: bytes, password: bytes, is_known: bool, peer: messages.Peer
    ) -> 'asyncio.Future[bool]':
        waiting = self._by_peer[peer.address]
        if len(self._waiting) >= MOST_WAITING or waiting >= MOST_WAITING_PER_PEER:
            raise Busy
        if self._worker is None:
            self._worker = concurrent.futures.ThreadPoolExecutor(1, 'oie-web-auth')
        loop = asyncio.get_running_loop()
        verdict: asyncio.Future[bool] = loop.create_future()
        job = loop.run_in_executor(self._worker, self._check, password, hashed)
        self._waiting[key] = verdict
        self._by_peer[peer.address] += 1

        def done(job: 'asyncio.Future[bool]') -> None:
            del self._waiting[key]
            self._by_peer[peer.address] -= 1
            self._by_peer += collections.Counter()  # drops those at zero
            is_right = not job.cancelled() and job.exception() is None and job.result()
            if is_right and is_known:
                self._remember(key)
            verdict.set_result(is_right and is_known)

        job.add_done_callback(done)
        return verdict

    def _remember(self, key: bytes) -> None:
        self._remembered[key] = None
        if len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)

    def _key(self, *parts: bytes) -> bytes:
        digest = hashlib.blake2b(key=self._secret)
        for part in parts:
            digest.update(len(part).to_bytes(8, 'big') + part)
        return digest.digest()

    def _stand_in(self, users: Mapping[str, str], user: str) -> str:
        """Return a hash for a user that is not there, as costly as one of those that are."""
        costs = sorted({hashed[4:6] for hashed in users.values()})
        number = hmac.digest(self._secret, user.encode(), 'sha256')[0]
        return f'$2b${costs[number % len(costs)]}${_NOBODY}'


def credentials(header: str) -> tuple[str, bytes | None]:
    """Return user and password of a header ``Authorization``, no password where there is none."""
    scheme, _, encoded = header.partition(' ')
    if scheme.lower() != 'basic' or len(header) > MOST_HEADER_CHARACTERS:
        return '', None
    try:
        plain = base64.b64decode(encoded.strip(), validate=True)
        user, separator, password = plain.partition(b':')
        name = user.decode()
    except (binascii.Error, ValueError):
        return '', None
    if not separator or len(password) > _MOST_PASSWORD_BYTES or b'\0' in password:
        return '', None
    return name, password


def _bcrypt(password: bytes, hashed: bytes) -> bool:
    # Who has no users in the file does not pay for the library.
    import bcrypt

    return bcrypt.checkpw(password, hashed)
