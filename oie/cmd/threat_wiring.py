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

"""From options to the watch over contacts: lists, feeds, threat log, host addresses."""

from collections.abc import Iterable
import logging
from typing import Any
from typing import TYPE_CHECKING

from oslo_config import cfg

from oie import exceptions
from oie import plugins
from oie.collectors import base as collectors_base
from oie.collectors import threats as collector

if TYPE_CHECKING:
    from oie import threats
    from oie.feeds import keeper

LOG = logging.getLogger(__name__)

MOST_LISTS = 64
DEFAULT_INTERFACES = ('bgp-nic',)


def watch(conf: cfg.ConfigOpts) -> 'threats.Watch | None':
    """Return what watches for contacts, None where nobody wants any of it.

    :raises ConfigError: a list is enabled that cannot work
    """
    names = conf.threats.enabled_feeds
    if not (names or conf.threat_log.enabled or conf.host_threats.enabled):
        return None
    # numpy costs who does not need it 14 MB.
    from oie import address_sets
    from oie import threats
    from oie.feeds import keeper
    from oie.feeds import special_use
    from oie.outputs import threat_log

    specs = lists(conf)
    if names and not conf.conntrack.enabled:
        LOG.warning('contacts of instances are not counted: [conntrack] enabled is false')
    return threats.Watch(
        [threats.List(spec.name, spec.tag, spec.direction) for spec in specs],
        lambda on_list: keeper.Keeper(
            specs,
            cache_dir=conf.threats.cache_dir,
            on_list=on_list,
            own_networks=conf.threats.own_networks,
            flags=keeper.Flags(
                allow_plain_http=conf.threats.allow_plain_http,
                allow_private_targets=conf.threats.allow_private_targets,
                allow_file_urls=conf.threats.allow_file_urls,
            ),
        ),
        has_zeros=conf.threats.export_zero_contacts,
        log=threat_log.ThreatLog(conf.threat_log) if conf.threat_log.enabled else None,
        host=_host(conf),
        unwanted=address_sets.EMPTY
        if conf.host_threats.allow_private
        else special_use.addresses(()),
        logs_outbound=conf.outbound.enabled,
    )


def lists(conf: cfg.ConfigOpts) -> 'list[keeper.FeedSpec]':
    """Return what is to be known of each list that is enabled; nothing is fetched.

    :raises ConfigError: one of them cannot work
    """
    _check_names(conf.threats.enabled_feeds)
    return [_spec(conf, name) for name in conf.threats.enabled_feeds]


def _spec(conf: cfg.ConfigOpts, name: str) -> 'keeper.FeedSpec':
    from oie.feeds import keeper

    group = f'{plugins.NAMESPACES[plugins.FEEDS]}{name}'
    if group not in conf:
        raise exceptions.ConfigError(
            f'[threats] enabled_feeds: {name} is no installed list '
            f'({", ".join(plugins.names(plugins.FEEDS))}); for a list of your own write a '
            f'section [{group}] with, for example, driver = plain_list'
        )
    settings = conf[group]
    driver = settings.driver or name
    plugin = plugins.load(plugins.FEEDS, (driver,))[driver]
    _check_sources(conf, group, plugin(settings))
    return keeper.FeedSpec(
        name=name,
        driver=driver,
        # The tag is that of the list, not of whatever a driver is used for.
        tag=(plugin.TAG if driver == name else '') or name.upper(),
        direction=settings.direction or conf.threats.contacts_direction,
        refresh=settings.refresh,
        min_interval=settings.min_interval,
        timeout=settings.timeout,
        settings=dict(settings),
    )


def _check_sources(conf: cfg.ConfigOpts, group: str, feed: Any) -> None:
    """Check what can be known without fetching.

    :raises ConfigError: the list could never be had
    """
    try:
        sources = feed.sources()
    except exceptions.FeedError as exc:
        raise exceptions.ConfigError(f'[{group}] {exc}') from exc
    is_local = all(source.startswith('/') for source in sources)
    if conf[group].refresh < conf[group].min_interval and not is_local:
        raise exceptions.ConfigError(
            f'[{group}] refresh is shorter than min_interval = {conf[group].min_interval:g} s, '
            'which the publisher asks for; with a mirror of your own lower min_interval'
        )
    for source in sources:
        scheme = source.partition(':')[0]
        option = {'http': 'allow_plain_http', 'file': 'allow_file_urls'}.get(scheme)
        if option and not conf.threats[option]:
            raise exceptions.ConfigError(
                f'[{group}]: {scheme} URLs are only fetched with [threats] {option} = true'
            )


def _check_names(names: Iterable[str]) -> None:
    """Check that no list gives a series a name that another one has.

    :raises ConfigError: one does, or there are too many lists
    """
    names = tuple(names)
    if len(names) > MOST_LISTS:
        raise exceptions.ConfigError(
            f'[threats] enabled_feeds names {len(names)} lists; {MOST_LISTS} are possible'
        )
    taken = {
        meter.prometheus: f'the collector {other}'
        for other, plugin in plugins.load('oie.collectors').items()
        for meter in _own_meters(plugin)
    }
    for name in names:
        for meter in collector.meters_of(name).all():
            if meter.prometheus in taken:
                raise exceptions.ConfigError(
                    f'[threats] enabled_feeds: a list may not be called {name}, because '
                    f'{meter.prometheus} is a series of {taken[meter.prometheus]}'
                )
            taken[meter.prometheus] = f'the list {name}'


def _own_meters(plugin: type[collectors_base.Collector]) -> Iterable[Any]:
    """Return the meters of a collector, without those of lists."""
    of_lists = {m for name in collector.KNOWN_LISTS for m in collector.meters_of(name).all()}
    return (meter for meter in plugin.meters() if meter.prometheus and meter not in of_lists)


def _host(conf: cfg.ConfigOpts) -> 'threats.HostAddresses | None':
    if not conf.host_threats.enabled:
        return None
    from oie.sources import host_addresses

    return host_addresses.HostAddresses(conf.host_threats.interfaces or DEFAULT_INTERFACES)
