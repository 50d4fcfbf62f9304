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

"""libvirtd goes, hangs, comes: what was known is kept, nothing is invented, it is found again."""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import os
import re
import signal

import pytest

from tests.functional import conftest
from tests.functional import exporter as exporters
from tests.functional import lab
from tests.functional import processes

UP = 'oie_libvirt_up'
RECONNECTS = 'oie_libvirt_reconnects_total'
COUNTERS = (
    'oie_disk_r_requests',
    'oie_instance_cpu_seconds_total',
    'oie_instance_disk_read_bytes_total',
)
ABOUT_INSTANCES = ('oie_instance_', 'oie_disk_', 'oie_net_', 'oie_cpu_', 'libvirt_nova_')
DEADLINE = 8.0


@pytest.fixture
def daemon(new_libvirtd: conftest.LibvirtdFactory) -> lab.Libvirtd:
    """Return a libvirtd of our own with two guests."""
    started = new_libvirtd()
    started.start_guests(2, program='disk')
    return started


def test_restarted_daemon_is_found_again_and_nothing_was_zero_meanwhile(
    daemon: lab.Libvirtd,
) -> None:
    settings = {'collector': {'dynamic_cache_expiration': '30s'}}

    with exporters.Exporter(daemon.uri, settings) as exporter, exporter.watched() as watch:
        exporter.wait_for(_all_are_used(daemon), 'the disks to be used')
        first = len(watch.cycles)
        daemon.stop()
        exporter.wait_for(lambda now: now.value(UP) == 0, 'the loss to be noticed')
        daemon.start()
        exporter.wait_for(_all_are_good(daemon), 'the daemon to be found again', 20)

    ups = watch.values(UP)
    assert ups[0] == ups[-1] == 1
    assert 0 in ups
    assert watch.values(RECONNECTS)[-1] >= 1
    assert set(watch.values('oie_host_active_vms')) == {2}
    assert set(watch.values('oie_host_active_vcpus')) == {2}
    for guest in daemon.guests:
        for name in COUNTERS:
            found = watch.values(name, instance_uuid=guest.uuid)
            # Present in every cycle, and never back.
            assert len(found) >= len(watch.cycles) - first
            assert found == sorted(found)
        stale = watch.values(exporters.FRESH, instance_uuid=guest.uuid)
        assert 0 in stale
        assert stale[-1] == 1


def test_daemon_that_stays_away_ends_the_series_and_keeps_our_health(
    daemon: lab.Libvirtd,
) -> None:
    with exporters.Exporter(daemon.uri) as exporter:
        daemon.stop()
        exporter.wait_for(lambda now: not now.instances(), 'the series to end')
        scrape = exporter.next_scrape()
        ready, reason = exporter.get('/readyz')
        healthy, _ = exporter.get('/healthz')
        polled = [exporter.pollster(name) for name in exporters.POLLSTERS]
        exporter.kill()
        direct = [exporter.pollster(name) for name in exporters.POLLSTERS]

    assert not [name for name in scrape.names() if name.startswith(ABOUT_INSTANCES)]
    assert scrape.value(UP) == 0
    assert scrape.value('oie_host_collection_errors_total') > 0  # type: ignore[operator]
    # Unknown is no number: not even of the instances.
    assert scrape.value('oie_host_active_vms') is None
    assert scrape.of('oie_build_info')
    assert scrape.value('oie_collector_success', group='libvirt') == 0
    assert scrape.value('oie_collector_success', group='cpu') == 1
    assert (ready, healthy) == (503, 200)
    assert 'libvirt' in reason
    for answer in (*polled, *direct):
        assert 'libvirt' in answer.sentence
        assert answer.seconds < DEADLINE


def test_daemon_that_hangs_holds_nobody_up(daemon: lab.Libvirtd) -> None:
    settings = {'libvirt': {'timeout': '1s'}}

    with exporters.Exporter(daemon.uri, settings) as exporter, exporter.watched() as watch:
        threads = exporter.threads()
        with _suspended(daemon):
            exporter.wait_for(lambda now: now.value(UP) == 0, 'the hang to be noticed')
            watch.wait_for_cycles(3)
            hung = watch.cycles[-1]
            direct = _without_daemon(daemon, exporters.POLLSTERS[:1])
        exporter.wait_for(_all_are_good(daemon), 'the daemon to answer again', 20)

        assert exporter.threads() <= threads + 4
    assert watch.slowest < 1.0
    assert hung.value(UP) == 0
    assert hung.value('oie_libvirt_stuck_calls') <= 4  # type: ignore[operator]
    for answer in direct:
        assert 'libvirt' in answer.sentence
        assert answer.seconds < DEADLINE


