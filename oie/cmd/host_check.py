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

"""The rows of ``oie-status host check``: what works here, and what to do about the rest."""

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import dataclasses
import logging
import time
from typing import Protocol

from oslo_config import cfg

from oie import config
from oie import exceptions
from oie import model
from oie.cmd import check_table
from oie.cmd import host_access
from oie.cmd import host_agents
from oie.cmd import host_disks
from oie.cmd import host_flows
from oie.cmd import host_namespaces
from oie.cmd import host_probes
from oie.cmd import wiring
from oie.sources import calls

# How many domains a row names before it says how many more there are.
NAMED = 5
# The versions of libvirt and QEMU come after the instances; nobody waits long for them.
FACTS_SECONDS = 1.0

OK, INFO = check_table.Result.OK, check_table.Result.INFO
WARNING, FAILURE = check_table.Result.WARNING, check_table.Result.FAILURE
Row = check_table.Row


class Source(Protocol):
    """What we ask of the source of instances."""

    def read(self) -> model.Reading[tuple[model.Instance, ...]]:
        """Return the instances, or the error."""

    def hypervisor(self) -> model.Hypervisor:
        """Return how well the hypervisor answers."""


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """What one reading of libvirt gave, and what was logged meanwhile."""

    reading: model.Reading[tuple[model.Instance, ...]]
    hypervisor: model.Hypervisor
    said: tuple[str, ...] = ()

    @property
    def instances(self) -> tuple[model.Instance, ...]:
        """The instances that were read."""
        return self.reading.value


def rows(conf: cfg.ConfigOpts, source: Source, deadline: float) -> Iterator[Row]:
    """Give all rows; nothing is waited for past the deadline.

    :param deadline: on the monotonic clock
    """
    # Lists of more than instances say little of libvirt, and may be refused.
    pollsters = {
        name: each for name, each in wiring.pollsters().items() if each.needs == {'instances'}
    }
    path = conf.exporter.socket_path
    addresses = conf.exporter.listen_address
    # All are asked at the same time, so that one which hangs costs the others nothing.
    bounded = calls.Calls(7 + len(addresses))
    looking = bounded.start('libvirt', lambda _call: look(source))
    asking = bounded.start(
        'socket', lambda _call: host_access.ask_pollsters(path, tuple(pollsters))
    )
    tracking = bounded.start('conntrack', lambda _call: host_flows.table(conf))
    probing = bounded.start('probes', lambda _call: host_probes.rows(conf))
    entering = bounded.start('namespaces', lambda _call: host_namespaces.rows(conf))
    inspecting = bounded.start('disks', lambda _call: host_disks.rows(conf))
    admitted = bounded.start('agents', lambda _call: host_agents.rows(conf))
    endpoints = [(each, bounded.start('endpoint', _endpoint(each))) for each in addresses]
    yield host_access.user()
    found = _wait(looking, deadline, Look(_unanswered(), model.Hypervisor(uri=conf.libvirt.uri)))
    yield _host_name(conf, found.hypervisor)
    has_instances = wiring.needs_instances(wiring.collectors(conf).values())
    yield libvirt(found) if has_instances else _unneeded('libvirt')
    if has_instances and not found.reading.error:
        yield from guests(conf, found)
    unread = Row(host_flows.NAME, WARNING, 'no answer', host_flows.ADVICE)
    yield _wait(tracking, deadline, unread)
    unprobed = Row(host_probes.NAME, WARNING, 'no answer', host_probes.ADVICE)
    yield from _wait(probing, deadline, (unprobed,))
    unentered = Row(host_namespaces.NAME, WARNING, 'no answer', host_namespaces.ADVICE)
    yield from _wait(entering, deadline, (unentered,))
    uninspected = Row(host_disks.NAME, WARNING, 'no answer', host_disks.ADVICE)
    yield from _wait(inspecting, deadline, (uninspected,))
    unasked = Row(host_agents.NAME, WARNING, 'no answer', host_agents.ADVICE)
    yield from _wait(admitted, deadline, (unasked,))
    answers = _wait(asking, deadline, host_access.Answers(error='no answer', is_served=True))
    polled = host_access.pollsters(answers, _snapshot(conf, found), pollsters)
    yield polled if has_instances else _unneeded(polled.check)
    yield host_access.socket_place(conf, is_served=answers.is_served)
    yield host_access.socket_group(conf)
    yield host_access.suspects(conf)
    for address, call in endpoints:
        late = Row(f'Endpoint {address}', FAILURE, 'no answer', 'See what listens there.')
        yield _wait(call, deadline, late)
    yield from host_access.kernel(conf)


