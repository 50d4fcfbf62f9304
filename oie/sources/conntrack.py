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

"""A complete dump of the kernel's connection tracking table, or none at all.

One thread receives, in the kernel and without the lock of Python;
the caller's decodes what has come. Whatever could make the table wrong is
checked: who sent it, what it answers, how it ended, whether it was interrupted,
truncated or overrun, whether an entry came twice and whether about as many came
as the kernel counts. A resize of the hash in the meantime gives a part of the
table twice or not at all, and no flag says so (Linux 6.18): only counting tells.

Needs CAP_NET_ADMIN. Nothing is ever written: the request is IPCTNL_MSG_CT_GET,
never the one that also resets counters.
"""

from collections.abc import Callable
import contextlib
import dataclasses
import errno
import os
import secrets
import struct
import time

from oie import exceptions
from oie.sources import ctnetlink
from oie.sources import fingerprints
from oie.sources import flow_columns
from oie.sources import namespaces
from oie.sources import netlink
from oie.sources import netlink_receiver
from oie.sources import netlink_socket

NETLINK_NETFILTER = 12
# Both families at once.
AF_UNSPEC = 0

COUNT = '/proc/sys/net/netfilter/nf_conntrack_count'
MAXIMUM = '/proc/sys/net/netfilter/nf_conntrack_max'

# The table lives while it is read; what lacks more than this was not churn.
TOLERATED_SHARE = 0.05
TOLERATED_ENTRIES = 100

Consumer = Callable[[flow_columns.Flows], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How a complete dump went.

    :param odd: entries that no template fitted
    :param counted_before: the kernel's own number of entries, as that after it
    """

    entries: int
    odd: int
    seconds: float
    counted_before: int
    counted_after: int


def dump(
    consume: Consumer,
    *,
    namespace: str | None = None,
    timeout: float = 30.0,
    max_entries: int | None = None,
    templates: ctnetlink.Templates | None = None,
) -> Report:
    """Hand every entry of a table to ``consume``, some thousands at a time.

    What was consumed counts only when this returns.

    :param namespace: file of the network namespace, our own if None
    :param timeout: seconds the whole dump may take
    :param max_entries: how many the kernel may count; more are not asked for
    :param templates: those of the dump before, which save a little work
    :raises OversizedTable: there are more
    :raises InconsistentTable: the dump is not complete; another one may be
    :raises SourceError: there is none; the text says why
    """
    with open_table(namespace) as table:
        return read(table, consume, timeout=timeout, max_entries=max_entries, templates=templates)


def open_table(namespace: str | None = None) -> 'Table':
    """Return the table of a network namespace, our own if None.

    :raises SourceError: there is no such namespace, or no connection tracking
    """
    return Table() if namespace is None else namespaces.run_in(namespace, Table)


def read_number(path: str) -> int:
    """Return the number in a file of /proc; ``COUNT`` and ``MAXIMUM`` need no privilege.

    :raises SourceError: the file is missing (no connection tracking) or odd
    """
    with _Number(path) as number:
        return number.read()


class Table:
    """The table of the network namespace in which this is made, good for one dump."""

    def __init__(self) -> None:
        with contextlib.ExitStack() as opened:
            self.socket = opened.enter_context(netlink_socket.connect(NETLINK_NETFILTER))
            self._count = opened.enter_context(_Number(COUNT))
            self._opened = opened.pop_all()

    def __enter__(self) -> 'Table':
        return self

    def __exit__(self, *exc: object) -> None:
        self._opened.close()

    def count(self) -> int:
        """Return how many entries the kernel counts now."""
        return self._count.read()


class _Number:
    """A file of /proc that holds a number; it is that of the namespace it was opened in."""

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            raise exceptions.SourceError(f'{path}: {exc.strerror}') from exc

    def __enter__(self) -> '_Number':
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._file)

    def read(self) -> int:
        try:
            return int(os.pread(self._file, 32, 0))
        except (OSError, ValueError) as exc:
            raise exceptions.SourceError(f'{self._path}: {exc}') from exc


def read(
    table: Table,
    consume: Consumer,
    *,
    timeout: float = 30.0,
    max_entries: int | None = None,
    templates: ctnetlink.Templates | None = None,
) -> Report:
    """Do what ``dump()`` does, with a table that is open."""
    began = time.monotonic()
    if templates is not None:
        templates.grow_older()
    before = table.count()
    if max_entries is not None and before > max_entries:
        raise exceptions.OversizedTable(
            f'the table has {before} entries, more than [conntrack] max_entries = {max_entries}; '
            'raise it to read the table'
        )
    taken = _Taken(consume)
    sequence = secrets.randbits(32)
    decoder = ctnetlink.Decoder(sequence, table.socket.port_id, templates)
    request = _request(sequence, table.socket.port_id)
    with netlink_receiver.answers(table.socket, request, began + timeout) as buffers:
        for buffer in buffers:
            taken.take(decoder.decode(buffer))
    after = table.count()
    taken.check(min(before, after))
    return Report(
        entries=taken.entries,
        odd=taken.odd,
        seconds=time.monotonic() - began,
        counted_before=before,
        counted_after=after,
    )


def _request(sequence: int, port_id: int) -> bytes:
    flags = netlink.NLM_F_REQUEST | netlink.NLM_F_DUMP
    return struct.pack(
        '=IHHIIBBH', 20, ctnetlink.CT_GET, flags, sequence, port_id, AF_UNSPEC, 0, 0
    )


class _Taken:
    """What has been handed on, and whether it is a whole table."""

    def __init__(self, consume: Consumer) -> None:
        self.entries = 0
        self.odd = 0
        self._consume = consume
        self._is_done = False
        self._fingerprints = fingerprints.Fingerprints()

    def take(self, decoded: ctnetlink.Decoded) -> None:
        """Hand on the flows of one buffer.

        :raises SourceError: the kernel itself says that something is wrong
        """
        messages = decoded.messages
        if messages.error:
            raise exceptions.SourceError(f'the kernel refuses the table: {_name(messages.error)}')
        if messages.is_interrupted:
            raise exceptions.InconsistentTable('the kernel says that the dump is not consistent')
        self._is_done = messages.is_done
        self.entries += decoded.entries
        self.odd += decoded.odd
        for flows in decoded.flows:
            self._fingerprints.add(flows)
            self._consume(flows)

    def check(self, counted: int) -> None:
        """Compare the dump with itself and with the kernel's counter.

        :raises InconsistentTable: it is no whole table
        """
        if not self._is_done:
            raise exceptions.InconsistentTable('the table broke off before its end')
        duplicates = self._fingerprints.duplicates()
        if duplicates:
            raise exceptions.InconsistentTable(
                f'{duplicates} of {self.entries} entries came twice: the hash was being resized'
            )
        if self.entries < (1 - TOLERATED_SHARE) * counted - TOLERATED_ENTRIES:
            raise exceptions.InconsistentTable(f'only {self.entries} of {counted} entries came')


def _name(error: int) -> str:
    name = errno.errorcode.get(error, str(error))
    return f'{name}; it needs CAP_NET_ADMIN' if error == errno.EPERM else name
