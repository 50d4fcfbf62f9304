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

"""The exporter itself: its cycles, its caches, its process."""

from collections.abc import Iterator
import functools
import importlib.metadata
import itertools

import prometheus_client

from oie import model
from oie.collectors import base

GAUGE, CUMULATIVE, INFO = model.Kind.GAUGE, model.Kind.CUMULATIVE, model.Kind.INFO
OWN = 'own bookkeeping'
STATUS = '/proc/self/status'


def _meter(
    prometheus: str, unit: str, help: str, source: str = OWN, kind: model.Kind = GAUGE
) -> model.Meter:
    return model.Meter(prometheus=prometheus, unit=unit, kind=kind, help=help, source=source)


COLLECTION_ERRORS = _meter(
    'oie_host_collection_errors_total',
    'cycle',
    'Cycles in which a source could not be read.',
    kind=CUMULATIVE,
)
COLLECTION_SECONDS = _meter(
    'oie_host_collection_duration_seconds',
    's',
    'Length of this cycle from its start until its figures were ready.',
    'own clock',
)
COLLECTION_LAG = _meter(
    'oie_host_collection_lag_seconds',
    's',
    'Start of this cycle minus end of the last good one; about the interval when all is well.',
    'own clock',
)
LAST_COLLECTION = _meter(
    'oie_host_collection_timestamp_seconds',
    's',
    'Unix time at which this cycle was taken; nothing shown is younger.',
    'own clock',
)
MISSED_CYCLES = _meter(
    'oie_host_collection_missed_total',
    'cycle',
    'Cycles that were not started in time, because the one before took too long.',
    kind=CUMULATIVE,
)
SERIES_ENTRIES = _meter(
    'oie_host_dynamic_cache_series_total', 'instance', 'Instances that are shown at present.'
)
DYNAMIC_ENTRIES = _meter(
    'oie_dynamic_cache_entries', 'instance', 'Instances that are shown at present.'
)
STATIC_ENTRIES = _meter(
    'oie_static_cache_entries', 'domain', 'Domains whose parsed definition is kept.'
)
CLEANUP_SECONDS = _meter(
    'oie_cache_cleanup_duration_seconds',
    's',
    'How long it took in this cycle to drop what has expired or left.',
    'own clock',
)
EVICTIONS = _meter(
    'oie_cache_evictions_total',
    'instance',
    'Instances dropped because they left this host or could not be read for too long.',
    kind=CUMULATIVE,
)
GO_HEAP = _meter(
    'oie_host_go_heap_alloc_bytes',
    'B',
    'Anonymous memory of this process; the name is that of the reference, written in Go.',
    f'{STATUS} RssAnon, KiB',
)
HEAP = _meter(
    'oie_host_heap_alloc_bytes',
    'B',
    'Anonymous memory of this process: heap and stacks.',
    f'{STATUS} RssAnon, KiB',
)
BUILD_INFO = _meter(
    'oie_build_info', '1', 'Version of this exporter, always 1.', 'package metadata', INFO
)
PROMETHEUS_BUILD_INFO = _meter(
    'prometheus_build_info',
    '1',
    'Version of this exporter under the name of the reference, always 1.',
    'package metadata',
    INFO,
)
SUCCESS = _meter(
    'oie_collector_success',
    '1',
    'Whether this group of series could be made in this cycle.',
)
GROUP_SECONDS = _meter(
    'oie_collector_duration_seconds',
    's',
    'Time this cycle took to read or to make this group of series.',
    'own clock',
)
GROUP_LAST_SUCCESS = _meter(
    'oie_collector_last_success_timestamp_seconds',
    's',
    'Unix time at which this group of series was last made.',
    'own clock',
)
SERIES = _meter('oie_exporter_series', 'series', 'Series of this group in the cycle before.')
RENDER_SECONDS = _meter(
    'oie_exporter_render_duration_seconds',
    's',
    'Time it took to write down and compress the series of the cycle before.',
    'own clock',
)
HTTP_REQUESTS = _meter(
    'oie_exporter_http_requests_total',
    'request',
    'Requests answered, by class of status.',
    kind=CUMULATIVE,
)
HTTP_DROPPED = _meter(
    'oie_exporter_http_dropped_total',
    'connection',
    'Connections closed by us, by reason.',
    kind=CUMULATIVE,
)
HTTP_CONNECTIONS = _meter(
    'oie_exporter_http_connections', 'connection', 'Connections open at present.'
)
WEB_CONFIG_OK = _meter(
    'oie_exporter_web_config_ok',
    '1',
    'Whether the web configuration file, as it is now, is in force; 0: an older state of it.',
)
WEB_CONFIG_ERRORS = _meter(
    'oie_exporter_web_config_reload_errors_total',
    'reload',
    'Times the web configuration file had changed and could not be used.',
    kind=CUMULATIVE,
)
CONFIG_OK = _meter(
    'oie_exporter_config_ok',
    '1',
    'Whether the configuration files were right when they were last read; 0: none of it is used.',
)
CONFIG_ERRORS = _meter(
    'oie_exporter_config_reload_errors_total',
    'reload',
    'Times the configuration files were read again and were wrong.',
    kind=CUMULATIVE,
)
CONFIG_LOADED = _meter(
    'oie_exporter_config_last_reload_success_timestamp_seconds',
    's',
    'Unix time at which the configuration files were last read and right.',
    'own clock',
)
CONFIG_WAITING = _meter(
    'oie_exporter_config_options_waiting',
    'option',
    'Options that the configuration files, as last read, set otherwise than what runs: restart.',
)
PUBLIC_WITHOUT_AUTHENTICATION = _meter(
    'oie_exporter_public_without_authentication',
    '1',
    'Whether other hosts can reach the endpoint, but it has not both TLS and authentication.',
)


