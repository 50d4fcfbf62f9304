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


"""Who is asked, when, and what is shown meanwhile."""

import dataclasses
import logging
import threading
import time
import types

import pytest

from oie import exceptions
from oie import model
from oie.sources.guest_os import base
from oie.sources.guest_os import inspections
from oie.sources.guest_os import reader
from tests import builders

WINDOWS = model.GuestOs(family='windows', distro='windows')
DEBIAN = model.GuestOs(family='linux', distro='debian')
REFRESH = 21600.0


class Clock:
    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def time(self):
        return builders.NOW + self.now


class Driver(base.GuestOsDriver):
    """Answers as it is told, and notes whom it was asked for."""

    def __init__(self, answer=None, *, is_slow=False, kept=None):
        super().__init__()
        self.answer = answer
        self.kept = kept
        self.asked = []
        self.IS_SLOW = is_slow

    def read(self, instance):
        self.asked.append(instance.definition.domain)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    def remembered(self, instance):
        if isinstance(self.kept, BaseException):
            raise self.kept
        return self.kept


def slow(answer=None, **more):
    return Driver(answer, is_slow=True, **more)


def source(*, clock=None, licences=None, **drivers):
    """Return a source that asks slow drivers only when a test says so."""
    options = types.SimpleNamespace(
        licences={'windows': 'vcpu'} if licences is None else licences, refresh=REFRESH
    )
    made = reader.GuestOsSource(options, drivers, clock=clock or Clock())
    made._start = lambda: None
    return made


def guest(number=1, **more):
    of = builders.definition(
        uuid=f'{number:08x}-0000-4000-8000-000000000000', domain=f'i-{number}'
    )
    return builders.instance(of, **{'domain_id': number, **more})


def read(made, *instances):
    """Return family and source of each instance."""
    found = made.read(instances, 10.0, frozenset(i.definition.uuid for i in instances))
    return [(each.family, each.source) for each in found['guest_os'].values()]


def work(made, *instances):
    """Ask until nobody is to be asked, as the thread does between cycles; then read again."""
    read(made, *instances)
    while made.inspect_next():
        pass
    return read(made, *instances)


def health(made, *instances):
    return made.read(instances, 10.0)['guest_os_health']


# --- quick drivers --------------------------------------------------------------


def test_the_first_that_knows_wins_as_a_whole():
    first, second = Driver(DEBIAN), Driver(WINDOWS)
    assert read(source(first=first, second=second), guest()) == [('linux', 'first')]
    assert second.asked == []


def test_the_next_is_asked_when_the_first_knows_nothing():
    assert read(source(first=Driver(), second=Driver(WINDOWS)), guest()) == [('windows', 'second')]


def test_when_all_know_nothing_it_is_unknown():
    assert read(source(first=Driver(), second=Driver()), guest()) == [('unknown', 'unknown')]


def test_who_knows_the_family_alone_does_not_end_the_search():
    vague = Driver(model.GuestOs(family='linux'))
    agent = slow(model.GuestOs(family='linux', distro='rhel'))
    made = source(image=vague, agent=agent, licences={'rhel': 'instance'})
    [found] = made.read((guest(),), 10.0)['guest_os'].values()
    assert (found.family, found.source, found.license_units) == ('linux', 'image', None)
    work(made, guest())
    [found] = made.read((guest(),), 10.0)['guest_os'].values()
    assert (found.distro, found.source, found.license_units) == ('rhel', 'agent', 1)


def test_the_family_is_shown_when_nobody_knows_more():
    vague = Driver(model.GuestOs(family='linux'))
    made = source(image=vague, agent=slow(), other=Driver(model.GuestOs(family='freebsd')))
    assert work(made, guest()) == [('linux', 'image')]
    assert remembered(made, guest()) == [('linux', 'image')]


def test_a_definition_is_asked_for_once():
    driver, one = Driver(DEBIAN), guest()
    made = source(first=driver)
    first = made.read((one,), 10.0)['guest_os']
    again = made.read((dataclasses.replace(one, read_at=builders.NOW + 9),), 10.0)['guest_os']
    assert driver.asked == ['i-1']
    # The same object: whoever made labels of it need not make them again.
    assert list(first.values())[0] is list(again.values())[0]


def test_a_new_definition_is_asked_for_anew():
    driver = Driver(DEBIAN)
    made = source(first=driver)
    read(made, guest())
    driver.answer = WINDOWS
    assert read(made, guest()) == [('windows', 'first')]


