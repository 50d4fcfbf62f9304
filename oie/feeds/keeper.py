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

"""All feeds at once: a thread for each, few workers at a time, and what can be told of them."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import logging
import random
import threading
import time

from oie import address_sets
from oie import model
from oie.feeds import children
from oie.feeds import refresher
from oie.feeds import wire

LOG = logging.getLogger(__name__)

FeedSpec = refresher.FeedSpec
Flags = wire.Flags

MOST_WORKERS = 2
_END_SECONDS = 0.9


class Keeper:
    """Keeps the lists of all feeds up to date in the background.

    :param cache_dir: where lists and states outlive the process
    :param on_list: gets the name of a feed and its new addresses, in the
        thread of that feed
    :param own_networks: networks that are taken out of every list
    :param run: does a job in a worker, and stops it when the event is set
    """

    def __init__(
        self,
        feeds: Sequence[FeedSpec],
        *,
        cache_dir: str,
        on_list: Callable[[str, address_sets.AddressSet], None],
        own_networks: Sequence[str] = (),
        flags: Flags | None = None,
        run: Callable[[wire.Job, threading.Event], wire.Answer] | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._stop = threading.Event()
        self._places = _Places(MOST_WORKERS, loads=len(feeds))
        self._run = run or children.Runner().run
        around = refresher.Surroundings(
            cache_dir=cache_dir,
            on_list=on_list,
            run=self._run_in_turn,
            own_networks=own_networks,
            flags=flags or Flags(),
            clock=clock,
            monotonic=monotonic,
            random=random,
        )
        self._feeds = tuple(refresher.Refresher(spec, around) for spec in feeds)
        self._threads = [
            threading.Thread(
                target=self._live, args=(feed,), name=f'oie-feed-{feed.spec.name}', daemon=True
            )
            for feed in self._feeds
        ]

    def start(self) -> None:
        """Begin: cached lists first, then the publishers."""
        for thread in self._threads:
            thread.start()

    def lists(self) -> tuple[model.ThreatList, ...]:
        """Return how each feed stands now, in their order; from any thread."""
        return tuple(feed.shown() for feed in self._feeds)

    def close(self) -> None:
        """End workers and threads; a thread that is held up is left behind after a second."""
        self._stop.set()
        self._places.close()
        deadline = time.monotonic() + _END_SECONDS
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(deadline - time.monotonic(), 0.0))

    def _live(self, feed: refresher.Refresher) -> None:
        with contextlib.suppress(children.Stopped):
            try:
                wait = self._guarded(feed, feed.load)
            finally:
                self._places.end_load()
            while not self._stop.wait(wait):
                wait = self._guarded(feed, feed.refresh)

    def _guarded(self, feed: refresher.Refresher, step: Callable[[], float]) -> float:
        try:
            return step()
        except children.Stopped:
            raise
        # A feed must not end by what nobody thought of, and never take others along.
        except Exception as exc:
            LOG.exception('feed %s', feed.spec.name)
            return feed.fail(f'{type(exc).__name__}: {exc}')

    def _run_in_turn(self, job: wire.Job) -> wire.Answer:
        with self._places.hold(is_load=job.mode is wire.Mode.LOAD):
            return self._run(job, self._stop)


class _Places:
    """Lets few workers run at a time, those that load a cache before all others.

    So a restart has all lists at hand before a slow publisher can hold up any.

    :param loads: how many feeds have not loaded yet
    """

    def __init__(self, limit: int, loads: int) -> None:
        self._changed = threading.Condition()
        self._free = limit
        self._loads = loads
        self._is_closed = False

    @contextlib.contextmanager
    def hold(self, *, is_load: bool) -> Iterator[None]:
        """Wait for a place and keep it.

        :raises Stopped: there will be none any more
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._may_run(is_load))
            if self._is_closed:
                raise children.Stopped
            self._free -= 1
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify_all()

    def end_load(self) -> None:
        """Note that one feed has loaded, or has failed to."""
        with self._changed:
            self._loads -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """Give out no more places."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _may_run(self, is_load: bool) -> bool:
        return self._free > 0 and (is_load or not self._loads)
