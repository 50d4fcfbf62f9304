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

"""The decoder gives what is in the messages, whatever is in them, or our own error."""

from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import ipaddress
import pathlib
import random
import struct
import sys
import time
from typing import Any

import hypothesis
from hypothesis import strategies
import numpy as np
import pytest

from oie import exceptions
from oie.sources import ctnetlink as decoder
from oie.sources import flow_columns
from tests import conntrack_list
from tests import ctnetlink

SEQUENCE, PORT_ID = 0xC0FFEE01, 0xF0000002
RECORDED = pathlib.Path(__file__).parents[2] / 'data' / 'ctnetlink'
NAMES = ('plain', 'reported')

# Records are in the byte order of the machine they come from.
recorded = pytest.mark.skipif(sys.byteorder != 'little', reason='recorded on x86-64')


def messages_of(entries: Iterable[ctnetlink.Entry]) -> bytes:
    return b''.join(
        ctnetlink.message(entry, sequence=SEQUENCE, port_id=PORT_ID) for entry in entries
    )


def decode(
    data: bytes, templates: decoder.Templates | None = None, *answered: int
) -> decoder.Decoded:
    request = answered or (SEQUENCE, PORT_ID)
    return decoder.Decoder(*request, templates).decode(np.frombuffer(data, np.uint8))


def carefully(data: bytes) -> decoder.Decoded:
    """Decode without any template: each message by itself."""
    return decode(data, decoder.Templates(limit=0))


def recorded_dump(name: str) -> tuple[bytes, tuple[int, int]]:
    """Return a recorded dump, and sequence and port of its request."""
    data = (RECORDED / f'{name}.dump').read_bytes()
    return data, struct.unpack_from('=II', data, 8)


def recorded_list(name: str) -> list[conntrack_list.Listed]:
    text = (RECORDED / f'{name}.txt').read_text(encoding='ascii')
    return conntrack_list.in_order(conntrack_list.parse(line) for line in text.splitlines())


TCP = ctnetlink.tcp('10.0.0.5', '192.0.2.1')
TCP_V6 = ctnetlink.tcp('2001:db8::5', '2001:db8:1::1')
EXAMPLES = {
    'TCP': ctnetlink.Entry(TCP, id=1, mark=0),
    'IPv6': ctnetlink.Entry(TCP_V6, id=2, mark=0xFFFFFFFF),
    'UDP': ctnetlink.Entry(ctnetlink.udp('10.0.0.5', '192.0.2.1'), id=3, zone=65535),
    'SCTP': ctnetlink.Entry(ctnetlink.sctp('10.0.0.5', '192.0.2.1'), id=4),
    'GRE': ctnetlink.Entry(ctnetlink.gre('10.0.0.5', '192.0.2.1', 1, 65535), id=5),
    'ping': ctnetlink.Entry(ctnetlink.echo('10.0.0.5', '192.0.2.1', 258), id=6),
    'ping over IPv6': ctnetlink.Entry(ctnetlink.echo('2001:db8::5', '2001:db8::6', 772), id=7),
    'ESP': ctnetlink.Entry(ctnetlink.portless('10.0.0.5', '192.0.2.1'), id=8),
    'zone of one direction': ctnetlink.Entry(dataclasses.replace(TCP, zone=9), id=9),
    'zone of the replies': ctnetlink.Entry(
        TCP, dataclasses.replace(TCP.reversed(), zone=10), id=10
    ),
    'counted': ctnetlink.Entry(
        TCP, id=11, counters=(1, 2**40, 3, 2**64 - 1), timestamps=(1795273212115334977,)
    ),
    'ended': ctnetlink.Entry(TCP, id=12, timestamps=(1795273212115334977, 2**63)),
    'source translated': ctnetlink.Entry(
        TCP, dataclasses.replace(TCP.reversed(), dst='203.0.113.9', dst_port=1024), id=13
    ),
    'unreplied': ctnetlink.Entry(TCP, id=14, status=ctnetlink.CONFIRMED),
    'offloaded': ctnetlink.Entry(
        TCP, id=15, status=ctnetlink.ESTABLISHED | flow_columns.OFFLOAD, timeout=None
    ),
    'announced by another': ctnetlink.Entry(TCP, id=16, master=TCP_V6),
    'with all that is skipped': ctnetlink.Entry(
        TCP,
        id=17,
        use=2,
        labels=bytes(range(16)),
        helper='netbios-ns',
        more=ctnetlink.attribute(19, b'system_u:object_r:unlabeled_t\0')
        + ctnetlink.nest(15, bytes(24))
        + ctnetlink.nest(24, bytes(24)),
    ),
}


