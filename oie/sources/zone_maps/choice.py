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

"""Which zone map this host keeps."""

from collections.abc import Mapping

from oie import exceptions
from oie.sources.zone_maps import base

AUTO = 'auto'
NONE = 'none'


def choose(candidates: Mapping[str, base.ZoneMap]) -> str:
    """Return the name of the first map that is kept here, else ``none``.

    "None" is said only when every candidate could be asked: to overlook a map
    would be to guess later whose a connection is.

    :raises SourceError: no map was found, and not all could be looked for
    """
    problems = []
    for name, candidate in candidates.items():
        try:
            if candidate.is_kept_here():
                return name
        except exceptions.SourceError as exc:
            problems.append(str(exc))
    if problems:
        raise exceptions.SourceError(
            f'cannot tell whether conntrack zones have owners: {"; ".join(problems)}; '
            'or set [conntrack] zone_map = none'
        )
    return NONE
