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


"""Lists through restarts, bad publishers, a bad cache, and what an operator may write wrongly."""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import itertools
import pathlib
import shutil
import subprocess
import threading

import pytest

from oie.feeds import cache
from oie.feeds import state
from tests import ctnetlink
from tests import machine
from tests.functional import contacts
from tests.functional import exporter as exporters
from tests.functional import flows
from tests.functional import processes
from tests.unit.feeds import feed_server

URI = f'test://{contacts.DEMO}'
SLOWEST_SCRAPE = 1.0

NETWORKS = ('5.6.7.0/24', '45.0.1.0/28', '2a00:1:2::/48')
ENTRIES = (
    ctnetlink.Entry(ctnetlink.tcp('10.10.0.11', '5.6.7.8')),
    ctnetlink.Entry(ctnetlink.tcp('10.10.0.11', '45.0.1.9')),
    ctnetlink.Entry(ctnetlink.tcp('2001:db8:20::5', '2a00:1:2::9')),
)
ACTIVE = {contacts.WEB: 2, contacts.BUILD: 1}


@pytest.fixture
def router() -> Iterator[flows.Namespace]:
    machine.require(flows.what_is_missing())
    with flows.Namespace() as router:
        yield router


@pytest.fixture
def server() -> Iterator[feed_server.FeedServer]:
    with feed_server.FeedServer(tls=True) as server:
        yield server


def document(*networks: str) -> feed_server.Script:
    return feed_server.answer('\n'.join(networks).encode())


def plain_lists(
    server: feed_server.FeedServer, *names: str, **more: object
) -> dict[str, dict[str, object]]:
    """Serve lists of these names; return the options of each."""
    for name in names:
        server.play(f'/{name}', document(*NETWORKS))
    common = {'driver': 'plain_list', 'ca_file': server.ca_file, 'min_interval': 0, **more}
    return {name: {**common, 'url': server.url(f'/{name}')} for name in names}


def active(scrape: exporters.Scrape, name: str) -> dict[str, float]:
    return {s.labels['instance_uuid']: s.value for s in scrape.of(f'oie_{name}_contact_active')}


def test_after_a_restart_without_network_cached_lists_match_at_once(
    router: flows.Namespace, tmp_path: pathlib.Path
) -> None:
    router.add(*ENTRIES)
    publishing = contextlib.ExitStack()
    server = publishing.enter_context(feed_server.FeedServer(tls=True))
    # The one of the server goes with it.
    ca_file = shutil.copy(server.ca_file, tmp_path)
    feeds = plain_lists(server, 'young', 'old', refresh='10s', timeout='5s', ca_file=ca_file)
    settings = contacts.settings_of(router, feeds, tmp_path)
    with publishing, exporters.Exporter(URI, settings) as exporter:
        before = exporter.wait_for(lambda now: contacts.are_loaded(now, *feeds), 'the lists')
        exporter.stop()
        make_older(tmp_path, 'old', server.url('/old'), 3600)
        publishing.close()
        exporter.start()
        first = exporter.wait_for(lambda now: all(active(now, n) for n in feeds), 'contacts', 5)
        later = exporter.wait_for(
            lambda now: all(contacts.value(now, contacts.ERRORS, n) for n in feeds), 'errors'
        )
        log = exporter.log

    for name, scrape in itertools.product(feeds, (first, later)):
        assert active(scrape, name) == ACTIVE
        assert contacts.value(scrape, 'entries', name) == len(NETWORKS)
        assert contacts.value(scrape, 'fresh', name) == (name == 'young')
    assert contacts.value(later, contacts.SUCCEEDED, 'young') == contacts.value(
        before, contacts.SUCCEEDED, 'young'
    )
    assert (
        contacts.value(later, contacts.SUCCEEDED, 'old')
        == (contacts.value(before, contacts.SUCCEEDED, 'old') or 0) - 3600
    )
    told = [line for line in log.splitlines() if 'feed young: not refreshed' in line]
    assert len(told) == 1
    assert 'refused' in told[0]


def make_older(directory: pathlib.Path, name: str, source: str, seconds: float) -> None:
    """Let the list in the cache, and the last word about it, be as old."""
    kept = cache.read(
        str(directory),
        feed=name,
        driver='plain_list',
        sources=(source,),
        max_document_bytes=1000,
    )
    known = state.read(str(directory), name)
    assert kept
    assert known.last_success_at
    older = dataclasses.replace(kept, fetched_at=kept.fetched_at - seconds)
    cache.write(str(directory), older)
    at = known.last_success_at - seconds
    state.write(str(directory), name, dataclasses.replace(known, last_success_at=at))


