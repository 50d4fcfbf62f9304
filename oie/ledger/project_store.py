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

"""What a cloud tells of its instances → totals of its projects in a file, which never fall.

An answer is booked in one transaction, or not at all. What is handed out is what is on the
disk: no crash and no loss of power takes back what anybody has seen.
"""

from collections.abc import Sequence
import sqlite3
from typing import Any
from typing import NamedTuple

from oie import exceptions
from oie import model
from oie.ledger import database
from oie.ledger import project_spans
from oie.ledger import project_tables

SCHEMA_VERSION = 1
APPLICATION_ID = 0x6F696502  # 'oie', 2


class _Known(NamedTuple):
    tag: str
    life: project_spans.Life


class ProjectStore(database.Database):
    """The file of the totals; one thread at a time may use it.

    :param path: empty for totals that end with the process
    :param keep_us: microseconds for which the times of an instance that is gone are kept
    """

    KIND = database.Kind(
        option='[usage] path',
        application_id=APPLICATION_ID,
        version=SCHEMA_VERSION,
        table='project',
        schema=project_tables.SCHEMA,
        of_whom='projects',
        # An update comes every few minutes: what it shows shall survive a loss of power too.
        synchronous='FULL',
    )

    def __init__(self, path: str, *, keep_us: int) -> None:
        super().__init__(path)
        self._keep_us = keep_us
        self._booked: project_tables.Booked | None = None

    def open(self, now_us: int) -> project_tables.Booked:
        """Return what is booked already; of a file that is damaged, and put aside, nothing.

        After such a loss nothing counts that was before: it was shown once.

        :raises LedgerHeld: another exporter has the file
        :raises LedgerError: it cannot be used
        """
        try:
            booked, is_lost = self._open(project_tables.read)
            if booked is None:
                floor = now_us if is_lost else 0
                with self._translated(), self._transaction() as connection:
                    marks = {project_tables.FIRST: now_us, project_tables.FLOOR: floor}
                    project_tables.mark(connection, marks)
                booked = project_tables.Booked({}, None, now_us, 0)
        except exceptions.LedgerError:
            # The lock too: whoever tries again would find it held by us.
            self.close()
            raise
        self._booked = booked
        return booked

    def book(
        self, answer: model.CloudUsage, *, since_us: int, weigh: project_spans.Weigh
    ) -> project_tables.Booked:
        """Book an answer and return all totals.

        :param since_us: nothing before this moment counts
        :raises LedgerError: nothing was booked
        """
        before = self._booked
        if before is None:
            raise exceptions.LedgerError(f'{self.path} is not open')
        with self._translated(), self._transaction() as connection:
            totals = {key: project_tables.copied(total) for key, total in before.totals.items()}
            floor = project_tables.marks_of(connection).get(project_tables.FLOOR, 0)
            booking = _Booking(connection, totals, answer, weigh)
            booking.run(max(since_us, floor))
            oldest = answer.taken_us - self._keep_us
            if project_tables.forget(connection, oldest):
                floor = max(floor, oldest)
            cursor = max(before.cursor_us or 0, answer.taken_us)
            is_behind = _is_behind(before, answer)
            _mark(connection, cursor, floor, is_behind=is_behind)
            remembered = project_tables.count(connection)
        self._booked = project_tables.Booked(
            totals, cursor, before.first_us, remembered, is_behind, booking.left_out
        )
        return self._booked


def _is_behind(before: project_tables.Booked, answer: model.CloudUsage) -> bool:
    """Return whether totals lack a part of the past that was never booked.

    After a time in which nobody asked they do not: then they were whole once.
    """
    return not answer.is_last and (before.is_behind or before.cursor_us is None)


def _mark(connection: sqlite3.Connection, cursor: int, floor: int, *, is_behind: bool) -> None:
    marks = {project_tables.CURSOR: cursor, project_tables.FLOOR: floor}
    if is_behind:
        marks[project_tables.BEHIND] = cursor
    else:
        project_tables.unmark(connection, project_tables.BEHIND)
    project_tables.mark(connection, marks)