def _unneeded(name: str) -> Row:
    return Row(name, INFO, 'not needed: no collector of [collector] enabled is about instances')


def _endpoint(address: config.Endpoint) -> Callable[[calls.Call[Row]], Row]:
    return lambda _call: host_access.endpoint(address)


def _wait(call: calls.Call[calls.T], deadline: float, late: calls.T) -> calls.T:
    try:
        return call.wait(max(0.0, deadline - time.monotonic()))
    except exceptions.SourceTimeout:
        return late


def _unanswered() -> model.Reading[tuple[model.Instance, ...]]:
    return model.Reading(value=(), read_at=None, seconds=0.0, error='no answer in time')


def _snapshot(conf: cfg.ConfigOpts, found: Look) -> model.Snapshot | None:
    if found.reading.error:
        return None
    return model.Snapshot(
        taken_at=time.time(), hostname=wiring.hostname(conf), instances=found.reading
    )


# --- one look -----------------------------------------------------------------


def look(source: Source) -> Look:
    """Read libvirt once, as a cycle of the exporter does."""
    with _heard() as said:
        reading = source.read()
    waited = time.monotonic() + FACTS_SECONDS
    while not (source.hypervisor().version or reading.error or time.monotonic() > waited):
        time.sleep(0.02)
    return Look(reading, source.hypervisor(), tuple(said))


