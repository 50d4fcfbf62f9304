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


"""How many units of a licence a guest needs, by its operating system."""

from collections.abc import Mapping

from oie import model
from oie.sources.guest_os import catalogue

VCPU = 'vcpu'


def units(
    licences: Mapping[str, str], found: model.GuestOs, instance: model.Instance
) -> int | None:
    """Return the units; 0 for a system that needs none, None for one that may need some.

    That is one of which nothing is known, or the family alone where some of its
    distributions need a licence.

    :param licences: ``vcpu`` or ``instance`` by distribution or family, of which the
        distribution counts first; ``unknown`` is for those of which nobody knows anything
    """
    names = [name for name in (found.distro, found.family) if name != model.UNKNOWN]
    wanted = [licences[name] for name in names or (model.UNKNOWN,) if name in licences]
    if wanted:
        return instance.billed_vcpus if wanted[0] == VCPU else 1
    return 0 if names and not _may_be_one_of(licences, found) else None


def _may_be_one_of(licences: Mapping[str, str], found: model.GuestOs) -> bool:
    """Tell whether a system of which the family alone is known may need a licence."""
    families = {catalogue.family_of(name) for name in licences if name != model.UNKNOWN}
    return found.distro == model.UNKNOWN and bool(families & {found.family, model.UNKNOWN})
