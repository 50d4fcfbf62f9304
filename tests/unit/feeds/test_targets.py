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


"""Lists come from addresses of the Internet."""

import ipaddress

import pytest

from oie.feeds import targets


@pytest.mark.parametrize(
    'address',
    [
        '127.0.0.1',
        '0.0.0.0',
        '10.1.2.3',
        '100.64.0.1',
        '169.254.169.254',
        '172.31.255.255',
        '192.168.1.1',
        '198.18.0.1',
        '203.0.113.7',
        '224.0.0.1',
        '255.255.255.255',
        '::',
        '::1',
        'fd00:ec2::254',
        'fe80::1',
        'fec0::1',
        'ff02::1',
        '2001:db8::1',
        # Addresses that stand for others: mapped, NAT64, 6to4, Teredo.
        '::ffff:127.0.0.1',
        '64:ff9b::a9fe:a9fe',
        '64:ff9b:1::808:808',
        '2002:a00:1::1',
        '2001:0:808:808:0:ffff:f5ff:fffe',
    ],
)
def test_special_addresses_are_told(address):
    assert targets.is_special(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    'address',
    ['5.6.7.8', '100.128.0.1', '172.32.0.1', '2a00:1::1', '::ffff:5.6.7.8', '64:ff9b::506:708'],
)
def test_all_others_are_good(address):
    assert not targets.is_special(ipaddress.ip_address(address))
