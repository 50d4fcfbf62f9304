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

"""From options to objects: what the programs have in common."""

from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import functools
import logging
import os
import pathlib
import socket
from typing import Any
from typing import TYPE_CHECKING

from oslo_config import cfg

from oie import config
from oie import exceptions
from oie import opts
from oie import plugins
from oie import service
from oie.analysis import routers
from oie.collectors import base as collectors_base
from oie.collectors import namespaces
from oie.config import netns_settings
from oie.config import usage_aliases
from oie.outputs import ceilometer
from oie.sources import netns
from oie.sources import reachability
from oie.sources.guest_os import reader as guest_systems
from oie.sources.zone_maps import choice
from oie.sources.zone_maps import kept

if TYPE_CHECKING:
    from oie import threats
    from oie.ledger import reader as ledger_reader
    from oie.project_usage import reader as project_usage_reader
    from oie.web import protection

LOG = logging.getLogger(__name__)

COLLECTORS = 'oie.collectors'
SOURCES = 'oie.sources'
ZONE_MAPS = 'oie.zone_maps'
GUEST_OS = 'oie.guest_os'
# Fields of the snapshot that have nothing to do with the instances of this host.
_WITHOUT_INSTANCES = frozenset(
    {'namespaces', 'namespaces_health', 'project_usage', 'project_usage_health'}
)


def load(argv: Sequence[str], prog: str, **more: Any) -> cfg.ConfigOpts:
    """Return the options of a program, all of them checked.

    :raises ConfigError: one of them is wrong
    """
    conf = config.load(argv, prog=prog, groups=opts.option_groups, **more)
    usage_aliases.apply(conf, os.environ)
    return conf


def hostname(conf: cfg.ConfigOpts) -> str:
    """Return the name by which OpenStack knows this host."""
    return str(conf.host or socket.gethostname())


def collectors(conf: cfg.ConfigOpts) -> dict[str, collectors_base.Collector]:
    """Return the enabled collectors of the chosen metric sets by name."""
    wanted = conf.collector.enabled or None
    made = {}
    for name, plugin in plugins.load(COLLECTORS, wanted).items():
        if plugin.METRIC_SET in conf.exporter.metric_sets:
            group = plugins.group_of(COLLECTORS, name, plugin)
            made[name] = plugin(_options(conf, group), conf.collector)
    if not made:
        raise exceptions.ConfigError(
            '[collector] enabled leaves no collector for [exporter] metric_sets; '
            'name one more or leave it empty'
        )
    return made


def needs_instances(collectors: Iterable[collectors_base.Collector]) -> bool:
    """Return whether libvirt must be read for these collectors, which a control node has not."""
    needs = frozenset().union(*(collector.NEEDS for collector in collectors))
    return not needs or bool(needs - _WITHOUT_INSTANCES)


def instances_source(conf: cfg.ConfigOpts, *, remembers: bool = True) -> service.InstancesSource:
    """Return the source of instances.

    :param remembers: whether suspects and the times of unplugged vCPUs are written for
        the next start; a program beside the daemon reads the times and writes nothing
    """
    plugin = plugins.load(SOURCES, ('instances',))['instances']
    options = _options(conf, plugins.group_of(SOURCES, 'instances', plugin))
    path = options.suspects_path
    if path and remembers:
        _make_directory(path)
    source: service.InstancesSource = plugin(
        options,
        expiration=conf.collector.static_cache_expiration,
        keep_without_metadata=conf.collector.without_nova_metadata == 'keep',
        optional=frozenset(conf.collector.optional),
        suspects_path=path,
        remembers=remembers,
    )
    return source


