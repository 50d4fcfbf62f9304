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


"""A snapshot → a page for people: what is read, how old it is, and what needs a hand.

It shows nobody's names or addresses but those of instances and namespaces with trouble, and
these only where the metrics carry them as labels.
"""

from collections import Counter
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses

from oie import model
from oie.outputs import page_markup
from oie.outputs import page_style

# Rows of one table; a page of a host in trouble must stay a page.
MOST_ROWS = 20

NAME = 'OpenStack Instance Exporter'
# What is read in every cycle; the others have a rhythm of their own and say when they are late.
_EACH_CYCLE = frozenset({'libvirt', 'conntrack', 'ledger'})
_GIVES = {
    'libvirt': 'instances',
    'conntrack': 'flows',
    'probes': 'reachability',
    'netns': 'network namespaces',
    'ledger': 'totals for billing',
    'guest_os': 'operating systems of guests',
    'projects': 'usage of projects',
    'threats': 'contacts with listed addresses',
}
_FIELDS = {
    'libvirt': 'instances',
    'conntrack': 'flows',
    'probes': 'reachability',
    'netns': 'namespaces',
    'ledger': 'usage',
    'projects': 'project_usage',
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What the page tells beside the snapshot.

    :ivar problem: why the figures must not be trusted, empty when they may
    :ivar max_age: seconds after which what is read in every cycle is late
    :ivar collectors: names of those whose series are published
    :ivar documentation: its address, empty where nobody named one
    """

    now: float
    started_at: float
    version: str
    problem: str
    max_age: float
    telemetry_path: str
    collectors: Collection[str] = ()
    documentation: str = ''


def render(snapshot: model.Snapshot | None, about: About) -> bytes:
    """Return the whole page.

    :param snapshot: None before the first cycle is done
    """
    parts = [] if snapshot is None else [*_sections(snapshot, about)]
    body = page_markup.join(
        (
            _header(snapshot, about),
            page_markup.tag('main', _alarms(snapshot, about), *parts),
            _footer(about),
        )
    )
    title = NAME if snapshot is None else f'{snapshot.hostname} - {NAME}'
    page = _PAGE.format(
        title=page_markup.text(title), icon=page_style.ICON, style=page_style.SHEET, body=body
    )
    return page.encode(errors='replace')


def _sections(snapshot: model.Snapshot, about: About) -> Iterator[page_markup.Html]:
    yield _sources(snapshot, about)
    yield _instances(snapshot, about)
    if snapshot.threats is not None:
        yield _feeds(snapshot.threats, about.now)
    if snapshot.flow_health is not None:
        yield _conntrack(snapshot, snapshot.flow_health, about.now)
    if snapshot.namespaces_health is not None or snapshot.namespaces.value is not None:
        yield _namespaces(snapshot, about)
    if snapshot.ledger is not None:
        yield _ledger(snapshot.ledger, about.now)
    if snapshot.project_usage_health is not None:
        yield _project_usage(snapshot.project_usage_health, about.now)
    if snapshot.guest_os_health is not None:
        yield _guest_os(snapshot.guest_os_health)
    yield _collectors(snapshot, about.now)


# --- the head of the page -----------------------------------------------------


def _header(snapshot: model.Snapshot | None, about: About) -> page_markup.Html:
    host = 'This host' if snapshot is None else snapshot.hostname
    state = _state('failed' if about.problem else 'ok', 'not ready' if about.problem else 'ready')
    facts: list[tuple[str, object]] = [
        ('State', state),
        ('Up for', page_markup.span(max(0.0, about.now - about.started_at))),
    ]
    if snapshot is not None:
        cycle = snapshot.cycle
        series = sum(health.series or 0 for health in cycle.groups.values())
        facts += [
            ('Last cycle', page_markup.ago(snapshot.taken_at, about.now)),
            ('It took', page_markup.span(cycle.duration_seconds)),
            ('Instances', page_markup.count(len(snapshot.instances.value))),
            ('Series', page_markup.count(series)),
            ('Cycles with errors', page_markup.count(cycle.errors)),
            ('Cycles missed', page_markup.count(cycle.missed)),
        ]
    return page_markup.tag(
        'header',
        page_markup.tag('p', f'{NAME} {about.version}'),
        page_markup.tag('h1', page_markup.name(host)),
        page_markup.terms(facts),
    )


def _alarms(snapshot: model.Snapshot | None, about: About) -> page_markup.Html:
    """Return what somebody should look at, empty when there is nothing."""
    found = [f'Not ready: {about.problem}.'] if about.problem else []
    found += [] if snapshot is None else _troubles(snapshot)
    if not found:
        return page_markup.Html()
    items = page_markup.tag('ul', *(page_markup.tag('li', line) for line in found))
    return _section('Needs attention', items, is_alarm=True)


def _troubles(snapshot: model.Snapshot) -> Iterator[str]:
    hypervisor, reloads, web = snapshot.hypervisor, snapshot.reloads, snapshot.web
    if hypervisor.stuck_calls:
        yield f'Calls into libvirt that hang: {hypervisor.stuck_calls}.'
    if hypervisor.suspects:
        yield f'Instances left alone, because QEMU did not answer: {hypervisor.suspects}.'
    if snapshot.flow_health is not None and snapshot.flow_health.is_skipped:
        yield 'Connection tracking is not read: more entries than [conntrack] max_entries.'
    if snapshot.ledger is not None and not snapshot.ledger.is_durable:
        yield 'The totals for billing would not survive a crash; the log says why.'
    log = None if snapshot.threats is None else snapshot.threats.log
    if log is not None and not log.is_writable:
        yield 'The threat log cannot be written.'
    if reloads.is_ok is False:
        yield 'The configuration files are wrong; what ran before goes on.'
    if reloads.waiting:
        yield f'Changed options that wait for a restart: {reloads.waiting}.'
    if web.config_is_ok is False:
        yield 'The web configuration file cannot be used; an older state of it holds.'
    if web.is_public_without_authentication:
        yield 'Other hosts can read this without TLS and authentication: see [exporter].'


def _footer(about: About) -> page_markup.Html:
    links = [
        (about.telemetry_path, 'Metrics'),
        ('/readyz', 'Ready?'),
        ('/healthz', 'Alive?'),
        *([(about.documentation, 'Documentation')] if about.documentation else []),
    ]
    items = (
        page_markup.tag('li', page_markup.tag('a', title, href=path)) for path, title in links
    )
    nav = page_markup.tag('nav', page_markup.tag('ul', *items), aria_label='Links')
    return page_markup.tag('footer', nav)


# --- sources ------------------------------------------------------------------


def _sources(snapshot: model.Snapshot, about: About) -> page_markup.Html:
    groups = snapshot.cycle.groups
    # What has no series of its own reads.
    rows = [
        _source(name, health, snapshot, about)
        for name, health in groups.items()
        if health.series is None
    ]
    titles = ('Source', 'State', 'Last read', 'Took')
    return _section('Sources', page_markup.table('What is read', titles, rows))


def _source(
    name: str, health: model.GroupHealth, snapshot: model.Snapshot, about: About
) -> tuple[object, ...]:
    reading = getattr(snapshot, _FIELDS.get(name, ''), None)
    error = '' if reading is None else reading.error
    word = _word(name, health, snapshot.taken_at, about)
    why = error or ('see the log' if word == 'failed' else '')
    return (
        page_markup.join(
            (
                name,
                page_markup.tag('small', _GIVES.get(name, '')),
                page_markup.tag('small', why, class_='why') if why else page_markup.Html(),
            )
        ),
        _state(word),
        page_markup.ago(health.succeeded_at, about.now),
        page_markup.span(health.seconds),
    )


def _word(name: str, health: model.GroupHealth, taken_at: float, about: About) -> str:
    """Return ``failed``, ``waiting`` for the first result, ``late`` or ``ok``."""
    oldest = about.now - about.max_age
    if not health.is_success:
        return 'failed'
    if health.succeeded_at is None:
        return 'waiting'
    is_old = name in _EACH_CYCLE and health.succeeded_at < oldest
    return 'late' if is_old or taken_at < oldest else 'ok'


def _collectors(snapshot: model.Snapshot, now: float) -> page_markup.Html:
    """Return how each collector did, folded up unless one failed."""
    groups = {name: h for name, h in snapshot.cycle.groups.items() if h.series is not None}
    failed = [name for name, health in groups.items() if not health.is_success]
    rows = [
        (
            name,
            _state('ok' if health.is_success else 'failed'),
            page_markup.count(health.series),
            page_markup.span(health.seconds),
            page_markup.ago(health.succeeded_at, now),
        )
        for name, health in sorted(groups.items(), key=lambda pair: pair[1].is_success)
    ]
    titles = ('Collector', 'State', 'Series', 'Took', 'Last made')
    about = f'{len(failed)} of {len(groups)} failed' if failed else f'all {len(groups)} are good'
    body = page_markup.table('What makes the series', titles, rows)
    attributes = {'open': ''} if failed else {}
    summary = page_markup.tag('summary', f'Collectors: {about}')
    return page_markup.tag('details', summary, body, class_='all', **attributes)


# --- instances ----------------------------------------------------------------


def _instances(snapshot: model.Snapshot, about: About) -> page_markup.Html:
    shown = snapshot.instances.value
    states = snapshot.hypervisor.domains_by_state or _counted(shown)
    stale = [instance for instance in shown if not instance.is_fresh]
    partial = [instance for instance in shown if instance.is_fresh and not instance.is_complete]
    facts = page_markup.terms(
        (
            *((state, page_markup.count(number)) for state, number in sorted(states.items())),
            ('not read just now', page_markup.count(len(stale))),
            ('read in part', page_markup.count(len(partial))),
            ('suspects', page_markup.count(snapshot.hypervisor.suspects)),
        )
    )
    # Their names are labels of these series; where these are not published, neither are they.
    listed = [*stale, *partial] if 'instance' in about.collectors else []
    rows = [_old(instance, about.now) for instance in listed[:MOST_ROWS]]
    titles = ('Domain', 'What is old', 'Last complete')
    table = page_markup.table('Old figures', titles, rows)
    return _section('Instances', facts, table, _more(len(listed)))


def _counted(instances: tuple[model.Instance, ...]) -> Mapping[str, int]:
    numbers = Counter(instance.state for instance in instances)
    known = {state.value: state.name.lower() for state in model.DomainState}
    return {known.get(state, f'state {state}'): number for state, number in numbers.items()}


def _old(instance: model.Instance, now: float) -> tuple[object, ...]:
    definition = instance.definition
    return (
        page_markup.join(
            (page_markup.name(definition.domain), page_markup.tag('small', definition.uuid))
        ),
        'what QEMU knows' if instance.is_fresh else 'everything',
        page_markup.ago(instance.completed_at, now),
    )


# --- what else is known -------------------------------------------------------


def _feeds(threats: model.Threats, now: float) -> page_markup.Html:
    lists = threats.lists
    rows = [_feed(each, now) for each in lists[:MOST_ROWS]]
    titles = ('List', 'State', 'Entries', 'Fetched')
    log = threats.log
    facts = page_markup.terms(
        (
            ('contacts now', page_markup.count(sum(each.active for each in threats.contacts))),
            (
                'own addresses listed',
                None if threats.host is None else page_markup.count(len(threats.host)),
            ),
            ('log lines', page_markup.count(log.lines) if log else None),
            ('log lines dropped', page_markup.count(sum(log.dropped.values())) if log else None),
        )
    )
    table = page_markup.table('Published lists of addresses', titles, rows)
    return _section('Threat feeds', facts, table, _more(len(lists)))


def _feed(each: model.ThreatList, now: float) -> tuple[object, ...]:
    rejected = sum(each.rejected.values())
    notes = [
        page_markup.tag('small', each.error, class_='why') if each.error else page_markup.Html(),
        page_markup.tag('small', f'left out: {page_markup.count(rejected)}')
        if rejected
        else page_markup.Html(),
    ]
    return (
        page_markup.join((page_markup.name(each.name), *notes)),
        _state(_feed_word(each)),
        page_markup.count(each.entries) if each.is_loaded else 'none yet',
        page_markup.ago(each.succeeded_at, now),
    )


def _feed_word(each: model.ThreatList) -> str:
    if each.is_held:
        return 'held'
    if not each.is_loaded:
        return 'failed' if each.error else 'waiting'
    return 'ok' if each.is_fresh else 'late'


def _conntrack(snapshot: model.Snapshot, health: model.FlowHealth, now: float) -> page_markup.Html:
    counted, maximum, table = health.counted, health.maximum, snapshot.flows.value
    full = 100 * counted / maximum if counted is not None and maximum else None
    facts: list[tuple[str, object]] = [
        ('entries', page_markup.count(counted)),
        ('room for', page_markup.count(maximum)),
        ('full', None if full is None else f'{full:.1f} %'),
        ('of nobody here', page_markup.count(table.unattributed) if table else None),
        ('ambiguous', page_markup.count(table.ambiguous) if table else None),
        ('failed reads', page_markup.count(health.errors)),
        ('zone map', health.zone_map),
        ('zones', page_markup.count(health.zones)),
    ]
    if health.zone_map_read_at is not None:
        facts.append(('zones read', page_markup.ago(health.zone_map_read_at, now)))
    return _section('Connection tracking', page_markup.terms(facts))


def _namespaces(snapshot: model.Snapshot, about: About) -> page_markup.Html:
    table = snapshot.namespaces.value
    if table is None:
        return _section('Network namespaces', _nothing('They could not be read yet.'))
    kinds = Counter(each.kind for each in table.namespaces)
    partial = [each for each in table.namespaces if each.failures]
    facts = page_markup.terms(
        (
            ('found', page_markup.count(table.found)),
            ('read', page_markup.count(len(table.namespaces))),
            ('filtered', page_markup.count(table.filtered)),
            *((f'skipped: {why}', page_markup.count(n)) for why, n in table.skipped.items() if n),
            *((kind, page_markup.count(number)) for kind, number in sorted(kinds.items())),
            ('read in part', page_markup.count(len(partial))),
        )
    )
    listed = partial if 'namespaces' in about.collectors else []
    rows = [
        (page_markup.name(each.name), ', '.join(f'{p}: {w}' for p, w in each.failures.items()))
        for each in listed[:MOST_ROWS]
    ]
    shown = page_markup.table('Read in part', ('Namespace', 'What failed'), rows)
    return _section('Network namespaces', facts, shown, _more(len(listed)))


def _ledger(health: model.LedgerHealth, now: float) -> page_markup.Html:
    facts = (
        ('survive a crash', 'yes' if health.is_durable else 'no'),
        ('written', page_markup.ago(health.written_at, now)),
        ('failed writes', page_markup.count(health.write_errors)),
        ('remembered', page_markup.count(health.instances)),
    )
    return _section('Totals for billing', page_markup.terms(facts))


def _project_usage(health: model.ProjectUsageHealth, now: float) -> page_markup.Html:
    facts = (
        ('projects', page_markup.count(health.projects)),
        ('instances', page_markup.count(health.instances)),
        ('updated', page_markup.ago(health.succeeded_at, now)),
        ('took', None if health.seconds is None else page_markup.span(health.seconds)),
        ('updates', page_markup.count(health.updates)),
        ('failures', page_markup.count(sum(health.failures.values()))),
    )
    return _section('Project usage', page_markup.terms(facts))


def _guest_os(health: model.GuestOsHealth) -> page_markup.Html:
    facts = (
        ('waiting', page_markup.count(health.queued)),
        ('under way', 'one' if health.is_inspecting else 'none'),
        ('looked at', page_markup.count(health.inspections)),
        ('failures', page_markup.count(sum(health.failures.values()))),
    )
    return _section('Operating systems', page_markup.terms(facts))


# --- parts of a section -------------------------------------------------------


def _section(title: str, *body: page_markup.Html, is_alarm: bool = False) -> page_markup.Html:
    attributes = {'class_': 'all alarm'} if is_alarm else {}
    return page_markup.tag('section', page_markup.tag('h2', title), *body, **attributes)


def _state(word: str, shown: str = '') -> page_markup.Html:
    return page_markup.tag('span', shown or word, class_=f'state {word}')


def _nothing(sentence: str) -> page_markup.Html:
    return page_markup.tag('p', sentence, class_='none')


def _more(number: int) -> page_markup.Html:
    """Return how many rows a table of so many has left out."""
    left = number - MOST_ROWS
    return _nothing(f'And {left} more.') if left > 0 else page_markup.Html()


_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="{icon}">
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
