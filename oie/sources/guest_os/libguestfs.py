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

"""What a guest's disks say of its operating system, read by libguestfs.

It needs nothing in the guest and tells of any, also of those booted from a
volume; it costs seconds to a minute of one CPU. What is on a disk is the tenant's.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import os
import time
from typing import Any

from oslo_config import cfg

from oie import config
from oie import exceptions
from oie import model
from oie.sources.guest_os import base
from oie.sources.guest_os import disk_cache
from oie.sources.guest_os import disks

# What is wrong with this host, not with a disk: it is not kept, and tried again soon.
_HOST_REASONS = frozenset({'setup', 'stopped'})
_HOST_RETRY_SECONDS = 300.0


class LibguestfsDriver(base.GuestOsDriver):
    """Looks into the disks of an instance, read-only; the results are kept on disk."""

    IS_SLOW = True
    GROUP_HELP = (
        'The operating system of a guest as its disks tell it, read by libguestfs in a process of '
        'its own. Used where [guest_os] drivers names libguestfs. Needs the packages '
        'python3-guestfs and a kernel in /boot that the user of the inspection can read.'
    )
    OPTS = (
        cfg.Opt(
            'timeout',
            type=config.Duration(minimum=10, maximum=1800),
            default='2m',
            help='How long one inspection may take by the wall clock. Then it is killed with '
            'all that it started, and tried again after retry. With KVM it takes a few seconds, '
            'without 8 to 20; the first one also builds the appliance.',
        ),
        cfg.Opt(
            'refresh',
            type=config.Duration(minimum=600, maximum=30 * 86400),
            default='1d',
            help='How old an answer may become before the disks are inspected again. A new life '
            'of the guest on this host, or another disk, is always inspected.',
        ),
        cfg.Opt(
            'retry',
            type=config.Duration(minimum=60, maximum=7 * 86400),
            default='1h',
            help='How long after a failed inspection, or one that found no operating system, the '
            'disks are inspected again. An answer that was known before stays meanwhile.',
        ),
        cfg.Opt(
            'cache_dir',
            type=config.FilePath(),
            default='/var/cache/oie/libguestfs',
            help='Where the appliance (about 400 MB) and the answers are kept over restarts. It '
            'is made when it is missing. Nobody but the user of the exporter may write there.',
        ),
        cfg.StrOpt(
            'user',
            default='nobody',
            help='As whom inspections run when the exporter runs as root: a user that owns '
            'nothing. The inspection keeps the right to read any file, since disks belong to '
            'different users, and no other. Empty leaves it root without the other rights. '
            'Without root it runs as the user of the exporter, who must be able to read the '
            'disks.',
        ),
        cfg.Opt(
            'python',
            type=config.FilePath(),
            default='',
            help='The Python that has the module guestfs. Empty tries the one of the exporter '
            'and then /usr/bin/python3, for which distributions build it.',
        ),
        cfg.IntOpt(
            'memory',
            default=768,
            min=384,
            max=8192,
            help='Memory of the appliance in MiB. Large NTFS or XFS file systems may need more.',
        ),
        cfg.StrOpt(
            'force_tcg',
            default='auto',
            choices=('auto', 'true', 'false'),
            help='Whether the appliance runs without KVM. On some hosts KVM exists and cannot '
            'run it: then it hangs. auto does without where /dev/kvm is missing, and until the '
            'next boot of the host once a start with KVM has been killed at the limit.',
        ),
        cfg.Opt(
            'emulator',
            type=config.FilePath(),
            default='',
            help='The QEMU that runs the appliance. Empty leaves the choice to libguestfs.',
        ),
        cfg.Opt(
            'rbd_keyring',
            type=config.FilePath(),
            default='',
            help='A keyring of Ceph with the keys of the users that the domain XML names, such '
            'as /etc/ceph/ceph.client.cinder.keyring. Without it, RBD disks that need a key are '
            'not inspected. libguestfs hands the key to qemu-img as an argument: for a moment '
            'every user of this host can see it in the list of processes.',
        ),
    )

    def __init__(
        self, options: Any = None, uri: str = '', *, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(options, uri)
        if not options.cache_dir:
            raise exceptions.ConfigError(
                '[guest_os_libguestfs] cache_dir is empty; name a directory for the appliance'
            )
        self._clock = clock
        # Imported by who uses it: the options of all drivers are asked at every start.
        from oie.sources.guest_os import appliance

        self._appliance = appliance.Appliance(options, self.stopping)
        self._cache = disk_cache.DiskCache(os.path.join(options.cache_dir, 'results'))

    def read(self, instance: model.Instance) -> model.GuestOs | None:
        """Return what is on the disks, None for no operating system.

        It is inspected when it is not known, or known for too long.
        """
        ordered = disks.ordered(instance.definition)
        if not ordered:
            return None
        uuid = instance.definition.uuid
        record = self._cache.load(uuid, _key(instance, ordered[0]))
        if self._is_fresh(record):
            return _answer(record, self._options.retry)
        return self._inspect(uuid, record, ordered)

    def remembered(self, instance: model.Instance) -> model.GuestOs | None:
        """Return what earlier inspections of the same disk in the same life found, at once."""
        ordered = disks.ordered(instance.definition)
        if not ordered:
            return None
        return self._cache.load(instance.definition.uuid, _key(instance, ordered[0])).found

    @property
    def _options(self) -> Any:
        return self.options

    def _is_fresh(self, record: disk_cache.Record) -> bool:
        refresh = self._options.refresh if record.found else self._options.retry
        if record.failed_at is not None:
            return self._age(record.failed_at) < float(self._options.retry)
        return record.inspected_at is not None and self._age(record.inspected_at) < float(refresh)

    def _age(self, then: float) -> float:
        # A time in the future is taken for never: the clock was set back.
        age = self._clock() - then
        return age if age >= 0 else float('inf')

    def _inspect(
        self, uuid: str, record: disk_cache.Record, ordered: Sequence[model.DiskDevice]
    ) -> model.GuestOs | None:
        try:
            roots = self._appliance.look(disks.job(ordered, self._secrets()))
        except base.InspectionFailed as exc:
            raise self._failed(uuid, record, exc) from exc
        now = self._clock()
        found = guest_os(roots, now)
        self._cache.store(uuid, disk_cache.Record(key=record.key, inspected_at=now, found=found))
        self._cache.prune(now)
        return found

    def _failed(
        self, uuid: str, record: disk_cache.Record, failure: base.InspectionFailed
    ) -> base.InspectionFailed:
        """Keep a failure, beside what was known before; return it with its pause."""
        if failure.reason in _HOST_REASONS:
            retry = min(_HOST_RETRY_SECONDS, self._options.retry)
            return base.InspectionFailed(failure.reason, str(failure), retry)
        self._cache.store(
            uuid,
            dataclasses.replace(
                record, failed_at=self._clock(), reason=failure.reason, text=str(failure)[:1000]
            ),
        )
        return base.InspectionFailed(failure.reason, str(failure), self._options.retry)

    def _secrets(self) -> Mapping[str, str]:
        """Return the keys of Ceph by user.

        :raises InspectionFailed: there is a keyring that cannot be read
        """
        path = self._options.rbd_keyring
        if not path:
            return {}
        try:
            with open(path, encoding='utf-8', errors='replace') as file:
                return disks.keyring(file.read(disks.MOST_SECRET_BYTES))
        except OSError as exc:
            raise base.InspectionFailed(
                'setup',
                f'{path} cannot be read: {exc.strerror}; correct [guest_os_libguestfs] '
                'rbd_keyring or let the user of the exporter read it',
            ) from exc


def _key(instance: model.Instance, disk: model.DiskDevice) -> str:
    """Return the question: this disk, in this life of the guest on this host."""
    try:
        boot = disks.boot_id()
    except OSError:
        boot = ''
    return f'{boot}|{instance.domain_id}|{disks.identity(disk)}'


def _answer(record: disk_cache.Record, retry: float) -> model.GuestOs | None:
    """Return what is known; a failure only where nothing is.

    :raises InspectionFailed: the last inspection failed, and none before it had an answer
    """
    if record.failed_at is not None and record.found is None:
        raise base.InspectionFailed(record.reason, record.text, retry)
    return record.found


def guest_os(roots: Sequence[Mapping[str, Any]], learned_at: float) -> model.GuestOs | None:
    """Return the operating system of the disks as libguestfs names it.

    Of several, Windows counts: a small Linux beside it must not save its licence. Else it
    is the first. libguestfs gives version 0.0 where it does not know one.
    """
    if not roots:
        return None
    root = next((each for each in roots if each.get('type') == 'windows'), roots[0])
    major, minor = (base.number(root.get(f'{part}_version')) for part in ('major', 'minor'))
    if not major and not minor:
        major = minor = None
    return model.GuestOs(
        family=base.clean(root.get('type')),
        distro=base.clean(root.get('distro')),
        info=base.clean(root.get('osinfo')),
        product_name=base.clean(root.get('product_name')),
        product_variant=base.clean(root.get('product_variant')),
        version=model.UNKNOWN if major is None else f'{major}.{minor or 0}',
        version_major=major,
        version_minor=minor,
        learned_at=learned_at,
    )
