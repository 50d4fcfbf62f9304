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

"""Jobs for workers, with defaults for all that a test is not about."""

from collections.abc import Mapping
import os
import socket
from typing import Any

from oslo_config import cfg

from oie import address_sets
from oie import plugins
from oie.feeds import cache
from oie.feeds import wire

NAME = 'sample'

#: Two lists of global addresses.
ONE = b'5.6.7.0/24\n45.0.0.1\n2a00:1::/32\n'
TWO = b'# another one\n45.0.0.0/20\n'


def job(
    mode: wire.Mode = wire.Mode.REFRESH,
    *,
    driver: str = 'plain_list',
    settings: Mapping[str, Any] | None = None,
    **fields: Any,
) -> wire.Job:
    """Return a job for the feed ``sample``.

    :param settings: options of the feed that are not to have their defaults
    """
    known: dict[str, Any] = {
        'mode': mode,
        'parent': os.getpid(),
        'seconds': 30.0,
        'feed': NAME,
        'driver': driver,
        'settings': all_settings(driver) | dict(settings or {}),
        'own_networks': (),
        'flags': wire.Flags(allow_plain_http=True, allow_private_targets=True),
        'cache_dir': '/nonexistent',
    }
    return wire.Job(**(known | fields))


def all_settings(driver: str = 'plain_list') -> dict[str, Any]:
    """Return all options of a driver as plain values."""
    [each] = plugins.load('oie.threat_feeds', [driver]).values()
    conf = cfg.ConfigOpts()
    conf.register_opts(each.OPTS, 'feed')
    conf([])
    return {option.dest: conf.feed[option.dest] for option in each.OPTS}


def entry(*documents: bytes, **fields: Any) -> cache.Entry:
    """Return something to be kept by the cache."""
    known: dict[str, Any] = {
        'feed': NAME,
        'driver': 'plain_list',
        'sources': tuple(f'https://feeds.example/{n}' for n, _ in enumerate(documents)),
        'documents': documents,
        'validators': (('"1"', ''),) * len(documents),
        'fetched_at': 1000.0,
        'entries': 3,
    }
    return cache.Entry(**(known | fields))


def holds(addresses: address_sets.AddressSet, text: str) -> bool:
    """Return whether an address is in a set."""
    index = address_sets.Index((addresses,))
    if ':' not in text:
        number = int.from_bytes(socket.inet_pton(socket.AF_INET, text), 'big')
        return bool(index.find_v4(address_sets.np.array([number], 'u4'))[0])
    number = int.from_bytes(socket.inet_pton(socket.AF_INET6, text), 'big')
    wanted = address_sets.wide([number])
    return bool(index.find_v6(wanted.high, wanted.low)[0])
