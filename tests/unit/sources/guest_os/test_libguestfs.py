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

import subprocess
import sys
import types
from typing import Any

import pytest

from oie import exceptions
from oie import model
from oie.sources.guest_os import base
from oie.sources.guest_os import libguestfs
from tests import builders

DEBIAN = {
    'type': 'linux',
    'distro': 'debian',
    'osinfo': 'debian12',
    'product_name': '12.5',
    'product_variant': 'unknown',
    'major_version': 12,
    'minor_version': 5,
}
WINDOWS = {
    'type': 'windows',
    'distro': 'windows',
    'osinfo': 'win2k22',
    'product_name': 'Windows Server 2022 Datacenter',
    'product_variant': 'Server',
    'major_version': 10,
    'minor_version': 0,
}
HOUR, DAY = 3600.0, 86400.0


class FakeAppliance:
    """Finds what it is told, or fails; remembers how often it was asked."""

    def __init__(self) -> None:
        self.looks: list[Any] = []
        self.roots: list[dict[str, Any]] = [DEBIAN]
        self.failure: base.InspectionFailed | None = None

    def look(self, entries: Any) -> list[dict[str, Any]]:
        self.looks.append(entries)
        if self.failure is not None:
            raise self.failure
        return self.roots


class Bench:
    """A driver whose appliance, clock and disk are the test's."""

    def __init__(self, directory: Any) -> None:
        self.now = builders.NOW
        self.appliance = FakeAppliance()
        self.image = directory / 'disk'
        self.image.write_bytes(b'\0' * 512)
        self.options = types.SimpleNamespace(
            refresh=DAY, retry=HOUR, cache_dir=str(directory / 'cache'), rbd_keyring=''
        )
        self.restart()

    def restart(self) -> None:
        for option in libguestfs.LibguestfsDriver.OPTS:
            if not hasattr(self.options, option.dest):
                setattr(self.options, option.dest, option.default)
        self.driver = libguestfs.LibguestfsDriver(self.options, clock=lambda: self.now)
        self.driver._appliance = self.appliance  # type: ignore[assignment]

    def instance(self, **more: Any) -> model.Instance:
        disk = builders.disk(type='file', source=str(self.image), driver_format='raw')
        definition = builders.definition(disks=more.pop('disks', (disk,)))
        return builders.instance(definition=definition, **more)

    def read(self, **more: Any) -> model.GuestOs | None:
        return self.driver.read(self.instance(**more))


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


class TestAnswer:
    def test_facts_of_libguestfs_become_those_of_the_reference(self):
        assert libguestfs.guest_os([WINDOWS], 5.0) == model.GuestOs(
            family='windows',
            distro='windows',
            info='win2k22',
            product_name='Windows Server 2022 Datacenter',
            product_variant='Server',
            version='10.0',
            version_major=10,
            version_minor=0,
            learned_at=5.0,
        )

    def test_nothing_found_is_no_answer(self):
        assert libguestfs.guest_os([], 5.0) is None

    def test_windows_beside_a_small_linux_is_windows(self):
        found = libguestfs.guest_os([DEBIAN, WINDOWS], 5.0)
        assert found is not None
        assert found.distro == 'windows'

    def test_the_first_of_several_others_counts(self):
        found = libguestfs.guest_os([DEBIAN, {**DEBIAN, 'distro': 'ubuntu'}], 5.0)
        assert found is not None
        assert found.distro == 'debian'

    def test_version_that_libguestfs_does_not_know_is_unknown_and_not_zero(self):
        found = libguestfs.guest_os([{**DEBIAN, 'major_version': 0, 'minor_version': 0}], 5.0)
        assert found is not None
        assert (found.version, found.version_major, found.version_minor) == ('unknown', None, None)

    def test_major_version_alone_counts(self):
        found = libguestfs.guest_os([{**DEBIAN, 'minor_version': None}], 5.0)
        assert found is not None
        assert (found.version, found.version_major, found.version_minor) == ('12.0', 12, None)

    @pytest.mark.parametrize(
        ('text', 'shown'),
        [
            ('a\nb', 'a\ufffdb'),
            ('\x1b[2J', '\ufffd[2J'),
            ('x' * 300, 'x' * 255),
            ('\ud800', '\ufffd'),
            ('', 'unknown'),
            (None, 'unknown'),
            (7, 'unknown'),
            (['a'], 'unknown'),
        ],
    )
    def test_texts_of_the_guest_are_cleaned_and_cut(self, text, shown):
        found = libguestfs.guest_os([{**DEBIAN, 'product_name': text}], 5.0)
        assert found is not None
        assert found.product_name == shown

    @pytest.mark.parametrize('number', [-1, 2**40, True, 1.5, [], 'x'])
    def test_numbers_of_the_guest_are_plausible_or_none(self, number):
        found = libguestfs.guest_os([{**DEBIAN, 'major_version': number}], 5.0)
        assert found is not None
        assert found.version_major in (None, 0)


