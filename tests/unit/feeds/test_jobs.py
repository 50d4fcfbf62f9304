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

"""What a job promises: a list that is whole, checked and kept, or the reason why there is none."""

import dataclasses
import os
import pathlib

import pytest

from oie.feeds import cache
from oie.feeds import fetch
from oie.feeds import jobs
from oie.feeds import lists
from oie.feeds import state
from oie.feeds import wire
from tests.unit.feeds import feed_server
from tests.unit.feeds import working

NOW = 1_000_000.0
HOUR = 3600.0


@pytest.fixture
def server():
    with feed_server.FeedServer() as running:
        yield running


class Site:
    """A feed of one or two URLs: what one job tells, the next one gets, as from the daemon."""

    def __init__(self, place: pathlib.Path, *urls: str) -> None:
        self.place = place
        self.now = NOW
        driver, options = 'plain_list', {'url': urls[0]}
        if len(urls) == 2:
            driver, options = 'spamhaus', {'url': urls[0], 'ipv6_url': urls[1]}
        self.job = working.job(cache_dir=str(place), driver=driver, settings=options)

    def set(self, **options: object) -> None:
        self.job = dataclasses.replace(self.job, settings={**self.job.settings, **options})

    def do(self, mode: wire.Mode = wire.Mode.REFRESH) -> wire.Answer:
        answer = jobs.do(dataclasses.replace(self.job, mode=mode), lambda: self.now)
        if answer.status in (wire.Status.LOADED, wire.Status.ACCEPTED):
            self.job = dataclasses.replace(self.job, entries=answer.entries)
        if answer.status in (wire.Status.LOADED, wire.Status.ACCEPTED, wire.Status.UNCHANGED):
            self.job = dataclasses.replace(
                self.job, documents=answer.documents, validators=answer.validators
            )
        return answer

    def restart(self) -> None:
        self.job = dataclasses.replace(self.job, entries=None, documents='', validators=())

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.place.iterdir())


@pytest.fixture
def site(server, tmp_path):
    server.play('/list', feed_server.kept(working.ONE, etag='"1"'))
    return Site(tmp_path, server.url('/list'))


def many(count: int) -> bytes:
    return b''.join(b'45.%d.%d.7\n' % divmod(number, 256) for number in range(count))


