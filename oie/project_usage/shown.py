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

"""Totals of the ledger → what is shown of them: hours, by the names that projects have now."""

import dataclasses

from oie import model
from oie.ledger import project_spans
from oie.ledger import project_tables
from oie.sources.project_usage import tags

_MICROSECOND = 10**6
_GIB = 1024
_WEIGHTED_HOUR = project_spans.HOUR_US * project_spans.ONE

# project_id, project_name, domain_name, domain_id
_Names = tuple[str, str, str, str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Which projects are shown, and how.

    :ivar keep: seconds for which one stays that nobody names any more
    """

    keep: float
    memory_unit: str = 'gib_floor'
    domains: tuple[str, ...] = ()
    domain_id: str = ''


class Shown:
    """Makes what is shown; keeps labels for as long as nothing in them changes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._labels: dict[_Names, model.Labels] = {}

    def of(
        self, booked: project_tables.Booked, now: float
    ) -> tuple[model.ProjectUsage, ...] | None:
        """Return the usage of all projects that are shown at a Unix time.

        None before the first answer: nobody knows then whether there is a project at all. None
        too while the past is booked: who rates a counter would take it for usage of today.
        """
        if booked.cursor_us is None or booked.is_behind:
            return None
        oldest = int((now - self._settings.keep) * _MICROSECOND)
        sums = {
            _names(total): project_spans.Sums()
            for total in booked.totals.values()
            if total.seen_us >= oldest and self._is_wanted(total.project)
        }
        for total in booked.totals.values():
            # A tag may be the name of its project: to Prometheus they are one, which must not
            # fall when nobody has the tag any more.
            if _names(total) in sums:
                sums[_names(total)].join(total.sums)
        # The same objects as before, so that an output may keep what it made of them.
        self._labels = {names: self._labels.get(names) or _labels(names) for names in sums}
        return tuple(self._usage(self._labels[names], each) for names, each in sums.items())

    def _is_wanted(self, project: model.Project) -> bool:
        if self._settings.domain_id:
            return project.domain_id == self._settings.domain_id
        return not self._settings.domains or project.domain_name in self._settings.domains

    def _usage(self, labels: model.Labels, sums: project_spans.Sums) -> model.ProjectUsage:
        return model.ProjectUsage(
            labels=labels,
            vcpu_hours=sums.vcpus / project_spans.HOUR_US,
            memory_mb_hours=sums.memory / project_spans.HOUR_US,
            weighted_vcpu_hours=sums.weighted_vcpus / _WEIGHTED_HOUR,
            weighted_memory_mb_hours=sums.weighted_memory / _WEIGHTED_HOUR,
            memory_usage=self._memory_usage(sums),
        )

    def _memory_usage(self, sums: project_spans.Sums) -> float:
        if self._settings.memory_unit == 'gib_floor':
            return sums.floor / _WEIGHTED_HOUR
        unit = _GIB if self._settings.memory_unit == 'gib' else 1
        return sums.weighted_memory / (_WEIGHTED_HOUR * unit)


def _names(total: project_tables.Total) -> _Names:
    project = total.project
    # A file of earlier versions may hold longer tags.
    name = tags.cut(total.tag) or project.name
    return project.id, name, project.domain_name, project.domain_id


def _labels(names: _Names) -> model.Labels:
    return model.Labels.of(
        project_id=names[0], project_name=names[1], domain_name=names[2], domain_id=names[3]
    )
