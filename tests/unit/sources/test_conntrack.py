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

"""A dump is complete or it is an error, and nothing stays behind."""

from collections.abc import Callable
from collections.abc import Iterable
import dataclasses
import errno
import gc
import ipaddress
import pathlib
import socket
import struct
import threading
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest

from oie import exceptions
from oie.sources import conntrack
from oie.sources import ctnetlink as decoder
from oie.sources import flow_columns
from oie.sources import netlink_receiver
from oie.sources import netlink_socket
from tests import ctnetlink

PORT_ID = 0xF0000002

# What one receive gives.
Part = bytes | exceptions.SourceError
Script = Callable[[int, int], Iterable[Part]]


class Kernel:
    """Stands for the socket and answers by a script.

    :param script: gets sequence and port of the request; what it gives is received
    """

    port_id = PORT_ID

    def __init__(self, script: Script) -> None:
        self._script = script
        self.requests: list[bytes] = []

    def send(self, request: bytes) -> None:
        self.requests.append(request)
        self._parts = iter(self._script(*struct.unpack_from('=II', request, 8)))

    def receive(self, batch: netlink_socket.Batch) -> int:
        part = next(self._parts, None)
        if part is None:
            time.sleep(0.01)
            return 0
        if isinstance(part, exceptions.SourceError):
            raise part
        batch.data[0, : len(part)] = np.frombuffer(part, np.uint8)
        batch.messages['length'][0] = len(part)
        return 1


class Table:
    """Stands for an open table.

    :param counts: what the kernel counts, now and later
    """

    def __init__(self, script: Script, *counts: int) -> None:
        self.socket = Kernel(script)
        self._counts = list(counts)

    def count(self) -> int:
        return self._counts.pop(0) if len(self._counts) > 1 else self._counts[0]


def entries(count: int, first: int = 0) -> list[ctnetlink.Entry]:
    """Return connections of consecutive ports."""
    return [
        ctnetlink.Entry(ctnetlink.tcp('10.0.0.5', '192.0.2.1', number), id=1000 + number)
        for number in range(first, first + count)
    ]


def table_of(several: list[ctnetlink.Entry], counts: tuple[int, ...] | None = None) -> Table:
    """Return a table that comes in parts of the kernel's size and ends as it should."""

    def script(sequence: int, port_id: int) -> Iterable[Part]:
        header = {'sequence': sequence, 'port_id': port_id}
        for start in range(0, len(several), 100):
            part = several[start : start + 100]
            yield b''.join(ctnetlink.message(entry, **header) for entry in part)
        yield ctnetlink.done(sequence, port_id)

    return Table(script, *(counts or (len(several),)))


def read(table: Table, consume: conntrack.Consumer | None = None, **more: Any) -> Any:
    return conntrack.read(table, consume or ignore, **more)  # type: ignore[arg-type]


def ignore(flows: flow_columns.Flows) -> None:
    pass


def reason(script: Script, **more: Any) -> str:
    """Return why a dump was refused."""
    with pytest.raises(exceptions.SourceError) as caught:
        read(Table(script, 0), **more)
    return str(caught.value)


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Any:
    yield
    assert 'oie-netlink' not in {thread.name for thread in threading.enumerate()}


# --- complete -----------------------------------------------------------------


def test_complete_table_is_handed_on() -> None:
    taken: list[flow_columns.Flows] = []
    table = table_of(entries(250), counts=(250, 251))

    report = read(table, taken.append)

    expected = ctnetlink.in_order(entry.record() for entry in entries(250))
    assert ctnetlink.records(taken) == expected
    assert (report.entries, report.odd) == (250, 0)
    assert (report.counted_before, report.counted_after) == (250, 251)


def test_request_reads_both_families_and_resets_nothing() -> None:
    table = table_of([])

    read(table)

    (request,) = table.socket.requests
    length, kind, flags, sequence, port_id, family = struct.unpack_from('=IHHIIB', request)
    assert (length, kind, flags, family) == (20, ctnetlink.CT_GET, 0x301, socket.AF_UNSPEC)
    assert port_id == PORT_ID


def test_every_dump_has_its_own_sequence() -> None:
    table = table_of([])

    for _ in range(3):
        read(table)

    sequences = {request[8:12] for request in table.socket.requests}
    assert len(sequences) == 3


def test_empty_table_is_complete() -> None:
    assert read(table_of([])).entries == 0


def test_table_larger_than_the_batches() -> None:
    taken: list[flow_columns.Flows] = []

    report = read(table_of(entries(3000)), taken.append)

    assert report.entries == sum(map(len, taken)) == 3000
    assert len(taken) > 2 * netlink_receiver.BATCHES


def test_templates_grow_older_with_each_dump() -> None:
    templates = decoder.Templates()
    read(table_of(entries(3)), templates=templates)

    for _ in range(decoder.KEPT_DUMPS + 1):
        read(table_of([]), templates=templates)

    assert len(templates) == 0


