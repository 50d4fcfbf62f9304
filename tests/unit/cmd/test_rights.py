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

"""Each right that is missing is told in one line that names what is lost."""

import types

import pytest

from oie.cmd import rights

NET_ADMIN, NET_RAW, SYS_ADMIN = 1 << 12, 1 << 13, 1 << 21


def conf(*, flows=True, tables=(), optional=(), mode='', parts=()):
    return types.SimpleNamespace(
        conntrack=types.SimpleNamespace(enabled=flows, namespaces=tables),
        collector=types.SimpleNamespace(optional=optional),
        netns=types.SimpleNamespace(enabled=bool(mode), mode=mode, parts=parts),
    )


def status(bits):
    return f'Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t{bits:016x}\nCapBnd:\t0\n'


@pytest.mark.parametrize(
    ('flows', 'optional', 'bits', 'expected'),
    [
        (True, (), NET_ADMIN, []),
        (False, (), 0, []),
        (True, (), NET_RAW, [('flows', ('CAP_NET_ADMIN',))]),
        (False, ('reachability',), 0, [('reachability', ('CAP_NET_RAW', 'CAP_SYS_ADMIN'))]),
        (False, ('reachability',), NET_RAW, [('reachability', ('CAP_SYS_ADMIN',))]),
        (True, ('reachability',), NET_ADMIN | NET_RAW | SYS_ADMIN, []),
    ],
)
def test_what_is_lost_is_what_is_wanted_and_not_held(flows, optional, bits, expected):
    found = rights.lost(conf(flows=flows, optional=optional), status(bits))
    assert [(each.what, each.lacking) for each in found] == expected


@pytest.mark.parametrize(
    ('mode', 'parts', 'bits', 'lacking'),
    [
        ('setns', ('addresses',), 0, ('CAP_SYS_ADMIN',)),
        ('setns', ('addresses',), SYS_ADMIN, None),
        ('setns', ('conntrack',), SYS_ADMIN, ('CAP_NET_ADMIN',)),
        ('setns', ('conntrack',), 0, ('CAP_SYS_ADMIN', 'CAP_NET_ADMIN')),
        ('nsid', ('conntrack',), NET_ADMIN, None),
        ('nsid', (), SYS_ADMIN, ('CAP_NET_ADMIN',)),
    ],
)
def test_namespaces_want_rights_by_how_they_are_read(mode, parts, bits, lacking):
    found = rights.lost(conf(flows=False, mode=mode, parts=parts), status(bits))
    assert [each.lacking for each in found] == ([lacking] if lacking else [])


def test_tables_of_namespaces_want_the_right_to_enter_them():
    asking = conf(tables=('qrouter-*',))
    (found,) = rights.lost(asking, status(NET_ADMIN))
    assert found.lacking == ('CAP_SYS_ADMIN',)
    assert found.instead == 'leave [conntrack] namespaces empty'
    assert rights.lost(asking, status(NET_ADMIN | SYS_ADMIN)) == []


def test_line_names_what_is_lost_and_what_to_do():
    (line,) = map(str, rights.lost(conf(), status(0)))
    assert line == (
        'flows will not work: CAP_NET_ADMIN missing; add to AmbientCapabilities and '
        'CapabilityBoundingSet of the unit, or set [conntrack] enabled = false'
    )


def test_nothing_is_claimed_where_the_rights_are_unknown():
    assert rights.lost(conf(), '') == []


def test_our_own_rights_can_be_read():
    assert rights.effective(rights.read_status()) >= 0
