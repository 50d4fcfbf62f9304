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

"""Real tables of private network namespaces, against what ``conntrack -L`` says of them."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import os
import pathlib
import socket
import sys
import textwrap
import threading

import numpy as np
import pytest

from oie import exceptions
from oie.sources import conntrack
from oie.sources import ctnetlink as decoder
from oie.sources import flow_columns
from oie.sources import namespaces
from tests import conntrack_list
from tests import ctnetlink
from tests import held
from tests.functional import flows
from tests.functional import processes
from tests.functional import record_conntrack

TCP = ctnetlink.tcp('10.0.0.5', '192.0.2.1')
TCP_V6 = ctnetlink.tcp('2001:db8::5', '2001:db8:1::1')

DUMP = """
    import sys
    from oie import exceptions
    from oie.sources import conntrack
    try:
        report = conntrack.dump(lambda flows: None, namespace=sys.argv[1] or None)
    except exceptions.SourceError as exc:
        print(exc)
    else:
        print(report.entries)
"""


pytestmark = pytest.mark.usefixtures('own_namespaces')


@pytest.fixture
def namespace() -> Iterator[flows.Namespace]:
    with flows.Namespace() as namespace:
        yield namespace


def dump(
    namespace: flows.Namespace, templates: decoder.Templates | None = None
) -> tuple[conntrack.Report, list[ctnetlink.Record]]:
    """Return a report and all entries of a table."""
    taken: list[flow_columns.Flows] = []
    report = conntrack.dump(taken.append, namespace=namespace.path, templates=templates)
    return report, ctnetlink.records(taken)


# --- what is in the table -----------------------------------------------------


@pytest.mark.parametrize('name', record_conntrack.RECORDINGS)
def test_every_shape_is_what_conntrack_lists(name: str, namespace: flows.Namespace) -> None:
    record_conntrack.fill(namespace, name)

    report, records = dump(namespace)

    assert conntrack_list.told(records) == namespace.listed()
    assert report.entries == len(records) == namespace.count()
    assert report.odd == 0


def test_fields_that_conntrack_does_not_list(namespace: flows.Namespace) -> None:
    namespace.set(timestamp=1)
    before = int(namespace.program('date', '+%s%N'))
    namespace.add(
        ctnetlink.Entry(TCP, zone=1, nat_src='203.0.113.9'),
        ctnetlink.Entry(TCP, zone=2, nat_dst='203.0.113.9'),
    )

    _, records = dump(namespace)

    after = int(namespace.program('date', '+%s%N'))
    bits = {record['zone']: int(record['status'] or 0) for record in records}
    assert bits[1] & (flow_columns.SRC_NAT | flow_columns.DST_NAT) == flow_columns.SRC_NAT
    assert bits[2] & (flow_columns.SRC_NAT | flow_columns.DST_NAT) == flow_columns.DST_NAT
    assert all(before <= int(record['started_ns'] or 0) <= after for record in records)
    assert {record['stopped_ns'] for record in records} == {None}
    assert {record['orig_packets'] for record in records} == {None}


def test_large_table_is_what_conntrack_lists(namespace: flows.Namespace) -> None:
    numbers = np.arange(20000)
    ends = {'src': 0x0A000000 + numbers % 500, 'dst': 0xC6000000 + numbers, 'src_port': numbers}
    for tuple_ in (TCP, ctnetlink.udp('10.0.0.5', '192.0.2.1'), TCP_V6):
        namespace.add_many(flows.many(ctnetlink.Entry(tuple_), len(numbers), **ends))

    report, records = dump(namespace)

    assert report.entries == 3 * len(numbers)
    assert conntrack_list.told(records) == namespace.listed()


def test_accounting_switched_on_later_leaves_older_entries_unknown(
    namespace: flows.Namespace,
) -> None:
    namespace.add(ctnetlink.Entry(TCP, zone=1))
    namespace.set(acct=1)
    namespace.add(ctnetlink.Entry(TCP, zone=2))

    _, records = dump(namespace)

    assert {record['zone']: record['orig_bytes'] for record in records} == {1: None, 2: 0}


def test_empty_table(namespace: flows.Namespace) -> None:
    report, records = dump(namespace)

    assert (report.entries, records) == (0, [])


def test_second_dump_finds_its_templates(namespace: flows.Namespace) -> None:
    record_conntrack.fill(namespace, 'reported')
    templates = decoder.Templates()
    dump(namespace, templates)
    shapes = len(templates)

    report, _ = dump(namespace, templates)

    assert (len(templates), report.odd) == (shapes, 0)


# --- whether it is complete ---------------------------------------------------


def test_churn_does_not_disturb_what_stays(namespace: flows.Namespace) -> None:
    namespace.add_many(flows.many(ctnetlink.Entry(TCP), 20000))
    _, stable = dump(namespace)
    coming = flows.many(ctnetlink.Entry(ctnetlink.udp('172.16.0.0', '198.51.100.1')), 500)
    going = flows.deletions(coming)

    with repeated(lambda: (namespace.add_many(coming), namespace.add_many(going))):
        several = [dump(namespace) for _ in range(5)]

    for report, records in several:
        udp, kept = (
            [record for record in records if record['orig_protocol'] == protocol]
            for protocol in (ctnetlink.UDP, ctnetlink.TCP)
        )
        assert kept == stable
        assert report.entries == 20000 + len(udp) <= 20500


def test_expired_entries_are_no_gap(namespace: flows.Namespace) -> None:
    """The kernel counts them until somebody passes by; a dump does not show them."""
    namespace.add_many(flows.many(ctnetlink.Entry(TCP, timeout=1), 5000))
    namespace.add(ctnetlink.Entry(TCP_V6))

    report = processes.wait_for(
        lambda: (report := dump(namespace)[0]).entries == 1 and report, what='entries to expire'
    )

    assert report.counted_after < 5001


def test_stranger_cannot_send_into_the_dump() -> None:
    with (
        conntrack.open_table() as table,
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, conntrack.NETLINK_NETFILTER) as stranger,
    ):
        port_id = table.socket.port_id

        with pytest.raises(ConnectionRefusedError):
            stranger.sendto(ctnetlink.done(1, port_id), (port_id, 0))


# --- rights -------------------------------------------------------------------


NO_ENTRY = 'the network namespace may not be entered (Operation not permitted); it needs'


@pytest.mark.parametrize(
    ('capabilities', 'answer'),
    [
        ('-all,+net_admin', '1'),
        ('-all,+sys_admin', 'the kernel refuses the table: EPERM; it needs CAP_NET_ADMIN'),
    ],
)
def test_right_to_read_the_table(
    capabilities: str, answer: str, namespace: flows.Namespace
) -> None:
    namespace.add(ctnetlink.Entry(TCP))
    inside = ('ip', 'netns', 'exec', namespace.name)

    assert answer_with(capabilities, DUMP, prefix=inside) == answer


@pytest.mark.parametrize(
    ('capabilities', 'answer'),
    [
        ('-all,+net_admin,+sys_admin', '1'),
        ('-all,+net_admin', '{path}: ' + NO_ENTRY + ' CAP_SYS_ADMIN'),
        ('-all,+sys_admin', 'the kernel refuses the table: EPERM; it needs CAP_NET_ADMIN'),
    ],
)
def test_right_to_read_the_table_of_another_namespace(
    capabilities: str, answer: str, namespace: flows.Namespace
) -> None:
    namespace.add(ctnetlink.Entry(TCP))

    told = answer_with(capabilities, DUMP, namespace.path)

    assert told == answer.format(path=namespace.path)


def test_numbers_need_no_right() -> None:
    reading = 'from oie.sources import conntrack as c; print(c.read_number(c.MAXIMUM))'

    assert int(answer_with('-all', reading)) > 0


def answer_with(
    capabilities: str, program: str, path: str = '', prefix: tuple[str, ...] = ()
) -> str:
    """Return what a program of a process with only these capabilities prints."""
    rights = ('--no-new-privs', f'--bounding-set={capabilities}', '--inh-caps=-all')
    python = (sys.executable, '-c', textwrap.dedent(program), path)
    return processes.run(*prefix, 'setpriv', *rights, *python).strip()


# --- other namespaces ---------------------------------------------------------


def test_tables_of_two_namespaces_are_two(namespace: flows.Namespace) -> None:
    with flows.Namespace() as other:
        namespace.add(ctnetlink.Entry(TCP, zone=1), ctnetlink.Entry(TCP, zone=2))
        other.add(ctnetlink.Entry(TCP_V6))

        (ours, our_entries), (theirs, their_entries) = dump(namespace), dump(other)

    assert {entry['zone'] for entry in our_entries} == {1, 2}
    assert [entry['orig_src'] for entry in their_entries] == [ctnetlink.packed('2001:db8::5')]
    assert (ours.counted_before, theirs.counted_before) == (2, 1)


def test_function_runs_inside_and_nothing_else_does(namespace: flows.Namespace) -> None:
    home = os.readlink('/proc/self/ns/net')

    inside = namespaces.run_in(namespace.path, lambda: os.readlink('/proc/thread-self/ns/net'))

    assert inside == f'net:[{os.stat(namespace.path).st_ino}]' != home
    processes.wait_for(lambda: _namespaces_of_tasks() == {home}, what='nobody else inside')


def test_namespace_that_is_gone() -> None:
    with flows.Namespace() as namespace:
        path = namespace.path

    with pytest.raises(exceptions.SourceError, match='has vanished'):
        conntrack.dump(print, namespace=path)


def test_namespace_that_is_deleted_during_a_dump() -> None:
    with flows.Namespace() as short_lived:
        short_lived.add(ctnetlink.Entry(TCP))
        table = conntrack.open_table(short_lived.path)

    # Our socket keeps it alive until it is closed.
    with table:
        assert conntrack.read(table, lambda flows: None).entries == 1


def test_a_larger_table_than_allowed_is_not_asked_for(namespace: flows.Namespace) -> None:
    namespace.flush()
    namespace.add_many(flows.many(ctnetlink.Entry(TCP), 12))
    taken: list[int] = []

    def take(batch: flow_columns.Flows) -> None:
        taken.append(len(batch))

    with pytest.raises(exceptions.OversizedTable, match=r'12 entries, more than .* = 11;'):
        conntrack.dump(take, namespace=namespace.path, max_entries=11)
    assert taken == []
    assert conntrack.dump(take, namespace=namespace.path, max_entries=12).entries == 12


def test_nothing_is_held_afterwards(namespace: flows.Namespace) -> None:
    namespace.add_many(flows.many(ctnetlink.Entry(TCP), 1000))

    def fail(flows: flow_columns.Flows) -> None:
        raise ZeroDivisionError

    with held.nothing_more():
        for _ in range(20):
            dump(namespace)
            with pytest.raises(ZeroDivisionError):
                conntrack.dump(fail, namespace=namespace.path)
            with pytest.raises(exceptions.SourceError):
                conntrack.dump(print, namespace=f'{namespace.path}-missing')


def _namespaces_of_tasks() -> set[str]:
    """Return the network namespaces of our threads, a dying one among them perhaps."""
    found = set()
    for task in pathlib.Path('/proc/self/task').iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(task / 'ns' / 'net'))
    return found


@contextlib.contextmanager
def repeated(function: Callable[[], object]) -> Iterator[None]:
    """Call a function again and again in a thread."""
    is_over = threading.Event()

    def run() -> None:
        while not is_over.is_set():
            function()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
