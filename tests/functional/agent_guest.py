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


"""A guest whose agent is played by the test: a Linux that opens the agent's port, and a listener.

libvirt talks to an agent only while the guest holds its end of the channel open, so the guest is
a real kernel, one that the machine has in /boot, with one program instead of an operating system:
it loads the driver of the port, opens the port and waits there. What libvirtd then sends on its
own connection never reaches the guest; the test answers it, as the real agent would or otherwise.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import json
import pathlib
import re
import socket
import threading
from typing import Any

from tests.functional import processes

MODULE = 'virtio_console'
BUS = 'virtio_pci'

#: Loads the modules in the order of their names and opens the first port that appears; at each
#: byte that comes there it closes the port for longer than QEMU's limit of one event a second.
_INIT = r"""
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void)
{
    char path[64];
    int number, port;

    mkdir("/dev", 0755);
    mount("devtmpfs", "/dev", "devtmpfs", 0, "");
    for (number = 0; number < 32; number++) {
        snprintf(path, sizeof path, "/modules/%02d.ko", number);
        int module = open(path, O_RDONLY);
        if (module >= 0)
            syscall(SYS_finit_module, module, "", 0);
    }
    for (;;) {
        for (number = 0; number < 32; number++) {
            snprintf(path, sizeof path, "/dev/vport%dp1", number);
            port = open(path, O_RDWR);
            if (port >= 0) {
                while (read(port, path, 1) != 1)
                    usleep(20000);
                close(port);
                sleep(2);
            }
        }
        usleep(100000);
    }
}
"""

Answer = bytes | None
#: Gets the request of libvirtd and gives what is sent back; None is silence.
Agent = Callable[[Mapping[str, Any]], Answer]


def what_is_missing() -> str | None:
    """Return why no such guest can be made on this machine; None if one can."""
    if processes.find_program('gcc') is None:
        return 'the guest of the agent needs gcc'
    if _kernel() is None:
        return 'the guest of the agent needs a kernel in /boot and its modules (bindep test)'
    return None


def boot_files(directory: pathlib.Path) -> tuple[str, str]:
    """Return the kernel and the initial file system, which is made below the directory."""
    kernel = _kernel()
    assert kernel is not None
    source, program = directory / 'init.c', directory / 'init'
    source.write_text(_INIT)
    processes.run('gcc', '-static', '-O1', '-o', str(program), str(source))
    release = kernel.name.removeprefix('vmlinuz-')
    files = {'init': (0o755, program.read_bytes())}
    for number, module in enumerate(_modules(release)):
        files[f'modules/{number:02d}.ko'] = (0o644, module.read_bytes())
    image = directory / 'initrd'
    image.write_bytes(_archive(files))
    return str(kernel), str(image)


def _kernel() -> pathlib.Path | None:
    found = sorted(pathlib.Path('/boot').glob('vmlinuz-*'))
    usable = [kernel for kernel in found if _modules(kernel.name.removeprefix('vmlinuz-'))]
    return usable[-1] if usable else None


def _modules(release: str) -> list[pathlib.Path]:
    """Return the files of the drivers and of all they need, those first that others need."""
    base = pathlib.Path('/lib/modules', release)
    try:
        lines = (base / 'modules.dep').read_text().splitlines()
    except OSError:
        return []
    needs = {path: rest.split() for path, _, rest in (line.partition(':') for line in lines)}
    ordered: list[str] = []
    for name in (BUS, MODULE):
        for path in [path for path in needs if re.search(rf'/{name}\.ko$', path)]:
            ordered += [*reversed(needs[path]), path]
    return [base / path for path in dict.fromkeys(ordered)]


def _archive(files: Mapping[str, tuple[int, bytes]]) -> bytes:
    """Return a cpio archive in the form that Linux unpacks. Source: cpio(5), newc."""
    parts = [_member('modules', 0o40755, b'')]
    parts += [_member(name, 0o100000 | mode, data) for name, (mode, data) in files.items()]
    return b''.join((*parts, _member('TRAILER!!!', 0, b'')))


def _member(name: str, mode: int, data: bytes) -> bytes:
    numbers = (1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = '070701' + ''.join(f'{number:08x}' for number in numbers)
    return _padded(head.encode() + name.encode() + b'\0') + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b'\0' * (-len(data) % 4)


class Listener:
    """Answers on a socket as ``agent`` says, which tests change.

    QEMU's own connection, the first one, leads to the guest.

    :ivar accepted: how many connections there were
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.agent: Agent = lambda request: None
        self.requests: list[str] = []
        self.accepted = 0
        self._guest: socket.socket | None = None
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen(8)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def reopen(self) -> None:
        """Make the guest close and open its port, so that libvirtd begins anew."""
        assert self._guest is not None
        self._guest.sendall(b'.')

    def close(self) -> None:
        self._socket.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self._guest = self._guest or connection
                self.accepted += 1
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            for request in _requests(connection):
                self.requests.append(str(request.get('execute')))
                answer = self.agent(request)
                if answer is not None:
                    connection.sendall(answer)


def _requests(connection: socket.socket) -> Iterator[Mapping[str, Any]]:
    with connection.makefile('rb') as lines:
        for line in lines:
            with contextlib.suppress(ValueError):
                # libvirt begins by a byte that makes the agent forget what came before.
                request = json.loads(line.lstrip(b'\xff'))
                if isinstance(request, dict):
                    yield request
