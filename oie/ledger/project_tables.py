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

"""Tables of the ledger of projects: what makes them, and rows ↔ totals and lives."""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import sqlite3
import types
from typing import Any
from typing import NamedTuple

from oie import model
from oie.ledger import project_spans

# Totals are texts, because they grow beyond what an INTEGER of SQLite holds.
SCHEMA = (
    """
    CREATE TABLE project (
        id INTEGER PRIMARY KEY,
        project_id TEXT NOT NULL,
        tag TEXT NOT NULL,
        name TEXT NOT NULL,
        domain_id TEXT NOT NULL,
        domain_name TEXT NOT NULL,
        seen_us INTEGER NOT NULL,
        vcpus TEXT NOT NULL,
        memory TEXT NOT NULL,
        weighted_vcpus TEXT NOT NULL,
        weighted_memory TEXT NOT NULL,
        floor TEXT NOT NULL,
        UNIQUE (project_id, tag)
    )
    """,
    """
    CREATE TABLE instance (
        id INTEGER PRIMARY KEY,
        uuid TEXT UNIQUE NOT NULL,
        tag TEXT NOT NULL,
        vcpus INTEGER NOT NULL,
        memory_mb INTEGER NOT NULL,
        since_us INTEGER NOT NULL,
        counted_us INTEGER NOT NULL,
        ended_us INTEGER
    )
    """,
    """
    CREATE TABLE span (
        instance INTEGER NOT NULL,
        start_us INTEGER NOT NULL,
        stop_us INTEGER NOT NULL,
        vcpus INTEGER NOT NULL,
        memory_mb INTEGER NOT NULL,
        PRIMARY KEY (instance, start_us)
    ) WITHOUT ROWID
    """,
    'CREATE TABLE moment (name TEXT PRIMARY KEY, at_us INTEGER NOT NULL)',
)
FIRST, FLOOR, CURSOR = 'first', 'floor', 'cursor'
# There only while the past is booked for the first time.
BEHIND = 'behind'
# A guest that is resized for ever must not fill the disk; the sums hold what is dropped here.
MOST_SPANS = 64
_SUMS = tuple(field.name for field in dataclasses.fields(project_spans.Sums))
_LIFE = ', '.join(project_spans.Life._fields)
PUT_PROJECT = (
    'INSERT INTO project (project_id, tag, name, domain_id, domain_name, seen_us, '  # noqa: S608
    f'{", ".join(_SUMS)}) VALUES ({", ".join("?" * (6 + len(_SUMS)))}) '
    'ON CONFLICT (project_id, tag) DO UPDATE SET name = excluded.name, '
    'domain_id = excluded.domain_id, domain_name = excluded.domain_name, '
    'seen_us = excluded.seen_us, ' + ', '.join(f'{name} = excluded.{name}' for name in _SUMS)
)
ADD_LIFE = f'INSERT INTO instance (tag, {_LIFE}, uuid) VALUES (?, ?, ?, ?, ?, ?, ?)'  # noqa: S608
CHANGE_LIFE = (
    f'UPDATE instance SET tag = ?, {" = ?, ".join(project_spans.Life._fields)} = ? '  # noqa: S608
    'WHERE uuid = ?'
)
GET_LIFE = f'SELECT uuid, tag, {_LIFE} FROM instance WHERE '  # noqa: S608
ADD_SPAN = 'INSERT OR REPLACE INTO span SELECT id, ?, ?, ?, ? FROM instance WHERE uuid = ?'
DROP_SPANS = (
    'DELETE FROM span WHERE instance = (SELECT id FROM instance WHERE uuid = ?1) '
    'AND start_us NOT IN (SELECT start_us FROM span WHERE '
    'instance = (SELECT id FROM instance WHERE uuid = ?1) ORDER BY start_us DESC LIMIT ?2)'
)

Key = tuple[str, str]


@dataclasses.dataclass(slots=True)
class Total:
    """What a project, or a part of it by tag, has used.

    ``seen_us`` is when Keystone, or an instance, named the project last; of a part by tag it is
    when an answer had an instance with this tag last.
    """

    project: model.Project
    tag: str
    seen_us: int
    sums: project_spans.Sums

    @property
    def name(self) -> str:
        """To whom it is counted."""
        return self.tag or self.project.name


class Booked(NamedTuple):
    """All totals there are, after an answer was booked.

    :ivar cursor_us: up to which moment everything is booked, None before the first answer
    :ivar first_us: when the file was made, or when the one before it was lost
    :ivar remembered: instances whose times are kept
    :ivar is_behind: whether the past is still being booked for the first time
    :ivar left_out: by the ids of projects that nobody knows, the number of their instances in
        the answer, which are not counted
    """

    totals: dict[Key, Total]
    cursor_us: int | None
    first_us: int
    remembered: int
    is_behind: bool = False
    left_out: Mapping[str, int] = types.MappingProxyType({})


def rows(totals: Iterable[Total], wanted: Iterable[str]) -> Iterator[tuple[Any, ...]]:
    names = frozenset(wanted)
    for total in totals:
        project = total.project
        if project.id in names:
            yield (
                project.id,
                total.tag,
                project.name,
                project.domain_id,
                project.domain_name,
                total.seen_us,
                *(str(getattr(total.sums, name)) for name in _SUMS),
            )


def read(connection: sqlite3.Connection) -> Booked | None:
    """Return what is booked, None in a new file."""
    marks = marks_of(connection)
    if FIRST not in marks:
        return None
    totals = {}
    rows = connection.execute(
        'SELECT project_id, tag, name, domain_id, domain_name, seen_us, '  # noqa: S608
        f'{", ".join(_SUMS)} FROM project'
    )
    for project_id, tag, name, domain_id, domain_name, seen_us, *sums in rows:
        project = model.Project(
            id=project_id, name=name, domain_id=domain_id, domain_name=domain_name
        )
        try:
            found = project_spans.Sums(*(int(number) for number in sums))
        except ValueError as exc:
            raise sqlite3.DatabaseError(f'the totals of project {project_id!r}: {exc}') from exc
        totals[project_id, tag] = Total(project, tag, seen_us, found)
    return Booked(
        totals, marks.get(CURSOR), marks[FIRST], count(connection), is_behind=BEHIND in marks
    )


def forget(connection: sqlite3.Connection, before_us: int) -> int:
    """Drop the times of instances that were last counted before this; return how many."""
    connection.execute(
        'DELETE FROM span WHERE instance IN (SELECT id FROM instance WHERE counted_us < ?)',
        (before_us,),
    )
    return connection.execute('DELETE FROM instance WHERE counted_us < ?', (before_us,)).rowcount


def marks_of(connection: sqlite3.Connection) -> dict[str, int]:
    return dict(connection.execute('SELECT name, at_us FROM moment'))


def mark(connection: sqlite3.Connection, marks: dict[str, int]) -> None:
    connection.executemany('INSERT OR REPLACE INTO moment VALUES (?, ?)', marks.items())


def unmark(connection: sqlite3.Connection, name: str) -> None:
    connection.execute('DELETE FROM moment WHERE name = ?', (name,))


def count(connection: sqlite3.Connection) -> int:
    return int(connection.execute('SELECT count(*) FROM instance').fetchone()[0])


def copied(total: Total) -> Total:
    return dataclasses.replace(total, sums=dataclasses.replace(total.sums))
