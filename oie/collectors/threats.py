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

"""Contacts with listed addresses, the lists themselves, and addresses of the host on them."""

from collections.abc import Iterator
import dataclasses
import functools
import operator

from oie import model
from oie.collectors import base

# Lists whose series the reference exporter has; others get theirs in the same way.
KNOWN_LISTS = ('tor_exit', 'tor_relay', 'spamhaus', 'emergingthreats', 'customlist')

_FEED = 'the feed of the list'
_MATCH = 'distinct peers of the connection tracking table, looked up in the list'


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ListMeters:
    """The meters of one list; their names begin with the name of the list."""

    contact: model.Meter
    active: model.Meter
    entries: model.Meter
    succeeded_at: model.Meter
    seconds: model.Meter
    errors: model.Meter
    fresh: model.Meter
    held: model.Meter
    rejected: model.Meter

    def all(self) -> tuple[model.Meter, ...]:
        """Return every meter of the list."""
        return tuple(getattr(self, field.name) for field in dataclasses.fields(self))


def _meter(
    name: str, kind: model.Kind, help: str, unit: str = '1', source: str = _FEED
) -> model.Meter:
    return model.Meter(prometheus=name, unit=unit, kind=kind, help=help, source=source)


@functools.cache
def meters_of(name: str) -> ListMeters:
    """Return the meters of a list by its name."""
    gauge, counter = model.Kind.GAUGE, model.Kind.CUMULATIVE
    return ListMeters(
        contact=_meter(
            f'oie_{name}_contact',
            counter,
            f'Contacts of the instance with addresses of the list {name}, summed up over all '
            'intervals: a lasting contact counts once in each.',
            source=_MATCH,
        ),
        active=_meter(
            f'oie_{name}_contact_active',
            gauge,
            f'Distinct pairs of a fixed IP of the instance and an address of the list {name} '
            'in the last interval.',
            source=_MATCH,
        ),
        entries=_meter(f'oie_{name}_entries', gauge, f'Entries of the list {name} in use.'),
        succeeded_at=_meter(
            f'oie_{name}_refresh_last_success_timestamp_seconds',
            gauge,
            f'Unix time at which the list {name} was last had or confirmed; 0 before the first '
            'time.',
            's',
        ),
        seconds=_meter(
            f'oie_{name}_refresh_duration_seconds',
            gauge,
            f'How long the last good refresh of the list {name} took.',
            's',
        ),
        errors=_meter(
            f'oie_{name}_refresh_errors_total',
            counter,
            f'Refreshes of the list {name} that failed; the last good list stayed in use.',
        ),
        fresh=_meter(
            f'oie_{name}_fresh',
            gauge,
            f'Whether the list {name} was had or confirmed within the last two refresh intervals.',
        ),
        held=_meter(
            f'oie_{name}_held',
            gauge,
            f'Whether a suddenly much smaller or larger list {name} waits for confirmation.',
        ),
        rejected=_meter(
            f'oie_{name}_rejected_entries',
            gauge,
            f'Entries that were left out of, or mended in, the list {name} in use, by reason.',
        ),
    )


HOST_LISTED = _meter(
    'oie_host_threat_listed',
    model.Kind.GAUGE,
    'An address of this host stands on a list.',
    source='rtnetlink, looked up in the lists',
)
HOST_READ = _meter(
    'oie_host_threat_addresses_known',
    model.Kind.GAUGE,
    'Whether the addresses of this host could be read and looked up.',
    source='rtnetlink',
)
LOG_LINES = _meter(
    'oie_threat_log_lines_total',
    model.Kind.CUMULATIVE,
    'Lines written to the threat log.',
    source='our own counter',
)
LOG_DROPPED = _meter(
    'oie_threat_log_dropped_total',
    model.Kind.CUMULATIVE,
    'Lines that were not written to the threat log, by reason.',
    source='our own counter',
)
LOG_WRITABLE = _meter(
    'oie_threat_log_writable',
    model.Kind.GAUGE,
    'Whether the last attempt to write to the threat log succeeded.',
    source='write(2)',
)
CONTACTS = model.Meter(
    ceilometer='oie.threat.contacts',
    field='contacts',
    unit='contact',
    kind=model.Kind.CUMULATIVE,
    help='Contacts of the instance with addresses of the list, summed up over all intervals.',
    source=_MATCH,
)
CONTACTS_ACTIVE = model.Meter(
    ceilometer='oie.threat.contacts.active',
    field='contacts_active',
    unit='contact',
    kind=model.Kind.GAUGE,
    help='Distinct pairs of a fixed IP of the instance and a listed address, last interval.',
    source=_MATCH,
)


