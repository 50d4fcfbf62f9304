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


"""What names of namespaces tell, where they are Neutron's."""

import pytest

from oie.sources import netns_names

UUID = '1b5c74fb-56a8-4fbc-8e4e-c30f620b11bd'


@pytest.mark.parametrize(
    ('name', 'kind'),
    [
        (f'qrouter-{UUID}', 'router'),
        (f'snat-{UUID}', 'snat'),
        (f'fip-{UUID}', 'fip'),
        (f'qdhcp-{UUID}', 'dhcp'),
        (f'ovnmeta-{UUID}', 'metadata'),
    ],
)
def test_prefix_tells_what_it_is(name, kind):
    assert netns_names.kind_and_uuid(name) == (kind, UUID)


@pytest.mark.parametrize(
    'name',
    ['', 'qrouter', 'qrouter-', f'x-qrouter-{UUID}', f'qrouter-{UUID}x', f'qrouter-{UUID}\n',
     f'qrouter-{UUID[:-1]}g', f'vpn-{UUID}', UUID, f'qrouter-{UUID.upper()}'],
)  # fmt: skip
def test_any_other_name_tells_nothing(name):
    assert netns_names.kind_and_uuid(name) == ('other', '')