class TestRefresh:
    def test_a_good_list_is_accepted_and_kept(self, site):
        answer = site.do()
        assert answer.status is wire.Status.ACCEPTED
        assert (answer.entries, answer.error, answer.cache_error) == (3, '', '')
        assert answer.sources == (site.job.settings['url'],)
        assert answer.fetched_at == NOW
        assert answer.is_answered
        assert working.holds(answer.addresses, '5.6.7.8')
        assert working.holds(answer.addresses, '2a00:1::5')
        assert not working.holds(answer.addresses, '45.0.0.2')
        assert site.files == ['sample.list']

    def test_own_and_special_networks_are_never_listed(self, site, server):
        server.play('/list', feed_server.answer(working.ONE + b'10.0.0.0/8\n'))
        site.job = dataclasses.replace(site.job, own_networks=('5.6.7.0/25',))
        answer = site.do()
        assert answer.rejected['special_use'] == 1
        assert not working.holds(answer.addresses, '5.6.7.8')
        assert working.holds(answer.addresses, '5.6.7.200')

    def test_a_list_in_use_is_asked_for_conditionally(self, site, server):
        site.do()
        answer = site.do()
        assert answer.status is wire.Status.UNCHANGED
        assert answer.is_answered
        assert answer.addresses.is_empty
        assert server.requests[1].headers['if-none-match'] == '"1"'

    def test_the_same_document_from_a_server_without_validators_is_unchanged(self, site, server):
        server.play('/list', feed_server.answer(working.ONE))
        site.do()
        written = os.stat(site.place / 'sample.list').st_ino
        assert site.do().status is wire.Status.UNCHANGED
        assert os.stat(site.place / 'sample.list').st_ino == written

    def test_another_document_is_accepted(self, site, server):
        site.do()
        server.play('/list', feed_server.kept(working.TWO, etag='"2"'))
        answer = site.do()
        assert answer.status is wire.Status.ACCEPTED
        assert working.holds(answer.addresses, '45.0.1.2')
        assert answer.validators == (('"2"', ''),)

    def test_without_a_list_in_use_nothing_is_asked_conditionally(self, site, server):
        site.do()
        site.job = dataclasses.replace(site.job, documents='')
        assert site.do().status is wire.Status.ACCEPTED
        assert 'if-none-match' not in server.requests[1].headers

    def test_a_cache_that_was_lost_is_written_anew(self, site, server):
        site.do()
        os.unlink(site.place / 'sample.list')
        assert site.do().status is wire.Status.ACCEPTED
        assert 'if-none-match' not in server.requests[1].headers
        assert site.files == ['sample.list']
        assert site.do().status is wire.Status.UNCHANGED

    @pytest.mark.parametrize(
        ('script', 'reason'),
        [
            (feed_server.page(), 'web page'),
            (feed_server.answer(b'<p>gone</p>'), 'web page'),
            (feed_server.answer(b''), 'no entries'),
            (feed_server.answer(b'Internal error\n'), 'is an address'),
            (feed_server.answer(b'0.0.0.0/0\n'), '0.0.0.0/0'),
            (feed_server.answer(b'gone', status=404), '404'),
        ],
    )
    def test_what_is_no_list_is_refused_and_the_kept_one_stays(self, site, server, script, reason):
        site.do()
        server.play('/list', script)
        answer = site.do()
        assert answer.status is wire.Status.FAILED
        assert reason in answer.error
        assert answer.sources == (site.job.settings['url'],)
        site.restart()
        assert site.do(wire.Mode.LOAD).entries == 3

    def test_a_publisher_that_refuses_has_answered_and_may_say_until_when(self, site, server):
        answer = feed_server.answer(b'', status=429, headers={'Retry-After': '120'})
        server.play('/list', answer)
        found = site.do()
        assert found.is_answered
        assert found.retry_after == 120.0

    def test_a_publisher_that_is_not_there_has_not_answered(self, site, server):
        url = server.url('/list')
        with feed_server.FeedServer() as gone:
            site.set(url=gone.url('/list'))
        found = site.do()
        assert found.status is wire.Status.FAILED
        assert not found.is_answered
        assert url not in found.error

    def test_a_query_is_in_no_message(self, site, server):
        site.set(url=server.url('/list?key=hush'))
        assert 'hush' not in site.do().error

    def test_a_driver_that_does_not_exist_is_named(self, site):
        site.job = dataclasses.replace(site.job, driver='nonsense')
        assert "driver 'nonsense'" in site.do().error

    def test_settings_without_a_source_are_told(self, site):
        site.set(url='')
        assert 'set either url or path' in site.do().error

    def test_a_list_for_which_memory_does_not_suffice_is_told(self, site, monkeypatch):
        def build(*_args: object, **_more: object) -> None:
            raise MemoryError

        monkeypatch.setattr(lists, 'build', build)
        assert 'more memory' in site.do().error

    def test_a_slow_list_ends_at_the_timeout(self, site, server):
        site.set(timeout=0.3)
        server.play('/list', feed_server.drip(feed_server.head(), b'5.6.7.8\n'))
        answer = site.do()
        assert answer.status is wire.Status.FAILED
        assert answer.seconds < 5

    def test_a_disk_that_cannot_be_written_costs_only_the_cache(self, site, tmp_path):
        (tmp_path / 'file').write_bytes(b'')
        site.job = dataclasses.replace(site.job, cache_dir=str(tmp_path / 'file'))
        answer = site.do()
        assert answer.status is wire.Status.ACCEPTED
        assert answer.entries == 3
        assert 'cannot be written' in answer.cache_error
        # And nobody is asked unconditionally for ever because of it.
        assert site.do().status is wire.Status.UNCHANGED


