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


"""Whether network namespaces can be read, for ``oie-status host check``."""

from oslo_config import cfg

from oie import exceptions
from oie import model
from oie.cmd import check_table
from oie.cmd import wiring
from oie.config import netns_settings
from oie.sources import mount_propagation

NAME = 'Network namespaces'
ADVICE = (
    'Give the service CAP_SYS_ADMIN and CAP_NET_ADMIN (AmbientCapabilities of its unit), or set '
    '[netns] enabled = false.'
)
Row = check_table.Row
# Seconds for which what was read is good, however slow this host is.
AGE = 60.0
_OK, _WARNING = check_table.Result.OK, check_table.Result.WARNING


def rows(conf: cfg.ConfigOpts) -> tuple[Row, ...]:
    """Return rows if namespaces are to be read; they are read once, which writes nothing."""
    if not conf.netns.enabled:
        return ()
    try:
        source = wiring.network_namespaces(conf)
        settings = netns_settings.of(conf.netns)
    except exceptions.ConfigError as exc:
        return (Row(NAME, check_table.Result.FAILURE, str(exc), 'Correct the file.'),)
    if source is None:
        return ()
    reading = source.read((), AGE)['namespaces']
    source.close()
    if reading.value is None or reading.error:
        return (Row(NAME, _WARNING, reading.error or 'nothing was read', ADVICE),)
    found = [_found(conf, reading)]
    if settings.notes:
        found.append(Row(f'{NAME}: file', check_table.Result.INFO, '; '.join(settings.notes)))
    return tuple(found)


def _found(conf: cfg.ConfigOpts, reading: model.Reading[model.NamespaceTable | None]) -> Row:
    """Tell what one pass found, and what it could not read."""
    table = reading.value or model.NamespaceTable(found=0)
    directory = conf.netns.directory
    devices = sum(len(each.devices or ()) for each in table.namespaces)
    detail = (
        f'{len(table.namespaces)} of {table.found} in {directory} read, with {devices} devices, '
        f'in {reading.seconds:.2f} s'
    )
    if table.filtered:
        detail += f'; left out by filters: {table.filtered}'
    is_shown = table.skipped.get('stale') or mount_propagation.is_apart()
    private = mount_propagation.problem(directory) if is_shown else ''
    failed = sorted({part for each in table.namespaces for part in each.failures})
    skipped = [f'{number} {reason}' for reason, number in sorted(table.skipped.items())]
    if skipped:
        detail += f'; skipped: {", ".join(skipped)}'
    if failed:
        detail += f'; not everywhere read: {", ".join(failed)}'
    if private:
        return Row(NAME, _WARNING, detail, private)
    if failed:
        return Row(NAME, _WARNING, detail, ADVICE)
    if skipped:
        return Row(NAME, _WARNING, detail, f'See what lies in {directory}: ls -l, ip netns.')
    if not table.found:
        advice = 'A container needs this directory of the host.'
        return Row(NAME, check_table.Result.INFO, f'none in {directory}', advice)
    return Row(NAME, _OK, detail)
