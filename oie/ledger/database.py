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

"""A file of SQLite that survives whatever ends us, and is nobody else's.

A file that is not ours is never touched. One of ours that is damaged is put
aside. Whoever holds the lock beside the file is the only one to write it.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import fcntl
import logging
import os
import pathlib
import sqlite3
import stat
from typing import TypeVar

from oie import exceptions

LOG = logging.getLogger(__name__)

BAD = '.bad'
LOCK = '.lock'

# https://www.sqlite.org/fileformat.html, the database header
_MAGIC = b'SQLite format 3\0'
_APPLICATION_ID_AT = slice(68, 72)
_HEADER_BYTES = 100
_BUSY_SECONDS = 5.0

T = TypeVar('T')


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What tells a file of ours from all others.

    :ivar option: where an operator names it
    :ivar table: one that each such file has
    :ivar schema: what makes its tables
    :ivar additions: tables that later versions added, and earlier ones do not mind
    :ivar of_whom: whose totals are lost with it
    :ivar synchronous: NORMAL lets a loss of power take the last transactions back
    """

    option: str
    application_id: int
    version: int
    table: str
    schema: Sequence[str]
    additions: Sequence[str] = ()
    of_whom: str
    synchronous: str = 'NORMAL'


class Database:
    """The file; one thread at a time may use it.

    :param path: empty for one in memory, which nobody else can have
    """

    KIND: Kind

    def __init__(self, path: str) -> None:
        self.is_in_memory = not path
        self.path = pathlib.Path(path or ':memory:')
        self._lock: int | None = None
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            # What cannot be written at the end is in the log beside the file.
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # --- opening ------------------------------------------------------------

    def _open(self, read: Callable[[sqlite3.Connection], T]) -> tuple[T, bool]:
        """Lock the file, check it, make it if there is none, and return what ``read`` finds.

        :returns: that, and whether there were totals that cannot be read any more
        :raises LedgerHeld: another exporter has it
        :raises LedgerError: it cannot be used, and was left as it is
        """
        with self._translated():
            if self.is_in_memory:
                return self._load(read), False
            self._take_lock()
            is_ours = self._identify()
            try:
                return self._load(read), False
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as exc:
                if not is_ours:
                    raise
                self._put_aside(exc)
                return self._load(read), True

    def _take_lock(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        path = f'{self.path}{LOCK}'
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        lock = os.open(path, flags, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            holder = os.pread(lock, 20, 0).decode('ascii', 'replace').strip()
            os.close(lock)
            number = holder if holder.isdigit() else 'unknown'
            raise exceptions.LedgerHeld(
                f'{self.path} is kept by the oie-exporter with process id {number}: end that one, '
                f'or name another file in {self.KIND.option}'
            ) from exc
        self._lock = lock
        os.ftruncate(lock, 0)
        os.pwrite(lock, f'{os.getpid()}\n'.encode('ascii'), 0)

    def _identify(self) -> bool:
        """Return whether we wrote the file; False where there is none, or an empty one.

        :raises LedgerError: it is another program's
        """
        # Made here, so that nobody else may read it whatever the umask is.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        file = os.open(self.path, flags, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise self._refusal('is no file')
            header = os.pread(file, _HEADER_BYTES, 0)
        finally:
            os.close(file)
        if header and not header.startswith(_MAGIC):
            raise self._refusal('is not a database of SQLite')
        identity = int.from_bytes(header[_APPLICATION_ID_AT], 'big')
        if identity not in (0, self.KIND.application_id):
            raise self._refusal(f'was written by another program (application id {identity:#x})')
        return identity == self.KIND.application_id

    def _load(self, read: Callable[[sqlite3.Connection], T]) -> T:
        connection = sqlite3.connect(
            ':memory:' if self.is_in_memory else self.path,
            timeout=_BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        self._connection = connection
        try:
            self._prepare(connection)
            checked = connection.execute('PRAGMA quick_check(1)').fetchone()[0]
            if checked != 'ok':
                raise sqlite3.DatabaseError(checked)
            return read(connection)
        except BaseException:
            connection.close()
            self._connection = None
            raise

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make the tables where there are none yet.

        :raises LedgerError: there are other tables, or a newer version made ours
        """
        kind = self.KIND
        connection.execute('PRAGMA trusted_schema = OFF')
        tables = {name for (name,) in connection.execute('SELECT name FROM sqlite_master')}
        (version,) = connection.execute('PRAGMA user_version').fetchone()
        if not tables:
            # Before the write-ahead log is switched on: the header must tell whose it is.
            with self._transaction():
                for statement in kind.schema:
                    connection.execute(statement)
                connection.execute(f'PRAGMA application_id = {kind.application_id}')
                connection.execute(f'PRAGMA user_version = {kind.version}')
        elif kind.table not in tables:
            raise self._refusal('holds tables of another program')
        elif version != kind.version:
            raise self._refusal(f'has version {version}, this oie knows {kind.version}')
        for statement in kind.additions:
            connection.execute(statement)
        connection.execute('PRAGMA journal_mode = WAL')
        connection.execute(f'PRAGMA synchronous = {kind.synchronous}')

    def _put_aside(self, reason: Exception) -> None:
        aside = f'{self.path}{BAD}'
        for suffix in ('', '-wal', '-shm'):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f'{self.path}{suffix}', f'{aside}{suffix}')
        LOG.error(
            '%s is damaged (%s); it is kept as %s and the totals of all %s begin anew: check the '
            'disk, and bills of this interval',
            self.path,
            reason,
            aside,
            self.KIND.of_whom,
        )
        self._identify()

    # --- parts --------------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        if connection is None:
            raise exceptions.LedgerError(f'{self.path} is not open')
        connection.execute('BEGIN IMMEDIATE')
        try:
            yield connection
            connection.execute('COMMIT')
        except BaseException:
            # A full disk has SQLite roll back by itself.
            if connection.in_transaction:
                connection.execute('ROLLBACK')
            raise

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        # The last two: a text or a number that SQLite cannot hold.
        except (OSError, sqlite3.Error, UnicodeError, OverflowError) as exc:
            raise exceptions.LedgerError(
                f'{self.path} cannot be used: {exc}; check the owner of its directory and the '
                'free space'
            ) from exc

    def _refusal(self, what: str) -> exceptions.LedgerError:
        return exceptions.LedgerError(
            f'{self.path} {what}; it was left as it is: move it away, or name another file in '
            f'{self.KIND.option}'
        )
