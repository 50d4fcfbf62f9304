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


"""When each series is there: found by hiding something from the collectors and looking what goes.

Nobody has to write it down, and nobody can forget to.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
from typing import Any

from oie import model

# What is hidden from the collectors → when what then lacks is there.
FIELDS = {
    'flows': 'while connection tracking is read',
    'flow_health': 'with ``[conntrack] enabled``',
    'reachability': 'once a round of probes has ended',
    'usage': 'once the ledger has written',
    'ledger': 'with ``[ledger] enabled``',
    'guest_os': 'with ``[guest_os] enabled``',
    'guest_os_health': 'with ``[guest_os] enabled``',
    'namespaces': 'while namespaces are read',
    'namespaces_health': 'with ``[netns] enabled``',
    'threats': 'while the list is in ``[threats] enabled_feeds``',
}
OF_THREATS = {
    'contacts': 'once there was a contact',
    'log': 'with ``[threat_log] enabled``',
    'looks_at_host': 'with ``[host_threats] enabled``',
    'host': 'while an address of this host is on a list',
}
# They say more than that some list is enabled.
OWN_SWITCH = frozenset({OF_THREATS['log'], OF_THREATS['looks_at_host'], OF_THREATS['host']})
OF_INSTANCES = {
    'control': 'while libvirt tells of the monitor',
    'job': 'while a job runs',
    'last_job': 'after a job',
    'disk_errors': 'while a disk has an error',
    'block_jobs': 'while a copy or a commit runs',
    'lifecycle_events': 'after such an event',
}
IDLE = 'unless idle (:doc:`prometheus`)'
MONITOR = 'once QEMU has answered'
# Of each instance, what counts how busy it is.
BUSY = ('interfaces', 'virtual_functions')

Nodes = tuple[model.Snapshot, model.Snapshot]


def hidings(before: model.Snapshot, now: model.Snapshot) -> Iterator[tuple[str, Nodes]]:
    """Give the sentence and a node, before and now, from which one thing is hidden."""
    for name, sentence in FIELDS.items():
        yield sentence, (before, _without(now, name))
    for name, sentence in OF_THREATS.items():
        yield sentence, (before, _replace(now, threats=_without(now.threats, name)))
    for name, sentence in OF_INSTANCES.items():
        yield sentence, (before, _each(now, lambda each, name=name: _without(each, name)))
    yield MONITOR, (before, _each(now, lambda each: _replace(each, monitor=None)))
    contacts = _zeros(now.threats.contacts)
    quiet = _replace(
        _each(now, _idle),
        flows=_zeros(now.flows),
        threats=_replace(now.threats, contacts=contacts),
    )
    yield IDLE, (quiet, quiet)


def conditions(everything: Iterable[str], seen: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Return when each series is there, in words; those not named are there always.

    :param everything: the names of all series
    :param seen: the names of those that are there although something is hidden, by sentence
    """
    found: dict[str, list[str]] = {}
    for sentence, names in seen.items():
        for name in set(everything) - set(names):
            if sentence not in found.setdefault(name, []):
                found[name].append(sentence)
    return {name: ', '.join(_told(sentences)) for name, sentences in found.items()}


def _told(sentences: list[str]) -> Iterator[str]:
    has_own_switch = not OWN_SWITCH.isdisjoint(sentences)
    for sentence in sentences:
        if not (has_own_switch and sentence == FIELDS['threats']):
            yield sentence


def _each(snapshot: model.Snapshot, change: Any) -> model.Snapshot:
    changed = tuple(change(each) for each in snapshot.instances.value)
    return _replace(snapshot, instances=_replace(snapshot.instances, value=changed))


def _idle(instance: model.Instance) -> model.Instance:
    still = {name: _zeros(getattr(instance, name)) for name in BUSY}
    if instance.monitor is not None:
        disks = _zeros(instance.monitor.disks)
        still['monitor'] = _replace(instance.monitor, disks=disks)
    return _replace(instance, **still)


def _zeros(found: Any) -> Any:
    """Return the same figures, all of them zero, and nothing active; inside of them too."""
    if type(found) in (int, float):
        return 0
    if isinstance(found, model.Labels):
        return found
    if isinstance(found, tuple):
        return tuple(_zeros(each) if dataclasses.is_dataclass(each) else each for each in found)
    if dataclasses.is_dataclass(found):
        fields = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
        still = {name: _zeros(value) for name, value in fields.items()}
        return _replace(found, **(still | dict.fromkeys({'is_active'} & still.keys(), False)))
    return found


def _without(found: Any, name: str) -> Any:
    """Return a copy whose field has its default."""
    [field] = [field for field in dataclasses.fields(found) if field.name == name]
    if field.default is not dataclasses.MISSING:
        return _replace(found, **{name: field.default})
    if field.default_factory is not dataclasses.MISSING:
        return _replace(found, **{name: field.default_factory()})
    return _replace(found, **{name: None})


def _replace(found: Any, **more: Any) -> Any:
    return dataclasses.replace(found, **more)
