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

"""What the rounds know of running guests, and how many fixed IPs ended how."""

from tests import builders
from tests.unit import measuring

COLLECTOR = measuring.collector('reachability', collector__optional='reachability')
OF = builders.definition(
    addresses=(builders.address(), builders.address(ip='2001:db8::5', family='ipv6'))
)


def shown(*probes, **results):
    snapshot = builders.snapshot(reachability=builders.probes(*probes, **results))
    return measuring.shown(COLLECTOR, snapshot)


def by(label, values):
    return {dict(labels)[label]: value for labels, value in values.items()}


def test_answers_have_a_time_and_silence_has_none():
    found = shown(
        builders.probe(OF, seconds=0.25),
        builders.probe(OF, address=OF.addresses[1], is_reachable=False, seconds=None),
    )
    assert by('ip', found['oie_instance_reachable']) == {'10.0.0.5': 1, '2001:db8::5': 0}
    assert by('ip', found['oie_instance_reachable_probe_seconds']) == {'10.0.0.5': 0.25}


def test_series_have_the_labels_of_a_fixed_ip():
    [labels] = shown(builders.probe(OF))['oie_instance_reachable']
    assert labels == frozenset({*OF.labels.pairs, ('ip', '10.0.0.5'), ('family', 'ipv4')})


def test_every_result_is_counted_from_the_start():
    found = shown(reachable=7, failed=2)
    assert by('result', found['oie_host_probe_addresses']) == {
        'reachable': 7,
        'unreachable': 0,
        'ambiguous': 0,
        'no_namespace': 0,
        'failed': 2,
    }


def test_nothing_is_shown_while_nothing_is_known():
    assert measuring.shown(COLLECTOR, builders.snapshot()) == {}


def test_labels_are_the_same_objects_from_cycle_to_cycle():
    notes = {}
    snapshot = builders.snapshot(reachability=builders.probes(builders.probe(OF)))
    first, second = (
        next(iter(COLLECTOR.collect(None, snapshot, notes))).samples[0][0] for _ in range(2)
    )
    assert first is second