class ThreatsCollector(base.Collector):
    """Who is in touch with listed addresses, and how the lists are."""

    NEEDS = frozenset({'threats'})
    COLUMNS = {
        base.Resource.CONTACTS: (
            (CONTACTS, operator.attrgetter('total')),
            (CONTACTS_ACTIVE, operator.attrgetter('active')),
        )
    }
    METERS = (
        *(meter for name in KNOWN_LISTS for meter in meters_of(name).all()),
        HOST_LISTED,
        HOST_READ,
        LOG_LINES,
        LOG_DROPPED,
        LOG_WRITABLE,
    )

    def collect(
        self, previous: model.Snapshot | None, current: model.Snapshot, notes: base.Notes
    ) -> Iterator[model.Family]:
        """Give the lists at any time, contacts of the instances that have had some."""
        threats = current.threats
        if threats is None:
            return
        by_list: dict[str, list[model.Contacts]] = {each.name: [] for each in threats.lists}
        for contacts in threats.contacts:
            by_list[contacts.list].append(contacts)
        for each in threats.lists:
            yield from _list(each)
            yield from _contacts(meters_of(each.name), by_list[each.name], notes)
        if threats.log is not None:
            yield from _log(threats.log)
        if threats.looks_at_host:
            yield from base.single(HOST_READ, int(threats.host is not None))
        yield from base.family(
            HOST_LISTED,
            (
                (model.Labels.of(list=each.list, ip=each.ip, family=each.family), 1)
                for each in threats.host or ()
            ),
        )


def _contacts(
    meters: ListMeters, contacts: list[model.Contacts], notes: base.Notes
) -> Iterator[model.Family]:
    labelled = [(_labels(each, notes), each) for each in contacts]
    active = ((labels, each.active) for labels, each in labelled if each.active)
    yield from base.family(meters.active, active)
    yield from base.family(meters.contact, ((labels, each.total) for labels, each in labelled))


def _labels(contacts: model.Contacts, notes: base.Notes) -> model.Labels:
    """Return the labels of an instance and a direction, the same object for as long as it is."""
    made = base.noted(notes, contacts.definition, lambda _definition: {})
    labels: model.Labels | None = made.get(contacts.direction)
    if labels is None:
        labels = contacts.definition.labels.extended(direction=contacts.direction)
        made[contacts.direction] = labels
    return labels


def _list(each: model.ThreatList) -> Iterator[model.Family]:
    """Give the telemetry of one list, before its first success too, as the reference does."""
    meters = meters_of(each.name)
    yield from base.single(meters.entries, each.entries)
    yield from base.single(meters.succeeded_at, int(each.succeeded_at or 0))
    yield from base.single(meters.seconds, base.round5(each.seconds or 0.0))
    yield from base.single(meters.errors, each.errors)
    yield from base.single(meters.fresh, int(each.is_fresh))
    yield from base.single(meters.held, int(each.is_held))
    rejected = sorted(each.rejected.items())
    yield from base.family(
        meters.rejected, ((model.Labels.of(reason=reason), n) for reason, n in rejected)
    )


def _log(health: model.ThreatLogHealth) -> Iterator[model.Family]:
    yield from base.single(LOG_LINES, health.lines)
    yield from base.single(LOG_WRITABLE, int(health.is_writable))
    dropped = sorted(health.dropped.items())
    yield from base.family(
        LOG_DROPPED, ((model.Labels.of(reason=reason), n) for reason, n in dropped)
    )
