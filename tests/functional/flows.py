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

"""A private network namespace whose connection tracking table holds what a test wants.

The entries are made by ctnetlink itself: no packet, no rule and no address is
needed, and nothing outside the namespace changes. ``conntrack -L`` says what is
really there.

    with flows.Namespace() as namespace:
        namespace.add(ctnetlink.Entry(ctnetlink.tcp('10.0.0.5', '192.0.2.1')))
        conntrack.dump(print, namespace=namespace.path)
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import dataclasses
import ipaddress
import os
import pathlib
import secrets
import socket
import struct
from typing import Any
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from oie.sources import namespaces
from tests import conntrack_list
from tests import ctnetlink
from tests.functional import processes

PREFIX = 'oiet'
NETLINK_NETFILTER = 12

_SETTINGS = pathlib.Path('/proc/sys/net/netfilter')
_SO_SNDBUFFORCE = 32
_SEND_BYTES = 2**20
_CREATE = ctnetlink.NLM_F_REQUEST | ctnetlink.NLM_F_CREATE | ctnetlink.NLM_F_EXCL
_DUMP = ctnetlink.NLM_F_REQUEST | 0x300
_OTHER_END = {'src': 'dst', 'dst': 'src', 'src_port': 'dst_port', 'dst_port': 'src_port'}

Rows = npt.NDArray[np.uint8]
T = TypeVar('T')


def what_is_missing() -> str | None:
    """Return why no such namespace can be had on this machine; None if it can."""
    if os.geteuid() != 0:
        return 'private conntrack tables need root'
    missing = [name for name in ('ip', 'conntrack', 'nft') if processes.find_program(name) is None]
    if missing:
        return f'private conntrack tables need {", ".join(missing)} (bindep functional)'
    try:
        with Namespace() as namespace:
            namespace.add(ctnetlink.Entry(ctnetlink.tcp('10.0.0.5', '192.0.2.1')))
    except (OSError, processes.LabError) as exc:
        return f'no private conntrack table: {exc}'
    return None


class Namespace:
    """A network namespace of our own, gone after the block."""

    def __init__(self) -> None:
        self.name = f'{PREFIX}{secrets.token_hex(3)}'
        self.path = f'/run/netns/{self.name}'

    def __enter__(self) -> 'Namespace':
        processes.run('ip', 'netns', 'add', self.name)
        processes.end_later(self, self.close)
        self._connection = self.run(_connect)
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Delete the namespace, and with it the table."""
        processes.ended(self)
        self._connection.close()
        processes.run('ip', 'netns', 'delete', self.name)

    def run(self, function: Callable[[], T]) -> T:
        """Return what a function gives inside."""
        return namespaces.run_in(self.path, function)

    def program(self, *argv: str) -> str:
        """Return what a program writes inside."""
        return processes.run('ip', 'netns', 'exec', self.name, *argv, timeout=300)

    def set(self, **settings: int) -> None:
        """Write settings of this namespace: ``acct``, ``timestamp``."""

        def write() -> None:
            for name, value in settings.items():
                (_SETTINGS / f'nf_conntrack_{name}').write_text(str(value), encoding='ascii')

        self.run(write)

    def count(self) -> int:
        """Return how many entries the kernel counts."""
        return int(self.run((_SETTINGS / 'nf_conntrack_count').read_text))

    def add(self, *entries: ctnetlink.Entry) -> None:
        """Create entries.

        :raises LabError: the kernel refuses one
        """
        self._send(_request(entry, number, _CREATE) for number, entry in enumerate(entries))

    def add_many(self, rows: Rows) -> None:
        """Send what ``many()`` or ``deletions()`` gave: 400,000 in a second.

        :raises LabError: the kernel refuses one
        """
        chunk = max(_SEND_BYTES // rows.shape[1], 1)
        self._send(rows[start : start + chunk].tobytes() for start in range(0, len(rows), chunk))

    def delete(self, *entries: ctnetlink.Entry) -> None:
        """Delete entries; their tuples count."""
        kind, flags = ctnetlink.CT_DELETE, ctnetlink.NLM_F_REQUEST
        self._send(_request(entry, number, flags, kind) for number, entry in enumerate(entries))

    def flush(self) -> None:
        """Delete every entry."""
        kind, flags = ctnetlink.CT_DELETE, ctnetlink.NLM_F_REQUEST
        self._send([ctnetlink.raw_message(kind, flags, 1, 0, ctnetlink.generic(0))])

    def dump(self) -> Iterator[memoryview]:
        """Give the table as it comes from the kernel; each part is good until the next."""
        connection = self.run(_connect)
        with connection:
            request = (20, ctnetlink.CT_GET, _DUMP, 7, connection.getsockname()[0], 0, 0, 0)
            connection.send(struct.pack('=IHHIIBBH', *request))
            buffer = memoryview(bytearray(_SEND_BYTES))
            kind = 0
            while kind != ctnetlink.NLMSG_DONE:
                size = connection.recv_into(buffer)
                kind = struct.unpack_from('=H', buffer, size - 16)[0]
                yield buffer[:size]

    def listed(self) -> list[conntrack_list.Listed]:
        """Return the table as ``conntrack -L`` shows it."""
        lines = self.listed_text().splitlines()
        return conntrack_list.in_order(conntrack_list.parse(line) for line in lines)

    def listed_text(self) -> str:
        """Return the lines of ``conntrack -L``, entries of both families."""
        return self.program('conntrack', '-L', '-o', 'extended,id,timestamp')

    def _send(self, requests: Iterable[bytes]) -> None:
        for request in requests:
            self._connection.send(request)
            self._check()

    def _check(self) -> None:
        """Only refusals are answered, and all of them before send() returns."""
        try:
            answer = self._connection.recv(2**16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as exc:
            raise processes.LabError(f'very many entries are refused: {exc}') from exc
        number = -struct.unpack_from('=i', answer, 16)[0]
        place = struct.unpack_from('=I', answer, 8)[0]
        raise processes.LabError(f'entry {place} is refused: {os.strerror(number)}')


def many(entry: ctnetlink.Entry, count: int, **columns: Any) -> Rows:
    """Return requests for ``count`` entries like ``entry``.

    They differ in the columns given by keyword: ``src``, ``dst`` (lower 32 bits
    of the address), ``src_port``, ``dst_port``, each an array of ``count``
    numbers for the original tuple and the opposite end of the reply. Without
    any they have consecutive sources.
    """
    if not columns:
        first = int(ipaddress.ip_address(entry.orig.src)) & 0xFFFFFFFF
        columns = {'src': first + np.arange(count)}
    if entry.reply is None:
        entry = dataclasses.replace(entry, reply=entry.orig.reversed())
    rows = np.tile(np.frombuffer(_request(entry, 0, _CREATE), np.uint8), (count, 1))
    rows[:, 8:12] = np.arange(count, dtype=np.uint32)[:, None].view(np.uint8)
    for name, numbers in columns.items():
        for side, end in (('orig', name), ('reply', _OTHER_END[name])):
            _put(rows, _place(entry, side, end), np.asarray(numbers))
    return rows


def deletions(rows: Rows) -> Rows:
    """Return requests that delete the entries that ``many()`` made."""
    header = struct.pack('=HH', ctnetlink.CT_DELETE, ctnetlink.NLM_F_REQUEST)
    deleting = rows.copy()
    deleting[:, 4:8] = np.frombuffer(header, np.uint8)
    return deleting


def _connect() -> socket.socket:
    connection = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    connection.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 4 * _SEND_BYTES)
    connection.bind((0, 0))
    return connection


def _request(
    entry: ctnetlink.Entry, number: int, flags: int, kind: int = ctnetlink.CT_NEW
) -> bytes:
    return ctnetlink.message(entry, sequence=number, flags=flags, kind=kind)


def _put(rows: Rows, place: tuple[int, int], numbers: npt.NDArray[Any]) -> None:
    start, size = place
    octets = numbers.astype('>u8')[:, None].view(np.uint8)
    rows[:, start : start + size] = octets[:, 8 - size :]


def _place(entry: ctnetlink.Entry, side: str, name: str) -> tuple[int, int]:
    """Return offset and size of a number: where another number gives other bytes."""
    ends = getattr(entry, side)
    value = getattr(ends, name)
    if isinstance(value, int):
        other = dataclasses.replace(ends, **{name: value ^ 0xFFFF})
    else:
        address = ipaddress.ip_address(value)
        flipped = type(address)(int(address) ^ 0xFFFFFFFF)
        other = dataclasses.replace(ends, **{name: str(flipped)})
    one, two = (
        np.frombuffer(_request(chosen, 0, _CREATE), np.uint8)
        for chosen in (entry, dataclasses.replace(entry, **{side: other}))
    )
    differing = np.flatnonzero(one != two)
    return int(differing[0]), len(differing)