# --- counted ------------------------------------------------------------------


@pytest.mark.parametrize(
    ('came', 'counts', 'is_complete'),
    [
        (1000, (1000, 1000), True),
        # 1000 = 0.95 * 1157.9 - 100
        (1000, (1157, 1157), True),
        (1000, (1158, 1158), False),
        # The smaller one of both numbers counts: expired entries go during the dump.
        (0, (5000, 100), True),
        (0, (100, 5000), True),
        (0, (107, 200), False),
        (300, (0, 0), True),
    ],
)
def test_distance_to_the_kernels_counter(
    came: int, counts: tuple[int, int], is_complete: bool
) -> None:
    table = table_of(entries(came), counts=counts)

    if is_complete:
        assert read(table).entries == came
    else:
        with pytest.raises(exceptions.InconsistentTable, match=f'only {came} of {min(counts)}'):
            read(table)


def test_resize_that_gives_a_half_twice_is_found() -> None:
    table = table_of(entries(200) + entries(100, first=100), counts=(200,))

    with pytest.raises(exceptions.InconsistentTable, match='100 of 300 entries came twice'):
        read(table)


def test_resize_that_loses_a_half_is_found() -> None:
    with pytest.raises(exceptions.InconsistentTable, match='only 500 of 1000'):
        read(table_of(entries(500), counts=(1000,)))


TCP = ctnetlink.tcp('10.0.0.5', '192.0.2.1')
ALIKE = {
    'one followed the other': ctnetlink.Entry(TCP, id=2),
    'another zone': ctnetlink.Entry(TCP, id=1, zone=1),
    'zone of one direction': ctnetlink.Entry(dataclasses.replace(TCP, zone=1), id=1),
    'another protocol': ctnetlink.Entry(dataclasses.replace(TCP, protocol=132), id=1),
    'another port': ctnetlink.Entry(dataclasses.replace(TCP, src_port=40001), id=1),
    'ends exchanged': ctnetlink.Entry(TCP.reversed(), id=1),
}


@pytest.mark.parametrize('name', ALIKE)
def test_entries_that_differ_in_one_thing_are_two(name: str) -> None:
    assert read(table_of([ctnetlink.Entry(TCP, id=1), ALIKE[name]])).entries == 2


def test_zones_of_one_direction_and_of_both_are_two() -> None:
    assert read(table_of([ALIKE['another zone'], ALIKE['zone of one direction']])).entries == 2


def test_pings_that_differ_in_their_number_are_two() -> None:
    pings = [ctnetlink.Entry(ctnetlink.echo('10.0.0.5', '192.0.2.1', n), id=1) for n in (7, 8)]

    assert read(table_of(pings)).entries == 2


def test_nobody_can_choose_entries_that_look_like_one() -> None:
    """No change of few bits goes unnoticed, whatever the multipliers are.

    In columns of 64 bits some would: a multiplication leaves of the highest bit
    just that bit, so that two bits of the next column undo it.
    """
    base = int(ipaddress.ip_address('2001:db8::5'))
    changed = [base, *(base ^ (1 << 127 | 1 << 63 | 1 << bit) for bit in range(64))]
    chosen = [
        ctnetlink.Entry(
            ctnetlink.tcp(f'2001:db8:{number}::1', str(ipaddress.ip_address(dst))), id=1
        )
        for dst in changed
        for number in range(20)
    ]

    assert read(table_of(chosen)).entries == 20 * 65


# --- not complete -------------------------------------------------------------


def some(sequence: int, port_id: int, flags: int = 2) -> bytes:
    (entry,) = entries(1)
    return ctnetlink.message(entry, sequence=sequence, port_id=port_id, flags=flags)


NOT_COMPLETE: dict[str, tuple[Script, str]] = {
    'no right': (lambda *request: [ctnetlink.refusal(*request, errno.EPERM)], 'CAP_NET_ADMIN'),
    'refused': (lambda *request: [ctnetlink.refusal(*request, errno.EINVAL)], 'EINVAL'),
    'ends with an error': (
        lambda *request: [some(*request) + ctnetlink.done(*request, errno.ENOMEM)],
        'ENOMEM',
    ),
    'unknown error': (lambda *request: [ctnetlink.done(*request, 4321)], 'table: 4321'),
    'acknowledged only': (lambda *request: [ctnetlink.refusal(*request, 0)], 'acknowledged'),
    'other sequence': (lambda sequence, port: [some(1, port)], 'another request'),
    'other port': (lambda sequence, port: [some(sequence, 1)], 'another request'),
    'other type': (
        lambda *request: [ctnetlink.raw_message(0x102, 2, *request, bytes(8))],
        'type 258',
    ),
    'socket error': (lambda *request: [exceptions.SourceError('foreign')], 'foreign'),
    'more after the end': (
        lambda *request: [ctnetlink.done(*request) + ctnetlink.done(*request)],
        'more than its messages',
    ),
    'not whole words': (lambda *request: [some(*request)[:-1]], 'claims|inside'),
}
INCONSISTENT: dict[str, tuple[Script, str]] = {
    'interrupted': (
        lambda *request: [some(*request, flags=0x12) + ctnetlink.done(*request)],
        'not consistent',
    ),
    'interrupted at the end': (
        lambda *request: [some(*request) + ctnetlink.done(*request, flags=0x12)],
        'not consistent',
    ),
    'overrun': (
        lambda *request: [some(*request), exceptions.InconsistentTable('ENOBUFS')],
        'ENOBUFS',
    ),
    'broken off': (lambda *request: [some(*request), b''], 'broke off'),
}


