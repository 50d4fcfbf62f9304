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

"""A PostgreSQL cluster of its own, in a directory of its own, on a Unix socket only."""

import pathlib
import shutil
import tempfile

from tests.functional import processes

USER = 'billing'
_SYSTEM_USER = 'postgres'
_SETTINGS = ('listen_addresses=', 'fsync=off', 'full_page_writes=off', 'max_connections=60')


def find_programs() -> pathlib.Path | None:
    """Return the directory of the newest PostgreSQL that is installed, None for none."""
    found = sorted(
        pathlib.Path('/usr/lib/postgresql').glob('*/bin/initdb'),
        key=lambda path: int(path.parts[-3]),
    )
    return found[-1].parent if found else None


class Postgres:
    """The server, from start() or the begin of a ``with`` block on."""

    def __init__(self) -> None:
        self._directory: pathlib.Path | None = None
        self._program: processes.Program | None = None

    def __enter__(self) -> 'Postgres':
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The database as SQLAlchemy names it."""
        return f'postgresql://{USER}@/postgres?host={self._directory}'

    def start(self) -> None:
        """Make the cluster and start it."""
        programs = find_programs()
        if programs is None:
            raise processes.LabError('PostgreSQL is not installed (bindep billing)')
        directory = self._directory = pathlib.Path(tempfile.mkdtemp(prefix='oiet-pg'))
        processes.end_later(self, self.stop)
        shutil.chown(directory, _SYSTEM_USER)
        # It refuses to run as root.
        alike = ('setpriv', f'--reuid={_SYSTEM_USER}', f'--regid={_SYSTEM_USER}', '--init-groups')
        data = str(directory / 'data')
        made = ('--auth=trust', f'--username={USER}', '--encoding=UTF8', '--no-sync')
        processes.run(*alike, str(programs / 'initdb'), '-D', data, *made)
        settings = (*_SETTINGS, f'unix_socket_directories={directory}')
        words = (word for setting in settings for word in ('-c', setting))
        argv = (*alike, str(programs / 'postgres'), '-D', data, *words)
        self._program = processes.Program(argv, directory / 'log')
        self._program.start()
        processes.wait_for(self._is_ready, 30, 'PostgreSQL')

    def stop(self) -> None:
        if self._program is not None:
            self._program.stop()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        processes.ended(self)

    def execute(self, statement: str) -> None:
        """Run SQL.

        :raises LabError: it failed
        """
        at = ('-h', str(self._directory), '-U', USER, '-d', 'postgres')
        processes.run('psql', '-q', '-v', 'ON_ERROR_STOP=1', *at, '-c', statement)

    def _is_ready(self) -> bool:
        if self._program is None or not self._program.is_running:
            words = self._program.last_words() if self._program else ''
            raise processes.LabError(f'PostgreSQL ended: {words}')
        try:
            self.execute('SELECT 1')
        except processes.LabError:
            return False
        return True
