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

"""Storage pools: libvirt's real test driver, and what may go wrong with stubs."""

import logging
import threading
import types

import pytest

from oie import failures
from oie import model
from oie.sources import calls
from oie.sources import libvirt_pools

LOG = logging.getLogger(__name__)

libvirt = pytest.importorskip('libvirt', reason='libvirt-python is not installed')

POOL = """
<pool type='dir'>
  <name>oiet-pool</name>
  <target><path>/oiet-pool</path></target>
</pool>
"""


class Broken:
    """A pool that left while it was listed."""

    def info(self):
        raise libvirt.libvirtError('no storage pool')

    def name(self):
        return 'gone'


class Whole:
    """A pool with room."""

    def info(self):
        return [2, 1000, 400, 600]

    def name(self):
        return 'whole'


def connection(*pools):
    return types.SimpleNamespace(listAllStoragePools=lambda _flags: list(pools))


@pytest.fixture
def reader():
    return libvirt_pools.PoolReader(calls.Calls(2), failures.LastingFailures(LOG), timeout=0.1)


def test_active_pools_are_those_of_libvirt(reader):
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    handle = libvirt.open('test:///default')
    handle.storagePoolDefineXML(POOL, 0)
    handle.storagePoolLookupByName('oiet-pool').create(0)
    expected = {}
    for pool in handle.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
        expected[pool.name()] = tuple(pool.info()[1:])

    found = reader.read(libvirt, handle)

    assert 'oiet-pool' in expected
    assert {
        pool.name: (pool.capacity_bytes, pool.allocation_bytes, pool.available_bytes)
        for pool in found
    } == expected


def test_pool_that_left_costs_only_itself(reader):
    assert reader.read(libvirt, connection(Broken(), Whole())) == (
        model.StoragePool(
            name='whole', capacity_bytes=1000, allocation_bytes=400, available_bytes=600
        ),
    )


def test_daemon_without_pools_is_no_zero(reader):
    def refuse(_flags):
        raise libvirt.libvirtError('no connection driver available')

    assert reader.read(libvirt, types.SimpleNamespace(listAllStoragePools=refuse)) == ()


def test_hanging_storage_is_asked_by_one_call_only(reader):
    gate, asked = threading.Event(), []

    def hang(_flags):
        asked.append(True)
        gate.wait(10)
        return [Whole()]

    hanging = types.SimpleNamespace(listAllStoragePools=hang)
    assert reader.read(libvirt, hanging) == ()
    assert reader.read(libvirt, hanging) == ()
    gate.set()
    assert asked == [True]
