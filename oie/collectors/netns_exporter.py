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


"""Network namespaces under the names of netns-exporter, for its dashboards."""

from collections.abc import Iterator
import functools
import operator
from typing import Any

from oie import model
from oie.collectors import base
from oie.collectors import exporter
from oie.collectors import further_labels
from oie.config import netns_settings

GAUGE, CUMULATIVE, INFO = model.Kind.GAUGE, model.Kind.CUMULATIVE, model.Kind.INFO
PROC_PREFIX, PROC_SUFFIX = 'netns_network_', '_total'
ROUTER_PREFIX = 'qrouter-'


def _meter(
    prometheus: str, help: str, source: str, kind: model.Kind = CUMULATIVE, unit: str = '1'
) -> model.Meter:
    return model.Meter(prometheus=prometheus, unit=unit, kind=kind, help=help, source=source)


# By the names of [netns] interface_metrics; the help is that of netns-exporter, here and below.
INTERFACE_METERS = {
    name.removeprefix(PROC_PREFIX).removesuffix(PROC_SUFFIX): _meter(
        name, 'Interface statistics in the network namespace', 'rtnetlink IFLA_STATS64', unit=unit
    )
    for name, unit in (
        ('netns_network_rx_bytes_total', 'B'),
        ('netns_network_tx_bytes_total', 'B'),
        ('netns_network_rx_packets_total', 'packet'),
        ('netns_network_tx_packets_total', 'packet'),
        ('netns_network_rx_errors_total', 'packet'),
        ('netns_network_tx_errors_total', 'packet'),
        ('netns_network_rx_dropped_total', 'packet'),
        ('netns_network_tx_dropped_total', 'packet'),
        ('netns_network_multicast_total', 'packet'),
        ('netns_network_collisions_total', 'collision'),
        ('netns_network_rx_length_errors_total', 'packet'),
        ('netns_network_rx_over_errors_total', 'packet'),
        ('netns_network_rx_crc_errors_total', 'packet'),
        ('netns_network_rx_frame_errors_total', 'packet'),
        ('netns_network_rx_fifo_errors_total', 'packet'),
        ('netns_network_rx_missed_errors_total', 'packet'),
        ('netns_network_tx_aborted_errors_total', 'packet'),
        ('netns_network_tx_carrier_errors_total', 'packet'),
        ('netns_network_tx_fifo_errors_total', 'packet'),
        ('netns_network_tx_heartbeat_errors_total', 'packet'),
        ('netns_network_tx_window_errors_total', 'packet'),
        ('netns_network_rx_compressed_total', 'packet'),
        ('netns_network_tx_compressed_total', 'packet'),
        ('netns_network_rx_nohandler_total', 'packet'),
    )
}
UP = _meter(
    'netns_network_up',
    "Value is 1 if operstate is 'up', 0 otherwise.",
    # That is what theirs does, whatever its help says; so is the type.
    'rtnetlink RTM_GETLINK ifi_flags IFF_UP',
)
NAMESPACE = _meter(
    'netns_network_namespace',
    'Network namespace that was read, always 1.',
    'readdir(3)',
)
BUILD_INFO = _meter(
    'netns_exporter_build_info',
    "A metric with a constant '1' value labeled by version, revision, branch, and goversion "
    'from which netns_exporter was built.',
    'package metadata',
    INFO,
)


@functools.cache
def proc_meter(name: str) -> model.Meter:
    """Return the meter of a file of ``[netns] proc_metrics`` by its name there."""
    return _meter(
        f'{PROC_PREFIX}{name}{PROC_SUFFIX}',
        'Statistics from /proc filesystem in the network namespace',
        'the file below /proc',
    )


class NetnsExporterCollector(base.Collector):
    """``netns_network_*`` with the labels and types of netns-exporter.

    Of the counters of a device those are shown that ``[netns] interface_metrics`` names, and a
    series of the form ``netns_network_NAME_total`` for each of ``[netns] proc_metrics``, such
    as ``nat_conntrack``. Labels are those of ``[netns] compat``.
    """

    GROUP = 'netns'
    NEEDS = frozenset({'namespaces'})
    METERS = (
        *INTERFACE_METERS.values(),
        proc_meter('nat_conntrack'),
        UP,
        NAMESPACE,
        BUILD_INFO,
    )
    METRIC_SET = 'netns'

    def __init__(self, options: Any, common: Any) -> None:
        """Learn which counters are shown.

        :raises ConfigError: the file of netns-exporter is wrong
        """
        super().__init__(options, common)
        self._counters = netns_settings.of(options).interface_metrics
        self._of_devices = further_labels.FurtherLabels(_labels)
        self._of_namespaces = further_labels.FurtherLabels(_namespace_labels)

    def collect(
        self, previous: model.Snapshot | None, current: model.Snapshot, notes: base.Notes
    ) -> Iterator[model.Family]:
        """Give what was read; what was not is absent, never -1."""
        info = model.Labels.of(branch='', goversion='', revision='', version=exporter.version())
        yield from base.family(BUILD_INFO, ((info, 1),))
        table = current.namespaces.value
        if table is None:
            return
        is_long = self.options.compat != 'velp'
        hostname = current.hostname
        self._of_devices.begin_cycle()
        self._of_namespaces.begin_cycle()
        devices = [
            (self._device_labels(each.name, d, hostname) if is_long else d.labels, d)
            for each in table.namespaces
            for d in each.devices or ()
        ]
        counted = [(labels, device.statistics) for labels, device in devices]
        chosen = (
            (INTERFACE_METERS[field], operator.attrgetter(field)) for field in self._counters
        )
        yield from base.families(chosen, counted)
        yield from _proc(table)
        if is_long:
            up = ((lb, None if d.is_up is None else int(d.is_up)) for lb, d in devices)
            yield from base.family(UP, up)
            of = self._of_namespaces.of
            there = ((of(each.labels, hostname), 1) for each in table.namespaces)
            yield from base.family(NAMESPACE, there)

    def _device_labels(
        self, netns: str, device: model.NamespaceDevice, hostname: str
    ) -> model.Labels:
        address = device.addresses[0] if device.addresses else ''
        return self._of_devices.of(device.labels, netns, hostname, address)


def _proc(table: model.NamespaceTable) -> Iterator[model.Family]:
    by_name: dict[str, list[tuple[model.Labels, float]]] = {}
    for each in table.namespaces:
        for name, value in each.proc.items():
            by_name.setdefault(name, []).append((each.labels, value))
    for name, samples in by_name.items():
        yield model.Family.of(proc_meter(name), samples)


def _labels(labels: model.Labels, netns: str, hostname: str, address: str) -> model.Labels:
    """Return the labels of a device as saeed-mcu's exporter and its description have them."""
    return labels.extended(
        router=netns.replace(ROUTER_PREFIX, ''),
        host=hostname,
        hostname=hostname,
        deviceIP=address.partition('/')[0],
    )


def _namespace_labels(labels: model.Labels, hostname: str) -> model.Labels:
    return labels.extended(hostname=hostname)
