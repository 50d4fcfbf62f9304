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

"""Whether the disks of guests can be inspected, for ``oie-status host check``."""

from collections.abc import Iterator
import glob
import os
import shutil
import threading
from typing import Any

from oslo_config import cfg

from oie.cmd import check_table

NAME = 'Disk inspection'
ADVICE = 'See the rows above; take libguestfs out of [guest_os] drivers if it is not wanted.'
DRIVER = 'libguestfs'
KERNELS = '/boot/vmlinu[xz]*'

_GROUP = f'guest_os_{DRIVER}'
Row = check_table.Row
Result = check_table.Result


def rows(conf: cfg.ConfigOpts) -> tuple[Row, ...]:
    """Return a row if disks are to be inspected; none is."""
    if not conf.guest_os.enabled or DRIVER not in conf.guest_os.drivers:
        return ()
    options = conf[_GROUP]
    problems = tuple(_problems(options))
    if problems:
        detail = '; '.join(problem for problem, _ in problems)
        return (Row(NAME, Result.WARNING, detail, ' '.join(advice for _, advice in problems)),)
    user = options.user if not os.geteuid() and options.user else 'the user of the exporter'
    how = 'without KVM' if _is_emulated(options) else 'with KVM'
    return (Row(NAME, Result.OK, f'libguestfs can run, {how}, as {user}'),)


def _problems(options: Any) -> Iterator[tuple[str, str]]:
    """Give what is in the way, each with what to do about it."""
    from oie.sources.guest_os import pythons

    if not pythons.find(options.python):
        named = options.python and f'{options.python} has no module guestfs'
        yield (
            named or f'neither this Python nor {pythons.SYSTEM} has the module guestfs',
            'Install python3-guestfs (python3-libguestfs on RPM systems).',
        )
    if not shutil.which('qemu-img', path='/usr/sbin:/usr/bin:/sbin:/bin'):
        yield 'there is no qemu-img', 'Install qemu-utils (qemu-img on RPM systems).'
    kernels = glob.glob(KERNELS)
    if not any(os.access(kernel, os.R_OK) for kernel in kernels):
        found = 'none of the kernels in /boot can be read' if kernels else 'no kernel in /boot'
        yield found, 'Install one, and let the user read it: chmod 0644 /boot/vmlinuz-*.'
    if not _can_be_written(options.cache_dir):
        yield (
            f'{options.cache_dir} cannot be written',
            f'install -d -o USER {options.cache_dir}, or let systemd do it by CacheDirectory=.',
        )


def _can_be_written(directory: str) -> bool:
    while not os.path.lexists(directory):
        directory = os.path.dirname(directory)
    return os.path.isdir(directory) and os.access(directory, os.W_OK | os.X_OK)


def _is_emulated(options: Any) -> bool:
    from oie.sources.guest_os import appliance

    return appliance.Appliance(options, threading.Event()).is_emulated()
