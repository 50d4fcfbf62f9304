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

"""Answers about network devices, constructed (see tests/sriov.py), and some of this kernel."""

import random
import socket
import struct

import hypothesis
from hypothesis import strategies
import pytest

from oie import exceptions
from oie.sources import rtnetlink
from tests import sriov

USED = {'rx_packets': 1, 'tx_packets': 2, 'rx_bytes': 2**63, 'tx_bytes': 2**64 - 1}
FUNCTIONS = {0: USED, 1: sriov.counters(), 7: sriov.counters(rx_bytes=5)}
ANSWER = sriov.link('ens5', FUNCTIONS)


def info(*attributes: bytes) -> bytes:
    """Return an answer with one virtual function that has these attributes."""
    listed = sriov.attribute(sriov.IFLA_VFINFO_LIST, sriov.attribute(1, b''.join(attributes)))
    return sriov.message(sriov.RTM_NEWLINK, bytes(16) + listed)


NUMBER = sriov.attribute(sriov.IFLA_VF_MAC, struct.pack('=I32x', 3))


# --- what is right ------------------------------------------------------------


def test_request_is_that_of_the_header_files() -> None:
    assert rtnetlink.request(5) == struct.pack(
        '=IHHII BxHiII HHI',
        *(40, 18, 1, 1, 0),
        *(0, 0, 5, 0, 0),
        *(8, 29, 1),
    )


def test_counters_of_every_virtual_function() -> None:
    assert rtnetlink.parse(ANSWER) == rtnetlink.Link('ens5', FUNCTIONS)


def test_what_pyroute2_reads() -> None:
    from pyroute2.netlink.rtnl import ifinfmsg

    theirs = ifinfmsg.ifinfmsg(ANSWER)
    theirs.decode()

    functions = theirs.get_attr('IFLA_VFINFO_LIST').get_attrs('IFLA_VF_INFO')
    found = {
        each.get_attr('IFLA_VF_MAC')['vf']: each.get_attr('IFLA_VF_STATS') for each in functions
    }
    names = {key: f'IFLA_VF_STATS_{key.upper()}' for key in USED}
    assert rtnetlink.parse(ANSWER).functions == {
        number: {key: stats.get_attr(name) for key, name in names.items()}
        for number, stats in found.items()
    }


@pytest.mark.parametrize('functions', [None, {}])
def test_device_without_virtual_functions(functions: dict[int, sriov.Counters] | None) -> None:
    assert rtnetlink.parse(sriov.link('lo', functions)) == rtnetlink.Link('lo', {})


def test_virtual_function_without_statistics_has_no_counters() -> None:
    assert rtnetlink.parse(info(NUMBER)).functions == {3: {}}


def test_counter_that_is_not_told_is_not_there() -> None:
    one = sriov.attribute(2, struct.pack('=Q', 9))

    link = rtnetlink.parse(info(sriov.attribute(sriov.IFLA_VF_STATS, one), NUMBER))

    assert link.functions == {3: {'rx_bytes': 9}}


def test_flags_of_a_type_are_no_part_of_it() -> None:
    counter = sriov.attribute(2 | 0x4000, struct.pack('=Q', 9))

    link = rtnetlink.parse(info(NUMBER, sriov.attribute(sriov.IFLA_VF_STATS | 0x8000, counter)))

    assert link.functions == {3: {'rx_bytes': 9}}


def test_name_may_be_any_bytes() -> None:
    name = sriov.attribute(sriov.IFLA_IFNAME, b'caf\xe9\0')

    link = rtnetlink.parse(sriov.message(sriov.RTM_NEWLINK, bytes(16) + name))

    assert link.name.encode(errors='surrogateescape') == b'caf\xe9'


# --- what is wrong ------------------------------------------------------------


def test_list_of_virtual_functions_up_to_its_longest() -> None:
    functions = {number: sriov.counters(tx_bytes=number) for number in range(221)}
    assert len(sriov.function(0, USED)) == 296

    assert rtnetlink.parse(sriov.link('ens5', functions)).functions == functions


@pytest.mark.parametrize('count', [222, 240, 256, 443])
def test_list_whose_length_wraps_is_an_error(count: int) -> None:
    functions = dict.fromkeys(range(count), USED)

    with pytest.raises(exceptions.SourceError, match='netlink attribute'):
        rtnetlink.parse(sriov.link('ens5', functions))


