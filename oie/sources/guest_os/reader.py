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


"""Instances → the operating systems of their guests, by the drivers in their order.

The first driver that knows wins as a whole: what two of them say is never mixed.
One that knows the family alone (an image of type linux) does not end the search.
Quick drivers answer within the cycle. Slow ones are asked by one thread, one
instance at a time, only where no driver before them knows; until then what a quick
one behind them knows is shown.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Set
import dataclasses
import logging
import threading
import time
from typing import Any
from typing import ClassVar
from typing import NamedTuple

from oslo_config import cfg

from oie import config
from oie import exceptions
from oie import failures
from oie import model
from oie.sources import probes
from oie.sources.guest_os import base
from oie.sources.guest_os import inspections
from oie.sources.guest_os import licences

LOG = logging.getLogger(__name__)

NAMESPACE = 'oie.guest_os'

OPTS = (
    cfg.BoolOpt(
        'enabled',
        default=True,
        help='Whether to find out which operating systems the guests run. The default drivers '
        'read only what libvirt tells anyway.',
    ),
    cfg.Opt(
        'drivers',
        type=config.PluginNames(NAMESPACE),
        default='nova_image,libosinfo',
        help='Who is asked, with commas between them, in this order; the first one that knows '
        'wins as a whole. nova_image: properties of the image, which Nova writes from 2025.2 '
        'on. libosinfo: metadata of other tools. guest_agent: the agent in the guest, which '
        'needs [guest_os_guest_agent] allow_read_write. libguestfs: a look at the disks.',
    ),
    cfg.Opt(
        'refresh',
        type=config.Duration(minimum=60, maximum=31 * 86400),
        default='6h',
        help='How old the answer of a slow driver (guest_agent, libguestfs) may become before '
        'it is asked again. A guest with a new QEMU process is asked at once.',
    ),
    cfg.Opt(
        'licences',
        type=config.Licences(),
        default='windows:vcpu',
        help='Which systems need a licence, as NAME:UNIT with commas between them, for example '
        'windows:vcpu,rhel:instance. NAME is a value of os_distro or os_family, the former '
        'counts first; UNIT is vcpu (a unit for each vCPU of the flavor) or instance (one '
        'unit). The name unknown is for guests of which no driver knows anything; without it '
        'their number of units is not known either.',
    ),
    cfg.BoolOpt(
        'numbers_as_integers',
        default=False,
        help='Whether oie-pollster os prints os_version_major and os_version_minor as integers, '
        'and 0 for what is not known, as ceilometer-instance-poller did. Otherwise they are '
        'texts, which attributes of type string in Gnocchi must be.',
    ),
)

_JOIN_SECONDS = 0.5
_PENDING = model.GuestOs()
_UNKNOWN = model.GuestOs(source=model.UNKNOWN)


class _Shown(NamedTuple):
    """An answer as it is published, with what it was made of."""

    definition: model.Definition
    vcpus: int | None
    found: model.GuestOs
    shown: model.GuestOs


class GuestOsSource:
    """Reads ``Snapshot.guest_os`` and ``Snapshot.guest_os_health``.

    :param options: our group ``[guest_os]``
    :param drivers: the drivers by name, in their order
    """

    GROUP: ClassVar[str] = 'guest_os'
    GROUP_HELP: ClassVar[str] = (
        'Which operating systems the guests run, and which of them need a licence.'
    )
    OPTS: ClassVar[tuple[cfg.Opt, ...]] = OPTS

    def __init__(
        self,
        options: Any,
        drivers: Mapping[str, base.GuestOsDriver],
        *,
        clock: probes.Clock = time,
    ) -> None:
        self._licences: Mapping[str, str] = options.licences
        self._drivers = drivers
        self._clock = clock
        self._quick: dict[tuple[str, str], tuple[model.Definition, model.GuestOs | None]] = {}
        self._shown: dict[str, _Shown] = {}
        self._failures = failures.LastingFailures(LOG)
        self._inspections = inspections.Inspections(options.refresh, self._failures, clock)
        # Replaced as a whole by the cycle; the thread only looks at it.
        self._wanted: tuple[inspections.Job, ...] = ()
        self._is_wanted = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def read(
        self, instances: tuple[model.Instance, ...], max_age: float, known: Set[str] = frozenset()
    ) -> dict[str, Any]:
        """Return the fields ``guest_os`` and ``guest_os_health`` of the snapshot, at once.

        :param max_age: not looked at: an answer holds until there is a newer one
        :param known: uuids of all instances; what is known of others is forgotten
        """
        self._keep_only(known | {instance.definition.uuid for instance in instances})
        found: dict[str, model.GuestOs] = {}
        wanted: list[inspections.Job] = []
        for instance in instances:
            answer, job = self._look(instance)
            found[instance.definition.uuid] = self._published(instance, answer)
            if job is not None:
                wanted.append(job)
        self._wanted = tuple(wanted)
        if wanted:
            self._start()
            self._is_wanted.set()
        return {
            'guest_os': found,
            'guest_os_health': self._inspections.health(self._wanted),
        }

    def read_remembered(self, instances: Iterable[model.Instance]) -> dict[str, Any]:
        """Return the field ``guest_os`` without asking any guest or disk.

        Slow drivers tell only what they remember from earlier runs of an exporter.
        """
        found = {}
        for instance in instances:
            answer = self._remembered(instance) or _PENDING
            found[instance.definition.uuid] = self._published(instance, answer)
        return {'guest_os': found}

    def license_units(self, uuid: str) -> int | None:
        """Return the units of the latest cycle, None when they are not known."""
        known = self._shown.get(uuid)
        return None if known is None else known.shown.license_units

    def close(self) -> None:
        """Ask nobody any more; a question that hangs is left behind."""
        self._stopping.set()
        self._is_wanted.set()
        for driver in self._drivers.values():
            driver.close()
        if self._thread is not None:
            self._thread.join(_JOIN_SECONDS)

    # --- one instance ---------------------------------------------------------

    def _look(self, instance: model.Instance) -> tuple[model.GuestOs, inspections.Job | None]:
        """Return what is known and what to ask next, if anything."""
        job: inspections.Job | None = None
        vague: model.GuestOs | None = None
        for name, driver in self._drivers.items():
            if driver.IS_SLOW:
                if job is None and self._inspections.is_due(instance, name):
                    job = inspections.Job(instance, name)
                answer = self._inspections.answer(instance, name)
            else:
                answer = self._ask_quick(name, driver, instance)
            if answer is not None and answer.distro != model.UNKNOWN:
                return answer, job
            vague = vague or answer
        is_pending = job is not None and not self._inspections.has_been_tried(instance, job.driver)
        return vague or (_PENDING if is_pending else _UNKNOWN), job

    def _ask_quick(
        self, name: str, driver: base.GuestOsDriver, instance: model.Instance
    ) -> model.GuestOs | None:
        """Return the answer of a quick driver, which is asked once for each definition."""
        definition = instance.definition
        known = self._quick.get((definition.uuid, name))
        if known is not None and known[0] is definition:
            return known[1]
        try:
            found = driver.read(instance)
            answer = found and base.cleaned(found, name, self._clock.time())
        # A driver may be a stranger's: whatever it raises costs its answer only.
        except Exception as exc:
            self._failures.report(definition.domain, name, repr(exc))
            answer = None
        self._quick[definition.uuid, name] = (definition, answer)
        return answer

    def _remembered(self, instance: model.Instance) -> model.GuestOs | None:
        vague: model.GuestOs | None = None
        for name, driver in self._drivers.items():
            if driver.IS_SLOW:
                answer = self._ask_memory(name, driver, instance)
            else:
                answer = self._ask_quick(name, driver, instance)
            if answer is not None and answer.distro != model.UNKNOWN:
                return answer
            vague = vague or answer
        has_slow = any(driver.IS_SLOW for driver in self._drivers.values())
        return vague or (None if has_slow else _UNKNOWN)

    def _ask_memory(
        self, name: str, driver: base.GuestOsDriver, instance: model.Instance
    ) -> model.GuestOs | None:
        try:
            kept = driver.remembered(instance)
            return kept and base.cleaned(kept, name, self._clock.time())
        # As with a quick one: whatever it raises costs its answer only.
        except Exception as exc:
            self._failures.report(instance.definition.domain, name, repr(exc))
            return None

    def _published(self, instance: model.Instance, found: model.GuestOs) -> model.GuestOs:
        """Return the answer with the units of its licence, the same object while they last."""
        vcpus, uuid = instance.billed_vcpus, instance.definition.uuid
        known = self._shown.get(uuid)
        if known is not None and known.found is found and known.vcpus == vcpus:
            return known.shown
        units = None if found is _PENDING else licences.units(self._licences, found, instance)
        shown = dataclasses.replace(found, license_units=units)
        self._shown[uuid] = _Shown(instance.definition, vcpus, found, shown)
        return shown

    def _keep_only(self, uuids: Set[str]) -> None:
        """Forget the instances that have left."""
        for uuid in self._shown.keys() - uuids:
            del self._shown[uuid]
        for uuid, name in [key for key in self._quick if key[0] not in uuids]:
            del self._quick[uuid, name]
        self._inspections.keep_only(uuids)

    # --- the thread -----------------------------------------------------------

    def _start(self) -> None:
        """Start the thread that asks slow drivers, unless it runs.

        :raises SourceError: there is no thread to be had
        """
        if self._thread is not None:
            return
        thread = threading.Thread(target=self._run, name='oie-guest-os', daemon=True)
        try:
            thread.start()
        except RuntimeError as exc:
            raise exceptions.SourceError(f'no thread to inspect guests: {exc}') from exc
        self._thread = thread

    def _run(self) -> None:
        while not self._stopping.is_set():
            if not self.inspect_next():
                self._is_wanted.wait()
                self._is_wanted.clear()

    def inspect_next(self) -> bool:
        """Ask one driver for one instance; tell whether there was one to ask.

        No failure leaves this function. What is known afterwards is in the next
        ``read``, which also says whom to ask then.
        """
        job = self._inspections.choose(self._wanted)
        if job is None or self._stopping.is_set():
            return False
        self._inspections.run(job, self._drivers[job.driver])
        return True
