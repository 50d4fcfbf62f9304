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


"""The operating system that the image of an instance is said to hold.

Nova 2025.2 and later writes the properties of the image into the domain XML. They
say what was installed once, in the words of whoever made the image.
"""

from oie import model
from oie.sources.guest_os import base
from oie.sources.guest_os import catalogue


class NovaImageDriver(base.GuestOsDriver):
    """Properties ``os_distro``, ``os_version`` and ``os_type`` of the image."""

    def read(self, instance: model.Instance) -> model.GuestOs | None:
        """Return what the properties say, None without Nova 2025.2 or without properties."""
        properties = instance.definition.image_properties
        return catalogue.describe(
            properties.get('os_distro', ''),
            properties.get('os_version', ''),
            properties.get('os_type', ''),
        )