def readers(
    conf: cfg.ConfigOpts, watch: 'threats.Watch | None' = None, *, has_instances: bool = True
) -> dict[str, service.Reader]:
    """Return what is read for the instances beside libvirt, by the name of its group.

    :param watch: what wants to see the flows, see threat_wiring.watch()
    :param has_instances: whether there are any, see needs_instances()
    """
    without: dict[str, service.Reader | None] = {
        'netns': network_namespaces(conf),
        'projects': projects(conf),
    }
    made = {**(of_instances(conf, watch) if has_instances else {}), **without}
    return {name: reader for name, reader in made.items() if reader is not None}


def of_instances(
    conf: cfg.ConfigOpts, watch: 'threats.Watch | None'
) -> dict[str, service.Reader | None]:
    """Return what is read for the instances of this host."""
    guests = guest_os(conf)
    return {
        'guest_os': guests,
        'conntrack': flow_reader(conf, watch),
        'probes': probes(conf),
        'threats': watch,
        # After the guests: it counts the licences that they need in this cycle.
        'ledger': ledger(conf, guests.license_units if guests else None),
    }


def web_guard(conf: cfg.ConfigOpts) -> 'protection.Guard | None':
    """Return what the web configuration file demands, None where there is none.

    :raises ConfigError: the file is wrong
    """
    if not conf.exporter.web_config_file:
        return None
    # YAML and TLS cost who does not need them 2 MB and 40 ms.
    from oie.web import protection

    try:
        return protection.Guard(conf.exporter.web_config_file)
    except exceptions.WebError as exc:
        raise exceptions.ConfigError(f'[exporter] web_config_file: {exc}') from exc


def flow_reader(
    conf: cfg.ConfigOpts, watch: 'threats.Watch | None' = None
) -> service.Reader | None:
    """Return what reads and sums up flows, None where that is switched off.

    :raises ConfigError: there is no such zone map
    """
    if not conf.conntrack.enabled:
        return None
    # Both import numpy, which costs who does not need it 8 MB and 60 ms.
    from oie import flow_reader as reader
    from oie.analysis import flows

    source = plugins.load(SOURCES, ('flows',))['flows']
    outbound = conf.outbound
    limits = flows.Limits(
        minimum=conf.conntrack.min,
        remembered=outbound.remembered,
        scan=outbound.scan_threshold,
        unreplied=outbound.scan_unreplied_ratio,
        fan_out=outbound.fan_out_threshold,
    )
    return reader.FlowReader(source(conf.conntrack, zone_map(conf)), limits, watch=watch)


def probes(conf: cfg.ConfigOpts) -> reachability.ReachabilitySource | None:
    """Return what probes fixed IPs, None where nobody wants to know; it has not begun yet."""
    if 'reachability' not in conf.collector.optional:
        return None
    plugin = plugins.load(SOURCES, ('reachability',))['reachability']
    source: reachability.ReachabilitySource = plugin(conf.reachability)
    return source


def network_namespaces(conf: cfg.ConfigOpts) -> netns.NamespacesSource | None:
    """Return what reads network namespaces, None where that is switched off.

    :raises ConfigError: the file of netns-exporter is wrong
    """
    if not conf.netns.enabled:
        if 'netns' in conf.exporter.metric_sets:
            LOG.warning('[exporter] metric_sets = netns gives no series: [netns] enabled is false')
        return None
    plugin = plugins.load(SOURCES, ('namespaces',))['namespaces']
    source: netns.NamespacesSource = plugin(conf.netns, namespace_settings(conf))
    return source


def namespace_settings(conf: cfg.ConfigOpts) -> netns_settings.Settings:
    """Return what is read of network namespaces.

    :raises ConfigError: the file of netns-exporter is wrong
    """
    found = netns_settings.of(conf.netns)
    return dataclasses.replace(
        found,
        figures=namespaces.figures(conf.netns.statistics),
        overlooked=netns_settings.overlooked(found, conf.netns.external_devices),
    )


