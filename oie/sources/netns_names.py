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


"""What the name of a network namespace tells of it, where Neutron made it.

Source: neutron/agent/l3 (NS_PREFIX of router_info, dvr_snat_ns, dvr_fip_ns), agent/linux/dhcp.py
and agent/ovn/metadata/agent.py.
"""

import re

from oie import model

_PREFIXES = {
    'qrouter': 'router',
    'snat': 'snat',
    'fip': 'fip',
    'qdhcp': 'dhcp',
    'ovnmeta': 'metadata',
}
_UUID = '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}'
_NAME = re.compile(f'({"|".join(_PREFIXES)})-({_UUID})')
_OTHER = 'other'


def kind_and_uuid(name: str) -> tuple[str, str]:
    """Return what a namespace is, and the uuid of the router or network that it serves.

    ``other`` and nothing if it is not Neutron's. A namespace ``fip`` has the uuid of the external
    network, ``dhcp`` and ``metadata`` that of the network, the others that of the router.
    """
    match = _NAME.fullmatch(name)
    return (_PREFIXES[match[1]], match[2]) if match else (_OTHER, '')


def info(labels: model.Labels, kind: str, uuid: str) -> model.Labels:
    """Return the labels of a namespace with what it is, and the uuid under that of which."""
    is_of_router = kind in ('router', 'snat')
    return labels.extended(
        kind=kind,
        router_id=uuid if is_of_router else '',
        network_id='' if is_of_router else uuid,
    )
