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

"""A driver of another package: installed, named in the options, and its list is there."""

import os
import pathlib
import subprocess
import urllib.request

from tests.functional import exporter as exporters
from tests.functional import processes

DRIVER = """\
from oie.feeds import base


class ReversedFeed(base.ThreatFeed):
    OPTS = base.options(url='https://lists.example.org/')

    def sources(self):
        return (self.settings.secret_header,)

    def parse(self, document):
        for line in document.decode('ascii', 'replace').splitlines():
            yield line[::-1]
"""
CONFIG = """\
[exporter]
listen_address = 127.0.0.1:{port}
socket_path =
[collector]
interval = 1
[libvirt]
uri = test:///default
suspects_path =
[ledger]
enabled = false
[conntrack]
enabled = false
[threats]
enabled_feeds = backwards, again
cache_dir = {directory}/cache
[feed_backwards]
secret_header = {directory}/list.txt
[feed_again]
driver = backwards
secret_header = {directory}/list.txt
"""


def installed(directory: pathlib.Path) -> dict[str, str]:
    """Put a package there, as pip does; return an environment in which it is seen."""
    (directory / 'oie_backwards.py').write_text(DRIVER)
    about = directory / 'oie_backwards-1.0.dist-info'
    about.mkdir()
    (about / 'METADATA').write_text('Metadata-Version: 2.1\nName: oie-backwards\nVersion: 1.0\n')
    (about / 'entry_points.txt').write_text(
        '[oie.threat_feeds]\nbackwards = oie_backwards:ReversedFeed\n'
    )
    return {**os.environ, 'PYTHONPATH': str(directory), 'XDG_CACHE_HOME': str(directory)}


def has_both_lists(port: int) -> bool:
    """Whether both lists of the driver are in use."""
    try:
        with urllib.request.urlopen(f'http://127.0.0.1:{port}/metrics', timeout=2) as answer:
            text = answer.read().decode()
    except OSError:
        return False
    return all(f'oie_{name}_entries 2\n' in text for name in ('backwards', 'again'))


def test_a_strangers_driver_works_without_a_change_here(tmp_path: pathlib.Path) -> None:
    environment = installed(tmp_path)
    (tmp_path / 'list.txt').write_text('8.7.6.5\n42/0.9.8.54\n')
    port = processes.free_port()
    config = tmp_path / 'oie.conf'
    config.write_text(CONFIG.format(port=port, directory=tmp_path))
    command = [exporters.BIN / 'oie-exporter', '--config-file', config]
    with subprocess.Popen(command, env=environment) as process:
        try:
            processes.wait_for(lambda: has_both_lists(port), 20, 'both lists of the driver')
        finally:
            process.terminate()
