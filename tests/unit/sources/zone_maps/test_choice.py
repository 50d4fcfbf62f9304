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

"""auto takes the map that is here, and says "none" only when it is sure."""

import pytest

from oie import exceptions
from oie.sources.zone_maps import choice
from oie.sources.zone_maps import none
from tests.unit.sources.zone_maps import fakes

HERE = fakes.FakeMap({})
NOT_HERE = fakes.FakeMap({}, is_here=False)
UNCLEAR = fakes.FakeMap({}, is_here=fakes.unreadable('permission denied'))


def test_first_map_that_is_here_is_chosen():
    assert choice.choose({'none': none.NoZoneMap(), 'a': NOT_HERE, 'b': HERE, 'c': HERE}) == 'b'


def test_host_without_maps_has_none():
    assert choice.choose({'none': none.NoZoneMap(), 'a': NOT_HERE}) == 'none'


def test_map_behind_one_that_cannot_be_asked_is_chosen():
    assert choice.choose({'a': UNCLEAR, 'b': HERE}) == 'b'


def test_map_that_cannot_be_asked_is_not_none():
    with pytest.raises(exceptions.SourceError, match=r'permission denied; or set \[conntrack\]'):
        choice.choose({'none': none.NoZoneMap(), 'a': UNCLEAR, 'b': NOT_HERE})


def test_no_zone_map_reads_no_map_which_is_not_an_empty_one():
    assert none.NoZoneMap().read() is None
