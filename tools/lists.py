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


"""The pollsters → a page of the documentation: what each prints, key by key."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import textwrap

from oie.outputs import ceilometer

WIDTH = 80

Row = tuple[str, ...]
Table = Callable[[tuple[str, ...], Iterable[Row]], str]
Section = Callable[[str, str, str], str]

HEADER = """\
..
   Written by tools/generate.py, see tox -e genconfig; do not edit.

=========
Pollsters
=========

What ``oie-pollster NAME`` prints: a list of objects, which all have the same
keys. :doc:`ceilometer` tells how Ceilometer is made to ask, and what holds for
all lists. What could not be read is ``null``, never 0, and gives no sample.

Beside its keys each object has the values a second time, in one list for each
definition of ``etc/ceilometer/pollsters.d/oie.yaml``.
"""

# What one object of a list is, the id that it has, and when there are none.
ABOUT = {
    'instances': ('an instance', 'the uuid of the instance', ''),
    'disks': ('a disk', '``UUID-vda``', ''),
    'vnics': ('a network interface', '``instance-0000002a-UUID-tap...``', ''),
    'flows': (
        'a fixed IP',
        '``UUID-10.0.0.5``',
        'An error while the connection tracking table is not known (:doc:`conntrack`).',
    ),
    'contacts': (
        'an instance and a threat list',
        '``UUID-spamhaus``',
        'Empty where no list is enabled; an error without a running exporter, which has '
        'the totals (:doc:`threats`).',
    ),
    'os': ('an instance', 'the uuid of the instance', 'See :doc:`operating-systems`.'),
    'usage': (
        'an instance on this host',
        '``UUID-cmp1``',
        'Totals that never fall (:doc:`usage`); an error without a running exporter.',
    ),
    'routers': (
        'a router that forwards to the outside on this host',
        'the uuid of the router',
        'Routers have no project: an API knows whose they are, this host does not.',
    ),
}

ALWAYS = {
    'resource_id': 'what the samples are about; stands below each list',
    'project_id': 'of the owner',
    'user_id': 'of the owner',
}

# What a key says, whichever list has it. One that is missing here fails the generation.
KEYS = {
    'display_name': 'name of the server, which its owner chose',
    'name': "libvirt's name of the instance, ``instance-0000002a``",
    'instance_id': 'uuid of the instance',
    'instance_host': 'name of this host, ``[DEFAULT] host``',
    'host': 'what Nova calls hostId: a hash of project and host',
    'flavor_id': "id of the flavor; its name where Nova does not write the id (before 2025.2)",
    'flavor_name': 'name of the flavor',
    'instance_type': 'the same, under its old name',
    'image_ref': 'id of the image that the instance was made from',
    'status': 'state in words of Nova: ``active``, ``paused``, ``stopped`` ...',
    'state': 'state in words of libvirt: ``running``, ``paused``, ``shutoff`` ...',
    'architecture': 'of the guest, ``x86_64``',
    'root_type': '``image`` or ``volume``',
    'vcpus': 'of the flavor',
    'memory_mb': 'of the flavor, MiB',
    'disk_gb': 'of the flavor, root and ephemeral, GiB',
    'root_gb': 'of the flavor, GiB',
    'ephemeral_gb': 'of the flavor, GiB',
    'disk_name': 'name of the device in the guest, ``vda``',
    'disk_type': 'tier: ``local`` for files, the pool for RBD',
    'disk_uuid': 'path of a file, or name of the image',
    'disk_source': 'where the disk is, with its protocol',
    'volume_id': 'id of the Cinder volume; empty where it is none',
    'vnic_name': 'name of the device on the host, ``tap...``',
    'mac': 'MAC address',
    'port_id': 'id of the Neutron port',
    'vnic_type': "libvirt's type of the interface, ``bridge``",
    'vnic_model': 'model that the guest sees, ``virtio``',
    'ip': 'the fixed IP',
    'family': '``ipv4`` or ``ipv6``',
    'threat_list': 'name of the list',
    'direction': '``out``, ``in`` or ``any``, as configured for the list',
    'os_family': '``windows``, ``linux`` ...; ``unknown``',
    'os_distro': '``windows``, ``debian``, ``rhel`` ...; ``unknown``',
    'os_info': 'short id of libosinfo, ``debian12``',
    'os_version': 'version as a text',
    'os_version_major': 'first number of the version; a text unless ``[guest_os] '
    'numbers_as_integers``',
    'os_version_minor': 'second number of the version, in the same way',
    'os_product_name': 'what the system calls itself',
    'os_product_variant': 'its edition',
    'os_source': 'who said so: the driver, ``pending`` or ``unknown``',
    'router_id': 'uuid of the router',
    'netns': 'name of the network namespace',
    'devices': 'its external devices',
}

# What the same key says in one list alone.
OTHERWISE = {('routers', 'host'): 'name of this host, ``[DEFAULT] host``'}


def page(pollsters: Iterable[ceilometer.Pollster], table: Table, section: Section) -> str:
    """Return the page.

    :raises KeyError: a list, or a key, that this file says nothing about
    """
    return '\n'.join([HEADER, *_common(table, section), *_all(pollsters, table, section)])


def _common(table: Table, section: Section) -> Iterator[str]:
    names = (*ALWAYS, *ceilometer.COMMON)
    yield section('Keys of all lists of instances', '=', '')
    yield table(('Key', 'Says'), [_key(name) for name in names])


def _all(
    pollsters: Iterable[ceilometer.Pollster], table: Table, section: Section
) -> Iterator[str]:
    for pollster in pollsters:
        what, identity, more = ABOUT[pollster.name]
        yield section(
            pollster.name,
            '=',
            textwrap.fill(
                f'One object is {what}. ``resource_id``: {identity}; in Gnocchi a resource of '
                f'the type ``{pollster.resource_type}``. {more}',
                WIDTH,
                break_on_hyphens=False,
            ),
        )
        own = [_key(name, pollster.name) for name in pollster.metadata if _is_own(name, pollster)]
        if own:
            yield table(('Key', 'Says'), own)
        yield table(('Key', 'Meter', 'Type', 'Unit', 'What it says', 'Source'), _meters(pollster))


def _is_own(name: str, pollster: ceilometer.Pollster) -> bool:
    return name not in ceilometer.COMMON or (pollster.name, name) in OTHERWISE


def _key(name: str, pollster: str = '') -> Row:
    return f'``{name}``', OTHERWISE.get((pollster, name)) or ALWAYS.get(name) or KEYS[name]


def _meters(pollster: ceilometer.Pollster) -> Iterator[Row]:
    for meter, _ in pollster.columns:
        yield (
            f'``{meter.field}``',
            f'``{meter.ceilometer}``',
            meter.kind.value,
            meter.unit,
            meter.help,
            f'``{meter.source}``',
        )
