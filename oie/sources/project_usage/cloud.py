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

"""A cloud's answers, from the first page to the last → ``model.CloudUsage``.

All of it or nothing: a page that fails or is missing fails the reading as a whole. This is the
one user of ``openstacksdk``, which is asked for pages as they are: what it makes of them does
not tell whether one is missing.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import importlib.metadata
import logging
import time
from typing import Any
import urllib.parse

from oie import exceptions
from oie import model
from oie.config import messages
from oie.config import moments
from oie.sources.project_usage import answers
from oie.sources.project_usage import asking
from oie.sources.project_usage import errors

LOG = logging.getLogger(__name__)

_PATH = '/os-simple-tenant-usage'
# What a cloud notes late, or by another clock, is asked for once more.
_OVERLAP_US = moments.HOUR
# By so much the end of a period may be rounded.
_ROUNDED_US = moments.SECOND


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is asked, and of whom; times in seconds."""

    cloud: str = ''
    timeout: float = 30.0
    page_size: int = 1000
    domains: tuple[str, ...] = ()
    domain_id: str = ''
    tagged_project_id: str = ''
    tag: str = ''


def connected(settings: Settings) -> Any:
    """Return a connection of openstacksdk; nothing is sent yet.

    :raises UsageError: openstacksdk is not there, or nobody told it how to log in
    """
    try:
        import openstack
    except ImportError as exc:
        raise exceptions.UsageError(
            'setup', f'openstacksdk cannot be imported ({exc}); pip install oie[openstack]'
        ) from exc
    with errors.translated('configuration of the cloud'):
        return openstack.connect(
            cloud=settings.cloud or None,
            app_name='oie',
            app_version=importlib.metadata.version('oie'),
            api_timeout=settings.timeout,
        )