@pytest.mark.parametrize('name', NOT_COMPLETE)
def test_whatever_is_wrong_is_an_error(name: str) -> None:
    script, words = NOT_COMPLETE[name]

    def closed(sequence: int, port_id: int) -> Iterable[Part]:
        yield from script(sequence, port_id)
        yield ctnetlink.done(sequence, port_id)

    with pytest.raises(exceptions.SourceError, match=words) as caught:
        read(Table(closed, 0))
    assert not isinstance(caught.value, exceptions.InconsistentTable)


@pytest.mark.parametrize('name', INCONSISTENT)
def test_what_another_dump_may_do_better_is_said(name: str) -> None:
    script, words = INCONSISTENT[name]

    with pytest.raises(exceptions.InconsistentTable, match=words):
        read(Table(script, 0))


@pytest.mark.parametrize('parts', [0, 1])
def test_kernel_that_falls_silent_is_a_timeout(parts: int) -> None:
    began = time.monotonic()

    with pytest.raises(exceptions.SourceTimeout, match='not complete in time'):
        read(Table(lambda *request: [some(*request)] * parts, 0), timeout=0.1)

    assert time.monotonic() - began < 5


def test_kernel_that_never_ends_is_a_timeout() -> None:
    def endless(*request: int) -> Iterable[Part]:
        while True:
            yield some(*request) * 100

    with pytest.raises(exceptions.SourceTimeout, match='not complete in time'):
        read(Table(endless, 0), timeout=0.2)


def test_request_that_cannot_be_sent() -> None:
    def refuse(*request: int) -> Iterable[Part]:
        raise exceptions.SourceError('not sent')

    assert reason(refuse) == 'not sent'


def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, 'start', start)

    assert "can't start new thread" in reason(lambda *request: [])


# --- nothing stays ------------------------------------------------------------


@pytest.mark.parametrize('after', [0, 1, 12])
def test_consumer_that_fails_ends_everything(after: int) -> None:
    calls: list[int] = []

    def consume(flows: flow_columns.Flows) -> None:
        calls.append(len(flows))
        if len(calls) > after:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        read(table_of(entries(10000)), consume)

    assert len(calls) == after + 1


def test_odd_bytes_in_the_middle_end_everything() -> None:
    def script(*request: int) -> Iterable[Part]:
        yield some(*request) * 100
        yield bytes(2**14)
        for _ in range(100):
            yield some(*request) * 100

    assert 'claims 0 bytes' in reason(script)


def test_failed_dumps_keep_no_memory() -> None:
    def consume(flows: flow_columns.Flows) -> None:
        raise exceptions.SourceError('no')

    tracemalloc.start()
    for _ in range(5):
        with pytest.raises(exceptions.SourceError, match='no'):
            read(table_of(entries(10)), consume)
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert kept < 2**20


# --- the files of /proc -------------------------------------------------------


def test_number_of_a_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'nf_conntrack_count'
    path.write_text('262144\n', encoding='ascii')

    assert conntrack.read_number(str(path)) == 262144


@pytest.mark.parametrize(('text', 'words'), [('many', 'invalid literal'), ('', 'invalid')])
def test_file_without_a_number(tmp_path: pathlib.Path, text: str, words: str) -> None:
    path = tmp_path / 'nf_conntrack_count'
    path.write_text(text, encoding='ascii')

    with pytest.raises(exceptions.SourceError, match=words):
        conntrack.read_number(str(path))


def test_machine_without_connection_tracking(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = socket.socketpair()
    opened = netlink_socket.NetlinkSocket(ours)
    monkeypatch.setattr(netlink_socket, 'connect', lambda protocol: opened)
    monkeypatch.setattr(conntrack, 'COUNT', str(tmp_path / 'missing'))

    with pytest.raises(exceptions.SourceError, match='missing: No such file'):
        conntrack.dump(ignore)

    assert ours.fileno() == -1
    theirs.close()
