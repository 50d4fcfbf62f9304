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

"""The real Keystone, in a virtual environment and with a database of its own.

The environment lies where ``OIE_KEYSTONE_ENV`` says, by default in ``.tox/keystone-env-*``, and is
made when it is not there.
"""

import hashlib
import os
import pathlib
import shutil
import sys
import tempfile

import requests

from tests.billing import environments
from tests.functional import processes

REQUIREMENTS = ('keystone>=26', 'werkzeug>=3')
PASSWORD = 'secret'
CONFIG = """\
[database]
connection = sqlite:///{directory}/keystone.db
[fernet_tokens]
key_repository = {directory}/fernet
[fernet_receipts]
key_repository = {directory}/fernet
[credential]
key_repository = {directory}/credential
[cache]
enabled = false
"""
# Keystone takes the command line for its own.
SERVE = """\
import os
from werkzeug import serving
from keystone.wsgi import api
serving.run_simple('127.0.0.1', int(os.environ['OIET_PORT']), api.application, threaded=True)
"""


def environment() -> environments.Environment:
    """Return the environment; it is made if it is missing.

    :raises LabError: it could not be made
    """
    asked = repr((REQUIREMENTS, sys.version_info[:2])).encode()
    default = environments.ROOT / f'.tox/keystone-env-{hashlib.sha256(asked).hexdigest()[:12]}'
    return environments.make(
        pathlib.Path(os.environ.get('OIE_KEYSTONE_ENV') or default), REQUIREMENTS
    )


class Keystone:
    """A Keystone on a port of 127.0.0.1, with an administrator and the domains of a site."""

    def __init__(self) -> None:
        self.port = processes.free_port()
        self._environment = environment()
        self._directory = pathlib.Path()
        self._program: processes.Program | None = None

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.port}/v3'

    def __enter__(self) -> 'Keystone':
        self._directory = pathlib.Path(tempfile.mkdtemp(prefix='oiet-keystone-'))
        self._configure()
        for name in ('fernet', 'credential'):
            (self._directory / name).mkdir()
        self._manage('db_sync')
        for name in ('fernet_setup', 'credential_setup'):
            self._manage(name, '--keystone-user', 'root', '--keystone-group', 'root')
        self._manage(
            *('bootstrap', '--bootstrap-password', PASSWORD),
            *('--bootstrap-public-url', self.url, '--bootstrap-region-id', 'RegionOne'),
        )
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def start(self) -> None:
        """Serve, again after stop()."""
        argv = (self._environment.python, '-W', 'ignore', '-c', SERVE)
        env = {
            **processes.environment(),
            'OIET_PORT': str(self.port),
            'OS_KEYSTONE_CONFIG_FILES': str(self._directory / 'keystone.conf'),
        }
        self._program = processes.Program(argv, self._directory / 'log', env)
        self._program.start()
        processes.wait_for(self._answers, 60, 'Keystone')

    def stop(self) -> None:
        """Serve no more."""
        if self._program is not None:
            self._program.stop()

    def limit_lists(self, most: int | None) -> None:
        """Serve lists of so many projects and domains at most, None for whole ones."""
        self.stop()
        self._configure('' if most is None else f'[resource]\nlist_limit = {most}\n')
        self.start()

    def variables(self) -> dict[str, str]:
        """Return what an openrc file of the administrator holds."""
        return {
            'OS_AUTH_URL': self.url,
            'OS_USERNAME': 'admin',
            'OS_PASSWORD': PASSWORD,
            'OS_PROJECT_NAME': 'admin',
            'OS_USER_DOMAIN_NAME': 'Default',
            'OS_PROJECT_DOMAIN_NAME': 'Default',
            'OS_REGION_NAME': 'RegionOne',
            'OS_IDENTITY_API_VERSION': '3',
        }

    def make(self, kind: str, **values: object) -> str:
        """Make a domain, project, service or endpoint; return its id."""
        answer = self._ask('POST', f'/{kind}s', {kind: values})
        return str(answer[kind]['id'])

    def change(self, kind: str, key: str, **values: object) -> None:
        """Change a domain or a project."""
        self._ask('PATCH', f'/{kind}s/{key}', {kind: values})

    def delete(self, kind: str, key: str) -> None:
        """Delete a domain, project or service."""
        headers = {'X-Auth-Token': self._log_in()}
        answer = requests.delete(f'{self.url}/{kind}s/{key}', headers=headers, timeout=10)
        answer.raise_for_status()

    def knows(self, token: str) -> bool:
        """Whether a token is one of ours and still good."""
        # It asks for itself: the administrator's may have ended.
        headers = {'X-Auth-Token': token, 'X-Subject-Token': token}
        answer = requests.get(f'{self.url}/auth/tokens', headers=headers, timeout=10)
        return answer.ok

    def revoke(self, token: str) -> None:
        """End a token before its time."""
        headers = {'X-Auth-Token': self._log_in(), 'X-Subject-Token': token}
        answer = requests.delete(f'{self.url}/auth/tokens', headers=headers, timeout=10)
        answer.raise_for_status()

    def _configure(self, more: str = '') -> None:
        text = CONFIG.format(directory=self._directory)
        (self._directory / 'keystone.conf').write_text(text + more)

    def _manage(self, *words: str) -> None:
        config = str(self._directory / 'keystone.conf')
        self._environment.run(
            self._environment.program('keystone-manage'), '--config-file', config, *words
        )

    def _answers(self) -> bool:
        try:
            return requests.get(self.url, timeout=5).ok
        except requests.RequestException:
            return False

    def _log_in(self) -> str:
        user = {'name': 'admin', 'domain': {'id': 'default'}, 'password': PASSWORD}
        identity = {'methods': ['password'], 'password': {'user': user}}
        scope = {'project': {'name': 'admin', 'domain': {'id': 'default'}}}
        body = {'auth': {'identity': identity, 'scope': scope}}
        answer = requests.post(f'{self.url}/auth/tokens', json=body, timeout=10)
        answer.raise_for_status()
        return answer.headers['X-Subject-Token']

    def _ask(self, method: str, path: str, body: object) -> dict[str, dict[str, object]]:
        headers = {'X-Auth-Token': self._log_in()}
        answer = requests.request(
            method, f'{self.url}{path}', json=body, headers=headers, timeout=10
        )
        answer.raise_for_status()
        found: dict[str, dict[str, object]] = answer.json()
        return found
