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

from collections.abc import Sequence
import importlib.metadata
import logging
import os
import signal
import sys
import threading

from oslo_config import cfg

from oie import config
from oie import endpoint
from oie import exceptions
from oie import model
from oie import service
from oie import web
from oie.cmd import threat_wiring
from oie.cmd import wiring
from oie.collectors import exporter as own_figures
from oie.outputs import prometheus

LOG = logging.getLogger(__name__)
PROG = 'oie-exporter'


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; return the exit status."""
    try:
        conf = wiring.load(
            sys.argv[1:] if argv is None else argv,
            PROG,
            version=importlib.metadata.version('oie'),
        )
        config.setup_logging(conf)
        return run(conf)
    except exceptions.ConfigError as exc:
        config.fail(PROG, exc)
    except exceptions.OieError as exc:
        sys.stderr.write(f'{PROG}: {exc}\n')
        return 1


def run(conf: cfg.ConfigOpts) -> int:
    """Start everything, wait for a signal, stop everything."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    daemon = Daemon(conf)
    signal.signal(signal.SIGHUP, lambda *_: daemon.reopen_logs())
    daemon.start()
    LOG.info('%s %s runs', PROG, importlib.metadata.version('oie'))
    stopping.wait()
    daemon.stop()
    LOG.info('%s stopped', PROG)
    logging.shutdown()
    # A libvirt call that hangs holds a thread that nothing can end.
    os._exit(0)


class Daemon:
    """The service and its endpoint, wired by the options."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        renderer = prometheus.Renderer()
        self._watch = threat_wiring.watch(conf)
        self._service = service.Service(
            wiring.instances_source(conf),
            wiring.collectors(conf),
            renderer,
            hostname=wiring.hostname(conf),
            interval=conf.collector.interval,
            expiration=conf.collector.dynamic_cache_expiration,
            web=self._web_statistics,
            readers=wiring.readers(conf, self._watch),
        )
        self._endpoint = endpoint.Endpoint(
            lambda: self._service.published,
            first=first_exposition,
            content_type=prometheus.CONTENT_TYPE,
            telemetry_path=conf.exporter.telemetry_path,
            pollsters=wiring.pollsters(conf=conf),
            max_age=self._service.max_age,
        )
        self._server = web.Server(self._listeners(conf))

    def start(self) -> None:
        """Listen, then collect.

        :raises WebError: an address cannot be had
        """
        self._server.start()
        self._service.start()

    def stop(self) -> None:
        """End within a few seconds, whatever libvirt does."""
        self._server.stop(2.0)
        self._service.stop(1.0)

    def reopen_logs(self) -> None:
        """Open the threat log anew; in a signal handler, so it only asks for it."""
        if self._watch is not None:
            self._watch.reopen_log()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the endpoint listens."""
        return self._server.addresses

    def _listeners(self, conf: cfg.ConfigOpts) -> list[web.Listener]:
        routes = self._endpoint.tcp_routes()
        listeners: list[web.Listener] = [
            web.TcpListener(address.host, address.port, routes)
            for address in conf.exporter.listen_address
        ]
        if conf.exporter.socket_path:
            listeners.append(self._socket(conf))
        return listeners

    def _socket(self, conf: cfg.ConfigOpts) -> web.UnixListener:
        group = conf.exporter.socket_group
        return web.UnixListener(
            conf.exporter.socket_path,
            self._endpoint.socket_routes(),
            authorize=endpoint.may_poll(web.group_id(group) if group else os.getegid()),
            group=group or None,
        )

    def _web_statistics(self) -> model.WebStatistics:
        found = self._server.statistics()
        requests: dict[str, int] = {}
        for (_, status), number in found.requests.items():
            requests[status] = requests.get(status, 0) + number
        return model.WebStatistics(
            requests=requests,
            dropped=found.dropped,
            connections=sum(found.connections.values()),
        )


def first_exposition() -> prometheus.Exposition:
    """Return what is known before the first cycle is done: the process itself."""
    return prometheus.Renderer().render((*own_figures.build_info(), *own_figures.process()))


if __name__ == '__main__':
    sys.exit(main())