class _Booking:
    """One answer on its way into the file.

    :ivar left_out: number of instances by projects that neither Keystone nor the file knows
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        totals: dict[project_tables.Key, project_tables.Total],
        answer: model.CloudUsage,
        weigh: project_spans.Weigh,
    ) -> None:
        self._connection = connection
        self._totals = totals
        self._answer = answer
        self._weigh = weigh
        self._projects = {project.id: project for project in answer.projects}
        # What was there at the moment of the answer: projects, and parts of them by tag.
        self._seen: set[project_tables.Key] = {(key, '') for key in self._projects}
        self.left_out: dict[str, int] = {}
        self._servers = (*answer.servers, *self._adopted())

    def run(self, since_us: int) -> None:
        known = self._known()
        added: list[tuple[Any, ...]] = []
        changed: list[tuple[Any, ...]] = []
        closed: list[tuple[Any, ...]] = []
        for project in self._answer.projects:
            self._total(project.id, '')
        for seen in self._servers:
            before = known.get(seen.uuid)
            counted = project_spans.count(
                before and before.life, seen, since_us=since_us, now_us=self._answer.taken_us
            )
            if counted is None:
                continue
            # A tag that was seen stays: of an instance that is gone nobody tells it.
            tag = seen.tag or (before.tag if before else '')
            self._seen |= {(seen.project_id, ''), (seen.project_id, tag)}
            if counted.added:
                weights = self._weigh(
                    counted.added.vcpus, counted.added.memory_mb, seen.started_us
                )
                self._total(seen.project_id, tag).sums.add(counted.added, weights)
            row = (tag, *counted.life, seen.uuid)
            (changed if before else added).append(row)
            closed.extend((*span, seen.uuid) for span in counted.closed)
            # An answer that names an instance twice counts it once.
            known[seen.uuid] = _Known(tag, counted.life)
        self._write(added, changed, closed)

    def _adopted(self) -> list[model.ServerUsage]:
        """Return the instances of projects that only the file knows; count those of the others.

        Keystone may delete a project whose instances go on: they count under its last name. Of
        the others, where domains were chosen, most are in a domain that nobody asked for.
        """
        wanted = self._answer.domain_ids
        if not self._answer.strangers:
            return []
        of_file = {total.project.id: total.project for total in self._totals.values()}
        found = []
        for seen in self._answer.strangers:
            project = of_file.get(seen.project_id)
            if project is not None and (not wanted or project.domain_id in wanted):
                self._projects[project.id] = project
                found.append(seen)
            elif not wanted:
                self.left_out[seen.project_id] = self.left_out.get(seen.project_id, 0) + 1
        return found

    def _known(self) -> dict[str, _Known]:
        """Return what is known of the instances of the answer."""
        # Those of the window all at once, the few others one by one.
        ends = (seen.ended_us for seen in self._servers if seen.ended_us is not None)
        oldest = min([self._answer.taken_us, *ends])
        rows = self._connection.execute(
            f'{project_tables.GET_LIFE} counted_us >= ?', (oldest - project_spans.HOUR_US,)
        )
        known = {uuid: _Known(tag, project_spans.Life(*life)) for uuid, tag, *life in rows}
        for seen in self._servers:
            if seen.uuid not in known:
                row = self._connection.execute(
                    f'{project_tables.GET_LIFE} uuid = ?', (seen.uuid,)
                ).fetchone()
                if row is not None:
                    known[seen.uuid] = _Known(row[1], project_spans.Life(*row[2:]))
        return known

    def _total(self, project_id: str, tag: str) -> project_tables.Total:
        total = self._totals.get((project_id, tag))
        if total is None:
            total = self._totals[project_id, tag] = project_tables.Total(
                self._projects[project_id], tag, 0, project_spans.Sums()
            )
        total.project = self._projects[project_id]
        return total

    def _write(
        self,
        added: Sequence[tuple[Any, ...]],
        changed: Sequence[tuple[Any, ...]],
        closed: Sequence[tuple[Any, ...]],
    ) -> None:
        run = self._connection.executemany
        run(project_tables.ADD_LIFE, added)
        run(project_tables.CHANGE_LIFE, changed)
        run(project_tables.ADD_SPAN, closed)
        run(
            project_tables.DROP_SPANS,
            ((uuid, project_tables.MOST_SPANS) for uuid in {row[-1] for row in closed}),
        )
        asked = self._answer.asked_us
        now = self._answer.taken_us if asked is None else asked
        for key, total in self._totals.items():
            total.project = self._projects.get(total.project.id, total.project)
            if key in self._seen:
                total.seen_us = max(total.seen_us, now)
        run(
            project_tables.PUT_PROJECT,
            project_tables.rows(self._totals.values(), self._projects.keys()),
        )