class _Ear(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@contextlib.contextmanager
def _heard() -> Iterator[list[str]]:
    """Give what the sources log meanwhile, which nobody else shall print."""
    log, ear = logging.getLogger('oie.sources'), _Ear()
    before = log.propagate
    log.addHandler(ear)
    log.propagate = False
    try:
        yield ear.said
    finally:
        log.removeHandler(ear)
        log.propagate = before


# --- what it says -------------------------------------------------------------


def _host_name(conf: cfg.ConfigOpts, hypervisor: model.Hypervisor) -> Row:
    whence = '[DEFAULT] host' if conf.host else 'the name that the system has'
    theirs = hypervisor.hostname
    shown = wiring.hostname(conf)
    detail = f'{shown} ({whence})'
    if theirs and theirs.partition('.')[0] != shown.partition('.')[0]:
        detail += f'; libvirt says {theirs}'
    return Row('Host name', INFO, detail, 'It must be the [DEFAULT] host of Nova and Ceilometer.')


def libvirt(found: Look) -> Row:
    """Tell whether libvirt answers, how soon, and how many domains it has."""
    name, reading, hypervisor = 'libvirt', found.reading, found.hypervisor
    if reading.error:
        advice = (
            'Does libvirtd or virtqemud run, and is [libvirt] uri right? May this user use its '
            'read-only socket? In a container mount the directory /run/libvirt.'
        )
        return Row(name, FAILURE, f'{hypervisor.uri}: {reading.error}', advice)
    version = f'libvirt {hypervisor.libvirt_version or "of unknown version"}'
    if hypervisor.type:
        version += f', {hypervisor.type} {hypervisor.version or "of unknown version"}'
    states = hypervisor.domains_by_state
    by_state = ', '.join(f'{number} {state}' for state, number in sorted(states.items()))
    detail = (
        f'{version} at {hypervisor.uri}; {sum(states.values())} active domains'
        f'{f" ({by_state})" if by_state else ""}, read in {reading.seconds:.2f} s'
    )
    return Row(name, OK, detail)


def guests(conf: cfg.ConfigOpts, found: Look) -> Iterator[Row]:
    """Tell how completely the domains can be read, and whose they are."""
    failed = sum(found.hypervisor.domain_errors.get(reason, 0) for reason in ('error', 'parse'))
    if failed:
        detail = f'{failed} could not be read: {_some(found.said or ("no reason given",))}'
        advice = 'They are missing from every output; the reason says why.'
        yield Row('Domains', WARNING, detail, advice)
    yield read_only(found)
    yield statistics(conf, found)
    yield metadata(conf, found)


def read_only(found: Look) -> Row:
    """Tell whether a read-only connection gives all that is needed."""
    name, instances = 'Read-only access', found.instances
    if not instances:
        return Row(name, INFO, 'no active domain to try it on')
    given: dict[str, bool] = collections.defaultdict(bool)
    for instance in instances:
        for group, is_given in _groups(instance):
            given[group] |= is_given
    missing = [group for group, is_given in given.items() if not is_given]
    if missing:
        detail = f'no domain gave its {" or ".join(missing)}'
        advice = 'Look for rules of libvirt that deny it: access_drivers, polkit.'
        return Row(name, WARNING, detail, advice)
    return Row(name, OK, f'the connection is read-only and gives {", ".join(given)}')


def _groups(instance: model.Instance) -> Iterator[tuple[str, bool]]:
    """Give what this domain has and whether it was read; busy monitors say nothing of rights."""
    yield 'CPU time', instance.cpu_time_ns is not None
    if any(device.target for device in instance.definition.interfaces):
        yield 'interfaces', any(nic.rx_bytes is not None for nic in instance.interfaces)
    monitor = instance.monitor
    if monitor is None or not monitor.is_complete:
        return
    yield 'vCPUs', bool(monitor.vcpus)
    yield 'memory', monitor.memory.current_bytes is not None
    if instance.definition.disks:
        yield 'disks', any(disk.read_requests is not None for disk in monitor.disks)


def statistics(conf: cfg.ConfigOpts, found: Look) -> Row:
    """Tell of how many domains everything came, and what keeps the others."""
    name, instances = 'Statistics', found.instances
    incomplete = [instance for instance in instances if not instance.is_complete]
    if not instances:
        return Row(name, INFO, 'no active domain')
    detail = f'{len(instances) - len(incomplete)} of {len(instances)} domains complete'
    if not incomplete:
        return Row(name, OK, detail)
    if found.hypervisor.domain_errors.get('suspended'):
        # Nobody held them before we asked: then the log names them.
        held = [text for instance in incomplete if (text := _held(instance))] or found.said
        detail += (
            f'; too many QEMU monitors do not answer, so the rest is not asked: {_some(held)}'
        )
        advice = 'Look for what the guests wait for: a storage outage comes first.'
        return Row(name, FAILURE, detail, advice)
    late = f'no answer within {conf.libvirt.monitor_timeout:g} s'
    why = (_held(i) or f'{i.definition.uuid}: {_lack(i, late)}' for i in incomplete)
    advice = (
        'virsh -r domcontrol DOMAIN shows what holds it; a hanging storage comes first. '
        'Meanwhile oie shows what needs no monitor.'
    )
    return Row(name, WARNING, f'{detail}; {_some(why)}', advice)


def _held(instance: model.Instance) -> str:
    """Return what has occupied the domain and for how long, empty when nothing did."""
    control = instance.control
    if control is None or control.state == model.ControlState.OK:
        return ''
    what = 'a job keeps it' if control.state == model.ControlState.JOB else 'its monitor is'
    return f'{instance.definition.uuid}: {what} busy for {control.busy_ms / 1000:.1f} s'


def _lack(instance: model.Instance, late: str) -> str:
    return late if instance.monitor is None else 'a part is missing'


def metadata(conf: cfg.ConfigOpts, found: Look) -> Row:
    """Tell how many domains carry Nova metadata, and of which version."""
    name = 'Nova metadata'
    states = found.hypervisor.domains_by_state
    here = sum(states.values()) - states.get('incoming', 0) - states.get('outgoing', 0)
    if not here:
        return Row(name, INFO, 'no active domain')
    versions = collections.Counter(
        instance.definition.metadata_namespace
        for instance in found.instances
        if instance.definition.has_nova_metadata
    )
    with_it = sum(versions.values())
    spaces = ', '.join(f'{number} of namespace {v}' for v, number in sorted(versions.items()))
    detail = f'{with_it} of {here} domains{f": {spaces}" if spaces else ""}'
    if with_it == here:
        return Row(name, OK, detail)
    kept = conf.collector.without_nova_metadata == 'keep'
    detail += f'; the others are {"shown without project and user" if kept else "left out"}'
    advice = 'Set [collector] without_nova_metadata to what you want of guests beside Nova.'
    return Row(name, WARNING if not with_it else INFO, detail, advice)


def _some(texts: Iterable[str]) -> str:
    """Return the first few and how many more there are."""
    known = list(texts)
    shown = '; '.join(known[:NAMED])
    return f'{shown}; and {len(known) - NAMED} more' if len(known) > NAMED else shown