def test_a_broken_quick_driver_costs_only_its_answer(caplog):
    made = source(first=Driver(KeyError('x')), second=Driver(DEBIAN))
    assert read(made, guest()) == [('linux', 'second')]
    assert "KeyError('x')" in caplog.text


def test_answers_are_cleaned_whoever_gives_them():
    made = source(first=Driver(model.GuestOs(family='a\nb', distro='x' * 999)))
    [found] = made.read((guest(),), 10.0)['guest_os'].values()
    assert found.family == 'a\N{REPLACEMENT CHARACTER}b'
    assert len(found.distro) == 255


# --- licences -------------------------------------------------------------------


def test_units_follow_the_vcpus_of_the_flavor():
    made, one = source(first=Driver(WINDOWS)), guest()
    [found] = made.read((one,), 10.0)['guest_os'].values()
    assert found.license_units == 2
    larger = dataclasses.replace(
        one, definition=dataclasses.replace(one.definition, flavor=builders.flavor(vcpus=4))
    )
    [found] = made.read((larger,), 10.0)['guest_os'].values()
    assert found.license_units == 4
    assert made.license_units(one.definition.uuid) == 4


def test_units_are_not_known_while_somebody_is_still_to_be_asked():
    made = source(first=slow(), licences={'unknown': 'vcpu'})
    [found] = made.read((guest(),), 10.0)['guest_os'].values()
    assert (found.source, found.license_units) == ('pending', None)
    work(made, guest())
    [found] = made.read((guest(),), 10.0)['guest_os'].values()
    assert (found.source, found.license_units) == ('unknown', 2)


def test_units_of_a_stranger_are_not_known():
    assert source().license_units('nobody') is None


# --- slow drivers -----------------------------------------------------------------


def test_a_cycle_never_asks_a_slow_driver():
    driver = slow(DEBIAN)
    made = source(agent=driver)
    assert read(made, guest()) == [('unknown', 'pending')]
    assert driver.asked == []


def test_what_it_says_is_in_the_next_cycle_with_its_time():
    clock = Clock()
    made = source(clock=clock, agent=slow(DEBIAN))
    assert work(made, guest()) == [('linux', 'agent')]
    [found] = made.read((guest(),), 10.0)['guest_os'].values()
    assert found.learned_at == clock.time()


def test_it_is_not_asked_where_a_quick_one_before_it_knows():
    driver = slow(DEBIAN)
    assert work(source(image=Driver(WINDOWS), agent=driver), guest()) == [('windows', 'image')]
    assert driver.asked == []


def test_until_it_has_answered_a_quick_one_behind_it_is_shown():
    made = source(agent=slow(DEBIAN), image=Driver(WINDOWS))
    assert read(made, guest()) == [('windows', 'image')]
    assert work(made, guest()) == [('linux', 'agent')]


def test_the_second_slow_one_is_asked_only_when_the_first_knows_nothing():
    first, second = slow(), slow(DEBIAN)
    made = source(agent=first, disk=second)
    assert work(made, guest()) == [('unknown', 'pending')]
    assert (first.asked, second.asked) == (['i-1'], [])
    assert work(made, guest()) == [('linux', 'disk')]
    assert (first.asked, second.asked) == (['i-1'], ['i-1'])


def test_all_asked_and_nothing_is_unknown():
    made = source(agent=slow(), disk=slow())
    work(made, guest())
    work(made, guest())
    assert read(made, guest()) == [('unknown', 'unknown')]


def test_an_answer_is_refreshed_by_age_and_stays_meanwhile():
    clock, driver = Clock(), slow(DEBIAN)
    made = source(clock=clock, agent=driver)
    work(made, guest())
    clock.now += REFRESH - 1
    work(made, guest())
    assert driver.asked == ['i-1']
    clock.now += 1
    driver.answer = WINDOWS
    assert read(made, guest()) == [('linux', 'agent')]
    assert work(made, guest()) == [('windows', 'agent')]


def test_a_failed_refresh_leaves_what_was_known():
    clock, driver = Clock(), slow(DEBIAN)
    made = source(clock=clock, agent=driver)
    work(made, guest())
    clock.now += REFRESH
    driver.answer = base.InspectionFailed('unresponsive', 'silent')
    assert work(made, guest()) == [('linux', 'agent')]