@pytest.mark.parametrize('name', EXAMPLES)
def test_fields_are_those_of_the_message(name: str) -> None:
    entry = EXAMPLES[name]

    decoded = decode(messages_of([entry]))

    assert ctnetlink.records(decoded.flows) == [entry.record()]
    assert (decoded.entries, decoded.odd) == (1, 0)


def test_columns_of_a_known_entry() -> None:
    entry = dataclasses.replace(EXAMPLES['counted'], zone=513)

    (flows,) = decode(messages_of([entry])).flows

    assert (len(flows), flows.family) == (1, flow_columns.AF_INET)
    assert [part.tolist() for part in flows.address('orig_src')] == [[0], [0x0A000005]]
    assert {name: flows.column(name).tolist() for name in ('orig_src_port', 'zone')} == {
        'orig_src_port': [40000],
        'zone': [513],
    }
    assert flows.column('reply_bytes').tolist() == [2**64 - 1]


def test_one_block_holds_all_of_a_family_that_report_the_same() -> None:
    plain = [entry for entry in EXAMPLES.values() if not (entry.counters or entry.timestamps)]

    decoded = decode(messages_of(plain * 3))

    assert [flows.family for flows in decoded.flows] == [2, 10]
    assert sum(map(len, decoded.flows)) == decoded.entries == 3 * len(plain)


def test_decoded_flows_outlive_the_buffer() -> None:
    buffer = np.frombuffer(messages_of(EXAMPLES.values()), np.uint8).copy()
    decoded = decoder.Decoder(SEQUENCE, PORT_ID).decode(buffer)

    buffer[:] = 0xFF

    expected = ctnetlink.in_order(entry.record() for entry in EXAMPLES.values())
    assert ctnetlink.records(decoded.flows) == expected


# --- recorded dumps -----------------------------------------------------------


@recorded
@pytest.mark.parametrize('name', NAMES)
def test_recorded_dump_is_what_conntrack_listed(name: str) -> None:
    data, answered = recorded_dump(name)

    decoded = decode(data, None, *answered)

    told = conntrack_list.told(ctnetlink.records(decoded.flows))
    assert told == recorded_list(name)
    assert decoded.messages.is_done
    assert (decoded.messages.error, decoded.messages.is_interrupted) == (0, False)


@recorded
@pytest.mark.parametrize('name', NAMES)
def test_no_recorded_shape_is_odd(name: str) -> None:
    data, answered = recorded_dump(name)
    templates = decoder.Templates()

    decoded = decode(data, templates, *answered)

    assert decoded.odd == 0
    assert decoded.entries == len(recorded_list(name)) == sum(map(len, decoded.flows))
    assert len(decoded.flows) == 2
    assert len(templates) < 64


@recorded
@pytest.mark.parametrize('name', NAMES)
def test_recorded_dump_is_what_pyroute2_reads(name: str) -> None:
    data, answered = recorded_dump(name)

    decoded = decode(data, None, *answered)

    ours = {record['id']: record for record in ctnetlink.records(decoded.flows)}
    theirs = list(read_with_pyroute2(data))
    assert {record['id'] for record in theirs} == set(ours)
    for record in theirs:
        assert record == {key: ours[record['id']][key] for key in record}


def read_with_pyroute2(data: bytes) -> Iterable[ctnetlink.Record]:
    from pyroute2.netlink.nfnetlink import nfctsocket

    position = 0
    while (kind := struct.unpack_from('=H', data, position + 4)[0]) != ctnetlink.NLMSG_DONE:
        assert kind == ctnetlink.CT_NEW
        message = nfctsocket.nfct_msg(data, position)
        message.decode()
        yield pyroute2_record(message)
        position += message['header']['length']


