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

"""What a real kernel says of virtual functions: mostly that there are none.

No hardware with SR-IOV was ever tried, and netdevsim, which simulates some, is in few kernels.
"""

from collections.abc import Iterator
import os
import pathlib
import secrets
import socket
import sys

import pytest

from oie.sources import namespaces
from oie.sources import rtnetlink
from tests import machine
from tests.functional import own_namespaces
from tests.functional import processes

NETDEVSIM = pathlib.Path('/sys/bus/netdevsim')
KINDS = {
    'veth': ('link', 'add', 'oiet0', 'type', 'veth', 'peer', 'name', 'oiet1'),
    'dummy': ('link', 'add', 'oiet0', 'type', 'dummy'),
    'bridge': ('link', 'add', 'oiet0', 'type', 'bridge'),
    'tap': ('tuntap', 'add', 'oiet0', 'mode', 'tap'),
}


@pytest.fixture(scope='module', autouse=True)
def _machine() -> None:
    if os.geteuid() != 0:
        machine.give_up('network namespaces need root')
    if processes.find_program('ip') is None:
        machine.give_up('network namespaces need ip (bindep functional)')


@pytest.fixture
def namespace() -> Iterator[str]:
    """The name of a network namespace of our own."""
    with own_namespaces.OwnNamespaces() as made:
        yield made.make(made.run)


def ask(namespace: str, device: str) -> rtnetlink.Link:
    """Return what the kernel says of a device in a namespace."""
    return rtnetlink.parse(
        namespaces.run_in(
            f'/run/netns/{namespace}', lambda: rtnetlink.ask(socket.if_nametoindex(device))
        )
    )


def test_loopback_has_no_virtual_functions(namespace: str) -> None:
    assert ask(namespace, 'lo') == rtnetlink.Link('lo', {})


@pytest.mark.parametrize('kind', KINDS)
def test_device_of_this_kind_has_no_virtual_functions(kind: str, namespace: str) -> None:
    try:
        processes.run('ip', '-n', namespace, *KINDS[kind])
    except processes.LabError as exc:
        pytest.skip(f'this kernel has no device of kind {kind}: {exc}')

    assert ask(namespace, 'oiet0') == rtnetlink.Link('oiet0', {})


def test_nobody_needs_a_right_to_ask(namespace: str) -> None:
    ask_as_nobody = (
        'import os; from oie.sources import rtnetlink;'
        'os.setgroups([]); os.setgid(65534); os.setuid(65534);'
        'print(rtnetlink.parse(rtnetlink.ask(1)))'
    )

    found = processes.run('ip', 'netns', 'exec', namespace, sys.executable, '-c', ask_as_nobody)

    assert found.strip() == str(rtnetlink.Link('lo', {}))


@pytest.fixture
def simulated() -> Iterator[str]:
    """The name of a simulated device with three virtual functions."""
    if not NETDEVSIM.exists():
        pytest.skip('this kernel has no netdevsim, or modprobe netdevsim was not called')
    number = 1000 + secrets.randbelow(9000)
    device = NETDEVSIM / f'devices/netdevsim{number}'
    (NETDEVSIM / 'new_device').write_text(f'{number} 1')
    try:
        (device / 'sriov_numvfs').write_text('3')
        yield next((device / 'net').iterdir()).name
    finally:
        (NETDEVSIM / 'del_device').write_text(str(number))


def test_simulated_functions_are_all_there_and_not_counted(simulated: str) -> None:
    """The driver has no ndo_get_vf_stats: the kernel gives zeros."""
    link = rtnetlink.parse(rtnetlink.ask(socket.if_nametoindex(simulated)))

    zeros = dict.fromkeys(('rx_packets', 'tx_packets', 'rx_bytes', 'tx_bytes'), 0)
    assert link == rtnetlink.Link(simulated, dict.fromkeys(range(3), zeros))
