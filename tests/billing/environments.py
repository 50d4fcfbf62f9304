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

"""Ceilometer, Gnocchi and CloudKitty, each in a virtual environment of its own.

Their requirements contradict ours and each other's. The environments lie in the directory that
``OIE_BILLING_ENVS`` names, by default in ``.tox/billing-envs-*``, and are made when they are not
there, so a second run finds them. The name of the default directory changes with what is asked.
"""

from collections.abc import Sequence
import concurrent.futures
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

from tests.functional import processes

ROOT = pathlib.Path(__file__).parents[2]

REQUIREMENTS = {
    'ceilometer': ('ceilometer>=27,<28', 'setuptools<81'),
    # setuptools: Gnocchi imports pkg_resources.
    'gnocchi': ('gnocchi[postgresql,file]>=4.7,<4.8', 'waitress>=3,<4', 'setuptools<81'),
    'cloudkitty': (
        'cloudkitty>=25,<26',
        'python-cloudkittyclient>=6,<7',
        'waitress>=3,<4',
        'setuptools<81',
    ),
}
_MARKER = 'complete'


class Environment:
    """One virtual environment and what is started in it."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    @property
    def python(self) -> str:
        return str(self.path / 'bin/python')

    def program(self, name: str) -> str:
        """Return the path of a program that was installed."""
        return str(self.path / 'bin' / name)

    def module(self, name: str) -> tuple[str, ...]:
        """Return the words that run a module of these tests under this Python."""
        return self.python, '-m', f'tests.billing.{name}'

    def run(self, *words: str, stdin: str = '', timeout: float = 120.0, **more: str) -> str:
        """Return what a program printed.

        :param more: environment variables
        :raises LabError: it failed or took too long
        """
        try:
            done = subprocess.run(
                words,
                input=stdin,
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=timeout,
                env={**processes.environment(), **more},
                check=False,
            )
        except subprocess.TimeoutExpired as exc:
            raise processes.LabError(f'no end in {timeout} s: {" ".join(words)}') from exc
        if done.returncode:
            raise processes.LabError(f'{" ".join(words)}: {done.stderr[-3000:]}')
        return done.stdout


def directory() -> pathlib.Path:
    """Return where the environments are or shall be."""
    named = os.environ.get('OIE_BILLING_ENVS')
    if named:
        return pathlib.Path(named)
    asked = repr((sorted(REQUIREMENTS.items()), sys.version_info[:2])).encode()
    return ROOT / f'.tox/billing-envs-{hashlib.sha256(asked).hexdigest()[:12]}'


def make_all() -> dict[str, Environment]:
    """Return the environments by name; those that are missing are made, all at once.

    :raises LabError: one could not be made
    """
    base = directory()
    with concurrent.futures.ThreadPoolExecutor(len(REQUIREMENTS)) as pool:
        made = {
            name: pool.submit(make, base / name, requirements)
            for name, requirements in REQUIREMENTS.items()
        }
    return {name: future.result() for name, future in made.items()}


def make(path: pathlib.Path, requirements: Sequence[str]) -> Environment:
    """Return the environment at a path; one that is missing is made.

    :raises LabError: it could not be made
    """
    environment = Environment(path)
    if (path / _MARKER).exists():
        return environment
    shutil.rmtree(path, ignore_errors=True)
    processes.run(sys.executable, '-m', 'venv', str(path), timeout=120)
    processes.run(environment.program('pip'), 'install', '--quiet', *requirements, timeout=600)
    (path / _MARKER).touch()
    return environment