class TestTwoSources:
    @pytest.fixture
    def both(self, server, tmp_path):
        server.play('/4', feed_server.kept(b'5.6.7.0/24 ; SBL1\n', etag='"4"'))
        server.play('/6', feed_server.kept(b'2a00:1::/32 ; SBL2\n', etag='"6"'))
        return Site(tmp_path, server.url('/4'), server.url('/6'))

    def test_both_make_up_the_list(self, both):
        answer = both.do()
        assert answer.entries == 2
        assert working.holds(answer.addresses, '5.6.7.8')
        assert working.holds(answer.addresses, '2a00:1::8')

    def test_both_unchanged_is_unchanged(self, both, server):
        both.do()
        assert both.do().status is wire.Status.UNCHANGED
        assert len(server.requests) == 4

    def test_one_that_changed_brings_the_other_again(self, both, server):
        both.do()
        server.play('/4', feed_server.kept(b'5.6.6.0/24 ; SBL1\n', etag='"44"'))
        answer = both.do()
        assert answer.status is wire.Status.ACCEPTED
        assert answer.validators == (('"44"', ''), ('"6"', ''))
        assert working.holds(answer.addresses, '5.6.6.8')
        assert not working.holds(answer.addresses, '5.6.7.8')
        assert working.holds(answer.addresses, '2a00:1::8')
        asked = [(each.target, each.headers.get('if-none-match')) for each in server.requests[2:]]
        assert asked == [('/4', '"4"'), ('/6', '"6"'), ('/6', None)]

    @pytest.mark.parametrize('broken', ['/4', '/6'])
    def test_one_alone_is_no_list(self, both, server, broken):
        both.do()
        server.play(broken, feed_server.answer(b'', status=500))
        answer = both.do()
        assert answer.status is wire.Status.FAILED
        assert broken in answer.error

    def test_an_answer_of_one_counts_as_asking_the_publisher(self, both, server):
        with feed_server.FeedServer() as gone:
            both.set(ipv6_url=gone.url('/6'))
        answer = both.do()
        assert answer.status is wire.Status.FAILED
        assert answer.is_answered

    def test_the_timeout_is_for_both_together(self, both, server):
        def slow(exchange: feed_server.Exchange) -> None:
            exchange.pause(0.4)
            feed_server.answer(b'5.6.7.0/24\n')(exchange)

        server.play('/4', slow)
        server.play('/6', slow)
        both.set(timeout=0.6)
        assert both.do().status is wire.Status.FAILED


class TestFiles:
    def test_a_file_is_a_source_and_unchanged_while_nobody_writes(self, site, tmp_path):
        path = tmp_path / 'own.txt'
        path.write_bytes(working.ONE)
        site.set(url='', path=str(path))
        assert site.do().entries == 3
        assert site.do().status is wire.Status.UNCHANGED
        path.write_bytes(working.TWO)
        assert site.do().status is wire.Status.ACCEPTED

    def test_a_file_that_is_gone_is_a_failure(self, site, tmp_path):
        site.set(url='', path=str(tmp_path / 'none'))
        answer = site.do()
        assert answer.status is wire.Status.FAILED
        assert str(tmp_path / 'none') in answer.error


class TestHold:
    @pytest.fixture
    def full(self, site, server):
        server.play('/list', feed_server.answer(many(100)))
        site.set(hold=2 * HOUR)
        assert site.do().status is wire.Status.ACCEPTED
        return site

    def see(self, site, server, count):
        server.play('/list', feed_server.answer(many(count)))
        answer = site.do()
        site.job = dataclasses.replace(site.job, held=answer.held)
        return answer

    def test_a_collapse_is_held_and_the_kept_list_stays(self, full, server):
        answer = self.see(full, server, 3)
        assert answer.status is wire.Status.HELD
        assert answer.held == state.Held(entries=3, since=NOW, times=1)
        assert answer.addresses.is_empty
        assert 'less than half' in answer.error
        full.restart()
        assert full.do(wire.Mode.LOAD).entries == 100

    def test_it_is_used_when_it_still_comes_after_the_time(self, full, server):
        self.see(full, server, 3)
        full.now += HOUR
        assert self.see(full, server, 3).status is wire.Status.HELD
        full.now += HOUR
        answer = self.see(full, server, 3)
        assert answer.status is wire.Status.ACCEPTED
        assert answer.held is None

    def test_it_may_change_meanwhile_as_lists_do(self, full, server):
        self.see(full, server, 3)
        full.now += HOUR
        self.see(full, server, 4)
        full.now += HOUR
        assert self.see(full, server, 5).status is wire.Status.ACCEPTED

    def test_once_is_not_enough_without_any_time(self, full, server):
        full.set(hold=0.0)
        assert self.see(full, server, 3).status is wire.Status.HELD
        assert self.see(full, server, 3).status is wire.Status.ACCEPTED

    def test_after_the_old_list_came_back_the_time_begins_anew(self, full, server):
        self.see(full, server, 3)
        full.now += HOUR
        assert self.see(full, server, 100).status is wire.Status.UNCHANGED
        full.now += HOUR
        assert self.see(full, server, 3).status is wire.Status.HELD

    def test_an_explosion_after_a_collapse_is_not_its_confirmation(self, full, server):
        self.see(full, server, 3)
        full.now += 2 * HOUR
        assert self.see(full, server, 20000).held == state.Held(
            entries=20000, since=full.now, times=1
        )

    def test_a_clock_that_was_set_back_does_not_prolong_it_for_ever(self, full, server):
        self.see(full, server, 3)
        full.now -= 1000 * HOUR
        self.see(full, server, 3)
        full.now += 2 * HOUR
        assert self.see(full, server, 3).status is wire.Status.ACCEPTED

    def test_without_a_list_in_use_nothing_is_held(self, full, server):
        full.restart()
        assert self.see(full, server, 3).status is wire.Status.ACCEPTED


