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

"""What the HTTP endpoint and the pollsters' socket answer: ready bytes of the service."""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
import functools
import itertools
import os
import threading
import time
from typing import Protocol

from oie import exceptions
from oie import model
from oie import service
from oie import web
from oie.outputs import page_style
from oie.outputs import status_page

# Prometheus spells them so, and node_exporter made them known.
COLLECT, EXCLUDE = 'collect[]', 'exclude[]'
# Selections that are kept ready; each costs about as much memory as the whole.
_MOST_SELECTIONS = 8

_NOTHING_YET = 'no collection is complete yet'


class Exposition(Protocol):
    """Ready bytes of one cycle."""

    @property
    def text(self) -> bytes:
        """The plain text."""

    @property
    def gzipped(self) -> bytes:
        """The same, compressed."""


class Pollster(Protocol):
    """Makes the JSON of one list."""

    @property
    def needs(self) -> Collection[str]:
        """The fields of a snapshot that it shows."""

    def render(self, snapshot: model.Snapshot) -> bytes:
        """Return the whole document.

        :raises PollsterError: what it needs is not known
        """


class Endpoint:
    """Handlers over the latest publication; none of them ever waits.

    :param first: what is served until the first cycle is done, and when no
        cycle is done any more
    :param max_age: seconds after which the latest complete cycle is too old
    :param collectors: names that a scrape may select by
    :param has_instances: False where no collector needs libvirt, which is not asked then
    :param render: writes down what was selected; from several threads, one after the other
    :param version: of this exporter, for the page for people
    :param documentation: address that this page leads to, empty for none
    """

    def __init__(
        self,
        published: Callable[[], service.Publication | None],
        *,
        first: Callable[[], Exposition],
        content_type: str,
        telemetry_path: str,
        pollsters: Mapping[str, Pollster],
        max_age: Callable[[], float],
        collectors: Collection[str] = (),
        render: Callable[[Iterable[model.Family]], Exposition] | None = None,
        version: str = '',
        documentation: str = '',
        has_instances: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._published = published
        self._has_instances = has_instances
        self._first = first
        self._content_type = content_type
        self._telemetry_path = telemetry_path
        self._pollsters = pollsters
        self._max_age = max_age
        self._collectors = frozenset(collectors)
        self._render = render
        self._version = version
        self._documentation = documentation
        self._clock = clock
        self._started_at = clock()
        self._lock = threading.Lock()
        self._selected_of: service.Publication | None = None
        self._selections: dict[frozenset[str], Exposition] = {}

    def tcp_routes(self) -> web.Routes:
        """Return what Prometheus and probes may ask."""
        return {
            # Some milliseconds on a host of a thousand instances.
            '/': {'GET': web.Route(self.landing, is_slow=True)},
            self._telemetry_path: {'GET': web.Route(self.metrics, is_slow=_may_select)},
            '/healthz': {'GET': web.Route(lambda _request: _line(200, 'ok'))},
            '/readyz': {'GET': web.Route(self.ready)},
        }

    def socket_routes(self) -> web.Routes:
        """Return what ``oie-pollster`` may ask over the unix socket."""
        return {
            f'/pollsters/{name}': {
                'GET': web.Route(functools.partial(self.poll, pollster), is_slow=True)
            }
            for name, pollster in self._pollsters.items()
        }

    def metrics(self, request: web.Request) -> web.Response:
        """Return the exposition of the latest cycle, never one that is too old."""
        wanted = self._wanted(request)
        published = self._published()
        if published is None or self._is_old(published.snapshot.taken_at):
            exposition = self._first()
        elif wanted is None or self._render is None:
            exposition = published.exposition
        else:
            exposition = self._selected(published, wanted, self._render)
        headers: tuple[tuple[str, str], ...] = (('Vary', 'Accept-Encoding'),)
        if request.accepts_gzip():
            headers, body = (('Content-Encoding', 'gzip'), *headers), exposition.gzipped
        else:
            body = exposition.text
        return web.Response(body=body, content_type=self._content_type, headers=headers)

    def _wanted(self, request: web.Request) -> frozenset[str] | None:
        """Return the collectors that the query asks for, None for all.

        :raises RequestError: one of them is unknown, or the query names and excludes
        """
        if not _may_select(request):
            return None
        fields = request.parameters()
        collect, exclude = (frozenset(fields.get(name, ())) for name in (COLLECT, EXCLUDE))
        if collect and exclude:
            raise web.RequestError(400, f'{COLLECT} and {EXCLUDE} exclude each other')
        unknown = (collect | exclude) - self._collectors
        if unknown:
            raise web.RequestError(400, f'there is no collector {min(unknown)!a} here')
        if not (collect or exclude):
            return None
        return collect or self._collectors - exclude

    def _selected(
        self,
        published: service.Publication,
        wanted: frozenset[str],
        render: Callable[[Iterable[model.Family]], Exposition],
    ) -> Exposition:
        """Return what some collectors gave, written down once in a cycle."""
        with self._lock:
            if self._selected_of is not published:
                self._selected_of, self._selections = published, {}
            found = self._selections.get(wanted)
            if found is None:
                given = (published.families.get(name, ()) for name in sorted(wanted))
                found = render(itertools.chain.from_iterable(given))
                if len(self._selections) >= _MOST_SELECTIONS:
                    del self._selections[next(iter(self._selections))]
                self._selections[wanted] = found
            return found

    def ready(self, _request: web.Request) -> web.Response:
        """Return 200 while the latest complete cycle is young enough."""
        problem = self.problem()
        return _line(503, problem) if problem else _line(200, 'ok')

    def poll(self, pollster: Pollster, _request: web.Request) -> web.Response:
        """Return one pollster's JSON, or 503 with the reason why it would be wrong.

        A network node without libvirt has lists that need none.
        """
        needs_instances = 'instances' in pollster.needs
        if needs_instances and not self._has_instances:
            return _line(503, 'no collector of [collector] enabled needs libvirt: it is not read')
        problem = self.problem() if needs_instances else self._standstill()
        published = self._published()
        if problem or published is None:
            return _line(503, problem)
        try:
            body = pollster.render(published.snapshot)
        except exceptions.PollsterError as exc:
            return _line(503, str(exc))
        return web.Response(body=body, content_type='application/json')

    def problem(self) -> str:
        """Return why the latest figures must not be trusted, empty when they may."""
        published = self._published()
        if published is None:
            return _NOTHING_YET
        if not self._has_instances:
            return self._standstill()
        instances = published.snapshot.instances
        if instances.read_at is None:
            return f'libvirt could not be read yet: {instances.error}'
        if self._is_old(instances.read_at):
            age = self._clock() - instances.read_at
            reason = instances.error or _unfinished(published.snapshot.cycle)
            return f'libvirt was last read {age:.0f} s ago: {reason}'
        return ''

    def _standstill(self) -> str:
        """Return why no figures at all must be trusted, whatever they are of."""
        published = self._published()
        if published is None:
            return _NOTHING_YET
        taken_at = published.snapshot.taken_at
        if self._is_old(taken_at):
            return f'the last collection ended {self._clock() - taken_at:.0f} s ago'
        return ''

    def _is_old(self, moment: float) -> bool:
        return service.is_old(moment, self._clock(), self._max_age())

    def landing(self, _request: web.Request) -> web.Response:
        """Return a page for people: what is read, how old it is, what needs a hand."""
        published = self._published()
        about = status_page.About(
            now=self._clock(),
            started_at=self._started_at,
            version=self._version,
            problem=self.problem(),
            max_age=self._max_age(),
            telemetry_path=self._telemetry_path,
            collectors=self._collectors,
            documentation=self._documentation,
        )
        body = status_page.render(None if published is None else published.snapshot, about)
        return web.Response(
            body=body, content_type='text/html; charset=utf-8', headers=page_style.HEADERS
        )


def _unfinished(last: model.CycleStatistics) -> str:
    """Return that a cycle does not end, and where the last one spent its time."""
    seconds, slowest = max((each.seconds, name) for name, each in last.groups.items())
    return f'no cycle has ended since; of the last one {slowest} took {seconds:.1f} s'


def _may_select(request: web.Request) -> bool:
    """Return whether a scrape may want a part, which must be written down first."""
    return bool(request.query)


def may_poll(gid: int) -> Callable[[web.Peer], bool]:
    """Return who may use the pollsters' socket: root, ourselves, its group.

    The mode of the socket says the same; this holds where somebody changed it.
    """
    own = os.geteuid()

    def authorize(peer: web.Peer) -> bool:
        if peer.uid is None:
            return False
        return peer.uid in (0, own) or gid in (peer.gid, *peer.groups)

    return authorize


def _line(status: int, text: str) -> web.Response:
    return web.Response(status=status, body=f'{text}\n'.encode(errors='replace'))
