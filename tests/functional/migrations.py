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

"""A live migration between two private daemons, held half-way for as long as a test wants."""

import dataclasses

from tests.functional import guests
from tests.functional import lab
from tests.functional import processes

# Memory of a 'dirty' guest changes faster than 1 MiB/s, and 1 ms is too short for the rest.
_CRAWL = {'migrate-setmaxdowntime': '1', 'migrate-setspeed': '1'}
_RUSH = {'migrate-setspeed': '1000', 'migrate-setmaxdowntime': '2000'}


class Migration:
    """Moves a running guest to another daemon, with other taps, as between two hosts.

    While it is under way the source is ``running`` or, for moments, ``paused (migrating)``; the
    destination is ``paused (migrating)``. A context manager: what still runs at its end is
    aborted.

    :param guest: of the source, made with ``program='dirty'``
    """

    def __init__(
        self, guest: guests.Guest, source: lab.Libvirtd, destination: lab.Libvirtd
    ) -> None:
        self._guest = guest
        self._source = source
        self._destination = destination
        ports = tuple(
            dataclasses.replace(port, target=destination.new_port().target)
            for port in guest.instance.ports
        )
        #: The guest as the destination will have it.
        self.arrival = guests.Guest(
            dataclasses.replace(guest.instance, ports=ports),
            virsh=destination.virsh,
            base=destination.base,
        )
        self._program = processes.Program(self._arguments(), source.base / 'log/migration')

    def __enter__(self) -> 'Migration':
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.abort()

    @property
    def is_under_way(self) -> bool:
        return self._program.is_running

    def start(self) -> None:
        """Begin, and return when the destination's QEMU receives."""
        self._set(_CRAWL)
        self._program.start()
        processes.wait_for(self._is_half_way, 30, f'{self._guest.name} to arrive half-way')

    def finish(self) -> None:
        """Let it complete: from then on the guest runs at the destination only."""
        self._set(_RUSH)
        processes.wait_for(lambda: not self.is_under_way, 30, 'the migration to complete')
        if self._guest.is_running or not self.arrival.is_running:
            raise processes.LabError(f'migration failed: {self._program.last_words()}')

    def abort(self) -> None:
        """Give up: the guest goes on at the source. Nothing happens when it is over already."""
        if self.is_under_way:
            self._source.virsh('domjobabort', self._guest.name)
            processes.wait_for(lambda: not self.is_under_way, 30, 'the migration to be aborted')
        self._program.stop()

    def _is_half_way(self) -> bool:
        if not self.is_under_way:
            raise processes.LabError(f'migration ended early: {self._program.last_words()}')
        states = self._destination.virsh('list', '--name', '--state-paused').split()
        job = self._source.virsh('domjobinfo', self._guest.name)
        return self._guest.name in states and 'Memory processed' in job

    def _set(self, parameters: dict[str, str]) -> None:
        for command, value in parameters.items():
            self._source.virsh(command, self._guest.name, value)

    def _arguments(self) -> tuple[str, ...]:
        """Return the command; the destination's XML differs in the taps, as Nova does it."""
        xml = self._source.virsh('dumpxml', '--migratable', self._guest.name)
        pairs = zip(self._guest.instance.ports, self.arrival.instance.ports, strict=True)
        for old, new in pairs:
            xml = xml.replace(f"'{old.target}'", f"'{new.target}'")
        path = self._source.base / 'xml' / f'{self._guest.name}-destination.xml'
        path.write_text(xml, encoding='utf-8')
        return (
            *('virsh', '--connect', self._source.rw_uri, 'migrate', '--live', '--unsafe'),
            *('--persistent', '--undefinesource', '--xml', str(path)),
            *(self._guest.name, self._destination.rw_uri, 'tcp:127.0.0.1'),
        )