def test_a_new_life_is_asked_at_once_and_shows_the_last_one_meanwhile():
    driver = slow(DEBIAN)
    made = source(agent=driver)
    work(made, guest())
    driver.answer = WINDOWS
    reborn = guest(domain_id=77)
    assert read(made, reborn) == [('linux', 'agent')]
    assert work(made, reborn) == [('windows', 'agent')]


def test_a_new_life_that_knows_nothing_forgets_the_last_one():
    driver = slow(DEBIAN)
    made = source(agent=driver)
    work(made, guest())
    driver.answer = None
    assert work(made, guest(domain_id=77)) == [('unknown', 'unknown')]


# --- failures ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ('error', 'reason'),
    [
        (base.InspectionFailed('not_connected', 'no agent'), 'not_connected'),
        (base.InspectionFailed('Not a label!', 'no agent'), 'failed'),
        (exceptions.SourceTimeout('late'), 'timeout'),
        (exceptions.SourceError('bad'), 'failed'),
        (KeyError('x'), 'broken'),
    ],
)
def test_failures_are_counted_by_reason_and_told(caplog, error, reason):
    made = source(agent=slow(error))
    assert work(made, guest()) == [('unknown', 'unknown')]
    assert health(made, guest()).failures == {reason: 1}
    assert f'i-1: agent: {reason}: ' in caplog.text


def test_an_answer_that_is_none_of_ours_is_a_failure():
    made = source(agent=slow('windows'))
    work(made, guest())
    assert health(made, guest()).failures == {'broken': 1}


def test_what_a_stop_ends_is_no_failure(caplog):
    driver = slow(base.InspectionFailed('broken', 'ended'))
    made = source(agent=driver)
    read(made, guest())
    driver.stopping.set()
    made.inspect_next()
    assert health(made, guest()).failures == {}
    assert caplog.text == ''


def test_reasons_are_bounded():
    clock, driver = Clock(), slow()
    made = source(clock=clock, agent=driver)
    for number in range(40):
        driver.answer = base.InspectionFailed(
            f'r{"abcdefghijklmnopqrstuvwxyz"[number % 26]}{"x" * (number // 26)}', 'no'
        )
        work(made, guest())
        clock.now += 2 * inspections.LONGEST_RETRY
    found = health(made, guest()).failures
    assert sum(found.values()) == 40
    assert len(found) <= 33


def test_pauses_grow_up_to_an_hour():
    clock, driver = Clock(), slow(base.InspectionFailed('not_connected', 'no agent'))
    made = source(clock=clock, agent=driver)
    times = []
    for _ in range(6 * 60):
        asked = len(driver.asked)
        work(made, guest())
        if len(driver.asked) > asked:
            times.append(clock.now)
        clock.now += 60
    pauses = [after - before for before, after in zip(times, times[1:], strict=False)]
    assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600, 3600]


def test_a_driver_may_say_when_to_ask_again():
    clock = Clock()
    driver = slow(base.InspectionFailed('failed', 'kept', retry=500.0))
    made = source(clock=clock, agent=driver)
    work(made, guest())
    clock.now += 499
    work(made, guest())
    assert len(driver.asked) == 1
    clock.now += 1
    work(made, guest())
    assert len(driver.asked) == 2


def test_a_new_life_is_asked_without_a_pause():
    driver = slow(base.InspectionFailed('not_connected', 'no agent'))
    made = source(agent=driver)
    work(made, guest())
    work(made, guest(domain_id=77))
    assert len(driver.asked) == 2


def test_a_lasting_failure_is_told_once(caplog):
    clock, driver = Clock(), slow(base.InspectionFailed('not_connected', 'no agent'))
    made = source(clock=clock, agent=driver)
    for _ in range(5):
        work(made, guest())
        clock.now += inspections.LONGEST_RETRY
    assert caplog.text.count('not_connected') == 1
    driver.answer = DEBIAN
    with caplog.at_level(logging.WARNING):
        work(made, guest())
    assert caplog.text.count('over') == 1


# --- the queue --------------------------------------------------------------------


def test_new_instances_come_first_then_new_lives_then_who_waits_longest():
    clock, driver = Clock(), slow(DEBIAN)
    made = source(clock=clock, agent=driver)
    work(made, guest(1))
    clock.now += 5
    work(made, guest(1), guest(2), guest(3))
    clock.now += 2 * REFRESH
    driver.asked.clear()
    work(made, guest(3), guest(2, domain_id=99), guest(1), guest(4))
    assert driver.asked == ['i-4', 'i-2', 'i-1', 'i-3']


