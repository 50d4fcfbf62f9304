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

"""Instances of a cycle → ``Snapshot.usage``, and the rows that make it survive us.

What is shown is what is written already: after a crash no total is lower than
one that somebody has seen. Only where nothing can be written, which
``LedgerHealth.is_durable`` tells, totals are shown from memory.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Set
import logging
import math
import pathlib
import time
from typing import Any
from typing import Protocol

from oie import model
from oie.ledger import accounts
from oie.ledger import host_projects
from oie.ledger import store
from oie.ledger import writer

LOG = logging.getLogger(__name__)

# proc_sys_kernel(5): another one after every start of the host.
BOOT_ID = '/proc/sys/kernel/random/boot_id'

# What a cycle may wait for a disk: to open the file at the start, to write once.
OPEN_SECONDS = 2.0
WRITE_SECONDS = 0.1
# Not at the start: the clock of a host may be wrong until NTP has set it.
FORGET_INTERVAL = 3600.0

Units = Callable[[str], float | None]


class Writer(Protocol):
    """What keeps the rows."""

    def status(self, timeout: float = 0.0, number: int = 0) -> writer.Status:
        """Return how it goes, as soon as this cycle is written, or after the time-out."""

    def hand_over(
        self, number: int, rows: Mapping[str, store.Row], forgotten: Set[str] = frozenset()
    ) -> None:
        """Have the rows of a cycle written."""

    def close(self) -> None:
        """Let go of everything."""


class Clock(Protocol):
    """What tells the time; the module ``time`` does."""

    def time(self) -> float:
        """Return the Unix time."""

    def monotonic(self) -> float:
        """Return seconds that nobody sets back."""


class LedgerReader:
    """Keeps an account for every instance; a reader of the service.

    :param rows: None where nothing is kept
    :param keep: seconds for which an instance that left is remembered
    :param units: licence units that an instance needs now, by its uuid; None for not known
    """

    def __init__(
        self,
        rows: Writer | None,
        *,
        keep: float,
        boot_id: str,
        units: Units | None = None,
        clock: Clock = time,
    ) -> None:
        self._writer = rows
        self._keep = keep
        self._boot_id = boot_id
        self._units = units
        self._clock = clock
        self._accounts: dict[str, accounts.Account] | None = None
        self._stored: dict[str, tuple[float, str]] = {}
        self._projects = host_projects.HostProjects()
        self._is_lost = False
        self._number = 0
        self._has_waited = False
        self._shown: dict[str, model.Usage] = {}
        self._shown_projects: tuple[model.HostProject, ...] | None = None
        self._shown_at: float | None = None
        self._forget_at = clock.monotonic() + FORGET_INTERVAL
        self._durable_at = clock.monotonic()

    def read(
        self, instances: tuple[model.Instance, ...], max_age: float, known: Set[str]
    ) -> dict[str, Any]:
        """Return the fields ``usage``, ``ledger`` and ``host_projects`` of the snapshot.

        :param max_age: seconds up to which the time between two readings counts
        :param known: uuids of all instances there are; others have left
        """
        begun = self._clock.monotonic()
        status = self._open()
        if self._accounts is None:
            return self._nothing(status, begun)
        rows = self._count(instances, max_age, self._accounts)
        self._leave(self._accounts, known)
        if self._writer is not None and status.is_open:
            status = self._write(self._writer, rows, status)
        is_durable = self._is_durable(status, max_age)
        if status.number == self._number or not is_durable:
            self._show(instances, self._accounts)
        usage: model.Reading[tuple[model.Usage, ...] | None] = model.Reading(
            value=self._usage_of(instances),
            read_at=self._shown_at,
            seconds=self._clock.monotonic() - begun,
            error='' if is_durable else status.error or _why_not(self._writer, max_age),
        )
        return {
            'usage': usage,
            'ledger': self._health(status, is_durable=is_durable),
            'host_projects': self._shown_projects,
        }

    def close(self) -> None:
        """Write what is left and let go of the file."""
        if self._writer is not None:
            self._writer.close()

    # --- opening ------------------------------------------------------------

    def _open(self) -> writer.Status:
        """Take over what is kept, once it is there."""
        if self._writer is None:
            status = writer.Status(found=store.Found({}, is_lost=True))
        elif self._accounts is None:
            status = self._writer.status(0.0 if self._has_waited else OPEN_SECONDS)
            self._has_waited = True
        else:
            status = self._writer.status()
        if self._accounts is None and status.found is not None:
            self._accounts = {}
            self._stored = dict(status.found.accounts)
            self._is_lost = status.found.is_lost
            self._projects.take_over(status.found)
        return status

    def _nothing(self, status: writer.Status, begun: float) -> dict[str, Any]:
        usage: model.Reading[tuple[model.Usage, ...] | None] = model.Reading(
            value=None,
            read_at=None,
            seconds=self._clock.monotonic() - begun,
            error=status.error or 'the file of the totals is not open yet: its disk is slow',
        )
        return {'usage': usage, 'ledger': self._health(status, is_durable=False)}

    # --- counting -----------------------------------------------------------

    def _count(
        self,
        instances: tuple[model.Instance, ...],
        max_age: float,
        known: dict[str, accounts.Account],
    ) -> dict[str, store.Row]:
        """Count what is fresh; return a row of each account that changed."""
        rows = {}
        now = self._clock.time()
        for instance in instances:
            if not instance.is_fresh:
                continue
            uuid = instance.definition.uuid
            if (account := known.get(uuid)) is None:
                account = known[uuid] = self._account(uuid, instance.read_at)
                self._projects.arrive(uuid)
            life = f'{self._boot_id}/{instance.domain_id}'
            account.count(instance, life, max_age, self._units_of(uuid))
            self._projects.note(uuid, instance.definition.project_uuid)
            text = account.text()
            self._stored[uuid] = (now, text)
            rows[uuid] = _row(instance, now, text)
        return rows

    def _account(self, uuid: str, now: float) -> accounts.Account:
        """Return the account of an instance that appears, the kept one if there is any."""
        if uuid in self._stored:
            try:
                return accounts.Account.parse(self._stored[uuid][1])
            except ValueError as exc:
                LOG.error('the totals of instance %s cannot be read and begin anew: %s', uuid, exc)
                return accounts.Account(now, is_late=True)
        # What was used before a loss was shown once; shown again it would be billed twice.
        return accounts.Account(now, is_late=self._is_lost)

    def _units_of(self, uuid: str) -> float | None:
        units = None if self._units is None else self._units(uuid)
        return units if units is not None and math.isfinite(units) and units >= 0 else None

    def _leave(self, known: dict[str, accounts.Account], present: Set[str]) -> None:
        """Let go of the accounts of instances that left; their rows stay."""
        for uuid in known.keys() - present:
            self._projects.leave(uuid, known.pop(uuid))

    def _forget(self) -> frozenset[str]:
        """Return who has been away for too long, once an hour."""
        if self._clock.monotonic() < self._forget_at:
            return frozenset()
        self._forget_at = self._clock.monotonic() + FORGET_INTERVAL
        oldest = self._clock.time() - self._keep
        here = self._accounts or {}
        gone = {
            uuid
            for uuid, (seen_at, _) in self._stored.items()
            if seen_at < oldest and uuid not in here
        }
        for uuid in gone:
            del self._stored[uuid]
            self._projects.forget(uuid)
        return frozenset(gone)

    # --- showing ------------------------------------------------------------

    def _write(
        self, rows: Writer, changed: Mapping[str, store.Row], status: writer.Status
    ) -> writer.Status:
        """Have the rows written; a disk that has not done with the last ones is not waited for."""
        is_behind = status.number < self._number
        if not is_behind:
            self._durable_at = self._clock.monotonic()
        self._number += 1
        rows.hand_over(self._number, changed, self._forget())
        return rows.status(0.0 if is_behind else WRITE_SECONDS, self._number)

    def _is_durable(self, status: writer.Status, max_age: float) -> bool:
        is_late = self._clock.monotonic() - self._durable_at > max_age
        return status.is_open and not status.error and not is_late

    def _show(
        self, instances: tuple[model.Instance, ...], known: Mapping[str, accounts.Account]
    ) -> None:
        """Show what was counted now."""
        shown = {}
        for instance in instances:
            definition = instance.definition
            account = known.get(definition.uuid)
            if account is not None:
                shown[definition.uuid] = account.usage(definition)
        self._shown, self._shown_at = shown, self._clock.time()
        self._shown_projects = self._projects.totals(known)

    def _usage_of(self, instances: tuple[model.Instance, ...]) -> tuple[model.Usage, ...]:
        uuids = (instance.definition.uuid for instance in instances)
        return tuple(self._shown[uuid] for uuid in uuids if uuid in self._shown)

    def _health(self, status: writer.Status, *, is_durable: bool) -> model.LedgerHealth:
        return model.LedgerHealth(
            is_durable=is_durable,
            written_at=status.written_at,
            write_errors=status.errors,
            instances=len(self._stored),
        )


def read_boot_id(path: str = BOOT_ID) -> str:
    """Return the name of this run of the host, an empty one where the kernel does not tell.

    Then counters that fall are the only sign of a new QEMU, and less is counted, never more.
    """
    try:
        return pathlib.Path(path).read_text(encoding='ascii').strip()
    except (OSError, ValueError) as exc:
        LOG.warning('restarts of this host are seen late: %s', exc)
        return ''


def _row(instance: model.Instance, now: float, text: str) -> store.Row:
    definition = instance.definition
    vcpus = definition.flavor.vcpus
    return store.Row(
        uuid=definition.uuid,
        seen_at=now,
        project_uuid=_text(definition.project_uuid),
        user_uuid=_text(definition.user_uuid),
        name=_text(definition.name),
        flavor_name=_text(definition.flavor.name),
        vcpus=instance.vcpus if vcpus is None else vcpus,
        memory_mib=accounts.memory_mib(instance),
        account=text,
    )


def _text(text: str) -> str:
    """Return a text without what UTF-8 cannot hold."""
    return text if text.isascii() else text.encode('utf-8', 'replace').decode()


def _why_not(rows: Writer | None, max_age: float) -> str:
    if rows is None:
        return ''
    return f'the totals could not be written for {max_age:g} s: the disk of [ledger] path hangs'
