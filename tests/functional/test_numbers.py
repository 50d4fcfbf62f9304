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

"""The numbers of libvirt that we wrote down ourselves are libvirt's."""

from collections.abc import Sequence
import enum

import libvirt
import pytest

from oie import model
from oie.collectors import disk
from oie.collectors import job
from oie.sources import libvirt_events

ENUMS: tuple[tuple[type[enum.IntEnum], str], ...] = (
    (model.DomainState, 'VIR_DOMAIN_'),
    (model.PausedReason, 'VIR_DOMAIN_PAUSED_'),
    (model.ControlState, 'VIR_DOMAIN_CONTROL_'),
)
LISTS = (
    (tuple(event for event, _ in libvirt_events.LIFECYCLE), 'VIR_DOMAIN_EVENT_'),
    *(
        (details, f'VIR_DOMAIN_EVENT_{event.upper()}_')
        for event, details in libvirt_events.LIFECYCLE
    ),
    (job.OPERATIONS, 'VIR_DOMAIN_JOB_OPERATION_'),
    (job.TYPES, 'VIR_DOMAIN_JOB_'),
    (disk.BLOCK_JOB_TYPES, 'VIR_DOMAIN_BLOCK_JOB_TYPE_'),
)


@pytest.mark.parametrize(('numbers', 'prefix'), ENUMS)
def test_enumeration_has_the_numbers_of_libvirt(numbers: type[enum.IntEnum], prefix: str) -> None:
    ours = {_squeezed(number.name): number.value for number in numbers}

    theirs = {_squeezed(name): value for name, value in _constants(prefix).items()}

    assert ours.items() <= theirs.items()


@pytest.mark.parametrize(('names', 'prefix'), LISTS)
def test_list_is_in_the_order_of_libvirt(names: Sequence[str], prefix: str) -> None:
    theirs = _constants(prefix)

    numbers = [theirs.get(name.upper()) for name in names]

    # A module older than the last names of a list does not know them.
    known = [number for number in numbers if number is not None]
    assert numbers == [*known, *[None] * (len(names) - len(known))]
    assert known == list(range(len(known)))
    assert len(known) > len(names) / 2


def _constants(prefix: str) -> dict[str, int]:
    return {
        name.removeprefix(prefix): value
        for name, value in vars(libvirt).items()
        if name.startswith(prefix) and isinstance(value, int)
    }


def _squeezed(name: str) -> str:
    """Return a name without underscores: libvirt writes IOERROR, we IO_ERROR."""
    return name.replace('_', '')
