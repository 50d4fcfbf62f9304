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

"""Two readings of a counter → what happened in between."""

from oie import model


def cpu_percent(before: model.Instance | None, after: model.Instance) -> float | None:
    """Return the CPU time used between two readings, 100 = all vCPUs busy.

    The divisor is the live vCPU count. The CPU time includes the emulator and
    the I/O threads of QEMU, so the result is clamped to 0..100, as the
    reference exporter does. None without two distinct readings of one QEMU
    process, or when the counter went back.
    """
    if before is None or before.domain_id != after.domain_id or not after.vcpus:
        return None
    if before.cpu_time_ns is None or after.cpu_time_ns is None:
        return None
    elapsed_ns = after.read_clock_ns - before.read_clock_ns
    used_ns = after.cpu_time_ns - before.cpu_time_ns
    if elapsed_ns <= 0 or used_ns < 0:
        return None
    return min(100.0, used_ns / elapsed_ns * 100 / after.vcpus)
