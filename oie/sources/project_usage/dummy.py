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

"""A TOML file with projects and machines → what a cloud with them would answer, for trials.

Both forms of OS_project_usage_exporter: a table for each domain with its ``projects``, and that
of 2018, a table for each project with its ``machines``.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterator
import datetime
import decimal
import hashlib
import time
from typing import Any
import uuid

from oie import exceptions
from oie import model
from oie.config import messages
from oie.config import moments
from oie.sources.project_usage import documents
from oie.sources.project_usage import tags

_GIB = 1024
_CPUS, _GIBIBYTES = 4, 8
_MOST = 2**30
_OF_DOMAIN = ('domain_id', 'projects')
_OF_2018 = ('domain', 'machines')
_OF_PROJECT = ('project_id', 'project_name', 'machines')
_OF_MACHINE = ('ram', 'cpus', 'existence', 'uptime', 'metadata', 'instance_id')
_NAMESPACE = uuid.UUID('5c1a9b0e-52f4-4f0e-9a55-7f3d1f7f2a41')
_MALFORMED = 'malformed'


class DummyCloud:
    """Answers from a file, which is read each time."""

    def __init__(
        self,
        path: str,
        *,
        tagged_project_id: str = '',
        tag: str = '',
        domains: tuple[str, ...] = (),
        domain_id: str = '',
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._tagged_project_id = tagged_project_id
        self._tag = tag
        self._domains = domains
        self._domain_id = domain_id
        self._clock = clock

    def read(
        self,
        since_us: int,
        cursor_us: int | None,
        is_wanted: Callable[[], bool] = lambda: True,
        *,
        window_us: int | None = None,
    ) -> model.CloudUsage:
        """Return the usage of all projects; a machine without a date exists since ``since_us``.

        :raises UsageError: there is no such file, or it is wrong
        """
        found = documents.read(self._path, reason=_MALFORMED, timeout=0)
        taken = int(self._clock() * moments.SECOND)
        try:
            listed = [each for each in parse(found) if self._is_wanted(each[0])]
            servers = tuple(
                server
                for project, machines in listed
                for key, machine in zip(_keys(project, machines), machines, strict=True)
                for server in self._servers(project, key, machine, since_us)
            )
        except (ValueError, TypeError, AttributeError, ArithmeticError) as exc:
            raise exceptions.UsageError(_MALFORMED, f'{self._path}: {exc}') from exc
        return model.CloudUsage(
            taken_us=taken, projects=tuple(project for project, _ in listed), servers=servers
        )

    def close(self) -> None:
        """Nothing is open."""

    def _is_wanted(self, project: model.Project) -> bool:
        if self._domain_id:
            return project.domain_id == self._domain_id
        return not self._domains or project.domain_name in self._domains

    def _servers(
        self, project: model.Project, key: str, machine: dict[str, Any], since_us: int
    ) -> Iterator[model.ServerUsage]:
        """Give the machine if it has ever existed."""
        existence = machine.get('existence', machine.get('uptime', True))
        if existence is False:
            return
        started, ended = _existence(existence, since_us)
        is_tagged = project.id == self._tagged_project_id
        tag = machine.get('metadata', {}).get(self._tag, '') if is_tagged else ''
        yield model.ServerUsage(
            uuid=str(uuid.uuid5(_NAMESPACE, key)),
            project_id=project.id,
            vcpus=int(_positive(machine.get('cpus', _CPUS), 'cpus')),
            memory_mb=int(_positive(machine.get('ram', _GIBIBYTES), 'ram') * _GIB),
            started_us=started,
            ended_us=ended,
            tag=tags.cut(tag),
        )


def _keys(project: model.Project, machines: list[dict[str, Any]]) -> Iterator[str]:
    """Give what stands for each machine from one reading to the next.

    That is its ``instance_id``, which need not be unique; without one it is its place among
    those without.
    """
    seen: collections.Counter[str] = collections.Counter()
    for machine in machines:
        name = str(machine.get('instance_id') or '')
        number = seen[name]
        seen[name] += 1
        place = f'{project.id}/{number}'
        yield f'{project.id}/instance_id/{name}/{number}' if name else f'{place}/{place}'


def parse(document: Any) -> list[tuple[model.Project, list[dict[str, Any]]]]:
    """Return the projects of a file, each with its machines.

    :raises ValueError: it is none
    """
    if not isinstance(document, dict) or not document:
        raise ValueError('there are neither domains nor projects in it')
    found = []
    for name, content in document.items():
        if not isinstance(content, dict):
            raise ValueError(f'{messages.quoted(name)} is no table')
        place = f'table {messages.quoted(name)}'
        if 'machines' in content:
            _check_keys(content, _OF_2018, place)
            found.append((_of_2018(name, content), _machines(content, place)))
        elif 'projects' in content:
            _check_keys(content, _OF_DOMAIN, place)
            for each in _tables(content, 'projects'):
                _check_keys(each, _OF_PROJECT, f'a project of {place}')
                found.append((_project(each, name, content), _machines(each, place)))
        else:
            raise ValueError(
                f'{place} has neither projects nor machines; write [[{messages.shown(name)}'
                '.projects]] in a domain, or machines = [{ram = 8, cpus = 4}] in a project'
            )
    if len({project.id for project, _ in found}) < len(found):
        raise ValueError('two projects have one project_id')
    return found


def _of_2018(name: str, content: dict[str, Any]) -> model.Project:
    domain = str(content.get('domain', ''))
    return model.Project(
        id=_hashed(name), name=name, domain_id=_hashed(domain), domain_name=domain
    )


def _project(found: dict[str, Any], domain: str, content: dict[str, Any]) -> model.Project:
    return model.Project(
        id=str(found.get('project_id', 'UNKNOWN_ID')),
        name=str(found.get('project_name', 'UNKNOWN_NAME')),
        domain_id=str(content.get('domain_id', 'UNKNOWN_DOMAIN_ID')),
        domain_name=domain,
    )


def _hashed(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[-16:]


def _tables(content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = content.get(key, [])
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ValueError(f'{key} is no list of tables')
    return found


def _machines(content: dict[str, Any], place: str) -> list[dict[str, Any]]:
    found = _tables(content, 'machines')
    for each in found:
        _check_keys(each, _OF_MACHINE, f'a machine of {place}')
    return found


def _check_keys(content: dict[str, Any], known: tuple[str, ...], place: str) -> None:
    """Refuse a key that is mistyped: without it something else would be counted."""
    for key in content:
        if key not in known:
            raise ValueError(
                f'{place} has a key {messages.quoted(key)}; there are {", ".join(known)}'
            )


def _existence(found: Any, since_us: int) -> tuple[int, int | None]:
    """Return start and end of what a file calls existence or uptime."""
    if found is True:
        return since_us, None
    if isinstance(found, list) and len(found) == 2:
        started, ended = (_moment(each) for each in found)
        if started > ended:
            raise ValueError('a machine ends before it starts')
        return started, ended
    return _moment(found), None


def _moment(found: Any) -> int:
    if not isinstance(found, datetime.datetime):
        raise ValueError(f'{messages.quoted(found)} is neither a boolean nor a date with a time')
    return moments.of(found)


def _positive(found: Any, key: str) -> Any:
    is_number = isinstance(found, int | decimal.Decimal) and not isinstance(found, bool)
    # Comparing nan raises what is no ValueError.
    if not is_number or not decimal.Decimal(found).is_finite() or not 0 < found <= _MOST:
        raise ValueError(
            f'{key} = {messages.quoted(found)} is no number above 0 and up to {_MOST}'
        )
    return found
