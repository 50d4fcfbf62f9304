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

"""One guest of the laboratory: a real QEMU that a test starts, plugs, stops, wedges and kills."""

from collections.abc import Callable
import dataclasses
import os
import pathlib
import signal
import socket
from xml.etree import ElementTree

from tests.functional import domains
from tests.functional import processes

_BROADCAST_FRAME = b'\xff' * 6 + b'\x02\x00\x00\x00\x00\x01' + b'\x88\xb5' + bytes(46)


class Guest:
    """A domain of a private libvirtd.

    ``instance`` is what its XML was made of; hot-plug replaces it.
    """

    def __init__(
        self,
        instance: domains.Instance,
        *,
        virsh: Callable[..., str],
        base: pathlib.Path,
        is_persistent: bool = True,
    ) -> None:
        self.instance = instance
        self.is_persistent = is_persistent
        self._virsh = virsh
        self._pid_file = base / 'run/libvirt/qemu' / f'{instance.name}.pid'
        self._xml_file = base / 'xml' / f'{instance.name}.xml'

    @property
    def name(self) -> str:
        return self.instance.name

    @property
    def uuid(self) -> str:
        return self.instance.uuid

    @property
    def pid(self) -> int:
        """Return the process of its QEMU.

        :raises LabError: it does not run
        """
        pid = self._find_pid()
        if pid is None:
            raise processes.LabError(f'{self.name} has no QEMU')
        return pid

    @property
    def is_running(self) -> bool:
        return self._find_pid() is not None

    def define(self) -> None:
        self._virsh('define', self._write_xml(domains.domain_xml(self.instance)))

    def start(self) -> None:
        """Start it; a persistent guest is defined first if libvirt does not know it."""
        if not self.is_persistent:
            self._virsh('create', self._write_xml(domains.domain_xml(self.instance)))
            return
        if self.uuid not in self._virsh('list', '--all', '--uuid').split():
            self.define()
        self._virsh('start', self.name)

    def start_paused(self) -> None:
        """Start a transient guest that waits, as the destination of a migration does."""
        xml = self._write_xml(domains.domain_xml(self.instance))
        self._virsh('create', '--paused', xml)

    def destroy(self) -> None:
        """End it as ``nova stop`` does at last; a transient guest is gone then."""
        self._virsh('destroy', self.name)

    def undefine(self) -> None:
        self._virsh('undefine', self.name)

    def remove(self) -> None:
        """End and forget it in whatever state it is."""
        self.sigkill()
        self._virsh_unless_gone('destroy')
        self._virsh_unless_gone('undefine')

    def pause(self) -> None:
        self._virsh('suspend', self.name)

    def resume(self) -> None:
        self._virsh('resume', self.name)

    def reset(self) -> None:
        """Press its reset button: the program boots again."""
        self._virsh('reset', self.name)

    def sigstop(self) -> None:
        """Wedge its QEMU: nothing that asks its monitor gets an answer until sigcont()."""
        pid = self.pid
        os.kill(pid, signal.SIGSTOP)
        processes.wait_for(
            lambda: processes.process_state(pid) == 'T', what=f'{self.name} to stop'
        )

    def sigcont(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def sigkill(self) -> None:
        """Kill its QEMU as the kernel's out-of-memory killer would; harmless when it is gone."""
        pid = self._find_pid()
        if pid is not None:
            processes.kill_and_wait([pid])

    def attach_port(self, port: domains.Port) -> None:
        self._attach(domains.interface_element(port))
        self.instance = dataclasses.replace(self.instance, ports=(*self.instance.ports, port))

    def attach_disk(self, disk: domains.Disk) -> None:
        self._attach(domains.disk_element(disk))
        self.instance = dataclasses.replace(self.instance, disks=(*self.instance.disks, disk))

    def send_frames(self, count: int, port_index: int = 0) -> None:
        """Send Ethernet frames of 60 bytes towards the guest.

        A virtio interface without a driver takes one and lets the kernel's queue fill (500, then
        drops); one of model ``rtl8139`` takes all, so its receive counters move.
        """
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind((self.instance.ports[port_index].target, 0))
            for _ in range(count):
                sender.send(_BROADCAST_FRAME)

    def cpu_seconds(self) -> float:
        return processes.cpu_seconds(self.pid)

    def _attach(self, device: ElementTree.Element) -> None:
        xml = self._write_xml(domains.to_text(device))
        where = ('--live', '--config') if self.is_persistent else ('--live',)
        self._virsh('attach-device', self.name, xml, *where)

    def _write_xml(self, text: str) -> str:
        self._xml_file.write_text(text, encoding='utf-8')
        return str(self._xml_file)

    def _find_pid(self) -> int | None:
        try:
            pid = int(self._pid_file.read_text(encoding='ascii'))
        except FileNotFoundError:
            return None
        # The number may be another process's by now.
        is_ours = any(
            argument.startswith(f'guest={self.name},')
            for argument in processes.process_arguments(pid)
        )
        return pid if is_ours and processes.process_state(pid) else None

    def _virsh_unless_gone(self, command: str) -> None:
        try:
            self._virsh(command, self.name)
        except processes.LabError as exc:
            expected = ('is not running', 'failed to get domain', 'transient domain')
            if not any(text in str(exc) for text in expected):
                raise
