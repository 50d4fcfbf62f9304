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

"""Which samples say nothing and are left out; rules of the reference exporter."""

from collections.abc import Iterable


def shows_cpu(usage: float, last: float | None, minimum: float) -> bool:
    """Whether a CPU usage is worth a sample.

    It is when it reaches the minimum, when the last exported one did (one
    trailing sample), or when it differs from a last exported one that was not
    zero. Repeated zeros stay out.

    :param last: the usage of the last export, None before the first
    """
    if usage >= minimum:
        return True
    if last is None:
        return False
    return last >= minimum or (last != 0 and usage != last)


def shows_counters(counters: Iterable[int | None]) -> bool:
    """Whether any of these counters has ever moved."""
    return any(counters)


def shows_flows(entries: int, remotes: int, minimum: int) -> bool:
    """Whether a fixed IP is active enough: by its table entries or by its remotes."""
    return entries >= minimum or remotes >= minimum