def test_the_queue_is_told_without_the_one_under_way():
    made = source(agent=slow(DEBIAN))
    three = (guest(1), guest(2), guest(3))
    assert health(made, *three).queued == 3
    driver = made._drivers['agent']
    seen = []
    driver.read = lambda instance: seen.append(health(made, *three))
    made.inspect_next()
    assert (seen[0].queued, seen[0].is_inspecting) == (2, True)
    assert not health(made, *three).is_inspecting


def test_inspections_and_their_time_are_counted():
    clock = Clock()
    driver = slow(DEBIAN)
    made = source(clock=clock, agent=driver)
    answer = driver.read

    def read(instance):
        clock.now += 2.5
        return answer(instance)

    driver.read = read
    work(made, guest(1), guest(2))
    found = health(made)
    assert (found.inspections, found.seconds) == (2, 5.0)


def test_what_has_left_is_forgotten():
    driver = slow(DEBIAN)
    made = source(image=Driver(), agent=driver)
    work(made, guest(1), guest(2))
    work(made, guest(2))
    assert list(made._shown) == [guest(2).definition.uuid]
    assert {uuid for uuid, _ in made._quick} == {guest(2).definition.uuid}
    assert {uuid for uuid, _ in made._inspections._states} == {guest(2).definition.uuid}


def test_who_is_known_but_not_shown_is_not_forgotten():
    driver, one = slow(DEBIAN), guest(1)
    made = source(agent=driver)
    work(made, one)
    made.read((), 10.0, frozenset({one.definition.uuid}))
    assert read(made, one) == [('linux', 'agent')]


# --- the thread -------------------------------------------------------------------


def test_no_thread_runs_where_no_slow_driver_is_asked():
    options = types.SimpleNamespace(licences={}, refresh=REFRESH)
    made = reader.GuestOsSource(options, {'image': Driver(DEBIAN), 'agent': slow()})
    before = threading.active_count()
    read(made, guest())
    assert threading.active_count() == before
    made.close()


def test_a_slow_answer_never_holds_up_a_cycle():
    going, driver = threading.Event(), slow(DEBIAN)
    entered, answer = threading.Event(), driver.read

    def wait(instance):
        entered.set()
        assert going.wait(10)
        return answer(instance)

    driver.read = wait
    options = types.SimpleNamespace(licences={}, refresh=REFRESH)
    made = reader.GuestOsSource(options, {'agent': driver})
    two = (guest(1), guest(2))
    try:
        read(made, *two)
        assert entered.wait(10)
        started = time.monotonic()
        assert read(made, *two) == [('unknown', 'pending')] * 2
        assert time.monotonic() - started < 5
        assert health(made, *two).is_inspecting
        going.set()
        deadline = time.monotonic() + 10
        while read(made, *two) != [('linux', 'agent')] * 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert driver.asked == ['i-1', 'i-2']
    finally:
        going.set()
        made.close()
    assert driver.stopping.is_set()
    assert not made._thread.is_alive()


def test_without_a_thread_the_cycle_says_so(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, 'start', refuse)
    options = types.SimpleNamespace(licences={}, refresh=REFRESH)
    made = reader.GuestOsSource(options, {'agent': slow()})
    with pytest.raises(exceptions.SourceError, match="no thread to inspect guests: can't start"):
        made.read((guest(),), 10.0)


# --- without an exporter ------------------------------------------------------------


def remembered(made, *instances):
    found = made.read_remembered(instances)['guest_os']
    return [(each.family, each.source) for each in found.values()]


def test_quick_drivers_answer_without_an_exporter():
    made = source(agent=slow(DEBIAN), image=Driver(WINDOWS))
    assert remembered(made, guest()) == [('windows', 'image')]
    assert made._drivers['agent'].asked == []


def test_slow_ones_tell_what_they_remember():
    assert remembered(source(disk=slow(kept=DEBIAN)), guest()) == [('linux', 'disk')]


def test_what_is_not_remembered_is_pending():
    assert remembered(source(disk=slow()), guest()) == [('unknown', 'pending')]
    for error in (exceptions.SourceError('damaged'), KeyError('x')):
        broken = slow(kept=error)
        assert remembered(source(disk=broken), guest()) == [('unknown', 'pending')]


def test_with_quick_drivers_alone_nothing_is_pending():
    assert remembered(source(image=Driver()), guest()) == [('unknown', 'unknown')]
