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

"""Contacts by list, the lists in every state they may be in, and the host that is on one."""

import pytest

from oie import model
from oie.collectors import threats
from oie.outputs import prometheus
from tests import builders
from tests.unit import measuring

# Written out: dashboards and alerts rely on these names.
CONTACTS = {
    'tor_exit': ('oie_tor_exit_contact', 'oie_tor_exit_contact_active'),
    'tor_relay': ('oie_tor_relay_contact', 'oie_tor_relay_contact_active'),
    'spamhaus': ('oie_spamhaus_contact', 'oie_spamhaus_contact_active'),
    'emergingthreats': ('oie_emergingthreats_contact', 'oie_emergingthreats_contact_active'),
    'customlist': ('oie_customlist_contact', 'oie_customlist_contact_active'),
    'my_own_2': ('oie_my_own_2_contact', 'oie_my_own_2_contact_active'),
}
EVERY_LIST = pytest.mark.parametrize('name', CONTACTS)
IDENTITY = {
    'domain': 'instance-0000002a',
    'instance_uuid': builders.UUID,
    'project_uuid': builders.PROJECT,
    'user_uuid': builders.USER,
}
LOG_LINES = 'oie_threat_log_lines_total'
LOG_DROPPED = 'oie_threat_log_dropped_total'
LOG_WRITABLE = 'oie_threat_log_writable'
HOST_LISTED = 'oie_host_threat_listed'
HOST_KNOWN = 'oie_host_threat_addresses_known'


def snapshot(found):
    return builders.snapshot(builders.instance(), threats=found)


def shown(found, notes=None):
    """Return what the collector shows of these threats."""
    return measuring.shown(measuring.collector('threats'), snapshot(found), notes=notes)


def of(*contacts, **more):
    return shown(builders.threats(*contacts, **more))


def by(label, values):
    """Return the values by this label, which must be the only one."""
    assert {name for labels in values for name, _ in labels} == {label}
    return {dict(labels)[label]: value for labels, value in values.items()}


# --- contacts ---------------------------------------------------------------


@EVERY_LIST
def test_contacts_have_the_series_and_labels_of_the_contract(name):
    found = of(
        builders.contacts(list=name, direction='any', active=2, total=7),
        lists=(builders.threat_list(name),),
    )
    total, active = CONTACTS[name]
    labels = frozenset({**IDENTITY, 'direction': 'any'}.items())
    assert found[total] == {labels: 7}
    assert found[active] == {labels: 2}


@EVERY_LIST
def test_the_total_is_a_counter_and_what_is_active_a_gauge(name):
    total, active = CONTACTS[name]
    families = measuring.families(
        [measuring.collector('threats')],
        snapshot(
            builders.threats(
                builders.contacts(list=name), lists=(builders.threat_list(name, errors=1),)
            )
        ),
    )
    text = prometheus.Renderer().render(families).text.decode()
    lines = text.splitlines()
    assert f'# TYPE {total} counter' in lines
    assert f'# TYPE {active} gauge' in lines
    assert f'# TYPE oie_{name}_refresh_errors_total counter' in lines
    assert f'# TYPE oie_{name}_entries gauge' in lines
    labels = ','.join(f'{label}="{value}"' for label, value in IDENTITY.items())
    assert f'{total}{{{labels},direction="out"}} 7' in lines
    assert f'{active}{{{labels},direction="out"}} 2' in lines


def test_a_contact_that_is_over_leaves_its_total_only():
    found = of(builders.contacts(active=0, total=7))
    assert measuring.only(found['oie_tor_exit_contact']) == 7
    assert 'oie_tor_exit_contact_active' not in found


def test_zeros_that_somebody_asked_for_are_totals_only():
    """S20: increase() needs the 0 of the counter, nobody needs one of the gauge."""
    found = of(builders.contacts(active=0, total=0))
    assert measuring.only(found['oie_tor_exit_contact']) == 0
    assert 'oie_tor_exit_contact_active' not in found


def test_without_contacts_there_are_no_series_of_contacts():
    assert not [name for name in of() if 'contact' in name]


def test_each_list_and_each_instance_has_its_own_numbers():
    other = builders.idle().definition
    found = of(
        builders.contacts(active=1, total=2),
        builders.contacts(list='spamhaus', direction='in', active=3, total=4),
        builders.contacts(other, active=5, total=6),
        lists=(builders.threat_list(), builders.threat_list('spamhaus')),
    )

    def values(name):
        return {
            (dict(labels)['instance_uuid'], dict(labels)['direction']): value
            for labels, value in found[name].items()
        }

    assert values('oie_tor_exit_contact') == {(builders.UUID, 'out'): 2, (other.uuid, 'out'): 6}
    assert values('oie_tor_exit_contact_active') == {
        (builders.UUID, 'out'): 1,
        (other.uuid, 'out'): 5,
    }
    assert values('oie_spamhaus_contact') == {(builders.UUID, 'in'): 4}
    assert values('oie_spamhaus_contact_active') == {(builders.UUID, 'in'): 3}


def test_labels_are_made_once_for_as_long_as_the_definition_lives():
    definition, notes = builders.definition(), {}
    collector = measuring.collector('threats')
    several = builders.threats(
        builders.contacts(definition),
        builders.contacts(definition, list='spamhaus'),
        builders.contacts(definition, list='my_own', direction='in'),
        lists=[builders.threat_list(name) for name in ('tor_exit', 'spamhaus', 'my_own')],
    )

    def labels():
        names = ('oie_tor_exit_contact', 'oie_spamhaus_contact', 'oie_my_own_contact')
        families = collector.collect(None, snapshot(several), notes)
        made = {f.meter.prometheus: f.samples[0][0] for f in families}
        return [made[name] for name in names]

    first = labels()
    assert [id(each) for each in labels()] == [id(each) for each in first]
    # One for each direction, whatever the list is.
    assert first[0] is first[1]
    assert first[0] is not first[2]
    assert set(notes) == {builders.UUID}


