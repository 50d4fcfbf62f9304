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


"""What the quick drivers know, and that no answer leaves but clean."""

import pathlib
import types

import hypothesis
from hypothesis import strategies as st
import pytest

from oie import model
from oie.sources import domain_xml
from oie.sources.guest_os import base
from oie.sources.guest_os import libosinfo
from oie.sources.guest_os import licences
from oie.sources.guest_os import nova_image
from tests import builders

DOMAINS = pathlib.Path(__file__).parents[3] / 'data' / 'domain_xml'


def with_properties(**properties):
    return builders.instance(builders.definition(image_properties=properties))


def recorded(name):
    return builders.instance(domain_xml.parse((DOMAINS / name).read_text(encoding='utf-8')))


# --- Nova's image properties --------------------------------------------------


def test_image_properties_of_nova_2025_2_are_understood():
    """The domain XML is written by hand after Nova's code; there is no recorded one."""
    found = nova_image.NovaImageDriver().read(recorded('nova_2025_2.xml'))
    assert found == model.GuestOs(family='linux', distro='ubuntu')


def test_a_version_makes_the_answer_precise():
    found = nova_image.NovaImageDriver().read(with_properties(os_distro='debian', os_version='12'))
    assert (found.info, found.version_major) == ('debian12', 12)


def test_the_type_alone_tells_windows():
    found = nova_image.NovaImageDriver().read(with_properties(os_type='windows'))
    assert (found.family, found.distro) == ('windows', 'windows')


@pytest.mark.parametrize('name', ['idle.xml', 'nova_1_0.xml', 'no_metadata.xml'])
def test_an_older_nova_says_nothing(name):
    assert nova_image.NovaImageDriver().read(recorded(name)) is None


def test_other_properties_say_nothing():
    assert nova_image.NovaImageDriver().read(with_properties(hw_disk_bus='virtio')) is None


# --- libosinfo ----------------------------------------------------------------


def test_the_libosinfo_id_is_understood():
    of = builders.definition(libosinfo_id='http://microsoft.com/win/2k22')
    found = libosinfo.LibosinfoDriver().read(builders.instance(of))
    assert (found.family, found.info) == ('windows', 'win2k22')


def test_without_an_id_libosinfo_says_nothing():
    assert libosinfo.LibosinfoDriver().read(builders.instance()) is None


# --- answers are clean ----------------------------------------------------------


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('Debian', 'Debian'),
        (' a b ', 'a b'),
        ('', 'unknown'),
        (' \n', 'unknown'),
        (None, 'unknown'),
        (7, 'unknown'),
        (
            'a\nb\0c\x1bd',
            'a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c\N{REPLACEMENT CHARACTER}d',
        ),
        ('\ud800', '\N{REPLACEMENT CHARACTER}'),
        ('x' * 300, 'x' * 255),
    ],
)
def test_texts_are_one_short_line(text, expected):
    assert base.clean(text) == expected


@pytest.mark.parametrize(
    ('value', 'expected'),
    [
        (12, 12),
        ('12', 12),
        (0, 0),
        (None, None),
        ('', None),
        ('-1', None),
        (-1, None),
        ('1e3', None),
        ('٣', None),
        (True, None),
        (2**31, None),
        ('9' * 99, None),
        (1.5, None),
    ],
)
def test_numbers_are_small_integers(value, expected):
    assert base.number(value) == expected


def test_source_and_time_are_not_up_to_the_driver():
    said = model.GuestOs(family='linux', source='somebody else', license_units=99)
    found = base.cleaned(said, 'nova_image', 5.0)
    assert (found.source, found.learned_at, found.license_units) == ('nova_image', 5.0, None)


def test_the_time_of_a_cached_answer_stays():
    assert base.cleaned(model.GuestOs(learned_at=3.0), 'libguestfs', 5.0).learned_at == 3.0


@hypothesis.given(st.text(max_size=600))
def test_whatever_a_guest_says_fits_a_label_and_a_gnocchi_string(text):
    cleaned = base.clean(text)
    assert 0 < len(cleaned) <= 255
    assert cleaned.isprintable()
    assert cleaned.encode()


# --- licences -------------------------------------------------------------------

WINDOWS = model.GuestOs(family='windows', distro='windows', source='nova_image')
RHEL = model.GuestOs(family='linux', distro='rhel', source='nova_image')
DEBIAN = model.GuestOs(family='linux', distro='debian', source='nova_image')
LINUX = model.GuestOs(family='linux', source='nova_image')
NOBODY_KNOWS = model.GuestOs(source='unknown')


@pytest.mark.parametrize(
    ('rules', 'found', 'expected'),
    [
        ({'windows': 'vcpu'}, WINDOWS, 2),
        ({'windows': 'instance'}, WINDOWS, 1),
        ({'windows': 'vcpu'}, RHEL, 0),
        ({'rhel': 'instance'}, RHEL, 1),
        ({'linux': 'vcpu', 'rhel': 'instance'}, RHEL, 1),
        ({'linux': 'vcpu'}, RHEL, 2),
        ({'linux': 'vcpu', 'unknown': 'instance'}, LINUX, 2),
        ({'windows': 'vcpu'}, LINUX, 0),
        ({'windows': 'vcpu', 'unknown': 'vcpu'}, LINUX, 0),
        # It may be one.
        ({'windows': 'vcpu', 'rhel': 'instance'}, LINUX, None),
        ({'homegrown': 'instance'}, LINUX, None),
        ({'rhel': 'instance'}, DEBIAN, 0),
        ({'windows': 'vcpu'}, NOBODY_KNOWS, None),
        ({'unknown': 'vcpu'}, NOBODY_KNOWS, 2),
        ({}, WINDOWS, 0),
    ],
)
def test_units_follow_the_rules(rules, found, expected):
    assert licences.units(rules, found, builders.instance()) == expected


def test_units_are_not_known_when_the_vcpus_are_not():
    of = builders.definition(flavor=builders.flavor(vcpus=None))
    unread = builders.instance(of, vcpus=None)
    assert licences.units({'windows': 'vcpu'}, WINDOWS, unread) is None


def test_the_vcpus_of_the_flavor_count_first():
    of = builders.definition(flavor=builders.flavor(vcpus=8))
    assert builders.instance(of, vcpus=2).billed_vcpus == 8
    without = builders.definition(flavor=builders.flavor(vcpus=None))
    assert builders.instance(without, vcpus=2).billed_vcpus == 2


def test_a_driver_that_is_stopped_knows():
    driver = nova_image.NovaImageDriver(types.SimpleNamespace())
    assert not driver.stopping.is_set()
    driver.close()
    assert driver.stopping.is_set()
