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

"""Instances that an update could not count, window by window → their number, and what to do."""

from collections.abc import Mapping

from oie.config import messages

_MOST_SHOWN = 5


class LeftOut:
    """Counts the instances that an update leaves out, by reason.

    Windows overlap, and an instance may be in each of them: the number is that of the window
    with most of them.
    """

    def __init__(self) -> None:
        self._records = 0
        self._by_project: dict[str, int] = {}

    def note(self, records: int, by_project: Mapping[str, int]) -> None:
        """Add what an answer had: records that nobody can read, instances of unknown projects."""
        self._records = max(self._records, records)
        for project_id, number in by_project.items():
            self._by_project[project_id] = max(self._by_project.get(project_id, 0), number)

    def numbers(self) -> dict[str, int]:
        """Return how many there are by reason, zeros too."""
        return {'project': sum(self._by_project.values()), 'record': self._records}

    def text(self, reason: str) -> str:
        """Return what is wrong with those of a reason, and what to do."""
        if reason == 'record':
            return f'{self._records} instances have no readable size or dates and are not counted'
        ids = ', '.join(messages.shown(each) for each in sorted(self._by_project)[:_MOST_SHOWN])
        more = ', …' if len(self._by_project) > _MOST_SHOWN else ''
        return (
            f'{self.numbers()[reason]} instances of {len(self._by_project)} projects that neither '
            f'Keystone nor [usage] path knows are not counted: {ids}{more}; delete them in Nova, '
            'or let the user of [usage] cloud list all projects'
        )
