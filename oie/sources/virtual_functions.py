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

"""Passed-through interfaces → what they received and sent, as the kernel has counted it.

libvirt has no statistics for a virtual function (VF) that the guest owns. The driver of the
physical function (PF) that it is a part of can count it, and rtnetlink tells. Which PF, and
which of its VFs, is in sysfs (Documentation/ABI/testing/sysfs-bus-pci: ``physfn``,
``virtfn<n>``).
"""

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import logging
import os
import re

from oie import exceptions
from oie import failures
from oie import model
from oie.sources import calls
from oie.sources import rtnetlink

LOG = logging.getLogger(__name__)

PCI_DEVICES = '/sys/bus/pci/devices'
# Milliseconds are usual. A firmware that hangs holds mlx5 for a minute, and with it the lock of
# the kernel's whole network configuration.
TIMEOUT = 2.0

_SUBJECT = 'VF counters'
_NUMBERED = re.compile('virtfn([0-9]+)')
# Documentation/networking/switchdev.rst: the ports of an internal switch that lead to functions,
# not to the wire. Their network devices have the PF for a parent too.
_REPRESENTOR = re.compile('(c[0-9]+)?pf[0-9]+')


@dataclasses.dataclass(frozen=True, slots=True)
class Answers:
    """Counters by PCI address, and why there are none, by PCI address too."""

    counters: Mapping[str, rtnetlink.Counters]
    problems: Mapping[str, str]


class VirtualFunctionReader:
    """Asks every PF once in a cycle, by one bounded call for all of them.

    A request that waits in the kernel cannot be interrupted. Until it returns no other one is
    made, and there are no counters.

    :param root: the directory of the PCI devices
    :param ask: gives the answer of the kernel about the network device with an index
    :param timeout: seconds for all of them
    """

    def __init__(
        self,
        *,
        root: str = PCI_DEVICES,
        ask: Callable[[int], bytes] = rtnetlink.ask,
        timeout: float = TIMEOUT,
    ) -> None:
        self._root = root
        self._ask = ask
        self._timeout = timeout
        self._calls = calls.Calls(1, 'oie-vf')
        self._call: calls.Call[Answers] | None = None
        self._failures = failures.LastingFailures(LOG)
        self._problems: Mapping[str, str] = {}
        self._counters: Mapping[str, rtnetlink.Counters] = {}

    def read(self, definitions: Iterable[model.Definition]) -> None:
        """Read the counters of all passed-through interfaces anew.

        What cannot be read now has none; its failure is logged once.
        """
        owners = collections.Counter(
            device.pci_address
            for definition in definitions
            for device in definition.interfaces
            if device.pci_address
        )
        self._counters = self._read(owners) if owners else {}

    def of(self, definition: model.Definition) -> tuple[model.VirtualFunctionStatistics, ...]:
        """Return what was read last of the interfaces of one instance."""
        return tuple(
            model.VirtualFunctionStatistics(device=device, **counters)
            for device in definition.interfaces
            if (counters := self._counters.get(device.pci_address))
        )

    def close(self) -> None:
        """Make no more calls; what hangs is left behind."""
        self._calls.close()

    def _read(self, owners: Mapping[str, int]) -> Mapping[str, rtnetlink.Counters]:
        if self._call is not None and not self._call.has_returned:
            return {}
        try:
            self._call = self._calls.start(_SUBJECT, lambda call: self._collect(owners, call))
            answers = self._call.wait(self._timeout)
        except Exception as exc:
            # Whatever it is, it must not cost what libvirt gave.
            LOG.debug('reading virtual functions failed', exc_info=True)
            text = str(exc) if isinstance(exc, exceptions.SourceError) else repr(exc)
            answers = Answers({}, {'': text})
        self._tell(answers.problems)
        return answers.counters

    def _tell(self, problems: Mapping[str, str]) -> None:
        for address in self._problems.keys() - problems.keys():
            self._failures.settle(_subject(address), 'not read')
        for address, text in problems.items():
            self._failures.report(_subject(address), 'not read', text)
        self._problems = problems

    def _collect(self, owners: Mapping[str, int], call: calls.Call[Answers]) -> Answers:
        """Return what all PFs tell; this runs in the thread of the call."""
        parents, problems = _parents(self._root, owners)
        counters: dict[str, rtnetlink.Counters] = {}
        for parent, addresses in parents.items():
            if call.is_abandoned:
                break
            try:
                told = self._children(parent)
            except exceptions.SourceError as exc:
                problems[parent] = str(exc)
                continue
            for address in addresses:
                if address not in told:
                    problems[address] = f'{parent} does not tell of it'
                # All zero says nothing: so the kernel tells where the driver cannot count, and
                # while a VF is reset (it does not look at the result of ndo_get_vf_stats).
                elif any(told[address].values()):
                    counters[address] = told[address]
        return Answers(counters, problems)

    def _children(self, parent: str) -> Mapping[str, rtnetlink.Counters]:
        """Return the counters of the VFs of a PF, by their PCI addresses.

        :raises SourceError: they cannot be read, or it is not sure whose they are
        """
        name, index = _network_device(self._root, parent)
        link = rtnetlink.parse(self._ask(index))
        if link.name != name:
            raise exceptions.SourceError(f'network device {index} is {link.name!r}, not {name!r}')
        numbers = _numbers(self._root, parent)
        return {
            address: link.functions[number]
            for address, number in numbers.items()
            if number in link.functions
        }