class ExporterCollector(base.Collector):
    """Figures about ourselves, present in every scrape."""

    GROUP = 'collector_exporter'
    # Of instances it tells how many are shown, which is right where nobody reads any.
    NEEDS = frozenset()
    METERS = (
        COLLECTION_ERRORS,
        COLLECTION_SECONDS,
        COLLECTION_LAG,
        LAST_COLLECTION,
        MISSED_CYCLES,
        SERIES_ENTRIES,
        DYNAMIC_ENTRIES,
        STATIC_ENTRIES,
        CLEANUP_SECONDS,
        EVICTIONS,
        GO_HEAP,
        HEAP,
        BUILD_INFO,
        PROMETHEUS_BUILD_INFO,
        SUCCESS,
        GROUP_SECONDS,
        GROUP_LAST_SUCCESS,
        SERIES,
        RENDER_SECONDS,
        HTTP_REQUESTS,
        HTTP_DROPPED,
        HTTP_CONNECTIONS,
        WEB_CONFIG_OK,
        WEB_CONFIG_ERRORS,
        CONFIG_OK,
        CONFIG_ERRORS,
        CONFIG_LOADED,
        CONFIG_WAITING,
        PUBLIC_WITHOUT_AUTHENTICATION,
    )

    def collect(
        self, previous: model.Snapshot | None, current: model.Snapshot, notes: base.Notes
    ) -> Iterator[model.Family]:
        """Give our own figures."""
        yield from _cycle(current)
        yield from _caches(current)
        yield from _groups(current.cycle)
        yield from _http(current.web)
        yield from _configuration(current.reloads)
        heap = _anonymous_bytes()
        yield from base.single(GO_HEAP, heap)
        yield from base.single(HEAP, heap)
        yield from build_info()
        yield from process()


def _cycle(current: model.Snapshot) -> Iterator[model.Family]:
    cycle = current.cycle
    yield from base.single(COLLECTION_ERRORS, cycle.errors)
    yield from base.single(COLLECTION_SECONDS, base.round5(cycle.duration_seconds))
    yield from base.single(COLLECTION_LAG, base.round5(cycle.lag_seconds))
    yield from base.single(LAST_COLLECTION, current.taken_at)
    yield from base.single(MISSED_CYCLES, cycle.missed)