def guest_os(conf: cfg.ConfigOpts) -> guest_systems.GuestOsSource | None:
    """Return what knows the operating systems of guests, None where that is switched off.

    :raises ConfigError: a driver must not, or cannot, be used like this
    """
    if not conf.guest_os.enabled:
        return None
    plugin = plugins.load(SOURCES, ('guest_os',))['guest_os']
    drivers = {
        name: driver(_options(conf, plugins.group_of(GUEST_OS, name, driver)), conf.libvirt.uri)
        for name, driver in plugins.load(GUEST_OS, conf.guest_os.drivers).items()
    }
    source: guest_systems.GuestOsSource = plugin(conf.guest_os, drivers)
    return source


def ledger(
    conf: cfg.ConfigOpts, units: 'ledger_reader.Units | None' = None
) -> service.Reader | None:
    """Return what keeps the totals, None where that is switched off; nothing is opened yet.

    :param units: licence units that an instance needs, by its uuid
    """
    if not conf.ledger.enabled:
        return None
    # sqlite3 costs who does not need it 2 MB.
    from oie.ledger import reader
    from oie.ledger import store
    from oie.ledger import writer

    path = conf.ledger.path
    return reader.LedgerReader(
        writer.Writer(store.Store(path)) if path else None,
        keep=conf.ledger.keep,
        boot_id=reader.read_boot_id(),
        units=units,
    )


def projects(conf: cfg.ConfigOpts) -> 'project_usage_reader.ProjectUsageReader | None':
    """Return what reads the usage of projects, None where that is off; nothing is opened yet."""
    if not conf['usage'].enabled:
        return None
    # sqlite3, requests and feeds cost who does not need them some megabytes.
    from oie.cmd import usage_wiring

    return usage_wiring.reader(conf['usage'])


def zone_map(conf: cfg.ConfigOpts) -> kept.KeptZoneMap:
    """Return the zone map of this host.

    :raises ConfigError: ``[conntrack] zone_map`` names none that is installed
    """
    wanted = conf.conntrack.zone_map
    drivers = {
        name: plugin(_options(conf, plugins.group_of(ZONE_MAPS, name, plugin)))
        for name, plugin in plugins.load(
            ZONE_MAPS, None if wanted == choice.AUTO else (wanted,)
        ).items()
    }
    return kept.KeptZoneMap(drivers, wanted)


def _make_directory(path: str) -> None:
    """Make the directory of a file; without it the file is not written, which costs little."""
    try:
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        LOG.warning('suspects will not survive a restart: %s', exc)


def pollsters(
    classes: Iterable[type[collectors_base.Collector]] | None = None,
    conf: cfg.ConfigOpts | None = None,
) -> dict[str, ceilometer.Pollster]:
    """Return the pollsters over the columns of collectors, by default of all installed ones.

    :param conf: how some print their entries; without it as the options do by default
    """
    resource = collectors_base.Resource
    plain: dict[collectors_base.Resource, list[collectors_base.Column]] = {
        kind: [] for kind in resource
    }
    for plugin in plugins.load(COLLECTORS).values() if classes is None else classes:
        for kind, columns in plugin.COLUMNS.items():
            plain[kind].extend(columns)
    return ceilometer.pollsters(
        instance=tuple(plain[resource.INSTANCE]),
        monitor=tuple(plain[resource.MONITOR]),
        disk=tuple(plain[resource.DISK]),
        interface=tuple(plain[resource.INTERFACE]),
        address=tuple(plain[resource.ADDRESS]),
        contacts=tuple(plain[resource.CONTACTS]),
        usage=tuple(plain[resource.USAGE]),
        guest=tuple(plain[resource.GUEST]),
        numbers_as_integers=conf is not None and conf.guest_os.numbers_as_integers,
        router=tuple(plain[resource.ROUTER]),
        routers=functools.partial(
            routers.active, external=conf.netns.external_devices if conf else routers.EXTERNAL
        ),
        routers_by_host=conf is not None and conf.netns.routers_by_host,
    )


def _options(conf: cfg.ConfigOpts, group: str) -> Any:
    return conf[group] if group in conf else None
