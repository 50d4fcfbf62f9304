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

"""oie-exporter: the daemon that collects and serves."""

from collections.abc import Callable
from collections.abc import Sequence
import gc
import importlib.metadata
import logging
import os
import queue
import signal
import socket
import sys

from oslo_config import cfg

from oie import config
from oie import endpoint
from oie import exceptions
from oie import model
from oie import service
from oie import web
from oie.cmd import log_level
from oie.cmd import reloading
from oie.cmd import report
from oie.cmd import rights
from oie.cmd import service_manager
from oie.cmd import threat_wiring
from oie.cmd import wiring
from oie.collectors import exporter as own_figures
from oie.outputs import prometheus

LOG = logging.getLogger(__name__)
PROG = 'oie-exporter'

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
# Each cycle that ends wakes the main thread; a thread that died is noticed after these seconds.
_LOOK_INTERVAL = 10.0
# Net of those that went again.
_OBJECTS_BETWEEN_COLLECTIONS = 5_000

# Numbers of signals, and None for the end of a cycle.
Wishes = queue.SimpleQueue[int | None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; return the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    wishes: Wishes = queue.SimpleQueue()
    # A log may be rotated while we start: the signal that says so would end the process.
    _note(wishes, signal.SIGHUP)
    try:
        conf = load(arguments)
        values = reloading.values_of(conf)
        config.setup_logging(conf)
        level = log_level.LogLevel(reloading.level_of(values))
        reloader = reloading.Reloader(values, lambda: load(arguments), level)
        return run(conf, reloader, level, wishes)
    except exceptions.ConfigError as exc:
        config.fail(PROG, exc)
    except exceptions.OieError as exc:
        sys.stderr.write(f'{PROG}: {exc}\n')
        return 1


def load(argv: Sequence[str]) -> cfg.ConfigOpts:
    """Return the options by command line and files.

    :raises ConfigError: one of them is wrong
    """
    return wiring.load(argv, PROG, version=importlib.metadata.version('oie'))


def run(
    conf: cfg.ConfigOpts,
    reloader: reloading.Reloader,
    level: log_level.LogLevel,
    wishes: Wishes,
) -> int:
    """Start everything, do what signals ask for, stop everything."""
    _note(wishes, *_SIGNALS)
    daemon = Daemon(conf, level, lambda: reloader.statistics, lambda: wishes.put(None))
    heartbeat = daemon.heartbeat(service_manager.ServiceManager())
    spare_collector()
    daemon.start()
    LOG.info('%s %s runs', PROG, importlib.metadata.version('oie'))
    try:
        status = serve(daemon, wishes, reloader, heartbeat)
    except Exception:
        # Else the process would wait for threads that hang, and nobody would start it anew.
        LOG.exception('%s ends', PROG)
        status = 1
    heartbeat.stop()
    daemon.stop()
    LOG.info('%s stopped', PROG)
    logging.shutdown()
    # A libvirt call that hangs holds a thread that nothing can end.
    os._exit(status)


def _note(wishes: Wishes, *signals: int) -> None:
    """Have signals noted: a handler runs in the middle of anything, and to put is safe there."""
    for number in signals:
        signal.signal(number, lambda got, _frame: wishes.put(got))


def spare_collector() -> None:
    """Keep the garbage collector from searching again what lives as long as the process.

    A cycle makes thousands of objects for which counting references is enough; for each 700 of
    them it would search, now and then all that was ever imported: 2 ms a cycle of 100 instances.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)


def serve(
    daemon: 'Daemon',
    wishes: Wishes,
    reloader: reloading.Reloader,
    heartbeat: service_manager.Heartbeat,
) -> int:
    """Do what signals ask for until one ends it; return the exit status, 1 where a part died."""
    while True:
        heartbeat.beat()
        dead = daemon.dead_part()
        if dead:
            LOG.error('%s died; the exporter ends so that it is started anew', dead)
            return 1
        number = _next(wishes)
        if number == signal.SIGHUP:
            daemon.reopen_logs()
            reloader.reload()
        elif number == signal.SIGUSR2:
            daemon.report()
        elif number is not None:
            return 0


def _next(wishes: Wishes) -> int | None:
    """Return the signal that came; None when a cycle ended, or nothing happened for long."""
    try:
        return wishes.get(timeout=_LOOK_INTERVAL)
    except queue.Empty:
        return None


class Daemon:
    """The service and its endpoint, wired by the options."""

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        level: log_level.LogLevel,
        reloads: Callable[[], model.Reloads] = model.Reloads,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._conf = conf
        self._level = level
        renderer = prometheus.Renderer()
        collectors = wiring.collectors(conf)
        has_instances = wiring.needs_instances(collectors.values())
        self._guard = wiring.web_guard(conf)
        self._watch = threat_wiring.watch(conf)
        self._service = service.Service(
            wiring.instances_source(conf) if has_instances else None,
            collectors,
            renderer,
            hostname=wiring.hostname(conf),
            interval=conf.collector.interval,
            expiration=conf.collector.dynamic_cache_expiration,
            web=self._web_statistics,
            reloads=reloads,
            on_end=on_end,
            readers=wiring.readers(conf, self._watch, has_instances=has_instances),
        )
        self._endpoint = endpoint.Endpoint(
            lambda: self._service.published,
            first=first_exposition,
            content_type=prometheus.CONTENT_TYPE,
            telemetry_path=conf.exporter.telemetry_path,
            pollsters=wiring.pollsters(conf=conf),
            max_age=self._service.max_age,
            collectors=collectors,
            has_instances=has_instances,
            render=lambda families: prometheus.Renderer().render(families),
            version=own_figures.version(),
            documentation=conf.exporter.documentation_url,
        )
        self._server = web.Server(self._listeners(conf))

    def start(self) -> None:
        """Listen, then collect.

        :raises WebError: an address cannot be had
        """
        self._server.start()
        if self._is_exposed():
            # An error, because somebody must act: by default nothing below is logged.
            LOG.error(
                '%s: other hosts can read tenants and addresses here; set [exporter] '
                'web_config_file with TLS and authentication',
                ', '.join(self.addresses),
            )
        for lost in rights.lost(self._conf, rights.read_status()):
            LOG.error('%s', lost)
        self._service.start()

    def stop(self) -> None:
        """End within a few seconds, whatever libvirt does."""
        self._server.stop(2.0)
        self._service.stop(1.0)

    def reopen_logs(self) -> None:
        """Open the files of the log and of the threat log anew: somebody rotated them."""
        reloading.reopen_log_files()
        if self._watch is not None:
            self._watch.reopen_log()

    def report(self) -> None:
        """Write what the process is doing to stderr."""
        version = importlib.metadata.version('oie')
        report.write(self._conf, version, self._service.published)

    def heartbeat(self, manager: service_manager.ServiceManager) -> service_manager.Heartbeat:
        """Return what tells the service manager of the cycles."""
        return service_manager.Heartbeat(
            manager,
            interval=self._conf.collector.interval,
            ended=lambda: self._service.ended,
            completed=lambda: self._service.published,
            status=lambda: self._endpoint.problem() or 'all is read',
        )

    def dead_part(self) -> str:
        """Return the name of a part whose thread ended by itself, empty while all run."""
        if not self._service.is_running:
            return 'the thread of the cycles'
        return '' if self._server.is_running else 'the thread of the endpoint'

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the endpoint listens."""
        return self._server.addresses

    def _listeners(self, conf: cfg.ConfigOpts) -> list[web.Listener]:
        passed = web.passed()
        return [
            *(self._passed_tcp(passed) or self._tcp(conf)),
            *(self._passed_unix(conf, passed) or self._unix(conf)),
        ]

    def _tcp(self, conf: cfg.ConfigOpts) -> list[web.Listener]:
        routes = self._tcp_routes()
        return [
            web.TcpListener(address.host, address.port, routes, guard=self._guard)
            for address in conf.exporter.listen_address
        ]

    def _passed_tcp(self, passed: Sequence[socket.socket]) -> list[web.Listener]:
        """Return the sockets that stand in the place of ``listen_address``."""
        routes = self._tcp_routes()
        return [
            web.PassedListener(each, routes, guard=self._guard)
            for each in passed
            if each.family != socket.AF_UNIX
        ]

    def _unix(self, conf: cfg.ConfigOpts) -> list[web.Listener]:
        if not conf.exporter.socket_path:
            return []
        return [
            web.UnixListener(
                conf.exporter.socket_path,
                self._socket_routes(),
                authorize=_may_poll(conf),
                group=conf.exporter.socket_group or None,
            )
        ]

    def _passed_unix(
        self, conf: cfg.ConfigOpts, passed: Sequence[socket.socket]
    ) -> list[web.Listener]:
        """Return the sockets that stand in the place of ``socket_path``."""
        routes, authorize = self._socket_routes(), _may_poll(conf)
        return [
            web.PassedListener(each, routes, authorize)
            for each in passed
            if each.family == socket.AF_UNIX
        ]

    def _tcp_routes(self) -> web.Routes:
        guard = self._guard
        debug = log_level.LogLevelRoutes(
            self._level, is_authenticated=lambda: guard is not None and guard.authenticates
        )
        return {**self._endpoint.tcp_routes(), **debug.routes()}

    def _socket_routes(self) -> web.Routes:
        debug = log_level.LogLevelRoutes(self._level)
        return {**self._endpoint.socket_routes(), **debug.routes()}

    def _is_exposed(self) -> bool:
        """Return whether other hosts reach the endpoint without TLS and authentication."""
        return self._server.is_public() and not (self._guard and self._guard.is_complete)

    def _web_statistics(self) -> model.WebStatistics:
        found = self._server.statistics()
        requests: dict[str, int] = {}
        for (_, status), number in found.requests.items():
            requests[status] = requests.get(status, 0) + number
        return model.WebStatistics(
            requests=requests,
            dropped=found.dropped,
            connections=sum(found.connections.values()),
            config_is_ok=self._guard.is_ok if self._guard else None,
            config_errors=self._guard.errors if self._guard else None,
            is_public_without_authentication=self._is_exposed(),
        )


def _may_poll(conf: cfg.ConfigOpts) -> Callable[[web.Peer], bool]:
    group = conf.exporter.socket_group
    return endpoint.may_poll(web.group_id(group) if group else os.getegid())


def first_exposition() -> prometheus.Exposition:
    """Return what is known before the first cycle is done: the process itself."""
    return prometheus.Renderer().render((*own_figures.build_info(), *own_figures.process()))


if __name__ == '__main__':
    sys.exit(main())