def _caches(current: model.Snapshot) -> Iterator[model.Family]:
    shown = len(current.instances.value)
    yield from base.single(SERIES_ENTRIES, shown)
    yield from base.single(DYNAMIC_ENTRIES, shown)
    yield from base.single(STATIC_ENTRIES, current.hypervisor.definitions_cached)
    yield from base.single(CLEANUP_SECONDS, base.round5(current.cycle.cleanup_seconds))
    yield from base.single(EVICTIONS, current.cycle.evictions)


def _groups(cycle: model.CycleStatistics) -> Iterator[model.Family]:
    groups = [(model.Labels.of(group=name), health) for name, health in cycle.groups.items()]
    yield from base.family(SUCCESS, ((labels, int(g.is_success)) for labels, g in groups))
    yield from base.family(GROUP_SECONDS, ((labels, g.seconds) for labels, g in groups))
    yield from base.family(GROUP_LAST_SUCCESS, ((labels, g.succeeded_at) for labels, g in groups))
    yield from base.family(SERIES, ((labels, g.series) for labels, g in groups))
    yield from base.single(RENDER_SECONDS, cycle.render_seconds)


def _http(web: model.WebStatistics) -> Iterator[model.Family]:
    requests = web.requests.items()
    dropped = web.dropped.items()
    yield from base.family(HTTP_REQUESTS, ((model.Labels.of(status=s), n) for s, n in requests))
    yield from base.family(HTTP_DROPPED, ((model.Labels.of(reason=r), n) for r, n in dropped))
    yield from base.single(HTTP_CONNECTIONS, web.connections)
    yield from base.single(WEB_CONFIG_OK, _as_number(web.config_is_ok))
    yield from base.single(WEB_CONFIG_ERRORS, web.config_errors)
    exposed = web.is_public_without_authentication
    yield from base.single(PUBLIC_WITHOUT_AUTHENTICATION, _as_number(exposed))


def _configuration(reloads: model.Reloads) -> Iterator[model.Family]:
    yield from base.single(CONFIG_OK, _as_number(reloads.is_ok))
    yield from base.single(CONFIG_ERRORS, reloads.errors)
    yield from base.single(CONFIG_LOADED, reloads.succeeded_at)
    yield from base.single(CONFIG_WAITING, reloads.waiting)


def _as_number(truth: bool | None) -> int | None:
    return None if truth is None else int(truth)


def build_info() -> Iterator[model.Family]:
    """Give the version under our name and under that of the reference."""
    labels = model.Labels.of(version=version())
    yield model.Family.of(BUILD_INFO, [(labels, 1)])
    yield model.Family.of(PROMETHEUS_BUILD_INFO, [(labels, 1)])


@functools.cache
def version() -> str:
    """Return the version of this exporter."""
    return importlib.metadata.version('oie')


def process() -> Iterator[model.Family]:
    """Give ``process_*`` and ``python_*`` as the client library measures them."""
    for metric in _process_registry().collect():
        kind = CUMULATIVE if metric.type == 'counter' else GAUGE
        for name, samples in itertools.groupby(metric.samples, key=lambda sample: sample.name):
            meter = _meter(name, '', metric.documentation, 'prometheus_client', kind)
            yield model.Family.of(
                meter, ((model.Labels.of(**sample.labels), sample.value) for sample in samples)
            )


@functools.cache
def _process_registry() -> prometheus_client.CollectorRegistry:
    """Return the collectors of the client library in a registry of our own."""
    registry = prometheus_client.CollectorRegistry()
    prometheus_client.ProcessCollector(registry=registry)
    prometheus_client.PlatformCollector(registry=registry)
    prometheus_client.GCCollector(registry=registry)
    return registry


def _anonymous_bytes() -> int | None:
    """Return RssAnon of this process, None on kernels before 4.5."""
    try:
        with open(STATUS, encoding='ascii', errors='replace') as file:
            for line in file:
                if line.startswith('RssAnon:'):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        return None
    return None
