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

"""Fixtures of the billing chain: what is installed, and each server once for the session."""

from collections.abc import Iterator
import os

import pytest

from tests import machine
from tests.billing import ceilometer
from tests.billing import cloudkitty
from tests.billing import environments
from tests.billing import gnocchi
from tests.billing import postgres
from tests.functional import processes
from tests.functional.conftest import laboratory  # noqa: F401
from tests.functional.conftest import libvirtd  # noqa: F401

_PROGRAMS = ('setpriv', 'psql', 'prometheus', 'promtool')


@pytest.fixture(scope='session')
def installed() -> dict[str, environments.Environment]:
    """Return the environments; what is missing is a skip, or a failure where tox asks for it."""
    missing = [name for name in _PROGRAMS if processes.find_program(name) is None]
    if os.geteuid() != 0:
        missing.append('root')
    if postgres.find_programs() is None:
        missing.append('postgresql')
    if missing:
        machine.give_up(f'the billing chain needs {", ".join(missing)} (bindep billing)')
    try:
        return environments.make_all()
    except processes.LabError as exc:
        machine.give_up(f'the environments could not be made: {exc}')


@pytest.fixture(scope='session')
def index(installed: dict[str, environments.Environment]) -> Iterator[postgres.Postgres]:
    with postgres.Postgres() as running:
        yield running


@pytest.fixture(scope='session')
def server(
    installed: dict[str, environments.Environment], index: postgres.Postgres
) -> Iterator[gnocchi.Gnocchi]:
    """Return a Gnocchi with what Ceilometer and our script make in it."""
    with gnocchi.Gnocchi(installed['gnocchi'], index) as running:
        ceilometer.prepare(installed['ceilometer'], running)
        yield running


@pytest.fixture(scope='session')
def rating(installed: dict[str, environments.Environment]) -> Iterator[cloudkitty.CloudKitty]:
    """Return a CloudKitty with the example prices and periods of an hour."""
    with cloudkitty.CloudKitty(installed['cloudkitty']) as made:
        yield made
