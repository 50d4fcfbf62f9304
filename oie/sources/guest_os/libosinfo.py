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


"""The operating system that libosinfo metadata of the domain names.

Tools such as virt-install and virt-manager write it, Nova does not.
"""

from oie import model
from oie.sources.guest_os import base
from oie.sources.guest_os import catalogue


class LibosinfoDriver(base.GuestOsDriver):
    """The id in ``libosinfo:os``, such as ``http://debian.org/debian/12``."""

    def read(self, instance: model.Instance) -> model.GuestOs | None:
        """Return what the id says, None without one."""
        return catalogue.describe(instance.definition.libosinfo_id)
