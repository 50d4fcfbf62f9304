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

"""What threat lists cost: reading one, swapping one under load, looking up all peers."""

from collections.abc import Iterator
import contextlib
import gc
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
import types
import urllib.request

import numpy as np

from oie import address_sets
from oie.analysis import attribution
from oie.analysis import behaviour
from oie.analysis import matching
from oie.feeds import lists
from oie.feeds import plain_list
from tests.bench import conntrack as tables_of_flows
from tests.bench import table
from tests.functional import flows
from tests.functional import processes

BIN = pathlib.Path(sys.executable).parent
REPEATS = 7
SECONDS = 60
SIZES = (10_000, 10_000, 10_000, 10_000, 10_000, 500_000)

CONFIG = """\
[exporter]
listen_address = 127.0.0.1:{port}
socket_path =
[collector]
interval = 2
[libvirt]
uri = test:///default
suspects_path =
[ledger]
enabled = false
[threats]
cache_dir = {directory}/cache
"""
FEED = """\
enabled_feeds = big
[feed_big]
driver = plain_list
path = {path}
refresh = 10
min_interval = 0
"""

# Sizes of a process that holds these lists and their index, before and after.
MEMORY = """
import os
from oie import address_sets
from tests.bench import feeds
from tests.functional import processes
before = processes.rss_bytes(os.getpid())
sets = [feeds.random_set(size, seed) for seed, size in enumerate(feeds.SIZES)]
index = address_sets.Index(sets)
print(before, processes.rss_bytes(os.getpid()), processes.peak_rss_bytes(os.getpid()))
"""


def tables() -> Iterator[tuple[str, list[table.Line]]]:
    """Give the tables with their titles."""
    yield 'a list of 100,000 lines', [parsing()]
    yield 'a list of 500,000 entries that is swapped in under load', list(swapping())
    yield 'peers in five lists of 10,000 and one of 500,000 entries', list(matching_lines())


