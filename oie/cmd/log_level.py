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

"""How much oie writes to its log: shown and set while it runs, by those who may."""

from collections.abc import Callable
from collections.abc import Mapping
import ipaddress
import logging
import os
import threading
import urllib.parse

from oie import config
from oie import web

LOG = logging.getLogger(__name__)

PATH = '/debug/log-level'
LONGEST_TTL = 86400.0

_FIELDS = frozenset({'level', 'ttl'})
_MOST_FIELDS = 8
# What proxies add: behind one, every peer looks local.
_FORWARDED = frozenset({'forwarded', 'via', 'x-forwarded-for', 'x-real-ip'})


class LogLevel:
    """The level of our loggers, which goes back by itself where it was set for a time.

    :param level: the name of the level by the configuration
    """

    def __init__(self, level: str) -> None:
        self._lock = threading.Lock()
        self._level = self._lasting = level
        self._timer: threading.Timer | None = None

    @property
    def name(self) -> str:
        """The name of the level in force."""
        return self._level

    def set(self, level: str, ttl: float | None = None) -> None:
        """Set the level, for so many seconds or until it is set again."""
        with self._lock:
            self._cancel()
            if ttl is None:
                self._lasting = level
            else:
                self._timer = threading.Timer(ttl, self._go_back)
                self._timer.name, self._timer.daemon = 'oie-log-level', True
                self._timer.start()
            self._apply(level)

    def _go_back(self) -> None:
        with self._lock:
            if self._timer is not threading.current_thread():
                return  # it was set anew in this moment
            self._timer = None
            _tell('the log level goes back from %s to %s', self._level, self._lasting)
            self._apply(self._lasting)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _apply(self, level: str) -> None:
        self._level = level
        config.set_log_level(level)


class LogLevelRoutes:
    """What ``/debug/log-level`` answers.

    :param is_authenticated: whether a request that gets here has shown who sends it
    """

    def __init__(
        self, level: LogLevel, *, is_authenticated: Callable[[], bool] = lambda: False
    ) -> None:
        self._level = level
        self._is_authenticated = is_authenticated

    def routes(self) -> web.Routes:
        """Return the path with its two methods."""
        return {PATH: {'GET': web.Route(self.show), 'POST': web.Route(self.change)}}

    def show(self, request: web.Request) -> web.Response:
        """Return the name of the level; nothing changes."""
        if _is_browser(request):
            return _line(403, 'not from a browser')
        return _line(200, self._level.name)

    def change(self, request: web.Request) -> web.Response:
        """Set the level that the fields name, 403 for who may not and 400 for what is none."""
        if _is_browser(request):
            return _line(403, 'not from a browser')
        if not (self._is_authenticated() or is_local(request)):
            return _line(403, 'only from this host, or with authentication')
        try:
            level, ttl = parse(_fields(request))
        except ValueError as exc:
            return _line(400, str(exc))
        before = self._level.name
        self._level.set(level, ttl)
        until = '' if ttl is None else f' for {ttl:g} s'
        _tell('the log level was set from %s to %s%s by %s', before, level, until, _who(request))
        return _line(200, level)


def parse(fields: Mapping[str, str]) -> tuple[str, float | None]:
    """Return the level and for how many seconds, None for no end.

    :raises ValueError: a field is missing, unknown or wrong
    """
    unknown = fields.keys() - _FIELDS
    if unknown:
        raise ValueError(f'unknown field {sorted(unknown)[0]!a}; there are level and ttl')
    level = fields.get('level', '')
    if level not in config.LOG_LEVELS:
        raise ValueError(f'level must be one of {", ".join(config.LOG_LEVELS)}')
    if 'ttl' not in fields:
        return level, None
    return level, float(config.Duration(minimum=1, maximum=LONGEST_TTL)(fields['ttl']))


def is_local(request: web.Request) -> bool:
    """Return whether the peer is a process of this host that speaks for itself.

    On a unix socket root and our own user do; the group that may poll may not change us.
    """
    if _FORWARDED & request.headers.keys():
        return False
    if request.peer.uid is not None:
        return request.peer.uid in (0, os.geteuid())
    try:
        address = ipaddress.ip_address(request.peer.address.partition('%')[0])
    except ValueError:
        return False
    return (getattr(address, 'ipv4_mapped', None) or address).is_loopback


def _is_browser(request: web.Request) -> bool:
    """Return whether a web page may be behind the request: browsers add these by themselves."""
    return any(name == 'origin' or name.startswith('sec-fetch-') for name in request.headers)


def _fields(request: web.Request) -> dict[str, str]:
    """Return the fields of query and body, which is a form.

    :raises ValueError: one comes twice, they are too many, or the body is no form
    """
    text = '&'.join(filter(None, (request.query, request.body.decode('ascii', 'replace').strip())))
    pairs = urllib.parse.parse_qsl(
        text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=_MOST_FIELDS
    )
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError('a field comes twice')
    return fields


def _who(request: web.Request) -> str:
    peer = request.peer
    return peer.address if peer.uid is None else f'uid {peer.uid} (pid {peer.pid}) on the socket'


def _tell(text: str, *arguments: object) -> None:
    """Log at the highest level, so that it is in the log whatever the level is."""
    LOG.error(text, *arguments)


def _line(status: int, text: str) -> web.Response:
    return web.Response(status=status, body=f'{text}\n'.encode(errors='replace'))
