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

"""Ceilometer's own polling code loads our definitions and makes Samples of our JSON."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import importlib.util
import json
import pathlib
import shutil
import stat
import subprocess
import sys
from typing import Any

import pytest
import yaml

from tests import machine
from tests.functional import exporter as exporters
from tests.functional import guests as lab_guests
from tests.functional import lab
from tests.functional import processes
from tests.functional import routers

ROOT = pathlib.Path(__file__).parents[2]
SHIPPED = ROOT / 'etc/ceilometer'

#: One of each list: without a daemon every definition costs a collection.
ONE_OF_EACH = (
    'oie.{instances_cumulative_ns}',
    'oie.{disks_cumulative_B}',
    'oie.{vnics_cumulative_B}',
)

Sample = dict[str, Any]
Poll = Callable[..., 'Polled']


class Polled:
    """What the agent made of one polling."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.pollsters: list[str] = document['pollsters']
        self.samples: list[Sample] = document['samples']
        self.errors: list[str] = document['errors']

    def of(self, meter: str, **fields: object) -> list[Sample]:
        """Return the samples of a meter with these fields."""
        return [
            sample
            for sample in self.samples
            if {'counter_name': meter, **fields}.items() <= sample.items()
        ]


@pytest.fixture(autouse=True, scope='module')
def _ceilometer() -> None:
    if importlib.util.find_spec('ceilometer') is None:
        machine.give_up('ceilometer is not installed (tests/functional/requirements.txt)')


@pytest.fixture(scope='module')
def definitions() -> list[dict[str, Any]]:
    """Return the definitions that we ship."""
    files = (SHIPPED / 'pollsters.d').glob('*.yaml')
    return [one for path in files for one in yaml.safe_load(path.read_text(encoding='utf-8'))]


@pytest.fixture(scope='module')
def guests(libvirtd: lab.Libvirtd) -> Iterator[list[lab_guests.Guest]]:
    """Return a guest of many devices, one without Nova metadata, and one that hangs."""
    made = [
        libvirtd.guest(disks=('raw', 'qcow2'), ports=2, port_model='rtl8139', vcpus=2),
        libvirtd.guest(metadata='none'),
        libvirtd.guest(),
    ]
    for guest in made:
        guest.start()
    made[0].send_frames(5)
    yield made
    libvirtd.remove(made)


@pytest.fixture(scope='module')
def exporter(
    libvirtd: lab.Libvirtd, guests: list[lab_guests.Guest]
) -> Iterator[exporters.Exporter]:
    """Return an exporter that has read once and will not again while we poll."""
    settings = {'collector': {'interval': '1h', 'dynamic_cache_expiration': '1h'}}
    wedged = guests[2]
    wedged.sigstop()
    with exporters.Exporter(libvirtd.uri, settings) as running:
        wedged.sigcont()
        yield running