class Cloud:
    """Asks one cloud.

    :param connect: makes a connection; after a failure a new one is made
    """

    def __init__(
        self,
        settings: Settings,
        *,
        connect: Callable[[Settings], Any] = connected,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._connect = connect
        self._clock = clock
        self._connection: Any = None

    def read(
        self,
        since_us: int,
        cursor_us: int | None,
        is_wanted: asking.IsWanted = lambda: True,
        *,
        window_us: int | None = None,
    ) -> model.CloudUsage:
        """Return the usage of all projects; moments in microseconds since 1970.

        :param since_us: from when on usage counts
        :param cursor_us: up to when it is known already, None for not at all
        :param is_wanted: whether anybody still waits for the answer
        :param window_us: how much time after that the answer is about, None for all up to now
        :raises UsageError: no whole answer came
        """
        # Taken out: a reading that hangs, and was left behind, keeps the one that it has.
        connection, self._connection = self._connection, None
        try:
            if connection is None:
                connection = self._connect(self._settings)
            now = int(self._clock() * moments.SECOND)
            begin = since_us if cursor_us is None else cursor_us
            end = now if window_us is None else min(now, begin + window_us)
            start = begin if cursor_us is None else begin - _OVERLAP_US
            reading = _Reading(asking.Asking(connection, self._clock, is_wanted), self._settings)
            found = reading.run(min(start, end - moments.SECOND), end, now)
        except exceptions.UsageError:
            _close(connection)
            raise
        before, self._connection = self._connection, connection
        _close(before)
        return found

    def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        _close(connection)


def _close(connection: Any) -> None:
    if connection is not None:
        connection.close()


class _Reading:
    """One reading of everything, under way."""

    def __init__(self, asking: asking.Asking, settings: Settings) -> None:
        self._asking = asking
        self._settings = settings
        self._records = 0
        self._stops: list[int] = []

    def run(self, start: int, end: int, now: int) -> model.CloudUsage:
        """Return what happened from a moment on, up to another one.

        :raises UsageError: no whole answer came
        """
        names = self._domains()
        domain_ids = self._wanted_domains(names)
        projects = self._projects(names, domain_ids)
        pages = list(self._usage(start, end, projects))
        by_uuid = {server.uuid: server for page in pages for server in page.servers}
        servers = self._tagged(list(by_uuid.values()), start)
        # Nova tells nothing of the time after its own present moment.
        taken = min(end, *self._stops) if self._stops else end
        return model.CloudUsage(
            taken_us=taken,
            projects=tuple(projects.values()),
            servers=tuple(each for each in servers if each.project_id in projects),
            strangers=tuple(each for each in servers if each.project_id not in projects),
            domain_ids=frozenset(domain_ids) - {''},
            rejected=self._records - sum(len(page.servers) for page in pages),
            clock_skew_seconds=self._asking.skew,
            is_last=end == now or taken < end - _ROUNDED_US,
            asked_us=now,
        )

    # --- Keystone -----------------------------------------------------------

    def _projects(
        self, names: Mapping[str, str], domain_ids: Iterable[str]
    ) -> dict[str, model.Project]:
        """Return the projects of the wanted domains by their ids."""
        found = {}
        for domain_id in domain_ids:
            query = {'domain_id': domain_id} if domain_id else {}
            for document in self._asking.identity('/projects', query):
                for project_id, name, home in answers.projects(document):
                    found[project_id] = model.Project(
                        id=project_id,
                        name=name,
                        domain_id=home,
                        domain_name=names.get(home, ''),
                    )
        return found

    def _domains(self) -> dict[str, str]:
        """Return the names of domains by id, none where we may not know them and need not."""
        try:
            pages = list(self._asking.identity('/domains', {}))
        except errors.Forbidden:
            if self._settings.domains:
                raise
            return {}
        return {key: name for page in pages for key, name in answers.domains(page).items()}

    def _wanted_domains(self, names: Mapping[str, str]) -> list[str]:
        """Return the ids of the wanted domains, an empty one for all."""
        settings = self._settings
        if settings.domain_id or not settings.domains:
            return [settings.domain_id]
        ids = {name: key for key, name in names.items()}
        missing = [name for name in settings.domains if name not in ids]
        if missing:
            raise exceptions.UsageError(
                'setup',
                f'there is no domain {messages.quoted(missing[0])}; correct [usage] domains',
            )
        return [ids[name] for name in settings.domains]

    # --- Nova ---------------------------------------------------------------

    def _usage(
        self, start: int, end: int, projects: Mapping[str, model.Project]
    ) -> Iterator[answers.Page]:
        """Give all pages of all projects; project by project where all at once is forbidden."""
        period = {'start': moments.text_of(start), 'end': moments.text_of(end)}
        try:
            yield from list(self._pages(_PATH, {'detailed': '1', **period}, is_list=True))
            return
        except errors.Forbidden:
            LOG.debug('%s: forbidden, asking project by project', _PATH)
        self._records, self._stops = 0, []
        for project_id in projects:
            path = f'{_PATH}/{urllib.parse.quote(project_id, safe="")}'
            yield from self._pages(path, period, is_list=False)

    def _pages(
        self, path: str, query: Mapping[str, str], *, is_list: bool
    ) -> Iterator[answers.Page]:
        seen: set[str] = set()
        marker = ''
        while True:
            more = {'limit': str(self._settings.page_size), 'marker': marker}
            asked = {**query, **{key: value for key, value in more.items() if value}}
            page = answers.usage(self._asking.compute(path, asked), is_list=is_list)
            self._records += page.records
            self._stops += [] if page.stop_us is None else [page.stop_us]
            yield page
            is_full = page.records >= self._settings.page_size
            if page.marker in seen or (is_full and not page.marker):
                raise exceptions.UsageError(
                    'truncated', f'{path}: no way to the page after {marker or "the first one"}'
                )
            if not page.marker:
                return
            marker = page.marker
            seen.add(marker)

    def _tagged(self, servers: list[model.ServerUsage], start: int) -> list[model.ServerUsage]:
        """Return instances, those of the project that is counted by tags with their tags."""
        project = self._settings.tagged_project_id
        mine = [each for each in servers if each.project_id == project] if project else []
        if not mine:
            return servers
        query = {'all_tenants': 'True', 'project_id': project}
        found = self._tags(query)
        if any(each.ended_us is not None and each.uuid not in found for each in mine):
            since = f'{moments.text_of(start)}Z'
            found = {**self._tags_of_deleted({**query, 'changes-since': since}), **found}
        return [
            # Who may not choose a project is shown the servers of all of them.
            each._replace(tag=found.get(each.uuid, '')) if each.project_id == project else each
            for each in servers
        ]

    def _tags_of_deleted(self, query: Mapping[str, str]) -> dict[str, str]:
        """Return the tags of deleted instances, none where we may not know them.

        Nova drops ``deleted`` from the question of a user who may not ask so, or answers 403
        (remove_invalid_options in nova/api/openstack/compute/servers.py). Any other answer may
        be another one the next time, and what is booked stays where it is.
        """
        try:
            return self._tags({**query, 'deleted': 'True'})
        except errors.Forbidden:
            LOG.debug('servers that are deleted: forbidden; what was seen alive is remembered')
            return {}

    def _tags(self, query: Mapping[str, str]) -> dict[str, str]:
        found: dict[str, str] = {}
        seen = {''}
        marker = ''
        while True:
            more = {'marker': marker} if marker else {}
            document = self._asking.compute('/servers/detail', {**query, **more})
            found.update(answers.tags(document, self._settings.tag))
            marker = answers.next_marker(document, 'servers_links')
            if not marker:
                return found
            if marker in seen:
                raise exceptions.UsageError('truncated', '/servers/detail: the pages go in a ring')
            seen.add(marker)
