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

"""Fixtures of the functional tests: one libvirtd for the session, guests for a test."""

from collections.abc import Callable
from collections.abc import Iterator
import signal
import types
from typing import Any

import pytest

from tests import machine
from tests.functional import flows
from tests.functional import guests as lab_guests
from tests.functional import lab
from tests.functional import processes

GuestFactory = Callable[..., list[lab_guests.Guest]]
LibvirtdFactory = Callable[..., lab.Libvirtd]


@pytest.fixture(scope='session')
def laboratory() -> Iterator[None]:
    """Check that the machine can run the laboratory; end everything at last."""
    machine.require(lab.what_is_missing())
    lab.sweep()
    previous = signal.signal(signal.SIGTERM, _exit_in_order)
    yield
    signal.signal(signal.SIGTERM, previous)
    processes.end_all()


@pytest.fixture(scope='session')
def own_namespaces() -> None:
    """Check that there can be network namespaces with connection tables of their own."""
    machine.require(flows.what_is_missing())


@pytest.fixture(scope='session')
def libvirtd(laboratory: None) -> Iterator[lab.Libvirtd]:
    """One private libvirtd, for tests that leave the daemon as it is."""
    with lab.Libvirtd() as daemon:
        yield daemon


@pytest.fixture
def new_libvirtd(libvirtd: lab.Libvirtd) -> Iterator[LibvirtdFactory]:
    """Start further daemons, for tests that restart, suspend, kill or limit them."""
    started = []

    def start(**options: Any) -> lab.Libvirtd:
        daemon = lab.Libvirtd(**options)
        started.append(daemon)
        daemon.take_capabilities_of(libvirtd)
        daemon.start()
        return daemon

    yield start
    for daemon in started:
        daemon.close()


@pytest.fixture
def guests(libvirtd: lab.Libvirtd) -> Iterator[GuestFactory]:
    """Start guests in the session's libvirtd; they are gone after the test.

    Called with a count and the options of ``lab.Libvirtd.guest()``.
    """
    started: list[lab_guests.Guest] = []

    def start(count: int = 1, **options: object) -> list[lab_guests.Guest]:
        new = libvirtd.start_guests(count, **options)
        started.extend(new)
        return new

    yield start
    libvirtd.remove(started)


def _exit_in_order(number: int, frame: types.FrameType | None) -> None:
    # pytest's own way out runs the fixtures' ends; the default action would not.
    pytest.exit(f'ended by signal {number}', returncode=128 + number)
