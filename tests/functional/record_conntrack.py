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

"""Records tests/data/ctnetlink: real dumps of a table with entries of every shape.

    python -m tests.functional.record_conntrack DIRECTORY

As root; the table is that of a network namespace made for it. Each dump lies there
beside what ``conntrack -L`` said of the same table.
"""

import dataclasses
import datetime
import pathlib
import platform
import socket
import sys

from tests import ctnetlink
from tests.functional import flows
from tests.functional import processes

RULES = """
table ip oiet {
    chain translated {
        type nat hook output priority -100
        ip daddr 192.0.2.9 dnat to 127.0.0.1
    }
}
table ip6 oiet {
    chain tracked {
        type filter hook output priority 0
        ct state new accept
    }
}
"""

# Type, code, checksum (the kernel makes that of ICMPv6), id and number.
ECHOES = (
    (socket.AF_INET, socket.IPPROTO_ICMP, '127.0.0.1', '0800f7f700070001'),
    (socket.AF_INET6, socket.IPPROTO_ICMPV6, '::1', '8000000000070001'),
)

RECORDINGS = {
    'plain': 'Accounting and timestamps off.',
    'reported': 'Accounting and timestamps on; some of the entries come from real packets.',
}

README = """\
Recorded by ``python -m tests.functional.record_conntrack tests/data/ctnetlink`` on
{system}, Linux {kernel} ({machine}), conntrack {conntrack}, {date}.

{list}

``*.dump`` is what the kernel answered to one IPCTNL_MSG_CT_GET with NLM_F_DUMP for
both families, all parts in a row, in the byte order of that machine. ``*.txt`` is
what ``conntrack -L -o extended,id,timestamp`` wrote of the same table.
"""


def entries() -> list[ctnetlink.Entry]:
    """Return entries of every shape that can be made without packets."""
    found = []
    for source, peer, outside in (
        ('10.0.0.5', '192.0.2.1', '203.0.113.9'),
        ('2001:db8::5', '2001:db8:1::1', '2001:db8:2::9'),
    ):
        for make in (
            *(ctnetlink.tcp, ctnetlink.udp, ctnetlink.sctp, ctnetlink.gre, ctnetlink.echo),
            ctnetlink.portless,
        ):
            found += _variants(make(source, peer), outside)
    return [*found, *_with_helper()]


def _variants(orig: ctnetlink.Tuple, outside: str) -> list[ctnetlink.Entry]:
    """Return one flow alone, in zones, marked, labelled, unreplied and translated."""
    other = dataclasses.replace(orig, dst=_next(orig.dst))
    unreplied = ctnetlink.CONFIRMED
    return [
        ctnetlink.Entry(orig),
        ctnetlink.Entry(orig, zone=1),
        ctnetlink.Entry(orig, zone=65535, status=unreplied),
        ctnetlink.Entry(orig, zone=3, mark=0xDEADBEEF, labels=bytes(range(16))),
        ctnetlink.Entry(orig, zone=4, nat_src=outside),
        ctnetlink.Entry(orig, zone=5, nat_dst=outside),
        ctnetlink.Entry(dataclasses.replace(orig, zone=8, src=_next(orig.src))),
        ctnetlink.Entry(other, dataclasses.replace(other.reversed(), zone=9)),
    ]


def _next(address: str) -> str:
    return f'{address[:-1]}{int(address[-1]) + 1}'


def _with_helper() -> list[ctnetlink.Entry]:
    """Return a connection with a helper, and one that it had announced."""
    control = ctnetlink.tcp('10.0.0.8', '192.0.2.1', dst_port=21)
    data = ctnetlink.tcp('10.0.0.8', '192.0.2.1', dst_port=50000)
    return [ctnetlink.Entry(control, helper='ftp'), ctnetlink.Entry(data, master=control)]


def traffic(namespace: flows.Namespace) -> None:
    """Have the kernel track real packets, which leave counters behind."""
    namespace.program('ip', 'link', 'set', 'lo', 'up')
    route = ('192.0.2.9', 'dev', 'lo', 'src', '127.0.0.1')
    namespace.program('ip', 'route', 'add', *route)
    namespace.program('nft', RULES)
    namespace.run(_talk)


def _talk() -> None:
    for family, host in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1')):
        with socket.create_server((host, 5000), family=family) as server:
            for address in (host, '192.0.2.9')[: 1 if ':' in host else 2]:
                with socket.create_connection((address, 5000)) as client:
                    client.sendall(bytes(10000))
                    server.accept()[0].close()
        with socket.socket(family, socket.SOCK_DGRAM) as lonely:
            lonely.sendto(b'unreplied', (host, 9))
    for family, protocol, host, echo in ECHOES:
        with socket.socket(family, socket.SOCK_RAW, protocol) as pinger:
            pinger.sendto(bytes.fromhex(echo), (host, 0))


def fill(namespace: flows.Namespace, name: str) -> None:
    """Make the table of one of the recordings."""
    if name == 'reported':
        namespace.set(acct=1, timestamp=1)
        traffic(namespace)
    namespace.add(*entries())


def record(directory: pathlib.Path, name: str) -> None:
    """Write one dump and what conntrack says of it."""
    with flows.Namespace() as namespace:
        fill(namespace, name)
        (directory / f'{name}.dump').write_bytes(b''.join(map(bytes, namespace.dump())))
        (directory / f'{name}.txt').write_text(namespace.listed_text(), encoding='ascii')


def readme() -> str:
    """Return what was recorded, when and where."""
    release = platform.freedesktop_os_release()
    return README.format(
        system=release['PRETTY_NAME'],
        kernel=platform.release().split('-')[0],
        machine=platform.machine(),
        conntrack=processes.run('conntrack', '--version').split()[1],
        date=datetime.date.today().isoformat(),
        list='\n'.join(f'* ``{name}.dump``: {text}' for name, text in RECORDINGS.items()),
    )


def main() -> None:
    """Record everything."""
    directory = pathlib.Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name in RECORDINGS:
        record(directory, name)
    (directory / 'README.rst').write_text(readme(), encoding='utf-8')


if __name__ == '__main__':
    main()