def test_bad_publisher_or_cache_costs_its_own_list_alone(
    router: flows.Namespace,
    server: feed_server.FeedServer,
    tmp_path: pathlib.Path,
) -> None:
    router.add(*ENTRIES)
    feeds = {
        **plain_lists(server, 'slow', 'page', 'good', refresh='10s', timeout='2s'),
        **plain_lists(server, 'damaged', refresh='10s', timeout='60s'),
    }
    damaged, is_open = tmp_path / 'damaged.list', threading.Event()
    with exporters.Exporter(URI, contacts.settings_of(router, feeds, tmp_path)) as exporter:
        exporter.wait_for(lambda now: contacts.are_loaded(now, *feeds), 'the lists')
        exporter.stop()
        damaged.write_bytes(damaged.read_bytes().replace(NETWORKS[0].encode(), b'5.6.8.0/24'))
        server.play('/slow', feed_server.drip(feed_server.head(headers={}), b'5.6.7.8\n'))
        server.play('/page', feed_server.page())
        server.play('/good', document('5.6.7.0/24'))
        server.play('/damaged', after(is_open, document(*NETWORKS)))
        exporter.start()
        with exporters.Watch(exporter) as watch:
            exporter.wait_for(lambda now: active(now, 'slow') and active(now, 'page'), 'lists')
            processes.wait_for(damaged.with_suffix('.list.bad').exists, what='the bad file')
            without = exporter.next_scrape()
            is_open.set()
            last = exporter.wait_for(
                lambda now: (
                    contacts.value(now, contacts.ERRORS, 'slow')
                    and contacts.value(now, contacts.ERRORS, 'page')
                    and contacts.value(now, 'entries', 'good') == 1
                    and active(now, 'damaged')
                ),
                'every publisher to have had its turn',
            )
        log = exporter.log

    assert watch.failures == []
    assert watch.slowest < SLOWEST_SCRAPE
    for name in ('slow', 'page'):
        assert active(last, name) == ACTIVE
        assert contacts.value(last, 'entries', name) == len(NETWORKS)
        assert log.count(f'feed {name}: not refreshed') == 1
    assert active(last, 'good') == {contacts.WEB: 1}
    assert [contacts.value(last, contacts.ERRORS, name) for name in ('good', 'damaged')] == [0, 0]
    assert (active(without, 'damaged'), contacts.value(without, 'entries', 'damaged')) == ({}, 0)
    assert contacts.value(without, 'fresh', 'damaged') == 0
    assert active(last, 'damaged') == ACTIVE
    assert log.count('cached list refused') == 1


def after(event: threading.Event, script: feed_server.Script) -> feed_server.Script:
    """Answer when something has happened."""

    def play(exchange: feed_server.Exchange) -> None:
        while not event.is_set():
            exchange.pause(0.02)
        script(exchange)

    return play


# --- what an operator may write wrongly -------------------------------------------

PLAIN = {'driver': 'plain_list', 'url': 'https://lists.example.org/x.txt'}


def with_list(name: str, **options: object) -> exporters.Settings:
    return {'threats': {'enabled_feeds': name}, f'feed_{name}': options}


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        pytest.param(
            {'threats': {'contacts_direction': 'outwards'}},
            ('contacts_direction', 'outwards', 'any'),
            id='direction-of-all',
        ),
        pytest.param(
            with_list('x', **PLAIN, direction='inn'),
            ('[feed_x] direction', "'inn'", 'any'),
            id='direction-of-one',
        ),
        pytest.param(
            {'threats': {'enabled_feeds': 'spamhause'}},
            ('enabled_feeds', 'spamhause', 'spamhaus, ', '[feed_spamhause]'),
            id='unknown-list',
        ),
        pytest.param(with_list('x', url=PLAIN['url']), ('[feed_x]', 'driver'), id='no-driver'),
        pytest.param(
            with_list('x', **{**PLAIN, 'url': 'http://lists.example.org/x.txt'}),
            ('[feed_x]', 'allow_plain_http'),
            id='plain-http',
        ),
        pytest.param(
            with_list('x', **{**PLAIN, 'url': 'HTTP://lists.example.org/x.txt'}),
            ('[feed_x]', 'allow_plain_http'),
            id='plain-http-in-capitals',
        ),
        pytest.param(
            with_list('x', driver='plain_list'), ('[feed_x]', 'url', 'path'), id='no-source'
        ),
        pytest.param(
            with_list('host_conntrack', **PLAIN),
            ('host_conntrack', 'oie_host_conntrack_entries', 'flows'),
            id='series-of-another',
        ),
        pytest.param(
            with_list('spamhaus', refresh='10m'),
            ('[feed_spamhaus] refresh', 'min_interval'),
            id='too-often',
        ),
        pytest.param(
            with_list('x', **{**PLAIN, 'url': 'https://me:hush@lists.example.org/'}),
            ('[feed_x] url', 'password', 'secret_file'),
            id='password',
        ),
    ],
)
def test_wrong_option_ends_the_start_with_one_line(
    settings: exporters.Settings, words: Sequence[str]
) -> None:
    exporter = exporters.Exporter(URI, settings)
    try:
        done = subprocess.run(
            (exporters.BIN / 'oie-exporter', '--config-file', exporter.write_config()),
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    finally:
        exporter.close()

    assert done.returncode == 2, done
    assert done.stderr.startswith('oie-exporter: ')
    assert done.stderr.count('\n') == 1, done.stderr
    assert [word for word in words if word not in done.stderr] == [], done.stderr
    assert 'hush' not in done.stderr + done.stdout
