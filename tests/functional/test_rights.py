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

"""Who may do what: the socket for its group, the exporter and the pollsters without root."""

from collections.abc import Iterator
import grp
import os
import pathlib
import pwd

import pytest

from tests.functional import exporter as exporters
from tests.functional import guests as lab_guests
from tests.functional import lab
from tests.functional import processes

SUDOERS = pathlib.Path(__file__).parents[2] / 'etc/sudoers.d/oie-ceilometer'
#: A group that every Linux has and that nobody is in.
GROUP = 'daemon'
#: Reading our own code, wherever it lies, is all that is left of root; a socket wants writing.
READ = ('--inh-caps=+dac_read_search', '--ambient-caps=+dac_read_search')
NOBODY = ('setpriv', '--reuid=nobody', '--regid=nogroup', *READ)
STRANGER = (*NOBODY, '--clear-groups')
MEMBER = (*NOBODY, f'--groups={GROUP}')


@pytest.fixture(scope='module')
def guest(libvirtd: lab.Libvirtd) -> Iterator[lab_guests.Guest]:
    (new,) = libvirtd.start_guests(1)
    yield new
    libvirtd.remove([new])


def test_sudoers_file_is_valid_and_names_whole_commands(laboratory: None) -> None:
    answer = processes.run('visudo', '--check', '--strict', f'--file={SUDOERS}')

    assert 'parsed OK' in answer
    rules = [line for line in SUDOERS.read_text(encoding='ascii').splitlines() if line[:1] != '#']
    assert not [line for line in rules if '*' in line or 'ALL : ALL' in line]
    for name in exporters.POLLSTERS:
        assert any(f'oie-pollster {name}' in line for line in rules)


@pytest.mark.parametrize('group', [GROUP, 'number'])
def test_socket_answers_its_group_and_no_stranger(
    group: str, libvirtd: lab.Libvirtd, guest: lab_guests.Guest
) -> None:
    wanted = group if group == GROUP else str(_group_number())

    with exporters.Exporter(libvirtd.uri, {'exporter': {'socket_group': wanted}}) as exporter:
        member = exporter.pollster('instances', launcher=MEMBER)
        stranger = exporter.pollster('instances', launcher=STRANGER)
        status = exporter.socket.stat()

    assert [entry['resource_id'] for entry in member.entries] == [guest.uuid]
    assert 'socket_group' in stranger.sentence
    assert (status.st_mode & 0o777, status.st_gid) == (0o660, _group_number())


def test_socket_that_anybody_can_open_still_asks_who_it_is(
    libvirtd: lab.Libvirtd, guest: lab_guests.Guest
) -> None:
    with exporters.Exporter(libvirtd.uri) as exporter:
        exporter.socket.chmod(0o666)

        stranger = exporter.pollster('instances', launcher=STRANGER)

    assert 'refuses' in stranger.sentence
    assert guest.uuid not in stranger.text


def test_exporter_needs_no_rights_of_root(libvirtd: lab.Libvirtd, guest: lab_guests.Guest) -> None:
    nobody = pwd.getpwnam('nobody')
    exporter = exporters.Exporter(libvirtd.uri, launcher=STRANGER)
    exporter.write_config()
    os.chown(exporter.socket.parent, nobody.pw_uid, nobody.pw_gid)

    with exporter:
        scrape = exporter.next_scrape()
        own = exporter.pollster('instances', launcher=STRANGER)
        roots = exporter.pollster('instances')
        uid = pathlib.Path(f'/proc/{exporter.pid}').stat().st_uid

    assert uid == nobody.pw_uid
    assert scrape.is_good(guest.uuid)
    assert scrape.value('oie_instance_memory_rss_bytes', instance_uuid=guest.uuid)
    assert own.entries == roots.entries
    assert own.entries[0]['memory_resident'] > 0


def test_pollster_without_exporter_needs_no_rights_of_root(
    libvirtd: lab.Libvirtd, guest: lab_guests.Guest
) -> None:
    described = exporters.Exporter(libvirtd.uri)
    described.write_config()

    answer = described.pollster('instances', launcher=STRANGER)
    described.close()

    assert [entry['resource_id'] for entry in answer.entries] == [guest.uuid]


def _group_number() -> int:
    return grp.getgrnam(GROUP).gr_gid
