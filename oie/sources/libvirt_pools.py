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

"""Storage pools as libvirt last knew them: never refreshed, which would block and write."""

import logging
from typing import Any

from oie import exceptions
from oie import failures
from oie import model
from oie.sources import calls

LOG = logging.getLogger(__name__)


class PoolReader:
    """Reads the active storage pools by one bounded call.

    A pool whose storage hangs holds that call; until it returns no other one is
    started, and there are no figures.
    """

    def __init__(
        self, bounded: calls.Calls, lasting: failures.LastingFailures, *, timeout: float
    ) -> None:
        self._calls = bounded
        self._failures = lasting
        self._timeout = timeout
        self._call: calls.Call[tuple[model.StoragePool, ...]] | None = None

    def read(self, libvirt: Any, connection: Any) -> tuple[model.StoragePool, ...]:
        """Return the active pools, none when they cannot be read now."""
        if self._call is not None and not self._call.has_returned:
            return ()
        try:
            self._call = self._calls.start('pools', lambda _call: _read(libvirt, connection))
            pools = self._call.wait(self._timeout)
        except exceptions.SourceTimeout as exc:
            self._calls.count_timeout('pools')
            self._failures.report('storage pools', 'not read', exc)
        except (exceptions.SourceError, libvirt.libvirtError) as exc:
            self._failures.report('storage pools', 'not read', exc)
        else:
            self._failures.settle('storage pools', 'not read')
            return pools
        return ()


def _read(libvirt: Any, connection: Any) -> tuple[model.StoragePool, ...]:
    pools = []
    for handle in connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
        try:
            _state, capacity, allocation, available = handle.info()
        except libvirt.libvirtError as exc:
            LOG.debug('storage pool %r: %s', handle.name(), exc)
            continue
        pools.append(
            model.StoragePool(
                name=handle.name(),
                capacity_bytes=capacity,
                allocation_bytes=allocation,
                available_bytes=available,
            )
        )
    return tuple(pools)
