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

"""The main job, for a first look: collect, serve, answer the pollsters.

Uses the libvirtd of this host when it has active guests, else four instances in
libvirt's own test driver. Root also gets a router of Neutron and a DHCP server: two
network namespaces that are gone when it ends. Run it by tools/demo.sh.
"""

import argparse
from collections.abc import Iterator
import contextlib
import pathlib
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = pathlib.Path(sys.executable).parent
NODE = ROOT / 'etc/oie/demo/node.xml'
SYSTEM_URI = 'qemu:///system'
POLLSTERS = ('instances', 'disks', 'vnics', 'flows', 'contacts', 'os', 'usage', 'routers')
START_SECONDS = 20.0

CONFIG = """\
[DEFAULT]
oie_log_level = notice

[exporter]
listen_address = 127.0.0.1:{port}
socket_path = {directory}/oie.sock
metric_sets = oie,libvirt_nova,netns

[collector]
interval = 2s

[libvirt]
uri = {uri}
suspects_path = {directory}/suspects.json

[ledger]
path = {directory}/ledger.sqlite

[netns]
enabled = {has_router}
namespaces_whitelist = {router}
"""

# A router with its gateway, and the DHCP server of its network, as Neutron names them.
NAMESPACES = ('qrouter-{router}', 'qdhcp-{router}')
CABLE = (
    'link add name qg-{port} netns qrouter-{router} type veth '
    'peer name tap{port} netns qdhcp-{router}',
    '-n qrouter-{router} address add 203.0.113.7/24 dev qg-{port}',
    '-n qrouter-{router} link set qg-{port} up',
    '-n qdhcp-{router} address add 203.0.113.2/24 dev tap{port}',
    '-n qdhcp-{router} link set tap{port} up',
)


def main() -> int:
    """Run the demonstration; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--once', action='store_true', help='print JSON and one scrape, then end')
    parser.add_argument('--uri', help='libvirt URI to use')
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    uri = arguments.uri or find_uri()
    with tempfile.TemporaryDirectory(prefix='oie-demo-') as directory:
        port = free_port(9120)
        config = pathlib.Path(directory) / 'oie.conf'
        # The first digits say whose it is, should somebody find one.
        router = f'de300000-0000-4000-8000-{secrets.token_hex(6)}'
        with namespaces(router) as has_router, contextlib.ExitStack() as running:
            text = CONFIG.format(
                port=port, directory=directory, uri=uri, router=router, has_router=has_router
            )
            config.write_text(text)
            running.enter_context(exporter(config))
            url = f'http://127.0.0.1:{port}'
            wait_until_ready(url)
            show(url, config, uri, is_once=arguments.once)
            if not arguments.once:
                with contextlib.suppress(KeyboardInterrupt):
                    signal.pause()
    return 0


def find_uri() -> str:
    """Return the system's URI if guests are active there, else that of the test driver."""
    import libvirt

    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    try:
        connection = libvirt.openReadOnly(SYSTEM_URI)
        active = connection.numOfDomains()
    except libvirt.libvirtError:
        active = 0
    return SYSTEM_URI if active else f'test://{NODE}'


def free_port(wanted: int) -> int:
    """Return the wanted TCP port of the loopback if it is free, else any free one."""
    for port in (wanted, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(('127.0.0.1', port))
            return int(probe.getsockname()[1])
    raise SystemExit('no free TCP port on the loopback')


@contextlib.contextmanager
def namespaces(router: str) -> Iterator[bool]:
    """Have a router and a DHCP server until the block ends; False where they cannot be had."""
    names = [name.format(router=router) for name in NAMESPACES]
    made: list[str] = []
    try:
        yield make(names, made, [line.format(router=router, port=router[-11:]) for line in CABLE])
    finally:
        for name in made:
            subprocess.run(['ip', 'netns', 'delete', name], check=False)  # noqa: S603, S607


def make(names: list[str], made: list[str], cable: list[str]) -> bool:
    """Make the namespaces, note each of them, and join them; say why where that is refused."""
    try:
        for name in names:
            ip('netns', 'add', name)
            made.append(name)
        for line in cable:
            ip(*line.split())
    except (OSError, subprocess.CalledProcessError) as exc:
        reason = getattr(exc, 'stderr', '') or exc
        print(f'No network namespaces are shown, because none can be made: {reason!s}'.strip())
        return False
    return True


def ip(*arguments: str) -> None:
    """Run ip(8).

    :raises CalledProcessError: it failed
    """
    command = ['ip', *arguments]
    subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603


@contextlib.contextmanager
def exporter(config: pathlib.Path) -> Iterator[None]:
    """Run oie-exporter until the block ends."""
    command = [BIN / 'oie-exporter', '--config-file', config]
    with subprocess.Popen(command, start_new_session=True) as process:  # noqa: S603
        try:
            yield
        finally:
            process.terminate()


def wait_until_ready(url: str) -> None:
    """Wait for the first complete collection."""
    deadline, reason = time.monotonic() + START_SECONDS, 'no answer'
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f'{url}/readyz', timeout=2).close()  # noqa: S310
            return
        except urllib.error.HTTPError as exc:
            reason = exc.read().decode(errors='replace').strip()
        except OSError as exc:
            reason = str(exc)
        time.sleep(0.1)
    raise SystemExit(f'oie-exporter is not ready after {START_SECONDS:g} s: {reason}')


def show(url: str, config: pathlib.Path, uri: str, *, is_once: bool) -> None:
    """Print what Ceilometer and Prometheus would get."""
    print(f'Guests of {uri}\n')
    for name in POLLSTERS:
        command = [BIN / 'oie-pollster', name, '--config-file', config]
        print(f'$ oie-pollster {name}', flush=True)
        # A list that cannot be had here, flows without the right, says so in a sentence.
        subprocess.run(command, check=False)  # noqa: S603
        print()
    with urllib.request.urlopen(f'{url}/metrics', timeout=5) as answer:  # noqa: S310
        text = answer.read().decode()
    if is_once:
        print(f'$ curl {url}/metrics\n{text}', end='')
        return
    series = sum(not line.startswith('#') for line in text.splitlines())
    print(
        f'{series} series at {url}/metrics; open {url}/ in a browser. Ctrl-C ends it.', flush=True
    )


if __name__ == '__main__':
    sys.exit(main())
