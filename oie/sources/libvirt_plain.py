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

"""Hypervisors whose bulk statistics hold nothing but the state: ask one by one.

libvirt's test driver is such a one. Their answers are written into the record
under the names of virConnectGetAllDomainStats, so that all the rest is the same.
Never used with QEMU, where these calls would enter the monitor one by one.
"""

from collections.abc import Callable
from typing import Any

from oie import model

_NET = (
    'rx.bytes',
    'rx.pkts',
    'rx.errs',
    'rx.drop',
    'tx.bytes',
    'tx.pkts',
    'tx.errs',
    'tx.drop',
)
_BLOCK = ('rd.reqs', 'rd.bytes', 'wr.reqs', 'wr.bytes')
_SIZES = ('capacity', 'allocation', 'physical')


def complete(
    libvirt: Any, record: dict[str, Any], handle: Any, definition: model.Definition
) -> dict[str, Any]:
    """Return the record with what single calls say of interfaces, disks, vCPUs, memory."""

    def ask(function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except libvirt.libvirtError:
            return ()

    _, maximum_kib, current_kib, vcpus, _ = handle.info()
    found = dict(record)
    targets = [nic.target for nic in definition.interfaces if nic.target]
    found['net.count'] = len(targets)
    for n, target in enumerate(targets):
        found[f'net.{n}.name'] = target
        _put(found, f'net.{n}', _NET, ask(handle.interfaceStats, target))
    found['block.count'] = len(definition.disks)
    for n, disk in enumerate(definition.disks):
        found[f'block.{n}.name'] = disk.target
        _put(found, f'block.{n}', _BLOCK, ask(handle.blockStats, disk.target))
        _put(found, f'block.{n}', _SIZES, ask(handle.blockInfo, disk.target))
    found['vcpu.current'] = found['vcpu.maximum'] = vcpus
    for number, state, time_ns, _cpu in (ask(handle.vcpus) or [()])[0]:
        found[f'vcpu.{number}.state'] = state
        found[f'vcpu.{number}.time'] = time_ns
    found['balloon.current'], found['balloon.maximum'] = current_kib, maximum_kib
    # There, but not known: the record is complete all the same.
    found['balloon.rss'] = None
    return found


def _put(found: dict[str, Any], prefix: str, names: tuple[str, ...], values: Any) -> None:
    found.update((f'{prefix}.{name}', value) for name, value in zip(names, values, strict=False))
