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
"""What has to be asked domain by domain: running jobs, disk errors, block jobs.

Each enters the monitor, and without NOWAIT. So a domain is asked only when
there is a sign that it has something to tell, in a bounded call of its own.
"""

import collections
from collections.abc import Iterable
from collections.abc import Mapping
import time
from typing import Any

from oie import exceptions
from oie import failures
from oie.sources import breaker as breakers
from oie.sources import calls
from oie.sources import domain_stats
from oie.sources import libvirt_domains
from oie.sources import libvirt_monitor


class DetailsReader:
    """Gives further fields of an instance by name.

    :param errors: counts what failed, by reason
    :param lasting: says once what cannot be read of a domain
    :param timeout: seconds for one domain
    :param total: seconds for all of them
    """

    def __init__(
        self,
        bounded: calls.Calls,
        breaker: breakers.Breaker,
        errors: collections.Counter[str],
        lasting: failures.LastingFailures,
        *,
        timeout: float,
        total: float,
        wants_block_jobs: bool,
    ) -> None:
        self._calls = bounded
        self._breaker = breaker
        self._errors = errors
        self._failures = lasting
        self._timeout = timeout
        self._total = total
        self._wants_block_jobs = wants_block_jobs

    def is_wanted(self, one: libvirt_domains.Observed) -> bool:
        """Whether there is more to ask of this domain."""
        return one.has_job or one.has_io_error or self._wants_block_jobs

    def read(self, wanted: Iterable[libvirt_domains.Observed]) -> Mapping[str, dict[str, Any]]:
        """Return what they tell by uuid, as far as the time and our calls reach."""
        deadline = time.monotonic() + self._total
        details: dict[str, dict[str, Any]] = {}
        for one in wanted:
            if time.monotonic() >= deadline or self._calls.free <= libvirt_monitor.RESERVED:
                self._errors['suspended'] += 1
            else:
                details[one.uuid] = self._read_one(one)
        return details

    def _read_one(self, one: libvirt_domains.Observed) -> dict[str, Any]:
        try:
            call = self._calls.start('details', lambda _call: self._ask(one))
        except exceptions.SourceError as exc:
            return self._fail(one, exc)
        try:
            details = call.wait(self._timeout)
        except exceptions.SourceTimeout as exc:
            self._calls.count_timeout('details')
            self._breaker.trip(one.uuid, call)
            return self._fail(one, exc)
        except Exception as exc:
            return self._fail(one, exc)
        one.known.has_job = details.get('job') is not None
        self._failures.settle(one.uuid, 'details not read')
        return details

    def _fail(self, one: libvirt_domains.Observed, exc: Exception) -> dict[str, Any]:
        # The hint was wrong, or the next round of the migration renews it.
        one.known.has_job = False
        self._errors['error'] += 1
        self._failures.report(one.uuid, 'details not read', exc)
        return {}

    def _ask(self, one: libvirt_domains.Observed) -> dict[str, Any]:
        details: dict[str, Any] = {}
        self._calls.pace()
        if one.has_job:
            details['job'] = domain_stats.job(one.handle.jobStats())
        if one.has_io_error:
            details['disk_errors'] = one.handle.diskErrors()
        if self._wants_block_jobs:
            found = {}
            for disk in one.known.definition.disks:
                self._calls.pace()
                found[disk.target] = one.handle.blockJobInfo(disk.target)
            details['block_jobs'] = {t: domain_stats.block_job(i) for t, i in found.items() if i}
        return details
