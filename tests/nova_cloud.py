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

"""A cloud on a port of 127.0.0.1 that answers as Keystone and Nova do, and fails as they do.

Shapes are those of Nova's own samples (doc/api_samples/os-simple-tenant-usage/v2.40) and of
Keystone's v3. Faults are functions that get a request before it is answered.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import dataclasses
import datetime
import email.utils
import http.server
import json
import threading
import time
from typing import Any
import urllib.parse

MOST = 1000
USER, PASSWORD = 'oie', 'secret'
DOMAINS = {'default': 'Default', 'd-lab': 'lab'}


def moment(text: str) -> float:
    """Return the Unix time of a text in UTC."""
    return datetime.datetime.fromisoformat(f'{text}+00:00').timestamp()


def text_of(at: float) -> str:
    """Return a Unix time as Nova writes it."""
    utc = datetime.datetime.fromtimestamp(at, datetime.timezone.utc)
    return utc.strftime('%Y-%m-%dT%H:%M:%S.%f')


@dataclasses.dataclass
class Server:
    """An instance of the cloud; times are Unix times."""

    uuid: str
    project: str
    started: float
    ended: float | None = None
    vcpus: int = 2
    memory_mb: int = 4096
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Request:
    """What somebody asked for."""

    path: str
    query: dict[str, str]
    headers: Any


Answer = tuple[int, dict[str, Any]]
# Returns an answer in place of the cloud's, bytes to send as they are, or None.
Fault = Callable[[Request], Answer | bytes | None]


class Cloud:
    """What the cloud holds, and what it was asked."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.projects: dict[str, tuple[str, str]] = {}
        self.servers: list[Server] = []
        self.asked: list[Request] = []
        self.faults: list[Fault] = []
        self.max_limit = MOST
        self.may_list_all = True
        # Whether the user may use all filters of servers.
        self.is_admin = True
        # Entries after which Keystone cuts off its lists.
        self.list_limit: int | None = None
        self.speaks = '2.40'
        self.delay = 0.0
        self.tokens: set[str] = set()
        # Who knows tokens that were given out elsewhere.
        self.validates: Callable[[str], bool] = self.tokens.__contains__
        self.url = ''

    def paths(self) -> list[str]:
        """Return the paths that were asked for, without those of the log-in."""
        return [each.path for each in self.asked if 'auth' not in each.path]

    @property
    def settings(self) -> dict[str, Any]:
        """What openstack.connect() needs to log in."""
        return {
            'auth': {
                'auth_url': f'{self.url}/identity/v3',
                'username': USER,
                'password': PASSWORD,
                'project_name': 'admin',
                'user_domain_id': 'default',
                'project_domain_id': 'default',
            },
            'region_name': 'RegionOne',
        }

    # --- Keystone -----------------------------------------------------------

    def log_in(self) -> tuple[dict[str, Any], str]:
        """Return a new token with its catalogue."""
        token = f'token-{len(self.tokens)}'
        self.tokens.add(token)
        expires = text_of(time.time() + 3600)[:-7] + '.000000Z'
        services = (('identity', '/identity'), ('compute', '/compute/v2.1'))
        catalogue = [
            {
                'id': kind,
                'name': kind,
                'type': kind,
                'endpoints': [
                    {
                        'id': f'{kind}-public',
                        'interface': 'public',
                        'region': 'RegionOne',
                        'region_id': 'RegionOne',
                        'url': f'{self.url}{path}',
                    }
                ],
            }
            for kind, path in services
        ]
        project = {
            'id': 'p-admin',
            'name': 'admin',
            'domain': {'id': 'default', 'name': 'Default'},
        }
        user = {'id': 'u1', 'name': USER, 'domain': {'id': 'default', 'name': 'Default'}}
        body = {
            'methods': ['password'],
            'expires_at': expires,
            'issued_at': text_of(time.time())[:-7] + '.000000Z',
            'user': user,
            'project': project,
            'roles': [{'id': 'r1', 'name': 'admin'}],
            'catalog': catalogue,
        }
        return {'token': body}, token

    def identity(self, request: Request) -> Answer:
        """Answer what Keystone would."""
        path = request.path.removeprefix('/identity').removeprefix('/v3').strip('/')
        if path == 'domains':
            listed = [{'id': key, 'name': name, 'enabled': True} for key, name in DOMAINS.items()]
            return 200, self._cut('domains', listed)
        if path == 'projects':
            wanted = request.query.get('domain_id')
            found = [
                {'id': key, 'name': name, 'domain_id': domain, 'is_domain': False, 'enabled': True}
                for key, (name, domain) in self.projects.items()
                if wanted in (None, domain)
            ]
            return 200, self._cut('projects', found)
        version = {
            'id': 'v3.14',
            'status': 'stable',
            'links': [{'rel': 'self', 'href': f'{self.url}/identity/v3/'}],
        }
        if request.path.rstrip('/').endswith('/v3'):
            return 200, {'version': version}
        return 300, {'versions': {'values': [version]}}

    def _cut(self, key: str, found: list[dict[str, Any]]) -> dict[str, Any]:
        # Keystone names no next page of a list that it has cut off.
        is_cut = self.list_limit is not None and len(found) > self.list_limit
        more = {'truncated': True} if is_cut else {}
        return {key: found[: self.list_limit], 'links': {'next': None}, **more}

    # --- Nova ---------------------------------------------------------------

    def compute(self, request: Request) -> Answer:
        """Answer what Nova would."""
        path = request.path.removeprefix('/compute').removeprefix('/v2.1').strip('/')
        if not path:
            return 200, {'version': self._version()}
        if path == 'servers/detail':
            return self._detail(request)
        if path == 'os-simple-tenant-usage':
            if not self.may_list_all:
                return 403, {'forbidden': {'code': 403, 'message': 'Policy does not allow it.'}}
            return 200, self._usage(request, None)
        return 200, self._usage(request, path.rpartition('/')[2])

    def _version(self) -> dict[str, Any]:
        return {
            'id': 'v2.1',
            'status': 'CURRENT',
            'version': '2.96',
            'min_version': '2.1',
            'links': [{'rel': 'self', 'href': f'{self.url}/compute/v2.1/'}],
        }

    def _page(self, request: Request, found: Iterable[Server]) -> tuple[list[Server], bool]:
        ordered = sorted(found, key=lambda each: each.uuid)
        marker = request.query.get('marker')
        if marker is not None:
            ordered = [each for each in ordered if each.uuid > marker]
        limit = min(int(request.query.get('limit', MOST)), self.max_limit)
        # Nova names a next page where this one is full, whether there is one or not.
        return ordered[:limit], len(ordered) >= limit

    def _links(self, request: Request, page: list[Server], key: str) -> dict[str, Any]:
        query = urllib.parse.urlencode({**request.query, 'marker': page[-1].uuid})
        return {key: [{'rel': 'next', 'href': f'{self.url}{request.path}?{query}'}]}

    def _usage(self, request: Request, project: str | None) -> dict[str, Any]:
        start, end = (moment(request.query[key]) for key in ('start', 'end'))
        # As Nova does: nothing is told of the time to come.
        end = min(end, self.now)
        alive = (
            each
            for each in self.servers
            if each.started < end
            and (each.ended is None or each.ended > start)
            and project in (None, each.project)
        )
        page, has_more = self._page(request, alive)
        usages = [
            self._summary(key, [each for each in page if each.project == key], start, end)
            for key in dict.fromkeys(each.project for each in page)
        ]
        key = 'tenant_usages' if project is None else 'tenant_usage'
        shown: Any = usages if project is None else (usages or [{}])[0]
        links = self._links(request, page, f'{key}_links') if has_more and page else {}
        return {key: shown, **links}

    def _summary(
        self, project: str, servers: list[Server], start: float, end: float
    ) -> dict[str, Any]:
        records = [self._record(each, start, end) for each in servers]
        return {
            'tenant_id': project,
            'start': text_of(start),
            'stop': text_of(end),
            'total_hours': sum(each['hours'] for each in records),
            # Of one page, which is why nobody may use them.
            'total_vcpus_usage': -1.0,
            'total_memory_mb_usage': -1.0,
            'total_local_gb_usage': 0.0,
            'server_usages': records,
        }

    def _record(self, server: Server, start: float, end: float) -> dict[str, Any]:
        until = end if server.ended is None else min(end, server.ended)
        return {
            'instance_id': server.uuid,
            'tenant_id': server.project,
            'name': f'vm-{server.uuid[:4]}',
            'flavor': 'm1.small',
            'hours': max(until - max(start, server.started), 0.0) / 3600,
            'vcpus': server.vcpus,
            'memory_mb': server.memory_mb,
            'local_gb': 20,
            'started_at': text_of(server.started),
            'ended_at': None if server.ended is None else text_of(server.ended),
            'state': 'active' if server.ended is None else 'terminated',
            'uptime': int(until - server.started),
        }

    def _detail(self, request: Request) -> Answer:
        # Nova drops filters that a user may not use, without a word.
        query = request.query if self.is_admin else {**request.query, 'deleted': ''}
        project = query.get('project_id', '') if self.is_admin else ''
        # Without an answer to it, "changes-since" means what is deleted too.
        wanted = {query['deleted'] == 'True'} if query.get('deleted') else {False}
        wanted |= {True} if not query.get('deleted') and 'changes-since' in query else set()
        found = (
            each
            for each in self.servers
            if project in ('', each.project) and (each.ended is not None) in wanted
        )
        page, has_more = self._page(request, found)
        servers = [
            {'id': each.uuid, 'tenant_id': each.project, 'metadata': each.metadata}
            for each in page
        ]
        links = self._links(request, page, 'servers_links') if has_more and page else {}
        return 200, {'servers': servers, **links}

    # --- all of it ----------------------------------------------------------

    def answer(self, request: Request) -> Answer | bytes:
        """Answer a request, or let it fail as somebody wants it."""
        self.asked.append(request)
        for fault in self.faults:
            found = fault(request)
            if found is not None:
                return found
        time.sleep(self.delay)
        is_open = request.path.strip('/') in ('identity', 'identity/v3', 'compute', 'compute/v2.1')
        if not is_open and not self.validates(request.headers.get('X-Auth-Token', '')):
            return 401, {'error': {'code': 401, 'message': 'The request requires a token.'}}
        if request.path.startswith('/identity'):
            return self.identity(request)
        return self.compute(request)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    cloud: Cloud

    def do_GET(self) -> None:
        parts = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        answer = self.cloud.answer(Request(parts.path, query, self.headers))
        if isinstance(answer, bytes):
            self.wfile.write(answer)
            self.close_connection = True
            return
        self._send(*answer)

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        request = Request(self.path, {}, self.headers)
        self.cloud.asked.append(request)
        for fault in self.cloud.faults:
            found = fault(request)
            if isinstance(found, tuple):
                self._send(*found)
                return
        user = sent['auth']['identity']['password']['user']
        if (user['name'], user['password']) != (USER, PASSWORD):
            self._send(401, {'error': {'code': 401, 'message': 'Wrong password.'}})
            return
        body, token = self.cloud.log_in()
        self._send(201, body, {'X-Subject-Token': token})

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response_only(status)
        self.send_header('Date', email.utils.formatdate(self.cloud.now, usegmt=True))
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(data)))
        if self.path.startswith('/compute') and self.cloud.speaks:
            self.send_header('OpenStack-API-Version', f'compute {self.cloud.speaks}')
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        # Who waits no longer has hung up.
        with contextlib.suppress(OSError):
            self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def running(now: float) -> Iterator[Cloud]:
    """Give a cloud that answers until the end of the block."""
    cloud = Cloud(now)
    handler = type('Handler', (_Handler,), {'cloud': cloud})
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    cloud.url = f'http://127.0.0.1:{server.server_address[1]}'
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield cloud
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
