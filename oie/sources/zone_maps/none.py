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

"""The zone map of hosts where zones do not tell ports apart."""

from oie.sources.zone_maps import base


class NoZoneMap(base.ZoneMap):
    """Knows no zones: only an address that one instance alone has tells the owner."""

    def is_kept_here(self) -> bool:
        """Return False: nobody needs to choose what is left over anyway."""
        return False

    def read(self) -> None:
        """Return None, which is no map, not an empty one."""