def pyroute2_record(message: Any) -> ctnetlink.Record:
    """Return what pyroute2 0.9.7 knows; it has no zones of one direction."""
    found: ctnetlink.Record = {
        'status': message.get_attr('CTA_STATUS'),
        'mark': message.get_attr('CTA_MARK'),
        'id': message.get_attr('CTA_ID'),
    }
    for side, upper in (('orig', 'ORIG'), ('reply', 'REPLY')):
        addresses = message.get_attr(f'CTA_TUPLE_{upper}').get_attr('CTA_TUPLE_IP')
        numbers = message.get_attr(f'CTA_TUPLE_{upper}').get_attr('CTA_TUPLE_PROTO')
        version = 'V4' if message['nfgen_family'] == 2 else 'V6'
        for end in ('src', 'dst'):
            address = addresses.get_attr(f'CTA_IP_{version}_{end.upper()}')
            found[f'{side}_{end}'] = ctnetlink.packed(address)
            found[f'{side}_{end}_port'] = numbers.get_attr(f'CTA_PROTO_{end.upper()}_PORT') or 0
        found[f'{side}_protocol'] = numbers.get_attr('CTA_PROTO_NUM')
        counters = message.get_attr(f'CTA_COUNTERS_{upper}')
        for unit in ('packets', 'bytes'):
            found[f'{side}_{unit}'] = counters and counters.get_attr(
                f'CTA_COUNTERS_{unit.upper()}'
            )
    return found


# --- random messages ----------------------------------------------------------

numbers_of = {bits: strategies.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64)}
maybe = {bits: strategies.none() | numbers for bits, numbers in numbers_of.items()}


@strategies.composite
def tuples(draw: Any, version: int) -> ctnetlink.Tuple:
    address = strategies.ip_addresses(v=version).map(str)
    return ctnetlink.Tuple(
        draw(address), draw(address), draw(numbers_of[8]), *(draw(maybe[16]) for _ in range(3)),
        *(draw(maybe[8]) for _ in range(2)),
    )  # fmt: skip


@strategies.composite
def unknown(draw: Any) -> bytes:
    """Attributes of types that no kernel has yet, of any length."""
    kinds = strategies.integers(27, 0x3FFF) | strategies.integers(0x801B, 0xBFFF)
    pairs = strategies.tuples(kinds, strategies.binary(max_size=40))
    return b''.join(ctnetlink.attribute(*pair) for pair in draw(strategies.lists(pairs)))


@strategies.composite
def entries(draw: Any) -> ctnetlink.Entry:
    version = draw(strategies.sampled_from((4, 6)))
    orig, reply = draw(tuples(version)), draw(tuples(version))
    zone = draw(maybe[16])
    where = draw(strategies.sampled_from(('both', 'orig', 'reply')))
    return ctnetlink.Entry(
        dataclasses.replace(orig, zone=zone if where == 'orig' else None),
        dataclasses.replace(reply, zone=zone if where == 'reply' else None),
        zone=zone if where == 'both' else None,
        status=draw(numbers_of[32]),
        id=draw(numbers_of[32]),
        use=draw(maybe[32]),
        mark=draw(maybe[32]),
        timeout=draw(maybe[32]),
        counters=draw(strategies.none() | strategies.tuples(*[numbers_of[64]] * 4)),
        timestamps=draw(strategies.none() | strategies.lists(numbers_of[64], max_size=2)),
        labels=draw(strategies.none() | strategies.binary(min_size=16, max_size=16)),
        helper=draw(strategies.none() | strategies.text('abc-', max_size=15)),
        master=draw(strategies.none() | tuples(version)),
        more=draw(unknown()),
    )


@hypothesis.settings(deadline=None)
@hypothesis.given(strategies.lists(entries(), max_size=5), strategies.randoms())
def test_random_messages_are_read_the_same_fast_and_carefully(
    shapes: list[ctnetlink.Entry], chance: random.Random
) -> None:
    several = [
        dataclasses.replace(shape, id=chance.getrandbits(32), mark=shape.mark and number)
        for shape in shapes
        for number in range(chance.randint(1, 12))
    ]
    chance.shuffle(several)
    data = b''.join(shuffled_message(entry, chance) for entry in several)

    fast, careful = decode(data), carefully(data)

    expected = ctnetlink.in_order(entry.record() for entry in several)
    assert ctnetlink.records(fast.flows) == expected
    assert ctnetlink.records(careful.flows) == expected
    assert (fast.odd, careful.odd) == (0, len(several))


