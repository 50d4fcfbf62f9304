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

"""Accounts of instances → what each project has used on this host, which never falls.

An instance that left stays in the sum of its project, one that nobody remembers any more too.
"""

from collections.abc import Mapping
import contextlib

from oie import model
from oie.ledger import accounts
from oie.ledger import store

_NOTHING = (0, 0)
# vCPU and MiB nanoseconds.
_Times = tuple[int, int]


class HostProjects:
    """Sums up accounts by the project of their instance."""

    def __init__(self) -> None:
        self._project_of: dict[str, str] = {}
        # Of instances that are not here now.
        self._away: dict[str, _Times] = {}
        # Of those and of forgotten ones, by project.
        self._sums: dict[str, _Times] = {}
        self._labels: dict[str, model.Labels] = {}

    def take_over(self, found: store.Found) -> None:
        """Take over what is kept of instances that may come or not."""
        self._project_of.update(found.projects)
        self._sums.update(found.forgotten)
        for uuid, (_, text) in found.accounts.items():
            # What nobody can read begins anew, and with it a part of the sum.
            with contextlib.suppress(ValueError):
                self._depart(uuid, accounts.times(text))

    def note(self, uuid: str, project_uuid: str) -> None:
        """Note whose an instance is; it belongs to one project for all of its life."""
        if project_uuid and not self._project_of.get(uuid):
            self._project_of[uuid] = project_uuid

    def arrive(self, uuid: str) -> None:
        """Note that an instance is here: its account is summed up from now on."""
        self._add(uuid, self._away.pop(uuid, _NOTHING), -1)

    def leave(self, uuid: str, account: accounts.Account) -> None:
        """Note that an instance left, and what it had used."""
        self._depart(uuid, (account.vcpu_ns, account.memory_mib_ns))

    def forget(self, uuid: str) -> None:
        """Drop an instance that will not come again; it stays in the sum."""
        self._away.pop(uuid, None)
        self._project_of.pop(uuid, None)

    def totals(self, here: Mapping[str, accounts.Account]) -> tuple[model.HostProject, ...]:
        """Return the totals of all projects, those of instances that are here included."""
        sums = dict(self._sums)
        for uuid, account in here.items():
            if project := self._project_of.get(uuid):
                times = (account.vcpu_ns, account.memory_mib_ns)
                sums[project] = _sum(sums.get(project, _NOTHING), times)
        return tuple(
            model.HostProject(
                labels=self._labels_of(project),
                vcpu_seconds=vcpus / accounts.NANOSECONDS,
                memory_mb_seconds=memory / accounts.NANOSECONDS,
            )
            for project, (vcpus, memory) in sums.items()
        )

    def _depart(self, uuid: str, times: _Times) -> None:
        self._away[uuid] = times
        self._add(uuid, times, 1)

    def _add(self, uuid: str, times: _Times, sign: int) -> None:
        if project := self._project_of.get(uuid):
            before = self._sums.get(project, _NOTHING)
            self._sums[project] = _sum(before, (sign * times[0], sign * times[1]))

    def _labels_of(self, project: str) -> model.Labels:
        """Return the same labels each time, so that an output may keep what it made of them."""
        labels = self._labels.get(project)
        if labels is None:
            labels = self._labels[project] = model.Labels.of(project_uuid=project)
        return labels


def _sum(one: _Times, other: _Times) -> _Times:
    return one[0] + other[0], one[1] + other[1]