class TestRead:
    def test_disk_is_inspected_once(self, bench):
        first = bench.read()
        assert first.distro == 'debian'
        assert first.learned_at == builders.NOW
        bench.now += DAY - 1
        assert bench.read() == first
        assert len(bench.appliance.looks) == 1

    def test_answer_outlives_a_restart(self, bench):
        first = bench.read()
        bench.restart()
        assert bench.read() == first
        assert len(bench.appliance.looks) == 1

    def test_old_answer_is_learned_anew(self, bench):
        bench.read()
        bench.now += DAY
        bench.appliance.roots = [WINDOWS]
        assert bench.read().distro == 'windows'

    def test_new_life_of_the_guest_is_inspected(self, bench):
        bench.read(domain_id=3)
        bench.read(domain_id=4)
        assert len(bench.appliance.looks) == 2

    def test_new_boot_of_the_host_is_a_new_life(self, bench, tmp_path, monkeypatch):
        bench.read()
        boot = tmp_path / 'boot_id'
        boot.write_text('another\n')
        monkeypatch.setattr('oie.sources.guest_os.disks.BOOT_ID', str(boot))
        bench.read()
        assert len(bench.appliance.looks) == 2

    def test_another_disk_is_inspected(self, bench, tmp_path):
        bench.read()
        other = tmp_path / 'other'
        other.write_bytes(b'\0' * 512)
        other.replace(bench.image)
        bench.read()
        assert len(bench.appliance.looks) == 2

    def test_nothing_found_is_looked_for_again_after_retry(self, bench):
        bench.appliance.roots = []
        assert bench.read() is None
        bench.now += HOUR - 1
        assert bench.read() is None
        assert len(bench.appliance.looks) == 1
        bench.now += 1
        bench.appliance.roots = [DEBIAN]
        assert bench.read().distro == 'debian'

    def test_instance_without_disks_says_nothing(self, bench):
        assert bench.read(disks=()) is None
        assert bench.appliance.looks == []

    def test_clock_that_was_set_back_makes_answers_old(self, bench):
        bench.read()
        bench.now -= 10 * DAY
        bench.read()
        assert len(bench.appliance.looks) == 2


class TestFailure:
    def fail(self, bench: Bench, reason: str = 'timeout') -> base.InspectionFailed:
        bench.appliance.failure = base.InspectionFailed(reason, 'it took too long')
        with pytest.raises(base.InspectionFailed) as caught:
            bench.read()
        return caught.value

    def test_failure_names_its_reason_and_its_pause(self, bench):
        failure = self.fail(bench)
        assert (failure.reason, failure.retry) == ('timeout', HOUR)

    def test_failure_is_kept_over_a_restart(self, bench):
        self.fail(bench)
        bench.restart()
        bench.now += HOUR - 1
        failure = self.fail(bench)
        assert (failure.reason, str(failure)) == ('timeout', 'it took too long')
        assert len(bench.appliance.looks) == 1
        bench.now += 1
        bench.appliance.failure = None
        assert bench.read().distro == 'debian'

    def test_earlier_answer_stays_after_a_failure(self, bench):
        first = bench.read()
        bench.now += DAY
        self.fail(bench)
        bench.restart()
        assert bench.read() == bench.driver.remembered(bench.instance()) == first
        assert len(bench.appliance.looks) == 2
        bench.now += HOUR
        bench.appliance.failure = None
        assert bench.read().learned_at == bench.now

    def test_failure_of_another_life_does_not_hold(self, bench):
        self.fail(bench)
        bench.appliance.failure = None
        assert bench.read(domain_id=99).distro == 'debian'

    @pytest.mark.parametrize(('reason', 'retry'), [('setup', 300.0), ('stopped', 300.0)])
    def test_what_is_wrong_with_the_host_is_not_kept(self, bench, reason, retry):
        assert self.fail(bench, reason).retry == retry
        bench.restart()
        bench.appliance.failure = None
        assert bench.read().distro == 'debian'

    def test_boot_disk_that_must_not_be_opened_is_told(self, bench):
        disk = builders.disk(type='file', source='/x', driver_format='raw', is_encrypted=True)
        with pytest.raises(base.InspectionFailed, match='encrypted') as caught:
            bench.read(disks=(disk,))
        assert caught.value.reason == 'refused'
        assert bench.appliance.looks == []

    def test_keyring_that_cannot_be_read_is_told(self, bench, tmp_path):
        bench.options.rbd_keyring = str(tmp_path / 'none')
        with pytest.raises(base.InspectionFailed, match='rbd_keyring'):
            bench.read()


class TestRemembered:
    def test_is_what_was_found_at_any_age(self, bench):
        first = bench.read()
        bench.now += 100 * DAY
        assert bench.driver.remembered(bench.instance()) == first

    def test_is_nothing_for_another_life_or_no_disk(self, bench):
        bench.read()
        assert bench.driver.remembered(bench.instance(domain_id=99)) is None
        assert bench.driver.remembered(bench.instance(disks=())) is None

    def test_never_inspects(self, bench):
        assert bench.driver.remembered(bench.instance()) is None
        assert bench.appliance.looks == []


def test_who_does_not_use_it_imports_nothing_of_it():
    program = (
        'import sys, oie.sources.guest_os.libguestfs\n'
        'bad = {"guestfs", "oie.sources.guest_os.appliance", "oie.sources.guest_os.sessions",'
        ' "oie.sources.guest_os.inspection_child", "subprocess"} & set(sys.modules)\n'
        'print(sorted(bad))'
    )
    done = subprocess.run(
        (sys.executable, '-c', program), stdout=subprocess.PIPE, text=True, check=True
    )
    assert 'oie' not in done.stdout
    assert 'guestfs' not in done.stdout


def test_it_is_slow_and_closing_stops_it(bench):
    assert libguestfs.LibguestfsDriver.IS_SLOW
    bench.driver.close()
    assert bench.driver.stopping.is_set()


def test_appliance_without_a_place_is_a_mistake_of_the_configuration():
    with pytest.raises(exceptions.ConfigError, match='cache_dir'):
        libguestfs.LibguestfsDriver(types.SimpleNamespace(cache_dir=''))
