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

"""Rows of the ledger ↔ a file of SQLite that survives whatever ends us."""

from collections.abc import Iterable
import contextlib
import dataclasses
import sqlite3

from oie.ledger import accounts
from oie.ledger import database

SCHEMA_VERSION = 1
APPLICATION_ID = 0x6F696501  # 'oie', 1
BAD = database.BAD
LOCK = database.LOCK

_TABLE = """
CREATE TABLE instance (
    uuid TEXT PRIMARY KEY NOT NULL,
    seen_at REAL NOT NULL,
    project_uuid TEXT NOT NULL,
    user_uuid TEXT NOT NULL,
    name TEXT NOT NULL,
    flavor_name TEXT NOT NULL,
    vcpus INTEGER,
    memory_mib INTEGER,
    account TEXT NOT NULL
)
"""


# What the instances of a project had used that nobody remembers any more; texts, because the
# numbers grow beyond an INTEGER of SQLite. An older version leaves it alone.
_FORGOTTEN = """
CREATE TABLE IF NOT EXISTS forgotten (
    project_uuid TEXT PRIMARY KEY NOT NULL,
    vcpu_ns TEXT NOT NULL,
    memory_mib_ns TEXT NOT NULL
)
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One instance: whose it is, when it was last seen, and its account as a text."""

    uuid: str
    seen_at: float
    project_uuid: str
    user_uuid: str
    name: str
    flavor_name: str
    vcpus: int | None
    memory_mib: int | None
    account: str


_COLUMNS = tuple(field.name for field in dataclasses.fields(Row))
# A column of SQLite takes any type, whatever it was declared with.
_READ = (
    'SELECT uuid, CAST(project_uuid AS TEXT), CAST(seen_at AS REAL), CAST(account AS TEXT) '
    'FROM instance'
)
_WRITE = (
    f'INSERT OR REPLACE INTO instance ({", ".join(_COLUMNS)}) '  # noqa: S608, our own names
    f'VALUES ({", ".join("?" * len(_COLUMNS))})'
)


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What an opened file holds.

    :ivar accounts: seen_at and account by uuid
    :ivar is_lost: there were totals that cannot be read any more
    :ivar projects: project_uuid by uuid
    :ivar forgotten: vCPU and MiB nanoseconds of forgotten instances by project_uuid
    """

    accounts: dict[str, tuple[float, str]]
    is_lost: bool = False
    projects: dict[str, str] = dataclasses.field(default_factory=dict)
    forgotten: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)


class Store(database.Database):
    """The file of the ledger; one thread at a time may use it."""

    KIND = database.Kind(
        option='[ledger] path',
        application_id=APPLICATION_ID,
        version=SCHEMA_VERSION,
        table='instance',
        schema=(_TABLE,),
        additions=(_FORGOTTEN,),
        of_whom='instances',
    )

    def open(self) -> Found:
        """Lock the file, check it, make it if there is none, and return what it holds.

        :raises LedgerHeld: another exporter has it
        :raises LedgerError: it cannot be used, and was left as it is
        """
        found, is_lost = self._open(_read)
        return dataclasses.replace(found, is_lost=is_lost)

    def write(self, rows: Iterable[Row], forgotten: Iterable[str]) -> None:
        """Write the rows and delete those of forgotten instances, all of it or nothing.

        :raises LedgerError: nothing was written
        """
        with self._translated(), self._transaction() as connection:
            connection.executemany(
                _WRITE, ([getattr(row, name) for name in _COLUMNS] for row in rows)
            )
            gone = [(uuid,) for uuid in forgotten]
            if gone:
                _fold(connection, gone)
            connection.executemany('DELETE FROM instance WHERE uuid = ?', gone)


def _read(connection: sqlite3.Connection) -> Found:
    rows = connection.execute(_READ).fetchall()
    return Found(
        {uuid: (seen_at, account) for uuid, _, seen_at, account in rows},
        projects={uuid: project for uuid, project, _, _ in rows},
        forgotten=_forgotten(connection),
    )


def _forgotten(connection: sqlite3.Connection) -> dict[str, tuple[int, int]]:
    found = {}
    for project, vcpus, memory in connection.execute('SELECT * FROM forgotten'):
        try:
            found[project] = (int(vcpus), int(memory))
        except ValueError as exc:
            raise sqlite3.DatabaseError(f'the totals of project {project!r}: {exc}') from exc
    return found


def _fold(connection: sqlite3.Connection, gone: list[tuple[str]]) -> None:
    """Add what instances have used to what is forgotten of their projects."""
    sums = _forgotten(connection)
    for uuid in gone:
        row = connection.execute(
            'SELECT project_uuid, CAST(account AS TEXT) FROM instance WHERE uuid = ?', uuid
        ).fetchone()
        # What nobody can read was in no sum.
        with contextlib.suppress(ValueError):
            if row is not None:
                before = sums.get(row[0], (0, 0))
                more = accounts.times(row[1])
                sums[row[0]] = (before[0] + more[0], before[1] + more[1])
    connection.executemany(
        'INSERT OR REPLACE INTO forgotten VALUES (?, ?, ?)',
        ((project, str(vcpus), str(memory)) for project, (vcpus, memory) in sums.items()),
    )
