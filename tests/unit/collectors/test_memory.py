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


"""Memory: what the host gives is always known, what the guest says only sometimes."""

import hypothesis
from hypothesis import strategies as st
import pytest

from oie import model
from oie.collectors import memory as memories
from tests import builders
from tests.unit import measuring

MIB = builders.MIB
OF = builders.definition()
sizes = st.none() | st.integers(min_value=0, max_value=2**50)


def shown(memory, **options):
    instance = builders.instance(OF, monitor=builders.monitor(OF, memory=memory))
    found = measuring.shown(measuring.collector('memory', **options), builders.snapshot(instance))
    return {name: measuring.only(values) for name, values in found.items()}


def test_missing_balloon_driver_leaves_what_the_host_knows():
    host = model.Memory(current_bytes=2 * MIB, maximum_bytes=3 * MIB, rss_bytes=1 * MIB)
    assert shown(host) == {
        'oie_instance_memory_balloon_bytes': 2 * MIB,
        'oie_instance_memory_maximum_bytes': 3 * MIB,
        'oie_instance_memory_rss_bytes': 1 * MIB,
    }


def test_a_guest_with_a_driver_tells_everything_in_bytes():
    found = shown(builders.memory())
    assert found['oie_instance_memory_guest_available_bytes'] == 3900 * MIB
    assert found['oie_instance_memory_guest_usable_bytes'] == 2900 * MIB
    assert found['oie_instance_memory_guest_unused_bytes'] == 1900 * MIB
    assert found['oie_instance_memory_guest_used_bytes'] == (3900 - 2900) * MIB
    assert found['oie_instance_memory_swap_in_bytes_total'] == 3 * MIB
    assert found['oie_instance_memory_swap_out_bytes_total'] == 4 * MIB
    assert found['oie_instance_memory_major_faults_total'] == 71
    assert found['oie_instance_memory_minor_faults_total'] == 7200
    assert found['oie_instance_memory_stats_timestamp_seconds'] == builders.NOW - 3


@pytest.mark.parametrize(
    ('available', 'usable', 'unused', 'used'),
    [
        (10, 4, 1, 10 - 4),
        (10, None, 1, 10 - 1),
        (10, None, None, None),
        (None, 4, 1, None),
        (10, 11, 1, None),  # the guest writes them one by one
        (10, 10, 1, 0),
    ],
)
def test_used_follows_ceilometers_order_and_is_never_negative(available, usable, unused, used):
    memory = model.Memory(available_bytes=available, usable_bytes=usable, unused_bytes=unused)
    assert memories.used_bytes(memory) == used


@hypothesis.given(sizes, sizes, sizes)
def test_used_is_unknown_or_a_part_of_what_is_available(available, usable, unused):
    memory = model.Memory(available_bytes=available, usable_bytes=usable, unused_bytes=unused)
    used = memories.used_bytes(memory)
    assert used is None or (available is not None and 0 <= used <= available)


@pytest.mark.parametrize(
    ('optional', 'names'),
    [
        ('disk_caches', {'oie_instance_memory_guest_disk_caches_bytes'}),
        ('hugetlb', {'oie_instance_hugetlb_pgalloc_total', 'oie_instance_hugetlb_pgfail_total'}),
    ],
)
def test_optional_figures_come_when_asked_for(optional, names):
    memory = builders.memory(hugetlb_pgalloc=1, hugetlb_pgfail=2)
    with_them = shown(memory, collector__optional=optional)
    assert set(with_them) - set(shown(memory)) == names