def test_meters_of_a_list_are_made_once():
    assert threats.meters_of('my_own') is threats.meters_of('my_own')


# --- the lists ----------------------------------------------------------------


@EVERY_LIST
def test_a_list_tells_how_it_is(name):
    found = of(lists=(builders.threat_list(name),))
    assert {series: measuring.only(found[series]) for series in found if 'refresh' in series} == {
        # Whole seconds, as the reference has them.
        f'oie_{name}_refresh_last_success_timestamp_seconds': int(builders.NOW) - 61,
        f'oie_{name}_refresh_duration_seconds': 1.23457,
        f'oie_{name}_refresh_errors_total': 2,
    }
    assert measuring.only(found[f'oie_{name}_entries']) == 1234
    assert measuring.only(found[f'oie_{name}_fresh']) == 1
    assert measuring.only(found[f'oie_{name}_held']) == 0


@EVERY_LIST
def test_before_the_first_success_the_telemetry_of_the_contract_is_there_with_zeros(name):
    never = model.ThreatList(name=name, tag='X', direction='out')
    found = of(lists=(never,))
    assert {series: measuring.only(found[series]) for series in found if name in series} == {
        f'oie_{name}_refresh_last_success_timestamp_seconds': 0,
        f'oie_{name}_refresh_duration_seconds': 0,
        f'oie_{name}_refresh_errors_total': 0,
        f'oie_{name}_entries': 0,
        f'oie_{name}_fresh': 0,
        f'oie_{name}_held': 0,
    }


def test_telemetry_is_live_also_while_libvirt_is_down():
    """S13."""
    down = builders.snapshot(read_at=None, error='libvirt is down', threats=builders.threats())
    found = measuring.shown(measuring.collector('threats'), down)
    assert measuring.only(found['oie_tor_exit_entries']) == 1234


def test_a_list_that_waits_and_one_that_is_old_say_so():
    old = builders.threat_list(is_fresh=False, is_held=True)
    found = of(lists=(old,))
    assert measuring.only(found['oie_tor_exit_fresh']) == 0
    assert measuring.only(found['oie_tor_exit_held']) == 1


def test_rejected_entries_are_told_by_reason():
    rejected = {'malformed': 1, 'special_use': 3, 'duplicate': 0}
    found = of(lists=(builders.threat_list(rejected=rejected),))
    assert by('reason', found['oie_tor_exit_rejected_entries']) == rejected


def test_each_list_has_its_own_telemetry():
    lists = [builders.threat_list(name, entries=n) for n, name in enumerate(CONTACTS)]
    found = of(lists=lists)
    assert [measuring.only(found[f'oie_{name}_entries']) for name in CONTACTS] == [*range(6)]


def test_where_nobody_watches_nothing_is_said():
    assert shown(None) == {}


def test_a_watch_without_lists_log_and_host_says_nothing():
    assert shown(model.Threats()) == {}


# --- the host -----------------------------------------------------------------


def test_each_listed_address_of_the_host_is_told_by_list_and_family():
    found = of(
        host=(
            model.ListedAddress(list='tor_exit', ip='198.51.100.7', family='ipv4'),
            model.ListedAddress(list='my_own', ip='198.51.100.7', family='ipv4'),
            model.ListedAddress(list='spamhaus', ip='2001:db8::7', family='ipv6'),
        )
    )
    assert found[HOST_LISTED] == {
        frozenset({('list', 'tor_exit'), ('ip', '198.51.100.7'), ('family', 'ipv4')}): 1,
        frozenset({('list', 'my_own'), ('ip', '198.51.100.7'), ('family', 'ipv4')}): 1,
        frozenset({('list', 'spamhaus'), ('ip', '2001:db8::7'), ('family', 'ipv6')}): 1,
    }
    assert measuring.only(found[HOST_KNOWN]) == 1


def test_a_host_on_no_list_differs_from_one_that_could_not_be_looked_at():
    clean, unknown = of(host=()), of(host=None)
    assert HOST_LISTED not in clean
    assert HOST_LISTED not in unknown
    assert (measuring.only(clean[HOST_KNOWN]), measuring.only(unknown[HOST_KNOWN])) == (1, 0)


def test_where_nobody_looks_at_the_host_nothing_is_said_of_it():
    assert HOST_KNOWN not in of(host=None, looks_at_host=False)


# --- the threat log -----------------------------------------------------------


def test_the_log_tells_what_it_wrote_and_what_it_dropped_by_reason():
    health = model.ThreatLogHealth(lines=21, dropped={'rate': 5, 'queue': 0}, is_writable=True)
    found = of(log=health)
    assert measuring.only(found[LOG_LINES]) == 21
    assert by('reason', found[LOG_DROPPED]) == {'rate': 5, 'queue': 0}
    assert measuring.only(found[LOG_WRITABLE]) == 1


def test_a_log_that_cannot_be_written_says_so():
    assert measuring.only(of(log=model.ThreatLogHealth(is_writable=False))[LOG_WRITABLE]) == 0


def test_without_a_log_nothing_is_said_of_it():
    assert not {LOG_LINES, LOG_DROPPED, LOG_WRITABLE} & set(of(log=None))


# --- what the collector declares ------------------------------------------------


def test_lists_of_the_reference_are_declared_with_all_their_series():
    declared = {meter.prometheus for meter in threats.ThreatsCollector.meters()}
    for name in builders.THREAT_TAGS:
        assert {each.prometheus for each in threats.meters_of(name).all()} <= declared
    assert tuple(builders.THREAT_TAGS) == threats.KNOWN_LISTS
