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

"""Network namespaces that are gone after a test."""

import secrets
from typing import TypeVar

from tests.functional import flows
from tests.functional import processes

_Own = TypeVar('_Own', bound='OwnNamespaces')


class OwnNamespaces:
    """Network namespaces of a block, deleted at its end, the last one first.

    :ivar run: what names may begin with that nobody else has
    """

    def __init__(self) -> None:
        self.run = f'{flows.PREFIX}{secrets.token_hex(3)}'
        self.names: list[str] = []

    def __enter__(self: _Own) -> _Own:
        processes.end_later(self, self.close)
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Delete what is left."""
        processes.ended(self)
        while self.names:
            self.delete(self.names[-1])

    def make(self, name: str) -> str:
        """Return the name of a new namespace, as given."""
        processes.run('ip', 'netns', 'add', name)
        self.names.append(name)
        return name

    def delete(self, name: str) -> None:
        """Delete a namespace, at once."""
        self.names.remove(name)
        processes.run('ip', 'netns', 'delete', name)


def ip(name: str, arguments: str) -> str:
    """Return what ip(8) says in a namespace."""
    return processes.run('ip', '-n', name, *arguments.split())
