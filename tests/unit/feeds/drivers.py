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

"""Feeds with options of choice, and what they make of documents."""

import pathlib
from typing import Any

from oslo_config import cfg

from oie import address_sets
from oie import plugins
from oie.feeds import base
from oie.feeds import entries
from oie.feeds import lists

DATA = pathlib.Path(__file__).parents[2] / 'data/feeds'


def feed(name: str, **options: Any) -> base.ThreatFeed:
    """Return the feed of a driver with its defaults, but for these options."""
    [each] = plugins.load('oie.threat_feeds', [name]).values()
    conf = cfg.ConfigOpts()
    conf.register_opts(each.OPTS, 'feed')
    conf([])
    for option, value in options.items():
        conf.set_override(option, value, 'feed')
    found: base.ThreatFeed = each(conf.feed)
    return found


def build(
    each: base.ThreatFeed,
    *documents: bytes,
    unwanted: address_sets.AddressSet = address_sets.EMPTY,
) -> lists.Built:
    """Return the list of documents, by default with all addresses."""
    return lists.build(each, documents, unwanted=unwanted)


def intervals(texts: Any) -> list[str]:
    """Return entries as text, each once, in order."""
    found = entries.Entries()
    found.extend(texts)
    v4, v6 = found.distinct()
    first, last = entries.wide(v6.first), entries.wide(v6.last)
    return [
        *(entries.shown_v4(int(a), int(b)) for a, b in zip(v4.first, v4.last, strict=True)),
        *(
            entries.shown_v6(number(first, place), number(last, place))
            for place in range(len(first))
        ),
    ]


def number(numbers: address_sets.Wide, place: int) -> int:
    """Return one number of two columns."""
    return int(numbers.high[place]) << 64 | int(numbers.low[place])