def _subject(address: str) -> str:
    return f'{_SUBJECT} of {address}' if address else _SUBJECT


# --- sysfs --------------------------------------------------------------------


def _parents(root: str, owners: Mapping[str, int]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return the VFs by their PF, and what is wrong with the others."""
    parents: dict[str, list[str]] = {}
    problems = {}
    for address, count in owners.items():
        if count > 1:
            # One of the definitions is old, and nobody knows which.
            problems[address] = 'several interfaces claim it'
            continue
        try:
            parent = _target(os.path.join(root, address, 'physfn'))
        except OSError as exc:
            problems[address] = f'it is no virtual function of this host ({exc.strerror})'
        else:
            parents.setdefault(parent, []).append(address)
    return parents, problems


def _numbers(root: str, parent: str) -> dict[str, int]:
    """Return the numbers of the VFs of a PF, by their PCI addresses."""
    directory = os.path.join(root, parent)
    try:
        return {
            _target(os.path.join(directory, name)): int(numbered[1])
            for name in os.listdir(directory)
            if (numbered := _NUMBERED.fullmatch(name))
        }
    except OSError as exc:
        raise exceptions.SourceError(f'its virtual functions: {exc}') from exc


def _target(link: str) -> str:
    return os.path.basename(os.readlink(link))


def _network_device(root: str, parent: str) -> tuple[str, int]:
    """Return name and index of the network device that a PF is.

    :raises SourceError: it has none in this network namespace, or several
    """
    directory = os.path.join(root, parent, 'net')
    try:
        names = sorted(os.listdir(directory))
        if len(names) > 1:
            names = [name for name in names if not _is_representor(directory, name)]
        if len(names) != 1:
            raise exceptions.SourceError(f'it has {len(names)} network devices: {names}')
        with open(os.path.join(directory, names[0], 'ifindex'), encoding='ascii') as file:
            return names[0], int(file.read())
    except FileNotFoundError as exc:
        raise exceptions.SourceError('it has no network device here') from exc
    except (OSError, ValueError) as exc:
        raise exceptions.SourceError(f'its network device: {exc}') from exc


def _is_representor(directory: str, name: str) -> bool:
    try:
        with open(os.path.join(directory, name, 'phys_port_name'), encoding='ascii') as file:
            return _REPRESENTOR.match(file.read()) is not None
    except (OSError, ValueError):
        # EOPNOTSUPP where the driver has no names for its ports.
        return False
