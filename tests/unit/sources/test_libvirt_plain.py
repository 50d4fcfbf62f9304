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

"""What the plain driver promises: a record as of bulk statistics, from single calls."""

import pytest

from oie import model
from oie.sources import domain_stats
from oie.sources import domain_xml
from oie.sources import libvirt_plain
from tests import fakes


@pytest.fixture
def host():
    return fakes.Host()


@pytest.fixture
def guest(host):
    return host.add('a', interfaces=['tap1', 'tap2'], disks=['vda', 'vdb'])


@pytest.fixture
def complete(host, guest):
    handle = fakes.Domain(host.libvirt.openReadOnly(''), guest)
    definition = domain_xml.parse(guest.describe())

    def complete():
        record = {'state.state': 1, 'state.reason': 0}
        found = libvirt_plain.complete(host.libvirt, record, handle, definition)
        assert record == {'state.state': 1, 'state.reason': 0}
        return found, definition

    return complete


def test_single_calls_make_a_complete_record(complete):
    record, definition = complete()
    found = domain_stats.monitor(record, definition.disks, 1.0)
    assert found.is_complete
    assert domain_stats.state(record) == (1, 0)
    assert found.vcpus == (model.VcpuStatistics(number=0, state=1, time_ns=7_000_000),)
    assert found.memory == model.Memory(current_bytes=24576 * 1024, maximum_bytes=24576 * 1024)
    assert [d.device.target for d in found.disks] == ['vda', 'vdb']
    disk = found.disks[0]
    assert (disk.read_requests, disk.read_bytes) == (1, 512)
    assert (disk.write_requests, disk.write_bytes) == (2, 1024)
    assert (disk.capacity_bytes, disk.allocation_bytes, disk.physical_bytes) == (
        *(1048576, 4096),
        8192,
    )
    # There is no such call for flushes and times.
    assert (disk.flush_requests, disk.read_time_ns) == (None, None)


def test_interfaces_have_eight_counters(complete):
    record, definition = complete()
    [first, second] = domain_stats.interfaces(record, definition.interfaces)
    assert (first.device.target, second.device.target) == ('tap1', 'tap2')
    assert (first.rx_bytes, first.rx_packets, first.rx_errors, first.rx_drops) == (10, 1, 0, 0)
    assert (first.tx_bytes, first.tx_packets, first.tx_errors, first.tx_drops) == (20, 2, 0, 0)


@pytest.mark.parametrize('call', ['interfaceStats', 'blockStats', 'blockInfo', 'vcpus'])
def test_a_call_that_fails_costs_only_its_own_figures(complete, guest, call):
    guest.scripts[call] = fakes.Error(fakes.NO_SUPPORT)
    record, definition = complete()
    found = domain_stats.monitor(record, definition.disks, 1.0)
    nics = domain_stats.interfaces(record, definition.interfaces)
    known = {
        'interfaceStats': nics[0].rx_bytes,
        'blockStats': found.disks[0].read_bytes,
        'blockInfo': found.disks[0].capacity_bytes,
        'vcpus': found.vcpus or None,
    }
    assert [name for name, value in known.items() if value is None] == [call]


def test_a_domain_that_left_is_an_error(complete, host, guest):
    host.remove(guest)
    with pytest.raises(fakes.Error):
        complete()