def shuffled_message(entry: ctnetlink.Entry, chance: random.Random) -> bytes:
    """Return an entry with its attributes in one of two random orders."""
    parts = entry.parts()
    if chance.random() < 0.5:
        random.Random(7).shuffle(parts)
    payload = ctnetlink.generic(entry.orig.family) + b''.join(parts)
    return ctnetlink.raw_message(ctnetlink.CT_NEW, 2, SEQUENCE, PORT_ID, payload)


# --- messages that are wrong --------------------------------------------------


@recorded
@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(
    strategies.sampled_from(NAMES),
    strategies.lists(strategies.tuples(strategies.integers(0, 2**15), numbers_of[8]), max_size=8),
    strategies.integers(0, 2**15) | strategies.none(),
)
def test_changed_bytes_give_our_own_error_or_entries(
    name: str, changes: list[tuple[int, int]], length: int | None
) -> None:
    data, answered = recorded_dump(name)
    changed = bytearray(data[:length])
    for position, value in changes:
        if position < len(changed):
            changed[position] = value

    check_robust(bytes(changed), answered)


@recorded
@pytest.mark.parametrize('name', NAMES)
def test_every_word_changed_gives_our_own_error_or_entries(name: str) -> None:
    data, answered = recorded_dump(name)
    chance = random.Random(name)
    for position in range(0, 4000, 2):
        changed = bytearray(data[:4000])
        struct.pack_into('=H', changed, position, chance.choice((0, 1, 3, 5, 255, 65535)))
        check_robust(bytes(changed), answered)


@hypothesis.settings(deadline=None)
@hypothesis.given(strategies.binary(max_size=200))
def test_any_bytes_behind_a_header_give_our_own_error_or_entries(payload: bytes) -> None:
    message = ctnetlink.raw_message(ctnetlink.CT_NEW, 2, SEQUENCE, PORT_ID, payload)

    check_robust(message, (SEQUENCE, PORT_ID))


def check_robust(data: bytes, answered: tuple[int, int]) -> None:
    """Decode twice; any error but ours comes out."""
    results = []
    for templates in (decoder.Templates(), decoder.Templates(limit=0)):
        try:
            results.append(ctnetlink.records(decode(data, templates, *answered).flows))
        except exceptions.SourceError as exc:
            results.append(str(exc))
    # The order in which lengths are looked at decides which error comes first.
    assert results[0] == results[1] or all(isinstance(result, str) for result in results)


ORIG, REPLY = TCP.attributes(), TCP.reversed().attributes()
STATUS, ID = (ctnetlink.attribute(kind, bytes(4)) for kind in (3, 12))
WHOLE = (ctnetlink.nest(1, ORIG), ctnetlink.nest(2, REPLY), STATUS, ID)


@pytest.mark.parametrize(
    ('payload', 'reason'),
    [
        (ctnetlink.generic(1) + b''.join(WHOLE), 'address family 1'),
        (ctnetlink.generic(10) + b''.join(WHOLE), 'orig_src has 4 bytes'),
        *(
            (ctnetlink.generic(2) + b''.join({*WHOLE} - {part}), 'an entry without')
            for part in WHOLE
        ),
        (ctnetlink.generic(2) + ctnetlink.attribute(8, bytes(2)), 'mark has 2 bytes'),
        (ctnetlink.generic(2) + struct.pack('=HH', 3, 3), 'an attribute of 3 bytes'),
        (ctnetlink.generic(2) + struct.pack('=HHI', 9, 3, 0), 'an attribute of 9 bytes among 8'),
        (
            ctnetlink.generic(2) + ctnetlink.nest(1, struct.pack('=HHI', 12, 0x8001, 0)),
            'an attribute of 12 bytes among 8',
        ),
    ],
)
def test_what_the_kernel_never_writes_is_an_error(payload: bytes, reason: str) -> None:
    message = ctnetlink.raw_message(ctnetlink.CT_NEW, 2, SEQUENCE, PORT_ID, payload)

    with pytest.raises(exceptions.SourceError, match=reason):
        decode(message)


def test_last_attribute_may_end_inside_a_word() -> None:
    several = [ctnetlink.attribute(18, struct.pack('!H', zone)) for zone in (513, 514)]
    unpadded = (b''.join((*WHOLE, zone))[:-2] for zone in several)
    messages = (
        ctnetlink.raw_message(
            ctnetlink.CT_NEW, 2, SEQUENCE, PORT_ID, ctnetlink.generic(2) + payload
        )
        for payload in unpadded
    )

    (flows,) = decode(b''.join(messages)).flows

    assert flows.column('zone').tolist() == [513, 514]