def lines_of(count: int, seed: int = 1) -> bytes:
    """Return a plain list of so many addresses, a tenth of them IPv6."""
    random = np.random.default_rng(seed)
    v4 = random.integers(0x0B000000, 0x60000000, count - count // 10)
    v6 = random.integers(0, 2**62, (count // 10, 2))
    made = [f'{n >> 24}.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}' for n in v4.tolist()]
    made += [f'2a00:{h >> 48:x}:{h >> 32 & 65535:x}::{n & 65535:x}' for h, n in v6.tolist()]
    return '\n'.join(made).encode()


def random_set(count: int, seed: int) -> address_sets.AddressSet:
    """Return so many scattered addresses, a tenth of them IPv6."""
    random = np.random.default_rng(seed)
    v4 = random.integers(0, 2**32, count - count // 10).astype(np.uint32)
    high = random.integers(0x20010DB800000000, 0x20010DB900000000, count // 10).astype(np.uint64)
    low = random.integers(0, 2**62, count // 10).astype(np.uint64)
    v6 = address_sets.Wide(high, low)
    return address_sets.AddressSet.of((v4, v4), (v6, v6))


def parsing() -> table.Line:
    """Measure a document of 100,000 lines until it can be looked up."""
    settings = types.SimpleNamespace(**{o.dest: o.default for o in plain_list.PlainListFeed.OPTS})
    feed = plain_list.PlainListFeed(settings)
    document = lines_of(100_000)
    gc.collect()
    [times] = table.in_turn(
        REPEATS, lambda: lists.build(feed, [document], unwanted=address_sets.EMPTY)
    )
    seconds = statistics.median(times)
    return table.Line(
        'parse, check and sort 100,000 lines',
        f'{seconds:.2f} s',
        'at most 0.35 s',
        seconds <= 0.35,
    )


# --- swapping -----------------------------------------------------------------


class Scrapes:
    """How long scrapes of an exporter took while its list changed, or had none.

    :param document: writes the list anew, given how often it was taken
    """

    def __init__(self, directory: pathlib.Path, documents: tuple[bytes, ...] = ()) -> None:
        self.seconds: list[float] = []
        self.swaps = 0
        self._documents = documents
        self._list = directory / 'list.txt'
        self._port = processes.free_port()
        config = directory / 'oie.conf'
        feed = FEED.format(path=self._list, directory=directory) if documents else ''
        config.write_text(CONFIG.format(port=self._port, directory=directory) + feed)
        self._write()
        with subprocess.Popen([BIN / 'oie-exporter', '--config-file', config]) as process:
            try:
                processes.wait_for(self._is_ready, 60, 'the exporter and its list')
                self._measure()
                self.rss = processes.rss_bytes(process.pid)
            finally:
                process.terminate()

    def _measure(self) -> None:
        taken, end = self._taken_at(), time.monotonic() + SECONDS
        while time.monotonic() < end:
            began = time.perf_counter()
            self._scrape()
            self.seconds.append(time.perf_counter() - began)
            if self._taken_at() != taken:
                self.swaps, taken = self.swaps + 1, self._taken_at()
                self._write()

    def _write(self) -> None:
        if self._documents:
            self._list.write_bytes(self._documents[self.swaps % len(self._documents)])

    def _scrape(self) -> None:
        with urllib.request.urlopen(f'http://127.0.0.1:{self._port}/metrics', timeout=5) as answer:
            self._text = answer.read().decode()

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError):
            self._scrape()
            return 'oie_host_collection' in self._text and self._taken_at() != '0'
        return False

    def _taken_at(self) -> str:
        """Return when the list was last taken, 0 before the first time."""
        found = re.search(r'^oie_big_refresh_last_success_\w+ (\S+)', self._text, re.MULTILINE)
        return found[1] if found else ''


def swapping() -> Iterator[table.Line]:
    """Measure scrapes of a real exporter while it gets 500,000 entries again and again."""
    with tempfile.TemporaryDirectory() as name:
        before = Scrapes(pathlib.Path(name))
    with tempfile.TemporaryDirectory() as name:
        during = Scrapes(pathlib.Path(name), (lines_of(500_000, 1), lines_of(500_000, 2)))
    quiet, busy = max(before.seconds), max(during.seconds)
    yield table.Line(
        f'slowest of {len(during.seconds)} scrapes during {during.swaps} swaps (without)',
        f'{busy * 1e3:.1f} ms ({quiet * 1e3:.1f} ms)',
        'at most 50 ms more',
        bool(during.swaps) and busy - quiet <= 0.05,
    )
    more = during.rss - before.rss
    yield table.Line(
        'RSS of the exporter with the list (without it)',
        f'{during.rss / 2**20:.0f} MiB ({before.rss / 2**20:.0f} MiB)',
        'at most 60 MB more',
        more <= 60e6,
    )


# --- looking up ---------------------------------------------------------------


class WatchedCycle(tables_of_flows.MeasuredCycle):
    """A whole cycle, with the look-up of all peers in its turn."""

    def __init__(self, namespace: flows.Namespace, instances: int) -> None:
        sets = [random_set(size, seed) for seed, size in enumerate(SIZES)]
        self._index = address_sets.Index(sets)
        self.looking_up: list[float] = []
        self.contacts = 0
        super().__init__(namespace, instances)

    def _see(self, found: attribution.Attribution, talks: behaviour.Talks) -> None:
        began = time.perf_counter()
        matches = matching.match(talks, self._index, ['any'] * len(SIZES))
        self.contacts = sum(n for *_, n in matching.count(matches, found.owners, len(SIZES)))
        self.looking_up.append(time.perf_counter() - began)


def matching_lines() -> Iterator[table.Line]:
    """Measure a million entries of a thousand instances, each to a peer of its own."""
    with tables_of_flows.limit(1_100_000), flows.Namespace() as namespace:
        tables_of_flows.fill_plain(namespace, 1_000_000, sources=1000, scattered=True)
        measured = WatchedCycle(namespace, 1000)
    shares = [
        seen / (cycle - seen)
        for seen, cycle in zip(measured.looking_up[1:], measured.ours, strict=True)
    ]
    share = statistics.median(shares)
    yield table.Line(
        f'1,000,000 peers in {sum(SIZES):,} entries of {len(SIZES)} lists / the cycle without',
        f'{share:.2f} x ({statistics.median(measured.looking_up):.2f} s, '
        f'{measured.contacts} contacts)',
        'at most 0.3 x',
        share <= 0.3,
    )
    before, after, peak = map(int, processes.run(sys.executable, '-c', MEMORY).split())
    yield table.Line(
        'RSS of a process with these lists and their index',
        f'+{(after - before) / 2**20:.0f} MiB (peak +{(peak - before) / 2**20:.0f} MiB)',
        'at most +60 MB',
        after - before <= 60e6,
    )
