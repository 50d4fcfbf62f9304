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

"""Counters of SR-IOV ports: whose they are is sure, or there are none.

sysfs is a tree of our own and the kernel's answers are constructed, see tests/sriov.py.
"""

from collections.abc import Callable
import logging
import pathlib
import threading

import hypothesis
from hypothesis import strategies
import pytest

from oie import exceptions
from oie import model
from oie.sources import virtual_functions
from tests import builders
from tests import sriov

PF, OTHER_PF = '0000:81:00.0', '0000:81:00.1'
VFS = ('0000:81:00.2', '0000:81:00.3', '0000:81:00.4')
OTHER_VF = '0000:81:10.0'
USED = sriov.counters(rx_bytes=1, rx_packets=2, tx_bytes=3, tx_packets=4)
LONG = 20.0

Reader = virtual_functions.VirtualFunctionReader
Said = Callable[[], list[str]]


@pytest.fixture
def host(tmp_path: pathlib.Path) -> sriov.Host:
    """Two PFs, with three VFs and one."""
    host = sriov.Host(tmp_path)
    host.add(PF, *VFS)
    host.add(OTHER_PF, OTHER_VF)
    return host


@pytest.fixture
def reader(host: sriov.Host) -> Reader:
    return Reader(root=host.root, ask=host.ask, timeout=LONG)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Said:
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records]


def instance(*addresses: str) -> model.Definition:
    """Return an instance with these VFs, and an interface of another kind."""
    ports = (builders.virtual_function(pci_address=address) for address in addresses)
    return builders.definition(interfaces=(builders.interface(), *ports))


def read(reader: Reader, *definitions: model.Definition) -> dict[str, sriov.Counters]:
    """Read once; return the counters by PCI address."""
    reader.read(definitions)
    return {
        each.device.pci_address: {name: getattr(each, name) for name in USED}
        for of in definitions
        for each in reader.of(of)
    }


# --- all is well --------------------------------------------------------------


def test_every_interface_has_the_counters_of_its_own_function(
    host: sriov.Host, reader: Reader
) -> None:
    used = {n: sriov.counters(rx_bytes=n, tx_packets=n) for n in (1, 2, 3)}
    host.devices[5].functions = {0: used[1], 1: sriov.counters(rx_packets=9), 2: used[2]}
    host.devices[6].functions = {0: used[3]}
    one, two = instance(VFS[2], OTHER_VF), instance(VFS[0])

    assert read(reader, one, two) == {VFS[2]: used[2], OTHER_VF: used[3], VFS[0]: used[1]}
    assert [each.device for each in reader.of(one)] == list(one.interfaces[1:])


def test_every_physical_function_is_asked_once_in_a_cycle(
    host: sriov.Host, reader: Reader
) -> None:
    definitions = [instance(*VFS[:2]), instance(VFS[2])]

    read(reader, *definitions)
    read(reader, *definitions, instance(OTHER_VF))

    assert host.asked == [5, 5, 6]


def test_counters_are_read_anew(host: sriov.Host, reader: Reader) -> None:
    host.devices[5].functions = {0: USED}
    read(reader, instance(VFS[0]))
    host.devices[5].functions = {0: sriov.counters(rx_bytes=2)}

    assert read(reader, instance(VFS[0])) == {VFS[0]: sriov.counters(rx_bytes=2)}


def test_host_without_passed_through_interfaces_is_not_asked(
    host: sriov.Host, reader: Reader
) -> None:
    macvtap = builders.interface(type='direct', source='ens5')

    assert read(reader, builders.definition(interfaces=(macvtap,))) == {}
    assert host.asked == []


def test_counters_end_with_the_interface(host: sriov.Host, reader: Reader) -> None:
    host.devices[5].functions = {0: USED}
    of = instance(VFS[0])
    read(reader, of)

    reader.read([instance()])

    assert reader.of(of) == ()


def test_representors_are_not_the_physical_function(host: sriov.Host, reader: Reader) -> None:
    host.devices[5].functions = {0: USED}
    for port in ('pf0', 'pf0vf0', 'c1pf0vf1', 'pf0sf3'):
        host.add_device(PF, {0: sriov.counters(rx_bytes=99)}, port)
    uplink = pathlib.Path(host.root, PF, 'net', 'ens5', 'phys_port_name')
    uplink.write_text('p0\n')

    assert read(reader, instance(VFS[0])) == {VFS[0]: USED}
    assert host.asked == [5]


# --- what is not sure is not there --------------------------------------------


def test_zeros_only_are_no_counters(host: sriov.Host, reader: Reader, said: Said) -> None:
    """So the kernel tells of drivers that cannot count, and while a VF is reset."""
    host.devices[5].functions = {0: sriov.counters(), 1: sriov.counters(tx_bytes=1), 2: {}}

    assert read(reader, instance(*VFS)) == {VFS[1]: sriov.counters(tx_bytes=1)}
    assert said() == []


def without_device(host: sriov.Host) -> None:
    (host.directory(PF) / 'net').rename(host.directory(PF) / 'elsewhere')


def with_empty_directory(host: sriov.Host) -> None:
    without_device(host)
    (host.directory(PF) / 'net').mkdir()


def with_two_ports(host: sriov.Host) -> None:
    host.add_device(PF, {0: USED})


def with_broken_index(host: sriov.Host) -> None:
    (host.directory(PF) / 'net/ens5/ifindex').write_text('five')


def with_other_name(host: sriov.Host) -> None:
    host.devices[5].name = 'eth0'