def test_of_an_attribute_that_comes_twice_the_last_one_stands() -> None:
    twice = b''.join((*WHOLE, ctnetlink.attribute(3, struct.pack('!I', 14))))

    decoded = decode(
        ctnetlink.raw_message(ctnetlink.CT_NEW, 2, SEQUENCE, PORT_ID, ctnetlink.generic(2) + twice)
    )

    assert decoded.flows[0].column('status').tolist() == [14]


# --- messages that somebody made on purpose -----------------------------------


def disguised(kind: int, flags: int, length: int = 240) -> str:
    """Return an IPv6 address that is the header of a message."""
    header = struct.pack('=IHHII', length, kind, flags, SEQUENCE, PORT_ID)
    return str(ipaddress.IPv6Address(header))


@pytest.mark.parametrize('kind', [ctnetlink.CT_NEW, ctnetlink.NLMSG_DONE, ctnetlink.NLMSG_ERROR])
@pytest.mark.parametrize('length', [0, 16, 20, 52, 240, 2**32 - 1])
def test_address_that_is_a_header_deceives_nobody(kind: int, length: int) -> None:
    evil = ctnetlink.Entry(ctnetlink.tcp(disguised(kind, 2, length), '2001:db8::6'), id=1)
    several = [*EXAMPLES.values(), evil, *EXAMPLES.values(), evil, evil]

    decoded = decode(messages_of(several) + ctnetlink.done(SEQUENCE, PORT_ID))

    expected = ctnetlink.in_order(entry.record() for entry in several)
    assert ctnetlink.records(decoded.flows) == expected
    assert decoded.messages.is_done


def test_interrupted_flag_inside_an_address_means_nothing() -> None:
    evil = ctnetlink.Entry(ctnetlink.tcp(disguised(ctnetlink.CT_NEW, 0x12), '2001:db8::6'), id=1)

    assert not decode(messages_of([evil, evil])).messages.is_interrupted


def odd_shapes(count: int) -> list[ctnetlink.Entry]:
    """Return entries none of which has the shape of another."""
    return [
        ctnetlink.Entry(TCP, id=number, more=ctnetlink.attribute(100 + number, bytes(4)))
        for number in range(count)
    ]


def test_more_shapes_than_templates_are_read_carefully_and_counted() -> None:
    shapes = odd_shapes(30)
    templates = decoder.Templates(limit=10)

    decoded = decode(messages_of(shapes * 2), templates)

    assert (len(templates), decoded.odd) == (10, 40)
    expected = ctnetlink.in_order(entry.record() for entry in shapes * 2)
    assert ctnetlink.records(decoded.flows) == expected
    assert len(decoded.flows) == 1


def test_flood_of_shapes_costs_little_more_than_careful_reading() -> None:
    data = messages_of(odd_shapes(2000))
    templates = decoder.Templates()
    began = time.process_time()

    decoded = decode(data, templates)

    # 0.07 ms each on the development machine, where a walk takes 0.04.
    assert time.process_time() - began < 2000 * 0.002
    assert len(templates) == decoder.MAX_TEMPLATES
    assert decoded.odd == 2000 - decoder.MAX_TEMPLATES


def test_templates_that_nothing_fits_any_more_make_room() -> None:
    templates = decoder.Templates(limit=10)
    decode(messages_of(odd_shapes(30)), templates)
    useful = messages_of([EXAMPLES['TCP']])

    odd = []
    for _ in range(decoder.KEPT_DUMPS + 2):
        templates.grow_older()
        odd.append(decode(useful, templates).odd)

    assert (odd[0], odd[-1], len(templates)) == (1, 0, 1)


def test_templates_in_use_stay() -> None:
    templates = decoder.Templates()
    data = messages_of(EXAMPLES.values())
    decode(data, templates)
    kept = {id(template) for entry in EXAMPLES for template in known(templates, EXAMPLES[entry])}

    for _ in range(2 * decoder.KEPT_DUMPS):
        templates.grow_older()
        decode(data, templates)

    assert kept == {
        id(template) for entry in EXAMPLES for template in known(templates, EXAMPLES[entry])
    }


def known(templates: decoder.Templates, entry: ctnetlink.Entry) -> Sequence[decoder.Template]:
    return templates.known(len(messages_of([entry])))