def test_exporter_ends_in_time_though_libvirt_hangs(daemon: lab.Libvirtd) -> None:
    with exporters.Exporter(daemon.uri) as exporter:
        with _suspended(daemon):
            exporter.wait_for(lambda now: now.value(UP) == 0, 'the hang to be noticed')

            seconds = exporter.stop()

        assert seconds < 5
        assert 'oie-exporter stopped' in exporter.log
        assert not exporter.socket.exists()


def test_report_tells_of_the_calls_that_hang(daemon: lab.Libvirtd) -> None:
    # Else keepalive would end the call that hangs.
    settings = {'libvirt': {'keepalive_interval': 60}}

    with exporters.Exporter(daemon.uri, settings) as exporter:
        with _suspended(daemon):
            exporter.wait_for(lambda now: now.value(UP) == 0, 'the hang to be noticed')
            os.kill(exporter.pid, signal.SIGUSR2)
            processes.wait_for(lambda: 'nobody waits' in exporter.log, 10, 'the report')
        report = exporter.log.partition('Guru Meditation Report')[2]
    sources, _, flying = report.partition('Calls in flight')
    assert re.search(r'^libvirt: failed, .* last success \d+ s ago$', sources, re.MULTILINE)
    assert re.search(r'^oie-call 1 list: [0-9.]+ s, nobody waits', flying, re.MULTILINE)


def test_exporter_waits_for_a_daemon_that_starts_later(daemon: lab.Libvirtd) -> None:
    daemon.stop()
    exporter = exporters.Exporter(daemon.uri)
    exporter.start(is_ready=False)
    with contextlib.closing(exporter):
        early = exporter.wait_for(lambda now: now.value(UP) == 0, 'the first cycle')
        ready, _ = exporter.get('/readyz')
        polled = exporter.pollster('instances')

        daemon.start()

        late = exporter.wait_for(_all_are_good(daemon), 'the daemon to be found', 20)
    assert ready == 503
    assert 'libvirt' in polled.sentence
    assert early.value('oie_host_active_vms') is None
    assert late.value(UP) == 1
    assert late.value(RECONNECTS) == 0


@pytest.mark.parametrize('name', ['libvirt-sock-ro', 'virtqemud-sock-ro'])
def test_default_uri_finds_the_daemon_in_its_directory_also_after_a_restart(
    name: str, daemon: lab.Libvirtd
) -> None:
    socket = daemon.socket('sock-ro')
    if name != socket.name:
        # Modular daemons have the same protocol on a socket of another name.
        socket.with_name(name).symlink_to(socket.name)
    # There /run/libvirt is the daemon's: a directory, as a container would mount it.
    launcher = ('nsenter', f'--mount=/proc/{daemon.pid}/ns/mnt')

    with exporters.Exporter('qemu:///system', launcher=launcher) as exporter:
        before = exporter.wait_for(_all_are_good(daemon), 'the guests')
        daemon.restart()
        after = exporter.wait_for(
            lambda now: (now.value(RECONNECTS) or 0) > 0 and _all_are_good(daemon)(now),
            'the daemon to be found again',
            20,
        )

    assert before.instances() == after.instances() == {guest.uuid for guest in daemon.guests}


def test_modular_daemon_is_read_like_the_monolithic_one(laboratory: None) -> None:
    if processes.find_program('virtqemud') is None:
        pytest.skip('virtqemud is not installed (Debian 12 has the monolithic libvirtd only)')
    with lab.Libvirtd(modular=True) as modular:
        (guest,) = modular.start_guests(1)

        with exporters.Exporter(modular.uri) as exporter:
            scrape = exporter.wait_for(_all_are_good(modular), 'the guest')

    assert scrape.instances() == {guest.uuid}


@contextlib.contextmanager
def _suspended(daemon: lab.Libvirtd) -> Iterator[None]:
    daemon.suspend()
    try:
        yield
    finally:
        daemon.resume()


def _without_daemon(daemon: lab.Libvirtd, names: Sequence[str]) -> list[exporters.Answer]:
    described = exporters.Exporter(daemon.uri)
    described.write_config()
    with contextlib.closing(described):
        return [described.pollster(name) for name in names]


def _all_are_good(daemon: lab.Libvirtd) -> exporters.Predicate:
    return lambda now: all(now.is_good(guest.uuid) for guest in daemon.guests)


def _all_are_used(daemon: lab.Libvirtd) -> exporters.Predicate:
    return lambda now: all(
        now.of(name, instance_uuid=guest.uuid) for guest in daemon.guests for name in COUNTERS
    )