@pytest.fixture
def poll(tmp_path: pathlib.Path) -> Poll:
    """Poll once; ``oie-pollster`` on PATH is ours with the configuration of an exporter."""

    def run(exporter: exporters.Exporter, meters: Sequence[str] = ()) -> Polled:
        _copy_definitions(tmp_path, meters)
        _write_command(tmp_path / 'bin', exporter.write_config())
        environment = processes.environment()
        path = f'{tmp_path / "bin"}:{environment["PATH"]}'
        done = subprocess.run(
            (sys.executable, '-m', 'tests.functional.ceilometer_agent', str(tmp_path)),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=90,
            env={**environment, 'PATH': path},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return Polled(json.loads(done.stdout))

    return run


def test_every_sample_is_a_value_of_the_json(
    poll: Poll, exporter: exporters.Exporter, definitions: list[dict[str, Any]]
) -> None:
    names = {_list_of(definition) for definition in definitions}
    answers = {name: exporter.pollster(name) for name in names}
    # Contacts are counted where lists are chosen, which is not here.
    lists = {name: answer.entries for name, answer in answers.items() if answer.status == 0}
    assert names - lists.keys() <= {'contacts', 'flows', 'os'}
    asked = [each for each in definitions if _list_of(each) in lists]

    polled = poll(exporter, [each['name'] for each in asked])

    assert polled.errors == []
    assert set(polled.pollsters) >= {definition['name'] for definition in definitions}
    assert names >= set(exporters.POLLSTERS)
    expected = {}
    for definition in asked:
        for entry in lists[_list_of(definition)]:
            for meter, value in _values_of(definition, entry).items():
                if value is not None:
                    expected[meter, entry['resource_id']] = (definition, entry, value)
    found = {_key(sample): sample for sample in polled.samples}
    assert len(found) == len(polled.samples)
    assert found.keys() == expected.keys()
    for key, (definition, entry, value) in expected.items():
        sample = found[key]
        assert sample['counter_volume'] == value, key
        assert sample['counter_unit'] == definition['unit']
        assert sample['counter_type'] == definition['sample_type']
        assert sample['project_id'] == entry['project_id']
        assert sample['user_id'] == entry['user_id']
        metadata = {name: entry[name] for name in definition['metadata_fields']}
        assert metadata.items() <= sample['resource_metadata'].items()


def test_single_definition_of_a_flat_key_works_as_before(
    poll: Poll, exporter: exporters.Exporter, tmp_path: pathlib.Path
) -> None:
    """Whoever has definitions of their own, one for each meter, keeps them."""
    own = {
        'name': 'site.cpu',
        'sample_type': 'cumulative',
        'unit': 'ns',
        'namespaces': 'compute',
        'host_command': 'oie-pollster instances',
        'value_attribute': 'cpu_total',
        'skip_sample_values': [None],
        'resource_id_attribute': 'resource_id',
        'metadata_fields': ['display_name'],
    }
    (tmp_path / 'pollsters.d').mkdir()
    (tmp_path / 'pollsters.d/own.yaml').write_text(json.dumps([own]), encoding='ascii')

    polled = poll(exporter, ('site.cpu', 'oie.{instances_cumulative_ns}'))

    assert polled.errors == []
    theirs = {s['resource_id']: s['counter_volume'] for s in polled.of('site.cpu')}
    ours = {s['resource_id']: s['counter_volume'] for s in polled.of('oie.cpu.total')}
    assert theirs == ours != {}


def test_meter_named_among_the_values_to_skip_is_left_out(
    poll: Poll, exporter: exporters.Exporter, tmp_path: pathlib.Path
) -> None:
    """What the header of the shipped file promises."""
    name = 'oie.{disks_gauge_B}'
    shipped = yaml.safe_load((SHIPPED / 'pollsters.d/oie.yaml').read_text(encoding='ascii'))
    [definition] = [each for each in shipped if each['name'] == name]
    definition['skip_sample_values'].append('disk.device.allocation')
    (tmp_path / 'pollsters.d').mkdir()
    # The first file that has a name wins.
    changed = tmp_path / 'pollsters.d/first.yaml'
    changed.write_text(json.dumps([definition]), encoding='ascii')

    polled = poll(exporter, (name,))

    assert polled.of('oie.disk.device.capacity')
    assert not polled.of('oie.disk.device.allocation')


def test_sample_names_the_instance_as_ceilometer_does(
    poll: Poll, exporter: exporters.Exporter, guests: list[lab_guests.Guest]
) -> None:
    guest = guests[0]
    owner, port = guest.instance.owner, guest.instance.ports[1]

    polled = poll(exporter, ONE_OF_EACH)

    (cpu,) = polled.of('oie.cpu.total', resource_id=guest.uuid)
    (disk,) = polled.of('oie.disk.device.read.bytes', resource_id=f'{guest.uuid}-vdb')
    vnic_id = f'{guest.name}-{guest.uuid}-{port.target}'
    (vnic,) = polled.of('oie.network.incoming.bytes', resource_id=vnic_id)
    for sample in (cpu, disk, vnic):
        assert (sample['project_id'], sample['user_id']) == (owner.project_id, owner.user_id)
        metadata = sample['resource_metadata']
        assert metadata['display_name'] == guest.instance.display_name
        assert metadata['name'] == guest.name
        assert metadata['instance_id'] == guest.uuid
        assert metadata['instance_host'] == exporters.HOST
        assert metadata['flavor_name'] == guest.instance.flavor.name
    assert cpu['counter_volume'] > 0
    assert (cpu['counter_unit'], cpu['counter_type']) == ('ns', 'cumulative')
    # The boot sector.
    (boot,) = polled.of('oie.disk.device.read.bytes', resource_id=f'{guest.uuid}-vda')
    assert boot['counter_volume'] == 512


def test_value_that_is_null_costs_only_its_own_sample(
    poll: Poll, exporter: exporters.Exporter, guests: list[lab_guests.Guest]
) -> None:
    healthy, _, wedged = guests

    polled = poll(exporter, ('oie.{instances_cumulative_ns}', 'oie.{instances_gauge_MiB}'))

    assert polled.errors == []
    assert polled.of('oie.cpu.total', resource_id=wedged.uuid)
    assert polled.of('oie.memory.resident', resource_id=healthy.uuid)
    assert not polled.of('oie.memory.resident', resource_id=wedged.uuid)


def test_guest_without_a_project_gives_no_sample_and_is_counted(
    poll: Poll, exporter: exporters.Exporter, guests: list[lab_guests.Guest]
) -> None:
    guest = guests[1]

    polled = poll(exporter, ONE_OF_EACH)

    assert polled.samples
    assert guest.uuid not in {s['resource_metadata']['instance_id'] for s in polled.samples}
    assert exporter.scrape().value('oie_host_instances_without_project') == 1


def test_router_is_a_resource_of_its_own_that_has_no_project(
    poll: Poll, definitions: list[dict[str, Any]]
) -> None:
    """Its definitions run in the agent of a network node, where no libvirt answers."""
    names = [each['name'] for each in definitions if _list_of(each) == 'routers']
    with routers.Router() as router, _network_node(router) as node:
        router.receive(5)
        node.next_scrape()
        stats = router.counters()
        polled = poll(node, names)

    assert polled.errors == []
    assert {sample['resource_id'] for sample in polled.samples} == {router.uuid}
    volumes = {sample['counter_name']: sample['counter_volume'] for sample in polled.samples}
    assert volumes == {
        'oie.router.external.incoming.bytes': stats['rx']['bytes'],
        'oie.router.external.outgoing.bytes': stats['tx']['bytes'],
        'oie.router.external.incoming.packets': 5,
        'oie.router.external.outgoing.packets': stats['tx']['packets'],
        'oie.router.conntrack.entries': 0,
    }
    for sample in polled.samples:
        assert sample['project_id'] is sample['user_id'] is None
        wanted = {
            'router_id': router.uuid,
            'host': exporters.HOST,
            'netns': router.name,
            'devices': router.device,
        }
        assert wanted.items() <= sample['resource_metadata'].items()


def test_node_that_reads_no_namespaces_has_no_routers_and_no_error(
    poll: Poll, exporter: exporters.Exporter, definitions: list[dict[str, Any]]
) -> None:
    """Every compute node gets the definitions; most have no routers."""
    names = [each['name'] for each in definitions if _list_of(each) == 'routers']

    polled = poll(exporter, names)

    assert names
    assert (polled.samples, polled.errors) == ([], [])


def test_without_exporter_libvirt_is_read_and_gives_the_same_numbers(
    poll: Poll, exporter: exporters.Exporter, libvirtd: lab.Libvirtd
) -> None:
    alone = exporters.Exporter(libvirtd.uri)

    first, direct, later = (poll(asked, ONE_OF_EACH) for asked in (exporter, alone, alone))
    alone.close()

    assert direct.errors == []
    before, after = ({_key(s): s for s in polled.samples} for polled in (first, later))
    found = {_key(sample): sample for sample in direct.samples}
    assert before.keys() <= found.keys()
    for key, sample in before.items():
        volumes = [by_key[key]['counter_volume'] for by_key in (before, found, after)]
        assert volumes == sorted(volumes), key
        for name in ('resource_metadata', 'project_id', 'user_id', 'counter_unit'):
            assert found[key][name] == sample[name]


def test_nothing_to_ask_gives_no_sample_an_error_and_no_exception(
    poll: Poll, tmp_path: pathlib.Path
) -> None:
    nowhere = exporters.Exporter(f'qemu:///system?socket={tmp_path}/none')

    polled = poll(nowhere, ONE_OF_EACH)
    nowhere.close()

    assert polled.samples == []
    assert len(polled.errors) >= len(ONE_OF_EACH)


@contextlib.contextmanager
def _network_node(router: routers.Router) -> Iterator[exporters.Exporter]:
    """Give an exporter that reads the namespaces of the router, and no libvirt."""
    settings = {'netns': {'enabled': True, 'namespaces_whitelist': router.uuid}}
    running = exporters.Exporter(f'qemu:///system?socket=/nowhere/{router.uuid}', settings)
    try:
        running.start(is_ready=False)
        yield running
    finally:
        running.close()


def _key(sample: Sample) -> tuple[str, str]:
    return sample['counter_name'], sample['resource_id']


def _values_of(definition: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """Return the values by meter that a definition takes from an entry, as Ceilometer does."""
    key = definition['name'].removeprefix('oie.').strip('{}')
    assert definition['value_attribute'] == f'[{key}].value'
    return {f'oie.{each[key]}': each['value'] for each in entry[key]}


def _list_of(definition: dict[str, Any]) -> str:
    """Return which list a definition asks for."""
    program, name = definition['host_command'].split()
    assert program == 'oie-pollster'
    return str(name)


def _copy_definitions(directory: pathlib.Path, meters: Sequence[str]) -> None:
    """Make it like /etc/ceilometer; ``polling.yaml`` as shipped unless meters are named."""
    shutil.copytree(SHIPPED, directory, dirs_exist_ok=True)
    if meters:
        source = {'name': 'oie', 'interval': 300, 'meters': list(meters)}
        # JSON is YAML too.
        text = json.dumps({'sources': [source]})
        (directory / 'polling.yaml').write_text(text, encoding='ascii')


def _write_command(directory: pathlib.Path, config: pathlib.Path) -> None:
    """Put an ``oie-pollster`` first on PATH that has its configuration elsewhere."""
    directory.mkdir(exist_ok=True)
    command = directory / 'oie-pollster'
    line = f'exec {exporters.BIN / "oie-pollster"} "$@" --config-file {config}\n'
    command.write_text(f'#!/bin/sh\n{line}', encoding='utf-8')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
