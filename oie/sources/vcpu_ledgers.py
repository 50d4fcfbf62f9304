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


"""The ledgers of all domains, and the file that keeps them while we do not run.

QEMU outlives us, and what its unplugged vCPUs used stands nowhere else. The file is
written when a vCPU has gone and at our end, never because time went by.
"""

from collections.abc import Iterable
import logging
import threading
from typing import Any

from oie import exceptions
from oie import failures
from oie import model
from oie.sources import remembered
from oie.sources import vcpu_ledger

LOG = logging.getLogger(__name__)

Ledgers = dict[str, tuple[int, vcpu_ledger.VcpuLedger]]

_SUBJECT = 'unplugged vCPUs'
# Without cgroups libvirt reads a process by ticks of 10 ms, threads more finely.
_ROUNDING_NS = 10**9
_PATIENCE = 1.0


class VcpuLedgers:
    """What the vCPUs of every QEMU have used, by the uuid of the domain.

    :param path: the file, empty to forget them
    :param writes: False for a program beside the daemon, whose file it is
    """

    def __init__(self, path: str = '', *, writes: bool = True) -> None:
        self._path = path
        self._writes = bool(path) and writes
        self._failures = failures.LastingFailures(LOG)
        # A cycle may still run when we are to end.
        self._lock = threading.Lock()
        self._is_due = False
        self._ledgers: Ledgers = {}
        self._kept = self._load()

    def settle(
        self,
        uuid: str,
        vcpus: tuple[model.VcpuStatistics, ...],
        current: int | None,
        *,
        domain_id: int,
        cpu_time_ns: int,
    ) -> tuple[model.VcpuStatistics, ...]:
        """Return the vCPUs of a domain with times that never fall, see VcpuLedger.settle().

        :param domain_id: libvirt's number of this QEMU
        :param cpu_time_ns: what all of this QEMU has used
        """
        with self._lock:
            ledger = self._ledger(uuid, domain_id, cpu_time_ns)
            before = ledger.carried_ns
            settled = ledger.settle(vcpus, current)
            self._is_due = self._is_due or ledger.carried_ns != before
        return settled

    def end_cycle(self, present: Iterable[str]) -> None:
        """Forget the domains that have left this host; write the file if a vCPU has gone."""
        uuids = set(present)
        with self._lock:
            for known in (self._ledgers, self._kept):
                for uuid in known.keys() - uuids:
                    del known[uuid]
            if self._is_due:
                self._save()
            self._is_due = False

    def close(self) -> None:
        """Write how far all vCPUs are: one may be unplugged before our next start."""
        if not self._lock.acquire(timeout=_PATIENCE):
            return
        try:
            if self._ledgers:
                self._save()
        finally:
            self._lock.release()

    def _ledger(self, uuid: str, domain_id: int, cpu_time_ns: int) -> vcpu_ledger.VcpuLedger:
        known = self._ledgers.get(uuid)
        if known is None:
            known = self._kept.pop(uuid, None)
            # Numbers of domains come again after a start of the host or of libvirtd, but
            # what a QEMU used is never less than what its vCPUs did.
            if known is not None and known[1].used_ns > cpu_time_ns + _ROUNDING_NS:
                known = None
        if known is None or known[0] != domain_id:
            known = domain_id, vcpu_ledger.VcpuLedger()
        self._ledgers[uuid] = known
        return known[1]

    def _load(self) -> Ledgers:
        if not self._path:
            return {}
        try:
            return _parse(remembered.load(self._path))
        except exceptions.SourceError as exc:
            self._failures.report(_SUBJECT, 'what they used is forgotten', exc)
            return {}

    def _save(self) -> None:
        if not self._writes:
            return
        content = {
            uuid: {'domain_id': domain_id, 'vcpus': ledger.state()}
            for uuid, (domain_id, ledger) in (self._kept | self._ledgers).items()
        }
        try:
            remembered.save(self._path, content)
        except exceptions.SourceError as exc:
            self._failures.report(_SUBJECT, 'forgotten at a restart', exc)
        else:
            self._failures.settle(_SUBJECT, 'forgotten at a restart')


def _parse(content: Any) -> Ledgers:
    """Return the ledgers of a file; an entry that nobody wrote like this costs itself only."""
    found: Ledgers = {}
    for uuid, entry in content.items() if isinstance(content, dict) else ():
        try:
            domain_id = vcpu_ledger.whole(entry['domain_id'])
            found[uuid] = domain_id, vcpu_ledger.VcpuLedger.of(entry['vcpus'])
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            LOG.debug('%s: vCPUs of %r: %r', _SUBJECT, uuid, exc)
    return found