def with_unknown_index(host: sriov.Host) -> None:
    del host.devices[5]


def with_driver_that_does_not_tell(host: sriov.Host) -> None:
    host.devices[5].functions = None


def with_fewer_functions(host: sriov.Host) -> None:
    host.devices[5].functions = {1: USED}


def without_links(host: sriov.Host) -> None:
    (host.directory(PF) / 'virtfn0').unlink()


def with_strange_link(host: sriov.Host) -> None:
    (host.directory(PF) / 'virtfn3').touch()


def with_whole_device(host: sriov.Host) -> None:
    (host.directory(VFS[0]) / 'physfn').unlink()


def with_failing_netlink(host: sriov.Host) -> None:
    def fail() -> None:
        if host.asked[-1] == 5:
            raise exceptions.SourceError('no netlink today')

    host.script = fail


@pytest.mark.parametrize(
    ('spoil', 'line'),
    [
        (without_device, f'{PF}: not read: it has no network device here'),
        (with_empty_directory, f'{PF}: not read: it has 0 network devices: []'),
        (with_two_ports, f"{PF}: not read: it has 2 network devices: ['ens5', 'ens7']"),
        (with_broken_index, f'{PF}: not read: its network device: invalid literal'),
        (with_other_name, f"{PF}: not read: network device 5 is 'eth0', not 'ens5'"),
        (with_unknown_index, f'{PF}: not read: refused: ENODEV'),
        (with_driver_that_does_not_tell, f'{VFS[0]}: not read: {PF} does not tell of it'),
        (with_fewer_functions, f'{VFS[0]}: not read: {PF} does not tell of it'),
        (without_links, f'{VFS[0]}: not read: {PF} does not tell of it'),
        (with_strange_link, f'{PF}: not read: its virtual functions: '),
        (with_whole_device, f'{VFS[0]}: not read: it is no virtual function of this host'),
        (with_failing_netlink, f'{PF}: not read: no netlink today'),
    ],
)
def test_failure_costs_only_its_own_counters_and_is_said_once(
    spoil: Callable[[sriov.Host], None],
    line: str,
    host: sriov.Host,
    reader: Reader,
    said: Said,
) -> None:
    host.devices[5].functions = {0: USED}
    host.devices[6].functions = {0: USED}
    definitions = (instance(VFS[0]), instance(OTHER_VF))
    assert read(reader, *definitions) == {VFS[0]: USED, OTHER_VF: USED}
    spoil(host)

    found = [read(reader, *definitions) for _ in range(3)]

    assert found == [{OTHER_VF: USED}] * 3
    [said_once] = said()
    assert said_once.startswith(f'VF counters of {line}')


def test_end_of_a_failure_is_said(host: sriov.Host, reader: Reader, said: Said) -> None:
    host.devices[5].functions = {0: USED}
    without_device(host)
    read(reader, instance(VFS[0]))
    (host.directory(PF) / 'elsewhere').rename(host.directory(PF) / 'net')

    assert read(reader, instance(VFS[0])) == {VFS[0]: USED}
    assert said()[1:] == [f'VF counters of {PF}: not read: over']


def test_function_that_two_instances_claim_is_nobodys(
    host: sriov.Host, reader: Reader, said: Said
) -> None:
    """The definition of one of them is old: its device has gone to the other."""
    host.devices[5].functions = {0: USED, 1: USED}

    assert read(reader, instance(*VFS[:2]), instance(VFS[1])) == {VFS[0]: USED}
    assert said() == [f'VF counters of {VFS[1]}: not read: several interfaces claim it']


@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(strategies.binary(max_size=400), strategies.booleans())
def test_whatever_the_kernel_answers_nothing_is_raised(
    host: sriov.Host, answer: bytes, is_changed: bool
) -> None:
    whole = bytearray(sriov.link('ens5', {0: USED, 1: USED}))
    if is_changed:
        whole[32 : 32 + len(answer)] = answer
    reader = Reader(root=host.root, ask=lambda _: bytes(whole if is_changed else answer))

    read(reader, instance(*VFS))

    reader.close()


# --- what hangs ---------------------------------------------------------------


def test_request_that_hangs_is_one_only_and_costs_its_time_once(
    host: sriov.Host, said: Said
) -> None:
    reader = Reader(root=host.root, ask=host.ask, timeout=0.1)
    host.devices[5].functions = {0: USED}
    gate = threading.Event()
    host.script = lambda: gate.wait(LONG)
    of = instance(VFS[0], OTHER_VF)

    assert [read(reader, of) for _ in range(3)] == [{}] * 3
    assert said() == ['VF counters: not read: VF counters has not returned after 0.1 s']
    host.script = None
    gate.set()
    wait_for(lambda: read(reader, of) == {VFS[0]: USED})

    # The one that was late asked nobody else.
    assert host.asked == [5, 5, 6]
    assert said()[1:] == ['VF counters: not read: over']


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError('it did not happen')


def test_failure_that_nobody_thought_of_costs_the_counters_alone(
    host: sriov.Host, reader: Reader, said: Said
) -> None:
    host.script = lambda: 1 / 0

    assert read(reader, instance(VFS[0])) == {}
    assert said() == ["VF counters: not read: ZeroDivisionError('division by zero')"]


def test_closed_reader_has_no_counters(host: sriov.Host, reader: Reader, said: Said) -> None:
    reader.close()

    assert read(reader, instance(VFS[0])) == {}
    assert said() == ['VF counters: not read: VF counters not started: no more calls']