def test_device_that_is_gone() -> None:
    with pytest.raises(exceptions.SourceError, match='refused: ENODEV'):
        rtnetlink.parse(sriov.refusal(sriov.ENODEV))


@pytest.mark.parametrize(
    ('answer', 'reason'),
    [
        (b'', 'of 0 bytes'),
        (bytes(15), 'of 15 bytes'),
        (sriov.message(sriov.RTM_NEWLINK, bytes(16), sequence=2), 'answer to 2'),
        (sriov.message(17, bytes(16)), 'of type 17'),
        (sriov.message(sriov.NLMSG_ERROR, b''), 'of type 2'),
        (sriov.message(sriov.RTM_NEWLINK, bytes(12)), 'with 28 bytes'),
        (sriov.message(sriov.RTM_NEWLINK, bytes(19)), 'attribute is cut off'),
        (sriov.message(sriov.RTM_NEWLINK, bytes(20)), 'attribute of 0 bytes'),
        (info(sriov.attribute(sriov.IFLA_VF_STATS, sriov.stats(USED))), 'without a number'),
        (info(sriov.attribute(sriov.IFLA_VF_MAC, bytes(3))), 'number of 3 bytes'),
        (
            info(NUMBER, sriov.attribute(sriov.IFLA_VF_STATS, sriov.attribute(0, bytes(4)))),
            'number of 4 bytes',
        ),
        (
            sriov.message(
                sriov.RTM_NEWLINK,
                bytes(16)
                + sriov.attribute(
                    sriov.IFLA_VFINFO_LIST, sriov.function(3, USED) + sriov.function(3, USED)
                ),
            ),
            'two virtual functions have the number 3',
        ),
    ],
)
def test_what_the_kernel_never_writes_is_an_error(answer: bytes, reason: str) -> None:
    with pytest.raises(exceptions.SourceError, match=reason):
        rtnetlink.parse(answer)


def test_answer_that_was_cut_is_an_error() -> None:
    for size in range(len(ANSWER)):
        with pytest.raises(exceptions.SourceError):
            rtnetlink.parse(ANSWER[:size])


@hypothesis.settings(max_examples=300)
@hypothesis.given(
    strategies.lists(
        strategies.tuples(strategies.integers(0, len(ANSWER) - 1), strategies.integers(0, 255)),
        max_size=8,
    ),
    strategies.integers(0, len(ANSWER)) | strategies.none(),
)
def test_changed_bytes_give_our_own_error_or_counters(
    changes: list[tuple[int, int]], size: int | None
) -> None:
    changed = bytearray(ANSWER)
    for position, value in changes:
        changed[position] = value

    check_robust(bytes(changed[:size]))


def test_every_word_changed_gives_our_own_error_or_counters() -> None:
    chance = random.Random(5)
    for position in range(0, len(ANSWER), 2):
        changed = bytearray(ANSWER)
        struct.pack_into('=H', changed, position, chance.choice((0, 1, 3, 5, 255, 65535)))
        check_robust(bytes(changed))


@hypothesis.given(strategies.binary(max_size=200))
def test_any_bytes_behind_a_header_give_our_own_error_or_counters(payload: bytes) -> None:
    check_robust(sriov.message(sriov.RTM_NEWLINK, bytes(16) + payload))


def check_robust(answer: bytes) -> None:
    """Parse; any error but ours comes out, and counters are numbers of 64 bits."""
    try:
        link = rtnetlink.parse(answer)
    except exceptions.SourceError:
        return
    for counters in link.functions.values():
        assert set(counters) <= set(USED)
        assert all(0 <= value < 2**64 for value in counters.values())


# --- this kernel --------------------------------------------------------------


def test_kernel_refuses_a_device_that_it_has_not() -> None:
    with pytest.raises(exceptions.SourceError, match='refused: ENODEV'):
        rtnetlink.parse(rtnetlink.ask(2**31 - 1))


def test_loopback_has_no_virtual_functions() -> None:
    assert rtnetlink.parse(rtnetlink.ask(socket.if_nametoindex('lo'))).functions == {}


def test_answer_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtnetlink, '_ROOM', 64)

    with pytest.raises(exceptions.SourceError, match='more than 64 bytes'):
        rtnetlink.ask(socket.if_nametoindex('lo'))


def test_kernel_without_this_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, 'NETLINK_ROUTE', 31)

    with pytest.raises(exceptions.SourceError, match='network device 1: .*not supported'):
        rtnetlink.ask(1)
