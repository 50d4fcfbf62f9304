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


"""Files that hold whole outputs; their diff is the review.

``OIE_UPDATE_GOLDEN=1`` writes them anew.
"""

import os
import pathlib

DIRECTORY = pathlib.Path(__file__).parents[1] / 'data' / 'golden'


def check(name: str, produced: bytes) -> None:
    """Compare with the golden file of this name, or write it when asked to."""
    path = DIRECTORY / name
    if os.environ.get('OIE_UPDATE_GOLDEN') == '1':
        path.write_bytes(produced)
    stored = path.read_bytes() if path.exists() else b''
    assert produced.decode().splitlines() == stored.decode().splitlines(), (
        f'{path.name} differs; if it should: OIE_UPDATE_GOLDEN=1 tox -e py3'
    )
    assert produced == stored
