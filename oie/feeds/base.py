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

"""What every threat feed is: where its documents are, and how to find addresses in them.

A driver is a class behind an entry point of ``oie.threat_feeds``. It never
fetches and never decides: it names sources and yields the text of each entry;
deadlines, limits, plausibility and the cache are the same for all. Drivers run
in a short-lived process of their own, without privileges.
"""

import abc
from collections.abc import Iterator
from typing import Any
from typing import ClassVar

from oslo_config import cfg

from oie import config

MIB = 2**20


def options(
    *,
    url: str = '',
    refresh: str = '6h',
    min_interval: str = '1h',
    allow_empty: bool = False,
) -> tuple[cfg.Opt, ...]:
    """Return the options that every feed has, with the defaults of one list.

    :param url: where the list is published
    :param refresh: how often it is worth asking
    :param min_interval: how often its publisher allows to ask
    :param allow_empty: whether the list may rightly hold nothing
    """
    return (*_source_options(url, refresh, min_interval), *_limit_options(allow_empty))


def _source_options(url: str, refresh: str, min_interval: str) -> tuple[cfg.Opt, ...]:
    return (
        cfg.StrOpt(
            'driver',
            default='',
            help='Driver of oie.threat_feeds that reads this list. Empty: the one that is called '
            'as the list. A site\'s own list [feed_NAME] names one here, such as plain_list.',
        ),
        cfg.Opt(
            'url',
            type=config.FeedUrl(),
            default=url,
            help='Where the list is fetched: https, or http and file where [threats] allows them. '
            'Point it at a mirror of your own when many hosts ask.',
        ),
        cfg.Opt(
            'refresh',
            type=config.Duration(minimum=10, maximum=30 * 86400),
            default=refresh,
            help='Time from one fetch to the next, give or take a tenth, so that hosts do not '
            'ask all at once.',
        ),
        cfg.Opt(
            'min_interval',
            type=config.Duration(maximum=86400),
            default=min_interval,
            help='Least time between two fetches that the publisher answered, well or not, as '
            'it asks for it; restarts of the exporter change nothing about it. It does not count '
            'for files of this host.',
        ),
        cfg.Opt(
            'direction',
            type=config.Direction(may_be_empty=True),
            default='',
            help='Which contacts count: out (the instance addressed a listed address), in (a '
            'listed address addressed the instance) or any. Empty: as [threats] '
            'contacts_direction.',
        ),
        cfg.Opt(
            'timeout',
            type=config.Duration(minimum=1, maximum=600),
            default='15s',
            help='How long one fetch may take from beginning to end.',
        ),
        cfg.Opt(
            'ca_file',
            type=config.FilePath(),
            default='',
            help='File of certificates (PEM) to trust in place of those of the system.',
        ),
        cfg.StrOpt(
            'proxy',
            default='',
            help='URL of the proxy, for example http://proxy.example.org:3128. Variables of the '
            'environment do not count.',
        ),
        cfg.StrOpt(
            'secret_header',
            default='',
            help='Name of the header that carries the secret, for example Auth-Key or '
            'Authorization.',
        ),
        cfg.Opt(
            'secret_file',
            type=config.FilePath(),
            default='',
            help='File with the value of that header. It must not be readable by others; it is '
            'never logged and never sent to another host.',
        ),
    )


def _limit_options(allow_empty: bool) -> tuple[cfg.Opt, ...]:
    return (
        cfg.BoolOpt(
            'allow_empty',
            default=allow_empty,
            help='Whether a list without entries may replace the last one.',
        ),
        cfg.FloatOpt(
            'max_bad_percent',
            default=2.0,
            min=0,
            max=100,
            help='Share of entries that are no addresses, in percent, from which a list is taken '
            'for something else. Up to five such entries are always allowed.',
        ),
        cfg.IntOpt(
            'max_bytes',
            default=16 * MIB,
            min=1,
            help='Largest document to fetch, in bytes as transferred.',
        ),
        cfg.IntOpt(
            'max_unpacked_bytes',
            default=64 * MIB,
            min=1,
            help='Largest document after decompression, in bytes.',
        ),
        cfg.IntOpt(
            'max_entries',
            default=1000000,
            min=1,
            help='Entries from which a list is refused. An address takes 8 bytes, twice.',
        ),
        cfg.IntOpt(
            'widest_ipv4',
            default=8,
            min=1,
            max=32,
            help='Shortest IPv4 prefix that is plausible; a list with a wider network is refused.',
        ),
        cfg.IntOpt(
            'widest_ipv6',
            default=19,
            min=1,
            max=128,
            help='Shortest IPv6 prefix that is plausible; a list with a wider network is refused.',
        ),
        cfg.Opt(
            'hold',
            type=config.Duration(maximum=30 * 86400),
            default='24h',
            help='How long a list that suddenly lost half of its entries, or has five times as '
            'many, waits for confirmation: it is used when it still comes after this time.',
        ),
    )


class ThreatFeed(abc.ABC):
    """A list of addresses that somebody publishes.

    :cvar OPTS: its options; those of ``options()`` and its own
    :cvar TAG: what the threat log calls it; empty for its name in capitals
    """

    OPTS: ClassVar[tuple[cfg.Opt, ...]] = options()
    TAG: ClassVar[str] = ''

    def __init__(self, settings: Any) -> None:
        """Keep the settings; a driver has no other state.

        :param settings: the group ``[feed_NAME]``
        """
        self.settings = settings

    @abc.abstractmethod
    def sources(self) -> tuple[str, ...]:
        """Return the URLs and paths whose documents make up the list, all of them needed.

        :raises FeedError: the settings name none
        """

    @abc.abstractmethod
    def parse(self, document: bytes) -> Iterator[str]:
        """Yield the text of each entry: an address, a network or ``first-last``.

        Text that is none of these may be yielded: it counts as a bad entry.

        :raises FeedError: the document as a whole is not what it should be
        """