class TestLoad:
    def test_no_cache_is_absent(self, site):
        answer = site.do(wire.Mode.LOAD)
        assert answer.status is wire.Status.ABSENT
        assert answer.sources == (site.job.settings['url'],)

    def test_what_was_kept_is_loaded_without_any_network(self, site, server):
        accepted = site.do()
        site.restart()
        site.now += 5
        answer = site.do(wire.Mode.LOAD)
        assert answer.status is wire.Status.LOADED
        assert not answer.is_answered
        assert len(server.requests) == 1
        for name in ('entries', 'rejected', 'documents', 'validators', 'sources', 'fetched_at'):
            assert getattr(answer, name) == getattr(accepted, name)
        assert working.holds(answer.addresses, '5.6.7.8')

    def test_and_its_validators_count(self, site):
        site.do()
        site.restart()
        site.do(wire.Mode.LOAD)
        assert site.do().status is wire.Status.UNCHANGED

    def test_a_list_from_the_future_came_now(self, site):
        site.do()
        site.now -= 1000
        assert site.do(wire.Mode.LOAD).fetched_at == site.now

    def test_a_damaged_cache_is_refused_told_and_moved_aside(self, site):
        site.do()
        path = site.place / 'sample.list'
        path.write_bytes(path.read_bytes()[:-1])
        answer = site.do(wire.Mode.LOAD)
        assert answer.status is wire.Status.FAILED
        assert 'cached list refused' in answer.error
        assert 'it is now sample.list.bad' in answer.error
        assert site.files == ['sample.list.bad']
        assert site.do(wire.Mode.LOAD).status is wire.Status.ABSENT

    def test_a_list_of_another_source_is_refused(self, site, server):
        site.do()
        site.set(url=server.url('/other'))
        assert 'another source;' in site.do(wire.Mode.LOAD).error
        assert site.files == ['sample.list.bad']

    def test_a_kept_list_passes_the_same_checks(self, site):
        entry = working.entry(b'<html>', sources=(site.job.settings['url'],))
        cache.write(str(site.place), entry)
        answer = site.do(wire.Mode.LOAD)
        assert answer.status is wire.Status.FAILED
        assert 'web page' in answer.error

    def test_a_slow_host_does_not_cost_the_cache(self, site, monkeypatch):
        site.do()

        def build(*_args: object, **_more: object) -> None:
            with fetch.deadline(10):
                while True:
                    pass

        monkeypatch.setattr(lists, 'build', build)
        site.job = dataclasses.replace(site.job, seconds=0.2)
        assert site.do(wire.Mode.LOAD).status is wire.Status.FAILED
        assert site.files == ['sample.list']

    def test_wrong_own_networks_do_not_cost_the_cache(self, site):
        site.do()
        site.job = dataclasses.replace(site.job, own_networks=('nonsense',))
        assert site.do(wire.Mode.LOAD).status is wire.Status.FAILED
        assert site.files == ['sample.list']
