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

"""Readers are made where an option wants them, and fill fields that there are."""

import dataclasses

from oie import model
from oie import plugins
from oie.cmd import wiring
from oie.sources import reachability
from tests.unit import measuring

OFF = {'conntrack__enabled': False}


def test_probes_are_made_only_on_demand():
    assert 'probes' not in wiring.readers(measuring.options(**OFF))
    made = wiring.readers(measuring.options(**OFF, collector__optional='reachability'))
    assert isinstance(made['probes'], reachability.ReachabilitySource)


def test_sources_are_named_after_fields_of_the_snapshot():
    fields = {field.name for field in dataclasses.fields(model.Snapshot)}
    assert set(plugins.names(wiring.SOURCES)) <= fields
